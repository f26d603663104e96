//! One request at one server: written on a connection, its interim responses passed on, its answer made fit to be passed
//! on. Knows nothing of other servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper_util::rt::TokioIo;
use larder_http::header::connection;
use larder_http::{Body, OnInterim, OriginErrorKind, StatusMessage};
use tokio::time::{sleep, timeout};

use super::balance::Counted;
use super::body::{Arriving, Outgoing, Progress};
use super::failure::Failure;
use super::options::{Address, HostHeader, Timeouts};
use super::pool::{Connection, Lease, Pool, chain};
use crate::proxy::Upgrade;

/// A request, before it is known which server gets it.
pub(super) struct Draft {
    pub(super) method: Method,
    pub(super) path: PathAndQuery,
    /// What the client called the host.
    pub(super) host: HeaderValue,
    pub(super) headers: HeaderMap,
    /// The protocol that is asked for.
    pub(super) upgrade: Option<HeaderValue>,
    pub(super) body: Body,
    pub(super) on_interim: Option<OnInterim>,
}

impl Draft {
    /// The same again, if it has no body.
    pub(super) fn copy(&self) -> Option<Self> {
        (self.body.is_end_stream()).then(|| Self {
            method: self.method.clone(),
            path: self.path.clone(),
            host: self.host.clone(),
            headers: self.headers.clone(),
            upgrade: self.upgrade.clone(),
            body: Body::empty(),
            on_interim: self.on_interim.clone(),
        })
    }
}

/// Sends it, and waits for the head of the answer. What is left in `draft` afterwards was not even begun.
pub(super) async fn exchange(
    pool: &Arc<Pool>,
    host: &HostHeader,
    draft: &mut Option<Draft>,
    timeouts: Timeouts,
    counted: Option<Counted>,
) -> Result<Response<Body>, Failure> {
    let turn = pool.turn().await?;
    let Some(wanted) = draft.as_ref() else {
        return Err(Failure::of_client("there is nothing left of the request".to_owned()));
    };
    let ways = Ways::new(pool.address(), host, wanted)?;
    let mut connection = pool.connection(ways.upgrade.is_some()).await?;
    let Some(Draft { method, headers, body, on_interim, .. }) = draft.take() else {
        return Err(Failure::of_client("there is nothing left of the request".to_owned()));
    };
    let answering = Answering::default();
    let (body, progress) = Outgoing::new(body);
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.headers_mut() = headers;
    answering.listen(&mut request, on_interim);

    loop {
        ways.adapt(&mut request, &connection);
        let sending = connection.send(request);
        let sent = match within(timeouts.response, &progress, sending).await {
            Some(sent) => sent,
            None => {
                if connection.is_http2() {
                    pool.forget_shared();
                }
                let what = format!("{} took the request and did not answer in time", pool.address());
                return Err(Failure::lost(OriginErrorKind::Timeout, what, answering.began()));
            }
        };
        match sent {
            Ok(response) => {
                return finish(pool, connection, response, &ways, timeouts, turn, counted).await;
            }
            // Not a byte of it was written, so nobody can have seen it.
            Err((_, Some(back))) if connection.is_reused() => {
                request = *back;
                if connection.is_http2() {
                    // It is about to end, and may not say so yet: without this, it would be taken again at once.
                    pool.forget_shared();
                }
                connection = pool.connection(ways.upgrade.is_some()).await?;
            }
            Err((error, back)) => {
                if progress.failed() {
                    return Err(Failure::of_client("the body of the request broke off".to_owned()));
                }
                let what = format!("no answer from {}: {}", pool.address(), chain(&error));
                return Err(match back {
                    Some(_) => Failure::unsent(OriginErrorKind::Disconnected, what),
                    None => Failure::lost(OriginErrorKind::Disconnected, what, answering.began()),
                });
            }
        }
    }
}

/// Whether something of an answer has come.
#[derive(Clone, Default)]
struct Answering(Arc<AtomicBool>);

