//! The tree of a configuration to typed stacks: which options there are, and the defaults applied.
//!
//! Knows nothing of the options of drivers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::Config;
use super::deepstream;
use super::env::{self, Override};
use super::node::{Key, Node, Origin, Setting, Value, error_at, join};
use super::outage::{BreakerConfig, RecoveryConfig, read_breaker, read_recovery};
use super::read::{Fields, Item, did_you_mean, nearest, plain};
use super::store::StoreConfig;
use crate::codec::CodecName;
use crate::error::Result;
use crate::options::Refresh;
use crate::time::Ttl;

/// A stack's options: what was written, and where. `None` is "not written", and leaves it to the library.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct StackConfig {
    /// `l1`: the memory tier. On unless it is switched off with `false`.
    pub l1: MemoryConfig,
    /// `l2`: the store behind it. None unless given.
    pub l2: Option<StoreConfig>,
    /// `prefix`: what the stack's keys in the store begin with.
    pub prefix: Option<Setting<String>>,
    /// `ttl`: how long entries are fresh, or `forever`.
    pub ttl: Option<Setting<Ttl>>,
    /// `grace`: how long after that they may still be served if loading fails.
    pub grace: Option<Setting<Duration>>,
    /// `backoff`: how long the source of a stale entry is left alone after a failed load.
    pub backoff: Option<Setting<Duration>>,
    /// `soft_timeout`: how long a load is waited for where there is a stale entry.
    pub soft_timeout: Option<Setting<Duration>>,
    /// `hard_timeout`: how long a load is waited for at all.
    pub hard_timeout: Option<Setting<Duration>>,
    /// `jitter`: how much of the TTL is left to chance.
    pub jitter: Option<Setting<Duration>>,
    /// `refresh`: how an entry's freshness ends.
    pub refresh: Option<Setting<Refresh>>,
    /// `memory_ttl`: how long memory serves an entry before it asks the store again.
    pub memory_ttl: Option<Setting<Duration>>,
    /// `across_processes`: that one process at a time loads a key, and how long one that died keeps the others waiting.
    pub across_processes: Option<Setting<Duration>>,
    /// `replace_after`: how long a load may take before another one is started beside it.
    pub replace_after: Option<Setting<Duration>>,
    /// `codec`: `json` or `messagepack`.
    pub codec: Option<Setting<CodecName>>,
    /// `deadline`: how long one operation on the store may take.
    pub deadline: Option<Setting<Duration>>,
    /// `suppress_l2_errors`: whether lookups treat a failing store as a miss.
    pub suppress_l2_errors: Option<Setting<bool>>,
    /// `breaker`: when the store is left alone for a while. On unless it is switched off with `false`.
    pub breaker: BreakerConfig,
    /// `recover_writes`: whether writes that the store did not take are remembered and tried again.
    pub recover_writes: RecoveryConfig,
    /// `compress`: whether and how what goes to the store is compressed.
    pub compress: Option<CompressConfig>,
    /// `encrypt`: whether and with which keys what goes to the store is encrypted.
    pub encrypt: Option<EncryptConfig>,
    /// `groups`: groups of keys that are counted and timed by themselves, each a name and a pattern.
    pub groups: Vec<Setting<(String, String)>>,
}

/// The memory tier of a stack.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemoryConfig {
    /// The stack has none; this is where that was written.
    Off(Origin),
    /// The stack has one, with these limits.
    On(MemoryLimits),
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self::On(MemoryLimits::default())
    }
}

/// Limits of the memory tier.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryLimits {
    /// `max_items`: the most entries.
    pub max_items: Option<Setting<u64>>,
    /// `max_bytes`: the most bytes of all entries together.
    pub max_bytes: Option<Setting<u64>>,
    /// `max_entry_bytes`: the most bytes of one entry.
    pub max_entry_bytes: Option<Setting<u64>>,
}

/// Compression of what goes to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompressConfig {
    /// Where it was switched on.
    pub origin: Origin,
    /// `level`: the zstd level, 1 to 22.
    pub level: Option<Setting<i32>>,
    /// `threshold`: bodies of fewer bytes are stored as they are.
    pub threshold: Option<Setting<u64>>,
}

/// Encryption of what goes to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EncryptConfig {
    /// Where it was switched on.
    pub origin: Origin,
    /// `keys`: `ID:CIPHER:SECRET` each; the first writes, all read. Never empty.
    pub keys: Vec<Setting<Secret>>,
}

