//! A stored record that claims gigabytes in a few bytes reserves no memory.
//!
//! A binary of its own, because it looks at the peak of the process's address space, which any other test
//! could have raised before. (An allocator that counts would need unsafe code.)
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that panics has failed, and so have its helpers"
)]

use bytes::Bytes;
use larder::entry::Meta;
use larder::entry::wire::{CodecId, Damage, decode, encode_entry};
use larder::time::{Stamp, Timestamp, Ttl, seconds};
use xxhash_rust::xxh3::xxh3_64;

const KEY: &str = "k";

/// An entry without a payload that says that it has one of so many bytes, and is right otherwise.
fn claiming(length: u32) -> Bytes {
    let meta = Meta::new(Stamp::ZERO, Timestamp::ZERO, Ttl::Forever, seconds(0));
    let honest = encode_entry(KEY, &meta, CodecId::BYTES, 0, b"").unwrap();
    let mut bytes = honest[..honest.len() - 12].to_vec();
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&xxh3_64(&bytes).to_be_bytes());
    bytes.into()
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmPeak:")).unwrap();
    peak.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn claims_of_gigabytes_reserve_nothing() {
    assert!(decode(KEY, &claiming(0)).is_ok(), "it is right but for the length");
    let before = peak_kib();
    for length in [100 << 20, 1 << 30, 3 << 30, u32::MAX] {
        assert_eq!(decode(KEY, &claiming(length)), Err(Damage::Truncated));
        assert!(peak_kib() - before < 50 << 10, "50 MiB or more were taken for a claim of {length} bytes");
    }
}
