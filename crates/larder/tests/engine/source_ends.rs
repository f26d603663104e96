//! How writes of sources end: callers who give up, runtimes and stacks that go, and deletes that follow later.

use std::io;

use larder::testing::{Harness, Tiers};
use larder::time::{hours, seconds};
use larder::{ErrorKind, Stack, memory::MemoryOptions};

use crate::flow::cache;
use crate::sources::{Database, beside, invalidating, settle, spawn_set, writing};

/// What tokio's timers take for now, which is paused in these tests.
#[expect(clippy::disallowed_methods, reason = "the timers are what is tested")]
fn timers_now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

#[tokio::test]
async fn a_caller_who_gives_up_leaves_the_write_to_go_on_and_the_cache_to_follow() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let (database, numbers) = (Database::with("a", 1), cache::<u32>(&harness));
        let written = writing(&numbers, &database);
        written.get("a").await.unwrap();
        let gate = database.hold(2);
        tokio::select! {
            _ = written.set("a", 2) => panic!("it is held"),
            () = gate.started.notified() => {}
        }
        gate.open.notify_one();
        settle().await;
        assert_eq!(*numbers.get("a").await.unwrap().unwrap(), 2, "{tiers:?}");
        harness.finish(2).await;
    }
}

#[test]
fn a_write_that_ends_with_its_runtime_leaves_nothing_old_in_memory() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let stack = Stack::builder("users").memory(MemoryOptions::new(1_000)).build().unwrap();
    let (database, numbers) = (Database::default(), stack.cache::<u32>().unwrap());
    let written = writing(&numbers, &database);
    let (staying, passing) = (runtime(), runtime());
    staying.block_on(async { written.set("a", 1).await }).unwrap();
    let gate = database.hold(2);
    passing.block_on(async {
        drop(spawn_set(&written, "a", 2));
        gate.started.notified().await;
    });
    assert_eq!(*staying.block_on(numbers.get("a")).unwrap().unwrap(), 1);
    drop(passing);
    assert_eq!(staying.block_on(numbers.get("a")).unwrap(), None);
    stack.check_invariants().unwrap();
    staying.block_on(stack.close()).unwrap();
}

#[tokio::test]
async fn closing_waits_for_the_writes_under_way_so_that_the_store_follows_the_source() {
    let harness = Harness::new(Tiers::Both);
    let after = beside(&harness);
    let (database, numbers) = (Database::default(), cache::<u32>(&harness));
    let written = writing(&numbers, &database);
    written.set("a", 1).await.unwrap();
    let gate = database.hold(2);
    let set = spawn_set(&written, "a", 2);
    gate.started.notified().await;
    let stack = harness.stack.clone();
    let close = tokio::spawn(async move { stack.close().await });
    settle().await;
    assert!(!close.is_finished());
    let refused = written.set("a", 3).await.unwrap_err();
    assert_eq!((refused.kind(), database.row("a")), (ErrorKind::Closed, Some(2)), "nothing new is begun");
    gate.open.notify_one();
    set.await.unwrap().unwrap();
    close.await.unwrap().unwrap();
    assert_eq!(*cache::<u32>(&after).get("a").await.unwrap().unwrap(), 2);
    after.finish(1).await;
}

#[tokio::test]
async fn closing_from_inside_a_write_is_an_error_and_not_a_deadlock() {
    let harness = Harness::new(Tiers::L1);
    let written = writing(&cache(&harness), &Database::default());
    let stack = harness.stack.clone();
    let error = written.change("a", || async move { stack.close().await }).await.unwrap_err();
    let inner = error.write_error::<larder::Error>().unwrap();
    assert_eq!((error.kind(), inner.kind()), (ErrorKind::Write, ErrorKind::Recursion), "{error}");
    written.set("a", 1).await.unwrap();
    harness.finish(0).await;
}

#[tokio::test(start_paused = true)]
async fn the_second_delete_removes_what_came_back_after_the_first() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let (database, numbers) = (Database::with("a", 1), cache::<u32>(&harness));
        let written = invalidating(&numbers, &database).delete_again_after(seconds(5));
        written.set("a", 2).await.unwrap();
        // A replica that lags behind, or a process whose clock is ahead.
        numbers.set("a", 1).await.unwrap();
        harness.clock.advance_with_timers(seconds(4)).await;
        settle().await;
        assert_eq!((*numbers.get("a").await.unwrap().unwrap(), written.pending_deletes()), (1, 1));
        harness.clock.advance_with_timers(seconds(1)).await;
        written.flush().await.unwrap();
        assert_eq!((numbers.get("a").await.unwrap(), written.pending_deletes()), (None, 0), "{tiers:?}");

        database.fail(io::Error::other("refused"));
        written.set("a", 3).await.unwrap_err();
        assert_eq!(written.pending_deletes(), 0, "nothing was written");
        database.fail(io::ErrorKind::TimedOut);
        written.set("a", 3).await.unwrap_err();
        assert_eq!(written.pending_deletes(), 1, "something may have been");
        written.flush().await.unwrap();
        harness.finish(2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn second_deletes_outlive_their_handle_and_closing_makes_them_at_once() {
    let harness = Harness::new(Tiers::Both);
    let there = beside(&harness);
    let (database, numbers) = (Database::default(), cache::<u32>(&harness));
    let written = invalidating(&numbers, &database).delete_again_after(seconds(5));
    written.set("a", 2).await.unwrap();
    numbers.set("a", 1).await.unwrap();
    drop(written);
    settle().await;
    harness.clock.advance_with_timers(seconds(5)).await;
    settle().await;
    assert_eq!(numbers.get("a").await.unwrap(), None);

    let written = invalidating(&numbers, &database).delete_again_after(hours(1_000));
    written.set("b", 2).await.unwrap();
    numbers.set("b", 1).await.unwrap();
    let started = timers_now();
    harness.stack.close().await.unwrap();
    assert_eq!(
        (started.elapsed(), written.pending_deletes()),
        (seconds(0), 0),
        "closing does not wait for its time"
    );
    assert_eq!(cache::<u32>(&there).get("b").await.unwrap(), None);
    there.finish(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_second_delete_that_fails_is_an_event_and_told_to_whoever_flushes() {
    let harness = Harness::new(Tiers::L2);
    let (database, numbers) = (Database::default(), cache::<u32>(&harness));
    let written = invalidating(&numbers, &database).delete_again_after(seconds(5));
    written.set("a", 2).await.unwrap();
    harness.recorder.take();
    harness.chaos.fail_everything(ErrorKind::Unavailable);
    let error = written.flush().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let lines = harness.recorder.take();
    assert!(lines.iter().any(|line| line.starts_with("store failed delete")), "{lines:?}");
    harness.chaos.heal();
    written.flush().await.unwrap();
    harness.finish(0).await;
}
