//! Cases: listing and clearing by prefix take their prefix byte for byte, and a clear takes nothing newer.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;

use super::{Subject, must, record, stamp};
use crate::driver::{Driver, Scanned, When, Write, head};
use crate::entry::wire::encode_tombstone;
use crate::error::{ErrorKind, Result};
use crate::time::{Stamp, Timestamp};

/// A prefix, keys that begin with it, and keys that do not but would for a store that reads it as a pattern,
/// folds case, drops what it does not know, or computes the end of a range wrongly.
struct Row {
    prefix: &'static str,
    inside: &'static [&'static str],
    outside: &'static [&'static str],
}

const fn row(prefix: &'static str, inside: &'static [&'static str], outside: &'static [&'static str]) -> Row {
    Row { prefix, inside, outside }
}

const ROWS: &[Row] = &[
    row("a*", &["a*", "a*b", "a**"], &["a", "ab", "abc", "a+", "*"]),
    row("b?", &["b?", "b?x"], &["bx", "bxx", "b"]),
    row("[cd]", &["[cd]", "[cd]1"], &["c1", "d1", "[cd", "["]),
    row("[^e]", &["[^e]1"], &["e1", "x1", "^1"]),
    row("f\\", &["f\\", "f\\x", "f\\\\"], &["f", "f/x", "fx"]),
    row("g%", &["g%", "g%x"], &["g", "gx", "gxx"]),
    row("h_", &["h_", "h_x"], &["hx", "hxx", "h"]),
    row("i'", &["i'", "i'x"], &["i", "i\"x", "ix"]),
    row("Case", &["Case", "Case1"], &["case", "case1", "CASE1", "cASE"]),
    row("Ж", &["Ж", "Ж1"], &["ж1", "Е1", "З"]),
    row("\u{e9}", &["\u{e9}", "\u{e9}1"], &["e\u{301}1", "\u{c9}1", "e1", "\u{e8}", "\u{ea}"]),
    row("l\0", &["l\0", "l\0x"], &["l", "lx", "l\u{1}"]),
    row("m ", &["m ", "m x", "m  "], &["m", "mx", "m\t"]),
    row("n\n", &["n\n", "n\nx"], &["n", "nx"]),
    // The bound above such a prefix cannot be had by adding one to its last byte or character.
    row("o\u{10ffff}", &["o\u{10ffff}", "o\u{10ffff}x"], &["o", "o\u{10fffe}", "p", "o\u{ffff}"]),
    row("p\u{7f}", &["p\u{7f}", "p\u{7f}x"], &["p~", "p\u{80}", "q"]),
    row("q\u{d7ff}", &["q\u{d7ff}x"], &["q\u{e000}", "q\u{d7fe}", "r"]),
    row("q{slot}", &["q{slot}x"], &["q{slot", "qslot"]),
    row("s:t", &["s:t", "s:t:u", "s:tv"], &["s", "s:", "s:u", "t:s:t", "xs:t"]),
];

/// `users` must never take `usersAbc` with it, nor what merely contains it.
pub async fn clear_leaves_the_neighbour_alone(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "neighbour");
    if !subject.driver.capabilities().enumerates {
        return;
    }
    let inside = ["users:", "users:1", "users:posts:1", "users::"];
    let outside = [
        "users",
        "usersAbc",
        "usersAbc:1",
        "user",
        "user:1",
        "USERS:1",
        "users;1",
        "users/1",
        "my users:1",
        "1",
    ];
    write(&subject, &inside, &outside).await;
    // Contains the prefix, but does not begin with it.
    let later = format!("x{}", subject.key("users:1"));
    subject.put(&later, &record(&later, stamp(1), b"v")).await;
    must(subject.driver.clear(&subject.key("users:"), Stamp::MAX).await, "clearing a prefix works");
    check_cleared(&subject, "users:", &inside, &outside).await;
    subject
        .expect(&later, &record(&later, stamp(1), b"v"), "a prefix is looked for at the beginning only")
        .await;
}

/// Wildcards, quotes, case, other scripts and the ends of ranges mean themselves.
pub async fn clear_takes_its_prefix_literally(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "literal clear");
    if !subject.driver.capabilities().enumerates {
        return;
    }
    for row in ROWS {
        write(&subject, row.inside, row.outside).await;
        must(subject.driver.clear(&subject.key(row.prefix), Stamp::MAX).await, "clearing a prefix works");
        check_cleared(&subject, row.prefix, row.inside, row.outside).await;
    }
}

/// The count is of what was there; clearing nothing is nothing.
pub async fn clear_counts_what_was_there(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "count");
    if !subject.driver.capabilities().enumerates {
        return;
    }
    write(&subject, &["a:1", "a:2", "a:3"], &["b:1"]).await;
    for expected in [3, 0] {
        let cleared =
            must(subject.driver.clear(&subject.key("a:"), Stamp::MAX).await, "clearing a prefix works");
        assert_eq!(cleared, expected, "clearing should count what was there");
    }
}

