//! What a key is called in a server.
//!
//! Knows what the protocol takes: up to 250 bytes without spaces and control characters. Anything else would end the
//! command half-way, and the rest would be taken for the next one.

use std::borrow::Cow;
use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// The longest key that a server takes.
const WIRE_KEY_BYTES_MAX: usize = 250;
/// What a hashed key begins with. A key of a user that begins so is hashed as well, so that the two never meet.
const HASHED: &str = "larder-sha256:";

/// The key as it is if a server takes it, else the SHA-256 of it.
pub(super) fn wire_key(key: &str) -> Cow<'_, str> {
    let fits = (1..=WIRE_KEY_BYTES_MAX).contains(&key.len());
    // Every byte is looked at, many at once, which is faster than to stop at the first that does not do.
    let plain = || key.bytes().fold(true, |plain, byte| plain & (byte > b' ') & (byte != 0x7f));
    if fits && plain() && !key.starts_with(HASHED) {
        return Cow::Borrowed(key);
    }
    let mut hashed = String::with_capacity(HASHED.len() + 64);
    hashed.push_str(HASHED);
    for byte in Sha256::digest(key.as_bytes()) {
        let _ = write!(hashed, "{byte:02x}");
    }
    Cow::Owned(hashed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_takes_stays_as_it_is() {
        for key in ["k", "app:1::user:42", "ж", "%20", "\u{85}", &"k".repeat(250), "larder-sha256"] {
            assert_eq!(wire_key(key), key);
        }
    }

    #[test]
    fn what_it_does_not_take_is_hashed_and_what_looks_hashed_too() {
        let hashed = wire_key("a b").into_owned();
        assert_eq!(
            hashed, "larder-sha256:c8687a08aa5d6ed2044328fa6a697ab8e96dc34291e8c2034ae8c38e6fcc6d65",
            "frozen: other processes look for it there"
        );
        for key in ["", " ", "a\r\nset x 0 0 1\r\n1", "\0", "\t", "\x7f", &"k".repeat(251), &hashed] {
            let wire = wire_key(key);
            assert!(wire.starts_with(HASHED) && wire.len() == HASHED.len() + 64 && wire != key, "{key:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_sent_is_always_one_word(key in ".{0,300}") {
            let wire = wire_key(&key);
            proptest::prop_assert!((1..=WIRE_KEY_BYTES_MAX).contains(&wire.len()));
            proptest::prop_assert!(wire.bytes().all(|byte| byte > b' ' && byte != 0x7f));
        }
    }
}
