//! L1: the memory tier, and [`MemoryCache`], a typed cache of its own on the same engine.
//!
//! Concrete and synchronous: a hit costs one hash, a lock that readers share, and two reference counts. It
//! knows nothing of freshness (whoever asks decides), of stores, or of events; it reports what it evicted.

mod cache;
mod engine;
mod flight;
mod shard;

use std::fmt;
use std::hash::Hash;

use crate::entry::{AnyValue, Entry, Meta};
use crate::event::EvictionCause;
use crate::time::{Stamp, Timestamp};

pub use cache::{MemoryCache, MemoryCacheBuilder};
pub(crate) use engine::{Engine, Limits, Lookup, Put};

/// What the memory tier may hold.
///
/// The size of an entry is that of its key, its value, its tags and validators, and a constant of 256 bytes
/// for what keeping it costs. No limit is ever exceeded; since an entry counts with the larger of its shares
/// of items and bytes, a mix of very small and very large ones may leave up to half of either unused. From 512
/// entries on it is split into parts by the hash of the key, which do not fill evenly: the first evictions come
/// a few percent before the limit is reached.
///
/// ```
/// use larder::memory::MemoryOptions;
/// let mut options = MemoryOptions::new(10_000);
/// options.max_bytes = Some(64 << 20);
/// options.max_entry_bytes = Some(1 << 20);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MemoryOptions {
    /// The most entries; 100 000 unless told.
    pub max_items: u64,
    /// The most bytes of all entries together; no limit unless told.
    pub max_bytes: Option<u64>,
    /// The most bytes of one entry, inclusive. Unless told, entries up to 4 MiB (or `max_bytes` if that is
    /// less) are always taken in, and larger ones only if they fit one shard.
    pub max_entry_bytes: Option<u64>,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        Self::new(100_000)
    }
}

impl MemoryOptions {
    /// So many entries at most, of any size.
    pub fn new(max_items: u64) -> Self {
        Self { max_items, max_bytes: None, max_entry_bytes: None }
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits { items: self.max_items, bytes: self.max_bytes, entry_bytes: self.max_entry_bytes }
    }
}

/// The memory tier of a stack: entries by namespace and key.
pub(crate) struct Memory {
    engine: Engine<Name, Held>,
}

/// Something that left without being asked to. Its entry lives until this is dropped, which may run code of
/// a user and so has to happen when no lock is held.
pub(crate) struct Evicted {
    pub(crate) namespace: u32,
    pub(crate) key: Box<str>,
    pub(crate) cause: EvictionCause,
    _entry: Entry,
}

/// What may be served of a key.
pub(crate) enum Serving {
    /// This.
    Value(AnyValue),
    /// Nothing of what is there.
    Unfit,
    /// Nothing is there.
    Nothing,
}

/// What became of a later end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prolonged {
    /// It has it.
    Done,
    /// It ends no earlier already.
    Already,
    /// The entry is not there, or is another one.
    Gone,
}

/// What became of an insert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inserted {
    /// It is there.
    Stored,
    /// An entry with the same or a newer stamp is there and stays.
    Older,
    /// It is larger than a limit. What was there under its key is gone too.
    TooLarge,
}

impl Memory {
    pub(crate) fn new(options: &MemoryOptions) -> Self {
        Self { engine: Engine::new(options.limits()) }
    }

    /// The entry of a key, whatever its freshness. One hash, no allocation.
    #[inline]
    pub(crate) fn get(&self, namespace: u32, key: &str) -> Option<Entry> {
        self.engine.get(&NameRef { namespace, key }).map(|held| held.entry)
    }

    /// What may be served of a key: its value alone, if `may_serve` agrees to what is known of it. `may_serve` is also given
    /// the time from which on the store is to be asked first; it runs under a lock that readers share.
    #[inline]
    pub(crate) fn serve(
        &self,
        namespace: u32,
        key: &str,
        may_serve: impl FnOnce(&Meta, Timestamp) -> bool,
    ) -> Serving {
        let served = self.engine.with(&NameRef { namespace, key }, |held| {
            may_serve(&held.entry.meta, held.until).then(|| AnyValue::clone(&held.entry.value))
        });
        match served {
            Some(Some(value)) => Serving::Value(value),
            Some(None) => Serving::Unfit,
            None => Serving::Nothing,
        }
    }

    /// As [`Memory::get`], with the time from which on the store is to be asked before the entry is served.
    #[inline]
    pub(crate) fn get_until(&self, namespace: u32, key: &str) -> Option<(Entry, Timestamp)> {
        self.engine.get(&NameRef { namespace, key }).map(|held| (held.entry, held.until))
    }

