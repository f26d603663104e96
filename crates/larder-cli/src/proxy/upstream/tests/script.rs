//! A server that follows a script, byte by byte, and writes down what it was sent.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Body as _;
use larder::BoxError;
use larder::time::SystemClock;
use larder_http::{Body, Origin as _, OriginError};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::super::Upstreams;
use super::super::options::{Address, HostPattern, OriginOptions, Route, Routing, UpstreamOptions};

/// A connection to the script.
pub(super) struct Peer {
    pub(super) stream: TcpStream,
    rest: Vec<u8>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Peer {
    /// The head of the next request; `None` if there is no more.
    pub(super) async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.rest.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = self.rest.drain(..end + 4).collect();
                let head = String::from_utf8(head).unwrap();
                self.heads.lock().push(head.clone());
                return Some(head);
            }
            let mut more = [0; 4096];
            match self.stream.read(&mut more).await {
                Ok(0) | Err(_) => return None,
                Ok(bytes) => self.rest.extend_from_slice(&more[..bytes]),
            }
        }
    }

    /// What follows a head, up to and with this.
    pub(super) async fn until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = self.rest.windows(end.len()).position(|part| part == end.as_bytes()) {
                return String::from_utf8(self.rest.drain(..at + end.len()).collect()).unwrap();
            }
            let mut more = [0; 4096];
            let bytes = self.stream.read(&mut more).await.unwrap();
            assert!(bytes > 0, "the request ended before {end:?}");
            self.rest.extend_from_slice(&more[..bytes]);
        }
    }

    pub(super) async fn write(&mut self, text: &str) {
        let _ = self.stream.write_all(text.as_bytes()).await;
    }

    /// Answers every request alike.
    pub(super) async fn always(mut self, answer: &str) {
        while self.head().await.is_some() {
            self.write(answer).await;
        }
    }
}

/// A running script.
pub(super) struct Script {
    pub(super) address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

impl Script {
    pub(super) async fn run<F, S>(serve: S) -> Self
    where
        S: Fn(Peer) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (heads, connections) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicUsize>::default());
        let (seen, opened) = (heads.clone(), connections.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                opened.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(Peer { stream, rest: Vec::new(), heads: seen.clone() }));
            }
        });
        Self { address, heads, connections }
    }

    /// A server that answers everything with this.
    pub(super) async fn answering(answer: &'static str) -> Self {
        Self::run(move |peer| peer.always(answer)).await
    }

    /// The heads of all requests so far.
    pub(super) fn heads(&self) -> Vec<String> {
        self.heads.lock().clone()
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// Where nobody listens.
pub(super) fn nowhere() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// An origin of these upstreams.
pub(super) fn origin<U: AsRef<str>>(urls: &[U]) -> OriginOptions {
    let upstream = |url: &U| UpstreamOptions { address: Address::parse(url.as_ref()).unwrap(), weight: 1 };
    OriginOptions::new("app", urls.iter().map(upstream).collect())
}

pub(super) fn routing(origin: OriginOptions) -> Routing {
    let route =
        Route { host: HostPattern::Any, path: "/".to_owned(), origin: origin.name.clone(), strip: false };
    Routing { origins: vec![origin], routes: vec![route], ..Routing::default() }
}

pub(super) fn start(origin: OriginOptions) -> Upstreams {
    Upstreams::new(routing(origin), Arc::new(SystemClock::default())).unwrap()
}

pub(super) fn get(path: &str) -> Request<Body> {
    Request::get(format!("http://shop.test{path}")).body(Body::empty()).unwrap()
}

/// Asks, and reads the answer whole.
pub(super) async fn ask(
    upstreams: &Upstreams,
    request: Request<Body>,
) -> Result<(Response<()>, Result<Read, BoxError>), OriginError> {
    let (parts, body) = upstreams.send(request).await?.into_parts();
    Ok((Response::from_parts(parts, ()), read(body).await))
}

/// A body that was read.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Read {
    pub(super) text: String,
    pub(super) trailers: Option<HeaderMap>,
}

pub(super) async fn read(mut body: Body) -> Result<Read, BoxError> {
    let mut read = Read::default();
    let mut bytes = Vec::new();
    let mut body = std::pin::pin!(&mut body);
    while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        match frame?.into_data() {
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => read.trailers = frame.into_trailers().ok(),
        }
    }
    read.text = String::from_utf8(bytes)?;
    Ok(read)
}

/// A body that comes in pieces, whose length nobody knows.
pub(super) struct Pieces(pub(super) Vec<Result<http_body::Frame<Bytes>, BoxError>>);

impl Pieces {
    pub(super) fn of(texts: &[&'static str]) -> Self {
        Self(
            texts
                .iter()
                .map(|text| Ok(http_body::Frame::data(Bytes::from_static(text.as_bytes()))))
                .collect(),
        )
    }
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
        let next = if self.0.is_empty() { None } else { Some(self.0.remove(0)) };
        std::task::Poll::Ready(next)
    }
}
