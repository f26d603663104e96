//! The cache as tower layers: in front of a service that answers, and around a client that asks.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body::Body as _;
use larder::BoxError;
use tower_layer::Layer;
use tower_service::Service;

use crate::{Body, HttpCache, Origin, OriginError, OriginErrorKind};

/// Caches the responses of a server: of an axum router, or of whatever else answers requests.
///
/// What a response is kept by is what the service sees: the scheme that the layer was told, whatever the request's URI says,
/// and the host of that URI, or else of `Host`. That host, in lower case and without a default port, becomes the request's
/// `Host`, and its path becomes the URI. Other fields that say a host, such as `X-Forwarded-Host`, are no part of the key: a
/// service that reads them names them in `Vary`.
///
/// Passed on as they came, and not cached, are
///
/// - requests whose host cannot be read, or is said twice;
/// - those for another protocol, such as WebSockets: `CONNECT`, and `GET` with `Upgrade`. The fields of their connection,
///   which others lose, stay.
///
/// The service gets a request with its extensions. One in the background, which validates what is stored, is nobody's, and
/// has none: layers that put in what the service cannot do without stand between this one and the service.
///
/// If the service fails, the client gets 502. A length that the service leaves to the server is said here, before the response
/// becomes a stream, of which the server would not know it.
///
/// ```
/// # use std::sync::Arc;
/// # use larder_http::{HttpCache, store::HttpStore, tower::ServerCacheLayer};
/// # fn layer(store: Arc<dyn HttpStore>) -> ServerCacheLayer {
/// let cache = HttpCache::builder(store).build();
/// // let app = axum::Router::new().route("/", get(home)).layer(…);
/// ServerCacheLayer::new(cache).https()
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ServerCacheLayer {
    cache: HttpCache,
    scheme: Scheme,
}

impl ServerCacheLayer {
    /// A layer over this cache, for a server that is reached by `http`.
    pub fn new(cache: HttpCache) -> Self {
        Self { cache, scheme: Scheme::HTTP }
    }

    /// The same for a server that is reached by `https`. Only keys, and what `Location` means, depend on it.
    #[must_use]
    pub fn https(mut self) -> Self {
        self.scheme = Scheme::HTTPS;
        self
    }
}

impl<S: Clone + Send + Sync + 'static> Layer<S> for ServerCacheLayer {
    type Service = ServerCache<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ServerCache { cache: self.cache.clone(), scheme: self.scheme.clone(), inner }
    }
}

/// A service with a cache in front of it.
#[derive(Debug, Clone)]
pub struct ServerCache<S> {
    cache: HttpCache,
    scheme: Scheme,
    inner: S,
}

/// A future of a response.
type Answering<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

impl<S, In, Out> Service<Request<In>> for ServerCache<S>
where
    S: Service<Request<Body>, Response = Response<Out>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    In: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    Out: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering<Infallible>;

    /// Always: whether the service is ready is found out when it is needed.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<In>) -> Self::Future {
        let cache = self.cache.clone();
        let inner = self.inner.clone();
        let (mut head, body) = request.into_parts();
        let body = Body::stream(body);
        let is_head = head.method == Method::HEAD;
        let target = if is_for_another_protocol(&head) { None } else { Target::of(&head, &self.scheme) };
        let uri = target.and_then(|Target { uri, host }| {
            head.headers.try_insert(header::HOST, host).is_ok().then_some(uri)
        });
        Box::pin(async move {
            let answer = match uri {
                Some(uri) => {
                    head.uri = uri;
                    let origin: Arc<dyn Origin> = Arc::new(ServiceOrigin { inner, has_absolute_form: false });
                    cache.handle(&origin, Request::from_parts(head, body)).await
                }
                None => ask(inner, Request::from_parts(head, body)).await,
            };
            let answer = answer.unwrap_or_else(|error| failed(&error));
            Ok(if is_head { without_length(answer) } else { answer })
        })
    }
}