    /// Gives an entry a later end, if the one with its stamp is there. Its size stays.
    pub(crate) fn prolong(
        &self,
        namespace: u32,
        key: &str,
        meta: Meta,
        evicted: &mut Vec<Evicted>,
    ) -> Prolonged {
        let held = self.engine.get(&NameRef { namespace, key });
        let Some(held) = held.filter(|held| held.entry.meta.stamp == meta.stamp) else {
            return Prolonged::Gone;
        };
        if held.entry.meta.fresh_until >= meta.fresh_until {
            return Prolonged::Already;
        }
        let stamp = meta.stamp;
        let Held { entry: Entry { value, .. }, until, value_bytes } = held;
        let held = Held { entry: Entry { value, meta }, until, value_bytes };
        // What it replaces has the same value, so nothing of a user's is dropped.
        match self.put(namespace, key, held, evicted, |there| there == Some(stamp)) {
            (Inserted::Stored, _) => Prolonged::Done,
            _ => Prolonged::Gone,
        }
    }

    /// Stores an entry whose value has `value_bytes`, unless one with the same or a newer stamp is there. It is served
    /// without asking the store until `until`; so is one with the same stamp, and it ends with the later one of them.
    /// What had to go is added to `evicted`; so is the entry itself if it is too large, so that
    /// [`Inserted::TooLarge`] needs no event of its own.
    ///
    /// What was under the key comes back, because the caller holds a lock that the value's `Drop` may want.
    pub(crate) fn replace(
        &self,
        namespace: u32,
        key: &str,
        (entry, until): (Entry, Timestamp),
        value_bytes: usize,
        evicted: &mut Vec<Evicted>,
    ) -> (Inserted, Option<Entry>) {
        let stamp = entry.meta.stamp;
        if let Some(mut held) = self.engine.get(&NameRef { namespace, key })
            && held.entry.meta.stamp == stamp
        {
            let ends = |meta: &Meta| (meta.fresh_until, meta.stale_until);
            if held.until < until || ends(&held.entry.meta) < ends(&entry.meta) {
                held.until = held.until.max(until);
                if ends(&held.entry.meta) < ends(&entry.meta) {
                    held.entry.meta = entry.meta;
                }
                // What it replaces has the same value, so nothing of a user's is dropped.
                drop(self.put(namespace, key, held, evicted, |there| there == Some(stamp)));
            }
            return (Inserted::Older, None);
        }
        let held = Held { entry, until, value_bytes };
        self.put(namespace, key, held, evicted, |there| there < Some(stamp))
    }

    /// Puts something in its place if the stamp of what is there, `None` if nothing is, allows it.
    fn put(
        &self,
        namespace: u32,
        key: &str,
        held: Held,
        evicted: &mut Vec<Evicted>,
        allow: impl FnOnce(Option<Stamp>) -> bool,
    ) -> (Inserted, Option<Entry>) {
        let bytes = bytes_of(key, held.value_bytes, &held.entry.meta);
        let mut gone = Vec::new();
        let name = Name { namespace, key: key.into() };
        let put = self.engine.insert_if(name, held, bytes, &mut gone, |current| {
            allow(current.map(|current| current.entry.meta.stamp))
        });
        let leave = |name: Name, held: Held, cause| Evicted {
            namespace: name.namespace,
            key: name.key,
            cause,
            _entry: held.entry,
        };
        evicted.extend(gone.into_iter().map(|(name, held)| leave(name, held, EvictionCause::Capacity)));
        match put {
            Put::Stored { replaced } => (Inserted::Stored, replaced.map(|held| held.entry)),
            Put::Refused => (Inserted::Older, None),
            Put::TooLarge { key, value, previous } => {
                evicted.push(leave(key, value, EvictionCause::TooLarge));
                (Inserted::TooLarge, previous.map(|held| held.entry))
            }
        }
    }

    /// Removes a key; what was there comes back.
    pub(crate) fn remove(&self, namespace: u32, key: &str) -> Option<Entry> {
        self.engine.remove_if(&NameRef { namespace, key }, |_| true).map(|(_, held)| held.entry)
    }

    /// Removes what `keep` refuses, and returns it. `keep` runs under a lock, and twice for what goes.
    pub(crate) fn retain(
        &self,
        mut keep: impl FnMut(u32, &str, &Entry) -> bool,
    ) -> Vec<(u32, Box<str>, Entry)> {
        let removed = self.engine.retain(|name, held| keep(name.namespace, &name.key, &held.entry));
        removed.into_iter().map(|(name, held)| (name.namespace, name.key, held.entry)).collect()
    }

