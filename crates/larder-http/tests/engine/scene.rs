//! A cache, a clock that is moved by hand, and an origin that does what the test says.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt as _;
use larder::testing::ManualClock;
use larder::time::Timestamp;
use larder_http::policy::{Policy, Stored};
use larder_http::store::{Change, HttpStore, MemoryStore, Purge, ReadBody, StoredBody, Variants, WriteBody};
use larder_http::{Body, HttpCache, HttpCacheBuilder, Origin, OriginError, OriginErrorKind};
use parking_lot::Mutex;

/// When scenes begin: a Wednesday in 2027.
pub(crate) const START: u64 = 1_800_000_000_000;

pub(crate) type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, OriginError>> + Send>>;

pub(crate) struct Scene {
    pub(crate) cache: HttpCache,
    pub(crate) clock: ManualClock,
    pub(crate) store: Arc<Shelf>,
    pub(crate) origin: Arc<dyn Origin>,
    asked: Arc<AtomicUsize>,
}

struct Scripted<F> {
    asked: Arc<AtomicUsize>,
    answer: F,
}

#[async_trait]
impl<F: Fn(usize, Request<Body>) -> Answer + Send + Sync + 'static> Origin for Scripted<F> {
    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, OriginError> {
        let nth = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        (self.answer)(nth, request).await
    }
}

/// What came back, read to its end.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Got {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// What this cache says it did.
    pub(crate) fn cache_status(&self) -> &str {
        self.header("cache-status")
    }

    pub(crate) fn is_hit(&self) -> bool {
        self.cache_status().starts_with("Larder; hit")
    }
}

impl Scene {
    pub(crate) fn new(answer: impl Fn(usize, Request<Body>) -> Answer + Send + Sync + 'static) -> Self {
        Self::with(|builder| builder, answer)
    }

    pub(crate) fn with(
        build: impl FnOnce(HttpCacheBuilder) -> HttpCacheBuilder,
        answer: impl Fn(usize, Request<Body>) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::over(build, |_, shelf| shelf, answer)
    }

    /// The same over a store of the test's own choice.
    pub(crate) fn over(
        build: impl FnOnce(HttpCacheBuilder) -> HttpCacheBuilder,
        choose: impl FnOnce(&ManualClock, Arc<Shelf>) -> Arc<dyn HttpStore>,
        answer: impl Fn(usize, Request<Body>) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let clock = ManualClock::new(Timestamp::from_millis(START));
        let store = Arc::new(Shelf::default());
        let builder = HttpCache::builder(choose(&clock, Arc::clone(&store)));
        let cache = build(builder.clock(Arc::new(clock.clone()))).build();
        let asked = Arc::new(AtomicUsize::new(0));
        let origin: Arc<dyn Origin> = Arc::new(Scripted { asked: Arc::clone(&asked), answer });
        Self { cache, clock, store, origin, asked }
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Result<Response<Body>, OriginError> {
        self.cache.handle(&self.origin, request).await
    }

    pub(crate) async fn ask(&self, request: Request<Body>) -> Got {
        read(self.send(request).await.unwrap()).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Got {
        self.ask(get(path, &[])).await
    }

    pub(crate) fn pass(&self, by: Duration) {
        self.clock.advance(by);
    }
}

pub(crate) fn uri(path: &str) -> String {
    format!("http://example.com{path}")
}

pub(crate) fn request(method: &str, path: &str, fields: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(uri(path));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

pub(crate) fn get(path: &str, fields: &[(&str, &str)]) -> Request<Body> {
    request("GET", path, fields)
}

pub(crate) fn response(status: u16, fields: &[(&str, &str)], body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::builder().status(status);
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    response.body(body.into()).unwrap()
}

/// An answer that is there at once.
pub(crate) fn now(response: Response<Body>) -> Answer {
    Box::pin(async move { Ok(response) })
}

/// An answer that takes its time.
pub(crate) fn after(delay: Duration, response: Response<Body>) -> Answer {
    Box::pin(async move {
        tokio::time::sleep(delay).await;
        Ok(response)
    })
}

/// No answer.
pub(crate) fn down() -> Answer {
    Box::pin(async { Err(OriginError::new(OriginErrorKind::Disconnected, "connection refused")) })
}

pub(crate) async fn read(response: Response<Body>) -> Result<Got, larder::BoxError> {
    let (head, body) = response.into_parts();
    let body = body.collect().await?;
    let trailers = body.trailers().cloned();
    let body = String::from_utf8(body.to_bytes().to_vec())?;
    Ok(Got { status: head.status.as_u16(), headers: head.headers, body, trailers })
}

/// A body that a test feeds piece by piece.
pub(crate) fn fed(length: Option<u64>) -> (tokio::sync::mpsc::Sender<Result<Bytes, larder::BoxError>>, Body) {
    struct Fed(tokio::sync::mpsc::Receiver<Result<Bytes, larder::BoxError>>, Option<u64>);
    impl http_body::Body for Fed {
        type Data = Bytes;
        type Error = larder::BoxError;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, larder::BoxError>>> {
            self.0.poll_recv(cx).map(|piece| piece.map(|piece| piece.map(http_body::Frame::data)))
        }
        fn size_hint(&self) -> http_body::SizeHint {
            self.1.map_or_else(http_body::SizeHint::default, http_body::SizeHint::with_exact)
        }
    }
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    (sender, Body::stream(Fed(receiver, length)))
}

/// A store in a map, as small as one can be; it can be told to take no more after so many bytes.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    targets: Mutex<HashMap<String, Arc<Variants>>>,
    pub(crate) takes_at_most: Mutex<Option<usize>>,
    pub(crate) is_broken: std::sync::atomic::AtomicBool,
    /// Takes no body at all.
    pub(crate) is_closed: Mutex<bool>,
    /// Bodies cannot be read.
    pub(crate) is_unreadable: Arc<std::sync::atomic::AtomicBool>,
    /// Bodies are gone.
    pub(crate) is_bare: Arc<std::sync::atomic::AtomicBool>,
    /// What happens after it was looked at so many times.
    pub(crate) between: Between,
}

type Happens = Box<dyn FnOnce() + Send>;

#[derive(Default)]
pub(crate) struct Between(Mutex<Option<(usize, Happens)>>);

impl std::fmt::Debug for Between {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Between")
    }
}

impl Between {
    pub(crate) fn after_looks(&self, looks: usize, happens: impl FnOnce() + Send + 'static) {
        *self.0.lock() = Some((looks, Box::new(happens)));
    }

