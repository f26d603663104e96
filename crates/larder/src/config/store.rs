//! A store as it was written: a URL, a map, or a driver's name. Knows no driver; see `registry`.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::node::{Key, Node, Origin, Setting, Text, Value, error_at};
use super::read::{Fields, Item, did_you_mean, nearest};
use super::{units, url};
use crate::error::{Error, Result};
use crate::time::Ttl;

/// Which driver a store uses, and with which options: what was written, not yet understood.
///
/// A [`Registry`](super::Registry) understands it. Neither `Debug` nor `Display` shows an option's value or
/// what stands before the host in a URL.
///
/// ```
/// use larder::config::StoreConfig;
/// let store = StoreConfig::from_url("sqlite:cache.db?table=pages", "--store")?;
/// assert_eq!(store.driver(), "sqlite");
/// let same = StoreConfig::new("sqlite", "--store").option("location", "cache.db").option("table", "pages");
/// assert_eq!(same.driver(), store.driver());
/// # Ok::<(), larder::Error>(())
/// ```
#[derive(Clone)]
pub struct StoreConfig {
    driver: Setting<String>,
    url: Option<UrlRest>,
    fields: Fields,
}

/// What follows a URL's scheme, without its query.
#[derive(Clone)]
struct UrlRest {
    /// What the URL begins with. The driver may have been named beside it.
    scheme: String,
    /// Percent-encoded.
    rest: String,
    shown: String,
    origin: Origin,
}

impl StoreConfig {
    /// A store of a driver, without options. `named` is what errors call the place that said so.
    pub fn new(driver: &str, named: &str) -> Self {
        Self::at(driver, Origin::Named(named.into()))
    }

    /// A store of a driver that was written at some place.
    pub(crate) fn at(driver: &str, origin: Origin) -> Self {
        let driver = Setting { value: driver.to_owned(), origin: origin.clone() };
        Self { driver, url: None, fields: Fields::empty("", origin) }
    }

    /// The store that a URL names: `sqlite:cache.db`, `file:///var/cache/pages?max_bytes=1gb`, `memory:`.
    /// `named` is what errors call the place that said so, such as `--store`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if it is not a URL; whether a driver knows it is asked
    /// when it is checked or opened.
    pub fn from_url(url: &str, named: &str) -> Result<Self> {
        Self::read(Item::new(Node::text(url, Origin::Named(named.into())), ""))
    }

    /// A store of a driver with the options of some document.
    pub(crate) fn of_fields(driver: &str, mut fields: Fields) -> Self {
        fields.forget();
        let driver = Setting { value: driver.to_owned(), origin: fields.origin.clone() };
        Self { driver, url: None, fields }
    }

    /// The store of a driver at a URL, which has to be one of that driver's.
    pub(crate) fn of_driver(driver: &str, url: Node) -> Result<Self> {
        let mut store = Self::read(Item::new(url, ""))?;
        driver.clone_into(&mut store.driver.value);
        Ok(store)
    }

    /// This store with one more option, in place of one of the same name.
    #[must_use]
    pub fn option(self, name: &str, value: impl Into<String>) -> Self {
        let origin = self.driver.origin.clone();
        self.with(name, Node::text(value, origin))
    }

