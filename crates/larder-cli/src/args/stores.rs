//! The commands about stores as such: which there are, whether they answer, and moving what is in one to another.

use clap::{Arg, Command, value_parser};

use super::flags::{config, json};
use super::switch;

/// How often a store is pinged, unless told otherwise.
pub(super) const COUNT: &str = "20";

pub(super) fn drivers(command: Command) -> Command {
    command
        .long_about(
            "List the kinds of stores, each with the beginnings of its URLs and its options with their defaults; also \
             those that this build lacks.",
        )
        .after_long_help(
            "Examples:\n  larder drivers\n  larder drivers --json\n\n--json prints one object per line for each kind.",
        )
        .arg(json())
}

pub(super) fn ping(command: Command) -> Command {
    command
        .long_about(
            "Say of each store whether it answers and how fast: opened once, then pinged and asked for a small value \
             several times in turn. Without a STORE, the caches of --config are asked that have a store, or the store \
             that the other commands would take.",
        )
        .after_long_help(
            "Examples:\n  larder ping redis://localhost sqlite:app.db\n  larder ping --config larder.yaml\n  larder ping \
             --count 1000 --json redis://localhost\n\nExit status 1: a store cannot be opened, or does not answer.",
        )
        .arg(Arg::new("stores").value_name("STORE").help("The stores, by their URLs").num_args(0..))
        .arg(config().conflicts_with("stores"))
        .arg(
            Arg::new("cache")
                .long("cache")
                .value_name("NAME")
                .help("Only this cache of the configuration [default: LARDER_CACHE, or all]")
                .conflicts_with("stores"),
        )
        .arg(
            Arg::new("count")
                .long("count")
                .value_name("NUMBER")
                .help("How often each store is asked")
                .default_value(COUNT)
                .value_parser(value_parser!(u32).range(1..=1_000_000)),
        )
        .arg(json())
}

pub(super) fn migrate(command: Command) -> Command {
    command
        .long_about(
            "Copy what is in one store to another, as it is: with its tags, with what is left of its life, and with \
             the marks of clears and of tags. What the other store has under the same key stays if it is as new or \
             newer. What is in FROM stays there.\n\n\
             Running it again copies what is missing or newer, so whatever broke it off, it can be run again. What is \
             compressed or encrypted stays so.",
        )
        .after_long_help(
            "Examples:\n  larder migrate sqlite:app.db redis://localhost\n  larder migrate file:./cache sqlite:app.db \
             --prefix app --dry-run\n  larder migrate redis://old redis://new --json\n\nFROM is listed twice: for its marks, \
             which go first, and for the rest. A store that cannot list its keys, such as memcached, can be TO alone.\n\n\
             Exit status 1: an entry could not be copied; each is named on standard error. 130: it was interrupted. In \
             either case what was copied is there.",
        )
        .arg(Arg::new("from").value_name("FROM").help("The store to read, by its URL").required(true))
        .arg(
            Arg::new("to")
                .value_name("TO")
                .help("The store to write, by its URL; created if it is not there")
                .required(true),
        )
        .arg(
            Arg::new("prefix")
                .long("prefix")
                .value_name("PREFIX")
                .help("Only what has this prefix [default: whatever larder wrote]"),
        )
        .arg(
            Arg::new("namespace")
                .long("namespace")
                .value_name("NAMESPACE")
                .help("Only this namespace under the prefix, and those inside it [default prefix: larder]")
                .long_help(
                    "Only this namespace under the prefix, and those inside it; a/b is b inside a. The clears and \
                     invalidations of the namespaces around it are copied as well. Without --prefix, the prefix is \
                     larder.",
                ),
        )
        .arg(switch("dry-run", Some('n'), "Only say how many entries and bytes would be copied"))
        .arg(json())
}
