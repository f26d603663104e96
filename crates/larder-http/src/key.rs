//! What a target is called: the primary key of a cache (RFC 9111 section 2).

use std::fmt;

use http::Uri;

/// The longest target that is cached, in bytes. Requests for longer ones are passed on.
pub const TARGET_BYTES_MAX: usize = 16 * 1024;

/// A target has no scheme and host, or is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoKey {
    /// It is not absolute.
    NotAbsolute,
    /// It is longer than [`TARGET_BYTES_MAX`].
    TooLong,
}

impl fmt::Display for NoKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAbsolute => f.write_str("the request's URI has no scheme and host, so it has no key"),
            Self::TooLong => {
                write!(f, "the request's URI is longer than {TARGET_BYTES_MAX} bytes, so it is not cached")
            }
        }
    }
}

impl std::error::Error for NoKey {}

/// The primary key of a target: scheme, host and port in one way of writing, path and query as they are.
///
/// Path and query are not touched: two that differ in a byte may mean different things to an origin, and a key that says
/// they are the same hands one's response to the other.
///
/// ```
/// use larder_http::target;
///
/// let key = |uri: &str| target(&uri.parse().unwrap()).unwrap();
/// assert_eq!(key("HTTP://Example.COM:80/a?b=1"), "http://example.com/a?b=1");
/// assert_eq!(key("https://example.com"), "https://example.com/");
/// assert_ne!(key("https://example.com/a/./b"), key("https://example.com/a/b"));
/// ```
///
/// # Errors
/// A relative URI, and one that is too long.
pub fn target(uri: &Uri) -> Result<String, NoKey> {
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(NoKey::NotAbsolute);
    };
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let bytes = scheme.len() + authority.as_str().len() + path.len() + 4;
    if bytes > TARGET_BYTES_MAX {
        return Err(NoKey::TooLong);
    }
    let mut target = String::with_capacity(bytes);
    push_origin(&mut target, scheme, authority);
    if !path.starts_with('/') {
        target.push('/');
    }
    target.push_str(path);
    Ok(target)
}

/// Scheme, host and port of a target, as its key begins. Empty if it has none.
pub(crate) fn origin(uri: &Uri) -> String {
    let mut origin = String::new();
    if let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) {
        push_origin(&mut origin, scheme, authority);
    }
    origin
}

fn push_origin(target: &mut String, scheme: &str, authority: &http::uri::Authority) {
    target.push_str(scheme);
    target.push_str("://");
    target.push_str(authority.host());
    target.make_ascii_lowercase();
    let default = match scheme {
        "http" => 80,
        "https" => 443,
        _ => 0,
    };
    match authority.port_u16() {
        Some(port) if port == default => {}
        Some(port) => {
            target.push(':');
            target.push_str(&port.to_string());
        }
        // What is no number that a port can have stays: an origin sees it, and may answer it with something else.
        None => {
            let place = authority.as_str().rsplit_once('@').map_or(authority.as_str(), |(_, place)| place);
            let after = place.get(authority.host().len()..).unwrap_or_default();
            target.push_str(after.strip_suffix(':').unwrap_or(after));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(uri: &str) -> Result<String, NoKey> {
        target(&uri.parse().unwrap())
    }

    #[test]
    fn what_may_differ_differs() {
        let all = [
            "http://a/p",
            "https://a/p",
            "http://a:81/p",
            "http://a:65616/p",
            "http://a:99999/p",
            "http://9:99999/p",
            "http://a/P",
            "http://a/p?",
            "http://a/p?q=a",
            "http://a/p?q=b",
            "http://a/p;x",
            "http://a/p%3bx",
            "http://a/p%3Bx",
            "http://a//p",
            "http://a/./p",
            "http://b/p",
        ];
        for (at, one) in all.iter().enumerate() {
            for other in &all[at + 1..] {
                assert_ne!(key(one).unwrap(), key(other).unwrap());
            }
        }
    }

    #[test]
    fn what_is_the_same_host_is_the_same() {
        assert_eq!(key("http://A:80/x"), key("http://a/x"));
        assert_eq!(key("https://a:443/x"), key("https://A/x"));
        assert_eq!(key("http://user:secret@a/x"), key("http://a/x"));
        assert_eq!(key("http://[::1]:80/x"), key("http://[::1]/x"));
        assert_eq!(key("http://a?q").unwrap(), "http://a/?q");
    }

    #[test]
    fn what_has_no_key_says_why() {
        assert_eq!(key("/x"), Err(NoKey::NotAbsolute));
        assert_eq!(key(&format!("http://a/{}", "x".repeat(TARGET_BYTES_MAX))), Err(NoKey::TooLong));
    }
}
