//! A source that is down for ten minutes under a thousand calls a second, while its store is down for five of them.
//!
//! Everything runs on the manual clock. What the stack says of itself is compared with what was counted beside it:
//! by the callers and the source ([`shop`]), by a driver around the store and by an observer ([`tally`]).

mod shop;
mod tally;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt as _, poll};
use larder::driver::memory::MemoryDriver;
use larder::entry::Freshness;
use larder::event::Tier;
use larder::key::KeySpace;
use larder::memory::MemoryOptions;
use larder::testing::{Chaos, ChaosHandle, ManualClock, Operation, Tiers};
use larder::time::{Clock as _, Timestamp, minutes, seconds};
use larder::{Cache, EntryOptions, ErrorKind, Stack};
use parking_lot::Mutex;

use shop::{BACKOFF, Call, Ended, KEYS, Shop};
use tally::{Counted, Counter, Traffic};

const TTL: Duration = minutes(1);
const GRACE: Duration = minutes(20);
const SHORT_GRACE: Duration = minutes(2);
const START: Timestamp = Timestamp::from_millis(1_767_225_600_000);
/// How long the source is down.
const OUTAGE: Duration = minutes(10);
/// How much time passes at once. Everybody who comes in it comes at its beginning.
const TICK: Duration = Duration::from_millis(250);

/// What happens to some of the keys.
const DELETED: std::ops::Range<usize> = 0..5;
const DELETED_MEANWHILE: std::ops::Range<usize> = 5..10;
const TAGGED: std::ops::Range<usize> = 10..20;
const SOFTENED: std::ops::Range<usize> = 20..30;
const SET_MEANWHILE: std::ops::Range<usize> = 30..40;
const DELETED_ELSEWHERE: std::ops::Range<usize> = 40..45;
const SET_ELSEWHERE: std::ops::Range<usize> = 45..50;
const OF_SHORT_GRACE: std::ops::Range<usize> = 50..60;
/// In a namespace of its own.
const CLEARED: std::ops::Range<usize> = 60..70;

fn grace(key: usize) -> Duration {
    if OF_SHORT_GRACE.contains(&key) { SHORT_GRACE } else { GRACE }
}

fn tags(key: usize) -> &'static [&'static str] {
    match key {
        key if TAGGED.contains(&key) => &["hard"],
        key if SOFTENED.contains(&key) => &["soft"],
        _ => &[],
    }
}

/// Something that happens at some second.
#[derive(Debug, Clone, Copy)]
enum Happening {
    SourceDown,
    SourceBack,
    StoreFails,
    StoreHangs,
    /// The store carries out what it is told, and cannot say so; reads fail.
    StoreIsMute,
    StoreBack,
    Delete,
    /// Changes of every kind, which the store takes, or does not.
    Change {
        succeeds: bool,
    },
    SetAgain,
    ChangeElsewhere,
    /// The store has been back for a while.
    StoreIsWell,
    /// The source has been back for almost a TTL: what was loaded first is still fresh.
    AllIsWell,
}

/// The stack under test, another process on its store, and everybody who counts.
struct Scene {
    clock: ManualClock,
    shop: Shop,
    chaos: ChaosHandle,
    stack: Stack,
    cache: Cache<u64>,
    inner: Cache<u64>,
    elsewhere: Cache<u64>,
    inner_elsewhere: Cache<u64>,
    counter: Arc<Counter>,
    traffic: Arc<Mutex<Traffic>>,
    /// Where a value is found that is everywhere.
    nearest: Tier,
    /// When the source came back.
    back_at: Timestamp,
    names: Vec<String>,
    chance: u64,
    /// Changes that the store did not take.
    failed_changes: u64,
    calls: u64,
    hits: u64,
    hits_stale: u64,
    misses: u64,
    errors: u64,
}

type Waiting<'a> = Pin<Box<dyn Future<Output = (Call, larder::Result<Arc<u64>>)> + Send + 'a>>;

