//! What the connection and the service say to each other during one exchange: the content of the request, piece by piece
//! as it is asked for, and interim responses. Knows neither sockets nor how either is written.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body::{Frame, SizeHint};
use larder_http::OnInterim;
use parking_lot::Mutex;

use super::wire::response::write_interim;

/// What interim responses that the client is too slow to take may come to. Those beyond it are left out.
const INTERIM_BYTES_MAX: usize = 64 * 1024;

/// Shared by the connection, the request's content and its [`OnInterim`].
#[derive(Debug, Default)]
pub(super) struct Channel(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The task of the connection.
    connection: Option<Waker>,
    /// Whoever reads the content.
    reader: Option<Waker>,
    /// Somebody has begun to read the content.
    wanted: bool,
    /// Nobody will read the content.
    dropped: bool,
    frame: Option<Frame<Bytes>>,
    end: Option<Result<(), Broken>>,
    interim: Vec<u8>,
    interim_closed: bool,
    continued: bool,
}

/// Why the content of a request is not complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken(pub(super) &'static str);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the content of the request is not complete: {}", self.0)
    }
}

impl std::error::Error for Broken {}

/// What the service does with the content of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Demand {
    /// It has not begun to read, or has not taken the last piece.
    Nothing,
    /// The next piece can be taken.
    Piece,
    /// It does not want any more.
    Dropped,
}

impl Channel {
    /// Wakes this task when there is something to do for the connection.
    pub(super) fn register(&self, cx: &Context<'_>) {
        let mut state = self.0.lock();
        if !state.connection.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.connection = Some(cx.waker().clone());
        }
    }

    pub(super) fn demand(&self) -> Demand {
        let state = self.0.lock();
        match (state.dropped, state.wanted && state.frame.is_none()) {
            (true, _) => Demand::Dropped,
            (false, true) => Demand::Piece,
            (false, false) => Demand::Nothing,
        }
    }

    /// Hands a piece to the service, which has room for one.
    pub(super) fn push(&self, frame: Frame<Bytes>) {
        let mut state = self.0.lock();
        state.frame = Some(frame);
        state.wake_reader();
    }

    /// Ends the content, unless it has ended.
    pub(super) fn end(&self, end: Result<(), Broken>) {
        let mut state = self.0.lock();
        state.end.get_or_insert(end);
        state.wake_reader();
    }

    /// Takes the interim responses that are to be sent.
    pub(super) fn take_interim(&self, out: &mut Vec<u8>) {
        out.append(&mut self.0.lock().interim);
    }

    /// Takes the last of them: those that come later are left out.
    pub(super) fn close_interim(&self, out: &mut Vec<u8>) {
        let mut state = self.0.lock();
        state.interim_closed = true;
        out.append(&mut state.interim);
    }

    /// Whether nobody has told the client yet to go on.
    pub(super) fn continues_now(&self) -> bool {
        !std::mem::replace(&mut self.0.lock().continued, true)
    }

    /// Whether the client was told to go on.
    pub(super) fn has_continued(&self) -> bool {
        self.0.lock().continued
    }

    /// Where the service's interim responses go.
    pub(super) fn on_interim(self: &Arc<Self>) -> OnInterim {
        let channel = Arc::clone(self);
        OnInterim::new(move |response| channel.pass_on(&response))
    }

    fn pass_on(&self, response: &Response<()>) {
        let mut state = self.0.lock();
        if state.interim_closed || state.interim.len() > INTERIM_BYTES_MAX {
            return;
        }
        // A client that is told to go on twice may take the second for the answer to its next request.
        if response.status() == StatusCode::CONTINUE && std::mem::replace(&mut state.continued, true) {
            return;
        }
        write_interim(&mut state.interim, response);
        let waker = state.connection.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl State {
    fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    fn wake_connection(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.wake();
        }
    }
}

/// The content of a request that is still coming.
pub(super) struct Incoming {
    channel: Arc<Channel>,
    left: Option<u64>,
}

impl Incoming {
    /// Content of this many bytes, if that is known.
    pub(super) fn new(channel: Arc<Channel>, length: Option<u64>) -> Self {
        Self { channel, left: length }
    }
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = &mut *self;
        let mut state = this.channel.0.lock();
        if let Some(frame) = state.frame.take() {
            state.wake_connection();
            if let (Some(left), Some(data)) = (&mut this.left, frame.data_ref()) {
                *left = left.saturating_sub(data.len() as u64);
            }
            return Poll::Ready(Some(Ok(frame)));
        }
        match state.end {
            Some(Ok(())) => Poll::Ready(None),
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            None => {
                state.reader = Some(cx.waker().clone());
                if !std::mem::replace(&mut state.wanted, true) {
                    state.wake_connection();
                }
                Poll::Pending
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map(SizeHint::with_exact).unwrap_or_default()
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let mut state = self.channel.0.lock();
        state.dropped = true;
        state.frame = None;
        state.wake_connection();
    }
}
