//! The contract of Beignet's Redis provider, call by call, as its page gives it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder::config::{Config, Registry};
use larder::driver::redis::{RedisDriver, RedisOptions, client};
use larder::event::{Event, Observer};
use larder::explain::Fact;
use larder::time::seconds;
use larder::{Cache, ErrorKind, Stack, explain};

use super::{random, timed};
use crate::redis::servers::Server;
use crate::server::free_port;

const REDIS: &str = "LARDER_TEST_REDIS_URL";

/// The provider over these variables.
async fn provider(variables: &[(&str, &str)]) -> larder::Result<Stack> {
    let lookup = |name: &str| variables.iter().find(|pair| pair.0 == name).map(|pair| pair.1.to_owned());
    Config::from_beignet(lookup)?.build(&random("beignet"), &Registry::compiled()).await
}

async fn shared() -> Option<Stack> {
    let url = std::env::var(REDIS).ok()?;
    Some(provider(&[("REDIS_URL", &url)]).await.unwrap())
}

#[tokio::test]
async fn get_set_delete_and_has() {
    let Some(stack) = shared().await else { return };
    super::works(&stack).await;
    let cache: Cache<String> = stack.cache().unwrap();
    assert_eq!(cache.get("my-key").await.unwrap(), None);
    cache.set("key", "value".to_owned()).await.unwrap();
    assert_eq!(cache.get("key").await.unwrap().unwrap().as_str(), "value");
    assert!(cache.has("key").await.unwrap());
    assert!(cache.delete("key").await.unwrap() && !cache.delete("key").await.unwrap());
    assert!(!cache.has("key").await.unwrap());
}

#[tokio::test]
async fn without_a_ttl_forever_and_with_one_not_and_the_other_way_round() {
    let Some(stack) = shared().await else { return };
    let cache: Cache<String> = stack.cache().unwrap();
    let ttl_left = async || cache.entry("key").await.unwrap().unwrap().ttl_left;
    cache.set("key", "value".to_owned()).ttl(seconds(3600)).await.unwrap();
    let left = ttl_left().await.unwrap();
    assert!(left <= seconds(3600) && left > seconds(3500), "{left:?}");
    cache.set("key", "value".to_owned()).await.unwrap();
    assert_eq!(ttl_left().await, None, "what had an end has none any more");
    // The server itself knows of none either.
    let mut raw = client::Client::open(std::env::var(REDIS).unwrap())
        .unwrap()
        .get_multiplexed_async_connection()
        .await
        .unwrap();
    let full = format!("{}:1::key", stack.name());
    let at_server: i64 = client::cmd("TTL").arg(&full).query_async(&mut raw).await.unwrap();
    assert_eq!(at_server, -1);

    let config = Config::from_beignet(|name| std::env::var(REDIS).ok().filter(|_| name == "REDIS_URL"));
    let (timed, hands) = timed(stack.name(), config.unwrap()).await;
    let timed: Cache<String> = timed.cache().unwrap();
    timed.set("key", "value".to_owned()).ttl(seconds(1)).await.unwrap();
    assert!(timed.has("key").await.unwrap());
    hands.advance(seconds(1));
    assert_eq!(timed.get("key").await.unwrap(), None);
    cache.set("key", "value".to_owned()).ttl(seconds(0)).await.unwrap();
    assert!(!cache.has("key").await.unwrap(), "zero is not forever");
    // client.expire("key", 300)
    cache.set("key", "value".to_owned()).await.unwrap();
    assert!(cache.touch("key", seconds(300)).await.unwrap());
    assert!(ttl_left().await.unwrap() <= seconds(300));
}

