//! Content in chunks, read to the letter: sizes are hexadecimal digits, lines end in CR LF, extensions are ignored,
//! trailers are kept.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::{Limits, Refusal, may_be_a_trailer};

/// What all extensions of one content may come to. They are ignored, so that is generous.
const EXTENSION_BYTES_MAX: usize = 16 * 1024;

/// What came out of the next bytes.
#[derive(Debug)]
pub(crate) enum Piece {
    Data(Bytes),
    /// It ended well, with these trailers.
    End(HeaderMap),
}

/// Reads content in chunks from bytes that come in pieces.
#[derive(Debug)]
pub(crate) struct Chunked {
    state: State,
    size: u64,
    digits: u8,
    extension_bytes: usize,
    total: u64,
    trailers: Vec<u8>,
    line: usize,
    limits: Limits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    /// White space after the size, which only an extension may follow.
    Space,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailers,
    Ended,
}

impl Chunked {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            state: State::Size,
            size: 0,
            digits: 0,
            extension_bytes: 0,
            total: 0,
            trailers: Vec::new(),
            line: 0,
            limits,
        }
    }

    /// The next piece, taken out of `input`; nothing if more has to come first.
    ///
    /// # Errors
    /// What came is not content in chunks, or more than the limits permit. Nothing behind it can be understood.
    pub(crate) fn next(&mut self, input: &mut BytesMut) -> Result<Option<Piece>, Refusal> {
        loop {
            match self.state {
                State::Data => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    let length = usize::try_from(self.size).unwrap_or(usize::MAX).min(input.len());
                    let data = input.split_to(length).freeze();
                    self.size -= length as u64;
                    if self.size == 0 {
                        self.state = State::DataCr;
                    }
                    return Ok(Some(Piece::Data(data)));
                }
                State::Trailers => return self.trailers(input),
                State::Ended => return Ok(Some(Piece::End(HeaderMap::new()))),
                _ => {
                    let Some(byte) = input.first().copied() else { return Ok(None) };
                    input.advance(1);
                    self.byte(byte)?;
                }
            }
        }
    }

    /// A byte between two chunks.
    fn byte(&mut self, byte: u8) -> Result<(), Refusal> {
        self.state = match (self.state, byte) {
            (State::Size, _) if byte.is_ascii_hexdigit() => return self.digit(byte),
            (State::Size, b'\r') if self.digits > 0 => State::SizeLf,
            (State::Size | State::Space, b';') if self.digits > 0 => State::Extension,
            (State::Size, b' ' | b'\t') if self.digits > 0 => State::Space,
            (State::Space, b' ' | b'\t') => self.extension(State::Space)?,
            (State::Extension, b'\r') => State::SizeLf,
            // Whoever takes a bare LF for an end of line sees other chunks from here on.
            (State::Extension, 0x20..=0x7e | b'\t' | 0x80..) => self.extension(State::Extension)?,
            (State::SizeLf, b'\n') => self.sized()?,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => {
                self.digits = 0;
                State::Size
            }
            (State::DataCr | State::DataLf, _) => {
                return Err(Refusal::bad("a chunk is longer than its size"));
            }
            _ => return Err(Refusal::bad("the size of a chunk is not a number")),
        };
        Ok(())
    }

    fn digit(&mut self, byte: u8) -> Result<(), Refusal> {
        let digit = char::from(byte).to_digit(16).unwrap_or(0);
        // Sixteen digits cannot overflow.
        if self.digits == 16 {
            return Err(Refusal::bad("the size of a chunk has too many digits"));
        }
        self.digits += 1;
        self.size = self.size << 4 | u64::from(digit);
        Ok(())
    }

    fn extension(&mut self, next: State) -> Result<State, Refusal> {
        self.extension_bytes += 1;
        if self.extension_bytes > EXTENSION_BYTES_MAX {
            return Err(Refusal::bad("the extensions of chunks are too large"));
        }
        Ok(next)
    }

    fn sized(&mut self) -> Result<State, Refusal> {
        self.total = self.total.saturating_add(self.size);
        if self.total > self.limits.body_bytes {
            return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "the content is too large"));
        }
        Ok(if self.size == 0 { State::Trailers } else { State::Data })
    }

    fn trailers(&mut self, input: &mut BytesMut) -> Result<Option<Piece>, Refusal> {
        while let Some(byte) = input.first().copied() {
            input.advance(1);
            self.trailers.push(byte);
            if self.trailers.len() > self.limits.trailer_bytes {
                return Err(Refusal::new(
                    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                    "the trailers are too large",
                ));
            }
            if byte != b'\n' {
                continue;
            }
            let line = self.trailers.get(self.line..).unwrap_or_default();
            if !line.ends_with(b"\r\n") {
                return Err(Refusal::bad("a line of the trailers does not end in CR LF"));
            }
            if line.len() == 2 {
                self.state = State::Ended;
                return parse_trailers(&self.trailers, &self.limits)
                    .map(|trailers| Some(Piece::End(trailers)));
            }
            self.line = self.trailers.len();
        }
        Ok(None)
    }
}

