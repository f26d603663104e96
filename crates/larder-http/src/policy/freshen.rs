//! Bringing what is stored up to date by a 304 or an answer to HEAD (RFC 9111 sections 3.2, 4.3.4 and 4.3.5).

use http::request::Parts as Request;
use http::response::Parts as Response;
use http::{HeaderMap, Method, StatusCode, header};

use super::freshness::single_date;
use super::select::{Selecting, nominated};
use super::storable::may_be_kept;
use super::terms::Terms;
use super::{Exchange, Kept, Mark, NotStorable, Policy, Stored};
use crate::header::EntityTag;

/// A stored response that the origin confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freshened {
    /// It with the new fields: what everybody gets.
    pub stored: Stored,
    /// Fields for the client whose request was answered by this, and for nobody else: they go into its response in place
    /// of those of the same name ([`put_in`](Self::put_in)), and are not stored.
    pub for_client: HeaderMap,
    /// What becomes of what is stored.
    pub keep: Keep,
}

impl Freshened {
    /// Puts fields in place of those of the same name: those [`for_client`](Self::for_client) into its response.
    pub fn put_in(headers: &mut HeaderMap, fields: &HeaderMap) {
        put(headers, fields, |_| true);
    }
}

/// What becomes of what is stored, after the origin confirmed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// It is brought up to date.
    Updated,
    /// It stays as it was: nothing of this exchange may be stored.
    AsItWas(NotStorable),
    /// It goes: by its new fields, it may not be stored any more.
    Nothing(NotStorable),
}

/// Why a 304 does not confirm what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NotFreshened {
    /// Its entity tag or modification date is another one's.
    OtherRepresentation,
}

impl std::fmt::Display for NotFreshened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the 304 has the validator of another representation (RFC 9111 section 4.3.4)")
    }
}

impl std::error::Error for NotFreshened {}

/// What an answer to HEAD means for a response stored for GET.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeadEffect {
    /// Nothing.
    None,
    /// It is this now.
    Updated(Box<Freshened>),
    /// It is another representation: stale.
    Stale(Box<Stored>),
}

impl std::fmt::Display for HeadEffect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "the answer to HEAD is not about it (RFC 9111 section 4.3.5)",
            Self::Updated(_) => "the answer to HEAD confirmed it (RFC 9111 section 4.3.5)",
            Self::Stale(_) => "the answer to HEAD is of another representation (RFC 9111 section 4.3.5)",
        })
    }
}

impl Policy {
    /// What is stored, brought up to date by a 304 to a request with its validators.
    ///
    /// # Errors
    /// The 304 is about something else, and nothing may be updated by it.
    pub fn freshen(
        &self,
        request: &Request,
        stored: &Stored,
        not_modified: &Response,
        times: Exchange,
    ) -> Result<Freshened, NotFreshened> {
        if !identifies(&not_modified.headers, stored, times) {
            return Err(NotFreshened::OtherRepresentation);
        }
        Ok(self.updated(request, stored, &not_modified.headers, times))
    }

    /// What an answer to HEAD says about a response that could have been chosen for it.
    //= https://www.rfc-editor.org/rfc/rfc9111#section-4.3.5
    //# When a cache makes an inbound HEAD request for a target URI and
    //# receives a 200 (OK) response, the cache SHOULD update or invalidate
    //# each of its stored GET responses that could have been chosen for that
    //# request
    pub fn head(
        &self,
        request: &Request,
        stored: &Stored,
        response: &Response,
        times: Exchange,
    ) -> HeadEffect {
        let is_about_it = request.method == Method::HEAD
            && response.status == StatusCode::OK
            && stored.status() == StatusCode::OK
            && stored.kept().selecting.matches(&request.headers);
        if !is_about_it {
            return HeadEffect::None;
        }
        //= https://www.rfc-editor.org/rfc/rfc9111#section-4.3.5
        //# For each of the stored responses that could have been chosen, if the
        //# stored response and HEAD response have matching values for any
        //# received validator fields (ETag and Last-Modified) and, if the HEAD
        //# response has a Content-Length header field, the value of
        //# Content-Length matches that of the stored response, the cache SHOULD
        //# update the stored response as described below; otherwise, the cache
        //# SHOULD consider the stored response to be stale.
        let same = |name: header::HeaderName| {
            let received = response.headers.get(&name);
            received.is_none() || received == stored.headers().get(&name)
        };
        let length = response.headers.get(header::CONTENT_LENGTH).map(|length| length.as_bytes());
        let stored_length = stored.kept().body_bytes.map(|bytes| bytes.to_string().into_bytes());
        let is_same_length = match (length, &stored_length) {
            (None, _) => true,
            (Some(length), Some(stored)) => length == stored.as_slice(),
            (Some(_), None) => same(header::CONTENT_LENGTH),
        };
        if same(header::ETAG) && same(header::LAST_MODIFIED) && is_same_length {
            HeadEffect::Updated(Box::new(self.updated(request, stored, &response.headers, times)))
        } else {
            HeadEffect::Stale(Box::new(stored.clone().marked(Mark::Stale)))
        }
    }

