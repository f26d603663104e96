//! Reads options one by one, and writes down what each comes to. Knows none of them.

use std::time::Duration;

use larder::Result;
use larder::config::{Entry, Origin, Section, format_duration, format_size};

use super::Shown;

/// A document that is being read.
pub(super) struct Reader {
    root: Section,
    shown: Vec<Shown>,
}

impl Reader {
    pub(super) fn new(root: Section) -> Self {
        Self { root, shown: Vec::new() }
    }

    /// A member of the document itself.
    pub(super) fn take(&mut self, name: &str) -> Option<Entry> {
        self.root.take(name)
    }

    /// A map of the document; empty if it is not there.
    pub(super) fn group(&mut self, name: &str) -> Result<Group<'_>> {
        let entry = self.root.take(name);
        self.group_of(entry, name)
    }

    /// The map that an entry is.
    pub(super) fn group_of(&mut self, entry: Option<Entry>, path: &str) -> Result<Group<'_>> {
        let section = entry.map(Entry::section).transpose()?;
        Ok(Group { section, path: path.to_owned(), shown: &mut self.shown })
    }

    /// Writes down what an option comes to.
    pub(super) fn show(&mut self, option: &str, value: impl Into<String>, origin: Origin) {
        self.shown.push(Shown { option: option.to_owned(), value: value.into(), origin });
    }

    /// Refuses what nobody took; else all that was written down.
    pub(super) fn finish(self) -> Result<Vec<Shown>> {
        self.root.finish()?;
        Ok(self.shown)
    }
}

/// A duration that is not zero.
pub(super) fn timeout(entry: &Entry) -> Result<Duration> {
    match entry.duration()? {
        Duration::ZERO => Err(entry.error("must be longer than zero")),
        duration => Ok(duration),
    }
}

/// A map of options that is being read.
pub(super) struct Group<'a> {
    section: Option<Section>,
    path: String,
    shown: &'a mut Vec<Shown>,
}

