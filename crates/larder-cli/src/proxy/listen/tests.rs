//! Servers on real sockets: plain, TLS, HTTP/2, full, changed while they run, and stopped.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use larder_http::Body;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::tls::{Identity, config};
use super::{BindError, Controls, Options, Server, Swap};
use crate::proxy::http1::Settings;
use crate::proxy::http1::wire::Limits;
use crate::proxy::shutdown::{Stop, shutdown};
use crate::proxy::{Client, Service};

struct Running {
    addresses: Vec<SocketAddr>,
    controls: Controls,
    stop: Stop,
    serving: JoinHandle<()>,
}

fn start(options: Options, service: impl Service) -> Running {
    let server = Server::bind(options).unwrap();
    let addresses = server.addresses().map(|(address, _)| address).collect();
    let controls = server.controls();
    let (stop, hears) = shutdown();
    let serving = tokio::spawn(server.serve(Arc::new(service), hears));
    Running { addresses, controls, stop, serving }
}

fn local() -> Vec<SocketAddr> {
    vec!["127.0.0.1:0".parse().unwrap()]
}

fn identity(name: &str) -> Identity {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/proxy/listen/testdata");
    Identity { chain: folder.join(format!("{name}.pem")), key: folder.join(format!("{name}.key")) }
}

async fn say_target(request: Request<Body>) -> Response<Body> {
    let client = *request.extensions().get::<Client>().unwrap();
    Response::new(Body::from(format!("{} {:?} {}", request.uri(), request.version(), client.scheme.as_str())))
}

async fn ask(io: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin), host: &str) -> String {
    io.write_all(format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    let mut end = None;
    while end.is_none_or(|end| heard.len() < end) {
        heard.push(io.read_u8().await.unwrap());
        if end.is_none() && heard.ends_with(b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&heard);
            let length = head.split("content-length: ").nth(1).unwrap().split('\r').next().unwrap();
            end = Some(heard.len() + length.parse::<usize>().unwrap());
        }
    }
    String::from_utf8(heard).unwrap()
}

async fn secure(address: SocketAddr, name: &str, protocol: &str) -> TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    let authority = identity("a").chain.with_file_name("authority.pem");
    roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

/// What a client of HTTP/2 gets, as status, text and trailers.
async fn ask_http2(
    io: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    request: Request<Body>,
) -> Result<(u16, String), hyper::Error> {
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await?;
    tokio::spawn(connection);
    let (parts, body) = sender.send_request(request).await?.into_parts();
    let mut content = Vec::new();
    let mut body = std::pin::pin!(body);
    while let Some(frame) = std::future::poll_fn(|cx| http_body::Body::poll_frame(body.as_mut(), cx)).await {
        content.extend_from_slice(&frame?.into_data().unwrap_or_default());
    }
    Ok((parts.status.as_u16(), String::from_utf8(content).unwrap()))
}

fn get(uri: &str) -> Request<Body> {
    Request::get(uri).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn several_addresses_serve_and_are_told() {
    let mut plain = local();
    plain.extend(local());
    if Server::bind(Options { plain: vec!["[::1]:0".parse().unwrap()], ..Options::default() }).is_ok() {
        plain.push("[::1]:0".parse().unwrap());
    }
    let count = plain.len();
    let running = start(Options { plain, ..Options::default() }, say_target);
    assert_eq!(running.addresses.len(), count);
    for address in &running.addresses {
        let mut io = TcpStream::connect(address).await.unwrap();
        for _ in 0..2 {
            assert!(ask(&mut io, "h").await.ends_with("http://h/x HTTP/1.1 http"));
        }
    }
}

#[tokio::test]
async fn what_cannot_be_bound_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = Server::bind(Options { plain: vec![address], ..Options::default() }).unwrap_err();
    assert!(error.to_string().starts_with(&format!("cannot listen on {address}: ")), "{error}");
    let error = Server::bind(Options { secure: local(), ..Options::default() }).unwrap_err();
    assert!(matches!(error, BindError::NoCertificate));
    assert!(matches!(Server::bind(Options::default()), Err(BindError::NoAddress)));
}

