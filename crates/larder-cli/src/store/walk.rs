//! Every entry of a namespace and of those inside it, one after the other: what no single key can tell. Knows
//! nothing of what is looked for.

use std::ops::ControlFlow;

use futures_util::TryStreamExt;
use larder::codec::Opaque;
use larder::entry::wire::{Head, Kind};
use larder::{Cache, CachedEntry, Result};

use super::Store;

impl Store {
    /// Shows each entry, stale ones included, until told to stop. One entry at a time is in memory.
    pub(crate) async fn walk(
        &self,
        mut each: impl FnMut(&CachedEntry<Opaque>) -> ControlFlow<()>,
    ) -> Result<()> {
        let Some(driver) = self.stack.store() else { return Ok(()) };
        let mut inner: (Vec<String>, Cache<Opaque>) = (self.namespace.clone(), self.cache.clone());
        for prefix in self.keys.prefixes() {
            let mut scan = driver.scan(&prefix);
            while let Some(scanned) = scan.try_next().await? {
                if !Head::peek(&scanned.head).is_ok_and(|head| head.kind == Kind::Entry) {
                    continue;
                }
                let Some((names, key)) = self.root.take_apart(&scanned.key) else { continue };
                if names != inner.0 {
                    let cache = self.namespace_of(&names)?;
                    inner = (names, cache);
                }
                // The cache decides whether it is one still: clears and tags may have reached it.
                let Some(entry) = inner.1.entry(key).await? else { continue };
                if each(&entry).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn namespace_of(&self, names: &[String]) -> Result<Cache<Opaque>> {
        names.iter().try_fold(self.stack.opaque_cache()?, |cache, name| cache.namespace(name))
    }
}
