//! What is answered from several parts.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use larder::Stack;
use larder::driver::memory::MemoryDriver;
use larder::testing::ManualClock;
use larder_http::store::{HttpStore, MemoryStore, MemoryStoreOptions, Purge, StackStore};

use super::{SECOND, Site, TEN, range, store, whole, with_parts};
use crate::scene::{Answer, Scene, Shelf, get, now, request, uri};

#[tokio::test]
async fn two_parts_answer_a_range_across_both() {
    let site = Site::of(TEN);
    let scene = with_parts(&site, &["bytes=0-4", "bytes=4-7"]).await;
    for (asked, body, place) in [
        ("bytes=2-6", "23456", "bytes 2-6/10"),
        ("bytes=0-7", "01234567", "bytes 0-7/10"),
        ("bytes=4-5", "45", "bytes 4-5/10"),
    ] {
        let got = scene.ask(range(asked)).await;
        assert_eq!((got.status, got.body.as_str(), got.header("content-range")), (206, body, place));
        assert_eq!(got.header("content-length"), body.len().to_string());
        // It is as old as the part that came last.
        assert_eq!((got.cache_status(), got.header("age")), ("Larder; hit; ttl=59", "1"));
    }
    let (parts, _) = range("bytes=2-6").into_parts();
    let why = scene.cache.explain(&parts).await.unwrap();
    assert_eq!(why.verdict, "answer from stored parts together");
    assert!(why.variants.iter().all(|variant| variant.is_selected));
    assert_eq!((scene.asked(), scene.cache.stats().hits), (2, 3));
    // What is in none of them is asked for as it is, and is a part as well.
    assert_eq!(scene.ask(range("bytes=6-9")).await.body, "6789");
    assert_eq!(site.last(), (Some("bytes=6-9".into()), None));
    assert!(scene.ask(range("bytes=1-9")).await.is_hit());
}

#[tokio::test]
async fn several_ranges_are_cut_from_parts_together() {
    let site = Site::of(TEN);
    site.set("content-type", "text/plain");
    let scene = with_parts(&site, &["bytes=5-9", "bytes=0-4"]).await;
    let got = scene.ask(range("bytes=3-6, 8-9")).await;
    assert!(got.is_hit());
    let boundary = got.header("content-type").strip_prefix("multipart/byteranges; boundary=").unwrap();
    let part = |place: &str, text: &str| {
        format!(
            "--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes {place}/10\r\n\r\n{text}\r\n"
        )
    };
    assert_eq!(got.body, part("3-6", "3456") + &part("8-9", "89") + &format!("--{boundary}--\r\n"));
    assert_eq!(got.header("content-length"), got.body.len().to_string());
}

#[tokio::test]
async fn parts_that_came_in_any_order_are_the_whole() {
    let site = Site::of(TEN);
    site.set("content-digest", "sha-256=:of the part:");
    let scene = with_parts(&site, &["bytes=0-2", "bytes=7-9", "bytes=2-7"]).await;
    let got = scene.get("/a").await;
    assert_eq!(whole(&got), (200, TEN, "10", ""));
    assert!(got.is_hit());
    assert_eq!((got.header("etag"), got.header("content-digest")), ("\"a\"", ""));
    let head = scene.ask(request("HEAD", "/a", &[])).await;
    assert_eq!(whole(&head), (200, "", "10", ""));
    assert_eq!(scene.ask(get("/a", &[("if-none-match", "\"a\"")])).await.status, 304);
    assert_eq!(scene.ask(get("/a", &[("cache-control", "only-if-cached")])).await.body, TEN);
    assert_eq!(scene.asked(), 3);
}

#[tokio::test]
async fn a_part_that_is_all_there_is_answers_for_the_whole() {
    let site = Site::of(TEN);
    let scene = with_parts(&site, &["bytes=0-"]).await;
    assert_eq!(whole(&scene.get("/a").await), (200, TEN, "10", ""));
    assert_eq!(scene.asked(), 1);
}

