//! The head of a request: where it ends, what it says, and what is refused because somebody could read it otherwise.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};

use super::target::{self, Scheme};
use super::{Limits, Refusal};

/// The most fields that a request may ever have.
pub(crate) const FIELDS_MAX: usize = 128;

/// What a client sends that speaks HTTP/2 and knows that the server does.
pub(crate) const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How the content of a request is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// There is none, or this many bytes.
    Exact(u64),
    Chunked,
}

/// A request, without its content.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) method: Method,
    /// Absolute, unless the request names no host (HTTP/1.0) or is about the server as a whole (`OPTIONS *`).
    pub(crate) uri: Uri,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) length: Length,
    /// The client is ready to send another request after this one.
    pub(crate) keep_alive: bool,
    /// The client may wait for a 100 before it sends the content.
    pub(crate) expects_continue: bool,
    /// The client asks for another protocol.
    pub(crate) wants_upgrade: bool,
}

/// Where a head ends, found in bytes that come in pieces. Each byte is looked at once.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    start: usize,
    line: usize,
    first_line_ended: bool,
    seen: usize,
}

impl Scan {
    /// The range of the head, if `bytes`, which only ever grow between calls, have all of it.
    ///
    /// Empty lines before the request line are skipped. Lines end in CR LF, and in nothing else: who takes a bare LF
    /// for an end of line sees other fields than who does not.
    pub(crate) fn find(
        &mut self,
        bytes: &[u8],
        limits: &Limits,
    ) -> Result<Option<std::ops::Range<usize>>, Refusal> {
        while let Some(found) = bytes.get(self.seen..).and_then(|rest| rest.iter().position(|b| *b == b'\n'))
        {
            let newline = self.seen + found;
            self.within(newline, limits)?;
            if newline == 0 || bytes.get(newline - 1) != Some(&b'\r') {
                return Err(Refusal::bad("a line of the head does not end in CR LF"));
            }
            let empty = newline - self.line == 1;
            self.seen = newline + 1;
            self.line = newline + 1;
            if empty && self.first_line_ended {
                return Ok(Some(self.start..self.seen));
            }
            if empty {
                // The limit counts from here on, so it is not without end that they are skipped.
                if newline > EMPTY_LINES_BYTES {
                    return Err(Refusal::bad("there are too many empty lines before the request"));
                }
                self.start = self.seen;
            } else {
                self.first_line_ended = true;
            }
        }
        self.seen = bytes.len();
        self.within(bytes.len(), limits)?;
        Ok(None)
    }

    /// Whether nothing of a request has come yet.
    pub(crate) fn is_idle(&self) -> bool {
        self.seen == self.start
    }

    fn within(&self, at: usize, limits: &Limits) -> Result<(), Refusal> {
        let length = at.saturating_sub(self.start);
        // The longest method that means anything, and the version, are much shorter than that.
        if !self.first_line_ended && length > limits.target_bytes + 64 {
            return Err(Refusal::new(StatusCode::URI_TOO_LONG, "the target is too long"));
        }
        if length > limits.head_bytes {
            return Err(Refusal::new(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "the head of the request is too large",
            ));
        }
        Ok(())
    }
}

const EMPTY_LINES_BYTES: usize = 16;

/// Reads a whole head, as [`Scan`] found it.
pub(crate) fn parse(head: &[u8], scheme: Scheme, limits: &Limits) -> Result<Head, Refusal> {
    // One copy, so that what is kept of a request does not keep the connection's buffer.
    let head = Bytes::copy_from_slice(head);
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let fields = fields.get_mut(..limits.fields.min(FIELDS_MAX)).unwrap_or_default();
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(&head, fields) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(Refusal::bad("the head of the request is not one")),
        Err(error) => return Err(refusal(error, &head)),
    }
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Refusal::bad("the request line is not one"));
    };
    if target.len() > limits.target_bytes {
        return Err(Refusal::new(StatusCode::URI_TOO_LONG, "the target is too long"));
    }
    let method =
        Method::from_bytes(method.as_bytes()).map_err(|_| Refusal::bad("the method is not a token"))?;
    let version = if version == 0 { Version::HTTP_10 } else { Version::HTTP_11 };

    let mut framing = Framing::default();
    let mut connection = Connection::default();
    let mut host = None;
    let mut headers = HeaderMap::with_capacity(parsed.headers.len());
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes())
            .map_err(|_| Refusal::bad("the name of a field is not a token"))?;
        match name {
            header::CONTENT_LENGTH => framing.content_length(field.value)?,
            header::TRANSFER_ENCODING => framing.transfer_encoding(field.value)?,
            header::CONNECTION => connection.options(field.value),
            //= https://www.rfc-editor.org/rfc/rfc9112#section-3.2
            //# A server MUST respond with a 400 (Bad Request) status code to any
            //# HTTP/1.1 request message that lacks a Host header field and to any
            //# request message that contains more than one Host header field line or
            //# a Host header field with an invalid field value.
            header::HOST if host.replace(field.value).is_some() => {
                return Err(Refusal::bad("there is more than one Host"));
            }
            _ => {}
        }
        let value = HeaderValue::from_maybe_shared(head.slice_ref(field.value))
            .map_err(|_| Refusal::bad("the value of a field has bytes that no field may have"))?;
        if headers.try_append(name, value).is_err() {
            return Err(Refusal::new(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "there are too many fields",
            ));
        }
    }
    if host.is_none() && version == Version::HTTP_11 {
        return Err(Refusal::bad("there is no Host"));
    }
    let host = host.map(|host| head.slice_ref(host));
    let uri = target::resolve(&method, head.slice_ref(target.as_bytes()), host, scheme)?;
    let length = framing.length(version, limits)?;
    let expects_continue = version == Version::HTTP_11
        && length != Length::Exact(0)
        && headers.get(header::EXPECT).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    Ok(Head {
        keep_alive: !connection.close && (version == Version::HTTP_11 || connection.keep_alive),
        wants_upgrade: version == Version::HTTP_11
            && connection.upgrade
            && headers.contains_key(header::UPGRADE),
        method,
        uri,
        version,
        headers,
        length,
        expects_continue,
    })
}

