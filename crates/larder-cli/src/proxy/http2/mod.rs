//! HTTP/2 as a server, which is hyper's: here its requests are made what [`Service`] expects, and its limits are set. Knows
//! nothing of caches, upstreams or listeners.

mod body;
mod rewind;
mod streams;

#[cfg(test)]
mod tests;

use std::future::ready;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::Either;
use http::uri::{Authority, Parts, PathAndQuery};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use larder_http::Body;
use tokio::sync::oneshot;

use super::http1::wire::{Limits, Refusal, is_of_the_hop, response, target};
use super::http1::{Settings, Wire, refused};
use super::shutdown::Shutdown;
use super::{Client, Service};
use body::Measured;
use rewind::Rewound;
use streams::{Streams, Taking};

/// The most requests that one connection may have at the same time.
const STREAMS_MAX: u32 = 128;

/// How long a client may take to show that it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Serves one connection, of which `read` was read already, until it ends. Dropping this ends the connection at once, but
/// not what runs for its requests, which hear of it when they next read or write.
pub(crate) async fn serve_connection<I: Wire, S: Service>(
    io: I,
    read: Bytes,
    client: Client,
    service: Arc<S>,
    settings: &Settings,
    shutdown: &Shutdown,
) {
    let limits = settings.limits;
    let activity = Arc::new(Activity::default());
    let counted = Arc::clone(&activity);
    let body_timeout = settings.body_timeout;
    let answer = service_fn(move |request: Request<Incoming>| {
        let running = counted.begin();
        let is_head = request.method() == Method::HEAD;
        let answered = match understand(request, client, &limits, body_timeout) {
            Ok((request, refusal)) => {
                let service = Arc::clone(&service);
                Either::Left(async move { unless_refused(service.call(request), refusal).await })
            }
            Err(refusal) => Either::Right(ready(refused(refusal))),
        };
        async move { Ok::<_, std::convert::Infallible>(finish(answered.await, is_head, running)) }
    });
    let io = Rewound::new(read, io, settings.write_timeout);
    let mut connection = pin!(builder(settings).serve_connection(TokioIo::new(io), answer));
    let mut stops = pin!(shutdown.clone().wait());
    let mut is_stopping = false;
    let mut seen = 0;
    loop {
        tokio::select! {
            _ = connection.as_mut() => return,
            () = stops.as_mut(), if !is_stopping => {
                is_stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            // Without requests for a whole round it is idle; it gets another one to say goodbye.
            () = tokio::time::sleep(settings.idle_timeout) => match activity.idle_since(&mut seen) {
                true if is_stopping => return,
                true => {
                    is_stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                false => {}
            },
        }
    }
}

fn builder(settings: &Settings) -> http2::Builder<Streams> {
    let mut builder = http2::Builder::new(Streams { write_timeout: settings.write_timeout });
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(settings.limits.head_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .max_send_buf_size(256 * 1024);
    builder
}

/// How many requests a connection has, and had.
#[derive(Debug, Default)]
struct Activity {
    running: AtomicUsize,
    begun: AtomicU64,
}

/// One of them, until it is dropped.
#[derive(Debug)]
struct Running(Arc<Activity>);

impl Activity {
    fn begin(self: &Arc<Self>) -> Running {
        self.running.fetch_add(1, Ordering::Relaxed);
        self.begun.fetch_add(1, Ordering::Relaxed);
        Running(Arc::clone(self))
    }

    /// Whether nothing runs, and nothing has since this was asked last.
    fn idle_since(&self, seen: &mut u64) -> bool {
        let begun = self.begun.load(Ordering::Relaxed);
        std::mem::replace(seen, begun) == begun && self.running.load(Ordering::Relaxed) == 0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the service answers, unless the content of the request turns out before not to be what it should be.
async fn unless_refused(
    answer: impl Future<Output = Response<Body>>,
    mut refusal: oneshot::Receiver<Refusal>,
) -> Response<Body> {
    let response = tokio::select! {
        biased;
        Ok(refusal) = &mut refusal => return refused(refusal),
        response = answer => response,
    };
    // The service may have heard of it first, and knows less.
    refusal.try_recv().map_or(response, refused)
}

/// A request as a [`Service`] expects it, and what to answer if its content is not what it should be.
fn understand(
    request: Request<Incoming>,
    client: Client,
    limits: &Limits,
    body_timeout: Duration,
) -> Result<(Request<Body>, oneshot::Receiver<Refusal>), Refusal> {
    let (mut parts, incoming) = request.into_parts();
    if parts.method == Method::CONNECT {
        return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, "this server opens no tunnels"));
    }
    if parts.headers.len() > limits.fields {
        return Err(Refusal::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "there are too many fields"));
    }
    if incoming.size_hint().exact().is_some_and(|length| length > limits.body_bytes) {
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "the content is too large"));
    }
    let authority = authority(&parts.uri, &parts.headers, client)?;
    let path = parts.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    if path.as_str().len() > limits.target_bytes {
        return Err(Refusal::new(StatusCode::URI_TOO_LONG, "the target is too long"));
    }
    let is_of_server = path.as_str() == "*";
    if is_of_server && parts.method != Method::OPTIONS {
        return Err(Refusal::bad("the target has no form that a request may have"));
    }
    let mut uri = Parts::default();
    uri.path_and_query = Some(path);
    if !is_of_server {
        // What the client says of its scheme is no better than how it came.
        uri.scheme = Some(client.scheme.into());
        uri.authority = Some(authority);
    }
    parts.uri =
        Uri::from_parts(uri).map_err(|_| Refusal::bad("the target has no form that a request may have"))?;
    parts.extensions.insert(client);
    let (limited, refusal) = body::Limited::new(incoming, limits.body_bytes, body_timeout);
    let body = if limited.is_end_stream() { Body::empty() } else { Body::stream(limited) };
    Ok((Request::from_parts(parts, body), refusal))
}

