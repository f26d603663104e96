//! Cases that other caches check and that nothing else here does: see `docs/cases.md`.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder::driver::Driver as _;
use larder::key::KeySpace;
use larder::testing::{Harness, Operation, Tiers};
use larder::time::{Ttl, hours, seconds};
use larder::{EntryOptions, ErrorKind, Loaded, Previous, Refresh, Suppress};

use crate::flow::{cache, ok};
use crate::loads::{Gate, spawn_load};

/// A stack with a stale 1 under `a`, with an hour of grace.
async fn with_stale(tiers: Tiers) -> Harness {
    let harness = Harness::new(tiers);
    cache::<u32>(&harness).set("a", 1).ttl(seconds(1)).grace(hours(1)).await.unwrap();
    harness.clock.advance(seconds(2));
    harness
}

/// Another process on the same store, without memory.
fn peer(harness: &Harness) -> Harness {
    Harness::over(Tiers::L2, harness.clock.clone(), harness.store.clone(), |builder| builder)
}

async fn down() -> Result<u32, std::io::Error> {
    Err(std::io::Error::other("the source is down"))
}

/// Lets what runs in the background do so.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_is_loaded_is_in_every_tier_with_the_ttl_of_the_call() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        assert_eq!(*numbers.get_or_set("a", || ok(1)).ttl(seconds(5)).await.unwrap(), 1);
        assert_eq!(*numbers.get_or_set("a", || ok(2)).ttl(hours(1)).await.unwrap(), 1, "it is there");
        if tiers.has_store() {
            let stored = cache::<u32>(&peer(&harness)).entry("a").await.unwrap().unwrap();
            assert_eq!((*stored.value, stored.ttl_left), (1, Some(seconds(5))), "{tiers:?}");
        }
        if tiers != Tiers::L2 {
            harness.chaos.fail_everything(ErrorKind::Unavailable);
            let held = numbers.entry("a").await.unwrap().unwrap();
            assert_eq!((*held.value, held.ttl_left), (1, Some(seconds(5))), "{tiers:?}");
            harness.chaos.heal();
        }
        harness.clock.advance(seconds(5));
        assert_eq!(*numbers.get_or_set("a", || ok(3)).await.unwrap(), 3);
        harness.finish(3).await;
    }
}

#[tokio::test]
async fn what_is_loaded_forever_is_not_loaded_again() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        assert_eq!(*numbers.get_or_set("a", || ok(1)).ttl(Ttl::Forever).await.unwrap(), 1);
        harness.clock.advance(hours(24 * 365 * 100));
        assert_eq!(*numbers.get_or_set("a", || ok(2)).await.unwrap(), 1);
        harness.finish(2).await;
    }
}

#[tokio::test]
async fn has_is_true_of_what_is_fresh_and_of_nothing_else() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        assert!(!numbers.has("a").await.unwrap());
        numbers.set("a", 1).ttl(seconds(5)).grace(hours(1)).await.unwrap();
        assert!(numbers.has("a").await.unwrap());
        harness.clock.advance(seconds(5));
        assert!(!numbers.has("a").await.unwrap(), "{tiers:?}: stale");
        numbers.set("a", 1).await.unwrap();
        numbers.delete("a").await.unwrap();
        assert!(!numbers.has("a").await.unwrap());
        assert!(harness.recorder.lines().iter().all(|line| !line.starts_with("hit")), "it is no lookup");
        harness.finish(0).await;
    }
}

#[tokio::test]
async fn without_a_grace_there_is_nothing_stale_to_be_read() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        assert_eq!(numbers.get_stale("a").await.unwrap(), None);
        numbers.set("a", 1).ttl(seconds(1)).await.unwrap();
        assert_eq!(*numbers.get_stale("a").await.unwrap().unwrap(), 1, "a fresh one will do");
        harness.clock.advance(seconds(1));
        assert_eq!(numbers.get_stale("a").await.unwrap(), None, "{tiers:?}");
        harness.finish(3).await;
    }
}

