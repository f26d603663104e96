//! Deletes that follow a write a second time, after a while: each in a task of its own, in bounded number. Knows
//! nothing of the source.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::error::{Error, Result};
use crate::stack::{Core, Door, WriteSeat};

/// The second deletes of a handle and its clones.
#[derive(Debug, Clone, Default)]
pub(super) struct SecondDeletes {
    /// How long after the first; `None` makes none.
    after: Option<Duration>,
    books: Arc<Books>,
}

#[derive(Debug, Default)]
struct Books {
    state: Mutex<State>,
    idle: Notify,
}

#[derive(Debug, Default)]
struct State {
    pending: usize,
    /// The first failure that nobody was told of.
    failure: Option<Error>,
}

impl SecondDeletes {
    pub(super) fn after(self, after: Duration) -> Self {
        Self { after: Some(after), ..self }
    }

    /// Makes room for one, if there are to be any.
    ///
    /// # Errors
    /// As [`WriteSeat::take`].
    pub(super) fn reserve(&self, core: &Arc<Core>) -> Result<Option<SecondDelete>> {
        let Some(after) = self.after else { return Ok(None) };
        let seat = WriteSeat::take(core)?;
        self.books.state.lock().pending += 1;
        Ok(Some(SecondDelete { after, seat, books: Arc::clone(&self.books) }))
    }

    pub(super) fn pending(&self) -> usize {
        self.books.state.lock().pending
    }

    /// Waits until none is pending.
    ///
    /// # Errors
    /// The first failure since the last call.
    pub(super) async fn flush(&self) -> Result<()> {
        loop {
            let idle = self.books.idle.notified();
            {
                let mut state = self.books.state.lock();
                if state.pending == 0 {
                    return state.failure.take().map_or(Ok(()), Err);
                }
            }
            idle.await;
        }
    }
}

/// Room for one second delete, pending until this is dropped.
pub(super) struct SecondDelete {
    after: Duration,
    seat: WriteSeat,
    books: Arc<Books>,
}

impl SecondDelete {
    /// Deletes the key when its time has come, or when the stack is closed, if that is earlier.
    pub(super) fn start(self, core: Arc<Core>, door: Arc<Door>, key: String) {
        let Ok(runtime) = Handle::try_current() else { return };
        runtime.spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(self.after) => {}
                () = self.seat.closing() => {}
            }
            if let Err(error) = core.delete(&door, &key, core.clock.now()).await {
                self.books.state.lock().failure.get_or_insert(error);
            }
        });
    }
}

impl Drop for SecondDelete {
    fn drop(&mut self) {
        let mut state = self.books.state.lock();
        state.pending -= 1;
        if state.pending == 0 {
            self.books.idle.notify_waiters();
        }
    }
}
