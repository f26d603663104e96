//! When a stored response answers a request: directives of responses and of requests (RFC 9111 sections 4 and 5.2).

use larder_http::policy::{Exchange, Mark, Policy, Reason, Selected, Verdict};

use crate::cache::{Origin, TARGET, fields, get, method, ok, private, request, response, shared};

const CC: &str = "cache-control";

#[test]
fn a_fresh_response_answers_and_says_so() {
    // U24.
    let mut cache = shared();
    cache.ask(&get(&[]), ok(&[(CC, "max-age=60")]));
    let got = cache.wait(10).again(&get(&[]));
    assert!(got.is_cached());
    let said = got.field("cache-status").unwrap();
    assert!(said.starts_with("test; hit; ttl=50; detail=\"it is fresh (RFC 9111 section 4.2)\""), "{said}");
}

//= https://www.rfc-editor.org/rfc/rfc9111#section-4
//= type=test
//# *  the stored response does not contain the no-cache directive
//#    (Section 5.2.2.4), unless it is successfully validated
//#    (Section 4.3), and
#[test]
fn what_has_no_cache_is_kept_and_always_validated() {
    // cc-resp-no-cache-revalidate, cc-resp-no-cache-revalidate-fresh, cc-resp-no-cache, -case-insensitive; U26.
    for directive in ["no-cache", "max-age=10000, No-CaChE", "max-age=10000, no-cache=x, no-cache"] {
        let mut cache = shared();
        cache.ask(&get(&[]), ok(&[(CC, directive), ("etag", "\"abcd\""), ("expires", "@10000")]));
        for _ in 0..2 {
            let got = cache.ask(&get(&[]), Origin::Answers(304, &[("etag", "\"abcd\"")]));
            assert_eq!(got.sent("if-none-match"), Some("\"abcd\""), "{directive}");
            assert_eq!((got.status, got.is_stored), (200, true), "{directive}");
        }
    }
    let mut cache = shared();
    assert!(!cache.reuses(&get(&[]), ok(&[(CC, "max-age=10000, no-cache")]), 0, &get(&[])));
    assert!(cache.stored(TARGET).is_empty(), "without a validator, nobody can use it");
}

//= https://www.rfc-editor.org/rfc/rfc9111#section-5.2.2.4
//= type=test
//# if the listed header fields are
//# excluded from the subsequent response or the subsequent response has
//# been successfully revalidated with the origin server
#[test]
fn fields_that_no_cache_names_come_only_after_validation() {
    // headers-omit-headers-listed-in-Cache-Control-no-cache, -single; U30.
    let fields =
        [(CC, "no-cache=\" A , b\", max-age=60"), ("a", "1"), ("b", "2"), ("c", "3"), ("etag", "\"x\"")];
    let mut cache = shared();
    cache.ask(&get(&[]), ok(&fields));
    let got = cache.again(&get(&[]));
    assert_eq!((got.field("a"), got.field("b"), got.field("c")), (None, None, Some("3")));
    let asked_again = get(&[(CC, "no-cache")]);
    let got = cache.ask(&asked_again, Origin::Answers(304, &[("etag", "\"x\"")]));
    assert_eq!((got.is_stored, got.field("a"), got.field("b")), (true, Some("1"), Some("2")));
}

#[test]
fn an_older_fresh_response_goes_on_answering() {
    // cc-resp-no-store-old-new, cc-resp-no-store-old-max-age: the newer one is not even asked for.
    let mut cache = shared();
    cache.ask(&get(&[]), ok(&[(CC, "max-age=10000"), ("a", "1")]));
    let got = cache.ask(&get(&[]), Origin::Silent);
    assert_eq!(got.field("a"), Some("1"));
    // A failure leaves it where it is. Once the origin has shown a newer one, it goes, whether that is stored or not.
    for failure in [501, 503] {
        cache.ask(&get(&[(CC, "no-cache")]), Origin::Answers(failure, &[(CC, "no-store")]));
        assert_eq!(cache.again(&get(&[])).field("a"), Some("1"));
    }
    cache.ask(&get(&[(CC, "no-cache")]), ok(&[(CC, "no-store"), ("a", "2")]));
    assert!(cache.stored(TARGET).is_empty());
}

#[test]
fn must_revalidate_changes_nothing_while_fresh() {
    // cc-resp-must-revalidate-fresh, cc-resp-must-revalidate-stale.
    let mut cache = shared();
    cache.ask(&get(&[]), ok(&[(CC, "max-age=2, must-revalidate"), ("etag", "\"abcd\"")]));
    assert!(cache.wait(1).again(&get(&[])).is_cached());
    let got = cache.wait(3).ask(&get(&[]), Origin::Answers(304, &[("etag", "\"abcd\"")]));
    assert_eq!(got.sent("if-none-match"), Some("\"abcd\""));
}

