//! What a second look at the ways in which freshness ends found: offers that outlive what they are, loads beside loads,
//! slides that win where they should not, and keys that are looked after for too long.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt as _;
use larder::driver::memory::MemoryDriver;
use larder::driver::{Capabilities, Driver, When, Written};
use larder::entry::Freshness;
use larder::memory::MemoryOptions;
use larder::testing::{Harness, ManualClock, Operation, Tiers};
use larder::time::{Clock, Timestamp, Ttl, hours, minutes, seconds};
use larder::{Cache, EntryOptions, ErrorKind, Loaded, Previous, Refresh, Stack, explain};

use crate::flow::{cache, ok};
use crate::freshness::{counting, pass};
use crate::loads::{Gate, spawn_load};
use crate::resilience::{count, failing, settle};

const WITH_STORE: [Tiers; 2] = [Tiers::L2, Tiers::Both];

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[tokio::test]
async fn memory_that_found_the_same_in_the_store_asks_again_after_its_own_ttl_and_no_earlier() {
    let harness = Harness::new(Tiers::Both);
    let numbers = cache::<u32>(&harness).with_options(EntryOptions::default().memory_ttl(seconds(5)));
    numbers.set("a", 1).ttl(minutes(10)).await.unwrap();
    for round in 0..6 {
        harness.clock.advance(seconds(6));
        harness.chaos.reset_calls();
        for _ in 0..10 {
            let found = if round % 2 == 0 {
                numbers.get("a").await.unwrap().unwrap()
            } else {
                numbers.get_or_set("a", || ok(9)).await.unwrap()
            };
            assert_eq!(*found, 1);
        }
        assert_eq!(harness.chaos.calls(Operation::GetMany), 1, "round {round}");
    }
    harness.finish(60).await;
}

#[tokio::test(start_paused = true)]
async fn a_load_beside_a_slow_one_does_not_keep_its_value_alive() {
    let harness = Harness::new(Tiers::L1);
    let numbers = cache::<u32>(&harness);
    let slow = Gate::default();
    let first = spawn_load(&numbers, &slow, 1);
    settle().await;
    let value = numbers.get_or_set("a", || ok(2)).replace_after(seconds(1)).await.unwrap();
    first.await.unwrap().unwrap();
    slow.open.notify_one();
    settle().await;
    numbers.delete("a").await.unwrap();
    let left = Arc::downgrade(&value);
    drop(value);
    assert!(left.upgrade().is_none(), "nobody has it any more");
    harness.finish(2).await;
}

#[tokio::test]
async fn a_read_before_an_expire_does_not_slide_what_has_expired_since() {
    for tiers in WITH_STORE {
        let harness = Harness::new(tiers);
        let options = EntryOptions::default()
            .ttl(hours(1))
            .grace(hours(1))
            .refresh(Refresh::Sliding { idle: seconds(60) });
        let numbers = cache::<u32>(&harness).with_options(options);
        numbers.set("a", 1).await.unwrap();
        harness.clock.advance(seconds(30));
        // The slide runs in the background, which gets its turn when the change has been acknowledged.
        assert!(numbers.get("a").await.unwrap().is_some());
        harness.clock.advance(seconds(1));
        assert!(numbers.expire("a").await.unwrap());
        settle().await;
        assert_eq!(numbers.entry("a").await.unwrap().unwrap().state, Freshness::Stale, "{tiers:?}");
        assert_eq!(numbers.get("a").await.unwrap(), None, "{tiers:?}");
        harness.finish(2).await;
    }
}

/// A clock at which something happens after it was read.
#[derive(Debug)]
struct Interrupted {
    clock: ManualClock,
    cache: Mutex<Option<Cache<u32>>>,
}

impl Clock for Interrupted {
    fn now(&self) -> Timestamp {
        let now = self.clock.now();
        let cache = self.cache.lock().unwrap().take();
        if let Some(cache) = cache {
            self.clock.advance(seconds(1));
            assert!(cache.expire("a").now_or_never().unwrap().unwrap());
        }
        now
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }
}

