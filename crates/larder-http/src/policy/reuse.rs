//! How a request is answered: from what is stored, by asking the origin, or not at all (RFC 9111 section 4).

use std::time::{Duration, SystemTime};

use http::request::Parts as Request;
use http::{HeaderMap, Method, header};

use super::storable::has_content;
use super::{Fallback, Mark, Policy, Reason, Selected, Stored};
use crate::header::{MaxStale, RequestDirectives};

/// What is to be done with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// Answer from what is stored.
    Serve {
        /// Its age.
        age: Duration,
        /// [`Reason::Fresh`], [`Reason::Immutable`] or [`Reason::MaxStale`].
        reason: Reason,
    },
    /// Answer from what is stored, and validate it meanwhile, once however many ask.
    ServeAndValidate {
        /// Its age.
        age: Duration,
        /// The fields of the validation request, see [`Policy::validation_request`].
        validation: HeaderMap,
    },
    /// Ask the origin, with these fields; what comes goes to [`Policy::after_validation`].
    Validate {
        /// The fields of the request. They have no condition if what is stored has no validator.
        validation: HeaderMap,
        /// What to do if the origin fails.
        fallback: Fallback,
        /// Why what is stored is not enough.
        reason: Reason,
    },
    /// Nothing that is stored can answer alone: ask the origin with the request as it is. Where parts are stored, they may
    /// answer together ([`Policy::combine_all`]); and where the whole is asked for, [`Stored::completion`] saves sending
    /// again what there is.
    Miss {
        /// Why.
        reason: Reason,
    },
    /// The request is none for a cache: pass it on. What is stored stays.
    Forward {
        /// Why.
        reason: Reason,
    },
    /// Answer 504: the client wanted only what is stored.
    GatewayTimeout {
        /// Why.
        reason: Reason,
    },
}

impl Verdict {
    /// Why.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Serve { reason, .. }
            | Self::Validate { reason, .. }
            | Self::Miss { reason }
            | Self::Forward { reason }
            | Self::GatewayTimeout { reason } => *reason,
            Self::ServeAndValidate { .. } => Reason::WhileRevalidate,
        }
    }
}

impl Policy {
    /// How a request is to be answered, given what is stored for its target.
    //= https://www.rfc-editor.org/rfc/rfc9111#section-4
    //# When presented with a request, a cache MUST NOT reuse a stored
    //# response unless:
    pub fn verdict(&self, request: &Request, selected: Selected<'_>, now: SystemTime) -> Verdict {
        if request.method != Method::GET && request.method != Method::HEAD {
            return Verdict::Forward { reason: Reason::Method };
        }
        //= https://www.rfc-editor.org/rfc/rfc9111#section-4.3.2
        //# The If-Match and If-Unmodified-Since conditional header fields are not
        //# applicable to a cache
        let origin_conditions = [header::IF_MATCH, header::IF_UNMODIFIED_SINCE];
        let wishes = RequestDirectives::parse(&request.headers);
        let verdict = match selected {
            _ if origin_conditions.iter().any(|name| request.headers.contains_key(name)) => {
                Verdict::Forward { reason: Reason::OriginCondition }
            }
            // It has no meaning by the RFC, and to some origins it has one: an answer to it is not for others.
            _ if has_content(&request.headers) => Verdict::Forward { reason: Reason::Content },
            Selected::Nothing => Verdict::Miss { reason: Reason::NothingStored },
            Selected::VaryMiss => Verdict::Miss { reason: Reason::VaryMiss },
            Selected::One(stored) if !stored.covers(request) => Verdict::Miss { reason: Reason::Partial },
            Selected::One(stored) => self.judge(request, &wishes, stored, now),
        };
        match verdict {
            //= https://www.rfc-editor.org/rfc/rfc9111#section-5.2.1.7
            //# The only-if-cached request directive indicates that the client only
            //# wishes to obtain a stored response.  Caches that honor this request
            //# directive SHOULD, upon receiving it, respond with either a stored
            //# response consistent with the other constraints of the request or a
            //# 504 (Gateway Timeout) status code.
            Verdict::Miss { .. } | Verdict::Validate { .. } | Verdict::Forward { .. }
                if wishes.only_if_cached =>
            {
                Verdict::GatewayTimeout { reason: Reason::OnlyIfCached }
            }
            verdict => verdict,
        }
    }

