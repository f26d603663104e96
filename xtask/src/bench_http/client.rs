//! A client that asks once, and says exactly what came: whether the answer told its end and reached it, and whether its
//! bytes are the ones that belong there.

use std::io::{self, BufRead, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use super::pattern::Check;
use crate::proxy::now;

/// Whom every request is for.
pub(crate) const HOST: &str = "shop.example";
/// How long a client waits for the next bytes.
const PATIENCE: Duration = Duration::from_secs(60);
const PIECE: usize = 64 * 1024;

/// What is asked for, and how.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ask<'a> {
    pub(crate) target: &'a str,
    /// Further fields, each with its end of line.
    pub(crate) fields: &'a str,
    /// How fast the body is read, in bytes a second; 0 is as fast as it comes.
    pub(crate) rate: u64,
    /// After how many bytes of the body the client hangs up; 0 is never.
    pub(crate) leaves_after: u64,
    /// The position of the whole body that the answer begins at, when a range is asked for.
    pub(crate) position: u64,
}

/// What came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
    /// Of the body.
    pub(crate) bytes: u64,
    /// Whether the body ended where it said that it would.
    pub(crate) is_whole: bool,
    /// Whether its bytes are those of the origin.
    pub(crate) is_intact: bool,
    pub(crate) took: Duration,
}

impl Answer {
    /// Whether this is all of a body of this size.
    pub(crate) fn is_right(&self, size: u64) -> bool {
        self.status == 200 && self.is_whole && self.is_intact && self.bytes == size
    }

    /// Whether this claims to be a whole body of this size, and is not: what a cache must never do.
    pub(crate) fn is_lie(&self, size: u64) -> bool {
        self.status == 200 && self.is_whole && !self.is_right(size) || !self.is_intact
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|(other, _)| other == name);
        values.next().map(|(_, value)| value.as_str())
    }
}

impl<'a> Ask<'a> {
    pub(crate) fn of(target: &'a str) -> Self {
        Self { target, ..Self::default() }
    }
}

/// Connects, asks, and reads to the end.
///
/// # Errors
/// No head came.
pub(crate) fn get(address: SocketAddr, ask: &Ask<'_>) -> io::Result<Answer> {
    get_on(&TcpStream::connect(address)?, ask)
}

/// Asks on a connection that is there already, and reads to the end.
///
/// # Errors
/// No head came.
pub(crate) fn get_on(mut stream: &TcpStream, ask: &Ask<'_>) -> io::Result<Answer> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let began = now();
    let head = format!("GET {} HTTP/1.1\r\nHost: {HOST}\r\n{}\r\n", ask.target, ask.fields);
    stream.write_all(head.as_bytes())?;
    let mut reader = BufReader::with_capacity(PIECE, stream);
    let mut answer = read_head(&mut reader)?;
    let mut body = Body { ask, check: Check::from(ask.position), began: now() };
    let length = answer.field("content-length").and_then(|text| text.parse::<u64>().ok());
    let is_chunked = answer.field("transfer-encoding").is_some_and(|value| value.contains("chunked"));
    let is_bodiless = matches!(answer.status, 204 | 304);
    // A connection that breaks ends the body where it is: what came is what is to be judged.
    let outcome = match (is_chunked, length) {
        _ if is_bodiless => Ok(true),
        (true, _) => body.chunks(&mut reader),
        (false, Some(length)) => body.exactly(&mut reader, length),
        (false, None) => body.until_closed(&mut reader),
    };
    answer.is_whole = outcome.unwrap_or(false);
    answer.bytes = body.check.bytes - ask.position;
    answer.is_intact = body.check.is_intact() || answer.status != 200 && answer.status != 206;
    answer.took = began.elapsed();
    Ok(answer)
}

/// The head of the final response; those before it are passed over.
fn read_head(reader: &mut impl BufRead) -> io::Result<Answer> {
    loop {
        let line = line(reader)?;
        let status = line.split(' ').nth(1).and_then(|text| text.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no status came: {line:?}")))?;
        let mut fields = Vec::new();
        loop {
            let line = self::line(reader)?;
            match line.split_once(':') {
                Some((name, value)) => fields.push((name.to_ascii_lowercase(), value.trim().to_owned())),
                None => break,
            }
        }
        if status >= 200 {
            return Ok(Answer { status, fields, ..Answer::default() });
        }
    }
}

fn line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut bytes = Vec::new();
    if reader.read_until(b'\n', &mut bytes)? == 0 {
        return Err(io::Error::other("the connection ended before a head came"));
    }
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

/// A body that is being read.
struct Body<'a> {
    ask: &'a Ask<'a>,
    check: Check,
    began: std::time::Instant,
}

impl Body<'_> {
    /// Reads a body, or a chunk of one, of this length. Whether it came to its end.
    fn exactly(&mut self, reader: &mut impl BufRead, length: u64) -> io::Result<bool> {
        let mut left = length;
        while left > 0 {
            let bytes = reader.fill_buf()?;
            let read = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            if read == 0 {
                return Ok(false);
            }
            self.check.feed(bytes.get(..read).unwrap_or_default());
            reader.consume(read);
            left -= read as u64;
            if self.pace() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn chunks(&mut self, reader: &mut impl BufRead) -> io::Result<bool> {
        loop {
            let line = line(reader)?;
            let size = u64::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16);
            let size = size.map_err(|_| io::Error::other("a chunk without a size came"))?;
            if size == 0 {
                // Trailers, up to the empty line.
                while !self::line(reader)?.is_empty() {}
                return Ok(true);
            }
            if !self.exactly(reader, size)? {
                return Ok(false);
            }
            self::line(reader)?;
        }
    }

    fn until_closed(&mut self, reader: &mut impl BufRead) -> io::Result<bool> {
        let mut piece = vec![0; PIECE];
        loop {
            let read = reader.read(&mut piece)?;
            if read == 0 {
                return Ok(true);
            }
            self.check.feed(piece.get(..read).unwrap_or_default());
            if self.pace() {
                return Ok(false);
            }
        }
    }

    /// Waits as long as it takes to be no faster than asked. Whether it is time to hang up.
    fn pace(&self) -> bool {
        let came = self.check.bytes - self.ask.position;
        if self.ask.rate > 0 {
            let due = Duration::from_secs_f64(came as f64 / self.ask.rate as f64);
            thread::sleep(due.saturating_sub(self.began.elapsed()));
        }
        self.ask.leaves_after > 0 && came >= self.ask.leaves_after
    }
}
