//! The file driver against its surroundings: planted links and pipes, damaged files, other people's
//! directories, prunes that race writers, and bounds.

#![cfg(all(feature = "file", unix))]
#![expect(clippy::unwrap_used, reason = "what cannot be set up fails its test")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use larder::driver::file::{FileDriver, FileOptions};
use larder::driver::{Driver, When, Written};
use larder::entry::Meta;
use larder::entry::wire::{CodecId, encode_entry};
use larder::testing::ManualClock;
use larder::time::{Clock, Stamp, SystemClock, Timestamp, Ttl, hours, minutes, seconds};
use larder::{Error, ErrorKind};
use tempfile::TempDir;

struct Bench {
    scratch: TempDir,
    directory: PathBuf,
    driver: FileDriver,
    clock: ManualClock,
}

/// A driver in a new directory, with a clock that stands at the real time, and no prune of its own.
async fn bench() -> Bench {
    bench_with(|_| {}).await
}

async fn bench_with(change: impl FnOnce(&mut FileOptions)) -> Bench {
    let scratch = TempDir::new().unwrap();
    let directory = scratch.path().join("cache");
    let clock = ManualClock::new(SystemClock::default().now());
    let mut options = FileOptions::new(&directory);
    options.prune_interval = None;
    change(&mut options);
    let driver = FileDriver::open_with_clock(options, Arc::new(clock.clone())).await.unwrap();
    Bench { scratch, directory, driver, clock }
}

impl Bench {
    async fn put(&self, key: &str, ttl: Option<Duration>) -> Bytes {
        let value = record(key, 1);
        let written = self.driver.set(key, value.clone(), ttl, When::Always).await.unwrap();
        assert!(matches!(written, Written::Stored { .. }));
        value
    }

    async fn holds(&self, key: &str) -> bool {
        self.driver.get(key).await.unwrap().is_some()
    }

    /// The file of the only entry.
    fn entry(&self) -> PathBuf {
        let mut entries = files(&self.directory, |name| name.len() == 32 + ".larder".len());
        assert_eq!(entries.len(), 1, "{entries:?}");
        entries.remove(0)
    }
}

fn record(key: &str, stamp: u64) -> Bytes {
    let meta = Meta::new(Stamp::from_bits(stamp), Timestamp::ZERO, Ttl::Forever, Duration::ZERO);
    encode_entry(key, &meta, CodecId::BYTES, 0, &[b'v'; 1_000]).unwrap()
}

fn files(directory: &Path, wanted: impl Fn(&str) -> bool + Copy) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path(), wanted));
        } else if wanted(&entry.file_name().to_string_lossy()) {
            found.push(entry.path());
        }
    }
    found
}

async fn refusal(directory: impl Into<PathBuf>) -> Error {
    let error = FileDriver::open(FileOptions::new(directory)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    error
}

// ——— Whose directory it is ———

#[tokio::test]
async fn a_directory_with_other_files_is_refused_and_left_alone() {
    let scratch = TempDir::new().unwrap();
    fs::write(scratch.path().join("thesis.txt"), "chapter one").unwrap();
    let error = refusal(scratch.path()).await;
    assert!(error.message().contains("it has other files"), "{error}");
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn the_root_and_the_home_directory_are_refused() {
    refusal("/").await;
    refusal("/tmp/..").await;
    refusal(std::env::home_dir().unwrap()).await;
}

#[tokio::test]
async fn a_symbolic_link_is_refused_however_it_is_spelled() {
    let scratch = TempDir::new().unwrap();
    let (real, link) = (scratch.path().join("real"), scratch.path().join("link"));
    fs::create_dir(&real).unwrap();
    symlink(&real, &link).unwrap();
    for spelling in ["", "/", "//", "/.", "/./"] {
        let error =
            FileDriver::open(FileOptions::new(format!("{}{spelling}", link.display()))).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Config | ErrorKind::Unavailable), "{spelling:?}: {error}");
    }
    assert_eq!(fs::read_dir(&real).unwrap().count(), 0, "nothing was written through the link");
}

