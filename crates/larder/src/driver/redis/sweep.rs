//! Listing and clearing by prefix: `SCAN` on every primary, and what is done with what it finds.
//!
//! Knows how a pattern is escaped. What is cleared is looked at and removed in one step, by a script.

use std::collections::HashSet;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use redis::{FromRedisValue as _, Pipeline, Value, cmd};
use xxhash_rust::xxh3::xxh3_128;

use super::exchange::{Node, checked, number};
use super::link::Link;
use super::{CONCURRENT_MAX, failure, script};
use crate::driver::Scanned;
use crate::entry::wire::HEAD_BYTES;
use crate::error::{Error, Result};
use crate::time::Stamp;

/// How many keys the server looks at for one answer: a millisecond at most, in which it does nothing else.
const PAGE_KEYS: usize = 1_000;
/// How many keys one run of the script looks at, for the same reason.
const CLEAR_KEYS: usize = 250;

/// The pattern of `SCAN` for a prefix that is meant byte for byte.
fn pattern(prefix: &str) -> Vec<u8> {
    let mut pattern = Vec::with_capacity(prefix.len() + 1);
    for &byte in prefix.as_bytes() {
        if matches!(byte, b'*' | b'?' | b'[' | b']' | b'\\') {
            pattern.push(b'\\');
        }
        pattern.push(byte);
    }
    pattern.push(b'*');
    pattern
}

/// Where a listing stands.
struct Walk {
    nodes: std::vec::IntoIter<Node>,
    at: Option<(Node, Vec<u8>)>,
}

/// Pages of keys, from one primary after the other. A key may come more than once.
fn pages<'a>(link: &'a Link, what: &'static str, prefix: &'a str) -> BoxStream<'a, Result<Vec<Vec<u8>>>> {
    let pattern = pattern(prefix);
    let walk = async move {
        let nodes = link.primaries(what).await?.into_iter();
        Ok::<_, Error>(stream::try_unfold(Walk { nodes, at: None }, move |mut walk| {
            let pattern = pattern.clone();
            async move {
                let next = walk.at.take().or_else(|| Some((walk.nodes.next()?, b"0".to_vec())));
                let Some((node, cursor)) = next else { return Ok(None) };
                let mut scan = cmd("SCAN");
                scan.arg(&cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(PAGE_KEYS);
                let (cursor, keys) = page(what, link.ask_node(what, &node, scan).await?)?;
                walk.at = (cursor != b"0").then_some((node, cursor));
                Ok(Some((keys, walk)))
            }
        }))
    };
    // What no server filters is filtered here, should one read patterns its own way.
    let prefix = prefix.as_bytes();
    let pages = stream::once(walk).try_flatten();
    pages.map_ok(move |keys| keys.into_iter().filter(|key| key.starts_with(prefix)).collect()).boxed()
}

fn page(what: &'static str, answer: Value) -> Result<(Vec<u8>, Vec<Vec<u8>>)> {
    <(Vec<u8>, Vec<Vec<u8>>)>::from_redis_value_ref(&answer).map_err(|_| failure::unexpected(what, &answer))
}

/// All keys that begin with a prefix, each once, with their heads.
pub(super) fn scan<'a>(link: &'a Link, prefix: &'a str) -> BoxStream<'a, Result<Scanned>> {
    let mut seen = HashSet::new();
    let pages = pages(link, "scan", prefix).map_ok(move |keys| {
        // The server names a key again when its table grows or shrinks meanwhile. 16 bytes a key remember which
        // ones there were; what is not text is no key of ours.
        keys.into_iter()
            .filter(|key| seen.insert(xxh3_128(key)))
            .filter_map(|key| String::from_utf8(key).ok())
            .collect::<Vec<String>>()
    });
    let found = pages.and_then(move |keys| async move {
        let heads = heads(link, &keys).await?;
        let found = keys.into_iter().zip(heads);
        let found = found.filter_map(|(key, head)| Some(Ok::<_, Error>(Scanned { key, head: head? })));
        Ok(stream::iter(found.collect::<Vec<_>>()))
    });
    found.try_flatten().boxed()
}

/// The heads of what is stored under keys; `None` for what is gone by now. What is no string has an empty one.
async fn heads(link: &Link, keys: &[String]) -> Result<Vec<Option<Bytes>>> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let commands = keys.iter().map(|key| cmd("GETRANGE").arg(key).arg(0).arg(HEAD_BYTES - 1).to_owned());
    let heads: Vec<Value> = if link.is_cluster() {
        let asked: Vec<_> =
            commands.map(|command| async move { link.ask_string("scan", &command).await }).collect();
        stream::iter(asked).buffered(CONCURRENT_MAX).try_collect().await?
    } else {
        let mut pipeline = Pipeline::with_capacity(keys.len());
        for command in commands {
            pipeline.add_command(command);
        }
        link.pipeline("scan", &pipeline).await?
    };
    let mut found = Vec::with_capacity(heads.len());
    for (key, head) in keys.iter().zip(heads) {
        found.push(match checked(head) {
            Ok(Value::BulkString(head)) if !head.is_empty() => Some(Bytes::from(head)),
            // Nothing there, or nothing in it.
            Ok(Value::BulkString(_)) => exists(link, key).await?.then(Bytes::new),
            Ok(Value::Nil) => Some(Bytes::new()),
            Ok(other) => return Err(failure::unexpected("scan", &other)),
            Err(cause) if failure::is_wrong_type(&cause) => Some(Bytes::new()),
            Err(cause) => return Err(failure::failed("scan", cause)),
        });
    }
    Ok(found)
}

async fn exists(link: &Link, key: &str) -> Result<bool> {
    let answer = link.ask("scan", cmd("EXISTS").arg(key)).await?;
    Ok(number("scan", answer)? > 0)
}

/// Removes the keys that begin with a prefix and are not newer than a stamp. Returns how many.
pub(super) async fn clear(link: &Link, prefix: &str, until: Stamp) -> Result<u64> {
    let mut pages = pages(link, "clear", prefix);
    let mut gone = 0;
    let together = if link.is_cluster() { 1 } else { CLEAR_KEYS };
    while let Some(keys) = pages.try_next().await? {
        let calls = keys.chunks(together).map(|keys| async move {
            let answer = if script::takes_all(until) {
                link.change("clear", cmd("UNLINK").arg(keys)).await?
            } else {
                link.run("clear", |named| script::clear(named, keys, until)).await?
            };
            number("clear", answer)
        });
        let calls = calls.collect::<Vec<_>>();
        let mut counts = stream::iter(calls).buffer_unordered(CONCURRENT_MAX);
        while let Some(count) = counts.try_next().await? {
            gone += count;
        }
    }
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_means_itself() {
        for (prefix, expected) in [
            ("users:", "users:*"),
            ("a*b?c", "a\\*b\\?c*"),
            ("[x]^-", "\\[x\\]^-*"),
            ("back\\slash", "back\\\\slash*"),
            ("ж\0{tag}", "ж\0{tag}*"),
        ] {
            assert_eq!(pattern(prefix), expected.as_bytes());
        }
    }
}
