//! What is counted without the cache: by an observer, and by a driver around the store with a breaker of its own.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use larder::Result;
use larder::driver::{Capabilities, Driver, Scanned, When, Write, Written};
use larder::event::{Event, Fate, Observer, Tier};
use larder::stats::Snapshot;
use larder::testing::ManualClock;
use larder::time::{Clock as _, Stamp};
use parking_lot::Mutex;

use super::shop::Books;

/// Counts events, and tells the books what has been kept.
#[derive(Debug, Default)]
pub(super) struct Counter {
    pub(super) counts: Mutex<BTreeMap<&'static str, u64>>,
    pub(super) books: Option<Arc<Mutex<Books>>>,
}

impl Observer for Counter {
    fn on_event(&self, _: &str, event: &Event<'_>) {
        let name = match *event {
            Event::Hit { tier: Tier::L1, .. } => "hits in memory",
            Event::Hit { tier: Tier::L2, .. } => "hits in the store",
            Event::FailedWrite { fate: Fate::Remembered, .. } => "remembered",
            Event::FailedWrite { fate: Fate::Landed, .. } => "landed",
            Event::FailedWrite { fate: Fate::Yielded, .. } => "yielded",
            Event::FailedWrite { fate: Fate::Dropped(_), .. } => "dropped",
            _ => event.name(),
        };
        let mut counts = self.counts.lock();
        *counts.entry(name).or_default() += 1;
        if let Event::Hit { stale: true, .. } = event {
            *counts.entry("stale hits").or_default() += 1;
        }
        if let (Event::Written { key, .. }, Some(books)) = (event, &self.books)
            && let Ok(key) = key.parse()
        {
            books.lock().kept(key);
        }
    }
}

impl Counter {
    pub(super) fn of(&self, name: &str) -> u64 {
        self.counts.lock().get(name).copied().unwrap_or(0)
    }

    /// Every count of a stack has its event.
    pub(super) fn agrees(&self, stats: &Snapshot) {
        let counted = [
            ("hits in memory", stats.hits_l1),
            ("hits in the store", stats.hits_l2),
            ("stale hits", stats.hits_stale),
            ("miss", stats.misses),
            ("loaded", stats.loads),
            ("load_failed", stats.loads_failed),
            ("load_superseded", stats.loads_superseded),
            ("written", stats.writes),
            ("deleted", stats.deletes),
            ("expired", stats.expires),
            ("cleared", stats.clears),
            ("tag_invalidated", stats.invalidations),
            ("evicted", stats.evictions),
            ("store_failed", stats.l2_failures),
            ("store_refused", stats.l2_refusals),
            ("breaker_opened", stats.breaker_opens),
            ("breaker_closed", stats.breaker_closes),
            ("remembered", stats.retries_remembered),
            ("landed", stats.retries_landed),
            ("yielded", stats.retries_yielded),
            ("dropped", stats.retries_dropped),
            ("damaged", stats.damaged),
            ("undecodable", stats.undecodable),
        ];
        for (name, count) in counted {
            assert_eq!(self.of(name), count, "{name}, as events and as a count");
        }
    }
}

/// A breaker as [`BreakerOptions`](larder::BreakerOptions) describes its defaults, to compare the engine's with.
#[derive(Debug, Default)]
struct Breaker {
    failures: u32,
    /// Until when nothing may come through, and how long it was closed for.
    open: Option<(Duration, Duration)>,
    is_probed: bool,
    turn: u64,
}

const FAILURES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What reached the store.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    breaker: Breaker,
    pub(super) failed: u64,
    pub(super) opened: u64,
    pub(super) closed: u64,
    /// Calls that came through an open breaker.
    pub(super) forced: u64,
}

impl Traffic {
    fn begin(&mut self, now: Duration) -> u64 {
        let breaker = &mut self.breaker;
        if let Some((until, _)) = breaker.open {
            if now < until || breaker.is_probed {
                self.forced += 1;
            } else {
                breaker.is_probed = true;
                breaker.turn += 1;
            }
        }
        breaker.turn
    }