/// What was written after a clear is not its to take: entries would be lost, and tombstones missing that have
/// loads to refuse. Nor is what is written while it runs, which is why looking and removing are one step.
pub async fn clear_spares_what_is_newer_than_the_clear(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "newer");
    if !subject.driver.capabilities().enumerates {
        return;
    }
    // The last two differ from the clear's stamp in a byte that a store may not look at, or takes for a sign.
    let newer = [stamp(4), stamp(300), Stamp::from_bits(stamp(3).to_bits() | 1 << 63), Stamp::MAX];
    let older = [Stamp::ZERO, stamp(1), stamp(3)];
    let entry = |stamp: Stamp| subject.key(format_args!("in:{stamp}"));
    let buried = |stamp: Stamp| subject.key(format_args!("in:{stamp} buried"));
    let tombstone = |stamp: Stamp| encode_tombstone(stamp, Timestamp::FOREVER);
    for stamp in older.into_iter().chain(newer) {
        subject.put(&entry(stamp), &record(&entry(stamp), stamp, b"v")).await;
        subject.put(&buried(stamp), &tombstone(stamp)).await;
    }
    let cleared = must(subject.driver.clear(&subject.key("in:"), stamp(3)).await, "clearing a prefix works");
    for stamp in older {
        subject.expect_nothing(&entry(stamp), "a clear takes entries of its own stamp and older ones").await;
        subject
            .expect_nothing(&buried(stamp), "a clear takes tombstones of its own stamp and older ones")
            .await;
    }
    for stamp in newer {
        let value = record(&entry(stamp), stamp, b"v");
        subject.expect(&entry(stamp), &value, "a clear spares entries that are newer than it").await;
        let why = "a clear spares tombstones that are newer than it";
        subject.expect(&buried(stamp), &tombstone(stamp), why).await;
    }
    assert_eq!(cleared, 6, "clearing should count what went, and not what was spared");
    for round in 0..20 {
        check_written_during_a_clear(&subject, round).await;
    }
}

/// Writes newer records over older ones while a clear takes those.
async fn check_written_during_a_clear(subject: &Subject, round: u64) {
    let key = |n: u64| subject.key(format_args!("round {round}:{n}"));
    let write = |n: u64, stamp: Stamp| Write {
        key: key(n),
        value: record(&key(n), stamp, b"v"),
        ttl: None,
        when: When::Newer,
    };
    let older = (0..20).map(|n| write(n, stamp(1))).collect();
    must(subject.driver.set_many(older).await, "writing works");
    let prefix = subject.key(format_args!("round {round}:"));
    let writing = async {
        for n in 0..20 {
            let Write { key, value, ttl, when } = write(n, stamp(2));
            subject.set(&key, &value, ttl, when).await;
        }
    };
    let (cleared, ()) = tokio::join!(subject.driver.clear(&prefix, stamp(1)), writing);
    must(cleared, "clearing while others write works");
    for n in 0..20 {
        let why = "what is written while a clear runs is not lost";
        subject.expect(&key(n), &record(&key(n), stamp(2), b"v"), why).await;
    }
}

/// A page of the backend's answer that has nothing to remove is not the end.
pub async fn clear_goes_on_behind_what_it_spares(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "behind");
    if !subject.driver.capabilities().enumerates {
        return;
    }
    let key = |n: u64| subject.key(format_args!("in:{n:04}"));
    let is_old = |n: u64| !(3..1_200).contains(&n);
    for some in (0..1_203).collect::<Vec<u64>>().chunks(250) {
        let writes = some.iter().map(|&n| Write {
            key: key(n),
            value: record(&key(n), stamp(if is_old(n) { 1 } else { 2 }), b"v"),
            ttl: None,
            when: When::Always,
        });
        must(subject.driver.set_many(writes.collect()).await, "writing works");
    }
    must(subject.driver.clear(&subject.key("in:"), stamp(1)).await, "clearing a prefix works");
    for n in (0..1_203).filter(|&n| is_old(n)) {
        subject.expect_nothing(&key(n), "a clear takes what is old behind whatever is newer").await;
    }
}

/// An empty prefix would take what other programs keep in the same store.
pub async fn clearing_everything_is_refused(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "everything");
    if !subject.driver.capabilities().enumerates {
        return;
    }
    write(&subject, &["k"], &[]).await;
    let refused = subject.driver.clear("", Stamp::MAX).await.map_err(|error| error.kind());
    assert_eq!(refused, Err(ErrorKind::Config), "clearing with an empty prefix should be refused");
    check_cleared(&subject, "nothing", &[], &["k"]).await;
}

