//! The source, and the books that are kept of what it gave: by hand, and without asking the cache.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use larder::testing::ManualClock;
use larder::time::{Clock as _, Timestamp};
use parking_lot::Mutex;

/// How many keys there are.
pub(super) const KEYS: usize = 200;
pub(super) const BACKOFF: Duration = Duration::from_secs(10);

/// What is known of a value.
#[derive(Debug, Clone)]
struct Good {
    key: usize,
    fresh_until: Timestamp,
    stale_until: Timestamp,
    made_at: Timestamp,
    /// When whoever asks afterwards finds it, in moments.
    found_from: Option<u64>,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Fresh,
    Stale,
    Missed,
}

/// A call that has begun.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) key: usize,
    moment: u64,
    /// What is older was gone when it began.
    floor: u64,
    /// Whether there was anything to serve when it began.
    had_some: bool,
    began: Timestamp,
}

#[derive(Debug)]
pub(super) struct Books {
    /// Numbers values and everything else, in order.
    moment: u64,
    goods: HashMap<u64, Good>,
    /// The newest value of each key that is still good for anything.
    current: Vec<Option<u64>>,
    floors: Vec<u64>,
    /// What a load of each key has just given, and whether the store has taken it.
    loaded: Vec<Option<(u64, bool)>>,
    /// Until when the source of each key is not to be asked.
    rests: Vec<Timestamp>,
    /// What another process did to a key, of which this one has not heard.
    unheard: HashMap<usize, Option<u64>>,
    pub(super) asked: Vec<u64>,
    pub(super) loads: u64,
    pub(super) loads_failed: u64,
    /// Loads that were kept, and that the store did not take.
    pub(super) loads_not_stored: u64,
    pub(super) faults: Vec<String>,
}

impl Books {
    fn tick(&mut self) -> u64 {
        self.moment += 1;
        self.moment
    }

    fn good(&self, key: usize, now: Timestamp) -> Option<&Good> {
        self.goods.get(&self.current[key]?).filter(|good| now < good.stale_until)
    }

    /// A new value of a key.
    pub(super) fn make(&mut self, key: usize, ttl: Duration, grace: Duration, now: Timestamp) -> u64 {
        let value = self.tick();
        let (fresh_until, stale_until) = (now + ttl, now + ttl + grace);
        let good = Good { key, fresh_until, stale_until, made_at: now, found_from: None };
        self.goods.insert(value, good);
        value
    }

    /// A key was set to a value that was made before: nothing older is to be seen again.
    pub(super) fn set(&mut self, key: usize, value: u64) {
        let moment = self.tick();
        if let Some(good) = self.goods.get_mut(&value) {
            // What another process has set is there before this one hears of it.
            good.found_from.get_or_insert(moment);
        }
        self.current[key] = Some(value);
        self.floors[key] = value;
        self.rests[key] = Timestamp::ZERO;
    }

    /// A key is gone.
    pub(super) fn remove(&mut self, key: usize) {
        self.floors[key] = self.tick();
        self.current[key] = None;
        self.rests[key] = Timestamp::ZERO;
    }

    /// A key is stale.
    pub(super) fn soften(&mut self, key: usize, now: Timestamp) {
        if let Some(good) = self.current[key].and_then(|value| self.goods.get_mut(&value)) {
            good.fresh_until = good.fresh_until.min(now);
        }
    }

    /// Another process set or deleted a key.
    pub(super) fn changed_elsewhere(&mut self, key: usize, value: Option<u64>) {
        let moment = self.tick();
        if let Some(good) = value.and_then(|value| self.goods.get_mut(&value)) {
            good.found_from = Some(moment);
        }
        self.unheard.insert(key, value);
    }

    /// The store has answered what it has under a key.
    pub(super) fn heard(&mut self, key: usize) {
        match self.unheard.remove(&key) {
            Some(Some(value)) => self.set(key, value),
            Some(None) => self.remove(key),
            None => {}
        }
    }

    /// The store has taken a batch with this key.
    pub(super) fn stored(&mut self, key: usize) {
        if let Some((_, is_stored)) = &mut self.loaded[key] {
            *is_stored = true;
        }
    }

