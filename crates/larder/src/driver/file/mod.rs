//! One file per entry in a directory that several processes may share. Unix only.
//!
//! A file's name is a hash of its key, so that no key can name a path; the key itself is inside, and is
//! compared. Every write makes a new file and renames it into place, so a reader sees one whole value or the
//! other. Nothing is flushed to the disk on its own account: this is a cache, and what a power failure tears
//! reads as nothing.
//!
//! Every access goes through the opened directory, one step at a time, and follows no symbolic link: once
//! open, the driver cannot be led outside, whoever replaces whatever by a link. What can still be done by
//! whoever may write to the directory is to remove or damage entries, which then read as nothing.
//!
//! The rooms inside: `layout` (names and bytes, pure), `directory` (single files), `sweep` (many files).

mod directory;
mod layout;
mod sweep;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, spawn_blocking};

use self::directory::Directory;
use self::sweep::Walk;
use crate::driver::{Capabilities, Driver, Scanned, When, Write, Written, check_prefix};
use crate::error::{Error, ErrorKind, Result};
use crate::key::KEY_BYTES_MAX;
use crate::time::{Clock, Stamp, SystemClock, Timestamp, seconds};

/// The largest value that this driver takes, in bytes: 1 GiB.
pub const VALUE_BYTES_MAX: u64 = 1 << 30;
/// The deepest tree of directories.
pub const LEVELS_MAX: u8 = 4;
/// How many files one step of a listing looks at.
const SCAN_STEP: usize = 256;

/// Where a [`FileDriver`] keeps its files, and how many.
///
/// ```
/// use larder::driver::file::FileOptions;
/// let mut options = FileOptions::new("/var/cache/app");
/// options.max_bytes = Some(1 << 30);
/// assert_eq!(options.levels, 2);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileOptions {
    /// The directory, for this cache alone.
    pub directory: PathBuf,
    /// Whether the directory is created if it is missing, along with those above it. Default: yes.
    pub create: bool,
    /// How large all files may become together, in bytes; the least recently written go first. It is enforced
    /// by pruning, so it may be exceeded for a while. Default: no bound.
    pub max_bytes: Option<u64>,
    /// How often expired files are removed in the background; `None` is never. Default: 60 seconds.
    pub prune_interval: Option<Duration>,
    /// How many levels of directories, of 256 each, files are spread over, up to [`LEVELS_MAX`]. Default: 2.
    pub levels: u8,
    /// What file names end with: ASCII letters, digits, `.`, `-` and `_`, up to 32. Default: `.larder`.
    pub suffix: String,
}

impl FileOptions {
    /// The defaults for a directory.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            create: true,
            max_bytes: None,
            prune_interval: Some(seconds(60)),
            levels: 2,
            suffix: ".larder".to_owned(),
        }
    }

    /// Whether the options make sense, without opening anything.
    #[cfg(feature = "config")]
    pub(crate) fn check(&self) -> Result<()> {
        layout::check(self)
    }
}

/// A driver that keeps each entry in a file.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use larder::driver::Driver;
/// use larder::driver::file::{FileDriver, FileOptions};
/// # let scratch = tempfile::tempdir().unwrap();
/// # let directory = scratch.path().join("cache");
/// let driver = FileDriver::open(FileOptions::new(directory)).await?;
/// assert_eq!(driver.get("nothing yet").await?, None);
/// # Ok::<(), larder::Error>(()) }).unwrap();
/// ```
#[derive(Debug)]
pub struct FileDriver {
    inner: Arc<Inner>,
    pruner: Option<AbortHandle>,
}

#[derive(Debug)]
struct Inner {
    options: FileOptions,
    clock: Arc<dyn Clock>,
    directory: RwLock<Arc<Directory>>,
    /// Held by a prune, so that two of them do not count the same files.
    pruning: Mutex<()>,
    /// About how large all files are together; a prune counts anew.
    bytes: AtomicU64,
    over_bound: Notify,
}

impl FileDriver {
    /// Opens a directory, and makes it if it is not there and may be made. Needs a tokio runtime, in which the background
    /// prune lives until the driver is dropped or closed.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the directory is a symbolic link, `/`, the home directory, holds files that
    /// are not this driver's, was made with other levels or another suffix, belongs to another user and is
    /// open to others, or is missing and not to be created; [`ErrorKind::Unavailable`] if it cannot be made or opened.
    pub async fn open(options: FileOptions) -> Result<Self> {
        Self::open_with_clock(options, Arc::new(SystemClock::default())).await
    }

