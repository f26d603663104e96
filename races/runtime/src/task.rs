//! Tasks, and what belongs to one.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

pub use shuttle::future::{JoinError, JoinHandle, spawn, yield_now};
#[doc(hidden)]
pub use shuttle::thread_local as slot;

/// A value that a task has while it runs a certain future: see [`crate::task_local`].
pub struct LocalKey<T: 'static>(&'static shuttle::thread::LocalKey<RefCell<Option<T>>>);

/// The value is not there.
#[derive(Debug)]
pub struct AccessError(());

impl<T: 'static> LocalKey<T> {
    #[doc(hidden)]
    pub const fn new(slot: &'static shuttle::thread::LocalKey<RefCell<Option<T>>>) -> Self {
        Self(slot)
    }

    /// Runs a future that finds this value.
    pub fn scope<F: Future>(&'static self, value: T, future: F) -> Scope<T, F> {
        Scope { key: self, value: Some(value), future: Box::pin(future) }
    }

    /// Runs a closure that finds this value.
    pub fn sync_scope<R>(&'static self, value: T, run: impl FnOnce() -> R) -> R {
        let mut value = Some(value);
        self.swap(&mut value);
        let done = run();
        self.swap(&mut value);
        done
    }

    /// Shows the value, if there is one.
    ///
    /// # Errors
    /// Outside of [`LocalKey::scope`].
    pub fn try_with<R>(&'static self, show: impl FnOnce(&T) -> R) -> Result<R, AccessError> {
        self.0.with(|slot| slot.borrow().as_ref().map(show)).ok_or(AccessError(()))
    }

    fn swap(&'static self, value: &mut Option<T>) {
        self.0.with(|slot| std::mem::swap(&mut *slot.borrow_mut(), value));
    }
}

impl<T: 'static> fmt::Debug for LocalKey<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalKey").finish_non_exhaustive()
    }
}

/// A future and the value that it finds.
pub struct Scope<T: 'static, F> {
    key: &'static LocalKey<T>,
    value: Option<T>,
    future: Pin<Box<F>>,
}

// Nothing in it is pinned: the future is in a box of its own.
impl<T, F> Unpin for Scope<T, F> {}

impl<T: 'static, F: Future> Future for Scope<T, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        this.key.swap(&mut this.value);
        // A loader that panics is caught inside of the scope, so the value always comes back.
        let polled = this.future.as_mut().poll(ctx);
        this.key.swap(&mut this.value);
        polled
    }
}

impl<T: 'static, F> fmt::Debug for Scope<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").finish_non_exhaustive()
    }
}