    fn end(&mut self, turn: u64, is_well: bool, now: Duration) {
        self.failed += u64::from(!is_well);
        let breaker = &mut self.breaker;
        if breaker.turn != turn {
            return;
        }
        let pause = match (breaker.open, is_well) {
            (None, true) => {
                breaker.failures = 0;
                return;
            }
            (None, false) => {
                breaker.failures += 1;
                if breaker.failures < FAILURES {
                    return;
                }
                PAUSE
            }
            (Some(_), true) => {
                *breaker = Breaker { turn: turn + 1, ..Breaker::default() };
                self.closed += 1;
                return;
            }
            (Some((_, pause)), false) => (pause * 2).min(PAUSE_MAX),
        };
        *breaker = Breaker { open: Some((now + pause, pause)), turn: turn + 1, ..Breaker::default() };
        self.opened += 1;
    }

    pub(super) fn is_open(&self) -> bool {
        self.breaker.open.is_some()
    }
}

/// A driver that counts what another one is asked and answers.
#[derive(Debug)]
pub(super) struct Counted<D> {
    pub(super) driver: D,
    pub(super) clock: ManualClock,
    pub(super) traffic: Arc<Mutex<Traffic>>,
    pub(super) books: Arc<Mutex<Books>>,
    /// The keys by the names that the store has for them.
    pub(super) names: Arc<HashMap<String, usize>>,
}

/// A call that is under way. One that is given up has failed.
struct Underway<'a, D> {
    counted: &'a Counted<D>,
    turn: u64,
    is_well: bool,
}

impl<D> Drop for Underway<'_, D> {
    fn drop(&mut self) {
        let Counted { traffic, clock, .. } = self.counted;
        traffic.lock().end(self.turn, self.is_well, clock.monotonic());
    }
}

impl<D> Counted<D> {
    async fn count<T>(&self, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let turn = self.traffic.lock().begin(self.clock.monotonic());
        let mut underway = Underway { counted: self, turn, is_well: false };
        let outcome = call.await;
        underway.is_well = outcome.is_ok();
        outcome
    }
}

#[async_trait]
impl<D: Driver> Driver for Counted<D> {
    fn name(&self) -> &'static str {
        self.driver.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.driver.capabilities()
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        self.count(self.driver.get(key)).await
    }

    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>, when: When) -> Result<Written> {
        self.count(self.driver.set(key, value, ttl, when)).await
    }

    async fn delete(&self, key: &str) -> Result<bool> {
        self.count(self.driver.delete(key)).await
    }

    async fn get_many(&self, keys: &[&str]) -> Result<Vec<Option<Bytes>>> {
        let found = self.count(self.driver.get_many(keys)).await?;
        let mut books = self.books.lock();
        keys.iter().filter_map(|key| self.names.get(*key)).for_each(|key| books.heard(*key));
        Ok(found)
    }

    async fn set_many(&self, writes: Vec<Write>) -> Result<Vec<Written>> {
        let keys: Vec<_> = writes.iter().filter_map(|write| self.names.get(&write.key).copied()).collect();
        let written = self.count(self.driver.set_many(writes)).await?;
        let mut books = self.books.lock();
        keys.into_iter().for_each(|key| books.stored(key));
        drop(books);
        Ok(written)
    }

    fn scan<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Scanned>> {
        self.driver.scan(prefix)
    }

    async fn clear(&self, prefix: &str, until: Stamp) -> Result<u64> {
        // No breaker stands before this one.
        let cleared = self.driver.clear(prefix, until).await;
        self.traffic.lock().failed += u64::from(cleared.is_err());
        cleared
    }

    async fn ping(&self) -> Result<()> {
        self.count(self.driver.ping()).await
    }
}
