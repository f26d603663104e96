//! Conditions of clients, judged against what is stored (RFC 9111 section 4.3.2, RFC 9110 section 13).

use crate::cache::{Fields, Origin, get, method, ok, shared};

const CC: &str = "cache-control";

/// The status that a request with these conditions gets from a fresh stored response with these fields.
fn status(response: Fields<'_>, conditions: Fields<'_>) -> u16 {
    let mut cache = shared();
    let all: Vec<_> = response.iter().copied().chain([(CC, "max-age=3600")]).collect();
    cache.ask(&get(&[]), ok(&all));
    let got = cache.again(&get(conditions));
    assert!(got.is_cached());
    got.status
}

//= https://www.rfc-editor.org/rfc/rfc9110#section-13.1.2
//= type=test
//# A recipient MUST use the weak comparison function when comparing
//# entity tags for If-None-Match
#[test]
fn tags_of_if_none_match_are_compared_weakly() {
    for (name, tag, condition, expected) in [
        ("conditional-etag-strong-respond", "\"abcdef\"", "\"abcdef\"", 304),
        (
            "conditional-etag-strong-respond-multiple-first",
            "\"abcdef\"",
            "\"abcdef\", \"1234\", \"5678\"",
            304,
        ),
        (
            "conditional-etag-strong-respond-multiple-second",
            "\"abcdef\"",
            "\"1234\", \"abcdef\", \"5678\"",
            304,
        ),
        (
            "conditional-etag-strong-respond-multiple-last",
            "\"abcdef\"",
            "\"1234\", \"5678\", \"abcdef\"",
            304,
        ),
        ("conditional-etag-weak-respond", "W/\"abcdef\"", "W/\"abcdef\"", 304),
        ("weak and strong", "W/\"abcdef\"", "\"abcdef\"", 304),
        ("conditional-etag-weak-respond-lowercase", "w/\"abcdef\"", "w/\"abcdef\"", 304),
        ("conditional-etag-weak-respond-backslash", "W\\\"abcdef\"", "W\\\"abcdef\"", 304),
        ("conditional-etag-weak-respond-omit-slash", "W\"abcdef\"", "W\"abcdef\"", 304),
        ("conditional-etag-unquoted-respond-unquoted", "abcdef", "abcdef", 304),
        ("conditional-etag-quoted-respond-unquoted", "\"abcdef\"", "abcdef", 200),
        ("conditional-etag-unquoted-respond-quoted", "abcdef", "\"abcdef\"", 200),
        ("obs-text", "\"abcdefü\"", "\"abcdefü\"", 304),
        ("another tag", "\"abcdef\"", "\"abcde\"", 200),
        ("any", "\"abcdef\"", "*", 304),
        ("a quoted star", "\"abcdef\"", "\"*\"", 200),
    ] {
        assert_eq!(status(&[("etag", tag)], &[("if-none-match", condition)]), expected, "{name}");
    }
    assert_eq!(status(&[], &[("if-none-match", "*")]), 304);
    assert_eq!(status(&[], &[("if-none-match", "\"a\"")]), 200);
    assert_eq!(status(&[("etag", "\"b\"")], &[("if-none-match", "\"a\""), ("if-none-match", "\"b\"")]), 304);
}

#[test]
fn if_none_match_makes_if_modified_since_moot() {
    // conditional-etag-precedence.
    let both = [("etag", "\"abcdef\""), ("last-modified", "@-5000")];
    assert_eq!(status(&both, &[("if-none-match", "\"abcdef\""), ("if-modified-since", "@-10000")]), 304);
    assert_eq!(status(&both, &[("if-none-match", "\"x\""), ("if-modified-since", "@0")]), 200);
    assert_eq!(
        status(&[("last-modified", "@-5000")], &[("if-none-match", "\"x\""), ("if-modified-since", "@0")]),
        200
    );
}

