//! Beego's `NewCache("file", "{…}")` documents, for those who bring one. Knows nothing of stacks' documents.

use std::time::Duration;

use super::node::{Node, Origin, Setting, Value, error_at};
use super::read::{Fields, Item};
use super::stacks::MemoryConfig;
use super::store::StoreConfig;
use super::{Config, Format, StackConfig, formats};
use crate::error::Result;
use crate::time::Ttl;

/// Adapters that can be taken over, by the name under which beego registers them.
const ADAPTERS: &[&str] = &["file", "memory"];

impl Config {
    /// The stack that beego's `cache.NewCache(name, json)` stands for: the adapters `memory` and `file`, with
    /// numbers written as numbers or as text, and beego's own defaults.
    ///
    /// | beego | here | default |
    /// | --- | --- | --- |
    /// | `CachePath` | the file driver's `directory` | `cache` |
    /// | `FileSuffix` | its `suffix` | `.bin` |
    /// | `DirectoryLevel` | its `levels`; other than 1 and 2 is flat, as in beego | 2 |
    /// | `EmbedExpiry`, in seconds | the stack's `ttl`; 0 is forever | 0 |
    /// | `interval`, in seconds | `file`: `prune_interval`, less than 1 is off. `memory`: nothing to do, since what has expired is reclaimed without being looked for | |
    ///
    /// The names and the layout of files are this crate's own: a directory of beego's is not read.
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
        let document = format!("beego's {name} cache");
        let item = Item::new(formats::parse(json, Format::Json, &document)?, "");
        let fields = item.fields("a map of options")?;
        let mut stack =
            StackConfig { l1: MemoryConfig::Off(fields.origin.clone()), ..StackConfig::default() };
        match name {
            "memory" => read_memory(fields, &mut stack)?,
            "file" => read_file(fields, &mut stack)?,
            _ => {
                let known = ADAPTERS.join(", ");
                let what = format!("cannot take over beego's adapter {name:?} (known: {known})");
                return Err(error_at(&Origin::Named("beego".into()), "", what));
            }
        }
        Ok(stack)
    }
}

fn read_memory(mut fields: Fields, stack: &mut StackConfig) -> Result<()> {
    seconds(&mut fields, "interval")?;
    fields.finish("option")?;
    stack.ttl = Some(Setting { value: Ttl::Forever, origin: beego() });
    stack.l2 = Some(StoreConfig::at("memory", fields.origin));
    Ok(())
}

fn read_file(mut fields: Fields, stack: &mut StackConfig) -> Result<()> {
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
    let expiry = seconds(&mut fields, "EmbedExpiry")?;
    let interval = seconds(&mut fields, "interval")?;
    fields.finish("option")?;

    let forever = Setting { value: 0, origin: beego() };
    let expiry = expiry.unwrap_or(forever);
    let ttl = match u64::try_from(expiry.value) {
        Ok(0) | Err(_) => Ttl::Forever,
        Ok(seconds) => Ttl::For(Duration::from_secs(seconds)),
    };
    stack.ttl = Some(Setting { value: ttl, origin: expiry.origin });
    let mut store = StoreConfig::at("file", fields.origin)
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