#[tokio::test]
async fn what_expires_while_it_is_read_or_touched_stays_expired() {
    for touches in [false, true] {
        let clock = ManualClock::new(Timestamp::from_millis(1_767_225_600_000));
        let clock = Arc::new(Interrupted { clock, cache: Mutex::default() });
        let options = EntryOptions::default().ttl(hours(1)).grace(hours(1));
        let options = options.refresh(Refresh::Sliding { idle: seconds(60) });
        let stack = Stack::builder("test").clock(Arc::clone(&clock) as Arc<dyn Clock>).options(options);
        let numbers = stack.memory(MemoryOptions::default()).build().unwrap().cache::<u32>().unwrap();
        numbers.set("a", 1).await.unwrap();
        clock.clock.advance(seconds(30));
        *clock.cache.lock().unwrap() = Some(numbers.clone());
        if touches {
            assert!(!numbers.touch("a", hours(1)).await.unwrap());
        } else {
            // It entered before the expire, so it may find either.
            let _ = numbers.get("a").await.unwrap();
        }
        assert_eq!(numbers.entry("a").await.unwrap().unwrap().state, Freshness::Stale, "touches: {touches}");
        assert_eq!(numbers.get("a").await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_read_that_slides_does_not_undo_a_load() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let options = EntryOptions::default().ttl(hours(1)).refresh(Refresh::Sliding { idle: seconds(60) });
        let numbers = cache::<u32>(&harness).with_options(options);
        numbers.set("a", 1).await.unwrap();
        harness.clock.advance(seconds(30));
        let gate = Gate::default();
        let forced = {
            let (numbers, load) = (numbers.clone(), gate.clone());
            tokio::spawn(async move { numbers.get_or_set("a", move || load.load(2)).force().await })
        };
        settle().await;
        harness.clock.advance(seconds(1));
        assert_eq!(numbers.get("a").await.unwrap().as_deref(), Some(&1));
        settle().await;
        gate.open.notify_one();
        assert_eq!(*forced.await.unwrap().unwrap(), 2);
        assert_eq!(numbers.get("a").await.unwrap().as_deref(), Some(&2), "{tiers:?}");
        settle().await;
        harness.finish(3).await;
    }
}

#[tokio::test]
async fn what_was_fresh_when_it_was_offered_is_not_served_as_fresh_when_it_is_stale() {
    for tiers in WITH_STORE {
        let harness = Harness::new(tiers);
        let options = EntryOptions::default().ttl(seconds(10)).grace(hours(1));
        let options = options.refresh(Refresh::Early { share: 0.5 });
        let numbers = cache::<u32>(&harness).with_options(options);
        numbers.set("a", 1).await.unwrap();
        harness.clock.advance(seconds(6));
        let gate = Gate::default();
        let load = gate.clone();
        assert_eq!(*numbers.get_or_set("a", move || load.load(2)).await.unwrap(), 1);
        settle().await;
        assert_eq!(gate.runs(), 1, "it is renewed");
        assert_eq!(*numbers.get_or_set("a", || ok(9)).await.unwrap(), 1, "and fresh");
        harness.clock.advance(seconds(60));
        let late = {
            let numbers = numbers.clone();
            tokio::spawn(async move { numbers.get_or_set("a", || ok(9)).await })
        };
        settle().await;
        assert!(!late.is_finished(), "{tiers:?}: it has ended, so whoever asks waits for the load");
        let impatient = numbers.get_or_set("a", || ok(9)).soft_timeout(seconds(0)).await;
        assert_eq!((*impatient.unwrap(), harness.stack.stats().hits_stale), (1, 1), "{tiers:?}");
        gate.open.notify_one();
        assert_eq!(*late.await.unwrap().unwrap(), 2);
        harness.finish(4).await;
    }
}

#[tokio::test]
async fn who_takes_nothing_stale_takes_what_is_fresh_though_it_is_being_loaded_again() {
    let harness = Harness::new(Tiers::L2);
    let numbers = cache::<u32>(&harness);
    numbers.set("a", 1).await.unwrap();
    let gate = Gate::default();
    let forced = {
        let (numbers, load) = (numbers.clone(), gate.clone());
        tokio::spawn(async move { numbers.get_or_set("a", move || load.load(2)).force().await })
    };
    settle().await;
    let strict = {
        let numbers = numbers.clone();
        tokio::spawn(async move { numbers.get_or_set("a", || ok(9)).fresh_only().await })
    };
    settle().await;
    assert!(strict.is_finished());
    gate.open.notify_one();
    assert_eq!((*strict.await.unwrap().unwrap(), *forced.await.unwrap().unwrap()), (1, 2));
    harness.finish(2).await;
}

#[tokio::test(start_paused = true)]
async fn a_load_beside_a_forced_one_is_forced_too() {
    let harness = slow_once(Tiers::L2, Arc::default(), Arc::default());
    let numbers = cache::<u32>(&harness);
    numbers.set("a", 1).await.unwrap();
    let forced = {
        let numbers = numbers.clone();
        tokio::spawn(async move { numbers.get_or_set("a", || ok(2)).force().await })
    };
    settle().await;
    let other = numbers.get_or_set("a", || ok(3)).replace_after(millis(100)).await;
    assert!([1, 3].contains(&*other.unwrap()));
    assert_eq!(*forced.await.unwrap().unwrap(), 3, "what it waited for is a load, and not what was there");
    tokio::time::sleep(seconds(2)).await;
    assert_eq!(numbers.get("a").await.unwrap().as_deref(), Some(&3));
    harness.finish(3).await;
}

#[tokio::test]
async fn a_key_that_is_named_twice_is_forced_once() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        let load =
            |keys: Vec<String>| async { Ok::<_, std::io::Error>(keys.into_iter().map(|key| (key, Ok(5)))) };
        let found = numbers.get_or_set_many(&["a", "b", "a"], load).force().await;
        let found: Vec<u32> = found.into_iter().map(|value| *value.unwrap()).collect();
        assert_eq!(found, [5, 5, 5], "{tiers:?}");
        assert_eq!(numbers.get("a").await.unwrap().as_deref(), Some(&5), "{tiers:?}: it is kept");
        harness.finish(4).await;
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_looks_after_a_key_for_longer_than_it_is_asked_for() {
    for ttl in [Ttl::Forever, Ttl::For(hours(10))] {
        let harness = Harness::new(Tiers::Both);
        let numbers = cache::<u32>(&harness);
        let runs = Arc::new(AtomicU64::new(0));
        let ask = numbers.get_or_set("a", counting(&runs)).ttl(ttl).refresh_ahead(minutes(1));
        ask.await.unwrap();
        pass(&harness, seconds(50)).await;
        assert_eq!(harness.stack.refreshed_ahead(), 1);
        pass(&harness, seconds(20)).await;
        assert_eq!(harness.stack.refreshed_ahead(), 0, "{ttl:?}: nobody asked for a minute");
        assert_eq!(count(&runs), 1);
        harness.finish(1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_kept_is_not_refreshed_ahead_in_a_hurry() {
    let small = || {
        let mut options = MemoryOptions::new(10);
        options.max_entry_bytes = Some(100);
        options
    };
    for (says_uncached, tiers) in [(true, Tiers::Both), (true, Tiers::L2), (false, Tiers::L1)] {
        let harness = Harness::with(tiers, |builder| match tiers {
            Tiers::L1 => builder.memory(small()),
            _ => builder,
        });
        let numbers = cache::<u32>(&harness);
        let runs = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&runs);
        let load = move |_: Option<Previous<u32>>| {
            counted.fetch_add(1, Ordering::Relaxed);
            let loaded = Loaded::new(1);
            std::future::ready(Ok::<_, std::io::Error>(if says_uncached {
                loaded.ttl(seconds(0))
            } else {
                loaded
            }))
        };
        let ask = numbers.get_or_set_with("a", load).ttl(minutes(5)).backoff(seconds(10));
        ask.refresh_ahead(hours(1)).await.unwrap();
        pass(&harness, minutes(1)).await;
        assert!(count(&runs) <= 8, "{tiers:?}: {} loads in a minute of what is not kept", count(&runs));
        harness.stack.close().await.unwrap();
    }
}

/// A store that is slow for the first reader, and tells if it is used after it was closed.
#[derive(Debug)]
struct SlowOnce {
    store: MemoryDriver,
    is_used: AtomicBool,
    is_closed: Arc<AtomicBool>,
    used_late: Arc<AtomicBool>,
}

#[async_trait]
impl Driver for SlowOnce {
    fn name(&self) -> &'static str {
        "slow-once"
    }
    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }
    async fn get(&self, key: &str) -> larder::Result<Option<Bytes>> {
        if !self.is_used.swap(true, Ordering::SeqCst) {
            tokio::time::sleep(seconds(1)).await;
        }
        self.used_late.fetch_or(self.is_closed.load(Ordering::SeqCst), Ordering::SeqCst);
        self.store.get(key).await
    }
    async fn set(
        &self,
        key: &str,
        value: Bytes,
        ttl: Option<Duration>,
        when: When,
    ) -> larder::Result<Written> {
        self.store.set(key, value, ttl, when).await
    }
    async fn delete(&self, key: &str) -> larder::Result<bool> {
        self.store.delete(key).await
    }
    async fn close(&self) -> larder::Result<()> {
        self.is_closed.store(true, Ordering::SeqCst);
        Ok(())
    }
}

/// A stack over a store that is slow for the first reader.
fn slow_once(tiers: Tiers, is_closed: Arc<AtomicBool>, used_late: Arc<AtomicBool>) -> Harness {
    Harness::with(tiers, |builder| {
        let is_used = AtomicBool::new(false);
        builder.store(SlowOnce { store: MemoryDriver::default(), is_used, is_closed, used_late })
    })
}

#[tokio::test(start_paused = true)]
async fn closing_waits_for_loads_that_another_one_was_started_beside() {
    let (is_closed, used_late) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let harness = slow_once(Tiers::Both, Arc::clone(&is_closed), Arc::clone(&used_late));
    let numbers = cache::<u32>(&harness);
    let gate = Gate::default();
    let first = spawn_load(&numbers, &gate, 1);
    settle().await;
    assert_eq!(*numbers.get_or_set("a", || ok(2)).replace_after(millis(100)).await.unwrap(), 2);
    assert_eq!(*first.await.unwrap().unwrap(), 2);
    harness.stack.close().await.unwrap();
    tokio::time::sleep(seconds(5)).await;
    assert!(!used_late.load(Ordering::SeqCst), "the store is used after it was closed");
    assert_eq!(gate.runs(), 0, "no loader begins after the end");
    harness.finish(2).await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_load_gets_another_beside_it_though_its_key_was_changed() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        let stuck = Gate::default();
        let first = spawn_load(&numbers, &stuck, 1);
        settle().await;
        let second = {
            let numbers = numbers.clone();
            tokio::spawn(async move { numbers.get_or_set("a", || ok(2)).replace_after(seconds(2)).await })
        };
        tokio::time::sleep(seconds(1)).await;
        numbers.delete("a").await.unwrap();
        tokio::time::sleep(seconds(2)).await;
        settle().await;
        assert!(second.is_finished(), "{tiers:?}: it waits for what hangs");
        assert_eq!(*second.await.unwrap().unwrap(), 2);
        stuck.open.notify_one();
        first.await.unwrap().unwrap();
        assert_eq!(numbers.get("a").await.unwrap().as_deref(), Some(&2), "{tiers:?}");
        harness.finish(3).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_load_beside_a_slow_one_that_the_store_fails_does_not_end_the_wait() {
    let harness = Harness::with(Tiers::L2, |builder| builder.breaker(None));
    let numbers = cache::<u32>(&harness);
    let slow = Gate::default();
    let first = spawn_load(&numbers, &slow, 1);
    settle().await;
    harness.chaos.fail_next(Operation::GetMany, 1, ErrorKind::Unavailable);
    let second = {
        let numbers = numbers.clone();
        tokio::spawn(async move { numbers.get_or_set("a", || ok(2)).replace_after(seconds(1)).await })
    };
    tokio::time::sleep(seconds(2)).await;
    slow.open.notify_one();
    assert_eq!((*first.await.unwrap().unwrap(), *second.await.unwrap().unwrap()), (1, 1));
    harness.finish(2).await;
}

#[tokio::test]
async fn memory_goes_on_past_its_own_ttl_whoever_said_it() {
    let harness = Harness::with(Tiers::Both, |builder| builder.breaker(None));
    let numbers = cache::<u32>(&harness);
    numbers.get_or_set("a", || ok(1)).memory_ttl(seconds(5)).ttl(minutes(10)).await.unwrap();
    harness.clock.advance(seconds(30));
    harness.chaos.fail_everything(ErrorKind::Unavailable);
    assert_eq!(*numbers.get_or_set("a", || ok(9)).await.unwrap(), 1);
    assert_eq!(numbers.get("a").await.unwrap().as_deref(), Some(&1));
    assert_eq!(numbers.get_many(&["a"]).await.unwrap()[0].as_deref(), Some(&1));
    harness.finish(4).await;
}

#[tokio::test]
async fn what_is_fresh_and_could_not_be_loaded_anew_is_no_stale_hit() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        numbers.set("a", 1).await.unwrap();
        let runs = Arc::new(AtomicU64::new(0));
        assert_eq!(*numbers.get_or_set("a", failing(&runs)).force().await.unwrap(), 1);
        assert_eq!(harness.stack.stats().hits_stale, 0, "{tiers:?}");
        harness.finish(1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_account_names_the_timeout_that_ended_the_wait() {
    let harness = Harness::new(Tiers::L1);
    let numbers = cache::<u32>(&harness);
    numbers.set("a", 1).ttl(seconds(1)).grace(hours(1)).await.unwrap();
    harness.clock.advance(seconds(2));
    let gate = Gate::default();
    let load = gate.clone();
    let (found, account) =
        explain(numbers.get_or_set("a", move || load.load(2)).hard_timeout(seconds(3))).await;
    assert_eq!(*found.unwrap(), 1);
    assert!(account.to_string().contains("because hard_timeout is over"), "{account}");
    gate.open.notify_one();
    harness.finish(1).await;
}

#[tokio::test]
async fn an_account_within_an_account_is_part_of_it() {
    let harness = Harness::new(Tiers::L1);
    let numbers = cache::<u32>(&harness);
    let (inner, outer) = explain(async { explain(numbers.get("a")).await.1 }).await;
    assert!(!inner.steps.is_empty());
    assert_eq!(inner.steps, outer.steps);
    harness.finish(1).await;
}
