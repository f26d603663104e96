//! What happened, for whoever wants to know. Only the engine emits events.

use std::fmt;
use std::time::Duration;

use crate::advisor::Advice;
use crate::entry::wire::Damage;
use crate::error::Error;

/// Where something was found or lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
pub enum Tier {
    /// The memory of this process.
    L1,
    /// The store behind it.
    L2,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::L1 => "L1",
            Self::L2 => "L2",
        })
    }
}

/// Why an entry left the memory tier without being asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EvictionCause {
    /// It was pushed out by others: a limit on items or bytes was reached.
    Capacity,
    /// Its time was over.
    Expired,
    /// It was larger than an entry may be, and was not taken in.
    TooLarge,
}

/// What a write was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Subject<'a> {
    /// A key, which was set, loaded or deleted.
    Key(&'a str),
    /// A tag, which was invalidated.
    Tag(&'a str),
    /// The whole namespace, which was cleared.
    All,
}

/// What became of a write that the store did not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fate {
    /// It will be tried again. The caller of an explicit write got the error all the same.
    Remembered,
    /// The store has it.
    Landed,
    /// Something newer was there, or was written or remembered since.
    Yielded,
    /// The store will not get it.
    Dropped(DropCause),
}

/// Why a write was not tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropCause {
    /// More were remembered than may be.
    Full,
    /// The value's time was over, or it was so old that a newer delete might have been forgotten. What it replaced
    /// was removed from the store.
    Late,
    /// The store took everything else, and refuses this one for good.
    Refused,
    /// The stack was closed.
    Closed,
}

/// One thing that happened in a stack. Keys are the user's, without prefix; values never appear.
///
/// Every lookup ends in exactly one [`Event::Hit`] or [`Event::Miss`].
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A lookup found a value.
    Hit {
        /// The namespace path, empty for the outermost.
        namespace: &'a str,
        /// The user's key.
        key: &'a str,
        /// Where it was found.
        tier: Tier,
        /// Whether it was served past its freshness.
        stale: bool,
    },
    /// A lookup found nothing; what it then loaded, if anything, is another event.
    Miss {
        /// The namespace path, empty for the outermost.
        namespace: &'a str,
        /// The user's key.
        key: &'a str,
    },
    /// A loader returned a value.
    Loaded {
        /// The namespace path, empty for the outermost.
        namespace: &'a str,
        /// The user's key.
        key: &'a str,
        /// How long the loader took.
        took: Duration,
    },
    /// A loader failed or panicked.
    LoadFailed {
        /// The namespace path, empty for the outermost.
        namespace: &'a str,
        /// The user's key.
        key: &'a str,
        /// Its error.
        error: &'a Error,
    },
    /// A load had been under way for so long that another one was started beside it.
    LoadReplaced {
        /// The namespace path, empty for the outermost.
        namespace: &'a str,
        /// The user's key.
        key: &'a str,
        /// How long it had been under way.
        after: Duration,
    },
    /// A loader's value was given to those who waited but not kept, because something newer came meanwhile.
    LoadSuperseded {
        /// The namespace path, empty for the outermost.
        namespace: &'a str,
        /// The user's key.
        key: &'a str,
    },
    /// A value was stored, counted up, or given a new TTL.
    Written {
        /// The namespace path, empty for the outermost.
        namespace: &'a str,
        /// The user's key.
        key: &'a str,
        /// How long it is fresh from now on; `None` is forever.
        ttl: Option<Duration>,
    },
    /// A key was deleted, whether or not it had an entry, or its value pulled.
    Deleted {
        /// The namespace path, empty for the outermost.
        namespace: &'a str,
        /// The user's key.
        key: &'a str,
        /// Whether it had an entry.
        existed: bool,
    },
    /// A key was made stale.
    Expired {
        /// The namespace path, empty for the outermost.
        namespace: &'a str,
        /// The user's key.
        key: &'a str,
    },
    /// A namespace, and all inside it, was cleared.
    Cleared {
        /// The namespace path, empty for the outermost.
        namespace: &'a str,
    },
    /// The entries that carry a tag were invalidated, in a namespace and all inside it.
    TagInvalidated {
        /// The namespace path, empty for the outermost.
        namespace: &'a str,
        /// The tag.
        tag: &'a str,
        /// Whether their grace may still serve them.
        soft: bool,
    },
    /// An entry left the memory tier without being asked to.
    Evicted {
        /// The namespace path, empty for the outermost.
        namespace: &'a str,
        /// The user's key.
        key: &'a str,
        /// Why.
        cause: EvictionCause,
    },
    /// A key was to be refreshed ahead, and more are already than may be; it is loaded when it is asked for. Told once
    /// until there is room again.
    AheadFull {
        /// The namespace path, empty for the outermost.
        namespace: &'a str,
        /// The user's key.
        key: &'a str,
    },
    /// The store failed or was too slow.
    L2Failed {
        /// What was tried: `get`, `set`, `delete` and so on.
        operation: &'static str,
        /// What came of it.
        error: &'a Error,
        /// Whether the caller was spared the error.
        suppressed: bool,
    },
    /// The store was not asked, because its breaker is open.
    L2Refused {
        /// What was not tried: `get`, `set`, `delete` and so on.
        operation: &'static str,
        /// Whether the caller was spared the error.
        suppressed: bool,
    },
    /// The store failed several times in a row, or failed a probe, and is left alone for a while.
    BreakerOpened {
        /// For how long. The next call after that is a probe.
        pause: Duration,
    },
    /// The store answered a probe, and is asked again.
    BreakerClosed,
    /// Something became of a write that the store did not take: it was remembered, and later it landed or not.
    ///
    /// Every write that is remembered ends in exactly one other fate.
    FailedWrite {
        /// The namespace path, empty for the outermost.
        namespace: &'a str,
        /// What was written, deleted or invalidated.
        write: Subject<'a>,
        /// What became of it.
        fate: Fate,
    },
    /// The store returned bytes that are not this key's entry; they count as a miss and are removed.
    Damaged {
        /// The namespace path, empty for the outermost.
        namespace: &'a str,
        /// The user's key.
        key: &'a str,
        /// What is wrong with them.
        damage: Damage,
    },
    /// The store returned an entry that this cache's codec or schema does not read; it counts as a miss.
    Undecodable {
        /// The namespace path, empty for the outermost.
        namespace: &'a str,
        /// The user's key.
        key: &'a str,
        /// Why not.
        error: &'a Error,
    },
    /// The stack was built with options that contradict each other, or that have no effect.
    Advised {
        /// What, why, and what to do about it.
        advice: &'a Advice,
    },
}