/// Every key, once, with enough of its value to order and to count it.
pub async fn a_listing_names_each_key_once_with_its_head(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "list");
    if !subject.driver.capabilities().enumerates {
        return;
    }
    let mut expected = BTreeMap::new();
    for (n, size) in [(1, 0), (2, 1), (3, 100), (4, 100_000)] {
        let key = subject.key(n);
        let value = record(&key, stamp(n), &vec![7; size]);
        // Twice, because a store that appends may list both.
        subject.put(&key, &record(&key, stamp(0), b"before")).await;
        subject.put(&key, &value).await;
        expected.insert(key, head(&value));
    }
    let later = format!("x{}", subject.key("1"));
    subject.put(&later, &record(&later, stamp(1), b"v")).await;
    let gone = subject.key("gone");
    subject.put(&gone, &record(&gone, stamp(1), b"v")).await;
    subject.delete(&gone).await;
    let listed = must(list(&subject, "").await, "a listing works");
    assert_eq!(
        listed.len(),
        expected.len(),
        "a listing should name each key once, and none that is gone: {listed:?}"
    );
    let listed: BTreeMap<String, Bytes> =
        listed.into_iter().map(|Scanned { key, head }| (key, head)).collect();
    assert_eq!(listed, expected, "a listing should give every key with the head of its value, no more");
}

/// The same rows as for clearing.
pub async fn a_listing_takes_its_prefix_literally(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "literal list");
    if !subject.driver.capabilities().enumerates {
        return;
    }
    for row in ROWS {
        write(&subject, row.inside, row.outside).await;
    }
    for row in ROWS {
        let mut listed: Vec<String> = must(list(&subject, row.prefix).await, "a listing works")
            .into_iter()
            .map(|scanned| scanned.key)
            .collect();
        listed.sort_unstable();
        let mut expected: Vec<String> = row.inside.iter().map(|name| subject.key(name)).collect();
        expected.sort_unstable();
        assert_eq!(listed, expected, "a listing of {:?} should take its prefix byte for byte", row.prefix);
    }
}

/// More than fits one page of any backend's answer.
pub async fn more_than_a_thousand_keys_are_listed_and_cleared(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "thousand");
    if !subject.driver.capabilities().enumerates {
        return;
    }
    let keys: Vec<String> = (0..1_200).map(|n| subject.key(format_args!("in:{n}"))).collect();
    for some in keys.chunks(250) {
        let writes = some.iter().map(|key| Write {
            key: key.clone(),
            value: record(key, stamp(1), b"v"),
            ttl: None,
            when: When::Always,
        });
        must(subject.driver.set_many(writes.collect()).await, "writing works");
    }
    write(&subject, &[], &["out"]).await;
    let listed = must(list(&subject, "in:").await, "a long listing works");
    let mut listed: Vec<String> = listed.into_iter().map(|scanned| scanned.key).collect();
    assert_eq!(listed.len(), keys.len(), "a long listing should name each key, and each once");
    let mut keys = keys;
    keys.sort_unstable();
    listed.sort_unstable();
    assert!(listed == keys, "a long listing should name the keys that were written");
    let cleared = must(subject.driver.clear(&subject.key("in:"), Stamp::MAX).await, "a long clear works");
    assert_eq!(cleared, 1_200, "a long clear should count all of what was there");
    let left = must(list(&subject, "").await, "a listing works");
    assert_eq!(left.len(), 1, "a long clear should leave the neighbour, and nothing else");
}

/// Whoever cannot list fails with a kind to act on; an empty answer would be taken for an empty store.
pub async fn what_cannot_enumerate_says_so(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "unsupported");
    if subject.driver.capabilities().enumerates {
        return;
    }
    let listed = list(&subject, "").await.map_err(|error| error.kind());
    assert_eq!(listed, Err(ErrorKind::Unsupported), "a driver that cannot list keys should say so");
    let cleared = subject.driver.clear(&subject.prefix, Stamp::MAX).await.map_err(|error| error.kind());
    assert_eq!(cleared, Err(ErrorKind::Unsupported), "a driver that cannot clear by prefix should say so");
}

async fn list(subject: &Subject, prefix: &str) -> Result<Vec<Scanned>> {
    subject.driver.scan(&subject.key(prefix)).try_collect().await
}

async fn write(subject: &Subject, inside: &[&str], outside: &[&str]) {
    for name in inside.iter().chain(outside) {
        let key = subject.key(name);
        subject.put(&key, &record(&key, stamp(1), name.as_bytes())).await;
    }
}

async fn check_cleared(subject: &Subject, prefix: &str, inside: &[&str], outside: &[&str]) {
    for name in inside {
        let why = format!("clearing {prefix:?} removes all that begins with it");
        subject.expect_nothing(&subject.key(name), &why).await;
    }
    for name in outside {
        let key = subject.key(name);
        let why = format!("clearing {prefix:?} leaves alone what does not begin with it");
        subject.expect(&key, &record(&key, stamp(1), name.as_bytes()), &why).await;
    }
}
