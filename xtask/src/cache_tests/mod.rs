//! `cargo xtask cache-tests`: the public suite of tests for HTTP caches against `larder serve`, or against any proxy,
//! with a floor of tests that passed and have to go on passing. The suite is fetched from the registry of npm and pinned
//! by hash; nothing of it is ours, and nothing of it is kept.

mod args;
mod floor;
mod page;
mod report;
mod score;
mod suite;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::proxy::{Kind, Place, Proxy, Scratch, free_port, larder, now};
use args::{Ask, Through};
use floor::Floor;
use score::Score;
use suite::Run;

/// Does what the arguments after `cache-tests` ask for.
pub(crate) fn run(root: &Path, args: &[&str]) -> ExitCode {
    let ask = match args::parse(args) {
        Ok(ask) => ask,
        Err(error) => {
            eprintln!("xtask: cache-tests: {error}\n\n{}", args::USAGE);
            return ExitCode::from(2);
        }
    };
    tests(root, &ask).unwrap_or_else(|error| {
        eprintln!("xtask: cache-tests: {error}");
        ExitCode::FAILURE
    })
}

/// Whether what the suite needs is there.
///
/// # Errors
/// What is missing, for people.
pub(crate) fn is_possible() -> io::Result<()> {
    suite::programs()
}

fn tests(root: &Path, ask: &Ask) -> io::Result<ExitCode> {
    suite::programs()?;
    let folder = match &ask.suite {
        Some(folder) => folder.clone(),
        None => suite::fetch(root)?,
    };
    let kind = match &ask.through {
        Through::Proxy(kind) => Some(kind.clone()),
        Through::Larder => Some(Kind::Larder(larder(root, ask.larder.as_deref(), false)?, ask.more.clone())),
        Through::Base(_) | Through::Nothing => None,
    };
    let mut score: Option<Score> = None;
    for number in 1..=ask.runs {
        let began = now();
        let run = once(root, &folder, ask, kind.as_ref(), &ask.only)?;
        if ask.runs > 1 {
            println!("run {number} of {}: {:.0} s", ask.runs, began.elapsed().as_secs_f64());
        }
        score = Some(match score {
            None => run,
            Some(before) => before.and(&run),
        });
    }
    let mut score = score.unwrap_or_default();
    let floor = match &ask.floor {
        Some(name) => Some((name, Floor::read(&file(root, name))?)),
        None => None,
    };
    if let (Some((_, floor)), true) = (&floor, ask.again) {
        let lost = floor.lost(&score);
        if !lost.is_empty() {
            println!("again, since a busy machine fails what waits: {}", lost.join(" "));
            let again = once(root, &folder, ask, kind.as_ref(), &lost.join(","))?;
            score = score.or(&again, &lost);
        }
    }
    print!("{}", report::text(&score, ask.lists_optimal));
    if let Some(row) = &ask.row
        && !page::write(root, row, &score)?
    {
        return Err(io::Error::other(format!("the page of scores has no row {row}")));
    }
    let Some((name, floor)) = floor else { return Ok(ExitCode::SUCCESS) };
    compare(root, name, &floor, &score, ask)
}

/// One run of the suite through the proxy, which is started anew.
fn once(root: &Path, folder: &Path, ask: &Ask, kind: Option<&Kind>, only: &str) -> io::Result<Score> {
    let scratch = Scratch::new("cache-tests")?;
    let origin_port = ask.origin_port.map_or_else(free_port, Ok)?;
    let run = Run::start(root, folder, origin_port, ask, only)?;
    let (base, proxy) = match (kind, &ask.through) {
        (Some(kind), _) => {
            let place = Place::new(scratch.path(), free_port()?, origin_port);
            let proxy = Proxy::start(kind, &place)?;
            (format!("http://{}", proxy.address), Some(proxy))
        }
        (None, Through::Base(url)) => (url.clone(), None),
        (None, _) => (format!("http://127.0.0.1:{origin_port}"), None),
    };
    let score = run.finish(&base)?;
    if proxy.is_some_and(|mut proxy| proxy.has_ended()) {
        return Err(io::Error::other("the proxy ended while the suite ran"));
    }
    Ok(score)
}

/// Says how a score stands to its floor, and raises that if asked to. Fails if a test that passed no longer does.
fn compare(root: &Path, name: &str, floor: &Floor, score: &Score, ask: &Ask) -> io::Result<ExitCode> {
    let lost = floor.lost(score);
    let won = floor.won(score);
    for id in &lost {
        println!("no longer passed: {id}{}", score.why(id));
    }
    if !lost.is_empty() {
        println!("below the floor: {} tests passed before and do not now", lost.len());
        return Ok(ExitCode::FAILURE);
    }
    if won.is_empty() {
        println!("at the floor: all {} tests that passed before pass", floor.len());
    } else if !ask.writes {
        println!("the floor can be raised by {} tests, with --write: {}", won.len(), won.join(" "));
    }
    if ask.writes {
        let raised = Floor::of(score);
        fs::write(file(root, name), raised.text())?;
        println!("the floor is at {} tests, {} more than before", raised.len(), won.len());
        if page::write(root, name, score)? {
            println!("the page of scores is up to date");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn file(root: &Path, name: &str) -> PathBuf {
    root.join(format!("xtask/cache-tests/{name}.floor"))
}