/// Text that is not shown by accident.
///
/// ```
/// use larder::config::Secret;
/// let secret = Secret::new("hunter2");
/// assert_eq!(format!("{secret:?}"), "***");
/// assert_eq!(secret.expose(), "hunter2");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A secret of this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Other names that are taken for an option's, in the memory tier and in the memory driver.
pub(crate) const MEMORY_ALIASES: &[(&str, &str)] =
    &[("maxItems", "max_items"), ("maxSize", "max_bytes"), ("maxEntrySize", "max_entry_bytes")];

/// Other names that are taken for an option's, in a stack.
pub(crate) const STACK_ALIASES: &[(&str, &str)] = &[
    ("graceBackoff", "backoff"),
    ("timeout", "soft_timeout"),
    ("hardTimeout", "hard_timeout"),
    ("suppressL2Errors", "suppress_l2_errors"),
];

/// What an option that says how long is switched off or on with.
const ONE_REFRESH: &str =
    "an entry is either refreshed early or sliding: say one of \"early\" and \"sliding\"";
const LONGER_THAN_ZERO: &str = "must be longer than zero (false switches it off)";

/// A configuration from its tree and the environment.
pub(crate) fn read_config(mut root: Node, variables: &BTreeMap<String, String>) -> Result<Config> {
    env::substitute(&mut root, "", variables)?;
    let (of_defaults, of_stacks): (Vec<_>, Vec<_>) =
        env::overrides(variables)?.into_iter().partition(Override::is_default);
    if matches!(root.value, Value::Map(_)) {
        of_defaults.iter().try_for_each(|one| env::apply(&mut root, one))?;
    }

    let mut fields = Item::new(root, "").fields("a map with \"stacks\"")?;
    fields.alias("stores", "stacks")?;
    let defaults = fields.take("defaults").filter(|item| item.node.value != Value::Null);
    let stacks = fields.take("stacks").filter(|item| item.node.value != Value::Null);
    let default = setting(&mut fields, "default", |item| Ok(item.text()?.text.clone()))?;
    let cache = fields.take("cache").filter(|item| item.node.value != Value::Null);
    fields.finish("setting")?;

    let nothing = || Item::new(Node::map(fields.origin.clone()), "stacks");
    let mut defaults = defaults.unwrap_or_else(nothing).node;
    // On their own first, so that a mistake in them is reported as theirs.
    let of_all = read_stack(Item::new(defaults.clone(), "defaults"))?;
    canonical(&mut defaults);
    let mut stacks = stacks.unwrap_or_else(nothing);
    if !matches!(stacks.node.value, Value::Map(_)) {
        stacks.fields("a map of stacks by name")?;
        return Ok(Config::default());
    }
    if let Some(cache) = cache {
        deepstream::add(&mut stacks.node, cache)?;
    }
    add_stacks(&mut stacks.node, &of_stacks)?;
    let mut stacks = with_defaults(stacks.node, &defaults);
    of_stacks.iter().try_for_each(|one| env::apply_to_stacks(&mut stacks, one))?;

    let mut config = Config::default();
    for (key, node) in stacks.take_members() {
        let item = Item::new(node, join("stacks", &key.name));
        if key.name.trim().is_empty() || key.name.chars().any(char::is_control) {
            return Err(item.error("a stack's name must not be empty or contain control characters"));
        }
        let stack = read_stack(item.clone())?;
        if matches!(stack.l1, MemoryConfig::Off(_)) && stack.l2.is_none() {
            return Err(item.error("the stack has neither a memory tier (\"l1\") nor a store (\"l2\")"));
        }
        if stack.l2.is_none() {
            refuse_options_of_a_store(&stack, &of_all, &item.path)?;
        }
        config.stacks.insert(key.name, stack);
    }
    if let Some(default) = &default
        && !config.stacks.contains_key(&default.value)
    {
        let known: Vec<&str> = config.stacks.keys().map(String::as_str).collect();
        let what = no_stack(&default.value, &known);
        return Err(error_at(&default.origin, "default", what));
    }
    config.default = default;
    Ok(config)
}

/// What is said of the name of a stack that there is not.
fn no_stack(name: &str, known: &[&str]) -> String {
    let names = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    let meant = did_you_mean(nearest(name, known.iter().copied()));
    format!("there is no stack {name:?}{meant} (known: {names})")
}

