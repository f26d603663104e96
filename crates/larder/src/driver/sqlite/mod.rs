//! The SQLite driver: one table in one file, which several processes may share.
//!
//! Writes go through one thread, which puts what waits into one transaction; reads through a few others, which
//! WAL lets read while someone writes. Knows nothing of what the values are, apart from where a head ends.
//!
//! Rooms: `table` has every SQL statement, `lane` the queues and transactions, `worker` what the threads do.

mod lane;
mod table;
mod worker;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};

use crate::driver::range::range_of;
use crate::driver::{Capabilities, Driver, Scanned, When, Write, Written, check_prefix};
use crate::error::{Error, ErrorKind, Result};
use crate::time::{Clock, Stamp, SystemClock, seconds};

use lane::Lane;
use table::{Opening, Table};
use worker::Desk;

/// How many keys a page of a scan has.
const PAGE_KEYS: usize = 512;
/// How many keys one transaction of a clear looks at, so that others get to write in between.
const CLEAR_KEYS: usize = 500;
/// The smallest bound that can be kept: what an empty database and its log take is a good part of it.
const MAX_BYTES_MIN: u64 = 256 * 1024;

/// Where a SQLite database lives.
///
/// ```
/// use larder::driver::sqlite::SqliteLocation;
/// assert_eq!(SqliteLocation::from(":memory:"), SqliteLocation::Memory);
/// assert_eq!(SqliteLocation::from("cache.db"), SqliteLocation::File("cache.db".into()));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SqliteLocation {
    /// In this process's memory, until the driver is closed or dropped.
    Memory,
    /// In a file. A path is a path: nothing in it is read as a URI.
    File(PathBuf),
}

impl From<PathBuf> for SqliteLocation {
    /// `:memory:` is [`SqliteLocation::Memory`], as everywhere with SQLite.
    fn from(path: PathBuf) -> Self {
        if path.as_os_str() == ":memory:" { Self::Memory } else { Self::File(path) }
    }
}

impl From<&Path> for SqliteLocation {
    fn from(path: &Path) -> Self {
        path.to_path_buf().into()
    }
}

impl From<&str> for SqliteLocation {
    fn from(path: &str) -> Self {
        PathBuf::from(path).into()
    }
}

impl From<String> for SqliteLocation {
    fn from(path: String) -> Self {
        PathBuf::from(path).into()
    }
}

/// How a SQLite store is opened.
///
/// ```
/// use larder::driver::sqlite::SqliteOptions;
/// let mut options = SqliteOptions::new("cache.db");
/// options.max_bytes = Some(100 * 1024 * 1024);
/// assert_eq!(options.table, "larder");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SqliteOptions {
    /// Where it is.
    pub location: SqliteLocation,
    /// Whether a missing file is created, for its owner alone (mode 0600), and so its directory (0700) and its
    /// table. Default: yes. In memory it always is.
    pub create: bool,
    /// Whether the store is only read: nothing is created, every write is refused, and a file in a folder that
    /// may not be written to can be read. There it is taken as it is, without locks: if somebody who may write
    /// does so meanwhile, entries may be missing. Default: no.
    pub read_only: bool,
    /// The table: `[A-Za-z_][A-Za-z0-9_]{0,62}`. Default: `larder`.
    pub table: String,
    /// Whether a missing table is created, as [`SqliteDriver::schema`] says. Default: yes. In memory it always
    /// is.
    pub create_table: bool,
    /// How many bytes of the file may be in use, other tables and the room between rows included; at least
    /// 256 KiB. What was written longest ago goes first. The log beside the file comes on top: a quarter of
    /// this, 4 MiB at most. Default: no bound.
    pub max_bytes: Option<u64>,
    /// How often a process that writes looks for expired entries and gives back their space. Default: 60 s;
    /// `None` leaves it to [`Driver::prune`].
    pub prune_interval: Option<Duration>,
    /// How many threads read, each with its connection; they start when they are needed. Default: 4.
    pub readers: usize,
    /// How long to wait while other processes hold the file's lock, each time that one is needed: to begin a transaction, and
    /// to end it. Default: 5 s.
    pub busy_timeout: Duration,
}

impl SqliteOptions {
    /// The defaults, at a place.
    pub fn new(location: impl Into<SqliteLocation>) -> Self {
        Self {
            location: location.into(),
            create: true,
            read_only: false,
            table: "larder".to_owned(),
            create_table: true,
            max_bytes: None,
            prune_interval: Some(seconds(60)),
            readers: 4,
            busy_timeout: seconds(5),
        }
    }

    /// Whether the options make sense, without opening anything.
    pub(crate) fn check(&self) -> Result<()> {
        Table::new(&self.table)?;
        let wrong = |message: &'static str| Err(Error::new(ErrorKind::Config, message));
        if self.location == SqliteLocation::File(PathBuf::new()) {
            return wrong("the path of a sqlite file is empty");
        }
        if self.max_bytes.is_some_and(|max_bytes| max_bytes < MAX_BYTES_MIN) {
            return wrong("max_bytes of a sqlite store is less than 256 KiB");
        }
        if self.prune_interval.is_some_and(|interval| interval.is_zero()) {
            return wrong("the prune interval of a sqlite store is zero");
        }
        if self.readers == 0 {
            return wrong("a sqlite store needs a reader");
        }
        Ok(())
    }
}

