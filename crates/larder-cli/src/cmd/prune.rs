//! `larder prune`.

use serde_json::json;

use super::print_json;
use crate::failure::{FOUND, Outcome};
use crate::output::print_line;
use crate::progress::Progress;
use crate::store::Store;

/// Gives back the space of what has expired, and says how much that was.
pub(super) async fn prune(store: &Store, json: bool) -> Outcome {
    let pruned = Progress::new("pruning").watch(store.prune()).await?;
    if json {
        print_json([("pruned", json!(pruned))])?;
    } else {
        print_line(format_args!("{pruned} pruned"))?;
    }
    Ok(FOUND)
}
