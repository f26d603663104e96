//! What a cache may do, rule by rule, through a cache without bodies and with a clock that is moved by hand.
//!
//! Names in comments such as `freshness-max-age` are tests of the public suite http-tests/cache-tests that ask for the
//! same; `U24` and the like are cases of undici's own tests.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing test ends in a panic"
)]

mod cache;

mod conditional;
mod freshness;
mod invalidation;
mod partial;
mod properties;
mod reuse;
mod stale;
mod storing;
mod targeted;
mod update;
mod vary;
