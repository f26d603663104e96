//! What was typed, and what it means here: after a look at the environment, the working directory and, if
//! asked, standard input.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use larder::Tag;
use larder::config::Secret;
use larder::tag::TAGS_PER_ENTRY_MAX;
use larder::time::{Ttl, minutes};
use xxhash_rust::xxh3::xxh3_128;

use super::low::{
    LowArgs, LowDesk, LowExplain, LowMigrate, LowPing, LowPurge, LowRun, LowTarget, LowWarm, Operation,
};
use crate::cmd::admin::Desk;
use crate::cmd::admin::explain::Asked as Explained;
use crate::cmd::admin::purge::Purging;
use crate::cmd::migrate::Migration;
use crate::cmd::ping::Asked;
use crate::cmd::run::identity::Identity;
use crate::cmd::warm::{Source as Urls, Warming};
use crate::failure::Failure;
use crate::output::escape;
use crate::proxy::client::Address;
use crate::proxy::config::Flags;
use crate::store::check_url;

/// How long `larder run` keeps output, unless told otherwise: long enough to be of use, short enough that
/// nobody works all day with yesterday's output because of a forgotten flag.
const RUN_TTL: Ttl = Ttl::For(minutes(10));
/// The largest output that `larder run` keeps, unless told otherwise, in bytes.
const RUN_OUTPUT_MAX: u64 = 64 << 20;
/// What the keys of every store begin with, unless told otherwise.
pub(crate) const PREFIX: &str = "larder";
/// The namespace of what `larder run` keeps.
pub(crate) const RUN_NAMESPACE: &str = "run";
/// The file of what `larder run` keeps, in larder's cache folder.
const RUN_FILE: &str = "run.db";
/// The file of what `larder serve` keeps, in larder's cache folder.
const SERVE_FILE: &str = "serve.db";

/// What is to be done.
#[derive(Debug)]
pub(crate) enum HiArgs {
    /// `larder run`.
    Run(HiRun),
    /// A command over a store.
    Store(Target, Operation),
    /// `larder check`.
    Check {
        /// What to check.
        document: Document,
        /// Whether to try its stores.
        connect: bool,
        /// Whether to print JSON.
        json: bool,
    },
    /// `larder migrate`.
    Migrate(Migration),
    /// `larder serve`.
    Serve(Flags),
    /// `larder purge`.
    Purge(Purging),
    /// `larder explain`.
    Explain(Explained),
    /// `larder warm`.
    Warm(Warming),
    /// `larder drivers`.
    Drivers {
        /// Whether to print JSON.
        json: bool,
    },
    /// `larder ping`.
    Ping {
        asked: Asked,
        /// How often.
        count: u32,
        /// Whether to print JSON.
        json: bool,
    },
    /// `larder completions`, with the shell's name.
    Completions(String),
    /// `larder man`.
    Man,
}

/// What `larder check` looks at.
#[derive(Debug)]
pub(crate) enum Document {
    /// A configuration file.
    Config(PathBuf),
    /// A file with the text that beego's adapter of this name is given.
    Beego(String, PathBuf),
    /// The variables of Beignet's Redis provider.
    Beignet,
}

impl Document {
    fn from_low(file: Option<PathBuf>, from: Option<String>) -> Result<Self, Failure> {
        let named = |file: Option<PathBuf>, or: &str| {
            file.ok_or_else(|| Failure::usage(format!("there is nothing to check: name a {or}")))
        };
        match from.as_deref().map(|from| from.split_once(':').unwrap_or((from, ""))) {
            None => {
                let file = file.or_else(|| variable("LARDER_CONFIG").map(PathBuf::from));
                Ok(Self::Config(named(file, "configuration file, or set LARDER_CONFIG")?))
            }
            Some(("beego", adapter)) if !adapter.is_empty() => {
                Ok(Self::Beego(adapter.to_owned(), named(file, "file with beego's JSON")?))
            }
            Some(("beignet", "")) if file.is_some() => {
                Err(Failure::usage("--from beignet takes its variables from the environment, and no file"))
            }
            Some(("beignet", "")) => Ok(Self::Beignet),
            Some(_) => Err(Failure::usage("--from takes beego:ADAPTER (such as beego:redis) or beignet")),
        }
    }
}