impl<'a> Event<'a> {
    /// What kind of event it is, in a word or two that stay the same: `hit`, `load_failed`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hit { .. } => "hit",
            Self::Miss { .. } => "miss",
            Self::Loaded { .. } => "loaded",
            Self::LoadFailed { .. } => "load_failed",
            Self::LoadReplaced { .. } => "load_replaced",
            Self::LoadSuperseded { .. } => "load_superseded",
            Self::Written { .. } => "written",
            Self::Deleted { .. } => "deleted",
            Self::Expired { .. } => "expired",
            Self::Cleared { .. } => "cleared",
            Self::TagInvalidated { .. } => "tag_invalidated",
            Self::Evicted { .. } => "evicted",
            Self::AheadFull { .. } => "ahead_full",
            Self::L2Failed { .. } => "store_failed",
            Self::L2Refused { .. } => "store_refused",
            Self::BreakerOpened { .. } => "breaker_opened",
            Self::BreakerClosed => "breaker_closed",
            Self::FailedWrite { .. } => "failed_write",
            Self::Damaged { .. } => "damaged",
            Self::Undecodable { .. } => "undecodable",
            Self::Advised { .. } => "advised",
        }
    }

    /// The namespace path, empty for the outermost; `None` if it is about the stack as a whole.
    pub fn namespace(&self) -> Option<&'a str> {
        match *self {
            Self::Hit { namespace, .. }
            | Self::Miss { namespace, .. }
            | Self::Loaded { namespace, .. }
            | Self::LoadFailed { namespace, .. }
            | Self::LoadReplaced { namespace, .. }
            | Self::LoadSuperseded { namespace, .. }
            | Self::Written { namespace, .. }
            | Self::Deleted { namespace, .. }
            | Self::Expired { namespace, .. }
            | Self::Cleared { namespace }
            | Self::TagInvalidated { namespace, .. }
            | Self::Evicted { namespace, .. }
            | Self::AheadFull { namespace, .. }
            | Self::FailedWrite { namespace, .. }
            | Self::Damaged { namespace, .. }
            | Self::Undecodable { namespace, .. } => Some(namespace),
            Self::L2Failed { .. }
            | Self::L2Refused { .. }
            | Self::BreakerOpened { .. }
            | Self::BreakerClosed
            | Self::Advised { .. } => None,
        }
    }

    /// The user's key; `None` if it is not about one.
    pub fn key(&self) -> Option<&'a str> {
        match *self {
            Self::Hit { key, .. }
            | Self::Miss { key, .. }
            | Self::Loaded { key, .. }
            | Self::LoadFailed { key, .. }
            | Self::LoadReplaced { key, .. }
            | Self::LoadSuperseded { key, .. }
            | Self::Written { key, .. }
            | Self::Deleted { key, .. }
            | Self::Expired { key, .. }
            | Self::Evicted { key, .. }
            | Self::AheadFull { key, .. }
            | Self::Damaged { key, .. }
            | Self::Undecodable { key, .. } => Some(key),
            Self::FailedWrite { write: Subject::Key(key), .. } => Some(key),
            Self::FailedWrite { .. }
            | Self::Cleared { .. }
            | Self::TagInvalidated { .. }
            | Self::L2Failed { .. }
            | Self::L2Refused { .. }
            | Self::BreakerOpened { .. }
            | Self::BreakerClosed
            | Self::Advised { .. } => None,
        }
    }
}

/// Whoever wants to know what happens in a stack.
///
/// It is called on the way of the operation, so it has to be quick and may not block.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use larder::event::{Event, Observer};
///
/// #[derive(Debug, Default)]
/// struct Misses(AtomicU64);
/// impl Observer for Misses {
///     fn on_event(&self, _stack: &str, event: &Event<'_>) {
///         if let Event::Miss { .. } = event {
///             self.0.fetch_add(1, Ordering::Relaxed);
///         }
///     }
/// }
/// ```
pub trait Observer: fmt::Debug + Send + Sync + 'static {
    /// Something happened in the stack of this name.
    fn on_event(&self, stack: &str, event: &Event<'_>);
}
