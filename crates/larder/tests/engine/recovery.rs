//! A store that fails: the writes that are remembered until it is back.

use std::time::Duration;

use larder::testing::{Harness, Operation, Tiers};
use larder::time::seconds;
use larder::{Cache, ErrorKind, StackBuilder};

use crate::breaker::fragile;
use crate::flow::{cache, ok};

/// A stack with both tiers and no breaker, so that every call asks the store.
fn without_breaker() -> Harness {
    Harness::with(Tiers::Both, |builder| builder.breaker(None))
}

/// Another process on the same store and clock.
fn peer(harness: &Harness) -> Harness {
    Harness::over(Tiers::L2, harness.clock.clone(), harness.store.clone(), |builder| builder)
}

/// Lets the next try come, and waits until it has ended.
async fn next_try(harness: &Harness) {
    let interval = larder::RecoveryOptions::default().interval;
    harness.clock.advance(interval);
    // Paused time goes on when nothing else is left to do.
    tokio::time::sleep(interval + Duration::from_millis(1)).await;
}

fn fates(harness: &Harness) -> Vec<String> {
    harness
        .recorder
        .lines()
        .into_iter()
        .filter_map(|line| Some(line.strip_prefix("retry ")?.to_owned()))
        .collect()
}

fn balance(harness: &Harness) {
    let stats = harness.stack.stats();
    let ended = stats.retries_landed + stats.retries_yielded + stats.retries_dropped;
    assert_eq!(stats.retries_remembered, ended + harness.stack.pending_writes() as u64);
}

#[tokio::test(start_paused = true)]
async fn writes_of_an_outage_land_after_it_in_order() {
    let harness = without_breaker();
    let (numbers, other) = (cache::<u32>(&harness), peer(&harness));
    let theirs = cache::<u32>(&other);
    numbers.set("gone", 0).await.unwrap();
    harness.chaos.fail_everything(ErrorKind::Unavailable);
    let kind = |error: larder::Error| error.kind();
    assert_eq!(numbers.set("a", 1).await.map_err(kind), Err(ErrorKind::Unavailable), "not acknowledged");
    assert!(numbers.set_many([("b", 2), ("c", 3)]).await.is_err());
    assert!(numbers.set("a", 4).await.is_err());
    assert!(numbers.delete("gone").await.is_err());
    assert_eq!(*numbers.get_or_set("loaded", || ok(5)).await.unwrap(), 5);
    assert_eq!(harness.stack.pending_writes(), 5);
    assert_eq!(*numbers.get("a").await.unwrap().unwrap(), 4);
    assert_eq!(numbers.get("gone").await.unwrap(), None);
    next_try(&harness).await;
    assert_eq!(harness.stack.pending_writes(), 5, "the store is still down");
    assert_eq!(*theirs.get("gone").await.unwrap().unwrap(), 0);
    harness.chaos.heal();
    next_try(&harness).await;
    assert_eq!(harness.stack.pending_writes(), 0);
    for (key, value) in [("a", Some(4)), ("b", Some(2)), ("c", Some(3)), ("gone", None), ("loaded", Some(5))]
    {
        assert_eq!(theirs.get(key).await.unwrap().as_deref().copied(), value, "{key}");
    }
    let remembered = ["a", "b", "c", "a"].map(|key| format!("{key} remembered"));
    let then = ["a yielded", "gone remembered", "loaded remembered"].map(str::to_owned);
    let landed = ["b", "c", "a", "gone", "loaded"].map(|key| format!("{key} landed"));
    assert_eq!(fates(&harness), [&remembered[..], &then, &landed].concat());
    balance(&harness);
    harness.finish(3).await;
    other.finish(6).await;
}

#[tokio::test(start_paused = true)]
async fn a_remembered_write_yields_to_a_newer_one_of_another_process() {
    let harness = without_breaker();
    let (numbers, other) = (cache::<u32>(&harness), peer(&harness));
    let theirs = cache::<u32>(&other);
    harness.chaos.fail_everything(ErrorKind::Unavailable);
    for key in ["set", "deleted"] {
        assert!(numbers.set(key, 1).await.is_err());
        assert_eq!(*numbers.get(key).await.unwrap().unwrap(), 1);
    }
    harness.clock.advance(seconds(1));
    theirs.set("set", 2).await.unwrap();
    theirs.delete("deleted").await.unwrap();
    harness.chaos.heal();
    next_try(&harness).await;
    assert_eq!(fates(&harness)[2..], ["set yielded", "deleted yielded"]);
    for numbers in [&theirs, &numbers] {
        // In this process too: what was remembered has left memory.
        assert_eq!(*numbers.get("set").await.unwrap().unwrap(), 2);
        assert_eq!(numbers.get("deleted").await.unwrap(), None);
    }
    balance(&harness);
    harness.finish(4).await;
}

