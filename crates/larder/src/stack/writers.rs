//! Writes of the source that are under way: until one has ended, what the cache has for its key is in doubt.
//!
//! Nothing waits for its turn, because the code of a user may not run under a lock. Of writes of one key that
//! overlap, nobody knows in which order the source took them; so each of them is told that it was not alone, and
//! deletes the key after its own write, in place of setting it.
//!
//! Knows nothing of sources and of how they are written.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::error::{Error, ErrorKind, Result};
use crate::stack::{Core, Space};

/// How many writes of sources, and deletes that are to follow them, may be under way in one stack.
pub const SOURCE_WRITES_MAX: usize = 65_536;

tokio::task_local! {
    /// The [`Writers`] whose write is running in this task.
    static CURRENT: usize;
}

/// The writes of one key that are under way.
#[derive(Debug, Default)]
struct Overlap {
    writers: usize,
    /// Whether there were two of them at once since the first began.
    is_contended: bool,
}

#[derive(Debug, Default)]
struct State {
    by_key: HashMap<(u32, Box<str>), Overlap>,
    seats: usize,
}

/// All writes of sources of a stack, and the deletes that are to follow them.
#[derive(Debug, Default)]
pub(crate) struct Writers {
    state: Mutex<State>,
    idle: Notify,
    closing: Notify,
}

impl Writers {
    fn id(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Whether the caller is a write of this stack's source.
    pub(crate) fn is_in_write(&self) -> bool {
        CURRENT.try_with(|id| *id == self.id()).unwrap_or(false)
    }

    /// Runs a write so that what it calls knows.
    pub(crate) async fn run<F: Future>(&self, write: F) -> F::Output {
        CURRENT.scope(self.id(), write).await
    }

    /// Tells those who wait for [`Writers::closing`], and waits until nothing is under way. The stack refuses new
    /// writes by then.
    pub(crate) async fn drained(&self) {
        self.closing.notify_waiters();
        loop {
            let idle = self.idle.notified();
            if self.state.lock().seats == 0 {
                return;
            }
            idle.await;
        }
    }

    /// How many keys are being written.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn keys(&self) -> usize {
        self.state.lock().by_key.len()
    }
}

/// A place among what is under way: the stack does not close before it is given back.
pub(crate) struct WriteSeat {
    core: Arc<Core>,
}

impl WriteSeat {
    /// # Errors
    /// [`ErrorKind::Overloaded`] beyond [`SOURCE_WRITES_MAX`], [`ErrorKind::Closed`].
    pub(crate) fn take(core: &Arc<Core>) -> Result<Self> {
        {
            let mut state = core.writers.state.lock();
            if state.seats >= SOURCE_WRITES_MAX {
                let message = format!(
                    "more than {SOURCE_WRITES_MAX} writes of the source and deletes after them are under way \
                     in stack {:?}; nothing was written",
                    core.name
                );
                return Err(Error::new(ErrorKind::Overloaded, message));
            }
            state.seats += 1;
        }
        let seat = Self { core: Arc::clone(core) };
        // Looked at after the seat was taken: either this fails, or closing waits for it.
        core.check_open_to_loads()?;
        Ok(seat)
    }

    /// Ends when the stack is being closed.
    pub(crate) async fn closing(&self) {
        let closing = self.core.writers.closing.notified();
        if self.core.check_open_to_loads().is_ok() {
            closing.await;
        }
    }
}

impl Drop for WriteSeat {
    fn drop(&mut self) {
        let mut state = self.core.writers.state.lock();
        state.seats -= 1;
        if state.seats == 0 {
            self.core.writers.idle.notify_waiters();
        }
    }
}

/// A write of the source of one key, under way until this is dropped.
pub(crate) struct Writing {
    seat: WriteSeat,
    name: (u32, Box<str>),
}

impl Writing {
    /// # Errors
    /// As [`WriteSeat::take`].
    pub(crate) fn begin(core: &Arc<Core>, space: &Space, key: &str) -> Result<Self> {
        let seat = WriteSeat::take(core)?;
        let name = (space.id, Box::<str>::from(key));
        let mut state = core.writers.state.lock();
        let overlap = state.by_key.entry(name.clone()).or_default();
        overlap.writers += 1;
        overlap.is_contended |= overlap.writers > 1;
        drop(state);
        Ok(Self { seat, name })
    }

    /// Whether another write of the key has been under way at the same time.
    pub(crate) fn is_contended(&self) -> bool {
        let state = self.seat.core.writers.state.lock();
        state.by_key.get(&self.name).is_some_and(|overlap| overlap.is_contended)
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let mut state = self.seat.core.writers.state.lock();
        if let Some(overlap) = state.by_key.get_mut(&self.name) {
            overlap.writers -= 1;
            if overlap.writers == 0 {
                state.by_key.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::memory::MemoryOptions;
    use crate::stack::Stack;
    use crate::time::seconds;

    #[tokio::test]
    async fn no_seat_is_taken_once_the_stack_is_being_closed() {
        let stack = Stack::builder("test").memory(MemoryOptions::new(10)).build().unwrap();
        let seat = WriteSeat::take(&stack.core).unwrap();
        let closing = stack.close();
        assert!(
            futures_util::FutureExt::now_or_never(closing).is_none(),
            "it waits for the one that is taken"
        );
        assert_eq!(WriteSeat::take(&stack.core).err().map(|error| error.kind()), Some(ErrorKind::Closed));
        seat.closing().await;
        drop(seat);
        stack.close().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn beyond_the_limit_the_source_is_not_written() {
        let stack = Stack::builder("test").memory(MemoryOptions::new(10)).build().unwrap();
        let numbers = stack.memory_cache::<u32>().unwrap();
        let written = numbers
            .read_through(|_| async { Ok::<_, io::Error>(None::<u32>) })
            .write_invalidate(|_, _: Arc<u32>| async { Ok::<_, io::Error>(()) })
            .delete_again_after(seconds(1));
        // One seat for the write and one for the delete that is to follow.
        let mut seats: Vec<_> =
            (1..SOURCE_WRITES_MAX).map(|_| WriteSeat::take(&stack.core).unwrap()).collect();
        let error =
            written.change("a", || async { Err::<(), _>(io::Error::other("it ran")) }).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Overloaded);
        assert!(error.message().contains("nothing was written"), "{error}");
        assert_eq!((written.pending_deletes(), stack.core.writers.keys()), (0, 0));
        seats.pop();
        written.set("a", 1).await.unwrap();
        written.flush().await.unwrap();
        drop(seats);
        assert_eq!(stack.core.writers.state.lock().seats, 0);
        stack.close().await.unwrap();
    }
}
