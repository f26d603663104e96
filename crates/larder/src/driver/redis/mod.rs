//! The Redis driver: strings with a TTL in one server, in a cluster, or in whatever primary sentinels name; also in
//! Valkey, Dragonfly and KeyDB, which speak the same. Redis 6 or later.
//!
//! All calls share one connection (in a cluster, two to each node) on which answers are told apart by their order, so
//! that a call that is dropped leaves its answer to nobody. Conditions on writes are decided beside the data, by a
//! script. Knows nothing of what the values are, apart from where a head ends.
//!
//! Rooms: `options` has what can be said about a store, `dial` makes connections, `link` keeps one, `doubt` has a
//! cluster's replaced by a better one, `exchange` sends a command over it, `script` has the scripts, `sweep` lists and
//! clears, `failure` words what went wrong.

mod dial;
mod doubt;
mod exchange;
mod failure;
mod link;
mod options;
mod script;
mod sweep;

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use redis::{Cmd, Pipeline, Value, cmd};

use crate::driver::{Capabilities, Driver, Scanned, When, Write, Written, check_prefix};
use crate::error::{Error, ErrorKind, Result};
use crate::time::Stamp;

use dial::Dial;
use exchange::{checked, number};
use link::Link;
use script::Named;

pub use link::RedisConnection;
pub use options::{RedisAddress, RedisOptions, RedisTopology};

/// The client that this driver uses, for commands of one's own over [`RedisDriver::connection`].
pub use ::redis as client;

/// The longest string that a server takes, by its default settings.
const VALUE_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// How many keys one `MGET` or `UNLINK` names, so that others get to be answered in between.
const TOGETHER_KEYS: usize = 1_000;
/// How many writes, and how many bytes of them, are sent before the first answer is read.
const PIPELINE_WRITES: usize = 500;
const PIPELINE_BYTES: usize = 8 * 1024 * 1024;
/// How many calls of one batch are on their way at once, where each key goes its own way.
const CONCURRENT_MAX: usize = 128;

/// A store in Redis.
///
/// Keys are stored as they are: any text. A value is a string, with a TTL in milliseconds. An entry under a key of
/// another type counts as one without a stamp.
///
/// A server that went away is found again with the first call after it is back; until then calls fail in the time
/// that it takes to be refused, or after the timeouts of [`RedisOptions`]. Nothing is sent a second time but what
/// reads from a cluster.
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> larder::Result<()> {
/// use larder::driver::redis::{RedisDriver, RedisOptions, client};
/// let store = RedisDriver::connect(RedisOptions::new("redis://localhost/1")?).await?;
/// // The same connection, for what Larder does not do.
/// let mut connection = store.connection().await?;
/// let heard: client::RedisResult<u32> =
///     client::cmd("PUBLISH").arg("news").arg("hello").query_async(&mut connection).await;
/// # drop(heard);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct RedisDriver {
    link: Link,
}

impl RedisDriver {
    /// Connects to a store, and makes sure that it answers.
    ///
    /// Dropping the future leaves nothing behind but the attempt to connect, which ends by itself.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if an option makes no sense, a file cannot be read, or the server does not accept the
    /// password; [`ErrorKind::Unavailable`] or [`ErrorKind::Timeout`] if it cannot be reached, or not over TLS;
    /// [`ErrorKind::Unsupported`] if it is older than Redis 6.
    pub async fn connect(options: RedisOptions) -> Result<Self> {
        let driver = Self { link: Link::owned(Dial::new(options).await?) };
        driver.ping().await?;
        Ok(driver)
    }

    /// A store over a connection that is open already, with the settings that it has. It stays open when the driver
    /// is closed. One that is not [managed](RedisConnection::Managed) or a cluster's stays broken once it broke.
    ///
    /// A cluster's connection that sends commands again by itself, as the client does unless it is told not to, can
    /// have a write refused that landed, if the connection breaks at that moment; a counter then counts twice.
    pub fn with_client(connection: impl Into<RedisConnection>) -> Self {
        Self { link: Link::borrowed(connection.into()) }
    }

    /// The connection that the driver uses now, for commands of one's own; made anew if it broke.
    ///
    /// What blocks the connection (`BLPOP`, `SUBSCRIBE`, `MULTI` over several calls, `SELECT`) blocks or misleads
    /// the store.
    ///
    /// # Errors
    /// As [`RedisDriver::connect`]; [`ErrorKind::Closed`] after [`Driver::close`].
    pub async fn connection(&self) -> Result<RedisConnection> {
        Ok(self.link.held().await?.reads.connection.clone())
    }

