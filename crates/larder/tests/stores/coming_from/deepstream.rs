//! Both blocks of deepstream's page on its Redis cache connector, and what its connectors do with records.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use larder::config::{Config, Format, Registry};
use larder::driver::memory::MemoryDriver;
use larder::records::{Records, Replaced};
use larder::time::seconds;
use larder::{ErrorKind, Stack};

use super::{apart, example, open, server, timed, with, works};
use crate::redis::servers::Server;

const PAGE: &str = include_str!("../../../../../docs/coming-from/deepstream.md");

#[tokio::test]
async fn one_server() {
    let Some((host, port)) = server("LARDER_TEST_REDIS_URL") else { return };
    let port = port.to_string();
    let larder = open(with(PAGE, "server", &[("localhost", &host), ("6379", &port)])).await;
    let stack = larder.default_stack().unwrap();
    assert_eq!((stack.name(), stack.store().unwrap().name()), ("cache", "redis"));
    assert!(stack.memory_usage().is_none(), "every read asks the server");
    works(stack).await;
    records(stack).await;
    larder.close().await.unwrap();
}

/// The block for a cluster, with some of its nodes.
fn cluster(nodes: &[u16], password: Option<&str>) -> (String, Format) {
    let (text, format) = example(PAGE, "cluster");
    let (head, _) = text.split_once("      - host").unwrap();
    let (_, tail) = text.split_once("    maxRedirections").unwrap();
    let mut whole = head.to_owned();
    for (place, port) in nodes.iter().enumerate() {
        whole.push_str(&format!("      - host: 127.0.0.1\n        port: {port}\n"));
        if let (0, Some(password)) = (place, password) {
            whole.push_str(&format!("        password: {password}\n"));
        }
    }
    whole.push_str("    maxRedirections");
    whole.push_str(tail);
    let whole = match password {
        Some(password) => whole.replace("fallback-password", password),
        // A server without a password refuses one.
        None => whole.replace("\n      password: 'fallback-password'", " {}"),
    };
    (whole, format)
}

fn shared_cluster() -> Option<Vec<u16>> {
    let urls = std::env::var("LARDER_TEST_REDIS_CLUSTER_URLS").ok()?;
    Some(urls.split(',').map(|url| url.rsplit(':').next().unwrap().parse().unwrap()).collect())
}

#[tokio::test]
async fn a_cluster() {
    let Some(ports) = shared_cluster() else { return };
    let (text, format) = cluster(ports.get(..2).unwrap(), None);
    for text in [text.clone(), text.replace(" {}", ""), text.replace("    redisOptions: {}\n", "")] {
        let larder = open((text, format)).await;
        let stack = larder.default_stack().unwrap();
        works(stack).await;
        records(stack).await;
        larder.close().await.unwrap();
    }
}

/// Three nodes with a password, which one of them is given by itself, and the other one by the fallback.
#[tokio::test]
async fn a_cluster_with_passwords_of_its_own() {
    let args = ["--cluster-enabled", "yes", "--requirepass", "hunter2", "--masterauth", "hunter2"];
    let Some(first) = Server::start(&args) else { return };
    let nodes = [first, Server::start(&args).unwrap(), Server::start(&args).unwrap()];
    let ports: Vec<u16> = nodes.iter().map(|node| node.port).collect();
    let names: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let mut create = vec!["--no-auth-warning", "-a", "hunter2", "--cluster", "create"];
    create.extend(names.iter().map(String::as_str));
    create.push("--cluster-yes");
    let created = std::process::Command::new("redis-cli").args(&create).output().unwrap();
    assert!(created.status.success(), "{created:?}");

    let (text, format) = cluster(&ports, Some("hunter2"));
    let config = apart(&text, format);
    // The nodes agree on their slots a moment after the first one has them.
    let mut tries = 0;
    let larder = loop {
        match config.build(&Registry::compiled()).await {
            Ok(larder) => {
                let probe = larder.default_stack().unwrap().cache::<u8>().unwrap();
                let keys: Vec<String> = (0..50).map(|n| format!("probe {n}")).collect();
                match probe.get_many(&keys).await {
                    Ok(_) => break larder,
                    Err(error) => assert!(tries < 100, "{error}"),
                }
            }
            Err(error) => assert!(tries < 100 && !error.to_string().contains("hunter2"), "{error}"),
        }
        tries += 1;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };
    works(larder.default_stack().unwrap()).await;
    larder.close().await.unwrap();

    let wrong = text.replace("hunter2", "hunter3");
    let error = apart(&wrong, format).build(&Registry::compiled()).await.unwrap_err();
    assert!(!error.to_string().contains("hunter"), "{error}");
}

