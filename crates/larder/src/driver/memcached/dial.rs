//! Making a connection to one server: over TCP, TLS or a Unix socket, with a password if the server asks for one, and
//! with a look at what the server is.
//!
//! Knows the classic commands that a connection begins with. What goes over it afterwards is not its business.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf as _, BytesMut};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::failure;
use super::line::{Facts, Line};
use super::options::{MemcachedAddress, MemcachedOptions, VALUE_BYTES_OVERHEAD};
use super::reply::{LINE_BYTES_MAX, Refusal, refusal};
use crate::error::{Error, ErrorKind, Result};

/// What a server takes unless it is told otherwise, and the most that it can be told to take, in bytes.
const ITEM_BYTES_DEFAULT: u64 = 1024 * 1024;
const ITEM_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Before this, the length of a value was written elsewhere in a command.
const VERSION_MIN: (u32, u32, u32) = (1, 6, 10);
/// How many lines of settings are read before giving up on their end.
const SETTINGS_MAX: usize = 1_000;

/// What it takes to connect to any of the servers.
pub(super) struct Dial {
    options: MemcachedOptions,
    tls: Option<TlsConnector>,
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.options, f)
    }
}

impl Dial {
    /// Reads what the options name. Connects to nothing.
    pub(super) async fn new(options: MemcachedOptions) -> Result<Self> {
        options.check()?;
        if !options.tls {
            return Ok(Self { options, tls: None });
        }
        let files = options.clone();
        let config = tokio::task::spawn_blocking(move || tls_config(&files)).await;
        let config = config
            .map_err(|_| Error::new(ErrorKind::Closed, "memcached connect: the runtime is shutting down"))?;
        Ok(Self { options, tls: Some(TlsConnector::from(Arc::new(config?))) })
    }

    pub(super) fn options(&self) -> &MemcachedOptions {
        &self.options
    }

    /// Connects to one of the servers.
    pub(super) async fn connect(&self, address: &MemcachedAddress) -> Result<Line> {
        let name: Arc<str> = address.to_string().into();
        let limit = self.options.connect_timeout;
        let connecting = async {
            match address {
                MemcachedAddress::Tcp { host, port } => {
                    let stream = TcpStream::connect((host.as_str(), *port)).await?;
                    stream.set_nodelay(true)?;
                    match &self.tls {
                        None => self.ready(stream, &name, TcpStream::into_split).await,
                        Some(tls) => {
                            let host = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
                            let stream = tls.connect(host, stream).await?;
                            self.ready(stream, &name, tokio::io::split).await
                        }
                    }
                }
                #[cfg(unix)]
                MemcachedAddress::Socket(path) => {
                    let stream = tokio::net::UnixStream::connect(path).await?;
                    self.ready(stream, &name, tokio::net::UnixStream::into_split).await
                }
                #[cfg(not(unix))]
                MemcachedAddress::Socket(_) => {
                    let message = "memcached connect: there are no Unix sockets on this system";
                    Err(Trouble::Said(Error::new(ErrorKind::Unsupported, message)))
                }
            }
        };
        match tokio::time::timeout(limit, connecting).await {
            Ok(Ok(line)) => Ok(line),
            Ok(Err(Trouble::Said(error))) => Err(error),
            Ok(Err(Trouble::Network(cause))) => Err(failure::broken("connect", &name, cause)),
            Err(_) => Err(failure::broken("connect", &name, io::ErrorKind::TimedOut.into())),
        }
    }

    /// Greets the server, and starts the tasks.
    async fn ready<S, R, W>(
        &self,
        mut stream: S,
        name: &Arc<str>,
        split: impl FnOnce(S) -> (R, W),
    ) -> Result<Line, Trouble>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let facts = self.greet(&mut stream, name).await?;
        let (reads, writes) = split(stream);
        Ok(Line::start(reads, writes, Arc::clone(name), self.options.response_timeout, facts))
    }

    async fn greet<S: AsyncRead + AsyncWrite + Send + Unpin>(
        &self,
        stream: &mut S,
        name: &str,
    ) -> Result<Facts, Trouble> {
        let mut talk = Talk { stream, name, heard: BytesMut::new() };
        if let (Some(username), Some(password)) = (&self.options.username, &self.options.password) {
            talk.authenticate(username, password).await?;
        }
        talk.say(b"version\r\nmn\r\nstats settings\r\n").await?;
        let version = talk.hear().await?;
        if version_of(&version).is_some_and(|version| version < VERSION_MIN) {
            return Err(Trouble::Said(failure::refused("connect", name, &Refusal::Unknown)));
        }
        if talk.hear().await? != "MN" {
            return Err(Trouble::Said(failure::refused("connect", name, &Refusal::Unknown)));
        }
        let item_bytes_max = talk.settings().await?;
        let item = item_bytes_max.unwrap_or(ITEM_BYTES_DEFAULT);
        let value_bytes_max =
            self.options.value_bytes_max.unwrap_or(item.saturating_sub(VALUE_BYTES_OVERHEAD));
        let block = item_bytes_max.unwrap_or(ITEM_BYTES_MAX).max(value_bytes_max).min(ITEM_BYTES_MAX);
        let version = version.strip_prefix("VERSION ").unwrap_or(&version).into();
        Ok(Facts {
            version,
            value_bytes_max,
            block_bytes_max: usize::try_from(block).unwrap_or(usize::MAX / 2),
        })
    }
}

