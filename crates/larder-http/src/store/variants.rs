//! What is kept for one target.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::request::Parts as Request;
use larder::time::Stamp;

use super::{Purge, StoredBody};
use crate::policy::{Mark, Policy, Selected, Stored};

/// Tells the responses of a target apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResponseId(pub u128);

impl ResponseId {
    /// One that nobody else has.
    pub fn random() -> Self {
        Self(super::random::random())
    }
}

/// A response as it is kept.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StoredResponse {
    /// Which of the target's responses it is. Another body is another one; new fields are not.
    pub id: ResponseId,
    /// Its head, with all that it takes to judge it.
    pub stored: Stored,
    /// What followed the status, where it was not what usually does.
    pub message: Option<String>,
    /// By what it can be invalidated.
    pub tags: Arc<[String]>,
    /// The fields after its body.
    pub trailers: Option<HeaderMap>,
    /// When it is of no use any more. A store may drop it then, and does not hand it out.
    pub delete_at: SystemTime,
    /// Its body.
    pub body: StoredBody,
    /// What [`HttpStore::begin`](super::HttpStore::begin) said before the request was sent that it answers: an invalidation
    /// since then means it, too. Unless told, that is judged by [`Exchange::requested_at`](crate::policy::Exchange), to the
    /// millisecond. Not kept.
    pub began: Option<Stamp>,
}

impl StoredResponse {
    /// A response that ended well.
    pub fn new(id: ResponseId, stored: Stored, delete_at: SystemTime, body: StoredBody) -> Self {
        let stored = stored.with_body_bytes(body.bytes());
        Self { id, stored, message: None, tags: Arc::new([]), trailers: None, delete_at, body, began: None }
    }

    /// What undici calls its `CacheValue`: all but the body, in plain fields.
    pub fn value(&self) -> CacheValue {
        let kept = self.stored.kept();
        let lifetime = self.stored.lifetime().duration;
        let cached_at = self.cached_at();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        CacheValue {
            status_code: kept.status.as_u16(),
            status_message: self
                .message
                .clone()
                .unwrap_or_else(|| kept.status.canonical_reason().unwrap_or_default().to_owned()),
            raw_headers: kept
                .headers
                .iter()
                .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
                .collect(),
            vary: kept
                .selecting
                .pairs()
                .map(|(name, value)| (name.as_str().to_owned(), value.map(text)))
                .collect(),
            cached_at,
            stale_at: cached_at.checked_add(lifetime).unwrap_or(self.delete_at),
            delete_at: self.delete_at,
        }
    }

    /// Whether it can be invalidated by one of these.
    pub fn has_tag(&self, tags: &[&str]) -> bool {
        self.tags.iter().any(|tag| tags.contains(&tag.as_str()))
    }

    /// When its age was zero.
    fn cached_at(&self) -> SystemTime {
        let received_at = self.stored.kept().times.received_at;
        received_at.checked_sub(self.stored.age(received_at)).unwrap_or(received_at)
    }

    /// How many bytes it takes, about.
    pub fn weight(&self) -> u64 {
        let fields = |fields: &HeaderMap| {
            fields.iter().map(|(name, value)| (name.as_str().len() + value.len() + 32) as u64).sum::<u64>()
        };
        256 + fields(self.stored.headers()) + self.trailers.as_ref().map_or(0, fields) + self.body.bytes()
    }
}

/// A response without its body, in plain fields: how undici's cache stores have it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheValue {
    /// The status.
    pub status_code: u16,
    /// What followed the status.
    pub status_message: String,
    /// The fields, in the order in which they came; several lines of one name together.
    pub raw_headers: Vec<(String, Vec<u8>)>,
    /// What the fields that `Vary` names were in the request; `None` for those that were not there.
    pub vary: Vec<(String, Option<String>)>,
    /// When it came, less the age that it came with.
    pub cached_at: SystemTime,
    /// When it becomes stale.
    pub stale_at: SystemTime,
    /// When it is deleted.
    pub delete_at: SystemTime,
}

/// The responses that are kept for one target, told apart by `Vary` and by ranges.
#[derive(Debug, Clone, Default)]
pub struct Variants {
    responses: Vec<Arc<StoredResponse>>,
}

