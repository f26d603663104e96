//! Writing the source and then the cache, in a task of its own, so that a caller who gives up leaves neither
//! half-way. Knows nothing of what a source is.

use std::any::Any;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use crate::cache::{Cache, Set};
use crate::error::{BoxError, Error, ErrorKind, Result};
use crate::source::doubt::Doubt;
use crate::source::second_delete::{SecondDelete, SecondDeletes};
use crate::source::{KnownKeys, ReadThrough};
use crate::stack::{Core, Door, NewValue, Writing, of_caller, panic_text};
use crate::time::{Stamp, Ttl};

/// What writes any key in the source, without its types.
pub(super) type Store<V> =
    Arc<dyn Fn(String, Arc<V>) -> BoxFuture<'static, std::result::Result<(), BoxError>> + Send + Sync>;

/// A cache whose values are written in their source first and then in the cache: see
/// [`ReadThrough::write_through`]. Cheap to clone.
///
/// - **The source refuses:** the cache is as it was, and the caller gets [`ErrorKind::Write`].
/// - **It is not known whether the source took it** (a timeout, a connection that broke, a panic, and what
///   [`WriteThrough::in_doubt_if`] names): the key is deleted from the cache, and the caller gets
///   [`ErrorKind::InDoubt`].
/// - **Writes of one key overlap:** nobody knows which of them the source took last, so the key is deleted, and the
///   next read loads it. That holds among all handles of a stack in this process.
/// - **A load is under way:** the write wins over it.
/// - **The caller gives up:** the write goes on, in a task of its own, and the cache follows it.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// # use std::sync::Arc;
/// # use larder::{ErrorKind, Stack, memory::MemoryOptions, time::minutes};
/// # let cache = Stack::builder("demo").memory(MemoryOptions::new(1_000)).build()?.cache::<String>()?;
/// # async fn find(_: &str) -> Result<Option<String>, std::io::Error> { Ok(None) }
/// # async fn save(_: &str, name: &str) -> Result<(), std::io::Error> {
/// #     if name.is_empty() { Err(std::io::Error::other("a name is missing")) } else { Ok(()) }
/// # }
/// # async fn remove(_: &str) -> Result<(), std::io::Error> { Ok(()) }
/// let users = cache
///     .read_through(|id: String| async move { find(&id).await })
///     .write_through(|id: String, name: Arc<String>| async move { save(&id, &name).await });
/// users.set("42", "Ada".to_owned()).ttl(minutes(5)).tags(["staff"]).await?;
/// assert_eq!(users.get("42").await?.as_deref(), Some(&"Ada".to_owned()));
///
/// let refused = users.set("42", String::new()).await.unwrap_err();
/// assert_eq!(refused.kind(), ErrorKind::Write);
/// assert_eq!(refused.write_error::<std::io::Error>().unwrap().to_string(), "a name is missing");
///
/// users.change("42", || async { remove("42").await }).await?; // and the cache has nothing either
/// assert_eq!(users.get("42").await?, None);
/// # Ok::<(), larder::Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct WriteThrough<V> {
    pub(super) read: ReadThrough<V>,
    pub(super) store: Store<V>,
    pub(super) doubt: Doubt,
}

/// A cache whose values are written in their source, upon which the cache forgets them: see
/// [`ReadThrough::write_invalidate`]. Cheap to clone.
///
/// For values that are written more often than read, and for those that are not what the cache keeps but what it is
/// made from. What is said of [`WriteThrough`] about failures, doubt, loads and callers who give up holds here too.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// # use std::sync::Arc;
/// # use larder::{Stack, memory::MemoryOptions, time::seconds};
/// # let cache = Stack::builder("demo").memory(MemoryOptions::new(1_000)).build()?.cache::<String>()?;
/// # async fn find(_: &str) -> Result<Option<String>, std::io::Error> { Ok(Some("Ada".to_owned())) }
/// # async fn save(_: &str, _: &str) -> Result<(), std::io::Error> { Ok(()) }
/// let users = cache
///     .read_through(|id: String| async move { find(&id).await })
///     .write_invalidate(|id: String, name: Arc<String>| async move { save(&id, &name).await })
///     .delete_again_after(seconds(1));
/// users.set("42", "Ada".to_owned()).await?;
/// assert!(!users.cache().has("42").await?);
/// assert_eq!(users.pending_deletes(), 1);
/// # Ok::<(), larder::Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct WriteInvalidate<V> {
    pub(super) read: ReadThrough<V>,
    pub(super) store: Store<V>,
    pub(super) doubt: Doubt,
    pub(super) second: SecondDeletes,
}

