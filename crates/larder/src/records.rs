//! Records: data with a version that its writer gives it, kept, read and replaced together.
//!
//! A record is one entry of a cache, version and data in one value: no failure, expiry or eviction parts them. What the
//! versions mean is the caller's business; this room compares them, where it is asked to, and knows no more of them.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! use larder::records::{Records, Replaced};
//! use larder::{Stack, memory::MemoryOptions};
//!
//! let stack = Stack::builder("records").memory(MemoryOptions::new(1_000)).build()?;
//! let records = Records::new(stack.cache()?);
//! records.set("user/ada", 3, "Ada".to_owned()).await?;
//! assert_eq!(records.head("user/ada").await?, Some(3));
//!
//! // Somebody else was faster: nothing is written, and the answer says what is there.
//! let late = records.replace("user/ada", Some(2), 3, "Ida".to_owned()).await?;
//! assert_eq!(late, Replaced::Refused { found: Some(3) });
//! # Ok::<(), larder::Error>(()) })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use crate::cache::{Cache, typed};
use crate::entry::{Entry, Freshness};
use crate::error::Result;
use crate::stack::{Change, Found};
use crate::time::Stamp;

/// Data and its version.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(any(feature = "json", feature = "messagepack"), derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Record<D> {
    /// What its writer says that it is.
    pub version: u64,
    /// The data.
    pub data: D,
}

impl<D> Record<D> {
    /// Data with a version.
    pub fn new(version: u64, data: D) -> Self {
        Self { version, data }
    }
}

/// What became of a write that depends on what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a refused write has written nothing"]
#[expect(clippy::exhaustive_enums, reason = "written or not, and never anything else")]
pub enum Replaced {
    /// It is stored.
    Stored,
    /// Nothing was written.
    Refused {
        /// The version that is there; `None` if there is no record.
        found: Option<u64>,
    },
}

impl Replaced {
    /// Whether it is stored.
    pub fn is_stored(self) -> bool {
        self == Self::Stored
    }
}

/// Records with data of one type, over any cache handle: a namespace, options, a codec and a schema are the handle's.
/// Cheap to clone.
///
/// Every method fails as those of [`Cache`] do, and a future that is dropped leaves a write done or not done.
pub struct Records<D> {
    cache: Cache<Record<D>>,
}

impl<D> Clone for Records<D> {
    fn clone(&self) -> Self {
        Self { cache: self.cache.clone() }
    }
}

impl<D> fmt::Debug for Records<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Records").field(&self.cache).finish()
    }
}

impl<D: Any + Send + Sync> Records<D> {
    /// Records in a cache.
    pub fn new(cache: Cache<Record<D>>) -> Self {
        Self { cache }
    }

    /// The cache that they are in, for everything else: TTLs of their own, clears, counts.
    pub fn cache(&self) -> &Cache<Record<D>> {
        &self.cache
    }

    /// The record of a name.
    ///
    /// # Errors
    /// As [`Cache::get`].
    pub async fn get(&self, name: &str) -> Result<Option<Arc<Record<D>>>> {
        self.cache.get(name).await
    }

    /// Stores a record, whatever is there: a lower version takes the place of a higher one.
    ///
    /// # Errors
    /// As [`Cache::set`].
    pub async fn set(&self, name: &str, version: u64, data: D) -> Result<()> {
        self.cache.set(name, Record::new(version, data)).await
    }

    /// Stores a record if the one that is there has the expected version, or if there is none and none is expected:
    /// of several callers who expect the same, in whatever process, one succeeds.
    ///
    /// # Errors
    /// As [`Cache::add`]; [`ErrorKind::Decode`](crate::ErrorKind::Decode) if there is something that is no record.
    pub async fn replace(
        &self,
        name: &str,
        expected: Option<u64>,
        version: u64,
        data: D,
    ) -> Result<Replaced> {
        let Cache { core, door, .. } = &self.cache;
        let now = self.cache.enter(name)?;
        let (name, _, new) = self.cache.set(name, Record::new(version, data)).prepare()?;
        let mut found_version = None;
        let mut decide = |found: Option<Found<'_>>| {
            found_version = match found {
                Some(found) if found.freshness == Freshness::Fresh => {
                    Some(typed::<Record<D>>(found.value()?)?.version)
                }
                _ => None,
            };
            Ok(if found_version != expected {
                Change::Keep
            } else if new.options.ttl_or_default().is_zero() {
                Change::Remove
            } else {
                Change::Put(Entry { value: Arc::clone(&new.value), meta: new.meta(Stamp::ZERO, now) })
            })
        };
        let stored = core.update_and_tell(door, name, now, &mut decide).await?;
        Ok(if stored { Replaced::Stored } else { Replaced::Refused { found: found_version } })
    }

    /// Removes a record. True if there was one.
    ///
    /// # Errors
    /// As [`Cache::delete`].
    pub async fn delete(&self, name: &str) -> Result<bool> {
        self.cache.delete(name).await
    }

    /// Removes several records in one batch, none included. Returns how many there were.
    ///
    /// # Errors
    /// As [`Cache::delete_many`].
    pub async fn delete_bulk<K: AsRef<str>>(&self, names: &[K]) -> Result<u64> {
        self.cache.delete_many(names).await
    }

    /// The version of a record. From a store it is read together with the data; nothing else of it is copied.
    ///
    /// # Errors
    /// As [`Cache::get`].
    pub async fn head(&self, name: &str) -> Result<Option<u64>> {
        Ok(self.cache.get(name).await?.map(|record| record.version))
    }

    /// The versions of several records, in the order of their names, in one batch; `None` for one that is missing.
    ///
    /// # Errors
    /// As [`Cache::get_many`].
    pub async fn head_bulk<K: AsRef<str>>(&self, names: &[K]) -> Result<Vec<Option<u64>>> {
        let found = self.cache.get_many(names).await?;
        Ok(found.into_iter().map(|record| record.map(|record| record.version)).collect())
    }
}
