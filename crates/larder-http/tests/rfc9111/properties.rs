//! What holds for all messages and all times.

use std::time::Duration;

use larder_http::policy::{Exchange, Keep, Mark, Policy, Selected, Stored, Verdict};
use proptest::prelude::*;

use crate::cache::{Fields, fields, get, request, response, shared};

fn directive() -> impl Strategy<Value = String> {
    let names = vec![
        "max-age",
        "s-maxage",
        "no-cache",
        "no-store",
        "private",
        "public",
        "must-revalidate",
        "proxy-revalidate",
        "must-understand",
        "immutable",
        "stale-while-revalidate",
        "stale-if-error",
        "only-if-cached",
        "min-fresh",
        "max-stale",
        "foo",
    ];
    let argument = prop_oneof![
        3 => Just(String::new()),
        4 => (0_u32..200).prop_map(|seconds| format!("={seconds}")),
        1 => "=[a-z\"',; ]{0,6}",
    ];
    (prop::sample::select(names), argument).prop_map(|(name, argument)| format!("{name}{argument}"))
}

fn directives() -> impl Strategy<Value = String> {
    prop::collection::vec(directive(), 0..5).prop_map(|all| all.join(", "))
}

fn value(name: &'static str) -> BoxedStrategy<String> {
    let offset = || (-100_i32..100).prop_map(|offset| format!("@{offset}"));
    match name {
        "cache-control" => directives().boxed(),
        "cdn-cache-control" => prop_oneof![directives(), Just("max-age=50".to_owned())].boxed(),
        "expires" | "last-modified" | "date" => prop_oneof![4 => offset(), 1 => "[ -~]{0,8}"].boxed(),
        "age" => prop_oneof![4 => (0_u32..200).prop_map(|age| age.to_string()), 1 => "[ -~]{0,8}"].boxed(),
        "etag" => "(W/)?\"[a-c]?\"".boxed(),
        "vary" => "(foo|bar|\\*|, |x y){0,3}".boxed(),
        "content-range" => "bytes [0-9]-[0-9]/(10|\\*)".boxed(),
        _ => "[ -~]{0,10}".boxed(),
    }
}

fn answer() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    let names = vec![
        "cache-control",
        "cache-control",
        "cdn-cache-control",
        "expires",
        "last-modified",
        "date",
        "age",
        "etag",
        "vary",
        "set-cookie",
        "content-range",
        "connection",
    ];
    let field =
        prop::sample::select(names).prop_flat_map(|name| value(name).prop_map(move |value| (name, value)));
    prop::collection::vec(field, 0..7)
}

fn wishes() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    let names = vec!["cache-control", "pragma", "foo", "range", "if-none-match", "authorization"];
    let field = prop::sample::select(names).prop_flat_map(|name| {
        match name {
            "range" => "bytes=[0-9]?-[0-9]?".boxed(),
            "if-none-match" => value("etag"),
            other => value(other),
        }
        .prop_map(move |value| (name, value))
    });
    prop::collection::vec(field, 0..4)
}

fn borrowed<'a>(all: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    all.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

/// A stored response to a request with these fields, if it may be stored.
fn store(policy: &Policy, asked: Fields<'_>, status: u16, answer: Fields<'_>) -> Option<Stored> {
    let now = shared().now;
    let times = Exchange { requested_at: now - Duration::from_millis(300), received_at: now };
    let stored =
        policy.store(&request(now, &get(asked)), &response(status, fields(now, answer)), times).ok()?;
    Some(stored.with_body_bytes(5))
}

fn policies() -> impl Strategy<Value = Policy> {
    any::<bool>().prop_map(|is_shared| if is_shared { Policy::shared() } else { Policy::private() })
}

