//! The compliance suite: what the engine relies on in every driver, one named test per claim.
//!
//! [`driver_suite!`](crate::driver_suite!) makes the tests. A case stores well-formed records only, because decorators read their
//! head; it stores them under keys that nothing else has, so that a store may be shared and need not be empty.
//! What is optional is asked of [`Driver::capabilities`], and a driver that cannot must say so.

pub mod cancel;
pub mod keys;
pub mod lifetime;
pub mod order;
pub mod sweep;
pub mod values;

use std::collections::hash_map::RandomState;
use std::fmt::{self, Display};
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::driver::{Driver, When, Written};
use crate::entry::Meta;
use crate::entry::wire::{CodecId, encode_entry};
use crate::error::Result;
use crate::time::{Stamp, Timestamp, Ttl, seconds};

/// How long a case may take before it has failed: a driver that hangs fails by its case's name.
pub const CASE_DEADLINE: Duration = seconds(120);

/// Holds a driver to what the engine relies on: a module of tests, one per claim.
///
/// `make` is an async closure or function that opens a fresh driver, or an `Arc<dyn Driver>`. It is called once
/// per test, and tests run at the same time; they may open the same store.
///
/// ```no_run
/// # use std::sync::Arc;
/// # use larder::driver::Driver;
/// # async fn connect(_url: &str) -> Arc<dyn Driver> { unimplemented!() }
/// larder::driver_suite!(my_driver, async || connect("mine://localhost").await);
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! driver_suite {
    ($name:ident, $make:expr $(,)?) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            $crate::driver_suite! { @every @tests ($make) }
        }
    };
    (@every @$what:ident $argument:tt) => {
$crate::driver_suite! { @$what $argument
                values:
                    a_missing_key_is_nothing
                    values_come_back_byte_for_byte
                    the_last_write_is_what_is_read
                    delete_says_whether_there_was_something
                    a_batch_read_keeps_order_holes_and_duplicates
                    a_batch_write_answers_in_order
                    a_key_twice_in_a_batch_keeps_the_last
                    conditions_in_a_batch_are_each_their_own
                    a_batch_delete_counts_what_was_there
                    an_empty_batch_is_nothing
                    a_batch_of_five_hundred_works
                    sixty_four_tasks_get_their_own_answers
                    a_value_that_is_being_replaced_is_never_missing
                    a_ping_answers
                    closing_twice_is_not_an_error;
                keys:
                    keys_are_arbitrary_text
                    keys_that_differ_in_case_do_not_meet
                    keys_that_differ_in_spaces_do_not_meet
                    keys_that_differ_in_separators_do_not_meet
                    keys_that_look_alike_do_not_meet
                    long_keys_that_differ_in_the_last_byte_do_not_meet
                    a_thousand_random_keys_do_not_meet
                    keys_are_listed_as_they_were_written;
                order:
                    an_older_stamp_never_replaces_a_newer_one
                    a_newer_stamp_replaces_an_older_one
                    a_tie_keeps_what_is_there
                    a_stamp_over_nothing_is_stored
                    stamps_compare_as_unsigned_numbers
                    an_unconditional_write_replaces_whatever_is_there
                    a_swap_needs_the_stamp_it_names
                    a_swap_from_nothing_needs_nothing_there
                    what_is_replaced_is_told_by_its_head
                    a_tombstone_buries_an_older_load
                    the_newer_stamp_wins
                    swapped_counters_add_up
                    one_of_many_creates_a_key;
                lifetime:
                    no_ttl_is_until_deleted
                    a_minute_is_not_over_at_once
                    a_tiny_ttl_is_not_an_error
                    a_huge_ttl_is_not_over_at_once
                    overwriting_without_a_ttl_keeps_the_value
                    a_refused_write_leaves_the_ttl_alone
                    what_expired_is_itself_or_nothing
                    prune_leaves_what_is_alive;
                sweep:
                    clear_leaves_the_neighbour_alone
                    clear_takes_its_prefix_literally
                    clear_counts_what_was_there
                    clear_spares_what_is_newer_than_the_clear
                    clear_goes_on_behind_what_it_spares
                    clearing_everything_is_refused
                    a_listing_names_each_key_once_with_its_head
                    a_listing_takes_its_prefix_literally
                    more_than_a_thousand_keys_are_listed_and_cleared
                    what_cannot_enumerate_says_so;
                cancel:
                    a_dropped_call_gives_its_answer_to_no_other
                    a_dropped_write_is_done_or_not_done;
        }
    };
    (@table () $($room:ident: $($case:ident)*;)*) => {
        vec![$($((stringify!($case), |driver| Box::pin($room::$case(driver)))),*),*]
    };
    (@tests $make:tt $($room:ident: $($case:ident)*;)*) => {
        $($crate::driver_suite! { @room $make $room $($case)* })*
    };
    (@room ($make:expr) $room:ident $($case:ident)*) => {
        $(
            #[test]
            fn $case() {
                $crate::testing::driver_suite::run($make, $crate::testing::driver_suite::$room::$case);
            }
        )*
    };
}

/// A case: a claim about the driver that it is given, and a panic if the claim is wrong.
pub type Case = fn(Arc<dyn Driver>) -> BoxFuture<'static, ()>;

