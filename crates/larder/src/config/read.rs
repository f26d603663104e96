//! Typed readers over nodes: what makes every mistake an error that says where, what and what was meant.
//!
//! A number may be written as text everywhere, because variables only ever give text. Knows nothing of which
//! options there are.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::node::{Key, Node, Origin, Setting, Text, Value, error_at, join};
use super::units;
use crate::error::{Error, Result};
use crate::time::Ttl;

/// A node under its path.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) node: Node,
    pub(crate) path: String,
}

impl Item {
    pub(crate) fn new(node: Node, path: impl Into<String>) -> Self {
        Self { node, path: path.into() }
    }

    /// An error at this place.
    pub(crate) fn error(&self, what: impl fmt::Display) -> Error {
        error_at(&self.node.origin, &self.path, what)
    }

    pub(crate) fn at<T>(&self, value: T) -> Setting<T> {
        Setting { value, origin: self.node.origin.clone() }
    }

    /// The error of something else than was expected.
    pub(crate) fn expected(&self, what: impl fmt::Display) -> Error {
        self.error(format_args!("expected {what}, found {}", self.found()))
    }

    /// What stands here, for an error: the value itself if nobody can mind.
    fn found(&self) -> String {
        match &self.node.value {
            Value::Text(text) => self.quoted(text).unwrap_or_else(|| "other text".to_owned()),
            Value::Integer(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            Value::Bool(value) => value.to_string(),
            other => other.kind().to_owned(),
        }
    }

    /// A text that may be shown: typed by hand into the document, and short.
    fn quoted(&self, text: &Text) -> Option<String> {
        (text.template.is_none() && text.text.len() <= 40).then(|| format!("{:?}", text.text))
    }

    /// Reads text by a unit parser, whose failure is a reason without the text.
    pub(crate) fn parsed<T>(&self, text: &Text, parse: impl Fn(&str) -> Result<T, String>) -> Result<T> {
        parse(&text.text).map_err(|reason| match self.quoted(text) {
            Some(quoted) => self.error(format_args!("{quoted} {reason}")),
            // A reason may repeat the number, so a variable's is cut where it would.
            None => self.error(format_args!(
                "the value {}",
                reason.split_once(':').map_or(reason.as_str(), |(reason, _)| reason)
            )),
        })
    }

    fn number(&self) -> Option<String> {
        match &self.node.value {
            Value::Integer(number) => Some(number.to_string()),
            Value::Float(number) if number.fract() == 0.0 && number.abs() < 9e15 => {
                Some(format!("{number:.0}"))
            }
            Value::Float(number) => Some(number.to_string()),
            _ => None,
        }
    }

    fn quantity<T>(&self, what: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<T> {
        if let Some(number) = self.number() {
            return parse(&number).map_err(|reason| self.error(format_args!("{number} {reason}")));
        }
        match &self.node.value {
            Value::Text(text) => self.parsed(text, parse),
            _ => Err(self.expected(what)),
        }
    }

    pub(crate) fn duration(&self) -> Result<Duration> {
        self.quantity("a duration such as \"5m\"", units::duration)
    }

    /// A duration, or nothing: `false`, `null`, `off`, `none`.
    pub(crate) fn duration_or_off(&self) -> Result<Option<Duration>> {
        if self.is_off() { Ok(None) } else { self.duration().map(Some) }
    }

    /// Whether this says that something is switched off.
    pub(crate) fn is_off(&self) -> bool {
        match &self.node.value {
            Value::Null | Value::Bool(false) => true,
            Value::Text(text) => {
                ["false", "off", "none", "null"].contains(&text.text.trim().to_ascii_lowercase().as_str())
            }
            _ => false,
        }
    }

    pub(crate) fn ttl(&self) -> Result<Ttl> {
        match &self.node.value {
            Value::Null => Ok(Ttl::Forever),
            _ => self.quantity("a duration such as \"5m\", or \"forever\"", units::ttl),
        }
    }

    pub(crate) fn size(&self) -> Result<u64> {
        self.quantity("a size such as \"64MiB\"", units::size)
    }

    pub(crate) fn integer(&self, range: RangeInclusive<i64>) -> Result<i64> {
        let number = match &self.node.value {
            Value::Integer(number) => i64::try_from(*number).ok(),
            Value::Float(_) => self.number().and_then(|number| number.parse().ok()),
            Value::Text(text) => text.text.trim().replace('_', "").parse().ok(),
            _ => None,
        };
        number.filter(|number| range.contains(number)).ok_or_else(|| match (*range.start(), *range.end()) {
            (least, i64::MAX) => self.expected(format_args!("a whole number from {least}")),
            (least, most) => self.expected(format_args!("a whole number from {least} to {most}")),
        })
    }

    /// A part of a whole: more than none of it, and less than all.
    pub(crate) fn share(&self) -> Result<f64> {
        let number = match &self.node.value {
            Value::Float(number) => Some(*number),
            Value::Text(text) => text.text.trim().parse().ok(),
            _ => None,
        };
        let share = number.filter(|share: &f64| *share > 0.0 && *share < 1.0);
        share.ok_or_else(|| self.expected("a share between 0 and 1, such as 0.9"))
    }

    pub(crate) fn boolean(&self) -> Result<bool> {
        let word = match &self.node.value {
            Value::Bool(value) => return Ok(*value),
            Value::Text(text) => text.text.trim().to_ascii_lowercase(),
            _ => String::new(),
        };
        match word.as_str() {
            "true" | "yes" | "on" | "1" => Ok(true),
            "false" | "no" | "off" | "0" => Ok(false),
            _ => Err(self.expected("true or false")),
        }
    }

    pub(crate) fn text(&self) -> Result<&Text> {
        match &self.node.value {
            Value::Text(text) => Ok(text),
            Value::Integer(_) | Value::Float(_) | Value::Bool(_) => {
                Err(self.expected("text (put it in quotes)"))
            }
            _ => Err(self.expected("text")),
        }
    }

    /// Text that no error may repeat.
    pub(crate) fn secret_text(&self) -> Result<&str> {
        match &self.node.value {
            Value::Text(text) => Ok(&text.text),
            other => Err(self.error(format_args!("expected text, found {}", other.kind()))),
        }
    }

    /// One of some words, whatever their case.
    pub(crate) fn choice(&self, words: &[&'static str]) -> Result<&'static str> {
        let text = self.text()?;
        let word = words.iter().copied().find(|word| word.eq_ignore_ascii_case(text.text.trim()));
        word.ok_or_else(|| {
            let meant = self.quoted(text).and_then(|_| nearest(&text.text, words.iter().copied()));
            self.error(format_args!(
                "expected one of {}, found {}{}",
                words.join(", "),
                self.found(),
                did_you_mean(meant)
            ))
        })
    }

    /// The members of a map.
    pub(crate) fn fields(self, what: &str) -> Result<Fields> {
        if !matches!(self.node.value, Value::Map(_)) {
            return Err(self.expected(what));
        }
        let mut node = self.node;
        Ok(Fields {
            members: node.take_members(),
            origin: node.origin,
            path: self.path,
            known: Vec::new(),
            inner: Vec::new(),
        })
    }
}

/// The members of a map that have not been read yet, and the names that anyone asked for.
#[derive(Debug, Clone)]
pub(crate) struct Fields {
    pub(crate) path: String,
    pub(crate) origin: Origin,
    members: Vec<(Key, Node)>,
    known: Vec<String>,
    /// Members of members that have an alias: `connection` and `filename`.
    inner: Vec<(String, String)>,
}

impl Fields {
    /// An error at the map as a whole.
    pub(crate) fn error(&self, what: impl fmt::Display) -> Error {
        error_at(&self.origin, &self.path, what)
    }

    /// A map without members.
    pub(crate) fn empty(path: &str, origin: Origin) -> Self {
        Self { path: path.to_owned(), origin, members: Vec::new(), known: Vec::new(), inner: Vec::new() }
    }

    /// Forgets what was asked for, so that others' errors list their own names only.
    pub(crate) fn forget(&mut self) {
        self.known.clear();
    }

    /// Removes a member unread.
    pub(crate) fn remove(&mut self, name: &str) {
        self.members.retain(|(key, _)| key.name != name);
    }

    /// Takes a member out.
    pub(crate) fn take(&mut self, name: &str) -> Option<Item> {
        if !self.known.iter().any(|known| known == name) {
            self.known.push(name.to_owned());
        }
        let index = self.members.iter().position(|(key, _)| key.name == name)?;
        let (_, node) = self.members.remove(index);
        Some(Item::new(node, join(&self.path, name)))
    }

    /// What a member says, if it is text; it is left where it is, and not asked for.
    pub(crate) fn text_of(&self, name: &str) -> Option<&str> {
        let (_, node) = self.members.iter().find(|(key, _)| key.name == name)?;
        if let Value::Text(text) = &node.value { Some(&text.text) } else { None }
    }

    /// Puts a member in, in front of what a document says under the same name.
    pub(crate) fn put(&mut self, name: &str, node: Node) {
        let key = Key { name: name.to_owned(), origin: node.origin.clone() };
        self.members.insert(0, (key, node));
    }

    /// Takes a member that is `null` for one that is not there.
    pub(crate) fn drop_null(&mut self, name: &str) {
        self.members.retain(|(key, node)| key.name != name || node.value != Value::Null);
    }

    /// Lets a member be called by another name as well; with a dot in it, by a member of a member.
    pub(crate) fn alias(&mut self, other: &str, name: &str) -> Result<()> {
        let taken = match other.split_once('.') {
            Some((outer, inner)) => {
                self.inner.push((outer.to_owned(), inner.to_owned()));
                self.take_inner(outer, inner)
            }
            None => {
                let index = self.members.iter().position(|(key, _)| key.name == other);
                index.map(|index| self.members.remove(index))
            }
        };
        let Some((key, node)) = taken else { return Ok(()) };
        let Some(index) = self.members.iter().position(|(key, _)| key.name == name) else {
            self.members.push((Key { name: name.to_owned(), origin: key.origin }, node));
            return Ok(());
        };
        let overrides = |origin: &Origin| matches!(origin, Origin::Variable(_));
        match self.members.get_mut(index) {
            Some((current, _)) if overrides(&current.origin) && !overrides(&key.origin) => Ok(()),
            Some(current) if overrides(&key.origin) && !overrides(&current.0.origin) => {
                *current = (Key { name: name.to_owned(), origin: key.origin }, node);
                Ok(())
            }
            _ => Err(error_at(
                &key.origin,
                &self.path,
                format_args!("\"{other}\" and \"{name}\" are the same option, given twice"),
            )),
        }
    }

    fn take_inner(&mut self, outer: &str, inner: &str) -> Option<(Key, Node)> {
        let (_, node) = self.members.iter_mut().find(|(key, _)| key.name == outer)?;
        if !matches!(node.value, Value::Map(_)) {
            // Nothing said inside is nothing said.
            self.drop_null(outer);
            return None;
        }
        let mut members = node.take_members();
        let taken = members.iter().position(|(key, _)| key.name == inner).map(|index| members.remove(index));
        if members.is_empty() {
            self.members.retain(|(key, _)| key.name != outer);
        } else {
            node.value = Value::Map(members);
        }
        taken
    }

    /// The names that have not been read.
    pub(crate) fn left(&self) -> impl Iterator<Item = &Key> {
        self.members.iter().map(|(key, _)| key)
    }

    /// Refuses what nobody asked for.
    pub(crate) fn finish(&self, what: &str) -> Result<()> {
        match self.members.first() {
            None => Ok(()),
            Some((key, node)) => Err(self.unknown(what, key, node)),
        }
    }

    /// The error of a member that was probably meant to be the one of this name, which is missing.
    pub(crate) fn mistyped(&self, name: &str) -> Option<Error> {
        let meant = |key: &Key| {
            nearest(&key.name, [name]).is_some() || self.inner.iter().any(|(outer, _)| *outer == key.name)
        };
        let (key, node) = self.members.iter().find(|(key, _)| meant(key))?;
        Some(self.unknown("option", key, node))
    }

    fn unknown(&self, what: &str, key: &Key, node: &Node) -> Error {
        let inner: Vec<&str> = self
            .inner
            .iter()
            .filter(|(outer, _)| *outer == key.name)
            .map(|(_, inner)| inner.as_str())
            .collect();
        let path = if inner.is_empty() { self.path.clone() } else { join(&self.path, &key.name) };
        let (key, mut known) = match (&node.value, inner.is_empty()) {
            (Value::Map(members), false) => (members.first().map_or(key, |(key, _)| key), inner),
            (_, false) => return error_at(&node.origin, &path, "expected a map"),
            (_, true) => (key, self.known.iter().map(String::as_str).collect()),
        };
        known.sort_unstable();
        let names = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let meant = did_you_mean(nearest(&key.name, known.iter().copied()));
        error_at(&key.origin, &path, format_args!("unknown {what} {:?}{meant} (known: {names})", key.name))
    }
}

/// `, did you mean "deadline"?`, or nothing.
pub(crate) fn did_you_mean(meant: Option<&str>) -> String {
    meant.map(|meant| format!(", did you mean \"{meant}\"?")).unwrap_or_default()
}

/// The candidate that was probably meant.
pub(crate) fn nearest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let written = plain(written);
    // Nobody mistypes a name of more than this; the distance costs the product of the lengths.
    if written.len() > 64 {
        return None;
    }
    candidates
        .into_iter()
        .map(|candidate| (distance(&written, &plain(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).clamp(1, 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// A name without what conventions differ in: `maxItems`, `max-items` and `max_items` are one.
pub(crate) fn plain(name: &str) -> Vec<char> {
    name.chars().filter(|c| !matches!(c, '_' | '-')).flat_map(char::to_lowercase).collect()
}

/// How many letters to insert, delete, replace or swap with a neighbour (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (row, letter) in a.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, other) in b.iter().enumerate() {
            let cell = |line: &[usize], at: usize| line.get(at).copied().unwrap_or(usize::MAX - 1);
            let mut least = (cell(&above, column + 1) + 1)
                .min(cell(&current, column) + 1)
                .min(cell(&above, column) + usize::from(letter != other));
            let swapped =
                row > 0 && column > 0 && a.get(row - 1) == Some(other) && b.get(column - 1) == Some(letter);
            if swapped {
                least = least.min(cell(&before, column - 1) + 1);
            }
            current.push(least);
        }
        before = std::mem::replace(&mut above, current);
    }
    above.last().copied().unwrap_or(a.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        let origin = Origin::Named("here".into());
        let mut node = Node { value: Value::Null, origin: origin.clone() };
        node.value = Value::Map(
            pairs
                .iter()
                .map(|(name, text)| {
                    let key = Key { name: (*name).to_owned(), origin: origin.clone() };
                    (key, Node::text(*text, origin.clone()))
                })
                .collect(),
        );
        Item::new(node, "it").fields("a map").unwrap()
    }

    #[test]
    fn near_misses_are_recognised_and_far_ones_are_not() {
        let words = ["deadline", "max_items", "ttl", "l2", "prefix"];
        for (written, meant) in [
            ("deadlin", Some("deadline")),
            ("daedline", Some("deadline")),
            ("maxItems", Some("max_items")),
            ("MAX-ITEMS", Some("max_items")),
            ("tll", Some("ttl")),
            ("l3", Some("l2")),
            ("bananas", None),
            ("x", None),
        ] {
            assert_eq!(nearest(written, words), meant, "{written}");
        }
    }

    #[test]
    fn an_alias_may_not_contradict_the_name() {
        let mut both = fields(&[("maxItems", "1"), ("max_items", "2")]);
        let error = both.alias("maxItems", "max_items").unwrap_err();
        assert_eq!(
            error.message(),
            "here: it: \"maxItems\" and \"max_items\" are the same option, given twice"
        );
    }

    #[test]
    fn a_variable_wins_over_an_alias_in_the_document() {
        let mut both = fields(&[("maxItems", "1")]);
        both.put("max_items", Node::text("2", Origin::Variable("V".into())));
        both.alias("maxItems", "max_items").unwrap();
        assert_eq!(both.take("max_items").unwrap().integer(0..=9).unwrap(), 2);
        both.finish("option").unwrap();
    }

    #[test]
    fn what_came_from_a_variable_is_not_repeated_in_errors() {
        let text = Text { text: "300hunter2".into(), template: Some("${PW}".into()), from_variables: vec![] };
        let node = Node { value: Value::Text(text), origin: Origin::Named("here".into()) };
        let item = Item::new(node, "it");
        for error in [
            item.duration().unwrap_err(),
            item.ttl().unwrap_err(),
            item.size().unwrap_err(),
            item.integer(0..=9).unwrap_err(),
            item.boolean().unwrap_err(),
            item.choice(&["a", "b"]).unwrap_err(),
            item.fields("a map").unwrap_err(),
        ] {
            assert!(!error.to_string().contains("300"), "{error}");
        }
    }
}
