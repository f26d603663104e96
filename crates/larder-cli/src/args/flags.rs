//! Flags that several commands share.

use std::path::PathBuf;

use clap::{Arg, ArgAction, value_parser};

use super::units;

/// `KEY`.
pub(super) fn key() -> Arg {
    Arg::new("key").value_name("KEY").help("The key").required(true)
}

/// `--ttl`.
pub(super) fn ttl() -> Arg {
    Arg::new("ttl").short('t').long("ttl").value_name("DURATION").value_parser(units::ttl)
}

/// `--store`.
pub(super) fn store() -> Arg {
    Arg::new("store")
        .short('s')
        .long("store")
        .value_name("URL")
        .help("Where it is stored, e.g. sqlite:cache.db, file:cache-folder [default: LARDER_STORE, or your cache folder]")
        .long_help(
            "Where it is stored: sqlite:PATH, file:FOLDER, or any other URL that this build has a driver for. \
             Default: the environment variable LARDER_STORE, or a SQLite file in the folder larder of \
             your cache folder, which holds up to 1 GiB; name a file with ?max_bytes=SIZE for another bound.",
        )
}

/// `--config`.
pub(super) fn config() -> Arg {
    Arg::new("config")
        .short('c')
        .long("config")
        .value_name("FILE")
        .help("A configuration file that names caches [default: LARDER_CONFIG]")
        .value_parser(value_parser!(PathBuf))
}

/// `--run`.
pub(super) fn of_run() -> Arg {
    Arg::new("run")
        .long("run")
        .help("In what larder run keeps: its store and its namespace")
        .long_help(
            "In what larder run keeps: its namespace, which is run, in the store that --store or LARDER_STORE \
             names, or else in run.db in the folder larder of your cache folder.",
        )
        .conflicts_with_all(["config", "cache", "namespace", "prefix"])
        .action(ArgAction::SetTrue)
}

/// `--store`, `--config` and `--cache`.
pub(super) fn store_flags() -> [Arg; 3] {
    [
        store().conflicts_with_all(["config", "cache"]),
        config(),
        Arg::new("cache")
            .long("cache")
            .value_name("NAME")
            .help("Which cache of the configuration [default: LARDER_CACHE, or the default cache]"),
    ]
}

/// `--namespace`.
pub(super) fn namespace() -> Arg {
    Arg::new("namespace")
        .long("namespace")
        .value_name("NAMESPACE")
        .help("Only in this namespace; a/b is b inside a")
}

/// `--prefix`.
pub(super) fn prefix() -> Arg {
    Arg::new("prefix")
        .long("prefix")
        .value_name("PREFIX")
        .help("What all keys in the store begin with [default: larder, or the configuration's]")
}

/// `--explain`.
pub(super) fn explain() -> Arg {
    Arg::new("explain")
        .long("explain")
        .help("Say on standard error what the store had, what decided, and how long it took")
        .action(ArgAction::SetTrue)
}

/// `--json`.
pub(super) fn json() -> Arg {
    Arg::new("json").long("json").help("Print JSON").action(ArgAction::SetTrue)
}
