//! What the compliance suite cannot ask of SQLite: files, other processes' locks, bounds, damage.

use std::fs;
use std::path::{Path, PathBuf};

use futures_util::FutureExt as _;
use futures_util::future::maybe_done;
use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::testing::ManualClock;
use crate::time::{Stamp, Timestamp, minutes};

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cache.db");
    (directory, path)
}

fn options(path: &Path) -> SqliteOptions {
    SqliteOptions { prune_interval: None, ..SqliteOptions::new(path) }
}

async fn open(path: &Path) -> SqliteDriver {
    SqliteDriver::open(options(path)).await.unwrap()
}

async fn put(driver: &SqliteDriver, key: &str, value: impl Into<Bytes>) {
    driver.set(key, value.into(), None, When::Always).await.unwrap();
}

async fn error_of(options: SqliteOptions) -> Error {
    SqliteDriver::open(options).await.unwrap_err()
}

/// What the file and the log beside it take.
fn on_disk(path: &Path) -> u64 {
    let size = |suffix: &str| {
        let path = format!("{}{suffix}", path.display());
        fs::metadata(path).map_or(0, |file| file.len())
    };
    size("") + size("-wal")
}

#[tokio::test]
async fn two_handles_on_one_file_see_each_other() {
    let (_directory, path) = place();
    let (one, two) = (open(&path).await, open(&path).await);
    put(&one, "k", "1").await;
    assert_eq!(two.get("k").await.unwrap().unwrap(), "1");
    put(&two, "k", "2").await;
    assert_eq!(one.get("k").await.unwrap().unwrap(), "2");
    assert!(two.delete("k").await.unwrap());
    assert!(!one.delete("k").await.unwrap());
}

#[tokio::test]
async fn many_handles_may_create_one_file_at_once() {
    let (_directory, path) = place();
    let opened = futures_util::future::join_all((0..16).map(|_| open(&path))).await;
    for (n, driver) in opened.iter().enumerate() {
        put(driver, &n.to_string(), "x").await;
    }
    assert_eq!(opened[0].scan("").count().await, 16);
}

#[tokio::test]
async fn what_was_written_is_there_when_the_file_is_opened_again() {
    let (_directory, path) = place();
    let driver = open(&path).await;
    put(&driver, "k", "v").await;
    driver.close().await.unwrap();
    assert!(!path.with_extension("db-wal").exists(), "the log is copied back when the last one closes");
    assert_eq!(open(&path).await.get("k").await.unwrap().unwrap(), "v");
}

#[tokio::test]
async fn a_dropped_driver_loses_nothing_that_was_acknowledged() {
    let (_directory, path) = place();
    for n in 0..20 {
        let driver = open(&path).await;
        put(&driver, &n.to_string(), "v").await;
        drop(driver);
    }
    assert_eq!(open(&path).await.scan("").count().await, 20);
}

#[tokio::test]
async fn close_finishes_what_was_begun_and_refuses_what_comes_after() {
    let (_directory, path) = place();
    let driver = open(&path).await;
    let keys: Vec<_> = (0..100).map(|n| n.to_string()).collect();
    let mut begun: Vec<_> = keys
        .iter()
        .map(|key| Box::pin(maybe_done(driver.set(key, "v".into(), None, When::Always))))
        .collect();
    for write in &mut begun {
        // One poll begins it.
        let _ = write.as_mut().now_or_never();
    }
    driver.close().await.unwrap();
    for mut write in begun {
        write.as_mut().await;
        write.as_mut().take_output().unwrap().unwrap();
    }
    assert_eq!(driver.get("1").await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(driver.prune().await.unwrap_err().kind(), ErrorKind::Closed);
    driver.close().await.unwrap();
    assert_eq!(open(&path).await.scan("").count().await, 100);
}

#[cfg(unix)]
#[tokio::test]
async fn what_it_creates_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let (directory, _) = place();
    let path = directory.path().join("made/for/it/cache.db");
    let driver = open(&path).await;
    put(&driver, "k", "v").await;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(&path.with_extension("db-wal")), 0o600);
    assert_eq!(mode(&path.with_extension("db-shm")), 0o600);
    assert_eq!(mode(&directory.path().join("made")), 0o700);
    assert_eq!(mode(&directory.path().join("made/for/it")), 0o700);
}

