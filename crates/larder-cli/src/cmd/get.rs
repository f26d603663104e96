//! `larder get`.

use std::io;

use larder::entry::Freshness;
use serde_json::json;

use super::{found, print_json};
use crate::failure::{Failure, NOT_FOUND, Outcome};
use crate::output::{escape_value, is_terminal, json_millis, json_value, print_bytes};
use crate::store::{Found, Store};

/// Prints a value: exactly, unless a terminal would act on it.
pub(super) async fn get(store: &Store, key: &str, least: Freshness, raw: bool, json: bool) -> Outcome {
    let entry = store.entry(key).await?.filter(|entry| entry.fresh || least == Freshness::Stale);
    let status = found(entry.is_some());
    match entry {
        Some(entry) if json => print_entry(key, &entry)?,
        Some(entry) if raw || !is_terminal(io::stdout()) => print_bytes(&entry.value)?,
        Some(entry) => print_bytes(escape_value(&entry.value).as_bytes())?,
        None if json => print_json([("key", json!(key)), ("found", json!(false))])?,
        None => return Ok(NOT_FOUND),
    }
    Ok(status)
}

fn print_entry(key: &str, entry: &Found) -> Result<(), Failure> {
    print_json([
        ("key", json!(key)),
        ("found", json!(true)),
        ("stale", json!(!entry.fresh)),
        ("value", json_value(&entry.value)),
        ("codec", json!(entry.codec.to_string())),
        ("age_ms", json_millis(Some(entry.age))),
        ("ttl_left_ms", json_millis(entry.ttl_left)),
        ("tags", json!(entry.tags)),
        ("stamp", json!(entry.stamp.to_string())),
    ])
}
