//! What every request goes through: whom it is for, what is told of its client, the cache, and the log.
//!
//! Replaced as a whole when the configuration is read again; requests that are on their way end with the one they began
//! with. Knows nothing of sockets.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, REFERER, UPGRADE, USER_AGENT};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version, request};
use http_body::{Body as _, Frame, SizeHint};
use larder::BoxError;
use larder::time::{Clock, Timestamp};
use larder_http::header::connection;
use larder_http::{Body, Handled, HttpCache, Origin, OriginError, OriginErrorKind};

use super::forward::{self, Forwarding};
use super::log::{AccessLog, Form, Record};
use super::upstream::options::Reach;
use super::upstream::{AnsweredBy, Upstreams, covers, wants_upgrade};
use super::{Client, Refusal, Scheme, Service};

/// The way of a request through the proxy.
pub(crate) struct Gate {
    pub(crate) cache: HttpCache,
    pub(crate) only: Only,
    pub(crate) upstreams: Arc<Upstreams>,
    pub(crate) origin: Arc<dyn Origin>,
    pub(crate) forwarding: Forwarding,
    pub(crate) log: Option<(AccessLog, Form)>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// Which requests are for the cache.
#[derive(Debug, Clone)]
pub(crate) struct Only(Arc<[Reach]>);

impl Only {
    /// Those for one of these; all, if there is none.
    pub(crate) fn new(reaches: &[Reach]) -> Self {
        Self(reaches.into())
    }

    /// Whether a request for this absolute URI is one.
    pub(crate) fn admits(&self, uri: &Uri) -> bool {
        self.0.is_empty() || covers(&self.0, uri.host().unwrap_or_default(), uri.path())
    }
}

impl Service for Gate {
    async fn call(&self, request: Request<Body>) -> Response<Body> {
        let Some((log, form)) = &self.log else { return self.answer(request).await };
        let mut entry = Entry::of(&request, *form, log.clone(), Arc::clone(&self.clock));
        let (mut head, body) = self.answer(request).await.into_parts();
        entry.status = head.status;
        entry.first = entry.clock.monotonic().saturating_sub(entry.began);
        entry.cache = head.extensions.get::<Handled>().map(outcome);
        entry.upstream = head.extensions.remove::<AnsweredBy>();
        Response::from_parts(head, Body::stream(Logged { body, entry, bytes: 0, is_complete: false }))
    }
}

impl Gate {
    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let client = request.extensions().get::<Client>().copied();
        let (mut parts, body) = request.into_parts();
        let Some(client) = client else {
            return plain(StatusCode::INTERNAL_SERVER_ERROR, "the client's address is not known");
        };
        if let Some(answer) = forward::answer(&mut parts) {
            return answer;
        }
        let secure = client.scheme == Scheme::Https;
        if let Err(refusal) = self.upstreams.admit(&mut parts, secure) {
            return refused(refusal);
        }
        // Of another method, the origin's answer may be that it has done something, which the cache has to know.
        let may_upgrade = parts.method == Method::GET && wants_upgrade(&parts.headers);
        let upgrade = parts.headers.get(UPGRADE).filter(|_| may_upgrade).cloned();
        // Before anything is said about the client: what the connection lists must not take it away again.
        connection::strip(&mut parts.headers);
        let told = forward::Client { address: client.remote.ip(), tls: secure };
        if let Err(refusal) = self.forwarding.apply(&mut parts, told) {
            return refused(refusal);
        }
        let answer = match upgrade {
            Some(protocol) => self.pass_upgrade(parts, body, protocol).await,
            None => self.cache.handle(&self.origin, Request::from_parts(parts, body)).await,
        };
        answer.unwrap_or_else(|error| failed(&error))
    }

    /// A request for another protocol is none for a cache.
    async fn pass_upgrade(
        &self,
        mut parts: request::Parts,
        body: Body,
        protocol: HeaderValue,
    ) -> Result<Response<Body>, OriginError> {
        parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(UPGRADE, protocol);
        self.origin.send(Request::from_parts(parts, body)).await
    }
}

