//! Lookups, writes, deletes and clears.

use futures_util::TryStreamExt as _;
use larder::driver::Driver as _;
use larder::entry::Freshness;
use larder::event::Tier;
use larder::memory::MemoryOptions;
use larder::testing::{Harness, Operation, Tiers};
use larder::time::{Ttl, hours, minutes, seconds};
use larder::{Cache, ErrorKind, Result, Stack};

pub(crate) fn cache<V>(harness: &Harness) -> Cache<V>
where
    V: serde::Serialize + serde::de::DeserializeOwned + Send + Sync + 'static,
{
    harness.stack.cache().unwrap()
}

pub(crate) fn ok<V>(value: V) -> impl Future<Output = std::result::Result<V, std::io::Error>> + Send
where
    V: Send,
{
    std::future::ready(Ok(value))
}

#[tokio::test]
async fn a_value_that_was_set_is_found_in_the_nearest_tier() {
    for (tiers, nearest) in [(Tiers::L1, "L1"), (Tiers::L2, "L2"), (Tiers::Both, "L1")] {
        let harness = Harness::new(tiers);
        let users = cache::<String>(&harness);
        assert_eq!(users.get("a").await.unwrap(), None);
        users.set("a", "Ada".to_owned()).await.unwrap();
        assert_eq!(users.get("a").await.unwrap().as_deref().map(String::as_str), Some("Ada"));
        assert_eq!(harness.recorder.lines(), ["miss a", "written a", &format!("hit {nearest} a")]);
        harness.finish(2).await;
    }
}

#[tokio::test]
async fn a_value_from_the_store_is_brought_into_memory_with_its_times() {
    let first = Harness::new(Tiers::Both);
    let second = Harness::over(Tiers::Both, first.clock.clone(), first.store.clone(), |builder| builder);
    cache::<u32>(&first).set("a", 7).ttl(seconds(10)).tags(["t"]).await.unwrap();
    first.clock.advance(seconds(4));
    let other = cache::<u32>(&second);
    assert_eq!(*other.get("a").await.unwrap().unwrap(), 7);
    second.chaos.fail_everything(ErrorKind::Unavailable);
    let entry = other.entry("a").await.unwrap().unwrap();
    assert_eq!((entry.tier, entry.age, entry.ttl_left), (Tier::L1, seconds(4), Some(seconds(6))));
    assert_eq!(entry.tags.iter().map(|tag| tag.as_str()).collect::<Vec<_>>(), ["t"]);
    second.finish(1).await;
}

#[tokio::test]
async fn nothing_cached_is_a_value_and_not_a_miss() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let maybe = cache::<Option<String>>(&harness);
        maybe.set("none", None).await.unwrap();
        assert_eq!(maybe.get("none").await.unwrap().as_deref(), Some(&None));
        assert!(maybe.has("none").await.unwrap());
        let text = cache::<String>(&harness).namespace("text").unwrap();
        text.set("", String::new()).await.unwrap();
        assert_eq!(text.get("").await.unwrap().as_deref(), Some(&String::new()));
        let loaded = maybe.get_or_set("none", || ok(Some("loaded".to_owned()))).await.unwrap();
        assert_eq!(*loaded, None, "a cached nothing does not load");
        harness.finish(3).await;
    }
}

#[tokio::test]
async fn a_ttl_of_zero_stores_nothing_and_removes_what_was_there() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        numbers.set("a", 1).await.unwrap();
        numbers.set("a", 2).ttl(seconds(0)).await.unwrap();
        assert_eq!(numbers.get("a").await.unwrap(), None);
        assert_eq!(*numbers.get_or_set("a", || ok(3)).ttl(seconds(0)).await.unwrap(), 3);
        assert!(!numbers.has("a").await.unwrap());
        numbers.set_many([("b", 1), ("c", 2)]).ttl(seconds(0)).await.unwrap();
        assert!(!numbers.has("b").await.unwrap());
        assert!(!numbers.add("d", 1).ttl(seconds(0)).await.unwrap());
        harness.finish(2).await;
    }
}

