//! `larder delete`, `larder expire` and `larder touch`: they end a value, now or later.

use larder::time::Ttl;
use serde_json::json;

use super::{found, print_json};
use crate::failure::Outcome;
use crate::store::Store;

/// Deletes keys. Found if there was any of them.
pub(super) async fn delete(store: &Store, keys: &[String], json: bool) -> Outcome {
    let deleted = store.delete(keys).await?;
    if json {
        print_json([("keys", json!(keys)), ("deleted", json!(deleted))])?;
    }
    Ok(found(deleted > 0))
}

/// Makes a value stale.
pub(super) async fn expire(store: &Store, key: &str, json: bool) -> Outcome {
    let expired = store.expire(key).await?;
    if json {
        print_json([("key", json!(key)), ("expired", json!(expired))])?;
    }
    Ok(found(expired))
}

/// Gives a value a new TTL.
pub(super) async fn touch(store: &Store, key: &str, ttl: Ttl, json: bool) -> Outcome {
    let touched = store.touch(key, ttl).await?;
    if json {
        print_json([("key", json!(key)), ("touched", json!(touched))])?;
    }
    Ok(found(touched))
}
