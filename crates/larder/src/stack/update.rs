//! Atomic rewrites of one key: read, decide, swap if nothing came between, else again.
//!
//! Counters, add, pull, touch and expire are all this. Against other processes the driver's compare-and-swap
//! on the stamp makes it atomic; in this process a lock keeps writers from fighting over it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::driver::Written;
use crate::entry::wire::{self, StoredEntry};
use crate::entry::{AnyValue, Entry, Freshness, Meta};
use crate::error::Result;
use crate::event::{Event, Tier};
use crate::explain::Fact;
use crate::memory::Prolonged;
use crate::stack::l2::{L2, OnFailure, contended};
use crate::stack::read::try_decode;
use crate::stack::stored::Stored;
use crate::stack::write::{Abandoned, NewValue};
use crate::stack::{Core, Door, renewal};
use crate::time::{Stamp, Timestamp, Ttl};

/// How often a rewrite is tried against others before it gives up.
const TRIES_MAX: u32 = 10_000;

/// What there is to decide on: a living entry.
pub(crate) struct Found<'a> {
    pub(crate) meta: &'a Meta,
    /// Fresh or stale.
    pub(crate) freshness: Freshness,
    held: Held<'a>,
}

/// How a found entry holds its value.
enum Held<'a> {
    Value(&'a AnyValue),
    Encoded(&'a Door, &'a StoredEntry),
}

impl Found<'_> {
    /// Its value, decoded when asked for.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`](crate::ErrorKind::Decode) for an entry that this handle does not read.
    pub(crate) fn value(&self) -> Result<AnyValue> {
        match self.held {
            Held::Value(value) => Ok(Arc::clone(value)),
            Held::Encoded(door, stored) => try_decode(door, stored),
        }
    }
}

/// What a rewrite comes to. Stamps are filled in; a birth of zero means that the value is new.
pub(crate) enum Change {
    /// Leave everything as it is.
    Keep,
    /// Store this.
    Put(Entry),
    /// Keep the value, and say this about it.
    Rewrite(Meta),
    /// Keep the value, and let it end then. It is no news: what began before keeps its right to be kept.
    Prolong(Meta),
    /// Remove the entry.
    Remove,
}

