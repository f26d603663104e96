//! Which of several stored responses is meant for a request (RFC 9111 section 4.1).

use std::borrow::Cow;

use http::request::Parts as Request;
use http::{HeaderMap, HeaderName, header};

use super::{Policy, Stored};
use crate::header::{Members, Vary, lines, trim};

/// What the fields that `Vary` names were in the request that a response answered, in a form in which fields that mean
/// the same are the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Selecting(Vec<(HeaderName, Option<Vec<u8>>)>);

impl Selecting {
    /// Takes the named fields out of a request. A field that is not there is remembered as not there.
    pub fn of(names: Vec<HeaderName>, request: &HeaderMap) -> Self {
        let value = |name: &HeaderName| normal(name, request).map(Cow::into_owned);
        Self(
            names
                .into_iter()
                .map(|name| {
                    let value = value(&name);
                    (name, value)
                })
                .collect(),
        )
    }

    /// What was stored, put together again.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (HeaderName, Option<Vec<u8>>)>) -> Self {
        Self(pairs.into_iter().collect())
    }

    /// Names and normal values, `None` for fields that were not there.
    pub fn pairs(&self) -> impl Iterator<Item = (&HeaderName, Option<&[u8]>)> {
        self.0.iter().map(|(name, value)| (name, value.as_deref()))
    }

    /// Whether the response depends on no field.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a request has the same.
    //= https://www.rfc-editor.org/rfc/rfc9111#section-4.1
    //# When a cache receives a request that can be satisfied by a stored
    //# response and that stored response contains a Vary header field
    //# (Section 12.5.5 of [HTTP]), the cache MUST NOT use that stored
    //# response without revalidation unless all the presented request header
    //# fields nominated by that Vary field value match those fields in the
    //# original request
    pub fn matches(&self, request: &HeaderMap) -> bool {
        self.0.iter().all(|(name, stored)| {
            let mut presented = lines(request, name);
            match (stored, presented.next(), presented.next()) {
                //= https://www.rfc-editor.org/rfc/rfc9111#section-4.1
                //# If (after any normalization that might take place) a header field is
                //# absent from a request, it can only match another request if it is
                //# also absent there.
                (None, None, _) => true,
                (None, Some(_), _) | (Some(_), None, _) => false,
                // The normal form of a normal form is itself, so most need no work. What follows gives the same answer
                // as the last arm: it is for hits, where nothing should be allocated.
                (Some(stored), Some(only), None) if stored == only => true,
                (Some(stored), Some(only), None) if is_same_list(name, only, stored) => true,
                (Some(stored), ..) => normal(name, request).as_deref() == Some(stored),
            }
        })
    }
}

/// Which stored response is meant.
#[derive(Debug, Clone, Copy)]
pub enum Selected<'a> {
    /// This one.
    One(&'a Stored),
    /// None of those for other values of the fields that `Vary` names.
    VaryMiss,
    /// There is none.
    Nothing,
}