/// What `larder run` is to do.
#[derive(Debug)]
pub(crate) struct HiRun {
    /// The program and its arguments; never empty.
    pub(crate) command: Vec<OsString>,
    /// What makes this invocation the same as another one.
    pub(crate) identity: Identity,
    /// What the command reads; `None`: whatever larder itself would.
    pub(crate) stdin: Option<Bytes>,
    /// How long its output is good for.
    pub(crate) ttl: Ttl,
    /// How old the output may be at most that is given back; `None`: as old as it was stored for.
    pub(crate) age_max: Option<Duration>,
    pub(crate) keep_failures: bool,
    pub(crate) force: bool,
    pub(crate) dry_run: bool,
    /// In bytes.
    pub(crate) output_max: u64,
    /// How long after its TTL the output may still be given back; `None`: not at all.
    pub(crate) grace: Option<Duration>,
    /// How long a run is waited for where there is something stale; `None`: not at all.
    pub(crate) soft_timeout: Option<Duration>,
    /// How long a run is waited for; `None`: until its end.
    pub(crate) hard_timeout: Option<Duration>,
    /// After which share of its TTL a fresh output is renewed in the background.
    pub(crate) refresh_early: Option<f64>,
    pub(crate) tags: Vec<String>,
    pub(crate) place: Place,
    /// The folder of the locks; `None` if the user has no cache folder.
    pub(crate) locks: Option<PathBuf>,
    /// The file whose time says when the store was last pruned.
    pub(crate) pruned: Option<PathBuf>,
    pub(crate) verbose: bool,
    /// Whether to tell what the store did as well.
    pub(crate) explain: bool,
}

/// Which cache, and how to print.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) place: Place,
    /// The names of nested namespaces, outermost first.
    pub(crate) namespace: Vec<String>,
    pub(crate) prefix: Option<String>,
    /// The file whose time says when the store was last pruned.
    pub(crate) pruned: Option<PathBuf>,
    /// Whether to tell on standard error what the store did.
    pub(crate) explain: bool,
    pub(crate) json: bool,
}

/// Where a cache is.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// What a URL names.
    Url(String),
    /// A cache of a configuration file; `None` is its default one.
    Config { file: PathBuf, cache: Option<String> },
    /// This file in the user's cache folder, which is created if need be.
    Default(PathBuf),
    /// Nothing was said, and the user has no cache folder.
    Nowhere,
}

impl Place {
    /// What to call it in a message: passwords and parameters of a URL are left out.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Url(url) => mask(url),
            Self::Config { file, cache: Some(cache) } => format!("{cache} of {}", file.display()),
            Self::Config { file, cache: None } => file.display().to_string(),
            Self::Default(file) => file.display().to_string(),
            Self::Nowhere => "no store".to_owned(),
        }
    }
}

/// A URL without what may be secret: user, password and parameters.
pub(crate) fn mask(url: &str) -> String {
    let cut = |text: &str| text.split(['?', '#']).next().unwrap_or_default().to_owned();
    let Some((scheme, rest)) = url.split_once("://") else { return cut(url) };
    let shown = cut(rest);
    if rest.rfind('@').is_some_and(|at| at >= shown.len()) {
        // A password with a ? or # in it, or a parameter with an @: either side of the @ may be the secret.
        return format!("{scheme}://***");
    }
    let (authority, path) = shown.split_once('/').unwrap_or((&shown, ""));
    let (authority, path) = match path.rsplit_once('@') {
        // A password with a slash in it: everything up to the last @ may be part of it.
        Some((_, after)) => (after.split('/').next().unwrap_or_default(), ""),
        None => (authority.rsplit_once('@').map_or(authority, |(_, host)| host), path),
    };
    match path {
        "" => format!("{scheme}://{authority}"),
        path => format!("{scheme}://{authority}/{path}"),
    }
}

