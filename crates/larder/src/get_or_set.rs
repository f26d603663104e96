//! Get-or-compute as a request: options are added by name, and awaiting it runs it.
//!
//! A hit in memory ends while the request becomes a future, so that nothing is boxed and nothing yields.

use std::any::Any;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::cache::{Cache, typed};
use crate::entry::{AnyValue, Entry};
use crate::error::{BoxError, Error, ErrorKind, Result};
use crate::explain::Fact;
use crate::loaded::{Loaded, Previous};
use crate::options::{EntryOptions, Refresh, TagList};
use crate::stack::{Again, Answer, Asked, BoxLoad, Landed, Loads, Request, Tagging, is_due};
use crate::tag::tags_of;
use crate::time::{Timestamp, Ttl};

/// What can be said about a load before it is awaited.
struct Wish<'a, V> {
    cache: &'a Cache<V>,
    options: EntryOptions,
    tags: TagList<'a>,
    /// Whether to load what is fresh as well.
    force: bool,
}

impl<'a, V> Wish<'a, V> {
    fn new(cache: &'a Cache<V>) -> Self {
        Self { cache, options: EntryOptions::default(), tags: TagList::default(), force: false }
    }

    /// # Errors
    /// [`ErrorKind::InvalidKey`] or [`ErrorKind::TooLarge`] for tags that are unusable or too many.
    fn request(&self, load: Boxed) -> Result<Request> {
        let Boxed { load, tagging } = load;
        let options = self.options.or(&self.cache.door.options);
        let (extras, force) = (self.tags.extras(None, None)?, self.force);
        Ok(Request { options, extras, tagging, force, load })
    }

    /// Finds or loads keys that were missed in memory. Each is counted as a hit or a miss, whatever comes of it.
    async fn load(&self, keys: &[&str], load: Boxed) -> Vec<Result<Landed>> {
        let Cache { core, door, .. } = self.cache;
        match self.request(load) {
            Ok(request) => core.get_or_load(door, keys, request).await,
            Err(error) => {
                let refuse = |key: &&str| {
                    core.emit_miss(&door.space, key);
                    Err(error.clone())
                };
                keys.iter().map(refuse).collect()
            }
        }
    }
}

macro_rules! load_options {
    () => {
        /// How long what is loaded is fresh; zero stores nothing.
        pub fn ttl(mut self, ttl: impl Into<Ttl>) -> Self {
            self.wish.options.ttl = Some(ttl.into());
            self
        }

        /// How long after that it may still be served when its loader fails.
        pub fn grace(mut self, grace: Duration) -> Self {
            self.wish.options.grace = Some(grace);
            self
        }

        /// What it can be invalidated by. A second call adds to the first.
        pub fn tags(mut self, tags: impl IntoIterator<Item = &'a str>) -> Self {
            self.wish.tags.extend(tags);
            self
        }

        /// How long the source is left alone after a failure, while there is a stale entry: see
        /// [`EntryOptions::backoff`].
        pub fn backoff(mut self, backoff: Duration) -> Self {
            self.wish.options.backoff = Some(backoff);
            self
        }

        /// How long to wait before a stale entry will do: see [`EntryOptions::soft_timeout`]. Zero serves it at
        /// once, and loads in the background.
        pub fn soft_timeout(mut self, timeout: Duration) -> Self {
            self.wish.options.soft_timeout = Some(timeout);
            self
        }

        /// How long to wait before giving up; the load goes on: see [`EntryOptions::hard_timeout`].
        pub fn hard_timeout(mut self, timeout: Duration) -> Self {
            self.wish.options.hard_timeout = Some(timeout);
            self
        }

        /// How much of the TTL is left to chance: see [`EntryOptions::jitter`].
        pub fn jitter(mut self, jitter: Duration) -> Self {
            self.wish.options.jitter = Some(jitter);
            self
        }

        /// How its freshness ends: see [`EntryOptions::refresh`].
        pub fn refresh(mut self, refresh: Refresh) -> Self {
            self.wish.options.refresh = Some(refresh);
            self
        }

        /// How long memory serves it before the store is asked again: see [`EntryOptions::memory_ttl`].
        pub fn memory_ttl(mut self, ttl: Duration) -> Self {
            self.wish.options.memory_ttl = Some(ttl);
            self
        }

        /// One load at a time among the processes that share the store: see [`EntryOptions::across_processes`]. It is how
        /// long one that has died keeps the others waiting.
        pub fn across_processes(mut self, lease: Duration) -> Self {
            self.wish.options.across_processes = Some(lease);
            self
        }

        /// Nothing stale, whatever happens: see [`EntryOptions::fresh_only`].
        pub fn fresh_only(mut self) -> Self {
            self.wish.options.fresh_only = Some(true);
            self
        }

        /// Loads it even if it is fresh, and not by way of a load that began before. What is there stays until the load
        /// has succeeded; if the source is left alone after a failure, it is left alone.
        pub fn force(mut self) -> Self {
            self.wish.force = true;
            self
        }

        /// Whether a failing store is treated as a miss: see [`EntryOptions::suppress_l2_errors`].
        pub fn suppress_l2_errors(mut self, suppress: Suppress) -> Self {
            self.wish.options.suppress_l2_errors = Some(suppress == Suppress::Yes);
            self
        }
    };
}

