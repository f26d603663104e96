//! Reading through: one loader for all keys of a cache, which may find nothing. Knows nothing of writes.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::cache::Cache;
use crate::entry::Freshness;
use crate::error::{BoxError, Result};
#[cfg(doc)]
use crate::error::{Error, ErrorKind};
use crate::explain::Fact;
use crate::get_or_set::{Boxed, GetOrSet, Load, answer_of, failed};
use crate::loaded::{Loaded, Nothing};
use crate::source::KnownKeys;
use crate::source::doubt::Doubt;
use crate::source::second_delete::SecondDeletes;
use crate::source::write::{Store, WriteInvalidate, WriteThrough};
use crate::stack::{Asked, Loads, Tagging};

/// A loader for any key, without its types.
type Loader<V> = Arc<dyn Fn(String) -> BoxFuture<'static, Result<Option<Loaded<V>>, BoxError>> + Send + Sync>;

impl<V: Any + Send + Sync> Cache<V> {
    /// Binds this cache to the function that loads what is missing: the same for all keys. It returns
    /// `Ok(Some(value))`, or `Ok(None)` if the source has nothing, which is not kept. A [`Loaded`] in place of the
    /// value says more: a TTL, a grace, tags.
    ///
    /// What [`Cache::get_or_set`] promises holds: one load per key, whoever asks, and what is written during a load
    /// wins over it.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # use larder::{Stack, memory::MemoryOptions};
    /// # let cache = Stack::builder("demo").memory(MemoryOptions::new(1_000)).build()?.cache::<String>()?;
    /// # async fn find(id: &str) -> Result<Option<String>, std::io::Error> { Ok((id == "42").then(|| "Ada".to_owned())) }
    /// let users = cache.read_through(|id: String| async move { find(&id).await });
    /// assert_eq!(users.get("42").await?.as_deref(), Some(&"Ada".to_owned()));
    /// assert_eq!(users.get("43").await?, None);
    /// # Ok::<(), larder::Error>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read_through<F, Fut, T, E>(&self, load: F) -> ReadThrough<V>
    where
        F: Fn(String) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<Option<T>, E>> + Send + 'static,
        T: Into<Loaded<V>>,
        E: Into<BoxError>,
    {
        let load: Loader<V> = Arc::new(move |key| {
            let loading = load(key);
            Box::pin(async move { loading.await.map(|found| found.map(Into::into)).map_err(Into::into) })
        });
        ReadThrough { cache: self.clone(), load, known: None }
    }
}

/// A cache and the function that loads what it misses: see [`Cache::read_through`]. Cheap to clone.
pub struct ReadThrough<V> {
    cache: Cache<V>,
    load: Loader<V>,
    known: Option<KnownKeys>,
}

impl<V> Clone for ReadThrough<V> {
    fn clone(&self) -> Self {
        Self { cache: self.cache.clone(), load: Arc::clone(&self.load), known: self.known.clone() }
    }
}

impl<V> fmt::Debug for ReadThrough<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadThrough")
            .field("cache", &self.cache)
            .field("known", &self.known)
            .finish_non_exhaustive()
    }
}

impl<V: Any + Send + Sync> ReadThrough<V> {
    /// The value of a key: from the cache, else from the source. `None` if the source has nothing, which is not
    /// kept; a stale entry is then deleted, and not served.
    ///
    /// Options are those of the cache ([`Cache::with_options`]), unless the loader says otherwise. A hit in memory
    /// does not yield. Dropping the future takes nothing from others who wait for the same load.
    ///
    /// # Errors
    /// As [`Cache::get_or_set`]: [`ErrorKind::Load`] with the loader's own error inside ([`Error::load_error`]).
    pub async fn get(&self, key: &str) -> Result<Option<Arc<V>>> {
        if let Some(known) = &self.known
            && !self.is_in_memory(key)
            && !known.may_have(key)
        {
            let found = self.cache.get(key).await?;
            if found.is_none() {
                known.count_avoided();
                self.cache.core.note(&self.cache.door.space, key, || Fact::RuledOut);
            }
            return Ok(found);
        }
        let finding =
            Finding { cache: self.cache.clone(), load: Arc::clone(&self.load), known: self.known.clone() };
        match GetOrSet::new(&self.cache, key, finding).await {
            Err(error) if error.load_error::<Nothing>().is_some() => Ok(None),
            found => found.map(Some),
        }
    }

    /// The cache, for everything that is not about its source.
    pub fn cache(&self) -> &Cache<V> {
        &self.cache
    }

    /// Asks this filter before the source: what it rules out is `None` at once, and not an error. The handles for
    /// writing that are made from this one add the keys that they write.
    #[cfg(feature = "bloom")]
    #[must_use]
    pub fn known_keys(mut self, known: KnownKeys) -> Self {
        self.known = Some(known);
        self
    }

    /// Adds writing: values go to the source, by this function, and then into the cache. See [`WriteThrough`].
    pub fn write_through<F, Fut, E>(self, store: F) -> WriteThrough<V>
    where
        F: Fn(String, Arc<V>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        WriteThrough { read: self, store: boxed(store), doubt: Doubt::default() }
    }

    /// Adds writing: values go to the source, by this function, and what the cache had is deleted. See
    /// [`WriteInvalidate`].
    pub fn write_invalidate<F, Fut, E>(self, store: F) -> WriteInvalidate<V>
    where
        F: Fn(String, Arc<V>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let second = SecondDeletes::default();
        WriteInvalidate { read: self, store: boxed(store), doubt: Doubt::default(), second }
    }

    pub(super) fn known(&self) -> Option<&KnownKeys> {
        self.known.as_ref()
    }

    fn is_in_memory(&self, key: &str) -> bool {
        let Cache { core, door, .. } = &self.cache;
        let found = core.probe(&door.space, key, core.clock.now());
        matches!(found, Some((_, Freshness::Fresh)))
    }
}

fn boxed<V: 'static, F, Fut, E>(store: F) -> Store<V>
where
    F: Fn(String, Arc<V>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = std::result::Result<(), E>> + Send + 'static,
    E: Into<BoxError>,
{
    Arc::new(move |key, value| {
        let storing = store(key, value);
        Box::pin(async move { storing.await.map_err(Into::into) })
    })
}

/// A load of one key by a loader for any.
struct Finding<V> {
    cache: Cache<V>,
    load: Loader<V>,
    known: Option<KnownKeys>,
}

impl<V: Any + Send + Sync> Load<V> for Finding<V> {
    fn boxed(self) -> Boxed {
        let load = Box::new(move |asked: Vec<Asked>| -> BoxFuture<'static, Result<Loads>> {
            Box::pin(async move {
                let mut loads = Loads::with_capacity(asked.len());
                for Asked { key, previous, .. } in asked {
                    let answer = match (self.load)(key.clone()).await {
                        Ok(Some(loaded)) => answer_of(loaded),
                        Ok(None) => {
                            if let Some(known) = &self.known {
                                known.count_found_nothing();
                            }
                            if previous.is_some() {
                                self.forget(&key).await;
                            }
                            answer_of(Loaded::uncached(Nothing))
                        }
                        Err(error) => Err(failed(&key, error)),
                    };
                    loads.push((key, answer));
                }
                Ok(loads)
            })
        });
        Boxed { load, tagging: Tagging::ByLoader }
    }
}

impl<V> Finding<V> {
    /// Deletes what the source no longer has, so that nobody is served it stale. If the store fails, that is an
    /// event, and tried again.
    async fn forget(&self, key: &str) {
        let Cache { core, door, .. } = &self.cache;
        let _ = core.delete(door, key, core.clock.now()).await;
    }
}
