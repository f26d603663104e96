//! YAML, TOML and JSON text to a tree of located nodes. Knows nothing of what the document means.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use serde_saphyr::budget::BudgetBreach;
use toml::de::{DeTable, DeValue};

use super::node::{Key, Node, Origin, Text, Value, error_at};
use crate::error::{Error, ErrorKind, Result};

/// The largest document that is read, in bytes: a thousand stacks fit, a file given by mistake does not.
pub const CONFIG_BYTES_MAX: usize = 1 << 20;

/// The most places that a document may have once its aliases are followed.
const NODES_MAX: usize = 20_000;

/// The languages in which a configuration is written.
///
/// ```
/// use larder::config::Format;
/// assert_eq!(Format::of_path("etc/larder.yml".as_ref())?, Format::Yaml);
/// # Ok::<(), larder::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// YAML 1.2 (`.yaml`, `.yml`).
    Yaml,
    /// TOML 1.1 (`.toml`).
    Toml,
    /// JSON (`.json`).
    Json,
}

impl Format {
    /// The format that a file's extension names.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if it names none.
    pub fn of_path(path: &Path) -> Result<Self> {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        match extension.to_ascii_lowercase().as_str() {
            "yaml" | "yml" => Ok(Self::Yaml),
            "toml" => Ok(Self::Toml),
            "json" => Ok(Self::Json),
            _ => Err(Error::new(
                ErrorKind::Config,
                format!(
                    "{}: cannot tell the format of a configuration that ends in none of .yaml, .yml, .toml, .json",
                    path.display()
                ),
            )),
        }
    }
}

/// The tree of a document. An empty one is an empty map.
pub(crate) fn parse(text: &str, format: Format, file: &str) -> Result<Node> {
    let file: Arc<str> = file.into();
    let start = Origin::File { file: file.clone(), line: 1, column: 1 };
    if text.len() > CONFIG_BYTES_MAX {
        return Err(error_at(&start, "", format!("the document is larger than {CONFIG_BYTES_MAX} bytes")));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim().is_empty() {
        return Ok(Node::map(start));
    }
    match format {
        Format::Yaml => yaml(text, &file),
        Format::Toml => toml(text, &file),
        Format::Json => json(text, &file),
    }
}

/// Line and column, from 1, of a byte of a text.
fn place(text: &str, file: &Arc<str>, offset: usize) -> Origin {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.matches('\n').count() as u64 + 1;
    let column = before.get(line_start..).unwrap_or_default().chars().count() as u64 + 1;
    Origin::File { file: file.clone(), line, column }
}

// --- YAML

fn yaml(text: &str, file: &Arc<str>) -> Result<Node> {
    // A document is a page or two: the parser's own limits would let an alias bomb work for a second first.
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: NODES_MAX,
            max_events: 4 * NODES_MAX,
            max_depth: 32,
            max_aliases: 500,
            max_anchors: 100,
            max_documents: 1,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: NODES_MAX,
            max_replay_stack_depth: 16,
        },
        with_snippet: false,
    };
    let spanned: Spanned<Bare> =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| yaml_error(&error, file))?;
    Ok(located(spanned, file))
}

fn yaml_error(error: &serde_saphyr::Error, file: &Arc<str>) -> Error {
    let mut error = error.without_snippet();
    let origin = origin_of(error.location(), file);
    while let serde_saphyr::Error::AliasError { error: inner, .. } = error {
        error = inner;
    }
    let too_large = "the document is too large, deep or branched once its aliases are followed";
    let message = match error {
        serde_saphyr::Error::DuplicateMappingKey { key, .. } => {
            format!("duplicate key {:?}", key.as_deref().unwrap_or_default())
        }
        serde_saphyr::Error::Budget { breach: BudgetBreach::Documents { .. }, .. } => {
            "only one document is read".to_owned()
        }
        serde_saphyr::Error::Budget { .. }
        | serde_saphyr::Error::AliasReplayLimitExceeded { .. }
        | serde_saphyr::Error::AliasReplayStackDepthExceeded { .. } => too_large.to_owned(),
        other => {
            let message = other.to_string();
            // The place stands in front of our message, so it need not stand in theirs.
            let message = message.lines().next().unwrap_or_default();
            message.split(" at line ").next().unwrap_or(message).to_owned()
        }
    };
    error_at(&origin, "", message)
}