/// Whether the failure of a store is kept from the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suppress {
    /// It counts as a miss, and is reported as an event.
    Yes,
    /// The caller gets it.
    No,
}

/// A value about to be found or loaded: see [`Cache::get_or_set`].
#[must_use = "nothing is looked up until it is awaited"]
pub struct GetOrSet<'a, V, L> {
    wish: Wish<'a, V>,
    key: &'a str,
    load: L,
    fallback: Option<V>,
    ahead: Option<Ahead<L>>,
}

/// How long a key is refreshed ahead after it was asked for last, and how one more of its loader is made.
struct Ahead<L> {
    idle: Duration,
    copy: fn(&L) -> L,
}

impl<'a, V, L: Clone> GetOrSet<'a, V, L> {
    /// Has the key loaded again before it ends, asked for or not, until no call with this option has asked for it for
    /// `idle`: whoever asks finds it fresh, and nobody waits for a load. The loader is run again and again, so it has to
    /// be one that can be cloned; as long as it goes on, it is that of the first call, with that call's options.
    ///
    /// It is renewed a tenth of its life before it ends, or earlier if a load takes long. A load that fails leaves the
    /// entry as it is, and is tried again after the back-off. Up to [`REFRESH_AHEAD_MAX`](crate::REFRESH_AHEAD_MAX) keys of a stack are
    /// refreshed ahead; one more is loaded when it is asked for, and [`Event::AheadFull`](crate::event::Event::AheadFull)
    /// says so.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # use larder::{Stack, memory::MemoryOptions, time::{hours, minutes}};
    /// # let stack = Stack::builder("demo").memory(MemoryOptions::new(1_000)).build()?;
    /// # let cache = stack.cache::<u32>()?;
    /// # async fn rate() -> Result<u32, std::io::Error> { Ok(1) }
    /// let rate = cache.get_or_set("eur", rate).ttl(minutes(1)).refresh_ahead(hours(1)).await?;
    /// assert_eq!((*rate, stack.refreshed_ahead()), (1, 1));
    /// # Ok::<(), larder::Error>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn refresh_ahead(mut self, idle: Duration) -> Self {
        self.ahead = Some(Ahead { idle, copy: L::clone });
        self
    }
}

impl<'a, V, L> GetOrSet<'a, V, L> {
    pub(crate) fn new(cache: &'a Cache<V>, key: &'a str, load: L) -> Self {
        Self { wish: Wish::new(cache), key, load, fallback: None, ahead: None }
    }

    load_options!();

    /// Another load beside one that has taken this long: see [`EntryOptions::replace_after`].
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # use larder::{Stack, memory::MemoryOptions};
    /// # let cache = Stack::builder("demo").memory(MemoryOptions::new(1_000)).build()?.cache::<u32>()?;
    /// let stuck = || std::future::pending::<Result<u32, std::io::Error>>();
    /// let load = || async { Ok::<_, std::io::Error>(2) };
    /// let (first, second) = tokio::join!(
    ///     cache.get_or_set("a", stuck),
    ///     cache.get_or_set("a", load).replace_after(std::time::Duration::from_millis(20)),
    /// );
    /// assert_eq!((*first?, *second?), (2, 2), "both get what came first");
    /// # Ok::<(), larder::Error>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn replace_after(mut self, after: Duration) -> Self {
        self.wish.options.replace_after = Some(after);
        self
    }

    /// What to return if the load fails or takes too long and there is nothing stale either. Memory keeps it
    /// for the back-off, so that the source is left alone for as long.
    pub fn fallback(mut self, value: V) -> Self {
        self.fallback = Some(value);
        self
    }
}

