//! What is asked for of a whole that is stored in part.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::future::join_all;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body_util::BodyExt as _;
use larder_http::Body;
use larder_http::store::{HttpStore as _, Purge, Variants};
use parking_lot::Mutex;

use super::{SECOND, Site, TEN, range, store, whole, with_parts};
use crate::scene::{Scene, after, fed, get, now, read, uri};

#[tokio::test]
async fn only_what_is_missing_is_asked_for_and_the_whole_takes_the_place_of_the_parts() {
    for (stored, rest) in [
        (&["bytes=0-5"][..], "bytes=6-"),
        (&["bytes=-4"], "bytes=0-5"),
        (&["bytes=3-4", "bytes=0-2"], "bytes=5-"),
        // The greater part, not what was asked for last.
        (&["bytes=0-5", "bytes=-1"], "bytes=6-"),
    ] {
        let site = Site::of(TEN);
        let scene = with_parts(&site, stored).await;
        let got = scene.get("/a").await;
        assert_eq!(whole(&got), (200, TEN, "10", ""), "{stored:?}");
        assert_eq!(got.cache_status(), "Larder; fwd=partial; fwd-status=206; stored");
        assert_eq!(site.last(), (Some(rest.into()), Some("\"a\"".into())));
        assert_eq!(scene.store.responses(), 1, "{stored:?}");
        let again = scene.get("/a").await;
        assert_eq!((again.is_hit(), whole(&again)), (true, (200, TEN, "10", "")));
        assert_eq!(scene.asked(), stored.len() + 1);
    }
}

#[tokio::test]
async fn what_is_stale_is_completed_too() {
    let site = Site::of(TEN);
    let scene = with_parts(&site, &["bytes=0-5"]).await;
    scene.pass(90 * SECOND);
    let got = scene.get("/a").await;
    assert_eq!((got.body.as_str(), site.last().0), (TEN, Some("bytes=6-".into())));
    assert_eq!(scene.get("/a").await.cache_status(), "Larder; hit; ttl=60");
}

#[tokio::test]
async fn of_a_whole_that_is_stored_in_stale_parts_one_is_asked_for() {
    let site = Site::of(TEN);
    let scene = with_parts(&site, &["bytes=0-5", "bytes=6-9"]).await;
    scene.pass(90 * SECOND);
    let got = scene.get("/a").await;
    assert_eq!((got.body.as_str(), site.last().0), (TEN, Some("bytes=6-".into())));
    assert_eq!(scene.store.responses(), 1);
    assert!(scene.get("/a").await.is_hit());
    // Another one by now: both go.
    let scene = with_parts(&site, &["bytes=0-5", "bytes=6-9"]).await;
    scene.pass(90 * SECOND);
    site.change("abcdefghij", "\"b\"");
    assert_eq!(scene.get("/a").await.body, "abcdefghij");
    assert!(scene.get("/a").await.is_hit());
}

#[tokio::test]
async fn the_rest_of_what_cannot_be_completed_is_not_asked_for() {
    let site = Site::of(TEN);
    let middle = with_parts(&site, &["bytes=2-5"]).await;
    assert_eq!(middle.get("/a").await.body, TEN);
    assert_eq!(site.last(), (None, None));
    site.set("etag", "W/\"a\"");
    let weak = with_parts(&site, &["bytes=0-5"]).await;
    assert_eq!(weak.get("/a").await.body, TEN);
    assert_eq!(site.last(), (None, None));
    assert_eq!(weak.store.responses(), 1, "a whole that is newer takes the place of parts in any case");
    site.set("etag", "\"a\"");
    for own in [("if-none-match", "\"b\""), ("if-modified-since", "Fri, 15 Jan 2027 07:00:00 GMT")] {
        let scene = with_parts(&site, &["bytes=0-5"]).await;
        assert_eq!(scene.ask(get("/a", &[own])).await.body, TEN);
        assert_eq!(site.last(), (None, None), "{own:?}");
    }
    let scene = with_parts(&site, &["bytes=0-5"]).await;
    scene.ask(range("bytes=4-8")).await;
    assert_eq!(site.last(), (Some("bytes=4-8".into()), None));
}

