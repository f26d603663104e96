//! Drivers that are wrong on purpose: each fails the suite by the tests whose names say why, and by no other.
//!
//! Without this, a suite that checks nothing would pass as well as one that checks everything.

#![expect(clippy::disallowed_methods, reason = "a store has a clock of its own")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::{self, BoxStream, StreamExt};
use larder::Result;
use larder::driver::{Capabilities, Driver, Scanned, When, Written, check_prefix, head};
use larder::entry::wire::stamp_of;
use larder::testing::driver_suite;
use larder::time::Stamp;
use parking_lot::Mutex;

/// What a driver does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Nothing,
    IgnoresNewer,
    ComparesSigned,
    LooksThenStores,
    ClearsWithoutSeparator,
    ClearsWhatContains,
    ClearsByPattern,
    ClearsWhatIsNewer,
    LooksThenClears,
    ClearsToThePageThatIsNewer,
    CutsLongValues,
    CutsLongKeys,
    FoldsCase,
    TrimsKeys,
    KeepsTheOldTtl,
    CountsTtlInHours,
    CrossesAnswers,
    HidesWhatItReplaced,
    DeletesThenStores,
}

#[derive(Debug)]
struct Store {
    wrong: Wrong,
    map: Mutex<BTreeMap<String, (Bytes, Option<Instant>)>>,
    /// Answers on their way, as on a connection that calls share.
    answers: tokio::sync::Mutex<VecDeque<Option<Bytes>>>,
}

impl Store {
    fn new(wrong: Wrong) -> Self {
        Self { wrong, map: Mutex::default(), answers: tokio::sync::Mutex::default() }
    }

    fn place(&self, key: &str) -> String {
        match self.wrong {
            Wrong::FoldsCase => key.to_lowercase(),
            Wrong::TrimsKeys => key.trim_end().to_owned(),
            Wrong::CutsLongKeys => key.chars().take(250).collect(),
            _ => key.to_owned(),
        }
    }

    fn read(&self, key: &str) -> Option<Bytes> {
        let mut map = self.map.lock();
        let place = self.place(key);
        let (_, until) = map.get(&place)?;
        if until.is_some_and(|until| until <= Instant::now()) {
            map.remove(&place);
            return None;
        }
        map.get(&place).map(|(value, _)| value.clone())
    }

    fn outcome(&self, when: When, stored: Option<&Bytes>, value: &Bytes) -> Written {
        let bytes = stored.map(|stored| &stored[..]);
        let signed = |bytes: &[u8]| stamp_of(bytes).map(|stamp| stamp.to_bits() as i64);
        match (self.wrong, when, bytes) {
            (Wrong::IgnoresNewer, When::Newer, _) => When::Always.outcome(bytes, value),
            (Wrong::ComparesSigned, When::Newer, Some(bytes)) if signed(bytes) < signed(value) => {
                When::Always.outcome(Some(bytes), value)
            }
            (Wrong::ComparesSigned, When::Newer, Some(bytes)) => Written::Refused { by: stamp_of(bytes) },
            _ => when.outcome(bytes, value),
        }
    }

    fn deadline(&self, key: &str, ttl: Option<Duration>) -> Option<Instant> {
        let ttl = match (self.wrong, ttl) {
            // "Older" TTLs live on: what a store that updates only the value column does.
            (Wrong::KeepsTheOldTtl, None) => return self.map.lock().get(key).and_then(|(_, until)| *until),
            (Wrong::CountsTtlInHours, Some(ttl)) => Some(Duration::from_secs(ttl.as_secs() / 3_600 * 3_600)),
            (_, ttl) => ttl,
        };
        ttl.and_then(|ttl| Instant::now().checked_add(ttl))
    }

    fn clears(&self, key: &str, prefix: &str) -> bool {
        match self.wrong {
            Wrong::ClearsWithoutSeparator => key.starts_with(prefix.trim_end_matches(':')),
            Wrong::ClearsWhatContains => key.contains(prefix),
            Wrong::ClearsByPattern => like(key.as_bytes(), format!("{prefix}%").as_bytes()),
            Wrong::FoldsCase => key.starts_with(&prefix.to_lowercase()),
            _ => key.starts_with(prefix),
        }
    }
}

/// SQLite's `LIKE`: `%` and `_` are wild, ASCII letters have no case.
fn like(text: &[u8], pattern: &[u8]) -> bool {
    match (text, pattern) {
        (_, []) => text.is_empty(),
        (_, [b'%', rest @ ..]) => {
            (0..=text.len()).any(|skipped| text.get(skipped..).is_some_and(|text| like(text, rest)))
        }
        ([_, text @ ..], [b'_', rest @ ..]) => like(text, rest),
        ([a, text @ ..], [b, rest @ ..]) => a.eq_ignore_ascii_case(b) && like(text, rest),
        ([], _) => false,
    }
}

