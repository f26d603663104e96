//! What can be seen of a stack from outside: latencies, groups of keys, advice, traces, and the pages about them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing test or benchmark ends in a panic"
)]

#[path = "observability/advice.rs"]
mod advice;
#[path = "observability/latencies.rs"]
mod latencies;
#[path = "observability/traces.rs"]
mod traces;
