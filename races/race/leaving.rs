//! Those who do not stay until the end: callers that give up, callers whose time is over, and stacks that close.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use larder::driver::memory::MemoryDriver;
use larder::driver::{Capabilities, Driver, When, Written};
use larder::testing::Tiers;
use larder::time::{hours, seconds};
use larder::{ErrorKind, Result};
use shuttle::future::{block_on, spawn, yield_now};
use shuttle::rand::Rng as _;

use crate::checker::explore;
use crate::world::{CHANGES, OPERATIONS, Process, World, dawdle, one_of};

/// A store whose calls can be left before and after they have done their work, and that tells if one comes after it
/// was closed.
#[derive(Debug)]
struct Slow {
    store: MemoryDriver,
    is_closed: Arc<AtomicBool>,
}

impl Slow {
    fn check(&self) {
        assert!(!self.is_closed.load(Ordering::SeqCst), "the store is used after its stack was closed");
    }
}

#[async_trait]
impl Driver for Slow {
    fn name(&self) -> &'static str {
        "slow"
    }
    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }
    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        self.check();
        yield_now().await;
        let found = self.store.get(key).await;
        yield_now().await;
        self.check();
        found
    }
    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>, when: When) -> Result<Written> {
        self.check();
        yield_now().await;
        let written = self.store.set(key, value, ttl, when).await;
        yield_now().await;
        self.check();
        written
    }
    async fn delete(&self, key: &str) -> Result<bool> {
        self.store.delete(key).await
    }
}

fn slow(world: &World) -> (Process, Arc<AtomicBool>) {
    let is_closed = Arc::new(AtomicBool::new(false));
    let store = Slow { store: world.store.clone(), is_closed: Arc::clone(&is_closed) };
    (world.process_with(0, Tiers::Both, store, |builder| builder), is_closed)
}

/// Does something, and gives up somewhere on the way.
async fn give_up(world: World, process: Process, name: &'static str) {
    let mut polls = shuttle::rand::thread_rng().gen_range(1..12);
    let mut action = pin!(world.act(&process, name));
    std::future::poll_fn(|ctx| {
        polls -= 1;
        let is_over = action.as_mut().poll(ctx).is_ready() || polls == 0;
        if is_over { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

#[test]
fn whoever_gives_up_leaves_memory_and_the_store_alike() {
    explore(6_000, || {
        block_on(async {
            let world = World::new();
            let (here, _) = slow(&world);
            if shuttle::rand::thread_rng().r#gen() {
                world.act(&here, "set").await;
            }
            let left = spawn(give_up(world.clone(), here.clone(), one_of(&OPERATIONS)));
            let other = world.start(&here, &[one_of(&CHANGES), "get_or_set"]);
            left.await.unwrap();
            other.await.unwrap();
            world.settle_books(&here).await;
            world.agree(&here).await;
            world.history.check();
        });
    });
}

#[test]
fn a_closed_stack_loads_nothing_and_leaves_the_store_alone() {
    explore(4_000, || {
        block_on(async {
            let world = World::new();
            let (here, is_closed) = slow(&world);
            let loads = [0, 1].map(|_| {
                let (world, here) = (world.clone(), here.clone());
                spawn(async move {
                    let load = {
                        let world = world.clone();
                        move || world.load(0, 0)
                    };
                    let loaded = here.cache.get_or_set("a", load).await;
                    if let Err(error) = loaded {
                        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
                    }
                })
            });
            dawdle().await;
            here.stack.close().await.unwrap();
            is_closed.store(true, Ordering::SeqCst);
            let loads_then = world.history.loads();
            for load in loads {
                load.await.unwrap();
            }
            assert_eq!(world.history.loads(), loads_then);
            world.settle_books(&here).await;
            world.history.check();
        });
    });
}

#[test]
fn what_a_change_has_ended_is_not_served_stale_to_whoever_is_out_of_patience() {
    const REMOVALS: [&str; 6] = ["set", "set nothing", "delete", "delete_many", "clear", "invalidate"];
    explore(6_000, || {
        block_on(async {
            let world = World::new();
            let tiers = Tiers::ALL[shuttle::rand::thread_rng().gen_range(0..3)];
            let here = world.process(0, tiers);
            let stale = world.history.value();
            let first = world.history.change_begins("set", 0, crate::history::Kind::Nothing);
            here.cache.set("a", stale).tags(["t"]).ttl(seconds(10)).grace(hours(9)).await.unwrap();
            world.history.change_ends(first, Some(stale));
            world.clock.skip(seconds(20));
            let impatient = [0, 1].map(|_| {
                let (world, here) = (world.clone(), here.clone());
                spawn(async move { world.look_impatiently(&here).await })
            });
            world.act(&here, one_of(&REMOVALS)).await;
            world.look_impatiently(&here).await;
            for look in impatient {
                look.await.unwrap();
            }
            world.settle(&here).await;
            world.history.check();
        });
    });
}
