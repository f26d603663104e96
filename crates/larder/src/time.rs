//! Time: where it comes from, how long things live, and the stamps that order writes.
//!
//! This is the only room that reads a clock; everything else is told what time it is.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// `count` seconds.
pub const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// `count` minutes.
pub const fn minutes(count: u64) -> Duration {
    Duration::from_secs(count.saturating_mul(60))
}

/// `count` hours.
pub const fn hours(count: u64) -> Duration {
    Duration::from_secs(count.saturating_mul(3_600))
}

/// `count` days of 24 hours.
pub const fn days(count: u64) -> Duration {
    Duration::from_secs(count.saturating_mul(86_400))
}

/// A point in time: milliseconds since the Unix epoch. Arithmetic saturates.
///
/// ```
/// use larder::time::{Timestamp, seconds};
/// let t = Timestamp::from_millis(1_000);
/// assert_eq!((t + seconds(2)).as_millis(), 3_000);
/// assert_eq!(t.since(t + seconds(2)), seconds(0));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The epoch.
    pub const ZERO: Self = Self(0);
    /// The end of time, which never comes: what lasts until then lasts forever.
    pub const FOREVER: Self = Self(u64::MAX);

    /// The point `millis` milliseconds after the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was; zero if it is not earlier.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The same point as the standard library's type; `None` for one that it cannot express.
    pub fn to_system_time(self) -> Option<SystemTime> {
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(self.0))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(millis_of(since_epoch))
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;

    /// Saturates at [`Timestamp::FOREVER`]; a fraction of a millisecond is rounded up, so that a TTL
    /// below the resolution does not become zero.
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis_of(duration)))
    }
}

/// Whole milliseconds of a duration, rounded up, saturating.
pub(crate) fn millis_of(duration: Duration) -> u64 {
    let millis = duration.as_nanos().div_ceil(1_000_000);
    u64::try_from(millis).unwrap_or(u64::MAX)
}

/// How long an entry counts as fresh: for a time, or forever. Zero is not forever.
///
/// A TTL of zero stores nothing.
///
/// ```
/// use larder::time::{Ttl, minutes};
/// assert_eq!(Ttl::from(minutes(1)), Ttl::For(minutes(1)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ttl {
    /// Fresh for this long after it was stored.
    For(Duration),
    /// Fresh until it is deleted or evicted.
    Forever,
}

impl Ttl {
    /// When something stored at `now` stops being fresh.
    pub fn ends_at(self, now: Timestamp) -> Timestamp {
        match self {
            Self::For(duration) => now + duration,
            Self::Forever => Timestamp::FOREVER,
        }
    }

    /// Whether this stores nothing at all.
    pub fn is_zero(self) -> bool {
        matches!(self, Self::For(duration) if duration.is_zero())
    }
}

impl From<Duration> for Ttl {
    fn from(duration: Duration) -> Self {
        Self::For(duration)
    }
}

/// Where time comes from. Production uses [`SystemClock`], tests a clock that they move by hand.
///
/// ```
/// use std::time::Duration;
/// use larder::time::{Clock, Timestamp};
///
/// #[derive(Debug)]
/// struct Noon;
/// impl Clock for Noon {
///     fn now(&self) -> Timestamp { Timestamp::from_millis(43_200_000) }
///     fn monotonic(&self) -> Duration { Duration::ZERO }
/// }
/// assert_eq!(Noon.now().as_millis(), 43_200_000);
/// ```
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The wall clock. It may jump either way; entries outlive processes, so no other clock will do.
    fn now(&self) -> Timestamp;

    /// Time since some fixed point, never going back: for measuring how long something took.
    fn monotonic(&self) -> Duration;
}

/// The machine's clock.
///
/// On Linux `now` reads the kernel's coarse clock, which is right to the last timer tick (1 to 4 ms)
/// and costs a fifth of the exact one; the exact one would be the largest part of a hit in memory.
/// All processes of a machine read the same tick.
///
/// ```
/// use larder::time::{Clock, SystemClock, Timestamp};
/// assert!(SystemClock::default().now() > Timestamp::from_millis(1_700_000_000_000));
/// ```
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    started: std::time::Instant,
}

impl Default for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the room that reads the clock")]
    fn default() -> Self {
        Self { started: std::time::Instant::now() }
    }
}

