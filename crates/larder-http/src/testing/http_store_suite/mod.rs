//! The compliance suite of stores: one named test per claim.
//!
//! [`http_store_suite!`](crate::http_store_suite!) makes the tests. A case keeps to targets and tags that nothing else has,
//! except those that clear, so a store may be shared by the cases but for them; `make` opens an empty one for each.

pub mod changes;
pub mod purges;
pub mod responses;
pub mod targets;
pub mod writes;

use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use larder::time::{Clock as _, SystemClock};

use crate::policy::{Exchange, Kept, Mark, Policy, Selecting, Stored};
use crate::store::{HttpStore, ResponseId, StoredBody, StoredResponse, Variants};

/// How long a case may take before it has failed: a store that hangs fails by its case's name.
pub const CASE_DEADLINE: Duration = Duration::from_secs(120);

/// Holds a store to what the cache relies on: a module of tests, one per claim.
///
/// `make` is an async closure or function that opens a fresh, empty store, or an `Arc<dyn HttpStore>`. It is called once per
/// test, and tests run at the same time. It has to take bodies of 4 MiB and a hundred responses, and to go by the machine's
/// clock.
///
/// ```no_run
/// use larder_http::store::MemoryStore;
/// larder_http::http_store_suite!(memory, async || MemoryStore::default());
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! http_store_suite {
    ($name:ident, $make:expr $(,)?) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            $crate::http_store_suite! { @every ($make)
                responses:
                    a_target_without_responses_is_nothing
                    a_response_comes_back_as_it_was_stored
                    a_response_may_have_next_to_nothing
                    bodies_of_every_size_come_back
                    a_body_is_read_from_any_position
                    what_is_stale_is_kept_until_it_is_to_be_deleted
                    what_is_to_be_deleted_is_not_handed_out
                    an_expired_response_does_not_hide_a_living_one
                    a_newer_response_replaces_an_older_one
                    responses_for_other_fields_stand_beside_each_other
                    what_replaces_a_response_is_selected_by_its_own_fields
                    new_fields_leave_the_body_where_it_is
                    a_look_says_the_same_or_nothing;
                targets:
                    other_targets_are_others
                    nasty_targets_do_not_meet
                    deleting_takes_all_responses_and_says_so
                    clearing_takes_everything
                    targets_are_listed_by_how_they_begin
                    a_closed_store_may_be_closed_again;
                changes:
                    a_change_sees_the_newest_state
                    a_change_that_says_nothing_changes_nothing
                    a_change_to_nothing_deletes
                    eight_tasks_change_one_target_and_none_is_lost;
                writes:
                    a_body_alone_is_not_found
                    a_body_that_is_given_up_is_kept_nowhere
                    a_body_is_read_while_it_is_written
                    a_reader_outlives_the_end_of_the_writing
                    pieces_of_every_size_make_one_body
                    bodies_that_come_together_do_not_mix
                    a_small_body_needs_no_writer;
                purges:
                    a_hard_purge_takes_what_has_the_tag
                    a_soft_purge_makes_stale_what_has_the_tag
                    a_purge_spares_other_targets
                    what_is_stored_after_a_purge_lives
                    what_was_made_stale_stays_beside_what_is_new
                    what_was_asked_for_before_a_purge_does_not_survive_it
                    a_purge_by_nothing_is_nothing;
            }
        }
    };
    (@every $make:tt $($room:ident: $($case:ident)*;)*) => {
        $($crate::http_store_suite! { @room $make $room $($case)* })*
    };
    (@room ($make:expr) $room:ident $($case:ident)*) => {
        $(
            #[test]
            fn $case() {
                $crate::testing::http_store_suite::run($make, $crate::testing::http_store_suite::$room::$case);
            }
        )*
    };
}

/// Runs one case against a fresh store, on a runtime of its own with several threads.
///
/// # Panics
/// If the store fails the case, or takes longer than [`CASE_DEADLINE`].
#[doc(hidden)]
pub fn run<S, M, C>(make: M, case: C)
where
    S: HttpStore,
    M: AsyncFnOnce() -> S,
    C: AsyncFnOnce(Arc<dyn HttpStore>),
{
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build();
    let runtime = must(runtime, "a runtime starts");
    let finished = runtime.block_on(async {
        let store: Arc<dyn HttpStore> = Arc::new(make().await);
        tokio::time::timeout(CASE_DEADLINE, case(store)).await
    });
    assert!(finished.is_ok(), "the store hung: the case did not end within {CASE_DEADLINE:?}");
    runtime.shutdown_background();
}

/// Unwraps what the case cannot go on without.
fn must<T, E: Display>(result: Result<T, E>, expected: impl Display) -> T {
    match result {
        Ok(value) => value,
        #[expect(clippy::panic, reason = "a suite fails by panicking")]
        Err(error) => panic!("expected that {expected}, but: {error}"),
    }
}

/// Unwraps what the case cannot go on without.
fn there<T>(value: Option<T>, expected: impl Display) -> T {
    #[expect(clippy::panic, reason = "a suite fails by panicking")]
    value.unwrap_or_else(|| panic!("expected {expected}, but there is nothing"))
}

