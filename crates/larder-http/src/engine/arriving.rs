//! A response whose body is still coming: read by all who joined it, at their own pace, while it is being stored.
//!
//! What the store has taken is read back from there, so that a slow reader costs no memory. Once the store takes no more,
//! the origin waits for the slowest reader.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::HeaderMap;
use http::response::Parts as Head;
use http_body::Frame;
use larder::BoxError;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::Shared;
use super::flights::Since;
use super::respond::Frames;
use crate::Body;
use crate::policy::Stored;
use crate::store::ReadBody;

/// How much of a body is held for readers that are about to need it, in bytes, besides what the store has not taken yet.
const WINDOW_BYTES: u64 = 512 * 1024;

/// How long those who have read all that there is wait for one who takes nothing. After that, it is left behind: one client
/// that reads nothing must not keep the others from what they asked for.
const PATIENCE: Duration = Duration::from_secs(10);

/// A response that is arriving.
#[derive(Debug)]
pub(super) struct Arriving {
    pub(super) stored: Stored,
    /// Its fields as they came, but for those of the connection.
    pub(super) headers: HeaderMap,
    /// What it will be kept under.
    pub(super) name: String,
    since: Since,
    has_tags: bool,
    content: Mutex<Content>,
    changed: watch::Sender<u64>,
}

struct Content {
    pieces: VecDeque<Bytes>,
    /// Where the first piece begins.
    first: u64,
    /// How much has come.
    received: u64,
    end: Option<Result<Option<HeaderMap>, Cut>>,
    readers: BTreeMap<u64, u64>,
    readers_ever: u64,
    store: Arc<dyn ReadBody>,
    /// How much of it the store gives back.
    readable: u64,
    /// Whether the store takes more.
    is_kept: bool,
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content")
            .field("first", &self.first)
            .field("received", &self.received)
            .field("readable", &self.readable)
            .field("readers", &self.readers.len())
            .finish_non_exhaustive()
    }
}

/// The body ended before its end.
#[derive(Debug, Clone)]
pub(super) struct Cut(Arc<str>);

impl Cut {
    pub(super) fn new(why: impl fmt::Display) -> Self {
        Self(why.to_string().into())
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the response ended before its end: {}", self.0)
    }
}

impl std::error::Error for Cut {}

impl Arriving {
    pub(super) fn new(
        stored: Stored,
        head: &Head,
        name: String,
        since: Since,
        has_tags: bool,
        store: Arc<dyn ReadBody>,
    ) -> Self {
        let content = Content {
            pieces: VecDeque::new(),
            first: 0,
            received: 0,
            end: None,
            readers: BTreeMap::new(),
            readers_ever: 0,
            store,
            readable: 0,
            is_kept: true,
        };
        let headers = head.headers.clone();
        Self {
            stored,
            headers,
            name,
            since,
            has_tags,
            content: Mutex::new(content),
            changed: watch::Sender::new(0),
        }
    }

    /// Whether it was invalidated since it was asked for, so that nobody may join it any more.
    pub(super) fn is_superseded(&self, shared: &Shared, target: &str) -> bool {
        !shared.is_valid(self.since, target, &self.name, self.has_tags)
    }

    /// Adds a piece. `readable` is how much the store gives back by now; `None` if it gave up.
    pub(super) fn push(&self, piece: Bytes, readable: Option<u64>) {
        {
            let mut content = self.content.lock();
            content.received += piece.len() as u64;
            content.pieces.push_back(piece);
            content.stored_until(readable);
        }
        self.announce();
    }

    /// Tells how much of it the store gives back by now; `None` if it gave up.
    pub(super) fn stored_until(&self, readable: Option<u64>) {
        self.content.lock().stored_until(readable);
    }

    /// Waits until there is room for more. False if nobody would read it and nothing keeps it.
    pub(super) async fn has_room(&self) -> bool {
        let mut changed = self.changed.subscribe();
        loop {
            {
                let mut content = self.content.lock();
                content.trim();
                if content.is_kept {
                    return true;
                }
                if content.readers.is_empty() {
                    return false;
                }
                if content.received - content.first < WINDOW_BYTES {
                    return true;
                }
            }
            match tokio::time::timeout(PATIENCE, self.until_read(&mut changed)).await {
                Ok(true) => {}
                Ok(false) => return false,
                Err(_) => self.leave_behind(),
            }
        }
    }

    /// Waits until somebody has read something.
    async fn until_read(&self, changed: &mut watch::Receiver<u64>) -> bool {
        changed.changed().await.is_ok()
    }

    /// Waits no longer for those who have taken nothing of what there is, if others have taken all of it. If nobody has, there
    /// is nobody to be held up.
    fn leave_behind(&self) {
        {
            let mut content = self.content.lock();
            let received = content.received;
            if content.readers.values().all(|at| *at < received) {
                return;
            }
            content.readers.retain(|_, at| *at == received);
        }
        self.announce();
    }

    /// The body is complete, or is not.
    pub(super) fn end(&self, end: Result<Option<HeaderMap>, Cut>, readable: Option<u64>) {
        self.end_with(None, end, readable);
    }

    /// The same, after a last piece. At once: whoever came between would see a body that the store has given up and that has
    /// no end, and not begin to read it.
    pub(super) fn end_with(
        &self,
        last: Option<Bytes>,
        end: Result<Option<HeaderMap>, Cut>,
        readable: Option<u64>,
    ) {
        {
            let mut content = self.content.lock();
            if let Some(last) = last {
                content.received += last.len() as u64;
                content.pieces.push_back(last);
            }
            content.end = Some(end);
            content.stored_until(readable);
        }
        self.announce();
    }

