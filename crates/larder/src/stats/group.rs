//! Groups of keys: a few patterns, the first that matches wins, and what happened to the keys of each.
//!
//! The number of groups is bounded, so that labels stay few whatever keys there are. Matching allocates
//! nothing: a table says for each first byte which patterns are worth a look.

use std::sync::atomic::{AtomicU64, Ordering};

use super::histogram::{self, Cells, Latency};
use super::{STRIPES, bump, stripe_index};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Tier};

/// How many groups a stack may have, besides the one of all other keys.
pub const GROUPS_MAX: usize = 32;
/// The longest name and the longest pattern of a group, each in bytes.
pub const PATTERN_BYTES_MAX: usize = 256;
/// What the group of the keys that no pattern matches is called.
pub const OTHER: &str = "other";

/// What happened to the keys of one group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
#[non_exhaustive]
pub struct GroupSnapshot {
    /// Its name; [`OTHER`] for the keys that no pattern matches.
    pub name: String,
    /// Lookups answered from memory, stale ones included.
    pub hits_l1: u64,
    /// Lookups answered from the store, stale ones included.
    pub hits_l2: u64,
    /// Those of the hits that were stale.
    pub hits_stale: u64,
    /// Lookups that found nothing.
    pub misses: u64,
    /// Loaders that returned a value.
    pub loads: u64,
    /// Loaders that failed or panicked.
    pub loads_failed: u64,
    /// How long the loaders took that returned a value.
    pub load: Latency,
    /// How long reads of the store took; one that read keys of several groups counts in each.
    pub store_read: Latency,
}

/// A name and what keys it stands for.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    name: String,
    pattern: String,
    /// Up to the first `*`; all of it, if the only `*` is at the end.
    prefix: String,
    /// Whether there is more to match than the prefix.
    is_glob: bool,
}

impl Pattern {
    /// # Errors
    /// [`ErrorKind::Config`] if either is empty, too long or has control characters, or the name is [`OTHER`].
    pub(crate) fn new(name: &str, pattern: &str) -> Result<Self> {
        for (what, text) in [("name", name), ("pattern", pattern)] {
            if text.is_empty() || text.len() > PATTERN_BYTES_MAX || text.chars().any(char::is_control) {
                let message = format!(
                    "the {what} of a key group has to be 1 to {PATTERN_BYTES_MAX} bytes without control characters"
                );
                return Err(Error::new(ErrorKind::Config, message));
            }
        }
        if name == OTHER {
            let message = format!("the key group {OTHER:?} is that of the keys that no pattern matches");
            return Err(Error::new(ErrorKind::Config, message));
        }
        let (prefix, rest) = pattern.split_once('*').map_or((pattern, None), |(a, b)| (a, Some(b)));
        // Without a star it is the key itself, which is a glob that takes nothing more.
        let is_glob = rest != Some("");
        Ok(Self { name: name.into(), pattern: pattern.into(), prefix: prefix.into(), is_glob })
    }

    fn matches(&self, subject: Subject<'_>) -> bool {
        subject.starts_with(self.prefix.as_bytes())
            && (!self.is_glob || glob(self.pattern.as_bytes(), subject))
    }
}

/// The patterns of a stack, first match first, and what happened to each.
#[derive(Debug)]
pub(crate) struct Groups {
    patterns: Box<[Pattern]>,
    /// By the first byte of a key: a bit for each pattern that it may match.
    candidates: Box<[u32; 256]>,
    /// For each stripe its cells, one group after the other, [`OTHER`] last.
    stripes: Box<[Box<[Counts]>]>,
    latencies: Box<[GroupLatencies]>,
}

/// One group's counters in one stripe, on cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Counts {
    hits_l1: AtomicU64,
    hits_l2: AtomicU64,
    hits_stale: AtomicU64,
    misses: AtomicU64,
    loads: AtomicU64,
    loads_failed: AtomicU64,
}

/// Not striped: what is timed takes long enough to share.
#[derive(Debug, Default)]
struct GroupLatencies {
    load: Cells,
    store_read: Cells,
}

impl Groups {
    /// # Errors
    /// [`ErrorKind::Config`] if there are too many, or two have one name.
    pub(crate) fn new(patterns: Vec<Pattern>) -> Result<Self> {
        if patterns.len() > GROUPS_MAX {
            let message = format!("{} key groups are more than {GROUPS_MAX}", patterns.len());
            return Err(Error::new(ErrorKind::Config, message));
        }
        let mut candidates = Box::new([0_u32; 256]);
        for (index, pattern) in patterns.iter().enumerate() {
            if patterns.iter().take(index).any(|earlier| earlier.name == pattern.name) {
                let message = format!("two key groups have the name {:?}", pattern.name);
                return Err(Error::new(ErrorKind::Config, message));
            }
            let first = pattern.prefix.bytes().next();
            for (byte, mask) in candidates.iter_mut().enumerate() {
                if first.is_none_or(|first| usize::from(first) == byte) {
                    *mask |= 1 << index;
                }
            }
        }
        let groups = patterns.len() + 1;
        let counts = || (0..groups).map(|_| Counts::default()).collect();
        Ok(Self {
            patterns: patterns.into(),
            candidates,
            stripes: (0..STRIPES).map(|_| counts()).collect(),
            latencies: (0..groups).map(|_| GroupLatencies::default()).collect(),
        })
    }

