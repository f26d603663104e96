//! One connection as bytes: what was read and not used yet, what is to be written, and how long either may take. Knows
//! nothing of HTTP.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::time::{Instant, Sleep};

/// What is read at once, unless more is known to come.
const READ_BYTES: usize = 8 * 1024;
const READ_BYTES_MANY: usize = 64 * 1024;

/// The most pieces that are written at once, beside what is in the buffer.
pub(super) const PIECES_MAX: usize = 16;

pub(super) struct Conn<I> {
    pub(super) io: I,
    /// What was read and not used yet.
    pub(super) input: BytesMut,
    /// What is written first.
    pub(super) out: Vec<u8>,
    written: usize,
    /// What is written next, as it is.
    pub(super) pieces: Vec<Bytes>,
    /// What is written last.
    pub(super) tail: &'static [u8],
    pub(super) timer: Timer,
    /// The client has ended its side.
    pub(super) ended: bool,
    /// What was written may still wait inside the connection.
    pub(super) unflushed: bool,
    reads_much: bool,
}

impl<I: AsyncRead + AsyncWrite + Unpin> Conn<I> {
    pub(super) fn new(io: I) -> Self {
        Self {
            io,
            input: BytesMut::new(),
            out: Vec::new(),
            written: 0,
            pieces: Vec::new(),
            tail: b"",
            timer: Timer::default(),
            ended: false,
            unflushed: false,
            reads_much: false,
        }
    }

    /// Reads more; nothing if the client has ended its side.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Ok(0));
        }
        let many = if self.reads_much { READ_BYTES_MANY } else { READ_BYTES };
        // Only if nothing is left of it: a reserve that moves what is there costs more than a short read.
        if self.input.capacity() - self.input.len() < READ_BYTES / 4 {
            self.input.reserve(many);
        }
        let room = self.input.capacity() - self.input.len();
        // This future has no state of its own: it reads at once or registers the task.
        let read = ready!(pin!(self.io.read_buf(&mut self.input)).poll(cx))?;
        self.reads_much = read == room;
        self.ended = read == 0;
        Poll::Ready(Ok(read))
    }

    /// Whether anything waits to be written.
    pub(super) fn has_output(&self) -> bool {
        self.written < self.out.len() || !self.pieces.is_empty() || !self.tail.is_empty()
    }

    /// Writes some of what waits to be written.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut slices = [IoSlice::new(b""); PIECES_MAX + 2];
        let head = self.out.get(self.written..).unwrap_or_default();
        let all = std::iter::once(head).chain(self.pieces.iter().map(|piece| &**piece)).chain([self.tail]);
        let mut count = 0;
        for (slot, bytes) in slices.iter_mut().zip(all.filter(|bytes| !bytes.is_empty())) {
            *slot = IoSlice::new(bytes);
            count += 1;
        }
        let slices = slices.get(..count).unwrap_or_default();
        let mut written = match slices {
            [one] => ready!(Pin::new(&mut self.io).poll_write(cx, one))?,
            _ => ready!(Pin::new(&mut self.io).poll_write_vectored(cx, slices))?,
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.unflushed = true;
        let of_head = written.min(self.out.len() - self.written);
        self.written += of_head;
        written -= of_head;
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
        }
        let mut done = 0;
        for piece in &mut self.pieces {
            let of_piece = written.min(piece.len());
            piece.advance(of_piece);
            written -= of_piece;
            if !piece.is_empty() {
                break;
            }
            done += 1;
        }
        self.pieces.drain(..done);
        self.tail = self.tail.get(written..).unwrap_or_default();
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }
}

/// One timer for all that a connection waits for. Most deadlines move on before they come: it is armed for one of them,
/// and looks at what is due when it wakes.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Ready when the deadline is over.
    pub(in crate::proxy) fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        loop {
            if sleep.deadline() > deadline || (sleep.is_elapsed() && sleep.deadline() < deadline) {
                sleep.as_mut().reset(deadline);
            }
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
        }
    }
}

/// The time as timers have it, so far ahead.
#[expect(clippy::disallowed_methods, reason = "what is waited for is a timer, which counts like this")]
pub(in crate::proxy) fn after(duration: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(duration).unwrap_or_else(|| now + Duration::from_secs(86_400))
}
