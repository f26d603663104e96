//! The engine, from a request to its response: over a store in a map, with an origin that does what the test says.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing test ends in a panic"
)]

mod adapters;
mod bodies;
mod collapse;
mod cookies;
mod parts;
mod purge;
mod scene;
mod stale;
mod stored;
mod undici;
mod variance;
