//! Origins over real sockets: what reaches them, and what becomes of what they answer, broken answers too.

mod answers;
mod secure;
mod several;
mod script;
mod targets;

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use http_body::Frame;
use larder_http::{Body, OriginErrorKind};

use super::options::HostHeader;
use script::{Pieces, Script, ask, get, nowhere, origin, start};

/// What nearly every server here answers.
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

#[tokio::test]
async fn a_request_is_written_as_it_came_and_connections_are_used_again() {
    let script = Script::answering(OK).await;
    let upstreams = start(origin(&[script.url()]));
    for _ in 0..3 {
        let mut request = get("/a/./b?c=%61");
        request.headers_mut().append("x-twice", HeaderValue::from_static("1"));
        request.headers_mut().append("x-twice", HeaderValue::from_static("2"));
        request.headers_mut().insert("keep-alive", HeaderValue::from_static("of the hop"));
        let (response, body) = ask(&upstreams, request).await.unwrap();
        assert_eq!((response.status().as_u16(), body.unwrap().text.as_str()), (200, "hi"));
        // It goes back a moment after its body has ended.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(script.connections(), 1);
    let expected = "GET /a/./b?c=%61 HTTP/1.1\r\nx-twice: 1\r\nx-twice: 2\r\nhost: shop.test\r\n\r\n";
    assert_eq!(script.heads(), [expected; 3]);
}

#[tokio::test]
async fn the_host_is_passed_on_or_is_what_is_configured() {
    let script = Script::answering(OK).await;
    for (host, told) in [
        (HostHeader::Auto, "shop.test".to_owned()),
        (HostHeader::Pass, "shop.test".to_owned()),
        (HostHeader::Upstream, script.address.to_string()),
        (HostHeader::Fixed(HeaderValue::from_static("fixed.test")), "fixed.test".to_owned()),
    ] {
        let upstreams =
            start(super::options::OriginOptions { host, ..origin(&[format!("{}/base/", script.url())]) });
        ask(&upstreams, get("/x")).await.unwrap().1.unwrap();
        let head = script.heads().pop().unwrap();
        assert!(head.starts_with("GET /base/x HTTP/1.1\r\n"), "{head}");
        assert!(head.contains(&format!("host: {told}\r\n")), "{head}");
    }
}

#[tokio::test]
async fn nothing_but_the_body_says_how_long_it_is() {
    let script = Script::run(|mut peer| async move {
        while let Some(head) = peer.head().await {
            if head.contains("chunked") {
                assert_eq!(peer.until("0\r\n\r\n").await, "1\r\na\r\n2\r\nbc\r\n0\r\n\r\n");
            } else if head.contains("content-length: 3") {
                assert_eq!(peer.until("abc").await, "abc");
            }
            peer.write(OK).await;
        }
    })
    .await;
    let upstreams = start(origin(&[script.url()]));
    let pieces = || Body::stream(Pieces::of(&["a", "bc"]));
    for (method, body, claimed, framing) in [
        (Method::POST, Body::from("abc"), "99", "content-length: 3\r\n"),
        (Method::POST, Body::empty(), "99", "content-length: 0\r\n"),
        (Method::GET, Body::empty(), "99", ""),
        (Method::GET, pieces(), "99", "transfer-encoding: chunked\r\n"),
        (Method::POST, pieces(), "0", "transfer-encoding: chunked\r\n"),
    ] {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = "http://shop.test/".parse().unwrap();
        request.headers_mut().insert("content-length", HeaderValue::from_static(claimed));
        request.headers_mut().insert("transfer-encoding", HeaderValue::from_static("identity"));
        ask(&upstreams, request).await.unwrap().1.unwrap();
        let head = script.heads().pop().unwrap();
        let lines = head.matches("content-length").count() + head.matches("transfer-encoding").count();
        assert!(head.contains(framing) && lines == usize::from(!framing.is_empty()), "{head}");
    }
}

#[tokio::test]
async fn trailers_go_both_ways() {
    let script = Script::run(|mut peer| async move {
        while peer.head().await.is_some() {
            assert_eq!(peer.until("\r\n\r\n").await, "2\r\nab\r\n0\r\nx-sum: 7\r\n\r\n");
            peer.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-md\r\n\r\n2\r\nhi\r\n0\r\nX-MD: 5\r\n\r\n")
                .await;
        }
    })
    .await;
    let upstreams = start(origin(&[script.url()]));
    let trailers = HeaderMap::from_iter([(HeaderName::from_static("x-sum"), HeaderValue::from_static("7"))]);
    let mut pieces = Pieces::of(&["ab"]);
    pieces.0.push(Ok(Frame::trailers(trailers)));
    let request =
        Request::put("http://shop.test/").header("trailer", "x-sum").body(Body::stream(pieces)).unwrap();
    let (response, body) = ask(&upstreams, request).await.unwrap();
    assert!(!response.headers().contains_key("transfer-encoding"));
    assert_eq!(body.unwrap().trailers.unwrap()["x-md"], "5");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_the_clients_fault() {
    let script = Script::answering("").await;
    let upstreams = start(origin(&[script.url()]));
    let mut pieces = Pieces::of(&["ab"]);
    pieces.0.push(Err("the client has gone".into()));
    let request = Request::put("http://shop.test/").body(Body::stream(pieces)).unwrap();
    let error = ask(&upstreams, request).await.unwrap_err();
    assert_eq!(error.kind(), OriginErrorKind::Refused, "{error}");
}

#[tokio::test]
async fn nobody_there_is_said_at_once() {
    let upstreams = start(origin(&[nowhere()]));
    let error = ask(&upstreams, get("/")).await.unwrap_err();
    assert_eq!(error.kind(), OriginErrorKind::Disconnected);
    assert!(error.to_string().contains("cannot connect to http://127.0.0.1:"), "{error}");
}

#[tokio::test]
async fn what_a_server_may_have_seen_is_not_sent_again() {
    // The second request arrives on the connection of the first, and is read before the connection closes.
    let script = Script::run(|mut peer| async move {
        if peer.head().await.is_some() {
            peer.write(OK).await;
            peer.head().await;
        }
    })
    .await;
    let upstreams = start(origin(&[script.url()]));
    ask(&upstreams, get("/1")).await.unwrap().1.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let error = ask(&upstreams, get("/2")).await.unwrap_err();
    assert_eq!(error.kind(), OriginErrorKind::Disconnected);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(script.heads().len(), 2);
    assert_eq!(script.connections(), 1);
}

#[tokio::test]
async fn a_connection_that_closed_while_idle_costs_nothing() {
    let script = Script::run(|mut peer| async move {
        peer.head().await;
        peer.write(OK).await;
    })
    .await;
    let upstreams = start(origin(&[script.url()]));
    for _ in 0..20 {
        ask(&upstreams, get("/")).await.unwrap().1.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(script.heads().len(), 20);
}

#[tokio::test]
async fn idle_connections_end_before_the_server_ends_them() {
    // It says that it keeps them for one second, so none is kept at all.
    let script =
        Script::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nKeep-Alive: timeout=1\r\n\r\n").await;
    let upstreams = start(origin(&[script.url()]));
    for _ in 0..2 {
        ask(&upstreams, get("/")).await.unwrap().1.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(script.connections(), 2);
}
