//! Writes as requests: options are added by name, and awaiting one runs it.

use std::any::Any;
use std::fmt;
use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::{Cache, typed};
use crate::counter::Counter;
use crate::entry::{Entry, Freshness, Meta};
use crate::error::{Error, ErrorKind, Result};
use crate::options::{EntryOptions, TagList};
use crate::stack::{Change, Found, Hardness, NewValue, slid};
use crate::time::{Stamp, Ttl};

/// What can be said about a write before it is awaited.
struct Write<'a, V> {
    cache: &'a Cache<V>,
    options: EntryOptions,
    tags: TagList<'a>,
    etag: Option<&'a str>,
    last_modified: Option<&'a str>,
}

impl<'a, V> Write<'a, V> {
    fn new(cache: &'a Cache<V>) -> Self {
        Self {
            cache,
            options: EntryOptions::default(),
            tags: TagList::default(),
            etag: None,
            last_modified: None,
        }
    }
}

impl<V: Any + Send + Sync> Write<'_, V> {
    fn new_value(&self, value: Arc<V>) -> Result<NewValue> {
        let options = self.options.or(&self.cache.door.options);
        Ok(NewValue { value, options, extras: self.tags.extras(self.etag, self.last_modified)? })
    }
}

impl<V> fmt::Debug for Write<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Write")
            .field("cache", self.cache)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// The options that every kind of write takes.
macro_rules! write_options {
    ($request:ident) => {
        impl<'a, V> $request<'a, V> {
            /// How long the entry is fresh; zero stores nothing.
            pub fn ttl(mut self, ttl: impl Into<Ttl>) -> Self {
                self.write.options.ttl = Some(ttl.into());
                self
            }

            /// How long after that it may still be served when its loader fails.
            pub fn grace(mut self, grace: Duration) -> Self {
                self.write.options.grace = Some(grace);
                self
            }

            /// What it can be invalidated by. A second call adds to the first.
            pub fn tags(mut self, tags: impl IntoIterator<Item = &'a str>) -> Self {
                self.write.tags.extend(tags);
                self
            }

            /// The validator of its source.
            pub fn etag(mut self, etag: &'a str) -> Self {
                self.write.etag = Some(etag);
                self
            }

            /// When its source says that it was modified.
            pub fn last_modified(mut self, last_modified: &'a str) -> Self {
                self.write.last_modified = Some(last_modified);
                self
            }
        }
    };
}

/// A value about to be stored: see [`Cache::set`].
#[derive(Debug)]
#[must_use = "nothing is stored until it is awaited"]
pub struct Set<'a, V> {
    write: Write<'a, V>,
    key: &'a str,
    value: Arc<V>,
}
write_options!(Set);

impl<'a, V> Set<'a, V> {
    pub(super) fn new(cache: &'a Cache<V>, key: &'a str, value: V) -> Self {
        Self { write: Write::new(cache), key, value: Arc::new(value) }
    }
}

impl<'a, V: Any + Send + Sync> Set<'a, V> {
    /// Checks it, without storing anything: its key, its value, and what is to be stored.
    pub(crate) fn prepare(self) -> Result<(&'a str, Arc<V>, NewValue)> {
        let value = Arc::clone(&self.value);
        Ok((self.key, value, self.write.new_value(self.value)?))
    }
}

impl<'a, V: Any + Send + Sync> IntoFuture for Set<'a, V> {
    type Output = Result<()>;
    type IntoFuture = BoxFuture<'a, Result<()>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let cache = self.write.cache;
            let now = cache.enter(self.key)?;
            let new = self.write.new_value(self.value)?;
            cache.core.set(&cache.door, self.key, new, now).await
        })
    }
}

/// A value about to be stored where there is none: see [`Cache::add`].
#[derive(Debug)]
#[must_use = "nothing is stored until it is awaited"]
pub struct Add<'a, V> {
    write: Write<'a, V>,
    key: &'a str,
    value: Arc<V>,
}
write_options!(Add);

impl<'a, V> Add<'a, V> {
    pub(super) fn new(cache: &'a Cache<V>, key: &'a str, value: V) -> Self {
        Self { write: Write::new(cache), key, value: Arc::new(value) }
    }
}

impl<'a, V: Any + Send + Sync> IntoFuture for Add<'a, V> {
    type Output = Result<bool>;
    type IntoFuture = BoxFuture<'a, Result<bool>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let cache = self.write.cache;
            let now = cache.enter(self.key)?;
            let new = self.write.new_value(self.value)?;
            cache.core.add(&cache.door, self.key, new, now).await
        })
    }
}

/// Several values about to be stored: see [`Cache::set_many`].
#[derive(Debug)]
#[must_use = "nothing is stored until it is awaited"]
pub struct SetMany<'a, V> {
    write: Write<'a, V>,
    values: Vec<(String, Arc<V>)>,
}
write_options!(SetMany);

impl<'a, V> SetMany<'a, V> {
    pub(super) fn new<K: Into<String>>(
        cache: &'a Cache<V>,
        values: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let values = values.into_iter().map(|(key, value)| (key.into(), Arc::new(value))).collect();
        Self { write: Write::new(cache), values }
    }
}

