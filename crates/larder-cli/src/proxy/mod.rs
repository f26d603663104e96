//! What `larder serve` is made of: origins and what is told to them, the document that configures it, its log.
//!
//! Nothing here decides what may be cached: that is the engine's.

pub(crate) mod config;
pub(crate) mod forward;
pub(crate) mod log;
pub(crate) mod upstream;

use std::fmt;
use std::sync::Arc;

use http::StatusCode;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};

/// A connection that bytes flow through both ways.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection that is no longer HTTP's: an extension of a 101 response, taken out by whoever passes it on.
///
/// Extensions can be cloned and a connection cannot, hence the place it is taken from.
#[derive(Clone)]
pub(crate) struct Upgrade(Arc<Mutex<Option<Box<dyn Duplex>>>>);

impl Upgrade {
    pub(crate) fn new(io: impl Duplex + 'static) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::new(io)))))
    }

    /// The connection, once.
    pub(crate) fn take(&self) -> Option<Box<dyn Duplex>> {
        self.0.lock().take()
    }
}

impl fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Upgrade")
    }
}

/// A request that no origin is asked for, and what to say to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) why: &'static str,
}
