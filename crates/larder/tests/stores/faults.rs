//! What stands between a driver and its servers breaks: whatever it does, no value is wrong, errors are typed and prompt,
//! and the driver is back soon after the servers.

use std::any::Any;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use larder::driver::{Driver, When};
use larder::memory::MemoryOptions;
use larder::testing::{Fault, Proxy};
use larder::time::{Clock as _, SystemClock, minutes, seconds};
use larder::{BreakerOptions, Cache, Stack};

use crate::traffic::prefix;

/// Runs the tests of this file over a driver: `upstream` says where the server is, or `None` if there is none, and `open`
/// makes a driver that thinks it is at another address, with a patience of 300 ms for an answer. Where one address is
/// not enough, `broken` comes to all of it: a [`Broken`], or `None`.
macro_rules! fault_suite {
    ($name:ident, $upstream:expr, $open:expr) => {
        $crate::faults::fault_suite!($name, async { match $upstream() {
            Some(server) => Some($crate::faults::Broken::new(server, async |at| {
                std::sync::Arc::new($open(at).await) as std::sync::Arc<dyn larder::driver::Driver>
            }).await),
            None => None,
        }});
    };
    ($name:ident, $broken:expr) => {
        $crate::faults::fault_suite!(@ $name, $broken,
            an_answer_that_is_cut_anywhere_is_no_value,
            a_late_answer_is_nobodys,
            a_server_that_says_nothing_costs_no_more_than_the_deadline,
            a_server_that_comes_back_is_used_again_within_two_seconds,
            a_turned_bit_is_never_a_value,
            with_memory_and_grace_no_caller_sees_an_error);
    };
    (@ $name:ident, $broken:expr, $($test:ident),*) => {
        mod $name {
            use super::*;

            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                if let Some(broken) = $broken.await {
                    $crate::faults::$test(broken).await;
                }
            })*
        }
    };
}
pub(crate) use fault_suite;

/// How much longer than it was given a call may take on a machine that has other things to do: 150 ms, unless
/// `LARDER_TEST_SLACK_MS` says otherwise.
pub(crate) fn slack() -> Duration {
    let said = std::env::var("LARDER_TEST_SLACK_MS").ok().map(|said| said.parse().unwrap());
    Duration::from_millis(said.unwrap_or(150))
}

/// A driver, and what stands between it and its servers: a proxy before each, which break at once.
pub(crate) struct Broken {
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) proxies: Vec<Proxy>,
    /// Which of the proxies break.
    breaks: Range<usize>,
    prefix: String,
    /// Servers that are there for this only, and end with it.
    _servers: Box<dyn Any + Send>,
}

/// How many keys show what all servers do: the first ones, which lie on one server each.
pub(crate) const FEWEST: usize = 3;

impl Broken {
    pub(crate) async fn new(
        server: SocketAddr,
        open: impl AsyncFnOnce(SocketAddr) -> Arc<dyn Driver>,
    ) -> Self {
        let proxy = Proxy::before(server).unwrap();
        let driver = open(proxy.address()).await;
        Self::over(driver, vec![proxy], prefix("faults"), ())
    }

    /// A driver that goes through these proxies, and a prefix for its keys.
    pub(crate) fn over(
        driver: Arc<dyn Driver>,
        proxies: Vec<Proxy>,
        prefix: String,
        servers: impl Any + Send,
    ) -> Self {
        Self { driver, breaks: 0..proxies.len(), proxies, prefix, _servers: Box::new(servers) }
    }

    /// The same, of which one proxy breaks and no other.
    pub(crate) fn only(self, proxy: usize) -> Self {
        Self { breaks: proxy..proxy + 1, ..self }
    }

    fn set(&self, fault: Fault) {
        let (all, breaks) = (&self.proxies, &self.breaks);
        for proxy in all.iter().take(breaks.end).skip(breaks.start) {
            proxy.set(fault);
        }
    }

    pub(crate) fn key(&self, n: usize) -> String {
        format!("{}{n}", self.prefix)
    }

    /// What is stored under a key: it names the key, and is long enough to arrive in pieces.
    pub(crate) fn value(&self, n: usize) -> Bytes {
        Bytes::from(format!("{};", self.key(n)).repeat(n * 40 + 1))
    }

    pub(crate) async fn write(&self, n: usize) -> larder::Result<()> {
        self.driver.set(&self.key(n), self.value(n), Some(minutes(5)), When::Always).await.map(|_| ())
    }

