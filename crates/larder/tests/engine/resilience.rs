//! Slow and dead sources: timeouts, back-off, renewal in the background, and what a loader may say.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder::entry::Freshness;
use larder::event::Tier;
use larder::testing::{Harness, Tiers};
use larder::time::{Ttl, hours, minutes, seconds};
use larder::{EntryOptions, ErrorKind, Loaded, Previous, Refresh};

use crate::flow::{cache, ok};
use crate::loads::Gate;

type Down = std::io::Error;

fn down() -> Down {
    Down::other("the source is down")
}

/// A loader that fails and counts how often it was asked.
pub(crate) fn failing(
    runs: &Arc<AtomicU64>,
) -> impl FnOnce() -> std::future::Ready<Result<u32, Down>> + Send + 'static {
    let runs = Arc::clone(runs);
    move || {
        runs.fetch_add(1, Ordering::Relaxed);
        std::future::ready(Err(down()))
    }
}

pub(crate) fn count(runs: &AtomicU64) -> u64 {
    runs.load(Ordering::Relaxed)
}

/// Lets what runs in the background do so.
pub(crate) async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// What tokio's timers take for now, which is paused in these tests.
#[expect(clippy::disallowed_methods, reason = "the timers are what is tested")]
pub(crate) fn timers_now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

/// A stack with a stale 1 under `a`, with an hour of grace: in memory, in the store, or in both.
pub(crate) async fn with_stale(tiers: Tiers) -> Harness {
    let harness = Harness::new(tiers);
    cache::<u32>(&harness).set("a", 1).ttl(seconds(1)).grace(hours(1)).await.unwrap();
    harness.clock.advance(seconds(2));
    harness
}

