//! Who is doing what for which key, in this process: one load per key, and no load that outlives its right to
//! be kept.
//!
//! A slot says that a key is being read from the store or loaded. A write, delete or expire of the key removes
//! the slot under the shard's lock, together with its change of the memory tier; whoever held the slot finds
//! it gone when it lands, and keeps its result out of memory. A lookup that starts after the removal finds no
//! slot and starts anew, so it cannot be handed a value that was loaded before the change.
//!
//! A change goes through the store first, and one that overtook it there may reach memory before it. So writes
//! are announced as well, and one that finds that a newer change has come keeps out of memory.
//!
//! Knows nothing of stores and of how things are loaded.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Weak};

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry as TableEntry;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::entry::Extras;
use crate::error::{Error, ErrorKind, Result};
use crate::stack::flight::{Flight, Landed, Tagging};
use crate::stack::space::{Space, Spaces};
use crate::stack::ticket::{ReadTicket, WriteTicket};
use crate::time::Stamp;

const SHARDS: usize = 64;
/// How many keys may be loading at once in one stack, unless its builder says otherwise.
pub const FLIGHTS_MAX: usize = 65_536;
/// How many loads of one key may be started beside one that is slow: see
/// [`EntryOptions::replace_after`](crate::EntryOptions::replace_after).
pub const REPLACEMENTS_MAX: u32 = 3;

static FLIGHTS_NEXT: AtomicU64 = AtomicU64::new(0);

/// What is going on for a key.
#[derive(Debug)]
pub(super) enum Slot {
    /// A lookup is reading the store, and means to bring what it finds into memory.
    Reading { namespace: u32, key: Box<str>, ticket: u64 },
    /// It is being loaded.
    Loading(Arc<Flight>),
}

impl Slot {
    fn namespace(&self) -> u32 {
        match self {
            Self::Reading { namespace, .. } => *namespace,
            Self::Loading(flight) => flight.namespace,
        }
    }

    pub(super) fn is_for(&self, namespace: u32, key: &str) -> bool {
        match self {
            Self::Reading { namespace: n, key: k, .. } => *n == namespace && **k == *key,
            Self::Loading(flight) => flight.namespace == namespace && *flight.key == *key,
        }
    }
}

/// Who leads a flight, and who joins one.
#[derive(Debug)]
pub(crate) enum Joined {
    /// Nobody was loading this key: the caller has to, and must [`Flights::finish`] the flight.
    Leader(Arc<Flight>),
    /// Somebody is.
    Waiter(Arc<Flight>),
}

/// The changes of one key that are on their way through the store.
#[derive(Debug)]
pub(super) struct Writing {
    /// Stands for the key. Two keys that share one cost each other a place in memory at worst.
    pub(super) hash: u64,
    pub(super) writers: usize,
    /// The newest change that has reached memory since the first of them began.
    newest: Stamp,
}

#[derive(Debug, Default)]
pub(super) struct Shard {
    pub(super) slots: HashTable<Slot>,
    pub(super) writing: HashTable<Writing>,
}

/// All flights of a stack.
#[derive(Debug)]
pub(crate) struct Flights {
    /// Different for each in this process.
    id: u64,
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    tickets: AtomicU64,
    loading: AtomicUsize,
    loading_max: usize,
    idle: Notify,
}

impl Flights {
    pub(crate) fn new(loading_max: usize) -> Self {
        Self {
            id: FLIGHTS_NEXT.fetch_add(1, Ordering::Relaxed),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::default(),
            tickets: AtomicU64::new(0),
            loading: AtomicUsize::new(0),
            loading_max,
            idle: Notify::new(),
        }
    }

    fn hash(&self, namespace: u32, key: &str) -> u64 {
        self.hasher.hash_one((namespace, key))
    }

    fn slot_hash(&self, slot: &Slot) -> u64 {
        match slot {
            Slot::Reading { namespace, key, .. } => self.hash(*namespace, key),
            Slot::Loading(flight) => self.hash(flight.namespace, &flight.key),
        }
    }

