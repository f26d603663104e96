//! A response out of what is stored: its head, and the bytes of its body that were asked for.

use std::collections::VecDeque;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http::request::Parts as Request;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body::{Frame, SizeHint};
use larder::BoxError;

use super::arriving::Cut;
use crate::Body;
use crate::header::{ContentRange, Span};
use crate::origin::StatusMessage;
use crate::policy::Answer;
use crate::store::{StoredBody, StoredResponse};

/// What of a body is sent.
#[derive(Debug, Clone)]
enum Segment {
    /// These bytes, which are not of the body.
    Text(Bytes),
    /// These of the body.
    Of(Range<u64>),
}

/// Why a stored response cannot be handed out.
#[derive(Debug)]
pub(super) enum Missing {
    /// Its body is not there any more.
    Gone,
    /// The store did not say.
    Failed(larder::Error),
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Gone => f.write_str("what was stored of it is gone"),
            Self::Failed(error) => write!(f, "what was stored of it cannot be read: {error}"),
        }
    }
}

/// The response to a request, out of what is stored.
pub(super) async fn respond(
    request: &Request,
    response: &Arc<StoredResponse>,
    is_validated: bool,
    now: SystemTime,
) -> Result<Response<Body>, Missing> {
    let (mut head, plan) = head(request, response, is_validated, now);
    let body = match plan {
        Plan::Nothing => Body::empty(),
        Plan::Whole => {
            let trailers = response.trailers.clone();
            whole(&response.body).await?.with_trailers(trailers)
        }
        Plan::Segments(segments) => {
            let body = segments_of(&response.body, segments).await?;
            if let Some(bytes) = http_body::Body::size_hint(&body).exact() {
                let _ = head.headers_mut().try_insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
            }
            body
        }
    };
    *head.body_mut() = body;
    Ok(head)
}

/// The same, if it can be had without waiting.
pub(super) fn respond_at_once(
    request: &Request,
    response: &Arc<StoredResponse>,
    now: SystemTime,
) -> Option<Response<Body>> {
    let bytes = response.body.in_memory()?;
    let (mut head, plan) = head(request, response, false, now);
    *head.body_mut() = match plan {
        Plan::Nothing => Body::empty(),
        Plan::Whole => Body::from(bytes.clone()).with_trailers(response.trailers.clone()),
        Plan::Segments(segments) => {
            let pieces: Vec<Bytes> = segments
                .into_iter()
                .map(|segment| match segment {
                    Segment::Text(text) => Some(text),
                    Segment::Of(range) => cut(bytes, &range),
                })
                .collect::<Option<_>>()?;
            let length: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
            let _ = head.headers_mut().try_insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            Body::from_chunks(pieces)
        }
    };
    Some(head)
}

enum Plan {
    Nothing,
    Whole,
    Segments(Vec<Segment>),
}

fn head(
    request: &Request,
    response: &Arc<StoredResponse>,
    is_validated: bool,
    now: SystemTime,
) -> (Response<Body>, Plan) {
    let stored = &response.stored;
    let answer = stored.answer(request).unwrap_or(Answer::Whole);
    let mut outgoing = stored.respond(&answer, is_validated, now);
    let plan = match answer {
        _ if request.method == Method::HEAD => Plan::Nothing,
        Answer::NotModified | Answer::NotSatisfiable => Plan::Nothing,
        Answer::Whole => Plan::Whole,
        Answer::Parts(spans) => {
            let first = stored.held().0.map_or(0, |held| held.first);
            let range = |span: &Span| span.first - first..span.last - first + 1;
            match spans.as_slice() {
                [span] => Plan::Segments(vec![Segment::Of(range(span))]),
                spans => {
                    let boundary = boundary(response, now);
                    let segments = multipart(&boundary, &outgoing.headers, stored.held().1, spans, range);
                    let kind = format!("multipart/byteranges; boundary={boundary}");
                    if let Ok(kind) = HeaderValue::try_from(kind) {
                        let _ = outgoing.headers.try_insert(header::CONTENT_TYPE, kind);
                    }
                    Plan::Segments(segments)
                }
            }
        }
    };
    let mut head = Response::new(Body::empty());
    *head.status_mut() = outgoing.status;
    *head.headers_mut() = outgoing.headers;
    if let Some(message) = response.message.as_deref().filter(|_| outgoing.status == stored.status()) {
        head.extensions_mut().insert(StatusMessage(message.into()));
    }
    (head, plan)
}

/// The parts of a `multipart/byteranges` (RFC 9110 section 14.6).
fn multipart(
    boundary: &str,
    headers: &http::HeaderMap,
    complete_bytes: Option<u64>,
    spans: &[Span],
    range: impl Fn(&Span) -> Range<u64>,
) -> Vec<Segment> {
    let mut segments = Vec::with_capacity(spans.len() * 2 + 1);
    //= https://www.rfc-editor.org/rfc/rfc9110#section-15.3.7.2
    //# If multiple parts are being transferred, the server generating the
    //# 206 response MUST generate "multipart/byteranges" content, as defined
    //# in Section 14.6, and a Content-Type header field containing the
    //# multipart/byteranges media type and its required boundary parameter.
    let mut before = String::new();
    for span in spans {
        let place = ContentRange { span: Some(*span), complete_bytes }.to_value();
        let mut text = Vec::from(format!("{before}--{boundary}\r\n"));
        if let Some(kind) = headers.get(header::CONTENT_TYPE) {
            text.extend_from_slice(b"Content-Type: ");
            text.extend_from_slice(kind.as_bytes());
            text.extend_from_slice(b"\r\n");
        }
        text.extend_from_slice(b"Content-Range: ");
        text.extend_from_slice(place.as_bytes());
        text.extend_from_slice(b"\r\n\r\n");
        segments.push(Segment::Text(text.into()));
        segments.push(Segment::Of(range(span)));
        "\r\n".clone_into(&mut before);
    }
    segments.push(Segment::Text(format!("\r\n--{boundary}--\r\n").into()));
    segments
}

