//! Bodies on their way: that of a request, whose progress can be seen, and that of a response, which has to keep coming
//! and gives its connection back when it ends.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use larder::BoxError;
use larder_http::Body;
use tokio::time::{Sleep, sleep};

use super::pool::Lease;

/// The body of a request.
pub(super) struct Outgoing {
    body: Body,
    progress: Progress,
}

/// How often a request's body was asked for more, and whether it was the one that failed.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress(Arc<AtomicU64>);

impl Progress {
    const FAILED: u64 = 1 << 63;

    pub(super) fn seen(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether the client's body broke off: nobody else is to blame.
    pub(super) fn failed(&self) -> bool {
        self.seen() & Self::FAILED != 0
    }
}

impl Outgoing {
    pub(super) fn new(body: Body) -> (Self, Progress) {
        let progress = Progress::default();
        (Self { body, progress: progress.clone() }, progress)
    }
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Err(_))) => drop(self.progress.0.fetch_or(Progress::FAILED, Ordering::Relaxed)),
            Poll::Ready(_) => drop(self.progress.0.fetch_add(1, Ordering::Relaxed)),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a response.
pub(super) struct Arriving {
    body: Incoming,
    /// How long it may pause.
    pause: Duration,
    /// Running while nothing comes.
    timer: Option<Pin<Box<Sleep>>>,
    running: bool,
    lease: Option<Lease>,
}

impl Arriving {
    pub(super) fn new(body: Incoming, pause: Duration, lease: Lease) -> Self {
        let mut arriving = Self { body, pause, timer: None, running: false, lease: Some(lease) };
        arriving.give_back_at_end();
        arriving
    }

    /// Whoever reads a body of known length may never ask what comes after it.
    fn give_back_at_end(&mut self) {
        if self.body.is_end_stream()
            && let Some(lease) = self.lease.take()
        {
            lease.give_back();
        }
    }
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.running = false;
                this.give_back_at_end();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                if let Some(lease) = this.lease.take() {
                    lease.give_back();
                }
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                this.lease = None;
                Poll::Ready(Some(Err(Box::new(CutShort(Some(error))))))
            }
            Poll::Pending => {
                if !this.running {
                    this.running = true;
                    match &mut this.timer {
                        Some(timer) => timer.set(sleep(this.pause)),
                        None => this.timer = Some(Box::pin(sleep(this.pause))),
                    }
                }
                match this.timer.as_mut().map(|timer| timer.as_mut().poll(cx)) {
                    Some(Poll::Ready(())) => {
                        this.lease = None;
                        Poll::Ready(Some(Err(Box::new(CutShort(None)))))
                    }
                    _ => Poll::Pending,
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The origin did not send all of its response: the connection broke, or nothing came for too long.
#[derive(Debug)]
pub(super) struct CutShort(Option<hyper::Error>);

impl fmt::Display for CutShort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(error) => write!(f, "the origin's response broke off: {error}"),
            None => f.write_str("the origin's response broke off: nothing came for too long"),
        }
    }
}

impl std::error::Error for CutShort {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.as_ref().map(|error| error as _)
    }
}