/// What both handles have.
macro_rules! written_source {
    ($handle:ident) => {
        impl<V> fmt::Debug for $handle<V> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($handle)).field("read", &self.read).finish_non_exhaustive()
            }
        }

        impl<V: Any + Send + Sync> $handle<V> {
            /// Reads through: see [`ReadThrough::get`].
            ///
            /// # Errors
            /// As [`ReadThrough::get`].
            pub async fn get(&self, key: &str) -> Result<Option<Arc<V>>> {
                self.read.get(key).await
            }

            /// The cache, for everything that is not about its source. What is set there does not reach the
            /// source, nor the filter of known keys.
            pub fn cache(&self) -> &Cache<V> {
                self.read.cache()
            }

            /// Also takes errors of type `E` for doubt of which this is true: beside timeouts, broken connections
            /// and panics, which are known. The error and its causes are looked at.
            #[must_use]
            pub fn in_doubt_if<E: std::error::Error + 'static>(
                mut self,
                is_in_doubt: impl Fn(&E) -> bool + Send + Sync + 'static,
            ) -> Self {
                self.doubt = self.doubt.or_if(is_in_doubt);
                self
            }

            /// Changes the source under a key in whatever way, a delete among them, and then deletes the key from
            /// the cache. Returns what the change returns.
            ///
            /// Once it has begun, dropping the future does not stop it.
            ///
            /// # Errors
            /// As for `set`.
            pub async fn change<F, Fut, T, E>(&self, key: &str, change: F) -> Result<T>
            where
                F: FnOnce() -> Fut + Send + 'static,
                Fut: Future<Output = std::result::Result<T, E>> + Send + 'static,
                T: Send + 'static,
                E: Into<BoxError>,
            {
                let change: Change<T> =
                    Box::new(|| Box::pin(async move { change().await.map_err(Into::into) }));
                self.job(key)?.start(change).await
            }
        }
    };
}

written_source!(WriteThrough);
written_source!(WriteInvalidate);

impl<V: Any + Send + Sync> WriteThrough<V> {
    /// Writes a value in the source and then in the cache. Options of the cache's entry can be added before the
    /// `.await`; with a TTL of zero the cache keeps nothing.
    ///
    /// Once it has begun, dropping the future does not stop it.
    ///
    /// # Errors
    /// [`ErrorKind::Write`] if the source refused, [`ErrorKind::InDoubt`] if nobody knows; both with the error of the
    /// source inside ([`Error::write_error`]). [`ErrorKind::Overloaded`] beyond
    /// [`SOURCE_WRITES_MAX`](crate::SOURCE_WRITES_MAX), [`ErrorKind::Closed`], [`ErrorKind::InvalidKey`] and
    /// [`ErrorKind::Unsupported`] outside a tokio runtime come before anything is written. With any other kind, the
    /// source has the value and the cache failed: as [`Cache::set`], and what the cache cannot keep it does not have.
    pub fn set<'a>(&'a self, key: &'a str, value: V) -> SetThrough<'a, V> {
        SetThrough { handle: self, set: self.cache().set(key, value) }
    }

    fn job(&self, key: &str) -> Result<Job> {
        Job::new(&self.read, key, &self.doubt)
    }
}

impl<V: Any + Send + Sync> WriteInvalidate<V> {
    /// Writes a value in the source and then deletes the key from the cache.
    ///
    /// Once it has begun, dropping the future does not stop it.
    ///
    /// # Errors
    /// [`ErrorKind::Write`] if the source refused, [`ErrorKind::InDoubt`] if nobody knows; both with the error of the
    /// source inside ([`Error::write_error`]). [`ErrorKind::Overloaded`] beyond
    /// [`SOURCE_WRITES_MAX`](crate::SOURCE_WRITES_MAX), [`ErrorKind::Closed`], [`ErrorKind::InvalidKey`] and
    /// [`ErrorKind::Unsupported`] outside a tokio runtime come before anything is written. With any other kind, the
    /// source has the value and the cache failed, as [`Cache::delete`].
    pub async fn set(&self, key: &str, value: V) -> Result<()> {
        let (store, name, value) = (Arc::clone(&self.store), key.to_owned(), Arc::new(value));
        self.job(key)?.start(Box::new(move || store(name, value))).await
    }

