//! What the races found: changes and loads that overtake each other between the store and memory, each in the one
//! order that went wrong.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt as _;
use larder::Cache;
use larder::driver::memory::MemoryDriver;
use larder::driver::{Capabilities, Driver, When, Written};
use larder::testing::{Harness, Tiers};
use larder::time::hours;
use tokio::sync::oneshot;

use crate::flow::{cache, ok};
use crate::overlap::poll;

/// Where a call of the store waits.
struct Stop {
    reached: oneshot::Sender<()>,
    go_on: oneshot::Receiver<()>,
    /// Before or after it has done its work.
    is_before: bool,
}

/// The other end of a [`Stop`].
struct Held {
    reached: oneshot::Receiver<()>,
    go_on: oneshot::Sender<()>,
}

impl Held {
    async fn reached(&mut self) {
        (&mut self.reached).await.unwrap();
    }

    fn release(self) {
        self.go_on.send(()).unwrap();
    }
}

/// A store whose next calls can be held.
#[derive(Clone)]
struct Holding {
    store: MemoryDriver,
    gets: Arc<Mutex<VecDeque<Stop>>>,
    sets: Arc<Mutex<VecDeque<Stop>>>,
}

impl Holding {
    fn hold(stops: &Mutex<VecDeque<Stop>>, is_before: bool) -> Held {
        let ((reached, is_reached), (go_on, goes_on)) = (oneshot::channel(), oneshot::channel());
        stops.lock().unwrap().push_back(Stop { reached, go_on: goes_on, is_before });
        Held { reached: is_reached, go_on }
    }

    async fn call<T>(stops: &Mutex<VecDeque<Stop>>, call: impl Future<Output = T>) -> T {
        let stop = stops.lock().unwrap().pop_front();
        let Some(Stop { reached, go_on, is_before }) = stop else { return call.await };
        if is_before {
            reached.send(()).unwrap();
            go_on.await.unwrap();
            return call.await;
        }
        let output = call.await;
        reached.send(()).unwrap();
        go_on.await.unwrap();
        output
    }
}

impl std::fmt::Debug for Holding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Holding").finish_non_exhaustive()
    }
}

#[async_trait]
impl Driver for Holding {
    fn name(&self) -> &'static str {
        "holding"
    }
    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }
    async fn get(&self, key: &str) -> larder::Result<Option<Bytes>> {
        Self::call(&self.gets, self.store.get(key)).await
    }
    async fn set(
        &self,
        key: &str,
        value: Bytes,
        ttl: Option<Duration>,
        when: When,
    ) -> larder::Result<Written> {
        Self::call(&self.sets, self.store.set(key, value, ttl, when)).await
    }
    async fn delete(&self, key: &str) -> larder::Result<bool> {
        self.store.delete(key).await
    }
}

/// Memory over a store whose calls can be held, and another process on the same store that has no memory.
fn pair() -> (Harness, Harness, Holding) {
    let other = Harness::new(Tiers::L2);
    let store = Holding { store: other.store.clone(), gets: Arc::default(), sets: Arc::default() };
    let driver = store.clone();
    let here =
        Harness::over(Tiers::Both, other.clock.clone(), other.store.clone(), |builder| builder.store(driver));
    (here, other, store)
}

async fn value(cache: &Cache<u32>) -> Option<u32> {
    cache.entry("a").await.unwrap().map(|entry| *entry.value)
}

#[tokio::test]
async fn a_set_that_a_load_overtook_in_the_store_does_not_stay_in_memory() {
    let (here, other, store) = pair();
    let (mine, theirs) = (cache::<u32>(&here), cache::<u32>(&other));
    let mut looked = Holding::hold(&store.gets, false);
    let load = tokio::spawn({
        let mine = mine.clone();
        async move { mine.get_or_set("a", || ok(2)).await }
    });
    looked.reached().await;
    let mut set = Holding::hold(&store.sets, false);
    let setting = tokio::spawn({
        let mine = mine.clone();
        async move { mine.set("a", 1).await }
    });
    set.reached().await;
    let mut loaded = Holding::hold(&store.sets, false);
    looked.release();
    loaded.reached().await;
    set.release();
    setting.await.unwrap().unwrap();
    loaded.release();
    assert_eq!(*load.await.unwrap().unwrap(), 2);
    assert_eq!((value(&mine).await, value(&theirs).await), (Some(2), Some(2)));
    here.finish(1).await;
}

