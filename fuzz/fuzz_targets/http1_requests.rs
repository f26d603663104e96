//! Requests of any bytes through what the proxy reads of HTTP/1.1: however they are cut, they say the same, and what is
//! accepted has one host and one length.
#![no_main]

#[allow(dead_code, reason = "responses are written elsewhere")]
#[path = "../../crates/larder-cli/src/proxy/http1/wire/mod.rs"]
mod wire;

use bytes::BytesMut;
use wire::chunked::{Chunked, Piece};
use wire::head::{Length, Scan, parse};
use wire::target::Scheme;
use wire::{Limits, Refusal};

const LIMITS: Limits =
    Limits { head_bytes: 4096, target_bytes: 512, fields: 20, trailer_bytes: 256, body_bytes: 1 << 20 };

/// A request and its content in chunks, if it has such, as text, and how much of the bytes they took.
fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<Option<(String, usize)>, Refusal> {
    let mut scan = Scan::default();
    let mut chunked: Option<(String, Chunked)> = None;
    let (mut bytes, mut input, mut came) = (Vec::new(), BytesMut::new(), 0);
    for piece in pieces {
        came += piece.len();
        if chunked.is_some() {
            input.extend_from_slice(piece);
        } else {
            bytes.extend_from_slice(piece);
            let Some(range) = scan.find(&bytes, &LIMITS)? else { continue };
            let head = parse(&bytes[range.clone()], Scheme::Http, &LIMITS)?;
            let count = |name| head.headers.get_all(name).iter().count();
            assert!(count("host") <= 1);
            assert!(count("content-length") + count("transfer-encoding") <= 1);
            assert!(
                head.uri.authority().is_some() || head.uri == "*" || head.version == http::Version::HTTP_10
            );
            let said = format!("{head:?}");
            if head.length != Length::Chunked {
                return Ok(Some((said, range.end)));
            }
            chunked = Some((said, Chunked::new(LIMITS)));
            input.extend_from_slice(&bytes[range.end..]);
        }
        let Some((said, chunked)) = &mut chunked else { continue };
        while let Some(piece) = chunked.next(&mut input)? {
            match piece {
                Piece::Data(data) => said.extend(data.iter().map(|byte| format!("{byte:02x}"))),
                Piece::End(trailers) => return Ok(Some((format!("{said}{trailers:?}"), came - input.len()))),
            }
        }
    }
    Ok(None)
}

libfuzzer_sys::fuzz_target!(|input: (u16, &[u8])| {
    let (cut, bytes) = input;
    let whole = read(std::iter::once(bytes));
    let (first, second) = bytes.split_at(usize::from(cut) % (bytes.len() + 1));
    assert_eq!(read([first, second].into_iter()), whole);
    assert_eq!(read(bytes.chunks(1)), whole);
});
