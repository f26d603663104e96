//! Each example of the page of beego's cache module, and what its own tests check of every adapter.

use larder::config::{Config, Registry, Setting, StackConfig, new_cache};
use larder::driver::memory::MemoryDriver;
use larder::driver::redis::client;
use larder::time::{Ttl, hours, seconds};
use larder::{ErrorKind, Stack};

use super::{example, random, server, timed, with, works};
use crate::redis::servers::Server;

const PAGE: &str = include_str!("../../../../../docs/coming-from/beego.md");

/// The calls of beego's interface, as its tests make them of each adapter.
async fn calls(bm: &Stack) {
    let numbers = bm.cache::<i64>().unwrap();
    numbers.set("astaxie", 1).ttl(seconds(10)).await.unwrap();
    assert_eq!(numbers.get("astaxie").await.unwrap().as_deref(), Some(&1));
    assert!(numbers.has("astaxie").await.unwrap());
    assert!(numbers.delete("astaxie").await.unwrap() && !numbers.delete("astaxie").await.unwrap());
    assert!(!numbers.has("astaxie").await.unwrap());

    // Counters: atomic, whatever the store, and what there is keeps its TTL.
    numbers.set("n", 0).ttl(seconds(100)).await.unwrap();
    let counts = (0..10).map(|_| async { numbers.increment("n", 1).await.unwrap() });
    futures_util::future::join_all(counts).await;
    assert_eq!(numbers.get("n").await.unwrap().as_deref(), Some(&10));
    assert_eq!(numbers.decrement("n", 1).await.unwrap(), 9);
    let left = numbers.entry("n").await.unwrap().unwrap().ttl_left.unwrap();
    assert!(left <= seconds(100) && left > seconds(60), "{left:?}");
    assert_eq!(numbers.increment("new", 1).await.unwrap(), 1);
    assert_eq!(numbers.increment("other", 1).existing().await.unwrap_err().kind(), ErrorKind::Counter);
    macro_rules! rounds {
        ($($integer:ty),*) => {$({
            let numbers = bm.cache::<$integer>().unwrap();
            numbers.set("m", <$integer>::MAX - 1).await.unwrap();
            assert_eq!(numbers.increment("m", 1).await.unwrap(), <$integer>::MAX);
            assert_eq!(numbers.increment("m", 1).await.unwrap_err().kind(), ErrorKind::Counter);
            assert_eq!(numbers.get("m").await.unwrap().as_deref(), Some(&<$integer>::MAX));
            numbers.set("m", <$integer>::MIN + 1).await.unwrap();
            assert_eq!(numbers.decrement("m", 1).await.unwrap(), <$integer>::MIN);
            assert_eq!(numbers.decrement("m", 1).await.unwrap_err().kind(), ErrorKind::Counter);
        })*};
    }
    rounds!(i32, i64, u32, u64);

    let texts = bm.cache::<String>().unwrap();
    texts.set("1", "author".to_owned()).ttl(seconds(10)).await.unwrap();
    texts.set("2", "author1".to_owned()).ttl(seconds(10)).await.unwrap();
    let found = texts.get_many(&["1", "3", "2"]).await.unwrap();
    let found: Vec<Option<&str>> = found.iter().map(|value| value.as_deref().map(String::as_str)).collect();
    assert_eq!(found, [Some("author"), None, Some("author1")]);
    // A text is no number, and stays what it is.
    assert!(numbers.increment("1", 1).await.is_err());
    assert_eq!(texts.get("1").await.unwrap().unwrap().as_str(), "author");

    let many = (0..100).map(|n| (n.to_string(), n.to_string()));
    texts.set_many(many).await.unwrap();
    texts.clear().await.unwrap();
    for key in ["0", "99", "n", "1"] {
        assert!(!texts.has(key).await.unwrap(), "{key}");
    }
}

