//! Clusters and sentinels that a test may break.

mod faults;

use std::process::Command;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use larder::driver::redis::{RedisDriver, RedisOptions};
use larder::driver::{Driver, When, Write, Written};
use larder::time::{Clock as _, Stamp, SystemClock, seconds};

use super::servers::{Server, is_installed};
use crate::record::record;
use crate::server::{free_port, runs};

const CLI: &str = "redis-cli";

fn cli(args: &[&str]) -> String {
    let output = Command::new(CLI).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{args:?}: {said}");
    said
}

/// Three primaries that share all slots.
async fn cluster() -> Option<Vec<Server>> {
    cluster_of(3, 0).await
}

/// Primaries that share all slots, and behind them so many replicas of each.
async fn cluster_of(primaries: usize, replicas: usize) -> Option<Vec<Server>> {
    if !is_installed() || !runs(CLI) {
        return None;
    }
    let args = [
        "--cluster-enabled",
        "yes",
        "--cluster-node-timeout",
        "1000",
        "--cluster-require-full-coverage",
        "no",
    ];
    let nodes: Vec<Server> = (0..primaries * (1 + replicas)).filter_map(|_| Server::start(&args)).collect();
    let addresses: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
    let mut create = vec!["--cluster", "create"];
    create.extend(addresses.iter().map(String::as_str));
    let replicas = replicas.to_string();
    create.extend(["--cluster-replicas", &replicas, "--cluster-yes"]);
    cli(&create);
    let begun = SystemClock::default();
    let ready = || {
        nodes
            .iter()
            .all(|node| cli(&["-p", &node.port.to_string(), "CLUSTER", "INFO"]).contains("cluster_state:ok"))
    };
    while !ready() {
        assert!(begun.monotonic() < seconds(30), "the cluster did not form");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Some(nodes)
}

/// What the nodes themselves say about their cluster.
fn states(nodes: &[Server]) -> Vec<String> {
    nodes.iter().map(|node| cli(&["-p", &node.port.to_string(), "CLUSTER", "NODES"])).collect()
}

async fn recovered(driver: &RedisDriver, keys: &[&str]) -> larder::Result<()> {
    driver.ping().await?;
    driver.get_many(keys).await?;
    Ok(())
}

fn options(nodes: &[Server]) -> RedisOptions {
    let hosts: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
    RedisOptions::new(&format!("redis+cluster://{}", hosts.join(","))).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_node_takes_its_own_keys_only_and_comes_back() {
    let Some(mut nodes) = cluster().await else { return };
    let driver = RedisDriver::connect(options(&nodes[..1])).await.unwrap();
    let keys: Vec<String> = (0..60).map(|n| format!("app:{n}")).collect();
    for key in &keys {
        driver.set(key, record(1, ""), None, When::Newer).await.unwrap();
    }
    nodes[2].kill();
    let (mut alive, mut dead) = (0, 0);
    for key in &keys {
        let begun = SystemClock::default();
        match driver.get(key).await {
            Ok(found) => {
                assert_eq!(found, Some(record(1, "")));
                alive += 1;
            }
            Err(error) => {
                assert!(error.kind().is_transient(), "{error}");
                dead += 1;
            }
        }
        assert!(begun.monotonic() < Duration::from_millis(2_500), "{:?}", begun.monotonic());
    }
    assert!(alive > 20 && dead > 5, "{alive} alive, {dead} dead");
    // What would leave out a third of the keys without a word is an error.
    assert!(driver.ping().await.unwrap_err().kind().is_transient());
    assert!(driver.scan("app:").try_collect::<Vec<_>>().await.is_err());
    assert!(driver.clear("app:", Stamp::MAX).await.is_err());
    let all: Vec<&str> = keys.iter().map(String::as_str).collect();
    assert!(driver.get_many(&all).await.is_err());
    assert!(driver.delete_many(&all).await.is_err());
    nodes[2].restart();
    let begun = SystemClock::default();
    while let Err(error) = recovered(&driver, &all).await {
        assert!(begun.monotonic() < seconds(20), "{error}; {:?}", states(&nodes));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("all of the cluster back after {:?}", begun.monotonic());
    for key in &keys {
        driver.set(key, record(2, ""), None, When::Newer).await.unwrap();
    }
    assert_eq!(driver.clear("app:", Stamp::from_bits(2)).await.unwrap(), 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_takes_over_and_what_was_acknowledged_is_there() {
    let Some(mut nodes) = cluster_of(3, 1).await else { return };
    let driver = RedisDriver::connect(options(&nodes)).await.unwrap();
    let keys: Vec<String> = (0..60).map(|n| format!("app:{n}")).collect();
    for key in &keys {
        driver.set(key, record(1, ""), None, When::Newer).await.unwrap();
    }
    let role = |node: &Server| cli(&["-p", &node.port.to_string(), "INFO", "replication"]);
    // Replicas follow a moment later.
    let begun = SystemClock::default();
    let of = |said: &str, name: &str| {
        said.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
    };
    let follows = |primary: &str| {
        let reached = of(primary, "master_repl_offset:").unwrap();
        primary.contains(&format!("offset={reached}"))
    };
    while !nodes.iter().map(role).filter(|said| said.contains("role:master")).all(|said| follows(&said)) {
        assert!(begun.monotonic() < seconds(30), "the replicas did not follow");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let dying = nodes.iter().position(|node| role(node).contains("role:master")).unwrap();
    nodes[dying].kill();
    let all: Vec<&str> = keys.iter().map(String::as_str).collect();
    let begun = SystemClock::default();
    let found = loop {
        match driver.get_many(&all).await {
            Ok(found) => break found,
            Err(error) => assert!(error.kind().is_transient(), "{error}"),
        }
        assert!(begun.monotonic() < seconds(30), "no replica took over");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    println!("every key is answered again after {:?}", begun.monotonic());
    assert!(found.iter().all(|found| *found == Some(record(1, ""))));
    for key in &keys {
        driver.set(key, record(2, ""), None, When::Newer).await.unwrap();
    }
    assert_eq!(driver.clear("app:", Stamp::from_bits(2)).await.unwrap(), 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_that_move_while_others_read_and_write_lose_nothing() {
    let Some(nodes) = cluster().await else { return };
    let driver = RedisDriver::connect(options(&nodes)).await.unwrap();
    let write = |n: u64, stamp: u64| Write {
        key: format!("app:{n}"),
        value: record(stamp, ""),
        ttl: None,
        when: When::Newer,
    };
    driver.set_many((0..500).map(|n| write(n, 1)).collect()).await.unwrap();
    let id = cli(&["-p", &nodes[0].port.to_string(), "CLUSTER", "MYID"]);
    let other = cli(&["-p", &nodes[1].port.to_string(), "CLUSTER", "MYID"]);
    let address = format!("127.0.0.1:{}", nodes[0].port);
    let moving = std::thread::spawn(move || {
        cli(&[
            "--cluster",
            "reshard",
            &address,
            "--cluster-from",
            id.trim(),
            "--cluster-to",
            other.trim(),
            "--cluster-slots",
            "1500",
            "--cluster-yes",
        ]);
    });
    let (mut stamp, mut failed) = (1, 0);
    while !moving.is_finished() || stamp < 5 {
        stamp += 1;
        let writes = (0..500).map(|n| {
            let Write { key, value, ttl, when } = write(n, stamp);
            let driver = &driver;
            async move { driver.set(&key, value, ttl, when).await }
        });
        let writes: Vec<_> = writes.collect();
        for written in stream::iter(writes).buffered(16).collect::<Vec<_>>().await {
            match written {
                Ok(written) => assert!(matches!(written, Written::Stored { .. }), "{written:?}"),
                // The client stands still while it learns where the slots are, longer than some have time.
                Err(error) => {
                    assert!(error.kind().is_transient(), "{error}");
                    failed += 1;
                }
            }
        }
    }
    moving.join().unwrap();
    println!("{failed} of {} writes failed while 1 500 slots moved", (stamp - 1) * 500);
    // On a busy machine the client stands still for longer.
    assert!(failed * 4 < stamp * 500, "{failed} of {} writes failed", (stamp - 1) * 500);
    stamp += 1;
    let mut again = 0;
    while let Err(error) = driver.set_many((0..500).map(|n| write(n, stamp)).collect()).await {
        assert!(error.kind().is_transient() && again < 50, "{error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
        (again, stamp) = (again + 1, stamp + 1);
    }
    let keys: Vec<String> = (0..500).map(|n| format!("app:{n}")).collect();
    let all: Vec<&str> = keys.iter().map(String::as_str).collect();
    for found in driver.get_many(&all).await.unwrap() {
        assert_eq!(found, Some(record(stamp, "")));
    }
    assert_eq!(driver.scan("app:").try_collect::<Vec<_>>().await.unwrap().len(), 500);
    assert_eq!(driver.delete_many(&all).await.unwrap(), 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_a_cluster_that_is_opened_as_a_server_says_what_to_do() {
    let Some(nodes) = cluster().await else { return };
    let driver = nodes[0].driver().await;
    let mut told = false;
    for n in 0..20 {
        if let Err(error) = driver.get(&format!("{n}")).await {
            assert_eq!(error.kind(), larder::ErrorKind::Config);
            assert!(error.message().contains("redis+cluster://"), "{error}");
            told = true;
        }
    }
    assert!(told);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_lead_to_the_new_primary() {
    let Some(mut primary) = Server::start(&["--requirepass", "hunter2", "--masterauth", "hunter2"]) else {
        return;
    };
    let follow = format!("127.0.0.1 {}", primary.port);
    let args = ["--replicaof", &follow, "--requirepass", "hunter2", "--masterauth", "hunter2"];
    let replica = Server::start(&args).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (file, port) = (directory.path().join("sentinel.conf"), free_port());
    let settings = format!(
        "sentinel monitor main 127.0.0.1 {} 1\nsentinel auth-pass main hunter2\n\
         sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n",
        primary.port
    );
    std::fs::write(&file, settings).unwrap();
    let mut sentinel = Command::new("redis-server")
        .arg(&file)
        .args(["--sentinel", "--port", &port.to_string(), "--bind", "127.0.0.1"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let outcome = tokio::spawn(async move {
        let options = RedisOptions::new(&format!("redis+sentinel://:hunter2@127.0.0.1:{port}/main")).unwrap();
        let begun = SystemClock::default();
        let driver = loop {
            match RedisDriver::connect(options.clone()).await {
                Ok(driver) => break driver,
                Err(error) => assert!(begun.monotonic() < seconds(20), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        driver.set("k", record(1, ""), None, When::Newer).await.unwrap();
        let wrong = options.to_string().replace("***@", ":hunter3@");
        let error = RedisDriver::connect(RedisOptions::new(&wrong).unwrap()).await.unwrap_err();
        assert!(!format!("{error:?}").contains("hunter"), "{error}");
        // The replica, and what the sentinel knows of it.
        let begun = SystemClock::default();
        let port = port.to_string();
        while !cli(&["-p", &port, "SENTINEL", "REPLICAS", "main"]).contains("slave-priority")
            || !cli(&["-a", "hunter2", "-p", &replica.port.to_string(), "INFO", "replication"])
                .contains("master_link_status:up")
        {
            assert!(begun.monotonic() < seconds(30), "the sentinel did not find the replica");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        primary.kill();
        let begun = SystemClock::default();
        loop {
            match driver.set("k", record(2, ""), None, When::Newer).await {
                Ok(_) => break,
                Err(error) => assert!(error.kind().is_transient(), "{error}"),
            }
            assert!(begun.monotonic() < seconds(30), "no new primary");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        println!("the new primary takes writes after {:?}", begun.monotonic());
        assert_eq!(driver.get("k").await.unwrap(), Some(record(2, "")));
    })
    .await;
    let _ = sentinel.kill();
    let _ = sentinel.wait();
    outcome.unwrap();
}
