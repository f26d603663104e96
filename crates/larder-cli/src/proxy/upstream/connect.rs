//! A connection to a server: its name resolved, a socket opened, TLS spoken. Knows nothing of HTTP but what ALPN says.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::sleep;
use tokio_rustls::TlsConnector;

use super::address::is_public;
use super::options::Address;
use crate::proxy::Duplex;

/// How long one address is tried before the next one is tried beside it (RFC 8305 section 5).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// The most addresses of a name that are tried.
const ADDRESSES_MAX: usize = 8;

/// A connection, and whether HTTP/2 was agreed on.
pub(super) struct Connected {
    pub(super) io: Box<dyn Duplex>,
    pub(super) http2: bool,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum NoConnection {
    /// It cannot be had.
    Failed(io::Error),
    /// It may not be: the address is not public.
    Private,
}

impl From<io::Error> for NoConnection {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// Connects. With `public_only`, an address that is not public is never spoken to, whatever the name is.
pub(super) async fn connect(
    address: &Address,
    tls: Option<(&Arc<ClientConfig>, &str)>,
    public_only: bool,
) -> Result<Connected, NoConnection> {
    let mut addresses: Vec<SocketAddr> = match address.host.parse::<IpAddr>() {
        Ok(ip) => vec![(ip, address.port).into()],
        Err(_) => lookup_host((address.host.as_str(), address.port)).await?.collect(),
    };
    if public_only {
        addresses.retain(|address| is_public(address.ip()));
        if addresses.is_empty() {
            return Err(NoConnection::Private);
        }
    }
    let socket = first_of(in_turn(addresses)).await?;
    // What is written is whole messages: waiting for more would only delay them.
    let _ = socket.set_nodelay(true);
    let Some((config, name)) = tls else { return Ok(Connected { io: Box::new(socket), http2: false }) };
    let name = ServerName::try_from(name.to_owned()).map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidInput, "the name is none that a certificate can be for")
    })?;
    let stream = TlsConnector::from(config.clone()).connect(name, socket).await?;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    Ok(Connected { io: Box::new(stream), http2 })
}

/// Both kinds of addresses by turns, in the order of the resolver otherwise.
fn in_turn(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let Some(first) = addresses.first().map(SocketAddr::is_ipv6) else { return addresses };
    let (one, other): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first);
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut mixed = Vec::new();
    loop {
        match (one.next(), other.next()) {
            (None, None) => break,
            (a, b) => mixed.extend(a.into_iter().chain(b)),
        }
    }
    mixed.truncate(ADDRESSES_MAX);
    mixed
}

/// The first that answers. The next one is tried once one has failed, or has taken its time.
async fn first_of(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut next = addresses.into_iter();
    let mut running = FuturesUnordered::new();
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        match next.next() {
            Some(address) => running.push(TcpStream::connect(address)),
            None if running.is_empty() => return Err(failed),
            None => {}
        }
        tokio::select! {
            Some(result) = running.next() => match result {
                Ok(socket) => return Ok(socket),
                Err(error) => failed = error,
            },
            () = sleep(NEXT_ADDRESS_AFTER), if next.len() > 0 => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_addresses_are_tried_by_turns() {
        let of = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        assert_eq!(
            in_turn(of(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"])),
            of(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"])
        );
        assert!(in_turn(Vec::new()).is_empty());
    }
}
