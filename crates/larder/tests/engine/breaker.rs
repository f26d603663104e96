//! A store that fails again and again: the breaker.

use std::time::Duration;

use larder::testing::{Harness, Operation, Tiers};
use larder::time::seconds;
use larder::{BreakerOptions, Cache, ErrorKind, StackBuilder};

use crate::flow::{cache, ok};

/// A stack with a store whose breaker opens at the first failure, for two seconds.
pub(crate) fn fragile(builder: StackBuilder) -> StackBuilder {
    builder.breaker(BreakerOptions::default().failures(1).pause(seconds(2)))
}

async fn is_refused(numbers: &Cache<u32>, left: &str) {
    let error = numbers.get("a").await.unwrap_err();
    assert_eq!(error.to_string(), format!("unavailable: the store's breaker is open for another {left}"));
}

#[tokio::test]
async fn an_open_breaker_spares_the_store_until_a_probe_after_the_pause() {
    let harness = Harness::with(Tiers::L2, fragile);
    let numbers = cache::<u32>(&harness);
    numbers.set("a", 1).await.unwrap();
    harness.chaos.reset_calls();
    harness.chaos.fail_everything(ErrorKind::Unavailable);
    for _ in 0..3 {
        assert_eq!(numbers.get("a").await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    assert_eq!(harness.chaos.calls_total(), 1, "three lookups, one call");
    harness.clock.advance(Duration::from_millis(500));
    is_refused(&numbers, "2s").await;
    harness.clock.advance(Duration::from_millis(1_499));
    is_refused(&numbers, "1ms").await;
    harness.clock.advance(Duration::from_millis(1));
    assert!(numbers.get("a").await.is_err());
    assert_eq!(harness.chaos.calls_total(), 2, "one probe");
    is_refused(&numbers, "4s").await;
    harness.chaos.heal();
    is_refused(&numbers, "4s").await;
    harness.clock.advance(seconds(4));
    assert_eq!(numbers.get("a").await.unwrap().as_deref(), Some(&1));
    assert_eq!(harness.chaos.calls_total(), 3);
    let turns: Vec<_> =
        harness.recorder.lines().into_iter().filter(|line| line.starts_with("breaker")).collect();
    let refused = "breaker refused get";
    let expected =
        ["breaker opened 2s", refused, refused, refused, refused, "breaker opened 4s", refused, refused];
    assert_eq!(turns[..8], expected);
    assert_eq!(turns[8..], ["breaker closed"]);
    let stats = harness.stack.stats();
    assert_eq!((stats.l2_failures, stats.l2_refusals), (2, 6));
    assert_eq!((stats.breaker_opens, stats.breaker_closes), (2, 1));
    harness.finish(9).await;
}

#[tokio::test]
async fn without_a_breaker_every_call_asks_the_store() {
    let harness = Harness::with(Tiers::L2, |builder| builder.breaker(None));
    let numbers = cache::<u32>(&harness);
    harness.chaos.fail_everything(ErrorKind::Unavailable);
    for _ in 0..30 {
        assert!(numbers.get("a").await.is_err());
    }
    assert_eq!(harness.chaos.calls_total(), 30);
    harness.finish(30).await;
}

#[tokio::test]
async fn a_wall_clock_that_jumps_neither_opens_nor_closes_a_breaker() {
    let harness = Harness::with(Tiers::L2, fragile);
    let numbers = cache::<u32>(&harness);
    let start = larder::time::Clock::now(&harness.clock);
    harness.chaos.fail_next(Operation::GetMany, 1, ErrorKind::Timeout);
    assert!(numbers.get("a").await.is_err());
    harness.clock.set(start + larder::time::hours(1));
    is_refused(&numbers, "2s").await;
    harness.clock.set(larder::time::Timestamp::from_millis(start.as_millis() - 3_600_000));
    harness.clock.advance(seconds(2));
    assert_eq!(numbers.get("a").await.unwrap(), None);
    harness.finish(3).await;
}

#[tokio::test]
async fn a_thousand_callers_make_one_probe() {
    let harness = Harness::with(Tiers::L2, fragile);
    let numbers = cache::<u32>(&harness);
    harness.chaos.fail_next(Operation::GetMany, 1, ErrorKind::Unavailable);
    assert!(numbers.get("a").await.is_err());
    harness.clock.advance(seconds(2));
    harness.chaos.reset_calls();
    harness.chaos.stall(Operation::GetMany);
    let callers: Vec<_> = (0..1_000)
        .map(|_| {
            let numbers = numbers.clone();
            tokio::spawn(async move { numbers.get("a").await })
        })
        .collect();
    for _ in 0..10_000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(harness.stack.stats().l2_refusals, 999);
    assert_eq!(harness.chaos.calls_total(), 1);
    harness.chaos.release(Operation::GetMany);
    let mut answered = 0;
    for caller in callers {
        answered += u32::from(caller.await.unwrap().is_ok());
    }
    assert_eq!(answered, 1);
    assert_eq!(numbers.get("a").await.unwrap(), None);
    harness.finish(1_002).await;
}

#[tokio::test]
async fn a_probe_that_its_caller_gives_up_does_not_keep_the_others_out() {
    let harness = Harness::with(Tiers::L2, fragile);
    let numbers = cache::<u32>(&harness);
    harness.chaos.fail_next(Operation::GetMany, 1, ErrorKind::Unavailable);
    assert!(numbers.get("a").await.is_err());
    harness.clock.advance(seconds(2));
    harness.chaos.stall(Operation::GetMany);
    let given_up = tokio::time::timeout(Duration::from_millis(1), numbers.has("a")).await;
    assert!(given_up.is_err());
    harness.chaos.heal();
    assert_eq!(numbers.get("a").await.unwrap(), None);
    harness.finish(2).await;
}

#[tokio::test]
async fn the_namespaces_of_a_stack_share_its_breaker() {
    let harness = Harness::with(Tiers::L2, fragile);
    let numbers = cache::<u32>(&harness);
    harness.chaos.fail_everything(ErrorKind::Unavailable);
    assert!(numbers.namespace("one").unwrap().get("a").await.is_err());
    assert!(numbers.namespace("two").unwrap().get("a").await.is_err());
    assert!(numbers.get("a").await.is_err());
    assert_eq!(harness.chaos.calls_total(), 1);
    harness.finish(3).await;
}

#[tokio::test]
async fn errors_that_do_not_pass_do_not_open_the_breaker() {
    let harness = Harness::with(Tiers::L2, fragile);
    let numbers = cache::<u32>(&harness);
    harness.chaos.fail_everything(ErrorKind::Config);
    for _ in 0..10 {
        assert_eq!(numbers.get("a").await.unwrap_err().kind(), ErrorKind::Config);
    }
    harness.chaos.heal();
    // Nor do writes that lose against something newer.
    numbers.set("a", 1).await.unwrap();
    let inner = numbers.clone();
    let slow = move || async move {
        inner.set("b", 2).await?;
        Ok::<_, larder::Error>(1)
    };
    assert_eq!(*numbers.get_or_set("b", slow).await.unwrap(), 1);
    assert_eq!(harness.stack.stats().breaker_opens, 0);
    assert_eq!(*numbers.get("b").await.unwrap().unwrap(), 2);
    harness.finish(12).await;
}

#[tokio::test]
async fn an_open_breaker_never_turns_an_explicit_write_into_silent_success() {
    for tiers in [Tiers::L2, Tiers::Both] {
        let harness = Harness::with(tiers, fragile);
        let numbers = cache::<u32>(&harness);
        numbers.set("a", 1).await.unwrap();
        harness.chaos.fail_everything(ErrorKind::Unavailable);
        let _ = numbers.get("other").await;
        assert_eq!(harness.stack.stats().breaker_opens, 1);
        let kind = |error: larder::Error| error.kind();
        assert_eq!(numbers.set("a", 2).await.map_err(kind), Err(ErrorKind::Unavailable));
        assert_eq!(numbers.set_many([("a", 2)]).await.map_err(kind), Err(ErrorKind::Unavailable));
        assert_eq!(numbers.delete("a").await.map_err(kind), Err(ErrorKind::Unavailable));
        assert_eq!(numbers.delete_many(&["a"]).await.map_err(kind), Err(ErrorKind::Unavailable));
        assert_eq!(numbers.expire("a").await.map_err(kind), Err(ErrorKind::Unavailable));
        assert_eq!(numbers.touch("a", seconds(9)).await.map_err(kind), Err(ErrorKind::Unavailable));
        assert_eq!(numbers.add("a", 1).await.map_err(kind), Err(ErrorKind::Unavailable));
        assert_eq!(numbers.invalidate(["t"]).await.map_err(kind), Err(ErrorKind::Unavailable));
        assert_eq!(numbers.clear().await.map_err(kind), Err(ErrorKind::Unavailable));
        harness.finish(1).await;
    }
}

#[tokio::test]
async fn lookups_and_loads_go_on_while_the_breaker_is_open() {
    let harness = Harness::with(Tiers::Both, fragile);
    let numbers = cache::<u32>(&harness);
    harness.chaos.fail_everything(ErrorKind::Unavailable);
    assert_eq!(numbers.get("a").await.unwrap(), None);
    assert_eq!(*numbers.get_or_set("a", || ok(7)).await.unwrap(), 7);
    assert_eq!(*numbers.get_or_set("a", || ok(8)).await.unwrap(), 7);
    assert_eq!(harness.chaos.calls_total(), 1);
    harness.finish(3).await;
}

#[tokio::test]
async fn a_breaker_that_makes_no_sense_is_refused() {
    let build = |options| larder::Stack::builder("s").memory(Default::default()).breaker(options).build();
    let error = build(BreakerOptions::default().failures(0)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(build(BreakerOptions::default().pause(seconds(60))).is_err());
}
