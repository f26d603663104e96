//! Which directives hold for a response: those of a targeted field, else those of `Cache-Control`.

use http::{HeaderMap, header};

use super::Policy;
use crate::header::{CacheControl, Delta, Extent, targeted};

/// The directives that hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) directives: CacheControl,
    /// They are of a targeted field, so that `Cache-Control` and `Expires` are not looked at.
    pub(super) is_targeted: bool,
}

impl Terms {
    //= https://www.rfc-editor.org/rfc/rfc9213#section-2.2
    //# the cache MUST select the first (in target list order) field with a
    //# valid, non-empty value and use its value to determine the caching
    //# policy for the response, and it MUST ignore the Cache-Control and
    //# Expires header fields in that response
    pub(super) fn of(policy: &Policy, headers: &HeaderMap) -> Self {
        match policy.targeted.iter().find_map(|name| targeted::parse(headers, name)) {
            Some(directives) => Self { directives, is_targeted: true },
            None => Self { directives: CacheControl::parse(headers), is_targeted: false },
        }
    }

    /// Whether `Expires` is there and counts.
    pub(super) fn has_expires(&self, headers: &HeaderMap) -> bool {
        !self.is_targeted && headers.contains_key(header::EXPIRES)
    }

    /// The lifetime that directives give, if they say anything about it.
    //= https://www.rfc-editor.org/rfc/rfc9111#section-4.2.1
    //# *  If the cache is shared and the s-maxage response directive
    //#    (Section 5.2.2.10) is present, use its value, or
    pub(super) fn max_age(&self, policy: &Policy) -> Option<(Delta, bool)> {
        let shared = self.directives.s_maxage.filter(|_| policy.is_shared());
        shared.map(|seconds| (seconds, true)).or(self.directives.max_age.map(|seconds| (seconds, false)))
    }

    /// Whether nothing of it may be used without validation.
    pub(super) fn is_no_cache(&self) -> bool {
        Extent::is_whole(self.directives.no_cache.as_ref())
    }

    /// Whether it says how long it is fresh, or that it may be kept.
    pub(super) fn is_explicit(&self, policy: &Policy, headers: &HeaderMap) -> bool {
        self.max_age(policy).is_some() || self.has_expires(headers) || self.directives.public
    }

    /// Whether a response to a request with `Authorization` may be used for others.
    //= https://www.rfc-editor.org/rfc/rfc9111#section-3.5
    //# In this specification, the following response directives have such an
    //# effect: must-revalidate (Section 5.2.2.2), public (Section 5.2.2.9),
    //# and s-maxage (Section 5.2.2.10).
    pub(super) fn permits_authorized(&self) -> bool {
        let said = &self.directives;
        let has_s_maxage = matches!(said.s_maxage, Some(Delta::Seconds(_)));
        !said.is_garbled && (said.must_revalidate || said.public || has_s_maxage)
    }
}
