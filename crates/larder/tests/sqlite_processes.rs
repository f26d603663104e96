//! SQLite between processes: killed at any moment, and written by two at once.
//!
//! Both tests start this very binary again, as its test `child`, which works off what its environment names.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper of tests that fails has failed the test")]

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use larder::driver::sqlite::{SqliteDriver, SqliteOptions};
use larder::driver::{Driver, When, Written};
use larder::entry::Meta;
use larder::entry::wire::{CodecId, Record, decode, encode_entry};
use larder::time::{HybridClock, Stamp, SystemClock, Ttl, minutes};

const ROLE: &str = "LARDER_TEST_ROLE";
const FILE: &str = "LARDER_TEST_FILE";
const MILLIS: &str = "LARDER_TEST_MILLIS";
const WRITERS: usize = 8;
const COUNTERS: u64 = 4;

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
    let number = u64::from_be_bytes(numbers[0]);
    assert_eq!(numbers.len() as u64, 1 + number % 700);
    assert!(numbers.iter().all(|&other| u64::from_be_bytes(other) == number));
    (entry.meta.stamp, number)
}

fn start(role: &str, file: &Path, millis: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env(FILE, file)
        .env(MILLIS, millis.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let file = std::env::var(FILE).unwrap();
    let millis = std::env::var(MILLIS).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let driver = SqliteDriver::open(SqliteOptions::new(file.as_str())).await.unwrap();
        match role.as_str() {
            "until killed" => write_until_killed(&driver).await,
            "soak" => soak(&driver, Duration::from_millis(millis)).await,
            other => panic!("no role {other}"),
        }
        driver.close().await.unwrap();
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

/// Counts up shared counters by compare-and-swap, and reads and writes shared keys in between.
async fn soak(driver: &SqliteDriver, time: Duration) {
    let clock = clock();
    let over = AtomicBool::new(false);
    let writers = (0..WRITERS as u64).map(|writer| {
        let (clock, over) = (&clock, &over);
        async move {
            let mut counted = 0u64;
            for round in 0.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                counted += count_up(driver, clock, &format!("counter {}", (writer + round) % COUNTERS)).await;
                let key = format!("shared {}", (writer * 7 + round) % 50);
                let value = record(&key, clock.tick(clock.now()), round);
                driver.set(&key, value, Some(minutes(10)), When::Newer).await.unwrap();
                if let Some(stored) = driver.get(&key).await.unwrap() {
                    number_of(&key, &stored);
                }
            }
            counted
        }
    });
    let stop = async {
        tokio::time::sleep(time).await;
        over.store(true, Ordering::Relaxed);
    };
    let (counted, ()) = futures_util::join!(join_all(writers), stop);
    println!("counted {}", counted.iter().sum::<u64>());
}

async fn count_up(driver: &SqliteDriver, clock: &HybridClock, key: &str) -> u64 {
    let stored = driver.get(key).await.unwrap().map(|stored| number_of(key, &stored));
    let (stamp, number) = stored.map_or((None, 0), |(stamp, number)| (Some(stamp), number));
    if let Some(stamp) = stamp {
        assert!(clock.observe(stamp, clock.now()));
    }
    let value = record(key, clock.tick(clock.now()), number + 1);
    match driver.set(key, value, None, When::Unchanged(stamp)).await.unwrap() {
        Written::Stored { .. } => 1,
        Written::Refused { .. } => 0,
    }
}

#[tokio::test]
async fn a_killed_writer_leaves_whole_values_and_all_that_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("cache.db");
    let mut acknowledged = HashMap::new();
    for round in 0u64..200 {
        let mut writer = start("until killed", &file, 0);
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
    assert!(acknowledged.values().sum::<u64>() > 1_000, "{acknowledged:?}");
    SqliteDriver::open(SqliteOptions::new(file.as_path())).await.unwrap().close().await.unwrap();
    let left: Vec<_> =
        std::fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(left, ["cache.db"], "nothing stays behind");
}

/// Three seconds; `LARDER_SOAK_SECONDS` makes it longer.
#[tokio::test]
async fn counters_of_two_processes_add_up() {
    let seconds = std::env::var("LARDER_SOAK_SECONDS").map_or(3, |seconds| seconds.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("cache.db");
    let processes = [(); 2].map(|()| start("soak", &file, seconds * 1_000));
    let mut counted = 0;
    for mut process in processes {
        let mut output = String::new();
        process.stdout.take().unwrap().read_to_string(&mut output).unwrap();
        assert!(process.wait().unwrap().success(), "{output}");
        let count = output.split("counted ").nth(1).unwrap().lines().next().unwrap();
        counted += count.parse::<u64>().unwrap();
    }
    let driver = SqliteDriver::open(SqliteOptions::new(file.as_path())).await.unwrap();
    let mut stored = 0;
    for counter in 0..COUNTERS {
        let key = format!("counter {counter}");
        stored += number_of(&key, &driver.get(&key).await.unwrap().unwrap()).1;
    }
    println!("{counted} increments in {seconds} s");
    assert_eq!(stored, counted);
    assert!(counted > 100, "{counted}");
}
