//! Whole connections, byte for byte, in memory.

mod abuse;
mod bodies;
mod interim;
mod life;
mod smuggling;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use http_body::{Body as _, Frame};
use larder::BoxError;
use larder_http::Body;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::task::JoinHandle;

use super::{End, Settings, Wire, serve_connection};
use crate::proxy::shutdown::{Stop, shutdown};
use crate::proxy::{Client, Scheme, Service};

impl Wire for DuplexStream {
    fn reset(&mut self) {}
}

/// A client that says exactly what it is told to.
pub(super) struct Talk {
    pub(super) io: DuplexStream,
    pub(super) serving: JoinHandle<()>,
    pub(super) stop: Stop,
}

impl Talk {
    pub(super) fn to(service: impl Service) -> Self {
        Self::with(service, Settings::default(), 1 << 20)
    }

    pub(super) fn with(service: impl Service, settings: Settings, room: usize) -> Self {
        let (io, server) = duplex(room);
        let (stop, hears) = shutdown();
        let address = "192.0.2.1:1".parse().unwrap();
        let client = Client { remote: address, local: address, scheme: Scheme::Http };
        let serving = tokio::spawn(async move {
            let end = serve_connection(server, client, &service, &settings, &hears).await;
            assert!(matches!(end, End::Closed));
        });
        Self { io, serving, stop }
    }

    pub(super) async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.io.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Reads until what came ends in this.
    pub(super) async fn hear(&mut self, end: &str) -> String {
        let mut heard = Vec::new();
        while !heard.ends_with(end.as_bytes()) {
            match self.io.read_u8().await {
                Ok(byte) => heard.push(byte),
                Err(_) => panic!("the connection ended after {:?}", String::from_utf8_lossy(&heard)),
            }
        }
        String::from_utf8(heard).unwrap()
    }

    /// Reads until the server ends the connection.
    pub(super) async fn hear_all(&mut self) -> String {
        let mut heard = Vec::new();
        self.io.read_to_end(&mut heard).await.unwrap();
        String::from_utf8(heard).unwrap()
    }
}

/// What a service saw.
pub(super) type Seen = Arc<Mutex<Vec<String>>>;

/// Says what it was asked, with the content.
pub(super) fn echo(seen: &Seen) -> impl Service + use<> {
    let seen = Arc::clone(seen);
    move |request: Request<Body>| {
        let seen = Arc::clone(&seen);
        async move {
            let (parts, body) = request.into_parts();
            let (content, trailers) = collect(body).await.unwrap();
            let mut said = format!("{} {} {}", parts.method, parts.uri, String::from_utf8_lossy(&content));
            for (name, value) in &trailers {
                said += &format!(" {name}={}", value.to_str().unwrap());
            }
            seen.lock().push(said.clone());
            Response::new(Body::from(said))
        }
    }
}

pub(in crate::proxy) async fn collect(mut body: Body) -> Result<(Bytes, HeaderMap), BoxError> {
    let (mut content, mut trailers) = (BytesMut::new(), HeaderMap::new());
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match frame?.into_data() {
            Ok(data) => content.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().unwrap(),
        }
    }
    Ok((content.freeze(), trailers))
}

/// What an echoing service is asked, and what the client gets, when the client sends this and ends its side.
pub(super) async fn exchange(input: impl AsRef<[u8]>) -> (Vec<String>, String) {
    let seen = Seen::default();
    let mut talk = Talk::to(echo(&seen));
    talk.say(input).await;
    talk.io.shutdown().await.unwrap();
    let heard = talk.hear_all().await;
    let seen = seen.lock().clone();
    (seen, heard)
}

/// The status of the first response.
pub(super) fn status(heard: &str) -> u16 {
    heard.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// Content that comes as it is told to.
pub(super) struct Told(pub(super) tokio::sync::mpsc::UnboundedReceiver<Result<Frame<Bytes>, BoxError>>);

impl http_body::Body for Told {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.poll_recv(cx)
    }
}

pub(in crate::proxy) type Teller = tokio::sync::mpsc::UnboundedSender<Result<Frame<Bytes>, BoxError>>;

/// Content, and who tells it to come.
pub(in crate::proxy) fn told() -> (Teller, Body) {
    let (teller, told) = tokio::sync::mpsc::unbounded_channel();
    (teller, Body::stream(Told(told)))
}

pub(super) fn data(text: &'static str) -> Result<Frame<Bytes>, BoxError> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

/// Settings whose deadlines a test can wait for.
pub(in crate::proxy) fn impatient() -> Settings {
    let soon = Duration::from_secs(5);
    Settings {
        head_timeout: soon,
        idle_timeout: soon,
        body_timeout: soon,
        write_timeout: soon,
        tunnel_timeout: Some(soon),
        ..Settings::default()
    }
}