/// Why there is no connection.
enum Trouble {
    Network(io::Error),
    Said(Error),
}

impl From<io::Error> for Trouble {
    fn from(cause: io::Error) -> Self {
        Self::Network(cause)
    }
}

/// A connection before it is one for calls: one line after the other.
struct Talk<'s, S> {
    stream: &'s mut S,
    name: &'s str,
    heard: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Talk<'_, S> {
    async fn say(&mut self, words: &[u8]) -> io::Result<()> {
        self.stream.write_all(words).await?;
        self.stream.flush().await
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.heard.iter().position(|&byte| byte == b'\n') {
                let line = self.heard.split_to(end);
                self.heard.advance(1);
                let line = line.strip_suffix(b"\r").unwrap_or(&line);
                return Ok(String::from_utf8_lossy(line).into_owned());
            }
            if self.heard.len() > LINE_BYTES_MAX {
                return Err(io::Error::other("what answers is no memcached server"));
            }
            if self.stream.read_buf(&mut self.heard).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// A line that is no refusal.
    async fn hear(&mut self) -> Result<String, Trouble> {
        let line = self.line().await?;
        match refusal(line.as_bytes()) {
            Some(refusal) => Err(Trouble::Said(failure::refused("connect", self.name, &refusal))),
            None => Ok(line),
        }
    }

    /// Shows the password, if the server asks for one. One that does not would keep it as a value for all to read.
    async fn authenticate(&mut self, username: &str, password: &str) -> Result<(), Trouble> {
        self.say(b"version\r\n").await?;
        match refusal(self.line().await?.as_bytes()) {
            Some(Refusal::Client(words)) if words.contains("unauthenticated") => {}
            Some(refusal) => return Err(Trouble::Said(failure::refused("connect", self.name, &refusal))),
            None => return Ok(()),
        }
        let words =
            format!("set larder 0 0 {}\r\n{username} {password}\r\n", username.len() + 1 + password.len());
        self.say(words.as_bytes()).await?;
        match self.hear().await?.as_str() {
            "STORED" => Ok(()),
            _ => Err(Trouble::Said(failure::unexpected("connect", self.name))),
        }
    }

    /// The size of the largest item, if the server says it.
    async fn settings(&mut self) -> Result<Option<u64>, Trouble> {
        let mut item_bytes_max = None;
        for _ in 0..SETTINGS_MAX {
            let line = self.line().await?;
            let mut words = line.split(' ');
            match (words.next(), words.next(), words.next()) {
                (Some("STAT"), Some("item_size_max"), Some(bytes)) => item_bytes_max = bytes.parse().ok(),
                (Some("STAT"), Some("cas_enabled"), Some("no")) => {
                    return Err(Trouble::Said(failure::without_versions(self.name)));
                }
                (Some("STAT"), ..) => {}
                // One that stands before servers may have no settings to tell.
                _ if line == "END" || refusal(line.as_bytes()).is_some() => return Ok(item_bytes_max),
                _ => break,
            }
        }
        Err(Trouble::Said(failure::unexpected("connect", self.name)))
    }
}

