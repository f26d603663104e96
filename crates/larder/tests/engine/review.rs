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
