//! Variables: `${VAR}` inside a document, and `LARDER_…` over it. Reads no process environment itself.

use std::collections::BTreeMap;

use super::node::{Key, Node, Origin, Text, Value, error_at, join};
use super::read::{did_you_mean, nearest, plain};
use super::store;
use crate::error::{Error, ErrorKind, Result};

/// What variables that override begin with.
const OVERRIDE_PREFIX: &str = "LARDER_";

/// Puts variables into every text below a node.
///
/// The tree has its shape already, so that nothing in a variable can become a key, a list or a second option.
pub(crate) fn substitute(node: &mut Node, path: &str, variables: &BTreeMap<String, String>) -> Result<()> {
    match &mut node.value {
        Value::Text(text) if text.text.contains("${") => {
            *text = expand(&text.text, variables).map_err(|what| error_at(&node.origin, path, what))?;
            Ok(())
        }
        Value::List(items) => items.iter_mut().try_for_each(|item| substitute(item, path, variables)),
        Value::Map(members) => {
            members.iter_mut().try_for_each(|(key, node)| substitute(node, &join(path, &key.name), variables))
        }
        _ => Ok(()),
    }
}

fn expand(template: &str, variables: &BTreeMap<String, String>) -> Result<Text, String> {
    let mut text = Text::default();
    let mut rest = template;
    while let Some(start) = rest.find("${") {
        let (before, after) = rest.split_at(start);
        let after = after.get(2..).unwrap_or_default();
        if let Some(escaped) = before.strip_suffix('$') {
            text.text.push_str(escaped);
            text.text.push_str("${");
            rest = after;
            continue;
        }
        text.text.push_str(before);
        let Some((inside, tail)) = after.split_once('}') else {
            return Err("\"${\" without \"}\" (write \"$${\" for the characters themselves)".to_owned());
        };
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        let named = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !named {
            return Err("what stands in \"${…}\" is no name of a variable".to_owned());
        }
        // As in a shell, `:-` also steps in for a variable that is set to nothing.
        let value = match (variables.get(name).map(String::as_str), default) {
            (Some("") | None, Some(default)) => default,
            (Some(value), _) => value,
            (None, None) => {
                return Err(format!("the variable {name} is not set (\"${{{name}:-…}}\" gives a default)"));
            }
        };
        let from = text.text.len();
        text.text.push_str(value);
        text.from_variables.push(from..text.text.len());
        text.template = Some(template.to_owned());
        rest = tail;
    }
    text.text.push_str(rest);
    Ok(text)
}

/// One `LARDER_…__…` variable.
#[derive(Debug, Clone)]
pub(crate) struct Override {
    variable: String,
    path: Vec<String>,
    value: String,
}

impl Override {
    /// Whether it speaks of all stacks.
    pub(crate) fn is_default(&self) -> bool {
        self.path.first().is_some_and(|part| part == "defaults")
    }

    /// The stack that it speaks of.
    pub(crate) fn stack(&self) -> Option<&str> {
        if self.is_default() { None } else { self.path.get(1).map(String::as_str) }
    }

    /// Whether it says where a stack keeps things.
    pub(crate) fn gives_a_tier(&self) -> bool {
        !self.is_default() && self.path.get(2).is_some_and(|part| part == "l1" || part == "l2")
    }

    pub(crate) fn origin(&self) -> Origin {
        Origin::Variable(self.variable.as_str().into())
    }

    pub(crate) fn error(&self, what: impl std::fmt::Display) -> Error {
        Error::new(ErrorKind::Config, format!("{}: {what}", self.variable))
    }
}

/// The variables that override settings: those that have two underscores after `LARDER_`. Others, such as a
/// key that a document names as `${LARDER_KEY}`, are none of this room's business.
pub(crate) fn overrides(variables: &BTreeMap<String, String>) -> Result<Vec<Override>> {
    let mut found = Vec::new();
    for (variable, value) in variables {
        let upper = variable.to_ascii_uppercase();
        let Some(rest) = upper.strip_prefix(OVERRIDE_PREFIX) else { continue };
        if !rest.contains("__") {
            if rest.starts_with("STACKS_") || rest.starts_with("DEFAULTS_") {
                return Err(mistake(variable, "parts of a path are separated by two underscores"));
            }
            continue;
        }
        let path: Vec<String> = rest.split("__").map(str::to_ascii_lowercase).collect();
        if path.iter().any(String::is_empty) {
            return Err(mistake(variable, "a part of the path is empty"));
        }
        match path.first().map(String::as_str) {
            Some("stacks") if path.len() >= 3 => {}
            Some("stacks") => return Err(mistake(variable, "a stack's option has to follow its name")),
            Some("defaults") => {}
            first => {
                let first = first.unwrap_or_default();
                let meant = did_you_mean(nearest(first, ["stacks", "defaults"]));
                let what = format!("unknown setting {first:?}{meant} (known: defaults, stacks)");
                return Err(mistake(variable, &what));
            }
        }
        found.push(Override { variable: variable.clone(), path, value: value.clone() });
    }
    // Outer before inner: a store as a whole, and then its options.
    found.sort_by_key(|one| one.path.len());
    Ok(found)
}

