//! Two processes over one store: tombstones and stamps refuse what is older, whoever brings it, and a process that
//! has heard of a change does not go back behind it.

use larder::testing::Tiers;
use larder::time::{hours, seconds};
use shuttle::future::{block_on, spawn};
use shuttle::rand::Rng as _;

use crate::checker::explore;
use crate::world::{CHANGES, OPERATIONS, World, one_of};

#[test]
fn a_slow_load_does_not_bury_what_another_process_did() {
    explore(4_000, || {
        block_on(async {
            let world = World::new();
            let (here, there) = (world.process(0, Tiers::Both), world.process(1, Tiers::L2));
            if shuttle::rand::thread_rng().r#gen() {
                world.act(&there, "set").await;
            }
            let load = world.start(&here, &["get_or_set"]);
            let change = world.start(&there, &[one_of(&CHANGES), "get", "get"]);
            load.await.unwrap();
            change.await.unwrap();
            world.finish(&[&here, &there]).await;
        });
    });
}

#[test]
fn anything_at_once_in_two_processes() {
    explore(6_000, || {
        block_on(async {
            let world = World::new();
            let (here, there) = (world.process(0, Tiers::Both), world.process(1, Tiers::L2));
            let few = [one_of(&OPERATIONS), one_of(&CHANGES), one_of(&CHANGES), "get_or_set"];
            let tasks = [&here, &here, &there, &there]
                .map(|process| world.start(process, &[one_of(&few), one_of(&few)]));
            for task in tasks {
                task.await.unwrap();
            }
            world.finish(&[&here, &there]).await;
        });
    });
}

#[test]
fn what_another_process_deleted_is_not_served_stale_once_that_was_heard() {
    explore(2_000, || {
        block_on(async {
            let world = World::new();
            let (here, there) = (world.process(0, Tiers::Both), world.process(1, Tiers::L2));
            here.cache.set("a", 0).ttl(seconds(10)).grace(hours(9)).await.unwrap();
            world.clock.skip(seconds(20));
            there.cache.delete("a").await.unwrap();
            let other = world.start(&here, &[one_of(&["get", "get_or_set", "set", "expire", "add"])]);
            world.act(&here, "get").await;
            // The tombstone is gone, as after its time; what memory has left is all there is.
            let history = &world.history;
            history.looks_up(0, 1);
            let seen = here.cache.get_stale("a").await.unwrap();
            if seen.as_deref() == Some(&0) {
                history.problem("what was deleted is served stale".to_owned());
            }
            other.await.unwrap();
            world.settle(&here).await;
            world.agree(&here).await;
            world.finish(&[&here]).await;
        });
    });
}

#[test]
fn a_set_does_not_reach_memory_after_its_process_heard_of_something_newer() {
    explore(4_000, || {
        block_on(async {
            let world = World::new();
            let (here, there) = (world.process(0, Tiers::Both), world.process(1, Tiers::L2));
            let set = world.start(&here, &["set"]);
            let heard = spawn({
                let (world, here) = (world.clone(), here.clone());
                async move {
                    there.cache.delete("a").await.unwrap();
                    world.history.looks_up(0, 1);
                    here.cache.get("a").await.unwrap().is_none()
                }
            });
            set.await.unwrap();
            if heard.await.unwrap() {
                world.agree(&here).await;
            }
            world.settle(&here).await;
            world.history.check();
        });
    });
}
