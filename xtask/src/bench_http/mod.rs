//! `cargo xtask bench-http`: `larder serve` beside nginx and Varnish, on this machine and in the same minutes. How fast
//! hits are, and what only shows under load: crowds, large bodies, and a crash while something is stored.

mod args;
mod client;
mod crash;
mod hits;
mod large;
mod origin;
mod pattern;
mod stampede;

use std::io;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use crate::proxy::{Kind, Place, Proxy, Scratch, free_port, larder};
use args::{Ask, What};
use origin::Origin;

/// Does what the arguments after `bench-http` ask for.
pub(crate) fn run(root: &Path, args: &[&str]) -> ExitCode {
    let ask = match args::parse(args) {
        Ok(ask) => ask,
        Err(error) => {
            eprintln!("xtask: bench-http: {error}\n\n{}", args::USAGE);
            return ExitCode::from(2);
        }
    };
    bench(root, &ask).unwrap_or_else(|error| {
        eprintln!("xtask: bench-http: {error}");
        ExitCode::FAILURE
    })
}

fn bench(root: &Path, ask: &Ask) -> io::Result<ExitCode> {
    let kinds = there(root, ask)?;
    let mut claims = Claims::default();
    for what in &ask.what {
        match what {
            What::Hits => hits::run(&kinds, ask)?,
            What::Stampede => kinds.iter().try_for_each(|kind| stampede::run(kind, ask, &mut claims))?,
            What::Large => kinds.iter().try_for_each(|kind| large::run(kind, ask, &mut claims))?,
            What::Crash => kinds.iter().try_for_each(|kind| crash::run(kind, ask, &mut claims))?,
        }
    }
    Ok(claims.close())
}

/// The proxies that were asked for and can be had, installed if we may.
fn there(root: &Path, ask: &Ask) -> io::Result<Vec<Kind>> {
    let mut kinds = Vec::new();
    for name in &ask.proxies {
        let kind = match name.as_str() {
            "larder" => Kind::Larder(larder(root, ask.larder.as_deref(), !ask.is_small)?, ask.more.clone()),
            "nginx" => Kind::Nginx,
            "varnish" => Kind::Varnish,
            command => Kind::Command(command.to_owned()),
        };
        match kind.package().map_or(Ok(()), |(program, package)| need(program, package)) {
            Ok(()) => kinds.push(kind),
            Err(error) => println!("left out: {kind}: {error}"),
        }
    }
    if kinds.is_empty() { Err(io::Error::other("none of the proxies can be had")) } else { Ok(kinds) }
}

/// Sees to it that a program is there, installing its package if it is not and we may.
///
/// # Errors
/// It is not there: what to install.
fn need(program: &str, package: &str) -> io::Result<()> {
    let is_there = || {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path).chain([Path::new("/usr/sbin").to_owned()]);
        folders.into_iter().any(|folder| folder.join(program).is_file())
    };
    if is_there() {
        return Ok(());
    }
    // A service that the package would start is kept from it: it would take a port, and the machine's time.
    let script = "test \"$(id -u)\" = 0 && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
                  apt-get install -y --no-install-recommends \"$0\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, package]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if command.status()?.success() && is_there() {
        return Ok(());
    }
    Err(io::Error::other(format!("{program} is missing; on Debian: apt-get install {package}")))
}

/// A proxy before an origin, in a folder of its own.
#[derive(Debug)]
struct Bench {
    // Fields are dropped in their order: the proxy ends before what it needs.
    proxy: Proxy,
    origin: Origin,
    _scratch: Scratch,
}

impl Bench {
    /// Starts both, the proxy as `settle` wants it.
    ///
    /// # Errors
    /// One of them cannot be started.
    fn start(kind: &Kind, settle: impl Fn(&mut Place<'_>)) -> io::Result<Self> {
        let scratch = Scratch::new(&format!("bench-http-{kind}"))?;
        let origin = Origin::start(free_port()?)?;
        let mut place = Place::new(scratch.path(), free_port()?, origin.port);
        settle(&mut place);
        let proxy = Proxy::start(kind, &place)?;
        Ok(Self { proxy, origin, _scratch: scratch })
    }
}

/// What was claimed of ours, and whether it held. What others do is shown, and no failure.
#[derive(Debug, Default)]
struct Claims {
    held: usize,
    broken: Vec<String>,
}

impl Claims {
    fn claim(&mut self, kind: &Kind, what: &str, holds: bool, saw: &str) {
        let is_ours = !matches!(kind, Kind::Nginx | Kind::Varnish);
        let word = match (holds, is_ours) {
            (true, _) => "holds",
            (false, true) => "BROKEN",
            (false, false) => "does not hold",
        };
        println!("{kind:<8} {word}: {what}: {saw}");
        if holds && is_ours {
            self.held += 1;
        } else if is_ours {
            self.broken.push(format!("{kind}: {what}: {saw}"));
        }
    }

    fn close(&self) -> ExitCode {
        if self.held + self.broken.len() > 0 {
            println!("bench-http: {} claims held, {} broken", self.held, self.broken.len());
        }
        if self.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
