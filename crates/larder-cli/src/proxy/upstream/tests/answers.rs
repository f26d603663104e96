//! What becomes of answers: interim ones, odd ones, broken ones, late ones.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use larder_http::{Body, OnInterim, Origin as _, OriginErrorKind, StatusMessage};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;

use super::super::AnsweredBy;
use super::super::options::{Limits, OriginOptions, Timeouts};
use super::OK;
use super::script::{Script, ask, get, origin, start};
use crate::proxy::Upgrade;

#[tokio::test]
async fn interim_responses_are_passed_on_at_once() {
    let passed = Arc::new(Notify::new());
    let go_on = passed.clone();
    let script = Script::run(move |mut peer| {
        let go_on = go_on.clone();
        async move {
            peer.head().await;
            peer.write("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n").await;
            peer.write("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n")
                .await;
            // The final one comes only once the others were passed on.
            go_on.notified().await;
            peer.write(OK).await;
        }
    })
    .await;
    let upstreams = start(origin(&[script.url()]));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut request = get("/");
    let (seen_by, notify) = (seen.clone(), passed.clone());
    request.extensions_mut().insert(OnInterim::new(move |response| {
        seen_by.lock().push((response.status().as_u16(), response.headers().len()));
        if response.status() == 103 {
            notify.notify_one();
        }
    }));
    let (response, _) = ask(&upstreams, request).await.unwrap();
    assert_eq!(*seen.lock(), [(102, 0), (103, 1)]);
    assert!(!response.headers().contains_key("link"));
}

#[tokio::test]
async fn an_unknown_transfer_encoding_runs_to_the_end_of_the_connection() {
    let script = Script::run(|mut peer| async move {
        peer.head().await;
        peer.write("HTTP/1.1 200 Fine\r\nTransfer-Encoding: blah\r\nContent-Length: 3\r\n\r\n").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        peer.write("all of it").await;
    })
    .await;
    let upstreams = start(origin(&[script.url()]));
    let (response, body) = ask(&upstreams, get("/")).await.unwrap();
    assert_eq!(response.headers().len(), 0);
    assert_eq!(response.extensions().get::<StatusMessage>(), Some(&StatusMessage("Fine".into())));
    assert_eq!(&*response.extensions().get::<AnsweredBy>().unwrap().0, script.url());
    assert_eq!(body.unwrap().text, "all of it");
}

