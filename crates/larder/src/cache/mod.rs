//! `Cache<V>`: the typed door to a stack. The only generic room on the way of a value.

mod request;
mod update;
mod weigh;

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;

use crate::codec::{AnyCodec, type_mismatch};
use crate::counter::Counter;
use crate::entry::{AnyValue, Entry, Freshness, Meta};
use crate::error::{BoxError, Error, ErrorKind, Result};
use crate::event::Tier;
use crate::get_or_set::{GetOrSet, GetOrSetMany, Plain, Speaking};
use crate::loaded::{Loaded, Nothing, Previous};
use crate::options::EntryOptions;
use crate::stack::{Accept, Core, Door, Serving};
use crate::tag::Tag;
use crate::time::{Stamp, Timestamp, Ttl};

use weigh::default_weigh;

pub use request::{Add, Clear, Increment, Invalidate, Set, SetMany};
pub use update::{Present, Updated};

/// A typed handle to a stack: `get`, `set`, `get_or_set` and the rest, for values of one type.
///
/// It is cheap to clone. Handles of one stack, namespaces included, share entries, loads, counts and
/// connections. Values come back as `Arc<V>`: a hit in memory costs no copy, no allocation and no wait.
///
/// Lookups see fresh entries only. Operations fail with [`ErrorKind::InvalidKey`] for keys that are too long
/// ([`KEY_BYTES_MAX`](crate::key::KEY_BYTES_MAX)), with [`ErrorKind::Closed`] after the stack was closed, with
/// [`ErrorKind::Unavailable`] or [`ErrorKind::Timeout`] if the store fails (lookups and loads only if
/// [`EntryOptions::suppress_l2_errors`] says so), and as each method says. A future that is dropped before it is
/// ready leaves a write done or not done, and memory and store in agreement.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use larder::{Stack, memory::MemoryOptions, time::minutes};
///
/// let cache = Stack::builder("demo").memory(MemoryOptions::new(1_000)).build()?.cache::<u32>()?;
/// let load = || async { Ok::<_, std::io::Error>(42) };
/// assert_eq!(*cache.get_or_set("answer", load).ttl(minutes(5)).await?, 42);
/// assert_eq!(cache.get("answer").await?.as_deref(), Some(&42));
/// # Ok::<(), larder::Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Cache<V> {
    pub(crate) core: Arc<Core>,
    pub(crate) door: Arc<Door>,
    value: PhantomData<fn() -> V>,
}

impl<V> Clone for Cache<V> {
    fn clone(&self) -> Self {
        Self { core: Arc::clone(&self.core), door: Arc::clone(&self.door), value: PhantomData }
    }
}

impl<V> fmt::Debug for Cache<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("stack", &self.core.name)
            .field("namespace", &self.door.space.keys.path())
            .field("value", &std::any::type_name::<V>())
            .finish_non_exhaustive()
    }
}

/// What is known about an entry: see [`Cache::entry`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CachedEntry<V> {
    /// The value.
    pub value: Arc<V>,
    /// Fresh, or stale and within its grace.
    pub state: Freshness,
    /// Which tier holds it.
    pub tier: Tier,
    /// How long ago it was set, or its load began.
    pub age: Duration,
    /// How much longer it is fresh; `None` is forever.
    pub ttl_left: Option<Duration>,
    /// How much longer it may be served at all; `None` is forever.
    pub life_left: Option<Duration>,
    /// Its tags, sorted.
    pub tags: Vec<Tag>,
    /// The validator of its source, if it has one.
    pub etag: Option<String>,
    /// When its source says that it was modified, if it does.
    pub last_modified: Option<String>,
    /// What orders it among writes.
    pub stamp: Stamp,
}

impl<V: Any + Send + Sync> Cache<V> {
    pub(crate) fn new(core: Arc<Core>, codec: Option<Arc<dyn AnyCodec>>) -> Self {
        let weigh = default_weigh::<V>(core.weighs, codec.clone());
        let door = Door {
            space: Arc::clone(core.spaces.root()),
            codec,
            schema: 0,
            options: core.options,
            weigh,
            has_weigher: false,
        };
        Self { core, door: Arc::new(door), value: PhantomData }
    }

