//! The cache as tower layers: in front of a service that answers, and around a client that asks.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Request, Response, StatusCode, Uri, header};
use larder::BoxError;
use tower_layer::Layer;
use tower_service::Service;

use crate::{Body, HttpCache, Origin, OriginError, OriginErrorKind};

/// Caches the responses of a server: of an axum router, or of whatever else answers requests.
///
/// Requests to servers name their host in `Host`; the scheme is what the layer is told. A request without a host that can
/// be read is passed on uncached. If the service fails, the client gets 502.
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
        let service = ServiceOrigin { inner: self.inner.clone(), has_absolute_form: false };
        let (mut head, body) = request.into_parts();
        let body = Body::stream(body);
        let absolute = absolute(&head.uri, &head.headers, &self.scheme);
        Box::pin(async move {
            let answer = match absolute {
                Some(uri) => {
                    head.uri = uri;
                    let origin: Arc<dyn Origin> = Arc::new(service);
                    cache.handle(&origin, Request::from_parts(head, body)).await
                }
                None => service.send(Request::from_parts(head, body)).await,
            };
            Ok(answer.unwrap_or_else(|error| failed(&error)))
        })
    }
}

/// Caches the responses that a client gets: hyper's, or any other service that takes requests with absolute URIs.
///
/// Errors are the client's own.
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
        let origin: Arc<dyn Origin> =
            Arc::new(ServiceOrigin { inner: self.inner.clone(), has_absolute_form: true });
        let request = request.map(Body::stream);
        Box::pin(async move { cache.handle(&origin, request).await })
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
        if !self.has_absolute_form {
            let path = request.uri().path_and_query().cloned();
            *request.uri_mut() = path.map(Uri::from).unwrap_or_default();
        }
        let failed = |error: S::Error| OriginError::new(OriginErrorKind::Disconnected, error);
        let mut inner = self.inner.clone();
        std::future::poll_fn(|cx| inner.poll_ready(cx)).await.map_err(failed)?;
        let response = inner.call(request).await.map_err(failed)?;
        Ok(response.map(Body::stream))
    }
}

/// The URI of a request to a server, with scheme and host.
fn absolute(uri: &Uri, headers: &HeaderMap, scheme: &Scheme) -> Option<Uri> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => Some(host),
        (None, _) => None,
        // Whom two hosts mean is not for a cache to say.
        (Some(_), Some(_)) => return None,
    };
    let authority = match (uri.authority(), host) {
        (Some(authority), _) => authority.clone(),
        (None, Some(host)) => Authority::try_from(host.as_bytes()).ok()?,
        (None, None) => return None,
    };
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(uri.scheme().unwrap_or(scheme).clone());
    parts.authority = Some(authority);
    parts.path_and_query = Some(uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")));
    Uri::from_parts(parts).ok()
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
