//! The cache as a middleware of reqwest.

use std::sync::Arc;

use async_trait::async_trait;
use http::{Extensions, Request, Response};
use reqwest::ResponseBuilderExt as _;
use reqwest_middleware::{Error, Middleware, Next, Result};

use crate::origin::Redirected;
use crate::{Body, HttpCache, Origin, OriginError, OriginErrorKind};

/// Caches what a reqwest client gets. Add it last, so that it stands right before the client, and the others before it.
///
/// It asks through the client that it is given, also in the background, when the call that caused it is over. Responses to
/// which the client was redirected are passed on and not kept: give it one with
/// `redirect(reqwest::redirect::Policy::none())` to have them cached by their own targets.
///
/// ```
/// # use std::sync::Arc;
/// # use larder_http::{HttpCache, policy::Policy, reqwest::HttpCacheMiddleware, store::HttpStore};
/// # fn client(store: Arc<dyn HttpStore>, client: reqwest::Client) -> reqwest_middleware::ClientWithMiddleware {
/// let cache = HttpCache::builder(store).policy(Policy::private()).build();
/// reqwest_middleware::ClientBuilder::new(client.clone())
///     .with(HttpCacheMiddleware::new(cache, client))
///     .build()
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct HttpCacheMiddleware {
    cache: HttpCache,
    client: reqwest::Client,
}

impl HttpCacheMiddleware {
    /// Caches what this client gets. For a client of one user, the cache has
    /// [`Policy::private`](crate::policy::Policy::private).
    pub fn new(cache: HttpCache, client: reqwest::Client) -> Self {
        Self { cache, client }
    }
}

#[async_trait]
impl Middleware for HttpCacheMiddleware {
    async fn handle(
        &self,
        request: reqwest::Request,
        _extensions: &mut Extensions,
        _next: Next<'_>,
    ) -> Result<reqwest::Response> {
        let url = request.url().clone();
        let request = Request::<reqwest::Body>::try_from(request).map_err(Error::Reqwest)?;
        let origin: Arc<dyn Origin> = Arc::new(Client(self.client.clone()));
        let answer = self.cache.handle(&origin, request.map(Body::stream)).await;
        let (head, body) = answer.map_err(Error::middleware)?.into_parts();
        let mut response =
            Response::builder().url(url).body(reqwest::Body::wrap(body)).map_err(Error::middleware)?;
        *response.status_mut() = head.status;
        *response.version_mut() = head.version;
        *response.headers_mut() = head.headers;
        response.extensions_mut().extend(head.extensions);
        Ok(response.into())
    }
}

/// A client that answers what the cache cannot.
struct Client(reqwest::Client);

#[async_trait]
impl Origin for Client {
    async fn send(&self, request: Request<Body>) -> std::result::Result<Response<Body>, OriginError> {
        let refused = |error: reqwest::Error| OriginError::new(OriginErrorKind::Refused, error);
        let request = reqwest::Request::try_from(request.map(reqwest::Body::wrap)).map_err(refused)?;
        let url = request.url().clone();
        let response = self.0.execute(request).await.map_err(|error| {
            let kind = match () {
                () if error.is_timeout() => OriginErrorKind::Timeout,
                () if error.is_builder() => OriginErrorKind::Refused,
                () => OriginErrorKind::Disconnected,
            };
            OriginError::new(kind, error)
        })?;
        let is_redirected = *response.url() != url;
        let mut response = Response::<reqwest::Body>::from(response).map(Body::stream);
        if is_redirected {
            response.extensions_mut().insert(Redirected);
        }
        Ok(response)
    }
}
