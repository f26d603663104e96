//! What the suites of undici's cache interceptor and of its deduplication check, over the whole engine; and what these do not
//! do as RFC 9111 has it, done as it has it. The numbers are those of `docs/cases.md`.

use std::time::Duration;

use futures_util::future::join_all;
use http::header::HeaderName;
use larder_http::policy::Policy;

use crate::scene::{Scene, after, down, fed, get, now, private, read, request, response};

const SECOND: Duration = Duration::from_secs(1);

/// Answers once with these fields, later with 304 if it is asked on a condition, and counts.
fn confirming(
    fields: &'static [(&'static str, &'static str)],
    later: &'static [(&'static str, &'static str)],
) -> Scene {
    Scene::new(move |nth, request| match nth {
        1 => now(response(200, fields, "1")),
        _ if request.headers().contains_key("if-none-match") => now(response(304, later, "")),
        _ => now(response(200, fields, nth.to_string())),
    })
}

// U24, U27, U41.
#[tokio::test]
async fn what_is_fresh_answers_until_it_is_not() {
    for fields in [
        &[("cache-control", "max-age=10")][..],
        &[("cache-control", "s-maxage=10, max-age=1")],
        &[
            ("expires", "Fri, 15 Jan 2027 08:00:10 GMT"),
            ("date", "Fri, 15 Jan 2027 08:00:00 GMT"),
            ("etag", "\"a\""),
        ],
        &[("cache-control", "max-age=20"), ("age", "10")],
        &[("cache-control", "max-age=20"), ("date", "Fri, 15 Jan 2027 07:59:50 GMT")],
        // A date to come makes nothing fresh for longer.
        &[("cache-control", "max-age=10"), ("date", "Fri, 15 Jan 2027 09:00:00 GMT")],
    ] {
        let scene = Scene::new(move |nth, _| now(response(200, fields, nth.to_string())));
        scene.get("/a").await;
        scene.pass(9 * SECOND);
        assert!(scene.get("/a").await.is_hit(), "{fields:?}");
        scene.pass(2 * SECOND);
        assert!(!scene.get("/a").await.is_hit(), "{fields:?}");
        assert_eq!(scene.asked(), 2, "{fields:?}");
    }
}

// U25, U28, U46.
#[tokio::test]
async fn a_validation_carries_what_the_response_depends_on_and_nothing_that_was_not_there() {
    let fields = &[("cache-control", "max-age=1"), ("etag", "\"a\""), ("vary", "x-a, x-b")];
    let scene = Scene::new(move |nth, request| match nth {
        1 => now(response(200, fields, "1")),
        _ if !request.headers().contains_key("x-a") => now(response(200, fields, "other")),
        _ => {
            assert_eq!(request.headers()["x-a"], "1");
            assert!(!request.headers().contains_key("x-b"));
            assert_eq!(request.headers()["if-none-match"], "\"a\"");
            now(response(304, fields, ""))
        }
    });
    let ask = || scene.ask(get("/a", &[("x-a", "1")]));
    ask().await;
    assert!(ask().await.is_hit(), "a field that is missing is no obstacle");
    scene.pass(2 * SECOND);
    assert_eq!(ask().await.body, "1");
    assert!(ask().await.is_hit());
    assert!(!scene.get("/a").await.is_hit(), "another variant");
    assert_eq!(scene.asked(), 3);
}

// U25: several lines and spaces mean the same, which undici compares as they are written.
#[tokio::test]
async fn what_means_the_same_is_the_same_variant() {
    let fields = &[("cache-control", "max-age=60"), ("vary", "Accept-Language"), ("vary", "x-list")];
    let scene = Scene::new(move |nth, _| now(response(200, fields, nth.to_string())));
    scene.ask(get("/a", &[("accept-language", "en, de"), ("x-list", "a, b")])).await;
    for same in [
        &[("accept-language", "en,de"), ("x-list", "a,b")][..],
        &[("accept-language", "en"), ("accept-language", "de"), ("x-list", "a"), ("x-list", "b")],
        &[("accept-language", "EN ,DE"), ("x-list", " a ,  b")],
    ] {
        assert!(scene.ask(get("/a", same)).await.is_hit(), "{same:?}");
    }
    assert!(!scene.ask(get("/a", &[("accept-language", "en, de"), ("x-list", "b, a")])).await.is_hit());
}