#[tokio::test]
async fn the_name_chooses_the_certificate() {
    let tls = Some(config(&[identity("a"), identity("b")]).unwrap());
    let running = start(Options { secure: local(), tls, ..Options::default() }, say_target);
    for name in ["a.test", "b.test"] {
        let mut io = secure(running.addresses[0], name, "http/1.1").await;
        assert!(ask(&mut io, name).await.ends_with(&format!("https://{name}/x HTTP/1.1 https")));
    }
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_connections_and_old_ones_stay() {
    let tls = Some(config(&[identity("a")]).unwrap());
    let running = start(Options { secure: local(), tls, ..Options::default() }, say_target);
    let mut old = secure(running.addresses[0], "a.test", "http/1.1").await;
    running.controls.set_tls(config(&[identity("b")]).unwrap());
    let mut new = secure(running.addresses[0], "b.test", "http/1.1").await;
    ask(&mut new, "b.test").await;
    ask(&mut old, "a.test").await;
}

#[test]
fn files_that_are_no_certificates_are_named() {
    let a = identity("a");
    let swapped = Identity { chain: a.key.clone(), key: a.chain.clone() };
    assert!(config(&[swapped]).unwrap_err().to_string().contains("a.key: there is none"));
    let foreign = Identity { key: identity("b").key, ..a.clone() };
    assert!(config(&[foreign]).unwrap_err().to_string().contains("cannot read the key in "));
    let missing = Identity { chain: "nowhere.pem".into(), ..a };
    assert!(config(&[missing]).unwrap_err().to_string().contains("nowhere.pem"));
    assert!(config(&[]).is_err());
}

#[tokio::test]
async fn http2_is_served_by_agreement_and_by_prior_knowledge() {
    let tls = Some(config(&[identity("a")]).unwrap());
    let running = start(Options { plain: local(), secure: local(), tls, ..Options::default() }, say_target);
    let io = secure(running.addresses[1], "a.test", "h2").await;
    let heard = ask_http2(io, get("https://a.test/x?y")).await.unwrap();
    assert_eq!(heard, (200, "https://a.test/x?y HTTP/2.0 https".to_owned()));
    let io = TcpStream::connect(running.addresses[0]).await.unwrap();
    let heard = ask_http2(io, get("http://h:81/x")).await.unwrap();
    assert_eq!(heard, (200, "http://h:81/x HTTP/2.0 http".to_owned()));
}

#[tokio::test]
async fn http2_refuses_what_has_two_readings() {
    let running = start(Options { plain: local(), ..Options::default() }, say_target);
    let with_host = |host: &str| Request::get("http://h/").header("host", host).body(Body::empty()).unwrap();
    let connect = Request::connect("h:80").body(Body::empty()).unwrap();
    let two = {
        let mut request = with_host("h");
        request.headers_mut().append("host", "h".parse().unwrap());
        request
    };
    for (request, expected) in [
        (with_host("H:80"), 200),
        (with_host("evil"), 400),
        (two, 400),
        (get("http://u@h/"), 400),
        (get(&format!("http://h/{}", "x".repeat(20_000))), 414),
        (connect, 501),
    ] {
        let io = TcpStream::connect(running.addresses[0]).await.unwrap();
        let what = format!("{request:?}");
        assert_eq!(ask_http2(io, request).await.unwrap().0, expected, "{what}");
    }
}

#[tokio::test]
async fn http2_content_that_is_not_what_was_said_is_no_content() {
    async fn short(request: Request<Body>) -> Response<Body> {
        let length = request.uri().path()[1..].to_owned();
        Response::builder()
            .header("content-length", length)
            .header("connection", "x")
            .body(Body::from("abc"))
            .unwrap()
    }
    let running = start(Options { plain: local(), ..Options::default() }, short);
    for (length, fits) in [("3", true), ("2", false), ("4", false)] {
        let io = TcpStream::connect(running.addresses[0]).await.unwrap();
        let heard = ask_http2(io, get(&format!("http://h/{length}"))).await;
        assert_eq!(heard.is_ok_and(|(_, text)| text == "abc"), fits, "{length}");
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_wait() {
    let options = Options { plain: local(), connections_max: 1, ..Options::default() };
    let running = start(options, say_target);
    let mut first = TcpStream::connect(running.addresses[0]).await.unwrap();
    ask(&mut first, "h").await;
    assert_eq!(running.controls.connections(), 1);
    let mut second = TcpStream::connect(running.addresses[0]).await.unwrap();
    let mut waits = Box::pin(ask(&mut second, "h"));
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut waits).await.is_err());
    drop(first);
    waits.await;
}

#[tokio::test]
async fn settings_and_services_are_replaced_for_what_comes() {
    let service =
        Swap::new(Arc::new(|_: Request<Body>| std::future::ready(Response::new(Body::from("one")))));
    let running = start(Options { plain: local(), ..Options::default() }, service);
    let mut io = TcpStream::connect(running.addresses[0]).await.unwrap();
    ask(&mut io, "h").await;
    let limits = Limits { head_bytes: 8, ..Limits::default() };
    running.controls.set_settings(Settings { limits, ..Settings::default() });
    ask(&mut io, "h").await;
    let mut new = TcpStream::connect(running.addresses[0]).await.unwrap();
    assert!(ask(&mut new, "h").await.starts_with("HTTP/1.1 431"));
}

#[tokio::test]
async fn a_service_is_replaced_between_two_requests() {
    struct Says(&'static str);
    impl Service for Says {
        async fn call(&self, _: Request<Body>) -> Response<Body> {
            Response::new(Body::from(self.0))
        }
    }
    let service = Swap::new(Arc::new(Says("one")));
    let running = start(Options { plain: local(), ..Options::default() }, service.clone());
    let mut io = TcpStream::connect(running.addresses[0]).await.unwrap();
    assert!(ask(&mut io, "h").await.ends_with("one"));
    service.set(Arc::new(Says("two")));
    assert!(ask(&mut io, "h").await.ends_with("two"));
}

/// Answers when it is told to.
fn patient() -> (tokio::sync::watch::Sender<bool>, impl Service) {
    let (sender, receiver) = tokio::sync::watch::channel(false);
    let service = move |_: Request<Body>| {
        let mut receiver = receiver.clone();
        async move {
            let _ = receiver.wait_for(|is_told| *is_told).await;
            Response::new(Body::from("done"))
        }
    };
    (sender, service)
}

#[tokio::test]
async fn a_server_that_stops_finishes_what_it_has() {
    let (answer, service) = patient();
    let running = start(Options { plain: local(), ..Options::default() }, service);
    let address = running.addresses[0];
    let mut idle = TcpStream::connect(address).await.unwrap();
    let mut busy = TcpStream::connect(address).await.unwrap();
    busy.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    let http2 = TcpStream::connect(address).await.unwrap();
    let http2 = tokio::spawn(ask_http2(http2, get("http://h/")));
    while running.controls.connections() < 3 {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    running.stop.stop();
    assert_eq!(idle.read(&mut [0; 9]).await.unwrap(), 0);
    assert!(TcpStream::connect(address).await.is_err());
    answer.send_replace(true);
    let mut heard = String::new();
    busy.read_to_string(&mut heard).await.unwrap();
    assert!(heard.contains("connection: close\r\n") && heard.ends_with("done"), "{heard}");
    assert_eq!(http2.await.unwrap().unwrap(), (200, "done".to_owned()));
    drop(busy);
    running.serving.await.unwrap();
}

#[tokio::test]
async fn a_server_that_stops_waits_no_longer_than_its_grace() {
    let (_answer, service) = patient();
    let grace = Duration::from_millis(20);
    let running = start(Options { plain: local(), grace, ..Options::default() }, service);
    let mut busy = TcpStream::connect(running.addresses[0]).await.unwrap();
    busy.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    while running.controls.connections() < 1 {
        tokio::task::yield_now().await;
    }
    running.stop.stop();
    running.serving.await.unwrap();
}

#[tokio::test]
async fn content_without_a_length_that_breaks_off_is_reset() {
    async fn breaks(_: Request<Body>) -> Response<Body> {
        struct Broken(bool);
        impl http_body::Body for Broken {
            type Data = Bytes;
            type Error = std::io::Error;
            fn poll_frame(
                mut self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, std::io::Error>>> {
                std::task::Poll::Ready(Some(if std::mem::replace(&mut self.0, true) {
                    Err(std::io::Error::other("it broke"))
                } else {
                    Ok(http_body::Frame::data(Bytes::from_static(b"some")))
                }))
            }
        }
        Response::new(Body::stream(Broken(false)))
    }
    let running = start(Options { plain: local(), ..Options::default() }, breaks);
    for (version, is_reset) in [("HTTP/1.0", true), ("HTTP/1.1", false)] {
        let mut io = TcpStream::connect(running.addresses[0]).await.unwrap();
        io.write_all(format!("GET / {version}\r\nHost: h\r\n\r\n").as_bytes()).await.unwrap();
        let mut heard = Vec::new();
        assert_eq!(io.read_to_end(&mut heard).await.is_err(), is_reset, "{version}");
        assert!(is_reset || heard.ends_with(b"some\r\n"));
    }
}
