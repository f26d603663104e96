//! Sources that are read and written through a cache: what the cache has afterwards, whatever goes wrong between.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use larder::entry::Freshness;
use larder::source::{ReadThrough, WriteInvalidate, WriteThrough};
use larder::testing::{Harness, Operation, Tiers};
use larder::time::{hours, seconds};
use larder::{Cache, ErrorKind, Loaded, Stack, memory::MemoryOptions};
use tokio::sync::Barrier;

use crate::flow::cache;
use crate::loads::Gate;

/// A database of numbers that does as it is told.
#[derive(Clone, Default)]
pub(crate) struct Database {
    rows: Arc<Mutex<HashMap<String, u32>>>,
    /// How often it was read.
    reads: Arc<AtomicU64>,
    /// What the next write fails with, without being carried out.
    fails: Arc<Mutex<Option<io::Error>>>,
    /// Where writes of values stand before they return, having been carried out.
    holds: Arc<Mutex<HashMap<u32, Gate>>>,
}

impl Database {
    pub(crate) fn with(key: &str, value: u32) -> Self {
        let database = Self::default();
        database.put(key, value);
        database
    }

    pub(crate) fn put(&self, key: &str, value: u32) {
        self.rows.lock().unwrap().insert(key.to_owned(), value);
    }

    pub(crate) fn row(&self, key: &str) -> Option<u32> {
        self.rows.lock().unwrap().get(key).copied()
    }

    pub(crate) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    pub(crate) fn fail(&self, error: impl Into<io::Error>) {
        *self.fails.lock().unwrap() = Some(error.into());
    }

    /// Holds the write of a value, once it is carried out, until the gate is opened.
    pub(crate) fn hold(&self, value: u32) -> Gate {
        let gate = Gate::default();
        self.holds.lock().unwrap().insert(value, gate.clone());
        gate
    }

    pub(crate) async fn find(self, key: String) -> io::Result<Option<u32>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        Ok(self.row(&key))
    }

    pub(crate) async fn save(self, key: String, value: u32) -> io::Result<()> {
        if let Some(error) = self.fails.lock().unwrap().take() {
            return Err(error);
        }
        self.put(&key, value);
        let gate = self.holds.lock().unwrap().remove(&value);
        if let Some(gate) = gate {
            gate.load(value).await?;
        }
        Ok(())
    }

    async fn remove(self, key: &str) -> io::Result<Option<u32>> {
        Ok(self.rows.lock().unwrap().remove(key))
    }
}

pub(crate) fn reading(cache: &Cache<u32>, database: &Database) -> ReadThrough<u32> {
    let database = database.clone();
    cache.read_through(move |key| database.clone().find(key))
}

pub(crate) fn writing(cache: &Cache<u32>, database: &Database) -> WriteThrough<u32> {
    writing_by(reading(cache, database), database)
}

pub(crate) fn writing_by(read: ReadThrough<u32>, database: &Database) -> WriteThrough<u32> {
    let database = database.clone();
    read.write_through(move |key, value| database.clone().save(key, *value))
}

pub(crate) fn invalidating(cache: &Cache<u32>, database: &Database) -> WriteInvalidate<u32> {
    let to = database.clone();
    reading(cache, database).write_invalidate(move |key, value| to.clone().save(key, *value))
}

pub(crate) fn spawn_set(
    numbers: &WriteThrough<u32>,
    key: &'static str,
    value: u32,
) -> tokio::task::JoinHandle<larder::Result<()>> {
    let numbers = numbers.clone();
    tokio::spawn(async move { numbers.set(key, value).await })
}

/// Lets what runs in the background do so.
pub(crate) async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// Another process over the store of this one.
pub(crate) fn beside(harness: &Harness) -> Harness {
    Harness::over(Tiers::Both, harness.clock.clone(), harness.store.clone(), |builder| builder)
}

#[tokio::test]
async fn what_is_missing_is_loaded_once_and_what_the_source_does_not_have_is_none_and_not_kept() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let database = Database::with("a", 1);
        let numbers = reading(&cache(&harness), &database);
        for _ in 0..3 {
            assert_eq!(numbers.get("a").await.unwrap().as_deref(), Some(&1));
        }
        assert_eq!(database.reads(), 1, "{tiers:?}");
        for reads in 2..4 {
            assert_eq!(numbers.get("b").await.unwrap(), None);
            assert_eq!(database.reads(), reads, "nothing is not kept");
        }
        let lines = harness.recorder.lines();
        assert!(!lines.contains(&"load failed b".to_owned()), "nothing there is an answer: {lines:?}");
        harness.finish(5).await;
    }
}

