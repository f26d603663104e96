//! Beego's `NewCache("file", "{…}")` documents, for those who bring one. Knows nothing of stacks' documents.

use std::time::Duration;

use super::node::{Node, Origin, Setting, Value, error_at};
use super::read::{Fields, Item, did_you_mean, nearest};
use super::registry::Registry;
use super::stacks::MemoryConfig;
use super::store::StoreConfig;
use super::{Config, Format, StackConfig, formats, url};
use crate::error::Result;
use crate::stack::Stack;
use crate::time::Ttl;

/// Adapters that can be taken over, by the name under which beego registers them.
const ADAPTERS: &[&str] = &["file", "memcache", "memory", "redis"];
/// What beego's keys in Redis begin with if nobody says otherwise.
const COLLECTION: &str = "beecacheRedis";

impl Config {
    /// The stack that beego's `cache.NewCache(name, json)` stands for: the adapters `memory`, `file`, `redis` and
    /// `memcache`, with numbers written as numbers or as text, and beego's own defaults. There is no memory tier before
    /// the store, as there is none in beego, and entries have no end but their call's.
    ///
    /// | Adapter | beego | here | default |
    /// | --- | --- | --- | --- |
    /// | `memory` | `interval`, in seconds | nothing to do: what has expired is reclaimed without being looked for | 60 |
    /// | `file` | `CachePath` | the store's `directory` | `cache` |
    /// | | `FileSuffix` | its `suffix` | `.bin` |
    /// | | `DirectoryLevel` | its `levels`; other than 1 and 2 is flat, as in beego | 2 |
    /// | | `EmbedExpiry`, in seconds | the stack's `ttl`; 0 is forever | 0 |
    /// | | `interval`, in seconds | its `prune_interval`, less than 1 is off; beego's has none | 60 |
    /// | `redis` | `conn` | the store's host and port; `:6039` is on this machine, `redis://PASSWORD@HOST:PORT` is understood too | required |
    /// | | `key` | the stack's `prefix`; empty is the default | `beecacheRedis` |
    /// | | `dbNum` | the store's `db` | 0 |
    /// | | `password` | the store's `password` | none |
    /// | | `maxIdle`, `timeout` | nothing to do: there is one connection, and no pool | |
    /// | | `skipEmptyPrefix` | nothing to do, as in beego, where the default has taken the empty one's place by then | |
    /// | `memcache` | `conn`, with `;` between servers | the store's servers | required |
    ///
    /// The names and the layout of what is stored are this crate's own: what beego stored is not read.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for other adapters and for what does not make sense.
    ///
    /// ```
    /// use larder::{config::Config, time::seconds};
    /// let stack = Config::from_beego("file", r#"{"CachePath":"./cache","EmbedExpiry":"120"}"#)?;
    /// assert_eq!(stack.ttl.unwrap().value, seconds(120).into());
    /// # Ok::<(), larder::Error>(())
    /// ```
    pub fn from_beego(name: &str, json: &str) -> Result<StackConfig> {
        read(name, json, &Registry::empty())
    }
}

impl Registry {
    /// Opens a stack as beego's `cache.NewCache(name, json)` does: an adapter of beego's as [`Config::from_beego`] takes
    /// it over, else a driver of this registry, such as one's own, with the document as its options. The stack is called
    /// as the adapter is.
    ///
    /// # Errors
    /// As [`Config::from_beego`], with the names of this registry; otherwise the driver's that cannot open.
    pub async fn new_cache(&self, name: &str, json: &str) -> Result<Stack> {
        read(name, json, self)?.build(name, self).await
    }
}

/// As [`Registry::new_cache`], with the drivers of this build: beego's `cache.NewCache(name, json)` in one call.
///
/// # Errors
/// As [`Registry::new_cache`].
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use larder::{config::new_cache, time::seconds};
/// let bm = new_cache("memory", r#"{"interval":60}"#).await?.cache::<i64>()?;
/// bm.set("astaxie", 1).ttl(seconds(10)).await?;
/// assert_eq!(bm.increment("astaxie", 1).await?, 2);
/// # Ok::<(), larder::Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub async fn new_cache(name: &str, json: &str) -> Result<Stack> {
    Registry::compiled().new_cache(name, json).await
}

