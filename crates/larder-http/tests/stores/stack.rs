//! `StackStore`: what it writes where, tags that it shares with a stack, and what becomes of chunks.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder::driver::memory::MemoryDriver;
use larder::memory::MemoryOptions;
use larder::testing::{Harness, ManualClock, Operation, Tiers};
use larder::{ErrorKind, Stack};
use larder_http::policy::{Mark, Policy};
use larder_http::store::{CHUNK_BYTES, HttpStore, Purge, StackStore};

use crate::sample::{body_of, clock, has, now, put, put_response, written};

struct Rig {
    clock: ManualClock,
    driver: MemoryDriver,
    stack: Stack,
    store: StackStore,
}

fn rig() -> Rig {
    let (clock, driver) = (clock(), MemoryDriver::default());
    let (stack, store) = open(&clock, &driver);
    Rig { clock, driver, stack, store }
}

fn open(clock: &ManualClock, driver: &MemoryDriver) -> (Stack, StackStore) {
    let stack = Stack::builder("http").store(driver.clone()).clock(Arc::new(clock.clone())).build().unwrap();
    let store = StackStore::new(&stack, Policy::shared()).unwrap();
    (stack, store)
}

/// The keys of all chunks.
async fn chunks(stack: &Stack) -> Vec<String> {
    use futures_util::TryStreamExt as _;
    let chunks =
        stack.cache_with::<Bytes>(larder::codec::Raw).namespace("http").unwrap().namespace("body").unwrap();
    let mut keys: Vec<String> = chunks.keys().try_collect().await.unwrap();
    keys.sort_unstable();
    keys
}

#[tokio::test]
async fn small_bodies_are_in_the_record_and_large_ones_in_chunks() {
    let Rig { clock, stack, store, .. } = rig();
    put(&store, "http://a/small", 16 * 1024, now(&clock)).await;
    assert!(chunks(&stack).await.is_empty());
    let reads = stack.stats();
    assert!(has(&store, "http://a/small").await);
    assert_eq!(stack.stats().hits_l2, reads.hits_l2 + 1, "one read answers a hit");
    put(&store, "http://a/large", 16 * 1024 + 1, now(&clock)).await;
    assert_eq!(chunks(&stack).await.len(), 1);
    put(&store, "http://a/larger", 3 * CHUNK_BYTES + 1, now(&clock)).await;
    assert_eq!(chunks(&stack).await.len(), 5);
}

/// A crash after the chunks, and before the record.
#[tokio::test]
async fn chunks_alone_are_never_served_and_end_by_themselves() {
    let Rig { clock, driver, stack, store } = rig();
    let response = written(&store, "http://a/", vec![1; 900_000].into(), now(&clock)).await.unwrap();
    assert_eq!(chunks(&stack).await.len(), 4);
    drop((stack, store, response));
    let (stack, store) = open(&clock, &driver);
    assert!(!has(&store, "http://a/").await);
    clock.advance(Duration::from_secs(3 * 3_600));
    assert!(chunks(&stack).await.is_empty());
}

#[tokio::test]
async fn chunks_live_as_long_as_their_record() {
    let Rig { clock, driver, stack, store } = rig();
    let mut response = written(&store, "http://a/", vec![1; 600_000].into(), now(&clock)).await.unwrap();
    response.delete_at = now(&clock) + Duration::from_secs(30 * 24 * 3_600);
    put_response(&store, "http://a/", response, now(&clock)).await;
    drop((stack, store));
    let (stack, store) = open(&clock, &driver);
    clock.advance(Duration::from_secs(30 * 24 * 3_600 - 1));
    assert_eq!(body_of(&store, "http://a/").await.map(|body| body.len()), Some(600_000));
    clock.advance(Duration::from_secs(1));
    assert!(!has(&store, "http://a/").await);
    assert_eq!(chunks(&stack).await.len(), 3, "for who still reads it");
    clock.advance(Duration::from_secs(70));
    assert!(chunks(&stack).await.is_empty());
}

#[tokio::test]
async fn a_missing_chunk_is_no_body_and_the_record_is_healed() {
    let Rig { clock, stack, store, .. } = rig();
    put(&store, "http://a/", 900_000, now(&clock)).await;
    let keys = chunks(&stack).await;
    let cache =
        stack.cache_with::<Bytes>(larder::codec::Raw).namespace("http").unwrap().namespace("body").unwrap();
    cache.delete(&keys[2]).await.unwrap();
    assert_eq!(body_of(&store, "http://a/").await, None, "an end that says that it is none");
    assert!(!has(&store, "http://a/").await);
}

