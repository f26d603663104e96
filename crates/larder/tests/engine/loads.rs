//! Get-or-compute: one load per key, whoever asks, and what wins over it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder::driver::Driver as _;
use larder::testing::{Harness, Operation, Tiers};
use larder::time::{minutes, seconds};
use larder::{Cache, ErrorKind};
use tokio::sync::{Notify, Semaphore};

use crate::flow::{cache, ok};

/// A loader that waits to be let go, and counts its runs.
#[derive(Clone, Default)]
pub(crate) struct Gate {
    pub(crate) runs: Arc<AtomicU64>,
    pub(crate) started: Arc<Notify>,
    pub(crate) open: Arc<Notify>,
}

impl Gate {
    pub(crate) async fn load(self, value: u32) -> Result<u32, std::io::Error> {
        self.runs.fetch_add(1, Ordering::Relaxed);
        self.started.notify_one();
        self.open.notified().await;
        Ok(value)
    }

    pub(crate) fn runs(&self) -> u64 {
        self.runs.load(Ordering::Relaxed)
    }
}

pub(crate) fn spawn_load(
    cache: &Cache<u32>,
    gate: &Gate,
    value: u32,
) -> tokio::task::JoinHandle<larder::Result<Arc<u32>>> {
    let (cache, gate) = (cache.clone(), gate.clone());
    tokio::spawn(async move { cache.get_or_set("a", move || gate.load(value)).await })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_callers_of_a_missing_key_make_one_load_and_one_read() {
    for tiers in Tiers::ALL {
        for callers in [100, 1_000, 10_000_u64] {
            let harness = Harness::new(tiers);
            let numbers = cache::<u32>(&harness);
            let loads = Arc::new(AtomicU64::new(0));
            let all_here = Arc::new(Semaphore::new(0));
            let mut tasks = Vec::new();
            for _ in 0..callers {
                let (numbers, loads, all_here) = (numbers.clone(), Arc::clone(&loads), Arc::clone(&all_here));
                tasks.push(tokio::spawn(async move {
                    let load = move || async move {
                        loads.fetch_add(1, Ordering::Relaxed);
                        // The load does not end before every caller has at least begun.
                        let _ = all_here.acquire().await;
                        Ok::<_, std::io::Error>(7)
                    };
                    numbers.get_or_set("a", load).await
                }));
            }
            all_here.add_permits(1);
            for task in tasks {
                assert_eq!(*task.await.unwrap().unwrap(), 7);
            }
            assert_eq!(loads.load(Ordering::Relaxed), 1, "{tiers:?}, {callers} callers");
            // L2 alone reads again for whoever comes after the landing; nobody loads again.
            if tiers == Tiers::Both {
                assert_eq!(harness.chaos.calls(Operation::GetMany), 1, "{callers} callers");
            }
            harness.finish(callers).await;
        }
    }
}

#[tokio::test]
async fn callers_that_came_before_the_landing_share_one_read_of_the_store() {
    for tiers in [Tiers::L2, Tiers::Both] {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        let gate = Gate::default();
        let tasks: Vec<_> = (0..10_000).map(|_| spawn_load(&numbers, &gate, 7)).collect();
        gate.started.notified().await;
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        gate.open.notify_one();
        for task in tasks {
            assert_eq!(*task.await.unwrap().unwrap(), 7);
        }
        assert_eq!((gate.runs(), harness.chaos.calls(Operation::GetMany)), (1, 1), "{tiers:?}");
        harness.finish(10_000).await;
    }
}

#[tokio::test]
async fn a_failure_is_shared_by_those_who_waited_and_the_next_caller_loads_again() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        let (runs, open) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
        let waiting: Vec<_> = (0..50)
            .map(|_| {
                let (numbers, runs, open) = (numbers.clone(), Arc::clone(&runs), Arc::clone(&open));
                tokio::spawn(async move {
                    let load = move || async move {
                        runs.fetch_add(1, Ordering::Relaxed);
                        open.notified().await;
                        Err(std::io::Error::other("the source is down"))
                    };
                    numbers.get_or_set("a", load).await
                })
            })
            .collect();
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        open.notify_one();
        for task in waiting {
            let error = task.await.unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Load);
            assert_eq!(error.load_error::<std::io::Error>().unwrap().to_string(), "the source is down");
        }
        assert_eq!(runs.load(Ordering::Relaxed), 1);
        assert_eq!(*numbers.get_or_set("a", || ok(3)).await.unwrap(), 3);
        harness.finish(51).await;
    }
}