#[tokio::test]
async fn what_is_another_by_now_is_asked_for_as_a_whole() {
    type Wrong = fn(&mut Response<Body>);
    fn put(response: &mut Response<Body>, name: &'static str, value: &'static str) {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    let wrongs: &[(&str, usize, Wrong)] = &[
        ("a whole", 2, |_| {}),
        ("another's part", 3, |response| {
            *response = Response::new("67890".into());
            *response.status_mut() = http::StatusCode::PARTIAL_CONTENT;
            put(response, "content-range", "bytes 6-10/11");
            put(response, "etag", "\"b\"");
        }),
        ("a part of no name", 3, |response| {
            *response = Response::new("6789".into());
            *response.status_mut() = http::StatusCode::PARTIAL_CONTENT;
            put(response, "content-range", "bytes 6-9/10");
        }),
        ("not all of the rest", 3, |response| {
            *response = Response::new("67".into());
            *response.status_mut() = http::StatusCode::PARTIAL_CONTENT;
            put(response, "content-range", "bytes 6-7/10");
            put(response, "etag", "\"a\"");
        }),
        ("a length that is another", 3, |response| {
            *response = Response::new("6789".into());
            *response.status_mut() = http::StatusCode::PARTIAL_CONTENT;
            put(response, "content-range", "bytes 6-9/10");
            put(response, "content-length", "3");
            put(response, "etag", "\"a\"");
        }),
        ("nothing", 3, |response| {
            *response = Response::new(Body::empty());
            *response.status_mut() = http::StatusCode::RANGE_NOT_SATISFIABLE;
            put(response, "content-range", "bytes */5");
        }),
    ];
    for (name, asked, wrong) in wrongs {
        let site = Site::of(TEN);
        let changed = site.clone();
        let scene = Scene::new(move |_, request| {
            let mut response = changed.answer(&request);
            if request.headers().contains_key("if-range") {
                wrong(&mut response);
            }
            now(response)
        });
        store(&scene, &["bytes=0-5"]).await;
        site.change("abcdefghijk", "\"b\"");
        let got = scene.get("/a").await;
        assert_eq!((got.status, got.body.as_str()), (200, "abcdefghijk"), "{name}");
        assert_eq!((scene.asked(), scene.store.responses()), (*asked, 1), "{name}");
        assert_eq!(scene.ask(range("bytes=0-2")).await.body, "abc", "{name}");
        assert_eq!(scene.asked(), *asked, "{name}");
    }
}

#[tokio::test]
async fn parts_of_another_go_although_what_came_is_not_kept() {
    // An origin that heeds `If-Range`, and one that does not.
    for heeds in [true, false] {
        let site = Site::of(TEN);
        let answering = site.clone();
        let scene = Scene::new(move |_, mut request| {
            if !heeds {
                request.headers_mut().remove("if-range");
            }
            now(answering.answer(&request))
        });
        store(&scene, &["bytes=0-1"]).await;
        site.set("cache-control", "no-store");
        site.change("abc", "\"b\"");
        assert_eq!(scene.get("/a").await.body, "abc");
        assert_eq!((scene.store.responses(), scene.asked()), (0, if heeds { 2 } else { 3 }));
    }
}

#[tokio::test]
async fn a_failure_of_the_origin_leaves_the_part_as_it_is() {
    let site = Site::of(TEN);
    let failing = site.clone();
    let scene = Scene::new(move |_, request| match request.headers().contains_key("if-range") {
        true => now(crate::scene::response(503, &[], "sorry")),
        false => now(failing.answer(&request)),
    });
    store(&scene, &["bytes=0-5"]).await;
    let got = scene.get("/a").await;
    assert_eq!((got.status, got.body.as_str()), (503, "sorry"));
    assert!(scene.ask(range("bytes=1-2")).await.is_hit());
}

#[tokio::test]
async fn a_rest_that_breaks_off_is_cut_for_the_client_and_the_part_stays() {
    // With an error, or just too short; with what is stored before or behind it.
    for (stored, error) in
        [("bytes=0-5", true), ("bytes=0-5", false), ("bytes=-4", true), ("bytes=-4", false)]
    {
        let site = Site::of(TEN);
        let (cut, is_cut) = (site.clone(), Arc::new(Mutex::new(true)));
        let cuts = Arc::clone(&is_cut);
        let scene = Scene::new(move |_, request| {
            let mut response = cut.answer(&request);
            if request.headers().contains_key("if-range") && *cuts.lock() {
                let (feed, body) = fed(None);
                let half = std::mem::replace(response.body_mut(), body);
                tokio::spawn(async move {
                    let half = half.collect().await.unwrap().to_bytes();
                    feed.send(Ok(half.slice(..half.len() / 2))).await.unwrap();
                    if error {
                        feed.send(Err("reset".into())).await.unwrap();
                    }
                });
            }
            now(response)
        });
        store(&scene, &[stored]).await;
        let mut response = scene.send(get("/a", &[])).await.unwrap();
        let mut got = Vec::new();
        let failure = loop {
            match response.body_mut().frame().await.unwrap() {
                Ok(frame) => got.extend(frame.into_data().unwrap()),
                Err(failure) => break failure.to_string(),
            }
        };
        assert!(failure.starts_with("the response ended before its end"), "{failure}");
        assert!(TEN.as_bytes().starts_with(&got) && got.len() < 10, "{got:?} is in its place");
        assert_eq!((scene.store.responses(), scene.cache.stats().cut), (1, 1));
        let inside = if stored == "bytes=-4" { "bytes=7-8" } else { "bytes=1-2" };
        assert!(scene.ask(range(inside)).await.is_hit());
        *is_cut.lock() = false;
        assert_eq!(scene.get("/a").await.body, TEN);
        assert!(scene.get("/a").await.is_hit());
    }
}

#[tokio::test]
async fn what_is_stored_reaches_the_client_before_the_rest_comes() {
    let site = Site::of(TEN);
    let (scene, feed) = with_fed_rest(&site);
    store(&scene, &["bytes=0-5"]).await;
    let mut response = scene.send(get("/a", &[])).await.unwrap();
    let frame = response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "012345");
    feed.send(Ok("6789".into())).await.unwrap();
    drop(feed);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "6789");
    assert!(scene.get("/a").await.is_hit());
}