    fn judge(
        &self,
        request: &Request,
        wishes: &RequestDirectives,
        stored: &Stored,
        now: SystemTime,
    ) -> Verdict {
        let age = stored.age(now);
        let validate = |reason| Verdict::Validate {
            validation: self.validation_request(request, stored),
            fallback: self.fallback(wishes, stored, now),
            reason,
        };
        if stored.kept().mark == Mark::Invalid {
            return validate(Reason::Invalidated);
        }
        //= https://www.rfc-editor.org/rfc/rfc9111#section-4
        //# *  the stored response does not contain the no-cache directive
        //#    (Section 5.2.2.4), unless it is successfully validated
        //#    (Section 4.3), and
        if stored.is_no_cache() {
            return validate(Reason::NoCache);
        }
        if let Some(reason) = unmet(wishes, stored, age, now) {
            return validate(reason);
        }
        if stored.is_fresh(now) {
            let is_immutable = stored.terms.directives.immutable && wishes.max_age.is_some();
            return Verdict::Serve {
                age,
                reason: if is_immutable { Reason::Immutable } else { Reason::Fresh },
            };
        }
        if let Some(forbidden) = self.forbids_stale(stored) {
            return validate(forbidden);
        }
        let staleness = stored.staleness(now);
        let is_welcome = match wishes.max_stale {
            Some(MaxStale::Any) => true,
            Some(MaxStale::For(most)) => staleness <= most,
            None => false,
        };
        if is_welcome {
            return Verdict::Serve { age, reason: Reason::MaxStale };
        }
        //= https://www.rfc-editor.org/rfc/rfc5861#section-3
        //# When present in an HTTP response, the stale-while-revalidate
        //# Cache-Control extension indicates that caches MAY serve the response
        //# it appears in after it becomes stale, up to the indicated number of
        //# seconds.
        let wants_fresh = wishes.max_age.is_some() || wishes.min_fresh.is_some();
        if !wants_fresh && staleness < self.while_revalidate_window(stored) {
            return Verdict::ServeAndValidate { age, validation: self.validation_request(request, stored) };
        }
        validate(Reason::Stale)
    }
}

/// The wish of the request that the stored response does not meet.
fn unmet(wishes: &RequestDirectives, stored: &Stored, age: Duration, now: SystemTime) -> Option<Reason> {
    if wishes.no_cache {
        return Some(Reason::RequestNoCache);
    }
    //= https://www.rfc-editor.org/rfc/rfc8246#section-2
    //# Clients SHOULD NOT issue a conditional request during the
    //# response's freshness lifetime (e.g., upon a reload) unless
    //# explicitly overridden by the user (e.g., a force reload).
    let is_reload_in_vain = stored.terms.directives.immutable && stored.is_fresh(now);
    //= https://www.rfc-editor.org/rfc/rfc9111#section-5.2.1.1
    //# The max-age request directive indicates that the client prefers a
    //# response whose age is less than or equal to the specified number of
    //# seconds.
    if let Some(most) = wishes.max_age.filter(|_| !is_reload_in_vain) {
        // Zero is how clients ask for validation, also in the moment in which the response came.
        if age > most || most.is_zero() {
            return Some(Reason::RequestMaxAge);
        }
    }
    //= https://www.rfc-editor.org/rfc/rfc9111#section-5.2.1.3
    //# The min-fresh request directive indicates that the client prefers a
    //# response whose freshness lifetime is no less than its current age
    //# plus the specified time in seconds.
    let least = wishes.min_fresh?;
    (stored.lifetime().duration < age.saturating_add(least)).then_some(Reason::RequestMinFresh)
}
