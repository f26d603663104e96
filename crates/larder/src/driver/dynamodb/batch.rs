//! Several keys at once: batches of reads, what the server left of them for later, and writes side by side.
//!
//! Knows the limits of batches, and nothing of expressions.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::item;
use super::link::Link;
use crate::driver::{Write, Written};
use crate::error::{Error, ErrorKind, Result};

/// How many keys a batch of reads may name.
const BATCH_KEYS: usize = 100;
/// How many batches of one call are on their way at once.
const BATCHES_CONCURRENT: usize = 4;
/// How many single requests of one call are on their way at once.
pub(super) const CONCURRENT_MAX: usize = 32;
/// The pause before asking again for what a batch left, which doubles as long as nothing comes.
const PAUSE: Duration = Duration::from_millis(20);
/// How often in a row nothing may come: after 20 + 40 + … + 640 ms at most.
const IDLE_TRIES_MAX: u32 = 6;

/// The records under several keys, in their order.
pub(super) async fn get_many(link: &Link, keys: &[&str]) -> Result<Vec<Option<Bytes>>> {
    // A batch must not name a key twice.
    let mut places: HashMap<String, Vec<usize>> = HashMap::with_capacity(keys.len());
    for (at, key) in keys.iter().enumerate() {
        places.entry(item::stored_key(key)).or_default().push(at);
    }
    let different: Vec<&str> = places.keys().map(String::as_str).collect();
    let batches: Vec<_> = different.chunks(BATCH_KEYS).map(|keys| get_batch(link, keys)).collect();
    let mut batches = stream::iter(batches).buffer_unordered(BATCHES_CONCURRENT);
    let mut found = vec![None; keys.len()];
    while let Some(values) = batches.try_next().await? {
        for (key, value) in values {
            for at in places.get(&key).into_iter().flatten() {
                if let Some(place) = found.get_mut(*at) {
                    *place = Some(value.clone());
                }
            }
        }
    }
    Ok(found)
}

/// What there is of up to 100 different keys, as the table calls them.
async fn get_batch(link: &Link, keys: &[&str]) -> Result<Vec<(String, Bytes)>> {
    let mut values = Vec::with_capacity(keys.len());
    let mut left = Some(link.batch(keys.iter().copied())?);
    let mut idle = 0;
    while let Some(keys) = left {
        let asked = keys.keys.len();
        let (found, rest) = link.get_some(keys).await?;
        let now = link.now();
        for item in found {
            let Some((_, stored)) = item::keys_of(&item) else { continue };
            if let Some(value) = item::take_value(item, now) {
                values.push((stored, value));
            }
        }
        if let Some(rest) = &rest {
            // An answer has at most 16 MB, and a table that is throttled leaves all of them.
            idle = if rest.keys.len() < asked { 0 } else { idle + 1 };
            if idle > IDLE_TRIES_MAX {
                let message = format!(
                    "dynamodb get: the table \"{}\" is throttled (UnprocessedKeys)",
                    link.place.table
                );
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
            tokio::time::sleep(pause(idle)).await;
        }
        left = rest;
    }
    Ok(values)
}

/// A random part of a time that doubles, so that callers who were turned away together do not come back together.
fn pause(idle: u32) -> Duration {
    let most = PAUSE * 2_u32.pow(idle.saturating_sub(1).min(IDLE_TRIES_MAX));
    let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(RandomState::new().hash_one(idle) % micros.max(1))
}

/// Writes side by side; those of one key one after the other.
pub(super) async fn set_many(link: &Link, writes: Vec<Write>) -> Result<Vec<Written>> {
    let mut by_key: HashMap<String, Vec<(usize, Write)>> = HashMap::with_capacity(writes.len());
    for (at, write) in writes.into_iter().enumerate() {
        by_key.entry(write.key.clone()).or_default().push((at, write));
    }
    let calls = by_key.into_values().map(|writes| async move {
        let mut written = Vec::with_capacity(writes.len());
        for (at, write) in &writes {
            written.push((*at, link.put(write).await?));
        }
        Ok::<_, Error>(written)
    });
    let calls: Vec<_> = calls.collect();
    let mut written: Vec<(usize, Written)> =
        stream::iter(calls).buffer_unordered(CONCURRENT_MAX).try_concat().await?;
    written.sort_unstable_by_key(|(at, _)| *at);
    Ok(written.into_iter().map(|(_, written)| written).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        for (idle, most) in [(0, 20), (1, 20), (2, 40), (6, 640)] {
            for _ in 0..100 {
                assert!(pause(idle) < Duration::from_millis(most));
            }
        }
    }
}
