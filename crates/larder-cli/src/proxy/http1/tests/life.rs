//! How connections live and end: reuse, order, deadlines, shutdown.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body::Frame;
use larder_http::Body;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Seen, Talk, collect, data, echo, exchange, impatient, status, told};
use crate::proxy::{Service, Upgrade};

async fn hello(_: Request<Body>) -> Response<Body> {
    Response::new(Body::from("hello"))
}

#[tokio::test]
async fn requests_are_answered_in_order_however_they_come() {
    let get = |path| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let (seen, heard) = exchange(format!("\r\n{}{}\r\n{}", get("/1"), get("/2"), get("/3"))).await;
    assert_eq!(seen, ["GET http://a/1 ", "GET http://a/2 ", "GET http://a/3 "]);
    let at = |text| heard.find(text).unwrap();
    assert!(at("a/1") < at("a/2") && at("a/2") < at("a/3"));
    assert!(!heard.contains("connection:"));
}

#[tokio::test]
async fn a_client_that_wants_no_more_gets_no_more() {
    let second = "GET /2 HTTP/1.1\r\nHost: a\r\n\r\n";
    for first in [
        "GET /1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET /1 HTTP/1.1\r\nHost: a\r\nConnection: x, CLOSE\r\n\r\n",
        "GET /1 HTTP/1.0\r\nHost: a\r\n\r\n",
    ] {
        let (seen, heard) = exchange(format!("{first}{second}")).await;
        assert_eq!((seen.len(), heard.contains("connection: close\r\n")), (1, true), "{first}: {heard}");
    }
    let (seen, heard) =
        exchange(format!("GET /1 HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n{second}")).await;
    assert_eq!((seen.len(), heard.contains("connection: keep-alive\r\n")), (2, true));
}

