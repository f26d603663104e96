//! Responses as bytes: how their content is delimited, and their heads.

use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version, header};
use http_body::SizeHint;

use super::{Refusal, is_of_the_hop, may_be_a_trailer};

/// What a response has to know of its request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) version: Version,
    pub(crate) is_head: bool,
    pub(crate) wants_upgrade: bool,
}

/// How the content of a response is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none, whatever the fields say.
    None,
    /// This many bytes follow.
    Exact(u64),
    /// Chunks follow; their content has to come to this many bytes, if that is known.
    Chunked(Option<u64>),
    /// Whatever follows until the connection is closed.
    Close,
}

/// Decides how the content is delimited.
///
/// # Errors
/// The response cannot be sent: it is an interim one, or its lengths contradict each other.
pub(crate) fn framing(asked: Asked, parts: &Parts, hint: &SizeHint) -> Result<Framing, Refusal> {
    let refused = |why| Err(Refusal::new(StatusCode::BAD_GATEWAY, why));
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        return if asked.wants_upgrade {
            Ok(Framing::None)
        } else {
            refused("the response changes the protocol, and nobody asked for that")
        };
    }
    if parts.status.is_informational() {
        return refused("an interim response came in place of the final one");
    }
    let Ok(declared) = declared(&parts.headers) else {
        return refused("the response has several lengths, or none that is a number");
    };
    //= https://www.rfc-editor.org/rfc/rfc9112#section-6.3
    //# Any response to a HEAD request and any response with a 1xx
    //# (Informational), 204 (No Content), or 304 (Not Modified) status
    //# code is always terminated by the first empty line after the
    //# header fields, regardless of the header fields present in the
    //# message, and thus cannot contain a message body or trailer section.
    if asked.is_head || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return Ok(Framing::None);
    }
    let may_be_chunked = asked.version == Version::HTTP_11;
    Ok(match declared.or(hint.exact()) {
        // Trailers come only after chunks.
        Some(length) if may_be_chunked && parts.headers.contains_key(header::TRAILER) => {
            Framing::Chunked(Some(length))
        }
        Some(length) => Framing::Exact(length),
        None if may_be_chunked => Framing::Chunked(None),
        None => Framing::Close,
    })
}

/// What `Content-Length` says, if it says one thing.
fn declared(headers: &HeaderMap) -> Result<Option<u64>, ()> {
    let mut lines = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = lines.next() else { return Ok(None) };
    let length = decimal(first.as_bytes()).ok_or(())?;
    if lines.all(|line| line == first) { Ok(Some(length)) } else { Err(()) }
}

/// A number of digits alone.
pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 19 {
        return None;
    }
    digits.iter().try_fold(0_u64, |sum, digit| {
        digit.is_ascii_digit().then(|| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'))).flatten()
    })
}

/// What the head says beside the response's own fields.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Around<'a> {
    pub(crate) framing: Framing,
    /// What is said about the connection, if anything is.
    pub(crate) connection: Option<&'static str>,
    /// A value of `Date`, for a response that has none.
    pub(crate) date: &'a [u8],
    /// What follows the status, if not what usually does.
    pub(crate) message: Option<&'a str>,
}

