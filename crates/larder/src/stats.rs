//! Counts of what happened: always on, cheap enough to be on the way of a hit.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::event::{Event, Fate, Tier};

/// Counts since the stack was built. Every lookup is exactly one hit or one miss.
///
/// ```
/// let mut stats = larder::stats::Snapshot::default();
/// (stats.hits_l1, stats.misses) = (3, 1);
/// assert_eq!((stats.lookups(), stats.hit_ratio()), (4, Some(0.75)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Snapshot {
    /// Lookups answered from memory, stale ones included.
    pub hits_l1: u64,
    /// Lookups answered from the store, stale ones included.
    pub hits_l2: u64,
    /// Those of the hits that were stale.
    pub hits_stale: u64,
    /// Lookups that found nothing.
    pub misses: u64,
    /// Loaders that returned a value.
    pub loads: u64,
    /// Loaders that failed or panicked.
    pub loads_failed: u64,
    /// Loaded values that were not kept, because something newer came meanwhile.
    pub loads_superseded: u64,
    /// Values stored, counted up, or given a new TTL.
    pub writes: u64,
    /// Keys deleted or pulled.
    pub deletes: u64,
    /// Keys made stale.
    pub expires: u64,
    /// Clears of a namespace or of the whole.
    pub clears: u64,
    /// Tags invalidated.
    pub invalidations: u64,
    /// Entries that left the memory tier without being asked to.
    pub evictions: u64,
    /// Operations of the store that failed or were too slow.
    pub l2_failures: u64,
    /// Operations that the store was not asked for, because its breaker was open.
    pub l2_refusals: u64,
    /// How often the store's breaker opened, failed probes included.
    pub breaker_opens: u64,
    /// How often the store's breaker closed again.
    pub breaker_closes: u64,
    /// Writes that the store did not take, and that were remembered to be tried again.
    pub retries_remembered: u64,
    /// Those of them that landed.
    pub retries_landed: u64,
    /// Those of them that something newer came before.
    pub retries_yielded: u64,
    /// Those of them that were given up.
    pub retries_dropped: u64,
    /// Stored bytes that were not the entry they should be, removed.
    pub damaged: u64,
    /// Stored entries that the codec or schema did not read.
    pub undecodable: u64,
}

impl Snapshot {
    /// Hits and misses together.
    pub fn lookups(&self) -> u64 {
        self.hits() + self.misses
    }

    /// Hits in either tier.
    pub fn hits(&self) -> u64 {
        self.hits_l1 + self.hits_l2
    }

    /// The share of lookups that were hits; `None` before the first lookup.
    pub fn hit_ratio(&self) -> Option<f64> {
        let lookups = self.lookups();
        (lookups > 0).then(|| self.hits() as f64 / lookups as f64)
    }
}

const STRIPES: usize = 8;

/// One stripe of counters, on cache lines of its own so that two cores do not fight over one.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe {
    hits_l1: AtomicU64,
    hits_l2: AtomicU64,
    hits_stale: AtomicU64,
    misses: AtomicU64,
    loads: AtomicU64,
    loads_failed: AtomicU64,
    loads_superseded: AtomicU64,
    writes: AtomicU64,
    deletes: AtomicU64,
    expires: AtomicU64,
    clears: AtomicU64,
    invalidations: AtomicU64,
    evictions: AtomicU64,
    l2_failures: AtomicU64,
    l2_refusals: AtomicU64,
    breaker_opens: AtomicU64,
    breaker_closes: AtomicU64,
    retries_remembered: AtomicU64,
    retries_landed: AtomicU64,
    retries_yielded: AtomicU64,
    retries_dropped: AtomicU64,
    damaged: AtomicU64,
    undecodable: AtomicU64,
}

/// The counters of a stack.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    stripes: [Stripe; STRIPES],
}

static NEXT_STRIPE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static STRIPE: usize = NEXT_STRIPE.fetch_add(1, Ordering::Relaxed) % STRIPES;
}

fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Stats {
    fn stripe(&self) -> &Stripe {
        // A thread that is being torn down has no thread-locals any more; any stripe will do then.
        let index = STRIPE.try_with(|index| *index).unwrap_or(0);
        match self.stripes.get(index) {
            Some(stripe) => stripe,
            None => {
                let [first, ..] = &self.stripes;
                first
            }
        }
    }

    /// A hit in memory that is fresh: the only count on the hottest way.
    #[inline]
    pub(crate) fn count_fresh_l1_hit(&self) {
        bump(&self.stripe().hits_l1);
    }

    pub(crate) fn count(&self, event: &Event<'_>) {
        let stripe = self.stripe();
        match event {
            Event::Hit { tier, stale, .. } => {
                bump(match tier {
                    Tier::L1 => &stripe.hits_l1,
                    Tier::L2 => &stripe.hits_l2,
                });
                if *stale {
                    bump(&stripe.hits_stale);
                }
            }
            Event::Miss { .. } => bump(&stripe.misses),
            Event::Loaded { .. } => bump(&stripe.loads),
            Event::LoadFailed { .. } => bump(&stripe.loads_failed),
            Event::LoadSuperseded { .. } => bump(&stripe.loads_superseded),
            Event::Written { .. } => bump(&stripe.writes),
            Event::Deleted { .. } => bump(&stripe.deletes),
            Event::Expired { .. } => bump(&stripe.expires),
            Event::Cleared { .. } => bump(&stripe.clears),
            Event::TagInvalidated { .. } => bump(&stripe.invalidations),
            Event::Evicted { .. } => bump(&stripe.evictions),
            Event::L2Failed { .. } => bump(&stripe.l2_failures),
            Event::L2Refused { .. } => bump(&stripe.l2_refusals),
            Event::BreakerOpened { .. } => bump(&stripe.breaker_opens),
            Event::BreakerClosed => bump(&stripe.breaker_closes),
            Event::FailedWrite { fate, .. } => bump(match fate {
                Fate::Remembered => &stripe.retries_remembered,
                Fate::Landed => &stripe.retries_landed,
                Fate::Yielded => &stripe.retries_yielded,
                Fate::Dropped(_) => &stripe.retries_dropped,
            }),
            Event::Damaged { .. } => bump(&stripe.damaged),
            Event::Undecodable { .. } => bump(&stripe.undecodable),
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let sum = |field: fn(&Stripe) -> &AtomicU64| -> u64 {
            self.stripes.iter().map(|stripe| field(stripe).load(Ordering::Relaxed)).sum()
        };
        Snapshot {
            hits_l1: sum(|s| &s.hits_l1),
            hits_l2: sum(|s| &s.hits_l2),
            hits_stale: sum(|s| &s.hits_stale),
            misses: sum(|s| &s.misses),
            loads: sum(|s| &s.loads),
            loads_failed: sum(|s| &s.loads_failed),
            loads_superseded: sum(|s| &s.loads_superseded),
            writes: sum(|s| &s.writes),
            deletes: sum(|s| &s.deletes),
            expires: sum(|s| &s.expires),
            clears: sum(|s| &s.clears),
            invalidations: sum(|s| &s.invalidations),
            evictions: sum(|s| &s.evictions),
            l2_failures: sum(|s| &s.l2_failures),
            l2_refusals: sum(|s| &s.l2_refusals),
            breaker_opens: sum(|s| &s.breaker_opens),
            breaker_closes: sum(|s| &s.breaker_closes),
            retries_remembered: sum(|s| &s.retries_remembered),
            retries_landed: sum(|s| &s.retries_landed),
            retries_yielded: sum(|s| &s.retries_yielded),
            retries_dropped: sum(|s| &s.retries_dropped),
            damaged: sum(|s| &s.damaged),
            undecodable: sum(|s| &s.undecodable),
        }
    }
}
