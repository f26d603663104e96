//! Writes that the store did not take: they are remembered, lookups heed them, and the store gets them when it
//! answers again, unless something newer is there by then.
//!
//! Being remembered is not being stored: other processes see what was there before, and a crash forgets. So an
//! explicit write that failed returns its error all the same.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::Handle;

use crate::driver::{When, Write, Written};
use crate::entry::Freshness;
use crate::entry::wire::{self, Record};
use crate::error::{Error, Result};
use crate::event::{DropCause, Event, Fate, Subject};
use crate::stack::breaker::Breaker;
use crate::stack::l2::L2;
use crate::stack::retry::{Pending, Queued, Retry, What};
use crate::stack::verdict::Mark;
use crate::stack::{Core, Space};
use crate::time::{Stamp, Timestamp};

/// How many writes are tried again in one batch.
const BATCH: usize = 100;

/// A write that the store did not take.
pub(crate) struct Lost<'a> {
    pub(crate) space: &'a Space,
    /// The user's key, or the tag; empty for a clear.
    pub(crate) name: &'a str,
    pub(crate) full: &'a str,
    pub(crate) stamp: Stamp,
    /// How long ago its stamp was taken, at most.
    pub(crate) age: Duration,
    pub(crate) is_load: bool,
    pub(crate) what: What,
}

/// A remembered write as it can be written now.
struct Again {
    queued: Queued,
    write: Write,
    /// Its value may not be brought back any more; what it replaced has to go all the same.
    is_late: bool,
}

impl Core {
    /// Remembers a write that failed with this error, if that may pass. It has to be remembered before memory
    /// follows, so that no lookup that starts after that finds in the store what was there before.
    pub(crate) fn retry_later(&self, lost: Lost<'_>, error: &Error) {
        let Some(retry) = &self.retry else { return };
        if !error.kind().is_transient() || self.check_open().is_err() {
            return;
        }
        let Lost { space, name, full, stamp, age, is_load, what } = lost;
        let began = self.clock.monotonic().saturating_sub(age);
        let pending = Pending { namespace: space.id, name: name.into(), stamp, began, is_load, what };
        self.report(&pending, Fate::Remembered);
        let remembered = retry.remember(full, pending);
        if let Some(replaced) = &remembered.replaced {
            self.report(replaced, Fate::Yielded);
        }
        let cause = if self.check_open().is_err() { DropCause::Closed } else { DropCause::Full };
        remembered.dropped.iter().for_each(|dropped| self.report(dropped, Fate::Dropped(cause)));
        if remembered.needs_keeper {
            self.keep_trying(retry);
        }
    }

    fn report(&self, pending: &Pending, fate: Fate) {
        let space = self.spaces.by_id(pending.namespace);
        let namespace = space.as_ref().map_or("", |space| space.keys.path());
        let write = match &pending.what {
            What::Entry { .. } | What::Tombstone => Subject::Key(&pending.name),
            What::Tag(_) => Subject::Tag(&pending.name),
            What::Clear(_) => Subject::All,
        };
        self.emit(&Event::FailedWrite { namespace, write, fate });
    }

    /// What is remembered of a key. To be asked before the store is: what is written again meanwhile is then
    /// found in one of the two.
    pub(crate) fn pending(&self, full: &str) -> Option<(Stamp, What)> {
        self.retry.as_ref()?.find(full)
    }

    /// Whether a remembered delete hides what the store has with this stamp.
    pub(crate) fn is_hidden(&self, full: &str, stamp: Stamp) -> bool {
        matches!(self.pending(full), Some((deleted, What::Tombstone)) if deleted > stamp)
    }

    /// Forgets what is remembered of a key, because the store took a newer write.
    pub(crate) fn overtake(&self, full: &str, stamp: Stamp) {
        if let Some(overtaken) = self.retry.as_ref().and_then(|retry| retry.overtake(full, stamp)) {
            self.report(&overtaken, Fate::Yielded);
        }
    }

