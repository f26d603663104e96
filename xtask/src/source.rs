//! Just enough of Rust's grammar to see which rooms a file names: no comments, no literals, no test code.
//! Knows nothing of what a room may do.

/// The source with comments and literals blanked. Lines keep their numbers.
pub(crate) fn code(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    let mut before = ' ';
    while let Some(first) = rest.chars().next() {
        let length = literal(rest, before).unwrap_or(0);
        if length > 0 {
            let (blank, after) = rest.split_at(length);
            out.extend(blank.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = after;
            before = ' ';
        } else {
            out.push(first);
            rest = rest.get(first.len_utf8()..).unwrap_or("");
            before = first;
        }
    }
    out
}

/// The length of the comment or literal at the beginning of `rest`, if one begins there.
fn literal(rest: &str, before: char) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(block_comment(rest));
    }
    let is_in_word = before.is_alphanumeric() || before == '_';
    let prefix = ["br", "cr", "r"].into_iter().find(|prefix| !is_in_word && rest.starts_with(prefix));
    if let Some(prefix) = prefix {
        let hashes = rest.get(prefix.len()..)?.chars().take_while(|c| *c == '#').count();
        let open = prefix.len() + hashes;
        if rest.get(open..)?.starts_with('"') {
            let close = format!("\"{}", "#".repeat(hashes));
            let body = rest.get(open + 1..)?;
            return Some(open + 1 + body.find(&close).map_or(body.len(), |at| at + close.len()));
        }
    }
    if rest.starts_with('"') {
        return Some(quoted(rest, '"'));
    }
    // A lifetime has no closing quote right after its first letter.
    let mut chars = rest.strip_prefix('\'')?.chars();
    let is_char = match (chars.next(), chars.next()) {
        (Some('\\'), _) => true,
        (Some(_), second) => second == Some('\''),
        (None, _) => false,
    };
    is_char.then(|| quoted(rest, '\''))
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(here) = rest.get(at..).filter(|here| !here.is_empty()) {
        if here.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += here.chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// The length of a literal that ends at the next quote that no backslash escapes.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        if c == quote && !escaped {
            return at + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    rest.len()
}

/// Code without its test items: what follows `#[cfg(test)]` is blanked. Lines keep their numbers.
pub(crate) fn without_tests(code: &str) -> String {
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = ["#[cfg(test)]", "#[cfg(all(test"].iter().filter_map(|mark| rest.find(mark)).min() {
        let (kept, item) = rest.split_at(at);
        out.push_str(kept);
        let (blank, after) = item.split_at(item_length(item));
        out.extend(blank.chars().filter(|c| *c == '\n'));
        rest = after;
    }
    out.push_str(rest);
    out
}

/// The length of an item with its attributes: to the end of its braces, or to its semicolon.
fn item_length(item: &str) -> usize {
    let (mut braces, mut others) = (0_usize, 0_usize);
    for (at, c) in item.char_indices() {
        match c {
            '(' | '[' => others += 1,
            ')' | ']' => others = others.saturating_sub(1),
            '{' => braces += 1,
            '}' if braces <= 1 => return at + 1,
            '}' => braces -= 1,
            ';' if braces == 0 && others == 0 => return at + 1,
            _ => {}
        }
    }
    item.len()
}

/// A name at the root of the crate that some code uses, and the line (from 1) where it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) line: usize,
}

/// What a module names at the root of its crate: `crate::x`, `crate::{x, y}`, and `super::` as far as it
/// leads there. `module` is the module's own path.
pub(crate) fn names(code: &str, module: &[&str]) -> Vec<Named> {
    let tokens = tokens(code);
    let at = |index: usize| tokens.get(index).map_or("", |(_, token)| *token);
    let mut found = Vec::new();
    // The inline modules around a token: how deep in braces each was opened.
    let mut inside: Vec<usize> = Vec::new();
    let mut depth = 0_usize;
    for (index, (_, token)) in tokens.iter().enumerate() {
        match *token {
            "{" => {
                depth += 1;
                if index >= 2 && at(index - 2) == "mod" {
                    inside.push(depth);
                }
            }
            "}" => {
                if inside.last() == Some(&depth) {
                    inside.pop();
                }
                depth = depth.saturating_sub(1);
            }
            "crate" if at(index + 1) == "::" => found.extend(heads(&tokens, index + 2)),
            "super" if at(index + 1) == "::" && (index < 2 || at(index - 2) != "super") => {
                let mut next = index;
                let mut up = 0;
                while at(next) == "super" && at(next + 1) == "::" {
                    up += 1;
                    next += 2;
                }
                if up == module.len() + inside.len() {
                    found.extend(heads(&tokens, next));
                }
            }
            _ => {}
        }
    }
    found
}

