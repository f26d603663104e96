//! [`MemoryCache`]: a typed cache of one process, without serde, async or a store behind it.
//!
//! It adds to the engine what a cache of its own needs: expiry, one computation per key, and reports of what
//! left. It knows nothing of stacks, drivers or events.

use std::borrow::Borrow;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use crate::event::EvictionCause;
use crate::memory::flight::{Flights, Joined};
use crate::memory::{Engine, Lookup, MemoryOptions, Put};
use crate::time::{Clock, SystemClock, Timestamp, Ttl};

type Weigher<K, V> = Box<dyn Fn(&K, &V) -> u64 + Send + Sync>;
type OnEviction<K, V> = Box<dyn Fn(&K, &V, EvictionCause) + Send + Sync>;

/// A bounded, concurrent map that forgets: what was asked for least, and what is older than its TTL.
///
/// Clones share one cache. Values are handed out as `Arc<V>`, so neither keys nor values are ever cloned on a
/// hit. No code of yours runs under a lock but `Eq`, `Hash` and `Clone` of keys: a value's `Drop`, the weigher
/// and the eviction callback may use the cache themselves.
///
/// ```
/// use larder::memory::MemoryCache;
/// use larder::time::minutes;
///
/// let cache = MemoryCache::builder().max_items(10_000).max_bytes(64 << 20).ttl(minutes(5)).build();
/// cache.insert("answer".to_string(), 42);
/// assert_eq!(cache.get("answer").as_deref(), Some(&42));
///
/// let length = cache.get_or_insert_with("question".to_string(), || "a slow computation".len());
/// assert_eq!((*length, cache.len()), (18, 2));
/// ```
pub struct MemoryCache<K, V> {
    shared: Arc<Shared<K, V>>,
}

struct Shared<K, V> {
    engine: Engine<K, Kept<V>>,
    flights: Flights<K, V>,
    weigher: Option<Weigher<K, V>>,
    on_eviction: Option<OnEviction<K, V>>,
    ttl: Ttl,
    clock: Arc<dyn Clock>,
}

/// How a [`MemoryCache`] is to be: see [`MemoryCache::builder`].
pub struct MemoryCacheBuilder<K, V> {
    options: MemoryOptions,
    weigher: Option<Weigher<K, V>>,
    on_eviction: Option<OnEviction<K, V>>,
    ttl: Ttl,
    clock: Option<Arc<dyn Clock>>,
}

impl<K: Hash + Eq + Clone, V> MemoryCacheBuilder<K, V> {
    /// The most entries; 100 000 unless told.
    #[must_use]
    pub fn max_items(mut self, items: u64) -> Self {
        self.options.max_items = items;
        self
    }

    /// The most bytes of all entries together, as the weigher says plus 256 for each; no limit unless told.
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.options.max_bytes = Some(bytes);
        self
    }

    /// The most bytes of one entry, inclusive, counted as for [`max_bytes`](Self::max_bytes). See
    /// [`MemoryOptions::max_entry_bytes`] for what holds unless told.
    #[must_use]
    pub fn max_entry_bytes(mut self, bytes: u64) -> Self {
        self.options.max_entry_bytes = Some(bytes);
        self
    }

    /// How many bytes a key and its value are. Unless told, what they are without what they point to.
    ///
    /// It is asked once for each insert, and what it says is kept.
    #[must_use]
    pub fn weigher(mut self, weigher: impl Fn(&K, &V) -> u64 + Send + Sync + 'static) -> Self {
        self.weigher = Some(Box::new(weigher));
        self
    }

    /// How long entries live that are inserted without a TTL of their own; forever unless told.
    #[must_use]
    pub fn ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.ttl = ttl.into();
        self
    }

    /// Where time comes from; the machine's clock unless told.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Is told of everything that leaves without being removed, cleared or replaced, on the thread that made
    /// it leave, after it has left.
    #[must_use]
    pub fn on_eviction(mut self, report: impl Fn(&K, &V, EvictionCause) + Send + Sync + 'static) -> Self {
        self.on_eviction = Some(Box::new(report));
        self
    }

    /// The cache.
    #[must_use]
    pub fn build(self) -> MemoryCache<K, V> {
        MemoryCache {
            shared: Arc::new(Shared {
                engine: Engine::new(self.options.limits()),
                flights: Flights::new(),
                weigher: self.weigher,
                on_eviction: self.on_eviction,
                ttl: self.ttl,
                clock: self.clock.unwrap_or_else(|| Arc::new(SystemClock::default())),
            }),
        }
    }
}

