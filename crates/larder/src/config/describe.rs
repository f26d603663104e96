//! What a configuration means, option by option, and where each comes from. Shows no secret.

use super::Config;
use super::drivers::{DRIVERS, OptionInfo, stack_default};
use super::node::{Origin, Setting};
use super::outage::{BreakerConfig, RecoveryConfig};
use super::registry::Registry;
use super::stacks::{MemoryConfig, StackConfig};
use super::units::{format_duration, format_size, format_ttl};
use crate::error::Result;
use crate::options::Refresh;

/// One option of one stack, as it takes effect.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explained {
    /// The stack's name.
    pub stack: String,
    /// The option's path within the stack: `l1.max_items`.
    pub option: String,
    /// Its value with variables put in, fit to be shown: secrets are `***`, and so is what stands before the
    /// host of a URL.
    pub value: String,
    /// Where it was written.
    pub origin: Origin,
}

impl Config {
    /// What this configuration means, option by option, the library's defaults included. Connects to nothing.
    ///
    /// # Errors
    /// As [`Config::check`].
    pub fn explain(&self, registry: &Registry) -> Result<Vec<Explained>> {
        // What cannot be built means nothing, however well each option reads.
        self.check(registry)?;
        let mut lines = Vec::new();
        for (name, stack) in &self.stacks {
            Explainer { stack: name, lines: &mut lines }.explain(stack, registry)?;
        }
        Ok(lines)
    }

    /// The same as text, for a person: stack by stack, a line for each option with its value and its place.
    ///
    /// # Errors
    /// As [`Config::check`].
    ///
    /// ```
    /// use larder::config::{Config, Format, Registry};
    /// let config = Config::parse("stacks: { a: { l1: false, l2: 'memory:' } }", Format::Yaml, "c.yaml")?;
    /// let text = config.describe(&Registry::compiled())?;
    /// assert!(text.starts_with("a\n  l1                       off"), "{text}");
    /// # Ok::<(), larder::Error>(())
    /// ```
    pub fn describe(&self, registry: &Registry) -> Result<String> {
        let lines = self.explain(registry)?;
        let width = |of: fn(&Explained) -> &str| {
            lines.iter().map(|line| printable(of(line)).chars().count()).max().unwrap_or(0).min(48)
        };
        let (options, values) = (width(|line| &line.option).max(23), width(|line| &line.value));
        let mut text = String::new();
        let mut stack = None;
        for line in &lines {
            if stack.replace(&line.stack) != Some(&line.stack) {
                let is_default = self.default.as_ref().is_some_and(|default| default.value == line.stack);
                let default = if is_default { " (the default one)" } else { "" };
                text.push_str(&format!("{}{default}\n", printable(&line.stack)));
            }
            let (option, value) = (printable(&line.option), printable(&line.value));
            text.push_str(&format!(
                "  {option:options$}  {value:values$}  {}\n",
                printable(&line.origin.to_string())
            ));
        }
        if lines.is_empty() {
            text.push_str("no stacks\n");
        }
        Ok(text)
    }
}

/// Text without what a terminal would obey.
fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() {
            printable.extend(letter.escape_default());
        } else {
            printable.push(letter);
        }
    }
    printable
}

struct Explainer<'a> {
    stack: &'a str,
    lines: &'a mut Vec<Explained>,
}

