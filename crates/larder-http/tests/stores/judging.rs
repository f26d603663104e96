//! A `StackStore` that is told of another policy: what it has is judged by that, wherever it is.

use std::sync::Arc;
use std::time::Duration;

use larder::Stack;
use larder::driver::memory::MemoryDriver;
use larder::memory::MemoryOptions;
use larder::testing::ManualClock;
use larder_http::policy::{Policy, Stored};
use larder_http::store::{HttpStore, ResponseId, StackStore, StoredBody, StoredResponse};

use crate::sample::{body_of, clock, kept, now, put_response, written};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const TARGET: &str = "http://a/";

/// In memory, in a store, and in both.
fn stores(clock: &ManualClock) -> Vec<StackStore> {
    let builder = || Stack::builder("http").clock(Arc::new(clock.clone()));
    let driver = MemoryDriver::default;
    let memory = || {
        let mut memory = MemoryOptions::new(100);
        memory.max_bytes = Some(64 << 20);
        memory
    };
    [
        builder().memory(memory()).build(),
        builder().store(driver()).build(),
        builder().memory(memory()).store(driver()).build(),
    ]
    .map(|stack| StackStore::new(&stack.unwrap(), Policy::shared()).unwrap())
    .into()
}

fn percent(percent: u32) -> Policy {
    let mut policy = Policy::shared();
    policy.heuristic_percent = percent;
    policy
}

/// What was last modified ten days ago, as this policy has it.
fn old(policy: &Policy, clock: &ManualClock) -> StoredResponse {
    let now = now(clock);
    let kept = kept(now, "last-modified", "Tue, 05 Jan 2027 08:00:00 GMT");
    let body = StoredBody::from_bytes("body".into());
    StoredResponse::new(ResponseId::random(), Stored::new(policy, kept), now + 10 * DAY, body)
}

/// How long what is there is fresh, as those say who may be asked.
async fn lifetime(store: &StackStore) -> Duration {
    let got = store.get(TARGET).await.unwrap().unwrap();
    let lifetime = got.responses()[0].stored.lifetime().duration;
    if let Some(peeked) = store.peek(TARGET) {
        assert_eq!(peeked.responses()[0].stored.lifetime().duration, lifetime);
    }
    lifetime
}

#[tokio::test]
async fn what_is_there_is_judged_by_the_policy_that_there_is_now() {
    let clock = clock();
    for store in stores(&clock) {
        put_response(&store, TARGET, old(&Policy::shared(), &clock), now(&clock)).await;
        for (policy, fresh) in [(percent(10), DAY), (percent(0), Duration::ZERO), (percent(5), DAY / 2)] {
            store.set_policy(policy);
            // The second time it is known already.
            assert_eq!((lifetime(&store).await, lifetime(&store).await), (fresh, fresh));
        }
        assert_eq!(body_of(&store, TARGET).await.unwrap(), b"body");
    }
}

#[tokio::test]
async fn what_somebody_stores_who_goes_by_the_policy_of_before_is_judged_anew() {
    let clock = clock();
    for store in stores(&clock) {
        store.set_policy(percent(0));
        put_response(&store, TARGET, old(&Policy::shared(), &clock), now(&clock)).await;
        assert_eq!(lifetime(&store).await, Duration::ZERO);
    }
}

#[tokio::test]
async fn a_change_sees_what_is_judged_by_the_policy_that_there_is_now() {
    let clock = clock();
    for store in stores(&clock) {
        put_response(&store, TARGET, old(&Policy::shared(), &clock), now(&clock)).await;
        store.set_policy(percent(0));
        let seen = parking_lot::Mutex::new(None);
        store
            .change(TARGET, &|variants| {
                *seen.lock() = Some(variants.responses()[0].stored.lifetime().duration);
                None
            })
            .await
            .unwrap();
        assert_eq!(*seen.lock(), Some(Duration::ZERO));
    }
}

#[tokio::test]
async fn long_bodies_are_read_as_before() {
    let clock = clock();
    for store in stores(&clock) {
        let response = written(&store, TARGET, vec![7; 600_000].into(), now(&clock)).await.unwrap();
        put_response(&store, TARGET, response, now(&clock)).await;
        store.set_policy(percent(0));
        assert_eq!(body_of(&store, TARGET).await.unwrap(), vec![7; 600_000]);
        assert!(store.delete(TARGET).await.unwrap());
    }
}
