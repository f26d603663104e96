//! The client: every key to its server, and the answers back to whoever asked.
//!
//! Knows keys and servers. Conditions on records are `store.rs`'s.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};

use super::command::{Batch, Mode, expiry};
use super::dial::Dial;
use super::failure;
use super::keys::wire_key;
use super::line::Line;
use super::options::{MemcachedOptions, VALUE_BYTES_OVERHEAD};
use super::reply::Reply;
use super::ring::Ring;
use super::server::Server;
use crate::error::{Error, ErrorKind, Result};
use crate::time::{Clock as _, SystemClock};

/// How many commands one call sends at most, so that others get to be answered in between.
pub(super) const TOGETHER_KEYS: usize = 128;
/// What is taken to be the largest value, in bytes, as long as no server has said it.
const VALUE_BYTES_DEFAULT: u64 = 1024 * 1024 - VALUE_BYTES_OVERHEAD;

/// A client for memcached servers, over one connection to each.
///
/// Clones share the connections. Keys are mapped as the driver does it, so that `get` finds what the driver has stored.
/// Any call may be dropped at any await: it is then done or not done, and its answer is nobody's. No call is sent twice.
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> larder::Result<()> {
/// use larder::driver::memcached::{MemcachedClient, MemcachedDriver, MemcachedOptions};
/// use larder::time::minutes;
/// let client = MemcachedClient::connect(MemcachedOptions::new("memcached://localhost")?).await?;
/// let visits = client.increment("visits", 1, 1, Some(minutes(5))).await?;
/// let store = MemcachedDriver::with_client(client);
/// # drop((visits, store));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MemcachedClient(pub(super) Arc<Servers>);

impl fmt::Debug for MemcachedClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MemcachedClient").field(&self.0.dial).finish()
    }
}

/// The servers of a store.
pub(super) struct Servers {
    dial: Arc<Dial>,
    list: Vec<Server>,
    ring: Ring,
    pub(super) clock: SystemClock,
}

impl MemcachedClient {
    /// Connects to the servers, and makes sure that one of them answers. The others are connected to when they are
    /// first needed.
    ///
    /// Dropping the future leaves nothing behind but attempts to connect, which end by themselves.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if an option makes no sense, a file cannot be read, or a server does not accept the
    /// password or runs without versions of items (`-C`); [`ErrorKind::Unsupported`] if one is older than 1.6.10;
    /// [`ErrorKind::Unavailable`] or [`ErrorKind::Timeout`] if none can be reached.
    pub async fn connect(options: MemcachedOptions) -> Result<Self> {
        let dial = Arc::new(Dial::new(options).await?);
        let servers = dial.options().servers.iter();
        let list: Vec<Server> =
            servers.map(|address| Server::new(address.clone(), Arc::clone(&dial))).collect();
        let ring = Ring::new(list.iter().map(|server| &*server.name));
        let client = Self(Arc::new(Servers { dial, list, ring, clock: SystemClock::default() }));
        let outcomes = join_all(client.0.list.iter().map(Server::ping)).await;
        let reached = outcomes.iter().any(Result::is_ok);
        for outcome in outcomes {
            match outcome {
                Err(error) if !reached || !error.kind().is_transient() => return Err(error),
                _ => {}
            }
        }
        Ok(client)
    }

