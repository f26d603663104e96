//! The last step: a configuration to stacks, by the builders that everyone uses.

use std::sync::Arc;
use std::time::Duration;

use super::Config;
use super::node::{Setting, error_at, join};
use super::outage::RecoveryConfig;
use super::registry::Registry;
use super::stacks::{CompressConfig, EncryptConfig, MemoryConfig, MemoryLimits, StackConfig};
use crate::driver::Driver;
use crate::error::{Error, Result};
use crate::key::KeySpace;
use crate::larder::Larder;
use crate::memory::MemoryOptions;
use crate::options::EntryOptions;
use crate::stack::{Stack, StackBuilder};
use crate::stats::{Groups, Pattern};

impl Config {
    /// Opens every store and makes every stack.
    ///
    /// Dropping the future, or a failure, lets go of what was opened so far.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) as [`Config::check`]; otherwise the first driver's that
    /// cannot open, with the place at which its store was written.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// use larder::config::{Config, Format, Registry};
    /// let config = Config::parse("stacks: { users: { l2: 'memory:', ttl: 5m } }", Format::Yaml, "larder.yaml")?;
    /// let larder = config.build(&Registry::compiled()).await?;
    /// let users = larder.cache::<String>("users")?;
    /// users.set("42", "Ada".to_owned()).await?;
    /// # Ok::<(), larder::Error>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn build(&self, registry: &Registry) -> Result<Larder> {
        self.build_with(registry, |_, builder| builder).await
    }

    /// As [`Config::build`], with a last word on each stack for what no document can say: observers, a clock.
    ///
    /// # Errors
    /// As [`Config::build`].
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// use std::sync::Arc;
    /// use larder::config::{Config, Format, Registry};
    /// use larder::event::{Event, Observer};
    ///
    /// #[derive(Debug)]
    /// struct Printer;
    /// impl Observer for Printer {
    ///     fn on_event(&self, stack: &str, event: &Event<'_>) { println!("{stack}: {event:?}"); }
    /// }
    /// let config = Config::parse("stacks: { users: { ttl: 5m } }", Format::Yaml, "larder.yaml")?;
    /// let observed = |_: &str, builder: larder::StackBuilder| builder.observer(Arc::new(Printer));
    /// let larder = config.build_with(&Registry::compiled(), observed).await?;
    /// larder.cache::<String>("users")?.set("42", "Ada".to_owned()).await?;
    /// # Ok::<(), larder::Error>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn build_with(
        &self,
        registry: &Registry,
        finish: impl Fn(&str, StackBuilder) -> StackBuilder,
    ) -> Result<Larder> {
        // Nothing is opened, and no file created, for a configuration that is wrong further down.
        self.check(registry)?;
        let mut stacks = Vec::with_capacity(self.stacks.len());
        for (name, stack) in &self.stacks {
            stacks.push(stack.build_with(name, registry, |builder| finish(name, builder)).await?);
        }
        let larder = Larder::new(stacks)?;
        match &self.default {
            Some(default) => larder
                .with_default(&default.value)
                .map_err(|error| error_at(&default.origin, "default", error.message())),
            None => Ok(larder),
        }
    }
}

impl StackConfig {
    /// Whether a stack of this name could be built. Connects to nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config), with the place.
    pub fn check(&self, name: &str, registry: &Registry) -> Result<()> {
        if let Some(store) = &self.l2 {
            registry.check(store)?;
        }
        let path = join("stacks", name);
        match (&self.prefix, &self.l2) {
            (Some(prefix), _) => {
                KeySpace::new(&prefix.value)
                    .map_err(|error| error_at(&prefix.origin, &join(&path, "prefix"), error.message()))?;
            }
            // Then the name is what the keys begin with.
            (None, Some(store)) => {
                KeySpace::new(name).map_err(|error| error_at(store.origin(), &path, error.message()))?;
            }
            (None, None) => {}
        }
        if let Some(first) = self.groups.first() {
            let patterns =
                self.groups.iter().map(|Setting { value: (name, pattern), .. }| Pattern::new(name, pattern));
            let groups = patterns.collect::<Result<_>>().and_then(Groups::new);
            groups.map_err(|error| error_at(&first.origin, &join(&path, "groups"), error.message()))?;
        }
        if let Some(compress) = &self.compress {
            compressing::check(compress, &path)?;
        }
        if let Some(encrypt) = &self.encrypt {
            encrypting::check(encrypt, &path)?;
        }
        Ok(())
    }

    /// Opens the store, if there is one, and makes the stack.
    ///
    /// The stack's name is also what its keys in the store begin with, unless there is a `prefix`: two stacks
    /// that share a store do not share entries by accident. Dropping the future lets go of the store.
    ///
    /// # Errors
    /// As [`Config::build`].
    pub async fn build(&self, name: &str, registry: &Registry) -> Result<Stack> {
        self.build_with(name, registry, |builder| builder).await
    }

