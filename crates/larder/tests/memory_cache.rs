//! [`MemoryCache`] as its users see it: expiry, limits, reports, and one computation per key.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that panics has failed, and so have its helpers"
)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use larder::event::EvictionCause;
use larder::memory::{MemoryCache, MemoryCacheBuilder};
use larder::time::{Clock, Timestamp, Ttl, seconds};

#[derive(Debug, Default)]
struct Hand(AtomicU64);

impl Hand {
    fn set(&self, millis: u64) {
        self.0.store(millis, Ordering::Relaxed);
    }
}

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed))
    }
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

type Numbers = MemoryCache<u64, u64>;
type Reports = Arc<Mutex<Vec<(String, u64, EvictionCause)>>>;

fn reporting(builder: MemoryCacheBuilder<String, u64>) -> (MemoryCache<String, u64>, Reports) {
    let reports = Reports::default();
    let told = Arc::clone(&reports);
    let tell =
        move |key: &String, value: &u64, cause| told.lock().unwrap().push((key.clone(), *value, cause));
    (builder.on_eviction(tell).build(), reports)
}

fn taken(reports: &Reports) -> Vec<(String, u64, EvictionCause)> {
    std::mem::take(&mut *reports.lock().unwrap())
}

#[test]
fn clones_share_one_cache_and_lookups_borrow() {
    let cache: MemoryCache<String, Vec<u8>> = MemoryCache::new(10);
    cache.clone().insert("a".into(), vec![1]);
    assert_eq!(cache.get("a").as_deref(), Some(&vec![1]));
    assert!(cache.contains("a") && !cache.contains("b"));
    assert_eq!(cache.remove("a").as_deref(), Some(&vec![1]));
    assert!(cache.is_empty() && cache.remove("a").is_none());
}

#[test]
fn a_hit_hands_out_the_very_value_that_was_stored() {
    let cache = MemoryCache::new(10);
    cache.insert(1, "one");
    assert!(Arc::ptr_eq(&cache.get(&1).unwrap(), &cache.get(&1).unwrap()));
    assert_eq!(cache.insert(1, "uno").as_deref(), Some(&"one"));
}

#[test]
fn an_entry_lives_for_its_ttl_to_the_millisecond_and_is_reported_when_found() {
    let hand = Arc::new(Hand::default());
    let (cache, reports) = reporting(MemoryCache::builder().ttl(seconds(1)).clock(hand.clone()));
    cache.insert("own".into(), 1);
    cache.insert_with_ttl("longer".into(), 2, seconds(2));
    cache.insert_with_ttl("forever".into(), 3, Ttl::Forever);
    hand.set(999);
    assert!(cache.contains("own"));
    hand.set(1_000);
    assert_eq!((cache.get("own"), cache.len()), (None, 2));
    assert_eq!(taken(&reports), [("own".to_string(), 1, EvictionCause::Expired)]);
    hand.set(u64::MAX);
    assert_eq!(cache.iter().map(|(key, _)| key).collect::<Vec<_>>(), ["forever"]);
    assert_eq!((cache.len(), cache.prune(), cache.len()), (2, 1, 1));
    assert_eq!(taken(&reports), [("longer".to_string(), 2, EvictionCause::Expired)]);
}

#[test]
fn an_expired_value_is_neither_replaced_nor_removed_but_expired() {
    let hand = Arc::new(Hand::default());
    let (cache, reports) = reporting(MemoryCache::builder().ttl(seconds(1)).clock(hand.clone()));
    cache.insert("a".into(), 1);
    cache.insert("b".into(), 2);
    hand.set(1_000);
    assert_eq!((cache.insert("a".into(), 3), cache.remove("b")), (None, None));
    let expired = |key: &str, value| (key.to_string(), value, EvictionCause::Expired);
    assert_eq!(taken(&reports), [expired("a", 1), expired("b", 2)]);
    assert_eq!(cache.get("a").as_deref(), Some(&3));
}

