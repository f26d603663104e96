//! How freshness ends, or is kept from ending: XFetch, sliding, refresh-ahead, a TTL of memory's own, callers who take
//! nothing stale, and loads beside slow ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder::event::Tier;
use larder::testing::{Harness, Operation, Tiers};
use larder::time::{hours, minutes, seconds};
use larder::{Cache, EntryOptions, ErrorKind, REPLACEMENTS_MAX, Refresh};

use crate::flow::{cache, ok};
use crate::loads::Gate;
use crate::resilience::{count, failing, settle, timers_now, with_stale};

/// Lets time pass for the stack and for tokio's timers, second by second.
pub(crate) async fn pass(harness: &Harness, time: Duration) {
    for _ in 0..time.as_secs() {
        harness.clock.advance(seconds(1));
        tokio::time::advance(seconds(1)).await;
        settle().await;
    }
}

/// A loader that counts how often it was run, and returns the count.
pub(crate) fn counting(
    runs: &Arc<AtomicU64>,
) -> impl FnOnce() -> std::future::Ready<Result<u32, std::io::Error>> + Clone + Send + 'static {
    let runs = Arc::clone(runs);
    move || std::future::ready(Ok(u32::try_from(runs.fetch_add(1, Ordering::Relaxed) + 1).unwrap()))
}

#[tokio::test(start_paused = true)]
async fn who_takes_nothing_stale_gets_the_error_of_the_load_and_asks_no_source_that_is_left_alone() {
    for tiers in Tiers::ALL {
        let harness = with_stale(tiers).await;
        let numbers = cache::<u32>(&harness);
        let runs = Arc::new(AtomicU64::new(0));
        let strict = numbers.get_or_set("a", failing(&runs)).fresh_only();
        let (strict, other) = tokio::join!(strict, numbers.get_or_set("a", || ok(9)));
        assert_eq!(strict.unwrap_err().kind(), ErrorKind::Load);
        assert_eq!(*other.unwrap(), 1, "{tiers:?}: who waited for the same load may take what is stale");

        let resting = numbers.get_or_set("a", failing(&runs)).fresh_only().await.unwrap_err();
        assert!(resting.to_string().contains("the source is down"), "{resting:?}");
        assert_eq!(count(&runs), 1, "the source is left alone whoever asks");

        pass(&harness, minutes(1)).await;
        let slow = Gate::default();
        let load = slow.clone();
        let strict = numbers.get_or_set("a", move || load.load(2)).soft_timeout(seconds(0)).fresh_only();
        let error = strict.hard_timeout(seconds(5)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "neither timeout serves what is stale");
        slow.open.notify_one();
        settle().await;
        let options = EntryOptions::default().fresh_only();
        assert_eq!(*numbers.with_options(options).get_or_set("a", || ok(3)).await.unwrap(), 2);
        harness.finish(5).await;
    }
}

