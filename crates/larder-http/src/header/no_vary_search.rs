//! `No-Vary-Search`: which parts of a query do not change the response (draft-ietf-httpbis-no-vary-search).

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue};
use sfv::{BareItem, Dictionary, InnerList, ListEntry, Parser};

use super::trim;

/// The field's name.
pub const NO_VARY_SEARCH: HeaderName = HeaderName::from_static("no-vary-search");

/// Which names of parameters are looked at. Names are in order, once each.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Looked {
    All,
    AllBut(Vec<String>),
    Only(Vec<String>),
}

/// What a response says about the query of its URL. By default, every byte of it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoVarySearch {
    looked: Looked,
    is_order_free: bool,
    value: HeaderValue,
}

impl NoVarySearch {
    /// Reads the field; `None` if it is absent, malformed, or changes nothing: then queries are compared as bytes.
    pub fn parse(headers: &HeaderMap) -> Option<Self> {
        if !headers.contains_key(&NO_VARY_SEARCH) {
            return None;
        }
        let mut whole = Vec::new();
        for line in super::lines(headers, &NO_VARY_SEARCH) {
            if !whole.is_empty() {
                whole.extend_from_slice(b", ");
            }
            whole.extend_from_slice(trim(line));
        }
        let dictionary = Parser::new(&whole).parse::<Dictionary>().ok()?;
        let is_order_free = match dictionary.get("key-order") {
            None => false,
            Some(entry) => boolean(entry)?,
        };
        let except = match dictionary.get("except") {
            None => None,
            Some(entry) => Some(names(entry)?),
        };
        let looked = match (dictionary.get("params"), except) {
            (None, None) => Looked::All,
            (Some(entry), except) => match (boolean(entry), except) {
                (Some(true), except) => Looked::Only(except.unwrap_or_default()),
                (Some(false), None) => Looked::All,
                (None, None) => match names(entry)? {
                    names if names.is_empty() => Looked::All,
                    names => Looked::AllBut(names),
                },
                // Exceptions from what is not excluded.
                (Some(false) | None, Some(_)) => return None,
            },
            (None, Some(_)) => return None,
        };
        let value = value(&looked, is_order_free);
        (is_order_free || looked != Looked::All).then_some(Self { looked, is_order_free, value })
    }

    /// A query in the form that all equivalent ones share: two queries are equivalent if this is equal for both.
    pub fn normalize(&self, query: &str) -> String {
        let mut pairs: Vec<(Cow<'_, str>, Cow<'_, str>)> = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(name, value)| (decoded(name), decoded(value)))
            .filter(|(name, _)| self.looks_at(name))
            .collect();
        if self.is_order_free {
            // By name alone: the order of the values of one name may matter.
            pairs.sort_by(|one, other| one.0.cmp(&other.0));
        }
        let mut text = String::new();
        for (name, value) in &pairs {
            if !text.is_empty() {
                text.push('&');
            }
            encode_into(&mut text, name);
            text.push('=');
            encode_into(&mut text, value);
        }
        text
    }

    /// The field's value, in one way of writing: two that mean the same are written the same.
    pub fn value(&self) -> &HeaderValue {
        &self.value
    }

    fn looks_at(&self, name: &str) -> bool {
        let is_in = |names: &[String]| names.binary_search_by(|other| other.as_str().cmp(name)).is_ok();
        match &self.looked {
            Looked::All => true,
            Looked::AllBut(names) => !is_in(names),
            Looked::Only(names) => is_in(names),
        }
    }
}

