//! `Via` (RFC 9110 section 7.6.3): who passed a message on, and whether it goes round in circles.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;

use http::header::VIA;
use http::{HeaderMap, HeaderValue, StatusCode, Version};

use crate::proxy::Refusal;

/// The most that a request may have come through, whoever they were.
const HOPS_MAX: usize = 64;

/// What we are called in `Via`: by default a name that no other process has, so that one Larder behind another is no loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pseudonym(Arc<str>);

impl Pseudonym {
    /// A name of one's own; `None` if it is not a token.
    pub(crate) fn new(name: &str) -> Option<Self> {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:".contains(&byte);
        (!name.is_empty() && name.len() <= 255 && name.bytes().all(token)).then(|| Self(name.into()))
    }
}

impl Default for Pseudonym {
    fn default() -> Self {
        // Not a secret, only not the same twice.
        let number = RandomState::new().build_hasher().finish() & 0xffff_ffff;
        Self(format!("larder-{number:08x}").into())
    }
}

impl fmt::Display for Pseudonym {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Says that a request came through here.
//= https://www.rfc-editor.org/rfc/rfc9110#section-7.6.3
//# A proxy MUST send an appropriate Via header field, as described below, in
//# each message that it forwards.
//= https://www.rfc-editor.org/rfc/rfc9110#section-7.6.3
//# An HTTP-to-HTTP gateway MUST send an appropriate Via header field in
//# each inbound request message and MAY send a Via header field in
//# forwarded response messages.
pub(super) fn add(headers: &mut HeaderMap, version: Version, pseudonym: &Pseudonym) {
    let version = match version {
        Version::HTTP_09 => "0.9",
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2.0",
        Version::HTTP_3 => "3.0",
        _ => "1.1",
    };
    if let Ok(value) = HeaderValue::try_from(format!("{version} {pseudonym}")) {
        headers.append(VIA, value);
    }
}

/// Refuses what has been here before, and what has been nearly everywhere.
pub(super) fn refuse_loop(headers: &HeaderMap, pseudonym: &Pseudonym) -> Result<(), Refusal> {
    let mut hops = 0;
    for value in headers.get_all(VIA) {
        for hop in received_by(value.as_bytes()) {
            hops += 1;
            if hop.eq_ignore_ascii_case(pseudonym.0.as_bytes()) {
                return Err(Refusal {
                    status: StatusCode::LOOP_DETECTED,
                    why: "the request goes round in circles",
                });
            }
        }
    }
    if hops > HOPS_MAX {
        return Err(Refusal {
            status: StatusCode::LOOP_DETECTED,
            why: "the request came through too many proxies",
        });
    }
    Ok(())
}

/// By whom each member of a `Via` was received. What stands in comments is skipped: anything may.
fn received_by(value: &[u8]) -> Vec<Vec<u8>> {
    let mut members = vec![Vec::new()];
    let (mut depth, mut escaped) = (0_usize, false);
    for byte in value {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if depth > 0 => escaped = true,
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            _ if depth > 0 => {}
            b',' => members.push(Vec::new()),
            _ => {
                if let Some(member) = members.last_mut() {
                    member.push(*byte);
                }
            }
        }
    }
    let second = |member: &Vec<u8>| {
        let mut words = member.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
        words.nth(1).map(<[u8]>::to_vec)
    };
    members.iter().filter_map(second).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looped(via: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.append(VIA, HeaderValue::from_static("1.0 first"));
        headers.append(VIA, HeaderValue::from_bytes(via.as_bytes()).unwrap());
        refuse_loop(&headers, &Pseudonym::new("me").unwrap()).is_err()
    }

    #[test]
    fn a_loop_is_seen_and_nothing_else_is_one() {
        for via in
            ["1.1 me", "1.1 a, 1.1 ME", "HTTP/1.1\tme (larder)", "1.1 a (x, \\) y), 1.1 me", ",,1.1 me,"]
        {
            assert!(looped(via), "{via}");
        }
        for via in [
            "",
            "1.1 a",
            "me",
            "1.1 you (1.1 me)",
            "1.1 a (, 1.1 me",
            "1.1 a (\\), 1.1 me)",
            "1.1 me.example",
        ] {
            assert!(!looped(via), "{via}");
        }
        assert!(looped(&"1.1 a,".repeat(HOPS_MAX)));
    }

    #[test]
    fn pseudonyms_are_tokens_and_differ() {
        assert!(Pseudonym::new("edge-1.example:80").is_some());
        for name in ["", "a b", "a,b", "a\r\n", "ä", "a(b"] {
            assert!(Pseudonym::new(name).is_none(), "{name}");
        }
        assert_ne!(Pseudonym::default(), Pseudonym::default());
    }
}