#[tokio::test]
async fn a_cookie_of_the_rest_goes_to_the_client_whose_request_brought_it() {
    let site = Site::of(TEN);
    let scene = with_parts(&site, &["bytes=0-5"]).await;
    site.set("set-cookie", "session=2");
    site.set("x-own", "2");
    site.set("cache-control", "max-age=60, private=\"x-own\"");
    let got = scene.get("/a").await;
    assert_eq!((got.header("set-cookie"), got.header("x-own")), ("session=2", "2"));
    assert_eq!(got.header("cache-control"), "max-age=60, private=\"x-own\"");
    let got = scene.get("/a").await;
    assert_eq!((got.is_hit(), got.header("set-cookie"), got.header("x-own")), (true, "", ""));
}

#[tokio::test]
async fn a_cookie_of_the_rest_does_not_go_to_those_who_wait() {
    let site = Site::of(TEN);
    let slow = site.clone();
    let scene = Scene::new(move |_, request| after(50 * SECOND / 1000, slow.answer(&request)));
    store(&scene, &["bytes=0-5"]).await;
    site.set("set-cookie", "session=2");
    let got = join_all((0..20).map(|_| scene.get("/a"))).await;
    assert!(got.iter().all(|got| whole(got) == (200, TEN, "10", "")));
    assert_eq!(got.iter().filter(|got| got.header("set-cookie") == "session=2").count(), 1);
    assert_eq!((scene.asked(), scene.cache.stats().collapsed), (2, 19), "one asks, for the rest");
    assert_eq!(scene.store.responses(), 1);
}

#[tokio::test]
async fn what_may_not_be_kept_is_answered_and_the_part_goes_with_it() {
    let site = Site::of(TEN);
    let scene = with_parts(&site, &["bytes=0-5"]).await;
    site.set("cache-control", "no-store");
    assert_eq!(whole(&scene.get("/a").await), (200, TEN, "10", ""));
    assert_eq!((site.last().0, scene.store.responses()), (Some("bytes=6-".into()), 0));

    // But not for a request that may not be kept.
    site.set("cache-control", "max-age=60");
    let scene = with_parts(&site, &["bytes=0-5"]).await;
    assert_eq!(scene.ask(get("/a", &[("cache-control", "no-store")])).await.body, TEN);
    assert!(scene.ask(range("bytes=1-2")).await.is_hit());

    // Nor where there is no room for the whole.
    let scene = with_parts(&site, &["bytes=0-5"]).await;
    *scene.store.is_closed.lock() = true;
    assert_eq!(scene.get("/a").await.body, TEN);
    assert!(scene.ask(range("bytes=1-2")).await.is_hit());
}

#[tokio::test]
async fn trailers_of_the_rest_are_passed_on_and_kept() {
    let site = Site::of(TEN);
    let ending = site.clone();
    let scene = Scene::new(move |_, request| {
        let trailers = HeaderMap::from_iter([(
            HeaderName::from_static("x-sum"),
            HeaderValue::from_static(if request.headers().contains_key("if-range") { "2" } else { "1" }),
        )]);
        now(ending.answer(&request).map(|body| body.with_trailers(Some(trailers))))
    });
    store(&scene, &["bytes=-4"]).await;
    for _ in 0..2 {
        let got = scene.get("/a").await;
        assert_eq!(
            (got.body.as_str(), &got.trailers.unwrap()["x-sum"]),
            (TEN, &HeaderValue::from_static("2"))
        );
    }
}

type Feed = tokio::sync::mpsc::Sender<Result<bytes::Bytes, larder::BoxError>>;

