//! What goes through: other protocols, TLS and HTTP/2 to clients, trailers, and what is asked by HEAD.

use http::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use larder_http::Body;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::TlsConnector;

use super::*;

#[test]
fn another_protocol_passes_and_bytes_flow_both_ways() {
    let room = Room::new();
    let origin = Origin::start(|asked, stream| {
        assert!(asked.has("\r\nupgrade: echo\r\n") && asked.has("\r\nconnection: upgrade\r\n"), "{asked:?}");
        let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\nready\n";
        stream.write_all(head.as_bytes()).unwrap();
        let mut piece = [0; 1024];
        while let Ok(bytes @ 1..) = stream.read(&mut piece) {
            stream.write_all(&piece[..bytes].to_ascii_uppercase()).unwrap();
        }
        false
    });
    let server = Server::before(&room, &origin);
    let mut client = Connection::open(server.address());
    client
        .send(&format!("GET /chat HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n"));
    let (status, fields) = client.head();
    assert_eq!(status, 101);
    assert!(fields.contains(&"upgrade: echo".to_owned()), "{fields:?}");
    assert_eq!(client.line(), "ready");
    for (said, heard) in [("one\n", "ONE"), ("two\n", "TWO")] {
        client.send(said);
        assert_eq!(client.line(), heard);
    }
    // Who ends it on one side ends it on the other.
    client.0.get_mut().shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.0.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_tunnel_that_has_fallen_silent_ends_on_both_sides() {
    let room = Room::new();
    let ended = Arc::new(AtomicBool::new(false));
    let ends = ended.clone();
    let origin = Origin::start(move |_, stream| {
        let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        ends.store(matches!(stream.read(&mut [0]), Ok(0)), Ordering::Relaxed);
        false
    });
    let document = format!("listen: 127.0.0.1:0\norigin: {}\ntimeouts: {{ tunnel: 300ms }}\n", origin.url());
    let server = Server::configured(&room, &document, 1);
    let mut client = Connection::open(server.address());
    client
        .send(&format!("GET /chat HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n"));
    assert_eq!(client.head().0, 101);
    assert_eq!(client.0.read(&mut [0]).unwrap(), 0);
    until("the origin's side has ended", || ended.load(Ordering::Relaxed));
}

#[test]
fn trailers_come_through_from_the_origin_and_from_the_cache() {
    let room = Room::new();
    let origin = Origin::start(|_, stream| {
        let answer = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
                      4\r\npage\r\n0\r\nX-Sum: 7\r\n\r\n";
        stream.write_all(answer.as_bytes()).is_ok()
    });
    let server = Server::before(&room, &origin);
    for cache in ["Larder; fwd=uri-miss; stored", "Larder; hit"] {
        let answer = ask(server.address(), "GET", "/", "TE: trailers\r\nConnection: TE\r\n");
        assert_eq!((answer.cache().as_str(), answer.text().as_str()), (cache, "page"));
        assert_eq!(answer.trailers, ["x-sum: 7"], "{cache}");
    }
}

#[test]
fn a_head_is_answered_by_what_a_get_stored_and_has_no_body() {
    let room = Room::new();
    let origin = Origin::start(|asked, stream| {
        let is_head = asked.head.starts_with("HEAD ");
        write_answer(stream, &format!("{FRESH}\nContent-Length: 4"), if is_head { b"" } else { b"page" })
    });
    let server = Server::before(&room, &origin);
    let mut client = Connection::open(server.address());
    let mut head = |path: &str| {
        // The next answer on the same connection shows that there was no body.
        client.send(&format!("HEAD {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        let (status, fields) = client.head();
        Answer { status, fields, body: Vec::new(), trailers: Vec::new() }
    };
    let before = head("/a");
    assert_eq!((before.status, before.field("content-length")), (200, Some("4")));
    assert_eq!(get(server.address(), "/a").text(), "page");
    let after = head("/a");
    assert_eq!((after.cache().as_str(), after.field("content-length")), ("Larder; hit", Some("4")));
    assert_eq!(head("/b").status, 200);
    let asked: Vec<_> =
        origin.asked().iter().map(|asked| asked.head.split(" HTTP").next().unwrap().to_owned()).collect();
    assert_eq!(asked, ["HEAD /a", "GET /a", "HEAD /b"]);
}

#[test]
fn a_client_may_speak_tls_and_http2_and_gets_what_is_cached() {
    let room = Room::new();
    let origin = Origin::saying(FRESH, "page");
    let document = format!(
        "listen_tls: 127.0.0.1:0\ntls: {{ certificate: {}, key: {} }}\norigin: {}\n",
        tls_file("a.pem").display(),
        tls_file("a.key").display(),
        origin.url()
    );
    let server = Server::configured(&room, &document, 1);
    let address = server.at("listening on https");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(tls_file("authority.pem")).unwrap()).unwrap();
        let mut config =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let socket = tokio::net::TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("a.test").unwrap();
        let tls = TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap();
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.unwrap();
        tokio::spawn(connection);
        for cache in ["Larder; fwd=uri-miss; stored", "Larder; hit"] {
            let request = Request::get("https://a.test/x").body(Body::empty()).unwrap();
            let (parts, mut body) = sender.send_request(request).await.unwrap().into_parts();
            let said = parts.headers["cache-status"].to_str().unwrap();
            assert!(parts.status == 200 && said.starts_with(cache), "{parts:?}");
            let mut whole = Vec::new();
            while let Some(frame) =
                std::future::poll_fn(|cx| http_body::Body::poll_frame(std::pin::Pin::new(&mut body), cx))
                    .await
            {
                whole.extend_from_slice(&frame.unwrap().into_data().unwrap_or_default());
            }
            assert_eq!(whole, b"page");
        }
    });
    assert_eq!(origin.asked().len(), 1);
}
