//! What an operation did and why: an [`Account`], on request.
//!
//! [`explain`] runs any operations and returns what they came to with an account of each step: which tier was asked and
//! what it had, which tag, clear, option or breaker decided, who loaded, how long it waited, what was kept.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! use larder::{Stack, explain, memory::MemoryOptions, time::{hours, minutes}};
//!
//! let cache = Stack::builder("demo").memory(MemoryOptions::new(1_000)).build()?.cache::<u32>()?;
//! cache.set("a", 1).ttl(minutes(5)).grace(hours(1)).tags(["users"]).await?;
//! cache.invalidate(["users"]).await?;
//!
//! let (found, account) = explain(cache.get("a")).await;
//! assert_eq!(found?, None);
//! assert!(account.to_string().contains("memory: gone, because tag \"users\" was invalidated"), "{account}");
//! # Ok::<(), larder::Error>(()) })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The same steps are events of `tracing` (feature `tracing`), of target `larder::explain` and level `TRACE`, for every
//! operation while a subscriber wants them. Where neither asks for them, an operation looks at one number.
//!
//! An account is of what this task, and the loads and renewals that it began, did. Of a load that another caller began it
//! says that, for how long, and what came of it. Keys, tags and the texts of errors appear; values never do.

mod record;
mod words;

use std::future::IntoFuture;
use std::time::Duration;

use crate::entry::Freshness;
use crate::entry::wire::Damage;
use crate::event::Tier;
use crate::time::Stamp;

pub(crate) use record::{is_on, of_caller, record};
pub(crate) use words::Span;

/// How many steps an account has at most; what comes after is counted.
pub const STEPS_MAX: usize = 1_000;

/// What some operations did, step by step. [`Display`](std::fmt::Display) writes a line for each step, for people.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Account {
    /// What happened, in the order in which it did. Steps of a load stand among those of the callers who wait for it.
    pub steps: Vec<Step>,
    /// How many steps there were beyond [`STEPS_MAX`].
    pub omitted: u64,
    /// How long all of it took.
    #[cfg_attr(feature = "json", serde(rename = "took_us", serialize_with = "words::micros"))]
    pub took: Duration,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Step {
    /// How long after the first step.
    #[cfg_attr(feature = "json", serde(rename = "at_us", serialize_with = "words::micros"))]
    pub at: Duration,
    /// The stack.
    pub stack: String,
    /// The namespace path, empty for the outermost.
    pub namespace: String,
    /// The user's key; absent where it is about several or none.
    pub key: Option<String>,
    /// What happened.
    #[cfg_attr(feature = "json", serde(flatten))]
    pub what: Fact,
}

/// What happened in one step.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
#[cfg_attr(feature = "json", serde(tag = "what", rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Fact {
    /// A tier was looked at, and had this.
    Looked {
        /// Which.
        tier: Tier,
        /// What it had.
        found: Finding,
    },
    /// The store was called.
    Called {
        /// The driver's name.
        driver: String,
        /// `get`, `set`, `delete` and so on.
        operation: String,
        /// How long that took.
        #[cfg_attr(feature = "json", serde(rename = "took_us", serialize_with = "words::micros"))]
        took: Duration,
        /// Why it failed, if it did.
        error: Option<String>,
    },
    /// The store was not called, because its breaker is open.
    Refused {
        /// The driver's name.
        driver: String,
        /// `get`, `set`, `delete` and so on.
        operation: String,
        /// For how much longer; `None` is until another call, which tries it, is back.
        #[cfg_attr(feature = "json", serde(rename = "left_us", serialize_with = "words::maybe_micros"))]
        left: Option<Duration>,
    },
    /// A write that the store did not take, and that is newer than what it has, was heeded in its place.
    Heeded,
    /// Nobody was loading the key: this caller begins to.
    Leads,
    /// Somebody was loading the key: this caller waits for that.
    Joins {
        /// How long that load had been under way.
        #[cfg_attr(feature = "json", serde(rename = "age_us", serialize_with = "words::micros"))]
        age: Duration,
    },
    /// The load took so long that this caller began another one beside it.
    Replaces {
        /// How long it had been under way.
        #[cfg_attr(feature = "json", serde(rename = "age_us", serialize_with = "words::micros"))]
        age: Duration,
    },
    /// Another process had the turn to load it, and this one waited: see
    /// [`EntryOptions::across_processes`](crate::EntryOptions::across_processes).
    TurnWaited {
        /// How long, until the value was there or the turn was this process's.
        #[cfg_attr(feature = "json", serde(rename = "took_us", serialize_with = "words::micros"))]
        took: Duration,
    },
    /// A fresh entry was due: it is loaded in the background.
    Renews,
    /// The value that the caller gave for this case is returned, because the load failed and nothing stale is left.
    StoodIn,
    /// The filter of known keys says that the source does not have the key, so it is not asked.
    RuledOut,
    /// A sliding entry was used, and gets a later end.
    Slides {
        /// How much longer it is fresh.
        #[cfg_attr(feature = "json", serde(rename = "until_us", serialize_with = "words::micros"))]
        until: Duration,
    },
    /// The source was left alone, because the last load failed.
    LeftAlone {
        /// For how much longer.
        #[cfg_attr(feature = "json", serde(rename = "left_us", serialize_with = "words::micros"))]
        left: Duration,
        /// What the last load failed with.
        error: String,
    },
    /// The loader ran.
    Loaded {
        /// How long it took.
        #[cfg_attr(feature = "json", serde(rename = "took_us", serialize_with = "words::micros"))]
        took: Duration,
        /// What it said.
        outcome: Load,
    },
    /// What was loaded or written is in a tier.
    Kept {
        /// Which.
        tier: Tier,
    },
    /// What was loaded is not kept.
    NotKept {
        /// Why not.
        why: NotKept,
    },
    /// The wait for a load ended.
    Waited {
        /// How long it was.
        #[cfg_attr(feature = "json", serde(rename = "took_us", serialize_with = "words::micros"))]
        took: Duration,
        /// What ended it.
        end: WaitEnd,
    },
    /// The operation's answer was there.
    Hit {
        /// Where it was found.
        tier: Tier,
        /// Whether it was served past its freshness.
        stale: bool,
    },
    /// There was no answer, or it had to be loaded.
    Miss,
    /// Stored bytes were not this key's entry; they count as nothing and are removed.
    Damaged {
        /// What is wrong with them.
        #[cfg_attr(feature = "json", serde(serialize_with = "words::text"))]
        damage: Damage,
    },
    /// Anything else that is told to observers.
    Told {
        /// The [name of the event](crate::event::Event::name).
        event: String,
        /// More about it, in words.
        detail: String,
    },
}

