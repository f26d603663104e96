//! Entries as bytes: what every store holds, frozen since version 1.
//!
//! All numbers are big-endian. A record is a head of [`HEAD_BYTES`], a body, and a checksum:
//!
//! ```text
//!  0..2   magic "Ld"              2  version, 1       3  kind: 0 entry, 1 tombstone, 2 mark
//!  4..12  stamp                  12..20 born          20..28 fresh until    28..36 stale until
//! 36      codec of the payload 37 compression of the body    38 encryption of the body
//! 39      the user's schema number
//!
//! entry:      u16 key length, key; u16 number of tags, each u16 length and tag;
//!             u8 what else (1 ETag, 2 Last-Modified, 4 load time, 8 sliding), in this order: each text as
//!             u16 length and text, the load time as u32 milliseconds, sliding as u64 milliseconds of idle
//!             time and u64 last end; u32 payload length, payload
//! mark:       u16 key length, key
//! tombstone:  nothing
//!
//! last 8  xxh3-64 of all before it
//! ```
//!
//! A backend compares bytes 4..12 without knowing the rest ([`stamp_of`]). Decorators may replace the body and the checksum
//! by something of their own if they say so in byte 37 or 38 and leave the rest of the head readable.
//!
//! Decoding never panics, and allocates no more than the input is long: whatever does not decode is
//! [`Damage`], which the engine treats as a miss.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use xxhash_rust::xxh3::xxh3_64;

use crate::entry::{Extras, Meta, Sliding};
use crate::error::{Error, ErrorKind, Result};
use crate::tag::{TAG_BYTES_MAX, TAGS_PER_ENTRY_MAX, Tag};
use crate::time::{Stamp, Timestamp};

/// The length of the part that stays readable whatever a decorator does, in bytes.
pub const HEAD_BYTES: usize = 40;
/// The index of the head's byte that says how the body is compressed; 0 is not at all.
pub const COMPRESSION_AT: usize = 37;
/// The index of the head's byte that says how the body is encrypted; 0 is not at all.
pub const ENCRYPTION_AT: usize = 38;

const MAGIC: [u8; 2] = *b"Ld";
const VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = 8;
const HAS_ETAG: u8 = 1;
const HAS_LAST_MODIFIED: u8 = 2;
const HAS_LOAD_TIME: u8 = 4;
const HAS_SLIDING: u8 = 8;

/// Which codec made a payload.
///
/// Ids below 128 are this crate's; a codec of one's own takes one from 128 on.
///
/// ```
/// assert_eq!(larder::entry::wire::CodecId::JSON.0, 1);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CodecId(pub u8);

impl CodecId {
    /// The payload is the value's own bytes.
    pub const BYTES: Self = Self(0);
    /// JSON text.
    pub const JSON: Self = Self(1);
    /// MessagePack with field names.
    pub const MESSAGEPACK: Self = Self(2);
}

impl fmt::Display for CodecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::BYTES => f.write_str("bytes"),
            Self::JSON => f.write_str("json"),
            Self::MESSAGEPACK => f.write_str("messagepack"),
            Self(id) => write!(f, "codec {id}"),
        }
    }
}

/// What kind of record some bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A value.
    Entry,
    /// What a delete left behind, so that an older load cannot bring the value back.
    Tombstone,
    /// The stamps of a clear or of a tag.
    Mark,
}

/// The head of a record: enough to order it and to tell whether it is alive, not enough to trust it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// What it is.
    pub kind: Kind,
    /// Orders it among writes and invalidations.
    pub stamp: Stamp,
    /// What clears are compared with.
    pub born: Stamp,
    /// Until when it is fresh (exclusive).
    pub fresh_until: Timestamp,
    /// Until when it may be served stale (exclusive).
    pub stale_until: Timestamp,
    /// Which codec made its payload.
    pub codec: CodecId,
    /// The user's schema number.
    pub schema: u8,
}

/// A decoded record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A value.
    Entry(StoredEntry),
    /// What a delete left behind.
    Tombstone {
        /// When the delete was called.
        stamp: Stamp,
    },
    /// A clear of a namespace, or the invalidation of a tag.
    Mark {
        /// When it was called last: what was born until then is stale.
        stamp: Stamp,
        /// When it was last called hard: what was born until then is gone.
        hard: Stamp,
    },
}