#[tokio::test]
async fn a_path_is_a_path_and_no_uri() {
    let (directory, _) = place();
    let path = directory.path().join("file:x?mode=memory");
    put(&open(&path).await, "k", "v").await;
    assert!(path.exists());
    assert_eq!(open(&path).await.get("k").await.unwrap().unwrap(), "v");
}

#[tokio::test]
async fn a_table_name_that_is_more_than_a_name_is_refused() {
    for name in [
        "x; DROP TABLE y",
        "x\"; DROP TABLE y; --",
        "main.x",
        "x y",
        "",
        "1x",
        "naïve",
        "x'",
        "`x`",
        "[x]",
        "x\0",
        "sqlite_master",
        "SQLite_x",
        &"x".repeat(64),
    ] {
        let options = SqliteOptions { table: name.to_owned(), ..SqliteOptions::new(":memory:") };
        let error = error_of(options).await;
        assert_eq!(error.kind(), ErrorKind::Config, "{name:?}");
        assert!(error.message().contains("letters, digits and underscores"), "{error}");
    }
    for name in ["x", "_", "select", "X9_", &"x".repeat(63)] {
        let options = SqliteOptions { table: name.to_owned(), ..SqliteOptions::new(":memory:") };
        put(&SqliteDriver::open(options).await.unwrap(), "k", "v").await;
    }
}

#[tokio::test]
async fn tables_of_one_file_do_not_meet() {
    let (_directory, path) = place();
    let other = SqliteOptions { table: "other".into(), ..options(&path) };
    let (one, two) = (open(&path).await, SqliteDriver::open(other).await.unwrap());
    put(&one, "k", "1").await;
    assert_eq!(two.get("k").await.unwrap(), None);
    assert_eq!(two.clear("k", Stamp::MAX).await.unwrap(), 0);
    assert_eq!(one.get("k").await.unwrap().unwrap(), "1");
}

#[tokio::test]
async fn a_clear_takes_what_has_no_stamp() {
    let driver = SqliteDriver::open(SqliteOptions::new(":memory:")).await.unwrap();
    // A stamp ends at the twelfth byte.
    for (key, value) in [("a:none", 0..0), ("a:short", 0..11), ("a:newer", 12..24), ("a:zero", 0..12)] {
        let bytes = Bytes::from_static(b"\0\0\0\0\0\0\0\0\0\0\0\0 and not zero");
        put(&driver, key, bytes.slice(value)).await;
    }
    assert_eq!(driver.clear("a:", Stamp::ZERO).await.unwrap(), 3);
    assert!(driver.get("a:newer").await.unwrap().is_some());
}

#[tokio::test]
async fn a_missing_table_is_created_only_if_asked() {
    let (_directory, path) = place();
    let manual = SqliteOptions { create_table: false, ..options(&path) };
    let error = error_of(manual.clone()).await;
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains("no table \"larder\""), "{error}");
    Connection::open(&path).unwrap().execute_batch(&SqliteDriver::schema("larder").unwrap()).unwrap();
    let driver = SqliteDriver::open(manual).await.unwrap();
    put(&driver, "k", "v").await;
    assert_eq!(driver.get("k").await.unwrap().unwrap(), "v");
}

#[tokio::test]
async fn a_table_of_someone_else_is_left_alone() {
    let (_directory, path) = place();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE Larder (id INTEGER, key TEXT)").unwrap();
    let error = error_of(options(&path)).await;
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains("not one of larder's"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_with_a_way_out() {
    let (_directory, path) = place();
    fs::write(&path, "dear diary, ".repeat(1_000)).unwrap();
    let error = error_of(options(&path)).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("move it away"), "{error}");
    let error = error_of(options(path.parent().unwrap())).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "a directory: {error}");
}

