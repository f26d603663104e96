//! Timers without time: short ones fire at any moment, all others never.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use shuttle::rand::Rng as _;

pub use tokio::time::{Instant, advance};

/// Timers up to this long fire at any moment, longer ones never.
const SHORT: Duration = Duration::from_millis(100);

/// Ends at any moment, or never.
pub async fn sleep(duration: Duration) {
    let may_fire = !duration.is_zero() && duration <= SHORT;
    poll_fn(|ctx| {
        if duration.is_zero() || (may_fire && shuttle::rand::thread_rng().gen_bool(0.25)) {
            return Poll::Ready(());
        }
        if may_fire {
            ctx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await;
}

/// Ends with the future, or at any moment before.
///
/// # Errors
/// At that moment.
pub async fn timeout<F: Future>(after: Duration, future: F) -> Result<F::Output, Elapsed> {
    let (mut future, mut timer) = (pin!(future), pin!(sleep(after)));
    poll_fn(|ctx| match future.as_mut().poll(ctx) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending => timer.as_mut().poll(ctx).map(|()| Err(Elapsed(()))),
    })
    .await
}

/// Where tokio has it.
pub mod error {
    pub use super::Elapsed;
}

/// The future took too long.
#[derive(Debug)]
pub struct Elapsed(());

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the time is over")
    }
}

impl std::error::Error for Elapsed {}
