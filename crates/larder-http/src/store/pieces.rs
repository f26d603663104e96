//! The end of a body that is still coming, in memory, readable while it grows. Knows nothing of where the rest is.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

/// The pieces of a body from some position on.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    tail: Mutex<Tail>,
}

#[derive(Debug, Default)]
struct Tail {
    /// Where the first piece begins.
    from: u64,
    bytes: usize,
    pieces: VecDeque<Bytes>,
}

/// What there is at a position.
pub(super) enum At {
    /// This.
    Here(Bytes),
    /// It comes before these pieces, which begin there.
    Before(u64),
    /// It is not there yet.
    NotYet,
}

impl Pieces {
    pub(super) fn push(&self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        let mut tail = self.tail.lock();
        tail.bytes += piece.len();
        tail.pieces.push_back(piece);
    }

    /// How many bytes there are, and where they begin.
    pub(super) fn extent(&self) -> (usize, u64) {
        let tail = self.tail.lock();
        (tail.bytes, tail.from)
    }

    /// What begins at a position: the rest of the piece that it is in.
    pub(super) fn at(&self, at: u64) -> At {
        let tail = self.tail.lock();
        let Some(offset) = at.checked_sub(tail.from) else { return At::Before(tail.from) };
        let Ok(mut offset) = usize::try_from(offset) else { return At::NotYet };
        for piece in &tail.pieces {
            if offset < piece.len() {
                return At::Here(piece.slice(offset..));
            }
            offset -= piece.len();
        }
        At::NotYet
    }

    /// The first bytes as one piece, as many as there are up to a number. They stay.
    pub(super) fn first(&self, bytes: usize) -> Bytes {
        let (pieces, bytes) = {
            let tail = self.tail.lock();
            let mut left = bytes;
            let pieces: Vec<Bytes> = tail
                .pieces
                .iter()
                .map_while(|piece| {
                    let taken = piece.slice(..piece.len().min(left));
                    left -= taken.len();
                    (!taken.is_empty()).then_some(taken)
                })
                .collect();
            (pieces, bytes.min(tail.bytes))
        };
        // Copied even if it is one: a small piece may be cut from a large buffer, which would be kept as a whole.
        let mut all = BytesMut::with_capacity(bytes);
        pieces.iter().for_each(|piece| all.extend_from_slice(piece));
        all.freeze()
    }

    /// Lets go of the first bytes, which are somewhere else now.
    pub(super) fn advance(&self, bytes: usize) {
        let mut tail = self.tail.lock();
        let bytes = bytes.min(tail.bytes);
        tail.bytes -= bytes;
        tail.from += bytes as u64;
        let mut left = bytes;
        while left > 0
            && let Some(mut piece) = tail.pieces.pop_front()
        {
            if piece.len() > left {
                let rest = piece.split_off(left);
                tail.pieces.push_front(rest);
                return;
            }
            left -= piece.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_pushed_is_read_wherever_it_was_cut() {
        let pieces = Pieces::default();
        pieces.push(Bytes::from_static(b"abc"));
        pieces.push(Bytes::new());
        pieces.push(Bytes::from_static(b"defgh"));
        assert_eq!(pieces.extent(), (8, 0));
        assert!(matches!(pieces.at(1), At::Here(piece) if piece == "bc"));
        assert!(matches!(pieces.at(3), At::Here(piece) if piece == "defgh"));
        assert!(matches!(pieces.at(8), At::NotYet));
        assert_eq!(pieces.first(5), "abcde");
        pieces.advance(5);
        assert_eq!(pieces.extent(), (3, 5));
        assert!(matches!(pieces.at(4), At::Before(5)));
        assert!(matches!(pieces.at(6), At::Here(piece) if piece == "gh"));
        assert_eq!(pieces.first(100), "fgh");
        pieces.advance(100);
        assert!(matches!(pieces.at(8), At::NotYet));
    }
}
