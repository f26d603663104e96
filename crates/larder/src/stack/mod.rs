//! The engine: what a lookup, a load and a write do to the tiers, in which order. Not generic: it moves
//! values as `Arc<dyn Any>`, and is compiled once.
//!
//! - `read` looks values up, `join` asks for what is missing and `fill` loads it, `write` stores and deletes, `tags`
//!   clears and invalidates, `update` rewrites atomically (counters, add, pull, touch);
//! - `verdict` decides what may be done with what was found, and is pure;
//! - `lease` is whose turn it is to load, of the processes that share the store;
//! - `flight` is one load and who waits for it, `flights` all of them and the right to be kept, `writers` which keys are
//!   being written in their source; `space` is namespaces and their clears;
//! - `l2` is the only caller of a driver, `breaker` keeps it from calling one that is down, `recovery` tells it
//!   later what it did not take, and `retry` keeps the books of that. Only this room emits events; `span` is what
//!   `tracing` sees besides.
//!
//! Knows nothing of value types, of configuration and of HTTP.

mod account;
mod ahead;
mod answer;
mod breaker;
mod builder;
mod fill;
mod flight;
mod flights;
mod join;
mod l2;
mod lease;
mod read;
mod recovery;
mod renewal;
mod rest;
mod retry;
mod space;
mod span;
mod stored;
mod tags;
mod ticket;
mod update;
mod verdict;
mod write;
mod writers;

use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::advisor::{Advice, Facts};
use crate::cache::Cache;
use crate::codec::{AnyCodec, Codec, CodecName, Opaque, OpaqueCodec, erase};
use crate::driver::Driver;
use crate::entry::AnyValue;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, EvictionCause, Observer, Tier};
use crate::explain::{self, Fact};
pub(crate) use crate::memory::Serving;
use crate::memory::{Evicted, Memory};
use crate::options::EntryOptions;
use crate::stats::{Snapshot, Stats};
use crate::time::{HybridClock, Stamp, Timestamp};

pub use ahead::REFRESH_AHEAD_MAX;
pub use breaker::BreakerOptions;
pub use builder::StackBuilder;
#[cfg(feature = "config")]
pub(crate) use builder::{LOAD_MAX_DEFAULT, tell_options};
pub use flight::WAITERS_MAX;
pub use flights::{FLIGHTS_MAX, REPLACEMENTS_MAX};
pub use l2::DEADLINE_DEFAULT;
pub use retry::RecoveryOptions;
pub use space::NAMESPACES_MAX;
pub use writers::SOURCE_WRITES_MAX;

pub(crate) use ahead::Again;
use ahead::Aheads;
pub(crate) use answer::{Answer, Asked, BoxLoad, Loads};
pub(crate) use fill::{Request, panic_text};
pub(crate) use flight::{Landed, Tagging};
use flights::Flights;
use l2::{L2, OnFailure};
use lease::Leases;
pub(crate) use read::Accept;
pub(crate) use renewal::{is_due, slid};
use rest::Rests;
use retry::Retry;
pub(crate) use space::Space;
use space::Spaces;
pub(crate) use span::of_caller;
pub(crate) use tags::Hardness;
pub(crate) use update::{Change, Found};
pub(crate) use write::NewValue;
use writers::Writers;
pub(crate) use writers::{WriteSeat, Writing};

/// A memory tier, a store, or both, under one name: what cache handles point at. Cheap to clone.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use larder::{Stack, memory::MemoryOptions};
///
/// let stack = Stack::builder("users").memory(MemoryOptions::new(10_000)).build()?;
/// let users = stack.cache::<String>()?;
/// users.set("42", "Ada".to_owned()).await?;
/// assert_eq!(users.get("42").await?.as_deref(), Some(&"Ada".to_owned()));
/// assert_eq!(stack.stats().hits_l1, 1);
/// # Ok::<(), larder::Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Stack {
    pub(crate) core: Arc<Core>,
}

