//! Cases: a call that is dropped half-way hurts nobody else.
//!
//! A connection that is used again after a call was dropped on it hands the late answer to the next caller:
//! one user's session becomes another's. It has happened to most clients of most stores.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};

use super::{Shown, Subject, must, record, stamp};
use crate::driver::{Driver, When, Write};
use crate::time::Stamp;

const ROUNDS: u64 = 200;

/// Every method is polled once and dropped while others are at work; whoever asks next gets its own answer.
pub async fn a_dropped_call_gives_its_answer_to_no_other(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "drop");
    let done = Arc::new(AtomicBool::new(false));
    let load: Vec<_> =
        (0..4).map(|worker| tokio::spawn(keep_busy(subject.clone(), worker, Arc::clone(&done)))).collect();
    let (one, two) = (subject.key("one"), subject.key("two"));
    let value = record(&two, stamp(1), b"the value of two");
    subject.put(&one, &record(&one, stamp(1), b"the value of one")).await;
    subject.put(&two, &value).await;
    for round in 0..ROUNDS {
        drop_one_of_each(&subject, &one, round).await;
        subject.expect(&two, &value, "after dropped calls, a key reads as its own value").await;
        let many =
            must(subject.driver.get_many(&[&two, &two]).await, "a batch read works after dropped calls");
        assert!(
            many == [Some(value.clone()), Some(value.clone())],
            "after dropped calls, a batch read should give its own answers: {}",
            Shown(many.iter().flatten().next()),
        );
    }
    done.store(true, Ordering::Relaxed);
    for task in load {
        must(task.await, "others keep working while calls are dropped");
    }
}

/// A write that was dropped may land or not; what is there is one whole value or the other.
pub async fn a_dropped_write_is_done_or_not_done(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "dropped write");
    for round in 0..20 {
        let key = subject.key(round);
        let (before, after) = (record(&key, stamp(1), &[1; 70_000]), record(&key, stamp(2), &[2; 90_000]));
        subject.put(&key, &before).await;
        drop_at_once(subject.driver.set(&key, after.clone(), None, When::Newer)).await;
        for _ in 0..5 {
            let found = subject.get(&key).await;
            assert!(
                found.as_ref() == Some(&before) || found.as_ref() == Some(&after),
                "a dropped write should be done or not done, but {key:?} holds {}",
                Shown(found.as_ref()),
            );
        }
        // Whatever became of it, the key is not stuck.
        let last = record(&key, stamp(3), b"last");
        subject.set(&key, &last, None, When::Newer).await;
        subject.expect(&key, &last, "after a dropped write, a newer one lands and stays").await;
    }
}

/// Starts each kind of call on a key, looks once, and walks away.
async fn drop_one_of_each(subject: &Subject, key: &str, round: u64) {
    let driver = &subject.driver;
    let value = || record(key, stamp(round), format!("round {round}").as_bytes());
    let write = || Write { key: key.to_owned(), value: value(), ttl: None, when: When::Always };
    drop_at_once(driver.get(key)).await;
    drop_at_once(driver.set(key, value(), None, When::Always)).await;
    drop_at_once(driver.set(key, value(), None, When::Newer)).await;
    drop_at_once(driver.get_many(&[key, key])).await;
    drop_at_once(driver.set_many(vec![write(), write()])).await;
    drop_at_once(driver.delete(key)).await;
    drop_at_once(driver.delete_many(&[key, key])).await;
    drop_at_once(driver.ping()).await;
    if driver.capabilities().enumerates && round.is_multiple_of(20) {
        drop_at_once(driver.clear(key, Stamp::MAX)).await;
        drop_at_once(driver.scan(key).next()).await;
        drop_at_once(driver.prune()).await;
    }
    // Some calls get a little further before they are dropped: another await is another place to break at.
    let mut further = Box::pin(driver.get(key));
    for _ in 0..round % 4 {
        if (&mut further).now_or_never().is_some() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// Polls once, then drops.
async fn drop_at_once<F: Future>(call: F) {
    // What a call that ends at its first poll has to say is of no interest, a failure included.
    let _ = call.now_or_never();
    tokio::task::yield_now().await;
}

/// Writes and reads keys of its own until it is told to stop, so that dropped calls leave their answers
/// between those of others.
async fn keep_busy(subject: Subject, worker: u64, done: Arc<AtomicBool>) {
    let key = subject.key(format_args!("worker {worker}"));
    let mut round = 0;
    while !done.load(Ordering::Relaxed) {
        round += 1;
        let value: Bytes = record(&key, stamp(round), format!("worker {worker}, round {round}").as_bytes());
        subject.put(&key, &value).await;
        subject.expect(&key, &value, "while calls of others are dropped, a worker reads what it wrote").await;
        tokio::task::yield_now().await;
    }
}