// U25, U39, U43.
#[tokio::test(start_paused = true)]
async fn many_stale_hits_are_one_validation_which_keeps_the_variant() {
    const FIELDS: &[(&str, &str)] =
        &[("cache-control", "max-age=10, stale-while-revalidate=60"), ("etag", "\"a\""), ("vary", "x-a")];
    for status in [304, 200] {
        let scene = Scene::new(move |nth, _| match nth {
            1 => now(response(200, FIELDS, "old")),
            _ => after(SECOND, response(status, FIELDS, if status == 200 { "new" } else { "" })),
        });
        let ask = || scene.ask(get("/a", &[("x-a", "1")]));
        ask().await;
        scene.pass(11 * SECOND);
        // undici asks twenty times.
        for got in join_all((0..20).map(|_| ask())).await {
            assert_eq!((got.body.as_str(), got.is_hit()), ("old", true));
        }
        tokio::time::sleep(2 * SECOND).await;
        let got = ask().await;
        assert_eq!((got.body.as_str(), got.is_hit()), (if status == 200 { "new" } else { "old" }, true));
        assert_eq!(scene.asked(), 2);
    }
}

// U26.
#[tokio::test]
async fn no_cache_and_max_age_0_are_confirmed_each_time_also_where_caching_is_the_default() {
    for control in ["no-cache", "max-age=0", "max-age=60, no-cache", "no-cache, immutable"] {
        let fields: &'static [(&str, &str)] = vec![("cache-control", control), ("etag", "\"a\"")].leak();
        let scene = Scene::with(
            |builder| builder.policy(by_default(Policy::shared())),
            move |nth, request| match nth {
                1 => now(response(200, fields, "1")),
                _ => {
                    assert_eq!(request.headers()["if-none-match"], "\"a\"", "{control}");
                    now(response(304, &[("etag", "\"a\"")], ""))
                }
            },
        );
        for nth in 1..4 {
            assert_eq!((scene.get("/a").await.body.as_str(), scene.asked()), ("1", nth), "{control}");
        }
    }
}

fn by_default(mut policy: Policy) -> Policy {
    policy.cache_by_default = 60 * SECOND;
    policy
}

// U32: `cacheByDefault`.
#[tokio::test]
async fn what_says_nothing_is_kept_as_long_as_the_cache_is_told() {
    let with = |fields: &'static [(&'static str, &'static str)], status: u16, is_on: bool| {
        Scene::with(
            move |builder| if is_on { builder.policy(by_default(Policy::shared())) } else { builder },
            move |nth, _| now(response(status, fields, nth.to_string())),
        )
    };
    for (fields, status, is_on, is_kept) in [
        (&[][..], 200, true, true),
        (&[], 200, false, false),
        (&[], 404, true, true),
        (&[("cache-control", "foo")], 200, true, true),
        (&[("cache-control", "must-revalidate")], 200, true, true),
        // Not of those that may be kept without being told to.
        (&[], 302, true, false),
        (&[], 500, true, false),
        // These say something, and are not revived.
        (&[("cache-control", "max-age=0")], 200, true, false),
        (&[("cache-control", "max-age=-1")], 200, true, false),
        (&[("cache-control", "max-age=1.5")], 200, true, false),
        (&[("cache-control", "max-age=")], 200, true, false),
        (&[("cache-control", "max-age = 60")], 200, true, false),
        (&[("cache-control", "s-maxage=0")], 200, true, false),
        (&[("cache-control", "s-maxage=x, max-age=60")], 200, true, false),
        (&[("cache-control", "no-cache")], 200, true, false),
        (&[("cache-control", "no-store")], 200, true, false),
        (&[("cache-control", "private")], 200, true, false),
        (&[("cache-control", "foo=\"no-store")], 200, true, false),
        (&[("expires", "0")], 200, true, false),
        (&[("expires", "")], 200, true, false),
        (&[("expires", "Thu, 01 Jan 1970 00:00:00 GMT")], 200, true, false),
        (&[("expires", "Fri, 01 Jan 2100 00:00:00 GMT"), ("expires", "0")], 200, true, false),
        (&[("vary", "*")], 200, true, false),
        (&[("age", "61")], 200, true, false),
        // One that was meant to say something, and does not.
        (&[("last-modified", "yesterday")], 200, true, false),
        (&[("last-modified", "Fri, 01 Jan 2100 00:00:00 GMT")], 200, true, false),
        // Nobody said that a cookie is for all.
        (&[("set-cookie", "a=b")], 200, true, false),
    ] {
        let scene = with(fields, status, is_on);
        scene.get("/a").await;
        scene.pass(59 * SECOND);
        assert_eq!(scene.get("/a").await.is_hit(), is_kept, "{fields:?} {status} {is_on}");
        scene.pass(2 * SECOND);
        assert!(!scene.get("/a").await.is_hit(), "{fields:?} {status}");
    }
    let scene = with(&[], 200, true);
    scene.ask(get("/a", &[("authorization", "x")])).await;
    assert!(!scene.get("/a").await.is_hit(), "nor an answer to somebody");
}

