//! When something stale may be used (RFC 9111 section 4.2.4, RFC 5861).

use std::time::{Duration, SystemTime};

use http::StatusCode;

use super::{Policy, Reason, Stored};
use crate::header::{Delta, RequestDirectives};

/// How an origin failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It could not be reached, or the connection ended before there was an answer.
    Disconnected,
    /// It answered with this status.
    Status(StatusCode),
}

/// What may be done with a stored response if the origin does not answer. A function of time: ask again if it took
/// long, by [`Policy::fallback`].
///
/// Where it may not be used, the client gets 504 (RFC 9111 section 5.2.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fallback {
    /// If it cannot be reached: use it, or why not.
    pub disconnected: Result<Reason, Reason>,
    /// If it answers with 500, 502, 503 or 504: use it, or why not.
    pub failed: Result<Reason, Reason>,
}

impl Fallback {
    /// What is to be done about this failure: use what is stored, or pass the failure on, and why.
    //= https://www.rfc-editor.org/rfc/rfc5861#section-4
    //# In this context, an error is any situation which would result in a
    //# 500, 502, 503 or 504 HTTP response status code being returned.
    pub fn on(&self, failure: Failure) -> Result<Reason, Reason> {
        match failure {
            Failure::Disconnected => self.disconnected,
            Failure::Status(status) if matches!(status.as_u16(), 500 | 502 | 503 | 504) => self.failed,
            Failure::Status(_) => Err(Reason::NotAFailure),
        }
    }
}

impl Policy {
    /// What forbids to use the response once it is stale, whoever permits it.
    //= https://www.rfc-editor.org/rfc/rfc9111#section-4.2.4
    //# A cache MUST NOT generate a stale response if it is prohibited by an
    //# explicit in-protocol directive (e.g., by a no-cache response
    //# directive, a must-revalidate response directive, or an applicable
    //# s-maxage or proxy-revalidate response directive; see Section 5.2.2).
    pub(super) fn forbids_stale(&self, stored: &Stored) -> Option<Reason> {
        let said = &stored.terms.directives;
        if stored.is_no_cache() {
            Some(Reason::NoCache)
        } else if said.must_revalidate {
            Some(Reason::MustRevalidate)
        } else if self.is_shared() && said.proxy_revalidate {
            Some(Reason::ProxyRevalidate)
        } else if self.is_shared() && said.s_maxage.is_some() {
            Some(Reason::SMaxage)
        } else {
            None
        }
    }

    /// What may be done with a stored response if the origin fails now.
    pub fn fallback(&self, wishes: &RequestDirectives, stored: &Stored, now: SystemTime) -> Fallback {
        match self.may_fall_back(wishes, stored, now) {
            Err(why) => Fallback { disconnected: Err(why), failed: Err(why) },
            Ok(staleness) if staleness.is_zero() && stored.is_fresh(now) => {
                Fallback { disconnected: Ok(Reason::StillFresh), failed: Ok(Reason::StillFresh) }
            }
            Ok(staleness) => {
                let window = self.if_error_window(wishes, stored);
                let is_inside = staleness <= window && !window.is_zero();
                let failed = if is_inside { Ok(Reason::IfError) } else { Err(Reason::NotPermitted) };
                let may_wait = !self.stale_if_disconnected.is_zero();
                let is_near = may_wait && staleness <= self.stale_if_disconnected;
                //= https://www.rfc-editor.org/rfc/rfc9111#section-4.2.4
                //# A cache MUST NOT generate a stale response unless it is disconnected
                //# or doing so is explicitly permitted by the client or origin server
                let disconnected = if is_near { Ok(Reason::Disconnected) } else { failed };
                Fallback { disconnected, failed }
            }
        }
    }

    fn may_fall_back(
        &self,
        wishes: &RequestDirectives,
        stored: &Stored,
        now: SystemTime,
    ) -> Result<Duration, Reason> {
        if stored.is_no_cache() {
            return Err(if stored.kept().mark == super::Mark::Invalid {
                Reason::Invalidated
            } else {
                Reason::NoCache
            });
        }
        if wishes.no_cache {
            return Err(Reason::RequestNoCache);
        }
        if stored.is_fresh(now) {
            return Ok(Duration::ZERO);
        }
        self.forbids_stale(stored).map_or(Ok(stored.staleness(now)), Err)
    }

    /// The widest of what response and request say, else what the configuration says.
    fn if_error_window(&self, wishes: &RequestDirectives, stored: &Stored) -> Duration {
        let said = stored.terms.directives.stale_if_error.map(Delta::or_zero);
        said.max(wishes.stale_if_error).unwrap_or(self.stale_if_error)
    }

    /// How long after it became stale a response may still be of use without being asked for again: while it is
    /// validated, and if the origin fails or cannot be reached. At most the last of these is without end.
    pub fn usable_after_freshness(&self, stored: &Stored) -> Duration {
        if self.forbids_stale(stored).is_some() {
            return Duration::ZERO;
        }
        let if_error = self.if_error_window(&RequestDirectives::default(), stored);
        self.while_revalidate_window(stored).max(if_error).max(self.stale_if_disconnected)
    }

    /// How long after it became stale the response may be used while it is validated.
    pub(super) fn while_revalidate_window(&self, stored: &Stored) -> Duration {
        let said = stored.terms.directives.stale_while_revalidate;
        said.map_or(self.stale_while_revalidate, Delta::or_zero)
    }
}
