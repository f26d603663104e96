//! A cluster whose nodes are behind proxies: what the driver does when all of them break, and when one does.
//!
//! Nodes name the addresses that clients shall go to. Here those are the proxies'.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{self, LocalBoxFuture};
use larder::driver::redis::{RedisDriver, RedisOptions};
use larder::testing::{Fault, Proxy};
use larder::time::{Clock as _, SystemClock, seconds};

use super::super::servers::Server;
use super::{cli, cluster};
use crate::faults::{self, Broken, FEWEST, fault_suite, slack};
use crate::traffic::prefix;

/// How long a node is waited for, and how long a connection to one.
const PATIENCE: Duration = Duration::from_millis(300);
/// How long a call may take in all.
const DEADLINE: Duration = Duration::from_millis(600);
/// How many keys are read and written: some on each master.
const KEYS: usize = 30;

fault_suite!(through_proxies, broken());

/// A cluster of three masters of its own, each behind a proxy, and a driver that is led to the proxies only. Of its
/// keys each of the first three lies on another master.
async fn broken() -> Option<Broken> {
    let nodes = cluster().await?;
    let before = |node: &Server| Proxy::before((Ipv4Addr::LOCALHOST, node.port).into()).unwrap();
    let proxies: Vec<Proxy> = nodes.iter().map(before).collect();
    for (node, proxy) in nodes.iter().zip(&proxies) {
        let set = async |name: &str, value: &str| node.say(&["CONFIG", "SET", name, value]).await;
        // Among themselves the nodes go on to meet where they did.
        set("cluster-announce-bus-port", &(node.port + 10_000).to_string()).await;
        set("cluster-announce-ip", "127.0.0.1").await;
        set("cluster-announce-port", &proxy.address().port().to_string()).await;
    }
    let begun = SystemClock::default();
    // A client that is told of one node itself goes past the proxies.
    while !nodes.iter().all(|node| names_only(node, &proxies)) {
        assert!(
            begun.monotonic() < seconds(30),
            "the nodes do not name the proxies: {:?}",
            super::states(&nodes)
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let hosts: Vec<String> = proxies.iter().map(|proxy| proxy.address().to_string()).collect();
    let mut options = RedisOptions::new(&format!("redis+cluster://{}", hosts.join(","))).unwrap();
    options.response_timeout = PATIENCE;
    options.connect_timeout = PATIENCE;
    let driver = Arc::new(RedisDriver::connect(options).await.unwrap());
    let prefix = std::iter::repeat_with(|| prefix("faults"))
        .find(|prefix| (0..FEWEST).all(|n| master_of(&format!("{prefix}{n}")) == n))
        .unwrap();
    let ports: Vec<u16> = nodes.iter().map(|node| node.port).collect();
    let broken = Broken::over(driver, proxies, prefix, nodes);
    broken.fill(FEWEST).await;
    let sizes: Vec<String> =
        ports.iter().map(|port| cli(&["-p", &port.to_string(), "DBSIZE"]).trim().to_owned()).collect();
    assert_eq!(sizes, ["1", "1", "1"], "each master has one of the keys");
    assert!(broken.proxies.iter().all(|proxy| proxy.accepted() >= 2), "reads and writes go through each");
    Some(broken)
}

/// Whether a node leads its clients to the proxies and nowhere else.
fn names_only(node: &Server, proxies: &[Proxy]) -> bool {
    let said = cli(&["-p", &node.port.to_string(), "CLUSTER", "SLOTS"]);
    let hosts = said.lines().zip(said.lines().skip(1)).filter(|(host, _)| *host == "127.0.0.1");
    let mut named: Vec<String> = hosts.map(|(_, port)| port.to_owned()).collect();
    let mut wanted: Vec<String> = proxies.iter().map(|proxy| proxy.address().port().to_string()).collect();
    named.sort_unstable();
    wanted.sort_unstable();
    named == wanted
}

/// Which of three masters that share the slots evenly has a key.
fn master_of(key: &str) -> usize {
    let crc = key.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    });
    match crc % 16_384 {
        ..5_461 => 0,
        5_461..10_923 => 1,
        _ => 2,
    }
}

/// What becomes of a call, whose key it is, and how long it takes.
type Went = (usize, larder::Result<()>, Duration);

/// Reads all keys at once and writes them again. What is read is the key's own value.
async fn all(broken: &Broken) -> Vec<Went> {
    let timed = async |n: usize, call: LocalBoxFuture<'_, larder::Result<()>>| {
        let begun = SystemClock::default();
        let outcome = call.await;
        (n, outcome, begun.monotonic())
    };
    let calls = (0..KEYS).flat_map(|n| {
        let read = async move {
            broken.driver.get(&broken.key(n)).await.map(|found| assert_eq!(found, Some(broken.value(n))))
        };
        [timed(n, Box::pin(read)), timed(n, Box::pin(broken.write(n)))]
    });
    future::join_all(calls).await
}

