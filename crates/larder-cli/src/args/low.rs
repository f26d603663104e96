//! What was typed, no more: nothing here looks at the environment, at files or at a terminal.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::ArgMatches;
use http::{HeaderName, HeaderValue};
use larder::time::Ttl;

use crate::proxy::config::Flags;
use crate::store::{Access, End};

/// What was typed.
#[derive(Debug)]
pub(crate) enum LowArgs {
    /// `larder run`.
    Run(LowRun),
    /// A command over a store.
    Store(LowTarget, Operation),
    /// `larder check`.
    Check {
        /// The configuration file.
        file: Option<PathBuf>,
        /// Whose document it is, if not Larder's.
        from: Option<String>,
        /// Whether to try its stores.
        connect: bool,
        /// Whether to print JSON.
        json: bool,
    },
    /// `larder migrate`.
    Migrate(LowMigrate),
    /// `larder serve`.
    Serve(Flags),
    /// `larder purge`.
    Purge(LowPurge),
    /// `larder explain`.
    Explain(LowExplain),
    /// `larder warm`.
    Warm(LowWarm),
    /// `larder drivers`.
    Drivers {
        /// Whether to print JSON.
        json: bool,
    },
    /// `larder ping`.
    Ping(LowPing),
    /// `larder completions`, with the shell's name.
    Completions(String),
    /// `larder man`.
    Man,
}

/// The flags of `larder run`.
#[derive(Debug)]
pub(crate) struct LowRun {
    pub(crate) command: Vec<OsString>,
    pub(crate) ttl: Option<Ttl>,
    pub(crate) key: Option<OsString>,
    pub(crate) cwd: bool,
    pub(crate) env: Vec<OsString>,
    pub(crate) stdin: bool,
    pub(crate) keep_failures: bool,
    pub(crate) force: bool,
    pub(crate) dry_run: bool,
    pub(crate) max_output: Option<u64>,
    pub(crate) grace: Option<Duration>,
    pub(crate) soft_timeout: Option<Duration>,
    pub(crate) hard_timeout: Option<Duration>,
    pub(crate) refresh_early: Option<f64>,
    pub(crate) tags: Vec<String>,
    pub(crate) store: Option<String>,
    pub(crate) verbose: bool,
    pub(crate) explain: bool,
}

/// The flags of `larder migrate`.
#[derive(Debug)]
pub(crate) struct LowMigrate {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) prefix: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) dry_run: bool,
    pub(crate) json: bool,
}

/// The flags that say where operators are let in.
#[derive(Debug)]
pub(crate) struct LowDesk {
    pub(crate) admin: Option<String>,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) ca: Option<PathBuf>,
}

/// The flags of `larder purge`.
#[derive(Debug)]
pub(crate) struct LowPurge {
    pub(crate) desk: LowDesk,
    pub(crate) urls: Vec<String>,
    pub(crate) tags: Vec<String>,
    pub(crate) prefix: Option<String>,
    pub(crate) all: bool,
    pub(crate) yes: bool,
    pub(crate) soft: bool,
    pub(crate) dry_run: bool,
    pub(crate) json: bool,
}

/// The flags of `larder explain`.
#[derive(Debug)]
pub(crate) struct LowExplain {
    pub(crate) desk: LowDesk,
    pub(crate) url: String,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) json: bool,
}

/// The flags of `larder warm`.
#[derive(Debug)]
pub(crate) struct LowWarm {
    pub(crate) source: String,
    pub(crate) through: Option<String>,
    pub(crate) every: Option<Duration>,
    pub(crate) concurrency: u16,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) json: bool,
}

/// The flags of `larder ping`.
#[derive(Debug)]
pub(crate) struct LowPing {
    pub(crate) stores: Vec<String>,
    pub(crate) config: Option<PathBuf>,
    pub(crate) cache: Option<String>,
    pub(crate) count: u32,
    pub(crate) json: bool,
}

/// The flags that say which cache is meant, and how to print.
#[derive(Debug)]
pub(crate) struct LowTarget {
    pub(crate) store: Option<String>,
    pub(crate) config: Option<PathBuf>,
    pub(crate) cache: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) prefix: Option<String>,
    /// Whether the cache of `larder run` is meant.
    pub(crate) run: bool,
    pub(crate) explain: bool,
    pub(crate) json: bool,
}

