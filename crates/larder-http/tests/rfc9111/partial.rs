//! Parts of representations: cut from what is stored, stored, and put together (RFC 9111 sections 3.3 and 3.4).

use larder_http::header::Span;
use larder_http::policy::{Answer, Completed, Exchange, Mark, Policy, Reason, Stored};

use crate::cache::{
    BODY_BYTES, Cache, Fields, Origin, TARGET, fields, get, method, ok, request, response, shared,
};

const FRESH: (&str, &str) = ("cache-control", "max-age=3600");
const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

fn with_complete(fields: Fields<'_>) -> Cache {
    let mut cache = shared();
    let all: Vec<_> = fields.iter().copied().chain([FRESH]).collect();
    cache.ask(&get(&[]), ok(&all));
    cache
}

#[test]
fn ranges_are_cut_from_a_complete_response() {
    // partial-store-complete-reuse-partial, -no-last, -suffix, partial-use-headers, partial-use-stored-headers.
    let mut cache = with_complete(&[("a", "1"), ("content-digest", "sha-256=:of-all-of-it:")]);
    for (range, expected, length) in [
        ("bytes=0-1", "bytes 0-1/11", "2"),
        ("bytes=1-", "bytes 1-10/11", "10"),
        ("bytes=-1", "bytes 10-10/11", "1"),
        ("bytes=-100", "bytes 0-10/11", "11"),
    ] {
        let got = cache.wait(1).again(&get(&[("range", range)]));
        assert_eq!((got.status, got.field("content-range")), (206, Some(expected)), "{range}");
        assert_eq!((got.field("content-length"), got.field("a")), (Some(length), Some("1")));
        assert!(got.field("age").is_some());
        // It would be of another content (RFC 9530 section 2).
        assert_eq!(got.field("content-digest"), None);
    }
    // Several: the caller writes them, with a type and a length of its own.
    let got = cache.again(&get(&[("range", "bytes=0-0,5-6")]));
    assert_eq!((got.status, got.field("content-range"), got.field("content-length")), (206, None, None));
}

//= https://www.rfc-editor.org/rfc/rfc9110#section-15.5.17
//= type=test
//# A server that generates a 416 response to a byte-range request SHOULD
//# generate a Content-Range header field specifying the current length of
//# the selected representation
#[test]
fn ranges_beyond_the_end_are_refused_and_what_is_no_range_is_ignored() {
    let mut cache = with_complete(&[("etag", "\"a\""), ("content-type", "text/html")]);
    let got = cache.again(&get(&[("range", "bytes=11-")]));
    assert_eq!((got.status, got.field("content-range")), (416, Some("bytes */11")));
    assert_eq!((got.field("content-type"), got.field("etag")), (None, None));
    for range in ["bytes=5-1", "bytes=x", "items=0-1", "bytes=0-1,0-2,0-3"] {
        assert_eq!(cache.again(&get(&[("range", range)])).status, 200, "{range}");
    }
    assert_eq!(cache.again(&method("HEAD", &[("range", "bytes=0-1")])).status, 200);
    let mut missing = shared();
    missing.ask(&get(&[]), Origin::Answers(404, &[FRESH]));
    assert_eq!(missing.again(&get(&[("range", "bytes=0-1")])).status, 404);
}