    fn announce(&self) {
        self.changed.send_modify(|version| *version = version.wrapping_add(1));
    }

    /// Reads all of it from the beginning. `None` if that is gone already, or would hold up others, and if it is known to
    /// have been cut: who comes then asks anew.
    pub(super) fn read(self: &Arc<Self>) -> Option<Body> {
        let (reader, declared) = {
            let mut content = self.content.lock();
            // Once the store takes no more, the origin waits for the slowest reader: nobody begins anew then.
            let is_held_up = !content.is_kept && content.end.is_none();
            let is_cut = matches!(content.end, Some(Err(_)));
            if is_held_up || is_cut || content.first > content.readable {
                return None;
            }
            let id = content.readers_ever;
            content.readers_ever += 1;
            content.readers.insert(id, 0);
            (Reader { arriving: Arc::clone(self), id, at: 0 }, declared_bytes(&self.headers))
        };
        let changed = self.changed.subscribe();
        let frames = stream::unfold(Some((reader, changed)), |state| async move {
            let (mut reader, mut changed) = state?;
            match reader.next(&mut changed).await {
                Ok(Some(frame)) if frame.is_data() => Some((Ok(frame), Some((reader, changed)))),
                Ok(Some(trailers)) => Some((Ok(trailers), None)),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        });
        Some(Body::stream(Frames::new(Box::pin(frames), declared)))
    }
}

impl Content {
    fn stored_until(&mut self, readable: Option<u64>) {
        match readable {
            Some(readable) => self.readable = readable,
            None => self.is_kept = false,
        }
        self.trim();
    }

    /// Lets go of what the store gives back, but for what is about to be needed; and, once the store takes no more, of
    /// what everybody has read.
    fn trim(&mut self) {
        let slowest = self.readers.values().min().copied();
        while let Some(piece) = self.pieces.front() {
            let end = self.first + piece.len() as u64;
            let is_read = slowest.is_some_and(|slowest| end <= slowest);
            let is_far = self.received - self.first > WINDOW_BYTES;
            let is_in_store = end <= self.readable;
            if !(is_in_store && (is_read || is_far || !self.is_kept) || is_read && !self.is_kept) {
                break;
            }
            self.first = end;
            self.pieces.pop_front();
        }
    }

    fn piece_at(&self, at: u64) -> Option<Bytes> {
        let mut begin = self.first;
        for piece in &self.pieces {
            let end = begin + piece.len() as u64;
            if at >= begin && at < end {
                return Some(piece.slice(usize::try_from(at - begin).ok()?..));
            }
            begin = end;
        }
        None
    }
}

/// The length that the head declares, if it declares one.
pub(super) fn declared_bytes(headers: &HeaderMap) -> Option<u64> {
    let length = headers.get(http::header::CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

/// One who reads it. Dropped, it is not waited for any more.
struct Reader {
    arriving: Arc<Arriving>,
    id: u64,
    at: u64,
}

enum Step {
    Piece(Bytes),
    FromStore(Arc<dyn ReadBody>),
    Wait,
    End(Option<HeaderMap>),
    Fail(BoxError),
}

impl Reader {
    async fn next(&mut self, changed: &mut watch::Receiver<u64>) -> Result<Option<Frame<Bytes>>, BoxError> {
        loop {
            changed.mark_unchanged();
            let piece = match self.step() {
                Step::Piece(piece) => piece,
                Step::FromStore(store) => match store.read(self.at).await? {
                    Some(piece) => piece,
                    None => return Err(Box::new(Cut::new("what was stored of it is gone"))),
                },
                Step::Wait => {
                    changed.changed().await?;
                    continue;
                }
                Step::End(trailers) => return Ok(trailers.map(Frame::trailers)),
                Step::Fail(error) => return Err(error),
            };
            self.at += piece.len() as u64;
            let is_waited_for = {
                let mut content = self.arriving.content.lock();
                content.readers.insert(self.id, self.at);
                !content.is_kept
            };
            if is_waited_for {
                self.arriving.announce();
            }
            return Ok(Some(Frame::data(piece)));
        }
    }

    fn step(&self) -> Step {
        let content = self.arriving.content.lock();
        if !content.readers.contains_key(&self.id) {
            return Step::Fail(Box::new(Cut::new("others who read it had waited for long enough")));
        }
        if self.at < content.received {
            return match content.piece_at(self.at) {
                Some(piece) => Step::Piece(piece),
                None => Step::FromStore(Arc::clone(&content.store)),
            };
        }
        match &content.end {
            None => Step::Wait,
            Some(Ok(trailers)) => Step::End(trailers.clone()),
            Some(Err(cut)) => Step::Fail(Box::new(cut.clone())),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.arriving.content.lock().readers.remove(&self.id);
        self.arriving.announce();
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::engine::flights::Flights;
    use crate::policy::{Exchange, Policy};
    use crate::store::{CollectBody, WriteBody as _};

    #[test]
    fn nobody_begins_to_read_what_was_cut() {
        let (request, ()) = http::Request::get("http://a/").body(()).unwrap().into_parts();
        let response = http::Response::builder().header("cache-control", "max-age=60").body(()).unwrap();
        let (head, ()) = response.into_parts();
        let stored = Policy::shared().store(&request, &head, Exchange::at(UNIX_EPOCH)).unwrap();
        let (since, store) = (Flights::default().since(None), CollectBody::new(u64::MAX).reader());
        let arriving = Arc::new(Arriving::new(stored, &head, "http://a/".into(), since, false, store));
        arriving.push("half".into(), Some(4));
        assert!(arriving.read().is_some());
        arriving.end(Err(Cut::new("the origin left")), None);
        assert!(arriving.read().is_none());
    }
}
