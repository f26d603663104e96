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

/// When an entry is loaded again.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Refresh {
    /// When somebody asks for it and it is no longer fresh.
    OnDemand,
    /// In the background, when somebody asks for it and this share of its TTL is over, while it is still fresh:
    /// what is asked for often never becomes stale. A share of 0.9 is usual; it is held between 0 and 1.
    Early {
        /// The share of the TTL.
        share: f64,
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
    /// When an entry is loaded again. Default: [`Refresh::OnDemand`].
    pub refresh: Option<Refresh>,
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

    /// The back-off that results when no outer level is left.
    pub(crate) fn backoff_or_default(&self) -> Duration {
        self.backoff.unwrap_or(BACKOFF_DEFAULT)
    }

    /// The TTL that results when no outer level is left.
    pub(crate) fn ttl_or_default(&self) -> Ttl {
        self.ttl.unwrap_or(TTL_DEFAULT)
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
        let extras =
            Extras { tags, etag: etag.map(Into::into), last_modified: last_modified.map(Into::into) };
        Ok(Some(Arc::new(extras)))
    }
}