    fn job(&self, key: &str) -> Result<Job> {
        let second = self.second.reserve(&self.cache().core)?;
        Ok(Job { second, ..Job::new(&self.read, key, &self.doubt)? })
    }

    /// Deletes the key from the cache a second time, this long after a write: for loads of other processes, or from
    /// replicas that lag behind, that bring back what they read before the write. It should be longer than such a
    /// load may take. Each is pending in a task of its own, which does not need this handle; closing the stack makes
    /// them at once, and what is pending when the process ends is lost.
    #[must_use]
    pub fn delete_again_after(mut self, after: Duration) -> Self {
        self.second = self.second.after(after);
        self
    }

    /// How many second deletes of this handle and its clones are still to be made.
    pub fn pending_deletes(&self) -> usize {
        self.second.pending()
    }

    /// Waits until no second delete of this handle and its clones is pending. Dropping the future changes nothing.
    ///
    /// # Errors
    /// Of those that failed since the last call, the first one's, as [`Cache::delete`]. Each failure is an event too.
    pub async fn flush(&self) -> Result<()> {
        self.second.flush().await
    }
}

impl<V> Clone for WriteThrough<V> {
    fn clone(&self) -> Self {
        Self { read: self.read.clone(), store: Arc::clone(&self.store), doubt: self.doubt.clone() }
    }
}

impl<V> Clone for WriteInvalidate<V> {
    fn clone(&self) -> Self {
        let (store, second) = (Arc::clone(&self.store), self.second.clone());
        Self { read: self.read.clone(), store, doubt: self.doubt.clone(), second }
    }
}

/// A value about to be written in its source and in the cache: see [`WriteThrough::set`].
#[must_use = "nothing is written until it is awaited"]
pub struct SetThrough<'a, V> {
    handle: &'a WriteThrough<V>,
    set: Set<'a, V>,
}

impl<'a, V: Any + Send + Sync> SetThrough<'a, V> {
    /// How long the cache's entry is fresh; zero keeps nothing in the cache.
    pub fn ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.set = self.set.ttl(ttl);
        self
    }

    /// How long after that it may still be served when its loader fails.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.set = self.set.grace(grace);
        self
    }

    /// What it can be invalidated by. A second call adds to the first.
    pub fn tags(mut self, tags: impl IntoIterator<Item = &'a str>) -> Self {
        self.set = self.set.tags(tags);
        self
    }

    /// The validator of its source.
    pub fn etag(mut self, etag: &'a str) -> Self {
        self.set = self.set.etag(etag);
        self
    }

    /// When its source says that it was modified.
    pub fn last_modified(mut self, last_modified: &'a str) -> Self {
        self.set = self.set.last_modified(last_modified);
        self
    }
}

impl<V> fmt::Debug for SetThrough<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetThrough").field("handle", self.handle).finish_non_exhaustive()
    }
}

impl<'a, V: Any + Send + Sync> IntoFuture for SetThrough<'a, V> {
    type Output = Result<()>;
    type IntoFuture = BoxFuture<'a, Result<()>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { handle, set } = self;
            let (key, value, new) = set.prepare()?;
            let job = Job { put: Some(new), ..handle.job(key)? };
            let (store, name) = (Arc::clone(&handle.store), key.to_owned());
            job.start(Box::new(move || store(name, value))).await
        })
    }
}

/// A write of the source, without its types.
type Change<T> = Box<dyn FnOnce() -> BoxFuture<'static, std::result::Result<T, BoxError>> + Send>;

/// A write of the source and what has to follow it in the cache.
struct Job {
    entry: Place,
    writing: Writing,
    known: Option<KnownKeys>,
    doubt: Doubt,
    /// What the cache is to have afterwards; `None` is nothing.
    put: Option<NewValue>,
    second: Option<SecondDelete>,
}

