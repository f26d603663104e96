//! One request and its response on a connection: content comes and goes at the same time, each as fast as the other side
//! takes it. Knows nothing of where connections come from.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};
use http_body::{Body as _, Frame};
use larder_http::{Body, StatusMessage};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::body::{Broken, Channel, Demand};
use super::conn::{Conn, PIECES_MAX, after};
use super::wire::Refusal;
use super::wire::chunked::{Chunked, Piece};
use super::wire::head::{Head, Length};
use super::wire::response::{self, Around, Asked, Framing};
use super::{Dates, Settings};
use crate::proxy::shutdown::Shutdown;
use crate::proxy::{Duplex, Upgrade};

/// What is read of content that nobody wants, so that the connection can be used again.
//
// A cache answers many requests without reading their content. What is not read must not be taken for the next request
// (pingora, CVE-2025-4366), so it is read to its end, or the connection ends.
const DRAIN_BYTES_MAX: u64 = 64 * 1024;

/// How far the client may be ahead of what the service reads.
const READ_AHEAD_BYTES: usize = 64 * 1024;

/// What of a body in memory is written at once.
const GATHER_BYTES: usize = 256 * 1024;

/// What becomes of the connection afterwards.
pub(super) enum Outcome {
    /// The next request may come.
    Next,
    /// No more requests: the response is complete, and the client shall see its end.
    Close,
    /// The client has gone, or the response is not complete, which it knows from the length or the missing last chunk.
    Cut,
    /// The response is not complete, and the client must not take an end of the connection for its end.
    Reset,
    /// The client speaks another protocol from now on, with whoever is at the other end.
    Tunnel(Box<dyn Duplex>),
}

/// What of the content of the request is still to come.
#[derive(Debug)]
enum Coming {
    Exact(u64),
    Chunked(Box<Chunked>),
    Ended,
    /// It will never be complete.
    Broken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting,
    Sending,
    Draining,
}

pub(super) struct Exchange<'a> {
    settings: &'a Settings,
    dates: &'a mut Dates,
    shutdown: &'a Shutdown,
    channel: Arc<Channel>,
    asked: Asked,
    keep_alive: bool,
    expects_continue: bool,
    /// Something of the content has come, so that nobody waits for a 100.
    has_content: bool,
    coming: Coming,
    drained: u64,
    phase: Phase,
    response: Body,
    framing: Framing,
    /// What may still be sent, if that is known.
    left: Option<u64>,
    trailers: Option<HeaderMap>,
    ended: bool,
    /// It will never be complete. What there is of it is sent, so that the client sees what is missing.
    broken: bool,
    upgrade: Option<Box<dyn Duplex>>,
    refused: Option<Refusal>,
    read_deadline: Option<Instant>,
    write_deadline: Option<Instant>,
}

impl<'a> Exchange<'a> {
    pub(super) fn new(
        head: &Head,
        channel: Arc<Channel>,
        settings: &'a Settings,
        dates: &'a mut Dates,
        shutdown: &'a Shutdown,
    ) -> Self {
        let coming = match head.length {
            Length::Exact(0) => Coming::Ended,
            Length::Exact(length) => Coming::Exact(length),
            Length::Chunked => Coming::Chunked(Box::new(Chunked::new(settings.limits))),
        };
        Self {
            settings,
            dates,
            shutdown,
            channel,
            asked: Asked {
                version: head.version,
                is_head: head.method == http::Method::HEAD,
                wants_upgrade: head.wants_upgrade,
            },
            keep_alive: head.keep_alive,
            expects_continue: head.expects_continue,
            has_content: false,
            coming,
            drained: 0,
            phase: Phase::Waiting,
            response: Body::empty(),
            framing: Framing::None,
            left: None,
            trailers: None,
            ended: false,
            broken: false,
            upgrade: None,
            refused: None,
            read_deadline: None,
            write_deadline: None,
        }
    }

    /// The content was in memory already, and came with the request.
    pub(super) fn has_all(&mut self) {
        self.coming = Coming::Ended;
    }

