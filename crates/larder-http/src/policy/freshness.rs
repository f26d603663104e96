//! How long a response is fresh (RFC 9111 section 4.2.1 and 4.2.2).

use std::fmt;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, header};

use super::Policy;
use super::terms::Terms;
use crate::header::date;

/// How long a response is fresh, counted from when the origin generated it, and who says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// How long; zero is never.
    pub duration: Duration,
    /// Who says so.
    pub source: LifetimeSource,
}

/// Where a lifetime comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LifetimeSource {
    /// `s-maxage`.
    SMaxage,
    /// `max-age`.
    MaxAge,
    /// `Expires`.
    Expires,
    /// A part of the time since `Last-Modified`.
    Heuristic,
    /// The cache's own configuration, [`Policy::cache_by_default`].
    Default,
    /// Nothing: it is not fresh.
    Nothing,
}

impl fmt::Display for LifetimeSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SMaxage => "s-maxage says how long it is fresh (RFC 9111 section 5.2.2.10)",
            Self::MaxAge => "max-age says how long it is fresh (RFC 9111 section 5.2.2.1)",
            Self::Expires => "Expires says how long it is fresh (RFC 9111 section 5.3)",
            Self::Heuristic => "its last modification suggests how long it is fresh (RFC 9111 section 4.2.2)",
            Self::Default => "the cache is told how long such responses are fresh (RFC 9111 section 4.2.2)",
            Self::Nothing => "nothing says how long it is fresh (RFC 9111 section 4.2)",
        })
    }
}

/// The one value of a field that has to be a date; `None` if it is absent, repeated or no date.
pub(super) fn single_date(
    headers: &HeaderMap,
    name: header::HeaderName,
    now: SystemTime,
) -> Option<SystemTime> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { date::parse(value.as_bytes(), now) }
}

/// When the origin generated the response, as far as is known.
//= https://www.rfc-editor.org/rfc/rfc9110#section-6.6.1
//# A recipient with a clock that receives a response with an invalid
//# Date header field value MAY replace that value with the time that
//# response was received.
pub(super) fn generated_at(headers: &HeaderMap, received_at: SystemTime) -> SystemTime {
    single_date(headers, header::DATE, received_at).unwrap_or(received_at)
}

/// Whether a status may be kept without being told to.
//= https://www.rfc-editor.org/rfc/rfc9110#section-15.1
//# Responses with status codes that are defined as heuristically
//# cacheable (e.g., 200, 203, 204, 206, 300, 301, 308, 404, 405, 410,
//# 414, and 501 in this specification) can be reused by a cache with
//# heuristic expiration
pub(super) fn is_heuristically_cacheable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// How long a response is fresh.
pub(super) fn lifetime(
    policy: &Policy,
    terms: &Terms,
    status: StatusCode,
    headers: &HeaderMap,
    received_at: SystemTime,
) -> Lifetime {
    if let Some((seconds, is_shared)) = terms.max_age(policy) {
        let source = if is_shared { LifetimeSource::SMaxage } else { LifetimeSource::MaxAge };
        //= https://www.rfc-editor.org/rfc/rfc9111#section-4.2.1
        //# Caches are encouraged to consider responses that have invalid
        //# freshness information (e.g., a max-age directive with non-integer
        //# content) to be stale.
        return Lifetime { duration: seconds.or_zero(), source };
    }
    let generated_at = generated_at(headers, received_at);
    //= https://www.rfc-editor.org/rfc/rfc9111#section-5.3
    //# A cache recipient MUST interpret invalid date formats, especially the
    //# value "0", as representing a time in the past (i.e., "already
    //# expired").
    if terms.has_expires(headers) {
        let expires = single_date(headers, header::EXPIRES, received_at);
        let duration = expires.and_then(|expires| expires.duration_since(generated_at).ok());
        return Lifetime { duration: duration.unwrap_or_default(), source: LifetimeSource::Expires };
    }
    match heuristic(policy, terms, status, headers, received_at, generated_at) {
        Some(duration) => Lifetime { duration, source: LifetimeSource::Heuristic },
        None if is_left_to_us(policy, terms, status, headers) => {
            Lifetime { duration: policy.cache_by_default, source: LifetimeSource::Default }
        }
        None => Lifetime { duration: Duration::ZERO, source: LifetimeSource::Nothing },
    }
}

/// Whether a response leaves it to the cache how long it is fresh, and the cache has been told.
//= https://www.rfc-editor.org/rfc/rfc9111#section-4.2.2
//# A cache MUST NOT use heuristics to determine freshness when an explicit
//# expiration time is present in the stored response.
fn is_left_to_us(policy: &Policy, terms: &Terms, status: StatusCode, headers: &HeaderMap) -> bool {
    // A last modification that is there, and that nothing follows from, was meant to say something.
    let says_nothing = !terms.directives.is_garbled && !headers.contains_key(header::LAST_MODIFIED);
    !policy.cache_by_default.is_zero() && says_nothing && is_heuristically_cacheable(status)
}

//= https://www.rfc-editor.org/rfc/rfc9111#section-4.2.2
//# If the response has a Last-Modified header field (Section 8.8.2 of
//# [HTTP]), caches are encouraged to use a heuristic expiration value
//# that is no more than some fraction of the interval since that time.
fn heuristic(
    policy: &Policy,
    terms: &Terms,
    status: StatusCode,
    headers: &HeaderMap,
    received_at: SystemTime,
    generated_at: SystemTime,
) -> Option<Duration> {
    if !is_heuristically_cacheable(status) && !terms.directives.public {
        return None;
    }
    let modified_at = single_date(headers, header::LAST_MODIFIED, received_at)?;
    let unchanged_for = generated_at.duration_since(modified_at).ok()?;
    let part = unchanged_for.checked_mul(policy.heuristic_percent).map(|hundredfold| hundredfold / 100);
    let part = part.unwrap_or(policy.heuristic_max).min(policy.heuristic_max);
    (!part.is_zero()).then_some(part)
}