impl Explainer<'_> {
    fn line(&mut self, option: &str, value: impl Into<String>, origin: &Origin) {
        let (stack, option) = (self.stack.to_owned(), option.to_owned());
        self.lines.push(Explained { stack, option, value: value.into(), origin: origin.clone() });
    }

    /// A setting, or its default; nothing, where the default is that there is nothing.
    fn setting<T>(&mut self, option: &str, setting: Option<&Setting<T>>, show: impl Fn(&T) -> String) {
        match setting {
            Some(setting) => self.line(option, show(&setting.value), &setting.origin),
            None => match stack_default(option) {
                "" => {}
                default => self.line(option, default, &Origin::Default),
            },
        }
    }

    fn explain(&mut self, stack: &StackConfig, registry: &Registry) -> Result<()> {
        match &stack.l1 {
            MemoryConfig::Off(origin) => self.line("l1", "off", origin),
            MemoryConfig::On(limits) => {
                self.setting("l1.max_items", limits.max_items.as_ref(), u64::to_string);
                self.setting("l1.max_bytes", limits.max_bytes.as_ref(), |bytes| format_size(*bytes));
                self.setting("l1.max_entry_bytes", limits.max_entry_bytes.as_ref(), |bytes| {
                    format_size(*bytes)
                });
            }
        }
        self.setting("ttl", stack.ttl.as_ref(), |ttl| format_ttl(*ttl));
        for (option, setting) in [
            ("grace", &stack.grace),
            ("backoff", &stack.backoff),
            ("soft_timeout", &stack.soft_timeout),
            ("hard_timeout", &stack.hard_timeout),
            ("jitter", &stack.jitter),
        ] {
            self.setting(option, setting.as_ref(), |duration| format_duration(*duration));
        }
        match &stack.refresh {
            Some(Setting { value: Refresh::Early { share }, origin }) => {
                self.line("refresh.early", share.to_string(), origin);
            }
            Some(Setting { value: Refresh::Sliding { idle }, origin }) => {
                self.line("refresh.sliding", format_duration(*idle), origin);
            }
            refresh => self.setting("refresh", refresh.as_ref(), |refresh| {
                let word = if *refresh == Refresh::Probabilistic { "probabilistic" } else { "on_demand" };
                word.to_owned()
            }),
        }
        for (option, setting) in [
            ("memory_ttl", &stack.memory_ttl),
            ("across_processes", &stack.across_processes),
            ("replace_after", &stack.replace_after),
        ] {
            self.setting(option, setting.as_ref(), |duration| format_duration(*duration));
        }
        for group in &stack.groups {
            let (name, pattern) = &group.value;
            self.line("groups", format!("{name}={pattern}"), &group.origin);
        }
        self.explain_store(stack, registry)
    }

    fn explain_store(&mut self, stack: &StackConfig, registry: &Registry) -> Result<()> {
        let Some(store) = &stack.l2 else {
            self.line("l2", "none", &Origin::Default);
            return Ok(());
        };
        let (driver, options, _) = registry.read(store)?;
        self.line("l2.driver", driver, store.origin());
        let known: &[OptionInfo] =
            DRIVERS.iter().find(|info| info.name == driver).map_or(&[], |info| info.options);
        for record in options.records() {
            let option = format!("l2.{}", record.name);
            match &record.shown {
                Some(shown) => self.line(&option, shown.clone(), &record.origin),
                None => {
                    let default = known.iter().find(|info| info.name == record.name).map(|info| info.default);
                    self.line(&option, default.unwrap_or("not set"), &Origin::Default);
                }
            }
        }
        match &stack.prefix {
            Some(prefix) => self.line("prefix", prefix.value.clone(), &prefix.origin),
            None => self.line("prefix", self.stack.to_owned(), &Origin::Default),
        }
        self.setting("codec", stack.codec.as_ref(), ToString::to_string);
        self.setting("deadline", stack.deadline.as_ref(), |deadline| format_duration(*deadline));
        match &stack.suppress_l2_errors {
            Some(suppress) => self.line("suppress_l2_errors", suppress.value.to_string(), &suppress.origin),
            None => {
                let suppress = matches!(stack.l1, MemoryConfig::On(_)).to_string();
                self.line("suppress_l2_errors", suppress, &Origin::Default);
            }
        }
        self.explain_outage(stack);
        match &stack.compress {
            None => self.line("compress", "off", &Origin::Default),
            Some(compress) => {
                self.setting("compress.level", compress.level.as_ref(), i32::to_string);
                self.setting("compress.threshold", compress.threshold.as_ref(), |bytes| format_size(*bytes));
            }
        }
        match &stack.encrypt {
            None => self.line("encrypt", "off", &Origin::Default),
            Some(encrypt) => {
                for key in &encrypt.keys {
                    self.line("encrypt.keys", masked_key(key.value.expose()), &key.origin);
                }
            }
        }
        Ok(())
    }

    fn explain_outage(&mut self, stack: &StackConfig) {
        match &stack.breaker {
            BreakerConfig::Off(origin) => self.line("breaker", "off", origin),
            BreakerConfig::On(limits) => {
                self.setting("breaker.failures", limits.failures.as_ref(), u32::to_string);
                self.setting("breaker.pause", limits.pause.as_ref(), |pause| format_duration(*pause));
                self.setting("breaker.pause_max", limits.pause_max.as_ref(), |pause| format_duration(*pause));
            }
        }
        match &stack.recover_writes {
            RecoveryConfig::Unsaid => {
                let recover = matches!(stack.l1, MemoryConfig::On(_)).to_string();
                self.line("recover_writes", recover, &Origin::Default);
            }
            RecoveryConfig::Off(origin) => self.line("recover_writes", "false", origin),
            RecoveryConfig::On(limits) => {
                self.setting("recover_writes.max_writes", limits.max_writes.as_ref(), u64::to_string);
                self.setting("recover_writes.max_bytes", limits.max_bytes.as_ref(), |bytes| {
                    format_size(*bytes)
                });
                self.setting("recover_writes.interval", limits.interval.as_ref(), |interval| {
                    format_duration(*interval)
                });
            }
        }
    }
}

/// `ID:CIPHER:***`, or nothing of a text that has not even that shape.
fn masked_key(key: &str) -> String {
    let mut parts = key.splitn(3, ':');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(id), Some(cipher), Some(_)) if id.len() < 12 && cipher.len() < 24 => {
            format!("{id}:{cipher}:***")
        }
        _ => "***".to_owned(),
    }
}