impl Scene {
    fn new(tiers: Tiers) -> Self {
        let clock = ManualClock::new(START);
        let store = MemoryDriver::with_clock(MemoryOptions::default(), Arc::new(clock.clone()));
        let shop = Shop::new(clock.clone());
        let chaos = Chaos::new(store.clone());
        let (handle, traffic) = (chaos.handle(), Arc::<Mutex<Traffic>>::default());
        let (outer, inside) =
            (KeySpace::new("shop").unwrap(), KeySpace::new("shop").unwrap().child("in").unwrap());
        let full = |key: usize| {
            let space = if CLEARED.contains(&key) { &inside } else { &outer };
            (space.full(&key.to_string()).unwrap(), key)
        };
        let names: HashMap<_, _> = (0..KEYS).map(full).collect();
        let books = Arc::clone(&shop.books);
        let counted = Counted {
            driver: chaos,
            clock: clock.clone(),
            traffic: Arc::clone(&traffic),
            books,
            names: Arc::new(names),
        };
        let counter = Arc::new(Counter { books: Some(Arc::clone(&shop.books)), ..Counter::default() });
        let mut options = EntryOptions::default().ttl(TTL).grace(GRACE).backoff(BACKOFF);
        options.suppress_l2_errors = Some(true);
        let builder = || Stack::builder("shop").clock(Arc::new(clock.clone())).options(options);
        let mut here = builder().store(counted).observer(Arc::clone(&counter) as _).deadline(TICK);
        if tiers == Tiers::Both {
            here = here.memory(MemoryOptions::default());
        }
        let (stack, elsewhere) = (here.build().unwrap(), builder().store(store).build().unwrap());
        let (cache, elsewhere) = (stack.cache::<u64>().unwrap(), elsewhere.cache::<u64>().unwrap());
        Self {
            inner: cache.namespace("in").unwrap(),
            inner_elsewhere: elsewhere.namespace("in").unwrap(),
            clock,
            shop,
            chaos: handle,
            nearest: if tiers == Tiers::Both { Tier::L1 } else { Tier::L2 },
            stack,
            cache,
            elsewhere,
            counter,
            traffic,
            names: (0..KEYS).map(|key| key.to_string()).collect(),
            chance: 0x1357_9bdf,
            failed_changes: 0,
            back_at: START,
            calls: 0,
            hits: 0,
            hits_stale: 0,
            misses: 0,
            errors: 0,
        }
    }

    fn cache(&self, key: usize) -> &Cache<u64> {
        if CLEARED.contains(&key) { &self.inner } else { &self.cache }
    }

    fn elsewhere(&self, key: usize) -> &Cache<u64> {
        if CLEARED.contains(&key) { &self.inner_elsewhere } else { &self.elsewhere }
    }

    /// The next key: some are asked for often, and some now and then.
    fn next_key(&mut self) -> usize {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.chance;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let share = (mixed >> 40) as f64 / (1_u64 << 24) as f64;
        // So that no class of keys is a class of popularity.
        ((share * share * KEYS as f64) as usize * 77) % KEYS
    }

    fn ended(&mut self, call: Call, outcome: &larder::Result<Arc<u64>>) {
        self.calls += 1;
        if let Err(error) = outcome {
            assert_eq!(error.kind(), ErrorKind::Load, "{error}");
            self.errors += 1;
        }
        let found = outcome.as_ref().ok().map(|value| **value);
        match self.shop.books.lock().end(call, found, self.clock.now()) {
            Ended::Fresh => self.hits += 1,
            Ended::Stale => {
                self.hits += 1;
                self.hits_stale += 1;
            }
            Ended::Missed => self.misses += 1,
        }
    }

    fn second(&self) -> f64 {
        self.clock.now().since(START).as_secs_f64()
    }

    fn assert_no_faults(&self) {
        let books = self.shop.books.lock();
        assert!(books.faults.is_empty(), "second {}: {:#?}", self.second(), books.faults);
    }

    async fn happen(&mut self, happening: Happening) {
        let (reads, writes) = ([Operation::Get, Operation::GetMany], [Operation::Set, Operation::SetMany]);
        match happening {
            Happening::SourceDown => {
                self.shop.set_down(true);
                self.shop.books.lock().asked.fill(0);
            }
            Happening::SourceBack => {
                self.shop.set_down(false);
                self.back_at = self.clock.now();
                self.check_source_was_spared();
            }
            Happening::StoreFails => self.chaos.fail_everything(ErrorKind::Unavailable),
            Happening::StoreHangs => {
                self.chaos.heal();
                reads.iter().chain(&writes).for_each(|operation| self.chaos.stall(*operation));
            }
            Happening::StoreIsMute => {
                self.chaos.heal();
                reads.iter().for_each(|read| self.chaos.fail_all(*read, ErrorKind::Unavailable));
                for write in writes {
                    self.chaos.fail_next_after_landing(write, u64::MAX, ErrorKind::Timeout);
                }
            }
            Happening::StoreBack => self.chaos.heal(),
            Happening::Delete => {
                for key in DELETED {
                    self.cache.delete(&self.names[key]).await.unwrap();
                    self.shop.books.lock().remove(key);
                }
            }
            Happening::Change { succeeds } => self.change(succeeds).await,
            Happening::SetAgain => self.set(SET_MEANWHILE, false).await,
            Happening::ChangeElsewhere => self.change_elsewhere().await,
            Happening::StoreIsWell => self.check_store_is_well().await,
            Happening::AllIsWell => self.check_all_is_well().await,
        }
    }

