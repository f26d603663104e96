//! Cases: a TTL is a hint for reclaiming space: never an error, never too early.

use std::sync::Arc;
use std::time::Duration;

use super::{Shown, Subject, must, record, stamp};
use crate::driver::{Driver, When, Written};
use crate::time::{days, seconds};

/// Longer than a TTL of a few milliseconds in a store that counts in seconds and rounds up.
const PAST_THE_SHORTEST: Duration = Duration::from_millis(2_100);
const SHORT: Duration = Duration::from_millis(30);

/// `None` is forever, and a prune knows it.
pub async fn no_ttl_is_until_deleted(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "forever");
    let key = subject.key("k");
    let value = record(&key, stamp(1), b"v");
    subject.put(&key, &value).await;
    must(subject.driver.prune().await, "pruning works");
    subject.expect(&key, &value, "what has no TTL stays").await;
}

/// A store that takes seconds for milliseconds, or a delay for a date, loses this at once.
pub async fn a_minute_is_not_over_at_once(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "minute");
    for ttl in [seconds(60), seconds(61) + Duration::from_nanos(1), Duration::from_millis(60_500)] {
        let key = subject.key(format_args!("{ttl:?}"));
        let value = record(&key, stamp(1), b"v");
        subject.set(&key, &value, Some(ttl), When::Newer).await;
        subject.expect(&key, &value, "a TTL of a minute is not over at once").await;
    }
}

/// A TTL below the store's resolution is rounded up: not refused, and not taken for forever or for the past.
pub async fn a_tiny_ttl_is_not_an_error(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "tiny");
    for nanos in [0, 1, 999, 1_000_000, 1_000_001, 30_000_000, 999_999_999] {
        let ttl = Duration::from_nanos(nanos);
        let key = subject.key(nanos);
        let value = record(&key, stamp(1), b"v");
        let written = subject.set(&key, &value, Some(ttl), When::Always).await;
        assert!(matches!(written, Written::Stored { .. }), "a TTL of {ttl:?} is no reason to refuse");
        itself_or_nothing(&subject, &key, &value).await;
    }
}

/// Thirty days, 2^31 seconds and 2^63 milliseconds are where stores turn a TTL into something else.
pub async fn a_huge_ttl_is_not_over_at_once(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "huge");
    let ttls = [
        days(25),
        days(30),
        days(31),
        days(365),
        days(36_525),
        seconds(1 << 31),
        seconds(u64::from(u32::MAX) + 1),
        Duration::from_millis(i64::MAX as u64),
        seconds(u64::MAX),
        Duration::MAX,
    ];
    for ttl in ttls {
        let key = subject.key(format_args!("{ttl:?}"));
        let value = record(&key, stamp(1), b"v");
        subject.set(&key, &value, Some(ttl), When::Newer).await;
        must(subject.driver.prune().await, "pruning works");
        subject.expect(&key, &value, "a long TTL is not over at once").await;
    }
}

/// The TTL belongs to the write that named it, not to the key.
pub async fn overwriting_without_a_ttl_keeps_the_value(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "ttl gone");
    let conditions = [When::Always, When::Newer, When::Unchanged(Some(stamp(1)))];
    let keys: Vec<String> = conditions.iter().map(|when| subject.key(format_args!("{when:?}"))).collect();
    for (key, when) in keys.iter().zip(conditions) {
        // A first write that expired before the second one finds nothing to swap, so this one has time.
        let first = if when == When::Always { SHORT } else { Duration::from_millis(1_500) };
        subject.set(key, &record(key, stamp(1), b"first"), Some(first), When::Always).await;
        let written = subject.set(key, &record(key, stamp(2), b"second"), None, when).await;
        assert!(matches!(written, Written::Stored { .. }), "{when:?} was refused: {written:?}");
    }
    tokio::time::sleep(PAST_THE_SHORTEST).await;
    must(subject.driver.prune().await, "pruning works");
    for key in &keys {
        let second = record(key, stamp(2), b"second");
        subject.expect(key, &second, "a value without TTL outlives the TTL of the one it replaced").await;
    }
}

/// A write that was refused has no say in how long what is there is kept.
pub async fn a_refused_write_leaves_the_ttl_alone(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "ttl refused");
    let conditions = [When::Newer, When::Unchanged(None), When::Unchanged(Some(stamp(1)))];
    let keys: Vec<String> = conditions.iter().map(|when| subject.key(format_args!("{when:?}"))).collect();
    for (key, when) in keys.iter().zip(conditions) {
        subject.put(key, &record(key, stamp(2), b"stays")).await;
        let written = subject.set(key, &record(key, stamp(1), b"late"), Some(SHORT), when).await;
        assert_eq!(written, Written::Refused { by: Some(stamp(2)) }, "{when:?} should be refused");
    }
    tokio::time::sleep(PAST_THE_SHORTEST).await;
    must(subject.driver.prune().await, "pruning works");
    for key in &keys {
        subject.expect(key, &record(key, stamp(2), b"stays"), "a refused write brings no TTL").await;
    }
}

/// After its TTL a value may be there or not, but never as an error, and never in the way of a new one.
pub async fn what_expired_is_itself_or_nothing(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "expired");
    let (read, swept, again) = (subject.key("read"), subject.key("swept"), subject.key("again"));
    for key in [&read, &swept, &again] {
        subject.set(key, &record(key, stamp(1), b"v"), Some(SHORT), When::Always).await;
    }
    tokio::time::sleep(PAST_THE_SHORTEST).await;
    itself_or_nothing(&subject, &read, &record(&read, stamp(1), b"v")).await;
    let newer = record(&again, stamp(2), b"new");
    let written = subject.set(&again, &newer, None, When::Newer).await;
    assert!(matches!(written, Written::Stored { .. }), "what expired refused what is newer: {written:?}");
    must(subject.driver.prune().await, "pruning works");
    itself_or_nothing(&subject, &swept, &record(&swept, stamp(1), b"v")).await;
    subject.expect(&again, &newer, "a prune leaves what replaced an expired value").await;
}

/// Giving back space is for what has expired, and for nothing else.
pub async fn prune_leaves_what_is_alive(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "prune");
    let ttls = [None, Some(seconds(60)), Some(days(365)), Some(Duration::MAX)];
    let keys: Vec<String> = ttls.iter().map(|ttl| subject.key(format_args!("{ttl:?}"))).collect();
    for (key, ttl) in keys.iter().zip(ttls) {
        subject.set(key, &record(key, stamp(1), b"v"), ttl, When::Always).await;
    }
    let expired = subject.key("expired");
    subject
        .set(&expired, &record(&expired, stamp(1), b"v"), Some(Duration::from_nanos(1)), When::Always)
        .await;
    for _ in 0..2 {
        must(subject.driver.prune().await, "pruning works, also when there is nothing left to do");
    }
    for key in &keys {
        subject.expect(key, &record(key, stamp(1), b"v"), "a prune leaves what is alive").await;
    }
}

async fn itself_or_nothing(subject: &Subject, key: &str, value: &bytes::Bytes) {
    let found = subject.get(key).await;
    assert!(
        found.is_none() || found.as_ref() == Some(value),
        "what has a short TTL should be itself or nothing, but {key:?} holds {}",
        Shown(found.as_ref()),
    );
}
