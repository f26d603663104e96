//! Which origin a host and a path belong to. Pure.

use http::uri::PathAndQuery;

use super::options::{HostPattern, Reach, Route};

/// What a host and a path belong to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Found<'a> {
    Route(&'a Route),
    None(NoRoute),
}

/// Why they belong to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoRoute {
    /// No route is for this host.
    Host,
    /// No route of this host is for this path.
    Path,
}

/// The routes, the most exact first: a host before a pattern, a longer path before a shorter one.
pub(super) fn in_order(mut routes: Vec<Route>) -> Vec<Route> {
    let rank = |host: &HostPattern| match host {
        HostPattern::Is(_) => (0, 0),
        HostPattern::Below(name) => (1, usize::MAX - name.len()),
        HostPattern::Any => (2, 0),
    };
    routes.sort_by_key(|route| (rank(&route.host), usize::MAX - route.path.trim_end_matches('/').len()));
    routes
}

/// The first of these routes that fits.
pub(super) fn find<'a>(routes: &'a [Route], host: &str, path: &str) -> Found<'a> {
    let host = comparable(host);
    let mut known = false;
    for route in routes.iter().filter(|route| is_for(&route.host, &host)) {
        known = true;
        if is_below(path, &route.path) {
            return Found::Route(route);
        }
    }
    Found::None(if known { NoRoute::Path } else { NoRoute::Host })
}

/// Whether one of these means a host and a path.
pub(crate) fn covers(reaches: &[Reach], host: &str, path: &str) -> bool {
    let host = comparable(host);
    reaches.iter().any(|reach| is_for(&reach.host, &host) && is_below(path, &reach.path))
}

/// A host as patterns have it.
fn comparable(host: &str) -> String {
    host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase()
}

fn is_for(pattern: &HostPattern, host: &str) -> bool {
    match pattern {
        HostPattern::Any => true,
        HostPattern::Below(name) => host.len() > name.len() && host.ends_with(name.as_str()),
        HostPattern::Is(name) => host == name,
    }
}

/// Whether a path is this one or below it, by whole segments and byte by byte: what an origin may read as the same is
/// not the same here.
fn is_below(path: &str, prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A path without the prefix that it is below.
pub(super) fn without_prefix(path: &PathAndQuery, prefix: &str) -> PathAndQuery {
    let Some(rest) = path.as_str().strip_prefix(prefix.trim_end_matches('/')) else { return path.clone() };
    let rest = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
    PathAndQuery::try_from(rest).unwrap_or_else(|_| path.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes() -> Vec<Route> {
        let route = |host: &str, path: &str, origin: &str| Route {
            host: HostPattern::parse(host).unwrap(),
            path: path.to_owned(),
            origin: origin.into(),
            strip: false,
        };
        in_order(vec![
            route("*.example.com", "/", "below"),
            route("example.com", "/", "app"),
            route("example.com", "/api", "api"),
            route("example.com", "/api/v2/", "api2"),
            route("*.deep.example.com", "/", "deep"),
            route("static.test", "/img", "img"),
            route("::1", "/", "v6"),
        ])
    }

    #[test]
    fn the_most_exact_route_is_taken() {
        let routes = routes();
        for (host, path, origin) in [
            ("example.com", "/", "app"),
            ("EXAMPLE.com.", "/x", "app"),
            ("example.com", "/api", "api"),
            ("example.com", "/api/x", "api"),
            ("example.com", "/apix", "app"),
            ("example.com", "/api/v2", "api2"),
            ("example.com", "/api/v2/x", "api2"),
            ("example.com", "/%61pi", "app"),
            ("a.example.com", "/", "below"),
            ("a.deep.example.com", "/", "deep"),
            ("[::1]", "/", "v6"),
        ] {
            let Found::Route(route) = find(&routes, host, path) else { panic!("{host}{path}") };
            assert_eq!(&*route.origin, origin, "{host}{path}");
        }
    }

    #[test]
    fn what_belongs_to_nothing_says_why() {
        let routes = routes();
        for host in ["other.test", ".example.com", "notexample.com", "example.com.evil.test", ""] {
            assert_eq!(find(&routes, host, "/"), Found::None(NoRoute::Host), "{host}");
        }
        assert_eq!(find(&routes, "static.test", "/"), Found::None(NoRoute::Path));
        assert_eq!(find(&routes, "static.test", "/imgs"), Found::None(NoRoute::Path));
    }

    #[test]
    fn what_is_covered_is_below_a_path_of_a_host() {
        let reaches = ["a.test/img", "*.b.test", "/static"].map(|text| Reach::parse(text).unwrap());
        for (host, path, is_covered) in [
            ("a.test", "/img", true),
            ("A.test.", "/img/x", true),
            ("a.test", "/imgs", false),
            ("a.test", "/", false),
            ("x.b.test", "/", true),
            ("b.test", "/", false),
            ("c.test", "/static/x", true),
        ] {
            assert_eq!(covers(&reaches, host, path), is_covered, "{host}{path}");
        }
    }

    #[test]
    fn a_prefix_is_taken_off() {
        for (path, prefix, rest) in [
            ("/api/x?q=/api", "/api", "/x?q=/api"),
            ("/api", "/api/", "/"),
            ("/api?q", "/api", "/?q"),
            ("/x", "/", "/x"),
            ("/api//x", "/api", "//x"),
        ] {
            assert_eq!(without_prefix(&path.parse().unwrap(), prefix).as_str(), rest, "{path}");
        }
    }
}
