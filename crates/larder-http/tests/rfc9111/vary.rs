//! Which of several stored responses is meant (RFC 9111 section 4.1).

use larder_http::policy::{Policy, Reason, Selecting};
use proptest::prelude::*;

use crate::cache::{Cache, Fields, Origin, TARGET, fields, get, ok, shared};

const CC: &str = "cache-control";
const FRESH: (&str, &str) = (CC, "max-age=5000");

/// Whether a response that varies on these fields, stored for one request, answers another.
fn matches(vary: &str, stored: Fields<'_>, presented: Fields<'_>) -> bool {
    shared().reuses(&get(stored), ok(&[FRESH, ("vary", vary)]), 0, &get(presented))
}

//= https://www.rfc-editor.org/rfc/rfc9111#section-4.1
//= type=test
//# the cache MUST NOT use that stored
//# response without revalidation unless all the presented request header
//# fields nominated by that Vary field value match those fields in the
//# original request
#[test]
fn all_fields_that_vary_names_have_to_match() {
    // U6, U25, U46.
    for (name, vary, stored, presented, expected) in [
        ("vary-match", "Foo", &[("foo", "1")][..], &[("foo", "1")][..], true),
        ("vary-no-match", "Foo", &[("foo", "1")], &[("foo", "2")], false),
        ("vary-omit-stored", "Foo", &[], &[("foo", "1")], false),
        ("vary-omit", "Foo", &[("foo", "1")], &[], false),
        ("absent twice", "Foo", &[], &[], true),
        ("empty is not absent", "Foo", &[], &[("foo", "")], false),
        ("vary-cache-key", "Foo", &[("foo", "1"), ("other", "2")], &[("foo", "1"), ("other", "3")], true),
        ("vary-2-match", "Foo, Bar", &[("foo", "1"), ("bar", "abc")], &[("foo", "1"), ("bar", "abc")], true),
        (
            "vary-2-no-match",
            "Foo, Bar",
            &[("foo", "1"), ("bar", "abc")],
            &[("foo", "2"), ("bar", "abc")],
            false,
        ),
        ("vary-2-match-omit", "Foo, Bar", &[("foo", "1"), ("bar", "abc")], &[("foo", "1")], false),
        (
            "vary-3-order",
            "Foo, Bar, Baz",
            &[("foo", "1"), ("bar", "abc"), ("baz", "789")],
            &[("baz", "789"), ("bar", "abc"), ("foo", "1")],
            true,
        ),
        (
            "vary-3-no-match",
            "Foo, Bar, Baz",
            &[("foo", "1"), ("bar", "abc"), ("baz", "789")],
            &[("foo", "1"), ("bar", "abcde"), ("baz", "789")],
            false,
        ),
    ] {
        assert_eq!(matches(vary, stored, presented), expected, "{name}");
    }
}

#[test]
fn a_star_or_nonsense_anywhere_matches_nothing() {
    // vary-star, vary-syntax-star, -star-star, -star-star-lines, -empty-star, -empty-star-lines, -star-foo, -foo-star; U25.
    let ask = get(&[("foo", "1"), ("baz", "789")]);
    for lines in [
        &["*"][..],
        &["*, *"],
        &["*", "*"],
        &[", *"],
        &["", "*"],
        &["*, Foo"],
        &["Foo, *"],
        &["Foo", "*"],
        &["not a field"],
    ] {
        let mut response = vec![FRESH, ("last-modified", "@-3000"), ("date", "@0")];
        response.extend(lines.iter().map(|line| ("vary", *line)));
        assert!(!shared().reuses(&ask, ok(&response), 0, &ask), "{lines:?}");
    }
}

//= https://www.rfc-editor.org/rfc/rfc9111#section-4.1
//= type=test
//# *  normalizing both header field values in a way that is known to have
//#    identical semantics, according to the header field's specification
#[test]
fn fields_that_mean_the_same_match() {
    let language = |stored, presented| {
        matches("Accept-Language", &[("accept-language", stored)], &[("accept-language", presented)])
    };
    // vary-normalise-lang-order, -lang-case, -lang-space.
    assert!(language("en, de", "de, en"));
    assert!(language("en, de", "eN, De"));
    assert!(language("en, de", " en ,   de"));
    assert!(language("en, de;q=0.5", "de ; Q=0.500,en;q=1.0"));
    // vary-normalise-lang-select asks for `true`, which the RFC forbids: they are not the same request.
    assert!(!language("en, de", "fr;q=0.5, de;q=1.0"));
    assert!(!language("en, de;q=0.5", "en, de;q=0.6"));
    assert!(!language("en, de;q=2", "de;q=2, en"), "weights that are none are compared as they are");
    // vary-normalise-combine, vary-normalise-space.
    assert!(matches("Foo", &[("foo", "1, 2")], &[("foo", "1"), ("foo", "2")]));
    assert!(matches("Foo", &[("foo", "1,2")], &[("foo", " 1, 2 ")]));
    assert!(!matches("Foo", &[("foo", "1,2")], &[("foo", "2,1")]), "order may matter");
    assert!(!matches("Foo", &[("foo", "a")], &[("foo", "A")]), "case may matter");
    assert!(!matches("Foo", &[("foo", "1,,2")], &[("foo", "1,2")]), "an empty member may matter");
    assert!(!matches("Foo", &[("foo", "\"1,2\"")], &[("foo", "\"1, 2\"")]), "spaces in quotes are spaces");
    assert!(!matches("User-Agent", &[("user-agent", "a (b, c)")], &[("user-agent", "a (b,c)")]));
    assert!(matches("Cookie", &[("cookie", "a=1; b=2")], &[("cookie", "a=1"), ("cookie", "b=2")]));
}