// U29.
#[tokio::test]
async fn unsafe_requests_invalidate_if_they_succeed_and_are_never_answered_from_the_cache() {
    const FRESH: &[(&str, &str)] = &[("cache-control", "max-age=600")];
    for (method, status, location, is_gone) in [
        ("POST", 200, "", true),
        ("PUT", 204, "", true),
        ("PATCH", 302, "", true),
        ("DELETE", 404, "", false),
        ("DELETE", 500, "", false),
        ("PURGE", 200, "", true),
        ("PURGE", 405, "", false),
        ("OPTIONS", 200, "", false),
        ("POST", 201, "http://example.com/b", true),
        ("POST", 201, "http://other.example/b", true),
    ] {
        let scene = Scene::new(move |nth, request| match request.method().as_str() {
            "GET" => now(response(200, FRESH, nth.to_string())),
            _ if location.is_empty() => now(response(status, FRESH, nth.to_string())),
            _ => now(response(status, &[("location", location)], "")),
        });
        let path = if location.is_empty() { "/a" } else { "/b" };
        scene.get(path).await;
        scene.get("/a").await;
        let asked = scene.asked();
        for nth in 1..3 {
            let got = scene.ask(request(method, "/a", &[])).await;
            assert_eq!((got.status, scene.asked()), (status, asked + nth), "{method} {status}");
        }
        let is_elsewhere = location.starts_with("http://other");
        assert_eq!(scene.get(path).await.is_hit(), !is_gone || is_elsewhere, "{method} {status} {location}");
    }
}

// U33; in undici, any `Cache-Control` in a 304 deletes what it confirms, and none renews nothing.
#[tokio::test]
async fn a_304_renews_or_forbids_and_its_fields_count() {
    const FIELDS: &[(&str, &str)] = &[("cache-control", "max-age=10"), ("etag", "\"a\""), ("x-old", "1")];
    for (later, is_kept) in [
        (&[("etag", "\"a\"")][..], true),
        (&[("cache-control", "max-age=10"), ("etag", "\"a\"")], true),
        (&[("cache-control", "no-store"), ("etag", "\"a\"")], false),
        (&[("cache-control", "private"), ("etag", "\"a\"")], false),
        (&[("vary", "*"), ("etag", "\"a\"")], false),
        (&[("vary", "a b"), ("etag", "\"a\"")], false),
        (&[("cache-control", "no-cache"), ("etag", "\"a\"")], false),
    ] {
        let scene = confirming(FIELDS, later);
        scene.get("/a").await;
        scene.pass(11 * SECOND);
        let got = scene.get("/a").await;
        assert_eq!((got.status, got.body.as_str()), (200, "1"), "{later:?}");
        assert_eq!(got.header("warning"), "", "it is not stale any more");
        assert_eq!(scene.get("/a").await.is_hit(), is_kept, "{later:?}");
    }
    let scene = confirming(FIELDS, &[("etag", "\"a\""), ("x-old", "2"), ("x-new", "3")]);
    scene.get("/a").await;
    scene.pass(11 * SECOND);
    scene.get("/a").await;
    let got = scene.get("/a").await;
    assert_eq!((got.header("x-old"), got.header("x-new"), got.is_hit()), ("2", "3", true));
}

