//! What is stored, and of it what (RFC 9111 sections 3, 3.1, 3.5 and 7).

use larder_http::policy::{Exchange, NotStorable, Policy};

use crate::cache::{
    Ask, Cache, Fields, Origin, TARGET, fields, get, method, ok, private, request, response, shared,
};

const CC: &str = "cache-control";
const FRESH: (&str, &str) = (CC, "max-age=100000");

/// Why a response is not stored, if it is not.
fn refusal(policy: &Policy, ask: &Ask<'_>, status: u16, answer: Fields<'_>) -> Option<NotStorable> {
    let now = shared().now;
    let answer = response(status, fields(now, answer));
    policy.store(&request(now, ask), &answer, Exchange::at(now)).err()
}

//= https://www.rfc-editor.org/rfc/rfc9111#section-3
//= type=test
//# A cache MUST NOT store a response to a request unless:
#[test]
fn each_rule_of_storing_can_say_no() {
    use NotStorable as No;
    let plain: Fields<'_> = &[];
    let tag = ("etag", "\"a\"");
    let authorized: Fields<'_> = &[("authorization", "x")];
    let part = ("content-range", "bytes 0-1/2");
    for (ask, status, answer, expected) in [
        (get(plain), 200, &[FRESH][..], None),
        (method("HEAD", plain), 200, &[FRESH], Some(No::Method)),
        (method("PUT", plain), 200, &[FRESH], Some(No::Method)),
        (method("OPTIONS", plain), 200, &[FRESH], Some(No::Method)),
        (method("POST", plain), 200, &[FRESH], Some(No::PostWithoutLocation)),
        (get(&[("content-length", "3")]), 200, &[FRESH], Some(No::RequestContent)),
        (get(&[("content-length", "0")]), 200, &[FRESH], None),
        (get(plain), 101, &[FRESH], Some(No::Interim)),
        (get(plain), 103, &[FRESH], Some(No::Interim)),
        (get(plain), 304, &[FRESH], Some(No::NotModified)),
        (get(plain), 412, &[FRESH], Some(No::Conditional)),
        (get(plain), 416, &[FRESH], Some(No::Conditional)),
        (get(plain), 428, &[FRESH], Some(No::ForbiddenStatus)),
        (get(plain), 429, &[FRESH], Some(No::ForbiddenStatus)),
        (get(plain), 431, &[FRESH], Some(No::ForbiddenStatus)),
        (get(plain), 511, &[FRESH], Some(No::ForbiddenStatus)),
        (get(plain), 206, &[FRESH, part], Some(No::PartialUnusable)),
        (get(&[("range", "bytes=0-1")]), 206, &[FRESH, part], None),
        (get(&[(CC, "no-store")]), 200, &[FRESH], Some(No::RequestNoStore)),
        (get(plain), 200, &[FRESH, (CC, "no-store")], Some(No::NoStore)),
        (get(plain), 599, &[(CC, "max-age=1, no-store, must-understand")], Some(No::NotUnderstood)),
        (get(plain), 200, &[FRESH, (CC, "private")], Some(No::Private)),
        (get(plain), 200, &[FRESH, (CC, "private=\"x\"")], None),
        (get(authorized), 200, &[FRESH], Some(No::Authorization)),
        (get(plain), 302, &[tag], Some(No::NotByDefault)),
        (get(plain), 302, &[tag, (CC, "private=\"x\"")], Some(No::NotByDefault)),
        (get(plain), 200, &[FRESH, ("vary", "*")], Some(No::VaryAny)),
        (get(plain), 200, &[FRESH, ("vary", "a b")], Some(No::VaryMalformed)),
        (get(plain), 200, &[("last-modified", "@-1000"), ("set-cookie", "a=b")], Some(No::CookieByHeuristic)),
        (get(plain), 200, &[], Some(No::NothingToReuse)),
        (get(plain), 200, &[(CC, "no-cache, max-age=60")], Some(No::NothingToReuse)),
        (get(plain), 200, &[(CC, "no-cache"), tag], None),
        (get(plain), 200, &[tag], None),
    ] {
        let refused = refusal(&Policy::shared(), &ask, status, answer);
        assert_eq!(refused, expected, "{} {:?} {status} {answer:?}", ask.method, ask.fields);
    }
}

#[test]
fn with_explicit_freshness_every_final_status_is_stored() {
    // status-200-fresh and so on; U37.
    for status in [
        200, 201, 203, 204, 299, 301, 302, 303, 307, 308, 400, 403, 404, 410, 418, 499, 500, 502, 503, 504,
        599, 999,
    ] {
        let origin = Origin::Answers(status, &[FRESH, ("date", "@0")]);
        assert!(shared().reuses(&get(&[]), origin, 3, &get(&[])), "{status}");
    }
}

