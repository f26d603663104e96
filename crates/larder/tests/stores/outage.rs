//! A server goes away and comes back: what a driver does meanwhile, and what a stack over it does.

use std::sync::Arc;
use std::time::Duration;

use larder::Stack;
use larder::driver::{Driver, When, Written};
use larder::memory::MemoryOptions;
use larder::time::{Clock as _, SystemClock, seconds};

use crate::record::record;
use crate::server::Server;
use crate::stacks::loaded;

/// How an outage begins and what may be asked of a driver then.
pub(crate) struct Outage {
    pub(crate) begin: fn(&mut Server),
    /// The longest that a call may take meanwhile.
    pub(crate) patience: Duration,
    /// The longest that the driver may be away after the server is back.
    pub(crate) back_within: Duration,
    /// Whether the server has what it had.
    pub(crate) keeps: bool,
    /// Whether every error has to name the server.
    pub(crate) names_the_server: bool,
}

/// Of a server that forgets and that nobody waits for.
pub(crate) const KILLED: Outage = Outage {
    begin: Server::kill,
    patience: Duration::from_millis(500),
    back_within: Duration::from_secs(2),
    keeps: false,
    names_the_server: true,
};

pub(crate) async fn a_server_that_comes_back_is_used_again(
    server: &mut Server,
    driver: &dyn Driver,
    outage: Outage,
) {
    driver.set("k", record(1, "v"), None, When::Always).await.unwrap();
    (outage.begin)(server);
    for _ in 0..3 {
        for is_write in [false, true] {
            let begun = SystemClock::default();
            let error = match is_write {
                true => driver.set("k", record(2, "w"), None, When::Newer).await.unwrap_err(),
                false => driver.get("k").await.unwrap_err(),
            };
            assert!(begun.monotonic() < outage.patience, "{:?}", begun.monotonic());
            assert!(error.kind().is_transient(), "{error}");
            let named = error.message().contains(&format!("127.0.0.1:{}", server.port));
            assert!(named || !outage.names_the_server, "{error}");
        }
    }
    server.restart();
    let back = SystemClock::default();
    while driver.get("k").await.is_err() {
        assert!(back.monotonic() < outage.back_within);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("back after {:?}", back.monotonic());
    let kept = outage.keeps.then(|| record(1, "v"));
    assert_eq!(driver.get("k").await.unwrap(), kept);
    let previous = kept.map(|kept| larder::driver::head(&kept));
    let written = driver.set("k", record(2, "w"), None, When::Newer).await.unwrap();
    assert_eq!(written, Written::Stored { previous });
}

pub(crate) async fn a_stack_serves_stale_while_its_server_is_gone_and_goes_on_when_it_is_back(
    server: &mut Server,
    driver: Arc<dyn Driver>,
) {
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
        assert!(begun.monotonic() < seconds(2));
    }
    assert_eq!(loaded(&cache, "m", "third").await, "third");
    let other = Stack::builder("outage").borrowed_store(driver).build().unwrap().cache::<String>().unwrap();
    assert_eq!(other.get("m").await.unwrap().unwrap().to_string(), "third", "it is in the store");
}
