//! Turns: of the processes that share a store, one at a time loads a key. A stack here is what a process would have.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use larder::driver::memory::MemoryDriver;
use larder::driver::{Driver, When};
use larder::memory::MemoryOptions;
use larder::testing::{Chaos, Operation};
use larder::time::{Clock as _, Stamp, SystemClock, Timestamp, hours, minutes, seconds};
use larder::{Cache, EntryOptions, ErrorKind, Refresh, Stack};

use crate::loads::{Gate, spawn_load};

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The caches of so many processes over one store.
fn processes<const N: usize>(store: &Arc<dyn Driver>, options: EntryOptions) -> [Cache<u32>; N] {
    std::array::from_fn(|_| {
        let stack = Stack::builder("turns").memory(MemoryOptions::new(100)).store(Arc::clone(store));
        stack.options(options).build().unwrap().cache().unwrap()
    })
}

fn store() -> Arc<dyn Driver> {
    Arc::new(MemoryDriver::default())
}

fn lease(lease: Duration) -> EntryOptions {
    EntryOptions::default().ttl(minutes(5)).across_processes(lease)
}

/// Lets tasks run until something is so.
async fn until(is_so: impl Fn() -> bool) {
    let begun = SystemClock::default();
    while !is_so() {
        assert!(begun.monotonic() < seconds(10), "it never came to that");
        tokio::time::sleep(millis(1)).await;
    }
}

