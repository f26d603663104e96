//! The one place that calls a driver: deadlines, the breaker, reports of failures, marks, damage and healing
//! exist here, once.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt as _, TryStreamExt as _};

use crate::driver::{Driver, Scanned, When, Write, Written};
use crate::entry::wire::{self, Damage, Record};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::explain::Fact;
use crate::stack::breaker::{Breaker, Health, Turned};
use crate::stack::space::Space;
use crate::stack::stored::{Stored, Understood, is_timely};
use crate::stack::verdict::Mark;
use crate::stack::{Core, span};
use crate::stats::Timed;
use crate::tag::Tag;
use crate::time::{Stamp, Timestamp, is_plausible};

/// How long one call of a driver may take, unless the builder says otherwise.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(2);
/// How often an explicit write is tried again when something newer is in its way each time.
const WRITE_TRIES_MAX: u32 = 1_000;

/// The second tier: a driver and how long to wait for it.
#[derive(Debug)]
pub(crate) struct L2 {
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) ownership: Ownership,
    pub(crate) deadline: Duration,
    pub(crate) breaker: Option<Breaker>,
}

/// Who closes a driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ownership {
    /// The stack, when it is closed.
    Owned,
    /// Whoever passed it in.
    Borrowed,
}

/// A write that its caller insists on: see [`L2::insist`].
pub(crate) struct Insist<'a> {
    pub(crate) operation: &'static str,
    pub(crate) full: &'a str,
    pub(crate) ttl: Option<Duration>,
    /// The stamp to begin with.
    pub(crate) stamp: Stamp,
}

/// How the failure of a call is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnFailure {
    /// The caller gets the error.
    Return,
    /// The caller is spared the error and goes on without the store.
    Suppress,
}

