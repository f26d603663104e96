//! Queries that mean the same, because a response says so: `No-Vary-Search`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use larder::Stack;
use larder::memory::MemoryOptions;
use larder::time::Timestamp;
use larder_http::HttpCache;
use larder_http::policy::Policy;
use larder_http::store::{HttpStore, MemoryStore, Purge, StackStore};

use crate::scene::{Got, START, Scene, Watched, after, get, now, read, request, response, timers, uri};

const UTM: &str = r#"params=("utm_source" "utm_medium")"#;

/// Each answer has its own body; those below `/p` say what does not matter, others nothing.
fn numbered(said: &'static str, more: &'static [(&'static str, &'static str)]) -> Scene {
    Scene::new(move |nth, request| {
        let mut fields = [&[("cache-control", "max-age=60")], more].concat();
        if request.uri().path().starts_with("/p") {
            fields.push(("no-vary-search", said));
        }
        match request.method().as_str() {
            "GET" => now(response(200, &fields, nth.to_string())),
            _ => now(response(204, &[], "")),
        }
    })
}

async fn by(cache: &HttpCache, scene: &Scene, path: &str) -> Got {
    read(cache.handle(&scene.origin, get(path, &[])).await.unwrap()).await.unwrap()
}

/// A cache of another process: it shares the store, and knows nothing.
fn another(scene: &Scene) -> HttpCache {
    let store = Arc::clone(&scene.store) as Arc<dyn HttpStore>;
    HttpCache::builder(store).clock(Arc::new(scene.clock.clone())).build()
}

#[tokio::test]
async fn what_does_not_matter_is_not_looked_at() {
    let scene = numbered(UTM, &[]);
    scene.get("/p?id=1&utm_source=a").await;
    for path in ["/p?id=1", "/p?utm_medium=x&id=1&utm_source=b", "/p?%69d=1&&", "/p?id=1&utm_source=a"] {
        let got = scene.get(path).await;
        assert_eq!((got.body.as_str(), got.is_hit()), ("1", true), "{path}");
    }
    for (path, body) in [("/p?id=2", "2"), ("/p?id=1&x", "3"), ("/p2?id=1", "4"), ("/p", "5")] {
        assert_eq!(scene.get(path).await.body, body, "{path}");
    }
    assert_eq!(scene.get("/p?utm_source=c").await.body, "5", "no query is an empty one");
}

#[tokio::test]
async fn what_says_nothing_is_for_its_own_query_only() {
    let scene = numbered(UTM, &[]);
    scene.get("/p?utm_source=a").await;
    scene.get("/q?utm_source=a").await;
    assert_eq!(scene.get("/q?utm_source=b").await.body, "3");
    assert_eq!(scene.get("/q?utm_source=a").await.body, "2");
    for said in ["params=?0", "params=(utm_source)", "except=(\"id\")"] {
        let scene = numbered(said, &[]);
        scene.get("/p?utm_source=a").await;
        assert_eq!(scene.get("/p?utm_source=b").await.body, "2", "{said}");
    }
}

#[tokio::test]
async fn order_and_all_but_some_are_heeded_too() {
    for (said, one, same, other) in [
        ("key-order", "/p?a=1&b=2", "/p?b=2&a=1", "/p?a=2&b=1"),
        ("params", "/p?a=1", "/p?b=2", "/pp?a=1"),
        ("params, except=(\"id\")", "/p?id=1&a=1", "/p?b=2&id=1", "/p?id=2&a=1"),
    ] {
        let scene = numbered(said, &[]);
        scene.get(one).await;
        assert_eq!(scene.get(same).await.body, "1", "{said}");
        assert_eq!(scene.get(other).await.body, "2", "{said}");
    }
}

