//! `larder stats`.

use std::time::Duration;

use larder::config::Config;
use larder::stats::PrometheusPage;
use serde_json::json;

use super::print_json;
use crate::args::high::{Place, Target};
use crate::args::units::words;
use crate::failure::{FAILED, FOUND, Failure, Outcome};
use crate::output::{escape, json_millis, note, print_bytes, print_line};
use crate::progress::Progress;
use crate::store::{Access, Store, Tally};

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

/// Prints what is known from outside of each cache that was named, for Prometheus. A store that does not answer
/// is on the page as well; the exit status says so too.
pub(super) async fn prometheus(target: Target) -> Outcome {
    let mut tallies = Vec::new();
    for (name, target) in each_cache(target)? {
        let tally = match Progress::new("counting").watch(tally(&target)).await {
            Ok(tally) => Some(tally),
            // One that is not there yet does not answer either.
            Err(Failure::Message { text, .. }) => {
                note(format_args!("{}: {text}", escape(&name)));
                None
            }
            Err(failure) => return Err(failure),
        };
        tallies.push((name, tally));
    }
    print_bytes(page(&tallies).as_bytes())?;
    Ok(if tallies.iter().all(|(_, tally)| tally.is_some()) { FOUND } else { FAILED })
}

/// The caches that were named: of a configuration without `--cache`, all that have a store.
pub(super) fn each_cache(target: Target) -> Result<Vec<(String, Target)>, Failure> {
    let Place::Config { file, cache } = &target.place else {
        return Ok(vec![(target.place.words(), target)]);
    };
    if let Some(name) = cache {
        return Ok(vec![(name.clone(), target)]);
    }
    let config = Config::load(file)?;
    let stored = config.stacks.iter().filter(|(_, stack)| stack.l2.is_some());
    let of = |name: &String| Target {
        explain: false,
        place: Place::Config { file: file.clone(), cache: Some(name.clone()) },
        namespace: target.namespace.clone(),
        prefix: target.prefix.clone(),
        pruned: None,
        json: false,
    };
    Ok(stored.map(|(name, _)| (name.clone(), of(name))).collect())
}

async fn tally(target: &Target) -> Result<Tally, Failure> {
    let store = Store::open(target, Access::Read).await?;
    let tally = store.tally(|| ()).await;
    let closed = store.close().await;
    let tally = tally?;
    closed?;
    Ok(tally)
}

fn page(tallies: &[(String, Option<Tally>)]) -> String {
    let mut page = PrometheusPage::default();
    let labels: Vec<_> = tallies.iter().map(|(name, tally)| ([("cache", name.as_str())], tally)).collect();
    let up = labels.iter().map(|(labels, tally)| (&labels[..], u64::from(tally.is_some())));
    page.gauge("larder_store_up", "Whether the store answered.", up);
    let known: Vec<_> = labels.iter().filter_map(|(labels, tally)| Some((labels, tally.as_ref()?))).collect();
    let states: Vec<_> = known
        .iter()
        .flat_map(|([cache], tally)| {
            let states = [
                ("live", tally.live),
                ("stale", tally.stale),
                ("tombstone", tally.tombstones),
                ("unreadable", tally.unreadable),
            ];
            states.map(|(state, count)| ([*cache, ("state", state)], count))
        })
        .collect();
    let samples = states.iter().map(|(labels, count)| (&labels[..], *count));
    page.gauge("larder_store_entries", "What is stored, by what may be done with it.", samples);
    for (name, help, age) in [
        (
            "larder_store_oldest_entry_age_seconds",
            "The age of the oldest entry that may be served.",
            (|tally| tally.oldest) as fn(&Tally) -> Option<Duration>,
        ),
        (
            "larder_store_newest_entry_age_seconds",
            "The age of the newest entry that may be served.",
            |tally| tally.newest,
        ),
    ] {
        let ages = known.iter().filter_map(|(labels, tally)| Some((&labels[..], age(tally)?.as_secs())));
        page.gauge(name, help, ages);
    }
    page.into_text()
}