    /// What was loaded has been kept.
    pub(super) fn kept(&mut self, key: usize) {
        if let Some((value, is_stored)) = self.loaded[key].take() {
            let moment = self.tick();
            self.loads_not_stored += u64::from(!is_stored);
            if let Some(good) = self.goods.get_mut(&value) {
                good.found_from = Some(moment);
            }
        }
    }

    pub(super) fn begin(&mut self, key: usize, now: Timestamp) -> Call {
        let moment = self.tick();
        Call { key, moment, floor: self.floors[key], had_some: self.good(key, now).is_some(), began: now }
    }

    /// Judges how a call ended, and says what it has to be counted as.
    pub(super) fn end(&mut self, call: Call, found: Option<u64>, now: Timestamp) -> Ended {
        let Call { key, moment, floor, had_some, began } = call;
        let Some(value) = found else {
            if had_some && self.good(key, now).is_some() {
                self.faults.push(format!("key {key} failed at {now:?}, and there is something to serve"));
            }
            return Ended::Missed;
        };
        let Some(good) = self.goods.get(&value).cloned() else {
            self.faults.push(format!("{value} was never made"));
            return Ended::Missed;
        };
        if good.key != key || value < floor || now >= good.stale_until {
            let fault = format!(
                "key {key}, of which nothing before {floor} may be seen, was {value} at {now:?}: {good:?}"
            );
            self.faults.push(fault);
        }
        match good.found_from {
            Some(from) if from < moment && began < good.fresh_until => Ended::Fresh,
            Some(from) if from < moment => Ended::Stale,
            _ => Ended::Missed,
        }
    }

    /// What a key was last set to, or loaded as, if it was not removed since.
    pub(super) fn current(&self, key: usize) -> Option<u64> {
        self.current[key]
    }

    /// When a value was made.
    pub(super) fn made_at(&self, value: u64) -> Option<Timestamp> {
        self.goods.get(&value).map(|good| good.made_at)
    }

    fn ask(&mut self, key: usize, now: Timestamp) {
        self.asked[key] += 1;
        if now < self.rests[key] {
            self.faults
                .push(format!("key {key} was asked for at {now:?}, and rests until {:?}", self.rests[key]));
        }
    }

    fn fail(&mut self, key: usize, now: Timestamp) {
        self.loads_failed += 1;
        if let Some(good) = self.good(key, now) {
            self.rests[key] = good.stale_until.min(now + BACKOFF);
        }
    }

    fn succeed(&mut self, key: usize, ttl: Duration, grace: Duration, now: Timestamp) -> u64 {
        self.loads += 1;
        let value = self.make(key, ttl, grace, now);
        self.loaded[key] = Some((value, false));
        self.current[key] = Some(value);
        self.rests[key] = Timestamp::ZERO;
        value
    }
}

/// The source: up or down, and then now and then slow to say so.
#[derive(Debug, Clone)]
pub(super) struct Shop {
    pub(super) clock: ManualClock,
    pub(super) books: Arc<Mutex<Books>>,
    is_down: Arc<Mutex<bool>>,
}

impl Shop {
    pub(super) fn new(clock: ManualClock) -> Self {
        let books = Books {
            moment: 0,
            goods: HashMap::new(),
            current: vec![None; KEYS],
            floors: vec![0; KEYS],
            loaded: vec![None; KEYS],
            rests: vec![Timestamp::ZERO; KEYS],
            unheard: HashMap::new(),
            asked: vec![0; KEYS],
            loads: 0,
            loads_failed: 0,
            loads_not_stored: 0,
            faults: Vec::new(),
        };
        Self { clock, books: Arc::new(Mutex::new(books)), is_down: Arc::default() }
    }

    pub(super) fn set_down(&self, is_down: bool) {
        *self.is_down.lock() = is_down;
    }

    pub(super) async fn load(
        self,
        key: usize,
        ttl: Duration,
        grace: Duration,
    ) -> Result<u64, std::io::Error> {
        let asked = {
            let mut books = self.books.lock();
            books.ask(key, self.clock.now());
            books.asked[key]
        };
        if !*self.is_down.lock() {
            return Ok(self.books.lock().succeed(key, ttl, grace, self.clock.now()));
        }
        if asked % 3 == 0 {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        self.books.lock().fail(key, self.clock.now());
        Err(std::io::Error::other("the shop is closed"))
    }
}