#[test]
fn a_ttl_of_zero_stores_nothing_and_leaves_nothing_older() {
    let cache = MemoryCache::new(10);
    cache.insert("a", 1);
    assert_eq!(cache.insert_with_ttl("a", 2, Duration::ZERO).as_deref(), Some(&1));
    assert_eq!((cache.get("a"), cache.len()), (None, 0));
    let cache = MemoryCache::builder().ttl(Duration::ZERO).build();
    assert_eq!((*cache.get_or_insert_with("a", || 5), cache.len()), (5, 0));
}

#[test]
fn what_is_evicted_or_too_large_is_reported_with_its_cause() {
    let builder = MemoryCache::builder().max_items(1).max_bytes(1_000).weigher(|_, value| *value);
    let (cache, reports) = reporting(builder);
    cache.insert("a".into(), 1);
    cache.insert("b".into(), 744);
    assert_eq!(cache.bytes(), 1_000, "exactly the limit fits");
    assert_eq!(taken(&reports), [("a".to_string(), 1, EvictionCause::Capacity)]);
    assert_eq!(cache.insert("b".into(), 745).as_deref(), Some(&744));
    assert_eq!((cache.get("b"), cache.bytes()), (None, 0));
    assert_eq!(taken(&reports), [("b".to_string(), 745, EvictionCause::TooLarge)]);
    cache.insert("c".into(), 1);
    cache.clear();
    cache.insert("d".into(), 1);
    cache.remove("d");
    assert_eq!((taken(&reports), cache.len()), (vec![], 0));
}

struct Reentrant(Arc<OnceLock<MemoryCache<u64, Reentrant>>>);

impl Drop for Reentrant {
    fn drop(&mut self) {
        if let Some(cache) = self.0.get() {
            cache.get(&1);
            cache.remove(&99);
        }
    }
}

#[test]
fn the_eviction_callback_and_the_drop_of_a_value_may_use_the_cache() {
    let slot = Arc::new(OnceLock::new());
    let inside: Arc<OnceLock<MemoryCache<u64, Reentrant>>> = Arc::clone(&slot);
    let report = move |key: &u64, _: &Reentrant, _| {
        if let Some(cache) = inside.get() {
            cache.remove(key);
            cache.len();
        }
    };
    let cache = MemoryCache::builder().max_items(2).on_eviction(report).build();
    assert!(slot.set(cache.clone()).is_ok());
    for key in 0..20 {
        cache.insert(key, Reentrant(Arc::clone(&slot)));
        cache.get_or_insert_with(key + 100, || Reentrant(Arc::clone(&slot)));
    }
    cache.clear();
    assert_eq!(cache.len(), 0);
}

#[test]
fn however_many_threads_ask_one_computes() {
    let cache = Numbers::new(1_000);
    let computed = AtomicUsize::new(0);
    let barrier = Barrier::new(8);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for round in 0..200 {
                    barrier.wait();
                    let value = cache.get_or_insert_with(round, || {
                        computed.fetch_add(1, Ordering::SeqCst);
                        round * 2
                    });
                    assert_eq!(*value, round * 2);
                }
            });
        }
    });
    assert_eq!(computed.load(Ordering::SeqCst), 200);
}

type Leader<'s> = thread::ScopedJoinHandle<'s, thread::Result<Result<Arc<u64>, ()>>>;

/// Starts a computation of key 1 that goes on when told, and returns when it has begun.
fn begun<'s>(
    scope: &'s thread::Scope<'s, '_>,
    cache: &'s Numbers,
    finish: impl FnOnce() -> Result<u64, ()> + Send + 's,
) -> (mpsc::Sender<()>, Leader<'s>) {
    let (begin, has_begun) = mpsc::channel();
    let (go, may_go) = mpsc::channel::<()>();
    let compute = move || {
        begin.send(()).unwrap();
        let _ = may_go.recv();
        finish()
    };
    let leader = scope.spawn(|| catch_unwind(AssertUnwindSafe(|| cache.try_get_or_insert_with(1, compute))));
    has_begun.recv().unwrap();
    (go, leader)
}

