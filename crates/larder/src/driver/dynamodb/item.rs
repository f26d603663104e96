//! An entry as an item of the table: its attributes, what its key is called, and conditions on it.
//!
//! Knows of a record where its head ends and where its stamp is, and nothing of how items get to the table.
//!
//! | Attribute | Type | What |
//! | --- | --- | --- |
//! | `key` | S | the key, or what stands for it |
//! | `value` | B | the record |
//! | `head` | B | the record's head, so that a listing need not fetch the records |
//! | `stamp` | N | the record's stamp; missing if it has none |
//! | `expires` | N | the second at which it may go; missing if it stays |
//! | `full` | S | the key, where something else stands for it |

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::driver::{When, Write, head};
use crate::entry::wire::stamp_of;
use crate::error::{Error, ErrorKind, Result};
use crate::time::{Stamp, Timestamp};

/// An item's attributes by their names.
pub(super) type Item = HashMap<String, AttributeValue>;

pub(super) const KEY: &str = "key";
pub(super) const VALUE: &str = "value";
pub(super) const HEAD: &str = "head";
pub(super) const STAMP: &str = "stamp";
pub(super) const EXPIRES: &str = "expires";
pub(super) const FULL: &str = "full";

/// The longest partition key.
const KEY_BYTES_MAX: usize = 2_048;
/// What stands for a key begins with this, and no key that stands for itself does.
const MAPPED: &str = "larder#sha256:";
/// The largest item: names and values of all attributes.
const ITEM_BYTES_MAX: usize = 400 * 1_024;
/// The largest value, beside the longest key that stands for itself and all other attributes.
pub(super) const VALUE_BYTES_MAX: usize = ITEM_BYTES_MAX - 4_096;
/// Numbers of more digits are cut off by some who read them.
const EXPIRES_MAX: u64 = 1 << 53;

/// What a key is called in the table: itself, or a hash of it if it is empty or longer than a partition key may be.
pub(super) fn stored_key(key: &str) -> String {
    if !key.is_empty() && key.len() <= KEY_BYTES_MAX && !key.starts_with(MAPPED) {
        return key.to_owned();
    }
    let mut mapped = MAPPED.to_owned();
    for byte in Sha256::digest(key.as_bytes()) {
        // Writing to a string cannot fail.
        let _ = write!(mapped, "{byte:02x}");
    }
    mapped
}

/// The primary key of an item.
pub(super) fn primary_key(key: &str) -> Item {
    HashMap::from([(KEY.to_owned(), text(stored_key(key)))])
}

/// The item of a write.
pub(super) fn encode(write: &Write, now: Timestamp) -> Result<Item> {
    let bytes = write.value.len();
    let stored = stored_key(&write.key);
    let mapped = stored != write.key;
    let beside = stored.len() + if mapped { write.key.len() } else { 0 };
    if bytes > VALUE_BYTES_MAX || bytes + beside > VALUE_BYTES_MAX + KEY_BYTES_MAX {
        let message =
            format!("storing a value of {bytes} bytes in dynamodb, where {VALUE_BYTES_MAX} are the most");
        return Err(Error::new(ErrorKind::TooLarge, message));
    }
    let mut item = HashMap::with_capacity(6);
    item.insert(KEY.to_owned(), text(stored));
    item.insert(VALUE.to_owned(), binary(&write.value));
    item.insert(HEAD.to_owned(), binary(&head(&write.value)));
    if mapped {
        item.insert(FULL.to_owned(), text(write.key.clone()));
    }
    if let Some(stamp) = stamp_of(&write.value) {
        item.insert(STAMP.to_owned(), number(stamp.to_bits()));
    }
    if let Some(expires) = write.ttl.and_then(|ttl| expires_at(now, ttl)) {
        item.insert(EXPIRES.to_owned(), number(expires));
    }
    Ok(item)
}

