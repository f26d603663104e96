//! Two stacks over one store, as two processes would be: each with a connection and a memory of its own.

use larder::driver::{Driver, When};
use larder::memory::MemoryOptions;
use larder::time::{Clock as _, SystemClock, minutes};
use larder::{Cache, Stack};

use super::{prefix, shared, shared_single};

/// Two stacks that share a store and a prefix which nobody else has.
async fn pairs() -> Vec<[Stack; 2]> {
    let mut pairs = Vec::new();
    let prefix = prefix("stacks");
    let stack = |driver| Stack::builder("shared").prefix(&prefix).store(driver).build().unwrap();
    if let (Some(one), Some(two)) = (shared().await, shared().await) {
        pairs.push([stack(one), stack(two)]);
    }
    if let (Some(one), Some(two)) = (shared_single().await, shared_single().await) {
        pairs.push([stack(one), stack(two)]);
    }
    pairs
}

fn caches(stacks: &[Stack; 2]) -> [Cache<String>; 2] {
    stacks.each_ref().map(|stack| stack.cache().unwrap())
}

async fn loaded(cache: &Cache<String>, key: &str, value: &'static str) -> String {
    let load = move || async move { Ok::<_, std::io::Error>(value.to_owned()) };
    cache.get_or_set(key, load).ttl(minutes(5)).tags(["all"]).await.unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_stack_does_the_other_sees() {
    for stacks in pairs().await {
        let [one, two] = caches(&stacks);
        assert_eq!(loaded(&one, "k", "one's").await, "one's");
        assert_eq!(loaded(&two, "k", "two's").await, "one's");
        two.delete("k").await.unwrap();
        assert_eq!(one.get("k").await.unwrap(), None);
        assert_eq!(loaded(&one, "k", "again").await, "again");
        two.invalidate(["all"]).await.unwrap();
        assert_eq!(one.get("k").await.unwrap(), None);
        assert_eq!(loaded(&one, "k", "tagged").await, "tagged");
        two.clear().await.unwrap();
        assert_eq!(one.get("k").await.unwrap(), None);
        let values = (0..200).map(|n| (n.to_string(), format!("value {n}")));
        one.set_many(values).await.unwrap();
        let keys: Vec<String> = (0..200).map(|n| n.to_string()).collect();
        for (n, value) in two.get_many(&keys).await.unwrap().into_iter().enumerate() {
            assert_eq!(value.unwrap().to_string(), format!("value {n}"));
        }
        two.clear().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_does_not_bury_a_delete_of_another_stack() {
    for stacks in pairs().await {
        let [one, two] = caches(&stacks);
        let (begun, loading) = tokio::sync::oneshot::channel();
        let (go_on, wait) = tokio::sync::oneshot::channel::<()>();
        let load = tokio::spawn(async move {
            let load = || async move {
                begun.send(()).unwrap();
                wait.await.unwrap();
                Ok::<_, std::io::Error>("old".to_owned())
            };
            one.get_or_set("k", load).await.unwrap().to_string()
        });
        loading.await.unwrap();
        // Each stack stamps by its own clock, and clocks tick every few milliseconds.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        two.delete("k").await.unwrap();
        go_on.send(()).unwrap();
        assert_eq!(load.await.unwrap(), "old");
        assert_eq!(two.get("k").await.unwrap(), None, "the load began before the delete");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_of_two_stacks_add_up() {
    for stacks in pairs().await {
        let counters = stacks.each_ref().map(|stack| stack.cache::<i64>().unwrap());
        let counting = counters.clone().map(|counter| {
            tokio::spawn(async move {
                for _ in 0..200 {
                    counter.increment("n", 1).await.unwrap();
                }
            })
        });
        for counting in counting {
            counting.await.unwrap();
        }
        let total = counters.each_ref().map(|counter| counter.get("n"));
        for total in total {
            assert_eq!(total.await.unwrap().as_deref(), Some(&400));
        }
    }
}

#[tokio::test]
async fn a_stack_serves_stale_while_its_server_is_gone_and_goes_on_when_it_is_back() {
    let Some(mut server) = super::servers::Server::start(&[]) else { return };
    let driver = std::sync::Arc::new(server.driver().await);
    let stack = Stack::builder("outage")
        .memory(MemoryOptions::new(100))
        .borrowed_store(driver.clone())
        .breaker(None)
        .build()
        .unwrap();
    let cache = stack.cache::<String>().unwrap();
    assert_eq!(loaded(&cache, "k", "first").await, "first");
    server.kill();
    assert_eq!(loaded(&cache, "k", "second").await, "first", "memory has it");
    assert_eq!(loaded(&cache, "l", "loaded").await, "loaded", "the source has it");
    server.restart();
    let begun = SystemClock::default();
    while driver.set("probe", "v".into(), None, When::Always).await.is_err() {
        assert!(begun.monotonic() < std::time::Duration::from_secs(2));
    }
    assert_eq!(loaded(&cache, "m", "third").await, "third");
    let other = Stack::builder("outage").borrowed_store(driver).build().unwrap().cache::<String>().unwrap();
    assert_eq!(other.get("m").await.unwrap().unwrap().to_string(), "third", "it is in the store");
}