    /// Sets keys. If the store is down that is an error, and the value is found here all the same.
    async fn set(&mut self, keys: impl Iterator<Item = usize>, succeeds: bool) {
        for key in keys {
            let value = self.shop.books.lock().make(key, TTL, GRACE, self.clock.now());
            let outcome = self.cache.set(&self.names[key], value).await;
            assert_eq!(outcome.is_ok(), succeeds);
            self.shop.books.lock().set(key, value);
            self.failed_changes += u64::from(!succeeds);
        }
    }

    /// Changes of every kind. If the store is down each is an error, and holds here all the same.
    async fn change(&mut self, succeeds: bool) {
        for key in DELETED_MEANWHILE {
            assert_eq!(self.cache.delete(&self.names[key]).await.is_ok(), succeeds);
        }
        assert_eq!(self.cache.invalidate(["hard"]).await.is_ok(), succeeds);
        assert_eq!(self.cache.invalidate(["soft"]).soft().await.is_ok(), succeeds);
        assert_eq!(self.inner.clear().await.is_ok(), succeeds);
        self.failed_changes += if succeeds { 0 } else { DELETED_MEANWHILE.len() as u64 + 3 };
        {
            let mut books = self.shop.books.lock();
            DELETED_MEANWHILE.chain(TAGGED).chain(CLEARED).for_each(|key| books.remove(key));
            let now = self.clock.now();
            SOFTENED.for_each(|key| books.soften(key, now));
        }
        self.set(SET_MEANWHILE.chain(SET_ELSEWHERE), succeeds).await;
    }

    async fn change_elsewhere(&mut self) {
        for key in DELETED_ELSEWHERE {
            self.elsewhere.delete(&self.names[key]).await.unwrap();
            self.shop.books.lock().changed_elsewhere(key, None);
        }
        for key in SET_ELSEWHERE {
            let value = self.shop.books.lock().make(key, TTL, GRACE, self.clock.now());
            self.elsewhere.set(&self.names[key], value).await.unwrap();
            self.shop.books.lock().changed_elsewhere(key, Some(value));
        }
    }

    /// The source was asked no more than once per key and back-off, where there was anything to serve meanwhile.
    fn check_source_was_spared(&self) {
        let books = self.shop.books.lock();
        let most = OUTAGE.as_secs() / BACKOFF.as_secs() + 1;
        for key in CLEARED.end..KEYS {
            assert!(
                (1..=most).contains(&books.asked[key]),
                "key {key} was asked for {} times",
                books.asked[key]
            );
        }
    }

    /// What could not be written has been, and other processes see it.
    async fn check_store_is_well(&self) {
        assert_eq!(self.stack.pending_writes(), 0);
        assert!(!self.traffic.lock().is_open());
        for key in DELETED.chain(DELETED_MEANWHILE).chain(TAGGED).chain(CLEARED).chain(DELETED_ELSEWHERE) {
            for cache in [self.cache(key), self.elsewhere(key)] {
                assert!(cache.entry(&self.names[key]).await.unwrap().is_none(), "key {key} came back");
            }
        }
        for key in SOFTENED.chain(SET_MEANWHILE).chain(SET_ELSEWHERE) {
            let current = self.shop.books.lock().current(key);
            for cache in [self.cache(key), self.elsewhere(key)] {
                let entry = cache.entry(&self.names[key]).await.unwrap().unwrap();
                assert_eq!((Some(*entry.value), entry.state), (current, Freshness::Stale), "key {key}");
            }
        }
    }

    /// Every key is fresh, with a value from after the outage, for everybody; and nothing is left to do.
    async fn check_all_is_well(&self) {
        assert_eq!(self.stack.pending_writes(), 0);
        assert!(!self.traffic.lock().is_open());
        for key in 0..KEYS {
            let here = self.cache(key).entry(&self.names[key]).await.unwrap().unwrap();
            assert_eq!((here.state, here.tier), (Freshness::Fresh, self.nearest), "key {key}");
            let made_at = self.shop.books.lock().made_at(*here.value).unwrap();
            assert!(self.back_at <= made_at, "key {key} is from {made_at:?}");
            let there = self.elsewhere(key).get(&self.names[key]).await.unwrap();
            assert_eq!(there, Some(here.value), "key {key}");
        }
    }

    /// What the stack says of itself is what was counted beside it.
    fn check_books(&self) {
        let (stats, books, traffic) = (self.stack.stats(), self.shop.books.lock(), self.traffic.lock());
        self.counter.agrees(&stats);
        assert_eq!((stats.lookups(), stats.hits() + stats.misses), (self.calls, self.calls));
        assert_eq!((stats.hits(), stats.hits_stale, stats.misses), (self.hits, self.hits_stale, self.misses));
        assert_eq!((stats.loads, stats.loads_failed), (books.loads, books.loads_failed));
        assert_eq!(stats.l2_failures, traffic.failed);
        assert_eq!((stats.breaker_opens, stats.breaker_closes), (traffic.opened, traffic.closed));
        assert_eq!(traffic.forced, 0, "calls came through an open breaker");
        let ended = stats.retries_landed + stats.retries_yielded + stats.retries_dropped;
        assert_eq!(stats.retries_remembered, ended);
        self.stack.check_invariants().unwrap();
    }
}