impl<'a, V: Any + Send + Sync> IntoFuture for SetMany<'a, V> {
    type Output = Result<()>;
    type IntoFuture = BoxFuture<'a, Result<()>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let cache = self.write.cache;
            let keys: Vec<&str> = self.values.iter().map(|(key, _)| key.as_str()).collect();
            let now = cache.enter_many(&keys)?;
            let mut values = Vec::with_capacity(self.values.len());
            for (key, value) in self.values {
                values.push((key, self.write.new_value(value)?));
            }
            cache.core.set_many(&cache.door, values, now).await
        })
    }
}

/// A clear about to be made: see [`Cache::clear`].
#[derive(Debug)]
#[must_use = "nothing is cleared until it is awaited"]
pub struct Clear<'a, V> {
    cache: &'a Cache<V>,
    hardness: Hardness,
}

impl<'a, V> Clear<'a, V> {
    pub(super) fn new(cache: &'a Cache<V>) -> Self {
        Self { cache, hardness: Hardness::Hard }
    }

    /// Makes the entries stale, so that their grace may still serve them while they are loaded again. What has no
    /// grace is gone.
    pub fn soft(mut self) -> Self {
        self.hardness = Hardness::Soft;
        self
    }
}

impl<'a, V: Any + Send + Sync> IntoFuture for Clear<'a, V> {
    type Output = Result<u64>;
    type IntoFuture = BoxFuture<'a, Result<u64>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { cache, hardness } = self;
            let now = cache.enter("")?;
            cache.core.clear(&cache.door.space, hardness, now).await
        })
    }
}

/// An invalidation about to be made: see [`Cache::invalidate`].
#[derive(Debug)]
#[must_use = "nothing is invalidated until it is awaited"]
pub struct Invalidate<'a, V> {
    cache: &'a Cache<V>,
    tags: TagList<'a>,
    hardness: Hardness,
}

impl<'a, V> Invalidate<'a, V> {
    pub(super) fn new(cache: &'a Cache<V>, tags: impl IntoIterator<Item = &'a str>) -> Self {
        let mut list = TagList::default();
        list.extend(tags);
        Self { cache, tags: list, hardness: Hardness::Hard }
    }

    /// Makes the entries stale, so that their grace may still serve them while they are loaded again. What has no
    /// grace is gone.
    pub fn soft(mut self) -> Self {
        self.hardness = Hardness::Soft;
        self
    }
}

impl<'a, V: Any + Send + Sync> IntoFuture for Invalidate<'a, V> {
    type Output = Result<()>;
    type IntoFuture = BoxFuture<'a, Result<()>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { cache, tags, hardness } = self;
            let now = cache.enter("")?;
            cache.core.invalidate(&cache.door.space, &tags.tags()?, hardness, now).await
        })
    }
}

/// A number about to be changed: see [`Cache::increment`].
#[derive(Debug)]
#[must_use = "nothing is counted until it is awaited"]
pub struct Increment<'a, V> {
    write: Write<'a, V>,
    key: &'a str,
    by: i128,
    existing: bool,
}
write_options!(Increment);

impl<'a, V> Increment<'a, V> {
    pub(super) fn new(cache: &'a Cache<V>, key: &'a str, by: i128) -> Self {
        Self { write: Write::new(cache), key, by, existing: false }
    }

    /// Fails with [`ErrorKind::Counter`] where there is no number yet, in place of counting from zero.
    pub fn existing(mut self) -> Self {
        self.existing = true;
        self
    }
}

impl<'a, V: Counter> IntoFuture for Increment<'a, V> {
    type Output = Result<V>;
    type IntoFuture = BoxFuture<'a, Result<V>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { write, key, by, existing } = self;
            let cache = write.cache;
            let now = cache.enter(key)?;
            let new = write.new_value(Arc::new(V::ZERO))?;
            let mut sum = V::ZERO;
            let mut count = |found: Option<Found<'_>>| {
                let (number, meta) = match found {
                    Some(found) if found.freshness == Freshness::Fresh => {
                        (*typed::<V>(found.value()?)?, slid(found.meta.clone(), now))
                    }
                    _ if existing => return Err(no_counter(key)),
                    _ => (V::ZERO, new.meta(Stamp::ZERO, now)),
                };
                sum = number.plus(by).ok_or_else(|| overflow::<V>(key, by))?;
                let stores_nothing = meta.born == Stamp::ZERO && new.options.ttl_or_default().is_zero();
                Ok(if stores_nothing { Change::Remove } else { counted(sum, meta) })
            };
            cache.core.update_and_tell(&cache.door, key, now, &mut count).await?;
            Ok(sum)
        })
    }
}

fn counted<V: Counter>(sum: V, meta: Meta) -> Change {
    Change::Put(Entry { value: Arc::new(sum), meta })
}

fn no_counter(key: &str) -> Error {
    Error::new(ErrorKind::Counter, format!("there is no number under key {key:?} to count on"))
}

fn overflow<V>(key: &str, by: i128) -> Error {
    let message = format!(
        "adding {by} to the number of key {key:?} leaves the range of {}",
        std::any::type_name::<V>()
    );
    Error::new(ErrorKind::Counter, message)
}