impl<V, L> fmt::Debug for GetOrSet<'_, V, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GetOrSet")
            .field("cache", self.wish.cache)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl<'a, V: Any + Send + Sync, L: Load<V>> IntoFuture for GetOrSet<'a, V, L> {
    type Output = Result<Arc<V>>;
    type IntoFuture = Getting<'a, V>;

    fn into_future(self) -> Getting<'a, V> {
        let Self { wish, key, load, fallback, ahead } = self;
        let cache = wish.cache;
        let looked = match cache.enter(key) {
            Ok(now) => {
                if let Some(ahead) = ahead {
                    keep_ahead(&wish, key, &load, &ahead, now);
                }
                look(&wish, key, load, now)
            }
            Err(error) => Err(Err(error)),
        };
        Getting(match looked {
            Err(found) => State::Ready(Some(found)),
            Ok(load) => State::Loading(Box::pin(async move {
                let mut landed = wish.load(&[key], load.boxed()).await;
                let outcome = typed_landing(landed.pop());
                match (outcome, fallback) {
                    (Err(error), Some(value)) if is_the_sources_fault(&error) => {
                        let value = Arc::new(value);
                        cache.core.note(&cache.door.space, key, || Fact::StoodIn);
                        let options = wish.options.or(&cache.door.options);
                        cache.core.lend(&cache.door, key, Arc::clone(&value) as AnyValue, &options);
                        Ok(value)
                    }
                    (outcome, _) => outcome,
                }
            })),
        })
    }
}

fn is_the_sources_fault(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Load | ErrorKind::Timeout)
}

/// What memory has, or the loader back to be used. A fresh entry that is due is loaded in the background.
fn look<V: Any + Send + Sync, L: Load<V>>(
    wish: &Wish<'_, V>,
    key: &str,
    load: L,
    now: Timestamp,
) -> std::result::Result<L, Result<Arc<V>>> {
    let cache = wish.cache;
    if wish.force {
        return Ok(load);
    }
    let refresh = wish.options.refresh.or(cache.door.options.refresh);
    if matches!(refresh, None | Some(Refresh::OnDemand | Refresh::Sliding { .. })) {
        return cache.look(key, now).map_or(Ok(load), Err);
    }
    let Some((found, meta)) = cache.find(key, now) else { return Ok(load) };
    if is_due(&meta, refresh, now, || cache.core.chance()) {
        // Unusable tags are told to whoever has to wait for the load.
        if let Ok(request) = wish.request(load.boxed()) {
            cache.core.renew(&cache.door, &[(key, meta.stamp)], now, request);
        }
    }
    Err(found)
}

/// Has a key refreshed ahead, with one more of its loader each time.
fn keep_ahead<V: Any + Send + Sync, L: Load<V>>(
    wish: &Wish<'_, V>,
    key: &str,
    load: &L,
    ahead: &Ahead<L>,
    now: Timestamp,
) {
    let Wish { cache, .. } = wish;
    cache.core.refresh_ahead(&cache.door, key, ahead.idle, now, || {
        let options = wish.options.or(&cache.door.options);
        // Unusable tags are told to whoever has to wait for the load.
        let extras = wish.tags.extras(None, None).ok()?;
        let (copy, load) = (ahead.copy, (ahead.copy)(load));
        let again: Again = Box::new(move || {
            let Boxed { load, tagging } = copy(&load).boxed();
            Request { options, extras: extras.clone(), tagging, force: false, load }
        });
        Some(again)
    });
}

/// The future of [`Cache::get_or_set`]. Dropping it takes nothing from others who wait for the same load.
#[must_use = "futures do nothing unless awaited"]
pub struct Getting<'a, V>(State<'a, V>);

enum State<'a, V> {
    Ready(Option<Result<Arc<V>>>),
    Loading(BoxFuture<'a, Result<Arc<V>>>),
}

impl<V> fmt::Debug for Getting<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Getting").finish_non_exhaustive()
    }
}

impl<V> Future for Getting<'_, V> {
    type Output = Result<Arc<V>>;

    fn poll(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Loading(loading) => loading.as_mut().poll(ctx),
            State::Ready(found) => match found.take() {
                Some(found) => Poll::Ready(found),
                // Polled again after it was ready: a mistake of the caller's, answered like any endless wait.
                None => Poll::Pending,
            },
        }
    }
}

