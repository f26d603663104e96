//! Stores in a table of a database server: what the PostgreSQL and the MySQL driver share, which is all but the
//! statements.
//!
//! Rooms: `options` has what can be said about a store, `table` the names of tables, `dialect` what a database has to
//! say for itself, `plain` what is the same code for both, `link` the connections with their deadlines, `url` what a
//! URL says about TLS, `failure` words what went wrong.

mod dialect;
mod failure;
mod link;
mod options;
mod plain;
mod table;
mod url;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use sqlx::Pool;
use tokio::task::AbortHandle;

use crate::driver::range::range_of;
use crate::driver::{Capabilities, Driver, Scanned, When, Write, Written, check_prefix};
use crate::error::{Error, ErrorKind, Result};
use crate::key::KEY_BYTES_MAX;
use crate::time::Stamp;

use link::{Lease, Link, Repeat};

pub use dialect::{Dialect, Page, Range, Settings, Wire};
pub(crate) use dialect::{rest_of, scanned, ttl_ms};
pub use options::{SqlOptions, SqlTls};
pub(crate) use plain::{plain_statements, with_options};
pub use table::TableName;

/// The client that these drivers use, for pools and statements of one's own.
pub use ::sqlx as client;

/// How many keys one statement names.
const TOGETHER_KEYS: usize = 1_000;
/// How many writes one statement has, and how many bytes of them.
const TOGETHER_WRITES: usize = 500;
const TOGETHER_BYTES: usize = 4 * 1024 * 1024;
/// How many keys a page of a scan has, a step of a clear looks at, and a step of pruning removes, so that others get to
/// write in between.
const STEP_KEYS: i64 = 500;
/// How often creating a table is tried while others create it too.
const CREATE_TRIES: u32 = 5;

/// A store in a table of a database.
///
/// A write is acknowledged when it is committed. An entry whose TTL is over, by the database's clock, is not returned,
/// whether or not it was pruned.
///
/// A server that went away is found again with the first call after it is back; until then calls fail after the timeouts
/// of [`SqlOptions`]. Nothing is sent a second time but what only reads, what the server says that it did not do because
/// it was shutting down, and what it undid in favour of others (a deadlock).
///
/// Dropping a call closes its connection: the write is done or not done.
pub struct SqlDriver<D: Dialect> {
    inner: Arc<Inner<D>>,
    pruning: Option<AbortHandle>,
}

struct Inner<D: Dialect> {
    link: Link<D>,
    statements: D::Statements,
    table: String,
}

impl<D: Dialect> fmt::Debug for SqlDriver<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlDriver")
            .field("driver", &D::NAME)
            .field("table", &self.inner.table)
            .field("link", &self.inner.link)
            .finish_non_exhaustive()
    }
}

impl<D: Dialect> Drop for SqlDriver<D> {
    fn drop(&mut self) {
        if let Some(pruning) = &self.pruning {
            pruning.abort();
        }
    }
}

impl<D: Dialect> SqlDriver<D> {
    /// Connects to a store, and creates its table if it is missing and may be created.
    ///
    /// Dropping the future may leave the table created.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if an option makes no sense, a file cannot be read, the server does not accept the user, the
    /// database or the certificate, or the table is missing and not to be created, or is someone else's;
    /// [`ErrorKind::Unavailable`] or [`ErrorKind::Timeout`] if the server cannot be reached.
    pub async fn connect(options: SqlOptions<D>) -> Result<Self> {
        options.check()?;
        Self::open(Link::own(&options), &options).await
    }

    /// A store over a pool that is there already, with the settings that it has. It stays open when the driver is closed.
    /// Of the options, the table, `create_table`, `prune_interval` and the timeouts count.
    ///
    /// The server is told no timeout, and connections are tested as the pool says.
    ///
    /// # Errors
    /// As [`SqlDriver::connect`].
    pub async fn with_pool(pool: Pool<D::Database>, options: SqlOptions<D>) -> Result<Self> {
        options.check()?;
        Self::open(Link::borrowed(pool, &options), &options).await
    }

