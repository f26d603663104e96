//! How a store in Redis is opened: which servers, as whom, with how much patience; and how a URL says it.
//!
//! Connects to nothing, and never shows a password.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::driver::url::{decode, host_and_port, user_and_rest};
use crate::error::{Error, ErrorKind, Result};
use crate::time::seconds;

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// Where a server listens.
///
/// ```
/// use larder::driver::redis::RedisAddress;
/// assert_eq!(RedisAddress::new("cache.internal", 6379).to_string(), "cache.internal:6379");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct RedisAddress {
    /// A name or an address, IPv6 without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl RedisAddress {
    /// A host and a port.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port }
    }
}

impl fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// How the servers of a store stand to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RedisTopology {
    /// One server.
    Server(RedisAddress),
    /// One server, over a Unix socket.
    Socket(PathBuf),
    /// A cluster, of which some nodes are named; the others are found.
    Cluster(Vec<RedisAddress>),
    /// A primary that sentinels know, and the sentinels.
    Sentinel {
        /// What the sentinels call the primary.
        primary: String,
        /// Some of the sentinels.
        sentinels: Vec<RedisAddress>,
    },
}

/// How a store in Redis is opened.
///
/// ```
/// use larder::driver::redis::RedisOptions;
/// let mut options = RedisOptions::new("rediss://cache:secret@cache.internal/2")?;
/// options.response_timeout = std::time::Duration::from_millis(300);
/// assert_eq!((options.tls, options.db), (true, 2));
/// assert_eq!(options.to_string(), "rediss://***@cache.internal:6379/2");
/// # Ok::<(), larder::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedisOptions {
    /// The servers.
    pub topology: RedisTopology,
    /// Whether the connections are encrypted. The server's certificate is always verified. Default: no.
    pub tls: bool,
    /// The user of the server's access control list. Default: `default`, the server's own.
    pub username: Option<String>,
    /// The password of the user, or of the server.
    pub password: Option<String>,
    /// The number of the database; a cluster has only 0. Default: 0.
    pub db: u32,
    /// How often a command to a cluster is sent again after a node said that the key lives elsewhere, or that it cannot
    /// tell now; a read also after a node did not answer. Default: 5.
    pub redirects_max: u32,
    /// A file of certificates in PEM, one of which signed the server's. Default: those that the system trusts.
    pub ca_file: Option<PathBuf>,
    /// A file with the certificate to show to the server, in PEM; with `key_file`. Default: none.
    pub cert_file: Option<PathBuf>,
    /// A file with the key of that certificate, in PEM.
    pub key_file: Option<PathBuf>,
    /// The user for the sentinels. Default: none.
    pub sentinel_username: Option<String>,
    /// The password for the sentinels. Default: none.
    pub sentinel_password: Option<String>,
    /// How long making a connection may take. Default: 1 s.
    pub connect_timeout: Duration,
    /// How long to wait for an answer. After as long without any, the connection is made anew. Default: 1 s.
    pub response_timeout: Duration,
}

impl RedisOptions {
    /// The defaults, with what a URL says:
    ///
    /// - `redis://[USER:PASSWORD@]HOST[:PORT][/DB]`, with TLS `rediss://`; also `valkey://` and `valkeys://`.
    /// - `redis+unix:///path/to/socket`, or `unix:///path/to/socket`.
    /// - `redis+cluster://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]…]`, with TLS `rediss+cluster://`.
    /// - `redis+sentinel://[USER:PASSWORD@]HOST[:PORT][,…]/PRIMARY[/DB]`, with TLS `rediss+sentinel://`. The user
    ///   and the password are those of the servers.
    ///
    /// `%40` and the like are decoded in everything but the host. `:PASSWORD@` is a password without a user.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if it is none of these. The error never repeats the URL.
    pub fn new(url: &str) -> Result<Self> {
        parse(url).map_err(|what| Error::new(ErrorKind::Config, format!("redis URL: {what}")))
    }

    /// The defaults, for one server.
    pub fn at(host: impl Into<String>, port: u16) -> Self {
        Self::of(RedisTopology::Server(RedisAddress::new(host, port)))
    }

    /// The defaults, for a cluster of which these are some nodes.
    pub fn cluster(nodes: impl IntoIterator<Item = RedisAddress>) -> Self {
        Self::of(RedisTopology::Cluster(nodes.into_iter().collect()))
    }

