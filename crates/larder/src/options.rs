//! What can be said about an entry: by the call, else by the cache, else by the stack, else by the library.

use std::sync::Arc;
use std::time::Duration;

use crate::entry::Extras;
use crate::error::Result;
use crate::tag::{Tag, tags_of};
use crate::time::{Ttl, minutes};

/// How long entries live, unless someone says otherwise: 30 minutes.
pub const TTL_DEFAULT: Ttl = Ttl::For(minutes(30));

/// How long the source of a stale entry is left alone after a failed load, unless someone says otherwise: 10 s.
pub const BACKOFF_DEFAULT: Duration = Duration::from_secs(10);

/// How the freshness of an entry ends, or is kept from ending: one choice of these.
///
/// Refresh-ahead, which loads without being asked, needs a loader that can be run again, so it is said with the call:
/// [`GetOrSet::refresh_ahead`](crate::GetOrSet::refresh_ahead).
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Refresh {
    /// It is loaded when somebody asks for it and it is no longer fresh.
    OnDemand,
    /// In the background, when somebody asks for it and this share of its TTL is over, while it is still fresh:
    /// what is asked for often never becomes stale. A share of 0.9 is usual; it is held between 0 and 1.
    Early {
        /// The share of the TTL.
        share: f64,
    },
    /// In the background, when somebody asks for it while it is still fresh, with a probability that rises towards the end
    /// of its TTL, and the earlier the longer its last load took: of many callers and processes some one renews it before
    /// it ends, and there is nothing to tune. This is XFetch with β = 1: Vattani, Chierichetti, Lowenstein, "Optimal
    /// Probabilistic Cache Stampede Prevention", PVLDB 8(8), 2015. The time that a load took is stored with its entry.
    Probabilistic,
    /// It stays fresh as long as somebody asks for it: it ends when nobody did for this long, and at the latest with the
    /// TTL that it was stored with. Both are stored with the entry, so every `get`, `get_many`, `get_or_set` and increment
    /// counts, whatever its own options, in every process. A read renews it at most once a quarter of `idle`, so what
    /// nobody asks for any more ends between one and one and a quarter times `idle` after the last read. In a store, the
    /// renewal is a write in the background.
    Sliding {
        /// How long nobody may ask for it. Zero stores nothing.
        idle: Duration,
    },
}

/// Options of entries. `None` leaves the choice to the next outer level.
///
/// ```
/// use larder::{EntryOptions, time::{minutes, seconds}};
/// let cache = EntryOptions::default().ttl(minutes(5));
/// let call = EntryOptions::default().grace(seconds(30));
/// let both = call.or(&cache);
/// assert_eq!((both.ttl, both.grace), (Some(minutes(5).into()), Some(seconds(30))));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub struct EntryOptions {
    /// How long an entry is fresh. Default: [`TTL_DEFAULT`]. Zero stores nothing.
    pub ttl: Option<Ttl>,
    /// How long after that it may still be served when its loader fails. Default: not at all.
    pub grace: Option<Duration>,
    /// How long the source of a stale entry is left alone after a load of it failed, in this process. Default:
    /// [`BACKOFF_DEFAULT`]. However many ask meanwhile, they are served the stale entry and nothing is loaded.
    pub backoff: Option<Duration>,
    /// How long a caller waits for a load before it is served a stale entry, where there is one within its
    /// grace; the load goes on. Zero serves it at once, which is stale-while-revalidate. Default: until the load
    /// ends.
    pub soft_timeout: Option<Duration>,
    /// How long a caller waits for a load before it gives up: with the stale entry, or else with
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout). The load goes on, and what it returns is stored.
    /// Default: until the load ends.
    pub hard_timeout: Option<Duration>,
    /// How much of the TTL is left to chance: each entry gets a TTL shorter by a random part of this, so that
    /// what was stored together does not expire together. Default: nothing.
    pub jitter: Option<Duration>,
    /// How an entry's freshness ends. Default: [`Refresh::OnDemand`].
    pub refresh: Option<Refresh>,
    /// How long memory serves an entry before it asks the store again, in a stack that has both: the time for which this
    /// process may not notice what another one changed. If the store does not answer then, memory goes on until the TTL
    /// ends. Default: until the TTL ends.
    pub memory_ttl: Option<Duration>,
    /// Whether this caller takes nothing stale: it waits for the load whatever the soft timeout says, and gets the load's
    /// error, or that of the last load while its source is left alone. Default: no.
    pub fresh_only: Option<bool>,
    /// How long a load may have been under way before a caller who waits for it starts another one beside it, with its own
    /// loader; whoever waits gets what comes first. Up to [`REPLACEMENTS_MAX`](crate::REPLACEMENTS_MAX) at once a key.
    /// Not for `get_or_set_many`. Default: never.
    pub replace_after: Option<Duration>,
    /// That of the processes which share the store only one at a time loads a key, and the others wait for what it stores;
    /// and how long a process that has died while it loaded keeps the others waiting, at least 100 ms. One that lives may
    /// take twenty times as long. Timeouts and grace hold as for any load. Where the store fails, and where a load before
    /// has left nothing there, processes load beside each other; so do a forced load, one that is started beside another
    /// (`replace_after`), and `get_or_set_many`. Default: every process loads; zero is that, too.
    pub across_processes: Option<Duration>,
    /// Whether a failing store is treated as a miss by lookups and loads, and reported as an event only.
    /// Default: yes if the stack has a memory tier, no otherwise. Explicit writes and deletes always fail.
    pub suppress_l2_errors: Option<bool>,
}

