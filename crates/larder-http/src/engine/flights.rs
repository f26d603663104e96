//! Who asks the origin, and who waits for the one who does (RFC 9111 section 4, collapsed requests). Knows nothing of
//! messages.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder::time::Stamp;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::arriving::Arriving;
use super::validate::Failed;

/// The most targets that are asked for at a time and that others wait for. Requests beyond that go on alone.
pub const FLIGHTS_MAX: usize = 10_000;
/// The most targets that are remembered because their responses are for one request only.
pub const LONERS_MAX: usize = 10_000;
/// How long a target is remembered whose response was for one request only: its requests do not wait for each other.
pub const LONER_TIME: Duration = Duration::from_secs(120);
/// How long a request waits for another one's response to begin, before it goes on alone.
pub const WAIT_MAX: Duration = Duration::from_secs(30);
/// The most targets that are remembered because they were invalidated. When there are more, what is on its way at that
/// moment is not kept.
const INVALIDATED_MAX: usize = 65_536;

/// What came of asking.
#[derive(Debug, Clone)]
pub(super) enum Landing {
    /// Not known yet.
    Pending,
    /// A response is arriving that may be for others too.
    Arriving(Arc<Arriving>),
    /// What is stored was brought up to date: look again.
    Settled,
    /// The origin failed.
    Failed(Failed),
    /// The response is for one request only.
    Alone,
    /// It says nothing about other requests: ask again.
    Again,
}

/// What came of asking, or will, by what those who wait have in common.
type Running = HashMap<Arc<str>, watch::Receiver<Landing>>;

/// The targets that are being asked for.
#[derive(Debug, Default)]
pub(super) struct Flights {
    running: Mutex<Running>,
    /// Hashes of targets, with when they are forgotten, on the monotonic clock.
    loners: Mutex<HashMap<u64, Duration>>,
    /// How many invalidations there were.
    invalidations: AtomicU64,
    invalidated: Mutex<Invalidated>,
}

/// When targets were invalidated, counted in invalidations.
#[derive(Debug, Default)]
struct Invalidated {
    /// By the hash of the target.
    targets: HashMap<u64, u64>,
    by_tag: u64,
    all: u64,
}

/// What a request does.
pub(super) enum Role {
    Lead(Lead),
    Wait(watch::Receiver<Landing>),
    Alone,
}

impl Flights {
    /// Leads, or waits for whoever does.
    pub(super) fn join(self: &Arc<Self>, key: &str, now: Duration) -> Role {
        if self.is_loner(key, now) {
            return Role::Alone;
        }
        let mut running = self.running.lock();
        match running.get(key) {
            Some(flight) => Role::Wait(flight.clone()),
            None => self.begin(&mut running, key).map_or(Role::Alone, Role::Lead),
        }
    }

    /// Leads if nobody does.
    pub(super) fn lead(self: &Arc<Self>, key: &str) -> Option<Lead> {
        let mut running = self.running.lock();
        if running.contains_key(key) { None } else { self.begin(&mut running, key) }
    }

    /// Leads, where nobody does. `None` if too many do elsewhere.
    fn begin(self: &Arc<Self>, running: &mut Running, key: &str) -> Option<Lead> {
        if running.len() >= FLIGHTS_MAX {
            return None;
        }
        let key: Arc<str> = key.into();
        let (landing, receiver) = watch::channel(Landing::Pending);
        running.insert(Arc::clone(&key), receiver);
        Some(Lead { flights: Arc::clone(self), key, landing, is_down: false })
    }

    /// How many are under way.
    pub(super) fn len(&self) -> usize {
        self.running.lock().len()
    }

    fn is_loner(&self, key: &str, now: Duration) -> bool {
        let hash = hash(key);
        let mut loners = self.loners.lock();
        match loners.get(&hash) {
            Some(until) if *until > now => true,
            Some(_) => {
                loners.remove(&hash);
                false
            }
            None => false,
        }
    }

    /// Remembers that responses for a target are for one request only.
    pub(super) fn remember_loner(&self, key: &str, now: Duration) {
        let mut loners = self.loners.lock();
        if loners.len() >= LONERS_MAX {
            loners.retain(|_, until| *until > now);
            if loners.len() >= LONERS_MAX {
                loners.clear();
            }
        }
        loners.insert(hash(key), now.saturating_add(LONER_TIME));
    }

