//! Cases: conditional writes, alone and in a race. What makes an invalidation win over a slow load.

use std::sync::Arc;

use bytes::Bytes;

use super::{Shown, Subject, must, record, stamp};
use crate::driver::{Driver, When, Written, head};
use crate::entry::wire::{HEAD_BYTES, encode_tombstone, stamp_of};
use crate::time::{Stamp, Timestamp};

/// A slow load must not bury what was written after it began.
pub async fn an_older_stamp_never_replaces_a_newer_one(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "older");
    let key = subject.key("k");
    let (newer, older) = (record(&key, stamp(2), b"newer"), record(&key, stamp(1), b"older"));
    subject.put(&key, &newer).await;
    let written = subject.set(&key, &older, None, When::Newer).await;
    assert_eq!(
        written,
        Written::Refused { by: Some(stamp(2)) },
        "an older stamp should be refused, and the refusal should name the newer one"
    );
    subject.expect(&key, &newer, "a refused write changes nothing").await;
}

/// The other side of it: what is newer is stored.
pub async fn a_newer_stamp_replaces_an_older_one(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "newer");
    let key = subject.key("k");
    let (older, newer) = (record(&key, stamp(1), b"older"), record(&key, stamp(2), b"newer"));
    subject.put(&key, &older).await;
    let written = subject.set(&key, &newer, None, When::Newer).await;
    assert_eq!(written, stored(Some(&older)), "a newer stamp should be stored, and tell what it replaced");
    subject.expect(&key, &newer, "a newer stamp replaces an older one").await;
}

/// Whoever came first stays, so that all processes agree on one value.
pub async fn a_tie_keeps_what_is_there(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "tie");
    let key = subject.key("k");
    let (first, second) = (record(&key, stamp(1), b"first"), record(&key, stamp(1), b"second"));
    subject.put(&key, &first).await;
    let written = subject.set(&key, &second, None, When::Newer).await;
    assert_eq!(written, Written::Refused { by: Some(stamp(1)) }, "an equal stamp is not newer");
    subject.expect(&key, &first, "a tie keeps what is there").await;
}

/// Over nothing, every stamp is newer, the lowest included.
pub async fn a_stamp_over_nothing_is_stored(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "nothing");
    for (name, stamp) in [("some", stamp(1)), ("zero", Stamp::ZERO), ("last", Stamp::from_bits(u64::MAX))] {
        let key = subject.key(name);
        let value = record(&key, stamp, b"v");
        let written = subject.set(&key, &value, None, When::Newer).await;
        assert_eq!(written, stored(None), "over nothing, {stamp} is newer");
        subject.expect(&key, &value, "a stamp over nothing is stored").await;
    }
}

/// Signed integers and floating-point numbers, which many backends compare by, get these wrong.
pub async fn stamps_compare_as_unsigned_numbers(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "unsigned");
    let bits = [
        0,
        1,
        255,
        256,
        (1 << 53),
        (1 << 53) + 1,
        i64::MAX as u64,
        1 << 63,
        (1 << 63) + 1,
        u64::MAX - 1,
        u64::MAX,
    ];
    for (n, (lower, higher)) in bits.iter().zip(bits.iter().skip(1)).enumerate() {
        let key = subject.key(n);
        let (lower, higher) = (Stamp::from_bits(*lower), Stamp::from_bits(*higher));
        let (older, newer) = (record(&key, lower, b"older"), record(&key, higher, b"newer"));
        subject.put(&key, &older).await;
        let written = subject.set(&key, &newer, None, When::Newer).await;
        assert_eq!(written, stored(Some(&older)), "{:#x} is above {:#x}", higher.to_bits(), lower.to_bits());
        let written = subject.set(&key, &older, None, When::Newer).await;
        assert_eq!(
            written,
            Written::Refused { by: Some(higher) },
            "{:#x} is below {:#x}",
            lower.to_bits(),
            higher.to_bits()
        );
        let swapped = subject.set(&key, &older, None, When::Unchanged(Some(higher))).await;
        assert_eq!(swapped, stored(Some(&newer)), "a swap compares all 64 bits of {:#x}", higher.to_bits());
    }
}

