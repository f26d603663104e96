//! What `tokio` stands for in the races: the same names, on the checker's tasks.
//!
//! - Tasks are the checker's, each with a stack of its own, and may lose the processor at every lock, wake-up and
//!   wait.
//! - [`sync`] is tokio's own, with a place around each operation of [`sync::Notify`] where the scheduler may switch.
//! - Time stands still. Short timers fire at any moment; all others never, so that a task that nobody wakes is a
//!   deadlock and not a timeout.
//!
//! What the library names and no race runs (runtimes of its own, `join!`) is tokio's.

pub mod runtime;
pub mod sync;
pub mod task;
pub mod time;

pub use task::spawn;
pub use tokio::{join, pin};

#[doc(hidden)]
pub use tokio as real;

/// As `tokio::select!`, in the order in which the branches stand: chance belongs to the scheduler, which can
/// repeat it.
#[macro_export]
macro_rules! select {
    ($($branches:tt)*) => { $crate::real::select! { biased; $($branches)* } };
}

/// As `tokio::task_local!`, for one of the checker's tasks.
#[macro_export]
macro_rules! task_local {
    ($(#[$attribute:meta])* $visibility:vis static $name:ident: $type:ty;) => {
        $(#[$attribute])*
        $visibility static $name: $crate::task::LocalKey<$type> = {
            $crate::task::slot! { static SLOT: ::std::cell::RefCell<Option<$type>> = ::std::cell::RefCell::new(None) }
            $crate::task::LocalKey::new(&SLOT)
        };
    };
}
