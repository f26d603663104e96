//! Requests that two readers could read in two ways, and what follows them.

use super::{exchange, status};

const NEXT: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// Refuses this with `expected`, shows the service nothing of it, and answers nothing that follows.
async fn refused(expected: u16, request: &str) {
    let (seen, heard) = exchange(format!("{request}{NEXT}")).await;
    assert_eq!((status(&heard), seen), (expected, Vec::<String>::new()), "{request:?}: {heard:?}");
    assert_eq!(heard.matches("HTTP/1.1 ").count(), 1, "{request:?} was followed by an answer: {heard:?}");
    assert!(heard.contains("connection: close\r\n"), "{request:?}: {heard:?}");
}

async fn with_fields(expected: u16, fields: &str) {
    refused(expected, &format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n0\r\n\r\n")).await;
}

#[tokio::test]
async fn both_lengths_are_refused() {
    with_fields(400, "Content-Length: 5\r\nTransfer-Encoding: chunked").await;
    with_fields(400, "Transfer-Encoding: chunked\r\nContent-Length: 5").await;
    with_fields(400, "Transfer-Encoding: chunked\r\nContent-Length: 0").await;
}

#[tokio::test]
async fn several_content_lengths_are_refused() {
    with_fields(400, "Content-Length: 5\r\nContent-Length: 6").await;
    with_fields(400, "Content-Length: 5\r\nContent-Length: 5").await;
    with_fields(400, "content-length: 0\r\nCONTENT-LENGTH: 5").await;
}

#[tokio::test]
async fn content_lengths_that_are_no_number_are_refused() {
    for length in
        ["5, 5", "5,6", "+5", "-5", "0x5", "5 5", "5;", "", "5.0", "5e1", "18446744073709551616", "٣"]
    {
        with_fields(400, &format!("Content-Length: {length}")).await;
    }
}

#[tokio::test]
async fn codings_other_than_chunked_are_refused() {
    for coding in [
        "identity",
        "chunked, identity",
        "chunked, chunked",
        "chunked,",
        ",chunked",
        "xchunked",
        "chunked;q=1",
        "\"chunked\"",
        "chunke",
        "",
        "gzip",
        "chunked gzip",
        "cow",
    ] {
        with_fields(400, &format!("Transfer-Encoding: {coding}")).await;
    }
    with_fields(501, "Transfer-Encoding: gzip, chunked").await;
    with_fields(501, "Transfer-Encoding: identity, chunked").await;
    with_fields(400, "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked").await;
    with_fields(400, "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity").await;
    with_fields(400, "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked").await;
}

#[tokio::test]
async fn chunks_in_http_1_0_are_refused() {
    refused(400, "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").await;
    refused(400, "POST / HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        .await;
}

#[tokio::test]
async fn white_space_before_the_colon_is_refused() {
    with_fields(400, "Transfer-Encoding : chunked").await;
    with_fields(400, "Transfer-Encoding\t: chunked").await;
    with_fields(400, "Content-Length : 5").await;
    with_fields(400, " Content-Length: 5").await;
    with_fields(400, ": 5").await;
}

#[tokio::test]
async fn folded_lines_are_refused() {
    with_fields(400, "X: a\r\n b").await;
    with_fields(400, "X: a\r\n\tTransfer-Encoding: chunked").await;
    with_fields(400, "Transfer-Encoding:\r\n chunked").await;
    refused(400, "GET / HTTP/1.1\r\n Host: a\r\nHost: a\r\n\r\n").await;
}

#[tokio::test]
async fn line_ends_that_are_none_are_refused() {
    with_fields(400, "X: a\rTransfer-Encoding: chunked").await;
    with_fields(400, "X: a\nTransfer-Encoding: chunked").await;
    with_fields(400, "X: a\r\r\nTransfer-Encoding: chunked").await;
    refused(400, "GET / HTTP/1.1\nHost: a\n\n").await;
    refused(400, "GET / HTTP/1.1\r\nHost: a\n\r\n").await;
    refused(400, "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    refused(400, "\rGET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
}

#[tokio::test]
async fn control_bytes_are_refused() {
    for byte in (0..0x20_u8).chain([0x7f]).filter(|byte| !matches!(byte, b'\t' | b'\n' | b'\r')) {
        let byte = char::from(byte);
        with_fields(400, &format!("X: a{byte}b")).await;
        with_fields(400, &format!("X{byte}Y: a")).await;
        refused(400, &format!("GET /a{byte}b HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        refused(400, &format!("G{byte}T / HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        refused(400, &format!("GET / HTTP/1.1{byte}\r\nHost: a\r\n\r\n")).await;
    }
    with_fields(400, "Transfer-Encoding: \u{b}chunked").await;
    with_fields(400, "Content-Length: \u{c}5").await;
    with_fields(400, "Content Length: 5").await;
    with_fields(400, "Content-Length\u{a0}: 5").await;
}

#[tokio::test]
async fn hosts_that_are_not_one_are_refused() {
    refused(400, "GET / HTTP/1.1\r\n\r\n").await;
    refused(400, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").await;
    refused(400, "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n").await;
    refused(400, "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n").await;
    for host in ["", "a, b", "a b", "a/b", "u@a", "a:x", "a#b", "a?b", "[::1", "a:99999", "a\\b", "a:80:80"] {
        refused(400, &format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
    }
}

#[tokio::test]
async fn an_absolute_target_for_another_host_is_refused() {
    refused(400, "GET http://evil/ HTTP/1.1\r\nHost: a\r\n\r\n").await;
    refused(400, "GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n").await;
    refused(400, "GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n").await;
    refused(400, "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n").await;
    refused(400, "GET gopher://a/ HTTP/1.1\r\nHost: a\r\n\r\n").await;
    refused(400, "GET http://a/ HTTP/1.1\r\n\r\n").await;
}

#[tokio::test]
async fn nothing_is_tunnelled() {
    refused(501, "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n").await;
    refused(501, "CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    refused(400, "GET a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n").await;
}

#[tokio::test]
async fn targets_of_no_form_are_refused() {
    for target in [
        "*",
        "a",
        "\\account",
        "?x",
        "#",
        "/account#x.js",
        "/a b",
        "/a\tb",
        "//\u{0}",
        "http://",
        "http:///x",
    ] {
        refused(400, &format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    }
    refused(400, "GET  / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    refused(400, "GET /  HTTP/1.1\r\nHost: a\r\n\r\n").await;
    refused(400, "GET / HTTP/1.1 \r\nHost: a\r\n\r\n").await;
    refused(400, " GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    refused(400, "GET\r\nHost: a\r\n\r\n").await;
    refused(400, "GET /\r\nHost: a\r\n\r\n").await;
}

#[tokio::test]
async fn other_versions_are_refused() {
    for version in ["HTTP/0.9", "HTTP/1.2", "HTTP/2.0", "HTTP/3.0", "HTTP/9.9"] {
        refused(505, &format!("GET / {version}\r\nHost: a\r\n\r\n")).await;
    }
    for version in
        ["HTTP/1", "HTTP/1.11", "http/1.1", "HTTP/01.1", "HTTP/1.x", "ICY/1.1", "HTTP/1,1", "HTTP/11"]
    {
        refused(400, &format!("GET / {version}\r\nHost: a\r\n\r\n")).await;
    }
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    refused(414, &format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(20_000))).await;
    refused(414, &format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "X".repeat(100_000))).await;
    with_fields(431, &format!("X: {}", "x".repeat(70_000))).await;
    with_fields(431, &"X: y\r\n".repeat(200)).await;
    with_fields(431, &format!("{}: y", "x".repeat(70_000))).await;
}

#[tokio::test]
async fn chunks_that_are_none_are_refused_before_anything_is_answered() {
    for chunks in [
        "x\r\n",
        "5 5\r\nabcde\r\n0\r\n\r\n",
        "0x5\r\nabcde\r\n0\r\n\r\n",
        "-1\r\n\r\n",
        "5\nabcde\r\n0\r\n\r\n",
        "5;a\nb\r\nabcde\r\n0\r\n\r\n",
        "5\r\nabcdef\r\n0\r\n\r\n",
        "5\r\nabcde0\r\n\r\n",
        "5\r\nabcde\n0\r\n\r\n",
        "5\rXabcde\r\n0\r\n\r\n",
        "0\r\nX\r\n\r\n",
        "0\r\nX: y\n\r\n",
        "0\r\n\n",
        "fffffffffffffffff\r\n",
        ";a\r\n",
        "5;\r\r\nabcde\r\n0\r\n\r\n",
    ] {
        refused(400, &format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"))
            .await;
    }
}

#[tokio::test]
async fn content_that_nobody_reads_is_not_the_next_request() {
    let seen = super::Seen::default();
    let saw = std::sync::Arc::clone(&seen);
    let hit = move |request: http::Request<larder_http::Body>| {
        saw.lock().push(request.uri().path().to_owned());
        async { http::Response::new(larder_http::Body::from("hit")) }
    };
    let mut talk = super::Talk::to(hit);
    let inner = "GET /inner HTTP/1.1\r\nHost: a\r\n\r\n";
    talk.say(format!("GET /1 HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{inner}", inner.len())).await;
    talk.say(format!(
        "GET /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{inner}\r\n0\r\n\r\n",
        inner.len()
    ))
    .await;
    talk.say("GET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    talk.hear_all().await;
    assert_eq!(*seen.lock(), ["/1", "/2", "/3"]);
}

#[tokio::test]
async fn content_that_comes_after_the_response_is_not_the_next_request() {
    let seen = super::Seen::default();
    let saw = std::sync::Arc::clone(&seen);
    let mut talk = super::Talk::to(move |request: http::Request<larder_http::Body>| {
        saw.lock().push(request.uri().path().to_owned());
        async { http::Response::new(larder_http::Body::from("hit")) }
    });
    talk.say(format!("GET /1 HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", NEXT.len())).await;
    talk.hear("hit").await;
    talk.say(NEXT).await;
    talk.say("GET /2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    talk.hear_all().await;
    assert_eq!(*seen.lock(), ["/1", "/2"]);
}

#[tokio::test]
async fn more_content_than_is_read_for_nothing_ends_the_connection() {
    let hit =
        |_: http::Request<larder_http::Body>| async { http::Response::new(larder_http::Body::from("hit")) };
    for framing in ["Content-Length: 300000", "Transfer-Encoding: chunked"] {
        let mut talk = super::Talk::to(hit);
        talk.say(format!("GET / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n")).await;
        let chunk = if framing.starts_with('T') { "493e0\r\n" } else { "" };
        talk.say(format!("{chunk}{}", NEXT.repeat(300_000 / NEXT.len() + 1))).await;
        let heard = talk.hear_all().await;
        assert_eq!(heard.matches("HTTP/1.1 ").count(), 1, "{framing}: {heard}");
    }
}

#[tokio::test]
async fn an_upgrade_that_is_not_granted_changes_nothing() {
    let fields = "Host: a\r\nConnection: upgrade\r\nUpgrade: websocket";
    let (seen, heard) = exchange(format!("GET /1 HTTP/1.1\r\n{fields}\r\n\r\n{NEXT}")).await;
    assert_eq!(seen, ["GET http://a/1 ", "GET http://a/smuggled "]);
    assert_eq!(heard.matches("HTTP/1.1 200").count(), 2);
}