#[tokio::test]
async fn forever_is_forever_and_the_smallest_ttl_is_not_nothing() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        numbers.set("forever", 1).ttl(Ttl::Forever).await.unwrap();
        numbers.set("long", 1).ttl(std::time::Duration::MAX).await.unwrap();
        numbers.set("short", 1).ttl(std::time::Duration::from_nanos(1)).await.unwrap();
        assert!(numbers.has("short").await.unwrap());
        harness.clock.advance(hours(24 * 365 * 100));
        assert!(numbers.has("forever").await.unwrap() && numbers.has("long").await.unwrap());
        assert!(!numbers.has("short").await.unwrap());
    }
}

#[tokio::test]
async fn options_of_the_call_win_over_the_caches_and_those_over_the_stacks() {
    let stack_options = larder::EntryOptions::default().ttl(seconds(1)).grace(seconds(1));
    let harness = Harness::with(Tiers::L1, |builder| builder.options(stack_options));
    let plain = cache::<u32>(&harness);
    let own = cache::<u32>(&harness).with_options(larder::EntryOptions::default().ttl(seconds(2)));
    plain.set("stack", 1).await.unwrap();
    own.set("cache", 1).await.unwrap();
    own.set("call", 1).ttl(seconds(3)).await.unwrap();
    for (key, ttl) in [("stack", 1), ("cache", 2), ("call", 3)] {
        let entry = own.entry(key).await.unwrap().unwrap();
        assert_eq!((entry.ttl_left, entry.life_left), (Some(seconds(ttl)), Some(seconds(ttl + 1))), "{key}");
    }
}

#[tokio::test]
async fn delete_says_whether_there_was_something_in_either_tier() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        assert!(!numbers.delete("a").await.unwrap());
        numbers.set("a", 1).ttl(seconds(5)).await.unwrap();
        assert!(numbers.delete("a").await.unwrap());
        assert!(!numbers.delete("a").await.unwrap());
        assert!(!numbers.has("a").await.unwrap());
        numbers.set("b", 1).ttl(seconds(5)).await.unwrap();
        harness.clock.advance(seconds(5));
        assert!(!numbers.delete("b").await.unwrap(), "what has expired is not there");
        harness.finish(0).await;
    }
}

#[tokio::test]
async fn many_keys_take_one_call_of_the_store_each_way() {
    let harness = Harness::new(Tiers::Both);
    let numbers = cache::<u32>(&harness);
    numbers.set_many([("a", 1), ("b", 2), ("c", 3)]).await.unwrap();
    assert_eq!(harness.chaos.calls_total(), 1);
    let other = Harness::over(Tiers::Both, harness.clock.clone(), harness.store.clone(), |b| b);
    let there = cache::<u32>(&other);
    there.get("a").await.unwrap();
    other.chaos.reset_calls();
    let found = there.get_many(&["a", "missing", "c", "b", "c"]).await.unwrap();
    let found: Vec<Option<u32>> = found.into_iter().map(|value| value.map(|n| *n)).collect();
    assert_eq!(found, [Some(1), None, Some(3), Some(2), Some(3)]);
    assert_eq!(other.chaos.calls_total(), 1);
    other.chaos.reset_calls();
    assert_eq!(there.delete_many(&["a", "b", "missing", "a"]).await.unwrap(), 2);
    assert_eq!(other.chaos.calls_total(), 1);
    assert_eq!(there.delete_many::<&str>(&[]).await.unwrap(), 0);
    assert_eq!(there.get_many::<&str>(&[]).await.unwrap(), []);
    other.finish(6).await;
    harness.finish(0).await;
}

