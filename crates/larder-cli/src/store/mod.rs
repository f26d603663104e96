//! The one door from the commands to the library: opens whatever store was named, and speaks to it in bytes.
//!
//! A process that does one thing gains nothing from a memory tier, so there is none: what another process
//! wrote is what is seen.

mod walk;

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use larder::codec::{Codec, CodecName, Json, MessagePack, Opaque};
use larder::config::{Config, DRIVERS, MemoryConfig, Origin, Registry, Setting, StackConfig, StoreConfig};
use larder::driver::Driver;
use larder::driver::memory::MemoryDriver;
use larder::driver::sqlite::{SqliteDriver, SqliteOptions};
use larder::entry::Freshness;
use larder::entry::wire::{CodecId, Head, Kind};
use larder::key::KeySpace;
use larder::memory::MemoryOptions;
use larder::time::{Clock, Stamp, SystemClock, Timestamp, Ttl, seconds};
use larder::{BoxError, Cache, Error, ErrorKind, Result, Stack};

use crate::args::high::{PREFIX, Place, RUN_NAMESPACE, Target, serve_file};
use crate::failure::Failure;
use crate::output::escape;

/// How long an operator waits for one answer of a store.
const DEADLINE: Duration = seconds(30);
/// How large the stores become that nobody named, in bytes. A URL's `max_bytes` says otherwise.
const DEFAULT_BYTES_MAX: u64 = 1 << 30;

/// What a command may do to the store that it opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// It only reads.
    Read,
    /// It changes what is there, and creates no store.
    Change,
    /// It stores something, and creates the store if there is none.
    Create,
}

/// A cache in a store, in one namespace.
#[derive(Debug)]
pub(crate) struct Store {
    stack: Stack,
    cache: Cache<Opaque>,
    namespace: Vec<String>,
    keys: KeySpace,
    /// The outermost namespace.
    root: KeySpace,
    /// What values are encoded with that are written: what `get` prints, `set` takes.
    codec: CodecId,
    /// How long values are fresh, if the configuration says so.
    ttl: Option<Ttl>,
}

/// An entry that was found.
#[derive(Debug)]
pub(crate) struct Found {
    /// Its encoded value.
    pub(crate) value: Bytes,
    /// Whether it is fresh; else it is within its grace.
    pub(crate) fresh: bool,
    /// What it is encoded with.
    pub(crate) codec: CodecId,
    pub(crate) age: Duration,
    /// `None` is forever.
    pub(crate) ttl_left: Option<Duration>,
    pub(crate) tags: Vec<String>,
    pub(crate) stamp: Stamp,
}

/// What becomes of entries that are cleared or invalidated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// They are gone.
    Gone,
    /// They are stale: only their grace is left.
    Stale,
}

/// How a value is stored; `None` leaves it to the cache.
#[derive(Debug, Default)]
pub(crate) struct Writing {
    pub(crate) ttl: Option<Ttl>,
    pub(crate) grace: Option<Duration>,
    pub(crate) tags: Vec<String>,
}

/// What is stored, counted by what may be done with it.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) live: u64,
    pub(crate) stale: u64,
    pub(crate) tombstones: u64,
    /// Not written by larder, or by a version that this one does not know.
    pub(crate) unreadable: u64,
    /// The age of the oldest that is live or stale.
    pub(crate) oldest: Option<Duration>,
    pub(crate) newest: Option<Duration>,
}

impl Store {
    /// The store of `larder run`, for values of up to so many bytes.
    pub(crate) async fn open_for_run(place: &Place) -> Result<Self, Failure> {
        let driver = open_place(place, Access::Create).await?;
        // Output has its own limit, `--max-output`; this one must not be smaller.
        let stack = Stack::builder("run").store(driver).prefix(PREFIX).value_bytes_max(u64::MAX).build()?;
        Ok(Self::new(stack, PREFIX, &[RUN_NAMESPACE.to_owned()], CodecId::BYTES, None)?)
    }

