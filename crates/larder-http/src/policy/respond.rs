//! The head of a response that comes out of a cache (RFC 9111 section 4).

use std::time::SystemTime;

use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::content::OF_ONE_MESSAGE;
use super::{Answer, Reason, Stored};
use crate::header::{CacheStatus, ContentRange, Extent, age};

/// The head of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Its status.
    pub status: StatusCode,
    /// Its fields. If several parts are sent, `Content-Type` is still that of the parts, and the length is not there.
    pub headers: HeaderMap,
}

impl Stored {
    /// The head of the response to a client.
    ///
    /// `is_validated` if the origin has just confirmed it; otherwise, the fields that a qualified `no-cache` names are
    /// left out.
    pub fn respond(&self, answer: &Answer, is_validated: bool, now: SystemTime) -> Outgoing {
        let mut headers = self.headers().clone();
        //= https://www.rfc-editor.org/rfc/rfc9111#section-5.2.2.4
        //# The qualified form of the no-cache response directive, with an
        //# argument that lists one or more field names, indicates that a cache
        //# MAY use the response to satisfy a subsequent request, subject to any
        //# other restrictions on caching, if the listed header fields are
        //# excluded from the subsequent response or the subsequent response has
        //# been successfully revalidated with the origin server
        if !is_validated {
            for name in Extent::fields(self.terms.directives.no_cache.as_ref()) {
                headers.remove(name);
            }
        }
        //= https://www.rfc-editor.org/rfc/rfc9111#section-4
        //# When a stored response is used to satisfy a request without
        //# validation, a cache MUST generate an Age header field (Section 5.1),
        //# replacing any present in the response with a value equal to the
        //# stored response's current_age; see Section 4.2.3.
        let _ = headers.try_insert(header::AGE, age::format(self.age(now)));
        let status = self.shape(answer, &mut headers);
        Outgoing { status, headers }
    }

    fn shape(&self, answer: &Answer, headers: &mut HeaderMap) -> StatusCode {
        let (_, complete_bytes) = self.held();
        match answer {
            Answer::Whole => self.status(),
            Answer::NotModified => {
                //= https://www.rfc-editor.org/rfc/rfc9110#section-15.4.5
                //# Since the goal of a 304 response is to minimize information transfer
                //# when the recipient already has one or more cached representations, a
                //# sender SHOULD NOT generate representation metadata other than the
                //# above listed fields unless said metadata exists for the purpose of
                //# guiding cache updates
                remove_metadata(headers);
                if headers.contains_key(header::ETAG) {
                    headers.remove(header::LAST_MODIFIED);
                }
                StatusCode::NOT_MODIFIED
            }
            Answer::Parts(spans) => {
                for name in OF_ONE_MESSAGE {
                    headers.remove(name);
                }
                //= https://www.rfc-editor.org/rfc/rfc9110#section-15.3.7.1
                //# If a single part is being transferred, the server generating the 206
                //# response MUST generate a Content-Range header field, describing what
                //# range of the selected representation is enclosed, and a content
                //# consisting of the range.
                if let [span] = spans.as_slice() {
                    let range = ContentRange { span: Some(*span), complete_bytes };
                    let _ = headers.try_insert(header::CONTENT_RANGE, range.to_value());
                    let _ = headers.try_insert(header::CONTENT_LENGTH, HeaderValue::from(span.bytes()));
                }
                StatusCode::PARTIAL_CONTENT
            }
            Answer::NotSatisfiable => {
                remove_metadata(headers);
                for name in [header::ETAG, header::LAST_MODIFIED, header::CACHE_CONTROL, header::EXPIRES] {
                    headers.remove(name);
                }
                //= https://www.rfc-editor.org/rfc/rfc9110#section-15.5.17
                //# A server that generates a 416 response to a byte-range request SHOULD
                //# generate a Content-Range header field specifying the current length of
                //# the selected representation
                let range = ContentRange { span: None, complete_bytes };
                let _ = headers.try_insert(header::CONTENT_RANGE, range.to_value());
                let _ = headers.try_insert(header::CONTENT_LENGTH, HeaderValue::from(0));
                StatusCode::RANGE_NOT_SATISFIABLE
            }
        }
    }

    /// What `Cache-Status` says of a response that came out of the cache, or of what is stored when the request went on.
    pub fn cache_status<'a>(&self, cache: &'a str, reason: Reason, now: SystemTime) -> CacheStatus<'a> {
        CacheStatus { ttl_seconds: Some(self.ttl_seconds(now)), ..reason.cache_status(cache) }
    }
}

impl Reason {
    /// What `Cache-Status` says (RFC 9211), with the reason in words.
    pub fn cache_status(self, cache: &str) -> CacheStatus<'_> {
        let status = match self.forward() {
            Some(why) => CacheStatus::forwarded(cache, why),
            None if self == Self::OnlyIfCached => CacheStatus::generated(cache),
            None => CacheStatus::hit(cache),
        };
        CacheStatus { detail: Some(self.as_str().into()), ..status }
    }
}

fn remove_metadata(headers: &mut HeaderMap) {
    for name in [
        header::CONTENT_ENCODING,
        header::CONTENT_LANGUAGE,
        header::CONTENT_LENGTH,
        header::CONTENT_RANGE,
        header::CONTENT_TYPE,
    ] {
        headers.remove(name);
    }
}
