//! The checks: a row for each, and a function that looks at the facts of one stack.

use std::path::Path;
use std::time::Duration;

use super::{Facts, Severity};
use crate::time::{Ttl, days, minutes};

/// Below this a TTL is mostly the granularity of the clock: see [`SystemClock`](crate::time::SystemClock).
const TTL_MIN: Duration = Duration::from_millis(100);
/// A grace below this share of the TTL covers no outage that the TTL was meant for.
const GRACE_SHARE: u32 = 100;
/// Nobody waits longer for a cache.
const DEADLINE_MAX: Duration = minutes(1);
/// What each entry in memory weighs besides its key and value, in bytes.
const ENTRY_OVERHEAD_BYTES: u64 = 256;
/// Folders whose files are gone after a restart, and on many machines are memory themselves.
const VOLATILE: &[&str] = &["/tmp", "/dev/shm", "/run", "/var/run"];

/// One check.
pub(super) struct Check {
    pub(super) id: &'static str,
    pub(super) severity: Severity,
    pub(super) why: &'static str,
    pub(super) cure: &'static str,
    /// What it found.
    pub(super) look: fn(&Facts) -> Option<String>,
}

const fn warning(
    id: &'static str,
    look: fn(&Facts) -> Option<String>,
    why: &'static str,
    cure: &'static str,
) -> Check {
    Check { id, severity: Severity::Warning, why, cure, look }
}

const fn note(
    id: &'static str,
    look: fn(&Facts) -> Option<String>,
    why: &'static str,
    cure: &'static str,
) -> Check {
    Check { id, severity: Severity::Note, why, cure, look }
}

pub(super) const CHECKS: &[Check] = &[
    warning(
        "ttl-zero",
        ttl_zero,
        "zero is not forever: nothing is kept unless a cache or a call gives a TTL of its own",
        "give the stack a TTL, or `forever`",
    ),
    note(
        "ttl-below-clock",
        ttl_below_clock,
        "the clock moves in steps of up to 4 ms, and each store call takes its share, so such an entry lives for a time that is mostly chance",
        "use at least 100 ms; to share a computation among those who ask at the same time, no TTL is needed",
    ),
    warning(
        "grace-too-short",
        grace_too_short,
        "grace begins when the TTL is over and is there for outages, which last longer than a hundredth of a TTL",
        "make grace as long as the longest outage of the source that callers should not notice",
    ),
    warning(
        "grace-never-begins",
        grace_never_begins,
        "grace begins when the TTL is over, and this one never is",
        "give the stack a TTL that ends, or leave grace out",
    ),
    warning(
        "grace-behind-errors",
        grace_behind_errors,
        "when the store fails, the caller gets its error although a stale value is at hand",
        "leave `suppress_l2_errors` to its default, which is to go on without the store",
    ),
    warning(
        "entry-above-memory",
        entry_above_memory,
        "an entry that is larger than the whole memory tier never fits, so the limit of one entry has no effect",
        "make `max_entry_bytes` a fraction of `max_bytes`",
    ),
    note(
        "items-out-of-reach",
        items_out_of_reach,
        "each entry takes 256 bytes besides its key and value, so the limit in bytes is reached long before the one in items",
        "raise `max_bytes`, or lower `max_items` to what you expect to fit",
    ),
    warning(
        "value-above-store",
        value_above_store,
        "the store refuses values that the stack takes, and their writes fail",
        "lower `value_bytes_max`, or raise the store's limit",
    ),
    warning(
        "value-above-memory",
        value_above_memory,
        "a value of the size that is allowed never fits into memory, so each read of it goes to the store or to its source",
        "lower `value_bytes_max`, or raise `max_bytes`",
    ),
    warning(
        "deadline-above-ttl",
        deadline_above_ttl,
        "what the store answers that late has expired by then",
        "make the deadline a fraction of the TTL",
    ),
    note(
        "deadline-too-long",
        deadline_too_long,
        "a store that hangs makes every caller wait that long before anything else is tried",
        "use seconds: a value that the store does not give is loaded",
    ),
    warning(
        "load-max-below-deadline",
        load_max_below_deadline,
        "a load that takes as long as one call of the store may take is thrown away",
        "make `load_max` longer than the slowest load whose result is worth keeping",
    ),
    note(
        "load-max-too-long",
        load_max_too_long,
        "what a delete leaves behind in the store stays as long as a load may take",
        "make `load_max` as long as the slowest load whose result is worth keeping",
    ),
    warning(
        "store-in-own-memory",
        store_in_own_memory,
        "no other process sees the store, so it holds in this process's memory a second time what the memory tier holds",
        "leave one of the two out, or use a store that is shared",
    ),
    note(
        "encrypted-memory",
        encrypted_memory,
        "what never leaves the process's memory is encrypted with a key that lies in the same memory",
        "leave encryption out, or use a store outside of the process",
    ),
    warning(
        "prefix-empty",
        prefix_empty,
        "a clear of this stack reaches the keys of all that share the store",
        "give each stack and each application on a store a prefix of its own",
    ),
    warning(
        "never-reclaimed",
        never_reclaimed,
        "what has expired stays until it is overwritten, and nothing bounds how much that is",
        "leave `prune_interval` on, give the store `max_bytes`, or call `prune` regularly",
    ),
    note(
        "forever-unbounded",
        forever_unbounded,
        "what is stored stays until it is deleted, and nothing bounds how much that is",
        "give the store `max_bytes`, or the stack a TTL that ends",
    ),
    warning(
        "suppress-without-memory",
        suppress_without_memory,
        "without a memory tier every lookup is a miss while the store is down, so the source gets all the traffic and nobody an error",
        "add a memory tier, or let the errors of the store be returned",
    ),
    note(
        "volatile-path",
        volatile_path,
        "files there are gone after a restart, and on many machines they are memory that nothing bounds",
        "use a folder such as /var/cache/NAME, or a memory tier alone",
    ),
    warning(
        "compress-never",
        compress_never,
        "no value that may be stored is large enough to be compressed",
        "lower the threshold of `compress`, or leave it out",
    ),
    note(
        "store-options-without-store",
        store_options_without_store,
        "there is no store that they could apply to",
        "leave them out, or give the stack a store",
    ),
    warning(
        "group-shadowed",
        group_shadowed,
        "the first pattern that matches wins, and an earlier one takes every key of this group",
        "put the narrower pattern first",
    ),
];

