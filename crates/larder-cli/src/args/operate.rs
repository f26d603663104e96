//! The flags of the commands that speak to a server that runs: `larder purge`, `explain` and `warm`.

use std::path::PathBuf;

use clap::{Arg, ArgAction, Command, value_parser};

use super::flags::json;
use super::{switch, units};

/// How many requests of `larder warm` are on their way at once, unless told otherwise.
const CONCURRENCY: &str = "8";

pub(super) fn purge(command: Command) -> Command {
    command
        .long_about(
            "Drop responses that a running larder serve has stored: by their URLs, by what they were tagged with \
             (Cache-Tag, Surrogate-Key), by how their URLs begin, or all of them. A URL is the one that clients ask \
             for, and means all its variants. What is on its way from an origin meanwhile is not kept either.",
        )
        .after_long_help(
            "Examples:\n  larder purge https://example.com/news --admin http://127.0.0.1:9000\n  larder purge --tag \
             items --tag prices                       # LARDER_ADMIN says where\n  larder purge --prefix \
             https://example.com/img/ --soft   # serve it while it is validated\n  larder purge --tag items \
             --dry-run                         # which would go\n  larder purge --all --yes\n\n\
             Exit status 1: nothing was there. Of tags, only --dry-run knows that.",
        )
        .arg(Arg::new("urls").value_name("URL").help("What clients ask for").num_args(0..))
        .arg(
            Arg::new("tag")
                .long("tag")
                .value_name("TAG")
                .help("Whatever has this tag (repeatable)")
                .action(ArgAction::Append),
        )
        .arg(
            Arg::new("prefix")
                .long("prefix")
                .value_name("URL")
                .help("Whatever begins like this: scheme, host and the beginning of a path"),
        )
        .arg(switch("all", None, "Everything").conflicts_with_all(["urls", "tag", "prefix"]))
        .arg(switch("yes", Some('y'), "Do not ask, with --all"))
        .arg(switch("soft", None, "Make it stale in place of deleting it").long_help(
            "Make it stale in place of deleting it: it is validated when it is next asked for, and still serves where \
             stale responses may (stale-while-revalidate, stale-if-error, an origin that cannot be reached).",
        ))
        .arg(switch("dry-run", Some('n'), "Only say what would go"))
        .args(desk())
        .arg(json())
}

pub(super) fn explain(command: Command) -> Command {
    command
        .long_about(
            "Say what a running larder serve would do with a GET for a URL now, and why; and each response that it has \
             stored for it: how old it is, how long it is fresh and who says so, its tags, what it varies on, its size. \
             Nothing is asked of the origin, and no request is counted.",
        )
        .after_long_help(
            "Examples:\n  larder explain https://example.com/news --admin http://127.0.0.1:9000\n  larder explain \
             https://example.com/ --header 'Accept-Encoding: gzip' --header 'Cookie: a=b'\n  larder explain \
             https://example.com/ --json | jq .verdict\n\nExit status 1: nothing is stored for it.",
        )
        .arg(Arg::new("url").value_name("URL").help("What a client asks for").required(true))
        .arg(header())
        .args(desk())
        .arg(json())
}

pub(super) fn warm(command: Command) -> Command {
    command
        .long_about(
            "Ask a cache for every URL of a sitemap, or of a list with one URL a line, so that it has them before \
             people ask. The sitemap (XML, or an index of such) is a file, a URL or - for standard input, and may be \
             compressed with gzip.",
        )
        .after_long_help(
            "Examples:\n  larder warm https://example.com/sitemap.xml --through http://127.0.0.1:8080\n  larder warm \
             urls.txt --rate 20/s --concurrency 2\n  larder warm sitemap.xml --header 'Accept-Encoding: gzip'\n  larder warm \
             sitemap.xml.gz\n\n\
             With --through, every request goes to that address, sitemaps too, and Host is the URL's. What is stored is \
             stored for the scheme of that address: with https: the certificate has to be for the URL's host.\n\n\
             Lines of a list that are empty or begin with # are skipped, and so is a URL that was there before. \
             Redirections are not followed. Answers are read to their end and thrown away.\n\n\
             Exit status 1: not all of them were answered, or not with a status below 400.",
        )
        .arg(
            Arg::new("source")
                .value_name("SOURCE")
                .help("A sitemap or a list: a file, a URL, or - for standard input")
                .required(true),
        )
        .arg(
            Arg::new("through")
                .long("through")
                .value_name("URL")
                .help("The cache that is asked, e.g. http://127.0.0.1:8080 [default: where each URL says]"),
        )
        .arg(
            Arg::new("rate")
                .long("rate")
                .value_name("RATE")
                .help("Begin no more requests than this, e.g. 20/s, 100/m [default: as fast as it answers]")
                .value_parser(units::rate),
        )
        .arg(
            Arg::new("concurrency")
                .long("concurrency")
                .value_name("NUMBER")
                .help("How many requests are on their way at once")
                .default_value(CONCURRENCY)
                .value_parser(value_parser!(u16).range(1..=1_000)),
        )
        .arg(header())
        .arg(ca())
        .arg(json())
}

/// `--ca`.
fn ca() -> Arg {
    Arg::new("ca")
        .long("ca")
        .value_name("FILE")
        .help("The certificates to believe, a PEM file [default: the platform's]")
        .value_parser(value_parser!(PathBuf))
}

/// `--header`.
fn header() -> Arg {
    Arg::new("header")
        .long("header")
        .value_name("FIELD")
        .help("A field of the request: 'Name: value' (repeatable)")
        .value_parser(units::header)
        .action(ArgAction::Append)
}

/// The flags that say where operators are let in.
fn desk() -> [Arg; 3] {
    [
        Arg::new("admin")
            .long("admin")
            .value_name("URL")
            .help("The admin address of the server, e.g. http://127.0.0.1:9000 [default: LARDER_ADMIN]"),
        Arg::new("token-file")
            .long("token-file")
            .value_name("FILE")
            .help("The file with the token that lets operators in [default: LARDER_ADMIN_TOKEN]")
            .value_parser(value_parser!(PathBuf)),
        ca(),
    ]
}