#[tokio::test]
async fn damage_to_the_file_is_an_error_or_a_value_and_never_a_panic() {
    let (_directory, path) = place();
    let driver = open(&path).await;
    for n in 0..200 {
        put(&driver, &format!("k{n}"), vec![b'v'; 2_000]).await;
    }
    driver.close().await.unwrap();
    let whole = fs::read(&path).unwrap();
    for page in 0..40 {
        let mut damaged = whole.clone();
        let at = (page * 7 % (whole.len() / 4096)) * 4096;
        damaged[at..at + 512].fill(0xa5);
        fs::write(&path, damaged).unwrap();
        let Ok(driver) = SqliteDriver::open(options(&path)).await else { continue };
        for n in 0..200 {
            if let Err(error) = driver.get(&format!("k{n}")).await {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            }
        }
        let _ = driver.set("k1", "v".into(), None, When::Always).await;
        let _ = driver.prune().await;
        driver.close().await.unwrap();
        let _ = fs::remove_file(path.with_extension("db-wal"));
    }
}

#[tokio::test]
async fn columns_of_another_hand_read_as_damage() {
    let (_directory, path) = place();
    let driver = open(&path).await;
    let other = Connection::open(&path).unwrap();
    other.execute("INSERT INTO larder VALUES (CAST('k' AS BLOB), NULL, 0, 7, 1.5)", []).unwrap();
    other.execute("INSERT INTO larder VALUES (X'FE', NULL, 'x', X'', X'')", []).unwrap();
    assert_eq!(driver.get("k").await.unwrap().unwrap(), "");
    let scanned: Vec<_> = driver.scan("").try_collect().await.unwrap();
    assert_eq!(scanned, [Scanned { key: "k".into(), head: Bytes::new() }]);
    put(&driver, "k", "v").await;
    assert_eq!(driver.get("k").await.unwrap().unwrap(), "v");
}

#[tokio::test]
async fn what_expired_is_not_there_for_anyone() {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000)));
    let options = SqliteOptions { prune_interval: None, ..SqliteOptions::new(":memory:") };
    let driver = SqliteDriver::open_with_clock(options, clock.clone()).await.unwrap();
    driver.set("k", "old".into(), Some(minutes(1)), When::Always).await.unwrap();
    put(&driver, "stays", "v").await;
    clock.advance(minutes(1));
    assert_eq!(driver.get("k").await.unwrap(), None);
    assert_eq!(driver.get_many(&["k", "stays"]).await.unwrap(), [None, Some("v".into())]);
    assert_eq!(driver.scan("").count().await, 1);
    let written = driver.set("k", "new".into(), Some(minutes(1)), When::Unchanged(None)).await.unwrap();
    assert_eq!(written, Written::Stored { previous: None });
    clock.advance(minutes(1));
    assert!(!driver.delete("k").await.unwrap());
    driver.set("k", "old".into(), Some(minutes(1)), When::Always).await.unwrap();
    clock.advance(minutes(1));
    assert_eq!(driver.prune().await.unwrap(), 1);
    assert_eq!(driver.prune().await.unwrap(), 0);
    assert_eq!(driver.get("stays").await.unwrap().unwrap(), "v");
}

#[tokio::test]
async fn pruning_gives_the_space_back_to_the_file_system() {
    let (_directory, path) = place();
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000)));
    let driver = SqliteDriver::open_with_clock(options(&path), clock.clone()).await.unwrap();
    for n in 0..2_000 {
        driver.set(&format!("k{n}"), vec![0; 4_000].into(), Some(minutes(1)), When::Always).await.unwrap();
    }
    assert!(on_disk(&path) > 8_000_000);
    clock.advance(minutes(2));
    assert_eq!(driver.prune().await.unwrap(), 2_000);
    driver.close().await.unwrap();
    assert!(on_disk(&path) < 100_000, "{}", on_disk(&path));
}

