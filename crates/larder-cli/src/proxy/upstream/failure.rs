//! Why an upstream did not answer, and whether another one may be asked.

use larder_http::{OriginError, OriginErrorKind};

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: OriginErrorKind,
    pub(super) what: String,
    /// Whether the upstream may have seen the request.
    pub(super) seen: bool,
    /// Whether something of a response was there.
    pub(super) answered: bool,
    /// Whether it says something about the upstream.
    pub(super) blame: bool,
}

impl Failure {
    /// The upstream has not seen the request.
    pub(super) fn unsent(kind: OriginErrorKind, what: String) -> Self {
        Self { kind, what, seen: false, answered: false, blame: kind != OriginErrorKind::Refused }
    }

    /// The upstream may have seen the request.
    pub(super) fn lost(kind: OriginErrorKind, what: String, answered: bool) -> Self {
        Self { kind, what, seen: true, answered, blame: true }
    }

    /// It is the client's fault.
    pub(super) fn of_client(what: String) -> Self {
        Self { kind: OriginErrorKind::Refused, what, seen: true, answered: true, blame: false }
    }
}

impl From<Failure> for OriginError {
    fn from(failure: Failure) -> Self {
        Self::new(failure.kind, failure.what)
    }
}