#[tokio::test]
async fn a_set_in_memory_is_not_lost_to_a_rewrite_of_what_it_replaces() {
    let harness = Harness::new(Tiers::L1);
    let numbers = cache::<u32>(&harness);
    let is_armed = Arc::new(AtomicBool::new(false));
    let weighed = {
        let (numbers, is_armed) = (numbers.clone(), Arc::clone(&is_armed));
        numbers.clone().with_weigher(move |_| {
            // A weigher runs in the middle of the set, which is all that this needs.
            if is_armed.swap(false, Ordering::SeqCst) {
                assert!(numbers.touch("a", hours(2)).now_or_never().unwrap().unwrap());
            }
            4
        })
    };
    weighed.set("a", 1).await.unwrap();
    is_armed.store(true, Ordering::SeqCst);
    weighed.set("a", 2).await.unwrap();
    assert!(!is_armed.load(Ordering::SeqCst));
    assert_eq!(value(&numbers).await, Some(2));
    harness.finish(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_found_before_an_invalidation_is_not_handed_to_whoever_joins_after_it() {
    for clears in [true, false] {
        let (here, other, store) = pair();
        cache::<u32>(&other).set("a", 1).tags(["t"]).await.unwrap();
        let (found, is_found) = mpsc::channel();
        let (go_on, goes_on) = mpsc::channel::<()>();
        let goes_on = Mutex::new(Some(goes_on));
        // A weigher runs between finding an entry and handing it out.
        let mine = cache::<u32>(&here).with_weigher(move |_| {
            if let Some(goes_on) = goes_on.lock().unwrap().take() {
                found.send(()).unwrap();
                goes_on.recv().unwrap();
            }
            4
        });
        let mut mark = Holding::hold(&store.sets, true);
        let invalidating = tokio::spawn({
            let mine = mine.clone();
            async move { if clears { mine.clear().await.map(drop) } else { mine.invalidate(["t"]).await } }
        });
        mark.reached().await;
        let early = tokio::spawn({
            let mine = mine.clone();
            async move { mine.get_or_set("a", || ok(2)).tags(["t"]).await }
        });
        is_found.recv().unwrap();
        mark.release();
        invalidating.await.unwrap().unwrap();
        let (told, tells) = oneshot::channel();
        let mut late = {
            let mine = mine.clone();
            async move { told.send(*mine.get_or_set("a", || ok(3)).tags(["t"]).await.unwrap()).unwrap() }
                .boxed()
        };
        assert!(!poll(&mut late, 1).await, "it waits for the flight that is under way");
        go_on.send(()).unwrap();
        late.await;
        assert_ne!(tells.await.unwrap(), 1, "clears: {clears}");
        early.await.unwrap().unwrap();
        here.finish(2).await;
    }
}

#[tokio::test]
async fn a_set_that_another_process_deleted_does_not_reach_memory_after_that_was_heard() {
    let (here, other, store) = pair();
    let (mine, theirs) = (cache::<u32>(&here), cache::<u32>(&other));
    let mut set = Holding::hold(&store.sets, false);
    let setting = tokio::spawn({
        let mine = mine.clone();
        async move { mine.set("a", 1).await }
    });
    set.reached().await;
    assert!(theirs.delete("a").await.unwrap());
    assert_eq!(mine.get("a").await.unwrap(), None);
    set.release();
    setting.await.unwrap().unwrap();
    assert_eq!((value(&mine).await, value(&theirs).await), (None, None));
    here.finish(1).await;
}

#[tokio::test]
async fn a_set_does_not_survive_in_memory_a_clear_that_was_abandoned_after_the_store_had_it() {
    for clears in [true, false] {
        let (here, other, store) = pair();
        let (mine, theirs) = (cache::<u32>(&here), cache::<u32>(&other));
        let mut set = Holding::hold(&store.sets, false);
        let setting = tokio::spawn({
            let mine = mine.clone();
            async move { mine.set("a", 1).tags(["t"]).await }
        });
        set.reached().await;
        let invalidation = {
            let mine = mine.clone();
            async move {
                if clears { mine.clear().await.map(drop) } else { mine.invalidate(["t"]).await }.unwrap();
            }
        };
        // A tag's mark, and then the one that is newer than all tags.
        let mut marks: Vec<_> = (0..2).map(|_| Holding::hold(&store.sets, false)).collect();
        let mut invalidation = invalidation.boxed();
        assert!(!poll(&mut invalidation, 1).await);
        let mut last = marks.remove(0);
        last.reached().await;
        if !clears {
            last.release();
            assert!(!poll(&mut invalidation, 1).await);
            marks[0].reached().await;
        }
        drop(invalidation);
        set.release();
        setting.await.unwrap().unwrap();
        assert_eq!((value(&mine).await, value(&theirs).await), (None, None), "clears: {clears}");
        here.finish(0).await;
    }
}

#[tokio::test]
async fn what_removes_something_newer_from_memory_does_not_make_room_for_something_older() {
    for (index, name) in ["touch", "expire", "delete"].into_iter().enumerate() {
        let (here, other, store) = pair();
        let (mine, theirs) = (cache::<u32>(&here), cache::<u32>(&other));
        mine.set("a", 1).grace(hours(1)).await.unwrap();
        let mut changed = Holding::hold(&store.sets, false);
        let changing = tokio::spawn({
            let mine = mine.clone();
            async move {
                match index {
                    0 => mine.touch("a", hours(1)).await.map(drop),
                    1 => mine.expire("a").await.map(drop),
                    _ => mine.delete("a").await.map(drop),
                }
            }
        });
        changed.reached().await;
        let mut set = Holding::hold(&store.sets, false);
        let setting = tokio::spawn({
            let mine = mine.clone();
            async move { mine.set("a", 2).await }
        });
        set.reached().await;
        assert_eq!(*mine.get_or_set("a", || ok(3)).force().await.unwrap(), 3);
        changed.release();
        changing.await.unwrap().unwrap();
        set.release();
        setting.await.unwrap().unwrap();
        assert_eq!((value(&mine).await, value(&theirs).await), (Some(3), Some(3)), "{name}");
    }
}