fn refused(refusal: Refusal) -> Response<Body> {
    plain(refusal.status, refusal.why)
}

fn failed(error: &OriginError) -> Response<Body> {
    let (status, why) = match error.kind() {
        OriginErrorKind::Timeout => (StatusCode::GATEWAY_TIMEOUT, "the origin did not answer in time"),
        OriginErrorKind::Refused => (StatusCode::BAD_GATEWAY, "the request could not be sent to the origin"),
        _ => (StatusCode::BAD_GATEWAY, "the origin cannot be reached"),
    };
    plain(status, why)
}

/// A response that the proxy makes itself.
pub(super) fn plain(status: StatusCode, why: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{why}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// What the cache did, in a word.
fn outcome(handled: &Handled) -> &'static str {
    match handled {
        Handled { hit: true, ttl_seconds: Some(..0), .. } => "stale",
        Handled { hit: true, .. } => "hit",
        Handled { forward_status: Some(StatusCode::NOT_MODIFIED), .. } => "confirmed",
        Handled { collapsed: true, .. } => "collapsed",
        Handled { stored: true, .. } => "miss",
        _ => "pass",
    }
}

/// A line of the access log, before the response has ended.
struct Entry {
    form: Form,
    log: AccessLog,
    clock: Arc<dyn Clock>,
    began: Duration,
    at: Timestamp,
    client: Option<Client>,
    method: Method,
    host: String,
    target: String,
    version: Version,
    referer: Option<HeaderValue>,
    agent: Option<HeaderValue>,
    status: StatusCode,
    first: Duration,
    cache: Option<&'static str>,
    upstream: Option<AnsweredBy>,
}

impl Entry {
    fn of(request: &Request<Body>, form: Form, log: AccessLog, clock: Arc<dyn Clock>) -> Self {
        let headers = request.headers();
        let host = request.uri().authority().map(|authority| authority.as_str().to_owned());
        let named = || headers.get(HOST).map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
        Self {
            form,
            log,
            began: clock.monotonic(),
            at: clock.now(),
            clock,
            client: request.extensions().get::<Client>().copied(),
            method: request.method().clone(),
            host: host.or_else(named).unwrap_or_default(),
            target: request.uri().path_and_query().map_or_else(String::new, |path| path.as_str().to_owned()),
            version: request.version(),
            referer: headers.get(REFERER).cloned(),
            agent: headers.get(USER_AGENT).cloned(),
            status: StatusCode::OK,
            first: Duration::ZERO,
            cache: None,
            upstream: None,
        }
    }

    fn write(&self, bytes: u64, complete: bool) {
        let Some(client) = self.client else { return };
        let record = Record {
            client: client.remote.ip(),
            at: self.at,
            method: &self.method,
            scheme: if client.scheme == Scheme::Https { "https" } else { "http" },
            host: &self.host,
            target: &self.target,
            version: self.version,
            status: self.status,
            bytes,
            took: self.clock.monotonic().saturating_sub(self.began),
            first: self.first,
            referer: self.referer.as_ref().map(HeaderValue::as_bytes),
            agent: self.agent.as_ref().map(HeaderValue::as_bytes),
            cache: self.cache,
            upstream: self.upstream.as_ref().map(|upstream| &*upstream.0),
            complete,
        };
        self.log.write(self.form, &record);
    }
}

/// A body that is logged when it has been sent, or will not be.
struct Logged {
    body: Body,
    entry: Entry,
    bytes: u64,
    is_complete: bool,
}

impl Drop for Logged {
    fn drop(&mut self) {
        self.entry.write(self.bytes, self.is_complete || self.body.is_end_stream());
    }
}

impl http_body::Body for Logged {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            None => self.is_complete = true,
            Some(Ok(frame)) => self.bytes += frame.data_ref().map_or(0, |piece| piece.len() as u64),
            Some(Err(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
