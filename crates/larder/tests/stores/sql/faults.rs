//! What a server does wrong: it goes away, refuses, is read only, is full, waits for a lock, shows a wrong certificate.

use std::time::Duration;

use larder::driver::sql::client::pool::PoolOptions;
use larder::driver::sql::{SqlDriver, SqlOptions, SqlTls};
use larder::driver::{Driver, When};
use larder::time::{Clock as _, SystemClock, seconds};
use larder::{Error, ErrorKind};

use super::servers::Server;
use super::{Subject, drop_table, own_table};
use crate::outage::{self, Outage};
use crate::record::record;

/// Runs the tests of this file over a database.
macro_rules! server_suite {
    ($subject:ty) => {
        $crate::sql::faults::server_suite!(@ $subject,
            a_server_that_comes_back_is_used_again,
            a_server_behind_a_socket_comes_back_too,
            a_restart_between_two_calls_fails_no_read,
            who_may_not_come_in_is_told_why,
            a_server_that_takes_no_writes_says_so_and_is_read,
            the_certificate_has_to_be_the_hosts,
            a_call_that_waits_for_a_lock_ends_and_the_next_one_is_right,
            a_call_that_was_dropped_leaves_its_connection_to_nobody,
            a_pool_that_is_empty_says_so);
    };
    (@ $subject:ty, $($test:ident),*) => {
        mod faults {
            use super::*;

            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                $crate::sql::faults::$test::<$subject>().await;
            })*
        }
    };
}
pub(super) use server_suite;

/// The options that a server takes, with something else.
fn with<D: Subject>(server: &Server<D>, change: impl FnOnce(&mut SqlOptions<D>)) -> SqlOptions<D> {
    let mut options = server.options.clone();
    change(&mut options);
    options
}

async fn error_of<D: Subject>(options: SqlOptions<D>) -> Error {
    let error = SqlDriver::connect(options).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter"), "{error:?}");
    error
}

async fn say<D: Subject>(driver: &SqlDriver<D>, statements: &[&str]) {
    let statements: Vec<String> = statements.iter().map(|&statement| statement.to_owned()).collect();
    D::say(driver.pool(), &statements).await;
}

pub(super) async fn a_server_that_comes_back_is_used_again<D: Subject>() {
    let Some(mut server) = Server::<D>::start().await else { return };
    let driver = server.driver().await;
    let outage = Outage {
        begin: |server| server.end("-QUIT"),
        patience: Duration::from_millis(1_500),
        back_within: seconds(4),
        keeps: true,
        names_the_server: true,
    };
    outage::a_server_that_comes_back_is_used_again(&mut server, &driver, outage).await;
}

/// The socket goes with the server, which is no mistake in the settings.
pub(super) async fn a_server_behind_a_socket_comes_back_too<D: Subject>() {
    let Some(mut server) = Server::<D>::start().await else { return };
    let driver = SqlDriver::connect(server.by_socket()).await.unwrap();
    driver.set("k", record(1, "v"), None, When::Always).await.unwrap();
    server.end("-QUIT");
    // Connections from before may break in other words.
    let _ = driver.get("k").await;
    for error in [
        driver.get("k").await.unwrap_err(),
        driver.delete("k").await.unwrap_err(),
        SqlDriver::connect(server.by_socket()).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.message().contains("its socket is not there"), "{error}");
    }
    server.restart();
    let back = SystemClock::default();
    while driver.get("k").await.is_err() {
        assert!(back.monotonic() < seconds(4));
    }
    assert_eq!(driver.get("k").await.unwrap(), Some(record(1, "v")));
}

pub(super) async fn a_restart_between_two_calls_fails_no_read<D: Subject>() {
    let Some(mut server) = Server::<D>::start().await else { return };
    let driver = server.driver().await;
    driver.set("k", record(1, "v"), None, When::Always).await.unwrap();
    for _ in 0..3 {
        // Some connections, all of which end.
        let asking = (0..8).map(|_| driver.get("k"));
        for found in futures_util::future::join_all(asking).await {
            assert_eq!(found.unwrap(), Some(record(1, "v")));
        }
        server.end("-QUIT");
        server.restart();
        server.driver().await;
        let asking = (0..8).map(|_| driver.get("k"));
        for found in futures_util::future::join_all(asking).await {
            assert_eq!(found.unwrap(), Some(record(1, "v")));
        }
        driver.set("k", record(1, "v"), None, When::Always).await.unwrap();
    }
}