    /// The keys of a namespace as they are now, of whatever freshness.
    pub(crate) fn keys(&self, namespace: u32) -> Vec<(Box<str>, Meta)> {
        let mut keys = Vec::new();
        self.engine.for_each(|name, held| {
            if name.namespace == namespace {
                keys.push((name.key.clone(), held.entry.meta.clone()));
            }
        });
        keys
    }

    /// How many entries there are, of whatever freshness.
    pub(crate) fn len(&self) -> u64 {
        self.engine.len()
    }

    /// What all entries weigh together, in bytes, overhead included.
    pub(crate) fn bytes(&self) -> u64 {
        self.engine.bytes()
    }

    /// Whether the sums are the sums of what is there, and within the limits.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn check_weights(&self) -> Result<(), String> {
        self.engine.check(|name, held| Some(bytes_of(&name.key, held.value_bytes, &held.entry.meta)))
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("limits", &self.engine.limits()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Evicted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Evicted").field("namespace", &self.namespace).field("cause", &self.cause).finish()
    }
}

/// Everything that an entry brings, in bytes, without the engine's overhead.
fn bytes_of(key: &str, value_bytes: usize, meta: &Meta) -> u64 {
    let extras = meta.extras.as_deref().map_or(0, |extras| {
        let tags: usize = extras.tags.iter().map(|tag| tag.as_str().len() + size_of_val(tag)).sum();
        let validators = [&extras.etag, &extras.last_modified];
        tags + validators.into_iter().flatten().map(|text| text.len()).sum::<usize>()
    });
    (key.len() as u64).saturating_add(value_bytes as u64).saturating_add(extras as u64)
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Name {
    namespace: u32,
    key: Box<str>,
}

/// Hashes as [`Name`] does, field by field.
#[derive(Hash)]
struct NameRef<'k> {
    namespace: u32,
    key: &'k str,
}

impl Lookup<Name> for NameRef<'_> {
    fn names(&self, name: &Name) -> bool {
        self.namespace == name.namespace && *self.key == *name.key
    }
}

#[derive(Clone)]
struct Held {
    entry: Entry,
    until: Timestamp,
    /// Only so that the sums can be checked.
    #[cfg_attr(not(any(test, feature = "testing")), allow(dead_code, reason = "read by check_weights"))]
    value_bytes: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use super::engine::ENTRY_OVERHEAD_BYTES;
    use crate::entry::Extras;
    use crate::tag::tags_of;
    use crate::time::{Stamp, Timestamp, Ttl, seconds};

    fn entry(stamp: u64, value: u64) -> Entry {
        let meta = Meta::new(Stamp::from_bits(stamp), Timestamp::ZERO, Ttl::For(seconds(1)), seconds(0));
        Entry { value: Arc::new(value), meta }
    }

    fn lasting(entry: Entry) -> (Entry, Timestamp) {
        (entry, Timestamp::FOREVER)
    }

    fn value(entry: &Entry) -> u64 {
        *entry.value.downcast_ref().unwrap()
    }

    fn memory(max_items: u64) -> Memory {
        Memory::new(&MemoryOptions::new(max_items))
    }

    fn put(memory: &Memory, namespace: u32, key: &str, entry: Entry) -> Inserted {
        memory.replace(namespace, key, lasting(entry), 8, &mut Vec::new()).0
    }

    #[test]
    fn the_same_key_in_two_namespaces_is_two_entries() {
        let memory = memory(10);
        put(&memory, 1, "a", entry(1, 11));
        put(&memory, 2, "a", entry(1, 22));
        assert_eq!(memory.get(1, "a").as_ref().map(value), Some(11));
        assert_eq!(memory.remove(2, "a").as_ref().map(value), Some(22));
        assert!(memory.get(2, "a").is_none() && memory.get(1, "a").is_some() && memory.get(1, "b").is_none());
        let keys = memory.keys(1);
        assert_eq!(
            keys.iter().map(|(key, meta)| (&**key, meta.stamp.to_bits())).collect::<Vec<_>>(),
            [("a", 1)]
        );
    }

    #[test]
    fn only_a_newer_stamp_replaces_and_a_tie_stays() {
        let memory = memory(10);
        assert_eq!(put(&memory, 1, "a", entry(5, 1)), Inserted::Stored);
        assert_eq!(put(&memory, 1, "a", entry(4, 2)), Inserted::Older);
        assert_eq!(put(&memory, 1, "a", entry(5, 3)), Inserted::Older);
        assert_eq!(memory.get(1, "a").as_ref().map(value), Some(1));
        let (inserted, replaced) = memory.replace(1, "a", lasting(entry(6, 4)), 8, &mut Vec::new());
        assert_eq!((inserted, replaced.as_ref().map(value)), (Inserted::Stored, Some(1)));
        assert_eq!(memory.get(1, "a").as_ref().map(value), Some(4));
        memory.check_weights().unwrap();
    }