type Decide<'a> = &'a mut (dyn FnMut(Option<Found<'_>>) -> Result<Change> + Send);

/// A change on its way into the store.
struct Swap {
    record: Bytes,
    ttl: Option<Duration>,
    then: Then,
}

/// What memory does once the store has changed.
enum Then {
    Remember(Entry, usize),
    /// Memory's copy, if it is of the entry with the first stamp, gets a new meta.
    Rewrite {
        was: Stamp,
        meta: Meta,
        payload_bytes: usize,
    },
    Forget(Stamp),
    /// Memory has it already.
    Nothing,
}

impl Core {
    /// Rewrites one key atomically, and returns whether anything changed. `decide` may be called several
    /// times, and sees the newest state each time.
    ///
    /// # Errors
    /// The store's, `decide`'s, and [`ErrorKind::Overloaded`](crate::ErrorKind::Overloaded) if others win
    /// every time.
    pub(crate) async fn update(
        &self,
        door: &Door,
        key: &str,
        now: Timestamp,
        decide: Decide<'_>,
    ) -> Result<bool> {
        match &self.l2 {
            None => self.update_memory(door, key, now, decide),
            Some(l2) => {
                let _turn = self.one_update_at_a_time(key).await;
                self.update_store(l2, door, key, now, decide).await
            }
        }
    }

    fn update_memory(&self, door: &Door, key: &str, now: Timestamp, decide: Decide<'_>) -> Result<bool> {
        let space = &*door.space;
        let Some(memory) = &self.memory else { return Ok(false) };
        let mut evicted = Vec::new();
        // Kept until the lock is gone, so that a value's own `drop` may use the cache.
        let (mut replaced, mut dead) = (None, None);
        let mut is_new = false;
        let changed = self.flights.supersede_if(space.id, key, || {
            let found = memory.get(space.id, key).and_then(|entry| {
                let freshness = self.standing(space, &entry.meta, now);
                (freshness != Freshness::Expired).then_some((entry, freshness))
            });
            let change = decide(found.as_ref().map(|(entry, freshness)| Found {
                meta: &entry.meta,
                freshness: *freshness,
                held: Held::Value(&entry.value),
            }));
            replaced = found.map(|(entry, _)| entry);
            let mut put = match change {
                Ok(Change::Put(entry)) => {
                    is_new = true;
                    entry
                }
                Ok(Change::Rewrite(meta) | Change::Prolong(meta)) => match &replaced {
                    Some(entry) => Entry { value: Arc::clone(&entry.value), meta },
                    None => return (false, Ok(false)),
                },
                Ok(Change::Remove) => {
                    dead = memory.remove(space.id, key);
                    return (true, Ok(true));
                }
                Ok(Change::Keep) => return (false, Ok(false)),
                Err(error) => return (false, Err(error)),
            };
            self.stamp(&mut put.meta, now);
            let value_bytes = (door.weigh)(&put.value);
            dead = self.insert_in_memory(space, key, (&put, Timestamp::FOREVER), value_bytes, &mut evicted);
            (true, Ok(true))
        });
        drop((replaced, dead));
        self.report_evicted(evicted);
        if is_new {
            self.rests.wake(space.id, key);
        }
        changed
    }

    async fn update_store(
        &self,
        l2: &L2,
        door: &Door,
        key: &str,
        now: Timestamp,
        decide: Decide<'_>,
    ) -> Result<bool> {
        let space = &*door.space;
        let full = space.keys.full(key)?;
        for attempt in 0..TRIES_MAX {
            let (stored, expected) = l2.read_one_to_swap(self, space, key, now).await?;
            let Some(swap) = self.swap(door, &full, stored, now, decide)? else { return Ok(false) };
            let stamp = wire::stamp_of(&swap.record).unwrap_or_default();
            // If this is abandoned or fails half-way, memory must not go on serving what was there before.
            let is_news = !matches!(swap.then, Then::Nothing);
            let abandoned = is_news.then(|| Abandoned::guard(self, space, key));
            match l2.swap(self, "update", (&full, swap.record, swap.ttl), expected, OnFailure::Return).await?
            {
                Written::Stored { .. } => {
                    self.overtake(&full, stamp);
                    self.follow(door, key, swap.then, now);
                    abandoned.into_iter().for_each(Abandoned::disarm);
                    return Ok(true);
                }
                Written::Refused { .. } => {
                    abandoned.into_iter().for_each(Abandoned::disarm);
                    back_off(attempt).await;
                }
            }
        }
        Err(contended("update"))
    }

    /// Asks what to do about what is stored, and prepares it.
    fn swap(
        &self,
        door: &Door,
        full: &str,
        stored: Stored,
        now: Timestamp,
        decide: Decide<'_>,
    ) -> Result<Option<Swap>> {
        let (found, deleted) = match stored {
            Stored::Nothing { stamp, deleted } => (None, stamp.filter(|_| deleted)),
            Stored::Entry { entry, freshness } => (Some((entry, freshness)), None),
        };
        let change = decide(found.as_ref().map(|(entry, freshness)| Found {
            meta: &entry.meta,
            freshness: *freshness,
            held: Held::Encoded(door, entry),
        }))?;
        match (change, found) {
            (Change::Keep, _) | (Change::Rewrite(_) | Change::Prolong(_), None) => Ok(None),
            (Change::Remove, _) => {
                let stamp = self.clock.tick(now);
                let record = wire::encode_tombstone(stamp, now + self.tombstone_ttl);
                Ok(Some(Swap { record, ttl: Some(self.tombstone_ttl), then: Then::Forget(stamp) }))
            }
            (Change::Rewrite(mut meta), Some((stored, _))) => {
                self.stamp(&mut meta, now);
                let record = wire::encode_entry(full, &meta, stored.codec, stored.schema, &stored.payload)?;
                let ttl = meta.life_left(now);
                Ok(Some(Swap {
                    record,
                    ttl,
                    then: Then::Rewrite { was: stored.meta.stamp, meta, payload_bytes: stored.payload.len() },
                }))
            }
            (Change::Prolong(meta), Some((stored, _))) => {
                let record = wire::encode_entry(full, &meta, stored.codec, stored.schema, &stored.payload)?;
                Ok(Some(Swap { record, ttl: meta.life_left(now), then: Then::Nothing }))
            }
            // What says how old it is, and is older than the delete, is what the delete meant.
            (Change::Put(entry), _)
                if entry.meta.born != Stamp::ZERO && deleted.is_some_and(|at| entry.meta.born <= at) =>
            {
                Ok(None)
            }
            (Change::Put(mut entry), _) => {
                self.stamp(&mut entry.meta, now);
                let (record, value_bytes) = self.encode(door, full, &entry.value, &entry.meta)?;
                let ttl = entry.meta.life_left(now);
                Ok(Some(Swap { record, ttl, then: Then::Remember(entry, value_bytes) }))
            }
        }
    }

    /// Brings memory in line with a change that the store has made.
    fn follow(&self, door: &Door, key: &str, then: Then, now: Timestamp) {
        let space = &*door.space;
        let until = self.memory_until(&door.options, now);
        match then {
            Then::Remember(entry, value_bytes) => self.remember(space, key, (&entry, until), value_bytes),
            Then::Forget(stamp) => drop(self.forget(space, key, stamp)),
            Then::Nothing => {}
            Then::Rewrite { was, meta, payload_bytes } => {
                // Weighed before the lock is taken, because weighing runs code of the user's.
                let held = self.memory.as_ref().and_then(|memory| memory.get(space.id, key));
                let value_bytes = held
                    .filter(|held| held.meta.stamp == was)
                    .map_or(payload_bytes, |held| door.weigh_encoded(&held.value, payload_bytes));
                let mut evicted = Vec::new();
                // Dropped after the lock is gone, so that a value's own `drop` may use the cache.
                let before = self.supersede(space, key, meta.stamp, || {
                    let removed = self.memory.as_ref().and_then(|memory| memory.remove(space.id, key));
                    let Some(before) = removed else { return (None, None) };
                    let removed = before.meta.stamp;
                    if removed == was {
                        let entry = Entry { value: Arc::clone(&before.value), meta };
                        drop(self.insert_in_memory(space, key, (&entry, until), value_bytes, &mut evicted));
                    }
                    (Some(before), Some(removed))
                });
                drop(before);
                self.report_evicted(evicted);
            }
        }
    }

    fn stamp(&self, meta: &mut Meta, now: Timestamp) {
        meta.stamp = self.clock.tick(now);
        if meta.born == Stamp::ZERO || meta.born > meta.stamp {
            meta.born = meta.stamp;
        }
    }

    /// Stores a value if there is no fresh one. True if it was stored.
    pub(crate) async fn add(&self, door: &Door, key: &str, new: NewValue, now: Timestamp) -> Result<bool> {
        if new.options.ttl_or_default().is_zero() {
            return Ok(false);
        }
        self.update_and_tell(door, key, now, &mut |found| match found {
            Some(Found { freshness: Freshness::Fresh, .. }) => Ok(Change::Keep),
            _ => Ok(Change::Put(Entry { value: Arc::clone(&new.value), meta: new.meta(Stamp::ZERO, now) })),
        })
        .await
    }

    /// Takes a fresh value out: of several callers one gets it. One that `check` refuses stays.
    pub(crate) async fn pull(
        &self,
        door: &Door,
        key: &str,
        now: Timestamp,
        check: fn(&AnyValue) -> Result<()>,
    ) -> Result<Option<AnyValue>> {
        let mut pulled = None;
        let outcome = self
            .update(door, key, now, &mut |found| {
                pulled = match found {
                    Some(found) if found.freshness == Freshness::Fresh => {
                        let value = found.value()?;
                        check(&value)?;
                        Some(value)
                    }
                    _ => None,
                };
                Ok(if pulled.is_some() { Change::Remove } else { Change::Keep })
            })
            .await;
        if !matches!((&outcome, &pulled), (Ok(true), Some(_))) {
            self.emit_miss(&door.space, key);
            return outcome.map(|_| None);
        }
        let tier = if self.l2.is_some() { Tier::L2 } else { Tier::L1 };
        self.emit_hit(&door.space, key, tier, false);
        self.emit(&Event::Deleted { namespace: door.space.keys.path(), key, existed: true });
        Ok(pulled)
    }

    /// Gives a fresh entry a new TTL from now on; its grace stays. True if there was one.
    pub(crate) async fn touch(&self, door: &Door, key: &str, ttl: Ttl, now: Timestamp) -> Result<bool> {
        if ttl.is_zero() {
            return self.delete(door, key, now).await;
        }
        let decide = &mut |found: Option<Found<'_>>| match found {
            // It may have been expired since the caller entered.
            Some(Found { meta, freshness: Freshness::Fresh, .. })
                if meta.freshness(self.clock.now()) == Freshness::Fresh =>
            {
                let (end, extras) = renewal::end_at(meta, ttl.ends_at(now), now);
                Ok(Change::Rewrite(Meta { extras, ..ending(door, meta, end) }))
            }
            _ => Ok(Change::Keep),
        };
        self.update_and_tell(door, key, now, decide).await
    }

    /// Gives a sliding entry that was read a later end: in memory at once, in the store in the background.
    #[inline]
    pub(crate) fn slide(&self, door: &Arc<Door>, key: &str, meta: &Meta, now: Timestamp) {
        if let Some(until) = renewal::slides_to(meta, now) {
            self.slide_to(door, key, meta, until, now);
        }
    }

    #[cold]
    fn slide_to(&self, door: &Arc<Door>, key: &str, meta: &Meta, until: Timestamp, now: Timestamp) {
        if meta.freshness(self.clock.now()) != Freshness::Fresh {
            // It has been expired since the caller entered.
            return;
        }
        let space = &*door.space;
        let mut evicted = Vec::new();
        let held = self.flights.with_lock(space.id, key, || {
            Some(self.memory.as_ref()?.prolong(space.id, key, ending(door, meta, until), &mut evicted))
        });
        self.report_evicted(evicted);
        self.note(space, key, || Fact::Slides { until: until.since(now) });
        if held == Some(Prolonged::Already) {
            return;
        }
        let runtime = tokio::runtime::Handle::try_current();
        let (Some(_), Some(core), Ok(runtime)) = (&self.l2, self.this.upgrade(), runtime) else { return };
        let (door, key) = (Arc::clone(door), key.to_owned());
        runtime.spawn(async move {
            if core.check_open().is_err() {
                return;
            }
            let decide = &mut |found: Option<Found<'_>>| match found {
                // It may have expired since it was read, and it may have been given a later end.
                Some(Found { meta, freshness: Freshness::Fresh, .. })
                    if meta.freshness(core.clock.now()) == Freshness::Fresh =>
                {
                    let until = renewal::slides_to(meta, now);
                    Ok(until.map_or(Change::Keep, |until| Change::Prolong(ending(&door, meta, until))))
                }
                _ => Ok(Change::Keep),
            };
            // A failure is reported where the store is called; the entry ends earlier there. It is not told as a
            // write: nobody wrote.
            let _ = core.update(&door, &key, now, decide).await;
        });
    }

    /// As [`Core::update`]; a change is told as a write.
    pub(crate) async fn update_and_tell(
        &self,
        door: &Door,
        key: &str,
        now: Timestamp,
        decide: Decide<'_>,
    ) -> Result<bool> {
        // What is removed in place of being written is fresh for no time.
        let mut fresh_until = now;
        let mut decide_and_see = |found: Option<Found<'_>>| {
            let change = decide(found)?;
            if let Change::Put(Entry { meta, .. }) | Change::Rewrite(meta) = &change {
                fresh_until = meta.fresh_until;
            }
            Ok(change)
        };
        let changed = self.update(door, key, now, &mut decide_and_see).await?;
        if changed {
            self.emit_written(&door.space, key, fresh_until, now);
        }
        Ok(changed)
    }

    /// Makes an entry stale now, so that only its grace is left of it. True if there was one.
    pub(crate) async fn expire(&self, door: &Door, key: &str, now: Timestamp) -> Result<bool> {
        let mut existed = false;
        let decide = &mut |found: Option<Found<'_>>| {
            existed = found.is_some();
            // Loads under way began before this, so they lose even where there is nothing to expire.
            let Some(Found { meta, .. }) = found else { return Ok(Change::Remove) };
            let mut meta = meta.clone();
            if meta.freshness(now) == Freshness::Fresh {
                // Grace counts from the end of freshness, which is now.
                meta.stale_until = meta.stale_until.min(now + grace_of(door, &meta));
                meta.fresh_until = now;
            }
            let has_grace = meta.freshness(now) == Freshness::Stale;
            Ok(if has_grace { Change::Rewrite(meta) } else { Change::Remove })
        };
        if let Err(error) = self.update(door, key, now, decide).await {
            if error.kind().is_transient() && self.l2.is_some() {
                // Memory, and the loads under way, take what was meant, as with every other change.
                self.update_memory(door, key, now, decide)?;
            }
            return Err(error);
        }
        self.emit(&Event::Expired { namespace: door.space.keys.path(), key });
        Ok(existed)
    }
}

