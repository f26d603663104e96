//! What the Redis driver adds to the bare client, as a ratio, both in one run.
//!
//! `LARDER_TEST_REDIS_URL=redis://localhost cargo bench -p larder --bench redis` prints one line for each call and
//! number of tasks: microseconds a call, and how many times that is what the client takes for the same commands on
//! a connection of its own. Values have 1 KiB. Rounds alternate, so that a busy moment meets both; the ratio is the
//! median of the rounds' ratios.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing test or benchmark ends in a panic"
)]

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _, join_all};
use larder::driver::redis::client::{self, Value, cmd};
use larder::driver::redis::{RedisDriver, RedisOptions};
use larder::driver::{Driver, When};
use larder::time::{Stamp, minutes};

const KEYS: usize = 1_000;
const ROUNDS: usize = 21;
const CALLS_PER_ROUND: usize = 2_000;

/// The least script that does the same write: compare the stamp, store, say what was there.
const SCRIPT: &str = "local head = redis.call('GETRANGE', KEYS[1], 0, 39)
local old, new = string.sub(head, 5, 12), string.sub(ARGV[1], 5, 12)
local newer = #old < 8
for at = 1, #old do
  local x, y = string.byte(old, at), string.byte(new, at)
  if x ~= y then newer = x < y break end
end
if not newer then return {0, old} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {1, head}";

type Ours = fn(Arc<RedisDriver>, Arc<Vec<String>>, usize) -> BoxFuture<'static, ()>;
type Call = Arc<dyn Fn(usize) -> BoxFuture<'static, ()> + Send + Sync>;

fn main() {
    let Ok(url) = std::env::var("LARDER_TEST_REDIS_URL") else {
        println!("LARDER_TEST_REDIS_URL is not set: nothing to measure");
        return;
    };
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(run(&url));
}

async fn run(url: &str) {
    let driver = Arc::new(RedisDriver::connect(RedisOptions::new(url).unwrap()).await.unwrap());
    // With the settings of the driver's connection. Without the first one, small calls wait for each other's
    // acknowledgements, which is faster here and slower over a network.
    let tcp = client::io::tcp::TcpSettings::default().set_nodelay(true);
    let info: client::ConnectionInfo = format!("{url}?protocol=resp3").parse().unwrap();
    let client = client::Client::open(info.set_tcp_settings(tcp)).unwrap();
    let settings = client::AsyncConnectionConfig::new().set_pipeline_buffer_size(1_024);
    let bare = client.get_multiplexed_async_connection_with_config(&settings).await.unwrap();
    let keys: Arc<Vec<String>> = Arc::new((0..KEYS).map(|n| format!("larder bench:{n:09}")).collect());
    for key in keys.iter() {
        driver.set(key, value(1), None, When::Always).await.unwrap();
    }
    println!("{:<34} {:>6} {:>10} {:>10} {:>8}", "1 KiB values", "tasks", "µs", "bare µs", "ratio");
    for (name, ours, theirs) in contenders(&driver, &bare, &keys).await {
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
    driver.clear("larder bench:", Stamp::MAX).await.unwrap();
}

async fn contenders(
    driver: &Arc<RedisDriver>,
    bare: &client::aio::MultiplexedConnection,
    keys: &Arc<Vec<String>>,
) -> Vec<(&'static str, Call, Call)> {
    let script: String = cmd("SCRIPT").arg("LOAD").arg(SCRIPT).query_async(&mut bare.clone()).await.unwrap();
    let call = |make: Box<dyn Fn(usize) -> BoxFuture<'static, ()> + Send + Sync>| -> Call { Arc::from(make) };
    let ours = |get: Ours| {
        let (driver, keys) = (driver.clone(), keys.clone());
        call(Box::new(move |n| get(driver.clone(), keys.clone(), n)))
    };
    let get = {
        let (bare, keys) = (bare.clone(), keys.clone());
        call(Box::new(move |n| {
            let (mut bare, keys) = (bare.clone(), keys.clone());
            async move {
                let found: Value = cmd("GET").arg(&keys[n % KEYS]).query_async(&mut bare).await.unwrap();
                let Value::BulkString(found) = found else { panic!("{found:?}") };
                assert_eq!(Bytes::from(found).len(), 1_024);
            }
            .boxed()
        }))
    };
    let set = {
        let (bare, keys) = (bare.clone(), keys.clone());
        call(Box::new(move |n| {
            let (mut bare, keys, script) = (bare.clone(), keys.clone(), script.clone());
            async move {
                let mut command = cmd("EVALSHA");
                command.arg(script).arg(1).arg(&keys[n % KEYS]).arg(&value(n as u64)[..]).arg(60_000);
                let _: Value = command.query_async(&mut bare).await.unwrap();
            }
            .boxed()
        }))
    };
    let get_many = {
        let (bare, keys) = (bare.clone(), keys.clone());
        call(Box::new(move |n| {
            let (mut bare, keys) = (bare.clone(), keys.clone());
            async move {
                let some: Vec<&String> = (0..100).map(|at| &keys[(n * 7 + at) % KEYS]).collect();
                let found: Vec<Value> = cmd("MGET").arg(some).query_async(&mut bare).await.unwrap();
                assert_eq!(found.len(), 100);
            }
            .boxed()
        }))
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
            get,
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
            set,
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
            get_many,
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
