//! The floor: which tests passed, in a file of the repository, a line each. It may only rise.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use super::score::{Kind, Score};

const HEAD: &str = "# The tests of http-cache-tests that pass: written by `cargo xtask cache-tests --write`, which only adds.\n";

/// Tests that passed, by id. Those where neither answer is wrong are not among them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Floor {
    passed: BTreeMap<String, Kind>,
}

impl Floor {
    /// The floor in a file; one that is missing holds nothing.
    ///
    /// # Errors
    /// It cannot be read, or is no floor.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text?,
        };
        let place = path.display();
        Self::parse(&text)
            .map_err(|line| io::Error::other(format!("reading the floor {place} failed: {line:?}")))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut passed = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let parts = line.split_once(' ').and_then(|(kind, id)| Some((Kind::of_name(kind)?, id)));
            let (kind, id) = parts.ok_or_else(|| line.to_owned())?;
            passed.insert(id.to_owned(), kind);
        }
        Ok(Self { passed })
    }

    /// What passed in a run.
    pub(crate) fn of(score: &Score) -> Self {
        let passed = score.tests.iter().filter(|test| test.is_passed() && test.kind != Kind::Check);
        Self { passed: passed.map(|test| (test.id.clone(), test.kind)).collect() }
    }

    pub(crate) fn text(&self) -> String {
        let count = |kind| self.passed.values().filter(|other| **other == kind).count();
        let (required, optimal) = (count(Kind::Required), count(Kind::Optimal));
        let mut lines: Vec<(Kind, &str)> =
            self.passed.iter().map(|(id, kind)| (*kind, id.as_str())).collect();
        lines.sort_unstable();
        let lines: String = lines.iter().map(|(kind, id)| format!("{} {id}\n", kind.name())).collect();
        format!("{HEAD}# {required} required, {optimal} optimal.\n{lines}")
    }

    pub(crate) fn len(&self) -> usize {
        self.passed.len()
    }

    /// What passed, and does not in this run.
    pub(crate) fn lost(&self, score: &Score) -> Vec<String> {
        self.passed.keys().filter(|id| !score.passes(id)).cloned().collect()
    }

    /// What passes in this run, and did not.
    pub(crate) fn won(&self, score: &Score) -> Vec<String> {
        Self::of(score).passed.into_keys().filter(|id| !self.passed.contains_key(id)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::score::tests::score;
    use super::*;

    const LINES: &str =
        "s\ta\trequired\tpass\t\ns\tb\toptimal\tpass\t\ns\tc\tcheck\tyes\t\ns\td\trequired\tfail\t";

    #[test]
    fn a_floor_reads_back_as_it_was_written_and_leaves_checks_out() {
        let floor = Floor::of(&score(LINES));
        let text = floor.text();
        assert!(text.ends_with("# 1 required, 1 optimal.\nrequired a\noptimal b\n"), "{text}");
        assert_eq!(Floor::parse(&text), Ok(floor));
    }

    #[test]
    fn a_test_that_passed_and_fails_is_lost_and_so_is_one_that_is_gone() {
        let floor = Floor::of(&score(LINES));
        assert_eq!(floor.lost(&score(LINES)), Vec::<String>::new());
        let now = score("s\ta\trequired\tdependency_fail\t\ns\td\trequired\tpass\t");
        assert_eq!(floor.lost(&now), ["a", "b"]);
        assert_eq!(floor.won(&now), ["d"]);
    }

    #[test]
    fn what_is_no_floor_is_refused() {
        assert_eq!(Floor::parse("required\n"), Err("required".to_owned()));
        assert_eq!(Floor::parse("check c\nnothing c\n"), Err("nothing c".to_owned()));
    }

    #[test]
    fn a_floor_that_is_not_there_yet_holds_nothing() {
        let floor = Floor::read(Path::new("/nowhere/at/all.floor")).unwrap();
        assert_eq!((floor.len(), floor.won(&score(LINES)).len()), (0, 2));
    }
}
