//! Listing a table, and removing what a clear or its TTL has ended.
//!
//! Every listing reads the whole table and pays for it, whatever it looks for: DynamoDB filters what it has read.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};

use super::batch::CONCURRENT_MAX;
use super::item::{self, Expression, Item};
use super::link::Link;
use crate::driver::Scanned;
use crate::error::{Error, Result};
use crate::time::Stamp;

const BEGINS: &str =
    "((attribute_not_exists(#full) AND begins_with(#key, :prefix)) OR begins_with(#full, :prefix))";
const ALIVE: &str = "(attribute_not_exists(#expires) OR #expires > :now)";
const NOT_NEWER: &str = "(attribute_not_exists(#stamp) OR #stamp <= :until)";

/// Pages of items that a filter lets through.
fn pages<'a>(
    link: &'a Link,
    what: &'static str,
    wanted: &'static str,
    filter: String,
    values: HashMap<String, AttributeValue>,
) -> BoxStream<'a, Result<Vec<Item>>> {
    // `Some(None)` is the beginning, `None` the end.
    let from: Option<Option<Item>> = Some(None);
    stream::try_unfold(from, move |from| {
        let (filter, values) = (filter.clone(), values.clone());
        async move {
            let Some(from) = from else { return Ok(None) };
            let (items, next) = link.page(what, wanted, Some((&filter, &values)), from).await?;
            Ok(Some((items, next.map(Some))))
        }
    })
    .boxed()
}

fn seconds_now(link: &Link) -> AttributeValue {
    item::number(link.now().as_millis() / 1_000)
}

/// All keys that begin with a prefix, with their heads.
pub(super) fn scan<'a>(link: &'a Link, prefix: &'a str) -> BoxStream<'a, Result<Scanned>> {
    let mut values = HashMap::from([(":now".to_owned(), seconds_now(link))]);
    let mut filter = ALIVE.to_owned();
    // Everything begins with nothing, and there are servers that take no empty text.
    if !prefix.is_empty() {
        values.insert(":prefix".to_owned(), item::text(prefix));
        filter = format!("{filter} AND {BEGINS}");
    }
    let pages = pages(link, "scan", "#key, #full, #head", filter, values);
    let found = pages.map_ok(|items| {
        let found = items.into_iter().filter_map(|item| {
            let (key, _) = item::keys_of(&item)?;
            Some(Ok(Scanned { key, head: item::head_of(&item) }))
        });
        stream::iter(found.collect::<Vec<Result<Scanned>>>())
    });
    found.try_flatten().boxed()
}

/// Removes the keys that begin with a prefix and are not newer than a stamp. Returns how many.
pub(super) async fn clear(link: &Link, prefix: &str, until: Stamp) -> Result<u64> {
    let until = item::number(until.to_bits());
    let values =
        HashMap::from([(":prefix".to_owned(), item::text(prefix)), (":until".to_owned(), until.clone())]);
    let pages = pages(link, "clear", "#key", format!("{BEGINS} AND {NOT_NEWER}"), values);
    let condition =
        || Expression::of(&format!("attribute_exists(#key) AND {NOT_NEWER}")).with(":until", until.clone());
    remove(link, "clear", pages, condition).await
}

/// Removes what has expired. Returns how many items went.
pub(super) async fn prune(link: &Link) -> Result<u64> {
    let expired = item::expired(link.now());
    let pages = pages(link, "prune", "#key", expired.text.clone(), expired.values.clone());
    remove(link, "prune", pages, || expired.clone()).await
}

/// Removes the items on some pages, each if the condition still holds.
async fn remove(
    link: &Link,
    what: &'static str,
    mut pages: BoxStream<'_, Result<Vec<Item>>>,
    condition: impl Fn() -> Expression,
) -> Result<u64> {
    let mut gone = 0;
    while let Some(items) = pages.try_next().await? {
        let calls: Vec<_> = items.into_iter().map(|key| link.delete_if(what, key, condition())).collect();
        let removed = stream::iter(calls).buffer_unordered(CONCURRENT_MAX);
        gone +=
            removed.try_fold(0, |sum, gone| async move { Ok::<u64, Error>(sum + u64::from(gone)) }).await?;
    }
    Ok(gone)
}
