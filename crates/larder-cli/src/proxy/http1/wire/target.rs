//! What a request is about: target and `Host` made into one URI, of which there is only one reading.

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery};
use http::{Method, StatusCode, Uri, uri};

use super::Refusal;

/// How the client reached this server, as the keys of the cache have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn default_port(self) -> &'static [u8] {
        match self {
            Self::Http => b"80",
            Self::Https => b"443",
        }
    }
}

impl From<Scheme> for uri::Scheme {
    fn from(scheme: Scheme) -> Self {
        match scheme {
            Scheme::Http => Self::HTTP,
            Scheme::Https => Self::HTTPS,
        }
    }
}

/// The URI that a request is about.
///
/// RFC 9112 section 3.2.2 lets a proxy that gets an absolute target ignore `Host`. Here, one that names another host, or
/// another scheme than that of the connection, is refused: something in front of this server may have gone by the other.
pub(crate) fn resolve(
    method: &Method,
    target: Bytes,
    host: Option<Bytes>,
    scheme: Scheme,
) -> Result<Uri, Refusal> {
    if *method == Method::CONNECT {
        return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, "this server opens no tunnels"));
    }
    if host.as_deref().is_some_and(|host| !is_authority(host)) {
        return Err(Refusal::bad("Host is not a host with an optional port"));
    }
    //= https://www.rfc-editor.org/rfc/rfc9112#section-3.2
    //# No whitespace is allowed in the request-target.
    if target.iter().any(|byte| *byte <= b' ' || *byte == 0x7f || *byte == b'#') {
        return Err(Refusal::bad("the target has bytes that no target may have"));
    }
    match target.first() {
        Some(b'/') => assemble(scheme, host, target),
        //= https://www.rfc-editor.org/rfc/rfc9112#section-3.2.4
        //# The "asterisk-form" of request-target is only used for a server-wide
        //# OPTIONS request (Section 9.3.7 of [HTTP]).
        Some(b'*') if target.len() == 1 && *method == Method::OPTIONS => assemble(scheme, None, target),
        _ => absolute(&target, host, scheme),
    }
}

fn absolute(target: &Bytes, host: Option<Bytes>, scheme: Scheme) -> Result<Uri, Refusal> {
    let Some(colon) = target.windows(3).position(|window| window == b"://") else {
        return Err(Refusal::bad("the target has no form that a request may have"));
    };
    if !target.get(..colon).is_some_and(|name| name.eq_ignore_ascii_case(scheme.as_str().as_bytes())) {
        return Err(Refusal::bad("the target has another scheme than the connection"));
    }
    let rest = target.slice(colon + 3..);
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let authority = rest.slice(..end);
    if !is_authority(&authority) {
        return Err(Refusal::bad("the target has no host with an optional port"));
    }
    if let Some(host) = host
        && !is_same(&authority, &host, scheme)
    {
        return Err(Refusal::bad("the target and Host name different hosts"));
    }
    let path = if end == rest.len() { Bytes::from_static(b"/") } else { rest.slice(end..) };
    assemble(scheme, Some(authority), path)
}

fn assemble(scheme: Scheme, authority: Option<Bytes>, path: Bytes) -> Result<Uri, Refusal> {
    let unreadable = |_| Refusal::bad("the target has bytes that no target may have");
    let mut parts = uri::Parts::default();
    parts.path_and_query = Some(PathAndQuery::from_maybe_shared(path).map_err(unreadable)?);
    if let Some(authority) = authority {
        let authority = Authority::from_maybe_shared(authority)
            .map_err(|_| Refusal::bad("Host is not a host with an optional port"))?;
        parts.authority = Some(authority);
        parts.scheme = Some(scheme.into());
    }
    Uri::from_parts(parts).map_err(|_| Refusal::bad("the target has no form that a request may have"))
}