//= https://www.rfc-editor.org/rfc/rfc8246#section-2
//= type=test
//# Clients SHOULD NOT issue a conditional request during the
//# response's freshness lifetime (e.g., upon a reload) unless
//# explicitly overridden by the user (e.g., a force reload).
#[test]
fn a_reload_of_something_immutable_is_answered_while_it_is_fresh() {
    // cc-resp-immutable-fresh, cc-resp-immutable-stale.
    let reload = get(&[(CC, "max-age=0")]);
    let mut cache = private();
    cache.ask(&get(&[]), ok(&[(CC, "max-age=10, immutable"), ("etag", "\"a\"")]));
    assert_eq!(cache.wait(3).again(&reload).reason, Some(Reason::Immutable));
    let not_modified = Origin::Answers(304, &[("etag", "\"a\"")]);
    assert!(cache.ask(&get(&[(CC, "no-cache")]), not_modified).asked.is_some(), "a forced reload");
    assert!(cache.wait(10).ask(&reload, not_modified).asked.is_some(), "stale");
    // It says nothing about how long it is fresh (undici makes it a year).
    let mut cache = private();
    assert!(!cache.reuses(&get(&[]), ok(&[(CC, "immutable"), ("etag", "\"a\"")]), 0, &get(&[])));
}

#[test]
fn wishes_of_requests_are_met() {
    // U35.
    let fresh: &[(&str, &str)] = &[(CC, "max-age=100"), ("etag", "\"a\"")];
    let aged: &[(&str, &str)] = &[(CC, "max-age=1500"), ("age", "1000"), ("etag", "\"a\"")];
    for (name, response, wait, wish, expected) in [
        ("ccreq-ma0", fresh, 3, "max-age=0", Err(Reason::RequestMaxAge)),
        ("ccreq-ma0, at once", fresh, 0, "max-age=0", Err(Reason::RequestMaxAge)),
        ("ccreq-ma1", fresh, 3, "max-age=1", Err(Reason::RequestMaxAge)),
        ("younger than asked for", fresh, 3, "max-age=3", Ok(Reason::Fresh)),
        ("ccreq-magreaterage", aged, 0, "max-age=600", Err(Reason::RequestMaxAge)),
        ("ccreq-max-stale", fresh, 1000, "max-stale=1000", Ok(Reason::MaxStale)),
        ("too stale", fresh, 1101, "max-stale=1000", Err(Reason::Stale)),
        ("any staleness", fresh, 100_000, "max-stale", Ok(Reason::MaxStale)),
        ("staleness that is no number", fresh, 101, "max-stale=x", Err(Reason::Stale)),
        ("ccreq-max-stale-age", aged, 1000, "max-stale=1000", Ok(Reason::MaxStale)),
        ("ccreq-min-fresh", fresh, 0, "min-fresh=200", Err(Reason::RequestMinFresh)),
        ("ccreq-min-fresh-age", aged, 0, "min-fresh=1000", Err(Reason::RequestMinFresh)),
        ("fresh just long enough", fresh, 40, "min-fresh=60", Ok(Reason::Fresh)),
        ("ccreq-no-cache", fresh, 0, "nothing-to-see-here, No-Cache", Err(Reason::RequestNoCache)),
        ("ccreq-no-store", fresh, 0, "no-store", Ok(Reason::Fresh)),
        ("fresh enough, but not fresh", fresh, 150, "max-age=200", Err(Reason::Stale)),
        ("old and stale is welcome", fresh, 150, "max-age=200, max-stale=60", Ok(Reason::MaxStale)),
    ] {
        let mut cache = shared();
        cache.ask(&get(&[]), ok(response));
        let wishes = [(CC, wish)];
        let then = get(&wishes);
        let request = request(cache.now, &then);
        cache.wait(wait);
        let stored = &cache.stored(TARGET)[0];
        let verdict = cache.policy.verdict(&request, Selected::One(stored), cache.now);
        let answers = matches!(verdict, Verdict::Serve { .. });
        assert_eq!(if answers { Ok(verdict.reason()) } else { Err(verdict.reason()) }, expected, "{name}");
    }
}