#[tokio::test]
async fn a_panicking_loader_fails_its_waiters_and_frees_the_key() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        async fn explode() -> Result<u32, std::io::Error> {
            panic!("with a bang")
        }
        let error = numbers.get_or_set("a", explode).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Load);
        assert!(error.message().contains("with a bang"), "{error}");
        let early = || -> std::future::Ready<Result<u32, std::io::Error>> { panic!("before any future") };
        assert_eq!(numbers.get_or_set("a", early).await.unwrap_err().kind(), ErrorKind::Load);
        assert_eq!(*numbers.get_or_set("a", || ok(1)).await.unwrap(), 1);
        harness.finish(3).await;
    }
}

#[tokio::test]
async fn dropping_the_first_caller_changes_nothing_for_the_others() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        let gate = Gate::default();
        let first = spawn_load(&numbers, &gate, 7);
        gate.started.notified().await;
        let second = spawn_load(&numbers, &gate, 8);
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        gate.open.notify_one();
        assert_eq!(*second.await.unwrap().unwrap(), 7);
        assert_eq!((*numbers.get("a").await.unwrap().unwrap(), gate.runs()), (7, 1));
        harness.finish(2).await;
    }
}

#[tokio::test]
async fn a_load_lands_even_if_nobody_waits_any_more() {
    let harness = Harness::new(Tiers::Both);
    let numbers = cache::<u32>(&harness);
    let gate = Gate::default();
    let only = spawn_load(&numbers, &gate, 7);
    gate.started.notified().await;
    only.abort();
    gate.open.notify_one();
    while !numbers.has("a").await.unwrap() {
        tokio::task::yield_now().await;
    }
    harness.finish(0).await;
}

#[tokio::test]
async fn a_loader_that_asks_for_its_own_key_is_told_so() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        let again = numbers.clone();
        let load = move || async move { again.get_or_set("a", || ok(1)).await.map(|n| *n) };
        let error = numbers.get_or_set("a", load).await.unwrap_err();
        let inner = error.load_error::<larder::Error>().unwrap();
        assert_eq!((error.kind(), inner.kind()), (ErrorKind::Load, ErrorKind::Recursion));
        assert!(inner.message().contains("\"a\""), "{inner}");
        harness.finish(2).await;
    }
}

/// Loads `from` by way of `to`, once both loads are under way.
async fn load_by_way_of(
    numbers: Cache<u32>,
    from: &'static str,
    to: &'static str,
    both: Arc<tokio::sync::Barrier>,
) -> larder::Result<Arc<u32>> {
    let inner = numbers.clone();
    let load = move || async move {
        both.wait().await;
        inner.get_or_set(to, || ok(1)).await.map(|n| *n)
    };
    numbers.get_or_set(from, load).await
}

#[tokio::test]
async fn loaders_that_wait_for_each_other_are_told_so() {
    let harness = Harness::new(Tiers::L1);
    let numbers = cache::<u32>(&harness);
    let both = Arc::new(tokio::sync::Barrier::new(2));
    let one = tokio::spawn(load_by_way_of(numbers.clone(), "a", "b", Arc::clone(&both)));
    let two = tokio::spawn(load_by_way_of(numbers.clone(), "b", "a", both));
    let (one, two) = (one.await.unwrap(), two.await.unwrap());
    assert!(one.is_err() && two.is_err(), "each waited for the other: {one:?} {two:?}");
    harness.finish(4).await;
}

#[tokio::test]
async fn a_loader_may_ask_for_other_keys() {
    let harness = Harness::new(Tiers::Both);
    let numbers = cache::<u32>(&harness);
    let inner = numbers.clone();
    let load = move || async move {
        let b = inner.get_or_set("b", || ok(1)).await?;
        let c = inner.get_or_set("c", || ok(2)).await?;
        Ok::<_, larder::Error>(*b + *c)
    };
    assert_eq!(*numbers.get_or_set("a", load).await.unwrap(), 3);
    harness.finish(3).await;
}

#[tokio::test]
async fn a_write_during_a_load_wins() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        let gate = Gate::default();
        let load = spawn_load(&numbers, &gate, 1);
        gate.started.notified().await;
        numbers.set("a", 2).await.unwrap();
        gate.open.notify_one();
        assert_eq!(*load.await.unwrap().unwrap(), 1, "who waited gets what was loaded");
        assert_eq!(*numbers.get("a").await.unwrap().unwrap(), 2, "{tiers:?}");
        assert_eq!(harness.stack.stats().loads_superseded, 1);
        harness.finish(2).await;
    }
}

