//! The cache as a middleware of reqwest.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use http::{Extensions, HeaderMap, Request, Response};
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
/// # What the client adds is not seen
///
/// The cache stands before the client, so it knows nothing of what the client puts into requests itself: its
/// `default_headers`, the cookies of its `cookie_store`, the `Accept-Encoding` of its decoders. It takes a request with a token
/// of the client's for one without: with a shared policy, the response is stored for all; with any, whoever has the same store
/// and another token gets it. `Vary` on such a field says nothing to it either; and a response out of the cache puts no cookie
/// into the `cookie_store`. So:
///
/// - give credentials, and whatever responses vary on, to [`with_default_headers`](Self::with_default_headers) and not to the
///   client, or to each request;
/// - let a client that has credentials or a cookie store of its own share its store with no client that has others.
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
#[derive(Clone)]
pub struct HttpCacheMiddleware {
    cache: HttpCache,
    client: reqwest::Client,
    default_headers: HeaderMap,
}

impl HttpCacheMiddleware {
    /// Caches what this client gets. For a client of one user, the cache has
    /// [`Policy::private`](crate::policy::Policy::private).
    pub fn new(cache: HttpCache, client: reqwest::Client) -> Self {
        Self { cache, client, default_headers: HeaderMap::new() }
    }

    /// Puts these fields into all requests that do not have them, where the cache sees them: in place of
    /// `default_headers` of the client, which it does not see.
    #[must_use]
    pub fn with_default_headers(mut self, headers: HeaderMap) -> Self {
        self.default_headers = headers;
        self
    }
}

impl fmt::Debug for HttpCacheMiddleware {
    /// Without the values of fields and what the client has of its own: they may be credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.default_headers.keys().collect();
        f.debug_struct("HttpCacheMiddleware")
            .field("cache", &self.cache)
            .field("default_headers", &names)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Middleware for HttpCacheMiddleware {
    async fn handle(
        &self,
        mut request: reqwest::Request,
        _extensions: &mut Extensions,
        _next: Next<'_>,
    ) -> Result<reqwest::Response> {
        let own = request.headers().clone();
        for (name, value) in self.default_headers.iter().filter(|(name, _)| !own.contains_key(*name)) {
            request.headers_mut().try_append(name.clone(), value.clone()).map_err(Error::middleware)?;
        }
        let asked = request.url().clone();
        let request = Request::<reqwest::Body>::try_from(request).map_err(Error::Reqwest)?;
        let origin: Arc<dyn Origin> = Arc::new(Client(self.client.clone()));
        let answer = self.cache.handle(&origin, request.map(Body::stream)).await;
        let (mut head, body) = answer.map_err(Error::middleware)?.into_parts();
        // What links in the response are relative to.
        let url = head.extensions.remove::<FinalUrl>().map_or(asked, |url| url.0);
        let mut response =
            Response::builder().url(url).body(reqwest::Body::wrap(body)).map_err(Error::middleware)?;
        *response.status_mut() = head.status;
        *response.version_mut() = head.version;
        *response.headers_mut() = head.headers;
        response.extensions_mut().extend(head.extensions);
        Ok(response.into())
    }
}

/// Where a client was redirected to.
#[derive(Debug, Clone)]
struct FinalUrl(reqwest::Url);

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
        let led_to = Some(response.url().clone()).filter(|led_to| *led_to != url);
        let mut response = Response::<reqwest::Body>::from(response).map(Body::stream);
        if let Some(led_to) = led_to {
            response.extensions_mut().insert(Redirected);
            response.extensions_mut().insert(FinalUrl(led_to));
        }
        Ok(response)
    }
}
