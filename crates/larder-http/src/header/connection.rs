//! Fields that belong to one connection and are neither stored nor passed on (RFC 9110 section 7.6.1).

use std::collections::HashSet;

use http::{HeaderMap, HeaderName, header};

use super::{lines, trim};

//= https://www.rfc-editor.org/rfc/rfc9111#section-3.1
//# *  Header fields that are specific to the proxy that a cache uses when
//#    forwarding a request MUST NOT be stored, unless the cache
//#    incorporates the identity of the proxy into the cache key.
const OF_ONE_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// What `Connection` cannot take away: it is meant for everybody, and without it a message means something else.
//= https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1
//# A sender MUST NOT send a connection option corresponding to a field
//# that is intended for all recipients of the content.
const FOR_EVERYBODY: [HeaderName; 18] = [
    header::AGE,
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_LOCATION,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::DATE,
    header::ETAG,
    header::EXPIRES,
    header::HOST,
    header::LAST_MODIFIED,
    header::PRAGMA,
    header::RANGE,
    header::SET_COOKIE,
    header::VARY,
];

/// Takes out of a message what is of its connection: the fields that always are, and those that `Connection` lists.
pub fn strip(headers: &mut HeaderMap) {
    let options = lines(headers, header::CONNECTION).flat_map(|line| line.split(|byte| *byte == b','));
    let listed: HashSet<HeaderName> = options
        .filter_map(|option| HeaderName::from_bytes(trim(option)).ok())
        .filter(|name| headers.contains_key(name) && !is_for_everybody(name))
        .collect();
    for name in listed {
        headers.remove(name);
    }
    for name in OF_ONE_HOP {
        headers.remove(name);
    }
}

fn is_for_everybody(name: &HeaderName) -> bool {
    // Targeted fields are called like that.
    FOR_EVERYBODY.contains(name) || name.as_str().ends_with("-cache-control")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn stripped(fields: &[(&str, &str)]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        strip(&mut headers);
        let mut names: Vec<String> = headers.keys().map(|name| name.as_str().to_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn listed_fields_and_those_of_the_hop_are_taken_out() {
        // headers: headers-omit-headers-listed-in-Connection, headers-store-Connection, -Keep-Alive, -TE, -Upgrade,
        // -Transfer-Encoding, -Proxy-*; U30.
        let left = stripped(&[
            ("Connection", "a, B ,, close"),
            ("Connection", "d"),
            ("a", "1"),
            ("b", "2"),
            ("c", "3"),
            ("d", "4"),
            ("Keep-Alive", "timeout=5"),
            ("TE", "trailers"),
            ("Upgrade", "x"),
            ("Transfer-Encoding", "chunked"),
            ("Proxy-Connection", "x"),
            ("Proxy-Authenticate", "x"),
            ("Proxy-Authentication-Info", "x"),
            ("Proxy-Authorization", "x"),
            ("Set-Cookie", "a=b"),
            ("Content-Range", "x"),
        ]);
        assert_eq!(left, ["c", "content-range", "set-cookie"]);
    }

    //= https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1
    //= type=test
    //# A sender MUST NOT send a connection option corresponding to a field
    //# that is intended for all recipients of the content.
    #[test]
    fn what_is_meant_for_everybody_cannot_be_listed_away() {
        let left = stripped(&[
            (
                "Connection",
                "cookie, authorization, host, cache-control, cdn-cache-control, vary, x-forwarded-for",
            ),
            ("Cookie", "a=b"),
            ("Authorization", "x"),
            ("Host", "a"),
            ("Cache-Control", "no-store"),
            ("CDN-Cache-Control", "no-store"),
            ("Vary", "*"),
            ("X-Forwarded-For", "1.2.3.4"),
        ]);
        assert_eq!(left, ["authorization", "cache-control", "cdn-cache-control", "cookie", "host", "vary"]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_twice_is_once(line in "[ -~\\t\u{80}-\u{ff}]{0,200}") {
            let once = stripped(&[("connection", &line), ("a", "1"), ("b", "2")]);
            prop_assert!(!once.contains(&"connection".to_owned()));
        }
    }
}
