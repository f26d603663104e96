//! The link to the servers: one connection that all calls share, made anew when it broke.
//!
//! Knows when a connection is no longer any good, and nothing of what goes over it. No call is ever sent a second
//! time here: whether a write that got no answer landed is unknown, and deciding what to do about it is the
//! engine's.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use redis::aio::{ConnectionLike, ConnectionManager, MultiplexedConnection};
use redis::cluster_async::ClusterConnection;
use redis::{Cmd, Pipeline, RedisFuture, RedisResult, Value};
use tokio::task::JoinHandle;

use super::dial::Dial;
use super::doubt::Unanswered;
use super::failure;
use crate::error::{Error, ErrorKind, Result};
use crate::time::{Clock as _, SystemClock};

/// A connection of the `redis` crate, for commands of one's own, or one that was open already.
///
/// Clones share the connection underneath. It is a [`ConnectionLike`], so that commands of the `redis` crate take it.
#[derive(Clone)]
#[non_exhaustive]
pub enum RedisConnection {
    /// To one server. Once it breaks it stays broken.
    Single(MultiplexedConnection),
    /// To one server, and connects again by itself.
    Managed(ConnectionManager),
    /// To the nodes of a cluster; connects again by itself.
    Cluster(ClusterConnection),
}

impl fmt::Debug for RedisConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Single(_) => "RedisConnection::Single",
            Self::Managed(_) => "RedisConnection::Managed",
            Self::Cluster(_) => "RedisConnection::Cluster",
        })
    }
}

impl From<MultiplexedConnection> for RedisConnection {
    fn from(connection: MultiplexedConnection) -> Self {
        Self::Single(connection)
    }
}

impl From<ConnectionManager> for RedisConnection {
    fn from(connection: ConnectionManager) -> Self {
        Self::Managed(connection)
    }
}

impl From<ClusterConnection> for RedisConnection {
    fn from(connection: ClusterConnection) -> Self {
        Self::Cluster(connection)
    }
}

impl ConnectionLike for RedisConnection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Single(connection) => connection.req_packed_command(cmd),
            Self::Managed(connection) => connection.req_packed_command(cmd),
            Self::Cluster(connection) => connection.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        cmd: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Single(connection) => connection.req_packed_commands(cmd, offset, count),
            Self::Managed(connection) => connection.req_packed_commands(cmd, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(cmd, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Single(connection) => connection.get_db(),
            Self::Managed(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}

/// A connection, and how it is.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) connection: RedisConnection,
    health: Arc<Health>,
}

impl Line {
    pub(super) fn new(connection: impl Into<RedisConnection>, health: Arc<Health>) -> Self {
        Self { connection: connection.into(), health }
    }

    /// Has the connection made anew by the next call.
    pub(super) fn give_up(&self) {
        self.health.give_up();
    }
}

/// What a link holds while it stands.
#[derive(Debug)]
pub(super) struct Held {
    /// For what may be sent twice.
    pub(super) reads: Line,
    /// For what must not be. To one server both are the same; of a cluster's, this one sends nothing again.
    pub(super) writes: Line,
}

impl Held {
    pub(super) fn one(line: Line) -> Arc<Self> {
        Arc::new(Self { reads: line.clone(), writes: line })
    }

    pub(super) fn two(reads: Line, writes: Line) -> Arc<Self> {
        Arc::new(Self { reads, writes })
    }

    fn is_good(&self, now: Duration, patience: Duration) -> bool {
        self.reads.health.is_good(now, patience) && self.writes.health.is_good(now, patience)
    }
}

/// Whether a connection is any good.
#[derive(Debug, Default)]
pub(super) struct Health {
    broken: AtomicBool,
    /// Since when somebody waits and nothing has been heard, in milliseconds of the monotonic clock, plus one;
    /// zero if something was heard since anybody asked.
    silent_since: AtomicU64,
}

impl Health {
    pub(super) fn give_up(&self) {
        self.broken.store(true, Ordering::Release);
    }

    fn is_good(&self, now: Duration, patience: Duration) -> bool {
        let silent_since = self.silent_since.load(Ordering::Relaxed);
        let silent = silent_since != 0 && instant(now).saturating_sub(silent_since) > instant(patience);
        !silent && !self.broken.load(Ordering::Acquire)
    }

    fn asked(&self, now: Duration) {
        if self.silent_since.load(Ordering::Relaxed) == 0 {
            self.silent_since.store(instant(now), Ordering::Relaxed);
        }
    }

    fn heard(&self) {
        if self.silent_since.load(Ordering::Relaxed) != 0 {
            self.silent_since.store(0, Ordering::Relaxed);
        }
    }
}

fn instant(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

type Attempt = Shared<BoxFuture<'static, Result<Arc<Held>>>>;

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) held: Option<Arc<Held>>,
    /// Shared by all who need a connection meanwhile, and carried on if they all give up: with a deadline below
    /// the time that connecting takes, nobody would ever get one.
    attempt: Option<Attempt>,
    /// Whoever asks whether a cluster's connection reaches all nodes.
    pub(super) doubt: Option<JoinHandle<()>>,
    closed: bool,
}