#[tokio::test]
async fn a_chunk_of_another_length_or_another_body_is_no_chunk() {
    let Rig { clock, stack, store, .. } = rig();
    let cache =
        stack.cache_with::<Bytes>(larder::codec::Raw).namespace("http").unwrap().namespace("body").unwrap();
    put(&store, "http://a/", 900_000, now(&clock)).await;
    let keys = chunks(&stack).await;
    for wrong in [CHUNK_BYTES - 1, CHUNK_BYTES + 1] {
        put(&store, "http://a/", 900_000, now(&clock)).await;
        let body = store.get("http://a/").await.unwrap().unwrap().responses()[0].body.clone();
        for key in chunks(&stack).await.into_iter().filter(|key| !keys.contains(key) && key.ends_with("/1")) {
            cache.set(&key, vec![9; wrong].into()).await.unwrap();
        }
        assert!(body.read(0).await.unwrap().is_some());
        assert_eq!(body.read(CHUNK_BYTES as u64).await.unwrap(), None, "not a byte of {wrong}");
        assert!(!has(&store, "http://a/").await);
    }

    // The stored bytes of one chunk under the key of another, as a confused store would have it.
    let Rig { clock, driver, stack, store } = rig();
    put(&store, "http://a/", 2 * CHUNK_BYTES, now(&clock)).await;
    let keys = chunks(&stack).await;
    let full = |key: &str| format!("http:1:http/body:{key}");
    let bytes =
        larder::driver::Driver::get(&driver, &full(&keys[0])).await.unwrap().expect("a chunk is there");
    larder::driver::Driver::set(&driver, &full(&keys[1]), bytes, None, larder::driver::When::Always)
        .await
        .unwrap();
    assert_eq!(body_of(&store, "http://a/").await, None);
}

#[tokio::test]
async fn a_store_that_fails_is_not_a_store_that_lost_something() {
    let harness = Harness::new(Tiers::Both);
    let store = StackStore::new(&harness.stack, Policy::shared()).unwrap();
    put(&store, "http://a/", 900_000, now(&harness.clock)).await;
    let response = Arc::clone(&store.get("http://a/").await.unwrap().unwrap().responses()[0]);
    // Chunks are in memory, too; this one process forgets them.
    let other = Stack::builder(harness.stack.name().to_owned())
        .borrowed_store(Arc::clone(harness.stack.store().unwrap()))
        .clock(Arc::new(harness.clock.clone()))
        .build()
        .unwrap();
    let reader = StackStore::new(&other, Policy::shared()).unwrap();
    let body = reader.get("http://a/").await.unwrap().unwrap().responses()[0].body.clone();
    harness.chaos.fail_everything(ErrorKind::Unavailable);
    assert_eq!(body.read(0).await.unwrap_err().kind(), ErrorKind::Unavailable);
    harness.chaos.heal();
    assert!(body.read(0).await.unwrap().is_some());
    assert_eq!(reader.get("http://a/").await.unwrap().unwrap().responses()[0].id, response.id);
}

/// Lets what was spawned go on.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_chunks_of_what_left_are_given_back_after_who_reads_them() {
    let Rig { clock, stack, store, .. } = rig();
    put(&store, "http://a/", 900_000, now(&clock)).await;
    let old = store.get("http://a/").await.unwrap().unwrap();
    assert_eq!(chunks(&stack).await.len(), 4);
    clock.advance(Duration::from_secs(1));
    put(&store, "http://a/", 10, now(&clock)).await;
    let read = async |at| old.responses()[0].body.read(at).await.unwrap().map(|piece| piece.len());
    for _ in 0..5 {
        settle().await;
        clock.advance_with_timers(Duration::from_secs(70)).await;
        settle().await;
        assert_eq!(read(800_000).await, Some(100_000), "who is slow");
    }
    drop(old);
    assert_eq!(chunks(&stack).await.len(), 4, "who reads it in another process");
    clock.advance_with_timers(Duration::from_secs(70)).await;
    settle().await;
    assert!(chunks(&stack).await.is_empty());
    assert_eq!(
        body_of(&store, "http://a/").await.map(|body| body.len()),
        Some(10),
        "the one in its place stays"
    );
}

