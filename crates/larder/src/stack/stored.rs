//! What the store has for a key: read, believed or not, and judged. Calls nothing.

use bytes::Bytes;

use crate::entry::wire::{self, Head, Kind, Record, StoredEntry};
use crate::entry::{Freshness, Meta};
use crate::event::Tier;
use crate::explain::{Fact, Finding};
use crate::stack::Core;
use crate::stack::retry::What;
use crate::stack::space::Space;
use crate::time::{Stamp, Timestamp};

/// What the store has for a key.
#[derive(Debug)]
pub(crate) enum Stored {
    /// Nothing that may be served. `stamp` is that of whatever is there instead; `deleted` says that it is what a delete
    /// left, and not an entry that is over.
    Nothing { stamp: Option<Stamp>, deleted: bool },
    /// An entry, still encoded, with what may be done with it.
    Entry { entry: StoredEntry, freshness: Freshness },
}

/// What stored bytes are, before clears and tags are asked.
pub(crate) enum Understood {
    Nothing {
        stamp: Option<Stamp>,
    },
    /// What is no record of this key, and is still there. The stamp is what a compare-and-swap has to expect, and as
    /// doubtful as all the rest: nothing that somebody else has is older for it.
    Damaged {
        stamp: Option<Stamp>,
    },
    Entry(StoredEntry),
}

impl Understood {
    pub(crate) fn stamp(&self) -> Option<Stamp> {
        match self {
            Self::Nothing { stamp } | Self::Damaged { stamp } => *stamp,
            Self::Entry(entry) => Some(entry.meta.stamp),
        }
    }

    /// What a write that the store did not take would have left there.
    pub(crate) fn pending(full: &str, stamp: Stamp, what: &What) -> Self {
        if let What::Entry { record } = what
            && let Ok(Record::Entry(entry)) = wire::decode(full, record)
        {
            return Self::Entry(entry);
        }
        Self::Nothing { stamp: Some(stamp) }
    }

    fn finding(&self, core: &Core, space: &Space, now: Timestamp) -> Finding {
        match self {
            Self::Nothing { stamp: None | Some(Stamp::ZERO) } | Self::Damaged { .. } => Finding::Nothing,
            Self::Nothing { stamp: Some(stamp) } => Finding::Deleted { ago: now.since(stamp.timestamp()) },
            Self::Entry(entry) => core.finding(space, &entry.meta, Timestamp::FOREVER, now),
        }
    }

    pub(crate) fn entry(&self) -> Option<&StoredEntry> {
        match self {
            Self::Nothing { .. } | Self::Damaged { .. } => None,
            Self::Entry(entry) => Some(entry),
        }
    }

    pub(crate) fn judge(self, core: &Core, space: &Space, key: &str, now: Timestamp) -> Stored {
        core.note(space, key, || Fact::Looked { tier: Tier::L2, found: self.finding(core, space, now) });
        match self {
            Self::Nothing { stamp } => Stored::Nothing { stamp, deleted: stamp.is_some() },
            Self::Damaged { .. } => Stored::Nothing { stamp: None, deleted: false },
            Self::Entry(entry) => match core.standing(space, &entry.meta, now) {
                Freshness::Expired => Stored::Nothing { stamp: Some(entry.meta.stamp), deleted: false },
                freshness => Stored::Entry { entry, freshness },
            },
        }
    }
}

/// Whether an entry's stamps are no further ahead of `now` than is believed.
pub(crate) fn is_timely(core: &Core, meta: &Meta, now: Timestamp) -> bool {
    core.clock.believes(meta.stamp, now) && meta.born <= meta.stamp
}

/// Whether the head of a replaced record was a living entry of this namespace. A head does not say which tags
/// its entry carries, so one that only a tag has invalidated counts as living.
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
        && core.standing(space, &meta, now) != Freshness::Expired
}
