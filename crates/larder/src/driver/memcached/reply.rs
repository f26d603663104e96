//! What a server answers: lines of the meta protocol, some with a block of bytes behind them.
//!
//! Knows bytes, and nothing of connections; `fuzz/` and `tests/` build this file on its own. Whatever comes in: no
//! panic, no allocation beyond what has arrived, and no answer that does not name the command it belongs to.

use std::io::BufRead as _;

use bytes::{Buf as _, Bytes, BytesMut};

/// The longest line that makes sense: 250 bytes of key, a few flags; or an error in words.
pub(crate) const LINE_BYTES_MAX: usize = 2_048;
/// How much room for a block is made before any of it has come.
const BLOCK_BYTES_FIRST: usize = 64 * 1024;
/// How much of a server's words is kept.
const WORDS_CHARS_MAX: usize = 120;

/// The commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// `mg`
    Get,
    /// `ms`
    Set,
    /// `md`
    Delete,
    /// `ma`
    Count,
    /// `mn`
    Noop,
}

/// What an answer has to name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'k> {
    pub(crate) verb: Verb,
    pub(crate) key: &'k [u8],
    /// The number that was sent with the command.
    pub(crate) number: u32,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// `VA`; the second is what the server calls this version of the item, zero if it was not asked.
    Value(Bytes, u64),
    /// `HD`: done.
    Done,
    /// `EN`, `NF`: there is nothing.
    Missing,
    /// `NS`: something is there, or nothing, and the mode wanted it otherwise.
    NotStored,
    /// `EX`: another version is there.
    Exists,
    /// `MN`
    Alive,
    /// The server refuses, in its words.
    Refused(Refusal),
}

/// Whose fault it is, as the server sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// `SERVER_ERROR`
    Server(String),
    /// `CLIENT_ERROR`
    Client(String),
    /// `ERROR`: no such command.
    Unknown,
}

/// Why what came is no answer to what was asked. The connection cannot be used any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nonsense {
    /// It is not in the protocol.
    Malformed,
    /// A line or a block is longer than it can be.
    TooLong,
    /// It belongs to another command, or to another key.
    Foreign,
}

/// Takes answers out of what has arrived, however it was cut.
#[derive(Debug)]
pub(crate) struct Decoder {
    /// The largest block that the server can have.
    block_bytes_max: usize,
    block: Option<Block>,
    /// Up to where the buffer has been searched for the end of a line.
    searched: usize,
}

/// A block of which a part is still to come.
#[derive(Debug)]
struct Block {
    bytes: BytesMut,
    /// Without the end of the line.
    missing: usize,
    version: u64,
    /// Whether anybody wants it.
    wanted: bool,
}

impl Decoder {
    pub(crate) fn new(block_bytes_max: usize) -> Self {
        Self { block_bytes_max, block: None, searched: 0 }
    }

    /// The answer to what was asked, or `None` if more has to arrive first. If nobody wants it, its block is thrown
    /// away, and the value is empty.
    pub(crate) fn next(
        &mut self,
        buffer: &mut BytesMut,
        asked: Asked<'_>,
        wanted: bool,
    ) -> Result<Option<Reply>, Nonsense> {
        if self.block.is_none() {
            let Some(end) = self.line_end(buffer)? else { return Ok(None) };
            let line =
                buffer.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(Nonsense::Malformed)?;
            let head = Head::parse(line)?;
            head.check(asked)?;
            let (status, version) = (head.status, head.version);
            buffer.advance(end + 1);
            let Status::Value(length) = status else { return Ok(Some(status.reply())) };
            if length > self.block_bytes_max {
                return Err(Nonsense::TooLong);
            }
            if let Some(whole) = buffer.get(..length + 2) {
                let block = whole.strip_suffix(b"\r\n").ok_or(Nonsense::Malformed)?;
                // A copy: as a part of the buffer, a small value would keep all of that alive.
                let block = if wanted { Bytes::copy_from_slice(block) } else { Bytes::new() };
                buffer.advance(length + 2);
                return Ok(Some(Reply::Value(block, version)));
            }
            self.block = Some(Block { bytes: BytesMut::new(), missing: length, version, wanted });
        }
        self.rest(buffer)
    }