/// What was put for some time is gone after it, be it of less than a second or of more than 30 days.
async fn expires(stack: StackConfig) {
    let (bm, hands) = timed("bm", stack).await;
    let cache = bm.cache::<u8>().unwrap();
    cache.set("short", 1).ttl(std::time::Duration::from_millis(300)).await.unwrap();
    cache.set("long", 1).ttl(hours(24 * 31)).await.unwrap();
    cache.set("forever", 1).await.unwrap();
    assert!(cache.has("short").await.unwrap());
    hands.advance(std::time::Duration::from_millis(400));
    assert!(!cache.has("short").await.unwrap() && cache.get("short").await.unwrap().is_none());
    assert!(cache.has("long").await.unwrap() && cache.has("forever").await.unwrap());
    hands.advance(hours(24 * 30));
    assert!(cache.has("long").await.unwrap());
    hands.advance(hours(48));
    assert!(!cache.has("long").await.unwrap());
    assert_eq!(cache.entry("forever").await.unwrap().unwrap().ttl_left, None);
    cache.clear().await.unwrap();
}

/// Opens a cache and does with it what can be done.
async fn used(name: &str, json: &str) -> Stack {
    let bm = new_cache(name, json).await.unwrap();
    works(&bm).await;
    calls(&bm).await;
    expires(Config::from_beego(name, json).unwrap()).await;
    bm
}

#[tokio::test]
async fn memory() {
    let (json, _) = example(PAGE, "memory");
    let one = used("memory", &json).await;
    // Each call makes a cache of its own.
    let two = new_cache("memory", &json).await.unwrap();
    one.cache::<u8>().unwrap().set("k", 1).await.unwrap();
    assert!(!two.cache::<u8>().unwrap().has("k").await.unwrap());
}

#[tokio::test]
async fn file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache");
    let (json, _) = with(PAGE, "file", &[("./cache", path.to_str().unwrap())]);
    let stack = Config::from_beego("file", &json).unwrap();
    assert_eq!(stack.ttl.unwrap().value, Ttl::For(seconds(120)), "EmbedExpiry");

    let bm = new_cache("file", &json).await.unwrap();
    works(&bm).await;
    calls(&bm).await;
    let cache = bm.cache::<u8>().unwrap();
    cache.set("k", 1).await.unwrap();
    let kept = glob(&path, ".cache");
    assert!(
        !kept.is_empty()
            && kept.iter().all(|file| file.components().count() == path.components().count() + 3)
    );
    // What is not the cache's stays where it is.
    std::fs::write(path.join("neighbour.txt"), "x").unwrap();
    cache.clear().await.unwrap();
    assert!(path.join("neighbour.txt").is_file() && !cache.has("k").await.unwrap());

    let (json, _) = with(PAGE, "file", &[("./cache", path.to_str().unwrap()), ("120", "\"0\"")]);
    expires(Config::from_beego("file", &json).unwrap()).await;
}

/// The files below a folder whose names end so.
fn glob(folder: &std::path::Path, suffix: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(glob(&path, suffix));
        } else if path.to_string_lossy().ends_with(suffix) {
            found.push(path);
        }
    }
    found
}

