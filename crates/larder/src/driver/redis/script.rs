//! The two scripts that run beside the data: the conditional write, and the removal that spares what is newer.
//!
//! Knows the scripts, their arguments and their answers, and nothing of connections. Where the stamp is in a record
//! ([`stamp_of`](crate::entry::wire::stamp_of)) is said here once more, in the server's language.

use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use redis::{Cmd, Script, Value, cmd};

use super::failure;
use crate::driver::{When, Write, Written};
use crate::error::Result;
use crate::time::Stamp;

/// The longest TTL that is passed on, in milliseconds: 285 000 years. The server adds the time of day and
/// refuses what does not fit 63 bits.
const TTL_MS_MAX: u64 = 1 << 53;

/// Compares stamps byte by byte: Lua's numbers are doubles, which lose the last bits of a stamp, and its `<` on
/// strings collates by the locale of the server.
macro_rules! older {
    () => {
        "local function older(a, b)
  for at = 1, 8 do
    local x, y = string.byte(a, at), string.byte(b, at)
    if x ~= y then return x < y end
  end
  return false
end
"
    };
}

/// KEYS: the key. ARGV: the record; the TTL in milliseconds, or nothing; A, N or U; for U the stamp, or nothing.
///
/// What is no string counts as a value without a stamp, as bytes that are too short do. Answers 1 and the head
/// that was replaced, or 0 and the stamp that refused; each without its second part if there is none.
const SET: &str = concat!(
    older!(),
    "local head, there = redis.pcall('GETRANGE', KEYS[1], 0, 39), true
if type(head) == 'table' then
  head = ''
elseif head == '' then
  there = redis.call('EXISTS', KEYS[1]) == 1
end
local stamp = #head >= 12 and string.sub(head, 5, 12)
local allowed = ARGV[3] == 'A'
if ARGV[3] == 'N' then
  allowed = not stamp or (#ARGV[1] >= 12 and older(stamp, string.sub(ARGV[1], 5, 12)))
elseif ARGV[3] == 'U' then
  if ARGV[4] == '' then allowed = not there else allowed = stamp == ARGV[4] end
end
if not allowed then return stamp and {0, stamp} or {0} end
if ARGV[2] == '' then
  redis.call('SET', KEYS[1], ARGV[1])
else
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return there and {1, head} or {1}
"
);

/// KEYS: the keys. ARGV: the newest stamp that goes. Answers how many went.
const CLEAR: &str = concat!(
    older!(),
    "local gone = 0
for _, key in ipairs(KEYS) do
  local stamp = redis.pcall('GETRANGE', key, 4, 11)
  if type(stamp) == 'table' or #stamp < 8 or not older(ARGV[1], stamp) then
    gone = gone + redis.call('UNLINK', key)
  end
end
return gone
"
);

static SET_HASH: LazyLock<String> = LazyLock::new(|| Script::new(SET).get_hash().to_owned());
static CLEAR_HASH: LazyLock<String> = LazyLock::new(|| Script::new(CLEAR).get_hash().to_owned());

/// How a script is named: by its text, which the server then keeps, or by the hash of what it has kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    ByText,
    ByHash,
}

impl Named {
    fn command(self, text: &str, hash: &str) -> Cmd {
        match self {
            Self::ByText => cmd("EVAL").arg(text).to_owned(),
            Self::ByHash => cmd("EVALSHA").arg(hash).to_owned(),
        }
    }
}

/// The command that stores a record if its condition allows it.
pub(super) fn set(named: Named, write: &Write) -> Cmd {
    let mut command = named.command(SET, &SET_HASH);
    command.arg(1).arg(&write.key).arg(&write.value[..]);
    match write.ttl {
        Some(ttl) => command.arg(milliseconds(ttl)),
        None => command.arg(""),
    };
    match write.when {
        When::Always => command.arg("A"),
        When::Newer => command.arg("N"),
        When::Unchanged(None) => command.arg("U").arg(""),
        When::Unchanged(Some(stamp)) => command.arg("U").arg(&stamp.to_bits().to_be_bytes()),
    };
    command
}

