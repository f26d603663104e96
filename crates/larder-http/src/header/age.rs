//! `Age` (RFC 9111 section 5.1).

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};

use super::cache_control::SECONDS_MAX;
use super::{Delta, trim};

/// What the field says; `None` if it is absent or says nothing that can be understood.
//= https://www.rfc-editor.org/rfc/rfc9111#section-5.1
//# Although it is defined as a singleton header field, a cache
//# encountering a message with a list-based Age field value SHOULD use
//# the first member of the field value, discarding subsequent ones.
pub fn parse(headers: &HeaderMap) -> Option<Duration> {
    let line = headers.get(header::AGE)?.as_bytes();
    let first = line.split(|byte| *byte == b',').next().unwrap_or_default();
    //= https://www.rfc-editor.org/rfc/rfc9111#section-5.1
    //# If the field value (after discarding additional members, as per
    //# above) is invalid (e.g., it contains something other than a non-
    //# negative integer), a cache SHOULD ignore the field.
    Delta::parse(trim(first)).duration()
}

/// The field for a response of this age: whole seconds that have passed.
pub fn format(age: Duration) -> HeaderValue {
    HeaderValue::from(age.as_secs().min(SECONDS_MAX.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_lines(lines: &[&str]) -> Option<u64> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::AGE, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        parse(&headers).map(|age| age.as_secs())
    }

    //= https://www.rfc-editor.org/rfc/rfc9111#section-5.1
    //= type=test
    //# If the field value (after discarding additional members, as per
    //# above) is invalid (e.g., it contains something other than a non-
    //# negative integer), a cache SHOULD ignore the field.
    #[test]
    fn the_first_number_counts_and_what_is_none_is_ignored() {
        // age-parse: age-parse-nonnumeric, -negative, -float, -large-minus-one, -large, -larger, -suffix, -prefix,
        // -suffix-twoline, -prefix-twoline, -dup-0, -dup-0-twoline, -dup-old, -parameter, -numeric-parameter.
        for (lines, expected) in [
            (&["abc"][..], None),
            (&["-7200"], None),
            (&["7200.0"], None),
            (&["7200;foo=1"], None),
            (&["7200;foo=111"], None),
            (&[""], None),
            (&[], None),
            (&["2147483647"], Some(2_147_483_647)),
            (&["2147483648"], Some(2_147_483_648)),
            (&["2147483649"], Some(2_147_483_648)),
            (&["99999999999999999999"], Some(2_147_483_648)),
            (&["7200, 0"], Some(7200)),
            (&["7200", "0"], Some(7200)),
            (&["0, 7200"], Some(0)),
            (&["0", "7200"], Some(0)),
            (&["7200, foo"], Some(7200)),
            (&["foo, 7200"], None),
            (&["foo", "7200"], None),
        ] {
            assert_eq!(parse_lines(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn seconds_that_have_not_passed_are_not_written() {
        assert_eq!(format(Duration::from_millis(2999)), "2");
        assert_eq!(format(Duration::MAX), "2147483648");
    }
}