#[test]
fn file_mistakes_are_said() {
    for (json, said) in [
        ("{", "beego's file cache:"),
        (r#"{"DirectoryLevel":"x"}"#, "DirectoryLevel: expected a whole number"),
        (r#"{"EmbedExpiry":"soon"}"#, "EmbedExpiry: expected a whole number"),
        (r#"{"CachPath":"x"}"#, "did you mean \"CachePath\"?"),
    ] {
        let error = Config::from_beego("file", json).unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.message().contains(said), "{json}: {error}");
    }
    Config::from_beego("file", "{}").unwrap();
}

#[tokio::test]
async fn redis() {
    let Some(server) = Server::start(&["--requirepass", "thePassWord"]) else { return };
    let port = format!(":{}", server.port);
    let (json, _) = with(PAGE, "redis", &[(":6039", &port)]);
    let bm = used("redis", &json).await;

    // Neighbours in the same database, one of whom begins as the cache does.
    let address = format!("redis://:thePassWord@127.0.0.1:{}", server.port);
    let mut raw =
        client::Client::open(address.as_str()).unwrap().get_multiplexed_async_connection().await.unwrap();
    for key in ["collectionName", "collectionName:1", "collectionNames:1:k", "other"] {
        client::cmd("SET").arg(key).arg("x").query_async::<()>(&mut raw).await.unwrap();
    }
    let (json_of_neighbour, _) =
        with(PAGE, "redis", &[(":6039", &port), ("collectionName", "collectionName2")]);
    let neighbour = new_cache("redis", &json_of_neighbour).await.unwrap().cache::<u8>().unwrap();
    neighbour.set("k", 1).await.unwrap();
    let cache = bm.cache::<String>().unwrap();
    cache.set_many((0..100).map(|n| (n.to_string(), n.to_string()))).await.unwrap();
    assert_eq!(cache.clear().await.unwrap(), 100);
    assert!(neighbour.has("k").await.unwrap());
    let left: Vec<String> = client::cmd("KEYS").arg("*").query_async(&mut raw).await.unwrap();
    for key in ["collectionName", "collectionName:1", "collectionNames:1:k", "other"] {
        assert!(left.iter().any(|left| left == key), "{key} of {left:?}");
    }

    // The other ways to say where, and in which database.
    for (conn, rest) in [
        (format!("127.0.0.1{port}"), r#","password":"thePassWord","dbNum":3,"maxIdle":"3","timeout":"180s""#),
        (format!("redis://thePassWord@127.0.0.1{port}"), r#","dbNum":"3","skipEmptyPrefix":"true","key":"""#),
        (format!("redis://default:thePassWord@127.0.0.1{port}"), r#","dbNum":3,"maxIdle":5"#),
    ] {
        let bm = new_cache("redis", &format!("{{\"conn\":\"{conn}\"{rest}}}")).await.unwrap();
        let cache = bm.cache::<u8>().unwrap();
        cache.set(&conn, 1).await.unwrap();
    }
    client::cmd("SELECT").arg(3).query_async::<()>(&mut raw).await.unwrap();
    let keys: Vec<String> = client::cmd("KEYS").arg("beecacheRedis:*").query_async(&mut raw).await.unwrap();
    assert_eq!(keys.len(), 3, "{keys:?}");

    let (wrong, _) = with(PAGE, "redis", &[(":6039", &port), ("thePassWord", "hunter2")]);
    let error = new_cache("redis", &wrong).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Config && !error.to_string().contains("hunter2"), "{error}");
}

#[tokio::test]
async fn redis_on_a_server_without_a_password() {
    let Some((host, port)) = server("LARDER_TEST_REDIS_URL") else { return };
    let (key, conn) = (random("bee"), format!("{host}:{port}"));
    let put = [("collectionName", key.as_str()), (":6039", &conn), (r#","password":"thePassWord""#, "")];
    let (json, _) = with(PAGE, "redis", &put);
    used("redis", &json).await;
}

#[test]
fn redis_mistakes_are_said_and_no_password_with_them() {
    for (json, said) in [
        ("{}", "beego's redis cache:1:1: the option \"conn\" is missing: it says where the server is"),
        (r#"{"con":":6039"}"#, "beego's redis cache:1:2: unknown option \"con\", did you mean \"conn\"?"),
        (r#"{"conn":":0"}"#, "conn: expected HOST:PORT, or :PORT on this machine"),
        (r#"{"conn":"redis://hunter2@h:x"}"#, "redis URL: what follows \":\" is no port"),
        (r#"{"conn":"redis://hunter2@h","password":"hunter3"}"#, "the URL and the options both say as whom"),
        (r#"{"conn":":1","dbNum":"x"}"#, "dbNum: expected a whole number from 0 to 2147483647, found \"x\""),
        (r#"{"conn":":1","timeout":"soon"}"#, "timeout: \"soon\" "),
        (r#"{"conn":":1","maxIdle":"x"}"#, "maxIdle: expected a whole number"),
        (r#"{"conn":":1","password":5}"#, "password: expected text, found a number"),
    ] {
        let stack = Config::from_beego("redis", json);
        let checked = stack.and_then(|stack| stack.check("bm", &Registry::compiled()));
        let error = checked.expect_err(json);
        assert!(error.message().contains(said), "{json}: {error}");
        assert!(!error.message().contains("hunter"), "{error}");
    }
    let shown = Config::from_beego("redis", r#"{"conn":"redis://hunter2@h:1"}"#).unwrap();
    assert_eq!(shown.l2.unwrap().to_string(), "redis://***@h:1");
}

#[tokio::test]
async fn ssdb_is_refused() {
    for error in [
        Config::from_beego("ssdb", r#"{"conn":"127.0.0.1:8888"}"#).unwrap_err(),
        new_cache("ssdb", r#"{"conn":"127.0.0.1:8888"}"#).await.unwrap_err(),
    ] {
        assert!(
            error.message().starts_with("beego: cannot take over beego's adapter \"ssdb\" (known: "),
            "{error}"
        );
        assert!(error.message().contains("file, memcache, "), "{error}");
    }
    let error = new_cache("memry", "{}").await.unwrap_err();
    assert!(error.message().contains("did you mean \"memory\"?"), "{error}");
}

#[tokio::test]
async fn a_provider_of_ones_own() {
    let registry = Registry::compiled().driver("myowncache", &[], |options| {
        let interval = options.integer("interval", 0..=3600)?;
        Ok(async move { interval.map(|_| MemoryDriver::default()).ok_or_else(|| unreachable!()) })
    });
    let (json, _) = example(PAGE, "memory");
    let bm = registry.new_cache("myowncache", &json).await.unwrap();
    works(&bm).await;
    calls(&bm).await;
    let error = registry.new_cache("myowncache", r#"{"intervall":60}"#).await.unwrap_err();
    assert_eq!(
        error.message(),
        "beego's myowncache cache:1:2: unknown option \"intervall\", did you mean \"interval\"? (known: interval)"
    );
    // Beego's own adapters are what they are in every registry.
    assert!(registry.new_cache("memory", &json).await.is_ok());
    assert!(new_cache("myowncache", &json).await.is_err(), "a registry is a value");
}

#[cfg(feature = "memcached")]
#[tokio::test]
async fn memcache() {
    let Ok(urls) = std::env::var("LARDER_TEST_MEMCACHED_URLS") else { return };
    let servers: Vec<&str> = urls.split(',').map(|url| url.rsplit('/').next().unwrap()).collect();
    for conn in [servers.first().unwrap().to_string(), servers.join(";")] {
        let (json, _) = with(PAGE, "memcache", &[("127.0.0.1:11211", &conn)]);
        // There is no name in this document that two tests could differ in.
        let mut stack = Config::from_beego("memcache", &json).unwrap();
        stack.prefix = Some(Setting::named(random("bee"), "the test"));
        let bm = stack.build("memcache", &Registry::compiled()).await.unwrap();
        works(&bm).await;
        calls(&bm).await;
        expires(stack).await;
        bm.close().await.unwrap();
        new_cache("memcache", &json).await.unwrap().ping().await.unwrap();
    }
}

#[test]
fn memcache_mistakes_are_said() {
    for (json, said) in [
        ("{}", "beego's memcache cache:1:1: the option \"conn\" is missing: it says where the server is"),
        (r#"{"conn":" ; "}"#, "conn: expected HOST:PORT, with \";\" between servers"),
        (r#"{"conn":5}"#, "conn: expected text (put it in quotes), found 5"),
    ] {
        let error = Config::from_beego("memcache", json).unwrap_err();
        assert!(error.message().contains(said), "{json}: {error}");
    }
}
