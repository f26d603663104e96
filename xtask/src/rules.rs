//! The rules of the house that are not about rooms: one function each, from the files to what is wrong.

use crate::floor_plan::dependencies;
use crate::source;
use crate::tree::Tree;

/// The longest file, in lines.
const LINES_MAX: usize = 600;

/// What no file may contain outside literals and comments.
const BANNED: &[(&str, &str)] = &[
    ("todo!", "is unfinished"),
    ("unimplemented!", "is unfinished"),
    ("dbg!", "was left behind"),
    ("#[ignore", "is a test that nobody runs"),
];

/// Where the engine calls a driver outside `stack/l2.rs`, and why it may.
const DRIVER_CALLS: &[(&str, &str, &str)] = &[("mod.rs", "name", "asks nothing of the store")];

/// Parts of drivers that are no drivers themselves.
const NOT_DRIVERS: &[&str] = &["mod", "body", "range", "sql", "url"];

const DECISIONS: &str = "docs/decisions/";
const DEPENDENCIES: &str = "docs/decisions/0002-dependencies.md";

/// Each file says at its top what it is for.
pub(crate) fn opening_lines(tree: &Tree) -> Vec<String> {
    let silent = tree.files("", ".rs").filter(|(_, text)| !text.starts_with("//! "));
    silent.map(|(path, _)| format!("{path}:1: begins without `//!`: say what the file is for")).collect()
}

/// No file is too long to be read in one go.
pub(crate) fn lengths(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, text) in tree.files("", ".rs") {
        let lines = text.lines().count();
        if lines > LINES_MAX {
            complaints.push(format!("{path}: has {lines} lines, and may have {LINES_MAX}; split it"));
        }
    }
    complaints
}

/// Nothing is left unfinished, left behind or left out.
pub(crate) fn leftovers(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, text) in tree.files("", ".rs") {
        let code = source::code(text);
        for (banned, why) in BANNED {
            for line in source::lines_with(&code, banned) {
                complaints
                    .push(format!("{path}:{line}: {banned} {why}", banned = banned.trim_end_matches("!")));
            }
        }
    }
    complaints
}

/// In the engine, only `l2` calls a driver, apart from a list.
pub(crate) fn driver_calls(tree: &Tree) -> Vec<String> {
    const STACK: &str = "crates/larder/src/stack/";
    let mut complaints = Vec::new();
    for (path, text) in tree.files(STACK, ".rs") {
        let file = path.strip_prefix(STACK).unwrap_or(path);
        if file == "l2.rs" {
            continue;
        }
        let code: String = source::without_tests(&source::code(text)).split_whitespace().collect();
        for (at, found) in code.match_indices("l2.driver.") {
            let after = code.get(at + found.len()..).unwrap_or("");
            let method = after.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("");
            if !DRIVER_CALLS.iter().any(|(in_file, call, _)| *in_file == file && *call == method) {
                complaints
                    .push(format!("{path}: calls the driver's {method}; only stack/l2.rs calls a driver"));
            }
        }
    }
    complaints
}

/// Links between documents lead somewhere.
pub(crate) fn links(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, text) in tree.files("", ".md") {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (line, target) in link_targets(text) {
            let is_outside = ["http://", "https://", "mailto:"].iter().any(|start| target.starts_with(start));
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            if is_outside {
                continue;
            }
            let to = if file.is_empty() { path.to_owned() } else { resolve(folder, file) };
            if !tree.has(&to) {
                complaints.push(format!("{path}:{line}: the link to {target} leads nowhere"));
            } else if !anchor.is_empty()
                && to.ends_with(".md")
                && !anchors(tree.text(&to)).any(|a| a == anchor)
            {
                complaints.push(format!("{path}:{line}: {to} has no heading for #{anchor}"));
            }
        }
    }
    complaints
}

/// The tests that the tables of others' cases and of attacks name are there.
pub(crate) fn cases(tree: &Tree) -> Vec<String> {
    const PAGES: [&str; 2] = ["docs/cases.md", "docs/security-http.md"];
    let sources: Vec<&str> = tree.files("", ".rs").map(|(_, text)| text).collect();
    let is_test = |name: &str| {
        let declared = format!("fn {name}(");
        sources.iter().any(|text| text.contains(&declared))
    };
    let mut complaints = Vec::new();
    for page in PAGES.into_iter().filter(|page| tree.has(page)) {
        for (line, text) in prose(tree.text(page)) {
            // Every second part is between backticks. A name of four words or more is a claim, and so a test.
            for name in text.split('`').skip(1).step_by(2) {
                let is_claim = name.matches('_').count() >= 3 && !name.contains([':', ' ']);
                if is_claim && !is_test(name) {
                    complaints.push(format!("{page}:{line}: there is no test {name}"));
                }
            }
        }
    }
    complaints
}

/// The lines of a document outside code blocks, numbered from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_code = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        (!is_code && !is_fence).then_some((index + 1, line))
    })
}

fn link_targets(text: &str) -> impl Iterator<Item = (usize, &str)> {
    prose(text).flat_map(|(number, line)| {
        let after = line.split("](").skip(1);
        after.filter_map(move |rest| rest.split_once(')').map(|(target, _)| (number, target)))
    })
}

