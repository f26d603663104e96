//! Writes that the store did not take, until it does: one for each key, the newest, in order, within bounds.
//!
//! Only the books are here. What is remembered, what a lookup makes of it and how it is written again stands in
//! [`recovery`](super::recovery). Knows nothing of stores, of memory and of events.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::stack::verdict::Mark;
use crate::time::{Stamp, seconds};

/// What remembering a write costs beside its key and its record, in bytes, roughly.
const OVERHEAD_BYTES: usize = 256;

/// How writes that the store did not take are remembered and tried again.
///
/// ```
/// use larder::{RecoveryOptions, time::seconds};
/// let options = RecoveryOptions::default().max_writes(1_000).interval(seconds(5));
/// assert_eq!(options.max_bytes, 64 << 20);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryOptions {
    /// The most writes that are remembered, one for each key. Default 10 000.
    pub max_writes: usize,
    /// The most bytes that they may take together. Default 64 MiB.
    pub max_bytes: usize,
    /// How often they are tried again. Default 1 s. When the breaker closes, they are tried at once.
    pub interval: Duration,
}

impl Default for RecoveryOptions {
    fn default() -> Self {
        Self { max_writes: 10_000, max_bytes: 64 << 20, interval: seconds(1) }
    }
}

impl RecoveryOptions {
    /// These options with so many writes.
    #[must_use]
    pub fn max_writes(mut self, writes: usize) -> Self {
        self.max_writes = writes;
        self
    }

    /// These options with so many bytes.
    #[must_use]
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// These options with this time between tries.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// What makes no sense in these options.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        if self.max_writes == 0 || self.max_bytes == 0 {
            return Some("may remember no write that failed: switch that off instead");
        }
        self.interval.is_zero().then_some("tries failed writes again without a pause between")
    }
}

/// What the store is to be told.
#[derive(Debug, Clone)]
pub(crate) enum What {
    /// A value was set, or loaded.
    Entry { record: Bytes },
    /// A key was deleted.
    Tombstone,
    /// A namespace was cleared.
    Clear(Mark),
    /// A tag was invalidated.
    Tag(Mark),
}

/// One write that the store did not take.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    pub(crate) namespace: u32,
    /// The user's key, or the tag; empty for a clear.
    pub(crate) name: Box<str>,
    pub(crate) stamp: Stamp,
    /// When it began, in monotonic time.
    pub(crate) began: Duration,
    /// Whether nobody but a loader asked for it, so that losing it costs a load and nothing else.
    pub(crate) is_load: bool,
    pub(crate) what: What,
}

impl Pending {
    fn bytes(&self, full: &str) -> usize {
        let record = match &self.what {
            What::Entry { record } => record.len(),
            _ => 0,
        };
        OVERHEAD_BYTES + full.len() + self.name.len() + record
    }

    /// What is left to do of this one and of one of the same key that was remembered before, and which of them
    /// gave way.
    fn after(mut self, before: Self) -> (Self, Self) {
        match (&mut self.what, &before.what) {
            // A soft mark must not forget how far a hard one before it reached.
            (What::Clear(mark), What::Clear(known)) | (What::Tag(mark), What::Tag(known)) => {
                *mark = mark.and(*known);
                self.stamp = self.stamp.max(before.stamp);
                (self, before)
            }
            _ => {
                // What somebody asked for is now hidden in the store by this one alone.
                let is_load = self.is_load && before.is_load;
                let (newest, replaced) =
                    if before.stamp > self.stamp { (before, self) } else { (self, before) };
                (Self { is_load, ..newest }, replaced)
            }
        }
    }
}

/// A write in the queue, and its place there.
#[derive(Debug, Clone)]
pub(crate) struct Queued {
    pub(crate) full: Arc<str>,
    pub(crate) place: u64,
    pub(crate) pending: Pending,
}

/// What remembering a write led to.
#[derive(Debug, Default)]
pub(crate) struct Remembered {
    /// Of this one and another of the same key, the one that gave way.
    pub(crate) replaced: Option<Pending>,
    /// Others, or itself, for which there is no room.
    pub(crate) dropped: Vec<Pending>,
    /// Nobody looks after the queue yet.
    pub(crate) needs_keeper: bool,
}

