//! What a server does wrong: it dies, hangs, is full, wants a password, keeps no versions, is not who it should be.

use std::time::Duration;

use larder::ErrorKind;
use larder::driver::memcached::{MemcachedDriver, MemcachedOptions};
use larder::driver::{Driver, When, Write, Written};
use larder::time::{Clock as _, Stamp, SystemClock, seconds};

use super::servers::{Server, answers};
use crate::certificate::{certificate, runs_openssl};
use crate::outage::{self, KILLED};
use crate::record::record;
use crate::server::free_port;

async fn error_of(options: MemcachedOptions) -> larder::Error {
    MemcachedDriver::connect(options).await.unwrap_err()
}

#[tokio::test]
async fn a_server_that_comes_back_is_used_again() {
    let Some(mut server) = Server::start(&[]) else { return };
    let driver = server.driver().await;
    outage::a_server_that_comes_back_is_used_again(&mut server, &driver, KILLED).await;
}

#[tokio::test]
async fn a_failure_that_nobody_waited_for_is_not_kept_for_the_next_call() {
    use futures_util::FutureExt as _;
    let Some(mut server) = Server::start(&[]) else { return };
    let driver = server.driver().await;
    server.kill();
    driver.get("k").await.unwrap_err();
    // The call is dropped before its attempt to connect has begun, and the attempt fails.
    assert!(driver.get("k").now_or_never().is_none());
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.restart();
    assert_eq!(driver.get("k").await.unwrap(), None);
}

