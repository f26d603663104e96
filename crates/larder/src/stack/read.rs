//! Lookups: memory first, then the store. Nothing is loaded here.

use std::sync::Arc;

use futures_util::stream::{self, BoxStream, StreamExt as _};

use crate::codec::AnyCodec;
use crate::entry::wire::{Head, StoredEntry};
use crate::entry::{AnyValue, Entry, Freshness, Meta};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, EvictionCause, Tier};
use crate::explain::{Fact, Finding};
use crate::memory::{Evicted, Serving};
use crate::options::EntryOptions;
use crate::stack::l2::OnFailure;
use crate::stack::stored::{Stored, is_alive};
use crate::stack::ticket::ReadTicket;
use crate::stack::verdict::standing;
use crate::stack::{Core, Door, Space};
use crate::time::{Stamp, Timestamp};

/// What a lookup takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accept {
    /// Fresh entries.
    Fresh,
    /// Entries within their grace too, where there is no fresh one.
    Stale,
}

impl Core {
    /// What may be done at `now` with an entry of this namespace, after all clears and tags that this process knows of.
    #[inline]
    pub(super) fn standing(&self, space: &Space, meta: &Meta, now: Timestamp) -> Freshness {
        standing(meta, self.spaces.mark(space, meta.born, meta.tags()), now)
    }

    /// The newest soft mark that this process knows of for such an entry.
    pub(crate) fn invalidated(&self, space: &Space, meta: &Meta) -> Stamp {
        self.spaces.mark(space, meta.born, meta.tags()).soft
    }

    /// What memory may serve of a key at once, and counts as a hit. The hottest way: one hash, one lock that readers
    /// share, one reference count. It is not taken where somebody listens, who is told more on the other way.
    #[inline]
    pub(crate) fn serve(&self, space: &Space, key: &str, now: Timestamp) -> Serving {
        let Some(memory) = &self.memory else { return Serving::Nothing };
        memory.serve(space.id, key, |meta, until| {
            let is_sliding = meta.extras.as_ref().is_some_and(|extras| extras.sliding.is_some());
            let is_served = now < until || until == Timestamp::FOREVER;
            self.standing(space, meta, now) == Freshness::Fresh && is_served && !is_sliding
        })
    }

    /// What memory has for a key and what may be done with it. No allocation, no lock that a reader waits on.
    #[inline]
    pub(crate) fn probe(&self, space: &Space, key: &str, now: Timestamp) -> Option<(Entry, Freshness)> {
        let Some((entry, until)) = self.memory.as_ref()?.get_until(space.id, key) else {
            self.note(space, key, || Fact::Looked { tier: Tier::L1, found: Finding::Nothing });
            return None;
        };
        self.note(space, key, || Fact::Looked {
            tier: Tier::L1,
            found: self.finding(space, &entry.meta, until, now),
        });
        match self.standing(space, &entry.meta, now) {
            Freshness::Expired => {
                self.drop_expired(space, key, now);
                None
            }
            // The store may know better by now.
            Freshness::Fresh if now >= until && until != Timestamp::FOREVER => {
                Some((entry, Freshness::Stale))
            }
            freshness => Some((entry, freshness)),
        }
    }

    /// What memory has for a key and is fresh by its TTL, though the store was to be asked: for when that failed.
    pub(crate) fn probe_unasked(&self, space: &Space, key: &str, now: Timestamp) -> Option<Entry> {
        let (_, until) = self.memory.as_ref()?.get_until(space.id, key)?;
        if until == Timestamp::FOREVER {
            return None;
        }
        let (entry, _) = self.probe(space, key, now)?;
        (self.standing(space, &entry.meta, now) == Freshness::Fresh).then_some(entry)
    }

    /// Until when memory may serve what it takes in now without asking the store again.
    pub(crate) fn memory_until(&self, options: &EntryOptions, now: Timestamp) -> Timestamp {
        match (&self.l2, options.memory_ttl) {
            (Some(_), Some(ttl)) => now + ttl,
            _ => Timestamp::FOREVER,
        }
    }

    /// Removes a dead entry from memory, unless a living one took its place meanwhile.
    #[cold]
    fn drop_expired(&self, space: &Space, key: &str, now: Timestamp) {
        let Some(memory) = &self.memory else { return };
        let looked_at = self.flights.with_lock(space.id, key, || {
            let entry = memory.get(space.id, key)?;
            let is_dead = self.standing(space, &entry.meta, now) == Freshness::Expired;
            Some((is_dead.then(|| memory.remove(space.id, key)).flatten(), entry))
        });
        // What was looked at may be the last of its kind by now, and is dropped after the lock is gone.
        if let Some((Some(_), _)) = looked_at {
            self.emit(&Event::Evicted { namespace: space.keys.path(), key, cause: EvictionCause::Expired });
        }
    }