#[test]
fn its_blocks_mean_what_they_say() {
    let told = |text: &str| {
        let config = Config::parse(text, Format::Yaml, "e")?;
        let lines = config.explain(&Registry::compiled())?;
        let told = lines.iter().filter(|line| line.origin != larder::config::Origin::Default);
        Ok::<_, larder::Error>(told.map(|line| format!("{} {}", line.option, line.value)).collect::<Vec<_>>())
    };
    let (server, _) = example(PAGE, "server");
    assert_eq!(
        told(&server).unwrap(),
        ["l1 off", "ttl forever", "l2.driver redis", "l2.host localhost", "l2.port 6379"]
    );
    let (cluster, _) = cluster(&[7000, 7001], Some("hunter2"));
    assert_eq!(
        told(&cluster).unwrap(),
        [
            "l1 off",
            "ttl forever",
            "l2.driver redis",
            "l2.password ***",
            "l2.nodes[0].host 127.0.0.1",
            "l2.nodes[0].port 7000",
            "l2.nodes[0].password ***",
            "l2.nodes[1].host 127.0.0.1",
            "l2.nodes[1].port 7001",
            "l2.redirects_max 16",
        ]
    );
    // Nothing, in a node and as the fallback: the same as nothing said.
    let fallback = cluster.replace("password: hunter2", "password: null");
    assert_eq!(told(&fallback).unwrap().iter().filter(|line| line.contains("password")).count(), 1);
    let open = fallback.replace("password: 'hunter2'", "password: null");
    assert_eq!(told(&open).unwrap().iter().filter(|line| line.contains("password")).count(), 0);
    let ttl = server.replace("port: 6379", "ttl: 2");
    assert!(told(&ttl).unwrap().contains(&"ttl 2s".to_owned()));

    let with_other = cluster.replace("'hunter2'", "'hunter3'");
    for (text, said) in [
        // The page's words are no passwords: the first node has one of its own, the second one the fallback.
        (
            example(PAGE, "cluster").0.replace("<Number>", "7000"),
            "the passwords of nodes[0] and nodes[1] differ: ",
        ),
        (with_other, "the passwords of nodes[0] and nodes[1] differ: "),
        (cluster.replace("password: hunter2", "password: []"), "expected text, found a list"),
        (
            cluster.replace("- host: 127.0.0.1", "- hots: 127.0.0.1"),
            "unknown option \"hots\", did you mean \"host\"?",
        ),
        (
            cluster.replace("      - host: 127.0.0.1\n        port: 7001\n", "      - 5\n"),
            "nodes[1]: expected a map",
        ),
        (
            cluster.replace("maxRedirections: 16", "maxRedirections: 0"),
            "expected a whole number from 1 to 100",
        ),
        (server.replace("port: 6379", "maxRedirections: 16"), "only a cluster redirects"),
        (cluster.replace("    nodes:", "    host: h\n    nodes:"), "both say where"),
        (
            server.replace("localhost", "localhost\n    redisOptions: {keepAlive: 1}"),
            "unknown option \"keepAlive\"",
        ),
        (format!("{server}port: 6020\n"), "unknown setting \"port\""),
        (format!("{server}stacks: {{cache: {{}}}}\n"), "\"stacks\" has one too"),
        (server.replace("port: 6379", "ttl: soon"), "cache.options.ttl: expected a whole number"),
    ] {
        let error = told(&text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.message().contains(said), "{text}: {error}");
        assert!(!error.message().contains("hunter"), "{error}");
    }
}

