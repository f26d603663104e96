//! Loads beside loads: forced ones, and those that are started beside slow ones; and reads that slide what they read.

use larder::testing::Tiers;
use larder::time::{hours, minutes};
use larder::{EntryOptions, Refresh};
use shuttle::future::{block_on, yield_now};
use shuttle::rand::Rng as _;

use crate::checker::explore;
use crate::world::{CHANGES, Process, World, one_of};

const LOOKS: [&str; 4] = ["get", "get_or_set", "get_or_set forced", "get_or_set beside"];

/// A process with an entry that each read slides, and that has a grace.
async fn sliding(world: &World, tiers: Tiers) -> Process {
    let options = EntryOptions::default().ttl(hours(9)).grace(hours(9));
    let options = options.refresh(Refresh::Sliding { idle: hours(1) });
    let here = world.process_with(0, tiers, world.store.clone(), |builder| builder.options(options));
    world.act(&here, "set").await;
    world.clock.skip(minutes(30));
    here
}

/// Lets what slides in the background come to its end.
async fn end_slides() {
    for _ in 0..50 {
        yield_now().await;
    }
}

/// Three tasks look, force, and change, where there is something already or not.
fn beside(tiers: Tiers, slides: bool) {
    block_on(async {
        let world = World::new();
        let here = if slides { sliding(&world, tiers).await } else { world.process(0, tiers) };
        if !slides && shuttle::rand::thread_rng().r#gen() {
            world.act(&here, "set").await;
        }
        let tasks = [
            vec![one_of(&LOOKS), one_of(&LOOKS)],
            vec![one_of(&LOOKS), one_of(&CHANGES), one_of(&LOOKS)],
            vec![one_of(&LOOKS), one_of(&["get", "get_or_set beside", "touch", "expire", "delete"])],
        ];
        let tasks: Vec<_> = tasks.iter().map(|names| world.start(&here, names)).collect();
        for task in tasks {
            task.await.unwrap();
        }
        world.settle(&here).await;
        if slides {
            end_slides().await;
        }
        if tiers == Tiers::Both {
            world.agree(&here).await;
        }
        world.finish(&[&here]).await;
    });
}

#[test]
fn loads_beside_loads_in_memory() {
    explore(6_000, || beside(Tiers::L1, false));
}

#[test]
fn loads_beside_loads_in_the_store() {
    explore(6_000, || beside(Tiers::L2, false));
}

#[test]
fn loads_beside_loads_in_both() {
    explore(6_000, || beside(Tiers::Both, false));
}

#[test]
fn what_has_expired_is_not_slid_in_memory() {
    explore(6_000, || beside(Tiers::L1, true));
}

#[test]
fn what_has_expired_is_not_slid_in_the_store() {
    explore(6_000, || beside(Tiers::L2, true));
}

#[test]
fn what_has_expired_is_not_slid_in_both() {
    explore(6_000, || beside(Tiers::Both, true));
}

#[test]
fn a_read_that_slides_does_not_undo_a_load() {
    explore(4_000, || {
        block_on(async {
            let world = World::new();
            let tiers = Tiers::ALL[shuttle::rand::thread_rng().gen_range(0..3)];
            let here = sliding(&world, tiers).await;
            let before = here.cache.entry("a").await.unwrap().unwrap();
            let tasks = [&["get", "get"][..], &["get_or_set forced"]].map(|names| world.start(&here, names));
            for task in tasks {
                task.await.unwrap();
            }
            end_slides().await;
            let after = here.cache.entry("a").await.unwrap().unwrap();
            if after.value == before.value {
                world.history.problem("what was loaded is gone".to_owned());
            }
            world.finish(&[&here]).await;
        });
    });
}
