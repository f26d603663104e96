//! What a tag's invalidation during a run leaves behind: nothing of a witness that was stored when the run began.
//!
//! Output is stamped when it is stored, which is long after the command began to look at the world. An
//! invalidation between the two would not reach it. So a run with tags stores an empty entry with the same tags
//! before it begins, and keeps its output only if that is still there.

use std::process;

use bytes::Bytes;
use larder::Result;
use larder::time::{Clock, SystemClock, Ttl, hours};

use crate::store::{Store, Writing};

/// How long the witness of a run that was killed stays behind; no run that is kept takes longer.
const LIFE: Ttl = Ttl::For(hours(7 * 24));

/// An entry that shares the fate of what a run will store.
#[derive(Debug)]
pub(super) struct Witness {
    key: String,
}

impl Witness {
    /// Stores one for a key and its tags.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn call(store: &Store, key: &str, tags: &[String]) -> Result<Self> {
        let now = SystemClock::default().now().as_millis();
        let witness = Self { key: format!("{key} {} {now}", process::id()) };
        let writing = Writing { ttl: Some(LIFE), grace: None, tags: tags.to_vec() };
        store.set(&witness.key, Bytes::new(), &writing).await?;
        Ok(witness)
    }

    /// Whether nothing was invalidated or cleared since.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn stands(&self, store: &Store) -> Result<bool> {
        Ok(store.entry(&self.key).await?.is_some_and(|entry| entry.fresh))
    }

    /// Removes it.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn dismiss(self, store: &Store) -> Result<()> {
        store.delete(&[self.key]).await.map(drop)
    }
}

/// Keeps output unless its witness has fallen. True if it is kept.
///
/// # Errors
/// Those of the store.
pub(super) async fn keep(
    store: &Store,
    key: &str,
    output: &Bytes,
    writing: &Writing,
    witness: Option<&Witness>,
) -> Result<bool> {
    let Some(witness) = witness else { return store.set(key, output.clone(), writing).await.map(|_| true) };
    // Before, so that what is stale stays; after, because it may have fallen in between.
    if !witness.stands(store).await? {
        return Ok(false);
    }
    store.set(key, output.clone(), writing).await?;
    let stands = witness.stands(store).await?;
    if !stands {
        store.delete(&[key.to_owned()]).await?;
    }
    Ok(stands)
}
