//! What happens between the awaits: operations that overlap, are dropped half-way, or meet a clock that
//! jumps, over a store that yields before and after everything it does.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use larder::driver::memory::MemoryDriver;
use larder::driver::{Capabilities, Driver, Scanned, When, Write, Written};
use larder::entry::Freshness;
use larder::memory::MemoryOptions;
use larder::testing::{Harness, Operation, Tiers};
use larder::time::{Clock as _, hours, minutes, seconds};
use larder::{Cache, ErrorKind};
use tokio::sync::Notify;
use tokio::task::yield_now;

use crate::flow::{cache, ok};

/// A store whose every call can be caught before it does its work and after it.
#[derive(Debug)]
struct Yielding(MemoryDriver);

#[async_trait]
impl Driver for Yielding {
    fn name(&self) -> &'static str {
        "yielding"
    }
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }
    async fn get(&self, key: &str) -> larder::Result<Option<Bytes>> {
        yield_now().await;
        let found = self.0.get(key).await;
        yield_now().await;
        found
    }
    async fn get_many(&self, keys: &[&str]) -> larder::Result<Vec<Option<Bytes>>> {
        yield_now().await;
        let found = self.0.get_many(keys).await;
        yield_now().await;
        found
    }
    async fn set(
        &self,
        key: &str,
        value: Bytes,
        ttl: Option<Duration>,
        when: When,
    ) -> larder::Result<Written> {
        yield_now().await;
        let written = self.0.set(key, value, ttl, when).await;
        yield_now().await;
        written
    }
    async fn set_many(&self, writes: Vec<Write>) -> larder::Result<Vec<Written>> {
        yield_now().await;
        let written = self.0.set_many(writes).await;
        yield_now().await;
        written
    }
    async fn delete(&self, key: &str) -> larder::Result<bool> {
        self.0.delete(key).await
    }
    fn scan<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, larder::Result<Scanned>> {
        self.0.scan(prefix)
    }
    async fn clear(&self, prefix: &str) -> larder::Result<u64> {
        yield_now().await;
        let cleared = self.0.clear(prefix).await;
        yield_now().await;
        cleared
    }
}

/// Memory over a yielding store, and another process on the same store that has no memory.
fn pair() -> (Harness, Harness) {
    let other = Harness::new(Tiers::L2);
    let store = other.store.clone();
    let here = Harness::over(Tiers::Both, other.clock.clone(), other.store.clone(), |builder| {
        builder.store(Yielding(store))
    });
    (here, other)
}

const OPERATIONS: [&str; 15] = [
    "get",
    "get_many",
    "get_or_set",
    "get_or_set_many",
    "set",
    "set_many",
    "set nothing",
    "delete",
    "delete_many",
    "expire",
    "touch",
    "increment",
    "pull",
    "add",
    "clear",
];

fn operate(cache: &Cache<u32>, name: &'static str, value: u32) -> BoxFuture<'static, ()> {
    let cache = cache.clone();
    Box::pin(async move {
        match name {
            "get" => drop(cache.get("a").await.unwrap()),
            "get_many" => drop(cache.get_many(&["a", "b"]).await.unwrap()),
            "get_or_set" => drop(cache.get_or_set("a", move || ok(value)).await.unwrap()),
            "get_or_set_many" => {
                let load = move |missing: Vec<String>| {
                    ok(missing.into_iter().map(|key| (key, Ok(value))).collect::<Vec<_>>())
                };
                drop(cache.get_or_set_many(&["a", "b"], load).await);
            }
            "set" => cache.set("a", value).grace(hours(1)).await.unwrap(),
            "set_many" => cache.set_many([("a", value), ("b", value)]).await.unwrap(),
            "set nothing" => cache.set("a", value).ttl(Duration::ZERO).await.unwrap(),
            "delete" => drop(cache.delete("a").await.unwrap()),
            "delete_many" => drop(cache.delete_many(&["a", "b"]).await.unwrap()),
            "expire" => drop(cache.expire("a").await.unwrap()),
            "touch" => drop(cache.touch("a", hours(2)).await.unwrap()),
            "increment" => drop(cache.increment("a", 1).await.unwrap()),
            "pull" => drop(cache.pull("a").await.unwrap()),
            "add" => drop(cache.add("a", value).await.unwrap()),
            _ => drop(cache.clear().await.unwrap()),
        }
    })
}

/// Polls a future so many times, letting tasks run in between; true if it is done.
async fn poll(future: &mut BoxFuture<'static, ()>, times: usize) -> bool {
    for _ in 0..times {
        let polled = std::future::poll_fn(|ctx: &mut Context<'_>| {
            Poll::Ready(Pin::new(&mut *future).poll(ctx).is_ready())
        });
        if polled.await {
            return true;
        }
        yield_now().await;
    }
    false
}

