//! The names of tables: which there may be, and how they are written in a statement.
//!
//! A name becomes part of every statement, and nothing that needs escaping is worth the risk.

use crate::error::{Error, ErrorKind, Result};

/// What a name may have: the shortest limit is 63 bytes, and the index's name is eleven longer than the table's.
const NAME_BYTES_MAX: usize = 52;

/// The name of a table, and of the schema that it is in if it names one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableName {
    schema: Option<String>,
    name: String,
}

impl TableName {
    /// # Errors
    /// [`ErrorKind::Config`] for a name that is not `NAME` or `SCHEMA.NAME`, each `[A-Za-z_][A-Za-z0-9_]{0,51}`.
    pub(crate) fn new(text: &str) -> Result<Self> {
        let (schema, name) = match text.split_once('.') {
            Some((schema, name)) => (Some(schema), name),
            None => (None, text),
        };
        if !is_plain(name) || !schema.is_none_or(is_plain) {
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "{text:?} cannot name a table: a letter or underscore, then up to {} letters, digits and \
                     underscores; a schema may stand before it, with a dot between",
                    NAME_BYTES_MAX - 1
                ),
            ));
        }
        Ok(Self { schema: schema.map(str::to_owned), name: name.to_owned() })
    }

    /// As it stands in a statement, between these quotes.
    pub(crate) fn quoted(&self, quote: char) -> String {
        let name = &self.name;
        match &self.schema {
            Some(schema) => format!("{quote}{schema}{quote}.{quote}{name}{quote}"),
            None => format!("{quote}{name}{quote}"),
        }
    }

    /// The name of the index by which what has expired is found.
    pub(crate) fn index(&self, quote: char) -> String {
        format!("{quote}{}_expires_at{quote}", self.name)
    }
}

fn is_plain(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(letter)
        && name.len() <= NAME_BYTES_MAX
        && name.chars().all(|c| letter(c) || c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_may_stand_in_a_schema() {
        assert_eq!(TableName::new("cache").unwrap().quoted('"'), "\"cache\"");
        let named = TableName::new("app.Cache_2").unwrap();
        assert_eq!(
            (named.quoted('`').as_str(), named.index('`').as_str()),
            ("`app`.`Cache_2`", "`Cache_2_expires_at`")
        );
    }

    #[test]
    fn nothing_but_a_name_gets_into_a_statement() {
        for text in [
            "",
            ".",
            "a.",
            ".a",
            "a.b.c",
            "1a",
            "a b",
            "a\"b",
            "a`b",
            "a;b",
            "a'b",
            "a-b",
            "a\0",
            "é",
            &"a".repeat(53),
        ] {
            assert_eq!(TableName::new(text).unwrap_err().kind(), ErrorKind::Config, "{text:?}");
        }
    }
}
