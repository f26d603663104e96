//! The memcached driver: items in one server or spread over several, by a client of our own that speaks the meta
//! protocol. memcached 1.6.10 or later.
//!
//! All calls share one connection to each server, on which answers are told apart by their order, and have to name the
//! key and the number of the command that they belong to. Conditions on writes stand on the versions that a server
//! gives its items. Knows nothing of what the values are, apart from where a head ends.
//!
//! Rooms: `options` has what can be said about a store, `dial` makes connections, `line` is one, `server` keeps one,
//! `ring` spreads keys, `keys` maps them, `command` and `reply` are the protocol, `client` is for anybody, `store` is
//! the conditional write, `failure` words what went wrong.

mod client;
mod command;
mod dial;
mod failure;
mod keys;
mod line;
mod options;
mod reply;
mod ring;
mod server;
mod store;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::driver::{Capabilities, Driver, When, Write, Written};
use crate::error::{Error, ErrorKind, Result};

pub use client::MemcachedClient;
pub use options::{MemcachedAddress, MemcachedOptions};

/// A store in memcached.
///
/// A key of up to 250 bytes without spaces and control characters is stored as it is, any other as the SHA-256 of it.
/// memcached cannot list its keys: [`Driver::scan`] and [`Driver::clear`] are [`ErrorKind::Unsupported`], which no
/// clear of a cache or of a tag depends on.
///
/// Which server has a key depends on the key and on what the servers are called, never on which of them are up: while
/// one is gone, calls for its keys fail, and no other server is asked. Otherwise it would come back with values that
/// were replaced or deleted meanwhile elsewhere. Calls for several keys fail if one of their servers does.
///
/// A server that went away is found again with the first call after it is back; until then calls fail in the time that
/// it takes to be refused, or after the timeouts of [`MemcachedOptions`]. Nothing is sent a second time.
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> larder::Result<()> {
/// use larder::driver::memcached::{MemcachedDriver, MemcachedOptions};
/// let store = MemcachedDriver::connect(MemcachedOptions::new("memcached://one,two")?).await?;
/// // The same connections, for what Larder does not do.
/// let visits = store.client().increment("visits", 1, 1, None).await?;
/// # drop(visits);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct MemcachedDriver {
    client: MemcachedClient,
    /// Whether the client is somebody else's.
    borrowed: bool,
    closed: std::sync::atomic::AtomicBool,
}

impl MemcachedDriver {
    /// Connects to a store, and makes sure that one of its servers answers.
    ///
    /// # Errors
    /// As [`MemcachedClient::connect`].
    pub async fn connect(options: MemcachedOptions) -> Result<Self> {
        let client = MemcachedClient::connect(options).await?;
        Ok(Self { borrowed: false, ..Self::with_client(client) })
    }

    /// A store over a client that is there already. Its connections stay open when the driver is closed.
    pub fn with_client(client: MemcachedClient) -> Self {
        Self { client, borrowed: true, closed: std::sync::atomic::AtomicBool::new(false) }
    }

    /// The client that the driver uses, for commands of one's own. That of a driver that has
    /// [connected](MemcachedDriver::connect) itself ends with [`Driver::close`].
    pub fn client(&self) -> MemcachedClient {
        self.client.clone()
    }

    fn open(&self) -> Result<&MemcachedClient> {
        if self.closed.load(std::sync::atomic::Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, "memcached: the driver was closed"));
        }
        Ok(&self.client)
    }
}

#[async_trait]
impl Driver for MemcachedDriver {
    fn name(&self) -> &'static str {
        "memcached"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            enumerates: false,
            shared: true,
            persistent: true,
            value_bytes_max: Some(self.client.0.value_bytes_max()),
        }
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        self.open()?.get(key).await
    }

    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>, when: When) -> Result<Written> {
        let write = Write { key: key.to_owned(), value, ttl, when };
        let written = self.open()?.0.store(vec![write]).await?.into_iter().next();
        written.ok_or_else(|| Error::new(ErrorKind::Unavailable, "memcached set: an answer is missing"))
    }

    async fn delete(&self, key: &str) -> Result<bool> {
        self.open()?.delete(key).await
    }

    async fn get_many(&self, keys: &[&str]) -> Result<Vec<Option<Bytes>>> {
        self.open()?.get_many(keys).await
    }

    async fn set_many(&self, writes: Vec<Write>) -> Result<Vec<Written>> {
        self.open()?.0.store(writes).await
    }

    async fn delete_many(&self, keys: &[&str]) -> Result<u64> {
        self.open()?.delete_many(keys).await
    }

    async fn version(&self) -> Result<Option<String>> {
        self.open()?.version().await.map(|version| Some(format!("memcached {version}")))
    }

    async fn ping(&self) -> Result<()> {
        self.open()?.ping().await
    }

    async fn close(&self) -> Result<()> {
        self.closed.store(true, std::sync::atomic::Ordering::Release);
        if !self.borrowed {
            self.client.close().await;
        }
        Ok(())
    }
}