/// A scene in which the first rest that is asked for comes as the sender says.
fn with_fed_rest(site: &Site) -> (Scene, Feed) {
    let (feed, body) = fed(None);
    let (slow, body) = (site.clone(), Mutex::new(Some(body)));
    let scene = Scene::new(move |_, request| {
        let mut response = slow.answer(&request);
        if request.headers().contains_key("if-range")
            && let Some(body) = body.lock().take()
        {
            *response.body_mut() = body;
        }
        now(response)
    });
    (scene, feed)
}

/// A scene with a stored part in which the rest is on its way, held up until the sender says more.
async fn with_rest_on_its_way(site: &Site) -> (Scene, Response<Body>, Feed) {
    let (scene, feed) = with_fed_rest(site);
    store(&scene, &["bytes=0-5"]).await;
    let response = scene.send(get("/a", &[])).await.unwrap();
    (scene, response, feed)
}

#[tokio::test]
async fn what_is_purged_while_the_rest_arrives_is_not_kept_in_the_whole() {
    for how in [Purge::Hard, Purge::Soft] {
        let (scene, response, feed) = with_rest_on_its_way(&Site::of(TEN)).await;
        assert!(scene.cache.purge(&uri("/a"), how).await.unwrap());
        feed.send(Ok("6789".into())).await.unwrap();
        drop(feed);
        assert_eq!(read(response).await.unwrap().body, TEN);
        assert_eq!(
            scene.store.responses(),
            usize::from(how == Purge::Soft),
            "the part, if it is still there"
        );
        assert!(!scene.get("/a").await.is_hit());
    }
}

#[tokio::test]
async fn what_is_purged_between_the_look_and_the_request_for_the_rest_is_not_kept_in_the_whole() {
    for looks in [1, 2] {
        let site = Site::of(TEN);
        let scene = with_parts(&site, &["bytes=0-5"]).await;
        let cache = scene.cache.clone();
        scene.store.between.after_looks(looks, move || {
            // The store answers at once.
            let purged =
                futures_util::FutureExt::now_or_never(async { cache.purge(&uri("/a"), Purge::Soft).await });
            assert!(purged.unwrap().unwrap());
        });
        assert_eq!(scene.get("/a").await.body, TEN);
        assert_eq!(site.last().0, Some("bytes=6-".into()));
        // The first look is only for what there is to do: what is asked for is looked up after that.
        assert_eq!(scene.get("/a").await.is_hit(), looks == 1);
    }
}

#[tokio::test]
async fn what_is_made_of_a_part_that_another_process_took_out_is_not_kept() {
    let (scene, response, feed) = with_rest_on_its_way(&Site::of(TEN)).await;
    scene.store.change(&uri("/a"), &|_| Some(Variants::default())).await.unwrap();
    feed.send(Ok("6789".into())).await.unwrap();
    drop(feed);
    assert_eq!(read(response).await.unwrap().body, TEN);
    assert_eq!(scene.store.responses(), 0);
}

#[tokio::test]
async fn what_is_made_of_a_part_that_another_process_purged_is_not_kept() {
    let (scene, response, feed) = with_rest_on_its_way(&Site::of(TEN)).await;
    let purge = |variants: &Variants| variants.purged(Purge::Soft, |_| true);
    scene.store.change(&uri("/a"), &purge).await.unwrap();
    feed.send(Ok("6789".into())).await.unwrap();
    drop(feed);
    assert_eq!(read(response).await.unwrap().body, TEN);
    assert!(!scene.get("/a").await.is_hit());
}

#[tokio::test]
async fn a_rest_that_does_not_say_again_how_it_is_coded_is_coded_like_the_part() {
    let site = Site::of(TEN);
    site.set("content-encoding", "x-own");
    let scene = with_parts(&site, &["bytes=0-5"]).await;
    site.unset("content-encoding");
    let got = scene.get("/a").await;
    assert_eq!((got.body.as_str(), got.header("content-encoding")), (TEN, "x-own"));
    assert_eq!((site.last().0, scene.asked()), (Some("bytes=6-".into()), 2));
}

#[tokio::test]
async fn a_part_that_goes_while_it_is_read_ends_the_body_and_nothing_is_kept() {
    let content = "x".repeat(300_000);
    let site = Site::of(&content);
    let (scene, feed) = with_fed_rest(&site);
    store(&scene, &["bytes=100000-"]).await;
    let response = scene.send(get("/a", &[])).await.unwrap();
    // Its beginning was looked at, and is there.
    scene.store.is_bare.store(true, Ordering::SeqCst);
    feed.send(Ok(content[..100_000].to_owned().into())).await.unwrap();
    drop(feed);
    let error = read(response).await.map(|got| got.body.len()).unwrap_err().to_string();
    assert_eq!(error, "the response ended before its end: what was stored of it is gone");
    assert_eq!(scene.store.responses(), 1, "the part that was there");
}