#[async_trait]
impl Driver for Store {
    fn name(&self) -> &'static str {
        "wrong"
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.enumerates = true;
        capabilities
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        if self.wrong != Wrong::CrossesAnswers {
            return Ok(self.read(key));
        }
        // The question is asked, and the answer taken from the connection when it is there. Whoever is dropped
        // in between leaves an answer behind.
        let mut connection = self.answers.lock().await;
        connection.push_back(self.read(key));
        tokio::task::yield_now().await;
        Ok(connection.pop_front().flatten())
    }

    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>, when: When) -> Result<Written> {
        let value =
            if self.wrong == Wrong::CutsLongValues { value.slice(..value.len().min(65_535)) } else { value };
        if self.wrong == Wrong::DeletesThenStores && when == When::Always {
            let previous = self.read(key).map(|value| head(&value));
            let deadline = self.deadline(key, ttl);
            if self.map.lock().remove(key).is_some() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            self.map.lock().insert(key.to_owned(), (value, deadline));
            return Ok(Written::Stored { previous });
        }
        if self.wrong == Wrong::LooksThenStores {
            let outcome = self.outcome(when, self.read(key).as_ref(), &value);
            tokio::task::yield_now().await;
            if let Written::Stored { .. } = outcome {
                self.map.lock().insert(self.place(key), (value, self.deadline(key, ttl)));
            }
            return Ok(outcome);
        }
        let deadline = self.deadline(&self.place(key), ttl);
        let stored = self.read(key);
        let mut map = self.map.lock();
        // Read again under the lock: this store is wrong in other ways.
        let stored = stored.and_then(|_| map.get(&self.place(key)).map(|(value, _)| value.clone()));
        let outcome = self.outcome(when, stored.as_ref(), &value);
        if let Written::Stored { .. } = outcome {
            map.insert(self.place(key), (value, deadline));
        }
        if self.wrong == Wrong::HidesWhatItReplaced && matches!(outcome, Written::Stored { .. }) {
            return Ok(Written::Stored { previous: None });
        }
        Ok(outcome)
    }

    async fn delete(&self, key: &str) -> Result<bool> {
        Ok(self.map.lock().remove(&self.place(key)).is_some())
    }

    fn scan<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Scanned>> {
        let map = self.map.lock();
        let found = map.iter().filter(|(key, _)| key.starts_with(prefix));
        let found: Vec<_> =
            found.map(|(key, (value, _))| Ok(Scanned { key: key.clone(), head: head(value) })).collect();
        stream::iter(found).boxed()
    }

    async fn clear(&self, prefix: &str, until: Stamp) -> Result<u64> {
        check_prefix(prefix)?;
        let is_meant = |key: &str, value: &Bytes| {
            self.clears(key, prefix)
                && (self.wrong == Wrong::ClearsWhatIsNewer || stamp_of(value) <= Some(until))
        };
        if self.wrong == Wrong::ClearsToThePageThatIsNewer {
            let mut map = self.map.lock();
            let keys: Vec<String> = map.keys().filter(|key| key.starts_with(prefix)).cloned().collect();
            let before = map.len();
            for page in keys.chunks(500) {
                let left = map.len();
                map.retain(|key, (value, _)| !(page.contains(key) && is_meant(key, value)));
                if map.len() == left {
                    break;
                }
            }
            return Ok((before - map.len()) as u64);
        }
        if self.wrong == Wrong::LooksThenClears {
            let found = self.map.lock().clone();
            let meant = found.into_iter().filter(|(key, (value, _))| is_meant(key, value));
            tokio::task::yield_now().await;
            let mut map = self.map.lock();
            return Ok(meant.filter(|(key, _)| map.remove(key).is_some()).count() as u64);
        }
        let mut map = self.map.lock();
        let before = map.len();
        map.retain(|key, (value, _)| !is_meant(key, value));
        Ok((before - map.len()) as u64)
    }
}

/// Runs the whole suite over a wrong driver and says by which cases it failed.
async fn failures(wrong: Wrong) -> BTreeSet<&'static str> {
    let runs = driver_suite::cases().into_iter().map(|(name, case)| async move {
        let failed = tokio::spawn(case(Arc::new(Store::new(wrong)))).await.is_err();
        failed.then_some(name)
    });
    join_all(runs).await.into_iter().flatten().collect()
}

