//! The proxy's door: sockets, TLS, how many connections there may be, and how all of it ends. Knows nothing of what is
//! served.

mod swap;
pub(crate) mod tls;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::http1::{self, End, Settings, Wire};
use super::shutdown::Shutdown;
use super::{Client, Scheme, Service, http2};

pub(crate) use swap::Swap;

/// What the kernel keeps of connections that nobody has accepted yet.
const BACKLOG: u32 = 1024;

/// How long nothing is accepted after that failed, for want of file descriptors most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The most connections that any server may be told to have.
const CONNECTIONS_MAX: usize = Semaphore::MAX_PERMITS >> 3;

/// Where and how to listen.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Addresses for HTTP. Port 0 is any that is free.
    pub(crate) plain: Vec<SocketAddr>,
    /// Addresses for HTTPS.
    pub(crate) secure: Vec<SocketAddr>,
    /// The certificates of the latter: see [`tls::config`].
    pub(crate) tls: Option<Arc<ServerConfig>>,
    /// How many connections there may be. Those beyond it wait in the kernel.
    pub(crate) connections_max: usize,
    /// How long a client may take to agree on TLS.
    pub(crate) handshake_timeout: Duration,
    /// How long requests may take that run when the server is told to stop.
    pub(crate) grace: Duration,
    /// How connections are served.
    pub(crate) settings: Settings,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            plain: Vec::new(),
            secure: Vec::new(),
            tls: None,
            connections_max: 10_000,
            handshake_timeout: Duration::from_secs(10),
            grace: Duration::from_secs(30),
            settings: Settings::default(),
        }
    }
}

/// Why a server could not be made.
#[derive(Debug)]
pub(crate) enum BindError {
    Socket(SocketAddr, io::Error),
    NoCertificate,
    NoAddress,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address, error) => write!(f, "cannot listen on {address}: {error}"),
            Self::NoCertificate => f.write_str("cannot listen with TLS without a certificate"),
            Self::NoAddress => f.write_str("cannot listen without an address"),
        }
    }
}

impl std::error::Error for BindError {}

/// What can be changed while the server runs. Connections that exist are kept: settings and certificates are those of when
/// a connection was made.
#[derive(Debug, Clone)]
pub(crate) struct Controls {
    settings: Swap<Settings>,
    tls: Option<Swap<ServerConfig>>,
    permits: Arc<Semaphore>,
    connections_max: usize,
}

impl Controls {
    /// Serves new connections like this.
    pub(crate) fn set_settings(&self, settings: Settings) {
        self.settings.set(Arc::new(settings));
    }

    /// Shows new connections these certificates. Does nothing where there is no TLS.
    pub(crate) fn set_tls(&self, config: Arc<ServerConfig>) {
        if let Some(tls) = &self.tls {
            tls.set(config);
        }
    }

    /// How many connections there are.
    pub(crate) fn connections(&self) -> usize {
        self.connections_max.saturating_sub(self.permits.available_permits())
    }
}

/// Sockets that listen.
#[derive(Debug)]
pub(crate) struct Server {
    listeners: Vec<(TcpListener, SocketAddr, Scheme)>,
    controls: Controls,
    handshake_timeout: Duration,
    grace: Duration,
}

impl Server {
    /// Listens: from here on, clients can connect, and wait.
    ///
    /// # Errors
    /// An address cannot be listened on, or there is no certificate for TLS.
    pub(crate) fn bind(options: Options) -> Result<Self, BindError> {
        if !options.secure.is_empty() && options.tls.is_none() {
            return Err(BindError::NoCertificate);
        }
        let plain = options.plain.iter().map(|address| (*address, Scheme::Http));
        let secure = options.secure.iter().map(|address| (*address, Scheme::Https));
        let listeners = plain
            .chain(secure)
            .map(|(address, scheme)| {
                let listen = || {
                    let listener = listen(address)?;
                    let bound = listener.local_addr()?;
                    Ok((listener, bound, scheme))
                };
                listen().map_err(|error| BindError::Socket(address, error))
            })
            .collect::<Result<Vec<_>, _>>()?;
        if listeners.is_empty() {
            return Err(BindError::NoAddress);
        }
        let connections_max = options.connections_max.clamp(1, CONNECTIONS_MAX);
        let controls = Controls {
            settings: Swap::new(Arc::new(options.settings)),
            tls: options.tls.map(Swap::new),
            permits: Arc::new(Semaphore::new(connections_max)),
            connections_max,
        };
        Ok(Self { listeners, controls, handshake_timeout: options.handshake_timeout, grace: options.grace })
    }

