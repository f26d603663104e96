//! Keys whose source is left alone for a while, because a load of them failed and a stale entry is there.
//!
//! Per process, and beside the entries: an entry whose load failed is not rewritten, so nothing can lengthen
//! its life, and it stays what it is, stale.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::error::Error;

/// How many keys may rest at once. Beyond it, those whose rest is over go, and if there are none, the new one
/// does not rest: its source is asked again sooner.
const RESTS_MAX: usize = 65_536;

/// Until when a key rests, by the monotonic clock: a wall clock that is set back lengthens no rest; and why.
#[derive(Debug, Clone)]
pub(crate) struct Rest {
    pub(crate) until: Duration,
    /// What its last load failed with.
    pub(crate) why: Error,
}

/// The resting keys of a stack.
#[derive(Debug, Default)]
pub(crate) struct Rests {
    resting: Mutex<HashMap<(u32, Box<str>), Rest>>,
    /// Whether there may be any: in good times a look costs one load.
    any: AtomicBool,
}

impl Rests {
    /// Lets a key rest.
    pub(crate) fn rest(&self, namespace: u32, key: &str, rest: Rest, now: Duration) {
        if rest.until <= now {
            return;
        }
        let mut resting = self.resting.lock();
        if resting.len() >= RESTS_MAX {
            resting.retain(|_, rest| rest.until > now);
        }
        if resting.len() < RESTS_MAX {
            resting.insert((namespace, key.into()), rest);
            self.any.store(true, Ordering::Release);
        }
    }

    /// Ends a key's rest: its source answers again.
    pub(crate) fn wake(&self, namespace: u32, key: &str) {
        if self.any.load(Ordering::Acquire) {
            let mut resting = self.resting.lock();
            resting.remove(&(namespace, key.into()));
            self.any.store(!resting.is_empty(), Ordering::Release);
        }
    }

    /// Why and until when a key rests, if it does.
    pub(crate) fn find(&self, namespace: u32, key: &str, now: impl FnOnce() -> Duration) -> Option<Rest> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let now = now();
        self.resting.lock().get(&(namespace, key.into())).filter(|rest| now < rest.until).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn until(millis: u64) -> Rest {
        Rest { until: Duration::from_millis(millis), why: Error::new(ErrorKind::Load, "down") }
    }

    #[test]
    fn a_rest_ends_by_itself_or_when_woken_and_belongs_to_one_key() {
        let rests = Rests::default();
        let at = Duration::from_millis;
        let is_resting = |namespace, key, now| rests.find(namespace, key, || at(now)).is_some();
        rests.rest(1, "a", until(10), at(0));
        assert!(is_resting(1, "a", 9) && !is_resting(1, "a", 10));
        assert!(!is_resting(2, "a", 0) && !is_resting(1, "b", 0));
        rests.wake(1, "a");
        assert!(!is_resting(1, "a", 0));
        rests.rest(1, "a", until(5), at(5));
        assert!(!is_resting(1, "a", 4), "a rest of no length is none");
    }

    #[test]
    fn rests_are_bounded() {
        let rests = Rests::default();
        let at = Duration::from_millis;
        for n in 0..RESTS_MAX + 10 {
            rests.rest(0, &n.to_string(), until(10), at(0));
        }
        assert_eq!(rests.resting.lock().len(), RESTS_MAX);
        rests.rest(0, "late", until(20), at(10));
        assert_eq!(rests.resting.lock().len(), 1);
    }
}
