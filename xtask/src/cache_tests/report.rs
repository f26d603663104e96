//! A score as text: sums, a table of the suites, and what did not pass.

use super::score::{Kind, Score, Sum};

/// # Shape
/// Lines for a terminal, which are also a table in Markdown.
pub(crate) fn text(score: &Score, lists_optimal: bool) -> String {
    let mut text = String::from("| suite | required | optimal | check: yes |\n| --- | --: | --: | --: |\n");
    for suite in score.suites() {
        text += &row(suite, Kind::ALL.map(|kind| score.sum(kind, Some(suite))));
    }
    let sums = Kind::ALL.map(|kind| score.sum(kind, None));
    text += &row("all", sums);
    for (kind, sum) in Kind::ALL.into_iter().zip(sums) {
        let (passed, failed) = if kind == Kind::Check { ("yes", "no") } else { ("passed", "failed") };
        let (name, all) = (kind.name(), sum.all());
        text += &format!(
            "{name}: {} {passed}, {} {failed}, {} undecided, of {all}\n",
            sum.passed, sum.failed, sum.undecided
        );
    }
    let mut kinds = vec![Kind::Required];
    if lists_optimal {
        kinds.push(Kind::Optimal);
    }
    for kind in kinds {
        for test in score.tests.iter().filter(|test| test.kind == kind && !test.is_passed()) {
            let (name, suite) = (kind.name(), &test.suite);
            text += &format!("{name} {suite}/{}{}\n", test.id, score.why(&test.id));
        }
    }
    text
}

fn row(name: &str, sums: [Sum; 3]) -> String {
    let cells = sums.map(|sum| match sum.all() {
        0 => String::new(),
        all => format!("{}/{all}", sum.passed),
    });
    format!("| {name} | {} |\n", cells.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::super::score::tests::score;
    use super::*;

    #[test]
    fn a_report_counts_by_suite_and_names_what_failed_with_why() {
        let score = score(
            "age\ta1\trequired\tpass\t\nage\ta2\trequired\tfail\tAssertion: no\nvary\tv\toptimal\toptional_fail\tx",
        );
        let report = text(&score, false);
        assert!(
            report.contains("| age | 1/2 |  |  |\n| vary |  | 0/1 |  |\n| all | 1/2 | 0/1 |  |\n"),
            "{report}"
        );
        assert!(report.contains("required: 1 passed, 1 failed, 0 undecided, of 2\n"), "{report}");
        assert!(report.ends_with("required age/a2: fail: Assertion: no\n"), "{report}");
        assert!(text(&score, true).ends_with("optimal vary/v: optional_fail: x\n"));
    }
}
