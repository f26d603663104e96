//! One load for each key, and nobody who waits for it is left behind: a task that is never woken is a deadlock to
//! the scheduler.

use larder::testing::Tiers;
use shuttle::future::block_on;

use crate::checker::explore;
use crate::world::World;

fn one_load(tiers: Tiers) {
    block_on(async {
        let world = World::new();
        let here = world.process(0, tiers);
        let tasks: Vec<_> = (0..3).map(|_| world.start(&here, &["get_or_set"])).collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(world.history.loads(), 1);
        world.finish(&[&here]).await;
    });
}

#[test]
fn there_is_one_load_however_many_ask_for_memory() {
    explore(2_000, || one_load(Tiers::L1));
}

#[test]
fn there_is_one_load_however_many_ask_for_the_store() {
    explore(2_000, || one_load(Tiers::L2));
}

#[test]
fn there_is_one_load_however_many_ask_for_both() {
    explore(2_000, || one_load(Tiers::Both));
}
