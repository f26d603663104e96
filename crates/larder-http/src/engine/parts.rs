//! Parts that are stored: those that meet answer together what none of them answers alone, and where the whole is asked for,
//! the origin is asked for what is missing only (RFC 9111 sections 3.3 and 3.4). What belongs together is the policy's word.

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use http::request::Parts as Request;
use http::{HeaderMap, Response, StatusCode};

use super::chained::Chained;
use super::fetch::Instead;
use super::flights::Lead;
use super::respond::{Missing, part_of};
use super::{Ask, Handled, Shared};
use crate::Body;
use crate::header::{NoVarySearch, Span};
use crate::origin::{OriginError, Redirected, StatusMessage};
use crate::policy::{Completed, Freshened, Policy, Reason, Selected, Stored, Verdict};
use crate::store::{JoinedBody, ResponseId, StoredBody, StoredResponse, Variants};

/// Stored parts as one response.
#[derive(Debug)]
pub(super) struct Together {
    response: Arc<StoredResponse>,
    body: Arc<JoinedBody>,
    /// Whose fields are in it. All are kept under one name.
    parts: Vec<Arc<StoredResponse>>,
    /// Whose bytes each run of its body has.
    runs: Vec<Arc<StoredResponse>>,
}

/// A part, and which bytes of the whole it has.
type Part<'a> = (Span, &'a Arc<StoredResponse>);

impl Together {
    /// The parts that answer a request which no stored response answers alone, and why they may.
    pub(super) fn answering(
        policy: &Policy,
        request: &Request,
        variants: &Variants,
        verdict: &Verdict,
        now: SystemTime,
    ) -> Option<(Self, Reason)> {
        let (Verdict::Miss { reason: Reason::Partial } | Verdict::GatewayTimeout { .. }) = verdict else {
            return None;
        };
        meeting(request, variants, now).into_iter().find_map(|parts| {
            let is_all = |(_, part): &Part<'_>| {
                let (held, complete_bytes) = part.stored.held();
                held.is_some() && held == complete_bytes.and_then(Span::whole)
            };
            if parts.len() == 1 && !parts.iter().all(is_all) {
                // Alone, it was found wanting.
                return None;
            }
            let together = Self::of(policy, parts)?;
            let selected = Selected::One(&together.response.stored);
            match policy.verdict(request, selected, now) {
                Verdict::Serve { reason, .. } => Some((together, reason)),
                _ => None,
            }
        })
    }

    /// The parts that the rest can be asked for, and the fields to ask with: of those that are of the same as the newest,
    /// those that have most.
    fn lacking_the_rest(
        policy: &Policy,
        request: &Request,
        variants: &Variants,
        now: SystemTime,
    ) -> Option<(Self, HeaderMap)> {
        let can_be_completed = |parts: Vec<Part<'_>>| {
            let together = Self::of(policy, parts)?;
            let fields = together.response.stored.completion()?.request(request)?;
            Some((together, fields))
        };
        // What is all there, and stale, is asked for by one of its parts: the answer confirms that.
        let with_one = |parts: Vec<Part<'_>>| {
            let alone = || parts.iter().filter_map(|part| can_be_completed(vec![*part]));
            can_be_completed(parts.clone()).or_else(|| alone().max_by_key(|(one, _)| one.body.bytes()))
        };
        let mut found = meeting(request, variants, now).into_iter().filter_map(with_one);
        let newest = found.next()?;
        let stored = newest.0.response.stored.clone();
        let others = found.filter(|(other, _)| other.response.stored.is_of_same(&stored));
        others.chain([newest]).max_by_key(|(together, _)| together.body.bytes())
    }

    /// These parts, which meet.
    fn of(policy: &Policy, mut parts: Vec<Part<'_>>) -> Option<Self> {
        let runs = cover(&parts);
        parts.sort_by_key(|(_, part)| part.stored.kept().times.received_at);
        let heads: Vec<&Stored> = parts.iter().map(|(_, part)| &part.stored).collect();
        let stored = policy.combine_all(&heads)?;
        let (_, newest) = parts.last()?;
        let body = runs.iter().map(|(part, range)| (part.body.clone(), range.clone()));
        let body = Arc::new(JoinedBody::new(body));
        let runs = runs.iter().map(|(part, _)| Arc::clone(part)).collect();
        let reader = StoredBody::from_reader(body.bytes(), Arc::clone(&body) as _);
        let response = Arc::new(StoredResponse::new(newest.id, stored, newest.delete_at, reader));
        Some(Self { response, body, parts: parts.iter().map(|(_, part)| Arc::clone(part)).collect(), runs })
    }

    /// Whether a stored response is one of them.
    pub(super) fn has(&self, id: ResponseId) -> bool {
        self.parts.iter().any(|part| part.id == id)
    }

    /// Their bytes around those that arrive, which make them whole.
    async fn around(&self, arriving: Span, body: Body) -> Result<Body, Missing> {
        let Some(held) = self.response.stored.held().0 else { return Err(Missing::Gone) };
        let end = held.last + 1;
        let after = (arriving.last + 1).clamp(held.first, end) - held.first;
        let before = 0..arriving.first.min(end).saturating_sub(held.first);
        let stored = &self.response.body;
        let before = part_of(stored, before).await?;
        let after = part_of(stored, after..end - held.first).await?;
        Ok(Body::stream(Chained::new(before, body, arriving.bytes(), after)))
    }
}

