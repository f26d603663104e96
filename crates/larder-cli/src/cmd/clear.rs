//! `larder clear`.

use std::io;

use serde_json::json;

use super::print_json;
use crate::args::high::{PREFIX, Target};
use crate::failure::{FOUND, Failure, Outcome};
use crate::output::{escape, is_terminal, write_all};
use crate::progress::Progress;
use crate::store::{End, Store};

/// Makes sure that somebody means it.
pub(super) fn confirm(target: &Target, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !is_terminal(io::stdin()) || !is_terminal(io::stderr()) {
        return Err(Failure::usage("clear deletes without asking only if told so: add --yes"));
    }
    let place = target.place.words();
    let what = match target.namespace.as_slice() {
        [] => format!("everything under {}", escape(target.prefix.as_deref().unwrap_or(PREFIX))),
        names => format!("the namespace {}", escape(&names.join("/"))),
    };
    let question = format!("Clear {what} in {}? [y/N] ", escape(&place));
    write_all(rustix::stdio::stderr(), question.as_bytes())
        .map_err(|error| Failure::io("ask on the terminal", &error))?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(|error| Failure::io("read the answer", &error))?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::Message { status: crate::failure::NOT_FOUND, text: "nothing was cleared".into() }),
    }
}

/// Ends everything in the namespace and those inside it.
pub(super) async fn clear(store: &Store, end: End, json: bool) -> Outcome {
    let reclaimed = Progress::new("clearing").watch(store.clear(end)).await?;
    if json {
        print_json([("cleared", json!(true)), ("reclaimed", json!(reclaimed))])?;
    }
    Ok(FOUND)
}
