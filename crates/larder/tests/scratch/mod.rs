//! A driver in a temporary directory that goes with it.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use larder::Result;
use larder::driver::{Capabilities, Driver, Scanned, When, Write, Written};
use larder::time::Stamp;
use tempfile::TempDir;

/// A driver and the directory that it works in.
#[derive(Debug)]
pub(crate) struct Scratch<D> {
    // Dropped first, so that it is done with the directory.
    driver: D,
    _directory: TempDir,
}

impl<D: Driver> Scratch<D> {
    /// Opens a driver somewhere in a new directory.
    pub(crate) async fn open(open: impl AsyncFnOnce(&Path) -> D) -> Self {
        let directory = TempDir::new().unwrap();
        Self { driver: open(directory.path()).await, _directory: directory }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<D: Driver> Driver for Scratch<D> {
    fn name(&self) -> &'static str {
        self.driver.name()
    }
    fn capabilities(&self) -> Capabilities {
        self.driver.capabilities()
    }
    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        self.driver.get(key).await
    }
    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>, when: When) -> Result<Written> {
        self.driver.set(key, value, ttl, when).await
    }
    async fn delete(&self, key: &str) -> Result<bool> {
        self.driver.delete(key).await
    }
    async fn get_many(&self, keys: &[&str]) -> Result<Vec<Option<Bytes>>> {
        self.driver.get_many(keys).await
    }
    async fn set_many(&self, writes: Vec<Write>) -> Result<Vec<Written>> {
        self.driver.set_many(writes).await
    }
    async fn delete_many(&self, keys: &[&str]) -> Result<u64> {
        self.driver.delete_many(keys).await
    }
    fn scan<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Scanned>> {
        self.driver.scan(prefix)
    }
    async fn clear(&self, prefix: &str, until: Stamp) -> Result<u64> {
        self.driver.clear(prefix, until).await
    }
    async fn prune(&self) -> Result<u64> {
        self.driver.prune().await
    }
    async fn version(&self) -> Result<Option<String>> {
        self.driver.version().await
    }

    async fn ping(&self) -> Result<()> {
        self.driver.ping().await
    }
    async fn close(&self) -> Result<()> {
        self.driver.close().await
    }
}