/// The failures are these, and no others.
async fn fails_by(wrong: Wrong, expected: &[&'static str]) {
    let failed = failures(wrong).await;
    assert_eq!(failed, expected.iter().copied().collect(), "{wrong:?} should fail by these cases");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_with_nothing_wrong_fails_by_nothing() {
    fails_by(Wrong::Nothing, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ignoring_the_condition_fails_by_the_order_of_stamps() {
    fails_by(
        Wrong::IgnoresNewer,
        &[
            "a_key_twice_in_a_batch_keeps_the_last",
            "a_refused_write_leaves_the_ttl_alone",
            "a_tie_keeps_what_is_there",
            "a_tombstone_buries_an_older_load",
            "an_older_stamp_never_replaces_a_newer_one",
            "conditions_in_a_batch_are_each_their_own",
            "stamps_compare_as_unsigned_numbers",
            "the_newer_stamp_wins",
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signed_stamps_fail_by_the_comparison() {
    fails_by(Wrong::ComparesSigned, &["stamps_compare_as_unsigned_numbers"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_before_storing_fails_by_the_races() {
    fails_by(
        Wrong::LooksThenStores,
        &["one_of_many_creates_a_key", "swapped_counters_add_up", "the_newer_stamp_wins"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_without_its_end_fails_by_the_neighbour() {
    fails_by(Wrong::ClearsWithoutSeparator, &["clear_leaves_the_neighbour_alone"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_substring_for_a_prefix_fails_by_the_neighbour() {
    fails_by(Wrong::ClearsWhatContains, &["clear_leaves_the_neighbour_alone"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pattern_for_a_prefix_fails_by_the_literal_clear() {
    fails_by(
        Wrong::ClearsByPattern,
        &["clear_leaves_the_neighbour_alone", "clear_takes_its_prefix_literally"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clearing_what_is_newer_fails_by_what_it_should_spare() {
    fails_by(Wrong::ClearsWhatIsNewer, &["clear_spares_what_is_newer_than_the_clear"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_before_clearing_fails_by_what_is_written_meanwhile() {
    fails_by(Wrong::LooksThenClears, &["clear_spares_what_is_newer_than_the_clear"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ending_a_clear_at_what_is_newer_fails_by_what_is_behind() {
    fails_by(Wrong::ClearsToThePageThatIsNewer, &["clear_goes_on_behind_what_it_spares"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_values_fail_by_the_bytes() {
    fails_by(
        Wrong::CutsLongValues,
        &["values_come_back_byte_for_byte", "a_dropped_write_is_done_or_not_done"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_keys_fail_by_the_long_keys() {
    fails_by(Wrong::CutsLongKeys, &["long_keys_that_differ_in_the_last_byte_do_not_meet"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn folded_case_fails_by_the_case_of_keys() {
    fails_by(
        Wrong::FoldsCase,
        &[
            "a_thousand_random_keys_do_not_meet",
            "a_listing_takes_its_prefix_literally",
            "clear_leaves_the_neighbour_alone",
            "clear_takes_its_prefix_literally",
            "keys_are_arbitrary_text",
            "keys_are_listed_as_they_were_written",
            "keys_that_differ_in_case_do_not_meet",
            "keys_that_look_alike_do_not_meet",
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trimmed_keys_fail_by_the_spaces() {
    fails_by(
        Wrong::TrimsKeys,
        &[
            "a_thousand_random_keys_do_not_meet",
            "a_listing_takes_its_prefix_literally",
            "clear_takes_its_prefix_literally",
            "keys_are_arbitrary_text",
            "keys_are_listed_as_they_were_written",
            "keys_that_differ_in_spaces_do_not_meet",
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_ttl_that_lives_on_fails_by_the_overwrite() {
    fails_by(
        Wrong::KeepsTheOldTtl,
        &["overwriting_without_a_ttl_keeps_the_value", "what_expired_is_itself_or_nothing"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ttl_that_is_rounded_down_fails_by_the_minute() {
    fails_by(
        Wrong::CountsTtlInHours,
        &[
            "a_minute_is_not_over_at_once",
            "overwriting_without_a_ttl_keeps_the_value",
            "prune_leaves_what_is_alive",
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crossed_answers_fail_by_the_dropped_calls() {
    fails_by(Wrong::CrossesAnswers, &["a_dropped_call_gives_its_answer_to_no_other"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hiding_what_was_replaced_fails_by_the_head() {
    fails_by(
        Wrong::HidesWhatItReplaced,
        &[
            "a_batch_write_answers_in_order",
            "a_newer_stamp_replaces_an_older_one",
            "a_swap_needs_the_stamp_it_names",
            "an_unconditional_write_replaces_whatever_is_there",
            "stamps_compare_as_unsigned_numbers",
            "what_is_replaced_is_told_by_its_head",
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_before_storing_fails_by_the_gap() {
    fails_by(Wrong::DeletesThenStores, &["a_value_that_is_being_replaced_is_never_missing"]).await;
}
