//! Changes of a target are atomic.

use std::sync::Arc;

use super::{Sample, get, must, only, put};
use crate::store::{HttpStore, Variants};

/// Each change builds on the one before.
pub async fn a_change_sees_the_newest_state(store: Arc<dyn HttpStore>) {
    let target = "http://a.example/change";
    for round in 0..5 {
        let response = Arc::new(Sample::new("x").written(&*store, target).await);
        let change = |variants: &Variants| {
            assert_eq!(variants.responses().len(), round);
            Some(Variants::new(variants.responses().iter().chain([&response]).cloned()))
        };
        must(store.change(target, &change).await, "a response is added");
    }
    assert_eq!(get(&*store, target).await.map(|variants| variants.responses().len()), Some(5));
}

/// `None` is "as it is".
pub async fn a_change_that_says_nothing_changes_nothing(store: Arc<dyn HttpStore>) {
    let target = "http://a.example/keep";
    must(store.change(target, &|_| None).await, "nothing happens to nothing");
    assert!(get(&*store, target).await.is_none());
    let id = Sample::new("x").put(&*store, target).await;
    must(store.change(target, &|_| None).await, "nothing happens to something");
    assert_eq!(only(&*store, target).await.id, id);
}

/// No responses are no target.
pub async fn a_change_to_nothing_deletes(store: Arc<dyn HttpStore>) {
    let target = "http://a.example/empty";
    let id = Sample::new("x").put(&*store, target).await;
    must(store.change(target, &|variants| variants.without(id)).await, "the only response goes");
    assert!(get(&*store, target).await.is_none());
    must(store.change(target, &|_| Some(Variants::default())).await, "nothing becomes nothing");
    assert!(get(&*store, target).await.is_none());
}

/// Read, decide and write are one step.
pub async fn eight_tasks_change_one_target_and_none_is_lost(store: Arc<dyn HttpStore>) {
    let target = "http://a.example/race";
    let tasks: Vec<_> = (0..8_u8)
        .map(|task| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for round in 0..8_u8 {
                    let name = format!("{task}-{round}");
                    let sample = Sample::new(name.clone()).vary("accept", Some(&name));
                    let response = Arc::new(sample.written(&*store, target).await);
                    put(&*store, target, &response).await;
                }
            })
        })
        .collect();
    for task in tasks {
        must(task.await, "a task ends");
    }
    let count = get(&*store, target).await.map(|variants| variants.responses().len());
    assert_eq!(count, Some(64), "every response that was acknowledged is there");
}
