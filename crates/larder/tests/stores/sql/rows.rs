//! What the statements do: to rows that several write at once, to rows whose time is up, and to tables.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, future};
use larder::ErrorKind;
use larder::driver::sql::{SqlDriver, SqlOptions};
use larder::driver::{Driver, When, Write, Written, head};
use larder::time::{Clock as _, Stamp, SystemClock, minutes, seconds};

use super::{Subject, drop_table, own_table, shared, shared_options};
use crate::record::record;
use crate::traffic::prefix;

/// Runs the tests of this file over a database.
macro_rules! row_suite {
    ($subject:ty) => {
        $crate::sql::rows::row_suite!(@ $subject,
            every_value_is_replaced_once,
            batches_in_any_order_do_not_wait_in_a_circle,
            what_has_expired_is_nothing_to_a_write,
            what_has_expired_goes_by_itself,
            a_table_is_created_once_by_many,
            a_missing_table_is_an_error_if_it_is_not_to_be_created,
            a_table_of_somebody_else_is_left_alone,
            a_name_that_is_none_never_reaches_the_server,
            a_key_that_is_too_long_is_refused,
            a_connection_may_keep_no_statements);
    };
    (@ $subject:ty, $($test:ident),*) => {
        mod rows {
            use super::*;

            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                $crate::sql::rows::$test::<$subject>().await;
            })*
        }
    };
}
pub(super) use row_suite;

fn write(key: &str, stamp: u64, when: When) -> Write {
    Write { key: key.to_owned(), value: record(stamp, key), ttl: None, when }
}

/// What a write replaced is what the write before it stored, however many write at once.
pub(super) async fn every_value_is_replaced_once<D: Subject>() {
    let (Some(one), Some(two)) = (shared::<D>().await, shared::<D>().await) else { return };
    let (one, two, key) = (Arc::new(one), Arc::new(two), prefix("replaced"));
    for round in 0..3_u64 {
        let writing = (0..8_u64).map(|task| {
            let (driver, key) = (Arc::clone(if task % 2 == 0 { &one } else { &two }), key.clone());
            tokio::spawn(async move {
                let mut replaced = Vec::new();
                for n in 0..40 {
                    let value = record(round << 32 | task << 16 | n, "v");
                    let written = if n % 4 == 3 {
                        let write = Write { key: key.clone(), value, ttl: None, when: When::Always };
                        let other = Write { key: format!("{key}{task}"), ..write.clone() };
                        driver.set_many(vec![write, other]).await.unwrap().swap_remove(0)
                    } else {
                        driver.set(&key, value, Some(minutes(1)), When::Always).await.unwrap()
                    };
                    assert!(matches!(written, Written::Stored { .. }), "{written:?}");
                    if let Written::Stored { previous } = written {
                        replaced.push(previous);
                    }
                }
                replaced
            })
        });
        let mut replaced = Vec::new();
        for task in future::join_all(writing).await {
            replaced.extend(task.unwrap());
        }
        let last = one.get(&key).await.unwrap().unwrap();
        replaced.push(Some(head(&last)));
        assert_eq!(replaced.iter().filter(|head| head.is_none()).count(), 1, "one found nothing");
        let heads: BTreeSet<Bytes> = replaced.iter().flatten().cloned().collect();
        assert_eq!(heads.len(), replaced.len() - 1, "each was replaced once");
        two.clear(&key, Stamp::MAX).await.unwrap();
    }
}

