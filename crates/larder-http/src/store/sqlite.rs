//! Responses in a SQLite file, with undici's options: [`SqliteStore`]. A [`StackStore`] over a stack that is SQLite alone.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use larder::driver::sqlite::{SqliteDriver, SqliteOptions};
use larder::time::{Clock, Stamp, SystemClock};
use larder::{Result, Stack};

use super::{Change, HttpStore, Purge, StackStore, Variants, WriteBody};
use crate::policy::{Policy, Stored};

/// Where a [`SqliteStore`] is, and what it may hold.
///
/// ```
/// use larder_http::store::SqliteStoreOptions;
/// let mut options = SqliteStoreOptions::default();
/// assert_eq!((options.location.as_str(), options.count_max, options.entry_bytes_max), (":memory:", None, None));
/// options.location = "cache.db".into();
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SqliteStoreOptions {
    /// The file; `:memory:`, which is the default, is this store's own memory.
    pub location: String,
    /// The most responses; no limit unless told. The oldest go.
    pub count_max: Option<u64>,
    /// The longest body that is kept, in bytes, inclusive; no limit unless told.
    pub entry_bytes_max: Option<u64>,
    /// What time it is; the machine's unless told.
    pub clock: Arc<dyn Clock>,
}

impl Default for SqliteStoreOptions {
    fn default() -> Self {
        let clock = Arc::new(SystemClock::default());
        Self { location: ":memory:".into(), count_max: None, entry_bytes_max: None, clock }
    }
}

/// Responses in a SQLite file: undici's `SqliteCacheStore`, with its options and defaults. Several stores, in this process
/// and in others, may share a file, and see each other at once.
///
/// For a memory tier before the file, use a [`StackStore`].
#[derive(Debug)]
pub struct SqliteStore {
    store: StackStore,
}

impl SqliteStore {
    /// Opens or creates the file. The policy is the one that responses are judged by.
    ///
    /// # Errors
    /// Those of [`SqliteDriver::open`].
    pub async fn open(policy: Policy, options: SqliteStoreOptions) -> Result<Self> {
        let SqliteStoreOptions { location, count_max, entry_bytes_max, clock } = options;
        let driver = SqliteDriver::open(SqliteOptions::new(PathBuf::from(location))).await?;
        let stack = Stack::builder("http").store(driver).clock(clock).build()?;
        let mut builder =
            StackStore::builder(&stack, policy).body_bytes_max(entry_bytes_max.unwrap_or(u64::MAX));
        if let Some(count_max) = count_max {
            builder = builder.count_max(count_max);
        }
        Ok(Self { store: builder.build()? })
    }

    /// As [`StackStore::set_policy`].
    pub fn set_policy(&self, policy: Policy) {
        self.store.set_policy(policy);
    }

    /// The stack that it is.
    pub fn stack(&self) -> &Stack {
        self.store.stack()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl HttpStore for SqliteStore {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn begin(&self) -> Option<Stamp> {
        self.store.begin()
    }

    fn peek(&self, target: &str) -> Option<Arc<Variants>> {
        self.store.peek(target)
    }

    async fn get(&self, target: &str) -> Result<Option<Arc<Variants>>> {
        self.store.get(target).await
    }

    async fn change(&self, target: &str, change: Change<'_>) -> Result<()> {
        self.store.change(target, change).await
    }

    async fn create(&self, target: &str, head: &Stored) -> Result<Option<Box<dyn WriteBody>>> {
        self.store.create(target, head).await
    }

    async fn invalidate(&self, tags: &[&str], how: Purge) -> Result<()> {
        self.store.invalidate(tags, how).await
    }

    async fn delete(&self, target: &str) -> Result<bool> {
        self.store.delete(target).await
    }

    fn is_full(&self) -> bool {
        self.store.is_full()
    }

    fn targets(&self, prefix: &str) -> Result<BoxStream<'_, Result<String>>> {
        self.store.targets(prefix)
    }

    async fn clear(&self) -> Result<()> {
        self.store.clear().await
    }

    async fn close(&self) -> Result<()> {
        self.stack().close().await
    }
}