/// Waits until the lease is given back, which is after those who wait for the value have it.
async fn gives_back(store: &dyn Driver) {
    let begun = SystemClock::default();
    while store.get("turns:1@:a").await.unwrap().is_some() {
        assert!(begun.monotonic() < seconds(5), "the lease is still there");
        tokio::time::sleep(millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_processes_one_loads_and_all_get_its_value() {
    for (takes_turns, expected) in [(true, 1), (false, 16)] {
        let options = if takes_turns { lease(seconds(30)) } else { EntryOptions::default() };
        let caches: [_; 16] = processes(&store(), options);
        let loads = Arc::new(AtomicU64::new(0));
        let asking = caches.iter().map(|cache| {
            let loads = Arc::clone(&loads);
            cache.get_or_set("k", move || async move {
                loads.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(millis(100)).await;
                Ok::<_, std::io::Error>(7)
            })
        });
        for found in join_all(asking.map(IntoFuture::into_future)).await {
            assert_eq!(*found.unwrap(), 7);
        }
        assert_eq!(loads.load(Ordering::Relaxed), expected);
        // Every memory has it, so nobody asks the store again.
        for cache in &caches {
            assert_eq!(cache.get("k").await.unwrap().as_deref(), Some(&7));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_may_take_longer_than_its_lease_while_its_process_lives() {
    let [one, two] = processes(&store(), lease(millis(60)));
    let gate = Gate::default();
    let loading = spawn_load(&one, &gate, 1);
    gate.started.notified().await;
    let waiting = spawn_load(&two, &gate, 2);
    tokio::time::sleep(millis(600)).await;
    assert_eq!(gate.runs(), 1, "ten leases later");
    gate.open.notify_one();
    assert_eq!(*loading.await.unwrap().unwrap(), 1);
    assert_eq!(*waiting.await.unwrap().unwrap(), 1);
}

#[test]
fn a_process_that_dies_while_it_loads_costs_the_others_one_lease() {
    let store = store();
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let dying = runtime();
    let [one, two] = processes(&store, lease(millis(300)));
    let gate = Gate::default();
    dying.block_on(async {
        spawn_load(&one, &gate, 1);
        gate.started.notified().await;
    });
    // Nothing of it runs any more, not even what would give the lease back.
    dying.shutdown_background();
    runtime().block_on(async {
        let begun = SystemClock::default();
        let found = two.get_or_set("a", || async { Ok::<_, std::io::Error>(2) }).await.unwrap();
        let took = begun.monotonic();
        assert_eq!(*found, 2);
        assert!(took > millis(200) && took < seconds(3), "{took:?}");
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_the_store_never_forgets_runs_out_all_the_same() {
    let store = store();
    let [cache] = processes(&store, lease(millis(200)));
    // Of a process that has died, in a store that keeps what has expired.
    let record = larder::entry::wire::encode_tombstone(Stamp::from_bits(1), Timestamp::ZERO);
    store.set("turns:1@:a", record, None, When::Always).await.unwrap();
    let begun = SystemClock::default();
    let found = cache.get_or_set("a", || async { Ok::<_, std::io::Error>(2) }).await.unwrap();
    let took = begun.monotonic();
    assert_eq!(*found, 2);
    assert!(took > millis(200) && took < seconds(3), "{took:?}");
    gives_back(&*store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stored_just_before_the_turn_comes_is_not_loaded_again() {
    let store = store();
    let slow = Chaos::new(Arc::clone(&store));
    slow.handle().delay(Operation::Set, millis(200));
    let [one] = processes(&store, lease(seconds(60)));
    let [two] = processes(&(Arc::new(slow) as Arc<dyn Driver>), lease(seconds(60)));
    // This one finds nothing, and is slow to say that it loads.
    let asking =
        tokio::spawn(async move { two.get_or_set("a", || async { Ok::<_, std::io::Error>(2) }).await });
    tokio::time::sleep(millis(50)).await;
    assert_eq!(*one.get_or_set("a", || async { Ok::<_, std::io::Error>(1) }).await.unwrap(), 1);
    assert_eq!(*asking.await.unwrap().unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_fails_gives_the_turn_to_the_next() {
    let [one, two] = processes(&store(), lease(seconds(60)));
    let gate = Gate::default();
    let failing = {
        let (one, gate) = (one.clone(), gate.clone());
        tokio::spawn(async move {
            let load = move || async move {
                gate.load(0).await?;
                Err::<u32, _>(std::io::Error::other("the source is down"))
            };
            one.get_or_set("a", load).await
        })
    };
    gate.started.notified().await;
    let waiting =
        tokio::spawn(async move { two.get_or_set("a", || async { Ok::<_, std::io::Error>(2) }).await });
    tokio::time::sleep(millis(50)).await;
    assert!(!waiting.is_finished());
    gate.open.notify_one();
    assert_eq!(failing.await.unwrap().unwrap_err().kind(), ErrorKind::Load);
    assert_eq!(*tokio::time::timeout(seconds(5), waiting).await.unwrap().unwrap().unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_something_stale_is_served_it_while_another_process_loads() {
    let store = store();
    let [one, two] = processes(&store, lease(seconds(60)).ttl(millis(1)).grace(hours(1)));
    one.set("a", 0).await.unwrap();
    tokio::time::sleep(millis(5)).await;
    let gate = Gate::default();
    let loading = spawn_load(&one, &gate, 1);
    gate.started.notified().await;
    let patient = gate.clone();
    let stale = two.get_or_set("a", move || patient.load(2)).soft_timeout(millis(10)).await.unwrap();
    assert_eq!((*stale, gate.runs()), (0, 1));
    let hurried = gate.clone();
    let asked = two.get_or_set("b", move || hurried.load(3)).hard_timeout(millis(20)).await;
    assert_eq!(asked.unwrap_err().kind(), ErrorKind::Timeout, "another key, another turn: it is loading");
    gate.open.notify_waiters();
    assert_eq!(*loading.await.unwrap().unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_fails_keeps_nobody_from_loading() {
    let chaos = Chaos::new(MemoryDriver::default());
    let handle = chaos.handle();
    let store: Arc<dyn Driver> = Arc::new(chaos);
    let [one, two] = processes(&store, lease(seconds(60)));
    let gate = Gate::default();
    let first = spawn_load(&one, &gate, 1);
    gate.started.notified().await;
    let second = spawn_load(&two, &gate, 2);
    tokio::time::sleep(millis(50)).await;
    assert_eq!(gate.runs(), 1);
    // It waits for its turn, and the store goes.
    handle.fail_everything(ErrorKind::Unavailable);
    until(|| gate.runs() == 2).await;
    gate.open.notify_waiters();
    assert_eq!(*first.await.unwrap().unwrap(), 1);
    assert_eq!(*second.await.unwrap().unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_fresh_is_renewed_by_one_process() {
    let options = lease(seconds(60)).refresh(Refresh::Early { share: 0.0 });
    let [one, two] = processes(&store(), options);
    one.set("a", 0).await.unwrap();
    let gate = Gate::default();
    assert_eq!(*spawn_load(&one, &gate, 1).await.unwrap().unwrap(), 0);
    gate.started.notified().await;
    for _ in 0..20 {
        assert_eq!(*spawn_load(&two, &gate, 2).await.unwrap().unwrap(), 0);
        tokio::time::sleep(millis(5)).await;
    }
    assert_eq!(gate.runs(), 1);
    gate.open.notify_one();
    let renewed = SystemClock::default();
    while one.get("a").await.unwrap().as_deref() != Some(&1) {
        assert!(renewed.monotonic() < seconds(10));
        tokio::time::sleep(millis(1)).await;
    }
    assert_eq!(gate.runs(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forced_loads_and_many_keys_take_no_turns() {
    let [one, two] = processes(&store(), lease(seconds(60)));
    let gate = Gate::default();
    let loading = spawn_load(&one, &gate, 1);
    gate.started.notified().await;
    let forced = two.get_or_set("a", || async { Ok::<_, std::io::Error>(2) }).force().await.unwrap();
    assert_eq!(*forced, 2);
    two.delete("a").await.unwrap();
    let load = |keys: Vec<String>| async move {
        Ok::<_, std::io::Error>(
            keys.into_iter().map(|key| (key, Ok::<u32, std::io::Error>(3))).collect::<Vec<_>>(),
        )
    };
    let many = two.get_or_set_many(&["a", "b"], load).await;
    assert_eq!(many.into_iter().map(|value| *value.unwrap()).collect::<Vec<_>>(), [3, 3]);
    gate.open.notify_one();
    // The delete was after it began: nobody keeps it.
    assert_eq!(*loading.await.unwrap().unwrap(), 1);
    assert_eq!(two.get("a").await.unwrap().as_deref(), Some(&3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_lease_is_left_and_an_account_tells_of_the_wait() {
    let driver = Arc::new(MemoryDriver::default());
    let [one, two] = processes(&(Arc::clone(&driver) as Arc<dyn Driver>), lease(seconds(60)));
    let gate = Gate::default();
    let loading = spawn_load(&one, &gate, 1);
    gate.started.notified().await;
    let explained = tokio::spawn(larder::explain(async move {
        two.get_or_set("a", || async { Ok::<_, std::io::Error>(2) }).await.unwrap()
    }));
    tokio::time::sleep(millis(50)).await;
    gate.open.notify_one();
    loading.await.unwrap().unwrap();
    let (found, account) = explained.await.unwrap();
    assert_eq!(*found, 1);
    let said = account.to_string();
    assert!(said.contains("another process had the turn to load it: waited"), "{said}");
    gives_back(&*driver).await;
    let left: Vec<_> = futures_util::TryStreamExt::try_collect(driver.scan("turns")).await.unwrap();
    let left: Vec<&str> = left.iter().map(|found: &larder::driver::Scanned| found.key.as_str()).collect();
    assert_eq!(left, ["turns:1::a"]);
}

/// A load that counts itself, takes its time, and fails.
fn failing(runs: &Arc<AtomicU64>) -> impl Future<Output = Result<u32, std::io::Error>> + use<> {
    runs.fetch_add(1, Ordering::Relaxed);
    async {
        tokio::time::sleep(millis(300)).await;
        Err(std::io::Error::other("the source is down"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loads_that_leave_nothing_are_not_waited_for_one_after_the_other() {
    let caches: [_; 8] = processes(&store(), lease(seconds(60)));
    let runs = Arc::new(AtomicU64::new(0));
    let begun = SystemClock::default();
    let asking = caches.iter().map(|cache| {
        let runs = Arc::clone(&runs);
        cache.get_or_set("a", move || failing(&runs)).into_future()
    });
    assert!(join_all(asking).await.iter().all(Result::is_err));
    // One, and then the others beside each other.
    assert!(begun.monotonic() < millis(1_500), "{:?}", begun.monotonic());
    assert_eq!(runs.load(Ordering::Relaxed), 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_hangs_is_not_waited_for_for_ever() {
    let [one, two] = processes(&store(), lease(millis(100)));
    let gate = Gate::default();
    let hanging = spawn_load(&one, &gate, 1);
    gate.started.notified().await;
    let begun = SystemClock::default();
    let found = two.get_or_set("a", || async { Ok::<_, std::io::Error>(2) }).await.unwrap();
    let took = begun.monotonic();
    assert_eq!(*found, 2);
    assert!(took > millis(1_500) && took < seconds(8), "twenty leases: {took:?}");
    gate.open.notify_one();
    hanging.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_load_in_the_same_process_does_not_wait_for_the_lease_of_the_first() {
    let [one] = processes(&store(), lease(seconds(60)));
    let gate = Gate::default();
    let hanging = spawn_load(&one, &gate, 1);
    gate.started.notified().await;
    let load = || async { Ok::<_, std::io::Error>(2) };
    let beside = one.get_or_set("a", load).replace_after(millis(20)).into_future();
    assert_eq!(*tokio::time::timeout(seconds(5), beside).await.unwrap().unwrap(), 2);
    gate.open.notify_one();
    hanging.await.unwrap().unwrap();

    one.delete("a").await.unwrap();
    let gate = Gate::default();
    let overtaken = spawn_load(&one, &gate, 3);
    gate.started.notified().await;
    one.delete("a").await.unwrap();
    let after = one.get_or_set("a", load).into_future();
    assert_eq!(*tokio::time::timeout(seconds(5), after).await.unwrap().unwrap(), 2);
    gate.open.notify_one();
    overtaken.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stack_that_closes_does_not_wait_for_the_loads_of_others() {
    let store = store();
    let [one] = processes(&store, lease(seconds(60)));
    let closing = Stack::builder("turns")
        .borrowed_store(Arc::clone(&store))
        .options(lease(seconds(60)))
        .build()
        .unwrap();
    let gate = Gate::default();
    let loading = spawn_load(&one, &gate, 1);
    gate.started.notified().await;
    let waiting = spawn_load(&closing.cache().unwrap(), &gate, 2);
    tokio::time::sleep(millis(50)).await;
    tokio::time::timeout(seconds(5), closing.close()).await.unwrap().unwrap();
    assert_eq!(waiting.await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(gate.runs(), 1);
    gate.open.notify_one();
    loading.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_whose_answer_is_lost_loses_no_lease() {
    let store = store();
    let chaos = Chaos::new(Arc::clone(&store));
    let handle = chaos.handle();
    let [one] = processes(&(Arc::new(chaos) as Arc<dyn Driver>), lease(millis(300)));
    let [two] = processes(&store, lease(millis(300)));
    let gate = Gate::default();
    let loading = spawn_load(&one, &gate, 1);
    gate.started.notified().await;
    let waiting = spawn_load(&two, &gate, 2);
    handle.fail_next_after_landing(Operation::Set, 1, ErrorKind::Timeout);
    tokio::time::sleep(millis(1_500)).await;
    assert_eq!(gate.runs(), 1);
    gate.open.notify_one();
    assert_eq!(*loading.await.unwrap().unwrap(), 1);
    assert_eq!(*waiting.await.unwrap().unwrap(), 1);
}