/// Appends the head of a final response.
pub(crate) fn write_head(out: &mut Vec<u8>, parts: &Parts, is_head: bool, around: Around<'_>) {
    out.reserve(256);
    status_line(out, parts.status, around.message);
    let switches = parts.status == StatusCode::SWITCHING_PROTOCOLS;
    let mut dated = false;
    let mut measured = false;
    for (name, value) in &parts.headers {
        if name == header::CONTENT_LENGTH {
            // Written below, except where the content that it measures is not sent.
            let stays = is_head || parts.status == StatusCode::NOT_MODIFIED;
            if around.framing != Framing::None || !stays || std::mem::replace(&mut measured, true) {
                continue;
            }
        } else if is_of_the_hop(name) && !(switches && name == header::UPGRADE) {
            continue;
        }
        dated |= name == header::DATE;
        field(out, name, value);
    }
    match around.framing {
        Framing::Exact(length) => {
            out.extend_from_slice(b"content-length: ");
            push_decimal(out, length);
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked(_) => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Framing::None | Framing::Close => {}
    }
    if let Some(connection) = around.connection {
        out.extend_from_slice(b"connection: ");
        out.extend_from_slice(connection.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    //= https://www.rfc-editor.org/rfc/rfc9110#section-6.6.1
    //# A recipient with a clock that receives a response message without a
    //# Date header field MUST record the time it was received and append a
    //# corresponding Date header field to the message's header section if it
    //# is cached or forwarded downstream.
    if !dated && !switches {
        out.extend_from_slice(b"date: ");
        out.extend_from_slice(around.date);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends an interim response. One that changes the protocol, or is none, is left out.
pub(crate) fn write_interim(out: &mut Vec<u8>, response: &Response<()>) {
    if !response.status().is_informational() || response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    status_line(out, response.status(), None);
    for (name, value) in response.headers() {
        if !is_of_the_hop(name) && name != header::CONTENT_LENGTH {
            field(out, name, value);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the line before a chunk of this many bytes, of which there is at least one.
pub(crate) fn write_chunk_line(out: &mut Vec<u8>, bytes: usize) {
    let mut left = bytes;
    let mut digits = [0_u8; 16];
    let mut begin = digits.len();
    while let Some(digit) = begin.checked_sub(1).and_then(|at| digits.get_mut(at)) {
        *digit = b"0123456789abcdef".get(left & 15).copied().unwrap_or(b'0');
        begin -= 1;
        left >>= 4;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(begin..).unwrap_or_default());
    out.extend_from_slice(b"\r\n");
}

/// Appends what follows the last chunk.
pub(crate) fn write_last_chunk(out: &mut Vec<u8>, trailers: Option<&HeaderMap>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten().filter(|(name, _)| may_be_a_trailer(name)) {
        field(out, name, value);
    }
    out.extend_from_slice(b"\r\n");
}

fn status_line(out: &mut Vec<u8>, status: StatusCode, message: Option<&str>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    let is_message =
        |message: &&str| message.bytes().all(|byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f));
    let usual = || status.canonical_reason().unwrap_or_default();
    out.extend_from_slice(message.filter(is_message).unwrap_or_else(usual).as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn field(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn push_decimal(out: &mut Vec<u8>, number: u64) {
    let mut left = number;
    let mut digits = [0_u8; 20];
    let mut begin = digits.len();
    while let Some(digit) = begin.checked_sub(1).and_then(|at| digits.get_mut(at)) {
        *digit = b'0' + u8::try_from(left % 10).unwrap_or(0);
        begin -= 1;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(begin..).unwrap_or_default());
}

/// A time in seconds since 1970 as `Date` has it, of 29 bytes.
pub(crate) fn http_date(seconds: u64) -> Vec<u8> {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    // The year has four digits.
    let seconds = seconds.min(253_402_300_799);
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant, "chrono-compatible low-level date algorithms": years that begin in March, in eras of 400.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 2 } else { month - 10 };
    let year = year_of_era + era * 400 + u64::from(month < 2);
    let name = |names: &[&'static str], at: u64| {
        usize::try_from(at).ok().and_then(|at| names.get(at).copied()).unwrap_or_default()
    };
    let (weekday, month) = (name(&DAYS, days % 7), name(&MONTHS, month));
    let (hour, minute, second) = (time / 3_600, time / 60 % 60, time % 60);
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: Asked = Asked { version: Version::HTTP_11, is_head: false, wants_upgrade: false };

    fn head(status: u16, fields: &[(&'static str, &'static str)], asked: Asked, hint: SizeHint) -> String {
        let (mut parts, ()) = Response::builder().status(status).body(()).unwrap().into_parts();
        for (name, value) in fields {
            parts.headers.append(*name, HeaderValue::from_static(value));
        }
        let framing = match framing(asked, &parts, &hint) {
            Ok(framing) => framing,
            Err(refusal) => return refusal.status.as_u16().to_string(),
        };
        let around = Around { framing, connection: None, date: b"D", message: None };
        let mut out = Vec::new();
        write_head(&mut out, &parts, asked.is_head, around);
        String::from_utf8(out).unwrap().replace("\r\n", "|")
    }

    #[test]
    fn the_length_is_said_once_and_as_it_is() {
        let exact = SizeHint::with_exact;
        let unknown = SizeHint::default;
        let ok = "HTTP/1.1 200 OK|";
        assert_eq!(head(200, &[], GET, exact(3)), format!("{ok}content-length: 3|date: D||"));
        assert_eq!(
            head(200, &[("content-length", "5")], GET, unknown()),
            format!("{ok}content-length: 5|date: D||")
        );
        assert_eq!(head(200, &[], GET, unknown()), format!("{ok}transfer-encoding: chunked|date: D||"));
        let old = Asked { version: Version::HTTP_10, ..GET };
        assert_eq!(head(200, &[("transfer-encoding", "chunked")], old, unknown()), format!("{ok}date: D||"));
        let of_head = Asked { is_head: true, ..GET };
        assert_eq!(head(200, &[], of_head, exact(0)), format!("{ok}date: D||"));
        assert_eq!(
            head(200, &[("content-length", "5")], of_head, exact(0)),
            format!("{ok}content-length: 5|date: D||")
        );
        assert_eq!(head(204, &[("content-length", "0")], GET, exact(0)), "HTTP/1.1 204 No Content|date: D||");
        assert_eq!(
            head(304, &[("content-length", "5"), ("content-length", "5")], GET, exact(0)),
            "HTTP/1.1 304 Not Modified|content-length: 5|date: D||"
        );
        assert_eq!(
            head(200, &[("trailer", "x"), ("content-length", "5")], GET, exact(5)),
            format!("{ok}trailer: x|transfer-encoding: chunked|date: D||")
        );
    }

    #[test]
    fn what_contradicts_itself_is_not_sent() {
        assert_eq!(
            head(200, &[("content-length", "5"), ("content-length", "6")], GET, SizeHint::default()),
            "502"
        );
        assert_eq!(head(200, &[("content-length", "5, 5")], GET, SizeHint::default()), "502");
        assert_eq!(head(200, &[("content-length", "+5")], GET, SizeHint::default()), "502");
        assert_eq!(head(103, &[], GET, SizeHint::default()), "502");
        assert_eq!(head(101, &[], GET, SizeHint::default()), "502");
    }

    #[test]
    fn fields_of_another_connection_are_not_written() {
        let fields = [
            ("connection", "x"),
            ("keep-alive", "x"),
            ("upgrade", "x"),
            ("te", "x"),
            ("a", "1"),
            ("date", "E"),
        ];
        assert_eq!(
            head(200, &fields, GET, SizeHint::with_exact(0)),
            "HTTP/1.1 200 OK|a: 1|date: E|content-length: 0||"
        );
    }

    #[test]
    fn chunks_have_their_size_in_hexadecimal() {
        for (bytes, line) in [(1, "1"), (16, "10"), (0xabc, "abc"), (usize::MAX, "ffffffffffffffff")] {
            let mut out = Vec::new();
            write_chunk_line(&mut out, bytes);
            assert_eq!(out, format!("{line}\r\n").as_bytes());
        }
    }

    #[test]
    fn numbers_are_digits() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(decimal(b"9999999999999999999"), Some(9_999_999_999_999_999_999));
        for none in ["", "-1", "+1", "1 ", "1,1", "0x1", "18446744073709551616", "\u{b2}"] {
            assert_eq!(decimal(none.as_bytes()), None, "{none}");
        }
    }

    #[test]
    fn dates_are_those_of_the_rfc() {
        let date = |seconds| String::from_utf8(http_date(seconds)).unwrap();
        assert_eq!(date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(date(951_827_696), "Tue, 29 Feb 2000 12:34:56 GMT");
        assert_eq!(date(4_107_542_399), "Sun, 28 Feb 2100 23:59:59 GMT");
        assert_eq!(date(u64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