// U34, U36.
#[tokio::test]
async fn stale_if_error_covers_failures_in_its_window_unless_that_is_forbidden() {
    for (control, wish, is_covered) in [
        ("max-age=10, stale-if-error=60", "", true),
        ("max-age=10", "stale-if-error=60", true),
        ("max-age=10", "", false),
        ("max-age=10, stale-if-error=60, must-revalidate", "", false),
        ("max-age=10, stale-if-error=60, proxy-revalidate", "", false),
        ("s-maxage=10, stale-if-error=60", "", false),
    ] {
        let fields: &'static [(&str, &str)] = vec![("cache-control", control)].leak();
        for failure in [500, 502, 503, 504] {
            let scene = Scene::new(move |nth, _| match nth {
                1 => now(response(200, fields, "good")),
                _ => now(response(failure, &[], "bad")),
            });
            scene.get("/a").await;
            scene.pass(30 * SECOND);
            let wishes = if wish.is_empty() { vec![] } else { vec![("cache-control", wish)] };
            let got = scene.ask(get("/a", &wishes)).await;
            assert_eq!(got.body == "good", is_covered, "{control} {wish} {failure}");
        }
    }
}

// U35; in undici, something stale goes to the origin all the same, and a bare `max-stale` is dropped.
#[tokio::test]
async fn wishes_of_requests_are_met() {
    for (control, wish, after_seconds, status, is_hit) in [
        ("max-age=60", "max-age=10", 5, 200, true),
        ("max-age=60", "max-age=10", 11, 200, false),
        ("max-age=60", "max-age=0", 1, 200, false),
        ("max-age=60", "no-cache", 0, 200, false),
        ("max-age=60", "min-fresh=30", 20, 200, true),
        ("max-age=60", "min-fresh=30", 40, 200, false),
        ("max-age=10", "max-stale=10", 15, 200, true),
        ("max-age=10", "max-stale=10", 25, 200, false),
        ("max-age=10", "max-stale", 1000, 200, true),
        ("max-age=10, must-revalidate", "max-stale=10", 15, 200, false),
        ("max-age=10, proxy-revalidate", "max-stale=10", 15, 200, false),
        ("s-maxage=10", "max-stale=10", 15, 200, false),
        ("max-age=60", "only-if-cached", 5, 200, true),
        ("max-age=10", "only-if-cached", 11, 504, false),
        ("max-age=10", "only-if-cached, max-stale=5", 12, 200, true),
    ] {
        let fields: &'static [(&str, &str)] = vec![("cache-control", control), ("etag", "\"a\"")].leak();
        let scene = Scene::new(move |_, _| now(response(200, fields, "x")));
        scene.get("/a").await;
        scene.pass(after_seconds * SECOND);
        let got = scene.ask(get("/a", &[("cache-control", wish)])).await;
        assert_eq!((got.status, got.is_hit()), (status, is_hit), "{control} {wish} {after_seconds}");
        assert_eq!(scene.asked(), 1 + usize::from(status == 200 && !is_hit), "{control} {wish}");
    }
    let scene = Scene::new(|_, _| now(response(200, &[("cache-control", "max-age=60")], "x")));
    scene.ask(get("/a", &[("cache-control", "No-Store")])).await;
    assert_eq!(scene.store.responses(), 0);
    scene.get("/a").await;
    assert!(!scene.ask(get("/a", &[("pragma", "no-cache")])).await.is_hit());
}

