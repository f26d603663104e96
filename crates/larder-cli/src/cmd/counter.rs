//! `larder incr`.

use serde_json::json;

use super::print_json;
use crate::failure::{FOUND, NOT_FOUND, Outcome};
use crate::output::print_line;
use crate::store::Store;

/// Adds to a counter and prints it. With `existing`, only to one that is there.
pub(super) async fn incr(store: &Store, key: &str, by: i64, existing: bool, json: bool) -> Outcome {
    let Some(value) = store.increment(key, by, existing).await? else {
        if json {
            print_json([("key", json!(key)), ("found", json!(false))])?;
        }
        return Ok(NOT_FOUND);
    };
    if json {
        print_json([("key", json!(key)), ("value", json!(value))])?;
    } else {
        print_line(value)?;
    }
    Ok(FOUND)
}
