//! Atomic rewrites: counters, add, pull, touch, expire.

use std::time::Duration;

use larder::entry::Freshness;
use larder::testing::{Harness, Operation, Tiers};
use larder::time::{Stamp, Ttl, hours, seconds};
use larder::{EntryOptions, ErrorKind, Present, Updated};

use crate::flow::cache;

#[tokio::test]
async fn counting_starts_from_zero_or_is_refused_as_asked() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<i64>(&harness);
        let refused = numbers.increment("a", 1).existing().await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Counter);
        assert_eq!(numbers.increment("a", 5).await.unwrap(), 5);
        assert_eq!(numbers.decrement("a", 7).await.unwrap(), -2);
        assert_eq!(numbers.increment("a", 1).existing().await.unwrap(), -1);
        assert_eq!(*numbers.get("a").await.unwrap().unwrap(), -1);
        harness.finish(1).await;
    }
}

#[tokio::test]
async fn counting_keeps_the_ttl_and_a_counter_past_it_starts_again() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u64>(&harness);
        numbers.increment("a", 1).ttl(seconds(10)).await.unwrap();
        harness.clock.advance(seconds(4));
        numbers.increment("a", 1).ttl(hours(1)).await.unwrap();
        assert_eq!(numbers.entry("a").await.unwrap().unwrap().ttl_left, Some(seconds(6)));
        harness.clock.advance(seconds(6));
        assert_eq!(numbers.increment("a", 1).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn a_sum_that_does_not_fit_changes_nothing() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let bytes = cache::<u8>(&harness);
        bytes.set("a", 250).await.unwrap();
        for error in [bytes.increment("a", 6).await, bytes.decrement("a", 251).await] {
            let error = error.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Counter);
            assert!(error.message().contains("u8") && error.message().contains("\"a\""), "{error}");
        }
        assert_eq!(bytes.increment("a", 5).await.unwrap(), 255);
        let wide = cache::<i64>(&harness).namespace("wide").unwrap();
        wide.set("max", i64::MAX).await.unwrap();
        assert!(wide.increment("max", 1).await.is_err());
        wide.set("min", i64::MIN).await.unwrap();
        assert!(wide.decrement("min", 1).await.is_err());
        assert!(wide.decrement("min", i64::MIN).await.is_ok_and(|sum| sum == 0));
    }
}

#[tokio::test]
async fn counting_on_something_that_is_not_a_number_is_an_error_and_leaves_it() {
    let harness = Harness::new(Tiers::L2);
    cache::<String>(&harness).set("a", "text".to_owned()).await.unwrap();
    assert_eq!(cache::<i64>(&harness).increment("a", 1).await.unwrap_err().kind(), ErrorKind::Decode);
    assert!(cache::<String>(&harness).has("a").await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_counts_add_up_in_one_process_and_in_two() {
    for tiers in Tiers::ALL {
        let first = Harness::new(tiers);
        let second = Harness::over(tiers, first.clock.clone(), first.store.clone(), |builder| builder);
        let processes = if tiers.has_store() { vec![&first, &second] } else { vec![&first] };
        let mut tasks = Vec::new();
        for harness in &processes {
            for _ in 0..8 {
                let numbers = cache::<u64>(harness);
                tasks.push(tokio::spawn(async move {
                    for _ in 0..50 {
                        numbers.increment("a", 1).await.unwrap();
                    }
                }));
            }
        }
        for task in tasks {
            task.await.unwrap();
        }
        let sum = cache::<u64>(&first).increment("a", 0).await.unwrap();
        assert_eq!(sum, 400 * processes.len() as u64, "{tiers:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_add_one_succeeds_and_of_many_who_pull_one_gets_it() {
    for tiers in Tiers::ALL {
        let first = Harness::new(tiers);
        let second = Harness::over(tiers, first.clock.clone(), first.store.clone(), |builder| builder);
        let processes = if tiers.has_store() { [&first, &second] } else { [&first, &first] };
        for round in 0..20 {
            let key = round.to_string();
            let spawn = |n: usize, pulls: bool| {
                let (numbers, key) = (cache::<u32>(processes[n % 2]), key.clone());
                tokio::spawn(async move {
                    match pulls {
                        true => numbers.pull(&key).await.unwrap().is_some(),
                        false => numbers.add(&key, 1).await.unwrap(),
                    }
                })
            };
            for pulls in [false, true] {
                let tasks: Vec<_> = (0..8).map(|n| spawn(n, pulls)).collect();
                let mut winners = 0;
                for task in tasks {
                    winners += u32::from(task.await.unwrap());
                }
                assert_eq!(winners, 1, "{tiers:?} pulls {pulls}");
            }
        }
    }
}

#[tokio::test]
async fn pull_gives_the_fresh_value_once_whatever_it_is() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let texts = cache::<String>(&harness);
        texts.set("a", String::new()).await.unwrap();
        assert_eq!(texts.pull("a").await.unwrap().as_deref(), Some(&String::new()));
        assert_eq!(texts.pull("a").await.unwrap(), None);
        texts.set("b", "x".to_owned()).ttl(seconds(1)).grace(seconds(9)).await.unwrap();
        harness.clock.advance(seconds(1));
        assert_eq!(texts.pull("b").await.unwrap(), None, "stale is not fresh");
        harness.finish(3).await;
    }
}

#[tokio::test]
async fn add_takes_the_place_of_what_is_no_longer_fresh() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        assert!(numbers.add("a", 1).ttl(seconds(1)).grace(seconds(9)).await.unwrap());
        assert!(!numbers.add("a", 2).await.unwrap());
        harness.clock.advance(seconds(1));
        assert!(numbers.add("a", 3).await.unwrap());
        assert_eq!(*numbers.get("a").await.unwrap().unwrap(), 3);
        numbers.delete("a").await.unwrap();
        assert!(numbers.add("a", 4).await.unwrap(), "what a delete leaves behind is nothing");
        numbers.clear().await.unwrap();
        assert!(numbers.add("a", 5).await.unwrap());
        harness.finish(1).await;
    }
}