/// The first name of a path, or of each path in braces.
fn heads(tokens: &[(usize, &str)], start: usize) -> Vec<Named> {
    let name = |(line, token): &(usize, &str)| Named { name: (*token).to_owned(), line: *line };
    if tokens.get(start).is_none_or(|(_, token)| *token != "{") {
        return tokens.get(start).map(name).into_iter().collect();
    }
    let mut found = Vec::new();
    let mut depth = 0_usize;
    let mut is_head = false;
    for token in tokens.iter().skip(start) {
        match token.1 {
            "{" => {
                depth += 1;
                is_head = depth == 1;
            }
            "}" if depth == 1 => break,
            "}" => depth -= 1,
            "," => is_head = depth == 1,
            _ if is_head => {
                found.push(name(token));
                is_head = false;
            }
            _ => {}
        }
    }
    found
}

/// Words, `::` and single signs, each with its line from 1.
fn tokens(code: &str) -> Vec<(usize, &str)> {
    let mut tokens = Vec::new();
    for (index, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let length = if first.is_alphanumeric() || first == '_' {
                rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            let (token, after) = rest.split_at(length);
            tokens.push((index + 1, token));
            rest = after.trim_start();
        }
    }
    tokens
}

/// The line (from 1) of each use of a macro or of an attribute, as written without spaces.
pub(crate) fn lines_with(code: &str, what: &str) -> Vec<usize> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let lines = code.lines().enumerate();
    lines
        .filter(|(_, line)| {
            line.match_indices(what).any(|(at, _)| {
                let before = line.get(..at).and_then(|before| before.chars().next_back());
                !before.is_some_and(is_word)
            })
        })
        .map(|(index, _)| index + 1)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(source: &str, module: &[&str]) -> Vec<String> {
        let code = without_tests(&code(source));
        names(&code, module).into_iter().map(|named| named.name).collect()
    }

    #[test]
    fn names_are_seen_in_use_lines_in_groups_and_in_the_middle_of_code() {
        let source = "use crate::entry::{Entry, Meta};\nuse crate::{error::Result, time::{A, B}, tag};\n\
                      fn f() -> crate::key::Key { $crate::driver::x!() }";
        assert_eq!(found(source, &["stack"]), ["entry", "error", "time", "tag", "key", "driver"]);
    }

    #[test]
    fn super_counts_where_it_leads_to_the_root_and_not_where_it_stays_in_the_room() {
        assert_eq!(found("use super::shard::Shard;", &["memory", "engine"]), Vec::<String>::new());
        assert_eq!(found("use super::super::stack::Core;", &["memory", "engine"]), ["stack"]);
        assert_eq!(found("use super::stack::Core;", &["memory"]), ["stack"]);
        assert_eq!(found("mod inner { use super::Core; use super::super::tag; }", &["memory"]), ["tag"]);
    }

    #[test]
    fn comments_literals_and_lifetimes_name_nothing_and_hide_nothing() {
        let source = "// crate::a\n/* crate::b /* */ crate::c */\n/// [`crate::d`]\n\
                      const S: &str = \"crate::e \\\" crate::f\"; const R: &str = r#\"crate::g\"\"#;\n\
                      fn f<'a>(c: char) -> &'a str { if c == '\"' || c == '\\'' { crate::h::f() } }";
        assert_eq!(found(source, &["x"]), ["h"]);
    }

    #[test]
    fn test_code_is_left_out_and_what_follows_it_is_not() {
        let source = "#[cfg(test)]\n#[allow(dead_code)]\nmod tests { use crate::a; fn f() { crate::b::g(); } }\n\
                      #[cfg(test)]\nuse crate::c;\n#[cfg(any(test, feature = \"x\"))]\nuse crate::d;";
        assert_eq!(found(source, &["x"]), ["d"]);
    }

    #[test]
    fn lines_keep_their_numbers() {
        let source = "/* one\n two */\n#[cfg(test)]\nmod tests {\n}\nuse crate::a;";
        let code = without_tests(&code(source));
        assert_eq!(names(&code, &["x"]), [Named { name: "a".to_owned(), line: 6 }]);
    }
}