#[test]
fn a_failure_or_a_panic_frees_the_key_for_those_who_wait() {
    for panics in [false, true] {
        let cache = Numbers::new(10);
        thread::scope(|scope| {
            let fail = move || if panics { panic!("as asked") } else { Err(()) };
            let (go, leader) = begun(scope, &cache, fail);
            let wait = || cache.get_or_insert_with(1, || 7);
            let waiters: Vec<_> = (0..3).map(|_| scope.spawn(wait)).collect();
            go.send(()).unwrap();
            match leader.join().unwrap() {
                Err(_) => assert!(panics),
                Ok(result) => assert_eq!(result, Err(())),
            }
            for waiter in waiters {
                assert_eq!(*waiter.join().unwrap(), 7);
            }
        });
        assert_eq!(cache.get(&1).as_deref(), Some(&7));
    }
}

#[test]
fn a_write_during_a_computation_wins() {
    type Write = fn(&Numbers);
    let writes: [(Write, Option<u64>); 4] = [
        (|cache| drop(cache.insert(1, 5)), Some(5)),
        (|cache| drop(cache.remove(&1)), None),
        (|cache| drop(cache.insert_with_ttl(1, 5, Duration::ZERO)), None),
        (Numbers::clear, None),
    ];
    for (write, left) in writes {
        let cache = Numbers::new(10);
        thread::scope(|scope| {
            let (go, leader) = begun(scope, &cache, || Ok(9));
            write(&cache);
            go.send(()).unwrap();
            assert_eq!(*leader.join().unwrap().unwrap().unwrap(), 9);
        });
        assert_eq!(cache.get(&1).as_deref().copied(), left);
    }
}

#[test]
fn a_write_of_another_key_during_a_computation_changes_nothing() {
    let cache = Numbers::new(10);
    thread::scope(|scope| {
        let (go, leader) = begun(scope, &cache, || Ok(9));
        cache.insert(2, 5);
        go.send(()).unwrap();
        leader.join().unwrap().unwrap().unwrap();
    });
    assert_eq!(cache.get(&1).as_deref(), Some(&9));
}

#[test]
fn a_computation_that_asks_for_its_own_key_does_not_wait_for_itself() {
    let cache = Numbers::new(10);
    let outer = cache.get_or_insert_with(1, || {
        let inner = cache.get_or_insert_with(1, || 20);
        assert_eq!(cache.get(&1), None, "the inner value is not stored");
        *inner + 1
    });
    assert_eq!((*outer, cache.get(&1).as_deref()), (21, Some(&21)));
}

#[test]
fn computations_that_ask_for_each_others_keys_do_not_wait_for_each_other() {
    // Over two caches, because a circle need not lie in one.
    let (left, right) = (Numbers::new(10), Numbers::new(10));
    let both_began = Barrier::new(2);
    let cross = |outer: &Numbers, inner: &Numbers| {
        *outer.get_or_insert_with(1, || {
            both_began.wait();
            *inner.get_or_insert_with(1, || 100) + 1
        })
    };
    let mut values = thread::scope(|scope| {
        let one = scope.spawn(|| cross(&left, &right));
        let two = scope.spawn(|| cross(&right, &left));
        [one.join().unwrap(), two.join().unwrap()]
    });
    values.sort_unstable();
    assert_eq!(values, [101, 102], "one of them computed the other's value for itself");
}

fn storm(cache: &Numbers, seed: u64) {
    let mut random = 2 * seed + 1;
    for _ in 0..20_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let key = (random >> 33) % 500;
        match (random >> 20) % 6 {
            0 => drop(cache.remove(&key)),
            1 => drop(cache.insert(key, key)),
            2 | 3 => assert_eq!(*cache.get_or_insert_with(key, || key), key),
            _ => assert!(cache.get(&key).is_none_or(|value| *value == key)),
        }
    }
}

#[test]
fn no_value_is_foreign_to_its_key_after_a_storm() {
    let builder = MemoryCache::builder().max_items(20).max_bytes(20 * 400);
    let cache: Numbers = builder.weigher(|key, _| key % 300).build();
    thread::scope(|scope| {
        for seed in 0..4 {
            let cache = &cache;
            scope.spawn(move || storm(cache, seed));
        }
    });
    assert!(cache.len() <= 20 && cache.bytes() <= 20 * 400);
    assert!(cache.iter().all(|(key, value)| key == *value));
    assert_eq!(cache.bytes(), cache.iter().map(|(key, _)| 256 + key % 300).sum::<u64>());
}