impl Variants {
    /// These responses.
    pub fn new(responses: impl IntoIterator<Item = Arc<StoredResponse>>) -> Self {
        Self { responses: responses.into_iter().collect() }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.responses.is_empty()
    }

    /// Those that may still be handed out.
    #[must_use]
    pub fn living(&self, now: SystemTime) -> Self {
        Self::new(self.responses.iter().filter(|response| response.delete_at > now).cloned())
    }

    /// All of them.
    pub fn responses(&self) -> &[Arc<StoredResponse>] {
        &self.responses
    }

    /// The one that was given this id.
    pub fn by_id(&self, id: ResponseId) -> Option<&Arc<StoredResponse>> {
        self.responses.iter().find(|response| response.id == id)
    }

    /// The one that is meant for a request, with the policy's word for it.
    pub fn select(
        &self,
        policy: &Policy,
        request: &Request,
        now: SystemTime,
    ) -> (Option<&Arc<StoredResponse>>, Selected<'_>) {
        let living = self.responses.iter().filter(|response| response.delete_at > now);
        let selected = policy.select(request, living.map(|response| &response.stored));
        let Selected::One(stored) = selected else { return (None, selected) };
        let of = self.responses.iter().find(|response| std::ptr::eq(&raw const response.stored, stored));
        (of, selected)
    }

    /// The same with a newer response, and without the one that it replaces, those that are of no use any more, and the
    /// oldest if there are too many.
    #[must_use]
    pub fn with(&self, policy: &Policy, newer: Arc<StoredResponse>, now: SystemTime) -> Self {
        let mut responses: Vec<_> = self
            .responses
            .iter()
            .filter(|response| response.delete_at > now && response.id != newer.id)
            .cloned()
            .collect();
        while let Some(at) =
            policy.makes_room(&newer.stored, responses.iter().map(|response| &response.stored))
        {
            responses.remove(at);
        }
        responses.push(newer);
        Self { responses }
    }

    /// The same without one response. `None` if it is not there.
    pub fn without(&self, id: ResponseId) -> Option<Self> {
        self.by_id(id)?;
        Some(Self::new(self.responses.iter().filter(|response| response.id != id).cloned()))
    }

    /// The same without these responses. `None` if none of them is there.
    pub(crate) fn without_all(&self, ids: &[ResponseId]) -> Option<Self> {
        self.responses.iter().find(|response| ids.contains(&response.id))?;
        Some(Self::new(self.responses.iter().filter(|response| !ids.contains(&response.id)).cloned()))
    }

    /// The same with a response in place of the one with its id. `None` if that is not there any more.
    pub fn updated(&self, newer: &Arc<StoredResponse>) -> Option<Self> {
        self.by_id(newer.id)?;
        let swap = |response: &Arc<StoredResponse>| {
            Arc::clone(if response.id == newer.id { newer } else { response })
        };
        Some(Self::new(self.responses.iter().map(swap)))
    }

    /// The same after those that `which` names were purged. `None` if it names none.
    pub fn purged(&self, how: Purge, which: impl Fn(&StoredResponse) -> bool) -> Option<Self> {
        if !self.responses.iter().any(|response| which(response)) {
            return None;
        }
        let left = self.responses.iter().filter_map(|response| match how {
            _ if !which(response) => Some(Arc::clone(response)),
            Purge::Hard => None,
            Purge::Soft if response.stored.kept().mark == Mark::Invalid => Some(Arc::clone(response)),
            Purge::Soft => {
                let mut stale = StoredResponse::clone(response);
                stale.stored = stale.stored.marked(Mark::Stale);
                Some(Arc::new(stale))
            }
        });
        Some(Self::new(left))
    }

    /// The tags of all of them, once each.
    pub fn tags(&self) -> Vec<&str> {
        let mut tags: Vec<&str> =
            self.responses.iter().flat_map(|response| response.tags.iter()).map(String::as_str).collect();
        tags.sort_unstable();
        tags.dedup();
        tags
    }

    /// How long it is until the last of them is of no use any more.
    pub fn life_left(&self, now: SystemTime) -> Duration {
        let last = self.responses.iter().map(|response| response.delete_at).max();
        last.and_then(|last| last.duration_since(now).ok()).unwrap_or_default()
    }

    /// How many bytes they take, about.
    pub fn weight(&self) -> u64 {
        self.responses.iter().map(|response| response.weight()).sum()
    }
}