impl Answering {
    fn began(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Has interim responses passed on as they come.
    fn listen(&self, request: &mut Request<Outgoing>, on_interim: Option<OnInterim>) {
        let began = self.0.clone();
        hyper::ext::on_informational(request, move |response| {
            began.store(true, Ordering::Relaxed);
            //= https://www.rfc-editor.org/rfc/rfc9110#section-15.2
            //# A proxy MUST forward 1xx responses unless the proxy itself requested
            //# the generation of the 1xx response.
            let status = response.status();
            // Whoever waited for 100 was answered by whoever read its body.
            if status == StatusCode::CONTINUE || status == StatusCode::SWITCHING_PROTOCOLS {
                return;
            }
            let Some(on_interim) = &on_interim else { return };
            let mut interim = Response::new(());
            *interim.status_mut() = status;
            *interim.headers_mut() = response.headers().clone();
            connection::strip(interim.headers_mut());
            on_interim.pass_on(interim);
        });
    }
}

/// How a request is written on each kind of connection.
struct Ways {
    http1: Uri,
    http2: Uri,
    host: HeaderValue,
    upgrade: Option<HeaderValue>,
}

impl Ways {
    fn new(address: &Address, host: &HostHeader, draft: &Draft) -> Result<Self, Failure> {
        let refused = |what: &str| Failure::unsent(OriginErrorKind::Refused, what.to_owned());
        let theirs = || HeaderValue::try_from(address.authority());
        let host = match host {
            HostHeader::Auto if !address.tls => Ok(draft.host.clone()),
            HostHeader::Pass => Ok(draft.host.clone()),
            HostHeader::Auto | HostHeader::Upstream => theirs(),
            HostHeader::Fixed(host) => Ok(host.clone()),
        };
        let host = host.map_err(|_| refused("the upstream's host is none that a field can hold"))?;
        let path = match address.base.as_str() {
            "" => draft.path.clone(),
            base => PathAndQuery::try_from(format!("{base}{}", draft.path))
                .map_err(|_| refused("the path is too long"))?,
        };
        let http2 = Uri::builder()
            .scheme(address.scheme())
            .authority(host.as_bytes())
            .path_and_query(path.clone())
            .build()
            .map_err(|_| refused("the request's host is not one"))?;
        Ok(Self { http1: Uri::from(path), http2, host, upgrade: draft.upgrade.clone() })
    }