#[tokio::test]
async fn other_origins_and_other_rules_do_not_meet() {
    let scene = Scene::new(|nth, request| {
        let said = if nth == 1 { "params=(\"a\")" } else { "params=(\"b\")" };
        assert!(request.uri().host().is_some());
        now(response(200, &[("cache-control", "max-age=60"), ("no-vary-search", said)], nth.to_string()))
    });
    scene.get("/p?a=1").await;
    // The second says that `a` does matter, and the first still says that it does not: each answers what it is for.
    assert_eq!(scene.get("/p?a=1&b=1").await.body, "2");
    assert_eq!(scene.get("/p?a=1&b=2").await.body, "2");
    assert_eq!(scene.get("/p").await.body, "1");
    let elsewhere = http::Request::get("http://example.org/p?a=1").body(larder_http::Body::empty()).unwrap();
    assert_eq!(scene.ask(elsewhere).await.body, "3");
}

#[tokio::test]
async fn vary_holds_besides() {
    let scene = numbered(UTM, &[("vary", "accept-language")]);
    let in_language = |path: &str, language: &str| get(path, &[("accept-language", language)]);
    scene.ask(in_language("/p?utm_source=a", "de")).await;
    assert_eq!(scene.ask(in_language("/p?utm_source=b", "fr")).await.body, "2");
    assert_eq!(scene.ask(in_language("/p?utm_source=c", "de")).await.body, "1");
}

#[tokio::test]
async fn another_process_finds_it_and_so_does_the_next_one() {
    let scene = numbered(UTM, &[]);
    scene.get("/p?utm_source=a").await;
    let other = another(&scene);
    let got = by(&other, &scene, "/p?utm_source=b").await;
    assert_eq!((got.body.as_str(), got.is_hit()), ("1", true));
    // What it learns, the first finds as soon as it looks again.
    by(&other, &scene, "/r?x=1").await;
    let rebuilt = scene.cache.rebuild().build();
    assert_eq!(by(&rebuilt, &scene, "/p?utm_source=c").await.body, "1");
}

#[tokio::test]
async fn what_another_process_learns_is_found_after_a_while() {
    let scene = numbered(UTM, &[]);
    scene.get("/q").await;
    let other = another(&scene);
    by(&other, &scene, "/p?utm_source=a").await;
    scene.pass(Duration::from_secs(11));
    let got = scene.get("/p?utm_source=b").await;
    assert_eq!((got.body.as_str(), got.is_hit()), ("2", true));
}

#[tokio::test]
async fn a_purge_of_any_of_them_takes_it() {
    for how in [Purge::Hard, Purge::Soft] {
        let scene = numbered(UTM, &[("etag", "\"a\"")]);
        scene.get("/p?utm_source=a").await;
        assert_eq!(scene.cache.count(&uri("/p?utm_source=b")).await.unwrap(), 1);
        assert!(scene.cache.purge(&uri("/p?utm_source=b"), how).await.unwrap());
        assert_eq!(scene.get("/p?utm_source=a").await.body, "2", "{how:?}");
        assert!(!scene.cache.purge(&uri("/p?id=1"), how).await.unwrap());
        // A process that has not asked for anything yet knows as much.
        assert!(another(&scene).purge(&uri("/p"), how).await.unwrap());
        assert_eq!(scene.get("/p?utm_source=a").await.body, "3", "{how:?}");
    }
}

#[tokio::test]
async fn what_changes_one_of_them_invalidates_it() {
    let scene = numbered(UTM, &[]);
    scene.get("/p?id=1&utm_source=a").await;
    scene.get("/p?id=2").await;
    scene.ask(request("POST", "/p?id=1", &[])).await;
    assert_eq!(scene.get("/p?id=1&utm_source=a").await.body, "4");
    assert_eq!(scene.get("/p?id=2").await.body, "2");
}

#[tokio::test]
async fn a_prefix_takes_it_and_clearing_forgets_nothing_of_use() {
    let scene = numbered(UTM, &[]);
    scene.get("/p?utm_source=a").await;
    assert_eq!(scene.cache.purge_prefix("", Purge::Soft).await.unwrap().targets, 1);
    assert_eq!(scene.cache.purge_prefix(&uri("/p"), Purge::Hard).await.unwrap().targets, 1);
    assert_eq!(scene.get("/p?utm_source=b").await.body, "2");
    scene.cache.clear().await.unwrap();
    assert_eq!(scene.get("/p?utm_source=b").await.body, "3");
    assert_eq!(by(&another(&scene), &scene, "/p?utm_source=c").await.body, "3", "it was written down again");
}

