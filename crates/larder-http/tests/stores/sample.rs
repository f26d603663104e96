//! Responses to store.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use larder::testing::ManualClock;
use larder::time::Clock as _;
use larder_http::policy::{Exchange, Kept, Mark, Policy, Selecting, Stored};
use larder_http::store::{HttpStore, ResponseId, StoredResponse, Variants};

pub(crate) fn now(clock: &ManualClock) -> SystemTime {
    clock.now().to_system_time().unwrap()
}

pub(crate) fn clock() -> ManualClock {
    ManualClock::new(larder::time::Timestamp::from_millis(1_800_000_000_000))
}

pub(crate) fn head(now: SystemTime) -> Stored {
    Stored::new(&Policy::shared(), kept(now, "cache-control", "max-age=60"))
}

/// What came just now, with this field.
pub(crate) fn kept(now: SystemTime, name: &'static str, value: &'static str) -> Kept {
    let headers = HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))]);
    Kept {
        status: StatusCode::OK,
        headers,
        selecting: Selecting::default(),
        range: None,
        times: Exchange::at(now),
        body_bytes: None,
        mark: Mark::None,
    }
}

/// A response with its body written. `None` if the store does not take it.
pub(crate) async fn written(
    store: &dyn HttpStore,
    target: &str,
    body: Bytes,
    now: SystemTime,
) -> Option<StoredResponse> {
    let head = head(now);
    let mut writer = store.create(target, &head).await.unwrap()?;
    for piece in body.chunks(100_000) {
        writer.write(Bytes::copy_from_slice(piece)).await.ok()?;
    }
    let body = writer.finish().await.unwrap();
    Some(StoredResponse::new(ResponseId::random(), head, now + Duration::from_secs(3_600), body))
}

pub(crate) async fn put_response(
    store: &dyn HttpStore,
    target: &str,
    response: StoredResponse,
    now: SystemTime,
) {
    let response = Arc::new(response);
    let policy = Policy::shared();
    store
        .change(target, &|variants: &Variants| Some(variants.with(&policy, Arc::clone(&response), now)))
        .await
        .unwrap();
}

/// Stores a response of so many bytes. False if the store does not take it.
pub(crate) async fn put(store: &dyn HttpStore, target: &str, bytes: usize, now: SystemTime) -> bool {
    let Some(response) = written(store, target, vec![7; bytes].into(), now).await else { return false };
    put_response(store, target, response, now).await;
    true
}

pub(crate) async fn has(store: &dyn HttpStore, target: &str) -> bool {
    store.get(target).await.unwrap().is_some_and(|variants| !variants.is_empty())
}

pub(crate) async fn body_of(store: &dyn HttpStore, target: &str) -> Option<Vec<u8>> {
    let variants = store.get(target).await.unwrap()?;
    let body = &variants.responses()[0].body;
    let mut all = Vec::new();
    while (all.len() as u64) < body.bytes() {
        all.extend_from_slice(&body.read(all.len() as u64).await.unwrap()?);
    }
    Some(all)
}