impl HiArgs {
    /// Looks at the world.
    ///
    /// # Errors
    /// What was typed makes no sense here, or standard input or the working directory cannot be read.
    pub(crate) fn from_low(low: LowArgs) -> Result<Self, Failure> {
        Ok(match low {
            LowArgs::Run(low) => Self::Run(HiRun::from_low(low)?),
            LowArgs::Store(low, operation) => Self::Store(Target::from_low(low)?, operation),
            LowArgs::Check { file, from, connect, json } => {
                Self::Check { document: Document::from_low(file, from)?, connect, json }
            }
            LowArgs::Migrate(LowMigrate { from, to, prefix, namespace, dry_run, json }) => {
                let namespace = names(namespace)?;
                Self::Migrate(Migration { from, to, prefix, namespace, dry_run, json })
            }
            LowArgs::Serve(flags) => {
                let admin_token = text_variable("LARDER_ADMIN_TOKEN")?.map(Secret::new);
                Self::Serve(Flags { admin_token, ..flags })
            }
            LowArgs::Purge(low) => Self::Purge(purging(low)?),
            LowArgs::Explain(LowExplain { desk, url, headers, json }) => {
                Self::Explain(Explained { desk: desk_of(desk)?, url, headers, json })
            }
            LowArgs::Warm(low) => Self::Warm(warming(low)?),
            LowArgs::Drivers { json } => Self::Drivers { json },
            LowArgs::Ping(LowPing { stores, config, cache, count, json }) => {
                let asked = if stores.is_empty() {
                    let (store, namespace, prefix, run, explain) = (None, None, None, false, false);
                    let low = LowTarget { store, config, cache, namespace, prefix, run, explain, json };
                    Asked::Caches(Target::from_low(low)?)
                } else {
                    Asked::Stores(stores)
                };
                Self::Ping { asked, count, json }
            }
            LowArgs::Completions(shell) => Self::Completions(shell),
            LowArgs::Man => Self::Man,
        })
    }
}

/// The server that a command for operators speaks to, and what lets it in.
fn desk_of(low: LowDesk) -> Result<Desk, Failure> {
    let (url, named) = match low.admin {
        Some(url) => (Some(url), "--admin"),
        None => (text_variable("LARDER_ADMIN")?, "LARDER_ADMIN"),
    };
    let url = url.ok_or_else(|| {
        Failure::usage("no server to ask: add --admin URL, its admin address, or set LARDER_ADMIN")
    })?;
    let address = Address::parse(&url)
        .map_err(|why| Failure::usage(format!("{named} {why}; it looks like http://127.0.0.1:9000")))?;
    let token = match low.token_file {
        Some(file) => {
            let token = std::fs::read_to_string(&file).map_err(|error| {
                Failure::usage(format!("--token-file: cannot read {}: {error}", file.display()))
            })?;
            Some(token.trim().to_owned()).filter(|token| !token.is_empty())
        }
        None => text_variable("LARDER_ADMIN_TOKEN")?,
    };
    let token = token.ok_or_else(|| {
        Failure::usage(
            "no token, without which nobody is let in: set LARDER_ADMIN_TOKEN, or add --token-file FILE",
        )
    })?;
    Ok(Desk { address, token: Secret::new(token), ca: low.ca })
}

fn purging(low: LowPurge) -> Result<Purging, Failure> {
    let LowPurge { desk, urls, tags, prefix, all, yes, soft, dry_run, json } = low;
    if urls.is_empty() && tags.is_empty() && prefix.is_none() && !all {
        return Err(Failure::usage(
            "there is nothing to purge: name a URL, --tag TAG, --prefix URL, or --all",
        ));
    }
    Ok(Purging { desk: desk_of(desk)?, urls, tags, prefix, all, yes, soft, dry_run, json })
}

fn warming(low: LowWarm) -> Result<Warming, Failure> {
    let through = low.through.map(|url| {
        Address::parse(&url)
            .map_err(|why| Failure::usage(format!("--through {why}; it looks like http://127.0.0.1:8080")))
    });
    let is_url = ["http://", "https://"].iter().any(|scheme| low.source.starts_with(scheme));
    Ok(Warming {
        source: match low.source.as_str() {
            "-" => Urls::Stdin,
            _ if is_url => Urls::Url(low.source),
            _ => Urls::File(low.source.into()),
        },
        through: through.transpose()?,
        every: low.every,
        concurrency: low.concurrency.into(),
        headers: low.headers,
        ca: low.ca,
        json: low.json,
    })
}