#[tokio::test]
async fn what_the_source_no_longer_has_is_not_served_stale_not_even_when_the_source_is_down_later() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        numbers.set("a", 1).ttl(seconds(1)).grace(hours(1)).await.unwrap();
        harness.clock.advance(seconds(2));
        let is_down = Arc::new(Mutex::new(false));
        let state = Arc::clone(&is_down);
        let read = numbers.read_through(move |_| {
            let is_down = *state.lock().unwrap();
            async move { if is_down { Err(io::Error::other("down")) } else { Ok(None::<u32>) } }
        });
        assert_eq!(read.get("a").await.unwrap(), None, "{tiers:?}");
        *is_down.lock().unwrap() = true;
        let error = read.get("a").await.unwrap_err();
        assert_eq!(error.load_error::<io::Error>().unwrap().to_string(), "down", "{tiers:?}");
        harness.finish(2).await;
    }
}

#[tokio::test]
async fn a_bound_loader_says_how_long_its_value_lives_and_what_it_carries() {
    let harness = Harness::new(Tiers::Both);
    let numbers = cache::<u32>(&harness);
    let load = |_| async { Ok::<_, io::Error>(Some(Loaded::new(1).ttl(seconds(5)).tags(["own"]))) };
    let read = numbers.read_through(load);
    assert_eq!(read.get("a").await.unwrap().as_deref(), Some(&1));
    let entry = numbers.entry("a").await.unwrap().unwrap();
    assert_eq!((entry.ttl_left, entry.tags[0].as_str()), (Some(seconds(5)), "own"));
    harness.finish(1).await;
}

#[tokio::test]
async fn who_joins_a_load_that_finds_nothing_is_told_so() {
    let harness = Harness::new(Tiers::Both);
    let numbers = cache::<u32>(&harness);
    let gate = Gate::default();
    let slow = gate.clone();
    let read = numbers.read_through(move |_| {
        let slow = slow.clone();
        async move { slow.load(0).await.map(|_| None::<u32>) }
    });
    let first = tokio::spawn(async move { read.get("a").await });
    gate.started.notified().await;
    let plain = numbers.clone();
    let second = tokio::spawn(async move { plain.get_or_set("a", || crate::flow::ok(9)).await });
    settle().await;
    gate.open.notify_one();
    assert_eq!(first.await.unwrap().unwrap(), None);
    let error = second.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Load);
    assert!(error.to_string().contains("the source has nothing"), "{error}");
    harness.finish(2).await;
}

#[test]
fn a_hit_of_a_bound_loader_allocates_nothing() {
    let stack = Stack::builder("cost").memory(MemoryOptions::new(1_000)).build().unwrap();
    let numbers = writing(&stack.cache().unwrap(), &Database::with("a", 1));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(numbers.get("a")).unwrap();
    let hit = || {
        let found = futures_util::FutureExt::now_or_never(numbers.get("a")).expect("a hit does not yield");
        assert_eq!(found.unwrap().as_deref(), Some(&1));
    };
    hit();
    let counted = allocation_counter::measure(|| (0..100).for_each(|_| hit()));
    assert_eq!(counted.count_total, 0);
}

#[tokio::test]
async fn a_write_reaches_the_source_first_and_then_the_cache_with_what_was_said_about_it() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let (database, numbers) = (Database::with("a", 1), cache::<u32>(&harness));
        let written = writing(&numbers, &database);
        assert_eq!(written.get("a").await.unwrap().as_deref(), Some(&1));
        let gate = database.hold(2);
        let set = {
            let written = written.clone();
            tokio::spawn(async move {
                let set = written.set("a", 2).ttl(seconds(9)).grace(hours(1)).tags(["t"]).etag("v2");
                set.last_modified("today").await
            })
        };
        gate.started.notified().await;
        assert_eq!((database.row("a"), *numbers.get("a").await.unwrap().unwrap()), (Some(2), 1));
        gate.open.notify_one();
        set.await.unwrap().unwrap();
        let entry = numbers.entry("a").await.unwrap().unwrap();
        assert_eq!((*entry.value, entry.state), (2, Freshness::Fresh), "{tiers:?}");
        assert_eq!((entry.ttl_left, entry.life_left), (Some(seconds(9)), Some(seconds(9) + hours(1))));
        assert_eq!((entry.tags.len(), entry.etag.as_deref()), (1, Some("v2")));
        assert_eq!(entry.last_modified.as_deref(), Some("today"));
        assert_eq!(database.reads(), 1);

        written.set("a", 3).ttl(seconds(0)).await.unwrap();
        assert_eq!((database.row("a"), numbers.get("a").await.unwrap()), (Some(3), None));
        harness.finish(3).await;
    }
}

