//! The reverse proxy: requests in, responses out. Here is what its parts say to each other; they know nothing of the
//! command line.
//!
//! ```text
//! listen   sockets, TLS, limits, shutdown
//! http1    HTTP/1.1 as a server, of our own   (decision 30)
//! http2    HTTP/2 as a server, hyper's
//!    └─► Service: a request to a response
//! forward  what an origin is told of the client, and what not
//! upstream origins: routes, connections, health  (decision 31)
//! gate     the way of a request: forward, cache, upstream, log
//! config   the document that says all that
//! admin    the operators' desk
//! client   a client of all that, for commands
//! run      all of it together
//! ```

mod admin;
pub(crate) mod client;
pub(crate) mod config;
mod forward;
mod gate;
mod http1;
mod http2;
mod listen;
mod log;
pub(crate) mod run;
pub(crate) mod shutdown;
mod upgrade;
mod upstream;

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, Response, StatusCode};
use larder_http::Body;

pub(crate) use http1::wire::target::Scheme;
pub(crate) use upgrade::{Duplex, Upgrade};

/// Whoever answers requests.
///
/// A request comes with an absolute URI, unless it names no host (HTTP/1.0) or asks about the server as a whole
/// (`OPTIONS *`), with the fields of the client's connection, and with these extensions: [`Client`], and, where interim
/// responses can be sent, [`OnInterim`](larder_http::OnInterim).
///
/// A response of status 101 carries an [`Upgrade`]. Fields of the service's own connections are not passed on;
/// `Connection: close` ends that of the client. A [`StatusMessage`](larder_http::StatusMessage) among the extensions
/// follows the status.
pub(crate) trait Service: Send + Sync + 'static {
    /// Answers one request. It is dropped when the client has gone.
    fn call(&self, request: Request<Body>) -> impl Future<Output = Response<Body>> + Send;
}

impl<F, R> Service for F
where
    F: Fn(Request<Body>) -> R + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send,
{
    fn call(&self, request: Request<Body>) -> impl Future<Output = Response<Body>> + Send {
        self(request)
    }
}

impl<S: Service> Service for Arc<S> {
    fn call(&self, request: Request<Body>) -> impl Future<Output = Response<Body>> + Send {
        (**self).call(request)
    }
}

/// Who asks, and how it reached this server: an extension of each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Client {
    /// Where the client is.
    pub(crate) remote: SocketAddr,
    /// Where it connected to.
    pub(crate) local: SocketAddr,
    /// How this connection is secured.
    pub(crate) scheme: Scheme,
}

/// A request that no origin is asked for, and what to say to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) why: &'static str,
}
