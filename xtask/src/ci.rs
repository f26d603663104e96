//! `cargo xtask ci`: everything that has to hold before a change is merged, in one command that needs nothing
//! but cargo and a C compiler. What needs a tool that is not there is skipped, and said to be.
//!
//! Steps go on after a failure, so that one run shows all that is wrong.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use crate::cache_tests;
use crate::tidy;

/// Each feature of the library, built alone; the empty one is none.
const FEATURES: &[&str] = &[
    "",
    "json",
    "messagepack",
    "file",
    "sqlite",
    "redis",
    "memcached",
    "postgres",
    "mysql",
    "dynamodb",
    "compress",
    "encrypt",
    "config",
    "macros",
    "bloom",
    "metrics",
    "tracing",
    "testing",
];

/// Each service of `cargo xtask services`, and what the tests over it call it.
const SERVICES: &[(&str, &str)] = &[
    ("redis", "redis"),
    ("cluster", "redis-cluster"),
    ("memcached", "memcached"),
    ("postgres", "postgres"),
    ("mysql", "mysql"),
    ("dynamodb", "dynamodb"),
];

/// Whether `larder serve` is there to be tested from outside.
const HAS_SERVE: bool = true;

/// What happened so far.
#[derive(Debug, Default)]
struct Report {
    passed: usize,
    failed: Vec<String>,
    skipped: Vec<String>,
    tests: u64,
    doc_tests: u64,
}

/// Runs all steps, and prints one line at the end that says how they went.
pub(crate) fn run(root: &Path) -> ExitCode {
    let mut report = Report::default();
    let all = ["--workspace", "--all-features"];

    heading("tidy");
    match tidy::check(root) {
        Ok(complaints) if complaints.is_empty() => report.passed += 1,
        Ok(complaints) => {
            complaints.iter().for_each(|complaint| println!("{complaint}"));
            report.failed.push("tidy".to_owned());
        }
        Err(error) => report.failed.push(format!("tidy ({error})")),
    }
    if has("fmt") {
        report.step(root, "fmt", &["fmt", "--all", "--check"], &[]);
        let args = ["fmt", "--all", "--check", "--manifest-path", "races/Cargo.toml"];
        report.step(root, "fmt of the races", &args, &[]);
    } else {
        report.skip("fmt", "rustfmt is not installed: rustup component add rustfmt");
    }

    if has("nextest") {
        report.step(root, "tests", &[&["nextest", "run", "--no-tests", "fail"][..], &all].concat(), &[]);
    } else {
        println!("\ncargo-nextest is not installed: the tests run under cargo test, without a limit on time");
        let args = ["test", "--workspace", "--all-features", "--lib", "--bins", "--tests", "--no-fail-fast"];
        report.step(root, "tests", &args, &[]);
    }
    report.stores(root);
    report.serve(root);
    report.step(root, "doc tests", &[&["test", "--doc", "--no-fail-fast"][..], &all].concat(), &[]);
    let races = ["--manifest-path", "races/Cargo.toml", "--target-dir", "target"];
    report.step(root, "race tests", &[&["test", "--test", "race"][..], &races].concat(), &[]);
    report.step(root, "benches build", &["check", "--workspace", "--all-features", "--benches"], &[]);
    let has_clippy = has("clippy");
    if has_clippy {
        let args = ["clippy", "--workspace", "--all-features", "--all-targets", "--", "-D", "warnings"];
        report.step(root, "clippy", &args, &[]);
        let args = [&["clippy", "--workspace", "--tests"][..], &races, &["--", "-D", "warnings"]].concat();
        report.step(root, "clippy of the races", &args, &[]);
    } else {
        report.skip("clippy", "it is not installed: rustup component add clippy");
    }
    // The command's documentation is its help: its binary would overwrite the pages of the library.
    let packages = ["--package", "larder", "--package", "larder-http", "--package", "xtask"];
    let args = [&["doc", "--no-deps", "--all-features"][..], &packages].concat();
    report.step(root, "doc", &args, &[("RUSTDOCFLAGS", "-D warnings")]);
    for feature in FEATURES {
        let name = format!("feature {}", if feature.is_empty() { "none" } else { feature });
        let with = ["--package", "larder", "--lib", "--no-default-features", "--features", feature];
        let args = if has_clippy {
            [&["clippy"][..], &with, &["--", "-D", "warnings"]].concat()
        } else {
            [&["check"][..], &with].concat()
        };
        report.step(root, &name, &args, &[]);
    }
    let with = ["--package", "larder-http", "--lib", "--no-default-features"];
    let args = if has_clippy {
        [&["clippy"][..], &with, &["--", "-D", "warnings"]].concat()
    } else {
        [&["check"][..], &with].concat()
    };
    report.step(root, "larder-http without features", &args, &[]);
    if has("deny") {
        report.step(root, "deny", &["deny", "--all-features", "check", "bans", "licenses", "sources"], &[]);
    } else {
        report.skip("deny", "it is not installed: cargo install cargo-deny");
    }
    report.close()
}

