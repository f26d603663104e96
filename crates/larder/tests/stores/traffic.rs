//! Calls that clients get wrong: whatever happens, no call reads another one's answer, and of many processes one loads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt as _, future};
use larder::driver::{Driver, When};
use larder::time::{minutes, seconds};
use larder::{Cache, Stack};

/// Runs the tests of this file over a driver: `open` gives one, or `None` if there is no server.
macro_rules! traffic_suite {
    ($name:ident, $open:expr) => {
        mod $name {
            use super::*;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn no_answer_reaches_another_key_however_many_calls_are_dropped() {
                if let Some(driver) = $open().await {
                    $crate::traffic::dropped_calls(std::sync::Arc::new(driver)).await;
                }
            }

            #[tokio::test]
            async fn it_says_what_it_speaks_to() {
                if let Some(driver) = $open().await {
                    $crate::traffic::version(&driver).await;
                }
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn of_eight_processes_one_loads() {
                if let Some(driver) = $open().await {
                    $crate::traffic::turns(std::sync::Arc::new(driver)).await;
                }
            }
        }
    };
}
pub(crate) use traffic_suite;

/// A prefix that no other test and no other process has.
pub(crate) fn prefix(name: &str) -> String {
    let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), name);
    format!("{name} {random:016x}:")
}

/// What the server is, for whoever reads the run.
pub(crate) async fn version(driver: &dyn Driver) {
    let version = driver.version().await.unwrap();
    println!("{}: {}", driver.name(), version.as_deref().unwrap_or("does not say"));
    let says = |version: &str| version.starts_with(char::is_alphabetic) && version.contains(char::is_numeric);
    // DynamoDB has no version.
    assert!(version.as_deref().map_or(driver.name() == "dynamodb", says), "{version:?}");
}

/// Calls that are polled once and dropped, between others.
pub(crate) async fn dropped_calls(driver: Arc<dyn Driver>) {
    let prefix = prefix("dropped");
    let key = |n: usize| format!("{prefix}{n}");
    for n in 0..100 {
        let value = Bytes::from(key(n).repeat(n + 1));
        driver.set(&key(n), value, None, When::Always).await.unwrap();
    }
    let workers = (0..8).map(|worker| {
        let (driver, prefix) = (Arc::clone(&driver), prefix.clone());
        tokio::spawn(async move {
            let key = |n: usize| format!("{prefix}{n}");
            for round in 0..1_000_usize {
                let (dropped, asked) = ((round * 7 + worker) % 100, (round * 13 + worker * 5) % 100);
                let _ = driver.get(&key(dropped)).now_or_never();
                let _ = driver.get_many(&[&key(dropped), &key(asked)]).now_or_never();
                if round % 3 == 0 {
                    let found = driver.get(&key(asked)).await.unwrap().unwrap();
                    assert_eq!(found, key(asked).repeat(asked + 1));
                }
            }
        })
    });
    for done in future::join_all(workers).await {
        done.unwrap();
    }
    let keys: Vec<String> = (0..100).map(key).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    assert_eq!(driver.delete_many(&keys).await.unwrap(), 100);
}

/// What processes are that take turns at loading: stacks over one store.
pub(crate) async fn turns(driver: Arc<dyn Driver>) {
    let prefix = prefix("turns");
    let loads = Arc::new(AtomicU64::new(0));
    let asking = (0..8).map(|_| {
        let (stack, loads) = (Stack::builder("turns").prefix(&prefix), Arc::clone(&loads));
        let cache: Cache<u64> = stack.store(Arc::clone(&driver)).build().unwrap().cache().unwrap();
        tokio::spawn(async move {
            let load = || async move {
                tokio::time::sleep(Duration::from_millis(300)).await;
                Ok::<_, std::io::Error>(loads.fetch_add(1, Ordering::Relaxed))
            };
            cache.get_or_set("k", load).ttl(minutes(5)).across_processes(seconds(5)).await.unwrap()
        })
    });
    for found in future::join_all(asking).await {
        assert_eq!(*found.unwrap(), 0);
    }
    assert_eq!(loads.load(Ordering::Relaxed), 1);
}