// U38, and what undici answers with 200 and everything.
#[tokio::test]
async fn conditions_and_ranges_are_answered_as_they_were_meant_and_to_nobody_else() {
    let scene = Scene::new(|_, request| {
        let asked = |name: &str| request.headers().contains_key(name);
        if asked("if-none-match") {
            return now(response(304, &[("cache-control", "max-age=60"), ("etag", "\"a\"")], ""));
        }
        if asked("range") {
            let (place, part) =
                if asked("if-range") { ("bytes 2-4/5", "llo") } else { ("bytes 0-1/5", "he") };
            let fields = [("cache-control", "max-age=60"), ("etag", "\"a\""), ("content-range", place)];
            return now(response(206, &fields, part));
        }
        now(response(200, &[("cache-control", "max-age=60"), ("etag", "\"a\"")], "hello"))
    });
    assert_eq!(scene.ask(get("/a", &[("if-none-match", "\"a\"")])).await.status, 304);
    assert_eq!(scene.ask(get("/a", &[("range", "bytes=0-1")])).await.status, 206);
    let got = scene.get("/a").await;
    assert_eq!((got.status, got.body.as_str(), got.is_hit()), (200, "hello", false));
    let got = scene.ask(get("/a", &[("if-none-match", "\"a\"")])).await;
    assert_eq!((got.status, got.is_hit()), (304, true));
    let got = scene.ask(get("/a", &[("range", "bytes=1-2")])).await;
    assert_eq!((got.status, got.body.as_str(), got.is_hit()), (206, "el", true));
    assert_eq!(scene.asked(), 3);
}

// U37.
#[tokio::test]
async fn statuses_are_kept_if_they_say_so_or_are_known_to_be_keepable() {
    const OLD: (&str, &str) = ("last-modified", "Wed, 01 Jan 2020 00:00:00 GMT");
    for status in [204, 301, 302, 307, 404, 410, 418, 500] {
        let scene = Scene::new(move |_, _| now(response(status, &[("cache-control", "max-age=60")], "")));
        scene.get("/a").await;
        assert!(scene.get("/a").await.is_hit(), "{status}");
    }
    for (status, is_kept) in [
        (200, true),
        (204, true),
        (301, true),
        (404, true),
        (201, false),
        (302, false),
        (307, false),
        (418, false),
        (500, false),
    ] {
        let scene = Scene::new(move |_, _| now(response(status, &[OLD], "")));
        scene.get("/a").await;
        assert_eq!(scene.get("/a").await.is_hit(), is_kept, "{status}");
    }
}

// U42; undici asks the same of a private cache, which has nobody to keep it from.
#[tokio::test]
async fn answers_to_somebody_are_for_all_only_if_they_say_so_and_for_themselves_always() {
    for (control, is_kept) in [
        ("max-age=60", false),
        ("public, max-age=60", true),
        ("s-maxage=60", true),
        ("must-revalidate, max-age=60", true),
        ("public=x, max-age=60", false),
        ("s-maxage=x, max-age=60", false),
        ("s-maxage=\"60, max-age=60", false),
        ("must-revalidate=x, max-age=60", false),
        ("public; max-age=60", false),
        ("private, s-maxage=60", false),
        ("proxy-revalidate, max-age=60", false),
        ("immutable, max-age=60", false),
    ] {
        let fields: &'static [(&str, &str)] = vec![("cache-control", control)].leak();
        let scene = Scene::new(move |_, _| now(response(200, fields, "x")));
        scene.ask(get("/a", &[("authorization", "1")])).await;
        assert_eq!(scene.get("/a").await.is_hit(), is_kept, "{control}");
    }
    let scene = Scene::with(
        |builder| builder.policy(private()),
        |_, _| now(response(200, &[("cache-control", "max-age=60")], "x")),
    );
    scene.ask(get("/a", &[("authorization", "1")])).await;
    assert!(scene.ask(get("/a", &[("authorization", "1")])).await.is_hit());
}

// U23, U44.
#[tokio::test]
async fn queries_are_compared_as_they_are() {
    let scene = Scene::new(|_, request| {
        now(response(200, &[("cache-control", "max-age=60")], request.uri().to_string()))
    });
    let paths = ["/a", "/a?", "/a?x=1", "/a?x=2", "/a?x=1&y=2", "/a?y=2&x=1", "/a?x[]=1", "/a?x=%31", "/"];
    for _ in 0..2 {
        for path in paths {
            assert_eq!(scene.get(path).await.body, format!("http://example.com{path}"));
        }
    }
    assert_eq!(scene.asked(), paths.len());
}

