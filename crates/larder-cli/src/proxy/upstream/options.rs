//! What can be said about origins: plain values, compared when a configuration is read again. Opens nothing.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, Uri};

/// Which requests go where.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Routing {
    /// The origins, each with a name of its own.
    pub(crate) origins: Vec<OriginOptions>,
    /// Which of them is meant, by host and path.
    pub(crate) routes: Vec<Route>,
    /// Whether to be a forward proxy as well, for plain HTTP.
    pub(crate) open: Option<OpenProxy>,
    /// Request fields that reach the origin though they are no part of the key: answers vary on them.
    pub(crate) vary: Vec<HeaderName>,
    /// What responses say they came through, if they do.
    pub(crate) via: Option<String>,
}

/// A forward proxy's limits.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OpenProxy {
    /// Whether addresses that are not public may be asked for.
    pub(crate) private: bool,
    /// What holds for every target.
    pub(crate) target: OriginOptions,
}

/// Requests for some hosts, below a path, go to an origin.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Route {
    pub(crate) host: HostPattern,
    /// Whole segments: `/api` is `/api` and what is below it, not `/apis`.
    pub(crate) path: String,
    /// The name of the origin.
    pub(crate) origin: Arc<str>,
    /// Whether the origin does not see the path above.
    pub(crate) strip: bool,
}

/// Which hosts are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HostPattern {
    Any,
    /// `*.example.com`: what ends in this, which begins with a dot, in lower case.
    Below(String),
    /// This one, in lower case.
    Is(String),
}

impl HostPattern {
    /// Reads `*`, `*.example.com` or `example.com`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim().trim_end_matches('.').to_ascii_lowercase();
        let plain = |name: &str| {
            let name = name.trim_start_matches('[').trim_end_matches(']');
            // One colon is no address but a port, and none is ever asked for with its port.
            !name.is_empty()
                && name.bytes().filter(|b| *b == b':').count() != 1
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':'))
        };
        match text.as_str() {
            "*" => Some(Self::Any),
            _ => match text.strip_prefix('*') {
                Some(rest) if rest.starts_with('.') && plain(rest) => Some(Self::Below(rest.to_owned())),
                Some(_) => None,
                None if plain(&text) => {
                    Some(Self::Is(text.trim_start_matches('[').trim_end_matches(']').to_owned()))
                }
                None => None,
            },
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Below(name) => write!(f, "*{name}"),
            Self::Is(name) => f.write_str(name),
        }
    }
}

/// Which requests are meant: those for some hosts, below a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reach {
    pub(crate) host: HostPattern,
    /// Whole segments, as a route's.
    pub(crate) path: String,
}

impl Reach {
    /// Reads `example.com`, `*.example.com/img` or, for every host, `/img`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (host, path) = text.split_at(text.find('/').unwrap_or(text.len()));
        let host = match host {
            "" if path.is_empty() => return None,
            "" => HostPattern::Any,
            host => HostPattern::parse(host)?,
        };
        let path = if path.is_empty() { "/" } else { path };
        is_path(path).then(|| Self { host, path: path.to_owned() })
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.host, self.path)
    }
}

/// Whether this is a path and nothing else.
pub(crate) fn is_path(text: &str) -> bool {
    let path = PathAndQuery::try_from(text);
    text.starts_with('/') && !text.contains('#') && path.is_ok_and(|path| path.query().is_none())
}

/// One origin: servers that answer alike, and how they are asked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OriginOptions {
    pub(crate) name: Arc<str>,
    pub(crate) upstreams: Vec<UpstreamOptions>,
    pub(crate) balance: Balance,
    pub(crate) host: HostHeader,
    pub(crate) protocol: Protocol,
    pub(crate) tls: TlsOptions,
    pub(crate) timeouts: Timeouts,
    pub(crate) limits: Limits,
    /// How many other upstreams are tried after one that failed.
    pub(crate) retries: u32,
    /// When an upstream that fails is left alone, where there are others.
    pub(crate) eject: Option<Eject>,
    /// How upstreams are asked whether they are well.
    pub(crate) check: Option<Check>,
    /// Whether requests may ask for another protocol.
    pub(crate) upgrades: bool,
}

impl OriginOptions {
    /// An origin of this name and these upstreams, with the defaults of everything else.
    pub(crate) fn new(name: &str, upstreams: Vec<UpstreamOptions>) -> Self {
        Self {
            name: name.into(),
            upstreams,
            balance: Balance::RoundRobin,
            host: HostHeader::Auto,
            protocol: Protocol::Auto,
            tls: TlsOptions::default(),
            timeouts: Timeouts::default(),
            limits: Limits::default(),
            retries: 1,
            eject: Some(Eject::default()),
            check: None,
            upgrades: true,
        }
    }
}

/// One server.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct UpstreamOptions {
    pub(crate) address: Address,
    /// How many requests it gets for each one that an upstream of weight 1 gets.
    pub(crate) weight: u32,
}

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    pub(crate) tls: bool,
    /// Without the brackets of an IPv6 address.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// What stands before every path: empty, or `/base` without a slash at its end.
    pub(crate) base: String,
}