impl Job {
    /// # Errors
    /// Everything that can be known before the source is written.
    fn new<V: Any + Send + Sync>(read: &ReadThrough<V>, key: &str, doubt: &Doubt) -> Result<Self> {
        let cache = read.cache();
        cache.enter(key)?;
        let (core, door) = (Arc::clone(&cache.core), Arc::clone(&cache.door));
        let writing = Writing::begin(&core, &door.space, key)?;
        let entry = Place { core, door, key: key.to_owned(), is_in_doubt: false };
        Ok(Self {
            entry,
            writing,
            known: read.known().cloned(),
            doubt: doubt.clone(),
            put: None,
            second: None,
        })
    }

    /// Runs it in a task of its own, and waits.
    async fn start<T: Send + 'static>(self, change: Change<T>) -> Result<T> {
        let key = self.entry.key.clone();
        let runtime = tokio::runtime::Handle::try_current().map_err(|error| {
            Error::from_source(ErrorKind::Unsupported, "writing a source needs a tokio runtime", error)
        })?;
        match runtime.spawn(of_caller(self.run(change))).await {
            Ok(outcome) => outcome,
            Err(error) => {
                let message = format!("the write of key {key:?} in its source was ended before it was done");
                Err(Error::from_source(ErrorKind::InDoubt, message, error))
            }
        }
    }

    async fn run<T>(self, change: Change<T>) -> Result<T> {
        let Self { mut entry, writing, known, doubt, put, second } = self;
        let core = Arc::clone(&entry.core);
        // Before the source has it, so that no reader is told that it has not.
        known.iter().for_each(|known| known.add(&entry.key));
        entry.is_in_doubt = true;
        // What is the user's may panic, his judgement of an error included.
        let change = async move { change().await.map_err(|error| (doubt.is_about(&error), error)) };
        let guarded = AssertUnwindSafe(change).catch_unwind();
        let outcome = core.writers.run(guarded).await;
        // And after, for a filter whose filling began meanwhile and may have passed by this key.
        known.iter().for_each(|known| known.add(&entry.key));
        let key = &entry.key;
        let written = match outcome {
            Ok(Ok(value)) => Ok(value),
            Ok(Err((false, error))) => {
                let message = format!("write of key {key:?} in its source");
                entry.is_in_doubt = false;
                return Err(Error::from_source(ErrorKind::Write, message, error));
            }
            Ok(Err((true, error))) => {
                let message = format!("the source may or may not have taken the write of key {key:?}");
                Err(Error::from_source(ErrorKind::InDoubt, message, error))
            }
            Err(panic) => {
                let message =
                    format!("the write of key {key:?} in its source panicked: {}", panic_text(&*panic));
                Err(Error::new(ErrorKind::InDoubt, message))
            }
        };
        let followed = entry.follow(put.filter(|_| written.is_ok()), &writing).await;
        entry.is_in_doubt = false;
        drop(writing);
        if let Some(second) = second {
            second.start(core, Arc::clone(&entry.door), entry.key.clone());
        }
        let value = written?;
        match followed {
            Ok(()) => Ok(value),
            Err(error) => {
                let message = format!("the source took the write of key {:?}, the cache did not", entry.key);
                Err(Error::from_source(error.kind(), message, error))
            }
        }
    }
}

/// The entry that a write of the source is about. While that is in doubt, memory forgets it if the write is
/// abandoned: its task was dropped with its runtime.
struct Place {
    core: Arc<Core>,
    door: Arc<Door>,
    key: String,
    is_in_doubt: bool,
}

impl Place {
    /// Brings the cache to where the source is: to the value if the write was alone, else to nothing.
    async fn follow(&self, put: Option<NewValue>, writing: &Writing) -> Result<()> {
        let Self { core, door, key, .. } = self;
        let mut set = Ok(());
        if let Some(new) = put.filter(|_| !writing.is_contended()) {
            set = core.set(door, key, new, core.clock.now()).await;
            // After one that may pass, memory has the value, and the store will be told again. After one that will
            // not, the cache still has what was there before.
            let has_value = set.as_ref().map_or_else(|error| error.kind().is_transient(), |()| true);
            if has_value && !writing.is_contended() {
                return set;
            }
        }
        let deleted = core.delete(door, key, core.clock.now()).await;
        set.and(deleted.map(drop))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_in_doubt {
            drop(self.core.forget(&self.door.space, &self.key, Stamp::MAX));
        }
    }
}
