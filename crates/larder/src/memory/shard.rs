//! One shard of the engine: the policy that says what goes, and how an entry is weighed.
//!
//! The only file that names `quick_cache` (Clock-PRO, much like S3-FIFO); it knows no locks, and hands all
//! that leaves to whoever holds the one around it.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::{Equivalent, Lifecycle, OptionsBuilder, Weighter, unsync};

use super::engine::{ENTRY_OVERHEAD_BYTES, Lookup};

/// The most items that a shard counts exactly; tables end before this.
const SHARD_ITEMS_MAX: u64 = 1 << 30;

/// Aligned so that the locks of two shards are never on one cache line.
#[repr(align(128))]
pub(super) struct Shard<K, V> {
    entries: unsync::Cache<Hashed<K>, Slot<V>, SlotWeight, PassThrough, Admission>,
    bytes: u64,
    pub(super) budget: Budget,
    admitting: Arc<AtomicU64>,
}

impl<K: Eq, V> Shard<K, V> {
    pub(super) fn new(budget: Budget) -> Self {
        let admitting = Arc::new(AtomicU64::new(NOBODY));
        let options = OptionsBuilder::new()
            .estimated_items_capacity(usize::try_from(budget.items_estimate()).unwrap_or(usize::MAX))
            .weight_capacity(budget.capacity)
            .build();
        let admission = Admission(Arc::clone(&admitting));
        let entries = match options {
            Ok(options) => unsync::Cache::with_options(options, SlotWeight, PassThrough, admission),
            // Only a missing capacity is an error, and both are there.
            Err(_) => unsync::Cache::with(0, budget.capacity, SlotWeight, PassThrough, admission),
        };
        Self { entries, bytes: 0, budget, admitting }
    }

    pub(super) fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The sum of weights as the policy keeps it.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn weight(&self) -> u64 {
        self.entries.weight()
    }

    /// The value of a key; the policy takes note that it was asked for.
    #[inline]
    pub(super) fn get<L: Lookup<K>>(&self, probe: &Probe<'_, L>) -> Option<&V> {
        self.entries.get(probe).map(|slot| &slot.value)
    }

    /// The value of a key, behind the policy's back.
    pub(super) fn peek(&self, key: &Hashed<K>) -> Option<&V> {
        self.entries.peek(key).map(|slot| &slot.value)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Hashed<K>, &Slot<V>)> {
        self.entries.iter()
    }

    pub(super) fn drain(&mut self) -> impl Iterator<Item = (K, V)> {
        self.bytes = 0;
        self.entries.drain().map(|(key, slot)| (key.key, slot.value))
    }

    /// Takes an entry in; what was replaced, then what had to go for it, comes back.
    pub(super) fn admit(&mut self, key: Hashed<K>, slot: Slot<V>) -> Vec<(Hashed<K>, Slot<V>)> {
        let mut gone = Vec::new();
        let bytes = slot.bytes;
        self.admitting.store(key.hash, Ordering::Relaxed);
        self.entries.insert_with_lifecycle(key, slot, &mut gone);
        self.admitting.store(NOBODY, Ordering::Relaxed);
        self.bytes += bytes;
        self.bytes -= gone.iter().map(|(_, slot)| slot.bytes).sum::<u64>();
        gone
    }

    pub(super) fn remove_if<Q>(&mut self, key: &Q, allow: impl FnOnce(&V) -> bool) -> Option<(K, V)>
    where
        Q: Names<K>,
    {
        let (key, slot) = self.entries.remove_if(key, |slot| allow(&slot.value))?;
        self.bytes -= slot.bytes;
        Some((key.key, slot.value))
    }
}

/// How entries are weighed in one shard: two limits in one number.
///
/// All of the shard is [`Budget::WHOLE`]; an entry is the larger of one item's share and its bytes' share.
/// Shares of bytes are rounded up, and the capacity has room for one unit of rounding per item where that
/// room is less than one byte, so that entries that fill a shard to the last byte do fit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    pub(super) items: u64,
    pub(super) bytes: Option<u64>,
    capacity: u64,
}

impl Budget {
    const WHOLE: u64 = 1 << 62;

    pub(super) fn new(items: u64, bytes: Option<u64>) -> Self {
        let items = items.min(SHARD_ITEMS_MAX);
        let capacity = match bytes {
            None => items,
            Some(_) if items == 0 => 0,
            Some(bytes) if u128::from(items) * u128::from(bytes) < u128::from(Self::WHOLE) => {
                Self::WHOLE + items
            }
            Some(_) => Self::WHOLE,
        };
        Self { items, bytes, capacity }
    }