/// An explicit write wins, whatever its stamp.
pub async fn an_unconditional_write_replaces_whatever_is_there(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "always");
    let key = subject.key("k");
    let (newer, older) = (record(&key, stamp(2), b"newer"), record(&key, stamp(1), b"older"));
    let written = subject.set(&key, &newer, None, When::Always).await;
    assert_eq!(written, stored(None), "an unconditional write over nothing replaces nothing");
    let written = subject.set(&key, &older, None, When::Always).await;
    assert_eq!(written, stored(Some(&newer)), "an unconditional write is stored, and tells what it replaced");
    subject.expect(&key, &older, "an unconditional write looks at no stamp").await;
}

/// Compare-and-swap with a stamp: counters and `pull` stand on it.
pub async fn a_swap_needs_the_stamp_it_names(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "swap");
    let key = subject.key("k");
    let (before, after) = (record(&key, stamp(5), b"before"), record(&key, stamp(3), b"after"));

    let written = subject.set(&key, &after, None, When::Unchanged(Some(stamp(5)))).await;
    assert_eq!(written, Written::Refused { by: None }, "over nothing, there is no stamp to match");
    subject.expect_nothing(&key, "a lost swap stores nothing").await;

    subject.put(&key, &before).await;
    for other in [stamp(4), stamp(6), Stamp::ZERO] {
        let written = subject.set(&key, &after, None, When::Unchanged(Some(other))).await;
        assert_eq!(written, Written::Refused { by: Some(stamp(5)) }, "a swap needs the very stamp it names");
        subject.expect(&key, &before, "a lost swap changes nothing").await;
    }

    let written = subject.set(&key, &after, None, When::Unchanged(Some(stamp(5)))).await;
    assert_eq!(written, stored(Some(&before)), "a swap whose stamp is still there is stored, newer or not");
    subject.expect(&key, &after, "a swap that was won is there").await;
}

/// Compare-and-swap from nothing: `add` stands on it.
pub async fn a_swap_from_nothing_needs_nothing_there(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "create");
    let key = subject.key("k");
    let (first, second) = (record(&key, stamp(1), b"first"), record(&key, stamp(2), b"second"));
    let written = subject.set(&key, &first, None, When::Unchanged(None)).await;
    assert_eq!(written, stored(None), "a swap from nothing, over nothing, is stored");
    let written = subject.set(&key, &second, None, When::Unchanged(None)).await;
    assert_eq!(
        written,
        Written::Refused { by: Some(stamp(1)) },
        "a swap from nothing is refused by anything"
    );
    subject.expect(&key, &first, "a lost swap changes nothing").await;
    subject.delete(&key).await;
    let written = subject.set(&key, &second, None, When::Unchanged(None)).await;
    assert_eq!(written, stored(None), "after a delete there is nothing again");
}

/// The engine learns from the head what it replaced: it has to be that, whole, and no more.
pub async fn what_is_replaced_is_told_by_its_head(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "head");
    let key = subject.key("k");
    let values = [
        record(&key, stamp(1), b""),
        record(&key, stamp(2), &[7; 50_000]),
        encode_tombstone(stamp(3), Timestamp::FOREVER),
        record(&key, stamp(4), b"v"),
    ];
    let mut before: Option<&Bytes> = None;
    for value in &values {
        let written = subject.set(&key, value, None, When::Newer).await;
        assert_eq!(written, stored(before), "a write tells the first {HEAD_BYTES} bytes of what it replaced");
        before = Some(value);
    }
}

