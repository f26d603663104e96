//! The bounded table under everything that keeps values in this process: an eviction policy, three limits,
//! and locks that no code of a user runs under.
//!
//! It knows neither entries nor time. The policy is in `shard`, one unsynchronised `quick_cache` each.
//!
//! Why shards and locks of our own rather than `quick_cache::sync`: its locks are the standard library's
//! without its default features, so a panicking `Eq` would poison them; its `clear` and `retain` drop values
//! under a lock; and a check and the insert that depends on it need one lock held across both.

use std::hash::{BuildHasher, Hash};

use parking_lot::RwLock;

use super::shard::{Budget, Hashed, Probe, Shard, Slot};

/// What an entry costs beside its key and its value, in bytes: its slot and its share of the table, of the
/// memory of evicted keys and of the allocator. An estimate, and the same for all.
pub(crate) const ENTRY_OVERHEAD_BYTES: u64 = 256;

/// Entries up to this size fit a shard whatever the number of shards, in bytes.
const SHARD_BYTES_MIN: u64 = 4 << 20;
/// A shard holds at least this many items, because keys do not spread evenly over shards that are smaller.
const SHARD_ITEMS_MIN: u64 = 256;
const SHARDS_MAX: u64 = 64;
/// How many entries a sweep removes before it lets others at the shard.
const SWEEP_BATCH: usize = 128;

/// What an engine may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// The most entries.
    pub(crate) items: u64,
    /// The most bytes of all entries together, overhead included.
    pub(crate) bytes: Option<u64>,
    /// The most bytes of one entry, overhead included.
    pub(crate) entry_bytes: Option<u64>,
}

/// Something that names a key without being one. It hashes as the key does.
pub(crate) trait Lookup<K>: Hash {
    fn names(&self, key: &K) -> bool;
}

/// What became of an insert.
pub(crate) enum Put<K, V> {
    /// It is stored; what was there before comes back.
    Stored { replaced: Option<V> },
    /// The caller's condition did not hold; what was there stays.
    Refused,
    /// It is larger than a limit. What was there before is gone too, and comes back with what was refused.
    TooLarge { key: K, value: V, previous: Option<V> },
}

/// A concurrent map from `K` to `V` that never holds more than its [`Limits`].
///
/// Both limits hold at once because an entry weighs the larger of its two shares: of the items, and of the
/// bytes. Neither sum can then exceed its limit. The price is that a mix of very small and very large entries
/// can fill it while up to half of either limit is unused.
///
/// Values that leave are handed to the caller, who drops them when no lock is held: a value's `Drop` may use
/// the engine again.
pub(crate) struct Engine<K, V> {
    shards: Box<[RwLock<Shard<K, V>>]>,
    /// Shards, buckets and tags are taken from different bits of one hash, so all bits have to be good:
    /// `quality` mixes once more than `fast`, for 0.2 ns. The seed is random, against keys made to collide.
    hasher: foldhash::quality::RandomState,
    limits: Limits,
}

impl<K, V> Engine<K, V> {
    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// The largest entry that every shard takes in, in bytes of key and value.
    pub(crate) fn entry_bytes_max(&self) -> Option<u64> {
        let shard = self.limits.bytes.map(|bytes| bytes / self.shards.len() as u64);
        let largest = shard.into_iter().chain(self.limits.entry_bytes).min();
        largest.map(|bytes| bytes.saturating_sub(ENTRY_OVERHEAD_BYTES))
    }
}

impl<K: Eq + Hash, V> Engine<K, V> {
    pub(crate) fn new(limits: Limits) -> Self {
        let parallelism = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
        Self::with_shards(limits, shards_for(&limits, parallelism))
    }

    fn with_shards(limits: Limits, count: u64) -> Self {
        let shards = (0..count).map(|index| {
            // The first shards take the remainder, so that the shares add up to the limit.
            let share = |total: u64| total / count + u64::from(index < total % count);
            RwLock::new(Shard::new(Budget::new(share(limits.items), limits.bytes.map(share))))
        });
        Self { shards: shards.collect(), hasher: foldhash::quality::RandomState::default(), limits }
    }

    fn hash(&self, key: &(impl Hash + ?Sized)) -> u64 {
        // Zero is what `Admission` calls nobody.
        self.hasher.hash_one(key).max(1)
    }

