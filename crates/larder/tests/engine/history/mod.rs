//! Random sequences in a world that fails: a store that refuses, hangs, loses its answers or writes late; loaders
//! that fail or take their time; a wall clock that is set forward and back; a second process on the same store.
//!
//! What exactly a cache finds in such a world cannot be said without building another cache. What it may never
//! find can: a value from before a change that was acknowledged, or one whose time is over. That is what
//! [`ledger`] knows, and all that it knows. What the engine does in a world that works is in [`model`](super::model).
//!
//! What is not promised, and so not asked for:
//!
//! - A change that fails is an error, and may have happened or not. Where writes are remembered it holds in this
//!   process all the same, and for the others once it has landed ([decision 14]); rewrites (add, pull, touch,
//!   expire, counters) are not remembered. A clear or a tag holds in this process however it ends.
//! - The other process only reads here. Between writers a stamp says which write was first only as well as their
//!   clocks agree: a load that began, in another process, in the very millisecond of a delete, or under a clock
//!   that is ahead, may carry the newer stamp ([decisions 6] and 8).
//! - Clocks are set by an hour at a time, never by more than is believed: 24 hours (decision 8). Tombstones are
//!   kept for longer than that, by a longer `load_max`: when the store's clock jumps past the end of one, nothing
//!   refuses the load that began before it (decision 7).
//! - Likewise a write that reaches the store late finds nothing that refuses it when what was set since has lived
//!   its life. So here a late write comes before time passes.
//! - Times are the wall clock's: what had expired is fresh again when the clock is set back.
//!
//! [decision 14]: ../../../../../docs/decisions/0014-failed-writes.md
//! [decisions 6]: ../../../../../docs/decisions/0006-clear-is-a-mark.md

mod ledger;
mod step;
mod world;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;

use larder::testing::Tiers;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};

use step::sequences;
use world::{Kind, World};

/// Runs sequences and, if one breaks a promise, prints the shortest that does, and the seed that finds it again.
fn hold(kind: Kind, count: u32) {
    let mut config = Config { cases: count, failure_persistence: None, ..Config::default() };
    // Of one's own choice if that was said; else another one each time.
    let seed = match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => RandomState::new().hash_one(count),
    };
    config.rng_seed = RngSeed::Fixed(seed);
    let outcome = TestRunner::new(config).run(&sequences(), |steps| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        runtime
            .block_on(async {
                let mut world = World::new(kind);
                for step in &steps {
                    world.step(step).await?;
                }
                world.finish().await
            })
            .map_err(TestCaseError::fail)
    });
    if let Err(error) = outcome {
        panic!("PROPTEST_RNG_SEED={seed} finds this again: {error}");
    }
}

const MEMORY: Kind = Kind { tiers: Tiers::L1, remembers: false, suppresses: true };
const STORE: Kind = Kind { tiers: Tiers::L2, remembers: false, suppresses: false };
const REMEMBERING_STORE: Kind = Kind { tiers: Tiers::L2, remembers: true, suppresses: true };
const BOTH: Kind = Kind { tiers: Tiers::Both, remembers: true, suppresses: true };

#[test]
fn memory_alone_keeps_its_promises() {
    hold(MEMORY, 8_000);
}

#[test]
fn a_store_that_fails_keeps_what_was_acknowledged() {
    hold(STORE, 10_000);
}

#[test]
fn a_store_whose_failures_are_remembered_keeps_what_was_acknowledged() {
    hold(REMEMBERING_STORE, 10_000);
}

#[test]
fn memory_and_a_store_that_fails_keep_what_was_acknowledged() {
    hold(BOTH, 11_000);
}

#[test]
fn memory_and_a_store_that_fails_keep_what_was_acknowledged_to_others_too() {
    hold(BOTH, 11_000);
}
