//! Tags and soft invalidation: many entries at once, none that came after.

use larder::ErrorKind;
use larder::driver::Driver as _;
use larder::entry::Freshness;
use larder::testing::{Harness, Operation, Tiers};
use larder::time::{hours, seconds};

use crate::flow::{cache, ok};
use crate::loads::{Gate, spawn_load};

fn twin(harness: &Harness, tiers: Tiers) -> Harness {
    Harness::over(tiers, harness.clock.clone(), harness.store.clone(), |builder| builder)
}

#[tokio::test]
async fn a_tag_takes_those_that_carry_it_and_nobody_else() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        numbers.set("one", 1).tags(["a"]).await.unwrap();
        numbers.set("two", 2).tags(["a", "b"]).await.unwrap();
        numbers.set("three", 3).tags(["c"]).await.unwrap();
        numbers.set("plain", 4).await.unwrap();
        let fail = || std::future::ready(Err(std::io::Error::other("not to be called")));
        numbers.get_or_set("one", fail).await.unwrap();
        numbers.invalidate(["b", "missing"]).await.unwrap();
        assert!(numbers.has("one").await.unwrap() && !numbers.has("two").await.unwrap());
        numbers.invalidate(["a", "c"]).await.unwrap();
        assert_eq!(numbers.get("one").await.unwrap(), None);
        assert_eq!(numbers.get("three").await.unwrap(), None);
        assert!(numbers.has("plain").await.unwrap());
        numbers.invalidate(std::iter::empty()).await.unwrap();
        let error = numbers.invalidate([""]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidKey);
        assert_eq!(harness.stack.stats().invalidations, 4);
        harness.finish(3).await;
    }
}

#[tokio::test]
async fn what_is_stored_in_the_same_millisecond_after_an_invalidation_lives() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        numbers.set("before", 1).tags(["t"]).await.unwrap();
        numbers.invalidate(["t"]).await.unwrap();
        numbers.set("after", 2).tags(["t"]).await.unwrap();
        assert!(!numbers.has("before").await.unwrap() && numbers.has("after").await.unwrap());
    }
}

#[tokio::test]
async fn clocks_that_differ_do_not_matter_to_a_tag() {
    let here = Harness::new(Tiers::L2);
    let behind = larder::testing::ManualClock::new(larder::time::Timestamp::from_millis(
        larder::time::Clock::now(&here.clock).as_millis() - 900_000,
    ));
    let there = Harness::over(Tiers::L2, behind, here.store.clone(), |builder| builder);
    let (ahead, late) = (cache::<u32>(&here), cache::<u32>(&there));
    ahead.set("before", 1).tags(["t"]).await.unwrap();
    assert!(late.has("before").await.unwrap(), "its clock has now seen the other's stamps");
    late.invalidate(["t"]).await.unwrap();
    assert!(!ahead.has("before").await.unwrap() && !late.has("before").await.unwrap());
    late.set("after", 2).tags(["t"]).await.unwrap();
    assert!(ahead.has("after").await.unwrap() && late.has("after").await.unwrap());
}

#[tokio::test]
async fn tags_reach_into_namespaces_and_not_out_of_them() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let root = cache::<u32>(&harness);
        let (users, other) = (root.namespace("users").unwrap(), root.namespace("usersAbc").unwrap());
        let inner = users.namespace("posts").unwrap();
        for handle in [&root, &users, &inner, &other] {
            handle.set("k", 1).tags(["t"]).await.unwrap();
        }
        users.invalidate(["t"]).await.unwrap();
        assert!(root.has("k").await.unwrap() && other.has("k").await.unwrap());
        assert!(!users.has("k").await.unwrap() && !inner.has("k").await.unwrap());
        root.invalidate(["t"]).await.unwrap();
        assert!(!root.has("k").await.unwrap() && !other.has("k").await.unwrap());
    }
}

#[tokio::test]
async fn a_soft_invalidation_leaves_what_has_grace_for_when_the_loader_fails() {
    for tiers in Tiers::ALL {
        for by_tag in [true, false] {
            let harness = Harness::new(tiers);
            let numbers = cache::<u32>(&harness);
            numbers.set("graced", 1).ttl(seconds(20)).grace(seconds(10)).tags(["t"]).await.unwrap();
            numbers.set("plain", 2).tags(["t"]).await.unwrap();
            harness.clock.advance(seconds(5));
            match by_tag {
                true => numbers.invalidate(["t"]).soft().await.unwrap(),
                false => assert_eq!(numbers.clear().soft().await.unwrap(), 0),
            }
            assert_eq!(numbers.get("graced").await.unwrap(), None);
            assert!(numbers.entry("plain").await.unwrap().is_none());
            let entry = numbers.entry("graced").await.unwrap().unwrap();
            assert_eq!(entry.state, Freshness::Stale);
            let fail = || std::future::ready(Err(std::io::Error::other("down")));
            assert_eq!(*numbers.get_or_set("graced", fail).await.unwrap(), 1);
            harness.clock.advance(seconds(24));
            assert_eq!(*numbers.get_or_set("graced", fail).await.unwrap(), 1);
            harness.clock.advance(seconds(1));
            match by_tag {
                true => numbers.invalidate(["t"]).soft().await.unwrap(),
                false => drop(numbers.clear().soft().await.unwrap()),
            }
            let after = numbers.get_or_set("graced", fail).await;
            assert!(after.is_err(), "{tiers:?}: its end is where it was, however often it is invalidated");
            assert_eq!(*numbers.get_or_set("plain", || ok(3)).await.unwrap(), 3);
            harness.finish(5).await;
        }
    }
}