    fn shard(&self, hash: u64) -> &RwLock<Shard<K, V>> {
        // The table inside a shard uses the lowest and the seven highest bits.
        let index = (hash >> 32) as usize & (self.shards.len() - 1);
        #[expect(clippy::indexing_slicing, reason = "the number of shards is a power of two, at least one")]
        &self.shards[index]
    }

    /// The value of a key. Neither allocates nor hashes more than once; runs no code of a user but `Eq` and
    /// `Clone`.
    #[inline]
    pub(crate) fn get<L: Lookup<K>>(&self, lookup: &L) -> Option<V>
    where
        V: Clone,
    {
        self.with(lookup, V::clone)
    }

    /// What `look` makes of the value of a key, under the lock that readers share: it has to be quick, and may not run
    /// code of a user.
    #[inline]
    pub(crate) fn with<L: Lookup<K>, R>(&self, lookup: &L, look: impl FnOnce(&V) -> R) -> Option<R> {
        let hash = self.hash(lookup);
        self.shard(hash).read().get(&Probe { hash, lookup }).map(look)
    }

    /// Stores a value of `bytes` (key and value; the overhead is added here) if `allow` agrees to replace
    /// what is there. `allow` runs under the lock of the shard, and has to be quick.
    pub(crate) fn insert_if(
        &self,
        key: K,
        value: V,
        bytes: u64,
        evicted: &mut Vec<(K, V)>,
        allow: impl FnOnce(Option<&V>) -> bool,
    ) -> Put<K, V> {
        let hash = self.hash(&key);
        let bytes = bytes.saturating_add(ENTRY_OVERHEAD_BYTES);
        let key = Hashed { hash, key };
        let mut shard = self.shard(hash).write();
        let current = shard.peek(&key);
        if !allow(current) {
            return Put::Refused;
        }
        let existed = current.is_some();
        let fits = self.limits.entry_bytes.is_none_or(|limit| bytes <= limit);
        let Some(weight) = shard.budget.weigh(bytes).filter(|_| fits) else {
            let previous = shard.remove_if(&key, |_| true).map(|(_, value)| value);
            drop(shard);
            return Put::TooLarge { key: key.key, value, previous };
        };
        let gone = shard.admit(key, Slot { weight, bytes, value });
        drop(shard);

        let mut replaced = None;
        for (key, slot) in gone {
            // The replaced one comes first, and the new one cannot be evicted by its own arrival.
            if existed && replaced.is_none() && key.hash == hash {
                replaced = Some(slot.value);
            } else {
                evicted.push((key.key, slot.value));
            }
        }
        Put::Stored { replaced }
    }

    /// Removes a key if `allow` agrees, which runs under the lock of the shard.
    pub(crate) fn remove_if<L: Lookup<K>>(
        &self,
        lookup: &L,
        allow: impl FnOnce(&V) -> bool,
    ) -> Option<(K, V)> {
        let hash = self.hash(lookup);
        let mut shard = self.shard(hash).write();
        shard.remove_if(&Probe { hash, lookup }, allow)
    }

    /// Removes what `keep` refuses, and returns it.
    ///
    /// It looks under locks that readers share, then removes in small batches; `keep` is asked again at
    /// that moment, so what was replaced in between is judged by what it is then.
    pub(crate) fn retain(&self, mut keep: impl FnMut(&K, &V) -> bool) -> Vec<(K, V)>
    where
        K: Clone,
    {
        let mut removed = Vec::new();
        for lock in &self.shards {
            let mut going = Vec::new();
            for (key, slot) in lock.read().iter() {
                if !keep(&key.key, &slot.value) {
                    going.push(Hashed { hash: key.hash, key: key.key.clone() });
                }
            }
            for batch in going.chunks(SWEEP_BATCH) {
                let mut shard = lock.write();
                for key in batch {
                    removed.extend(shard.remove_if(key, |value| !keep(&key.key, value)));
                }
            }
        }
        removed
    }

