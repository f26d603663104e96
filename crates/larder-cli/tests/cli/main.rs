//! The binary as its users see it: one process per call, in a cache folder of its own.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper of tests that fails has failed the test")]

mod attacks;
mod config;
mod explain;
mod harness;
mod help;
mod migrate;
mod ping;
mod run_at_once;
mod run_process;
mod run_replay;
mod run_stale;
mod serve;
mod store_commands;
mod stores;
mod tags;
mod terminal;
