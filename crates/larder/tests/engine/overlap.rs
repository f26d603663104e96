//! Operations that overlap or are dropped half-way, over a store that yields before and after everything it
//! does: memory agrees with the store, and nothing acknowledged is undone.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use larder::Cache;
use larder::driver::memory::MemoryDriver;
use larder::driver::{Capabilities, Driver, Scanned, When, Write, Written};
use larder::entry::Freshness;
use larder::testing::{Harness, Tiers};
use larder::time::hours;
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
pub(crate) async fn poll(future: &mut BoxFuture<'static, ()>, times: usize) -> bool {
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