    /// The value of a key.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] or [`ErrorKind::Timeout`] if the key's server cannot be reached, or does not answer;
    /// [`ErrorKind::Closed`] after [`MemcachedClient::close`]; so everywhere below.
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        let wire = wire_key(key);
        let server = self.0.of(&wire)?;
        let reply = server.one("get", |batch| batch.get(&wire, false)).await?;
        value(server, reply)
    }

    /// The values of several keys, in their order: one round trip to each server for every 128.
    ///
    /// # Errors
    /// As [`MemcachedClient::get`], if any of the servers fails.
    pub async fn get_many(&self, keys: &[&str]) -> Result<Vec<Option<Bytes>>> {
        let mut found = vec![None; keys.len()];
        let hear = |at: usize, server: &Server, reply| {
            if let Some(found) = found.get_mut(at) {
                *found = value(server, reply)?;
            }
            Ok(())
        };
        self.0.spread(keys, "get", |batch, wire| batch.get(wire, false), hear).await?;
        Ok(found)
    }

    /// Stores a value; without a TTL until it is deleted or evicted.
    ///
    /// # Errors
    /// As [`MemcachedClient::get`], and [`ErrorKind::TooLarge`] for a value that the server does not take.
    pub async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<()> {
        self.store(key, value, ttl, Mode::Always).await.map(|_| ())
    }

    /// Stores a value if there is none. True if it was stored.
    ///
    /// # Errors
    /// As [`MemcachedClient::set`].
    pub async fn add(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<bool> {
        self.store(key, value, ttl, Mode::Add).await
    }

    /// Removes a key. True if there was something.
    ///
    /// # Errors
    /// As [`MemcachedClient::get`].
    pub async fn delete(&self, key: &str) -> Result<bool> {
        let wire = wire_key(key);
        let server = self.0.of(&wire)?;
        let reply = server.one("delete", |batch| batch.delete(&wire)).await?;
        deleted(server, reply)
    }

    /// Removes several keys. Returns how many there were.
    ///
    /// # Errors
    /// As [`MemcachedClient::get`], if any of the servers fails; keys on others may be gone.
    pub async fn delete_many(&self, keys: &[&str]) -> Result<u64> {
        let mut count = 0;
        let hear = |_, server: &Server, reply| {
            count += u64::from(deleted(server, reply)?);
            Ok(())
        };
        self.0.spread(keys, "delete", |batch, wire| batch.delete(wire), hear).await?;
        Ok(count)
    }

    /// Adds to the number that a key holds as decimal digits, wrapping around at 64 bits, and returns what it comes to;
    /// without a value, `first` is stored with the TTL and returned. This is memcached's own counter: what Larder stores
    /// is no number to it.
    ///
    /// # Errors
    /// As [`MemcachedClient::get`], and [`ErrorKind::Unsupported`] if the value is not a number.
    pub async fn increment(&self, key: &str, by: u64, first: u64, ttl: Option<Duration>) -> Result<u64> {
        let wire = wire_key(key);
        let server = self.0.of(&wire)?;
        let expiry = expiry(ttl, self.0.clock.now());
        let reply = server.one("increment", |batch| batch.count(&wire, by, first, expiry)).await?;
        let number = value(server, reply)?;
        let number =
            number.as_deref().and_then(|digits| std::str::from_utf8(digits).ok()?.trim_end().parse().ok());
        number.ok_or_else(|| failure::unexpected("increment", &server.name))
    }

    /// Succeeds if every server can be reached now.
    ///
    /// # Errors
    /// As [`MemcachedClient::get`], of the first server that fails.
    pub async fn ping(&self) -> Result<()> {
        join_all(self.0.list.iter().map(Server::ping)).await.into_iter().collect()
    }

    /// What the first of the servers that can be reached says of its version.
    ///
    /// # Errors
    /// As [`MemcachedClient::get`], of the last server, if all fail.
    pub async fn version(&self) -> Result<String> {
        let mut outcome = Err(failure::closed());
        for server in &self.0.list {
            outcome = server.version().await.map(|version| version.to_string());
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    /// Waits for what is under way, and lets go of the connections of this client and of all its clones.
    pub async fn close(&self) {
        join_all(self.0.list.iter().map(Server::close)).await;
    }

    async fn store(&self, key: &str, value: Bytes, ttl: Option<Duration>, mode: Mode) -> Result<bool> {
        let wire = wire_key(key);
        let server = self.0.of(&wire)?;
        let line = server.line().await?;
        check_size(server, &line, &value)?;
        let expiry = expiry(ttl, self.0.clock.now());
        let mut batch = line.batch(1);
        batch.set(&wire, value, expiry, mode);
        match single("set", server, line.send("set", batch).await?)? {
            Reply::Done => Ok(true),
            Reply::NotStored => Ok(false),
            other => Err(refused("set", server, &other)),
        }
    }
}

impl Servers {
    /// The largest value that all servers take, in bytes.
    pub(super) fn value_bytes_max(&self) -> u64 {
        let default = self.dial.options().value_bytes_max.unwrap_or(VALUE_BYTES_DEFAULT);
        self.list.iter().filter_map(Server::value_bytes_max).min().unwrap_or(default)
    }

    /// Where in the list the server of a key is.
    pub(super) fn place(&self, wire: &str) -> usize {
        self.ring.place(wire)
    }

    pub(super) fn at(&self, place: usize) -> Result<&Server> {
        // There is one, or the options would have been refused.
        self.list.get(place).ok_or_else(|| Error::new(ErrorKind::Config, "a memcached store needs a host"))
    }

    fn of(&self, wire: &str) -> Result<&Server> {
        self.at(self.place(wire))
    }

    /// A command for each key, each to its server, all at once. `hear` is given the places of the keys and the answers, in
    /// any order, when all have come.
    async fn spread(
        &self,
        keys: &[&str],
        what: &'static str,
        command: impl Fn(&mut Batch, &str) + Copy,
        mut hear: impl FnMut(usize, &Server, Reply) -> Result<()>,
    ) -> Result<()> {
        let each = keys.len() / self.list.len().max(1);
        let mut shares: Vec<_> = self.list.iter().map(|_| Vec::with_capacity(each)).collect();
        for (at, key) in keys.iter().enumerate() {
            let wire = wire_key(key);
            if let Some(share) = shares.get_mut(self.place(&wire)) {
                share.push((at, wire));
            }
        }
        let calls = self.list.iter().zip(&shares).flat_map(|(server, share)| {
            share.chunks(TOGETHER_KEYS).map(move |some| async move {
                let line = server.line().await?;
                let mut batch = line.batch(some.len());
                for (_, wire) in some {
                    command(&mut batch, wire);
                }
                let replies = line.send(what, batch).await?;
                if replies.len() != some.len() {
                    return Err(failure::unexpected(what, &server.name));
                }
                Ok((server, some, replies))
            })
        });
        for (server, some, replies) in try_join_all(calls).await? {
            for ((at, _), reply) in some.iter().zip(replies) {
                hear(*at, server, reply)?;
            }
        }
        Ok(())
    }
}

impl Server {
    /// One command and its answer.
    async fn one(&self, what: &'static str, command: impl FnOnce(&mut Batch)) -> Result<Reply> {
        let line = self.line().await?;
        let mut batch = line.batch(1);
        command(&mut batch);
        single(what, self, line.send(what, batch).await?)
    }
}

fn single(what: &str, server: &Server, replies: Vec<Reply>) -> Result<Reply> {
    replies.into_iter().next().ok_or_else(|| failure::unexpected(what, &server.name))
}

fn value(server: &Server, reply: Reply) -> Result<Option<Bytes>> {
    match reply {
        Reply::Value(bytes, _) => Ok(Some(bytes)),
        Reply::Missing => Ok(None),
        other => Err(refused("get", server, &other)),
    }
}

fn deleted(server: &Server, reply: Reply) -> Result<bool> {
    match reply {
        Reply::Done => Ok(true),
        Reply::Missing => Ok(false),
        other => Err(refused("delete", server, &other)),
    }
}

/// The error of an answer that is not what was hoped for.
pub(super) fn refused(what: &str, server: &Server, reply: &Reply) -> Error {
    match reply {
        Reply::Refused(refusal) => failure::refused(what, &server.name, refusal),
        _ => failure::unexpected(what, &server.name),
    }
}

/// What a server does not take it must not be sent: it would forget what it has under the key.
pub(super) fn check_size(server: &Server, line: &Line, value: &[u8]) -> Result<()> {
    if value.len() as u64 > line.value_bytes_max {
        return Err(failure::too_large(&server.name, value.len(), line.value_bytes_max));
    }
    Ok(())
}
