//! The stacks, their clock and their store, and what each step does to them.

use std::collections::BTreeSet;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use larder::driver::memory::MemoryDriver;
use larder::entry::Freshness;
use larder::event::{Event, Observer};
use larder::memory::MemoryOptions;
use larder::testing::{Chaos, ChaosHandle, ManualClock, Tiers};
use larder::time::{Clock as _, Timestamp, Ttl, days};
use larder::{BreakerOptions, Cache, EntryOptions, ErrorKind, Loaded, RecoveryOptions, Stack};
use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::ledger::{Change, Floors, KEYS, Ledger, Life, Look, SPACES, TAGS, key_of, slot, space_of};
use super::step::{GRACE_MAX, Reading, Step};

mod finish;
mod trouble;

/// What a sequence found wrong.
pub(super) type Held<T = ()> = Result<T, String>;

/// Which stack is tried.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    pub(super) tiers: Tiers,
    /// Whether writes that the store did not take are remembered.
    pub(super) remembers: bool,
    pub(super) suppresses: bool,
}

tokio::task_local! {
    /// How the lookups of the call that runs in this task ended, by their keys.
    static SEEN: Arc<Mutex<Vec<(String, Look)>>>;
}

/// Tells a call how its lookups were reported.
#[derive(Debug)]
struct Witness;

impl Observer for Witness {
    fn on_event(&self, _: &str, event: &Event<'_>) {
        let (key, look) = match *event {
            Event::Hit { key, stale: true, .. } => (key, Look::Stale),
            Event::Hit { key, .. } => (key, Look::Fresh),
            Event::Miss { key, .. } => (key, Look::Miss),
            _ => return,
        };
        // What runs in the background reports lookups to nobody.
        let _ = SEEN.try_with(|seen| seen.lock().push((key.to_owned(), look)));
    }
}

async fn watched<T>(call: impl IntoFuture<Output = T>) -> (T, Vec<(String, Look)>) {
    let seen = Arc::default();
    // A hit in memory ends before there is a future.
    let outcome = SEEN.scope(Arc::clone(&seen), async { call.await }).await;
    (outcome, std::mem::take(&mut *seen.lock()))
}

/// What was found under some keys of a namespace, and how each lookup was reported.
struct Answer {
    space: usize,
    found: Vec<(&'static str, Option<u64>)>,
    seen: Vec<(String, Look)>,
    /// What had been promised when the call began.
    promised: Floors,
    /// When it ended.
    at: Timestamp,
}

/// A source of a key's values.
#[derive(Debug, Clone)]
struct Source {
    ledger: Arc<Mutex<Ledger>>,
    clock: ManualClock,
    slot: usize,
    life: Life,
}

impl Source {
    /// A value, or a failure, at once.
    async fn load(self, succeeds: bool) -> Result<u64, std::fmt::Error> {
        let value = self.ledger.lock().value(self.slot, self.life);
        self.end(value, succeeds)
    }

    /// A value, or a failure, when it is let go.
    async fn load_slowly(self) -> Result<u64, std::fmt::Error> {
        let (value, gate) = {
            let mut ledger = self.ledger.lock();
            (ledger.value(self.slot, self.life), ledger.gate())
        };
        let succeeds = gate.await.unwrap_or(false);
        self.end(value, succeeds)
    }