    async fn open(link: Link<D>, options: &SqlOptions<D>) -> Result<Self> {
        let table = TableName::new(&options.table)?;
        let statements = D::statements(&table);
        let inner = Arc::new(Inner { link, statements, table: options.table.clone() });
        inner.find_or_create(options.create_table).await?;
        let pruning = options.prune_interval.map(|interval| {
            let inner = Arc::downgrade(&inner);
            tokio::spawn(keep_pruned(inner, interval)).abort_handle()
        });
        Ok(Self { inner, pruning })
    }

    /// The pool that the driver uses, for statements of one's own. Whoever keeps its connections keeps them from the
    /// store.
    pub fn pool(&self) -> &Pool<D::Database> {
        self.inner.link.pool()
    }

    /// The statements that create a table of this name, for a database where only a person may do that.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if it cannot name a table.
    pub fn schema(table: &str) -> Result<String> {
        TableName::new(table).map(|table| D::schema(&D::statements(&table)).to_owned())
    }
}

impl<D: Dialect> Inner<D> {
    /// Several processes may do this at once; the server then refuses all but one, each in its own words.
    async fn find_or_create(&self, create: bool) -> Result<()> {
        let statements = &self.statements;
        let find = move |mut lease: Lease<D>| async move {
            let found = D::find(&mut lease, statements).await;
            (lease, found)
        };
        let create_it = move |mut lease: Lease<D>| async move {
            let created = D::create(&mut lease, statements).await;
            (lease, created)
        };
        let mut refused = None;
        for _ in 0..CREATE_TRIES {
            let missing = match self.link.attempt("open", Repeat::Harmless, find).await? {
                Ok(()) => return Ok(()),
                Err(sqlx::Error::Database(refusal)) if D::is_missing(&*refusal) => refusal,
                Err(cause) => return Err(failure::failed::<D>("open", self.link.place(), cause)),
            };
            if !create {
                let message = format!(
                    "{} open: there is no table {:?}, and it is not to be created (create_table is off; {}: {})",
                    D::NAME,
                    self.table,
                    self.link.place(),
                    missing.message()
                );
                return Err(Error::new(ErrorKind::Config, message));
            }
            match self.link.attempt("create the table", Repeat::Never, create_it).await? {
                Ok(()) => return Ok(()),
                Err(cause @ sqlx::Error::Database(_)) => refused = Some(cause),
                Err(cause) => return Err(failure::failed::<D>("create the table", self.link.place(), cause)),
            }
        }
        match refused {
            Some(cause) => Err(failure::failed::<D>("create the table", self.link.place(), cause)),
            None => Ok(()),
        }
    }

    async fn set_one(&self, write: &Write) -> Result<Written> {
        let set = move |mut lease: Lease<D>| async move {
            let written = D::set(&mut lease, &self.statements, write).await;
            (lease, written)
        };
        let written = self.link.run("set", Repeat::Never, set).await?;
        written.ok_or_else(|| failure::crowded::<D>("set", self.link.place()))
    }

    async fn set_together(&self, writes: &[&Write]) -> Result<Vec<Written>> {
        if let [write] = writes {
            return Ok(vec![self.set_one(write).await?]);
        }
        let set = move |mut lease: Lease<D>| async move {
            let written = D::set_many(&mut lease, &self.statements, writes).await;
            (lease, written)
        };
        let outcomes = self.link.run("set", Repeat::Never, set).await?;
        let mut written = Vec::with_capacity(writes.len());
        for (write, outcome) in writes.iter().zip(outcomes) {
            written.push(match outcome {
                Some(outcome) => outcome,
                None => self.set_one(write).await?,
            });
        }
        Ok(written)
    }

    async fn prune(&self) -> Result<u64> {
        let step = move |mut lease: Lease<D>| async move {
            let gone = D::prune(&mut lease, &self.statements, STEP_KEYS).await;
            (lease, gone)
        };
        let mut pruned = 0;
        loop {
            let gone = self.link.run("prune", Repeat::Harmless, step).await?;
            pruned += gone;
            if gone < STEP_KEYS.unsigned_abs() {
                return Ok(pruned);
            }
        }
    }
}

