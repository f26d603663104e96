//! However bytes are cut on their way, they are read as the same.

use bytes::BytesMut;
use proptest::prelude::*;

use super::chunked::{Chunked, Piece};
use super::head::{Scan, parse};
use super::target::Scheme;
use super::{Limits, Refusal};

const SMALL: Limits =
    Limits { head_bytes: 200, target_bytes: 40, fields: 5, trailer_bytes: 40, body_bytes: 1000 };

/// What a head says that comes in these pieces, and how much of the bytes it took.
fn head(pieces: &[&[u8]]) -> Result<Option<(String, usize)>, Refusal> {
    let mut scan = Scan::default();
    let mut bytes = Vec::new();
    for piece in pieces {
        bytes.extend_from_slice(piece);
        if let Some(range) = scan.find(&bytes, &SMALL)? {
            let head = parse(&bytes[range.clone()], Scheme::Http, &SMALL)?;
            return Ok(Some((format!("{head:?}"), range.end)));
        }
    }
    Ok(None)
}

/// What content in chunks says that comes in these pieces, and how much of the bytes was left.
fn chunks(pieces: &[&[u8]]) -> (Vec<u8>, Result<Option<String>, Refusal>, usize) {
    let mut chunked = Chunked::new(SMALL);
    let (mut content, mut input) = (Vec::new(), BytesMut::new());
    for (at, piece) in pieces.iter().enumerate() {
        input.extend_from_slice(piece);
        loop {
            match chunked.next(&mut input) {
                Ok(Some(Piece::Data(data))) => content.extend_from_slice(&data),
                Ok(Some(Piece::End(trailers))) => {
                    let left = input.len() + pieces[at + 1..].iter().map(|piece| piece.len()).sum::<usize>();
                    return (content, Ok(Some(format!("{trailers:?}"))), left);
                }
                Ok(None) => break,
                Err(refusal) => return (content, Err(refusal), 0),
            }
        }
    }
    (content, Ok(None), 0)
}

fn bytewise(input: &[u8]) -> Vec<&[u8]> {
    input.chunks(1).collect()
}

/// What heads are made of, right and wrong.
fn words(of: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        9 => prop::sample::select(of).prop_map(|word| word.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(word, 0..14).prop_map(|words| words.concat())
}

const OF_HEADS: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: a\r\n",
    "POST http://a/b?c HTTP/1.1\r\nhost: a\r\n",
    "\r\n",
    "\r\n\r\n",
    "\n",
    "\r",
    "GET ",
    " HTTP/1.0\r\n",
    "Host: a\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 6\r\n",
    "Transfer-Encoding: chunked\r\n",
    "X: y\r\n",
    "Connection: close, upgrade\r\n",
    " ",
    ":",
    "\t",
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
];

const OF_CHUNKS: &[&str] = &[
    "5\r\nabcde\r\n",
    "1;x=y\r\na\r\n",
    "0\r\n",
    "0\r\n\r\n",
    "\r\n",
    "\n",
    "\r",
    "X: y\r\n",
    "ff",
    "5",
    ";",
    " ",
    "abcde",
    "GET /",
];

proptest! {
    #[test]
    fn a_head_is_the_same_wherever_it_is_cut(input in words(OF_HEADS), cut in any::<prop::sample::Index>()) {
        let whole = head(&[&input]);
        let (first, second) = input.split_at(cut.index(input.len() + 1));
        prop_assert_eq!(&head(&[first, second]), &whole);
        prop_assert_eq!(&head(&bytewise(&input)), &whole);
    }

    #[test]
    fn chunks_are_the_same_wherever_they_are_cut(input in words(OF_CHUNKS), cut in any::<prop::sample::Index>()) {
        let whole = chunks(&[&input]);
        let (first, second) = input.split_at(cut.index(input.len() + 1));
        prop_assert_eq!(&chunks(&[first, second]), &whole);
        prop_assert_eq!(&chunks(&bytewise(&input)), &whole);
    }

    #[test]
    fn what_is_accepted_has_one_host_and_one_length(input in words(OF_HEADS)) {
        let mut scan = Scan::default();
        let Ok(Some(range)) = scan.find(&input, &SMALL) else { return Ok(()) };
        let Ok(head) = parse(&input[range], Scheme::Http, &SMALL) else { return Ok(()) };
        let count = |name| head.headers.get_all(name).iter().count();
        prop_assert!(count("host") <= 1);
        prop_assert!(count("content-length") + count("transfer-encoding") <= 1);
        prop_assert!(head.uri.authority().is_some() || head.version == http::Version::HTTP_10);
    }
}