impl Clock for SystemClock {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[inline]
    fn now(&self) -> Timestamp {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let millis = u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000;
        Timestamp(seconds.saturating_mul(1_000).saturating_add(millis))
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    #[expect(clippy::disallowed_methods, reason = "this is the room that reads the clock")]
    fn now(&self) -> Timestamp {
        Timestamp::from(SystemTime::now())
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }
}

/// A reading of the hybrid logical clock: 48 bits of milliseconds, then 16 bits that count.
///
/// Stamps order writes and invalidations across processes whose clocks differ. See Kulkarni et al.,
/// *Logical Physical Clocks*, 2014.
///
/// ```
/// use larder::time::{Stamp, Timestamp};
/// let stamp = Stamp::at(Timestamp::from_millis(7));
/// assert_eq!(stamp.timestamp().as_millis(), 7);
/// assert!(stamp < Stamp::at(Timestamp::from_millis(8)));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp(u64);

const COUNTER_BITS: u32 = 16;
const MILLIS_MAX: u64 = (1 << 48) - 1;
const COUNTER_MAX: u64 = (1 << COUNTER_BITS) - 1;

impl Stamp {
    /// Before everything.
    pub const ZERO: Self = Self(0);
    /// After everything.
    pub const MAX: Self = Self(u64::MAX);

    /// The first stamp of a millisecond. A time beyond 48 bits (the year 10889) is the last one.
    pub const fn at(time: Timestamp) -> Self {
        let millis = if time.0 > MILLIS_MAX { MILLIS_MAX } else { time.0 };
        Self(millis << COUNTER_BITS)
    }

    /// The stamp as it is stored: see [`crate::entry::wire`].
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The stamp as it is stored: see [`crate::entry::wire`].
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The millisecond that this stamp belongs to.
    pub const fn timestamp(self) -> Timestamp {
        Timestamp(self.0 >> COUNTER_BITS)
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Milliseconds, a `+`, and the counter: `1763620000000+3`.
impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.timestamp().as_millis(), self.0 & 0xffff)
    }
}

/// How far ahead of this machine's clock another one's stamps may be and still be believed.
///
/// A stamp from further ahead belongs to a broken clock or to damaged bytes. Believing it would let one
/// machine make its entries immune to every invalidation of the others.
pub const AHEAD_MAX: Duration = hours(24);

/// The hybrid logical clock of a stack: never goes back, and moves past every stamp that it is shown.
///
/// ```
/// use std::sync::Arc;
/// use larder::time::{HybridClock, SystemClock};
/// let clock = HybridClock::new(Arc::new(SystemClock::default()));
/// let now = clock.now();
/// assert!(clock.tick(now) < clock.tick(now));
/// ```
#[derive(Debug)]
pub struct HybridClock {
    clock: Arc<dyn Clock>,
    last: AtomicU64,
}

impl HybridClock {
    /// A hybrid clock over a clock.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, last: AtomicU64::new(0) }
    }

    /// The wall clock's time.
    #[inline]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Time since some fixed point, never going back.
    pub fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }

    /// A stamp above every one that this clock gave or was shown.
    pub fn tick(&self, now: Timestamp) -> Stamp {
        self.advance(|last| Stamp::at(now).0.max(last.saturating_add(1)))
    }

    /// As [`HybridClock::tick`], and the last stamp of its millisecond: above everything that others, of whom
    /// this clock has not heard, have stamped in it so far.
    pub fn tick_last(&self, now: Timestamp) -> Stamp {
        self.advance(|last| Stamp::at(now).0.max(last.saturating_add(1)) | COUNTER_MAX)
    }

    fn advance(&self, next: impl Fn(u64) -> u64) -> Stamp {
        let mut last = self.last.load(Ordering::Relaxed);
        loop {
            // One total order of stamps is all that is wanted here; no other memory hangs on it.
            match self.last.compare_exchange_weak(last, next(last), Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Stamp(next(last)),
                Err(changed) => last = changed,
            }
        }
    }

    /// Whether a stamp is believed: no further ahead of `now` than [`AHEAD_MAX`], or no newer than one that
    /// this clock gave itself, before the wall clock was set back by days. Without the latter it would take
    /// everything that it stores from then on for damage.
    pub fn believes(&self, stamp: Stamp, now: Timestamp) -> bool {
        is_credible(stamp, now) || stamp.0 <= self.last.load(Ordering::Acquire)
    }

    /// Moves past a stamp from elsewhere. Returns false, and does not move, if it is not to be believed
    /// ([`HybridClock::believes`]).
    pub fn observe(&self, stamp: Stamp, now: Timestamp) -> bool {
        if !self.believes(stamp, now) {
            return false;
        }
        self.last.fetch_max(stamp.0, Ordering::AcqRel);
        true
    }
}

/// Before this, 2025-01-01, no clock of a machine that runs this is right: it was never set.
const EARLIEST: Timestamp = Timestamp(1_735_689_600_000);

