//! Stores: the compliance suite over each, and what each promises besides.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "what is not there fails its test")]

#[path = "../../../larder/tests/scratch/mod.rs"]
mod scratch;

mod coming_from_undici;
mod judging;
mod memory;
mod sample;
mod sqlite;
mod stack;
mod suites;