    fn end(&self, value: u64, succeeds: bool) -> Result<u64, std::fmt::Error> {
        if !succeeds {
            return Err(std::fmt::Error);
        }
        self.ledger.lock().lives(value, self.life, self.clock.now());
        Ok(value)
    }
}

pub(super) struct World {
    kind: Kind,
    clock: ManualClock,
    chaos: ChaosHandle,
    store: MemoryDriver,
    stack: Stack,
    /// The namespaces of the stack that makes the changes, and of another one on the same store.
    here: Vec<Cache<u64>>,
    there: Vec<Cache<u64>>,
    counts: Cache<i64>,
    /// What the counter may stand at.
    count: BTreeSet<Option<i64>>,
    ledger: Arc<Mutex<Ledger>>,
    callers: JoinSet<Answer>,
    lookups: u64,
    /// Lookups whose callers gave up, and which may have been counted or not.
    lookups_given_up: u64,
    hours_off: i8,
}

/// How long the store may take. Less than a caller waits, so that a store that hangs is not a source that does.
const DEADLINE: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_millis(90);

impl World {
    pub(super) fn new(kind: Kind) -> Self {
        let clock = ManualClock::new(Timestamp::from_millis(1_767_225_600_000));
        let store = MemoryDriver::with_clock(MemoryOptions::default(), Arc::new(clock.clone()));
        let chaos = Chaos::new(store.clone());
        let handle = chaos.handle();
        let options = EntryOptions::default().backoff(Duration::from_millis(20)).hard_timeout(PATIENCE);
        let builder = || Stack::builder("test").clock(Arc::new(clock.clone()));
        let mut here = builder().observer(Arc::new(Witness)).options(options);
        if kind.tiers != Tiers::L2 {
            here = here.memory(MemoryOptions::default());
        }
        if kind.tiers.has_store() {
            let millis = Duration::from_millis;
            let breaker = BreakerOptions::default().failures(3).pause(millis(20)).pause_max(millis(40));
            let recovery = RecoveryOptions::default().interval(millis(30));
            here = here.store(chaos).deadline(DEADLINE).load_max(days(30)).breaker(breaker);
            here = here.recovery(kind.remembers.then_some(recovery));
        }
        let stack = here.build().unwrap();
        let spaces = |stack: &Stack| {
            let outer = stack.cache().unwrap();
            let mut options = EntryOptions::default();
            options.suppress_l2_errors = Some(kind.suppresses);
            let outer: Cache<u64> = outer.with_options(options);
            vec![outer.clone(), outer.namespace(SPACES[1]).unwrap()]
        };
        let there = kind.tiers.has_store().then(|| builder().store(store.clone()).build().unwrap());
        Self {
            kind,
            here: spaces(&stack),
            there: there.as_ref().map(spaces).unwrap_or_default(),
            counts: stack.cache().unwrap(),
            count: BTreeSet::from([None]),
            chaos: handle,
            clock,
            store,
            stack,
            ledger: Arc::default(),
            callers: JoinSet::new(),
            lookups: 0,
            lookups_given_up: 0,
            hours_off: 0,
        }
    }

    fn handle(&self, slot: usize) -> (Cache<u64>, &'static str) {
        (self.here[space_of(slot)].clone(), key_of(slot))
    }

    fn promised(&self) -> Floors {
        self.ledger.lock().here
    }

    fn source(&self, slot: usize, life: Life) -> Source {
        Source { ledger: Arc::clone(&self.ledger), clock: self.clock.clone(), slot, life }
    }

    pub(super) async fn step(&mut self, step: &Step) -> Held {
        match *step {
            Step::Get(_)
            | Step::GetStale(_)
            | Step::GetMany(_)
            | Step::Has(_)
            | Step::Entry(_)
            | Step::There(..) => self.look_up(step).await?,
            Step::Load { .. } | Step::LoadMany { .. } | Step::Begin { .. } => self.load(step).await?,
            Step::Land { which, succeeds } => drop(self.ledger.lock().land(which, succeeds)),
            Step::GiveUp => self.callers.abort_all(),
            Step::Count(_) | Step::ReadCount | Step::DeleteCount => self.count(step).await?,
            Step::Pull(_) | Step::Add { .. } | Step::Touch { .. } | Step::Expire(_) => {
                self.rewrite(step).await?
            }
            Step::Set { .. }
            | Step::SetMany { .. }
            | Step::Delete(_)
            | Step::DeleteMany(_)
            | Step::Clear { .. }
            | Step::Invalidate { .. } => self.change(step).await,
            Step::Prune => drop(self.stack.prune().await),
            Step::Advance(millis) => {
                self.end_calls().await;
                self.clock.advance_with_timers(Duration::from_millis(millis)).await;
            }
            Step::Jump(hours_off) => {
                self.end_calls().await;
                self.jump(hours_off);
            }
            Step::Break(fault) => self.break_store(fault),
            Step::Heal => self.chaos.heal(),
            Step::Deliver { reversed } => self.deliver(reversed).await,
        }
        self.settle().await
    }

    /// Lets what runs in the background do so, and checks what it came to.
    async fn settle(&mut self) -> Held {
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        while let Some(answer) = self.callers.try_join_next() {
            self.came_back(answer)?;
        }
        match self.ledger.lock().complaints() {
            [] => Ok(()),
            complaints => Err(complaints.join("; ")),
        }
    }

