//! What a 304 and an answer to HEAD do to what is stored (RFC 9111 sections 3.2, 4.3.4 and 4.3.5).

use crate::cache::{Fields, Origin, TARGET, get, method, ok, private, shared};

const CC: &str = "cache-control";

/// The value of a field after a 304 with other fields, in the answer and in the next one.
fn after_304(stored: Fields<'_>, newer: Fields<'_>, name: &str) -> (Option<String>, Option<String>) {
    let mut cache = shared();
    let first: Vec<_> = [(CC, "max-age=2"), ("etag", "\"tag\"")].iter().chain(stored).copied().collect();
    cache.ask(&get(&[]), ok(&first));
    let not_modified: Vec<_> = [("etag", "\"tag\"")].iter().chain(newer).copied().collect();
    let got = cache.wait(3).ask(&get(&[]), Origin::Answers(304, &not_modified));
    assert_eq!((got.status, got.sent("if-none-match")), (200, Some("\"tag\"")));
    let next = cache.again(&get(&[]));
    (got.field(name).map(str::to_owned), next.field(name).map(str::to_owned))
}

//= https://www.rfc-editor.org/rfc/rfc9111#section-3.2
//= type=test
//# the cache MUST add each header field in the provided
//# response to the stored response, replacing field values that are
//# already present, with the following exceptions:
#[test]
fn a_304_replaces_fields_whatever_they_are_called() {
    // 304-etag-update-response-*, 304-lm-use-stored-Test-Header.
    for name in [
        "test-header",
        "x-test-header",
        "content-foo",
        "x-content-foo",
        "content-location",
        "content-md5",
        "content-security-policy",
        "content-type",
        "clear-site-data",
        "expires",
        "public-key-pins",
        "set-cookie2",
        "x-frame-options",
        "x-xss-protection",
    ] {
        let both = Some("b".to_owned());
        assert_eq!(after_304(&[(name, "a")], &[(name, "b")], name), (both.clone(), both.clone()), "{name}");
        assert_eq!(after_304(&[], &[(name, "b")], name), (both.clone(), both), "{name} is new");
        let stays = Some("a".to_owned());
        assert_eq!(after_304(&[(name, "a")], &[], name), (stays.clone(), stays), "{name} is not there");
    }
    // 304-etag-update-response-Cache-Control.
    let fresh = Some("max-age=3600".to_owned());
    assert_eq!(after_304(&[], &[(CC, "max-age=3600")], CC), (fresh.clone(), fresh));
}

//= https://www.rfc-editor.org/rfc/rfc9111#section-3.2
//= type=test
//# *  The Content-Length header field.
#[test]
fn fields_that_go_with_the_bytes_stay_with_them() {
    // 304-etag-update-response-Content-Length; the other two are questions there.
    for (name, a, b) in
        [("content-length", "36", "10"), ("content-encoding", "gzip", "br"), ("content-range", "x", "y")]
    {
        let stays = Some(a.to_owned());
        assert_eq!(after_304(&[(name, a)], &[(name, b)], name), (stays.clone(), stays), "{name}");
    }
}

#[test]
fn a_304_does_not_bring_fields_of_its_connection() {
    let brought = after_304(&[], &[("connection", "a"), ("a", "1"), ("keep-alive", "5"), ("te", "x")], "a");
    assert_eq!(brought, (None, None));
}

#[test]
fn a_304_starts_freshness_again() {
    // U33: and undici validates again each time after a bare 304.
    let mut cache = shared();
    let first = [(CC, "max-age=2"), ("etag", "\"a\""), ("age", "1"), ("date", "@0")];
    cache.ask(&get(&[]), ok(&first));
    cache.wait(3).ask(&get(&[]), Origin::Answers(304, &[]));
    let got = cache.wait(1).again(&get(&[]));
    assert_eq!((got.is_cached(), got.field("age")), (true, Some("1")));
    // The age of a 304 out of another cache counts.
    cache.wait(3).ask(&get(&[]), Origin::Answers(304, &[("age", "1")]));
    assert_eq!(cache.again(&get(&[])).field("age"), Some("1"));
}