    /// Says a request in the words of this connection. May be done again for another one.
    fn adapt(&self, request: &mut Request<Outgoing>, connection: &Connection) {
        let bytes = request.body().size_hint().exact();
        let ends = request.body().is_end_stream();
        let reads_nothing = matches!(
            *request.method(),
            Method::GET | Method::HEAD | Method::DELETE | Method::OPTIONS | Method::TRACE
        );
        let http2 = connection.is_http2();
        *request.uri_mut() = if http2 { self.http2.clone() } else { self.http1.clone() };
        *request.version_mut() = if http2 { Version::HTTP_2 } else { Version::HTTP_11 };
        let headers = request.headers_mut();
        for name in [HOST, TE, TRANSFER_ENCODING, CONNECTION, UPGRADE, EXPECT] {
            headers.remove(name);
        }
        // What frames the body is ours to say: a field that says otherwise is how one request becomes two.
        match bytes {
            Some(0) if ends && reads_nothing => drop(headers.remove(CONTENT_LENGTH)),
            Some(bytes) => drop(headers.insert(CONTENT_LENGTH, bytes.into())),
            None => {
                headers.remove(CONTENT_LENGTH);
                if !http2 {
                    headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
                }
            }
        }
        if http2 {
            headers.insert(TE, HeaderValue::from_static("trailers"));
            return;
        }
        headers.insert(HOST, self.host.clone());
        if let Some(protocol) = &self.upgrade {
            headers.insert(UPGRADE, protocol.clone());
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        }
    }
}

/// Waits for an answer as long as one may take, counted from when the request's body was last asked for more.
async fn within<T>(limit: Duration, progress: &Progress, sending: impl Future<Output = T>) -> Option<T> {
    let mut sending = std::pin::pin!(sending);
    loop {
        let seen = progress.seen();
        tokio::select! {
            biased;
            sent = &mut sending => return Some(sent),
            () = sleep(limit) => {
                if progress.seen() == seen {
                    return None;
                }
            }
        }
    }
}

/// What the cache and the client see of an answer.
async fn finish(
    pool: &Arc<Pool>,
    connection: Connection,
    mut response: Response<Incoming>,
    ways: &Ways,
    timeouts: Timeouts,
    turn: tokio::sync::OwnedSemaphorePermit,
    counted: Option<Counted>,
) -> Result<Response<Body>, Failure> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        if ways.upgrade.is_none() {
            let what = format!("{} changed to a protocol that nobody asked for", pool.address());
            return Err(Failure::lost(OriginErrorKind::Disconnected, what, true));
        }
        let upgraded = timeout(timeouts.response, hyper::upgrade::on(&mut response)).await;
        let Ok(Ok(upgraded)) = upgraded else {
            let what = format!("{} did not change its protocol after all", pool.address());
            return Err(Failure::lost(OriginErrorKind::Disconnected, what, true));
        };
        let (mut parts, _) = response.into_parts();
        parts.extensions.clear();
        parts.extensions.insert(Upgrade::new(Held {
            io: TokioIo::new(upgraded),
            _turn: turn,
            _counted: counted,
        }));
        return Ok(Response::from_parts(parts, Body::empty()));
    }
    let (mut parts, body) = response.into_parts();
    let idle = how_long_idle(&parts.headers, timeouts.idle);
    //= https://www.rfc-editor.org/rfc/rfc9112#section-6.3
    //# If a message is received with both a Transfer-Encoding and a
    //# Content-Length header field, the Transfer-Encoding overrides the
    //# Content-Length.
    let both =
        parts.headers.contains_key(TRANSFER_ENCODING) && parts.headers.remove(CONTENT_LENGTH).is_some();
    connection::strip(&mut parts.headers);
    parts.version = Version::HTTP_11;
    let message = parts.extensions.get::<ReasonPhrase>().map(|phrase| text(phrase.as_bytes()));
    parts.extensions.clear();
    if let Some(message) = message {
        parts.extensions.insert(StatusMessage(message));
    }
    // Who sends both is confused or means harm: what follows on that connection is not to be trusted.
    let idle = if both { Duration::ZERO } else { idle };
    let lease = Lease::new(pool.clone(), connection, idle, turn, counted);
    Ok(Response::from_parts(parts, Body::stream(Arriving::new(body, timeouts.body, lease))))
}

/// How long a connection may be idle, a second less than what the origin says of itself (`Keep-Alive: timeout=5`).
fn how_long_idle(headers: &HeaderMap, most: Duration) -> Duration {
    let said = headers
        .get_all("keep-alive")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|parameter| parameter.trim().strip_prefix("timeout=")?.parse().ok())
        .map(|seconds: u64| Duration::from_secs(seconds.saturating_sub(1)))
        .min();
    said.map_or(most, |said| said.min(most))
}

/// What followed the status: UTF-8, or else text of which each byte is a character.
fn text(bytes: &[u8]) -> Arc<str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect::<String>().into(),
    }
}

/// An upgraded connection, which counts as a request for as long as it lives.
struct Held {
    io: TokioIo<hyper::upgrade::Upgraded>,
    _turn: tokio::sync::OwnedSemaphorePermit,
    _counted: Option<Counted>,
}

mod held {
    //! A connection that holds on to what it counts as.

    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    use super::Held;

    impl AsyncRead for Held {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.io).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Held {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.io).poll_write(cx, buf)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.io).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.io).poll_shutdown(cx)
        }
    }
}