/// An entry whose value is still encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    /// What is known about the value.
    pub meta: Meta,
    /// Which codec made the payload.
    pub codec: CodecId,
    /// The user's schema number.
    pub schema: u8,
    /// The encoded value: a slice of what was decoded, not a copy.
    pub payload: Bytes,
}

/// Why some bytes are not the record that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Damage {
    /// Shorter than it has to be, or a length inside points outside.
    Truncated,
    /// Not written by this crate.
    Foreign,
    /// Written by a version that this one does not know.
    Version,
    /// The checksum does not match.
    Checksum,
    /// It belongs to another key.
    Key,
    /// Its parts contradict each other.
    Layout,
    /// Still compressed or encrypted: the stack lacks the decorator that wrote it.
    Sealed,
    /// Its stamp is too far in the future to be believed.
    Future,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "truncated",
            Self::Foreign => "not written by larder",
            Self::Version => "of an unknown version",
            Self::Checksum => "checksum mismatch",
            Self::Key => "belongs to another key",
            Self::Layout => "malformed",
            Self::Sealed => "compressed or encrypted by a decorator that this stack lacks",
            Self::Future => "stamped too far in the future",
        })
    }
}

/// The stamp of stored bytes, without looking at anything else: what `set` with [`When::Newer`] compares.
///
/// `None` for bytes that are too short to carry one; these are older than everything.
///
/// [`When::Newer`]: crate::driver::When::Newer
pub fn stamp_of(bytes: &[u8]) -> Option<Stamp> {
    let field = bytes.get(4..12)?.first_chunk()?;
    Some(Stamp::from_bits(u64::from_be_bytes(*field)))
}

impl Head {
    /// Reads the head of a record. No checksum is verified: use it to order and to count, never to serve.
    ///
    /// # Errors
    /// The [`Damage`] that shows in the head.
    pub fn peek(bytes: &[u8]) -> std::result::Result<Self, Damage> {
        let mut input = Input(bytes);
        if input.take::<2>()? != MAGIC {
            return Err(Damage::Foreign);
        }
        let [version, kind] = input.take()?;
        if version != VERSION {
            return Err(Damage::Version);
        }
        let kind = match kind {
            0 => Kind::Entry,
            1 => Kind::Tombstone,
            2 => Kind::Mark,
            _ => return Err(Damage::Layout),
        };
        let stamp = Stamp::from_bits(input.u64()?);
        let born = Stamp::from_bits(input.u64()?);
        let fresh_until = Timestamp::from_millis(input.u64()?);
        let stale_until = Timestamp::from_millis(input.u64()?);
        let [codec, _compression, _encryption, schema] = input.take()?;
        if stale_until < fresh_until {
            return Err(Damage::Layout);
        }
        Ok(Self { kind, stamp, born, fresh_until, stale_until, codec: CodecId(codec), schema })
    }
}

