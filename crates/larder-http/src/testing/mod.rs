//! What tests of stores are made of; behind feature `testing`, and never in a release.
//!
//! [`http_store_suite!`](crate::http_store_suite!) holds a store to what the cache relies on. It knows the door of stores,
//! and nothing of any one of them.

pub mod http_store_suite;

/// Reads bytes as a record of a [`StackStore`](crate::store::StackStore), for the fuzzer: what is read is written and read
/// again, and means the same.
///
/// # Panics
/// If it does not.
#[doc(hidden)]
pub fn read_record(bytes: &bytes::Bytes) {
    crate::store::read_record(bytes);
}
