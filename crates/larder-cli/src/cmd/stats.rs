//! `larder stats`.

use std::time::Duration;

use serde_json::json;

use super::print_json;
use crate::args::units::words;
use crate::failure::{FOUND, Outcome};
use crate::output::{json_millis, print_line};
use crate::progress::Progress;
use crate::store::Store;

/// Counts what is stored, by what may be done with it. Reads the heads of the entries, no values.
pub(super) async fn stats(store: &Store, json: bool) -> Outcome {
    let progress = Progress::new("counting");
    let tally = progress.watch(store.tally(|| progress.advance())).await?;
    if json {
        print_json([
            ("live", json!(tally.live)),
            ("stale", json!(tally.stale)),
            ("tombstones", json!(tally.tombstones)),
            ("unreadable", json!(tally.unreadable)),
            ("oldest_age_ms", json_millis(tally.oldest)),
            ("newest_age_ms", json_millis(tally.newest)),
        ])?;
        return Ok(FOUND);
    }
    let age = |age: Option<Duration>| age.map_or("-".to_owned(), |age| format!("{} old", words(age)));
    for (name, value) in [
        ("live", tally.live.to_string()),
        ("stale", tally.stale.to_string()),
        ("tombstones", tally.tombstones.to_string()),
        ("unreadable", tally.unreadable.to_string()),
        ("oldest", age(tally.oldest)),
        ("newest", age(tally.newest)),
    ] {
        print_line(format_args!("{name:<11} {value}"))?;
    }
    Ok(FOUND)
}
