//! Driver names and URL schemes to openers. A value, not a global; knows drivers only through their openers.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::drivers::{self, DRIVERS};
use super::read::{did_you_mean, nearest};
use super::store::{StoreConfig, StoreOptions};
use crate::driver::Driver;
use crate::error::{Error, Result};

/// What becomes a driver when it is awaited, and has connected to nothing before.
pub type OpenFuture = BoxFuture<'static, Result<Arc<dyn Driver>>>;

type Opener = Arc<dyn Fn(&mut StoreOptions) -> Result<OpenFuture> + Send + Sync>;

/// Which drivers there are, by name and URL scheme.
///
/// ```
/// use larder::config::{Registry, StoreConfig};
/// # use bytes::Bytes;
/// # use larder::{Result, driver::{Driver, When, Written}};
/// # use std::time::Duration;
/// # #[derive(Debug)] struct Nowhere { delay: Duration }
/// # #[async_trait::async_trait]
/// # impl Driver for Nowhere {
/// #     fn name(&self) -> &'static str { "nowhere" }
/// #     async fn get(&self, _: &str) -> Result<Option<Bytes>> { Ok(None) }
/// #     async fn set(&self, _: &str, value: Bytes, _: Option<Duration>, when: When) -> Result<Written> {
/// #         Ok(when.outcome(None, &value))
/// #     }
/// #     async fn delete(&self, _: &str) -> Result<bool> { Ok(false) }
/// # }
/// let registry = Registry::compiled().driver("nowhere", &["null"], |options| {
///     let delay = options.duration("delay")?.unwrap_or_default();
///     Ok(async move { Ok(Nowhere { delay }) })
/// });
/// registry.check(&StoreConfig::from_url("null:?delay=5ms", "--store")?)?;
///
/// let wrong = StoreConfig::from_url("null:?dellay=5ms", "--store")?;
/// assert_eq!(registry.check(&wrong).unwrap_err().message(),
///     r#"--store: unknown option "dellay", did you mean "delay"? (known: delay)"#);
/// # Ok::<(), larder::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Registry {
    drivers: BTreeMap<String, Opener>,
    schemes: BTreeMap<String, String>,
}

impl Registry {
    /// A registry without drivers.
    pub fn empty() -> Self {
        Self::default()
    }

    /// The drivers of this build: those of [`DRIVERS`](super::DRIVERS) whose feature is on.
    pub fn compiled() -> Self {
        drivers::compiled()
    }

    /// This registry with one more driver, under its name and any number of further names or URL schemes. It
    /// takes the place of one that has the same.
    ///
    /// `open` reads the options at once, and returns a future that opens the driver; what it left unread is
    /// refused. So a configuration can be checked without connecting to anything.
    #[must_use]
    pub fn driver<F, D>(
        mut self,
        name: &str,
        schemes: &[&str],
        open: impl Fn(&mut StoreOptions) -> Result<F> + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<D>> + Send + 'static,
        D: Driver,
    {
        let opener: Opener = Arc::new(move |options| {
            let opening = open(options)?;
            Ok(Box::pin(async move { Ok(Arc::new(opening.await?) as Arc<dyn Driver>) }))
        });
        for scheme in schemes.iter().chain([&name]) {
            self.schemes.insert(scheme.to_ascii_lowercase(), name.to_owned());
        }
        self.drivers.insert(name.to_owned(), opener);
        self
    }

    /// The names of the drivers, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.drivers.keys().map(String::as_str)
    }

    /// Whether the driver is known and every option of the store makes sense to it. Connects to nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config), with the place.
    pub fn check(&self, store: &StoreConfig) -> Result<()> {
        self.read(store).map(|_| ())
    }

    /// Opens the driver of a store. Dropping the future leaves nothing open.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) as [`Registry::check`]; otherwise the driver's own, with
    /// the place at which the store was written.
    pub async fn open(&self, store: &StoreConfig) -> Result<Arc<dyn Driver>> {
        let (_, _, opening) = self.read(store)?;
        opening.await.map_err(|error| {
            let place = store.place();
            Error::from_source(error.kind(), format!("{place}: cannot open the store"), error)
        })
    }

    /// The driver's name, what its opener read, and what would open it.
    pub(crate) fn read(&self, store: &StoreConfig) -> Result<(&str, StoreOptions, OpenFuture)> {
        let named = self.schemes.get(&store.driver().to_ascii_lowercase());
        let found = named.and_then(|name| self.drivers.get_key_value(name));
        let Some((name, opener)) = found else { return Err(self.unknown(store)) };
        let mut options = store.options();
        let opening = opener(&mut options)?;
        options.finish()?;
        Ok((name, options, opening))
    }

    fn unknown(&self, store: &StoreConfig) -> Error {
        let driver = store.driver().to_ascii_lowercase();
        let names: Vec<&str> = self.names().collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let lacking =
            DRIVERS.iter().find(|info| info.name == driver || info.schemes.contains(&driver.as_str()));
        if let Some((info, feature)) = lacking.and_then(|info| Some((info, info.feature?))) {
            let name = info.name;
            return store.error(format_args!(
                "the driver \"{name}\" needs the feature \"{feature}\", which this build lacks (it has: {names})"
            ));
        }
        let meant = did_you_mean(nearest(&driver, self.schemes.keys().map(String::as_str)));
        store.error(format_args!("unknown driver {driver:?}{meant} (this build has: {names})"))
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("schemes", &self.schemes).finish_non_exhaustive()
    }
}