//= https://www.rfc-editor.org/rfc/rfc9111#section-4.3.4
//= type=test
//# If none of the initial set
//#    contains at least one of the same strong validators, then the
//#    cache MUST NOT use the new response to update any stored
//#    responses.
#[test]
fn a_304_about_something_else_updates_nothing() {
    // 304-etag-update-response-ETag says "yes" of the wrong behaviour.
    for (name, stored, newer, updates) in [
        ("another strong tag", ("etag", "\"a\""), ("etag", "\"b\""), false),
        ("the same strong tag", ("etag", "\"a\""), ("etag", "\"a\""), true),
        ("strong against weak", ("etag", "W/\"a\""), ("etag", "\"a\""), false),
        ("weak against strong", ("etag", "\"a\""), ("etag", "W/\"a\""), true),
        ("weak against weak", ("etag", "W/\"a\""), ("etag", "W/\"a\""), true),
        ("another weak tag", ("etag", "W/\"a\""), ("etag", "W/\"b\""), false),
        ("the same date", ("last-modified", "@-300"), ("last-modified", "@-303"), true),
        ("another date", ("last-modified", "@-300"), ("last-modified", "@-200"), false),
        ("no validator", ("etag", "\"a\""), ("x", "y"), true),
    ] {
        let mut cache = shared();
        cache.ask(&get(&[]), ok(&[(CC, "max-age=2"), stored, ("n", "1")]));
        let got = cache.wait(3).ask(&get(&[]), Origin::Answers(304, &[newer, ("n", "2")]));
        // The harness answers a second, unconditional request with a field that says so.
        let expected = if updates { (Some("2"), None) } else { (None, Some("\"refetched\"")) };
        let refetched = got.field("etag").filter(|tag| *tag == "\"refetched\"");
        assert_eq!((got.field("n"), refetched), expected, "{name}");
    }
}

#[test]
fn what_a_304_forbids_to_keep_answers_once_and_goes() {
    // U33.
    for (field, value) in [(CC, "no-store"), (CC, "private"), ("vary", "*"), ("vary", "a b")] {
        let mut cache = shared();
        cache.ask(&get(&[]), ok(&[(CC, "max-age=2"), ("etag", "\"a\"")]));
        let got = cache.wait(3).ask(&get(&[]), Origin::Answers(304, &[("etag", "\"a\""), (field, value)]));
        assert_eq!((got.status, got.is_stored), (200, true), "{value}");
        assert!(cache.stored(TARGET).is_empty(), "{value}");
    }
    let mut cache = private();
    cache.ask(&get(&[]), ok(&[(CC, "max-age=2"), ("etag", "\"a\"")]));
    cache.wait(3).ask(&get(&[]), Origin::Answers(304, &[("etag", "\"a\""), (CC, "private, max-age=60")]));
    assert!(cache.again(&get(&[])).is_cached());
}

//= https://www.rfc-editor.org/rfc/rfc9111#section-5.2.1.5
//= type=test
//# the no-store request directive does not apply to the already
//# stored response.
#[test]
fn requests_whose_answers_may_not_be_stored_leave_what_is_stored_alone() {
    for asked in [(CC, "no-store"), ("authorization", "x")] {
        for answer in [
            Origin::Answers(304, &[("etag", "\"a\""), (CC, "max-age=60"), ("n", "2")]),
            Origin::Answers(200, &[("etag", "\"b\""), (CC, "max-age=60"), ("n", "2")]),
        ] {
            let mut cache = shared();
            cache.ask(&get(&[]), ok(&[(CC, "max-age=2"), ("etag", "\"a\""), ("n", "1")]));
            let got = cache.wait(3).ask(&get(&[asked]), answer);
            assert_eq!(got.field("n"), Some("2"), "{asked:?}");
            let stored = &cache.stored(TARGET)[0];
            assert_eq!((&stored.headers()["n"], stored.is_fresh(cache.now)), (&"1".parse().unwrap(), false));
        }
    }
}

#[test]
fn fields_that_a_304_makes_private_are_taken_out_of_a_shared_cache() {
    let set_cookie = [(CC, "max-age=60, private=\"set-cookie\""), ("set-cookie", "b=2")];
    let (now, next) = after_304(&[("set-cookie", "a=1")], &set_cookie, "set-cookie");
    // The one whom the 304 answered is who they are for.
    assert_eq!((now.as_deref(), next), (Some("b=2"), None));
}