//= https://www.rfc-editor.org/rfc/rfc9111#section-5.2.2.3
//= type=test
//# the cache SHOULD ignore the no-store
//# directive if it understands and implements the status code's caching
//# requirements.
#[test]
fn must_understand_beats_no_store_where_the_status_is_understood() {
    // status-200-must-understand, status-599-must-understand.
    let both = [(CC, "max-age=3600, no-store, must-understand")];
    assert!(shared().reuses(&get(&[]), ok(&both), 0, &get(&[])));
    assert!(!shared().reuses(&get(&[]), Origin::Answers(599, &both), 0, &get(&[])));
    let alone = [(CC, "max-age=3600, must-understand")];
    assert!(!shared().reuses(&get(&[]), Origin::Answers(599, &alone), 0, &get(&[])));
    let odd = [(CC, "max-age=3600, no-store, must-understand, public=x")];
    assert!(
        !shared().reuses(&get(&[]), ok(&odd), 0, &get(&[])),
        "a field that is partly nonsense permits nothing"
    );
}

#[test]
fn no_store_and_private_are_obeyed_in_any_shape() {
    // cc-resp-private-shared, cc-resp-private-private, cc-resp-no-store, -case-insensitive, -fresh; U31.
    for (directives, in_shared, in_private) in [
        ("max-age=10000", true, true),
        ("private, max-age=3600", false, true),
        ("PRIVATE, max-age=3600", false, true),
        ("private=\"\", max-age=3600", false, true),
        ("No-StOrE, max-age=10000", false, false),
        ("max-age=10000, no-store=x", false, false),
        ("max-age=10000, no-cache=\"x, no-store", false, false),
        ("max-age=10000 no-store", false, false),
    ] {
        let answer = [(CC, directives), ("expires", "@10000"), ("date", "@0")];
        assert_eq!(shared().reuses(&get(&[]), ok(&answer), 3, &get(&[])), in_shared, "{directives}");
        assert_eq!(private().reuses(&get(&[]), ok(&answer), 3, &get(&[])), in_private, "{directives}");
    }
    let lines = [(CC, "max-age=60"), (CC, "private")];
    assert!(!shared().reuses(&get(&[]), ok(&lines), 0, &get(&[])));
}

//= https://www.rfc-editor.org/rfc/rfc9111#section-3.5
//= type=test
//# must-revalidate (Section 5.2.2.2), public (Section 5.2.2.9),
//# and s-maxage (Section 5.2.2.10).
#[test]
fn answers_to_authorized_requests_are_for_others_only_if_they_say_so() {
    // other-authorization, -public, -must-revalidate, -smaxage; U42.
    let ask = get(&[("authorization", "FOO")]);
    for (directives, expected) in [
        ("max-age=3600", false),
        ("max-age=3600, public", true),
        ("max-age=3600, must-revalidate", true),
        ("s-maxage=3600", true),
        ("max-age=3600, proxy-revalidate", false),
        ("max-age=3600, immutable", false),
        ("max-age=3600, public=x", false),
        ("max-age=3600, must-revalidate=x", false),
        ("max-age=3600, must-revalidate =", false),
        ("max-age=3600, s-maxage=x", false),
        ("max-age=3600, s-maxage=\"x", false),
        ("max-age=3600, s-maxage", false),
        ("max-age=3600, \"public\"", false),
        ("max-age=3600, pub lic, public", false),
        ("max-age=3600, x=\"public", false),
        ("max-age=3600, public, private", false),
    ] {
        assert_eq!(shared().reuses(&ask, ok(&[(CC, directives)]), 3, &get(&[])), expected, "{directives}");
    }
    // To a private cache, it is its user's own.
    assert!(private().reuses(&ask, ok(&[(CC, "max-age=3600")]), 3, &ask));
    // `s-maxage=0` permits it as any other number does; it is validated each time.
    let zero = [(CC, "s-maxage=0"), ("etag", "\"a\"")];
    assert_eq!(refusal(&Policy::shared(), &ask, 200, &zero), None);
}

//= https://www.rfc-editor.org/rfc/rfc9111#section-3.1
//= type=test
//# *  Header fields that are specific to the proxy that a cache uses when
//#    forwarding a request MUST NOT be stored
#[test]
fn everything_is_stored_but_what_belongs_to_the_connection() {
    // headers-store-*, headers-omit-headers-listed-in-Connection, other-set-cookie; U30.
    let kept = [
        ("test-header", "x"),
        ("x-test-header", "x"),
        ("content-foo", "x"),
        ("content-encoding", "x"),
        ("content-length", "11"),
        ("content-location", "/bar"),
        ("content-md5", "x"),
        ("content-range", "x"),
        ("content-security-policy", "x"),
        ("content-type", "text/plain;charset=utf-8"),
        ("clear-site-data", "cookies"),
        ("etag", "\"ghijkl\""),
        ("expires", "Mon, 11 Jan 2038 11:11:11 GMT"),
        ("set-cookie", "a=c"),
        ("set-cookie2", "a=c"),
        ("x-frame-options", "sameorigin"),
        ("cdn-cache-control", "max-age=3600, foo"),
    ];
    let dropped = [
        ("connection", "a, b"),
        ("a", "1"),
        ("b", "2"),
        ("keep-alive", "x"),
        ("proxy-authenticate", "x"),
        ("proxy-authentication-info", "x"),
        ("proxy-authorization", "x"),
        ("proxy-connection", "x"),
        ("te", "x"),
        ("transfer-encoding", "x"),
        ("upgrade", "x"),
    ];
    let all: Vec<_> =
        [(CC, "max-age=3600, public"), ("date", "@0")].iter().chain(&kept).chain(&dropped).copied().collect();
    let mut cache = shared();
    cache.ask(&get(&[]), ok(&all));
    let got = cache.wait(3).again(&get(&[("cookie", "a=b")]));
    for (name, value) in kept {
        assert_eq!(got.field(name), Some(value));
    }
    for (name, _) in dropped {
        assert_eq!(got.field(name), None, "{name}");
    }
}