#[tokio::test(start_paused = true)]
async fn the_chunks_of_what_was_given_up_are_given_back() {
    let Rig { clock, stack, store, .. } = rig();
    let mut writer = store.create("http://a/", &crate::sample::head(now(&clock))).await.unwrap().unwrap();
    writer.write(vec![1; 900_000].into()).await.unwrap();
    let reader = writer.reader();
    drop(writer);
    assert_eq!(chunks(&stack).await.len(), 3);
    settle().await;
    clock.advance_with_timers(Duration::from_secs(70)).await;
    settle().await;
    assert!(reader.read(0).await.unwrap().is_some(), "who reads it goes on");
    drop(reader);
    settle().await;
    assert!(chunks(&stack).await.is_empty());
}

#[tokio::test]
async fn the_chunks_of_what_was_not_taken_are_given_back() {
    let Rig { clock, stack, store, .. } = rig();
    let refused = written(&store, "http://a/", vec![1; 900_000].into(), now(&clock)).await.unwrap();
    store.change("http://a/", &|_| None).await.unwrap();
    assert_eq!(chunks(&stack).await.len(), 4);
    let reader = refused.body.clone();
    drop(refused);
    settle().await;
    assert!(reader.read(0).await.unwrap().is_some(), "who reads it goes on");
    drop(reader);
    settle().await;
    assert!(chunks(&stack).await.is_empty());

    let mut late = written(&store, "http://a/", vec![1; 900_000].into(), now(&clock)).await.unwrap();
    late.began = store.begin();
    store.delete("http://a/").await.unwrap();
    put_response(&store, "http://a/", late, now(&clock)).await;
    settle().await;
    assert!(chunks(&stack).await.is_empty(), "purged meanwhile");

    put(&store, "http://a/", 900_000, now(&clock)).await;
    settle().await;
    assert_eq!(chunks(&stack).await.len(), 4, "what was taken stays");
}

/// Nobody knows whether the record was written: its body must not go.
#[tokio::test]
async fn the_chunks_of_what_may_have_been_taken_stay() {
    let harness = Harness::with(Tiers::L2, |builder| builder.breaker(None));
    let store = StackStore::new(&harness.stack, Policy::shared()).unwrap();
    let clock = &harness.clock;
    let response = Arc::new(written(&store, "http://a/", vec![1; 900_000].into(), now(clock)).await.unwrap());
    harness.chaos.fail_next_after_landing(Operation::Set, 1, ErrorKind::Timeout);
    let add =
        |_: &larder_http::store::Variants| Some(larder_http::store::Variants::new([Arc::clone(&response)]));
    assert!(store.change("http://a/", &add).await.is_err());
    drop(response);
    settle().await;
    assert_eq!(body_of(&store, "http://a/").await.map(|body| body.len()), Some(900_000));
}

/// A 304 for a large body changes its record, and only rarely its chunks; and nobody waits for these.
#[tokio::test(start_paused = true)]
async fn a_response_that_is_renewed_has_its_chunks_written_once_a_day() {
    let harness = Harness::new(Tiers::L2);
    let (store, clock) = (StackStore::new(&harness.stack, Policy::shared()).unwrap(), &harness.clock);
    put(&store, "http://a/", 900_000, now(clock)).await;
    let renew = async || {
        let before = harness.chaos.calls(Operation::Set);
        let change = |variants: &larder_http::store::Variants| {
            let mut newer = larder_http::store::StoredResponse::clone(&variants.responses()[0]);
            newer.delete_at = now(clock) + Duration::from_secs(12 * 3_600);
            variants.updated(&Arc::new(newer))
        };
        store.change("http://a/", &change).await.unwrap();
        assert_eq!(harness.chaos.calls(Operation::Set) - before, 1, "only the record is waited for");
        settle().await;
        harness.chaos.calls(Operation::Set) - before - 1
    };
    let mut written = Vec::new();
    for _ in 0..48 {
        written.push(renew().await);
        clock.advance(Duration::from_secs(3_600));
    }
    assert_eq!(written.iter().sum::<u64>(), 2 * 4, "{written:?}");
    assert_eq!(body_of(&store, "http://a/").await.map(|body| body.len()), Some(900_000));
}