/// The parts that may answer a request, those that meet together; first those with the part that came last.
fn meeting<'a>(request: &Request, variants: &'a Variants, now: SystemTime) -> Vec<Vec<Part<'a>>> {
    let is_meant = |part: &&Arc<StoredResponse>| {
        let stored = &part.stored;
        part.delete_at > now && stored.is_partial() && stored.kept().selecting.matches(&request.headers)
    };
    let parts = variants.responses().iter().filter(is_meant);
    let mut parts: Vec<Part<'a>> = parts.filter_map(|part| Some((part.stored.held().0?, part))).collect();
    parts.sort_by_key(|(span, _)| *span);
    let mut all: Vec<Vec<Part<'a>>> = Vec::new();
    for part in parts {
        let goes_with = |before: &&mut Vec<Part<'a>>| {
            // What says nothing of its kind is of the same as two that contradict each other.
            before.iter().all(|(_, before)| before.stored.is_of_same(&part.1.stored))
                && before.iter().any(|before| is_next(before, &part))
        };
        match all.iter_mut().find(goes_with) {
            Some(before) => before.push(part),
            None => all.push(vec![part]),
        }
    }
    all.sort_by_key(|parts| {
        let last = parts.iter().map(|(_, part)| part.stored.kept().times.received_at).max();
        std::cmp::Reverse(last)
    });
    all
}

/// Whether a part meets one that begins no later.
fn is_next((span, part): &Part<'_>, (next_span, next): &Part<'_>) -> bool {
    next_span.first <= span.last.saturating_add(1)
        && part.stored.held().1 == next.stored.held().1
        && part.stored.kept().selecting == next.stored.kept().selecting
        // They are kept under one name.
        && part.stored.no_vary_search() == next.stored.no_vary_search()
}

/// As few runs as have all the bytes of parts that meet, which are in the order in which they begin.
fn cover<'a>(parts: &[Part<'a>]) -> Vec<(&'a Arc<StoredResponse>, Range<u64>)> {
    let mut runs = Vec::new();
    let Some(mut at) = parts.first().map(|(span, _)| span.first) else { return runs };
    loop {
        let begun = parts.iter().take_while(|(span, _)| span.first <= at);
        let Some((span, part)) = begun.max_by_key(|(span, _)| span.last) else { return runs };
        if span.last < at {
            return runs;
        }
        runs.push((*part, at - span.first..span.last - span.first + 1));
        at = span.last + 1;
    }
}

