//! Keys whose source is left alone for a while, because a load of them failed and a stale entry is there.
//!
//! Per process, and beside the entries: an entry whose load failed is not rewritten, so nothing can lengthen
//! its life, and it stays what it is, stale.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::time::Timestamp;

/// How many keys may rest at once. Beyond it, those whose rest is over go, and if there are none, the new one
/// does not rest: its source is asked again sooner.
const RESTS_MAX: usize = 65_536;

/// The resting keys of a stack.
#[derive(Debug, Default)]
pub(crate) struct Rests {
    until: Mutex<HashMap<(u32, Box<str>), Timestamp>>,
    /// Whether there may be any: in good times a look costs one load.
    any: AtomicBool,
}

impl Rests {
    /// Lets a key rest.
    pub(crate) fn rest(&self, namespace: u32, key: &str, until: Timestamp, now: Timestamp) {
        if until <= now {
            return;
        }
        let mut resting = self.until.lock();
        if resting.len() >= RESTS_MAX {
            resting.retain(|_, until| *until > now);
        }
        if resting.len() < RESTS_MAX {
            resting.insert((namespace, key.into()), until);
            self.any.store(true, Ordering::Release);
        }
    }

    /// Ends a key's rest: its source answers again.
    pub(crate) fn wake(&self, namespace: u32, key: &str) {
        if self.any.load(Ordering::Acquire) {
            let mut resting = self.until.lock();
            resting.remove(&(namespace, key.into()));
            self.any.store(!resting.is_empty(), Ordering::Release);
        }
    }

    /// Whether a key rests.
    pub(crate) fn is_resting(&self, namespace: u32, key: &str, now: Timestamp) -> bool {
        if !self.any.load(Ordering::Acquire) {
            return false;
        }
        self.until.lock().get(&(namespace, key.into())).is_some_and(|until| now < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_ends_by_itself_or_when_woken_and_belongs_to_one_key() {
        let rests = Rests::default();
        let at = Timestamp::from_millis;
        rests.rest(1, "a", at(10), at(0));
        assert!(rests.is_resting(1, "a", at(9)) && !rests.is_resting(1, "a", at(10)));
        assert!(!rests.is_resting(2, "a", at(0)) && !rests.is_resting(1, "b", at(0)));
        rests.wake(1, "a");
        assert!(!rests.is_resting(1, "a", at(0)));
        rests.rest(1, "a", at(5), at(5));
        assert!(!rests.is_resting(1, "a", at(4)), "a rest of no length is none");
    }

    #[test]
    fn rests_are_bounded() {
        let rests = Rests::default();
        let at = Timestamp::from_millis;
        for n in 0..RESTS_MAX + 10 {
            rests.rest(0, &n.to_string(), at(10), at(0));
        }
        assert_eq!(rests.until.lock().len(), RESTS_MAX);
        rests.rest(0, "late", at(20), at(10));
        assert_eq!(rests.until.lock().len(), 1);
    }
}
