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
use std::time::{Duration, SystemTime};

use futures_util::future::{join, join_all};
use http::request::Parts as Request;
use http::{HeaderMap, Response, StatusCode};
use parking_lot::{Mutex, RwLock};
use xxhash_rust::xxh3::xxh3_64;

use super::flights::{Flights, Since, hash};
use super::{LIFE_MAX, Shared};
use crate::header::{NO_VARY_SEARCH, NoVarySearch};
use crate::policy::{Exchange, Kept, Mark, Selecting, Stored};
use crate::store::{ResponseId, StoredBody, StoredResponse, Variants};
use crate::{Body, TARGET_BYTES_MAX};

/// The most that is remembered of one origin. Servers should send no more than one for a path, and few send several.
const PER_ORIGIN_MAX: usize = 32;
/// The most origins of which something is remembered.
const ORIGINS_MAX: usize = 10_000;
/// How old may be what is known of the store's memory of an origin.
const REFRESH: Duration = Duration::from_secs(10);
/// How long it is taken for granted that what was noted is still there.
const RENOTE: Duration = Duration::from_secs(10 * 60);
/// What the store's memory of an origin is called, before the origin. No target begins like this.
const NOTES: &str = "no-vary-search ";
/// What stands before what a response said, in the name that it is kept under. No target has it.
const SAID: &str = "#no-vary-search=";

/// What origins' responses said lately.
#[derive(Debug, Default)]
pub(super) struct Variances {
    /// Whether any said anything: hits of all others take no lock.
    is_any: AtomicBool,
    /// By the hash of the origin. That two have the same does no harm: this only says where to look.
    origins: RwLock<HashMap<u64, Known>>,
}

/// What one origin's responses said, the latest first. Times are on the monotonic clock, but for those of responses.
#[derive(Debug, Default)]
struct Known {
    said: Vec<Said>,
    loaded_at: Option<Duration>,
}

#[derive(Debug)]
struct Said {
    search: Arc<NoVarySearch>,
    /// Since when it has been known: whoever purged something before may not have known what to purge.
    since: SystemTime,
    /// How many invalidations there had been when it became known here.
    nth: u64,
    tried_at: Option<Duration>,
    is_noted: bool,
}

/// Where a response may be.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) name: String,
    since: SystemTime,
}

impl Variances {
    /// Where a response to a target may be kept, beside under its own name.
    fn places(&self, target: &str) -> Vec<Place> {
        if !self.is_any.load(Ordering::SeqCst) {
            return Vec::new();
        }
        let said: Vec<_> = match self.origins.read().get(&hash(origin(target))) {
            None => return Vec::new(),
            Some(known) => known.said.iter().map(|said| (Arc::clone(&said.search), said.since)).collect(),
        };
        let place = |(search, since): (Arc<NoVarySearch>, _)| {
            Some(Place { name: shared_name(target, &search)?, since })
        };
        said.into_iter().filter_map(place).collect()
    }

    /// Remembers what a response said that was asked for then. Returns how many invalidations there had been when it became
    /// known.
    pub(super) fn learn(
        &self,
        target: &str,
        search: &Arc<NoVarySearch>,
        asked_at: SystemTime,
        flights: &Flights,
    ) -> u64 {
        // Whoever invalidates something after this looks for what is remembered.
        self.is_any.store(true, Ordering::SeqCst);
        self.with(target, |known| {
            let before = known.said.iter().position(|said| said.search == *search);
            let said = match before.map(|at| known.said.remove(at)) {
                Some(said) => said,
                None => Said::new(search, asked_at, flights.count()),
            };
            let nth = said.nth;
            known.said.insert(0, said);
            known.said.truncate(PER_ORIGIN_MAX);
            nth
        })
    }

    /// Since when it is known what a response said, if it is time to note that.
    fn to_note(
        &self,
        target: &str,
        stored: &Stored,
        search: &NoVarySearch,
        now: Duration,
    ) -> Option<SystemTime> {
        let asked_at = stored.kept().times.requested_at;
        self.with(target, |known| {
            let Some(said) = known.said.iter_mut().find(|said| *said.search == *search) else {
                return Some(asked_at);
            };
            let patience = if said.is_noted { RENOTE } else { REFRESH };
            let is_due = said.tried_at.is_none_or(|at| now.saturating_sub(at) >= patience);
            is_due.then(|| {
                said.tried_at = Some(now);
                said.since
            })
        })
    }