    /// Where it listens, in the order of the options, HTTP first.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (SocketAddr, Scheme)> {
        self.listeners.iter().map(|(_, address, scheme)| (*address, *scheme))
    }

    /// What can be changed while it runs.
    pub(crate) fn controls(&self) -> Controls {
        self.controls.clone()
    }

    /// Serves until it is told to stop, then until all requests are answered, but no longer than the grace. Dropping this
    /// ends everything at once.
    pub(crate) async fn serve<S: Service>(self, service: Arc<S>, stop: Shutdown) {
        let mut accepting = JoinSet::new();
        for (listener, local, scheme) in self.listeners {
            let door = Door {
                listener,
                local,
                scheme,
                controls: self.controls.clone(),
                handshake_timeout: self.handshake_timeout,
                service: Arc::clone(&service),
                stop: stop.clone(),
                grace: self.grace,
            };
            accepting.spawn(door.accept());
        }
        while accepting.join_next().await.is_some() {}
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // So that a restart need not wait until the connections of the one before are forgotten.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// One socket, and what its connections need.
struct Door<S> {
    listener: TcpListener,
    local: SocketAddr,
    scheme: Scheme,
    controls: Controls,
    handshake_timeout: Duration,
    service: Arc<S>,
    stop: Shutdown,
    grace: Duration,
}

impl<S: Service> Door<S> {
    async fn accept(self) {
        let mut connections = JoinSet::new();
        let mut stops = std::pin::pin!(self.stop.clone().wait());
        loop {
            let accepted = tokio::select! {
                biased;
                () = stops.as_mut() => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                accepted = self.next() => accepted,
            };
            match accepted {
                Ok((stream, remote, permit)) => {
                    let serving = self.serve(stream, remote);
                    connections.spawn(async move {
                        serving.await;
                        drop(permit);
                    });
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            }
        }
        drop(self.listener);
        let finish = async { while connections.join_next().await.is_some() {} };
        let _ = timeout(self.grace, finish).await;
        connections.abort_all();
        while connections.join_next().await.is_some() {}
    }

    async fn next(&self) -> io::Result<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
        let permit = Arc::clone(&self.controls.permits).acquire_owned().await.map_err(io::Error::other)?;
        let (stream, remote) = self.listener.accept().await?;
        Ok((stream, remote, permit))
    }

    /// Serves one connection. Whatever goes wrong with it is the client's.
    fn serve(&self, stream: TcpStream, remote: SocketAddr) -> impl Future<Output = ()> + Send + use<S> {
        let client = Client { remote, local: self.local, scheme: self.scheme };
        let settings = self.controls.settings.get();
        let tls = self.controls.tls.as_ref().filter(|_| self.scheme == Scheme::Https).map(Swap::get);
        let (service, stop, patience) =
            (Arc::clone(&self.service), self.stop.clone(), self.handshake_timeout);
        async move {
            // The last packet of a response does not wait for the client to acknowledge the one before.
            let _ = stream.set_nodelay(true);
            let Some(tls) = tls else {
                return serve_http(stream, client, service, &settings, &stop).await;
            };
            let Ok(Ok(stream)) = timeout(patience, TlsAcceptor::from(tls).accept(stream)).await else {
                return;
            };
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                http2::serve_connection(stream, Bytes::new(), client, service, &settings, &stop).await;
            } else {
                serve_http(stream, client, service, &settings, &stop).await;
            }
        }
    }
}

/// HTTP/1.1, or HTTP/2 if the client begins with that.
async fn serve_http<I: Wire, S: Service>(
    io: I,
    client: Client,
    service: Arc<S>,
    settings: &Settings,
    stop: &Shutdown,
) {
    if let End::Http2(io, read) = http1::serve_connection(io, client, &*service, settings, stop).await {
        http2::serve_connection(io, read, client, service, settings, stop).await;
    }
}

impl Wire for TcpStream {
    fn reset(&mut self) {
        let _ = self.set_zero_linger();
    }
}

impl Wire for TlsStream<TcpStream> {
    fn reset(&mut self) {
        let _ = self.get_ref().0.set_zero_linger();
    }
}
