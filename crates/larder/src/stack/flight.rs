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

use std::future::Future;
use std::hash::BuildHasher;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry as TableEntry;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::entry::{Entry, Extras};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Tier;
use crate::stack::space::{Space, Spaces};
use crate::stack::ticket::{ReadTicket, WriteTicket};
use crate::time::Stamp;

const SHARDS: usize = 64;
/// How many keys may be loading at once in one stack, unless its builder says otherwise.
pub const FLIGHTS_MAX: usize = 65_536;
/// How many callers may wait for one load.
pub const WAITERS_MAX: usize = 1_000_000;

/// What a load came to, for everyone who waited for it.
#[derive(Debug, Clone)]
pub(crate) struct Landed {
    pub(crate) entry: Entry,
    pub(crate) source: Source,
}

/// Where the value that a flight landed with came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// It was found fresh after all.
    Fresh(Tier),
    /// It was loaded.
    Loader,
    /// The load failed, and this was still within its grace.
    Fallback(Tier),
}

static FLIGHTS_NEXT: AtomicU64 = AtomicU64::new(0);

/// Who says what an entry carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tagging {
    /// The call, before the load begins.
    ByCall,
    /// The loader, when it ends: until then it may be any tag.
    ByLoader,
}

/// How long a caller waits for a load.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Patience {
    /// Until it takes a stale entry, if there is one.
    pub(crate) soft: Option<Duration>,
    /// Until it gives up.
    pub(crate) hard: Option<Duration>,
}

/// Ends after a while; `None` never does.
async fn timer(after: Option<Duration>) {
    match after {
        Some(after) => tokio::time::sleep(after).await,
        None => std::future::pending().await,
    }
}

tokio::task_local! {
    /// The flight whose loader is running in this task.
    static CURRENT: Arc<Flight>;
}

/// One load of one key, and everyone who waits for it.
#[derive(Debug)]
pub(crate) struct Flight {
    /// Which [`Flights`] it is one of.
    home: u64,
    namespace: u32,
    key: Box<str>,
    /// Before its load began: an invalidation at or after this wins over what it will land with.
    born: Stamp,
    /// What its entry will carry, as far as was said when it began.
    extras: Option<Arc<Extras>>,
    tagging: Tagging,
    outcome: OnceLock<Result<Landed>>,
    /// What may be served in place of waiting longer.
    stale: OnceLock<Landed>,
    landed: Notify,
    waiters: AtomicUsize,
    /// The flights that this one's loader is waiting for: the edges of the graph in which a cycle would be a
    /// deadlock.
    waits_for: Mutex<Vec<Arc<Flight>>>,
}

impl Flight {
    /// The user's key.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Whether clears or tags have put an end to what it will land with.
    fn is_outdated(&self, spaces: &Spaces, space: &Space) -> bool {
        let mark = match self.tagging {
            Tagging::ByCall => {
                let tags = self.extras.as_ref().map_or(&[][..], |extras| &extras.tags);
                spaces.mark(space, self.born, tags)
            }
            Tagging::ByLoader => space.mark_of_any(),
        };
        self.born <= mark.hard
    }

    /// Notes that this flight lands when another one's loader does, for as long as the result lives.
    pub(crate) fn bind(self: &Arc<Self>, leader: &Arc<Self>) -> WaitEdge {
        self.waits_for.lock().push(Arc::clone(leader));
        WaitEdge { from: Arc::clone(self), to: Arc::clone(leader) }
    }

    /// Offers a stale entry to those whose patience ends before the load does.
    pub(crate) fn offer(&self, stale: Landed) {
        if self.stale.set(stale).is_ok() {
            self.landed.notify_waiters();
        }
    }

    /// Waits for the outcome, or for a stale entry once the soft timeout is over. What was offered may have died
    /// since, of its age or of an invalidation, so `may_serve` is asked when it is handed out. Dropping the future
    /// takes nothing from the others.
    ///
    /// # Errors
    /// The load's own, [`ErrorKind::Timeout`] when the hard timeout is over and there is nothing stale,
    /// [`ErrorKind::Recursion`] if the load would be waiting for itself, and [`ErrorKind::Overloaded`] beyond
    /// [`WAITERS_MAX`] callers.
    pub(crate) async fn wait(
        self: &Arc<Self>,
        patience: Patience,
        may_serve: impl Fn(&Entry) -> bool,
    ) -> Result<Landed> {
        let _edge = match CURRENT.try_with(Arc::clone) {
            Ok(current) => Some(WaitEdge::new(current, self)?),
            Err(_) => None,
        };
        let _seat = Seat::take(self)?;
        let mut is_soft_over = patience.soft.is_some_and(|soft| soft.is_zero());
        let (mut soft, mut hard) = (pin!(timer(patience.soft)), pin!(timer(patience.hard)));
        let servable = || self.stale.get().filter(|stale| may_serve(&stale.entry)).cloned();
        loop {
            // Registered before the outcome is looked at, so that a landing in between is not missed.
            let notified = self.landed.notified();
            if let Some(outcome) = self.outcome.get() {
                return outcome.clone();
            }
            if is_soft_over && let Some(stale) = servable() {
                return Ok(stale);
            }
            tokio::select! {
                () = notified => {}
                () = &mut soft, if !is_soft_over => is_soft_over = true,
                () = &mut hard => return servable().ok_or_else(|| self.is_too_slow(patience)),
            }
        }
    }