#[tokio::test]
async fn a_process_that_writes_prunes_by_itself() {
    let (_directory, path) = place();
    let options = SqliteOptions { prune_interval: Some(Duration::from_millis(5)), ..options(&path) };
    let driver = SqliteDriver::open(options).await.unwrap();
    driver.set("k", "v".into(), Some(Duration::from_millis(1)), When::Always).await.unwrap();
    let other = Connection::open(&path).unwrap();
    let rows = || other.query_row("SELECT count(*) FROM larder", [], |row| row.get::<_, u32>(0)).unwrap();
    for _ in 0..1_000 {
        if rows() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the expired row is still there");
}

#[tokio::test]
async fn a_store_with_a_bound_stays_within_it_and_keeps_what_is_newest() {
    let (_directory, path) = place();
    let bound = 4 * 1024 * 1024;
    let driver =
        SqliteDriver::open(SqliteOptions { max_bytes: Some(bound), ..options(&path) }).await.unwrap();
    let mut peak = 0;
    for n in 0..2_000 {
        put(&driver, &format!("k{n}"), vec![7; 10_000]).await;
        peak = peak.max(on_disk(&path));
    }
    assert!(peak < bound * 3 / 2, "{peak} bytes on disk");
    assert!(driver.get("k1999").await.unwrap().is_some());
    assert!(driver.get("k1800").await.unwrap().is_some());
    assert!(driver.get("k100").await.unwrap().is_none());
    let kept = driver.scan("k").count().await;
    assert!((250..420).contains(&kept), "{kept} of about 400 that fit");
    let error = driver.set("k", vec![0; 5_000_000].into(), None, When::Always).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
}

#[tokio::test]
async fn a_lock_that_outlasts_the_timeout_is_a_timeout_and_is_survived() {
    let (_directory, path) = place();
    let options = SqliteOptions { busy_timeout: Duration::from_millis(30), ..options(&path) };
    let driver = SqliteDriver::open(options).await.unwrap();
    put(&driver, "k", "before").await;
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = driver.set("k", "during".into(), None, When::Always).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert_eq!(driver.get("k").await.unwrap().unwrap(), "before", "reading goes on");
    other.execute_batch("ROLLBACK").unwrap();
    put(&driver, "k", "after").await;
    assert_eq!(driver.get("k").await.unwrap().unwrap(), "after");
}

#[tokio::test]
async fn a_new_file_that_stays_locked_is_waited_for_as_long_as_told() {
    let (_directory, path) = place();
    let other = Connection::open(&path).unwrap();
    // Reading goes on meanwhile.
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let options = SqliteOptions { busy_timeout: Duration::from_millis(200), ..options(&path) };
    let began = SystemClock::default();
    let error = error_of(options.clone()).await;
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(began.monotonic() < Duration::from_secs(5), "{:?}", began.monotonic());
    other.execute_batch("ROLLBACK").unwrap();
    SqliteDriver::open(options).await.unwrap();
}

#[tokio::test]
async fn a_full_database_fails_the_write_and_keeps_the_rest() {
    let driver = SqliteDriver::open(SqliteOptions::new(":memory:")).await.unwrap();
    put(&driver, "k", "v").await;
    let limit = |connection: &Connection| {
        let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
        connection.query_row(&format!("PRAGMA max_page_count = {}", pages + 4), [], |_| Ok(()))
    };
    driver.writes.call("test", 0, limit).await.unwrap();
    let error = driver.set("large", vec![0; 100_000].into(), None, When::Always).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(driver.get("k").await.unwrap().unwrap(), "v");
    put(&driver, "k", "w").await;
    assert_eq!(driver.get("large").await.unwrap(), None);
}

#[tokio::test]
async fn writes_that_share_a_transaction_with_a_failing_one_are_told_the_truth() {
    let driver = SqliteDriver::open(SqliteOptions::new(":memory:")).await.unwrap();
    let limit = |connection: &Connection| connection.query_row("PRAGMA max_page_count = 20", [], |_| Ok(()));
    driver.writes.call("test", 0, limit).await.unwrap();
    let sizes = (0..60).map(|n| if n % 7 == 3 { 100_000 } else { 100 });
    let writes = sizes.enumerate().map(|(n, size)| {
        let driver = &driver;
        async move { (n, driver.set(&format!("{n}"), vec![0; size].into(), None, When::Always).await.is_ok()) }
    });
    let outcomes = futures_util::future::join_all(writes).await;
    assert!(outcomes.iter().any(|(_, stored)| !stored));
    for (n, stored) in outcomes {
        assert_eq!(driver.get(&format!("{n}")).await.unwrap().is_some(), stored, "write {n}");
    }
}

#[tokio::test]
async fn what_waits_has_a_bound() {
    let (_directory, path) = place();
    let driver = open(&path).await;
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let value = Bytes::from(vec![0; 16 * 1024 * 1024]);
    let mut begun = Vec::new();
    let refused = loop {
        assert!(begun.len() < 20, "more than 256 MiB wait");
        let mut write = driver.set("k", value.clone(), None, When::Always);
        match write.as_mut().now_or_never() {
            Some(outcome) => break outcome.unwrap_err(),
            None => begun.push(write),
        }
    };
    assert_eq!(refused.kind(), ErrorKind::Overloaded, "{refused}");
    assert!(begun.len() > 15, "{}", begun.len());
    drop(begun);
    driver.get("k").await.unwrap();
    other.execute_batch("ROLLBACK").unwrap();
}

#[tokio::test]
async fn databases_in_memory_are_their_own() {
    let (one, two) = (SqliteOptions::new(":memory:"), SqliteOptions::new(SqliteLocation::Memory));
    let (one, two) = (SqliteDriver::open(one).await.unwrap(), SqliteDriver::open(two).await.unwrap());
    put(&one, "k", "v").await;
    assert_eq!(two.get("k").await.unwrap(), None);
    assert!(!one.capabilities().shared && !one.capabilities().persistent);
}

#[tokio::test]
async fn options_that_make_no_sense_are_refused() {
    let (_directory, path) = place();
    for options in [
        SqliteOptions { max_bytes: Some(1_000), ..options(&path) },
        SqliteOptions { readers: 0, ..options(&path) },
        SqliteOptions { prune_interval: Some(Duration::ZERO), ..options(&path) },
        SqliteOptions::new(""),
    ] {
        assert_eq!(error_of(options).await.kind(), ErrorKind::Config);
    }
    assert!(!path.exists());
}

#[tokio::test]
async fn a_folder_where_the_file_should_be_is_named_as_what_it_is() {
    let (directory, _) = place();
    let folder = directory.path();
    for create in [true, false] {
        let error = error_of(SqliteOptions { create, ..options(folder) }).await;
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("is a folder"), "{error}");
    }
}

