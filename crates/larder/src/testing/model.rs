//! The reference cache: what a stack does, said as simply as possible. One thread, no tiers, no stamps.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::time::{Timestamp, Ttl};

/// A cache of numbers with every operation of [`Cache`](crate::Cache), as its specification. Names are
/// `(namespace path, key)`; a namespace path is a list of names.
///
/// ```
/// use larder::testing::Model;
/// use larder::time::{Timestamp, seconds};
/// let mut model = Model::default();
/// let now = Timestamp::from_millis(0);
/// model.set(&["users"], "a", 1, seconds(5).into(), seconds(0), now);
/// assert_eq!(model.get(&["users"], "a", now), Some(1));
/// assert_eq!(model.get(&["users"], "a", now + seconds(5)), None);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Model {
    entries: BTreeMap<Name, Held>,
}

type Name = (Vec<String>, String);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    value: i64,
    fresh_until: Timestamp,
    stale_until: Timestamp,
    tags: Vec<String>,
    /// Whether it was invalidated softly.
    softened: bool,
}

impl Held {
    fn is_fresh(&self, now: Timestamp) -> bool {
        !self.softened && (now < self.fresh_until || self.fresh_until == Timestamp::FOREVER)
    }

    fn is_alive(&self, now: Timestamp) -> bool {
        match self.softened {
            true => self.fresh_until < self.stale_until && now < self.stale_until,
            false => self.is_fresh(now) || now < self.stale_until || self.stale_until == Timestamp::FOREVER,
        }
    }
}

fn name(namespace: &[&str], key: &str) -> Name {
    (namespace.iter().map(|part| (*part).to_owned()).collect(), key.to_owned())
}

impl Model {
    fn living(&self, namespace: &[&str], key: &str, now: Timestamp) -> Option<Held> {
        self.entries.get(&name(namespace, key)).cloned().filter(|held| held.is_alive(now))
    }

    fn fresh(&self, namespace: &[&str], key: &str, now: Timestamp) -> Option<Held> {
        self.living(namespace, key, now).filter(|held| held.is_fresh(now))
    }

    /// The fresh value.
    pub fn get(&self, namespace: &[&str], key: &str, now: Timestamp) -> Option<i64> {
        self.fresh(namespace, key, now).map(|held| held.value)
    }

    /// The value, and whether it is fresh.
    pub fn entry(&self, namespace: &[&str], key: &str, now: Timestamp) -> Option<(i64, bool)> {
        self.living(namespace, key, now).map(|held| (held.value, held.is_fresh(now)))
    }

    /// Stores a value; with a TTL of zero it removes the key.
    pub fn set(
        &mut self,
        namespace: &[&str],
        key: &str,
        value: i64,
        ttl: Ttl,
        grace: Duration,
        now: Timestamp,
    ) {
        if ttl.is_zero() {
            self.entries.remove(&name(namespace, key));
            return;
        }
        let fresh_until = ttl.ends_at(now);
        let stale_until = fresh_until + grace;
        let held = Held { value, fresh_until, stale_until, tags: Vec::new(), softened: false };
        self.entries.insert(name(namespace, key), held);
    }

    /// Says what the entry of a key carries; a missing one carries nothing.
    pub fn tag(&mut self, namespace: &[&str], key: &str, tags: &[&str]) {
        if let Some(held) = self.entries.get_mut(&name(namespace, key)) {
            held.tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        }
    }

    /// Invalidates what carries a tag in a namespace and in those inside it.
    pub fn invalidate(&mut self, namespace: &[&str], tag: &str) {
        let (path, _) = name(namespace, "");
        self.entries.retain(|(at, _), held| !(at.starts_with(&path) && held.tags.iter().any(|t| t == tag)));
    }

    /// As [`Model::invalidate`], or for every entry if there is no tag, leaving what has a grace stale.
    pub fn soften(&mut self, namespace: &[&str], tag: Option<&str>) {
        let (path, _) = name(namespace, "");
        for ((at, _), held) in &mut self.entries {
            let is_meant = tag.is_none_or(|tag| held.tags.iter().any(|t| t == tag));
            if at.starts_with(&path) && is_meant {
                held.softened = true;
            }
        }
    }