/// What the handles of a stack share.
pub(crate) struct Core {
    /// Itself, for tasks that outlive an operation.
    this: Weak<Core>,
    pub(crate) name: Box<str>,
    pub(crate) memory: Option<Memory>,
    pub(crate) l2: Option<L2>,
    /// Writes that the store did not take; absent where none are remembered.
    pub(crate) retry: Option<Retry>,
    pub(crate) flights: Flights,
    pub(crate) writers: Writers,
    pub(crate) spaces: Spaces,
    pub(crate) rests: Rests,
    pub(crate) leases: Leases,
    pub(crate) aheads: Aheads,
    /// Counts the throws of dice.
    throws: AtomicU64,
    pub(crate) clock: HybridClock,
    pub(crate) stats: Stats,
    pub(crate) options: EntryOptions,
    #[cfg_attr(
        not(any(feature = "json", feature = "messagepack")),
        expect(dead_code, reason = "no codec has a name")
    )]
    pub(crate) codec: CodecName,
    pub(crate) value_bytes_max: u64,
    /// The longest load whose result is kept.
    pub(crate) load_max: Duration,
    /// How long tombstones live: as long as a load whose result is kept, and the write of it.
    pub(crate) tombstone_ttl: Duration,
    /// Whether the memory tier needs to know how large values are.
    pub(crate) weighs: bool,
    observers: Box<[Arc<dyn Observer>]>,
    /// Whether there are any, or groups of keys.
    is_observed: bool,
    /// What the advisor looks at, and what it says about it.
    facts: Facts,
    advice: Box<[Advice]>,
    updates: Box<[tokio::sync::Mutex<()>]>,
    closed: AtomicBool,
    /// Whether it has been closed to the end.
    closing: tokio::sync::Mutex<bool>,
}

/// What a handle brings to every operation.
pub(crate) struct Door {
    pub(crate) space: Arc<Space>,
    /// Absent on a handle for values that never leave memory.
    pub(crate) codec: Option<Arc<dyn AnyCodec>>,
    pub(crate) schema: u8,
    /// The cache's options over the stack's.
    pub(crate) options: EntryOptions,
    /// The size of a value in memory, in bytes.
    pub(crate) weigh: Arc<dyn Fn(&AnyValue) -> usize + Send + Sync>,
    /// Whether that is a measure of the user's own, which counts for more than the encoded size.
    pub(crate) has_weigher: bool,
}

impl Door {
    /// The size in memory, in bytes, of a value whose encoded form has so many.
    pub(crate) fn weigh_encoded(&self, value: &AnyValue, payload_bytes: usize) -> usize {
        if self.has_weigher { (self.weigh)(value) } else { payload_bytes }
    }
}

impl Stack {
    /// Starts to build a stack of this name.
    pub fn builder(name: impl Into<String>) -> StackBuilder {
        StackBuilder::new(name.into())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// A typed handle whose values are stored with the stack's codec.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if this build lacks the codec's feature.
    #[cfg(any(feature = "json", feature = "messagepack"))]
    pub fn cache<V>(&self) -> Result<Cache<V>>
    where
        V: serde::Serialize + serde::de::DeserializeOwned + Any + Send + Sync,
    {
        Ok(Cache::new(Arc::clone(&self.core), Some(self.core.codec.codec::<V>()?)))
    }

    /// A typed handle whose values are stored with a codec of one's choice.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// use bytes::Bytes;
    /// use larder::{Stack, codec::Raw, driver::memory::MemoryDriver};
    ///
    /// let stack = Stack::builder("blobs").store(MemoryDriver::default()).build()?;
    /// let blobs = stack.cache_with::<Bytes>(Raw);
    /// blobs.set("a", Bytes::from_static(b"\x00\xff")).await?;
    /// assert_eq!(&blobs.get("a").await?.unwrap()[..], b"\x00\xff");
    /// # Ok::<(), larder::Error>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cache_with<V: Any + Send + Sync>(&self, codec: impl Codec<V>) -> Cache<V> {
        Cache::new(Arc::clone(&self.core), Some(erase(codec)))
    }