#[tokio::test]
async fn a_source_that_refuses_leaves_the_cache_as_it_was_and_its_own_error_is_handed_out() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let (database, numbers) = (Database::default(), cache::<u32>(&harness));
        let (through, invalidate) = (writing(&numbers, &database), invalidating(&numbers, &database));
        through.set("a", 1).await.unwrap();
        harness.recorder.take();
        for by in ["set", "invalidate", "change"] {
            database.fail(io::Error::other("a constraint"));
            let outcome = match by {
                "set" => through.set("a", 2).await,
                "invalidate" => invalidate.set("a", 2).await,
                _ => through.change("a", || async { Err::<(), _>(io::Error::other("a constraint")) }).await,
            };
            let error = outcome.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Write);
            assert_eq!(error.to_string(), "write failed: write of key \"a\" in its source: a constraint");
            assert_eq!(error.write_error::<io::Error>().unwrap().kind(), io::ErrorKind::Other);
            assert!(error.load_error::<io::Error>().is_none());
        }
        assert_eq!(harness.recorder.take(), [""; 0], "{tiers:?}: the cache was not touched");
        assert_eq!(*numbers.get("a").await.unwrap().unwrap(), 1);
        harness.finish(1).await;
    }
}

#[tokio::test]
async fn when_nobody_knows_whether_the_source_took_it_the_cache_forgets_and_the_caller_is_told() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let (database, numbers) = (Database::default(), cache::<u32>(&harness));
        let through = writing(&numbers, &database)
            .in_doubt_if(|error: &io::Error| error.to_string() == "lost the leader");
        let invalidate = invalidating(&numbers, &database);
        for (value, by) in (10..).zip(["timeout", "said", "invalidate", "panic", "judge panics"]) {
            numbers.set("a", value).await.unwrap();
            database.put("a", value + 1);
            database.fail(io::ErrorKind::TimedOut);
            let outcome = match by {
                "timeout" => through.set("a", 1).await,
                "said" => {
                    database.fail(io::Error::other("lost the leader"));
                    through.set("a", 1).await
                }
                "invalidate" => invalidate.set("a", 1).await,
                "judge panics" => {
                    database.fail(io::Error::other("odd"));
                    through.clone().in_doubt_if(|_: &io::Error| panic!("ouch")).set("a", 1).await
                }
                _ => {
                    through
                        .change("a", move || async move {
                            if value > 0 { panic!("ouch") } else { Ok::<_, io::Error>(()) }
                        })
                        .await
                }
            };
            let error = outcome.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InDoubt, "{by}");
            assert_eq!(error.write_error::<io::Error>().is_none(), by.contains("panic"));
            assert!(error.to_string().contains("\"a\""), "{error}");
            assert_eq!(by.contains("panic"), error.to_string().contains("ouch"), "{error}");
            let found = through.get("a").await.unwrap();
            assert_eq!(found.as_deref(), Some(&(value + 1)), "{tiers:?}: what the source has, after {by}");
        }
        harness.finish(5).await;
    }
}

#[tokio::test]
async fn writes_of_one_key_that_overlap_never_leave_the_cache_with_what_the_source_no_longer_has() {
    for tiers in Tiers::ALL {
        for first_to_end in [1, 2] {
            let harness = Harness::new(tiers);
            let (database, numbers) = (Database::default(), cache::<u32>(&harness));
            // Two handles that were made apart.
            let handles = [writing(&numbers, &database), writing(&numbers, &database)];
            let gates = [database.hold(1), database.hold(2)];
            let mut sets = Vec::new();
            for (handle, (gate, value)) in handles.iter().zip(gates.iter().zip([1, 2])) {
                sets.push(spawn_set(handle, "a", value));
                gate.started.notified().await;
            }
            assert_eq!(database.row("a"), Some(2), "the second came to the source last");
            if first_to_end == 2 {
                sets.reverse();
            }
            for (set, value) in sets.into_iter().zip([first_to_end, 3 - first_to_end]) {
                gates[value as usize - 1].open.notify_one();
                set.await.unwrap().unwrap();
                assert_eq!(numbers.get("a").await.unwrap(), None, "{tiers:?}: nobody knows which is right");
            }
            assert!(!harness.recorder.take().contains(&"written a".to_owned()), "not even for a moment");
            assert_eq!(*handles[0].get("a").await.unwrap().unwrap(), 2);
            // One that is alone again is kept.
            handles[1].set("a", 7).await.unwrap();
            assert_eq!(*numbers.get("a").await.unwrap().unwrap(), 7);
            harness.finish(4).await;
        }
    }
}

