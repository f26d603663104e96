//! Counts of what happened, and how long it took: always on, cheap enough to be on the way of a hit.
//!
//! A hit in memory is counted and not timed: reading a clock would cost as much as the hit.
//!
//! - `histogram` is how long things took, `group` the same by groups of keys;
//! - `prometheus` writes snapshots as a page that Prometheus reads, `metrics` hands them to the facade of that
//!   name. Both read snapshots, so they cost nothing until somebody asks.

mod group;
mod histogram;
#[cfg(feature = "metrics")]
pub mod metrics;
mod prometheus;
mod tally;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::event::{Event, Fate, Tier};

pub use group::{GROUPS_MAX, GroupSnapshot, OTHER, PATTERN_BYTES_MAX};
pub(crate) use group::{Groups, Pattern};
use histogram::Cells;
pub use histogram::Latency;
pub use prometheus::{PROMETHEUS_CONTENT_TYPE, PrometheusPage, prometheus_text};
use tally::Tally;

/// Counts since the stack was built. Every lookup is exactly one hit or one miss.
///
/// ```
/// let mut stats = larder::stats::Snapshot::default();
/// (stats.hits_l1, stats.misses) = (3, 1);
/// assert_eq!((stats.lookups(), stats.hit_ratio()), (4, Some(0.75)));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
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
    /// Loads that were started beside one that had taken too long.
    pub loads_replaced: u64,
    /// Keys that were to be refreshed ahead when there was no room: counted once until there is.
    pub ahead_full: u64,
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
    /// How long what is timed took.
    pub latencies: Latencies,
    /// What happened by groups of keys, the others last; empty if the stack has no groups.
    pub groups: Vec<GroupSnapshot>,
}

/// How long the parts of operations took. Hits in memory are not timed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Latencies {
    /// Runs of loaders, failed ones included; one for a batch.
    pub load: Latency,
    /// How long `get_or_set` waited for a value that memory did not have, whoever fetched it; one for each key.
    pub wait: Latency,
    /// Calls of the store that read.
    pub store_read: Latency,
    /// Calls of the store that write, deletes and invalidations included.
    pub store_write: Latency,
    /// Other calls of the store: pings, and repairs of what was damaged.
    pub store_other: Latency,
}

impl Latencies {
    /// Each with its name: `load`, `wait`, `store_read` and so on.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, &Latency)> {
        Timed::ALL.into_iter().map(|timed| {
            let latency = match timed {
                Timed::Load => &self.load,
                Timed::Wait => &self.wait,
                Timed::StoreRead => &self.store_read,
                Timed::StoreWrite => &self.store_write,
                Timed::StoreOther => &self.store_other,
            };
            (timed.name(), latency)
        })
    }
}

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timed {
    Load,
    Wait,
    StoreRead,
    StoreWrite,
    StoreOther,
}

impl Timed {
    const ALL: [Self; 5] = [Self::Load, Self::Wait, Self::StoreRead, Self::StoreWrite, Self::StoreOther];

    /// The class of an operation of the store.
    pub(crate) fn of_store(operation: &str) -> Self {
        match operation {
            "get" => Self::StoreRead,
            "ping" | "heal" => Self::StoreOther,
            _ => Self::StoreWrite,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Wait => "wait",
            Self::StoreRead => "store_read",
            Self::StoreWrite => "store_write",
            Self::StoreOther => "store_other",
        }
    }
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
    loads_replaced: AtomicU64,
    ahead_full: AtomicU64,
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

/// The counters of a stack, about 50 KiB; its histograms are most of it.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    /// Beside those of the stripes: the count on the hottest way.
    fresh_l1_hits: Tally,
    stripes: [Stripe; STRIPES],
    latencies: [[Cells; Timed::ALL.len()]; STRIPES],
    groups: Option<Groups>,
}

static NEXT_STRIPE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static STRIPE: usize = NEXT_STRIPE.fetch_add(1, Ordering::Relaxed) % STRIPES;
}

fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// This thread's stripe, below [`STRIPES`].
fn stripe_index() -> usize {
    // A thread that is being torn down has no thread-locals any more; any stripe will do then.
    STRIPE.try_with(|index| *index).unwrap_or(0)
}

impl Stats {
    pub(crate) fn new(groups: Option<Groups>) -> Self {
        Self { groups, ..Self::default() }
    }

    fn stripe(&self) -> &Stripe {
        match self.stripes.get(stripe_index()) {
            Some(stripe) => stripe,
            None => {
                let [first, ..] = &self.stripes;
                first
            }
        }
    }

    /// The groups of keys, if there are any.
    #[inline]
    pub(crate) fn groups(&self) -> Option<&Groups> {
        self.groups.as_ref()
    }

    /// Something took so long.
    pub(crate) fn time(&self, timed: Timed, took: Duration) {
        let cells = self.latencies.get(stripe_index()).and_then(|stripe| stripe.get(timed as usize));
        cells.into_iter().for_each(|cells| cells.record(took));
    }

    /// A hit in memory that is fresh: the only count on the hottest way, unless there are groups.
    #[inline]
    pub(crate) fn count_fresh_l1_hit(&self) {
        self.fresh_l1_hits.bump();
    }

    pub(crate) fn count(&self, event: &Event<'_>) {
        if let Some(groups) = &self.groups {
            groups.count(event);
        }
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
            Event::LoadReplaced { .. } => bump(&stripe.loads_replaced),
            Event::AheadFull { .. } => bump(&stripe.ahead_full),
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
            // Said once, when the stack is built, and kept there: see `Stack::advice`.
            Event::Advised { .. } => {}
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let sum = |field: fn(&Stripe) -> &AtomicU64| -> u64 {
            self.stripes.iter().map(|stripe| field(stripe).load(Ordering::Relaxed)).sum()
        };
        Snapshot {
            hits_l1: self.fresh_l1_hits.sum() + sum(|s| &s.hits_l1),
            hits_l2: sum(|s| &s.hits_l2),
            hits_stale: sum(|s| &s.hits_stale),
            misses: sum(|s| &s.misses),
            loads: sum(|s| &s.loads),
            loads_failed: sum(|s| &s.loads_failed),
            loads_superseded: sum(|s| &s.loads_superseded),
            loads_replaced: sum(|s| &s.loads_replaced),
            ahead_full: sum(|s| &s.ahead_full),
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
            latencies: Latencies {
                load: self.latency(Timed::Load),
                wait: self.latency(Timed::Wait),
                store_read: self.latency(Timed::StoreRead),
                store_write: self.latency(Timed::StoreWrite),
                store_other: self.latency(Timed::StoreOther),
            },
            groups: self.groups.as_ref().map(Groups::snapshot).unwrap_or_default(),
        }
    }

    fn latency(&self, timed: Timed) -> Latency {
        histogram::sum(self.latencies.iter().filter_map(|stripe| stripe.get(timed as usize)))
    }
}
