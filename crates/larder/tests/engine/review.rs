//! What a second look at the engine found: changes that win whatever is in their way, clocks that jump, users'
//! code that panics or comes back, and closing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use larder::entry::Freshness;
use larder::memory::MemoryOptions;
use larder::testing::{Harness, Operation, Tiers};
use larder::time::{Clock as _, hours, minutes, seconds};
use larder::{Cache, ErrorKind};
use tokio::sync::Notify;
use tokio::task::yield_now;

use crate::flow::{cache, ok};
use crate::overlap::poll;

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

#[tokio::test]
async fn a_load_that_was_asked_for_before_a_close_does_not_begin_after_it() {
    use std::future::IntoFuture as _;

    let harness = Harness::new(Tiers::Both);
    let numbers = cache::<u32>(&harness);
    let asked = numbers.get_or_set("a", || ok(1)).into_future();
    harness.stack.close().await.unwrap();
    assert_eq!(asked.await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(harness.chaos.calls(Operation::GetMany), 0);
    harness.finish(1).await;
}

#[test]
fn a_store_outside_a_runtime_is_an_error_and_not_a_panic() {
    use futures_util::FutureExt as _;

    let harness = Harness::new(Tiers::L2);
    let numbers = cache::<u32>(&harness);
    let error = async { numbers.set("a", 1).await }.now_or_never().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(numbers.get("a").now_or_never().unwrap().unwrap_err().kind(), ErrorKind::Unsupported);
}

/// A value that uses the cache when it is dropped, as a connection that returns itself to a pool might.
struct Reentrant(Cache<Reentrant>);

impl Drop for Reentrant {
    fn drop(&mut self) {
        for key in ["a", "b"] {
            // It takes the locks of the key, whether there is something or not.
            let _ = futures_util::FutureExt::now_or_never(self.0.touch(key, seconds(1)));
        }
    }
}

#[test]
fn a_value_may_use_the_cache_while_it_is_dropped() {
    let (sender, done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let harness = Harness::with(Tiers::L1, |builder| builder.memory(MemoryOptions::new(1)));
            let values = harness.stack.memory_cache::<Reentrant>().unwrap();
            let new = || Reentrant(values.clone());
            let fresh = || async { values.set("a", new()).ttl(seconds(1)).await.unwrap() };
            fresh().await;
            fresh().await;
            values.set("b", new()).await.unwrap();
            fresh().await;
            assert!(values.delete("a").await.unwrap());
            fresh().await;
            drop(values.pull("a").await.unwrap());
            fresh().await;
            values.expire("a").await.unwrap();
            fresh().await;
            values.clear().await.unwrap();
            fresh().await;
            harness.clock.advance(seconds(1));
            assert!(values.get("a").await.unwrap().is_none());
            fresh().await;
            harness.clock.advance(seconds(1));
            harness.stack.prune().await.unwrap();
            assert!(values.add("a", new()).await.unwrap());
            assert!(values.touch("a", hours(1)).await.unwrap());
            let (inner, made) = (values.clone(), new());
            drop(inner.get_or_set("b", move || ok(made)).await.unwrap());
            values.set_many([("a", new()), ("a", new())]).await.unwrap();
            values.delete_many(&["a", "b"]).await.unwrap();
            harness.stack.check_invariants().unwrap();
        });
        sender.send(()).unwrap();
    });
    done.recv_timeout(Duration::from_secs(20)).expect("it neither panics nor locks itself out");
}

/// A codec that panics on some numbers.
struct Fragile;

impl larder::codec::Codec<u32> for Fragile {
    fn id(&self) -> larder::codec::CodecId {
        larder::codec::CodecId(200)
    }
    fn encode(&self, value: &u32) -> Result<Bytes, larder::BoxError> {
        assert_ne!(*value, 13, "told to panic");
        Ok(value.to_string().into())
    }
    fn decode(&self, bytes: &Bytes) -> Result<u32, larder::BoxError> {
        let value = std::str::from_utf8(bytes)?.parse()?;
        assert_ne!(value, 14, "told to panic");
        Ok(value)
    }
}

#[tokio::test]
async fn a_codec_that_panics_strands_nobody_and_leaves_the_books_in_order() {
    for tiers in [Tiers::L2, Tiers::Both] {
        let harness = Harness::new(tiers);
        let numbers = harness.stack.cache_with::<u32>(Fragile);
        let (first, second) = (numbers.clone(), numbers.clone());
        let (one, two) = tokio::join!(first.get_or_set("a", || ok(13)), second.get_or_set("a", || ok(13)));
        assert!(one.is_err() && two.is_err());
        let plain = harness.stack.cache_with::<u32>(larder::codec::Json);
        for key in ["b", "c"] {
            plain.set(key, 14).await.unwrap();
        }
        for name in ["set", "get", "get_many", "increment"] {
            let numbers = numbers.clone();
            let task = tokio::spawn(async move {
                match name {
                    "set" => numbers.set("a", 13).await.unwrap(),
                    "increment" => drop(numbers.increment("n", 13).await.unwrap()),
                    "get" => drop(numbers.get("d").await.unwrap()),
                    _ => drop(numbers.get_many(&["d", "e"]).await.unwrap()),
                }
            });
            assert_eq!(task.await.is_err(), ["set", "increment"].contains(&name), "{name}");
        }
        numbers.set("a", 1).await.unwrap();
        assert_eq!(numbers.get("a").await.unwrap().as_deref(), Some(&1));
        harness.stack.check_invariants().unwrap();
    }
}

#[tokio::test]
async fn a_delete_during_the_write_of_a_load_wins_though_a_clear_reclaims_what_it_left_behind() {
    let here = Harness::new(Tiers::L2);
    let there = Harness::over(Tiers::L2, here.clock.clone(), here.store.clone(), |builder| builder);
    let numbers = cache::<u32>(&here);
    there.chaos.stall(Operation::Clear);
    let clear = tokio::spawn({
        let theirs = cache::<u32>(&there);
        async move { theirs.clear().await }
    });
    for _ in 0..50 {
        yield_now().await;
    }
    here.clock.advance(seconds(1));
    here.chaos.stall(Operation::SetMany);
    let load = tokio::spawn({
        let numbers = numbers.clone();
        async move { numbers.get_or_set("a", || ok(1)).await }
    });
    for _ in 0..50 {
        yield_now().await;
    }
    here.clock.advance(seconds(1));
    numbers.delete("a").await.unwrap();
    there.chaos.release(Operation::Clear);
    clear.await.unwrap().unwrap();
    here.chaos.release(Operation::SetMany);
    assert_eq!(*load.await.unwrap().unwrap(), 1);
    assert_eq!(numbers.get("a").await.unwrap(), None);
    here.finish(2).await;
}
