//! The flags of `larder serve`, as they were typed.

use std::path::PathBuf;

use clap::ArgMatches;
use larder::config::Secret;

/// What was typed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    /// Upstreams of the one origin.
    pub(crate) origin: Vec<String>,
    pub(crate) listen: Vec<String>,
    pub(crate) store: Option<String>,
    pub(crate) config: Option<PathBuf>,
    pub(crate) access_log: Option<String>,
    /// Which requests are for the cache.
    pub(crate) cache_only: Vec<String>,
    pub(crate) cache_by_default: Option<String>,
    /// Where operators reach the server.
    pub(crate) admin: Option<String>,
    pub(crate) admin_token_file: Option<String>,
    /// The token of the environment: not typed, but beside what was.
    pub(crate) admin_token: Option<Secret>,
    /// Only say what the configuration means.
    pub(crate) check: bool,
    pub(crate) json: bool,
}

impl Flags {
    pub(crate) fn from_matches(matches: &mut ArgMatches) -> Self {
        let mut many = |id: &str| matches.remove_many(id).map(Iterator::collect).unwrap_or_default();
        Self {
            origin: many("origin"),
            listen: many("listen"),
            cache_only: many("cache-only"),
            cache_by_default: matches.remove_one("cache-by-default"),
            store: matches.remove_one("store"),
            config: matches.remove_one("config"),
            access_log: matches.remove_one("access-log"),
            admin: matches.remove_one("admin"),
            admin_token_file: matches.remove_one("admin-token-file"),
            admin_token: None,
            check: matches.get_flag("check"),
            json: matches.get_flag("json"),
        }
    }
}
