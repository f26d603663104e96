//! What the benchmarks of drivers have in common: a driver and the bare client do the same work in turn, and the ratio of
//! their times is printed. Values have 1 KiB. Rounds alternate, so that a busy moment meets both; the ratio is the median of
//! the rounds' ratios.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _, join_all};
use larder::driver::{Driver, When};
use larder::time::minutes;

/// The bytes of a value.
pub(crate) const VALUE_BYTES: usize = 1_024;
/// The names of the calls, in the order of [`ours`]; what stands for the bare client has the same.
const NAMES: [&str; 3] = ["get", "set, if newer", "get_many, 100 keys"];

/// A call of a store, the so many-th.
pub(crate) type Call = Arc<dyn Fn(usize) -> BoxFuture<'static, ()> + Send + Sync>;
type Keys = Arc<Vec<String>>;

/// How much is measured.
pub(crate) struct Plan {
    pub(crate) keys: usize,
    pub(crate) rounds: usize,
    /// Of one key, for many tasks.
    pub(crate) calls: usize,
    pub(crate) tasks: &'static [usize],
}

/// A runtime with two threads, for the length of a benchmark.
pub(crate) fn block_on(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(work);
}

/// Writes are newer than those before, as most are.
pub(crate) fn stamp() -> u64 {
    static STAMP: AtomicU64 = AtomicU64::new(1);
    STAMP.fetch_add(1, Ordering::Relaxed)
}

/// What is stored, with a stamp where a record has it.
pub(crate) fn value(stamp: u64) -> Bytes {
    let mut value = vec![7; VALUE_BYTES];
    value[4..12].copy_from_slice(&stamp.to_be_bytes());
    value.into()
}

/// A call of a client that is cheap to clone.
pub(crate) fn call<S: Clone + Send + Sync + 'static>(
    subject: &S,
    keys: &Keys,
    make: fn(S, Keys, usize) -> BoxFuture<'static, ()>,
) -> Call {
    let (subject, keys) = (subject.clone(), Arc::clone(keys));
    Arc::new(move |n| make(subject.clone(), Arc::clone(&keys), n))
}

/// The hundred keys of one call for many.
pub(crate) fn hundred(keys: &[String], n: usize) -> impl Iterator<Item = &str> {
    (0..100).map(move |at| keys[(n * 7 + at) % keys.len()].as_str())
}

/// Measures a driver beside what `theirs` makes of the keys.
pub(crate) async fn compare(
    driver: Arc<dyn Driver>,
    plan: &Plan,
    theirs: impl AsyncFnOnce(&Keys) -> [Call; 3],
) {
    let keys: Keys = Arc::new((0..plan.keys).map(|n| format!("larder-bench:{n:09}")).collect());
    for key in keys.iter() {
        driver.set(key, value(0), None, When::Always).await.unwrap();
    }
    let header = format!("{}, 1 KiB values", driver.name());
    println!("{header:<34} {:>6} {:>10} {:>10} {:>8}", "tasks", "µs", "bare µs", "ratio");
    for ((name, ours), theirs) in NAMES.into_iter().zip(ours(&driver, &keys)).zip(theirs(&keys).await) {
        for &tasks in plan.tasks {
            let calls = if name.contains("100") { plan.calls / 20 } else { plan.calls };
            let calls = if tasks == 1 { calls / 4 } else { calls };
            let mut samples = Vec::with_capacity(plan.rounds);
            for _ in 0..plan.rounds {
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

fn ours(driver: &Arc<dyn Driver>, keys: &Keys) -> [Call; 3] {
    [
        call(driver, keys, |driver, keys, n| {
            async move {
                let found = driver.get(&keys[n % keys.len()]).await.unwrap().unwrap();
                assert_eq!(found.len(), VALUE_BYTES);
            }
            .boxed()
        }),
        call(driver, keys, |driver, keys, n| {
            async move {
                let (key, value) = (&keys[n % keys.len()], value(stamp()));
                driver.set(key, value, Some(minutes(9)), When::Newer).await.unwrap();
            }
            .boxed()
        }),
        call(driver, keys, |driver, keys, n| {
            async move {
                let some: Vec<&str> = hundred(&keys, n).collect();
                let found = driver.get_many(&some).await.unwrap();
                assert_eq!(found.iter().flatten().count(), 100);
            }
            .boxed()
        }),
    ]
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
