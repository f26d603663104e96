//! The driver that `docs/write-a-driver.md` shows, held to the compliance suite.

#![expect(clippy::unwrap_used, reason = "the page shows a driver, not how to survive a poisoned lock")]

// docs/write-a-driver.md: from here
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use larder::Result;
use larder::driver::{Capabilities, Driver, Scanned, When, Written, check_prefix, head};
use larder::entry::wire::stamp_of;
use larder::time::Stamp;

/// A store in a sorted map. It takes no TTL: giving back space is not its business.
#[derive(Debug, Default)]
struct Sorted(Mutex<BTreeMap<String, Bytes>>);

#[async_trait]
impl Driver for Sorted {
    fn name(&self) -> &'static str {
        "sorted"
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.enumerates = true;
        capabilities
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        Ok(self.0.lock().unwrap().get(key).cloned())
    }

    async fn set(&self, key: &str, value: Bytes, _ttl: Option<Duration>, when: When) -> Result<Written> {
        // One lock around looking and storing: that is what makes it atomic.
        let mut map = self.0.lock().unwrap();
        let outcome = when.outcome(map.get(key).map(|stored| &stored[..]), &value);
        if let Written::Stored { .. } = outcome {
            map.insert(key.to_owned(), value);
        }
        Ok(outcome)
    }

    async fn delete(&self, key: &str) -> Result<bool> {
        Ok(self.0.lock().unwrap().remove(key).is_some())
    }

    fn scan<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Scanned>> {
        let map = self.0.lock().unwrap();
        let found = map.iter().filter(|(key, _)| key.starts_with(prefix));
        let found: Vec<_> =
            found.map(|(key, value)| Ok(Scanned { key: key.clone(), head: head(value) })).collect();
        stream::iter(found).boxed()
    }

    async fn clear(&self, prefix: &str, until: Stamp) -> Result<u64> {
        check_prefix(prefix)?;
        let mut map = self.0.lock().unwrap();
        let before = map.len();
        // What is newer was written after the clear, and what has no stamp is older than everything.
        map.retain(|key, value| !key.starts_with(prefix) || stamp_of(value) > Some(until));
        Ok((before - map.len()) as u64)
    }
}

larder::driver_suite!(sorted, async || Sorted::default());
// docs/write-a-driver.md: to here

#[test]
fn the_page_shows_this_very_driver() {
    let marked = |text: &str, from: &str, to: &str| {
        let (_, rest) = text.split_once(from).expect("the beginning is marked");
        let (marked, _) = rest.split_once(to).expect("the end is marked");
        marked.trim().to_owned()
    };
    let page = include_str!("../../../docs/write-a-driver.md");
    let source = include_str!("custom_driver.rs");
    let from = concat!("// docs/write-a-driver.md", ": from here\n");
    let to = concat!("// docs/write-a-driver.md", ": to here\n");
    let shown = marked(page, "<!-- crates/larder/tests/custom_driver.rs -->\n```rust\n", "```\n");
    assert_eq!(
        shown,
        marked(source, from, to),
        "docs/write-a-driver.md shows another driver than the one that is tested"
    );
}
