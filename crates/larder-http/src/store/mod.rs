//! Where responses are kept: [`HttpStore`], what undici calls a cache store.
//!
//! A store keeps, for each target, the responses that were stored for it ([`Variants`]), changes that list atomically, and
//! takes and gives bodies in pieces. Which response is meant, whether it may be used and what it makes room for is not its
//! business: the engine decides that, by the policy.

mod body;
mod collect;
mod joined;
mod memory;
mod pieces;
mod random;
#[cfg(feature = "sqlite")]
mod sqlite;
mod stack;
mod variants;
mod wire;

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use larder::time::Stamp;
use larder::{Error, ErrorKind, Result};

#[cfg(feature = "testing")]
use crate::policy::Policy;
use crate::policy::Stored;

pub(crate) use body::Chunked;
pub use body::{ReadBody, StoredBody};
pub use collect::CollectBody;
pub(crate) use joined::JoinedBody;
pub use memory::{Full, MemoryStore, MemoryStoreOptions};
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteStore, SqliteStoreOptions};
pub use stack::{CHUNK_BYTES, StackStore, StackStoreBuilder};
pub use variants::{CacheValue, ResponseId, StoredResponse, Variants};

/// Where responses live: any stack ([`StackStore`]), or your own.
///
/// `http_store_suite!` of [`testing`](crate::testing) says whether one does what is expected of it.
#[async_trait]
pub trait HttpStore: Debug + Send + Sync + 'static {
    /// What it is called in messages.
    fn name(&self) -> &'static str;

    /// A point in the order of this store's writes and invalidations, for [`StoredResponse::began`]: taken before a request
    /// is sent, it lets an invalidation win over the response.
    fn begin(&self) -> Option<Stamp> {
        None
    }

    /// What is kept for a target, if that can be said at once and without waiting: what is in this process's memory.
    /// `None` also means that it is not known.
    fn peek(&self, _target: &str) -> Option<Arc<Variants>> {
        None
    }

    /// What is kept for a target. `None` and no responses are the same.
    ///
    /// # Errors
    /// The store's; the request is then answered as if nothing were kept.
    async fn get(&self, target: &str) -> Result<Option<Arc<Variants>>>;

    /// Changes what is kept for a target, atomically: `change` sees the newest state and says what it becomes. It may be
    /// called several times. `None` leaves everything as it is; no responses delete the target.
    ///
    /// Bodies of responses that are gone afterwards may be given back.
    ///
    /// # Errors
    /// The store's.
    async fn change(&self, target: &str, change: Change<'_>) -> Result<()>;

    /// Takes a body that is about to come. `None` if the store is full, or does not take this one; `head` says how long
    /// it is if that is known.
    ///
    /// Nothing is kept by this alone: what [`WriteBody::finish`] gives is put into the target by [`HttpStore::change`].
    ///
    /// # Errors
    /// The store's; the response is then not kept.
    async fn create(&self, target: &str, head: &Stored) -> Result<Option<Box<dyn WriteBody>>>;

    /// Invalidates, in all targets, the responses with one of these tags, or whose target has one.
    ///
    /// # Errors
    /// The store's.
    async fn invalidate(&self, tags: &[&str], how: Purge) -> Result<()>;

    /// Deletes a target with all its responses. True if there was something.
    ///
    /// # Errors
    /// The store's.
    async fn delete(&self, target: &str) -> Result<bool> {
        let was_there = self.get(target).await?.is_some_and(|variants| !variants.is_empty());
        self.change(target, &|_| Some(Variants::default())).await?;
        Ok(was_there)
    }

    /// Whether it has reached its limits, so that nothing more will be kept until something goes.
    fn is_full(&self) -> bool {
        false
    }

    /// The targets that begin like this, in no particular order.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if this store cannot say.
    fn targets(&self, _prefix: &str) -> Result<BoxStream<'_, Result<String>>> {
        Err(Error::new(ErrorKind::Unsupported, format!("{} cannot list what it keeps", self.name())))
    }

    /// Deletes everything. Bodies that are being read from the store may end early; who reads them can tell by their length.
    ///
    /// # Errors
    /// The store's.
    async fn clear(&self) -> Result<()>;

    /// Writes what is still to be written, and lets go of what was opened.
    ///
    /// # Errors
    /// The store's.
    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: HttpStore + ?Sized> HttpStore for Arc<S> {
    fn name(&self) -> &'static str {
        (**self).name()
    }

    fn begin(&self) -> Option<Stamp> {
        (**self).begin()
    }

    fn peek(&self, target: &str) -> Option<Arc<Variants>> {
        (**self).peek(target)
    }

    async fn get(&self, target: &str) -> Result<Option<Arc<Variants>>> {
        (**self).get(target).await
    }

    async fn change(&self, target: &str, change: Change<'_>) -> Result<()> {
        (**self).change(target, change).await
    }

    async fn create(&self, target: &str, head: &Stored) -> Result<Option<Box<dyn WriteBody>>> {
        (**self).create(target, head).await
    }

    async fn invalidate(&self, tags: &[&str], how: Purge) -> Result<()> {
        (**self).invalidate(tags, how).await
    }

    async fn delete(&self, target: &str) -> Result<bool> {
        (**self).delete(target).await
    }

    fn is_full(&self) -> bool {
        (**self).is_full()
    }

    fn targets(&self, prefix: &str) -> Result<BoxStream<'_, Result<String>>> {
        (**self).targets(prefix)
    }

    async fn clear(&self) -> Result<()> {
        (**self).clear().await
    }

    async fn close(&self) -> Result<()> {
        (**self).close().await
    }
}

/// See [`testing`](crate::testing).
#[cfg(feature = "testing")]
pub(crate) fn read_record(bytes: &bytes::Bytes) {
    let policy = Policy::shared();
    let open = |_: &Arc<str>, chunked, bytes| {
        StoredBody::from_chunks(bytes, chunked, Arc::new(pieces::Pieces::default()))
    };
    let Ok((target, variants)) = wire::decode(&policy, bytes, open) else { return };
    let again = wire::encode(&target, &variants).and_then(|bytes| wire::decode(&policy, &bytes, open));
    let heads = |variants: &Variants| {
        variants.responses().iter().map(|one| (one.id, one.stored.clone())).collect::<Vec<_>>()
    };
    assert!(
        again.is_ok_and(|(_, again)| heads(&again) == heads(&variants)),
        "a record that was read is written and read"
    );
}

/// What becomes of the responses of a target.
pub type Change<'a> = &'a (dyn Fn(&Variants) -> Option<Variants> + Send + Sync);

/// How responses leave before their time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purge {
    /// They are gone.
    Hard,
    /// They are stale: they may be served while they are validated, or if the origin cannot be reached, where that is
    /// allowed for what is stale.
    Soft,
}

/// A body on its way into a store. Dropped, it is forgotten.
#[async_trait]
pub trait WriteBody: Debug + Send {
    /// Takes the next piece.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] if the body is longer than the store takes; the store's. The body is not kept then; what
    /// was written before stays readable as long as somebody has a reader.
    async fn write(&mut self, piece: Bytes) -> Result<()>;

    /// Reads what is written so far, while the rest is still coming.
    fn reader(&self) -> Arc<dyn ReadBody>;

    /// How many bytes can be read from [`WriteBody::reader`] now; the rest is still held back.
    fn readable_bytes(&self) -> u64;

    /// The body ended well.
    ///
    /// # Errors
    /// The store's; the body is not kept then.
    async fn finish(self: Box<Self>) -> Result<StoredBody>;
}