    /// Removes from memory what is older than something that the store is known to have: a delete of another
    /// process, so that what it deleted is not served stale when the store has forgotten the delete; or a load that
    /// the store took and memory did not.
    pub(crate) fn hear_of_newer(&self, space: &Space, key: &str, stamp: Stamp) {
        let Some(memory) = &self.memory else { return };
        let dropped = self.flights.hear(space.id, key, stamp, || {
            let entry = memory.get(space.id, key)?;
            let is_older = entry.meta.stamp <= stamp;
            Some((is_older.then(|| memory.remove(space.id, key)), entry))
        });
        // After the lock is gone, because a value's own `drop` may use the cache.
        drop(dropped);
    }

    pub(crate) fn emit_hit(&self, space: &Space, key: &str, tier: Tier, stale: bool) {
        self.emit(&Event::Hit { namespace: space.keys.path(), key, tier, stale });
    }

    pub(crate) fn emit_miss(&self, space: &Space, key: &str) {
        self.emit(&Event::Miss { namespace: space.keys.path(), key });
    }

    /// A lookup that memory could not answer with something fresh.
    pub(crate) async fn get(
        &self,
        door: &Arc<Door>,
        key: &str,
        accept: Accept,
        now: Timestamp,
    ) -> Result<Option<AnyValue>> {
        Ok(self.get_judged(door, key, accept, now).await?.map(|(value, _)| value))
    }

    /// As [`Core::get`], with what may be done with the value.
    pub(crate) async fn get_judged(
        &self,
        door: &Arc<Door>,
        key: &str,
        accept: Accept,
        now: Timestamp,
    ) -> Result<Option<(AnyValue, Freshness)>> {
        let space = &*door.space;
        let mut found = self.find_in_store(door, key, accept, now).await;
        if accept == Accept::Stale && !matches!(found, Ok(Some(_))) {
            // Nothing newer is to be had; a failing store does not matter to who takes what is stale.
            if let Some((entry, freshness)) = self.probe(space, key, now) {
                found = Ok(Some((entry, freshness, Tier::L1)));
            }
        }
        match &found {
            Ok(Some((_, freshness, tier))) => {
                self.emit_hit(space, key, *tier, *freshness == Freshness::Stale)
            }
            _ => self.emit_miss(space, key),
        }
        Ok(found?.map(|(entry, freshness, _)| (entry.value, freshness)))
    }

    /// An entry from the store; a fresh one is brought into memory if nothing came between.
    async fn find_in_store(
        &self,
        door: &Arc<Door>,
        key: &str,
        accept: Accept,
        now: Timestamp,
    ) -> Result<Option<(Entry, Freshness, Tier)>> {
        let Some(l2) = &self.l2 else { return Ok(None) };
        let ticket = self.memory.as_ref().and_then(|_| self.flights.begin_read(door.space.id, key));
        let on_failure = self.on_failure(&door.options);
        match l2.read_one(self, &door.space, key, now, on_failure).await {
            Ok(Stored::Entry { entry, freshness: Freshness::Stale }) if accept == Accept::Stale => {
                Ok(self.decode(door, key, entry).map(|entry| (entry, Freshness::Stale, Tier::L2)))
            }
            Ok(stored) => Ok(self
                .take_fresh(door, key, stored, ticket, now)
                .map(|entry| (entry, Freshness::Fresh, Tier::L2))),
            Err(_) if on_failure == OnFailure::Suppress => {
                Ok(self.probe_unasked(&door.space, key, now).map(|entry| (entry, Freshness::Fresh, Tier::L1)))
            }
            Err(error) => Err(error),
        }
    }

    fn take_fresh(
        &self,
        door: &Arc<Door>,
        key: &str,
        stored: Stored,
        ticket: Option<ReadTicket<'_>>,
        now: Timestamp,
    ) -> Option<Entry> {
        let Stored::Entry { entry, freshness: Freshness::Fresh } = stored else { return None };
        let payload_bytes = entry.payload.len();
        let entry = self.decode(door, key, entry)?;
        if let Some(ticket) = ticket {
            let value_bytes = door.weigh_encoded(&entry.value, payload_bytes);
            let mut evicted = Vec::new();
            let held = (&entry, self.memory_until(&door.options, now));
            drop(ticket.land(|| self.insert_in_memory(&door.space, key, held, value_bytes, &mut evicted)));
            self.report_evicted(evicted);
        }
        self.slide(door, key, &entry.meta, now);
        Some(entry)
    }

