//! When an entry is renewed before it has to be, and how long a new one lives: pure, chance passed in.

use std::time::Duration;

use crate::entry::Meta;
use crate::options::{EntryOptions, Refresh};
use crate::time::{Stamp, Timestamp, Ttl};

/// Whether a fresh entry is due for a renewal in the background.
pub(crate) fn is_due(meta: &Meta, refresh: Option<Refresh>, now: Timestamp) -> bool {
    let Some(Refresh::Early { share }) = refresh else { return false };
    if meta.fresh_until == Timestamp::FOREVER {
        return false;
    }
    let born = meta.born.timestamp();
    // A share that is not a number is no share.
    let share = if share.is_nan() { 1.0 } else { share.clamp(0.0, 1.0) };
    now >= born + meta.fresh_until.since(born).mul_f64(share)
}

/// The TTL of a new entry: shorter by a part of the jitter that its stamp, which no other entry has, decides.
pub(crate) fn ttl(options: &EntryOptions, stamp: Stamp) -> Ttl {
    let (Ttl::For(ttl), Some(jitter)) = (options.ttl_or_default(), options.jitter) else {
        return options.ttl_or_default();
    };
    let chance = xxhash_rust::xxh3::xxh3_64(&stamp.to_bits().to_le_bytes()) as f64 / u64::MAX as f64;
    let shorter = ttl.saturating_sub(jitter.mul_f64(chance));
    // What had a TTL keeps one: zero would store nothing.
    Ttl::For(if ttl.is_zero() { ttl } else { shorter.max(Duration::from_millis(1)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::seconds;

    #[test]
    fn an_entry_is_due_when_its_share_is_over() {
        let born = Timestamp::from_millis(1_000_000);
        let check = |share: f64, after: u64, expected: bool| {
            let meta = Meta::new(Stamp::at(born), born, Ttl::For(seconds(10)), seconds(0));
            let refresh = Some(Refresh::Early { share });
            assert_eq!(is_due(&meta, refresh, born + seconds(after)), expected, "{share} after {after}");
        };
        check(0.9, 8, false);
        check(0.9, 9, true);
        check(0.0, 0, true);
        check(-3.0, 0, true);
        check(7.0, 9, false);
        check(f64::NAN, 9, false);
        let forever = Meta::new(Stamp::at(born), born, Ttl::Forever, seconds(0));
        assert!(!is_due(&forever, Some(Refresh::Early { share: 0.0 }), born));
        assert!(!is_due(&forever, None, born));
    }

    #[test]
    fn jitter_shortens_by_up_to_its_length_and_never_to_nothing() {
        let options = EntryOptions::default().ttl(seconds(100)).jitter(seconds(10));
        let ttls: Vec<Duration> = (0..1_000)
            .map(|bits| match ttl(&options, Stamp::from_bits(bits)) {
                Ttl::For(ttl) => ttl,
                Ttl::Forever => unreachable!(),
            })
            .collect();
        assert!(ttls.iter().all(|ttl| (seconds(90)..=seconds(100)).contains(ttl)));
        let mean = ttls.iter().sum::<Duration>() / 1_000;
        assert!((seconds(94)..seconds(96)).contains(&mean), "{mean:?}");
        let short = EntryOptions::default().ttl(seconds(1)).jitter(seconds(10));
        assert!((0..100).all(|bits| !ttl(&short, Stamp::from_bits(bits)).is_zero()));
        assert!(ttl(&EntryOptions::default().ttl(seconds(0)).jitter(seconds(1)), Stamp::ZERO).is_zero());
    }
}
