//! Responses in this process's memory, with undici's limits: [`MemoryStore`]. Knows nothing of stacks.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use larder::Result;
use larder::time::{Clock, SystemClock};
use parking_lot::RwLock;

use super::{Change, CollectBody, HttpStore, Purge, Variants, WriteBody};
use crate::policy::Stored;

/// What a [`MemoryStore`] may hold.
///
/// ```
/// use larder_http::store::{MemoryStore, MemoryStoreOptions};
/// let mut options = MemoryStoreOptions::default();
/// options.count_max = 10_000;
/// let store = MemoryStore::new(options);
/// assert_eq!((store.size(), store.count(), store.is_full()), (0, 0, false));
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MemoryStoreOptions {
    /// The most bytes of all bodies together; 100 MiB unless told.
    pub size_max: u64,
    /// The most responses; 1024 unless told.
    pub count_max: u64,
    /// The longest body that is kept, in bytes, inclusive; 5 MiB unless told.
    pub entry_bytes_max: u64,
}

impl Default for MemoryStoreOptions {
    fn default() -> Self {
        Self { size_max: 100 << 20, count_max: 1024, entry_bytes_max: 5 << 20 }
    }
}

/// That a [`MemoryStore`] has exceeded a limit, before anything has gone: what undici calls `maxSizeExceeded`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Full {
    /// The bytes of all bodies.
    pub size: u64,
    /// The most that they may be.
    pub size_max: u64,
    /// How many responses there are.
    pub count: u64,
    /// The most that there may be.
    pub count_max: u64,
}

type OnFull = Arc<dyn Fn(Full) + Send + Sync>;

/// Responses in memory: undici's `MemoryCacheStore`, with its options and defaults.
///
/// When a limit is exceeded, what is of no use any more goes first, then the oldest responses of the targets that were used
/// least recently, until nothing is exceeded. Clones are the same store.
#[derive(Clone)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

struct Shared {
    options: MemoryStoreOptions,
    clock: Arc<dyn Clock>,
    on_full: Option<OnFull>,
    /// Counts uses.
    uses: AtomicU64,
    held: RwLock<Held>,
}

#[derive(Default)]
struct Held {
    targets: HashMap<Arc<str>, Slot>,
    /// The targets by their last use, or an earlier one: hits do not change it.
    by_use: BTreeMap<u64, Arc<str>>,
    /// The targets by when the first of their responses is of no use any more.
    by_end: BTreeSet<(SystemTime, Arc<str>)>,
    size: u64,
    count: u64,
}

struct Slot {
    variants: Arc<Variants>,
    /// The last use of it. No two slots have the same.
    used: AtomicU64,
    /// Under which use it is listed.
    listed: u64,
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = self.shared.held.read();
        f.debug_struct("MemoryStore")
            .field("options", &self.shared.options)
            .field("size", &held.size)
            .field("count", &held.count)
            .finish_non_exhaustive()
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new(MemoryStoreOptions::default())
    }
}

fn body_bytes(variants: &Variants) -> u64 {
    variants.responses().iter().map(|response| response.body.bytes()).sum()
}

/// When the first of them is of no use any more.
fn first_end(variants: &Variants) -> Option<SystemTime> {
    variants.responses().iter().map(|response| response.delete_at).min()
}

impl Held {
    /// Puts what is kept for a target in its place. What was there comes back, to be dropped after the lock is gone.
    fn put(&mut self, target: &str, variants: Variants, used: u64) -> Option<Slot> {
        let before = self.targets.remove_entry(target);
        if let Some((target, before)) = &before {
            self.size -= body_bytes(&before.variants);
            self.count -= before.variants.responses().len() as u64;
            self.by_use.remove(&before.listed);
            if let Some(end) = first_end(&before.variants) {
                self.by_end.remove(&(end, Arc::clone(target)));
            }
        }
        let (name, before) = before.unzip();
        if let Some(end) = first_end(&variants) {
            let name = name.unwrap_or_else(|| target.into());
            self.size += body_bytes(&variants);
            self.count += variants.responses().len() as u64;
            self.by_use.insert(used, Arc::clone(&name));
            self.by_end.insert((end, Arc::clone(&name)));
            let slot = Slot { variants: Arc::new(variants), used: AtomicU64::new(used), listed: used };
            self.targets.insert(name, slot);
        }
        before
    }