#[tokio::test]
async fn touch_renews_the_ttl_of_what_is_fresh_and_of_nothing_else() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        assert!(!numbers.touch("a", seconds(5)).await.unwrap());
        numbers.set("a", 1).ttl(seconds(5)).grace(seconds(3)).await.unwrap();
        harness.clock.advance(seconds(4));
        assert!(numbers.touch("a", seconds(5)).await.unwrap());
        let entry = numbers.entry("a").await.unwrap().unwrap();
        assert_eq!((entry.ttl_left, entry.life_left), (Some(seconds(5)), Some(seconds(8))));
        assert_eq!(entry.age, seconds(4), "the value is as old as it was");
        harness.clock.advance(seconds(5));
        assert!(!numbers.touch("a", seconds(5)).await.unwrap(), "a stale entry is not brought back to life");
        numbers.set("b", 1).await.unwrap();
        assert!(numbers.touch("b", Ttl::Forever).await.unwrap());
        assert!(numbers.touch("b", Duration::ZERO).await.unwrap());
        assert!(!numbers.has("b").await.unwrap());
    }
}

#[tokio::test]
async fn expire_leaves_the_grace_and_never_lengthens_it() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        assert!(!numbers.expire("a").await.unwrap());
        numbers.set("a", 1).ttl(seconds(10)).grace(seconds(10)).await.unwrap();
        harness.clock.advance(seconds(5));
        assert!(numbers.expire("a").await.unwrap());
        let entry = numbers.entry("a").await.unwrap().unwrap();
        assert_eq!((entry.state, entry.life_left), (Freshness::Stale, Some(seconds(10))));
        harness.clock.advance(seconds(5));
        assert!(numbers.expire("a").await.unwrap());
        assert_eq!(numbers.entry("a").await.unwrap().unwrap().life_left, Some(seconds(5)));
        numbers.set("plain", 1).await.unwrap();
        assert!(numbers.expire("plain").await.unwrap());
        assert!(numbers.entry("plain").await.unwrap().is_none(), "without grace nothing is left");
        let graced = numbers.clone().with_options(EntryOptions::default().grace(seconds(7)));
        graced.set("forever", 1).ttl(Ttl::Forever).await.unwrap();
        assert!(graced.expire("forever").await.unwrap());
        assert_eq!(graced.entry("forever").await.unwrap().unwrap().life_left, Some(seconds(7)));
    }
}

#[tokio::test]
async fn touch_and_expire_work_on_what_another_type_stored() {
    let harness = Harness::new(Tiers::L2);
    cache::<String>(&harness).set("a", "text".to_owned()).grace(seconds(9)).await.unwrap();
    let numbers = cache::<u32>(&harness);
    assert!(numbers.touch("a", seconds(5)).await.unwrap());
    assert!(numbers.expire("a").await.unwrap());
    assert_eq!(*cache::<String>(&harness).entry("a").await.unwrap().unwrap().value, "text");
}

