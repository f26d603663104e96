//! Drivers: how bytes reach one kind of store.
//!
//! A driver stores bytes. It never parses a value, never decides freshness, never emits an event and never
//! retries on its own account; the engine (`stack/`) does all that, once. It knows `entry` only so far as to
//! find the stamp in a record ([`crate::entry::wire::stamp_of`]).
//!
//! `docs/write-a-driver.md` shows a whole driver with its tests.

#[cfg(any(feature = "compress", feature = "encrypt"))]
mod body;
#[cfg(feature = "compress")]
pub mod compress;
#[cfg(feature = "dynamodb")]
pub mod dynamodb;
#[cfg(feature = "encrypt")]
pub mod encrypt;
#[cfg(all(feature = "file", unix))]
pub mod file;
#[cfg(feature = "memcached")]
pub mod memcached;
pub mod memory;
#[cfg(feature = "mysql")]
pub mod mysql;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
mod range;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub mod sql;
#[cfg(feature = "sqlite")]
pub mod sqlite;
#[cfg(any(
    feature = "config",
    feature = "redis",
    feature = "memcached",
    feature = "postgres",
    feature = "mysql"
))]
pub(crate) mod url;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

use crate::entry::wire::{HEAD_BYTES, stamp_of};
use crate::error::{Error, ErrorKind, Result};
use crate::time::Stamp;

/// How bytes reach one kind of store.
///
/// Keys are any UTF-8 of up to [`KEY_BYTES_MAX`](crate::key::KEY_BYTES_MAX) bytes, control characters and
/// all; a store that takes less maps them injectively, or hashes them to 128 bits or more (the full key is
/// inside the stored bytes, and is compared). Values are records of [`crate::entry::wire`], of any size up to
/// what [`Capabilities::value_bytes_max`] says.
///
/// A `ttl` is how long the store has to keep the value, by the store's own clock, and nothing but a hint for
/// reclaiming space: returning an expired value is not wrong. `None` keeps it until deleted. A TTL below the
/// store's resolution is rounded up, never down to nothing; zero may be stored or not.
///
/// Dropping a call's future at any await leaves the store with the write done or not done, and must never
/// let a later call receive this call's answer.
///
/// # Errors
/// Every method fails with [`ErrorKind::Unavailable`] or [`ErrorKind::Timeout`] for what may pass, and with
/// another kind for what will not. Messages name the operation and never contain values or passwords.
#[async_trait]
pub trait Driver: fmt::Debug + Send + Sync + 'static {
    /// What this driver is called in messages and configuration.
    fn name(&self) -> &'static str;

    /// What this driver can do beyond what all can.
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    /// The bytes stored under a key.
    async fn get(&self, key: &str) -> Result<Option<Bytes>>;

    /// Stores bytes under a key if `when` allows it, atomically against every other writer of the store.
    /// [`When::outcome`] is the whole rule.
    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>, when: When) -> Result<Written>;

    /// Removes a key. True if there was something.
    async fn delete(&self, key: &str) -> Result<bool>;

    /// The bytes stored under several keys, in their order.
    async fn get_many(&self, keys: &[&str]) -> Result<Vec<Option<Bytes>>> {
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            found.push(self.get(key).await?);
        }
        Ok(found)
    }

    /// Stores several values, each as [`Driver::set`] would; one failure fails the call, and others may have
    /// landed.
    async fn set_many(&self, writes: Vec<Write>) -> Result<Vec<Written>> {
        let mut written = Vec::with_capacity(writes.len());
        for Write { key, value, ttl, when } in writes {
            written.push(self.set(&key, value, ttl, when).await?);
        }
        Ok(written)
    }

    /// Removes several keys. Returns how many there were.
    async fn delete_many(&self, keys: &[&str]) -> Result<u64> {
        let mut deleted = 0;
        for key in keys {
            deleted += u64::from(self.delete(key).await?);
        }
        Ok(deleted)
    }

    /// All keys that begin with a prefix, byte for byte, each once, in any order. What is written or deleted
    /// meanwhile may or may not appear.
    fn scan<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Scanned>> {
        let _ = prefix;
        Box::pin(futures_util::stream::once(async { Err(unsupported(self.name(), "list keys")) }))
    }

    /// Removes the keys that begin with a prefix, byte for byte, and whose record carries this stamp or an older
    /// one, or none; and no others. [`Stamp::MAX`] means all. Returns how many there were.
    ///
    /// For each key, looking at the stamp and removing are one step against every other writer of the store, as
    /// in [`Driver::set`]: what is written meanwhile with a newer stamp stays. Stamps are found with [`stamp_of`].
    ///
    /// An empty prefix is refused with [`ErrorKind::Config`]: whoever means a whole store names its prefix.
    async fn clear(&self, prefix: &str, until: Stamp) -> Result<u64> {
        let _ = (prefix, until);
        Err(unsupported(self.name(), "clear by prefix"))
    }

    /// Gives back the space of what has expired. Returns how many entries went.
    async fn prune(&self) -> Result<u64> {
        Ok(0)
    }

    /// What the store says of its version, for people; `None` if it does not say.
    async fn version(&self) -> Result<Option<String>> {
        Ok(None)
    }

    /// Succeeds if the store can be reached now.
    async fn ping(&self) -> Result<()> {
        self.get("larder:ping").await.map(|_| ())
    }

    /// Waits for what is under way and lets go of what the driver opened itself. A connection or pool that
    /// was passed in stays open.
    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

