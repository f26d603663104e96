//! Attacks on an HTTP cache, over raw sockets: `larder serve` as its users run it, between a client and an origin that send
//! exactly the bytes that a test says. One file for each class of attack, as in `docs/security-http.md`.
//!
//! How requests are parsed is tried beside the codec; here is what the cache makes of it.

mod coalescing;
mod content;
mod deception;
mod directives;
mod hops;
mod keys;
mod operators;
mod parsers;
mod poison;
mod ranges;
mod scene;
mod unkeyed;
mod variants;