/// Of several stacks, so nothing is to be found in one.
pub(super) const SHARED_ENTRIES: Check = warning(
    "shared-entries",
    |_| None,
    "with one prefix on one store they read, overwrite and clear each other's entries",
    "leave `prefix` out, so that it is the stack's name, or give each its own",
);

/// The TTL, if it ends and is not zero.
fn ttl(facts: &Facts) -> Option<Duration> {
    match facts.ttl {
        Ttl::For(ttl) if !ttl.is_zero() => Some(ttl),
        _ => None,
    }
}

fn is_private(facts: &Facts) -> bool {
    facts.store.as_ref().is_some_and(|store| store.shared == Some(false))
}

fn ttl_zero(facts: &Facts) -> Option<String> {
    facts.ttl.is_zero().then(|| "the TTL is zero".to_owned())
}

fn ttl_below_clock(facts: &Facts) -> Option<String> {
    ttl(facts).filter(|ttl| *ttl < TTL_MIN).map(|ttl| format!("the TTL is {ttl:?}"))
}

fn grace_too_short(facts: &Facts) -> Option<String> {
    let (ttl, grace) = (ttl(facts)?, facts.grace);
    (!grace.is_zero() && grace < ttl / GRACE_SHARE)
        .then(|| format!("grace is {grace:?} after a TTL of {ttl:?}"))
}

fn grace_never_begins(facts: &Facts) -> Option<String> {
    let is_idle = facts.ttl == Ttl::Forever && !facts.grace.is_zero();
    is_idle.then(|| format!("grace is {:?} after a TTL without end", facts.grace))
}

fn grace_behind_errors(facts: &Facts) -> Option<String> {
    let is_shut_out = facts.suppress_l2_errors == Some(false)
        && facts.memory.is_some()
        && facts.store.is_some()
        && !facts.grace.is_zero();
    is_shut_out.then(|| format!("grace is {:?}, and errors of the store are returned", facts.grace))
}

fn entry_above_memory(facts: &Facts) -> Option<String> {
    let memory = facts.memory?;
    let (entry, all) = (memory.entry_bytes_max?, memory.bytes_max?);
    (entry > all).then(|| format!("one entry may have {entry} bytes, all together {all}"))
}

fn items_out_of_reach(facts: &Facts) -> Option<String> {
    let memory = facts.memory?;
    let (items, bytes) = (memory.items_max, memory.bytes_max?);
    (bytes / ENTRY_OVERHEAD_BYTES < items).then(|| format!("{items} entries may have {bytes} bytes together"))
}

fn value_above_store(facts: &Facts) -> Option<String> {
    let (value, store) = (facts.value_bytes_max?, facts.store.as_ref()?.value_bytes_max?);
    (value > store).then(|| format!("values may have {value} bytes, and the store takes {store}"))
}

fn value_above_memory(facts: &Facts) -> Option<String> {
    let (value, memory) = (facts.value_bytes_max?, facts.memory?.bytes_max?);
    (value > memory).then(|| format!("values may have {value} bytes, and memory holds {memory}"))
}