/// Encodes an entry under its full key.
///
/// # Errors
/// [`ErrorKind::TooLarge`] if the payload or a validator is longer than its length field can say.
pub fn encode_entry(key: &str, meta: &Meta, codec: CodecId, schema: u8, payload: &[u8]) -> Result<Bytes> {
    let empty = Extras::default();
    let extras = meta.extras.as_deref().unwrap_or(&empty);
    let tags_bytes: usize = extras.tags.iter().map(|tag| 2 + tag.as_str().len()).sum();
    let validators = [(HAS_ETAG, &extras.etag), (HAS_LAST_MODIFIED, &extras.last_modified)];
    let validator_bytes: usize =
        validators.iter().filter_map(|(_, text)| text.as_ref()).map(|t| 2 + t.len()).sum();
    let size = HEAD_BYTES
        + 2
        + key.len()
        + 2
        + tags_bytes
        + 1
        + validator_bytes
        + extras.load_time.map_or(0, |_| 4)
        + extras.sliding.map_or(0, |_| 16)
        + 4
        + payload.len()
        + CHECKSUM_BYTES;

    let mut out = BytesMut::with_capacity(size);
    put_head(&mut out, Kind::Entry, meta, codec, schema);
    put_text(&mut out, key)?;
    out.put_u16(short(extras.tags.len(), "the number of tags")?);
    for tag in &extras.tags {
        put_text(&mut out, tag.as_str())?;
    }
    let texts: u8 = validators.iter().filter(|(_, text)| text.is_some()).map(|(bit, _)| bit).sum();
    let times = extras.load_time.map_or(0, |_| HAS_LOAD_TIME) | extras.sliding.map_or(0, |_| HAS_SLIDING);
    out.put_u8(texts | times);
    for text in validators.iter().filter_map(|(_, text)| text.as_deref()) {
        put_text(&mut out, text)?;
    }
    if let Some(took) = extras.load_time {
        out.put_u32(u32::try_from(took.as_millis()).unwrap_or(u32::MAX));
    }
    if let Some(Sliding { idle, ends }) = extras.sliding {
        out.put_u64(u64::try_from(idle.as_millis()).unwrap_or(u64::MAX));
        out.put_u64(ends.as_millis());
    }
    let length = u32::try_from(payload.len())
        .map_err(|_| Error::new(ErrorKind::TooLarge, "a value may not be larger than 4 GiB"))?;
    out.put_u32(length);
    out.put_slice(payload);
    Ok(seal(out))
}

/// Encodes what a delete leaves behind: its stamp and nothing else. `until` is when it may go.
pub fn encode_tombstone(stamp: Stamp, until: Timestamp) -> Bytes {
    let meta = Meta { stamp, born: stamp, fresh_until: until, stale_until: until, extras: None };
    let mut out = BytesMut::with_capacity(HEAD_BYTES + CHECKSUM_BYTES);
    put_head(&mut out, Kind::Tombstone, &meta, CodecId::BYTES, 0);
    seal(out)
}

/// Encodes the mark of a clear or of a tag: what was born until `stamp` is stale, until `hard` gone.
///
/// # Errors
/// [`ErrorKind::TooLarge`] if the key is longer than its length field can say.
pub fn encode_mark(key: &str, stamp: Stamp, hard: Stamp) -> Result<Bytes> {
    let forever = Timestamp::FOREVER;
    let meta = Meta { stamp, born: hard, fresh_until: forever, stale_until: forever, extras: None };
    let mut out = BytesMut::with_capacity(HEAD_BYTES + 2 + key.len() + CHECKSUM_BYTES);
    put_head(&mut out, Kind::Mark, &meta, CodecId::BYTES, 0);
    put_text(&mut out, key)?;
    Ok(seal(out))
}