    /// A typed handle for values that need no codec, because they never leave memory.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the stack has a store.
    pub fn memory_cache<V: Any + Send + Sync>(&self) -> Result<Cache<V>> {
        if let Some(l2) = &self.core.l2 {
            let message = format!(
                "stack {:?} has a {} store, so its values need a codec: use `cache` or `cache_with`",
                self.core.name,
                l2.driver.name()
            );
            return Err(Error::new(ErrorKind::Config, message));
        }
        Ok(Cache::new(Arc::clone(&self.core), None))
    }

    /// A handle that moves values as their stored bytes, whatever type, codec and schema they have.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the stack has a memory tier, which holds values by their type.
    pub fn opaque_cache(&self) -> Result<Cache<Opaque>> {
        if self.core.memory.is_some() {
            let message = format!("stack {:?} has a memory tier, so its values have types", self.core.name);
            return Err(Error::new(ErrorKind::Config, message));
        }
        Ok(Cache::new(Arc::clone(&self.core), Some(Arc::new(OpaqueCodec))))
    }

    /// Counts of what happened since the stack was built, and how long it took; of groups of keys as well, if
    /// [`StackBuilder::group`] names any.
    pub fn stats(&self) -> Snapshot {
        self.core.stats.snapshot()
    }

    /// What the options of this stack should rather not say: which contradict each other, and which have no
    /// effect. Observers hear the same, as [`Event::Advised`], when the stack is built.
    ///
    /// ```
    /// use larder::{EntryOptions, Stack, memory::MemoryOptions, time::{hours, seconds}};
    ///
    /// let stack = Stack::builder("users")
    ///     .memory(MemoryOptions::new(10_000))
    ///     .options(EntryOptions::default().ttl(hours(1)).grace(seconds(10)))
    ///     .build()?;
    /// assert_eq!(stack.advice()[0].id, "grace-too-short");
    /// # Ok::<(), larder::Error>(())
    /// ```
    pub fn advice(&self) -> &[Advice] {
        &self.core.advice
    }

    /// What [`Stack::advice`] is about.
    pub fn facts(&self) -> &Facts {
        &self.core.facts
    }

    /// How many entries the memory tier holds, and how many bytes they weigh; `None` without one.
    pub fn memory_usage(&self) -> Option<MemoryUsage> {
        let memory = self.core.memory.as_ref()?;
        Some(MemoryUsage { items: memory.len(), bytes: memory.bytes() })
    }

    /// The store, for what this crate does not do with it; `None` without one.
    pub fn store(&self) -> Option<&Arc<dyn Driver>> {
        self.core.l2.as_ref().map(|l2| &l2.driver)
    }

    /// What time it is to this stack.
    pub fn now(&self) -> Timestamp {
        self.core.clock.now()
    }

    /// A point in the order of this stack's writes, clears and invalidations, after all that this process knows of:
    /// what [`Updated::born`](crate::Updated::born) takes for a value whose making begins now.
    pub fn stamp(&self) -> Stamp {
        self.core.clock.tick(self.core.clock.now())
    }

    /// Succeeds if the store can be reached now, or there is none.
    ///
    /// # Errors
    /// The driver's, or [`ErrorKind::Timeout`] after the stack's deadline.
    pub async fn ping(&self) -> Result<()> {
        self.core.check_open()?;
        let Some(l2) = &self.core.l2 else { return Ok(()) };
        l2.ping(&self.core).await
    }

    /// Gives back the space of what has expired, in both tiers. Returns how many entries went.
    ///
    /// # Errors
    /// The driver's. There is no deadline; dropping the future stops the work where it is.
    pub async fn prune(&self) -> Result<u64> {
        self.core.check_open()?;
        self.core.prune().await
    }

    /// How many keys are refreshed ahead: see [`GetOrSet::refresh_ahead`](crate::GetOrSet::refresh_ahead).
    pub fn refreshed_ahead(&self) -> usize {
        self.core.aheads.len()
    }