impl<K: Hash + Eq + Clone, V> MemoryCache<K, V> {
    /// A cache of so many entries at most, which live until they are evicted.
    pub fn new(max_items: u64) -> Self {
        Self::builder().max_items(max_items).build()
    }

    /// A cache with more limits than a number of entries.
    ///
    /// ```
    /// use larder::memory::MemoryCache;
    /// let cache = MemoryCache::builder()
    ///     .max_bytes(1 << 20)
    ///     .weigher(|key: &String, page: &String| (key.len() + page.len()) as u64)
    ///     .on_eviction(|key, _, cause| println!("{key} went: {cause:?}"))
    ///     .build();
    /// cache.insert("/".to_string(), "<html>".to_string());
    /// ```
    pub fn builder() -> MemoryCacheBuilder<K, V> {
        MemoryCacheBuilder {
            options: MemoryOptions::default(),
            weigher: None,
            on_eviction: None,
            ttl: Ttl::Forever,
            clock: None,
        }
    }

    /// The value of a key, unless it has expired.
    #[inline]
    pub fn get<Q>(&self, key: &Q) -> Option<Arc<V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let kept = self.shared.engine.get(&Borrowed(key))?;
        // What lives forever costs no look at the clock.
        if kept.until == Timestamp::FOREVER || self.shared.clock.now() < kept.until {
            return Some(kept.value);
        }
        self.shared.expire(key);
        None
    }

    /// Whether a key has a value that has not expired.
    pub fn contains<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.get(key).is_some()
    }

    /// Stores a value for the cache's own TTL. Returns the one that it replaced.
    ///
    /// A value that is larger than a limit is not stored, and takes the one before it along: a cache that
    /// went on to serve that one would serve what is known to be outdated. A TTL of zero does the same.
    pub fn insert(&self, key: K, value: V) -> Option<Arc<V>> {
        self.insert_with_ttl(key, value, self.shared.ttl)
    }

    /// Stores a value for a TTL of its own. Returns the one that it replaced.
    ///
    /// ```
    /// use larder::{memory::MemoryCache, time::{Ttl, seconds}};
    /// let cache = MemoryCache::new(10);
    /// cache.insert_with_ttl("session", 1, seconds(30));
    /// cache.insert_with_ttl("constant", 2, Ttl::Forever);
    /// cache.insert_with_ttl("nothing", 3, seconds(0));
    /// assert_eq!((cache.get("nothing"), cache.len()), (None, 2));
    /// ```
    pub fn insert_with_ttl(&self, key: K, value: V, ttl: impl Into<Ttl>) -> Option<Arc<V>> {
        let ttl = ttl.into();
        self.shared.flights.supersede(&key);
        if ttl.is_zero() {
            return self.remove(&key);
        }
        let mut left = Left::default();
        let value = Arc::new(value);
        let size = self.shared.measure(&key, &value, ttl);
        self.shared.put(key, &value, size, &mut left);
        self.shared.report(left)
    }

    /// The value of a key, computed and stored if there is none.
    ///
    /// As [`try_get_or_insert_with`](Self::try_get_or_insert_with), with a computation that cannot fail.
    pub fn get_or_insert_with(&self, key: K, compute: impl FnOnce() -> V) -> Arc<V> {
        let computed = self.try_get_or_insert_with(key, || Ok::<V, std::convert::Infallible>(compute()));
        match computed {
            Ok(value) => value,
            Err(never) => match never {},
        }
    }

    /// The value of a key, computed and stored for the cache's own TTL if there is none.
    ///
    /// However many threads ask, one computes and the others wait for it. If it fails or panics, that is its
    /// own caller's alone: the next of those who wait computes with its own closure. If the key is inserted,
    /// removed or cleared meanwhile, the computed value goes to those who asked for it and is not stored.
    ///
    /// A computation that asks for the key that it is computing, itself or by way of threads that wait for
    /// each other in any caches, computes that inner value on its own, which is not stored. A computation that
    /// waits by other means (joins a thread) for one that asks for its key waits forever.
    ///
    /// # Errors
    /// What `compute` returns; nothing is stored then.
    ///
    /// ```
    /// use larder::memory::MemoryCache;
    /// let cache: MemoryCache<&str, u16> = MemoryCache::new(10);
    /// assert!(cache.try_get_or_insert_with("port", || "eighty".parse()).is_err());
    /// assert_eq!(cache.try_get_or_insert_with("port", || "80".parse()).as_deref(), Ok(&80));
    /// ```
    pub fn try_get_or_insert_with<E>(
        &self,
        key: K,
        compute: impl FnOnce() -> Result<V, E>,
    ) -> Result<Arc<V>, E> {
        loop {
            if let Some(value) = self.get(&key) {
                return Ok(value);
            }
            match self.shared.flights.join(&key) {
                Joined::Landed(value) => return Ok(value),
                Joined::Failed => {}
                Joined::Circle => return compute().map(Arc::new),
                Joined::Lead(lead) => {
                    // It may have landed between the look and the lead.
                    if let Some(value) = self.get(&key) {
                        lead.land(&value, || ());
                        return Ok(value);
                    }
                    let value = Arc::new(compute()?);
                    let size = self.shared.measure(&key, &value, self.shared.ttl);
                    let mut left = Left::default();
                    lead.land(&value, || self.shared.put(key, &value, size, &mut left));
                    self.shared.report(left);
                    return Ok(value);
                }
            }
        }
    }

    /// Removes a key. Returns its value, unless that has expired.
    pub fn remove<Q>(&self, key: &Q) -> Option<Arc<V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.shared.flights.supersede(key);
        let (key, kept) = self.shared.engine.remove_if(&Borrowed(key), |_| true)?;
        let left = Left { replaced: Some((key, kept)), ..Left::default() };
        self.shared.report(left)
    }

    /// How many entries there are, counting what has expired until it is found, evicted or pruned.
    pub fn len(&self) -> u64 {
        self.shared.engine.len()
    }

    /// Whether there are no entries, expired or not.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of all entries, expired or not: what the weigher says, plus 256 for each.
    pub fn bytes(&self) -> u64 {
        self.shared.engine.bytes()
    }

    /// Removes everything. The eviction callback is not told.
    pub fn clear(&self) {
        self.shared.flights.supersede_all();
        drop(self.shared.engine.clear());
    }

    /// Removes what has expired. Returns how many entries that were.
    pub fn prune(&self) -> u64 {
        let now = self.shared.clock.now();
        let removed = self.shared.engine.retain(|_, kept| !kept.is_over(now));
        let count = removed.len() as u64;
        for (key, kept) in removed {
            self.shared.tell(&key, &kept.value, EvictionCause::Expired);
        }
        count
    }

    /// Everything that has not expired, as it is now, in no order.
    ///
    /// ```
    /// let cache = larder::memory::MemoryCache::new(10);
    /// cache.insert(1, "one");
    /// assert_eq!(cache.iter().map(|(key, value)| (key, *value)).collect::<Vec<_>>(), [(1, "one")]);
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = (K, Arc<V>)> + use<K, V> {
        let now = self.shared.clock.now();
        let mut found = Vec::new();
        self.shared.engine.for_each(|key, kept| {
            if !kept.is_over(now) {
                found.push((key.clone(), Arc::clone(&kept.value)));
            }
        });
        found.into_iter()
    }
}

