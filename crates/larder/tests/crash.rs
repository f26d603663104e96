//! Stores that outlive their process: killed in the middle of writing, and shared by two processes at once.
//!
//! The other processes are this test program, started again to run one test alone; what that test is to do
//! is in its environment. A driver takes part by an arm in [`open`] and a test at the bottom.

#![cfg(unix)]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a process that cannot do its part fails its test")]

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use larder::driver::{Driver, When, Written};
use larder::entry::Meta;
use larder::entry::wire::{CodecId, Record, decode, encode_entry, stamp_of};
use larder::time::{Clock, Stamp, SystemClock, Timestamp, Ttl, hours, seconds};
use tempfile::TempDir;

const PART: &str = "LARDER_TEST_PART";
const KEYS: u64 = 40;
const KILLS: u64 = 200;
const COUNTERS: usize = 4;
const WRITERS: u64 = 8;

/// Opens a driver by its name in a directory that processes share, told what time it is.
async fn open(driver: &str, directory: &Path, clock: Arc<dyn Clock>) -> Arc<dyn Driver> {
    match driver {
        #[cfg(feature = "file")]
        "file" => {
            use larder::driver::file::{FileDriver, FileOptions};
            Arc::new(FileDriver::open_with_clock(FileOptions::new(directory), clock).await.unwrap())
        }
        #[cfg(feature = "sqlite")]
        "sqlite" => {
            use larder::driver::sqlite::{SqliteDriver, SqliteOptions};
            let options = SqliteOptions::new(directory.join("cache.db"));
            Arc::new(SqliteDriver::open_with_clock(options, clock).await.unwrap())
        }
        // An arm for each further driver whose store outlives the process.
        other => panic!("no driver {other:?} takes part ({directory:?}, {clock:?})"),
    }
}

/// A number that nobody can foresee.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// What `number` stands for under a key: a payload whose length and bytes all follow from it, so that a torn,
/// mixed or foreign value shows.
fn payload(key: &str, number: u64) -> Vec<u8> {
    let mut state = number ^ xxhash_rust::xxh3::xxh3_64(key.as_bytes());
    let length = if number.is_multiple_of(4) { number % 200_000 } else { number % 3_000 };
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.extend((0..length).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    }));
    bytes
}

fn record(key: &str, stamp: Stamp, payload: &[u8]) -> Bytes {
    let meta = Meta::new(stamp, Timestamp::ZERO, Ttl::Forever, Duration::ZERO);
    encode_entry(key, &meta, CodecId::BYTES, 0, payload).unwrap()
}

/// Fails unless these are, to the last bit, bytes that were once written for this key.
fn check(key: &str, stored: &Bytes) {
    let Ok(Record::Entry(entry)) = decode(key, stored) else {
        panic!("{key:?} holds {} bytes that are no entry of it: {:?}", stored.len(), decode(key, stored))
    };
    let number = u64::from_be_bytes(*entry.payload.first_chunk().unwrap());
    assert!(entry.payload == payload(key, number), "{key:?} holds a value that was never written");
}

/// Starts this program again, for one test that finds its part in the environment.
fn start(test: &str, part: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    command.env(PART, part).stdout(Stdio::piped()).spawn().unwrap()
}

/// The part of this process, split; `None` in the program that the user started.
fn part() -> Option<(String, PathBuf, u64)> {
    let part = std::env::var(PART).ok()?;
    let mut fields = part.splitn(3, ' ');
    let (driver, number) = (fields.next()?.to_owned(), fields.next()?.parse().ok()?);
    Some((driver, PathBuf::from(fields.next()?), number))
}

/// Reads the output of another process up to a line with a word; the rest of that line. The output is to be
/// held for as long as the process may write more of it.
fn wait_for(output: &mut BufReader<ChildStdout>, word: &str) -> String {
    let mut line = String::new();
    loop {
        line.clear();
        assert_ne!(
            output.read_line(&mut line).unwrap(),
            0,
            "the other process ended without saying {word:?}"
        );
        // The test harness writes the test's name on the same line, before.
        if let Some((_, rest)) = line.split_once(word) {
            return rest.trim().to_owned();
        }
    }
}

// ——— Killed while writing ———

