//! The connections to one server: kept while they can be used again, opened as they are needed.
//!
//! A pool of our own, because what is wanted is less than what pools do, and exactly that: a request is handed to one
//! connection and to no other, unless that one gives it back unsent.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use larder::time::Clock;
use larder_http::OriginErrorKind;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::body::Outgoing;
use super::connect::{NoConnection, connect};
use super::failure::Failure;
use super::options::{Address, Limits, OriginOptions, Protocol, Timeouts};
use super::tls::Tls;

/// How often an HTTP/2 connection is asked whether it is still there.
const HTTP2_PING_EVERY: Duration = Duration::from_secs(20);

/// The connections to one server.
pub(super) struct Pool {
    address: Address,
    protocol: Protocol,
    tls: Option<Tls>,
    server_name: String,
    timeouts: Timeouts,
    limits: Limits,
    /// Whether only public addresses may be spoken to.
    public_only: bool,
    clock: Arc<dyn Clock>,
    /// The one that was used last is last.
    idle: Mutex<Vec<Idle>>,
    shared: Mutex<Option<http2::SendRequest<Outgoing>>>,
    /// A task looks after the idle ones.
    reaping: AtomicBool,
    turns: Arc<Semaphore>,
}

struct Idle {
    sender: http1::SendRequest<Outgoing>,
    /// When it is too old, on the monotonic clock.
    until: Duration,
}

/// A connection for one request.
pub(super) enum Connection {
    Http1 { sender: http1::SendRequest<Outgoing>, reused: bool },
    Http2 { sender: http2::SendRequest<Outgoing>, reused: bool },
}

impl Connection {
    pub(super) fn is_http2(&self) -> bool {
        matches!(self, Self::Http2 { .. })
    }

    pub(super) fn is_reused(&self) -> bool {
        match self {
            Self::Http1 { reused, .. } | Self::Http2 { reused, .. } => *reused,
        }
    }

    /// Sends one request. It comes back if not a byte of it was written.
    pub(super) async fn send(
        &mut self,
        request: Request<Outgoing>,
    ) -> Result<Response<Incoming>, (hyper::Error, Option<Box<Request<Outgoing>>>)> {
        let sent = match self {
            Self::Http1 { sender, .. } => sender.try_send_request(request).await,
            Self::Http2 { sender, .. } => sender.try_send_request(request).await,
        };
        sent.map_err(|mut error| {
            let request = error.take_message().map(Box::new);
            (error.into_error(), request)
        })
    }
}

/// The right to one request at a server, and the connection that it is on, until its response has ended.
pub(super) struct Lease {
    pool: Arc<Pool>,
    sender: Option<http1::SendRequest<Outgoing>>,
    idle: Duration,
    _turn: OwnedSemaphorePermit,
    _counted: Option<super::balance::Counted>,
}

impl Lease {
    /// A lease on this connection, which is kept afterwards for so long; for no time, if it is not to be used again.
    pub(super) fn new(
        pool: Arc<Pool>,
        connection: Connection,
        idle: Duration,
        turn: OwnedSemaphorePermit,
        counted: Option<super::balance::Counted>,
    ) -> Self {
        let sender = match connection {
            Connection::Http1 { sender, .. } if !idle.is_zero() => Some(sender),
            _ => None,
        };
        Self { pool, sender, idle, _turn: turn, _counted: counted }
    }

    /// The response has ended.
    pub(super) fn give_back(mut self) {
        let Some(mut sender) = self.sender.take() else { return };
        let (pool, idle) = (self.pool.clone(), self.idle);
        // It may be ready a moment later: once it is known that nothing follows, and all of the request is written.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if sender.ready().await.is_ok() {
                    pool.put(sender, idle);
                }
            });
        }
    }
}

impl Pool {
    pub(super) fn new(
        address: Address,
        tls: Option<Tls>,
        options: &OriginOptions,
        public_only: bool,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let server_name = options.tls.server_name.clone().unwrap_or_else(|| address.host.clone());
        Self {
            address,
            protocol: options.protocol,
            tls,
            server_name,
            timeouts: options.timeouts,
            limits: options.limits,
            public_only,
            clock,
            idle: Mutex::default(),
            shared: Mutex::default(),
            reaping: AtomicBool::new(false),
            turns: Arc::new(Semaphore::new(options.limits.requests.clamp(1, Semaphore::MAX_PERMITS))),
        }
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Waits for one's turn, as long as for a connection.
    pub(super) async fn turn(&self) -> Result<OwnedSemaphorePermit, Failure> {
        match timeout(self.timeouts.connect, self.turns.clone().acquire_owned()).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(Failure::unsent(
                OriginErrorKind::Timeout,
                format!("{} requests are with {} already", self.limits.requests, self.address),
            )),
        }
    }

    /// A connection: one that is there, or a new one.
    pub(super) async fn connection(self: &Arc<Self>, upgrade: bool) -> Result<Connection, Failure> {
        if !upgrade && let Some(sender) = self.shared() {
            return Ok(Connection::Http2 { sender, reused: true });
        }
        if let Some(sender) = self.take() {
            return Ok(Connection::Http1 { sender, reused: true });
        }
        self.open(upgrade).await
    }

