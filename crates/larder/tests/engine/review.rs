//! What happens between the awaits: operations that overlap, are dropped half-way, or meet a clock that
//! jumps, over a store that yields before and after everything it does.

use std::sync::Arc;

use larder::testing::{Harness, Tiers};
use tokio::sync::Notify;
use tokio::task::yield_now;

use crate::flow::{cache, ok};

#[tokio::test]
async fn a_lookup_after_a_clear_is_not_handed_a_load_from_before_it() {
    for tiers in Tiers::ALL {
        for clears_all in [true, false] {
            let harness = Harness::new(tiers);
            let all = cache::<u32>(&harness);
            let numbers = all.namespace("n").unwrap();
            let (started, open) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
            let old = tokio::spawn({
                let (numbers, started, open) = (numbers.clone(), Arc::clone(&started), Arc::clone(&open));
                async move {
                    let load = move || async move {
                        started.notify_one();
                        open.notified().await;
                        Ok::<_, std::io::Error>(1)
                    };
                    numbers.get_or_set("a", load).await
                }
            });
            started.notified().await;
            if clears_all {
                all.clear().await.unwrap()
            } else {
                numbers.clear().await.unwrap()
            };
            let new = tokio::spawn({
                let numbers = numbers.clone();
                async move { numbers.get_or_set("a", || ok(2)).await }
            });
            for _ in 0..50 {
                yield_now().await;
            }
            open.notify_one();
            assert_eq!(*old.await.unwrap().unwrap(), 1);
            assert_eq!(*new.await.unwrap().unwrap(), 2, "{tiers:?}");
            assert_eq!(*numbers.get("a").await.unwrap().unwrap(), 2, "{tiers:?}");
            harness.finish(3).await;
        }
    }
}
