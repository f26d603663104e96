//! What a command printed and how it ended, as bytes: kept in a store, and passed from the one invocation
//! that ran it to those that waited. Knows nothing of processes.
//!
//! All numbers are big-endian:
//!
//! ```text
//! "LrO"  version, 1    u64 length, identity    u8 kind of ending, i32 its number
//! u64 number of chunks, each: u8 stream (1 output, 2 error), u64 length, bytes
//! ```
//!
//! Decoding never panics and allocates no more than the input is long; whatever is not whole is nothing.

use bytes::{Buf, BufMut, Bytes, BytesMut};

const MAGIC: &[u8] = b"LrO\x01";

/// Where a command wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It exited with this status.
    Exit(i32),
    /// It died of this signal.
    Signal(i32),
    /// It printed more than is kept: what it printed is not here.
    TooLarge,
}

impl Ending {
    /// The exit status that tells a shell the same.
    pub(crate) fn status(self) -> u8 {
        match self {
            Self::Exit(status) => u8::try_from(status & 0xff).unwrap_or(u8::MAX),
            Self::Signal(signal) => u8::try_from(signal.saturating_add(128)).unwrap_or(u8::MAX),
            Self::TooLarge => crate::failure::RUN_FAILED,
        }
    }

    fn encode(self) -> (u8, i32) {
        match self {
            Self::Exit(status) => (0, status),
            Self::Signal(signal) => (1, signal),
            Self::TooLarge => (2, 0),
        }
    }

    fn decode(kind: u8, number: i32) -> Option<Self> {
        match kind {
            0 => Some(Self::Exit(number)),
            1 => Some(Self::Signal(number)),
            2 => Some(Self::TooLarge),
            _ => None,
        }
    }
}

/// What a command prints, while it prints it: kept up to a limit, and nothing beyond it.
#[derive(Debug)]
pub(crate) struct Tape {
    chunks: Vec<(Stream, BytesMut)>,
    /// How many more bytes fit; `None` once they did not.
    room: Option<u64>,
}

impl Tape {
    /// A tape for this many bytes.
    pub(crate) fn new(room: Option<u64>) -> Self {
        Self { chunks: Vec::new(), room }
    }

    /// Adds what was written to a stream, or forgets everything if it is too much.
    pub(crate) fn record(&mut self, stream: Stream, bytes: &[u8]) {
        let Some(room) = self.room else { return };
        self.room = room.checked_sub(bytes.len() as u64);
        if self.room.is_none() {
            self.chunks = Vec::new();
            return;
        }
        match self.chunks.last_mut() {
            Some((last, chunk)) if *last == stream => chunk.extend_from_slice(bytes),
            _ => self.chunks.push((stream, BytesMut::from(bytes))),
        }
    }

    /// The whole as bytes, under the identity of its command. Without what was printed if that was too much.
    pub(crate) fn finish(self, identity: &[u8], ending: Ending) -> (Ending, Bytes) {
        let ending = if self.room.is_none() { Ending::TooLarge } else { ending };
        let printed: usize = self.chunks.iter().map(|(_, chunk)| 9 + chunk.len()).sum();
        let mut out = BytesMut::with_capacity(MAGIC.len() + 8 + identity.len() + 5 + 8 + printed);
        out.put_slice(MAGIC);
        out.put_u64(identity.len() as u64);
        out.put_slice(identity);
        let (kind, number) = ending.encode();
        out.put_u8(kind);
        out.put_i32(number);
        out.put_u64(self.chunks.len() as u64);
        for (stream, chunk) in &self.chunks {
            out.put_u8(match stream {
                Stream::Output => 1,
                Stream::Error => 2,
            });
            out.put_u64(chunk.len() as u64);
            out.put_slice(chunk);
        }
        (ending, out.freeze())
    }
}

/// What a command printed and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recording {
    /// How it ended.
    pub(crate) ending: Ending,
    /// What it printed, in order: slices of what was decoded, not copies.
    pub(crate) chunks: Vec<(Stream, Bytes)>,
}