    fn updated(&self, request: &Request, stored: &Stored, newer: &HeaderMap, times: Exchange) -> Freshened {
        let mut fields = stored.headers().clone();
        // It was that of the exchange before. A date there always is among the newer ones.
        fields.remove(header::AGE);
        let terms = Terms::of(self, newer);
        let mut shared = self.fields_to_store(newer, &terms, times);
        let for_client = self.fields_for_client(newer);
        for name in for_client.keys() {
            shared.remove(name);
        }
        update(&mut fields, &shared);
        let terms = Terms::of(self, &fields);
        let fields = self.fields_to_store(&fields, &terms, times);

        let names = nominated(&fields);
        let may_be_kept = match &names {
            Ok(_) => may_be_kept(self, request, stored.status(), &terms),
            Err(why) => Err(*why),
        };
        let keep = match may_be_kept {
            Ok(()) => Keep::Updated,
            //= https://www.rfc-editor.org/rfc/rfc9111#section-5.2.1.5
            //# Note that if a request containing this directive is satisfied from a
            //# cache, the no-store request directive does not apply to the already
            //# stored response.
            Err(why) if why.is_of_request() => Keep::AsItWas(why),
            Err(why) => Keep::Nothing(why),
        };
        let selecting = match names {
            Ok(names) => Selecting::of(names, &request.headers),
            Err(_) => stored.kept().selecting.clone(),
        };
        let kept = Kept { headers: fields, selecting, times, mark: Mark::None, ..stored.kept().clone() };
        Freshened { stored: Stored::new(self, kept), for_client, keep }
    }

    /// Fields of a confirmation, or of one more part, that are for one client.
    ///
    /// A cookie that comes with a whole response is of that response, and its origin says whether others may have it. One
    /// that comes with a 304, or with what is added to what is stored, is of a request that somebody else made, and often a
    /// session's: who stored the response before was not asked. To a shared cache, it is nobody else's.
    pub(super) fn fields_for_client(&self, newer: &HeaderMap) -> HeaderMap {
        let cookies = newer.get_all(header::SET_COOKIE).iter().filter(|_| self.is_shared());
        cookies.map(|cookie| (header::SET_COOKIE, cookie.clone())).collect()
    }
}

/// Whether a 304 is about a stored response.
//= https://www.rfc-editor.org/rfc/rfc9111#section-4.3.4
//# *  If the new response contains one or more "strong validators" (see
//#    Section 8.8.1 of [HTTP]), then each of those strong validators
//#    identifies a selected representation for update.  All the stored
//#    responses in the initial set with one of those same strong
//#    validators are identified for update.  If none of the initial set
//#    contains at least one of the same strong validators, then the
//#    cache MUST NOT use the new response to update any stored
//#    responses.
fn identifies(newer: &HeaderMap, stored: &Stored, times: Exchange) -> bool {
    if let Some(tag) = EntityTag::of(newer) {
        let same = |stored: EntityTag<'_>| {
            if tag.is_strong() { stored.strong_eq(&tag) } else { stored.weak_eq(&tag) }
        };
        return stored.entity_tag().is_some_and(same);
    }
    //= https://www.rfc-editor.org/rfc/rfc9111#section-4.3.4
    //# *  If the new response contains no strong validators but does contain
    //#    one or more "weak validators", and those validators correspond to
    //#    one of the initial set's stored responses, then the most recent of
    //#    those matching stored responses is identified for update.
    match single_date(newer, header::LAST_MODIFIED, times.received_at) {
        Some(modified_at) => stored.last_modified() == Some(modified_at),
        // It answers our conditions, which were about this response and no other: origins that send a bare 304 are many.
        None => true,
    }
}

/// Puts newer fields in place of older ones of the same name.
//= https://www.rfc-editor.org/rfc/rfc9111#section-3.2
//# When doing so, the cache MUST add each header field in the provided
//# response to the stored response, replacing field values that are
//# already present, with the following exceptions:
fn update(fields: &mut HeaderMap, newer: &HeaderMap) {
    put(fields, newer, |name| !describes_body(name));
}

fn put(fields: &mut HeaderMap, newer: &HeaderMap, is_meant: impl Fn(&header::HeaderName) -> bool) {
    for name in newer.keys().filter(|name| is_meant(name)) {
        fields.remove(name);
        for value in newer.get_all(name) {
            // A map that is full loses what it has no room for.
            let _ = fields.try_append(name, value.clone());
        }
    }
}

/// Fields that have to go with the bytes that are stored.
//= https://www.rfc-editor.org/rfc/rfc9111#section-3.2
//# *  The Content-Length header field.
fn describes_body(name: &header::HeaderName) -> bool {
    [header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::CONTENT_RANGE].contains(name)
}