    /// Goes on as far as it can. `service` is not asked again once it has answered.
    pub(super) fn poll<I, F>(
        &mut self,
        conn: &mut Conn<I>,
        mut service: Pin<&mut F>,
        cx: &mut Context<'_>,
    ) -> Poll<Outcome>
    where
        I: AsyncRead + AsyncWrite + Unpin,
        F: Future<Output = Response<Body>>,
    {
        // Before anything is looked at, so that nothing said from here on is missed.
        if self.phase == Phase::Waiting || !matches!(self.coming, Coming::Ended | Coming::Broken) {
            self.channel.register(cx);
        }
        loop {
            let received = self.receive(conn, cx);
            match self.phase {
                Phase::Waiting => {
                    if let Some(refusal) = self.refused {
                        self.begin(conn, super::refused(refusal));
                        continue;
                    }
                    if let Poll::Ready(response) = service.as_mut().poll(cx) {
                        self.begin(conn, response);
                        continue;
                    }
                    if received {
                        continue;
                    }
                    if self.has_gone(conn, cx) || self.send_interim(conn, cx).is_err() {
                        return Poll::Ready(Outcome::Cut);
                    }
                }
                Phase::Sending => match self.send(conn, cx) {
                    Poll::Ready(Ok(())) => {
                        self.write_deadline = None;
                        if let Some(upgrade) = self.upgrade.take() {
                            return Poll::Ready(Outcome::Tunnel(upgrade));
                        }
                        self.channel.end(Err(Broken("the response has ended")));
                        self.phase = Phase::Draining;
                        continue;
                    }
                    Poll::Ready(Err(Cut)) => return Poll::Ready(self.cut()),
                    Poll::Pending if received => continue,
                    Poll::Pending => {}
                },
                Phase::Draining => match self.coming {
                    _ if !self.keep_alive => return Poll::Ready(Outcome::Close),
                    Coming::Ended => return Poll::Ready(Outcome::Next),
                    Coming::Broken => return Poll::Ready(Outcome::Close),
                    // It waits to be told to send, and is not told.
                    _ if self.awaits_continue() || self.drained > DRAIN_BYTES_MAX => {
                        return Poll::Ready(Outcome::Close);
                    }
                    _ => {}
                },
            }
            return self.poll_deadlines(conn, cx);
        }
    }

    fn poll_deadlines<I>(&mut self, conn: &mut Conn<I>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let deadline = match (self.read_deadline, self.write_deadline) {
            (Some(one), Some(other)) => one.min(other),
            (one, other) => match one.or(other) {
                Some(deadline) => deadline,
                None => return Poll::Pending,
            },
        };
        if conn.timer.poll(deadline, cx).is_pending() {
            return Poll::Pending;
        }
        if self.write_deadline.is_some_and(|write| write <= deadline) {
            return Poll::Ready(self.cut());
        }
        self.read_deadline = None;
        self.refuse(Refusal::new(
            StatusCode::REQUEST_TIMEOUT,
            "the content of the request did not come in time",
        ));
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn cut(&self) -> Outcome {
        if self.framing == Framing::Close { Outcome::Reset } else { Outcome::Cut }
    }

    fn awaits_continue(&self) -> bool {
        self.expects_continue && !self.has_content && !self.channel.has_continued()
    }

    /// The content is not what it should be. If nothing is answered yet, this is.
    fn refuse(&mut self, refusal: Refusal) {
        self.refused = Some(refusal);
        self.fail(refusal.why);
    }

    fn fail(&mut self, why: &'static str) {
        self.coming = Coming::Broken;
        self.keep_alive = false;
        self.channel.end(Err(Broken(why)));
    }

    /// Reads the content of the request, as far as somebody wants it. Says whether the service was handed any.
    fn receive<I: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        conn: &mut Conn<I>,
        cx: &mut Context<'_>,
    ) -> bool {
        let mut handed = false;
        loop {
            if matches!(self.coming, Coming::Ended | Coming::Broken) {
                self.read_deadline = None;
                return handed;
            }
            let drains = match self.channel.demand() {
                _ if self.phase == Phase::Draining => true,
                Demand::Dropped => true,
                Demand::Piece => false,
                Demand::Nothing => {
                    self.read_deadline = None;
                    return handed;
                }
            };
            if drains && (self.drained > DRAIN_BYTES_MAX || self.awaits_continue() || !self.keep_alive) {
                self.read_deadline = None;
                return handed;
            }
            match self.take_piece(conn) {
                Ok(Some(data)) if drains => self.drained += data.len() as u64,
                Ok(Some(data)) => {
                    self.channel.push(Frame::data(data));
                    // After the last piece, so that nobody hears of the end before it.
                    if matches!(self.coming, Coming::Ended) {
                        self.channel.end(Ok(()));
                    }
                    handed = true;
                }
                Ok(None) if matches!(self.coming, Coming::Ended) => handed = true,
                Ok(None) => {
                    if !drains && self.awaits_continue() && self.phase == Phase::Waiting {
                        let _ = self.channel.continues_now();
                        conn.out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                    }
                    match conn.poll_fill(cx) {
                        Poll::Ready(Ok(read)) if read > 0 => self.read_deadline = None,
                        Poll::Ready(_) => self.fail("the client has gone"),
                        Poll::Pending => {
                            self.read_deadline.get_or_insert_with(|| after(self.settings.body_timeout));
                            return handed;
                        }
                    }
                }
                Err(refusal) => self.refuse(refusal),
            }
        }
    }