impl Recording {
    /// Reads what [`Tape::finish`] made for this very identity. `None` for anything else.
    pub(crate) fn decode(mut bytes: Bytes, identity: &[u8]) -> Option<Self> {
        if take(&mut bytes, MAGIC.len())? != MAGIC || take_counted(&mut bytes)? != identity {
            return None;
        }
        let kind = bytes.try_get_u8().ok()?;
        let ending = Ending::decode(kind, bytes.try_get_i32().ok()?)?;
        let count = bytes.try_get_u64().ok()?;
        let mut chunks = Vec::new();
        for _ in 0..count {
            let stream = match bytes.try_get_u8().ok()? {
                1 => Stream::Output,
                2 => Stream::Error,
                _ => return None,
            };
            chunks.push((stream, take_counted(&mut bytes)?));
        }
        bytes.is_empty().then_some(Self { ending, chunks })
    }
}

fn take_counted(bytes: &mut Bytes) -> Option<Bytes> {
    let length = bytes.try_get_u64().ok()?;
    take(bytes, usize::try_from(length).ok()?)
}

fn take(bytes: &mut Bytes, length: usize) -> Option<Bytes> {
    (length <= bytes.len()).then(|| bytes.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden() -> Bytes {
        let mut tape = Tape::new(Some(100));
        tape.record(Stream::Output, b"a\0");
        tape.record(Stream::Output, b"\xff");
        tape.record(Stream::Error, b"b");
        tape.record(Stream::Output, b"c");
        tape.finish(b"id", Ending::Exit(3)).1
    }

    #[test]
    fn what_was_printed_comes_back_in_order_and_by_stream() {
        let recording = Recording::decode(golden(), b"id").unwrap();
        assert_eq!(recording.ending, Ending::Exit(3));
        let chunks: Vec<_> = recording.chunks.iter().map(|(stream, chunk)| (*stream, &chunk[..])).collect();
        assert_eq!(
            chunks,
            [(Stream::Output, &b"a\0\xff"[..]), (Stream::Error, b"b"), (Stream::Output, b"c")]
        );
    }

    #[test]
    fn the_bytes_are_frozen() {
        let mut expected = b"LrO\x01\0\0\0\0\0\0\0\x02id\0\0\0\0\x03\0\0\0\0\0\0\0\x03".to_vec();
        expected.extend_from_slice(
            b"\x01\0\0\0\0\0\0\0\x03a\0\xff\x02\0\0\0\0\0\0\0\x01b\x01\0\0\0\0\0\0\0\x01c",
        );
        assert_eq!(golden(), expected);
    }

    #[test]
    fn another_identity_a_truncation_or_more_bytes_are_nothing() {
        let golden = golden();
        assert!(Recording::decode(golden.clone(), b"ie").is_none());
        for length in 0..golden.len() {
            assert!(Recording::decode(golden.slice(..length), b"id").is_none(), "{length}");
        }
        let mut longer = BytesMut::from(&golden[..]);
        longer.put_u8(0);
        assert!(Recording::decode(longer.freeze(), b"id").is_none());
    }

    #[test]
    fn lengths_that_lie_allocate_nothing() {
        let golden = golden();
        for at in 0..golden.len() {
            let mut bytes = BytesMut::from(&golden[..]);
            bytes[at] = 0xff;
            // Whatever comes out is no larger than what went in; mostly, nothing does.
            let _ = Recording::decode(bytes.freeze(), b"id");
        }
    }

    #[test]
    fn too_much_is_forgotten_and_said_to_be() {
        let mut tape = Tape::new(Some(3));
        tape.record(Stream::Output, b"ab");
        tape.record(Stream::Error, b"cd");
        tape.record(Stream::Output, b"e");
        let (ending, bytes) = tape.finish(b"id", Ending::Exit(0));
        assert_eq!(ending, Ending::TooLarge);
        assert_eq!(Recording::decode(bytes, b"id").unwrap().chunks, []);
    }

    #[test]
    fn endings_become_the_statuses_of_a_shell() {
        assert_eq!(Ending::Exit(7).status(), 7);
        assert_eq!(Ending::Signal(15).status(), 143);
    }
}