fn read(name: &str, json: &str, registry: &Registry) -> Result<StackConfig> {
    let document = format!("beego's {name} cache");
    let item = Item::new(formats::parse(json, Format::Json, &document)?, "");
    let mut fields = item.fields("a map of options")?;
    let l1 = MemoryConfig::Off(fields.origin.clone());
    let forever = Setting { value: Ttl::Forever, origin: beego() };
    let mut stack = StackConfig { l1, ttl: Some(forever), ..StackConfig::default() };
    match name {
        "memory" => {
            seconds(&mut fields, "interval")?;
            stack.l2 = Some(StoreConfig::at("memory", fields.origin.clone()));
        }
        "file" => read_file(&mut fields, &mut stack)?,
        "redis" => read_redis(&mut fields, &mut stack)?,
        "memcache" => stack.l2 = Some(read_memcache(&mut fields)?),
        own if registry.names().any(|known| known == own) => {
            stack.l2 = Some(StoreConfig::of_fields(own, fields));
            return Ok(stack);
        }
        _ => {
            let mut known: Vec<&str> = ADAPTERS.iter().copied().chain(registry.names()).collect();
            known.sort_unstable();
            known.dedup();
            let meant = did_you_mean(nearest(name, known.iter().copied()));
            let known = known.join(", ");
            let what = format!("cannot take over beego's adapter {name:?}{meant} (known: {known})");
            return Err(error_at(&Origin::Named("beego".into()), "", what));
        }
    }
    fields.finish("option")?;
    Ok(stack)
}

fn read_file(fields: &mut Fields, stack: &mut StackConfig) -> Result<()> {
    let or = |item: Option<Item>, default: &str| match item {
        Some(item) => item.text().map(|_| item.node.clone()),
        None => Ok(Node::text(default, beego())),
    };
    let directory = or(fields.take("CachePath"), "cache")?;
    let suffix = or(fields.take("FileSuffix"), ".bin")?;
    let levels = match fields.take("DirectoryLevel") {
        Some(item) => match item.integer(i64::MIN..=i64::MAX)? {
            // Beego makes directories for one and for two levels only.
            level @ 1..=2 => Node { value: Value::Integer(level.into()), origin: item.node.origin },
            _ => Node { value: Value::Integer(0), origin: item.node.origin },
        },
        None => Node { value: Value::Integer(2), origin: beego() },
    };
    let expiry = seconds(fields, "EmbedExpiry")?;
    let interval = seconds(fields, "interval")?;

    let forever = Setting { value: 0, origin: beego() };
    let expiry = expiry.unwrap_or(forever);
    let ttl = match u64::try_from(expiry.value) {
        Ok(0) | Err(_) => Ttl::Forever,
        Ok(seconds) => Ttl::For(Duration::from_secs(seconds)),
    };
    stack.ttl = Some(Setting { value: ttl, origin: expiry.origin });
    let mut store = StoreConfig::at("file", fields.origin.clone())
        .with("directory", directory)
        .with("suffix", suffix)
        .with("levels", levels);
    if let Some(interval) = interval {
        let text = if interval.value < 1 { "off".to_owned() } else { format!("{}s", interval.value) };
        store = store.with("prune_interval", Node::text(text, interval.origin));
    }
    stack.l2 = Some(store);
    Ok(())
}