/// Prunes now and then, as long as there is a driver.
async fn keep_pruned<D: Dialect>(inner: Weak<Inner<D>>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        let Some(inner) = inner.upgrade() else { return };
        // What fails is tried again the next time; what has expired is not handed out meanwhile.
        let _ = inner.prune().await;
    }
}

#[async_trait]
impl<D: Dialect> Driver for SqlDriver<D> {
    fn name(&self) -> &'static str {
        D::NAME
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            enumerates: true,
            shared: true,
            persistent: true,
            value_bytes_max: Some(D::VALUE_BYTES_MAX),
        }
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        check_key::<D>("get", key)?;
        let Inner { link, statements, .. } = &*self.inner;
        let get = move |mut lease: Lease<D>| async move {
            let found = D::get(&mut lease, statements, key).await;
            (lease, found)
        };
        link.run("get", Repeat::Harmless, get).await
    }

    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>, when: When) -> Result<Written> {
        let write = Write { key: key.to_owned(), value, ttl, when };
        check_write::<D>(&write)?;
        self.inner.set_one(&write).await
    }

    async fn delete(&self, key: &str) -> Result<bool> {
        Ok(self.delete_many(&[key]).await? > 0)
    }

    async fn get_many(&self, keys: &[&str]) -> Result<Vec<Option<Bytes>>> {
        let Inner { link, statements, .. } = &*self.inner;
        let mut values = HashMap::with_capacity(keys.len());
        for some in keys.chunks(TOGETHER_KEYS) {
            for key in some {
                check_key::<D>("get", key)?;
            }
            let get = move |mut lease: Lease<D>| async move {
                let found = D::get_many(&mut lease, statements, some).await;
                (lease, found)
            };
            values.extend(link.run("get", Repeat::Harmless, get).await?);
        }
        Ok(keys.iter().map(|key| values.get(key.as_bytes()).cloned()).collect())
    }

    async fn set_many(&self, writes: Vec<Write>) -> Result<Vec<Written>> {
        for write in &writes {
            check_write::<D>(write)?;
        }
        let mut written = Vec::with_capacity(writes.len());
        for some in runs(&writes, D::go_together) {
            // Everyone takes the rows of several keys in the same order, so that nobody waits in a circle.
            let mut order: Vec<(usize, &Write)> = some.iter().enumerate().collect();
            order.sort_unstable_by(|(_, one), (_, other)| one.key.cmp(&other.key));
            let ordered: Vec<&Write> = order.iter().map(|(_, write)| *write).collect();
            let outcomes = self.inner.set_together(&ordered).await?;
            let mut outcomes: Vec<(usize, Written)> = order.iter().map(|(at, _)| *at).zip(outcomes).collect();
            outcomes.sort_unstable_by_key(|(at, _)| *at);
            written.extend(outcomes.into_iter().map(|(_, outcome)| outcome));
        }
        Ok(written)
    }

    async fn delete_many(&self, keys: &[&str]) -> Result<u64> {
        let Inner { link, statements, .. } = &*self.inner;
        let mut deleted = 0;
        for some in keys.chunks(TOGETHER_KEYS) {
            for key in some {
                check_key::<D>("delete", key)?;
            }
            let delete = move |mut lease: Lease<D>| async move {
                let gone = D::delete(&mut lease, statements, some).await;
                (lease, gone)
            };
            deleted += link.run("delete", Repeat::Never, delete).await?;
        }
        Ok(deleted)
    }

    fn scan<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Scanned>> {
        let (from, below) = range_of(prefix);
        let pages = stream::try_unfold(Some(from), move |from| {
            let below = below.clone();
            async move {
                let Some(from) = from else { return Ok(None) };
                let Inner { link, statements, .. } = &*self.inner;
                let range = (&from[..], &below[..]);
                let page = move |mut lease: Lease<D>| async move {
                    let page = D::page(&mut lease, statements, range, STEP_KEYS).await;
                    (lease, page)
                };
                let (page, rest) = link.run("scan", Repeat::Harmless, page).await?;
                Ok::<_, Error>(Some((stream::iter(page.into_iter().map(Ok)), rest)))
            }
        });
        pages.try_flatten().boxed()
    }

    async fn clear(&self, prefix: &str, until: Stamp) -> Result<u64> {
        check_prefix(prefix)?;
        let Inner { link, statements, .. } = &*self.inner;
        let (mut from, below) = range_of(prefix);
        let mut cleared = 0;
        loop {
            let range = (&from[..], &below[..]);
            let step = move |mut lease: Lease<D>| async move {
                let step = D::clear(&mut lease, statements, range, until, STEP_KEYS).await;
                (lease, step)
            };
            let (gone, rest) = link.run("clear", Repeat::Never, step).await?;
            cleared += gone;
            match rest {
                Some(rest) => from = rest,
                None => return Ok(cleared),
            }
        }
    }

    /// Removes what has expired, some hundred rows at a time. Giving the space back is the database's business.
    async fn prune(&self) -> Result<u64> {
        self.inner.prune().await
    }

    async fn version(&self) -> Result<Option<String>> {
        let ask = move |mut lease: Lease<D>| async move {
            let version = D::version(&mut lease).await;
            (lease, version)
        };
        self.inner.link.run("version", Repeat::Harmless, ask).await.map(Some)
    }

    async fn close(&self) -> Result<()> {
        if let Some(pruning) = &self.pruning {
            pruning.abort();
        }
        self.inner.link.close().await;
        Ok(())
    }
}