fn statuses() -> impl Strategy<Value = u16> {
    prop_oneof![4 => Just(200), 1 => Just(206), 3 => 100_u16..=999]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    //= https://www.rfc-editor.org/rfc/rfc9111#section-5.2.2.5
    //= type=test
    //# The no-store response directive indicates that a cache MUST NOT store
    //# any part of either the immediate request or the response and MUST NOT
    //# use the response to satisfy any other request.
    #[test]
    fn nothing_with_no_store_is_stored_without_a_targeted_field_that_says_otherwise(
        policy in policies(), status in statuses(), answer in answer(), asked in wishes(),
    ) {
        let mut answer = borrowed(&answer);
        answer.push(("cache-control", "no-store"));
        if let Some(stored) = store(&policy, &borrowed(&asked), status, &answer) {
            let all = answer.iter().any(|(name, _)| *name == "cdn-cache-control") && !policy.targeted.is_empty();
            let understood = answer.iter().any(|(_, value)| value.contains("must-understand"));
            prop_assert!(all || understood, "{stored:?}");
        }
        answer.retain(|(name, _)| *name != "cdn-cache-control");
        answer.push(("cdn-cache-control", "no-store"));
        let without: Vec<_> = answer.iter().copied().filter(|(name, _)| *name != "cache-control").collect();
        if !policy.targeted.is_empty() {
            prop_assert_eq!(store(&policy, &borrowed(&asked), status, &without), None);
        }
    }

    #[test]
    fn a_shared_cache_holds_nothing_private(status in statuses(), answer in answer(), asked in wishes()) {
        let mut answer = borrowed(&answer);
        answer.retain(|(name, _)| *name != "cdn-cache-control");
        answer.push(("cache-control", "private"));
        prop_assert_eq!(store(&Policy::shared(), &borrowed(&asked), status, &answer), None);
    }

    #[test]
    fn what_is_served_as_fresh_is_younger_than_its_lifetime(
        policy in policies(), answer in answer(), asked in wishes(), later in 0_u64..400_000,
    ) {
        let Some(stored) = store(&policy, &[], 200, &borrowed(&answer)) else { return Ok(()) };
        let now = shared().now + Duration::from_millis(later);
        let ask = request(now, &get(&borrowed(&asked)));
        let selected = policy.select(&ask, [&stored]);
        let verdict = policy.verdict(&ask, selected, now);
        if let Verdict::Serve { age, reason } = &verdict {
            prop_assert_eq!(*age, stored.age(now));
            let is_stale_on_purpose = *reason == larder_http::policy::Reason::MaxStale;
            prop_assert!(stored.lifetime().duration > *age || is_stale_on_purpose, "{:?}", verdict);
            prop_assert!(matches!(selected, Selected::One(_)));
        }
        // Whatever answers from what is stored has an answer, and it has an age.
        if matches!(verdict, Verdict::Serve { .. } | Verdict::ServeAndValidate { .. }) {
            let answer = stored.answer(&ask);
            prop_assert!(answer.is_some());
            let outgoing = stored.respond(&answer.unwrap(), false, now);
            let age = outgoing.headers["age"].to_str().unwrap().parse::<u64>().unwrap();
            prop_assert_eq!(age, stored.age(now).as_secs());
            prop_assert!(!outgoing.headers.contains_key("connection"));
        }
        // What was invalidated answers nobody.
        let invalid = stored.marked(Mark::Invalid);
        let verdict = policy.verdict(&ask, policy.select(&ask, [&invalid]), now);
        let answers = matches!(verdict, Verdict::Serve { .. } | Verdict::ServeAndValidate { .. });
        prop_assert!(!answers, "{:?}", verdict);
    }

    #[test]
    fn age_never_goes_back_and_freshness_never_returns(
        policy in policies(), answer in answer(), times in prop::collection::vec(0_u64..400_000, 2..6),
    ) {
        let Some(stored) = store(&policy, &[], 200, &borrowed(&answer)) else { return Ok(()) };
        let mut times = times;
        times.sort_unstable();
        let now = shared().now;
        let seen: Vec<_> = times
            .iter()
            .map(|later| now + Duration::from_millis(*later))
            .map(|at| (stored.age(at), !stored.is_fresh(at), stored.staleness(at), -stored.ttl_seconds(at)))
            .collect();
        for pair in seen.windows(2) {
            prop_assert!(pair[0] <= pair[1] && pair[0].1 <= pair[1].1 && pair[0].2 <= pair[1].2, "{:?}", pair);
            prop_assert!(pair[0].3 <= pair[1].3);
        }
    }

    #[test]
    fn strict_responses_are_never_used_stale(
        answer in answer(), asked in wishes(), later in 0_u64..400_000,
        strict in prop::sample::select(vec!["must-revalidate", "proxy-revalidate", "s-maxage=10", "no-cache"]),
    ) {
        let policy = Policy::shared();
        let mut answer = borrowed(&answer);
        answer.retain(|(name, _)| *name != "cdn-cache-control");
        answer.push(("cache-control", strict));
        let Some(stored) = store(&policy, &[], 200, &answer) else { return Ok(()) };
        let now = shared().now + Duration::from_millis(later);
        let ask = request(now, &get(&borrowed(&asked)));
        let verdict = policy.verdict(&ask, policy.select(&ask, [&stored]), now);
        if stored.is_fresh(now) && strict != "no-cache" { return Ok(()) }
        let fallback = match verdict {
            Verdict::Serve { .. } | Verdict::ServeAndValidate { .. } => return Err(TestCaseError::fail("served")),
            Verdict::Validate { fallback, .. } => fallback,
            _ => return Ok(()),
        };
        prop_assert!(fallback.disconnected.is_err() && fallback.failed.is_err(), "{:?}", fallback);
    }

    #[test]
    fn what_is_kept_reads_the_same_and_updating_by_itself_keeps_it_selected(
        policy in policies(), status in statuses(), answer in answer(), asked in wishes(),
    ) {
        let (asked, answer) = (borrowed(&asked), borrowed(&answer));
        let Some(stored) = store(&policy, &asked, status, &answer) else { return Ok(()) };
        prop_assert_eq!(&Stored::new(&policy, stored.clone().into_kept()), &stored);
        let now = shared().now;
        let ask = request(now, &get(&asked));
        prop_assert!(stored.kept().selecting.matches(&ask.headers));
        let not_modified = response(304, stored.headers().clone());
        let freshened = policy.freshen(&ask, &stored, &not_modified, Exchange::at(now));
        let freshened = freshened.map_err(|why| TestCaseError::fail(why.to_string()))?;
        prop_assert!(freshened.stored.kept().selecting.matches(&ask.headers));
        prop_assert_eq!(freshened.keep, Keep::Updated);
        prop_assert_eq!(freshened.stored.headers().get("etag"), stored.headers().get("etag"));
    }
}
