//! Accounts of operations: what they tell, in words that stay.

use larder::event::Tier;
use larder::explain::{Because, Fact, Finding, STEPS_MAX};
use larder::testing::{Harness, Operation, Tiers};
use larder::time::{hours, minutes, seconds};
use larder::{BreakerOptions, EntryOptions, ErrorKind, explain};

use crate::flow::{cache, ok};
use crate::loads::{Gate, spawn_load};
use crate::resilience::settle;

/// Compares an account, whose times are those of the manual clock, with what it is to say.
#[track_caller]
fn says(account: &larder::Account, expected: &str) {
    let said: Vec<String> = account.to_string().lines().map(|line| line.trim().to_owned()).collect();
    let expected: Vec<String> =
        expected.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect();
    assert_eq!(said, expected, "\n{account}");
}

fn down() -> std::future::Ready<Result<u32, std::io::Error>> {
    std::future::ready(Err(std::io::Error::other("the source is down")))
}

#[tokio::test]
async fn a_hit_a_stale_hit_a_miss_and_an_invalidated_entry_are_told() {
    let harness = Harness::new(Tiers::Both);
    let numbers = cache::<u32>(&harness);
    let (_, account) = explain(numbers.set("a", 1).ttl(minutes(5)).grace(hours(1)).tags(["users"])).await;
    says(
        &account,
        "0 ms  store: set on memory took 0 ms\n 0 ms  memory: took it in\n 0 ms  written: fresh for 5 m 0 s",
    );

    harness.clock.advance(minutes(1));
    let (_, account) = explain(numbers.get("a")).await;
    says(&account, "0 ms  memory: fresh, with 4 m 0 s left of its TTL; 1 m 0 s old\n 0 ms  hit, from memory");

    let (_, account) = explain(numbers.get("b")).await;
    says(
        &account,
        "0 ms  memory: nothing
         0 ms  store: get on memory took 0 ms
         0 ms  store: nothing
         0 ms  miss",
    );

    harness.clock.advance(minutes(5));
    let (found, account) = explain(numbers.get_or_set("a", down)).await;
    assert_eq!(*found.unwrap(), 1);
    says(
        &account,
        "0 ms  memory: stale, with 59 m 0 s left of its grace; 6 m 0 s old
         0 ms  nobody else is at it: this call goes on
         0 ms  memory: stale, with 59 m 0 s left of its grace; 6 m 0 s old
         0 ms  store: get on memory took 0 ms
         0 ms  store: stale, with 59 m 0 s left of its grace; 6 m 0 s old
         0 ms  loader: after 0 ms, a failure: load failed: loader of key \"a\": the source is down
         0 ms  waited 0 ms: the earlier entry of the store, in place of a failure: load failed: loader of key \"a\": the source is down
         0 ms  stale hit, from the store",
    );

    harness.clock.advance(seconds(2));
    let (_, account) = explain(numbers.get_or_set("a", down)).await;
    says(
        &account,
        "0 ms  memory: stale, with 58 m 58 s left of its grace; 6 m 2 s old
         0 ms  nobody else is at it: this call goes on
         0 ms  memory: stale, with 58 m 58 s left of its grace; 6 m 2 s old
         0 ms  store: get on memory took 0 ms
         0 ms  store: stale, with 58 m 58 s left of its grace; 6 m 2 s old
         0 ms  its source is left alone for 8.0 s more, because of the last load: load failed: loader of key \"a\": the source is down
         0 ms  waited 0 ms: the earlier entry of the store, in place of a failure: load failed: loader of key \"a\": the source is down
         0 ms  stale hit, from the store",
    );

    let (_, account) = explain(numbers.invalidate(["users"])).await;
    assert!(account.to_string().contains("tag invalidated: \"users\""), "{account}");
    harness.clock.advance(seconds(3));
    let (_, account) = explain(numbers.get("a")).await;
    says(
        &account,
        "0 ms  memory: gone, because tag \"users\" was invalidated 3.0 s ago; 6 m 5 s old
         0 ms  evicted: expired
         0 ms  store: get on memory took 0 ms
         0 ms  store: get on memory took 0 ms
         0 ms  store: gone, because tag \"users\" was invalidated 3.0 s ago; 6 m 5 s old
         0 ms  miss",
    );
}

