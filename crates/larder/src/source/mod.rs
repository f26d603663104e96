//! Sources: a cache together with the place where its values really live, which is read and written through it.
//!
//! - [`ReadThrough`] loads what is missing with one function for all keys ([`Cache::read_through`](crate::Cache::read_through));
//! - [`WriteThrough`] also writes: the source first, then the cache;
//! - [`WriteInvalidate`] writes the source and then deletes from the cache, a second time after a while if asked to;
//! - `KnownKeys` (feature `bloom`) spares the source the keys that it does not have.
//!
//! Knows how a write of a source and what follows it in the cache hang together, and nothing of how either is done.
//! `docs/sources.md` shows all of it.

mod doubt;
#[cfg(feature = "bloom")]
mod known_keys;
mod read;
mod second_delete;
mod write;

#[cfg(feature = "bloom")]
pub use known_keys::{KEY_FILTER_BYTES_MAX, KnownKeys, KnownKeysOptions, KnownKeysStats};
pub use read::ReadThrough;
pub use write::{SetThrough, WriteInvalidate, WriteThrough};

#[cfg(not(feature = "bloom"))]
use without::KnownKeys;

/// Stands for the filter in a build without one.
#[cfg(not(feature = "bloom"))]
mod without {
    /// There is none, so there is never a value of this.
    #[derive(Debug, Clone)]
    pub(super) enum KnownKeys {}

    impl KnownKeys {
        pub(super) fn add(&self, _key: &str) {
            match *self {}
        }

        pub(super) fn may_have(&self, _key: &str) -> bool {
            match *self {}
        }

        pub(super) fn count_avoided(&self) {
            match *self {}
        }

        pub(super) fn count_found_nothing(&self) {
            match *self {}
        }
    }
}
