//! Changes that a caller asks for: set, delete, expire, clear. The store first, then memory.
//!
//! When a change returns, no lookup that starts later in this process finds what was there before: the change
//! of memory takes the right to be kept from every read and load under way, in one step ([`flight`]).
//!
//! [`flight`]: super::flight

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::driver::{When, Write, Written};
use crate::entry::wire;
use crate::entry::{AnyValue, Entry, Extras, Meta};
use crate::error::{Error, Result};
use crate::event::{Event, Tier};
use crate::explain::Fact;
use crate::options::EntryOptions;
use crate::stack::l2::{Insist, OnFailure};
use crate::stack::recovery::Lost;
use crate::stack::retry::What;
use crate::stack::stored::was_alive;
use crate::stack::ticket::WriteTicket;
use crate::stack::{Core, Door, Space, renewal};
use crate::time::{Stamp, Timestamp, Ttl};

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
        let mut meta = Meta::new(stamp, now, renewal::ttl(options, stamp), options.grace_or_default());
        meta.extras.clone_from(&self.extras);
        renewal::note(&mut meta, options, None, now);
        meta
    }
}

/// A change on its way through the store. Forgets the key in memory if it is abandoned half-way, so that memory
/// does not go on serving what the store may no longer have.
pub(crate) struct Abandoned<'a> {
    core: &'a Core,
    space: &'a Space,
    key: &'a str,
    armed: bool,
    /// Withdrawn after memory has followed.
    _ticket: WriteTicket<'a>,
}

impl<'a> Abandoned<'a> {
    pub(crate) fn guard(core: &'a Core, space: &'a Space, key: &'a str) -> Self {
        let ticket = core.flights.begin_write(space.id, key);
        Self { core, space, key, armed: true, _ticket: ticket }
    }

    pub(crate) fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        if self.armed {
            // What became of it is not known, so it wins over every other change that is under way.
            drop(self.core.forget(self.space, self.key, Stamp::MAX));
        }
    }
}

impl Core {
    /// Removes a key from memory on behalf of a change, and takes the right to be kept from whatever is under
    /// way for it.
    pub(crate) fn forget(&self, space: &Space, key: &str, stamp: Stamp) -> Option<Entry> {
        let removed = self.supersede(space, key, stamp, || {
            let removed = self.memory.as_ref().and_then(|memory| memory.remove(space.id, key));
            let stamp = removed.as_ref().map(|removed| removed.meta.stamp);
            (removed, stamp)
        });
        removed.flatten()
    }

    /// Changes memory on behalf of a change with this stamp, and takes the right to be kept from whatever is under
    /// way for its key. If something newer came before, memory only loses what is older than the change.
    pub(crate) fn supersede<R>(
        &self,
        space: &Space,
        key: &str,
        stamp: Stamp,
        change: impl FnOnce() -> (R, Option<Stamp>),
    ) -> Option<R> {
        let changed = self.flights.supersede(space.id, key, stamp, change);
        if changed.is_none() {
            self.hear_of_newer(space, key, stamp);
        }
        changed
    }

    /// Puts a key into memory and takes the right to be kept from whatever is under way for it.
    pub(crate) fn remember(&self, space: &Space, key: &str, held: (&Entry, Timestamp), value_bytes: usize) {
        let mut evicted = Vec::new();
        let replaced = self.supersede(space, key, held.0.meta.stamp, || {
            (self.insert_in_memory(space, key, held, value_bytes, &mut evicted), None)
        });
        if self.memory.is_some() && replaced.is_some() {
            self.note(space, key, || Fact::Kept { tier: Tier::L1 });
        }
        drop(replaced);
        self.report_evicted(evicted);
        // What failed was the load of what this replaces.
        self.rests.wake(space.id, key);
    }

