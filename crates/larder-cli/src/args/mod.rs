//! The table of commands and flags: what parses the command line also makes the help, the man page and the
//! completions. Knows nothing of what the commands do.
//!
//! [`low::LowArgs`] is exactly what was typed; [`high::HiArgs`] is what it means once environment, files and
//! standard input were looked at. One conversion lies between them.

mod flags;
pub(crate) mod high;
pub(crate) mod low;
mod operate;
pub(crate) mod serve;
mod stores;
pub(crate) mod units;

use clap::{Arg, ArgAction, Command, value_parser};

use flags::{config, explain, json, key, namespace, of_run, prefix, store_flags, ttl};

/// The whole table.
pub(crate) fn command() -> Command {
    Command::new("larder")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Caches what commands print, and looks into any cache")
        .long_about(
            "Caches what commands print, and looks into any cache.\n\n\
             `larder run -- COMMAND` runs a command once and answers from its cache until the TTL is over. \
             The other commands read and change what is stored in a file, a SQLite database or any other \
             store that Larder knows.",
        )
        .after_long_help(AFTER_HELP)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .max_term_width(100)
        .subcommands(COMMANDS.iter().map(|&(name, about, rest)| {
            // Built when it is used: all of them together would be a fifth of a hit.
            Command::new(name).about(about).defer(rest)
        }))
}

/// Each command with what it does in one line, and the rest of it.
type Entry = (&'static str, &'static str, fn(Command) -> Command);

const COMMANDS: [Entry; 23] = [
    ("run", "Run a command, or print what it printed before", run),
    ("get", "Print a value", get),
    ("set", "Store a value", set),
    ("delete", "Delete values", delete),
    ("expire", "Make a value stale: only its grace is left, and without one nothing", expire),
    ("touch", "Give a value a new TTL, counted from now", touch),
    ("incr", "Add to a counter and print it", incr),
    ("keys", "List the keys, one per line", keys),
    ("tags", "List the tags that entries carry, with their numbers", tags),
    ("invalidate", "Delete what carries a tag, or make it stale", invalidate),
    ("clear", "Delete everything, or everything in a namespace", clear),
    ("stats", "Count what is stored: live, stale, tombstones; oldest and newest", stats),
    ("prune", "Give back the space of what has expired", prune),
    ("migrate", "Copy what is in one store to another", stores::migrate),
    ("serve", "Serve an origin through an HTTP cache: a reverse proxy", serve::serve),
    ("purge", "Drop what a running server has stored", operate::purge),
    ("explain", "Say what a running server would do with a request, and why", operate::explain),
    ("warm", "Ask a cache for every URL of a sitemap or a list", operate::warm),
    ("drivers", "List the kinds of stores and their options", stores::drivers),
    ("ping", "Say whether stores answer, and how fast", stores::ping),
    ("check", "Say what a configuration means, and what is wrong with it", check),
    ("completions", "Print completions for a shell", completions),
    ("man", "Print the manual page, as roff", man),
];

const AFTER_HELP: &str = "\
Exit status (all commands but run):
  0  found, or done
  1  not found
  2  the command line or the configuration makes no sense
  3  the store failed, or a server that was asked

`larder run` exits as its command does; see `larder run --help`.

Environment:
  LARDER_STORE    the store, if neither --store nor --config is given
  LARDER_CONFIG   the configuration file, if LARDER_STORE is not set either
  LARDER_CACHE    the cache in the configuration file, if --cache is not given
  LARDER_ADMIN    where purge and explain reach a running server, if --admin is not given
  LARDER_ADMIN_TOKEN  what lets them in, and what serve lets in, if no file is given
  XDG_CACHE_HOME  where the default stores live, in the folder larder (default: ~/.cache)

A store that is not there is created by set, incr, run and migrate alone; for the others it is a mistake (status 2). The \
default store is never a mistake: until something is set there, it is empty.";