/// The numbers of a version; `None` for what is written in another way, which says nothing.
fn version_of(line: &str) -> Option<(u32, u32, u32)> {
    let mut numbers = line.strip_prefix("VERSION ")?.split(['.', '-', '_', ' ']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn tls_config(options: &MemcachedOptions) -> Result<ClientConfig> {
    let wrong = |what: &str, file: &Path, cause: rustls::pki_types::pem::Error| {
        let message = format!("memcached connect: reading {what} in {}", file.display());
        Error::from_source(ErrorKind::Config, message, cause)
    };
    let certificates = |what: &str, file: &PathBuf| -> Result<Vec<CertificateDer<'static>>> {
        let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        match read.map_err(|cause| wrong(what, file, cause))? {
            none if none.is_empty() => Err(wrong(what, file, rustls::pki_types::pem::Error::NoItemsFound)),
            certificates => Ok(certificates),
        }
    };
    let mut roots = RootCertStore::empty();
    match &options.ca_file {
        Some(file) => {
            for certificate in certificates("certificates", file)? {
                roots.add(certificate).map_err(refused_by_tls)?;
            }
        }
        // Some of what a system has in store may not be readable; none at all fails later, when a server is met.
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    // Whoever has chosen a provider of cryptography for the process keeps it.
    let provider = rustls::crypto::CryptoProvider::get_default().cloned();
    let provider = provider.unwrap_or_else(|| Arc::new(rustls::crypto::ring::default_provider()));
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(refused_by_tls)?.with_root_certificates(roots);
    match (&options.cert_file, &options.key_file) {
        (Some(cert_file), Some(key_file)) => {
            let chain = certificates("the certificate", cert_file)?;
            let key =
                PrivateKeyDer::from_pem_file(key_file).map_err(|cause| wrong("the key", key_file, cause))?;
            config.with_client_auth_cert(chain, key).map_err(refused_by_tls)
        }
        _ => Ok(config.with_no_client_auth()),
    }
}

fn refused_by_tls(cause: rustls::Error) -> Error {
    Error::from_source(ErrorKind::Config, "memcached connect: the certificates cannot be used", cause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::seconds;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(version_of("VERSION 1.6.9"), Some((1, 6, 9)));
        assert_eq!(version_of("VERSION 1.6.18-2-gabc"), Some((1, 6, 18)));
        assert!((1, 6, 9) < VERSION_MIN && (1, 10, 0) > VERSION_MIN);
        assert_eq!(version_of("VERSION mcrouter"), None);
        assert_eq!(version_of("MN"), None);
    }

    async fn greeted(options: MemcachedOptions, answers: &'static str) -> Result<Facts> {
        let (mut ours, mut theirs) = tokio::io::duplex(4_096);
        theirs.write_all(answers.as_bytes()).await.unwrap();
        let dial = Dial::new(options).await.unwrap();
        match tokio::time::timeout(seconds(5), dial.greet(&mut ours, "h:1")).await.unwrap() {
            Ok(facts) => Ok(facts),
            Err(Trouble::Said(error)) => Err(error),
            Err(Trouble::Network(cause)) => Err(failure::broken("connect", "h:1", cause)),
        }
    }

    #[tokio::test]
    async fn a_server_says_what_it_takes() {
        let plain = || MemcachedOptions::at("h", 1);
        let told = |settings: &'static str| greeted(plain(), settings);
        let facts =
            told("VERSION 1.6.18\r\nMN\r\nSTAT item_size_max 2097152\r\nSTAT x y\r\nEND\r\n").await.unwrap();
        assert_eq!(facts.value_bytes_max, 2 * 1024 * 1024 - VALUE_BYTES_OVERHEAD);
        assert_eq!(facts.block_bytes_max, 2 * 1024 * 1024);
        let facts = told("VERSION proxy\r\nMN\r\nERROR\r\n").await.unwrap();
        assert_eq!(facts.value_bytes_max, 1024 * 1024 - VALUE_BYTES_OVERHEAD);
        assert_eq!(facts.block_bytes_max, 1024 * 1024 * 1024);
        let facts =
            told("VERSION 2.0.0\r\nMN\r\nSTAT item_size_max 18446744073709551615\r\nEND\r\n").await.unwrap();
        assert_eq!(facts.block_bytes_max, 1024 * 1024 * 1024, "whatever a server claims");
        let options = MemcachedOptions { value_bytes_max: Some(10), ..plain() };
        assert_eq!(greeted(options, "VERSION x\r\nMN\r\nEND\r\n").await.unwrap().value_bytes_max, 10);
    }

    #[tokio::test]
    async fn a_server_that_will_not_do_is_named() {
        for (answers, kind, words) in [
            ("VERSION 1.6.9\r\nMN\r\nEND\r\n", ErrorKind::Unsupported, "1.6.10"),
            ("VERSION 1.4.0\r\nERROR\r\n", ErrorKind::Unsupported, "1.6.10"),
            ("ERROR\r\n", ErrorKind::Unsupported, "1.6.10"),
            ("VERSION x\r\nERROR\r\n", ErrorKind::Unsupported, "1.6.10"),
            ("CLIENT_ERROR unauthenticated\r\n", ErrorKind::Config, "password"),
            ("SERVER_ERROR too many connections\r\n", ErrorKind::Unavailable, "too many"),
            ("VERSION x\r\nMN\r\nSTAT cas_enabled no\r\n", ErrorKind::Config, "-C"),
            ("HTTP/1.1 400 Bad Request\r\n\r\n", ErrorKind::Unsupported, ""),
        ] {
            let error = greeted(MemcachedOptions::at("h", 1), answers).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{answers:?}: {error}");
            assert!(error.message().contains(words) && error.message().contains("h:1"), "{error}");
        }
        let endless: &'static str = "x".repeat(4_000).leak();
        assert!(greeted(MemcachedOptions::at("h", 1), endless).await.unwrap_err().kind().is_transient());
    }

    #[tokio::test]
    async fn a_password_is_shown_to_nobody_who_does_not_ask() {
        let options = MemcachedOptions::new("memcached://larder:hunter2@h").unwrap();
        let (mut ours, mut theirs) = tokio::io::duplex(4_096);
        theirs.write_all(b"VERSION 1.6.18\r\nVERSION 1.6.18\r\nMN\r\nEND\r\n").await.unwrap();
        let dial = Dial::new(options).await.unwrap();
        assert!(dial.greet(&mut ours, "h:1").await.is_ok());
        drop(ours);
        let mut heard = String::new();
        theirs.read_to_string(&mut heard).await.unwrap();
        assert!(!heard.contains("hunter2"), "{heard}");
    }
}