#[tokio::test]
async fn what_follows_a_body_is_not_the_next_response() {
    let script = Script::answering(
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789HTTP/1.1 666 Smuggled\r\n\r\n",
    )
    .await;
    let upstreams = start(origin(&[script.url()]));
    for _ in 0..3 {
        let (response, body) = ask(&upstreams, get("/")).await.unwrap();
        assert_eq!((response.status().as_u16(), body.unwrap().text.as_str()), (200, "0123456789"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(script.connections(), 3);
}

#[tokio::test]
async fn two_lengths_are_one_and_the_connection_ends() {
    let script = Script::answering(
        "HTTP/1.1 200 OK\r\nContent-Length: 30\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    )
    .await;
    let upstreams = start(origin(&[script.url()]));
    for _ in 0..2 {
        let (response, body) = ask(&upstreams, get("/")).await.unwrap();
        assert!(!response.headers().contains_key("content-length"));
        assert_eq!(body.unwrap().text, "hi");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(script.connections(), 2);
}

#[tokio::test]
async fn a_response_that_is_not_one_is_an_error() {
    for answer in [
        "SSH-2.0-OpenSSH\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nBad Name: x\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        "HTTP/1.1 200 O",
    ] {
        let script = Script::run(move |mut peer| async move {
            peer.head().await;
            peer.write(answer).await;
        })
        .await;
        let error = ask(&start(origin(&[script.url()])), get("/")).await.unwrap_err();
        assert_eq!(error.kind(), OriginErrorKind::Disconnected, "{answer:?}: {error}");
    }
}

#[tokio::test]
async fn folded_fields_are_read_as_one_line() {
    let script = Script::answering("HTTP/1.1 200 OK\r\nX-Long: a\r\n  b\r\nContent-Length: 0\r\n\r\n").await;
    let (response, _) = ask(&start(origin(&[script.url()])), get("/")).await.unwrap();
    assert_eq!(response.headers()["x-long"], "a b");
}

#[tokio::test]
async fn a_body_that_is_cut_short_is_an_error() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n12345\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n12345",
    ] {
        let script = Script::run(move |mut peer| async move {
            peer.head().await;
            peer.write(answer).await;
        })
        .await;
        let (_, body) = ask(&start(origin(&[script.url()])), get("/")).await.unwrap();
        let error = body.unwrap_err();
        assert!(error.to_string().starts_with("the origin's response broke off"), "{answer:?}: {error}");
    }
}

fn hasty(url: String) -> OriginOptions {
    let timeouts = Timeouts {
        response: Duration::from_millis(100),
        body: Duration::from_millis(100),
        ..Timeouts::default()
    };
    OriginOptions { timeouts, ..origin(&[url]) }
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up() {
    let script = Script::run(|mut peer| async move {
        peer.head().await;
        peer.head().await;
    })
    .await;
    let error = ask(&start(hasty(script.url())), get("/")).await.unwrap_err();
    assert_eq!(error.kind(), OriginErrorKind::Timeout, "{error}");
}

#[tokio::test]
async fn a_body_may_be_slow_but_not_stop() {
    let script = Script::run(|mut peer| async move {
        let head = peer.head().await.unwrap();
        peer.write("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n").await;
        for _ in 0..8 {
            tokio::time::sleep(Duration::from_millis(40)).await;
            peer.write("x").await;
            if head.contains("/stops") {
                peer.head().await;
            }
        }
    })
    .await;
    let upstreams = start(hasty(script.url()));
    let (_, body) = ask(&upstreams, get("/slow")).await.unwrap();
    assert_eq!(body.unwrap().text, "xxxxxxxx");
    let (_, body) = ask(&upstreams, get("/stops")).await.unwrap();
    assert!(body.unwrap_err().to_string().contains("nothing came for too long"));
}

#[tokio::test]
async fn a_head_has_its_limits() {
    let script = Script::run(|mut peer| async move {
        let head = peer.head().await.unwrap_or_default();
        peer.write("HTTP/1.1 200 OK\r\n").await;
        if head.contains("/fields") {
            return peer.write(&format!("{}Content-Length: 0\r\n\r\n", "X-More: more\r\n".repeat(150))).await;
        }
        while peer.stream.write_all(b"X-More: and more and more and more\r\n").await.is_ok() {}
    })
    .await;
    let limits = Limits { head_bytes: 16 << 10, fields: 100, ..Limits::default() };
    let upstreams = start(OriginOptions { limits, ..origin(&[script.url()]) });
    for path in ["/fields", "/without-end"] {
        let error = ask(&upstreams, get(path)).await.unwrap_err();
        assert_eq!(error.kind(), OriginErrorKind::Disconnected, "{error}");
    }
}

#[tokio::test]
async fn another_protocol_is_passed_through() {
    let script = Script::run(|mut peer| async move {
        let head = peer.head().await.unwrap();
        if !head.contains("upgrade: echo\r\n") {
            return peer.write("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n").await;
        }
        assert!(head.contains("connection: upgrade\r\n"), "{head}");
        peer.write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\nearly ")
            .await;
        assert_eq!(peer.until("ping").await, "ping");
        peer.write("pong").await;
    })
    .await;
    let upstreams = start(origin(&[script.url()]));
    let request = |connection: &'static str, protocol: &'static str| {
        let mut request = get("/");
        request.headers_mut().insert("connection", HeaderValue::from_static(connection));
        request.headers_mut().insert("upgrade", HeaderValue::from_static(protocol));
        request
    };
    let response = upstreams.send(request("keep-alive, Upgrade", "echo")).await.unwrap();
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["upgrade"], "echo");
    let mut io = response.extensions().get::<Upgrade>().unwrap().take().unwrap();
    io.write_all(b"ping").await.unwrap();
    let mut all = String::new();
    io.read_to_string(&mut all).await.unwrap();
    assert_eq!(all, "early pong");

    for (connection, protocol) in [("keep-alive", "echo"), ("upgrade", "h2c"), ("upgrade", "echo, HTTP/2.0")]
    {
        let response = upstreams.send(request(connection, protocol)).await.unwrap();
        assert_eq!(response.status(), 426, "{connection}: {protocol}");
        let head = script.heads().pop().unwrap();
        assert!(!head.contains("upgrade"), "{head}");
    }
    let never = start(OriginOptions { upgrades: false, ..origin(&[script.url()]) });
    assert_eq!(never.send(request("upgrade", "echo")).await.unwrap().status(), 426);
}

#[tokio::test]
async fn a_client_that_gives_up_ends_the_connection() {
    let (gone, heard) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, asked) = (gone.clone(), heard.clone());
    let script = Script::run(move |mut peer| {
        let (tell, asked) = (tell.clone(), asked.clone());
        async move {
            peer.head().await;
            asked.notify_one();
            assert!(peer.head().await.is_none());
            tell.notify_one();
        }
    })
    .await;
    let upstreams = Arc::new(start(origin(&[script.url()])));
    let asking = tokio::spawn({
        let upstreams = upstreams.clone();
        async move { drop(upstreams.send(get("/")).await) }
    });
    heard.notified().await;
    asking.abort();
    gone.notified().await;
}

#[test]
fn an_upgrade_is_taken_once() {
    let upgrade = Upgrade::new(std::io::Cursor::new(Vec::new()));
    assert!(upgrade.clone().take().is_some() && upgrade.take().is_none());
    drop(Body::empty());
}
