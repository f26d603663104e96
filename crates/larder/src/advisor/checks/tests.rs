//! For each check a configuration that fires it alone, and the nearest one that does not.

use super::*;
use crate::advisor::{MemoryFacts, StoreFacts, advise};
use crate::time::{hours, seconds};
use std::collections::BTreeSet;

/// A stack of both tiers about which there is nothing to say.
pub(in crate::advisor) fn sound() -> Facts {
    let mut facts = Facts::new(Ttl::For(minutes(5)), seconds(2), hours(1));
    let bytes_max = Some(64 << 20);
    facts.memory = Some(MemoryFacts { items_max: 10_000, bytes_max, entry_bytes_max: Some(1 << 20) });
    facts.store = Some(StoreFacts {
        driver: "sqlite".to_owned(),
        shared: Some(true),
        place: Some("sqlite:/var/cache/a.db larder".to_owned()),
        path: Some("/var/cache/a.db".into()),
        value_bytes_max: Some(1 << 30),
        is_bounded: Some(false),
        is_pruned: Some(true),
        is_encrypted: true,
        compress_from_bytes: Some(1_024),
    });
    facts.grace = hours(6);
    facts.deadline = Some(seconds(2));
    facts.value_bytes_max = Some(32 << 20);
    facts.prefix = Some("users".to_owned());
    facts.groups = vec![("avatars".into(), "user:*:avatar".into()), ("users".into(), "user:*".into())];
    facts
}

fn ids(facts: &Facts) -> Vec<&'static str> {
    advise(facts).iter().map(|advice| advice.id).collect()
}

type Change = fn(&mut Facts);

fn store(facts: &mut Facts) -> &mut StoreFacts {
    facts.store.as_mut().unwrap()
}

fn memory(facts: &mut Facts) -> &mut MemoryFacts {
    facts.memory.as_mut().unwrap()
}

