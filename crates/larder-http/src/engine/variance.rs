//! One response for all queries that mean the same (`No-Vary-Search`, draft-ietf-httpbis-no-vary-search).
//!
//! A response that says which parts of its query do not matter is kept under the name that all equivalent targets share: the
//! path, the query without those parts, and what it said. Which responses say what is known only from them. So what an
//! origin's responses have said lately is remembered ([`Variances`]), and kept in the store beside them, where it outlives the
//! process and other processes find it. A target is then looked for under its own name, and under one for each of those.
//!
//! What is found is asked for its own word again ([`name`]), so that what is remembered only says where to look.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{join, try_join_all};
use http::request::Parts as Request;
use http::{HeaderMap, Response, StatusCode};
use parking_lot::RwLock;
use xxhash_rust::xxh3::xxh3_64;

use super::flights::Since;
use super::{LIFE_MAX, Shared};
use crate::header::{NO_VARY_SEARCH, NoVarySearch};
use crate::policy::{Exchange, Kept, Mark, Selecting, Stored};
use crate::store::{ResponseId, StoredBody, StoredResponse, Variants};
use crate::{Body, TARGET_BYTES_MAX};

/// The most that is remembered of one origin. Servers should send no more than one for a path, and few send several.
const PER_ORIGIN_MAX: usize = 8;
/// The most origins of which something is remembered.
const ORIGINS_MAX: usize = 10_000;
/// How old may be what is known of the store's memory of an origin.
const REFRESH: Duration = Duration::from_secs(10);
/// How long what was written to the store is taken to be there.
const REWRITE: Duration = Duration::from_secs(10 * 60);
/// What the store's memory of an origin is called, before the origin. No target begins like this.
const NOTES: &str = "no-vary-search ";

/// What origins' responses said lately.
#[derive(Debug, Default)]
pub(super) struct Variances {
    /// Whether any said anything: hits of all others take no lock.
    is_any: AtomicBool,
    origins: RwLock<HashMap<Box<str>, Known>>,
}

/// What one origin's responses said, the latest first. Times are on the monotonic clock.
#[derive(Debug, Default)]
struct Known {
    said: Vec<Said>,
    loaded_at: Option<Duration>,
}

#[derive(Debug)]
struct Said {
    search: Arc<NoVarySearch>,
    written_at: Option<Duration>,
}

impl Variances {
    /// Where a response to a target may be kept, beside under its own name.
    fn names(&self, target: &str) -> Vec<String> {
        if !self.is_any.load(Ordering::Acquire) {
            return Vec::new();
        }
        let origins = self.origins.read();
        let said = origins.get(origin(target)).map_or(&[][..], |known| &known.said);
        said.iter().filter_map(|said| shared_name(target, &said.search)).collect()
    }

    /// Remembers what a response said. True if it is new.
    pub(super) fn learn(&self, target: &str, search: &Arc<NoVarySearch>) -> bool {
        self.with(target, |known| known.learn(search, None))
    }

    /// Whether it is time to write down what a response said.
    fn is_to_write(&self, target: &str, search: &NoVarySearch, now: Duration) -> bool {
        self.with(target, |known| {
            let Some(said) = known.said.iter_mut().find(|said| *said.search == *search) else { return true };
            let is_due = said.written_at.is_none_or(|at| now.saturating_sub(at) >= REWRITE);
            if is_due {
                said.written_at = Some(now);
            }
            is_due
        })
    }

    /// Whether it is time to read what the store remembers. Whoever is told so reads it; others go on with what is known,
    /// unless nothing was read yet.
    fn is_to_load(&self, target: &str, now: Duration) -> bool {
        let is_recent = |known: &Known| known.loaded_at.is_some_and(|at| now.saturating_sub(at) < REFRESH);
        if self.origins.read().get(origin(target)).is_some_and(is_recent) {
            return false;
        }
        self.with(target, |known| {
            if known.loaded_at.is_some() {
                known.loaded_at = Some(now);
            }
            true
        })
    }

    /// Adds what the store remembers; `None` if it does not answer.
    fn loaded(&self, target: &str, notes: Option<&Variants>, now: Duration) {
        self.with(target, |known| {
            known.loaded_at = Some(now);
            let Some(notes) = notes else { return };
            for said in &mut known.said {
                said.written_at = None;
            }
            for search in notes.responses().iter().filter_map(|note| note.stored.no_vary_search()) {
                known.learn(search, Some(now));
            }
        });
    }

    /// What was written may not be there any more.
    pub(super) fn forget_written(&self) {
        let mut origins = self.origins.write();
        for said in origins.values_mut().flat_map(|known| &mut known.said) {
            said.written_at = None;
        }
    }

    fn with<T>(&self, target: &str, work: impl FnOnce(&mut Known) -> T) -> T {
        let origin = origin(target);
        let mut origins = self.origins.write();
        if !origins.contains_key(origin) && origins.len() >= ORIGINS_MAX {
            // What is forgotten is read again.
            origins.clear();
        }
        let known = origins.entry(origin.into()).or_default();
        let result = work(known);
        if !known.said.is_empty() {
            self.is_any.store(true, Ordering::Release);
        }
        result
    }
}