#[tokio::test]
async fn memory_asks_the_store_again_when_its_own_ttl_is_over() {
    let here = Harness::new(Tiers::Both);
    let there = Harness::over(Tiers::L2, here.clock.clone(), here.store.clone(), |builder| builder);
    let mine = cache::<u32>(&here).with_options(EntryOptions::default().memory_ttl(seconds(5)));
    let theirs = cache::<u32>(&there);
    mine.set("a", 1).ttl(minutes(10)).await.unwrap();
    mine.set("b", 1).ttl(minutes(10)).await.unwrap();
    theirs.set("a", 2).ttl(minutes(10)).await.unwrap();
    theirs.delete("b").await.unwrap();
    here.clock.advance(seconds(4));
    assert_eq!(mine.get("a").await.unwrap().as_deref(), Some(&1), "not heard of yet");
    here.clock.advance(seconds(1));
    assert_eq!(mine.get("a").await.unwrap().as_deref(), Some(&2));
    assert_eq!(*mine.get_or_set("b", || ok(3)).await.unwrap(), 3);
    assert_eq!(here.stack.stats().hits_l2, 1);
    assert_eq!(mine.get("a").await.unwrap().as_deref(), Some(&2), "in memory for five more seconds");
    assert_eq!(here.stack.stats().hits_l1, 2);

    here.clock.advance(seconds(5));
    let many = mine.get_many(&["a", "b"]).await.unwrap();
    assert_eq!(many.iter().flatten().map(|value| **value).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(here.stack.stats().hits_l2, 3);
    here.finish(6).await;
}

#[tokio::test]
async fn memory_goes_on_past_its_own_ttl_when_the_store_does_not_answer() {
    let harness = Harness::with(Tiers::Both, |builder| builder.breaker(None));
    let numbers = cache::<u32>(&harness).with_options(EntryOptions::default().memory_ttl(seconds(5)));
    numbers.set("a", 1).ttl(minutes(1)).await.unwrap();
    harness.clock.advance(seconds(30));
    harness.chaos.fail_everything(ErrorKind::Unavailable);
    assert_eq!(numbers.get("a").await.unwrap().as_deref(), Some(&1));
    assert_eq!(numbers.get_many(&["a"]).await.unwrap()[0].as_deref(), Some(&1));
    assert_eq!(*numbers.get_or_set("a", || ok(9)).await.unwrap(), 1, "its TTL is not over");
    assert!(numbers.has("a").await.unwrap());
    let entry = numbers.entry("a").await.unwrap().unwrap();
    assert_eq!((entry.state, entry.tier), (larder::entry::Freshness::Fresh, Tier::L1));
    assert_eq!(harness.stack.stats().hits_stale, 0);
    harness.clock.advance(seconds(30));
    assert_eq!(numbers.get("a").await.unwrap(), None);
    harness.finish(4).await;
}

#[tokio::test]
async fn what_is_known_of_an_entry_comes_from_the_store_when_memory_has_to_ask() {
    let here = Harness::new(Tiers::Both);
    let there = Harness::over(Tiers::L2, here.clock.clone(), here.store.clone(), |builder| builder);
    let mine = cache::<u32>(&here).with_options(EntryOptions::default().memory_ttl(seconds(5)));
    mine.set("a", 1).ttl(minutes(10)).await.unwrap();
    cache::<u32>(&there).set("a", 2).ttl(minutes(10)).await.unwrap();
    assert_eq!(mine.entry("a").await.unwrap().unwrap().tier, Tier::L1);
    here.clock.advance(seconds(5));
    let entry = mine.entry("a").await.unwrap().unwrap();
    assert_eq!((*entry.value, entry.tier), (2, Tier::L2));
    cache::<u32>(&there).delete("a").await.unwrap();
    assert!(mine.entry("a").await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn xfetch_renews_what_is_slow_to_load_before_it_ends() {
    for tiers in Tiers::ALL {
        let mut early = 0;
        for round in 0..200_u64 {
            let harness = Harness::new(tiers);
            let options = EntryOptions::default().ttl(seconds(100)).refresh(Refresh::Probabilistic);
            let numbers = cache::<u32>(&harness).with_options(options);
            let clock = harness.clock.clone();
            let slow = move || async move {
                clock.advance(seconds(10));
                Ok::<_, std::io::Error>(1)
            };
            assert_eq!(*numbers.get_or_set("a", slow).await.unwrap(), 1);
            // Ten seconds are left, which is what a load takes: 1/e of the callers renew it.
            harness.clock.advance(seconds(90));
            let runs = Arc::new(AtomicU64::new(0));
            assert_eq!(*numbers.get_or_set("a", counting(&runs)).await.unwrap(), 1, "{tiers:?} {round}");
            settle().await;
            early += count(&runs);
            harness.finish(2).await;
        }
        assert!((40..110).contains(&early), "{tiers:?}: {early} of 200, where about 74 are likely");
    }
}

#[tokio::test(start_paused = true)]
async fn xfetch_leaves_alone_what_is_far_from_its_end_or_was_not_loaded() {
    let harness = Harness::new(Tiers::Both);
    let options = EntryOptions::default().ttl(seconds(100)).refresh(Refresh::Probabilistic);
    let numbers = cache::<u32>(&harness).with_options(options);
    let runs = Arc::new(AtomicU64::new(0));
    numbers.set("set", 1).await.unwrap();
    assert_eq!(*numbers.get_or_set("fast", || ok(1)).await.unwrap(), 1);
    for _ in 0..99 {
        harness.clock.advance(seconds(1));
        numbers.get_or_set("set", failing(&runs)).await.unwrap();
        numbers.get_or_set("fast", failing(&runs)).await.unwrap();
    }
    settle().await;
    assert_eq!(count(&runs), 0);
    harness.finish(199).await;
}

#[tokio::test]
async fn many_keys_that_are_due_are_renewed_by_one_load() {
    let harness = Harness::new(Tiers::Both);
    let options = EntryOptions::default().ttl(seconds(10)).refresh(Refresh::Early { share: 0.5 });
    let numbers = cache::<u32>(&harness).with_options(options);
    numbers.set_many([("a", 1), ("b", 1), ("c", 1)]).await.unwrap();
    harness.clock.advance(seconds(6));
    numbers.set("c", 1).await.unwrap();
    let load = |keys: Vec<String>| async move {
        assert_eq!(keys, ["a", "b"]);
        Ok::<_, std::io::Error>(keys.into_iter().map(|key| (key, Ok(2))))
    };
    let read = async |expected: [u32; 3]| {
        let found = numbers.get_or_set_many(&["a", "b", "c"], load).await;
        assert_eq!(found.into_iter().map(|value| *value.unwrap()).collect::<Vec<_>>(), expected);
    };
    read([1, 1, 1]).await;
    settle().await;
    read([2, 2, 1]).await;
    harness.finish(6).await;
}

async fn sliding(harness: &Harness) -> Cache<u32> {
    let options = EntryOptions::default().ttl(minutes(5)).refresh(Refresh::Sliding { idle: seconds(60) });
    let numbers = cache::<u32>(harness).with_options(options);
    numbers.set("a", 1).await.unwrap();
    numbers
}

#[tokio::test]
async fn a_sliding_entry_lives_while_somebody_asks_and_ends_with_its_ttl() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = sliding(&harness).await;
        for second in (50..300).step_by(50) {
            harness.clock.advance(seconds(50));
            assert_eq!(numbers.get("a").await.unwrap().as_deref(), Some(&1), "{tiers:?} at {second}");
            settle().await;
        }
        harness.clock.advance(seconds(50));
        assert_eq!(numbers.get("a").await.unwrap(), None, "{tiers:?}: the TTL is over");

        let numbers = sliding(&harness).await;
        harness.clock.advance(seconds(30));
        assert_eq!(*numbers.get_or_set("a", || ok(9)).await.unwrap(), 1);
        settle().await;
        harness.clock.advance(seconds(60));
        assert!(numbers.has("a").await.unwrap(), "{tiers:?}: no earlier than its idle time");
        harness.clock.advance(seconds(15));
        assert!(!numbers.has("a").await.unwrap(), "{tiers:?}: no later than a quarter more");
        harness.finish(7).await;
    }
}

#[tokio::test]
async fn reads_of_a_sliding_entry_in_memory_keep_it_alive_for_other_processes_with_few_writes() {
    let here = Harness::new(Tiers::Both);
    let there = Harness::over(Tiers::L2, here.clock.clone(), here.store.clone(), |builder| builder);
    let mine = sliding(&here).await;
    for _ in 0..120 {
        here.clock.advance(seconds(1));
        assert!(mine.get("a").await.unwrap().is_some());
        settle().await;
    }
    assert_eq!(cache::<u32>(&there).get("a").await.unwrap().as_deref(), Some(&1));
    let writes = here.chaos.calls(Operation::Set);
    assert!((2..=10).contains(&writes), "{writes} writes in 120 seconds of reading");
    // What is deleted does not come back by sliding.
    mine.delete("a").await.unwrap();
    assert_eq!(mine.get("a").await.unwrap(), None);
    assert_eq!(cache::<u32>(&there).get("a").await.unwrap(), None);
}

#[tokio::test]
async fn an_entry_slides_by_what_it_was_stored_with_whoever_reads_it() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let sliding = sliding(&harness).await;
        // A TTL of its own, shorter than the cache's, is the last end; a reader's options do not matter.
        sliding.set("short", 1).ttl(seconds(100)).await.unwrap();
        let plain = cache::<u32>(&harness);
        for _ in 0..2 {
            harness.clock.advance(seconds(45));
            assert_eq!(plain.get("short").await.unwrap().as_deref(), Some(&1), "{tiers:?}");
            settle().await;
        }
        harness.clock.advance(seconds(10));
        assert_eq!(plain.get("short").await.unwrap(), None, "{tiers:?}: its own TTL is over");

        sliding.set("touched", 1).await.unwrap();
        assert!(sliding.touch("touched", hours(1)).await.unwrap());
        harness.clock.advance(seconds(76));
        assert!(!plain.has("touched").await.unwrap(), "{tiers:?}: a new TTL does not stop it from sliding");

        for sum in 1..=10 {
            assert_eq!(sliding.increment("count", 1).await.unwrap(), sum, "{tiers:?}: counting is using");
            harness.clock.advance(seconds(29));
        }
        harness.clock.advance(seconds(20));
        assert_eq!(sliding.increment("count", 1).await.unwrap(), 1, "{tiers:?}: five minutes are over");
        let stats = harness.stack.stats();
        assert_eq!(
            stats.writes,
            harness.recorder.lines().iter().filter(|line| line.starts_with("written")).count() as u64
        );
        harness.finish(3).await;
    }
}