/// What a process sees of the key, without changing anything.
async fn view(cache: &Cache<u32>) -> Option<(u32, Freshness, Option<Duration>)> {
    let entry = cache.entry("a").await.unwrap()?;
    Some((*entry.value, entry.state, entry.ttl_left))
}

/// Memory, if it has the key at all, must say what the store says.
async fn agree(here: &Cache<u32>, other: &Cache<u32>, what: &str) {
    let (mine, theirs) = (view(here).await, view(other).await);
    assert_eq!(mine, theirs, "{what}: this process against the store");
}

#[tokio::test]
async fn memory_agrees_with_the_store_wherever_an_operation_is_dropped() {
    for warm in [false, true] {
        for name in OPERATIONS {
            for polls in 0.. {
                let (here, other) = pair();
                let (mine, theirs) = (cache::<u32>(&here), cache::<u32>(&other));
                if warm {
                    mine.set("a", 1).grace(hours(1)).await.unwrap();
                } else {
                    theirs.set("a", 1).grace(hours(1)).await.unwrap();
                }
                let mut operation = operate(&mine, name, 7);
                let is_done = poll(&mut operation, polls).await;
                drop(operation);
                for _ in 0..50 {
                    yield_now().await;
                }
                here.stack.check_invariants().unwrap();
                agree(&mine, &theirs, &format!("{name}, warm {warm}, dropped after {polls} polls")).await;
                if is_done {
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn memory_agrees_with_the_store_however_two_operations_overlap() {
    for first in OPERATIONS {
        for second in OPERATIONS {
            for polls in 1.. {
                let (here, other) = pair();
                let (mine, theirs) = (cache::<u32>(&here), cache::<u32>(&other));
                theirs.set("a", 5).grace(hours(1)).await.unwrap();
                let mut one = operate(&mine, first, 10);
                let mut two = operate(&mine, second, 20);
                let mut is_done = poll(&mut one, polls).await;
                let ends_early = is_done;
                let mut is_done_too = poll(&mut two, 60).await;
                while !(is_done && is_done_too) {
                    is_done = is_done || poll(&mut one, 1).await;
                    is_done_too = is_done_too || poll(&mut two, 1).await;
                }
                for _ in 0..50 {
                    yield_now().await;
                }
                here.stack.check_invariants().unwrap();
                let what = format!("{first}, after {polls} polls {second}");
                if [first, second].contains(&"clear") && view(&theirs).await.is_none() {
                    // Reclaiming may have taken what was stored after the mark, and memory may have kept it.
                    let kept = view(&mine).await.map(|(value, ..)| value);
                    assert!(kept.is_none_or(|value| value != 5), "{what}: {kept:?} was cleared");
                } else {
                    agree(&mine, &theirs, &what).await;
                }
                if ends_early {
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_lookup_after_a_clear_is_not_handed_a_load_from_before_it() {
    for tiers in Tiers::ALL {
        for clears_all in [true, false] {
            let harness = Harness::new(tiers);
            let all = cache::<u32>(&harness);
            let numbers = all.namespace("n").unwrap();
            let (started, open) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
            let old = tokio::spawn({
                let (numbers, started, open) = (numbers.clone(), Arc::clone(&started), Arc::clone(&open));
                async move {
                    let load = move || async move {
                        started.notify_one();
                        open.notified().await;
                        Ok::<_, std::io::Error>(1)
                    };
                    numbers.get_or_set("a", load).await
                }
            });
            started.notified().await;
            if clears_all {
                all.clear().await.unwrap()
            } else {
                numbers.clear().await.unwrap()
            };
            let new = tokio::spawn({
                let numbers = numbers.clone();
                async move { numbers.get_or_set("a", || ok(2)).await }
            });
            for _ in 0..50 {
                yield_now().await;
            }
            open.notify_one();
            assert_eq!(*old.await.unwrap().unwrap(), 1);
            assert_eq!(*new.await.unwrap().unwrap(), 2, "{tiers:?}");
            assert_eq!(*numbers.get("a").await.unwrap().unwrap(), 2, "{tiers:?}");
            harness.finish(3).await;
        }
    }
}

#[tokio::test]
async fn a_stale_value_is_not_served_once_the_store_has_said_that_it_was_deleted() {
    let here = Harness::new(Tiers::Both);
    let there = Harness::over(Tiers::L2, here.clock.clone(), here.store.clone(), |builder| builder);
    let numbers = cache::<u32>(&here);
    numbers.set("a", 1).ttl(seconds(10)).grace(hours(6)).await.unwrap();
    here.clock.advance(seconds(11));
    cache::<u32>(&there).delete("a").await.unwrap();
    let fail = || std::future::ready(Err::<u32, _>(std::io::Error::other("down")));
    assert_eq!(numbers.get_or_set("a", fail).await.unwrap_err().kind(), ErrorKind::Load);
    // Nor when the store has forgotten the delete.
    here.clock.advance(hours(2));
    assert_eq!(numbers.get_or_set("a", fail).await.unwrap_err().kind(), ErrorKind::Load);
    here.finish(2).await;
}

#[tokio::test]
async fn a_key_is_counted_once_by_delete_many_though_another_process_was_ahead() {
    let here = Harness::new(Tiers::Both);
    let ahead = larder::testing::ManualClock::new(here.clock.now() + minutes(1));
    let there = Harness::over(Tiers::L2, ahead, here.store.clone(), |builder| builder);
    let numbers = cache::<u32>(&here);
    numbers.set("a", 1).await.unwrap();
    cache::<u32>(&there).set("a", 2).await.unwrap();
    assert_eq!(numbers.delete_many(&["a"]).await.unwrap(), 1);
}

#[tokio::test]
async fn a_process_whose_clock_was_days_ahead_for_a_while_keeps_working() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        let now = harness.clock.now();
        harness.clock.set(now + hours(300));
        numbers.set("a", 1).await.unwrap();
        numbers.namespace("other").unwrap().clear().await.unwrap();
        numbers.clear().await.unwrap();
        harness.clock.set(now);
        numbers.set("a", 2).await.unwrap();
        numbers.set("b", 3).await.unwrap();
        for _ in 0..2 {
            assert_eq!(numbers.get("missing").await.unwrap(), None);
            assert_eq!(numbers.get("a").await.unwrap().as_deref(), Some(&2), "{tiers:?}");
            assert_eq!(numbers.get("b").await.unwrap().as_deref(), Some(&3), "{tiers:?}");
        }
        assert_eq!(numbers.increment("b", 1).await.unwrap(), 4);
        numbers.delete("a").await.unwrap();
        assert_eq!(numbers.get("a").await.unwrap(), None);
        assert_eq!(*numbers.get_or_set("a", || ok(5)).await.unwrap(), 5);
        assert_eq!(numbers.get("a").await.unwrap().as_deref(), Some(&5));
        numbers.clear().await.unwrap();
        assert_eq!(numbers.get("b").await.unwrap(), None);
        assert_eq!(harness.stack.stats().damaged, 0, "{tiers:?}");
    }
}

#[tokio::test]
async fn a_process_in_step_survives_one_whose_clock_was_days_ahead() {
    let here = Harness::new(Tiers::L2);
    let wild = larder::testing::ManualClock::new(here.clock.now() + hours(300));
    let there = Harness::over(Tiers::L2, wild, here.store.clone(), |builder| builder);
    let (mine, theirs) = (cache::<u32>(&here), cache::<u32>(&there));
    theirs.set("a", 1).await.unwrap();
    theirs.clear().await.unwrap();
    theirs.delete("b").await.unwrap();
    for key in ["a", "b"] {
        let _ = mine.get(key).await.unwrap();
        mine.set(key, 2).await.unwrap();
        assert_eq!(mine.get(key).await.unwrap().as_deref(), Some(&2));
    }
}

#[tokio::test]
async fn a_loader_that_closes_its_own_stack_is_refused_and_not_stuck() {
    let harness = Harness::new(Tiers::Both);
    let stack = harness.stack.clone();
    let load = move || async move { stack.close().await.map(|()| 1) };
    let loading = cache::<u32>(&harness);
    let closed = tokio::time::timeout(seconds(5), async { loading.get_or_set("a", load).await }).await;
    let error = closed.expect("it is not stuck").unwrap_err();
    assert_eq!(error.load_error::<larder::Error>().unwrap().kind(), ErrorKind::Recursion);
    assert_eq!(*loading.get_or_set("a", || ok(2)).await.unwrap(), 2, "the stack is still open");
    harness.stack.close().await.unwrap();
    harness.finish(2).await;
}

#[tokio::test]
async fn a_close_that_is_dropped_half_way_can_be_done_again() {
    let harness = Harness::new(Tiers::Both);
    harness.chaos.stall(Operation::Close);
    let stack = harness.stack.clone();
    let mut closing: BoxFuture<'static, ()> = Box::pin(async move { stack.close().await.unwrap() });
    assert!(!poll(&mut closing, 5).await);
    drop(closing);
    harness.chaos.heal();
    harness.stack.close().await.unwrap();
    harness.stack.close().await.unwrap();
    assert_eq!(harness.chaos.calls(Operation::Close), 2, "once in vain, and once");
}

#[tokio::test]
async fn an_endless_grace_outlives_touch_and_expire() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        numbers.set("a", 1).ttl(seconds(5)).grace(Duration::MAX).await.unwrap();
        numbers.touch("a", seconds(9)).await.unwrap();
        assert_eq!(numbers.entry("a").await.unwrap().unwrap().life_left, None);
        assert!(numbers.expire("a").await.unwrap());
        assert_eq!(numbers.entry("a").await.unwrap().map(|entry| entry.state), Some(Freshness::Stale));
    }
}

#[tokio::test]
async fn what_a_delete_leaves_behind_outlives_the_slowest_write_of_the_longest_load() {
    let harness = Harness::with(Tiers::L2, |builder| builder.load_max(seconds(1)).deadline(seconds(600)));
    let numbers = cache::<u32>(&harness);
    harness.chaos.stall(Operation::SetMany);
    let load = tokio::spawn({
        let numbers = numbers.clone();
        async move { numbers.get_or_set("a", || ok(1)).await }
    });
    for _ in 0..50 {
        yield_now().await;
    }
    numbers.delete("a").await.unwrap();
    harness.clock.advance(seconds(2));
    harness.chaos.release(Operation::SetMany);
    assert_eq!(*load.await.unwrap().unwrap(), 1);
    assert_eq!(numbers.get("a").await.unwrap(), None);
    harness.finish(2).await;
}

#[tokio::test]
async fn pulling_with_the_wrong_type_takes_nothing() {
    let harness = Harness::new(Tiers::L1);
    cache::<u32>(&harness).set("a", 1).await.unwrap();
    assert_eq!(cache::<String>(&harness).pull("a").await.unwrap_err().kind(), ErrorKind::TypeMismatch);
    assert_eq!(cache::<u32>(&harness).get("a").await.unwrap().as_deref(), Some(&1));
    harness.finish(2).await;
}

#[tokio::test]
async fn a_weigher_is_asked_whatever_the_tiers() {
    let mut options = MemoryOptions::new(1_000);
    options.max_bytes = Some(1 << 20);
    let harness = Harness::with(Tiers::Both, |builder| builder.memory(options));
    let used = || harness.stack.memory_usage().unwrap().bytes;
    let numbers = cache::<u32>(&harness).with_weigher(|_| 10_000);
    numbers.set("a", 1).await.unwrap();
    assert!((10_000..20_000).contains(&used()), "set: {}", used());
    numbers.increment("a", 1).await.unwrap();
    assert!((10_000..20_000).contains(&used()), "increment: {}", used());
    numbers.touch("a", hours(1)).await.unwrap();
    assert!((10_000..20_000).contains(&used()), "touch: {}", used());
    numbers.set_many([("b", 1)]).await.unwrap();
    assert!((20_000..30_000).contains(&used()), "set_many: {}", used());
    let _ = numbers.get_or_set("c", || ok(1)).await.unwrap();
    assert!((30_000..40_000).contains(&used()), "get_or_set: {}", used());
    let other = Harness::over(Tiers::L2, harness.clock.clone(), harness.store.clone(), |builder| builder);
    cache::<u32>(&other).set("d", 1).await.unwrap();
    let _ = numbers.get("d").await.unwrap();
    assert!((40_000..50_000).contains(&used()), "get: {}", used());
}

#[tokio::test]
async fn unusable_tags_fail_a_lookup_that_is_counted_all_the_same() {
    let harness = Harness::new(Tiers::L1);
    let numbers = cache::<u32>(&harness);
    let long = "t".repeat(5_000);
    assert!(numbers.get_or_set("a", || ok(1)).tags([long.as_str()]).await.is_err());
    let load = |_: Vec<String>| ok(Vec::<(String, Result<u32, std::io::Error>)>::new());
    let found = numbers.get_or_set_many(&["a", "b"], load).tags([long.as_str()]).await;
    assert!(found.iter().all(Result::is_err));
    harness.finish(3).await;
}

#[tokio::test]
async fn the_last_value_of_a_key_in_set_many_wins_though_another_process_wrote_at_that_moment() {
    let here = Harness::new(Tiers::Both);
    let there = Harness::over(Tiers::L2, here.clock.clone(), here.store.clone(), |builder| builder);
    cache::<u32>(&there).set("a", 9).await.unwrap();
    let numbers = cache::<u32>(&here);
    numbers.set_many([("a", 1), ("a", 2)]).await.unwrap();
    assert_eq!(numbers.get("a").await.unwrap().as_deref(), Some(&2));
    assert_eq!(cache::<u32>(&there).get("a").await.unwrap().as_deref(), Some(&2));
}

/// When things began and ended, in steps of a scripted run.
#[derive(Debug, Default)]
struct History {
    now: u64,
    /// For each value: when its load began, or its set had ended.
    born: std::collections::HashMap<u32, u64>,
    /// Changes that were acknowledged: what, when they began, when they ended.
    changes: Vec<(&'static str, u64, u64)>,
}

type Shared = Arc<std::sync::Mutex<History>>;

fn tick(history: &Shared) -> u64 {
    let mut history = history.lock().unwrap();
    history.now += 1;
    history.now
}

/// Runs one operation and checks what it was given against what had been acknowledged before it began.
fn checked(cache: &Cache<u32>, name: &'static str, value: u32, history: &Shared) -> BoxFuture<'static, ()> {
    let (cache, history) = (cache.clone(), Arc::clone(history));
    let loads = Arc::clone(&history);
    Box::pin(async move {
        let began = tick(&history);
        let load = move || async move {
            let now = tick(&loads);
            loads.lock().unwrap().born.insert(value, now);
            for _ in 0..value % 24 {
                yield_now().await;
            }
            Ok::<_, std::io::Error>(value)
        };
        let mut is_change = true;
        let seen = match name {
            "get" => cache.get("a").await.unwrap(),
            "get_many" => cache.get_many(&["a", "b"]).await.unwrap().swap_remove(0),
            "get_or_set" => Some(cache.get_or_set("a", load).await.unwrap()),
            "get_or_set_many" => {
                let load = move |missing: Vec<String>| async move {
                    let value = load().await?;
                    Ok::<_, std::io::Error>(missing.into_iter().map(move |key| (key, Ok(value))))
                };
                cache.get_or_set_many(&["a", "b"], load).await.swap_remove(0).ok()
            }
            "pull" => {
                let pulled = cache.pull("a").await.unwrap();
                is_change = pulled.is_some();
                pulled
            }
            "add" => {
                is_change = cache.add("a", value).await.unwrap();
                None
            }
            _ => {
                operate(&cache, name, value).await;
                is_change = name != "touch";
                None
            }
        };
        let ended = tick(&history);
        let mut history = history.lock().unwrap();
        if let Some(seen) = seen {
            let born = history.born.get(&seen).copied().unwrap_or(u64::MAX);
            for (change, start, end) in &history.changes {
                assert!(
                    !(*end < began && born < *start),
                    "{name} from {began} got {seen}, born {born}, after {change} from {start} to {end}"
                );
            }
        }
        if ["set", "set_many", "add"].contains(&name) && is_change {
            history.born.insert(value, ended);
        }
        if is_change && !["get", "get_many", "get_or_set", "get_or_set_many"].contains(&name) {
            history.changes.push((name, began, ended));
        }
    })
}

async fn scripted_run(tiers: Tiers, seed: u64) {
    let other = Harness::new(Tiers::L2);
    let store = other.store.clone();
    let here = Harness::over(tiers, other.clock.clone(), other.store.clone(), |builder| match tiers {
        Tiers::L1 => builder,
        _ => builder.store(Yielding(store)),
    });
    let numbers = cache::<u32>(&here);
    let history = Shared::default();
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 33).unwrap() % below
    };
    // Reclaiming may take from the store what was stored after the mark and stays in memory.
    let has_clears = seed.is_multiple_of(2);
    // A sum is a value of its own, whose birth is not known. Few kinds at once meet more often.
    let few: Vec<_> = (0..8)
        .map(|_| OPERATIONS[next(OPERATIONS.len())])
        .filter(|name| *name != "increment" && (*name != "clear" || has_clears))
        .chain(["get_or_set"])
        .take(4)
        .collect();
    let mut running: Vec<BoxFuture<'static, ()>> = Vec::new();
    for value in 0..24 {
        let name = few[next(few.len())];
        running.push(checked(&numbers, name, 100 + value, &history));
        for _ in 0..next(24) {
            let index = next(running.len().max(1));
            if index < running.len() && poll(&mut running[index], 1 + next(2)).await {
                drop(running.swap_remove(index));
            }
        }
        if running.len() > 3 && next(8) == 0 {
            drop(running.swap_remove(0));
        }
    }
    while !running.is_empty() {
        let index = next(running.len());
        if poll(&mut running[index], 1).await {
            drop(running.swap_remove(index));
        }
    }
    for _ in 0..50 {
        yield_now().await;
    }
    here.stack.check_invariants().unwrap();
    if tiers != Tiers::L1 && !has_clears {
        agree(&numbers, &cache(&other), "in the end").await;
    }
}

#[tokio::test]
async fn nothing_from_before_an_acknowledged_change_is_found_after_it_in_any_order() {
    for tiers in Tiers::ALL {
        for seed in 0..500 {
            let run = std::panic::AssertUnwindSafe(scripted_run(tiers, seed));
            let outcome = futures_util::FutureExt::catch_unwind(run).await;
            assert!(outcome.is_ok(), "{tiers:?}, seed {seed}");
        }
    }
}

#[tokio::test]
async fn a_load_that_was_asked_for_before_a_close_does_not_begin_after_it() {
    use std::future::IntoFuture as _;

    let harness = Harness::new(Tiers::Both);
    let numbers = cache::<u32>(&harness);
    let asked = numbers.get_or_set("a", || ok(1)).into_future();
    harness.stack.close().await.unwrap();
    assert_eq!(asked.await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(harness.chaos.calls(Operation::GetMany), 0);
    harness.finish(1).await;
}

#[test]
fn a_store_outside_a_runtime_is_an_error_and_not_a_panic() {
    use futures_util::FutureExt as _;

    let harness = Harness::new(Tiers::L2);
    let numbers = cache::<u32>(&harness);
    let error = async { numbers.set("a", 1).await }.now_or_never().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(numbers.get("a").now_or_never().unwrap().unwrap_err().kind(), ErrorKind::Unsupported);
}

/// A value that uses the cache when it is dropped, as a connection that returns itself to a pool might.
struct Reentrant(Cache<Reentrant>);

impl Drop for Reentrant {
    fn drop(&mut self) {
        for key in ["a", "b"] {
            // It takes the locks of the key, whether there is something or not.
            let _ = futures_util::FutureExt::now_or_never(self.0.touch(key, seconds(1)));
        }
    }
}

#[test]
fn a_value_may_use_the_cache_while_it_is_dropped() {
    let (sender, done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let harness = Harness::with(Tiers::L1, |builder| builder.memory(MemoryOptions::new(1)));
            let values = harness.stack.memory_cache::<Reentrant>().unwrap();
            let new = || Reentrant(values.clone());
            let fresh = || async { values.set("a", new()).ttl(seconds(1)).await.unwrap() };
            fresh().await;
            fresh().await;
            values.set("b", new()).await.unwrap();
            fresh().await;
            assert!(values.delete("a").await.unwrap());
            fresh().await;
            drop(values.pull("a").await.unwrap());
            fresh().await;
            values.expire("a").await.unwrap();
            fresh().await;
            values.clear().await.unwrap();
            fresh().await;
            harness.clock.advance(seconds(1));
            assert!(values.get("a").await.unwrap().is_none());
            fresh().await;
            harness.clock.advance(seconds(1));
            harness.stack.prune().await.unwrap();
            assert!(values.add("a", new()).await.unwrap());
            assert!(values.touch("a", hours(1)).await.unwrap());
            let (inner, made) = (values.clone(), new());
            drop(inner.get_or_set("b", move || ok(made)).await.unwrap());
            values.set_many([("a", new()), ("a", new())]).await.unwrap();
            values.delete_many(&["a", "b"]).await.unwrap();
            harness.stack.check_invariants().unwrap();
        });
        sender.send(()).unwrap();
    });
    done.recv_timeout(Duration::from_secs(20)).expect("it neither panics nor locks itself out");
}

/// A codec that panics on some numbers.
struct Fragile;

impl larder::codec::Codec<u32> for Fragile {
    fn id(&self) -> larder::codec::CodecId {
        larder::codec::CodecId(200)
    }
    fn encode(&self, value: &u32) -> Result<Bytes, larder::BoxError> {
        assert_ne!(*value, 13, "told to panic");
        Ok(value.to_string().into())
    }
    fn decode(&self, bytes: &Bytes) -> Result<u32, larder::BoxError> {
        let value = std::str::from_utf8(bytes)?.parse()?;
        assert_ne!(value, 14, "told to panic");
        Ok(value)
    }
}

#[tokio::test]
async fn a_codec_that_panics_strands_nobody_and_leaves_the_books_in_order() {
    for tiers in [Tiers::L2, Tiers::Both] {
        let harness = Harness::new(tiers);
        let numbers = harness.stack.cache_with::<u32>(Fragile);
        let (first, second) = (numbers.clone(), numbers.clone());
        let (one, two) = tokio::join!(first.get_or_set("a", || ok(13)), second.get_or_set("a", || ok(13)));
        assert!(one.is_err() && two.is_err());
        let plain = harness.stack.cache_with::<u32>(larder::codec::Json);
        for key in ["b", "c"] {
            plain.set(key, 14).await.unwrap();
        }
        for name in ["set", "get", "get_many", "increment"] {
            let numbers = numbers.clone();
            let task = tokio::spawn(async move {
                match name {
                    "set" => numbers.set("a", 13).await.unwrap(),
                    "increment" => drop(numbers.increment("n", 13).await.unwrap()),
                    "get" => drop(numbers.get("d").await.unwrap()),
                    _ => drop(numbers.get_many(&["d", "e"]).await.unwrap()),
                }
            });
            assert_eq!(task.await.is_err(), ["set", "increment"].contains(&name), "{name}");
        }
        numbers.set("a", 1).await.unwrap();
        assert_eq!(numbers.get("a").await.unwrap().as_deref(), Some(&1));
        harness.stack.check_invariants().unwrap();
    }
}

#[tokio::test]
async fn a_delete_during_the_write_of_a_load_wins_though_a_clear_reclaims_what_it_left_behind() {
    let here = Harness::new(Tiers::L2);
    let there = Harness::over(Tiers::L2, here.clock.clone(), here.store.clone(), |builder| builder);
    let numbers = cache::<u32>(&here);
    there.chaos.stall(Operation::Clear);
    let clear = tokio::spawn({
        let theirs = cache::<u32>(&there);
        async move { theirs.clear().await }
    });
    for _ in 0..50 {
        yield_now().await;
    }
    here.clock.advance(seconds(1));
    here.chaos.stall(Operation::SetMany);
    let load = tokio::spawn({
        let numbers = numbers.clone();
        async move { numbers.get_or_set("a", || ok(1)).await }
    });
    for _ in 0..50 {
        yield_now().await;
    }
    here.clock.advance(seconds(1));
    numbers.delete("a").await.unwrap();
    there.chaos.release(Operation::Clear);
    clear.await.unwrap().unwrap();
    here.chaos.release(Operation::SetMany);
    assert_eq!(*load.await.unwrap().unwrap(), 1);
    assert_eq!(numbers.get("a").await.unwrap(), None);
    here.finish(2).await;
}
