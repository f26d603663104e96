//! What the memcached driver adds to the least client that does the same, as a ratio, both in one run.
//!
//! `LARDER_TEST_MEMCACHED_URLS=memcached://localhost cargo bench -p larder --bench memcached` prints one line for each
//! call and number of tasks: microseconds a call, and how many times that is what the least client takes for the same
//! commands over one connection to the same server, the first of those named. That client has a task that writes and
//! one that reads, as the driver does; it checks nothing, gives up on nothing and survives nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing test or benchmark ends in a panic"
)]

mod beside;

use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::future::FutureExt as _;
use larder::driver::memcached::{MemcachedDriver, MemcachedOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use beside::{Call, Plan, VALUE_BYTES, call, hundred, stamp, value};

const PLAN: Plan = Plan { keys: 1_000, rounds: 21, calls: 4_000, tasks: &[1, 16, 128] };

fn main() {
    let Ok(urls) = std::env::var("LARDER_TEST_MEMCACHED_URLS") else {
        println!("LARDER_TEST_MEMCACHED_URLS is not set: nothing to measure");
        return;
    };
    beside::block_on(run(urls.split(',').next().unwrap()));
}

async fn run(url: &str) {
    let driver = Arc::new(MemcachedDriver::connect(MemcachedOptions::new(url).unwrap()).await.unwrap());
    let bare = Bare::connect(url.rsplit('/').next().unwrap()).await;
    beside::compare(driver, &PLAN, async |keys| bare_calls(&bare, keys)).await;
}

/// The least client: commands go out in the order in which they come, answers come back in the same.
#[derive(Clone)]
struct Bare(mpsc::Sender<(Vec<u8>, usize, oneshot::Sender<Vec<Answer>>)>);

/// The code of an answer, the version of an item, and its value.
type Answer = ([u8; 2], u64, Bytes);

impl Bare {
    async fn connect(host: &str) -> Self {
        let stream = TcpStream::connect(host).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (mut reads, mut writes) = stream.into_split();
        let (queue, mut calls) = mpsc::channel::<(Vec<u8>, usize, oneshot::Sender<Vec<Answer>>)>(1_024);
        let (waiting, mut waits) = mpsc::unbounded_channel::<(usize, oneshot::Sender<Vec<Answer>>)>();
        tokio::spawn(async move {
            let (mut taken, mut out) = (Vec::new(), Vec::new());
            while calls.recv_many(&mut taken, 256).await > 0 {
                for (commands, count, answer) in taken.drain(..) {
                    out.extend_from_slice(&commands);
                    waiting.send((count, answer)).unwrap();
                }
                writes.write_all(&out).await.unwrap();
                out.clear();
            }
        });
        tokio::spawn(async move {
            let mut buffer = BytesMut::with_capacity(64 * 1024);
            while let Some((count, answer)) = waits.recv().await {
                let mut answers = Vec::with_capacity(count);
                while answers.len() < count {
                    if let Some(found) = parse(&mut buffer) {
                        answers.push(found);
                        continue;
                    }
                    buffer.reserve(64 * 1024);
                    assert!(reads.read_buf(&mut buffer).await.unwrap() > 0);
                }
                let _ = answer.send(answers);
            }
        });
        Self(queue)
    }

    async fn call(&self, commands: Vec<u8>, count: usize) -> Vec<Answer> {
        let (answer, answers) = oneshot::channel();
        self.0.send((commands, count, answer)).await.unwrap();
        answers.await.unwrap()
    }

    /// As the driver does it: look and try, then swap what was found.
    async fn set_if_newer(&self, key: &str, value: &[u8]) {
        let store = |flags: &str| {
            let mut command = format!("ms {key} {} T540{flags}\r\n", value.len()).into_bytes();
            command.extend_from_slice(value);
            command.extend_from_slice(b"\r\n");
            command
        };
        let mut commands = format!("mg {key} v c\r\n").into_bytes();
        commands.extend(store(" ME"));
        let answers = self.call(commands, 2).await;
        let (_, version, found) = &answers[0];
        if &answers[1].0 == b"NS" && found[4..12] < value[4..12] {
            self.call(store(&format!(" C{version}")), 1).await;
        }
    }
}

fn parse(buffer: &mut BytesMut) -> Option<Answer> {
    let end = buffer.iter().position(|&byte| byte == b'\n')?;
    let code = [buffer[0], buffer[1]];
    if &code != b"VA" {
        buffer.advance(end + 1);
        return Some((code, 0, Bytes::new()));
    }
    let line = std::str::from_utf8(&buffer[3..end - 1]).unwrap();
    let mut words = line.split(' ');
    let length: usize = words.next().unwrap().parse().unwrap();
    let version = words.next().map_or(0, |version| version[1..].parse().unwrap());
    if buffer.len() < end + 1 + length + 2 {
        return None;
    }
    let value = Bytes::copy_from_slice(&buffer[end + 1..end + 1 + length]);
    buffer.advance(end + 1 + length + 2);
    Some((code, version, value))
}

fn bare_calls(bare: &Bare, keys: &Arc<Vec<String>>) -> [Call; 3] {
    [
        call(bare, keys, |bare, keys, n| {
            async move {
                let command = format!("mg {} v\r\n", keys[n % keys.len()]).into_bytes();
                assert_eq!(bare.call(command, 1).await[0].2.len(), VALUE_BYTES);
            }
            .boxed()
        }),
        call(bare, keys, |bare, keys, n| {
            async move { bare.set_if_newer(&keys[n % keys.len()], &value(stamp())).await }.boxed()
        }),
        call(bare, keys, |bare, keys, n| {
            async move {
                let mut commands = Vec::with_capacity(4_096);
                for key in hundred(&keys, n) {
                    commands.extend_from_slice(b"mg ");
                    commands.extend_from_slice(key.as_bytes());
                    commands.extend_from_slice(b" v\r\n");
                }
                assert_eq!(bare.call(commands, 100).await.len(), 100);
            }
            .boxed()
        }),
    ]
}