#[tokio::test]
async fn a_write_that_begins_while_another_one_reaches_the_cache_takes_that_back() {
    let harness = Harness::new(Tiers::Both);
    let (database, numbers) = (Database::default(), cache::<u32>(&harness));
    let written = writing(&numbers, &database);
    harness.chaos.stall(Operation::Set);
    let first = spawn_set(&written, "a", 1);
    settle().await;
    assert_eq!(database.row("a"), Some(1), "it is on its way into the store");
    let gate = database.hold(2);
    let second = spawn_set(&written, "a", 2);
    gate.started.notified().await;
    harness.chaos.release(Operation::Set);
    first.await.unwrap().unwrap();
    assert_eq!(numbers.get("a").await.unwrap(), None, "the source has another value by now");
    gate.open.notify_one();
    second.await.unwrap().unwrap();
    assert_eq!(*written.get("a").await.unwrap().unwrap(), 2);
    harness.finish(2).await;
}

#[tokio::test]
async fn a_write_inside_the_write_of_the_same_key_waits_for_nobody() {
    let harness = Harness::new(Tiers::Both);
    let (database, numbers) = (Database::default(), cache::<u32>(&harness));
    let inner = writing(&numbers, &database);
    let outer = inner.clone();
    outer.change("a", move || async move { inner.set("a", 1).await }).await.unwrap();
    assert_eq!(numbers.get("a").await.unwrap(), None);
    assert_eq!(*outer.get("a").await.unwrap().unwrap(), 1);
    harness.finish(2).await;
}

#[tokio::test]
async fn a_load_that_read_the_old_value_does_not_bury_a_write() {
    for tiers in Tiers::ALL {
        for lands_first in [true, false] {
            let harness = Harness::new(tiers);
            let (database, numbers) = (Database::with("a", 1), cache::<u32>(&harness));
            let written = writing(&numbers, &database);
            let (read, held) = (Gate::default(), database.hold(2));
            let load = crate::loads::spawn_load(&numbers, &read, 1);
            read.started.notified().await;
            let set = spawn_set(&written, "a", 2);
            held.started.notified().await;
            // The source has the new value, the load has the old one.
            let mut load = Some(load);
            if lands_first {
                read.open.notify_one();
                assert_eq!(*load.take().unwrap().await.unwrap().unwrap(), 1);
            }
            held.open.notify_one();
            set.await.unwrap().unwrap();
            if let Some(load) = load {
                read.open.notify_one();
                assert_eq!(*load.await.unwrap().unwrap(), 1);
            }
            assert_eq!(*numbers.get("a").await.unwrap().unwrap(), 2, "{tiers:?}, first: {lands_first}");
            harness.finish(2).await;
        }
    }
}

#[tokio::test]
async fn a_load_of_another_process_does_not_bury_a_write_either() {
    let here = Harness::new(Tiers::Both);
    let there = beside(&here);
    let database = Database::with("a", 1);
    let (numbers, theirs) = (cache::<u32>(&here), cache::<u32>(&there));
    let read = Gate::default();
    let load = crate::loads::spawn_load(&theirs, &read, 1);
    read.started.notified().await;
    here.clock.advance(seconds(1));
    invalidating(&numbers, &database).set("a", 2).await.unwrap();
    read.open.notify_one();
    assert_eq!(*load.await.unwrap().unwrap(), 1);
    assert_eq!(theirs.get("a").await.unwrap(), None);
    writing(&numbers, &database).set("a", 3).await.unwrap();
    assert_eq!(*theirs.get("a").await.unwrap().unwrap(), 3);
    there.finish(3).await;
    here.finish(0).await;
}