/// What a driver can do beyond what all can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Capabilities {
    /// [`Driver::scan`] and [`Driver::clear`] work.
    pub enumerates: bool,
    /// Other processes may see the same store.
    pub shared: bool,
    /// What it holds is still there after this process has ended.
    pub persistent: bool,
    /// The largest value it takes, in bytes; `None` is no limit of its own.
    pub value_bytes_max: Option<u64>,
}

/// On what condition a value is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Whatever is there.
    Always,
    /// If what is there carries an older stamp, no stamp, or is nothing. A tie keeps what is there.
    Newer,
    /// If what is there still carries this stamp; `None`: if nothing is there.
    Unchanged(Option<Stamp>),
}

impl When {
    /// What storing `value` over `stored` comes to. A driver that can run code beside its data calls this
    /// under its lock; one that cannot says the same in its backend's language.
    pub fn outcome(self, stored: Option<&[u8]>, value: &[u8]) -> Written {
        let current = stored.and_then(stamp_of);
        let allowed = match self {
            Self::Always => true,
            Self::Newer => current < stamp_of(value) || current.is_none(),
            // Bytes without a stamp are something, so they are not `None`; nor can they match a stamp.
            Self::Unchanged(expected) => current == expected && (current.is_some() || stored.is_none()),
        };
        if allowed {
            Written::Stored { previous: stored.map(head) }
        } else {
            Written::Refused { by: current }
        }
    }
}

/// What became of a conditional write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// The value is stored.
    Stored {
        /// The head ([`HEAD_BYTES`], or all if shorter) of what it replaced; `None` if there was nothing.
        previous: Option<Bytes>,
    },
    /// What was there is still there.
    Refused {
        /// Its stamp; `None` if it has none, or if nothing was there.
        by: Option<Stamp>,
    },
}

/// One write of several: see [`Driver::set_many`].
#[derive(Debug, Clone)]
pub struct Write {
    /// The full key.
    pub key: String,
    /// The record.
    pub value: Bytes,
    /// How long to keep it; `None` is until deleted.
    pub ttl: Option<Duration>,
    /// On what condition.
    pub when: When,
}

/// One key of a [`Driver::scan`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scanned {
    /// The full key.
    pub key: String,
    /// The head ([`HEAD_BYTES`], or all if shorter) of its value.
    pub head: Bytes,
}

/// The head of stored bytes, copied so that it does not keep the whole value alive.
pub fn head(stored: &[u8]) -> Bytes {
    Bytes::copy_from_slice(stored.get(..HEAD_BYTES).unwrap_or(stored))
}

/// The error of a driver that cannot do something.
pub(crate) fn unsupported(driver: &str, what: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("the {driver} driver cannot {what}"))
}

/// Refuses the empty prefix, which would mean everything in a store that others may share.
///
/// # Errors
/// [`ErrorKind::Config`] if the prefix is empty.
pub fn check_prefix(prefix: &str) -> Result<()> {
    if prefix.is_empty() {
        return Err(Error::new(
            ErrorKind::Config,
            "clearing a store needs a prefix: an empty one means everything",
        ));
    }
    Ok(())
}

/// Forwards every method, so that a provided one cannot bypass the driver inside.
macro_rules! forward_driver {
    ($($pointer:ident),*) => {$(
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<D: Driver + ?Sized> Driver for $pointer<D> {
            fn name(&self) -> &'static str { (**self).name() }
            fn capabilities(&self) -> Capabilities { (**self).capabilities() }
            async fn get(&self, key: &str) -> Result<Option<Bytes>> { (**self).get(key).await }
            async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>, when: When) -> Result<Written> {
                (**self).set(key, value, ttl, when).await
            }
            async fn delete(&self, key: &str) -> Result<bool> { (**self).delete(key).await }
            async fn get_many(&self, keys: &[&str]) -> Result<Vec<Option<Bytes>>> { (**self).get_many(keys).await }
            async fn set_many(&self, writes: Vec<Write>) -> Result<Vec<Written>> { (**self).set_many(writes).await }
            async fn delete_many(&self, keys: &[&str]) -> Result<u64> { (**self).delete_many(keys).await }
            fn scan<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Scanned>> { (**self).scan(prefix) }
            async fn clear(&self, prefix: &str, until: Stamp) -> Result<u64> { (**self).clear(prefix, until).await }
            async fn prune(&self) -> Result<u64> { (**self).prune().await }
            async fn version(&self) -> Result<Option<String>> { (**self).version().await }
            async fn ping(&self) -> Result<()> { (**self).ping().await }
            async fn close(&self) -> Result<()> { (**self).close().await }
        }
    )*};
}
forward_driver!(Arc, Box);