#[tokio::test]
async fn namespaces_are_apart_and_share_everything_else() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let root = cache::<u32>(&harness);
        let users = root.namespace("users").unwrap();
        let posts = users.namespace("posts").unwrap();
        let neighbour = root.namespace("usersAbc").unwrap();
        for (n, cache) in [&root, &users, &posts, &neighbour].into_iter().enumerate() {
            cache.set("key1", n as u32).await.unwrap();
        }
        root.set("users:key1", 9).await.unwrap();
        for (n, cache) in [&root, &users, &posts, &neighbour].into_iter().enumerate() {
            assert_eq!(*cache.get("key1").await.unwrap().unwrap(), n as u32);
        }
        users.clear().await.unwrap();
        assert!(!users.has("key1").await.unwrap() && !posts.has("key1").await.unwrap());
        assert!(neighbour.has("key1").await.unwrap() && root.has("key1").await.unwrap());
        assert!(root.has("users:key1").await.unwrap());
        posts.set("key1", 5).await.unwrap();
        assert!(posts.has("key1").await.unwrap(), "a clear ends with the moment it was called");
        root.clear().await.unwrap();
        for cache in [&root, &users, &posts, &neighbour] {
            assert!(!cache.has("key1").await.unwrap());
        }
        harness.finish(4).await;
    }
}

#[tokio::test]
async fn a_clear_in_one_process_is_seen_by_the_reads_of_another() {
    let first = Harness::new(Tiers::L2);
    let second = Harness::over(Tiers::L2, first.clock.clone(), first.store.clone(), |builder| builder);
    let (here, there) = (cache::<u32>(&first), cache::<u32>(&second));
    here.set("a", 1).await.unwrap();
    here.namespace("n").unwrap().set("a", 2).await.unwrap();
    assert!(there.has("a").await.unwrap());
    // The store keeps the entries: only the mark says that they are gone.
    first.chaos.fail_all(Operation::Clear, ErrorKind::Unavailable);
    here.clear().await.unwrap();
    assert_eq!(there.get("a").await.unwrap(), None);
    assert_eq!(there.namespace("n").unwrap().get("a").await.unwrap(), None);
    there.set("a", 3).await.unwrap();
    assert_eq!(*here.get("a").await.unwrap().unwrap(), 3);
}

#[tokio::test]
async fn a_clear_holds_in_this_process_even_if_the_store_did_not_hear_of_it() {
    let harness = Harness::new(Tiers::Both);
    let numbers = cache::<u32>(&harness);
    numbers.set("a", 1).await.unwrap();
    harness.chaos.fail_all(Operation::Set, ErrorKind::Unavailable);
    assert_eq!(numbers.clear().await.unwrap_err().kind(), ErrorKind::Unavailable);
    harness.chaos.heal();
    assert_eq!(numbers.get("a").await.unwrap(), None);
}

#[tokio::test]
async fn keys_are_those_with_an_entry_in_this_namespace() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let root = cache::<u32>(&harness);
        let inner = root.namespace("inner").unwrap();
        for key in ["b", "a", "dead", "gone", "stale"] {
            root.set(key, 1)
                .ttl(seconds(if key == "dead" || key == "stale" { 1 } else { 9 }))
                .grace(seconds(if key == "stale" { 9 } else { 0 }))
                .await
                .unwrap();
        }
        inner.set("inside", 1).await.unwrap();
        root.delete("gone").await.unwrap();
        harness.clock.advance(seconds(2));
        let mut keys: Vec<String> = root.keys().try_collect().await.unwrap();
        keys.sort();
        assert_eq!(keys, ["a", "b", "stale"]);
        assert_eq!(inner.keys().try_collect::<Vec<_>>().await.unwrap(), ["inside"]);
    }
}

#[tokio::test]
async fn prune_gives_back_what_has_expired() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        numbers.set("a", 1).ttl(seconds(1)).await.unwrap();
        numbers.set("b", 1).ttl(seconds(9)).await.unwrap();
        harness.clock.advance(seconds(1));
        let expected = if tiers == Tiers::Both { 2 } else { 1 };
        assert_eq!(harness.stack.prune().await.unwrap(), expected);
        assert!(numbers.has("b").await.unwrap());
        assert_eq!(harness.stack.memory_usage().map(|usage| usage.items), (tiers != Tiers::L2).then_some(1));
    }
}