    fn line_end(&mut self, buffer: &BytesMut) -> Result<Option<usize>, Nonsense> {
        let unseen = buffer.get(self.searched..).unwrap_or_default();
        let unseen = unseen.get(..LINE_BYTES_MAX).unwrap_or(unseen);
        match find(b'\n', unseen) {
            Some(at) => {
                let end = self.searched + at;
                self.searched = 0;
                Ok(Some(end))
            }
            None if buffer.len() >= LINE_BYTES_MAX => Err(Nonsense::TooLong),
            None => {
                self.searched = buffer.len();
                Ok(None)
            }
        }
    }

    /// Goes on with a block.
    fn rest(&mut self, buffer: &mut BytesMut) -> Result<Option<Reply>, Nonsense> {
        let Some(block) = &mut self.block else { return Ok(None) };
        let here = block.missing.min(buffer.len());
        if block.wanted {
            if block.bytes.capacity() - block.bytes.len() < here {
                // As much again as has come, so that a length that is a lie costs nothing.
                let more = block.bytes.len().max(BLOCK_BYTES_FIRST).max(here).min(block.missing);
                block.bytes.reserve(more);
            }
            block.bytes.extend_from_slice(buffer.get(..here).unwrap_or_default());
        }
        buffer.advance(here);
        block.missing -= here;
        if block.missing > 0 {
            return Ok(None);
        }
        let Some(end) = buffer.get(..2) else {
            return if buffer.first().is_none_or(|&byte| byte == b'\r') {
                Ok(None)
            } else {
                Err(Nonsense::Malformed)
            };
        };
        if end != b"\r\n" {
            return Err(Nonsense::Malformed);
        }
        buffer.advance(2);
        let block = self.block.take();
        Ok(block.map(|block| Reply::Value(block.bytes.freeze(), block.version)))
    }
}

#[derive(Debug)]
enum Status {
    Value(usize),
    Done,
    /// `EN` (true) or `NF`.
    Missing(bool),
    NotStored,
    Exists,
    Alive,
    Refused(Refusal),
}

impl Status {
    fn reply(self) -> Reply {
        match self {
            // Only with a block, which is the caller's.
            Self::Value(_) => Reply::Value(Bytes::new(), 0),
            Self::Done => Reply::Done,
            Self::Missing(_) => Reply::Missing,
            Self::NotStored => Reply::NotStored,
            Self::Exists => Reply::Exists,
            Self::Alive => Reply::Alive,
            Self::Refused(refusal) => Reply::Refused(refusal),
        }
    }
}

/// The line that an answer begins with.
#[derive(Debug)]
struct Head<'l> {
    status: Status,
    key: Option<&'l [u8]>,
    /// The key is in base64, because whoever stored the item had sent it so.
    encoded: bool,
    number: Option<u32>,
    version: u64,
}

impl<'l> Head<'l> {
    fn parse(line: &'l [u8]) -> Result<Self, Nonsense> {
        let (code, rest) = line.split_at_checked(2).ok_or(Nonsense::Malformed)?;
        let mut head = Self { status: Status::Done, key: None, encoded: false, number: None, version: 0 };
        let mut unread = rest;
        let mut words = std::iter::from_fn(|| next_word(&mut unread));
        if !rest.is_empty() && !rest.starts_with(b" ") {
            head.status = Status::Refused(refusal(line).ok_or(Nonsense::Malformed)?);
            return Ok(head);
        }
        head.status = match code {
            b"VA" => {
                let length = words.next().and_then(decimal).ok_or(Nonsense::Malformed)?;
                Status::Value(usize::try_from(length).map_err(|_| Nonsense::TooLong)?)
            }
            b"HD" => Status::Done,
            b"EN" => Status::Missing(true),
            b"NF" => Status::Missing(false),
            b"NS" => Status::NotStored,
            b"EX" => Status::Exists,
            b"MN" => Status::Alive,
            _ => return Err(Nonsense::Malformed),
        };
        for word in words {
            match word {
                [b'k', key @ ..] => head.key = Some(key),
                [b'O', number @ ..] => {
                    let number = decimal(number).and_then(|number| u32::try_from(number).ok());
                    head.number = Some(number.ok_or(Nonsense::Foreign)?);
                }
                [b'c', version @ ..] => head.version = decimal(version).ok_or(Nonsense::Malformed)?,
                b"b" => head.encoded = true,
                // What else a server may say about an item was not asked, and is not against the protocol.
                _ => {}
            }
        }
        Ok(head)
    }

