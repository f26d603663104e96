//! What answers is no memcached, or one that gives answers to other questions: never a wrong value, never a hang.
//! The peer is a script, for what no server does on purpose.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use larder::driver::memcached::{MemcachedDriver, MemcachedOptions};
use larder::driver::{Driver, When};
use larder::time::{Clock as _, SystemClock};

use crate::record::record;

/// A peer that greets as memcached does, and then answers each line as it is told to.
fn peer(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> MemcachedOptions {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, answer) = (stream.unwrap(), Arc::clone(&answer));
            std::thread::spawn(move || {
                let lines = BufReader::new(stream.try_clone().unwrap());
                for line in lines.split(b'\n') {
                    let Ok(line) = line else { return };
                    let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                    let said = match line.as_str() {
                        "version" => b"VERSION 1.6.18\r\n".to_vec(),
                        "mn" => b"MN\r\n".to_vec(),
                        "stats settings" => b"END\r\n".to_vec(),
                        line => answer(line),
                    };
                    if stream.write_all(&said).is_err() {
                        return;
                    }
                }
            });
        }
    });
    let mut options = MemcachedOptions::at("127.0.0.1", port);
    options.connect_timeout = Duration::from_millis(300);
    options.response_timeout = Duration::from_millis(300);
    options
}

/// The number that a command asks to be said back.
fn number(line: &str) -> u64 {
    line.rsplit_once(" O").unwrap().1.parse().unwrap()
}

fn key(line: &str) -> &str {
    line.split(' ').nth(1).unwrap()
}

#[tokio::test]
async fn a_wrong_answer_is_never_a_value() {
    type Answer = fn(&str) -> Vec<u8>;
    let wrong: [(&str, Answer); 14] = [
        ("another key's value", |line| format!("VA 5 kother O{}\r\nOTHER\r\n", number(line)).into()),
        ("a shorter key's value", |line| format!("VA 5 kmin O{}\r\nOTHER\r\n", number(line)).into()),
        ("the last call's answer", |line| {
            format!("VA 5 k{} O{}\r\nOTHER\r\n", key(line), number(line) + 1).into()
        }),
        ("no number", |line| format!("VA 5 k{}\r\nOTHER\r\n", key(line)).into()),
        ("no key", |line| format!("VA 5 O{}\r\nOTHER\r\n", number(line)).into()),
        ("a block that is too long", |line| {
            format!("VA 3 k{} O{}\r\nOTHER\r\n", key(line), number(line)).into()
        }),
        ("two answers", |line| format!("EN\r\nVA 5 k{} O{}\r\nOTHER\r\n", key(line), number(line)).into()),
        ("a classic answer", |line| format!("VALUE {} 0 5\r\nOTHER\r\nEND\r\n", key(line)).into()),
        ("an answer to a write", |line| format!("HD k{} O{}\r\n", key(line), number(line)).into()),
        ("a negative length", |line| format!("VA -1 k{} O{}\r\n\r\n", key(line), number(line)).into()),
        ("a length of all there is", |line| {
            format!("VA 18446744073709551615 k{} O{}\r\nOTHER\r\n", key(line), number(line)).into()
        }),
        ("a line without an end", |_| vec![b'V'; 100_000]),
        ("bytes", |_| (0..=255).collect()),
        ("nothing", |_| Vec::new()),
    ];
    for (name, answer) in wrong {
        let driver = MemcachedDriver::connect(peer(answer)).await.unwrap();
        let begun = SystemClock::default();
        for _ in 0..3 {
            if let Ok(found) = driver.get("mine").await {
                assert!(found.is_none() && name == "two answers", "{name}: {found:?}");
            }
            if let Ok(found) = driver.get_many(&["mine", "yours"]).await {
                panic!("{name}: {found:?}");
            }
            driver.set("mine", record(1, "v"), None, When::Newer).await.unwrap_err();
            driver.delete("mine").await.map(|there| assert!(there && name == "an answer to a write")).ok();
        }
        assert!(begun.monotonic() < Duration::from_secs(8), "{name}");
    }
}

#[tokio::test]
async fn a_promised_gigabyte_that_does_not_come_is_an_error() {
    let options =
        peer(|line| format!("VA 1073741824 k{} O{}\r\nand no more", key(line), number(line)).into());
    let driver = MemcachedDriver::connect(options).await.unwrap();
    for _ in 0..5 {
        assert!(driver.get("mine").await.unwrap_err().kind().is_transient());
    }
}

#[tokio::test]
async fn a_peer_that_drips_holds_nobody_up() {
    let dripping = Arc::new(AtomicBool::new(true));
    let told = Arc::clone(&dripping);
    let options = peer(move |line| {
        if told.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(450));
        }
        format!("VA 4 k{} O{}\r\nMINE\r\n", key(line), number(line)).into()
    });
    let driver = MemcachedDriver::connect(options).await.unwrap();
    for _ in 0..4 {
        let begun = SystemClock::default();
        assert!(driver.get("mine").await.is_err_and(|error| error.kind().is_transient()));
        assert!(begun.monotonic() < Duration::from_millis(700), "{:?}", begun.monotonic());
    }
    dripping.store(false, Ordering::Relaxed);
    let begun = SystemClock::default();
    while driver.get("mine").await.ok().flatten().is_none_or(|found| found != "MINE") {
        assert!(begun.monotonic() < Duration::from_secs(2));
    }
}

#[tokio::test]
async fn refusals_in_words_are_told_and_the_connection_goes_on() {
    let options = peer(|line| match (line.split(' ').next(), key(line)) {
        (Some("mg"), "odd") => b"SERVER_ERROR out of memory writing get response\r\n".to_vec(),
        (Some("mg"), "bad") => b"CLIENT_ERROR bad command line format\r\n".to_vec(),
        (Some("mg"), "gone") => b"ERROR\r\n".to_vec(),
        (Some("mg"), key) => format!("VA 4 k{key} O{}\r\nMINE\r\n", number(line)).into(),
        _ => Vec::new(),
    });
    let driver = MemcachedDriver::connect(options).await.unwrap();
    let (odd, bad, mine) = futures_util::join!(driver.get("odd"), driver.get("bad"), driver.get("mine"));
    assert_eq!(odd.unwrap_err().kind(), larder::ErrorKind::Unavailable);
    assert_eq!(bad.unwrap_err().kind(), larder::ErrorKind::Unsupported);
    assert_eq!(mine.unwrap().unwrap(), "MINE");
    let (gone, after) = futures_util::join!(driver.get("gone"), driver.get("mine"));
    assert_eq!(gone.unwrap_err().kind(), larder::ErrorKind::Unsupported);
    // What an unknown command leaves behind is not known: whatever was on the way behind it is lost with it.
    assert!(after.is_err());
    assert_eq!(driver.get("mine").await.unwrap().unwrap(), "MINE");
}