//= https://www.rfc-editor.org/rfc/rfc9110#section-13.1.5
//= type=test
//# A recipient of an If-Range header field MUST ignore the Range header
//# field if the If-Range condition evaluates to false.
#[test]
fn if_range_compares_strongly() {
    let mut cache = with_complete(&[("etag", "\"a\""), ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")]);
    for (condition, status) in [
        ("\"a\"", 206),
        ("W/\"a\"", 200),
        ("\"b\"", 200),
        ("a", 200),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 206),
        ("Sun, 06 Nov 1994 08:49:38 GMT", 200),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 200),
    ] {
        let fields = [("range", "bytes=0-1"), ("if-range", condition)];
        assert_eq!(cache.again(&get(&fields)).status, status, "{condition}");
    }
    let twice = [("range", "bytes=0-1"), ("if-range", "\"a\""), ("if-range", "\"a\"")];
    assert_eq!(cache.again(&get(&twice)).status, 200);
    let mut weak = with_complete(&[("etag", "W/\"a\""), ("last-modified", "@0")]);
    let date = weak.stored(TARGET)[0].headers()["last-modified"].to_str().unwrap().to_owned();
    for condition in ["W/\"a\"", &date] {
        let fields = [("range", "bytes=0-1"), ("if-range", condition)];
        assert_eq!(weak.again(&get(&fields)).status, 200, "{condition}");
    }
    // Conditions come before ranges.
    let fields = [("range", "bytes=0-1"), ("if-none-match", "\"a\"")];
    assert_eq!(cache.again(&get(&fields)).status, 304);
}

#[test]
fn ranges_of_what_is_still_coming_wait_for_its_end() {
    let cache = with_complete(&[]);
    let mut kept = cache.stored(TARGET)[0].clone().into_kept();
    kept.body_bytes = None;
    let stored = Stored::new(&Policy::shared(), kept);
    let ask = request(cache.now, &get(&[("range", "bytes=0-1")]));
    assert_eq!(stored.answer(&ask), Some(Answer::Whole));
    let empty = stored.with_body_bytes(0);
    assert_eq!(empty.answer(&ask), Some(Answer::NotSatisfiable));
}

/// A cache with a part, as `bytes=-5` got it, that is so many bytes long.
fn with_part(content_range: &str, body_bytes: &str, more: Fields<'_>) -> Cache {
    let mut cache = shared();
    let fields = [FRESH, ("content-range", content_range), ("x-body-bytes", body_bytes)];
    let all: Vec<_> = fields.iter().chain(more).copied().collect();
    cache.ask(&get(&[("range", "bytes=-5")]), Origin::Answers(206, &all));
    cache
}

fn part(content_range: &str, body_bytes: &str, more: Fields<'_>) -> Stored {
    with_part(content_range, body_bytes, more).stored(TARGET)[0].clone()
}

fn asked(cache: &mut Cache, fields: Fields<'_>) -> (u16, bool, Option<Reason>) {
    let got = cache.ask(&get(fields), ok(&[("cache-control", "no-store")]));
    (got.status, got.is_cached(), got.reason)
}

#[test]
fn a_part_is_stored_and_answers_what_lies_in_it() {
    // partial-store-partial-reuse-partial, with the suite's own data: six bytes announced, five sent.
    let hit = (206, true, Some(Reason::Fresh));
    let miss = (200, false, Some(Reason::Partial));
    let mut odd = with_part("bytes 4-9/10", "5", &[]);
    assert_eq!(asked(&mut odd, &[("range", "bytes=-5")]), hit);
    // partial-store-partial-reuse-partial-byterange, and the two that would claim a byte that never came:
    // partial-store-partial-reuse-partial-absent, -suffix.
    assert_eq!(asked(&mut odd, &[("range", "bytes=6-8")]), hit);
    assert_eq!(asked(&mut odd, &[("range", "bytes=6-")]), miss);
    assert_eq!(asked(&mut odd, &[("range", "bytes=-1")]), miss);

    let mut right = with_part("bytes 5-9/10", "5", &[]);
    for (range, expected) in [
        ("bytes=-5", hit),
        ("bytes=5-9", hit),
        ("bytes=6-7", hit),
        ("bytes=9-", hit),
        ("bytes=-1", hit),
        ("bytes=5-5,7-8", hit),
        ("bytes=4-9", miss),
        ("bytes=0-1", miss),
        ("bytes=-6", miss),
        ("bytes=0-0,6-7", miss),
    ] {
        assert_eq!(asked(&mut right, &[("range", range)]), expected, "{range}");
    }
}

