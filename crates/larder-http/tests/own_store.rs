//! The store that `docs/write-a-store.md` shows, held to the compliance suite.

#![expect(clippy::unwrap_used, reason = "the page shows a store, not how to survive a poisoned lock")]
#![expect(clippy::disallowed_methods, reason = "a store of one's own reads the clock where it likes")]

// docs/write-a-store.md: from here
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use async_trait::async_trait;
use larder::Result;
use larder_http::policy::Stored;
use larder_http::store::{Change, CollectBody, HttpStore, Purge, Variants, WriteBody};

/// Responses on a shelf.
#[derive(Debug, Default)]
struct Shelf(Mutex<HashMap<String, Arc<Variants>>>);

#[async_trait]
impl HttpStore for Shelf {
    fn name(&self) -> &'static str {
        "shelf"
    }

    async fn get(&self, target: &str) -> Result<Option<Arc<Variants>>> {
        let found = self.0.lock().unwrap().get(target).cloned();
        Ok(found
            .map(|variants| Arc::new(variants.living(SystemTime::now())))
            .filter(|living| !living.is_empty()))
    }

    async fn change(&self, target: &str, change: Change<'_>) -> Result<()> {
        // One lock around looking and storing: that is what makes it atomic.
        let mut shelf = self.0.lock().unwrap();
        let before = shelf.get(target).map(|variants| variants.living(SystemTime::now())).unwrap_or_default();
        if let Some(after) = change(&before) {
            shelf.insert(target.to_owned(), Arc::new(after));
        }
        Ok(())
    }

    async fn create(&self, _target: &str, _head: &Stored) -> Result<Option<Box<dyn WriteBody>>> {
        Ok(Some(Box::new(CollectBody::new(16 << 20))))
    }

    async fn invalidate(&self, tags: &[&str], how: Purge) -> Result<()> {
        for variants in self.0.lock().unwrap().values_mut() {
            if let Some(purged) = variants.purged(how, |response| response.has_tag(tags)) {
                *variants = Arc::new(purged);
            }
        }
        Ok(())
    }

    async fn clear(&self) -> Result<()> {
        self.0.lock().unwrap().clear();
        Ok(())
    }
}

larder_http::http_store_suite!(shelf, async || Shelf::default());