    /// The cache that the user named.
    pub(crate) async fn open(target: &Target, access: Access) -> Result<Self, Failure> {
        let Place::Config { file, cache } = &target.place else {
            let driver = open_place(&target.place, access).await?;
            let prefix = target.prefix.as_deref().unwrap_or(PREFIX);
            let stack = Stack::builder("cli").store(driver).prefix(prefix).deadline(DEADLINE).build()?;
            return Ok(Self::new(stack, prefix, &target.namespace, CodecId::BYTES, None)?);
        };
        let config = Config::load(file)?;
        let (name, config) = choose(&config, cache.as_deref(), file)?;
        let mut config = config.clone();
        if let Some(prefix) = &target.prefix {
            config.prefix = Some(Setting::named(prefix.clone(), "--prefix"));
        }
        let prefix = config.prefix.as_ref().map_or(name, |prefix| &prefix.value).to_owned();
        let ttl = config.ttl.as_ref().map(|ttl| ttl.value);
        let (stack, codec) = configured(name, config, access).await?;
        Ok(Self::new(stack, &prefix, &target.namespace, codec, ttl)?)
    }

    fn new(
        stack: Stack,
        prefix: &str,
        namespace: &[String],
        codec: CodecId,
        ttl: Option<Ttl>,
    ) -> Result<Self> {
        let mut cache = stack.opaque_cache()?;
        let root = KeySpace::new(prefix)?;
        let mut keys = root.clone();
        for name in namespace {
            cache = cache.namespace(name)?;
            keys = keys.child(name)?;
        }
        Ok(Self { stack, cache, namespace: namespace.to_vec(), keys, root, codec, ttl })
    }

    /// The store behind the cache, with what stands around it.
    pub(crate) fn driver(&self) -> Option<Arc<dyn Driver>> {
        self.stack.store().cloned()
    }

    /// Whether what is stored is gone when this process has ended.
    pub(crate) fn is_lost_at_exit(&self) -> bool {
        self.stack.store().is_none_or(|driver| !driver.capabilities().persistent)
    }

    /// The entry of a key, be it stale.
    pub(crate) async fn entry(&self, key: &str) -> Result<Option<Found>> {
        let entry = self.cache.entry(key).await?;
        Ok(entry.map(|entry| Found {
            value: entry.value.payload.clone(),
            fresh: entry.state == Freshness::Fresh,
            codec: entry.value.codec,
            age: entry.age,
            ttl_left: entry.ttl_left,
            tags: entry.tags.iter().map(ToString::to_string).collect(),
            stamp: entry.stamp,
        }))
    }

    /// Stores a value, unless its TTL is zero: then what was there goes. Says whether it is stored.
    pub(crate) async fn set(&self, key: &str, value: Bytes, writing: &Writing) -> Result<bool> {
        let mut set = self.cache.set(key, self.opaque(value)?).tags(writing.tags.iter().map(String::as_str));
        if let Some(ttl) = writing.ttl {
            set = set.ttl(ttl);
        }
        if let Some(grace) = writing.grace {
            set = set.grace(grace);
        }
        set.await?;
        Ok(!self.is_stillborn(writing))
    }

    /// Whether the TTL is zero.
    fn is_stillborn(&self, writing: &Writing) -> bool {
        writing.ttl.or(self.ttl).is_some_and(|ttl| ttl.is_zero())
    }

    /// Stores a value where there is none, unless its TTL is zero. Says whether it is stored.
    pub(crate) async fn add(&self, key: &str, value: Bytes, writing: &Writing) -> Result<bool> {
        let mut add = self.cache.add(key, self.opaque(value)?).tags(writing.tags.iter().map(String::as_str));
        if let Some(ttl) = writing.ttl {
            add = add.ttl(ttl);
        }
        if let Some(grace) = writing.grace {
            add = add.grace(grace);
        }
        Ok(add.await? && !self.is_stillborn(writing))
    }

    fn opaque(&self, payload: Bytes) -> Result<Opaque> {
        if self.codec == CodecId::JSON
            && let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(&payload)
        {
            let message = "the cache is configured to hold JSON, which the value is not";
            return Err(Error::from_source(ErrorKind::Encode, message, error));
        }
        Ok(Opaque { codec: self.codec, schema: 0, payload })
    }

    /// Deletes keys. Returns how many there were.
    pub(crate) async fn delete(&self, keys: &[String]) -> Result<u64> {
        self.cache.delete_many(keys).await
    }

    /// Makes an entry stale.
    pub(crate) async fn expire(&self, key: &str) -> Result<bool> {
        self.cache.expire(key).await
    }

