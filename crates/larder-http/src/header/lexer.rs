//! The letters that fields are made of: tokens, quoted strings, lists (RFC 9110 section 5.6).

use std::borrow::Cow;

use http::HeaderMap;
use http::header::AsHeaderName;

/// The lines of a field, in order, as bytes.
pub(crate) fn lines(headers: &HeaderMap, name: impl AsHeaderName) -> impl Iterator<Item = &[u8]> {
    headers.get_all(name).into_iter().map(http::HeaderValue::as_bytes)
}

/// A character of a token (RFC 9110 section 5.6.2).
fn is_token_character(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

pub(crate) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| is_token_character(*byte))
}

/// The tokens in a text, whatever stands between them.
pub(crate) fn token_words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| !is_token_character(*byte)).filter(|word| !word.is_empty())
}

/// Without the optional white space around it (RFC 9110 section 5.6.3).
pub(crate) fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// The content of a quoted string; `None` if it is no whole one.
pub(crate) fn unquote(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    let [b'"', inner @ .., b'"'] = text else { return None };
    if !inner.contains(&b'\\') {
        return (!inner.contains(&b'"')).then_some(Cow::Borrowed(inner));
    }
    let mut plain = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return None,
            // The quote that ends the text is escaped, so the string does not end.
            b'\\' => plain.push(*bytes.next()?),
            other => plain.push(*other),
        }
    }
    Some(Cow::Owned(plain))
}

/// Whether a backslash takes the next character's meaning away inside quotes. It does not in entity tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Escapes {
    Yes,
    No,
}

/// A member of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Member<'a> {
    /// Without white space around it.
    pub(crate) text: &'a [u8],
    /// A quote before or in it never ends, so that nobody knows where members end.
    pub(crate) is_broken: bool,
}

/// The members of one line of a list: between commas that are not inside quotes (RFC 9110 section 5.6.1).
///
/// After a quote that never ends, commas count again: what follows it may be what somebody relies on.
#[derive(Debug)]
pub(crate) struct Members<'a> {
    rest: Option<&'a [u8]>,
    escapes: Escapes,
    is_broken: bool,
    keeps_empty: bool,
}

impl<'a> Members<'a> {
    pub(crate) fn new(line: &'a [u8], escapes: Escapes) -> Self {
        Self { rest: Some(line), escapes, is_broken: false, keeps_empty: false }
    }

    /// Empty members too, for fields of which nobody knows that they are lists.
    pub(crate) fn with_empty(line: &'a [u8]) -> Self {
        Self { keeps_empty: true, ..Self::new(line, Escapes::Yes) }
    }

    /// Where the quoted string that begins at `from` ends.
    fn closing(&self, text: &[u8], from: usize) -> Option<usize> {
        let mut is_escaped = false;
        for (at, byte) in text.iter().enumerate().skip(from + 1) {
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' if self.escapes == Escapes::Yes => is_escaped = true,
                b'"' => return Some(at),
                _ => {}
            }
        }
        None
    }

    fn end_of_member(&mut self, text: &[u8]) -> Option<usize> {
        let mut at = 0;
        loop {
            match text.get(at)? {
                b',' => return Some(at),
                b'"' if !self.is_broken => match self.closing(text, at) {
                    Some(end) => at = end,
                    // It is looked for once: a field full of quotes costs no more than its length.
                    None => self.is_broken = true,
                },
                _ => {}
            }
            at += 1;
        }
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = Member<'a>;

    fn next(&mut self) -> Option<Member<'a>> {
        while let Some(text) = self.rest.take() {
            let member = match self.end_of_member(text) {
                Some(comma) => {
                    self.rest = text.get(comma + 1..);
                    text.get(..comma).unwrap_or_default()
                }
                None => text,
            };
            let member = trim(member);
            if self.keeps_empty || !member.is_empty() {
                return Some(Member { text: member, is_broken: self.is_broken });
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(line: &str) -> Vec<(&str, bool)> {
        let members = Members::new(line.as_bytes(), Escapes::Yes);
        members.map(|member| (std::str::from_utf8(member.text).unwrap(), member.is_broken)).collect()
    }

    #[test]
    fn commas_inside_quotes_separate_nothing() {
        assert_eq!(members(r#"a="x, y" , b"#), [(r#"a="x, y""#, false), ("b", false)]);
        assert_eq!(members(r#"a="x\", y", b"#), [(r#"a="x\", y""#, false), ("b", false)]);
    }

    #[test]
    fn empty_members_are_none() {
        assert_eq!(members(" , ,\t,a,, "), [("a", false)]);
        assert_eq!(members(""), []);
    }

    #[test]
    fn after_a_quote_that_never_ends_commas_count() {
        assert_eq!(members(r#"x, a="b, c"#), [("x", false), (r#"a="b"#, true), ("c", true)]);
    }

    #[test]
    fn in_entity_tags_a_backslash_is_a_character() {
        let line = br#""a\", "b""#;
        let tags: Vec<&[u8]> = Members::new(line, Escapes::No).map(|member| member.text).collect();
        assert_eq!(tags, [&br#""a\""#[..], br#""b""#]);
    }

    #[test]
    fn a_quoted_string_is_read_whole_or_not_at_all() {
        assert_eq!(unquote(br#""a\"b""#).as_deref(), Some(&br#"a"b"#[..]));
        assert_eq!(unquote(br#""""#).as_deref(), Some(&b""[..]));
        for not in [&b"a"[..], b"\"", br#""a"b""#, br#""a\""#, b""] {
            assert_eq!(unquote(not), None, "{not:?}");
        }
    }
}
