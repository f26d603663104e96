//! What a server does wrong: it dies, is full, is a replica, is slow, forgets scripts, wants another password.

use std::time::Duration;

use bytes::Bytes;
use larder::ErrorKind;
use larder::driver::redis::{RedisDriver, RedisOptions, client};
use larder::driver::{Driver, When, Written};
use larder::time::{Clock as _, Stamp, SystemClock, seconds};

use super::servers::Server;
use crate::outage::{self, KILLED, Outage};
use crate::record::record;
use crate::server::free_port;

pub(super) async fn error_of(options: RedisOptions) -> larder::Error {
    RedisDriver::connect(options).await.unwrap_err()
}

#[tokio::test]
async fn a_server_that_comes_back_is_used_again() {
    let Some(mut server) = Server::start(&[]) else { return };
    let driver = server.driver().await;
    // The client's words for a connection that broke do not say to whom.
    let outage = Outage { names_the_server: false, ..KILLED };
    outage::a_server_that_comes_back_is_used_again(&mut server, &driver, outage).await;
}

// The connection's own task has to be able to run while the server is started again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_between_two_calls_fails_none() {
    let Some(mut server) = Server::start(&[]) else { return };
    let driver = server.driver().await;
    for _ in 0..5 {
        driver.set("k", record(1, "v"), None, When::Always).await.unwrap();
        server.restart();
        assert_eq!(driver.get("k").await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_used_is_named_at_once() {
    let Some(server) = Server::start(&["--requirepass", "hunter2"]) else { return };
    let error = error_of(server.options()).await;
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    for url in ["redis://:hunter3@", "redis://default:hunter3@", "redis://nobody:hunter2@"] {
        let error = error_of(RedisOptions::new(&format!("{url}127.0.0.1:{}", server.port)).unwrap()).await;
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(!format!("{error} {error:?}").contains("hunter"), "{error:?}");
        assert!(error.message().contains(&format!("***@127.0.0.1:{}", server.port)), "{error}");
        assert!(error.message().contains("password"), "{error}");
    }
    let mut options = RedisOptions::new(&format!("redis://:hunter2@127.0.0.1:{}", server.port)).unwrap();
    let driver = RedisDriver::connect(options.clone()).await.unwrap();
    assert!(!format!("{driver:?}").contains("hunter"), "{driver:?}");
    options.db = 99;
    let error = error_of(options).await;
    assert!(!error.kind().is_transient(), "{error}");

    let error = error_of(RedisOptions::at("127.0.0.1", free_port())).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("nobody listens there"), "{error}");
    let error = error_of(RedisOptions::at("no-such-host.invalid", 6379)).await;
    assert!(error.kind().is_transient(), "{error}");
}

#[tokio::test]
async fn a_full_server_says_so_and_still_answers() {
    let Some(server) = Server::start(&["--maxmemory-policy", "noeviction"]) else { return };
    let driver = server.driver().await;
    driver.set("k", record(1, "v"), None, When::Always).await.unwrap();
    server.say(&["CONFIG", "SET", "maxmemory", "1"]).await;
    for when in [When::Always, When::Newer, When::Unchanged(Some(Stamp::from_bits(1)))] {
        let error = driver.set("k", record(2, "w"), None, when).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.message().contains("memory is full"), "{error}");
    }
    assert_eq!(driver.get("k").await.unwrap(), Some(record(1, "v")));
    assert!(driver.delete("k").await.unwrap());
}

#[tokio::test]
async fn a_replica_refuses_writes_and_says_why() {
    let Some(primary) = Server::start(&[]) else { return };
    primary.driver().await.set("k", record(1, "v"), None, When::Always).await.unwrap();
    let replica = Server::start(&[
        "--replicaof",
        &format!("127.0.0.1 {}", primary.port),
        "--repl-diskless-load",
        "swapdb",
    ])
    .unwrap();
    let driver = replica.driver().await;
    let begun = SystemClock::default();
    while driver.get("k").await.ok().flatten().is_none() {
        assert!(begun.monotonic() < seconds(20), "the replica did not follow");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let error = driver.set("k", record(2, "w"), None, When::Newer).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("is a replica"), "{error}");
    assert_eq!(driver.delete("k").await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(driver.get("k").await.unwrap(), Some(record(1, "v")));
}

#[tokio::test]
async fn a_late_answer_is_nobodys() {
    let Some(server) = Server::start(&[]) else { return };
    let mut options = server.options();
    options.response_timeout = Duration::from_millis(200);
    let owned = RedisDriver::connect(options).await.unwrap();
    let client = client::Client::open(server.url()).unwrap();
    let config = client::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_millis(200)));
    let connection = client.get_multiplexed_async_connection_with_config(&config).await.unwrap();
    // This one stays on its connection, where the late answers do arrive.
    let borrowed = RedisDriver::with_client(connection);
    for driver in [owned, borrowed] {
        for key in ["a", "b", "c"] {
            driver.set(key, record(1, key), None, When::Always).await.unwrap();
        }
        for _ in 0..3 {
            server.say(&["CLIENT", "PAUSE", "600", "ALL"]).await;
            let error = driver.get("a").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
            let begun = SystemClock::default();
            loop {
                match driver.get("b").await {
                    Ok(found) => break assert_eq!(found, Some(record(1, "b"))),
                    Err(error) => assert!(error.kind().is_transient(), "{error}"),
                }
                assert!(begun.monotonic() < seconds(5));
            }
            let found = driver.get_many(&["c", "a", "b"]).await.unwrap();
            assert_eq!(found, ["c", "a", "b"].map(|key| Some(record(1, key))));
        }
    }
}

