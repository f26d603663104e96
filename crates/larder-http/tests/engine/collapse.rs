//! Many who want the same: one asks, and nobody is held up who need not be.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use larder_http::HttpCache;
use larder_http::store::HttpStore;

use crate::scene::{Scene, Watched, after, fed, get, now, read, request, response, timers};

const HALF: Duration = Duration::from_millis(500);

#[tokio::test(start_paused = true)]
async fn two_hundred_on_a_cold_key_are_one_request() {
    let scene =
        Scene::new(|nth, _| after(HALF, response(200, &[("cache-control", "max-age=60")], nth.to_string())));
    let began = timers();
    for got in join_all((0..200).map(|_| scene.get("/a"))).await {
        assert_eq!(got.body, "1");
    }
    assert_eq!((scene.asked(), began.elapsed()), (1, HALF));
    assert_eq!(scene.cache.stats().collapsed, 199);
    assert_eq!(scene.cache.stats().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn two_hundred_on_a_stale_key_are_one_validation() {
    let scene = Scene::new(|nth, _| match nth {
        1 => now(response(200, &[("cache-control", "max-age=10"), ("etag", "\"a\"")], "hello")),
        _ => after(HALF, response(304, &[("cache-control", "max-age=10"), ("etag", "\"a\"")], "")),
    });
    scene.get("/a").await;
    scene.pass(Duration::from_secs(11));
    let began = timers();
    for got in join_all((0..200).map(|_| scene.get("/a"))).await {
        assert_eq!(got.body, "hello");
    }
    assert_eq!((scene.asked(), began.elapsed()), (2, HALF));
}

#[tokio::test(start_paused = true)]
async fn an_uncacheable_key_is_waited_for_once_and_then_never() {
    let scene =
        Scene::new(|nth, _| after(HALF, response(200, &[("cache-control", "no-store")], nth.to_string())));
    let began = timers();
    join_all((0..200).map(|_| scene.get("/a"))).await;
    assert_eq!((scene.asked(), began.elapsed()), (200, 2 * HALF), "one wait, then all at once");
    let began = timers();
    join_all((0..200).map(|_| scene.get("/a"))).await;
    assert_eq!((scene.asked(), began.elapsed()), (400, HALF), "it is remembered");
}

#[tokio::test(start_paused = true)]
async fn responses_that_are_stale_at_once_are_not_waited_for_either() {
    let fields = [("cache-control", "max-age=0"), ("etag", "\"a\"")];
    let scene = Scene::new(move |nth, _| after(HALF, response(200, &fields, nth.to_string())));
    join_all((0..50).map(|_| scene.get("/a"))).await;
    let began = timers();
    join_all((0..50).map(|_| scene.get("/a"))).await;
    assert_eq!(began.elapsed(), HALF);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_goes_away_harms_nobody() {
    let scene = std::sync::Arc::new(Scene::new(|nth, _| {
        after(HALF, response(200, &[("cache-control", "max-age=60")], nth.to_string()))
    }));
    let leader = tokio::spawn({
        let scene = std::sync::Arc::clone(&scene);
        async move { scene.get("/a").await }
    });
    tokio::time::sleep(HALF / 5).await;
    let others = join_all((0..10).map(|_| scene.get("/a")));
    leader.abort();
    for got in others.await {
        assert_eq!(got.body, "1");
    }
    assert_eq!(scene.asked(), 1);
}

#[tokio::test]
async fn a_leader_cut_at_half_a_body_harms_nobody() {
    let (feed, body) = fed(None);
    let body = parking_lot::Mutex::new(Some(body));
    let scene = Scene::new(move |_, _| {
        now(response(200, &[("cache-control", "max-age=60")], body.lock().take().unwrap()))
    });
    let leader = scene.send(get("/a", &[])).await.unwrap();
    feed.send(Ok("half ".into())).await.unwrap();
    let other = scene.send(get("/a", &[])).await.unwrap();
    drop(leader);
    feed.send(Ok("and half".into())).await.unwrap();
    drop(feed);
    assert_eq!(read(other).await.unwrap().body, "half and half");
    assert!(scene.get("/a").await.is_hit());
    assert_eq!(scene.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_arrives_is_joined_only_by_those_whom_it_answers() {
    let scene = Scene::new(|_, request| {
        let language = request.headers()["accept-language"].to_str().unwrap().to_owned();
        after(HALF, response(200, &[("cache-control", "max-age=60"), ("vary", "accept-language")], language))
    });
    let ask = |language: &'static str| scene.ask(get("/a", &[("accept-language", language)]));
    let (one, same, other) = tokio::join!(ask("de"), ask("de"), ask("fr"));
    assert_eq!((one.body.as_str(), same.body.as_str(), other.body.as_str()), ("de", "de", "fr"));
    assert_eq!(scene.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn failures_are_shared_and_not_stored() {
    let scene = Scene::new(|nth, _| match nth {
        1 => Box::pin(async {
            tokio::time::sleep(HALF).await;
            Err(larder_http::OriginError::new(larder_http::OriginErrorKind::Disconnected, "reset"))
        }),
        _ => now(response(200, &[("cache-control", "max-age=60")], "back")),
    });
    let all = join_all((0..20).map(|_| scene.send(get("/a", &[])))).await;
    assert!(all.iter().all(Result::is_err));
    assert_eq!(scene.asked(), 1);
    assert_eq!(scene.get("/a").await.body, "back");
}

#[tokio::test(start_paused = true)]
async fn what_is_invalidated_while_it_is_on_its_way_is_not_kept() {
    let scene = Scene::new(|_, request| match request.method().as_str() {
        "GET" => after(HALF, response(200, &[("cache-control", "max-age=60")], "before")),
        _ => now(response(204, &[], "")),
    });
    let (got, ()) = tokio::join!(scene.get("/a"), async {
        tokio::time::sleep(HALF / 2).await;
        scene.ask(request("PUT", "/a", &[])).await;
        // Whoever asks from here on does not join what was asked before.
        assert_eq!(scene.get("/a").await.body, "before");
    });
    assert_eq!((got.body.as_str(), scene.asked()), ("before", 3));
    assert_eq!(scene.store.responses(), 1, "that of the later request");
}

#[tokio::test(start_paused = true)]
async fn a_reload_does_not_keep_others_from_being_answered_together() {
    for validator in [&[][..], &[("etag", "\"a\"")]] {
        let scene = Scene::new(move |nth, request| {
            let fields = [&[("cache-control", "max-age=10")], validator].concat();
            let is_known = request.headers().contains_key("if-none-match");
            let status = if is_known { 304 } else { 200 };
            after(HALF, response(status, &fields, if is_known { String::new() } else { nth.to_string() }))
        });
        scene.get("/a").await;
        // A browser that reloads takes nothing unconfirmed; what it is given is for others all the same.
        scene.ask(get("/a", &[("cache-control", "no-cache")])).await;
        scene.pass(Duration::from_secs(11));
        join_all((0..50).map(|_| scene.get("/a"))).await;
        assert_eq!(scene.asked(), 3, "{validator:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_store_does_not_take_is_waited_for_once_and_then_never() {
    let scene =
        Scene::new(|nth, _| after(HALF, response(200, &[("cache-control", "max-age=60")], nth.to_string())));
    *scene.store.is_closed.lock() = true;
    join_all((0..20).map(|_| scene.get("/a"))).await;
    let began = timers();
    join_all((0..20).map(|_| scene.get("/a"))).await;
    assert_eq!((scene.asked(), began.elapsed()), (40, HALF));
}

#[tokio::test(start_paused = true)]
async fn an_origin_in_trouble_is_not_remembered_as_one_that_answers_each_alone() {
    let scene = Scene::new(|nth, _| {
        let answer = if nth == 1 {
            response(503, &[], "")
        } else {
            response(200, &[("cache-control", "max-age=60")], "up")
        };
        after(HALF, answer)
    });
    scene.get("/a").await;
    join_all((0..20).map(|_| scene.get("/a"))).await;
    assert_eq!(scene.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_ever_for_the_response_of_another() {
    let scene = Scene::new(|nth, _| match nth {
        1 => Box::pin(std::future::pending()),
        _ => now(response(200, &[("cache-control", "max-age=60")], "there")),
    });
    let scene = std::sync::Arc::new(scene);
    let leader = std::sync::Arc::clone(&scene);
    tokio::spawn(async move { leader.get("/a").await });
    tokio::task::yield_now().await;
    let began = timers();
    assert_eq!(scene.get("/a").await.body, "there");
    assert_eq!(began.elapsed(), larder_http::WAIT_MAX);
}

#[tokio::test]
async fn a_slow_response_does_not_take_the_place_of_a_newer_one() {
    let (feed, body) = fed(None);
    let body = parking_lot::Mutex::new(Some(body));
    let scene = Scene::new(move |nth, _| {
        let body = body.lock().take().unwrap_or_else(|| nth.to_string().into());
        now(response(200, &[("cache-control", "max-age=60")], body))
    });
    let slow = scene.send(get("/a", &[])).await.unwrap();
    scene.pass(Duration::from_secs(1));
    assert_eq!(scene.ask(get("/a", &[("cache-control", "no-cache")])).await.body, "2");
    feed.send(Ok("old".into())).await.unwrap();
    drop(feed);
    assert_eq!(read(slow).await.unwrap().body, "old");
    assert_eq!(scene.get("/a").await.body, "2");
}

#[tokio::test]
async fn one_who_looked_just_before_it_was_kept_finds_it_all_the_same() {
    let scene = Scene::new(|nth, _| now(response(200, &[("cache-control", "max-age=60")], nth.to_string())));
    let store = Arc::new(Watched::default());
    let clock = Arc::new(scene.clock.clone());
    let cache = HttpCache::builder(Arc::clone(&store) as Arc<dyn HttpStore>).clock(clock).build();
    let ask = async || read(cache.handle(&scene.origin, get("/a", &[])).await.unwrap()).await.unwrap();
    let (open, gate) = tokio::sync::oneshot::channel();
    *store.gate.lock() = Some(gate);
    let (late, ()) = tokio::join!(ask(), async {
        // The other one has looked, and found nothing.
        assert_eq!(ask().await.body, "1");
        open.send(()).unwrap();
    });
    assert_eq!((late.body.as_str(), scene.asked()), ("1", 1));
}