    fn looked(&self) {
        let mut waiting = self.0.lock();
        let due = match &mut *waiting {
            Some((looks, _)) => {
                *looks -= 1;
                if *looks == 0 { waiting.take() } else { None }
            }
            None => None,
        };
        drop(waiting);
        if let Some((_, happens)) = due {
            happens();
        }
    }
}

#[derive(Debug)]
struct Paper {
    written: Arc<Written>,
    takes_at_most: Option<usize>,
}

#[derive(Debug, Default)]
struct Written {
    bytes: Mutex<Vec<u8>>,
    is_unreadable: Arc<std::sync::atomic::AtomicBool>,
    is_gone: Arc<std::sync::atomic::AtomicBool>,
}

#[async_trait]
impl ReadBody for Written {
    async fn read(&self, at: u64) -> larder::Result<Option<Bytes>> {
        if self.is_unreadable.load(Ordering::SeqCst) {
            return Err(larder::Error::new(larder::ErrorKind::Timeout, "the shelf does not answer"));
        }
        if self.is_gone.load(Ordering::SeqCst) {
            return Ok(None);
        }
        let written = self.bytes.lock();
        let left = written.get(usize::try_from(at).unwrap()..).unwrap_or_default();
        Ok((!left.is_empty()).then(|| Bytes::copy_from_slice(&left[..left.len().min(64 * 1024)])))
    }
}

#[async_trait]
impl WriteBody for Paper {
    async fn write(&mut self, piece: Bytes) -> larder::Result<()> {
        let mut written = self.written.bytes.lock();
        if self.takes_at_most.is_some_and(|most| written.len() + piece.len() > most) {
            return Err(larder::Error::new(larder::ErrorKind::TooLarge, "the shelf is full"));
        }
        written.extend_from_slice(&piece);
        Ok(())
    }

    fn reader(&self) -> Arc<dyn ReadBody> {
        Arc::clone(&self.written) as Arc<dyn ReadBody>
    }

    fn readable_bytes(&self) -> u64 {
        self.written.bytes.lock().len() as u64
    }