    /// As [`Core::remember`] where there is no store, which would have refused a stamp that a rewrite of the old
    /// value has overtaken: the entry gets its stamp under the lock, so that none can.
    fn set_in_memory(&self, space: &Space, key: &str, mut entry: Entry, value_bytes: usize, now: Timestamp) {
        let mut evicted = Vec::new();
        let replaced = self.flights.supersede_if(space.id, key, || {
            let stamp = self.clock.tick(now);
            (entry.meta.stamp, entry.meta.born) = (stamp, stamp);
            (true, self.insert_in_memory(space, key, (&entry, Timestamp::FOREVER), value_bytes, &mut evicted))
        });
        self.note(space, key, || Fact::Kept { tier: Tier::L1 });
        drop(replaced);
        self.report_evicted(evicted);
        self.rests.wake(space.id, key);
    }

    /// Keeps a value in memory for the back-off, if there is nothing else for its key: what a caller took in
    /// place of a value that could not be loaded.
    pub(crate) fn lend(&self, door: &Door, key: &str, value: AnyValue, options: &EntryOptions) {
        let (space, now) = (&*door.space, self.clock.now());
        let ttl = Ttl::For(options.backoff_or_default());
        if ttl.is_zero() {
            return;
        }
        let value_bytes = (door.weigh)(&value);
        let entry = Entry { value, meta: Meta::new(self.clock.tick(now), now, ttl, Duration::ZERO) };
        let mut evicted = Vec::new();
        let replaced = self.flights.with_lock(space.id, key, || {
            let has_one = self.memory.as_ref().is_some_and(|memory| memory.get(space.id, key).is_some());
            let held = (&entry, Timestamp::FOREVER);
            (!has_one).then(|| self.insert_in_memory(space, key, held, value_bytes, &mut evicted))
        });
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
        let fresh_until = entry.meta.fresh_until;
        let mut outcome = Ok(());
        let mut abandoned = None;
        let value_bytes;
        match &self.l2 {
            None => value_bytes = (door.weigh)(&entry.value),
            Some(l2) => {
                let full = space.keys.full(key)?;
                let (record, weighed) = self.encode(door, &full, &entry.value, &entry.meta)?;
                value_bytes = weighed;
                abandoned = Some(Abandoned::guard(self, space, key));
                let ttl = entry.meta.life_left(now);
                let mut record = record;
                let stored =
                    l2.insist(self, Insist { operation: "set", full: &full, ttl, stamp }, now, |stamp| {
                        if stamp != entry.meta.stamp {
                            entry.meta.stamp = stamp;
                            entry.meta.born = stamp;
                            record = self.encode(door, &full, &entry.value, &entry.meta)?.0;
                        }
                        Ok(record.clone())
                    });
                // If the store failed, memory still takes what the caller meant; the caller gets the error.
                outcome = stored.await.map(|_| ());
                if let Err(error) = &outcome {
                    self.retry_key_later(
                        (space, key, &full),
                        entry.meta.stamp,
                        What::Entry { record },
                        error,
                    );
                }
            }
        }
        match &self.l2 {
            None => self.set_in_memory(space, key, entry, value_bytes, now),
            Some(_) => self.remember(space, key, (&entry, self.memory_until(&new.options, now)), value_bytes),
        }
        abandoned.into_iter().for_each(Abandoned::disarm);
        if outcome.is_ok() {
            self.emit_written(space, key, fresh_until, now);
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
            let (value, value_bytes) = self.encode(door, &full, &entry.value, &entry.meta)?;
            writes.push(Write { key: full, value, ttl: entry.meta.life_left(now), when: When::Newer });
            entries.push((entry, value_bytes));
        }
        let kept = if self.retry.is_some() { writes.clone() } else { Vec::new() };
        let space = &*door.space;
        let abandoned: Vec<_> = values.iter().map(|(key, _)| Abandoned::guard(self, space, key)).collect();
        let written = l2.write_many(self, "set", writes, OnFailure::Return).await;
        let failure = written.as_ref().err().cloned();
        if let Some(error) = &failure {
            for (((key, _), (entry, _)), write) in values.iter().zip(&entries).zip(kept) {
                let what = What::Entry { record: write.value };
                self.retry_key_later((space, key, &write.key), entry.meta.stamp, what, error);
            }
        }
        let mut refused = Vec::new();
        for (index, ((key, new), (entry, value_bytes))) in values.iter().zip(&entries).enumerate() {
            let was_refused =
                matches!(&written, Ok(all) if matches!(all.get(index), Some(Written::Refused { .. })));
            if was_refused {
                refused.push(index);
                continue;
            }
            self.remember(space, key, (entry, self.memory_until(&new.options, now)), *value_bytes);
            if failure.is_none() {
                self.emit_written(space, key, entry.meta.fresh_until, now);
            }
        }
        abandoned.into_iter().for_each(Abandoned::disarm);
        if !refused.is_empty() {
            // Of several values of one key, the last one wins, be it stored already.
            let last: HashMap<&str, usize> =
                values.iter().enumerate().map(|(index, (key, _))| (key.as_str(), index)).collect();
            refused.retain(|index| {
                values.get(*index).is_some_and(|(key, _)| last.get(key.as_str()) == Some(index))
            });
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
        let mut stamp = self.clock.tick(now);
        let mut abandoned = None;
        let outcome = match &self.l2 {
            None => Ok(false),
            Some(l2) => {
                let full = space.keys.full(key)?;
                abandoned = Some(Abandoned::guard(self, space, key));
                let ttl = Some(self.tombstone_ttl);
                let insist = Insist { operation: "delete", full: &full, ttl, stamp };
                let deleted = l2.insist(self, insist, now, |tried| {
                    stamp = tried;
                    Ok(self.tombstone(tried, now))
                });
                let deleted = deleted.await;
                if let Err(error) = &deleted {
                    self.retry_key_later((space, key, &full), stamp, What::Tombstone, error);
                }
                deleted.map(|(_, previous)| was_alive(self, space, previous.as_ref(), now))
            }
        };
        let dropped = self.forget(space, key, stamp);
        abandoned.into_iter().for_each(Abandoned::disarm);
        drop(dropped);
        let existed = outcome? || in_memory;
        self.emit(&Event::Deleted { namespace: space.keys.path(), key, existed });
        Ok(existed)
    }

    /// As [`Core::retry_later`], for what somebody asked for.
    fn retry_key_later(
        &self,
        (space, name, full): (&Space, &str, &str),
        stamp: Stamp,
        what: What,
        error: &Error,
    ) {
        // A call takes no longer than that.
        let age = self.l2.as_ref().map_or(Duration::ZERO, |l2| l2.deadline);
        self.retry_later(Lost { space, name, full, stamp, age, is_load: false, what }, error);
    }

    pub(crate) fn tombstone(&self, stamp: Stamp, now: Timestamp) -> Bytes {
        wire::encode_tombstone(stamp, now + self.tombstone_ttl)
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
        let mut abandoned = Vec::new();
        let stamps: Vec<Stamp> = keys.iter().map(|_| self.clock.tick(now)).collect();
        if let Some(l2) = &self.l2 {
            let mut writes = Vec::with_capacity(keys.len());
            for (key, stamp) in keys.iter().zip(&stamps) {
                let value = self.tombstone(*stamp, now);
                let key = space.keys.full(key)?;
                writes.push(Write { key, value, ttl: Some(self.tombstone_ttl), when: When::Newer });
            }
            abandoned.extend(keys.iter().map(|key| Abandoned::guard(self, space, key)));
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
                Err(error) => {
                    for (key, stamp) in keys.iter().zip(&stamps) {
                        let full = space.keys.full(key)?;
                        self.retry_key_later((space, key, &full), *stamp, What::Tombstone, &error);
                    }
                    outcome = Err(error);
                }
            }
        }
        for (key, stamp) in keys.iter().zip(stamps) {
            drop(self.forget(space, key, stamp));
        }
        abandoned.into_iter().for_each(Abandoned::disarm);
        outcome?;
        for (key, existed) in keys.iter().zip(&existed) {
            if refused.binary_search(key).is_err() {
                self.emit(&Event::Deleted { namespace: space.keys.path(), key, existed: *existed });
            }
        }
        let mut count = 0;
        for (key, existed) in keys.iter().zip(existed) {
            // What was in the way is deleted with a newer stamp.
            let was_in_the_way = refused.binary_search(key).is_ok() && self.delete(door, key, now).await?;
            count += u64::from(existed || was_in_the_way);
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