    /// As [`StoreConfig::option`], with a value that was written somewhere else.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: Node) -> Self {
        self.fields.remove(name);
        self.fields.put(name, value);
        self
    }

    /// This store without an option.
    #[must_use]
    pub fn without_option(mut self, name: &str) -> Self {
        self.fields.remove(name);
        self
    }

    /// Whether an option of this very name is written; an alias is another name.
    pub fn has_option(&self, name: &str) -> bool {
        self.fields.left().any(|key| key.name == name)
    }

    /// The driver's name or the URL's scheme, as it was written.
    pub fn driver(&self) -> &str {
        &self.driver.value
    }

    /// Where the driver was written.
    pub fn origin(&self) -> &Origin {
        &self.driver.origin
    }

    /// An error at the place where the driver was written.
    pub(crate) fn error(&self, what: impl fmt::Display) -> Error {
        error_at(&self.driver.origin, &self.fields.path, what)
    }

    /// Where the driver was written, and for what: `larder.yaml:3:9: stacks.users.l2`.
    pub(crate) fn place(&self) -> String {
        match (&self.driver.origin, self.fields.path.as_str()) {
            (origin, "") => origin.to_string(),
            (origin, path) => format!("{origin}: {path}"),
        }
    }

    /// What a driver reads.
    pub(crate) fn options(&self) -> StoreOptions {
        StoreOptions { store: self.clone(), records: Vec::new() }
    }

    /// Reads a store in any of the ways in which one is written.
    pub(crate) fn read(mut item: Item) -> Result<Self> {
        flatten(&mut item.node);
        if let Value::Text(text) = &item.node.value {
            let node = Node::map(item.node.origin.clone());
            let fields = Item::new(node, item.path.clone()).fields("a map")?;
            return Self::of_text(&item, text, fields);
        }
        let mut fields = item.fields("a store: a URL, or a map with \"driver\"")?;
        let driver = fields.take("driver");
        // Others pass a URL as the `connection`.
        if fields.text_of("connection").is_some_and(|text| text.contains("://")) {
            fields.alias("connection", "url")?;
        }
        if let Some(url) = fields.take("url") {
            let url = Item { path: fields.path.clone(), ..url };
            let mut store = Self::of_text(&url, url.text()?, fields)?;
            if let Some(driver) = driver {
                store.driver = driver.at(driver.text()?.text.clone());
            }
            return Ok(store);
        }
        let Some(driver) = driver else {
            let meant = fields.left().find_map(|key| nearest(&key.name, ["driver", "url"]));
            return Err(
                fields.error(format_args!("a store needs \"driver\" or \"url\"{}", did_you_mean(meant)))
            );
        };
        let driver = driver.at(driver.text()?.text.clone());
        fields.forget();
        Ok(Self { driver, url: None, fields })
    }

    fn of_text(item: &Item, text: &Text, mut fields: Fields) -> Result<Self> {
        fields.forget();
        let parts = url::split(text).map_err(|what| item.error(what))?;
        for (name, value) in parts.query.into_iter().rev() {
            if let Some(key) = fields.left().find(|key| key.name == name) {
                // A variable over a URL's option is what it was set for.
                if matches!(key.origin, Origin::Variable(_)) {
                    continue;
                }
                return Err(item.error(format_args!("the option \"{name}\" is given twice")));
            }
            fields.put(&name, Node { value: Value::Text(value), origin: item.node.origin.clone() });
        }
        let origin = item.node.origin.clone();
        let scheme = parts.scheme.clone();
        let driver = Setting { value: parts.scheme, origin: origin.clone() };
        let url = parts.rest.map(|rest| UrlRest { scheme, rest, shown: parts.shown, origin });
        Ok(Self { driver, url, fields })
    }
}

impl fmt::Display for StoreConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.url {
            Some(url) => write!(f, "{}:{}", self.driver.value, url.shown),
            None => f.write_str(&self.driver.value),
        }
    }
}

impl fmt::Debug for StoreConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.fields.left().map(|key| key.name.as_str()).collect();
        f.debug_struct("StoreConfig")
            .field("store", &format_args!("{self}"))
            .field("options", &names)
            .field("origin", &self.driver.origin)
            .finish()
    }
}

/// Brings `{sqlite: {…}}`, `{sqlite: cache.db}` and `{name: sqlite, options: {…}}` into the form
/// `{driver: sqlite, …}`. A text that is a URL is one. Anything else is left as it is.
pub(crate) fn flatten(node: &mut Node) {
    if node.member("driver").is_some() || node.member("url").is_some() {
        return;
    }
    let Value::Map(members) = &node.value else { return };
    let (driver, options) = match members.as_slice() {
        [(key, value)] => {
            let driver = Node::text(key.name.clone(), key.origin.clone());
            (driver, value.clone())
        }
        [(a, first), (b, second)] => match (a.name.as_str(), b.name.as_str()) {
            ("name", "options") => (first.clone(), second.clone()),
            ("options", "name") => (second.clone(), first.clone()),
            _ => return,
        },
        _ => return,
    };
    let named = |name: &str, origin: &Origin| Key { name: name.to_owned(), origin: origin.clone() };
    let mut flat = vec![(named("driver", &driver.origin), driver)];
    match options.value {
        Value::Null => {}
        Value::Map(members) => flat.extend(members),
        Value::Text(ref text) => {
            let what = if text.text.contains("://") { "url" } else { "location" };
            flat.push((named(what, &options.origin), options));
        }
        _ => return,
    }
    node.value = Value::Map(flat);
}

