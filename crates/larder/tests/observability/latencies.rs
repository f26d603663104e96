//! How long things took, and what happened to which keys.

use std::future::IntoFuture as _;
use std::time::Duration;

use larder::stats::{GROUPS_MAX, GroupSnapshot, OTHER, Snapshot, prometheus_text};
use larder::testing::{Harness, Tiers};
use larder::time::seconds;
use larder::{ErrorKind, Stack, memory::MemoryOptions};

fn group<'a>(stats: &'a Snapshot, name: &str) -> &'a GroupSnapshot {
    stats.groups.iter().find(|group| group.name == name).unwrap()
}

fn grouped(tiers: Tiers) -> Harness {
    Harness::with(tiers, |builder| builder.group("users", "user:*").group("deep", "in/ner:*"))
}

#[tokio::test]
async fn a_load_is_timed_whether_or_not_it_succeeds() {
    let harness = Harness::new(Tiers::Both);
    let cache = harness.stack.cache::<u32>().unwrap();
    for (key, by, succeeds) in [("a", seconds(2), true), ("b", seconds(4), false)] {
        let clock = harness.clock.clone();
        let load = move || async move {
            clock.advance(by);
            if succeeds { Ok(1) } else { Err(std::io::Error::other("down")) }
        };
        assert_eq!(cache.get_or_set(key, load).await.is_ok(), succeeds);
    }
    let latencies = harness.stack.stats().latencies;
    assert_eq!((latencies.load.count(), latencies.load.total()), (2, seconds(6)));
    assert_eq!((latencies.wait.count(), latencies.wait.max()), (2, seconds(4)));
    // The store was read for each key before it was loaded, and written once.
    assert_eq!((latencies.store_read.count(), latencies.store_write.count()), (2, 1));
    harness.finish(2).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_call_that_runs_into_its_deadline_is_timed_too() {
    let harness = Harness::new(Tiers::Both);
    let cache = harness.stack.cache::<u32>().unwrap();
    harness.chaos.stall(larder::testing::Operation::GetMany);
    assert_eq!(cache.get("a").await.unwrap(), None);
    let stats = harness.stack.stats();
    assert_eq!((stats.l2_failures, stats.latencies.store_read.count()), (1, 1));
    harness.chaos.release(larder::testing::Operation::GetMany);
    harness.finish(1).await;
}

#[tokio::test]
async fn a_hit_in_memory_is_not_timed() {
    let harness = Harness::new(Tiers::Both);
    let cache = harness.stack.cache::<u32>().unwrap();
    cache.set("a", 1).await.unwrap();
    let before = harness.stack.stats().latencies;
    cache.get("a").await.unwrap();
    cache.get_or_set("a", || async { Ok::<_, std::io::Error>(2) }).await.unwrap();
    assert_eq!(harness.stack.stats().latencies, before);
    harness.finish(2).await;
}

#[tokio::test]
async fn each_lookup_counts_in_one_group_and_the_groups_add_up() {
    for tiers in Tiers::ALL {
        let harness = grouped(tiers);
        let cache = harness.stack.cache::<u32>().unwrap();
        let deep = cache.namespace("in").unwrap().namespace("ner").unwrap();
        for key in ["user:1", "user:1", "user:2", "page:1"] {
            cache.get_or_set(key, || async { Ok::<_, std::io::Error>(1) }).await.unwrap();
        }
        deep.get("user:1").await.unwrap();
        let failed =
            cache.get_or_set("user:3", || async { Err::<u32, _>(std::io::Error::other("down")) }).await;
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::Load);
        let stats = harness.stack.stats();
        let users = group(&stats, "users");
        assert_eq!((users.hits_l1 + users.hits_l2, users.misses), (1, 3), "{tiers:?}");
        assert_eq!((users.loads, users.loads_failed, users.load.count()), (2, 1, 2));
        assert_eq!(group(&stats, "deep").misses, 1);
        assert_eq!((group(&stats, OTHER).misses, group(&stats, OTHER).loads), (1, 1));
        let sum = |field: fn(&GroupSnapshot) -> u64| stats.groups.iter().map(field).sum::<u64>();
        assert_eq!(sum(|group| group.hits_l1 + group.hits_l2 + group.misses), stats.lookups());
        assert_eq!(
            (sum(|group| group.loads), sum(|group| group.loads_failed)),
            (stats.loads, stats.loads_failed)
        );
        if tiers.has_store() {
            assert!(users.store_read.count() >= 3, "{users:?}");
        }
        assert!(prometheus_text(&[("test", &stats)]).contains("group=\"users\",tier="));
        harness.finish(6).await;
    }
}

#[tokio::test]
async fn a_stale_hit_counts_in_its_group() {
    let harness = grouped(Tiers::Both);
    let cache = harness.stack.cache::<u32>().unwrap();
    cache.set("user:1", 1).ttl(seconds(1)).grace(seconds(60)).await.unwrap();
    harness.clock.advance(seconds(2));
    let load = || async { Err::<u32, _>(std::io::Error::other("down")) };
    assert_eq!(*cache.get_or_set("user:1", load).grace(seconds(60)).await.unwrap(), 1);
    let stats = harness.stack.stats();
    assert_eq!((group(&stats, "users").hits_stale, stats.hits_stale), (1, 1));
    harness.finish(1).await;
}

#[test]
fn a_hit_in_memory_allocates_nothing_with_groups_either() {
    let mut builder = Stack::builder("cost").memory(MemoryOptions::new(1_000));
    for n in 0..GROUPS_MAX {
        builder = builder.group(format!("g{n}"), format!("k{n}*y*"));
    }
    let stack = builder.build().unwrap();
    let cache = stack.cache::<u64>().unwrap().namespace("space").unwrap();
    futures_util::FutureExt::now_or_never(cache.set("key", 7).into_future()).unwrap().unwrap();
    let counted = allocation_counter::measure(|| {
        let found = futures_util::FutureExt::now_or_never(cache.get("key")).unwrap();
        assert_eq!(found.unwrap().as_deref(), Some(&7));
    });
    assert_eq!(counted.count_total, 0);
    assert_eq!(group(&stack.stats(), OTHER).hits_l1, 1);
}

#[test]
fn groups_that_make_no_sense_are_refused_when_the_stack_is_built() {
    let build = |name: &str, pattern: &str| {
        let builder = Stack::builder("s").memory(MemoryOptions::new(10)).group("a", "a*");
        builder.group(name, pattern).build().map(|_| ())
    };
    assert!(build("b", "b*").is_ok());
    for (name, pattern) in [("a", "x*"), (OTHER, "x*"), ("", "x*"), ("b", "")] {
        assert_eq!(build(name, pattern).unwrap_err().kind(), ErrorKind::Config, "{name} {pattern}");
    }
}

#[test]
fn a_snapshot_shows_quantiles_as_json() {
    let mut stats = Snapshot::default();
    stats.latencies.load.record(Duration::from_micros(100));
    let json = serde_json::to_value(&stats).unwrap();
    assert_eq!(json["latencies"]["load"]["p99_us"], 100);
    assert_eq!(json["latencies"]["wait"]["p50_us"], serde_json::Value::Null);
}
