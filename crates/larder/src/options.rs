//! What can be said about an entry: by the call, else by the cache, else by the stack, else by the library.

use std::sync::Arc;
use std::time::Duration;

use crate::entry::Extras;
use crate::error::Result;
use crate::tag::{Tag, tags_of};
use crate::time::{Ttl, minutes};

/// How long entries live, unless someone says otherwise: 30 minutes.
pub const TTL_DEFAULT: Ttl = Ttl::For(minutes(30));

/// Options of entries. `None` leaves the choice to the next outer level.
///
/// ```
/// use larder::{EntryOptions, time::{minutes, seconds}};
/// let cache = EntryOptions::default().ttl(minutes(5));
/// let call = EntryOptions::default().grace(seconds(30));
/// let both = call.or(&cache);
/// assert_eq!((both.ttl, both.grace), (Some(minutes(5).into()), Some(seconds(30))));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct EntryOptions {
    /// How long an entry is fresh. Default: [`TTL_DEFAULT`]. Zero stores nothing.
    pub ttl: Option<Ttl>,
    /// How long after that it may still be served when its loader fails. Default: not at all.
    pub grace: Option<Duration>,
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