/// A path seen from a folder, without `.` and `..`.
fn resolve(folder: &str, path: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    parts.join("/")
}

/// The anchors that a page has for its headings, as renderers make them.
fn anchors(text: &str) -> impl Iterator<Item = String> {
    prose(text).filter(|(_, line)| line.starts_with('#')).map(|(_, line)| {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    })
}

/// Each feature has its reason above it.
pub(crate) fn features(tree: &Tree) -> Vec<String> {
    let path = "crates/larder/Cargo.toml";
    let mut complaints = Vec::new();
    let mut is_features = false;
    let mut before = "";
    for (index, line) in tree.text(path).lines().enumerate() {
        if line.starts_with('[') {
            is_features = line == "[features]";
        } else if let (true, Some((name, _))) = (is_features, line.split_once('=')) {
            let name = name.trim();
            if name != "default" && !before.starts_with('#') {
                complaints.push(format!(
                    "{path}:{}: feature {name} has no comment above it that says why",
                    index + 1
                ));
            }
        }
        before = line;
    }
    complaints
}

/// Decisions are numbered without gaps, and listed.
pub(crate) fn decisions(tree: &Tree) -> Vec<String> {
    let list = tree.text("docs/decisions/README.md");
    let mut complaints = Vec::new();
    let names = tree.files(DECISIONS, ".md").filter_map(|(path, _)| path.strip_prefix(DECISIONS));
    for (index, name) in names.filter(|name| *name != "README.md").enumerate() {
        let expected = format!("{:04}-", index + 1);
        if !name.starts_with(&expected) {
            complaints
                .push(format!("{DECISIONS}{name}: the next number is {}", expected.trim_end_matches('-')));
        }
        if !list.contains(&format!("]({name})")) {
            complaints.push(format!("{DECISIONS}README.md: does not list {name}"));
        }
    }
    complaints
}

/// Each dependency has its reason.
pub(crate) fn dependency_reasons(tree: &Tree) -> Vec<String> {
    let reasons = tree.text(DEPENDENCIES);
    let mut names: Vec<&str> =
        tree.files("", "Cargo.toml").flat_map(|(_, text)| dependencies(text)).collect();
    names.sort_unstable();
    names.dedup();
    let silent =
        names.into_iter().filter(|name| *name != "larder" && !reasons.contains(&format!("`{name}`")));
    silent.map(|name| format!("{DEPENDENCIES}: does not say why `{name}` is here")).collect()
}

/// Each driver is in the tables of drivers, and passes the suite.
pub(crate) fn drivers(tree: &Tree) -> Vec<String> {
    const FOLDER: &str = "crates/larder/src/driver/";
    let inner = tree.files(FOLDER, ".rs").filter_map(|(path, _)| path.strip_prefix(FOLDER));
    let rooms = inner.filter_map(|path| match path.split_once('/') {
        Some((folder, "mod.rs")) => Some(folder),
        Some(_) => None,
        None => path.strip_suffix(".rs"),
    });
    let mut complaints = Vec::new();
    for driver in rooms.filter(|room| !NOT_DRIVERS.contains(room)) {
        for page in ["README.md", "ARCHITECTURE.md"] {
            let row = format!("| `{driver}`");
            if !tree.text(page).lines().any(|line| line.starts_with(&row)) {
                complaints.push(format!("{page}: the table of drivers has no row for `{driver}`"));
            }
        }
        let names = format!("{driver}::");
        let mut suites =
            tree.files("crates/larder/tests/", ".rs").filter(|(_, text)| text.contains("driver_suite!"));
        if !suites.any(|(_, text)| text.contains(&names)) {
            complaints.push(format!("{FOLDER}{driver}: no file in tests/ runs driver_suite! over it"));
        }
    }
    complaints
}