    async fn set_one(&self, write: &Write) -> Result<Written> {
        let answer = self.link.run("set", |named| script::set(named, write)).await?;
        script::written(answer)
    }

    /// One round trip for up to [`PIPELINE_WRITES`] writes or [`PIPELINE_BYTES`].
    async fn set_together(&self, writes: &[Write]) -> Result<Vec<Written>> {
        let mut written = Vec::with_capacity(writes.len());
        for some in portions(writes) {
            let mut pipeline = Pipeline::with_capacity(some.len());
            for (at, write) in some.iter().enumerate() {
                // The first one brings the script, so that none of the others can be refused for the lack of it and
                // have to be sent again out of order.
                let named = if at == 0 { Named::ByText } else { Named::ByHash };
                pipeline.add_command(script::set(named, write));
            }
            for answer in self.link.pipeline("set", &pipeline).await? {
                let answer = checked(answer).map_err(|cause| failure::failed("set", cause))?;
                written.push(script::written(answer)?);
            }
        }
        if written.len() == writes.len() { Ok(written) } else { Err(missing("set")) }
    }

    /// Each key to its node, all at once; the writes of one key one after the other.
    async fn set_each(&self, writes: Vec<Write>) -> Result<Vec<Written>> {
        let count = writes.len();
        let mut by_key: HashMap<String, Vec<(usize, Write)>> = HashMap::with_capacity(count);
        for (at, write) in writes.into_iter().enumerate() {
            by_key.entry(write.key.clone()).or_default().push((at, write));
        }
        let calls = by_key.into_values().map(|writes| async move {
            let mut written = Vec::with_capacity(writes.len());
            for (at, write) in &writes {
                written.push((*at, self.set_one(write).await?));
            }
            Ok::<_, Error>(written)
        });
        let calls: Vec<_> = calls.collect();
        let mut written: Vec<(usize, Written)> =
            stream::iter(calls).buffer_unordered(CONCURRENT_MAX).try_concat().await?;
        written.sort_unstable_by_key(|(at, _)| *at);
        Ok(written.into_iter().map(|(_, written)| written).collect())
    }
}

#[async_trait]
impl Driver for RedisDriver {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            enumerates: true,
            shared: true,
            persistent: true,
            value_bytes_max: Some(VALUE_BYTES_MAX),
        }
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        let mut command = Cmd::with_capacity(2, 3 + key.len());
        command.arg("GET").arg(key);
        stored(self.link.ask_string("get", &command).await?)
    }

    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>, when: When) -> Result<Written> {
        check_size(&value)?;
        self.set_one(&Write { key: key.to_owned(), value, ttl, when }).await
    }

    async fn delete(&self, key: &str) -> Result<bool> {
        let answer = self.link.change("delete", cmd("UNLINK").arg(key)).await?;
        Ok(number("delete", answer)? > 0)
    }

    async fn get_many(&self, keys: &[&str]) -> Result<Vec<Option<Bytes>>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        if self.link.is_cluster() {
            let calls: Vec<_> = keys.iter().map(|key| self.get(key)).collect();
            return stream::iter(calls).buffered(CONCURRENT_MAX).try_collect().await;
        }
        let mut found = Vec::with_capacity(keys.len());
        for some in keys.chunks(TOGETHER_KEYS) {
            match self.link.ask("get", cmd("MGET").arg(some)).await? {
                Value::Array(values) if values.len() == some.len() => {
                    for value in values {
                        found.push(stored(value)?);
                    }
                }
                other => return Err(failure::unexpected("get", &other)),
            }
        }
        Ok(found)
    }

    async fn set_many(&self, writes: Vec<Write>) -> Result<Vec<Written>> {
        for write in &writes {
            check_size(&write.value)?;
        }
        if writes.is_empty() {
            Ok(Vec::new())
        } else if self.link.is_cluster() {
            self.set_each(writes).await
        } else {
            self.set_together(&writes).await
        }
    }

    async fn delete_many(&self, keys: &[&str]) -> Result<u64> {
        if keys.is_empty() {
            return Ok(0);
        }
        let together = if self.link.is_cluster() { 1 } else { TOGETHER_KEYS };
        let calls: Vec<_> = keys
            .chunks(together)
            .map(|some| async move {
                number("delete", self.link.change("delete", cmd("UNLINK").arg(some)).await?)
            })
            .collect();
        let counts = stream::iter(calls).buffer_unordered(CONCURRENT_MAX);
        counts.try_fold(0, |sum, count| async move { Ok(sum + count) }).await
    }

    fn scan<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Scanned>> {
        sweep::scan(&self.link, prefix)
    }

    async fn clear(&self, prefix: &str, until: Stamp) -> Result<u64> {
        check_prefix(prefix)?;
        sweep::clear(&self.link, prefix, until).await
    }

    /// Asks with `INFO`; a user who may not is told nothing.
    async fn version(&self) -> Result<Option<String>> {
        let said = match self.link.ask("version", cmd("INFO").arg("server")).await {
            Err(error) if error.kind() == ErrorKind::Config => return Ok(None),
            said => said?,
        };
        Ok(version_in(&said))
    }

    async fn ping(&self) -> Result<()> {
        if self.link.is_cluster() {
            return self.link.primaries("ping").await.map(|_| ());
        }
        self.link.ask("ping", &cmd("PING")).await.map(|_| ())
    }

    async fn close(&self) -> Result<()> {
        let Some(held) = self.link.close() else { return Ok(()) };
        // Answers come in the order of the commands: with this one, all that were under way have come. Whether it
        // fails makes no difference any more.
        let mut connection = held.writes.connection.clone();
        let _ = cmd("PING").query_async::<Value>(&mut connection).await;
        Ok(())
    }
}

