//! When stale responses are used, and when nothing in the world permits it (RFC 9111 section 4.2.4, RFC 5861).

use std::time::Duration;

use larder_http::policy::{Policy, Reason};

use crate::cache::{Cache, Origin, get, ok, private, seconds, shared};

const CC: &str = "cache-control";

/// What the client gets when the origin cannot be reached 3 s after a response with these directives came.
fn cut_off(mut cache: Cache, directives: &str, wish: &str) -> (u16, Option<Reason>) {
    cache.ask(&get(&[]), ok(&[(CC, directives), ("etag", "\"a\"")]));
    let got = cache.wait(3).ask(&get(&[(CC, wish)]), Origin::Disconnects);
    (got.status, got.reason)
}

//= https://www.rfc-editor.org/rfc/rfc9111#section-4.2.4
//= type=test
//# A cache MUST NOT generate a stale response if it is prohibited by an
//# explicit in-protocol directive (e.g., by a no-cache response
//# directive, a must-revalidate response directive, or an applicable
//# s-maxage or proxy-revalidate response directive; see Section 5.2.2).
#[test]
fn stale_is_used_when_the_origin_is_cut_off_but_for_four_prohibitions() {
    // stale-close, stale-sie-close, stale-close-must-revalidate, -proxy-revalidate, -no-cache, -s-maxage=2; U36.
    for (directives, in_shared, in_private) in [
        ("max-age=2", Reason::Disconnected, Reason::Disconnected),
        ("max-age=2, stale-if-error=60", Reason::Disconnected, Reason::Disconnected),
        ("max-age=2, must-revalidate", Reason::MustRevalidate, Reason::MustRevalidate),
        ("max-age=2, must-revalidate=x, stale-if-error=60", Reason::MustRevalidate, Reason::MustRevalidate),
        ("max-age=2, proxy-revalidate", Reason::ProxyRevalidate, Reason::Disconnected),
        ("max-age=2, no-cache, stale-if-error=60", Reason::NoCache, Reason::NoCache),
        ("max-age=2, s-maxage=2", Reason::SMaxage, Reason::Disconnected),
        ("max-age=2, s-maxage=x", Reason::SMaxage, Reason::Disconnected),
    ] {
        for (cache, expected) in [(shared(), in_shared), (private(), in_private)] {
            let status = if expected == Reason::Disconnected { 200 } else { 502 };
            assert_eq!(cut_off(cache, directives, "x"), (status, Some(expected)), "{directives}");
        }
    }
}

#[test]
fn how_long_stale_is_used_while_cut_off_is_configured() {
    let mut policy = Policy::shared();
    policy.stale_if_disconnected = seconds(1);
    assert_eq!(cut_off(Cache::new(policy.clone()), "max-age=2", "x").0, 200);
    assert_eq!(cut_off(Cache::new(policy.clone()), "max-age=1", "x"), (502, Some(Reason::NotPermitted)));
    policy.stale_if_disconnected = Duration::ZERO;
    assert_eq!(cut_off(Cache::new(policy.clone()), "max-age=2", "x"), (502, Some(Reason::NotPermitted)));
    // RFC 5861 permits it by itself.
    assert_eq!(
        cut_off(Cache::new(policy), "max-age=2, stale-if-error=60", "x"),
        (200, Some(Reason::IfError))
    );
}

#[test]
fn never_is_never_also_in_the_moment_in_which_freshness_ends() {
    let mut policy = Policy::shared();
    policy.stale_if_disconnected = Duration::ZERO;
    for origin in [Origin::Disconnects, Origin::Answers(503, &[])] {
        let mut cache = Cache::new(policy.clone());
        cache.ask(&get(&[]), ok(&[(CC, "max-age=2, stale-if-error=0"), ("etag", "\"a\"")]));
        let got = cache.wait(2).ask(&get(&[]), origin);
        assert_eq!((got.is_stored, got.reason), (false, Some(Reason::NotPermitted)));
    }
}

#[test]
fn a_request_that_takes_nothing_unvalidated_gets_nothing_when_cut_off() {
    assert_eq!(cut_off(shared(), "max-age=60", "no-cache"), (502, Some(Reason::RequestNoCache)));
    assert_eq!(
        cut_off(shared(), "max-age=60, must-revalidate", "max-age=0"),
        (200, Some(Reason::StillFresh))
    );
}

/// What the client gets when the origin answers with this status 3 s after a response with these directives came.
fn failing(mut cache: Cache, directives: &str, wish: &str, status: u16) -> (u16, bool) {
    cache.ask(&get(&[]), ok(&[(CC, directives), ("etag", "\"a\"")]));
    let got = cache.wait(3).ask(&get(&[(CC, wish)]), Origin::Answers(status, &[]));
    (got.status, got.is_stored)
}

