//! What is said to a server: commands of the meta protocol, as bytes.
//!
//! Knows what the server makes of a TTL, and nothing of connections. Every command asks for its key and a number of
//! its own to be said back, which is what its answer is known by.

use std::ops::Range;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::reply::{Asked, Verb};
use crate::time::Timestamp;

/// The longest TTL that a server takes as one; what is longer it takes for a time of day.
const RELATIVE_SECONDS_MAX: u64 = 30 * 24 * 60 * 60;
/// The last time of day that a server knows, in 2038. It takes what is later for long ago.
const TIME_SECONDS_MAX: u64 = i32::MAX as u64;
/// A larger value is written from where it is, rather than copied behind its command.
const COPIED_BYTES_MAX: usize = 16 * 1024;

/// On what condition a value is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Always,
    /// If nothing is there.
    Add,
    /// If this version is still there.
    Swap(u64),
}

/// Commands that are sent together, and answered in their order.
#[derive(Debug)]
pub(super) struct Batch {
    text: Vec<u8>,
    commands: Vec<Command>,
    /// The values of those commands that have one, in their order.
    blocks: Vec<Bytes>,
    number: u32,
}

#[derive(Debug)]
struct Command {
    verb: Verb,
    key: Range<usize>,
    number: u32,
    /// Where in the text its line ends.
    end: usize,
    has_block: bool,
}

impl Batch {
    /// Room for some commands, numbered from here.
    pub(super) fn new(number: u32, commands: usize) -> Self {
        let (text, commands) = (Vec::with_capacity(commands * 64), Vec::with_capacity(commands));
        Self { text, commands, blocks: Vec::new(), number }
    }

    /// Asks for a value, and for its version if that is needed.
    pub(super) fn get(&mut self, wire_key: &str, version: bool) {
        self.begin(b"mg ", wire_key);
        self.text.extend_from_slice(if version { b" v c" } else { b" v" });
        self.end(Verb::Get, wire_key, None);
    }

    pub(super) fn set(&mut self, wire_key: &str, value: Bytes, expiry: Option<u64>, mode: Mode) {
        self.begin(b"ms ", wire_key);
        self.flag(b" ", value.len() as u64);
        if let Some(expiry) = expiry {
            self.flag(b" T", expiry);
        }
        match mode {
            Mode::Always => {}
            Mode::Add => self.text.extend_from_slice(b" ME"),
            Mode::Swap(version) => self.flag(b" C", version),
        }
        self.end(Verb::Set, wire_key, Some(value));
    }

    pub(super) fn delete(&mut self, wire_key: &str) {
        self.begin(b"md ", wire_key);
        self.end(Verb::Delete, wire_key, None);
    }

    /// Adds to a number, or puts down the first one.
    pub(super) fn count(&mut self, wire_key: &str, by: u64, first: u64, expiry: Option<u64>) {
        self.begin(b"ma ", wire_key);
        self.flag(b" v D", by);
        self.flag(b" J", first);
        self.flag(b" N", expiry.unwrap_or(0));
        self.end(Verb::Count, wire_key, None);
    }

    /// Asks for nothing but an answer.
    pub(super) fn noop(&mut self) {
        self.text.extend_from_slice(b"mn\r\n");
        let end = self.text.len();
        self.commands.push(Command { verb: Verb::Noop, key: 0..0, number: 0, end, has_block: false });
    }

    fn begin(&mut self, name: &[u8], wire_key: &str) {
        self.text.extend_from_slice(name);
        self.text.extend_from_slice(wire_key.as_bytes());
    }

    fn flag(&mut self, name: &[u8], number: u64) {
        self.text.extend_from_slice(name);
        self.digits(number);
    }

    /// A number as it is written. What formats anything takes longer than all the rest of a command.
    fn digits(&mut self, mut number: u64) {
        let mut digits = [b'0'; 20];
        let mut from = digits.len();
        for digit in digits.iter_mut().rev() {
            *digit += u8::try_from(number % 10).unwrap_or_default();
            from -= 1;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.text.extend_from_slice(digits.get(from..).unwrap_or_default());
    }

    fn end(&mut self, verb: Verb, wire_key: &str, block: Option<Bytes>) {
        let number = self.number;
        self.number = number.wrapping_add(1);
        self.flag(b" k O", number.into());
        self.text.extend_from_slice(b"\r\n");
        let line = self.commands.last().map_or(0, |last| last.end);
        // Behind the name and a space.
        let key = line + 3..line + 3 + wire_key.len();
        let (end, has_block) = (self.text.len(), block.is_some());
        self.commands.push(Command { verb, key, number, end, has_block });
        self.blocks.extend(block);
    }

    pub(super) fn len(&self) -> usize {
        self.commands.len()
    }

    /// What the answer to a command has to name.
    pub(super) fn asked(&self, at: usize) -> Option<Asked<'_>> {
        let command = self.commands.get(at)?;
        let key = self.text.get(command.key.clone())?;
        Some(Asked { verb: command.verb, key, number: command.number })
    }

