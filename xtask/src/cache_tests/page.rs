//! The page that shows the scores beside those of others: the rows of what is ours are written, each known by a mark.

use std::fs;
use std::io;
use std::path::Path;

use super::score::{Kind, Score};

const PAGE: &str = "docs/http-conformance.md";

/// Writes a score into the row that has this mark. Whether there is one.
///
/// # Errors
/// The page cannot be read or written.
pub(crate) fn write(root: &Path, mark: &str, score: &Score) -> io::Result<bool> {
    let path = root.join(PAGE);
    let text = fs::read_to_string(&path)?;
    match with_row(&text, mark, score) {
        Some(text) => fs::write(path, text).map(|()| true),
        None => Ok(false),
    }
}

fn with_row(text: &str, mark: &str, score: &Score) -> Option<String> {
    let mark = format!(" <!-- {mark} --> |");
    let old = text.lines().find(|line| line.starts_with('|') && line.contains(&mark))?;
    let (name, _) = old.split_once(&mark)?;
    let cells: String = Kind::ALL
        .map(|kind| {
            let sum = score.sum(kind, None);
            format!(" {} | {} | {} |", sum.passed, sum.failed, sum.undecided)
        })
        .concat();
    Some(text.replacen(old, &format!("{name}{mark}{cells}"), 1))
}

#[cfg(test)]
mod tests {
    use super::super::score::tests::score;
    use super::*;

    #[test]
    fn a_row_is_replaced_where_its_mark_is_and_nowhere_else() {
        let page =
            "| **Larder** <!-- a --> | not yet |\n| **Larder** <!-- b --> | not yet |\n| nginx | 1 |\n";
        let score = score("s\tx\trequired\tpass\t\ns\ty\toptimal\toptional_fail\t\ns\tz\tcheck\tretry\t");
        let expected = "| **Larder** <!-- a --> | not yet |\n\
                        | **Larder** <!-- b --> | 1 | 0 | 0 | 0 | 1 | 0 | 0 | 0 | 1 |\n| nginx | 1 |\n";
        assert_eq!(with_row(page, "b", &score).as_deref(), Some(expected));
        assert_eq!(with_row(page, "c", &score), None);
    }
}