    pub(crate) async fn fill(&self, keys: usize) {
        for n in 0..keys {
            self.write(n).await.unwrap();
        }
    }

    /// Lets everything pass again, and waits until the driver has noticed: it reads and writes again.
    pub(crate) async fn heal(&self) -> Duration {
        self.set(Fault::None);
        let begun = SystemClock::default();
        for n in 0..FEWEST {
            loop {
                let found = async {
                    let found = self.driver.get(&self.key(n)).await?;
                    self.write(n).await.map(|()| found)
                };
                match found.await {
                    Ok(found) => break assert_eq!(found, Some(self.value(n))),
                    Err(error) => assert!(error.kind().is_transient(), "{error}"),
                }
                assert!(begun.monotonic() < seconds(2) + slack(), "not back within two seconds");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        begun.monotonic()
    }

    pub(crate) fn stack(&self) -> larder::StackBuilder {
        let mut breaker = BreakerOptions::default();
        breaker.pause = Duration::from_millis(50);
        breaker.pause_max = Duration::from_millis(100);
        Stack::builder("faults")
            .prefix(&self.prefix)
            .store(Arc::clone(&self.driver))
            .deadline(Duration::from_millis(200))
            .breaker(breaker)
    }
}

pub(crate) async fn an_answer_that_is_cut_anywhere_is_no_value(broken: Broken) {
    broken.fill(3).await;
    let mut failed = 0;
    for cut in [0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 1_000, 5_000] {
        broken.set(Fault::CutAfter(cut));
        for n in [2, 0, 1, 2] {
            match broken.driver.get(&broken.key(n)).await {
                Ok(found) => assert_eq!(found, Some(broken.value(n)), "after {cut} bytes"),
                Err(error) => {
                    failed += 1;
                    assert!(error.kind().is_transient(), "after {cut} bytes: {error}");
                }
            }
        }
        let keys = [broken.key(1), broken.key(2), broken.key(0)];
        match broken.driver.get_many(&keys.each_ref().map(String::as_str)).await {
            Ok(found) => assert_eq!(found, [1, 2, 0].map(|n| Some(broken.value(n))), "after {cut} bytes"),
            Err(error) => assert!(error.kind().is_transient(), "after {cut} bytes: {error}"),
        }
        broken.heal().await;
    }
    assert!(failed > 20, "{failed} calls failed: this tests nothing");
}

pub(crate) async fn a_late_answer_is_nobodys(broken: Broken) {
    broken.fill(10).await;
    for round in 0..5 {
        broken.set(Fault::Silent);
        for n in 0..10 {
            // One is dropped before its answer comes, which is then still under way.
            let key = broken.key(n);
            let asked = broken.driver.get(&key);
            let heard = tokio::time::timeout(Duration::from_millis(2), asked).await;
            assert!(!matches!(heard, Ok(Ok(_))), "it was silent");
        }
        broken.set(Fault::Late(Duration::from_millis(3)));
        for n in (0..10).rev().map(|n| (n + round) % 10) {
            match broken.driver.get(&broken.key(n)).await {
                Ok(found) => assert_eq!(found, Some(broken.value(n))),
                Err(error) => assert!(error.kind().is_transient(), "{error}"),
            }
        }
        broken.heal().await;
    }
}

pub(crate) async fn a_server_that_says_nothing_costs_no_more_than_the_deadline(broken: Broken) {
    let cache: Cache<String> = broken.stack().breaker(None).build().unwrap().cache().unwrap();
    cache.set("k", "v".to_owned()).await.unwrap();
    broken.fill(FEWEST).await;
    broken.set(Fault::Silent);
    for _ in 0..5 {
        let begun = SystemClock::default();
        let error = cache.get("k").await.unwrap_err();
        assert!(begun.monotonic() < Duration::from_millis(220) + slack(), "{:?}", begun.monotonic());
        assert!(error.kind().is_transient(), "{error}");
    }
    // By itself the driver gives up as well.
    for n in 0..FEWEST {
        let begun = SystemClock::default();
        let error = broken.driver.get(&broken.key(n)).await.unwrap_err();
        assert!(begun.monotonic() < seconds(1) + slack(), "{:?}", begun.monotonic());
        assert!(error.kind().is_transient(), "{error}");
    }
    println!("back after {:?}", broken.heal().await);
    assert_eq!(cache.get("k").await.unwrap().as_deref().map(String::as_str), Some("v"));
}

pub(crate) async fn a_server_that_comes_back_is_used_again_within_two_seconds(broken: Broken) {
    broken.fill(FEWEST).await;
    for outage in [10, 500, 1_500] {
        broken.set(Fault::Gone);
        let begun = SystemClock::default();
        for n in (0..FEWEST).cycle() {
            if begun.monotonic() >= Duration::from_millis(outage) {
                break;
            }
            let asked = SystemClock::default();
            let error = broken.driver.get(&broken.key(n)).await.unwrap_err();
            assert!(error.kind().is_transient(), "{error}");
            assert!(asked.monotonic() < seconds(1) + slack(), "{:?}", asked.monotonic());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        println!("after an outage of {outage} ms, back after {:?}", broken.heal().await);
    }
}

pub(crate) async fn a_turned_bit_is_never_a_value(broken: Broken) {
    let cache: Cache<String> = broken.stack().breaker(None).build().unwrap().cache().unwrap();
    let value = |n: usize| format!("the value of key {n};").repeat(n + 1);
    broken.fill(FEWEST).await;
    for n in 0..4 {
        cache.set(&n.to_string(), value(n)).await.unwrap();
    }
    let mut spoilt = 0;
    for at in (0..160).chain((160..600).step_by(37)) {
        broken.set(Fault::Corrupt(at));
        for n in [0, 3, 1, 2] {
            match cache.get(&n.to_string()).await {
                Ok(Some(found)) => assert_eq!(*found, value(n), "bit {at}"),
                // What is damaged is healed by being removed.
                Ok(None) => spoilt += 1,
                Err(error) => {
                    spoilt += 1;
                    assert!(error.kind() != larder::ErrorKind::Decode, "after bit {at}: {error}");
                }
            }
        }
        broken.set(Fault::None);
        let mut healed = false;
        for _ in 0..1_000 {
            let mut writes = 0..4;
            let again = async {
                for n in writes.by_ref() {
                    cache.set(&n.to_string(), value(n)).await?;
                    let found = cache.get(&n.to_string()).await?;
                    assert!(found.is_none_or(|found| *found == value(n)), "after bit {at}");
                }
                Ok::<(), larder::Error>(())
            };
            healed = again.await.is_ok();
            if healed {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(healed, "after bit {at} was turned, the store was not used again");
    }
    assert!(spoilt > 50, "{spoilt} answers were spoilt: this tests nothing");
}

pub(crate) async fn with_memory_and_grace_no_caller_sees_an_error(broken: Broken) {
    let stack = broken.stack().memory(MemoryOptions::new(1_000)).build().unwrap();
    let cache: Cache<u64> = stack.cache().unwrap();
    // The source is as dead as the store, but for the first load of each key.
    let is_dead = Arc::new(AtomicBool::new(false));
    let calls = Arc::new(AtomicU64::new(0));
    let load = |n: u64| {
        let (is_dead, calls) = (Arc::clone(&is_dead), Arc::clone(&calls));
        move || async move {
            calls.fetch_add(1, Ordering::Relaxed);
            if is_dead.load(Ordering::Relaxed) {
                Err(std::io::Error::other("the source is down"))
            } else {
                Ok(n)
            }
        }
    };
    let ask = async |n: u64| {
        let asked = SystemClock::default();
        let key = n.to_string();
        let asking = cache.get_or_set(&key, load(n)).ttl(Duration::from_millis(1)).grace(minutes(5));
        let found = asking.backoff(Duration::from_millis(1)).await;
        assert!(found.as_ref().is_ok_and(|found| **found == n), "{n}: {found:?}");
        assert!(asked.monotonic() < seconds(1) + slack(), "{:?}", asked.monotonic());
    };
    for n in 0..20 {
        ask(n).await;
    }
    is_dead.store(true, Ordering::Relaxed);
    let faults = [
        Fault::Gone,
        Fault::Silent,
        Fault::CutAfter(3),
        Fault::Corrupt(9),
        Fault::Late(Duration::from_millis(250)),
    ];
    for fault in faults {
        broken.set(fault);
        let begun = SystemClock::default();
        while begun.monotonic() < Duration::from_millis(500) {
            for n in 0..20 {
                ask(n).await;
            }
        }
        broken.set(Fault::None);
        ask(7).await;
    }
    assert!(calls.load(Ordering::Relaxed) > 40, "the source was never asked again");
    is_dead.store(false, Ordering::Relaxed);
    ask(3).await;
}
