//! One cache over memory, files and databases.
//!
//! Modules stand in reading order: first the words (`error` to `stats`), then the tiers (`memory`, `driver`),
//! then the engine, then the doors.

pub mod error;
pub mod time;
pub mod key;
pub mod tag;
pub mod entry;
pub mod codec;
pub mod options;
pub mod event;
pub mod stats;
pub mod counter;
pub mod memory;
pub mod driver;
mod stack;
mod get_or_set;
mod cache;
mod larder;
#[cfg(feature = "config")]
pub mod config;
#[cfg(feature = "testing")]
pub mod testing;

pub use cache::{Add, Cache, CachedEntry, Increment, Set, SetMany};
pub use error::{BoxError, Error, ErrorKind, Result};
pub use get_or_set::{GetOrSet, GetOrSetMany, Getting, Suppress};
pub use larder::Larder;
pub use options::EntryOptions;
pub use stack::{
    DEADLINE_DEFAULT, FLIGHTS_MAX, MemoryUsage, NAMESPACES_MAX, Stack, StackBuilder, WAITERS_MAX,
};
pub use tag::Tag;

/// The README's programs, compiled and run by `cargo test --doc`.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
mod readme {}