#[tokio::test]
async fn the_wrong_type_is_an_error_that_names_what_was_asked_for() {
    let harness = Harness::new(Tiers::L1);
    cache::<u32>(&harness).set("a", 1).await.unwrap();
    let error = cache::<String>(&harness).get("a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TypeMismatch);
    assert!(error.message().contains("String"), "{error}");
    let error = cache::<String>(&harness).get_or_set("a", || ok(String::new())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TypeMismatch);
    harness.finish(2).await;
}

#[tokio::test]
async fn what_another_type_or_schema_stored_is_a_miss_in_the_store() {
    let harness = Harness::new(Tiers::L2);
    cache::<String>(&harness).set("a", "text".to_owned()).await.unwrap();
    assert_eq!(cache::<u32>(&harness).get("a").await.unwrap(), None);
    let newer = cache::<String>(&harness).with_schema(1);
    assert_eq!(newer.get("a").await.unwrap(), None);
    assert_eq!(*newer.get_or_set("a", || ok("new".to_owned())).await.unwrap(), "new");
    assert_eq!(cache::<String>(&harness).get("a").await.unwrap(), None);
    assert_eq!(harness.stack.stats().undecodable, 4);
    harness.finish(4).await;
}

#[tokio::test]
async fn a_failing_store_costs_lookups_nothing_where_there_is_memory() {
    let harness = Harness::new(Tiers::Both);
    let numbers = cache::<u32>(&harness);
    numbers.set("a", 1).await.unwrap();
    harness.chaos.fail_everything(ErrorKind::Unavailable);
    assert_eq!(*numbers.get("a").await.unwrap().unwrap(), 1);
    assert_eq!(numbers.get("b").await.unwrap(), None);
    assert_eq!(*numbers.get_or_set("b", || ok(2)).await.unwrap(), 2);
    assert_eq!(*numbers.get("b").await.unwrap().unwrap(), 2, "memory took it");
    assert_eq!(harness.stack.stats().l2_failures, 3);
    harness.finish(4).await;
}

#[tokio::test]
async fn without_memory_a_failing_store_is_an_error_unless_suppressed() {
    let harness = Harness::new(Tiers::L2);
    let numbers = cache::<u32>(&harness);
    harness.chaos.fail_everything(ErrorKind::Unavailable);
    assert_eq!(numbers.get("a").await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(numbers.get_or_set("a", || ok(1)).await.unwrap_err().kind(), ErrorKind::Unavailable);
    let loaded = numbers.get_or_set("a", || ok(1)).suppress_l2_errors(larder::Suppress::Yes).await;
    assert_eq!(*loaded.unwrap(), 1);
    harness.finish(3).await;
}

#[tokio::test]
async fn explicit_writes_never_hide_that_the_store_failed() {
    let harness = Harness::new(Tiers::Both);
    let numbers = cache::<u32>(&harness);
    numbers.set("a", 1).await.unwrap();
    harness.chaos.fail_everything(ErrorKind::Unavailable);
    let kind = |result: Result<()>| result.unwrap_err().kind();
    assert_eq!(kind(numbers.set("b", 1).await), ErrorKind::Unavailable);
    assert_eq!(*numbers.get("b").await.unwrap().unwrap(), 1, "memory has what was meant");
    assert_eq!(kind(numbers.delete("a").await.map(drop)), ErrorKind::Unavailable);
    assert_eq!(numbers.get("a").await.unwrap(), None, "memory does not serve what was to go");
    assert_eq!(kind(numbers.set_many([("c", 1)]).await), ErrorKind::Unavailable);
    assert_eq!(kind(numbers.delete_many(&["c"]).await.map(drop)), ErrorKind::Unavailable);
    assert_eq!(kind(numbers.expire("b").await.map(drop)), ErrorKind::Unavailable);
    assert_eq!(kind(numbers.add("d", 1).await.map(drop)), ErrorKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_is_given_up_on_at_the_deadline() {
    let harness = Harness::with(Tiers::L2, |builder| builder.deadline(seconds(1)));
    let numbers = cache::<u32>(&harness);
    harness.chaos.stall(Operation::GetMany);
    let error = numbers.get("a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.message().contains("1s"), "{error}");
    harness.chaos.heal();
}

#[tokio::test]
async fn keys_that_are_too_long_are_refused_before_anything_happens() {
    let harness = Harness::new(Tiers::Both);
    let numbers = cache::<u32>(&harness);
    let long = "k".repeat(1_100);
    let kind = |result: Result<()>| result.unwrap_err().kind();
    assert_eq!(kind(numbers.get(&long).await.map(drop)), ErrorKind::InvalidKey);
    assert_eq!(kind(numbers.set(&long, 1).await), ErrorKind::InvalidKey);
    assert_eq!(kind(numbers.get_or_set(&long, || ok(1)).await.map(drop)), ErrorKind::InvalidKey);
    assert_eq!(kind(numbers.get_many(&["a", &long]).await.map(drop)), ErrorKind::InvalidKey);
    assert_eq!(kind(numbers.set_many([("a", 1), (long.as_str(), 1)]).await), ErrorKind::InvalidKey);
    assert_eq!(harness.chaos.calls_total(), 0);
    harness.finish(0).await;
}

#[tokio::test]
async fn a_value_over_the_limit_is_refused_by_set_and_passed_on_by_loads() {
    let harness = Harness::with(Tiers::Both, |builder| builder.value_bytes_max(10));
    let texts = cache::<String>(&harness);
    texts.set("a", "short".to_owned()).await.unwrap();
    let error = texts.set("a", "much longer than ten".to_owned()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert_eq!(texts.get("a").await.unwrap().as_deref().map(String::as_str), Some("short"));
    let loaded = texts.get_or_set("b", || ok("much longer than ten".to_owned())).await.unwrap();
    assert_eq!(loaded.len(), 20);
    harness.finish(2).await;
}

#[tokio::test]
async fn a_closed_stack_refuses_and_closes_its_store_once() {
    let harness = Harness::new(Tiers::Both);
    let numbers = cache::<u32>(&harness);
    numbers.set("a", 1).await.unwrap();
    harness.stack.close().await.unwrap();
    harness.stack.close().await.unwrap();
    assert_eq!(harness.chaos.calls(Operation::Close), 1);
    assert_eq!(numbers.get("a").await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(numbers.get_or_set("a", || ok(1)).await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(numbers.keys().try_collect::<Vec<_>>().await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn a_borrowed_store_stays_open_and_two_stacks_on_it_are_apart() {
    let owner = Harness::new(Tiers::L2);
    let store: std::sync::Arc<dyn larder::driver::Driver> =
        std::sync::Arc::new(larder::testing::Chaos::new(owner.store.clone()));
    let open =
        |name: &str| Stack::builder(name).borrowed_store(std::sync::Arc::clone(&store)).build().unwrap();
    let (one, two) = (open("one"), open("two"));
    one.cache::<u32>().unwrap().set("a", 1).await.unwrap();
    assert_eq!(two.cache::<u32>().unwrap().get("a").await.unwrap(), None);
    one.close().await.unwrap();
    two.cache::<u32>().unwrap().set("a", 2).await.unwrap();
    store.ping().await.unwrap();
}

#[tokio::test]
async fn eviction_is_reported_with_its_cause() {
    let mut options = MemoryOptions::new(2);
    options.max_entry_bytes = Some(1_000);
    let harness = Harness::with(Tiers::L1, |builder| builder.memory(options));
    let texts = cache::<String>(&harness);
    for key in ["a", "b", "c"] {
        texts.set(key, "x".to_owned()).ttl(minutes(1)).await.unwrap();
    }
    texts.set("large", "x".repeat(2_000)).await.unwrap();
    harness.clock.advance(minutes(1));
    for key in ["a", "b", "c"] {
        texts.get(key).await.unwrap();
    }
    let lines = harness.recorder.lines();
    let count =
        |end: &str| lines.iter().filter(|line| line.starts_with("evicted") && line.ends_with(end)).count();
    assert_eq!((count("Capacity"), count("TooLarge"), count("Expired")), (1, 1, 2), "{lines:?}");
    harness.finish(3).await;
}

#[tokio::test]
async fn a_stack_needs_a_tier_and_limits_that_make_sense() {
    let kind = |builder: larder::StackBuilder| builder.build().unwrap_err().kind();
    assert_eq!(kind(Stack::builder("x")), ErrorKind::Config);
    assert_eq!(kind(Stack::builder("x").memory(MemoryOptions::new(0))), ErrorKind::Config);
    assert_eq!(kind(Stack::builder("x").memory(MemoryOptions::new(1)).loads_max(0)), ErrorKind::Config);
    assert_eq!(
        kind(Stack::builder("x").memory(MemoryOptions::new(1)).deadline(seconds(0))),
        ErrorKind::Config
    );
    let with_store = Harness::new(Tiers::L2);
    assert_eq!(with_store.stack.memory_cache::<u32>().unwrap_err().kind(), ErrorKind::Config);
    assert_eq!(Harness::new(Tiers::L1).stack.opaque_cache().unwrap_err().kind(), ErrorKind::Config);
}

#[tokio::test]
async fn opaque_values_move_between_stores_as_they_were() {
    let from = Harness::new(Tiers::L2);
    let to =
        Harness::over(Tiers::L2, from.clock.clone(), larder::driver::memory::MemoryDriver::default(), |b| b);
    cache::<Vec<u32>>(&from).with_schema(3).set("a", vec![1, 2]).await.unwrap();
    let moved = from.stack.opaque_cache().unwrap().get("a").await.unwrap().unwrap();
    assert_eq!((&moved.payload[..], moved.schema), (&b"[1,2]"[..], 3));
    to.stack.opaque_cache().unwrap().set("a", (*moved).clone()).await.unwrap();
    assert_eq!(*cache::<Vec<u32>>(&to).with_schema(3).get("a").await.unwrap().unwrap(), [1, 2]);
}

#[tokio::test]
async fn weights_follow_the_weigher() {
    let mut options = MemoryOptions::new(1_000);
    options.max_bytes = Some(1 << 20);
    let harness = Harness::with(Tiers::L1, |builder| builder.memory(options));
    let used = |harness: &Harness| harness.stack.memory_usage().unwrap().bytes;
    let numbers = cache::<Vec<u32>>(&harness);
    numbers.set("a", vec![1, 2, 3]).await.unwrap();
    let encoded = used(&harness);
    numbers.clone().with_weigher(|numbers| numbers.len() * 100).set("a", vec![1, 2, 3]).await.unwrap();
    assert_eq!(used(&harness) - encoded, 300 - "[1,2,3]".len() as u64);
    assert!(harness.store.get("x").await.unwrap().is_none());
    harness.finish(0).await;
}

#[tokio::test]
async fn a_stale_entry_is_not_found_by_get_and_is_shown_by_entry() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let numbers = cache::<u32>(&harness);
        numbers.set("a", 1).ttl(seconds(1)).grace(seconds(5)).await.unwrap();
        harness.clock.advance(seconds(1));
        assert_eq!(numbers.get("a").await.unwrap(), None);
        let entry = numbers.entry("a").await.unwrap().unwrap();
        assert_eq!((entry.state, entry.ttl_left), (Freshness::Stale, Some(seconds(0))));
        harness.finish(1).await;
    }
}