#[tokio::test]
async fn memory_keeps_the_value_itself_and_the_store_what_the_codec_makes_of_it() {
    #[derive(Debug, serde::Serialize, serde::Deserialize)]
    struct Half {
        stored: u32,
        #[serde(skip)]
        held: u32,
    }
    let harness = Harness::new(Tiers::Both);
    let halves = cache::<Half>(&harness);
    halves.set("a", Half { stored: 1, held: 2 }).await.unwrap();
    let (first, again) = (halves.get("a").await.unwrap().unwrap(), halves.get("a").await.unwrap().unwrap());
    assert_eq!((first.stored, first.held), (1, 2));
    assert!(Arc::ptr_eq(&first, &again), "it is handed out, not copied");
    let other = peer(&harness);
    let decoded = cache::<Half>(&other).get("a").await.unwrap().unwrap();
    assert_eq!((decoded.stored, decoded.held), (1, 0));
    harness.finish(2).await;
}

#[tokio::test]
async fn the_store_keeps_an_entry_for_its_ttl_and_its_grace() {
    let is_kept = async |ttl: Ttl, grace: Duration, after: Duration| {
        let harness = Harness::new(Tiers::L2);
        let load = move |_: Option<Previous<u32>>| ok(Loaded::new(1).ttl(ttl));
        // What the loader says counts, not what the call said.
        cache::<u32>(&harness).get_or_set_with("a", load).ttl(hours(9)).grace(grace).await.unwrap();
        harness.clock.advance(after);
        harness.store.prune().await.unwrap();
        let full = KeySpace::new("test").unwrap().full("a").unwrap();
        harness.store.get(&full).await.unwrap().is_some()
    };
    let ten = Ttl::For(seconds(10));
    for (ttl, grace, after, kept) in [
        (ten, seconds(0), seconds(9), true),
        (ten, seconds(0), seconds(11), false),
        (ten, seconds(1), seconds(9), true),
        (ten, seconds(60), seconds(69), true),
        (ten, seconds(60), seconds(71), false),
        (Ttl::Forever, seconds(1), hours(24 * 365), true),
    ] {
        assert_eq!(is_kept(ttl, grace, after).await, kept, "{ttl:?} and {grace:?} after {after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_load_that_ends_within_the_soft_timeout_is_waited_for() {
    for tiers in Tiers::ALL {
        let harness = with_stale(tiers).await;
        let numbers = cache::<u32>(&harness);
        let slow = || async {
            tokio::time::sleep(seconds(1)).await;
            Ok::<_, std::io::Error>(2)
        };
        let found = numbers.get_or_set("a", slow).soft_timeout(seconds(3)).await;
        assert_eq!(*found.unwrap(), 2, "{tiers:?}");
        harness.finish(1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn each_caller_of_one_load_waits_as_long_as_it_is_willing_to() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        let gate = Gate::default();
        let patient = spawn_load(&numbers, &gate, 1);
        gate.started.notified().await;
        for patience in [seconds(0), seconds(2)] {
            let hasty = numbers.get_or_set("a", || ok(9)).hard_timeout(patience);
            assert_eq!(hasty.await.unwrap_err().kind(), ErrorKind::Timeout, "{tiers:?} {patience:?}");
        }
        gate.open.notify_one();
        assert_eq!((*patient.await.unwrap().unwrap(), gate.runs()), (1, 1));
        harness.finish(3).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_value_that_only_the_store_has_serves_a_slow_load() {
    let here = Harness::new(Tiers::Both);
    let there = peer(&here);
    cache::<u32>(&there).set("a", 1).ttl(seconds(1)).grace(hours(1)).await.unwrap();
    here.clock.advance(seconds(2));
    let numbers = cache::<u32>(&here);
    let gate = Gate::default();
    let slow = gate.clone();
    let found = numbers.get_or_set("a", move || slow.load(2)).soft_timeout(seconds(3)).await;
    assert_eq!(*found.unwrap(), 1);
    gate.open.notify_one();
    settle().await;
    assert_eq!(*numbers.get("a").await.unwrap().unwrap(), 2);
    here.finish(2).await;
}

#[tokio::test]
async fn of_two_stale_values_the_newer_stands_in_for_a_failed_load() {
    let here = with_stale(Tiers::Both).await;
    let there = peer(&here);
    cache::<u32>(&there).set("a", 2).ttl(seconds(1)).grace(hours(1)).await.unwrap();
    here.clock.advance(seconds(2));
    assert_eq!(*cache::<u32>(&here).get_or_set("a", down).await.unwrap(), 2, "the store's");
    here.finish(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_hundred_callers_that_come_one_after_the_other_make_one_load() {
    for tiers in Tiers::ALL {
        let harness = with_stale(tiers).await;
        let numbers = cache::<u32>(&harness);
        let gate = Gate::default();
        let mut callers = Vec::new();
        // They come in three seconds, and wait for one.
        for _ in 0..100 {
            let (numbers, slow) = (numbers.clone(), gate.clone());
            callers.push(tokio::spawn(async move {
                numbers.get_or_set("a", move || slow.load(2)).soft_timeout(seconds(1)).await
            }));
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        for caller in callers {
            assert_eq!(*caller.await.unwrap().unwrap(), 1);
        }
        gate.open.notify_one();
        settle().await;
        assert_eq!((*numbers.get("a").await.unwrap().unwrap(), gate.runs()), (2, 1), "{tiers:?}");
        harness.finish(101).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_lands_after_a_timeout_is_in_both_tiers() {
    for soft in [true, false] {
        let harness = if soft { with_stale(Tiers::Both).await } else { Harness::new(Tiers::Both) };
        let numbers = cache::<u32>(&harness);
        let gate = Gate::default();
        let slow = gate.clone();
        let request = numbers.get_or_set("a", move || slow.load(2));
        let request = if soft { request.soft_timeout(seconds(1)) } else { request.hard_timeout(seconds(1)) };
        assert_eq!(request.await.is_ok(), soft);
        gate.open.notify_one();
        settle().await;
        assert_eq!(*cache::<u32>(&peer(&harness)).get("a").await.unwrap().unwrap(), 2, "in the store");
        harness.chaos.fail_everything(ErrorKind::Unavailable);
        assert_eq!(*numbers.get("a").await.unwrap().unwrap(), 2, "in memory");
        harness.finish(2).await;
    }
}

#[tokio::test]
async fn a_load_in_the_background_is_given_what_was_there() {
    for stale in [true, false] {
        let harness = with_stale(Tiers::Both).await;
        let numbers = cache::<u32>(&harness);
        if !stale {
            numbers.set("a", 1).ttl(seconds(10)).await.unwrap();
            harness.clock.advance(seconds(6));
        }
        let seen = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&seen);
        let load = move |previous: Option<Previous<u32>>| {
            notes.lock().unwrap().push(previous.map(|previous| *previous.value));
            ok(Loaded::new(2))
        };
        let request = numbers.get_or_set_with("a", load).refresh(Refresh::Early { share: 0.5 });
        assert_eq!(*request.soft_timeout(seconds(0)).await.unwrap(), 1);
        settle().await;
        assert_eq!(*seen.lock().unwrap(), [Some(1)], "stale: {stale}");
        assert_eq!(*numbers.get("a").await.unwrap().unwrap(), 2);
        harness.finish(2).await;
    }
}

#[tokio::test]
async fn a_failure_in_the_background_is_told_to_observers_and_frees_the_key() {
    for tiers in Tiers::ALL {
        let harness = with_stale(tiers).await;
        let numbers = cache::<u32>(&harness);
        assert_eq!(*numbers.get_or_set("a", down).soft_timeout(seconds(0)).await.unwrap(), 1);
        settle().await;
        let failures = |line: &&String| *line == "load failed a";
        assert_eq!(harness.recorder.lines().iter().filter(failures).count(), 1, "{tiers:?}");
        harness.clock.advance(seconds(10));
        assert_eq!(*numbers.get_or_set("a", || ok(2)).await.unwrap(), 2);
        harness.finish(2).await;
    }
}

#[tokio::test]
async fn whether_failures_of_the_store_are_suppressed_is_said_or_follows_from_the_tiers() {
    for tiers in [Tiers::L2, Tiers::Both] {
        for said in [None, Some(true), Some(false)] {
            let mut options = EntryOptions::default();
            options.suppress_l2_errors = said;
            let harness = Harness::with(tiers, |builder| builder.options(options).breaker(None));
            let numbers = cache::<u32>(&harness);
            harness.chaos.fail_everything(ErrorKind::Unavailable);
            let suppressed = said.unwrap_or(tiers == Tiers::Both);
            assert_eq!(numbers.get("a").await.is_ok(), suppressed, "{tiers:?} {said:?}");
            assert_eq!(numbers.get_or_set("a", || ok(1)).await.is_ok(), suppressed, "{tiers:?} {said:?}");
            for (call, expected) in [(Suppress::Yes, true), (Suppress::No, false)] {
                let request = numbers.get_or_set("b", || ok(1)).ttl(seconds(0)).suppress_l2_errors(call);
                assert_eq!(request.await.is_ok(), expected, "{tiers:?} {said:?} {call:?}");
            }
            harness.finish(4).await;
        }
    }
}

#[tokio::test]
async fn a_load_that_the_store_does_not_take_is_an_error_where_that_is_not_suppressed() {
    for tiers in [Tiers::L2, Tiers::Both] {
        let harness = Harness::with(tiers, |builder| builder.breaker(None));
        let numbers = cache::<u32>(&harness);
        harness.chaos.fail_all(Operation::SetMany, ErrorKind::Unavailable);
        let request = numbers.get_or_set("a", || ok(1)).suppress_l2_errors(Suppress::No);
        assert_eq!(request.await.unwrap_err().kind(), ErrorKind::Unavailable);
        assert!(!numbers.has("a").await.unwrap(), "{tiers:?}: no tier has what one of them refused");
        let request = numbers.get_or_set("a", || ok(2)).suppress_l2_errors(Suppress::Yes);
        assert_eq!(*request.await.unwrap(), 2);
        harness.finish(2).await;
    }
}

#[tokio::test]
async fn a_delete_of_many_that_the_store_did_not_take_holds_here() {
    let harness = Harness::new(Tiers::Both);
    let numbers = cache::<u32>(&harness);
    numbers.set_many([("a", 1), ("b", 2)]).await.unwrap();
    harness.chaos.fail_everything(ErrorKind::Unavailable);
    assert_eq!(numbers.delete_many(&["a", "b"]).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(numbers.get_many(&["a", "b"]).await.unwrap(), [None, None]);
    harness.chaos.heal();
    assert_eq!(numbers.get_many(&["a", "b"]).await.unwrap(), [None, None]);
    harness.finish(4).await;
}

#[tokio::test]
async fn a_fresh_value_that_is_expired_is_loaded_anew_and_stands_in_if_that_fails() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        numbers.set("a", 1).grace(hours(1)).await.unwrap();
        numbers.expire("a").await.unwrap();
        assert_eq!(*numbers.get_or_set("a", down).backoff(seconds(0)).await.unwrap(), 1, "{tiers:?}");
        assert_eq!(*numbers.get_or_set("a", || ok(2)).await.unwrap(), 2, "{tiers:?}");
        harness.finish(2).await;
    }
}

#[tokio::test]
async fn a_value_that_is_not_to_be_kept_leaves_the_stale_one_where_it_is() {
    for tiers in Tiers::ALL {
        let harness = with_stale(tiers).await;
        let numbers = cache::<u32>(&harness);
        let shown_once = |_: Option<Previous<u32>>| ok(Loaded::uncached(3));
        assert_eq!(*numbers.get_or_set_with("a", shown_once).await.unwrap(), 3);
        assert_eq!(numbers.get("a").await.unwrap(), None);
        assert_eq!(*numbers.get_stale("a").await.unwrap().unwrap(), 1, "{tiers:?}");
        harness.finish(3).await;
    }
}

#[tokio::test]
async fn a_mark_outlives_what_it_marks_and_is_no_lookup() {
    for by_tag in [true, false] {
        let harness = Harness::new(Tiers::Both);
        let numbers = cache::<u32>(&harness);
        numbers.set("a", 1).ttl(Ttl::Forever).tags(["t", "u"]).await.unwrap();
        match by_tag {
            true => numbers.invalidate(["t"]).await.unwrap(),
            false => {
                // The store keeps the entry.
                harness.chaos.fail_all(Operation::Clear, ErrorKind::Unavailable);
                numbers.clear().await.unwrap();
            }
        }
        harness.clock.advance(hours(24 * 365 * 100));
        harness.stack.prune().await.unwrap();
        let later = peer(&harness);
        assert_eq!(cache::<u32>(&later).get("a").await.unwrap(), None, "by tag: {by_tag}");
        assert_eq!(numbers.get("a").await.unwrap(), None);
        later.finish(1).await;
        harness.finish(1).await;
    }
}

#[tokio::test]
async fn every_change_is_told_once_with_its_namespace_and_key() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness).namespace("n").unwrap();
        let tier = if tiers.has_store() { "L2" } else { "L1" };
        let told = |expected: &[&str]| assert_eq!(harness.recorder.take(), expected, "{tiers:?}");
        numbers.set("a", 1).grace(hours(1)).await.unwrap();
        numbers.expire("a").await.unwrap();
        told(&["written n:a", "expired n:a"]);
        numbers.get_stale("a").await.unwrap();
        numbers.get("a").await.unwrap();
        told(&[&format!("hit {tier} n:a stale"), "miss n:a"]);
        numbers.get_or_set("a", down).await.unwrap();
        told(&["load failed n:a", &format!("hit {tier} n:a stale")]);
        numbers.set("a", 2).await.unwrap();
        numbers.pull("a").await.unwrap();
        told(&["written n:a", &format!("hit {tier} n:a"), "deleted n:a"]);
        numbers.delete("a").await.unwrap();
        numbers.delete_many(&["a", "b"]).await.unwrap();
        told(&["deleted n:a", "deleted n:a", "deleted n:b"]);
        numbers.invalidate(["t"]).await.unwrap();
        numbers.clear().soft().await.unwrap();
        numbers.clear().await.unwrap();
        told(&["invalidated n:t", "cleared n", "cleared n"]);
        harness.finish(4).await;
    }
}

#[tokio::test]
async fn handles_of_one_namespace_made_anew_share_their_loads() {
    let harness = Harness::new(Tiers::Both);
    let numbers = cache::<u32>(&harness);
    let gate = Gate::default();
    let first = spawn_load(&numbers.namespace("n").unwrap(), &gate, 1);
    gate.started.notified().await;
    let second = spawn_load(&cache::<u32>(&harness).namespace("n").unwrap(), &gate, 2);
    settle().await;
    gate.open.notify_one();
    assert_eq!((*first.await.unwrap().unwrap(), *second.await.unwrap().unwrap()), (1, 1));
    assert_eq!(gate.runs(), 1);
    harness.finish(2).await;
}

#[tokio::test]
async fn memory_hears_of_what_another_process_did_when_it_reads_the_store() {
    for change in ["set", "delete", "clear", "invalidate"] {
        let here = Harness::new(Tiers::Both);
        let there = peer(&here);
        let (mine, theirs) = (cache::<u32>(&here), cache::<u32>(&there));
        theirs.set("old", 1).tags(["t"]).await.unwrap();
        mine.set("a", 1).ttl(seconds(60)).tags(["t"]).await.unwrap();
        here.clock.advance(seconds(1));
        match change {
            "set" => theirs.set("a", 2).ttl(seconds(300)).await.unwrap(),
            "delete" => drop(theirs.delete("a").await.unwrap()),
            "clear" => drop(theirs.clear().await.unwrap()),
            _ => theirs.invalidate(["t"]).await.unwrap(),
        }
        let found = async || mine.get("a").await.unwrap().as_deref().copied();
        assert_eq!(found().await, Some(1), "{change}: nobody told this process");
        mine.get("elsewhere").await.unwrap();
        assert_eq!(found().await, (change != "clear").then_some(1), "{change}: any read brings a clear");
        mine.get("old").await.unwrap();
        let is_heard = ["clear", "invalidate"].contains(&change);
        assert_eq!(
            found().await,
            (!is_heard).then_some(1),
            "{change}: a tag's mark comes with what it marks"
        );
        here.clock.advance(seconds(60));
        assert_eq!(found().await, (change == "set").then_some(2), "{change}: its own copy's time is over");
        here.finish(6).await;
    }
}
