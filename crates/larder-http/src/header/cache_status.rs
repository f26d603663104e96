//! `Cache-Status` (RFC 9211): what a cache says it did.

use std::borrow::Cow;
use std::fmt::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use sfv::{ItemSerializer, StringRef, TokenRef};

/// The field's name.
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Why a request went on to the origin (RFC 9211 section 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Forward {
    /// The cache was configured not to handle it.
    Bypass,
    /// Its method has to be passed on.
    Method,
    /// Nothing was stored for its target.
    UriMiss,
    /// Something was stored for its target, nothing of it for this request.
    VaryMiss,
    /// Nothing that could be used was stored.
    Miss,
    /// Something fresh was stored, and the request asked for more.
    Request,
    /// What was stored was stale.
    Stale,
    /// Not all of what was asked for was stored.
    Partial,
}

impl Forward {
    /// As the parameter `fwd` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Miss => "miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Partial => "partial",
        }
    }
}

/// One cache's member of the field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStatus<'a> {
    /// Which cache: a name or a host.
    pub cache: Cow<'a, str>,
    /// Whether the answer came from what is stored, without the request going on.
    pub hit: bool,
    /// Why the request went on. Neither this nor a hit: the cache made the answer itself, an error say.
    pub forward: Option<Forward>,
    /// What the origin answered, if the client got another status.
    pub forward_status: Option<StatusCode>,
    /// How many seconds of freshness are left; negative once stale.
    pub ttl_seconds: Option<i64>,
    /// Whether the answer of the origin was stored.
    pub stored: bool,
    /// Whether the request was answered together with others.
    pub collapsed: bool,
    /// The key. It tells what is cached: not for everybody.
    pub key: Option<Cow<'a, str>>,
    /// The reason in words.
    pub detail: Option<Cow<'a, str>>,
}

impl<'a> CacheStatus<'a> {
    /// Says that `cache` answered.
    pub fn hit(cache: impl Into<Cow<'a, str>>) -> Self {
        Self { hit: true, ..Self::generated(cache) }
    }

    /// Says that `cache` made the answer itself.
    pub fn generated(cache: impl Into<Cow<'a, str>>) -> Self {
        Self { cache: cache.into(), ..Self::default() }
    }

    /// Says that `cache` passed the request on.
    pub fn forwarded(cache: impl Into<Cow<'a, str>>, why: Forward) -> Self {
        Self { cache: cache.into(), forward: Some(why), ..Self::default() }
    }

    /// The member as text. What a string of a field cannot have is left out of it.
    pub fn to_value(&self) -> HeaderValue {
        // All of it but the key and the words, so that it is written in one piece.
        let mut text = String::with_capacity(self.cache.len() + 64);
        match TokenRef::from_str(&self.cache) {
            Ok(token) => text.push_str(token.as_str()),
            Err(_) => text.push_str(&quoted(&self.cache)),
        }
        match self.forward {
            //= https://www.rfc-editor.org/rfc/rfc9211#section-2.1
            //# "hit" and "fwd" are exclusive; only one of them should appear on each
            //# list member.
            Some(why) => {
                text.push_str("; fwd=");
                text.push_str(why.as_str());
            }
            None if self.hit => text.push_str("; hit"),
            None => {}
        }
        // Writing to a text does not fail.
        if let Some(status) = self.forward_status {
            let _ = write!(text, "; fwd-status={}", status.as_u16());
        }
        if let Some(seconds) = self.ttl_seconds {
            // What a number of a structured field can be.
            let _ = write!(text, "; ttl={}", seconds.clamp(-999_999_999_999_999, 999_999_999_999_999));
        }
        if self.stored {
            text.push_str("; stored");
        }
        if self.collapsed {
            text.push_str("; collapsed");
        }
        for (name, value) in [("key", &self.key), ("detail", &self.detail)] {
            if let Some(value) = value {
                let _ = write!(text, "; {name}={}", quoted(value));
            }
        }
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("larder"))
    }

    /// Adds the member after those of caches nearer to the origin.
    pub fn append_to(&self, headers: &mut HeaderMap) {
        // A map that is full stays as it is: the field is for people.
        let _ = headers.try_append(CACHE_STATUS, self.to_value());
    }
}

fn quoted(text: &str) -> String {
    let printable: String = text.chars().filter(|letter| matches!(letter, ' '..='~')).collect();
    StringRef::from_str(&printable)
        .map_or("\"\"".to_owned(), |text| ItemSerializer::new().bare_item(text).finish())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sfv::{List, Parser};

    use super::*;

    #[test]
    fn members_are_written_as_the_examples_of_the_rfc() {
        // RFC 9211 section 3.
        let hit = CacheStatus { ttl_seconds: Some(376), ..CacheStatus::hit("ExampleCache") };
        assert_eq!(hit.to_value(), "ExampleCache; hit; ttl=376");
        let stale = CacheStatus {
            forward_status: Some(StatusCode::NOT_MODIFIED),
            ttl_seconds: Some(-412),
            stored: true,
            collapsed: true,
            ..CacheStatus::forwarded("cache.example", Forward::Stale)
        };
        assert_eq!(stale.to_value(), "cache.example; fwd=stale; fwd-status=304; ttl=-412; stored; collapsed");
        assert_eq!(CacheStatus::generated("Edge").to_value(), "Edge");
        let odd = CacheStatus {
            key: Some("a\"b\\".into()),
            detail: Some("why\r\nSet-Cookie: x \u{e9}".into()),
            ..CacheStatus::hit("my cache")
        };
        assert_eq!(odd.to_value(), r#""my cache"; hit; key="a\"b\\"; detail="whySet-Cookie: x ""#);
    }

    #[test]
    fn members_stand_behind_those_that_are_there() {
        let mut headers = HeaderMap::new();
        CacheStatus::hit("OriginCache").append_to(&mut headers);
        CacheStatus::forwarded("Edge", Forward::UriMiss).append_to(&mut headers);
        let all: Vec<_> = headers.get_all(CACHE_STATUS).iter().collect();
        assert_eq!(all, ["OriginCache; hit", "Edge; fwd=uri-miss"]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_a_structured_field(cache in ".{0,20}", detail in prop::option::of(".{0,40}"), ttl in any::<i64>()) {
            let status = CacheStatus { detail: detail.map(Into::into), ttl_seconds: Some(ttl), ..CacheStatus::hit(cache) };
            let value = status.to_value();
            prop_assert_eq!(Parser::new(value.as_bytes()).parse::<List>().map(|list| list.len()).ok(), Some(1));
        }
    }
}
