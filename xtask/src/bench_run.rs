//! `cargo xtask bench-run`: what a hit of `larder run` takes as a whole process, beside `true` and beside `bkt`, a
//! command that does the same. All in one run, in alternation, so that a busy moment meets all of them.

use std::io;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 300;
/// What a hit may take: this many times `true`, and this much more.
const TRUE_TIMES: f64 = 2.0;
const MORE: Duration = Duration::from_millis(5);

/// Builds the command, measures, prints, and fails if a hit takes longer than it may.
pub(crate) fn run(root: &Path) -> io::Result<ExitCode> {
    let built = Command::new("cargo")
        .args(["build", "--release", "--package", "larder-cli", "--quiet"])
        .current_dir(root)
        .status()?;
    if !built.success() {
        return Ok(ExitCode::FAILURE);
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), Into::into);
    let larder = target.join("release/larder");
    let scratch = std::env::temp_dir().join(format!("larder-bench-run-{}", std::process::id()));
    std::fs::create_dir_all(&scratch)?;

    let mut contenders = vec![("true", Command::new("true"))];
    let mut hit = Command::new(larder);
    hit.args(["run", "--ttl", "1h", "--", "echo", "hello"]);
    contenders.push(("larder run, a hit", hit));
    let has_bkt = Command::new("bkt").arg("--version").stdout(Stdio::null()).status().is_ok();
    if has_bkt {
        let mut bkt = Command::new("bkt");
        bkt.args(["--ttl", "1h", "--cache-dir"]).arg(scratch.join("bkt")).args(["--", "echo", "hello"]);
        contenders.push(("bkt, a hit", bkt));
    } else {
        println!("bkt is not on the path: cargo install bkt");
    }
    for (_, command) in &mut contenders {
        command.env("XDG_CACHE_HOME", &scratch).stdin(Stdio::null()).stdout(Stdio::null());
        once(command)?;
    }
    let mut samples = vec![Vec::with_capacity(ROUNDS); contenders.len()];
    for _ in 0..ROUNDS {
        for ((_, command), samples) in contenders.iter_mut().zip(&mut samples) {
            samples.push(once(command)?);
        }
    }
    std::fs::remove_dir_all(&scratch)?;
    let medians: Vec<Duration> = samples.into_iter().map(median).collect();
    Ok(report(&contenders.iter().map(|(name, _)| *name).collect::<Vec<_>>(), &medians))
}

fn report(names: &[&str], medians: &[Duration]) -> ExitCode {
    let [yes, larder, rest @ ..] = medians else { return ExitCode::FAILURE };
    println!("{:<20} {:>8} {:>10} {:>10}", "whole process", "ms", "× true", "× bkt");
    for (name, took) in names.iter().zip(medians) {
        let times = |other: &Duration| took.as_secs_f64() / other.as_secs_f64();
        let beside_bkt = rest.first().map_or("-".to_owned(), |bkt| format!("{:.2}", times(bkt)));
        println!("{name:<20} {:>8.2} {:>10.2} {beside_bkt:>10}", took.as_secs_f64() * 1e3, times(yes));
    }
    let bound = yes.mul_f64(TRUE_TIMES) + MORE;
    println!("a hit may take {:.2} ms: {TRUE_TIMES} × true + {MORE:?}", bound.as_secs_f64() * 1e3);
    if *larder <= bound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn once(command: &mut Command) -> io::Result<Duration> {
    let started = Instant::now();
    let status = command.status()?;
    let took = started.elapsed();
    if status.success() { Ok(took) } else { Err(io::Error::other(format!("{command:?} failed: {status}"))) }
}

fn median(mut samples: Vec<Duration>) -> Duration {
    samples.sort_unstable();
    samples.get(samples.len() / 2).copied().unwrap_or_default()
}