const RUN_HELP: &str = "\
Examples:
  larder run -- kubectl get pods
  larder run --ttl 1h -- curl -s https://example.com/feed.xml
  larder run --cwd --env LANG -- make list       # the folder and LANG belong to the key
  sort names.txt | larder run --stdin -- ./slow-filter
  larder run --key report --ttl 1d -- ./report.sh --verbose
  larder run --grace 1d --tag k8s -- kubectl get pods    # old output at once, fresh one behind
  larder invalidate k8s
  larder run --dry-run -- kubectl get pods       # would this be a hit?

What is kept: what the command wrote to standard output and to standard error, in the order it arrived, and \
its exit status. The command writes into pipes, so that some programs print without colours.

Old, late or failed: with --grace, output that is too old is printed at once while the command runs
in the background, where one run at a time is enough for all; --soft-timeout waits a moment for it
first. If the command fails, the old output is printed with its own status, as long as its grace
lasts. --hard-timeout gives up waiting. --force does without all that. --tag is what a new output is
kept under; what is kept already is printed whatever its tags.

What streams: without these flags, and with --grace when there is no old output, the command is a
child of larder: what it prints goes on at once, signals and standard input reach it. A run that is
waited for with --soft-timeout or --hard-timeout, and one in the background, has a session of its
own: it reads nothing (unless --stdin is given), has no terminal, survives larder, Ctrl-C and
logging out, and what it prints comes when it is done, if at all. Like any process it inherits what
the caller opened beside the three standard streams: a shell closes that with 3>&-.

At once: of several invocations with the same key, one runs the command; the others wait for it and print \
the same. If it is killed, another one takes over.

Where: in run.db in the folder larder of your cache folder (~/.cache/larder/run.db), which holds up to 1 GiB, \
the oldest going first; or in the store that --store or LARDER_STORE names, e.g. \
sqlite:run.db?max_bytes=100MiB. What has expired is removed now and then. The commands keys, stats, prune, \
delete and clear look there with --run: larder clear --run.

What is not kept: the output of a command that failed, unless --keep-failures is given; that of one that died \
of a signal or was interrupted, ever; and what was not read to its end, as in larder run -- ls | head -1. A \
failure that is kept is printed to later calls with or without the flag, until its TTL is over.

Exit status: the command's own; 128+N if it died of signal N; 124 after --hard-timeout; 126 if it cannot be executed; 127 if it was not \
found; 125 if larder itself failed; 2 for a wrong command line. With --dry-run: 0 for a hit, 1 for a miss.

A store that fails never keeps the command from running: larder says so on standard error and runs it. A \
store that cannot be, such as one of an unknown kind, is a wrong command line.";