impl Policy {
    /// Of the responses stored for a target, the one that is meant for a request.
    ///
    /// One that has all that is asked for is meant rather than another part, and one that names fields rather than one
    /// that forgot to.
    //= https://www.rfc-editor.org/rfc/rfc9111#section-4.1
    //# When a cache has multiple stored responses for a target URI and one
    //# or more omits the Vary header field, the cache SHOULD choose the most
    //# recent (see Section 4.2.3) stored response with a valid Vary field
    //# value.
    pub fn select<'a>(
        &self,
        request: &Request,
        stored: impl IntoIterator<Item = &'a Stored>,
    ) -> Selected<'a> {
        let rank =
            |stored: &Stored| (stored.covers(request), !stored.kept().selecting.is_empty(), recency(stored));
        let mut selected = Selected::Nothing;
        for candidate in stored {
            selected = match selected {
                _ if !candidate.kept().selecting.matches(&request.headers) => match selected {
                    Selected::Nothing => Selected::VaryMiss,
                    other => other,
                },
                //= https://www.rfc-editor.org/rfc/rfc9111#section-4
                //# When more than one suitable response is stored, a cache MUST use the
                //# most recent one (as determined by the Date header field).
                Selected::One(best) if rank(best) > rank(candidate) => selected,
                _ => Selected::One(candidate),
            };
        }
        selected
    }

    /// Which of the responses stored for a target has to make room before another one is stored: the one that a newer
    /// one replaces, else the oldest if there are too many. What is not partial replaces parts, too: they are in it, or of
    /// what was there before it.
    pub fn makes_room<'a>(
        &self,
        newer: &Stored,
        stored: impl IntoIterator<Item = &'a Stored>,
    ) -> Option<usize> {
        let mut count = 0;
        let mut oldest = None;
        for (at, candidate) in stored.into_iter().enumerate() {
            let is_same_part = candidate.kept().range == newer.kept().range;
            let is_part_before = candidate.is_partial()
                && !newer.is_partial()
                && candidate.kept().times.requested_at <= newer.kept().times.requested_at;
            let is_replaced = is_same_part || is_part_before;
            if candidate.kept().selecting == newer.kept().selecting && is_replaced {
                return Some(at);
            }
            count += 1;
            if oldest.is_none_or(|(_, age)| recency(candidate) < age) {
                oldest = Some((at, recency(candidate)));
            }
        }
        oldest.filter(|_| count >= self.variants_max.max(1)).map(|(at, _)| at)
    }
}

fn recency(stored: &Stored) -> (std::time::SystemTime, std::time::SystemTime) {
    (stored.generated_at(), stored.kept().times.received_at)
}

/// A field of a request in its normal form; `None` if it is not there.
//= https://www.rfc-editor.org/rfc/rfc9111#section-4.1
//# *  adding or removing whitespace, where allowed in the header field's
//#    syntax
//#
//# *  combining multiple header field lines with the same field name
//#    (see Section 5.2 of [HTTP])
//#
//# *  normalizing both header field values in a way that is known to have
//#    identical semantics, according to the header field's specification
//#    (e.g., reordering field values when order is not significant;
//#    case-normalization, where values are defined to be case-
//#    insensitive)
fn normal<'a>(name: &HeaderName, headers: &'a HeaderMap) -> Option<Cow<'a, [u8]>> {
    let mut values = lines(headers, name);
    let first = values.next()?;
    let is_single = values.next().is_none();
    let joined = |separator: &[u8]| -> Cow<'a, [u8]> {
        if is_single {
            return Cow::Borrowed(trim(first));
        }
        let whole = lines(headers, name).map(trim).collect::<Vec<_>>().join(separator);
        Cow::Owned(trim(&whole).to_vec())
    };
    if *name == header::COOKIE {
        // HTTP/2 and 3 split it at will (RFC 9113 section 8.2.3).
        return Some(joined(b"; "));
    }
    if is_no_list(name) {
        return Some(joined(b", "));
    }
    if is_preferences(name)
        && let Some(preferences) = preferences(headers, name)
    {
        return Some(Cow::Owned(preferences));
    }
    let whole = joined(b",");
    if !whole.contains(&b',') {
        return Some(whole);
    }
    let mut list = Vec::with_capacity(whole.len());
    for (at, member) in Members::with_empty(&whole).enumerate() {
        if member.is_broken {
            return Some(whole.clone());
        }
        if at > 0 {
            list.push(b',');
        }
        list.extend_from_slice(member.text);
    }
    Some(Cow::Owned(list))
}