impl Shared {
    /// Answers a request from parts that answer it together.
    pub(super) async fn answer_together(
        self: &Arc<Self>,
        ask: &Arc<Ask>,
        (together, reason): (Together, Reason),
        verdict: Verdict,
    ) -> Result<Response<Body>, OriginError> {
        let missing = match self.respond(&ask.request, &together.response, Handled::hit(reason), false).await
        {
            Ok(response) => {
                self.counts.hits.add();
                return Ok(response);
            }
            Err(missing) => missing,
        };
        self.counts.misses.add();
        self.forget_missing(ask, &together, missing).await;
        match verdict {
            Verdict::GatewayTimeout { reason } => Ok(self.generated(StatusCode::GATEWAY_TIMEOUT, reason)),
            _ => self.fetch(ask, Reason::NothingStored).await,
        }
    }

    /// Asks the origin for what no stored response answers: for the rest of it, if the others are stored.
    pub(super) async fn ask_origin(
        self: &Arc<Self>,
        ask: &Arc<Ask>,
        lead: Option<Lead>,
        reason: Reason,
    ) -> Result<Response<Body>, OriginError> {
        if reason != Reason::Partial {
            return self.exchange(ask, None, lead, reason).await;
        }
        // Before it is looked what there is: what is purged from here on is not kept in the whole either.
        let since = self.since();
        let variants = self.note(self.look(&ask.target).await).unwrap_or_default();
        let rest = Together::lacking_the_rest(&self.policy, &ask.request, &variants, self.now());
        let Some((together, fields)) = rest else { return self.exchange(ask, None, lead, reason).await };
        let (times, mut head, body, lead) = self.send(ask, Some(&fields), lead).await?;
        let stored = &together.response.stored;
        let came = match self.policy.after_completion(&ask.request, stored, &head, times) {
            // It is a part of something else.
            Completed::Whole(_) if head.extensions.get::<Redirected>().is_some() => {
                Completed::Refetch { is_superseded: false }
            }
            // It is to be found elsewhere than its parts, which can then not make room for it.
            Completed::Whole(whole)
                if NoVarySearch::parse(&whole.headers).as_ref()
                    != stored.no_vary_search().map(|was| &**was) =>
            {
                Completed::Refetch { is_superseded: true }
            }
            came => came,
        };
        match came {
            Completed::Whole(whole) => match together.around(whole.arriving, body).await {
                Ok(body) => {
                    head.status = StatusCode::OK;
                    head.headers = whole.headers;
                    // What followed the other status.
                    head.extensions.remove::<StatusMessage>();
                    let instead = Instead {
                        superseded: together.parts,
                        is_made_of_them: true,
                        forward_status: Some(StatusCode::PARTIAL_CONTENT),
                    };
                    let response = Response::from_parts(head, body);
                    let mut response =
                        self.conclude(ask, response, times, since, lead, reason, Some(instead)).await;
                    Freshened::put_in(response.headers_mut(), &whole.for_client);
                    Ok(response)
                }
                Err(missing) => {
                    self.forget_missing(ask, &together, missing).await;
                    self.exchange(ask, None, lead, reason).await
                }
            },
            Completed::Refetch { is_superseded } => {
                drop(body);
                if is_superseded {
                    self.forget_soon(ask, &together.parts).await;
                }
                self.exchange(ask, None, lead, reason).await
            }
            Completed::Replace { is_superseded } => {
                let instead = is_superseded.then(|| Instead::of(together.parts));
                let response = Response::from_parts(head, body);
                Ok(self.conclude(ask, response, times, since, lead, reason, instead).await)
            }
        }
    }

    /// Forgets the part that is gone. A store that fails takes nothing.
    async fn forget_missing(self: &Arc<Self>, ask: &Arc<Ask>, together: &Together, missing: Missing) {
        match missing {
            Missing::Gone => {
                self.counts.healed.add();
                let gone = together.body.gone().and_then(|nth| together.runs.get(nth..=nth));
                self.forget_soon(ask, gone.unwrap_or_default()).await;
            }
            Missing::Failed(error) => self.counts.store_failed(&error),
        }
    }
}
