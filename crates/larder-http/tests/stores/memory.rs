//! `MemoryStore`: undici's limits, and what happens at them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder_http::store::{Full, HttpStore, MemoryStore, MemoryStoreOptions};

use crate::sample::{clock, has, now, put, put_response, written};

fn store(change: impl FnOnce(&mut MemoryStoreOptions)) -> MemoryStore {
    let mut options = MemoryStoreOptions::default();
    change(&mut options);
    MemoryStore::new(options).with_clock(clock())
}

#[test]
fn the_defaults_are_those_of_undici() {
    let MemoryStoreOptions { size_max, count_max, entry_bytes_max, .. } = MemoryStoreOptions::default();
    assert_eq!((size_max, count_max, entry_bytes_max), (104_857_600, 1024, 5_242_880));
}

/// U7: and it is below its limits afterwards.
#[tokio::test]
async fn u7_the_default_count_is_kept() {
    let store = store(|_| {});
    for n in 0..1_100 {
        put(&store, &format!("http://a/{n}"), 1, now(&clock())).await;
    }
    assert_eq!(store.count(), 1_024);
    assert!(has(&store, "http://a/1099").await && !has(&store, "http://a/0").await);
}

/// U3 and U8: exactly the limit is kept, a byte more is not, and what was there stays.
#[tokio::test]
async fn u8_a_body_of_the_limit_is_kept_and_one_byte_more_is_not() {
    let store = store(|_| {});
    assert!(put(&store, "http://a/", 5 << 20, now(&clock())).await);
    assert!(!put(&store, "http://a/", (5 << 20) + 1, now(&clock())).await);
    assert_eq!(store.size(), 5 << 20);
}

/// U9.
#[tokio::test]
async fn u9_the_size_is_that_of_the_bodies() {
    let store = store(|_| {});
    assert_eq!(store.size(), 0);
    put(&store, "http://a/1", 100, now(&clock())).await;
    put(&store, "http://a/2", 23, now(&clock())).await;
    put(&store, "http://a/2", 50, now(&clock())).await;
    assert_eq!((store.size(), store.count()), (150, 2));
    store.delete("http://a/1").await.unwrap();
    assert_eq!((store.size(), store.count()), (50, 1));
    store.clear().await.unwrap();
    assert_eq!((store.size(), store.count()), (0, 0));
}

/// U10.
#[tokio::test]
async fn u10_it_is_full_by_size_and_by_count() {
    let by_count = store(|options| options.count_max = 2);
    put(&by_count, "http://a/1", 1, now(&clock())).await;
    assert!(!by_count.is_full());
    put(&by_count, "http://a/2", 1, now(&clock())).await;
    assert!(by_count.is_full());
    assert!(put(&by_count, "http://a/3", 1, now(&clock())).await, "others go");
    assert!(!HttpStore::is_full(&by_count), "so the cache goes on storing");
    let by_size = store(|options| options.size_max = 100);
    put(&by_size, "http://a/1", 99, now(&clock())).await;
    assert!(!by_size.is_full());
    put(&by_size, "http://a/2", 1, now(&clock())).await;
    assert!(by_size.is_full());
}

/// U11: once for each time that a limit is exceeded, with how things were.
#[tokio::test]
async fn u11_who_listens_is_told_what_is_exceeded() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener = Arc::clone(&told);
    let mut options = MemoryStoreOptions::default();
    (options.size_max, options.count_max) = (100, 3);
    let store = MemoryStore::new(options)
        .with_clock(clock())
        .on_full(move |full| listener.lock().unwrap().push(full));
    for n in 0..3 {
        put(&store, &format!("http://a/{n}"), 20, now(&clock())).await;
    }
    assert!(told.lock().unwrap().is_empty());
    put(&store, "http://a/3", 20, now(&clock())).await;
    put(&store, "http://a/4", 90, now(&clock())).await;
    let told = told.lock().unwrap();
    let told: Vec<_> =
        told.iter().map(|full: &Full| (full.size, full.size_max, full.count, full.count_max)).collect();
    assert_eq!(told, [(80, 100, 4, 3), (150, 100, 4, 3)]);
    assert_eq!((store.size(), store.count()), (90, 1));
}

/// undici, at the time of writing, evicts nothing where each target has one response.
#[tokio::test]
async fn what_was_used_least_recently_goes_first() {
    let store = store(|options| options.count_max = 3);
    for n in 0..3 {
        put(&store, &format!("http://a/{n}"), 1, now(&clock())).await;
    }
    assert!(has(&store, "http://a/0").await, "a use");
    put(&store, "http://a/3", 1, now(&clock())).await;
    assert!(!has(&store, "http://a/1").await);
    for n in [0, 2, 3] {
        assert!(has(&store, &format!("http://a/{n}")).await, "{n} was used later");
    }
}

/// undici never reclaims what expired.
#[tokio::test]
async fn what_is_of_no_use_any_more_goes_before_anything_else() {
    let clock = clock();
    let mut options = MemoryStoreOptions::default();
    options.count_max = 3;
    let store = MemoryStore::new(options).with_clock(clock.clone());
    put(&store, "http://a/0", 1, now(&clock)).await;
    let mut short = written(&store, "http://a/1", vec![1; 10].into(), now(&clock)).await.unwrap();
    short.delete_at = now(&clock) + Duration::from_secs(10);
    put_response(&store, "http://a/1", short, now(&clock)).await;
    put(&store, "http://a/2", 1, now(&clock)).await;
    assert_eq!((store.size(), store.count()), (12, 3));
    clock.advance(Duration::from_secs(10));
    assert!(!has(&store, "http://a/1").await);
    put(&store, "http://a/3", 1, now(&clock)).await;
    assert!(has(&store, "http://a/0").await);
    assert_eq!((store.size(), store.count()), (3, 3));
}

#[tokio::test]
async fn a_length_that_is_announced_is_refused_before_the_body_comes() {
    let store = store(|options| options.entry_bytes_max = 10);
    for (length, taken) in [("10", true), ("11", false), ("nonsense", true)] {
        let mut kept = crate::sample::head(now(&clock())).into_kept();
        kept.headers.insert("content-length", length.parse().unwrap());
        let head = larder_http::policy::Stored::new(&larder_http::policy::Policy::shared(), kept);
        assert_eq!(store.create("http://a/", &head).await.unwrap().is_some(), taken, "{length}");
    }
}
