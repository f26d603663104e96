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
        "soft-timeout-without-grace",
        soft_timeout_without_grace,
        "a soft timeout serves what is stale, and without a grace nothing is",
        "give the stack a grace, unless its caches or calls do",
    ),
    warning(
        "soft-timeout-too-long",
        soft_timeout_too_long,
        "what the soft timeout would serve is served at the hard timeout, before it",
        "make the soft timeout shorter than the hard one",
    ),
    warning(
        "replace-after-too-long",
        replace_after_too_long,
        "whoever waits has given up before another load is started",
        "make `replace_after` a fraction of the hard timeout",
    ),
    warning(
        "memory-ttl-without-store",
        memory_ttl_without_store,
        "it says when memory asks the store again, and there are not both",
        "leave `memory_ttl` out, or give the stack a memory tier and a store",
    ),
    warning(
        "memory-ttl-above-ttl",
        memory_ttl_above_ttl,
        "the TTL ends first, so memory never asks the store before it has to",
        "make `memory_ttl` a fraction of the TTL: it is how long another process's change may go unnoticed",
    ),
    warning(
        "across-processes-alone",
        across_processes_alone,
        "there is no store in which processes could see whose turn it is to load",
        "leave `across_processes` out, or give the stack a store that processes share",
    ),
    warning(
        "sliding-above-ttl",
        sliding_above_ttl,
        "the TTL, which is counted from the load, ends first, so no read lengthens anything",
        "make the TTL as long as an entry may live however often it is read, or `forever`",
    ),
    warning(
        "jitter-while-sliding",
        jitter_while_sliding,
        "the end of a sliding entry depends on who reads it, and no chance is added",
        "leave jitter out",
    ),
    note(
        "jitter-above-ttl",
        jitter_above_ttl,
        "an entry may end as soon as it is there",
        "make jitter a tenth of the TTL or so",
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
        "whoever else uses the store with an empty prefix has the same keys, and clears them",
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

fn soft_timeout_without_grace(facts: &Facts) -> Option<String> {
    let soft = facts.soft_timeout.filter(|_| facts.grace.is_zero())?;
    Some(format!("soft_timeout is {soft:?}, and there is no grace"))
}

fn soft_timeout_too_long(facts: &Facts) -> Option<String> {
    let (soft, hard) = (facts.soft_timeout?, facts.hard_timeout?);
    (soft >= hard).then(|| format!("soft_timeout is {soft:?}, and hard_timeout is {hard:?}"))
}

fn replace_after_too_long(facts: &Facts) -> Option<String> {
    let (replace, hard) = (facts.replace_after?, facts.hard_timeout?);
    (replace >= hard).then(|| format!("replace_after is {replace:?}, and hard_timeout is {hard:?}"))
}

fn across_processes_alone(facts: &Facts) -> Option<String> {
    let lease = facts.across_processes?;
    let store = facts.store.as_ref().filter(|store| store.shared != Some(false));
    store.is_none().then(|| format!("across_processes is {lease:?}, and no other process sees this cache"))
}

fn memory_ttl_without_store(facts: &Facts) -> Option<String> {
    let ttl = facts.memory_ttl.filter(|_| facts.memory.is_none() || facts.store.is_none())?;
    let missing = if facts.memory.is_none() { "memory tier" } else { "store" };
    Some(format!("memory_ttl is {ttl:?}, and there is no {missing}"))
}

fn memory_ttl_above_ttl(facts: &Facts) -> Option<String> {
    let (memory, Ttl::For(ttl)) = (facts.memory_ttl?, facts.ttl) else { return None };
    (memory >= ttl).then(|| format!("memory_ttl is {memory:?}, and the TTL is {ttl:?}"))
}

fn sliding_above_ttl(facts: &Facts) -> Option<String> {
    let (idle, Ttl::For(ttl)) = (facts.sliding?, facts.ttl) else { return None };
    (idle >= ttl && !ttl.is_zero()).then(|| format!("entries slide by {idle:?}, and the TTL is {ttl:?}"))
}

fn jitter_while_sliding(facts: &Facts) -> Option<String> {
    facts.sliding.filter(|_| !facts.jitter.is_zero())?;
    Some(format!("jitter is {:?}, and entries slide", facts.jitter))
}

fn jitter_above_ttl(facts: &Facts) -> Option<String> {
    let Ttl::For(ttl) = facts.ttl else { return None };
    let is_more = !ttl.is_zero() && facts.sliding.is_none() && facts.jitter >= ttl;
    is_more.then(|| format!("jitter is {:?}, and the TTL is {ttl:?}", facts.jitter))
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
pub(super) mod tests;