    /// As [`FileDriver::open`], with a clock that says when files expire. Processes that share a directory
    /// need to agree on the time.
    ///
    /// # Errors
    /// As [`FileDriver::open`].
    pub async fn open_with_clock(options: FileOptions, clock: Arc<dyn Clock>) -> Result<Self> {
        layout::check(&options)?;
        let opened = options.clone();
        let directory = run(move || Directory::open(&opened)).await?;
        let inner = Arc::new(Inner {
            options,
            clock,
            directory: RwLock::new(Arc::new(directory)),
            pruning: Mutex::new(()),
            bytes: AtomicU64::new(0),
            over_bound: Notify::new(),
        });
        if inner.options.max_bytes.is_some() {
            // What is there already has to be counted.
            inner.over_bound.notify_one();
        }
        let every = inner.options.prune_interval;
        let pruner = every.map(|every| tokio::spawn(prune_every(every, Arc::clone(&inner))).abort_handle());
        Ok(Self { inner, pruner })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.inner.options.directory
    }

    /// Runs file operations on a thread that may block. If the future is dropped, they are still carried out.
    async fn blocking<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(&self.inner);
        run(move || operation(&inner)).await
    }
}

impl Drop for FileDriver {
    fn drop(&mut self) {
        if let Some(pruner) = &self.pruner {
            pruner.abort();
        }
    }
}

async fn run<T: Send + 'static>(operation: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    spawn_blocking(operation).await.unwrap_or_else(|error| {
        Err(Error::from_source(ErrorKind::Unavailable, "a file operation was cut short", error))
    })
}

/// Prunes at intervals, and at once when the bound is exceeded, until the driver is dropped and aborts it.
async fn prune_every(every: Duration, inner: Arc<Inner>) {
    // A timer cannot be set for ever, nor for never.
    let every = every.clamp(Duration::from_millis(10), seconds(86_400));
    loop {
        // A timeout is the usual reason to go on.
        let _ = tokio::time::timeout(every, inner.over_bound.notified()).await;
        let pruning = Arc::clone(&inner);
        // What fails now is tried again at the next turn, and a caller's own prune reports it.
        let _ = run(move || pruning.prune()).await;
        // However much is written, a prune is not all that happens.
        tokio::time::sleep(every.min(Duration::from_millis(100))).await;
    }
}

impl Inner {
    /// The directory, made anew if it was removed since.
    fn directory(&self) -> Result<Arc<Directory>> {
        let directory = Arc::clone(&self.directory.read());
        if !directory.is_gone() {
            return Ok(directory);
        }
        let mut current = self.directory.write();
        if current.is_gone() {
            *current = Arc::new(Directory::open(&self.options)?);
        }
        Ok(Arc::clone(&current))
    }

    fn get(&self, key: &str) -> Result<Option<Bytes>> {
        self.directory()?.get(key, self.clock.now())
    }

    fn set(&self, write: Write) -> Result<Written> {
        let Write { key, value, ttl, when } = write;
        if key.len() > KEY_BYTES_MAX {
            let message = format!("a key of {} bytes is longer than {KEY_BYTES_MAX}", key.len());
            return Err(Error::new(ErrorKind::InvalidKey, message));
        }
        let limit = self.options.max_bytes.unwrap_or(VALUE_BYTES_MAX).min(VALUE_BYTES_MAX);
        if value.len() as u64 > limit {
            let message =
                format!("a value of {} bytes is larger than the {limit} of the file driver", value.len());
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        let now = self.clock.now();
        let until = ttl.map_or(Timestamp::FOREVER, |ttl| now + ttl);
        let (written, file_bytes) = self.directory()?.set(&key, &value, until, when, now)?;
        let bytes = self.bytes.fetch_add(file_bytes, Ordering::Relaxed).saturating_add(file_bytes);
        if self.options.max_bytes.is_some_and(|max| bytes > max) {
            self.over_bound.notify_one();
        }
        Ok(written)
    }

    fn delete(&self, key: &str) -> Result<bool> {
        self.directory()?.delete(key, self.clock.now())
    }

    fn prune(&self) -> Result<u64> {
        let _one_at_a_time = self.pruning.lock();
        let pruned = sweep::prune(&self.directory()?, self.clock.now(), self.options.max_bytes)?;
        self.bytes.store(pruned.bytes_left, Ordering::Relaxed);
        Ok(pruned.entries)
    }
}

#[async_trait]
impl Driver for FileDriver {
    fn name(&self) -> &'static str {
        "file"
    }

