//! How long responses are fresh and how old they are (RFC 9111 sections 4.2 and 5.1 to 5.3).

use std::time::Duration;

use larder_http::policy::{LifetimeSource, Policy};

use crate::cache::{Cache, Fields, Origin, get, ok, private, seconds, shared};

/// The suite's name, the fields of the response, and whether it answers a request 3 s later.
type Row<'a> = (&'a str, Fields<'a>, bool);

fn check(cache: fn() -> Cache, rows: &[Row<'_>]) {
    for (name, fields, expected) in rows {
        assert_eq!(cache().reuses(&get(&[]), ok(fields), 3, &get(&[])), *expected, "{name}: {fields:?}");
    }
}

const CC: &str = "cache-control";

//= https://www.rfc-editor.org/rfc/rfc9111#section-4.2.1
//= type=test
//# *  If the cache is shared and the s-maxage response directive
//#    (Section 5.2.2.10) is present, use its value, or
#[test]
fn directives_say_how_long_a_response_is_fresh() {
    check(
        shared,
        &[
            ("freshness-none", &[], false),
            ("freshness-max-age", &[(CC, "max-age=3600")], true),
            ("freshness-max-age-stale", &[(CC, "max-age=2"), ("date", "@0")], false),
            ("freshness-max-age-0", &[(CC, "max-age=0")], false),
            ("freshness-max-age-max-minus-1", &[(CC, "max-age=2147483647")], true),
            ("freshness-max-age-max", &[(CC, "max-age=2147483648")], true),
            ("freshness-max-age-max-plus-1", &[(CC, "max-age=2147483649")], true),
            ("freshness-max-age-max-plus", &[(CC, "max-age=99999999999")], true),
            ("freshness-max-age-age", &[(CC, "max-age=3600"), ("age", "7200"), ("date", "@0")], false),
            ("freshness-max-age-date", &[(CC, "max-age=3600"), ("date", "@-7200")], false),
            (
                "freshness-max-age-expires",
                &[(CC, "max-age=3600"), ("expires", "@-7200"), ("date", "@0")],
                true,
            ),
            (
                "freshness-max-age-expires-invalid",
                &[(CC, "max-age=3600"), ("expires", "0"), ("date", "@0")],
                true,
            ),
            (
                "freshness-max-age-0-expires",
                &[(CC, "max-age=0"), ("expires", "@3600"), ("date", "@0")],
                false,
            ),
            ("freshness-max-age-extension", &[(CC, "foobar, max-age=3600")], true),
            ("freshness-max-age-case-insenstive", &[(CC, "MaX-aGe=3600")], true),
            ("freshness-max-age-negative", &[(CC, "max-age=-3600")], false),
            ("freshness-s-maxage-shared", &[(CC, "s-maxage=3600")], true),
            ("freshness-max-age-s-maxage-shared-longer", &[(CC, "max-age=3600, s-maxage=1")], false),
            ("freshness-max-age-s-maxage-shared-longer-reversed", &[(CC, "s-maxage=1, max-age=3600")], false),
            (
                "freshness-max-age-s-maxage-shared-longer-multiple",
                &[(CC, "max-age=3600"), (CC, "s-maxage=1")],
                false,
            ),
            ("freshness-max-age-s-maxage-shared-shorter", &[(CC, "max-age=1, s-maxage=3600")], true),
            (
                "freshness-max-age-s-maxage-shared-shorter-expires",
                &[(CC, "max-age=0, s-maxage=3600"), ("expires", "@-10")],
                true,
            ),
            ("s-maxage that is not understood", &[(CC, "max-age=3600, s-maxage=x")], false),
        ],
    );
    check(
        private,
        &[
            ("freshness-max-age-s-maxage-private", &[(CC, "s-maxage=3600, max-age=1")], false),
            (
                "freshness-max-age-s-maxage-private-multiple",
                &[(CC, "s-maxage=3600"), (CC, "max-age=1")],
                false,
            ),
            ("s-maxage is not for private caches", &[(CC, "s-maxage=1, max-age=3600")], true),
        ],
    );
}

#[test]
fn directives_are_parsed_and_not_searched_for() {
    check(
        shared,
        &[
            ("freshness-max-age-two-fresh-stale-sameline", &[(CC, "max-age=1800, max-age=1")], true),
            ("freshness-max-age-two-fresh-stale-sepline", &[(CC, "max-age=1800"), (CC, "max-age=1")], true),
            ("freshness-max-age-two-stale-fresh-sameline", &[(CC, "max-age=1, max-age=1800")], false),
            ("freshness-max-age-two-stale-fresh-sepline", &[(CC, "max-age=1"), (CC, "max-age=1800")], false),
            ("freshness-max-age-quoted", &[(CC, "max-age=\"3600\"")], true),
            ("freshness-max-age-ignore-quoted", &[(CC, "extension=\"max-age=3600\", max-age=1")], false),
            ("freshness-max-age-ignore-quoted-rev", &[(CC, "max-age=1, extension=\"max-age=3600\"")], false),
            ("freshness-max-age-space-before-equals", &[(CC, "max-age =3600")], false),
            ("freshness-max-age-space-after-equals", &[(CC, "max-age= 3600")], false),
            ("freshness-max-age-leading-zero", &[(CC, "max-age=003600")], true),
            ("freshness-max-age-single-quoted", &[(CC, "max-age='3600'")], false),
            ("freshness-max-age-decimal-zero", &[(CC, "max-age=3600.0")], false),
            ("freshness-max-age-decimal-five", &[(CC, "max-age=3600.5")], false),
            ("freshness-max-age-a100", &[(CC, "max-age=a3600")], false),
            ("freshness-max-age-100a", &[(CC, "max-age=3600a")], false),
        ],
    );
}

//= https://www.rfc-editor.org/rfc/rfc9111#section-4.2.1
//= type=test
//# Caches are encouraged to consider responses that have invalid
//# freshness information (e.g., a max-age directive with non-integer
//# content) to be stale.
#[test]
fn what_is_not_understood_is_stale_and_nothing_is_guessed_instead() {
    // U32.
    let old = ("last-modified", "@-8640000");
    for odd in ["max-age='3600'", "max-age=x", "max-age =1", "s-maxage=", "max-age=60;private"] {
        let mut cache = shared();
        assert!(!cache.reuses(&get(&[]), ok(&[(CC, odd), old]), 0, &get(&[])), "{odd}");
    }
    for expires in ["0", "-1", "never", "Thu, 18 Aug 2050 02:01:18 UTC", ""] {
        let mut cache = shared();
        assert!(!cache.reuses(&get(&[]), ok(&[("expires", expires), old]), 0, &get(&[])), "{expires}");
    }
}

//= https://www.rfc-editor.org/rfc/rfc9111#section-5.3
//= type=test
//# A cache recipient MUST interpret invalid date formats, especially the
//# value "0", as representing a time in the past (i.e., "already
//# expired").
#[test]
fn expires_counts_from_date() {
    // U27, U41.
    let good = "Thu, 18 Aug 2050 02:01:18 GMT";
    check(
        shared,
        &[
            ("freshness-expires-future", &[("expires", "@2592000"), ("date", "@0")], true),
            ("freshness-expires-past", &[("expires", "@-2592000"), ("date", "@0")], false),
            ("freshness-expires-old-date", &[("expires", "@300"), ("date", "@400")], false),
            ("freshness-expires-invalid", &[("expires", "0"), ("date", "@0")], false),
            ("freshness-expires-invalid-date", &[("expires", "@10"), ("date", "foo")], true),
            (
                "freshness-expires-age-slow-date",
                &[("expires", "@10"), ("date", "@-10"), ("age", "25")],
                false,
            ),
            ("freshness-expires-age-fast-date", &[("expires", "@20"), ("date", "@10"), ("age", "15")], false),
            ("freshness-expires-invalid-multiple-lines", &[("expires", good), ("expires", good)], false),
            ("freshness-expires-ansi-c", &[("expires", "Thu Aug  8 02:01:18 2050"), ("date", "@0")], true),
            ("freshness-expires-wrong-case-tz", &[("expires", "Thu, 18 Aug 2050 02:01:18 gMT")], true),
            ("freshness-expires-rfc850", &[("expires", "Thursday, 18-Aug-50 02:01:18 GMT")], true),
            ("a date in the future", &[("expires", "@100"), ("date", "@99")], false),
        ],
    );
    // freshness-expires-present: stale at once, in the very same moment.
    let mut cache = shared();
    assert!(!cache.reuses(&get(&[]), ok(&[("expires", "@0"), ("date", "@0")]), 0, &get(&[])));
}

//= https://www.rfc-editor.org/rfc/rfc9111#section-5.1
//= type=test
//# a cache SHOULD ignore the field.
#[test]
fn an_age_counts_if_it_is_one() {
    for (name, lines, expected) in [
        ("age-parse-nonnumeric", &["abc"][..], true),
        ("age-parse-negative", &["-7200"], true),
        ("age-parse-float", &["7200.0"], true),
        ("age-parse-large-minus-one", &["2147483647"], false),
        ("age-parse-large", &["2147483648"], false),
        ("age-parse-larger", &["2147483649"], false),
        ("age-parse-suffix", &["7200, 0"], false),
        ("age-parse-prefix", &["0, 7200"], true),
        ("age-parse-suffix-twoline", &["7200", "0"], false),
        ("age-parse-prefix-twoline", &["0", "7200"], true),
        ("age-parse-dup-0", &["0, 0"], true),
        ("age-parse-dup-0-twoline", &["0", "0"], true),
        ("age-parse-dup-old", &["3600", "3600"], true),
        ("age-parse-parameter", &["7200;foo=bar"], true),
        ("age-parse-numeric-parameter", &["7200;foo=111"], true),
    ] {
        let fresh = if name == "age-parse-dup-old" { "max-age=10000" } else { "max-age=3600" };
        let mut fields = vec![(CC, fresh), ("date", "@0")];
        fields.extend(lines.iter().map(|line| ("age", *line)));
        check(shared, &[(name, &fields, expected)]);
    }
    // The suite's largest ages against the largest lifetime.
    check(shared, &[("both too large", &[(CC, "max-age=99999999999"), ("age", "99999999999")], false)]);
}

//= https://www.rfc-editor.org/rfc/rfc9111#section-4.2.3
//= type=test
//# corrected_initial_age = max(apparent_age, corrected_age_value);
#[test]
fn age_is_the_larger_of_what_date_and_age_say_and_grows() {
    for (fields, delay, expected) in [
        (&[][..], 0, 0),
        (&[("age", "30")], 0, 30),
        (&[("date", "@-20")], 0, 20),
        (&[("date", "@-20"), ("age", "30")], 0, 30),
        (&[("date", "@-40"), ("age", "30")], 0, 40),
        (&[("date", "@40")], 0, 0),
        // The request's way counts: what came is at least as old as the origin's clock was when it was asked.
        (&[("age", "30")], 5, 35),
        (&[("date", "@-40"), ("age", "30")], 5, 40),
    ] {
        let mut cache = shared();
        cache.delay = seconds(delay);
        let all: Vec<_> = fields.iter().copied().chain([(CC, "max-age=1000")]).collect();
        cache.ask(&get(&[]), ok(&all));
        for later in [0, 7] {
            cache.wait(later);
            let got = cache.again(&get(&[]));
            assert_eq!(got.field("age"), Some(&*(expected + later).to_string()), "{fields:?}, {delay} s");
        }
    }
}

#[test]
fn every_reused_answer_has_its_age_and_keeps_date_and_expires() {
    // other-age-gen, other-age-update-expires, other-age-update-max-age, other-date-update, other-date-update-expires,
    // other-date-update-expires-update.
    let mut cache = shared();
    let fresh = [("expires", "@2592000"), ("date", "@-3"), ("age", "30")];
    let first = cache.ask(&get(&[]), ok(&fresh));
    let got = cache.wait(3).again(&get(&[]));
    assert_eq!(got.field("age"), Some("33"));
    assert_eq!((got.field("date"), got.field("expires")), (first.field("date"), first.field("expires")));
    assert_eq!(got.headers.get_all("age").iter().count(), 1);
}

#[test]
fn a_clock_that_goes_back_makes_nothing_younger_than_it_came() {
    let mut cache = shared();
    cache.ask(&get(&[]), ok(&[(CC, "max-age=60"), ("age", "50")]));
    cache.now -= seconds(1000);
    assert_eq!(cache.again(&get(&[])).field("age"), Some("50"));
}

//= https://www.rfc-editor.org/rfc/rfc9111#section-4.2
//= type=test
//# response_is_fresh = (freshness_lifetime > current_age)
#[test]
fn freshness_ends_at_its_lifetime_and_not_a_second_later() {
    let mut cache = shared();
    cache.ask(&get(&[]), ok(&[(CC, "max-age=2"), ("etag", "\"a\"")]));
    cache.now += Duration::from_millis(1999);
    assert!(cache.again(&get(&[])).is_cached());
    cache.now += Duration::from_millis(1);
    assert!(cache.ask(&get(&[]), Origin::Answers(304, &[("etag", "\"a\"")])).asked.is_some());
}

//= https://www.rfc-editor.org/rfc/rfc9111#section-4.2.2
//= type=test
//# If the response has a Last-Modified header field (Section 8.8.2 of
//# [HTTP]), caches are encouraged to use a heuristic expiration value
//# that is no more than some fraction of the interval since that time.
#[test]
fn without_explicit_freshness_a_tenth_of_the_time_since_the_last_change_is_guessed() {
    let day = [("last-modified", "@-86400"), ("date", "@0")];
    for (status, expected) in [
        // heuristic-200-cached and so on.
        (200, true),
        (201, false),
        (202, false),
        (203, true),
        (204, true),
        (300, true),
        (301, true),
        (302, false),
        (307, false),
        (308, true),
        (400, false),
        (403, false),
        (404, true),
        (405, true),
        (410, true),
        (414, true),
        (418, false),
        (500, false),
        (501, true),
        (502, false),
        (503, false),
        (504, false),
        (599, false),
    ] {
        // U37.
        let origin = Origin::Answers(status, &day);
        assert_eq!(shared().reuses(&get(&[]), origin, 3, &get(&[])), expected, "{status}");
    }
    let public = [day[0], day[1], (CC, "public")];
    assert!(shared().reuses(&get(&[]), Origin::Answers(599, &public), 3, &get(&[])));
    // heuristic-delta-*: by the percentage that is configured, 10.
    for (delta, expected) in
        [("@-20", false), ("@-60", true), ("@-3600", true), ("@5", false), ("foo", false)]
    {
        let fields = [("last-modified", delta), ("date", "@0")];
        assert_eq!(shared().reuses(&get(&[]), ok(&fields), 3, &get(&[])), expected, "{delta}");
    }
}

#[test]
fn what_is_guessed_is_capped_and_can_be_switched_off() {
    let old = [("last-modified", "Thu, 01 Jan 1970 00:00:00 GMT"), ("date", "@0")];
    let mut cache = shared();
    cache.ask(&get(&[]), ok(&old));
    let lifetime = cache.stored(crate::cache::TARGET)[0].lifetime();
    assert_eq!(lifetime.duration, Policy::shared().heuristic_max);
    assert_eq!(lifetime.source, LifetimeSource::Heuristic);
    let mut policy = Policy::shared();
    policy.heuristic_percent = 0;
    assert!(!Cache::new(policy).reuses(&get(&[]), ok(&old), 0, &get(&[])));
}

#[test]
fn stale_twins_of_fresh_responses_are_not_guessed_fresh() {
    // status-200-stale and so on: Expires in the past beats Last-Modified, whatever the status.
    let stale = [("expires", "@-5000"), ("last-modified", "@-100000"), ("date", "@0")];
    for status in [200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 502, 503, 504, 599] {
        let origin = Origin::Answers(status, &stale);
        assert!(!shared().reuses(&get(&[]), origin, 3, &get(&[])), "{status}");
    }
}
