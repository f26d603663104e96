//! Stored bytes from someone who means harm, or from a disk that forgets: never a panic, never an error to
//! the caller, never a wrong value; a miss that is counted and healed.

use std::time::Duration;

use bytes::Bytes;
use larder::codec::CodecId;
use larder::driver::{Driver as _, When};
use larder::entry::Meta;
use larder::entry::wire::{encode_entry, encode_mark, encode_tombstone};
use larder::key::KeySpace;
use larder::testing::{Harness, Tiers};
use larder::time::{AHEAD_MAX, Clock as _, Stamp, Timestamp, Ttl, hours, seconds};

use crate::flow::{cache, ok};

fn full(key: &str) -> String {
    KeySpace::new("test").unwrap().full(key).unwrap()
}

async fn plant(harness: &Harness, key: &str, bytes: impl Into<Bytes>) {
    harness.store.set(&full(key), bytes.into(), None, When::Always).await.unwrap();
}

fn record(harness: &Harness, key: &str, payload: &[u8]) -> Vec<u8> {
    let now = harness.clock.now();
    let meta = Meta::new(Stamp::at(now), now, Ttl::Forever, Duration::ZERO);
    encode_entry(&full(key), &meta, CodecId::JSON, 0, payload).unwrap().to_vec()
}

/// A lookup of `key` must be a miss that harms nobody, and a load must then be kept.
async fn is_a_healed_miss(harness: Harness, key: &str, what: &str) {
    let numbers = cache::<u32>(&harness);
    assert_eq!(numbers.get(key).await.unwrap(), None, "{what}");
    assert_eq!(*numbers.get_or_set(key, || ok(7)).await.unwrap(), 7, "{what}");
    assert_eq!(numbers.get(key).await.unwrap().as_deref(), Some(&7), "{what}: healed");
    assert!(harness.stack.stats().damaged >= 1, "{what}: counted");
    harness.finish(3).await;
}

#[tokio::test]
async fn every_truncation_is_a_healed_miss() {
    let length = record(&Harness::new(Tiers::L2), "a", b"1").len();
    for end in 0..length {
        let harness = Harness::new(Tiers::L2);
        let bytes = record(&harness, "a", b"1");
        plant(&harness, "a", bytes[..end].to_vec()).await;
        is_a_healed_miss(harness, "a", &format!("cut at {end}")).await;
    }
}

#[tokio::test]
async fn every_flipped_bit_is_a_healed_miss() {
    let length = record(&Harness::new(Tiers::L2), "a", b"1").len();
    for bit in 0..length * 8 {
        let harness = Harness::new(Tiers::Both);
        let mut bytes = record(&harness, "a", b"1");
        bytes[bit / 8] ^= 1 << (bit % 8);
        plant(&harness, "a", bytes).await;
        is_a_healed_miss(harness, "a", &format!("bit {bit}")).await;
    }
}

/// What is stored is whole, and turned on its way: nothing is to be healed there, and nothing is newer than memory's.
#[tokio::test]
async fn what_arrives_with_another_stamp_takes_nothing_from_what_memory_has_left() {
    for bit in 0..64 {
        let harness = Harness::new(Tiers::Both);
        let numbers = cache::<u32>(&harness);
        numbers.set("a", 1).ttl(seconds(1)).grace(hours(1)).await.unwrap();
        let mut bytes = harness.store.get(&full("a")).await.unwrap().unwrap().to_vec();
        bytes[4 + bit / 8] ^= 1 << (bit % 8);
        harness.chaos.lie(full("a"), Some(bytes.into()));
        harness.clock.advance(seconds(2));
        let found =
            numbers.get_or_set("a", || async { Err(std::io::Error::other("the source is down")) }).await;
        assert!(found.as_ref().is_ok_and(|found| **found == 1), "bit {bit}: {found:?}");
    }
}