#[tokio::test]
async fn a_file_in_place_of_the_directory_is_refused() {
    let scratch = TempDir::new().unwrap();
    let path = scratch.path().join("file");
    fs::write(&path, "").unwrap();
    let error = FileDriver::open(FileOptions::new(&path)).await.unwrap_err();
    assert!(error.message().contains(&path.display().to_string()), "{error}");
}

#[tokio::test]
async fn a_directory_of_another_layout_is_refused() {
    let bench = bench().await;
    let changes: [fn(&mut FileOptions); 2] =
        [|options| options.levels = 1, |options| options.suffix = ".bin".to_owned()];
    for change in changes {
        let mut options = FileOptions::new(&bench.directory);
        change(&mut options);
        let error = FileDriver::open(options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    }
    FileDriver::open(FileOptions::new(&bench.directory)).await.unwrap();
}

#[tokio::test]
async fn options_that_make_no_layout_are_refused() {
    let changes: [fn(&mut FileOptions); 5] = [
        |options| options.levels = 5,
        |options| options.suffix = "/../x".to_owned(),
        |options| options.suffix = "\0".to_owned(),
        |options| options.suffix = "x".repeat(100),
        |options| options.max_bytes = Some(0),
    ];
    for change in changes {
        let scratch = TempDir::new().unwrap();
        let mut options = FileOptions::new(scratch.path());
        change(&mut options);
        assert_eq!(FileDriver::open(options).await.unwrap_err().kind(), ErrorKind::Config);
    }
}

#[tokio::test]
async fn nothing_is_cleared_where_the_marker_is_missing() {
    let bench = bench().await;
    bench.put("k", None).await;
    fs::remove_file(bench.directory.join(".larder")).unwrap();
    assert_eq!(bench.driver.clear("k", Stamp::MAX).await.unwrap_err().kind(), ErrorKind::Config);
    assert!(bench.driver.ping().await.is_err());
    assert!(bench.holds("k").await);
}

#[tokio::test]
async fn nobody_else_may_read_what_is_cached() {
    let scratch = TempDir::new().unwrap();
    let directory = scratch.path().join("open to all");
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
    let driver = FileDriver::open(FileOptions::new(&directory)).await.unwrap();
    driver.set("k", record("k", 1), None, When::Always).await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    let all = files(&directory, |_| true);
    assert!(all.len() >= 3, "a marker, a lock and an entry: {all:?}");
    for file in all {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
        assert_eq!(mode(file.parent().unwrap()), 0o700, "{}", file.display());
    }
}

#[tokio::test]
async fn a_directory_that_was_removed_is_made_again() {
    let bench = bench().await;
    bench.put("k", None).await;
    fs::remove_dir_all(&bench.directory).unwrap();
    assert!(!bench.holds("k").await);
    bench.put("k", None).await;
    assert!(bench.holds("k").await && bench.directory.join(".larder").exists());
}

#[tokio::test]
async fn two_drivers_that_open_an_empty_directory_at_once_both_get_it() {
    for _ in 0..20 {
        let scratch = TempDir::new().unwrap();
        let open = || tokio::spawn(FileDriver::open(FileOptions::new(scratch.path().join("a/b/c"))));
        for opened in [open(), open(), open(), open()] {
            opened.await.unwrap().unwrap();
        }
    }
}

// ——— Planted ———

#[tokio::test]
async fn a_link_in_place_of_an_entry_is_not_followed() {
    let bench = bench().await;
    bench.put("k", None).await;
    let (entry, target) = (bench.entry(), bench.scratch.path().join("target"));
    // The target is a valid entry of this key: only not following the link can tell.
    fs::rename(&entry, &target).unwrap();
    symlink(&target, &entry).unwrap();
    let before = fs::read(&target).unwrap();
    assert!(!bench.holds("k").await);
    assert!(!bench.driver.delete("k").await.unwrap());
    symlink(&target, &entry).unwrap();
    bench.driver.set("k", record("k", 2), None, When::Newer).await.unwrap();
    assert_eq!(bench.driver.get("k").await.unwrap(), Some(record("k", 2)), "a write replaces the link");
    assert!(fs::symlink_metadata(&entry).unwrap().is_file());
    assert_eq!(fs::read(&target).unwrap(), before, "what the link pointed to is as it was");
}

#[tokio::test]
async fn a_link_in_place_of_a_level_leads_nowhere() {
    let bench = bench().await;
    bench.put("k", None).await;
    let level = bench.entry().parent().unwrap().to_owned();
    let outside = bench.scratch.path().join("outside");
    fs::rename(&level, &outside).unwrap();
    symlink(&outside, &level).unwrap();
    let before = files(&outside, |_| true);
    assert!(!bench.holds("k").await);
    let error = bench.driver.set("k", record("k", 2), None, When::Always).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("write an entry") && error.message().contains("cache"), "{error}");
    let listed: Vec<_> = bench.driver.scan("k").try_collect().await.unwrap();
    assert!(listed.is_empty());
    assert_eq!(bench.driver.clear("k", Stamp::MAX).await.unwrap(), 0);
    bench.clock.advance(hours(9));
    bench.driver.prune().await.unwrap();
    assert_eq!(files(&outside, |_| true), before, "nothing outside was touched");
}