/// The host that is meant, of which there has to be one.
//= https://www.rfc-editor.org/rfc/rfc9113#section-8.3.1
//# A server SHOULD treat a request as malformed if it contains a Host
//# header field that identifies an entity that differs from the entity
//# in the ":authority" pseudo-header field.
fn authority(uri: &Uri, headers: &HeaderMap, client: Client) -> Result<Authority, Refusal> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (host, another) = (hosts.next(), hosts.next());
    if another.is_some() {
        return Err(Refusal::bad("there is more than one Host"));
    }
    let is_host = |host: &[u8]| target::is_authority(host);
    let no_host = || Refusal::bad("Host is not a host with an optional port");
    match (uri.authority(), host) {
        (None, None) => Err(Refusal::bad("there is no Host")),
        (Some(one), Some(other))
            if !target::is_same(one.as_str().as_bytes(), other.as_bytes(), client.scheme) =>
        {
            Err(Refusal::bad("the target and Host name different hosts"))
        }
        (Some(authority), _) if is_host(authority.as_str().as_bytes()) => Ok(authority.clone()),
        (None, Some(host)) if is_host(host.as_bytes()) => {
            Authority::try_from(host.as_bytes()).map_err(|_| no_host())
        }
        _ => Err(no_host()),
    }
}

/// A response as hyper sends it.
fn finish(response: Response<Body>, is_head: bool, running: Running) -> Response<Measured> {
    let asked = response::Asked { version: http::Version::HTTP_2, is_head, wants_upgrade: false };
    let (mut parts, mut body) = response.into_parts();
    let framing = response::framing(asked, &parts, &body.size_hint()).unwrap_or_else(|refusal| {
        (parts, body) = refused(refusal).into_parts();
        if is_head { response::Framing::None } else { response::Framing::Close }
    });
    let of_the_hop: Vec<_> = parts.headers.keys().filter(|name| is_of_the_hop(name)).cloned().collect();
    for name in of_the_hop {
        parts.headers.remove(name);
    }
    let length = match framing {
        response::Framing::None => {
            body = Body::empty();
            None
        }
        response::Framing::Exact(length) => Some(length),
        response::Framing::Chunked(_) | response::Framing::Close => None,
    };
    parts.extensions = http::Extensions::new();
    parts.version = http::Version::HTTP_2;
    Response::from_parts(parts, Measured::new(body, length, Taking::here(), running))
}
