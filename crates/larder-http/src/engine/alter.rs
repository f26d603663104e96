//! Taking out what is stored, by hand: one target, a tag, everything below a prefix.

use std::borrow::Cow;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::BoxStream;
use larder::Result;

use super::{HttpCache, Shared, variance};
use crate::key;
use crate::store::{Purge, Variants};

/// What was purged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Purged {
    /// How many targets had something.
    pub targets: u64,
}

impl HttpCache {
    /// Purges one target, in all its variants. A response to it that is on its way is not kept. It may be written as any URL
    /// that means it.
    ///
    /// # Errors
    /// The store's.
    pub async fn purge(&self, target: &str, how: Purge) -> Result<bool> {
        let purged = self.shared.purge_equivalent(&meant(target), how).await?;
        // As it was told by `explain`, or listed.
        let by_name = variance::is_shared(target) && self.shared.purge_stored(target, how).await?;
        Ok(purged || by_name)
    }

    /// How many responses a purge of this target would take, written as any URL that means it.
    ///
    /// # Errors
    /// The store's.
    pub async fn count(&self, target: &str) -> Result<usize> {
        let found = self.shared.look(&meant(target)).await?;
        Ok(found.responses().len())
    }

    /// The names that begin like this under which responses are kept, in no particular order; and, if that is in the middle of
    /// a query, those that stand for several queries of its path (`No-Vary-Search`).
    ///
    /// # Errors
    /// The store's; [`larder::ErrorKind::Unsupported`] if it cannot list what it keeps.
    pub fn targets<'a>(&'a self, prefix: &str) -> Result<BoxStream<'a, Result<String>>> {
        let prefix = prefix.to_owned();
        let path = prefix.split_once('?').map(|(path, _)| format!("{path}?"));
        let targets = self.shared.store.targets(path.as_deref().unwrap_or(&prefix))?;
        let is_meant = move |target: &str| {
            let is_of_several = path.is_some() && variance::is_shared(target);
            (is_of_several || target.starts_with(&prefix)) && !variance::is_note(target)
        };
        let is_one = move |target: &Result<String>| target.as_ref().map_or(true, |target| is_meant(target));
        Ok(targets.filter(move |target| std::future::ready(is_one(target))).boxed())
    }

    /// Purges whatever has one of these tags: those of `Surrogate-Key` and `Cache-Tag`, and, over a stack, those that the
    /// library gave.
    ///
    /// # Errors
    /// The store's.
    pub async fn purge_tags(&self, tags: &[&str], how: Purge) -> Result<()> {
        self.shared.flights.invalidate_tags();
        self.shared.store.invalidate(tags, how).await
    }

    /// Purges all targets that begin like this.
    ///
    /// # Errors
    /// The store's; [`larder::ErrorKind::Unsupported`] if it cannot list what it keeps.
    pub async fn purge_prefix(&self, prefix: &str, how: Purge) -> Result<Purged> {
        // Whatever is on its way may begin like this.
        self.shared.flights.invalidate_all();
        let mut purged = Purged::default();
        let mut targets = self.targets(prefix)?;
        while let Some(target) = targets.next().await {
            let target = target?;
            self.shared.flights.invalidate(&target);
            purged.targets += u64::from(self.shared.purge_stored(&target, how).await?);
        }
        Ok(purged)
    }

    /// Deletes everything.
    ///
    /// # Errors
    /// The store's.
    pub async fn clear(&self) -> Result<()> {
        self.shared.flights.invalidate_all();
        self.shared.variances.forget_notes();
        self.shared.store.clear().await
    }
}

/// The target that a URL means.
fn meant(url: &str) -> Cow<'_, str> {
    let target = url.parse().ok().and_then(|uri| key::target(&uri).ok());
    target.map_or(Cow::Borrowed(url), Cow::Owned)
}

impl Shared {
    /// Purges one target; a failure of the store is counted.
    pub(super) async fn purge(&self, target: &str, how: Purge) {
        let purged = self.purge_equivalent(target, how).await;
        self.note(purged);
    }

    /// Purges one target, and what is kept for all that are equivalent to it.
    async fn purge_equivalent(&self, target: &str, how: Purge) -> Result<bool> {
        self.flights.invalidate(target);
        let (places, loaded) = self.places_now(target).await;
        for place in &places {
            self.flights.invalidate(&place.name);
        }
        let names = places.iter().map(|place| place.name.as_str()).chain([target]);
        let purged = join_all(names.map(|name| self.purge_stored(name, how))).await;
        // What is not known of cannot have been purged.
        loaded?;
        purged.into_iter().try_fold(false, |was_there, purged| Ok(was_there | purged?))
    }

    async fn purge_stored(&self, target: &str, how: Purge) -> Result<bool> {
        if how == Purge::Hard {
            return self.store.delete(target).await;
        }
        let is_there = std::sync::atomic::AtomicBool::new(false);
        self.store
            .change(target, &|variants: &Variants| {
                is_there.store(!variants.is_empty(), std::sync::atomic::Ordering::Relaxed);
                variants.purged(how, |_| true)
            })
            .await?;
        Ok(is_there.into_inner())
    }
}