#[tokio::test]
async fn a_server_that_hangs_is_left_for_a_new_connection() {
    let Some(server) = Server::start(&[]) else { return };
    let mut options = server.options();
    options.response_timeout = Duration::from_millis(200);
    options.connect_timeout = Duration::from_millis(200);
    let driver = RedisDriver::connect(options).await.unwrap();
    server.signal("-STOP");
    for _ in 0..3 {
        let begun = SystemClock::default();
        assert!(driver.get("k").await.unwrap_err().kind().is_transient());
        assert!(begun.monotonic() < Duration::from_millis(900), "{:?}", begun.monotonic());
    }
    // Callers with less patience than that still get a connection in the end.
    let hurried = tokio::time::timeout(Duration::from_millis(5), driver.get("k")).await;
    assert!(hurried.is_err());
    server.signal("-CONT");
    let begun = SystemClock::default();
    while driver.get("k").await.is_err() {
        assert!(begun.monotonic() < seconds(2));
    }
}

#[tokio::test]
async fn scripts_that_the_server_forgot_are_sent_again() {
    let Some(server) = Server::start(&[]) else { return };
    let driver = server.driver().await;
    for stamp in 1..10 {
        let written = driver.set("k", record(stamp, "v"), None, When::Newer).await.unwrap();
        assert!(matches!(written, Written::Stored { .. }));
        server.say(&["SCRIPT", "FLUSH"]).await;
        let write = larder::driver::Write {
            key: "l".to_owned(),
            value: record(stamp, "v"),
            ttl: None,
            when: When::Newer,
        };
        let written = driver.set_many(vec![write.clone(), write]).await.unwrap();
        assert!(matches!(written[..], [Written::Stored { .. }, Written::Refused { .. }]), "{written:?}");
        server.say(&["SCRIPT", "FLUSH"]).await;
        assert_eq!(driver.clear("l", Stamp::from_bits(stamp - 1)).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_user_with_few_rights_is_enough_and_one_with_fewer_is_told() {
    let rules = "user cache on >hunter2 ~app:* -@all +hello +get +mget +getrange +exists +set +unlink +scan \
                 +eval +evalsha +ping +client|setinfo";
    let Some(server) = Server::start(&[]) else { return };
    server.say(&["ACL", "SETUSER", "cache", "on", ">hunter2", "~app:*", "-@all"]).await;
    let granted = rules.split_whitespace().filter(|word| word.starts_with('+') && !word.contains('|'));
    for right in granted {
        server.say(&["ACL", "SETUSER", "cache", right]).await;
    }
    let options = RedisOptions::new(&format!("redis://cache:hunter2@127.0.0.1:{}", server.port)).unwrap();
    let driver = RedisDriver::connect(options).await.unwrap();
    driver.set("app:k", record(1, "v"), Some(seconds(9)), When::Newer).await.unwrap();
    assert_eq!(driver.get("app:k").await.unwrap(), Some(record(1, "v")));
    assert_eq!(driver.clear("app:", Stamp::from_bits(1)).await.unwrap(), 1);
    let error = driver.set("other:k", record(1, "secret"), None, When::Newer).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    server.say(&["ACL", "SETUSER", "cache", "-evalsha"]).await;
    let error = driver.set("app:k", record(1, "secret"), None, When::Newer).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.message().contains("evalsha") && !error.to_string().contains("secret"), "{error}");
}

#[tokio::test]
async fn what_other_programs_keep_there_is_no_error() {
    let Some(server) = Server::start(&[]) else { return };
    let driver = server.driver().await;
    server.say(&["RPUSH", "app:list", "x"]).await;
    server.say(&["SET", "app:short", "x"]).await;
    server.say(&["SET", "app:empty", ""]).await;
    assert_eq!(driver.get("app:list").await.unwrap(), None);
    assert_eq!(driver.get("app:short").await.unwrap().unwrap(), "x");
    let listed: Vec<_> = futures_util::TryStreamExt::try_collect(driver.scan("app:")).await.unwrap();
    assert_eq!(listed.len(), 3, "{listed:?}");
    let refused = driver.set("app:list", record(1, "v"), None, When::Unchanged(None)).await.unwrap();
    assert_eq!(refused, Written::Refused { by: None });
    let written = driver.set("app:empty", record(1, "v"), None, When::Newer).await.unwrap();
    assert_eq!(written, Written::Stored { previous: Some(Bytes::new()) });
    driver.set("app:list", record(1, "v"), None, When::Newer).await.unwrap();
    assert_eq!(driver.get("app:list").await.unwrap(), Some(record(1, "v")));
    server.say(&["HSET", "app:hash", "x", "y"]).await;
    assert_eq!(driver.clear("app:", Stamp::from_bits(0)).await.unwrap(), 2, "the hash and the short one");
}

#[tokio::test]
async fn a_closed_driver_lets_go_of_its_own_connection_only() {
    let Some(server) = Server::start(&[]) else { return };
    let driver = server.driver().await;
    let connection = driver.connection().await.unwrap();
    let borrowed = RedisDriver::with_client(connection.clone());
    for closed in [&borrowed, &driver] {
        closed.close().await.unwrap();
        closed.close().await.unwrap();
        assert_eq!(closed.get("k").await.unwrap_err().kind(), ErrorKind::Closed);
    }
    let again = RedisDriver::with_client(connection);
    again.ping().await.unwrap();
}

#[tokio::test]
async fn a_unix_socket_will_do() {
    let Some(server) = Server::start(&["--unixsocket", "redis.sock"]) else { return };
    let socket = server.directory.path().join("redis.sock");
    let options = RedisOptions::new(&format!("redis+unix://{}", socket.display())).unwrap();
    let driver = RedisDriver::connect(options).await.unwrap();
    driver.set("k", record(1, "v"), None, When::Newer).await.unwrap();
    assert_eq!(driver.get("k").await.unwrap(), Some(record(1, "v")));
}