    /// Which group a key is in: the place of its pattern, or behind the last for [`OTHER`].
    fn index(&self, namespace: &str, key: &str) -> usize {
        let subject = Subject::new(namespace, key);
        let first = subject.first();
        let mut candidates = self.candidates.get(usize::from(first)).copied().unwrap_or(0);
        while candidates != 0 {
            let index = candidates.trailing_zeros() as usize;
            if self.patterns.get(index).is_some_and(|pattern| pattern.matches(subject)) {
                return index;
            }
            candidates &= candidates - 1;
        }
        self.patterns.len()
    }

    fn counts(&self, namespace: &str, key: &str) -> Option<&Counts> {
        self.stripes.get(stripe_index())?.get(self.index(namespace, key))
    }

    pub(crate) fn count_fresh_l1_hit(&self, namespace: &str, key: &str) {
        if let Some(counts) = self.counts(namespace, key) {
            bump(&counts.hits_l1);
        }
    }

    pub(crate) fn count(&self, event: &Event<'_>) {
        match *event {
            Event::Hit { namespace, key, tier, stale } => {
                let Some(counts) = self.counts(namespace, key) else { return };
                bump(match tier {
                    Tier::L1 => &counts.hits_l1,
                    Tier::L2 => &counts.hits_l2,
                });
                if stale {
                    bump(&counts.hits_stale);
                }
            }
            Event::Miss { namespace, key } => {
                self.counts(namespace, key).into_iter().for_each(|counts| bump(&counts.misses));
            }
            Event::Loaded { namespace, key, took } => {
                let index = self.index(namespace, key);
                let counts = self.stripes.get(stripe_index()).and_then(|stripe| stripe.get(index));
                counts.into_iter().for_each(|counts| bump(&counts.loads));
                self.latencies.get(index).into_iter().for_each(|group| group.load.record(took));
            }
            Event::LoadFailed { namespace, key, .. } => {
                self.counts(namespace, key).into_iter().for_each(|counts| bump(&counts.loads_failed));
            }
            _ => {}
        }
    }

    /// A read of the store for these keys took so long.
    pub(crate) fn time_store_read(&self, namespace: &str, keys: &[&str], took: std::time::Duration) {
        // One bit for each group: a batch counts once in each.
        let mut touched = 0_u64;
        for key in keys {
            touched |= 1 << self.index(namespace, key);
        }
        for (index, group) in self.latencies.iter().enumerate() {
            if touched & (1 << index) != 0 {
                group.store_read.record(took);
            }
        }
    }

    pub(crate) fn snapshot(&self) -> Vec<GroupSnapshot> {
        let names = self.patterns.iter().map(|pattern| pattern.name.as_str()).chain([OTHER]);
        let of = |index: usize, field: fn(&Counts) -> &AtomicU64| -> u64 {
            let cells = self.stripes.iter().filter_map(|stripe| stripe.get(index));
            cells.map(|counts| field(counts).load(Ordering::Relaxed)).sum()
        };
        names
            .zip(&self.latencies)
            .enumerate()
            .map(|(index, (name, latencies))| GroupSnapshot {
                name: name.to_owned(),
                hits_l1: of(index, |counts| &counts.hits_l1),
                hits_l2: of(index, |counts| &counts.hits_l2),
                hits_stale: of(index, |counts| &counts.hits_stale),
                misses: of(index, |counts| &counts.misses),
                loads: of(index, |counts| &counts.loads),
                loads_failed: of(index, |counts| &counts.loads_failed),
                load: histogram::sum([&latencies.load].into_iter()),
                store_read: histogram::sum([&latencies.store_read].into_iter()),
            })
            .collect()
    }
}

/// What a pattern is compared with: the key, behind `namespace:` if it is in one. In two pieces, because putting
/// them together would allocate.
#[derive(Clone, Copy)]
struct Subject<'a> {
    namespace: &'a [u8],
    key: &'a [u8],
}

impl<'a> Subject<'a> {
    fn new(namespace: &'a str, key: &'a str) -> Self {
        Self { namespace: namespace.as_bytes(), key: key.as_bytes() }
    }

    /// Zero, which no pattern begins with, if there is none.
    fn first(self) -> u8 {
        self.at(0).unwrap_or(0)
    }

    fn at(self, index: usize) -> Option<u8> {
        match (self.namespace.len(), index) {
            (0, index) => self.key.get(index).copied(),
            (length, index) if index < length => self.namespace.get(index).copied(),
            (length, index) if index == length => Some(b':'),
            (length, index) => self.key.get(index - length - 1).copied(),
        }
    }

