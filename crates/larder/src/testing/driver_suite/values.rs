//! Cases: what was stored is what is read, one key or many.

use std::sync::Arc;

use bytes::Bytes;

use super::{Shown, Subject, must, record, stamp};
use crate::driver::{Driver, When, Write, Written};

/// Nothing is an answer, not an error.
pub async fn a_missing_key_is_nothing(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "missing");
    subject.expect_nothing(&subject.key("k"), "a key that was never written is a miss").await;
}

/// Payloads from nothing to 4 MiB, with every byte value in them.
pub async fn values_come_back_byte_for_byte(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "sizes");
    let limit = subject.driver.capabilities().value_bytes_max;
    for size in [0, 1, 1 << 10, 1 << 16, 1 << 20, 1 << 22] {
        let key = subject.key(size);
        // 251 is prime: no power of two repeats with it, so a block that is lost or doubled shows.
        let payload: Vec<u8> = (0..size).map(|at: u32| (at % 251) as u8 ^ (at >> 16) as u8).collect();
        let value = record(&key, stamp(1), &payload);
        if limit.is_some_and(|limit| value.len() as u64 > limit) {
            continue;
        }
        subject.put(&key, &value).await;
        subject.expect(&key, &value, "a value is kept whole, whatever its size").await;
        subject.delete(&key).await;
    }
}

/// A later write replaces an earlier one, longer or shorter.
pub async fn the_last_write_is_what_is_read(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "overwrite");
    let key = subject.key("k");
    for payload in [&b"first"[..], b"", b"a second one that is longer than the first", b"3rd"] {
        let value = record(&key, stamp(1), payload);
        subject.put(&key, &value).await;
        subject.expect(&key, &value, "a write replaces all of what was there").await;
    }
}

/// True for what was there, false for what was not, and neither is an error.
pub async fn delete_says_whether_there_was_something(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "delete");
    let (key, other) = (subject.key("k"), subject.key("other"));
    assert!(!subject.delete(&key).await, "deleting what was never there should say false");
    for key in [&key, &other] {
        subject.put(key, &record(key, stamp(1), b"v")).await;
    }
    assert!(subject.delete(&key).await, "deleting what is there should say true: `pull` relies on it");
    subject.expect_nothing(&key, "what was deleted is gone").await;
    assert!(!subject.delete(&key).await, "deleting a second time should say false");
    subject.expect(&other, &record(&other, stamp(1), b"v"), "a delete takes one key only").await;
}

/// One answer for each key that was asked for, in the order of asking.
pub async fn a_batch_read_keeps_order_holes_and_duplicates(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "get_many");
    let keys: Vec<String> = (0..6).map(|n| subject.key(n)).collect();
    for key in keys.iter().step_by(2) {
        subject.put(key, &record(key, stamp(1), key.as_bytes())).await;
    }
    let asked: Vec<&str> =
        [5, 4, 3, 0, 4, 5, 1, 2, 0].iter().filter_map(|n: &usize| keys.get(*n)).map(String::as_str).collect();
    let found = must(subject.driver.get_many(&asked).await, "a batch read with holes works");
    assert_eq!(found.len(), asked.len(), "a batch read should give one answer for each key asked for");
    for (key, found) in asked.iter().zip(&found) {
        let there = keys.iter().step_by(2).any(|stored| stored == key);
        let expected = there.then(|| record(key, stamp(1), key.as_bytes()));
        assert!(
            *found == expected,
            "a batch read should answer in the order of the keys, holes and duplicates included: {key:?} \
             should be {}, but is {}",
            Shown(expected.as_ref()),
            Shown(found.as_ref()),
        );
    }
}

