//! `larder incr`.

use larder::ErrorKind;
use serde_json::json;

use super::print_json;
use crate::failure::{FOUND, Failure, NOT_FOUND, Outcome};
use crate::output::{escape, print_line};
use crate::store::Store;

/// Adds to a counter and prints it. With `existing`, only to one that is there.
pub(super) async fn incr(store: &Store, key: &str, by: i64, existing: bool, json: bool) -> Outcome {
    let added = store.increment(key, by, existing).await.map_err(|error| failure(key, error));
    let Some(value) = added? else {
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

/// Who counts with something that is no number, or too far, has to ask for something else.
fn failure(key: &str, error: larder::Error) -> Failure {
    match error.kind() {
        ErrorKind::Counter | ErrorKind::Decode | ErrorKind::TypeMismatch => {
            Failure::usage(format!("cannot add to {:?}: {error}", escape(key)))
        }
        _ => error.into(),
    }
}