#[tokio::test]
async fn memory_follows_a_rewrite_in_the_store() {
    let harness = Harness::new(Tiers::Both);
    let numbers = cache::<u32>(&harness);
    numbers.set("a", 1).ttl(seconds(5)).await.unwrap();
    numbers.touch("a", seconds(50)).await.unwrap();
    harness.clock.advance(seconds(20));
    harness.chaos.reset_calls();
    assert_eq!(*numbers.get("a").await.unwrap().unwrap(), 1);
    numbers.increment("a", 1).await.unwrap();
    harness.chaos.reset_calls();
    assert_eq!(*numbers.get("a").await.unwrap().unwrap(), 2);
    assert_eq!(harness.chaos.calls_total(), 0);
}

#[tokio::test]
async fn a_rewrite_does_not_carry_a_value_past_a_clear_in_another_process() {
    let here = Harness::new(Tiers::L2);
    let there = Harness::over(Tiers::L2, here.clock.clone(), here.store.clone(), |builder| builder);
    let (mine, theirs) = (cache::<u32>(&here), cache::<u32>(&there));
    mine.set("a", 1).await.unwrap();
    // The clear lands between the rewrite's read and its write.
    here.chaos.fail_next_after_landing(Operation::GetMany, 0, ErrorKind::Unavailable);
    here.chaos.stall(Operation::Set);
    let touch = tokio::spawn({
        let mine = mine.clone();
        async move { mine.touch("a", seconds(500)).await }
    });
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    there.chaos.fail_all(Operation::Clear, ErrorKind::Unavailable);
    theirs.clear().await.unwrap();
    here.chaos.release(Operation::Set);
    touch.await.unwrap().unwrap();
    assert_eq!(theirs.get("a").await.unwrap(), None);
    assert_eq!(mine.get("a").await.unwrap(), None);
}

#[tokio::test]
async fn a_rewrite_whose_outcome_is_unknown_leaves_nothing_old_in_memory() {
    let harness = Harness::new(Tiers::Both);
    let numbers = cache::<u32>(&harness);
    numbers.set("a", 1).await.unwrap();
    harness.chaos.fail_next_after_landing(Operation::Set, 1, ErrorKind::Timeout);
    assert_eq!(numbers.increment("a", 1).await.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(*numbers.get("a").await.unwrap().unwrap(), 2, "the store is asked, and has it");
}

#[tokio::test]
async fn counting_and_touching_are_told_as_writes() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        numbers.increment("a", 1).await.unwrap();
        numbers.touch("a", seconds(9)).await.unwrap();
        numbers.touch("missing", seconds(9)).await.unwrap();
        numbers.add("a", 1).await.unwrap();
        numbers.add("b", 1).await.unwrap();
        assert_eq!(harness.recorder.lines(), ["written a", "written a", "written b"], "{tiers:?}");
        harness.finish(0).await;
    }
}

#[tokio::test]
async fn an_update_stores_what_it_makes_of_what_is_there() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let lists = cache::<Vec<u32>>(&harness);
        let push = |number: u32| {
            move |present: Option<Present<Vec<u32>>>| {
                let mut list = present.map(|present| (*present.value).clone()).unwrap_or_default();
                list.push(number);
                Updated::put(list).ttl(seconds(10)).tags(["lists"])
            }
        };
        assert!(lists.update("a", push(1)).await.unwrap());
        harness.clock.advance(seconds(4));
        assert!(lists.update("a", push(2)).await.unwrap());
        let entry = lists.entry("a").await.unwrap().unwrap();
        assert_eq!((&*entry.value, entry.ttl_left), (&vec![1, 2], Some(seconds(10))));
        assert_eq!(entry.tags.iter().map(|tag| tag.as_str()).collect::<Vec<_>>(), ["lists"]);
        assert!(!lists.update("a", |_| Updated::keep()).await.unwrap());
        assert!(lists.update("a", |_| Updated::put(vec![]).ttl(seconds(0))).await.unwrap());
        assert!(!lists.has("a").await.unwrap());
        lists.set("a", vec![7]).await.unwrap();
        assert!(lists.update("a", |_| Updated::delete()).await.unwrap());
        assert!(!lists.has("a").await.unwrap());
    }
}