/// Decodes the record of a key.
///
/// # Errors
/// [`Damage`] for whatever is not, byte for byte, a record that was encoded for this key.
pub fn decode(key: &str, bytes: &Bytes) -> std::result::Result<Record, Damage> {
    let head = Head::peek(bytes)?;
    if bytes.get(COMPRESSION_AT) != Some(&0) || bytes.get(ENCRYPTION_AT) != Some(&0) {
        return Err(Damage::Sealed);
    }
    let (checked, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(Damage::Truncated)?;
    let mut input = Input(checked.get(HEAD_BYTES..).ok_or(Damage::Truncated)?);
    if xxh3_64(checked) != u64::from_be_bytes(*checksum) {
        return Err(Damage::Checksum);
    }
    match head.kind {
        Kind::Tombstone => {
            input.end()?;
            Ok(Record::Tombstone { stamp: head.stamp })
        }
        Kind::Mark => {
            input.key(key)?;
            input.end()?;
            if head.born > head.stamp {
                return Err(Damage::Layout);
            }
            Ok(Record::Mark { stamp: head.stamp, hard: head.born })
        }
        Kind::Entry => {
            input.key(key)?;
            let extras = input.extras()?;
            let length = usize::try_from(u32::from_be_bytes(input.take()?)).map_err(|_| Damage::Truncated)?;
            let payload = input.slice(length)?;
            input.end()?;
            let payload = bytes.slice_ref(payload);
            let Head { stamp, born, fresh_until, stale_until, codec, schema, .. } = head;
            let meta = Meta { stamp, born, fresh_until, stale_until, extras };
            Ok(Record::Entry(StoredEntry { meta, codec, schema, payload }))
        }
    }
}

fn put_head(out: &mut BytesMut, kind: Kind, meta: &Meta, codec: CodecId, schema: u8) {
    out.put_slice(&MAGIC);
    out.put_u8(VERSION);
    out.put_u8(match kind {
        Kind::Entry => 0,
        Kind::Tombstone => 1,
        Kind::Mark => 2,
    });
    out.put_u64(meta.stamp.to_bits());
    out.put_u64(meta.born.to_bits());
    out.put_u64(meta.fresh_until.as_millis());
    out.put_u64(meta.stale_until.as_millis());
    out.put_slice(&[codec.0, 0, 0, schema]);
}

fn put_text(out: &mut BytesMut, text: &str) -> Result<()> {
    out.put_u16(short(text.len(), "a key, tag or validator")?);
    out.put_slice(text.as_bytes());
    Ok(())
}

fn short(length: usize, what: &'static str) -> Result<u16> {
    u16::try_from(length)
        .map_err(|_| Error::new(ErrorKind::TooLarge, format!("{what} of {length} is more than 65535")))
}

fn seal(mut out: BytesMut) -> Bytes {
    let checksum = xxh3_64(&out);
    out.put_u64(checksum);
    out.freeze()
}

/// What is left to read; every read that runs over the end is [`Damage::Truncated`].
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take<const N: usize>(&mut self) -> std::result::Result<[u8; N], Damage> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(Damage::Truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u64(&mut self) -> std::result::Result<u64, Damage> {
        self.take().map(u64::from_be_bytes)
    }

    fn u16(&mut self) -> std::result::Result<usize, Damage> {
        self.take().map(|field| usize::from(u16::from_be_bytes(field)))
    }

    fn slice(&mut self, length: usize) -> std::result::Result<&'a [u8], Damage> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Damage::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn text(&mut self) -> std::result::Result<&'a str, Damage> {
        let length = self.u16()?;
        std::str::from_utf8(self.slice(length)?).map_err(|_| Damage::Layout)
    }

    fn key(&mut self, key: &str) -> std::result::Result<(), Damage> {
        let length = self.u16()?;
        if self.slice(length)? != key.as_bytes() { Err(Damage::Key) } else { Ok(()) }
    }

    fn extras(&mut self) -> std::result::Result<Option<Arc<Extras>>, Damage> {
        let count = self.u16()?;
        if count > TAGS_PER_ENTRY_MAX {
            return Err(Damage::Layout);
        }
        let mut tags = Vec::with_capacity(count);
        for _ in 0..count {
            let tag = self.text()?;
            if tag.len() > TAG_BYTES_MAX {
                return Err(Damage::Layout);
            }
            tags.push(Tag::new(tag).map_err(|_| Damage::Layout)?);
        }
        let [validators] = self.take()?;
        if validators & !(HAS_ETAG | HAS_LAST_MODIFIED | HAS_LOAD_TIME | HAS_SLIDING) != 0 {
            return Err(Damage::Layout);
        }
        let mut validator = |bit: u8| -> std::result::Result<Option<Box<str>>, Damage> {
            if validators & bit == 0 { Ok(None) } else { self.text().map(|text| Some(text.into())) }
        };
        let etag = validator(HAS_ETAG)?;
        let last_modified = validator(HAS_LAST_MODIFIED)?;
        let load_time = match validators & HAS_LOAD_TIME {
            0 => None,
            _ => Some(Duration::from_millis(u64::from(u32::from_be_bytes(self.take()?)))),
        };
        let sliding = match validators & HAS_SLIDING {
            0 => None,
            _ => {
                let (idle, ends) = (Duration::from_millis(self.u64()?), Timestamp::from_millis(self.u64()?));
                Some(Sliding { idle, ends })
            }
        };
        let extras = Extras { tags: tags.into_boxed_slice(), etag, last_modified, load_time, sliding };
        Ok((extras != Extras::default()).then(|| Arc::new(extras)))
    }

    fn end(&self) -> std::result::Result<(), Damage> {
        if self.0.is_empty() { Ok(()) } else { Err(Damage::Layout) }
    }
}