// U40: `origins`, and `methods`, which are one question here.
#[tokio::test]
async fn only_what_is_admitted_is_answered_from_the_cache_or_kept() {
    let scene = Scene::with(
        |builder| {
            builder
                .only(|request| request.method != http::Method::HEAD && request.uri.path().starts_with("/in"))
        },
        |nth, _| now(response(200, &[("cache-control", "max-age=60")], nth.to_string())),
    );
    for _ in 0..2 {
        let got = scene.get("/out").await;
        assert_eq!((got.is_hit(), got.cache_status()), (false, "Larder; fwd=bypass"));
    }
    assert_eq!((scene.store.responses(), scene.asked()), (0, 2));
    scene.get("/in").await;
    assert!(scene.get("/in").await.is_hit());
    assert!(!scene.ask(request("HEAD", "/in", &[])).await.is_hit());
    assert!(scene.get("/in").await.is_hit(), "what was passed on leaves it alone");
    // Origins that are not kept: none at all.
    let none = Scene::with(
        |builder| builder.only(|_| false),
        |nth, _| now(response(200, &[("cache-control", "max-age=60")], nth.to_string())),
    );
    none.get("/a").await;
    assert_eq!((none.get("/a").await.body.as_str(), none.store.responses()), ("2", 0));
}

#[tokio::test]
async fn what_is_not_admitted_invalidates_what_it_changes() {
    let scene = Scene::with(
        |builder| builder.only(|request| request.method == http::Method::GET),
        |nth, _| now(response(200, &[("cache-control", "max-age=60")], nth.to_string())),
    );
    scene.get("/a").await;
    scene.ask(request("POST", "/a", &[])).await;
    assert!(!scene.get("/a").await.is_hit());
}

// U47–U51: what may be answered together, and what may not.
#[tokio::test(start_paused = true)]
async fn the_same_is_asked_once_and_what_differs_is_asked_for_itself() {
    async fn asked(
        first: http::Request<larder_http::Body>,
        second: http::Request<larder_http::Body>,
    ) -> usize {
        let scene = Scene::new(|nth, request| {
            let has_vary = request.uri().path() == "/vary";
            let fields: &[_] = if has_vary {
                &[("cache-control", "max-age=60"), ("vary", "x-a, cookie")]
            } else {
                &[("cache-control", "max-age=60")]
            };
            after(SECOND, response(200, fields, nth.to_string()))
        });
        let (one, other) = tokio::join!(scene.ask(first), scene.ask(second));
        assert!(one.status == 200 && other.status == 200);
        scene.asked()
    }
    let with = |path: &str, name: &str, value: &str| get(path, &[(name, value)]);
    assert_eq!(asked(get("/a", &[]), get("/a", &[])).await, 1);
    assert_eq!(asked(get("/a", &[]), get("/b", &[])).await, 2);
    assert_eq!(asked(get("/a", &[]), get("/a?x", &[])).await, 2);
    // Fields that nothing depends on do not tell requests apart; undici's `skipHeaderNames` is `Vary` here.
    assert_eq!(asked(with("/a", "x-a", "1"), with("/a", "x-a", "2")).await, 1);
    assert_eq!(asked(with("/vary", "x-a", "1"), with("/vary", "X-A", "1")).await, 1);
    assert_eq!(asked(with("/vary", "x-a", "1"), with("/vary", "x-a", "2")).await, 2);
    assert_eq!(asked(with("/vary", "cookie", "1"), with("/vary", "cookie", "2")).await, 2);
    assert_eq!(asked(with("/a", "authorization", "1"), with("/a", "authorization", "2")).await, 2);
    // Unsafe ones, and those with wishes of their own, are never joined.
    assert_eq!(asked(request("POST", "/a", &[]), request("POST", "/a", &[])).await, 2);
    assert_eq!(asked(get("/a", &[]), with("/a", "cache-control", "no-store")).await, 2);
}