#[test]
fn variants_live_side_by_side_and_those_that_name_fields_go_first() {
    // vary-invalidate; U5, U6, U17, U18.
    let mut cache = shared();
    for value in ["1", "2"] {
        cache.ask(&get(&[("foo", value)]), ok(&[FRESH, ("vary", "Foo"), ("n", value)]));
    }
    assert_eq!(cache.again(&get(&[("foo", "1")])).field("n"), Some("1"));
    assert_eq!(cache.again(&get(&[("foo", "2")])).field("n"), Some("2"));
    let miss = cache.ask(&get(&[]), ok(&[FRESH, ("n", "any"), ("date", "@10")]));
    assert_eq!(miss.reason, Some(Reason::VaryMiss));
    assert_eq!(
        cache.again(&get(&[("foo", "1")])).field("n"),
        Some("1"),
        "it names fields, the newer one does not"
    );
    assert_eq!(cache.again(&get(&[("foo", "3")])).field("n"), Some("any"));
    assert_eq!(cache.stored(TARGET).len(), 3);
    // The same request again replaces its own.
    cache.ask(&get(&[(CC, "no-cache")]), ok(&[FRESH, ("n", "newer"), ("date", "@20")]));
    assert_eq!(cache.stored(TARGET).len(), 3);
    assert_eq!(cache.again(&get(&[])).field("n"), Some("newer"));
}

//= https://www.rfc-editor.org/rfc/rfc9111#section-4
//= type=test
//# When more than one suitable response is stored, a cache MUST use the
//# most recent one (as determined by the Date header field).
#[test]
fn of_two_that_match_the_more_recent_one_by_date_is_meant() {
    let mut cache = shared();
    let both = get(&[("a", "1"), ("b", "1")]);
    cache.ask(&both, ok(&[FRESH, ("vary", "a"), ("n", "newer"), ("date", "@-10")]));
    let other = get(&[("a", "2"), ("b", "1")]);
    cache.ask(&other, ok(&[FRESH, ("vary", "b"), ("n", "older"), ("date", "@-20")]));
    assert_eq!(cache.again(&both).field("n"), Some("newer"));
    assert_eq!(cache.again(&other).field("n"), Some("older"));
}

#[test]
fn there_are_no_more_variants_than_configured() {
    let mut policy = Policy::shared();
    policy.variants_max = 3;
    let mut cache = Cache::new(policy);
    for value in ["1", "2", "3", "4", "5"] {
        cache.wait(1);
        cache.ask(&get(&[("foo", value)]), ok(&[FRESH, ("vary", "Foo"), ("n", value)]));
    }
    assert_eq!(cache.stored(TARGET).len(), 3);
    assert_eq!(cache.again(&get(&[("foo", "5")])).field("n"), Some("5"));
    assert_eq!(cache.ask(&get(&[("foo", "1")]), ok(&[])).reason, Some(Reason::VaryMiss));
}

#[test]
fn a_304_may_change_what_a_response_varies_on() {
    // U25.
    let mut cache = shared();
    cache.ask(&get(&[("a", "1"), ("b", "1")]), ok(&[(CC, "max-age=1"), ("vary", "a"), ("etag", "\"x\"")]));
    let not_modified = [(CC, "max-age=60"), ("vary", "b"), ("etag", "\"x\"")];
    cache.wait(3).ask(&get(&[("a", "1"), ("b", "2")]), Origin::Answers(304, &not_modified));
    assert!(cache.again(&get(&[("a", "9"), ("b", "2")])).is_cached());
    assert_eq!(cache.ask(&get(&[("a", "1"), ("b", "1")]), ok(&[])).reason, Some(Reason::VaryMiss));
}

proptest! {
    #[test]
    fn two_requests_match_if_their_normal_forms_are_the_same_and_only_then(
        name in prop::sample::select(vec!["foo", "accept-language", "cookie", "user-agent"]),
        one in "[aA,b ]{0,5}(;q=[01]?(\\.5)?)?[,;ab \"]{0,4}",
        other in "[aA,b ]{0,5}(;q=[01]?(\\.5)?)?[,;ab \"]{0,4}",
    ) {
        let name: http::HeaderName = name.parse().unwrap();
        let header = |value: &str| fields(std::time::UNIX_EPOCH, &[(name.as_str(), value)]);
        let selecting = |value| Selecting::of(vec![name.clone()], &header(value));
        prop_assert_eq!(selecting(&one).matches(&header(&other)), selecting(&one) == selecting(&other));
        prop_assert_eq!(selecting(&other).matches(&header(&one)), selecting(&one) == selecting(&other));
    }

    #[test]
    fn a_request_matches_itself_and_its_normal_form(
        name in prop::sample::select(vec!["foo", "accept-language", "accept-encoding", "cookie", "user-agent"]),
        values in prop::collection::vec("[a-c,;=q0-2. \"\\\\\t]{0,20}", 0..3),
    ) {
        let presented: Vec<(&str, &str)> = values.iter().map(|value| (name, value.as_str())).collect();
        let headers = fields(std::time::UNIX_EPOCH, &presented);
        let selecting = Selecting::of(vec![name.parse().unwrap()], &headers);
        prop_assert!(selecting.matches(&headers));
        let normal: Vec<(http::HeaderName, Vec<u8>)> = selecting
            .pairs()
            .filter_map(|(name, value)| Some((name.clone(), value?.to_vec())))
            .collect();
        if let [(name, value)] = normal.as_slice() {
            let again = http::HeaderMap::from_iter([(name.clone(), http::HeaderValue::from_bytes(value).unwrap())]);
            prop_assert!(selecting.matches(&again));
            prop_assert_eq!(&Selecting::of(vec![name.clone()], &again), &selecting);
        }
    }
}