#[tokio::test(start_paused = true)]
async fn a_slow_load_costs_a_stale_answer_at_the_soft_timeout_and_lands_later() {
    for tiers in Tiers::ALL {
        let harness = with_stale(tiers).await;
        let numbers = cache::<u32>(&harness);
        let gate = Gate::default();
        let started = timers_now();
        let slow = gate.clone();
        let found = numbers.get_or_set("a", move || slow.load(2)).soft_timeout(seconds(3)).await;
        assert_eq!((*found.unwrap(), started.elapsed()), (1, seconds(3)), "{tiers:?}");
        // Whoever comes meanwhile waits as long, and starts nothing.
        let found = numbers.get_or_set("a", || ok(9)).soft_timeout(seconds(1)).await;
        assert_eq!((*found.unwrap(), gate.runs()), (1, 1));
        gate.open.notify_one();
        settle().await;
        assert_eq!(*numbers.get("a").await.unwrap().unwrap(), 2, "{tiers:?}");
        assert_eq!(harness.stack.stats().hits_stale, 2);
        harness.finish(3).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_soft_timeout_of_zero_is_stale_while_revalidate() {
    for tiers in Tiers::ALL {
        let harness = with_stale(tiers).await;
        let numbers = cache::<u32>(&harness);
        let gate = Gate::default();
        let started = timers_now();
        for _ in 0..3 {
            let slow = gate.clone();
            let found = numbers.get_or_set("a", move || slow.load(2)).soft_timeout(seconds(0)).await;
            assert_eq!(*found.unwrap(), 1);
        }
        assert_eq!(started.elapsed(), seconds(0));
        gate.open.notify_one();
        settle().await;
        assert_eq!((*numbers.get("a").await.unwrap().unwrap(), gate.runs()), (2, 1), "{tiers:?}");
        harness.finish(4).await;
    }
}

#[tokio::test(start_paused = true)]
async fn without_anything_stale_only_the_hard_timeout_ends_the_wait_and_the_load_goes_on() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        let gate = Gate::default();
        let slow = gate.clone();
        let started = timers_now();
        let request = numbers.get_or_set("a", move || slow.load(2));
        let error = request.soft_timeout(seconds(1)).hard_timeout(seconds(3)).await.unwrap_err();
        assert_eq!((error.kind(), started.elapsed()), (ErrorKind::Timeout, seconds(3)));
        assert!(error.message().contains("\"a\"") && error.message().contains("3s"), "{error}");
        gate.open.notify_one();
        settle().await;
        assert_eq!(*numbers.get("a").await.unwrap().unwrap(), 2, "{tiers:?}");
        harness.finish(2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn at_the_hard_timeout_a_stale_value_is_better_than_none() {
    for tiers in Tiers::ALL {
        let harness = with_stale(tiers).await;
        let numbers = cache::<u32>(&harness);
        let gate = Gate::default();
        let slow = gate.clone();
        let found = numbers.get_or_set("a", move || slow.load(2)).hard_timeout(seconds(3)).await;
        assert_eq!(*found.unwrap(), 1, "{tiers:?}");
        gate.open.notify_one();
        settle().await;
        harness.finish(1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_load_that_lands_late_buries_nothing_newer() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        let gate = Gate::default();
        let slow = gate.clone();
        let timed_out = numbers.get_or_set("a", move || slow.load(2)).hard_timeout(seconds(1)).await;
        assert!(timed_out.is_err());
        numbers.set("a", 3).await.unwrap();
        gate.open.notify_one();
        settle().await;
        assert_eq!(*numbers.get("a").await.unwrap().unwrap(), 3, "{tiers:?}");
        harness.finish(2).await;
    }
}

#[tokio::test]
async fn a_failing_source_is_asked_once_a_back_off_however_many_ask() {
    for tiers in Tiers::ALL {
        for soft in [None, Some(seconds(0))] {
            let harness = with_stale(tiers).await;
            let mut options = EntryOptions::default().backoff(seconds(30)).grace(hours(1));
            options.soft_timeout = soft;
            let numbers = cache::<u32>(&harness).with_options(options);
            let runs = Arc::new(AtomicU64::new(0));
            for window in 1..=3 {
                for _ in 0..20 {
                    assert_eq!(*numbers.get_or_set("a", failing(&runs)).await.unwrap(), 1);
                    settle().await;
                }
                assert_eq!(count(&runs), window, "{tiers:?}, soft {soft:?}");
                harness.clock.advance(seconds(30));
            }
            let entry = numbers.entry("a").await.unwrap().unwrap();
            assert_eq!(entry.state, Freshness::Stale);
            assert_eq!(entry.life_left, Some(hours(1) - seconds(91)), "its life is what it was");
            assert_eq!(*numbers.get_or_set("a", || ok(2)).soft_timeout(hours(1)).await.unwrap(), 2);
            harness.finish(61).await;
        }
    }
}

#[tokio::test]
async fn a_back_off_ends_with_the_grace_and_with_the_next_success() {
    let harness = Harness::new(Tiers::Both);
    let numbers = cache::<u32>(&harness);
    numbers.set("a", 1).ttl(seconds(1)).grace(seconds(5)).await.unwrap();
    harness.clock.advance(seconds(2));
    let runs = Arc::new(AtomicU64::new(0));
    let ask = || numbers.get_or_set("a", failing(&runs)).backoff(hours(1));
    assert_eq!(*ask().await.unwrap(), 1);
    harness.clock.advance(seconds(4));
    assert_eq!(ask().await.unwrap_err().kind(), ErrorKind::Load, "nothing is left to serve");
    assert_eq!(count(&runs), 2);
    assert_eq!(*numbers.get_or_set("a", || ok(2)).ttl(seconds(1)).grace(hours(1)).await.unwrap(), 2);
    harness.clock.advance(seconds(2));
    assert_eq!(*ask().await.unwrap(), 2);
    assert_eq!(count(&runs), 3, "the success ended the rest");
    harness.finish(4).await;
}

#[tokio::test]
async fn a_back_off_ends_with_a_write() {
    for tiers in Tiers::ALL {
        let harness = with_stale(tiers).await;
        let numbers = cache::<u32>(&harness);
        let runs = Arc::new(AtomicU64::new(0));
        let ask = || numbers.get_or_set("a", failing(&runs)).backoff(hours(1));
        assert_eq!(*ask().await.unwrap(), 1);
        numbers.set("a", 2).ttl(seconds(1)).grace(hours(1)).await.unwrap();
        harness.clock.advance(seconds(2));
        assert_eq!((*ask().await.unwrap(), count(&runs)), (2, 2), "{tiers:?}");
        assert!(numbers.add("a", 3).ttl(seconds(1)).grace(hours(1)).await.unwrap());
        harness.clock.advance(seconds(2));
        assert_eq!((*ask().await.unwrap(), count(&runs)), (3, 3), "{tiers:?}");
        harness.finish(3).await;
    }
}

#[tokio::test]
async fn a_fallback_stands_in_for_the_very_first_failure_and_for_the_back_off() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        let runs = Arc::new(AtomicU64::new(0));
        for _ in 0..3 {
            let found = numbers.get_or_set("a", failing(&runs)).fallback(7).backoff(seconds(10)).await;
            assert_eq!(*found.unwrap(), 7);
        }
        // A store alone has nowhere to keep what was never loaded.
        assert_eq!(count(&runs), if tiers == Tiers::L2 { 3 } else { 1 });
        harness.clock.advance(seconds(10));
        assert_eq!(*numbers.get_or_set("a", || ok(8)).fallback(7).await.unwrap(), 8);
        harness.finish(4).await;
    }
}

#[tokio::test]
async fn a_loader_says_how_long_its_value_lives_and_what_it_carries() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        let load = |_: Option<Previous<u32>>| {
            ok(Loaded::new(1)
                .ttl(seconds(5))
                .grace(seconds(6))
                .tags(["own"])
                .etag("v1")
                .last_modified("today"))
        };
        numbers.get_or_set_with("a", load).ttl(hours(1)).tags(["call"]).await.unwrap();
        let entry = numbers.entry("a").await.unwrap().unwrap();
        assert_eq!((entry.ttl_left, entry.life_left), (Some(seconds(5)), Some(seconds(11))));
        assert_eq!(entry.tags.iter().map(|tag| tag.as_str()).collect::<Vec<_>>(), ["own"]);
        assert_eq!((entry.etag.as_deref(), entry.last_modified.as_deref()), (Some("v1"), Some("today")));

        let plain = |_: Option<Previous<u32>>| ok(Loaded::new(2));
        numbers.get_or_set_with("b", plain).ttl(minutes(1)).tags(["call"]).await.unwrap();
        let entry = numbers.entry("b").await.unwrap().unwrap();
        assert_eq!(
            (entry.ttl_left, entry.tags.len()),
            (Some(minutes(1)), 1),
            "what it leaves out the call says"
        );

        let uncached = |_: Option<Previous<u32>>| ok(Loaded::uncached(3));
        assert_eq!(*numbers.get_or_set_with("c", uncached).await.unwrap(), 3);
        assert!(!numbers.has("c").await.unwrap());

        let bad = |_: Option<Previous<u32>>| ok(Loaded::new(4).tags([""]));
        assert_eq!(numbers.get_or_set_with("d", bad).await.unwrap_err().kind(), ErrorKind::InvalidKey);
        harness.finish(4).await;
    }
}

