//! What `larder serve` is configured by: a document and flags to typed options, each with a default and its place.
//!
//! Reading again and comparing is how a running server changes: see [`ServeConfig::fixed_differences`]. Opens nothing,
//! but reads the document and the file of the admin's token.

mod flags;
mod origins;
mod reader;
mod server;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use larder::config::{Loader, Origin, Secret, Section, StoreConfig};
use larder::{Error, Result};

pub(crate) use flags::Flags;
use reader::Reader;

use super::forward::Forwarding;
use super::log::Form;
use super::upstream::options::{Reach, Routing};

/// All of it.
#[derive(Debug)]
pub(crate) struct ServeConfig {
    pub(crate) listen: Listen,
    /// Where requests go. What answers vary on, and the `Via` of responses, is in it already.
    pub(crate) routing: Routing,
    pub(crate) forwarding: Forwarding,
    pub(crate) cache: CacheOptions,
    /// Where responses are kept beside memory; `None` is the default: a file in the user's cache folder.
    pub(crate) store: Option<StoreConfig>,
    pub(crate) log: LogOptions,
    pub(crate) admin: Option<Admin>,
    pub(crate) limits: ClientLimits,
    pub(crate) timeouts: ClientTimeouts,
    /// Every option as it takes effect.
    pub(crate) shown: Vec<Shown>,
}

/// An option as it takes effect, fit to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    /// `origins.app.timeouts.connect`.
    pub(crate) option: String,
    pub(crate) value: String,
    pub(crate) origin: Origin,
}

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listen {
    pub(crate) plain: Vec<SocketAddr>,
    pub(crate) secure: Vec<SocketAddr>,
    /// Certificate chains and their keys; which one is shown depends on the name that is asked for.
    pub(crate) identities: Vec<Identity>,
}

/// A certificate chain and its key, as PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// What the cache does where it has a choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CacheOptions {
    /// Which requests are for the cache; all, if none are said.
    pub(crate) only: Vec<Reach>,
    /// How long a response is fresh that says nothing about it; zero: not at all.
    pub(crate) by_default: Duration,
    pub(crate) heuristic_percent: u32,
    pub(crate) heuristic_max: Duration,
    pub(crate) stale_while_revalidate: Duration,
    pub(crate) stale_if_error: Duration,
    /// `None`: for as long as it is kept.
    pub(crate) stale_if_disconnected: Option<Duration>,
    pub(crate) variants_max: usize,
    /// How long a response is kept after it became stale.
    pub(crate) keep: Duration,
    /// The longest body that is kept, in bytes.
    pub(crate) body_bytes_max: u64,
    /// The most bytes that are kept in memory; 0 for none.
    pub(crate) memory_bytes_max: u64,
    /// How much `Cache-Status` tells.
    pub(crate) status: Status,
    /// What the cache calls itself there.
    pub(crate) name: String,
}

/// How much `Cache-Status` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Off,
    Outcome,
    Reasons,
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self {
            only: Vec::new(),
            by_default: Duration::ZERO,
            heuristic_percent: 10,
            heuristic_max: Duration::from_secs(24 * 60 * 60),
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            stale_if_disconnected: None,
            variants_max: 64,
            keep: Duration::from_secs(24 * 60 * 60),
            body_bytes_max: 1 << 30,
            memory_bytes_max: 128 << 20,
            status: Status::Outcome,
            name: "Larder".to_owned(),
        }
    }
}

/// What is written down of requests, and where.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct LogOptions {
    pub(crate) access: Option<Form>,
    /// `None`: standard error.
    pub(crate) file: Option<PathBuf>,
}

/// The listener for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Admin {
    pub(crate) listen: SocketAddr,
    pub(crate) token: Secret,
}

/// How much of what a client may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClientLimits {
    pub(crate) connections: usize,
    pub(crate) head_bytes: usize,
    pub(crate) target_bytes: usize,
    pub(crate) fields: usize,
    pub(crate) trailer_bytes: usize,
    pub(crate) body_bytes: u64,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            head_bytes: 64 << 10,
            target_bytes: 16 << 10,
            fields: 100,
            trailer_bytes: 8 << 10,
            body_bytes: 1 << 30,
        }
    }
}