    /// Shows every entry, under locks that readers share.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&K, &V)) {
        for lock in &self.shards {
            for (key, slot) in lock.read().iter() {
                visit(&key.key, &slot.value);
            }
        }
    }

    /// Removes everything, and returns it.
    pub(crate) fn clear(&self) -> Vec<(K, V)> {
        let mut removed = Vec::new();
        for lock in &self.shards {
            removed.extend(lock.write().drain());
        }
        removed
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> u64 {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }

    /// What all entries weigh together, in bytes, overhead included.
    pub(crate) fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.read().bytes()).sum()
    }

    /// Whether the sums are the sums of what is there, and within the limits; otherwise what is wrong.
    /// `expected_bytes` says how many bytes (key and value) an entry should have been stored with.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn check(&self, expected_bytes: impl Fn(&K, &V) -> Option<u64>) -> Result<(), String> {
        let (mut items, mut bytes) = (0, 0);
        for (index, lock) in self.shards.iter().enumerate() {
            let shard = lock.read();
            let (mut shard_items, mut shard_bytes, mut weight) = (0_u64, 0_u64, 0_u64);
            for (key, slot) in shard.iter() {
                shard_items += 1;
                shard_bytes += slot.bytes;
                weight += slot.weight;
                if expected_bytes(&key.key, &slot.value)
                    .is_some_and(|bytes| bytes.saturating_add(ENTRY_OVERHEAD_BYTES) != slot.bytes)
                {
                    return Err(format!("an entry of shard {index} is counted with a wrong size"));
                }
            }
            let counted = (shard.len(), shard.bytes(), shard.weight());
            if counted != (shard_items, shard_bytes, weight) {
                return Err(format!(
                    "shard {index} counts (items, bytes, weight) {counted:?}, \
                     but holds {:?}",
                    (shard_items, shard_bytes, weight)
                ));
            }
            items += shard_items;
            bytes += shard_bytes;
        }
        if items > self.limits.items || self.limits.bytes.is_some_and(|limit| bytes > limit) {
            return Err(format!("{items} items of {bytes} bytes are more than {:?}", self.limits));
        }
        Ok(())
    }
}