/// A delete leaves a tombstone; a load that began before it must find its way barred.
pub async fn a_tombstone_buries_an_older_load(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "tombstone");
    let key = subject.key("k");
    let tombstone = encode_tombstone(stamp(5), Timestamp::FOREVER);
    subject.put(&key, &record(&key, stamp(1), b"before")).await;
    subject.set(&key, &tombstone, None, When::Newer).await;
    let late = record(&key, stamp(4), b"loaded before the delete");
    let written = subject.set(&key, &late, None, When::Newer).await;
    assert_eq!(written, Written::Refused { by: Some(stamp(5)) }, "a load from before a delete is refused");
    subject.expect(&key, &tombstone, "a deleted value never comes back").await;
    let after = record(&key, stamp(6), b"loaded after the delete");
    subject.set(&key, &after, None, When::Newer).await;
    subject.expect(&key, &after, "a load from after a delete is stored").await;
}

/// A thousand races of two writers: whoever is newer is there in the end, whoever was faster.
pub async fn the_newer_stamp_wins(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "race");
    let key = subject.key("k");
    for round in 0..1_000 {
        let (older, newer) =
            (record(&key, stamp(2 * round), b"older"), record(&key, stamp(2 * round + 1), b"newer"));
        // Half of the rounds start the newer one first: either order has to be survived.
        let both = if round % 2 == 0 { [older, newer.clone()] } else { [newer.clone(), older] };
        let tasks = both.map(|value| {
            let (subject, key) = (subject.clone(), key.clone());
            tokio::spawn(async move { subject.set(&key, &value, None, When::Newer).await })
        });
        for task in tasks {
            must(task.await, "a racing writer works");
        }
        subject.expect(&key, &newer, "of two racing writers the newer stamp wins").await;
    }
}

/// Eight tasks, fifty increments each, by compare-and-swap: not one is lost, not one counts twice.
pub async fn swapped_counters_add_up(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "counter");
    let key = subject.key("k");
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (subject, key) = (subject.clone(), key.clone());
            tokio::spawn(async move {
                for _ in 0..50 {
                    increment(&subject, &key).await;
                }
            })
        })
        .collect();
    for task in tasks {
        must(task.await, "counting works");
    }
    let found = subject.get(&key).await;
    assert_eq!(
        found.as_deref().and_then(stamp_of),
        Some(stamp(400)),
        "8 tasks that each swapped 50 times should have counted to 400, but {} is there",
        Shown(found.as_ref()),
    );
}

/// Many tasks swap from nothing at once: one wins, and what it wrote is what is there.
pub async fn one_of_many_creates_a_key(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "creators");
    for round in 0..20 {
        let key = subject.key(round);
        let tasks: Vec<_> = (0..16_u64)
            .map(|task| {
                let (subject, key) = (subject.clone(), key.clone());
                tokio::spawn(async move {
                    let value = record(&key, stamp(task), format!("{task}").as_bytes());
                    let written = subject.set(&key, &value, None, When::Unchanged(None)).await;
                    matches!(written, Written::Stored { .. }).then_some(value)
                })
            })
            .collect();
        let mut winners = Vec::new();
        for task in tasks {
            winners.extend(must(task.await, "creating works"));
        }
        assert_eq!(winners.len(), 1, "of 16 tasks that create a key, exactly one is told that it did");
        for winner in winners {
            subject.expect(&key, &winner, "the winner's value is there").await;
        }
    }
}

/// The counter is the stamp itself, so that a swap compares what it counts.
async fn increment(subject: &Subject, key: &str) {
    loop {
        let current = subject.get(key).await.as_deref().and_then(stamp_of);
        let next = current.map_or(stamp(1), |current| Stamp::from_bits(current.to_bits() + 1));
        let written = subject.set(key, &record(key, next, b""), None, When::Unchanged(current)).await;
        match written {
            Written::Stored { .. } => return,
            Written::Refused { by } => {
                assert_ne!(by, current, "a swap was refused by the stamp that it named")
            }
        }
    }
}

fn stored(previous: Option<&Bytes>) -> Written {
    Written::Stored { previous: previous.map(|bytes| head(bytes)) }
}