/// The first second in which what was stored now with this TTL has expired, or `None` if that is too far away.
fn expires_at(now: Timestamp, ttl: Duration) -> Option<u64> {
    let nanos = u128::from(now.as_millis()) * 1_000_000 + ttl.as_nanos();
    u64::try_from(nanos.div_ceil(1_000_000_000)).ok().filter(|second| *second < EXPIRES_MAX)
}

/// Whether an item is still there, by the clock.
pub(super) fn is_alive(item: &Item, now: Timestamp) -> bool {
    number_of(item, EXPIRES).is_none_or(|expires| now.as_millis() < expires.saturating_mul(1_000))
}

/// The record in an item that is alive.
pub(super) fn take_value(mut item: Item, now: Timestamp) -> Option<Bytes> {
    if !is_alive(&item, now) {
        return None;
    }
    // What somebody else put there is the engine's to judge.
    Some(match item.remove(VALUE) {
        Some(AttributeValue::B(blob)) => Bytes::from(blob.into_inner()),
        Some(AttributeValue::S(text)) => Bytes::from(text),
        _ => Bytes::new(),
    })
}

/// The record's head, of an item that may have been fetched without its record.
pub(super) fn head_of(item: &Item) -> Bytes {
    match item.get(HEAD) {
        Some(AttributeValue::B(blob)) => Bytes::copy_from_slice(blob.as_ref()),
        _ => Bytes::new(),
    }
}

/// The stamp by which an item's conditions are decided, if it is alive.
pub(super) fn stamp_in(item: &Item, now: Timestamp) -> Option<Stamp> {
    if !is_alive(item, now) {
        return None;
    }
    number_of(item, STAMP).map(Stamp::from_bits)
}

/// The key of an item, as the user calls it, and as the table does.
pub(super) fn keys_of(item: &Item) -> Option<(String, String)> {
    let Some(AttributeValue::S(stored)) = item.get(KEY) else { return None };
    match item.get(FULL) {
        Some(AttributeValue::S(full)) => Some((full.clone(), stored.clone())),
        _ => Some((stored.clone(), stored.clone())),
    }
}

/// An expression with the names and values that it mentions.
#[derive(Debug, Clone, Default)]
pub(super) struct Expression {
    pub(super) text: String,
    pub(super) names: HashMap<String, String>,
    pub(super) values: HashMap<String, AttributeValue>,
}

impl Expression {
    /// `#key` is the attribute `key`: every word may be reserved.
    pub(super) fn of(text: &str) -> Self {
        let names = [KEY, VALUE, HEAD, STAMP, EXPIRES, FULL].into_iter();
        let names = names.map(|name| (format!("#{name}"), name.to_owned()));
        let mentioned = |placeholder: &str| {
            text.match_indices(placeholder).any(|(at, _)| {
                let after = text.as_bytes().get(at + placeholder.len());
                !after.is_some_and(u8::is_ascii_lowercase)
            })
        };
        Self {
            names: names.filter(|(placeholder, _)| mentioned(placeholder)).collect(),
            text: text.to_owned(),
            values: HashMap::new(),
        }
    }

    pub(super) fn with(mut self, placeholder: &str, value: AttributeValue) -> Self {
        self.values.insert(placeholder.to_owned(), value);
        self
    }
}

/// Under what condition a write is done; `None` is always. An item that expired counts as none.
pub(super) fn condition(write: &Write, now: Timestamp) -> Option<Expression> {
    let seconds = number(now.as_millis() / 1_000);
    let expression = match write.when {
        When::Always => return None,
        When::Newer => match stamp_of(&write.value) {
            Some(stamp) => {
                Expression::of("attribute_not_exists(#stamp) OR #stamp < :stamp OR #expires <= :now")
                    .with(":stamp", number(stamp.to_bits()))
            }
            None => Expression::of("attribute_not_exists(#stamp) OR #expires <= :now"),
        },
        When::Unchanged(None) => Expression::of("attribute_not_exists(#key) OR #expires <= :now"),
        When::Unchanged(Some(stamp)) => {
            Expression::of("#stamp = :stamp AND (attribute_not_exists(#expires) OR #expires > :now)")
                .with(":stamp", number(stamp.to_bits()))
        }
    };
    Some(expression.with(":now", seconds))
}