/// An answer to `HEAD` whose body, which is not there, says nothing about the length of the one that a `GET` gets. Of an empty
/// one, axum reads that it is zero.
//= https://www.rfc-editor.org/rfc/rfc9110#section-8.6
//# A server MAY send a Content-Length header field in a response to a
//# HEAD request (Section 9.3.2); a server MUST NOT send Content-Length
//# in such a response unless its field value equals the decimal number
//# of octets that would have been sent in the content of a response if
//# the same request had used the GET method.
fn without_length(response: Response<Body>) -> Response<Body> {
    if response.headers().contains_key(header::CONTENT_LENGTH) {
        return response;
    }
    response.map(|_| Body::stream(Nothing))
}

/// No content, of whatever length.
struct Nothing;

impl http_body::Body for Nothing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }
}

/// Caches the responses that a client gets: hyper's, or any other service that takes requests with absolute URIs.
///
/// Requests for another protocol, such as WebSockets (`CONNECT`, and `GET` with `Upgrade`), go straight to the client. Errors
/// are the client's own.
#[derive(Debug, Clone)]
pub struct ClientCacheLayer {
    cache: HttpCache,
}

impl ClientCacheLayer {
    /// A layer over this cache. For a client of one user, it has [`Policy::private`](crate::policy::Policy::private).
    pub fn new(cache: HttpCache) -> Self {
        Self { cache }
    }
}

impl<S: Clone + Send + Sync + 'static> Layer<S> for ClientCacheLayer {
    type Service = ClientCache<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ClientCache { cache: self.cache.clone(), inner }
    }
}

/// A client with a cache around it.
#[derive(Debug, Clone)]
pub struct ClientCache<S> {
    cache: HttpCache,
    inner: S,
}

impl<S, In, Out> Service<Request<In>> for ClientCache<S>
where
    S: Service<Request<Body>, Response = Response<Out>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    In: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    Out: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = OriginError;
    type Future = Answering<OriginError>;

    /// Always: whether the client is ready is found out when it is needed.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), OriginError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<In>) -> Self::Future {
        let cache = self.cache.clone();
        let inner = self.inner.clone();
        let (head, body) = request.into_parts();
        let is_for_another_protocol = is_for_another_protocol(&head);
        let request = Request::from_parts(head, Body::stream(body));
        Box::pin(async move {
            if is_for_another_protocol {
                return ask(inner, request).await;
            }
            let origin: Arc<dyn Origin> = Arc::new(ServiceOrigin { inner, has_absolute_form: true });
            cache.handle(&origin, request).await
        })
    }
}

/// A service that answers what the cache cannot.
struct ServiceOrigin<S> {
    inner: S,
    has_absolute_form: bool,
}

#[async_trait]
impl<S, Out> Origin for ServiceOrigin<S>
where
    S: Service<Request<Body>, Response = Response<Out>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    Out: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    async fn send(&self, mut request: Request<Body>) -> Result<Response<Body>, OriginError> {
        if self.has_absolute_form {
            return ask(self.inner.clone(), request).await;
        }
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map(Uri::from).unwrap_or_default();
        let is_head = request.method() == Method::HEAD;
        let mut response = ask(self.inner.clone(), request).await?;
        say_length(&mut response, is_head);
        Ok(response)
    }
}

