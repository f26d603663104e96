//! Responses that nobody takes. HTTP/2 lets a client leave one of them where it is, for ever, and go on with the others, so
//! each is watched by itself, where hyper sends it. Knows nothing of what is sent.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::Executor;
use tokio::time::Instant;

use crate::proxy::http1::{Timer, after};

tokio::task_local! {
    /// That of the response whose task this is.
    static TAKING: Arc<Taking>;
}

/// What the client takes of one response.
#[derive(Debug, Default)]
pub(super) struct Taking {
    /// A piece was handed over, and the next one was not asked for.
    waits: AtomicBool,
    pieces: AtomicU64,
}

impl Taking {
    /// That of the response that is being made. One that nobody watches, where there is none.
    pub(super) fn here() -> Arc<Self> {
        TAKING.try_with(Arc::clone).unwrap_or_default()
    }

    /// A piece waits for the client.
    pub(super) fn waits(&self) {
        self.pieces.fetch_add(1, Ordering::Relaxed);
        self.waits.store(true, Ordering::Relaxed);
    }

    /// The client has taken what there was.
    pub(super) fn goes_on(&self) {
        self.waits.store(false, Ordering::Relaxed);
    }

    /// Which piece waits, if one does.
    fn waiting(&self) -> Option<u64> {
        self.waits.load(Ordering::Relaxed).then(|| self.pieces.load(Ordering::Relaxed))
    }
}

/// Runs the tasks of a connection's streams, each until its client has taken nothing for so long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Streams {
    pub(super) write_timeout: Duration,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let taking = Arc::<Taking>::default();
        tokio::spawn(Watched {
            stream: Box::pin(TAKING.scope(Arc::clone(&taking), stream)),
            taking,
            timeout: self.write_timeout,
            waits_for: None,
            timer: Timer::default(),
        });
    }
}

/// A stream's task. Dropping it resets the stream.
struct Watched<F> {
    stream: Pin<Box<F>>,
    taking: Arc<Taking>,
    timeout: Duration,
    /// Which piece waits, and until when it may.
    waits_for: Option<(u64, Instant)>,
    timer: Timer,
}

impl<F: Future<Output = ()>> Future for Watched<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let Some(piece) = this.taking.waiting() else {
            this.waits_for = None;
            return Poll::Pending;
        };
        let deadline = match this.waits_for {
            Some((is, deadline)) if is == piece => deadline,
            _ => after(this.timeout),
        };
        this.waits_for = Some((piece, deadline));
        this.timer.poll(deadline, cx)
    }
}