    fn noted(&self, target: &str, search: &NoVarySearch) {
        self.with(target, |known| {
            if let Some(said) = known.said.iter_mut().find(|said| *said.search == *search) {
                said.is_noted = true;
            }
        });
    }

    /// Whether it is time to read what the store remembers. Whoever is told so reads it; others go on with what is known,
    /// unless nothing was read yet.
    fn is_to_load(&self, target: &str, now: Duration) -> bool {
        let is_recent = |known: &Known| known.loaded_at.is_some_and(|at| now.saturating_sub(at) < REFRESH);
        if self.origins.read().get(&hash(origin(target))).is_some_and(is_recent) {
            return false;
        }
        self.with(target, |known| {
            if known.loaded_at.is_some() {
                known.loaded_at = Some(now);
            }
        });
        true
    }

    /// Takes over what the store remembers; `None` if it does not answer. What was noted and is not there any more is
    /// forgotten: others do not know it either.
    fn loaded(&self, target: &str, notes: Option<&Variants>, now: Duration, flights: &Flights) {
        if notes.is_some_and(|notes| !notes.is_empty()) {
            self.is_any.store(true, Ordering::SeqCst);
        }
        self.with(target, |known| {
            known.loaded_at = Some(now);
            let Some(notes) = notes else { return };
            let noted = || notes.responses().iter().rev().filter_map(|note| said_by(note));
            known.said.retain(|said| !said.is_noted || noted().any(|(search, _)| *search == said.search));
            for (search, since) in noted() {
                let is_full = known.said.len() >= PER_ORIGIN_MAX;
                match known.said.iter_mut().find(|said| said.search == *search) {
                    Some(said) => said.is_noted_since(since, now),
                    None if is_full => break,
                    None => {
                        let mut said = Said::new(search, since, flights.count());
                        said.is_noted_since(since, now);
                        known.said.push(said);
                    }
                }
            }
        });
    }

    /// What was noted may not be there any more.
    pub(super) fn forget_notes(&self) {
        let mut origins = self.origins.write();
        for said in origins.values_mut().flat_map(|known| &mut known.said) {
            (said.is_noted, said.tried_at) = (false, None);
        }
    }

    fn with<T>(&self, target: &str, work: impl FnOnce(&mut Known) -> T) -> T {
        let origin = hash(origin(target));
        let mut origins = self.origins.write();
        if !origins.contains_key(&origin) && origins.len() >= ORIGINS_MAX {
            // What is forgotten is read again.
            origins.retain(|_, known| !known.said.is_empty());
            if origins.len() >= ORIGINS_MAX {
                origins.clear();
            }
        }
        work(origins.entry(origin).or_default())
    }
}

impl Said {
    fn new(search: &Arc<NoVarySearch>, since: SystemTime, nth: u64) -> Self {
        Self { search: Arc::clone(search), since, nth, tried_at: None, is_noted: false }
    }

    fn is_noted_since(&mut self, since: SystemTime, now: Duration) {
        (self.since, self.is_noted) = (since, true);
        self.tried_at.get_or_insert(now);
    }
}

impl Shared {
    /// A fresh response that is in memory, or whose head is.
    pub(super) async fn at_once(&self, request: &Request, target: &str) -> Option<Response<Body>> {
        let own = self.store.peek(target);
        let mut others = Vec::new();
        for place in self.variances.places(target) {
            if let Some(found) = self.store.peek(&place.name) {
                others.extend(equivalent(&found, target, &place));
            }
        }
        let variants = if others.is_empty() { own? } else { with_others(own.as_deref(), others) };
        self.fresh(request, &variants).await
    }