#[test]
fn a_cookie_of_a_304_or_of_an_answer_to_head_is_for_one_client() {
    let newer = [("set-cookie", "session=2")];
    for (stored, next) in [(&[][..], None), (&[("set-cookie", "a=1")], Some("a=1"))] {
        let (now, then) = after_304(stored, &newer, "set-cookie");
        assert_eq!((now.as_deref(), then.as_deref()), (Some("session=2"), next), "{stored:?}");
        let mut cache = shared();
        let first: Vec<_> = [(CC, "max-age=60")].iter().chain(stored).copied().collect();
        cache.ask(&get(&[]), ok(&first));
        let head = method("HEAD", &[(CC, "no-cache")]);
        let got = cache.ask(&head, Origin::Answers(200, &[(CC, "max-age=60"), newer[0], ("n", "2")]));
        assert_eq!(got.field("set-cookie"), Some("session=2"));
        let got = cache.again(&get(&[]));
        assert_eq!((got.field("n"), got.field("set-cookie")), (Some("2"), next), "{stored:?}");
    }
    // A cache of one user has one client.
    let mut cache = private();
    cache.ask(&get(&[]), ok(&[(CC, "max-age=2"), ("etag", "\"a\""), ("set-cookie", "a=1")]));
    cache.wait(3).ask(&get(&[]), Origin::Answers(304, &[("etag", "\"a\""), newer[0]]));
    assert_eq!(cache.again(&get(&[])).field("set-cookie"), Some("session=2"));
}

//= https://www.rfc-editor.org/rfc/rfc9111#section-4.3.5
//= type=test
//# if the
//# stored response and HEAD response have matching values for any
//# received validator fields (ETag and Last-Modified) and, if the HEAD
//# response has a Content-Length header field, the value of
//# Content-Length matches that of the stored response, the cache SHOULD
//# update the stored response as described below; otherwise, the cache
//# SHOULD consider the stored response to be stale.
#[test]
fn an_answer_to_head_updates_what_it_matches_and_makes_the_rest_stale() {
    // head-writethrough, head-200-freshness-update, head-200-update, head-200-retain, head-410-update.
    let tag = ("etag", "\"a\"");
    for (name, newer, expected) in [
        ("nothing to compare", &[][..], true),
        ("the same tag", &[tag], true),
        ("another tag", &[("etag", "\"b\"")], false),
        ("a tag that is weak now", &[("etag", "W/\"a\"")], false),
        ("the same length", &[("content-length", "11")], true),
        ("another length", &[("content-length", "12")], false),
        ("a date it did not have", &[("last-modified", "@-10")], false),
    ] {
        let mut cache = shared();
        cache.ask(&get(&[]), ok(&[(CC, "max-age=2"), tag, ("n", "1"), ("m", "1")]));
        let fields: Vec<_> = [(CC, "max-age=1000"), ("n", "2")].iter().chain(newer).copied().collect();
        cache.wait(3).ask(&method("HEAD", &[]), Origin::Answers(200, &fields));
        let got = cache.ask(&get(&[]), ok(&[(CC, "no-store")]));
        assert_eq!(got.is_cached(), expected, "{name}");
        if expected {
            assert_eq!((got.field("n"), got.field("m")), (Some("2"), Some("1")), "{name}");
        }
    }
    let mut cache = shared();
    cache.ask(&get(&[("foo", "1")]), ok(&[(CC, "max-age=100"), ("vary", "foo"), ("n", "1")]));
    cache.ask(&method("HEAD", &[("foo", "2")]), Origin::Answers(200, &[("etag", "\"z\""), ("n", "2")]));
    assert_eq!(cache.again(&get(&[("foo", "1")])).field("n"), Some("1"), "it is about another variant");
    let mut cache = shared();
    cache.ask(&get(&[]), ok(&[(CC, "max-age=100"), ("n", "1")]));
    cache.ask(&method("HEAD", &[(CC, "no-cache")]), Origin::Answers(410, &[(CC, "max-age=100"), ("n", "2")]));
    assert_eq!(cache.again(&get(&[])).field("n"), Some("1"), "410 says nothing about it");
    cache.ask(&method("HEAD", &[(CC, "no-cache")]), Origin::Answers(200, &[("etag", "\"z\"")]));
    let got = cache.ask(&get(&[]), ok(&[(CC, "no-store")]));
    assert!(!got.is_cached(), "fresh by its own words, and known to be another one");
}