#[tokio::test]
async fn a_directory_that_is_replaced_by_a_link_is_still_the_one_that_was_opened() {
    let bench = bench().await;
    let (moved, outside) = (bench.scratch.path().join("moved"), bench.scratch.path().join("outside"));
    fs::create_dir(&outside).unwrap();
    fs::rename(&bench.directory, &moved).unwrap();
    symlink(&outside, &bench.directory).unwrap();
    bench.put("k", None).await;
    assert!(bench.holds("k").await);
    bench.driver.prune().await.unwrap();
    assert_eq!(bench.driver.clear("k", Stamp::MAX).await.unwrap(), 1);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[tokio::test]
async fn a_pipe_in_place_of_an_entry_holds_nobody() {
    let bench = bench().await;
    bench.put("k", None).await;
    let entry = bench.entry();
    fs::remove_file(&entry).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&entry).status().unwrap().success());
    assert!(!bench.holds("k").await);
    bench.put("k", None).await;
    assert!(bench.holds("k").await);
}

#[tokio::test]
async fn a_directory_in_place_of_an_entry_reads_as_nothing() {
    let bench = bench().await;
    bench.put("k", None).await;
    let entry = bench.entry();
    fs::remove_file(&entry).unwrap();
    fs::create_dir(&entry).unwrap();
    assert!(!bench.holds("k").await);
    assert!(!bench.driver.delete("k").await.unwrap());
    bench.driver.prune().await.unwrap();
    let error = bench.driver.set("k", record("k", 2), None, When::Always).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        files(&bench.directory, |name| name.starts_with(".new-")).is_empty(),
        "no litter after a failure"
    );
}

// ——— Damaged ———

#[tokio::test]
async fn every_truncation_reads_as_nothing_and_is_healed_by_a_write() {
    let bench = bench().await;
    let value = bench.put("k", None).await;
    let entry = bench.entry();
    let whole = fs::read(&entry).unwrap();
    for length in (0..whole.len()).step_by(7).chain([whole.len() - 1]) {
        fs::write(&entry, &whole[..length]).unwrap();
        assert!(!bench.holds("k").await, "{length} bytes of {}", whole.len());
    }
    assert!(!bench.driver.delete("k").await.unwrap(), "what is damaged is nothing");
    fs::write(&entry, &whole[..100]).unwrap();
    let written = bench.driver.set("k", value.clone(), None, When::Unchanged(None)).await.unwrap();
    assert_eq!(written, Written::Stored { previous: None });
    assert_eq!(bench.driver.get("k").await.unwrap(), Some(value));
    fs::write(&entry, [&whole[..], b"x"].concat()).unwrap();
    assert!(!bench.holds("k").await, "longer than it says");
    fs::write(&entry, "").unwrap();
    assert_eq!(bench.driver.prune().await.unwrap(), 1, "a prune removes what is damaged");
}

