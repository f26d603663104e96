//! The filter before a source: what it rules out, what it may not, and what it says of itself.

use std::io;
use std::sync::Arc;

use futures_util::stream;
use larder::ErrorKind;
use larder::source::{KEY_FILTER_BYTES_MAX, KnownKeys, KnownKeysOptions};
use larder::testing::{Harness, Tiers};
use larder::time::{hours, seconds};
use tokio::sync::Semaphore;

use crate::flow::cache;
use crate::sources::{Database, reading, writing_by};

fn filter(expected: u64) -> KnownKeys {
    KnownKeys::new(KnownKeysOptions::new(expected)).unwrap()
}

#[tokio::test]
async fn what_is_ruled_out_is_none_without_a_load_and_is_one_miss() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let (database, known) = (Database::with("a", 1), filter(100));
        let numbers = reading(&cache(&harness), &database).known_keys(known.clone());
        known.fill(["a"]).unwrap();
        for _ in 0..3 {
            assert_eq!(numbers.get("made up").await.unwrap(), None);
        }
        assert_eq!((database.reads(), known.stats().loads_avoided), (0, 3), "{tiers:?}");
        assert_eq!(harness.recorder.lines(), ["miss made up"; 3], "not kept, and no load");
        assert_eq!(numbers.get("a").await.unwrap().as_deref(), Some(&1));
        assert_eq!((database.reads(), known.stats().loads_in_vain), (1, 0));
        harness.finish(4).await;
    }
}

#[tokio::test]
async fn nothing_is_ruled_out_before_the_filter_was_filled_to_the_end() {
    let harness = Harness::new(Tiers::Both);
    let (database, known) = (Database::with("a", 1), filter(100));
    let numbers = reading(&cache(&harness), &database).known_keys(known.clone());
    known.add("b");
    assert_eq!(*numbers.get("a").await.unwrap().unwrap(), 1);
    assert_eq!(numbers.get("c").await.unwrap(), None);
    assert_eq!((known.stats().loads_avoided, known.stats().loads_in_vain), (0, 1));

    let broken = stream::iter([Ok("b"), Err(io::Error::other("connection lost"))]);
    let error = known.fill_from(broken).await.unwrap_err();
    assert_eq!((error.kind(), known.stats().is_filled), (ErrorKind::Load, false));
    assert_eq!(error.load_error::<io::Error>().unwrap().to_string(), "connection lost");
    let endless = known.fill_from(stream::pending::<io::Result<String>>());
    assert!(futures_util::FutureExt::now_or_never(endless).is_none());
    assert!(known.may_have("d") && !known.stats().is_filled, "dropped half-way");
    assert_eq!(known.stats().bytes, 0, "what was begun is thrown away");
    assert!(known.stats().advice().unwrap().contains("never filled"));

    assert_eq!(known.fill_from(stream::iter([Ok::<_, io::Error>("a")])).await.unwrap(), 1);
    assert!(known.may_have("a") && !known.may_have("d"));
    harness.finish(2).await;
}

#[tokio::test]
async fn what_the_cache_has_is_served_known_or_not() {
    for tiers in Tiers::ALL {
        let harness = Harness::new(tiers);
        let (numbers, database, known) = (cache::<u32>(&harness), Database::default(), filter(100));
        let read = reading(&numbers, &database).known_keys(known.clone());
        known.fill::<&str>([]).unwrap();
        numbers.set("a", 1).ttl(seconds(1)).grace(hours(1)).await.unwrap();
        assert_eq!(read.get("a").await.unwrap().as_deref(), Some(&1), "{tiers:?}");
        harness.clock.advance(seconds(2));
        assert_eq!(read.get("a").await.unwrap(), None, "stale is not what the source says");
        assert_eq!((database.reads(), known.stats().loads_avoided), (0, 1));
        harness.finish(2).await;
    }
}

#[tokio::test]
async fn writes_feed_the_filter_before_the_source_has_them() {
    let harness = Harness::new(Tiers::Both);
    let (database, known) = (Database::default(), filter(100));
    let read = reading(&cache(&harness), &database).known_keys(known.clone());
    let written = writing_by(read.clone(), &database);
    known.fill::<&str>([]).unwrap();
    let gate = database.hold(1);
    let set = {
        let written = written.clone();
        tokio::spawn(async move { written.set("a", 1).await })
    };
    gate.started.notified().await;
    assert_eq!(*read.get("a").await.unwrap().unwrap(), 1, "the source has it");
    gate.open.notify_one();
    set.await.unwrap().unwrap();

    let to = database.clone();
    written.change("b", || async move { to.save("b".to_owned(), 2).await }).await.unwrap();
    assert_eq!(*read.get("b").await.unwrap().unwrap(), 2);
    let invalidate = read.clone().write_invalidate(|_, _: Arc<u32>| async { Ok::<_, io::Error>(()) });
    invalidate.set("c", 3).await.unwrap();
    assert!(known.may_have("c") && !known.may_have("d"));
    harness.finish(2).await;
}

