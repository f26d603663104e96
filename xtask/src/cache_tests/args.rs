//! What `cargo xtask cache-tests` can be asked for.

use std::path::PathBuf;

use crate::proxy::Kind;

pub(crate) const USAGE: &str = "usage: cargo xtask cache-tests [OPTIONS]

  Through what, `larder serve` as it is built here unless said otherwise:
  --proxy COMMAND     a command, with places for {port} and {origin}; or nginx, or varnish
  --base URL          a proxy that runs already, before the origin on --origin-port
  --direct            nothing: the suite's own origin
  --larder FILE       larder serve, as this program
  --                  what follows are more arguments of larder serve

  --suite DIR         a checkout of the suite with what it needs installed, instead of the pinned package
  --origin-port N     where the suite's origin listens
  --browser           the set for private caches
  --only A,B          these tests or suites of tests, and what they depend on
  --chunk N           how many tests run at once (25)
  --runs N            as often; a test passes if it does each time

  --optimal           list the optimal tests that are not passed, too
  --json FILE         write the results as the suite's site reads them
  --floor NAME        the floor to compare with, in xtask/cache-tests; `serve` for a whole run of the package
                      through larder serve, else none
  --again             run what falls below the floor once more, alone
  --write             raise the floor, if nothing is below it, and write the row of that name on the page of scores
  --row NAME          write that row, whatever the floor";

/// Through what the tests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Through {
    Larder,
    Proxy(Kind),
    Base(String),
    Nothing,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) through: Through,
    pub(crate) larder: Option<String>,
    pub(crate) more: Vec<String>,
    pub(crate) suite: Option<PathBuf>,
    pub(crate) origin_port: Option<u16>,
    pub(crate) is_private: bool,
    pub(crate) only: String,
    pub(crate) chunk: u16,
    pub(crate) runs: u16,
    pub(crate) lists_optimal: bool,
    pub(crate) json: Option<PathBuf>,
    pub(crate) floor: Option<String>,
    pub(crate) again: bool,
    pub(crate) writes: bool,
    pub(crate) row: Option<String>,
}

/// # Errors
/// What cannot be understood, for people.
pub(crate) fn parse(args: &[&str]) -> Result<Ask, String> {
    let mut ask = Ask {
        through: Through::Larder,
        larder: None,
        more: Vec::new(),
        suite: None,
        origin_port: None,
        is_private: false,
        only: String::new(),
        chunk: 25,
        runs: 1,
        lists_optimal: false,
        json: None,
        floor: None,
        again: false,
        writes: false,
        row: None,
    };
    let mut args = args.iter().copied();
    while let Some(name) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{name} needs a value"));
        match name {
            "--proxy" => ask.through = Through::Proxy(kind(value()?)),
            "--base" => ask.through = Through::Base(value()?.to_owned()),
            "--direct" => ask.through = Through::Nothing,
            "--larder" => ask.larder = Some(value()?.to_owned()),
            "--suite" => ask.suite = Some(PathBuf::from(value()?)),
            "--origin-port" => ask.origin_port = Some(number(name, value()?)?),
            "--browser" => ask.is_private = true,
            "--only" => value()?.clone_into(&mut ask.only),
            "--chunk" => ask.chunk = number(name, value()?)?,
            "--runs" => ask.runs = number(name, value()?)?,
            "--optimal" => ask.lists_optimal = true,
            "--json" => ask.json = Some(PathBuf::from(value()?)),
            "--floor" => ask.floor = Some(value()?.to_owned()),
            "--again" => ask.again = true,
            "--row" => ask.row = Some(value()?.to_owned()),
            "--write" => ask.writes = true,
            "--" => ask.more = args.by_ref().map(str::to_owned).collect(),
            other => return Err(format!("{other} is not known")),
        }
    }
    if matches!(ask.through, Through::Base(_)) && ask.origin_port.is_none() {
        return Err("--base needs --origin-port, which is where that proxy expects its origin".to_owned());
    }
    let is_whole = ask.suite.is_none() && ask.only.is_empty() && !ask.is_private;
    if ask.floor.is_none() && is_whole && ask.through == Through::Larder {
        ask.floor = Some("serve".to_owned());
    }
    if ask.writes && (ask.floor.is_none() || !ask.only.is_empty()) {
        return Err("--write needs a whole run, and a floor to compare it with".to_owned());
    }
    Ok(ask)
}

fn kind(name: &str) -> Kind {
    match name {
        "nginx" => Kind::Nginx,
        "varnish" => Kind::Varnish,
        command => Kind::Command(command.to_owned()),
    }
}

fn number(name: &str, text: &str) -> Result<u16, String> {
    let number: Option<u16> = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("{name} is a number above 0, and not {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_run_through_larder_has_a_floor_by_itself() {
        let floor = |args: &[&str]| parse(args).unwrap().floor;
        assert_eq!(floor(&[]).as_deref(), Some("serve"));
        assert_eq!(floor(&["--larder", "/bin/larder", "--", "--http2"]).as_deref(), Some("serve"));
        for args in [&["--proxy", "nginx"][..], &["--only", "a"], &["--suite", "/x"], &["--browser"]] {
            assert_eq!(floor(args), None, "{args:?}");
        }
        assert_eq!(floor(&["--proxy", "p", "--floor", "mine"]).as_deref(), Some("mine"));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for args in [&["--base", "http://x"][..], &["--direct", "--write"], &["--runs", "0"], &["--no"]] {
            assert!(parse(args).is_err(), "{args:?}");
        }
        let part = ["--only", "a", "--floor", "serve", "--write"];
        assert!(parse(&part).is_err(), "a part of the tests would lower the floor");
    }
}