    /// A new connection.
    async fn open(&self, upgrade: bool) -> Result<Connection, Failure> {
        match timeout(self.timeouts.connect, self.handshake(upgrade)).await {
            Ok(connection) => connection,
            Err(_) => Err(Failure::unsent(
                OriginErrorKind::Timeout,
                format!("no connection to {} in time", self.address),
            )),
        }
    }

    async fn handshake(&self, upgrade: bool) -> Result<Connection, Failure> {
        let http1_only = upgrade || self.protocol == Protocol::Http1;
        let config = self.tls.as_ref().map(|tls| if http1_only { &tls.http1 } else { &tls.any });
        let tls = config.map(|config| (config, self.server_name.as_str()));
        let connected = connect(&self.address, tls, self.public_only).await.map_err(|error| match error {
            NoConnection::Private => Failure::unsent(
                OriginErrorKind::Refused,
                format!("{} has no public address, and others are not asked", self.address),
            ),
            NoConnection::Failed(error) => self.disconnected("cannot connect to", &error),
        })?;
        let io = TokioIo::new(connected.io);
        if connected.http2 || (self.protocol == Protocol::Http2 && !upgrade) {
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .keep_alive_interval(HTTP2_PING_EVERY)
                .keep_alive_timeout(self.timeouts.connect)
                .max_header_list_size(u32::try_from(self.limits.head_bytes).unwrap_or(u32::MAX))
                .adaptive_window(true)
                .handshake(io)
                .await
                .map_err(|error| self.disconnected("no HTTP/2 with", &error))?;
            tokio::spawn(connection);
            *self.shared.lock() = Some(sender.clone());
            return Ok(Connection::Http2 { sender, reused: false });
        }
        let (sender, connection) = http1::Builder::new()
            .max_headers(self.limits.fields)
            .max_header_size(self.limits.head_bytes)
            // Less than this is refused by panicking.
            .max_buf_size(self.limits.head_bytes.max(16 << 10))
            //= https://www.rfc-editor.org/rfc/rfc9112#section-5.2
            //# A proxy or gateway that receives an obs-fold in a response message
            //# that is not within a "message/http" container MUST either discard the
            //# message and replace it with a 502 (Bad Gateway) response, preferably
            //# with a representation explaining that unacceptable line folding was
            //# received, or replace each received obs-fold with one or more SP
            //# octets prior to interpreting the field value or forwarding the
            //# message downstream.
            .allow_obsolete_multiline_headers_in_responses(true)
            .handshake(io)
            .await
            .map_err(|error| self.disconnected("no HTTP with", &error))?;
        // What goes wrong on it is told to whoever waits for it.
        tokio::spawn(connection.with_upgrades());
        Ok(Connection::Http1 { sender, reused: false })
    }

    fn disconnected(&self, what: &str, error: &dyn std::error::Error) -> Failure {
        Failure::unsent(OriginErrorKind::Disconnected, format!("{what} {}: {}", self.address, chain(error)))
    }

    /// Gives up the connection that all share: something on it took too long.
    pub(super) fn forget_shared(&self) {
        *self.shared.lock() = None;
    }

    fn shared(&self) -> Option<http2::SendRequest<Outgoing>> {
        let mut shared = self.shared.lock();
        if shared.as_ref().is_some_and(http2::SendRequest::is_closed) {
            *shared = None;
        }
        shared.clone()
    }

    /// The idle connection that was used last: the others may get old enough to be closed.
    fn take(&self) -> Option<http1::SendRequest<Outgoing>> {
        let now = self.clock.monotonic();
        let mut idle = self.idle.lock();
        while let Some(Idle { sender, until }) = idle.pop() {
            if until > now && sender.is_ready() && !sender.is_closed() {
                return Some(sender);
            }
        }
        None
    }

    fn put(self: &Arc<Self>, sender: http1::SendRequest<Outgoing>, keep: Duration) {
        let now = self.clock.monotonic();
        let until = now.saturating_add(keep);
        {
            let mut idle = self.idle.lock();
            idle.retain(|idle| idle.until > now && !idle.sender.is_closed());
            if idle.len() >= self.limits.idle {
                return;
            }
            idle.push(Idle { sender, until });
        }
        if !self.reaping.swap(true, Ordering::AcqRel) {
            tokio::spawn(Arc::clone(self).reap());
        }
    }

    /// Closes what is idle for too long, as long as anything is idle.
    async fn reap(self: Arc<Self>) {
        loop {
            tokio::time::sleep(self.timeouts.idle.max(Duration::from_millis(100))).await;
            let now = self.clock.monotonic();
            let mut idle = self.idle.lock();
            idle.retain(|idle| idle.until > now && !idle.sender.is_closed());
            if idle.is_empty() {
                // Whoever puts one back from here on starts another task.
                self.reaping.store(false, Ordering::Release);
                return;
            }
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("address", &self.address.to_string()).finish_non_exhaustive()
    }
}

/// An error with what caused it, each said once.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}
