//! What of a stored response is sent: all of it, parts, or nothing; and parts that become a whole
//! (RFC 9111 sections 3.3 and 3.4, RFC 9110 section 14).

use std::fmt;

use http::request::Parts as Request;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use super::{Kept, Policy, Stored};
use crate::header::{ContentRange, Ranges, Span};

/// What of a stored response answers a request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// 304: the client has it.
    NotModified,
    /// It, with its status and its whole body.
    Whole,
    /// 206 with these bytes of the representation, in this order; if several, as `multipart/byteranges`.
    Parts(Vec<Span>),
    /// 416: there are no such bytes.
    NotSatisfiable,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotModified => {
                "the request's conditions say that the client has it (RFC 9111 section 4.3.2)"
            }
            Self::Whole => "it is what is asked for (RFC 9111 section 4)",
            Self::Parts(_) => "parts of it are asked for, and are there (RFC 9110 section 14.2)",
            Self::NotSatisfiable => "parts are asked for that it does not have (RFC 9110 section 15.5.17)",
        })
    }
}

/// The request for the rest of a representation of which a part is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// `Range`.
    pub range: HeaderValue,
    /// `If-Range`: if the representation is another one by now, the whole of it comes.
    pub if_range: HeaderValue,
}

impl Stored {
    /// What of it answers a request. `None` if it does not have all that is asked for.
    //= https://www.rfc-editor.org/rfc/rfc9111#section-3.3
    //# A cache MUST NOT send a partial response to a client without
    //# explicitly marking it using the 206 (Partial Content) status code.
    pub fn answer(&self, request: &Request) -> Option<Answer> {
        let wanted = self.wanted(request);
        if self.is_partial() && wanted.is_none() {
            return None;
        }
        if self.is_not_modified(request) {
            return Some(Answer::NotModified);
        }
        let Some(ranges) = wanted else { return Some(Answer::Whole) };
        if self.is_partial() && self.kept().range.as_ref() == request.headers.get(header::RANGE) {
            // The very same question: whatever came is the answer to it.
            return Some(Answer::Whole);
        }
        let (held, complete_bytes) = self.held();
        if !self.is_partial() && complete_bytes.is_none() {
            // It is still coming: nobody knows yet where it ends.
            return Some(Answer::Whole);
        }
        let Some(spans) = ranges.of(complete_bytes?) else {
            return (!self.is_partial()).then_some(Answer::Whole);
        };
        if spans.is_empty() {
            return Some(Answer::NotSatisfiable);
        }
        let is_there = |span: &Span| held.is_some_and(|held| held.contains(span));
        spans.iter().all(is_there).then_some(Answer::Parts(spans))
    }

    /// Whether it has all that a request asks for.
    pub(super) fn covers(&self, request: &Request) -> bool {
        !self.is_partial() || self.answer(request).is_some()
    }

    /// The ranges that a request asks for of it; `None` if it asks for the whole.
    //= https://www.rfc-editor.org/rfc/rfc9110#section-14.2
    //# A server MUST ignore a Range header field received with a request
    //# method that is unrecognized or for which range handling is not
    //# defined.  For this specification, GET is the only method for which
    //# range handling is defined.
    fn wanted(&self, request: &Request) -> Option<Ranges> {
        if request.method != Method::GET {
            return None;
        }
        //= https://www.rfc-editor.org/rfc/rfc9110#section-14.2
        //# If all of the preconditions are true, the server supports the Range
        //# header field for the target resource, the received Range field-value
        //# contains a valid ranges-specifier, and either the range-unit is not
        //# supported for that target resource or the ranges-specifier is
        //# unsatisfiable with respect to the selected representation, the server
        //# SHOULD send a 416 (Range Not Satisfiable) response.
        let can_be_cut = matches!(self.status(), StatusCode::OK | StatusCode::PARTIAL_CONTENT);
        let ranges = Ranges::parse(&request.headers).filter(|_| can_be_cut)?;
        self.is_right_for_range(request).then_some(ranges)
    }

    /// Whether it is of the same bytes as another: both have the same strong validator. Where they contradict each other
    /// about how these are coded, or for whom they were chosen, that is not believed.
    pub(crate) fn is_of_same(&self, other: &Self) -> bool {
        let tags = self.entity_tag().zip(other.entity_tag());
        let same = |name: HeaderName| self.headers().get_all(&name).iter().eq(other.headers().get_all(&name));
        // A 206 need not repeat what the client has (RFC 9110 section 15.3.7).
        let is_silent = |stored: &Self| !stored.headers().contains_key(header::CONTENT_TYPE);
        tags.is_some_and(|(one, other)| one.strong_eq(&other))
            && same(header::CONTENT_ENCODING)
            && (same(header::CONTENT_TYPE) || is_silent(self) || is_silent(other))
            && !self.is_of_several_ranges()
            && !other.is_of_several_ranges()
    }

    /// Whether its body is not the bytes of the representation alone, whatever else it says.
    fn is_of_several_ranges(&self) -> bool {
        const KIND: &[u8] = b"multipart/byteranges";
        let kinds = self.headers().get_all(header::CONTENT_TYPE).iter();
        let mut starts = kinds.filter_map(|kind| kind.as_bytes().get(..KIND.len()));
        starts.any(|start| start.eq_ignore_ascii_case(KIND))
    }