/// Trailers, without those that may not come as such.
fn parse_trailers(bytes: &[u8], limits: &Limits) -> Result<HeaderMap, Refusal> {
    if bytes == b"\r\n" {
        return Ok(HeaderMap::new());
    }
    let mut fields = [httparse::EMPTY_HEADER; super::head::FIELDS_MAX];
    let fields = fields.get_mut(..limits.fields.min(super::head::FIELDS_MAX)).unwrap_or_default();
    let Ok(httparse::Status::Complete((_, fields))) = httparse::parse_headers(bytes, fields) else {
        return Err(Refusal::bad("the trailers are not fields"));
    };
    let mut trailers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(field.value)) else {
            return Err(Refusal::bad("the trailers are not fields"));
        };
        if may_be_a_trailer(&name) {
            trailers.append(name, value);
        }
    }
    Ok(trailers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &[u8]) -> Result<(Vec<u8>, Option<HeaderMap>, usize), u16> {
        let mut bytes = BytesMut::from(input);
        let mut chunked = Chunked::new(Limits { body_bytes: 1 << 20, ..Limits::default() });
        let mut content = Vec::new();
        loop {
            match chunked.next(&mut bytes).map_err(|refusal| refusal.status.as_u16())? {
                Some(Piece::Data(data)) => content.extend_from_slice(&data),
                Some(Piece::End(trailers)) => return Ok((content, Some(trailers), bytes.len())),
                None => return Ok((content, None, 0)),
            }
        }
    }

    #[test]
    fn chunks_are_joined_and_what_follows_is_left() {
        let (content, trailers, left) = read(
            b"3\r\nabc\r\n0A;x=\"y\"\r\n0123456789\r\n1 ; a\r\n!\r\n0\r\nX-Sum: 1\r\nHost: evil\r\n\r\nGET",
        )
        .unwrap();
        assert_eq!(content, b"abc0123456789!");
        let trailers = trailers.unwrap();
        assert_eq!((trailers.len(), trailers.get("x-sum").unwrap().as_bytes(), left), (1, &b"1"[..], 3));
    }

    #[test]
    fn what_is_cut_off_has_no_end() {
        let whole = b"3\r\nabc\r\n0\r\nX: y\r\n\r\n";
        for length in 0..whole.len() {
            assert!(read(&whole[..length]).unwrap().1.is_none());
        }
    }

    #[test]
    fn sizes_that_are_none_are_refused() {
        for size in [
            "\r\n",
            "x\r\n",
            "0x3\r\n",
            "+3\r\n",
            "-1\r\n",
            " 3\r\n",
            "3 \r\n",
            "3 4\r\n",
            "3\n",
            "3\r3",
            "3;a\nb\r\n",
            "3;a\rb\r\n",
            "3;\0\r\n",
            "\n3\r\n",
            "00000000000000003\r\n",
            "fffffffffffffffff\r\n",
            "3,\r\n",
            ";a\r\n",
        ] {
            assert_eq!(read(format!("{size}abc\r\n0\r\n\r\n").as_bytes()).unwrap_err(), 400, "{size:?}");
        }
        assert_eq!(read(b"ffffffffffffffff\r\n").unwrap_err(), 413);
    }

    #[test]
    fn chunks_that_end_elsewhere_are_refused() {
        for input in
            ["3\r\nabcd\r\n", "3\r\nabc\n0\r\n\r\n", "3\r\nabc0\r\n\r\n", "3\r\nabcXX", "3\r\nabc\rX"]
        {
            assert_eq!(read(input.as_bytes()).unwrap_err(), 400, "{input:?}");
        }
    }

    #[test]
    fn trailers_that_are_no_fields_are_refused() {
        for trailer in ["X\r\n\r\n", "X: y\n\r\n", "X : y\r\n\r\n", " X: y\r\n\r\n", "X: a\0\r\n\r\n", "\n"] {
            assert_eq!(read(format!("0\r\n{trailer}").as_bytes()).unwrap_err(), 400, "{trailer:?}");
        }
        assert_eq!(read(format!("0\r\nX: {}", "y".repeat(10_000)).as_bytes()).unwrap_err(), 431);
    }

    #[test]
    fn extensions_have_a_limit() {
        let endless = format!("3;{}", "x".repeat(EXTENSION_BYTES_MAX + 1));
        assert_eq!(read(endless.as_bytes()).unwrap_err(), 400);
        let many = "1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nx\r\n".repeat(1000);
        assert_eq!(read(many.as_bytes()).unwrap_err(), 400);
    }
}
