//! Stacks by name from a YAML, TOML or JSON document, from `LARDER_…` variables, and from URLs.
//!
//! Three steps, each a room: a document becomes a tree that knows where each part was written (`formats`,
//! `node`, `env`); the tree becomes a [`Config`], typed (`read`, `stacks`, `store`); a [`Registry`] turns each
//! [`StoreConfig`] into a driver. This room calls the same builders as everyone else, keeps no globals, and
//! knows nothing of what a stack does.
//!
//! `docs/configuration.md` is the reference of every option.
//!
//! ```
//! use larder::config::{Config, Format, Registry};
//!
//! let text = "stacks: { users: { l1: { max_items: 1_000 }, l2: 'memory:', ttl: 5m } }";
//! let config = Config::parse(text, Format::Yaml, "larder.yaml")?;
//! assert_eq!(config.stacks.keys().collect::<Vec<_>>(), ["users"]);
//! config.check(&Registry::compiled())?;
//!
//! let wrong = Config::parse("stacks: { users: { tll: 5m } }", Format::Yaml, "larder.yaml").unwrap_err();
//! assert!(wrong.message().starts_with(
//!     r#"larder.yaml:1:20: stacks.users: unknown option "tll", did you mean "ttl"? (known: "#));
//! # Ok::<(), larder::Error>(())
//! ```

mod advice;
mod beego;
mod beignet;
mod build;
mod deepstream;
mod describe;
mod document;
mod drivers;
mod env;
mod formats;
mod node;
mod outage;
mod read;
mod registry;
mod stacks;
mod store;
mod units;
mod url;

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};

pub use advice::ConfigAdvice;
pub use beego::new_cache;
pub use describe::Explained;
pub use document::{Entry, Section};
pub use drivers::{DRIVERS, DriverInfo, OptionInfo};
pub use formats::{CONFIG_BYTES_MAX, Format};
pub use node::{Origin, Setting};
pub use outage::{BreakerConfig, BreakerLimits, RecoveryConfig, RecoveryLimits};
pub use registry::{OpenFuture, Registry};
pub use stacks::{CompressConfig, EncryptConfig, MemoryConfig, MemoryLimits, Secret, StackConfig};
pub use store::{StoreConfig, StoreOptions};
pub use units::{format_duration, format_size, format_ttl, parse_duration, parse_size, parse_ttl};

/// What a configuration says: stacks by name, the defaults of all of them applied.
///
/// Fields are public: a program changes what it wants to before it builds.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Config {
    /// Each stack's options, by its name.
    pub stacks: BTreeMap<String, StackConfig>,
    /// `default`: the stack that [`Larder::default_stack`](crate::Larder::default_stack) is.
    pub default: Option<Setting<String>>,
}

impl Config {
    /// The configuration in a file, with this process's environment over it. The extension says which format
    /// it has. Reads the file at once, on this thread.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a file that cannot be read, and for everything that does not make sense, with
    /// the file, the line and the column.
    ///
    /// ```no_run
    /// let config = larder::config::Config::load("larder.yaml")?;
    /// # Ok::<(), larder::Error>(())
    /// ```
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        Loader::of_process().load(path)
    }

    /// The configuration in a text, without any environment: a `${VAR}` in it needs a default. `name` is what
    /// errors call it.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], with the name, the line and the column.
    pub fn parse(text: &str, format: Format, name: &str) -> Result<Self> {
        Self::with_env([]).parse(text, format, name)
    }

    /// A loader that takes these variables for the environment.
    ///
    /// ```
    /// use larder::{config::{Config, Format}, time::minutes};
    /// let loader = Config::with_env([("LARDER_STACKS__USERS__TTL".to_owned(), "10m".to_owned())]);
    /// let config = loader.parse("stacks: { users: { ttl: 5m } }", Format::Yaml, "larder.yaml")?;
    /// let ttl = config.stacks["users"].ttl.clone().unwrap();
    /// assert_eq!(ttl.value, minutes(10).into());
    /// assert_eq!(ttl.origin.to_string(), "LARDER_STACKS__USERS__TTL");
    /// # Ok::<(), larder::Error>(())
    /// ```
    pub fn with_env(variables: impl IntoIterator<Item = (String, String)>) -> Loader {
        Loader { variables: variables.into_iter().collect() }
    }

    /// Whether this could be built: a registry knows every driver and every option of every store, keys can be
    /// read, and this build has what is asked for. Connects to nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], with the place.
    pub fn check(&self, registry: &Registry) -> Result<()> {
        self.stacks.iter().try_for_each(|(name, stack)| stack.check(name, registry))
    }
}

/// Reads configurations over a given environment. See [`Config::with_env`].
#[derive(Clone, Default)]
pub struct Loader {
    variables: BTreeMap<String, String>,
}

impl Loader {
    /// A loader over this process's environment; variables that are not Unicode are not seen.
    pub fn of_process() -> Self {
        let unicode = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self { variables: std::env::vars_os().filter_map(unicode).collect() }
    }

    /// As [`Config::load`], over this environment.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load(&self, path: impl AsRef<Path>) -> Result<Config> {
        let (text, format, name) = read_document(path.as_ref())?;
        self.parse(&text, format, &name)
    }

    /// A document of another program, in one of these languages, with variables put in.
    ///
    /// # Errors
    /// As [`Config::load`], but for what is in it.
    pub fn load_section(&self, path: impl AsRef<Path>) -> Result<Section> {
        let (text, format, name) = read_document(path.as_ref())?;
        self.section(&text, format, &name)
    }

    /// As [`Loader::load_section`], of a text.
    ///
    /// # Errors
    /// As [`Loader::load_section`].
    pub fn section(&self, text: &str, format: Format, name: &str) -> Result<Section> {
        Section::of_root(formats::parse(text, format, name)?, &self.variables)
    }

    /// As [`Config::parse`], over this environment.
    ///
    /// # Errors
    /// As [`Config::parse`].
    pub fn parse(&self, text: &str, format: Format, name: &str) -> Result<Config> {
        stacks::read_config(formats::parse(text, format, name)?, &self.variables)
    }

    /// The configuration that the environment gives without any document.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], with the variable's name.
    pub fn environment_only(&self) -> Result<Config> {
        stacks::read_config(node::Node::map(Origin::Named("the environment".into())), &self.variables)
    }
}

/// The text of a document, its format, and what errors call it.
fn read_document(path: &Path) -> Result<(String, Format, String)> {
    let format = Format::of_path(path)?;
    let name = path.display().to_string();
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        // One byte more than is allowed is enough to know, and a device never ends.
        .and_then(|file| file.take(CONFIG_BYTES_MAX as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| {
            Error::from_source(ErrorKind::Config, format!("cannot read the configuration {name}"), error)
        })?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::new(ErrorKind::Config, format!("{name}: the configuration is not UTF-8 text")))?;
    Ok((text, format, name))
}

impl fmt::Debug for Loader {
    /// Shows names alone: an environment is full of secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.variables.keys()).finish()
    }
}