#[test]
fn of_several_parts_the_one_that_has_what_is_asked_for_is_meant() {
    let mut cache = shared();
    for (range, content_range) in [("bytes=0-4", "bytes 0-4/10"), ("bytes=5-9", "bytes 5-9/10")] {
        cache.wait(1);
        let fields = [FRESH, ("content-range", content_range), ("x-body-bytes", "5")];
        cache.ask(&get(&[("range", range)]), Origin::Answers(206, &fields));
    }
    assert_eq!(cache.stored(TARGET).len(), 2);
    for range in ["bytes=0-4", "bytes=1-2", "bytes=5-9", "bytes=-2"] {
        assert!(asked(&mut cache, &[("range", range)]).1, "{range}");
    }
    // A whole one that is older than a part of it still is the whole.
    cache.ask(&get(&[]), ok(&[FRESH, ("date", "@-100"), ("x-body-bytes", "10")]));
    assert_eq!(asked(&mut cache, &[]), (200, true, Some(Reason::Fresh)));
}

//= https://www.rfc-editor.org/rfc/rfc9111#section-3.3
//= type=test
//# A cache MUST NOT send a partial response to a client without
//# explicitly marking it using the 206 (Partial Content) status code.
#[test]
fn a_part_answers_no_request_for_the_whole() {
    // U38.
    let miss = (200, false, Some(Reason::Partial));
    let mut cache = with_part("bytes 5-9/10", "5", &[("etag", "\"a\"")]);
    assert_eq!(asked(&mut cache, &[]), miss);
    assert_eq!(asked(&mut cache, &[("range", "bytes=x")]), miss);
    assert_eq!(asked(&mut cache, &[("range", "bytes=6-7"), ("if-range", "\"b\"")]), miss);
    let mut unknown = with_part("bytes 5-9/*", "5", &[]);
    assert_eq!(asked(&mut unknown, &[("range", "bytes=6-7")]), miss, "nobody knows how long the whole is");
    assert!(asked(&mut unknown, &[("range", "bytes=-5")]).1);
}

#[test]
fn parts_that_cannot_be_told_from_others_are_not_stored() {
    for fields in [
        &[FRESH][..],
        &[FRESH, ("content-type", "multipart/byteranges; boundary=x")],
        &[FRESH, ("content-range", "bytes */10")],
        &[FRESH, ("content-range", "bytes 9-4/10")],
    ] {
        let mut cache = shared();
        cache.ask(&get(&[("range", "bytes=-5")]), Origin::Answers(206, fields));
        assert!(cache.stored(TARGET).is_empty(), "{fields:?}");
    }
    let mut cache = shared();
    cache.ask(&get(&[]), Origin::Answers(206, &[FRESH, ("content-range", "bytes 0-4/10")]));
    assert!(cache.stored(TARGET).is_empty(), "nobody asked for a part");
    let mut cache = shared();
    cache.ask(
        &get(&[("range", "bytes=99-")]),
        Origin::Answers(416, &[FRESH, ("content-range", "bytes */10")]),
    );
    assert!(cache.stored(TARGET).is_empty());
}

#[test]
fn a_part_is_validated_with_its_range() {
    let mut cache = with_part("bytes 5-9/10", "5", &[("etag", "\"a\""), ("last-modified", "@-10")]);
    let ask = get(&[("range", "bytes=-5"), ("cache-control", "no-cache")]);
    let got = cache.ask(&ask, Origin::Answers(304, &[("etag", "\"a\"")]));
    assert_eq!((got.status, got.is_stored), (206, true));
    assert_eq!((got.sent("if-none-match"), got.sent("range")), (Some("\"a\""), Some("bytes=-5")));
    assert_eq!(got.sent("if-modified-since"), None);
}

