//! A stored response: what has to be kept of it, and what follows from that.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, StatusCode};

use super::select::Selecting;
use super::terms::Terms;
use super::{Lifetime, Policy, age, freshness};
use crate::header::{ContentRange, EntityTag, NoVarySearch, Span, connection, groups};

/// When a request was sent and its response came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchange {
    /// When the request was sent.
    pub requested_at: SystemTime,
    /// When the head of the response was there.
    pub received_at: SystemTime,
}

impl Exchange {
    /// A response that came the moment it was asked for.
    pub fn at(time: SystemTime) -> Self {
        Self { requested_at: time, received_at: time }
    }
}

/// What somebody said about a stored response after it was stored; in order, the worse the later.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mark {
    /// Nothing.
    #[default]
    None,
    /// That it is stale, whatever it says itself.
    Stale,
    /// That it is not to be used without validation (RFC 9111 section 4.4).
    Invalid,
}

/// What has to be kept of a response, so that it can be judged later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its status.
    pub status: StatusCode,
    /// Its fields, without those of the connection.
    pub headers: HeaderMap,
    /// What the fields that `Vary` names were in the request.
    pub selecting: Selecting,
    /// The request's `Range`, if the response is partial.
    pub range: Option<HeaderValue>,
    /// When it came.
    pub times: Exchange,
    /// How many bytes its body has; `None` while it is still coming.
    pub body_bytes: Option<u64>,
    /// What was said about it since.
    pub mark: Mark,
}

/// A stored response, as a policy sees it. Judging it costs no parsing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    kept: Kept,
    pub(super) terms: Terms,
    lifetime: Lifetime,
    initial_age: Duration,
    generated_at: SystemTime,
    no_vary_search: Option<Arc<NoVarySearch>>,
}

impl Stored {
    /// Reads what was kept. The policy may be another one than when it was stored. Fields of a connection are taken out:
    /// [`Policy::store`] keeps none, and another store may not have been as careful.
    pub fn new(policy: &Policy, mut kept: Kept) -> Self {
        connection::strip(&mut kept.headers);
        let terms = Terms::of(policy, &kept.headers);
        let received_at = kept.times.received_at;
        let lifetime = freshness::lifetime(policy, &terms, kept.status, &kept.headers, received_at);
        let initial_age = age::initial(&kept.headers, kept.times);
        let generated_at = freshness::generated_at(&kept.headers, received_at);
        let no_vary_search = NoVarySearch::parse(&kept.headers).map(Arc::new);
        Self { kept, terms, lifetime, initial_age, generated_at, no_vary_search }
    }

    /// What has to be kept of it.
    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    /// What has to be kept of it, taken out.
    pub fn into_kept(self) -> Kept {
        self.kept
    }

    /// The same with another mark.
    #[must_use]
    pub fn marked(mut self, mark: Mark) -> Self {
        self.kept.mark = mark;
        self
    }

    /// The same, once it is known how many bytes its body has.
    #[must_use]
    pub fn with_body_bytes(mut self, bytes: u64) -> Self {
        self.kept.body_bytes = Some(bytes);
        self
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.kept.status
    }

    /// Its fields.
    pub fn headers(&self) -> &HeaderMap {
        &self.kept.headers
    }

    /// How long it is fresh.
    pub fn lifetime(&self) -> Lifetime {
        self.lifetime
    }

    /// How old it is (RFC 9111 section 4.2.3).
    pub fn age(&self, now: SystemTime) -> Duration {
        age::current(self.initial_age, self.kept.times.received_at, now)
    }

    /// Whether it is fresh.
    //= https://www.rfc-editor.org/rfc/rfc9111#section-4.2
    //# response_is_fresh = (freshness_lifetime > current_age)
    pub fn is_fresh(&self, now: SystemTime) -> bool {
        self.kept.mark == Mark::None && self.lifetime.duration > self.age(now)
    }

    /// How far past its freshness it is; zero if it is fresh.
    pub fn staleness(&self, now: SystemTime) -> Duration {
        match self.kept.mark {
            Mark::None => self.age(now).saturating_sub(self.lifetime.duration),
            // It ended no earlier than it came.
            _ => {
                let by_mark = now.duration_since(self.kept.times.received_at).unwrap_or_default();
                by_mark.max(self.age(now).saturating_sub(self.lifetime.duration))
            }
        }
    }

    /// The seconds of freshness that are left, as `Cache-Status` has them, rounded down: negative if and only if it is
    /// stale, also for the first moment, whatever it says of itself.
    //= https://www.rfc-editor.org/rfc/rfc9211#section-2.4
    //# The "ttl" parameter indicates the response's remaining freshness
    //# lifetime (see Section 4.2.1 of [HTTP-CACHING]) as calculated by the
    //# cache, as an integer number of seconds, measured as closely as
    //# possible to when the response header section is sent by the cache.
    //# This includes freshness assigned by the cache through, for example,
    //# heuristics (see Section 4.2.2 of [HTTP-CACHING]), local
    //# configuration, or other factors.  May be negative, to indicate
    //# staleness.
    pub fn ttl_seconds(&self, now: SystemTime) -> i64 {
        let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        if self.is_fresh(now) {
            return seconds(self.lifetime.duration.saturating_sub(self.age(now)));
        }
        // A second that has begun counts, and one has.
        let staleness = self.staleness(now).max(Duration::from_nanos(1));
        let begun = i64::from(staleness.subsec_nanos() > 0);
        -(seconds(staleness).saturating_add(begun))
    }

    /// Whether it is only a part of a representation.
    pub fn is_partial(&self) -> bool {
        self.kept.status == StatusCode::PARTIAL_CONTENT
    }

    /// The bytes of the representation that are there, and how many there are in all, as far as is known.
    pub fn held(&self) -> (Option<Span>, Option<u64>) {
        let bytes = self.kept.body_bytes;
        if !self.is_partial() {
            return (bytes.and_then(Span::whole), bytes);
        }
        let Some(range) = ContentRange::parse(&self.kept.headers) else { return (None, None) };
        // What the sender promised and did not send is not there.
        let held = range.span.zip(bytes).and_then(|(span, bytes)| {
            let last = span.first.checked_add(bytes.checked_sub(1)?)?;
            Span::new(span.first, last.min(span.last))
        });
        (held, range.complete_bytes)
    }

    /// Its entity tag.
    pub fn entity_tag(&self) -> Option<EntityTag<'_>> {
        EntityTag::of(&self.kept.headers)
    }

    /// What of its query does not matter; `None` if every byte of it does (draft-ietf-httpbis-no-vary-search).
    pub fn no_vary_search(&self) -> Option<&Arc<NoVarySearch>> {
        self.no_vary_search.as_ref()
    }

    /// The groups that it belongs to, among the responses of its origin (RFC 9875 section 2). What invalidates it may
    /// invalidate them too, and no further.
    pub fn groups(&self) -> Vec<String> {
        groups::parse(&self.kept.headers, &groups::CACHE_GROUPS)
    }

    pub(super) fn generated_at(&self) -> SystemTime {
        self.generated_at
    }

    pub(super) fn has_validator(&self) -> bool {
        self.entity_tag().is_some() || self.last_modified().is_some()
    }

    pub(super) fn last_modified(&self) -> Option<SystemTime> {
        let received_at = self.kept.times.received_at;
        freshness::single_date(&self.kept.headers, http::header::LAST_MODIFIED, received_at)
    }

    /// Whether nothing of it may be used without validation.
    pub(super) fn is_no_cache(&self) -> bool {
        self.kept.mark == Mark::Invalid || self.terms.is_no_cache()
    }
}