#[tokio::test]
async fn nothing_there_is_cached_with_a_ttl_of_its_own() {
    let harness = Harness::new(Tiers::Both);
    let users = cache::<Option<String>>(&harness);
    let load = |_: Option<Previous<Option<String>>>| ok(Loaded::absent().ttl(seconds(3)));
    assert_eq!(*users.get_or_set_with("a", load).ttl(hours(1)).await.unwrap(), None);
    assert_eq!(users.get("a").await.unwrap().as_deref(), Some(&None));
    harness.clock.advance(seconds(3));
    assert_eq!(users.get("a").await.unwrap(), None);
    harness.finish(3).await;
}

#[tokio::test]
async fn unchanged_renews_what_was_there_with_its_tags_and_validators() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        let first = |previous: Option<Previous<u32>>| {
            assert!(previous.is_none());
            ok(Loaded::new(1).etag("v1").tags(["t"]))
        };
        numbers.get_or_set_with("a", first).ttl(seconds(1)).grace(hours(1)).await.unwrap();
        harness.clock.advance(seconds(5));
        let again = |previous: Option<Previous<u32>>| {
            let previous = previous.unwrap();
            assert_eq!(
                (*previous.value, previous.etag.as_deref(), previous.age),
                (1, Some("v1"), seconds(5))
            );
            ok(Loaded::unchanged())
        };
        let value = numbers.get_or_set_with("a", again).ttl(seconds(30)).grace(hours(1)).await.unwrap();
        let entry = numbers.entry("a").await.unwrap().unwrap();
        assert_eq!((*value, entry.etag.as_deref(), entry.ttl_left), (1, Some("v1"), Some(seconds(30))));
        assert_eq!((entry.age, entry.tags.len()), (seconds(0), 1));
        let lost = |_: Option<Previous<u32>>| ok(Loaded::unchanged());
        let error = numbers.get_or_set_with("new", lost).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Load);
        assert!(error.message().contains("unchanged"), "{error}");
        harness.finish(3).await;
    }
}