/// Several values about to be found or loaded: see [`Cache::get_or_set_many`].
#[must_use = "nothing is looked up until it is awaited"]
pub struct GetOrSetMany<'a, V, K, F> {
    wish: Wish<'a, V>,
    keys: &'a [K],
    load: F,
}

impl<'a, V, K, F> GetOrSetMany<'a, V, K, F> {
    pub(crate) fn new(cache: &'a Cache<V>, keys: &'a [K], load: F) -> Self {
        Self { wish: Wish::new(cache), keys, load }
    }

    load_options!();
}

impl<V, K, F> fmt::Debug for GetOrSetMany<'_, V, K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GetOrSetMany").field("cache", self.wish.cache).finish_non_exhaustive()
    }
}

impl<'a, V, K, F, Fut, I, E> IntoFuture for GetOrSetMany<'a, V, K, F>
where
    V: Any + Send + Sync,
    K: AsRef<str> + Sync,
    F: FnOnce(Vec<String>) -> Fut + Send + 'static,
    Fut: Future<Output = std::result::Result<I, E>> + Send + 'static,
    I: IntoIterator<Item = (String, std::result::Result<V, E>)> + 'static,
    E: Into<BoxError> + 'static,
{
    type Output = Vec<Result<Arc<V>>>;
    type IntoFuture = BoxFuture<'a, Vec<Result<Arc<V>>>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { wish, keys, load } = self;
        Box::pin(async move { find_or_load(&wish, keys, box_many(load)).await })
    }
}

/// The keys that are in memory from there, the others by one load. Where none is missing, those that are due are loaded
/// in the background.
async fn find_or_load<V: Any + Send + Sync, K: AsRef<str>>(
    wish: &Wish<'_, V>,
    keys: &[K],
    load: Boxed,
) -> Vec<Result<Arc<V>>> {
    let cache = wish.cache;
    let options = wish.options.or(&cache.door.options);
    let now = cache.core.check_open().map(|()| cache.core.clock.now());
    let mut found: Vec<Option<Result<Arc<V>>>> = Vec::with_capacity(keys.len());
    let (mut missing, mut due) = (Vec::new(), Vec::new());
    for (index, key) in keys.iter().map(AsRef::as_ref).enumerate() {
        let checked: Result<Timestamp> = cache.door.space.keys.check(key).and(now.clone());
        found.push(match checked {
            Ok(_) if wish.force => None,
            Ok(now) => cache.find(key, now).map(|(value, meta)| {
                if is_due(&meta, options.refresh, now, || cache.core.chance()) {
                    due.push((key, meta.stamp));
                }
                value
            }),
            Err(error) => Some(Err(error)),
        });
        if matches!(found.last(), Some(None)) {
            missing.push((index, key));
        }
    }
    if !missing.is_empty() {
        let names: Vec<&str> = missing.iter().map(|(_, key)| *key).collect();
        let landed = wish.load(&names, load).await;
        for ((index, _), landed) in missing.into_iter().zip(landed) {
            if let Some(slot) = found.get_mut(index) {
                *slot = Some(typed_landing(Some(landed)));
            }
        }
    } else if let (false, Ok(now), Ok(request)) = (due.is_empty(), now, wish.request(load)) {
        cache.core.renew(&cache.door, &due, now, request);
    }
    found.into_iter().map(|value| value.unwrap_or_else(|| typed_landing(None))).collect()
}

fn typed_landing<V: Any + Send + Sync>(landed: Option<Result<Landed>>) -> Result<Arc<V>> {
    match landed {
        Some(landed) => typed(landed?.entry.value),
        None => Err(Error::new(ErrorKind::Load, "the load came to nothing")),
    }
}

/// A loader of one key, in either of its forms.
pub trait Load<V>: Send + 'static {
    /// Without its types.
    #[doc(hidden)]
    fn boxed(self) -> Boxed;
}

/// A loader without its types; nothing that can be used outside.
#[doc(hidden)]
pub struct Boxed {
    pub(crate) load: BoxLoad,
    pub(crate) tagging: Tagging,
}

impl fmt::Debug for Boxed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Boxed")
    }
}

/// A loader that returns a value.
#[derive(Debug, Clone)]
pub struct Plain<F>(pub(crate) F);

/// A loader that is given the previous value, and returns a [`Loaded`].
#[derive(Debug, Clone)]
pub struct Speaking<F>(pub(crate) F);

