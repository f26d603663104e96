//! An origin whose answers are told by the URL that is asked for, and which counts what it is asked. It is plain and
//! sends nothing by mistake: what arrives elsewhere otherwise, the proxy did.

use std::collections::HashMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use super::pattern;

/// An origin that listens. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    is_over: AtomicBool,
    counts: Mutex<HashMap<String, Count>>,
}

/// How often something was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) requests: u32,
    now: u32,
    /// At the same time, at most.
    pub(crate) peak: u32,
}

/// What an answer is to be: `/name?size=1024&wait=500&fresh=stale&frame=chunked&rate=0&cut=0`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    /// Of the body, in bytes.
    size: u64,
    /// Before the head.
    wait: Duration,
    cache_control: &'static str,
    frame: Frame,
    /// Of the body, in bytes a second; 0 is as fast as it goes.
    rate: u64,
    /// Where the connection of the first request ends, in bytes of the body; 0 is nowhere.
    cut: u64,
}

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frame {
    Length,
    Chunked,
    Close,
}

impl Answer {
    fn of_target(target: &str) -> Self {
        let query = target.split_once('?').map_or("", |(_, query)| query);
        let value = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find_map(|(key, value)| (key == name).then_some(value))
        };
        let number =
            |name: &str, absent: u64| value(name).and_then(|text| text.parse().ok()).unwrap_or(absent);
        Self {
            size: number("size", 1024),
            wait: Duration::from_millis(number("wait", 0)),
            cache_control: match value("fresh") {
                Some("no") => "no-store",
                // More than the longest wait: what was waited for that long is that old when it comes.
                Some("brief") => "max-age=2",
                Some("stale") => "max-age=1, stale-while-revalidate=60",
                _ => "max-age=3600",
            },
            frame: match value("frame") {
                Some("chunked") => Frame::Chunked,
                Some("close") => Frame::Close,
                _ => Frame::Length,
            },
            rate: number("rate", 0),
            cut: number("cut", 0),
        }
    }
}

impl Origin {
    /// # Errors
    /// The port cannot be listened on.
    pub(crate) fn start(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let shared = Arc::new(Shared::default());
        let kept = Arc::clone(&shared);
        // Few may wait to be accepted, and who finds no room tries again after a second: so that is all that one thread does.
        let (accepted, waiting) = mpsc::channel::<TcpStream>();
        let over = Arc::clone(&kept);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if over.is_over.load(Ordering::Relaxed) || accepted.send(stream).is_err() {
                    return;
                }
            }
        });
        thread::spawn(move || {
            for stream in waiting {
                let shared = Arc::clone(&kept);
                // A proxy that hangs up is no failure of the origin.
                thread::spawn(move || drop(serve(&stream, &shared)));
            }
        });
        Ok(Self { port, shared })
    }

    /// How often this path with its query was asked for.
    pub(crate) fn count(&self, target: &str) -> Count {
        self.shared.counts().get(target).copied().unwrap_or_default()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        // Wakes the listener, which then sees that it is over.
        let _ = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)));
    }
}

impl Shared {
    fn counts(&self) -> MutexGuard<'_, HashMap<String, Count>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request, and says which it is.
    fn begin(&self, target: &str) -> u32 {
        let mut counts = self.counts();
        let count = counts.entry(target.to_owned()).or_default();
        count.requests += 1;
        count.now += 1;
        count.peak = count.peak.max(count.now);
        count.requests
    }

    fn end(&self, target: &str) {
        if let Some(count) = self.counts().get_mut(target) {
            count.now -= 1;
        }
    }
}

/// Answers on a connection until it ends.
fn serve(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = head(&mut reader)? {
        if shared.is_over.load(Ordering::Relaxed) {
            return stream.shutdown(Shutdown::Both);
        }
        let Some((method, target)) = request.split_once(' ') else { return Ok(()) };
        let target = target.split(' ').next().unwrap_or_default();
        let number = shared.begin(target);
        let answer = Answer::of_target(target);
        thread::sleep(answer.wait);
        let is_same = request.to_ascii_lowercase().contains("if-none-match: \"v1\"");
        let outcome = send(stream, &answer, method == "HEAD", is_same, number);
        shared.end(target);
        if !outcome? {
            return stream.shutdown(Shutdown::Both);
        }
    }
    Ok(())
}

