//! What is wrong with a configuration that is not wrong enough to be refused: options that contradict each
//! other, or that cannot have the effect they were written for.
//!
//! [`Facts`] say what a stack is made of; each check is a pure function of them. Whoever builds a stack fills
//! them in: the builder, and the configuration, which knows more of the store. Knows nothing of either.
//!
//! `docs/advisor.md` lists every check with its reason and its cure.

mod checks;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::time::Ttl;
use checks::{CHECKS, Check, SHARED_ENTRIES};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Severity {
    /// It works, and may not be what was meant.
    Note,
    /// Something that was asked for has no effect, or has one that nobody asks for.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Note => "note",
            Self::Warning => "warning",
        })
    }
}

/// One thing that a stack's options should rather not say.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Advice {
    /// Which check found it: the same word in every version.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What was found, with its numbers; never a secret.
    pub what: String,
    /// Why that is no good.
    pub why: &'static str,
    /// What to do about it.
    pub cure: &'static str,
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]: {}: {}; {}", self.severity, self.id, self.what, self.why, self.cure)
    }
}

/// What a stack is made of, as far as is known. An option that is `None` was not chosen, or is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Facts {
    /// The memory tier.
    pub memory: Option<MemoryFacts>,
    /// The store.
    pub store: Option<StoreFacts>,
    /// How long entries are fresh.
    pub ttl: Ttl,
    /// How long after that they may still be served.
    pub grace: Duration,
    /// How long a load is waited for where there is something stale.
    pub soft_timeout: Option<Duration>,
    /// How long a load is waited for at all.
    pub hard_timeout: Option<Duration>,
    /// How much of the TTL is left to chance.
    pub jitter: Duration,
    /// How long memory serves an entry before it asks the store again.
    pub memory_ttl: Option<Duration>,
    /// How long nobody may ask for a sliding entry.
    pub sliding: Option<Duration>,
    /// How long a process that has died while it loaded keeps those waiting that share its store.
    pub across_processes: Option<Duration>,
    /// How long a load may take before another one is started beside it.
    pub replace_after: Option<Duration>,
    /// What was chosen about failures of the store.
    pub suppress_l2_errors: Option<bool>,
    /// What was chosen as the limit of a call of the store.
    pub deadline: Option<Duration>,
    /// The limit of a call of the store, chosen or not.
    pub deadline_effective: Duration,
    /// How long a load may take and be kept.
    pub load_max: Duration,
    /// What was chosen as the largest encoded value, in bytes.
    pub value_bytes_max: Option<u64>,
    /// What was chosen for keys in the store to begin with.
    pub prefix: Option<String>,
    /// Groups of keys: names and patterns.
    pub groups: Vec<(String, String)>,
}

impl Facts {
    /// A stack of neither tier, whose entries live this long, with these limits.
    pub fn new(ttl: Ttl, deadline: Duration, load_max: Duration) -> Self {
        Self {
            memory: None,
            store: None,
            ttl,
            grace: Duration::ZERO,
            soft_timeout: None,
            hard_timeout: None,
            jitter: Duration::ZERO,
            memory_ttl: None,
            sliding: None,
            across_processes: None,
            replace_after: None,
            suppress_l2_errors: None,
            deadline: None,
            deadline_effective: deadline,
            load_max,
            value_bytes_max: None,
            prefix: None,
            groups: Vec::new(),
        }
    }
}

/// Limits of a memory tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct MemoryFacts {
    /// The most entries.
    pub items_max: u64,
    /// The most bytes of all entries together.
    pub bytes_max: Option<u64>,
    /// The most bytes of one entry.
    pub entry_bytes_max: Option<u64>,
}