    /// The next piece of what was read; nothing if more has to come, or if it has ended.
    fn take_piece<I>(&mut self, conn: &mut Conn<I>) -> Result<Option<Bytes>, Refusal> {
        match &mut self.coming {
            Coming::Exact(left) => {
                if conn.input.is_empty() {
                    return Ok(None);
                }
                self.has_content = true;
                let length = usize::try_from(*left).unwrap_or(usize::MAX).min(conn.input.len());
                *left -= length as u64;
                let data = conn.input.split_to(length).freeze();
                if *left == 0 {
                    self.coming = Coming::Ended;
                }
                Ok(Some(data))
            }
            Coming::Chunked(chunked) => {
                self.has_content |= !conn.input.is_empty();
                match chunked.next(&mut conn.input)? {
                    Some(Piece::Data(data)) => Ok(Some(data)),
                    Some(Piece::End(trailers)) => {
                        self.coming = Coming::Ended;
                        if !trailers.is_empty() && self.channel.demand() == Demand::Piece {
                            self.channel.push(Frame::trailers(trailers));
                        }
                        self.channel.end(Ok(()));
                        Ok(None)
                    }
                    None => Ok(None),
                }
            }
            Coming::Ended | Coming::Broken => Ok(None),
        }
    }

    /// Whether the client has gone while it waits: nobody needs the response any more.
    fn has_gone<I: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        conn: &mut Conn<I>,
        cx: &mut Context<'_>,
    ) -> bool {
        // What comes after the request is the next one; that is read when this is done.
        let ahead = if matches!(self.coming, Coming::Ended) { 1 } else { READ_AHEAD_BYTES };
        while conn.input.len() < ahead {
            match conn.poll_fill(cx) {
                Poll::Ready(Ok(read)) if read > 0 => {}
                // What came before it left may be all that it had to say.
                Poll::Ready(Ok(_)) => return conn.input.is_empty(),
                Poll::Ready(Err(_)) => return true,
                Poll::Pending => return false,
            }
        }
        false
    }

    fn send_interim<I: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        conn: &mut Conn<I>,
        cx: &mut Context<'_>,
    ) -> Result<(), Cut> {
        self.channel.take_interim(&mut conn.out);
        if conn.has_output() || conn.unflushed {
            let _ = self.write(conn, cx)?;
        }
        Ok(())
    }

    /// Writes the head of the response, into memory.
    fn begin<I>(&mut self, conn: &mut Conn<I>, response: Response<Body>) {
        let (mut parts, mut body) = response.into_parts();
        let switches = parts.status == StatusCode::SWITCHING_PROTOCOLS;
        let mut framing = response::framing(self.asked, &parts, &body.size_hint());
        if switches && framing.is_ok() {
            self.upgrade = parts.extensions.get::<Upgrade>().and_then(Upgrade::take);
            // Only now, and only if all of the request was read, is anything that follows not HTTP.
            if self.upgrade.is_none() || !matches!(self.coming, Coming::Ended) {
                self.upgrade = None;
                framing = Err(Refusal::new(
                    StatusCode::BAD_GATEWAY,
                    "the response changes the protocol, and there is nobody to speak it",
                ));
            }
        }
        let framing = framing.unwrap_or_else(|refusal| {
            (parts, body) = super::refused(refusal).into_parts();
            self.keep_alive = false;
            if self.asked.is_head {
                Framing::None
            } else {
                Framing::Exact(body.size_hint().exact().unwrap_or(0))
            }
        });
        self.keep_alive &= !self.shutdown.is_on()
            && framing != Framing::Close
            && !asks_to_close(&parts.headers)
            && !self.cannot_drain(conn);
        let connection = match (self.upgrade.is_some(), self.keep_alive) {
            (true, _) => Some("upgrade"),
            (false, false) => Some("close"),
            (false, true) => (self.asked.version == http::Version::HTTP_10).then_some("keep-alive"),
        };
        self.channel.close_interim(&mut conn.out);
        let message = parts.extensions.get::<StatusMessage>().map(|message| &*message.0);
        let around = Around { framing, connection, date: self.dates.now(), message };
        response::write_head(&mut conn.out, &parts, self.asked.is_head, around);
        self.framing = framing;
        self.left = match framing {
            Framing::Exact(length) => Some(length),
            Framing::Chunked(length) => length,
            Framing::None | Framing::Close => None,
        };
        self.ended = framing == Framing::None;
        self.response = if self.ended { Body::empty() } else { body };
        self.phase = Phase::Sending;
    }

    /// Whether it is clear already that more content will come than is read for nothing.
    fn cannot_drain<I>(&self, conn: &Conn<I>) -> bool {
        let left = match self.coming {
            Coming::Ended => return false,
            Coming::Broken => return true,
            Coming::Exact(left) => left.saturating_sub(conn.input.len() as u64),
            Coming::Chunked(_) => 0,
        };
        self.awaits_continue() || (left > DRAIN_BYTES_MAX && self.channel.demand() == Demand::Dropped)
    }

    /// Writes the response.
    fn send<I: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        conn: &mut Conn<I>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Cut>> {
        loop {
            let mut waits = false;
            while !self.ended && self.has_room(conn) {
                match Pin::new(&mut self.response).poll_frame(cx) {
                    Poll::Pending => {
                        waits = true;
                        break;
                    }
                    Poll::Ready(None) => self.finish(conn),
                    Poll::Ready(Some(Err(_))) => self.give_up(),
                    Poll::Ready(Some(Ok(frame))) => self.queue(conn, frame),
                }
            }
            if conn.has_output() && self.write(conn, cx)?.is_pending() {
                return Poll::Pending;
            }
            if self.ended || waits {
                match conn.poll_flush(cx) {
                    Poll::Ready(Ok(())) if self.broken => return Poll::Ready(Err(Cut)),
                    Poll::Ready(Ok(())) if self.ended => return Poll::Ready(Ok(())),
                    Poll::Ready(Ok(())) => return Poll::Pending,
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(Cut)),
                    Poll::Pending => {
                        self.write_deadline.get_or_insert_with(|| after(self.settings.write_timeout));
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// Whether another piece can be written together with those that wait.
    fn has_room<I>(&self, conn: &Conn<I>) -> bool {
        if conn.pieces.is_empty() {
            return conn.tail.is_empty();
        }
        let waiting: usize = conn.pieces.iter().map(Bytes::len).sum();
        // Between chunks come their sizes.
        matches!(self.framing, Framing::Exact(_)) && conn.pieces.len() < PIECES_MAX && waiting < GATHER_BYTES
    }

    fn queue<I>(&mut self, conn: &mut Conn<I>, frame: Frame<Bytes>) {
        let mut data = match frame.into_data() {
            Ok(data) if data.is_empty() => return,
            Ok(data) => data,
            Err(frame) => {
                self.trailers = frame.into_trailers().ok();
                return;
            }
        };
        let mut overlong = false;
        if let Some(left) = &mut self.left {
            let room = usize::try_from(*left).unwrap_or(usize::MAX);
            overlong = data.len() > room;
            data.truncate(room);
            *left -= data.len() as u64;
        }
        let is_chunked = matches!(self.framing, Framing::Chunked(_));
        if overlong {
            self.keep_alive = false;
            self.ended = true;
            // Without a length to go by, the client would take this for all.
            self.broken = is_chunked;
        }
        if data.is_empty() {
            return;
        }
        if is_chunked {
            response::write_chunk_line(&mut conn.out, data.len());
            conn.tail = b"\r\n";
            if !self.ended
                && self.response.is_end_stream()
                && self.trailers.is_none()
                && self.left.is_none_or(|left| left == 0)
            {
                conn.tail = b"\r\n0\r\n\r\n";
                self.ended = true;
            }
        }
        conn.pieces.push(data);
    }

    fn give_up(&mut self) {
        self.ended = true;
        self.broken = true;
    }

    /// The body has ended. If it was to be longer, the client must not take it for all.
    fn finish<I>(&mut self, conn: &mut Conn<I>) {
        if self.left.is_some_and(|left| left > 0) {
            return self.give_up();
        }
        if matches!(self.framing, Framing::Chunked(_)) {
            response::write_last_chunk(&mut conn.out, self.trailers.as_ref());
        }
        self.ended = true;
    }

    /// Writes what waits to be written. The deadline moves on with each byte that the client takes.
    fn write<I: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        conn: &mut Conn<I>,
        cx: &mut Context<'_>,
    ) -> Result<Poll<()>, Cut> {
        while conn.has_output() {
            match conn.poll_write(cx) {
                Poll::Ready(Ok(())) => self.write_deadline = None,
                Poll::Ready(Err(_)) => return Err(Cut),
                Poll::Pending => {
                    self.write_deadline.get_or_insert_with(|| after(self.settings.write_timeout));
                    return Ok(Poll::Pending);
                }
            }
        }
        match conn.poll_flush(cx) {
            Poll::Ready(Err(_)) => Err(Cut),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(Poll::Ready(())),
        }
    }
}

/// The response cannot be completed.
struct Cut;

fn asks_to_close(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
}