/// A store in a table of a SQLite file.
///
/// Several drivers and processes may open one file at once. A write is acknowledged when it is committed: it
/// outlives the process from then on, whatever kills it, though the last ones may not outlive a power failure.
/// An entry whose TTL is over, by this machine's clock, is not returned, whether or not it was pruned.
///
/// A driver that is dropped finishes what was asked of it in the background; [`Driver::close`] waits for that.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> larder::Result<()> {
/// use larder::driver::{Driver, When, sqlite::{SqliteDriver, SqliteOptions}};
/// let store = SqliteDriver::open(SqliteOptions::new(":memory:")).await?;
/// store.set("key", "a record".into(), None, When::Always).await?;
/// assert_eq!(store.get("key").await?.unwrap(), "a record");
/// store.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct SqliteDriver {
    desk: Arc<Desk>,
    writes: Lane,
    /// None for a database in memory, which only the writer's connection can see.
    reads: Option<Lane>,
}

impl SqliteDriver {
    /// Opens a store, and creates what is missing, if it may.
    ///
    /// A store that is there costs one connection and two look-ups; the writer's comes with the first write.
    /// Dropping the future may leave the file and its table created.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if an option makes no sense, or if the file or the table is missing and not to be
    /// created, or is someone else's; [`ErrorKind::Unavailable`] if the file cannot be opened or is no database;
    /// [`ErrorKind::Timeout`] if another process keeps it locked.
    pub async fn open(options: SqliteOptions) -> Result<Self> {
        Self::open_with_clock(options, Arc::new(SystemClock::default())).await
    }

    /// As [`SqliteDriver::open`], with a clock of one's own to tell what has expired and when to prune. Processes
    /// that share a file have to agree about the time.
    ///
    /// # Errors
    /// As [`SqliteDriver::open`].
    pub async fn open_with_clock(options: SqliteOptions, clock: Arc<dyn Clock>) -> Result<Self> {
        options.check()?;
        let SqliteOptions { location, create, read_only, table, create_table, .. } = options;
        let SqliteOptions { max_bytes, prune_interval, readers, busy_timeout, .. } = options;
        let location = match location {
            SqliteLocation::Memory => SqliteLocation::Memory,
            // Connections are opened later as well, when the process may be in another directory. An absolute
            // path also has none of the names that mean something to SQLite.
            SqliteLocation::File(path) => {
                SqliteLocation::File(std::path::absolute(path).map_err(|cause| {
                    Error::from_source(ErrorKind::Unavailable, "finding the sqlite file's directory", cause)
                })?)
            }
        };
        let in_memory = location == SqliteLocation::Memory;
        let desk = Arc::new(Desk {
            opening: Opening { location, create: create && !read_only, read_only, busy_timeout, max_bytes },
            table: Table::new(&table)?,
            create_table: (create_table && create && !read_only) || in_memory,
            prune_interval,
            clock,
        });
        let (for_writer, for_readers) = (Arc::clone(&desk), Arc::clone(&desk));
        let writes = Lane::new(1, move |queue| for_writer.write(queue));
        let reads = (!in_memory).then(|| Lane::new(readers, move |queue| for_readers.read(queue)));
        let driver = Self { desk, writes, reads };
        driver.find_or_create().await?;
        Ok(driver)
    }

    async fn find_or_create(&self) -> Result<()> {
        let desk = Arc::clone(&self.desk);
        let found = self.reader().call("open", 0, move |connection| {
            // The outer result is SQLite's own; ours says what to do about it.
            Ok(table::find(connection, &desk.table).map_err(|cause| desk.table.unfit(cause)))
        });
        if found.await?? {
            return Ok(());
        }
        if !self.desk.create_table {
            let name = self.desk.table.name();
            let message = match &self.desk.opening {
                Opening { location: SqliteLocation::File(path), create: false, .. } => {
                    format!("there is no store at {}: the file has no table {name:?}", path.display())
                }
                _ => format!(
                    "the sqlite file has no table {name:?}, and it is not to be created (create_table is off)"
                ),
            };
            return Err(Error::new(ErrorKind::Config, message));
        }
        // A writer creates what is missing before it does anything.
        self.writes.call("open", 0, |_| Ok(())).await
    }

    /// The statements that create a table of this name, for a database where only a person may do that.
    ///
    /// ```
    /// use larder::driver::sqlite::SqliteDriver;
    /// assert!(SqliteDriver::schema("cache")?.starts_with("CREATE TABLE"));
    /// assert!(SqliteDriver::schema("x; DROP TABLE y").is_err());
    /// # Ok::<(), larder::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if it cannot name a table.
    pub fn schema(table: &str) -> Result<String> {
        Table::new(table).map(|table| table.schema())
    }

    fn reader(&self) -> &Lane {
        self.reads.as_ref().unwrap_or(&self.writes)
    }