impl<K, V> Clone for MemoryCache<K, V> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<K, V> fmt::Debug for MemoryCache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryCache").field("limits", &self.shared.engine.limits()).finish_non_exhaustive()
    }
}

impl<K, V> fmt::Debug for MemoryCacheBuilder<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { options, ttl, .. } = self;
        f.debug_struct("MemoryCacheBuilder")
            .field("options", options)
            .field("ttl", ttl)
            .finish_non_exhaustive()
    }
}

/// What left on one operation, until no lock is held and it can be told of and dropped.
struct Left<K, V> {
    replaced: Option<(K, Kept<V>)>,
    evicted: Vec<(K, Kept<V>)>,
    too_large: Option<(K, Kept<V>)>,
}

impl<K, V> Default for Left<K, V> {
    fn default() -> Self {
        Self { replaced: None, evicted: Vec::new(), too_large: None }
    }
}

#[derive(Clone, Copy)]
struct Measure {
    bytes: u64,
    until: Timestamp,
    is_kept: bool,
}

impl<K: Hash + Eq + Clone, V> Shared<K, V> {
    /// What has to be known of an entry before a lock is taken, because one's own code says it.
    fn measure(&self, key: &K, value: &V, ttl: Ttl) -> Measure {
        let bytes = match &self.weigher {
            Some(weigher) => weigher(key, value),
            None => (size_of::<K>() + size_of::<V>()) as u64,
        };
        let until = match ttl {
            Ttl::Forever => Timestamp::FOREVER,
            ttl => ttl.ends_at(self.clock.now()),
        };
        Measure { bytes, until, is_kept: !ttl.is_zero() }
    }