#[tokio::test]
async fn one_invalidation_drops_an_object_and_the_pages_made_from_it() {
    for how in [Purge::Hard, Purge::Soft] {
        let Rig { clock, stack, store, .. } = rig();
        let users = stack.cache::<String>().unwrap();
        let page = async || {
            let mut page = written(&store, "http://a/ada", "<h1>Ada".into(), now(&clock)).await.unwrap();
            page.tags = ["user:1".to_owned()].into();
            page.began = store.begin();
            put_response(&store, "http://a/ada", page, now(&clock)).await;
            users.set("1", "Ada".to_owned()).tags(["user:1"]).await.unwrap();
        };
        page().await;
        // From the application's side.
        match how {
            Purge::Hard => users.invalidate(["user:1"]).await.unwrap(),
            Purge::Soft => users.invalidate(["user:1"]).soft().await.unwrap(),
        }
        assert!(!users.has("1").await.unwrap());
        let left = store.get("http://a/ada").await.unwrap();
        let mark = left.map(|left| left.responses()[0].stored.kept().mark);
        assert_eq!(mark, (how == Purge::Soft).then_some(Mark::Stale));
        // And from HTTP's.
        page().await;
        store.invalidate(&["user:1"], how).await.unwrap();
        assert!(!users.has("1").await.unwrap());
    }
}

#[tokio::test]
async fn a_clear_leaves_what_is_not_http() {
    let Rig { clock, stack, store, .. } = rig();
    let users = stack.cache::<String>().unwrap();
    users.set("1", "Ada".to_owned()).await.unwrap();
    put(&store, "http://a/", 900_000, now(&clock)).await;
    store.clear().await.unwrap();
    assert!(!has(&store, "http://a/").await && chunks(&stack).await.is_empty());
    assert!(users.has("1").await.unwrap());
    store.close().await.unwrap();
    assert!(users.has("1").await.unwrap(), "what is borrowed is not closed");
}

#[tokio::test]
async fn tags_that_are_long_or_many_are_no_reason_not_to_store() {
    let Rig { clock, store, .. } = rig();
    let long = "t".repeat(5_000);
    let mut response = written(&store, "http://a/", "x".into(), now(&clock)).await.unwrap();
    response.tags = [long.clone(), String::new()].into();
    put_response(&store, "http://a/", response, now(&clock)).await;
    store.invalidate(&[&format!("{long}t")], Purge::Hard).await.unwrap();
    assert!(has(&store, "http://a/").await);
    store.invalidate(&[&long], Purge::Hard).await.unwrap();
    assert!(!has(&store, "http://a/").await);
}