    fn of(topology: RedisTopology) -> Self {
        Self {
            topology,
            tls: false,
            username: None,
            password: None,
            db: 0,
            redirects_max: 5,
            ca_file: None,
            cert_file: None,
            key_file: None,
            sentinel_username: None,
            sentinel_password: None,
            connect_timeout: seconds(1),
            response_timeout: seconds(1),
        }
    }

    /// Whether the options make sense, without connecting to anything.
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |message: &'static str| Err(Error::new(ErrorKind::Config, message));
        let empty = |addresses: &[RedisAddress]| {
            addresses.is_empty() || addresses.iter().any(|address| address.host.is_empty())
        };
        let files = [&self.ca_file, &self.cert_file, &self.key_file];
        match &self.topology {
            RedisTopology::Server(address) if address.host.is_empty() => {
                return wrong("a redis store needs a host");
            }
            RedisTopology::Cluster(nodes) if empty(nodes) => return wrong("a redis cluster needs a host"),
            RedisTopology::Cluster(_) if self.db != 0 => {
                return wrong("a redis cluster has no database but 0");
            }
            RedisTopology::Sentinel { sentinels, .. } if empty(sentinels) => {
                return wrong("a redis store behind sentinels needs the host of one");
            }
            RedisTopology::Sentinel { primary, .. } if primary.is_empty() => {
                return wrong(
                    "a redis store behind sentinels needs the primary's name: …/NAME at the end of the URL",
                );
            }
            RedisTopology::Socket(_) if self.tls => return wrong("there is no TLS over a Unix socket"),
            _ => {}
        }
        if !self.tls && files.iter().any(|file| file.is_some()) {
            return wrong("certificates are of no use to a redis store without TLS: write rediss://");
        }
        if self.cert_file.is_some() != self.key_file.is_some() {
            return wrong("cert_file and key_file of a redis store need each other");
        }
        if self.username.is_some() && self.password.is_none() {
            return wrong("the user of a redis store has no password");
        }
        if self.redirects_max == 0 {
            return wrong("redirects_max of a redis store is zero: slots of a cluster move");
        }
        if self.connect_timeout.is_zero() || self.response_timeout.is_zero() {
            return wrong("a timeout of a redis store is zero");
        }
        Ok(())
    }
}

/// The URL, without user and password.
impl fmt::Display for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mask = if self.username.is_some() || self.password.is_some() { "***@" } else { "" };
        let scheme = if self.tls { "rediss" } else { "redis" };
        let list = |addresses: &[RedisAddress]| {
            addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        };
        match &self.topology {
            RedisTopology::Server(address) => write!(f, "{scheme}://{mask}{address}/{}", self.db),
            RedisTopology::Socket(path) => write!(f, "redis+unix://{}", path.display()),
            RedisTopology::Cluster(nodes) => write!(f, "{scheme}+cluster://{mask}{}", list(nodes)),
            RedisTopology::Sentinel { primary, sentinels } => {
                write!(f, "{scheme}+sentinel://{mask}{}/{primary}/{}", list(sentinels), self.db)
            }
        }
    }
}

impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOptions")
            .field("url", &format_args!("{self}"))
            .field("connect_timeout", &self.connect_timeout)
            .field("response_timeout", &self.response_timeout)
            .finish_non_exhaustive()
    }
}

fn parse(url: &str) -> Result<RedisOptions, String> {
    const FORM: &str =
        "expected redis://HOST:PORT/DB, or rediss:, redis+unix:, redis+cluster: or redis+sentinel:";
    let (scheme, rest) = url.split_once("://").ok_or(FORM)?;
    let scheme = scheme.to_ascii_lowercase();
    let (base, kind) = scheme.split_once('+').unwrap_or((&scheme, ""));
    let (base, kind) = if base == "unix" { ("redis", "unix") } else { (base, kind) };
    let tls = match base {
        "redis" | "valkey" => false,
        "rediss" | "valkeys" => true,
        _ => return Err(FORM.to_owned()),
    };
    if kind == "unix" {
        if !rest.starts_with('/') || tls {
            return Err("a Unix socket is written redis+unix:///path/to/socket".to_owned());
        }
        return Ok(RedisOptions::of(RedisTopology::Socket(decode(rest)?.into())));
    }
    let ([username, password], rest) = user_and_rest(rest)?;
    let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut options = match kind {
        "" => {
            let options = RedisOptions::of(RedisTopology::Server(address(hosts, PORT)?));
            RedisOptions { db: database(path)?, ..options }
        }
        "cluster" => {
            let options = RedisOptions::of(RedisTopology::Cluster(addresses(hosts, PORT)?));
            RedisOptions { db: database(path)?, ..options }
        }
        "sentinel" => {
            let (primary, path) = path.split_once('/').unwrap_or((path, ""));
            let (primary, sentinels) = (decode(primary)?, addresses(hosts, SENTINEL_PORT)?);
            let options = RedisOptions::of(RedisTopology::Sentinel { primary, sentinels });
            RedisOptions { db: database(path)?, ..options }
        }
        _ => return Err(FORM.to_owned()),
    };
    (options.tls, options.username, options.password) = (tls, username, password);
    options.check().map_err(|error| error.message().to_owned())?;
    Ok(options)
}