#[tokio::test]
async fn a_hit_that_nobody_listens_to_heeds_the_memory_ttl_and_slides() {
    let clock = larder::testing::ManualClock::new(larder::time::Timestamp::from_millis(1_767_225_600_000));
    let store = larder::driver::memory::MemoryDriver::default();
    let stack = |tiers: Tiers| {
        let builder = larder::Stack::builder("test").clock(Arc::new(clock.clone())).store(store.clone());
        let builder = if tiers == Tiers::Both { builder.memory(Default::default()) } else { builder };
        builder.build().unwrap().cache::<u32>().unwrap()
    };
    let (mine, theirs) = (stack(Tiers::Both), stack(Tiers::L2));
    let mine = mine.with_options(EntryOptions::default().memory_ttl(seconds(5)));
    mine.set("a", 1).await.unwrap();
    theirs.set("a", 2).await.unwrap();
    clock.advance(seconds(4));
    assert_eq!(mine.get("a").await.unwrap().as_deref(), Some(&1));
    clock.advance(seconds(1));
    assert_eq!(mine.get("a").await.unwrap().as_deref(), Some(&2));
    let sliding = EntryOptions::default().refresh(Refresh::Sliding { idle: seconds(60) });
    mine.clone().with_options(sliding).set("s", 1).await.unwrap();
    for _ in 0..5 {
        clock.advance(seconds(50));
        assert_eq!(mine.get("s").await.unwrap().as_deref(), Some(&1));
        settle().await;
    }
}