#[tokio::test]
async fn a_failure_is_remembered_by_nobody_and_a_value_is() {
    let Some(stack) = shared().await else { return };
    let cache: Cache<String> = stack.cache().unwrap();
    let calls = Arc::new(AtomicU32::new(0));
    let factory = |fails: bool| {
        let calls = Arc::clone(&calls);
        move || async move {
            calls.fetch_add(1, Ordering::SeqCst);
            if fails { Err(std::io::Error::other("the database is down")) } else { Ok("computed".to_owned()) }
        }
    };
    let error = cache.get_or_set("my-key", factory(true)).ttl(seconds(300)).await.unwrap_err();
    assert_eq!(error.load_error::<std::io::Error>().unwrap().to_string(), "the database is down");
    assert!(!cache.has("my-key").await.unwrap());
    let value = cache.get_or_set("my-key", factory(false)).ttl(seconds(300)).await.unwrap();
    assert_eq!((value.as_str(), calls.load(Ordering::SeqCst)), ("computed", 2));
    let left = cache.entry("my-key").await.unwrap().unwrap().ttl_left.unwrap();
    assert!(left <= seconds(300) && left > seconds(250), "{left:?}");
    let value = cache.get_or_set("my-key", factory(true)).ttl(seconds(300)).await.unwrap();
    assert_eq!((value.as_str(), calls.load(Ordering::SeqCst)), ("computed", 2));
    // An empty text is a value, not a miss.
    cache.set("empty", String::new()).await.unwrap();
    assert_eq!(cache.get_or_set("empty", factory(false)).await.unwrap().as_str(), "");
}