    fn with_door(mut self, change: impl FnOnce(&mut Door)) -> Self {
        let door = &*self.door;
        let mut changed = Door {
            space: Arc::clone(&door.space),
            codec: door.codec.clone(),
            schema: door.schema,
            options: door.options,
            weigh: Arc::clone(&door.weigh),
            has_weigher: door.has_weigher,
        };
        change(&mut changed);
        self.door = Arc::new(changed);
        self
    }

    /// This handle with options of its own over the stack's.
    #[must_use]
    pub fn with_options(self, options: EntryOptions) -> Self {
        self.with_door(|door| door.options = options.or(&door.options))
    }

    /// This handle with a schema number. Entries that were stored with another one are misses: count it up
    /// when the type changes so that old values would decode into nonsense.
    #[must_use]
    pub fn with_schema(self, schema: u8) -> Self {
        self.with_door(|door| door.schema = schema)
    }

    /// This handle with a measure of its values' size in memory, in bytes. Without one, text and bytes count
    /// with their length, and others with that of their encoded form (if the memory tier is bounded by bytes)
    /// or of their type.
    #[must_use]
    pub fn with_weigher(self, weigh: impl Fn(&V) -> usize + Send + Sync + 'static) -> Self {
        self.with_door(|door| {
            door.weigh = Arc::new(move |value| value.downcast_ref::<V>().map_or(0, &weigh));
            door.has_weigher = true;
        })
    }

