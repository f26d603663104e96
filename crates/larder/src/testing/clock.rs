//! A clock that moves only when a test says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::time::{Clock, Timestamp, millis_of};

/// A clock that moves only when it is told to. Clones are the same clock.
///
/// ```
/// use larder::testing::ManualClock;
/// use larder::time::{Clock, Timestamp, seconds};
/// let clock = ManualClock::new(Timestamp::from_millis(1_000));
/// clock.advance(seconds(2));
/// assert_eq!(clock.now().as_millis(), 3_000);
/// assert_eq!(clock.monotonic(), seconds(2));
/// ```
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<Hands>);

#[derive(Debug)]
struct Hands {
    wall_ms: AtomicU64,
    monotonic_ms: AtomicU64,
}

impl ManualClock {
    /// A clock that stands at `start`, and whose monotonic time stands at zero.
    pub fn new(start: Timestamp) -> Self {
        Self(Arc::new(Hands { wall_ms: AtomicU64::new(start.as_millis()), monotonic_ms: AtomicU64::new(0) }))
    }

    /// Sets the wall clock, to either side, as an operator or a time server would. Monotonic time stands.
    pub fn set(&self, now: Timestamp) {
        self.0.wall_ms.store(now.as_millis(), Ordering::SeqCst);
    }

    /// Lets time pass, for the wall clock and for monotonic time. A fraction of a millisecond is rounded up.
    pub fn advance(&self, by: Duration) {
        for hand in [&self.0.wall_ms, &self.0.monotonic_ms] {
            let moved = |millis: u64| Some(millis.saturating_add(millis_of(by)));
            // The closure always says yes, so there is nothing to learn from the result.
            let _ = hand.fetch_update(Ordering::SeqCst, Ordering::SeqCst, moved);
        }
    }

    /// Lets time pass for this clock, and for tokio's timers if its runtime's time is paused.
    ///
    /// Timers that become due fire before this returns to a test that yields. Where tokio's time is not
    /// paused, this is [`ManualClock::advance`]. Dropped half-way, this clock has moved and tokio's has not.
    pub async fn advance_with_timers(&self, by: Duration) {
        self.advance(by);
        if timers_are_paused() {
            tokio::time::advance(by).await;
        }
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.wall_ms.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.monotonic_ms.load(Ordering::SeqCst))
    }
}

/// Whether tokio's clock stands still while the machine's goes on: tokio does not say, and advancing a clock
/// that runs is a panic.
#[expect(clippy::disallowed_methods, reason = "compares tokio's clock with the machine's")]
fn timers_are_paused() -> bool {
    let paused_at = tokio::time::Instant::now();
    let started = std::time::Instant::now();
    while started.elapsed().is_zero() {
        std::hint::spin_loop();
    }
    tokio::time::Instant::now() == paused_at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{hours, seconds};

    #[test]
    fn a_clone_is_the_same_clock() {
        let clock = ManualClock::new(Timestamp::from_millis(5));
        clock.clone().advance(seconds(1));
        assert_eq!(clock.now(), Timestamp::from_millis(1_005));
    }

    #[test]
    fn monotonic_time_does_not_follow_the_wall_clock_back() {
        let clock = ManualClock::new(Timestamp::ZERO + hours(2));
        clock.advance(seconds(1));
        clock.set(Timestamp::ZERO);
        assert_eq!((clock.now(), clock.monotonic()), (Timestamp::ZERO, seconds(1)));
    }

    #[test]
    fn the_end_of_time_is_not_passed() {
        let clock = ManualClock::new(Timestamp::from_millis(5));
        clock.advance(Duration::MAX);
        clock.advance(seconds(1));
        assert_eq!(clock.now(), Timestamp::FOREVER);
    }

    #[tokio::test(start_paused = true)]
    async fn paused_timers_fire_when_the_clock_passes_them() {
        let clock = ManualClock::new(Timestamp::ZERO);
        let timer = tokio::spawn(tokio::time::sleep(hours(1)));
        // The timer counts from its first poll.
        tokio::task::yield_now().await;
        clock.advance_with_timers(hours(1)).await;
        timer.await.unwrap();
        assert_eq!(clock.now(), Timestamp::ZERO + hours(1));
    }

    #[tokio::test]
    async fn running_timers_are_left_alone() {
        let clock = ManualClock::new(Timestamp::ZERO);
        clock.advance_with_timers(hours(1)).await;
        assert_eq!(clock.monotonic(), hours(1));
    }
}