#[derive(Debug, Default)]
struct Queue {
    places: HashMap<Arc<str>, u64>,
    in_order: BTreeMap<u64, (Arc<str>, Pending)>,
    /// Those that nobody but a loader asked for: the first to go.
    loads: BTreeSet<u64>,
    bytes: usize,
    next_place: u64,
    has_keeper: bool,
    /// The stack is closed: nothing is remembered any more.
    is_over: bool,
}

impl Queue {
    fn push(&mut self, full: Arc<str>, pending: Pending) {
        let place = self.next_place;
        self.next_place += 1;
        self.bytes += pending.bytes(&full);
        if pending.is_load {
            self.loads.insert(place);
        }
        self.places.insert(Arc::clone(&full), place);
        self.in_order.insert(place, (full, pending));
    }

    fn remove(&mut self, place: u64) -> Option<(Arc<str>, Pending)> {
        let (full, pending) = self.in_order.remove(&place)?;
        self.places.remove(&full);
        self.loads.remove(&place);
        self.bytes -= pending.bytes(&full);
        Some((full, pending))
    }

    fn get(&self, full: &str) -> Option<(u64, &Pending)> {
        let place = *self.places.get(full)?;
        self.in_order.get(&place).map(|(_, pending)| (place, pending))
    }

    /// The one that is given up first: the oldest that only costs a load, else the oldest.
    fn least(&self) -> Option<u64> {
        self.loads.first().or_else(|| self.in_order.keys().next()).copied()
    }
}

/// The writes of one stack that its store did not take.
#[derive(Debug)]
pub(crate) struct Retry {
    pub(crate) options: RecoveryOptions,
    queue: Mutex<Queue>,
    /// How many there are, for those who only want to know that there are none.
    count: AtomicUsize,
    /// Woken when there is a reason to try before the time.
    pub(crate) hurried: Arc<Notify>,
    /// One at a time tries.
    pub(crate) draining: tokio::sync::Mutex<()>,
}

impl Retry {
    pub(crate) fn new(options: RecoveryOptions) -> Self {
        Self {
            options,
            queue: Mutex::default(),
            count: AtomicUsize::new(0),
            hurried: Arc::default(),
            draining: tokio::sync::Mutex::default(),
        }
    }

    /// How many writes are remembered.
    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    fn change<R>(&self, change: impl FnOnce(&mut Queue) -> R) -> R {
        let mut queue = self.queue.lock();
        let result = change(&mut queue);
        self.count.store(queue.in_order.len(), Ordering::Release);
        result
    }

    /// Remembers a write, behind all others.
    pub(crate) fn remember(&self, full: &str, pending: Pending) -> Remembered {
        self.change(|queue| {
            let before = queue.places.get(full).copied().and_then(|place| queue.remove(place));
            let (pending, replaced) = match before {
                Some((_, before)) => {
                    let (pending, replaced) = pending.after(before);
                    (pending, Some(replaced))
                }
                None => (pending, None),
            };
            queue.push(full.into(), pending);
            let mut dropped = Vec::new();
            while queue.in_order.len() > self.options.max_writes
                || queue.bytes > self.options.max_bytes
                || queue.is_over
            {
                let Some((_, least)) = queue.least().and_then(|place| queue.remove(place)) else { break };
                dropped.push(least);
            }
            let needs_keeper = !queue.in_order.is_empty() && !std::mem::replace(&mut queue.has_keeper, true);
            Remembered { replaced, dropped, needs_keeper }
        })
    }

    /// What is remembered of a key.
    pub(crate) fn find(&self, full: &str) -> Option<(Stamp, What)> {
        if self.len() == 0 {
            return None;
        }
        self.queue.lock().get(full).map(|(_, pending)| (pending.stamp, pending.what.clone()))
    }

    /// Forgets what is remembered of a key if it is no newer than a write that the store took since. Marks
    /// stay: a later soft one does not say what an earlier hard one did.
    pub(crate) fn overtake(&self, full: &str, stamp: Stamp) -> Option<Pending> {
        if self.len() == 0 {
            return None;
        }
        let overtaken = self.change(|queue| {
            let place = match queue.get(full) {
                Some((place, Pending { stamp: known, what: What::Entry { .. } | What::Tombstone, .. }))
                    if *known <= stamp =>
                {
                    place
                }
                _ => return None,
            };
            queue.remove(place).map(|(_, pending)| pending)
        });
        if overtaken.is_some() && self.len() == 0 {
            // For the keeper to see that it may go.
            self.hurried.notify_one();
        }
        overtaken
    }

