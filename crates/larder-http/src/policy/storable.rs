//! What may be stored (RFC 9111 section 3).

use http::header::{AUTHORIZATION, CONTENT_LOCATION, DATE, RANGE, SET_COOKIE};
use http::request::Parts as Request;
use http::response::Parts as Response;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::freshness::{is_heuristically_cacheable, single_date};
use super::select::{Selecting, nominated};
use super::terms::Terms;
use super::{Exchange, Kept, LifetimeSource, Mark, NotStorable, Policy, Stored, uri};
use crate::header::{ContentRange, Extent, RequestDirectives, connection, date};

impl Policy {
    /// The response as it is to be stored, for later `GET`s and `HEAD`s of the same target.
    ///
    /// The request's URI is the target, absolute if the response to a `POST` is to be stored. The request is as it was
    /// sent: without fields of the client's connection. The body's length is added later, by
    /// [`Stored::with_body_bytes`]; a body that did not end well is not kept.
    ///
    /// # Errors
    /// Why it must not, or need not, be stored.
    //= https://www.rfc-editor.org/rfc/rfc9111#section-3
    //# A cache MUST NOT store a response to a request unless:
    pub fn store(
        &self,
        request: &Request,
        response: &Response,
        times: Exchange,
    ) -> Result<Stored, NotStorable> {
        let terms = Terms::of(self, &response.headers);
        self.method_permits(request, response, &terms)?;
        status_permits(request, response)?;
        may_be_kept(self, request, response.status, &terms)?;
        let names = nominated(&response.headers)?;
        self.is_cacheable(response, &terms)?;

        let kept = Kept {
            status: response.status,
            headers: self.fields_to_store(&response.headers, &terms, times),
            selecting: Selecting::of(names, &request.headers),
            range: request.headers.get(RANGE).filter(|_| is_partial(response.status)).cloned(),
            times,
            body_bytes: None,
            mark: Mark::None,
        };
        let stored = Stored::new(self, kept);
        let is_usable = stored.lifetime().source != LifetimeSource::Nothing && !terms.is_no_cache();
        if is_usable || stored.has_validator() { Ok(stored) } else { Err(NotStorable::NothingToReuse) }
    }

    //= https://www.rfc-editor.org/rfc/rfc9111#section-3
    //# *  the request method is understood by the cache;
    fn method_permits(
        &self,
        request: &Request,
        response: &Response,
        terms: &Terms,
    ) -> Result<(), NotStorable> {
        if request.method == Method::GET {
            return if has_content(&request.headers) { Err(NotStorable::RequestContent) } else { Ok(()) };
        }
        if request.method != Method::POST {
            // What a HEAD says updates what is stored for GET, see `Policy::head`.
            return Err(NotStorable::Method);
        }
        //= https://www.rfc-editor.org/rfc/rfc9110#section-9.3.3
        //# Responses to POST requests are only cacheable when they include
        //# explicit freshness information (see Section 4.2.1 of [CACHING]) and a
        //# Content-Location header field that has the same value as the POST's
        //# target URI (Section 8.7).
        let has_freshness = terms.max_age(self).is_some() || terms.has_expires(&response.headers);
        let mut locations = response.headers.get_all(CONTENT_LOCATION).iter();
        let is_same = match (locations.next(), locations.next()) {
            (Some(location), None) => uri::is_same(&request.uri, location.as_bytes()),
            _ => false,
        };
        if has_freshness && is_same && response.status == StatusCode::OK {
            Ok(())
        } else {
            Err(NotStorable::PostWithoutLocation)
        }
    }

    /// Whether the response says that it may be kept, or need not say it.
    fn is_cacheable(&self, response: &Response, terms: &Terms) -> Result<(), NotStorable> {
        if terms.is_explicit(self, &response.headers) {
            return Ok(());
        }
        let is_for_this_user = !self.is_shared() && terms.directives.private.is_some();
        if !is_for_this_user && !is_heuristically_cacheable(response.status) {
            return Err(NotStorable::NotByDefault);
        }
        //= https://www.rfc-editor.org/rfc/rfc9111#section-7.3
        //# Note that the Set-Cookie response header field [COOKIE] does not
        //# inhibit caching
        // Told to keep it, we do. Left to guess, a shared cache does not guess that a cookie is for everybody.
        if self.is_shared() && response.headers.contains_key(SET_COOKIE) {
            return Err(NotStorable::CookieByHeuristic);
        }
        Ok(())
    }

