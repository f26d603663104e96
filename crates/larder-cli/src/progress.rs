//! A sign of life on standard error for what takes longer than a second, if somebody watches.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::output::is_terminal;

/// How long nothing is shown.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often what is shown moves.
const TICK: Duration = Duration::from_millis(100);

/// Shows that something goes on, once it has gone on for long enough.
#[derive(Debug)]
pub(crate) struct Progress {
    what: String,
    bar: Option<ProgressBar>,
}

/// What was shown of work that was dropped goes with it.
impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Progress {
    /// Says `what` goes on. Nothing is shown unless standard error is a terminal.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        let bar = is_terminal(io::stderr()).then(ProgressBar::hidden);
        Self { what: what.into(), bar }
    }

    /// So much is there to do in all, so that what is left can be seen.
    pub(crate) fn of(self, total: u64) -> Self {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
        }
        self
    }

    /// One more is done.
    pub(crate) fn advance(&self) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    /// Waits for some work, and shows it if it takes long. Dropping this drops the work.
    pub(crate) async fn watch<T>(&self, work: impl Future<Output = T>) -> T {
        let Some(bar) = &self.bar else { return work.await };
        let mut work = pin!(work);
        if let Ok(done) = tokio::time::timeout(PATIENCE, &mut work).await {
            return done;
        }
        let template = match bar.length() {
            Some(_) => "{spinner} {msg}: {human_pos} of {human_len} {wide_bar} {eta}",
            None => "{spinner} {msg}: {human_pos} ({elapsed})",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(self.what.clone());
        bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
        bar.enable_steady_tick(TICK);
        let done = work.await;
        bar.finish_and_clear();
        done
    }
}
