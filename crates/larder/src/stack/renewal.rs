//! When an entry is renewed before it has to be, and how long a new one lives: pure, chance passed in.

use std::sync::Arc;
use std::time::Duration;

use crate::entry::{Extras, Meta, Sliding};
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
#[inline]
pub(crate) fn slides_to(meta: &Meta, now: Timestamp) -> Option<Timestamp> {
    let Sliding { idle, ends } = meta.extras.as_ref()?.sliding?;
    if meta.fresh_until.since(now) >= idle {
        return None;
    }
    let end = (now + with_slack(idle)).min(ends);
    (end > meta.fresh_until).then_some(end)
}

/// What is known of an entry that was used at `now`.
pub(crate) fn slid(mut meta: Meta, now: Timestamp) -> Meta {
    if let Some(end) = slides_to(&meta, now) {
        let grace = meta.stale_until.since(meta.fresh_until);
        (meta.fresh_until, meta.stale_until) = (end, end + grace);
    }
    meta
}

/// When an entry is fresh until that is given this end, and what it carries then: a sliding one slides up to it.
pub(crate) fn end_at(meta: &Meta, end: Timestamp, now: Timestamp) -> (Timestamp, Option<Arc<Extras>>) {
    match meta.extras.as_deref() {
        Some(extras @ Extras { sliding: Some(Sliding { idle, .. }), .. }) => {
            let sliding = Some(Sliding { idle: *idle, ends: end });
            let extras = Extras { sliding, ..extras.clone() };
            (end.min(now + with_slack(*idle)), Some(Arc::new(extras)))
        }
        _ => (end, meta.extras.clone()),
    }
}

fn with_slack(idle: Duration) -> Duration {
    idle.saturating_add(idle / 4)
}

/// Notes with a new entry what decides how its freshness ends: how long its load took, if there was one, or how it slides.
/// What it inherited from a previous one goes.
pub(crate) fn note(meta: &mut Meta, options: &EntryOptions, took: Option<Duration>, now: Timestamp) {
    let load_time = took.filter(|_| options.refresh == Some(Refresh::Probabilistic)).map(|took| {
        // To the millisecond, and never none: a load of no time would be renewed only when its entry has ended.
        Duration::from_millis(u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1))
    });
    let sliding = match options.refresh {
        Some(Refresh::Sliding { idle }) => {
            Some(Sliding { idle, ends: options.ttl_or_default().ends_at(now) })
        }
        _ => None,
    };
    let known = meta.extras.as_deref().map_or((None, None), |extras| (extras.load_time, extras.sliding));
    if known != (load_time, sliding) {
        let extras = meta.extras.as_deref().cloned().unwrap_or_default();
        meta.extras = Some(Arc::new(Extras { load_time, sliding, ..extras }));
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
            note(&mut meta, &options, Some(load), born);
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
        let mut meta = Meta::new(Stamp::at(born), born, ttl(&options, Stamp::ZERO), seconds(5));
        note(&mut meta, &options, None, born);
        assert_eq!(meta.fresh_until, born + seconds(10));
        assert_eq!(slides_to(&meta, born + seconds(2)), None, "it has its idle time left");
        assert_eq!(slides_to(&meta, born + seconds(3)), Some(born + seconds(13)));
        let used = slid(meta.clone(), born + seconds(3));
        assert_eq!((used.fresh_until, used.stale_until), (born + seconds(13), born + seconds(18)));
        meta.fresh_until = born + seconds(99);
        assert_eq!(slides_to(&meta, born + seconds(95)), Some(born + seconds(100)));
        meta.fresh_until = born + seconds(100);
        assert_eq!(slides_to(&meta, born + seconds(99)), None, "its TTL is over");

        let (end, extras) = end_at(&meta, born + seconds(500), born + seconds(99));
        assert_eq!(end, born + seconds(109), "a new TTL does not stop it from sliding");
        assert_eq!(extras.unwrap().sliding.unwrap().ends, born + seconds(500));
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
