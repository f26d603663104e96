//! What the DynamoDB driver adds to the bare client, as a ratio, both in one run.
//!
//! `LARDER_TEST_DYNAMODB_ENDPOINT=http://localhost:8000 cargo bench -p larder --bench dynamodb` prints one line for each
//! call and number of tasks: microseconds a call, and how many times that is what the client takes for the same
//! requests with the same settings. Values have 1 KiB. Rounds alternate, so that a busy moment meets both; the ratio is
//! the median of the rounds' ratios. Most of the time is the server's.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing test or benchmark ends in a panic"
)]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _, join_all};
use larder::driver::dynamodb::client::Client;
use larder::driver::dynamodb::client::primitives::Blob;
use larder::driver::dynamodb::client::types::{AttributeValue, KeysAndAttributes, ReturnValue};
use larder::driver::dynamodb::{DynamoDbCredentials, DynamoDbDriver, DynamoDbOptions};
use larder::driver::{Driver, When};
use larder::time::{Stamp, minutes};

const TABLE: &str = "larder-bench";
const KEYS: usize = 200;
const ROUNDS: usize = 9;
const CALLS_PER_ROUND: usize = 200;

type Ours = fn(Arc<DynamoDbDriver>, Arc<Vec<String>>, usize) -> BoxFuture<'static, ()>;
type Theirs = fn(Client, Arc<Vec<String>>, usize) -> BoxFuture<'static, ()>;
type Call = Arc<dyn Fn(usize) -> BoxFuture<'static, ()> + Send + Sync>;

fn main() {
    let Ok(endpoint) = std::env::var("LARDER_TEST_DYNAMODB_ENDPOINT") else {
        println!("LARDER_TEST_DYNAMODB_ENDPOINT is not set: nothing to measure");
        return;
    };
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(run(endpoint));
}

async fn run(endpoint: String) {
    let mut options = DynamoDbOptions::new(TABLE);
    options.region = Some("eu-west-1".to_owned());
    options.endpoint = Some(endpoint);
    options.credentials = Some(DynamoDbCredentials::new("bench", "bench"));
    options.create_table = true;
    let driver = Arc::new(DynamoDbDriver::connect(options).await.unwrap());
    let bare = driver.client().await.unwrap();
    let keys: Arc<Vec<String>> = Arc::new((0..KEYS).map(|n| format!("bench:{n:09}")).collect());
    for key in keys.iter() {
        driver.set(key, value(1), None, When::Always).await.unwrap();
    }
    println!("{:<34} {:>6} {:>10} {:>10} {:>8}", "1 KiB values", "tasks", "µs", "bare µs", "ratio");
    for (name, ours, theirs) in contenders(&driver, &bare, &keys) {
        for tasks in [1, 16] {
            let calls = if name.contains("100") { CALLS_PER_ROUND / 10 } else { CALLS_PER_ROUND };
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
    driver.clear("bench:", Stamp::MAX).await.unwrap();
}

fn contenders(
    driver: &Arc<DynamoDbDriver>,
    bare: &Client,
    keys: &Arc<Vec<String>>,
) -> Vec<(&'static str, Call, Call)> {
    let call = |make: Box<dyn Fn(usize) -> BoxFuture<'static, ()> + Send + Sync>| -> Call { Arc::from(make) };
    let ours = |make: Ours| {
        let (driver, keys) = (driver.clone(), keys.clone());
        call(Box::new(move |n| make(driver.clone(), keys.clone(), n)))
    };
    let theirs = |make: Theirs| {
        let (bare, keys) = (bare.clone(), keys.clone());
        call(Box::new(move |n| make(bare.clone(), keys.clone(), n)))
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
                    let call = bare.get_item().table_name(TABLE).consistent_read(true);
                    let found = call.key("key", text(&keys[n % KEYS])).send().await.unwrap().item.unwrap();
                    assert_eq!(found["value"].as_b().unwrap().as_ref().len(), 1_024);
                }
                .boxed()
            }),
        ),
        (
            "set if newer",
            ours(|driver, keys, n| {
                async move {
                    let (value, ttl) = (value(next()), Some(minutes(1)));
                    driver.set(&keys[n % KEYS], value, ttl, When::Newer).await.unwrap();
                }
                .boxed()
            }),
            theirs(|bare, keys, n| {
                async move {
                    let stamp = next();
                    let value = value(stamp);
                    let call = bare.put_item().table_name(TABLE).return_values(ReturnValue::AllOld);
                    let call = call
                        .item("key", text(&keys[n % KEYS]))
                        .item("head", AttributeValue::B(Blob::new(&value[..40])))
                        .item("value", AttributeValue::B(Blob::new(value)))
                        .item("stamp", AttributeValue::N(stamp.to_string()))
                        .item("expires", AttributeValue::N("9999999999".to_owned()))
                        .expression_attribute_values(":stamp", AttributeValue::N(stamp.to_string()))
                        .expression_attribute_names("#stamp", "stamp")
                        .condition_expression("attribute_not_exists(#stamp) OR #stamp < :stamp");
                    call.send().await.unwrap();
                }
                .boxed()
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
                    let some = (0..100).map(|at| &keys[(n * 7 + at) % KEYS]);
                    let some = some.map(|key| HashMap::from([("key".to_owned(), text(key))])).collect();
                    let some = KeysAndAttributes::builder().set_keys(Some(some)).consistent_read(true);
                    let call = bare.batch_get_item().request_items(TABLE, some.build().unwrap());
                    let found = call.send().await.unwrap();
                    assert_eq!(found.responses.unwrap()[TABLE].len(), 100);
                }
                .boxed()
            }),
        ),
    ]
}

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

/// Newer than all before: a refusal would be another measurement, since not every server says by what it refuses.
fn next() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(2);
    NEXT.fetch_add(1, Ordering::Relaxed)
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
