//! Bodies that stream: to all who read them, at their own pace, while they are stored.

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::BodyExt as _;
use larder_http::Body;

use crate::scene::{Scene, fed, get, now, read, response};

const FRESH: (&str, &str) = ("cache-control", "max-age=60");

fn once(body: Body, fields: &'static [(&'static str, &'static str)]) -> Scene {
    let body = parking_lot::Mutex::new(Some(body));
    Scene::new(move |_, _| {
        let body = body.lock().take();
        now(response(200, fields, body.unwrap_or_else(|| Body::from("asked again"))))
    })
}

#[tokio::test]
async fn bytes_reach_the_client_while_they_come() {
    let (feed, body) = fed(None);
    let scene = once(body, &[FRESH]);
    let mut response = scene.send(get("/a", &[])).await.unwrap();
    feed.send(Ok("first".into())).await.unwrap();
    let frame = response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "first");
}

#[tokio::test]
async fn what_did_not_end_well_is_an_error_for_all_and_is_not_kept() {
    for length in [None, Some("10")] {
        let (feed, body) = fed(None);
        let fields: &[(&str, &str)] =
            if length.is_some() { &[FRESH, ("content-length", "10")] } else { &[FRESH] };
        let scene = once(body, fields);
        let one = scene.send(get("/a", &[])).await.unwrap();
        feed.send(Ok("12345".into())).await.unwrap();
        let other = scene.send(get("/a", &[])).await.unwrap();
        if length.is_none() {
            feed.send(Err("reset".into())).await.unwrap();
        }
        drop(feed);
        for response in [one, other] {
            let error = read(response).await.unwrap_err().to_string();
            assert!(error.starts_with("the response ended before its end"), "{error}");
        }
        assert_eq!((scene.store.responses(), scene.cache.stats().cut), (0, 1));
    }
}

#[tokio::test]
async fn more_than_was_declared_is_not_kept_either() {
    let scene = once(Body::from("0123456789"), &[FRESH, ("content-length", "4")]);
    assert!(read(scene.send(get("/a", &[])).await.unwrap()).await.is_err());
    assert_eq!(scene.store.responses(), 0);
}

#[tokio::test]
async fn trailers_are_passed_on_and_kept() {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "42".parse().unwrap());
    let scene = once(Body::from("hello").with_trailers(Some(trailers)), &[FRESH]);
    for _ in 0..2 {
        let got = scene.get("/a").await;
        assert_eq!((got.body.as_str(), &got.trailers.unwrap()["x-sum"]), ("hello", &"42".parse().unwrap()));
    }
}

#[tokio::test]
async fn a_slow_reader_reads_what_the_store_has() {
    let piece = Bytes::from(vec![b'x'; 256 * 1024]);
    let pieces = 64;
    let (feed, body) = fed(None);
    let scene = once(body, &[FRESH]);
    let slow = scene.send(get("/a", &[])).await.unwrap();
    for _ in 0..pieces {
        feed.send(Ok(piece.clone())).await.unwrap();
    }
    drop(feed);
    let read = slow.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(read.len(), pieces * piece.len());
    assert_eq!(scene.get("/a").await.body.len(), pieces * piece.len());
}

#[tokio::test]
async fn what_is_too_large_for_the_store_reaches_its_readers_all_the_same() {
    let (feed, body) = fed(None);
    let scene = once(body, &[FRESH]);
    *scene.store.takes_at_most.lock() = Some(1024 * 1024);
    let one = scene.send(get("/a", &[])).await.unwrap();
    let other = scene.send(get("/a", &[])).await.unwrap();
    let total = 4 * 1024 * 1024;
    let sender = async move {
        for _ in 0..total / 65_536 {
            feed.send(Ok(Bytes::from(vec![b'x'; 65_536]))).await.unwrap();
        }
    };
    let (one, other, ()) = tokio::join!(read(one), read(other), sender);
    assert_eq!((one.unwrap().body.len(), other.unwrap().body.len()), (total, total));
    assert_eq!(scene.store.responses(), 0);
}

#[tokio::test]
async fn once_the_store_takes_no_more_the_origin_waits_for_the_slowest_reader() {
    let (feed, body) = fed(None);
    let scene = once(body, &[FRESH]);
    *scene.store.takes_at_most.lock() = Some(0);
    let slow = scene.send(get("/a", &[])).await.unwrap();
    let mut taken = 0;
    let piece = Bytes::from(vec![b'x'; 65_536]);
    while tokio::time::timeout(std::time::Duration::from_millis(200), feed.send(Ok(piece.clone())))
        .await
        .is_ok()
    {
        taken += piece.len();
        assert!(taken < 4 * 1024 * 1024, "it is held in memory without end");
    }
    drop(slow);
    // Nobody reads it and nothing keeps it: it is given up.
    tokio::time::timeout(std::time::Duration::from_secs(5), feed.closed()).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_read_is_fetched_and_is_not_forgotten() {
    let scene = once(Body::from("hello"), &[FRESH]);
    scene.get("/a").await;
    scene.store.is_unreadable.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(scene.get("/a").await.body, "asked again");
    assert_eq!((scene.cache.stats().healed, scene.store.responses()), (0, 1));
    let asked = scene.asked();
    let got = scene.ask(get("/a", &[("cache-control", "only-if-cached")])).await;
    assert_eq!((got.status, scene.asked()), (504, asked));
}

#[tokio::test]
async fn all_of_a_body_is_shown_though_its_end_is_late() {
    let (feed, body) = fed(None);
    let scene = once(body, &[FRESH, ("content-length", "5")]);
    let mut response = scene.send(get("/a", &[])).await.unwrap();
    feed.send(Ok("hello".into())).await.unwrap();
    let frame = response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "hello");
    drop(feed);
    assert!(response.body_mut().frame().await.is_none());
    assert!(scene.get("/a").await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn one_who_reads_nothing_does_not_keep_the_others_from_what_they_asked_for() {
    let (feed, body) = fed(None);
    let scene = once(body, &[FRESH]);
    *scene.store.takes_at_most.lock() = Some(0);
    let stuck = scene.send(get("/a", &[])).await.unwrap();
    let other = scene.send(get("/a", &[])).await.unwrap();
    let total = 4 * 1024 * 1024;
    let sender = async move {
        for _ in 0..total / 65_536 {
            feed.send(Ok(Bytes::from(vec![b'x'; 65_536]))).await.unwrap();
        }
    };
    let (other, ()) = tokio::join!(read(other), sender);
    assert_eq!(other.unwrap().body.len(), total);
    // It is not told that what it got was all.
    assert!(read(stuck).await.is_err());
}