#[tokio::test]
async fn bytes_of_another_kind_are_a_healed_miss() {
    let junk: [(&str, Vec<u8>); 6] = [
        ("empty", vec![]),
        ("text", b"hello".to_vec()),
        ("zeros", vec![0; 4096]),
        ("ones", vec![0xff; 4096]),
        ("json", br#"{"value":1,"logicalExpiration":99999999999999}"#.to_vec()),
        ("stamp of the end of time", [b"Ld\x01\x00".as_slice(), &[0xff; 64]].concat()),
    ];
    for (what, bytes) in junk {
        let harness = Harness::new(Tiers::Both);
        plant(&harness, "a", bytes).await;
        is_a_healed_miss(harness, "a", what).await;
    }
}

#[tokio::test]
async fn a_value_copied_from_another_key_is_a_healed_miss() {
    let harness = Harness::new(Tiers::Both);
    let secret = record(&harness, "secret", b"1");
    plant(&harness, "a", secret).await;
    is_a_healed_miss(harness, "a", "copied").await;
}

#[tokio::test]
async fn a_mark_in_the_place_of_an_entry_is_a_healed_miss() {
    let harness = Harness::new(Tiers::L2);
    let mark = encode_mark(&full("a"), Stamp::at(harness.clock.now()), Stamp::ZERO).unwrap();
    plant(&harness, "a", mark).await;
    is_a_healed_miss(harness, "a", "mark").await;
}

#[tokio::test]
async fn a_stamp_from_the_far_future_neither_lives_for_ever_nor_blocks_writes() {
    for year_9999 in [true, false] {
        let harness = Harness::new(Tiers::L2);
        let ahead = if year_9999 {
            Timestamp::from_millis(253_370_764_800_000)
        } else {
            harness.clock.now() + AHEAD_MAX + seconds(1)
        };
        let meta = Meta::new(Stamp::at(ahead), ahead, Ttl::Forever, Duration::ZERO);
        let bytes = encode_entry(&full("a"), &meta, CodecId::JSON, 0, b"1").unwrap();
        plant(&harness, "a", bytes.clone()).await;
        // An explicit write gets past it without reading it first.
        let numbers = cache::<u32>(&harness);
        numbers.set("a", 2).await.unwrap();
        assert_eq!(*numbers.get("a").await.unwrap().unwrap(), 2);
        plant(&harness, "a", bytes).await;
        assert!(numbers.delete("a").await.is_ok());
        assert_eq!(numbers.get("a").await.unwrap(), None);
        let bytes = encode_tombstone(Stamp::at(ahead), Timestamp::FOREVER);
        plant(&harness, "b", bytes).await;
        assert_eq!(*numbers.get_or_set("b", || ok(3)).await.unwrap(), 3);
        assert_eq!(*numbers.get("b").await.unwrap().unwrap(), 3);
    }
}

#[tokio::test]
async fn a_mark_that_cannot_be_read_counts_as_a_clear() {
    let harness = Harness::new(Tiers::L2);
    let numbers = cache::<u32>(&harness);
    numbers.set("a", 1).await.unwrap();
    let mark = KeySpace::new("test").unwrap().mark_key();
    harness.store.set(&mark, Bytes::from_static(b"junk"), None, When::Always).await.unwrap();
    assert_eq!(numbers.get("a").await.unwrap(), None, "what it may have cleared stays gone");
    numbers.set("a", 2).await.unwrap();
    let other = Harness::over(Tiers::L2, harness.clock.clone(), harness.store.clone(), |builder| builder);
    assert_eq!(*cache::<u32>(&other).get("a").await.unwrap().unwrap(), 2, "it was healed for everyone");
}

#[tokio::test]
async fn a_mark_from_the_far_future_does_not_clear_for_ever() {
    let harness = Harness::new(Tiers::L2);
    let key = KeySpace::new("test").unwrap().mark_key();
    let mark = encode_mark(&key, Stamp::from_bits(u64::MAX), Stamp::from_bits(u64::MAX)).unwrap();
    harness.store.set(&key, mark, None, When::Always).await.unwrap();
    let numbers = cache::<u32>(&harness);
    numbers.set("a", 1).await.unwrap();
    let _ = numbers.get("a").await.unwrap();
    numbers.set("a", 2).await.unwrap();
    assert_eq!(*numbers.get("a").await.unwrap().unwrap(), 2);
}

#[tokio::test]
async fn a_process_whose_clock_was_never_set_takes_back_no_clear() {
    let right = Harness::new(Tiers::L2);
    let numbers = cache::<u32>(&right);
    numbers.set("a", 1).ttl(hours(1)).await.unwrap();
    let full = full("a");
    let old = right.store.get(&full).await.unwrap().unwrap();
    right.clock.advance(seconds(1));
    numbers.clear().await.unwrap();
    // What a store that cannot list keys would have left there.
    right.store.set(&full, old, None, When::Always).await.unwrap();

    let clock = larder::testing::ManualClock::new(Timestamp::from_millis(1_000));
    let lost = Harness::over(Tiers::L2, clock, right.store.clone(), |builder| builder);
    assert_eq!(cache::<u32>(&lost).get("b").await.unwrap(), None);
    let fresh = Harness::over(Tiers::L2, right.clock.clone(), right.store.clone(), |builder| builder);
    assert_eq!(cache::<u32>(&fresh).get("a").await.unwrap(), None, "it stays cleared for who has the time");
}

#[tokio::test]
async fn payloads_that_attack_the_decoder_are_misses() {
    let deep = "[".repeat(100_000);
    let many = [b"\xdd\xff\xff\xff\xff".as_slice(), &[0x90; 16]].concat();
    let attacks: [(&str, CodecId, &[u8]); 5] = [
        ("depth", CodecId::JSON, deep.as_bytes()),
        ("not json", CodecId::JSON, b"\xff\xfe"),
        ("a number out of range", CodecId::JSON, b"99999999999999999999"),
        ("four billion elements", CodecId::MESSAGEPACK, &many),
        ("an unknown codec", CodecId(222), b"1"),
    ];
    for (what, codec, payload) in attacks {
        let harness = Harness::new(Tiers::L2);
        let now = harness.clock.now();
        let meta = Meta::new(Stamp::at(now), now, Ttl::Forever, Duration::ZERO);
        plant(&harness, "a", encode_entry(&full("a"), &meta, codec, 0, payload).unwrap()).await;
        let json = harness.stack.cache_with::<Vec<serde_json::Value>>(larder::codec::Json);
        let packed = harness.stack.cache_with::<Vec<Vec<u8>>>(larder::codec::MessagePack);
        assert_eq!(json.get("a").await.unwrap(), None, "{what}");
        assert_eq!(packed.get("a").await.unwrap(), None, "{what}");
        assert_eq!(harness.stack.stats().undecodable, 2, "{what}");
        assert_eq!(*json.get_or_set("a", || ok(vec![])).await.unwrap(), Vec::<serde_json::Value>::new());
    }
}

#[tokio::test]
async fn a_deeply_nested_messagepack_value_is_a_miss() {
    let harness = Harness::new(Tiers::L2);
    let now = harness.clock.now();
    let meta = Meta::new(Stamp::at(now), now, Ttl::Forever, Duration::ZERO);
    let deep = vec![0x91; 200_000];
    plant(&harness, "a", encode_entry(&full("a"), &meta, CodecId::MESSAGEPACK, 0, &deep).unwrap()).await;
    let packed = harness.stack.cache_with::<serde_json::Value>(larder::codec::MessagePack);
    assert_eq!(packed.get("a").await.unwrap(), None);
}

#[tokio::test]
async fn times_that_contradict_each_other_are_healed_and_clock_jumps_survived() {
    let harness = Harness::new(Tiers::Both);
    let now = harness.clock.now();
    let meta = Meta {
        stamp: Stamp::at(now),
        born: Stamp::at(now),
        fresh_until: now + hours(1),
        stale_until: now,
        extras: None,
    };
    plant(&harness, "a", encode_entry(&full("a"), &meta, CodecId::JSON, 0, b"1").unwrap()).await;
    let numbers = cache::<u32>(&harness);
    assert_eq!(numbers.get("a").await.unwrap(), None);

    numbers.set("b", 1).ttl(seconds(10)).await.unwrap();
    harness.clock.set(Timestamp::from_millis(now.as_millis() - 3_600_000));
    assert_eq!(*numbers.get("b").await.unwrap().unwrap(), 1);
    assert_eq!(numbers.entry("b").await.unwrap().unwrap().age, seconds(0));
    numbers.delete("b").await.unwrap();
    assert_eq!(numbers.get("b").await.unwrap(), None, "a delete wins though the clock went back");
    numbers.set("b", 2).await.unwrap();
    assert_eq!(*numbers.get("b").await.unwrap().unwrap(), 2);
    harness.clock.set(now + hours(1));
    numbers.set("b", 3).await.unwrap();
    assert_eq!(*numbers.get("b").await.unwrap().unwrap(), 3);
    harness.finish(5).await;
}
