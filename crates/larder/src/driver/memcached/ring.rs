//! Which server has a key: the one whose name and the key hash highest together (rendezvous hashing).
//!
//! Knows names, not connections. The choice never depends on which servers are up: see `mod.rs`.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The servers of a store, in an order of no meaning.
#[derive(Debug)]
pub(super) struct Ring(Vec<u64>);

impl Ring {
    pub(super) fn new<'n>(names: impl IntoIterator<Item = &'n str>) -> Self {
        Self(names.into_iter().map(|name| xxh3_64(name.as_bytes())).collect())
    }

    /// Where in the list the server of a key is.
    pub(super) fn place(&self, wire_key: &str) -> usize {
        if self.0.len() < 2 {
            return 0;
        }
        let weight = |seed: &u64| xxh3_64_with_seed(wire_key.as_bytes(), *seed);
        // Of equal weights the one with the larger seed, so that the order of the list makes no difference.
        let best = self.0.iter().enumerate().max_by_key(|(_, seed)| (weight(seed), **seed));
        best.map_or(0, |(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> impl Iterator<Item = String> {
        (0..10_000).map(|n| format!("app:1::user:{n}"))
    }

    #[test]
    fn every_process_finds_a_key_in_the_same_place() {
        let ring = Ring::new(["a:11211", "b:11211", "c:11211"]);
        let found: String = keys().take(40).map(|key| ["a", "b", "c"][ring.place(&key)]).collect();
        assert_eq!(found, FROZEN);
        let turned = Ring::new(["c:11211", "a:11211", "b:11211"]);
        for key in keys() {
            assert_eq!(["a", "b", "c"][ring.place(&key)], ["c", "a", "b"][turned.place(&key)]);
        }
    }

    /// Where the first forty keys are: a version that finds them elsewhere loses what is stored, and worse, keeps a
    /// second copy of it.
    const FROZEN: &str = "aaacababcaccbbaaaaccccbbbaabbbcabcaabbab";

    #[test]
    fn servers_get_their_share_and_a_new_one_moves_no_more() {
        let (three, four) = (Ring::new(["a:1", "b:1", "c:1"]), Ring::new(["a:1", "b:1", "c:1", "d:1"]));
        let mut shares = [0; 4];
        for key in keys() {
            let (before, after) = (three.place(&key), four.place(&key));
            assert!(before == after || after == 3, "a key moves to the new server or stays");
            shares[after] += 1;
        }
        assert!(shares.iter().all(|share| (2_300..2_700).contains(share)), "{shares:?}");
    }
}