impl Address {
    /// Reads `http://host:port/base` or `https://…`; without a scheme, it is `http`.
    ///
    /// # Errors
    /// What is wrong with it, without the text.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri = with_scheme.parse().map_err(|_| "is not a URL such as \"http://127.0.0.1:3000\"")?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err("is neither an http:// nor an https:// URL"),
        };
        let authority = uri.authority().ok_or("has no host")?;
        if authority.as_str().contains('@') {
            return Err("has a user or a password in it, which no origin is sent");
        }
        if uri.query().is_some() || with_scheme.contains('#') {
            return Err("has a query or a fragment, which no origin is asked for");
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let has_port = authority.as_str().len() > authority.host().len();
        let port = match authority.port_u16() {
            Some(0) => return Err("has the port 0"),
            Some(port) => port,
            None if has_port => return Err("has a port that is not a number up to 65535"),
            None if tls => 443,
            None => 80,
        };
        if host.is_empty() {
            return Err("has no host");
        }
        Ok(Self { tls, host, port, base: uri.path().trim_end_matches('/').to_owned() })
    }

    pub(crate) fn scheme(&self) -> Scheme {
        if self.tls { Scheme::HTTPS } else { Scheme::HTTP }
    }

    /// `host`, or `host:port` where the port is not the scheme's own.
    pub(crate) fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.tls, self.port) {
            (false, 80) | (true, 443) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme(), self.authority(), self.base)
    }
}

/// Which upstream is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Balance {
    /// Each in its turn, by weight.
    RoundRobin,
    /// The one with the fewest requests for its weight.
    LeastRequests,
}

/// What `Host` an origin sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HostHeader {
    /// The client's; of upstreams over TLS, theirs, because certificates and virtual hosts go by it.
    Auto,
    /// The client's.
    Pass,
    /// The upstream's own.
    Upstream,
    /// This one.
    Fixed(HeaderValue),
}

/// Which version of HTTP is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// What is agreed on over TLS; HTTP/1.1 without.
    Auto,
    Http1,
    /// HTTP/2 and nothing else; without TLS by prior knowledge.
    Http2,
}

/// Who is believed, and who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsOptions {
    /// Whether the upstream's certificate has to be good.
    pub(crate) verify: bool,
    /// Certificates that are believed in place of the platform's.
    pub(crate) ca: Option<PathBuf>,
    /// Our own certificate and its key.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
    /// Which name the certificate has to be for; else the upstream's host.
    pub(crate) server_name: Option<String>,
}

impl Default for TlsOptions {
    fn default() -> Self {
        Self { verify: true, ca: None, identity: None, server_name: None }
    }
}

/// How long what may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timeouts {
    /// Until there is a connection, TLS included; also how long is waited for one's turn.
    pub(crate) connect: Duration,
    /// From the last byte of the request until the head of the response.
    pub(crate) response: Duration,
    /// Between two pieces of a body.
    pub(crate) body: Duration,
    /// How long a connection is kept that nobody uses. Shorter than the origin keeps it: what is sent just when the other
    /// side closes is lost, and is not sent again.
    pub(crate) idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            response: Duration::from_secs(60),
            body: Duration::from_secs(60),
            // Node closes after 5 s, Apache and gunicorn-with-keep-alive too.
            idle: Duration::from_secs(3),
        }
    }
}

/// How much of what there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Bytes of a response's head.
    pub(crate) head_bytes: usize,
    /// Fields of a response's head.
    pub(crate) fields: usize,
    /// Requests that are with one upstream at once.
    pub(crate) requests: usize,
    /// Connections to one upstream that are kept while nobody uses them.
    pub(crate) idle: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { head_bytes: 64 << 10, fields: 200, requests: 1024, idle: 64 }
    }
}

/// So many failures in a row, and an upstream is left alone for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Eject {
    pub(crate) failures: u32,
    pub(crate) pause: Duration,
}

impl Default for Eject {
    fn default() -> Self {
        Self { failures: 3, pause: Duration::from_secs(10) }
    }
}

/// A question that tells whether an upstream is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Check {
    pub(crate) path: PathAndQuery,
    pub(crate) host: Option<Authority>,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    /// The least and the greatest status that is a good answer.
    pub(crate) status: (u16, u16),
    /// How many bad answers in a row take it out.
    pub(crate) fall: u32,
    /// How many good ones put it back.
    pub(crate) rise: u32,
}

impl Default for Check {
    fn default() -> Self {
        Self {
            path: PathAndQuery::from_static("/"),
            host: None,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            status: (200, 399),
            fall: 2,
            rise: 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for (text, written) in [
            ("http://127.0.0.1:3000", "http://127.0.0.1:3000"),
            ("localhost:3000", "http://localhost:3000"),
            ("https://Example.com/", "https://example.com"),
            ("https://example.com:443/base/", "https://example.com/base"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("http://[::1]", "http://[::1]"),
        ] {
            assert_eq!(Address::parse(text).unwrap().to_string(), written, "{text}");
        }
        for text in [
            "ftp://a",
            "http://",
            "",
            "http://u:p@a",
            "http://a?x",
            "http://a:0",
            "http://a:99999",
            "http://a:",
            "/x",
            "http://a b",
            "http://a/#x",
        ] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn host_patterns_are_read() {
        assert_eq!(HostPattern::parse("*"), Some(HostPattern::Any));
        assert_eq!(HostPattern::parse("A.example."), Some(HostPattern::Is("a.example".into())));
        assert_eq!(HostPattern::parse("*.a"), Some(HostPattern::Below(".a".into())));
        assert_eq!(HostPattern::parse("[::1]"), Some(HostPattern::Is("::1".into())));
        for text in ["", "*a", "a*", "a b", "a/b", "http://a", "a:80"] {
            assert_eq!(HostPattern::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_reached_is_read_and_written() {
        for (text, written) in [
            ("a.test", "a.test/"),
            ("*.a.test/img", "*.a.test/img"),
            ("/img/", "*/img/"),
            ("*", "*/"),
            ("[::1]/x", "::1/x"),
        ] {
            assert_eq!(Reach::parse(text).unwrap().to_string(), written, "{text}");
        }
        for text in ["", "http://a.test/x", "a.test:80", "a.test/x?y", "a.test/#x", "/a b", "img*"] {
            assert_eq!(Reach::parse(text), None, "{text}");
        }
    }
}