#[tokio::test]
async fn a_file_that_claims_to_be_huge_costs_no_memory() {
    let bench = bench().await;
    bench.put("k", None).await;
    let entry = bench.entry();
    let claimed: u64 = 1 << 42;
    let mut header = b"LdF\x01".to_vec();
    header.extend(u64::MAX.to_be_bytes());
    header.extend(1_u16.to_be_bytes());
    header.extend(claimed.to_be_bytes());
    header.push(b'k');
    header.extend(xxhash_rust::xxh3::xxh3_64(&header).to_be_bytes());
    fs::write(&entry, &header).unwrap();
    assert!(!bench.holds("k").await, "shorter than it claims");
    // Sparse: it takes no room on the disk either.
    let file = fs::File::options().write(true).open(&entry).unwrap();
    file.set_len(claimed + header.len() as u64).unwrap();
    assert!(!bench.holds("k").await, "larger than anything that is ever stored");
}

#[tokio::test]
async fn an_entry_under_another_keys_name_is_nobodys() {
    let bench = bench().await;
    bench.put("a", None).await;
    let name_of_a = bench.entry();
    let bytes_of_a = fs::read(&name_of_a).unwrap();
    bench.driver.delete("a").await.unwrap();
    bench.put("b", None).await;
    fs::write(bench.entry(), &bytes_of_a).unwrap();
    assert!(!bench.holds("b").await, "the key inside is compared");
    assert!(!bench.driver.delete("b").await.unwrap());
    let value = bench.put("b", None).await;
    assert_eq!(bench.driver.get("b").await.unwrap(), Some(value), "a write takes the name back");
}

// ——— Expiry, prune and bounds ———

#[tokio::test]
async fn what_expired_reads_as_nothing_before_it_is_pruned() {
    let bench = bench().await;
    bench.put("short", Some(seconds(10))).await;
    bench.put("long", Some(minutes(10))).await;
    bench.clock.advance(Duration::from_millis(9_999));
    assert!(bench.holds("short").await);
    bench.clock.advance(Duration::from_millis(1));
    assert!(!bench.holds("short").await && bench.holds("long").await);
    let listed: Vec<_> = bench.driver.scan("").try_collect().await.unwrap();
    assert_eq!(listed.len(), 1);
    assert!(!bench.driver.delete("short").await.unwrap());
    bench.put("short", Some(seconds(10))).await;
    bench.clock.advance(seconds(10));
    assert_eq!(bench.driver.prune().await.unwrap(), 1);
    bench.entry();
    bench.clock.advance(minutes(10));
    assert_eq!(bench.driver.prune().await.unwrap(), 1);
    let left: Vec<_> =
        fs::read_dir(&bench.directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "the marker and the locks, and no empty levels: {left:?}");
}

#[tokio::test]
async fn the_least_recently_written_go_first_when_the_bound_is_exceeded() {
    let bench = bench_with(|options| options.max_bytes = Some(4_000)).await;
    for n in 0..6 {
        bench.put(&format!("k{n}"), None).await;
        // File systems stamp files with the time of the last tick.
        tokio::time::sleep(Duration::from_millis(12)).await;
    }
    bench.put("k0", None).await;
    bench.driver.prune().await.unwrap();
    let mut left = Vec::new();
    for n in 0..6 {
        left.push(bench.holds(&format!("k{n}")).await);
    }
    assert_eq!(left, [true, false, false, false, true, true]);
    assert_eq!(bench.driver.prune().await.unwrap(), 0, "no more than had to go");
}

#[tokio::test]
async fn a_value_beyond_the_bound_is_too_large() {
    let bench = bench_with(|options| options.max_bytes = Some(500)).await;
    let error = bench.driver.set("k", record("k", 1), None, When::Always).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    let error = bench.driver.set(&"k".repeat(1_025), record("k", 1), None, When::Always).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidKey);
}