    /// What is stored for a target, and for those that are equivalent to it.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn look(&self, target: &str) -> larder::Result<Arc<Variants>> {
        let (own, places) = join(self.store.get(target), self.places(target)).await;
        let own = own?.unwrap_or_default();
        let found = join_all(places.iter().map(|place| self.store.get(&place.name))).await;
        let found = found.into_iter().zip(&places).filter_map(|(found, place)| {
            let found = self.note(found).flatten()?;
            Some(equivalent(&found, target, place))
        });
        let others: Vec<_> = found.flatten().collect();
        Ok(if others.is_empty() { own } else { with_others(Some(&own), others) })
    }

    /// Where a response to a target may be kept, beside under its own name, as far as is known.
    pub(super) async fn places(&self, target: &str) -> Vec<Place> {
        if self.variances.is_to_load(target, self.clock.monotonic()) {
            let loaded = self.load(target).await;
            self.note(loaded);
        }
        self.variances.places(target)
    }

    /// The same, as far as the store knows at this moment: for what has to go.
    pub(super) async fn places_now(&self, target: &str) -> (Vec<Place>, larder::Result<()>) {
        let loaded = self.load(target).await;
        (self.variances.places(target), loaded)
    }

    async fn load(&self, target: &str) -> larder::Result<()> {
        let found = Mutex::new(None);
        // A change that changes nothing sees what is in the store, and not a copy of it in memory.
        let look = |notes: &Variants| {
            *found.lock() = Some(notes.clone());
            None
        };
        let looked = self.store.change(&notes(target), &look).await;
        let found = found.into_inner().filter(|_| looked.is_ok());
        self.variances.loaded(target, found.as_ref(), self.clock.monotonic(), &self.flights);
        looked
    }

    /// Whether a response that was asked for at `since`, and is kept under this name, may still be kept.
    pub(super) fn is_valid(&self, since: Since, target: &str, name: &str, has_tags: bool) -> bool {
        self.flights.is_valid(since, target, has_tags) && self.flights.is_valid(since, name, has_tags)
    }

    /// Notes what a response said about its query, for those who look for it later.
    pub(super) async fn note_variance(&self, target: &str, stored: &Stored) {
        let Some(search) = stored.no_vary_search() else { return };
        let Some(since) = self.variances.to_note(target, stored, search, self.clock.monotonic()) else {
            return;
        };
        let now = self.now();
        let (id, delete_at) = (ResponseId::random(), now.checked_add(LIFE_MAX).unwrap_or(now));
        let change = |notes: &Variants| {
            let of_it = |note: &&Arc<StoredResponse>| note.stored.no_vary_search() == Some(search);
            let before = notes.responses().iter().find(of_it);
            if before.is_some_and(|note| note.delete_at > now + LIFE_MAX / 2) {
                return None;
            }
            let since = before.and_then(said_by).map_or(since, |(_, since)| since);
            let stored = Stored::new(&self.policy, note(search, since, now));
            let body = StoredBody::from_bytes(bytes::Bytes::new());
            let newer = Arc::new(StoredResponse::new(id, stored, delete_at, body));
            let others: Vec<_> = notes.responses().iter().filter(|note| !of_it(note)).cloned().collect();
            let excess = (others.len() + 1).saturating_sub(PER_ORIGIN_MAX);
            Some(Variants::new(others.into_iter().skip(excess).chain([newer])))
        };
        let noted = self.store.change(&notes(target), &change).await;
        if self.note(noted).is_some() {
            self.variances.noted(target, search);
        }
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
    let said = xxh3_64(search.value().as_bytes());
    let name = format!("{path}?{}{SAID}{said:016x}", search.normalize(query));
    (name.len() <= TARGET_BYTES_MAX).then_some(name)
}

/// Whether this is a name that equivalent targets share.
pub(super) fn is_shared(name: &str) -> bool {
    name.contains(SAID)
}

/// Those of the responses that are for this target, too, by what they say themselves.
fn equivalent(found: &Variants, target: &str, place: &Place) -> Vec<Arc<StoredResponse>> {
    let is_for = |response: &&Arc<StoredResponse>| {
        response.stored.kept().times.requested_at >= place.since
            && name(target, &response.stored) == place.name
    };
    found.responses().iter().filter(is_for).cloned().collect()
}

fn with_others(own: Option<&Variants>, others: Vec<Arc<StoredResponse>>) -> Arc<Variants> {
    let own = own.map_or(&[][..], Variants::responses);
    Arc::new(Variants::new(own.iter().cloned().chain(others)))
}

/// What is noted: that an origin's responses say so, and since when that is known.
fn note(search: &NoVarySearch, since: SystemTime, now: SystemTime) -> Kept {
    Kept {
        status: StatusCode::OK,
        headers: HeaderMap::from_iter([(NO_VARY_SEARCH, search.value().clone())]),
        selecting: Selecting::default(),
        range: None,
        times: Exchange { requested_at: since, received_at: now },
        body_bytes: Some(0),
        mark: Mark::None,
    }
}

fn said_by(note: &Arc<StoredResponse>) -> Option<(&Arc<NoVarySearch>, SystemTime)> {
    Some((note.stored.no_vary_search()?, note.stored.kept().times.requested_at))
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
