//! The stored bytes are frozen, and whatever is not a record for this key decodes to nothing at all.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that panics has failed, and so have its helpers"
)]

#[path = "bodies/wire.rs"]
mod bodies;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder::Tag;
use larder::entry::wire::{
    COMPRESSION_AT, CodecId, Damage, ENCRYPTION_AT, HEAD_BYTES, Head, Kind, Record, StoredEntry, decode,
    encode_entry, encode_mark, encode_tombstone, stamp_of,
};
use larder::entry::{Extras, Meta, Sliding};
use larder::time::{Stamp, Timestamp, Ttl, hours, minutes};
use proptest::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

const KEY: &str = "app:1:users:42";
const MARK_KEY: &str = "app:1!users";

/// A record as it was written by the first release, and what it says. The files may be added to, never changed.
struct Golden {
    name: &'static str,
    bytes: &'static [u8],
    key: &'static str,
    encoded: Bytes,
    record: Record,
}

fn stamp() -> Stamp {
    Stamp::from_bits(Stamp::at(Timestamp::from_millis(1_763_620_000_000)).to_bits() + 3)
}

fn meta(ttl: Ttl) -> Meta {
    let mut meta = Meta::new(stamp(), Timestamp::from_millis(1_763_620_000_125), ttl, hours(6));
    meta.born = Stamp::at(Timestamp::from_millis(1_763_619_999_000));
    meta
}

fn tagged() -> Meta {
    let tags = ["ünïcode", "users", "users:42"].map(|tag| Tag::new(tag).unwrap());
    let extras = Extras {
        tags: tags.into(),
        etag: Some("W/\"33a64df5\"".into()),
        last_modified: Some("Thu, 20 Nov 2025 06:26:40 GMT".into()),
        ..Extras::default()
    };
    Meta { extras: Some(Arc::new(extras)), ..meta(Ttl::For(minutes(5))) }
}

fn timed() -> Meta {
    let sliding = Sliding { idle: minutes(15), ends: Timestamp::from_millis(1_763_663_200_000) };
    let load_time = Some(Duration::from_millis(1_234));
    let extras = Extras { load_time, sliding: Some(sliding), ..Extras::default() };
    Meta { extras: Some(Arc::new(extras)), ..meta(Ttl::For(minutes(5))) }
}

fn golden_entry(
    name: &'static str,
    bytes: &'static [u8],
    meta: Meta,
    (codec, schema): (CodecId, u8),
    payload: &'static [u8],
) -> Golden {
    let encoded = encode_entry(KEY, &meta, codec, schema, payload).unwrap();
    let record = Record::Entry(StoredEntry { meta, codec, schema, payload: Bytes::from_static(payload) });
    Golden { name, bytes, key: KEY, encoded, record }
}

fn goldens() -> Vec<Golden> {
    let until = Timestamp::from_millis(1_763_620_600_000);
    let json = (CodecId::JSON, 0);
    vec![
        golden_entry(
            "plain",
            include_bytes!("golden/plain.bin"),
            meta(Ttl::For(minutes(5))),
            json,
            br#"{"name":"Ada","id":42}"#,
        ),
        golden_entry(
            "tagged",
            include_bytes!("golden/tagged.bin"),
            tagged(),
            (CodecId::MESSAGEPACK, 7),
            b"\x2a",
        ),
        golden_entry(
            "forever",
            include_bytes!("golden/forever.bin"),
            meta(Ttl::Forever),
            (CodecId::BYTES, 255),
            b"",
        ),
        golden_entry("timed", include_bytes!("golden/timed.bin"), timed(), json, b"1"),
        Golden {
            name: "tombstone",
            bytes: include_bytes!("golden/tombstone.bin"),
            key: KEY,
            encoded: encode_tombstone(stamp(), until),
            record: Record::Tombstone { stamp: stamp() },
        },
        Golden {
            name: "mark",
            bytes: include_bytes!("golden/mark.bin"),
            key: MARK_KEY,
            encoded: encode_mark(MARK_KEY, stamp(), stamp()).unwrap(),
            record: Record::Mark { stamp: stamp(), hard: stamp() },
        },
    ]
}

#[test]
fn what_is_written_today_is_byte_for_byte_what_the_first_release_wrote() {
    for golden in goldens() {
        assert_eq!(golden.encoded, golden.bytes, "{}", golden.name);
    }
}

#[test]
fn what_the_first_release_wrote_is_read_today() {
    for golden in goldens() {
        let bytes = Bytes::from_static(golden.bytes);
        assert_eq!(decode(golden.key, &bytes), Ok(golden.record), "{}", golden.name);
        assert_eq!(stamp_of(&bytes), Some(stamp()), "{}", golden.name);
    }
}