    /// A handle to a namespace inside this one: its keys are its own, and so is its clear.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidKey`] if the name is empty or the path too long.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # use larder::{Stack, memory::MemoryOptions};
    /// # let cache = Stack::builder("demo").memory(MemoryOptions::new(1_000)).build()?.cache::<u32>()?;
    /// let users = cache.namespace("users")?;
    /// users.set("1", 7).await?;
    /// cache.set("1", 8).await?;
    /// users.clear().await?;
    /// assert!(!users.has("1").await? && cache.has("1").await?);
    /// # Ok::<(), larder::Error>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn namespace(&self, name: &str) -> Result<Self> {
        let space = self.core.spaces.child(&self.door.space, name)?;
        Ok(self.clone().with_door(|door| door.space = space))
    }

    /// What every operation begins with.
    #[inline]
    pub(crate) fn enter(&self, key: &str) -> Result<Timestamp> {
        self.core.check_open()?;
        self.door.space.keys.check(key)?;
        Ok(self.core.clock.now())
    }

    /// A fresh value in memory, counted as a hit if it has the right type.
    #[inline]
    pub(crate) fn look(&self, key: &str, now: Timestamp) -> Option<Result<Arc<V>>> {
        let space = &*self.door.space;
        if !self.core.is_listened_to() {
            match self.core.serve(space, key, now) {
                Serving::Value(value) => {
                    let value = typed(value);
                    match &value {
                        Ok(_) => self.core.count_fresh_l1_hit(),
                        Err(_) => self.core.emit_miss(space, key),
                    }
                    return Some(value);
                }
                Serving::Nothing => return None,
                Serving::Unfit => {}
            }
        }
        self.find(key, now).map(|(value, _)| value)
    }

    /// As [`Cache::look`], with what is known about it. One that slides is renewed.
    #[inline]
    pub(crate) fn find(&self, key: &str, now: Timestamp) -> Option<(Result<Arc<V>>, Meta)> {
        let (entry, Freshness::Fresh) = self.core.probe(&self.door.space, key, now)? else { return None };
        let value = typed(entry.value);
        match &value {
            Ok(_) => self.core.emit_fresh_l1_hit(&self.door.space, key),
            Err(_) => self.core.emit_miss(&self.door.space, key),
        }
        self.core.slide(&self.door, key, &entry.meta, now);
        Some((value, entry.meta))
    }

    /// The fresh value of a key, from memory or the store; one from the store is kept in memory.
    ///
    /// A hit in memory does not yield and does not allocate.
    ///
    /// # Errors
    /// [`ErrorKind::TypeMismatch`] if memory holds a value of another type.
    pub async fn get(&self, key: &str) -> Result<Option<Arc<V>>> {
        let now = self.enter(key)?;
        if let Some(found) = self.look(key, now) {
            return found.map(Some);
        }
        if self.core.l2.is_none() {
            self.core.emit_miss(&self.door.space, key);
            return Ok(None);
        }
        // Boxed, so that the future of a hit stays small.
        let found = Box::pin(self.core.get(&self.door, key, Accept::Fresh, now)).await?;
        found.map(typed).transpose()
    }

    /// The value of a key, be it stale: a fresh one from memory or the store, or else one within its grace,
    /// where the store's comes before memory's. A failing store does not matter where memory has one.
    ///
    /// # Errors
    /// As [`Cache::get`].
    pub async fn get_stale(&self, key: &str) -> Result<Option<Arc<V>>> {
        let now = self.enter(key)?;
        if let Some(found) = self.look(key, now) {
            return found.map(Some);
        }
        let found = self.core.get(&self.door, key, Accept::Stale, now).await?;
        found.map(typed).transpose()
    }

    /// The fresh values of several keys, in their order: one pass over memory, one batch to the store.
    ///
    /// # Errors
    /// As [`Cache::get`]; one failure fails the call.
    pub async fn get_many<K: AsRef<str>>(&self, keys: &[K]) -> Result<Vec<Option<Arc<V>>>> {
        let keys: Vec<&str> = keys.iter().map(AsRef::as_ref).collect();
        let now = self.enter_many(&keys)?;
        let found = self.core.get_many(&self.door, &keys, now).await?;
        found.into_iter().map(|value| value.map(typed).transpose()).collect()
    }

    pub(crate) fn enter_many(&self, keys: &[&str]) -> Result<Timestamp> {
        for key in keys {
            self.door.space.keys.check(key)?;
        }
        self.core.check_open()?;
        Ok(self.core.clock.now())
    }

    /// The value of a key, or what `load` returns, which is then stored. Options can be added before the
    /// `.await`.
    ///
    /// However many callers miss one key at once, it is loaded once, in a task of its own: a caller that is
    /// dropped takes nothing from the others. A failure is shared by those who waited; the next caller loads
    /// again. If a stale value is left and its grace lasts, that is returned in place of the failure. A write or
    /// delete of the key during the load wins: those who waited get the loaded value, and it is not kept.
    ///
    /// # Errors
    /// [`ErrorKind::Load`] with the loader's own error inside ([`Error::load_error`]), also if it panics;
    /// [`ErrorKind::Recursion`] if the loader asks for its own key, directly or through other loaders;
    /// [`ErrorKind::Overloaded`] if too many keys are loading; [`ErrorKind::Unsupported`] outside a tokio runtime.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # use larder::{Stack, memory::MemoryOptions, time::{hours, minutes}};
    /// # let cache = Stack::builder("demo").memory(MemoryOptions::new(1_000)).build()?.cache::<String>()?;
    /// # async fn greet(id: u32) -> Result<String, std::io::Error> { Ok(format!("hello {id}")) }
    /// let id = 7;
    /// let greeting = cache
    ///     .get_or_set("greeting:7", move || greet(id))
    ///     .ttl(minutes(5))
    ///     .grace(hours(6))
    ///     .tags(["greetings"])
    ///     .await?;
    /// assert_eq!(*greeting, "hello 7");
    /// # Ok::<(), larder::Error>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_or_set<'a, F, Fut, E>(&'a self, key: &'a str, load: F) -> GetOrSet<'a, V, Plain<F>>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = std::result::Result<V, E>> + Send + 'static,
        E: Into<BoxError> + 'static,
    {
        GetOrSet::new(self, key, Plain(load))
    }

    /// As [`Cache::get_or_set`], for a loader with more to say: it is given the previous value, stale or about to
    /// be renewed, with its validators, and returns a [`Loaded`]: a value with a TTL, grace or tags of its own, a
    /// value not to be kept, "nothing there" with a TTL of its own, or "unchanged".
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # use larder::{Loaded, Previous, Stack, memory::MemoryOptions, time::{hours, minutes}};
    /// # let cache = Stack::builder("demo").memory(MemoryOptions::new(1_000)).build()?.cache::<String>()?;
    /// # async fn fetch(etag: Option<String>) -> Result<Option<(String, String)>, std::io::Error> {
    /// #     Ok(if etag.is_some() { None } else { Some(("body".into(), "v1".into())) })
    /// # }
    /// // Asks the source for the page, or whether the one that is there is still right.
    /// let load = |previous: Option<Previous<String>>| async move {
    ///     let etag = previous.and_then(|previous| previous.etag);
    ///     Ok::<_, std::io::Error>(match fetch(etag).await? {
    ///         Some((body, etag)) => Loaded::new(body).etag(etag).ttl(minutes(1)),
    ///         None => Loaded::unchanged(),
    ///     })
    /// };
    /// let page = cache.get_or_set_with("page", load).grace(hours(1)).await?;
    /// cache.expire("page").await?;
    /// let same = cache.get_or_set_with("page", load).grace(hours(1)).await?;
    /// assert!(std::sync::Arc::ptr_eq(&page, &same), "the very value that was there");
    /// # Ok::<(), larder::Error>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_or_set_with<'a, F, Fut, E>(&'a self, key: &'a str, load: F) -> GetOrSet<'a, V, Speaking<F>>
    where
        F: FnOnce(Option<Previous<V>>) -> Fut + Send + 'static,
        Fut: Future<Output = std::result::Result<Loaded<V>, E>> + Send + 'static,
        E: Into<BoxError> + 'static,
    {
        GetOrSet::new(self, key, Speaking(load))
    }

    /// The values of several keys; `load` is given those that are missing and returns what it has for them.
    ///
    /// One batch per tier, one load per key whoever asks. Each key has its own result: what the loader leaves
    /// out or returns as an error fails that key alone.
    ///
    /// # Errors
    /// Per key, as [`Cache::get_or_set`].
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # use larder::{Stack, memory::MemoryOptions};
    /// # let cache = Stack::builder("demo").memory(MemoryOptions::new(1_000)).build()?.cache::<usize>()?;
    /// cache.set("a", 100).await?;
    /// let found = cache
    ///     .get_or_set_many(&["a", "bb", "ccc"], |missing: Vec<String>| async move {
    ///         assert_eq!(missing, ["bb", "ccc"]);
    ///         Ok::<_, std::io::Error>(missing.into_iter().map(|key| { let n = key.len(); (key, Ok(n)) }))
    ///     })
    ///     .await;
    /// let found: Vec<usize> = found.into_iter().map(|value| value.map(|n| *n)).collect::<Result<_, _>>()?;
    /// assert_eq!(found, [100, 2, 3]);
    /// # Ok::<(), larder::Error>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_or_set_many<'a, K, F, Fut, I, E>(&'a self, keys: &'a [K], load: F) -> GetOrSetMany<'a, V, K, F>
    where
        K: AsRef<str> + Sync,
        F: FnOnce(Vec<String>) -> Fut + Send + 'static,
        Fut: Future<Output = std::result::Result<I, E>> + Send + 'static,
        I: IntoIterator<Item = (String, std::result::Result<V, E>)> + 'static,
        E: Into<BoxError> + 'static,
    {
        GetOrSetMany::new(self, keys, load)
    }

    /// Stores a value, in the store first and then in memory. Options can be added before the `.await`.
    ///
    /// With a TTL of zero nothing is stored, and what was there is deleted.
    ///
    /// # Errors
    /// [`ErrorKind::Encode`] or [`ErrorKind::TooLarge`] before anything has changed. If the store fails, memory
    /// has the new value all the same.
    pub fn set<'a>(&'a self, key: &'a str, value: V) -> Set<'a, V> {
        Set::new(self, key, value)
    }

    /// Stores a value if the key has no fresh one: of several callers, in whatever process, one succeeds.
    /// True if it was stored.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # use larder::{Stack, memory::MemoryOptions};
    /// # let cache = Stack::builder("demo").memory(MemoryOptions::new(1_000)).build()?.cache::<u32>()?;
    /// assert!(cache.add("lock", 1).await? && !cache.add("lock", 2).await?);
    /// # Ok::<(), larder::Error>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn add<'a>(&'a self, key: &'a str, value: V) -> Add<'a, V> {
        Add::new(self, key, value)
    }

    /// Stores several values in one batch.
    ///
    /// # Errors
    /// As [`Cache::set`]. One failure fails the call; others may have been stored.
    pub fn set_many<K: Into<String>>(&self, values: impl IntoIterator<Item = (K, V)>) -> SetMany<'_, V> {
        SetMany::new(self, values)
    }

    /// Whether the key has a fresh value. Not counted as a lookup.
    pub async fn has(&self, key: &str) -> Result<bool> {
        let now = self.enter(key)?;
        self.core.has(&self.door, key, now).await
    }

    /// The value of a key with all that is known about it, be it stale. Not counted as a lookup.
    ///
    /// # Errors
    /// [`ErrorKind::TypeMismatch`] if memory holds a value of another type.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # use larder::{Stack, memory::MemoryOptions, entry::Freshness, time::{minutes, hours}};
    /// # let cache = Stack::builder("demo").memory(MemoryOptions::new(1_000)).build()?.cache::<u32>()?;
    /// cache.set("a", 1).ttl(minutes(5)).grace(hours(1)).await?;
    /// cache.expire("a").await?;
    /// let entry = cache.entry("a").await?.expect("its grace is left");
    /// assert_eq!((*entry.value, entry.state), (1, Freshness::Stale));
    /// # Ok::<(), larder::Error>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn entry(&self, key: &str) -> Result<Option<CachedEntry<V>>> {
        let now = self.enter(key)?;
        let Some((entry, state, tier)) = self.core.inspect(&self.door, key, now).await? else {
            return Ok(None);
        };
        let Entry { value, meta } = entry;
        let until = |end: Timestamp| (end != Timestamp::FOREVER).then(|| end.since(now));
        Ok(Some(CachedEntry {
            value: typed(value)?,
            state,
            tier,
            age: meta.age(now),
            ttl_left: until(meta.fresh_until),
            life_left: until(meta.stale_until),
            tags: meta.tags().to_vec(),
            etag: meta.extras.as_ref().and_then(|extras| extras.etag.as_deref().map(str::to_owned)),
            last_modified: meta.extras.as_ref().and_then(|e| e.last_modified.as_deref().map(str::to_owned)),
            stamp: meta.stamp,
        }))
    }

    /// Takes the fresh value of a key out: of several callers, in whatever process, one gets it.
    ///
    /// # Errors
    /// [`ErrorKind::TypeMismatch`] if memory holds a value of another type, [`ErrorKind::Decode`] if the store
    /// does; it stays where it is.
    pub async fn pull(&self, key: &str) -> Result<Option<Arc<V>>> {
        let now = self.enter(key)?;
        let check = |value: &AnyValue| typed::<V>(Arc::clone(value)).map(drop);
        self.core.pull(&self.door, key, now, check).await?.map(typed).transpose()
    }

    /// Gives the fresh entry of a key a new TTL, counted from now. True if there was one.
    pub async fn touch(&self, key: &str, ttl: impl Into<Ttl>) -> Result<bool> {
        let now = self.enter(key)?;
        self.core.touch(&self.door, key, ttl.into(), now).await
    }

    /// Makes the entry of a key stale now: only its grace is left, and the next `get_or_set` loads it again.
    /// True if there was one.
    pub async fn expire(&self, key: &str) -> Result<bool> {
        let now = self.enter(key)?;
        self.core.expire(&self.door, key, now).await
    }

    /// Removes the entry of a key. True if there was one.
    ///
    /// When it returns, no lookup that starts later in this process gets a value whose load began before.
    pub async fn delete(&self, key: &str) -> Result<bool> {
        let now = self.enter(key)?;
        self.core.delete(&self.door, key, now).await
    }

    /// Removes the entries of several keys in one batch. Returns how many there were.
    pub async fn delete_many<K: AsRef<str>>(&self, keys: &[K]) -> Result<u64> {
        let keys: Vec<&str> = keys.iter().map(AsRef::as_ref).collect();
        let now = self.enter_many(&keys)?;
        self.core.delete_many(&self.door, &keys, now).await
    }

    /// Removes all entries of this namespace and of those inside it, and nothing else. It holds as soon as one
    /// mark is stored; then the space is reclaimed, where the store can list keys. Returns how many entries the
    /// store gave back. `.soft()` before the `.await` makes them stale in place of removing them.
    ///
    /// There is no deadline on the reclaiming. Dropping the future then leaves the clear in force.
    pub fn clear(&self) -> Clear<'_, V> {
        Clear::new(self)
    }

    /// Removes the entries of this namespace, and of those inside it, that carry one of these tags: when it
    /// returns, no lookup that starts later in this process gets one whose load began before. What is stored
    /// afterwards lives. `.soft()` before the `.await` makes them stale in place of removing them.
    ///
    /// It costs one write a tag and one more, however many entries there are.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidKey`] for a tag that is empty or too long.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # use larder::{Stack, memory::MemoryOptions};
    /// # let cache = Stack::builder("demo").memory(MemoryOptions::new(1_000)).build()?.cache::<u32>()?;
    /// cache.set("ada", 1).tags(["users", "admins"]).await?;
    /// cache.set("bob", 2).tags(["users"]).await?;
    /// cache.invalidate(["admins"]).await?;
    /// assert!(!cache.has("ada").await? && cache.has("bob").await?);
    /// # Ok::<(), larder::Error>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn invalidate<'a>(&'a self, tags: impl IntoIterator<Item = &'a str>) -> Invalidate<'a, V> {
        Invalidate::new(self, tags)
    }

    /// The keys of this namespace that have an entry, stale ones included, in no particular order; those of
    /// namespaces inside it are not among them.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] as the first item if the store cannot list keys.
    pub fn keys(&self) -> BoxStream<'_, Result<String>> {
        match self.enter("") {
            Ok(_) => self.core.keys(&self.door),
            Err(error) => futures_util::stream::once(async { Err(error) }).boxed(),
        }
    }
}

