//! The circuit breaker: after several failures in a row a store is left alone for a while, then tried by one
//! call at a time.
//!
//! A state machine over time that never goes back: a wall clock that is set back would keep it open. Knows
//! nothing of drivers, and reports nothing: it says what has turned, and [`l2`](super::l2) does the rest.

use std::time::Duration;

use parking_lot::Mutex;

use crate::error::{Error, ErrorKind};
use crate::time::seconds;

/// When a store is left alone, and for how long.
///
/// Failures are those that may pass ([`ErrorKind::is_transient`]), a missed deadline included. Other errors say
/// nothing of the store's health, and count neither way.
///
/// ```
/// use larder::{BreakerOptions, time::seconds};
/// let options = BreakerOptions::default().failures(3).pause(seconds(5)).pause_max(seconds(60));
/// assert_eq!(options.failures, 3);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BreakerOptions {
    /// How many failures in a row open it. Default 5.
    pub failures: u32,
    /// How long it stays open at first. Default 1 s. Each failed probe doubles it.
    pub pause: Duration,
    /// How long it stays open at most. Default 30 s.
    pub pause_max: Duration,
}

impl Default for BreakerOptions {
    fn default() -> Self {
        Self { failures: 5, pause: seconds(1), pause_max: seconds(30) }
    }
}

impl BreakerOptions {
    /// These options with so many failures in a row.
    #[must_use]
    pub fn failures(mut self, failures: u32) -> Self {
        self.failures = failures;
        self
    }

    /// These options with this first pause.
    #[must_use]
    pub fn pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// These options with this longest pause.
    #[must_use]
    pub fn pause_max(mut self, longest: Duration) -> Self {
        self.pause_max = longest;
        self
    }

    /// What makes no sense in these options.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        if self.failures == 0 {
            return Some("has a breaker of zero failures, which would never let a call through");
        }
        if self.pause.is_zero() {
            return Some("has a breaker with a pause of zero, which would never hold a call back");
        }
        (self.pause_max < self.pause)
            .then_some("has a breaker whose longest pause is shorter than its first one")
    }
}

/// Where a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Calls go through.
    Closed { failures: u32 },
    /// Calls are refused until then; the next one after that is the probe.
    Open { until: Duration, pause: Duration },
    /// One call is on its way; the others are refused until it is back.
    Probing { pause: Duration },
}

#[derive(Debug)]
struct Inner {
    state: State,
    /// Raised at every turn: a call that began before one says nothing of the state after it.
    turn: u64,
}

impl Inner {
    fn turn_to(&mut self, state: State) {
        self.state = state;
        self.turn += 1;
    }
}

/// What the outcome of a call says of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// It works.
    Well,
    /// It does not.
    Ill,
    /// Nothing is known.
    Unknown,
}

/// A breaker that has turned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turned {
    /// It lets nothing through for so long.
    Opened(Duration),
    /// It lets everything through again.
    Closed,
}

/// A call that is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// For as long as this.
    For(Duration),
    /// Until the probe that is under way is back.
    UntilProbed,
}

impl Refused {
    /// For how much longer, if that is known.
    pub(crate) fn left(self) -> Option<Duration> {
        match self {
            Self::For(left) => Some(left),
            Self::UntilProbed => None,
        }
    }

    pub(crate) fn error(self) -> Error {
        let message = match self {
            Self::For(left) => format!("the store's breaker is open for another {}", rounded(left)),
            Self::UntilProbed => "the store's breaker is open while another call tries the store".to_owned(),
        };
        Error::new(ErrorKind::Unavailable, message)
    }
}

/// A time to be read by a person: whole seconds, rounded up, or milliseconds below one second.
fn rounded(left: Duration) -> String {
    match left.as_millis() {
        millis @ 0..1_000 => format!("{}ms", millis.max(1)),
        millis => format!("{}s", millis.div_ceil(1_000)),
    }
}

/// The breaker of one store.
#[derive(Debug)]
pub(crate) struct Breaker {
    options: BreakerOptions,
    inner: Mutex<Inner>,
}

impl Breaker {
    pub(crate) fn new(options: BreakerOptions) -> Self {
        Self { options, inner: Mutex::new(Inner { state: State::Closed { failures: 0 }, turn: 0 }) }
    }

    /// Lets a call through, or does not. What it returns has to be [settled](Pass::settle); dropping it says
    /// that nothing was learnt.
    pub(crate) fn admit(&self, now: Duration) -> Result<Pass<'_>, Refused> {
        let mut inner = self.inner.lock();
        match inner.state {
            State::Closed { .. } => {}
            State::Open { until, .. } if now < until => return Err(Refused::For(until.saturating_sub(now))),
            State::Open { pause, .. } => inner.turn_to(State::Probing { pause }),
            State::Probing { .. } => return Err(Refused::UntilProbed),
        }
        Ok(Pass { breaker: self, turn: inner.turn, settled: false })
    }

    /// Lets the next call try the store, without waiting for the end of the pause.
    pub(crate) fn hurry(&self) {
        if let State::Open { until, .. } = &mut self.inner.lock().state {
            *until = Duration::ZERO;
        }
    }

    fn settle(&self, turn: u64, health: Health, now: Duration) -> Option<Turned> {
        let mut inner = self.inner.lock();
        if inner.turn != turn {
            return None;
        }
        let BreakerOptions { failures: failures_max, pause: first, pause_max } = self.options;
        match (inner.state, health) {
            (State::Closed { .. }, Health::Well) => {
                inner.state = State::Closed { failures: 0 };
                None
            }
            (State::Closed { failures }, Health::Ill) if failures + 1 < failures_max => {
                inner.state = State::Closed { failures: failures + 1 };
                None
            }
            (State::Closed { .. }, Health::Ill) => {
                inner.turn_to(State::Open { until: now.saturating_add(first), pause: first });
                Some(Turned::Opened(first))
            }
            (State::Probing { .. }, Health::Well) => {
                inner.turn_to(State::Closed { failures: 0 });
                Some(Turned::Closed)
            }
            (State::Probing { pause }, Health::Ill) => {
                let pause = pause.saturating_mul(2).min(pause_max);
                inner.turn_to(State::Open { until: now.saturating_add(pause), pause });
                Some(Turned::Opened(pause))
            }
            // The next call may try.
            (State::Probing { pause }, Health::Unknown) => {
                inner.turn_to(State::Open { until: Duration::ZERO, pause });
                None
            }
            (State::Closed { .. }, Health::Unknown) | (State::Open { .. }, _) => None,
        }
    }
}