/// A batch of writes lands, and says of each what it replaced.
pub async fn a_batch_write_answers_in_order(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "set_many");
    let keys: Vec<String> = (0..5).map(|n| subject.key(n)).collect();
    let before: Vec<Option<Bytes>> =
        keys.iter().enumerate().map(|(n, key)| (n % 2 == 0).then(|| record(key, stamp(1), b"old"))).collect();
    for (key, value) in keys.iter().zip(&before) {
        if let Some(value) = value {
            subject.put(key, value).await;
        }
    }
    let value_of = |key: &str| record(key, stamp(2), key.as_bytes());
    let writes = keys.iter().map(|key| always(key, value_of(key))).collect();
    let written = must(subject.driver.set_many(writes).await, "a batch write works");
    let expected: Vec<Written> = before
        .iter()
        .map(|value| Written::Stored { previous: value.as_deref().map(crate::driver::head) })
        .collect();
    assert_eq!(written, expected, "a batch write should say, in order, what each write replaced");
    for key in &keys {
        subject.expect(key, &value_of(key), "every write of a batch lands").await;
    }
}

/// A batch that names a key twice comes to what the same writes one after another come to.
pub async fn a_key_twice_in_a_batch_keeps_the_last(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "set_many twice");
    let (key, ordered) = (subject.key("always"), subject.key("newer"));
    let (first, last) = (record(&key, stamp(1), b"first"), record(&key, stamp(2), b"last"));
    let (newer, older) = (record(&ordered, stamp(2), b"newer"), record(&ordered, stamp(1), b"older"));
    let writes = vec![
        always(&key, first),
        Write { when: When::Newer, ..always(&ordered, newer.clone()) },
        always(&key, last.clone()),
        Write { when: When::Newer, ..always(&ordered, older) },
    ];
    let written = must(subject.driver.set_many(writes).await, "a batch may name a key twice");
    assert_eq!(written.len(), 4, "a batch write should give one answer for each write");
    subject.expect(&key, &last, "of two writes of one key in a batch the last stays").await;
    subject.expect(&ordered, &newer, "in a batch, too, an older stamp never replaces a newer one").await;
}

/// One refusal in a batch refuses nothing else.
pub async fn conditions_in_a_batch_are_each_their_own(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "set_many when");
    let names = ["older", "newer", "swap", "lost swap", "create", "lost create", "always"];
    let keys: Vec<String> = names.iter().map(|name| subject.key(name)).collect();
    let (before, after) =
        (stamp(10), [stamp(5), stamp(15), stamp(5), stamp(5), stamp(5), stamp(5), stamp(5)]);
    let when = [
        When::Newer,
        When::Newer,
        When::Unchanged(Some(before)),
        When::Unchanged(Some(stamp(9))),
        When::Unchanged(None),
        When::Unchanged(None),
        When::Always,
    ];
    let allowed = [false, true, true, false, true, false, true];
    for key in keys.iter().filter(|key| !key.ends_with(":create")) {
        subject.put(key, &record(key, before, b"before")).await;
    }
    let writes = keys.iter().zip(after).zip(when);
    let writes = writes.map(|((key, at), when)| Write { when, ..always(key, record(key, at, b"after")) });
    let written =
        must(subject.driver.set_many(writes.collect()).await, "a batch of conditional writes works");
    assert_eq!(written.len(), keys.len(), "a batch write should give one answer for each write");
    for (((key, written), at), allowed) in keys.iter().zip(&written).zip(after).zip(allowed) {
        let stored = matches!(written, Written::Stored { .. });
        assert_eq!(stored, allowed, "each write of a batch has its own condition: {key:?} gave {written:?}");
        let holds = if allowed { record(key, at, b"after") } else { record(key, before, b"before") };
        subject.expect(key, &holds, "what a batch says it stored or refused is what is there").await;
    }
}

/// The count of a batch delete is of what was there, each once.
pub async fn a_batch_delete_counts_what_was_there(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "delete_many");
    let keys: Vec<String> = (0..4).map(|n| subject.key(n)).collect();
    for key in keys.iter().take(3) {
        subject.put(key, &record(key, stamp(1), b"v")).await;
    }
    let asked: Vec<&str> =
        [1, 3, 0, 1].iter().filter_map(|n: &usize| keys.get(*n)).map(String::as_str).collect();
    let deleted = must(subject.driver.delete_many(&asked).await, "a batch delete with holes works");
    assert_eq!(deleted, 2, "a batch delete should count what was there, each key once");
    let left =
        must(subject.driver.get_many(&keys.iter().map(String::as_str).collect::<Vec<_>>()).await, "reading");
    let left: Vec<bool> = left.iter().map(Option::is_some).collect();
    assert_eq!(left, [false, false, true, false], "a batch delete takes its keys and no others");
}