#[test]
fn a_request_for_validation_is_conditional() {
    // ccreq-no-cache-lm, ccreq-no-cache-etag.
    let mut cache = shared();
    cache.ask(&get(&[]), ok(&[(CC, "max-age=3600"), ("last-modified", "@-10000"), ("etag", "\"abc\"")]));
    let modified = cache.stored(TARGET)[0].headers()["last-modified"].to_str().unwrap().to_owned();
    let got = cache.ask(&get(&[(CC, "no-cache")]), Origin::Answers(304, &[("etag", "\"abc\"")]));
    assert_eq!(got.sent("if-modified-since"), Some(&*modified));
    assert_eq!(got.sent("if-none-match"), Some("\"abc\""));
}

//= https://www.rfc-editor.org/rfc/rfc9111#section-5.2.1.7
//= type=test
//# respond with either a stored
//# response consistent with the other constraints of the request or a
//# 504 (Gateway Timeout) status code.
#[test]
fn only_if_cached_never_asks_the_origin() {
    // ccreq-oic; undici asks the origin if what is stored is stale.
    let only = get(&[(CC, "only-if-cached")]);
    let mut cache = shared();
    assert_eq!(cache.again(&only).status, 504);
    cache.ask(&get(&[]), ok(&[(CC, "max-age=10"), ("etag", "\"a\""), ("vary", "x")]));
    assert_eq!(cache.again(&only).status, 200);
    assert_eq!(cache.again(&get(&[(CC, "only-if-cached"), ("x", "1")])).status, 504);
    assert_eq!(cache.wait(20).again(&only).status, 504);
    assert_eq!(cache.again(&get(&[(CC, "only-if-cached, max-stale")])).status, 200);
}

#[test]
fn pragma_is_a_wish_of_old_requests_and_nothing_in_responses() {
    // pragma-request-no-cache, pragma-request-extension, pragma-response-no-cache, -heuristic, -extension.
    let mut cache = shared();
    cache.ask(&get(&[]), ok(&[(CC, "max-age=60"), ("pragma", "no-cache"), ("etag", "\"a\"")]));
    assert!(cache.again(&get(&[])).is_cached());
    assert!(cache.again(&get(&[("pragma", "foo")])).is_cached());
    assert!(cache.again(&get(&[("pragma", "no-cache"), (CC, "nothing-to-see-here")])).is_cached());
    let got = cache.ask(&get(&[("pragma", "no-cache")]), Origin::Answers(304, &[("etag", "\"a\"")]));
    assert_eq!(got.sent("if-none-match"), Some("\"a\""));
    let heuristic = [("last-modified", "@-100000"), ("date", "@0"), ("pragma", "no-cache")];
    assert!(shared().reuses(&get(&[]), ok(&heuristic), 3, &get(&[])));
}

#[test]
fn queries_and_hosts_are_part_of_the_target() {
    // query-args-different, query-args-same: the key is the caller's, so nothing here makes two of them one. U23, U44.
    let mut cache = shared();
    let one = crate::cache::Ask { target: "http://example.com/?q=a", ..get(&[]) };
    let other = crate::cache::Ask { target: "http://example.com/?q=b", ..get(&[]) };
    cache.ask(&one, ok(&[(CC, "max-age=60")]));
    assert!(cache.again(&one).is_cached());
    assert!(cache.ask(&other, ok(&[])).asked.is_some());
}

#[test]
fn head_is_answered_from_get_and_other_methods_are_passed_on() {
    let mut cache = shared();
    cache.ask(&get(&[]), ok(&[(CC, "max-age=60")]));
    assert!(cache.again(&method("HEAD", &[])).is_cached());
    for other in ["POST", "OPTIONS", "TRACE", "M-SEARCH", "CONNECT"] {
        let got = cache.ask(&method(other, &[]), Origin::Answers(500, &[]));
        assert_eq!(got.reason, Some(Reason::Method), "{other}");
    }
    assert!(cache.again(&get(&[])).is_cached());
}

//= https://www.rfc-editor.org/rfc/rfc9111#section-4.3.2
//= type=test
//# The If-Match and If-Unmodified-Since conditional header fields are not
//# applicable to a cache
#[test]
fn conditions_for_the_origin_go_to_the_origin() {
    let mut cache = shared();
    cache.ask(&get(&[]), ok(&[(CC, "max-age=60"), ("etag", "\"a\"")]));
    for condition in [("if-match", "\"b\""), ("if-unmodified-since", "@-10")] {
        let got = cache.ask(&get(&[condition]), Origin::Answers(412, &[(CC, "max-age=60")]));
        assert_eq!((got.status, got.reason), (412, Some(Reason::OriginCondition)));
        assert!(got.sent(condition.0).is_some());
    }
    assert_eq!(cache.again(&get(&[])).status, 200, "and the refusal is not kept");
    let only = [("if-match", "\"a\""), (CC, "only-if-cached")];
    assert_eq!(cache.again(&get(&only)).status, 504);
}