pub(super) async fn who_may_not_come_in_is_told_why<D: Subject>() {
    let Some(server) = Server::<D>::start().await else { return };
    let place = format!("127.0.0.1:{}", server.port);
    let wrong = with(&server, |options| options.password = Some("hunter2".to_owned()));
    assert!(!format!("{wrong} {wrong:?}").contains("hunter"), "{wrong:?}");
    let error = error_of(wrong).await;
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.message().contains(&format!("larder@{place}")), "{error}");
    assert!(error.message().contains("password"), "{error}");

    let unknown = with(&server, |options| options.database = Some("nowhere".to_owned()));
    let error = error_of(unknown).await;
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.message().contains("no such database") && error.message().contains("nowhere"), "{error}");

    let driver = server.driver().await;
    assert!(!format!("{driver:?}").contains("password"), "{driver:?}");
    if D::NAME == "postgres" {
        say(&driver, &["CREATE ROLE guest LOGIN PASSWORD 'hunter3'"]).await;
    } else {
        say(&driver, &["CREATE USER guest IDENTIFIED BY 'hunter3'", "GRANT CREATE ON larder.* TO guest"])
            .await;
    }
    let guest = with(&server, |options| {
        (options.username, options.password) = (Some("guest".to_owned()), Some("hunter3".to_owned()));
    });
    let error = error_of(guest).await;
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.message().contains("may not do that"), "{error}");

    let nobody = SqlOptions::<D>::at("127.0.0.1", crate::server::free_port());
    let begun = SystemClock::default();
    let error = error_of(nobody).await;
    assert!(begun.monotonic() < Duration::from_millis(1_500), "{:?}", begun.monotonic());
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let error = error_of(SqlOptions::<D>::at("no-such-host.invalid", 1)).await;
    assert!(error.kind().is_transient(), "{error}");
}

pub(super) async fn a_server_that_takes_no_writes_says_so_and_is_read<D: Subject>() {
    let Some(server) = Server::<D>::start().await else { return };
    let driver = server.driver().await;
    driver.set("k", record(1, "v"), None, When::Always).await.unwrap();
    let mut options = server.options.clone();
    if D::NAME == "postgres" {
        say(&driver, &["ALTER ROLE larder SET default_transaction_read_only = on"]).await;
    } else {
        say(
            &driver,
            &[
                "CREATE USER plain IDENTIFIED BY 'plain'",
                "GRANT SELECT, INSERT, UPDATE, DELETE ON larder.* TO plain",
                "SET GLOBAL read_only = 1",
            ],
        )
        .await;
        (options.username, options.password) = (Some("plain".to_owned()), Some("plain".to_owned()));
    }
    let reader = SqlDriver::connect(options).await.unwrap();
    assert_eq!(reader.get("k").await.unwrap(), Some(record(1, "v")));
    for error in [
        reader.set("k", record(2, "w"), None, When::Newer).await.unwrap_err(),
        reader.delete("k").await.unwrap_err(),
        reader.clear("k", larder::time::Stamp::MAX).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.message().contains("takes no writes"), "{error}");
    }
    assert_eq!(reader.get("k").await.unwrap(), Some(record(1, "v")));
}

pub(super) async fn the_certificate_has_to_be_the_hosts<D: Subject>() {
    let Some(server) = Server::<D>::start().await else { return };
    let authority = server.directory.path().join("ca.pem");
    let trusting =
        |tls| with(&server, |options| (options.ca_file, options.tls) = (Some(authority.clone()), tls));
    SqlDriver::connect(trusting(Some(SqlTls::VerifyCa))).await.unwrap();
    // The certificate is for another host, and whoever names an authority wants that to be looked at.
    for tls in [Some(SqlTls::VerifyFull), None] {
        let error = error_of(trusting(tls)).await;
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.message().contains("certificate"), "{error}");
    }
    let unknown = with(&server, |options| options.tls = Some(SqlTls::VerifyCa));
    assert_eq!(error_of(unknown).await.kind(), ErrorKind::Config);
    let missing = with(&server, |options| options.ca_file = Some("/nowhere/ca.pem".into()));
    assert_eq!(error_of(missing).await.kind(), ErrorKind::Config);
    for tls in [SqlTls::Require, SqlTls::Disable] {
        SqlDriver::connect(with(&server, |options| options.tls = Some(tls))).await.unwrap();
    }
}