#[test]
fn fields_of_a_connection_do_not_come_out_of_a_careless_store() {
    let mut cache = shared();
    cache.ask(&get(&[]), ok(&[FRESH]));
    let mut kept = cache.stored(TARGET)[0].clone().into_kept();
    kept.headers.extend(fields(cache.now, &[("connection", "x-hop"), ("x-hop", "1"), ("keep-alive", "5")]));
    let stored = larder_http::policy::Stored::new(&cache.policy, kept);
    let outgoing = stored.respond(&larder_http::policy::Answer::Whole, false, cache.now);
    for name in ["connection", "x-hop", "keep-alive"] {
        assert!(!outgoing.headers.contains_key(name), "{name}");
    }
}

#[test]
fn what_is_private_is_cacheable_in_a_private_cache_whatever_its_status() {
    let answer = [(CC, "private"), ("etag", "\"a\"")];
    assert_eq!(refusal(&Policy::private(), &get(&[]), 302, &answer), None);
    assert_eq!(refusal(&Policy::private(), &get(&[]), 302, &answer[1..]), Some(NotStorable::NotByDefault));
    let cookie = [("last-modified", "@-1000"), ("set-cookie", "a=b")];
    assert_eq!(refusal(&Policy::private(), &get(&[]), 200, &cookie), None);
}

#[test]
fn fields_that_are_private_are_not_in_a_shared_cache() {
    // U30.
    let answer = [
        (CC, "max-age=60, private=\"Set-Cookie, X-User\""),
        ("set-cookie", "a=b"),
        ("x-user", "1"),
        ("y", "2"),
    ];
    let mut cache = shared();
    cache.ask(&get(&[]), ok(&answer));
    let got = cache.again(&get(&[]));
    assert_eq!((got.field("set-cookie"), got.field("x-user"), got.field("y")), (None, None, Some("2")));
    let mut cache = private();
    cache.ask(&get(&[]), ok(&answer));
    assert_eq!(cache.again(&get(&[])).field("x-user"), Some("1"));
}

//= https://www.rfc-editor.org/rfc/rfc9110#section-6.6.1
//= type=test
//# MUST record the time it was received and append a
//# corresponding Date header field to the message's header section if it
//# is cached or forwarded downstream.
#[test]
fn a_date_that_is_missing_or_none_is_when_it_came() {
    for dates in [&[][..], &[("date", "foo")], &[("date", "@0"), ("date", "@0")]] {
        let all: Vec<_> = dates.iter().copied().chain([FRESH]).collect();
        let mut cache = shared();
        cache.ask(&get(&[]), ok(&all));
        let came = crate::cache::at(cache.now, 0);
        let got = cache.wait(3).again(&get(&[]));
        assert_eq!((got.field("date"), got.field("age")), (Some(&*came), Some("3")));
    }
}

#[test]
fn requests_with_a_body_or_cookie_change_nothing_about_reuse() {
    // other-cookie, other-fresh-content-disposition-attachment, other-heuristic-content-disposition-attachment.
    let attached = ("content-disposition", "attachment; filename=example.txt");
    let ask = get(&[("cookie", "a=b")]);
    assert!(shared().reuses(&ask, ok(&[FRESH, attached]), 3, &get(&[("cookie", "c=d")])));
    let heuristic = [("last-modified", "@-100000"), ("date", "@0"), attached];
    assert!(shared().reuses(&get(&[]), ok(&heuristic), 3, &get(&[])));
}

#[test]
fn a_stored_response_is_the_same_after_it_was_kept() {
    let mut cache = Cache::new(Policy::shared());
    cache.ask(&get(&[("foo", "1")]), ok(&[FRESH, ("vary", "foo"), ("age", "7"), ("etag", "\"a\"")]));
    let stored = cache.stored(TARGET)[0].clone();
    let again = larder_http::policy::Stored::new(&cache.policy, stored.clone().into_kept());
    assert_eq!(again, stored);
}