fn mistake(variable: &str, what: &str) -> Error {
    Error::new(ErrorKind::Config, format!("{variable}: {what}"))
}

/// Writes one override into the document.
pub(crate) fn apply(root: &mut Node, one: &Override) -> Result<()> {
    apply_below(root, &one.path, "", one)
}

/// Writes one override of a stack into the map of all stacks.
pub(crate) fn apply_to_stacks(stacks: &mut Node, one: &Override) -> Result<()> {
    apply_below(stacks, one.path.get(1..).unwrap_or_default(), "stacks", one)
}

fn apply_below(node: &mut Node, parts: &[String], path: &str, one: &Override) -> Result<()> {
    let Some((part, below)) = parts.split_first() else {
        *node = Node::text(one.value.clone(), one.origin());
        return Ok(());
    };
    open_up(node, path);
    if !matches!(node.value, Value::Map(_)) {
        *node = Node::map(one.origin());
    }
    let mut members = node.take_members();
    if path.ends_with(".refresh") {
        // One choice takes the place of another.
        members.retain(|(key, _)| plain(&key.name) == plain(part));
    }
    let alike: Vec<&String> =
        members.iter().map(|(key, _)| &key.name).filter(|name| plain(name) == plain(part)).collect();
    let name = match alike.as_slice() {
        [] => part.clone(),
        [name] => (*name).clone(),
        [first, second, ..] => {
            let what = format_args!("could mean \"{first}\" or \"{second}\"");
            return Err(error_at(&one.origin(), path, what));
        }
    };
    if !members.iter().any(|(key, _)| key.name == name) {
        members.push((Key { name: name.clone(), origin: one.origin() }, Node::map(one.origin())));
    }
    let inner = join(path, &name);
    for (key, member) in &mut members {
        if key.name == name {
            apply_below(member, below, &inner, one)?;
            if below.is_empty() {
                key.origin = one.origin();
            }
        }
    }
    node.value = Value::Map(members);
    Ok(())
}

/// A store that is written as a URL or under its driver's name, as the map that an option can be put into.
fn open_up(node: &mut Node, path: &str) {
    if path.rsplit_once('.').is_some_and(|(_, last)| last == "l2") {
        store::flatten(node);
        if let Value::Text(_) = &node.value {
            let origin = node.origin.clone();
            let url = std::mem::replace(node, Node::map(origin.clone()));
            node.value = Value::Map(vec![(Key { name: "url".to_owned(), origin }, url)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn variables_are_put_in_and_escapes_are_left() {
        let set = variables(&[("A", "1"), ("EMPTY", ""), ("NESTED", "${A}")]);
        for (template, text) in [
            ("${A}", "1"),
            ("x${A}y${A}", "x1y1"),
            ("${NO:-d}", "d"),
            ("${NO:-}", ""),
            ("${EMPTY:-d}", "d"),
            ("${EMPTY}", ""),
            ("${A:-d}", "1"),
            ("$${A}", "${A}"),
            ("$A $", "$A $"),
            ("${NESTED}", "${A}"),
        ] {
            assert_eq!(expand(template, &set).map(|text| text.text), Ok(text.to_owned()), "{template}");
        }
        for template in ["${A", "${}", "${A B}", "${A:d}", "${NO}"] {
            assert!(expand(template, &set).is_err(), "{template}");
        }
    }

    #[test]
    fn only_two_underscores_make_an_override() {
        let none = variables(&[("LARDER_KEY", "s"), ("HOME", "/"), ("OTHER_STACKS__A__B", "1")]);
        assert!(overrides(&none).is_ok_and(|found| found.is_empty()));
        for (name, message) in [
            ("LARDER_STACKS_USERS_TTL", "parts of a path are separated by two underscores"),
            ("LARDER_STACKS____TTL", "a part of the path is empty"),
            ("LARDER_STACKS__USERS", "a stack's option has to follow its name"),
            (
                "LARDER_STACK__USERS__TTL",
                "unknown setting \"stack\", did you mean \"stacks\"? (known: defaults, stacks)",
            ),
        ] {
            let error = overrides(&variables(&[(name, "1")])).unwrap_err();
            assert_eq!(error.message(), format!("{name}: {message}"));
        }
    }
}