/// Whether this is a host with an optional port, and nothing that somebody could split elsewhere.
///
/// Names are of letters, digits, `-`, `.` and `_`; RFC 3986 has more, and no host uses it.
pub(crate) fn is_authority(authority: &[u8]) -> bool {
    let (host, port) = split(authority);
    let is_port = |port: &[u8]| {
        port.len() <= 5
            && port.iter().all(u8::is_ascii_digit)
            && port.iter().fold(0_u32, |sum, digit| sum * 10 + u32::from(digit - b'0')) <= 65_535
    };
    let is_host = match host {
        [b'[', inner @ .., b']'] => {
            str::from_utf8(inner).is_ok_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok())
        }
        _ => {
            let is_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
            !host.is_empty() && host.len() <= 255 && host.iter().all(is_of_name)
        }
    };
    is_host && port.is_none_or(is_port)
}

/// Host and port; a colon inside brackets is of the host.
fn split(authority: &[u8]) -> (&[u8], Option<&[u8]>) {
    match authority.iter().rposition(|byte| *byte == b':') {
        Some(colon) if authority.last() != Some(&b']') => {
            let (host, port) = authority.split_at(colon);
            (host, port.get(1..))
        }
        _ => (authority, None),
    }
}

/// Whether two authorities mean the same server.
pub(crate) fn is_same(one: &[u8], other: &[u8], scheme: Scheme) -> bool {
    let of = |authority| {
        let (host, port) = split(authority);
        (host, port.filter(|port| !port.is_empty()).unwrap_or(scheme.default_port()))
    };
    let ((host, port), (other_host, other_port)) = (of(one), of(other));
    host.eq_ignore_ascii_case(other_host) && port == other_port
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(method: Method, target: &'static str, host: Option<&'static str>) -> Result<String, u16> {
        let host = host.map(|host| Bytes::from_static(host.as_bytes()));
        resolve(&method, Bytes::from_static(target.as_bytes()), host, Scheme::Http)
            .map(|uri| uri.to_string())
            .map_err(|refusal| refusal.status.as_u16())
    }

    #[test]
    fn a_target_becomes_one_absolute_uri() {
        let get = |target, host| uri(Method::GET, target, Some(host)).unwrap();
        assert_eq!(get("/a?b", "x"), "http://x/a?b");
        assert_eq!(get("//account", "x:8080"), "http://x:8080//account");
        assert_eq!(get("/a/./b/%2e%2e/C", "x"), "http://x/a/./b/%2e%2e/C");
        assert_eq!(get("http://x/a", "X:80"), "http://x/a");
        assert_eq!(get("HTTP://x", "x"), "http://x/");
        assert_eq!(get("http://[::1]:81/", "[::1]:81"), "http://[::1]:81/");
        assert_eq!(uri(Method::GET, "/a", None).unwrap(), "/a");
        assert_eq!(uri(Method::OPTIONS, "*", Some("x")).unwrap(), "*");
    }

    #[test]
    fn what_has_two_readings_is_refused() {
        for (target, host) in [
            ("http://a/", "b"),
            ("http://a:81/", "a"),
            ("https://a/", "a"),
            ("ftp://a/", "a"),
            ("http://user@a/", "a"),
            ("http:///x", "a"),
            ("a/b", "a"),
            ("\\account", "a"),
            ("*", "a"),
            ("a:80", "a"),
            ("/a#b", "a"),
            ("/a b", "a"),
            ("/a\tb", "a"),
            ("/a\u{7f}", "a"),
            ("", "a"),
        ] {
            assert_eq!(uri(Method::GET, target, Some(host)), Err(400), "{target} at {host}");
        }
        assert_eq!(uri(Method::CONNECT, "a:80", Some("a")), Err(501));
    }

    #[test]
    fn a_host_is_a_host() {
        for host in ["a", "a.b-c_d", "a:1", "a:", "127.0.0.1:80", "[::1]", "[::1]:443"] {
            assert!(is_authority(host.as_bytes()), "{host}");
        }
        for host in [
            "", ":80", "a b", "a,b", "a/b", "a@b", "u@a", "a?b", "a#b", "a:b", "a:1:2", "a:65536", "a:+1",
            "[::1", "::1", "[x]", "a\\b", "ä", "a%00", "[::1]x", "a:000080",
        ] {
            assert!(!is_authority(host.as_bytes()), "{host}");
        }
    }
}
