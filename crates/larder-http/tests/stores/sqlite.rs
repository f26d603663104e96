//! `SqliteStore`: undici's options, and files that stores share.

use std::time::Duration;

use larder::testing::ManualClock;
use larder_http::policy::Policy;
use larder_http::store::{HttpStore as _, SqliteStore, SqliteStoreOptions};

use crate::sample::{body_of, clock, has, now, put};

async fn open(clock: &ManualClock, change: impl FnOnce(&mut SqliteStoreOptions)) -> SqliteStore {
    let mut options = SqliteStoreOptions::default();
    options.clock = std::sync::Arc::new(clock.clone());
    change(&mut options);
    SqliteStore::open(Policy::shared(), options).await.unwrap()
}

async fn count(store: &SqliteStore) -> usize {
    use futures_util::TryStreamExt as _;
    store.targets("").unwrap().try_collect::<Vec<_>>().await.unwrap().len()
}

/// U3: there is no limit unless told, and a body of exactly the limit is kept.
#[tokio::test]
async fn u3_a_body_of_the_limit_is_kept_and_one_byte_more_is_not() {
    let clock = clock();
    let store = open(&clock, |_| {}).await;
    assert!(put(&store, "http://a/", 6 << 20, now(&clock)).await);
    let store = open(&clock, |options| options.entry_bytes_max = Some(1_000)).await;
    assert!(put(&store, "http://a/", 1_000, now(&clock)).await);
    assert!(!put(&store, "http://a/", 1_001, now(&clock)).await);
    assert_eq!(body_of(&store, "http://a/").await.map(|body| body.len()), Some(1_000));
}

/// U12.
#[tokio::test]
async fn u12_two_stores_on_one_file_see_each_other() {
    let clock = clock();
    let directory = tempfile::tempdir().unwrap();
    let location = directory.path().join("cache.db").to_str().unwrap().to_owned();
    let one = open(&clock, |options| options.location.clone_from(&location)).await;
    let two = open(&clock, |options| options.location.clone_from(&location)).await;
    for (n, bytes) in [10, 700_000].into_iter().enumerate() {
        let target = format!("http://a/{n}");
        assert!(put(&one, &target, bytes, now(&clock)).await);
        assert_eq!(body_of(&two, &target).await.map(|body| body.len()), Some(bytes));
        two.delete(&target).await.unwrap();
        assert!(!has(&one, &target).await);
    }
    assert!(put(&two, "http://a/kept", 300_000, now(&clock)).await);
    one.close().await.unwrap();
    two.close().await.unwrap();
    let later = open(&clock, |options| options.location.clone_from(&location)).await;
    assert_eq!(
        body_of(&later, "http://a/kept").await.map(|body| body.len()),
        Some(300_000),
        "it survives a restart"
    );
}

/// U13.
#[tokio::test]
async fn u13_there_are_never_more_than_may_be() {
    let clock = clock();
    for count_max in [1, 2, 10, 25] {
        let store = open(&clock, |options| options.count_max = Some(count_max)).await;
        for n in 0..60 {
            clock.advance(Duration::from_millis(10));
            assert!(put(&store, &format!("http://a/{n}"), 5, now(&clock)).await);
            assert!(has(&store, &format!("http://a/{n}")).await, "the newest is there");
            assert!(count(&store).await <= count_max as usize);
        }
        assert!(count(&store).await + 3 > count_max as usize, "and not many fewer");
    }
}

/// U14.
#[tokio::test]
async fn u14_the_same_target_again_is_no_second_one() {
    let clock = clock();
    let store = open(&clock, |options| options.count_max = Some(2)).await;
    put(&store, "http://a/0", 5, now(&clock)).await;
    for _ in 0..5 {
        clock.advance(Duration::from_millis(10));
        put(&store, "http://a/1", 5, now(&clock)).await;
    }
    assert!(has(&store, "http://a/0").await && has(&store, "http://a/1").await);
}

/// U15.
#[tokio::test]
async fn u15_the_oldest_goes_first() {
    let clock = clock();
    let store = open(&clock, |options| options.count_max = Some(3)).await;
    for n in [2, 0, 1, 3, 4] {
        clock.advance(Duration::from_millis(10));
        put(&store, &format!("http://a/{n}"), 5, now(&clock)).await;
    }
    let left: Vec<bool> = [
        has(&store, "http://a/0").await,
        has(&store, "http://a/1").await,
        has(&store, "http://a/2").await,
        has(&store, "http://a/3").await,
        has(&store, "http://a/4").await,
    ]
    .into();
    assert_eq!(left, [false, true, false, true, true]);
}

/// Two stores that write to one file keep the limit together.
#[tokio::test]
async fn two_stores_keep_one_limit() {
    let clock = clock();
    let directory = tempfile::tempdir().unwrap();
    let location = directory.path().join("cache.db").to_str().unwrap().to_owned();
    let open = async || {
        open(&clock, |options| {
            options.location.clone_from(&location);
            options.count_max = Some(20);
        })
        .await
    };
    let (one, two) = (open().await, open().await);
    for n in 0..60 {
        clock.advance(Duration::from_millis(10));
        put(&one, &format!("http://one/{n}"), 5, now(&clock)).await;
        put(&two, &format!("http://two/{n}"), 5, now(&clock)).await;
        assert!(count(&one).await <= 20, "{} after {n}", count(&one).await);
    }
}
