//! A client for the commands that speak to a server that runs: one origin, asked as `larder serve` asks its own. Knows
//! nothing of what is asked.

use std::path::Path;
use std::sync::Arc;

use http::{Request, Response};
use http_body::Body as _;
use larder::BoxError;
use larder::time::SystemClock;
use larder_http::{Body, Origin as _, OriginError};

use super::upstream::Upstreams;
use super::upstream::options::{HostHeader, HostPattern, OriginOptions, Route, Routing, UpstreamOptions};

pub(crate) use super::upstream::believable;
pub(crate) use super::upstream::options::Address;

/// The name of the one origin.
const NAME: &str = "the server";

/// Asks one server. Connections are kept and used again.
pub(crate) struct Client(Upstreams);

impl Client {
    /// A client of what is at `address`. `Host` is that of each request. With `name`, TLS is spoken with a server of this
    /// name, wherever it is; with `ca`, the certificates in that PEM file are believed, and not the platform's.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub(crate) fn new(address: Address, name: Option<String>, ca: Option<&Path>) -> Result<Self, String> {
        let mut origin = OriginOptions::new(NAME, vec![UpstreamOptions { address, weight: 1 }]);
        origin.host = HostHeader::Pass;
        origin.tls.server_name = name;
        origin.tls.ca = ca.map(Path::to_owned);
        origin.eject = None;
        origin.upgrades = false;
        let route =
            Route { host: HostPattern::Any, path: "/".into(), origin: origin.name.clone(), strip: false };
        let routing = Routing { origins: vec![origin], routes: vec![route], ..Routing::default() };
        Upstreams::new(routing, Arc::new(SystemClock::default())).map(Self)
    }

    /// Sends a request with an absolute URI. Dropping the call gives it up.
    ///
    /// # Errors
    /// There was no answer.
    pub(crate) async fn send(&self, request: Request<Body>) -> Result<Response<Body>, OriginError> {
        self.0.send(request).await
    }
}

/// Hands over a body piece by piece, to its end.
///
/// # Errors
/// It broke off, or `take` refused a piece.
pub(crate) async fn drain(
    mut body: Body,
    mut take: impl FnMut(&[u8]) -> Result<(), BoxError>,
) -> Result<(), BoxError> {
    while let Some(frame) = std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(piece) = frame?.into_data() {
            take(&piece)?;
        }
    }
    Ok(())
}

/// A whole body, if it is not longer than this.
///
/// # Errors
/// It broke off, or is longer.
pub(crate) async fn read(body: Body, bytes_max: usize) -> Result<Vec<u8>, BoxError> {
    let mut whole = Vec::new();
    drain(body, |piece| {
        if whole.len() + piece.len() > bytes_max {
            return Err(format!("it is longer than {bytes_max} bytes").into());
        }
        whole.extend_from_slice(piece);
        Ok(())
    })
    .await?;
    Ok(whole)
}