    /// The weight of an entry of so many bytes; `None` if it fits no shard like this, even an empty one.
    pub(super) fn weigh(&self, bytes: u64) -> Option<u64> {
        if self.items == 0 {
            return None;
        }
        let Some(limit) = self.bytes else { return Some(1) };
        if bytes > limit {
            return None;
        }
        let share = (u128::from(bytes) * u128::from(Self::WHOLE)).div_ceil(u128::from(limit.max(1)));
        let item = Self::WHOLE / self.items;
        Some(item.max(u64::try_from(share).unwrap_or(Self::WHOLE)))
    }

    /// How many entries to expect: decides how many evicted keys are remembered.
    fn items_estimate(&self) -> u64 {
        self.items.min(self.bytes.map_or(u64::MAX, |bytes| bytes / (4 * ENTRY_OVERHEAD_BYTES))).max(1)
    }
}

/// A key with its hash, which is then computed once in its life.
pub(super) struct Hashed<K> {
    pub(super) hash: u64,
    pub(super) key: K,
}

impl<K: PartialEq> PartialEq for Hashed<K> {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.key == other.key
    }
}

impl<K: Eq> Eq for Hashed<K> {}

impl<K> Hash for Hashed<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// A [`Lookup`] with its hash.
pub(super) struct Probe<'l, L> {
    pub(super) hash: u64,
    pub(super) lookup: &'l L,
}

impl<L> Hash for Probe<'_, L> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl<K, L: Lookup<K>> Equivalent<Hashed<K>> for Probe<'_, L> {
    fn equivalent(&self, key: &Hashed<K>) -> bool {
        self.hash == key.hash && self.lookup.names(&key.key)
    }
}

/// What a shard finds entries by.
pub(super) trait Names<K>: Hash + Equivalent<Hashed<K>> {}

impl<K: Eq> Names<K> for Hashed<K> {}

impl<K, L: Lookup<K>> Names<K> for Probe<'_, L> {}

/// Hands on the hash that [`Hashed`] and [`Probe`] carry.
#[derive(Debug, Clone, Copy, Default)]
struct PassThrough;

struct PassedHash(u64);

impl BuildHasher for PassThrough {
    type Hasher = PassedHash;

    fn build_hasher(&self) -> PassedHash {
        PassedHash(0)
    }
}

impl Hasher for PassedHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

pub(super) struct Slot<V> {
    pub(super) weight: u64,
    pub(super) bytes: u64,
    pub(super) value: V,
}

#[derive(Debug, Clone, Copy)]
struct SlotWeight;

impl<K, V> Weighter<Hashed<K>, Slot<V>> for SlotWeight {
    fn weight(&self, _: &Hashed<K>, slot: &Slot<V>) -> u64 {
        slot.weight
    }
}

const NOBODY: u64 = 0;

/// Collects what leaves, and keeps the entry with this hash from being evicted: the one that is on its way
/// in. Without that, a replaced or remembered key could be evicted by its own arrival, and an entry of almost
/// a whole shard would be turned away.
#[derive(Debug, Clone)]
struct Admission(Arc<AtomicU64>);

impl<K, V> Lifecycle<Hashed<K>, Slot<V>> for Admission {
    type RequestState = Vec<(Hashed<K>, Slot<V>)>;

    fn is_pinned(&self, key: &Hashed<K>, _: &Slot<V>) -> bool {
        // Read and written under the shard's write lock only.
        self.0.load(Ordering::Relaxed) == key.hash
    }

    fn on_evict(&self, gone: &mut Self::RequestState, key: Hashed<K>, slot: Slot<V>) {
        gone.push((key, slot));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_sum_of_weights_within_the_capacity_exceeds_either_limit(
            items in 1_u64..u64::MAX, bytes in 1_u64..u64::MAX, share in 1_u64..1_000,
        ) {
            let budget = Budget::new(items, Some(bytes));
            let each = (bytes / share).max(1);
            let weight = budget.weigh(each).unwrap();
            let fit = u128::from(budget.capacity / weight);
            prop_assert!(fit * u128::from(each) <= u128::from(bytes));
            prop_assert!(fit <= u128::from(items));
        }

        #[test]
        fn entries_that_fill_the_limit_to_the_last_byte_fit(items in 1_u64..100_000, each in 1_u64..1_000_000) {
            let budget = Budget::new(items, Some(items * each));
            prop_assert_eq!(budget.capacity / budget.weigh(each).unwrap(), items);
        }
    }
}