/// What to do with a cache.
#[derive(Debug)]
pub(crate) enum Operation {
    Get {
        key: String,
        raw: bool,
        stale: bool,
    },
    Set {
        key: String,
        value: Source,
        ttl: Option<Ttl>,
        grace: Option<Duration>,
        tags: Vec<String>,
        if_absent: bool,
    },
    Delete {
        keys: Vec<String>,
    },
    Expire {
        key: String,
    },
    Touch {
        key: String,
        ttl: Ttl,
    },
    Incr {
        key: String,
        by: i64,
        existing: bool,
    },
    Keys {
        prefix: String,
    },
    Clear {
        yes: bool,
        end: End,
        dry_run: bool,
    },
    Invalidate {
        tags: Vec<String>,
        end: End,
        dry_run: bool,
    },
    Tags {
        prefix: String,
    },
    Stats {
        prometheus: bool,
    },
    Prune,
}

/// Where a value comes from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// It was typed.
    Typed(OsString),
    /// It is what a file holds.
    File(PathBuf),
    /// It is standard input.
    Stdin,
}

impl Source {
    /// The meaning of a typed `VALUE`: `@FILE`, `-`, `@@x` for `@x`, or itself.
    fn parse(typed: Option<OsString>) -> Self {
        use std::os::unix::ffi::{OsStrExt, OsStringExt};
        let Some(typed) = typed else { return Self::Stdin };
        match typed.as_bytes() {
            b"-" => Self::Stdin,
            [b'@', rest @ ..] if rest.starts_with(b"@") => Self::Typed(OsString::from_vec(rest.to_vec())),
            [b'@', path @ ..] => Self::File(PathBuf::from(OsString::from_vec(path.to_vec()))),
            _ => Self::Typed(typed),
        }
    }
}

impl LowArgs {
    /// Reads the matches of the table in [`super::command`].
    pub(crate) fn from_matches(matches: &mut ArgMatches) -> Option<Self> {
        let (name, mut matches) = matches.remove_subcommand()?;
        let low = match name.as_str() {
            "run" => Self::Run(LowRun::from_matches(&mut matches)),
            "check" => Self::Check {
                file: matches.remove_one("file").or_else(|| matches.remove_one("config")),
                from: matches.remove_one("from"),
                connect: matches.get_flag("connect"),
                json: matches.get_flag("json"),
            },
            "migrate" => Self::Migrate(LowMigrate {
                from: matches.remove_one("from")?,
                to: matches.remove_one("to")?,
                prefix: matches.remove_one("prefix"),
                namespace: matches.remove_one("namespace"),
                dry_run: matches.get_flag("dry-run"),
                json: matches.get_flag("json"),
            }),
            "serve" => Self::Serve(Flags::from_matches(&mut matches)),
            "purge" => Self::Purge(LowPurge {
                desk: LowDesk::from_matches(&mut matches),
                urls: many(&mut matches, "urls"),
                tags: many(&mut matches, "tag"),
                prefix: matches.remove_one("prefix"),
                all: matches.get_flag("all"),
                yes: matches.get_flag("yes"),
                soft: matches.get_flag("soft"),
                dry_run: matches.get_flag("dry-run"),
                json: matches.get_flag("json"),
            }),
            "explain" => Self::Explain(LowExplain {
                desk: LowDesk::from_matches(&mut matches),
                url: matches.remove_one("url")?,
                headers: many(&mut matches, "header"),
                json: matches.get_flag("json"),
            }),
            "warm" => Self::Warm(LowWarm {
                source: matches.remove_one("source")?,
                through: matches.remove_one("through"),
                every: matches.remove_one("rate"),
                concurrency: matches.remove_one("concurrency")?,
                headers: many(&mut matches, "header"),
                ca: matches.remove_one("ca"),
                json: matches.get_flag("json"),
            }),
            "drivers" => Self::Drivers { json: matches.get_flag("json") },
            "ping" => Self::Ping(LowPing {
                stores: many(&mut matches, "stores"),
                config: matches.remove_one("config"),
                cache: matches.remove_one("cache"),
                count: matches.remove_one("count")?,
                json: matches.get_flag("json"),
            }),
            "completions" => Self::Completions(matches.remove_one("shell")?),
            "man" => Self::Man,
            name => {
                let operation = Operation::from_matches(name, &mut matches)?;
                Self::Store(LowTarget::from_matches(&mut matches), operation)
            }
        };
        Some(low)
    }
}

