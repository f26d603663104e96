//! Keys and calls that clients get wrong: whatever happens, no call reads another one's answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt as _, future};
use larder::driver::memcached::MemcachedDriver;
use larder::driver::{Driver, When, Write, Written};
use larder::time::{Stamp, days, seconds};

use super::{prefix, shared, shared_single};
use crate::record::record;

async fn drivers() -> Vec<Arc<MemcachedDriver>> {
    [shared().await, shared_single().await].into_iter().flatten().map(Arc::new).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_nasty_keys_are_told_apart() {
    const PARTS: [&str; 16] = [
        "",
        " ",
        "\0",
        "\r\n",
        "\t",
        "\u{7f}",
        "a\r\nset x 0 0 1\r\n1",
        " v k O1",
        "larder-sha256:",
        "é",
        "e\u{301}",
        "\u{10ffff}",
        "\u{85}",
        "*",
        "..",
        "\r",
    ];
    for driver in drivers().await {
        let prefix = prefix("nasty");
        let mut keys = std::collections::BTreeSet::new();
        for long in [0, 249, 250, 251, 1_000] {
            // With and without a blank in front, so that some begin like a hashed key.
            keys.insert(format!("{prefix}{}", "k".repeat(long)));
            keys.insert(format!("larder-sha256:{prefix}{}", "k".repeat(long)));
            keys.insert(format!("{}{}", prefix.replace(' ', "-"), "k".repeat(long)));
        }
        'all: for one in PARTS {
            for two in PARTS {
                for three in PARTS {
                    keys.insert(format!("{one}{prefix}{two}x{three}"));
                    keys.insert(format!("{one}{}{two}x{three}", prefix.replace(' ', "-")));
                    if keys.len() >= 1_000 {
                        break 'all;
                    }
                }
            }
        }
        assert!(keys.len() >= 1_000);
        let own = |key: &str| Bytes::from(format!("the value of {key}, which is text of some length"));
        let writes =
            keys.iter().map(|key| Write { key: key.clone(), value: own(key), ttl: None, when: When::Newer });
        driver.set_many(writes.collect()).await.unwrap();
        let asked: Vec<&str> = keys.iter().map(String::as_str).collect();
        let found = driver.get_many(&asked).await.unwrap();
        for (key, found) in asked.iter().zip(found) {
            assert_eq!(found, Some(own(key)), "{key:?}");
            assert_eq!(driver.get(key).await.unwrap(), Some(own(key)), "{key:?}");
        }
        assert_eq!(driver.delete_many(&asked).await.unwrap(), asked.len() as u64);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_hashed_key_is_called_is_another_key() {
    for driver in drivers().await {
        let key = "larder test: hashed because of its spaces";
        driver.set(key, record(1, "own"), None, When::Always).await.unwrap();
        // What that is called in the server, as a key of a user.
        let literal = "larder-sha256:3b4c233ba7bbd02e75acda762aa2cba6aef52c68973787e40d7e9872dda86264";
        assert!(driver.get(literal).await.unwrap().is_none_or(|found| found == record(2, "other")));
        driver.set(literal, record(2, "other"), None, When::Always).await.unwrap();
        assert_eq!(driver.get(key).await.unwrap(), Some(record(1, "own")));
        driver.delete_many(&[key, literal]).await.unwrap();
    }
}

/// Polls a call a few times, a little apart, and walks away from it wherever it then is.
async fn drop_midway<T>(call: impl Future<Output = T>, polls: usize) {
    let mut call = std::pin::pin!(call);
    for _ in 0..=polls {
        if call.as_mut().now_or_never().is_some() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_reaches_another_key_however_many_calls_are_dropped() {
    for driver in drivers().await {
        let prefix = prefix("dropped");
        for n in 0..100 {
            let key = format!("{prefix}{n}");
            driver.set(&key, record(1, &key.repeat(n + 1)), None, When::Always).await.unwrap();
        }
        let asked_in_all = Arc::new(AtomicU64::new(0));
        let workers = (0..8).map(|worker| {
            let (driver, prefix, asked_in_all) =
                (Arc::clone(&driver), prefix.clone(), Arc::clone(&asked_in_all));
            tokio::spawn(async move {
                let key = |n: usize| format!("{prefix}{n}");
                let own = |n: usize| record(1, &key(n).repeat(n + 1));
                for round in 0..1_000_usize {
                    let (dropped, asked) = ((round * 7 + worker) % 100, (round * 13 + worker * 5) % 100);
                    let polls = round % 5;
                    drop_midway(driver.get(&key(dropped)), polls).await;
                    drop_midway(driver.get_many(&[&key(dropped), &key(asked)]), polls).await;
                    // Refused, or the same again: it may be done or not.
                    drop_midway(driver.set(&key(dropped), own(dropped), None, When::Newer), polls).await;
                    let swap = When::Unchanged(Some(Stamp::from_bits(1)));
                    drop_midway(driver.set(&key(dropped), own(dropped), None, swap), polls).await;
                    drop_midway(driver.delete("nothing of this name"), polls).await;
                    if round % 3 == 0 {
                        assert_eq!(driver.get(&key(asked)).await.unwrap(), Some(own(asked)));
                        let found = driver.get_many(&[&key(asked), &key(dropped)]).await.unwrap();
                        assert_eq!(found, [Some(own(asked)), Some(own(dropped))]);
                        asked_in_all.fetch_add(3, Ordering::Relaxed);
                    }
                }
            })
        });
        for done in future::join_all(workers).await {
            done.unwrap();
        }
        println!("{} answers, none of them another's", asked_in_all.load(Ordering::Relaxed));
        let keys: Vec<String> = (0..100).map(|n| format!("{prefix}{n}")).collect();
        driver.delete_many(&keys.iter().map(String::as_str).collect::<Vec<_>>()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_of_many_racing_writes_stays_and_each_replaced_what_it_says() {
    for driver in drivers().await {
        let key = prefix("race");
        let writers = (1..=64_u64).map(|stamp| {
            let (driver, key) = (Arc::clone(&driver), key.clone());
            tokio::spawn(async move {
                (stamp, driver.set(&key, record(stamp, "v"), None, When::Newer).await.unwrap())
            })
        });
        let mut replaced = Vec::new();
        for done in future::join_all(writers).await {
            if let (stamp, Written::Stored { previous }) = done.unwrap() {
                let previous = previous.map(|head| u64::from_be_bytes(head[4..12].try_into().unwrap()));
                assert!(previous.is_none_or(|previous| previous < stamp));
                replaced.push((stamp, previous));
            }
        }
        assert_eq!(driver.get(&key).await.unwrap(), Some(record(64, "v")));
        // Each stored record was replaced by exactly one other, up to the last.
        replaced.sort_unstable();
        let mut before = None;
        for (stamp, previous) in replaced {
            assert_eq!(previous, before);
            before = Some(stamp);
        }
        driver.delete(&key).await.unwrap();
    }
}

#[tokio::test]
async fn a_ttl_is_not_over_early() {
    let Some(driver) = shared_single().await else { return };
    let prefix = prefix("early");
    // The server's clock ticks once a second: at some place in it, a second would be over at once.
    for n in 0..12 {
        driver.set(&format!("{prefix}{n}"), record(1, "v"), Some(seconds(1)), When::Always).await.unwrap();
        tokio::time::sleep(Duration::from_millis(83)).await;
        let recent = if n < 8 { 0 } else { n - 8 };
        assert!(driver.get(&format!("{prefix}{recent}")).await.unwrap().is_some(), "{n}");
    }
    for ttl in [days(30) - seconds(2), days(30), days(31), days(10_000), Duration::MAX] {
        driver.set(&prefix, record(1, "v"), Some(ttl), When::Always).await.unwrap();
        assert!(driver.get(&prefix).await.unwrap().is_some(), "{ttl:?}");
    }
    driver.delete(&prefix).await.unwrap();
}

#[tokio::test]
async fn the_client_counts() {
    let Some(driver) = shared().await else { return };
    let (client, key) = (driver.client(), prefix("count"));
    assert_eq!(client.increment(&key, 5, 100, Some(seconds(60))).await.unwrap(), 100);
    assert_eq!(client.increment(&key, 5, 100, None).await.unwrap(), 105);
    assert!(!client.add(&key, "x".into(), None).await.unwrap());
    client.set(&key, "x".into(), Some(seconds(60))).await.unwrap();
    let error = client.increment(&key, 1, 1, None).await.unwrap_err();
    assert_eq!(error.kind(), larder::ErrorKind::Unsupported, "{error}");
    assert_eq!(driver.get(&key).await.unwrap().unwrap(), "x", "the connection goes on");
    assert!(client.delete(&key).await.unwrap());
    assert!(client.add(&key, "y".into(), None).await.unwrap());
    assert!(driver.delete(&key).await.unwrap());
}

#[tokio::test]
async fn listing_and_clearing_are_not_to_be_had() {
    let Some(driver) = shared().await else { return };
    assert!(!driver.capabilities().enumerates && driver.capabilities().shared);
    let error = driver.clear("x", Stamp::MAX).await.unwrap_err();
    assert_eq!(error.kind(), larder::ErrorKind::Unsupported);
    let listed: Vec<_> = futures_util::StreamExt::collect(driver.scan("x")).await;
    assert!(matches!(&listed[..], [Err(error)] if error.kind() == larder::ErrorKind::Unsupported));
}