    /// Puts an entry into memory, to be served until then without asking the store. The caller holds the key's lock, and drops what comes back (the entry that
    /// was there) after it, because a value's own `drop` may use the cache.
    #[must_use]
    pub(crate) fn insert_in_memory(
        &self,
        space: &Space,
        key: &str,
        (entry, until): (&Entry, Timestamp),
        value_bytes: usize,
        evicted: &mut Vec<Evicted>,
    ) -> Option<Entry> {
        // Refusals are reported through `evicted` (too large) or mean that a newer one is there.
        let held = (entry.clone(), until);
        let (_, replaced) = self.memory.as_ref()?.replace(space.id, key, held, value_bytes, evicted);
        replaced
    }

    /// The value of a stored entry; `None`, and an event, if this handle's codec or schema does not read it.
    pub(crate) fn decode(&self, door: &Door, key: &str, stored: StoredEntry) -> Option<Entry> {
        match try_decode(door, &stored) {
            Ok(value) => Some(Entry { value, meta: stored.meta }),
            Err(error) => {
                self.emit(&Event::Undecodable { namespace: door.space.keys.path(), key, error: &error });
                None
            }
        }
    }

    /// Several lookups: one pass over memory, one batch to the store.
    pub(crate) async fn get_many(
        &self,
        door: &Arc<Door>,
        keys: &[&str],
        now: Timestamp,
    ) -> Result<Vec<Option<AnyValue>>> {
        let space = &*door.space;
        let mut found: Vec<Option<AnyValue>> = Vec::with_capacity(keys.len());
        let mut missing = Vec::new();
        for (index, key) in keys.iter().enumerate() {
            match self.probe(space, key, now) {
                Some((entry, Freshness::Fresh)) => {
                    self.emit_fresh_l1_hit(space, key);
                    self.slide(door, key, &entry.meta, now);
                    found.push(Some(entry.value));
                }
                _ => {
                    missing.push((index, *key));
                    found.push(None);
                }
            }
        }
        if !missing.is_empty() {
            self.find_many_in_store(door, &missing, &mut found, now).await?;
        }
        Ok(found)
    }