/// A longer key would be cut off by some databases, and meet another one.
fn check_key<D: Dialect>(what: &str, key: &str) -> Result<()> {
    if key.len() > KEY_BYTES_MAX {
        let message =
            format!("{} {what}: a key of {} bytes, where {KEY_BYTES_MAX} are the most", D::NAME, key.len());
        return Err(Error::new(ErrorKind::InvalidKey, message));
    }
    Ok(())
}

fn check_write<D: Dialect>(write: &Write) -> Result<()> {
    check_key::<D>("set", &write.key)?;
    let (bytes, max) = (write.value.len() as u64, D::VALUE_BYTES_MAX);
    if bytes > max {
        let message = format!("storing a value of {bytes} bytes in {}, where {max} are the most", D::NAME);
        return Err(Error::new(ErrorKind::TooLarge, message));
    }
    Ok(())
}

/// Writes in runs that one statement can do: of different keys, with conditions that go together, and not too many. A
/// large one may stand alone.
fn runs(writes: &[Write], go_together: fn(&Write, &Write) -> bool) -> impl Iterator<Item = &[Write]> {
    let mut rest = writes;
    std::iter::from_fn(move || {
        let first = rest.first()?;
        let (mut keys, mut bytes) = (HashSet::new(), 0);
        let fits = rest.iter().take(TOGETHER_WRITES).take_while(|write| {
            bytes += write.value.len();
            bytes <= TOGETHER_BYTES && go_together(first, write) && keys.insert(write.key.as_str())
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
    fn a_run_has_each_key_once_and_one_kind_of_condition() {
        let write = |key: &str, bytes: usize, when| Write {
            key: key.to_owned(),
            value: Bytes::from(vec![0; bytes]),
            ttl: None,
            when,
        };
        let lengths = |writes: &[Write]| -> Vec<usize> {
            runs(writes, |one, other| one.when == other.when).map(<[Write]>::len).collect()
        };
        let (always, newer) = (When::Always, When::Newer);
        assert_eq!(lengths(&[]), [0; 0]);
        assert_eq!(lengths(&[write("a", 1, newer), write("b", 1, newer), write("a", 1, newer)]), [2, 1]);
        assert_eq!(lengths(&[write("a", 1, newer), write("b", 1, always), write("c", 1, always)]), [1, 2]);
        assert_eq!(
            lengths(&[write("a", TOGETHER_BYTES + 1, newer), write("b", 1, newer), write("c", 1, newer)]),
            [1, 2]
        );
        let many: Vec<Write> = (0..1_001).map(|n| write(&n.to_string(), 1, newer)).collect();
        assert_eq!(lengths(&many), [500, 500, 1]);
    }
}