#[tokio::test(start_paused = true)]
async fn what_is_invalidated_while_it_arrives_is_not_kept() {
    // The first response that says so: when it was purged, nobody knew that the two were equivalent.
    for known in [false, true] {
        let slow = |nth| {
            let fields = [("cache-control", "max-age=60"), ("no-vary-search", UTM)];
            after(Duration::from_secs(1), response(200, &fields, format!("{nth}")))
        };
        let scene = Scene::new(move |nth, _| slow(nth));
        if known {
            scene.get("/p?id=0").await;
        }
        let (got, ()) = tokio::join!(scene.get("/p?utm_source=a"), async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            scene.cache.purge(&uri("/p?utm_source=b"), Purge::Hard).await.unwrap();
        });
        let again = scene.get("/p?utm_source=a").await;
        assert_ne!(got.body, again.body, "{known}");
        assert_eq!(scene.get("/p").await.body, again.body, "{known}");
    }
}

#[tokio::test(start_paused = true)]
async fn of_several_that_arrive_none_is_kept_that_was_invalidated_before_it_was_known_what_it_means() {
    let scene = Scene::new(|nth, request| {
        let (seconds, fields) = match request.uri().query() {
            _ if nth > 2 => (0, [("cache-control", "max-age=60"), ("no-vary-search", UTM)]),
            Some("utm_source=a") => (1, [("cache-control", "max-age=60"), ("no-vary-search", UTM)]),
            _ => (2, [("cache-control", "max-age=60"), ("no-vary-search", UTM)]),
        };
        after(Duration::from_secs(seconds), response(200, &fields, nth.to_string()))
    });
    tokio::join!(scene.get("/p?utm_source=a"), scene.get("/p?utm_source=b"), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        // Nobody knows yet that it means both.
        scene.cache.purge(&uri("/p"), Purge::Hard).await.unwrap();
    });
    assert_eq!(scene.get("/p").await.body, "3");
    assert_eq!(scene.get("/p?utm_source=b").await.body, "3");
}

#[tokio::test(start_paused = true)]
async fn a_crowd_whose_response_is_not_kept_for_that_asks_once_more() {
    let fields = [("cache-control", "max-age=60"), ("no-vary-search", UTM)];
    let scene =
        Scene::new(move |nth, _| after(Duration::from_secs(1), response(200, &fields, nth.to_string())));
    let crowd = join_all((0..100).map(|_| scene.get("/p")));
    tokio::join!(crowd, async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        scene.cache.purge(&uri("/other"), Purge::Hard).await.unwrap();
    });
    assert_eq!(scene.asked(), 2);
    assert!(scene.get("/p?utm_source=a").await.is_hit());
}

#[tokio::test]
async fn what_was_forgotten_and_is_learnt_again_brings_nothing_back_that_was_purged() {
    let scene = Scene::new(|nth, request| {
        let name = request.uri().path().trim_start_matches(['/', '-']).to_owned();
        let said = format!("params=(\"{name}\")");
        now(response(200, &[("cache-control", "max-age=60"), ("no-vary-search", &said)], nth.to_string()))
    });
    scene.get("/0").await;
    for other in 1..=40 {
        scene.get(&format!("/{other}")).await;
    }
    // Nobody knows any more that this is kept elsewhere.
    assert!(!scene.cache.purge(&uri("/0"), Purge::Hard).await.unwrap());
    scene.pass(Duration::from_secs(1));
    scene.get("/-0").await;
    assert_eq!(scene.get("/0").await.body, "43");
    assert_eq!(scene.get("/40").await.body, "41");
    // By the name under which it is listed, it can be taken out all the same.
    let names: Vec<String> = scene.cache.targets(&uri("/1?")).unwrap().map(Result::unwrap).collect().await;
    assert!(scene.cache.purge(&names[0], Purge::Hard).await.unwrap());
}

