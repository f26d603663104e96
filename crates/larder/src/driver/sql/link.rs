//! The way to the database: a pool of connections, deadlines, and what happens to a connection that failed.
//!
//! A connection that a call was dropped on, or that did not answer in time, is closed: no later call can read what was
//! meant for it, or wait for what it left behind. Knows nothing of statements.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::FutureExt as _;
use sqlx::pool::{PoolConnection, PoolOptions};
use sqlx::{Connection as _, Pool};

use super::dialect::{Dialect, Wire};
use super::failure::{self, Place};
use super::options::SqlOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::time::{Clock as _, SystemClock, seconds};

/// How long a connection may have been idle before it is asked whether it still works: one round trip, once a second.
const IDLE_MAX: Duration = seconds(1);
/// How often a statement is tried that the server ended in favour of another one's.
const TRIES_MAX: u32 = 10;

/// Whether something may be sent a second time when nobody knows whether it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// It changes nothing.
    Harmless,
    /// It changes something.
    Never,
}

/// What came of a piece of work, with the connection that it was done over.
pub(super) type Done<D, T> = (Lease<D>, sqlx::Result<T>);

/// The pool, and how it is used.
pub(super) struct Link<D: Dialect> {
    pool: Pool<D::Database>,
    /// Whether the pool is the driver's own.
    is_ours: bool,
    is_closed: AtomicBool,
    health: Arc<Health>,
    place: Place,
    connect_timeout: Duration,
    response_timeout: Duration,
}

impl<D: Dialect> fmt::Debug for Link<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("place", &format_args!("{}", self.place))
            .field("connections", &self.pool.size())
            .field("is_ours", &self.is_ours)
            .finish_non_exhaustive()
    }
}

/// When a connection was last found broken. The others of that age probably are as well, and are not worth a failed call
/// each.
#[derive(Debug, Default)]
struct Health {
    clock: SystemClock,
    /// In milliseconds of the clock; 0 is never.
    broke_at_ms: AtomicU64,
}

impl Health {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(u64::MAX)
    }

    fn broke(&self) {
        self.broke_at_ms.store(self.now_ms().max(1), Ordering::Relaxed);
    }

    /// Whether a connection is from before the last one broke.
    fn doubts(&self, age: Duration) -> bool {
        let broke_at_ms = self.broke_at_ms.load(Ordering::Relaxed);
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        broke_at_ms > 0 && self.now_ms().saturating_sub(age_ms) <= broke_at_ms
    }
}

impl<D: Dialect> Link<D> {
    /// A link over connections of its own. Connects to nothing yet.
    pub(super) fn own(options: &SqlOptions<D>) -> Self {
        let settings = options.settings();
        let place = Place::of::<D>(&settings);
        let health = Arc::<Health>::default();
        let known = Arc::clone(&health);
        let is_alone = options.statement_cache > 0;
        // The server gives up a little earlier, so that its error arrives and the connection is kept.
        let patience = options.response_timeout - options.response_timeout / 10;
        let pool = PoolOptions::<D::Database>::new()
            .max_connections(options.max_connections)
            .acquire_timeout(options.connect_timeout)
            // Asking before every call would double what a call takes.
            .test_before_acquire(false)
            .before_acquire(move |connection, meta| {
                let health = Arc::clone(&known);
                Box::pin(async move {
                    if health.doubts(meta.age) {
                        return Ok(false);
                    }
                    Ok(meta.idle_for < IDLE_MAX || connection.ping().await.is_ok())
                })
            })
            .after_connect(move |connection, _| {
                Box::pin(
                    async move { if is_alone { D::prepare(connection, patience).await } else { Ok(()) } },
                )
            })
            .connect_lazy_with(settings);
        Self {
            pool,
            is_ours: true,
            is_closed: AtomicBool::new(false),
            health,
            place,
            connect_timeout: options.connect_timeout,
            response_timeout: options.response_timeout,
        }
    }

    /// A link over somebody's pool.
    pub(super) fn borrowed(pool: Pool<D::Database>, options: &SqlOptions<D>) -> Self {
        Self {
            is_ours: false,
            is_closed: AtomicBool::new(false),
            health: Arc::default(),
            place: Place::of::<D>(&pool.connect_options()),
            connect_timeout: options.connect_timeout,
            response_timeout: options.response_timeout,
            pool,
        }
    }