    async fn find_many_in_store(
        &self,
        door: &Arc<Door>,
        missing: &[(usize, &str)],
        found: &mut [Option<AnyValue>],
        now: Timestamp,
    ) -> Result<()> {
        let space = &*door.space;
        let Some(l2) = &self.l2 else {
            missing.iter().for_each(|(_, key)| self.emit_miss(space, key));
            return Ok(());
        };
        let keys: Vec<&str> = missing.iter().map(|(_, key)| *key).collect();
        let tickets: Vec<_> = keys
            .iter()
            .map(|key| self.memory.as_ref().and_then(|_| self.flights.begin_read(space.id, key)))
            .collect();
        let on_failure = self.on_failure(&door.options);
        let (stored, failure) = match l2.read(self, space, &keys, now, on_failure).await {
            Ok(stored) => (stored, None),
            Err(_) if on_failure == OnFailure::Suppress => (Vec::new(), None),
            Err(error) => (Vec::new(), Some(error)),
        };
        let mut stored = stored.into_iter();
        for ((index, key), ticket) in missing.iter().zip(tickets) {
            let entry = match stored.next() {
                Some(stored) => {
                    self.take_fresh(door, key, stored, ticket, now).map(|entry| (entry, Tier::L2))
                }
                None if failure.is_none() => {
                    self.probe_unasked(space, key, now).map(|entry| (entry, Tier::L1))
                }
                None => None,
            };
            match &entry {
                Some((_, tier)) => self.emit_hit(space, key, *tier, false),
                None => self.emit_miss(space, key),
            }
            if let Some(slot) = found.get_mut(*index) {
                *slot = entry.map(|(entry, _)| entry.value);
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// An entry whatever its freshness, as long as it may be served at all. Not a lookup: emits nothing, and
    /// brings nothing into memory.
    pub(crate) async fn inspect(
        &self,
        door: &Door,
        key: &str,
        now: Timestamp,
    ) -> Result<Option<(Entry, Freshness, Tier)>> {
        let in_memory =
            self.probe(&door.space, key, now).map(|(entry, freshness)| (entry, freshness, Tier::L1));
        let Some(l2) = &self.l2 else { return Ok(in_memory) };
        if matches!(in_memory, Some((_, Freshness::Fresh, _))) {
            return Ok(in_memory);
        }
        let stored = match l2.read_one(self, &door.space, key, now, OnFailure::Return).await {
            Ok(stored) => stored,
            Err(error) => {
                let left = self.probe_unasked(&door.space, key, now).ok_or(error)?;
                return Ok(Some((left, Freshness::Fresh, Tier::L1)));
            }
        };
        match stored {
            // Nothing that is newer than what memory has left, which may have gone meanwhile.
            Stored::Nothing { stamp, .. } if stamp <= in_memory.map(|(entry, ..)| entry.meta.stamp) => {
                if let Some(left) = self.probe_unasked(&door.space, key, now) {
                    return Ok(Some((left, Freshness::Fresh, Tier::L1)));
                }
                let left = self.probe(&door.space, key, now);
                Ok(left.map(|(entry, freshness)| (entry, freshness, Tier::L1)))
            }
            Stored::Nothing { .. } => Ok(None),
            Stored::Entry { entry, freshness } => {
                Ok(self.decode(door, key, entry).map(|entry| (entry, freshness, Tier::L2)))
            }
        }
    }

    /// Whether there is a fresh entry. Not a lookup.
    pub(crate) async fn has(&self, door: &Door, key: &str, now: Timestamp) -> Result<bool> {
        if let Some((_, Freshness::Fresh)) = self.probe(&door.space, key, now) {
            return Ok(true);
        }
        let Some(l2) = &self.l2 else { return Ok(false) };
        match l2.read_one(self, &door.space, key, now, OnFailure::Return).await {
            Ok(stored) => Ok(matches!(stored, Stored::Entry { freshness: Freshness::Fresh, .. })),
            // Memory was to ask, and what it has is fresh by its TTL.
            Err(error) => self.probe_unasked(&door.space, key, now).map(|_| true).ok_or(error),
        }
    }

    /// The keys of a namespace that have an entry, stale ones included; those inside it are not.
    pub(crate) fn keys<'a>(&'a self, door: &'a Door) -> BoxStream<'a, Result<String>> {
        let space = &*door.space;
        let now = self.clock.now();
        match (&self.l2, &self.memory) {
            (Some(l2), _) => {
                let listed = async move {
                    // The clears first, so that the heads can be judged.
                    l2.read(self, space, &[], now, OnFailure::Return).await?;
                    let scan = l2.scan(self, space.keys.own_prefix());
                    Ok::<_, Error>(scan.filter_map(move |scanned| async move {
                        let scanned = match scanned {
                            Ok(scanned) => scanned,
                            Err(error) => return Some(Err(error)),
                        };
                        let head = Head::peek(&scanned.head).ok()?;
                        let key = space.keys.user_key(&scanned.key)?;
                        let is_there =
                            is_alive(self, space, &head, now) && !self.is_hidden(&scanned.key, head.stamp);
                        is_there.then(|| Ok(key.to_owned()))
                    }))
                };
                stream::once(listed)
                    .flat_map(|listed| match listed {
                        Ok(keys) => keys.boxed(),
                        Err(error) => stream::once(async { Err(error) }).boxed(),
                    })
                    .boxed()
            }
            (None, Some(memory)) => {
                let living = memory
                    .keys(space.id)
                    .into_iter()
                    .filter(move |(_, meta)| self.standing(space, meta, now) != Freshness::Expired);
                let keys: Vec<_> = living.map(|(key, _)| Ok(key.into_string())).collect();
                stream::iter(keys).boxed()
            }
            (None, None) => stream::empty().boxed(),
        }
    }
}

/// # Errors
/// [`ErrorKind::Decode`] if the codec, the schema or the bytes are not what this handle reads.
pub(crate) fn try_decode(door: &Door, stored: &StoredEntry) -> Result<AnyValue> {
    codec_of(door)?.decode(stored, door.schema)
}

/// # Errors
/// [`ErrorKind::Config`] if the handle has no codec, which a stack with a store does not allow.
pub(crate) fn codec_of(door: &Door) -> Result<&Arc<dyn AnyCodec>> {
    door.codec
        .as_ref()
        .ok_or_else(|| Error::new(ErrorKind::Config, "a value that leaves memory needs a codec"))
}