/// Says how long a response is whose service left that to the server: what comes through the cache is a stream, of which the
/// server would not know it. Of `HEAD`, some services answer with what a `GET` gets, which is as long; others with nothing, which
/// says nothing.
fn say_length(response: &mut Response<Body>, is_head: bool) {
    let status = response.status();
    //= https://www.rfc-editor.org/rfc/rfc9110#section-8.6
    //# A server MUST NOT send a Content-Length header field in any response
    //# with a status code of 1xx (Informational) or 204 (No Content).
    let may_say = !status.is_informational()
        && !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        && !response.headers().contains_key(header::TRANSFER_ENCODING);
    let length = response.body().size_hint().exact().filter(|length| !is_head || *length > 0);
    if may_say && let Some(length) = length {
        let headers = response.headers_mut();
        if !headers.contains_key(header::CONTENT_LENGTH) {
            let _ = headers.try_insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
    }
}

/// Asks a service, once it is ready.
async fn ask<S, Out>(mut inner: S, request: Request<Body>) -> Result<Response<Body>, OriginError>
where
    S: Service<Request<Body>, Response = Response<Out>>,
    S::Error: Into<BoxError>,
    Out: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let failed = |error: S::Error| OriginError::new(OriginErrorKind::Disconnected, error);
    std::future::poll_fn(|cx| inner.poll_ready(cx)).await.map_err(failed)?;
    let response = inner.call(request).await.map_err(failed)?;
    Ok(response.map(Body::stream))
}

/// Whether a request wants its connection for something else than HTTP, so that the fields of the connection matter.
///
/// With `Upgrade` it is so for `GET` alone: what other methods change has to pass by the cache.
fn is_for_another_protocol(request: &Parts) -> bool {
    let lists = |options: &HeaderValue| {
        options
            .as_bytes()
            .split(|byte| *byte == b',')
            .any(|one| one.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
    };
    let upgrades = || {
        request.headers.contains_key(header::UPGRADE)
            && request.headers.get_all(header::CONNECTION).iter().any(lists)
    };
    request.method == Method::CONNECT || (request.method == Method::GET && upgrades())
}

/// What a request to a server is for.
struct Target {
    /// With scheme and host.
    uri: Uri,
    /// The host of the URI, as the service gets it: it makes its response of this, and of no other.
    host: HeaderValue,
}

impl Target {
    /// `None` if it cannot be said.
    fn of(request: &Parts, scheme: &Scheme) -> Option<Self> {
        let mut hosts = request.headers.get_all(header::HOST).iter();
        let host = match (hosts.next(), hosts.next()) {
            (Some(host), None) => Some(host),
            (None, _) => None,
            // Whom two hosts mean is not for a cache to say.
            (Some(_), Some(_)) => return None,
        };
        //= https://www.rfc-editor.org/rfc/rfc9112#section-3.2.2
        //# When an origin server receives a request with an absolute-form of
        //# request-target, the origin server MUST ignore the received Host
        //# header field (if any) and instead use the host information of the
        //# request-target.
        let said = match (request.uri.authority(), host) {
            (Some(authority), _) => authority.clone(),
            (None, Some(host)) => Authority::try_from(host.as_bytes()).ok()?,
            (None, None) => return None,
        };
        // `a:` and `a:99999` are no ports, and `me@a` is no host: others may read them otherwise.
        let port = said.port_u16();
        if said.host().is_empty()
            || said.as_str().contains('@')
            || (port.is_none() && said.as_str() != said.host())
        {
            return None;
        }
        let mut text = said.host().to_ascii_lowercase();
        let default = if *scheme == Scheme::HTTPS { 443 } else { 80 };
        if let Some(port) = port.filter(|port| *port != default) {
            text.push_str(&format!(":{port}"));
        }
        let path = request.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        if !path.path().starts_with('/') {
            return None;
        }
        let host = HeaderValue::try_from(&text).ok()?;
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(scheme.clone());
        parts.authority = Some(Authority::try_from(text).ok()?);
        parts.path_and_query = Some(path);
        Some(Self { uri: Uri::from_parts(parts).ok()?, host })
    }
}

fn failed(error: &OriginError) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{error}\n")));
    *response.status_mut() = match error.kind() {
        OriginErrorKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
        OriginErrorKind::Disconnected => StatusCode::BAD_GATEWAY,
        OriginErrorKind::Refused => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let plain = http::HeaderValue::from_static("text/plain; charset=utf-8");
    let _ = response.headers_mut().try_insert(header::CONTENT_TYPE, plain);
    response
}
