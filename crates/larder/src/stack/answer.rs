//! What a loader is asked and what it answers, without types; and the entry that an answer becomes.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::entry::{AnyValue, Entry, Extras, Meta};
use crate::error::Result;
use crate::options::EntryOptions;
use crate::stack::renewal;
use crate::tag::Tag;
use crate::time::{Stamp, Timestamp, Ttl};

/// A key that a loader is asked for, and what was there before.
pub(crate) struct Asked {
    pub(crate) key: String,
    pub(crate) previous: Option<Entry>,
    pub(crate) now: Timestamp,
}

/// What a loader says of one key.
pub(crate) struct Answer {
    /// `None` if the previous value holds.
    pub(crate) value: Option<AnyValue>,
    pub(crate) ttl: Option<Ttl>,
    pub(crate) grace: Option<Duration>,
    pub(crate) tags: Option<Box<[Tag]>>,
    pub(crate) etag: Option<Box<str>>,
    pub(crate) last_modified: Option<Box<str>>,
}

impl Answer {
    /// A value of which nothing more is said.
    pub(crate) fn plain(value: AnyValue) -> Self {
        Self { value: Some(value), ttl: None, grace: None, tags: None, etag: None, last_modified: None }
    }

    /// What its entry carries: what the loader says, else what held before or what the call says.
    fn extras(&self, call: Option<&Arc<Extras>>, previous: Option<&Entry>) -> Option<Arc<Extras>> {
        let known = match (&self.value, previous) {
            (None, Some(previous)) => previous.meta.extras.as_ref(),
            _ => call,
        };
        if self.tags.is_none() && self.etag.is_none() && self.last_modified.is_none() {
            return known.cloned();
        }
        let mut extras = known.map(|known| Extras::clone(known)).unwrap_or_default();
        if let Some(tags) = &self.tags {
            extras.tags.clone_from(tags);
        }
        extras.etag = self.etag.clone().or(extras.etag);
        extras.last_modified = self.last_modified.clone().or(extras.last_modified);
        Some(Arc::new(extras))
    }

    /// The entry of this answer: what it leaves out the call says. `None` if the previous value should hold, and
    /// there is none.
    pub(crate) fn entry(
        self,
        previous: Option<&Entry>,
        call: &EntryOptions,
        extras: Option<&Arc<Extras>>,
        (stamp, took): (Stamp, Duration),
        now: Timestamp,
    ) -> Option<Entry> {
        let extras = self.extras(extras, previous);
        let said = EntryOptions { ttl: self.ttl, grace: self.grace, ..EntryOptions::default() };
        let options = said.or(call);
        let mut meta = Meta::new(stamp, now, renewal::ttl(&options, stamp), options.grace_or_default());
        meta.extras = extras;
        renewal::note(&mut meta, &options, Some(took), now);
        let value = self.value.or_else(|| previous.map(|previous| Arc::clone(&previous.value)))?;
        Some(Entry { value, meta })
    }
}

/// What a loader returned for each key that it was asked for.
pub(crate) type Loads = Vec<(String, Result<Answer>)>;
/// A loader without its types: keys in, values out.
pub(crate) type BoxLoad = Box<dyn FnOnce(Vec<Asked>) -> BoxFuture<'static, Result<Loads>> + Send>;