#[test]
fn who_wants_the_rest_or_the_whole_gets_no_part_of_another() {
    for (validator, condition) in [(("etag", "\"a\""), "\"a\""), (("last-modified", DATE), DATE)] {
        let mut cache = with_part("bytes 5-9/10", "5", &[validator]);
        let fields = [("range", "bytes=-5"), ("if-range", condition), ("cache-control", "no-cache")];
        let got = cache.ask(&get(&fields), ok(&[FRESH, ("etag", "\"b\"")]));
        assert_eq!((got.sent("range"), got.sent("if-range")), (Some("bytes=-5"), Some(condition)));
        assert_eq!((got.status, got.is_stored), (200, false));
    }
    // Of a whole that is stored, all comes, and what the client asked for is cut from that.
    let mut cache = with_complete(&[("etag", "\"a\"")]);
    let ask = get(&[("range", "bytes=-5"), ("if-range", "\"a\""), ("cache-control", "no-cache")]);
    let got = cache.ask(&ask, Origin::Answers(304, &[("etag", "\"a\"")]));
    assert_eq!((got.sent("range"), got.sent("if-range"), got.status), (None, None, 206));
}

//= https://www.rfc-editor.org/rfc/rfc9111#section-3.4
//= type=test
//# A cache MAY combine these ranges into a single stored response, and
//# reuse that response to satisfy later requests, if they all share the
//# same strong validator
#[test]
fn parts_become_a_whole_if_they_share_a_strong_validator() {
    let tag = [("etag", "\"a\"")];
    let policy = Policy::shared();
    let (start, end) = (part("bytes 0-4/10", "5", &tag), part("bytes 5-9/10", "5", &[tag[0], ("n", "2")]));
    for (earlier, later) in [(&start, &end), (&end, &start)] {
        let whole = policy.combine(earlier, later).unwrap();
        assert_eq!((whole.status().as_u16(), whole.held().0), (200, Span::whole(10)));
        assert_eq!(whole.headers()["n"], "2");
        assert_eq!(whole.headers()["content-length"], "10");
        assert!(!whole.headers().contains_key("content-range"));
    }
    let overlapping =
        policy.combine(&part("bytes 2-5/10", "4", &tag), &part("bytes 4-7/10", "4", &tag)).unwrap();
    assert_eq!(overlapping.headers()["content-range"], "bytes 2-7/10");
    assert_eq!(overlapping.status().as_u16(), 206);
    for (name, other) in [
        ("another tag", part("bytes 5-9/10", "5", &[("etag", "\"b\"")])),
        ("a weak tag", part("bytes 5-9/10", "5", &[("etag", "W/\"a\"")])),
        ("no tag", part("bytes 5-9/10", "5", &[])),
        ("a gap", part("bytes 6-9/10", "4", &tag)),
        ("another length", part("bytes 5-9/11", "5", &tag)),
    ] {
        assert_eq!(policy.combine(&start, &other), None, "{name}");
        assert_eq!(policy.combine(&other, &start), None, "{name}");
    }
}

#[test]
fn what_is_missing_is_asked_for_only_if_it_can_be_put_together() {
    // partial-store-partial-complete asks for it without any validator: the answer could not be used.
    let tag = [("etag", "\"a\"")];
    let rest = part("bytes 0-4/10", "5", &tag).completion().unwrap();
    assert_eq!(rest.range, "bytes=5-");
    assert_eq!(rest.if_range, "\"a\"");
    assert_eq!(part("bytes 5-9/10", "5", &tag).completion().unwrap().range, "bytes=0-4");
    assert_eq!(part("bytes 0-4/10", "3", &tag).completion().unwrap().range, "bytes=3-");
    for stored in [
        part("bytes 0-4/10", "5", &[]),
        part("bytes 0-4/10", "5", &[("etag", "W/\"a\"")]),
        part("bytes 2-4/10", "3", &tag),
        part("bytes 0-4/*", "5", &tag),
        part("bytes 0-9/10", "10", &tag),
    ] {
        assert_eq!(stored.completion(), None);
    }
    assert_eq!(with_complete(&tag).stored(TARGET)[0].completion(), None);
    assert_eq!(with_complete(&tag).stored(TARGET)[0].held().1, Some(BODY_BYTES));
}

