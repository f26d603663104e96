//! What an HTTP cache may do.
#![warn(missing_docs)]
pub mod header;
pub mod policy;