    async fn build_with(
        &self,
        name: &str,
        registry: &Registry,
        finish: impl FnOnce(StackBuilder) -> StackBuilder,
    ) -> Result<Stack> {
        self.check(name, registry)?;
        let mut builder = Stack::builder(name).options(self.entry_options());
        if let Some(prefix) = &self.prefix {
            builder = builder.prefix(&prefix.value);
        }
        if let MemoryConfig::On(limits) = &self.l1 {
            builder = builder.memory(memory_options(limits));
        }
        if let Some(store) = &self.l2 {
            let mut driver = registry.open(store).await?;
            let path = join("stacks", name);
            // Sealed bytes do not get smaller, so compression comes first, which is outermost.
            if let Some(encrypt) = &self.encrypt {
                driver = encrypting::around(driver, encrypt, &path)?;
            }
            if let Some(compress) = &self.compress {
                driver = compressing::around(driver, compress, &path)?;
            }
            builder = builder.store(driver);
            if let Some(facts) = self.store_facts(registry)? {
                builder = builder.store_facts(facts);
            }
        }
        if let Some(codec) = &self.codec {
            builder = builder.codec(codec.value);
        }
        if let Some(deadline) = &self.deadline {
            builder = builder.deadline(deadline.value);
        }
        for group in &self.groups {
            let (name, pattern) = &group.value;
            builder = builder.group(name, pattern);
        }
        builder = builder.breaker(self.breaker.options());
        builder = match &self.recover_writes {
            RecoveryConfig::Unsaid => builder,
            RecoveryConfig::Off(_) => builder.recovery(None),
            RecoveryConfig::On(limits) => builder.recovery(limits.options()),
        };
        finish(builder).build()
    }

    /// What the stack's entries are told, where neither a cache nor a call says otherwise.
    pub fn entry_options(&self) -> EntryOptions {
        let value = |setting: &Option<Setting<Duration>>| setting.as_ref().map(|setting| setting.value);
        EntryOptions {
            ttl: self.ttl.as_ref().map(|ttl| ttl.value),
            grace: value(&self.grace),
            backoff: value(&self.backoff),
            soft_timeout: value(&self.soft_timeout),
            hard_timeout: value(&self.hard_timeout),
            jitter: value(&self.jitter),
            refresh: self.refresh.as_ref().map(|refresh| refresh.value),
            memory_ttl: value(&self.memory_ttl),
            fresh_only: None,
            across_processes: value(&self.across_processes),
            replace_after: value(&self.replace_after),
            suppress_l2_errors: self.suppress_l2_errors.as_ref().map(|suppress| suppress.value),
        }
    }
}

fn memory_options(limits: &MemoryLimits) -> MemoryOptions {
    let mut options = MemoryOptions::default();
    if let Some(items) = &limits.max_items {
        options.max_items = items.value;
    }
    options.max_bytes = limits.max_bytes.as_ref().map(|bytes| bytes.value);
    options.max_entry_bytes = limits.max_entry_bytes.as_ref().map(|bytes| bytes.value);
    options
}

/// The error of an option that this build was made without.
#[cfg(not(all(feature = "compress", feature = "encrypt")))]
fn lacking(origin: &super::Origin, path: &str, feature: &str) -> Error {
    let path = join(path, feature);
    error_at(origin, &path, format_args!("needs the feature \"{feature}\", which this build lacks"))
}

#[cfg(feature = "compress")]
mod compressing {
    use super::*;
    use crate::driver::compress::{Compress, CompressOptions};

    pub(super) fn check(_: &CompressConfig, _: &str) -> Result<()> {
        Ok(())
    }

    pub(super) fn around(
        driver: Arc<dyn Driver>,
        config: &CompressConfig,
        path: &str,
    ) -> Result<Arc<dyn Driver>> {
        let mut options = CompressOptions::default();
        if let Some(level) = &config.level {
            options.level = level.value;
        }
        if let Some(threshold) = &config.threshold {
            options.threshold_bytes = usize::try_from(threshold.value).unwrap_or(usize::MAX);
        }
        let refused = |error: Error| error_at(&config.origin, &join(path, "compress"), error.message());
        Ok(Arc::new(Compress::new(driver, options).map_err(refused)?))
    }
}

#[cfg(not(feature = "compress"))]
mod compressing {
    use super::*;

    pub(super) fn check(config: &CompressConfig, path: &str) -> Result<()> {
        Err(lacking(&config.origin, path, "compress"))
    }

    pub(super) fn around(_: Arc<dyn Driver>, config: &CompressConfig, path: &str) -> Result<Arc<dyn Driver>> {
        Err(lacking(&config.origin, path, "compress"))
    }
}

#[cfg(feature = "encrypt")]
mod encrypting {
    use std::collections::BTreeSet;

    use super::*;
    use crate::driver::encrypt::{Encrypt, EncryptionKey, KeyRing};

    pub(super) fn check(config: &EncryptConfig, path: &str) -> Result<()> {
        ring(config, path).map(|_| ())
    }

    pub(super) fn around(
        driver: Arc<dyn Driver>,
        config: &EncryptConfig,
        path: &str,
    ) -> Result<Arc<dyn Driver>> {
        Ok(Arc::new(Encrypt::new(driver, ring(config, path)?)))
    }

    /// The first key writes; all of them read.
    fn ring(config: &EncryptConfig, path: &str) -> Result<KeyRing> {
        let path = join(path, "encrypt.keys");
        let mut ring: Option<KeyRing> = None;
        let mut ids = BTreeSet::new();
        for key in &config.keys {
            let parsed = EncryptionKey::parse(key.value.expose())
                .map_err(|error| error_at(&key.origin, &path, error.message()))?;
            if !ids.insert(parsed.id()) {
                return Err(error_at(
                    &key.origin,
                    &path,
                    format_args!("two keys have the id {}", parsed.id()),
                ));
            }
            ring = Some(match ring {
                None => KeyRing::new(parsed),
                Some(ring) => ring.retired(parsed),
            });
        }
        ring.ok_or_else(|| error_at(&config.origin, &path, "encryption needs a key"))
    }
}

#[cfg(not(feature = "encrypt"))]
mod encrypting {
    use super::*;

    pub(super) fn check(config: &EncryptConfig, path: &str) -> Result<()> {
        Err(lacking(&config.origin, path, "encrypt"))
    }

    pub(super) fn around(_: Arc<dyn Driver>, config: &EncryptConfig, path: &str) -> Result<Arc<dyn Driver>> {
        Err(lacking(&config.origin, path, "encrypt"))
    }
}
