//! A stack over a server that is away for a while.

use larder::Stack;
use larder::driver::{Driver, When};
use larder::memory::MemoryOptions;
use larder::time::{Clock as _, SystemClock};

use crate::stacks::loaded;

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
