//! Rewrites that a caller decides on, and looks that say more than the value: what stores built on a cache need.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Cache, typed};
use crate::entry::{AnyValue, Entry, Extras, Freshness, Meta};
use crate::error::{Error, ErrorKind, Result};
use crate::options::EntryOptions;
use crate::stack::{Change, NewValue};
use crate::tag::{Tag, tags_of};
use crate::time::{Stamp, Timestamp, Ttl};

/// How often an update without a store is tried against others before it gives up.
const TRIES_MAX: u32 = 10_000;

/// What an update finds: see [`Cache::update`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Present<V> {
    /// The value.
    pub value: Arc<V>,
    /// Fresh, or stale and within its grace.
    pub freshness: Freshness,
    /// When the value was set or its load began: what clears and tags are compared with.
    pub born: Stamp,
    /// The soft clear or invalidation that made it stale, if one did.
    pub invalidated: Option<Stamp>,
    /// Its tags, sorted.
    pub tags: Vec<Tag>,
}

/// What an update makes of an entry: see [`Cache::update`]. What it does not say, the cache's options say.
///
/// ```
/// use larder::{Updated, time::minutes};
/// let stored = Updated::put("body").ttl(minutes(5)).tags(["pages"]);
/// let untouched: Updated<&str> = Updated::keep();
/// let removed: Updated<&str> = Updated::delete();
/// # let _ = (stored, untouched, removed);
/// ```
#[derive(Debug)]
#[must_use]
pub struct Updated<V> {
    outcome: Outcome<V>,
    ttl: Option<Ttl>,
    grace: Option<Duration>,
    tags: Vec<String>,
    born: Option<Stamp>,
}

#[derive(Debug)]
enum Outcome<V> {
    Keep,
    Delete,
    Put(V),
}

impl<V> Updated<V> {
    fn new(outcome: Outcome<V>) -> Self {
        Self { outcome, ttl: None, grace: None, tags: Vec::new(), born: None }
    }

    /// Nothing changes.
    pub fn keep() -> Self {
        Self::new(Outcome::Keep)
    }

    /// The entry goes.
    pub fn delete() -> Self {
        Self::new(Outcome::Delete)
    }

    /// This value takes its place. A TTL of zero deletes it.
    pub fn put(value: V) -> Self {
        Self::new(Outcome::Put(value))
    }

    /// How long it is fresh.
    pub fn ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.ttl = Some(ttl.into());
        self
    }

    /// How long after that it may still be served stale.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    /// What it can be invalidated by. The tags of what was there are not taken over.
    pub fn tags<T: Into<String>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.tags.extend(tags.into_iter().map(Into::into));
        self
    }

    /// How old what it is made of is: clears and tags that came since mean it, and so does a delete that the store still
    /// knows of; nothing changes then. Unless told, that is the birth of what was
    /// there ([`Present::born`]), so that an update carries nothing past a clear; and now if there was nothing. One in the
    /// future is now.
    pub fn born(mut self, born: Stamp) -> Self {
        self.born = Some(born);
        self
    }
}

/// A decision, ready to be carried out.
enum Decided {
    Keep,
    Delete,
    Put(AnyValue, Meta),
}