/// For each check: a change of the sound stack that fires it and nothing else, and the nearest that does not.
const CASES: &[(&str, Change, Change)] = &[
    ("ttl-zero", |f| f.ttl = Ttl::For(Duration::ZERO), |f| f.ttl = Ttl::For(seconds(3))),
    (
        "ttl-below-clock",
        |f| {
            f.ttl = Ttl::For(Duration::from_millis(99));
            f.deadline_effective = Duration::from_millis(20);
        },
        |f| {
            f.ttl = Ttl::For(TTL_MIN);
            f.deadline_effective = Duration::from_millis(20);
        },
    ),
    ("grace-too-short", |f| f.grace = Duration::from_millis(2_999), |f| f.grace = seconds(3)),
    (
        "grace-never-begins",
        |f| {
            f.ttl = Ttl::Forever;
            store(f).is_bounded = Some(true);
        },
        |f| {
            f.ttl = Ttl::Forever;
            f.grace = Duration::ZERO;
            store(f).is_bounded = Some(true);
        },
    ),
    (
        "grace-behind-errors",
        |f| f.suppress_l2_errors = Some(false),
        |f| {
            f.suppress_l2_errors = Some(false);
            f.grace = Duration::ZERO;
        },
    ),
    (
        "soft-timeout-without-grace",
        |f| {
            f.soft_timeout = Some(seconds(1));
            f.grace = Duration::ZERO;
        },
        |f| f.soft_timeout = Some(seconds(1)),
    ),
    (
        "soft-timeout-too-long",
        |f| (f.soft_timeout, f.hard_timeout) = (Some(seconds(1)), Some(seconds(1))),
        |f| (f.soft_timeout, f.hard_timeout) = (Some(seconds(1)), Some(seconds(2))),
    ),
    (
        "replace-after-too-long",
        |f| (f.replace_after, f.hard_timeout) = (Some(seconds(1)), Some(seconds(1))),
        |f| (f.replace_after, f.hard_timeout) = (Some(seconds(1)), Some(seconds(2))),
    ),
    (
        "memory-ttl-without-store",
        |f| {
            f.memory_ttl = Some(seconds(1));
            f.memory = None;
        },
        |f| f.memory_ttl = Some(seconds(1)),
    ),
    (
        "memory-ttl-above-ttl",
        |f| f.memory_ttl = Some(minutes(5)),
        |f| f.memory_ttl = Some(minutes(5) - seconds(1)),
    ),
    (
        "across-processes-alone",
        |f| {
            f.across_processes = Some(seconds(2));
            (f.store, f.deadline, f.prefix, f.suppress_l2_errors) = (None, None, None, None);
        },
        |f| f.across_processes = Some(seconds(2)),
    ),
    ("sliding-above-ttl", |f| f.sliding = Some(minutes(5)), |f| f.sliding = Some(minutes(4))),
    (
        "jitter-while-sliding",
        |f| (f.sliding, f.jitter) = (Some(minutes(1)), seconds(1)),
        |f| f.jitter = seconds(1),
    ),
    ("jitter-above-ttl", |f| f.jitter = minutes(5), |f| f.jitter = minutes(5) - seconds(1)),
    (
        "entry-above-memory",
        |f| memory(f).entry_bytes_max = Some((64 << 20) + 1),
        |f| memory(f).entry_bytes_max = Some(64 << 20),
    ),
    (
        "items-out-of-reach",
        |f| memory(f).items_max = (64 << 20) / 256 + 1,
        |f| memory(f).items_max = (64 << 20) / 256,
    ),
    (
        "value-above-store",
        |f| store(f).value_bytes_max = Some((32 << 20) - 1),
        |f| store(f).value_bytes_max = Some(32 << 20),
    ),
    (
        "value-above-memory",
        |f| f.value_bytes_max = Some((64 << 20) + 1),
        |f| f.value_bytes_max = Some(64 << 20),
    ),
    (
        "deadline-above-ttl",
        |f| f.ttl = Ttl::For(seconds(2)),
        |f| f.ttl = Ttl::For(Duration::from_millis(2_001)),
    ),
    ("deadline-too-long", |f| f.deadline_effective = seconds(61), |f| f.deadline_effective = seconds(60)),
    ("load-max-below-deadline", |f| f.load_max = seconds(1), |f| f.load_max = seconds(2)),
    ("load-max-too-long", |f| f.load_max = days(2), |f| f.load_max = days(1)),
    (
        "store-in-own-memory",
        |f| {
            store(f).shared = Some(false);
            store(f).is_encrypted = false;
        },
        |f| {
            store(f).shared = Some(false);
            store(f).is_encrypted = false;
            f.memory = None;
        },
    ),
    (
        "encrypted-memory",
        |f| {
            store(f).shared = Some(false);
            f.memory = None;
        },
        |f| {
            store(f).shared = None;
            f.memory = None;
        },
    ),
    ("prefix-empty", |f| f.prefix = Some(String::new()), |f| f.prefix = None),
    (
        "never-reclaimed",
        |f| store(f).is_pruned = Some(false),
        |f| {
            store(f).is_pruned = Some(false);
            store(f).is_bounded = Some(true);
        },
    ),
    (
        "forever-unbounded",
        |f| {
            f.ttl = Ttl::Forever;
            f.grace = Duration::ZERO;
        },
        |f| {
            f.ttl = Ttl::Forever;
            f.grace = Duration::ZERO;
            store(f).is_bounded = None;
        },
    ),
    (
        "suppress-without-memory",
        |f| {
            f.suppress_l2_errors = Some(true);
            f.memory = None;
        },
        |f| f.suppress_l2_errors = Some(true),
    ),
    (
        "volatile-path",
        |f| store(f).path = Some("/tmp/cache.db".into()),
        |f| store(f).path = Some("/tmpfiles/cache.db".into()),
    ),
    (
        "compress-never",
        |f| store(f).compress_from_bytes = Some((32 << 20) + 1),
        |f| store(f).compress_from_bytes = Some(32 << 20),
    ),
    (
        "store-options-without-store",
        |f| f.store = None,
        |f| {
            f.store = None;
            f.deadline = None;
            f.prefix = None;
        },
    ),
    ("group-shadowed", |f| f.groups.reverse(), |f| f.groups.truncate(1)),
];

#[test]
fn there_is_nothing_to_say_about_a_sound_stack() {
    assert_eq!(ids(&sound()), Vec::<&str>::new());
}

#[test]
fn each_check_speaks_up_and_keeps_quiet_next_to_its_limit() {
    for (id, wrong, right) in CASES {
        let mut facts = sound();
        wrong(&mut facts);
        assert_eq!(ids(&facts), [*id]);
        let mut facts = sound();
        right(&mut facts);
        assert_eq!(ids(&facts), Vec::<&str>::new(), "not {id}");
    }
}

#[test]
fn each_check_has_a_case_and_an_id_of_its_own() {
    let cases: BTreeSet<&str> = CASES.iter().map(|(id, ..)| *id).collect();
    let checks: BTreeSet<&str> = CHECKS.iter().map(|check| check.id).collect();
    assert_eq!((cases, checks.len()), (checks, CHECKS.len()));
}
