//! Changes that a caller asks for: set, delete, expire, clear. The store first, then memory.
//!
//! When a change returns, no lookup that starts later in this process finds what was there before: the change
//! of memory takes the right to be kept from every read and load under way, in one step ([`flight`]).
//!
//! [`flight`]: super::flight

use std::sync::Arc;

use bytes::Bytes;

use crate::driver::{When, Write, Written};
use crate::entry::wire;
use crate::entry::{AnyValue, Entry, Extras, Meta};
use crate::error::Result;
use crate::event::Event;
use crate::options::EntryOptions;
use crate::stack::l2::{Insist, OnFailure, was_alive};
use crate::stack::{Core, Door, Space};
use crate::time::{Stamp, Timestamp};

/// A value to be set, with what was said about it.
#[derive(Clone)]
pub(crate) struct NewValue {
    pub(crate) value: AnyValue,
    /// The call's options over the cache's over the stack's.
    pub(crate) options: EntryOptions,
    pub(crate) extras: Option<Arc<Extras>>,
}

impl NewValue {
    pub(crate) fn meta(&self, stamp: Stamp, now: Timestamp) -> Meta {
        let options = &self.options;
        let mut meta = Meta::new(stamp, now, options.ttl_or_default(), options.grace_or_default());
        meta.extras.clone_from(&self.extras);
        meta
    }
}

/// Forgets a key in memory if the change it stands for is abandoned half-way, so that memory does not go on
/// serving what the store may no longer have.
pub(crate) struct Abandoned<'a> {
    core: &'a Core,
    space: &'a Space,
    key: &'a str,
    armed: bool,
}

impl<'a> Abandoned<'a> {
    pub(crate) fn guard(core: &'a Core, space: &'a Space, key: &'a str) -> Self {
        Self { core, space, key, armed: true }
    }

    pub(crate) fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        if self.armed {
            drop(self.core.forget(self.space, self.key));
        }
    }
}

impl Core {
    /// Removes a key from memory and takes the right to be kept from whatever is under way for it.
    pub(crate) fn forget(&self, space: &Space, key: &str) -> Option<Entry> {
        self.flights.supersede(space.id, key, || self.memory.as_ref()?.remove(space.id, key))
    }

    /// Puts a key into memory and takes the right to be kept from whatever is under way for it.
    pub(crate) fn remember(&self, space: &Space, key: &str, entry: &Entry, value_bytes: usize) {
        let mut evicted = Vec::new();
        let replaced = self
            .flights
            .supersede(space.id, key, || self.insert_in_memory(space, key, entry, value_bytes, &mut evicted));
        drop(replaced);
        self.report_evicted(evicted);
    }

    /// Stores a value. With a TTL of zero nothing is stored, and what was there goes.
    pub(crate) async fn set(&self, door: &Door, key: &str, new: NewValue, now: Timestamp) -> Result<()> {
        if new.options.ttl_or_default().is_zero() {
            return self.delete(door, key, now).await.map(|_| ());
        }
        let space = &*door.space;
        let stamp = self.clock.tick(now);
        let mut entry = Entry { meta: new.meta(stamp, now), value: new.value };
        let mut outcome = Ok(());
        let value_bytes;
        match &self.l2 {
            None => value_bytes = (door.weigh)(&entry.value),
            Some(l2) => {
                let full = space.keys.full(key)?;
                let (record, payload_bytes) = self.encode(door, &full, &entry.value, &entry.meta)?;
                value_bytes = payload_bytes;
                let abandoned = Abandoned::guard(self, space, key);
                let ttl = entry.meta.life_left(now);
                let mut first = Some(record);
                let stored =
                    l2.insist(self, Insist { operation: "set", full: &full, ttl, stamp }, now, |stamp| {
                        if let Some(record) = first.take() {
                            return Ok(record);
                        }
                        entry.meta.stamp = stamp;
                        entry.meta.born = stamp;
                        self.encode(door, &full, &entry.value, &entry.meta).map(|(record, _)| record)
                    });
                // If the store failed, memory still takes what the caller meant; the caller gets the error.
                outcome = stored.await.map(|_| ());
                abandoned.disarm();
            }
        }
        self.remember(space, key, &entry, value_bytes);
        if outcome.is_ok() {
            self.emit(&Event::Written { namespace: space.keys.path(), key });
        }
        outcome
    }

