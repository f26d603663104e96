//! What a run of the suite came to: an outcome for each test, as the suite itself judges it, and sums of them.

use std::collections::BTreeMap;

/// What the suite says a test is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Required,
    Optimal,
    /// Neither answer is wrong.
    Check,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Required, Self::Optimal, Self::Check];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Optimal => "optimal",
            Self::Check => "check",
        }
    }

    pub(crate) fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// One test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Test {
    pub(crate) suite: String,
    pub(crate) id: String,
    pub(crate) kind: Kind,
    /// The suite's word: `pass`, `fail`, `optional_fail`, `yes`, `no`, `setup_fail`, `dependency_fail`, `retry`,
    /// `harness_fail`.
    pub(crate) outcome: String,
    /// The suite's message; empty if there is none.
    pub(crate) why: String,
}

impl Test {
    pub(crate) fn is_passed(&self) -> bool {
        matches!(self.outcome.as_str(), "pass" | "yes")
    }

    /// Whether the suite could judge it at all.
    pub(crate) fn is_decided(&self) -> bool {
        self.is_passed() || matches!(self.outcome.as_str(), "fail" | "optional_fail" | "no")
    }
}

/// All tests of a run, in the order of the suite.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Score {
    pub(crate) tests: Vec<Test>,
}

/// How many tests of one kind did what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    /// What the suite could not judge, since what has to hold before did not.
    pub(crate) undecided: usize,
}

impl Sum {
    pub(crate) fn all(self) -> usize {
        self.passed + self.failed + self.undecided
    }
}

impl Score {
    /// Reads the lines that our script prints. What is no such line is left out.
    pub(crate) fn read<'a>(lines: impl Iterator<Item = &'a str>) -> Self {
        let tests = lines.filter_map(|line| {
            let mut parts = line.splitn(5, '\t').map(str::to_owned);
            let (suite, id) = (parts.next()?, parts.next()?);
            let kind = Kind::of_name(&parts.next()?)?;
            Some(Test { suite, id, kind, outcome: parts.next()?, why: parts.next().unwrap_or_default() })
        });
        Self { tests: tests.collect() }
    }

    pub(crate) fn sum(&self, kind: Kind, suite: Option<&str>) -> Sum {
        let mut sum = Sum::default();
        let is_in = |test: &&Test| test.kind == kind && suite.is_none_or(|suite| suite == test.suite);
        for test in self.tests.iter().filter(is_in) {
            match (test.is_passed(), test.is_decided()) {
                (true, _) => sum.passed += 1,
                (false, true) => sum.failed += 1,
                (false, false) => sum.undecided += 1,
            }
        }
        sum
    }

    /// The suites, in their order.
    pub(crate) fn suites(&self) -> Vec<&str> {
        let mut suites: Vec<&str> = Vec::new();
        for test in &self.tests {
            if !suites.contains(&test.suite.as_str()) {
                suites.push(&test.suite);
            }
        }
        suites
    }

    /// Whether a test was run, and passed.
    pub(crate) fn passes(&self, id: &str) -> bool {
        self.tests.iter().any(|test| test.id == id && test.is_passed())
    }

    /// What became of a test, for people.
    pub(crate) fn why(&self, id: &str) -> String {
        match self.tests.iter().find(|test| test.id == id) {
            None => ": it was not run".to_owned(),
            Some(test) if test.why.is_empty() => format!(": {}", test.outcome),
            Some(test) => format!(": {}: {}", test.outcome, test.why),
        }
    }

    /// Of two runs of the same tests, what passed in both; where one did not, its outcome.
    pub(crate) fn and(mut self, other: &Self) -> Self {
        let others: BTreeMap<&str, &Test> = other.tests.iter().map(|test| (test.id.as_str(), test)).collect();
        for test in &mut self.tests {
            match others.get(test.id.as_str()) {
                Some(other) if test.is_passed() && !other.is_passed() => {
                    *test = (*other).clone();
                    test.why.push_str(" (not in each run)");
                }
                Some(other) if !test.is_passed() && other.is_passed() => {
                    test.why.push_str(" (not in each run)");
                }
                _ => {}
            }
        }
        self
    }

    /// With the outcomes of a second run for these tests, and for no others.
    pub(crate) fn or(mut self, second: &Self, ids: &[String]) -> Self {
        for test in self.tests.iter_mut().filter(|test| ids.contains(&test.id)) {
            if let Some(again) = second.tests.iter().find(|again| again.id == test.id) {
                *test = again.clone();
            }
        }
        self
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn score(lines: &str) -> Score {
        Score::read(lines.lines().map(str::trim_start))
    }

    const LINES: &str = "age\ta1\trequired\tpass\t
        age\ta2\trequired\tfail\tAssertion: Response 2 comes from cache
        age\ta3\trequired\tdependency_fail\t
        age\ta4\toptimal\toptional_fail\tAssertion: x
        vary\tv1\tcheck\tyes\t
        vary\tv2\tcheck\tno\t
        vary\tv3\toptimal\tsetup_fail\tSetup: y
        noise";

    #[test]
    fn only_what_passed_counts_as_passed() {
        let score = score(LINES);
        assert_eq!(score.tests.len(), 7);
        assert_eq!(score.sum(Kind::Required, None), Sum { passed: 1, failed: 1, undecided: 1 });
        assert_eq!(score.sum(Kind::Optimal, None), Sum { passed: 0, failed: 1, undecided: 1 });
        assert_eq!(score.sum(Kind::Optimal, Some("vary")), Sum { passed: 0, failed: 0, undecided: 1 });
        assert_eq!(score.sum(Kind::Check, None), Sum { passed: 1, failed: 1, undecided: 0 });
        assert_eq!(score.suites(), ["age", "vary"]);
        assert_eq!(score.why("a2"), ": fail: Assertion: Response 2 comes from cache");
    }

    #[test]
    fn of_several_runs_only_what_passes_in_all_passes() {
        let one = score("s\ta\trequired\tpass\t\ns\tb\trequired\tfail\tx\ns\tc\trequired\tpass\t");
        let two = score("s\ta\trequired\tpass\t\ns\tb\trequired\tpass\t\ns\tc\trequired\tretry\ty");
        let both = one.and(&two);
        assert_eq!([both.passes("a"), both.passes("b"), both.passes("c")], [true, false, false]);
        assert_eq!(both.why("c"), ": retry: y (not in each run)");
    }

    #[test]
    fn a_second_try_speaks_for_the_tests_that_it_was_for() {
        let first = score("s\ta\trequired\tfail\t\ns\tb\trequired\tpass\t");
        let second = score("s\ta\trequired\tpass\t\ns\tb\trequired\tfail\t");
        let score = first.or(&second, &["a".to_owned()]);
        assert!(score.passes("a") && score.passes("b"));
    }
}