    /// Whether this is an answer to what was asked.
    fn check(&self, asked: Asked<'_>) -> Result<(), Nonsense> {
        use Status::{Alive, Done, Exists, Missing, NotStored, Refused, Value};
        let possible = match asked.verb {
            Verb::Get => matches!(self.status, Value(_) | Missing(true)),
            Verb::Set => matches!(self.status, Done | NotStored | Exists | Missing(false)),
            Verb::Delete => matches!(self.status, Done | Missing(false) | Exists),
            Verb::Count => matches!(self.status, Value(_) | Missing(false) | NotStored | Exists),
            Verb::Noop => matches!(self.status, Alive),
        };
        match &self.status {
            // Refusals name nothing: they are told apart by their order alone.
            Refused(_) => return Ok(()),
            _ if !possible => return Err(Nonsense::Foreign),
            Alive => return Ok(()),
            // Up to 1.6.16, an item that is not there is answered with nothing but that.
            Missing(true) if self.key.is_none() && self.number.is_none() => return Ok(()),
            _ => {}
        }
        let same_key = match self.key {
            Some(key) if self.encoded => key == base64(asked.key).as_bytes(),
            key => key == Some(asked.key),
        };
        if same_key && self.number == Some(asked.number) { Ok(()) } else { Err(Nonsense::Foreign) }
    }
}

/// Where a byte first is. The standard library's readers look for it several times as fast as an iterator does.
fn find(byte: u8, within: &[u8]) -> Option<usize> {
    let mut unread = within;
    // Of a slice it never fails.
    let last = unread.skip_until(byte).ok()?.checked_sub(1)?;
    (within.get(last) == Some(&byte)).then_some(last)
}

/// Takes what stands before the next space.
fn next_word<'l>(unread: &mut &'l [u8]) -> Option<&'l [u8]> {
    let text = unread.get(unread.iter().position(|&byte| byte != b' ')?..)?;
    let (word, rest) = text.split_at_checked(find(b' ', text).unwrap_or(text.len()))?;
    *unread = rest;
    Some(word)
}

/// What a server that refuses says, if that is what it does.
pub(crate) fn refusal(line: &[u8]) -> Option<Refusal> {
    let words = |rest: &[u8]| {
        let text = String::from_utf8_lossy(rest);
        text.trim().chars().filter(|letter| !letter.is_control()).take(WORDS_CHARS_MAX).collect()
    };
    if let Some(rest) = line.strip_prefix(b"SERVER_ERROR") {
        return Some(Refusal::Server(words(rest)));
    }
    if let Some(rest) = line.strip_prefix(b"CLIENT_ERROR") {
        return Some(Refusal::Client(words(rest)));
    }
    (line == b"ERROR").then_some(Refusal::Unknown)
}

/// A number without a sign, as it is written and in no other way.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 20 {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, &digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// Base64 with padding, as servers answer with keys that were sent so.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let mut bits = three.iter().fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte));
        bits <<= 8 * (3 - three.len());
        for at in 0..4 {
            let six = (bits >> (18 - 6 * at)) & 0x3f;
            let letter = usize::try_from(six).ok().and_then(|six| LETTERS.get(six)).copied().unwrap_or(b'=');
            text.push(if at <= three.len() { char::from(letter) } else { '=' });
        }
    }
    text
}
