//! Targeted fields such as `CDN-Cache-Control` (RFC 9213): the same directives, in a dictionary of structured fields,
//! which is another syntax with other errors.

use http::{HeaderMap, HeaderName};
use sfv::{BareItem, Dictionary, ListEntry, Parser};

use super::cache_control::SECONDS_MAX;
use super::{CacheControl, Delta, Extent, trim};

/// Reads one targeted field. `None` if it is absent, empty or not a dictionary: it is then as if it were not there.
//= https://www.rfc-editor.org/rfc/rfc9213#section-2.1
//# If a targeted field in a given response is empty, or a parsing error
//# is encountered, that field MUST be ignored by the cache
pub fn parse(headers: &HeaderMap, name: &HeaderName) -> Option<CacheControl> {
    let mut whole = Vec::new();
    for line in super::lines(headers, name) {
        if !whole.is_empty() {
            whole.extend_from_slice(b", ");
        }
        whole.extend_from_slice(trim(line));
    }
    let dictionary = Parser::new(&whole).parse::<Dictionary>().ok()?;
    if dictionary.is_empty() {
        return None;
    }
    let mut directives = CacheControl::default();
    for (key, entry) in &dictionary {
        if let ListEntry::Item(item) = entry {
            add(&mut directives, key.as_str(), &item.bare_item);
        }
    }
    Some(directives)
}

/// A value of the wrong type leaves its directive unsaid.
fn add(directives: &mut CacheControl, key: &str, value: &BareItem) {
    match key {
        "max-age" => directives.max_age = seconds(value),
        "s-maxage" => directives.s_maxage = seconds(value),
        "stale-while-revalidate" => directives.stale_while_revalidate = seconds(value),
        "stale-if-error" => directives.stale_if_error = seconds(value),
        "no-cache" => directives.no_cache = extent(value),
        "private" => directives.private = extent(value),
        "no-store" => directives.no_store = is_true(value),
        "public" => directives.public = is_true(value),
        "must-revalidate" => directives.must_revalidate = is_true(value),
        "proxy-revalidate" => directives.proxy_revalidate = is_true(value),
        "must-understand" => directives.must_understand = is_true(value),
        "immutable" => directives.immutable = is_true(value),
        _ => {}
    }
}

fn is_true(value: &BareItem) -> bool {
    matches!(value, BareItem::Boolean(true))
}

fn seconds(value: &BareItem) -> Option<Delta> {
    let BareItem::Integer(integer) = value else { return None };
    let Ok(seconds) = u64::try_from(i64::from(*integer)) else { return Some(Delta::Invalid) };
    Some(Delta::Seconds(u32::try_from(seconds).unwrap_or(SECONDS_MAX).min(SECONDS_MAX)))
}

fn extent(value: &BareItem) -> Option<Extent> {
    let names = match value {
        BareItem::Boolean(true) => return Some(Extent::Whole),
        BareItem::String(names) => names.as_str(),
        BareItem::Token(names) => names.as_str(),
        _ => return None,
    };
    let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
    match names.map(|name| HeaderName::from_bytes(name.as_bytes())).collect::<Result<Vec<_>, _>>() {
        Ok(names) if !names.is_empty() => Some(Extent::Fields(names)),
        _ => Some(Extent::Whole),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const NAME: HeaderName = HeaderName::from_static("cdn-cache-control");

    fn parse_lines(lines: &[&str]) -> Option<CacheControl> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(NAME, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        parse(&headers, &NAME)
    }

    //= https://www.rfc-editor.org/rfc/rfc9213#section-2.1
    //= type=test
    //# If a targeted field in a given response is empty, or a parsing error
    //# is encountered, that field MUST be ignored by the cache
    #[test]
    fn a_field_that_is_no_dictionary_is_not_there() {
        // cdn-cache-control: cdn-cc-invalid-sh-type-unknown, cdn-max-age-space-before-equals, -space-after-equals, -case-insensitive.
        for line in [
            "max-age=10000, &&&&&",
            "",
            "  ",
            "MaX-aGe=3600",
            "max-age =100",
            "max-age= 100",
            "max-age=",
            "a,",
        ] {
            assert_eq!(parse_lines(&[line]), None, "{line:?}");
        }
        assert_eq!(parse_lines(&[]), None);
    }

    #[test]
    fn a_value_of_the_wrong_type_leaves_its_directive_unsaid_and_the_field_counts() {
        // cdn-cache-control: cdn-cc-invalid-sh-type-wrong.
        for line in [r#"max-age="10000""#, "max-age=1.5", "max-age", "max-age=(1 2)", "max-age=ten"] {
            assert_eq!(parse_lines(&[line]), Some(CacheControl::default()), "{line}");
        }
        assert_eq!(parse_lines(&["no-store=?0, private=?0, no-cache=1"]), Some(CacheControl::default()));
    }

    #[test]
    fn directives_are_read_and_unknown_ones_are_skipped() {
        // cdn-cache-control: cdn-max-age-extension, cdn-max-age-max, cdn-max-age-max-plus, cdn-private, cdn-no-cache, cdn-no-store-cc-fresh.
        let read =
            parse_lines(&["foobar, max-age=3600;x=1", "no-store, immutable, no-cache=\"a, b\""]).unwrap();
        assert_eq!(read.max_age, Some(Delta::Seconds(3600)));
        assert!(read.no_store && read.immutable && read.private.is_none());
        assert_eq!(Extent::fields(read.no_cache.as_ref()).len(), 2);
        for (line, expected) in [
            ("max-age=2147483648", Delta::Seconds(SECONDS_MAX)),
            ("max-age=99999999999", Delta::Seconds(SECONDS_MAX)),
            ("max-age=-1", Delta::Invalid),
            ("max-age=1, max-age=2", Delta::Seconds(2)),
        ] {
            assert_eq!(parse_lines(&[line]).unwrap().max_age, Some(expected), "{line}");
        }
        assert_eq!(parse_lines(&["private"]).unwrap().private, Some(Extent::Whole));
        assert_eq!(parse_lines(&["private=\"\""]).unwrap().private, Some(Extent::Whole));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(line in "[ -~\\t\u{80}-\u{ff}]{0,200}") {
            let read = parse_lines(&[&line]);
            prop_assert_eq!(parse_lines(&[&line]), read);
        }
    }
}