    /// The oldest ones, as many as may go in one batch: keys together, a mark alone.
    pub(crate) fn first(&self, count: usize) -> Vec<Queued> {
        let is_mark = |pending: &Pending| matches!(pending.what, What::Clear(_) | What::Tag(_));
        let queue = self.queue.lock();
        let mut first = Vec::new();
        for (place, (full, pending)) in queue.in_order.iter().take(count) {
            if is_mark(pending) && !first.is_empty() {
                break;
            }
            first.push(Queued { full: Arc::clone(full), place: *place, pending: pending.clone() });
            if is_mark(pending) {
                break;
            }
        }
        first
    }

    /// Forgets one that is done with. False if another one has taken its place meanwhile.
    pub(crate) fn settle(&self, place: u64) -> bool {
        self.change(|queue| queue.remove(place).is_some())
    }

    /// Forgets all, and remembers nothing from here on.
    pub(crate) fn give_up(&self) -> Vec<Pending> {
        let given_up = self.change(|queue| {
            queue.places.clear();
            queue.loads.clear();
            queue.bytes = 0;
            queue.is_over = true;
            std::mem::take(&mut queue.in_order)
        });
        self.hurried.notify_one();
        given_up.into_values().map(|(_, pending)| pending).collect()
    }

    /// Lets the keeper go if there is nothing left to look after. True if it may.
    pub(crate) fn rest(&self) -> bool {
        let mut queue = self.queue.lock();
        queue.has_keeper = !queue.in_order.is_empty();
        !queue.has_keeper
    }

    /// The keeper is gone, whatever is left.
    pub(crate) fn lose_keeper(&self) {
        self.queue.lock().has_keeper = false;
    }