    fn value_bytes_max(&self) -> u64 {
        self.desk.opening.max_bytes.map_or(table::VALUE_BYTES_MAX, |max| max.min(table::VALUE_BYTES_MAX))
    }

    fn check_size(&self, value: &[u8]) -> Result<u64> {
        let (bytes, max) = (value.len() as u64, self.value_bytes_max());
        if bytes > max {
            let message = format!("storing a value of {bytes} bytes in sqlite, where {max} are the most");
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        Ok(bytes)
    }
}

#[async_trait]
impl Driver for SqliteDriver {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn capabilities(&self) -> Capabilities {
        let file = self.reads.is_some();
        let value_bytes_max = Some(self.value_bytes_max());
        Capabilities { enumerates: true, shared: file, persistent: file, value_bytes_max }
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        let (desk, key) = (Arc::clone(&self.desk), key.to_owned());
        self.reader()
            .call("get", 0, move |connection| table::get(connection, &desk.table, &key, desk.clock.now()))
            .await
    }

    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>, when: When) -> Result<Written> {
        let bytes = self.check_size(&value)?;
        let (desk, write) = (Arc::clone(&self.desk), Write { key: key.to_owned(), value, ttl, when });
        self.writes
            .call("set", bytes, move |connection| {
                table::set(connection, &desk.table, &write, desk.clock.now())
            })
            .await
    }

    async fn delete(&self, key: &str) -> Result<bool> {
        let (desk, key) = (Arc::clone(&self.desk), key.to_owned());
        self.writes
            .call("delete", 0, move |connection| {
                table::delete(connection, &desk.table, &key, desk.clock.now())
            })
            .await
    }

    async fn get_many(&self, keys: &[&str]) -> Result<Vec<Option<Bytes>>> {
        let keys: Vec<String> = keys.iter().map(|&key| key.to_owned()).collect();
        let desk = Arc::clone(&self.desk);
        self.reader()
            .call("get", 0, move |connection| {
                table::get_many(connection, &desk.table, &keys, desk.clock.now())
            })
            .await
    }

    async fn set_many(&self, writes: Vec<Write>) -> Result<Vec<Written>> {
        let mut bytes = 0;
        for write in &writes {
            bytes += self.check_size(&write.value)?;
        }
        let desk = Arc::clone(&self.desk);
        let work = move |connection: &rusqlite::Connection| {
            let now = desk.clock.now();
            writes.iter().map(|write| table::set(connection, &desk.table, write, now)).collect()
        };
        self.writes.call("set", bytes, work).await
    }

    async fn delete_many(&self, keys: &[&str]) -> Result<u64> {
        let keys: Vec<String> = keys.iter().map(|&key| key.to_owned()).collect();
        let desk = Arc::clone(&self.desk);
        let work = move |connection: &rusqlite::Connection| {
            let now = desk.clock.now();
            keys.iter().try_fold(0, |deleted, key| {
                table::delete(connection, &desk.table, key, now).map(|there| deleted + u64::from(there))
            })
        };
        self.writes.call("delete", 0, work).await
    }

    fn scan<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Scanned>> {
        let (from, below) = range_of(prefix);
        // Page by page, each a short read: one long read would keep the log from being copied back.
        let pages = stream::try_unfold(Some(from), move |from| {
            let below = below.clone();
            async move {
                let Some(from) = from else { return Ok(None) };
                let desk = Arc::clone(&self.desk);
                let work = move |connection: &rusqlite::Connection| {
                    table::page(connection, &desk.table, (&from, &below), PAGE_KEYS, desk.clock.now())
                };
                let (page, rest) = self.reader().call("scan", 0, work).await?;
                Ok::<_, Error>(Some((stream::iter(page.into_iter().map(Ok)), rest)))
            }
        });
        pages.try_flatten().boxed()
    }

    async fn clear(&self, prefix: &str, until: Stamp) -> Result<u64> {
        check_prefix(prefix)?;
        let (mut from, below) = range_of(prefix);
        let mut cleared = 0;
        loop {
            let (desk, below) = (Arc::clone(&self.desk), below.clone());
            let work = move |connection: &rusqlite::Connection| {
                table::clear(connection, &desk.table, (&from, &below), until, CLEAR_KEYS)
            };
            let (deleted, rest) = self.writes.call("clear", 0, work).await?;
            cleared += deleted;
            match rest {
                Some(rest) => from = rest,
                None => return Ok(cleared),
            }
        }
    }

    /// Deletes what has expired, then what is above the bound, and gives the space back to the file system.
    async fn prune(&self) -> Result<u64> {
        self.writes.prune().await
    }

    async fn version(&self) -> Result<Option<String>> {
        Ok(Some(format!("SQLite {}", rusqlite::version())))
    }

    async fn close(&self) -> Result<()> {
        self.writes.refuse();
        if let Some(reads) = &self.reads {
            reads.close().await;
        }
        // The file's last connection copies the log back and removes it. Two that close at once each take the
        // other for the last one, so the writer's waits for the readers'.
        self.writes.close().await;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