#[tokio::test(start_paused = true)]
async fn a_remembered_delete_hides_what_the_store_still_has() {
    let harness = without_breaker();
    let numbers = cache::<u32>(&harness);
    numbers.set("a", 1).await.unwrap();
    for operation in [Operation::Set, Operation::SetMany] {
        harness.chaos.fail_all(operation, ErrorKind::Unavailable);
    }
    assert!(numbers.delete("a").await.is_err());
    // The store answers reads, with the old value.
    assert_eq!(numbers.get("a").await.unwrap(), None);
    assert!(!numbers.has("a").await.unwrap());
    assert!(numbers.entry("a").await.unwrap().is_none());
    assert_eq!(numbers.get_many(&["a"]).await.unwrap(), [None]);
    assert_eq!(*numbers.get_or_set("a", || ok(2)).await.unwrap(), 2, "loaded, not found");
    harness.chaos.heal();
    // A rewrite heeds it as well, and ends it.
    assert!(numbers.delete("a").await.unwrap());
    assert_eq!(harness.stack.pending_writes(), 0);
    assert_eq!(fates(&harness), ["a remembered", "a remembered", "a yielded", "a yielded"]);
    balance(&harness);
    harness.finish(3).await;
}

#[tokio::test(start_paused = true)]
async fn a_remembered_set_is_found_though_memory_has_lost_it() {
    let harness = Harness::with(Tiers::Both, |builder| {
        builder.breaker(None).memory(larder::memory::MemoryOptions::new(1))
    });
    let numbers = cache::<u32>(&harness);
    numbers.set("a", 1).await.unwrap();
    harness.chaos.fail_all(Operation::Set, ErrorKind::Unavailable);
    assert!(numbers.set("a", 2).await.is_err());
    assert!(numbers.set("other", 3).await.is_err());
    assert_eq!(*numbers.get("a").await.unwrap().unwrap(), 2, "not the store's");
    harness.chaos.fail_everything(ErrorKind::Unavailable);
    assert_eq!(*numbers.get("other").await.unwrap().unwrap(), 3, "not a miss");
    assert_eq!(*numbers.get("a").await.unwrap().unwrap(), 2);
    harness.chaos.heal();
    assert!(!numbers.add("a", 9).await.unwrap(), "it is there");
    assert!(numbers.touch("a", seconds(90)).await.unwrap());
    assert_eq!(fates(&harness)[2..], ["a yielded"], "rewritten from what was remembered");
    next_try(&harness).await;
    assert_eq!(*cache::<u32>(&peer(&harness)).get("a").await.unwrap().unwrap(), 2);
    balance(&harness);
    harness.finish(3).await;
}

