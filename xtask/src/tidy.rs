//! `cargo xtask tidy`: every rule over every file. Also a test, so that whoever runs the tests runs it.

use std::fs;
use std::io;
use std::path::Path;

use crate::floor_plan;
use crate::rules;
use crate::tree::Tree;

const MAP: &str = "ARCHITECTURE.md";
const BEGIN: &str = "<!-- rooms: written by `cargo xtask tidy --write` -->";
const END: &str = "<!-- end of rooms -->";

type Rule = fn(&Tree) -> Vec<String>;

const RULES: &[Rule] = &[
    floor_plan::rooms,
    floor_plan::http_rooms,
    floor_plan::crates,
    map,
    rules::opening_lines,
    rules::lengths,
    rules::leftovers,
    rules::driver_calls,
    rules::links,
    rules::cases,
    rules::features,
    rules::decisions,
    rules::dependency_reasons,
    rules::drivers,
    rules::test_command,
];

/// What is wrong with the workspace at `root`, a line each.
///
/// # Errors
/// A file cannot be read.
pub(crate) fn check(root: &Path) -> io::Result<Vec<String>> {
    let tree = Tree::read(root)?;
    Ok(RULES.iter().flat_map(|rule| rule(&tree)).collect())
}

/// Brings the table of rooms in ARCHITECTURE.md up to date. True if it was not.
///
/// # Errors
/// The file cannot be read or written, or has no place for the table.
pub(crate) fn write(root: &Path) -> io::Result<bool> {
    let tree = Tree::read(root)?;
    let text = tree.text(MAP);
    let updated = with_table(text, &floor_plan::table(&tree))
        .ok_or_else(|| io::Error::other(format!("{MAP} has no lines {BEGIN:?} and {END:?}")))?;
    if updated == text {
        return Ok(false);
    }
    fs::write(root.join(MAP), updated).map(|()| true)
}

/// ARCHITECTURE.md shows the floor plan as it is.
fn map(tree: &Tree) -> Vec<String> {
    let text = tree.text(MAP);
    if with_table(text, &floor_plan::table(tree)).as_deref() == Some(text) {
        return Vec::new();
    }
    vec![format!("{MAP}: does not show the floor plan as it is; run `cargo xtask tidy --write`")]
}

/// The page with this table between its marks; `None` if it lacks them.
fn with_table(text: &str, table: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{table}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_tidy() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let complaints = check(&root).unwrap();
        assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
    }

    #[test]
    fn a_map_that_shows_another_plan_is_complained_about() {
        assert_eq!(map(&Tree::of(&[(MAP, "# Map\n")])).len(), 1);
        let stale = format!("# Map\n{BEGIN}\n| `x` |\n{END}\nmore\n");
        assert_eq!(map(&Tree::of(&[(MAP, &stale)])).len(), 1);
        let fresh = with_table(&stale, &floor_plan::table(&Tree::default())).unwrap();
        assert!(fresh.starts_with("# Map\n") && fresh.ends_with("\nmore\n"), "{fresh}");
        assert_eq!(map(&Tree::of(&[(MAP, &fresh)])), Vec::<String>::new());
    }
}