fn read_redis(fields: &mut Fields, stack: &mut StackConfig) -> Result<()> {
    let collection = fields.take("key").map(|item| Ok(item.at(item.text()?.text.clone()))).transpose()?;
    let conn = fields.take("conn");
    let db = fields.take("dbNum").map(|item| Ok((item.integer(0..=i64::from(i32::MAX))?, item.node.origin)));
    let db = db.transpose()?;
    let password = fields.take("password").map(|item| Ok((item.secret_text()?.to_owned(), item.node.origin)));
    let password = password.transpose()?.filter(|(password, _)| !password.is_empty());
    if let Some(idle) = fields.take("maxIdle") {
        idle.integer(0..=i64::MAX)?;
    }
    if let Some(timeout) = fields.take("timeout") {
        timeout.duration_or_off()?;
    }
    if let Some(skip) = fields.take("skipEmptyPrefix") {
        skip.boolean()?;
    }

    let collection = collection.filter(|collection| !collection.value.is_empty());
    stack.prefix =
        Some(collection.unwrap_or_else(|| Setting { value: COLLECTION.to_owned(), origin: beego() }));
    let conn = required(fields, "conn", conn)?;
    let mut store = server(&conn, fields)?;
    if let Some((db, origin)) = db {
        store = store.with("db", Node { value: Value::Integer(db.into()), origin });
    }
    if let Some((password, origin)) = password {
        store = store.with("password", Node::unsaid(password, "***", origin));
    }
    stack.l2 = Some(store);
    Ok(())
}

/// The server that a `conn` of the adapter `redis` names.
fn server(conn: &Item, fields: &Fields) -> Result<StoreConfig> {
    let text = conn.secret_text()?.trim();
    let origin = || conn.node.origin.clone();
    if let Some((scheme, rest)) = text.split_once("://") {
        // What stands before the host is a password here, and a user elsewhere.
        let rest = match rest.rsplit_once('@') {
            Some((password, host)) if !password.contains(':') => {
                format!(":{}@{host}", password.replace('%', "%25"))
            }
            _ => rest.to_owned(),
        };
        let (url, shown) = (format!("{scheme}://{rest}"), url::masked(&format!("//{rest}")));
        return StoreConfig::of_driver("redis", Node::unsaid(url, format!("{scheme}:{shown}"), origin()));
    }
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    // Go dials this machine where there is no host.
    let host = if host.is_empty() { "127.0.0.1" } else { host.trim_matches(['[', ']']) };
    let mut store = StoreConfig::at("redis", fields.origin.clone()).with("host", Node::text(host, origin()));
    if !port.is_empty() {
        let Ok(port @ 1..) = port.parse::<u16>() else {
            return Err(conn.error("expected HOST:PORT, or :PORT on this machine"));
        };
        store = store.with("port", Node { value: Value::Integer(port.into()), origin: origin() });
    }
    Ok(store)
}

fn read_memcache(fields: &mut Fields) -> Result<StoreConfig> {
    let conn = fields.take("conn");
    let conn = required(fields, "conn", conn)?;
    let servers: Vec<&str> =
        conn.text()?.text.split(';').map(str::trim).filter(|server| !server.is_empty()).collect();
    if servers.is_empty() {
        return Err(conn.error("expected HOST:PORT, with \";\" between servers"));
    }
    let url = format!("memcached://{}", servers.join(","));
    StoreConfig::of_driver("memcached", Node::text(url, conn.node.origin.clone()))
}

fn required(fields: &Fields, name: &str, item: Option<Item>) -> Result<Item> {
    let missing = || match fields.mistyped(name) {
        Some(mistyped) => mistyped,
        None => fields.error(format_args!("the option \"{name}\" is missing: it says where the server is")),
    };
    item.ok_or_else(missing)
}

/// What beego does if nobody says otherwise.
fn beego() -> Origin {
    Origin::Named("beego's default".into())
}

fn seconds(fields: &mut Fields, name: &str) -> Result<Option<Setting<i64>>> {
    let Some(item) = fields.take(name) else { return Ok(None) };
    // A century and a bit: what is longer is a mistake, or nanoseconds.
    let seconds = item.integer(-i64::from(u32::MAX)..=i64::from(u32::MAX))?;
    Ok(Some(item.at(seconds)))
}