/// What a tier had for a key.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
#[cfg_attr(feature = "json", serde(tag = "state", rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Finding {
    /// Nothing.
    Nothing,
    /// What a delete left behind.
    Deleted {
        /// How long ago it was.
        #[cfg_attr(feature = "json", serde(rename = "ago_us", serialize_with = "words::micros"))]
        ago: Duration,
    },
    /// An entry.
    Entry {
        /// What may be done with it.
        #[cfg_attr(feature = "json", serde(serialize_with = "words::debug"))]
        freshness: Freshness,
        /// What decided that.
        because: Because,
        /// How long ago its load began, or it was set.
        #[cfg_attr(feature = "json", serde(rename = "age_us", serialize_with = "words::micros"))]
        age: Duration,
        /// How much longer its TTL lasts, zero if it is over; `None` is forever.
        #[cfg_attr(feature = "json", serde(rename = "ttl_left_us", serialize_with = "words::maybe_micros"))]
        ttl_left: Option<Duration>,
        /// How much longer it may be served at all; `None` is forever.
        #[cfg_attr(feature = "json", serde(rename = "life_left_us", serialize_with = "words::maybe_micros"))]
        life_left: Option<Duration>,
        /// What orders it among writes, as [`Stamp`] is written.
        #[cfg_attr(feature = "json", serde(serialize_with = "words::text"))]
        stamp: Stamp,
    },
}

/// What decided whether an entry may be served.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
#[cfg_attr(feature = "json", serde(tag = "reason", rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Because {
    /// Its own times.
    Times,
    /// Its `memory_ttl`, which is over: the store may know better.
    MemoryTtl,
    /// A clear of its namespace, or of one around it.
    Cleared {
        /// The namespace path, empty for the outermost.
        cleared: String,
        /// Whether it left its grace.
        soft: bool,
        /// How long ago it was.
        #[cfg_attr(feature = "json", serde(rename = "ago_us", serialize_with = "words::micros"))]
        ago: Duration,
    },
    /// The invalidation of one of its tags.
    Tag {
        /// Which.
        tag: String,
        /// Whether it left its grace.
        soft: bool,
        /// How long ago it was.
        #[cfg_attr(feature = "json", serde(rename = "ago_us", serialize_with = "words::micros"))]
        ago: Duration,
    },
}

/// What a loader said.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
#[cfg_attr(feature = "json", serde(tag = "loader", rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Load {
    /// A value, or that the previous one holds.
    Value {
        /// How long it is fresh; `None` is forever.
        #[cfg_attr(feature = "json", serde(rename = "ttl_us", serialize_with = "words::maybe_micros"))]
        ttl: Option<Duration>,
        /// Whether it is the previous one.
        unchanged: bool,
    },
    /// It failed or panicked.
    Failed {
        /// With what.
        error: String,
    },
}

/// Why a loaded value is not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
#[cfg_attr(feature = "json", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum NotKept {
    /// The loader, or a TTL of zero, said so.
    Asked,
    /// The key was written, deleted, expired, cleared or invalidated during the load, in this process, or another load
    /// was started beside it.
    Superseded,
    /// The store has something newer.
    NewerInStore,
    /// It took longer than a load may whose result is kept.
    TooLate,
}

/// What ended the wait for a load.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
#[cfg_attr(feature = "json", serde(tag = "end", rename_all = "snake_case"))]
#[non_exhaustive]
pub enum WaitEnd {
    /// It was found fresh after all.
    Found {
        /// Where.
        tier: Tier,
    },
    /// It was loaded.
    Loaded,
    /// A stale entry was taken, because the load failed or its source is left alone.
    StaleForFailure {
        /// Where the entry was.
        tier: Tier,
        /// What the load failed with.
        error: String,
    },
    /// A stale entry was taken, because the load took longer than this caller waits.
    StaleForTime {
        /// Where the entry was.
        tier: Tier,
        /// `soft_timeout` or `hard_timeout`.
        option: String,
    },
    /// It failed.
    Failed {
        /// With what.
        error: String,
    },
}

/// Runs an operation, or a future that does several, and returns what it came to with an account of what it did.
///
/// Anything that is awaited can be explained; a request such as [`Cache::get_or_set`](crate::Cache::get_or_set) need not
/// be awaited first. Dropping the future drops the operation, as without an account.
///
/// See the [module](mod@crate::explain) for an example.
pub async fn explain<F: IntoFuture>(operation: F) -> (F::Output, Account) {
    record::of(operation).await
}