/// Refuses what only means something to a store, in a stack that has none: whoever writes `encrypt` believes
/// that something is encrypted. What `defaults` say to all stacks is not meant for this one.
fn refuse_options_of_a_store(stack: &StackConfig, of_all: &StackConfig, path: &str) -> Result<()> {
    let compress = |stack: &StackConfig| stack.compress.as_ref().map(|compress| compress.origin.clone());
    let encrypt = |stack: &StackConfig| stack.encrypt.as_ref().map(|encrypt| encrypt.origin.clone());
    for (name, own, inherited) in
        [("compress", compress(stack), compress(of_all)), ("encrypt", encrypt(stack), encrypt(of_all))]
    {
        if let Some(origin) = own
            && inherited.as_ref() != Some(&origin)
        {
            let what = "is about what goes to a store, and the stack has none: give it an \"l2\"";
            return Err(error_at(&origin, &join(path, name), what));
        }
    }
    Ok(())
}

/// Adds the stacks that variables bring into being, which takes one that gives it a tier: otherwise a name
/// that is mistyped in a variable would make a stack that nobody asked for.
fn add_stacks(stacks: &mut Node, overrides: &[Override]) -> Result<()> {
    let mut members = stacks.take_members();
    let makers: BTreeSet<String> = overrides
        .iter()
        .filter(|one| one.gives_a_tier())
        .filter_map(|one| one.stack())
        .map(str::to_owned)
        .collect();
    for one in overrides {
        let Some(name) = one.stack() else { continue };
        if members.iter().any(|(key, _)| plain(&key.name) == plain(name)) {
            continue;
        }
        if !makers.contains(name) {
            let known: Vec<&str> = members.iter().map(|(key, _)| key.name.as_str()).collect();
            return Err(one.error(no_stack(name, &known)));
        }
        let key = Key { name: name.to_owned(), origin: one.origin() };
        members.push((key, Node::map(one.origin())));
    }
    stacks.value = Value::Map(members);
    Ok(())
}

/// The stacks, with what they do not say taken from the defaults.
fn with_defaults(mut stacks: Node, defaults: &Node) -> Node {
    let mut members = stacks.take_members();
    for (_, stack) in &mut members {
        if stack.value == Value::Null {
            stack.value = Value::Map(Vec::new());
        }
        canonical(stack);
        merge(stack, defaults);
    }
    stacks.value = Value::Map(members);
    stacks
}

/// Options that are one choice, though they may be maps.
const WHOLE: [&str; 2] = ["l2", "refresh"];

/// Options that are maps of independent ones are merged; a store is what it is as a whole, and so is a choice.
fn merge(node: &mut Node, defaults: &Node) {
    let (Value::Map(members), Value::Map(defaults)) = (&mut node.value, &defaults.value) else { return };
    for (key, default) in defaults {
        match members.iter_mut().find(|(own, _)| own.name == key.name) {
            Some((own, value)) if !WHOLE.contains(&own.name.as_str()) => merge(value, default),
            Some(_) => {}
            None => members.push((key.clone(), default.clone())),
        }
    }
}

/// Gives the options of a stack the names under which they are merged and overridden.
fn canonical(stack: &mut Node) {
    rename(stack, STACK_ALIASES);
    if let Value::Map(members) = &mut stack.value {
        members.iter_mut().filter(|(key, _)| key.name == "l1").for_each(|(_, l1)| rename(l1, MEMORY_ALIASES));
    }
}

fn rename(node: &mut Node, aliases: &[(&str, &str)]) {
    for (other, name) in aliases {
        // Both at once is a contradiction, which the reader reports.
        if node.member(name).is_some() {
            continue;
        }
        let Value::Map(members) = &mut node.value else { return };
        for (key, _) in members.iter_mut().filter(|(key, _)| key.name == *other) {
            (*name).clone_into(&mut key.name);
        }
    }
}

/// A number that a limit may be.
pub(crate) const COUNT: std::ops::RangeInclusive<i64> = 1..=i64::MAX;