#[test]
fn a_get_with_content_is_the_origins_and_answers_nobody_else() {
    // A body that nobody keys, and that some origins look at.
    let mut cache = shared();
    let fat = get(&[("content-length", "7")]);
    cache.ask(&fat, ok(&[(CC, "max-age=60"), ("n", "fat")]));
    assert!(cache.stored(TARGET).is_empty());
    cache.ask(&get(&[]), ok(&[(CC, "max-age=60"), ("n", "plain")]));
    let got = cache.ask(&fat, ok(&[(CC, "max-age=60"), ("n", "fat")]));
    assert_eq!((got.field("n"), got.reason), (Some("fat"), Some(Reason::Content)));
    assert_eq!(cache.again(&get(&[])).field("n"), Some("plain"));
}

#[test]
fn what_was_marked_has_no_freshness_left_to_tell_of() {
    let mut cache = shared();
    cache.ask(&get(&[]), ok(&[(CC, "max-age=60, stale-while-revalidate=60")]));
    let stored = cache.stored(TARGET)[0].clone();
    for (mark, after, ttl) in [
        (Mark::None, 5, 55),
        (Mark::Stale, 0, -1),
        (Mark::Stale, 5, -5),
        (Mark::Invalid, 5, -5),
        (Mark::Stale, 70, -70),
        (Mark::None, 70, -10),
    ] {
        let seconds = stored.clone().marked(mark).ttl_seconds(cache.now + crate::cache::seconds(after));
        assert_eq!(seconds, ttl, "{mark:?} after {after} s");
    }
}

#[test]
fn the_freshness_that_is_left_is_rounded_down() {
    let mut cache = shared();
    cache.ask(&get(&[]), ok(&[(CC, "max-age=60")]));
    let stored = cache.stored(TARGET)[0].clone();
    for (millis, ttl) in
        [(0, 60), (1, 59), (59_001, 0), (59_999, 0), (60_000, -1), (60_200, -1), (61_000, -1), (61_001, -2)]
    {
        let at = cache.now + std::time::Duration::from_millis(millis);
        assert_eq!(stored.ttl_seconds(at), ttl, "after {millis} ms");
        assert_eq!(stored.ttl_seconds(at) < 0, !stored.is_fresh(at));
    }
}

#[test]
fn what_was_marked_is_not_used_as_if_it_were_not() {
    let mut cache = shared();
    cache.ask(&get(&[]), ok(&[(CC, "max-age=60, stale-while-revalidate=600"), ("etag", "\"a\"")]));
    let stored = cache.stored(TARGET)[0].clone();
    let request = request(cache.now, &get(&[]));
    let verdict = |mark| {
        let stored = stored.clone().marked(mark);
        cache.policy.verdict(&request, Selected::One(&stored), cache.now)
    };
    assert_eq!(verdict(Mark::None).reason(), Reason::Fresh);
    assert!(matches!(verdict(Mark::Stale), Verdict::ServeAndValidate { .. }));
    let Verdict::Validate { fallback, reason, .. } = verdict(Mark::Invalid) else { panic!() };
    assert_eq!((reason, fallback.disconnected), (Reason::Invalidated, Err(Reason::Invalidated)));
    // Nobody knows when it ceased to be right: perhaps when it came.
    let later = cache.now + std::time::Duration::from_secs(50);
    let window = stored.clone().marked(Mark::Stale).staleness(later);
    assert_eq!(window.as_secs(), 50);
    // What the origin confirms is as good as new.
    for mark in [Mark::Stale, Mark::Invalid] {
        let not_modified = response(304, fields(cache.now, &[("etag", "\"a\"")]));
        let marked = stored.clone().marked(mark);
        let freshened =
            cache.policy.freshen(&request, &marked, &not_modified, Exchange::at(cache.now)).unwrap();
        assert_eq!((freshened.stored.kept().mark, freshened.stored.is_fresh(cache.now)), (Mark::None, true));
    }
}

#[test]
fn another_policy_reads_what_was_kept_its_own_way() {
    let mut cache = private();
    cache.ask(&get(&[]), ok(&[(CC, "max-age=60, s-maxage=5")]));
    let kept = cache.stored(TARGET)[0].clone().into_kept();
    let stored = larder_http::policy::Stored::new(&Policy::shared(), kept);
    assert_eq!(stored.lifetime().duration.as_secs(), 5);
}