/// Reads and writes for a while. `went` is told of each call whether it is to this master.
async fn meanwhile(broken: &Broken, master: usize, mut went: impl FnMut(bool, larder::Result<()>, Duration)) {
    let begun = SystemClock::default();
    while begun.monotonic() < seconds(1) {
        for (n, outcome, took) in all(broken).await {
            went(master_of(&broken.key(n)) == master, outcome, took);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// All is well again within two seconds, for every key.
async fn healed(broken: &Broken) {
    println!("back after {:?}", broken.heal().await);
    for (_, outcome, _) in all(broken).await {
        outcome.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_or_refusing_master_costs_its_own_keys_only() {
    let Some(broken) = broken().await else { return };
    broken.fill(KEYS).await;
    for fault in [Fault::Silent, Fault::Gone] {
        for (master, proxy) in broken.proxies.iter().enumerate() {
            proxy.set(fault);
            let (mut own, mut others) = (Duration::ZERO, Duration::ZERO);
            meanwhile(&broken, master, |is_its, outcome, took| {
                if is_its {
                    let error = outcome.unwrap_err();
                    assert!(error.kind().is_transient(), "{error}");
                    own = own.max(took);
                } else {
                    outcome.unwrap();
                    others = others.max(took);
                }
            })
            .await;
            println!("{fault:?}: its own keys fail after up to {own:?}, others answer within {others:?}");
            assert!(own < DEADLINE.mul_f64(1.1) + slack(), "{own:?}");
            assert!(others < Duration::from_millis(100) + slack(), "{others:?}");
            healed(&broken).await;
        }
    }
}

/// Nothing is heard of it, not even when a connection is made. The client stands still while it tries to make one, so
/// that the others' keys wait as well: as long as connecting anew takes and then a call, but no longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vanished_master_holds_up_the_others_for_no_longer_than_a_connection_and_a_call_take() {
    let Some(broken) = broken().await else { return };
    broken.fill(KEYS).await;
    for (master, proxy) in broken.proxies.iter().enumerate() {
        proxy.set(Fault::Gone);
        proxy.set(Fault::Silent);
        let (mut longest, mut answered) = (Duration::ZERO, 0);
        meanwhile(&broken, master, |is_its, outcome, took| {
            longest = longest.max(took);
            match outcome {
                Ok(()) => {
                    assert!(!is_its, "it had vanished");
                    answered += 1;
                }
                Err(error) => assert!(error.kind().is_transient(), "{error}"),
            }
        })
        .await;
        println!("no call took longer than {longest:?}, {answered} were answered");
        assert!(longest < seconds(2) + slack(), "{longest:?}");
        assert!(answered > 0, "the others' keys are still there");
        healed(&broken).await;
    }
}

/// A length that arrives as another one has the client wait for what never comes. Each later answer over that connection
/// then goes to the call before, while the connections to the other masters go on as ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_out_of_step_are_so_for_two_seconds_at_most() {
    let Some(broken) = broken().await else { return };
    broken.fill(KEYS).await;
    for (master, proxy) in broken.proxies.iter().enumerate() {
        let mut written = Ok(());
        // It may be another answer that is turned: of those who ask whether the master is there.
        while written.is_ok() {
            // Of `*2`, `:1`, `$27`… the second becomes `*1`, which is a list within the list that takes the third.
            proxy.set(Fault::Corrupt(4));
            let passed = async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                proxy.set(Fault::None);
            };
            (written, ()) = tokio::join!(broken.write(master), passed);
        }
        let begun = SystemClock::default();
        // The last of them would have no answer.
        while all(&broken).await.iter().any(|(_, outcome, _)| outcome.is_err()) {
            assert!(begun.monotonic() < seconds(2) + slack(), "still out of step");
        }
        println!("in step after {:?}", begun.monotonic());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_master_breaks_off_or_says_late_is_never_taken_for_anothers_answer() {
    let Some(broken) = broken().await else { return };
    broken.fill(KEYS).await;
    let mut failed = 0;
    let late = [40, 250, 350].map(|late| Fault::Late(Duration::from_millis(late)));
    for fault in [0, 1, 5, 21, 144, 1_000, 5_000].map(Fault::CutAfter).into_iter().chain(late) {
        for (master, proxy) in broken.proxies.iter().enumerate() {
            proxy.set(fault);
            // Values are compared as they are read.
            for (n, outcome, _) in all(&broken).await {
                if master_of(&broken.key(n)) != master {
                    outcome.unwrap();
                } else if let Err(error) = outcome {
                    failed += 1;
                    assert!(error.kind().is_transient(), "{error}");
                }
            }
            healed(&broken).await;
        }
    }
    assert!(failed > 100, "{failed} calls failed: this tests nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_memory_and_grace_nobody_notices_one_master() {
    for master in 0..FEWEST {
        let Some(broken) = broken().await else { return };
        faults::with_memory_and_grace_no_caller_sees_an_error(broken.only(master)).await;
    }
}