#[tokio::test]
async fn a_delete_during_a_load_wins_and_later_callers_load_anew() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        let gate = Gate::default();
        let load = spawn_load(&numbers, &gate, 1);
        gate.started.notified().await;
        numbers.delete("a").await.unwrap();
        assert_eq!(*numbers.get_or_set("a", || ok(2)).await.unwrap(), 2, "{tiers:?}: not the old load's");
        numbers.delete("a").await.unwrap();
        gate.open.notify_one();
        assert_eq!(*load.await.unwrap().unwrap(), 1);
        assert_eq!(numbers.get("a").await.unwrap(), None, "{tiers:?}");
        harness.finish(3).await;
    }
}

#[tokio::test]
async fn an_expire_a_clear_and_a_delete_of_many_win_over_a_load_too() {
    for tiers in Tiers::ALL {
        for change in ["expire", "clear", "delete_many", "set_many", "pull", "increment"] {
            let harness = Harness::new(tiers);
            let numbers = cache::<u32>(&harness);
            let gate = Gate::default();
            let load = spawn_load(&numbers, &gate, 1);
            gate.started.notified().await;
            match change {
                "expire" => drop(numbers.expire("a").await.unwrap()),
                "clear" => drop(numbers.clear().await.unwrap()),
                "delete_many" => drop(numbers.delete_many(&["a"]).await.unwrap()),
                "set_many" => numbers.set_many([("a", 5)]).await.unwrap(),
                "pull" => drop(numbers.pull("a").await.unwrap()),
                _ => drop(numbers.increment("a", 5).await.unwrap()),
            }
            gate.open.notify_one();
            assert_eq!(*load.await.unwrap().unwrap(), 1);
            let expected = match change {
                "set_many" | "increment" => Some(5),
                // Nothing was there to pull, so nothing was invalidated.
                "pull" => Some(1),
                _ => None,
            };
            assert_eq!(numbers.get("a").await.unwrap().map(|n| *n), expected, "{tiers:?} {change}");
        }
    }
}

#[tokio::test]
async fn a_delete_in_another_process_wins_over_a_load_here() {
    let here = Harness::new(Tiers::L2);
    let there = Harness::over(Tiers::L2, here.clock.clone(), here.store.clone(), |builder| builder);
    let (mine, theirs) = (cache::<u32>(&here), cache::<u32>(&there));
    let gate = Gate::default();
    let load = spawn_load(&mine, &gate, 1);
    gate.started.notified().await;
    here.clock.advance(seconds(1));
    theirs.delete("a").await.unwrap();
    gate.open.notify_one();
    assert_eq!(*load.await.unwrap().unwrap(), 1);
    assert_eq!(mine.get("a").await.unwrap(), None);
    assert_eq!(here.stack.stats().loads_superseded, 1);
}

#[tokio::test]
async fn a_clear_in_another_process_wins_over_a_load_here() {
    let here = Harness::new(Tiers::L2);
    let there = Harness::over(Tiers::L2, here.clock.clone(), here.store.clone(), |builder| builder);
    let gate = Gate::default();
    let mine = cache::<u32>(&here);
    let load = spawn_load(&mine, &gate, 1);
    gate.started.notified().await;
    here.clock.advance(seconds(1));
    cache::<u32>(&there).clear().await.unwrap();
    gate.open.notify_one();
    assert_eq!(*load.await.unwrap().unwrap(), 1);
    assert_eq!(mine.get("a").await.unwrap(), None, "stored, but born before the clear");
}

#[tokio::test(start_paused = true)]
async fn a_read_of_the_store_that_a_delete_overtakes_does_not_fill_memory() {
    let harness = Harness::new(Tiers::Both);
    let other = Harness::over(Tiers::Both, harness.clock.clone(), harness.store.clone(), |builder| builder);
    let numbers = cache::<u32>(&harness);
    cache::<u32>(&other).set("a", 1).await.unwrap();
    // The read is answered with the old value, but the answer arrives late.
    let full = larder::key::KeySpace::new("test").unwrap().full("a").unwrap();
    let old = harness.store.get(&full).await.unwrap();
    harness.chaos.lie(full, old);
    harness.chaos.delay(Operation::GetMany, Duration::from_millis(100));
    let slow = tokio::spawn({
        let numbers = numbers.clone();
        async move { numbers.get("a").await }
    });
    tokio::time::sleep(Duration::from_millis(10)).await;
    numbers.delete("a").await.unwrap();
    assert_eq!(*slow.await.unwrap().unwrap().unwrap(), 1, "who asked before the delete may get it");
    harness.chaos.heal();
    assert_eq!(harness.stack.memory_usage().unwrap().items, 0);
    assert_eq!(numbers.get("a").await.unwrap(), None);
    harness.finish(2).await;
}