#[tokio::test]
async fn an_entry_that_is_due_is_served_and_loaded_once_in_the_background() {
    for tiers in [Tiers::L1, Tiers::Both] {
        let harness = Harness::new(tiers);
        let options = EntryOptions::default().ttl(seconds(10)).refresh(Refresh::Early { share: 0.5 });
        let numbers = cache::<u32>(&harness).with_options(options);
        let gate = Gate::default();
        numbers.set("a", 1).await.unwrap();
        harness.clock.advance(seconds(4));
        assert_eq!(*numbers.get_or_set("a", || ok(9)).await.unwrap(), 1);
        harness.clock.advance(seconds(1));
        for _ in 0..3 {
            let slow = gate.clone();
            assert_eq!(*numbers.get_or_set("a", move || slow.load(2)).await.unwrap(), 1);
            settle().await;
        }
        gate.open.notify_one();
        settle().await;
        assert_eq!((*numbers.get("a").await.unwrap().unwrap(), gate.runs()), (2, 1), "{tiers:?}");
        assert_eq!(numbers.entry("a").await.unwrap().unwrap().ttl_left, Some(seconds(10)));
        assert_eq!(harness.stack.stats().hits_stale, 0);
        harness.finish(5).await;
    }
}

#[tokio::test]
async fn a_renewal_that_fails_leaves_the_entry_and_its_source_alone() {
    let harness = Harness::new(Tiers::Both);
    let options = EntryOptions::default().ttl(seconds(100)).refresh(Refresh::Early { share: 0.1 });
    let numbers = cache::<u32>(&harness).with_options(options.backoff(seconds(20)));
    let runs = Arc::new(AtomicU64::new(0));
    numbers.set("a", 1).await.unwrap();
    for second in 0..40 {
        assert_eq!(*numbers.get_or_set("a", failing(&runs)).await.unwrap(), 1);
        settle().await;
        harness.clock.advance(seconds(1));
        // Due from the tenth second on: asked at 10 and at 30.
        assert_eq!(count(&runs), u64::from(second >= 10) + u64::from(second >= 30), "second {second}");
    }
    harness.finish(40).await;
}

#[tokio::test]
async fn a_renewal_takes_what_another_process_has_loaded_meanwhile() {
    let here = Harness::new(Tiers::Both);
    let there = Harness::over(Tiers::Both, here.clock.clone(), here.store.clone(), |builder| builder);
    let options = EntryOptions::default().ttl(seconds(10)).refresh(Refresh::Early { share: 0.5 });
    let (mine, theirs) = (cache::<u32>(&here).with_options(options), cache::<u32>(&there));
    mine.set("a", 1).await.unwrap();
    here.clock.advance(seconds(6));
    theirs.set("a", 2).await.unwrap();
    let runs = Arc::new(AtomicU64::new(0));
    assert_eq!(*mine.get_or_set("a", failing(&runs)).await.unwrap(), 1);
    settle().await;
    assert_eq!((*mine.get("a").await.unwrap().unwrap(), count(&runs)), (2, 0));
    here.finish(2).await;
}

#[tokio::test]
async fn what_was_stored_together_does_not_expire_together() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let options = EntryOptions::default().ttl(seconds(100)).jitter(seconds(50));
        let numbers = cache::<u32>(&harness).with_options(options);
        let keys: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        numbers.set_many(keys.iter().map(|key| (key.clone(), 1))).await.unwrap();
        harness.clock.advance(seconds(75));
        let found = numbers.get_many(&keys).await.unwrap().into_iter().flatten().count();
        assert!((25..75).contains(&found), "{tiers:?}: {found} of 100 are left half-way");
        numbers.set("forever", 1).ttl(Ttl::Forever).await.unwrap();
        assert_eq!(numbers.entry("forever").await.unwrap().unwrap().ttl_left, None);
    }
}

#[tokio::test]
async fn stale_values_are_read_when_asked_for_the_stores_before_memorys() {
    let here = Harness::new(Tiers::Both);
    let there = Harness::over(Tiers::L2, here.clock.clone(), here.store.clone(), |builder| builder);
    let numbers = cache::<u32>(&here);
    numbers.set("a", 1).ttl(seconds(1)).grace(seconds(60)).await.unwrap();
    here.clock.advance(seconds(1));
    cache::<u32>(&there).set("a", 2).ttl(seconds(1)).grace(seconds(60)).await.unwrap();
    here.clock.advance(seconds(1));
    assert_eq!(numbers.get("a").await.unwrap(), None);
    assert_eq!(*numbers.get_stale("a").await.unwrap().unwrap(), 2);
    here.chaos.fail_everything(ErrorKind::Unavailable);
    assert_eq!(*numbers.get_stale("a").await.unwrap().unwrap(), 1);
    here.chaos.heal();
    here.clock.advance(seconds(60));
    assert_eq!(numbers.get_stale("a").await.unwrap(), None);
    let lines = here.recorder.take();
    let lookups: Vec<&String> =
        lines.iter().filter(|l| l.starts_with("hit") || l.starts_with("miss")).collect();
    let (l1, l2) = (Tier::L1, Tier::L2);
    assert_eq!(lookups, ["miss a", &format!("hit {l2} a stale"), &format!("hit {l1} a stale"), "miss a"]);
    here.finish(4).await;
}