impl HiRun {
    fn from_low(low: LowRun) -> Result<Self, Failure> {
        low.env.iter().try_for_each(|name| check_variable_name(name))?;
        let folder = cache_folder();
        let place = run_place(low.store, folder.as_deref())?;
        check_tags(&low.tags)?;
        let stdin = if low.stdin { Some(read_stdin()?) } else { None };
        let identity = match &low.key {
            Some(key) => Identity::of_key(key),
            None => {
                let cwd = match low.cwd {
                    true => Some(env::current_dir().map_err(|error| {
                        Failure::run(format!("cannot tell the working directory: {error}"))
                    })?),
                    false => None,
                };
                let env = low.env.into_iter().map(|name| {
                    let value = env::var_os(&name);
                    (name, value)
                });
                Identity::of_command(&low.command, cwd.as_deref(), env.collect(), stdin.as_deref())
            }
        };
        Ok(Self {
            command: low.command,
            identity,
            stdin,
            ttl: low.ttl.unwrap_or(RUN_TTL),
            age_max: match low.ttl {
                Some(Ttl::For(ttl)) => Some(ttl),
                Some(Ttl::Forever) | None => None,
            },
            keep_failures: low.keep_failures,
            force: low.force,
            dry_run: low.dry_run,
            output_max: low.max_output.unwrap_or(RUN_OUTPUT_MAX),
            pruned: folder.as_deref().and_then(|folder| pruned(folder, &place)),
            grace: low.grace,
            soft_timeout: low.soft_timeout,
            hard_timeout: low.hard_timeout,
            refresh_early: low.refresh_early,
            tags: low.tags,
            place,
            locks: folder.map(|folder| folder.join("locks")),
            verbose: low.verbose || low.explain,
            explain: low.explain,
        })
    }
}

/// A name with `=` in it, or none, is no variable's: nothing would ever be found under it.
fn check_variable_name(name: &OsStr) -> Result<(), Failure> {
    use std::os::unix::ffi::OsStrExt;
    let (before, what) = match name.as_bytes().iter().position(|&byte| byte == b'=') {
        None if !name.is_empty() => return Ok(()),
        Some(end) if end > 0 => (name.as_bytes().get(..end).unwrap_or_default(), "not its value too"),
        _ => (&b"NAME"[..], "which is never empty"),
    };
    let before = escape(&String::from_utf8_lossy(before)).into_owned();
    Err(Failure::usage(format!("--env takes the name of a variable, {what}: -e {before}")))
}

/// Where `larder run` keeps what it keeps.
///
/// # Errors
/// A URL that no store could have: that is no failure of a store, which would not keep the command from running.
fn run_place(store: Option<String>, folder: Option<&Path>) -> Result<Place, Failure> {
    let (url, named) = match store {
        Some(url) => (Some(url), "--store"),
        None => (text_variable("LARDER_STORE")?, "LARDER_STORE"),
    };
    Ok(match (url, folder) {
        (Some(url), _) => {
            check_url(&url, named)?;
            Place::Url(url)
        }
        (None, Some(folder)) => Place::Default(folder.join(RUN_FILE)),
        (None, None) => Place::Nowhere,
    })
}

/// The file whose time says when a store was last pruned; `None` for one that others look after.
fn pruned(folder: &Path, place: &Place) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    let name = match place {
        Place::Url(url) => {
            // A path in it may begin here.
            let here = env::current_dir().unwrap_or_default();
            [url.as_bytes(), b"\0", here.as_os_str().as_bytes()].concat()
        }
        Place::Default(file) => file.as_os_str().as_bytes().to_vec(),
        Place::Config { .. } | Place::Nowhere => return None,
    };
    Some(folder.join("pruned").join(format!("{:032x}", xxh3_128(&name))))
}

impl Target {
    /// The default store of `larder run`, where the user named no store and there is one. It is a file of its
    /// own, so that clearing the one never clears the other; tags are meant wherever they are.
    pub(crate) fn beside(&self) -> Option<Self> {
        let Place::Default(file) = &self.place else { return None };
        let file = file.with_file_name(RUN_FILE);
        let named = self.prefix.is_some() || !file.exists();
        (!named).then(|| Self { place: Place::Default(file), ..self.clone() })
    }