/// What became of one option, for whoever explains a configuration.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) name: String,
    /// What it holds, fit to be shown; `None` if it was not written.
    pub(crate) shown: Option<String>,
    pub(crate) origin: Origin,
}

/// A store's options, to be read one by one under their types by whoever opens a driver.
///
/// Each reader takes an option out, gives `None` if it was not written, and makes a mistake in it an error
/// that says where it stands. What is left over when the opener has returned is refused with the names of all
/// that it asked for, so an opener reads every option that it knows, every time.
pub struct StoreOptions {
    store: StoreConfig,
    records: Vec<Record>,
}

impl StoreOptions {
    /// The driver's name or the URL's scheme, as it was written.
    pub fn driver(&self) -> &str {
        self.store.driver()
    }

    /// Lets an option be called by another name too; `connection.filename` is a member of a map.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if both are written.
    pub fn alias(&mut self, other: &str, name: &str) -> Result<()> {
        self.store.fields.alias(other, name)
    }

    /// A path: the option `name`, or what follows the scheme in a URL, percent-decoded.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if both are written, or if the URL names a host.
    pub fn location(&mut self, name: &str) -> Result<Option<String>> {
        let overridden =
            self.store.fields.left().any(|key| key.name == name && matches!(key.origin, Origin::Variable(_)));
        let Some(url) = self.store.url.take().filter(|url| !url.rest.is_empty() && !overridden) else {
            let location = self.text(name)?;
            return match location {
                Some(location) if location.is_empty() => Err(self.error(name, "must not be empty")),
                location => Ok(location),
            };
        };
        if self.store.fields.take(name).is_some() {
            return Err(self.store.error(format_args!("the URL and the option \"{name}\" both say where")));
        }
        let path = url::path(self.store.driver(), &url.rest).map_err(|what| self.store.error(what))?;
        let shown = Some(path.clone());
        self.records.push(Record { name: name.to_owned(), shown, origin: url.origin });
        Ok(Some(path))
    }

    /// The URL without its query, still percent-encoded, for a driver that connects to somewhere.
    pub fn url(&mut self) -> Option<String> {
        let url = self.store.url.take()?;
        let shown = Some(url::masked(&url.rest));
        self.records.push(Record { name: "url".to_owned(), shown, origin: url.origin });
        Some(format!("{}:{}", url.scheme, url.rest))
    }

    /// Text. `null` is none.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if it is something else.
    pub fn text(&mut self, name: &str) -> Result<Option<String>> {
        self.text_or_null(name, url::names_a_secret(name))
    }

    /// Text that is never shown. `null` is none.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if it is something else.
    pub fn secret(&mut self, name: &str) -> Result<Option<String>> {
        self.text_or_null(name, true)
    }