/// Not a test of its own: the process that writes until it is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn part_of_the_process_that_is_killed() {
    let Some((driver, directory, seed)) = part() else { return };
    let driver = open(&driver, &directory, Arc::new(SystemClock::default())).await;
    println!("writing");
    let writers: Vec<_> =
        (0..4).map(|writer| tokio::spawn(write_for_ever(Arc::clone(&driver), seed ^ writer << 32))).collect();
    for writer in writers {
        writer.await.unwrap();
    }
}

async fn write_for_ever(driver: Arc<dyn Driver>, seed: u64) {
    let mut number = seed;
    loop {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let key = format!("key {}", (number >> 33) % KEYS);
        let value = record(&key, Stamp::from_bits(number), &payload(&key, number));
        match (number >> 20) % 16 {
            0 => drop(driver.delete(&key).await.unwrap()),
            1 => drop(driver.set(&key, value, Some(Duration::from_millis(1)), When::Always).await.unwrap()),
            2 => drop(driver.set(&key, value, None, When::Newer).await.unwrap()),
            3 if number.is_multiple_of(8) => drop(driver.prune().await.unwrap()),
            _ => drop(driver.set(&key, value, Some(hours(1)), When::Always).await.unwrap()),
        }
    }
}

/// Kills a writing process again and again; after each time, every key reads as one whole value or as nothing,
/// and nothing needs repair.
async fn survives_kills(name: &str) -> TempDir {
    let scratch = TempDir::new().unwrap();
    let directory = scratch.path().join("store");
    let mut values_read = 0_u64;
    for _ in 0..KILLS {
        let part = format!("{name} {} {}", random() >> 1, directory.display());
        let mut child = start("part_of_the_process_that_is_killed", &part);
        let mut output = BufReader::new(child.stdout.take().unwrap());
        wait_for(&mut output, "writing");
        tokio::time::sleep(Duration::from_micros(random() % 40_000)).await;
        child.kill().unwrap();
        child.wait().unwrap();

        let driver = open(name, &directory, Arc::new(SystemClock::default())).await;
        for number in 0..KEYS {
            let key = format!("key {number}");
            if let Some(stored) = driver.get(&key).await.unwrap() {
                check(&key, &stored);
                values_read += 1;
            }
        }
        let key = "key 0";
        let value = record(key, Stamp::from_bits(7), &payload(key, 7));
        driver.set(key, value.clone(), None, When::Always).await.unwrap();
        assert_eq!(
            driver.get(key).await.unwrap(),
            Some(value),
            "a store whose writer was killed takes writes"
        );
        driver.close().await.unwrap();
    }
    assert!(values_read > KILLS * KEYS / 4, "only {values_read} values were there to be read");
    println!("{name}: {KILLS} kills, {values_read} values read whole");
    scratch
}

// ——— Shared by two processes ———