    fn put(&self, key: K, value: &Arc<V>, measure: Measure, left: &mut Left<K, V>) {
        let Measure { bytes, until, is_kept } = measure;
        if !is_kept {
            return;
        }
        let kept = Kept { value: Arc::clone(value), until };
        let name = key.clone();
        match self.engine.insert_if(key, kept, bytes, &mut left.evicted, |_| true) {
            Put::Stored { replaced } => left.replaced = replaced.map(|kept| (name, kept)),
            Put::TooLarge { key, value, previous } => {
                left.too_large = Some((key, value));
                left.replaced = previous.map(|kept| (name, kept));
            }
            // Nothing is ever refused: the condition is always true.
            Put::Refused => {}
        }
    }

    /// Removes a key if it has expired, and says so.
    #[cold]
    fn expire<Q>(&self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let now = self.clock.now();
        if let Some((key, kept)) = self.engine.remove_if(&Borrowed(key), |kept| kept.is_over(now)) {
            self.tell(&key, &kept.value, EvictionCause::Expired);
        }
    }

    /// Tells of what left. Returns what was replaced, unless it had expired.
    fn report(&self, left: Left<K, V>) -> Option<Arc<V>> {
        for (key, kept) in &left.evicted {
            self.tell(key, &kept.value, EvictionCause::Capacity);
        }
        if let Some((key, kept)) = &left.too_large {
            self.tell(key, &kept.value, EvictionCause::TooLarge);
        }
        let (key, kept) = left.replaced?;
        if kept.until != Timestamp::FOREVER && kept.is_over(self.clock.now()) {
            self.tell(&key, &kept.value, EvictionCause::Expired);
            return None;
        }
        Some(kept.value)
    }

    fn tell(&self, key: &K, value: &V, cause: EvictionCause) {
        if let Some(report) = &self.on_eviction {
            report(key, value, cause);
        }
    }
}

struct Kept<V> {
    value: Arc<V>,
    until: Timestamp,
}

impl<V> Kept<V> {
    fn is_over(&self, now: Timestamp) -> bool {
        self.until != Timestamp::FOREVER && self.until <= now
    }
}

impl<V> Clone for Kept<V> {
    fn clone(&self) -> Self {
        Self { value: Arc::clone(&self.value), until: self.until }
    }
}

/// A key in the form in which it was asked for.
#[derive(Hash)]
struct Borrowed<'q, Q: ?Sized>(&'q Q);

impl<K: Borrow<Q>, Q: Hash + Eq + ?Sized> Lookup<K> for Borrowed<'_, Q> {
    fn names(&self, key: &K) -> bool {
        self.0 == key.borrow()
    }
}
