//! What SQLite acknowledged outlives the process that wrote it.
//!
//! The test starts this very binary again, as its test `child`, which writes to the file in its environment.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper of tests that fails has failed the test")]

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use larder::driver::sqlite::{SqliteDriver, SqliteOptions};
use larder::driver::{Driver, When};
use larder::entry::Meta;
use larder::entry::wire::{CodecId, Record, decode, encode_entry};
use larder::time::{HybridClock, Stamp, SystemClock, Ttl, minutes};

const FILE: &str = "LARDER_TEST_FILE";
const WRITERS: usize = 8;

fn clock() -> HybridClock {
    HybridClock::new(Arc::new(SystemClock::default()))
}

/// A record that says what it is many times over, so that a torn one shows.
fn record(key: &str, stamp: Stamp, number: u64) -> Bytes {
    let meta = Meta::new(stamp, stamp.timestamp(), Ttl::For(minutes(10)), Duration::ZERO);
    let times = 1 + usize::try_from(number % 700).unwrap();
    encode_entry(key, &meta, CodecId::BYTES, 0, &number.to_be_bytes().repeat(times)).unwrap()
}

/// The number in a record of [`record`], which has to be whole and to belong to its key.
fn number_of(key: &str, stored: &Bytes) -> (Stamp, u64) {
    let Ok(Record::Entry(entry)) = decode(key, stored) else { panic!("{key}: {:?}", decode(key, stored)) };
    let (numbers, []) = entry.payload.as_chunks::<8>() else { panic!("{key}: a torn payload") };
    let number = u64::from_be_bytes(*numbers.first().unwrap());
    assert_eq!(numbers.len() as u64, 1 + number % 700);
    assert!(numbers.iter().all(|&other| u64::from_be_bytes(other) == number));
    (entry.meta.stamp, number)
}

fn start(file: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(FILE, file)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn child() {
    let Ok(file) = std::env::var(FILE) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let driver = SqliteDriver::open(SqliteOptions::new(file.as_str())).await.unwrap();
        write_until_killed(&driver).await;
    });
}

/// Each writer counts up under its own key, and says so once it is acknowledged.
async fn write_until_killed(driver: &SqliteDriver) {
    let clock = clock();
    let writers = (0..WRITERS).map(|writer| {
        let clock = &clock;
        async move {
            let key = format!("writer {writer}");
            let start = driver.get(&key).await.unwrap().map_or(0, |stored| number_of(&key, &stored).1);
            for number in start + 1.. {
                let value = record(&key, clock.tick(clock.now()), number);
                driver.set(&key, value, Some(minutes(10)), When::Newer).await.unwrap();
                let mut out = std::io::stdout().lock();
                writeln!(out, "ack {writer} {number}").unwrap();
                out.flush().unwrap();
            }
        }
    });
    join_all(writers).await;
}

#[tokio::test]
async fn a_killed_writer_leaves_all_that_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("cache.db");
    let mut acknowledged = HashMap::new();
    for round in 0u64..50 {
        let mut writer = start(&file);
        // At a moment that differs each time, from before the file is open to deep in the writing.
        tokio::time::sleep(Duration::from_micros(3_000 + (round * 7_919) % 50_000)).await;
        writer.kill().unwrap();
        writer.wait().unwrap();
        for line in BufReader::new(writer.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let Some(rest) = line.split("ack ").nth(1) else { continue };
            // The kill may have cut the last line short; a shorter number is a smaller one.
            if let Some((writer, number)) = rest.split_once(' ')
                && let Ok(number) = number.parse::<u64>()
            {
                let last = acknowledged.entry(writer.to_owned()).or_insert(0);
                *last = number.max(*last);
            }
        }
        if round % 3 == 1 {
            // What this kill left is for the next writer to find.
            continue;
        }
        let driver = SqliteDriver::open(SqliteOptions::new(file.as_path())).await.unwrap();
        for (writer, &number) in &acknowledged {
            let key = format!("writer {writer}");
            let stored = driver.get(&key).await.unwrap().unwrap();
            assert!(number_of(&key, &stored).1 >= number, "{key} lost what was acknowledged");
        }
        driver.close().await.unwrap();
    }
    assert!(acknowledged.values().sum::<u64>() > 300, "{acknowledged:?}");
    SqliteDriver::open(SqliteOptions::new(file.as_path())).await.unwrap().close().await.unwrap();
    let left: Vec<_> =
        std::fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(left, ["cache.db"], "nothing stays behind");
}