    pub(super) fn pool(&self) -> &Pool<D::Database> {
        &self.pool
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Does something over a connection, within the timeouts.
    pub(super) async fn run<T, F: Future<Output = Done<D, T>>>(
        &self,
        what: &'static str,
        repeat: Repeat,
        work: impl Fn(Lease<D>) -> F,
    ) -> Result<T> {
        let outcome = self.attempt(what, repeat, work).await?;
        outcome.map_err(|cause| failure::failed::<D>(what, &self.place, cause))
    }

    /// As [`Link::run`]; the inner result is what the client reports.
    pub(super) async fn attempt<T, F: Future<Output = Done<D, T>>>(
        &self,
        what: &'static str,
        repeat: Repeat,
        work: impl Fn(Lease<D>) -> F,
    ) -> Result<sqlx::Result<T>> {
        let limit = self.connect_timeout + self.response_timeout;
        let outcome = tokio::time::timeout(limit, self.tries(what, repeat, work)).await;
        outcome.unwrap_or_else(|_| Err(failure::late::<D>(what, &self.place)))
    }

    async fn tries<T, F: Future<Output = Done<D, T>>>(
        &self,
        what: &'static str,
        repeat: Repeat,
        work: impl Fn(Lease<D>) -> F,
    ) -> Result<sqlx::Result<T>> {
        let (mut tries, mut may_have_broken) = (0, false);
        loop {
            let lease = self.lease(what).await?;
            tries += 1;
            // The client panics at some answers that no server gives; the connection goes with it.
            let working = AssertUnwindSafe(work(lease)).catch_unwind();
            let (lease, outcome) = match tokio::time::timeout(self.response_timeout, working).await {
                Ok(Ok(done)) => done,
                Ok(Err(_)) => return Ok(Err(failure::nonsense())),
                Err(_) => return Err(failure::late::<D>(what, &self.place)),
            };
            let cause = match outcome {
                Ok(value) => {
                    lease.end();
                    return Ok(Ok(value));
                }
                Err(cause) => cause,
            };
            let again = match &cause {
                sqlx::Error::Database(refusal) if D::is_ended(&**refusal) => {
                    self.health.broke();
                    !std::mem::replace(&mut may_have_broken, true)
                }
                sqlx::Error::Database(refusal) => {
                    lease.end();
                    D::is_passing(&**refusal) && tries < TRIES_MAX
                }
                sqlx::Error::Io(_) => {
                    self.health.broke();
                    repeat == Repeat::Harmless && !std::mem::replace(&mut may_have_broken, true)
                }
                _ => false,
            };
            if !again {
                return Ok(Err(cause));
            }
        }
    }

    async fn lease(&self, what: &'static str) -> Result<Lease<D>> {
        if self.is_closed.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Closed, format!("{} {what}: the driver was closed", D::NAME)));
        }
        // Somebody's pool may have more patience.
        let acquiring = AssertUnwindSafe(self.pool.acquire()).catch_unwind();
        let acquired = match tokio::time::timeout(self.connect_timeout, acquiring).await {
            Ok(Ok(acquired)) => acquired,
            Ok(Err(_)) => Err(failure::nonsense()),
            Err(_) => Err(sqlx::Error::PoolTimedOut),
        };
        match acquired {
            Ok(connection) => Ok(Lease { connection, is_clean: false }),
            Err(sqlx::Error::PoolTimedOut) => Err(self.unavailable(what)),
            Err(cause) => Err(failure::failed::<D>(what, &self.place, cause)),
        }
    }

    fn unavailable(&self, what: &str) -> Error {
        let most = self.pool.options().get_max_connections();
        let why = if self.pool.size() >= most && self.pool.num_idle() == 0 {
            format!("all {most} connections are in use")
        } else {
            "the server cannot be reached, or takes no more connections".to_owned()
        };
        Error::new(ErrorKind::Unavailable, format!("{} {what}: {why} ({})", D::NAME, self.place))
    }

    /// Takes no more calls, and closes the pool if it is ours.
    pub(super) async fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        if self.is_ours {
            self.pool.close().await;
        }
    }
}

/// A connection in use. Dropped before its [`Lease::end`], it is closed.
pub(super) struct Lease<D: Dialect> {
    connection: PoolConnection<D::Database>,
    is_clean: bool,
}

impl<D: Dialect> Lease<D> {
    /// The connection goes back to the pool: what was asked has been answered.
    fn end(mut self) {
        self.is_clean = true;
    }
}

impl<D: Dialect> Deref for Lease<D> {
    type Target = Wire<D>;

    fn deref(&self) -> &Wire<D> {
        &self.connection
    }
}

impl<D: Dialect> DerefMut for Lease<D> {
    fn deref_mut(&mut self) -> &mut Wire<D> {
        &mut self.connection
    }
}

impl<D: Dialect> Drop for Lease<D> {
    fn drop(&mut self) {
        if !self.is_clean {
            self.connection.close_on_drop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_from_before_another_one_broke_is_doubted() {
        let health = Health::default();
        assert!(!health.doubts(seconds(1_000)));
        health.broke();
        assert!(health.doubts(seconds(1)));
        std::thread::sleep(Duration::from_millis(5));
        assert!(!health.doubts(Duration::ZERO));
        assert!(health.doubts(seconds(1)));
    }
}
