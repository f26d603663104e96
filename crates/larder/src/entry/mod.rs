//! An entry: a value with what is known about it. Freshness is decided here and nowhere else.
//!
//! Knows nothing of stores: [`wire`] turns entries into bytes and back, others move the bytes.

pub mod wire;

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::tag::Tag;
use crate::time::{Stamp, Timestamp};

/// A value of any type, as the engine carries it: shared, never serialised on the way.
pub type AnyValue = Arc<dyn Any + Send + Sync>;

/// A value and what is known about it. Cloning costs one reference count.
#[derive(Clone)]
pub struct Entry {
    /// The value.
    pub value: AnyValue,
    /// What is known about it.
    pub meta: Meta,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("meta", &self.meta).finish_non_exhaustive()
    }
}

/// When an entry was made and how long it is good for.
///
/// Invariant: `fresh_until <= stale_until`. Grace is counted from the end of freshness.
///
/// ```
/// use larder::entry::{Freshness, Meta};
/// use larder::time::{Stamp, Timestamp, Ttl, seconds};
/// let now = Timestamp::from_millis(1_000);
/// let meta = Meta::new(Stamp::at(now), now, Ttl::For(seconds(1)), seconds(5));
/// assert_eq!(meta.freshness(now), Freshness::Fresh);
/// assert_eq!(meta.freshness(now + seconds(1)), Freshness::Stale);
/// assert_eq!(meta.freshness(now + seconds(6)), Freshness::Expired);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// What orders it among the writes of its key: when its load began, or when it was last rewritten.
    pub stamp: Stamp,
    /// When the load of the value itself began, or when it was set: what clears and tags are compared with.
    /// Rewriting an entry (touch, expire, increment) renews its stamp and leaves this alone, so that a
    /// rewrite cannot carry a value past a clear.
    pub born: Stamp,
    /// Until when it is fresh (exclusive).
    pub fresh_until: Timestamp,
    /// Until when it may be served stale (exclusive).
    pub stale_until: Timestamp,
    /// Tags and validators, absent on most entries.
    pub extras: Option<Arc<Extras>>,
}

/// The parts of [`Meta`] that most entries do not have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extras {
    /// What it can be invalidated by, sorted.
    pub tags: Box<[Tag]>,
    /// An opaque validator of its source.
    pub etag: Option<Box<str>>,
    /// When its source says that it was last modified.
    pub last_modified: Option<Box<str>>,
    /// How long its load took, to the millisecond, if that decides when it is loaded again.
    pub load_time: Option<Duration>,
    /// How reads keep it fresh, if they do.
    pub sliding: Option<Sliding>,
}

/// How reads keep an entry fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sliding {
    /// How long nobody may read it.
    pub idle: Duration,
    /// Until when it is fresh at most, however often it is read (exclusive).
    pub ends: Timestamp,
}

/// What may be done with an entry at some point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Freshness {
    /// It may be served.
    Fresh,
    /// It may be served only when nothing better can be had.
    Stale,
    /// It may not be served.
    Expired,
}

impl Meta {
    /// The meta of a new value that is stored at `now`, without tags.
    pub fn new(stamp: Stamp, now: Timestamp, ttl: crate::time::Ttl, grace: Duration) -> Self {
        let fresh_until = ttl.ends_at(now);
        Self { stamp, born: stamp, fresh_until, stale_until: fresh_until + grace, extras: None }
    }

    /// What may be done with it at `now`. A point that is reached has passed.
    #[inline]
    pub fn freshness(&self, now: Timestamp) -> Freshness {
        // Forever is never reached, even by a clock that is set to the end of time.
        if now < self.fresh_until || self.fresh_until == Timestamp::FOREVER {
            Freshness::Fresh
        } else if now < self.stale_until || self.stale_until == Timestamp::FOREVER {
            Freshness::Stale
        } else {
            Freshness::Expired
        }
    }

    /// Its tags, sorted.
    pub fn tags(&self) -> &[Tag] {
        self.extras.as_ref().map_or(&[], |extras| &extras.tags)
    }

    /// How long ago its load began; zero if the clock was set back since.
    pub fn age(&self, now: Timestamp) -> Duration {
        now.since(self.born.timestamp())
    }

    /// How much longer it is fresh, zero if it is not; `None` is forever.
    pub fn ttl_left(&self, now: Timestamp) -> Option<Duration> {
        (self.fresh_until != Timestamp::FOREVER).then(|| self.fresh_until.since(now))
    }

    /// How much longer a store has to keep it; `None` is forever.
    pub fn life_left(&self, now: Timestamp) -> Option<Duration> {
        (self.stale_until != Timestamp::FOREVER).then(|| self.stale_until.since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{Ttl, seconds};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn freshness_only_ever_declines(ttl in 0u64..5_000, grace in 0u64..5_000, a in 0u64..20_000, b in 0u64..20_000) {
            let meta = Meta::new(Stamp::ZERO, Timestamp::ZERO, Ttl::For(Duration::from_millis(ttl)), Duration::from_millis(grace));
            let rank = |at| match meta.freshness(Timestamp::from_millis(at)) {
                Freshness::Fresh => 0,
                Freshness::Stale => 1,
                Freshness::Expired => 2,
            };
            prop_assert!(rank(a.min(b)) <= rank(a.max(b)));
        }
    }

    #[test]
    fn forever_is_fresh_at_the_end_of_time() {
        let meta = Meta::new(Stamp::ZERO, Timestamp::ZERO, Ttl::Forever, seconds(0));
        assert_eq!(meta.freshness(Timestamp::FOREVER), Freshness::Fresh);
        assert_eq!(meta.life_left(Timestamp::ZERO), None);
    }
}