    fn is_too_slow(&self, patience: Patience) -> Error {
        let waited = patience.hard.unwrap_or_default();
        let message = format!("the load of key {:?} took longer than {waited:?}, and goes on", self.key);
        Error::new(ErrorKind::Timeout, message)
    }

    /// Runs a loader so that the flights it waits for know on whose behalf.
    pub(crate) async fn run<F: Future>(self: &Arc<Self>, loader: F) -> F::Output {
        CURRENT.scope(Arc::clone(self), loader).await
    }

    fn reaches(self: &Arc<Self>, target: &Arc<Self>) -> bool {
        let mut seen: Vec<Arc<Self>> = vec![Arc::clone(self)];
        let mut next = 0;
        while let Some(flight) = seen.get(next).cloned() {
            if Arc::ptr_eq(&flight, target) {
                return true;
            }
            for awaited in flight.waits_for.lock().iter() {
                if !seen.iter().any(|known| Arc::ptr_eq(known, awaited)) {
                    seen.push(Arc::clone(awaited));
                }
            }
            next += 1;
        }
        false
    }
}

/// "This flight waits for that one", for as long as it does.
pub(crate) struct WaitEdge {
    from: Arc<Flight>,
    to: Arc<Flight>,
}

impl WaitEdge {
    fn new(from: Arc<Flight>, to: &Arc<Flight>) -> Result<Self> {
        // The edge is drawn before the search: of two loaders that close a cycle at the same moment, at least
        // one then sees the other's edge.
        from.waits_for.lock().push(Arc::clone(to));
        let edge = Self { from, to: Arc::clone(to) };
        if to.reaches(&edge.from) {
            return Err(Error::new(
                ErrorKind::Recursion,
                format!(
                    "the loader of key {:?} asks for key {:?}, which waits for that loader",
                    edge.from.key, edge.to.key
                ),
            ));
        }
        Ok(edge)
    }
}

impl Drop for WaitEdge {
    fn drop(&mut self) {
        let mut edges = self.from.waits_for.lock();
        if let Some(position) = edges.iter().position(|to| Arc::ptr_eq(to, &self.to)) {
            edges.swap_remove(position);
        }
    }
}

/// A place among the waiters of a flight.
struct Seat<'a>(&'a Flight);

impl<'a> Seat<'a> {
    fn take(flight: &'a Flight) -> Result<Self> {
        let taken = flight.waiters.fetch_add(1, Ordering::Relaxed);
        let seat = Self(flight);
        if taken >= WAITERS_MAX {
            let message = format!("more than {WAITERS_MAX} callers wait for key {:?}", flight.key);
            return Err(Error::new(ErrorKind::Overloaded, message));
        }
        Ok(seat)
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.waiters.fetch_sub(1, Ordering::Relaxed);
    }
}

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
    /// after that may not be given what it lands with.
    ///
    /// # Errors
    /// [`ErrorKind::Overloaded`] if too many keys are loading already.
    pub(crate) fn join(
        &self,
        spaces: &Spaces,
        space: &Space,
        key: &str,
        extras: Option<&Arc<Extras>>,
        tagging: Tagging,
        born: impl FnOnce() -> Stamp,
    ) -> Result<Joined> {
        let namespace = space.id;
        let hash = self.hash(namespace, key);
        let mut shard = self.shard(hash);
        let found = shard.slots.entry(hash, |slot| slot.is_for(namespace, key), |slot| self.slot_hash(slot));
        if let TableEntry::Occupied(slot) = &found
            && let Slot::Loading(flight) = slot.get()
            && !flight.is_outdated(spaces, space)
        {
            return Ok(Joined::Waiter(Arc::clone(flight)));
        }
        // In one order with the flag of a stack that closes, which then either sees this or is seen.
        if self.loading.fetch_add(1, Ordering::SeqCst) >= self.loading_max {
            self.loading.fetch_sub(1, Ordering::AcqRel);
            let message = format!("more than {} keys are being loaded at once", self.loading_max);
            return Err(Error::new(ErrorKind::Overloaded, message));
        }
        let flight = Arc::new(Flight {
            home: self.id,
            namespace,
            key: key.into(),
            born: born(),
            extras: extras.cloned(),
            tagging,
            outcome: OnceLock::new(),
            stale: OnceLock::new(),
            landed: Notify::new(),
            waiters: AtomicUsize::new(0),
            waits_for: Mutex::new(Vec::new()),
        });
        let slot = Slot::Loading(Arc::clone(&flight));
        match found {
            // A reader loses its right to fill the memory tier to the load, which will read the store itself;
            // an outdated load loses it as well.
            TableEntry::Occupied(mut occupied) => *occupied.get_mut() = slot,
            TableEntry::Vacant(vacant) => drop(vacant.insert(slot)),
        }
        Ok(Joined::Leader(flight))
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
    /// same breath: on behalf of a change with this stamp, unless a newer one came before it.
    pub(crate) fn supersede<R>(
        &self,
        namespace: u32,
        key: &str,
        stamp: Stamp,
        change: impl FnOnce() -> R,
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
        Some(change())
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
        }
        if flight.outcome.set(outcome).is_ok() {
            flight.landed.notify_waiters();
            if self.loading.fetch_sub(1, Ordering::AcqRel) == 1 {
                self.idle.notify_waiters();
            }
        }
        true
    }

    /// Whether the caller is the loader of one of these flights.
    pub(crate) fn is_in_loader(&self) -> bool {
        CURRENT.try_with(|flight| flight.home == self.id).unwrap_or(false)
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