fn deadline_above_ttl(facts: &Facts) -> Option<String> {
    let (ttl, deadline) = (ttl(facts)?, facts.deadline_effective);
    (facts.store.is_some() && deadline >= ttl)
        .then(|| format!("a call of the store may take {deadline:?}, and the TTL is {ttl:?}"))
}

fn deadline_too_long(facts: &Facts) -> Option<String> {
    let deadline = facts.deadline_effective;
    (facts.store.is_some() && deadline > DEADLINE_MAX)
        .then(|| format!("a call of the store may take {deadline:?}"))
}

fn load_max_below_deadline(facts: &Facts) -> Option<String> {
    let (load, deadline) = (facts.load_max, facts.deadline_effective);
    (facts.store.is_some() && load < deadline)
        .then(|| format!("a load may take {load:?}, and a call of the store {deadline:?}"))
}

fn load_max_too_long(facts: &Facts) -> Option<String> {
    (facts.store.is_some() && facts.load_max > days(1))
        .then(|| format!("a load may take {:?}", facts.load_max))
}

fn store_in_own_memory(facts: &Facts) -> Option<String> {
    let store = facts.store.as_ref()?;
    (facts.memory.is_some() && is_private(facts))
        .then(|| format!("behind the memory tier is a {} store in the same process", store.driver))
}

fn encrypted_memory(facts: &Facts) -> Option<String> {
    let store = facts.store.as_ref()?;
    (is_private(facts) && store.is_encrypted)
        .then(|| format!("the {} store in this process is encrypted", store.driver))
}

fn prefix_empty(facts: &Facts) -> Option<String> {
    (facts.store.is_some() && !is_private(facts) && facts.prefix.as_deref() == Some(""))
        .then(|| "the prefix is empty on a store that others may use".to_owned())
}

fn never_reclaimed(facts: &Facts) -> Option<String> {
    let store = facts.store.as_ref()?;
    (store.is_pruned == Some(false) && store.is_bounded == Some(false) && facts.ttl != Ttl::Forever)
        .then(|| format!("pruning of the {} store is off, and its size is not bounded", store.driver))
}

fn forever_unbounded(facts: &Facts) -> Option<String> {
    let store = facts.store.as_ref()?;
    (store.is_bounded == Some(false) && facts.ttl == Ttl::Forever)
        .then(|| format!("the TTL has no end, and the size of the {} store is not bounded", store.driver))
}

fn suppress_without_memory(facts: &Facts) -> Option<String> {
    (facts.suppress_l2_errors == Some(true) && facts.memory.is_none() && facts.store.is_some())
        .then(|| "errors of the only tier are suppressed".to_owned())
}

fn volatile_path(facts: &Facts) -> Option<String> {
    let path = facts.store.as_ref()?.path.as_ref()?;
    let folder = VOLATILE.iter().find(|folder| path.starts_with(Path::new(folder)))?;
    Some(format!("the store is in {folder}"))
}

fn compress_never(facts: &Facts) -> Option<String> {
    let (threshold, value) = (facts.store.as_ref()?.compress_from_bytes?, facts.value_bytes_max?);
    (threshold > value)
        .then(|| format!("values are compressed from {threshold} bytes on and may have {value}"))
}

fn store_options_without_store(facts: &Facts) -> Option<String> {
    if facts.store.is_some() {
        return None;
    }
    let chosen = [
        ("deadline", facts.deadline.is_some()),
        ("prefix", facts.prefix.is_some()),
        ("suppress_l2_errors", facts.suppress_l2_errors.is_some()),
    ];
    let names: Vec<&str> = chosen.into_iter().filter_map(|(name, is)| is.then_some(name)).collect();
    (!names.is_empty()).then(|| format!("the stack has no store, and options for one: {}", names.join(", ")))
}

fn group_shadowed(facts: &Facts) -> Option<String> {
    facts.groups.iter().enumerate().find_map(|(index, (name, pattern))| {
        let mut earlier = facts.groups.iter().take(index);
        let (taker, _) = earlier.find(|(_, earlier)| takes_all_of(earlier, pattern))?;
        Some(format!("the key group {name:?} stands behind {taker:?}"))
    })
}

/// Whether every key that `later` matches is one that `earlier` takes before it. It may miss such a pair, and
/// is never wrong about one that it names.
fn takes_all_of(earlier: &str, later: &str) -> bool {
    match earlier.strip_suffix('*') {
        Some(prefix) if !prefix.contains('*') => later.starts_with(prefix),
        _ => earlier == later,
    }
}

#[cfg(test)]
pub(super) mod tests {
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
}