#[tokio::test]
async fn an_outage_of_the_source_costs_nobody_an_error_while_grace_lasts() {
    let harness = Harness::new(Tiers::Both);
    let options = EntryOptions::default().ttl(seconds(60)).grace(minutes(30)).backoff(seconds(10));
    let numbers = cache::<u32>(&harness).with_options(options);
    let runs = Arc::new(AtomicU64::new(0));
    let keys: Vec<String> = (0..200).map(|n| format!("key {n}")).collect();
    for key in &keys {
        numbers.set(key, 1).await.unwrap();
    }
    harness.clock.advance(seconds(60));
    let mut lookups = 0;
    // Ten minutes of outage; the store is down as well for the middle five.
    for second in 0..600 {
        match second {
            150 => harness.chaos.fail_everything(ErrorKind::Unavailable),
            450 => harness.chaos.heal(),
            _ => {}
        }
        for key in keys.iter().skip(second % 20).step_by(20) {
            lookups += 1;
            assert_eq!(*numbers.get_or_set(key, failing(&runs)).await.unwrap(), 1, "second {second}");
        }
        harness.clock.advance(seconds(1));
    }
    assert!(count(&runs) <= 200 * 60, "at most once a key and back-off: {}", count(&runs));
    harness.clock.advance(seconds(10));
    for key in &keys {
        lookups += 1;
        assert_eq!(*numbers.get_or_set(key, || ok(2)).await.unwrap(), 2, "it recovers at once");
    }
    assert_eq!(harness.stack.stats().hits_stale, lookups - 200);
    harness.finish(lookups).await;
}

#[tokio::test]
async fn a_paused_soft_timeout_never_delays_a_hit() {
    let harness = Harness::new(Tiers::L1);
    let numbers = cache::<u32>(&harness);
    numbers.set("a", 1).await.unwrap();
    let request = numbers.get_or_set("a", || ok(2)).soft_timeout(hours(1)).hard_timeout(Duration::MAX);
    assert_eq!(*request.await.unwrap(), 1);
    harness.finish(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_stale_value_that_died_while_its_callers_waited_is_not_served() {
    for tiers in Tiers::ALL {
        for death in ["its tag was invalidated", "its grace ended"] {
            let harness = Harness::new(tiers);
            let numbers = cache::<u32>(&harness);
            numbers.set("a", 1).ttl(seconds(1)).grace(minutes(1)).tags(["old"]).await.unwrap();
            harness.clock.advance(seconds(2));
            let gate = Gate::default();
            let slow = gate.clone();
            // The load does not say that its value carries the tag.
            let request = numbers.get_or_set("a", move || slow.load(2)).soft_timeout(seconds(5));
            assert_eq!(*request.await.unwrap(), 1, "{tiers:?}");
            match death {
                "its grace ended" => harness.clock.advance(minutes(2)),
                _ => numbers.invalidate(["old"]).await.unwrap(),
            }
            let later = numbers.get_or_set("a", || ok(3)).soft_timeout(seconds(1)).hard_timeout(seconds(9));
            assert_eq!(later.await.unwrap_err().kind(), ErrorKind::Timeout, "{tiers:?}: {death}");
            gate.open.notify_one();
            settle().await;
            harness.finish(2).await;
        }
    }
}

#[tokio::test]
async fn a_wall_clock_that_is_set_back_lengthens_no_back_off() {
    let harness = with_stale(Tiers::Both).await;
    let numbers = cache::<u32>(&harness);
    let runs = Arc::new(AtomicU64::new(0));
    let ask = || numbers.get_or_set("a", failing(&runs)).backoff(seconds(10));
    assert_eq!(*ask().await.unwrap(), 1);
    let before = larder::time::Clock::now(&harness.clock);
    harness.clock.advance(seconds(10));
    harness.clock.set(before);
    assert_eq!(*ask().await.unwrap(), 1);
    assert_eq!(count(&runs), 2, "ten seconds have passed, whatever the wall clock says");
    harness.finish(2).await;
}