// The connection's own tasks have to be able to run while the server is started again.
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
async fn a_server_that_hangs_is_left_for_a_new_connection() {
    let Some(server) = Server::start(&[]) else { return };
    let driver = server.driver().await;
    server.signal("-STOP");
    for _ in 0..3 {
        let begun = SystemClock::default();
        let error = driver.get("k").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert!(begun.monotonic() < Duration::from_millis(900), "{:?}", begun.monotonic());
    }
    // Callers with less patience than that still get a connection in the end.
    assert!(tokio::time::timeout(Duration::from_millis(5), driver.get("k")).await.is_err());
    server.signal("-CONT");
    let begun = SystemClock::default();
    while driver.get("k").await.is_err() {
        assert!(begun.monotonic() < seconds(2));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_answer_is_nobodys() {
    let Some(server) = Server::start(&[]) else { return };
    let driver = std::sync::Arc::new(server.driver().await);
    for key in ["a", "b", "c"] {
        driver.set(key, record(1, key), None, When::Always).await.unwrap();
    }
    for pause in [100, 290, 310, 600] {
        server.signal("-STOP");
        let asked: Vec<_> = (0..50)
            .map(|n| {
                let driver = driver.clone();
                let key = ["a", "b", "c"][n % 3];
                tokio::spawn(async move { (key, driver.get(key).await) })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(pause)).await;
        server.signal("-CONT");
        for asked in asked {
            match asked.await.unwrap() {
                (key, Ok(found)) => assert_eq!(found, Some(record(1, key))),
                (_, Err(error)) => {
                    assert!(error.kind().is_transient() && pause >= 290, "{pause} ms: {error}")
                }
            }
        }
        let begun = SystemClock::default();
        loop {
            match driver.get_many(&["c", "a", "b"]).await {
                Ok(found) => break assert_eq!(found, ["c", "a", "b"].map(|key| Some(record(1, key)))),
                Err(error) => assert!(error.kind().is_transient(), "{error}"),
            }
            assert!(begun.monotonic() < seconds(2));
        }
    }
}

#[tokio::test]
async fn a_full_server_says_so_and_still_answers() {
    let Some(server) = Server::start(&["-m", "1", "-I", "512k", "-M"]) else { return };
    let driver = server.driver().await;
    let large = "x".repeat(9_000);
    let mut full = None;
    for n in 1..10_000 {
        if let Err(error) = driver.set(&n.to_string(), record(1, &large), None, When::Newer).await {
            full = Some((n, error));
            break;
        }
    }
    let (n, error) = full.unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(
        error.message().contains("memory is full") && error.message().contains(&server.host()),
        "{error}"
    );
    for when in [When::Always, When::Unchanged(None)] {
        let error = driver.set(&n.to_string(), record(2, &large), None, when).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
    // The same connection still knows what belongs to what.
    assert_eq!(driver.get("1").await.unwrap(), Some(record(1, &large)));
    assert!(driver.delete("1").await.unwrap());
    assert_eq!(server.say(b"stats\r\n").matches("STAT total_connections 2").count(), 0, "this is one more");
}

#[tokio::test]
async fn a_small_server_evicts_and_nothing_is_mistaken() {
    let Some(server) = Server::start(&["-m", "1", "-I", "512k"]) else { return };
    let driver = server.driver().await;
    let value = |n: usize| record(1, &n.to_string().repeat(3_000));
    for n in 0..1_000 {
        driver.set(&n.to_string(), value(n), None, When::Newer).await.unwrap();
    }
    let mut found = 0;
    for n in 0..1_000 {
        if let Some(bytes) = driver.get(&n.to_string()).await.unwrap() {
            assert_eq!(bytes, value(n));
            found += 1;
        }
    }
    assert!(found > 10 && found < 1_000, "{found}");
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_it_costs_what_is_there() {
    let Some(server) = Server::start(&["-I", "512k"]) else { return };
    let driver = server.driver().await;
    let bytes_max = driver.capabilities().value_bytes_max.unwrap();
    assert_eq!(bytes_max, 512 * 1024 - 512, "as the server said");
    let of = |bytes: u64| record(2, &"x".repeat(usize::try_from(bytes).unwrap() - 40));
    for key in ["k".to_owned(), "k".repeat(250)] {
        driver.set(&key, of(bytes_max), None, When::Newer).await.unwrap();
        for when in [When::Always, When::Newer, When::Unchanged(None)] {
            let error = driver.set(&key, of(bytes_max + 1), None, when).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
        }
        assert_eq!(driver.get(&key).await.unwrap(), Some(of(bytes_max)), "it is still there");
    }
    // Somebody who says that the server takes more than it does.
    let mut options = server.options();
    options.value_bytes_max = Some(10_000_000);
    let driver = MemcachedDriver::connect(options).await.unwrap();
    let error = driver.set("l", of(1_000_000), None, When::Newer).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    assert_eq!(driver.get("l").await.unwrap(), None);
    driver.set("l", of(50_000), None, When::Newer).await.unwrap();
}

#[tokio::test]
async fn a_password_is_wanted_right_and_shown_to_nobody_else() {
    let users = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(users.path(), "cache:hunter2/@+\n").unwrap();
    let Some(server) = Server::start(&["-Y", &users.path().display().to_string()]) else { return };
    let error = error_of(server.options()).await;
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    for user in ["cache:hunter3", "nobody:hunter2%2F%40+", "cache:hunter2"] {
        let options = MemcachedOptions::new(&format!("memcached://{user}@{}", server.host())).unwrap();
        let error = error_of(options).await;
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(!format!("{error} {error:?}").contains("hunter"), "{error:?}");
        assert!(error.message().contains("password") && error.message().contains(&server.host()), "{error}");
    }
    let url = format!("memcached://cache:hunter2%2F%40+@{}", server.host());
    let driver = MemcachedDriver::connect(MemcachedOptions::new(&url).unwrap()).await.unwrap();
    assert!(!format!("{driver:?}").contains("hunter"), "{driver:?}");
    driver.set("k", record(1, "v"), None, When::Newer).await.unwrap();
    assert_eq!(driver.get("k").await.unwrap(), Some(record(1, "v")));

    // A server without users would keep it as the value of a key.
    let open = Server::start(&[]).unwrap();
    let url = format!("memcached://cache:hunter2@{}", open.host());
    MemcachedDriver::connect(MemcachedOptions::new(&url).unwrap()).await.unwrap();
    assert!(open.say(b"stats\r\n").contains("STAT curr_items 0\r\n"));
}

#[tokio::test]
async fn what_cannot_be_used_is_named_at_once() {
    let Some(server) = Server::start(&["-C"]) else { return };
    let error = error_of(server.options()).await;
    assert!(error.kind() == ErrorKind::Config && error.message().contains("-C"), "{error}");
    let error = error_of(MemcachedOptions::at("127.0.0.1", free_port())).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("nobody listens there"), "{error}");
    let error = error_of(MemcachedOptions::at("no-such-host.invalid", 11_211)).await;
    assert!(error.kind().is_transient(), "{error}");
}

#[tokio::test]
async fn a_dead_server_fails_its_keys_and_no_others() {
    let (Some(one), Some(mut two)) = (Server::start(&[]), Server::start(&[])) else { return };
    let both = {
        let mut options = one.options();
        options.servers.extend(two.options().servers);
        options
    };
    let options = || both.clone();
    let driver = MemcachedDriver::connect(options()).await.unwrap();
    let keys: Vec<String> = (0..100).map(|n| format!("k{n}")).collect();
    for key in &keys {
        driver.set(key, record(1, key), None, When::Newer).await.unwrap();
    }
    let on_one =
        one.say(b"stats\r\n").split("STAT curr_items ").nth(1).unwrap().split_once('\r').unwrap().0.parse();
    let on_one: usize = on_one.unwrap();
    assert!((20..80).contains(&on_one), "{on_one} of 100");
    two.kill();
    // A process that starts meanwhile finds what can be found.
    for driver in [driver, MemcachedDriver::connect(options()).await.unwrap()] {
        let mut found = 0;
        for key in &keys {
            match driver.get(key).await {
                Ok(value) => {
                    assert_eq!(value, Some(record(1, key)));
                    found += 1;
                }
                Err(error) => assert!(error.message().contains(&two.host()), "{error}"),
            }
            let written = driver.set(key, record(2, key), None, When::Newer).await;
            if let Ok(written) = written {
                assert!(matches!(written, Written::Stored { previous: Some(_) }));
                driver.set(key, record(1, key), None, When::Always).await.unwrap();
            }
        }
        assert_eq!(found, on_one);
        let all: Vec<&str> = keys.iter().map(String::as_str).collect();
        assert!(driver.get_many(&all).await.unwrap_err().kind().is_transient());
        assert!(driver.ping().await.unwrap_err().message().contains(&two.host()));
    }
    let items = one.say(b"stats\r\n");
    assert!(
        items.contains(&format!("STAT curr_items {on_one}\r\n")),
        "nothing went where it does not belong"
    );
    two.restart();
    let driver = MemcachedDriver::connect(options()).await.unwrap();
    let writes = keys.iter().map(|key| Write {
        key: key.clone(),
        value: record(3, key),
        ttl: None,
        when: When::Newer,
    });
    driver.set_many(writes.collect()).await.unwrap();
    driver.ping().await.unwrap();
}

#[tokio::test]
async fn what_other_programs_keep_there_is_no_error() {
    let Some(server) = Server::start(&[]) else { return };
    let driver = server.driver().await;
    server.say(b"set short 7 0 1\r\nx\r\nset empty 0 0 0\r\n\r\nms YmluYXJ5 1 b\r\nx\r\n");
    assert_eq!(driver.get("short").await.unwrap().unwrap(), "x");
    assert_eq!(
        driver.get("binary").await.unwrap().unwrap(),
        "x",
        "stored by a client that sends keys in base64"
    );
    let refused = driver.set("short", record(1, "v"), None, When::Unchanged(None)).await.unwrap();
    assert_eq!(refused, Written::Refused { by: None });
    let written = driver.set("empty", record(1, "v"), None, When::Newer).await.unwrap();
    assert_eq!(written, Written::Stored { previous: Some(bytes::Bytes::new()) });
    let swap = When::Unchanged(Some(Stamp::from_bits(1)));
    assert!(matches!(driver.set("empty", record(2, "w"), None, swap).await.unwrap(), Written::Stored { .. }));
    driver.set("binary", record(1, "v"), None, When::Newer).await.unwrap();
    assert_eq!(driver.get("binary").await.unwrap(), Some(record(1, "v")));
    server.say(b"flush_all\r\n");
    assert_eq!(driver.get("empty").await.unwrap(), None);
}

#[tokio::test]
async fn a_closed_driver_lets_go_of_its_own_client_only() {
    let Some(server) = Server::start(&[]) else { return };
    let driver = server.driver().await;
    let borrowed = MemcachedDriver::with_client(driver.client());
    borrowed.close().await.unwrap();
    assert_eq!(borrowed.get("k").await.unwrap_err().kind(), ErrorKind::Closed);
    driver.ping().await.unwrap();
    let client = driver.client();
    for _ in 0..2 {
        driver.close().await.unwrap();
        assert_eq!(driver.get("k").await.unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(client.get("k").await.unwrap_err().kind(), ErrorKind::Closed);
    }
}

#[tokio::test]
async fn a_runtime_that_ended_takes_its_connection_and_nothing_else() {
    let Some(server) = Server::start(&[]) else { return };
    let driver = std::sync::Arc::new(server.driver().await);
    let elsewhere = driver.clone();
    let fresh = MemcachedDriver::with_client(server.driver().await.client());
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            elsewhere.set("k", record(1, "v"), None, When::Always).await.unwrap();
            fresh.set("l", record(1, "v"), None, When::Always).await.unwrap();
        });
        fresh
    });
    let fresh = tokio::task::spawn_blocking(|| thread.join().unwrap()).await.unwrap();
    assert_eq!(driver.get("k").await.unwrap(), Some(record(1, "v")));
    assert_eq!(fresh.get("l").await.unwrap(), Some(record(1, "v")));
}

#[tokio::test]
async fn a_unix_socket_will_do() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("memcached.sock");
    let there = socket.clone();
    let Some(_server) = Server::start_with(&["-s", &socket.display().to_string()], move |_| there.exists())
    else {
        return;
    };
    let options = MemcachedOptions::new(&format!("memcached+unix://{}", socket.display())).unwrap();
    let driver = MemcachedDriver::connect(options).await.unwrap();
    driver.set("k", record(1, "v"), None, When::Newer).await.unwrap();
    assert_eq!(driver.get("k").await.unwrap(), Some(record(1, "v")));
}