    /// Drops what is of no use any more.
    fn sweep(&mut self, now: SystemTime) -> Vec<Slot> {
        let mut gone = Vec::new();
        while let Some((_, target)) = self.by_end.first().filter(|(end, _)| *end <= now) {
            let target = Arc::clone(target);
            let Some(slot) = self.targets.get(&target) else { break };
            let left = slot.variants.purged(Purge::Hard, |response| response.delete_at <= now);
            let used = slot.used.load(Ordering::Relaxed);
            gone.extend(self.put(&target, left.unwrap_or_default(), used));
        }
        gone
    }

    fn exceeds(&self, options: &MemoryStoreOptions) -> bool {
        self.size > options.size_max || self.count > options.count_max
    }

    /// Lets responses go until no limit is exceeded: the oldest of what was used least recently.
    fn evict(&mut self, options: &MemoryStoreOptions) -> Vec<Slot> {
        let mut gone = Vec::new();
        while self.exceeds(options)
            && let Some((listed, target)) = self.by_use.pop_first()
        {
            let Some(slot) = self.targets.get_mut(&target) else { break };
            let used = slot.used.load(Ordering::Relaxed);
            if used != listed {
                // It has been used since it was listed.
                slot.listed = used;
                self.by_use.insert(used, target);
                continue;
            }
            let oldest = slot
                .variants
                .responses()
                .iter()
                .min_by_key(|response| response.stored.kept().times.received_at)
                .map(|response| response.id);
            let left = oldest.and_then(|oldest| slot.variants.without(oldest)).unwrap_or_default();
            gone.extend(self.put(&target, left, used));
        }
        gone
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new(options: MemoryStoreOptions) -> Self {
        Self::with(options, Arc::new(SystemClock::default()), None)
    }

    fn with(options: MemoryStoreOptions, clock: Arc<dyn Clock>, on_full: Option<OnFull>) -> Self {
        let held = RwLock::default();
        Self { shared: Arc::new(Shared { options, clock, on_full, uses: AtomicU64::new(0), held }) }
    }

    /// An empty store with another clock.
    #[must_use]
    pub fn with_clock(self, clock: impl Clock) -> Self {
        let Shared { options, on_full, .. } = &*self.shared;
        Self::with(options.clone(), Arc::new(clock), on_full.clone())
    }

    /// An empty store that calls this whenever a limit is exceeded, before anything goes: what undici's event
    /// `maxSizeExceeded` says. It is called outside of all locks, by whoever stores.
    #[must_use]
    pub fn on_full(self, on_full: impl Fn(Full) + Send + Sync + 'static) -> Self {
        let Shared { options, clock, .. } = &*self.shared;
        Self::with(options.clone(), Arc::clone(clock), Some(Arc::new(on_full)))
    }

    /// Its options.
    pub fn options(&self) -> &MemoryStoreOptions {
        &self.shared.options
    }

    /// The bytes of all bodies together, without those of responses that are of no use any more.
    pub fn size(&self) -> u64 {
        self.swept().0
    }

    /// How many responses there are, without those that are of no use any more.
    pub fn count(&self) -> u64 {
        self.swept().1
    }

    /// Whether its size or its count has reached the limit. It takes more all the same, and lets others go.
    pub fn is_full(&self) -> bool {
        let (size, count) = self.swept();
        size >= self.shared.options.size_max || count >= self.shared.options.count_max
    }

    fn swept(&self) -> (u64, u64) {
        let now = self.now();
        let (gone, extent) = {
            let mut held = self.shared.held.write();
            (held.sweep(now), (held.size, held.count))
        };
        drop(gone);
        extent
    }

    fn now(&self) -> SystemTime {
        self.shared.clock.now().to_system_time().unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// What is kept for a target and lives.
    fn find(&self, target: &str) -> Option<Arc<Variants>> {
        let held = self.shared.held.read();
        let slot = held.targets.get(target)?;
        slot.used.store(self.next_use(), Ordering::Relaxed);
        Some(Arc::clone(&slot.variants))
    }

    fn next_use(&self) -> u64 {
        self.shared.uses.fetch_add(1, Ordering::Relaxed)
    }

    fn living(&self, variants: Arc<Variants>) -> Arc<Variants> {
        let now = self.now();
        match variants.purged(Purge::Hard, |response| response.delete_at <= now) {
            Some(living) => Arc::new(living),
            None => variants,
        }
    }

    /// Puts it there if what is kept is still what was looked at. False if it is not.
    fn swap(&self, target: &str, looked_at: Option<&Arc<Variants>>, after: Variants) -> bool {
        let now = self.now();
        let used = self.next_use();
        let mut gone = Vec::new();
        let mut full = None;
        {
            let mut held = self.shared.held.write();
            let there = held.targets.get(target).map(|slot| &slot.variants);
            let is_same = match (there, looked_at) {
                (None, None) => true,
                (Some(there), Some(looked_at)) => Arc::ptr_eq(there, looked_at),
                _ => false,
            };
            if !is_same {
                return false;
            }
            gone.extend(held.put(target, after, used));
            gone.extend(held.sweep(now));
            if held.exceeds(&self.shared.options) {
                let MemoryStoreOptions { size_max, count_max, .. } = self.shared.options;
                full = Some(Full { size: held.size, size_max, count: held.count, count_max });
                gone.extend(held.evict(&self.shared.options));
            }
        }
        drop(gone);
        if let (Some(full), Some(on_full)) = (full, &self.shared.on_full) {
            on_full(full);
        }
        true
    }

    fn change_now(&self, target: &str, change: &(dyn Fn(&Variants) -> Option<Variants> + Send + Sync)) {
        loop {
            let looked_at =
                self.shared.held.read().targets.get(target).map(|slot| Arc::clone(&slot.variants));
            let before = looked_at.clone().map(|variants| self.living(variants)).unwrap_or_default();
            let Some(after) = change(&before) else { return };
            let now = self.now();
            let after = after.purged(Purge::Hard, |response| response.delete_at <= now).unwrap_or(after);
            if self.swap(target, looked_at.as_ref(), after) {
                return;
            }
        }
    }
}

#[async_trait]
impl HttpStore for MemoryStore {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn peek(&self, target: &str) -> Option<Arc<Variants>> {
        let living = self.living(self.find(target)?);
        (!living.is_empty()).then_some(living)
    }

    async fn get(&self, target: &str) -> Result<Option<Arc<Variants>>> {
        Ok(self.peek(target))
    }

    async fn change(&self, target: &str, change: Change<'_>) -> Result<()> {
        self.change_now(target, change);
        Ok(())
    }

    async fn create(&self, _target: &str, head: &Stored) -> Result<Option<Box<dyn WriteBody>>> {
        let max = self.shared.options.entry_bytes_max;
        let announced = head.headers().get(http::header::CONTENT_LENGTH);
        let announced = announced.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|bytes| bytes > max) {
            return Ok(None);
        }
        Ok(Some(Box::new(CollectBody::new(max))))
    }

    async fn invalidate(&self, tags: &[&str], how: Purge) -> Result<()> {
        let targets: Vec<Arc<str>> = {
            let held = self.shared.held.read();
            let is_meant = |slot: &Slot| {
                let mut responses = slot.variants.responses().iter();
                responses.any(|response| response.tags.iter().any(|tag| tags.contains(&tag.as_str())))
            };
            held.targets
                .iter()
                .filter(|(_, slot)| is_meant(slot))
                .map(|(target, _)| Arc::clone(target))
                .collect()
        };
        for target in targets {
            self.change_now(&target, &|variants| {
                variants.purged(how, |response| response.tags.iter().any(|tag| tags.contains(&tag.as_str())))
            });
        }
        Ok(())
    }

    fn targets(&self, prefix: &str) -> Result<BoxStream<'_, Result<String>>> {
        let now = self.now();
        let held = self.shared.held.read();
        let lives = |slot: &Slot| slot.variants.responses().iter().any(|response| response.delete_at > now);
        let targets: Vec<Result<String>> = held
            .targets
            .iter()
            .filter(|(target, slot)| target.starts_with(prefix) && lives(slot))
            .map(|(target, _)| Ok(target.as_ref().to_owned()))
            .collect();
        Ok(stream::iter(targets).boxed())
    }

    async fn clear(&self) -> Result<()> {
        let gone = std::mem::take(&mut *self.shared.held.write());
        drop(gone);
        Ok(())
    }
}
