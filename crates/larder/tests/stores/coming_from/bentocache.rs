//! Each example of BentoCache's page on drivers.

use larder::config::{Config, Format, Registry};
use larder::driver::redis::{RedisConnection, RedisDriver, client};
use larder::{Larder, Stack};

use super::{example, open, random, server, with, works};

const PAGE: &str = include_str!("../../../../../docs/coming-from/bentocache.md");
const REDIS: &str = "LARDER_TEST_REDIS_URL";

/// Opens an example, uses its default store, and closes it.
async fn run(name: &str, put: &[(&str, &str)], stack: &str, driver: &str) {
    let larder = open(with(PAGE, name, put)).await;
    let opened = larder.default_stack().unwrap();
    assert_eq!(opened.name(), stack);
    assert_eq!(opened.store().map(|store| store.name()), (!driver.is_empty()).then_some(driver));
    works(opened).await;
    larder.close().await.unwrap();
}

#[tokio::test]
async fn redis() {
    let Some((host, port)) = server(REDIS) else { return };
    let (host, port) = (host.as_str(), port.to_string());
    run("redis", &[("127.0.0.1", host), ("6379", &port)], "redis", "redis").await;
    run("redis-json", &[("127.0.0.1", host), ("6379", &port)], "redis", "redis").await;
}

#[tokio::test]
async fn redis_by_a_url() {
    let shown = "rediss://default:password@example.upstash.io:6379/0";
    // What a provider of such a URL gives is understood as it is.
    let (text, format) = example(PAGE, "redis-url");
    let lines = Config::parse(&text, format, "e").unwrap().explain(&Registry::compiled()).unwrap();
    let url = lines.iter().find(|line| line.option == "l2.url").unwrap();
    assert_eq!(url.value, "//***@example.upstash.io:6379/0");
    assert!(lines.iter().all(|line| !line.value.contains("password")));

    if let Ok(url) = std::env::var(REDIS) {
        run("redis-url", &[(shown, &format!("{url}/0"))], "redis", "redis").await;
    }
    let tls =
        std::env::var("LARDER_TEST_REDIS_TLS_URL").ok().zip(std::env::var("LARDER_TEST_REDIS_TLS_CA").ok());
    if let Some((url, ca)) = tls {
        let connection = format!("{url}/0\n        ca_file: {ca}");
        run("redis-url", &[(shown, &connection)], "redis", "redis").await;
    }
}

#[tokio::test]
async fn redis_cluster() {
    let Ok(urls) = std::env::var("LARDER_TEST_REDIS_CLUSTER_URLS") else { return };
    let hosts: Vec<&str> = urls.split(',').map(|url| url.rsplit('/').next().unwrap()).collect();
    run("redis-cluster", &[("127.0.0.1:7000,127.0.0.1:7001", &hosts.join(","))], "redis", "redis").await;
}

#[tokio::test]
async fn redis_with_a_connection_of_ones_own() {
    let Ok(url) = std::env::var(REDIS) else { return };
    let mut redis = client::Client::open(url).unwrap().get_connection_manager().await.unwrap();
    let store = RedisDriver::with_client(RedisConnection::from(redis.clone()));
    let stack = Stack::builder("redis").prefix(random("own")).store(store).build().unwrap();
    let bento = Larder::new([stack]).unwrap();
    works(bento.default_stack().unwrap()).await;
    bento.close().await.unwrap();
    // It is still open.
    let pong: String = client::cmd("PING").query_async(&mut redis).await.unwrap();
    assert_eq!(pong, "PONG");
}

#[tokio::test]
async fn filesystem() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    run("file", &[("./cache", cache.to_str().unwrap())], "file", "file").await;
    assert!(cache.is_dir());
}

#[test]
fn filesystem_as_its_page_writes_it_has_no_such_default() {
    let text = "{default: file, stores: {redis: {l1: false, l2: {file: {directory: ./cache}}}}}";
    let error = Config::parse(text, Format::Yaml, "e").unwrap_err();
    assert_eq!(error.message(), "e:1:11: default: there is no stack \"file\" (known: redis)");
}

#[tokio::test]
async fn memory() {
    run("memory", &[], "memory", "").await;
    run("memory", &[("10485760 # or 10mb", "10mb")], "memory", "").await;
    let (text, format) =
        with(PAGE, "memory", &[("10485760", "1mb"), ("maxItems: 1000", "maxEntrySize: 1kb")]);
    let larder = open((text, format)).await;
    let stack = larder.default_stack().unwrap();
    let cache = stack.cache::<String>().unwrap();
    for (bytes, kept) in [(100, true), (2_000, false)] {
        cache.set("k", "x".repeat(bytes)).await.unwrap();
        assert_eq!(cache.has("k").await.unwrap(), kept, "{bytes}");
    }
    for n in 0..5_000 {
        cache.set(&n.to_string(), "x".repeat(500)).await.unwrap();
    }
    assert!(stack.memory_usage().unwrap().bytes <= 1 << 20);
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn better_sqlite3_and_sqlite3() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cache.sqlite3");
    for driver in ["sqlite:", "sqlite3:"] {
        let put = [
            ("filename: cache.sqlite3", format!("filename: {}", file.display())),
            ("sqlite:\n        conn", format!("{driver}\n        conn")),
        ];
        let put: Vec<(&str, &str)> = put.iter().map(|(old, new)| (*old, new.as_str())).collect();
        run("sqlite", &put, "sqlite", "sqlite").await;
    }
    assert!(file.is_file());
}