/// A connection that is made anew when it broke.
pub(super) struct Link {
    pub(super) state: Arc<Mutex<State>>,
    /// How to connect; `None` for a connection that was passed in.
    pub(super) dial: Option<Arc<Dial>>,
    cluster: bool,
    pub(super) clock: SystemClock,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.dial {
            Some(dial) => fmt::Debug::fmt(dial, f),
            None => f.write_str("a connection that was passed in"),
        }
    }
}

impl Link {
    /// A link that connects when it is first used.
    pub(super) fn owned(dial: Dial) -> Self {
        let cluster = dial.is_cluster();
        Self { state: Arc::default(), dial: Some(Arc::new(dial)), cluster, clock: SystemClock::default() }
    }

    /// A link over a connection that is somebody else's.
    pub(super) fn borrowed(connection: RedisConnection) -> Self {
        let cluster = matches!(connection, RedisConnection::Cluster(_));
        let held = Held::one(Line::new(connection, Arc::default()));
        let state = State { held: Some(held), ..State::default() };
        Self { state: Arc::new(Mutex::new(state)), dial: None, cluster, clock: SystemClock::default() }
    }

    /// Whether the store is a cluster, where each key goes its own way. Calls for several keys at once are not the
    /// client's to split: what it sends to nodes that it has lost is left out of its sums.
    pub(super) fn is_cluster(&self) -> bool {
        self.cluster
    }

    /// The connection, made anew if it has to be.
    pub(super) async fn held(&self) -> Result<Arc<Held>> {
        let attempt = {
            let mut state = self.state.lock();
            if state.closed {
                return Err(Error::new(ErrorKind::Closed, "redis: the driver was closed"));
            }
            let Some(dial) = &self.dial else {
                return state.held.clone().ok_or_else(gone);
            };
            let now = self.clock.monotonic();
            if let Some(held) = &state.held {
                if held.is_good(now, dial.patience()) {
                    return Ok(Arc::clone(held));
                }
                state.held = None;
            }
            state.attempt.get_or_insert_with(|| self.attempt(Arc::clone(dial))).clone()
        };
        let outcome = attempt.clone().await;
        if outcome.is_err() {
            let mut state = self.state.lock();
            // The next call tries again, unless somebody has begun to already.
            if state.attempt.as_ref().is_some_and(|current| current.ptr_eq(&attempt)) {
                state.attempt = None;
            }
        }
        outcome
    }

    fn attempt(&self, dial: Arc<Dial>) -> Attempt {
        let state = Arc::clone(&self.state);
        let task = tokio::spawn(async move {
            let held = dial.connect().await?;
            let mut state = state.lock();
            state.attempt = None;
            if !state.closed {
                state.held = Some(Arc::clone(&held));
            }
            Ok(held)
        });
        task.map(|outcome| outcome.unwrap_or_else(|_| Err(gone()))).boxed().shared()
    }

    /// Sends something over a line, and notes what becomes of it.
    pub(super) async fn over<T>(
        &self,
        line: &Line,
        call: impl AsyncFnOnce(RedisConnection) -> RedisResult<T>,
    ) -> RedisResult<T> {
        let now = self.clock.monotonic();
        line.health.asked(now);
        let unanswered = Unanswered::begin(self, now);
        let outcome = call(line.connection.clone()).await;
        match &outcome {
            // Of a cluster's nodes one may fail; the client mends the connection to it by itself.
            Err(cause) if failure::is_broken(cause) && !self.cluster => line.health.give_up(),
            // But once it has lost them all, it may look for none of them ever again.
            Err(cause) if failure::is_lost(cause) => line.health.give_up(),
            Err(cause) if cause.is_io_error() => {}
            _ => {
                line.health.heard();
                if let Some(unanswered) = unanswered {
                    unanswered.end();
                }
            }
        }
        outcome
    }

    /// Lets go of the connection. Calls that are under way keep theirs until they end.
    pub(super) fn close(&self) -> Option<Arc<Held>> {
        let mut state = self.state.lock();
        state.closed = true;
        state.attempt = None;
        state.held.take().filter(|_| self.dial.is_some())
    }
}

fn gone() -> Error {
    Error::new(ErrorKind::Unavailable, "redis connect: the runtime that the connection lived in has ended")
}