#[tokio::test]
async fn a_prefix_that_ends_anywhere_in_a_character_space_has_a_successor() {
    let driver = SqliteDriver::open(SqliteOptions::new(":memory:")).await.unwrap();
    for key in
        ["\u{7f}", "\u{7f}x", "\u{80}", "ÿ", "ÿÿ", "\u{10ffff}", "\u{10ffff}\u{10ffff}", "", "\0", "a\0b"]
    {
        put(&driver, key, "v").await;
    }
    assert_eq!(driver.scan("").count().await, 10);
    assert_eq!(driver.scan("\u{10ffff}").count().await, 2);
    assert_eq!(driver.scan("\u{7f}").count().await, 2);
    assert_eq!(driver.clear("ÿ", Stamp::MAX).await.unwrap(), 2);
    assert_eq!(driver.clear("a\0", Stamp::MAX).await.unwrap(), 1);
    assert_eq!(driver.scan("").count().await, 7);
}

#[tokio::test]
async fn a_missing_store_is_not_created_if_it_is_not_to_be() {
    let (directory, path) = place();
    for (create, read_only) in [(false, false), (true, true)] {
        let missing = SqliteOptions { create, read_only, ..options(&path) };
        let error = error_of(missing.clone()).await;
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.message().starts_with("there is no store at "), "{error}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        fs::write(&path, "").unwrap();
        assert!(error_of(missing).await.message().starts_with("there is no store at "));
        assert_eq!(on_disk(&path), 0);
        fs::remove_file(&path).unwrap();
    }
}

#[tokio::test]
async fn a_store_that_is_only_read_refuses_writes() {
    let (_directory, path) = place();
    let one = open(&path).await;
    put(&one, "k", "v").await;
    let reader = SqliteOptions { read_only: true, ..options(&path) };
    let reader = SqliteDriver::open(reader).await.unwrap();
    assert_eq!(reader.get("k").await.unwrap().unwrap(), "v");
    let refused = reader.set("k", "w".into(), None, When::Always).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    assert_eq!(reader.delete("k").await.unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(one.get("k").await.unwrap().unwrap(), "v");
}

#[test]
fn a_path_in_a_uri_is_only_a_path() {
    let uri = table::immutable_uri(Path::new("/a b?mode=rw&c#%.db"));
    assert_eq!(uri, "file:/a%20b%3Fmode%3Drw%26c%23%25.db?immutable=1");
}