#[test]
fn parts_are_put_together_in_any_order_and_their_fields_in_that_in_which_they_came() {
    let policy = Policy::shared();
    let tagged = |range, bytes, n| part(range, bytes, &[("etag", "\"a\""), ("n", n), ("content-digest", n)]);
    let parts = [
        tagged("bytes 0-2/10", "3", "1"),
        tagged("bytes 7-9/10", "3", "2"),
        part("bytes 3-6/10", "4", &[("etag", "\"a\""), ("content-type", "a/b")]),
    ];
    let whole = policy.combine_all(&parts.each_ref()).unwrap();
    assert_eq!((whole.status().as_u16(), &whole.headers()["n"]), (200, &"2".parse().unwrap()));
    assert_eq!(whole.headers()["content-type"], "a/b");
    assert!(!whole.headers().contains_key("content-digest"), "it is that of a part");
    assert_eq!(policy.combine_all(&[&parts[0], &parts[1]]), None, "a gap");
    assert_eq!(policy.combine_all(&[]), None);
    let stale = parts[0].clone().marked(Mark::Stale);
    let marked = policy.combine_all(&[&stale, &parts[1], &parts[2]]).unwrap();
    assert_eq!(marked.kept().mark, Mark::Stale);
    for other in [("content-type", "a/c"), ("content-encoding", "gzip")] {
        let other = part("bytes 7-9/10", "3", &[("etag", "\"a\""), other]);
        assert_eq!(policy.combine(&parts[2], &other), None, "{other:?}");
    }
}

#[test]
fn a_cookie_of_a_later_part_is_for_nobody_but_its_client() {
    let early = part("bytes 0-4/10", "5", &[("etag", "\"a\""), ("set-cookie", "a=1")]);
    let late = part("bytes 5-9/10", "5", &[("etag", "\"a\""), ("set-cookie", "b=2")]);
    let cookie = |policy: Policy| policy.combine(&early, &late).unwrap().headers()["set-cookie"].clone();
    assert_eq!(cookie(Policy::shared()), "a=1");
    assert_eq!(cookie(Policy::private()), "b=2");
}

fn completed(asked: Fields<'_>, status: u16, came: Fields<'_>) -> Completed {
    let cache = with_part("bytes 0-4/10", "5", &[("etag", "\"a\""), ("x", "1")]);
    let stored = &cache.stored(TARGET)[0];
    let request = request(cache.now, &get(asked));
    let response = response(status, fields(cache.now, came));
    Policy::shared().after_completion(&request, stored, &response, Exchange::at(cache.now))
}

//= https://www.rfc-editor.org/rfc/rfc9111#section-3.3
//= type=test
//# A cache MAY complete a stored incomplete response by making a
//# subsequent range request (Section 14.2 of [HTTP]) and combining the
//# successful response with the stored response, as defined in
//# Section 3.4.
#[test]
fn the_rest_makes_a_part_whole() {
    let came = [("etag", "\"a\""), ("content-range", "bytes 5-9/10"), ("content-length", "5"), ("y", "2")];
    let more = [("set-cookie", "c=1"), ("own", "1"), ("cache-control", "max-age=9, private=\"own\"")];
    let Completed::Whole(whole) = completed(&[], 206, &[&came[..], &more].concat()) else { panic!() };
    assert_eq!(whole.arriving, Span { first: 5, last: 9 });
    assert_eq!((&whole.headers["x"], &whole.headers["y"]), (&"1".parse().unwrap(), &"2".parse().unwrap()));
    assert_eq!((whole.headers["content-length"].as_bytes(), whole.headers.get("own")), (&b"10"[..], None));
    assert!(whole.headers.contains_key("date") && !whole.headers.contains_key("set-cookie"));
    assert_eq!(whole.for_client.len(), 2);
    assert!(whole.for_client.contains_key("set-cookie") && whole.for_client.contains_key("own"));
}