/// What is known of a store. `None` is not known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct StoreFacts {
    /// What its driver is called.
    pub driver: String,
    /// Whether other processes may see it.
    pub shared: Option<bool>,
    /// Which store it is: equal for two stacks only if they are on the same.
    pub place: Option<String>,
    /// Where its files are.
    pub path: Option<PathBuf>,
    /// The largest value it takes, in bytes.
    pub value_bytes_max: Option<u64>,
    /// Whether its size has a bound.
    pub is_bounded: Option<bool>,
    /// Whether it gives back the space of what has expired by itself.
    pub is_pruned: Option<bool>,
    /// Whether what goes to it is encrypted.
    pub is_encrypted: bool,
    /// If what goes to it is compressed: from how many bytes on.
    pub compress_from_bytes: Option<u64>,
}

/// What is to be said about one stack, in a fixed order.
///
/// ```
/// use larder::advisor::{Facts, MemoryFacts, advise};
/// use larder::time::{Ttl, hours, seconds};
///
/// let mut facts = Facts::new(Ttl::Forever, seconds(2), hours(1));
/// facts.memory = Some(MemoryFacts::default());
/// facts.grace = hours(6);
/// let advice = advise(&facts);
/// assert_eq!(advice[0].id, "grace-never-begins");
/// ```
pub fn advise(facts: &Facts) -> Vec<Advice> {
    CHECKS.iter().filter_map(|check| (check.look)(facts).map(|what| advice(check, what))).collect()
}

/// What is to be said about stacks that are in one program, besides what is said about each.
pub fn advise_together(stacks: &[(&str, &Facts)]) -> Vec<Advice> {
    let place = |name: &str, facts: &Facts| {
        let store = facts.store.as_ref()?;
        Some((store.place.clone()?, facts.prefix.clone().unwrap_or_else(|| name.to_owned())))
    };
    let mut found = Vec::new();
    for (index, (name, facts)) in stacks.iter().enumerate() {
        let Some(here) = place(name, facts) else { continue };
        let earlier = stacks.iter().take(index);
        for (other, _) in earlier.filter(|(other, facts)| place(other, facts).as_ref() == Some(&here)) {
            let what = format!("the stacks {other:?} and {name:?} share a store and the prefix {:?}", here.1);
            found.push(advice(&SHARED_ENTRIES, what));
        }
    }
    found
}

/// Every check: its id, its severity, why it matters and what cures it.
pub fn checks() -> impl Iterator<Item = (&'static str, Severity, &'static str, &'static str)> {
    CHECKS.iter().chain([&SHARED_ENTRIES]).map(|check| (check.id, check.severity, check.why, check.cure))
}

fn advice(check: &Check, what: String) -> Advice {
    Advice { id: check.id, severity: check.severity, what, why: check.why, cure: check.cure }
}

#[cfg(test)]
mod tests {
    use super::checks::tests::sound;
    use super::*;
    use crate::time::seconds;

    #[test]
    fn stacks_that_share_a_store_are_told_apart_by_their_prefix() {
        let (one, mut two) = (sound(), sound());
        let advice = advise_together(&[("a", &one), ("b", &two)]);
        assert_eq!(advice.iter().map(|advice| advice.id).collect::<Vec<_>>(), ["shared-entries"]);
        assert!(advice[0].what.contains("\"a\" and \"b\""), "{}", advice[0]);
        two.prefix = None;
        assert_eq!(advise_together(&[("a", &one), ("b", &two)]), []);
        assert_eq!(advise_together(&[("a", &one), ("users", &two)]).len(), 1, "the name is the prefix");
        two.store.as_mut().unwrap().place = None;
        assert_eq!(advise_together(&[("a", &one), ("users", &two)]), []);
    }

    #[test]
    fn what_is_said_is_a_sentence() {
        let mut facts = sound();
        facts.grace = seconds(1);
        assert_eq!(
            advise(&facts)[0].to_string(),
            "warning [grace-too-short]: grace is 1s after a TTL of 300s: grace begins when the TTL is over and is \
             there for outages, which last longer than a hundredth of a TTL; make grace as long as the longest \
             outage of the source that callers should not notice"
        );
    }
}