#[test]
fn the_head_says_kind_and_times_without_a_key() {
    let heads: Vec<Head> = goldens().iter().map(|golden| Head::peek(golden.bytes).unwrap()).collect();
    let kinds: Vec<Kind> = heads.iter().map(|head| head.kind).collect();
    assert_eq!(kinds, [Kind::Entry, Kind::Entry, Kind::Entry, Kind::Entry, Kind::Tombstone, Kind::Mark]);
    assert_eq!(heads[0].fresh_until.as_millis(), 1_763_620_300_125);
    assert_eq!(heads[0].stale_until.as_millis(), 1_763_641_900_125);
    assert_eq!(heads[2].stale_until, Timestamp::FOREVER);
    assert_eq!(heads[4].stale_until.as_millis(), 1_763_620_600_000);
    assert_eq!((heads[1].codec, heads[1].schema), (CodecId::MESSAGEPACK, 7));
}

#[test]
fn every_truncation_is_damage() {
    for golden in goldens() {
        for length in 0..golden.bytes.len() {
            let cut = Bytes::from_static(&golden.bytes[..length]);
            assert!(decode(golden.key, &cut).is_err(), "{} cut to {length} bytes", golden.name);
        }
        let tail: Vec<u8> = [golden.bytes, b"\0"].concat();
        assert!(decode(golden.key, &tail.into()).is_err(), "{} with a byte more", golden.name);
    }
}

#[test]
fn every_flip_of_one_bit_is_damage() {
    for golden in goldens() {
        for bit in 0..golden.bytes.len() * 8 {
            let mut flipped = golden.bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let damage = decode(golden.key, &flipped.into()).unwrap_err();
            if [COMPRESSION_AT, ENCRYPTION_AT].contains(&(bit / 8)) {
                assert_eq!(damage, Damage::Sealed, "bit {bit} of {}", golden.name);
            }
        }
    }
}

#[test]
fn a_record_copied_to_another_key_is_damage() {
    for golden in goldens().into_iter().filter(|golden| golden.name != "tombstone") {
        for other in ["", "app:1:users:4", "app:1:users:42 ", "app:1:users:43", "APP:1:USERS:42"] {
            let bytes = Bytes::from_static(golden.bytes);
            assert_eq!(decode(other, &bytes), Err(Damage::Key), "{} as {other}", golden.name);
        }
    }
}

/// A record with this head and body whose checksum is right: what somebody hostile can write.
fn sealed(head: &[u8], body: &[u8]) -> Bytes {
    let mut bytes = [head, body].concat();
    bytes.extend_from_slice(&xxh3_64(&bytes).to_be_bytes());
    bytes.into()
}

/// The head and the first parts of an entry of [`KEY`] up to `then`, which is what is claimed next.
fn claiming(then: &[u8]) -> Bytes {
    let [plain, ..] = &goldens()[..] else { panic!("there are some") };
    let key_length = u16::try_from(KEY.len()).unwrap().to_be_bytes();
    sealed(&plain.bytes[..HEAD_BYTES], &[&key_length[..], KEY.as_bytes(), then].concat())
}

#[test]
fn lengths_that_point_outside_are_damage() {
    let no_tags = [0, 0];
    let no_validators = [0];
    let payload = |length: u32| claiming(&[&no_tags[..], &no_validators, &length.to_be_bytes()].concat());
    assert!(decode(KEY, &payload(0)).is_ok(), "the parts are right but for the lengths");
    for length in [1, 7, 8, 9, 65_535, 10_000_000, u32::MAX - 8, u32::MAX] {
        assert_eq!(decode(KEY, &payload(length)), Err(Damage::Truncated), "a payload of {length}");
    }
    for count in [1_u16, 128] {
        assert_eq!(decode(KEY, &claiming(&count.to_be_bytes())), Err(Damage::Truncated), "{count} tags");
    }
    for count in [129_u16, 10_000, u16::MAX] {
        assert_eq!(decode(KEY, &claiming(&count.to_be_bytes())), Err(Damage::Layout), "{count} tags");
    }
    for length in [1_u16, 256, u16::MAX] {
        let tag = [&[0, 1][..], &length.to_be_bytes()].concat();
        assert_eq!(decode(KEY, &claiming(&tag)), Err(Damage::Truncated), "a tag of {length}");
        let etag = [&no_tags[..], &[1], &length.to_be_bytes()].concat();
        assert_eq!(decode(KEY, &claiming(&etag)), Err(Damage::Truncated), "an ETag of {length}");
    }
    let [plain, ..] = &goldens()[..] else { panic!("there are some") };
    for length in [15_u16, u16::MAX] {
        let key = sealed(&plain.bytes[..HEAD_BYTES], &[&length.to_be_bytes(), KEY.as_bytes()].concat());
        assert_eq!(decode(KEY, &key), Err(Damage::Truncated), "a key of {length}");
    }
}