impl<V: Counter> Cache<V> {
    /// Adds to the number of a key, atomically in whatever process, and returns the sum. A missing one counts
    /// from zero; its options can be added before the `.await`. One that is there keeps its TTL.
    ///
    /// # Errors
    /// [`ErrorKind::Counter`] if the sum does not fit the type (nothing has changed then), or if
    /// [`Increment::existing`] was asked for and there is none; [`ErrorKind::Decode`] if there is something that
    /// is not such a number.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # use larder::{Stack, memory::MemoryOptions, time::hours};
    /// # let cache = Stack::builder("demo").memory(MemoryOptions::new(1_000)).build()?.cache::<u64>()?;
    /// assert_eq!(cache.increment("visits", 2).ttl(hours(24)).await?, 2);
    /// assert_eq!(cache.decrement("visits", 1).await?, 1);
    /// assert!(cache.decrement("visits", 5).await.is_err(), "u64 does not go below zero");
    /// # Ok::<(), larder::Error>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn increment<'a>(&'a self, key: &'a str, by: i64) -> Increment<'a, V> {
        Increment::new(self, key, i128::from(by))
    }

    /// Subtracts from the number of a key: see [`Cache::increment`].
    pub fn decrement<'a>(&'a self, key: &'a str, by: i64) -> Increment<'a, V> {
        Increment::new(self, key, -i128::from(by))
    }
}

/// The value as what its handle says it is.
#[inline]
pub(crate) fn typed<V: Any + Send + Sync>(value: AnyValue) -> Result<Arc<V>> {
    value.downcast::<V>().map_err(|value| {
        if value.is::<Nothing>() {
            return Error::from_source(ErrorKind::Load, "the load found nothing to return", Nothing);
        }
        type_mismatch::<V>()
    })
}