impl<V: Any + Send + Sync> Cache<V> {
    /// Rewrites the entry of a key atomically, against callers in whatever process: `change` sees what is there, fresh or
    /// stale, and says what it becomes. True if something changed.
    ///
    /// `change` may be called several times, each time with the newest state, and holds up other updates of the key in this
    /// process while it runs. A value that no longer decodes is nothing. It always asks the store.
    ///
    /// # Errors
    /// [`ErrorKind::Encode`], [`ErrorKind::TooLarge`] and [`ErrorKind::InvalidKey`] for what cannot be stored;
    /// [`ErrorKind::Overloaded`] if others win every time; nothing has changed then.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # use larder::{Stack, Updated, memory::MemoryOptions};
    /// # let cache = Stack::builder("demo").memory(MemoryOptions::new(1_000)).build()?.cache::<Vec<u32>>()?;
    /// let append = |present: Option<larder::Present<Vec<u32>>>| {
    ///     let mut list = present.map(|present| (*present.value).clone()).unwrap_or_default();
    ///     list.push(7);
    ///     Updated::put(list)
    /// };
    /// assert!(cache.update("list", append).await? && cache.update("list", append).await?);
    /// assert_eq!(*cache.get("list").await?.unwrap(), [7, 7]);
    /// # Ok::<(), larder::Error>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn update<F>(&self, key: &str, mut change: F) -> Result<bool>
    where
        F: FnMut(Option<Present<V>>) -> Updated<V> + Send,
    {
        let now = self.enter(key)?;
        if self.core.has_store() {
            let mut decide = |found: Option<crate::stack::Found<'_>>| {
                let present = found.and_then(|found| {
                    let value = typed(found.value().ok()?).ok()?;
                    Some(self.present(value, found.meta, found.freshness))
                });
                Ok(self.decided(present, &mut change, now)?.into_change())
            };
            return self.core.update_and_tell(&self.door, key, now, &mut decide).await;
        }
        self.update_in_memory(key, &mut change, now).await
    }

    /// `change` runs before the lock is taken, because it is a user's.
    async fn update_in_memory<F>(&self, key: &str, change: &mut F, now: Timestamp) -> Result<bool>
    where
        F: FnMut(Option<Present<V>>) -> Updated<V> + Send,
    {
        for _ in 0..TRIES_MAX {
            let found = self.core.probe(&self.door.space, key, now);
            let expected = found.as_ref().map(|(entry, _)| entry.meta.stamp);
            let present = match found {
                Some((entry, freshness)) => Some(self.present(typed(entry.value)?, &entry.meta, freshness)),
                None => None,
            };
            let mut decided = Some(self.decided(present, change, now)?);
            let mut decide = |found: Option<crate::stack::Found<'_>>| {
                if found.map(|found| found.meta.stamp) != expected {
                    return Ok(Change::Keep);
                }
                Ok(decided.take().map_or(Change::Keep, Decided::into_change))
            };
            let changed = self.core.update_and_tell(&self.door, key, now, &mut decide).await?;
            if decided.is_none() {
                return Ok(changed);
            }
            tokio::task::yield_now().await;
        }
        Err(Error::new(ErrorKind::Overloaded, "an update lost against others every time"))
    }

    fn present(&self, value: Arc<V>, meta: &Meta, freshness: Freshness) -> Present<V> {
        let soft = self.core.invalidated(&self.door.space, meta);
        let (born, tags) = (meta.born, meta.tags().to_vec());
        Present { value, freshness, born, invalidated: (meta.born <= soft).then_some(soft), tags }
    }

    fn decided<F>(&self, present: Option<Present<V>>, change: &mut F, now: Timestamp) -> Result<Decided>
    where
        F: FnMut(Option<Present<V>>) -> Updated<V> + Send,
    {
        let was_born = present.as_ref().map(|present| present.born);
        let Updated { outcome, ttl, grace, tags, born } = change(present);
        let value = match outcome {
            Outcome::Keep => return Ok(Decided::Keep),
            Outcome::Delete => return Ok(Decided::Delete),
            Outcome::Put(value) => value,
        };
        let said = EntryOptions { ttl, grace, ..EntryOptions::default() };
        let options = said.or(&self.door.options);
        if options.ttl_or_default().is_zero() {
            return Ok(Decided::Delete);
        }
        let tags = tags_of(tags.iter().map(String::as_str))?;
        let extras = (!tags.is_empty()).then(|| Arc::new(Extras { tags, ..Extras::default() }));
        let new = NewValue { value: Arc::new(value), options, extras };
        let mut meta = new.meta(Stamp::ZERO, now);
        meta.born = born.or(was_born).unwrap_or(Stamp::ZERO);
        Ok(Decided::Put(new.value, meta))
    }

    /// The fresh value of a key if memory has it: no store is asked, and nothing waits or is allocated. Counted as a hit;
    /// `None` is not counted, and says nothing of the store.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # use larder::{Stack, memory::MemoryOptions};
    /// # let cache = Stack::builder("demo").memory(MemoryOptions::new(1_000)).build()?.cache::<u32>()?;
    /// cache.set("a", 1).await?;
    /// assert_eq!(cache.peek("a").as_deref(), Some(&1));
    /// # Ok::<(), larder::Error>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn peek(&self, key: &str) -> Option<Arc<V>> {
        let now = self.enter(key).ok()?;
        self.look(key, now)?.ok()
    }

    /// As [`Cache::get_stale`], with whether the value is fresh.
    ///
    /// # Errors
    /// As [`Cache::get`].
    pub async fn get_judged(&self, key: &str) -> Result<Option<(Arc<V>, Freshness)>> {
        let now = self.enter(key)?;
        if let Some(found) = self.look(key, now) {
            return found.map(|value| Some((value, Freshness::Fresh)));
        }
        let found = Box::pin(self.core.get_judged(&self.door, key, super::Accept::Stale, now)).await?;
        found.map(|(value, freshness)| Ok((typed(value)?, freshness))).transpose()
    }
}

impl Decided {
    fn into_change(self) -> Change {
        match self {
            Self::Keep => Change::Keep,
            Self::Delete => Change::Remove,
            Self::Put(value, meta) => Change::Put(Entry { value, meta }),
        }
    }
}

impl fmt::Debug for Decided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keep => "Keep",
            Self::Delete => "Delete",
            Self::Put(..) => "Put",
        })
    }
}