#[tokio::test]
async fn parts_that_need_not_be_of_the_same_are_not_joined() {
    type Change = fn(&Site);
    let changes: &[(&str, Change, Change)] = &[
        ("weak", |site| site.set("etag", "W/\"a\""), |_| {}),
        ("weak by then", |_| {}, |site| site.set("etag", "W/\"a\"")),
        (
            "none",
            |site| {
                site.unset("etag");
                site.set("last-modified", "Fri, 15 Jan 2027 07:00:00 GMT");
            },
            |_| {},
        ),
        ("another", |_| {}, |site| site.set("etag", "\"b\"")),
        ("coded", |_| {}, |site| site.set("content-encoding", "gzip")),
        ("typed", |site| site.set("content-type", "a/b"), |site| site.set("content-type", "a/c")),
        ("for other requests", |_| {}, |site| site.set("vary", "x")),
        ("of another length", |_| {}, |site| site.change("0123456789x", "\"a\"")),
    ];
    for (name, first, then) in changes {
        let site = Site::of(TEN);
        first(&site);
        let scene = with_parts(&site, &["bytes=0-4"]).await;
        then(&site);
        store(&scene, &["bytes=5-9"]).await;
        assert!(!scene.ask(range("bytes=3-6")).await.is_hit(), "{name}");
        assert!(!scene.get("/a").await.is_hit(), "{name}");
    }
}

#[tokio::test]
async fn what_says_nothing_of_its_kind_does_not_join_two_kinds() {
    let site = Site::of(TEN);
    let scene = with_parts(&site, &["bytes=3-5"]).await;
    site.set("content-type", "a/b");
    store(&scene, &["bytes=0-2"]).await;
    site.set("content-type", "a/c");
    store(&scene, &["bytes=6-9"]).await;
    assert!(!scene.get("/a").await.is_hit());
}

#[tokio::test]
async fn parts_are_as_fresh_as_the_last_of_them_and_stale_ones_are_not_joined() {
    let site = Site::of(TEN);
    let scene = with_parts(&site, &["bytes=0-4"]).await;
    scene.pass(90 * SECOND);
    store(&scene, &["bytes=5-9"]).await;
    let got = scene.get("/a").await;
    assert_eq!((got.body.as_str(), got.cache_status()), (TEN, "Larder; hit; ttl=59"));
    scene.pass(60 * SECOND);
    let got = scene.ask(range("bytes=3-6")).await;
    assert_eq!((got.body.as_str(), got.cache_status()), ("3456", "Larder; fwd=partial; stored"));
}

#[tokio::test]
async fn what_was_said_to_be_stale_makes_all_of_it_stale() {
    let site = Site::of(TEN);
    site.set("cache-tag", "t");
    let scene = with_parts(&site, &["bytes=0-4"]).await;
    site.unset("cache-tag");
    store(&scene, &["bytes=5-9"]).await;
    assert!(scene.ask(range("bytes=3-6")).await.is_hit());
    scene.cache.purge_tags(&["t"], Purge::Soft).await.unwrap();
    assert!(!scene.ask(range("bytes=3-6")).await.is_hit());
}

#[tokio::test]
async fn a_cookie_that_came_with_a_later_part_is_not_in_what_is_joined() {
    let site = Site::of(TEN);
    let scene = with_parts(&site, &["bytes=0-4"]).await;
    site.set("set-cookie", "session=2");
    store(&scene, &["bytes=5-9"]).await;
    let got = scene.get("/a").await;
    assert_eq!((got.is_hit(), got.header("set-cookie")), (true, ""));
}

