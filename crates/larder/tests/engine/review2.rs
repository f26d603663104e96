//! What a second look at the ways in which freshness ends found: offers that outlive what they are, loads beside loads,
//! slides that win where they should not, and keys that are looked after for too long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use larder::driver::memory::MemoryDriver;
use larder::driver::{Capabilities, Driver, When, Written};
use larder::entry::Freshness;
use larder::memory::MemoryOptions;
use larder::testing::{Harness, Operation, Tiers};
use larder::time::{Ttl, hours, minutes, seconds};
use larder::{EntryOptions, ErrorKind, Loaded, Previous, Refresh, explain};

use crate::flow::{cache, ok};
use crate::loads::{Gate, spawn_load};
use crate::resilience::{count, failing, settle};

const WITH_STORE: [Tiers; 2] = [Tiers::L2, Tiers::Both];

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Lets time pass for the stack and for tokio's timers, second by second.
async fn pass(harness: &Harness, time: Duration) {
    for _ in 0..time.as_secs() {
        harness.clock.advance(seconds(1));
        tokio::time::advance(seconds(1)).await;
        settle().await;
    }
}

/// A loader that counts how often it was run, and returns the count.
fn counting(
    runs: &Arc<AtomicU64>,
) -> impl FnOnce() -> std::future::Ready<Result<u32, std::io::Error>> + Clone + Send + 'static {
    let runs = Arc::clone(runs);
    move || std::future::ready(Ok(u32::try_from(runs.fetch_add(1, Ordering::Relaxed) + 1).unwrap()))
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
async fn a_call_that_slides_nothing_slides_nothing() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let options = EntryOptions::default().ttl(hours(1)).refresh(Refresh::Sliding { idle: seconds(60) });
        let numbers = cache::<u32>(&harness).with_options(options);
        numbers.set("a", 1).await.unwrap();
        harness.clock.advance(seconds(50));
        assert_eq!(*numbers.get_or_set("a", || ok(2)).refresh(Refresh::OnDemand).await.unwrap(), 1);
        settle().await;
        harness.clock.advance(seconds(30));
        assert_eq!(numbers.get("a").await.unwrap(), None, "{tiers:?}");
        harness.finish(2).await;
    }
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
async fn an_account_within_an_account_is_part_of_it() {
    let harness = Harness::new(Tiers::L1);
    let numbers = cache::<u32>(&harness);
    let (inner, outer) = explain(async { explain(numbers.get("a")).await.1 }).await;
    assert!(!inner.steps.is_empty());
    assert_eq!(inner.steps, outer.steps);
    harness.finish(1).await;
}
