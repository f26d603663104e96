//! Cases: a key is any text, and no two different keys meet.

use std::collections::BTreeSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;

use futures_util::TryStreamExt;

use super::{Shown, Subject, must, record, stamp};
use crate::driver::{Driver, When, Write};
use crate::key::KEY_BYTES_MAX;

/// Texts that one backend or another takes for something else.
const TEXTS: &[&str] = &[
    "plain",
    " ",
    " leading",
    "trailing ",
    "two  spaces",
    "a\nb",
    "\n",
    "a\r\nset x 0 0 1\r\n1",
    "\0",
    "a\0b",
    "\t",
    "\u{7f}",
    "\u{1b}[31m",
    "../..",
    "..",
    ".",
    "../../etc/passwd",
    "/etc/passwd",
    "..\\..",
    "..:..",
    "C:\\",
    "C:",
    "CON",
    "con.txt",
    "NUL",
    "*",
    "?",
    "[",
    "]",
    "[a-z]",
    "\\",
    "\\\\",
    "^",
    "-",
    "%",
    "_",
    "%25",
    "%00",
    "'",
    "\"",
    "`",
    "''",
    "'; DROP TABLE larder; --",
    ";",
    ":",
    "::",
    "!",
    "/",
    "//",
    "{slot}",
    "{}",
    "$1",
    "$(id)",
    "${HOME}",
    "&",
    "|",
    "~",
    "null",
    "NaN",
    "0",
    "00",
    "🍯",
    "👩‍👩‍👧",
    "ключ",
    "КЛЮЧ",
    "keyé",
    "שלום",
    "\u{202e}rtl",
    "漢字",
    "İ",
    "ı",
    "ß",
    "ẞ",
    "\u{feff}",
    "\u{10ffff}",
    "\u{fffd}",
    ".larder",
    ".locks",
    "larder:ping",
];

/// Control characters, paths, patterns, quotes and every script: all are keys, and all different ones.
pub async fn keys_are_arbitrary_text(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "text");
    // Some stores trip over how a key begins, others over how it ends.
    let keys = TEXTS.iter().flat_map(|text| [subject.key(text), format!("{text}{}", subject.prefix)]);
    none_meet(&subject, keys.collect()).await;
}

/// A collation or file system that ignores case would hand out one user's entry as another's.
pub async fn keys_that_differ_in_case_do_not_meet(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "case");
    let names =
        ["key", "Key", "KEY", "kEy", "ключ", "Ключ", "straße", "STRASSE", "strasse", "i", "I", "İ", "ı"];
    none_meet(&subject, names.iter().map(|name| subject.key(name)).collect()).await;
}

/// Fixed-width text columns and lax parsers lose spaces.
pub async fn keys_that_differ_in_spaces_do_not_meet(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "spaces");
    let names = [
        "key",
        "key ",
        "key  ",
        " key",
        "k ey",
        "key\t",
        "key\n",
        "key\r\n",
        "key\u{a0}",
        "key\0",
        "key\0\0",
        "",
    ];
    none_meet(&subject, names.iter().map(|name| subject.key(name)).collect()).await;
}

/// Keys that become paths make a file of one key and a directory of the other.
pub async fn keys_that_differ_in_separators_do_not_meet(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "separators");
    let names = [
        "a", "a:b", "a/b", "a\\b", "a.b", "a//b", "a/./b", "a/../a/b", "a/", "a:", "a%2Fb", "a%3Ab", "a!b",
        "a_b",
    ];
    none_meet(&subject, names.iter().map(|name| subject.key(name)).collect()).await;
}

/// Unicode has several spellings of one text; bytes decide.
pub async fn keys_that_look_alike_do_not_meet(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "unicode");
    let names = [
        "\u{e9}",
        "e\u{301}",
        "\u{c5}",
        "\u{212b}",
        "A\u{30a}",
        "\u{fb01}",
        "fi",
        "a",
        "\u{430}",
        "\u{ff8a}\u{ff9e}",
        "\u{30d0}",
        "\u{30cf}\u{3099}",
        "x",
        "x\u{200b}",
        "x\u{200d}",
    ];
    none_meet(&subject, names.iter().map(|name| subject.key(name)).collect()).await;
}