    /// How many writes that the store did not take are remembered, to be tried again.
    pub fn pending_writes(&self) -> usize {
        self.core.retry.as_ref().map_or(0, Retry::len)
    }

    /// Refuses new operations, waits for the loads and the writes of sources under way, makes the deletes that were to
    /// follow those at once, tries once more, for one deadline, what the store
    /// did not take (what is left then is reported as [`Event::FailedWrite`]), and closes the store, unless it was borrowed
    /// ([`StackBuilder::borrowed_store`]). Dropped half-way, it has refused new operations, and can be called
    /// again to do the rest.
    ///
    /// # Errors
    /// The driver's; closing twice does nothing. [`ErrorKind::Recursion`] in one of this stack's own loaders
    /// or writes of its source, which it would have to wait for; nothing has changed then.
    pub async fn close(&self) -> Result<()> {
        if self.core.flights.is_in_loader() {
            let message =
                format!("a loader of stack {:?} closes that stack, which waits for it", self.name());
            return Err(Error::new(ErrorKind::Recursion, message));
        }
        if self.core.writers.is_in_write() {
            let message = format!(
                "a write of the source of stack {:?} closes that stack, which waits for it",
                self.name()
            );
            return Err(Error::new(ErrorKind::Recursion, message));
        }
        self.core.closed.store(true, Ordering::SeqCst);
        let mut is_done = self.core.closing.lock().await;
        if *is_done {
            return Ok(());
        }
        self.core.flights.drained().await;
        self.core.writers.drained().await;
        self.core.finish_retries().await;
        let outcome = match &self.core.l2 {
            Some(l2) => l2.close().await,
            None => Ok(()),
        };
        *is_done = true;
        outcome
    }

    /// How many loads and store reads are under way, and whether the memory tier's books are in order: what
    /// the harness checks after every test.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    #[cfg(any(test, feature = "testing"))]
    pub fn check_invariants(&self) -> std::result::Result<(), String> {
        let slots = self.core.flights.slots();
        if slots != 0 || self.core.flights.loading() != 0 {
            return Err(format!("{slots} flights are left, {} of them loading", self.core.flights.loading()));
        }
        if self.core.writers.keys() != 0 {
            return Err(format!("{} keys are still being written in the source", self.core.writers.keys()));
        }
        self.core.retry.as_ref().map_or(Ok(()), Retry::check)?;
        self.core.memory.as_ref().map_or(Ok(()), Memory::check_weights)
    }
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack")
            .field("name", &self.core.name)
            .field("memory", &self.memory_usage())
            .field("store", &self.store().map(|driver| driver.name()))
            .finish_non_exhaustive()
    }
}

/// How full the memory tier of a stack is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
#[non_exhaustive]
pub struct MemoryUsage {
    /// Entries, expired ones that were not reclaimed yet included.
    pub items: u64,
    /// What they weigh: keys, values and a fixed overhead each, in bytes.
    pub bytes: u64,
}

