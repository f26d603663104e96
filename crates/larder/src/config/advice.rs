//! What the advisor is told of a configuration: more than a built stack knows, since options have names here,
//! and nothing is opened.

use std::path::PathBuf;

use super::Config;
use super::drivers::stack_default;
use super::registry::Registry;
use super::stacks::{MemoryConfig, StackConfig};
use super::units::parse_size;
use crate::advisor::{Advice, Facts, MemoryFacts, StoreFacts, advise, advise_together};
use crate::error::Result;
use crate::memory::MemoryOptions;
use crate::stack::{DEADLINE_DEFAULT, LOAD_MAX_DEFAULT, tell_options};

/// Advice about a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigAdvice {
    /// The stack that it is about; `None` if it is about several.
    pub stack: Option<String>,
    /// What is to be said.
    pub advice: Advice,
}

impl Config {
    /// Which options contradict each other, or have no effect. Connects to nothing.
    ///
    /// # Errors
    /// As [`Config::check`].
    ///
    /// ```
    /// use larder::config::{Config, Format, Registry};
    /// let config = Config::parse("stacks: { users: { ttl: 1h, grace: 5s } }", Format::Yaml, "larder.yaml")?;
    /// let advice = config.advise(&Registry::compiled())?;
    /// assert_eq!(advice[0].advice.id, "grace-too-short");
    /// # Ok::<(), larder::Error>(())
    /// ```
    pub fn advise(&self, registry: &Registry) -> Result<Vec<ConfigAdvice>> {
        self.check(registry)?;
        let mut found = Vec::new();
        let mut facts = Vec::with_capacity(self.stacks.len());
        for (name, stack) in &self.stacks {
            let of_stack = stack.facts(registry)?;
            let one = |advice| ConfigAdvice { stack: Some(name.clone()), advice };
            found.extend(advise(&of_stack).into_iter().map(one));
            facts.push((name.as_str(), of_stack));
        }
        let together: Vec<_> = facts.iter().map(|(name, facts)| (*name, facts)).collect();
        let several = |advice| ConfigAdvice { stack: None, advice };
        found.extend(advise_together(&together).into_iter().map(several));
        Ok(found)
    }
}

impl StackConfig {
    fn facts(&self, registry: &Registry) -> Result<Facts> {
        let options = self.entry_options();
        let deadline = self.deadline.as_ref().map(|deadline| deadline.value);
        let mut facts =
            Facts::new(options.ttl_or_default(), deadline.unwrap_or(DEADLINE_DEFAULT), LOAD_MAX_DEFAULT);
        if let MemoryConfig::On(limits) = &self.l1 {
            let items = limits.max_items.as_ref().map(|items| items.value);
            facts.memory = Some(MemoryFacts {
                items_max: items.unwrap_or(MemoryOptions::default().max_items),
                bytes_max: limits.max_bytes.as_ref().map(|bytes| bytes.value),
                entry_bytes_max: limits.max_entry_bytes.as_ref().map(|bytes| bytes.value),
            });
        }
        facts.store = self.store_facts(registry)?;
        tell_options(&options, &mut facts);
        facts.deadline = deadline;
        facts.prefix = self.prefix.as_ref().map(|prefix| prefix.value.clone());
        facts.groups = self.groups.iter().map(|group| group.value.clone()).collect();
        Ok(facts)
    }

    /// What the options of the store say. Of a driver that this crate does not have, hardly anything.
    pub(super) fn store_facts(&self, registry: &Registry) -> Result<Option<StoreFacts>> {
        let Some(store) = &self.l2 else { return Ok(None) };
        let (driver, options, _) = registry.read(store)?;
        let shown = |name: &str| {
            let record = options.records().iter().find(|record| record.name == name)?;
            record.shown.as_deref()
        };
        let mut facts = StoreFacts { driver: driver.to_owned(), ..StoreFacts::default() };
        facts.is_encrypted = self.encrypt.is_some();
        facts.compress_from_bytes = self.compress.as_ref().and_then(|compress| match &compress.threshold {
            Some(threshold) => Some(threshold.value),
            None => parse_size(stack_default("compress.threshold")).ok(),
        });
        let location = match driver {
            "file" => shown("directory"),
            "sqlite" => shown("location").filter(|location| *location != ":memory:"),
            _ => None,
        };
        if matches!(driver, "memory" | "file" | "sqlite") {
            facts.shared = Some(location.is_some());
            facts.is_bounded = Some(driver == "memory" || shown("max_bytes").is_some());
            facts.is_pruned = Some(driver == "memory" || shown("prune_interval") != Some("off"));
        }
        if let Some(location) = location {
            let table = shown("table").unwrap_or_default();
            facts.place = Some(format!("{driver} {location} {table}"));
            // `///x` in a URL is the path `/x`.
            let path = location.strip_prefix("//").filter(|path| path.starts_with('/')).unwrap_or(location);
            facts.path = Some(PathBuf::from(path));
        }
        Ok(Some(facts))
    }
}
