//! The flags of `larder serve`. What they mean is in `proxy::config`.

use clap::{Arg, ArgAction, Command};

use super::flags::{config, json, store};
use super::switch;

const HELP: &str = "\
Examples:
  larder serve --origin http://127.0.0.1:3000
  larder serve --origin http://127.0.0.1:3000 --listen :80 --store redis://localhost
  LARDER_ADMIN_TOKEN=… larder serve --origin http://127.0.0.1:3000 --admin 127.0.0.1:9000
  larder serve --config serve.yaml
  larder serve --config serve.yaml --check         # what it means, secrets masked

Several --origin are upstreams of one origin, by turns. Everything else (several origins, TLS, health checks, time and
size limits, what origins are told of clients) is in the configuration; flags win over it.

Signals: HUP reads the configuration again; TERM and INT let requests end, then stop.";

pub(crate) fn serve(command: Command) -> Command {
    command
        .long_about(
            "Serve an origin through a shared HTTP cache: a reverse proxy that keeps what may be kept (RFC 9111), in \
             memory and in a store.",
        )
        .after_long_help(HELP)
        .arg(
            Arg::new("origin")
                .short('o')
                .long("origin")
                .value_name("URL")
                .help("Whom to ask, e.g. http://127.0.0.1:3000 (repeatable: upstreams of one origin)")
                .action(ArgAction::Append),
        )
        .arg(
            Arg::new("listen")
                .short('l')
                .long("listen")
                .value_name("ADDRESS")
                .help("Where to listen: 127.0.0.1:8080, :8080 for everybody (repeatable) [default: 127.0.0.1:8080]")
                .action(ArgAction::Append),
        )
        .arg(store().help("Where responses are kept beside memory [default: serve.db in your cache folder]"))
        .arg(config().help("The configuration of the server: see docs/serve.md"))
        .arg(
            Arg::new("cache-only")
                .long("cache-only")
                .value_name("WHAT")
                .help("Cache only this: example.com, *.example.com/img, /img for every host (repeatable)")
                .action(ArgAction::Append),
        )
        .arg(
            Arg::new("cache-by-default")
                .long("cache-by-default")
                .value_name("DURATION")
                .help("How long a response is fresh that says nothing about it, e.g. 5m [default: not at all]"),
        )
        .arg(
            Arg::new("admin")
                .long("admin")
                .value_name("ADDRESS")
                .help("Where operators reach it, with a token: see larder purge, larder explain"),
        )
        .arg(
            Arg::new("admin-token-file")
                .long("admin-token-file")
                .value_name("FILE")
                .help("The file with the token that lets them in [default: LARDER_ADMIN_TOKEN]"),
        )
        .arg(
            Arg::new("access-log")
                .long("access-log")
                .value_name("FORM")
                .help("Write a line for each request: common, combined or json")
                .value_parser(["none", "common", "combined", "json"]),
        )
        .arg(switch("check", None, "Only say what the configuration means, and what is wrong with it"))
        .arg(json().requires("check"))
}