fn refusal(error: httparse::Error, head: &[u8]) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => {
            Refusal::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "there are too many fields")
        }
        httparse::Error::Version if is_of_another_version(head) => {
            Refusal::new(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "this is not HTTP/1.1, nor HTTP/1.0")
        }
        httparse::Error::HeaderName => Refusal::bad("the name of a field is not a token followed by a colon"),
        httparse::Error::HeaderValue => Refusal::bad("the value of a field has bytes that no field may have"),
        httparse::Error::NewLine => Refusal::bad("a line of the head does not end in CR LF"),
        _ => Refusal::bad("the request line is not one"),
    }
}

/// Whether the request line is one, of a version that is well-formed and not ours.
fn is_of_another_version(head: &[u8]) -> bool {
    let line =
        head.split(|byte| *byte == b'\r').find(|line| !line.trim_ascii().is_empty()).unwrap_or_default();
    let mut words = line.splitn(3, |byte| *byte == b' ');
    let version = words.nth(2).unwrap_or_default();
    let is_version = matches!(version, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
        if major.is_ascii_digit() && minor.is_ascii_digit());
    is_version && !matches!(version, b"HTTP/1.1" | b"HTTP/1.0")
}

/// What `Connection` says.
#[derive(Debug, Default)]
struct Connection {
    close: bool,
    keep_alive: bool,
    upgrade: bool,
}

impl Connection {
    fn options(&mut self, value: &[u8]) {
        for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            self.upgrade |= option.eq_ignore_ascii_case(b"upgrade");
        }
    }
}

/// What says where the content ends. Whatever could be read in two ways is refused.
#[derive(Debug, Default)]
struct Framing {
    content_length: Option<u64>,
    chunked: bool,
}

impl Framing {
    //= https://www.rfc-editor.org/rfc/rfc9112#section-6.3
    //# If a message is received without Transfer-Encoding and with an
    //# invalid Content-Length header field, then the message framing is
    //# invalid and the recipient MUST treat it as an unrecoverable error,
    //# unless the field value can be successfully parsed as a comma-
    //# separated list (Section 5.6.1 of [HTTP]), all values in the list are
    //# valid, and all values in the list are the same
    // That exception is not made: whoever sends two lengths has a second reader in mind.
    fn content_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        let length = super::response::decimal(value).ok_or(Refusal::bad("Content-Length is not a number"))?;
        if self.content_length.replace(length).is_some() {
            return Err(Refusal::bad("there is more than one Content-Length"));
        }
        Ok(())
    }

    //= https://www.rfc-editor.org/rfc/rfc9112#section-6.3
    //# If a Transfer-Encoding header field is present in a request and the
    //# chunked transfer coding is not the final encoding, the message body
    //# length cannot be determined reliably; the server MUST respond with
    //# the 400 (Bad Request) status code and then close the connection.
    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.chunked {
            return Err(Refusal::bad("there is more than one Transfer-Encoding"));
        }
        if value.eq_ignore_ascii_case(b"chunked") {
            self.chunked = true;
            return Ok(());
        }
        let mut codings = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
        if !codings.next_back().is_some_and(is_chunked) || codings.any(|c| c.is_empty() || is_chunked(c)) {
            return Err(Refusal::bad("Transfer-Encoding does not end in chunked, once"));
        }
        //= https://www.rfc-editor.org/rfc/rfc9112#section-6.1
        //# A server that receives a request message with a transfer coding it
        //# does not understand SHOULD respond with 501 (Not Implemented).
        Err(Refusal::new(
            StatusCode::NOT_IMPLEMENTED,
            "Transfer-Encoding has a coding that is not known here",
        ))
    }

    fn length(&self, version: Version, limits: &Limits) -> Result<Length, Refusal> {
        match (self.chunked, self.content_length) {
            //= https://www.rfc-editor.org/rfc/rfc9112#section-6.1
            //# A server or client that receives an HTTP/1.0 message containing a
            //# Transfer-Encoding header field MUST treat the message as if the
            //# framing is faulty, even if a Content-Length is present, and close the
            //# connection after processing the message.
            (true, _) if version != Version::HTTP_11 => {
                Err(Refusal::bad("HTTP/1.0 has no Transfer-Encoding"))
            }
            //= https://www.rfc-editor.org/rfc/rfc9112#section-6.1
            //# A server MAY reject a request that contains both Content-Length and
            //# Transfer-Encoding or process such a request in accordance with the
            //# Transfer-Encoding alone.
            (true, Some(_)) => Err(Refusal::bad("there are both Content-Length and Transfer-Encoding")),
            (true, None) => Ok(Length::Chunked),
            (false, Some(length)) if length > limits.body_bytes => {
                Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "the content is too large"))
            }
            (false, length) => Ok(Length::Exact(length.unwrap_or(0))),
        }
    }
}