/// What the answer of [`set`] says.
pub(super) fn written(answer: Value) -> Result<Written> {
    let Value::Array(parts) = answer else { return Err(failure::unexpected("set", &answer)) };
    let mut parts = parts.into_iter();
    let second = |part: Option<Value>| match part {
        Some(Value::BulkString(bytes)) => Some(Bytes::from(bytes)),
        _ => None,
    };
    match parts.next() {
        Some(Value::Int(1)) => Ok(Written::Stored { previous: second(parts.next()) }),
        Some(Value::Int(0)) => {
            let stamp = second(parts.next()).and_then(|stamp| stamp.first_chunk().copied());
            Ok(Written::Refused { by: stamp.map(|bits| Stamp::from_bits(u64::from_be_bytes(bits))) })
        }
        other => Err(failure::unexpected("set", &other.unwrap_or(Value::Nil))),
    }
}

/// The command that removes keys whose record is not newer than a stamp.
pub(super) fn clear(named: Named, keys: &[Vec<u8>], until: Stamp) -> Cmd {
    let mut command = named.command(CLEAR, &CLEAR_HASH);
    command.arg(keys.len()).arg(keys).arg(&until.to_bits().to_be_bytes());
    command
}

/// A TTL as the server takes it: rounded up, never nothing, and never beyond what it can add to the time.
fn milliseconds(ttl: Duration) -> u64 {
    let rounded = ttl.as_nanos().div_ceil(1_000_000);
    u64::try_from(rounded).unwrap_or(TTL_MS_MAX).clamp(1, TTL_MS_MAX)
}

/// Whether every record that can be is older than this, so that looking at it is not needed.
pub(super) fn takes_all(until: Stamp) -> bool {
    until == Stamp::MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::wire::stamp_of;

    #[test]
    fn a_ttl_is_rounded_up_and_bounded() {
        for (nanos, expected) in [(0, 1), (1, 1), (1_000_000, 1), (1_000_001, 2), (30_500_000, 31)] {
            assert_eq!(milliseconds(Duration::from_nanos(nanos)), expected, "{nanos} ns");
        }
        assert_eq!(milliseconds(Duration::MAX), TTL_MS_MAX);
        assert_eq!(milliseconds(Duration::from_millis(u64::MAX)), TTL_MS_MAX);
    }

    #[test]
    fn answers_are_read_or_refused() {
        let head = || Value::BulkString(vec![7; 40]);
        let stored = written(Value::Array(vec![Value::Int(1), head()])).unwrap();
        assert_eq!(stored, Written::Stored { previous: Some(vec![7; 40].into()) });
        assert_eq!(written(Value::Array(vec![Value::Int(1)])).unwrap(), Written::Stored { previous: None });
        assert_eq!(written(Value::Array(vec![Value::Int(0)])).unwrap(), Written::Refused { by: None });
        let stamp = Value::BulkString(9_u64.to_be_bytes().to_vec());
        let refused = written(Value::Array(vec![Value::Int(0), stamp])).unwrap();
        assert_eq!(refused, Written::Refused { by: Some(Stamp::from_bits(9)) });
        for nonsense in [Value::Nil, Value::Okay, Value::Array(vec![]), Value::Array(vec![Value::Int(2)])] {
            assert!(written(nonsense).is_err());
        }
    }

    #[test]
    fn the_scripts_look_where_the_stamp_is() {
        let mut record = vec![0; 40];
        record[4..12].copy_from_slice(&5_u64.to_be_bytes());
        assert_eq!(stamp_of(&record), Some(Stamp::from_bits(5)), "Lua's 5 to 12, and GETRANGE's 4 to 11");
        assert!(SET.contains("GETRANGE', KEYS[1], 0, 39") && crate::entry::wire::HEAD_BYTES == 40);
    }
}
