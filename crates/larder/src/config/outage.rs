//! What a stack does while its store fails: the options of its breaker, and of remembered writes.
//!
//! Knows nothing of how they take effect.

use std::time::Duration;

use super::node::{Origin, Setting, Value};
use super::read::Item;
use super::stacks::{COUNT, Switched, setting, switched};
use crate::error::Result;
use crate::stack::{BreakerOptions, RecoveryOptions};

/// The circuit breaker of a stack's store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BreakerConfig {
    /// There is none; this is where that was written.
    Off(Origin),
    /// There is one, with these limits.
    On(BreakerLimits),
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self::On(BreakerLimits::default())
    }
}

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BreakerLimits {
    /// `failures`: how many in a row open it.
    pub failures: Option<Setting<u32>>,
    /// `pause`: how long it stays open at first.
    pub pause: Option<Setting<Duration>>,
    /// `pause_max`: how long it stays open at most.
    pub pause_max: Option<Setting<Duration>>,
}

impl BreakerConfig {
    /// What the builder is told.
    pub(crate) fn options(&self) -> Option<BreakerOptions> {
        let Self::On(limits) = self else { return None };
        let mut options = BreakerOptions::default();
        if let Some(failures) = &limits.failures {
            options.failures = failures.value;
        }
        if let Some(pause) = &limits.pause {
            options.pause = pause.value;
            // Whoever asks for a longer first pause than the longest is by default means it.
            options.pause_max = options.pause_max.max(pause.value);
        }
        if let Some(longest) = &limits.pause_max {
            options.pause_max = longest.value;
        }
        Some(options)
    }
}

pub(crate) fn read_breaker(item: Item) -> Result<BreakerConfig> {
    if item.node.value == Value::Null {
        return Ok(BreakerConfig::default());
    }
    let whole = item.clone();
    let mut fields = match switched(item, "a map of options, true or false")? {
        Switched::Off(origin) => return Ok(BreakerConfig::Off(origin)),
        Switched::On(fields) => fields,
    };
    let count = |item: &Item| item.integer(COUNT).map(|count| u32::try_from(count).unwrap_or(u32::MAX));
    let limits = BreakerLimits {
        failures: setting(&mut fields, "failures", count)?,
        pause: setting(&mut fields, "pause", Item::duration)?,
        pause_max: setting(&mut fields, "pause_max", Item::duration)?,
    };
    fields.finish("option")?;
    let breaker = BreakerConfig::On(limits);
    match breaker.options().as_ref().and_then(BreakerOptions::fault) {
        Some(fault) => Err(whole.error(format_args!("the stack {fault}"))),
        None => Ok(breaker),
    }
}

/// Whether writes that the store did not take are remembered and tried again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecoveryConfig {
    /// They are if the stack has a memory tier.
    #[default]
    Unsaid,
    /// They are not; this is where that was written.
    Off(Origin),
    /// They are, within these limits.
    On(RecoveryLimits),
}

/// How many writes that failed are remembered, and how often they are tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryLimits {
    /// Where it was switched on.
    pub origin: Origin,
    /// `max_writes`: the most writes.
    pub max_writes: Option<Setting<u64>>,
    /// `max_bytes`: the most bytes of all of them together.
    pub max_bytes: Option<Setting<u64>>,
    /// `interval`: how often they are tried again.
    pub interval: Option<Setting<Duration>>,
}

impl RecoveryLimits {
    /// What the builder is told.
    pub(crate) fn options(&self) -> RecoveryOptions {
        let mut options = RecoveryOptions::default();
        let size = |setting: &Setting<u64>| usize::try_from(setting.value).unwrap_or(usize::MAX);
        if let Some(writes) = &self.max_writes {
            options.max_writes = size(writes);
        }
        if let Some(bytes) = &self.max_bytes {
            options.max_bytes = size(bytes);
        }
        if let Some(interval) = &self.interval {
            options.interval = interval.value;
        }
        options
    }
}

pub(crate) fn read_recovery(item: Item) -> Result<RecoveryConfig> {
    if item.node.value == Value::Null {
        return Ok(RecoveryConfig::default());
    }
    let whole = item.clone();
    let mut fields = match switched(item, "a map of options, true or false")? {
        Switched::Off(origin) => return Ok(RecoveryConfig::Off(origin)),
        Switched::On(fields) => fields,
    };
    let limits = RecoveryLimits {
        origin: fields.origin.clone(),
        max_writes: setting(&mut fields, "max_writes", |item| item.integer(COUNT).map(i64::unsigned_abs))?,
        max_bytes: setting(&mut fields, "max_bytes", Item::size)?,
        interval: setting(&mut fields, "interval", Item::duration)?,
    };
    fields.finish("option")?;
    match limits.options().fault() {
        Some(fault) => Err(whole.error(format_args!("the stack {fault}"))),
        None => Ok(RecoveryConfig::On(limits)),
    }
}
