//! The variables of Beignet's Redis provider, for those who bring them. Knows nothing of stacks' documents.

use super::node::{Node, Origin, Setting, error_at};
use super::stacks::MemoryConfig;
use super::store::StoreConfig;
use super::{Config, StackConfig, url};
use crate::error::{Error, ErrorKind, Result};
use crate::time::Ttl;

const URL: &str = "REDIS_URL";
const DB: &str = "REDIS_DB";

impl Config {
    /// The stack that `@beignet/provider-redis` makes of its variables: a Redis store without a memory tier before it,
    /// whose entries have no end unless the call gives them one. `lookup` is asked for each variable.
    ///
    /// | Variable | | Default |
    /// | --- | --- | --- |
    /// | `REDIS_URL` | where, and as whom | required |
    /// | `REDIS_DB` | the number of the database | the URL's, or 0 |
    ///
    /// A variable that is set to nothing counts as not set. To build the stack connects, and fails if the server cannot
    /// be reached.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], with the variable's name, if `REDIS_URL` is missing or no URL of a Redis store. No error
    /// repeats what a variable holds.
    ///
    /// ```
    /// use larder::config::Config;
    /// let variables = [("REDIS_URL", "redis://localhost:6379"), ("REDIS_DB", "2")];
    /// let lookup = |name: &str| variables.iter().find(|pair| pair.0 == name).map(|pair| pair.1.to_owned());
    /// let stack = Config::from_beignet(lookup)?;
    /// assert_eq!(stack.l2.unwrap().to_string(), "redis://localhost:6379");
    /// assert!(Config::from_beignet(|_| None).unwrap_err().message().starts_with("REDIS_URL is not set"));
    /// # Ok::<(), larder::Error>(())
    /// ```
    pub fn from_beignet(lookup: impl Fn(&str) -> Option<String>) -> Result<StackConfig> {
        let set = |name: &str| lookup(name).filter(|value| !value.trim().is_empty());
        let Some(url) = set(URL) else {
            let message = format!("{URL} is not set: it says where Redis is, as in redis://localhost:6379");
            return Err(Error::new(ErrorKind::Config, message));
        };
        let at = |name: &str| Origin::Variable(name.into());
        let mut store =
            StoreConfig::of_driver("redis", Node::unsaid(url.trim(), shown(url.trim()), at(URL)))?;
        if let Some(db) = set(DB) {
            if db.trim().parse::<u32>().is_err() {
                return Err(error_at(&at(DB), "", "expected the number of a database, such as 0"));
            }
            store = store.with("db", Node::text(db.trim(), at(DB)));
        }
        Ok(StackConfig {
            l1: MemoryConfig::Off(Origin::Named("Beignet's default".into())),
            l2: Some(store),
            ttl: Some(Setting { value: Ttl::Forever, origin: Origin::Named("Beignet's default".into()) }),
            ..StackConfig::default()
        })
    }

    /// As [`Config::from_beignet`], of this process's environment.
    ///
    /// # Errors
    /// As [`Config::from_beignet`].
    pub fn from_beignet_env() -> Result<StackConfig> {
        Self::from_beignet(|name| std::env::var(name).ok())
    }
}

/// The URL without what stands before its host.
fn shown(url: &str) -> String {
    match url.split_once(':') {
        Some((scheme, rest)) => format!("{scheme}:{}", url::masked(rest)),
        None => String::new(),
    }
}