/// The head of a request, as text, after which its body is read away; `None` at the end of the connection.
fn head(reader: &mut BufReader<&TcpStream>) -> io::Result<Option<String>> {
    let mut text = String::new();
    loop {
        let before = text.len();
        if reader.read_line(&mut text)? == 0 {
            return Ok(None);
        }
        if text.get(before..) == Some("\r\n") && before > 0 {
            break;
        }
    }
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<u64>().ok())?
    });
    io::copy(&mut reader.take(length.unwrap_or(0)), &mut io::sink())?;
    Ok(Some(text))
}

/// Sends an answer. Whether the connection stays.
fn send(
    mut stream: &TcpStream,
    answer: &Answer,
    is_head: bool,
    is_same: bool,
    number: u32,
) -> io::Result<bool> {
    let fields =
        format!("Cache-Control: {}\r\nETag: \"v1\"\r\nOrigin-Count: {number}\r\n", answer.cache_control);
    if is_same && answer.cache_control != "no-store" {
        write!(stream, "HTTP/1.1 304 Not Modified\r\n{fields}\r\n")?;
        return Ok(true);
    }
    let framing = match answer.frame {
        Frame::Length => format!("Content-Length: {}\r\n", answer.size),
        Frame::Chunked => "Transfer-Encoding: chunked\r\n".to_owned(),
        Frame::Close => "Connection: close\r\n".to_owned(),
    };
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n{fields}{framing}\r\n")?;
    if is_head {
        return Ok(answer.frame != Frame::Close);
    }
    let end = if answer.cut > 0 && number == 1 { answer.cut.min(answer.size) } else { answer.size };
    let mut block = pattern::block();
    let mut sent = 0;
    while sent < end {
        pattern::number(&mut block, sent);
        let piece = block.get(..pattern::piece(end - sent)).unwrap_or_default();
        if answer.frame == Frame::Chunked {
            write!(stream, "{:x}\r\n", piece.len())?;
        }
        stream.write_all(piece)?;
        if answer.frame == Frame::Chunked {
            stream.write_all(b"\r\n")?;
        }
        sent += piece.len() as u64;
        if answer.rate > 0 {
            thread::sleep(Duration::from_secs_f64(piece.len() as f64 / answer.rate as f64));
        }
    }
    if end < answer.size {
        return Ok(false);
    }
    if answer.frame == Frame::Chunked {
        stream.write_all(b"0\r\n\r\n")?;
    }
    Ok(answer.frame != Frame::Close)
}

#[cfg(test)]
mod tests {
    use super::super::client::{Ask, get};
    use super::*;
    use crate::proxy::free_port;

    #[test]
    fn the_url_says_what_the_answer_is() {
        let answer = Answer::of_target("/a?size=7&wait=20&fresh=stale&frame=chunked&rate=9&cut=3");
        let expected = Answer {
            size: 7,
            wait: Duration::from_millis(20),
            cache_control: "max-age=1, stale-while-revalidate=60",
            frame: Frame::Chunked,
            rate: 9,
            cut: 3,
        };
        assert_eq!(answer, expected);
        assert_eq!(Answer::of_target("/a").size, 1024);
    }

    #[test]
    fn an_answer_arrives_whole_in_every_frame_and_a_cut_one_is_told_apart() {
        let origin = Origin::start(free_port().unwrap()).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, origin.port));
        for frame in ["length", "chunked", "close"] {
            let target = format!("/a?size=200000&frame={frame}");
            let answer = get(address, &Ask::of(&target)).unwrap();
            assert!(answer.is_right(200_000), "{frame}: {answer:?}");
            assert_eq!(origin.count(&target).requests, 1);
        }
        for frame in ["length", "chunked"] {
            let target = format!("/b?size=200000&cut=70000&frame={frame}");
            let cut = get(address, &Ask::of(&target)).unwrap();
            assert_eq!((cut.is_whole, cut.bytes), (false, 70_000), "{frame}");
            assert!(get(address, &Ask::of(&target)).unwrap().is_right(200_000));
        }
    }
}
