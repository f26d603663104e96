//! What happens when nothing fresh is kept: who runs the command, who waits for it and for how long, and what is
//! printed if that takes too long or fails.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Sleep;

use super::{Kept, Runner, check_recursion, replay, warn};
use crate::args::units::words;
use crate::capture::{Ending, Recording};
use crate::failure::{Failure, Outcome, TIMED_OUT};
use crate::lock::{self, Attempt, Waiting};

/// Who holds the key that is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    /// A process that this one has started.
    Ours,
    /// Somebody who was there before.
    Another,
}

/// How waiting ended.
enum Waited {
    /// The time is up.
    TooLong,
    /// The holder is done, or has given up.
    Done(io::Result<Option<Bytes>>),
}

impl Runner<'_> {
    /// Gets the output anew; or prints the stale one, at once, after a while, or because the command failed.
    pub(super) fn renew(&self, stale: Option<Kept>) -> Outcome {
        let hard = self.args.hard_timeout;
        let patience = match &stale {
            Some(_) => Some(self.args.soft_timeout.unwrap_or_default().min(hard.unwrap_or(Duration::MAX))),
            None => hard,
        };
        let Some(folder) = &self.args.locks else {
            if patience.is_some() {
                warn(format_args!("there is no cache folder for locks, so the command is waited for"));
            }
            return self.execute(None);
        };
        let name = self.lock_name();
        check_recursion(&name)?;
        match patience {
            Some(patience) => self.hand_over(folder, &name, stale, patience),
            None => self.join(folder, &name),
        }
    }

    /// Whether a fresh output is old enough to be renewed.
    pub(super) fn is_due(&self, kept: &Kept) -> bool {
        let Some(share) = self.args.refresh_early else { return false };
        let life = kept.ttl_left.map_or(Duration::MAX, |left| kept.age.saturating_add(left));
        let life = self.args.age_max.map_or(life, |age_max| age_max.min(life));
        life != Duration::MAX && kept.age >= life.mul_f64(share)
    }

    /// Has the command run in the background, unless somebody runs it already.
    pub(super) fn refresh_behind(&self) {
        let Some(folder) = &self.args.locks else { return };
        let still_due = || self.look_fresh().filter(|kept| !self.is_due(kept));
        let started = lock::attempt(folder, &self.lock_name(), still_due).and_then(|attempt| match attempt {
            Attempt::Held(guard) => guard.hand_over(|lock| self.detach(lock)).map(|_| true),
            Attempt::Busy(_) | Attempt::Found(_) => Ok(false),
        });
        match started {
            Ok(true) => self.say(format_args!("refreshed in the background")),
            Ok(false) => {}
            Err(error) => warn(format_args!("cannot refresh in the background: {error}")),
        }
    }

    /// Has the command run by a process of its own, and waits for it for as long as patience lasts.
    fn hand_over(&self, folder: &Path, name: &str, stale: Option<Kept>, patience: Duration) -> Outcome {
        let mut end = {
            let _inside = self.runtime.enter();
            Box::pin(tokio::time::sleep(patience))
        };
        loop {
            let attempt = lock::attempt(folder, name, || self.look_fresh());
            let queued = attempt.and_then(|attempt| match attempt {
                Attempt::Held(guard) => {
                    let waiting = guard.hand_over(|lock| self.detach(lock))?;
                    Ok(Ok((Holder::Ours, waiting)))
                }
                Attempt::Busy(waiting) => Ok(Ok((Holder::Another, waiting))),
                Attempt::Found(kept) => Ok(Err(kept)),
            });
            let (holder, waiting) = match queued {
                Ok(Ok(queued)) => queued,
                Ok(Err(fresh)) => return self.replay_kept(&fresh),
                Err(error) => {
                    warn(format_args!("cannot run in the background: {error}"));
                    return stale.map_or_else(|| self.execute(None), |stale| self.replay_kept(&stale));
                }
            };
            self.tell(match holder {
                Holder::Ours => format_args!("the command runs in a process of its own"),
                Holder::Another => format_args!("another invocation runs the command already"),
            });
            if patience.is_zero() {
                return self.out_of_patience(stale, patience);
            }
            match self.wait(waiting, &mut end) {
                Waited::TooLong => return self.out_of_patience(stale, patience),
                Waited::Done(Ok(Some(outcome))) => return self.print(outcome, stale),
                // It was interrupted, or killed: the next one takes over.
                Waited::Done(Ok(None)) if holder == Holder::Another => {}
                Waited::Done(Ok(None)) => return instead(self, stale, "the command was cut short"),
                Waited::Done(Err(error)) => {
                    return instead(self, stale, &format!("cannot wait for the command: {error}"));
                }
            }
        }
    }

    /// Waits in a thread of its own, which ends with this process at the latest.
    fn wait(&self, waiting: Waiting, end: &mut Pin<Box<Sleep>>) -> Waited {
        let (tell, told) = oneshot::channel();
        let waiter = thread::Builder::new().spawn(move || {
            let _ = tell.send(waiting.outcome());
        });
        if let Err(error) = waiter {
            return Waited::Done(Err(error));
        }
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                outcome = told => {
                    Waited::Done(outcome.unwrap_or_else(|_| Err(io::Error::other("the thread has died"))))
                }
                () = end => Waited::TooLong,
            }
        })
    }

    fn out_of_patience(&self, stale: Option<Kept>, patience: Duration) -> Outcome {
        let option = if stale.is_some() { "--soft-timeout" } else { "--hard-timeout" };
        match patience.is_zero() {
            true => self.tell(format_args!("it is not waited for, as there is no {option}")),
            false => self.tell(format_args!("it was waited for {}, which is {option}", words(patience))),
        }
        match stale {
            Some(stale) => {
                self.say(format_args!("{}, refreshed in the background", stale.words()));
                replay(&stale.recording)
            }
            None => Err(Failure::Message {
                status: TIMED_OUT,
                text: format!("no output within {}: the command goes on in the background", words(patience)),
            }),
        }
    }

    /// Prints what a run came to; what is stale, if the run failed.
    fn print(&self, outcome: Bytes, stale: Option<Kept>) -> Outcome {
        let Some(recording) = Recording::decode(outcome, self.args.identity.whole()) else {
            // Another key with the same hash: never seen, and not worth more than this.
            return instead(self, stale, "the lock was held for another command");
        };
        match recording.ending {
            Ending::TooLarge => instead(
                self,
                stale,
                "the output is larger than --max-output, too large to be passed on by a run with a timeout",
            ),
            Ending::Exit(0) => self.print_run(&recording),
            Ending::Exit(_) if self.args.keep_failures => self.print_run(&recording),
            Ending::Exit(_) | Ending::Signal(_) => match stale {
                Some(stale) => {
                    let (words, status) = (stale.words(), recording.ending.status());
                    self.say(format_args!("{words}, because the command failed with status {status}"));
                    replay(&stale.recording)
                }
                None => self.print_run(&recording),
            },
        }
    }

    fn print_run(&self, recording: &Recording) -> Outcome {
        self.say(format_args!("miss"));
        replay(recording)
    }
}

/// What is stale, or else why there is nothing.
fn instead(runner: &Runner<'_>, stale: Option<Kept>, why: &str) -> Outcome {
    match stale {
        Some(stale) => {
            runner.say(format_args!("{}, because {why}", stale.words()));
            replay(&stale.recording)
        }
        None => Err(Failure::run(why)),
    }
}