    /// Stores several values in one batch.
    pub(crate) async fn set_many(
        &self,
        door: &Door,
        values: Vec<(String, NewValue)>,
        now: Timestamp,
    ) -> Result<()> {
        let Some(l2) = &self.l2 else {
            for (key, new) in values {
                self.set(door, &key, new, now).await?;
            }
            return Ok(());
        };
        let (zero, values): (Vec<_>, Vec<_>) =
            values.into_iter().partition(|(_, new)| new.options.ttl_or_default().is_zero());
        for (key, new) in zero {
            self.set(door, &key, new, now).await?;
        }
        let mut entries = Vec::with_capacity(values.len());
        let mut writes = Vec::with_capacity(values.len());
        for (key, new) in &values {
            let entry = Entry { meta: new.meta(self.clock.tick(now), now), value: Arc::clone(&new.value) };
            let full = door.space.keys.full(key)?;
            let (value, payload_bytes) = self.encode(door, &full, &entry.value, &entry.meta)?;
            writes.push(Write { key: full, value, ttl: entry.meta.life_left(now), when: When::Newer });
            entries.push((entry, payload_bytes));
        }
        let space = &*door.space;
        let abandoned: Vec<_> = values.iter().map(|(key, _)| Abandoned::guard(self, space, key)).collect();
        let written = l2.write_many(self, "set", writes, OnFailure::Return).await;
        abandoned.into_iter().for_each(Abandoned::disarm);
        let failure = written.as_ref().err().cloned();
        let mut refused = Vec::new();
        for (index, ((key, _), (entry, payload_bytes))) in values.iter().zip(&entries).enumerate() {
            let was_refused =
                matches!(&written, Ok(all) if matches!(all.get(index), Some(Written::Refused { .. })));
            if was_refused {
                refused.push(index);
                continue;
            }
            self.remember(space, key, entry, *payload_bytes);
            if failure.is_none() {
                self.emit(&Event::Written { namespace: space.keys.path(), key });
            }
        }
        for (key, new) in pick(values, &refused) {
            self.set(door, &key, new, now).await?;
        }
        failure.map_or(Ok(()), Err)
    }

    /// Removes a key. True if it had an entry, be it stale.
    pub(crate) async fn delete(&self, door: &Door, key: &str, now: Timestamp) -> Result<bool> {
        let space = &*door.space;
        let in_memory = self.probe(space, key, now).is_some();
        let outcome = match &self.l2 {
            None => Ok(false),
            Some(l2) => {
                let full = space.keys.full(key)?;
                let abandoned = Abandoned::guard(self, space, key);
                let stamp = self.clock.tick(now);
                let ttl = Some(self.load_max);
                let outcome = l2
                    .insist(self, Insist { operation: "delete", full: &full, ttl, stamp }, now, |stamp| {
                        Ok(self.tombstone(stamp, now))
                    })
                    .await
                    .map(|(_, previous)| was_alive(self, space, previous.as_ref(), now));
                abandoned.disarm();
                outcome
            }
        };
        let dropped = self.forget(space, key);
        drop(dropped);
        let in_store = outcome?;
        self.emit(&Event::Deleted { namespace: space.keys.path(), key });
        Ok(in_memory || in_store)
    }

    fn tombstone(&self, stamp: Stamp, now: Timestamp) -> Bytes {
        wire::encode_tombstone(stamp, now + self.load_max)
    }

    /// Removes several keys in one batch. Returns how many had an entry.
    pub(crate) async fn delete_many(&self, door: &Door, keys: &[&str], now: Timestamp) -> Result<u64> {
        let space = &*door.space;
        let mut keys = keys.to_vec();
        keys.sort_unstable();
        keys.dedup();
        let mut existed: Vec<bool> = keys.iter().map(|key| self.probe(space, key, now).is_some()).collect();
        let mut outcome = Ok(());
        let mut refused = Vec::new();
        if let Some(l2) = &self.l2 {
            let mut writes = Vec::with_capacity(keys.len());
            for key in &keys {
                let value = self.tombstone(self.clock.tick(now), now);
                let key = space.keys.full(key)?;
                writes.push(Write { key, value, ttl: Some(self.load_max), when: When::Newer });
            }
            let abandoned: Vec<_> = keys.iter().map(|key| Abandoned::guard(self, space, key)).collect();
            match l2.write_many(self, "delete", writes, OnFailure::Return).await {
                Ok(written) => {
                    for ((written, existed), key) in written.iter().zip(&mut existed).zip(&keys) {
                        match written {
                            Written::Stored { previous } => {
                                *existed |= was_alive(self, space, previous.as_ref(), now)
                            }
                            Written::Refused { .. } => refused.push(*key),
                        }
                    }
                }
                Err(error) => outcome = Err(error),
            }
            abandoned.into_iter().for_each(Abandoned::disarm);
        }
        for key in &keys {
            drop(self.forget(space, key));
        }
        outcome?;
        for key in keys.iter().filter(|key| !refused.contains(key)) {
            self.emit(&Event::Deleted { namespace: space.keys.path(), key });
        }
        let mut count = existed.iter().filter(|existed| **existed).count() as u64;
        for key in refused {
            // It was not counted yet: memory's copy went above, and the store's was in the way.
            count += u64::from(self.delete(door, key, now).await?);
        }
        Ok(count)
    }
}

/// Those of some things that stand at these places, which are sorted.
fn pick<T>(things: Vec<T>, places: &[usize]) -> impl Iterator<Item = T> {
    let places = places.to_vec();
    things
        .into_iter()
        .enumerate()
        .filter(move |(place, _)| places.binary_search(place).is_ok())
        .map(|(_, thing)| thing)
}