    async fn finish(self: Box<Self>) -> larder::Result<StoredBody> {
        let bytes = self.written.bytes.lock().len() as u64;
        Ok(StoredBody::from_reader(bytes, Arc::clone(&self.written) as Arc<dyn ReadBody>))
    }
}

impl Shelf {
    pub(crate) fn responses(&self) -> usize {
        self.targets.lock().values().map(|variants| variants.responses().len()).sum()
    }

    fn check(&self) -> larder::Result<()> {
        if self.is_broken.load(Ordering::SeqCst) {
            return Err(larder::Error::new(larder::ErrorKind::Unavailable, "the shelf is broken"));
        }
        Ok(())
    }
}

#[async_trait]
impl HttpStore for Shelf {
    fn name(&self) -> &'static str {
        "shelf"
    }

    async fn get(&self, target: &str) -> larder::Result<Option<Arc<Variants>>> {
        self.check()?;
        let found = self.targets.lock().get(target).cloned();
        self.between.looked();
        Ok(found)
    }

    async fn change(&self, target: &str, change: Change<'_>) -> larder::Result<()> {
        self.check()?;
        let mut targets = self.targets.lock();
        let was = targets.get(target).cloned().unwrap_or_default();
        match change(&was) {
            None => {}
            Some(empty) if empty.is_empty() => drop(targets.remove(target)),
            Some(newer) => drop(targets.insert(target.to_owned(), Arc::new(newer))),
        }
        Ok(())
    }

    async fn create(&self, _target: &str, _head: &Stored) -> larder::Result<Option<Box<dyn WriteBody>>> {
        self.check()?;
        if *self.is_closed.lock() {
            return Ok(None);
        }
        let (is_unreadable, is_gone) = (Arc::clone(&self.is_unreadable), Arc::clone(&self.is_bare));
        let written = Arc::new(Written { bytes: Mutex::default(), is_unreadable, is_gone });
        Ok(Some(Box::new(Paper { written, takes_at_most: *self.takes_at_most.lock() })))
    }

    async fn invalidate(&self, tags: &[&str], how: Purge) -> larder::Result<()> {
        let mut targets = self.targets.lock();
        for variants in targets.values_mut() {
            let has_one = |tag: &String| tags.contains(&tag.as_str());
            if let Some(left) = variants.purged(how, |response| response.tags.iter().any(has_one)) {
                *variants = Arc::new(left);
            }
        }
        Ok(())
    }

    fn targets(
        &self,
        prefix: &str,
    ) -> larder::Result<futures_util::stream::BoxStream<'_, larder::Result<String>>> {
        let targets = self.targets.lock();
        let found: Vec<_> =
            targets.keys().filter(|target| target.starts_with(prefix)).cloned().map(Ok).collect();
        Ok(Box::pin(futures_util::stream::iter(found)))
    }

    async fn clear(&self) -> larder::Result<()> {
        self.targets.lock().clear();
        Ok(())
    }
}

/// A policy that serves stale for a while.
pub(crate) fn private() -> Policy {
    Policy::private()
}

/// What time it is by the timers.
#[expect(clippy::disallowed_methods, reason = "the timers are what is tested")]
pub(crate) fn timers() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

/// A store with a memory that can be peeked into. It counts how often it was asked, and can be held up in answering.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    memory: MemoryStore,
    pub(crate) asked: AtomicUsize,
    /// What the next one who asks waits for, once the store knows its answer.
    pub(crate) gate: Mutex<Option<tokio::sync::oneshot::Receiver<()>>>,
}

#[async_trait]
impl HttpStore for Watched {
    fn name(&self) -> &'static str {
        "watched"
    }

    fn peek(&self, target: &str) -> Option<Arc<Variants>> {
        self.memory.peek(target)
    }

    async fn get(&self, target: &str) -> larder::Result<Option<Arc<Variants>>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let found = self.memory.get(target).await;
        let gate = self.gate.lock().take();
        if let Some(gate) = gate {
            gate.await.unwrap();
        }
        found
    }

    async fn change(&self, target: &str, change: Change<'_>) -> larder::Result<()> {
        self.memory.change(target, change).await
    }

    async fn create(&self, target: &str, head: &Stored) -> larder::Result<Option<Box<dyn WriteBody>>> {
        self.memory.create(target, head).await
    }

    async fn invalidate(&self, tags: &[&str], how: Purge) -> larder::Result<()> {
        self.memory.invalidate(tags, how).await
    }

    async fn clear(&self) -> larder::Result<()> {
        self.memory.clear().await
    }
}
