//! What the fuzz target of memcached's answers does with its input, as a plain function.
//!
//! `fuzz/` runs it for as long as one likes, `tests/memcached_replies.rs` over a few thousand inputs in every test run. Both
//! build the decoder from its source: it is nothing that the crate exports.

use bytes::BytesMut;

use super::reply::{Asked, Decoder, Nonsense, Reply, Verb};

/// The largest block that the decoder is told to expect.
const BLOCK_BYTES_MAX: usize = 1_000_000;

/// What was asked, in turn.
pub(crate) const ASKED: [(Verb, &[u8], u32); 5] = [
    (Verb::Get, b"key", 1),
    (Verb::Set, b"key", 2),
    (Verb::Delete, b"other", 3),
    (Verb::Count, b"n", 4),
    (Verb::Noop, b"", 0),
];

/// Decodes what came in pieces of these sizes, over and over, until the input ends or makes no sense.
pub(crate) fn decode(input: &[u8], pieces: &[u8]) -> (Vec<Reply>, Option<Nonsense>) {
    let mut decoder = Decoder::new(BLOCK_BYTES_MAX);
    let (mut buffer, mut replies) = (BytesMut::new(), Vec::new());
    let mut rest = input;
    let mut sizes = pieces.iter().map(|size| usize::from(*size).max(1)).cycle();
    loop {
        let mut asked = ASKED.iter().cycle().skip(replies.len());
        while !buffer.is_empty() {
            let Some(&(verb, key, number)) = asked.next() else { break };
            match decoder.next(&mut buffer, Asked { verb, key, number }, true) {
                Ok(Some(reply)) => replies.push(reply),
                Ok(None) => break,
                Err(nonsense) => return (replies, Some(nonsense)),
            }
        }
        if rest.is_empty() {
            return (replies, None);
        }
        let (piece, others) = rest.split_at(sizes.next().unwrap_or(rest.len()).min(rest.len()));
        buffer.extend_from_slice(piece);
        rest = others;
    }
}

/// However the input is cut, the same comes out, and no more of it than went in.
pub(crate) fn check(input: &[u8], pieces: &[u8]) {
    let whole = decode(input, &[]);
    let cut = decode(input, pieces);
    // A line that is too long may be noticed before or after something else about it.
    assert_eq!(whole.0, cut.0);
    assert_eq!(whole.1.is_some(), cut.1.is_some(), "{:?} and {:?}", whole.1, cut.1);
    let bytes: usize =
        whole.0.iter().map(|reply| if let Reply::Value(bytes, _) = reply { bytes.len() } else { 0 }).sum();
    assert!(bytes <= input.len());
}
