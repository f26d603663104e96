//! One server, and the connection to it, made anew when it broke.
//!
//! Knows when a connection is no longer any good, and nothing of what goes over it. Nothing is ever sent a second time
//! here, and nobody waits through more than one attempt to connect.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;

use super::dial::Dial;
use super::failure;
use super::line::Line;
use super::options::MemcachedAddress;
use crate::error::Result;

type Attempt = Shared<BoxFuture<'static, Result<Arc<Line>>>>;

#[derive(Default)]
struct State {
    line: Option<Arc<Line>>,
    /// Shared by all who need a connection meanwhile, and carried on if they all give up: with a deadline below the
    /// time that connecting takes, nobody would ever get one.
    attempt: Option<Attempt>,
    closed: bool,
}

/// One server of a store.
pub(super) struct Server {
    pub(super) name: Arc<str>,
    address: MemcachedAddress,
    dial: Arc<Dial>,
    state: Arc<Mutex<State>>,
    /// The largest value that it takes, in bytes; zero until it has said so.
    value_bytes_max: Arc<AtomicU64>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Server {
    /// A server that is connected to when it is first needed.
    pub(super) fn new(address: MemcachedAddress, dial: Arc<Dial>) -> Self {
        Self {
            name: address.to_string().into(),
            address,
            dial,
            state: Arc::default(),
            value_bytes_max: Arc::default(),
        }
    }

    /// The largest value that it takes, in bytes, if it has said so.
    pub(super) fn value_bytes_max(&self) -> Option<u64> {
        Some(self.value_bytes_max.load(Ordering::Relaxed)).filter(|bytes| *bytes > 0)
    }

    /// The connection, made anew if it has to be.
    pub(super) async fn line(&self) -> Result<Arc<Line>> {
        let attempt = {
            let mut state = self.state.lock();
            if state.closed {
                return Err(failure::closed());
            }
            match &state.line {
                Some(line) if line.is_good() => return Ok(Arc::clone(line)),
                _ => state.line = None,
            }
            state.attempt.get_or_insert_with(|| self.attempt()).clone()
        };
        let outcome = attempt.clone().await;
        if outcome.is_err() {
            let mut state = self.state.lock();
            // An attempt lets go of itself, but for one that its runtime ended. Somebody may have begun another one.
            if state.attempt.as_ref().is_some_and(|current| current.ptr_eq(&attempt)) {
                state.attempt = None;
            }
        }
        outcome
    }

    fn attempt(&self) -> Attempt {
        let (state, dial, address) = (Arc::clone(&self.state), Arc::clone(&self.dial), self.address.clone());
        let value_bytes_max = Arc::clone(&self.value_bytes_max);
        let name = Arc::clone(&self.name);
        let task = tokio::spawn(async move {
            let outcome = dial.connect(&address).await;
            let mut state = state.lock();
            // Also if it failed and nobody waits for it any more: a later call would be told of an outage that is over.
            // No other attempt begins before this one is let go of, so this is it.
            state.attempt = None;
            let line = Arc::new(outcome?);
            value_bytes_max.store(line.value_bytes_max, Ordering::Relaxed);
            if state.closed {
                return Err(failure::closed());
            }
            state.line = Some(Arc::clone(&line));
            Ok(line)
        });
        task.map(move |outcome| outcome.unwrap_or_else(|_| Err(failure::hung_up(&name)))).boxed().shared()
    }

    /// What the server said of its version when it was connected to.
    pub(super) async fn version(&self) -> Result<Arc<str>> {
        Ok(Arc::clone(&self.line().await?.version))
    }

    /// Asks for nothing but an answer.
    pub(super) async fn ping(&self) -> Result<()> {
        let line = self.line().await?;
        let mut batch = line.batch(1);
        batch.noop();
        line.send("ping", batch).await.map(|_| ())
    }

    /// Lets go of the connection, when what is under way has been answered.
    pub(super) async fn close(&self) {
        let line = {
            let mut state = self.state.lock();
            state.closed = true;
            state.attempt = None;
            state.line.take()
        };
        let Some(line) = line else { return };
        let mut batch = line.batch(1);
        batch.noop();
        // Answers come in the order of the commands. Whether this one fails makes no difference any more.
        let _ = line.send("close", batch).await;
    }
}