impl EntryOptions {
    /// These options, and where they say nothing, the outer ones.
    #[must_use]
    pub fn or(self, outer: &Self) -> Self {
        Self {
            ttl: self.ttl.or(outer.ttl),
            grace: self.grace.or(outer.grace),
            backoff: self.backoff.or(outer.backoff),
            soft_timeout: self.soft_timeout.or(outer.soft_timeout),
            hard_timeout: self.hard_timeout.or(outer.hard_timeout),
            jitter: self.jitter.or(outer.jitter),
            refresh: self.refresh.or(outer.refresh),
            memory_ttl: self.memory_ttl.or(outer.memory_ttl),
            fresh_only: self.fresh_only.or(outer.fresh_only),
            replace_after: self.replace_after.or(outer.replace_after),
            across_processes: self.across_processes.or(outer.across_processes),
            suppress_l2_errors: self.suppress_l2_errors.or(outer.suppress_l2_errors),
        }
    }

    /// These options with a TTL.
    #[must_use]
    pub fn ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.ttl = Some(ttl.into());
        self
    }

    /// These options with a grace.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    /// These options with a back-off.
    #[must_use]
    pub fn backoff(mut self, backoff: Duration) -> Self {
        self.backoff = Some(backoff);
        self
    }

    /// These options with a soft timeout.
    #[must_use]
    pub fn soft_timeout(mut self, timeout: Duration) -> Self {
        self.soft_timeout = Some(timeout);
        self
    }

    /// These options with a hard timeout.
    #[must_use]
    pub fn hard_timeout(mut self, timeout: Duration) -> Self {
        self.hard_timeout = Some(timeout);
        self
    }

    /// These options with a jitter.
    #[must_use]
    pub fn jitter(mut self, jitter: Duration) -> Self {
        self.jitter = Some(jitter);
        self
    }

    /// These options with a way of refreshing.
    #[must_use]
    pub fn refresh(mut self, refresh: Refresh) -> Self {
        self.refresh = Some(refresh);
        self
    }

    /// These options with a TTL of entries in memory.
    #[must_use]
    pub fn memory_ttl(mut self, ttl: Duration) -> Self {
        self.memory_ttl = Some(ttl);
        self
    }

    /// These options, taking nothing stale.
    #[must_use]
    pub fn fresh_only(mut self) -> Self {
        self.fresh_only = Some(true);
        self
    }

    /// These options, with another load beside one that has taken this long.
    #[must_use]
    pub fn replace_after(mut self, after: Duration) -> Self {
        self.replace_after = Some(after);
        self
    }

    /// These options, with one load at a time among the processes that share the store.
    #[must_use]
    pub fn across_processes(mut self, lease: Duration) -> Self {
        self.across_processes = Some(lease);
        self
    }

    /// The back-off that results when no outer level is left.
    pub(crate) fn backoff_or_default(&self) -> Duration {
        self.backoff.unwrap_or(BACKOFF_DEFAULT)
    }

    /// The TTL that results when no outer level is left.
    pub(crate) fn ttl_or_default(&self) -> Ttl {
        match self.refresh {
            Some(Refresh::Sliding { idle }) if idle.is_zero() => Ttl::For(idle),
            _ => self.ttl.unwrap_or(TTL_DEFAULT),
        }
    }

    /// The grace that results when no outer level is left.
    pub(crate) fn grace_or_default(&self) -> Duration {
        self.grace.unwrap_or(Duration::ZERO)
    }
}

/// Tags as a call names them, not looked at until an entry is made: a hit pays for none of it.
#[derive(Debug, Default)]
pub(crate) struct TagList<'a> {
    inline: [&'a str; 4],
    inline_count: usize,
    more: Vec<&'a str>,
}

impl<'a> TagList<'a> {
    pub(crate) fn extend(&mut self, tags: impl IntoIterator<Item = &'a str>) {
        for tag in tags {
            match self.inline.get_mut(self.inline_count) {
                Some(slot) => {
                    *slot = tag;
                    self.inline_count += 1;
                }
                None => self.more.push(tag),
            }
        }
    }

    /// These tags, checked, sorted and unique.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidKey`](crate::ErrorKind::InvalidKey) for an unusable tag,
    /// [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge) for too many.
    pub(crate) fn tags(&self) -> Result<Box<[Tag]>> {
        tags_of(self.inline.iter().take(self.inline_count).chain(&self.more).copied())
    }

    /// What an entry carries: these tags, checked, sorted and unique, and the validators. `None` if nothing.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidKey`](crate::ErrorKind::InvalidKey) for an unusable tag, [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge) for too many.
    pub(crate) fn extras(
        &self,
        etag: Option<&str>,
        last_modified: Option<&str>,
    ) -> Result<Option<Arc<Extras>>> {
        if self.inline_count == 0 && etag.is_none() && last_modified.is_none() {
            return Ok(None);
        }
        let tags = self.tags()?;
        let (etag, last_modified) = (etag.map(Into::into), last_modified.map(Into::into));
        Ok(Some(Arc::new(Extras { tags, etag, last_modified, ..Extras::default() })))
    }
}
