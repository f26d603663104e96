//! `larder keys`.

use std::io;

use futures_util::TryStreamExt;
use serde_json::json;

use super::print_json;
use crate::failure::{FOUND, Failure, Outcome};
use crate::output::{escape, is_terminal, print_line};
use crate::progress::Progress;
use crate::store::Store;

/// Prints the keys that begin with a prefix, one per line, as they come.
pub(super) async fn keys(store: &Store, prefix: &str, json: bool) -> Outcome {
    let progress = Progress::new("listing keys");
    let list = async {
        let mut keys = store.keys();
        while let Some(key) = keys.try_next().await? {
            progress.advance();
            if !key.starts_with(prefix) {
                continue;
            }
            if json {
                print_json([("key", json!(key))])?;
            } else {
                print_line(escape(&key))?;
            }
        }
        Ok::<(), Failure>(())
    };
    // On a terminal the keys themselves are the sign of life.
    if is_terminal(io::stdout()) {
        list.await?
    } else {
        progress.watch(list).await?
    }
    // No keys is a list as well.
    Ok(FOUND)
}
