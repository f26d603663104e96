//! References to URIs, resolved against a target (RFC 3986 section 5), and origins compared.

use http::Uri;

/// The longest reference that is looked at, in bytes.
const REFERENCE_MAX: usize = 8 * 1024;

/// The URI that a reference means, seen from a target. `None` if that cannot be said.
pub(super) fn resolve(base: &Uri, reference: &[u8]) -> Option<Uri> {
    let reference = std::str::from_utf8(reference).ok()?.trim_matches([' ', '\t']);
    if reference.len() > REFERENCE_MAX {
        return None;
    }
    let reference = reference.split_once('#').map_or(reference, |(before, _)| before);
    let (scheme, rest) = scheme(reference);
    let (authority, rest) = authority(rest);
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    };
    let base_scheme = base.scheme_str();
    let base_authority = base.authority().map(http::uri::Authority::as_str);
    let (scheme, authority, path, query) = match (scheme, authority) {
        (Some(scheme), authority) => (Some(scheme), Some(authority?), without_dots(path), query),
        (None, Some(authority)) => (base_scheme, Some(authority), without_dots(path), query),
        (None, None) if path.is_empty() => {
            (base_scheme, base_authority, base.path().to_owned(), query.or(base.query()))
        }
        (None, None) if path.starts_with('/') => (base_scheme, base_authority, without_dots(path), query),
        (None, None) => (base_scheme, base_authority, without_dots(&merged(base.path(), path)), query),
    };
    let path = if path.is_empty() { "/".to_owned() } else { path };
    let path_and_query = match query {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    let mut uri = Uri::builder();
    if let (Some(scheme), Some(authority)) = (scheme, authority) {
        uri = uri.scheme(scheme).authority(authority);
    } else if authority.is_some() {
        return None;
    }
    uri.path_and_query(path_and_query).build().ok()
}

/// Whether a reference means a target.
pub(super) fn is_same(target: &Uri, reference: &[u8]) -> bool {
    resolve(target, reference).is_some_and(|other| {
        is_same_origin(target, &other) && target.path() == other.path() && target.query() == other.query()
    })
}

/// Whether two URIs have the same scheme, host and port. Two without an authority are of the same, unknown, origin.
pub(super) fn is_same_origin(one: &Uri, other: &Uri) -> bool {
    let host = |uri: &Uri| uri.host().map(str::to_ascii_lowercase);
    one.scheme_str() == other.scheme_str() && host(one) == host(other) && port(one) == port(other)
}

fn port(uri: &Uri) -> Option<u16> {
    uri.port_u16().or(match uri.scheme_str() {
        Some("http") => Some(80),
        Some("https") => Some(443),
        _ => None,
    })
}

fn scheme(reference: &str) -> (Option<&str>, &str) {
    match reference.split_once(':') {
        Some((scheme, rest))
            if scheme.starts_with(|first: char| first.is_ascii_alphabetic())
                && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c)) =>
        {
            (Some(scheme), rest)
        }
        _ => (None, reference),
    }
}

fn authority(rest: &str) -> (Option<&str>, &str) {
    let Some(rest) = rest.strip_prefix("//") else { return (None, rest) };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    (Some(authority), path)
}

/// A relative path behind the folder of another one (RFC 3986 section 5.2.3).
fn merged(base: &str, path: &str) -> String {
    let folder = base.rfind('/').and_then(|slash| base.get(..=slash)).unwrap_or("/");
    format!("{folder}{path}")
}

/// A path without `.` and `..` (RFC 3986 section 5.2.4).
fn without_dots(path: &str) -> String {
    if !path.contains("/.") {
        return path.to_owned();
    }
    let mut segments: Vec<&str> = Vec::new();
    let mut ends_in_folder = false;
    for segment in path.split('/').skip(1) {
        ends_in_folder = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => {
                segments.pop();
            }
            other => segments.push(other),
        }
    }
    let mut plain = String::with_capacity(path.len());
    for segment in &segments {
        plain.push('/');
        plain.push_str(segment);
    }
    if ends_in_folder {
        plain.push('/');
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn resolved(base: &str, reference: &str) -> Option<String> {
        resolve(&base.parse().unwrap(), reference.as_bytes()).map(|uri| uri.to_string())
    }

    #[test]
    fn references_mean_what_the_examples_of_the_rfc_say() {
        // RFC 3986 sections 5.4.1 and 5.4.2, of those that have an authority.
        let base = "http://a/b/c/d;p?q";
        for (reference, expected) in [
            ("g", "http://a/b/c/g"),
            ("./g", "http://a/b/c/g"),
            ("g/", "http://a/b/c/g/"),
            ("/g", "http://a/g"),
            ("//g", "http://g/"),
            ("?y", "http://a/b/c/d;p?y"),
            ("g?y", "http://a/b/c/g?y"),
            ("#s", "http://a/b/c/d;p?q"),
            ("g?y#s", "http://a/b/c/g?y"),
            (";x", "http://a/b/c/;x"),
            ("", "http://a/b/c/d;p?q"),
            (".", "http://a/b/c/"),
            ("./", "http://a/b/c/"),
            ("..", "http://a/b/"),
            ("../g", "http://a/b/g"),
            ("../..", "http://a/"),
            ("../../g", "http://a/g"),
            ("../../../../g", "http://a/g"),
            ("/./g", "http://a/g"),
            ("/../g", "http://a/g"),
            ("g.", "http://a/b/c/g."),
            ("..g", "http://a/b/c/..g"),
            ("./g/.", "http://a/b/c/g/"),
            ("g/./h", "http://a/b/c/g/h"),
            ("g;x=1/../y", "http://a/b/c/y"),
            ("g?y/../x", "http://a/b/c/g?y/../x"),
            ("https://other:8443/x?y", "https://other:8443/x?y"),
        ] {
            assert_eq!(resolved(base, reference).as_deref(), Some(expected), "{reference}");
        }
        assert_eq!(resolved(base, "mailto:a@b"), None);
        assert_eq!(resolved(base, "http:g"), None);
        assert_eq!(resolved(base, "a b"), None);
        assert_eq!(resolved(base, &"a".repeat(10_000)), None);
    }

    #[test]
    fn without_an_authority_only_paths_are_known() {
        assert_eq!(resolved("/a/b", "c").as_deref(), Some("/a/c"));
        assert!(is_same(&"/a/b".parse().unwrap(), b"b"));
        assert!(!is_same(&"/a/b".parse().unwrap(), b"http://x/a/b"));
        assert_eq!(resolved("/a/b", "//x/c"), None);
    }

    #[test]
    fn origins_are_scheme_host_and_port() {
        let same = |one: &str, other: &str| is_same_origin(&one.parse().unwrap(), &other.parse().unwrap());
        assert!(same("http://a/x", "http://A:80/y"));
        assert!(same("https://a/x", "https://a:443/y"));
        assert!(!same("http://a/", "https://a/"));
        assert!(!same("http://a/", "http://b/"));
        assert!(!same("http://a/", "http://a:81/"));
        assert!(!same("http://a:443/", "https://a/"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(reference in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = resolve(&Uri::from_static("http://a/b/c?d"), &reference);
        }

        #[test]
        fn what_was_resolved_stays_as_it_is(reference in "(//?a|https?:)?[a-c./?:]{0,20}") {
            let base = Uri::from_static("http://a/b/c?d");
            if let Some(once) = resolve(&base, reference.as_bytes()) {
                prop_assert!(!once.path().split('/').any(|segment| segment == ".."));
                prop_assert_eq!(resolve(&base, once.to_string().as_bytes()), Some(once));
            }
        }
    }
}