/// How long a client may take for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClientTimeouts {
    /// To agree on TLS.
    pub(crate) handshake: Duration,
    /// To send a head.
    pub(crate) head: Duration,
    /// Between two requests.
    pub(crate) idle: Duration,
    /// Between two pieces of a request's body.
    pub(crate) body: Duration,
    /// To take anything of what is written.
    pub(crate) write: Duration,
    /// While nothing comes from either end of a tunnel; `None`: for ever.
    pub(crate) tunnel: Option<Duration>,
    /// For what runs when the server stops.
    pub(crate) shutdown: Duration,
}

impl Default for ClientTimeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            handshake: seconds(10),
            head: seconds(30),
            idle: seconds(75),
            body: seconds(60),
            write: seconds(60),
            tunnel: Some(seconds(60 * 60)),
            shutdown: seconds(30),
        }
    }
}

impl ServeConfig {
    /// What a document and flags say together; flags win. `loader` has the environment.
    ///
    /// # Errors
    /// What cannot be read, and what makes no sense, with its place.
    pub(crate) fn load(file: Option<&Path>, flags: &Flags, loader: &Loader) -> Result<Self> {
        let document = match file {
            Some(file) => loader.load_section(file)?,
            None => Section::empty("the command line"),
        };
        Self::read(document, flags)
    }

    fn read(document: Section, flags: &Flags) -> Result<Self> {
        let mut reader = Reader::new(document);
        let listen = server::listen(&mut reader, flags)?;
        let forwarding = server::forwarding(&mut reader)?;
        let mut routing = origins::routing(&mut reader, flags)?;
        routing.vary = forwarding.vary();
        routing.via = forwarding.response_via();
        let config = Self {
            listen,
            routing,
            forwarding,
            cache: server::cache(&mut reader, flags)?,
            store: server::store(&mut reader, flags)?,
            log: server::log(&mut reader, flags)?,
            admin: server::admin(&mut reader, flags)?,
            limits: server::limits(&mut reader)?,
            timeouts: server::timeouts(&mut reader)?,
            shown: Vec::new(),
        };
        let shown = reader.finish()?;
        // Only now: an option that nobody knows may be the origin, mistyped.
        if config.routing.origins.is_empty() && config.routing.open.is_none() {
            return Err(error(
                "there is no origin: say --origin URL, or \"origin: URL\" in the configuration",
            ));
        }
        Ok(Self { shown, ..config })
    }

    /// What differs between two configurations, and takes a restart: the names of the options.
    pub(crate) fn fixed_differences(&self, other: &Self) -> Vec<&'static str> {
        let store = |config: &Self| {
            config.shown.iter().find(|line| line.option == "store").map(|line| line.value.clone())
        };
        let admin = |config: &Self| config.admin.as_ref().map(|admin| admin.listen);
        let differs = [
            ("listen", self.listen.plain != other.listen.plain),
            ("listen_tls", self.listen.secure != other.listen.secure),
            ("store", store(self) != store(other)),
            ("cache.memory_bytes", self.cache.memory_bytes_max != other.cache.memory_bytes_max),
            ("cache.body_bytes", self.cache.body_bytes_max != other.cache.body_bytes_max),
            ("admin.listen", admin(self) != admin(other)),
            ("log.file", self.log.file != other.log.file),
            ("limits.connections", self.limits.connections != other.limits.connections),
        ];
        differs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }

    /// A line for each option: its value, and where it was written.
    pub(crate) fn describe(&self) -> String {
        let width = |of: fn(&Shown) -> &str, most: usize| {
            self.shown.iter().map(|line| of(line).chars().count()).max().unwrap_or(0).min(most)
        };
        let (options, values) = (width(|line| &line.option, 48), width(|line| &line.value, 48));
        let line = |line: &Shown| {
            let escape = crate::output::escape;
            let (option, value) = (escape(&line.option), escape(&line.value));
            let origin = line.origin.to_string();
            format!("{option:options$}  {value:values$}  {}\n", escape(&origin))
        };
        self.shown.iter().map(line).collect()
    }
}

/// An error that has no place in a document.
fn error(what: impl Into<String>) -> Error {
    Error::new(larder::ErrorKind::Config, what.into())
}

#[cfg(test)]
mod tests;