/// That there is an item which has not expired.
pub(super) fn exists(now: Timestamp) -> Expression {
    Expression::of("attribute_exists(#key) AND (attribute_not_exists(#expires) OR #expires > :now)")
        .with(":now", number(now.as_millis() / 1_000))
}

/// That there is an item which has.
pub(super) fn expired(now: Timestamp) -> Expression {
    Expression::of("#expires <= :now").with(":now", number(now.as_millis() / 1_000))
}

pub(super) fn text(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

pub(super) fn number(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

fn binary(bytes: &[u8]) -> AttributeValue {
    AttributeValue::B(Blob::new(bytes))
}

fn number_of(item: &Item, name: &str) -> Option<u64> {
    match item.get(name)? {
        AttributeValue::N(number) => number.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{days, seconds};

    #[test]
    fn what_stands_for_a_key_is_no_other_key() {
        let long = "x".repeat(KEY_BYTES_MAX + 1);
        let mapped = stored_key(&long);
        assert!(mapped.starts_with(MAPPED) && mapped.len() == MAPPED.len() + 64);
        for (one, other) in [(mapped.as_str(), long.as_str()), ("", MAPPED), (&stored_key(""), "")] {
            assert_ne!(stored_key(one), stored_key(other), "{one:?}, {other:?}");
        }
        for key in ["k", " ", "larder#sha", &"x".repeat(KEY_BYTES_MAX)] {
            assert_eq!(stored_key(key), key);
        }
    }

    #[test]
    fn a_ttl_is_rounded_up_to_seconds_and_never_down() {
        let now = Timestamp::from_millis(10_400);
        let at = |ttl| expires_at(now, ttl);
        assert_eq!(at(Duration::ZERO), Some(11));
        assert_eq!(at(Duration::from_millis(600)), Some(11));
        assert_eq!(at(Duration::from_nanos(600_000_001)), Some(12));
        assert_eq!(at(seconds(1)), Some(12));
        assert_eq!(at(days(36_525)), Some(3_155_760_011));
        assert_eq!(at(Duration::MAX), None);
        let item = HashMap::from([(EXPIRES.to_owned(), number(12))]);
        assert!(is_alive(&item, Timestamp::from_millis(11_999)));
        assert!(!is_alive(&item, Timestamp::from_millis(12_000)));
    }

    #[test]
    fn an_expression_names_what_it_mentions() {
        let expression = Expression::of("attribute_not_exists(#key) OR #expires <= :now");
        let mut names: Vec<_> = expression.names.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["#expires", "#key"]);
    }

    #[test]
    fn the_largest_value_fits_into_an_item_with_any_key() {
        for key in ["k".repeat(KEY_BYTES_MAX), "k".repeat(1_024), String::new()] {
            let write = |bytes| Write {
                key: key.clone(),
                value: Bytes::from(vec![0; bytes]),
                ttl: Some(seconds(1)),
                when: When::Always,
            };
            let item = encode(&write(VALUE_BYTES_MAX), Timestamp::from_millis(u64::MAX / 2_000)).unwrap();
            let size = |value: &AttributeValue| match value {
                AttributeValue::S(text) | AttributeValue::N(text) => text.len(),
                AttributeValue::B(blob) => blob.as_ref().len(),
                _ => unreachable!(),
            };
            let bytes: usize = item.iter().map(|(name, value)| name.len() + size(value)).sum();
            assert!(bytes <= ITEM_BYTES_MAX, "{bytes}");
            assert_eq!(
                encode(&write(VALUE_BYTES_MAX + 1), Timestamp::ZERO).unwrap_err().kind(),
                ErrorKind::TooLarge
            );
        }
        let write =
            Write { key: "k".repeat(ITEM_BYTES_MAX), value: Bytes::new(), ttl: None, when: When::Always };
        assert_eq!(encode(&write, Timestamp::ZERO).unwrap_err().kind(), ErrorKind::TooLarge);
    }
}