impl Known {
    fn learn(&mut self, search: &Arc<NoVarySearch>, written_at: Option<Duration>) -> bool {
        let before = self.said.iter().position(|said| said.search == *search);
        let before = before.map(|at| self.said.remove(at));
        let written_at = written_at.or(before.as_ref().and_then(|before| before.written_at));
        self.said.insert(0, Said { search: Arc::clone(search), written_at });
        self.said.truncate(PER_ORIGIN_MAX);
        before.is_none()
    }
}

impl Shared {
    /// A fresh response that is in memory, or whose head is.
    pub(super) async fn at_once(&self, request: &Request, target: &str) -> Option<Response<Body>> {
        if let Some(variants) = self.store.peek(target)
            && let Some(response) = self.fresh(request, &variants).await
        {
            return Some(response);
        }
        for name in self.variances.names(target) {
            if let Some(found) = self.store.peek(&name)
                && let Some(response) = self.fresh(request, &equivalent(&found, target, &name)).await
            {
                return Some(response);
            }
        }
        None
    }

    /// What is stored for a target, and for those that are equivalent to it.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn look(&self, target: &str) -> larder::Result<Arc<Variants>> {
        let (own, names) = join(self.store.get(target), self.names(target)).await;
        let own = own?.unwrap_or_default();
        if names.is_empty() {
            return Ok(own);
        }
        let found = try_join_all(names.iter().map(|name| self.store.get(name))).await?;
        let found = found.into_iter().zip(&names);
        let others: Vec<_> = found
            .filter_map(|(found, name)| found.map(|found| equivalent(&found, target, name)))
            .flat_map(|found| found.responses().to_vec())
            .collect();
        if others.is_empty() {
            return Ok(own);
        }
        Ok(Arc::new(Variants::new(own.responses().iter().cloned().chain(others))))
    }

    /// Where a response to a target may be kept, beside under its own name, as far as the store and this process know.
    pub(super) async fn names(&self, target: &str) -> Vec<String> {
        if self.variances.is_to_load(target, self.clock.monotonic()) {
            let notes = self.note(self.store.get(&notes(target)).await).map(Option::unwrap_or_default);
            self.variances.loaded(target, notes.as_deref(), self.clock.monotonic());
        }
        self.variances.names(target)
    }

    /// Whether a response that was asked for at `since`, and is kept under this name, may still be kept.
    pub(super) fn is_valid(&self, since: Since, target: &str, name: &str, has_tags: bool) -> bool {
        self.flights.is_valid(since, target, has_tags) && self.flights.is_valid(since, name, has_tags)
    }

    /// Writes down what a response said about its query, for those who look for it later.
    pub(super) async fn note_variance(&self, target: &str, stored: &Stored) {
        let Some(search) = stored.no_vary_search() else { return };
        if !self.variances.is_to_write(target, search, self.clock.monotonic()) {
            return;
        }
        let now = self.now();
        let headers = HeaderMap::from_iter([(NO_VARY_SEARCH, search.to_value())]);
        let kept = Kept {
            status: StatusCode::OK,
            headers,
            selecting: Selecting::default(),
            range: None,
            times: Exchange::at(now),
            body_bytes: Some(0),
            mark: Mark::None,
        };
        let delete_at = now.checked_add(LIFE_MAX).unwrap_or(now);
        let body = StoredBody::from_bytes(bytes::Bytes::new());
        let note = Stored::new(&self.policy, kept);
        let note = Arc::new(StoredResponse::new(ResponseId::random(), note, delete_at, body));
        let change = |notes: &Variants| {
            let others =
                notes.responses().iter().filter(|other| other.stored.no_vary_search() != Some(search));
            let others: Vec<_> = others.cloned().collect();
            let excess = (others.len() + 1).saturating_sub(PER_ORIGIN_MAX);
            Some(Variants::new(others.into_iter().skip(excess).chain([Arc::clone(&note)])))
        };
        self.note(self.store.change(&notes(target), &change).await);
    }
}

/// What a response to a target is kept under: the target, unless it says that other queries mean the same.
pub(super) fn name<'a>(target: &'a str, stored: &Stored) -> Cow<'a, str> {
    let shared = stored.no_vary_search().and_then(|search| shared_name(target, search));
    shared.map_or(Cow::Borrowed(target), Cow::Owned)
}

/// What all targets share that are equivalent to this one; `None` if it is too long for a name.
fn shared_name(target: &str, search: &NoVarySearch) -> Option<String> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let said = xxh3_64(search.to_value().as_bytes());
    // A target has no fragment, so this is none.
    let name = format!("{path}?{}#no-vary-search={said:016x}", search.normalize(query));
    (name.len() <= TARGET_BYTES_MAX).then_some(name)
}

/// Those of the responses that are for this target, too, by what they say themselves.
fn equivalent(found: &Variants, target: &str, name: &str) -> Variants {
    let is_for = |response: &&Arc<StoredResponse>| self::name(target, &response.stored) == name;
    Variants::new(found.responses().iter().filter(is_for).cloned())
}

/// Whether this is the name of what the cache notes for itself.
pub(super) fn is_note(name: &str) -> bool {
    name.starts_with(NOTES)
}

fn notes(target: &str) -> String {
    format!("{NOTES}{}", origin(target))
}

/// Scheme, host and port.
fn origin(target: &str) -> &str {
    let host = target.find("://").map_or(0, |at| at + 3);
    let path = target.get(host..).and_then(|rest| rest.find('/')).map_or(target.len(), |at| host + at);
    target.get(..path).unwrap_or(target)
}