    fn came_back(&mut self, answer: Result<Answer, tokio::task::JoinError>) -> Held {
        match answer {
            Ok(answer) => self.check(&answer),
            Err(error) if error.is_cancelled() => {
                self.lookups_given_up += 1;
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// Every key that was asked for is one lookup, and what was found may be.
    fn check(&mut self, answer: &Answer) -> Held {
        let Answer { space, found, seen, promised, at } = answer;
        self.lookups += found.len() as u64;
        if seen.len() != found.len() {
            return Err(format!("{} lookups were reported as {seen:?}", found.len()));
        }
        for (key, value) in found {
            let Some((_, look)) = seen.iter().find(|(seen, _)| seen == key) else {
                return Err(format!("the lookup of {key} was not reported: {seen:?}"));
            };
            if let Some(value) = value {
                self.check_found(*space, key, *value, *look, promised, *at)?;
            } else if *look != Look::Miss {
                return Err(format!("nothing was found under {key}, and it was a hit: {seen:?}"));
            }
        }
        Ok(())
    }

    fn check_found(
        &self,
        space: usize,
        key: &str,
        value: u64,
        look: Look,
        promised: &Floors,
        at: Timestamp,
    ) -> Held {
        let key = KEYS.iter().position(|known| *known == key).unwrap_or(usize::MAX);
        let fault = self.ledger.lock().fault(slot(space, key), value, look, promised, at);
        fault.map_or(Ok(()), Err)
    }

    async fn look_up(&mut self, step: &Step) -> Held {
        let (promised, at) = (self.promised(), self.clock.now());
        let (slot, (found, seen)) = match *step {
            Step::Get(slot) => (slot, watched(self.handle(slot).0.get(key_of(slot))).await),
            Step::GetStale(slot) => (slot, watched(self.handle(slot).0.get_stale(key_of(slot))).await),
            Step::GetMany(space) => {
                let (found, seen) = watched(self.here[space].get_many(&KEYS)).await;
                let found = found.unwrap_or_else(|_| KEYS.map(|_| None).to_vec());
                let found = KEYS.into_iter().zip(found.into_iter().map(|value| value.map(|n| *n))).collect();
                return self.check(&Answer { space, found, seen, promised, at });
            }
            Step::Has(slot) => {
                let (cache, key) = self.handle(slot);
                return cache.has(key).await.map(drop).or_else(|error| self.may_fail(&error));
            }
            Step::Entry(slot) => {
                let (cache, key) = self.handle(slot);
                return match cache.entry(key).await {
                    Ok(Some(entry)) => {
                        let look = look_of(entry.state);
                        self.check_found(space_of(slot), key, *entry.value, look, &promised, at)
                    }
                    Ok(None) => Ok(()),
                    Err(error) => self.may_fail(&error),
                };
            }
            Step::There(slot, reading) => return self.look_up_there(slot, reading).await,
            _ => return Ok(()),
        };
        if let Err(error) = &found {
            self.may_fail(error)?;
        }
        let found = vec![(key_of(slot), found.ok().flatten().map(|n| *n))];
        self.check(&Answer { space: space_of(slot), found, seen, promised, at })
    }

    /// A lookup by the other process, which has no memory tier, and whose store works.
    async fn look_up_there(&mut self, slot: usize, reading: Reading) -> Held {
        let Some(cache) = self.there.get(space_of(slot)) else { return Ok(()) };
        let (promised, key, at) = (self.ledger.lock().there, key_of(slot), self.clock.now());
        let broken = |error: larder::Error| format!("the other process cannot read: {error}");
        let found = match reading {
            Reading::Get => cache.get(key).await.map_err(broken)?.map(|value| (*value, Look::Fresh)),
            Reading::Many => {
                let found = cache.get_many(&[key]).await.map_err(broken)?.pop().flatten();
                found.map(|value| (*value, Look::Fresh))
            }
            // Whether it is stale, this does not say; stale is what less is promised of.
            Reading::Stale => cache.get_stale(key).await.map_err(broken)?.map(|value| (*value, Look::Stale)),
            Reading::Entry => {
                let found = cache.entry(key).await.map_err(broken)?;
                found.map(|entry| (*entry.value, look_of(entry.state)))
            }
        };
        found.map_or(Ok(()), |(value, look)| {
            self.check_found(space_of(slot), key, value, look, &promised, at)
                .map_err(|fault| format!("{fault} there"))
        })
    }

    /// A failure that a broken store explains.
    fn may_fail(&self, error: &larder::Error) -> Held {
        let is_the_stores = matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout);
        (is_the_stores && self.kind.tiers.has_store()).then_some(()).ok_or_else(|| error.to_string())
    }

    async fn load(&mut self, step: &Step) -> Held {
        let (promised, at) = (self.promised(), self.clock.now());
        match *step {
            Step::Load { slot, succeeds, life, soft } => {
                let (cache, key) = self.handle(slot);
                let source = self.source(slot, life);
                let request = cache.get_or_set(key, move || source.load(succeeds));
                let request = request.ttl(life.ttl).grace(life.grace).tags(life.tags());
                let (found, seen) = match soft {
                    Some(soft) => watched(request.soft_timeout(Duration::from_millis(soft))).await,
                    None => watched(request).await,
                };
                let found = vec![(key, found.ok().map(|n| *n))];
                self.check(&Answer { space: space_of(slot), found, seen, promised, at })
            }
            Step::LoadMany { space, fails, life } => {
                let sources: Vec<_> =
                    (0..KEYS.len()).map(|key| self.source(slot(space, key), life)).collect();
                let load = move |missing: Vec<String>| async move {
                    let mut loaded = Vec::new();
                    for (key, source) in sources.into_iter().enumerate() {
                        if missing.iter().any(|name| name == KEYS[key]) {
                            loaded.push((KEYS[key].to_owned(), source.load(fails != Some(key)).await));
                        }
                    }
                    Ok::<_, std::fmt::Error>(loaded)
                };
                let request = self.here[space].get_or_set_many(&KEYS, load);
                let request = request.ttl(life.ttl).grace(life.grace).tags(life.tags());
                let (found, seen) = watched(request).await;
                let found =
                    KEYS.into_iter().zip(found.into_iter().map(|value| value.ok().map(|n| *n))).collect();
                self.check(&Answer { space, found, seen, promised, at })
            }
            Step::Begin { slot, life, soft, says_own_tags } => {
                let call = self.begin(slot, life, soft, says_own_tags, promised);
                self.callers.spawn(call);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A call whose load ends when it is let go.
    fn begin(
        &self,
        slot: usize,
        life: Life,
        soft: Option<u64>,
        says_own_tags: bool,
        promised: Floors,
    ) -> Pin<Box<dyn Future<Output = Answer> + Send>> {
        let ((cache, key), source, clock) = (self.handle(slot), self.source(slot, life), self.clock.clone());
        Box::pin(async move {
            // More than a caller waits is as good as no soft timeout.
            let soft = soft.map_or(PATIENCE, Duration::from_millis);
            let call = async {
                if says_own_tags {
                    let (ledger, now) = (Arc::clone(&source.ledger), source.clock.now());
                    let load = move |previous: Option<larder::Previous<u64>>| async move {
                        if let Some(previous) = previous {
                            // What the loader is shown is what may be served stale.
                            let mut ledger = ledger.lock();
                            let fault = ledger.fault(slot, *previous.value, Look::Stale, &promised, now);
                            ledger.complain(fault);
                        }
                        source.load_slowly().await.map(|value| Loaded::new(value).tags(life.tags()))
                    };
                    let request = cache.get_or_set_with(key, load).ttl(life.ttl).grace(life.grace);
                    request.soft_timeout(soft).await
                } else {
                    let request = cache.get_or_set(key, move || source.load_slowly());
                    request.ttl(life.ttl).grace(life.grace).tags(life.tags()).soft_timeout(soft).await
                }
            };
            let (found, seen) = watched(call).await;
            let found = vec![(key, found.ok().map(|n| *n))];
            Answer { space: space_of(slot), found, seen, promised, at: clock.now() }
        })
    }

    /// Changes that win over everything before them.
    async fn change(&mut self, step: &Step) {
        let moment = self.ledger.lock().tick();
        let now = self.clock.now();
        let (changes, is_done) = match *step {
            Step::Set { slot, life } => {
                let (cache, key) = self.handle(slot);
                let value = self.begin_set(slot, life, now);
                let set = cache.set(key, value).ttl(life.ttl).grace(life.grace).tags(life.tags());
                (vec![Change::Key(slot)], set.await.is_ok())
            }
            Step::SetMany { space, life } => {
                let slots: Vec<_> = (0..KEYS.len()).map(|key| slot(space, key)).collect();
                let values: Vec<_> =
                    slots.iter().map(|slot| (key_of(*slot), self.begin_set(*slot, life, now))).collect();
                let set = self.here[space].set_many(values).ttl(life.ttl).grace(life.grace).tags(life.tags());
                (slots.into_iter().map(Change::Key).collect(), set.await.is_ok())
            }
            Step::Delete(slot) => {
                let (cache, key) = self.handle(slot);
                (vec![Change::Key(slot)], cache.delete(key).await.is_ok())
            }
            Step::DeleteMany(space) => {
                let slots = (0..KEYS.len()).map(|key| Change::Key(slot(space, key)));
                (slots.collect(), self.here[space].delete_many(&KEYS).await.is_ok())
            }
            Step::Clear { space, soft } => {
                let clear = self.here[space].clear();
                let outcome = if soft { clear.soft().await } else { clear.await };
                if space == 0 {
                    // The counter lasts forever, so it has no grace that a soft one could leave.
                    self.count = BTreeSet::from([None]);
                }
                (vec![Change::Clear { space, soft }], outcome.is_ok())
            }
            Step::Invalidate { space, tag, soft } => {
                let invalidate = self.here[space].invalidate([TAGS[tag]]);
                let outcome = if soft { invalidate.soft().await } else { invalidate.await };
                (vec![Change::Tag { space, tag, soft }], outcome.is_ok())
            }
            _ => return,
        };
        for change in changes {
            let holds_anyway = self.kind.remembers || !matches!(change, Change::Key(_));
            self.ledger.lock().promise(change, moment, is_done || holds_anyway, is_done);
        }
    }

    fn begin_set(&self, slot: usize, life: Life, now: Timestamp) -> u64 {
        let mut ledger = self.ledger.lock();
        let value = ledger.value(slot, life);
        ledger.lives(value, life, now);
        value
    }

    /// Changes that depend on what is there.
    async fn rewrite(&mut self, step: &Step) -> Held {
        let promised = self.promised();
        let moment = self.ledger.lock().tick();
        let now = self.clock.now();
        let at = now;
        match *step {
            Step::Pull(slot) => {
                let (cache, key) = self.handle(slot);
                let (pulled, seen) = watched(cache.pull(key)).await;
                if let Ok(Some(_)) = pulled {
                    self.ledger.lock().promise(Change::Key(slot), moment, true, true);
                }
                let found = vec![(key, pulled.ok().flatten().map(|n| *n))];
                return self.check(&Answer { space: space_of(slot), found, seen, promised, at });
            }
            Step::Add { slot, life } => {
                let (cache, key) = self.handle(slot);
                let value = self.begin_set(slot, life, now);
                let add = cache.add(key, value).ttl(life.ttl).grace(life.grace).tags(life.tags());
                if let Ok(true) = add.await {
                    self.ledger.lock().promise(Change::Key(slot), moment, true, true);
                }
            }
            Step::Touch { slot, ttl } => {
                let (cache, key) = self.handle(slot);
                self.ledger.lock().touched(slot, ttl, GRACE_MAX, now);
                // One that failed may have happened.
                let _ = cache.touch(key, ttl).await;
            }
            Step::Expire(slot) => {
                let (cache, key) = self.handle(slot);
                if cache.expire(key).await.is_ok() {
                    self.ledger.lock().expired(slot, moment, GRACE_MAX, now);
                }
            }
            _ => {}
        }
        Ok(())
    }

    async fn count(&mut self, step: &Step) -> Held {
        match *step {
            Step::Count(by) => {
                let sums = self.count.iter().map(|known| Some(known.unwrap_or(0) + by));
                let sums: BTreeSet<_> = sums.collect();
                match self.counts.increment("count", by).ttl(Ttl::Forever).await {
                    Ok(sum) if sums.contains(&Some(sum)) => self.count = BTreeSet::from([Some(sum)]),
                    Ok(sum) => return Err(format!("counted up to {sum}, which is none of {sums:?}")),
                    // It may have been counted, or may be yet.
                    Err(error) => {
                        self.may_fail(&error)?;
                        self.count.extend(sums);
                    }
                }
            }
            Step::ReadCount => {
                self.lookups += 1;
                if let Ok(found @ Some(_)) = self.counts.get("count").await.map(|found| found.map(|n| *n))
                    && !self.count.contains(&found)
                {
                    return Err(format!(
                        "the counter stands at {found:?}, and not at one of {:?}",
                        self.count
                    ));
                }
            }
            Step::DeleteCount => {
                let is_gone = self.counts.delete("count").await.is_ok() || self.kind.remembers;
                if is_gone {
                    self.count.clear();
                }
                self.count.insert(None);
            }
            _ => {}
        }
        Ok(())
    }
}

fn look_of(state: Freshness) -> Look {
    if state == Freshness::Fresh { Look::Fresh } else { Look::Stale }
}
