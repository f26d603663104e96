//! `larder clear`.

use serde_json::json;

use super::print_json;
use crate::args::high::{PREFIX, Target};
use crate::failure::{FOUND, Failure, Outcome};
use crate::output::{ask, can_ask, escape};
use crate::progress::Progress;
use crate::store::{End, Store};

/// Makes sure that somebody means it.
pub(super) fn confirm(target: &Target, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !can_ask() {
        return Err(Failure::usage("clear deletes without asking only if told so: add --yes"));
    }
    let place = target.place.words();
    let what = match target.namespace.as_slice() {
        [] => format!("everything under {}", escape(target.prefix.as_deref().unwrap_or(PREFIX))),
        names => format!("the namespace {}", escape(&names.join("/"))),
    };
    let question = format!("Clear {what} in {}? [y/N] ", escape(&place));
    ask(&question, "nothing was cleared")
}

/// Ends everything in the namespace and those inside it.
pub(super) async fn clear(store: &Store, end: End, json: bool) -> Outcome {
    let reclaimed = Progress::new("clearing").watch(store.clear(end)).await?;
    if json {
        print_json([("cleared", json!(true)), ("reclaimed", json!(reclaimed))])?;
    }
    Ok(FOUND)
}
