//! Content on its way through HTTP/2: neither more of it than is taken, nor another amount than was said.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use larder::BoxError;
use larder_http::Body;

use super::Running;

/// A response's content, which fails unless it has the length that was said.
#[derive(Debug)]
pub(super) struct Measured {
    body: Body,
    left: Option<u64>,
    /// Until the content was sent, or will not be any more.
    _running: Running,
}

impl Measured {
    pub(super) fn new(body: Body, length: Option<u64>, running: Running) -> Self {
        Self { body, left: length, _running: running }
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
                next.map(Ok)
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && self.left.is_none_or(|left| left == 0)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A request's content, which fails if it comes to more than this.
#[derive(Debug)]
pub(super) struct Limited {
    body: Incoming,
    left: u64,
}

impl Limited {
    pub(super) fn new(body: Incoming, bytes_max: u64) -> Self {
        Self { body, left: bytes_max }
    }
}

impl http_body::Body for Limited {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let next = ready!(Pin::new(&mut self.body).poll_frame(cx)?);
        let data = next.as_ref().and_then(Frame::data_ref).map_or(0, |data| data.len() as u64);
        let Some(left) = self.left.checked_sub(data) else {
            return Poll::Ready(Some(Err("the content of the request is too large".into())));
        };
        self.left = left;
        Poll::Ready(next.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
