//! Two stacks over one store, as two processes would be: each with a connection and a memory of its own.

use larder::driver::Driver;
use larder::time::minutes;
use larder::{Cache, Present, Stack, Updated};

use crate::traffic::prefix;

/// Runs the tests of this file over a driver: `open` gives one, or `None` if there is no server.
macro_rules! stack_suite {
    ($name:ident, $open:expr) => {
        $crate::stacks::stack_suite!(@ $name, $open,
            what_one_stack_does_the_other_sees,
            a_load_does_not_bury_a_delete_of_another_stack,
            counts_of_two_stacks_add_up,
            updates_of_two_stacks_are_all_kept);
    };
    (@ $name:ident, $open:expr, $($test:ident),*) => {
        mod $name {
            use super::*;

            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                if let (Some(one), Some(two)) = ($open().await, $open().await) {
                    $crate::stacks::$test($crate::stacks::pair(one, two)).await;
                }
            })*
        }
    };
}
pub(crate) use stack_suite;

/// Two stacks that share a store and a prefix which nobody else has.
pub(crate) fn pair(one: impl Driver, two: impl Driver) -> [Stack; 2] {
    let prefix = prefix("stacks").replace([' ', ':'], "-");
    let stack = || Stack::builder("shared").prefix(&prefix);
    [stack().store(one).build().unwrap(), stack().store(two).build().unwrap()]
}

fn caches(stacks: &[Stack; 2]) -> [Cache<String>; 2] {
    stacks.each_ref().map(|stack| stack.cache().unwrap())
}

pub(crate) async fn loaded(cache: &Cache<String>, key: &str, value: &'static str) -> String {
    let load = move || async move { Ok::<_, std::io::Error>(value.to_owned()) };
    cache.get_or_set(key, load).ttl(minutes(5)).tags(["all"]).await.unwrap().to_string()
}

pub(crate) async fn what_one_stack_does_the_other_sees(stacks: [Stack; 2]) {
    let [one, two] = caches(&stacks);
    assert_eq!(loaded(&one, "k", "one's").await, "one's");
    assert_eq!(loaded(&two, "k", "two's").await, "one's");
    two.delete("k").await.unwrap();
    assert_eq!(one.get("k").await.unwrap(), None);
    assert_eq!(loaded(&one, "k", "again").await, "again");
    two.invalidate(["all"]).await.unwrap();
    assert_eq!(one.get("k").await.unwrap(), None);
    assert_eq!(loaded(&one, "k", "tagged").await, "tagged");
    two.clear().await.unwrap();
    assert_eq!(one.get("k").await.unwrap(), None);
    let values = (0..200).map(|n| (n.to_string(), format!("value {n}")));
    one.set_many(values).await.unwrap();
    let keys: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    for (n, value) in two.get_many(&keys).await.unwrap().into_iter().enumerate() {
        assert_eq!(value.unwrap().to_string(), format!("value {n}"));
    }
    two.clear().await.unwrap();
}

pub(crate) async fn a_load_does_not_bury_a_delete_of_another_stack(stacks: [Stack; 2]) {
    let [one, two] = caches(&stacks);
    let (begun, loading) = tokio::sync::oneshot::channel();
    let (go_on, wait) = tokio::sync::oneshot::channel::<()>();
    let load = tokio::spawn(async move {
        let load = || async move {
            begun.send(()).unwrap();
            wait.await.unwrap();
            Ok::<_, std::io::Error>("old".to_owned())
        };
        one.get_or_set("k", load).await.unwrap().to_string()
    });
    loading.await.unwrap();
    // Each stack stamps by its own clock, and clocks tick every few milliseconds.
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    two.delete("k").await.unwrap();
    go_on.send(()).unwrap();
    assert_eq!(load.await.unwrap(), "old");
    assert_eq!(two.get("k").await.unwrap(), None, "the load began before the delete");
}

pub(crate) async fn counts_of_two_stacks_add_up(stacks: [Stack; 2]) {
    let counters = stacks.each_ref().map(|stack| stack.cache::<i64>().unwrap());
    let counting = counters.clone().map(|counter| {
        tokio::spawn(async move {
            for _ in 0..200 {
                counter.increment("n", 1).await.unwrap();
            }
        })
    });
    for counting in counting {
        counting.await.unwrap();
    }
    let total = counters.each_ref().map(|counter| counter.get("n"));
    for total in total {
        assert_eq!(total.await.unwrap().as_deref(), Some(&400));
    }
}

pub(crate) async fn updates_of_two_stacks_are_all_kept(stacks: [Stack; 2]) {
    let lists = stacks.each_ref().map(|stack| stack.cache::<Vec<u32>>().unwrap());
    let mut first = 0;
    let updating = lists.clone().map(|list| {
        first += 50;
        tokio::spawn(async move {
            for number in first..first + 50 {
                let push = |present: Option<Present<Vec<u32>>>| {
                    let mut list = present.map(|present| (*present.value).clone()).unwrap_or_default();
                    list.push(number);
                    Updated::put(list)
                };
                assert!(list.update("n", push).await.unwrap());
            }
        })
    });
    for updating in updating {
        updating.await.unwrap();
    }
    for list in &lists {
        let mut all = (*list.get("n").await.unwrap().unwrap()).clone();
        all.sort_unstable();
        assert_eq!(all, (50..150).collect::<Vec<u32>>());
    }
}
