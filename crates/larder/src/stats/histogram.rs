//! How long things took: counts in log-linear buckets of bounded memory, without a lock.
//!
//! Each power of two microseconds is divided into four buckets, so a quantile is at most a quarter too high and
//! never too low. The same layout as HdrHistogram's with two bits; see decision 15 for why it is ours. Knows
//! nothing of what is measured, and reads no clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets to each power of two, as a power of two.
const BITS: u32 = 2;
const PER_OCTAVE: u64 = 1 << BITS;
/// The powers of two that there are buckets for: 2³² µs is 71 minutes. What takes longer counts there.
const OCTAVES: u64 = 32;
const BUCKETS: usize = ((OCTAVES - BITS as u64 + 1) << BITS) as usize;

/// How long one kind of thing took, since the stack was built.
///
/// ```
/// use std::time::Duration;
/// use larder::stats::Latency;
///
/// let mut loads = Latency::default();
/// for millis in [10, 11, 12, 900] {
///     loads.record(Duration::from_millis(millis));
/// }
/// assert_eq!((loads.count(), loads.max()), (4, Duration::from_millis(900)));
/// let median = loads.quantile(0.5).unwrap();
/// assert!(Duration::from_millis(11) <= median && median < Duration::from_millis(14));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Latency {
    /// By bucket; as long as the last that is not empty.
    buckets: Vec<u64>,
    count: u64,
    total_us: u64,
    max_us: u64,
}

impl Latency {
    /// Adds one duration, as its microseconds, rounded up.
    pub fn record(&mut self, took: Duration) {
        let us = micros(took);
        let bucket = bucket_of(us);
        if self.buckets.len() <= bucket {
            self.buckets.resize(bucket + 1, 0);
        }
        if let Some(count) = self.buckets.get_mut(bucket) {
            *count += 1;
        }
        self.count += 1;
        self.total_us = self.total_us.saturating_add(us);
        self.max_us = self.max_us.max(us);
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// All of them together.
    pub fn total(&self) -> Duration {
        Duration::from_micros(self.total_us)
    }

    /// The longest; zero before the first.
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.max_us)
    }

    /// Their mean; `None` before the first.
    pub fn mean(&self) -> Option<Duration> {
        self.total_us.checked_div(self.count).map(Duration::from_micros)
    }

    /// What this share of them, from 0 to 1, did not exceed: at most a quarter more than the true value, and
    /// never less. `None` before the first.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        if self.count == 0 {
            return None;
        }
        let rank = ((share.clamp(0.0, 1.0) * self.count as f64).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Some(Duration::from_micros(upper_bound(bucket).min(self.max_us)));
            }
        }
        Some(self.max())
    }

    /// How many took at most this long; exact if it is a power of two microseconds, else it may lack those of
    /// the last quarter of one.
    pub fn count_up_to(&self, bound: Duration) -> u64 {
        // Rounded down: a bound between two microseconds has not reached the second.
        let bound_us = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX);
        if bound_us >= self.max_us {
            return self.count;
        }
        let within = |bucket: &(usize, &u64)| upper_bound(bucket.0) <= bound_us;
        self.buckets.iter().enumerate().take_while(within).map(|(_, count)| count).sum()
    }

    fn add(&mut self, cells: &Cells) {
        for (bucket, cell) in cells.buckets.iter().enumerate() {
            let count = cell.load(Ordering::Relaxed);
            if count == 0 {
                continue;
            }
            if self.buckets.len() <= bucket {
                self.buckets.resize(bucket + 1, 0);
            }
            if let Some(sum) = self.buckets.get_mut(bucket) {
                *sum += count;
            }
            // Counted from the buckets, so that a snapshot under way never contradicts itself.
            self.count += count;
        }
        self.total_us = self.total_us.saturating_add(cells.total_us.load(Ordering::Relaxed));
        self.max_us = self.max_us.max(cells.max_us.load(Ordering::Relaxed));
    }
}

/// Quantiles in place of buckets: what a person reads.
#[cfg(feature = "json")]
impl serde::Serialize for Latency {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let quantile = |share| self.quantile(share).map(micros);
        let mut fields = serializer.serialize_struct("Latency", 6)?;
        fields.serialize_field("count", &self.count)?;
        fields.serialize_field("total_us", &self.total_us)?;
        fields.serialize_field("p50_us", &quantile(0.5))?;
        fields.serialize_field("p90_us", &quantile(0.9))?;
        fields.serialize_field("p99_us", &quantile(0.99))?;
        fields.serialize_field("max_us", &self.max_us)?;
        fields.end()
    }
}

