//! What goes to the terminal, a pipe or a file: exact bytes where they are data, escaped where they could
//! steer a terminal. Knows nothing of caches.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::failure::{Failure, NOT_FOUND};

/// Writes all bytes at once, without the line buffer of the standard library: what was printed in one piece
/// goes on in one piece.
///
/// # Errors
/// As of `write(2)`; a pipe that nobody reads any more is [`io::ErrorKind::BrokenPipe`].
pub(crate) fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            // Somebody made the other end non-blocking for all who share it.
            Err(Errno::AGAIN) => match poll(&mut [PollFd::new(&to, PollFlags::OUT)], None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            },
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Prints bytes as they are to standard output.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    write_all(rustix::stdio::stdout(), bytes).map_err(|error| Failure::io("write to standard output", &error))
}

/// Prints a line of text to standard output.
pub(crate) fn print_line(text: impl fmt::Display) -> Result<(), Failure> {
    print_bytes(format!("{text}\n").as_bytes())
}

/// Says something on standard error. If nobody listens there, nothing can be done about it.
pub(crate) fn note(text: impl fmt::Display) {
    let _ = write_all(rustix::stdio::stderr(), format!("larder: {text}\n").as_bytes());
}

/// Whether a stream is a terminal.
pub(crate) fn is_terminal(stream: impl AsFd) -> bool {
    stream.as_fd().is_terminal()
}

/// Whether there is somebody who can be asked.
pub(crate) fn can_ask() -> bool {
    is_terminal(io::stdin()) && is_terminal(io::stderr())
}

/// Asks whether to go on, on the terminal.
///
/// # Errors
/// Anything but a yes, with these words for what was not done; a terminal that is gone.
pub(crate) fn ask(question: &str, not_done: &str) -> Result<(), Failure> {
    write_all(rustix::stdio::stderr(), question.as_bytes())
        .map_err(|error| Failure::io("ask on the terminal", &error))?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(|error| Failure::io("read the answer", &error))?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::Message { status: NOT_FOUND, text: not_done.to_owned() }),
    }
}

/// Text with everything that could steer a terminal spelled out: control characters, those that turn the
/// direction of writing, and, so that nothing is ambiguous, backslashes.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|char| char == '\\' || steers(char)) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        if char == '\\' || steers(char) {
            escaped.extend(char.escape_default());
        } else {
            escaped.push(char);
        }
    }
    Cow::Owned(escaped)
}

/// A value for a terminal: text with its lines and tabs, everything else that steers spelled out.
pub(crate) fn escape_value(value: &[u8]) -> String {
    let mut escaped = String::with_capacity(value.len() + 1);
    for part in value.utf8_chunks() {
        for char in part.valid().chars() {
            if steers(char) && char != '\n' && char != '\t' {
                escaped.extend(char.escape_default());
            } else {
                escaped.push(char);
            }
        }
        for byte in part.invalid() {
            escaped.push_str(&format!("\\x{byte:02x}"));
        }
    }
    if !escaped.ends_with('\n') {
        escaped.push('\n');
    }
    escaped
}

fn steers(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// A value as JSON: text if it is UTF-8, else `{"base64": …}`.
pub(crate) fn json_value(value: &[u8]) -> Value {
    match std::str::from_utf8(value) {
        Ok(text) => json!(text),
        Err(_) => json!({ "base64": base64(value) }),
    }
}

/// A duration as JSON, in milliseconds; none is `null`.
pub(crate) fn json_millis(duration: Option<Duration>) -> Value {
    duration.map_or(Value::Null, |duration| json!(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
}

/// RFC 4648 §4, with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |n: usize| u32::from(group.get(n).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for n in 0..4usize {
            let index = (bits >> (18 - 6 * n)) & 0x3f;
            let letter = usize::try_from(index).ok().and_then(|index| ALPHABET.get(index));
            text.push(if n <= group.len() { letter.copied().map_or('=', char::from) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_spelled_out() {
        assert_eq!(escape("plain ä 日本"), "plain ä 日本");
        assert_eq!(escape("\x1b[31m\r\n\0"), "\\u{1b}[31m\\r\\n\\u{0}");
        assert_eq!(escape("a\\nb"), "a\\\\nb");
        assert_eq!(escape("\u{9b}31m\u{202e}x\u{7f}"), "\\u{9b}31m\\u{202e}x\\u{7f}");
    }

    #[test]
    fn a_value_keeps_its_lines_and_nothing_else_that_steers() {
        assert_eq!(escape_value(b"a\n\tb\x1b]0;x\x07\xff"), "a\n\tb\\u{1b}]0;x\\u{7}\\xff\n");
        assert_eq!(escape_value(b"a\n"), "a\n");
    }

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
    }

    #[test]
    fn a_value_that_is_no_text_is_base64() {
        assert_eq!(json_value(b"hi"), json!("hi"));
        assert_eq!(json_value(b"\xff"), json!({ "base64": "/w==" }));
    }
}