#[tokio::test]
async fn tls_verifies_the_server_and_may_show_a_certificate() {
    if !super::servers::is_installed() || !runs_openssl() {
        println!("NOT TESTED: TLS, for lack of memcached or openssl");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (cert, key) = certificate(directory.path(), "server", "IP:127.0.0.1,DNS:cache.internal");
    let (stranger, stranger_key) = certificate(directory.path(), "stranger", "IP:127.0.0.1");
    let (chain_option, key_option) =
        (format!("ssl_chain_cert={}", cert.display()), format!("ssl_key={}", key.display()));
    let server = Server::start_with(&["-Z", "-o", &chain_option, "-o", &key_option], |port| {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    })
    .unwrap();
    let mut options = MemcachedOptions::new(&format!("memcacheds://127.0.0.1:{}", server.port)).unwrap();
    let error = error_of(options.clone()).await;
    assert!(
        error.kind() == ErrorKind::Config && error.to_string().contains("certificate"),
        "nobody's: {error}"
    );
    options.ca_file = Some(stranger.clone());
    let error = error_of(options.clone()).await;
    assert!(
        error.kind() == ErrorKind::Config && error.to_string().contains("certificate"),
        "another's: {error}"
    );
    for file in ["missing.crt", "server.key"] {
        options.ca_file = Some(directory.path().join(file));
        let error = error_of(options.clone()).await;
        assert!(error.kind() == ErrorKind::Config && error.message().contains(file), "{error}");
    }
    let mut named = MemcachedOptions::new(&format!("memcacheds://localhost:{}", server.port)).unwrap();
    named.ca_file = Some(cert.clone());
    let error = error_of(named).await;
    assert!(
        error.kind() == ErrorKind::Config && error.to_string().contains("certificate"),
        "wrong name: {error}"
    );

    options.ca_file = Some(cert.clone());
    let driver = MemcachedDriver::connect(options.clone()).await.unwrap();
    let large = "x".repeat(500_000);
    driver.set("k", record(1, &large), None, When::Newer).await.unwrap();
    assert_eq!(driver.get("k").await.unwrap(), Some(record(1, &large)));

    // TLS where none is spoken, and the other way round.
    let plain = Server::start(&[]).unwrap();
    let mut wrong = MemcachedOptions::new(&format!("memcacheds://{}", plain.host())).unwrap();
    wrong.ca_file = Some(cert.clone());
    assert!(error_of(wrong).await.kind().is_transient());
    assert!(error_of(server.options()).await.kind().is_transient());

    let ca_option = format!("ssl_ca_cert={}", stranger.display());
    let strict = ["-Z", "-o", &chain_option, "-o", &key_option, "-o", "ssl_verify_mode=2", "-o", &ca_option];
    let strict =
        Server::start_with(&strict, |port| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())
            .unwrap();
    let mut options = MemcachedOptions::new(&format!("memcacheds://127.0.0.1:{}", strict.port)).unwrap();
    options.ca_file = Some(cert);
    assert!(MemcachedDriver::connect(options.clone()).await.is_err(), "the server wants a certificate");
    options.cert_file = Some(stranger);
    options.key_file = Some(key);
    assert_eq!(error_of(options.clone()).await.kind(), ErrorKind::Config, "a key of another certificate");
    options.key_file = Some(stranger_key);
    let driver = MemcachedDriver::connect(options).await.unwrap();
    driver.ping().await.unwrap();
    assert!(answers(plain.port));
}