    /// Forgets it again: one was for others.
    pub(super) fn forget_loner(&self, key: &str) {
        let mut loners = self.loners.lock();
        if !loners.is_empty() {
            loners.remove(&hash(key));
        }
    }

    /// What has been invalidated until now. `began` is what the store calls this moment.
    pub(super) fn since(&self, began: Option<Stamp>) -> Since {
        Since { nth: self.invalidations.load(Ordering::SeqCst), began }
    }

    /// Whether a response that was asked for at `since` may still be kept.
    pub(super) fn is_valid(&self, since: Since, target: &str, has_tags: bool) -> bool {
        if self.invalidations.load(Ordering::SeqCst) == since.nth {
            return true;
        }
        let invalidated = self.invalidated.lock();
        let last = invalidated.targets.get(&hash(target)).copied().unwrap_or_default();
        last.max(invalidated.all) <= since.nth && (!has_tags || invalidated.by_tag <= since.nth)
    }

    /// How many invalidations there were.
    pub(super) fn count(&self) -> u64 {
        self.invalidations.load(Ordering::SeqCst)
    }

    /// What is on its way for a target is not to be kept, and nobody joins it any more.
    pub(super) fn invalidate(&self, target: &str) {
        {
            let mut invalidated = self.invalidated.lock();
            let nth = self.next();
            if invalidated.targets.len() >= INVALIDATED_MAX {
                invalidated.targets.clear();
                invalidated.all = nth;
            }
            invalidated.targets.insert(hash(target), nth);
        }
        self.running.lock().remove(target);
    }

    /// What is on its way and turns out to have tags is not to be kept, and nobody joins it any more.
    pub(super) fn invalidate_tags(&self) {
        let mut invalidated = self.invalidated.lock();
        invalidated.by_tag = self.next();
    }

    /// Nothing that is on its way is to be kept.
    pub(super) fn invalidate_all(&self) {
        {
            let mut invalidated = self.invalidated.lock();
            invalidated.all = self.next();
        }
        self.running.lock().clear();
    }

    /// The number of this invalidation.
    fn next(&self) -> u64 {
        self.invalidations.fetch_add(1, Ordering::SeqCst) + 1
    }
}

/// What had been invalidated when a request went out: in this process by its number, in others by the store's stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Since {
    pub(super) nth: u64,
    pub(super) began: Option<Stamp>,
}

/// The right to ask the origin for all who wait. Dropped, the others ask again.
#[derive(Debug)]
pub(super) struct Lead {
    flights: Arc<Flights>,
    key: Arc<str>,
    landing: watch::Sender<Landing>,
    is_down: bool,
}

impl Lead {
    /// Tells all who wait what came of it. Nobody joins any more, except what is arriving, until that is there.
    pub(super) fn land(mut self, landing: Landing) {
        self.finish(landing);
    }

    /// Tells all who wait that a response is arriving, and lets others join it until the result is dropped.
    pub(super) fn arrive(self, arriving: Arc<Arriving>) -> Self {
        self.landing.send_replace(Landing::Arriving(arriving));
        self
    }

    fn finish(&mut self, landing: Landing) {
        if std::mem::replace(&mut self.is_down, true) {
            return;
        }
        {
            let mut running = self.flights.running.lock();
            // It may be another's by now, if it was invalidated.
            let own = self.landing.subscribe();
            if running.get(&self.key).is_some_and(|flight| flight.same_channel(&own)) {
                running.remove(&self.key);
            }
        }
        self.landing.send_if_modified(|was| match was {
            // Whoever waits has what is arriving, and reads it to its end.
            Landing::Arriving(_) => false,
            _ => {
                *was = landing;
                true
            }
        });
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.finish(Landing::Again);
    }
}

/// Waits until it is known what came of it. Whoever has waited too long goes on alone.
pub(super) async fn landed(mut flight: watch::Receiver<Landing>) -> Landing {
    let landed = flight.wait_for(|landing| !matches!(landing, Landing::Pending));
    match tokio::time::timeout(WAIT_MAX, landed).await {
        Ok(Ok(landing)) => landing.clone(),
        // Whoever asked is gone without a word.
        Ok(Err(_)) => Landing::Again,
        Err(_) => Landing::Alone,
    }
}

pub(super) fn hash(text: &str) -> u64 {
    use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
    BuildHasherDefault::<DefaultHasher>::default().hash_one(text)
}