    /// Gives an entry a new TTL.
    pub(crate) async fn touch(&self, key: &str, ttl: Ttl) -> Result<bool> {
        self.cache.touch(key, ttl).await
    }

    /// Adds to a number; `None` if it has to be there and is not.
    pub(crate) async fn increment(&self, key: &str, by: i64, existing: bool) -> Result<Option<i64>> {
        let there = self.cache.entry(key).await?.filter(|entry| entry.state == Freshness::Fresh);
        // A number stays in the form that whoever wrote it reads.
        let numbers = match there.map_or(self.codec, |entry| entry.value.codec) {
            CodecId::JSON => self.numbers(Json),
            CodecId::MESSAGEPACK => self.numbers(MessagePack),
            _ => self.numbers(Digits),
        }?;
        let mut increment = numbers.increment(key, by).ttl(Ttl::Forever);
        if existing {
            increment = increment.existing();
        }
        match increment.await {
            Err(error) if existing && error.kind() == ErrorKind::Counter && !self.cache.has(key).await? => {
                Ok(None)
            }
            sum => sum.map(Some),
        }
    }

    fn numbers(&self, codec: impl Codec<i64>) -> Result<Cache<i64>> {
        let mut numbers = self.stack.cache_with::<i64>(codec);
        for name in &self.namespace {
            numbers = numbers.namespace(name)?;
        }
        Ok(numbers)
    }

    /// The keys of the namespace.
    pub(crate) fn keys(&self) -> BoxStream<'_, Result<String>> {
        self.cache.keys()
    }

    /// Ends everything in the namespace and those inside it. Returns how many entries the store gave back.
    pub(crate) async fn clear(&self, end: End) -> Result<u64> {
        let clear = self.cache.clear();
        match end {
            End::Gone => clear.await,
            End::Stale => clear.soft().await,
        }
    }

    /// Ends what carries one of these tags, in the namespace and those inside it.
    pub(crate) async fn invalidate(&self, tags: &[String], end: End) -> Result<()> {
        let invalidate = self.cache.invalidate(tags.iter().map(String::as_str));
        match end {
            End::Gone => invalidate.await,
            End::Stale => invalidate.soft().await,
        }
    }

    /// Gives back the space of what has expired.
    pub(crate) async fn prune(&self) -> Result<u64> {
        self.stack.prune().await
    }

    /// Counts what is stored in the namespace and those inside it; calls `each` for each.
    pub(crate) async fn tally(&self, mut each: impl FnMut()) -> Result<Tally> {
        let mut tally = Tally::default();
        let Some(driver) = self.stack.store() else { return Ok(tally) };
        let now = SystemClock::default().now();
        for prefix in self.keys.prefixes() {
            let mut scan = driver.scan(&prefix);
            while let Some(scanned) = scan.try_next().await? {
                each();
                tally.count(&scanned.head, now);
            }
        }
        Ok(tally)
    }

    /// Waits for what is under way, and closes the store.
    pub(crate) async fn close(self) -> Result<()> {
        self.stack.close().await
    }
}

impl Tally {
    fn count(&mut self, head: &[u8], now: Timestamp) {
        let head = match Head::peek(head) {
            Ok(head) if head.kind == Kind::Entry => head,
            Ok(head) if head.kind == Kind::Tombstone => {
                self.tombstones += 1;
                return;
            }
            // The marks of clears are nobody's entries.
            Ok(_) => return,
            Err(_) => {
                self.unreadable += 1;
                return;
            }
        };
        let until = |end| now < end || end == Timestamp::FOREVER;
        match (until(head.fresh_until), until(head.stale_until)) {
            (true, _) => self.live += 1,
            (false, true) => self.stale += 1,
            // Stores do not show what has expired; this one expired since the store looked.
            (false, false) => return,
        }
        let age = now.since(head.born.timestamp());
        self.oldest = self.oldest.max(Some(age));
        self.newest = Some(self.newest.map_or(age, |newest| newest.min(age)));
    }
}

/// Numbers as a shell writes them, in values that have no codec.
struct Digits;

impl Codec<i64> for Digits {
    fn id(&self) -> CodecId {
        CodecId::BYTES
    }

    fn encode(&self, value: &i64) -> Result<Bytes, BoxError> {
        Ok(value.to_string().into())
    }