/// A call that was let through.
#[derive(Debug)]
pub(crate) struct Pass<'a> {
    breaker: &'a Breaker,
    turn: u64,
    settled: bool,
}

impl Pass<'_> {
    /// Says what came of the call, and returns whether the breaker turned.
    pub(crate) fn settle(mut self, health: Health, now: Duration) -> Option<Turned> {
        self.settled = true;
        self.breaker.settle(self.turn, health, now)
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if !self.settled {
            // The caller gave up. A probe that nobody waits for must not keep the others out.
            self.breaker.settle(self.turn, Health::Unknown, Duration::ZERO);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn breaker() -> Breaker {
        Breaker::new(BreakerOptions::default().failures(3).pause(at(2)).pause_max(at(5)))
    }

    fn call(breaker: &Breaker, health: Health, now: Duration) -> Result<Option<Turned>, Refused> {
        breaker.admit(now).map(|pass| pass.settle(health, now))
    }

    fn open(breaker: &Breaker, now: Duration) {
        for _ in 0..2 {
            assert_eq!(call(breaker, Health::Ill, now), Ok(None));
        }
        assert_eq!(call(breaker, Health::Ill, now), Ok(Some(Turned::Opened(at(2)))));
    }

    #[test]
    fn it_opens_after_as_many_failures_in_a_row_as_it_is_told() {
        let breaker = breaker();
        for health in [Health::Ill, Health::Ill, Health::Well, Health::Ill, Health::Unknown, Health::Ill] {
            assert_eq!(call(&breaker, health, at(0)), Ok(None));
        }
        assert_eq!(call(&breaker, Health::Ill, at(0)), Ok(Some(Turned::Opened(at(2)))));
        assert_eq!(call(&breaker, Health::Well, at(1)), Err(Refused::For(at(1))));
    }

    #[test]
    fn one_call_at_a_time_tries_after_the_pause_and_success_closes_it() {
        let breaker = breaker();
        open(&breaker, at(0));
        let probe = breaker.admit(at(2)).unwrap();
        assert_eq!(breaker.admit(at(2)).unwrap_err(), Refused::UntilProbed);
        assert_eq!(breaker.admit(at(9)).unwrap_err(), Refused::UntilProbed);
        assert_eq!(probe.settle(Health::Well, at(9)), Some(Turned::Closed));
        assert_eq!(call(&breaker, Health::Ill, at(9)), Ok(None));
    }

    #[test]
    fn each_failed_probe_doubles_the_pause_up_to_the_longest() {
        let breaker = breaker();
        open(&breaker, at(0));
        assert_eq!(call(&breaker, Health::Ill, at(2)), Ok(Some(Turned::Opened(at(4)))));
        assert_eq!(call(&breaker, Health::Ill, at(6)), Ok(Some(Turned::Opened(at(5)))));
        assert_eq!(call(&breaker, Health::Ill, at(11)), Ok(Some(Turned::Opened(at(5)))));
        assert_eq!(call(&breaker, Health::Well, at(16)), Ok(Some(Turned::Closed)));
        open(&breaker, at(16));
    }

    #[test]
    fn a_call_from_before_it_opened_neither_closes_nor_prolongs_it() {
        let breaker = breaker();
        let (slow, slower) = (breaker.admit(at(0)).unwrap(), breaker.admit(at(0)).unwrap());
        open(&breaker, at(0));
        assert_eq!(slow.settle(Health::Ill, at(1)), None);
        assert_eq!(slower.settle(Health::Well, at(1)), None);
        assert_eq!(breaker.admit(at(1)).unwrap_err(), Refused::For(at(1)));
    }

    #[test]
    fn a_probe_that_is_given_up_or_says_nothing_leaves_the_next_call_to_try() {
        let breaker = breaker();
        open(&breaker, at(0));
        drop(breaker.admit(at(2)).unwrap());
        assert_eq!(call(&breaker, Health::Unknown, at(2)), Ok(None));
        assert_eq!(call(&breaker, Health::Well, at(2)), Ok(Some(Turned::Closed)));
    }

    #[test]
    fn the_message_says_how_long() {
        let message = |refused: Refused| refused.error().to_string();
        assert_eq!(
            message(Refused::For(Duration::from_millis(2_001))),
            "unavailable: the store's breaker is open for another 3s"
        );
        assert_eq!(
            message(Refused::For(Duration::from_millis(20))),
            "unavailable: the store's breaker is open for another 20ms"
        );
    }

    #[test]
    fn options_that_make_no_sense_are_named() {
        let options = BreakerOptions::default();
        assert_eq!(options.fault(), None);
        assert!(options.failures(0).fault().is_some());
        assert!(options.pause(Duration::ZERO).fault().is_some());
        assert!(options.pause(seconds(31)).fault().is_some());
    }
}