    /// How to ask for what is missing of a representation. `None` if it is whole, or if the parts could not be put
    /// together because nothing says that they are of the same.
    //= https://www.rfc-editor.org/rfc/rfc9111#section-3.3
    //# A cache MAY complete a stored incomplete response by making a
    //# subsequent range request (Section 14.2 of [HTTP]) and combining the
    //# successful response with the stored response, as defined in
    //# Section 3.4.
    pub fn completion(&self) -> Option<Completion> {
        let (held, complete_bytes) = self.held();
        let (held, complete_bytes) = (held?, complete_bytes?);
        let is_strong = self.entity_tag().is_some_and(|tag| tag.is_strong());
        let is_whole = Span::whole(complete_bytes).is_none_or(|whole| held.contains(&whole));
        if !self.is_partial() || is_whole || !is_strong {
            return None;
        }
        let range = if held.first == 0 {
            format!("bytes={}-", held.last + 1)
        } else if held.last + 1 == complete_bytes {
            format!("bytes=0-{}", held.first - 1)
        } else {
            // What is before and behind would come as a multipart body: the whole is simpler.
            return None;
        };
        Some(Completion {
            range: HeaderValue::try_from(range).ok()?,
            if_range: self.headers().get(header::ETAG)?.clone(),
        })
    }
}

impl Policy {
    /// Two parts of one representation as one: [`combine_all`](Self::combine_all) of them.
    pub fn combine(&self, earlier: &Stored, later: &Stored) -> Option<Stored> {
        self.combine_all(&[earlier, later])
    }

    /// Parts of one representation as one, in the order in which they came: later fields over earlier ones. `None` if they
    /// are not of the same, or do not meet.
    ///
    /// What comes of it is complete (200) if nothing is missing, else still partial. It is as fresh as the last of them, which
    /// says that the others are still right; but what was marked stale makes all of it so. The bytes are the caller's to
    /// join: where parts overlap, they have the same.
    //= https://www.rfc-editor.org/rfc/rfc9111#section-3.4
    //# A cache MAY combine these ranges into a single stored response, and
    //# reuse that response to satisfy later requests, if they all share the
    //# same strong validator
    pub fn combine_all(&self, parts: &[&Stored]) -> Option<Stored> {
        let ((first, others), (last, _)) = (parts.split_first()?, parts.split_last()?);
        if !others.iter().all(|other| other.is_partial() && first.is_of_same(other)) {
            return None;
        }
        let mut complete_bytes = None;
        let mut held = Vec::with_capacity(parts.len());
        for part in parts {
            let (span, total) = part.held();
            held.push(span?);
            complete_bytes = match (complete_bytes, total) {
                (Some(one), Some(other)) if one != other => return None,
                (one, other) => one.or(other),
            };
        }
        held.sort_unstable();
        let span = held.into_iter().try_fold(None, |all: Option<Span>, next| match all {
            None => Some(Some(next)),
            Some(all) if next.first > all.last.saturating_add(1) => None,
            Some(all) => Some(Some(Span { last: all.last.max(next.last), ..all })),
        })??;
        let is_whole = span.first == 0 && complete_bytes == Some(span.bytes());

        let mut headers = first.headers().clone();
        for name in OF_ONE_MESSAGE {
            headers.remove(name);
        }
        for other in others {
            // That of an exchange before.
            headers.remove(header::AGE);
            let for_client = self.fields_for_client(other.headers());
            merge(&mut headers, other.headers(), &for_client);
        }
        let status = if is_whole { StatusCode::OK } else { StatusCode::PARTIAL_CONTENT };
        if !is_whole {
            let range = ContentRange { span: Some(span), complete_bytes };
            let _ = headers.try_insert(header::CONTENT_RANGE, range.to_value());
        }
        let _ = headers.try_insert(header::CONTENT_LENGTH, HeaderValue::from(span.bytes()));
        let mark = parts.iter().map(|part| part.kept().mark).max().unwrap_or_default();
        let kept = Kept {
            status,
            headers,
            range: None,
            body_bytes: Some(span.bytes()),
            mark,
            ..last.kept().clone()
        };
        Some(Stored::new(self, kept))
    }
}

/// Fields that are about the content of one message, and not of the representation.
pub(crate) const OF_ONE_MESSAGE: [&str; 4] =
    ["content-range", "content-length", "content-digest", "content-md5"];

/// The fields of a later part over those of an earlier one (RFC 9110 section 15.3.7.3), but for those of one client.
fn merge(headers: &mut HeaderMap, later: &HeaderMap, for_client: &HeaderMap) {
    let is_meant =
        |name: &&HeaderName| !OF_ONE_MESSAGE.contains(&name.as_str()) && !for_client.contains_key(*name);
    for name in later.keys().filter(is_meant) {
        headers.remove(name);
        for value in later.get_all(name) {
            let _ = headers.try_append(name, value.clone());
        }
    }
}