    fn capabilities(&self) -> Capabilities {
        let value_bytes_max = self.inner.options.max_bytes.unwrap_or(VALUE_BYTES_MAX).min(VALUE_BYTES_MAX);
        Capabilities {
            enumerates: true,
            shared: true,
            persistent: true,
            value_bytes_max: Some(value_bytes_max),
        }
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        let key = key.to_owned();
        self.blocking(move |inner| inner.get(&key)).await
    }

    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>, when: When) -> Result<Written> {
        let write = Write { key: key.to_owned(), value, ttl, when };
        self.blocking(move |inner| inner.set(write)).await
    }

    async fn delete(&self, key: &str) -> Result<bool> {
        let key = key.to_owned();
        self.blocking(move |inner| inner.delete(&key)).await
    }

    // A batch is one trip to a thread, not one per key.

    async fn get_many(&self, keys: &[&str]) -> Result<Vec<Option<Bytes>>> {
        let keys = owned(keys);
        self.blocking(move |inner| keys.iter().map(|key| inner.get(key)).collect()).await
    }

    async fn set_many(&self, writes: Vec<Write>) -> Result<Vec<Written>> {
        self.blocking(move |inner| writes.into_iter().map(|write| inner.set(write)).collect()).await
    }

    async fn delete_many(&self, keys: &[&str]) -> Result<u64> {
        let keys = owned(keys);
        self.blocking(move |inner| {
            keys.iter().try_fold(0, |deleted, key| Ok(deleted + u64::from(inner.delete(key)?)))
        })
        .await
    }

    fn scan<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Scanned>> {
        // Pulled step by step, so that a listing that nobody reads on holds no thread.
        let begin = move || async move {
            let prefix = prefix.to_owned();
            self.blocking(move |inner| Ok((Walk::new(inner.directory()?)?, prefix))).await
        };
        let steps = stream::once(begin()).flat_map(move |begun| match begun {
            Ok(walk) => stream::unfold(Some(walk), move |walk| self.scan_step(walk)).boxed(),
            Err(error) => stream::iter([vec![Err(error)]]).boxed(),
        });
        steps.flat_map(stream::iter).boxed()
    }

    async fn clear(&self, prefix: &str, until: Stamp) -> Result<u64> {
        check_prefix(prefix)?;
        let prefix = prefix.to_owned();
        self.blocking(move |inner| sweep::clear(&inner.directory()?, &prefix, until, inner.clock.now())).await
    }

    async fn prune(&self) -> Result<u64> {
        self.blocking(Inner::prune).await
    }

    async fn ping(&self) -> Result<()> {
        self.blocking(|inner| inner.directory()?.check_marker()).await
    }

    /// Ends the background prune and waits for writes that are under way. The driver can still be used.
    async fn close(&self) -> Result<()> {
        if let Some(pruner) = &self.pruner {
            pruner.abort();
        }
        self.blocking(|inner| {
            inner.directory.read().wait_for_writers();
            Ok(())
        })
        .await
    }
}

type ScanState = Option<(Walk, String)>;

impl FileDriver {
    /// Looks at some files more. What fails ends the listing.
    async fn scan_step(&self, state: ScanState) -> Option<(Vec<Result<Scanned>>, ScanState)> {
        let (mut walk, prefix) = state?;
        let step = self.blocking(move |inner| {
            let (found, ended) = walk.scan(&prefix, SCAN_STEP, inner.clock.now())?;
            Ok((found, (!ended).then_some((walk, prefix))))
        });
        Some(match step.await {
            Ok((found, state)) => (found.into_iter().map(Ok).collect(), state),
            Err(error) => (vec![Err(error)], None),
        })
    }
}

fn owned(keys: &[&str]) -> Vec<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}
