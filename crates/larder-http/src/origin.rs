//! Whoever answers what the cache cannot: [`Origin`].

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use http::{Request, Response};
use larder::BoxError;

use crate::Body;

/// Whoever answers a request that the cache cannot answer: a client, a service, a handler.
///
/// Requests come without the fields of the client's connection, and are answered in the same way. What the request
/// carries in its extensions is what came in with it; requests in the background carry none.
#[async_trait]
pub trait Origin: Send + Sync + 'static {
    /// Answers one request. Dropping the call gives it up.
    ///
    /// An origin that hears interim responses (1xx) hands them to the request's [`OnInterim`], if it has one; one that
    /// knows what followed the status of the response says so by a [`StatusMessage`] among its extensions.
    ///
    /// # Errors
    /// It could not be reached, or the connection ended before there was an answer. It is not tried again.
    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, OriginError>;
}

#[async_trait]
impl<O: Origin + ?Sized> Origin for Arc<O> {
    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, OriginError> {
        (**self).send(request).await
    }
}

/// Why there is no answer.
#[derive(Debug, Clone)]
pub struct OriginError {
    kind: OriginErrorKind,
    source: Arc<dyn std::error::Error + Send + Sync>,
}

/// What kind of failure it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OriginErrorKind {
    /// It could not be reached, or the connection ended too early.
    Disconnected,
    /// It did not answer in time.
    Timeout,
    /// The request was not sent: it cannot be, or it may not.
    Refused,
}

impl OriginError {
    /// A failure, and what caused it.
    pub fn new(kind: OriginErrorKind, source: impl Into<BoxError>) -> Self {
        Self { kind, source: Arc::from(source.into()) }
    }

    /// What kind of failure it was.
    pub fn kind(&self) -> OriginErrorKind {
        self.kind
    }

    /// What caused it.
    pub fn cause(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        &*self.source
    }
}

impl fmt::Display for OriginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            OriginErrorKind::Disconnected => "the origin cannot be reached",
            OriginErrorKind::Timeout => "the origin did not answer in time",
            OriginErrorKind::Refused => "the request was not sent to the origin",
        };
        write!(f, "{what}: {}", self.source)
    }
}

impl std::error::Error for OriginError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.source)
    }
}

/// Where interim responses (1xx) go: an extension of a request, put there by a server that can pass them on.
#[derive(Clone)]
pub struct OnInterim(Arc<dyn Fn(Response<()>) + Send + Sync>);

impl OnInterim {
    /// Calls this for each interim response, in their order, before the final one is there.
    pub fn new(pass_on: impl Fn(Response<()>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(pass_on))
    }

    /// Passes one on.
    pub fn pass_on(&self, response: Response<()>) {
        (self.0)(response);
    }
}

impl fmt::Debug for OnInterim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnInterim")
    }
}

/// What followed a response's status on the wire, where it was not what usually does: an extension of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusMessage(pub Arc<str>);

/// The response is of another target than the one that was asked for, to which a client was redirected without telling:
/// an extension of a response, which is then passed on and not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redirected;