/// Every case by its name, for whoever runs them otherwise than as tests of their own.
///
/// ```
/// let cases = larder::testing::driver_suite::cases();
/// assert!(cases.iter().any(|(name, _)| *name == "the_newer_stamp_wins"));
/// ```
pub fn cases() -> Vec<(&'static str, Case)> {
    crate::driver_suite! { @every @table () }
}

/// Runs one case against a fresh driver, on a runtime of its own with several threads.
///
/// # Panics
/// If the driver fails the case, or takes longer than [`CASE_DEADLINE`].
#[doc(hidden)]
pub fn run<D, M, C>(make: M, case: C)
where
    D: Driver,
    M: AsyncFnOnce() -> D,
    C: AsyncFnOnce(Arc<dyn Driver>),
{
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build();
    let runtime = must(runtime, "a runtime starts");
    let finished = runtime.block_on(async {
        let driver: Arc<dyn Driver> = Arc::new(make().await);
        tokio::time::timeout(CASE_DEADLINE, case(driver)).await
    });
    assert!(finished.is_ok(), "the driver hung: the case did not end within {CASE_DEADLINE:?}");
    // A dropped call may have left a thread at work; it has nothing to say any more.
    runtime.shutdown_background();
}

/// A driver under test, with a prefix that nobody else uses: its methods say what was expected when they fail.
#[derive(Debug, Clone)]
struct Subject {
    driver: Arc<dyn Driver>,
    prefix: String,
}

impl Subject {
    fn new(driver: Arc<dyn Driver>, case: &str) -> Self {
        let random = RandomState::new().build_hasher().finish();
        Self { driver, prefix: format!("suite {random:016x} {case}:") }
    }

    fn key(&self, name: impl Display) -> String {
        format!("{}{name}", self.prefix)
    }

    async fn get(&self, key: &str) -> Option<Bytes> {
        must(self.driver.get(key).await, format_args!("getting {key:?} works"))
    }

    async fn set(&self, key: &str, value: &Bytes, ttl: Option<Duration>, when: When) -> Written {
        let written = self.driver.set(key, value.clone(), ttl, when).await;
        must(written, format_args!("setting {key:?} with {ttl:?} and {when:?} works"))
    }

    /// Stores without condition or end.
    async fn put(&self, key: &str, value: &Bytes) {
        let written = self.set(key, value, None, When::Always).await;
        assert!(matches!(written, Written::Stored { .. }), "an unconditional write of {key:?} was refused");
    }

    async fn delete(&self, key: &str) -> bool {
        must(self.driver.delete(key).await, format_args!("deleting {key:?} works"))
    }

    /// Fails with `why` unless the key reads as exactly this.
    async fn expect(&self, key: &str, value: &Bytes, why: &str) {
        let found = self.get(key).await;
        assert!(
            found.as_ref() == Some(value),
            "{why}: {key:?} should hold {}, but holds {}",
            Shown(Some(value)),
            Shown(found.as_ref()),
        );
    }

    /// Fails with `why` unless there is nothing under the key.
    async fn expect_nothing(&self, key: &str, why: &str) {
        let found = self.get(key).await;
        assert!(found.is_none(), "{why}: {key:?} should hold nothing, but holds {}", Shown(found.as_ref()));
    }
}

/// A well-formed record with a chosen place in the order of writes.
fn record(key: &str, stamp: Stamp, payload: &[u8]) -> Bytes {
    let now = Timestamp::from_millis(1_700_000_000_000);
    let meta = Meta::new(stamp, now, Ttl::Forever, Duration::ZERO);
    must(encode_entry(key, &meta, CodecId::BYTES, 0, payload), "a record is encoded")
}

/// The stamp of a day in 2023, and `n` counts later.
fn stamp(n: u64) -> Stamp {
    Stamp::from_bits(Stamp::at(Timestamp::from_millis(1_700_000_000_000)).to_bits() + n)
}

/// Unwraps what the case cannot go on without.
fn must<T, E: Display>(result: Result<T, E>, expected: impl Display) -> T {
    match result {
        Ok(value) => value,
        #[expect(clippy::panic, reason = "a suite fails by panicking")]
        Err(error) => panic!("expected that {expected}, but: {error}"),
    }
}

/// Stored bytes, short enough for a message.
struct Shown<'a>(Option<&'a Bytes>);

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(bytes) = self.0 else { return f.write_str("nothing") };
        let ends_with = bytes.get(bytes.len().saturating_sub(24)..).unwrap_or_default();
        write!(f, "{} bytes that end with {:?}", bytes.len(), Bytes::copy_from_slice(ends_with))
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_case_is_forgotten_by_the_macro() {
        let list = include_str!("mod.rs").split("/// A case:").next().unwrap();
        let rooms = [
            ("values", include_str!("values.rs")),
            ("keys", include_str!("keys.rs")),
            ("order", include_str!("order.rs")),
            ("lifetime", include_str!("lifetime.rs")),
            ("sweep", include_str!("sweep.rs")),
            ("cancel", include_str!("cancel.rs")),
        ];
        for (room, source) in rooms {
            let listed = list.split(&format!(" {room}:\n")).nth(1).unwrap().split(';').next().unwrap();
            let listed: Vec<&str> = listed.split_whitespace().collect();
            let written: Vec<&str> = source
                .lines()
                .filter_map(|line| line.strip_prefix("pub async fn ")?.split('(').next())
                .collect();
            assert_eq!(listed, written, "the macro's list and the cases of {room}");
        }
    }
}