#[tokio::test]
async fn a_load_that_took_too_long_is_not_kept() {
    let harness = Harness::with(Tiers::Both, |builder| builder.load_max(minutes(5)));
    let numbers = cache::<u32>(&harness);
    let gate = Gate::default();
    let load = spawn_load(&numbers, &gate, 1);
    gate.started.notified().await;
    harness.clock.advance(minutes(6));
    gate.open.notify_one();
    assert_eq!(*load.await.unwrap().unwrap(), 1);
    assert_eq!(numbers.get("a").await.unwrap(), None);
    assert_eq!(harness.stack.stats().loads_superseded, 1);
    harness.finish(2).await;
}

#[tokio::test]
async fn a_stale_value_is_served_when_the_load_fails_and_never_lives_longer_for_it() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        numbers.set("a", 1).ttl(seconds(10)).grace(seconds(10)).await.unwrap();
        let fail = || std::future::ready(Err(std::io::Error::other("down")));
        harness.clock.advance(seconds(12));
        for _ in 0..3 {
            assert_eq!(*numbers.get_or_set("a", fail).backoff(seconds(0)).await.unwrap(), 1);
            harness.clock.advance(seconds(2));
        }
        harness.clock.advance(seconds(2));
        assert_eq!(numbers.get_or_set("a", fail).await.unwrap_err().kind(), ErrorKind::Load);
        let stats = harness.stack.stats();
        assert_eq!((stats.hits_stale, stats.misses, stats.loads_failed), (3, 1, 4));
        harness.finish(4).await;
    }
}

#[tokio::test]
async fn many_keys_are_loaded_together_and_each_has_its_own_outcome() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        numbers.set("have", 1).await.unwrap();
        harness.chaos.reset_calls();
        let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let load = move |missing: Vec<String>| async move {
            seen.lock().unwrap().extend(missing);
            Ok::<_, std::io::Error>([
                ("good".to_owned(), Ok(2)),
                ("bad".to_owned(), Err(std::io::Error::other("no"))),
                ("unasked".to_owned(), Ok(9)),
            ])
        };
        let found = numbers.get_or_set_many(&["have", "good", "bad", "forgotten", "good"], load).await;
        let found: Vec<Result<u32, ErrorKind>> =
            found.into_iter().map(|value| value.map(|n| *n).map_err(|error| error.kind())).collect();
        let load = ErrorKind::Load;
        assert_eq!(found, [Ok(1), Ok(2), Err(load), Err(load), Ok(2)], "{tiers:?}");
        assert_eq!(*asked.lock().unwrap(), ["good", "bad", "forgotten"]);
        assert!(!numbers.has("unasked").await.unwrap());
        if tiers.has_store() {
            harness.chaos.reset_calls();
        }
        harness.finish(5).await;
    }
}

#[tokio::test]
async fn many_keys_take_one_batch_per_tier() {
    let harness = Harness::new(Tiers::L2);
    let numbers = cache::<u32>(&harness);
    let keys: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    let load = |missing: Vec<String>| ok(missing.into_iter().map(|key| (key, Ok(1))).collect::<Vec<_>>());
    let found = numbers.get_or_set_many(&keys, load).await;
    assert!(found.iter().all(Result::is_ok));
    assert_eq!((harness.chaos.calls(Operation::GetMany), harness.chaos.calls(Operation::SetMany)), (1, 1));
    harness.finish(100).await;
}

#[tokio::test]
async fn a_key_that_is_loading_elsewhere_is_waited_for_and_not_loaded_twice() {
    let harness = Harness::new(Tiers::L1);
    let numbers = cache::<u32>(&harness);
    let gate = Gate::default();
    let single = spawn_load(&numbers, &gate, 7);
    gate.started.notified().await;
    let batch = tokio::spawn({
        let numbers = numbers.clone();
        async move {
            let load = |missing: Vec<String>| {
                assert_eq!(missing, ["b"]);
                ok(vec![("b".to_owned(), Ok(8))])
            };
            numbers.get_or_set_many(&["a", "b"], load).await
        }
    });
    while !numbers.has("b").await.unwrap() {
        tokio::task::yield_now().await;
    }
    gate.open.notify_one();
    let found: Vec<u32> = batch.await.unwrap().into_iter().map(|value| *value.unwrap()).collect();
    assert_eq!((found, *single.await.unwrap().unwrap()), (vec![7, 8], 7));
    harness.finish(3).await;
}