#[tokio::test]
async fn a_response_has_its_length_its_date_and_its_words() {
    let mut talk = Talk::to(|_| async {
        let mut response = Response::new(Body::from("hello"));
        response.extensions_mut().insert(larder_http::StatusMessage("Fine, thanks".into()));
        response
    });
    talk.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let heard = talk.hear("hello").await;
    assert!(heard.starts_with("HTTP/1.1 200 Fine, thanks\r\ncontent-length: 5\r\ndate: "), "{heard}");
    talk.say("HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(talk.hear_all().await.ends_with("\r\n\r\n"));
}

#[tokio::test]
async fn a_client_that_goes_cancels_what_runs_for_it() {
    let (sender, dropped) = tokio::sync::oneshot::channel::<()>();
    let sender = parking_lot::Mutex::new(Some(sender));
    let mut talk = Talk::to(move |_| {
        let held = sender.lock().take();
        async move {
            let _held = held;
            std::future::pending().await
        }
    });
    talk.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    tokio::task::yield_now().await;
    drop(talk.io);
    assert!(dropped.await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_head_that_takes_too_long_is_answered_408() {
    let mut talk = Talk::with(hello, impatient(), 1024);
    let dripping = async {
        for byte in "GET / HTTP/1.1\r\nHost: a\r\nX: yyyyyyyyyyyyyyyyyyyyyyyyyyyy".bytes() {
            if talk.io.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        talk.hear_all().await
    };
    assert_eq!(status(&dripping.await), 408);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_let_go() {
    let mut talk = Talk::with(hello, impatient(), 1024);
    assert_eq!(talk.hear_all().await, "");
    let mut talk = Talk::with(hello, impatient(), 1024);
    talk.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(talk.hear_all().await.ends_with("hello"));
}

#[tokio::test(start_paused = true)]
async fn content_that_does_not_come_is_answered_408() {
    let seen = Seen::default();
    let mut talk = Talk::with(echo(&seen), impatient(), 1024);
    talk.say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab").await;
    assert_eq!(status(&talk.hear_all().await), 408);
    assert!(seen.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_let_go() {
    let mut talk = Talk::with(|_| async { Response::new(Body::from("x".repeat(10_000))) }, impatient(), 100);
    talk.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    talk.serving.await.unwrap();
}

#[tokio::test]
async fn shutdown_lets_requests_finish_and_nothing_more() {
    let (teller, body) = told();
    let body = parking_lot::Mutex::new(Some(body));
    let mut talk = Talk::to(move |_| {
        let body = body.lock().take().unwrap();
        async { Response::new(body) }
    });
    talk.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    talk.hear("\r\n\r\n").await;
    talk.stop.stop();
    talk.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    teller.send(data("the rest")).unwrap();
    drop(teller);
    assert_eq!(talk.hear("0\r\n\r\n").await, "8\r\nthe rest\r\n0\r\n\r\n");

    let mut talk = Talk::to(hello);
    tokio::task::yield_now().await;
    talk.stop.stop();
    assert_eq!(talk.hear_all().await, "");
}

#[tokio::test]
async fn a_response_during_shutdown_says_that_it_is_the_last() {
    let (sender, wait) = tokio::sync::oneshot::channel();
    let wait = parking_lot::Mutex::new(Some(wait));
    let mut talk = Talk::to(move |_| {
        let wait = wait.lock().take().unwrap();
        async {
            let () = wait.await.unwrap();
            Response::new(Body::from("hello"))
        }
    });
    talk.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    tokio::task::yield_now().await;
    talk.stop.stop();
    sender.send(()).unwrap();
    assert!(talk.hear_all().await.contains("connection: close\r\n"));
}

/// A service that agrees on another protocol, and has this as the other end.
fn upgrading(near: tokio::io::DuplexStream) -> impl Service {
    let near = parking_lot::Mutex::new(Some(near));
    move |_| {
        let near = near.lock().take().unwrap();
        async {
            let mut response =
                Response::builder().status(101).header("upgrade", "x").body(Body::empty()).unwrap();
            response.extensions_mut().insert(Upgrade::new(near));
            response
        }
    }
}

#[tokio::test]
async fn after_101_both_sides_are_connected() {
    let (near, mut far) = tokio::io::duplex(1024);
    let mut talk = Talk::to(upgrading(near));
    talk.say("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nearly").await;
    let heard = talk.hear("\r\n\r\n").await;
    assert_eq!(heard, "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n");
    let mut early = [0; 5];
    far.read_exact(&mut early).await.unwrap();
    assert_eq!(&early, b"early");
    far.write_all(b"late").await.unwrap();
    drop(far);
    assert_eq!(talk.hear_all().await, "late");
}

/// A tunnel that has begun, and its other end.
async fn tunnel(settings: super::Settings) -> (Talk, tokio::io::DuplexStream) {
    let (near, far) = tokio::io::duplex(64);
    let mut talk = Talk::with(upgrading(near), settings, 1024);
    talk.say("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n").await;
    talk.hear("\r\n\r\n").await;
    (talk, far)
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_ends_when_neither_side_has_said_anything_for_too_long() {
    let (mut talk, mut far) = tunnel(impatient()).await;
    let nearly = Duration::from_secs(4);
    // Either side alone keeps it.
    for _ in 0..3 {
        tokio::time::sleep(nearly).await;
        talk.say("x").await;
        assert_eq!(far.read_u8().await.unwrap(), b'x');
    }
    for _ in 0..3 {
        tokio::time::sleep(nearly).await;
        far.write_all(b"y").await.unwrap();
        talk.hear("y").await;
    }
    tokio::time::sleep(nearly).await;
    assert!(!talk.serving.is_finished());
    assert_eq!(talk.hear_all().await, "");
    assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_may_be_silent_for_ever_if_that_is_said() {
    let (mut talk, mut far) = tunnel(super::Settings { tunnel_timeout: None, ..impatient() }).await;
    tokio::time::sleep(Duration::from_secs(30 * 24 * 3600)).await;
    far.write_all(b"y").await.unwrap();
    talk.hear("y").await;
}

#[tokio::test]
async fn a_101_that_nobody_asked_for_is_not_passed_on() {
    let mut talk = Talk::to(|_| async {
        let (near, _) = tokio::io::duplex(16);
        let mut response = Response::builder().status(101).body(Body::empty()).unwrap();
        response.extensions_mut().insert(Upgrade::new(near));
        response
    });
    talk.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(status(&talk.hear_all().await), 502);
    let mut talk = Talk::to(|_| async { Response::builder().status(101).body(Body::empty()).unwrap() });
    talk.say("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n").await;
    assert_eq!(status(&talk.hear_all().await), 502);
}

#[tokio::test]
async fn content_goes_both_ways_at_once() {
    let mut talk = Talk::to(|request: Request<Body>| async { Response::new(request.into_body()) });
    talk.say("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    talk.hear("\r\n\r\n").await;
    for _ in 0..3 {
        talk.say("3\r\nabc\r\n").await;
        assert_eq!(talk.hear("abc\r\n").await, "3\r\nabc\r\n");
    }
    talk.say("0\r\nX: y\r\n\r\n").await;
    assert_eq!(talk.hear("\r\n\r\n").await, "0\r\nx: y\r\n\r\n");
}

#[tokio::test]
async fn a_service_that_reads_slowly_slows_the_client() {
    let (sender, wait) = tokio::sync::oneshot::channel::<()>();
    let wait = Arc::new(parking_lot::Mutex::new(Some(wait)));
    let service = move |request: Request<Body>| {
        let wait = wait.lock().take().unwrap();
        async {
            let _ = wait.await;
            let (content, _) = collect(request.into_body()).await.unwrap();
            Response::new(Body::from(content.len().to_string()))
        }
    };
    let mut talk = Talk::with(service, super::Settings::default(), 1024);
    talk.say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n").await;
    let content = vec![b'x'; 1_000_000];
    let mut sent = 0;
    while let Ok(written) =
        tokio::time::timeout(Duration::from_millis(50), talk.io.write(&content[sent..])).await
    {
        sent += written.unwrap();
    }
    assert!((10_000..200_000).contains(&sent), "{sent}");
    sender.send(()).unwrap();
    talk.say(&content[sent..]).await;
    assert!(talk.hear("1000000").await.contains("200 OK"));
}

#[tokio::test]
async fn trailers_of_a_response_follow_its_chunks() {
    let (teller, body) = told();
    let body = parking_lot::Mutex::new(Some(body));
    let mut talk = Talk::to(move |_| {
        let body = body.lock().take().unwrap();
        async { Response::builder().header("trailer", "x").body(body).unwrap() }
    });
    talk.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    teller.send(data("hi")).unwrap();
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x", "y".parse().unwrap());
    trailers.insert("content-length", "5".parse().unwrap());
    teller.send(Ok(Frame::trailers(trailers))).unwrap();
    drop(teller);
    let heard = talk.hear("\r\nx: y\r\n\r\n").await;
    assert!(heard.contains("transfer-encoding: chunked\r\n"), "{heard}");
    assert!(heard.ends_with("\r\n\r\n2\r\nhi\r\n0\r\nx: y\r\n\r\n"), "{heard}");
}