fn read_stack(item: Item) -> Result<StackConfig> {
    let mut fields = item.fields("a map of options")?;
    aliases(&mut fields, STACK_ALIASES)?;
    let stack = StackConfig {
        l1: fields.take("l1").map(read_memory).transpose()?.unwrap_or_default(),
        l2: fields.take("l2").filter(|item| !item.is_off()).map(StoreConfig::read).transpose()?,
        prefix: setting(&mut fields, "prefix", |item| Ok(item.text()?.text.clone()))?,
        ttl: setting(&mut fields, "ttl", Item::ttl)?,
        grace: setting(&mut fields, "grace", duration_or_zero)?,
        backoff: setting(&mut fields, "backoff", duration_or_zero)?,
        soft_timeout: timeout(&mut fields, "soft_timeout", Item::duration)?,
        hard_timeout: timeout(&mut fields, "hard_timeout", longer_than_zero)?,
        jitter: setting(&mut fields, "jitter", duration_or_zero)?,
        refresh: fields.take("refresh").map(read_refresh).transpose()?,
        memory_ttl: timeout(&mut fields, "memory_ttl", Item::duration)?,
        across_processes: timeout(&mut fields, "across_processes", longer_than_zero)?,
        replace_after: timeout(&mut fields, "replace_after", longer_than_zero)?,
        codec: setting(&mut fields, "codec", |item| {
            Ok(match item.choice(&["json", "messagepack"])? {
                "messagepack" => CodecName::MessagePack,
                _ => CodecName::Json,
            })
        })?,
        deadline: setting(&mut fields, "deadline", |item| {
            let deadline = item.duration()?;
            if deadline.is_zero() {
                Err(item.error("a deadline must be longer than zero"))
            } else {
                Ok(deadline)
            }
        })?,
        suppress_l2_errors: setting(&mut fields, "suppress_l2_errors", Item::boolean)?,
        breaker: fields.take("breaker").map(read_breaker).transpose()?.unwrap_or_default(),
        recover_writes: fields.take("recover_writes").map(read_recovery).transpose()?.unwrap_or_default(),
        compress: fields.take("compress").map(read_compress).transpose()?.flatten(),
        encrypt: fields.take("encrypt").map(read_encrypt).transpose()?.flatten(),
        groups: fields.take("groups").map(read_groups).transpose()?.unwrap_or_default(),
    };
    fields.finish("option")?;
    Ok(stack)
}

fn aliases(fields: &mut Fields, aliases: &[(&str, &str)]) -> Result<()> {
    aliases.iter().try_for_each(|(other, name)| fields.alias(other, name))
}

pub(crate) fn setting<T>(
    fields: &mut Fields,
    name: &str,
    read: impl FnOnce(&Item) -> Result<T>,
) -> Result<Option<Setting<T>>> {
    fields.take(name).map(|item| read(&item).map(|value| item.at(value))).transpose()
}

/// A duration; `false` is none at all.
fn duration_or_zero(item: &Item) -> Result<Duration> {
    Ok(item.duration_or_off()?.unwrap_or_default())
}

fn longer_than_zero(item: &Item) -> Result<Duration> {
    let duration = item.duration()?;
    if duration.is_zero() { Err(item.error(LONGER_THAN_ZERO)) } else { Ok(duration) }
}

/// How long to wait; `false` is until the end, whatever the defaults say.
fn timeout(
    fields: &mut Fields,
    name: &str,
    read: impl FnOnce(&Item) -> Result<Duration>,
) -> Result<Option<Setting<Duration>>> {
    let item = fields.take(name).filter(|item| !item.is_off());
    item.map(|item| read(&item).map(|value| item.at(value))).transpose()
}

/// A word, or a map that says how early or how long.
fn read_refresh(item: Item) -> Result<Setting<Refresh>> {
    if item.is_off() {
        return Ok(item.at(Refresh::OnDemand));
    }
    if let Value::Text(_) = item.node.value {
        if let Some(word) =
            ["early", "sliding"].into_iter().find(|word| item.text().is_ok_and(|text| text.text == *word))
        {
            let example = if word == "early" { "0.9" } else { "15m" };
            return Err(item.error(format_args!("{word:?} needs a value: refresh: {{ {word}: {example} }}")));
        }
        let refresh = match item.choice(&["on_demand", "probabilistic"])? {
            "probabilistic" => Refresh::Probabilistic,
            _ => Refresh::OnDemand,
        };
        return Ok(item.at(refresh));
    }
    let at = item.at(());
    let mut fields =
        item.fields("\"on_demand\", \"probabilistic\", or a map with \"early\" or \"sliding\"")?;
    let early = setting(&mut fields, "early", Item::share)?;
    let sliding = setting(&mut fields, "sliding", |item| {
        longer_than_zero(item).map(|idle| (idle, item.error(ONE_REFRESH)))
    })?;
    fields.finish("option")?;
    match (early, sliding) {
        (Some(_), Some(Setting { value: (_, both), .. })) => Err(both),
        (Some(share), None) => {
            Ok(Setting { value: Refresh::Early { share: share.value }, origin: share.origin })
        }
        (None, Some(Setting { value: (idle, _), origin })) => {
            Ok(Setting { value: Refresh::Sliding { idle }, origin })
        }
        (None, None) => Ok(Setting { value: Refresh::OnDemand, origin: at.origin }),
    }
}

