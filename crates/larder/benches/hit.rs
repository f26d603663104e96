//! What a hit in memory costs, as a ratio to the bare engine and to two peers, all in one run.
//!
//! `cargo bench -p larder --bench hit` prints one line a contender: the median of its rounds in nanoseconds a
//! hit, and how many times that is the bare engine, the bare engine where it has to look at the clock, and the
//! peers. Rounds of all contenders alternate, so that a busy moment of the machine meets all of them. Keys are 24 bytes, values `Arc<u64>`, every lookup is a hit.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing test or benchmark ends in a panic"
)]

use std::future::{Future, IntoFuture};
use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use larder::memory::{MemoryCache, MemoryOptions};
use larder::time::{Ttl, minutes};
use larder::{Cache, Stack};

const KEYS: usize = 1_000;
const ROUNDS: usize = 61;
const HITS_PER_ROUND: usize = 100_000;

fn main() {
    let keys: Vec<String> = (0..KEYS).map(|n| format!("user:profile:{n:011}")).collect();
    let contenders = contenders(&keys);
    let mut samples: Vec<Vec<f64>> = contenders.iter().map(|_| Vec::with_capacity(ROUNDS)).collect();
    for _ in 0..ROUNDS {
        for ((_, hit), samples) in contenders.iter().zip(&mut samples) {
            let took = time(|| {
                for n in 0..HITS_PER_ROUND {
                    hit(black_box(&keys[(n * 7) % KEYS]));
                }
            });
            samples.push(took.as_secs_f64() * 1e9 / HITS_PER_ROUND as f64);
        }
    }
    let medians: Vec<f64> = samples.into_iter().map(median).collect();
    println!(
        "{:<44} {:>8} {:>10} {:>10} {:>10} {:>14}",
        "hit, one thread", "ns", "× bare", "× with TTL", "× moka", "× quick_cache"
    );
    let of = |name: &str| {
        let place = contenders.iter().position(|(contender, _)| *contender == name);
        place.map_or(f64::NAN, |place| medians[place])
    };
    let (bare, mortal) = (of("larder, bare engine"), of("larder, bare engine, entry with a TTL"));
    let (moka, quick) = (of("moka, sync"), of("quick_cache, sync"));
    for ((name, _), ns) in contenders.iter().zip(&medians) {
        let (bare, mortal, moka, quick) = (ns / bare, ns / mortal, ns / moka, ns / quick);
        println!("{name:<44} {ns:>8.1} {bare:>10.2} {mortal:>10.2} {moka:>10.2} {quick:>14.2}");
    }
}

type Hit = Box<dyn Fn(&str)>;

fn contenders(keys: &[String]) -> Vec<(&'static str, Hit)> {
    let bare: MemoryCache<String, u64> = MemoryCache::new(100_000);
    let mortal = MemoryCache::<String, u64>::builder().max_items(100_000).ttl(minutes(60)).build();
    let moka = moka::sync::Cache::<String, Arc<u64>>::new(100_000);
    let quick = quick_cache::sync::Cache::<String, Arc<u64>>::new(100_000);
    let timed = cache(0);
    let forever = cache(0);
    let tagged = cache(0);
    let grouped = [cache(4), cache(32)];
    for (n, key) in keys.iter().enumerate() {
        let value = n as u64;
        bare.insert(key.clone(), value);
        mortal.insert(key.clone(), value);
        moka.insert(key.clone(), Arc::new(value));
        quick.insert(key.clone(), Arc::new(value));
        at_once(timed.set(key, value).ttl(minutes(60))).expect("memory does not fail");
        for cache in &grouped {
            at_once(cache.set(key, value).ttl(minutes(60))).expect("memory does not fail");
        }
        at_once(forever.set(key, value).ttl(Ttl::Forever)).expect("memory does not fail");
        at_once(tagged.set(key, value).ttl(minutes(60)).tags(["a", "b", "c"])).expect("memory does not fail");
    }
    let load = || std::future::ready(Ok::<u64, std::io::Error>(0));
    let timed_too = timed.clone();
    let [few_groups, many_groups] = grouped;
    vec![
        ("larder, bare engine", Box::new(move |key| drop(black_box(bare.get(key))))),
        ("larder, bare engine, entry with a TTL", Box::new(move |key| drop(black_box(mortal.get(key))))),
        ("larder, Cache::get", Box::new(move |key| drop(black_box(at_once(timed.get(key)))))),
        (
            "larder, Cache::get, entry without end",
            Box::new(move |key| drop(black_box(at_once(forever.get(key))))),
        ),
        (
            "larder, Cache::get, entry with 3 tags",
            Box::new(move |key| drop(black_box(at_once(tagged.get(key))))),
        ),
        (
            "larder, Cache::get_or_set",
            Box::new(move |key| drop(black_box(at_once(timed_too.get_or_set(key, load).into_future())))),
        ),
        (
            "larder, Cache::get, 4 key groups",
            Box::new(move |key| drop(black_box(at_once(few_groups.get(key))))),
        ),
        (
            "larder, Cache::get, 32 key groups, all tried",
            Box::new(move |key| drop(black_box(at_once(many_groups.get(key))))),
        ),
        ("moka, sync", Box::new(move |key| drop(black_box(moka.get(key))))),
        ("quick_cache, sync", Box::new(move |key| drop(black_box(quick.get(key))))),
    ]
}

/// A cache with so many groups of keys, whose patterns all begin as the keys do; the last one matches.
fn cache(groups: usize) -> Cache<u64> {
    let mut builder = Stack::builder("bench").memory(MemoryOptions::new(100_000));
    for n in 1..=groups {
        let pattern = if n == groups { "user:profile:*".to_owned() } else { format!("user:{n}:*") };
        builder = builder.group(n.to_string(), pattern);
    }
    builder.build().and_then(|stack| stack.cache()).expect("a stack with memory makes sense")
}

fn at_once<F: IntoFuture>(future: F) -> F::Output {
    let mut ctx = Context::from_waker(Waker::noop());
    match pin!(future.into_future()).poll(&mut ctx) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("a hit in memory does not yield"),
    }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn time(run: impl FnOnce()) -> Duration {
    let started = Instant::now();
    run();
    started.elapsed()
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}