    fn starts_with(self, prefix: &[u8]) -> bool {
        if self.namespace.is_empty() {
            return self.key.starts_with(prefix);
        }
        (0..prefix.len()).all(|index| self.at(index) == prefix.get(index).copied())
    }
}

/// Whether a pattern matches as a whole; `*` stands for any bytes, none included. No recursion: a star is tried
/// again from the last one only, so the work is at most the product of the lengths.
fn glob(pattern: &[u8], subject: Subject<'_>) -> bool {
    let (mut at, mut in_pattern) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = subject.at(at) {
        match pattern.get(in_pattern) {
            Some(b'*') => {
                star = Some((in_pattern, at));
                in_pattern += 1;
            }
            Some(expected) if *expected == byte => {
                at += 1;
                in_pattern += 1;
            }
            _ => {
                let Some((place, taken)) = star else { return false };
                star = Some((place, taken + 1));
                (in_pattern, at) = (place + 1, taken + 1);
            }
        }
    }
    pattern.get(in_pattern..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::OTHER;

    fn groups(patterns: &[(&str, &str)]) -> Groups {
        let patterns = patterns.iter().map(|(name, pattern)| Pattern::new(name, pattern).unwrap());
        Groups::new(patterns.collect()).unwrap()
    }

    fn group_of(groups: &Groups, namespace: &str, key: &str) -> String {
        groups.snapshot()[groups.index(namespace, key)].name.clone()
    }

    #[test]
    fn the_first_pattern_that_matches_wins_and_the_rest_is_other() {
        let groups = groups(&[
            ("one user", "user:42"),
            ("avatars", "user:*:avatar"),
            ("users", "user:*"),
            ("pictures", "*.png"),
        ]);
        for (key, expected) in [
            ("user:42", "one user"),
            ("user:421", "users"),
            ("user:7:avatar", "avatars"),
            ("user:", "users"),
            ("user", OTHER),
            ("a.png", "pictures"),
            (".png", "pictures"),
            ("a.png.gz", OTHER),
            ("user:a.png", "users"),
            ("ü.png", "pictures"),
        ] {
            assert_eq!(group_of(&groups, "", key), expected, "{key}");
        }
    }

    #[test]
    fn a_key_in_a_namespace_is_matched_behind_its_path() {
        let groups = groups(&[("posts", "users/posts:*"), ("users", "users:*"), ("drafts", "*:draft-*")]);
        for (namespace, key, expected) in [
            ("users", "1", "users"),
            ("users/posts", "1", "posts"),
            ("pages", "draft-3", "drafts"),
            ("", "users:1", "users"),
            ("", "1", OTHER),
            ("user", "s:1", OTHER),
        ] {
            assert_eq!(group_of(&groups, namespace, key), expected, "{namespace} {key}");
        }
    }

    #[test]
    fn stars_take_as_little_and_as_much_as_they_have_to() {
        let matches =
            |pattern: &str, key: &str| Pattern::new("p", pattern).unwrap().matches(Subject::new("", key));
        for (pattern, key) in
            [("*", "x"), ("a*b*c", "abc"), ("a*b*c", "aXbYbZc"), ("**a", "a"), ("*a*a", "aaa")]
        {
            assert!(matches(pattern, key), "{pattern} {key}");
        }
        for (pattern, key) in [("a*b*c", "acb"), ("a*a", "a"), ("ab", "abc"), ("*ab", "abc"), ("b*", "ab")] {
            assert!(!matches(pattern, key), "{pattern} {key}");
        }
        let hostile = format!("{}b", "*a".repeat(100));
        assert!(!matches(&hostile, &"a".repeat(1_000)), "and it ends");
    }

    #[test]
    fn too_many_groups_are_refused_and_so_are_names_that_mean_nothing() {
        let many = |count: usize| (0..count).map(|n| Pattern::new(&format!("g{n}"), "a*").unwrap()).collect();
        assert!(Groups::new(many(GROUPS_MAX)).is_ok());
        assert_eq!(Groups::new(many(GROUPS_MAX + 1)).unwrap_err().kind(), ErrorKind::Config);
        let twice = vec![Pattern::new("a", "a*").unwrap(), Pattern::new("a", "b*").unwrap()];
        assert!(Groups::new(twice).unwrap_err().message().contains("two key groups"));
        for (name, pattern) in [("", "a"), ("a", ""), (OTHER, "a"), ("a\n", "a"), ("a", &"x".repeat(257))] {
            assert_eq!(
                Pattern::new(name, pattern).unwrap_err().kind(),
                ErrorKind::Config,
                "{name} {pattern}"
            );
        }
    }

    #[test]
    fn a_batch_counts_once_in_each_group_that_it_touched() {
        let groups = groups(&[("a", "a*"), ("b", "b*")]);
        groups.time_store_read("", &["a1", "a2", "x"], std::time::Duration::from_millis(3));
        let counts: Vec<u64> = groups.snapshot().iter().map(|group| group.store_read.count()).collect();
        assert_eq!(counts, [1, 0, 1]);
    }
}