fn run(command: Command) -> Command {
    command
        .long_about(
            "Run a command, or print what it printed before.\n\n\
             The key is the command with its arguments, and whatever --cwd, --env and --stdin add to it; or \
             --key alone. Options of larder stand before the command.",
        )
        .after_long_help(RUN_HELP)
        .override_usage("larder run [OPTIONS] -- COMMAND [ARGS]...")
        .arg(
            Arg::new("command")
                .value_name("COMMAND")
                .help("The command and its arguments")
                .value_parser(value_parser!(std::ffi::OsString))
                .num_args(1..)
                .trailing_var_arg(true)
                .required(true),
        )
        .arg(ttl().help("How long the output is good for [default: 10m]").long_help(
            "How long the output is good for, e.g. 30s, 10m, 1h30m, 7d, or forever [default: 10m]. \
                     If given, output older than this is not used either, however long it was meant to live \
                     when it was stored. Zero keeps nothing.",
        ))
        .arg(
            Arg::new("key")
                .short('k')
                .long("key")
                .value_name("KEY")
                .help("Use this key in place of the command and its arguments")
                .value_parser(value_parser!(std::ffi::OsString))
                .conflicts_with_all(["cwd", "env", "stdin"]),
        )
        .arg(switch("cwd", None, "Make the working directory a part of the key"))
        .arg(
            Arg::new("env")
                .short('e')
                .long("env")
                .value_name("NAME")
                .help("Make an environment variable a part of the key (repeatable)")
                .long_help(
                    "Make an environment variable a part of the key, by its name; repeatable. Unset differs from empty.",
                )
                .value_parser(value_parser!(std::ffi::OsString))
                .action(ArgAction::Append),
        )
        .arg(switch("stdin", None, "Make standard input a part of the key, and pass it on").long_help(
            "Read standard input whole, make it a part of the key, and pass it to the command. Without \
                 this the command inherits standard input, and a hit leaves it unread.",
        ))
        .arg(
            switch("keep-failures", None, "Also keep the output of a command that exits with non-zero")
                .long_help(
                    "Also keep the output of a command that exits with non-zero, for later calls with or without \
                     this flag. What died of a signal is never kept.",
                ),
        )
        .arg(switch("force", Some('f'), "Run the command even on a hit, and replace what is kept"))
        .arg(
            switch("dry-run", Some('n'), "Only say whether this would be a hit")
                .conflicts_with("force")
                .long_help("Only say whether this would be a hit (exit status 0) or a miss (1)."),
        )
        .arg(
            Arg::new("max-output")
                .long("max-output")
                .value_name("SIZE")
                .help("Do not keep output that is larger than this [default: 64MiB]")
                .long_help(
                    "Do not keep output that is larger than this, e.g. 500kB, 64MiB [default: 64MiB]; it is \
                     passed through whole all the same. With --stdin, the input counts too.",
                )
                .value_parser(units::size),
        )
        .args(survival())
        .arg(flags::store())
        .arg(switch("verbose", Some('v'), "Say on standard error whether it was a hit, and how old"))
        .arg(explain())
}

/// The flags that say what happens when the output is old, late or cannot be had.
fn survival() -> [Arg; 5] {
    [
        Arg::new("grace")
            .long("grace")
            .value_name("DURATION")
            .help("For so long after its TTL, print the old output at once and refresh it behind")
            .long_help(
                "For so long after its TTL, output is stale but good enough: it is printed at once, and the \
                 command runs in the background to replace it. If the command fails, the old output stays. Counts \
                 for output that was kept with --grace.",
            )
            .value_parser(units::duration),
        Arg::new("soft-timeout")
            .long("soft-timeout")
            .value_name("DURATION")
            .help("With --grace: wait so long for fresh output before printing the old [default: 0]")
            .long_help(
                "With --grace: wait so long for fresh output before the old one is printed [default: 0]. The \
                 command goes on in the background. If it fails in time, the old output is printed in place of \
                 its own.",
            )
            .value_parser(units::duration)
            .requires("grace")
            .conflicts_with("force"),
        Arg::new("hard-timeout")
            .long("hard-timeout")
            .value_name("DURATION")
            .help("Wait no longer than this; the command goes on in the background")
            .long_help(
                "Wait no longer than this: with nothing to print, exit with status 124. The command goes on in the \
                 background, and what it prints is kept.",
            )
            .value_parser(units::duration)
            .conflicts_with("force"),
        Arg::new("refresh-early")
            .long("refresh-early")
            .value_name("SHARE")
            .help("Refresh behind a hit once this share of the TTL is over, e.g. 0.9")
            .value_parser(units::share),
        Arg::new("tag")
            .long("tag")
            .value_name("TAG")
            .help("A tag that the output can be invalidated by (repeatable)")
            .action(ArgAction::Append),
    ]
}

fn get(command: Command) -> Command {
    with_store(command)
        .after_long_help(
            "Examples:\n  larder get user:42\n  larder get --json user:42 | jq .ttl_left_ms\n  \
             larder get photo --store sqlite:app.db > photo.png",
        )
        .arg(key())
        .arg(switch("stale", None, "Also print a value that is stale, if its grace is not over"))
        .arg(switch("raw", None, "Print the exact bytes even on a terminal").long_help(
            "Print the exact bytes even on a terminal. Without this, control characters are escaped \
                 there. What goes to a file or a pipe is always exact.",
        ))
}