#[tokio::test]
async fn a_missing_variable_and_a_server_that_is_not_there_are_errors_at_the_start() {
    for variables in [&[][..], &[("REDIS_URL", " ")][..], &[("REDIS_DB", "0")][..]] {
        let error = provider(variables).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert_eq!(
            error.message(),
            "REDIS_URL is not set: it says where Redis is, as in redis://localhost:6379"
        );
    }
    let url = format!("redis://:hunter2@127.0.0.1:{}", free_port());
    let error = provider(&[("REDIS_URL", &url)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let text = format!("{error:?} {error}");
    assert!(text.contains("REDIS_URL: cannot open the store") && !text.contains("hunter2"), "{text}");
    for (variables, said) in [
        (&[("REDIS_URL", "memory:hunter2")][..], "REDIS_URL: redis URL: expected redis://HOST:PORT/DB"),
        (&[("REDIS_URL", "hunter2@localhost")][..], "REDIS_URL: a store has to begin with its driver"),
        (&[("REDIS_URL", "redis://:hu?nter2@h")][..], "REDIS_URL: an \"@\" stands behind a \"?\""),
        (&[("REDIS_URL", "redis://:hu?nter2=x@h")][..], "REDIS_URL: an \"@\" stands behind a \"?\""),
        (
            &[("REDIS_URL", "redis://h"), ("REDIS_DB", "one")][..],
            "REDIS_DB: expected the number of a database",
        ),
        (
            &[("REDIS_URL", "redis://h/1"), ("REDIS_DB", "2")][..],
            "REDIS_URL: the URL and the options both say",
        ),
    ] {
        let error = provider(variables).await.unwrap_err();
        assert!(
            error.kind() == ErrorKind::Config && error.message().starts_with(said),
            "{variables:?}: {error}"
        );
        assert!(!error.to_string().contains("nter2"), "{error}");
    }
}

#[tokio::test]
async fn it_ends_gracefully_and_later_calls_fail() {
    let Some(stack) = shared().await else { return };
    let cache: Cache<String> = stack.cache().unwrap();
    let slow = || async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        Ok::<_, std::io::Error>("late".to_owned())
    };
    let (other, again) = (cache.clone(), stack.clone());
    let under_way = tokio::spawn(async move { other.get_or_set("slow", slow).ttl(seconds(60)).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    stack.close().await.unwrap();
    assert_eq!(under_way.await.unwrap().unwrap().as_str(), "late");
    assert_eq!(cache.get("slow").await.unwrap_err().kind(), ErrorKind::Closed);
    again.close().await.unwrap();
}

#[tokio::test]
async fn the_number_of_the_database_selects_it() {
    let Some(server) = Server::start(&[]) else { return };
    let stack = provider(&[("REDIS_URL", &server.url()), ("REDIS_DB", "3")]).await.unwrap();
    stack.cache::<String>().unwrap().set("key", "value".to_owned()).await.unwrap();
    for (db, keys) in [(0, 0), (3, 1)] {
        let url = format!("{}/{db}", server.url());
        let mut raw = client::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
        let size: u32 = client::cmd("DBSIZE").query_async(&mut raw).await.unwrap();
        assert_eq!(size, keys, "{db}");
    }
}

#[tokio::test]
async fn the_client_is_reachable() {
    let Ok(url) = std::env::var(REDIS) else { return };
    let redis = Arc::new(RedisDriver::connect(RedisOptions::new(&url).unwrap()).await.unwrap());
    let store: Arc<dyn larder::driver::Driver> = redis.clone();
    let stack = Stack::builder("app").prefix(random("client")).store(store).build().unwrap();
    stack.cache::<String>().unwrap().set("key", "value".to_owned()).await.unwrap();
    let mut connection = redis.connection().await.unwrap();
    let counter = random("counter");
    let incr = client::cmd("INCR").arg(&counter).query_async::<u64>(&mut connection).await.unwrap();
    assert_eq!(incr, 1);
    let expire = client::cmd("EXPIRE").arg(&counter).arg(300).query_async::<u64>(&mut connection).await;
    assert_eq!(expire.unwrap(), 1);
}

/// Every event as a line, as a devtool would show it.
#[derive(Debug, Default)]
struct Watcher(Mutex<Vec<String>>);

impl Observer for Watcher {
    fn on_event(&self, _: &str, event: &Event<'_>) {
        let more = match event {
            Event::Written { ttl: Some(ttl), .. } => format!(" for {} s", ttl.as_secs()),
            Event::Written { ttl: None, .. } => " forever".to_owned(),
            Event::Deleted { existed, .. } => format!(" {existed}"),
            _ => String::new(),
        };
        let line = format!("{} {}{more}", event.name(), event.key().unwrap_or_default());
        self.0.lock().unwrap().push(line);
    }
}

#[tokio::test]
async fn every_operation_is_recorded_without_its_value() {
    let Ok(url) = std::env::var(REDIS) else { return };
    let config = Config::from_beignet(|name| (name == "REDIS_URL").then(|| url.clone())).unwrap();
    let mut whole = Config::default();
    whole.stacks.insert(random("watched"), config);
    let watcher = Arc::new(Watcher::default());
    let observed = Arc::clone(&watcher);
    let larder = whole
        .build_with(&Registry::compiled(), move |_, builder| builder.observer(Arc::clone(&observed) as _))
        .await
        .unwrap();
    let cache: Cache<String> = larder.default_stack().unwrap().cache().unwrap();
    let secret = || "hunter2".to_owned();

    // One account for each operation: the key, what came of it, the TTL, and how long it took.
    let mut accounts = Vec::new();
    accounts.push(explain(cache.get("k")).await.1);
    accounts.push(explain(cache.set("k", secret()).ttl(seconds(3600))).await.1);
    accounts.push(explain(cache.set("f", secret())).await.1);
    accounts.push(explain(cache.get("k")).await.1);
    accounts.push(explain(cache.has("k")).await.1);
    let load = move || async move { Ok::<_, std::io::Error>(secret()) };
    accounts.push(explain(cache.get_or_set("r", load).ttl(seconds(300))).await.1);
    accounts.push(explain(cache.get_or_set("r", load).ttl(seconds(300))).await.1);
    accounts.push(explain(cache.delete("k")).await.1);
    accounts.push(explain(cache.delete("k")).await.1);
    let said = [
        "miss",
        "written: fresh for 1 h 0 m",
        "written: fresh forever",
        "hit, from the store",
        "store: fresh, with",
        "written: fresh for 5 m 0 s",
        "hit, from the store",
        "deleted: there was one",
        "deleted: there was none",
    ];
    for ((account, said), key) in accounts.iter().zip(said).zip(["k", "k", "f", "k", "k", "r", "r", "k", "k"])
    {
        let text = account.to_string();
        assert!(text.contains(said), "{said}: {text}");
        assert!(!text.contains("hunter2"), "{text}");
        assert!(account.steps.iter().any(|step| step.key.as_deref() == Some(key)), "{text}");
        assert!(account.took > Duration::ZERO);
        let timed = |fact: &Fact| matches!(fact, Fact::Called { took, .. } if *took > Duration::ZERO && *took <= account.took);
        assert!(account.steps.iter().any(|step| timed(&step.what)), "{text}");
    }

    // And an event of each to whoever observes, once.
    let heard = watcher.0.lock().unwrap().clone();
    assert_eq!(
        heard,
        [
            "miss k",
            "written k for 3600 s",
            "written f forever",
            "hit k",
            "loaded r",
            "written r for 300 s",
            "miss r",
            "hit r",
            "deleted k true",
            "deleted k false",
        ]
    );
}
