//! Entity tags (RFC 9110 section 8.8.3) and lists of them (sections 13.1.1 and 13.1.2).

use http::HeaderMap;
use http::header::AsHeaderName;

use super::{Escapes, Members, lines, trim};

/// An entity tag. What is not quoted as it should be is kept, and equals only itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntityTag<'a> {
    /// Only says that two representations mean the same, not that they have the same bytes.
    pub is_weak: bool,
    /// With its quotes.
    pub opaque: &'a [u8],
}

impl<'a> EntityTag<'a> {
    /// Reads a field value or a member of a list; `None` if there is nothing.
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        let text = trim(text);
        let (is_weak, opaque) = match text.strip_prefix(b"W/") {
            Some(opaque) => (true, opaque),
            None => (false, text),
        };
        (!opaque.is_empty()).then_some(Self { is_weak, opaque })
    }

    /// The `ETag` of a response. Two of them are none: nobody knows which is meant.
    pub fn of(headers: &'a HeaderMap) -> Option<Self> {
        let mut found = lines(headers, http::header::ETAG);
        let first = found.next()?;
        if found.next().is_some() { None } else { Self::parse(first) }
    }

    /// Whether it is written as the grammar has it: in quotes, without quotes, spaces or control characters inside.
    pub fn is_well_formed(&self) -> bool {
        match self.opaque {
            [b'"', inner @ .., b'"'] => {
                inner.iter().all(|byte| matches!(byte, 0x21 | 0x23..=0x7e | 0x80..=0xff))
            }
            _ => false,
        }
    }

    /// Whether it says that two representations have the same bytes.
    pub fn is_strong(&self) -> bool {
        !self.is_weak && self.is_well_formed()
    }

    //= https://www.rfc-editor.org/rfc/rfc9110#section-8.8.3.2
    //# "Strong comparison": two entity tags are equivalent if both are not
    //# weak and their opaque-tags match character-by-character.
    /// Whether both name the same bytes.
    pub fn strong_eq(&self, other: &EntityTag<'_>) -> bool {
        self.is_strong() && other.is_strong() && self.opaque == other.opaque
    }

    //= https://www.rfc-editor.org/rfc/rfc9110#section-8.8.3.2
    //# "Weak comparison": two entity tags are equivalent if their opaque-
    //# tags match character-by-character, regardless of either or both being
    //# tagged as "weak".
    /// Whether both name what means the same.
    pub fn weak_eq(&self, other: &EntityTag<'_>) -> bool {
        self.opaque == other.opaque
    }
}

/// The value of `If-None-Match` or `If-Match`.
#[derive(Debug, Clone, Copy)]
pub struct TagList<'a, N> {
    headers: &'a HeaderMap,
    name: N,
}

impl<'a, N: AsHeaderName + Copy> TagList<'a, N> {
    /// The list in a request; `None` without the field.
    pub fn of(headers: &'a HeaderMap, name: N) -> Option<Self> {
        headers.contains_key(name).then_some(Self { headers, name })
    }

    /// Whether it is `*`: anything that exists.
    pub fn is_any(&self) -> bool {
        let mut lines = lines(self.headers, self.name);
        lines.next().is_some_and(|line| trim(line) == b"*") && lines.next().is_none()
    }

    /// The tags, in order.
    pub fn tags(&self) -> impl Iterator<Item = EntityTag<'a>> {
        lines(self.headers, self.name)
            .flat_map(|line| Members::new(line, Escapes::No))
            .filter_map(|member| EntityTag::parse(member.text))
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header};
    use proptest::prelude::*;

    use super::*;

    fn tag(text: &str) -> EntityTag<'_> {
        EntityTag::parse(text.as_bytes()).unwrap()
    }

    //= https://www.rfc-editor.org/rfc/rfc9110#section-8.8.3.2
    //= type=test
    //# "Strong comparison": two entity tags are equivalent if both are not
    //# weak and their opaque-tags match character-by-character.
    #[test]
    fn tags_are_compared_as_the_table_of_the_rfc_has_it() {
        for (one, other, strong, weak) in [
            (r#"W/"1""#, r#"W/"1""#, false, true),
            (r#"W/"1""#, r#"W/"2""#, false, false),
            (r#"W/"1""#, r#""1""#, false, true),
            (r#""1""#, r#""1""#, true, true),
            (r#""""#, r#""""#, true, true),
        ] {
            assert_eq!(tag(one).strong_eq(&tag(other)), strong, "{one} {other}");
            assert_eq!(tag(one).weak_eq(&tag(other)), weak, "{one} {other}");
        }
    }

    #[test]
    fn what_is_not_quoted_equals_only_itself_and_is_never_strong() {
        // U21; conditional-inm: conditional-etag-unquoted-respond-unquoted, -quoted-respond-unquoted,
        // -unquoted-respond-quoted, -weak-respond-lowercase, -weak-respond-backslash, -weak-respond-omit-slash.
        for odd in ["abc", r#"w/"abc""#, r#"W\"abc""#, r#"W"abc""#, r#""a"b""#, r#""abc"#, r#""a c""#] {
            assert!(tag(odd).weak_eq(&tag(odd)), "{odd}");
            assert!(!tag(odd).is_strong() && !tag(odd).strong_eq(&tag(odd)), "{odd}");
            assert!(!tag(odd).weak_eq(&tag(r#""abc""#)), "{odd}");
        }
        assert_eq!(EntityTag::parse(b" "), None);
        assert_eq!(EntityTag::parse(b"W/"), None);
        assert!(EntityTag::parse(b"\"caf\xe9\"").unwrap().is_strong());
    }

    #[test]
    fn two_tags_of_one_response_are_none() {
        let mut headers = HeaderMap::new();
        headers.append(header::ETAG, HeaderValue::from_static(r#""a""#));
        assert!(EntityTag::of(&headers).is_some());
        headers.append(header::ETAG, HeaderValue::from_static(r#""b""#));
        assert_eq!(EntityTag::of(&headers), None);
    }

    fn list(lines: &[&str]) -> (bool, Vec<String>) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::IF_NONE_MATCH, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        let list = TagList::of(&headers, &header::IF_NONE_MATCH).unwrap();
        let text = |tag: EntityTag<'_>| String::from_utf8_lossy(tag.opaque).into_owned();
        (list.is_any(), list.tags().map(text).collect())
    }

    #[test]
    fn lists_have_commas_and_backslashes_in_tags() {
        let (is_any, tags) = list(&[r#""a,b", W/"c\""#, r#"d,, "e""#]);
        assert!(!is_any);
        assert_eq!(tags, [r#""a,b""#, r#""c\""#, "d", r#""e""#]);
        assert!(list(&[" * "]).0);
        assert!(!list(&["*, \"a\""]).0);
        assert!(!list(&[r#""*""#]).0);
        assert_eq!(list(&[&r#""x","#.repeat(100_000)]).1.len(), 100_000);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(line in "[ -~\\t\u{80}-\u{ff}]{0,200}") {
            let (_, tags) = list(&[&line]);
            prop_assert!(tags.len() <= line.len());
        }
    }
}
