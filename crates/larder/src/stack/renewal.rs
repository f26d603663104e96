//! When an entry is renewed before it has to be, and how long a new one lives: pure, chance passed in.

use std::sync::Arc;
use std::time::Duration;

use crate::entry::{Extras, Meta};
use crate::options::{EntryOptions, Refresh};
use crate::time::{Stamp, Timestamp, Ttl};

/// How many load times before the end XFetch may choose at the earliest: no chance is so small that its logarithm is
/// further from 0.
const XFETCH_LOADS_MAX: u32 = 45;

/// Whether a fresh entry is due for a renewal in the background. A chance is a number from 1 to the largest, all equally
/// likely.
pub(crate) fn is_due(
    meta: &Meta,
    refresh: Option<Refresh>,
    now: Timestamp,
    chance: impl FnOnce() -> u64,
) -> bool {
    if meta.fresh_until == Timestamp::FOREVER {
        return false;
    }
    match refresh {
        Some(Refresh::Early { share }) => {
            let born = meta.born.timestamp();
            // A share that is not a number is no share.
            let share = if share.is_nan() { 1.0 } else { share.clamp(0.0, 1.0) };
            now >= born + meta.fresh_until.since(born).mul_f64(share)
        }
        Some(Refresh::Probabilistic) => {
            let Some(took) = meta.extras.as_ref().and_then(|extras| extras.load_time) else { return false };
            let left = meta.fresh_until.since(now);
            left < took * XFETCH_LOADS_MAX && {
                let logarithm = -(chance().max(1) as f64 / u64::MAX as f64).ln();
                left <= took.mul_f64(logarithm)
            }
        }
        _ => false,
    }
}

/// When a sliding entry that is read at `now` ends: as long after as nobody may ask, and a quarter more, so that it need
/// not be renewed at every read; at the latest with its TTL. `None` if it is not sliding, or was renewed a short time ago.
pub(crate) fn slides_to(meta: &Meta, options: &EntryOptions, now: Timestamp) -> Option<Timestamp> {
    let Some(Refresh::Sliding { idle }) = options.refresh else { return None };
    if meta.fresh_until == Timestamp::FOREVER || meta.fresh_until.since(now) >= idle {
        return None;
    }
    let end = (now + with_slack(idle)).min(options.ttl_or_default().ends_at(meta.born.timestamp()));
    (end > meta.fresh_until).then_some(end)
}

fn with_slack(idle: Duration) -> Duration {
    idle.saturating_add(idle / 4)
}

/// Notes how long a load took, where that decides when the entry is loaded again.
pub(crate) fn note_load_time(meta: &mut Meta, options: &EntryOptions, took: Duration) {
    if options.refresh == Some(Refresh::Probabilistic) {
        let mut extras = meta.extras.as_ref().map(|extras| Extras::clone(extras)).unwrap_or_default();
        extras.load_time =
            Some(Duration::from_millis(u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1)));
        meta.extras = Some(Arc::new(extras));
    }
}

/// The TTL of a new entry: shorter by a part of the jitter that its stamp, which no other entry has, decides.
pub(crate) fn ttl(options: &EntryOptions, stamp: Stamp) -> Ttl {
    if let Some(Refresh::Sliding { idle }) = options.refresh {
        return match options.ttl_or_default() {
            Ttl::For(ttl) => Ttl::For(ttl.min(with_slack(idle))),
            Ttl::Forever => Ttl::For(with_slack(idle)),
        };
    }
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
            let due = is_due(&meta, refresh, born + seconds(after), || unreachable!());
            assert_eq!(due, expected, "{share} after {after}");
        };
        check(0.9, 8, false);
        check(0.9, 9, true);
        check(0.0, 0, true);
        check(-3.0, 0, true);
        check(7.0, 9, false);
        check(f64::NAN, 9, false);
        let forever = Meta::new(Stamp::at(born), born, Ttl::Forever, seconds(0));
        assert!(!is_due(&forever, Some(Refresh::Early { share: 0.0 }), born, || unreachable!()));
        assert!(!is_due(&forever, None, born, || unreachable!()));
    }

    /// The paper's rule: due at a time before the end that is the load time times the negative logarithm of chance.
    #[test]
    fn xfetch_is_the_likelier_the_nearer_the_end_and_the_longer_the_load() {
        let born = Timestamp::from_millis(1_000_000);
        let of = |load: Duration| {
            let mut meta = Meta::new(Stamp::at(born), born, Ttl::For(seconds(100)), seconds(0));
            let options = EntryOptions::default().refresh(Refresh::Probabilistic);
            note_load_time(&mut meta, &options, load);
            meta
        };
        let share = |load: Duration, left: u64| {
            let (meta, now) = (of(load), born + seconds(100 - left));
            let mut chance = 0_u64;
            let mut due = 0;
            for _ in 0..10_000 {
                chance = chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
                due += u32::from(is_due(&meta, Some(Refresh::Probabilistic), now, || chance));
            }
            f64::from(due) / 10_000.0
        };
        for (load, left) in [(1, 1), (2, 1), (1, 2), (10, 5), (3, 9)] {
            let expected = (-(left as f64) / load as f64).exp();
            let share = share(seconds(load), left);
            assert!((share - expected).abs() < 0.01, "{load} s, {left} s left: {share} and not {expected}");
        }
        assert_eq!(share(seconds(1), 0), 1.0);
        let never = is_due(&of(seconds(1)), Some(Refresh::Probabilistic), born, || {
            unreachable!("too early for chance")
        });
        assert!(!never);
        let set = Meta::new(Stamp::at(born), born, Ttl::For(seconds(1)), seconds(0));
        assert!(
            !is_due(&set, Some(Refresh::Probabilistic), born + seconds(1), || 1),
            "nobody knows what a load takes"
        );
    }

    #[test]
    fn a_sliding_entry_ends_after_its_idle_time_and_no_later_than_its_ttl() {
        let born = Timestamp::from_millis(1_000_000);
        let options =
            EntryOptions::default().ttl(seconds(100)).refresh(Refresh::Sliding { idle: seconds(8) });
        let mut meta = Meta::new(Stamp::at(born), born, ttl(&options, Stamp::ZERO), seconds(0));
        assert_eq!(meta.fresh_until, born + seconds(10));
        assert_eq!(slides_to(&meta, &options, born + seconds(2)), None, "it has its idle time left");
        assert_eq!(slides_to(&meta, &options, born + seconds(3)), Some(born + seconds(13)));
        meta.fresh_until = born + seconds(99);
        assert_eq!(slides_to(&meta, &options, born + seconds(95)), Some(born + seconds(100)));
        meta.fresh_until = born + seconds(100);
        assert_eq!(slides_to(&meta, &options, born + seconds(99)), None, "its TTL is over");
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