fn set(command: Command) -> Command {
    with_store(command)
        .after_long_help(
            "Examples:\n  larder set greeting hello --ttl 10m\n  larder set page @page.html --tag site --tag \
             news\n  date | larder set now -\n  larder set handle @@ada            # the value @ada\n  larder \
             set lock \"$$\" --if-absent --ttl 1m && echo mine\n\nA TTL of zero stores nothing, and what \
             was there goes. What is set in the store memory: is gone when the command ends.\n\nExit status 1: nothing was \
             stored, because the TTL is zero or, with --if-absent, because there was one already.",
        )
        .arg(key())
        .arg(
            Arg::new("value")
                .value_name("VALUE")
                .help("The value; @FILE reads a file, - or nothing reads standard input")
                .long_help(
                    "The value. @FILE is what a file holds; - or nothing at all is standard input; @@x is the \
                     value @x.",
                )
                .allow_hyphen_values(true)
                .value_parser(value_parser!(std::ffi::OsString)),
        )
        .arg(ttl().help("How long it is fresh, e.g. 10m, 1h30m, forever [default: the cache's, or 30m]"))
        .arg(
            Arg::new("grace")
                .long("grace")
                .value_name("DURATION")
                .help("How long after that it may still be served when a reload fails")
                .value_parser(units::duration),
        )
        .arg(
            Arg::new("tag")
                .long("tag")
                .value_name("TAG")
                .help("A tag that it can be invalidated by (repeatable)")
                .action(ArgAction::Append),
        )
        .arg(switch("if-absent", None, "Only if there is none"))
}

fn delete(command: Command) -> Command {
    with_store(command)
        .after_long_help(
            "Examples:\n  larder delete user:42\n  larder delete user:42 user:43 --json\n\nExit status 1: \
             there was none of them.",
        )
        .arg(key().num_args(1..).help("The keys"))
        .arg(of_run())
}

fn expire(command: Command) -> Command {
    with_store(command).after_long_help("Examples:\n  larder expire user:42").arg(key())
}

fn touch(command: Command) -> Command {
    with_store(command)
        .after_long_help("Examples:\n  larder touch session:9f --ttl 1h")
        .arg(key())
        .arg(ttl().help("How long it is fresh from now on, e.g. 10m, forever").required(true))
}

fn incr(command: Command) -> Command {
    with_store(command)
        .after_long_help(
            "Examples:\n  larder incr visits\n  larder incr stock -3 --existing\n\nExit status 1 with \
             --existing: there was none. Exit status 2: what is there is no whole number, or would become too \
             large.",
        )
        .arg(key())
        .arg(
            Arg::new("by")
                .value_name("BY")
                .help("How much to add; may be negative [default: 1]")
                .allow_negative_numbers(true)
                .value_parser(value_parser!(i64)),
        )
        .arg(switch("existing", None, "Refuse to begin a counter that is not there"))
}

fn keys(command: Command) -> Command {
    with_store(command)
        .long_about(
            "List the keys, one per line, in no particular order. Control characters and backslashes are \
             escaped; --json prints exact keys, one object per line.",
        )
        .after_long_help(
            "Examples:\n  larder keys\n  larder keys user: --namespace app\n  larder keys --json | wc -l\n  \
             larder keys --run\n\nNo keys are no failure: the exit status is 0.",
        )
        .arg(of_run())
        .arg(Arg::new("key-prefix").value_name("START").help("Only keys that begin with this"))
}