#[tokio::test]
async fn a_soft_invalidation_does_not_bring_back_what_a_hard_one_took() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        numbers.set("a", 1).grace(hours(1)).tags(["t"]).await.unwrap();
        numbers.invalidate(["t"]).await.unwrap();
        numbers.invalidate(["t"]).soft().await.unwrap();
        assert!(numbers.entry("a").await.unwrap().is_none(), "{tiers:?}");
        if tiers.has_store() {
            let other = twin(&harness, tiers);
            assert!(cache::<u32>(&other).entry("a").await.unwrap().is_none());
        }
    }
}

#[tokio::test]
async fn an_invalidation_in_another_process_is_seen_by_the_next_read_of_the_store() {
    let here = Harness::new(Tiers::L2);
    let there = twin(&here, Tiers::L2);
    let (mine, theirs) = (cache::<u32>(&here), cache::<u32>(&there));
    mine.set("a", 1).tags(["x", "y", "z"]).await.unwrap();
    assert!(theirs.has("a").await.unwrap());
    mine.invalidate(["y"]).await.unwrap();
    assert_eq!(theirs.get("a").await.unwrap(), None);
    theirs.set("a", 2).tags(["y"]).await.unwrap();
    there.chaos.reset_calls();
    assert!(theirs.has("a").await.unwrap());
    assert_eq!(there.chaos.calls_total(), 1, "nothing was invalidated since: its tags are not looked up");
    here.clock.advance(seconds(1));
    mine.invalidate(["unrelated"]).await.unwrap();
    there.chaos.reset_calls();
    assert!(theirs.has("a").await.unwrap());
    assert_eq!(there.chaos.calls_total(), 2, "one batch for all its tags");
}

#[tokio::test]
async fn an_invalidation_during_a_load_wins_and_later_callers_do_not_join_it() {
    for tiers in Tiers::ALL {
        for change in ["invalidate", "clear"] {
            let harness = Harness::new(tiers);
            let numbers = cache::<u32>(&harness);
            let gate = Gate::default();
            let load = tokio::spawn({
                let (numbers, gate) = (numbers.clone(), gate.clone());
                async move { numbers.get_or_set("a", move || gate.load(1)).tags(["t"]).await }
            });
            gate.started.notified().await;
            match change {
                "clear" => drop(numbers.clear().await.unwrap()),
                _ => numbers.invalidate(["t"]).await.unwrap(),
            }
            let fresh = numbers.get_or_set("a", || ok(2)).tags(["t"]).await.unwrap();
            assert_eq!(*fresh, 2, "{tiers:?} {change}: the load that began before is not joined");
            gate.open.notify_one();
            assert_eq!(*load.await.unwrap().unwrap(), 1);
            assert_eq!(*numbers.get("a").await.unwrap().unwrap(), 2, "{tiers:?} {change}");
            harness.finish(3).await;
        }
    }
}

#[tokio::test]
async fn a_load_is_joined_across_invalidations_that_do_not_concern_it() {
    let harness = Harness::new(Tiers::Both);
    let numbers = cache::<u32>(&harness);
    let gate = Gate::default();
    let first = spawn_load(&numbers, &gate, 1);
    gate.started.notified().await;
    numbers.invalidate(["other"]).await.unwrap();
    numbers.namespace("elsewhere").unwrap().clear().await.unwrap();
    let second = spawn_load(&numbers, &gate, 2);
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    gate.open.notify_one();
    assert_eq!((*first.await.unwrap().unwrap(), *second.await.unwrap().unwrap()), (1, 1));
    assert_eq!(gate.runs(), 1);
    harness.finish(2).await;
}

#[tokio::test]
async fn an_invalidation_that_the_store_did_not_take_is_an_error_and_holds_here() {
    let harness = Harness::new(Tiers::Both);
    let numbers = cache::<u32>(&harness);
    numbers.set("a", 1).tags(["t"]).await.unwrap();
    harness.chaos.fail_all(Operation::Set, ErrorKind::Unavailable);
    assert_eq!(numbers.invalidate(["t"]).await.unwrap_err().kind(), ErrorKind::Unavailable);
    harness.chaos.heal();
    assert_eq!(numbers.get("a").await.unwrap(), None);
}