    /// Stores a value if there is no fresh one.
    pub fn add(
        &mut self,
        namespace: &[&str],
        key: &str,
        value: i64,
        ttl: Ttl,
        grace: Duration,
        now: Timestamp,
    ) -> bool {
        let adds = !ttl.is_zero() && self.fresh(namespace, key, now).is_none();
        if adds {
            self.set(namespace, key, value, ttl, grace, now);
        }
        adds
    }

    /// The fresh value, or what the loader returns, which is stored unless its TTL is zero; if it fails, what is
    /// left of a stale value.
    pub fn get_or_set(
        &mut self,
        namespace: &[&str],
        key: &str,
        loaded: Option<i64>,
        ttl: Ttl,
        grace: Duration,
        now: Timestamp,
    ) -> Option<i64> {
        if let Some(held) = self.fresh(namespace, key, now) {
            return Some(held.value);
        }
        match loaded {
            Some(value) if ttl.is_zero() => Some(value),
            Some(value) => {
                self.set(namespace, key, value, ttl, grace, now);
                Some(value)
            }
            None => self.living(namespace, key, now).map(|held| held.value),
        }
    }

    /// Removes a key; true if it had a living entry.
    pub fn delete(&mut self, namespace: &[&str], key: &str, now: Timestamp) -> bool {
        let existed = self.living(namespace, key, now).is_some();
        self.entries.remove(&name(namespace, key));
        existed
    }

    /// Takes the fresh value out. A stale one stays.
    pub fn pull(&mut self, namespace: &[&str], key: &str, now: Timestamp) -> Option<i64> {
        let held = self.fresh(namespace, key, now)?;
        self.entries.remove(&name(namespace, key));
        Some(held.value)
    }

    /// Makes an entry stale; true if there was a living one. `grace` is that of an entry that lasts forever.
    pub fn expire(&mut self, namespace: &[&str], key: &str, grace: Duration, now: Timestamp) -> bool {
        let Some(mut held) = self.living(namespace, key, now) else { return false };
        if now < held.fresh_until || held.fresh_until == Timestamp::FOREVER {
            let kept = match held.stale_until {
                Timestamp::FOREVER => grace,
                stale_until => stale_until.since(held.fresh_until),
            };
            held.stale_until = held.stale_until.min(now + kept);
            held.fresh_until = now;
        }
        self.entries.insert(name(namespace, key), held);
        true
    }

    /// Gives a fresh entry a new TTL; its grace stays. `grace` is that of an entry that lasts forever.
    pub fn touch(
        &mut self,
        namespace: &[&str],
        key: &str,
        ttl: Ttl,
        grace: Duration,
        now: Timestamp,
    ) -> bool {
        let Some(mut held) = self.fresh(namespace, key, now) else {
            return ttl.is_zero() && self.delete(namespace, key, now);
        };
        if ttl.is_zero() {
            return self.delete(namespace, key, now);
        }
        let kept = match held.stale_until {
            Timestamp::FOREVER => grace,
            stale_until => stale_until.since(held.fresh_until),
        };
        held.fresh_until = ttl.ends_at(now);
        held.stale_until = held.fresh_until + kept;
        self.entries.insert(name(namespace, key), held);
        true
    }

    /// Adds to the number of a key; a missing one counts from zero, one that is there keeps its times. `None`
    /// if the sum does not fit.
    pub fn increment(
        &mut self,
        namespace: &[&str],
        key: &str,
        by: i64,
        ttl: Ttl,
        grace: Duration,
        now: Timestamp,
    ) -> Option<i64> {
        match self.fresh(namespace, key, now) {
            Some(mut held) => {
                let sum = held.value.checked_add(by)?;
                held.value = sum;
                self.entries.insert(name(namespace, key), held);
                Some(sum)
            }
            None => {
                self.set(namespace, key, by, ttl, grace, now);
                Some(by)
            }
        }
    }

    /// Removes everything in a namespace and in those inside it.
    pub fn clear(&mut self, namespace: &[&str]) {
        let (path, _) = name(namespace, "");
        self.entries.retain(|(at, _), _| !at.starts_with(&path));
    }

    /// The keys of a namespace that have a living entry, sorted.
    pub fn keys(&self, namespace: &[&str], now: Timestamp) -> Vec<String> {
        let (path, _) = name(namespace, "");
        self.entries
            .iter()
            .filter(|((at, _), held)| *at == path && held.is_alive(now))
            .map(|((_, key), _)| key.clone())
            .collect()
    }
}