fn ask<'a>(
    cache: &'a Cache<u64>,
    name: &'a str,
    shop: &Shop,
    key: usize,
) -> impl Future<Output = larder::Result<Arc<u64>>> + Send + 'a {
    let shop = shop.clone();
    let request = cache.get_or_set(name, move || shop.load(key, TTL, grace(key)));
    request.grace(grace(key)).tags(tags(key).iter().copied()).into_future()
}

/// Plays a script, in which so many callers come in each tick. Whoever has to wait does so among the others.
async fn play(scene: &mut Scene, callers: usize, script: &[(u64, Happening)]) {
    let handles: Vec<_> = (0..KEYS).map(|key| (scene.cache(key).clone(), scene.names[key].clone())).collect();
    let mut waiting: FuturesUnordered<Waiting<'_>> = FuturesUnordered::new();
    for (second, happening) in script {
        while scene.clock.now() < START + seconds(*second) {
            for _ in 0..callers {
                let key = scene.next_key();
                let call = scene.shop.books.lock().begin(key, scene.clock.now());
                let (cache, name) = &handles[key];
                let mut asking = Box::pin(ask(cache, name, &scene.shop, key));
                match poll!(&mut asking) {
                    Poll::Ready(outcome) => scene.ended(call, &outcome),
                    Poll::Pending => waiting.push(Box::pin(async move { (call, asking.await) })),
                }
            }
            // What does not wait for time to pass ends in this tick.
            for _ in 0..12 {
                tokio::task::yield_now().await;
                come_back(scene, &mut waiting).await;
            }
            scene.clock.advance_with_timers(TICK).await;
            come_back(scene, &mut waiting).await;
        }
        scene.assert_no_faults();
        scene.happen(*happening).await;
    }
    while !waiting.is_empty() {
        scene.clock.advance_with_timers(TICK).await;
        come_back(scene, &mut waiting).await;
    }
    scene.assert_no_faults();
    scene.check_books();
}

async fn come_back(scene: &mut Scene, waiting: &mut FuturesUnordered<Waiting<'_>>) {
    while let Poll::Ready(Some((call, outcome))) = poll!(waiting.next()) {
        scene.ended(call, &outcome);
    }
}

#[tokio::test(start_paused = true)]
async fn ten_minutes_without_a_source_and_five_without_a_store_cost_nobody_an_error_while_grace_lasts() {
    use Happening::*;
    let mut scene = Scene::new(Tiers::Both);
    let script = [
        // While the source works, the store fails for a while: what is loaded then is remembered.
        (60, StoreFails),
        (75, StoreBack),
        (120, SourceDown),
        (150, Delete),
        (200, StoreFails),
        (210, Change { succeeds: false }),
        (250, ChangeElsewhere),
        (300, StoreHangs),
        (400, StoreIsMute),
        (450, SetAgain),
        (500, StoreBack),
        (540, StoreIsWell),
        (720, SourceBack),
        (779, AllIsWell),
    ];
    play(&mut scene, 250, &script).await;
    let (stats, books) = (scene.stack.stats(), scene.shop.books.lock());
    assert_eq!(scene.calls, 779_000);
    assert!(books.loads_not_stored > 0);
    assert_eq!(stats.retries_remembered, scene.failed_changes + books.loads_not_stored);
    // To what was set again, and to what was set elsewhere.
    let yielded = SET_MEANWHILE.len() + SET_ELSEWHERE.len();
    assert_eq!((stats.retries_yielded, stats.retries_dropped), (yielded as u64, 0));
}

#[tokio::test(start_paused = true)]
async fn a_store_alone_does_without_its_source_for_ten_minutes_and_its_callers_without_it_for_five() {
    use Happening::*;
    let mut scene = Scene::new(Tiers::L2);
    // With neither, there is nothing to serve: so one after the other.
    let script = [
        (60, StoreFails),
        (160, StoreHangs),
        (260, StoreIsMute),
        (360, StoreBack),
        (420, SourceDown),
        (450, Delete),
        (480, Change { succeeds: true }),
        (500, ChangeElsewhere),
        (600, StoreIsWell),
        (1_020, SourceBack),
        (1_079, AllIsWell),
    ];
    play(&mut scene, 25, &script).await;
    assert_eq!(scene.calls, 107_900);
    assert_eq!(scene.stack.stats().retries_remembered, 0);
}