fn clear(command: Command) -> Command {
    with_store(command)
        .long_about(
            "Delete everything under the prefix, or everything in a namespace and those inside it. Asks first \
             on a terminal; elsewhere it wants --yes.",
        )
        .after_long_help(
            "Examples:\n  larder clear --namespace app/users\n  larder clear --yes --store sqlite:app.db\n  larder \
             clear --run\n\nIn what --json prints, reclaimed counts the records that the store gave up, tombstones \
             of deleted keys among them.",
        )
        .arg(of_run())
        .arg(switch("yes", Some('y'), "Do not ask"))
        .arg(soft())
        .arg(dry_run())
}

fn tags(command: Command) -> Command {
    with_store(command)
        .long_about(
            "List the tags that entries carry, each after the number of its entries. Every entry is read. Control \
             characters and backslashes are escaped; --json prints exact tags, one object per line.\n\n\
             Without --store, --config and --prefix, what `larder run` keeps is looked at as well.",
        )
        .after_long_help(
            "Examples:\n  larder tags\n  larder tags user: --namespace app\n  larder tags --json --store \
             sqlite:app.db\n\nExit status 1: there is none.",
        )
        .arg(Arg::new("tag-prefix").value_name("START").help("Only tags that begin with this"))
}

fn invalidate(command: Command) -> Command {
    with_store(command)
        .long_about(
            "Delete what carries one of these tags, in a namespace and those inside it. It costs one write \
             a tag and one more, however many entries there are, and holds at once for whoever reads the store; a program that keeps \
             entries in its memory learns of it when it next reads the store.\n\n\
             Without --store, --config and --prefix, what `larder run` keeps is meant as well.",
        )
        .after_long_help(
            "Examples:\n  larder invalidate users\n  larder invalidate news site --soft\n  larder invalidate users \
             --dry-run --store sqlite:app.db\n\nExit status 1 with --dry-run: nothing would go.",
        )
        .arg(Arg::new("tag").value_name("TAG").help("The tags").required(true).num_args(1..))
        .arg(soft())
        .arg(dry_run())
}

fn soft() -> Arg {
    switch("soft", None, "Make it stale in place of deleting it").long_help(
        "Make it stale in place of deleting it: what has a grace may still be served while it is loaded again, what \
         has none is gone.",
    )
}

fn dry_run() -> Arg {
    switch("dry-run", Some('n'), "Only say how many entries would go").long_help(
        "Only say how many entries would go. Up to 10000 are looked at; if there are more, it says that this is a \
         sample.",
    )
}

fn stats(command: Command) -> Command {
    with_store(command)
        .after_long_help(
            "Examples:\n  larder stats\n  larder stats --namespace app --json\n  larder stats --run\n  larder stats \
             --prometheus > /var/lib/node_exporter/larder.prom\n\nWhat has expired is not counted: a store does not show \
             it, whether or not it is pruned yet.",
        )
        .arg(
            switch("prometheus", None, "Print a page for Prometheus to read")
                .conflicts_with("json")
                .long_help(
                    "Print a page in Prometheus's text format, for the textfile collector of node_exporter: with \
                     --config every cache that has a store, unless --cache names one; otherwise the one that is \
                     named. Whether each store answered is on the page.",
                ),
        )
        .arg(of_run())
}

fn prune(command: Command) -> Command {
    with_store(command)
        .after_long_help(
            "Examples:\n  larder prune --store sqlite:app.db\n  larder prune --run\n\nThe whole store is pruned, \
             whatever the namespace.",
        )
        .arg(of_run())
}

fn check(command: Command) -> Command {
    command
        .long_about(
            "Say what a configuration means, secrets masked, or what is wrong with it and where. Connects to \
             nothing, unless --connect is given; never creates a store.",
        )
        .after_long_help(
            "Examples:\n  larder check larder.yaml\n  larder check --config larder.yaml --connect\n  larder check \
             --from beego:redis beego.json\n  larder check --from beignet",
        )
        .arg(
            Arg::new("file")
                .value_name("FILE")
                .help("The configuration file [default: LARDER_CONFIG]")
                .value_parser(value_parser!(std::path::PathBuf)),
        )
        .arg(config().help("The configuration file, as the other commands take it").conflicts_with("file"))
        .arg(
            Arg::new("from")
                .long("from")
                .value_name("WHOSE")
                .help("Take it for a document of beego's (beego:ADAPTER), or for the variables of Beignet's (beignet)"),
        )
        .arg(switch("connect", None, "Also try every store that it names"))
        .arg(json())
}