    /// The fields of a response without those that are not stored (RFC 9111 section 3.1).
    pub(super) fn fields_to_store(&self, fields: &HeaderMap, terms: &Terms, times: Exchange) -> HeaderMap {
        let mut fields = fields.clone();
        connection::strip(&mut fields);
        //= https://www.rfc-editor.org/rfc/rfc9111#section-5.2.2.7
        //# If a qualified private response directive is present, with an
        //# argument that lists one or more field names, then only the listed
        //# header fields are limited to a single user: a shared cache MUST NOT
        //# store the listed header fields if they are present in the original
        //# response
        if self.is_shared() {
            for name in Extent::fields(terms.directives.private.as_ref()) {
                fields.remove(name);
            }
        }
        //= https://www.rfc-editor.org/rfc/rfc9110#section-6.6.1
        //# A recipient with a clock that receives a response message without a
        //# Date header field MUST record the time it was received and append a
        //# corresponding Date header field to the message's header section if it
        //# is cached or forwarded downstream.
        if single_date(&fields, DATE, times.received_at).is_none()
            && let Ok(now) = HeaderValue::try_from(date::format(times.received_at))
        {
            let _ = fields.try_insert(DATE, now);
        }
        fields
    }
}

/// Whether request and directives leave it open to store the response.
//= https://www.rfc-editor.org/rfc/rfc9111#section-3
//# *  the no-store cache directive is not present in the response
//#    (see Section 5.2.2.5);
pub(super) fn may_be_kept(
    policy: &Policy,
    request: &Request,
    status: StatusCode,
    terms: &Terms,
) -> Result<(), NotStorable> {
    if RequestDirectives::parse(&request.headers).no_store {
        return Err(NotStorable::RequestNoStore);
    }
    let said = &terms.directives;
    //= https://www.rfc-editor.org/rfc/rfc9111#section-5.2.2.3
    //# When a cache that implements the must-understand directive receives a
    //# response that includes it, the cache SHOULD ignore the no-store
    //# directive if it understands and implements the status code's caching
    //# requirements.
    if said.must_understand && !is_understood(status) {
        return Err(NotStorable::NotUnderstood);
    }
    if said.no_store && (!said.must_understand || said.is_garbled) {
        return Err(NotStorable::NoStore);
    }
    //= https://www.rfc-editor.org/rfc/rfc9111#section-3
    //# *  if the cache is shared: the private response directive is either
    //#    not present or allows a shared cache to store a modified response;
    //#    see Section 5.2.2.7);
    if policy.is_shared() && Extent::is_whole(said.private.as_ref()) {
        return Err(NotStorable::Private);
    }
    //= https://www.rfc-editor.org/rfc/rfc9111#section-3
    //# *  if the cache is shared: the Authorization header field is not
    //#    present in the request (see Section 11.6.2 of [HTTP]) or a response
    //#    directive is present that explicitly allows shared caching (see
    //#    Section 3.5); and
    if policy.is_shared() && request.headers.contains_key(AUTHORIZATION) && !terms.permits_authorized() {
        return Err(NotStorable::Authorization);
    }
    Ok(())
}

fn is_partial(status: StatusCode) -> bool {
    status == StatusCode::PARTIAL_CONTENT
}

//= https://www.rfc-editor.org/rfc/rfc9111#section-3
//# *  the response status code is final (see Section 15 of [HTTP]);
fn status_permits(request: &Request, response: &Response) -> Result<(), NotStorable> {
    match response.status.as_u16() {
        100..=199 => Err(NotStorable::Interim),
        304 => Err(NotStorable::NotModified),
        // The key has neither conditions nor ranges: stored, they would answer requests that have none.
        412 | 416 => Err(NotStorable::Conditional),
        //= https://www.rfc-editor.org/rfc/rfc6585#section-3
        //# Responses with the 428 status code MUST NOT be stored by a cache.
        428 | 429 | 431 | 511 => Err(NotStorable::ForbiddenStatus),
        206 => {
            let has_span = ContentRange::parse(&response.headers).is_some_and(|range| range.span.is_some());
            let is_asked_for = request.headers.contains_key(header::RANGE) && request.method == Method::GET;
            if has_span && is_asked_for { Ok(()) } else { Err(NotStorable::PartialUnusable) }
        }
        _ => Ok(()),
    }
}

/// Whether a request brings content, as far as its fields say.
pub(super) fn has_content(request: &HeaderMap) -> bool {
    let is_none = |length: &HeaderValue| length.as_bytes().iter().all(|digit| *digit == b'0');
    request.contains_key(header::TRANSFER_ENCODING)
        || !request.get_all(header::CONTENT_LENGTH).into_iter().all(is_none)
}

/// Whether all that a status asks of a cache is known here: those of RFC 9110.
fn is_understood(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200..=206 | 300..=303 | 307 | 308 | 400..=417 | 421 | 422 | 426 | 500..=505)
}