//= https://www.rfc-editor.org/rfc/rfc5861#section-4
//= type=test
//# In this context, an error is any situation which would result in a
//# 500, 502, 503 or 504 HTTP response status code being returned.
#[test]
fn stale_if_error_covers_the_failures_of_servers_in_its_window() {
    // stale-503, stale-sie-503; U34.
    for status in [500, 502, 503, 504] {
        assert_eq!(failing(shared(), "max-age=2, stale-if-error=60", "x", status), (200, true));
        assert_eq!(
            failing(shared(), "max-age=2", "stale-if-error=60", status),
            (200, true),
            "in the request"
        );
        assert_eq!(failing(shared(), "max-age=2", "x", status), (status, false), "nothing permits it");
    }
    for status in [501, 505, 404, 403, 200] {
        assert_eq!(failing(shared(), "max-age=2, stale-if-error=60", "x", status), (status, false));
    }
    for strict in ["must-revalidate", "proxy-revalidate", "s-maxage=2", "no-cache"] {
        let directives = format!("max-age=2, stale-if-error=60, {strict}");
        assert_eq!(failing(shared(), &directives, "stale-if-error=60", 503), (503, false), "{strict}");
    }
    assert_eq!(
        failing(shared(), "max-age=1, stale-if-error=1", "x", 503),
        (503, false),
        "outside the window"
    );
    assert_eq!(failing(shared(), "max-age=2, stale-if-error=0", "x", 503), (503, false));
    assert_eq!(failing(shared(), "max-age=2, stale-if-error=x", "x", 503), (503, false));
    assert_eq!(failing(shared(), "max-age=60", "max-age=0", 503), (200, true), "it is fresh");
}

//= https://www.rfc-editor.org/rfc/rfc9211#section-2.1
//= type=test
//# indicates that the request
//# was satisfied by the cache; that is, it was not forwarded, and the
//# response was obtained from the cache.
#[test]
fn a_stale_answer_says_whether_it_went_forward() {
    let status = |origin, wish: &str| {
        let mut cache = shared();
        cache.ask(&get(&[]), ok(&[(CC, "max-age=2, stale-if-error=60"), ("etag", "\"a\"")]));
        let got = cache.wait(3).ask(&get(&[(CC, wish)]), origin);
        got.field("cache-status").map(|said| said.split("; detail").next().unwrap().to_owned())
    };
    let said = |text: &str| Some(text.to_owned());
    assert_eq!(status(Origin::Answers(503, &[]), "x"), said("test; fwd=stale; ttl=-1"));
    assert_eq!(status(Origin::Disconnects, "x"), said("test; hit; ttl=-1"));
    assert_eq!(status(Origin::Silent, "max-stale"), said("test; hit; ttl=-1"));
    let made = Reason::OnlyIfCached.cache_status("test").to_value();
    assert!(!made.to_str().unwrap().contains("hit;") && !made.to_str().unwrap().contains("fwd"));
}

#[test]
fn what_responses_do_not_say_is_configured() {
    let mut policy = Policy::shared();
    policy.stale_if_error = seconds(60);
    policy.stale_while_revalidate = seconds(60);
    assert_eq!(
        failing(Cache::new(policy.clone()), "max-age=2, stale-while-revalidate=0", "x", 503),
        (200, true)
    );
    let own = "max-age=2, stale-if-error=0, stale-while-revalidate=0";
    assert_eq!(failing(Cache::new(policy.clone()), own, "x", 503), (503, false));
    let mut cache = Cache::new(policy);
    cache.ask(&get(&[]), ok(&[(CC, "max-age=2"), ("etag", "\"a\"")]));
    assert_eq!(cache.wait(30).again(&get(&[])).reason, Some(Reason::WhileRevalidate));
}

//= https://www.rfc-editor.org/rfc/rfc5861#section-3
//= type=test
//# indicates that caches MAY serve the response
//# it appears in after it becomes stale, up to the indicated number of
//# seconds.
#[test]
fn stale_while_revalidate_answers_at_once_and_validates_behind_it() {
    // stale-while-revalidate, stale-while-revalidate-window; U25, U39.
    let mut cache = shared();
    cache.ask(&get(&[]), ok(&[(CC, "max-age=1, stale-while-revalidate=4"), ("etag", "\"abc\""), ("n", "1")]));
    let newer = [(CC, "max-age=1, stale-while-revalidate=4"), ("etag", "\"def\""), ("n", "2")];
    let got = cache.wait(3).ask(&get(&[]), ok(&newer));
    assert_eq!((got.field("n"), got.reason), (Some("1"), Some(Reason::WhileRevalidate)));
    assert_eq!(cache.again(&get(&[])).field("n"), Some("2"));
    // After the window, the client waits for the origin.
    let got = cache.wait(5).ask(&get(&[]), ok(&[("n", "3")]));
    assert_eq!((got.field("n"), got.sent("if-none-match")), (Some("3"), Some("\"def\"")));
}

#[test]
fn stale_while_revalidate_gives_way_to_prohibitions_and_wishes() {
    // U36.
    for (directive, wish) in [
        ("must-revalidate", "x"),
        ("proxy-revalidate", "x"),
        ("s-maxage=1", "x"),
        ("no-cache", "x"),
        ("x", "no-cache"),
        ("x", "max-age=100"),
        ("x", "min-fresh=1"),
    ] {
        let mut cache = shared();
        let directives = format!("max-age=1, stale-while-revalidate=60, {directive}");
        cache.ask(&get(&[]), ok(&[(CC, &directives), ("etag", "\"a\"")]));
        let got = cache.wait(3).ask(&get(&[(CC, wish)]), Origin::Answers(304, &[("etag", "\"a\"")]));
        assert!(got.asked.is_some(), "{directive}, {wish}");
    }
}

#[test]
fn max_stale_gives_way_to_prohibitions() {
    // U36.
    for strict in ["must-revalidate", "proxy-revalidate", "s-maxage=1", "no-cache"] {
        let mut cache = shared();
        cache.ask(&get(&[]), ok(&[(CC, &format!("max-age=1, {strict}")), ("etag", "\"a\"")]));
        let got = cache.wait(3).ask(&get(&[(CC, "max-stale")]), Origin::Answers(304, &[("etag", "\"a\"")]));
        assert!(got.asked.is_some(), "{strict}");
    }
}