impl L2 {
    /// Calls the driver within the deadline if its breaker allows it, and reports a failure.
    pub(crate) async fn call<T>(
        &self,
        core: &Core,
        operation: &'static str,
        on_failure: OnFailure,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        if let Err(error) = tokio::runtime::Handle::try_current() {
            // A deadline without a runtime would be a panic.
            let what = format!("{operation} on the {} store needs a tokio runtime", self.driver.name());
            let error = Error::from_source(ErrorKind::Unsupported, what, error);
            core.l2_failed(operation, &error, on_failure);
            return Err(error);
        }
        let pass = match &self.breaker {
            None => None,
            Some(breaker) => match breaker.admit(core.clock.monotonic()) {
                Ok(pass) => Some(pass),
                Err(refused) => {
                    let suppressed = on_failure == OnFailure::Suppress;
                    core.emit(&Event::L2Refused { operation, suppressed });
                    core.note_all(|| Fact::Refused {
                        driver: self.driver.name().to_owned(),
                        operation: operation.to_owned(),
                        left: refused.left(),
                    });
                    return Err(refused.error());
                }
            },
        };
        let started = core.clock.monotonic();
        let call = span::of_store(core, self.driver.name(), operation, call);
        let outcome = match tokio::time::timeout(self.deadline, call).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::new(
                ErrorKind::Timeout,
                format!(
                    "{operation} on the {} store took longer than {:?}",
                    self.driver.name(),
                    self.deadline
                ),
            )),
        };
        let took = core.clock.monotonic().saturating_sub(started);
        core.stats.time(Timed::of_store(operation), took);
        core.note_all(|| Fact::Called {
            driver: self.driver.name().to_owned(),
            operation: operation.to_owned(),
            took,
            error: outcome.as_ref().err().map(ToString::to_string),
        });
        let outcome = outcome.inspect_err(|error| core.l2_failed(operation, error, on_failure));
        match pass.and_then(|pass| pass.settle(health(&outcome), core.clock.monotonic())) {
            Some(Turned::Opened(pause)) => core.emit(&Event::BreakerOpened { pause }),
            Some(Turned::Closed) => {
                core.emit(&Event::BreakerClosed);
                core.hurry_retries();
            }
            None => {}
        }
        outcome
    }

    /// Reads several keys of one namespace, and the marks that reach them: clears in the same batch, tags in
    /// one more, if any was invalidated since an entry that carries some was born. A write that the store did
    /// not take and that is newer than what the store has is found in its place.
    pub(crate) async fn read(
        &self,
        core: &Core,
        space: &Space,
        keys: &[&str],
        now: Timestamp,
        on_failure: OnFailure,
    ) -> Result<Vec<Stored>> {
        let found = self.read_to_swap(core, space, keys, now, on_failure).await?;
        Ok(found.into_iter().map(|(stored, _)| stored).collect())
    }

    /// As [`L2::read`], with what a compare-and-swap has to expect of each key.
    async fn read_to_swap(
        &self,
        core: &Core,
        space: &Space,
        keys: &[&str],
        now: Timestamp,
        on_failure: OnFailure,
    ) -> Result<Vec<(Stored, Option<Stamp>)>> {
        let full = keys.iter().map(|key| space.keys.full(key)).collect::<Result<Vec<_>>>()?;
        let pending: Vec<_> = full.iter().map(|full| core.pending(full)).collect();
        let mut found = match self.read_stored(core, space, keys, &full, now, on_failure).await {
            Ok(found) => found,
            Err(_) if on_failure == OnFailure::Suppress && pending.iter().any(Option::is_some) => {
                full.iter().map(|_| Understood::Nothing { stamp: None }).collect()
            }
            Err(error) => return Err(error),
        };
        let expected: Vec<_> = found.iter().map(Understood::stamp).collect();
        let mut is_heeded = false;
        let known = found.iter_mut().zip(&expected).zip(pending).zip(&full);
        for ((((found, expected), pending), full), key) in known.zip(keys) {
            if let Some((stamp, what)) = pending.filter(|(stamp, _)| Some(*stamp) > *expected) {
                *found = Understood::pending(full, stamp, &what);
                core.note(space, key, || Fact::Heeded);
                is_heeded = true;
            }
        }
        if is_heeded {
            // They may carry tags of which this process has not heard yet; if that fails, it has the others'.
            self.hear_tags(core, space, &found, now, on_failure).await.or_else(|error| match on_failure {
                OnFailure::Suppress => Ok(()),
                OnFailure::Return => Err(error),
            })?;
        }
        let judged = found.into_iter().zip(keys).map(|(found, key)| found.judge(core, space, key, now));
        Ok(judged.zip(expected).collect())
    }

    /// What the store has under some keys, before clears and tags are asked, all of which have been heard of.
    async fn read_stored(
        &self,
        core: &Core,
        space: &Space,
        keys: &[&str],
        full: &[String],
        now: Timestamp,
        on_failure: OnFailure,
    ) -> Result<Vec<Understood>> {
        let clears: Vec<&Space> = space.chain().collect();
        let mut batch: Vec<&str> = full.iter().map(String::as_str).collect();
        batch.extend(clears.iter().map(|space| space.mark_key.as_str()));
        batch.push(&core.spaces.tags_key);
        // Which groups the keys are in is known only here. Without groups no clock is read for them.
        let started = core.stats.groups().map(|groups| (groups, core.clock.monotonic()));
        let found = self.get_many(core, &batch, on_failure).await;
        if let Some((groups, started)) = started {
            let took = core.clock.monotonic().saturating_sub(started);
            groups.time_store_read(space.keys.path(), keys, took);
        }
        let mut found = found?.into_iter();
        let entries: Vec<_> = found.by_ref().take(keys.len()).collect();
        for (space, bytes) in clears.into_iter().zip(found.by_ref()) {
            if let Some(bytes) = bytes {
                let mark = self.hear(core, &space.mark_key, &bytes, now).await;
                core.spaces.raise(space, mark);
            }
        }
        if let Some(bytes) = found.next().flatten() {
            let mark = self.hear(core, &core.spaces.tags_key, &bytes, now).await;
            core.spaces.raise_newest_tag(mark.newest());
        }
        let mut understood = Vec::with_capacity(keys.len());
        for ((key, full), bytes) in keys.iter().zip(full).zip(entries) {
            understood.push(match bytes {
                Some(bytes) => self.understand(core, space, key, full, &bytes, now).await,
                None => Understood::Nothing { stamp: None },
            });
        }
        self.hear_tags(core, space, &understood, now, on_failure).await?;
        Ok(understood)
    }

    pub(super) async fn get_many(
        &self,
        core: &Core,
        batch: &[&str],
        on_failure: OnFailure,
    ) -> Result<Vec<Option<Bytes>>> {
        let found = self.call(core, "get", on_failure, self.driver.get_many(batch)).await?;
        if found.len() == batch.len() {
            return Ok(found);
        }
        let name = self.driver.name();
        let message = format!("the {name} driver answered {} of {} keys", found.len(), batch.len());
        let error = Error::new(ErrorKind::Unavailable, message);
        core.l2_failed("get", &error, on_failure);
        Err(error)
    }

    /// Learns of the tags that entries carry, where some tag was invalidated since they were born.
    async fn hear_tags(
        &self,
        core: &Core,
        space: &Space,
        understood: &[Understood],
        now: Timestamp,
        on_failure: OnFailure,
    ) -> Result<()> {
        let mut tags: Vec<&Tag> = understood
            .iter()
            .filter_map(Understood::entry)
            .filter(|entry| core.spaces.may_be_tagged(entry.meta.born))
            .flat_map(|entry| entry.meta.tags())
            .collect();
        tags.sort_unstable();
        tags.dedup();
        if tags.is_empty() {
            return Ok(());
        }
        let places: Vec<(&Space, &Tag)> =
            space.chain().flat_map(|space| tags.iter().map(move |tag| (space, *tag))).collect();
        let keys: Vec<String> = places.iter().map(|(space, tag)| space.keys.tag_key(tag.as_str())).collect();
        let batch: Vec<&str> = keys.iter().map(String::as_str).collect();
        let found = self.get_many(core, &batch, on_failure).await?;
        for (((space, tag), key), bytes) in places.into_iter().zip(&keys).zip(found) {
            if let Some(bytes) = bytes {
                let mark = self.hear(core, key, &bytes, now).await;
                core.spaces.raise_tag(space, tag, mark);
            }
        }
        Ok(())
    }

    /// Reads one key: see [`L2::read`].
    pub(crate) async fn read_one(
        &self,
        core: &Core,
        space: &Space,
        key: &str,
        now: Timestamp,
        on_failure: OnFailure,
    ) -> Result<Stored> {
        let mut stored = self.read(core, space, &[key], now, on_failure).await?;
        Ok(stored.pop().unwrap_or(Stored::Nothing { stamp: None, deleted: false }))
    }

    /// Reads one key, to be rewritten if it still carries the stamp that is returned.
    pub(crate) async fn read_one_to_swap(
        &self,
        core: &Core,
        space: &Space,
        key: &str,
        now: Timestamp,
    ) -> Result<(Stored, Option<Stamp>)> {
        let mut found = self.read_to_swap(core, space, &[key], now, OnFailure::Return).await?;
        Ok(found.pop().unwrap_or((Stored::Nothing { stamp: None, deleted: false }, None)))
    }

    /// What a mark says. One that cannot be read counts as an invalidation now: forgetting it would bring back
    /// what it removed.
    async fn hear(&self, core: &Core, key: &str, bytes: &Bytes, now: Timestamp) -> Mark {
        let damage = match wire::decode(key, bytes) {
            Ok(Record::Mark { stamp, hard }) if core.clock.observe(stamp, now) => {
                return Mark { hard, soft: stamp };
            }
            Ok(Record::Mark { .. }) => Damage::Future,
            Ok(_) => Damage::Layout,
            Err(damage) => damage,
        };
        core.emit(&Event::Damaged { namespace: "", key, damage });
        let stamp = core.clock.tick(now);
        if damage == Damage::Future && !is_plausible(now) {
            // It is this process's clock that is wrong: the mark stays as it is for those who have the time.
            return Mark { hard: stamp, soft: stamp };
        }
        if let Ok(mark) = wire::encode_mark(key, stamp, stamp) {
            let heal = self.driver.set(key, mark, None, replace(bytes));
            // Failing to heal is reported; the mark holds in this process all the same.
            let _ = self.call(core, "heal", OnFailure::Suppress, heal).await;
        }
        Mark { hard: stamp, soft: stamp }
    }

    /// Turns stored bytes into what they are. Bytes that are not this key's record are removed.
    async fn understand(
        &self,
        core: &Core,
        space: &Space,
        key: &str,
        full: &str,
        bytes: &Bytes,
        now: Timestamp,
    ) -> Understood {
        let damage = match wire::decode(full, bytes) {
            Ok(Record::Entry(entry)) if is_timely(core, &entry.meta, now) => {
                core.clock.observe(entry.meta.stamp, now);
                return Understood::Entry(entry);
            }
            Ok(Record::Tombstone { stamp }) if core.clock.observe(stamp, now) => {
                core.hear_of_newer(space, key, stamp);
                return Understood::Nothing { stamp: Some(stamp) };
            }
            Ok(Record::Entry(_) | Record::Tombstone { .. }) => Damage::Future,
            Ok(Record::Mark { .. }) => Damage::Layout,
            Err(damage) => damage,
        };
        core.emit(&Event::Damaged { namespace: space.keys.path(), key, damage });
        let stamp = wire::stamp_of(bytes);
        if damage == Damage::Sealed && stamp.is_some_and(|stamp| core.clock.believes(stamp, now)) {
            // Somebody who has the decorator that this stack lacks still reads it.
            return Understood::Nothing { stamp };
        }
        // A tombstone from the beginning of time: it outlives no write, and is gone at once for the store.
        let tombstone = wire::encode_tombstone(Stamp::ZERO, now);
        let heal = self.driver.set(full, tombstone, Some(Duration::from_secs(1)), replace(bytes));
        match self.call(core, "heal", OnFailure::Suppress, heal).await {
            Ok(Written::Stored { .. }) => Understood::Nothing { stamp: Some(Stamp::ZERO) },
            _ => Understood::Damaged { stamp },
        }
    }

    /// The mark that is stored under a key, for a soft invalidation to add to; and what a compare-and-swap has
    /// to expect there.
    pub(crate) async fn read_mark(
        &self,
        core: &Core,
        key: &str,
        now: Timestamp,
        on_failure: OnFailure,
    ) -> Result<(Mark, Option<Stamp>)> {
        let found = self.get_many(core, &[key], on_failure).await?.pop().flatten();
        Ok(match found {
            Some(bytes) => {
                let mark = self.hear(core, key, &bytes, now).await;
                (mark, Some(mark.newest()))
            }
            None => (Mark::default(), None),
        })
    }

    /// Stores a record that its caller insists on: if something newer is there, it is stored again with a
    /// stamp above that. Returns the stamp it got, and the head of what it replaced.
    pub(crate) async fn insist(
        &self,
        core: &Core,
        insist: Insist<'_>,
        now: Timestamp,
        mut encode: impl FnMut(Stamp) -> Result<Bytes> + Send,
    ) -> Result<(Stamp, Option<Bytes>)> {
        let Insist { operation, full, ttl, mut stamp } = insist;
        for _ in 0..WRITE_TRIES_MAX {
            let write = self.driver.set(full, encode(stamp)?, ttl, When::Newer);
            match self.call(core, operation, OnFailure::Return, write).await? {
                Written::Stored { previous } => {
                    core.overtake(full, stamp);
                    return Ok((stamp, previous));
                }
                Written::Refused { by } => {
                    let by = by.unwrap_or(Stamp::ZERO);
                    if !core.clock.observe(by, now) {
                        self.remove_incredible(core, full, by).await?;
                    }
                    stamp = core.clock.tick(now);
                }
            }
        }
        Err(contended(operation))
    }

    /// Removes a record whose stamp is too far ahead to be believed, and which would otherwise refuse every
    /// write.
    async fn remove_incredible(&self, core: &Core, full: &str, stamp: Stamp) -> Result<()> {
        let tombstone = wire::encode_tombstone(Stamp::ZERO, Timestamp::ZERO);
        let heal =
            self.driver.set(full, tombstone, Some(Duration::from_secs(1)), When::Unchanged(Some(stamp)));
        self.call(core, "heal", OnFailure::Return, heal).await.map(|_| ())
    }

    /// Stores a record if what is there still carries the expected stamp; `None`: if nothing is there.
    pub(crate) async fn swap(
        &self,
        core: &Core,
        operation: &'static str,
        write: (&str, Bytes, Option<Duration>),
        expected: Option<Stamp>,
        on_failure: OnFailure,
    ) -> Result<Written> {
        let (full, record, ttl) = write;
        let swap = self.driver.set(full, record, ttl, When::Unchanged(expected));
        self.call(core, operation, on_failure, swap).await
    }

    /// Removes what is stored under a key, and leaves nothing.
    pub(crate) async fn remove(
        &self,
        core: &Core,
        operation: &'static str,
        full: &str,
        on_failure: OnFailure,
    ) -> Result<bool> {
        self.call(core, operation, on_failure, self.driver.delete(full)).await
    }

    /// Gives back the space of what a clear has reached under some prefixes, where the store can list keys. A
    /// failure is reported, not returned: what is left goes when its time is over. There is no deadline.
    ///
    /// `cleared` is the clear's hard stamp. What carries a newer one was written after it, by whatever process:
    /// an entry is alive, and a tombstone still has loads to refuse. A store compares stamps, validity compares
    /// births ([`standing`]), and a birth is never newer than its stamp: so nothing that is alive goes. What was
    /// rewritten after the clear (`touch`) stays, though it is dead by its birth, until its time is over.
    pub(crate) async fn reclaim(&self, core: &Core, prefixes: &[String], cleared: Stamp) -> u64 {
        if !self.driver.capabilities().enumerates {
            return 0;
        }
        let mut reclaimed = 0;
        for prefix in prefixes {
            match self.driver.clear(prefix, cleared).await {
                Ok(count) => reclaimed += count,
                Err(error) => core.l2_failed("clear", &error, OnFailure::Suppress),
            }
        }
        reclaimed
    }

    /// Gives back the space of what has expired. There is no deadline.
    pub(crate) async fn prune(&self, core: &Core) -> Result<u64> {
        let pruned = self.driver.prune().await;
        pruned.inspect_err(|error| core.l2_failed("prune", error, OnFailure::Return))
    }

    /// The keys that begin with a prefix. There is no deadline.
    pub(crate) fn scan<'a>(&'a self, core: &'a Core, prefix: &'a str) -> BoxStream<'a, Result<Scanned>> {
        let scanned = self.driver.scan(prefix);
        scanned.inspect_err(|error| core.l2_failed("scan", error, OnFailure::Return)).boxed()
    }

    /// Whether the store can be reached now.
    pub(crate) async fn ping(&self, core: &Core) -> Result<()> {
        self.call(core, "ping", OnFailure::Return, self.driver.ping()).await
    }

    /// Closes the store, unless it was borrowed.
    pub(crate) async fn close(&self) -> Result<()> {
        match self.ownership {
            Ownership::Owned => self.driver.close().await,
            Ownership::Borrowed => Ok(()),
        }
    }

    /// Stores several records at once, each if nothing newer is there.
    pub(crate) async fn write_many(
        &self,
        core: &Core,
        operation: &'static str,
        writes: Vec<Write>,
        on_failure: OnFailure,
    ) -> Result<Vec<Written>> {
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        let stamps: Vec<_> = match &core.retry {
            Some(retry) if retry.len() > 0 => {
                writes.iter().map(|write| (write.key.clone(), wire::stamp_of(&write.value))).collect()
            }
            _ => Vec::new(),
        };
        let written = self.set_many(core, operation, writes, on_failure).await?;
        for ((full, stamp), written) in stamps.iter().zip(&written) {
            if let (Some(stamp), Written::Stored { .. }) = (stamp, written) {
                core.overtake(full, *stamp);
            }
        }
        Ok(written)
    }

    /// Stores several records that were remembered, each if nothing newer is there.
    pub(crate) async fn write_again(&self, core: &Core, writes: Vec<Write>) -> Result<Vec<Written>> {
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        self.set_many(core, "retry", writes, OnFailure::Suppress).await
    }

    async fn set_many(
        &self,
        core: &Core,
        operation: &'static str,
        writes: Vec<Write>,
        on_failure: OnFailure,
    ) -> Result<Vec<Written>> {
        let count = writes.len();
        let written = self.call(core, operation, on_failure, self.driver.set_many(writes)).await?;
        if written.len() == count {
            return Ok(written);
        }
        let message =
            format!("the {} driver answered {} of {count} writes", self.driver.name(), written.len());
        let error = Error::new(ErrorKind::Unavailable, message);
        core.l2_failed(operation, &error, on_failure);
        Err(error)
    }
}

/// What an outcome says of the store. A conditional write that was refused is an answer like any other.
fn health<T>(outcome: &Result<T>) -> Health {
    match outcome {
        Ok(_) => Health::Well,
        Err(error) if error.kind().is_transient() => Health::Ill,
        Err(_) => Health::Unknown,
    }
}

/// The condition under which bytes that were read are replaced: only if they are still there.
fn replace(bytes: &Bytes) -> When {
    match wire::stamp_of(bytes) {
        Some(stamp) => When::Unchanged(Some(stamp)),
        None => When::Newer,
    }
}

/// The error of a write that lost against others again and again.
pub(crate) fn contended(operation: &'static str) -> Error {
    Error::new(ErrorKind::Overloaded, format!("{operation}: too many writers of one key at once"))
}