pub(super) async fn a_call_that_waits_for_a_lock_ends_and_the_next_one_is_right<D: Subject>() {
    let Some(mut options) = own_table::<D>().await else { return };
    let patient = options.clone();
    options.response_timeout = Duration::from_millis(300);
    options.max_connections = 2;
    let driver = SqlDriver::connect(options.clone()).await.unwrap();
    for key in ["a", "b", "c"] {
        driver.set(key, record(1, key), None, When::Always).await.unwrap();
    }
    for _ in 0..3 {
        let statements: Vec<String> =
            D::LOCK.iter().map(|statement| statement.replace("{table}", &options.table)).collect();
        let other = SqlDriver::connect(patient.clone()).await.unwrap();
        let locked = D::say(other.pool(), &statements).await;
        for _ in 0..3 {
            let begun = SystemClock::default();
            let error = driver.get("a").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
            assert!(begun.monotonic() < Duration::from_millis(900), "{:?}", begun.monotonic());
            let error = driver.set("a", record(0, "lost"), None, When::Newer).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        }
        drop(locked);
        other.close().await.unwrap();
        let begun = SystemClock::default();
        loop {
            match driver.get("b").await {
                Ok(found) => break assert_eq!(found, Some(record(1, "b"))),
                Err(error) => assert!(error.kind().is_transient(), "{error}"),
            }
            assert!(begun.monotonic() < seconds(2));
        }
        let found = driver.get_many(&["c", "a", "b"]).await.unwrap();
        assert_eq!(found, ["c", "a", "b"].map(|key| Some(record(1, key))));
    }
    drop_table(&driver, &options).await;
}

/// Over a pool with one connection, on which the server still waits for a lock.
pub(super) async fn a_call_that_was_dropped_leaves_its_connection_to_nobody<D: Subject>() {
    let (Some(locked), Some(free)) = (own_table::<D>().await, own_table::<D>().await) else { return };
    let url = std::env::var(D::URL).unwrap();
    let pool = PoolOptions::<D::Database>::new().max_connections(1).connect(&url).await.unwrap();
    let waiting = SqlDriver::<D>::with_pool(pool.clone(), locked.clone()).await.unwrap();
    let next = SqlDriver::<D>::with_pool(pool, free.clone()).await.unwrap();
    next.set("k", record(1, "v"), None, When::Always).await.unwrap();
    let other = SqlDriver::connect(free.clone()).await.unwrap();
    let statements: Vec<String> =
        D::LOCK.iter().map(|statement| statement.replace("{table}", &locked.table)).collect();
    let lock = D::say(other.pool(), &statements).await;
    for _ in 0..3 {
        let dropped = tokio::time::timeout(Duration::from_millis(50), waiting.get("k")).await;
        assert!(dropped.is_err(), "{dropped:?}");
        assert_eq!(next.get("k").await.unwrap(), Some(record(1, "v")));
    }
    drop(lock);
    other.close().await.unwrap();
    drop_table(&waiting, &locked).await;
    drop_table(&next, &free).await;
}

pub(super) async fn a_pool_that_is_empty_says_so<D: Subject>() {
    let Some(mut options) = own_table::<D>().await else { return };
    options.max_connections = 2;
    options.connect_timeout = Duration::from_millis(200);
    let driver = SqlDriver::connect(options.clone()).await.unwrap();
    let held = (driver.pool().acquire().await.unwrap(), driver.pool().acquire().await.unwrap());
    let begun = SystemClock::default();
    let error = driver.get("k").await.unwrap_err();
    assert!(begun.monotonic() < Duration::from_millis(500), "{:?}", begun.monotonic());
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("all 2 connections are in use"), "{error}");
    drop(held);
    assert_eq!(driver.get("k").await.unwrap(), None);
    drop_table(&driver, &options).await;
    let pool = driver.pool().clone();
    driver.close().await.unwrap();
    assert!(pool.is_closed());
    assert_eq!(driver.get("k").await.unwrap_err().kind(), ErrorKind::Closed);
}