/// A histogram that any thread adds to: about 1 KiB.
#[derive(Debug)]
pub(crate) struct Cells {
    buckets: Box<[AtomicU64]>,
    total_us: AtomicU64,
    max_us: AtomicU64,
}

impl Default for Cells {
    fn default() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            total_us: AtomicU64::new(0),
            max_us: AtomicU64::new(0),
        }
    }
}

impl Cells {
    pub(crate) fn record(&self, took: Duration) {
        let us = micros(took);
        if let Some(cell) = self.buckets.get(bucket_of(us)) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
        self.total_us.fetch_add(us, Ordering::Relaxed);
        // Most are not the longest, and a load is cheaper than a write that changes nothing.
        if self.max_us.load(Ordering::Relaxed) < us {
            self.max_us.fetch_max(us, Ordering::Relaxed);
        }
    }
}

/// What several stripes hold together.
pub(crate) fn sum<'a>(stripes: impl Iterator<Item = &'a Cells>) -> Latency {
    let mut latency = Latency::default();
    stripes.for_each(|cells| latency.add(cells));
    latency
}

/// Microseconds, rounded up: what took less than one did not take nothing.
fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX)
}

/// The bucket of a number of microseconds. The bounds of buckets are inclusive above, as Prometheus's `le` is.
fn bucket_of(us: u64) -> usize {
    let below = us.saturating_sub(1).min((1 << OCTAVES) - 1);
    if below < PER_OCTAVE {
        return below as usize;
    }
    let octave = u64::from(below.ilog2() - BITS);
    ((octave << BITS) + (below >> octave)) as usize
}

/// The most microseconds that a bucket holds.
fn upper_bound(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < PER_OCTAVE {
        return bucket + 1;
    }
    let octave = (bucket >> BITS) - 1;
    (PER_OCTAVE + bucket % PER_OCTAVE + 1) << octave
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buckets_follow_each_other_without_gap_or_overlap() {
        let mut before = 0;
        for bucket in 0..BUCKETS {
            let bound = upper_bound(bucket);
            assert!(bound > before, "{bucket}");
            assert_eq!((bucket_of(before + 1), bucket_of(bound)), (bucket, bucket));
            before = bound;
        }
        assert_eq!(before, 1 << OCTAVES, "the last bucket ends where the octaves do");
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
        assert_eq!(bucket_of(0), 0);
    }

    proptest! {
        #[test]
        fn a_quantile_is_never_too_low_and_at_most_a_quarter_too_high(
            mut took in prop::collection::vec(1u64..1 << 31, 1..200), share in 0.0f64..=1.0
        ) {
            let mut latency = Latency::default();
            let cells = Cells::default();
            for us in &took {
                latency.record(Duration::from_micros(*us));
                cells.record(Duration::from_micros(*us));
            }
            prop_assert_eq!(&latency, &sum([&cells].into_iter()));
            took.sort_unstable();
            let rank = ((share * took.len() as f64).ceil() as usize).max(1);
            let (truth, said) = (took[rank - 1], micros(latency.quantile(share).unwrap()));
            prop_assert!(said >= truth && said <= truth + truth / 4 + 1, "{} for {}", said, truth);
        }

        #[test]
        fn counts_up_to_a_power_of_two_are_exact(
            mut took in prop::collection::vec(0u64..1 << 33, 0..200), power in 0u32..31
        ) {
            // The bound itself, which chance does not find.
            took.push(1 << power);
            let mut latency = Latency::default();
            took.iter().for_each(|us| latency.record(Duration::from_micros(*us)));
            let expected = took.iter().filter(|us| **us <= 1 << power).count() as u64;
            prop_assert_eq!(latency.count_up_to(Duration::from_micros(1 << power)), expected);
        }
    }

    #[test]
    fn nothing_measured_has_no_quantile_and_no_mean() {
        let latency = Latency::default();
        assert_eq!((latency.quantile(0.5), latency.mean(), latency.max()), (None, None, Duration::ZERO));
        assert_eq!(latency.count_up_to(Duration::from_secs(1)), 0);
    }

    #[test]
    fn what_takes_forever_is_counted_and_not_lost() {
        let cells = Cells::default();
        cells.record(Duration::MAX);
        let latency = sum([&cells].into_iter());
        assert_eq!((latency.count(), latency.count_up_to(Duration::from_secs(1))), (1, 0));
    }
}