#[tokio::test]
async fn a_part_that_is_gone_is_forgotten_and_all_is_asked_for() {
    for (asked, body, wanted) in
        [(get("/a", &[]), TEN, None), (range("bytes=3-6"), "3456", Some("bytes=3-6".to_owned()))]
    {
        let site = Site::of(TEN);
        let scene = with_parts(&site, &["bytes=0-4", "bytes=5-7"]).await;
        scene.store.is_bare.store(true, Ordering::SeqCst);
        assert_eq!(scene.ask(asked).await.body, body);
        assert_eq!((site.last(), scene.cache.stats().healed), ((wanted.clone(), None), 1));
        // A new whole takes the place of the other part as well.
        assert_eq!(scene.store.responses(), if wanted.is_none() { 1 } else { 2 });
    }
}

#[tokio::test]
async fn a_part_that_cannot_be_read_is_left_and_all_is_asked_for() {
    let site = Site::of(TEN);
    let scene = with_parts(&site, &["bytes=0-4", "bytes=5-7"]).await;
    scene.store.is_unreadable.store(true, Ordering::SeqCst);
    assert_eq!(scene.ask(range("bytes=3-6")).await.body, "3456");
    assert_eq!((scene.cache.stats().healed, scene.store.responses()), (0, 3));
}

fn shelf(_: &ManualClock, shelf: Arc<Shelf>) -> Arc<dyn HttpStore> {
    shelf
}

fn memory(clock: &ManualClock, _: Arc<Shelf>) -> Arc<dyn HttpStore> {
    Arc::new(MemoryStore::new(MemoryStoreOptions::default()).with_clock(clock.clone()))
}

fn stack(clock: &ManualClock, _: Arc<Shelf>) -> Arc<dyn HttpStore> {
    let driver: Arc<dyn larder::driver::Driver> = Arc::new(MemoryDriver::default());
    let open = |name: &str| {
        let stack = Stack::builder(name).prefix("http").borrowed_store(Arc::clone(&driver));
        stack.clock(Arc::new(clock.clone()))
    };
    let bodies = open("bodies").build().unwrap();
    let memory = larder::memory::MemoryOptions::new(1000);
    let stack = open("http").memory(memory).build().unwrap();
    let policy = larder_http::policy::Policy::shared();
    Arc::new(StackStore::builder(&stack, policy).bodies(&bodies).build().unwrap())
}

#[tokio::test]
async fn long_bodies_are_joined_and_completed_over_every_store() {
    // Every number once, so that nothing can be in the wrong place.
    let content: String = (0..150_000).map(|number| format!("{number:06} ")).collect();
    let length = content.len();
    for (name, choose) in [
        ("shelf", shelf as fn(&ManualClock, Arc<Shelf>) -> Arc<dyn HttpStore>),
        ("memory", memory),
        ("stack", stack),
    ] {
        for (stored, rest) in [
            (&["bytes=0-300000", "bytes=250000-599999"][..], "bytes=600000-".to_owned()),
            (&["bytes=700001-", "bytes=600000-700000"], "bytes=0-599999".to_owned()),
        ] {
            let site = Site::of(&content);
            let (answering, build) = (site.clone(), |builder| builder);
            let scene = Scene::over(build, choose, move |_, request| {
                let answer: Answer = now(answering.answer(&request));
                answer
            });
            store(&scene, stored).await;
            let across = if rest.starts_with("bytes=0") { 600_001..900_001 } else { 1..500_000 };
            let got = scene.ask(range(&format!("bytes={}-{}", across.start, across.end - 1))).await;
            assert!(got.is_hit() && got.body == content[across], "{name}");
            let got = scene.get("/a").await;
            assert!(got.body == content, "{name}");
            assert_eq!(site.last(), (Some(rest), Some("\"a\"".into())));
            let got = scene.get("/a").await;
            assert!(got.is_hit() && got.body == content, "{name}");
            assert_eq!(got.header("content-length"), length.to_string());
            let kept = scene.cache.store().get(&uri("/a")).await.unwrap().unwrap();
            assert_eq!((kept.responses().len(), kept.responses()[0].stored.status().as_u16()), (1, 200));
            assert_eq!(scene.asked(), 3, "{name}");
        }
    }
}