#[tokio::test]
async fn a_tag_mark_that_cannot_be_read_counts_as_an_invalidation() {
    let harness = Harness::new(Tiers::L2);
    let numbers = cache::<u32>(&harness);
    numbers.set("a", 1).tags(["t"]).await.unwrap();
    numbers.invalidate(["u"]).await.unwrap();
    let key = larder::key::KeySpace::new("test").unwrap().tag_key("t");
    let junk = bytes::Bytes::from_static(b"junk");
    harness.store.set(&key, junk, None, larder::driver::When::Always).await.unwrap();
    assert_eq!(numbers.get("a").await.unwrap(), None);
    numbers.set("a", 2).tags(["t"]).await.unwrap();
    assert_eq!(*numbers.get("a").await.unwrap().unwrap(), 2);
}

#[tokio::test]
async fn a_value_whose_grace_ends_during_the_load_is_not_served() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        numbers.set("a", 1).ttl(seconds(1)).grace(seconds(5)).tags(["t"]).await.unwrap();
        harness.clock.advance(seconds(2));
        let clock = harness.clock.clone();
        let slow_failure = move || async move {
            clock.advance(seconds(10));
            Err(std::io::Error::other("too late"))
        };
        assert_eq!(numbers.get_or_set("a", slow_failure).await.unwrap_err().kind(), ErrorKind::Load);

        numbers.set("b", 1).ttl(seconds(1)).grace(hours(1)).tags(["t"]).await.unwrap();
        harness.clock.advance(seconds(2));
        let inner = numbers.clone();
        let invalidated = move || async move {
            inner.invalidate(["t"]).await.unwrap();
            Err(std::io::Error::other("and gone"))
        };
        assert_eq!(numbers.get_or_set("b", invalidated).await.unwrap_err().kind(), ErrorKind::Load);
        harness.finish(2).await;
    }
}

#[tokio::test]
async fn what_another_process_stored_in_the_millisecond_before_an_invalidation_is_gone() {
    for by_tag in [true, false] {
        let here = Harness::new(Tiers::L2);
        let there = twin(&here, Tiers::L2);
        let (mine, theirs) = (cache::<u32>(&here), cache::<u32>(&there));
        for key in ["a", "b", "c"] {
            theirs.set(key, 1).tags(["t"]).await.unwrap();
        }
        // This process has not heard of any of these stamps.
        match by_tag {
            true => mine.invalidate(["t"]).await.unwrap(),
            false => drop(mine.clear().await.unwrap()),
        }
        for key in ["a", "b", "c"] {
            assert_eq!(mine.get(key).await.unwrap(), None, "{key}");
            assert_eq!(theirs.get(key).await.unwrap(), None, "{key}");
        }
        theirs.set("a", 2).tags(["t"]).await.unwrap();
        assert_eq!(*mine.get("a").await.unwrap().unwrap(), 2, "it has heard, so it comes after");
    }
}

#[tokio::test]
async fn a_load_whose_own_tag_was_invalidated_is_not_handed_to_who_asks_afterwards() {
    use larder::{Loaded, Previous};
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        let gate = Gate::default();
        let slow = gate.clone();
        // What the value carries is only known when the loader has said so.
        let load = move |_: Option<Previous<u32>>| async move {
            Ok::<_, std::io::Error>(Loaded::new(slow.load(1).await?).tags(["own"]))
        };
        let first = tokio::spawn({
            let numbers = numbers.clone();
            async move { numbers.get_or_set_with("a", load).await }
        });
        gate.started.notified().await;
        numbers.invalidate(["own"]).await.unwrap();
        let later = tokio::spawn({
            let numbers = numbers.clone();
            async move { numbers.get_or_set("a", || ok(2)).await }
        });
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        gate.open.notify_one();
        assert_eq!(*first.await.unwrap().unwrap(), 1);
        assert_eq!(*later.await.unwrap().unwrap(), 2, "{tiers:?}");
        harness.finish(2).await;
    }
}

#[tokio::test]
async fn who_asks_after_a_soft_invalidation_does_not_join_a_load_that_began_before_it() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        let gate = Gate::default();
        let first = spawn_load(&numbers, &gate, 1);
        gate.started.notified().await;
        numbers.clear().soft().await.unwrap();
        let later = numbers.get_or_set("a", || ok(2)).await;
        assert_eq!(*later.unwrap(), 2, "{tiers:?}: the source may have changed, that is why it was cleared");
        gate.open.notify_one();
        assert_eq!(*first.await.unwrap().unwrap(), 1);
        assert_eq!(*numbers.get("a").await.unwrap().unwrap(), 2, "{tiers:?}");
        harness.finish(3).await;
    }
}
