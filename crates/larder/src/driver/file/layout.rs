//! Names and bytes of files, frozen since layout 1. Touches no file.
//!
//! ```text
//! directory/.larder                 the marker: what this directory is, and how it is laid out
//! directory/.locks/00 … 3f          locked by whoever changes an entry
//! directory/ab/cd/abcd….larder      an entry: xxh3-128 of its key in hex
//! directory/ab/cd/.new-…            an entry that is being written
//!
//! 0..3 "LdF"   3 version, 1   4..12 until when to keep it, epoch ms; all ones is forever
//! 12..14 key length   14..22 value length   key   xxh3-64 of all before it   value
//! ```
//!
//! Numbers are big-endian. The value carries a checksum of its own; this one makes sure that a file which is
//! removed for being expired is.

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::{FileOptions, LEVELS_MAX};
use crate::error::{Error, ErrorKind, Result};
use crate::key::KEY_BYTES_MAX;
use crate::time::Timestamp;

/// The marker's file name. Names that begin with it are ours, too.
pub(super) const MARKER: &str = ".larder";
/// Where the lock files are.
pub(super) const LOCKS: &str = ".locks";
/// What the name of a file that is being written begins with.
pub(super) const NEW: &str = ".new-";
/// How many writers at most can work side by side.
pub(super) const STRIPES: usize = 64;

const MAGIC: &[u8; 4] = b"LdF\x01";
const FIXED_BYTES: usize = 22;
const CHECKSUM_BYTES: usize = 8;
const HEX_DIGITS: usize = 32;
const SUFFIX_BYTES_MAX: usize = 32;
/// The longest header; what has to be read of a file to know all but its value.
pub(super) const HEADER_BYTES_MAX: usize = FIXED_BYTES + KEY_BYTES_MAX + CHECKSUM_BYTES;

/// Refuses options that make no layout.
pub(super) fn check(options: &FileOptions) -> Result<()> {
    if options.levels > LEVELS_MAX {
        let message = format!("{} levels of directories are more than {LEVELS_MAX}", options.levels);
        return Err(Error::new(ErrorKind::Config, message));
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if options.suffix.len() > SUFFIX_BYTES_MAX || !options.suffix.bytes().all(allowed) {
        let message =
            format!("the suffix {:?} is not one of file names that are safe everywhere", options.suffix);
        return Err(Error::new(ErrorKind::Config, message));
    }
    if options.max_bytes == Some(0) {
        return Err(Error::new(ErrorKind::Config, "a file cache of at most 0 bytes can hold nothing"));
    }
    Ok(())
}

/// What the marker says.
pub(super) fn marker(options: &FileOptions) -> String {
    format!(
        "This directory is a cache made by larder. Its files may be deleted at any time.\nlayout 1, levels {}, suffix {}\n",
        options.levels, options.suffix
    )
}

/// Where the entry of a key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    hex: String,
    /// The file's name in its directory.
    pub(super) name: String,
    /// Which lock is held to change it.
    pub(super) stripe: usize,
    levels: usize,
}

impl Place {
    pub(super) fn of(key: &str, levels: u8, suffix: &str) -> Self {
        Self::new(xxh3_128(key.as_bytes()), levels, suffix)
    }

    /// The place that a file name belongs to; `None` if it is not the name of an entry.
    pub(super) fn named(name: &str, levels: u8, suffix: &str) -> Option<Self> {
        let hex = name.strip_suffix(suffix)?;
        let lower = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
        if hex.len() != HEX_DIGITS || !hex.bytes().all(lower) {
            return None;
        }
        u128::from_str_radix(hex, 16).ok().map(|hash| Self::new(hash, levels, suffix))
    }

    fn new(hash: u128, levels: u8, suffix: &str) -> Self {
        let hex = format!("{hash:032x}");
        let name = format!("{hex}{suffix}");
        // The last digits: the first ones, which name the directories, would let one lock cover a directory.
        let stripe = (hash % STRIPES as u128) as usize;
        Self { hex, name, stripe, levels: usize::from(levels) }
    }

    /// The names of the directories that lead to it.
    pub(super) fn levels(&self) -> impl Iterator<Item = &str> {
        (0..self.levels).filter_map(|level| self.hex.get(2 * level..2 * level + 2))
    }
}

/// Whether a name is that of a directory between the root and the entries.
pub(super) fn is_level(name: &str) -> bool {
    name.len() == 2 && name.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'))
}

