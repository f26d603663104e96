//! One file per command. Each takes what it was told and returns an exit status; none of them reads flags or
//! leaves the process.

pub(crate) mod admin;
pub(crate) mod check;
mod clear;
mod counter;
pub(crate) mod drivers;
pub(crate) mod generate;
mod get;
mod keys;
pub(crate) mod migrate;
pub(crate) mod ping;
mod prune;
pub(crate) mod run;
pub(crate) mod serve;
mod set;
mod stats;
mod remove;
mod tags;
pub(crate) mod warm;

use bytes::Bytes;
use larder::entry::Freshness;
use serde_json::{Map, Value};

use crate::args::high::Target;
use crate::args::low::Operation;
use crate::failure::{FOUND, Failure, NOT_FOUND, Outcome};
use crate::output::{escape, note, print_line, write_all};
use crate::store::{Access, Store};
use crate::upkeep;

/// Opens the store, does one thing to it, and closes it.
pub(crate) async fn on_store(target: Target, operation: Operation) -> Outcome {
    if let Operation::Clear { yes, dry_run: false, .. } = operation {
        // Asked before anything is opened, let alone created.
        clear::confirm(&target, yes)?;
    }
    if let Operation::Stats { prometheus: true } = operation {
        return stats::prometheus(target).await;
    }
    // Read before the store is opened: it may take as long as somebody types.
    let value = match &operation {
        Operation::Set { value, .. } => set::read(value)?,
        _ => Bytes::new(),
    };
    let access = operation.access();
    let store = Store::open(&target, access).await?;
    if access == Access::Create && store.is_lost_at_exit() {
        let place = target.place.words();
        note(format_args!("warning: what is stored in {} is lost when this command ends", escape(&place)));
    }
    let beside = match (&operation, target.beside()) {
        (Operation::Invalidate { .. } | Operation::Tags { .. }, Some(beside)) => {
            Some(Store::open(&beside, access).await?)
        }
        _ => None,
    };
    let performing = perform(&store, beside.as_ref(), operation, value, target.json);
    let outcome = if target.explain {
        let (outcome, account) = larder::explain(performing).await;
        print_account(&account, target.json);
        outcome
    } else {
        performing.await
    };
    if access == Access::Create && outcome.is_ok() {
        upkeep::keep_up(&store, target.pruned.as_deref()).await;
    }
    let closed = store.close().await;
    let status = outcome?;
    closed?;
    if let Some(beside) = beside {
        beside.close().await?;
    }
    Ok(status)
}

/// Does it, to the store that was named, or to what is beside it as well.
async fn perform(
    store: &Store,
    beside: Option<&Store>,
    operation: Operation,
    value: Bytes,
    json: bool,
) -> Outcome {
    let both: Vec<&Store> = std::iter::once(store).chain(beside).collect();
    match operation {
        Operation::Get { key, raw, stale } => {
            let least = if stale { Freshness::Stale } else { Freshness::Fresh };
            get::get(store, &key, least, raw, json).await
        }
        Operation::Set { key, value: _, ttl, grace, tags, if_absent } => {
            set::set(store, &key, value, crate::store::Writing { ttl, grace, tags }, if_absent, json).await
        }
        Operation::Delete { keys } => remove::delete(store, &keys, json).await,
        Operation::Expire { key } => remove::expire(store, &key, json).await,
        Operation::Touch { key, ttl } => remove::touch(store, &key, ttl, json).await,
        Operation::Incr { key, by, existing } => counter::incr(store, &key, by, existing, json).await,
        Operation::Keys { prefix } => keys::keys(store, &prefix, json).await,
        Operation::Clear { end, dry_run: true, .. } => tags::dry_run(&[store], None, end, json).await,
        Operation::Clear { end, .. } => clear::clear(store, end, json).await,
        Operation::Invalidate { tags, end, dry_run: true } => {
            tags::dry_run(&both, Some(&tags), end, json).await
        }
        Operation::Invalidate { tags, end, .. } => tags::invalidate(&both, &tags, end, json).await,
        Operation::Tags { prefix } => tags::tags(&both, &prefix, json).await,
        Operation::Stats { .. } => stats::stats(store, json).await,
        Operation::Prune => prune::prune(store, json).await,
    }
}

/// Says on standard error what the store did: in words, or as one line of JSON.
fn print_account(account: &larder::Account, json: bool) {
    if json {
        // It is made of numbers and text, so this cannot fail.
        let account = serde_json::to_string(account).unwrap_or_default();
        let _ = write_all(rustix::stdio::stderr(), format!("{account}\n").as_bytes());
    } else {
        account.to_string().lines().for_each(|line| note(escape(line)));
    }
}

/// The exit status of something that was there or not.
fn found(found: bool) -> u8 {
    if found { FOUND } else { NOT_FOUND }
}

/// Prints one JSON object on one line.
fn print_json<const N: usize>(fields: [(&str, Value); N]) -> Result<(), Failure> {
    let object: Map<String, Value> =
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    print_line(Value::Object(object))
}
