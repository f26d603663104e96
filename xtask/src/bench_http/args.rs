//! What `cargo xtask bench-http` can be asked for.

pub(crate) const USAGE: &str =
    "usage: cargo xtask bench-http [WHAT…] [OPTIONS] [-- ARGUMENTS OF larder serve]

  hits        requests a second, latency and processor time of hits of 1 KiB and of 100 KiB
  stampede    a crowd at a cold, a stale and an uncacheable key, and at one whose answer is cut
  large       a large body to slow clients: how much memory the proxy takes
  crash       kill -9 while a body is stored: nothing that is served afterwards is a part of it
  Without a name: all.

  --proxies A,B       of larder, nginx, varnish (all three); or one command with {port}, {origin} and {store}
  --larder FILE       larder serve, as this program, instead of a release build
  --small             small crowds and bodies, and a debug build of larder: for CI
  --seconds N         how long each measurement of hits takes (10)
  --repeats N         how often each is taken, in turn (3)";

/// One thing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Hits,
    Stampede,
    Large,
    Crash,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) what: Vec<What>,
    pub(crate) proxies: Vec<String>,
    pub(crate) larder: Option<String>,
    pub(crate) more: Vec<String>,
    pub(crate) is_small: bool,
    pub(crate) seconds: u64,
    pub(crate) repeats: usize,
}

/// # Errors
/// What cannot be understood, for people.
pub(crate) fn parse(args: &[&str]) -> Result<Ask, String> {
    let mut ask = Ask {
        what: Vec::new(),
        proxies: ["larder", "nginx", "varnish"].map(str::to_owned).to_vec(),
        larder: None,
        more: Vec::new(),
        is_small: false,
        seconds: 10,
        repeats: 3,
    };
    let mut args = args.iter().copied();
    while let Some(name) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{name} needs a value"));
        match name {
            "hits" => ask.what.push(What::Hits),
            "stampede" => ask.what.push(What::Stampede),
            "large" => ask.what.push(What::Large),
            "crash" => ask.what.push(What::Crash),
            "--proxies" => ask.proxies = proxies(value()?),
            "--larder" => ask.larder = Some(value()?.to_owned()),
            "--small" => ask.is_small = true,
            "--seconds" => ask.seconds = number(name, value()?)?,
            "--repeats" => ask.repeats = usize::try_from(number(name, value()?)?).unwrap_or(1),
            "--" => ask.more = args.by_ref().map(str::to_owned).collect(),
            other => return Err(format!("{other} is not known")),
        }
    }
    if ask.what.is_empty() {
        ask.what = vec![What::Hits, What::Stampede, What::Large, What::Crash];
    }
    Ok(ask)
}

/// Names, or one command, which has places in braces.
fn proxies(text: &str) -> Vec<String> {
    if text.contains('{') {
        return vec![text.to_owned()];
    }
    text.split(',').map(str::to_owned).collect()
}

fn number(name: &str, text: &str) -> Result<u64, String> {
    let number: Option<u64> = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("{name} is a number above 0, and not {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_name_everything_is_run_through_all_three() {
        let ask = parse(&[]).unwrap();
        assert_eq!((ask.what.len(), ask.proxies.len()), (4, 3));
        let ask = parse(&["large", "--proxies", "nginx", "--small", "--", "--http2"]).unwrap();
        assert_eq!(
            (ask.what, ask.proxies, ask.more),
            (vec![What::Large], vec!["nginx".to_owned()], vec!["--http2".to_owned()])
        );
    }

    #[test]
    fn a_command_may_have_commas() {
        assert_eq!(parse(&["--proxies", "p {port},{origin}"]).unwrap().proxies, ["p {port},{origin}"]);
        assert!(parse(&["--repeats", "0"]).is_err());
    }
}