// U52–U54: errors reach all who wait, and leave nothing behind.
#[tokio::test(start_paused = true)]
async fn a_failure_reaches_all_who_wait_and_the_next_one_asks_again() {
    let scene = Scene::new(|nth, _| match nth {
        1 => Box::pin(async {
            tokio::time::sleep(SECOND).await;
            down().await
        }),
        _ => now(response(200, &[("cache-control", "max-age=60")], "good")),
    });
    for got in join_all((0..20).map(|_| scene.send(get("/a", &[])))).await {
        assert!(got.is_err());
    }
    assert_eq!((scene.asked(), scene.cache.stats().in_flight), (1, 0));
    assert_eq!(scene.get("/a").await.body, "good");
}

// U55–U60: pieces; one who comes late; one who goes; a body that breaks off.
#[tokio::test]
async fn who_comes_late_gets_all_of_it_and_who_goes_takes_nothing_along() {
    let (pieces, body) = fed(None);
    let body = parking_lot::Mutex::new(Some(body));
    let scene = Scene::new(move |_, _| {
        now(response(200, &[("cache-control", "max-age=60")], body.lock().take().unwrap()))
    });
    let first = scene.send(get("/a", &[])).await.unwrap();
    pieces.send(Ok("hel".into())).await.unwrap();
    // undici sends one who comes after the first piece to the origin.
    let late = scene.send(get("/a", &[])).await.unwrap();
    drop(first);
    pieces.send(Ok("lo".into())).await.unwrap();
    drop(pieces);
    assert_eq!(read(late).await.unwrap().body, "hello");
    assert!(scene.get("/a").await.is_hit());
    assert_eq!(scene.asked(), 1);
}

#[tokio::test]
async fn what_breaks_off_breaks_off_for_all_and_is_asked_for_again() {
    let (pieces, body) = fed(None);
    let body = parking_lot::Mutex::new(Some(body));
    let scene = Scene::new(move |_, _| {
        let body = body.lock().take().unwrap_or_else(|| "good".into());
        now(response(200, &[("cache-control", "max-age=60")], body))
    });
    let all = join_all((0..5).map(|_| scene.send(get("/a", &[])))).await;
    pieces.send(Ok("hel".into())).await.unwrap();
    pieces.send(Err("it is gone".into())).await.unwrap();
    for got in all {
        assert!(read(got.unwrap()).await.is_err());
    }
    assert_eq!((scene.get("/a").await.body.as_str(), scene.asked()), ("good", 2));
}

// U30: what belongs to a connection is named in any case, with spaces.
#[tokio::test]
async fn fields_of_a_connection_and_private_ones_are_in_no_hit() {
    let scene = Scene::new(|_, _| {
        let fields = [
            ("cache-control", "max-age=60, private=\" X-Mine , set-cookie\""),
            ("connection", " X-Hop ,close"),
            ("x-hop", "1"),
            ("proxy-authenticate", "Basic"),
            ("x-mine", "1"),
            ("set-cookie", "a=b"),
            ("x-all", "1"),
        ];
        now(response(200, &fields, "x"))
    });
    scene.get("/a").await;
    let got = scene.get("/a").await;
    assert!(got.is_hit());
    for name in ["x-hop", "connection", "proxy-authenticate", "x-mine", "set-cookie"] {
        assert!(!got.headers.contains_key(HeaderName::from_static(name)), "{name}");
    }
    assert_eq!(got.header("x-all"), "1");
}

// U31, and what undici does not store at all.
#[tokio::test]
async fn broken_quotes_swallow_nothing_and_must_understand_is_understood() {
    for (control, is_kept) in [
        ("max-age=60, no-cache=\"x, no-store", false),
        ("max-age=60, private=\"x, no-store", false),
        ("no-store, must-understand, max-age=60", true),
        ("max-age=60, x=\"a, no-store\"", true),
    ] {
        let fields: &'static [(&str, &str)] = vec![("cache-control", control)].leak();
        let scene = Scene::new(move |_, _| now(response(200, fields, "x")));
        scene.get("/a").await;
        assert_eq!(
            (scene.get("/a").await.is_hit(), scene.store.responses() > 0),
            (is_kept, is_kept),
            "{control}"
        );
    }
}