#[test]
fn parts_that_contradict_each_other_are_damage() {
    let long_tag = [&[0, 1, 1, 1][..], &[b'x'; 257], &[0, 0, 0, 0, 0]].concat();
    let cases: [(&str, &[u8]); 6] = [
        ("an empty tag", &[0, 1, 0, 0, 0, 0, 0, 0, 0]),
        ("a tag that is not UTF-8", &[0, 1, 0, 1, 0xff, 0, 0, 0, 0, 0]),
        ("a tag of 257 bytes", &long_tag),
        ("an unknown validator", &[0, 0, 16, 0, 0, 0, 0]),
        ("an ETag that is not UTF-8", &[0, 0, 1, 0, 1, 0xff, 0, 0, 0, 0]),
        ("a byte after the payload", &[0, 0, 0, 0, 0, 0, 0, 9]),
    ];
    for (what, then) in cases {
        assert_eq!(decode(KEY, &claiming(then)), Err(Damage::Layout), "{what}");
    }
    let [plain, .., tombstone, mark] = &goldens()[..] else { panic!("there are some") };
    let (head, _) = plain.bytes.split_at(HEAD_BYTES);
    let mut backwards = head.to_vec();
    backwards[28..36].fill(0);
    assert_eq!(decode(KEY, &sealed(&backwards, b"")), Err(Damage::Layout), "grace before freshness");
    let mut unknown = head.to_vec();
    unknown[3] = 3;
    assert_eq!(decode(KEY, &sealed(&unknown, b"")), Err(Damage::Layout), "an unknown kind");
    let tail = &tombstone.bytes[..HEAD_BYTES];
    assert_eq!(decode(KEY, &sealed(tail, b"x")), Err(Damage::Layout), "a tombstone with a body");
    let long = &mark.bytes[..mark.bytes.len() - 8];
    assert_eq!(decode(MARK_KEY, &sealed(long, b"x")), Err(Damage::Layout), "a mark with a tail");
}

#[test]
fn foreign_bytes_and_later_versions_say_so() {
    let [plain, ..] = &goldens()[..] else { panic!("there are some") };
    let mut later = plain.bytes.to_vec();
    later[2] = 2;
    assert_eq!(decode(KEY, &later.into()), Err(Damage::Version));
    for foreign in [&b"{\"value\":1}"[..], b"ld", b"PK\x03\x04", &[0; 100], &[0xff; 100]] {
        assert_eq!(decode(KEY, &Bytes::from_static(foreign)), Err(Damage::Foreign));
    }
}

/// The fuzz targets over a few thousand inputs: noise, and goldens with noise in them.
#[test]
fn a_short_run_of_the_fuzz_targets_finds_nothing() {
    let goldens = goldens();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 33).unwrap()
    };
    let mut decoded = 0;
    for round in 0..6_000 {
        let mut input: Vec<u8> = if round % 2 == 0 {
            (0..next() % 400).map(|_| next() as u8).collect()
        } else {
            // Without its checksum, which the body adds again.
            let golden = goldens[next() % goldens.len()].bytes;
            golden[..golden.len() - 8].to_vec()
        };
        for _ in 0..next() % 4 {
            let length = input.len().max(1);
            match (input.get_mut(next() % length), next() % 3) {
                (Some(byte), 0) => *byte ^= 1 << (next() % 8),
                (Some(byte), 1) => *byte = [0, 1, 0x7f, 0x80, 0xff][next() % 5],
                (Some(_), _) => input.truncate(next() % length),
                (None, _) => input.push(next() as u8),
            }
        }
        decoded += u32::from(bodies::decode(&input));
        bodies::round_trip(&input);
    }
    assert!(decoded > 500, "only {decoded} of 6000 inputs got past the checksum and the key");
}

proptest! {
    #[test]
    fn random_bytes_never_panic(key in ".{0,8}", bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(decode(&key, &bytes.clone().into()).is_err());
        bodies::decode(&bytes);
    }

    #[test]
    fn a_random_body_behind_a_right_head_and_checksum_never_panics(
        kind in 0_u8..3, body in proptest::collection::vec(prop_oneof![Just(0_u8), Just(1), any::<u8>()], 0..200),
    ) {
        let mut head = goldens()[0].bytes[..HEAD_BYTES].to_vec();
        head[3] = kind;
        let _ = decode("", &sealed(&head, &body));
    }

    #[test]
    fn any_entry_survives_the_round_trip(input in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        bodies::round_trip(&input);
    }
}
