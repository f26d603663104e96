//! The decoder of memcached's answers, built from its source: whatever comes in, and however it is cut, no panic, nothing
//! that was not there, and no more memory than has arrived.

#![cfg(feature = "memcached")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, dead_code, reason = "a failing test ends in a panic")]

#[path = "../src/driver/memcached/reply.rs"]
mod reply;

#[path = "bodies/memcached.rs"]
mod bodies;

use bodies::{check, decode};
use bytes::{Bytes, BytesMut};
use reply::{Asked, Decoder, Nonsense, Refusal, Reply, Verb};

/// Answers to what the bodies ask, in order.
const ANSWERS: &[u8] =
    b"VA 7 kkey O1 c12\r\nVA 3\r\n!\r\nHD kkey O2\r\nNF kother O3\r\nVA 2 kn O4\r\n42\r\nMN\r\n\
    EN\r\nNS kkey O2\r\nHD kother O3 t5 s9\r\nSERVER_ERROR out of memory storing object\r\nMN\r\n\
    VA 0 ba2V5 ka2V5 b O1\r\n\r\nEX kkey O2\r\nCLIENT_ERROR bad\x07 command\r\nERROR\r\nMN\r\n";

fn answers() -> Vec<Reply> {
    vec![
        Reply::Value("VA 3\r\n!".into(), 12),
        Reply::Done,
        Reply::Missing,
        Reply::Value("42".into(), 0),
        Reply::Alive,
        Reply::Missing,
        Reply::NotStored,
        Reply::Done,
        Reply::Refused(Refusal::Server("out of memory storing object".to_owned())),
        Reply::Alive,
        Reply::Value(Bytes::new(), 0),
        Reply::Exists,
        Reply::Refused(Refusal::Client("bad command".to_owned())),
        Reply::Refused(Refusal::Unknown),
        Reply::Alive,
    ]
}

#[test]
fn answers_are_read_however_they_are_cut() {
    assert_eq!(decode(ANSWERS, &[]), (answers(), None));
    for size in 1..=255 {
        assert_eq!(decode(ANSWERS, &[size]), (answers(), None), "in pieces of {size}");
    }
    for cut in 0..ANSWERS.len() {
        let (found, nonsense) = decode(&ANSWERS[..cut], &[]);
        assert!(nonsense.is_none(), "what is not all there is not nonsense yet: {cut}");
        assert_eq!(found, answers()[..found.len()], "{cut}");
    }
}

#[test]
fn an_answer_to_another_question_is_none() {
    let asked = Asked { verb: Verb::Get, key: b"key", number: 7 };
    for line in [
        "VA 1 kkey O8\r\nx\r\n",
        "VA 1 kkez O7\r\nx\r\n",
        "VA 1 kkey1 O7\r\nx\r\n",
        "VA 1 k O7\r\nx\r\n",
        "VA 1 O7\r\nx\r\n",
        "VA 1 kkey\r\nx\r\n",
        "VA 1 kkey O\r\nx\r\n",
        "VA 1 kkey O07x\r\nx\r\n",
        "VA 1 kkey O4294967303\r\nx\r\n",
        "VA 1 kkey b O7\r\nx\r\n",
        "HD kkey O7\r\n",
        "NF kkey O7\r\n",
        "EN kkey O8\r\n",
        "EN kother O7\r\n",
        "MN\r\n",
    ] {
        let outcome = Decoder::new(100).next(&mut BytesMut::from(line), asked, true);
        assert_eq!(outcome, Err(Nonsense::Foreign), "{line:?}");
    }
}

#[test]
fn lengths_that_are_lies_cost_nothing() {
    let asked = Asked { verb: Verb::Get, key: b"key", number: 7 };
    for length in
        ["101", "4294967296", "18446744073709551615", "18446744073709551616", "99999999999999999999999"]
    {
        let mut input = BytesMut::from(format!("VA {length} kkey O7\r\n").as_bytes());
        assert!(Decoder::new(100).next(&mut input, asked, true).is_err(), "{length}");
    }
    for length in ["-1", "+1", "0x1", "", " ", "1.0"] {
        let mut input = BytesMut::from(format!("VA {length} kkey O7\r\n").as_bytes());
        assert!(Decoder::new(100).next(&mut input, asked, true).is_err(), "{length}");
    }
    // One that may be true, of which little comes.
    let measured = allocation_counter::measure(|| {
        let mut decoder = Decoder::new(1 << 30);
        let mut input = BytesMut::from(&b"VA 1073741824 kkey O7\r\n"[..]);
        for _ in 0..100 {
            assert_eq!(decoder.next(&mut input, asked, true), Ok(None));
            input.extend_from_slice(&[0; 1_000]);
        }
    });
    assert!(measured.bytes_max < 1_000_000, "{} bytes for 100 000", measured.bytes_max);
    // What nobody wants is not kept at all.
    let measured = allocation_counter::measure(|| {
        let mut decoder = Decoder::new(1 << 30);
        let mut input = BytesMut::from(&b"VA 1000000 kkey O7\r\n"[..]);
        for _ in 0..999 {
            assert_eq!(decoder.next(&mut input, asked, false), Ok(None));
            input.extend_from_slice(&[0; 1_000]);
        }
        input.extend_from_slice(&[0; 1_000]);
        input.extend_from_slice(b"\r\n");
        assert_eq!(decoder.next(&mut input, asked, false), Ok(Some(Reply::Value(Bytes::new(), 0))));
    });
    assert!(measured.bytes_max < 20_000, "{} bytes", measured.bytes_max);
}

#[test]
fn a_line_has_an_end() {
    let asked = Asked { verb: Verb::Noop, key: b"", number: 0 };
    let mut decoder = Decoder::new(100);
    let mut input = BytesMut::new();
    let outcome = (0..100_000).map(|_| {
        input.extend_from_slice(b"SERVER_ERROR ");
        decoder.next(&mut input, asked, true)
    });
    assert_eq!(outcome.take(1_000).find(Result::is_err), Some(Err(Nonsense::TooLong)));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2_000))]

    #[test]
    fn random_bytes_are_read_or_refused(
        input in proptest::collection::vec(proptest::num::u8::ANY, 0..400),
        pieces in proptest::collection::vec(1_u8.., 1..9),
    ) {
        check(&input, &pieces);
    }

    #[test]
    fn answers_with_a_few_wrong_bytes_are_read_or_refused(
        wrong in proptest::collection::vec((0..ANSWERS.len(), proptest::num::u8::ANY), 1..4),
        pieces in proptest::collection::vec(1_u8.., 1..9),
    ) {
        let mut input = ANSWERS.to_vec();
        for (at, byte) in wrong {
            input[at] = byte;
        }
        check(&input, &pieces);
    }
}
