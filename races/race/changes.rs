//! The right to be kept: after a change has returned, nothing is found whose load began before it, and memory has
//! what the store has.

use larder::testing::Tiers;
use shuttle::future::block_on;
use shuttle::rand::Rng as _;

use crate::checker::explore;
use crate::world::{CHANGES, OPERATIONS, World, one_of};

/// Some tasks do some things, one task after the other each, where there is something already or not.
fn race(tiers: Tiers, tasks: &[Vec<&'static str>]) {
    block_on(async {
        let world = World::new();
        let here = world.process(0, tiers);
        match shuttle::rand::thread_rng().gen_range(0..3) {
            0 => world.act(&here, "set").await,
            1 if tiers == Tiers::Both => world.act(&world.process(1, Tiers::L2), "set").await,
            _ => {}
        }
        let tasks: Vec<_> = tasks.iter().map(|names| world.start(&here, names)).collect();
        for task in tasks {
            task.await.unwrap();
        }
        world.settle(&here).await;
        if tiers == Tiers::Both {
            world.agree(&here).await;
        }
        world.finish(&[&here]).await;
    });
}

/// A load, and a change that may overtake it.
fn overtaken(tiers: Tiers) {
    race(tiers, &[vec!["get_or_set"], vec![one_of(&CHANGES), one_of(&["get", "get_or_set"])]]);
}

#[test]
fn a_change_wins_over_the_load_that_it_overtakes_in_memory() {
    explore(4_000, || overtaken(Tiers::L1));
}

#[test]
fn a_change_wins_over_the_load_that_it_overtakes_in_the_store() {
    explore(4_000, || overtaken(Tiers::L2));
}

#[test]
fn a_change_wins_over_the_load_that_it_overtakes_in_both() {
    explore(4_000, || overtaken(Tiers::Both));
}

#[test]
fn two_changes_leave_memory_and_the_store_alike() {
    explore(4_000, || race(Tiers::Both, &[vec![one_of(&CHANGES)], vec![one_of(&CHANGES), "get"]]));
}

/// Three tasks do two things each. Few kinds at once meet more often.
fn anything(tiers: Tiers) {
    let few = [one_of(&OPERATIONS), one_of(&CHANGES), one_of(&CHANGES), "get_or_set"];
    let task = || vec![one_of(&few), one_of(&few)];
    race(tiers, &[task(), task(), task()]);
}

#[test]
fn anything_at_once_in_memory() {
    explore(6_000, || anything(Tiers::L1));
}

#[test]
fn anything_at_once_in_the_store() {
    explore(6_000, || anything(Tiers::L2));
}

#[test]
fn anything_at_once_in_both() {
    explore(8_000, || anything(Tiers::Both));
}