    /// The breaker has closed: the store gets what it did not take as soon as possible.
    pub(crate) fn hurry_retries(&self) {
        if let Some(retry) = &self.retry {
            retry.hurried.notify_one();
        }
    }

    /// Starts the task that tries again, until nothing is left to try.
    fn keep_trying(&self, retry: &Retry) {
        let Ok(runtime) = Handle::try_current() else {
            retry.lose_keeper();
            return;
        };
        let keeper = Keeper { core: self.this.clone(), is_done: false };
        let interval = retry.options.interval;
        let hurried = Arc::clone(&retry.hurried);
        runtime.spawn(async move {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(interval) => {}
                    () = hurried.notified() => {}
                }
                // While nothing is tried, this task keeps no stack alive.
                let Some(core) = keeper.core.upgrade() else { return };
                // A failure has been reported; there is a next time.
                let _ = core.drain().await;
                if core.retry.as_ref().is_none_or(Retry::rest) {
                    keeper.let_go();
                    return;
                }
            }
        });
    }

    /// Tries what is remembered, in order, until nothing is left or the store fails.
    ///
    /// # Errors
    /// The store's. Dropped half-way, what was not tried is still remembered.
    pub(crate) async fn drain(&self) -> Result<()> {
        let (Some(l2), Some(retry)) = (&self.l2, &self.retry) else { return Ok(()) };
        let _alone = retry.draining.lock().await;
        loop {
            let batch = retry.first(BATCH);
            let Some(first) = batch.first() else { return Ok(()) };
            match first.pending.what {
                What::Clear(mark) | What::Tag(mark) => self.mark_again(l2, retry, first, mark).await?,
                What::Entry { .. } | What::Tombstone => self.try_again(l2, retry, batch).await?,
            }
        }
    }

    async fn try_again(&self, l2: &L2, retry: &Retry, batch: Vec<Queued>) -> Result<()> {
        let now = self.clock.now();
        let mut tried = Vec::with_capacity(batch.len());
        for queued in batch {
            match self.again(queued, now) {
                Ok(again) => tried.push(again),
                Err(late) => self.settle(retry, &late, Fate::Dropped(DropCause::Late)),
            }
        }
        match self.write_again(l2, retry, &tried, now).await {
            // One of them may be what the store does not want; which, only trying each tells.
            Err(error) if !error.kind().is_transient() => {
                for again in &tried {
                    let alone = std::slice::from_ref(again);
                    match self.write_again(l2, retry, alone, now).await {
                        Err(error) if !error.kind().is_transient() => {
                            self.settle(retry, &again.queued, Fate::Dropped(DropCause::Refused));
                        }
                        outcome => outcome?,
                    }
                }
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// How a remembered write is to be written now; as an error, one that is of no use any more.
    ///
    /// A value whose time is over, or that a clear or a tag has reached, is not written. Nor is one after so long
    /// that the tombstone of another process, which would refuse it, may have gone. But what it replaced may
    /// still be in the store, so a tombstone is written in its place; what was only loaded replaced nothing that
    /// lives.
    fn again(&self, queued: Queued, now: Timestamp) -> std::result::Result<Again, Queued> {
        let Pending { stamp, is_load, .. } = queued.pending;
        let value = match &queued.pending.what {
            What::Entry { record } => self.living(&queued, record, now).map(|ttl| (record.clone(), ttl)),
            _ => None,
        };
        let is_late = value.is_none() && matches!(queued.pending.what, What::Entry { .. });
        if is_late && is_load {
            return Err(queued);
        }
        let (value, ttl) = value.unwrap_or_else(|| {
            (wire::encode_tombstone(stamp, now + self.tombstone_ttl), Some(self.tombstone_ttl))
        });
        let write = Write { key: queued.full.to_string(), value, ttl, when: When::Newer };
        Ok(Again { queued, write, is_late })
    }

    /// How long the store has to keep a remembered value, if it may still be brought there.
    fn living(&self, queued: &Queued, record: &bytes::Bytes, now: Timestamp) -> Option<Option<Duration>> {
        let Ok(Record::Entry(entry)) = wire::decode(&queued.full, record) else { return None };
        if self.clock.monotonic().saturating_sub(queued.pending.began) > self.load_max {
            return None;
        }
        let space = self.spaces.by_id(queued.pending.namespace)?;
        (self.standing(&space, &entry.meta, now) != Freshness::Expired).then(|| entry.meta.life_left(now))
    }

    async fn write_again(&self, l2: &L2, retry: &Retry, tried: &[Again], now: Timestamp) -> Result<()> {
        let writes = tried.iter().map(|again| again.write.clone()).collect();
        let written = l2.write_again(self, writes).await?;
        for (Again { queued, is_late, .. }, written) in tried.iter().zip(written) {
            let Pending { namespace, ref name, stamp, ref what, .. } = queued.pending;
            // What it was refused by, unless that is itself: a call that fails may have landed all the same.
            let newer = match written {
                Written::Refused { by } if by != Some(stamp) => Some(by.unwrap_or(Stamp::ZERO)),
                _ => None,
            };
            let is_gone = *is_late || matches!(what, What::Tombstone);
            let gone_until = match newer {
                Some(newer) => self.clock.observe(newer, now).then_some(newer),
                None => is_gone.then_some(stamp),
            };
            if let (Some(stamp), Some(space)) = (gone_until, self.spaces.by_id(namespace)) {
                self.hear_of_newer(&space, name, stamp);
            }
            let fate = match (newer, is_late) {
                (Some(_), _) => Fate::Yielded,
                (None, true) => Fate::Dropped(DropCause::Late),
                (None, false) => Fate::Landed,
            };
            self.settle(retry, queued, fate);
        }
        Ok(())
    }

    async fn mark_again(&self, l2: &L2, retry: &Retry, queued: &Queued, mark: Mark) -> Result<()> {
        let now = self.clock.now();
        let mut outcome = self.raise_mark(l2, &queued.full, mark, now).await;
        if let (Ok(_), What::Tag(_)) = (&outcome, &queued.pending.what) {
            let newest = Mark { hard: mark.newest(), soft: mark.newest() };
            let all = self.raise_mark(l2, &self.spaces.tags_key, newest, now).await;
            if all.is_ok() {
                self.spaces.raise_newest_tag(newest.newest());
            }
            outcome = outcome.and_then(|landed| all.map(|_| landed));
        }
        let fate = match outcome {
            Ok(true) => Fate::Landed,
            Ok(false) => Fate::Yielded,
            Err(error) if error.kind().is_transient() => return Err(error),
            Err(_) => Fate::Dropped(DropCause::Refused),
        };
        self.settle(retry, queued, fate);
        Ok(())
    }

    fn settle(&self, retry: &Retry, queued: &Queued, fate: Fate) {
        // One that another has taken the place of was reported then.
        if retry.settle(queued.place) {
            self.report(&queued.pending, fate);
        }
    }

    /// Tries for the last time, within the deadline of one call, and gives up what is left then.
    pub(crate) async fn finish_retries(&self) {
        let (Some(l2), Some(retry)) = (&self.l2, &self.retry) else { return };
        if retry.len() > 0 {
            // An open breaker does not keep the last try out.
            l2.breaker.iter().for_each(Breaker::hurry);
            // Whether it fails or takes too long, what is left is reported one by one.
            let _ = tokio::time::timeout(l2.deadline, self.drain()).await;
        }
        for left in retry.give_up() {
            self.report(&left, Fate::Dropped(DropCause::Closed));
        }
    }
}

/// Who looks after the queue. However its task ends, another one can be started.
struct Keeper {
    core: Weak<Core>,
    /// It has been let go, and another one may be at work by now.
    is_done: bool,
}

impl Keeper {
    /// Ends without anything to say: the queue knows already.
    fn let_go(mut self) {
        self.is_done = true;
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if !self.is_done
            && let Some(core) = self.core.upgrade()
            && let Some(retry) = &core.retry
        {
            retry.lose_keeper();
        }
    }
}
