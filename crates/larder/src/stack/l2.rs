//! The one place that calls a driver: deadlines, reports of failures, marks, damage and healing exist here,
//! once.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::driver::{Driver, When, Write, Written};
use crate::entry::wire::{self, Damage, Head, Kind, Record, StoredEntry};
use crate::entry::{Freshness, Meta};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::stack::Core;
use crate::stack::space::Space;
use crate::stack::verdict::standing;
use crate::time::{Stamp, Timestamp};

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
}

/// Who closes a driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ownership {
    /// The stack, when it is closed.
    Owned,
    /// Whoever passed it in.
    Borrowed,
}

/// What the store has for a key.
#[derive(Debug)]
pub(crate) enum Stored {
    /// Nothing that may be served. `stamp` is what a compare-and-swap has to expect there.
    Nothing { stamp: Option<Stamp> },
    /// An entry, still encoded, with what may be done with it.
    Entry { entry: StoredEntry, freshness: Freshness },
}

impl Stored {
    /// What a compare-and-swap has to expect.
    pub(crate) fn stamp(&self) -> Option<Stamp> {
        match self {
            Self::Nothing { stamp } => *stamp,
            Self::Entry { entry, .. } => Some(entry.meta.stamp),
        }
    }
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
    /// Calls the driver within the deadline, and reports a failure.
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
        outcome.inspect_err(|error| core.l2_failed(operation, error, on_failure))
    }

    /// Reads several keys of one namespace, and the namespace's clear marks with them, in one batch.
    pub(crate) async fn read(
        &self,
        core: &Core,
        space: &Space,
        keys: &[&str],
        now: Timestamp,
        on_failure: OnFailure,
    ) -> Result<Vec<Stored>> {
        let full = keys.iter().map(|key| space.keys.full(key)).collect::<Result<Vec<_>>>()?;
        let marks: Vec<&Space> = space.chain().collect();
        let mut batch: Vec<&str> = full.iter().map(String::as_str).collect();
        batch.extend(marks.iter().map(|space| space.mark_key.as_str()));
        let found = self.call(core, "get", on_failure, self.driver.get_many(&batch)).await?;
        if found.len() != batch.len() {
            let message =
                format!("the {} driver answered {} of {} keys", self.driver.name(), found.len(), batch.len());
            let error = Error::new(ErrorKind::Unavailable, message);
            core.l2_failed("get", &error, on_failure);
            return Err(error);
        }
        let mut found = found.into_iter();
        let entries: Vec<_> = found.by_ref().take(keys.len()).collect();
        for (space, bytes) in marks.into_iter().zip(found) {
            if let Some(bytes) = bytes {
                self.hear_mark(core, space, &bytes, now).await;
            }
        }
        let mut stored = Vec::with_capacity(keys.len());
        for ((key, full), bytes) in keys.iter().zip(&full).zip(entries) {
            stored.push(match bytes {
                Some(bytes) => self.understand(core, space, key, full, &bytes, now).await,
                None => Stored::Nothing { stamp: None },
            });
        }
        Ok(stored)
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
        Ok(stored.pop().unwrap_or(Stored::Nothing { stamp: None }))
    }

    /// Learns of a clear. A mark that cannot be read counts as a clear now: forgetting a clear would bring
    /// back what it removed.
    async fn hear_mark(&self, core: &Core, space: &Space, bytes: &Bytes, now: Timestamp) {
        let damage = match wire::decode(&space.mark_key, bytes) {
            Ok(Record::Mark { stamp }) if core.clock.observe(stamp, now) => {
                core.spaces.raise(space, stamp);
                return;
            }
            Ok(Record::Mark { .. }) => Damage::Future,
            Ok(_) => Damage::Layout,
            Err(damage) => damage,
        };
        core.emit(&Event::Damaged { namespace: space.keys.path(), key: "", damage });
        let stamp = core.clock.tick(now);
        core.spaces.raise(space, stamp);
        if let Ok(mark) = wire::encode_mark(&space.mark_key, stamp) {
            let when = replace(bytes);
            let heal = self.driver.set(&space.mark_key, mark, None, when);
            // Failing to heal is reported; the clear holds in this process all the same.
            let _ = self.call(core, "heal", OnFailure::Suppress, heal).await;
        }
    }

    /// Turns stored bytes into what they are good for. Bytes that are not this key's entry are removed.
    async fn understand(
        &self,
        core: &Core,
        space: &Space,
        key: &str,
        full: &str,
        bytes: &Bytes,
        now: Timestamp,
    ) -> Stored {
        let damage = match wire::decode(full, bytes) {
            Ok(Record::Entry(entry)) if is_timely(core, &entry.meta, now) => {
                core.clock.observe(entry.meta.stamp, now);
                let cleared = core.spaces.cleared(space, entry.meta.born);
                return match standing(&entry.meta, cleared, now) {
                    Freshness::Expired => Stored::Nothing { stamp: Some(entry.meta.stamp) },
                    freshness => Stored::Entry { entry, freshness },
                };
            }
            Ok(Record::Tombstone { stamp }) if core.clock.observe(stamp, now) => {
                core.hear_of_delete(space, key, stamp);
                return Stored::Nothing { stamp: Some(stamp) };
            }
            Ok(Record::Entry(_) | Record::Tombstone { .. }) => Damage::Future,
            Ok(Record::Mark { .. }) => Damage::Layout,
            Err(damage) => damage,
        };
        core.emit(&Event::Damaged { namespace: space.keys.path(), key, damage });
        // A tombstone from the beginning of time: it outlives no write, and is gone at once for the store.
        let tombstone = wire::encode_tombstone(Stamp::ZERO, now);
        let heal = self.driver.set(full, tombstone, Some(Duration::from_secs(1)), replace(bytes));
        match self.call(core, "heal", OnFailure::Suppress, heal).await {
            Ok(Written::Stored { .. }) => Stored::Nothing { stamp: Some(Stamp::ZERO) },
            _ => Stored::Nothing { stamp: wire::stamp_of(bytes) },
        }
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
                Written::Stored { previous } => return Ok((stamp, previous)),
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

/// The condition under which bytes that were read are replaced: only if they are still there.
fn replace(bytes: &Bytes) -> When {
    match wire::stamp_of(bytes) {
        Some(stamp) => When::Unchanged(Some(stamp)),
        None => When::Newer,
    }
}

/// Whether an entry's stamps are no further ahead of `now` than is believed.
fn is_timely(core: &Core, meta: &Meta, now: Timestamp) -> bool {
    core.clock.believes(meta.stamp, now) && meta.born <= meta.stamp
}

/// Whether the head of a replaced record was a living entry of this namespace.
pub(crate) fn was_alive(core: &Core, space: &Space, previous: Option<&Bytes>, now: Timestamp) -> bool {
    let Some(head) = previous.and_then(|head| Head::peek(head).ok()) else { return false };
    is_alive(core, space, &head, now)
}

/// Whether a head is that of a living entry of this namespace.
pub(crate) fn is_alive(core: &Core, space: &Space, head: &Head, now: Timestamp) -> bool {
    let Head { kind, stamp, born, fresh_until, stale_until, .. } = *head;
    let meta = Meta { stamp, born, fresh_until, stale_until, extras: None };
    kind == Kind::Entry
        && is_timely(core, &meta, now)
        && standing(&meta, core.spaces.cleared(space, born), now) != Freshness::Expired
}

/// The error of a write that lost against others again and again.
pub(crate) fn contended(operation: &'static str) -> Error {
    Error::new(ErrorKind::Overloaded, format!("{operation}: too many writers of one key at once"))
}