/// What stands before a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header<'a> {
    pub(super) key: &'a str,
    pub(super) until: Timestamp,
    /// The header's own length.
    pub(super) bytes: usize,
}

impl Header<'_> {
    /// Whether the entry is to be kept at `now`.
    pub(super) fn is_alive(&self, now: Timestamp) -> bool {
        now < self.until || self.until == Timestamp::FOREVER
    }
}

/// The header of a value. The key is no longer than [`KEY_BYTES_MAX`].
pub(super) fn encode(key: &str, until: Timestamp, value_bytes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(FIXED_BYTES + key.len() + CHECKSUM_BYTES);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&until.as_millis().to_be_bytes());
    out.extend_from_slice(&u16::try_from(key.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(&(value_bytes as u64).to_be_bytes());
    out.extend_from_slice(key.as_bytes());
    let checksum = xxh3_64(&out);
    out.extend_from_slice(&checksum.to_be_bytes());
    out
}

/// Reads the header from the beginning of a file of `file_bytes`. `None` for what this driver did not write
/// whole: a file that is longer or shorter than it says is damaged, too.
pub(super) fn decode(start: &[u8], file_bytes: u64) -> Option<Header<'_>> {
    let rest = start.strip_prefix(MAGIC)?;
    let (until, rest) = rest.split_first_chunk()?;
    let (key_bytes, rest) = rest.split_first_chunk()?;
    let (value_bytes, rest) = rest.split_first_chunk()?;
    let key_bytes = usize::from(u16::from_be_bytes(*key_bytes));
    let (key, rest) = rest.split_at_checked(key_bytes)?;
    let checksum = rest.first_chunk()?;
    if xxh3_64(start.get(..FIXED_BYTES + key_bytes)?) != u64::from_be_bytes(*checksum) {
        return None;
    }
    let bytes = FIXED_BYTES + key_bytes + CHECKSUM_BYTES;
    if (bytes as u64).checked_add(u64::from_be_bytes(*value_bytes))? != file_bytes {
        return None;
    }
    let until = Timestamp::from_millis(u64::from_be_bytes(*until));
    Some(Header { key: std::str::from_utf8(key).ok()?, until, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_frozen() {
        let place = Place::of("app:1:users:42", 2, ".larder");
        assert_eq!(place.name, format!("{:032x}.larder", xxh3_128(b"app:1:users:42")));
        assert_eq!(place.levels().collect::<Vec<_>>(), [&place.name[..2], &place.name[2..4]]);
        assert_eq!(Place::named(&place.name, 2, ".larder"), Some(place));
        let header = encode("k", Timestamp::from_millis(0x0102), 3);
        assert_eq!(&header[..23], b"LdF\x01\0\0\0\0\0\0\x01\x02\0\x01\0\0\0\0\0\0\0\x03k");
        assert_eq!(header[23..], xxh3_64(&header[..23]).to_be_bytes());
    }

    #[test]
    fn only_names_of_entries_are_taken_for_them() {
        let hex = "0123456789abcdef0123456789abcdef";
        assert!(Place::named(&format!("{hex}.larder"), 2, ".larder").is_some());
        for name in
            ["", ".larder", ".new-1", &format!("{hex}.bak"), &format!("x{hex}.larder"), &hex.to_uppercase()]
        {
            assert_eq!(Place::named(name, 2, ".larder"), None, "{name}");
        }
        assert!(is_level("a0") && !is_level("A0") && !is_level("..") && !is_level("a") && !is_level("abc"));
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_of_a_header_is_damage() {
        let header = encode("key", Timestamp::from_millis(77), 100);
        let whole = header.len() as u64 + 100;
        let decoded = Header { key: "key", until: Timestamp::from_millis(77), bytes: header.len() };
        assert_eq!(decode(&header, whole), Some(decoded));
        for length in 0..header.len() {
            assert_eq!(decode(&header[..length], whole), None);
        }
        for bit in 0..header.len() * 8 {
            let mut flipped = header.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&flipped, whole), None, "bit {bit}");
        }
        assert_eq!(decode(&header, whole - 1), None);
        assert_eq!(decode(&header, whole + 1), None);
        let endless = encode("key", Timestamp::FOREVER, usize::MAX);
        assert_eq!(decode(&endless, u64::MAX), None);
    }
}