#[tokio::test]
async fn what_another_process_has_forgotten_is_forgotten_here_too() {
    let scene = numbered(UTM, &[]);
    scene.get("/p").await;
    let other = another(&scene);
    by(&other, &scene, "/p?utm_source=a").await;
    other.clear().await.unwrap();
    scene.pass(Duration::from_secs(11));
    assert_eq!(scene.get("/p").await.body, "2");
    assert_eq!(by(&another(&scene), &scene, "/p?utm_source=a").await.body, "2", "it was noted again");
}

#[tokio::test]
async fn the_latest_is_meant_whatever_it_is_kept_under() {
    let store: Arc<dyn HttpStore> = Arc::new(MemoryStore::default());
    let clock = larder::testing::ManualClock::new(Timestamp::from_millis(START));
    let scene = Scene::new(|nth, _| {
        let said = if nth == 1 { "params=?0" } else { "params" };
        now(response(200, &[("cache-control", "max-age=600"), ("no-vary-search", said)], nth.to_string()))
    });
    let cache = HttpCache::builder(store).clock(Arc::new(clock.clone())).build();
    by(&cache, &scene, "/p?a").await;
    clock.advance(Duration::from_secs(5));
    by(&cache, &scene, "/p?b").await;
    assert_eq!(by(&cache, &scene, "/p?a").await.body, "2");
}

#[tokio::test]
async fn a_prefix_that_ends_in_a_query_takes_what_stands_for_several() {
    let scene = numbered(UTM, &[]);
    scene.get("/p?utm_source=a&q=1/2").await;
    scene.get("/pp?utm_source=a").await;
    scene.get("/q?q=1/2").await;
    assert_eq!(scene.cache.purge_prefix(&uri("/p?utm_source=a&q=1/"), Purge::Hard).await.unwrap().targets, 1);
    assert_eq!(scene.get("/p?utm_source=a&q=1/2").await.body, "4");
    assert_eq!((scene.get("/pp").await.body.as_str(), scene.get("/q?q=1/2").await.body.as_str()), ("2", "3"));
}

#[tokio::test]
async fn a_purge_asks_the_store_itself_what_it_has_to_take() {
    // Two processes, each with a memory of its own over one store.
    let shared: Arc<dyn larder::driver::Driver> = Arc::new(larder::driver::memory::MemoryDriver::default());
    let scene = Scene::new(|nth, request| {
        let said = if request.uri().path() == "/p" { UTM } else { "key-order" };
        now(response(200, &[("cache-control", "max-age=60"), ("no-vary-search", said)], nth.to_string()))
    });
    let process = || {
        let memory = MemoryOptions::new(1_000);
        let stack = Stack::builder("web").memory(memory).store(Arc::clone(&shared)).build().unwrap();
        let store: Arc<dyn HttpStore> = Arc::new(StackStore::new(&stack, Policy::shared()).unwrap());
        HttpCache::builder(store).clock(Arc::new(scene.clock.clone())).build()
    };
    let (one, two) = (process(), process());
    by(&one, &scene, "/p?utm_source=a").await;
    assert_eq!(by(&two, &scene, "/p?utm_source=b").await.body, "1");
    by(&one, &scene, "/k?a&b").await;
    assert!(
        two.purge(&uri("/k?b&a"), Purge::Hard).await.unwrap(),
        "what it read a moment ago does not count"
    );
    by(&one, &scene, "/k?c&d").await;
    scene.pass(Duration::from_secs(11));
    assert!(by(&two, &scene, "/k?d&c").await.is_hit(), "nor does what it keeps in memory");
}