/// Whether a wall clock was ever set. One that was not knows nothing better than what others have stored.
pub fn is_plausible(now: Timestamp) -> bool {
    now >= EARLIEST
}

/// Whether a stamp from elsewhere is no further ahead of `now` than [`AHEAD_MAX`].
pub fn is_credible(stamp: Stamp, now: Timestamp) -> bool {
    stamp.timestamp() <= now + AHEAD_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Hand(AtomicU64);

    impl Clock for Hand {
        fn now(&self) -> Timestamp {
            Timestamp(self.0.load(Ordering::Relaxed))
        }
        fn monotonic(&self) -> Duration {
            Duration::ZERO
        }
    }

    fn hybrid(millis: u64) -> (Arc<Hand>, HybridClock) {
        let hand = Arc::new(Hand(AtomicU64::new(millis)));
        (hand.clone(), HybridClock::new(hand))
    }

    #[test]
    fn a_stamp_never_goes_back_when_the_wall_clock_does() {
        let (hand, clock) = hybrid(10_000_000);
        let before = clock.tick(clock.now());
        hand.0.store(1, Ordering::Relaxed);
        assert!(clock.tick(clock.now()) > before);
    }

    #[test]
    fn a_tick_is_above_every_stamp_that_was_observed() {
        let (_, clock) = hybrid(1_000);
        let foreign = Stamp::at(Timestamp(1_000) + hours(23));
        assert!(clock.observe(foreign, clock.now()));
        assert!(clock.tick(clock.now()) > foreign);
    }

    #[test]
    fn a_stamp_from_too_far_ahead_does_not_drag_the_clock() {
        let (_, clock) = hybrid(1_000);
        assert!(!clock.observe(Stamp::at(Timestamp(1_001) + AHEAD_MAX), clock.now()));
        assert!(!clock.observe(Stamp::from_bits(u64::MAX), clock.now()));
        assert_eq!(clock.tick(clock.now()).timestamp(), Timestamp(1_000));
    }

    #[test]
    fn a_clock_that_was_set_back_by_days_believes_its_own_stamps_and_no_newer_ones() {
        let (hand, clock) = hybrid(AHEAD_MAX.as_millis() as u64 * 3);
        let own = clock.tick(clock.now());
        hand.0.store(1, Ordering::Relaxed);
        assert!(clock.observe(own, clock.now()));
        assert!(!clock.observe(Stamp::from_bits(own.to_bits() + 1), clock.now()));
    }

    #[test]
    fn the_last_stamp_of_a_millisecond_is_above_all_of_others_in_it_and_the_next_tick_is_above_that() {
        let ((_, here), (_, there)) = (hybrid(5), hybrid(5));
        let others: Vec<Stamp> = (0..100).map(|_| there.tick(there.now())).collect();
        let last = here.tick_last(here.now());
        assert!(others.iter().all(|other| *other < last));
        assert_eq!(last.timestamp(), Timestamp(5));
        assert!(here.tick(here.now()) > last);
        assert!(here.tick_last(here.now()) > last);
    }

    #[test]
    fn more_ticks_than_a_millisecond_counts_spill_into_the_next_one() {
        let (_, clock) = hybrid(5);
        let mut last = clock.tick(clock.now());
        for _ in 0..70_000 {
            let next = clock.tick(clock.now());
            assert!(next > last);
            last = next;
        }
        assert_eq!(last.timestamp(), Timestamp(6));
    }

    #[test]
    fn ticks_of_many_threads_are_all_different() {
        let (_, clock) = hybrid(5);
        let clock = Arc::new(clock);
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let clock = Arc::clone(&clock);
                std::thread::spawn(move || (0..5_000).map(|_| clock.tick(Timestamp(5))).collect::<Vec<_>>())
            })
            .collect();
        let mut all: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 20_000);
    }

    #[test]
    fn arithmetic_saturates_and_rounds_up() {
        assert_eq!(Timestamp(5) + Duration::MAX, Timestamp::FOREVER);
        assert_eq!(Timestamp(5) + Duration::from_nanos(1), Timestamp(6));
        assert_eq!(Timestamp(5).since(Timestamp(9)), Duration::ZERO);
        assert_eq!(Stamp::at(Timestamp::FOREVER).timestamp().as_millis(), MILLIS_MAX);
    }

    #[test]
    fn the_system_clock_agrees_with_the_standard_library() {
        #[expect(clippy::disallowed_methods, reason = "the test compares the two")]
        let exact = Timestamp::from(SystemTime::now());
        let ours = SystemClock::default().now();
        assert!(exact.since(ours) < seconds(1) && ours.since(exact) < seconds(1));
    }
}