//= https://www.rfc-editor.org/rfc/rfc9111#section-4.3.2
//= type=test
//# a cache
//# SHOULD use the stored response's Date field value (or, if no Date
//# field is present, the time that the stored response was received) to
//# evaluate the conditional.
#[test]
fn dates_are_compared_with_last_modified_or_else_date() {
    for (name, response, since, expected) in [
        ("conditional-lm-fresh", &[("last-modified", "@-3000")][..], "@-3000", 304),
        ("conditional-lm-fresh-earlier", &[("last-modified", "@-3000")], "@-2000", 304),
        ("modified since", &[("last-modified", "@-3000")], "@-3001", 200),
        // conditional-lm-fresh-no-lm asks for 304, which the RFC does not allow: the client's copy may be older.
        ("conditional-lm-fresh-no-lm", &[("date", "@0")], "@-3000", 200),
        ("as new as the date", &[("date", "@-100")], "@-100", 304),
        ("neither", &[], "@1", 304),
        ("no date", &[("last-modified", "@-3000")], "yesterday", 200),
    ] {
        assert_eq!(status(response, &[("if-modified-since", since)]), expected, "{name}");
    }
    // conditional-lm-fresh-rfc850.
    let old = [("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")];
    assert_eq!(status(&old, &[("if-modified-since", "Sunday, 06-Nov-94 08:49:37 GMT")]), 304);
    assert_eq!(status(&old, &[("if-modified-since", "Sunday, 06-Nov-94 08:49:36 GMT")]), 200);
    let twice = [("if-modified-since", "@0"), ("if-modified-since", "@0")];
    assert_eq!(status(&old, &twice), 200);
}

#[test]
fn conditions_count_only_for_responses_that_succeeded() {
    let mut cache = shared();
    cache.ask(&get(&[]), Origin::Answers(404, &[(CC, "max-age=60"), ("etag", "\"a\"")]));
    assert_eq!(cache.again(&get(&[("if-none-match", "\"a\"")])).status, 404);
}

//= https://www.rfc-editor.org/rfc/rfc9110#section-15.4.5
//= type=test
//# sender SHOULD NOT generate representation metadata other than the
//# above listed fields
#[test]
fn a_304_has_what_the_client_needs_and_not_what_describes_the_body() {
    // conditional-304-etag.
    let mut cache = shared();
    let fields = [
        (CC, "max-age=60"),
        ("etag", "\"a\""),
        ("last-modified", "@-100"),
        ("vary", "x"),
        ("expires", "@100"),
        ("content-location", "/y"),
        ("content-type", "text/html"),
        ("content-length", "11"),
        ("content-encoding", "gzip"),
        ("x-else", "1"),
    ];
    cache.ask(&get(&[]), ok(&fields));
    let got = cache.again(&method("HEAD", &[("if-none-match", "\"a\"")]));
    assert_eq!(got.status, 304);
    for there in ["etag", "date", "age", "vary", "expires", "content-location", "cache-control", "x-else"] {
        assert!(got.field(there).is_some(), "{there}");
    }
    for gone in ["last-modified", "content-type", "content-length", "content-encoding"] {
        assert_eq!(got.field(gone), None, "{gone}");
    }
}

#[test]
fn a_stale_response_is_validated_by_our_condition_and_answered_by_theirs() {
    // conditional-lm-stale, conditional-etag-vary-headers; U28.
    let mut cache = shared();
    let tag = [("etag", "\"ours\"")];
    let fields = [(CC, "max-age=1"), tag[0], ("last-modified", "@-3000"), ("vary", "abc")];
    cache.ask(&get(&[("abc", "123")]), ok(&fields));
    let conditions = [
        ("abc", "123"),
        ("if-none-match", "\"theirs\", \"ours\""),
        ("if-modified-since", "@-10"),
        ("if-range", "\"theirs\""),
        ("range", "bytes=0-1"),
        ("x-own", "1"),
    ];
    let got = cache.wait(3).ask(&get(&conditions), Origin::Answers(304, &tag));
    assert_eq!(got.sent("if-none-match"), Some("\"ours\""));
    assert_eq!((got.sent("abc"), got.sent("x-own")), (Some("123"), Some("1")));
    assert_eq!((got.sent("range"), got.sent("if-range")), (None, None));
    assert_eq!(got.status, 304);
    let other = [("abc", "123"), ("if-none-match", "\"theirs\"")];
    let got = cache.wait(3).ask(&get(&other), Origin::Answers(304, &tag));
    assert_eq!((got.status, got.sent("if-none-match")), (200, Some("\"ours\"")));
}

#[test]
fn a_miss_carries_the_clients_own_conditions() {
    // conditional-etag-forward: and the answer to them is not stored. U38.
    let mut cache = shared();
    let conditions = [("if-none-match", "\"theirs\"")];
    let got =
        cache.ask(&get(&conditions), Origin::Answers(304, &[(CC, "max-age=60"), ("etag", "\"theirs\"")]));
    assert_eq!((got.status, got.sent("if-none-match")), (304, Some("\"theirs\"")));
    assert!(cache.ask(&get(&[]), ok(&[])).asked.is_some());
}