impl Group<'_> {
    pub(super) fn take(&mut self, name: &str) -> Option<Entry> {
        self.section.as_mut().and_then(|section| section.take(name))
    }

    /// An error at the map.
    pub(super) fn error(&self, what: &str) -> larder::Error {
        match &self.section {
            Some(section) => section.error(what),
            None => super::error(format!("{}: {what}", self.path)),
        }
    }

    /// A map within this one.
    pub(super) fn group(&mut self, name: &str) -> Result<Group<'_>> {
        let entry = self.take(name);
        self.group_of(entry, name)
    }

    pub(super) fn group_of(&mut self, entry: Option<Entry>, name: &str) -> Result<Group<'_>> {
        let section = entry.map(Entry::section).transpose()?;
        Ok(Group { section, path: format!("{}.{name}", self.path), shown: self.shown })
    }

    pub(super) fn show(&mut self, name: &str, value: impl Into<String>, origin: Origin) {
        let option = if name.is_empty() { self.path.clone() } else { format!("{}.{name}", self.path) };
        self.shown.push(Shown { option, value: value.into(), origin });
    }

    /// One option, or its default.
    pub(super) fn option<T>(
        &mut self,
        name: &str,
        default: T,
        read: impl FnOnce(&Entry) -> Result<T>,
        show: impl FnOnce(&T) -> String,
    ) -> Result<T> {
        self.flagged(name, None, default, read, show)
    }

    /// One option, which a flag wins over.
    pub(super) fn flagged<T>(
        &mut self,
        name: &str,
        flag: Option<Entry>,
        default: T,
        read: impl FnOnce(&Entry) -> Result<T>,
        show: impl FnOnce(&T) -> String,
    ) -> Result<T> {
        let written = self.take(name);
        let (value, origin) = match flag.or(written) {
            Some(entry) => (read(&entry)?, entry.origin().clone()),
            None => (default, Origin::Default),
        };
        self.show(name, show(&value), origin);
        Ok(value)
    }

    pub(super) fn duration(&mut self, name: &str, default: Duration) -> Result<Duration> {
        self.option(name, default, Entry::duration, |value| format_duration(*value))
    }

    /// A duration that is not zero.
    pub(super) fn timeout(&mut self, name: &str, default: Duration) -> Result<Duration> {
        self.option(name, default, timeout, |value| format_duration(*value))
    }

    /// A duration, or `forever`.
    pub(super) fn or_forever(
        &mut self,
        name: &str,
        default: Option<Duration>,
        read: impl FnOnce(&Entry) -> Result<Duration>,
    ) -> Result<Option<Duration>> {
        let read = |entry: &Entry| match entry.text() {
            Ok(text) if text == "forever" => Ok(None),
            Ok(text) if !text.starts_with(|first: char| first.is_ascii_digit()) => {
                Err(entry.error("is neither a duration such as \"30s\" nor \"forever\""))
            }
            _ => read(entry).map(Some),
        };
        self.option(name, default, read, |value| value.map_or_else(|| "forever".to_owned(), format_duration))
    }

    pub(super) fn bytes(&mut self, name: &str, default: u64) -> Result<u64> {
        self.option(name, default, Entry::size, |value| format_size(*value))
    }

    /// A number of bytes that has to be at least this.
    pub(super) fn buffer(&mut self, name: &str, default: usize, least: u64) -> Result<usize> {
        let read = |entry: &Entry| {
            let bytes = entry.size()?;
            let fits = usize::try_from(bytes).ok().filter(|_| (least..=1 << 30).contains(&bytes));
            fits.ok_or_else(|| entry.error(format_args!("must be from {} to 1GiB", format_size(least))))
        };
        self.option(name, default, read, |value| format_size(*value as u64))
    }

    pub(super) fn number(
        &mut self,
        name: &str,
        default: usize,
        range: std::ops::RangeInclusive<i64>,
    ) -> Result<usize> {
        let read = |entry: &Entry| {
            let number = entry.integer(range)?;
            usize::try_from(number).map_err(|_| entry.error("is too large"))
        };
        self.option(name, default, read, usize::to_string)
    }

    pub(super) fn small(
        &mut self,
        name: &str,
        default: u32,
        range: std::ops::RangeInclusive<i64>,
    ) -> Result<u32> {
        let read = |entry: &Entry| {
            let number = entry.integer(range)?;
            u32::try_from(number).map_err(|_| entry.error("is too large"))
        };
        self.option(name, default, read, u32::to_string)
    }

    pub(super) fn boolean(&mut self, name: &str, default: bool) -> Result<bool> {
        self.option(name, default, Entry::boolean, bool::to_string)
    }

    /// One of these words, the first of which is the default.
    pub(super) fn choice(&mut self, name: &str, words: &[&'static str]) -> Result<&'static str> {
        let default = words.first().copied().unwrap_or_default();
        let read = |entry: &Entry| match words.iter().find(|word| **word == "off") {
            // YAML has `off` for `false`.
            Some(off) if entry.is_off() => Ok(*off),
            _ => entry.choice(words),
        };
        self.option(name, default, read, |word| (*word).to_owned())
    }

    /// Text, if there is any.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>> {
        let Some(entry) = self.take(name) else { return Ok(None) };
        let text = entry.text()?;
        self.show(name, text.clone(), entry.origin().clone());
        Ok(Some(text))
    }

    /// Several things, each read from text; none if it is not there. Flags win over what is.
    pub(super) fn several<T: ToString>(
        &mut self,
        name: &str,
        flags: Vec<Entry>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>> {
        let written = self.take(name).map(Entry::list).unwrap_or_default();
        let entries = if flags.is_empty() { written } else { flags };
        let Some(first) = entries.first() else { return Ok(Vec::new()) };
        let origin = first.origin().clone();
        let all = entries.iter().map(|one| one.parsed(&parse)).collect::<Result<Vec<_>>>()?;
        self.show(name, all.iter().map(T::to_string).collect::<Vec<_>>().join(", "), origin);
        Ok(all)
    }

    /// Refuses what nobody took.
    pub(super) fn finish(self) -> Result<()> {
        self.section.as_ref().map_or(Ok(()), Section::finish)
    }
}