#[tokio::test(start_paused = true)]
async fn what_is_stale_is_confirmed_once_for_all_queries() {
    let half = Duration::from_millis(500);
    let fields = [("cache-control", "max-age=10"), ("etag", "\"a\""), ("no-vary-search", UTM)];
    let scene = Scene::new(move |nth, request| match nth {
        1 => now(response(200, &fields, "hello")),
        _ => {
            assert_eq!(request.headers()["if-none-match"], "\"a\"");
            after(half, response(304, &fields, ""))
        }
    });
    scene.get("/p").await;
    scene.pass(Duration::from_secs(11));
    let paths: Vec<String> = (0..100).map(|nth| format!("/p?utm_source={nth}")).collect();
    let began = timers();
    for got in join_all(paths.iter().map(|path| scene.get(path))).await {
        assert_eq!(got.body, "hello");
    }
    assert_eq!((scene.asked(), began.elapsed()), (2, half));
    assert!(scene.get("/p?utm_medium=x").await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn those_who_join_what_says_something_else_ask_for_themselves() {
    // It is stale and said that nothing matters; what comes instead says that all does.
    let scene = Scene::new(|nth, request| {
        let query = request.uri().query().unwrap_or_default().to_owned();
        match nth {
            1 => now(response(200, &[("cache-control", "max-age=10"), ("no-vary-search", "params")], query)),
            _ => after(Duration::from_millis(500), response(200, &[("cache-control", "max-age=10")], query)),
        }
    });
    scene.get("/p?0").await;
    scene.pass(Duration::from_secs(11));
    let (one, two) = tokio::join!(scene.get("/p?1"), scene.get("/p?2"));
    assert_eq!((one.body.as_str(), two.body.as_str()), ("1", "2"));
    assert_eq!(scene.get("/p?1").await.body, "1");
    assert_eq!(scene.get("/p?2").await.body, "2");
    assert_eq!(scene.store.responses(), 3, "the two, and what was written down; the first is gone");
}

#[tokio::test]
async fn a_confirmation_that_says_something_else_moves_it_out_of_the_way() {
    let scene = Scene::new(|nth, _| {
        let said = if nth == 1 { UTM } else { "params=?0" };
        let fields = [("cache-control", "max-age=10"), ("etag", "\"a\""), ("no-vary-search", said)];
        match nth {
            2 => now(response(304, &fields, "")),
            _ => now(response(200, &fields, nth.to_string())),
        }
    });
    scene.get("/p?utm_source=a").await;
    scene.pass(Duration::from_secs(11));
    assert_eq!(
        scene.get("/p?utm_source=b").await.body,
        "3",
        "it is asked for again, to be kept where it is found"
    );
    assert_eq!(scene.get("/p?utm_source=c").await.body, "4");
    assert_eq!(scene.get("/p?utm_source=b").await.body, "3");
}

#[tokio::test(start_paused = true)]
async fn a_crowd_that_is_told_something_else_asks_no_more_than_it_has_to() {
    let half = Duration::from_millis(500);
    // What was stored says that nothing matters; what comes then says so no more: by a 304, or by another response.
    for is_same in [true, false] {
        let scene = Scene::new(move |nth, request| {
            let said = if nth == 1 { "params" } else { "params=?0" };
            let fields = [("cache-control", "max-age=10"), ("etag", "\"a\""), ("no-vary-search", said)];
            let is_known = is_same && request.headers().contains_key("if-none-match");
            after(half, response(if is_known { 304 } else { 200 }, &fields, nth.to_string()))
        });
        scene.get("/p").await;
        scene.pass(Duration::from_secs(11));
        let paths: Vec<String> = (0..100).map(|nth| format!("/p?{}", nth % 2)).collect();
        for got in join_all(paths.iter().map(|path| scene.get(path))).await {
            assert_ne!(got.body, "1");
        }
        assert!(scene.asked() <= 5, "{} questions for two URLs", scene.asked());
    }
}

#[tokio::test]
async fn what_begins_to_say_so_later_stays_in_reach() {
    for method in ["GET", "HEAD"] {
        let scene = Scene::new(|nth, request| {
            let mut fields = vec![("cache-control", "max-age=10"), ("etag", "\"a\"")];
            if nth > 1 {
                fields.push(("no-vary-search", UTM));
            }
            let is_known = request.method() == "GET" && request.headers().contains_key("if-none-match");
            now(response(if is_known { 304 } else { 200 }, &fields, "hello"))
        });
        scene.get("/p?utm_source=a").await;
        scene.pass(Duration::from_secs(11));
        scene.ask(request(method, "/p?utm_source=a", &[("cache-control", "no-cache")])).await;
        // However often it is confirmed, it is fresh afterwards.
        for _ in 0..3 {
            scene.get("/p?utm_source=a").await;
            assert!(scene.get("/p?utm_source=a").await.is_hit(), "{method}");
            assert!(scene.get("/p?utm_source=b").await.is_hit(), "{method}");
            scene.pass(Duration::from_secs(11));
        }
    }
}

#[tokio::test]
async fn head_speaks_of_it_too() {
    let scene = Scene::new(|nth, request| {
        let fields = [("cache-control", "max-age=60"), ("no-vary-search", UTM)];
        let tagged = if request.method() == "HEAD" { ("etag", "\"b\"") } else { ("etag", "\"a\"") };
        now(response(200, &[&fields[..], &[tagged]].concat(), nth.to_string()))
    });
    scene.get("/p?utm_source=a").await;
    scene.ask(request("HEAD", "/p?utm_source=b", &[("cache-control", "no-cache")])).await;
    assert_eq!(scene.get("/p?utm_source=c").await.body, "3");
}

#[tokio::test]
async fn what_is_told_of_it_names_what_it_is_kept_under() {
    let scene = numbered(UTM, &[]);
    scene.get("/p?utm_source=a&id=1").await;
    let (asked, _) = get("/p?id=1&utm_source=z", &[]).into_parts();
    let told = scene.cache.explain(&asked).await.unwrap();
    assert_eq!(told.target, uri("/p?id=1&utm_source=z"));
    assert_eq!(told.verdict, "answer from what is stored");
    let name = &told.variants[0].name;
    assert!(name.starts_with(&uri("/p?id=1#no-vary-search=")), "{name}");
    assert!(scene.cache.purge(name, Purge::Hard).await.unwrap(), "it can be purged by that name");
}

#[tokio::test]
async fn a_name_that_would_be_too_long_is_the_target_itself() {
    let scene = numbered(UTM, &[]);
    let long = format!("/p?a={}", "%22".repeat(5000));
    let longer = format!("/p?a={}", "\u{e9}".repeat(3000));
    for (path, is_shared) in [(&long, true), (&longer, false)] {
        let first = scene.get(path).await.body;
        assert_eq!(scene.get(path).await.body, first);
        let told = scene.cache.explain(&get(path, &[]).into_parts().0).await.unwrap();
        assert_eq!(told.variants[0].name != told.target, is_shared);
    }
}

#[tokio::test]
async fn a_hit_for_another_query_waits_for_no_store() {
    let scene = numbered(UTM, &[]);
    let store = Arc::new(Watched::default());
    let clock = Arc::new(scene.clock.clone());
    let cache = HttpCache::builder(Arc::clone(&store) as Arc<dyn HttpStore>).clock(clock).build();
    by(&cache, &scene, "/p?utm_source=a").await;
    let asked = store.asked.load(Ordering::SeqCst);
    assert!(by(&cache, &scene, "/p?utm_source=b").await.is_hit());
    assert_eq!(store.asked.load(Ordering::SeqCst), asked);
    // What nobody knows costs one question, and what the store remembers of an origin is read once in a while.
    by(&cache, &scene, "/q").await;
    assert_eq!(store.asked.load(Ordering::SeqCst), asked + 2);
}

#[tokio::test]
async fn hits_need_no_other_query_in_every_store() {
    let stack = Stack::builder("web").memory(MemoryOptions::new(1_000)).build().unwrap();
    let stores: [Arc<dyn HttpStore>; 2] =
        [Arc::new(MemoryStore::default()), Arc::new(StackStore::new(&stack, Policy::shared()).unwrap())];
    for store in stores {
        let scene = numbered(UTM, &[]);
        let clock = larder::testing::ManualClock::new(Timestamp::from_millis(START));
        let make = || HttpCache::builder(Arc::clone(&store)).clock(Arc::new(clock.clone())).build();
        let cache = make();
        by(&cache, &scene, "/p?id=1&utm_source=a").await;
        assert!(by(&cache, &scene, "/p?utm_medium=q&id=1").await.is_hit(), "{}", store.name());
        assert!(by(&make(), &scene, "/p?utm_medium=r&id=1").await.is_hit(), "{}", store.name());
    }
}