#[tokio::test]
async fn a_load_is_told_from_the_first_look_to_what_is_kept() {
    let harness = Harness::new(Tiers::Both);
    let numbers = cache::<u32>(&harness);
    let clock = harness.clock.clone();
    let load = move || async move {
        clock.advance(seconds(2));
        Ok::<_, std::io::Error>(7)
    };
    let (_, account) = explain(numbers.get_or_set("a", load).ttl(minutes(5))).await;
    says(
        &account,
        "0 ms  memory: nothing
         0 ms  nobody else is at it: this call goes on
         0 ms  memory: nothing
         0 ms  store: get on memory took 0 ms
         0 ms  store: nothing
        2.0 s  loader: after 2.0 s, a value, fresh for 5 m 0 s
        2.0 s  store: set on memory took 0 ms
        2.0 s  memory: took it in
        2.0 s  written: fresh for 5 m 0 s
        2.0 s  waited 2.0 s: its loaded value
        2.0 s  miss",
    );
    let step = account.steps.iter().find(|step| matches!(step.what, Fact::Called { .. })).unwrap();
    assert_eq!((step.stack.as_str(), step.key.as_deref()), ("test", None));
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_somebody_elses_load_is_told_and_so_is_the_option_that_ends_it() {
    let harness = Harness::new(Tiers::L1);
    let numbers = cache::<u32>(&harness);
    let slow = Gate::default();
    let first = spawn_load(&numbers, &slow, 1);
    settle().await;
    tokio::time::advance(seconds(3)).await;
    let waiting = explain(numbers.get_or_set("a", || ok(2)));
    let (waited, ()) = tokio::join!(waiting, async {
        settle().await;
        slow.open.notify_one();
    });
    says(
        &waited.1,
        "0 ms  memory: nothing
         0 ms  somebody has been at it for 3.0 s: this call waits for that
         0 ms  waited 0 ms: its loaded value
         0 ms  miss",
    );
    first.await.unwrap().unwrap();

    numbers.set("a", 1).ttl(seconds(1)).grace(hours(1)).await.unwrap();
    harness.clock.advance(seconds(2));
    let load = slow.clone();
    let request = numbers.get_or_set("a", move || load.load(2)).soft_timeout(seconds(0));
    let (_, account) = explain(request).await;
    let said = account.to_string();
    assert!(
        said.contains("the earlier entry of memory, because soft_timeout is over; the load goes on"),
        "{said}"
    );
    slow.open.notify_one();
    settle().await;
}

#[tokio::test]
async fn a_read_with_an_open_breaker_is_told() {
    let breaker = BreakerOptions::default().failures(1).pause(seconds(4));
    let harness = Harness::with(Tiers::Both, |builder| builder.breaker(Some(breaker)));
    let numbers = cache::<u32>(&harness);
    harness.chaos.fail_everything(ErrorKind::Unavailable);
    let (_, account) = explain(numbers.get("a")).await;
    says(
        &account,
        "0 ms  memory: nothing
         0 ms  store: get on memory failed after 0 ms: unavailable: chaos was told to fail GetMany
         0 ms  breaker opened: the store is left alone for 4s
         0 ms  miss",
    );
    harness.clock.advance(seconds(1));
    let (_, account) = explain(numbers.get("a")).await;
    says(
        &account,
        "0 ms  memory: nothing
         0 ms  store: get on memory was not tried, because its breaker is open for 3.0 s more
         0 ms  miss",
    );
}

#[tokio::test]
async fn what_a_load_lost_against_and_what_memory_may_not_serve_is_told() {
    let harness = Harness::new(Tiers::Both);
    let numbers = cache::<u32>(&harness).with_options(EntryOptions::default().memory_ttl(seconds(5)));
    let other = numbers.clone();
    let load = move || async move {
        other.delete("a").await.unwrap();
        Ok::<_, std::io::Error>(1)
    };
    let (_, account) = explain(numbers.get_or_set("a", load)).await;
    let said = account.to_string();
    assert!(said.contains("not kept: the key was written, deleted, expired"), "{said}");

    numbers.set("a", 1).ttl(minutes(1)).await.unwrap();
    harness.clock.advance(seconds(5));
    let (_, account) = explain(numbers.get("a")).await;
    let is_asked = |fact: &Fact| {
        matches!(
            fact,
            Fact::Looked { tier: Tier::L1, found: Finding::Entry { because: Because::MemoryTtl, .. } }
        )
    };
    assert!(account.steps.iter().any(|step| is_asked(&step.what)), "{account}");
    assert!(account.to_string().contains("but its memory_ttl is over"), "{account}");
}

#[tokio::test]
async fn clears_deletes_and_damage_are_told() {
    let harness = Harness::new(Tiers::L2);
    let users = cache::<u32>(&harness).namespace("users").unwrap();
    users.set("a", 1).ttl(minutes(1)).grace(hours(1)).await.unwrap();
    users.clear().soft().await.unwrap();
    harness.clock.advance(seconds(7));
    let (_, account) = explain(users.get_stale("a")).await;
    let said = account.to_string();
    assert!(
        said.contains("store: stale, because namespace \"users\" was cleared softly 7.0 s ago"),
        "{said}"
    );

    users.delete("a").await.unwrap();
    harness.clock.advance(seconds(9));
    let (_, account) = explain(users.get("a")).await;
    assert!(account.to_string().contains("store: deleted 9.0 s ago"), "{account}");
    let (_, account) = explain(async {
        users.has("a").await.unwrap();
        users.has("b").await.unwrap();
    })
    .await;
    assert!(account.to_string().contains("\"users:a\": store: deleted"), "with its key: {account}");

    users.set("c", 1).await.unwrap();
    let full = larder::key::KeySpace::new("test").unwrap().child("users").unwrap().full("c").unwrap();
    harness
        .chaos
        .lie(full, Some(bytes::Bytes::from_static(b"rubbish, and more of it, so that it is long enough")));
    let (_, account) = explain(users.get("c")).await;
    assert!(account.to_string().contains("store: what it has is not written by larder"), "{account}");
}

#[tokio::test]
async fn an_account_is_bounded_and_is_of_one_task_only() {
    let harness = Harness::new(Tiers::L1);
    let numbers = cache::<u32>(&harness);
    numbers.set("a", 1).await.unwrap();
    let (_, account) = explain(async {
        for _ in 0..STEPS_MAX {
            numbers.get("a").await.unwrap();
        }
    })
    .await;
    assert_eq!((account.steps.len(), account.omitted), (STEPS_MAX, STEPS_MAX as u64));
    assert!(account.to_string().ends_with("and 1000 steps more\n"));

    let other = numbers.clone();
    let (stranger, account) = explain(async {
        let stranger = [tokio::spawn(async move { other.get("a").await })];
        settle().await;
        stranger
    })
    .await;
    for stranger in stranger {
        stranger.await.unwrap().unwrap();
    }
    assert!(account.steps.is_empty(), "{account}");
    assert_eq!(harness.chaos.calls(Operation::Get), 0);
}

#[tokio::test]
async fn an_account_is_json_with_times_in_microseconds() {
    let harness = Harness::new(Tiers::L1);
    let numbers = cache::<u32>(&harness);
    numbers.set("a", 1).ttl(minutes(5)).await.unwrap();
    let (_, account) = explain(numbers.get("a")).await;
    let json = serde_json::to_value(&account).unwrap();
    let step = &json["steps"][0];
    assert_eq!((&step["what"], &step["tier"], &step["key"]), (&"looked".into(), &"L1".into(), &"a".into()));
    assert_eq!(step["found"]["ttl_left_us"], 300_000_000);
    assert_eq!(step["found"]["freshness"], "fresh");
    assert_eq!(step["found"]["because"]["reason"], "times");
    assert_eq!(json["steps"][1]["what"], "hit");
}

#[tokio::test]
async fn fallbacks_forced_loads_slides_and_writes_of_a_source_are_told() {
    let harness = Harness::new(Tiers::L1);
    let numbers = cache::<u32>(&harness);
    let (_, account) = explain(numbers.get_or_set("a", down).fallback(9)).await;
    assert!(account.to_string().contains("the fallback of the call stands in"), "{account}");

    numbers.set("b", 1).await.unwrap();
    let (found, account) = explain(numbers.get_or_set("b", down).force()).await;
    assert_eq!(*found.unwrap(), 1);
    assert!(account.to_string().ends_with("hit, from memory\n"), "what is fresh is no stale hit: {account}");
    assert_eq!(harness.stack.stats().hits_stale, 0);

    let sliding = EntryOptions::default().refresh(larder::Refresh::Sliding { idle: seconds(60) });
    numbers.clone().with_options(sliding).set("s", 1).await.unwrap();
    harness.clock.advance(seconds(30));
    let (_, account) = explain(numbers.get("s")).await;
    assert!(account.to_string().contains("it slides: fresh for 1 m 15 s from now"), "{account}");

    let users = numbers
        .read_through(|_: String| async { Ok::<_, std::io::Error>(Some(1)) })
        .write_through(|_: String, _: std::sync::Arc<u32>| async { Ok::<_, std::io::Error>(()) });
    let (written, account) = explain(users.set("w", 5)).await;
    written.unwrap();
    assert!(account.to_string().contains("written"), "{account}");
}