/// Nothing asked, nothing done, no error.
pub async fn an_empty_batch_is_nothing(driver: Arc<dyn Driver>) {
    let found = must(driver.get_many(&[]).await, "an empty batch read works");
    let written = must(driver.set_many(Vec::new()).await, "an empty batch write works");
    let deleted = must(driver.delete_many(&[]).await, "an empty batch delete works");
    assert!(found.is_empty() && written.is_empty() && deleted == 0, "an empty batch should do nothing");
}

/// Backends limit how many keys one statement or request may name; a driver splits.
pub async fn a_batch_of_five_hundred_works(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "500");
    let keys: Vec<String> = (0..500).map(|n| subject.key(n)).collect();
    let asked: Vec<&str> = keys.iter().map(String::as_str).collect();
    let value_of = |key: &str| record(key, stamp(1), key.as_bytes());
    let writes = keys.iter().map(|key| always(key, value_of(key))).collect();
    let written = must(subject.driver.set_many(writes).await, "500 keys are written in a batch");
    assert_eq!(written.len(), 500, "a batch write should give one answer for each write");
    let found = must(subject.driver.get_many(&asked).await, "500 keys are read in a batch");
    assert_eq!(found.len(), 500, "a batch read should give one answer for each key");
    for (key, found) in asked.iter().zip(found) {
        assert!(found == Some(value_of(key)), "in a batch of 500, {key:?} is {}", Shown(found.as_ref()));
    }
    let deleted = must(subject.driver.delete_many(&asked).await, "500 keys are deleted in a batch");
    assert_eq!(deleted, 500, "a batch delete should count what was there");
}

/// Many tasks at once, each with its own keys, see their own values and no error.
pub async fn sixty_four_tasks_get_their_own_answers(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "tasks");
    let tasks: Vec<_> = (0..64)
        .map(|task| {
            let subject = subject.clone();
            tokio::spawn(async move {
                for round in 0..10 {
                    let key = subject.key(format_args!("{task}/{}", round % 3));
                    let value = record(&key, stamp(round), format!("{task} {round}").as_bytes());
                    subject.put(&key, &value).await;
                    subject.expect(&key, &value, "one of 64 tasks reads what it wrote").await;
                }
            })
        })
        .collect();
    for task in tasks {
        must(task.await, "64 tasks at once work");
    }
}

/// While a value is replaced, a reader sees the one or the other, whole: a gap would be a miss for everyone.
pub async fn a_value_that_is_being_replaced_is_never_missing(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "replace");
    let key = subject.key("k");
    let values = [record(&key, stamp(1), &[1; 30_000]), record(&key, stamp(2), &[2; 60_000])];
    for value in &values {
        subject.put(&key, value).await;
    }
    let writer = tokio::spawn({
        let (subject, key, values) = (subject.clone(), key.clone(), values.clone());
        async move {
            for value in values.iter().cycle().take(100) {
                subject.put(&key, value).await;
            }
        }
    });
    while !writer.is_finished() {
        let found = subject.get(&key).await;
        assert!(
            found.as_ref().is_some_and(|found| values.contains(found)),
            "while it is replaced, {key:?} should hold the one value or the other, but holds {}",
            Shown(found.as_ref()),
        );
        // A driver that never waits would keep the writer from its turn.
        tokio::task::yield_now().await;
    }
    must(writer.await, "replacing a value works");
}

/// A store that can be reached says so.
pub async fn a_ping_answers(driver: Arc<dyn Driver>) {
    must(driver.ping().await, "a ping of a store that is there works");
}

/// Shutting down is often done twice; it never fails for that.
pub async fn closing_twice_is_not_an_error(driver: Arc<dyn Driver>) {
    must(driver.close().await, "closing works");
    must(driver.close().await, "closing a second time works");
}

fn always(key: &str, value: Bytes) -> Write {
    Write { key: key.to_owned(), value, ttl: None, when: When::Always }
}
