//! What the fuzz targets of the wire format do with their input, as plain functions.
//!
//! `fuzz/` runs them for as long as one likes, `tests/wire.rs` over a few thousand inputs in every test run.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder::Tag;
use larder::entry::wire::{self, CodecId, Head, Record, StoredEntry};
use larder::entry::{Extras, Meta, Sliding};
use larder::tag::TAGS_PER_ENTRY_MAX;
use larder::time::{Stamp, Timestamp};
use xxhash_rust::xxh3::xxh3_64;

/// Decodes the input as it is, and once more with a right magic and checksum and for the key that it names,
/// so that what is behind these is reached too. Whatever decodes encodes to the same bytes. Returns whether
/// anything did.
pub(crate) fn decode(input: &[u8]) -> bool {
    let as_it_is = check_decode("", &Bytes::copy_from_slice(input));

    let mut sealed = input.to_vec();
    if let [m0, m1, version, kind, ..] = &mut sealed[..] {
        [*m0, *m1, *version, *kind] = [b'L', b'd', 1, *kind % 3];
    }
    for sealed_by in [wire::COMPRESSION_AT, wire::ENCRYPTION_AT] {
        if let Some(byte) = sealed.get_mut(sealed_by) {
            *byte = 0;
        }
    }
    let key = key_in(&sealed).unwrap_or_default();
    let checksum = xxh3_64(&sealed);
    sealed.extend_from_slice(&checksum.to_be_bytes());
    check_decode(&key, &sealed.into()) || as_it_is
}

fn key_in(record: &[u8]) -> Option<String> {
    let (length, rest) = record.get(wire::HEAD_BYTES..)?.split_first_chunk()?;
    let key = rest.get(..usize::from(u16::from_be_bytes(*length)))?;
    String::from_utf8(key.to_vec()).ok()
}

fn check_decode(key: &str, bytes: &Bytes) -> bool {
    let head = Head::peek(bytes);
    let _ = wire::stamp_of(bytes);
    let Ok(record) = wire::decode(key, bytes) else { return false };
    let head = head.expect("a record that decodes has a head");
    match record {
        Record::Entry(StoredEntry { meta, codec, schema, payload }) => {
            assert_eq!((meta.stamp, codec, schema), (head.stamp, head.codec, head.schema));
            let outside = bytes.as_ptr_range();
            let inside = payload.as_ptr_range();
            assert!(
                payload.is_empty() || outside.start <= inside.start && inside.end <= outside.end,
                "the payload is copied"
            );
            let again = wire::encode_entry(key, &meta, codec, schema, &payload);
            assert_eq!(again.expect("what was decoded can be encoded"), *bytes);
        }
        Record::Tombstone { stamp } => assert_eq!(stamp, head.stamp),
        Record::Mark { stamp, hard } => assert_eq!((stamp, hard), (head.stamp, head.born)),
    }
    true
}

/// Makes an entry of the input, encodes it, and decodes it to the same again.
pub(crate) fn round_trip(input: &[u8]) {
    let mut source = Source(input);
    let key = source.text();
    let meta = source.meta();
    let (codec, schema) = (CodecId(source.byte()), source.byte());
    let payload = source.0;
    let bytes = wire::encode_entry(&key, &meta, codec, schema, payload).expect("no part is too long");
    assert_eq!(wire::stamp_of(&bytes), Some(meta.stamp));
    let expected =
        Record::Entry(StoredEntry { meta, codec, schema, payload: Bytes::copy_from_slice(payload) });
    assert_eq!(wire::decode(&key, &bytes).as_ref(), Ok(&expected));
    assert!(wire::decode(&format!("{key}x"), &bytes).is_err(), "it belongs to another key");
}

/// The input as a source of whatever is needed; zeroes when it is used up.
struct Source<'a>(&'a [u8]);

impl Source<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        byte
    }

    fn number(&mut self) -> u64 {
        (0..8).fold(0, |number, _| number << 8 | u64::from(self.byte()))
    }

    fn text(&mut self) -> String {
        let length = usize::from(self.byte()).min(self.0.len());
        let (text, rest) = self.0.split_at(length);
        self.0 = rest;
        String::from_utf8_lossy(text).into_owned()
    }

    fn validator(&mut self) -> Option<Box<str>> {
        (self.byte() % 2 == 1).then(|| self.text().into())
    }

    fn meta(&mut self) -> Meta {
        let (stamp, born) = (Stamp::from_bits(self.number()), Stamp::from_bits(self.number()));
        let (a, b) = (self.number(), self.number());
        let count = usize::from(self.byte()) % (TAGS_PER_ENTRY_MAX + 1);
        let mut tags: Vec<Tag> = (0..count).filter_map(|_| Tag::new(&self.text()).ok()).collect();
        tags.sort_unstable();
        tags.dedup();
        let (etag, last_modified) = (self.validator(), self.validator());
        let load_time = (self.byte() % 2 == 1).then(|| Duration::from_millis(self.number() >> 33));
        let sliding = (self.byte() % 2 == 1).then(|| Sliding {
            idle: Duration::from_millis(self.number()),
            ends: Timestamp::from_millis(self.number()),
        });
        let extras = Extras { tags: tags.into(), etag, last_modified, load_time, sliding };
        Meta {
            stamp,
            born,
            fresh_until: Timestamp::from_millis(a.min(b)),
            stale_until: Timestamp::from_millis(a.max(b)),
            extras: (extras != Extras::default()).then(|| Arc::new(extras)),
        }
    }
}
