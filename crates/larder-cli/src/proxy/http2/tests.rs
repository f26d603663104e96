//! Requests of HTTP/2, frame by frame, that would be something else in HTTP/1.1; and clients that let others wait.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use larder_http::Body;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::serve_connection;
use crate::proxy::http1::tests::{Teller, collect, impatient, told};
use crate::proxy::http1::{Settings, after};
use crate::proxy::shutdown::shutdown;
use crate::proxy::{Client, Scheme, Service};

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
    request_on(1, fields)
}

fn request_on(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.as_bytes());
        }
    }
    frame(1, 5, stream, &block)
}

/// The client's end of a connection that is served.
fn serve(service: impl Service, settings: Settings, room: usize) -> (DuplexStream, JoinHandle<()>) {
    let (io, server) = duplex(room);
    let address = "192.0.2.1:1".parse().unwrap();
    let client = Client { remote: address, local: address, scheme: Scheme::Http };
    let serving = tokio::spawn(async move {
        let (_stop, hears) = shutdown();
        serve_connection(server, Bytes::new(), client, Arc::new(service), &settings, &hears).await;
    });
    (io, serving)
}

/// That of a client that says what it is told to, beginning with its settings.
async fn talk(service: impl Service, settings: Settings, room: usize) -> (DuplexStream, JoinHandle<()>) {
    let (mut io, serving) = serve(service, settings, room);
    io.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    io.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    (io, serving)
}

/// The next frame: its kind, its flags, its stream, and what is in it.
async fn heard(io: &mut DuplexStream) -> Option<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    io.read_exact(&mut head).await.ok()?;
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    let mut payload = vec![0; length];
    io.read_exact(&mut payload).await.ok()?;
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    // Whoever does not answer a ping is not there.
    if (head[3], head[4]) == (6, 0) {
        io.write_all(&frame(6, 1, 0, &payload)).await.ok()?;
    }
    Some((head[3], head[4], stream, payload))
}

/// The targets that the service saw when this was all that came.
async fn seen(fields: Fields<'_>) -> Vec<String> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let saw = Arc::clone(&seen);
    let service = move |request: Request<Body>| {
        saw.lock().push(request.uri().to_string());
        async { Response::new(Body::from("seen")) }
    };
    let (mut io, serving) = talk(service, Settings::default(), 1 << 16).await;
    io.write_all(&request(&fields)).await.unwrap();
    // Until the answer to that stream, whatever it is: a response, its reset, or the end of the connection.
    let answered = async {
        while let Some((kind, ..)) = heard(&mut io).await {
            if matches!(kind, 1 | 3 | 7) {
                return;
            }
        }
    };
    timeout(Duration::from_secs(10), answered).await.expect("it is answered");
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

/// How long [`impatient`] settings are patient.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a client gets that sends a drop of content after each of these times, and then nothing; and what came of it.
async fn posted(drops: Vec<Duration>, settings: Settings) -> (u16, Option<usize>) {
    let came = Arc::new(Mutex::new(None));
    let comes = Arc::clone(&came);
    let service = move |request: Request<Body>| {
        let comes = Arc::clone(&comes);
        async move {
            let content = collect(request.into_body()).await;
            *comes.lock() = content.as_ref().ok().map(|(content, _)| content.len());
            let mut response = Response::new(Body::empty());
            *response.status_mut() = if content.is_ok() { StatusCode::OK } else { StatusCode::BAD_GATEWAY };
            response
        }
    };
    let (io, serving) = serve(service, settings, 1 << 16);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.unwrap();
    tokio::spawn(connection);
    let (teller, content) = told();
    let telling = tokio::spawn(async move {
        for after in drops {
            tokio::time::sleep(after).await;
            let _ = teller.send(Ok(Frame::data(Bytes::from_static(b"drop"))));
        }
        // Not the end of the content, which nobody has said.
        std::future::pending::<()>().await;
    });
    let request = Request::post("http://a/x").body(content).unwrap();
    let response = timeout(PATIENCE * 20, sender.send_request(request)).await.expect("it is answered");
    telling.abort();
    serving.abort();
    let came = *came.lock();
    (response.unwrap().status().as_u16(), came)
}

#[tokio::test(start_paused = true)]
async fn content_that_does_not_come_is_answered_408() {
    assert_eq!(posted(Vec::new(), impatient()).await, (408, None));
    // It may take as long as it likes, as long as it comes.
    let soonest = after(PATIENCE * 5);
    assert_eq!(posted(vec![PATIENCE * 4 / 5; 6], impatient()).await, (408, None));
    assert!(after(Duration::ZERO) > soonest);
}

#[tokio::test(start_paused = true)]
async fn content_that_is_too_large_is_answered_413() {
    let mut settings = impatient();
    settings.limits.body_bytes = 10;
    assert_eq!(posted(vec![Duration::from_millis(1); 6], settings).await, (413, None));
}

/// A service that says much at `/x`, which never ends, and little anywhere else.
fn talkative() -> (Teller, impl Service) {
    let (teller, body) = told();
    teller.send(Ok(Frame::data(Bytes::from(vec![b'x'; 1 << 20])))).unwrap();
    let much = Mutex::new(Some(body));
    let service = move |request: Request<Body>| {
        let much = if request.uri().path() == "/x" { much.lock().take() } else { None };
        async { Response::new(much.unwrap_or_else(|| Body::from("little"))) }
    };
    (teller, service)
}

#[tokio::test(start_paused = true)]
async fn a_response_that_nobody_takes_is_given_up_and_no_other() {
    let (teller, service) = talkative();
    let (mut io, _serving) = talk(service, impatient(), 1 << 20).await;
    // The connection may carry more than one of its streams.
    let window = |stream, bytes: u32| frame(8, 0, stream, &bytes.to_be_bytes());
    io.write_all(&window(0, 1 << 24)).await.unwrap();
    io.write_all(&request(&GOOD)).await.unwrap();
    // Whoever takes a frame now and then may go on.
    for _ in 0..6 {
        tokio::time::sleep(PATIENCE * 4 / 5).await;
        io.write_all(&window(1, 16_384)).await.unwrap();
    }
    let mut got = 0;
    while got < 65_535 + 6 * 16_384 {
        let (kind, _, _, payload) = heard(&mut io).await.expect("it goes on");
        assert_ne!(kind, 3, "after {got} bytes");
        got += if kind == 0 { payload.len() } else { 0 };
    }
    assert!(!teller.is_closed());
    let reset = async {
        loop {
            let (kind, _, stream, _) = heard(&mut io).await.expect("the connection goes on");
            if kind == 3 {
                return stream;
            }
        }
    };
    assert_eq!(timeout(PATIENCE * 2, reset).await.expect("it is given up"), 1);
    assert!(teller.is_closed());
    // The others have nothing to do with it.
    let mut other = GOOD.to_vec();
    other[3].1 = "/y";
    io.write_all(&request_on(3, &other)).await.unwrap();
    loop {
        let (kind, _, stream, payload) = heard(&mut io).await.expect("the connection goes on");
        if (kind, stream) == (0, 3) {
            assert_eq!(payload, b"little");
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing_is_let_go() {
    let (teller, service) = talkative();
    let (mut io, serving) = talk(service, impatient(), 1024).await;
    io.write_all(&request(&GOOD)).await.unwrap();
    timeout(PATIENCE * 2, serving).await.expect("it ends").unwrap();
    timeout(PATIENCE, teller.closed()).await.expect("its response ends, too");
}
