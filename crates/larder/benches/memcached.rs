//! What the memcached driver adds to the least client that does the same, as a ratio, both in one run.
//!
//! `LARDER_TEST_MEMCACHED_URLS=memcached://localhost cargo bench -p larder --bench memcached` prints one line for each
//! call and number of tasks: microseconds a call, and how many times that is what the least client takes for the same
//! commands over one connection to the same server, the first of those named. That client has a task that writes and
//! one that reads, as the driver does; it checks nothing, gives up on nothing and survives nothing. Values have 1 KiB.
//! Rounds alternate, so that a busy moment meets both; the ratio is the median of the rounds' ratios.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing test or benchmark ends in a panic"
)]

use std::sync::Arc;
use std::time::Instant;

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::future::{BoxFuture, FutureExt as _, join_all};
use larder::driver::memcached::{MemcachedDriver, MemcachedOptions};
use larder::driver::{Driver, When};
use larder::time::minutes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

const KEYS: usize = 1_000;
const ROUNDS: usize = 21;
const CALLS_PER_ROUND: usize = 4_000;

type Ours = fn(Arc<MemcachedDriver>, Arc<Vec<String>>, usize) -> BoxFuture<'static, ()>;
type Call = Arc<dyn Fn(usize) -> BoxFuture<'static, ()> + Send + Sync>;

fn main() {
    let Ok(urls) = std::env::var("LARDER_TEST_MEMCACHED_URLS") else {
        println!("LARDER_TEST_MEMCACHED_URLS is not set: nothing to measure");
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(run(urls.split(',').next().unwrap()));
}

async fn run(url: &str) {
    let driver = Arc::new(MemcachedDriver::connect(MemcachedOptions::new(url).unwrap()).await.unwrap());
    let bare = Bare::connect(url.rsplit('/').next().unwrap()).await;
    let keys: Arc<Vec<String>> = Arc::new((0..KEYS).map(|n| format!("larder-bench:{n:09}")).collect());
    for key in keys.iter() {
        driver.set(key, value(1), None, When::Always).await.unwrap();
    }
    println!("{:<34} {:>6} {:>10} {:>10} {:>8}", "1 KiB values", "tasks", "µs", "bare µs", "ratio");
    for (name, ours, theirs) in contenders(&driver, &bare, &keys) {
        for tasks in [1, 16, 128] {
            let calls = if name.contains("100") { CALLS_PER_ROUND / 20 } else { CALLS_PER_ROUND };
            let calls = if tasks == 1 { calls / 4 } else { calls };
            let mut samples = Vec::with_capacity(ROUNDS);
            for _ in 0..ROUNDS {
                samples.push((time(&ours, tasks, calls).await, time(&theirs, tasks, calls).await));
            }
            let ratio = median(samples.iter().map(|(ours, theirs)| ours / theirs).collect());
            let ours = median(samples.iter().map(|(ours, _)| *ours).collect());
            let theirs = median(samples.iter().map(|(_, theirs)| *theirs).collect());
            println!("{name:<34} {tasks:>6} {ours:>10.1} {theirs:>10.1} {ratio:>8.2}");
        }
    }
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    driver.delete_many(&keys).await.unwrap();
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
            let mut command = format!("ms {key} {} T60{flags}\r\n", value.len()).into_bytes();
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

fn contenders(
    driver: &Arc<MemcachedDriver>,
    bare: &Bare,
    keys: &Arc<Vec<String>>,
) -> Vec<(&'static str, Call, Call)> {
    let ours = |call: Ours| -> Call {
        let (driver, keys) = (driver.clone(), keys.clone());
        Arc::new(move |n| call(driver.clone(), keys.clone(), n))
    };
    let theirs = |call: fn(Bare, Arc<Vec<String>>, usize) -> BoxFuture<'static, ()>| -> Call {
        let (bare, keys) = (bare.clone(), keys.clone());
        Arc::new(move |n| call(bare.clone(), keys.clone(), n))
    };
    vec![
        (
            "get",
            ours(|driver, keys, n| {
                async move {
                    let found = driver.get(&keys[n % KEYS]).await.unwrap().unwrap();
                    assert_eq!(found.len(), 1_024);
                }
                .boxed()
            }),
            theirs(|bare, keys, n| {
                async move {
                    let command = format!("mg {} v\r\n", keys[n % KEYS]).into_bytes();
                    assert_eq!(bare.call(command, 1).await[0].2.len(), 1_024);
                }
                .boxed()
            }),
        ),
        (
            "set, if newer",
            ours(|driver, keys, n| {
                async move {
                    let ttl = Some(minutes(1));
                    driver.set(&keys[n % KEYS], value(n as u64), ttl, When::Newer).await.unwrap();
                }
                .boxed()
            }),
            theirs(|bare, keys, n| {
                async move { bare.set_if_newer(&keys[n % KEYS], &value(n as u64)).await }.boxed()
            }),
        ),
        (
            "get_many, 100 keys",
            ours(|driver, keys, n| {
                async move {
                    let some: Vec<&str> = (0..100).map(|at| keys[(n * 7 + at) % KEYS].as_str()).collect();
                    assert_eq!(driver.get_many(&some).await.unwrap().len(), 100);
                }
                .boxed()
            }),
            theirs(|bare, keys, n| {
                async move {
                    let mut commands = Vec::with_capacity(4_096);
                    for at in 0..100 {
                        commands.extend_from_slice(b"mg ");
                        commands.extend_from_slice(keys[(n * 7 + at) % KEYS].as_bytes());
                        commands.extend_from_slice(b" v\r\n");
                    }
                    assert_eq!(bare.call(commands, 100).await.len(), 100);
                }
                .boxed()
            }),
        ),
    ]
}

fn value(stamp: u64) -> Bytes {
    let mut value = vec![7; 1_024];
    value[4..12].copy_from_slice(&stamp.to_be_bytes());
    value.into()
}

/// Microseconds a call, with so many tasks at it.
async fn time(call: &Call, tasks: usize, calls: usize) -> f64 {
    let each = calls / tasks + 1;
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures")]
    let begun = Instant::now();
    let running = (0..tasks).map(|task| {
        let call = call.clone();
        tokio::spawn(async move {
            for n in 0..each {
                call(task * each + n).await;
            }
        })
    });
    for done in join_all(running).await {
        done.unwrap();
    }
    begun.elapsed().as_secs_f64() * 1e6 / (each * tasks) as f64
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}