    #[expect(clippy::indexing_slicing, reason = "the index is taken modulo the length, which is not zero")]
    pub(super) fn shard(&self, hash: u64) -> MutexGuard<'_, Shard> {
        // The table uses the low bits; the shard takes some from the middle.
        self.shards[(hash >> 32) as usize % SHARDS].lock()
    }

    /// Joins the load of a key, or starts one, which will carry these extras.
    ///
    /// A load that began before the last clear or invalidation that reaches it is not joined: whoever asks
    /// after that may not be given what it lands with. Nor is any load by who wants to begin one anew.
    ///
    /// # Errors
    /// [`ErrorKind::Overloaded`] if too many keys are loading already.
    pub(crate) fn join(
        &self,
        spaces: &Spaces,
        (space, key): (&Space, &str),
        (extras, tagging): (Option<&Arc<Extras>>, Tagging),
        anew: bool,
        born: impl FnOnce() -> Stamp,
    ) -> Result<Joined> {
        let namespace = space.id;
        let hash = self.hash(namespace, key);
        let mut shard = self.shard(hash);
        let found = shard.slots.entry(hash, |slot| slot.is_for(namespace, key), |slot| self.slot_hash(slot));
        if let TableEntry::Occupied(slot) = &found
            && let Slot::Loading(flight) = slot.get()
            && !anew
            && !flight.is_outdated(spaces, space)
        {
            return Ok(Joined::Waiter(Arc::clone(flight)));
        }
        self.begin_load()?;
        let flight = Flight::new(self.id, (namespace, key), (extras, tagging), born(), anew, None);
        let slot = Slot::Loading(Arc::clone(&flight));
        match found {
            // A reader loses its right to fill the memory tier to the load, which will read the store itself;
            // an outdated load loses it as well.
            TableEntry::Occupied(mut occupied) => *occupied.get_mut() = slot,
            TableEntry::Vacant(vacant) => drop(vacant.insert(slot)),
        }
        Ok(Joined::Leader(flight))
    }

    /// # Errors
    /// [`ErrorKind::Overloaded`] if too many keys are loading already.
    fn begin_load(&self) -> Result<()> {
        // In one order with the flag of a stack that closes, which then either sees this or is seen.
        if self.loading.fetch_add(1, Ordering::SeqCst) < self.loading_max {
            return Ok(());
        }
        self.loading.fetch_sub(1, Ordering::AcqRel);
        let message = format!("more than {} keys are being loaded at once", self.loading_max);
        Err(Error::new(ErrorKind::Overloaded, message))
    }

    /// Starts a load beside one that is slow, which loses the right to be kept to it, if a change of the key has not
    /// taken that already; or joins the one that somebody else has started since. `None` if the slow one is over, or
    /// there are enough of them.
    pub(crate) fn replace(
        &self,
        slow: &Arc<Flight>,
        extras: Option<&Arc<Extras>>,
        tagging: Tagging,
        born: impl FnOnce() -> Stamp,
    ) -> Option<Joined> {
        let hash = self.hash(slow.namespace, &slow.key);
        let mut shard = self.shard(hash);
        let is_for = |slot: &Slot| slot.is_for(slow.namespace, &slow.key);
        let found = shard.slots.entry(hash, is_for, |slot| self.slot_hash(slot));
        if let TableEntry::Occupied(slot) = &found
            && let Slot::Loading(current) = slot.get()
            && !Arc::ptr_eq(current, slow)
        {
            // Whatever took the slow one's place began after it.
            return Some(Joined::Waiter(Arc::clone(current)));
        }
        let mut last = Arc::clone(slow);
        while let Some(after) = last.after.get().and_then(Weak::upgrade) {
            last = after;
        }
        let is_over = last.has_ended.load(Ordering::Relaxed);
        if is_over || last.rank >= REPLACEMENTS_MAX || self.begin_load().is_err() {
            return None;
        }
        let flight = {
            let (name, is_forced) = ((slow.namespace, slow.key()), slow.is_forced);
            Flight::new(self.id, name, (extras, tagging), born(), is_forced, Some(Arc::clone(&last)))
        };
        // It is the last one, so nothing was started beside it.
        let _ = last.after.set(Arc::downgrade(&flight));
        let slot = Slot::Loading(Arc::clone(&flight));
        match found {
            TableEntry::Occupied(mut occupied) => *occupied.get_mut() = slot,
            TableEntry::Vacant(vacant) => drop(vacant.insert(slot)),
        }
        Some(Joined::Leader(flight))
    }

    /// Announces that a lookup reads this key from the store. `None` if somebody else is at it already; the
    /// caller may still read, and keeps the result to itself.
    pub(crate) fn begin_read<'a>(&'a self, namespace: u32, key: &'a str) -> Option<ReadTicket<'a>> {
        let hash = self.hash(namespace, key);
        let mut shard = self.shard(hash);
        let found = shard.slots.entry(hash, |slot| slot.is_for(namespace, key), |slot| self.slot_hash(slot));
        let TableEntry::Vacant(vacant) = found else { return None };
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        vacant.insert(Slot::Reading { namespace, key: key.into(), ticket });
        Some(ReadTicket { flights: self, hash, namespace, key, ticket })
    }

    /// Announces that a change of this key is on its way through the store.
    pub(crate) fn begin_write(&self, namespace: u32, key: &str) -> WriteTicket<'_> {
        let hash = self.hash(namespace, key);
        let writing = &mut self.shard(hash).writing;
        match writing.entry(hash, |writing| writing.hash == hash, |writing| writing.hash) {
            TableEntry::Occupied(mut known) => known.get_mut().writers += 1,
            TableEntry::Vacant(vacant) => {
                vacant.insert(Writing { hash, writers: 1, newest: Stamp::ZERO });
            }
        }
        WriteTicket { flights: self, hash }
    }

    /// Takes the right to be kept from whatever is under way for a key, and changes the memory tier in the
    /// same breath: on behalf of a change with this stamp, unless a newer one came before it. The change says what stamp
    /// it has removed from memory: if that is newer than its own, nothing older may take the place.
    pub(crate) fn supersede<R>(
        &self,
        namespace: u32,
        key: &str,
        stamp: Stamp,
        change: impl FnOnce() -> (R, Option<Stamp>),
    ) -> Option<R> {
        let hash = self.hash(namespace, key);
        let mut shard = self.shard(hash);
        // Whatever came before this change: what began before it may not be kept, and nobody may join it.
        if let Ok(slot) = shard.slots.find_entry(hash, |slot| slot.is_for(namespace, key)) {
            slot.remove();
        }
        if let Some(writing) = shard.writing.find_mut(hash, |writing| writing.hash == hash) {
            if writing.newest > stamp {
                return None;
            }
            writing.newest = stamp;
        }
        let (changed, removed) = change();
        if let Some(writing) = shard.writing.find_mut(hash, |writing| writing.hash == hash) {
            writing.newest = writing.newest.max(removed.unwrap_or_default());
        }
        Some(changed)
    }

    /// As [`Flights::supersede`] where there is no store to overtake one another in, if the change says that it
    /// was one.
    pub(crate) fn supersede_if<R>(&self, namespace: u32, key: &str, change: impl FnOnce() -> (bool, R)) -> R {
        let hash = self.hash(namespace, key);
        let mut shard = self.shard(hash);
        let (changed, result) = change();
        if changed && let Ok(slot) = shard.slots.find_entry(hash, |slot| slot.is_for(namespace, key)) {
            slot.remove();
        }
        result
    }

    /// Takes the right to be kept from whatever is under way in some namespaces, on behalf of an invalidation of
    /// which nobody knows whether the store has it. Changes that are under way, in whichever namespace, keep out of
    /// memory: it may have reached what they left in the store.
    pub(crate) fn supersede_all(&self, is_meant: impl Fn(u32) -> bool) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.slots.retain(|slot| !is_meant(slot.namespace()));
            shard.writing.iter_mut().for_each(|writing| writing.newest = Stamp::MAX);
        }
    }

    /// As [`Flights::with_lock`], because the store is known to have something with this stamp: a change that is
    /// older, and has not reached memory yet, keeps out of it.
    pub(crate) fn hear<R>(&self, namespace: u32, key: &str, stamp: Stamp, run: impl FnOnce() -> R) -> R {
        let hash = self.hash(namespace, key);
        let mut shard = self.shard(hash);
        if let Some(writing) = shard.writing.find_mut(hash, |writing| writing.hash == hash) {
            writing.newest = writing.newest.max(stamp);
        }
        run()
    }

    /// Runs something under a key's lock, leaving alone what is under way.
    pub(crate) fn with_lock<R>(&self, namespace: u32, key: &str, run: impl FnOnce() -> R) -> R {
        let _shard = self.shard(self.hash(namespace, key));
        run()
    }

    /// Changes the memory tier on behalf of a flight, if it has not been superseded.
    pub(crate) fn land<R>(&self, flight: &Arc<Flight>, change: impl FnOnce() -> R) -> Option<R> {
        let hash = self.hash(flight.namespace, &flight.key);
        let shard = self.shard(hash);
        let is_current = shard
            .slots
            .find(hash, |slot| matches!(slot, Slot::Loading(current) if Arc::ptr_eq(current, flight)))
            .is_some();
        is_current.then(change)
    }

    /// Ends a flight: frees its key and hands the outcome to everyone who waits. A second call does nothing.
    pub(crate) fn finish(&self, flight: &Arc<Flight>, outcome: Result<Landed>) {
        self.finish_if(flight, outcome, || true);
    }

    /// As [`Flights::finish`], if `may_be_served` says so in the moment in which the last one can have joined;
    /// otherwise the flight goes on, and this is false. For what was there before the flight began: it may have been
    /// invalidated since it was found, and somebody may have joined after that.
    pub(crate) fn finish_if(
        &self,
        flight: &Arc<Flight>,
        outcome: Result<Landed>,
        may_be_served: impl FnOnce() -> bool,
    ) -> bool {
        let hash = self.hash(flight.namespace, &flight.key);
        {
            let mut shard = self.shard(hash);
            if !may_be_served() {
                return false;
            }
            let is_this =
                |slot: &Slot| matches!(slot, Slot::Loading(current) if Arc::ptr_eq(current, flight));
            if let Ok(slot) = shard.slots.find_entry(hash, is_this) {
                slot.remove();
            }
            if flight.has_ended.swap(true, Ordering::Relaxed) {
                return true;
            }
        }
        self.land_or_give_up(flight, outcome);
        // Counted until its own load is over, whoever landed it: closing waits for that.
        if self.loading.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.idle.notify_waiters();
        }
        true
    }

    /// Hands out what a load came to. A failure waits for the load that was started beside it.
    fn land_or_give_up(&self, flight: &Arc<Flight>, outcome: Result<Landed>) {
        if outcome.is_err()
            && let Some(after) = flight.after.get()
        {
            // In one order with the end of that one, which then either sees this or is seen.
            flight.gave_up.store(true, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            if after.upgrade().is_some_and(|after| after.outcome.get().is_none()) {
                return;
            }
        }
        Self::land_all(flight, &outcome);
    }

    /// Hands an outcome to everyone who waits for a flight, and for those that it was started beside.
    fn land_all(flight: &Arc<Flight>, outcome: &Result<Landed>) {
        let mut next = Some(flight);
        while let Some(flight) = next {
            if flight.outcome.set(outcome.clone()).is_ok() {
                flight.landed.notify_waiters();
            }
            fence(Ordering::SeqCst);
            // A failure is theirs only if their own load has failed as well.
            next = flight
                .before
                .as_ref()
                .filter(|before| outcome.is_ok() || before.gave_up.load(Ordering::SeqCst));
        }
    }

    /// Whether the caller is the loader of one of these flights.
    pub(crate) fn is_in_loader(&self) -> bool {
        Flight::home_of_current() == Some(self.id)
    }

    /// How many keys are being loaded.
    pub(crate) fn loading(&self) -> usize {
        self.loading.load(Ordering::SeqCst)
    }

    /// Waits until nothing is being loaded.
    pub(crate) async fn drained(&self) {
        loop {
            let idle = self.idle.notified();
            if self.loading() == 0 {
                return;
            }
            idle.await;
        }
    }

    /// How many slots there are, reads and writes included.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn slots(&self) -> usize {
        let count = |shard: &Mutex<Shard>| {
            let shard = shard.lock();
            shard.slots.len() + shard.writing.len()
        };
        self.shards.iter().map(count).sum()
    }
}