/// What time it is to stores.
fn now() -> SystemTime {
    SystemClock::default().now().to_system_time().unwrap_or(SystemTime::UNIX_EPOCH)
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A request for a target with some fields.
fn request(target: &str, fields: &[(&'static str, &str)]) -> http::request::Parts {
    let mut request = Request::new(());
    *request.uri_mut() = target.parse().unwrap_or_default();
    *request.headers_mut() = headers(fields);
    request.into_parts().0
}

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let field = |(name, value): &(&'static str, &str)| {
        (
            HeaderName::from_static(name),
            must(HeaderValue::from_bytes(value.as_bytes()), "a field's value is one"),
        )
    };
    let mut headers = HeaderMap::new();
    for (name, value) in fields.iter().map(field) {
        headers.append(name, value);
    }
    headers
}

/// A response about to be stored.
#[derive(Debug, Clone)]
struct Sample {
    kept: Kept,
    body: Bytes,
    tags: Vec<String>,
    life: Duration,
}

impl Sample {
    /// One that came now, is fresh for a minute, and is kept for an hour.
    fn new(body: impl Into<Bytes>) -> Self {
        let kept = Kept {
            status: StatusCode::OK,
            headers: headers(&[("cache-control", "max-age=60"), ("etag", "\"v\"")]),
            selecting: Selecting::default(),
            range: None,
            times: Exchange::at(now()),
            body_bytes: None,
            mark: Mark::None,
        };
        Self { kept, body: body.into(), tags: Vec::new(), life: seconds(3_600) }
    }

    fn tags(mut self, tags: &[&str]) -> Self {
        self.tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        self
    }

    fn vary(mut self, name: &'static str, value: Option<&str>) -> Self {
        let pair = (HeaderName::from_static(name), value.map(|value| value.as_bytes().to_vec()));
        self.kept.headers.append("vary", HeaderValue::from_static(name));
        self.kept.selecting = Selecting::from_pairs([pair]);
        self
    }

    fn asked_for_at(mut self, time: SystemTime) -> Self {
        self.kept.times = Exchange::at(time);
        self
    }

    /// The same, ready to be stored, once its body has been written.
    async fn written(&self, store: &dyn HttpStore, target: &str) -> StoredResponse {
        let stored = Stored::new(&Policy::shared(), self.kept.clone());
        let writer = must(store.create(target, &stored).await, "a body may be written");
        let mut writer = there(writer, "a writer of a body");
        for piece in self.body.chunks(64 * 1024) {
            must(writer.write(Bytes::copy_from_slice(piece)).await, "a piece is written");
        }
        let body: StoredBody = must(writer.finish().await, "a body is finished");
        assert_eq!(body.bytes(), self.body.len() as u64, "a finished body is as long as what was written");
        let mut response = StoredResponse::new(ResponseId::random(), stored, now() + self.life, body);
        response.tags = self.tags.clone().into();
        response
    }

    /// Stores it beside what is there, as the engine does.
    async fn put(&self, store: &dyn HttpStore, target: &str) -> ResponseId {
        let response = Arc::new(self.written(store, target).await);
        put(store, target, &response).await;
        response.id
    }
}

/// Stores a response beside what is there, as the engine does.
async fn put(store: &dyn HttpStore, target: &str, response: &Arc<StoredResponse>) {
    let policy = Policy::shared();
    let change = |variants: &Variants| Some(variants.with(&policy, Arc::clone(response), now()));
    must(store.change(target, &change).await, "a response is stored");
}

/// What is kept for a target.
async fn get(store: &dyn HttpStore, target: &str) -> Option<Arc<Variants>> {
    let found = must(store.get(target).await, format_args!("getting {target:?} works"));
    found.filter(|variants| !variants.is_empty())
}

/// The one response that is kept for a target.
async fn only(store: &dyn HttpStore, target: &str) -> Arc<StoredResponse> {
    let variants = there(get(store, target).await, format_args!("a response for {target:?}"));
    assert_eq!(variants.responses().len(), 1, "there is one response for {target:?}");
    there(variants.responses().first().cloned(), "the one response")
}

/// A body as a whole, read from a position on.
async fn read_from(response: &StoredResponse, from: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let at = from + bytes.len() as u64;
        if at >= response.body.bytes() {
            return bytes;
        }
        let piece = must(response.body.read(at).await, format_args!("a body is read at {at}"));
        let piece = there(piece, format_args!("a piece of {} bytes at {at}", response.body.bytes()));
        assert!(!piece.is_empty(), "a piece has a byte at least");
        bytes.extend_from_slice(&piece);
    }
}

async fn read(response: &StoredResponse) -> Vec<u8> {
    read_from(response, 0).await
}

/// Bytes that differ from place to place.
fn noise(count: usize, seed: u64) -> Bytes {
    let byte = |at: u64| (at.wrapping_add(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
    (0..count as u64).map(byte).collect::<Vec<u8>>().into()
}

/// Fails with the place where two bodies differ, in place of showing megabytes.
fn assert_same(found: &[u8], expected: &[u8], what: impl Display) {
    assert_eq!(found.len(), expected.len(), "how long {what} is");
    let differs = found.iter().zip(expected).position(|(found, expected)| found != expected);
    assert_eq!(differs, None, "where {what} differs");
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_case_is_forgotten_by_the_macro() {
        let list = include_str!("mod.rs").split("fn run<").next().unwrap();
        let rooms = [
            ("responses", include_str!("responses.rs")),
            ("targets", include_str!("targets.rs")),
            ("changes", include_str!("changes.rs")),
            ("writes", include_str!("writes.rs")),
            ("purges", include_str!("purges.rs")),
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
