//! What the engine does to the tiers, over every choice of them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing test or benchmark ends in a panic"
)]

mod breaker;
mod cases;
mod cost;
mod explain;
mod flow;
mod freshness;
mod history;
mod hostile;
mod known_keys;
mod loads;
mod model;
mod outage;
mod overlap;
mod overtaken;
mod resilience;
mod recovery;
mod review;
mod review2;
mod rewrites;
mod source_ends;
mod sources;
mod tags;
mod turns;