fn address(host: &str, port: u16) -> Result<RedisAddress, String> {
    let (host, port) = host_and_port(host, port)?;
    Ok(RedisAddress::new(host, port))
}

fn addresses(hosts: &str, port: u16) -> Result<Vec<RedisAddress>, String> {
    hosts.split(',').map(|host| address(host.trim(), port)).collect()
}

fn database(path: &str) -> Result<u32, String> {
    let path = path.trim_end_matches('/');
    if path.is_empty() {
        Ok(0)
    } else {
        path.parse().map_err(|_| "what follows the host is no number of a database".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(url: &str) -> RedisOptions {
        RedisOptions::new(url).unwrap()
    }

    #[test]
    fn urls_are_what_people_mean() {
        for (url, shown) in [
            ("redis://localhost", "redis://localhost:6379/0"),
            ("REDIS://localhost:1/3", "redis://localhost:1/3"),
            ("valkey://localhost", "redis://localhost:6379/0"),
            ("rediss://u:p@h/2", "rediss://***@h:6379/2"),
            ("redis://:p@[::1]:7", "redis://***@[::1]:7/0"),
            ("redis+unix:///run/redis.sock", "redis+unix:///run/redis.sock"),
            ("redis+cluster://u:p@a:7000,b", "redis+cluster://***@a:7000,b:6379"),
            ("rediss+sentinel://a,b:5/main/4", "rediss+sentinel://a:26379,b:5/main/4"),
        ] {
            assert_eq!(options(url).to_string(), shown, "{url}");
        }
        let decoded = options("redis://us%40er:p%3A%2Fw%40@h");
        assert_eq!(
            (decoded.username.as_deref(), decoded.password.as_deref()),
            (Some("us@er"), Some("p:/w@"))
        );
        assert_eq!(options("redis://:pw@h").username, None);
        assert_eq!(options("redis://:a/b#c?d@e@h/1").password.as_deref(), Some("a/b#c?d@e"));
        assert_eq!(options("redis://u:a:b@h").password.as_deref(), Some("a:b"));
    }

    #[test]
    fn what_is_no_url_is_refused_without_being_repeated() {
        for url in [
            "hunter2",
            "http://hunter2@h",
            "redis://",
            "redis://u:hunter2@h:port",
            "redis://u:hunter2@h/x",
            "redis://u:hunter2%@h",
            "redis://hunter2@h",
            "redis://h?hunter2=1",
            "redis+unix://hunter2",
            "redis+cluster://u:hunter2@h/1",
            "redis+cluster://",
            "redis+sentinel://u:hunter2@h",
            "redis+ssh://hunter2",
        ] {
            let error = RedisOptions::new(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{url}");
            assert!(!error.to_string().contains("hunter"), "{error}");
            assert!(!error.to_string().contains("ter2"), "{error}");
        }
    }

    #[test]
    fn options_that_make_no_sense_are_refused() {
        let plain = || RedisOptions::at("h", 1);
        plain().check().unwrap();
        let cert_file = Some("x".into());
        for options in [
            RedisOptions { ca_file: Some("x".into()), ..plain() },
            RedisOptions { tls: true, cert_file, ..plain() },
            RedisOptions { response_timeout: Duration::ZERO, ..plain() },
            RedisOptions { topology: RedisTopology::Cluster(Vec::new()), ..plain() },
            RedisOptions { tls: true, ..RedisOptions::of(RedisTopology::Socket("/x".into())) },
        ] {
            assert_eq!(options.check().unwrap_err().kind(), ErrorKind::Config, "{options:?}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let mut options = options("redis+sentinel://user:hunter2@h/main");
        options.sentinel_password = Some("hunter3".to_owned());
        let shown = format!("{options:?} {options}");
        assert!(!shown.contains("hunter") && shown.contains("***@h:26379/main"), "{shown}");
    }
}