#[tokio::test]
async fn a_value_that_the_cache_cannot_keep_replaces_what_it_had_by_nothing() {
    for tiers in [Tiers::L2, Tiers::Both] {
        let harness = Harness::with(tiers, |builder| builder.value_bytes_max(10));
        let texts = cache::<String>(&harness);
        let rows = Arc::new(Mutex::new(String::new()));
        let to = Arc::clone(&rows);
        let written = texts.read_through(|_| async { Ok::<_, io::Error>(None::<String>) }).write_through(
            move |_, text: Arc<String>| {
                text.as_str().clone_into(&mut to.lock().unwrap());
                async { Ok::<_, io::Error>(()) }
            },
        );
        written.set("a", "short".to_owned()).await.unwrap();
        let error = written.set("a", "far too long".to_owned()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        assert!(error.to_string().contains("the source took the write"), "{error}");
        assert_eq!(*rows.lock().unwrap(), "far too long");
        assert_eq!(texts.get("a").await.unwrap(), None, "{tiers:?}");
        harness.finish(1).await;
    }
}

#[tokio::test]
async fn a_store_that_fails_after_the_source_took_it_is_told_apart_and_memory_has_the_value() {
    let harness = Harness::new(Tiers::Both);
    let (database, numbers) = (Database::default(), cache::<u32>(&harness));
    let written = writing(&numbers, &database);
    written.set("a", 1).await.unwrap();
    harness.chaos.fail_next(Operation::Set, 1, ErrorKind::Unavailable);
    let error = written.set("a", 2).await.unwrap_err();
    assert_eq!((error.kind(), database.row("a")), (ErrorKind::Unavailable, Some(2)));
    assert!(
        error.to_string().contains("the source took the write of key \"a\", the cache did not"),
        "{error}"
    );
    assert_eq!(*numbers.get("a").await.unwrap().unwrap(), 2);
    harness.stack.close().await.unwrap();
}

#[tokio::test]
async fn what_can_be_known_before_is_refused_before_the_source_is_written() {
    let harness = Harness::new(Tiers::Both);
    let (database, numbers) = (Database::default(), cache::<u32>(&harness));
    let (through, invalidate) = (writing(&numbers, &database), invalidating(&numbers, &database));
    let long = "x".repeat(10_000);
    assert_eq!(through.set(&long, 1).await.unwrap_err().kind(), ErrorKind::InvalidKey);
    assert_eq!(invalidate.set(&long, 1).await.unwrap_err().kind(), ErrorKind::InvalidKey);
    assert_eq!(through.set("a", 1).tags([""]).await.unwrap_err().kind(), ErrorKind::InvalidKey);
    drop(through.set("a", 1));
    assert!(database.rows.lock().unwrap().is_empty());
    harness.stack.close().await.unwrap();
    assert_eq!(through.set("a", 1).await.unwrap_err().kind(), ErrorKind::Closed);
    assert!(database.rows.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_change_hands_its_result_through_and_the_cache_forgets() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let (database, numbers) = (Database::with("a", 1), cache::<u32>(&harness));
        let written = writing(&numbers, &database);
        assert_eq!(written.get("a").await.unwrap().as_deref(), Some(&1));
        let to = database.clone();
        assert_eq!(written.change("a", || to.remove("a")).await.unwrap(), Some(1));
        assert_eq!(written.get("a").await.unwrap(), None, "{tiers:?}");
        harness.finish(2).await;
    }
}

#[tokio::test]
async fn write_invalidate_writes_the_source_and_then_deletes() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let (database, numbers) = (Database::with("a", 1), cache::<u32>(&harness));
        let written = invalidating(&numbers, &database);
        assert_eq!(written.get("a").await.unwrap().as_deref(), Some(&1));
        let gate = database.hold(2);
        let set = {
            let written = written.clone();
            tokio::spawn(async move { written.set("a", 2).await })
        };
        gate.started.notified().await;
        assert_eq!((database.row("a"), *numbers.get("a").await.unwrap().unwrap()), (Some(2), 1));
        gate.open.notify_one();
        set.await.unwrap().unwrap();
        assert_eq!(numbers.get("a").await.unwrap(), None, "{tiers:?}");
        assert_eq!((*written.get("a").await.unwrap().unwrap(), written.pending_deletes()), (2, 0));
        written.flush().await.unwrap();
        harness.finish(4).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_and_readers_that_race_end_with_what_the_source_has() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let (database, numbers) = (Database::default(), cache::<u32>(&harness));
        let (written, deleting) = (writing(&numbers, &database), invalidating(&numbers, &database));
        for round in 0..200 {
            let start = Arc::new(Barrier::new(4));
            let mut tasks = Vec::new();
            for writer in 0..4 {
                let (written, deleting, start) = (written.clone(), deleting.clone(), Arc::clone(&start));
                tasks.push(tokio::spawn(async move {
                    start.wait().await;
                    let value = round * 10 + writer;
                    match writer {
                        0 => drop(written.get("a").await.unwrap()),
                        1 => deleting.set("a", value).await.unwrap(),
                        _ => written.set("a", value).await.unwrap(),
                    }
                }));
            }
            for task in tasks {
                task.await.unwrap();
            }
            let found = written.get("a").await.unwrap().as_deref().copied();
            assert_eq!(found, database.row("a"), "{tiers:?}, round {round}");
        }
    }
}
