//! A stack or two over one store, and what is done to them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder::driver::Driver;
use larder::driver::memory::MemoryDriver;
use larder::entry::Freshness;
use larder::memory::MemoryOptions;
use larder::testing::Tiers;
use larder::time::{Clock, Timestamp, hours};
use larder::{Cache, ErrorKind, Stack, StackBuilder};
use shuttle::future::{JoinHandle, spawn, yield_now};
use shuttle::rand::Rng as _;

use crate::history::{History, Kind};

/// One process, or what counts as one: a stack with a clock of its own.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) number: usize,
    pub(crate) stack: Stack,
    pub(crate) cache: Cache<u32>,
    has_memory: bool,
}

/// A clock that nobody reads twice in the same millisecond, so that the stamps of two processes stand in the order
/// in which they were taken.
#[derive(Debug)]
pub(crate) struct Stepping(AtomicU64);

impl Default for Stepping {
    fn default() -> Self {
        Self(AtomicU64::new(1_767_225_600_000))
    }
}

impl Stepping {
    pub(crate) fn skip(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::Relaxed);
    }
}

impl Clock for Stepping {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.fetch_add(1, Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

/// A race: who takes part, and what has happened so far.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) clock: Arc<Stepping>,
    pub(crate) store: MemoryDriver,
    pub(crate) history: Arc<History>,
}

impl World {
    pub(crate) fn new() -> Self {
        let clock = Arc::new(Stepping::default());
        let store = MemoryDriver::with_clock(MemoryOptions::new(100), Arc::clone(&clock) as Arc<dyn Clock>);
        Self { clock, store, history: Arc::default() }
    }

    pub(crate) fn process(&self, number: usize, tiers: Tiers) -> Process {
        let store = self.store.clone();
        self.process_with(number, tiers, store, |builder| builder)
    }

    pub(crate) fn process_with(
        &self,
        number: usize,
        tiers: Tiers,
        store: impl Driver,
        build: impl FnOnce(StackBuilder) -> StackBuilder,
    ) -> Process {
        let mut builder = Stack::builder("race").clock(Arc::clone(&self.clock) as Arc<dyn Clock>);
        if tiers != Tiers::L2 {
            builder = builder.memory(MemoryOptions::new(100));
        }
        if tiers.has_store() {
            builder = builder.store(store);
        }
        let stack = build(builder).build().unwrap();
        let cache = stack.cache().unwrap();
        Process { number, stack, cache, has_memory: tiers != Tiers::L2 }
    }
}

/// What can be done to key `a`; `b` goes along where there are several.
pub(crate) const OPERATIONS: [&str; 16] = [
    "get",
    "get_many",
    "get_or_set",
    "get_or_set_many",
    "set",
    "set_many",
    "set nothing",
    "delete",
    "delete_many",
    "expire",
    "touch",
    "pull",
    "add",
    "clear",
    "invalidate",
    "invalidate softly",
];

/// Those that end what was there.
pub(crate) const CHANGES: [&str; 11] = [
    "set",
    "set_many",
    "set nothing",
    "delete",
    "delete_many",
    "expire",
    "pull",
    "add",
    "clear",
    "invalidate",
    "invalidate softly",
];

/// One of some operations, whichever.
pub(crate) fn one_of(names: &[&'static str]) -> &'static str {
    names[shuttle::rand::thread_rng().gen_range(0..names.len())]
}

/// Lets others go first a few times.
pub(crate) async fn dawdle() {
    for _ in 0..shuttle::rand::thread_rng().gen_range(0..3) {
        yield_now().await;
    }
}

impl World {
    /// The load of a value that nobody else loads, for a call that began at `asked`.
    pub(crate) async fn load(self, process: usize, asked: u64) -> io::Result<u32> {
        let value = self.history.value();
        self.history.load_begins(process, asked, value);
        dawdle().await;
        self.history.load_ends(process, asked);
        Ok(value)
    }

    /// Does one of [`OPERATIONS`], and writes it down.
    pub(crate) async fn act(&self, process: &Process, name: &'static str) {
        if name.starts_with("get") {
            self.look(process, name).await
        } else {
            self.change(process, name).await
        }
    }

    async fn look(&self, process: &Process, name: &'static str) {
        let (history, cache, number) = (&self.history, &process.cache, process.number);
        let began = history.tick();
        let world = self.clone();
        let load = move || world.load(number, began);
        history.looks_up(number, if name.ends_with("many") { 2 } else { 1 });
        if matches!(name, "get_or_set forced" | "get_or_set beside") {
            // It may load beside others.
            history.may_load_beside(number);
        }
        let seen = match name {
            "get" => cache.get("a").await.unwrap(),
            "get_many" => cache.get_many(&["a", "b"]).await.unwrap().swap_remove(0),
            "get_or_set" => Some(cache.get_or_set("a", load).tags(["t"]).await.unwrap()),
            "get_or_set forced" => {
                let forced = cache.get_or_set("a", load).tags(["t"]).force().await.unwrap();
                history.was_forced(began, *forced);
                Some(forced)
            }
            "get_or_set beside" => {
                let after = Duration::from_millis(1);
                Some(cache.get_or_set("a", load).tags(["t"]).replace_after(after).await.unwrap())
            }
            "get_or_set_many" => {
                let load = move |missing: Vec<String>| async move {
                    // One number for all of them: only that of key a is ever looked at.
                    let value = if missing.contains(&"a".to_owned()) { load().await? } else { 0 };
                    Ok::<_, io::Error>(missing.into_iter().map(move |key| (key, Ok(value))))
                };
                cache.get_or_set_many(&["a", "b"], load).tags(["t"]).await.swap_remove(0).ok()
            }
            other => panic!("{other} is no lookup"),
        };
        // Who waits for a load of its own process has not asked the store what others did.
        let is_definite = !name.starts_with("get_or");
        let reaches = |by| by == number || (!process.has_memory && is_definite);
        history.looked(name, began, seen.map(|seen| *seen), is_definite, reaches);
    }

    /// Loads what is stale or missing, with a loader that fails every other time, and does not wait for it.
    pub(crate) async fn look_impatiently(&self, process: &Process) {
        let (history, number) = (&self.history, process.number);
        let (began, world) = (history.tick(), self.clone());
        let fails = shuttle::rand::thread_rng().r#gen::<bool>();
        let load = move || async move {
            let value = world.load(number, began).await?;
            if fails { Err(io::Error::other("the source is down")) } else { Ok(value) }
        };
        history.looks_up(number, 1);
        let wait = Duration::from_millis(1);
        let request = process.cache.get_or_set("a", load).tags(["t"]).soft_timeout(wait).hard_timeout(wait);
        let seen = match request.await {
            Ok(seen) => Some(*seen),
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Load), "{error}");
                None
            }
        };
        history.looked("get_or_set", began, seen, false, |by| by == number);
    }