/// As many shards as threads may want, as long as each is large enough to be filled evenly and to hold the
/// largest entry.
fn shards_for(limits: &Limits, parallelism: u64) -> u64 {
    let by_items = limits.items / SHARD_ITEMS_MIN;
    let largest = limits.entry_bytes.unwrap_or(SHARD_BYTES_MIN).max(1);
    let by_bytes = limits.bytes.map_or(SHARDS_MAX, |bytes| bytes / largest);
    let most = parallelism.saturating_mul(4).min(SHARDS_MAX).min(by_items).min(by_bytes).max(1);
    // The largest power of two that is not above.
    1 << most.ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use proptest::prelude::*;

    impl Lookup<u64> for u64 {
        fn names(&self, key: &u64) -> bool {
            self == key
        }
    }

    fn limits(items: u64, bytes: Option<u64>, entry_bytes: Option<u64>) -> Limits {
        Limits { items, bytes, entry_bytes }
    }

    fn engine(items: u64, bytes: Option<u64>) -> Engine<u64, Arc<u64>> {
        Engine::new(limits(items, bytes, None))
    }

    fn put(engine: &Engine<u64, Arc<u64>>, key: u64, bytes: u64) -> Vec<(u64, Arc<u64>)> {
        let mut evicted = Vec::new();
        let put = engine.insert_if(key, Arc::new(key), bytes, &mut evicted, |_| true);
        assert!(matches!(put, Put::Stored { .. }), "{key} of {bytes} bytes is not stored");
        engine
            .check(|key, value| {
                assert_eq!(*key, **value);
                None
            })
            .unwrap();
        evicted
    }

    const fn with_overhead(bytes: u64) -> u64 {
        bytes + ENTRY_OVERHEAD_BYTES
    }

    #[test]
    fn the_smallest_capacities_hold_exactly_that_many_and_always_the_newest() {
        for capacity in 0..=5_u64 {
            for bytes in [None, Some(1 << 30)] {
                let engine = engine(capacity, bytes);
                for key in 0..50 {
                    if capacity == 0 {
                        let refused = engine.insert_if(key, Arc::new(key), 8, &mut Vec::new(), |_| true);
                        assert!(matches!(refused, Put::TooLarge { .. }));
                        continue;
                    }
                    put(&engine, key, 8);
                    assert!(engine.get(&key).is_some(), "{key} in {capacity}");
                    assert_eq!(engine.len(), capacity.min(key + 1));
                }
                assert_eq!(engine.len(), capacity);
            }
        }
    }

    #[test]
    fn of_three_entries_in_the_bytes_of_two_only_two_stay() {
        let engine = engine(100_000, Some(2 * with_overhead(100)));
        put(&engine, 1, 100);
        put(&engine, 2, 100);
        assert_eq!((engine.len(), engine.bytes()), (2, 2 * with_overhead(100)));
        let evicted = put(&engine, 3, 100);
        assert_eq!(evicted.len(), 1);
        assert_eq!((engine.len(), engine.bytes()), (2, 2 * with_overhead(100)));
        assert!(engine.get(&3).is_some() && engine.get(&evicted[0].0).is_none());
    }

    #[test]
    fn three_entries_in_one_byte_more_than_the_bytes_of_three_all_stay() {
        for spare in [0, 1] {
            let engine = engine(7, Some(3 * with_overhead(100) + spare));
            assert_eq!((1..=3).map(|key| put(&engine, key, 100).len()).sum::<usize>(), 0);
            assert_eq!(put(&engine, 4, 100).len(), 1);
        }
    }

    #[test]
    fn an_entry_as_large_as_the_limit_is_stored_and_one_byte_more_is_not() {
        let all = with_overhead(1_000);
        for limits in [limits(1_000, Some(all), None), limits(1_000, Some(10 * all), Some(all))] {
            let engine: Engine<u64, Arc<u64>> = Engine::new(limits);
            put(&engine, 1, 10);
            put(&engine, 2, 1_000);
            put(&engine, 2, 1_000);
            assert!(engine.get(&2).is_some());
            let mut evicted = Vec::new();
            let refused = engine.insert_if(2, Arc::new(2), 1_001, &mut evicted, |_| true);
            let Put::TooLarge { key: 2, previous: Some(_), .. } = refused else {
                panic!("it has to be refused, and to take the previous one along")
            };
            assert!(engine.get(&2).is_none() && evicted.is_empty());
            engine.check(|_, _| None).unwrap();
        }
    }

    #[test]
    fn an_entry_of_the_whole_limit_pushes_out_all_others() {
        let engine = engine(1_000, Some(with_overhead(10_000)));
        for key in 0..8 {
            put(&engine, key, 1_000);
            for _ in 0..4 {
                engine.get(&key);
            }
        }
        assert_eq!(put(&engine, 3, 10_000).len(), 7, "all but the one that it replaces");
        assert_eq!(engine.len(), 1);
        assert_eq!(put(&engine, 9, 1_000).len(), 1);
    }

    #[test]
    fn replacing_adjusts_the_sum_and_is_no_eviction() {
        let engine = engine(10, Some(100_000));
        put(&engine, 1, 100);
        for bytes in [5_000, 1, 0, 700] {
            assert!(put(&engine, 1, bytes).is_empty());
            assert_eq!((engine.len(), engine.bytes()), (1, with_overhead(bytes)));
        }
        engine.remove_if(&1, |_| true);
        assert_eq!((engine.len(), engine.bytes()), (0, 0));
    }

    #[test]
    fn an_entry_that_the_condition_refuses_changes_nothing() {
        let engine = engine(10, None);
        put(&engine, 1, 100);
        let refused = engine.insert_if(1, Arc::new(9), u64::MAX, &mut Vec::new(), |current| {
            assert_eq!(current.map(|value| **value), Some(1));
            false
        });
        assert!(matches!(refused, Put::Refused));
        assert_eq!(engine.get(&1).as_deref(), Some(&1));
        assert!(engine.remove_if(&1, |_| false).is_none());
        assert_eq!(engine.len(), 1);
    }

    #[test]
    fn what_is_asked_for_often_outlives_a_scan() {
        let engine = engine(100, None);
        for key in 0..50 {
            put(&engine, key, 8);
            engine.get(&key);
            engine.get(&key);
        }
        for key in 1_000..2_000 {
            put(&engine, key, 8);
        }
        let kept = (0..50).filter(|key| engine.get(key).is_some()).count();
        assert!(kept >= 45, "{kept} of 50 are left");
    }

    #[test]
    fn sweeping_returns_exactly_what_is_refused() {
        let engine = engine(10_000, None);
        (0..1_000).for_each(|key| drop(put_unchecked(&engine, key)));
        let mut removed: Vec<u64> =
            engine.retain(|key, _| key % 3 == 0).into_iter().map(|(k, _)| k).collect();
        removed.sort_unstable();
        assert_eq!(removed, (0..1_000).filter(|key| key % 3 != 0).collect::<Vec<_>>());
        assert_eq!(engine.len(), 334);
        engine.check(|_, _| Some(8)).unwrap();
        assert_eq!(engine.clear().len(), 334);
        assert_eq!((engine.len(), engine.bytes()), (0, 0));
        put(&engine, 5, 1);
    }

    fn put_unchecked(engine: &Engine<u64, Arc<u64>>, key: u64) -> Vec<(u64, Arc<u64>)> {
        let mut evicted = Vec::new();
        engine.insert_if(key, Arc::new(key), 8, &mut evicted, |_| true);
        evicted
    }

    /// Uses the engine again when it is dropped, as a user's value may.
    struct Reentrant(Arc<Engine<u64, Arc<Reentrant>>>);

    impl Drop for Reentrant {
        fn drop(&mut self) {
            self.0.get(&1);
            self.0.remove_if(&u64::MAX, |_| true);
            assert!(self.0.len() <= 2);
        }
    }

    #[test]
    fn a_value_may_use_the_engine_while_it_is_dropped() {
        let engine = Arc::new(Engine::new(limits(2, None, Some(with_overhead(10)))));
        let insert = |key: u64, bytes: u64, allow: bool| {
            let value = Arc::new(Reentrant(Arc::clone(&engine)));
            drop(engine.insert_if(key, value, bytes, &mut Vec::new(), |_| allow));
        };
        (1..10).for_each(|key| insert(key, 8, true));
        insert(1, 8, true);
        insert(1, 8, false);
        insert(1, 11, true);
        drop(engine.retain(|_, _| false));
        (2..4).for_each(|key| insert(key, 8, true));
        drop(engine.clear());
        assert_eq!(Arc::strong_count(&engine), 1);
    }

    #[test]
    fn shards_are_few_enough_for_small_caches_and_large_entries() {
        let count = |items, bytes, entry| shards_for(&limits(items, bytes, entry), 8);
        assert_eq!(count(511, None, None), 1);
        assert_eq!(count(100_000, None, None), 32);
        assert_eq!(count(100_000, Some(5 << 20), None), 1);
        assert_eq!(count(100_000, Some(64 << 20), None), 16);
        assert_eq!(count(100_000, Some(64 << 20), Some(20 << 20)), 2);
        assert_eq!(count(0, Some(0), Some(0)), 1);
        assert_eq!(shards_for(&limits(u64::MAX, Some(u64::MAX), None), u64::MAX), 64);
    }

    #[test]
    fn the_shares_of_all_shards_add_up_to_the_limits() {
        let engine: Engine<u64, Arc<u64>> = Engine::with_shards(limits(1_001, Some(99_999), None), 8);
        let budgets: Vec<Budget> = engine.shards.iter().map(|shard| shard.read().budget).collect();
        assert_eq!(budgets.iter().map(|budget| budget.items).sum::<u64>(), 1_001);
        assert_eq!(budgets.iter().filter_map(|budget| budget.bytes).sum::<u64>(), 99_999);
    }

    proptest! {
        #[test]
        fn sums_and_limits_hold_after_any_sequence(
            items in 1_u64..12, bytes in 300_u64..6_000,
            steps in proptest::collection::vec((0_u64..16, 0_u64..2_000, 0_u8..4), 1..200),
        ) {
            let engine = engine(items, Some(bytes));
            let mut held = std::collections::HashMap::new();
            for (key, size, action) in steps {
                if action == 0 {
                    prop_assert_eq!(engine.remove_if(&key, |_| true).is_some(), held.remove(&key).is_some());
                } else if action == 1 {
                    prop_assert_eq!(engine.get(&key).is_some(), held.contains_key(&key));
                } else {
                    let mut evicted = Vec::new();
                    match engine.insert_if(key, Arc::new(key), size, &mut evicted, |_| true) {
                        Put::Stored { replaced } => {
                            prop_assert_eq!(replaced.is_some(), held.insert(key, size).is_some());
                        }
                        Put::TooLarge { previous, .. } => {
                            prop_assert!(with_overhead(size) > bytes);
                            prop_assert_eq!(previous.is_some(), held.remove(&key).is_some());
                        }
                        Put::Refused => prop_assert!(false),
                    }
                    for (gone, _) in evicted {
                        prop_assert!(gone != key && held.remove(&gone).is_some());
                    }
                }
                engine.check(|key, _| held.get(key).copied()).unwrap();
                prop_assert_eq!(engine.len(), held.len() as u64);
                prop_assert_eq!(engine.bytes(), held.values().map(|size| with_overhead(*size)).sum::<u64>());
            }
        }
    }
}
