//! `Cache-Groups` and `Cache-Group-Invalidation` (RFC 9875): lists of strings.

use http::{HeaderMap, HeaderName};
use sfv::{BareItem, List, ListEntry, Parser};

use super::trim;

/// The groups that a response belongs to.
pub const CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");
/// The groups that the answer to an unsafe request invalidates.
pub const CACHE_GROUP_INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");

/// The most groups that are read from one message.
//= https://www.rfc-editor.org/rfc/rfc9875#section-2
//# Implementations MUST support at least 32 groups in a field value, with
//# up to at least 32 characters in each member.
pub const GROUPS_MAX: usize = 128;
/// The most characters of a group's name. Longer ones are skipped.
pub const GROUP_CHARACTERS_MAX: usize = 256;

/// The groups in a field. A field that is no list of strings is ignored as a whole, as structured fields are.
pub fn parse(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let mut whole = Vec::new();
    for line in super::lines(headers, name) {
        if !whole.is_empty() {
            whole.extend_from_slice(b", ");
        }
        whole.extend_from_slice(trim(line));
    }
    let Ok(list) = Parser::new(&whole).parse::<List>() else { return Vec::new() };
    let mut groups = Vec::new();
    for entry in &list {
        let ListEntry::Item(item) = entry else { return Vec::new() };
        let BareItem::String(group) = &item.bare_item else { return Vec::new() };
        let group = group.as_str();
        if groups.len() < GROUPS_MAX && group.len() <= GROUP_CHARACTERS_MAX {
            groups.push(group.to_owned());
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn groups(lines: &[&str]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CACHE_GROUPS, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        parse(&headers, &CACHE_GROUPS)
    }

    #[test]
    fn groups_are_strings_compared_as_they_are() {
        assert_eq!(
            groups(&[r#""scripts", "Two words";x=1"#, r#""ü""#.trim_matches('ü')]),
            Vec::<String>::new()
        );
        assert_eq!(groups(&[r#""scripts""#, r#""Two words";x=1"#]), ["scripts", "Two words"]);
        assert_eq!(groups(&["scripts"]), Vec::<String>::new());
        assert_eq!(groups(&[r#"("a" "b")"#]), Vec::<String>::new());
        assert_eq!(groups(&[]), Vec::<String>::new());
    }

    //= https://www.rfc-editor.org/rfc/rfc9875#section-2
    //= type=test
    //# Implementations MUST support at least 32 groups in a field value, with
    //# up to at least 32 characters in each member.
    #[test]
    fn thirty_two_of_thirty_two_characters_are_read_and_there_is_a_limit() {
        let name = format!("\"{}\", ", "g".repeat(32)).repeat(31) + &format!("\"{}\"", "h".repeat(32));
        assert_eq!(groups(&[&name]).len(), 32);
        let many = "\"a\",".repeat(10_000) + "\"a\"";
        assert_eq!(groups(&[&many]).len(), GROUPS_MAX);
        assert_eq!(groups(&[&format!("\"{}\", \"a\"", "x".repeat(10_000))]), ["a"]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(line in "[ -~\\t\u{80}-\u{ff}]{0,200}") {
            prop_assert_eq!(groups(&[&line]), groups(&[&line]));
        }
    }
}
