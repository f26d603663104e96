//! Asking the origin whether what is stored is still right (RFC 9111 sections 4.3.1 and 4.3.3).

use std::time::SystemTime;

use http::request::Parts as Request;
use http::response::Parts as Response;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::{Exchange, Failure, Freshened, NotFreshened, NotStorable, Policy, Reason, Stored};
use crate::header::RequestDirectives;

/// What an answer to a validation request means.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// What is stored is right: this is it now. The client's own conditions and ranges are judged against it.
    Freshened(Box<Freshened>),
    /// The 304 is about something else: ask again without conditions.
    Refetch(NotFreshened),
    /// The origin failed, and what is stored may be used instead.
    Serve(Reason),
    /// The answer is for the client, and may be stored by [`Policy::store`].
    Replace {
        /// Why what is stored is not used.
        reason: Reason,
        /// What is stored is another representation than the origin's, and has to go, also if the answer is not stored.
        is_superseded: bool,
    },
}

impl Outcome {
    /// Why; `None` of a 304 that was about something else, which says it itself ([`NotFreshened`]).
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Freshened(_) => Some(Reason::Confirmed),
            Self::Refetch(_) => None,
            Self::Serve(reason) | Self::Replace { reason, .. } => Some(*reason),
        }
    }
}

impl Policy {
    /// The fields of a request that validates what is stored: those of the client's request, with its conditions
    /// replaced by ours.
    ///
    /// If a complete response is stored, the range of the client is left out: it is cut from what comes of it. If a part
    /// is, it stays, and so does `If-Range`: a client that wants the rest of what it has, or else the whole, is not to get
    /// a part of what came after it.
    //= https://www.rfc-editor.org/rfc/rfc9111#section-4.3.1
    //# When generating a conditional request for validation, a cache either
    //# starts with a request it is attempting to satisfy or -- if it is
    //# initiating the request independently -- synthesizes a request using a
    //# stored response by copying the method, target URI, and request header
    //# fields identified by the Vary header field (Section 4.1).
    pub fn validation_request(&self, request: &Request, stored: &Stored) -> HeaderMap {
        let mut fields = request.headers.clone();
        for condition in
            [header::IF_MATCH, header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::IF_UNMODIFIED_SINCE]
        {
            fields.remove(condition);
        }
        if !stored.is_partial() {
            fields.remove(header::RANGE);
            fields.remove(header::IF_RANGE);
        }
        //= https://www.rfc-editor.org/rfc/rfc9111#section-4.3.1
        //# *  MUST send the relevant entity tags (using If-Match, If-None-Match,
        //#    or If-Range) if the entity tags were provided in the stored
        //#    response(s) being validated.
        if stored.entity_tag().is_some() {
            copy(&mut fields, header::IF_NONE_MATCH, stored.headers().get(header::ETAG));
        }
        //= https://www.rfc-editor.org/rfc/rfc9111#section-4.3.1
        //# *  SHOULD send the Last-Modified value (using If-Modified-Since) if
        //#    the request is not for a subrange, a single stored response is
        //#    being validated, and that response contains a Last-Modified value.
        if stored.last_modified().is_some() && !stored.is_partial() {
            copy(&mut fields, header::IF_MODIFIED_SINCE, stored.headers().get(header::LAST_MODIFIED));
        }
        fields
    }

    /// What to do with an answer to a validation request.
    ///
    /// `request` is the client's; `times` are of the validation.
    //= https://www.rfc-editor.org/rfc/rfc9111#section-4.3.3
    //# Cache handling of a response to a conditional request depends upon
    //# its status code:
    pub fn after_validation(
        &self,
        request: &Request,
        stored: &Stored,
        response: &Response,
        times: Exchange,
    ) -> Outcome {
        //= https://www.rfc-editor.org/rfc/rfc9111#section-4.3.3
        //# *  A 304 (Not Modified) response status code indicates that the
        //#    stored response can be updated and reused; see Section 4.3.4.
        if response.status == StatusCode::NOT_MODIFIED {
            return match self.freshen(request, stored, response, times) {
                Ok(freshened) => Outcome::Freshened(Box::new(freshened)),
                Err(why) => Outcome::Refetch(why),
            };
        }
        //= https://www.rfc-editor.org/rfc/rfc9111#section-4.3.3
        //# *  However, if a cache receives a 5xx (Server Error) response while
        //#    attempting to validate a response, it can either forward this
        //#    response to the requesting client or act as if the server failed
        //#    to respond.
        match self.on_failure(request, stored, Failure::Status(response.status), times.received_at) {
            Ok(reason) => Outcome::Serve(reason),
            //= https://www.rfc-editor.org/rfc/rfc9111#section-4.3.3
            //# *  A full response (i.e., one containing content) indicates that none
            //#    of the stored responses nominated in the conditional request are
            //#    suitable.
            Err(Reason::NotAFailure) => {
                let has_content = request.method != Method::HEAD;
                // What the origin shows to one user only is not what it shows to others.
                let refused = self.store(request, response, times).err();
                let is_for_all = !refused.is_some_and(NotStorable::is_of_request);
                let is_superseded = has_content && is_for_all && !response.status.is_server_error();
                Outcome::Replace { reason: Reason::Replaced, is_superseded }
            }
            Err(reason) => Outcome::Replace { reason, is_superseded: false },
        }
    }

    /// What to do if the origin failed: use what is stored, or pass the failure on.
    ///
    /// # Errors
    /// Why it may not be used.
    pub fn on_failure(
        &self,
        request: &Request,
        stored: &Stored,
        failure: Failure,
        now: SystemTime,
    ) -> Result<Reason, Reason> {
        self.fallback(&RequestDirectives::parse(&request.headers), stored, now).on(failure)
    }
}

fn copy(fields: &mut HeaderMap, name: header::HeaderName, value: Option<&HeaderValue>) {
    if let Some(value) = value {
        // A request that has no room for a condition goes out without: it costs a body.
        let _ = fields.try_insert(name, value.clone());
    }
}
