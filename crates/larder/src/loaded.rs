//! What a loader may say beside a value: see [`Cache::get_or_set_with`](crate::Cache::get_or_set_with).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::time::Ttl;

/// A loader's answer: a value, or that the previous one still holds, with what it knows about it. What it does
/// not say, the call says.
///
/// ```
/// use larder::{Loaded, time::minutes};
/// let fresh = Loaded::new("body").ttl(minutes(5)).tags(["pages"]).etag("v2");
/// let transient = Loaded::uncached("shown once");
/// let not_there: Loaded<Option<&str>> = Loaded::absent().ttl(minutes(1));
/// let not_modified: Loaded<&str> = Loaded::unchanged();
/// # let _ = (fresh, transient, not_there, not_modified);
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Loaded<V> {
    /// `None` if the previous value holds.
    pub(crate) value: Option<V>,
    pub(crate) ttl: Option<Ttl>,
    pub(crate) grace: Option<Duration>,
    pub(crate) tags: Option<Vec<String>>,
    pub(crate) etag: Option<String>,
    pub(crate) last_modified: Option<String>,
}

impl<V> Loaded<V> {
    fn from_value(value: Option<V>) -> Self {
        Self { value, ttl: None, grace: None, tags: None, etag: None, last_modified: None }
    }

    /// This value.
    pub fn new(value: V) -> Self {
        Self::from_value(Some(value))
    }

    /// This value, for those who wait for it and nobody else: it is not stored.
    pub fn uncached(value: V) -> Self {
        Self::new(value).ttl(Duration::ZERO)
    }

    /// The previous value is still right: it gets a new TTL from now, as a value that was just loaded. It keeps
    /// its tags and validators where nothing else is said. Without a previous value, the load fails.
    pub fn unchanged() -> Self {
        Self::from_value(None)
    }

    /// How long it is fresh.
    pub fn ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.ttl = Some(ttl.into());
        self
    }

    /// How long after that it may be served stale.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    /// What it can be invalidated by, in place of what the call says.
    pub fn tags<T: Into<String>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.tags = Some(tags.into_iter().map(Into::into).collect());
        self
    }

    /// The validator of its source.
    pub fn etag(mut self, etag: impl Into<String>) -> Self {
        self.etag = Some(etag.into());
        self
    }

    /// When its source says that it was modified.
    pub fn last_modified(mut self, last_modified: impl Into<String>) -> Self {
        self.last_modified = Some(last_modified.into());
        self
    }
}

impl<T> Loaded<Option<T>> {
    /// The source says that there is nothing, which is cached as such. Give it a TTL of its own.
    pub fn absent() -> Self {
        Self::new(None)
    }
}

/// What a loader that may find nothing lands with when it does: in place of a value, and never kept. Who waits for
/// the load without expecting it gets it as an error.
#[derive(Debug)]
pub(crate) struct Nothing;

impl fmt::Display for Nothing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the source has nothing under this key")
    }
}

impl std::error::Error for Nothing {}

impl<V> From<V> for Loaded<V> {
    /// The value, of which nothing more is said.
    fn from(value: V) -> Self {
        Self::new(value)
    }
}

/// What was there before a load: stale, or fresh if the load is a renewal.
#[derive(Debug)]
#[non_exhaustive]
pub struct Previous<V> {
    /// The value.
    pub value: Arc<V>,
    /// How long ago its load began, or it was set.
    pub age: Duration,
    /// The validator of its source, if it had one.
    pub etag: Option<String>,
    /// When its source said that it was modified, if it did.
    pub last_modified: Option<String>,
}
