//! Requests of HTTP/2, frame by frame, that would be something else in HTTP/1.1.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use larder_http::Body;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

use super::serve_connection;
use crate::proxy::http1::Settings;
use crate::proxy::shutdown::shutdown;
use crate::proxy::{Client, Scheme};

type Fields<'a> = Vec<(&'a str, &'a str)>;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A request without content, in literals that no table remembers.
fn request(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.as_bytes());
        }
    }
    frame(1, 5, 1, &block)
}

/// The targets that the service saw when this was all that came.
async fn seen(fields: Fields<'_>) -> Vec<String> {
    let (mut io, server) = duplex(1 << 16);
    let (_stop, hears) = shutdown();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let saw = Arc::clone(&seen);
    let service = move |request: Request<Body>| {
        saw.lock().push(request.uri().to_string());
        async { Response::new(Body::from("seen")) }
    };
    let address = "192.0.2.1:1".parse().unwrap();
    let client = Client { remote: address, local: address, scheme: Scheme::Http };
    let serving = tokio::spawn(async move {
        let settings = Settings::default();
        serve_connection(server, bytes::Bytes::new(), client, Arc::new(service), &settings, &hears).await;
    });
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    bytes.extend(request(&fields));
    io.write_all(&bytes).await.unwrap();
    // Until the answer to that stream, whatever it is: a response, its reset, or the end of the connection.
    let answered = async {
        let mut head = [0; 9];
        while io.read_exact(&mut head).await.is_ok() {
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            io.read_exact(&mut vec![0; length]).await.unwrap();
            if matches!(head[3], 1 | 3 | 7) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), answered).await.expect("it is answered");
    serving.abort();
    seen.lock().clone()
}

const GOOD: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/x")];

#[tokio::test]
async fn a_request_is_seen() {
    assert_eq!(seen(GOOD.to_vec()).await, ["http://a/x"]);
}

#[tokio::test]
async fn paths_that_would_end_a_line_are_not_seen() {
    for path in ["/a b", "/a\r\nX: y", "/a\n", "/a\0", "/a\tb", "a", ""] {
        let mut fields = GOOD.to_vec();
        fields[3].1 = path;
        assert_eq!(seen(fields).await, Vec::<String>::new(), "{path:?}");
    }
}

#[tokio::test]
async fn fields_that_would_frame_a_request_are_not_seen() {
    for field in [
        ("transfer-encoding", "chunked"),
        ("connection", "close"),
        ("upgrade", "h2c"),
        ("content-length", "5"),
        ("content-length", "x"),
        ("X", "y"),
        ("x y", "z"),
        ("x", "y\r\nz: a"),
        (":path", "/y"),
        (":x", "y"),
        ("host", "b"),
    ] {
        let mut fields = GOOD.to_vec();
        fields.push(field);
        assert_eq!(seen(fields).await, Vec::<String>::new(), "{field:?}");
    }
}

#[tokio::test]
async fn hosts_that_are_not_one_are_not_seen() {
    for host in ["", "a b", "a,b", "u@a", "a/b", "a:x"] {
        let mut fields = GOOD.to_vec();
        fields[2].1 = host;
        assert_eq!(seen(fields).await, Vec::<String>::new(), "{host:?}");
    }
    let none = vec![GOOD[0], GOOD[1], GOOD[3]];
    assert_eq!(seen(none).await, Vec::<String>::new());
}
