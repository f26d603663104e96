//! A document as a tree in which each part knows where it was written. Knows nothing of what the parts mean.
//!
//! YAML, TOML, JSON, variables and URLs all become this, so that reading, suggesting and overriding exist once.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, ErrorKind};

/// Where a setting was written.
///
/// ```
/// use larder::config::Origin;
/// let origin = Origin::File { file: "larder.yaml".into(), line: 3, column: 9 };
/// assert_eq!(origin.to_string(), "larder.yaml:3:9");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// Nowhere: what holds if nobody says otherwise.
    Default,
    /// In a document.
    File {
        /// The document's name, as it was given.
        file: Arc<str>,
        /// From 1.
        line: u64,
        /// In characters, from 1.
        column: u64,
    },
    /// In an environment variable of this name.
    Variable(Arc<str>),
    /// Somewhere that has only a name: a flag, an argument.
    Named(Arc<str>),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::Variable(name) | Self::Named(name) => f.write_str(name),
        }
    }
}

/// A value, and where it was written.
///
/// ```
/// use larder::config::Setting;
/// let setting = Setting::named(5, "--level");
/// assert_eq!((setting.value, setting.origin.to_string().as_str()), (5, "--level"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a value and its place, and never anything else")]
pub struct Setting<T> {
    /// What was written.
    pub value: T,
    /// Where.
    pub origin: Origin,
}

impl<T> Setting<T> {
    /// A setting from a place that has only a name, such as a flag.
    pub fn named(value: T, name: &str) -> Self {
        Self { value, origin: Origin::Named(name.into()) }
    }
}

/// Text, with what variables put into it marked.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Text {
    pub(crate) text: String,
    /// The text before variables were put in, if any were.
    pub(crate) template: Option<String>,
    /// Which bytes of `text` came from variables.
    pub(crate) from_variables: Vec<Range<usize>>,
}

impl Text {
    pub(crate) fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// The text as it was written, without what a variable held: for logs, where nobody asked for it.
    pub(crate) fn shown(&self) -> &str {
        self.template.as_deref().unwrap_or(&self.text)
    }
}

/// What stands at one place of a document.
#[derive(Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(Text),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// The name of a map's member, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) origin: Origin,
}

/// One place of a document.
#[derive(Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) origin: Origin,
}

impl fmt::Debug for Node {
    /// Shows the shape alone: any text may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Value::List(items) => f.debug_list().entries(items).finish(),
            Value::Map(members) => {
                f.debug_map().entries(members.iter().map(|(key, node)| (&key.name, node))).finish()
            }
            other => f.write_str(other.kind()),
        }
    }
}

impl Value {
    /// What this is, in the words of an error.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) | Self::Float(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

impl Node {
    pub(crate) fn text(text: impl Into<String>, origin: Origin) -> Self {
        Self { value: Value::Text(Text::plain(text)), origin }
    }

    /// Text that no error repeats, and what to show in its place.
    pub(crate) fn unsaid(text: impl Into<String>, shown: impl Into<String>, origin: Origin) -> Self {
        let text = Text { template: Some(shown.into()), ..Text::plain(text) };
        Self { value: Value::Text(text), origin }
    }

    pub(crate) fn map(origin: Origin) -> Self {
        Self { value: Value::Map(Vec::new()), origin }
    }

    /// The member of a map, if this is one and has it.
    pub(crate) fn member(&self, name: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(members) => members.iter().find(|(key, _)| key.name == name).map(|(_, node)| node),
            _ => None,
        }
    }

    /// The members of a map, taken out of it; none if it is not one.
    pub(crate) fn take_members(&mut self) -> Vec<(Key, Self)> {
        match std::mem::replace(&mut self.value, Value::Null) {
            Value::Map(members) => members,
            _ => Vec::new(),
        }
    }
}

/// The error of one place: `file:line:column: stacks.users.ttl: what is wrong`.
pub(crate) fn error_at(origin: &Origin, path: &str, what: impl fmt::Display) -> Error {
    let message =
        if path.is_empty() { format!("{origin}: {what}") } else { format!("{origin}: {path}: {what}") };
    Error::new(ErrorKind::Config, message)
}

/// `stacks` and `users` as `stacks.users`.
pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_printed_without_its_texts() {
        let origin = Origin::Default;
        let key = Key { name: "token".to_owned(), origin: origin.clone() };
        let text = Node::text("hunter2", origin.clone());
        let list = Node { value: Value::List(vec![text]), origin: origin.clone() };
        let node = Node { value: Value::Map(vec![(key, list)]), origin };
        assert_eq!(format!("{node:?}"), r#"{"token": [text]}"#);
    }
}
