//! Content on its way through HTTP/2: neither more of it than is taken, nor another amount than was said, and not for longer
//! than anybody has patience.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use larder::BoxError;
use larder_http::Body;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Running;
use super::streams::Taking;
use crate::proxy::http1::wire::Refusal;
use crate::proxy::http1::{Timer, after};

/// What a client has to take at once for it to be seen that it takes anything: one frame, as long as most clients let it be.
const PIECE_BYTES: usize = 16 * 1024;

/// A response's content, which fails unless it has the length that was said.
#[derive(Debug)]
pub(super) struct Measured {
    body: Body,
    left: Option<u64>,
    /// What is there already, and was not handed over.
    rest: Bytes,
    taking: Arc<Taking>,
    /// Until the content was sent, or will not be any more.
    _running: Running,
}

impl Measured {
    pub(super) fn new(body: Body, length: Option<u64>, taking: Arc<Taking>, running: Running) -> Self {
        Self { body, left: length, rest: Bytes::new(), taking, _running: running }
    }

    /// Hands over as much as the client can be seen to take.
    fn piece(&mut self, mut data: Bytes) -> Frame<Bytes> {
        self.rest = data.split_off(data.len().min(PIECE_BYTES));
        self.taking.waits();
        Frame::data(data)
    }
}

impl http_body::Body for Measured {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        this.taking.goes_on();
        if !this.rest.is_empty() {
            let rest = std::mem::take(&mut this.rest);
            return Poll::Ready(Some(Ok(this.piece(rest))));
        }
        let next = ready!(Pin::new(&mut this.body).poll_frame(cx)?);
        let data = next.as_ref().and_then(Frame::data_ref).map_or(0, |data| data.len() as u64);
        Poll::Ready(match (&mut this.left, next) {
            (Some(left), Some(_)) if data > *left => {
                Some(Err("the content is longer than it should be".into()))
            }
            (Some(left), None) if *left > 0 => Some(Err("the content ended too early".into())),
            (left, next) => {
                if let Some(left) = left {
                    *left -= data;
                }
                next.map(|frame| match frame.into_data() {
                    Ok(data) => Ok(this.piece(data)),
                    Err(frame) => Ok(frame),
                })
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream() && self.left.is_none_or(|left| left == 0)
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        let rest = self.rest.len() as u64;
        let upper = hint.upper().map(|upper| upper.saturating_add(rest));
        hint.set_lower(hint.lower().saturating_add(rest));
        if let Some(upper) = upper {
            hint.set_upper(upper);
        }
        hint
    }
}

/// A request's content, which fails if it comes to more than it may, or does not come in time. Whoever answers is told.
#[derive(Debug)]
pub(super) struct Limited {
    body: Incoming,
    left: u64,
    timeout: Duration,
    /// While somebody waits for the next piece.
    deadline: Option<Instant>,
    timer: Timer,
    refused: Option<oneshot::Sender<Refusal>>,
}

impl Limited {
    pub(super) fn new(
        body: Incoming,
        bytes_max: u64,
        timeout: Duration,
    ) -> (Self, oneshot::Receiver<Refusal>) {
        let (refused, hears) = oneshot::channel();
        let limited = Self {
            body,
            left: bytes_max,
            timeout,
            deadline: None,
            timer: Timer::default(),
            refused: Some(refused),
        };
        (limited, hears)
    }

    fn refuse(&mut self, refusal: Refusal) -> BoxError {
        if let Some(refused) = self.refused.take() {
            // Nobody hears it who has answered already.
            let _ = refused.send(refusal);
        }
        refusal.why.into()
    }
}

impl http_body::Body for Limited {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let Poll::Ready(next) = Pin::new(&mut this.body).poll_frame(cx)? else {
            let deadline = *this.deadline.get_or_insert_with(|| after(this.timeout));
            ready!(this.timer.poll(deadline, cx));
            let late = "the content of the request did not come in time";
            return Poll::Ready(Some(Err(this.refuse(Refusal::new(StatusCode::REQUEST_TIMEOUT, late)))));
        };
        this.deadline = None;
        let data = next.as_ref().and_then(Frame::data_ref).map_or(0, |data| data.len() as u64);
        let Some(left) = this.left.checked_sub(data) else {
            let large = "the content of the request is too large";
            return Poll::Ready(Some(Err(this.refuse(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, large)))));
        };
        this.left = left;
        Poll::Ready(next.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
