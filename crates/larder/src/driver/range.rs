//! The keys that begin with a prefix, as a range of bytes, for stores that keep keys in the order of their bytes.

/// Upper end of a range that covers every key: no UTF-8 contains this byte.
const ABOVE_ALL_KEYS: &[u8] = &[0xff];

/// The keys that begin with a prefix, as a range of bytes: from it (inclusive) to its successor (exclusive).
pub(super) fn range_of(prefix: &str) -> (Vec<u8>, Vec<u8>) {
    let from = prefix.as_bytes().to_vec();
    let mut below = from.clone();
    match below.last_mut() {
        // UTF-8 never contains 0xff, so adding one never carries.
        Some(last) => *last += 1,
        None => below.extend_from_slice(ABOVE_ALL_KEYS),
    }
    (from, below)
}
