//! `larder tags` and `larder invalidate`: what carries a tag, and its end.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use larder::entry::Freshness;
use serde_json::json;

use super::{found, print_json};
use crate::failure::{FOUND, Failure, Outcome};
use crate::output::{escape, note, print_line};
use crate::progress::Progress;
use crate::store::{End, Store};

/// The most tags that are listed: what bounds memory.
const TAGS_MAX: usize = 100_000;
/// The most entries that a dry run looks at.
const SAMPLE_MAX: u64 = 10_000;

/// Lists the tags that begin with a prefix, each with the number of entries that carry it.
pub(super) async fn tags(stores: &[&Store], prefix: &str, json: bool) -> Outcome {
    let progress = Progress::new("reading entries");
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut whole = true;
    let walk = async {
        for store in stores {
            let walk = store.walk(|entry| {
                progress.advance();
                for tag in entry.tags.iter().map(larder::Tag::as_str).filter(|tag| tag.starts_with(prefix)) {
                    if let Some(count) = counts.get_mut(tag) {
                        *count += 1;
                    } else if counts.len() < TAGS_MAX {
                        counts.insert(tag.to_owned(), 1);
                    } else {
                        whole = false;
                    }
                }
                ControlFlow::Continue(())
            });
            walk.await?;
        }
        Ok::<(), Failure>(())
    };
    progress.watch(walk).await?;
    for (tag, entries) in &counts {
        if json {
            print_json([("tag", json!(tag)), ("entries", json!(entries))])?;
        } else {
            print_line(format_args!("{entries:>7} {}", escape(tag)))?;
        }
    }
    if !whole {
        note(format_args!("there are more than {TAGS_MAX} tags; name a prefix to see the others"));
    }
    Ok(found(!counts.is_empty()))
}

/// Ends what carries one of some tags.
pub(super) async fn invalidate(stores: &[&Store], tags: &[String], end: End, json: bool) -> Outcome {
    for store in stores {
        store.invalidate(tags, end).await?;
    }
    if json {
        let soft = end == End::Stale;
        print_json([("tags", json!(tags)), ("invalidated", json!(true)), ("soft", json!(soft))])?;
    }
    Ok(FOUND)
}

/// Says how many entries would be ended: all, or those that carry one of some tags.
pub(super) async fn dry_run(stores: &[&Store], tags: Option<&[String]>, end: End, json: bool) -> Outcome {
    let progress = Progress::new("reading entries");
    let (mut looked_at, mut would_end, mut would_go, mut whole) = (0_u64, 0_u64, 0_u64, true);
    let walk = async {
        for store in stores {
            let walk = store.walk(|entry| {
                if looked_at == SAMPLE_MAX {
                    whole = false;
                    return ControlFlow::Break(());
                }
                progress.advance();
                looked_at += 1;
                let meant = tags.is_none_or(|tags| {
                    entry.tags.iter().any(|carried| tags.iter().any(|tag| tag == carried.as_str()))
                });
                // What is stale already, a soft end leaves as it is.
                let ends = end == End::Gone || entry.state == Freshness::Fresh;
                let has_grace = entry.ttl_left != entry.life_left;
                would_end += u64::from(meant && ends);
                // What has no grace is gone when it is not fresh.
                would_go += u64::from(meant && ends && end == End::Stale && !has_grace);
                ControlFlow::Continue(())
            });
            walk.await?;
        }
        Ok::<(), Failure>(())
    };
    progress.watch(walk).await?;
    if json {
        print_json([
            ("would_end", json!(would_end)),
            ("would_go", json!(if end == End::Gone { would_end } else { would_go })),
            ("looked_at", json!(looked_at)),
            ("sampled", json!(!whole)),
            ("soft", json!(end == End::Stale)),
        ])?;
    } else {
        let become_what = match end {
            End::Gone => "go",
            End::Stale => "become stale",
        };
        let how = if whole { "all were looked at" } else { "a sample: there are more" };
        let and_go = match would_go {
            0 => String::new(),
            go => format!(", {go} of them would go, having no grace"),
        };
        print_line(format_args!("{would_end} of {looked_at} entries would {become_what}{and_go} ({how})"))?;
    }
    Ok(found(would_end > 0))
}