/// Stores of two processes, each with a memory: what one changes, the other's next read of the store sees.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_of_two_processes_lose_nothing() {
    let (clock, driver) = (clock(), MemoryDriver::default());
    let stores: Vec<Arc<StackStore>> = (0..2)
        .map(|_| {
            let stack = Stack::builder("http")
                .memory(MemoryOptions::new(1_000))
                .store(driver.clone())
                .clock(Arc::new(clock.clone()))
                .build()
                .unwrap();
            Arc::new(StackStore::new(&stack, Policy::shared()).unwrap())
        })
        .collect();
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let (store, clock) = (Arc::clone(&stores[task % 2]), clock.clone());
            tokio::spawn(async move {
                for _ in 0..8 {
                    let response = written(&*store, "http://a/", "x".into(), now(&clock)).await.unwrap();
                    let response = Arc::new(response);
                    let add = |variants: &larder_http::store::Variants| {
                        let all = variants.responses().iter().chain([&response]).cloned();
                        Some(larder_http::store::Variants::new(all))
                    };
                    store.change("http://a/", &add).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let (_, store) = open(&clock, &driver);
    assert_eq!(store.get("http://a/").await.unwrap().unwrap().responses().len(), 64);
}

#[tokio::test]
async fn a_purge_of_another_process_means_what_is_on_its_way_here() {
    let (clock, driver) = (clock(), MemoryDriver::default());
    let ((stack, store), (_, other)) = (open(&clock, &driver), open(&clock, &driver));
    let mut late = written(&store, "http://a/", vec![1; 900_000].into(), now(&clock)).await.unwrap();
    late.began = store.begin();
    clock.advance(Duration::from_secs(1));
    other.delete("http://a/").await.unwrap();
    put_response(&store, "http://a/", late, now(&clock)).await;
    assert!(!has(&store, "http://a/").await && !has(&other, "http://a/").await);
    let mut next = written(&store, "http://a/", "x".into(), now(&clock)).await.unwrap();
    next.began = store.begin();
    put_response(&store, "http://a/", next, now(&clock)).await;
    assert!(has(&store, "http://a/").await && has(&other, "http://a/").await);
    drop(stack);
}

#[tokio::test]
async fn a_purge_needs_no_read_and_is_made_up_for_if_it_fails() {
    let harness = Harness::new(Tiers::L2);
    let store = StackStore::new(&harness.stack, Policy::shared()).unwrap();
    put(&store, "http://a/", 100, now(&harness.clock)).await;
    for read in [Operation::Get, Operation::GetMany] {
        harness.chaos.fail_all(read, ErrorKind::Timeout);
    }
    assert!(store.delete("http://a/").await.unwrap(), "it is deleted unread");
    harness.chaos.heal();
    assert!(!has(&store, "http://a/").await);

    let harness = Harness::with(Tiers::Both, |builder| builder.breaker(None));
    let store = StackStore::new(&harness.stack, Policy::shared()).unwrap();
    put(&store, "http://a/", 100, now(&harness.clock)).await;
    harness.chaos.fail_everything(ErrorKind::Unavailable);
    assert!(store.delete("http://a/").await.is_err());
    harness.chaos.heal();
    assert!(!has(&store, "http://a/").await, "what could not be deleted is not served again");
}

#[tokio::test(start_paused = true)]
async fn a_purge_gives_the_chunks_back() {
    let Rig { clock, stack, store, .. } = rig();
    put(&store, "http://a/", 900_000, now(&clock)).await;
    assert!(store.delete("http://a/").await.unwrap());
    assert!(!store.delete("http://a/").await.unwrap());
    settle().await;
    clock.advance_with_timers(Duration::from_secs(70)).await;
    settle().await;
    assert!(chunks(&stack).await.is_empty());
}

/// A body that is most of the memory would lose its beginning before its end is read.
#[tokio::test]
async fn memory_alone_keeps_no_body_that_is_much_of_it() {
    let clock = clock();
    let mut options = MemoryOptions::new(1_000);
    options.max_bytes = Some(16 << 20);
    let stack =
        Stack::builder("http").memory(options.clone()).clock(Arc::new(clock.clone())).build().unwrap();
    let store = StackStore::new(&stack, Policy::shared()).unwrap();
    for (bytes, is_kept) in [(100 << 10, true), (1 << 20, true), ((1 << 20) + 1, false)] {
        let target = format!("http://a/{bytes}");
        assert_eq!(put(&store, &target, bytes, now(&clock)).await, is_kept, "{bytes}");
        assert_eq!(body_of(&store, &target).await.map(|body| body.len()), is_kept.then_some(bytes));
    }
    let stack = Stack::builder("http")
        .memory(options.clone())
        .store(MemoryDriver::default())
        .clock(Arc::new(clock.clone()))
        .build()
        .unwrap();
    let store = StackStore::new(&stack, Policy::shared()).unwrap();
    assert!(put(&store, "http://a/", 20 << 20, now(&clock)).await, "a store has room");
    assert_eq!(body_of(&store, "http://a/").await.map(|body| body.len()), Some(20 << 20));

    options.max_entry_bytes = Some(100_000);
    let stack = Stack::builder("http").memory(options).clock(Arc::new(clock.clone())).build().unwrap();
    let store = StackStore::new(&stack, Policy::shared()).unwrap();
    for (bytes, is_kept) in [(50_000, true), (100_000, false)] {
        assert_eq!(put(&store, "http://a/", bytes, now(&clock)).await, is_kept, "{bytes}");
    }
    assert_eq!(body_of(&store, "http://a/").await.map(|body| body.len()), Some(50_000));
}

#[tokio::test]
async fn a_hit_in_memory_allocates_nothing() {
    let clock = clock();
    let stack = Stack::builder("http")
        .memory(MemoryOptions::new(1_000))
        .clock(Arc::new(clock.clone()))
        .build()
        .unwrap();
    let store = StackStore::new(&stack, Policy::shared()).unwrap();
    put(&store, "http://a/", 1_000, now(&clock)).await;
    assert!(store.peek("http://a/").is_some());
    let measured = allocation_counter::measure(|| {
        std::hint::black_box(store.peek("http://a/"));
    });
    assert_eq!(measured.count_total, 0);
}

#[tokio::test]
async fn damaged_records_are_nothing_and_are_written_over() {
    let Rig { clock, driver, store, .. } = rig();
    let full = "http:1:http:http://a/";
    put(&store, "http://a/", 100, now(&clock)).await;
    let bytes = larder::driver::Driver::get(&driver, full).await.unwrap().expect("a record is there");
    for at in (0..bytes.len()).step_by(7) {
        let mut damaged = bytes.to_vec();
        damaged[at] ^= 0x55;
        larder::driver::Driver::set(&driver, full, damaged.into(), None, larder::driver::When::Always)
            .await
            .unwrap();
        assert!(!has(&store, "http://a/").await, "damaged at {at}");
    }
    put(&store, "http://a/", 50, now(&clock)).await;
    assert_eq!(body_of(&store, "http://a/").await.map(|body| body.len()), Some(50));
}