#[tokio::test]
async fn an_update_carries_nothing_past_a_purge_unless_it_says_how_old_it_is() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let cache = cache::<u32>(&harness).with_options(EntryOptions::default().grace(seconds(60)));
        let again = |present: Option<Present<u32>>| {
            Updated::put(present.map_or(0, |present| *present.value) + 1).tags(["t"])
        };
        cache.set("a", 1).tags(["t"]).await.unwrap();
        cache.invalidate(["t"]).soft().await.unwrap();
        cache.update("a", again).await.unwrap();
        let (value, freshness) = cache.get_judged("a").await.unwrap().unwrap();
        assert_eq!((*value, freshness), (2, Freshness::Stale), "made of what the purge meant");

        let mut found = None;
        let born = harness.stack.stamp();
        let renewed = |present: Option<Present<u32>>| {
            found = present.map(|present| (present.freshness, present.invalidated.is_some()));
            Updated::put(9).tags(["t"]).born(born)
        };
        cache.update("a", renewed).await.unwrap();
        assert_eq!(found, Some((Freshness::Stale, true)));
        assert_eq!(
            cache.get_judged("a").await.unwrap().map(|(value, f)| (*value, f)),
            Some((9, Freshness::Fresh))
        );

        cache.invalidate(["t"]).await.unwrap();
        cache.update("a", |_| Updated::put(10).tags(["t"]).born(born)).await.unwrap();
        assert_eq!(cache.get_judged("a").await.unwrap(), None, "it is older than the purge");
        let future = Stamp::at(harness.stack.now() + hours(1));
        cache.update("a", |_| Updated::put(11).tags(["t"]).born(future)).await.unwrap();
        assert_eq!(cache.get("a").await.unwrap().as_deref(), Some(&11), "the future is now");
        cache.invalidate(["t"]).await.unwrap();
        assert_eq!(cache.get("a").await.unwrap(), None);
    }
}

/// Without a store nothing outlasts a delete; what is under way in this process knows of it otherwise.
#[tokio::test]
async fn an_update_that_says_how_old_it_is_brings_nothing_past_a_delete_of_another_process() {
    for tiers in [Tiers::L2, Tiers::Both] {
        let harness = Harness::new(tiers);
        let other = Harness::over(tiers, harness.clock.clone(), harness.store.clone(), |builder| builder);
        let (cache, theirs) = (cache::<u32>(&harness), cache::<u32>(&other));
        let born = harness.stack.stamp();
        harness.clock.advance(seconds(1));
        theirs.delete("a").await.unwrap();
        harness.clock.advance(seconds(1));
        assert!(!cache.update("a", |_| Updated::put(1).born(born)).await.unwrap(), "{tiers:?}");
        assert_eq!(cache.get("a").await.unwrap(), None);
        let later = harness.stack.stamp();
        assert!(cache.update("a", |_| Updated::put(2).born(later).ttl(seconds(5))).await.unwrap());
        harness.clock.advance(seconds(5));
        assert!(
            cache.update("a", |_| Updated::put(3).born(born)).await.unwrap(),
            "what is over has not been deleted"
        );
        cache.delete("a").await.unwrap();
        assert!(cache.update("a", |_| Updated::put(4)).await.unwrap(), "what does not say is new");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn updates_that_meet_are_all_kept() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let cache = cache::<Vec<u32>>(&harness);
        let tasks: Vec<_> = (0..8)
            .map(|task| {
                let cache = cache.clone();
                tokio::spawn(async move {
                    for round in 0..50 {
                        let add = |present: Option<Present<Vec<u32>>>| {
                            let mut list =
                                present.map(|present| (*present.value).clone()).unwrap_or_default();
                            list.push(task * 50 + round);
                            Updated::put(list)
                        };
                        assert!(cache.update("a", add).await.unwrap());
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let mut list = (*cache.get("a").await.unwrap().unwrap()).clone();
        list.sort_unstable();
        assert_eq!(list, (0..400).collect::<Vec<u32>>());
    }
}

#[tokio::test]
async fn an_update_in_memory_runs_without_a_lock_and_sees_what_came_between() {
    let harness = Harness::new(Tiers::L1);
    let cache = cache::<u32>(&harness);
    cache.set("a", 1).await.unwrap();
    let mut runs = 0;
    let add = |present: Option<Present<u32>>| {
        runs += 1;
        if runs == 1 {
            // Under a lock, this would never end.
            futures_util::FutureExt::now_or_never(async { cache.set("a", 10).await }).unwrap().unwrap();
        }
        Updated::put(present.map_or(0, |present| *present.value) + 1)
    };
    assert!(cache.update("a", add).await.unwrap());
    assert_eq!((runs, *cache.get("a").await.unwrap().unwrap()), (2, 11));
}

#[tokio::test]
async fn a_peek_asks_memory_only() {
    let harness = Harness::new(Tiers::Both);
    let cache = cache::<u32>(&harness);
    assert_eq!(cache.peek("a"), None);
    cache.set("a", 1).ttl(seconds(10)).await.unwrap();
    let before = harness.stack.stats();
    assert_eq!(cache.peek("a").as_deref(), Some(&1));
    assert_eq!(harness.stack.stats().hits_l1, before.hits_l1 + 1);
    harness.clock.advance(seconds(10));
    assert_eq!(cache.peek("a"), None);
    assert_eq!(harness.stack.stats().misses, before.misses, "a peek that finds nothing is no miss");
}