    fn decode(&self, bytes: &Bytes) -> Result<i64, BoxError> {
        // What `echo 5 | larder set n` stores ends with a line feed. The error must not show the value.
        let text = std::str::from_utf8(bytes).map_err(|_| "not a whole number")?;
        text.trim().parse().map_err(|_| "not a whole number, or too large".into())
    }
}

/// The drivers of this build.
pub(crate) fn registry() -> Registry {
    Registry::compiled()
}

/// Whether a URL names a store that this build has a driver for, with options that make sense. `named` is what
/// said so.
pub(crate) fn check_url(url: &str, named: &str) -> Result<(), Failure> {
    Ok(registry().check(&StoreConfig::from_url(url, named)?)?)
}

/// A store, told what may be done to it, if its driver cares.
fn limited(store: StoreConfig, access: Access) -> StoreConfig {
    let driver = store.driver().to_ascii_lowercase();
    let info = DRIVERS.iter().find(|info| info.name == driver || info.schemes.contains(&driver.as_str()));
    let known = |name| info.and_then(|info| info.options.iter().find(|option| option.name == name));
    let mut store = store;
    if access != Access::Create && known("create").is_some() {
        store = store.option("create", "false");
    }
    if let Some(table) = known("create_table") {
        if access != Access::Create {
            // Under two names it would be given twice.
            store = table.aliases.iter().fold(store, |store, alias| store.without_option(alias));
            store = store.option("create_table", "false");
        } else if ![table.name].iter().chain(table.aliases).any(|name| store.has_option(name)) {
            // Not every driver does so of its own accord: a table may cost something.
            store = store.option("create_table", "true");
        }
    }
    if access == Access::Read && known("read_only").is_some() {
        store = store.option("read_only", "true");
    }
    store
}

/// Whether something was ever stored in a file: SQLite makes it before it has anything to write.
fn is_begun(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|file| file.len() > 0)
}

/// Opens the store that a URL names. `named` is what said so.
pub(crate) async fn open_url(url: &str, named: &str, access: Access) -> Result<Arc<dyn Driver>, Failure> {
    Ok(registry().open(&limited(StoreConfig::from_url(url, named)?, access)).await?)
}

/// Where `larder serve` keeps responses beside memory: in the store that it was told, or in a file of its own. `None` if it was
/// told to use memory alone.
pub(crate) async fn open_for_serve(told: Option<&StoreConfig>) -> Result<Option<Arc<dyn Driver>>, Failure> {
    match told {
        Some(store) if store.driver() == "memory" => {
            registry().check(store)?;
            Ok(None)
        }
        Some(store) => Ok(Some(registry().open(&limited(store.clone(), Access::Create)).await?)),
        None => {
            let Some(file) = serve_file() else {
                return Err(Failure::usage(
                    "there is no place for a store: set HOME or XDG_CACHE_HOME, or name one with --store",
                ));
            };
            make_folder(&file)?;
            let mut options = SqliteOptions::new(file.as_path());
            options.max_bytes = Some(DEFAULT_BYTES_MAX);
            Ok(Some(Arc::new(SqliteDriver::open(options).await?)))
        }
    }
}

/// Makes the folder of a file, for its owner alone.
fn make_folder(file: &Path) -> Result<(), Failure> {
    let Some(folder) = file.parent() else { return Ok(()) };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| Failure::failed(format!("cannot create the folder {}: {error}", shown(folder))))
}

/// Opens the driver of a place that is no configuration.
async fn open_place(place: &Place, access: Access) -> Result<Arc<dyn Driver>, Failure> {
    match place {
        Place::Url(url) => open_url(url, "--store", access).await,
        // Nobody mistyped it: the user has stored nothing yet.
        Place::Default(file) if access != Access::Create && !is_begun(file) => {
            Ok(Arc::new(MemoryDriver::new(MemoryOptions::default())))
        }
        Place::Default(file) => {
            make_folder(file)?;
            let mut options = SqliteOptions::new(file.as_path());
            // One process that does one thing after the other.
            options.readers = 1;
            options.max_bytes = Some(DEFAULT_BYTES_MAX);
            options.create = access == Access::Create;
            options.read_only = access == Access::Read;
            Ok(Arc::new(SqliteDriver::open(options).await?))
        }
        Place::Config { .. } | Place::Nowhere => Err(Failure::usage(
            "there is no place for a store: set HOME or XDG_CACHE_HOME, or name one with --store or LARDER_STORE",
        )),
    }
}

