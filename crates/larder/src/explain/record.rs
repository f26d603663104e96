//! Who is listening, and the way from a step to them.

use std::future::{Future, IntoFuture};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::{Account, STEPS_MAX, Step};
use crate::time::{Clock as _, SystemClock};

/// The target of the steps that go to `tracing`.
#[cfg(feature = "tracing")]
const TARGET: &str = "larder::explain";

/// How many accounts are being written in this process: in most, none.
static LISTENERS: AtomicUsize = AtomicUsize::new(0);

tokio::task_local! {
    /// The account that this task is part of.
    static LISTENER: Option<Arc<Listener>>;
}

/// An account that is being written.
#[derive(Debug, Default)]
struct Listener {
    heard: Mutex<Heard>,
    /// The account that this one is part of.
    outer: Option<Arc<Listener>>,
}

#[derive(Debug, Default)]
struct Heard {
    account: Account,
    /// The clock's reading at the first step.
    first: Option<Duration>,
}

impl Listener {
    fn hear(&self, now: Duration, mut step: Step) {
        if let Some(outer) = &self.outer {
            outer.hear(now, step.clone());
        }
        let mut heard = self.heard.lock();
        let first = *heard.first.get_or_insert(now);
        step.at = now.saturating_sub(first);
        if heard.account.steps.len() < STEPS_MAX {
            heard.account.steps.push(step);
        } else {
            heard.account.omitted += 1;
        }
    }
}

/// Counts a listener for as long as it lives.
struct Counted;

impl Counted {
    fn new() -> Self {
        LISTENERS.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        LISTENERS.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) async fn of<F: IntoFuture>(operation: F) -> (F::Output, Account) {
    let listener = Arc::new(Listener { heard: Mutex::default(), outer: listener() });
    let _counted = Counted::new();
    let clock = SystemClock::default();
    // A request may look into memory while it becomes a future.
    let scope = Some(Arc::clone(&listener));
    let future = LISTENER.sync_scope(scope, || operation.into_future());
    let output = LISTENER.scope(Some(Arc::clone(&listener)), future).await;
    let mut account = std::mem::take(&mut listener.heard.lock().account);
    account.took = clock.monotonic();
    (output, account)
}

fn listener() -> Option<Arc<Listener>> {
    if LISTENERS.load(Ordering::Relaxed) == 0 {
        return None;
    }
    LISTENER.try_with(Option::clone).ok().flatten()
}

/// Whether anybody wants steps of this task.
#[inline]
pub(crate) fn is_on() -> bool {
    LISTENERS.load(Ordering::Relaxed) != 0 && listener().is_some() || is_traced()
}

#[cfg(feature = "tracing")]
#[inline]
fn is_traced() -> bool {
    tracing::enabled!(target: TARGET, tracing::Level::TRACE)
}

#[cfg(not(feature = "tracing"))]
fn is_traced() -> bool {
    false
}

/// Hands a step to whoever listens. `now` is a reading of the stack's monotonic clock.
pub(crate) fn record(now: Duration, step: Step) {
    #[cfg(feature = "tracing")]
    if is_traced() {
        let Step { stack, namespace, key, what, .. } = &step;
        tracing::trace!(
            target: TARGET,
            stack,
            namespace = Some(namespace).filter(|namespace| !namespace.is_empty()),
            key,
            "{what}"
        );
    }
    if let Some(listener) = listener() {
        listener.hear(now, step);
    }
}

/// A task that belongs to the account of the caller who starts it.
pub(crate) fn of_caller<F: Future>(task: F) -> impl Future<Output = F::Output> {
    LISTENER.scope(listener(), task)
}