impl Core {
    /// # Errors
    /// [`ErrorKind::Closed`].
    #[inline]
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Relaxed) { Err(self.is_closed()) } else { Ok(()) }
    }

    pub(crate) fn has_store(&self) -> bool {
        self.l2.is_some()
    }

    /// As [`Core::check_open`], for whoever has begun a load: either this fails, or closing waits for the load.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`].
    pub(crate) fn check_open_to_loads(&self) -> Result<()> {
        if self.closed.load(Ordering::SeqCst) { Err(self.is_closed()) } else { Ok(()) }
    }

    #[cold]
    fn is_closed(&self) -> Error {
        Error::new(ErrorKind::Closed, format!("stack {:?} was closed", self.name))
    }

    pub(crate) fn emit(&self, event: &Event<'_>) {
        self.stats.count(event);
        if explain::is_on() {
            self.note_event(event);
        }
        for observer in &self.observers {
            observer.on_event(&self.name, event);
        }
    }

    /// Tells of a write of what is fresh until then.
    pub(crate) fn emit_written(&self, space: &Space, key: &str, fresh_until: Timestamp, now: Timestamp) {
        let ttl = (fresh_until != Timestamp::FOREVER).then(|| fresh_until.since(now));
        self.emit(&Event::Written { namespace: space.keys.path(), key, ttl });
    }

    /// Whether anybody wants to hear of single hits.
    #[inline]
    pub(crate) fn is_listened_to(&self) -> bool {
        self.is_observed || explain::is_on()
    }

    /// As [`Core::emit_fresh_l1_hit`], where nobody listens.
    #[inline]
    pub(crate) fn count_fresh_l1_hit(&self) {
        self.stats.count_fresh_l1_hit();
    }

    /// A fresh hit in memory: the one event on the hottest way.
    #[inline]
    pub(crate) fn emit_fresh_l1_hit(&self, space: &Space, key: &str) {
        self.stats.count_fresh_l1_hit();
        self.note(space, key, || Fact::Hit { tier: Tier::L1, stale: false });
        if let Some(groups) = self.stats.groups() {
            groups.count_fresh_l1_hit(space.keys.path(), key);
        }
        if !self.observers.is_empty() {
            let namespace = space.keys.path();
            let event = Event::Hit { namespace, key, tier: Tier::L1, stale: false };
            self.observers.iter().for_each(|observer| observer.on_event(&self.name, &event));
        }
    }

    pub(crate) fn l2_failed(&self, operation: &'static str, error: &Error, on_failure: OnFailure) {
        self.emit(&Event::L2Failed { operation, error, suppressed: on_failure == OnFailure::Suppress });
    }

    /// Whether a failing store is a miss to these options.
    pub(crate) fn on_failure(&self, options: &EntryOptions) -> OnFailure {
        if options.suppress_l2_errors.unwrap_or(self.memory.is_some()) {
            OnFailure::Suppress
        } else {
            OnFailure::Return
        }
    }

    /// Reports what was pushed out of memory, after the locks are gone.
    pub(crate) fn report_evicted(&self, evicted: Vec<Evicted>) {
        for Evicted { namespace, key, cause, .. } in &evicted {
            self.emit_evicted(*namespace, key, *cause);
        }
    }

    pub(crate) fn emit_evicted(&self, namespace: u32, key: &str, cause: EvictionCause) {
        if let Some(space) = self.spaces.by_id(namespace) {
            self.emit(&Event::Evicted { namespace: space.keys.path(), key, cause });
        }
    }

    /// A number of which the next one tells nothing.
    pub(crate) fn chance(&self) -> u64 {
        let throw = self.throws.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        xxhash_rust::xxh3::xxh3_64(&throw.to_le_bytes())
    }

    /// One at a time among the rewrites of a key in this process, so that they do not fight over the store.
    #[expect(clippy::indexing_slicing, reason = "the index is taken modulo the length, which is not zero")]
    pub(crate) async fn one_update_at_a_time(&self, key: &str) -> tokio::sync::MutexGuard<'_, ()> {
        let hash = xxhash_rust::xxh3::xxh3_64(key.as_bytes()) as usize;
        self.updates[hash % self.updates.len()].lock().await
    }

    async fn prune(&self) -> Result<u64> {
        let now = self.clock.now();
        let mut pruned = 0;
        if let Some(memory) = &self.memory {
            let gone = memory.retain(|namespace, _, entry| self.is_kept(namespace, &entry.meta, now));
            for (namespace, key, _) in &gone {
                self.emit_evicted(*namespace, key, EvictionCause::Expired);
            }
            pruned += gone.len() as u64;
        }
        if let Some(l2) = &self.l2 {
            pruned += l2.prune(self).await?;
        }
        Ok(pruned)
    }

    fn is_kept(&self, namespace: u32, meta: &crate::entry::Meta, now: Timestamp) -> bool {
        let mark = self.spaces.by_id(namespace).map(|space| self.spaces.mark(&space, meta.born, meta.tags()));
        verdict::standing(meta, mark.unwrap_or_default(), now) != crate::entry::Freshness::Expired
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("name", &self.name).finish_non_exhaustive()
    }
}