    /// Whether a command has a block behind it, which a server that does not take the command reads as commands.
    pub(super) fn has_block(&self, at: usize) -> bool {
        self.commands.get(at).is_some_and(|command| command.has_block)
    }

    /// Writes the commands behind others. A large value is left where it is; its place behind the others is noted.
    pub(super) fn write(&self, out: &mut BytesMut, large: &mut Vec<(usize, Bytes)>) {
        if self.blocks.is_empty() {
            out.extend_from_slice(&self.text);
            return;
        }
        let (mut begin, mut blocks) = (0, self.blocks.iter());
        for command in &self.commands {
            out.extend_from_slice(self.text.get(begin..command.end).unwrap_or_default());
            begin = command.end;
            let Some(block) = command.has_block.then(|| blocks.next()).flatten() else { continue };
            if block.len() > COPIED_BYTES_MAX {
                large.push((out.len(), block.clone()));
            } else {
                out.extend_from_slice(block);
            }
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// A TTL as a server takes it, or `None` for one that it has no number for: it then keeps the value until deleted.
///
/// A server counts whole seconds from when its clock last ticked, so that one second may be over at once: a second is
/// added to what is rounded up.
pub(super) fn expiry(ttl: Option<Duration>, now: Timestamp) -> Option<u64> {
    let ttl = ttl?;
    let seconds = ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0)).saturating_add(1);
    if seconds <= RELATIVE_SECONDS_MAX {
        return Some(seconds);
    }
    let time = now.as_millis().div_ceil(1_000).saturating_add(seconds);
    (time <= TIME_SECONDS_MAX).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{days, seconds};

    fn written(batch: &Batch) -> String {
        let (mut out, mut large) = (BytesMut::new(), Vec::new());
        batch.write(&mut out, &mut large);
        for (at, block) in large.into_iter().rev() {
            let rest = out.split_off(at);
            out.extend_from_slice(format!("<{}>", block.len()).as_bytes());
            out.extend_from_slice(&rest);
        }
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn commands_are_what_the_server_reads() {
        let mut batch = Batch::new(u32::MAX, 9);
        batch.get("a", false);
        batch.get("bb", true);
        batch.set("k", "value".into(), Some(9), Mode::Add);
        batch.set("k", "v".into(), None, Mode::Swap(7));
        batch.set("k", vec![0; COPIED_BYTES_MAX + 1].into(), None, Mode::Always);
        batch.delete("k");
        batch.count("n", 3, 5, Some(60));
        batch.noop();
        assert_eq!(
            written(&batch),
            "mg a v k O4294967295\r\nmg bb v c k O0\r\nms k 5 T9 ME k O1\r\nvalue\r\nms k 1 C7 k O2\r\nv\r\n\
             ms k 16385 k O3\r\n<16385>\r\nmd k k O4\r\nma n v D3 J5 N60 k O5\r\nmn\r\n"
        );
        let asked = batch.asked(1).unwrap();
        assert_eq!((asked.verb, asked.key, asked.number), (Verb::Get, &b"bb"[..], 0));
        assert!(batch.has_block(4) && !batch.has_block(5) && batch.len() == 8 && batch.asked(8).is_none());
    }

    #[test]
    fn a_ttl_is_never_over_early() {
        let now = Timestamp::from_millis(1_700_000_000_001);
        let of = |ttl| expiry(Some(ttl), now);
        assert_eq!(expiry(None, now), None);
        assert_eq!(of(Duration::ZERO), Some(1));
        assert_eq!(of(Duration::from_nanos(1)), Some(2));
        assert_eq!(of(seconds(1)), Some(2));
        assert_eq!(of(Duration::from_millis(1_001)), Some(3));
        assert_eq!(of(days(30) - seconds(1)), Some(RELATIVE_SECONDS_MAX));
        assert_eq!(of(days(30)), Some(1_700_000_001 + RELATIVE_SECONDS_MAX + 1));
        assert_eq!(of(days(20_000)), None, "after 2038");
        assert_eq!(of(Duration::MAX), None);
        assert_eq!(expiry(Some(days(31)), Timestamp::FOREVER), None);
    }
}