/// Runs an example over a database: its document names no host, which is this machine.
#[cfg(any(feature = "postgres", feature = "mysql"))]
async fn database(name: &str, variable: &str, put: &[(&str, &str)], stack: &str) {
    let Some((_, port)) = server(variable) else { return };
    let (port, table) = (format!("port: {port}"), format!("tableName: {}", random("bento")));
    let given = if name == "postgres" { "port: 5432" } else { "port: 3306" };
    let mut all = vec![(given, port.as_str())];
    all.extend_from_slice(put);
    match name {
        "postgres" => all.push(("tableName: bentocache", &table)),
        _ => all.push(("        connection:", "        tableName: TABLE\n        connection:")),
    }
    let (text, format) = with(PAGE, name, &all);
    let larder = open((text.replace("tableName: TABLE", &table), format)).await;
    let opened = larder.default_stack().unwrap();
    assert_eq!((opened.name(), opened.store().unwrap().name()), (stack, name));
    works(opened).await;
    larder.close().await.unwrap();
    // To close at once, and twice, harms nobody.
    larder.close().await.unwrap();
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn postgresql() {
    database("postgres", "LARDER_TEST_POSTGRES_URL", &[("user: root", "user: larder")], "pg").await;
}

#[cfg(feature = "mysql")]
#[tokio::test]
async fn mysql() {
    let put = [
        ("user: root", "user: larder"),
        ("password: root", "password: larder"),
        ("database: mysql", "database: larder"),
    ];
    database("mysql", "LARDER_TEST_MYSQL_URL", &put, "mysql").await;
}

#[cfg(feature = "dynamodb")]
#[tokio::test]
async fn dynamodb() {
    let Ok(endpoint) = std::env::var("LARDER_TEST_DYNAMODB_ENDPOINT") else { return };
    let table = format!("name: {}", random("bento"));
    let endpoint = format!("endpoint: {endpoint}");
    // The table has to be there, as the page says; nobody has made this one.
    let made = "region: eu-west-3\n        create_table: true";
    let put = [
        ("endpoint: '...'", endpoint.as_str()),
        ("region: eu-west-3", made),
        ("name: cache", &table),
        ("accessKeyId: '...'", "accessKeyId: id"),
        ("secretAccessKey: '...'", "secretAccessKey: hunter2"),
    ];
    run("dynamodb", &put, "dynamo", "dynamodb").await;
}

#[test]
fn the_options_that_all_stores_have_are_understood() {
    let text = "
default: users
stores:
  users: {prefix: app, ttl: 5m, grace: 6h, graceBackoff: 5s, timeout: 0, hardTimeout: 10s, suppressL2Errors: false}
  pages: {ttl: null, grace: false}
";
    let config = Config::parse(text, Format::Yaml, "e").unwrap();
    let lines = config.explain(&Registry::compiled()).unwrap();
    let told = |stack: &str, option: &str| {
        lines.iter().find(|line| line.stack == stack && line.option == option).unwrap().value.clone()
    };
    for (option, value) in
        [("ttl", "5m"), ("grace", "6h"), ("backoff", "5s"), ("soft_timeout", "0"), ("hard_timeout", "10s")]
    {
        assert_eq!(told("users", option), value, "{option}");
    }
    assert_eq!((told("pages", "ttl"), told("pages", "grace")), ("forever".to_owned(), "0".to_owned()));
    let error_of = |text: &str| Config::parse(text, Format::Yaml, "e").unwrap_err();
    let error = error_of(&text.replace("ttl: 5m", "ttl: 300000"));
    assert!(error.message().starts_with("e:4:29: stacks.users.ttl: 300000 has no unit"), "{error}");
    let error = error_of(&text.replace("default: users", "default: user"));
    let said = "there is no stack \"user\", did you mean \"users\"? (known: pages, users)";
    assert_eq!(error.message(), format!("e:2:10: default: {said}"));
    let error = error_of("{stores: {a: {}}, stacks: {b: {}}}");
    assert_eq!(error.message(), "e:1:2: \"stores\" and \"stacks\" are the same option, given twice");
    let error = error_of("default: {ttl: 5m}");
    assert_eq!(error.message(), "e:1:10: default: expected text, found a map");
}
