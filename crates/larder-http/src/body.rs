//! A message's content: nothing, bytes that are there, or bytes that are still coming. Knows nothing of where it is kept.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use larder::BoxError;
use parking_lot::Mutex;

/// The content of a request or of a response, with its trailers.
///
/// What is in memory is handed out as it is, without copying.
///
/// ```
/// use http_body::Body as _;
/// use larder_http::Body;
///
/// assert_eq!(Body::from("hello").size_hint().exact(), Some(5));
/// assert!(Body::empty().is_end_stream());
/// ```
#[derive(Default)]
pub struct Body {
    content: Content,
    trailers: Option<HeaderMap>,
}

type Stream = Pin<Box<dyn http_body::Body<Data = Bytes, Error = BoxError> + Send>>;

#[derive(Default)]
enum Content {
    #[default]
    Empty,
    Bytes(Bytes),
    Chunks(VecDeque<Bytes>),
    /// Behind a lock that nobody waits for: it makes a body something that threads may share, which clients ask for.
    Stream(Mutex<Stream>),
}

impl Body {
    /// No content.
    pub const fn empty() -> Self {
        Self { content: Content::Empty, trailers: None }
    }

    /// Content in pieces.
    pub fn from_chunks(chunks: impl IntoIterator<Item = Bytes>) -> Self {
        let chunks = chunks.into_iter().filter(|chunk| !chunk.is_empty()).collect();
        Self { content: Content::Chunks(chunks), trailers: None }
    }

    /// Content that is still coming. An error ends it, and means that it is not complete.
    pub fn stream<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let stream: Stream = Box::pin(body.map_err(Into::into));
        Self { content: Content::Stream(Mutex::new(stream)), trailers: None }
    }

    /// The same, followed by these trailers. Of a stream, they come beside its own.
    #[must_use]
    pub fn with_trailers(mut self, trailers: Option<HeaderMap>) -> Self {
        self.trailers = trailers.filter(|trailers| !trailers.is_empty());
        self
    }

    /// All of it, if it is in memory as one piece.
    pub fn as_bytes(&self) -> Option<&Bytes> {
        match &self.content {
            Content::Bytes(bytes) if self.trailers.is_none() => Some(bytes),
            Content::Chunks(chunks) if self.trailers.is_none() && chunks.len() == 1 => chunks.front(),
            _ => None,
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.content {
            Content::Empty => "empty",
            Content::Bytes(_) | Content::Chunks(_) => "in memory",
            Content::Stream(_) => "stream",
        };
        f.debug_struct("Body").field("content", &kind).field("bytes", &self.size_hint().exact()).finish()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        let content = if bytes.is_empty() { Content::Empty } else { Content::Bytes(bytes) };
        Self { content, trailers: None }
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let next = match &mut self.content {
            Content::Empty => None,
            Content::Bytes(bytes) => Some(std::mem::take(bytes)),
            Content::Chunks(chunks) => chunks.pop_front(),
            Content::Stream(stream) => match stream.get_mut().as_mut().poll_frame(cx) {
                Poll::Ready(None) => None,
                other => return other,
            },
        };
        if let Some(bytes) = next {
            if matches!(self.content, Content::Bytes(_)) {
                self.content = Content::Empty;
            }
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        self.content = Content::Empty;
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.trailers.is_none()
            && match &self.content {
                Content::Empty => true,
                Content::Bytes(bytes) => bytes.is_empty(),
                Content::Chunks(chunks) => chunks.is_empty(),
                Content::Stream(stream) => stream.lock().is_end_stream(),
            }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Chunks(chunks) => {
                SizeHint::with_exact(chunks.iter().map(|chunk| chunk.len() as u64).sum())
            }
            Content::Stream(stream) => stream.lock().size_hint(),
        }
    }
}