impl<V, F, Fut, E> Load<V> for Plain<F>
where
    V: Any + Send + Sync,
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = std::result::Result<V, E>> + Send + 'static,
    E: Into<BoxError> + 'static,
{
    fn boxed(self) -> Boxed {
        let Self(load) = self;
        let load = Box::new(move |mut asked: Vec<Asked>| -> BoxFuture<'static, Result<Loads>> {
            Box::pin(async move {
                let key = asked.pop().map(|asked| asked.key).unwrap_or_default();
                let answer = untyped(&key, load().await);
                Ok(vec![(key, answer)])
            })
        });
        Boxed { load, tagging: Tagging::ByCall }
    }
}

impl<V, F, Fut, E> Load<V> for Speaking<F>
where
    V: Any + Send + Sync,
    F: FnOnce(Option<Previous<V>>) -> Fut + Send + 'static,
    Fut: Future<Output = std::result::Result<Loaded<V>, E>> + Send + 'static,
    E: Into<BoxError> + 'static,
{
    fn boxed(self) -> Boxed {
        let Self(load) = self;
        let load = Box::new(move |mut asked: Vec<Asked>| -> BoxFuture<'static, Result<Loads>> {
            Box::pin(async move {
                let Some(Asked { key, previous, now }) = asked.pop() else { return Ok(Vec::new()) };
                let previous = previous.and_then(|previous| previous_of(previous, now));
                let answer = match load(previous).await {
                    Ok(loaded) => answer_of(loaded),
                    Err(error) => Err(failed(&key, error)),
                };
                Ok(vec![(key, answer)])
            })
        });
        Boxed { load, tagging: Tagging::ByLoader }
    }
}

/// The previous value, if it is of the type that is asked for.
fn previous_of<V: Any + Send + Sync>(entry: Entry, now: Timestamp) -> Option<Previous<V>> {
    let Entry { value, meta } = entry;
    let text = |text: &Option<Box<str>>| text.as_deref().map(str::to_owned);
    let extras = meta.extras.as_deref();
    Some(Previous {
        value: typed(value).ok()?,
        age: meta.age(now),
        etag: extras.and_then(|extras| text(&extras.etag)),
        last_modified: extras.and_then(|extras| text(&extras.last_modified)),
    })
}

/// # Errors
/// [`ErrorKind::InvalidKey`] or [`ErrorKind::TooLarge`] for tags that are unusable or too many.
pub(crate) fn answer_of<V: Any + Send + Sync>(loaded: Loaded<V>) -> Result<Answer> {
    let Loaded { value, ttl, grace, tags, etag, last_modified } = loaded;
    Ok(Answer {
        value: value.map(|value| Arc::new(value) as AnyValue),
        ttl,
        grace,
        tags: tags.map(|tags| tags_of(tags.iter().map(String::as_str))).transpose()?,
        etag: etag.map(Into::into),
        last_modified: last_modified.map(Into::into),
    })
}

fn box_many<V, F, Fut, I, E>(load: F) -> Boxed
where
    V: Any + Send + Sync,
    F: FnOnce(Vec<String>) -> Fut + Send + 'static,
    Fut: Future<Output = std::result::Result<I, E>> + Send + 'static,
    I: IntoIterator<Item = (String, std::result::Result<V, E>)> + 'static,
    E: Into<BoxError> + 'static,
{
    let load = Box::new(move |asked: Vec<Asked>| -> BoxFuture<'static, Result<Loads>> {
        Box::pin(async move {
            let keys: Vec<String> = asked.into_iter().map(|asked| asked.key).collect();
            let count = keys.len();
            let loads: Loads = match load(keys).await {
                Ok(loads) => loads
                    .into_iter()
                    .map(|(key, value)| {
                        let value = untyped(&key, value);
                        (key, value)
                    })
                    .collect(),
                Err(error) => {
                    return Err(Error::from_source(
                        ErrorKind::Load,
                        format!("loader of {count} keys"),
                        error,
                    ));
                }
            };
            Ok(loads)
        })
    });
    Boxed { load, tagging: Tagging::ByCall }
}

fn untyped<V: Any + Send + Sync, E: Into<BoxError>>(
    key: &str,
    loaded: std::result::Result<V, E>,
) -> Result<Answer> {
    match loaded {
        Ok(value) => Ok(Answer::plain(Arc::new(value))),
        Err(error) => Err(failed(key, error)),
    }
}

pub(crate) fn failed<E: Into<BoxError>>(key: &str, error: E) -> Error {
    Error::from_source(ErrorKind::Load, format!("loader of key {key:?}"), error)
}