impl LowRun {
    fn from_matches(matches: &mut ArgMatches) -> Self {
        Self {
            command: many(matches, "command"),
            ttl: matches.remove_one("ttl"),
            key: matches.remove_one("key"),
            cwd: matches.get_flag("cwd"),
            env: many(matches, "env"),
            stdin: matches.get_flag("stdin"),
            keep_failures: matches.get_flag("keep-failures"),
            force: matches.get_flag("force"),
            dry_run: matches.get_flag("dry-run"),
            max_output: matches.remove_one("max-output"),
            grace: matches.remove_one("grace"),
            soft_timeout: matches.remove_one("soft-timeout"),
            hard_timeout: matches.remove_one("hard-timeout"),
            refresh_early: matches.remove_one("refresh-early"),
            tags: many(matches, "tag"),
            store: matches.remove_one("store"),
            verbose: matches.get_flag("verbose"),
            explain: matches.get_flag("explain"),
        }
    }
}

impl LowDesk {
    fn from_matches(matches: &mut ArgMatches) -> Self {
        Self {
            admin: matches.remove_one("admin"),
            token_file: matches.remove_one("token-file"),
            ca: matches.remove_one("ca"),
        }
    }
}

impl LowTarget {
    fn from_matches(matches: &mut ArgMatches) -> Self {
        Self {
            store: matches.remove_one("store"),
            config: matches.remove_one("config"),
            cache: matches.remove_one("cache"),
            namespace: matches.remove_one("namespace"),
            prefix: matches.remove_one("prefix"),
            // Not every command has it.
            run: matches.try_get_one("run").is_ok_and(|run| run == Some(&true)),
            explain: matches.get_flag("explain"),
            json: matches.get_flag("json"),
        }
    }
}

impl Operation {
    /// What has to be possible with the store.
    pub(crate) fn access(&self) -> Access {
        match self {
            Self::Get { .. } | Self::Keys { .. } | Self::Stats { .. } | Self::Tags { .. } => Access::Read,
            Self::Set { .. } | Self::Incr { existing: false, .. } => Access::Create,
            _ => Access::Change,
        }
    }

    /// `None` only for a name that is not in the table.
    fn from_matches(name: &str, matches: &mut ArgMatches) -> Option<Self> {
        Some(match name {
            "get" => Self::Get {
                key: matches.remove_one("key")?,
                raw: matches.get_flag("raw"),
                stale: matches.get_flag("stale"),
            },
            "set" => Self::Set {
                key: matches.remove_one("key")?,
                value: Source::parse(matches.remove_one("value")),
                ttl: matches.remove_one("ttl"),
                grace: matches.remove_one("grace"),
                tags: many(matches, "tag"),
                if_absent: matches.get_flag("if-absent"),
            },
            "delete" => Self::Delete { keys: many(matches, "key") },
            "expire" => Self::Expire { key: matches.remove_one("key")? },
            "touch" => Self::Touch { key: matches.remove_one("key")?, ttl: matches.remove_one("ttl")? },
            "incr" => Self::Incr {
                key: matches.remove_one("key")?,
                by: matches.remove_one("by").unwrap_or(1),
                existing: matches.get_flag("existing"),
            },
            "keys" => Self::Keys { prefix: matches.remove_one("key-prefix").unwrap_or_default() },
            "clear" => Self::Clear {
                yes: matches.get_flag("yes"),
                end: end(matches),
                dry_run: matches.get_flag("dry-run"),
            },
            "invalidate" => Self::Invalidate {
                tags: many(matches, "tag"),
                end: end(matches),
                dry_run: matches.get_flag("dry-run"),
            },
            "tags" => Self::Tags { prefix: matches.remove_one("tag-prefix").unwrap_or_default() },
            "stats" => Self::Stats { prometheus: matches.get_flag("prometheus") },
            "prune" => Self::Prune,
            _ => return None,
        })
    }
}