impl Report {
    fn step(&mut self, root: &Path, name: &str, args: &[&str], variables: &[(&str, &str)]) {
        heading(&format!("{name}: cargo {}", args.join(" ")));
        let mut command = cargo(args);
        command.current_dir(root).envs(variables.iter().copied());
        let outcome = stream(&mut command);
        let is_doc = name == "doc tests";
        match outcome {
            Ok((ok, tests)) => {
                if is_doc {
                    self.doc_tests += tests;
                } else {
                    self.tests += tests;
                }
                if ok && !(name.ends_with("tests") && tests == 0) {
                    self.passed += 1;
                } else if ok {
                    self.failed.push(format!("{name} (none were run)"));
                } else {
                    self.failed.push(name.to_owned());
                }
            }
            Err(error) => self.failed.push(format!("{name} ({error})")),
        }
    }

    /// The tests over real servers: over those that can be had here, which then have to be there.
    fn stores(&mut self, root: &Path) {
        heading("servers");
        let mut there = Vec::new();
        for &(service, needs) in SERVICES {
            // Installs it if we may, and starts it once: what cannot be had is nothing that a change has broken.
            if can_start(root, service) {
                there.push((service, needs));
            } else {
                self.skip(
                    &format!("tests over {service}"),
                    "it cannot be installed or started here, see above",
                );
            }
        }
        if there.is_empty() {
            return;
        }
        let services: Vec<&str> = there.iter().map(|(service, _)| *service).collect();
        let required: Vec<&str> = there.iter().map(|(_, needs)| *needs).collect();
        // Tests that kill servers and move slots measure how long things take: they are for people.
        // Of the whole workspace, so that nothing is built anew with other features.
        let tests = ["test", "--workspace", "--all-features", "--test", "stores", "--"];
        let stable = ["--skip", "::faults::", "--skip", "::topology::", "--test-threads", "4"];
        let args = [&["xtask", "services", "run"][..], &services, &["--", "cargo"], &tests, &stable].concat();
        let variables = [("LARDER_TEST_REQUIRE", &*required.join(",")), ("LARDER_TEST_SLACK_MS", "3000")];
        self.step(root, "store tests", &args, &variables);
    }

    /// The HTTP cache from outside: the public suite of tests, and what only shows under load.
    fn serve(&mut self, root: &Path) {
        if !HAS_SERVE {
            return;
        }
        if let Err(error) = cache_tests::is_possible() {
            self.skip("cache tests", &error.to_string());
        } else {
            self.step(root, "cache tests of the public suite", &["xtask", "cache-tests", "--again"], &[]);
        }
        self.step(root, "the tour of the pages", &["xtask", "tour"], &[]);
        let small = ["bench-http", "stampede", "large", "crash", "--small", "--proxies", "larder"];
        self.step(root, "crowds, large bodies and crashes", &[&["xtask"][..], &small].concat(), &[]);
    }