    async fn change(&self, process: &Process, name: &'static str) {
        let (history, cache, number) = (&self.history, &process.cache, process.number);
        let kind = match name {
            "set" | "set_many" | "add" => Kind::Sets,
            "touch" => Kind::Nothing,
            "invalidate softly" => Kind::Ages,
            _ => Kind::Removes,
        };
        let value = history.value();
        let change = history.change_begins(name, number, kind);
        let mut is_change = true;
        match name {
            "set" => cache.set("a", value).tags(["t"]).await.unwrap(),
            "set_many" => cache.set_many([("b", 0), ("a", value)]).tags(["t"]).await.unwrap(),
            "set nothing" => cache.set("a", value).ttl(Duration::ZERO).await.unwrap(),
            "delete" => drop(cache.delete("a").await.unwrap()),
            "delete_many" => drop(cache.delete_many(&["a", "b"]).await.unwrap()),
            "expire" => drop(cache.expire("a").await.unwrap()),
            "touch" => drop(cache.touch("a", hours(2)).await.unwrap()),
            "pull" => {
                history.looks_up(number, 1);
                let pulled = cache.pull("a").await.unwrap();
                is_change = pulled.is_some();
                pulled.into_iter().for_each(|pulled| history.was_pulled(*pulled));
            }
            "add" => is_change = cache.add("a", value).tags(["t"]).await.unwrap(),
            "clear" => drop(cache.clear().await.unwrap()),
            "invalidate" => cache.invalidate(["t"]).await.unwrap(),
            "invalidate softly" => cache.invalidate(["t"]).soft().await.unwrap(),
            other => panic!("{other} is no change"),
        }
        if is_change {
            history.change_ends(change, (kind == Kind::Sets).then_some(value));
        } else {
            history.change_was_none(change);
        }
    }

    /// Starts a task that does some things one after the other.
    pub(crate) fn start(&self, process: &Process, names: &[&'static str]) -> JoinHandle<()> {
        let (world, process, names) = (self.clone(), process.clone(), names.to_vec());
        spawn(async move {
            for name in names {
                world.act(&process, name).await;
            }
        })
    }

    /// Waits until nothing is under way in a process, and checks its books.
    pub(crate) async fn settle(&self, process: &Process) {
        self.settle_books(process).await;
        let (counted, asked) = (process.stack.stats().lookups(), self.history.lookups(process.number));
        if counted != asked {
            self.history.problem(format!("{counted} hits and misses in {asked} lookups"));
        }
    }

    /// As [`World::settle`], where lookups were left before they ended.
    pub(crate) async fn settle_books(&self, process: &Process) {
        let mut outcome = Ok(());
        for _ in 0..1_000 {
            outcome = process.stack.check_invariants();
            if outcome.is_ok() {
                break;
            }
            // The tasks of loads end a little after those who waited for them.
            yield_now().await;
        }
        if let Err(problem) = outcome {
            self.history.problem(problem);
        }
    }

    /// Looks once more when all is over, and checks everything.
    pub(crate) async fn finish(&self, processes: &[&Process]) {
        for process in processes {
            self.settle(process).await;
            self.act(process, "get").await;
        }
        self.history.check();
    }

    /// What a process finds must be what the store has.
    pub(crate) async fn agree(&self, process: &Process) {
        let store = self.process(usize::MAX, Tiers::L2);
        let (mine, theirs) = (process.view().await, store.view().await);
        if mine != theirs {
            self.history.problem(format!("{mine:?} in memory, {theirs:?} in the store"));
        }
    }
}

impl Process {
    async fn view(&self) -> Option<(u32, Freshness)> {
        self.cache.entry("a").await.unwrap().map(|entry| (*entry.value, entry.state))
    }
}
