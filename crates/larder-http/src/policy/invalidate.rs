//! What a request that changes something makes invalid (RFC 9111 section 4.4, RFC 9875).

use http::request::Parts as Request;
use http::response::Parts as Response;
use http::{Method, Uri, header};

use super::uri;
use crate::header::groups;

/// What is no longer right after a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Invalidation {
    /// All variants of these targets, the request's first.
    pub targets: Vec<Uri>,
    /// All responses of the target's origin that are in one of these groups.
    pub groups: Vec<String>,
}

impl std::fmt::Display for Invalidation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.targets.is_empty() {
            "nothing was changed, as far as the method and the status say (RFC 9111 section 4.4)"
        } else {
            "a request that may have changed them succeeded (RFC 9111 section 4.4)"
        })
    }
}

impl Invalidation {
    /// What a response to a request invalidates. The request's URI is its target, absolute if targets beside it are
    /// to be found.
    ///
    /// It has to be done before the response is stored, if it can be.
    //= https://www.rfc-editor.org/rfc/rfc9111#section-4.4
    //# A cache MUST invalidate the target URI (Section 7.1 of [HTTP]) when
    //# it receives a non-error status code in response to an unsafe request
    //# method (including methods whose safety is unknown).
    pub fn of(request: &Request, response: &Response) -> Self {
        //= https://www.rfc-editor.org/rfc/rfc9111#section-4.4
        //# A "non-error response" is one with a 2xx (Successful) or 3xx
        //# (Redirection) status code.
        let is_error = !response.status.is_success() && !response.status.is_redirection();
        if is_error || is_safe(&request.method) || request.method == Method::CONNECT {
            return Self::default();
        }
        let mut targets = vec![request.uri.clone()];
        //= https://www.rfc-editor.org/rfc/rfc9111#section-4.4
        //# A cache MAY invalidate other URIs when it receives a non-error status
        //# code in response to an unsafe request method (including methods whose
        //# safety is unknown).  In particular, the URI(s) in the Location and
        //# Content-Location response header fields (if present) are candidates
        //# for invalidation
        for name in [header::LOCATION, header::CONTENT_LOCATION] {
            // A second line is not looked at: the fields are no lists.
            let reference = response.headers.get(name);
            let other = reference.and_then(|reference| uri::resolve(&request.uri, reference.as_bytes()));
            //= https://www.rfc-editor.org/rfc/rfc9111#section-4.4
            //# However, a cache MUST NOT trigger an invalidation under these
            //# conditions if the origin (Section 4.3.1 of [HTTP]) of the URI to be
            //# invalidated differs from that of the target URI
            if let Some(other) = other.filter(|other| uri::is_same_origin(&request.uri, other))
                && !targets.contains(&other)
            {
                targets.push(other);
            }
        }
        //= https://www.rfc-editor.org/rfc/rfc9875#section-3
        //# The Cache-Group-Invalidation header field MUST be ignored on
        //# responses to requests that have a safe method
        let groups = groups::parse(&response.headers, &groups::CACHE_GROUP_INVALIDATION);
        Self { targets, groups }
    }
}

/// Whether a method changes nothing (RFC 9110 section 9.2.1, and the registry of methods). An unknown one may.
fn is_safe(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE].contains(method)
        || ["PROPFIND", "REPORT", "SEARCH", "QUERY"].contains(&method.as_str())
}