    fn skip(&mut self, name: &str, why: &str) {
        println!("\nskipped: {name}: {why}");
        self.skipped.push(format!("{name} ({why})"));
    }

    fn close(&self) -> ExitCode {
        println!();
        for skipped in &self.skipped {
            println!("skipped: {skipped}");
        }
        for failed in &self.failed {
            println!("failed: {failed}");
        }
        println!(
            "ci: {} steps passed, {} failed, {} skipped; {} tests and {} doc tests passed",
            self.passed,
            self.failed.len(),
            self.skipped.len(),
            self.tests,
            self.doc_tests
        );
        if self.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

fn heading(text: &str) {
    println!("\n── {text}");
    // What the step writes goes past our buffer.
    let _ = io::stdout().flush();
}

/// The cargo that started this, run with these arguments.
fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).env("CARGO_TERM_PROGRESS_WHEN", "never");
    crate::forget_cargo(&mut command);
    command
}

/// Whether a service can be started here, within five minutes with its installation.
fn can_start(root: &Path, service: &str) -> bool {
    const LOOK: Duration = Duration::from_millis(100);
    let mut command = cargo(&["xtask", "services", "run", service, "--", "true"]);
    let Ok(mut child) = command.current_dir(root).stdin(Stdio::null()).spawn() else { return false };
    for _ in 0..3_000 {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) => thread::sleep(LOOK),
            Err(_) => break,
        }
    }
    // What it has begun is ended by its watcher.
    let _ = child.kill();
    let _ = child.wait();
    false
}

/// Whether cargo has a subcommand that works.
fn has(subcommand: &str) -> bool {
    let version = cargo(&[subcommand, "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

/// Runs a command whose output goes on to ours as it comes. Returns whether it succeeded, and how many tests
/// it said had passed.
fn stream(command: &mut Command) -> io::Result<(bool, u64)> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let stderr = child.stderr.take();
    let from_stderr = thread::spawn(move || stderr.map_or(0, |pipe| pass_on(pipe, io::stderr())));
    let from_stdout = child.stdout.take().map_or(0, |pipe| pass_on(pipe, io::stdout()));
    let status = child.wait()?;
    let tests = from_stdout + from_stderr.join().unwrap_or(0);
    Ok((status.success(), tests))
}

fn pass_on(from: impl Read, mut to: impl Write) -> u64 {
    let mut tests = 0;
    for line in BufReader::new(from).split(b'\n') {
        let Ok(mut line) = line else { break };
        tests += passed(&String::from_utf8_lossy(&line));
        line.push(b'\n');
        // Nobody reads any more: the step still runs to its end.
        let _ = to.write_all(&line);
    }
    tests
}

/// How many tests a line says have passed: `test result: ok. 3 passed; …` of cargo's own runner, or
/// `Summary [ 1.2s] 3 tests run: 3 passed, …` of nextest.
fn passed(line: &str) -> u64 {
    if !line.starts_with("test result:") && !line.trim_start().starts_with("Summary [") {
        return 0;
    }
    let words: Vec<&str> = line.split_whitespace().collect();
    let count = words.windows(2).find_map(|pair| match pair {
        [count, word] if word.starts_with("passed") => count.parse().ok(),
        _ => None,
    });
    count.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_runners_are_understood() {
        assert_eq!(
            passed("test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; finished in 0.1s"),
            12
        );
        assert_eq!(
            passed("     Summary [  12.345s] 345 tests run: 344 passed (2 slow), 1 failed, 0 skipped"),
            344
        );
        assert_eq!(passed("test it::says_that_3_passed ... 7 passed"), 0);
    }

    #[test]
    fn output_passes_through_byte_for_byte_and_is_counted() {
        let output = b"a\n\xff\xfe\ntest result: ok. 2 passed; 0 failed\n";
        let mut through = Vec::new();
        assert_eq!(pass_on(&output[..], &mut through), 2);
        assert_eq!(through, output);
    }
}