/// What is not in the body, as far as can be foreseen: whoever wrote the body did not know the moment in which it is read.
fn boundary(response: &StoredResponse, now: SystemTime) -> String {
    let nanos = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let mixed = response.id.0 ^ nanos.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834);
    format!("{mixed:032x}")
}

async fn whole(body: &StoredBody) -> Result<Body, Missing> {
    match body.in_memory() {
        Some(bytes) => Ok(bytes.clone().into()),
        None => segments_of(body, vec![Segment::Of(0..body.bytes())]).await,
    }
}

/// These bytes of a stored body. Its beginning is looked at first.
pub(super) async fn part_of(body: &StoredBody, range: Range<u64>) -> Result<Body, Missing> {
    segments_of(body, vec![Segment::Of(range)]).await
}

/// A body of these segments. Its beginning is looked at first, so that one that is gone is not begun.
async fn segments_of(body: &StoredBody, segments: Vec<Segment>) -> Result<Body, Missing> {
    let length = segments
        .iter()
        .map(|segment| match segment {
            Segment::Text(text) => text.len() as u64,
            Segment::Of(range) => range.end - range.start,
        })
        .sum();
    let mut segments: VecDeque<Segment> = segments.into();
    let mut begun = VecDeque::new();
    while let Some(segment) = segments.pop_front() {
        match segment {
            Segment::Text(text) => begun.push_back(text),
            Segment::Of(range) if range.is_empty() => {}
            Segment::Of(mut range) => {
                let piece = piece(body, &mut range).await?;
                begun.push_back(piece);
                segments.push_front(Segment::Of(range));
                break;
            }
        }
    }
    if segments.iter().all(|segment| matches!(segment, Segment::Of(range) if range.is_empty())) {
        return Ok(Body::from_chunks(begun));
    }
    let state = (body.clone(), begun, segments);
    let frames = stream::unfold(Some(state), |state| async move {
        let (body, mut begun, mut segments) = state?;
        if let Some(piece) = begun.pop_front() {
            return Some((Ok(Frame::data(piece)), Some((body, begun, segments))));
        }
        loop {
            match segments.pop_front()? {
                Segment::Text(text) => return Some((Ok(Frame::data(text)), Some((body, begun, segments)))),
                Segment::Of(range) if range.is_empty() => {}
                Segment::Of(mut range) => {
                    return match piece(&body, &mut range).await {
                        Ok(piece) => {
                            segments.push_front(Segment::Of(range));
                            Some((Ok(Frame::data(piece)), Some((body, begun, segments))))
                        }
                        Err(missing) => Some((Err(Box::new(Cut::new(missing)) as BoxError), None)),
                    };
                }
            }
        }
    });
    Ok(Body::stream(Frames::new(Box::pin(frames), Some(length))))
}

/// The next bytes of a range, which becomes what is left.
async fn piece(body: &StoredBody, range: &mut Range<u64>) -> Result<Bytes, Missing> {
    let found = body.read(range.start).await.map_err(Missing::Failed)?;
    let mut piece = found.filter(|piece| !piece.is_empty()).ok_or(Missing::Gone)?;
    let wanted = range.end - range.start;
    if piece.len() as u64 > wanted {
        piece.truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
    }
    range.start += piece.len() as u64;
    Ok(piece)
}

fn cut(bytes: &Bytes, range: &Range<u64>) -> Option<Bytes> {
    let (start, end) = (usize::try_from(range.start).ok()?, usize::try_from(range.end).ok()?);
    (start <= end && end <= bytes.len()).then(|| bytes.slice(start..end))
}

type FrameStream = Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, BoxError>> + Send>>;

/// A body of frames, with its length if it is known.
pub(super) struct Frames {
    frames: FrameStream,
    left: Option<u64>,
    is_ended: bool,
}

impl Frames {
    pub(super) fn new(frames: FrameStream, length: Option<u64>) -> Self {
        Self { frames, left: length, is_ended: false }
    }
}

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.is_ended {
            return Poll::Ready(None);
        }
        let frame = std::task::ready!(self.frames.as_mut().poll_next(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(left), Some(piece)) = (self.left, frame.data_ref()) {
                    self.left = Some(left.saturating_sub(piece.len() as u64));
                }
            }
            Some(Err(_)) | None => self.is_ended = true,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.is_ended
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// A response that the cache makes itself: no more than its status says.
pub(super) fn generated(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let _ = response.headers_mut().try_insert(header::CONTENT_LENGTH, HeaderValue::from(0));
    response
}
