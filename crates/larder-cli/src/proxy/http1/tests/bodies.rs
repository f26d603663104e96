//! Responses whose content is not what their head says, and how the client knows.

use http::{Request, Response};
use larder_http::Body;

use super::{Talk, data, echo, exchange, told};

/// What a client hears of a response with this length and content, after the head.
async fn heard(
    version: &str,
    length: Option<&str>,
    pieces: &[&'static str],
    fails: bool,
) -> (String, String) {
    let (teller, body) = told();
    for piece in pieces {
        teller.send(data(piece)).unwrap();
    }
    if fails {
        teller.send(Err("it broke".into())).unwrap();
    }
    drop(teller);
    let mut response = Response::new(body);
    if let Some(length) = length {
        response.headers_mut().insert("content-length", length.parse().unwrap());
    }
    let response = parking_lot::Mutex::new(Some(response));
    let mut talk = Talk::to(move |_: Request<Body>| {
        let response = response.lock().take().unwrap();
        async { response }
    });
    let close = if version.ends_with('y') { "" } else { "Connection: close\r\n" };
    talk.say(format!("GET / {version}\r\nHost: a\r\n{close}\r\n")).await;
    let heard = talk.hear_all().await;
    heard.split_once("\r\n\r\n").map(|(head, body)| (head.to_owned(), body.to_owned())).unwrap()
}

#[tokio::test]
async fn content_that_is_complete_ends() {
    let (head, body) = heard("HTTP/1.1", Some("5"), &["ab", "cde"], false).await;
    assert!(head.contains("content-length: 5"));
    assert_eq!(body, "abcde");
    let (_, body) = heard("HTTP/1.1", None, &["ab", "cde"], false).await;
    assert_eq!(body, "2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n");
    let (head, body) = heard("HTTP/1.0", None, &["ab", "cde"], false).await;
    assert!(!head.contains("content-length") && !head.contains("chunked"));
    assert_eq!(body, "abcde");
}

/// The same, of a client that would go on: the connection ends, since nobody could tell where the next response begins.
async fn heard_last(length: Option<&str>, pieces: &[&'static str], fails: bool) -> String {
    let all = heard("HTTP/1.1\r\nX: y", length, pieces, fails);
    tokio::time::timeout(std::time::Duration::from_secs(10), all).await.expect("the connection ends").1
}

#[tokio::test]
async fn content_that_breaks_off_has_no_end() {
    assert_eq!(heard_last(None, &["ab"], true).await, "2\r\nab\r\n");
    assert_eq!(heard_last(Some("5"), &["ab"], true).await, "ab");
    assert_eq!(heard_last(Some("5"), &["ab"], false).await, "ab");
}

#[tokio::test]
async fn content_that_is_too_long_is_cut() {
    assert_eq!(heard_last(Some("3"), &["ab", "cde"], false).await, "abc");
    assert_eq!(heard_last(Some("2"), &["ab", "cde"], false).await, "ab");
}

#[tokio::test]
async fn content_that_came_whole_or_in_pieces_is_the_same() {
    let (seen, _) = exchange("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde").await;
    assert_eq!(seen, ["POST http://a/ abcde"]);
    let seen = super::Seen::default();
    let mut talk = Talk::to(echo(&seen));
    for byte in
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nabcde\r\n0\r\nX: y\r\n\r\n"
    {
        talk.say([*byte]).await;
        tokio::task::yield_now().await;
    }
    talk.hear("x=y").await;
    assert_eq!(*seen.lock(), ["POST http://a/ abcde x=y"]);
}

#[tokio::test]
async fn large_content_in_memory_arrives_as_it_is() {
    let chunks: Vec<_> = (0..40_u8).map(|at| bytes::Bytes::from(vec![b'a' + at % 26; 20_000])).collect();
    let expected = chunks.concat();
    let service = move |_: Request<Body>| {
        let body = Body::from_chunks(chunks.clone());
        async { Response::new(body) }
    };
    let mut talk = Talk::with(service, super::Settings::default(), 1000);
    talk.say("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let heard = talk.hear_all().await;
    assert!(heard.contains("content-length: 800000\r\n"));
    assert!(heard.split_once("\r\n\r\n").unwrap().1.as_bytes() == expected);
}