    /// Whether the books are in order, and somebody looks after what is there.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn check(&self) -> std::result::Result<(), String> {
        let queue = self.queue.lock();
        let bytes: usize = queue.in_order.values().map(|(full, pending)| pending.bytes(full)).sum();
        let loads = queue.in_order.values().filter(|(_, pending)| pending.is_load).count();
        let counted = (queue.in_order.len(), bytes, loads);
        let noted = (queue.places.len(), queue.bytes, queue.loads.len());
        if counted != noted {
            return Err(format!("failed writes, bytes and loads are {counted:?}, the books say {noted:?}"));
        }
        if queue.has_keeper == queue.in_order.is_empty() {
            return Err(format!(
                "{} failed writes, and a keeper: {}",
                queue.in_order.len(),
                queue.has_keeper
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(bits: u64) -> Stamp {
        Stamp::from_bits(bits)
    }

    fn pending(bits: u64, what: What) -> Pending {
        Pending {
            namespace: 0,
            name: "k".into(),
            stamp: stamp(bits),
            began: Duration::ZERO,
            is_load: false,
            what,
        }
    }

    fn entry(bits: u64) -> Pending {
        pending(bits, What::Entry { record: Bytes::from_static(b"record") })
    }

    fn retry(max_writes: usize, max_bytes: usize) -> Retry {
        let retry = Retry::new(RecoveryOptions::default().max_writes(max_writes).max_bytes(max_bytes));
        retry.lose_keeper();
        retry
    }

    fn keys(retry: &Retry) -> Vec<String> {
        retry.check().unwrap();
        retry.first(100).iter().map(|queued| queued.full.to_string()).collect()
    }

    #[test]
    fn the_newest_of_a_key_wins_and_goes_to_the_back() {
        let retry = retry(9, 9_999);
        retry.remember("a", entry(1));
        retry.remember("b", entry(2));
        assert_eq!(retry.remember("a", pending(3, What::Tombstone)).replaced.unwrap().stamp, stamp(1));
        assert_eq!(keys(&retry), ["b", "a"]);
        assert_eq!(retry.remember("a", entry(2)).replaced.unwrap().stamp, stamp(2), "it is older");
        assert!(matches!(retry.find("a"), Some((known, What::Tombstone)) if known == stamp(3)));
    }

    #[test]
    fn beyond_the_bounds_the_oldest_load_goes_and_then_the_oldest() {
        let retry = retry(2, 9_999);
        retry.remember("a", entry(1));
        retry.remember("b", Pending { is_load: true, ..entry(2) });
        assert_eq!(retry.remember("c", entry(3)).dropped[0].stamp, stamp(2));
        assert_eq!(retry.remember("d", entry(4)).dropped[0].stamp, stamp(1));
        assert_eq!(keys(&retry), ["c", "d"]);
        let retry = super::tests::retry(9, 2 * OVERHEAD_BYTES + 100);
        for (key, bits) in [("a", 1), ("b", 2), ("c", 3)] {
            retry.remember(key, entry(bits));
        }
        assert_eq!(keys(&retry), ["b", "c"]);
        let large = Bytes::from(vec![0; 4096]);
        let dropped = retry.remember("large", pending(4, What::Entry { record: large })).dropped;
        assert_eq!((dropped.len(), retry.len()), (3, 0));
        assert!(retry.rest());
        assert_eq!(keys(&retry), [""; 0]);
    }

    #[test]
    fn a_load_over_what_somebody_asked_for_is_not_the_first_to_go() {
        let retry = retry(1, 9_999);
        retry.remember("a", pending(1, What::Tombstone));
        retry.remember("a", Pending { is_load: true, ..entry(2) });
        let dropped = retry.remember("b", Pending { is_load: true, ..entry(3) }).dropped;
        assert_eq!(dropped[0].stamp, stamp(3));
        assert_eq!(keys(&retry), ["a"]);
    }

    #[test]
    fn marks_of_one_place_are_added_up() {
        let retry = retry(9, 9_999);
        let hard = Mark { hard: stamp(5), soft: stamp(5) };
        let soft = Mark { hard: Stamp::ZERO, soft: stamp(7) };
        retry.remember("t", pending(7, What::Tag(soft)));
        retry.remember("t", pending(5, What::Tag(hard)));
        let Some((known, What::Tag(both))) = retry.find("t") else { panic!("no tag") };
        assert_eq!((known, both), (stamp(7), Mark { hard: stamp(5), soft: stamp(7) }));
        assert!(retry.overtake("t", stamp(9)).is_none());
    }

    #[test]
    fn a_newer_write_that_the_store_took_ends_it_and_an_older_one_does_not() {
        let retry = retry(9, 9_999);
        retry.remember("a", entry(5));
        assert!(retry.overtake("a", stamp(4)).is_none());
        assert!(retry.overtake("b", stamp(9)).is_none());
        assert!(retry.overtake("a", stamp(6)).is_some());
        assert!(retry.rest());
        assert_eq!(keys(&retry), [""; 0]);
    }

    #[test]
    fn one_that_was_replaced_while_it_was_tried_is_not_settled() {
        let retry = retry(9, 9_999);
        retry.remember("a", entry(1));
        let tried = retry.first(1).remove(0);
        retry.remember("a", entry(2));
        assert!(!retry.settle(tried.place));
        assert_eq!(retry.len(), 1);
    }

    #[test]
    fn nothing_is_remembered_after_the_end() {
        let retry = retry(9, 9_999);
        retry.remember("a", entry(1));
        assert_eq!(retry.give_up().len(), 1);
        assert!(retry.rest());
        let remembered = retry.remember("a", entry(2));
        assert_eq!((remembered.dropped.len(), remembered.needs_keeper), (1, false));
        assert_eq!(keys(&retry), [""; 0]);
    }

    #[test]
    fn a_batch_holds_keys_or_one_mark() {
        let retry = retry(9, 9_999);
        retry.remember("a", entry(1));
        retry.remember("b", pending(2, What::Tombstone));
        retry.remember("t", pending(3, What::Tag(Mark::default())));
        retry.remember("c", entry(4));
        let mut sizes = Vec::new();
        while retry.len() > 0 {
            let batch = retry.first(100);
            sizes.push(batch.len());
            batch.iter().for_each(|queued| assert!(retry.settle(queued.place)));
        }
        assert_eq!(sizes, [2, 1, 1]);
    }
}