/// What deepstream's connectors are tested for.
async fn records(stack: &Stack) {
    let records: Records<serde_json::Value> = Records::new(stack.cache().unwrap());
    let data = serde_json::json!({"name": "Ada", "n": [1, 2]});
    assert_eq!(records.get("a").await.unwrap(), None);
    assert_eq!(records.head("a").await.unwrap(), None);
    records.set("a", 0, data.clone()).await.unwrap();
    let found = records.get("a").await.unwrap().unwrap();
    assert_eq!((found.version, &found.data), (0, &data));

    // Several reads of one record at once each get their answer, and two writes one after the other both end.
    let (one, two, three) = tokio::join!(records.get("a"), records.get("a"), records.get("a"));
    assert!(
        [one, two, three].into_iter().all(|answer| answer.unwrap().is_some_and(|record| record.version == 0))
    );
    records.set("a", 5, data.clone()).await.unwrap();
    records.set("a", 4, serde_json::Value::Null).await.unwrap();
    let found = records.get("a").await.unwrap().unwrap();
    assert_eq!((found.version, &found.data), (4, &serde_json::Value::Null));

    records.set("a_v", 7, data.clone()).await.unwrap();
    assert_eq!(records.head_bulk(&["a_v", "missing", "a"]).await.unwrap(), [Some(7), None, Some(4)]);
    assert_eq!(records.head_bulk::<&str>(&[]).await.unwrap(), []);
    assert!(records.delete("a").await.unwrap() && !records.delete("a").await.unwrap());
    assert_eq!(records.head("a").await.unwrap(), None);
    assert_eq!(records.delete_bulk::<&str>(&[]).await.unwrap(), 0);
    assert_eq!(records.delete_bulk(&["a", "a_v"]).await.unwrap(), 1);

    assert_eq!(
        records.replace("a", Some(1), 2, data.clone()).await.unwrap(),
        Replaced::Refused { found: None }
    );
    assert!(records.replace("a", None, 1, data.clone()).await.unwrap().is_stored());
    let again = records.replace("a", None, 1, data.clone()).await.unwrap();
    assert_eq!(again, Replaced::Refused { found: Some(1) });
    assert!(records.replace("a", Some(1), 2, data.clone()).await.unwrap().is_stored());
    let late = records.replace("a", Some(1), 2, serde_json::Value::Null).await.unwrap();
    assert_eq!(late, Replaced::Refused { found: Some(2) });
    assert_eq!(records.get("a").await.unwrap().unwrap().data, data);

    // Of many who saw the same version, one writes the next.
    let mut winners = 0;
    for version in 2..12_u64 {
        let data = &data;
        let rivals = (0..8).map(|_| records.replace("a", Some(version), version + 1, data.clone()));
        let outcomes = futures_util::future::try_join_all(rivals).await.unwrap();
        winners += outcomes.iter().filter(|outcome| outcome.is_stored()).count();
    }
    assert_eq!((winners, records.head("a").await.unwrap()), (10, Some(12)));
    records.cache().clear().await.unwrap();
}

#[tokio::test]
async fn records_over_whatever_there_is() {
    let memory = || larder::memory::MemoryOptions::new(1_000);
    for stack in [
        Stack::builder("memory").memory(memory()).build().unwrap(),
        Stack::builder("store").store(MemoryDriver::default()).build().unwrap(),
        Stack::builder("both").memory(memory()).store(MemoryDriver::default()).build().unwrap(),
    ] {
        records(&stack).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_thousand_records_come_back_and_go_in_one_call() {
    let Some((host, port)) = server("LARDER_TEST_REDIS_URL") else { return };
    let port = port.to_string();
    let larder = open(with(PAGE, "server", &[("localhost", &host), ("6379", &port)])).await;
    let records: Records<u64> = Records::new(larder.default_stack().unwrap().cache().unwrap());
    let names: Arc<Vec<String>> = Arc::new((0..30_000).map(|n| format!("record {n}")).collect());
    let set = stream::iter(names.iter().enumerate()).map(|(n, name)| {
        let records = &records;
        async move { records.set(name, n as u64, n as u64 * 3).await }
    });
    set.buffer_unordered(512).try_collect::<()>().await.unwrap();
    let get = stream::iter(names.iter().enumerate()).map(|(n, name)| {
        let records = &records;
        async move { Ok::<_, larder::Error>((n as u64, records.get(name).await?)) }
    });
    let found: Vec<_> = get.buffer_unordered(512).try_collect().await.unwrap();
    assert!(found.iter().all(|(n, record)| {
        record.as_ref().is_some_and(|record| (record.version, record.data) == (*n, *n * 3))
    }));
    assert_eq!(records.delete_bulk(&names).await.unwrap(), 30_000);
    assert!(records.head_bulk(&names).await.unwrap().iter().all(Option::is_none));
    records.cache().clear().await.unwrap();
}

#[tokio::test]
async fn a_record_with_a_ttl_goes_as_a_whole() {
    let Some((host, port)) = server("LARDER_TEST_REDIS_URL") else { return };
    let put = format!("{port}\n    ttl: 1");
    let (text, format) = with(PAGE, "server", &[("localhost", &host), ("6379", &put)]);
    let cache = apart(&text, format).stacks.remove("cache").unwrap();
    let (stack, hands) = timed("cache", cache).await;
    let records: Records<u8> = Records::new(stack.cache().unwrap());
    records.set("a", 1, 1).await.unwrap();
    assert_eq!(records.head("a").await.unwrap(), Some(1));
    hands.advance(seconds(2));
    assert_eq!((records.head("a").await.unwrap(), records.get("a").await.unwrap()), (None, None));
    assert!(records.replace("a", None, 9, 9).await.unwrap().is_stored(), "what is over is no record");
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_none_and_is_not_buried() {
    let stack = Stack::builder("records").store(MemoryDriver::default()).build().unwrap();
    stack.cache::<String>().unwrap().set("a", "no record".to_owned()).await.unwrap();
    let records: Records<u8> = Records::new(stack.cache().unwrap());
    assert_eq!((records.get("a").await.unwrap(), records.head("a").await.unwrap()), (None, None));
    let error = records.replace("a", None, 1, 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Decode);
}