/// Whether one line of a list has a normal form, found out without writing it down. Not of long lists.
fn is_same_list(name: &HeaderName, line: &[u8], normal: &[u8]) -> bool {
    const MEMBERS_MAX: usize = 16;
    if is_no_list(name) || *name == header::COOKIE {
        return false;
    }
    if !is_preferences(name) {
        let members = |text| Members::with_empty(text).take(MEMBERS_MAX + 1);
        return members(line).count() <= MEMBERS_MAX
            && members(line).eq(members(normal))
            && !members(line).any(|member| member.is_broken);
    }
    let wishes = |text| members_of_preferences(text).take(MEMBERS_MAX + 1).map(wish);
    let is_in = |wish: Wish<'_>, text| wishes(text).any(|other| other.is_some_and(|other| wish.is(&other)));
    let all_in = |one, other| wishes(one).all(|wish| wish.is_some_and(|wish| is_in(wish, other)));
    let is_short = |text| members_of_preferences(text).take(MEMBERS_MAX + 1).count() <= MEMBERS_MAX;
    is_short(line) && is_short(normal) && all_in(line, normal) && all_in(normal, line)
}

/// Fields in which a comma is no separator.
fn is_no_list(name: &HeaderName) -> bool {
    const NO_LISTS: [HeaderName; 9] = [
        header::AUTHORIZATION,
        header::DATE,
        header::FROM,
        header::HOST,
        header::IF_MODIFIED_SINCE,
        header::IF_UNMODIFIED_SINCE,
        header::ORIGIN,
        header::REFERER,
        header::USER_AGENT,
    ];
    NO_LISTS.contains(name)
}

/// Fields that are a list of names in any case, with weights, in no particular order.
fn is_preferences(name: &HeaderName) -> bool {
    [header::ACCEPT_LANGUAGE, header::ACCEPT_ENCODING, header::ACCEPT_CHARSET].contains(name)
}

/// Preferences by weight, then by name; `None` if they are not written as they should be.
fn preferences(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    let mut wishes = Vec::new();
    for member in lines(headers, name).flat_map(members_of_preferences) {
        let wish = wish(member)?;
        wishes.push((wish.weight, wish.what.to_ascii_lowercase()));
    }
    wishes.sort_by(|one, other| other.0.cmp(&one.0).then_with(|| one.1.cmp(&other.1)));
    wishes.dedup();
    let mut text = Vec::new();
    for (weight, what) in wishes {
        if !text.is_empty() {
            text.push(b',');
        }
        text.extend_from_slice(&what);
        if weight != 1000 {
            text.extend_from_slice(format!(";q={}.{:03}", weight / 1000, weight % 1000).as_bytes());
        }
    }
    Some(text)
}

/// A member of a list of preferences.
#[derive(Debug, Clone, Copy)]
struct Wish<'a> {
    what: &'a [u8],
    weight: u32,
}

impl Wish<'_> {
    fn is(&self, other: &Wish<'_>) -> bool {
        self.weight == other.weight && self.what.eq_ignore_ascii_case(other.what)
    }
}

fn members_of_preferences(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b',').map(trim).filter(|member| !member.is_empty())
}

fn wish(member: &[u8]) -> Option<Wish<'_>> {
    let mut parts = member.splitn(2, |byte| *byte == b';');
    let what = trim(parts.next()?);
    let weight = parts.next().map_or(Some(1000), |parameter| thousandths(trim(parameter)))?;
    Some(Wish { what, weight })
}

/// `q=0.5` as 500 (RFC 9110 section 12.4.2).
fn thousandths(parameter: &[u8]) -> Option<u32> {
    let [b'q' | b'Q', b'=', value @ ..] = parameter else { return None };
    let (whole, fraction) = match value {
        [whole] => (whole, &[][..]),
        [whole, b'.', fraction @ ..] if fraction.len() <= 3 => (whole, fraction),
        _ => return None,
    };
    if !whole.is_ascii_digit() || !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().chain(b"000").take(3);
    let weight = digits.fold(u32::from(whole - b'0'), |sum, digit| sum * 10 + u32::from(digit - b'0'));
    (weight <= 1000).then_some(weight)
}

/// The fields that a response depends on; an error if it is not known which.
pub(super) fn nominated(headers: &HeaderMap) -> Result<Vec<HeaderName>, super::NotStorable> {
    match Vary::parse(headers) {
        Vary::Names(names) => Ok(names),
        Vary::Any => Err(super::NotStorable::VaryAny),
        Vary::Malformed => Err(super::NotStorable::VaryMalformed),
    }
}