/// Whether something that is a map of options, or `true`, or `false`, is on.
pub(crate) enum Switched {
    Off(Origin),
    On(Fields),
}

pub(crate) fn switched(item: Item, what: &str) -> Result<Switched> {
    match &item.node.value {
        Value::Map(_) => item.fields(what).map(Switched::On),
        Value::Bool(_) | Value::Text(_) => {
            let origin = item.node.origin.clone();
            if item.boolean()? {
                Ok(Switched::On(Fields::empty(&item.path, origin)))
            } else {
                Ok(Switched::Off(origin))
            }
        }
        _ => item.fields(what).map(Switched::On),
    }
}

fn read_memory(item: Item) -> Result<MemoryConfig> {
    if item.node.value == Value::Null {
        return Ok(MemoryConfig::default());
    }
    let mut fields = match switched(item, "a map of limits, true or false")? {
        Switched::Off(origin) => return Ok(MemoryConfig::Off(origin)),
        Switched::On(fields) => fields,
    };
    aliases(&mut fields, MEMORY_ALIASES)?;
    let limits = MemoryLimits {
        max_items: setting(&mut fields, "max_items", |item| item.integer(COUNT).map(i64::unsigned_abs))?,
        max_bytes: setting(&mut fields, "max_bytes", Item::size)?,
        max_entry_bytes: setting(&mut fields, "max_entry_bytes", Item::size)?,
    };
    fields.finish("option")?;
    Ok(MemoryConfig::On(limits))
}

fn read_compress(item: Item) -> Result<Option<CompressConfig>> {
    if item.node.value == Value::Null {
        return Ok(None);
    }
    let Switched::On(mut fields) = switched(item, "a map of options, true or false")? else {
        return Ok(None);
    };
    let level = |item: &Item| item.integer(1..=22).map(|level| i32::try_from(level).unwrap_or(i32::MAX));
    let compress = CompressConfig {
        origin: fields.origin.clone(),
        level: setting(&mut fields, "level", level)?,
        threshold: setting(&mut fields, "threshold", Item::size)?,
    };
    fields.finish("option")?;
    Ok(Some(compress))
}

fn read_encrypt(item: Item) -> Result<Option<EncryptConfig>> {
    if item.is_off() {
        return Ok(None);
    }
    let mut fields = item.fields("a map with \"keys\", or false")?;
    let keys = fields.take("keys").map(read_keys).transpose()?.unwrap_or_default();
    fields.finish("option")?;
    if keys.is_empty() {
        return Err(fields.error("encryption needs \"keys\", a list of ID:CIPHER:SECRET"));
    }
    Ok(Some(EncryptConfig { origin: fields.origin, keys }))
}

/// A list of `NAME=PATTERN`, or text with commas.
fn read_groups(item: Item) -> Result<Vec<Setting<(String, String)>>> {
    if item.is_off() {
        return Ok(Vec::new());
    }
    let read = |item: &Item, text: &str| match text.split_once('=') {
        Some((name, pattern)) => Ok(item.at((name.trim().to_owned(), pattern.trim().to_owned()))),
        None => Err(item.error("a key group is NAME=PATTERN, such as users=user:*")),
    };
    if let Value::List(items) = item.node.value {
        let items = items.into_iter().map(|node| Item::new(node, item.path.clone()));
        return items.map(|item| read(&item, &item.text()?.text)).collect();
    }
    let text = item.text()?.text.clone();
    text.split(',').map(str::trim).filter(|group| !group.is_empty()).map(|group| read(&item, group)).collect()
}

/// A list of keys, or text with commas, which is all that a variable can hold.
fn read_keys(item: Item) -> Result<Vec<Setting<Secret>>> {
    if let Value::List(items) = item.node.value {
        return items
            .into_iter()
            .map(|node| {
                let item = Item::new(node, item.path.clone());
                Ok(item.at(Secret::new(item.secret_text()?)))
            })
            .collect();
    }
    let keys = item.secret_text()?.split(',').map(str::trim).filter(|key| !key.is_empty());
    Ok(keys.map(|key| item.at(Secret::new(key))).collect())
}
