//! The client's own conditions, judged against what is stored (RFC 9111 section 4.3.2, RFC 9110 section 13).

use http::request::Parts as Request;
use http::{Method, header};

use super::Stored;
use super::freshness::single_date;
use crate::header::{EntityTag, TagList};

impl Stored {
    /// Whether the client has it already: its conditions say so.
    pub(super) fn is_not_modified(&self, request: &Request) -> bool {
        //= https://www.rfc-editor.org/rfc/rfc9110#section-13.2.1
        //# A server MUST ignore all received preconditions if its response to
        //# the same request without those conditions, prior to processing the
        //# request content, would have been a status code other than a 2xx
        //# (Successful) or 412 (Precondition Failed).
        if !self.status().is_success() || (request.method != Method::GET && request.method != Method::HEAD) {
            return false;
        }
        if let Some(list) = TagList::of(&request.headers, &header::IF_NONE_MATCH) {
            //= https://www.rfc-editor.org/rfc/rfc9110#section-13.1.2
            //# A recipient MUST use the weak comparison function when comparing
            //# entity tags for If-None-Match
            let own = self.entity_tag();
            return list.is_any()
                || own.is_some_and(|own: EntityTag<'_>| list.tags().any(|tag| tag.weak_eq(&own)));
        }
        //= https://www.rfc-editor.org/rfc/rfc9111#section-4.3.2
        //# If a request contains an If-Modified-Since header field and the Last-
        //# Modified header field is not present in a stored response, a cache
        //# SHOULD use the stored response's Date field value (or, if no Date
        //# field is present, the time that the stored response was received) to
        //# evaluate the conditional.
        let received_at = self.kept().times.received_at;
        let Some(since) = single_date(&request.headers, header::IF_MODIFIED_SINCE, received_at) else {
            return false;
        };
        self.last_modified().unwrap_or(self.generated_at()) <= since
    }

    /// Whether the range of a request still means something: `If-Range` is absent, or names what is stored.
    //= https://www.rfc-editor.org/rfc/rfc9110#section-13.1.5
    //# A recipient of an If-Range header field MUST ignore the Range header
    //# field if the If-Range condition evaluates to false.
    pub(super) fn is_right_for_range(&self, request: &Request) -> bool {
        let mut conditions = request.headers.get_all(header::IF_RANGE).iter();
        let Some(condition) = conditions.next() else { return true };
        if conditions.next().is_some() {
            return false;
        }
        let received_at = self.kept().times.received_at;
        if crate::header::date::parse(condition.as_bytes(), received_at).is_some() {
            //= https://www.rfc-editor.org/rfc/rfc9110#section-13.1.5
            //# If the HTTP-date validator provided is not a strong validator in
            //# the sense defined by Section 8.8.2.2, the condition is false.
            let is_same = self.headers().get(header::LAST_MODIFIED) == Some(condition);
            return is_same && self.is_last_modified_strong();
        }
        let presented = EntityTag::parse(condition.as_bytes());
        presented.zip(self.entity_tag()).is_some_and(|(presented, own)| presented.strong_eq(&own))
    }

    /// Whether nothing can have changed again in the second in which it was last modified.
    //= https://www.rfc-editor.org/rfc/rfc9110#section-8.8.2.2
    //# *  The validator is being compared by an intermediate cache to the
    //#    validator stored in its cache entry for the representation, and
    //#
    //# *  That cache entry includes a Date value which is at least one
    //#    second after the Last-Modified value
    fn is_last_modified_strong(&self) -> bool {
        let modified_at = self.last_modified();
        let unchanged = modified_at.and_then(|modified| self.generated_at().duration_since(modified).ok());
        unchanged.is_some_and(|unchanged| unchanged.as_secs() >= 1)
    }
}
