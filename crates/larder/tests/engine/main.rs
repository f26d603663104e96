//! What the engine does to the tiers, over every choice of them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing test or benchmark ends in a panic"
)]

mod breaker;
mod cost;
mod flow;
mod hostile;
mod loads;
mod model;
mod overlap;
mod overtaken;
mod resilience;
mod recovery;
mod review;
mod rewrites;
mod tags;