pub(super) async fn batches_in_any_order_do_not_wait_in_a_circle<D: Subject>() {
    let Some(driver) = shared::<D>().await else { return };
    let (driver, prefix) = (Arc::new(driver), prefix("circle"));
    let calling = (0..6_u64).map(|task| {
        let (driver, prefix) = (Arc::clone(&driver), prefix.clone());
        tokio::spawn(async move {
            for round in 0..10 {
                let mut keys: Vec<String> = (0..60).map(|n| format!("{prefix}{n}")).collect();
                if task % 2 == 0 {
                    keys.reverse();
                }
                let writes = keys.iter().map(|key| write(key, round * 10 + task, When::Newer)).collect();
                driver.set_many(writes).await.unwrap();
                let asked: Vec<&str> = keys.iter().map(String::as_str).collect();
                if task == 4 {
                    driver.delete_many(&asked).await.unwrap();
                }
                if task == 5 {
                    driver.clear(&prefix, Stamp::from_bits(round * 10)).await.unwrap();
                    driver.prune().await.unwrap();
                }
            }
        })
    });
    for call in future::join_all(calling).await {
        call.unwrap();
    }
    driver.clear(&prefix, Stamp::MAX).await.unwrap();
}

pub(super) async fn what_has_expired_is_nothing_to_a_write<D: Subject>() {
    let Some(mut options) = own_table::<D>().await else { return };
    options.prune_interval = None;
    let driver = SqlDriver::connect(options.clone()).await.unwrap();
    let expired = || async {
        driver.set("k", record(9, "old"), Some(Duration::from_millis(1)), When::Always).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(driver.get("k").await.unwrap(), None);
    };
    let stored = Written::Stored { previous: None };
    for when in [When::Always, When::Newer, When::Unchanged(None)] {
        expired().await;
        assert_eq!(driver.set("k", record(1, "new"), None, when).await.unwrap(), stored, "{when:?}");
        assert_eq!(driver.get("k").await.unwrap(), Some(record(1, "new")));
        expired().await;
        let writes = vec![write("j", 1, when), write("k", 1, when)];
        assert_eq!(driver.set_many(writes).await.unwrap().last(), Some(&stored), "{when:?}");
        driver.delete("j").await.unwrap();
    }
    expired().await;
    let swap = When::Unchanged(Some(Stamp::from_bits(9)));
    assert_eq!(driver.set("k", record(10, "new"), None, swap).await.unwrap(), Written::Refused { by: None });
    assert!(!driver.delete("k").await.unwrap());
    assert_eq!(driver.scan("").count().await, 0);
    assert_eq!(driver.get_many(&["k"]).await.unwrap(), [None]);
    assert_eq!(driver.prune().await.unwrap(), 1);
    assert_eq!(driver.prune().await.unwrap(), 0);
    drop_table(&driver, &options).await;
}

pub(super) async fn what_has_expired_goes_by_itself<D: Subject>() {
    let Some(mut options) = own_table::<D>().await else { return };
    options.prune_interval = Some(Duration::from_millis(50));
    let pruning = SqlDriver::connect(options.clone()).await.unwrap();
    options.prune_interval = None;
    let driver = SqlDriver::connect(options.clone()).await.unwrap();
    let writes = (0..1_200)
        .map(|n| Write { ttl: Some(Duration::from_millis(1)), ..write(&n.to_string(), 1, When::Always) });
    driver.set_many(writes.collect()).await.unwrap();
    driver.set("stays", record(1, "v"), Some(minutes(1)), When::Always).await.unwrap();
    let begun = SystemClock::default();
    // What is left is counted by removing it: nothing, once the other one was there.
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        if driver.clear("1", Stamp::MAX).await.unwrap() == 0 {
            break;
        }
        assert!(begun.monotonic() < seconds(10), "nothing prunes");
        driver.set("1", record(1, "v"), Some(Duration::from_millis(1)), When::Always).await.unwrap();
    }
    pruning.close().await.unwrap();
    driver.set("1", record(1, "v"), Some(Duration::from_millis(1)), When::Always).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(driver.clear("1", Stamp::MAX).await.unwrap(), 1, "a driver that is closed prunes no more");
    assert!(driver.get("stays").await.unwrap().is_some());
    drop_table(&driver, &options).await;
}

