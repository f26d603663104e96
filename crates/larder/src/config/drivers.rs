//! The drivers that this crate has, and their options; and the table of all options, for whoever explains them.

use super::registry::Registry;
use super::stacks::MEMORY_ALIASES;
#[cfg(any(feature = "file", feature = "sqlite"))]
use super::store::StoreOptions;
use crate::driver::MemoryDriver;
use crate::memory::MemoryOptions;

/// A driver that this crate has, whether or not this build does.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct DriverInfo {
    /// What it is called in a configuration, and the scheme of its URLs.
    pub name: &'static str,
    /// Further schemes and names.
    pub schemes: &'static [&'static str],
    /// The feature that brings it; `None` if it is always there.
    pub feature: Option<&'static str>,
    /// What it is, in one line.
    pub about: &'static str,
    /// Its options.
    pub options: &'static [OptionInfo],
}

/// An option of a configuration.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct OptionInfo {
    /// Its name.
    pub name: &'static str,
    /// Other names that are taken for it.
    pub aliases: &'static [&'static str],
    /// What holds if it is not written, in words.
    pub default: &'static str,
}

const fn option(name: &'static str, aliases: &'static [&'static str], default: &'static str) -> OptionInfo {
    OptionInfo { name, aliases, default }
}

/// The drivers that this crate has, with their options.
///
/// ```
/// use larder::config::DRIVERS;
/// assert!(DRIVERS.iter().any(|driver| driver.name == "memory" && driver.feature.is_none()));
/// ```
pub const DRIVERS: &[DriverInfo] = &[DriverInfo {
    name: "memory",
    schemes: &[],
    feature: None,
    about: "this process's memory",
    options: &[
        option("max_items", &["maxItems"], "100000"),
        option("max_bytes", &["maxSize"], "no limit"),
        option("max_entry_bytes", &["maxEntrySize"], "4MiB"),
    ],
}];

/// The options of a stack, by their paths; an empty default is "not there".
pub(crate) const STACK_OPTIONS: &[OptionInfo] = &[
    option("l1", &[], "on"),
    option("l1.max_items", &["maxItems"], "100000"),
    option("l1.max_bytes", &["maxSize"], "no limit"),
    option("l1.max_entry_bytes", &["maxEntrySize"], "4MiB"),
    option("l2", &[], "none"),
    option("prefix", &[], "the stack's name"),
    option("ttl", &[], "30m"),
    option("grace", &[], "0"),
    option("codec", &[], "json"),
    option("deadline", &[], "2s"),
    option("suppress_l2_errors", &["suppressL2Errors"], "true with a memory tier, false without"),
    option("compress", &[], "off"),
    option("compress.level", &[], "1"),
    option("compress.threshold", &[], "1KiB"),
    option("encrypt", &[], "off"),
    option("encrypt.keys", &[], ""),
];

/// What holds for an option of a stack that is not written.
pub(crate) fn stack_default(path: &str) -> &'static str {
    STACK_OPTIONS.iter().find(|info| info.name == path).map_or("", |info| info.default)
}

/// The drivers of this build.
pub(crate) fn compiled() -> Registry {
    let registry = Registry::empty();
    registry.driver("memory", &[], |options| {
        for (other, name) in MEMORY_ALIASES {
            options.alias(other, name)?;
        }
        let mut memory = MemoryOptions::default();
        if let Some(items) = options.integer("max_items", 1..=i64::MAX)? {
            memory.max_items = items.unsigned_abs();
        }
        memory.max_bytes = options.size("max_bytes")?;
        memory.max_entry_bytes = options.size("max_entry_bytes")?;
        Ok(async move { Ok(MemoryDriver::new(memory)) })
    })
}