/// The pages and `.ci/run` agree on how to test.
pub(crate) fn test_command(tree: &Tree) -> Vec<String> {
    let run = tree.text(".ci/run").lines().filter_map(|line| line.strip_prefix("exec "));
    let commands: Vec<&str> = run.collect();
    let [command] = commands.as_slice() else {
        return vec![".ci/run: runs the README's test command, by `exec`, and nothing else".to_owned()];
    };
    let pages = ["README.md", "CONTRIBUTING.md"].into_iter();
    let silent = pages.filter(|page| !tree.text(page).lines().any(|line| line.trim() == *command));
    silent.map(|page| format!("{page}: does not show `{command}`, which is what .ci/run runs")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_does_not_say_what_it_is_for_is_complained_about() {
        let tree = Tree::of(&[("a.rs", "fn f() {}"), ("b.rs", "//! What for.")]);
        assert_eq!(opening_lines(&tree), ["a.rs:1: begins without `//!`: say what the file is for"]);
    }

    #[test]
    fn a_long_file_is_complained_about() {
        let (short, long) = ("x\n".repeat(600), "x\n".repeat(601));
        let found = lengths(&Tree::of(&[("a.rs", &short), ("b.rs", &long)]));
        assert_eq!(found, ["b.rs: has 601 lines, and may have 600; split it"]);
    }

    #[test]
    fn what_was_left_unfinished_is_found_in_code_and_not_in_text() {
        let source = "//! todo!()\nfn f() { todo!() }\n#[ignore]\nfn g() { my_dbg!(\"dbg!\") }";
        let found = leftovers(&Tree::of(&[("a.rs", source)]));
        assert_eq!(found, ["a.rs:2: todo is unfinished", "a.rs:3: #[ignore is a test that nobody runs"]);
    }

    #[test]
    fn a_call_of_a_driver_past_l2_is_complained_about() {
        let source = "//! x\nfn f() { l2\n.driver\n.get(key).await; l2.driver.scan(prefix); }";
        let tree = Tree::of(&[
            ("crates/larder/src/stack/read.rs", source),
            ("crates/larder/src/stack/l2.rs", source),
            ("crates/larder/src/stack/mod.rs", "//! x\nfn f() { l2.driver.name() }"),
        ]);
        let found = driver_calls(&tree);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("read.rs: calls the driver's get"), "{found:?}");
    }

    #[test]
    fn a_case_without_its_test_is_complained_about() {
        let page = "`a_claim_that_holds`, `a_claim_that_is_missing`, `get_or_set`, `codec::Codec`";
        let tree = Tree::of(&[("docs/cases.md", page), ("a.rs", "//! x\nfn a_claim_that_holds() {}")]);
        assert_eq!(cases(&tree), ["docs/cases.md:1: there is no test a_claim_that_is_missing"]);
    }

    #[test]
    fn links_that_lead_nowhere_are_found_outside_of_code() {
        let page =
            "# Top\n[a](docs/b.md) [b](docs/c.md) [c](https://x.y) [d](#top) [e](#no)\n```\n[f](g)\n```\n";
        let tree = Tree::of(&[("README.md", page), ("docs/b.md", "[up](../README.md#top) [no](../b.md)")]);
        let expected = [
            "README.md:2: the link to docs/c.md leads nowhere",
            "README.md:2: README.md has no heading for #no",
            "docs/b.md:1: the link to ../b.md leads nowhere",
        ];
        assert_eq!(links(&tree), expected);
    }

    #[test]
    fn a_feature_without_a_reason_is_complained_about() {
        let manifest = "[features]\ndefault = []\n# Why.\na = []\nb = []\n[dependencies]\nc = \"1\"\n";
        let found = features(&Tree::of(&[("crates/larder/Cargo.toml", manifest)]));
        assert_eq!(found, ["crates/larder/Cargo.toml:5: feature b has no comment above it that says why"]);
    }

    #[test]
    fn a_gap_in_the_decisions_and_one_that_is_not_listed_are_complained_about() {
        let found = decisions(&Tree::of(&[
            ("docs/decisions/0001-a.md", ""),
            ("docs/decisions/0003-b.md", ""),
            ("docs/decisions/README.md", "[1](0001-a.md)"),
        ]));
        let expected = [
            "docs/decisions/0003-b.md: the next number is 0002",
            "docs/decisions/README.md: does not list 0003-b.md",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_dependency_without_a_reason_is_complained_about() {
        let manifest = "[dependencies]\nlarder.workspace = true\nbytes = \"1\"\nmoka = { version = \"1\", features = [\n    \"sync\",\n] }\n";
        let tree = Tree::of(&[("Cargo.toml", manifest), (DEPENDENCIES, "- `bytes`: because.")]);
        assert_eq!(dependency_reasons(&tree), [format!("{DEPENDENCIES}: does not say why `moka` is here")]);
    }

    #[test]
    fn a_driver_without_rows_and_without_the_suite_is_complained_about() {
        let mut files = vec![
            ("crates/larder/src/driver/mod.rs", ""),
            ("crates/larder/src/driver/body.rs", ""),
            ("crates/larder/src/driver/redis/mod.rs", ""),
            ("crates/larder/src/driver/redis/wire.rs", ""),
        ];
        assert_eq!(drivers(&Tree::of(&files)).len(), 3);
        let row = "| `redis` | …\n";
        files.extend([("README.md", row), ("ARCHITECTURE.md", row)]);
        files.push((
            "crates/larder/tests/drivers.rs",
            "use larder::driver::redis::R; larder::driver_suite!(x, f);",
        ));
        assert_eq!(drivers(&Tree::of(&files)), Vec::<String>::new());
    }

    #[test]
    fn a_test_command_that_the_pages_do_not_show_is_complained_about() {
        let run = (".ci/run", "#!/bin/sh\nexec cargo xtask ci\n");
        let pages = [("README.md", "    cargo xtask ci\n"), ("CONTRIBUTING.md", "cargo test\n")];
        let found = test_command(&Tree::of(&[run, pages[0], pages[1]]));
        assert_eq!(found, ["CONTRIBUTING.md: does not show `cargo xtask ci`, which is what .ci/run runs"]);
        assert_eq!(test_command(&Tree::of(&[(".ci/run", "cargo a\ncargo b\n")])).len(), 1);
    }
}
