//! What came of asking for the rest of a representation of which a part is stored (RFC 9111 sections 3.3 and 3.4).

use http::request::Parts as Request;
use http::response::Parts as Response;
use http::{HeaderMap, Method, StatusCode, header};

use super::storable::may_be_kept;
use super::terms::Terms;
use super::{Completion, Exchange, Kept, Mark, Policy, Stored};
use crate::header::{ContentRange, EntityTag, Span, connection};

/// What an answer to a request for the rest means.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Completed {
    /// With what is stored, it is the whole.
    Whole(Box<Whole>),
    /// It does not go with what is stored: ask for the whole, without `Range`.
    Refetch {
        /// What is stored is of no use for this any more, and has to go.
        is_superseded: bool,
    },
    /// The answer is for the client, and may be stored by [`Policy::store`].
    Replace {
        /// What is stored is another representation than the origin's, and has to go, also if the answer is not stored.
        is_superseded: bool,
    },
}

/// A part and the rest of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whole {
    /// The fields of a 200: what goes to [`Policy::store`].
    pub headers: HeaderMap,
    /// Fields for the client whose request brought the rest, and for nobody else: they go into its response in place of
    /// those of the same name ([`Freshened::put_in`](super::Freshened::put_in)), and are not stored.
    pub for_client: HeaderMap,
    /// What the body of the answer is of the whole: this many bytes, or it is not what it says. What is before and behind it
    /// is stored.
    pub arriving: Span,
}

impl Completion {
    /// The fields of the request for the rest: those of the client's request, which asks for the whole without conditions,
    /// with ours. `None` if it does not.
    pub fn request(&self, request: &Request) -> Option<HeaderMap> {
        let own = [
            header::RANGE,
            header::IF_RANGE,
            header::IF_MATCH,
            header::IF_NONE_MATCH,
            header::IF_MODIFIED_SINCE,
            header::IF_UNMODIFIED_SINCE,
        ];
        if request.method != Method::GET || own.iter().any(|name| request.headers.contains_key(name)) {
            return None;
        }
        let mut fields = request.headers.clone();
        fields.try_insert(header::RANGE, self.range.clone()).ok()?;
        fields.try_insert(header::IF_RANGE, self.if_range.clone()).ok()?;
        Some(fields)
    }
}

impl Policy {
    /// What to do with an answer to a request for the rest of `part`, see [`Stored::completion`].
    ///
    /// `request` is the client's; `times` are of the request for the rest.
    //= https://www.rfc-editor.org/rfc/rfc9111#section-3.3
    //# A cache MUST NOT use an incomplete response to answer requests unless
    //# the response has been made complete, or the request is partial and
    //# specifies a range wholly within the incomplete response.
    pub fn after_completion(
        &self,
        request: &Request,
        part: &Stored,
        response: &Response,
        times: Exchange,
    ) -> Completed {
        let terms = Terms::of(self, &response.headers);
        // What the origin shows to one user only says nothing about what it shows to others.
        let refused = may_be_kept(self, request, response.status, &terms).err();
        let is_for_all = !refused.is_some_and(super::NotStorable::is_of_request);
        match response.status {
            StatusCode::PARTIAL_CONTENT => match self.whole(part, response, &terms, times) {
                Some(whole) => Completed::Whole(Box::new(whole)),
                None => Completed::Refetch { is_superseded: is_for_all },
            },
            StatusCode::RANGE_NOT_SATISFIABLE => Completed::Refetch { is_superseded: is_for_all },
            status => {
                let tags = part.entity_tag().zip(EntityTag::of(&response.headers));
                let is_same = tags.is_some_and(|(one, other)| one.strong_eq(&other));
                let is_superseded = is_for_all && status.is_success() && !is_same;
                Completed::Replace { is_superseded }
            }
        }
    }

    fn whole(&self, part: &Stored, response: &Response, terms: &Terms, times: Exchange) -> Option<Whole> {
        let arriving = ContentRange::parse(&response.headers)?.span?;
        let announced = response.headers.get(header::CONTENT_LENGTH);
        if announced.is_some_and(|length| length.as_bytes() != arriving.bytes().to_string().as_bytes()) {
            return None;
        }
        let mut shared = self.fields_to_store(&response.headers, terms, times);
        //= https://www.rfc-editor.org/rfc/rfc9110#section-15.3.7
        //# If a 206 is generated in response to a request with an If-Range
        //# header field, the sender SHOULD NOT generate other representation
        //# header fields beyond those required because the client already has a
        //# prior response containing those header fields.
        let about = [header::CONTENT_TYPE, header::CONTENT_ENCODING];
        if !about.iter().any(|name| shared.contains_key(name)) {
            for name in about {
                for value in part.headers().get_all(&name) {
                    let _ = shared.try_append(name.clone(), value.clone());
                }
            }
        }
        let rest = Kept {
            status: StatusCode::PARTIAL_CONTENT,
            headers: shared,
            selecting: part.kept().selecting.clone(),
            range: None,
            times,
            body_bytes: Some(arriving.bytes()),
            mark: Mark::None,
        };
        let rest = Stored::new(self, rest);
        let whole = self.combine(part, &rest).filter(|whole| !whole.is_partial())?;
        let mut for_client = response.headers.clone();
        connection::strip(&mut for_client);
        let cookies = self.fields_for_client(&response.headers);
        for name in rest.headers().keys().filter(|name| !cookies.contains_key(*name)) {
            for_client.remove(name);
        }
        Some(Whole { headers: whole.into_kept().headers, for_client, arriving })
    }
}
