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
pub mod memory;
pub mod driver;
#[cfg(feature = "config")]
pub mod config;

pub use error::{BoxError, Error, ErrorKind, Result};
pub use options::EntryOptions;
pub use tag::Tag;