/// What is known about an entry that is fresh until then; its grace stays.
fn ending(door: &Door, meta: &Meta, fresh_until: Timestamp) -> Meta {
    Meta { fresh_until, stale_until: fresh_until + grace_of(door, meta), ..meta.clone() }
}

/// An entry's grace. One that is fresh forever does not say; its cache's options do.
fn grace_of(door: &Door, meta: &Meta) -> Duration {
    match (meta.fresh_until, meta.stale_until) {
        (Timestamp::FOREVER, _) => door.options.grace_or_default(),
        (_, Timestamp::FOREVER) => Duration::MAX,
        (fresh_until, stale_until) => stale_until.since(fresh_until),
    }
}

/// Waits a little longer after each loss, up to some milliseconds, so that writers of several processes take
/// turns.
async fn back_off(attempt: u32) {
    if attempt < 3 {
        tokio::task::yield_now().await;
        return;
    }
    // Different in each process and at each attempt, which is all the randomness that is wanted.
    let mixed = u64::from(std::process::id()).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(attempt);
    let spread = xxhash_rust::xxh3::xxh3_64(&mixed.to_le_bytes()) % 4;
    let millis = u64::from(attempt.min(8)) / 2 + spread;
    tokio::time::sleep(Duration::from_millis(millis)).await;
}