    fn from_low(low: LowTarget) -> Result<Self, Failure> {
        if low.run {
            let folder = cache_folder();
            let place = run_place(low.store, folder.as_deref())?;
            let pruned = folder.as_deref().and_then(|folder| pruned(folder, &place));
            let namespace = vec![RUN_NAMESPACE.to_owned()];
            let LowTarget { explain, json, .. } = low;
            return Ok(Self { place, namespace, prefix: None, pruned, explain, json });
        }
        let cache = match low.cache {
            Some(cache) => Some(cache),
            None if low.store.is_some() => None,
            None => text_variable("LARDER_CACHE")?,
        };
        let config = |file: PathBuf| Place::Config { file, cache: cache.clone() };
        let place = match (low.store, low.config) {
            (Some(url), _) => Place::Url(url),
            (None, Some(file)) => config(file),
            (None, None) => match (text_variable("LARDER_STORE")?, variable("LARDER_CONFIG")) {
                // Whoever names a cache means a configuration.
                (_, Some(file)) if cache.is_some() => config(file.into()),
                (None, Some(file)) => config(file.into()),
                (_, None) if cache.is_some() => {
                    return Err(Failure::usage(
                        "a cache was named, but no configuration that has it: add --config FILE, or set \
                         LARDER_CONFIG",
                    ));
                }
                (Some(url), _) => Place::Url(url),
                (None, None) => {
                    cache_folder().map_or(Place::Nowhere, |folder| Place::Default(folder.join("store.db")))
                }
            },
        };
        let namespace = names(low.namespace)?;
        let pruned = cache_folder().and_then(|folder| pruned(&folder, &place));
        let LowTarget { prefix, explain, json, .. } = low;
        Ok(Self { place, namespace, prefix, pruned, explain, json })
    }
}

/// The names of nested namespaces, outermost first.
fn names(path: Option<String>) -> Result<Vec<String>, Failure> {
    let names: Vec<String> = path.iter().flat_map(|path| path.split('/')).map(str::to_owned).collect();
    if names.iter().any(String::is_empty) {
        return Err(Failure::usage("a namespace has an empty name; it looks like app or app/users"));
    }
    Ok(names)
}

/// Refuses tags before anything is run that could not be kept under them.
fn check_tags(tags: &[String]) -> Result<(), Failure> {
    if tags.len() > TAGS_PER_ENTRY_MAX {
        return Err(Failure::usage(format!("{} tags are more than {TAGS_PER_ENTRY_MAX}", tags.len())));
    }
    tags.iter().try_for_each(|tag| Ok(Tag::new(tag).map(drop)?))
}

/// An environment variable that is set to something.
fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// An environment variable that has to be text.
fn text_variable(name: &str) -> Result<Option<String>, Failure> {
    let text = variable(name).map(OsString::into_string).transpose();
    text.map_err(|_| Failure::usage(format!("the environment variable {name} is not UTF-8")))
}

/// Larder's folder in the user's cache folder; `None` if there is no way to tell.
/// The file of what `larder serve` keeps, unless told otherwise; `None` if there is no place for it.
pub(crate) fn serve_file() -> Option<PathBuf> {
    cache_folder().map(|folder| folder.join(SERVE_FILE))
}

fn cache_folder() -> Option<PathBuf> {
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(CACHES)))?;
    Some(Path::join(&folder, OsStr::new("larder")))
}

#[cfg(target_os = "macos")]
const CACHES: &str = "Library/Caches";
#[cfg(not(target_os = "macos"))]
const CACHES: &str = ".cache";

fn read_stdin() -> Result<Bytes, Failure> {
    let mut input = Vec::new();
    io::stdin()
        .lock()
        .read_to_end(&mut input)
        .map_err(|error| Failure::run(format!("cannot read standard input: {error}")))?;
    Ok(input.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_url_shows_no_secret() {
        for (url, masked) in [
            ("sqlite:a/b.db?key=s3cret", "sqlite:a/b.db"),
            ("redis://u:s3cret@host:1/2", "redis://host:1/2"),
            ("redis://u:s3/cr@et@host:1/2", "redis://host:1"),
            ("redis://u:s3cret@host", "redis://host"),
            ("redis://host/2", "redis://host/2"),
            ("redis://host/2?password=s3cret#x", "redis://host/2"),
            ("redis://u:s3?cret@host:1/2", "redis://***"),
            ("redis://u:s3#cret@host:1/2", "redis://***"),
            ("redis://u:s3/c?r@et@host:1/2?db=1", "redis://***"),
            ("redis://u@host?password=s3@cret", "redis://***"),
            ("dynamodb://table?secret_access_key=s3@cret", "dynamodb://***"),
        ] {
            assert_eq!(mask(url), masked);
        }
    }
}
