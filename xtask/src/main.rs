//! Chores of the workspace: `cargo xtask tidy` holds the house to its rules, `cargo xtask ci` runs everything
//! that has to pass, `cargo xtask services` starts real servers, `cargo xtask bench-run` measures the command. Knows
//! nothing of caching.

mod bench_http;
mod bench_run;
mod cache_tests;
mod ci;
mod floor_plan;
mod proxy;
mod rules;
mod services;
mod source;
mod tidy;
mod tour;
mod tree;

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask COMMAND

  tidy            say what is wrong with the house: rooms, documents, files
  tidy --write    bring the table of rooms in ARCHITECTURE.md up to date first
  ci              run every check and every test
  services        start the servers that drivers are tested against, and stop them: see `cargo xtask services`
  cache-tests     run the public suite for HTTP caches against `larder serve`: see `cargo xtask cache-tests --help`
  bench-http      measure `larder serve` beside nginx and Varnish: see `cargo xtask bench-http --help`
  tour            walk docs/serve-tour.md, and compare what is seen with what it shows
  bench-run       measure a hit of `larder run` beside `true`, and beside `bkt` if it is on the path";

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["tidy"] => tidy(root),
        ["tidy", "--write"] => match tidy::write(root) {
            Ok(_) => tidy(root),
            Err(error) => fail(&error),
        },
        ["ci"] => ci::run(root),
        ["services", args @ ..] => services::run(root, args),
        ["cache-tests", args @ ..] => cache_tests::run(root, args),
        ["bench-http", args @ ..] => bench_http::run(root, args),
        ["tour", args @ ..] => tour::run(root, args),
        ["bench-run"] => bench_run::run(root).unwrap_or_else(|error| fail(&error)),
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn tidy(root: &Path) -> ExitCode {
    match tidy::check(root) {
        Ok(complaints) if complaints.is_empty() => ExitCode::SUCCESS,
        Ok(complaints) => {
            complaints.iter().for_each(|complaint| eprintln!("{complaint}"));
            eprintln!("tidy: {} complaints", complaints.len());
            ExitCode::FAILURE
        }
        Err(error) => fail(&error),
    }
}

fn fail(error: &std::io::Error) -> ExitCode {
    eprintln!("xtask: {error}");
    ExitCode::FAILURE
}

/// Takes from a command's environment what cargo has told this program of itself. Some crates are built anew whenever that
/// changes, and everything above them, so that a build from here and one from a shell would undo each other.
pub(crate) fn forget_cargo(command: &mut std::process::Command) {
    for (name, _) in std::env::vars_os() {
        let is_ours = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        if name.to_str().is_some_and(is_ours) {
            command.env_remove(name);
        }
    }
}