fn origin_of(location: Option<serde_saphyr::Location>, file: &Arc<str>) -> Origin {
    let (line, column) = location.map_or((1, 1), |place| (place.line().max(1), place.column().max(1)));
    Origin::File { file: file.clone(), line, column }
}

/// What YAML holds at one place, before the file's name is known.
enum Bare {
    Leaf(Value),
    List(Vec<Spanned<Bare>>),
    Map(Vec<(Spanned<String>, Spanned<Bare>)>),
}

fn located(spanned: Spanned<Bare>, file: &Arc<str>) -> Node {
    let origin = origin_of(Some(spanned.defined), file);
    let value = match spanned.value {
        Bare::Leaf(value) => value,
        Bare::List(items) => Value::List(items.into_iter().map(|item| located(item, file)).collect()),
        Bare::Map(members) => Value::Map(
            members
                .into_iter()
                .map(|(key, value)| {
                    let origin = origin_of(Some(key.defined), file);
                    (Key { name: key.value, origin }, located(value, file))
                })
                .collect(),
        ),
    };
    Node { value, origin }
}

impl<'de> Deserialize<'de> for Bare {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BareVisitor)
    }
}

struct BareVisitor;

impl<'de> Visitor<'de> for BareVisitor {
    type Value = Bare;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map, a list, text, a number, a boolean or null")
    }

    fn visit_unit<E>(self) -> Result<Bare, E> {
        Ok(Bare::Leaf(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Bare, E> {
        Ok(Bare::Leaf(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Bare, D::Error> {
        Bare::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Bare, E> {
        Ok(Bare::Leaf(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Bare, E> {
        Ok(Bare::Leaf(Value::Integer(value.into())))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Bare, E> {
        Ok(Bare::Leaf(Value::Integer(value.into())))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Bare, E> {
        Ok(Bare::Leaf(Value::Integer(value)))
    }

    fn visit_u128<E: serde::de::Error>(self, value: u128) -> Result<Bare, E> {
        i128::try_from(value)
            .map(|value| Bare::Leaf(Value::Integer(value)))
            .map_err(|_| E::custom("number too large"))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Bare, E> {
        Ok(Bare::Leaf(Value::Float(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Bare, E> {
        Ok(Bare::Leaf(Value::Text(Text::plain(value))))
    }

    fn visit_bytes<E: serde::de::Error>(self, _: &[u8]) -> Result<Bare, E> {
        Err(E::custom("binary values are not used here"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Bare, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element()? {
            items.push(item);
        }
        Ok(Bare::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Bare, A::Error> {
        let mut members: Vec<(Spanned<String>, Spanned<Bare>)> = Vec::new();
        while let Some((key, value)) = map.next_entry::<Spanned<String>, Spanned<Bare>>()? {
            if members.iter().any(|(other, _)| other.value == key.value) {
                return Err(A::Error::custom(format!("duplicate mapping key: {}", key.value)));
            }
            members.push((key, value));
        }
        Ok(Bare::Map(members))
    }
}

// --- TOML

fn toml(text: &str, file: &Arc<str>) -> Result<Node> {
    let table = DeTable::parse(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        error_at(&place(text, file, offset), "", error.message().replace('\n', ", "))
    })?;
    let span = table.span();
    Ok(toml_table(table.into_inner(), span.start, text, file))
}

fn toml_table(table: DeTable<'_>, start: usize, text: &str, file: &Arc<str>) -> Node {
    let mut members: Vec<(usize, Key, Node)> = table
        .into_iter()
        .map(|(key, value)| {
            let offset = key.span().start;
            let key = Key { name: key.into_inner().into_owned(), origin: place(text, file, offset) };
            (offset, key, toml_value(value, text, file))
        })
        .collect();
    // The parser sorts tables by name; mistakes are reported in the order of the document.
    members.sort_by_key(|(offset, ..)| *offset);
    let members = members.into_iter().map(|(_, key, node)| (key, node)).collect();
    Node { value: Value::Map(members), origin: place(text, file, start) }
}

fn toml_value(spanned: toml::Spanned<DeValue<'_>>, text: &str, file: &Arc<str>) -> Node {
    let start = spanned.span().start;
    let value = match spanned.into_inner() {
        DeValue::Table(table) => return toml_table(table, start, text, file),
        DeValue::Array(items) => {
            Value::List(items.into_iter().map(|item| toml_value(item, text, file)).collect())
        }
        DeValue::Boolean(value) => Value::Bool(value),
        DeValue::Integer(value) => {
            match i128::from_str_radix(&value.as_str().replace('_', ""), value.radix()) {
                Ok(value) => Value::Integer(value),
                Err(_) => Value::Text(Text::plain(value.as_str())),
            }
        }
        DeValue::Float(value) => match value.as_str().replace('_', "").parse() {
            Ok(value) => Value::Float(value),
            Err(_) => Value::Text(Text::plain(value.as_str())),
        },
        DeValue::String(value) => Value::Text(Text::plain(value)),
        DeValue::Datetime(value) => Value::Text(Text::plain(value.to_string())),
    };
    Node { value, origin: place(text, file, start) }
}

// --- JSON

/// serde_json says where a text stops being JSON but not where its values stand, so it judges the whole and
/// each token, and the walk in between only finds the places.
fn json(text: &str, file: &Arc<str>) -> Result<Node> {
    if let Err(error) = serde_json::from_str::<serde_json::Value>(text) {
        let origin = Origin::File {
            file: file.clone(),
            line: error.line() as u64,
            column: error.column().max(1) as u64,
        };
        let message = error.to_string();
        return Err(error_at(&origin, "", message.split(" at line ").next().unwrap_or(&message)));
    }
    JsonWalk { text, file, at: 0 }.value()
}

struct JsonWalk<'t> {
    text: &'t str,
    file: &'t Arc<str>,
    at: usize,
}

impl JsonWalk<'_> {
    fn peek(&mut self) -> u8 {
        let bytes = self.text.as_bytes();
        while bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        bytes.get(self.at).copied().unwrap_or_default()
    }

    fn origin(&self) -> Origin {
        place(self.text, self.file, self.at)
    }

    fn value(&mut self) -> Result<Node> {
        let first = self.peek();
        let origin = self.origin();
        let value = match first {
            b'{' => Value::Map(self.members()?),
            b'[' => {
                let mut items = Vec::new();
                self.at += 1;
                while !matches!(self.peek(), b']' | 0) {
                    items.push(self.value()?);
                    if self.peek() == b',' {
                        self.at += 1;
                    }
                }
                self.at += 1;
                Value::List(items)
            }
            b'"' => Value::Text(Text::plain(self.string()?)),
            _ => self.scalar(),
        };
        Ok(Node { value, origin })
    }

    fn members(&mut self) -> Result<Vec<(Key, Node)>> {
        let mut members: Vec<(Key, Node)> = Vec::new();
        self.at += 1;
        while self.peek() == b'"' {
            let origin = self.origin();
            let name = self.string()?;
            if members.iter().any(|(key, _)| key.name == name) {
                return Err(error_at(&origin, "", format!("duplicate key \"{name}\"")));
            }
            if self.peek() == b':' {
                self.at += 1;
            }
            members.push((Key { name, origin }, self.value()?));
            if self.peek() == b',' {
                self.at += 1;
            }
        }
        self.at += 1;
        Ok(members)
    }

    fn string(&mut self) -> Result<String> {
        let start = self.at;
        let bytes = self.text.as_bytes();
        self.at += 1;
        while bytes.get(self.at).is_some_and(|byte| *byte != b'"') {
            self.at += if bytes.get(self.at) == Some(&b'\\') { 2 } else { 1 };
        }
        self.at += 1;
        let token = self.text.get(start..self.at).unwrap_or_default();
        serde_json::from_str(token)
            .map_err(|error| error_at(&place(self.text, self.file, start), "", error.to_string()))
    }

    fn scalar(&mut self) -> Value {
        let start = self.at;
        let bytes = self.text.as_bytes();
        let ends = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b',' | b']' | b'}' | b':');
        while bytes.get(self.at).is_some_and(|byte| !ends(byte)) {
            self.at += 1;
        }
        let token = self.text.get(start..self.at).unwrap_or_default();
        match token {
            "null" => Value::Null,
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            _ => token
                .parse()
                .map(Value::Integer)
                .or_else(|_| token.parse().map(Value::Float))
                .unwrap_or(Value::Null),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(node: &Node, path: &str, found: &mut Vec<String>) {
        match &node.value {
            Value::Map(members) => {
                for (key, node) in members {
                    found.push(format!("{path}{} {}", key.name, key.origin));
                    places(node, &format!("{path}{}.", key.name), found);
                }
            }
            Value::List(items) => items.iter().for_each(|item| places(item, &format!("{path}-"), found)),
            _ => found.push(format!("{path} {}", node.origin)),
        }
    }

    fn all_places(text: &str, format: Format) -> Vec<String> {
        let mut found = Vec::new();
        places(&parse(text, format, "f").unwrap(), "", &mut found);
        found
    }

    #[test]
    fn every_format_says_where_its_parts_stand() {
        let yaml = "a:\n  é: [1, \"x\"]\n  c: {d: null}\n";
        assert_eq!(
            all_places(yaml, Format::Yaml),
            [
                "a f:1:1",
                "a.é f:2:3",
                "a.é.- f:2:7",
                "a.é.- f:2:10",
                "a.c f:3:3",
                "a.c.d f:3:7",
                "a.c.d. f:3:10"
            ]
        );
        let json = "{\"a\": {\n  \"é\": [1, \"x\"],\n  \"c\": {\"d\": null}}}";
        assert_eq!(
            all_places(json, Format::Json),
            [
                "a f:1:2",
                "a.é f:2:3",
                "a.é.- f:2:9",
                "a.é.- f:2:12",
                "a.c f:3:3",
                "a.c.d f:3:9",
                "a.c.d. f:3:14"
            ]
        );
        let toml = "[a]\nz = [1, \"x\"]\nc = {d = true}\n";
        assert_eq!(
            all_places(toml, Format::Toml),
            [
                "a f:1:2",
                "a.z f:2:1",
                "a.z.- f:2:6",
                "a.z.- f:2:9",
                "a.c f:3:1",
                "a.c.d f:3:6",
                "a.c.d. f:3:10"
            ]
        );
    }

    #[test]
    fn json_strings_and_numbers_are_what_serde_json_says() {
        let text = r#"{"a\"b": "\ud83d\ude00\\", "n": [-1, 1.5, 1e3, true, false, {}, []]}"#;
        let node = parse(text, Format::Json, "f").unwrap();
        assert!(node.member("a\"b").is_some_and(|node| node.value == Value::Text(Text::plain("😀\\"))));
        let Some(Value::List(items)) = node.member("n").map(|node| node.value.clone()) else {
            panic!("no list")
        };
        let values: Vec<Value> = items.into_iter().map(|item| item.value).collect();
        let (map, list) = (Value::Map(vec![]), Value::List(vec![]));
        let numbers = [Value::Integer(-1), Value::Float(1.5), Value::Float(1_000.0)];
        let expected: Vec<Value> =
            numbers.into_iter().chain([Value::Bool(true), Value::Bool(false), map, list]).collect();
        assert!(values == expected);
    }

    #[test]
    fn an_alias_bomb_is_refused_at_once() {
        let mut text = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for (previous, name) in ('a'..'i').zip('b'..='i') {
            let aliases = vec![format!("*{previous}"); 10].join(", ");
            text.push_str(&format!("{name}: &{name} [{aliases}]\n"));
        }
        let error = parse(&text, Format::Yaml, "f").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.message().contains("too large"), "{error}");
    }

    #[test]
    fn depth_is_bounded_in_every_format() {
        for (format, text) in [
            (Format::Yaml, format!("a: {}{}", "[".repeat(5_000), "]".repeat(5_000))),
            (Format::Json, format!("{{\"a\": {}{}}}", "[".repeat(5_000), "]".repeat(5_000))),
            (Format::Toml, format!("a = {}{}", "[".repeat(5_000), "]".repeat(5_000))),
        ] {
            assert!(parse(&text, format, "f").is_err(), "{format:?}");
        }
    }

    #[test]
    fn an_empty_document_is_an_empty_configuration() {
        for format in [Format::Yaml, Format::Toml, Format::Json] {
            assert!(parse(" \n", format, "f").is_ok_and(|node| node.value == Value::Map(vec![])));
        }
    }
}
