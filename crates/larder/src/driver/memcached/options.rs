//! How a store in memcached is opened: which servers, as whom, with how much patience; and how a URL says it.
//!
//! Connects to nothing, and never shows a password.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::driver::url::{decode, host_and_port, user_and_rest};
use crate::error::{Error, ErrorKind, Result};
use crate::time::seconds;

const PORT: u16 = 11_211;
/// What an item takes beside its value: at most 309 bytes with a key of 250, in memcached 1.6.18.
pub(super) const VALUE_BYTES_OVERHEAD: u64 = 512;

/// Where a server listens.
///
/// ```
/// use larder::driver::memcached::MemcachedAddress;
/// assert_eq!(MemcachedAddress::tcp("cache.internal", 11211).to_string(), "cache.internal:11211");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MemcachedAddress {
    /// At a port.
    Tcp {
        /// A name or an address, IPv6 without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// At a Unix socket.
    Socket(PathBuf),
}

impl MemcachedAddress {
    /// A host and a port. The host is taken in lower case: keys are spread by what servers are called.
    pub fn tcp(host: impl Into<String>, port: u16) -> Self {
        Self::Tcp { host: host.into().to_ascii_lowercase(), port }
    }
}

/// What the server is called in messages, and what decides which keys it gets.
impl fmt::Display for MemcachedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Socket(path) => write!(f, "{}", path.display()),
        }
    }
}

/// How a store in memcached is opened.
///
/// ```
/// use larder::driver::memcached::MemcachedOptions;
/// let mut options = MemcachedOptions::new("memcacheds://cache:secret@one.internal,two.internal:11212")?;
/// options.response_timeout = std::time::Duration::from_millis(300);
/// assert_eq!((options.tls, options.servers.len()), (true, 2));
/// assert_eq!(options.to_string(), "memcacheds://***@one.internal:11211,two.internal:11212");
/// # Ok::<(), larder::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemcachedOptions {
    /// The servers, each of which has its share of the keys. All processes that share the store have to call them by
    /// the same names; the order makes no difference.
    pub servers: Vec<MemcachedAddress>,
    /// Whether the connections are encrypted. The server's certificate is always verified. Default: no.
    pub tls: bool,
    /// The user, for servers that ask for one (`-Y`). Default: none.
    pub username: Option<String>,
    /// The password of the user. It is shown only to a server that asks.
    pub password: Option<String>,
    /// A file of certificates in PEM, one of which signed the server's. Default: those that the system trusts.
    pub ca_file: Option<PathBuf>,
    /// A file with the certificate to show to the server, in PEM; with `key_file`. Default: none.
    pub cert_file: Option<PathBuf>,
    /// A file with the key of that certificate, in PEM.
    pub key_file: Option<PathBuf>,
    /// The largest value that is stored, in bytes. Default: what the servers say they take (`-I`) less 512, and 1 MiB
    /// less 512 for one that does not say. What a server does not take it forgets, together with what it had.
    pub value_bytes_max: Option<u64>,
    /// How long making a connection may take. Default: 1 s.
    pub connect_timeout: Duration,
    /// How long to wait for an answer. After as long without any, the connection is made anew. Default: 1 s.
    pub response_timeout: Duration,
}

impl MemcachedOptions {
    /// The defaults, with what a URL says:
    ///
    /// - `memcached://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]…]`, with TLS `memcacheds://`.
    /// - `memcached+unix:///path/to/socket`.
    ///
    /// `%40` and the like are decoded in everything but the hosts.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if it is none of these. The error never repeats the URL.
    pub fn new(url: &str) -> Result<Self> {
        parse(url).map_err(|what| Error::new(ErrorKind::Config, format!("memcached URL: {what}")))
    }

    /// The defaults, for one server.
    pub fn at(host: impl Into<String>, port: u16) -> Self {
        Self::of(vec![MemcachedAddress::tcp(host, port)])
    }

    fn of(servers: Vec<MemcachedAddress>) -> Self {
        Self {
            servers,
            tls: false,
            username: None,
            password: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            value_bytes_max: None,
            connect_timeout: seconds(1),
            response_timeout: seconds(1),
        }
    }

    /// Whether the options make sense, without connecting to anything.
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |message: &'static str| Err(Error::new(ErrorKind::Config, message));
        let empty = |server: &MemcachedAddress| match server {
            MemcachedAddress::Tcp { host, .. } => host.is_empty(),
            MemcachedAddress::Socket(path) => path.as_os_str().is_empty(),
        };
        if self.servers.is_empty() || self.servers.iter().any(empty) {
            return wrong("a memcached store needs a host");
        }
        let names: std::collections::HashSet<String> = self.servers.iter().map(ToString::to_string).collect();
        if names.len() < self.servers.len() {
            return wrong("a memcached store names a server twice");
        }
        if self.tls && self.servers.iter().any(|server| matches!(server, MemcachedAddress::Socket(_))) {
            return wrong("there is no TLS over a Unix socket");
        }
        let files = [&self.ca_file, &self.cert_file, &self.key_file];
        if !self.tls && files.iter().any(|file| file.is_some()) {
            return wrong("certificates are of no use to a memcached store without TLS: write memcacheds://");
        }
        if self.cert_file.is_some() != self.key_file.is_some() {
            return wrong("cert_file and key_file of a memcached store need each other");
        }
        if self.username.is_some() != self.password.is_some() {
            return wrong("the user and the password of a memcached store need each other");
        }
        // They are sent as two words of one line, and a server reads no more of it.
        let is_word = |text: &String| !text.contains([' ', '\r', '\n', '\0']);
        let words = self.username.iter().chain(&self.password).all(is_word);
        if !words || self.username.as_ref().is_some_and(|name| name.contains(':')) {
            return wrong(
                "the user or the password of a memcached store has a space in it, or the user a colon",
            );
        }
        if self.value_bytes_max == Some(0) {
            return wrong("value_bytes_max of a memcached store is zero");
        }
        if self.connect_timeout.is_zero() || self.response_timeout.is_zero() {
            return wrong("a timeout of a memcached store is zero");
        }
        Ok(())
    }
}