/// Not a test of its own: one of the processes that share a store.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn part_of_the_process_that_shares() {
    let Some((driver, directory, length)) = part() else { return };
    let driver = open(&driver, &directory, Arc::new(SystemClock::default())).await;
    let counts: Arc<[AtomicU64; COUNTERS]> = Arc::default();
    let operations = Arc::new(AtomicU64::new(0));
    let done = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let (driver, counts) = (Arc::clone(&driver), Arc::clone(&counts));
            let (operations, done) = (Arc::clone(&operations), Arc::clone(&done));
            tokio::spawn(async move {
                let mut number = random();
                while !done.load(Ordering::Relaxed) {
                    number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    share(driver.as_ref(), number >> 16, &counts).await;
                    operations.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    tokio::time::sleep(seconds(length)).await;
    done.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    let counts: Vec<String> = counts.iter().map(|count| count.load(Ordering::Relaxed).to_string()).collect();
    println!("counted {} {}", operations.load(Ordering::Relaxed), counts.join(" "));
}

/// One operation of a process that shares; what it reads has to be whole, and no error may reach it.
async fn share(driver: &dyn Driver, number: u64, counts: &[AtomicU64; COUNTERS]) {
    let key = format!("key {}", (number >> 8) % KEYS);
    let value = || record(&key, Stamp::from_bits(number), &payload(&key, number));
    match number % 16 {
        0..4 => {
            let counter = (number >> 8) as usize % COUNTERS;
            increment(driver, &format!("counter {counter}")).await;
            counts.get(counter).unwrap().fetch_add(1, Ordering::Relaxed);
        }
        4..7 => drop(driver.set(&key, value(), Some(hours(1)), When::Newer).await.unwrap()),
        7..9 => drop(driver.set(&key, value(), None, When::Always).await.unwrap()),
        9 => drop(driver.set(&key, value(), Some(Duration::from_millis(2)), When::Always).await.unwrap()),
        10 => drop(driver.delete(&key).await.unwrap()),
        11 if (number >> 8).is_multiple_of(50) => drop(driver.prune().await.unwrap()),
        _ => {
            if let Some(stored) = driver.get(&key).await.unwrap() {
                check(&key, &stored);
            }
        }
    }
}

/// Adds one by compare-and-swap. The stamp moves with the count, so that no two counts share one.
async fn increment(driver: &dyn Driver, key: &str) {
    loop {
        let stored = driver.get(key).await.unwrap();
        let current = stored.as_deref().and_then(stamp_of);
        let next = Stamp::from_bits(current.map_or(1, |stamp| stamp.to_bits() + 1));
        let value = record(key, next, &next.to_bits().to_be_bytes());
        let written = driver.set(key, value, None, When::Unchanged(current)).await.unwrap();
        if let Written::Stored { .. } = written {
            return;
        }
    }
}

/// Two processes with eight writers each: what both counted is in the store, and nobody saw an error, or a
/// value that was never written. `LARDER_SOAK_SECONDS` says how long; 5 if it does not.
async fn is_shared_by_two_processes(name: &str) {
    let scratch = TempDir::new().unwrap();
    let directory = scratch.path().join("store");
    let length = std::env::var("LARDER_SOAK_SECONDS").map_or(5, |length| length.parse().unwrap());
    let part = format!("{name} {length} {}", directory.display());
    let children: Vec<Child> = (0..2).map(|_| start("part_of_the_process_that_shares", &part)).collect();
    let mut operations = 0;
    let mut expected = [0_u64; COUNTERS];
    for mut child in children {
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let counted = wait_for(&mut output, "counted ");
        let mut numbers = counted.split(' ').map(|number| number.parse::<u64>().unwrap());
        operations += numbers.next().unwrap();
        for (sum, count) in expected.iter_mut().zip(numbers) {
            *sum += count;
        }
        assert!(child.wait().unwrap().success());
    }
    let driver = open(name, &directory, Arc::new(SystemClock::default())).await;
    for (counter, expected) in expected.iter().enumerate() {
        let stored = driver.get(&format!("counter {counter}")).await.unwrap();
        let count = stored.as_deref().and_then(stamp_of).map_or(0, Stamp::to_bits);
        assert_eq!(count, *expected, "counter {counter} adds up");
    }
    println!("{name}: {operations} operations of two processes in {length} s, counters {expected:?}");
    assert!(expected.iter().sum::<u64>() > 100, "both processes worked");
}

// ——— The drivers that take part ———

#[cfg(feature = "file")]
mod file {
    use super::*;
    use larder::testing::ManualClock;

    #[tokio::test]
    async fn a_killed_writer_leaves_whole_values_and_no_litter() {
        let scratch = survives_kills("file").await;
        let directory = scratch.path().join("store");
        println!("{} files were left half-written", count_new(&directory));
        let later = ManualClock::new(SystemClock::default().now() + hours(2));
        let driver = open("file", &directory, Arc::new(later)).await;
        driver.prune().await.unwrap();
        assert_eq!(count_new(&directory), 0, "what was half-written is pruned");
    }

    fn count_new(directory: &Path) -> usize {
        std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    return count_new(&entry.path());
                }
                usize::from(entry.file_name().to_string_lossy().starts_with(".new-"))
            })
            .sum()
    }

    #[tokio::test]
    async fn two_processes_share_a_directory() {
        is_shared_by_two_processes("file").await;
    }
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use super::*;

    #[tokio::test]
    async fn a_killed_writer_leaves_whole_values_and_no_litter() {
        let scratch = survives_kills("sqlite").await;
        let files = std::fs::read_dir(scratch.path().join("store")).unwrap();
        let files: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
        assert_eq!(files, ["cache.db"], "the log goes when the last process closes");
    }

    #[tokio::test]
    async fn two_processes_share_a_file() {
        is_shared_by_two_processes("sqlite").await;
    }
}
