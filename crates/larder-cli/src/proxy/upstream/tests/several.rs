//! Several upstreams: turns, another try, pauses, checks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Method, Request};
use larder_http::{Body, OriginErrorKind};

use super::super::options::{Check, Eject, OriginOptions};
use super::OK;
use super::script::{Pieces, Script, ask, get, nowhere, origin, start};

#[tokio::test]
async fn upstreams_take_turns() {
    let (one, other) = (Script::answering(OK).await, Script::answering(OK).await);
    let upstreams = start(origin(&[one.url(), other.url()]));
    for _ in 0..10 {
        ask(&upstreams, get("/")).await.unwrap().1.unwrap();
    }
    assert_eq!((one.heads().len(), other.heads().len()), (5, 5));
}

fn post() -> Request<Body> {
    Request::post("http://shop.test/").body(Body::stream(Pieces::of(&["order"]))).unwrap()
}

#[tokio::test]
async fn another_upstream_gets_what_the_first_cannot_have_seen() {
    let well = Script::run(|mut peer| async move {
        while let Some(head) = peer.head().await {
            if head.starts_with("POST") {
                assert_eq!(peer.until("0\r\n\r\n").await, "5\r\norder\r\n0\r\n\r\n");
            }
            peer.write(OK).await;
        }
    })
    .await;
    let upstreams = start(OriginOptions { eject: None, ..origin(&[nowhere(), well.url()]) });
    for _ in 0..2 {
        ask(&upstreams, get("/")).await.unwrap().1.unwrap();
        ask(&upstreams, post()).await.unwrap().1.unwrap();
    }
    assert_eq!(well.heads().len(), 4);
    let never = start(OriginOptions { retries: 0, ..origin(&[nowhere(), well.url()]) });
    assert!(ask(&never, get("/")).await.is_err());
}

#[tokio::test]
async fn what_was_seen_goes_to_another_only_if_that_is_harmless() {
    let quits = Script::run(|mut peer| async move { drop(peer.head().await) }).await;
    let well = Script::answering(OK).await;
    let upstreams = || start(OriginOptions { eject: None, ..origin(&[quits.url(), well.url()]) });
    assert!(ask(&upstreams(), get("/")).await.is_ok());
    assert!(ask(&upstreams(), post()).await.is_err());
    let mut empty = get("/");
    *empty.method_mut() = Method::POST;
    assert!(ask(&upstreams(), empty).await.is_err());
    assert_eq!(well.heads().len(), 1);

    let begins = Script::run(|mut peer| async move {
        peer.head().await;
        peer.write("HTTP/1.1 103 Early Hints\r\n\r\n").await;
    })
    .await;
    let upstreams = start(origin(&[begins.url(), well.url()]));
    assert!(ask(&upstreams, get("/")).await.is_err(), "something of an answer was there");
}

#[tokio::test]
async fn what_keeps_failing_is_left_alone() {
    let quits = Script::run(|mut peer| async move { drop(peer.head().await) }).await;
    let well = Script::answering(OK).await;
    let eject = Some(Eject { failures: 2, pause: Duration::from_millis(300) });
    let upstreams = start(OriginOptions { eject, ..origin(&[quits.url(), well.url()]) });
    for _ in 0..10 {
        ask(&upstreams, get("/")).await.unwrap().1.unwrap();
    }
    assert_eq!(quits.heads().len(), 2);
    assert_eq!(upstreams.health().iter().filter(|(_, _, well)| *well).count(), 1);
    tokio::time::sleep(Duration::from_millis(350)).await;
    for _ in 0..4 {
        ask(&upstreams, get("/")).await.unwrap().1.unwrap();
    }
    assert_eq!(quits.heads().len(), 3);
}

#[tokio::test]
async fn if_all_are_down_that_is_said_at_once() {
    let eject = Some(Eject { failures: 1, pause: Duration::from_secs(60) });
    let upstreams = start(OriginOptions { eject, ..origin(&[nowhere(), nowhere()]) });
    assert!(ask(&upstreams, get("/")).await.is_err());
    let error = ask(&upstreams, get("/")).await.unwrap_err();
    assert_eq!(error.kind(), OriginErrorKind::Disconnected);
    assert_eq!(error.to_string(), "the origin cannot be reached: no upstream of the origin \"app\" is well");
}

#[tokio::test]
async fn checks_say_who_is_well() {
    let ill = Arc::new(AtomicBool::new(true));
    let state = ill.clone();
    let script = Script::run(move |mut peer| {
        let state = state.clone();
        async move {
            while let Some(head) = peer.head().await {
                let bad = head.starts_with("GET /health ") && state.load(Ordering::SeqCst);
                peer.write(if bad { "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n" } else { OK }).await;
            }
        }
    })
    .await;
    let check = Check {
        path: "/health".parse().unwrap(),
        interval: Duration::from_millis(20),
        status: (200, 299),
        fall: 2,
        rise: 2,
        ..Check::default()
    };
    let upstreams = start(OriginOptions { check: Some(check), ..origin(&[script.url()]) });
    let until = async |well: bool| {
        while upstreams.health().first().unwrap().2 != well {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    ask(&upstreams, get("/")).await.unwrap().1.unwrap();
    until(false).await;
    assert!(ask(&upstreams, get("/")).await.is_err());
    ill.store(false, Ordering::SeqCst);
    until(true).await;
    ask(&upstreams, get("/")).await.unwrap().1.unwrap();
    drop(upstreams);
    tokio::time::sleep(Duration::from_millis(60)).await;
    let checked = script.heads().len();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(script.heads().len(), checked, "nobody asks on behalf of what has gone");
}
