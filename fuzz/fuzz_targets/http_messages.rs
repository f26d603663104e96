//! A request and a response of any bytes through everything that the HTTP policy reads of them.
#![no_main]

use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use larder_http::header::{NoVarySearch, connection};
use larder_http::policy::{Exchange, Invalidation, Policy, Stored};

/// The fields that something looks at.
const NAMES: [&str; 28] = [
    "age",
    "authorization",
    "accept-language",
    "cache-control",
    "cache-group-invalidation",
    "cache-groups",
    "cdn-cache-control",
    "connection",
    "content-length",
    "content-location",
    "content-range",
    "cookie",
    "date",
    "etag",
    "expires",
    "foo",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "last-modified",
    "location",
    "no-vary-search",
    "pragma",
    "range",
    "set-cookie",
    "vary",
    "x-else",
];

type Fields<'a> = Vec<(u8, &'a [u8])>;

fn map(fields: Fields<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let name = HeaderName::from_static(NAMES[usize::from(name) % NAMES.len()]);
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(name, value);
        }
    }
    headers
}

libfuzzer_sys::fuzz_target!(|input: (u16, u8, u32, bool, Fields<'_>, Fields<'_>, Fields<'_>)| {
    let (status, method, later, shared, asked, answered, then) = input;
    let (mut request, ()) = http::Request::get("http://example.com/a/b?c").body(()).unwrap().into_parts();
    request.headers = map(asked);
    request.method = [Method::GET, Method::GET, Method::HEAD, Method::POST][usize::from(method % 4)].clone();
    let (mut response, ()) = http::Response::new(()).into_parts();
    response.headers = map(answered);
    response.status = StatusCode::from_u16(100 + status % 900).unwrap();
    connection::strip(&mut request.headers);

    let policy = if shared { Policy::shared() } else { Policy::private() };
    let came = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let _ = Invalidation::of(&request, &response);
    let _ = NoVarySearch::parse(&response.headers).map(|rule| rule.normalize("a=b&c=d"));
    let Ok(stored) = policy.store(&request, &response, Exchange::at(came)) else { return };
    let stored = stored.with_body_bytes(u64::from(later % 64));
    assert_eq!(Stored::new(&policy, stored.clone().into_kept()), stored);

    let now = came + Duration::from_millis(later.into());
    request.headers = map(then);
    request.method = Method::GET;
    let selected = policy.select(&request, [&stored]);
    let _ = policy.verdict(&request, selected, now);
    if let Some(answer) = stored.answer(&request) {
        let _ = stored.respond(&answer, false, now);
    }
    let _ = policy.after_validation(&request, &stored, &response, Exchange::at(now));
    let _ = policy.head(&request, &stored, &response, Exchange::at(now));
    let _ = (stored.completion(), stored.groups(), policy.combine(&stored, &stored));
});
