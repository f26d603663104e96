//! tokio's own, which need no runtime. What they do is one step to the scheduler, so `Notify` says where it may
//! switch.

use shuttle::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::futures::Notified;

pub use tokio::sync::{Mutex, MutexGuard, oneshot, watch};

/// tokio's, with a switch before and after each operation.
#[derive(Debug, Default)]
pub struct Notify {
    inner: tokio::sync::Notify,
    switch: Switch,
}

impl Notify {
    /// One that nobody waits at.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers for the next [`Notify::notify_waiters`], from now on.
    pub fn notified(&self) -> Notified<'_> {
        self.switch.here();
        let notified = self.inner.notified();
        self.switch.here();
        notified
    }

    /// Wakes one, or the next one to come.
    pub fn notify_one(&self) {
        self.switch.here();
        self.inner.notify_one();
        self.switch.here();
    }

    /// Wakes all who are registered.
    pub fn notify_waiters(&self) {
        self.switch.here();
        self.inner.notify_waiters();
        self.switch.here();
    }
}

/// A place where the scheduler may run another task.
#[derive(Debug, Default)]
struct Switch(AtomicBool);

impl Switch {
    fn here(&self) {
        self.0.load(Ordering::SeqCst);
    }
}