pub(super) async fn a_table_is_created_once_by_many<D: Subject>() {
    for _ in 0..3 {
        let Some(options) = own_table::<D>().await else { return };
        let opened = (0..8).map(|_| tokio::spawn(SqlDriver::connect(options.clone())));
        let mut drivers = Vec::new();
        for driver in future::join_all(opened).await {
            drivers.push(driver.unwrap().unwrap());
        }
        for driver in &drivers {
            driver.set("k", record(1, "v"), None, When::Newer).await.unwrap();
            assert_eq!(driver.get("k").await.unwrap(), Some(record(1, "v")));
        }
        let (one, two) = (drivers.pop().unwrap(), drivers.pop().unwrap());
        drop_table(&one, &options).await;
        let error = two.get("k").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    }
}

pub(super) async fn a_missing_table_is_an_error_if_it_is_not_to_be_created<D: Subject>() {
    let Some(mut options) = own_table::<D>().await else { return };
    options.create_table = false;
    let error = SqlDriver::connect(options.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.message().contains(&options.table) && error.message().contains("create_table"), "{error}");
    let schema = SqlDriver::<D>::schema(&options.table).unwrap();
    let driver = shared::<D>().await.unwrap();
    D::say(driver.pool(), &[schema]).await;
    SqlDriver::connect(options.clone()).await.unwrap().ping().await.unwrap();
    drop_table(&driver, &options).await;
}

pub(super) async fn a_table_of_somebody_else_is_left_alone<D: Subject>() {
    let Some(options) = own_table::<D>().await else { return };
    let driver = shared::<D>().await.unwrap();
    let table = &options.table;
    D::say(
        driver.pool(),
        &[format!("CREATE TABLE {table} (id INT)"), format!("INSERT INTO {table} VALUES (7)")],
    )
    .await;
    let error = SqlDriver::connect(options.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.message().contains("not one of larder's"), "{error}");
    drop_table(&driver, &options).await;
}

pub(super) async fn a_name_that_is_none_never_reaches_the_server<D: Subject>() {
    for table in ["x; DROP TABLE y", "x\"y", "x`y", "a.b.c", "x--", "", "x'", "public.", "x y"] {
        // Nobody listens there: what is refused is refused before.
        let mut options = SqlOptions::<D>::at("127.0.0.1", 1);
        options.table = table.to_owned();
        let error = SqlDriver::connect(options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.message().contains("cannot name a table"), "{error}");
    }
}

pub(super) async fn a_key_that_is_too_long_is_refused<D: Subject>() {
    let Some(driver) = shared::<D>().await else { return };
    let long = prefix("long").repeat(100);
    let (long, longer) = (&long[..1_024], &long[..1_025]);
    driver.set(long, record(1, "v"), None, When::Always).await.unwrap();
    assert_eq!(
        driver.set(longer, record(2, "w"), None, When::Always).await.unwrap_err().kind(),
        ErrorKind::InvalidKey
    );
    assert_eq!(driver.get(longer).await.unwrap_err().kind(), ErrorKind::InvalidKey);
    assert_eq!(driver.get(long).await.unwrap(), Some(record(1, "v")));
    assert!(driver.delete(long).await.unwrap());
}

pub(super) async fn a_connection_may_keep_no_statements<D: Subject>() {
    let Some(mut options) = shared_options::<D>() else { return };
    options.statement_cache = 0;
    options.max_connections = 1;
    let driver = SqlDriver::connect(options).await.unwrap();
    let prefix = prefix("unprepared");
    for n in 0..50_u64 {
        let key = format!("{prefix}{}", n % 5);
        driver.set(&key, record(n, &key), None, When::Newer).await.unwrap();
        assert_eq!(driver.get(&key).await.unwrap(), Some(record(n, &key)));
    }
    assert_eq!(driver.clear(&prefix, Stamp::MAX).await.unwrap(), 5);
    D::say(driver.pool(), &D::FEW_PREPARED.iter().map(ToString::to_string).collect::<Vec<_>>()).await;
}
