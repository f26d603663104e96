//! What a hit in memory costs: nothing that can be counted.

use std::future::IntoFuture as _;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use allocation_counter::measure;
use larder::testing::{Harness, Tiers};
use larder::time::minutes;
use larder::{Cache, Stack, memory::MemoryOptions};

use crate::flow::ok;

fn warm() -> (Stack, Cache<u64>) {
    let stack = Stack::builder("cost").memory(MemoryOptions::new(1_000)).build().unwrap();
    let cache = stack.cache::<u64>().unwrap();
    futures_util::FutureExt::now_or_never(cache.set("key", 7).tags(["a", "b", "c"]).into_future())
        .unwrap()
        .unwrap();
    (stack, cache)
}

/// Polls once: ready, or it would have yielded.
fn at_once<F: std::future::Future>(future: F) -> F::Output {
    let mut ctx = Context::from_waker(Waker::noop());
    match pin!(future).poll(&mut ctx) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it yielded"),
    }
}

#[test]
fn a_hit_in_memory_allocates_nothing_and_does_not_yield() {
    let (stack, cache) = warm();
    let hit = |label: &str, run: &mut dyn FnMut()| {
        run();
        let counted = measure(|| {
            for _ in 0..100 {
                run();
            }
        });
        assert_eq!(counted.count_total, 0, "{label}");
    };
    hit("get", &mut || assert_eq!(at_once(cache.get("key")).unwrap().as_deref(), Some(&7)));
    hit("get_or_set", &mut || {
        assert_eq!(*at_once(cache.get_or_set("key", || ok(8_u64)).into_future()).unwrap(), 7);
    });
    hit("get_or_set with options and tags", &mut || {
        let request =
            cache.get_or_set("key", || ok(8_u64)).ttl(minutes(1)).grace(minutes(1)).tags(["a", "b", "c"]);
        assert_eq!(*at_once(request.into_future()).unwrap(), 7);
    });
    at_once(cache.set("plain", 7).into_future()).unwrap();
    hit("get without tags", &mut || assert_eq!(at_once(cache.get("plain")).unwrap().as_deref(), Some(&7)));
    at_once(cache.invalidate(["other"]).into_future()).unwrap();
    hit("get after some tag was invalidated", &mut || {
        assert_eq!(at_once(cache.get("key")).unwrap().as_deref(), Some(&7));
    });
    hit("has", &mut || assert!(at_once(cache.has("key")).unwrap()));
    assert_eq!(stack.stats().misses, 0);
}

#[test]
fn a_miss_of_memory_alone_allocates_nothing_either() {
    let (stack, cache) = warm();
    let counted = measure(|| assert_eq!(at_once(cache.get("missing")).unwrap(), None));
    assert_eq!((counted.count_total, stack.stats().misses), (0, 1));
}

#[test]
fn a_miss_is_seen_by_the_counter_so_the_counter_works() {
    let (_stack, cache) = warm();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let counted = measure(|| {
        runtime.block_on(async { cache.get_or_set("other", || ok(1_u64)).await.unwrap() });
    });
    assert!(counted.count_total > 0);
}

#[test]
fn observers_do_not_make_a_hit_allocate_or_yield() {
    let harness = Harness::new(Tiers::Both);
    let cache = harness.stack.cache::<u64>().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { cache.set("key", 7).await }).unwrap();
    assert_eq!(at_once(cache.get("key")).unwrap().as_deref(), Some(&7));
}