fn value(looked: &Looked, is_order_free: bool) -> HeaderValue {
    let mut text = String::new();
    if is_order_free {
        text.push_str("key-order");
    }
    let names = match looked {
        Looked::All => None,
        Looked::AllBut(names) => Some(("params=", names)),
        Looked::Only(names) => Some(("params, except=", names)),
    };
    if let Some((what, names)) = names {
        text.push_str(if text.is_empty() { "" } else { ", " });
        text.push_str(what);
        for (nth, name) in names.iter().enumerate() {
            text.push_str(if nth == 0 { "(\"" } else { "\" \"" });
            encode_into(&mut text, name);
        }
        text.push_str(if names.is_empty() { "()" } else { "\")" });
    }
    // It is letters, digits and some marks.
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn boolean(entry: &ListEntry) -> Option<bool> {
    match entry {
        ListEntry::Item(item) => item.bare_item.as_boolean(),
        ListEntry::InnerList(_) => None,
    }
}

fn names(entry: &ListEntry) -> Option<Vec<String>> {
    let ListEntry::InnerList(InnerList { items, .. }) = entry else { return None };
    let name = |item: &sfv::Item| match &item.bare_item {
        BareItem::String(name) => Some(decoded(name.as_str()).into_owned()),
        _ => None,
    };
    let mut names: Vec<String> = items.iter().map(name).collect::<Option<_>>()?;
    names.sort_unstable();
    names.dedup();
    Some(names)
}

/// Without percent-encoding, with spaces for `+`, as forms are written. Bytes that are no text are all the same there.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|byte| byte == b'%' || byte == b'+') {
        return Cow::Borrowed(text);
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes();
    while let Some((byte, rest)) = bytes.split_first() {
        bytes = rest;
        match (byte, rest) {
            (b'+', _) => plain.push(b' '),
            (b'%', [high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    plain.push(high * 16 + low);
                    bytes = after;
                }
                _ => plain.push(b'%'),
            },
            (other, _) => plain.push(*other),
        }
    }
    Cow::Owned(String::from_utf8_lossy(&plain).into_owned())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

fn encode_into(text: &mut String, plain: &str) {
    use std::fmt::Write as _;
    for byte in plain.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn parse(line: &str) -> Option<NoVarySearch> {
        let value = HeaderValue::from_bytes(line.as_bytes()).unwrap();
        NoVarySearch::parse(&HeaderMap::from_iter([(NO_VARY_SEARCH, value)]))
    }

    fn same(line: &str, one: &str, other: &str) -> bool {
        let rule = parse(line).unwrap();
        rule.normalize(one) == rule.normalize(other)
    }

    #[test]
    fn parameters_that_do_not_matter_are_not_looked_at() {
        assert!(same("params", "a=1&b=2", ""));
        assert!(same(r#"params=("utm_source" "c")"#, "a=1&utm_source=x", "c=9&a=1"));
        assert!(!same(r#"params=("utm_source")"#, "a=1", "a=2"));
        assert!(same(r#"params, except=("id")"#, "id=1&x=2", "y=3&id=1"));
        assert!(!same(r#"params, except=("id")"#, "id=1", "id=2"));
        assert!(same(r#"params=("a b")"#, "a+b=1&c=2", "a%20b=3&c=2"));
    }

    #[test]
    fn queries_are_compared_as_forms_are_read() {
        // The draft's examples, section 5.1; they hold for any rule.
        for (one, other) in [
            ("a=x", "%61=%78"),
            ("a=\u{e9}", "a=%C3%A9"),
            ("a=%f6", "a=%ef%bf%bd"),
            ("a=x&&&&", "a=x"),
            ("a=", "a"),
            ("a=%20", "a=+"),
        ] {
            assert!(same("key-order", one, other), "{one} {other}");
        }
        assert!(same(r#"params=("%C3%A9+%E6%B0%97")"#, "\u{e9}+\u{6c17}=2", "%C3%A9%20\u{6c17}=3"));
    }

    #[test]
    fn what_means_the_same_is_written_the_same() {
        for (line, value) in [
            ("params=?1", "params, except=()"),
            ("params, key-order, except=(\"x\")", "key-order, params, except=(\"x\")"),
            ("params=(\"b\" \"a\" \"b\"), other=1", "params=(\"a\" \"b\")"),
            ("params=(\"a b\" \"\\\"\")", "params=(\"%22\" \"a%20b\")"),
            ("key-order, params=()", "key-order"),
        ] {
            let rule = parse(line).unwrap();
            assert_eq!(rule.value(), value, "{line}");
            assert_eq!(parse(value).unwrap(), rule, "{line}");
        }
    }

    #[test]
    fn order_matters_unless_it_is_said_not_to_and_that_of_values_always_does() {
        assert!(same("key-order", "a=1&b=2", "b=2&a=1"));
        assert!(!same("key-order", "a=1&a=2", "a=2&a=1"));
        assert!(!same("params=(\"x\")", "a=1&b=2", "b=2&a=1"));
        // The names of two parameters do not flow into each other.
        assert!(!same("key-order", "a=1%26b=2", "a=1&b=2"));
    }

    #[test]
    fn what_is_malformed_or_changes_nothing_is_not_there() {
        for line in [
            "",
            "key-order=?0",
            "params=?0",
            "params=1",
            "except=(\"a\")",
            "params=(\"a\"), except=(\"b\")",
            "params=(a)",
            "params=()",
            "unknown-key",
            "params=(), except=()",
            "key-order=1, params",
            "&&",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn a_normal_form_stays_as_it_is(query in "[a-c=&%+0-9Ff]{0,40}", ordered in any::<bool>()) {
            let rule = parse(if ordered { "params=(\"b\")" } else { "key-order, params=(\"b\")" }).unwrap();
            let normal = rule.normalize(&query);
            prop_assert_eq!(rule.normalize(&normal), normal);
        }

        #[test]
        fn no_bytes_make_it_panic(line in "[ -~\\t\u{80}-\u{ff}]{0,100}", query in ".{0,60}") {
            let _ = parse(&line).map(|rule| rule.normalize(&query));
        }
    }
}