#[test]
fn what_does_not_go_with_the_part_is_asked_for_again_or_is_an_answer_of_its_own() {
    let refetch = |is_superseded| Completed::Refetch { is_superseded };
    let replace = |is_superseded| Completed::Replace { is_superseded };
    let (tag, other) = (("etag", "\"a\""), ("etag", "\"b\""));
    let rest = ("content-range", "bytes 5-9/10");
    for (status, came, expected) in [
        (206, &[other, rest][..], refetch(true)),
        (206, &[rest], refetch(true)),
        (206, &[tag, ("content-range", "bytes 6-9/10")], refetch(true)),
        (206, &[tag, ("content-range", "bytes 5-8/10")], refetch(true)),
        (206, &[tag, ("content-range", "bytes 5-9/11")], refetch(true)),
        (206, &[tag, rest, ("content-length", "6")], refetch(true)),
        (206, &[tag, ("content-type", "multipart/byteranges; boundary=x")], refetch(true)),
        (206, &[tag, rest, ("content-type", "Multipart/ByteRanges; boundary=x")], refetch(true)),
        (416, &[("content-range", "bytes */3")], refetch(true)),
        (200, &[other], replace(true)),
        (200, &[], replace(true)),
        (200, &[tag], replace(false)),
        (404, &[], replace(false)),
        (503, &[], replace(false)),
    ] {
        assert_eq!(completed(&[], status, came), expected, "{status} {came:?}");
    }
    // What one user is shown says nothing about what others are.
    for (status, expected) in [(206, refetch(false)), (200, replace(false))] {
        assert_eq!(completed(&[("authorization", "x")], status, &[other, rest]), expected);
    }
}

#[test]
fn the_rest_is_asked_for_with_the_fields_of_the_request_unless_it_has_conditions_of_its_own() {
    let completion = part("bytes 0-4/10", "5", &[("etag", "\"a\"")]).completion().unwrap();
    let now = shared().now;
    let asked = completion.request(&request(now, &get(&[("x", "1")]))).unwrap();
    assert_eq!((asked["x"].as_bytes(), asked["range"].as_bytes()), (&b"1"[..], &b"bytes=5-"[..]));
    assert_eq!(asked["if-range"], "\"a\"");
    for own in ["range", "if-range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since"]
    {
        assert_eq!(completion.request(&request(now, &get(&[(own, "x")]))), None, "{own}");
    }
    assert_eq!(completion.request(&request(now, &method("HEAD", &[]))), None);
}

#[test]
fn what_is_whole_takes_the_place_of_the_parts_before_it() {
    let policy = Policy::shared();
    let tag = [("etag", "\"a\"")];
    let mut cache = shared();
    cache.ask(&get(&[]), ok(&[FRESH]));
    let whole = cache.stored(TARGET)[0].clone();
    let before = part("bytes 0-4/10", "5", &tag);
    assert_eq!(policy.makes_room(&whole, [&before]), Some(0));
    assert_eq!(policy.makes_room(&before, [&whole]), None, "but not the other way round");
    let mut kept = before.clone().into_kept();
    kept.times = Exchange::at(cache.now + std::time::Duration::from_secs(1));
    let after = Stored::new(&policy, kept);
    assert_eq!(
        policy.makes_room(&whole, [&after]),
        None,
        "what was asked for later may be of what came later"
    );
    let mut kept = before.into_kept();
    kept.selecting = larder_http::policy::Selecting::from_pairs([(http::HeaderName::from_static("x"), None)]);
    assert_eq!(policy.makes_room(&whole, [&Stored::new(&policy, kept)]), None, "for other requests");
}
