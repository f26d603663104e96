//! Documents of programs that stand on this library: read like its own, with the same mistakes found and said.
//!
//! Knows nothing of what is in them.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::env;
use super::node::{Node, Origin, Value, join};
use super::read::{Fields, Item};
use super::stacks::Secret;
use super::store::StoreConfig;
use crate::error::{Error, Result};

/// A map of a document: members are taken out of it by name, and what nobody takes is a mistake.
///
/// ```
/// use larder::config::{Config, Format};
///
/// let text = "listen: 8080\nlimits: { bodies: 10MiB }";
/// let mut document = Config::with_env([]).section(text, Format::Yaml, "serve.yaml")?;
/// assert_eq!(document.take("listen").unwrap().integer(0..=65_535)?, 8080);
/// let mut limits = document.take("limits").unwrap().section()?;
/// limits.take("body_bytes");
/// assert_eq!(limits.finish().unwrap_err().message(),
///     r#"serve.yaml:2:11: limits: unknown option "bodies" (known: body_bytes)"#);
/// # Ok::<(), larder::Error>(())
/// ```
pub struct Section(Fields);

/// What stands at one place of a document.
#[derive(Clone)]
pub struct Entry(Item);

impl Section {
    pub(crate) fn of_root(mut root: Node, variables: &BTreeMap<String, String>) -> Result<Self> {
        env::substitute(&mut root, "", variables)?;
        Item::new(root, "").fields("a map of options").map(Self)
    }

    /// A map without members, of a place that has only a name, such as the command line.
    pub fn empty(named: &str) -> Self {
        Self(Fields::empty("", Origin::Named(named.into())))
    }

    /// Takes a member out, if it is there and is not null.
    pub fn take(&mut self, name: &str) -> Option<Entry> {
        self.0.take(name).filter(|item| item.node.value != Value::Null).map(Entry)
    }

    /// All members that are left, with their names, in their order.
    pub fn take_all(self) -> Vec<(String, Entry)> {
        let mut fields = self.0;
        let names: Vec<String> = fields.left().map(|key| key.name.clone()).collect();
        names.into_iter().filter_map(|name| fields.take(&name).map(|item| (name, Entry(item)))).collect()
    }

    /// An error at the map as a whole.
    pub fn error(&self, what: impl fmt::Display) -> Error {
        self.0.error(what)
    }

    /// Where the map is.
    pub fn origin(&self) -> &Origin {
        &self.0.origin
    }

    /// What the map is called: `origins.app`; nothing, for the document as a whole.
    pub fn path(&self) -> &str {
        &self.0.path
    }

    /// Refuses what nobody took.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) names it, with its place and what was probably meant.
    pub fn finish(&self) -> Result<()> {
        self.0.finish("option")
    }
}

impl fmt::Debug for Section {
    /// Shows names alone: any text may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.left().map(|key| &key.name)).finish()
    }
}

/// # Errors
/// All readers fail with [`ErrorKind::Config`](crate::ErrorKind::Config): the place, what was expected, what was found.
impl Entry {
    /// Text that stands nowhere but in a flag, or in what has only a name.
    pub fn named(text: &str, named: &str) -> Self {
        Self(Item::new(Node::text(text, Origin::Named(named.into())), ""))
    }

    /// Where this was written.
    pub fn origin(&self) -> &Origin {
        &self.0.node.origin
    }

    /// What this is called: `origins.app.retries`.
    pub fn path(&self) -> &str {
        &self.0.path
    }

    /// An error at this place.
    pub fn error(&self, what: impl fmt::Display) -> Error {
        self.0.error(what)
    }

    /// Whether it is text, and not a map or a list.
    pub fn is_text(&self) -> bool {
        matches!(self.0.node.value, Value::Text(_) | Value::Integer(_))
    }

    /// Whether it is a list.
    pub fn is_list(&self) -> bool {
        matches!(self.0.node.value, Value::List(_))
    }

    /// Whether it says that something is switched off: `false`, `off`, `none`.
    pub fn is_off(&self) -> bool {
        self.0.is_off()
    }

    /// Whether it says no more than that something is switched on: `true`.
    pub fn is_on(&self) -> bool {
        !self.is_off() && self.0.boolean().is_ok_and(|on| on)
    }

    /// A map.
    pub fn section(self) -> Result<Section> {
        self.0.fields("a map of options").map(Section)
    }

    /// A list; a single thing is a list of one.
    pub fn list(self) -> Vec<Self> {
        let Item { node, path } = self.0;
        match node.value {
            Value::List(items) => items
                .into_iter()
                .zip(1_usize..)
                .map(|(node, number)| Self(Item::new(node, join(&path, &number.to_string()))))
                .collect(),
            _ => vec![Self(Item::new(node, path))],
        }
    }

    /// Text.
    pub fn text(&self) -> Result<String> {
        self.0.text().map(|text| text.text.clone())
    }

    /// Text that no error repeats.
    pub fn secret(&self) -> Result<Secret> {
        self.0.secret_text().map(Secret::new)
    }

    /// Text, or a number, that means something. What is wrong with it is said without it: it is repeated where it may be.
    pub fn parsed<T>(&self, parse: impl Fn(&str) -> Result<T, String>) -> Result<T> {
        if let Value::Integer(number) = self.0.node.value {
            return parse(&number.to_string())
                .map_err(|reason| self.error(format_args!("{number} {reason}")));
        }
        self.0.parsed(self.0.text()?, parse)
    }

    /// One of some words, whatever their case.
    pub fn choice(&self, words: &[&'static str]) -> Result<&'static str> {
        self.0.choice(words)
    }

    /// `true` or `false`.
    pub fn boolean(&self) -> Result<bool> {
        self.0.boolean()
    }

    /// A whole number.
    pub fn integer(&self, range: RangeInclusive<i64>) -> Result<i64> {
        self.0.integer(range)
    }

    /// A number of bytes.
    pub fn size(&self) -> Result<u64> {
        self.0.size()
    }

    /// A duration.
    pub fn duration(&self) -> Result<Duration> {
        self.0.duration()
    }

    /// A store: a URL, or a map with its driver.
    pub fn store(self) -> Result<StoreConfig> {
        StoreConfig::read(self.0)
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.node.fmt(f)
    }
}
