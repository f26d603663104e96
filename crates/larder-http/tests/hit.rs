//! What judging a hit costs: no allocation, whatever the request says in its usual form.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failing test ends in a panic")]

use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderName, HeaderValue, request};
use larder_http::policy::{Answer, Exchange, Policy, Stored, Verdict};

fn get(fields: &[(&'static str, &'static str)]) -> request::Parts {
    let (mut parts, ()) = http::Request::get("http://example.com/").body(()).unwrap().into_parts();
    for (name, value) in fields {
        parts.headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    parts
}

#[test]
fn judging_a_hit_allocates_nothing() {
    let policy = Policy::shared();
    let came = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let usual = [
        ("accept-encoding", "gzip, deflate, br, zstd"),
        ("accept", "text/html, */*;q=0.8"),
        ("cache-control", "max-age=600"),
    ];
    let request = get(&usual);
    let response = http::Response::builder()
        .header("cache-control", "public, max-age=3600, stale-while-revalidate=60, private=\"x-user\"")
        .header("vary", "accept-encoding, accept")
        .header("etag", "\"a\"");
    let (response, ()) = response.body(()).unwrap().into_parts();
    let stored = policy.store(&request, &response, Exchange::at(came)).unwrap().with_body_bytes(100);
    let others: Vec<Stored> = (0..3).map(|_| stored.clone()).collect();

    for request in [request, get(&[usual[0], usual[1], ("if-none-match", "\"b\", \"a\"")])] {
        let mut answer = None;
        let measured = allocation_counter::measure(|| {
            let now = came + Duration::from_secs(60);
            let selected = policy.select(&request, &others);
            let verdict = policy.verdict(&request, selected, now);
            assert!(matches!(verdict, Verdict::Serve { .. }));
            answer = stored.answer(&request);
        });
        let expected =
            if request.headers.contains_key("if-none-match") { Answer::NotModified } else { Answer::Whole };
        assert_eq!((measured.count_total, answer), (0, Some(expected)));
    }
}