#[tokio::test]
async fn a_batch_whose_loader_asks_for_one_of_its_keys_is_told_so() {
    let harness = Harness::new(Tiers::L1);
    let numbers = cache::<u32>(&harness);
    let inner = numbers.clone();
    let load = move |_: Vec<String>| async move {
        let b = *inner.get_or_set("b", || ok(1)).await?;
        Ok::<_, larder::Error>(vec![("a".to_owned(), Ok(b)), ("b".to_owned(), Ok(b))])
    };
    let found = numbers.get_or_set_many(&["a", "b"], load).await;
    for outcome in found {
        let error = outcome.unwrap_err();
        assert_eq!(error.load_error::<larder::Error>().unwrap().kind(), ErrorKind::Recursion);
    }
    harness.finish(3).await;
}

#[tokio::test]
async fn too_many_loads_at_once_are_refused() {
    let harness = Harness::with(Tiers::L1, |builder| builder.loads_max(1));
    let numbers = cache::<u32>(&harness);
    let gate = Gate::default();
    let load = spawn_load(&numbers, &gate, 1);
    gate.started.notified().await;
    assert_eq!(numbers.get_or_set("b", || ok(1)).await.unwrap_err().kind(), ErrorKind::Overloaded);
    gate.open.notify_one();
    load.await.unwrap().unwrap();
    assert_eq!(*numbers.get_or_set("b", || ok(1)).await.unwrap(), 1);
    harness.finish(3).await;
}

#[test]
fn loading_outside_a_runtime_is_an_error_and_a_hit_is_not() {
    let harness = Harness::new(Tiers::L1);
    let numbers = cache::<u32>(&harness);
    let error = futures_util::FutureExt::now_or_never(async { numbers.get_or_set("a", || ok(1)).await });
    assert_eq!(error.unwrap().unwrap_err().kind(), ErrorKind::Unsupported);
    futures_util::FutureExt::now_or_never(async { numbers.set("a", 1).await }).unwrap().unwrap();
    let hit = futures_util::FutureExt::now_or_never(async { numbers.get_or_set("a", || ok(2)).await });
    assert_eq!(*hit.unwrap().unwrap(), 1);
}

#[test]
fn a_runtime_that_ends_fails_the_load_and_frees_the_key() {
    let harness = Harness::new(Tiers::L1);
    let numbers = cache::<u32>(&harness);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let gate = Gate::default();
    runtime.block_on(async {
        spawn_load(&numbers, &gate, 1);
        gate.started.notified().await;
    });
    drop(runtime);
    harness.stack.check_invariants().unwrap();
}

#[tokio::test]
async fn a_loader_that_blocks_on_the_runtime_it_runs_in_is_an_error_and_frees_the_key() {
    let harness = Harness::new(Tiers::Both);
    let numbers = cache::<u32>(&harness);
    let inner = numbers.clone();
    let load = move || async move {
        let nested = tokio::runtime::Handle::current().block_on(async { inner.get("b").await });
        nested.map(|found| found.map_or(0, |number| *number))
    };
    assert_eq!(numbers.get_or_set("a", load).await.unwrap_err().kind(), ErrorKind::Load);
    assert_eq!(*numbers.get_or_set("a", || ok(1)).await.unwrap(), 1);
    harness.finish(2).await;
}

#[tokio::test]
async fn close_waits_for_the_loads_under_way() {
    let harness = Harness::new(Tiers::Both);
    let numbers = cache::<u32>(&harness);
    let gate = Gate::default();
    let load = spawn_load(&numbers, &gate, 1);
    gate.started.notified().await;
    let closing = tokio::spawn({
        let stack = harness.stack.clone();
        async move { stack.close().await }
    });
    tokio::task::yield_now().await;
    assert!(!closing.is_finished());
    gate.open.notify_one();
    closing.await.unwrap().unwrap();
    assert_eq!(*load.await.unwrap().unwrap(), 1);
    assert_eq!(harness.chaos.calls(Operation::SetMany), 1, "it was stored before the store was closed");
}