fn completions(command: Command) -> Command {
    command
        .after_long_help(
            "Examples:\n  larder completions bash > ~/.local/share/bash-completion/completions/larder\n  larder \
             completions zsh > ~/.zfunc/_larder\n  larder completions fish > \
             ~/.config/fish/completions/larder.fish",
        )
        .arg(
            Arg::new("shell")
                .value_name("SHELL")
                .help("The shell")
                .required(true)
                .value_parser(["bash", "zsh", "fish"]),
        )
}

fn man(command: Command) -> Command {
    command.after_long_help(
        "Examples:\n  larder man | man -l -\n  larder man > ~/.local/share/man/man1/larder.1",
    )
}

/// A command over a store: it takes the flags that name one, and `--json`.
fn with_store(command: Command) -> Command {
    command.args(store_flags()).arg(namespace()).arg(prefix()).arg(explain()).arg(json())
}

fn switch(name: &'static str, short: Option<char>, help: &'static str) -> Arg {
    let arg = Arg::new(name).long(name).help(help).action(ArgAction::SetTrue);
    match short {
        Some(short) => arg.short(short),
        None => arg,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn each_command() -> Vec<Command> {
        let mut root = command();
        root.build();
        root.get_subcommands().filter(|command| command.get_name() != "help").cloned().collect()
    }

    #[test]
    fn the_table_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_does_and_shows_examples() {
        for command in each_command() {
            let name = command.get_name();
            assert!(command.get_about().is_some(), "{name} has no description");
            let more = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
            assert!(more.contains("Examples:"), "{name} shows no example");
            assert!(more.contains(&format!("larder {name}")), "{name}'s examples show something else");
        }
    }

    #[test]
    fn every_flag_is_documented_in_one_line_without_a_stop() {
        for command in each_command() {
            for arg in command.get_arguments() {
                let name = format!("{} {}", command.get_name(), arg.get_id());
                let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                assert!(!help.is_empty() && !help.contains('\n'), "{name}: {help:?}");
                assert!(!help.ends_with('.') || arg.get_id() == "help", "{name}: {help:?}");
                assert!(help.starts_with(|c: char| c.is_uppercase()), "{name}: {help:?}");
            }
        }
    }

    #[test]
    fn flags_have_unique_names_and_upper_case_values() {
        for command in each_command() {
            let mut seen = HashSet::new();
            for arg in command.get_arguments() {
                let name = format!("{} {}", command.get_name(), arg.get_id());
                if let Some(short) = arg.get_short() {
                    assert!(seen.insert(short.to_string()), "{name}: -{short} twice");
                }
                if let Some(long) = arg.get_long() {
                    assert!(seen.insert(long.to_owned()), "{name}: --{long} twice");
                    assert!(long.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{name}");
                }
                if arg.get_action().takes_values() {
                    let values = arg.get_value_names().unwrap_or_default();
                    assert!(!values.is_empty(), "{name} has no value name");
                    assert!(values.iter().all(|v| v.chars().all(|c| c.is_ascii_uppercase())), "{name}");
                }
            }
        }
    }

    #[test]
    fn a_short_flag_means_the_same_everywhere() {
        let mut meanings = std::collections::HashMap::new();
        for command in each_command() {
            for arg in command.get_arguments() {
                if let (Some(short), Some(long)) = (arg.get_short(), arg.get_long()) {
                    let known = meanings.entry(short).or_insert_with(|| long.to_owned());
                    assert_eq!(known, long, "-{short} in {}", command.get_name());
                }
            }
        }
    }
}
