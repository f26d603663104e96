//! `MemoryStore`: undici's limits, and what happens at them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt as _;
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

/// Against a list: what was used least recently goes, and what is over before it, whatever came in between.
#[tokio::test]
async fn it_keeps_what_a_plain_list_would_keep() {
    let clock = clock();
    let mut options = MemoryStoreOptions::default();
    options.count_max = 8;
    let store = MemoryStore::new(options).with_clock(clock.clone());
    // The least recently used first: target, and when it is over.
    let mut model: Vec<(String, std::time::SystemTime)> = Vec::new();
    let mut state = 7_u64;
    for _ in 0..3_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (what, which) = ((state >> 33) % 8, (state >> 40) % 16);
        let target = format!("http://a/{which}");
        let at = model.iter().position(|(listed, _)| *listed == target);
        match what {
            0..4 => {
                let mut response = written(&store, &target, "x".into(), now(&clock)).await.unwrap();
                response.delete_at = now(&clock) + Duration::from_secs(5 + (state >> 50) % 20);
                let end = response.delete_at;
                put_response(&store, &target, response, now(&clock)).await;
                at.map(|at| model.remove(at));
                model.push((target, end));
                model.retain(|(_, end)| *end > now(&clock));
                let more = model.len().saturating_sub(8);
                model.drain(..more);
            }
            4..7 => {
                let is_there = at.is_some_and(|at| model[at].1 > now(&clock));
                assert_eq!(has(&store, &target).await, is_there);
                if let Some(at) = at {
                    let used = model.remove(at);
                    model.push(used);
                }
            }
            _ => clock.advance(Duration::from_secs(1)),
        }
        model.retain(|(_, end)| *end > now(&clock));
        let mut expected: Vec<&str> = model.iter().map(|(target, _)| target.as_str()).collect();
        expected.sort_unstable();
        let mut kept: Vec<String> = store.targets("").unwrap().map(Result::unwrap).collect().await;
        kept.sort_unstable();
        assert_eq!(kept, expected);
        assert_eq!((store.count(), store.size()), (model.len() as u64, model.len() as u64));
    }
}

/// Making room does not look at everything that is kept.
#[tokio::test]
async fn a_full_store_takes_more_about_as_quickly_as_an_empty_one() {
    let count = 20_000;
    let store = store(|options| options.count_max = count);
    let fill = async {
        for n in 0..2 * count {
            put(&store, &format!("http://a/{n}"), 1, now(&clock())).await;
            tokio::task::yield_now().await;
        }
    };
    // It takes seconds; with a look at all of them each time, many minutes.
    tokio::time::timeout(Duration::from_secs(60), fill).await.unwrap();
    assert_eq!(store.count(), count);
}
