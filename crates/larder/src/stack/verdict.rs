//! What may be done with what was found: pure, so that it can be read and tested as a table.

use crate::entry::{Freshness, Meta};
use crate::time::{Stamp, Timestamp};

/// What may be done at `now` with an entry of a namespace that was last cleared at `cleared`.
///
/// A clear wins over every value whose load began before it or at the same stamp.
#[inline]
pub(crate) fn standing(meta: &Meta, cleared: Stamp, now: Timestamp) -> Freshness {
    if meta.born <= cleared { Freshness::Expired } else { meta.freshness(now) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{Ttl, seconds};

    #[test]
    fn a_clear_at_or_after_the_birth_kills_and_one_before_does_not() {
        let now = Timestamp::from_millis(10_000);
        let check = |born: u64, cleared: u64, later: u64, expected: Freshness| {
            let meta = Meta::new(Stamp::from_bits(born), now, Ttl::For(seconds(1)), seconds(1));
            assert_eq!(standing(&meta, Stamp::from_bits(cleared), now + seconds(later)), expected);
        };
        check(5, 0, 0, Freshness::Fresh);
        check(5, 4, 0, Freshness::Fresh);
        check(5, 5, 0, Freshness::Expired);
        check(5, 6, 0, Freshness::Expired);
        check(5, 4, 1, Freshness::Stale);
        check(5, 4, 2, Freshness::Expired);
    }

    #[test]
    fn a_rewrite_does_not_carry_a_value_past_a_clear() {
        let now = Timestamp::from_millis(10_000);
        let mut meta = Meta::new(Stamp::from_bits(5), now, Ttl::Forever, seconds(0));
        meta.stamp = Stamp::from_bits(9);
        assert_eq!(standing(&meta, Stamp::from_bits(7), now), Freshness::Expired);
    }
}
