//! The word to stop, as everybody hears it who serves. Knows nothing of what they do then.

use tokio::sync::watch;

/// Says it. Dropped unsaid, it never comes.
#[derive(Debug)]
pub(crate) struct Stop(watch::Sender<bool>);

/// Hears it: no new work, and what runs is finished.
#[derive(Debug, Clone)]
pub(crate) struct Shutdown(watch::Receiver<bool>);

/// One to say it, and one to hear it.
pub(crate) fn shutdown() -> (Stop, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (Stop(sender), Shutdown(receiver))
}

impl Stop {
    pub(crate) fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Whether it was said.
    pub(crate) fn is_on(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is said.
    pub(crate) async fn wait(mut self) {
        if self.0.wait_for(|is_on| *is_on).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