    /// One of some words, whatever their case.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if it is none of them.
    pub fn choice(&mut self, name: &str, words: &[&'static str]) -> Result<Option<&'static str>> {
        self.read(name, |item| item.choice(words).map(|word| (word, word.to_owned())))
    }

    /// A duration, as [`parse_duration`](super::parse_duration) takes it.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if it is none.
    pub fn duration(&mut self, name: &str) -> Result<Option<Duration>> {
        self.read(name, |item| item.duration().map(|value| (value, units::format_duration(value))))
    }

    /// A duration, or `Some(None)` if it is switched off (`false`, `off`, `none`, `null`).
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if it is neither.
    pub fn duration_or_off(&mut self, name: &str) -> Result<Option<Option<Duration>>> {
        self.read(name, |item| {
            let value = item.duration_or_off()?;
            Ok((value, value.map_or_else(|| "off".to_owned(), units::format_duration)))
        })
    }

    /// A TTL, as [`parse_ttl`](super::parse_ttl) takes it.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if it is none.
    pub fn ttl(&mut self, name: &str) -> Result<Option<Ttl>> {
        self.read(name, |item| item.ttl().map(|value| (value, units::format_ttl(value))))
    }

    /// A number of bytes, as [`parse_size`](super::parse_size) takes it.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if it is none.
    pub fn size(&mut self, name: &str) -> Result<Option<u64>> {
        self.read(name, |item| item.size().map(|value| (value, units::format_size(value))))
    }

    /// A whole number within a range.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if it is none.
    pub fn integer(&mut self, name: &str, range: RangeInclusive<i64>) -> Result<Option<i64>> {
        self.read(name, |item| item.integer(range).map(|value| (value, value.to_string())))
    }

    /// True or false.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if it is neither.
    pub fn boolean(&mut self, name: &str) -> Result<Option<bool>> {
        self.read(name, |item| item.boolean().map(|value| (value, value.to_string())))
    }

    /// A list of maps, each read as options of its own: `nodes: [{host: a}, {host: b}]`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if it is something else, if `read` fails, and if it leaves an
    /// option of one unread.
    pub fn each<T>(
        &mut self,
        name: &str,
        mut read: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Option<Vec<T>>> {
        let Some(item) = self.store.fields.take(name) else {
            self.records.push(Record { name: name.to_owned(), shown: None, origin: Origin::Default });
            return Ok(None);
        };
        let Value::List(items) = item.node.value else { return Err(item.expected("a list of maps")) };
        let mut values = Vec::with_capacity(items.len());
        for (place, node) in items.into_iter().enumerate() {
            let fields = Item::new(node, format!("{}[{place}]", item.path)).fields("a map")?;
            let store = StoreConfig { driver: self.store.driver.clone(), url: None, fields };
            let mut options = store.options();
            values.push(read(&mut options)?);
            options.finish()?;
            let written = options.records.into_iter().filter(|record| record.shown.is_some());
            let inside =
                |record: Record| Record { name: format!("{name}[{place}].{}", record.name), ..record };
            self.records.extend(written.map(inside));
        }
        Ok(Some(values))
    }

    /// What a reader gave, which has to be there. To be asked after all options are read: a name that is
    /// left over and looks like this one is then the mistake that is reported.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if it is not.
    pub fn required<T>(&self, name: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| {
            if let Some(mistyped) = self.store.fields.mistyped(name) {
                return mistyped;
            }
            let driver = self.store.driver();
            self.store.error(format_args!("the {driver} driver needs the option \"{name}\""))
        })
    }

    /// An error of one's own about an option, at the place where it was written. What it says must contain
    /// neither values nor secrets.
    pub fn error(&self, name: &str, what: impl fmt::Display) -> Error {
        let origin =
            self.records.iter().rev().find(|record| record.name == name).map(|record| &record.origin);
        let origin = origin.filter(|origin| **origin != Origin::Default).unwrap_or(self.store.origin());
        error_at(origin, &super::node::join(&self.store.fields.path, name), what)
    }

    /// As [`StoreOptions::error`], about the store as a whole, such as two options that contradict each other.
    pub fn refuse(&self, what: impl fmt::Display) -> Error {
        self.store.error(what)
    }

    /// Refuses what nobody read. A [`Registry`](super::Registry) does this by itself.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) names what was left over.
    pub fn finish(&self) -> Result<()> {
        self.store.fields.finish("option")?;
        match &self.store.url {
            Some(url) if !url.rest.is_empty() => Err(self
                .store
                .error(format_args!("the {} driver takes nothing after its scheme", self.store.driver()))),
            _ => Ok(()),
        }
    }

    /// What was read so far, in order.
    pub(crate) fn records(&self) -> &[Record] {
        &self.records
    }

    fn text_or_null(&mut self, name: &str, secret: bool) -> Result<Option<String>> {
        // A document that is filled in by a program has `password: null` where there is no password.
        self.store.fields.drop_null(name);
        self.read(name, |item| {
            let text = item.text()?;
            let shown = if secret { "***" } else { &text.text };
            Ok((text.text.clone(), shown.to_owned()))
        })
    }

    fn read<T>(
        &mut self,
        name: &str,
        reader: impl FnOnce(&Item) -> Result<(T, String)>,
    ) -> Result<Option<T>> {
        let Some(item) = self.store.fields.take(name) else {
            let origin = Origin::Default;
            self.records.push(Record { name: name.to_owned(), shown: None, origin });
            return Ok(None);
        };
        let (value, shown) = reader(&item)?;
        self.records.push(Record { name: name.to_owned(), shown: Some(shown), origin: item.node.origin });
        Ok(Some(value))
    }
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions").field("store", &self.store).finish_non_exhaustive()
    }
}