fn end(matches: &ArgMatches) -> End {
    if matches.get_flag("soft") { End::Stale } else { End::Gone }
}

fn many<T: Clone + Send + Sync + 'static>(matches: &mut ArgMatches, id: &str) -> Vec<T> {
    matches.remove_many(id).map(Iterator::collect).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[&str]) -> Result<LowArgs, clap::Error> {
        let mut matches =
            super::super::command().try_get_matches_from(std::iter::once(&"larder").chain(line))?;
        Ok(LowArgs::from_matches(&mut matches).unwrap())
    }

    fn run(line: &[&str]) -> LowRun {
        match parse(line).unwrap() {
            LowArgs::Run(run) => run,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_after_the_command_belong_to_the_command() {
        for line in [
            ["run", "-f", "--", "ls", "-f", "--ttl", "x", "--"],
            ["run", "-f", "ls", "-f", "--ttl", "x", "--", ""].map(|word| word),
        ] {
            let run = run(&line);
            assert!(run.force && run.ttl.is_none());
            assert_eq!(run.command.first().unwrap(), "ls");
            assert_eq!(run.command.get(1).unwrap(), "-f");
            assert!(run.command.contains(&"--".into()));
        }
    }

    #[test]
    fn a_mistyped_flag_is_not_taken_for_the_command() {
        assert!(parse(&["run", "--tll", "5m", "--", "ls"]).is_err());
        assert!(parse(&["run", "--ttl", "5", "--", "ls"]).is_err());
        assert!(parse(&["run"]).is_err());
        assert!(parse(&["run", "--key", "k", "--cwd", "--", "ls"]).is_err());
    }

    #[test]
    fn every_operation_of_the_table_is_read() {
        for line in [
            &["get", "k"][..],
            &["set", "k", "v"],
            &["delete", "k", "l"],
            &["expire", "k"],
            &["touch", "k", "--ttl", "1m"],
            &["incr", "k", "-3"],
            &["keys"],
            &["clear"],
            &["invalidate", "t", "u"],
            &["tags"],
            &["stats"],
            &["prune"],
        ] {
            assert!(matches!(parse(line).unwrap(), LowArgs::Store(..)), "{line:?}");
        }
        assert!(matches!(parse(&["check"]).unwrap(), LowArgs::Check { .. }));
        assert!(matches!(parse(&["migrate", "a:", "b:"]).unwrap(), LowArgs::Migrate(_)));
        assert!(matches!(parse(&["purge", "a", "b"]).unwrap(), LowArgs::Purge(_)));
        assert!(parse(&["purge", "a", "--all"]).is_err());
        assert!(matches!(parse(&["explain", "a"]).unwrap(), LowArgs::Explain(_)));
        assert!(matches!(parse(&["warm", "-"]).unwrap(), LowArgs::Warm(LowWarm { concurrency: 8, .. })));
        assert!(matches!(parse(&["drivers"]).unwrap(), LowArgs::Drivers { json: false }));
        assert!(matches!(parse(&["ping"]).unwrap(), LowArgs::Ping(LowPing { count: 20, .. })));
        assert!(matches!(parse(&["completions", "zsh"]).unwrap(), LowArgs::Completions(_)));
        assert!(matches!(parse(&["man"]).unwrap(), LowArgs::Man));
    }

    #[test]
    fn a_value_is_typed_read_from_a_file_or_from_standard_input() {
        let source = |typed: &str| Source::parse(Some(typed.into()));
        assert_eq!(Source::parse(None), Source::Stdin);
        assert_eq!(source("-"), Source::Stdin);
        assert_eq!(source("@a/b"), Source::File("a/b".into()));
        assert_eq!(source("@@a"), Source::Typed("@a".into()));
        assert_eq!(source(""), Source::Typed("".into()));
        assert_eq!(source("-5"), Source::Typed("-5".into()));
    }
}
