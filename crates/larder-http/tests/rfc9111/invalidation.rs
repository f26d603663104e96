//! What requests that change something make invalid, and answers to POST (RFC 9111 section 4.4, RFC 9875).

use http::Uri;
use larder_http::header::groups;
use larder_http::policy::Invalidation;

use crate::cache::{Ask, Fields, Origin, TARGET, fields, get, method, ok, request, response, shared};

const FRESH: Fields<'static> = &[("cache-control", "max-age=100000")];

fn survives(asked: &str, status: u16) -> bool {
    let mut cache = shared();
    for value in ["1", "2"] {
        cache.ask(&get(&[("x", value)]), ok(&[FRESH[0], ("vary", "x")]));
    }
    assert_eq!(cache.stored(TARGET).len(), 2);
    cache.ask(&method(asked, &[]), Origin::Answers(status, &[]));
    cache.stored(TARGET).len() == 2
}

//= https://www.rfc-editor.org/rfc/rfc9111#section-4.4
//= type=test
//# A cache MUST invalidate the target URI (Section 7.1 of [HTTP]) when
//# it receives a non-error status code in response to an unsafe request
//# method (including methods whose safety is unknown).
#[test]
fn unsafe_and_unknown_methods_invalidate_all_variants_if_they_succeed() {
    // invalidate-POST, -PUT, -DELETE, -M-SEARCH, and -failed of each; U29.
    for asked in ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "PURGE", "get"] {
        for status in [200, 201, 204, 302, 303] {
            assert!(!survives(asked, status), "{asked} {status}");
        }
        for status in [400, 404, 500, 502] {
            assert!(survives(asked, status), "{asked} {status}");
        }
    }
    for asked in ["OPTIONS", "TRACE", "PROPFIND", "QUERY", "CONNECT"] {
        assert!(survives(asked, 200), "{asked}");
    }
}

fn invalidated(target: &str, answer: Fields<'_>) -> Vec<String> {
    let now = shared().now;
    let request = request(now, &Ask { method: "POST", target, fields: &[] });
    let found = Invalidation::of(&request, &response(200, fields(now, answer)));
    found.targets.iter().map(Uri::to_string).collect()
}

//= https://www.rfc-editor.org/rfc/rfc9111#section-4.4
//= type=test
//# However, a cache MUST NOT trigger an invalidation under these
//# conditions if the origin (Section 4.3.1 of [HTTP]) of the URI to be
//# invalidated differs from that of the target URI
#[test]
fn locations_of_the_same_origin_are_invalidated_too() {
    // invalidate-POST-location, invalidate-POST-cl and so on; U29.
    let target = "http://a/b/c?d";
    let both = [("location", "location_target"), ("content-location", "/x/../content")];
    assert_eq!(invalidated(target, &both), [target, "http://a/b/location_target", "http://a/content"]);
    for foreign in ["http://b/x", "https://a/x", "http://a:81/x", "//b/x", "http://a@b/x", "mailto:x"] {
        assert_eq!(
            invalidated(target, &[("location", foreign), ("content-location", foreign)]),
            [target],
            "{foreign}"
        );
    }
    assert_eq!(invalidated(target, &[("location", "http://A:80/x")]).len(), 2);
    assert_eq!(invalidated(target, &[("location", ""), ("content-location", "#x")]), [target]);
    assert_eq!(invalidated("/b/c", &[("location", "x")]), ["/b/c", "/b/x"]);
}

//= https://www.rfc-editor.org/rfc/rfc9875#section-3
//= type=test
//# The Cache-Group-Invalidation header field MUST be ignored on
//# responses to requests that have a safe method
#[test]
fn groups_are_invalidated_by_unsafe_methods_only() {
    let now = shared().now;
    let answer = fields(now, &[("cache-group-invalidation", "\"eurovision-results\", \"Kylie\"")]);
    let groups_of = |asked, status| {
        Invalidation::of(&request(now, &method(asked, &[])), &response(status, answer.clone())).groups
    };
    assert_eq!(groups_of("POST", 200), ["eurovision-results", "Kylie"]);
    assert_eq!(groups_of("GET", 200), [""; 0]);
    assert_eq!(groups_of("POST", 500), [""; 0]);
    let stored = fields(now, &[("cache-groups", "\"Kylie\"")]);
    assert_eq!(groups::parse(&stored, &groups::CACHE_GROUPS), ["Kylie"]);
}

//= https://www.rfc-editor.org/rfc/rfc9110#section-9.3.3
//= type=test
//# Responses to POST requests are only cacheable when they include
//# explicit freshness information (see Section 4.2.1 of [CACHING]) and a
//# Content-Location header field that has the same value as the POST's
//# target URI (Section 8.7).
#[test]
fn an_answer_to_post_is_for_later_gets_if_it_says_so() {
    // method-POST. undici stores failures of POST and replays them.
    for (name, status, answer, expected) in [
        ("as it should be", 200, &[FRESH[0], ("content-location", "page")][..], true),
        ("absolute", 200, &[FRESH[0], ("content-location", TARGET)], true),
        ("by Expires", 200, &[("expires", "@60"), ("content-location", "page")], true),
        ("no location", 200, &[FRESH[0]], false),
        ("another one", 200, &[FRESH[0], ("content-location", "page?x")], false),
        ("another origin", 200, &[FRESH[0], ("content-location", "http://other/page")], false),
        ("two of them", 200, &[FRESH[0], ("content-location", "page"), ("content-location", "page")], false),
        (
            "not understood",
            200,
            &[("cache-control", "max-age=x"), ("content-location", "page"), ("etag", "\"a\"")],
            false,
        ),
        ("no freshness", 200, &[("content-location", "page"), ("last-modified", "@-1000")], false),
        (
            "public is no freshness",
            200,
            &[("cache-control", "public"), ("content-location", "page"), ("etag", "\"a\"")],
            false,
        ),
        ("a failure", 404, &[FRESH[0], ("content-location", "page")], false),
        ("created", 201, &[FRESH[0], ("content-location", "page")], false),
    ] {
        let mut cache = shared();
        cache.ask(&get(&[]), ok(&[FRESH[0], ("n", "before")]));
        let posted: Vec<_> = answer.iter().copied().chain([("n", "posted")]).collect();
        cache.ask(&method("POST", &[]), Origin::Answers(status, &posted));
        let got = cache.ask(&get(&[]), ok(&[("n", "after")]));
        let value = match (expected, status) {
            (true, _) => "posted",
            (false, 404) => "before",
            (false, _) => "after",
        };
        assert_eq!(got.field("n"), Some(value), "{name}");
        let again = cache.ask(&method("POST", &[]), Origin::Answers(500, &[]));
        assert_eq!(again.status, 500, "{name}: a POST is never answered from what is stored");
    }
}
