//! The suite itself: how it comes here, and a run of it under our script. Knows how to talk to that script, and nothing
//! of what the tests are.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use super::args::Ask;
use super::score::Score;

const PACKAGE: &str = "http-cache-tests";
/// What pins the package and all that it needs.
const PINS: [&str; 2] = ["package.json", "package-lock.json"];

/// A run whose origin listens, and whose tests wait for a word.
#[derive(Debug)]
pub(crate) struct Run {
    child: Child,
    lines: io::Lines<BufReader<ChildStdout>>,
}

/// # Errors
/// A program is missing: which, and how it comes here.
pub(crate) fn programs() -> io::Result<()> {
    for program in ["node", "npm"] {
        let version =
            Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !version.is_ok_and(|status| status.success()) {
            return Err(io::Error::other(format!(
                "finding {program} failed; on Debian, install it with: apt-get install nodejs npm"
            )));
        }
    }
    Ok(())
}

/// Where the pinned package is, with what it needs; fetched if it was not, or if the pins have changed.
///
/// # Errors
/// It cannot be fetched, or is not what is pinned.
pub(crate) fn fetch(root: &Path) -> io::Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let (pins, folder) = (root.join("xtask/cache-tests"), target.join("cache-tests"));
    let package = folder.join("node_modules").join(PACKAGE);
    let is_same = |name: &&str| {
        let read = |folder: &Path| fs::read(folder.join(name)).ok();
        read(&pins).is_some_and(|bytes| read(&folder).as_ref() == Some(&bytes))
    };
    // npm writes this last.
    if folder.join("node_modules/.package-lock.json").is_file() && PINS.iter().all(is_same) {
        return Ok(package);
    }
    eprintln!("fetching {PACKAGE} into {}", folder.display());
    fs::create_dir_all(&folder)?;
    for name in PINS {
        fs::copy(pins.join(name), folder.join(name))?;
    }
    // No script of a package is run. By default npm is silent for minutes about a registry that it cannot reach.
    let options = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"];
    let network = ["--fetch-retries=2", "--fetch-timeout=20000"];
    let mut npm = Command::new("npm");
    npm.args(options).args(network).current_dir(&folder).stdin(Stdio::null()).stdout(Stdio::null());
    if !npm.status()?.success() {
        return Err(io::Error::other(format!("fetching {PACKAGE} with npm failed")));
    }
    Ok(package)
}

impl Run {
    /// Starts the suite's origin on a port, and waits until it listens.
    ///
    /// # Errors
    /// The script cannot be started, or ended.
    pub(crate) fn start(root: &Path, suite: &Path, port: u16, ask: &Ask, only: &str) -> io::Result<Self> {
        let script = root.join("xtask/cache-tests/run.mjs");
        let mut node = Command::new("node");
        node.arg("--no-warnings").arg(script).arg("--suite").arg(suite).args(["--port", &port.to_string()]);
        node.arg("--chunk").arg(ask.chunk.to_string());
        if ask.is_private {
            node.arg("--browser");
        }
        if !only.is_empty() {
            node.args(["--only", only]);
        }
        if let Some(file) = &ask.json {
            node.arg("--json").arg(file);
        }
        // The suite serves files of its own from where it is.
        let mut child = node.current_dir(suite).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().ok_or_else(|| io::Error::other("the script has no output"))?;
        let mut run = Self { child, lines: BufReader::new(stdout).lines() };
        match run.lines.next().transpose()?.as_deref() {
            Some("ready") => Ok(run),
            other => Err(io::Error::other(format!("starting the suite's origin failed: {other:?}"))),
        }
    }

    /// Runs the tests against a base URL.
    ///
    /// # Errors
    /// The script failed before its end.
    pub(crate) fn finish(mut self, base: &str) -> io::Result<Score> {
        if let Some(mut pipe) = self.child.stdin.take() {
            pipe.write_all(format!("{base}\n").as_bytes())?;
        }
        let lines = self.lines.by_ref().collect::<io::Result<Vec<_>>>()?;
        let status = self.child.wait()?;
        let score = Score::read(lines.iter().map(String::as_str));
        if status.success() && !score.tests.is_empty() {
            return Ok(score);
        }
        Err(io::Error::other(format!("running the suite failed ({status}, {} tests)", score.tests.len())))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // It has ended, or nobody waits for what it does.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