#[tokio::test(start_paused = true)]
async fn invalidations_of_an_outage_reach_other_processes_after_it() {
    for soft in [false, true] {
        let harness = without_breaker();
        let (numbers, other) = (cache::<u32>(&harness), peer(&harness));
        let theirs = cache::<u32>(&other);
        let inner = theirs.namespace("inner").unwrap();
        for numbers in [&theirs, &inner] {
            numbers.set("tagged", 1).tags(["t"]).grace(seconds(60)).await.unwrap();
            numbers.set("plain", 1).grace(seconds(60)).await.unwrap();
        }
        harness.clock.advance(seconds(1));
        harness.chaos.fail_everything(ErrorKind::Unavailable);
        let ours = numbers.namespace("inner").unwrap();
        if soft {
            assert!(numbers.invalidate(["t"]).soft().await.is_err());
            assert!(ours.clear().soft().await.is_err());
        } else {
            assert!(numbers.invalidate(["t"]).await.is_err());
            assert!(ours.clear().await.is_err());
        }
        harness.clock.advance(seconds(1));
        theirs.set("later", 1).tags(["t"]).await.unwrap();
        inner.set("later", 1).await.unwrap();
        harness.chaos.heal();
        next_try(&harness).await;
        assert_eq!(
            fates(&harness),
            ["tag t remembered", "clear inner remembered", "tag t landed", "clear inner landed"]
        );
        let standing = async |numbers: &Cache<u32>, key: &str| {
            numbers.entry(key).await.unwrap().map(|entry| entry.state)
        };
        let gone = soft.then_some(larder::entry::Freshness::Stale);
        let fresh = Some(larder::entry::Freshness::Fresh);
        assert_eq!(standing(&theirs, "tagged").await, gone, "soft: {soft}");
        assert_eq!(standing(&theirs, "plain").await, fresh);
        assert_eq!(standing(&inner, "plain").await, gone);
        assert_eq!(standing(&theirs, "later").await, fresh, "written after it");
        assert_eq!(standing(&inner, "later").await, fresh);
        balance(&harness);
        harness.finish(0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_remembered_hard_clear_survives_a_soft_one_that_came_after_it() {
    let harness = without_breaker();
    let (numbers, other) = (cache::<u32>(&harness), peer(&harness));
    let theirs = cache::<u32>(&other);
    theirs.set("a", 1).grace(seconds(60)).await.unwrap();
    harness.clock.advance(seconds(1));
    harness.chaos.fail_everything(ErrorKind::Unavailable);
    assert!(numbers.clear().await.is_err());
    harness.clock.advance(seconds(1));
    theirs.set("b", 1).grace(seconds(60)).await.unwrap();
    harness.clock.advance(seconds(1));
    theirs.clear().soft().await.unwrap();
    harness.clock.advance(seconds(1));
    theirs.set("c", 1).await.unwrap();
    harness.chaos.heal();
    next_try(&harness).await;
    assert!(theirs.entry("a").await.unwrap().is_none());
    assert_eq!(theirs.entry("b").await.unwrap().unwrap().state, larder::entry::Freshness::Stale);
    assert_eq!(theirs.entry("c").await.unwrap().unwrap().state, larder::entry::Freshness::Fresh);
    harness.finish(0).await;
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_and_says_what_it_drops() {
    let harness = Harness::with(Tiers::Both, |builder| {
        builder.breaker(None).recovery(larder::RecoveryOptions::default().max_writes(3))
    });
    let numbers = cache::<u32>(&harness);
    harness.chaos.fail_everything(ErrorKind::Unavailable);
    for key in ["1", "2", "3", "4"] {
        assert!(numbers.set(key, 7).await.is_err());
    }
    assert_eq!(*numbers.get_or_set("5", || ok(7)).await.unwrap(), 7);
    harness.chaos.heal();
    next_try(&harness).await;
    let fates = fates(&harness);
    assert_eq!(fates[3..7], ["4 remembered", "1 dropped Full", "5 remembered", "5 dropped Full"]);
    assert_eq!(fates[7..], ["2 landed", "3 landed", "4 landed"]);
    assert_eq!(harness.stack.stats().retries_dropped, 2);
    balance(&harness);
    harness.finish(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_value_whose_time_is_over_is_not_brought_back_and_what_it_replaced_goes() {
    let harness = Harness::with(Tiers::Both, |builder| builder.breaker(None).load_max(seconds(30)));
    let (numbers, other) = (cache::<u32>(&harness), peer(&harness));
    let theirs = cache::<u32>(&other);
    for key in ["short", "long"] {
        numbers.set(key, 1).await.unwrap();
    }
    harness.chaos.fail_everything(ErrorKind::Unavailable);
    assert!(numbers.set("short", 2).ttl(seconds(10)).await.is_err());
    assert!(numbers.set("long", 2).await.is_err());
    assert_eq!(*numbers.get_or_set("load", || ok(1)).await.unwrap(), 1);
    harness.clock.advance(seconds(31));
    harness.chaos.heal();
    next_try(&harness).await;
    let dropped = ["load dropped Late", "short dropped Late", "long dropped Late"];
    assert_eq!(fates(&harness)[3..], dropped);
    for numbers in [&theirs, &numbers] {
        assert_eq!(numbers.get("short").await.unwrap(), None);
        assert_eq!(numbers.get("long").await.unwrap(), None, "a newer delete may be forgotten by now");
    }
    balance(&harness);
    harness.finish(3).await;
}

#[tokio::test(start_paused = true)]
async fn the_probe_that_closes_the_breaker_brings_the_remembered_writes() {
    let harness = Harness::with(Tiers::Both, |builder| {
        fragile(builder).recovery(larder::RecoveryOptions::default().interval(seconds(3_600)))
    });
    let numbers = cache::<u32>(&harness);
    harness.chaos.fail_everything(ErrorKind::Unavailable);
    assert!(numbers.set("a", 1).await.is_err());
    assert!(numbers.set("b", 2).await.is_err());
    assert_eq!(harness.chaos.calls_total(), 1, "the second was refused, and is remembered all the same");
    harness.chaos.heal();
    harness.clock.advance(seconds(2));
    assert_eq!(numbers.get("c").await.unwrap(), None);
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    assert_eq!(harness.stack.pending_writes(), 0);
    assert_eq!(fates(&harness)[2..], ["a landed", "b landed"]);
    harness.finish(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_write_that_landed_though_its_answer_was_lost_is_not_written_over_anything() {
    let harness = without_breaker();
    let (numbers, other) = (cache::<u32>(&harness), peer(&harness));
    harness.chaos.fail_next_after_landing(Operation::Set, 1, ErrorKind::Timeout);
    assert!(numbers.set("a", 1).await.is_err());
    assert_eq!(*cache::<u32>(&other).get("a").await.unwrap().unwrap(), 1);
    next_try(&harness).await;
    assert_eq!(fates(&harness), ["a remembered", "a landed"]);
    assert_eq!(*numbers.get("a").await.unwrap().unwrap(), 1);
    harness.finish(1).await;
}

#[tokio::test(start_paused = true)]
async fn what_the_store_refuses_for_good_does_not_hold_up_the_others() {
    let harness = without_breaker();
    let numbers = cache::<u32>(&harness);
    harness.chaos.fail_everything(ErrorKind::Unavailable);
    for key in ["a", "b", "c"] {
        assert!(numbers.set(key, 1).await.is_err());
    }
    harness.chaos.heal();
    // The batch, and then the first of it alone.
    harness.chaos.fail_next(Operation::SetMany, 2, ErrorKind::TooLarge);
    next_try(&harness).await;
    assert_eq!(fates(&harness)[3..], ["a dropped Refused", "b landed", "c landed"]);
    balance(&harness);
    harness.finish(0).await;
}

#[tokio::test(start_paused = true)]
async fn closing_tries_once_more_and_reports_what_is_left() {
    let harness = Harness::with(Tiers::Both, fragile);
    let numbers = cache::<u32>(&harness);
    harness.chaos.fail_all(Operation::Set, ErrorKind::Unavailable);
    assert!(numbers.set("a", 1).await.is_err());
    harness.chaos.heal();
    // The breaker is open still, and does not keep the last try out.
    harness.stack.close().await.unwrap();
    assert_eq!(fates(&harness), ["a remembered", "a landed"]);
    harness.finish(0).await;

    for stalls in [false, true] {
        let harness = without_breaker();
        let numbers = cache::<u32>(&harness);
        harness.chaos.fail_all(Operation::Set, ErrorKind::Unavailable);
        assert!(numbers.set("a", 1).await.is_err());
        match stalls {
            true => harness.chaos.stall(Operation::SetMany),
            false => harness.chaos.fail_all(Operation::SetMany, ErrorKind::Unavailable),
        }
        harness.stack.close().await.unwrap();
        assert_eq!(fates(&harness), ["a remembered", "a dropped Closed"], "stalls: {stalls}");
        balance(&harness);
        harness.finish(0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stack_that_is_dropped_is_not_kept_by_what_it_remembers() {
    #[derive(Debug)]
    struct Witness {
        _alive: std::sync::Arc<()>,
    }
    impl larder::event::Observer for Witness {
        fn on_event(&self, _: &str, _: &larder::event::Event<'_>) {}
    }
    let alive = std::sync::Arc::new(());
    let witness = std::sync::Arc::new(Witness { _alive: std::sync::Arc::clone(&alive) });
    let harness = Harness::with(Tiers::Both, |builder| builder.observer(witness));
    harness.chaos.fail_everything(ErrorKind::Unavailable);
    assert!(cache::<u32>(&harness).set("a", 1).await.is_err());
    assert_eq!(harness.stack.pending_writes(), 1);
    tokio::task::yield_now().await;
    drop(harness);
    assert_eq!(std::sync::Arc::strong_count(&alive), 1);
}

#[tokio::test]
async fn a_stack_without_memory_remembers_nothing_unless_told() {
    let told = |builder: StackBuilder| builder.recovery(larder::RecoveryOptions::default());
    let untold = |builder: StackBuilder| builder.recovery(None);
    let count = async |harness: Harness| {
        harness.chaos.fail_everything(ErrorKind::Unavailable);
        assert!(cache::<u32>(&harness).set("a", 1).await.is_err());
        harness.stack.pending_writes()
    };
    assert_eq!(count(Harness::new(Tiers::L2)).await, 0);
    assert_eq!(count(Harness::with(Tiers::L2, told)).await, 1);
    assert_eq!(count(Harness::new(Tiers::Both)).await, 1);
    assert_eq!(count(Harness::with(Tiers::Both, untold)).await, 0);
}

#[tokio::test(start_paused = true)]
async fn an_expire_that_fails_holds_for_memory_and_for_loads_under_way() {
    let harness = without_breaker();
    let numbers = cache::<u32>(&harness);
    numbers.set("a", 1).grace(seconds(60)).await.unwrap();
    harness.chaos.fail_everything(ErrorKind::Unavailable);
    assert!(numbers.expire("a").await.is_err());
    assert_eq!(numbers.get("a").await.unwrap(), None, "stale");
    let fail = || async { Err::<u32, _>(std::io::Error::other("down")) };
    assert_eq!(*numbers.get_or_set("a", fail).await.unwrap(), 1, "but there");
    let inner = numbers.clone();
    let slow = move || async move {
        assert!(inner.expire("b").await.is_err());
        Ok::<_, std::io::Error>(1)
    };
    assert_eq!(*numbers.get_or_set("b", slow).await.unwrap(), 1);
    assert_eq!(numbers.get("b").await.unwrap(), None, "not kept");
    harness.finish(4).await;
}

#[tokio::test(start_paused = true)]
async fn a_remembered_delete_is_not_listed() {
    use futures_util::TryStreamExt as _;
    let harness = without_breaker();
    let numbers = cache::<u32>(&harness);
    numbers.set_many([("a", 1), ("b", 2)]).await.unwrap();
    harness.chaos.fail_all(Operation::Set, ErrorKind::Unavailable);
    assert!(numbers.delete("a").await.is_err());
    assert_eq!(numbers.keys().try_collect::<Vec<_>>().await.unwrap(), ["b"]);
    harness.finish(0).await;
}

#[tokio::test(start_paused = true)]
async fn a_read_that_began_before_a_remembered_delete_landed_does_not_bring_the_value_back() {
    let harness = without_breaker();
    let numbers = cache::<u32>(&harness);
    numbers.set("a", 1).await.unwrap();
    harness.chaos.fail_all(Operation::Set, ErrorKind::Unavailable);
    assert!(numbers.delete("a").await.is_err());
    // The store reads the old value, and takes long to say so; meanwhile the delete lands.
    let full = larder::key::KeySpace::new("test").unwrap().full("a").unwrap();
    let old = larder::driver::Driver::get(&harness.store, &full).await.unwrap();
    harness.chaos.heal();
    harness.chaos.lie(full, old);
    harness.chaos.stall(Operation::GetMany);
    let reader = tokio::spawn({
        let numbers = numbers.clone();
        async move { numbers.get("a").await }
    });
    next_try(&harness).await;
    assert_eq!(harness.stack.pending_writes(), 0, "it landed");
    harness.chaos.release(Operation::GetMany);
    assert_eq!(reader.await.unwrap().unwrap(), None);
    harness.finish(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_load_that_the_store_did_not_take_is_not_remembered_past_a_change() {
    let harness = without_breaker();
    let numbers = cache::<u32>(&harness);
    harness.chaos.stall(Operation::SetMany);
    let loading = tokio::spawn({
        let numbers = numbers.clone();
        async move { numbers.get_or_set("a", || ok(1)).await }
    });
    while harness.chaos.calls(Operation::SetMany) == 0 {
        tokio::task::yield_now().await;
    }
    // While the load waits for the store, which takes this.
    numbers.set("a", 2).ttl(seconds(1)).await.unwrap();
    assert_eq!(*loading.await.unwrap().unwrap(), 1);
    assert_eq!(harness.stack.pending_writes(), 0);
    harness.clock.advance(seconds(2));
    harness.chaos.heal();
    next_try(&harness).await;
    assert_eq!(numbers.get("a").await.unwrap(), None, "2 has lived its life, and 1 was older");
    harness.finish(2).await;
}

#[tokio::test(start_paused = true)]
async fn a_rewrite_elsewhere_does_not_carry_a_value_past_a_remembered_clear() {
    let harness = without_breaker();
    let (numbers, other) = (cache::<u32>(&harness), peer(&harness));
    let theirs = cache::<u32>(&other);
    numbers.set("a", 1).grace(seconds(900)).await.unwrap();
    harness.clock.advance(seconds(1));
    harness.chaos.fail_everything(ErrorKind::Unavailable);
    assert!(numbers.clear().await.is_err());
    harness.clock.advance(seconds(1));
    assert!(theirs.touch("a", seconds(900)).await.unwrap(), "they have not heard of it");
    harness.chaos.heal();
    next_try(&harness).await;
    // Its stamp is newer than the clear, and its birth is not. Nor does its grace count.
    assert!(theirs.entry("a").await.unwrap().is_none());
    harness.finish(0).await;
}
