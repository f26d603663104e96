//! One computation per key, however many threads ask: who computes, who waits, and who may not wait.
//!
//! Blocking threads only; it knows nothing of what is computed or where that is kept.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, ThreadId};

use parking_lot::{Condvar, Mutex};

/// The computations that are under way in one cache.
pub(super) struct Flights<K, V> {
    by_key: Mutex<HashMap<K, Arc<Flight<V>>, foldhash::quality::RandomState>>,
    /// The size of `by_key`, so that a write need not lock it when nothing is being computed.
    count: AtomicUsize,
}

/// One computation, from its beginning until it landed or failed.
struct Flight<V> {
    pilot: Arc<Pilot>,
    state: Mutex<State<V>>,
    ended: Condvar,
}

enum State<V> {
    Flying,
    Landed(Arc<V>),
    Failed,
}

/// Who computes, and whether that is over.
struct Pilot {
    thread: ThreadId,
    ended: AtomicBool,
}

/// Which thread waits for whose computation, over all caches of the process: a circle among them would wait
/// forever, whatever the caches are.
static WAITING: Mutex<Vec<(ThreadId, Arc<Pilot>)>> = Mutex::new(Vec::new());

/// What came of asking for a key.
pub(super) enum Joined<'f, K: Eq + Hash, V> {
    /// Nobody computes it: the caller does.
    Lead(Lead<'f, K, V>),
    /// Somebody else computed it.
    Landed(Arc<V>),
    /// Somebody else tried and failed. The key is free again.
    Failed,
    /// Waiting would never end: this thread computes the key already, or the one that does waits for this.
    Circle,
}

impl<K: Eq + Hash + Clone, V> Flights<K, V> {
    pub(super) fn new() -> Self {
        Self { by_key: Mutex::default(), count: AtomicUsize::new(0) }
    }

    /// Begins to compute a key, or waits for whoever does.
    pub(super) fn join(&self, key: &K) -> Joined<'_, K, V> {
        let here = thread::current().id();
        let flight = {
            let mut by_key = self.by_key.lock();
            let Some(flight) = by_key.get(key) else {
                let pilot = Arc::new(Pilot { thread: here, ended: AtomicBool::new(false) });
                let flight =
                    Arc::new(Flight { pilot, state: Mutex::new(State::Flying), ended: Condvar::new() });
                by_key.insert(key.clone(), Arc::clone(&flight));
                self.count.store(by_key.len(), Ordering::SeqCst);
                return Joined::Lead(Lead { flights: self, key: key.clone(), flight });
            };
            Arc::clone(flight)
        };
        let Some(_waiting) = Waiting::enter(here, &flight.pilot) else { return Joined::Circle };
        let mut state = flight.state.lock();
        loop {
            match &*state {
                State::Flying => flight.ended.wait(&mut state),
                State::Landed(value) => return Joined::Landed(Arc::clone(value)),
                State::Failed => return Joined::Failed,
            }
        }
    }

    /// Makes sure that what is being computed for a key is given to those who wait, and kept by nobody:
    /// something newer is about to be written.
    pub(super) fn supersede<Q>(&self, key: &Q)
    where
        K: std::borrow::Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        // A computation that this misses began after the write did.
        if self.count.load(Ordering::SeqCst) > 0 {
            let mut by_key = self.by_key.lock();
            let removed = by_key.remove_entry(key);
            self.count.store(by_key.len(), Ordering::SeqCst);
            // A key's `Drop` is a user's code.
            drop(by_key);
            drop(removed);
        }
    }

    /// As [`Flights::supersede`], for all keys.
    pub(super) fn supersede_all(&self) {
        if self.count.load(Ordering::SeqCst) > 0 {
            let mut by_key = self.by_key.lock();
            let removed: Vec<_> = by_key.drain().collect();
            self.count.store(0, Ordering::SeqCst);
            drop(by_key);
            drop(removed);
        }
    }
}

/// The right and the duty to compute a key. Dropping it, as a panic does, frees the key.
pub(super) struct Lead<'f, K: Eq + Hash, V> {
    flights: &'f Flights<K, V>,
    key: K,
    flight: Arc<Flight<V>>,
}

impl<K: Eq + Hash, V> Lead<'_, K, V> {
    /// Hands the value to all who wait; and calls `store`, unless something newer was written meanwhile.
    ///
    /// `store` runs under the lock that such a write takes first, hence wholly before or not at all.
    pub(super) fn land(self, value: &Arc<V>, store: impl FnOnce()) {
        self.leave(store);
        self.end(State::Landed(Arc::clone(value)));
    }

    fn leave(&self, store: impl FnOnce()) {
        let mut by_key = self.flights.by_key.lock();
        if by_key.get(&self.key).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight)) {
            store();
            let removed = by_key.remove_entry(&self.key);
            self.flights.count.store(by_key.len(), Ordering::SeqCst);
            drop(by_key);
            drop(removed);
        }
    }

    fn end(&self, state: State<V>) {
        let mut current = self.flight.state.lock();
        if matches!(*current, State::Flying) {
            *current = state;
            self.flight.pilot.ended.store(true, Ordering::Release);
            self.flight.ended.notify_all();
        }
    }
}

impl<K: Eq + Hash, V> Drop for Lead<'_, K, V> {
    fn drop(&mut self) {
        self.leave(|| ());
        self.end(State::Failed);
    }
}

/// This thread waits, and says so as long as this lives.
struct Waiting(ThreadId);

impl Waiting {
    /// `None` if waiting for this computation would close a circle.
    fn enter(here: ThreadId, pilot: &Arc<Pilot>) -> Option<Self> {
        let mut waiting = WAITING.lock();
        let mut next = Some(Arc::clone(pilot));
        // Ends: every edge was checked when it was added, so there is no circle yet.
        while let Some(pilot) = next.filter(|pilot| !pilot.ended.load(Ordering::Acquire)) {
            if pilot.thread == here {
                return None;
            }
            next = waiting.iter().find(|(thread, _)| *thread == pilot.thread).map(|(_, pilot)| pilot.clone());
        }
        waiting.push((here, Arc::clone(pilot)));
        Some(Self(here))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut waiting = WAITING.lock();
        if let Some(index) = waiting.iter().position(|(thread, _)| *thread == self.0) {
            waiting.swap_remove(index);
        }
    }
}