/// A key that is cut to fit meets every other key with the same beginning.
pub async fn long_keys_that_differ_in_the_last_byte_do_not_meet(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "long");
    let long = |length: usize, last: char| {
        let mut key = subject.prefix.clone();
        key.extend(std::iter::repeat_n('x', length.saturating_sub(key.len() + 1)));
        key.push(last);
        key
    };
    let lengths = [249, 250, 251, 255, 256, 257, 512, 767, 768, KEY_BYTES_MAX];
    none_meet(&subject, lengths.iter().flat_map(|length| [long(*length, 'a'), long(*length, 'b')]).collect())
        .await;
}

/// Up to four of the texts one after another, chosen anew each time, in batches: what is harmless alone may not be beside
/// another.
pub async fn a_thousand_random_keys_do_not_meet(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "random");
    let random = RandomState::new();
    let mut keys = BTreeSet::new();
    let mut draw = 0_u64;
    while keys.len() < 1_000 {
        let mut key = subject.prefix.clone();
        let mut bits = random.hash_one(draw);
        draw += 1;
        for _ in 0..=bits % 4 {
            bits /= 8;
            let texts = TEXTS.len() as u64;
            key.push_str(TEXTS.get(usize::try_from(bits % texts).unwrap_or_default()).unwrap_or(&""));
            bits /= texts;
        }
        keys.insert(key);
    }
    let value = |key: &str| record(key, stamp(1), format!("the value of {key}").as_bytes());
    let writes =
        keys.iter().map(|key| Write { key: key.clone(), value: value(key), ttl: None, when: When::Newer });
    must(subject.driver.set_many(writes.collect()).await, "a batch of a thousand keys is written");
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let found = must(subject.driver.get_many(&keys).await, "a batch of a thousand keys is read");
    for (key, found) in keys.iter().zip(found) {
        assert!(
            found == Some(value(key)),
            "in a batch, {key:?} should have its own value: {}",
            Shown(found.as_ref())
        );
    }
    for key in keys.iter().step_by(10) {
        subject.expect(key, &value(key), "different keys have different values").await;
    }
    let deleted = must(subject.driver.delete_many(&keys).await, "a batch of a thousand keys is deleted");
    assert_eq!(deleted, 1_000, "a batch delete should find every key");
}

/// A listing gives keys back as they were written, whatever the store calls them.
pub async fn keys_are_listed_as_they_were_written(driver: Arc<dyn Driver>) {
    let subject = Subject::new(driver, "listed");
    if !subject.driver.capabilities().enumerates {
        return;
    }
    let keys: BTreeSet<String> = TEXTS.iter().map(|text| subject.key(text)).collect();
    for key in &keys {
        subject.put(key, &record(key, stamp(1), b"v")).await;
    }
    let listed: Vec<_> = must(subject.driver.scan(&subject.prefix).try_collect().await, "a listing works");
    let listed: BTreeSet<String> = listed.into_iter().map(|scanned| scanned.key).collect();
    for missing in keys.difference(&listed) {
        assert!(
            listed.contains(missing),
            "a listing should name every key as it was written: {missing:?} is missing"
        );
    }
    assert_eq!(listed, keys, "a listing should name no key that was not written");
}

/// Writes all, then reads all, then deletes one after another: each key has its own value to its own end.
async fn none_meet(subject: &Subject, keys: Vec<String>) {
    for (n, key) in keys.iter().enumerate() {
        subject.put(key, &record(key, stamp(1), format!("value {n}").as_bytes())).await;
    }
    for (n, key) in keys.iter().enumerate() {
        let value = record(key, stamp(1), format!("value {n}").as_bytes());
        subject.expect(key, &value, "different keys have different values").await;
    }
    for (n, key) in keys.iter().enumerate() {
        let value = record(key, stamp(1), format!("value {n}").as_bytes());
        subject.expect(key, &value, "deleting one key leaves the others alone").await;
        assert!(subject.delete(key).await, "deleting {key:?} should find it");
    }
}