#[tokio::test]
async fn what_is_written_while_the_filter_is_filled_again_is_kept_and_what_was_deleted_goes() {
    let harness = Harness::new(Tiers::L1);
    let (database, known) = (Database::default(), filter(100));
    let written = writing_by(reading(&cache(&harness), &database).known_keys(known.clone()), &database);
    known.fill(["deleted"]).unwrap();

    // It has begun before the filling, and the source has it when the listing has passed by.
    let early = database.hold(1);
    let set = {
        let written = written.clone();
        tokio::spawn(async move { written.set("early", 1).await })
    };
    early.started.notified().await;
    let go_on = Arc::new(Semaphore::new(0));
    let listing = {
        let go_on = Arc::clone(&go_on);
        stream::once(async move {
            go_on.acquire().await.unwrap().forget();
            Ok::<_, io::Error>("listed")
        })
    };
    let filling = {
        let known = known.clone();
        tokio::spawn(async move { known.fill_from(listing).await })
    };
    while known.stats().bytes == filter_bytes(&known, 1) {
        tokio::task::yield_now().await;
    }
    assert_eq!(known.stats().bytes, filter_bytes(&known, 2), "while it is filled again there are two");
    assert_eq!(known.fill(["x"]).unwrap_err().kind(), ErrorKind::Overloaded);
    assert!(known.may_have("deleted") && !known.may_have("listed"), "it answers from what it held");
    written.set("during", 2).await.unwrap();
    early.open.notify_one();
    set.await.unwrap().unwrap();
    go_on.add_permits(1);
    assert_eq!(filling.await.unwrap().unwrap(), 1);

    for key in ["listed", "during", "early"] {
        assert!(known.may_have(key), "{key}");
    }
    assert!(!known.may_have("deleted"));
    assert_eq!((known.stats().keys, known.stats().bytes), (3, filter_bytes(&known, 1)));
    harness.finish(0).await;
}

fn filter_bytes(known: &KnownKeys, count: u64) -> u64 {
    KnownKeysOptions::new(known.stats().expected_keys).bytes().unwrap() * count
}

#[test]
fn as_many_keys_as_expected_pass_at_the_rate_that_was_asked_for_in_the_bytes_that_were_said() {
    for rate in [0.1, 0.01, 0.001] {
        let options = KnownKeysOptions::new(20_000).false_positive_rate(rate);
        let known = KnownKeys::new(options).unwrap();
        assert_eq!(known.fill((0..20_000).map(|id| format!("user:{id}"))).unwrap(), 20_000);
        assert!((0..20_000).all(|id| known.may_have(&format!("user:{id}"))), "never a false negative");
        let passed = (0..200_000).filter(|id| known.may_have(&format!("nobody:{id}"))).count();
        let measured = passed as f64 / 200_000.0;
        let stats = known.stats();
        assert!((rate * 0.7..rate * 1.3).contains(&measured), "asked {rate}, measured {measured}");
        assert!(
            (rate * 0.8..rate * 1.2).contains(&stats.false_positive_rate),
            "asked {rate}, said {stats:?}"
        );
        assert!((19_600..20_400).contains(&stats.keys), "{stats:?}");
        assert_eq!((stats.bytes, stats.advice()), (options.bytes().unwrap(), None));
    }
}

#[test]
fn a_filter_that_holds_more_than_it_was_made_for_says_so_until_it_is_resized_and_filled_again() {
    let known = filter(1_000);
    let keys = || (0..5_000).map(|id| id.to_string());
    known.fill(keys()).unwrap();
    let stats = known.stats();
    let passed = (0..10_000).filter(|id| known.may_have(&format!("nobody:{id}"))).count();
    let measured = passed as f64 / 10_000.0;
    assert!((4_500..5_500).contains(&stats.keys), "{stats:?}");
    assert!((stats.false_positive_rate - measured).abs() < 0.05, "{stats:?}, measured {measured}");
    let advice = stats.advice().unwrap();
    assert!(advice.contains("made for 1000") && advice.contains("in place of 1.0 %"), "{advice}");
    known.resize(KnownKeysOptions::new(5_000)).unwrap();
    assert!(known.stats().advice().is_some(), "not before it is filled");
    known.fill(keys()).unwrap();
    assert_eq!((known.stats().advice(), known.stats().expected_keys), (None, 5_000));
}

#[test]
fn sizes_that_make_no_sense_are_refused_with_what_to_do() {
    let refused = |expected: u64, rate: f64, says: &str| {
        let options = KnownKeysOptions::new(expected).false_positive_rate(rate);
        let error = KnownKeys::new(options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(says), "{error}");
        assert!(filter(1).resize(options).is_err());
    };
    refused(0, 0.01, "say how many");
    for rate in [0.0, -1.0, 1.0, 0.51, 1e-10, f64::NAN, f64::INFINITY] {
        refused(1_000, rate, "0.01 is usual");
    }
    for expected in [1 << 40, u64::MAX] {
        refused(expected, 0.01, "expect fewer keys");
    }
    assert!(KnownKeysOptions::new(890_000_000).bytes().unwrap() <= KEY_FILTER_BYTES_MAX);
    assert_eq!(KnownKeysOptions::new(1).bytes().unwrap(), 8);
}

#[test]
fn keys_are_added_and_looked_up_by_many_threads_at_once() {
    let known = filter(40_000);
    known.fill::<&str>([]).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let known = &known;
            scope.spawn(move || {
                for id in 0..5_000 {
                    let key = format!("{thread}:{id}");
                    known.add(&key);
                    assert!(known.may_have(&key));
                    if id % 1_000 == 0 {
                        // Replaces the filter under those who add to it.
                        let _ =
                            known.fill((0..4).flat_map(|t| (0..5_000).map(move |id| format!("{t}:{id}"))));
                    }
                }
            });
        }
    });
    assert!((0..4).all(|thread| (0..5_000).all(|id| known.may_have(&format!("{thread}:{id}")))));
}
