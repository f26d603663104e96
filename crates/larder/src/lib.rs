//! One cache over memory, files and databases, with get-or-compute that survives slow and dead sources.
//!
//! A [`Stack`] is a memory tier (L1), a store (L2), or both. A [`Cache<V>`] is a typed handle to it:
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! use larder::{Stack, driver::memory::MemoryDriver, memory::MemoryOptions, time::{hours, minutes}};
//!
//! # #[derive(serde::Serialize, serde::Deserialize, Debug, PartialEq)] struct User { name: String }
//! # async fn user_from_database(_: u32) -> Result<User, std::io::Error> { Ok(User { name: "Ada".into() }) }
//! let stack = Stack::builder("users")
//!     .memory(MemoryOptions::new(10_000))
//!     .store(MemoryDriver::default()) // or files, SQLite, Redis, a database, or a driver of your own
//!     .build()?;
//! let users = stack.cache::<User>()?;
//!
//! // However many ask at once, the database is asked once; memory and the store keep the answer.
//! let user = users
//!     .get_or_set("42", || user_from_database(42))
//!     .ttl(minutes(5))
//!     .grace(hours(6)) // serve it stale if the database is down by then
//!     .await?;
//! assert_eq!(user.name, "Ada");
//!
//! users.delete("42").await?; // from here on nobody in this process sees what was loaded before
//! assert_eq!(users.get("42").await?, None);
//! # Ok::<(), larder::Error>(()) })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where to look
//!
//! - [`Cache`] has every operation; [`Stack`] and [`StackBuilder`] every setting; [`Larder`] is stacks by name,
//!   from code or (feature `config`) from a file.
//! - [`memory::MemoryCache`] is a synchronous in-process cache on the same engine, without serde or tokio.
//! - [`driver::Driver`] is what a store of one's own implements; `docs/write-a-driver.md` shows one whole.
//! - [`source`] writes the place where values really live together with the cache: write-through, write-invalidate,
//!   read-through with one loader for all keys; `docs/sources.md`.
//! - [`records`] keeps data together with a version that its writer gives it, and replaces it by that; `docs/records.md`.
//! - [`event::Observer`] hears what happens, [`Stack::stats`] counts and times it, [`stats::prometheus_text`]
//!   exports it, [`explain`](mod@explain) accounts for one operation, and [`Stack::advice`] says which options contradict
//!   each other; `docs/observability.md` shows how.
//! - [`testing`](https://docs.rs/larder/latest/larder/testing/) (feature `testing`) has the compliance suite,
//!   a clock moved by hand and a store that fails on command.
//!
//! # Features
//!
//! `json` (default) and `messagepack` are codecs; `file`, `sqlite`, `redis`, `memcached`, `postgres`, `mysql`
//! and `dynamodb` are stores, beside the memory one that is always there; `compress` and `encrypt` go around
//! any store; `config` reads configurations; `macros` is
//! [`#[cached]`](https://docs.rs/larder/latest/larder/attr.cached.html) for async functions; `bloom` is a filter
//! of the keys that a source has (`source::KnownKeys`); `metrics` and `tracing` export to the facades of those
//! names; `full` is all of these; `testing` is for tests. All are additive.
//!
//! # Runtime
//!
//! Loads run in tasks of their own and store calls have deadlines, so both need a tokio runtime with time
//! enabled. Hits in memory need none.
//!
//! Modules stand in reading order: the words (`error` to `counter`), the tiers (`memory`, `driver`), the engine,
//! and the doors.

pub mod error;
pub mod time;
pub mod key;
pub mod tag;
pub mod entry;
pub mod codec;
pub mod options;
mod loaded;
pub mod advisor;
pub mod event;
pub mod stats;
pub mod explain;
#[cfg(feature = "tracing")]
pub mod trace;
pub mod counter;
pub mod memory;
pub mod driver;
mod stack;
mod get_or_set;
mod cache;
pub mod source;
pub mod records;
mod larder;
#[cfg(feature = "config")]
pub mod config;
#[cfg(feature = "macros")]
#[doc(hidden)]
pub mod expansion;
#[cfg(feature = "testing")]
pub mod testing;

pub use cache::{Add, Cache, CachedEntry, Clear, Increment, Invalidate, Present, Set, SetMany, Updated};
pub use error::{BoxError, Error, ErrorKind, Result};
pub use explain::{Account, explain};
pub use get_or_set::{GetOrSet, GetOrSetMany, Getting, Load, Plain, Speaking, Suppress};
pub use larder::Larder;
#[cfg(feature = "macros")]
pub use larder_macros::cached;
pub use loaded::{Loaded, Previous};
pub use options::{EntryOptions, Refresh};
pub use stack::{
    BreakerOptions, DEADLINE_DEFAULT, FLIGHTS_MAX, MemoryUsage, NAMESPACES_MAX, REFRESH_AHEAD_MAX,
    REPLACEMENTS_MAX, RecoveryOptions, SOURCE_WRITES_MAX, Stack, StackBuilder, WAITERS_MAX,
};
pub use tag::Tag;

/// The programs of the README and of the pages, compiled and run by `cargo test --doc`.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../../README.md")]
    mod readme {}
    #[doc = include_str!("../../../docs/slow-sources.md")]
    mod slow_sources {}
    #[doc = include_str!("../../../docs/turns.md")]
    mod turns {}
    #[doc = include_str!("../../../docs/tags.md")]
    mod tags {}
    #[doc = include_str!("../../../docs/freshness.md")]
    mod freshness {}
    #[doc = include_str!("../../../docs/explain.md")]
    mod explain {}
    #[doc = include_str!("../../../docs/loaders.md")]
    mod loaders {}
    #[doc = include_str!("../../../docs/coherence.md")]
    mod coherence {}
    #[cfg(feature = "testing")]
    #[doc = include_str!("../../../docs/failing-stores.md")]
    mod failing_stores {}
    #[doc = include_str!("../../../docs/advisor.md")]
    mod advisor {}
    #[cfg(feature = "macros")]
    #[doc = include_str!("../../../docs/cached.md")]
    mod cached {}
    #[cfg(feature = "bloom")]
    #[doc = include_str!("../../../docs/sources.md")]
    mod sources {}
    #[doc = include_str!("../../../docs/records.md")]
    mod records {}
    #[cfg(feature = "config")]
    #[doc = include_str!("../../../docs/coming-from/bentocache.md")]
    mod from_bentocache {}
    #[cfg(feature = "config")]
    #[doc = include_str!("../../../docs/coming-from/beego.md")]
    mod from_beego {}
    #[cfg(all(feature = "config", feature = "redis"))]
    #[doc = include_str!("../../../docs/coming-from/beignet.md")]
    mod from_beignet {}
    #[cfg(all(feature = "config", feature = "redis"))]
    #[doc = include_str!("../../../docs/coming-from/deepstream.md")]
    mod from_deepstream {}
    #[cfg(all(feature = "metrics", feature = "tracing"))]
    #[doc = include_str!("../../../docs/observability.md")]
    mod observability {}
}