/// What `INFO` says of a server, be it by itself or by one node of several.
fn version_in(said: &Value) -> Option<String> {
    let text = match said {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes),
        Value::VerbatimString { text, .. } => text.into(),
        Value::Map(nodes) => return nodes.iter().find_map(|(_, said)| version_in(said)),
        _ => return None,
    };
    // What took over Redis' protocol says its own version beside the one that it is compatible with.
    let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let own = ["valkey", "dragonfly"].iter().find_map(|server| {
        let version = line(&format!("{server}_version:"))?;
        Some(if version.starts_with(server) { version.to_owned() } else { format!("{server} {version}") })
    });
    own.or_else(|| Some(format!("Redis {}", line("redis_version:")?)))
}

fn stored(value: Value) -> Result<Option<Bytes>> {
    match value {
        Value::BulkString(bytes) => Ok(Some(Bytes::from(bytes))),
        Value::Nil => Ok(None),
        other => Err(failure::unexpected("get", &other)),
    }
}

fn check_size(value: &[u8]) -> Result<()> {
    let bytes = value.len() as u64;
    if bytes > VALUE_BYTES_MAX {
        let message =
            format!("storing a value of {bytes} bytes in redis, where {VALUE_BYTES_MAX} are the most");
        return Err(Error::new(ErrorKind::TooLarge, message));
    }
    Ok(())
}

fn missing(what: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("redis {what}: the server left out an answer"))
}

/// Writes in portions that are sent at once; a large one may stand alone.
fn portions(writes: &[Write]) -> impl Iterator<Item = &[Write]> {
    let mut rest = writes;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = rest.iter().take(PIPELINE_WRITES).take_while(|write| {
            bytes += write.value.len();
            bytes <= PIPELINE_BYTES
        });
        let (some, others) = rest.split_at_checked(fits.count().max(1))?;
        rest = others;
        Some(some)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_sent_in_portions_and_a_large_one_alone() {
        let of = |sizes: &[usize]| -> Vec<usize> {
            let write = |size: &usize| Write {
                key: "k".to_owned(),
                value: Bytes::from(vec![0; *size]),
                ttl: None,
                when: When::Always,
            };
            let writes: Vec<Write> = sizes.iter().map(write).collect();
            portions(&writes).map(<[Write]>::len).collect()
        };
        assert_eq!(of(&[]), [0; 0]);
        assert_eq!(of(&[1; 1_001]), [500, 500, 1]);
        assert_eq!(of(&[5, PIPELINE_BYTES + 1, 5, 5]), [1, 1, 2]);
        assert_eq!(of(&[PIPELINE_BYTES / 2; 5]), [2, 2, 1]);
    }
}
