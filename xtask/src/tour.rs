//! `cargo xtask tour`: walks docs/serve-tour.md as a new user would, and compares what it sees with what the page shows.
//! The page's commands are run as they stand; only its addresses are other ones, since the page's may be taken.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use crate::proxy::{end, free_port, larder, now};

const PAGE: &str = "docs/serve-tour.md";
/// The addresses of the page: the shop, the cache, and what the cache is administered at.
const PORTS: [u16; 3] = [8000, 8080, 8081];
const PATIENCE: Duration = Duration::from_secs(30);

/// A command of the page, and what it shows beneath.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    command: String,
    shown: Vec<String>,
}

/// Walks the tour. With an argument: with this program as `larder`.
pub(crate) fn run(root: &Path, args: &[&str]) -> ExitCode {
    let outcome = match args {
        [] => larder(root, None, false).and_then(|larder| walk(root, &larder)),
        ["--larder", path] => walk(root, Path::new(path)),
        _ => Err(io::Error::other("usage: cargo xtask tour [--larder FILE]")),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("xtask: tour: {error}");
        ExitCode::FAILURE
    })
}

fn walk(root: &Path, larder: &Path) -> io::Result<ExitCode> {
    let mut page = fs::read_to_string(root.join(PAGE))?;
    let mut ports = Vec::new();
    for port in PORTS {
        let free = free_port()?;
        page = page.replace(&format!("127.0.0.1:{port}"), &format!("127.0.0.1:{free}"));
        ports.push(free);
    }
    let [shop_port, cache_port, ..] = ports.as_slice() else { return Ok(ExitCode::FAILURE) };
    // The command that the page calls `larder` is the one that is tested.
    let path = std::env::var("PATH").unwrap_or_default();
    let folder = larder.parent().map_or_else(PathBuf::new, Path::to_owned);
    let path = format!("{}:{path}", folder.display());
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    crate::forget_cargo(&mut build);
    if !build.args(["build", "--quiet", "--package", "shop"]).current_dir(root).status()?.success() {
        return Err(io::Error::other("building the shop failed"));
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let shop = format!("exec {} 127.0.0.1:{shop_port}", target.join("debug/shop").display());
    let _shop = Server::start(&shop, &path, *shop_port)?;
    let serve =
        serve_command(&page).ok_or_else(|| io::Error::other(format!("{PAGE} starts no larder serve")))?;
    let _cache = Server::start(&serve, &path, *cache_port)?;
    let mut wrong = 0;
    let steps = steps(&page);
    for step in &steps {
        let output = Command::new("sh").args(["-c", &step.command]).env("PATH", &path).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let seen: Vec<&str> = text.lines().map(str::trim_end).collect();
        if !is_as_shown(&step.shown, &seen) {
            wrong += 1;
            println!(
                "$ {}\nshown:\n  {}\nseen:\n  {}",
                step.command,
                step.shown.join("\n  "),
                seen.join("\n  ")
            );
            print!("{}", String::from_utf8_lossy(&output.stderr));
        }
    }
    println!("tour: {} commands, {wrong} of them not as shown", steps.len());
    Ok(if wrong == 0 && !steps.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// How the page starts the cache, with the program that was built in place of the build.
fn serve_command(page: &str) -> Option<String> {
    let line = page.lines().find(|line| line.contains("cargo run --release -- serve "))?;
    let (variables, options) = line.split_once("cargo run --release -- ")?;
    Some(format!("{variables}exec larder {options}"))
}

/// The commands of the page's `console` blocks, each with the lines beneath it.
fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut is_console = false;
    for line in page.lines() {
        if line.starts_with("```") {
            is_console = line == "```console";
        } else if let (true, Some(command)) = (is_console, line.strip_prefix("$ ")) {
            steps.push(Step { command: command.to_owned(), shown: Vec::new() });
        } else if let (true, Some(step)) = (is_console, steps.last_mut()) {
            step.shown.push(line.to_owned());
        }
    }
    steps
}

/// Whether a command printed what the page shows. `…` stands for anything, and names of fields have no case.
fn is_as_shown(shown: &[String], seen: &[&str]) -> bool {
    let is_same = |shown: &String, seen: &&str| {
        let (shown, seen) = (shown.to_lowercase(), seen.to_lowercase());
        match shown.split_once('…') {
            None => shown == seen,
            Some((start, end)) => {
                seen.len() > start.len() + end.len() && seen.starts_with(start) && seen.ends_with(end)
            }
        }
    };
    shown.len() == seen.len() && shown.iter().zip(seen).all(|(shown, seen)| is_same(shown, seen))
}

/// A server of the tour. Dropping it ends it.
#[derive(Debug)]
struct Server(Child);

impl Server {
    fn start(command: &str, path: &str, port: u16) -> io::Result<Self> {
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).env("PATH", path).stdin(Stdio::null()).stdout(Stdio::null());
        let mut server = Self(shell.stderr(Stdio::null()).spawn()?);
        let deadline = now() + PATIENCE;
        while TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).is_err() {
            if server.0.try_wait()?.is_some() || now() >= deadline {
                return Err(io::Error::other(format!("this does not listen: {command}")));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Page\n```sh\nA=b cargo run --release -- serve --x y\n```\n```console\n$ a | b\none\ntwo\n$ c\n```\nmore\n";

    #[test]
    fn commands_are_read_with_what_is_shown_beneath_them() {
        let expected = [("a | b", vec!["one", "two"]), ("c", vec![])].map(|(command, shown)| Step {
            command: command.to_owned(),
            shown: shown.into_iter().map(str::to_owned).collect(),
        });
        assert_eq!(steps(TEXT), expected);
        assert_eq!(serve_command(TEXT).as_deref(), Some("A=b exec larder serve --x y"));
    }

    #[test]
    fn an_ellipsis_stands_for_something_and_only_there() {
        let shown = ["cache-status: Larder; hit; ttl=…".to_owned()];
        assert!(is_as_shown(&shown, &["Cache-Status: Larder; hit; ttl=59"]));
        assert!(!is_as_shown(&shown, &["cache-status: Larder; hit; ttl="]));
        assert!(!is_as_shown(&shown, &["cache-status: Larder; fwd=uri-miss"]));
        assert!(!is_as_shown(&shown, &[]));
        assert!(!is_as_shown(&[], &["more"]));
    }
}