#[tokio::test]
async fn nothing_is_kept_that_slides_to_nowhere() {
    let harness = Harness::new(Tiers::Both);
    let options = EntryOptions::default().refresh(Refresh::Sliding { idle: Duration::ZERO });
    let numbers = cache::<u32>(&harness).with_options(options);
    numbers.set("a", 1).await.unwrap();
    assert!(!numbers.has("a").await.unwrap());
    assert_eq!(*numbers.get_or_set("a", || ok(2)).await.unwrap(), 2);
    assert!(!numbers.has("a").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn what_is_refreshed_ahead_is_fresh_whenever_asked_until_nobody_asks_for_a_while() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        let runs = Arc::new(AtomicU64::new(0));
        let ask = || numbers.get_or_set("a", counting(&runs)).ttl(seconds(10)).refresh_ahead(minutes(1));
        assert_eq!(*ask().await.unwrap(), 1);
        pass(&harness, seconds(50)).await;
        // Renewed at 9, 18, 27, 36 and 45 seconds, asked for by nobody.
        assert_eq!((*ask().await.unwrap(), count(&runs)), (6, 6), "{tiers:?}");
        assert_eq!(harness.stack.refreshed_ahead(), 1);
        pass(&harness, seconds(120)).await;
        assert_eq!(harness.stack.refreshed_ahead(), 0, "{tiers:?}: nobody asked for a minute");
        assert!((11..=13).contains(&count(&runs)), "{tiers:?}: {} loads", count(&runs));
        assert_eq!(numbers.get("a").await.unwrap(), None);
        harness.finish(3).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_refreshed_ahead_survives_a_source_that_fails_and_a_delete() {
    let harness = Harness::new(Tiers::Both);
    let numbers = cache::<u32>(&harness);
    let runs = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&runs);
    let flaky = move || {
        let run = counted.fetch_add(1, Ordering::Relaxed) + 1;
        std::future::ready(if run == 2 { Err(std::io::Error::other("down")) } else { Ok(run) })
    };
    let numbers64 = harness.stack.cache::<u64>().unwrap();
    let ask = numbers64.get_or_set("a", flaky).ttl(seconds(100)).grace(hours(1)).backoff(seconds(20));
    assert_eq!(*ask.refresh_ahead(hours(1)).await.unwrap(), 1);
    pass(&harness, seconds(91)).await;
    assert_eq!(count(&runs), 2, "it failed at 90 seconds");
    pass(&harness, seconds(18)).await;
    assert_eq!(count(&runs), 2, "its source is left alone");
    pass(&harness, seconds(3)).await;
    assert_eq!((count(&runs), numbers64.get("a").await.unwrap().as_deref()), (3, Some(&3)));

    numbers.delete("a").await.unwrap();
    pass(&harness, seconds(91)).await;
    assert_eq!(numbers64.get("a").await.unwrap().as_deref(), Some(&4), "loaded anew");
    harness.stack.close().await.unwrap();
    pass(&harness, seconds(200)).await;
    assert_eq!(count(&runs), 4, "nothing is loaded after the end");
    assert_eq!(harness.stack.refreshed_ahead(), 0, "and nobody sleeps on");
}

#[tokio::test(start_paused = true)]
async fn refreshing_ahead_asks_a_dead_source_once_a_back_off() {
    let harness = Harness::new(Tiers::Both);
    let numbers = cache::<u32>(&harness);
    let runs = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&runs);
    let dead = move || {
        counted.fetch_add(1, Ordering::Relaxed);
        std::future::ready(Err::<u32, _>(std::io::Error::other("down")))
    };
    let ask = numbers.get_or_set("a", dead).backoff(seconds(20)).refresh_ahead(hours(1));
    assert_eq!(ask.await.unwrap_err().kind(), ErrorKind::Load);
    pass(&harness, minutes(2)).await;
    assert!((6..=8).contains(&count(&runs)), "{} loads in two minutes", count(&runs));
    harness.finish(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_load_gets_another_beside_it_and_all_get_what_comes_first() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        let slow = Gate::default();
        let first = crate::loads::spawn_load(&numbers, &slow, 1);
        settle().await;
        let waiter = {
            let numbers = numbers.clone();
            tokio::spawn(async move { numbers.get_or_set("a", || ok(9)).await })
        };
        tokio::time::advance(seconds(1)).await;
        let second = numbers.get_or_set("a", || ok(2)).replace_after(seconds(3)).await;
        assert_eq!(*second.unwrap(), 2);
        assert_eq!(*first.await.unwrap().unwrap(), 2, "{tiers:?}: so does who waited for the slow one");
        assert_eq!(*waiter.await.unwrap().unwrap(), 2);
        assert!(harness.recorder.lines().contains(&"load replaced a".to_owned()));
        slow.open.notify_one();
        settle().await;
        assert_eq!(
            numbers.get("a").await.unwrap().as_deref(),
            Some(&2),
            "the slow one has no right to be kept"
        );
        harness.finish(4).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_load_that_comes_first_after_all_ends_the_wait() {
    let harness = Harness::new(Tiers::Both);
    let numbers = cache::<u32>(&harness);
    let (slow, slower) = (Gate::default(), Gate::default());
    let first = crate::loads::spawn_load(&numbers, &slow, 1);
    settle().await;
    let second = {
        let (numbers, slower) = (numbers.clone(), slower.clone());
        tokio::spawn(async move {
            numbers.get_or_set("a", move || slower.load(2)).replace_after(seconds(3)).await
        })
    };
    tokio::time::sleep(seconds(4)).await;
    assert_eq!(slower.runs(), 1);
    slow.open.notify_one();
    assert_eq!((*first.await.unwrap().unwrap(), *second.await.unwrap().unwrap()), (1, 1));
    slower.open.notify_one();
    settle().await;
    assert_eq!(
        numbers.get("a").await.unwrap().as_deref(),
        Some(&2),
        "the later load is the one that is kept"
    );
    harness.finish(3).await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_beside_another_load_is_nobodys_until_all_have_failed() {
    let harness = Harness::new(Tiers::Both);
    let numbers = cache::<u32>(&harness);
    let runs = Arc::new(AtomicU64::new(0));
    let fail_later = |after: u64| {
        let load = failing(&runs);
        move || async move {
            tokio::time::sleep(seconds(after)).await;
            load().await
        }
    };
    for (first_fails, second_fails) in [(5, 9), (9, 5)] {
        let first = {
            let (numbers, load) = (numbers.clone(), fail_later(first_fails));
            tokio::spawn(async move { (numbers.get_or_set("a", load).await, timers_now()) })
        };
        settle().await;
        let began = timers_now();
        let second = numbers.get_or_set("a", fail_later(second_fails - 1)).replace_after(seconds(1)).await;
        assert_eq!(second.unwrap_err().kind(), ErrorKind::Load);
        assert_eq!(began.elapsed(), seconds(9), "the last of them decides");
        let (first, ended) = first.await.unwrap();
        assert_eq!(first.unwrap_err().kind(), ErrorKind::Load);
        assert_eq!(ended - began, seconds(9), "for both");
    }
    harness.finish(4).await;
}

#[tokio::test(start_paused = true)]
async fn loads_beside_a_slow_one_are_bounded_and_a_delete_ends_their_right_to_be_kept() {
    let harness = Harness::new(Tiers::Both);
    let numbers = cache::<u32>(&harness);
    let stuck = Gate::default();
    let callers: Vec<_> = (0..10)
        .map(|n| {
            let (numbers, stuck) = (numbers.clone(), stuck.clone());
            tokio::spawn(async move {
                numbers.get_or_set("a", move || stuck.load(n)).replace_after(Duration::from_millis(100)).await
            })
        })
        .collect();
    tokio::time::sleep(seconds(60)).await;
    assert_eq!(stuck.runs(), 1 + u64::from(REPLACEMENTS_MAX));
    numbers.delete("a").await.unwrap();
    for _ in 0..10 {
        stuck.open.notify_one();
        settle().await;
    }
    for caller in callers {
        caller.await.unwrap().unwrap();
    }
    assert_eq!(numbers.get("a").await.unwrap(), None);
    harness.finish(11).await;
}

#[tokio::test]
async fn a_forced_load_is_a_new_one_and_leaves_what_is_there_until_it_has_succeeded() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        numbers.set("a", 1).grace(hours(1)).await.unwrap();
        let before = Gate::default();
        let early = {
            let (numbers, load) = (numbers.clone(), before.clone());
            tokio::spawn(async move { numbers.get_or_set("a", move || load.load(2)).force().await })
        };
        settle().await;
        assert_eq!(
            *numbers.get_or_set("a", || ok(9)).await.unwrap(),
            1,
            "{tiers:?}: others are served as before"
        );
        assert_eq!(
            *numbers.get_or_set("a", || ok(3)).force().await.unwrap(),
            3,
            "not by way of the other load"
        );
        before.open.notify_one();
        assert_eq!(*early.await.unwrap().unwrap(), 2);
        assert_eq!(numbers.get("a").await.unwrap().as_deref(), Some(&3), "{tiers:?}: the later load is kept");

        let runs = Arc::new(AtomicU64::new(0));
        assert_eq!(*numbers.get_or_set("a", failing(&runs)).force().await.unwrap(), 3, "what is there stays");
        let strict = numbers.get_or_set("a", failing(&runs)).force().fresh_only().await;
        assert_eq!((strict.unwrap_err().kind(), count(&runs)), (ErrorKind::Load, 1));
        let many = numbers.get_or_set_many(&["b"], |keys: Vec<String>| async {
            Ok::<_, std::io::Error>(keys.into_iter().map(|key| (key, Ok(5))))
        });
        assert_eq!(**many.force().await[0].as_ref().unwrap(), 5);
        harness.finish(7).await;
    }
}