/// The stack of that name; without a name, the one that is said to be the default, the only one, or the one called
/// `default`.
fn choose<'c>(
    config: &'c Config,
    name: Option<&'c str>,
    file: &Path,
) -> Result<(&'c str, &'c StackConfig), Failure> {
    let only = match config.stacks.len() {
        1 => config.stacks.keys().next().map(String::as_str),
        _ => None,
    };
    let default = config.default.as_ref().map(|default| default.value.as_str());
    let wanted = name.or(default).or(only).unwrap_or("default");
    if let Some(stack) = config.stacks.get(wanted) {
        return Ok((wanted, stack));
    }
    let names: Vec<_> = config.stacks.keys().map(|name| escape(name)).collect();
    let (file, names) = (shown(file), names.join(", "));
    Err(Failure::usage(match name {
        Some(name) => format!("{file} has no cache {:?}; there are: {names}", escape(name)),
        None => format!("{file} has several caches: say which with --cache ({names})"),
    }))
}

/// A configured stack without its memory tier, and what it encodes values with.
async fn configured(
    name: &str,
    mut config: StackConfig,
    access: Access,
) -> Result<(Stack, CodecId), Failure> {
    let Some(store) = config.l2.take() else {
        return Err(Failure::usage(format!(
            "the cache {:?} has no store (l2): it lives in the memory of its process",
            escape(name)
        )));
    };
    config.l2 = Some(limited(store, access));
    config.l1 = MemoryConfig::Off(Origin::Default);
    config.deadline.get_or_insert_with(|| Setting::named(DEADLINE, "larder"));
    // An application may do without its store for a while; whoever asks for what is in it may not.
    config.suppress_l2_errors = Some(Setting::named(false, "larder"));
    let stack = config.build(name, &registry()).await?;
    let codec = match config.codec.map(|codec| codec.value).unwrap_or_default() {
        CodecName::MessagePack => CodecId::MESSAGEPACK,
        _ => CodecId::JSON,
    };
    Ok((stack, codec))
}

/// Succeeds if the store of a configured stack is there, can be reached, and can be opened with what stands
/// around it. A stack without one is fine.
pub(crate) async fn reach(name: &str, config: &StackConfig) -> Result<()> {
    let mut config = config.clone();
    let Some(store) = config.l2.take() else { return Ok(()) };
    config.l2 = Some(limited(store, Access::Read));
    let stack = config.build(name, &registry()).await?;
    let reached = stack.ping().await;
    let closed = stack.close().await;
    reached.and(closed)
}

fn shown(path: &Path) -> String {
    escape(&path.to_string_lossy()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// What a driver of this name is told about creating a table.
    fn told(url: &str, access: Access) -> Option<bool> {
        let store = limited(StoreConfig::from_url(url, "--store").unwrap(), access);
        let heard = Arc::new(Mutex::new(None));
        let hear = Arc::clone(&heard);
        let registry = Registry::empty().driver(store.driver(), &[], move |options| {
            options.alias("autoCreateTable", "create_table")?;
            options.url();
            *hear.lock().unwrap() = options.boolean("create_table")?;
            Ok(async { Ok(MemoryDriver::new(MemoryOptions::default())) })
        });
        registry.check(&store).unwrap();
        *heard.lock().unwrap()
    }

    #[test]
    fn only_what_stores_something_creates_a_table() {
        for access in [Access::Read, Access::Change] {
            for url in [
                "postgres://h/d",
                "postgresql://h/d?create_table=true",
                "mysql://h/d?autoCreateTable=true",
                "MariaDB://h/d?autoCreateTable=false",
                "dynamodb://t?create_table=true",
            ] {
                assert_eq!(told(url, access), Some(false), "{url} {access:?}");
            }
            assert_eq!(told("redis://h", access), None);
        }
        for (url, created) in [
            ("postgres://h/d", Some(true)),
            ("mysql://h/d?create_table=false", Some(false)),
            ("mariadb://h/d?autoCreateTable=false", Some(false)),
            ("dynamodb://t", Some(true)),
            ("dynamodb://t?create_table=false", Some(false)),
            ("redis://h", None),
        ] {
            assert_eq!(told(url, Access::Create), created, "{url}");
        }
    }
}
