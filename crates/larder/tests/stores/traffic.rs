//! Keys and calls that clients get wrong: whatever happens, no call reads another one's answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, future};
use larder::driver::{Driver, When, Write};
use larder::time::{Stamp, minutes, seconds};
use larder::{Cache, Stack};

/// Runs the tests of this file over a driver: `open` gives one, or `None` if there is no server.
macro_rules! traffic_suite {
    ($name:ident, $open:expr) => {
        mod $name {
            use super::*;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn a_thousand_nasty_keys_are_told_apart() {
                if let Some(driver) = $open().await {
                    $crate::traffic::nasty_keys(&driver).await;
                }
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn no_answer_reaches_another_key_however_many_calls_are_dropped() {
                if let Some(driver) = $open().await {
                    $crate::traffic::dropped_calls(std::sync::Arc::new(driver)).await;
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

/// A thousand keys that one store or another takes for something else, each with a value that names it.
pub(crate) async fn nasty_keys(driver: &dyn Driver) {
    const PARTS: [&str; 24] = [
        "",
        " ",
        "\0",
        "\r\n",
        "$5\r\n",
        "\r\nEN\r\nmn\r\n",
        "' OR 1=1; --",
        "%",
        "_",
        "A",
        "a",
        "ß",
        "ss",
        "\u{feff}",
        "\u{7f}",
        "*",
        "?",
        "[a-z]",
        "\\",
        "{tag}",
        "{}",
        "é",
        "e\u{301}",
        "\u{10ffff}",
    ];
    let prefix = prefix("nasty");
    let mut keys = std::collections::BTreeSet::new();
    'all: for one in PARTS {
        for two in PARTS {
            for three in PARTS {
                keys.insert(format!("{prefix}{one}{two}x{three}"));
                if keys.len() == 1_000 {
                    break 'all;
                }
            }
        }
    }
    assert_eq!(keys.len(), 1_000);
    let writes = keys.iter().map(|key| Write {
        key: key.clone(),
        value: Bytes::from(format!("the value of {key}, which is text of some length")),
        ttl: None,
        when: When::Newer,
    });
    driver.set_many(writes.collect()).await.unwrap();
    let asked: Vec<&str> = keys.iter().map(String::as_str).collect();
    let found = driver.get_many(&asked).await.unwrap();
    for (key, found) in asked.iter().zip(found) {
        let own = format!("the value of {key}, which is text of some length");
        assert_eq!(found.as_deref(), Some(own.as_bytes()), "{key:?}");
        assert_eq!(driver.get(key).await.unwrap().as_deref(), Some(own.as_bytes()), "{key:?}");
    }
    if !driver.capabilities().enumerates {
        driver.delete_many(&asked).await.unwrap();
        return;
    }
    let mut listed: Vec<String> = driver.scan(&prefix).map(|found| found.unwrap().key).collect().await;
    listed.sort_unstable();
    assert_eq!(listed, keys.iter().cloned().collect::<Vec<_>>());
    assert_eq!(driver.clear(&prefix, Stamp::MAX).await.unwrap(), 1_000);
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