    #[test]
    fn what_is_pushed_out_is_reported_with_its_cause_and_lives_until_dropped() {
        let memory = memory(1);
        let first = entry(1, 1);
        let alive = Arc::downgrade(&first.value);
        put(&memory, 7, "first", first);
        let mut evicted = Vec::new();
        assert_eq!(memory.replace(7, "second", lasting(entry(2, 2)), 8, &mut evicted).0, Inserted::Stored);
        let [gone] = &evicted[..] else { panic!("one goes") };
        assert_eq!((gone.namespace, &*gone.key, gone.cause), (7, "first", EvictionCause::Capacity));
        assert!(alive.upgrade().is_some());
        evicted.clear();
        assert!(alive.upgrade().is_none());
    }

    #[test]
    fn an_entry_that_is_too_large_takes_the_previous_one_along() {
        let mut options = MemoryOptions::new(10);
        options.max_entry_bytes = Some(ENTRY_OVERHEAD_BYTES + 101);
        let memory = Memory::new(&options);
        let mut evicted = Vec::new();
        assert_eq!(memory.replace(1, "a", lasting(entry(1, 1)), 100, &mut evicted).0, Inserted::Stored);
        assert_eq!(memory.replace(1, "a", lasting(entry(0, 0)), 101, &mut evicted).0, Inserted::Older);
        assert!(evicted.is_empty() && memory.get(1, "a").is_some());
        assert_eq!(memory.replace(1, "a", lasting(entry(2, 2)), 101, &mut evicted).0, Inserted::TooLarge);
        assert!(memory.get(1, "a").is_none());
        assert_eq!(evicted.iter().map(|gone| gone.cause).collect::<Vec<_>>(), [EvictionCause::TooLarge]);
        assert_eq!((memory.len(), memory.bytes()), (0, 0));
    }

    #[test]
    fn tags_and_validators_count() {
        let memory = memory(10);
        put(&memory, 1, "a", entry(1, 1));
        let plain = memory.bytes();
        let mut tagged = entry(2, 2);
        let tags = tags_of(["t".repeat(200).as_str()]).unwrap();
        tagged.meta.extras = Some(Arc::new(Extras { tags, etag: Some("e".into()), ..Extras::default() }));
        put(&memory, 1, "a", tagged);
        assert!(memory.bytes() >= plain + 201);
        memory.check_weights().unwrap();
        assert_eq!(memory.retain(|_, _, _| false).len(), 1);
        assert_eq!((memory.len(), memory.bytes()), (0, 0));
    }

    #[test]
    fn a_sweep_sees_namespaces_keys_and_entries() {
        let memory = memory(100);
        for key in 0..10_u64 {
            put(&memory, (key % 2) as u32, &key.to_string(), entry(key, key));
        }
        let gone = memory.retain(|namespace, key, entry| {
            assert_eq!(key, value(entry).to_string());
            namespace == 0
        });
        assert_eq!(gone.len(), 5);
        assert!(
            gone.iter().all(|(namespace, key, entry)| *namespace == 1 && **key == value(entry).to_string())
        );
        assert_eq!(memory.len(), 5);
    }

    /// Four threads, 500 keys, room for about 20: no value under a foreign key, and sums that add up.
    #[test]
    fn sums_hold_and_no_value_is_foreign_to_its_key_after_a_storm() {
        let mut options = MemoryOptions::new(20);
        options.max_bytes = Some(20 * (ENTRY_OVERHEAD_BYTES + 100));
        let memory = Memory::new(&options);
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let memory = &memory;
                scope.spawn(move || storm(memory, thread));
            }
        });
        memory.check_weights().unwrap();
        assert!(memory.len() > 0 && memory.keys(0).len() as u64 == memory.len());
        assert_eq!(memory.retain(|_, key, entry| key == value(entry).to_string()).len(), 0);
    }

    fn storm(memory: &Memory, seed: u64) {
        let mut random = seed * 2 + 1;
        let mut evicted = Vec::new();
        for step in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let number = (random >> 33) % 500;
            let key = number.to_string();
            match (random >> 20) % 8 {
                0 => drop(memory.remove(0, &key)),
                1..=3 => {
                    let size = usize::try_from(random % 300).unwrap();
                    memory.replace(0, &key, lasting(entry(step, number)), size, &mut evicted);
                }
                _ => assert!(memory.get(0, &key).is_none_or(|entry| value(&entry) == number)),
            }
            evicted.clear();
        }
    }
}
