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
use crate::entry::AnyValue;
use crate::error::{BoxError, Error, ErrorKind, Result};
use crate::options::{EntryOptions, TagList};
use crate::stack::{BoxLoad, Landed, Loads, Request};
use crate::time::{Timestamp, Ttl};

/// What can be said about a load before it is awaited.
struct Wish<'a, V> {
    cache: &'a Cache<V>,
    options: EntryOptions,
    tags: TagList<'a>,
}

impl<'a, V> Wish<'a, V> {
    fn new(cache: &'a Cache<V>) -> Self {
        Self { cache, options: EntryOptions::default(), tags: TagList::default() }
    }

    /// Finds or loads keys that were missed in memory. Each is counted as a hit or a miss, whatever comes of it.
    async fn load(&self, keys: &[&str], load: BoxLoad) -> Vec<Result<Landed>> {
        let Cache { core, door, .. } = self.cache;
        let options = self.options.or(&door.options);
        match self.tags.extras(None, None) {
            Ok(extras) => core.get_or_load(door, keys, Request { options, extras, load }).await,
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
pub struct GetOrSet<'a, V, F> {
    wish: Wish<'a, V>,
    key: &'a str,
    load: F,
}

impl<'a, V, F> GetOrSet<'a, V, F> {
    pub(crate) fn new(cache: &'a Cache<V>, key: &'a str, load: F) -> Self {
        Self { wish: Wish::new(cache), key, load }
    }

    load_options!();
}

impl<V, F> fmt::Debug for GetOrSet<'_, V, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GetOrSet")
            .field("cache", self.wish.cache)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl<'a, V, F, Fut, E> IntoFuture for GetOrSet<'a, V, F>
where
    V: Any + Send + Sync,
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = std::result::Result<V, E>> + Send + 'static,
    E: Into<BoxError> + 'static,
{
    type Output = Result<Arc<V>>;
    type IntoFuture = Getting<'a, V>;

    fn into_future(self) -> Getting<'a, V> {
        let Self { wish, key, load } = self;
        let cache = wish.cache;
        let found = match cache.enter(key) {
            Ok(now) => cache.look(key, now),
            Err(error) => Some(Err(error)),
        };
        Getting(match found {
            Some(found) => State::Ready(Some(found)),
            None => State::Loading(Box::pin(async move {
                let mut landed = wish.load(&[key], box_one(load)).await;
                typed_landing(landed.pop())
            })),
        })
    }
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

/// The keys that are in memory from there, the others by one load.
async fn find_or_load<V: Any + Send + Sync, K: AsRef<str>>(
    wish: &Wish<'_, V>,
    keys: &[K],
    load: BoxLoad,
) -> Vec<Result<Arc<V>>> {
    let cache = wish.cache;
    let now = cache.core.check_open().map(|()| cache.core.clock.now());
    let mut found: Vec<Option<Result<Arc<V>>>> = Vec::with_capacity(keys.len());
    let mut missing = Vec::new();
    for (index, key) in keys.iter().map(AsRef::as_ref).enumerate() {
        let checked: Result<Timestamp> = cache.door.space.keys.check(key).and(now.clone());
        found.push(match checked {
            Ok(now) => cache.look(key, now),
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
    }
    found.into_iter().map(|value| value.unwrap_or_else(|| typed_landing(None))).collect()
}

fn typed_landing<V: Any + Send + Sync>(landed: Option<Result<Landed>>) -> Result<Arc<V>> {
    match landed {
        Some(landed) => typed(landed?.entry.value),
        None => Err(Error::new(ErrorKind::Load, "the load came to nothing")),
    }
}

fn box_one<V, F, Fut, E>(load: F) -> BoxLoad
where
    V: Any + Send + Sync,
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = std::result::Result<V, E>> + Send + 'static,
    E: Into<BoxError> + 'static,
{
    Box::new(move |mut keys: Vec<String>| {
        Box::pin(async move {
            let key = keys.pop().unwrap_or_default();
            let value = untyped(&key, load().await);
            Ok(vec![(key, value)])
        })
    })
}

fn box_many<V, F, Fut, I, E>(load: F) -> BoxLoad
where
    V: Any + Send + Sync,
    F: FnOnce(Vec<String>) -> Fut + Send + 'static,
    Fut: Future<Output = std::result::Result<I, E>> + Send + 'static,
    I: IntoIterator<Item = (String, std::result::Result<V, E>)> + 'static,
    E: Into<BoxError> + 'static,
{
    Box::new(move |keys: Vec<String>| {
        Box::pin(async move {
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
    })
}

fn untyped<V: Any + Send + Sync, E: Into<BoxError>>(
    key: &str,
    loaded: std::result::Result<V, E>,
) -> Result<AnyValue> {
    match loaded {
        Ok(value) => Ok(Arc::new(value)),
        Err(error) => Err(Error::from_source(ErrorKind::Load, format!("loader of key {key:?}"), error)),
    }
}
