//! What may be done with what was found: pure, so that it can be read and tested as a table.

use crate::entry::{Freshness, Meta};
use crate::time::{Stamp, Timestamp};

/// What a clear, or a tag, says of everything that was born until some stamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Mark {
    /// What was born until then is gone.
    pub(crate) hard: Stamp,
    /// What was born until then is stale.
    pub(crate) soft: Stamp,
}

impl Mark {
    /// Both of two marks.
    #[must_use]
    pub(crate) fn and(self, other: Self) -> Self {
        Self { hard: self.hard.max(other.hard), soft: self.soft.max(other.soft) }
    }

    /// The newer of its stamps.
    pub(crate) fn newest(self) -> Stamp {
        self.hard.max(self.soft)
    }
}

/// What may be done at `now` with an entry that is under these marks.
///
/// An invalidation wins over every value whose load began before it or at the same stamp. A soft one ends the
/// freshness, and what has a grace stays stale until its end; an entry without end has no grace of its own. The end
/// does not move with the mark: a second soft invalidation would otherwise bring back what the first one's grace had
/// left behind.
#[inline]
pub(crate) fn standing(meta: &Meta, mark: Mark, now: Timestamp) -> Freshness {
    if meta.born <= mark.hard {
        return Freshness::Expired;
    }
    if meta.born > mark.soft {
        return meta.freshness(now);
    }
    let has_grace = meta.fresh_until < meta.stale_until;
    if has_grace && now < meta.stale_until { Freshness::Stale } else { Freshness::Expired }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{Ttl, seconds};

    const HARD: fn(u64) -> Mark = |bits| Mark { hard: Stamp::from_bits(bits), soft: Stamp::ZERO };

    #[test]
    fn a_clear_at_or_after_the_birth_kills_and_one_before_does_not() {
        let now = Timestamp::from_millis(10_000);
        let check = |born: u64, cleared: u64, later: u64, expected: Freshness| {
            let meta = Meta::new(Stamp::from_bits(born), now, Ttl::For(seconds(1)), seconds(1));
            assert_eq!(standing(&meta, HARD(cleared), now + seconds(later)), expected);
        };
        check(5, 0, 0, Freshness::Fresh);
        check(5, 4, 0, Freshness::Fresh);
        check(5, 5, 0, Freshness::Expired);
        check(5, 6, 0, Freshness::Expired);
        check(5, 4, 1, Freshness::Stale);
        check(5, 4, 2, Freshness::Expired);
    }

    #[test]
    fn a_soft_invalidation_leaves_the_grace_and_never_lengthens_it() {
        let born = Timestamp::from_millis(10_000);
        let check = |ttl: Ttl, grace: u64, invalidated: u64, asked: u64, expected: Freshness| {
            let meta = Meta::new(Stamp::at(born), born, ttl, seconds(grace));
            let mark = Mark { hard: Stamp::ZERO, soft: Stamp::at(born + seconds(invalidated)) };
            assert_eq!(standing(&meta, mark, born + seconds(asked)), expected);
        };
        let ten = Ttl::For(seconds(10));
        check(ten, 5, 3, 3, Freshness::Stale);
        check(ten, 5, 3, 14, Freshness::Stale);
        check(ten, 5, 3, 15, Freshness::Expired);
        check(ten, 0, 3, 3, Freshness::Expired);
        check(ten, 5, 12, 14, Freshness::Stale);
        check(ten, 5, 12, 15, Freshness::Expired);
        check(Ttl::Forever, 5, 3, 3, Freshness::Expired);
    }

    #[test]
    fn a_rewrite_does_not_carry_a_value_past_a_clear() {
        let now = Timestamp::from_millis(10_000);
        let mut meta = Meta::new(Stamp::from_bits(5), now, Ttl::Forever, seconds(0));
        meta.stamp = Stamp::from_bits(9);
        assert_eq!(standing(&meta, HARD(7), now), Freshness::Expired);
    }
}