#[tokio::test]
async fn half_written_files_are_removed_after_an_hour_and_not_before() {
    let bench = bench().await;
    bench.put("k", None).await;
    let litter = [bench.entry().with_file_name(".new-0"), bench.directory.join(".new-1")];
    for path in &litter {
        fs::write(path, "half").unwrap();
    }
    bench.clock.advance(minutes(59));
    bench.driver.prune().await.unwrap();
    assert!(litter.iter().all(|path| path.exists()));
    bench.clock.advance(minutes(2));
    bench.driver.prune().await.unwrap();
    assert!(!litter.iter().any(|path| path.exists()));
    assert!(bench.holds("k").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_never_takes_what_was_just_written() {
    let bench = bench().await;
    let driver = Arc::new(bench.driver);
    let pruning = tokio::spawn({
        let driver = Arc::clone(&driver);
        async move {
            loop {
                driver.prune().await.unwrap();
            }
        }
    });
    for round in 0..300 {
        let key = format!("k{}", round % 3);
        // Expired from the start, so the prune is after it when the next write comes, and after its directory.
        driver.set(&key, record(&key, 1), Some(Duration::ZERO), When::Always).await.unwrap();
        driver.set(&key, record(&key, 2), None, When::Always).await.unwrap();
        tokio::task::yield_now().await;
        assert_eq!(driver.get(&key).await.unwrap(), Some(record(&key, 2)), "round {round}");
        driver.delete(&key).await.unwrap();
    }
    pruning.abort();
}

#[tokio::test]
async fn the_background_prune_works_by_itself_and_ends_with_the_driver() {
    let bench = bench_with(|options| options.prune_interval = Some(Duration::from_millis(20))).await;
    let entries = || files(&bench.directory, |name| name.len() > 32).len();
    bench.put("k", Some(seconds(10))).await;
    assert_eq!(entries(), 1);
    bench.clock.advance(seconds(11));
    let pruned = async {
        while entries() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(seconds(20), pruned).await.unwrap();
    drop(bench.driver);
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let ended = async {
        while alive() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(seconds(20), ended).await.unwrap();
}

#[tokio::test]
async fn exceeding_the_bound_wakes_the_background_prune() {
    let bench = bench_with(|options| {
        options.prune_interval = Some(hours(1));
        options.max_bytes = Some(3_000);
    })
    .await;
    for n in 0..20 {
        bench.put(&format!("k{n}"), None).await;
    }
    let fits = async {
        while files(&bench.directory, |name| name.len() > 32).len() > 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(seconds(20), fits).await.unwrap();
}

#[tokio::test]
async fn a_lock_that_is_never_let_go_is_a_timeout_and_no_hang() {
    let bench = bench().await;
    bench.put("k", None).await;
    let locks = files(&bench.directory.join(".locks"), |_| true);
    assert_eq!(locks.len(), 1);
    let held = fs::File::open(&locks[0]).unwrap();
    held.lock().unwrap();
    let error = bench.driver.set("k", record("k", 2), None, When::Always).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(bench.holds("k").await, "reading takes no lock");
    drop(held);
    bench.put("k", None).await;
}

#[tokio::test]
async fn what_one_driver_wrote_another_reads_after_it() {
    let bench = bench().await;
    let value = bench.put("k", None).await;
    bench.driver.close().await.unwrap();
    drop(bench.driver);
    let again = FileDriver::open(FileOptions::new(&bench.directory)).await.unwrap();
    assert_eq!(again.get("k").await.unwrap(), Some(value));
}

#[tokio::test]
async fn a_missing_store_is_not_created_if_it_is_not_to_be() {
    let scratch = TempDir::new().unwrap();
    let directory = scratch.path().join("typo");
    let mut options = FileOptions::new(&directory);
    options.create = false;
    for there in [false, true] {
        let error = FileDriver::open(options.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.message().starts_with("there is no store at "), "{error}");
        assert_eq!(directory.exists(), there);
        fs::create_dir_all(&directory).unwrap();
    }
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
    FileDriver::open(FileOptions::new(&directory)).await.unwrap();
    FileDriver::open(options).await.unwrap();
}