/// The URL, without user and password.
impl fmt::Display for MemcachedOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mask = if self.username.is_some() || self.password.is_some() { "***@" } else { "" };
        let names: Vec<String> = self.servers.iter().map(ToString::to_string).collect();
        let scheme = match (self.tls, self.servers.first()) {
            (true, _) => "memcacheds",
            (false, Some(MemcachedAddress::Socket(_))) => "memcached+unix",
            (false, _) => "memcached",
        };
        write!(f, "{scheme}://{mask}{}", names.join(","))
    }
}

impl fmt::Debug for MemcachedOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemcachedOptions")
            .field("url", &format_args!("{self}"))
            .field("value_bytes_max", &self.value_bytes_max)
            .field("connect_timeout", &self.connect_timeout)
            .field("response_timeout", &self.response_timeout)
            .finish_non_exhaustive()
    }
}

fn parse(url: &str) -> Result<MemcachedOptions, String> {
    const FORM: &str = "expected memcached://HOST:PORT,HOST:PORT, or memcacheds: or memcached+unix:";
    let (scheme, rest) = url.split_once("://").ok_or(FORM)?;
    let tls = match scheme.to_ascii_lowercase().as_str() {
        "memcached" => false,
        "memcacheds" => true,
        "memcached+unix" if rest.starts_with('/') => {
            return Ok(MemcachedOptions::of(vec![MemcachedAddress::Socket(decode(rest)?.into())]));
        }
        "memcached+unix" => {
            return Err("a Unix socket is written memcached+unix:///path/to/socket".to_owned());
        }
        _ => return Err(FORM.to_owned()),
    };
    let ([username, password], rest) = user_and_rest(rest)?;
    let hosts = rest.strip_suffix('/').unwrap_or(rest);
    if hosts.contains('/') {
        return Err("nothing may follow the hosts: memcached has no databases".to_owned());
    }
    let servers = hosts.split(',').map(|host| address(host.trim())).collect::<Result<_, _>>()?;
    let options = MemcachedOptions { tls, username, password, ..MemcachedOptions::of(servers) };
    options.check().map_err(|error| error.message().to_owned())?;
    Ok(options)
}

fn address(host: &str) -> Result<MemcachedAddress, String> {
    let (host, port) = host_and_port(host, PORT)?;
    Ok(MemcachedAddress::tcp(host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(url: &str) -> MemcachedOptions {
        MemcachedOptions::new(url).unwrap()
    }

    #[test]
    fn urls_are_what_people_mean() {
        for (url, shown) in [
            ("memcached://localhost", "memcached://localhost:11211"),
            ("MEMCACHED://Cache.Internal:1/", "memcached://cache.internal:1"),
            ("memcached://a,b:5, c", "memcached://a:11211,b:5,c:11211"),
            ("memcacheds://u:p@[::1]:7", "memcacheds://***@[::1]:7"),
            ("memcached+unix:///run/m%20c.sock", "memcached+unix:///run/m c.sock"),
        ] {
            assert_eq!(options(url).to_string(), shown, "{url}");
        }
        let decoded = options("memcached://us%40er:p%3A%2Fw%40@h");
        assert_eq!(
            (decoded.username.as_deref(), decoded.password.as_deref()),
            (Some("us@er"), Some("p:/w@"))
        );
        assert_eq!(options("memcached://u:a/b#c?d@e@h").password.as_deref(), Some("a/b#c?d@e"));
    }

    #[test]
    fn what_is_no_url_is_refused_without_being_repeated() {
        for url in [
            "hunter2",
            "http://hunter2@h",
            "memcached://",
            "memcached://u:hunter2@h:port",
            "memcached://u:hunter2@h/1",
            "memcached://u:hunter2%@h",
            "memcached://hunter2@h",
            "memcached://:hunter2@h",
            "memcached://u:hunter2@h,h",
            "memcached://u%20x:hunter2@h",
            "memcached://u:hunter2%0d%0aflush_all@h",
            "memcached://u:hunter2%20and%20more@h",
            "memcached://h?hunter2=1",
            "memcached://a,,hunter2",
            "memcached+unix://hunter2",
        ] {
            let error = MemcachedOptions::new(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{url}");
            assert!(!error.to_string().contains("hunter"), "{error}");
        }
    }

    #[test]
    fn options_that_make_no_sense_are_refused() {
        let plain = || MemcachedOptions::at("h", 1);
        plain().check().unwrap();
        let socket = vec![MemcachedAddress::Socket("/x".into())];
        for options in [
            MemcachedOptions { ca_file: Some("x".into()), ..plain() },
            MemcachedOptions { tls: true, cert_file: Some("x".into()), ..plain() },
            MemcachedOptions { response_timeout: Duration::ZERO, ..plain() },
            MemcachedOptions { value_bytes_max: Some(0), ..plain() },
            MemcachedOptions { servers: Vec::new(), ..plain() },
            MemcachedOptions { servers: vec![MemcachedAddress::tcp("", 1)], ..plain() },
            MemcachedOptions { tls: true, servers: socket, ..plain() },
        ] {
            assert_eq!(options.check().unwrap_err().kind(), ErrorKind::Config, "{options:?}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let options = options("memcached://user:hunter2@h");
        let shown = format!("{options:?} {options}");
        assert!(!shown.contains("hunter") && shown.contains("***@h:11211"), "{shown}");
    }
}
