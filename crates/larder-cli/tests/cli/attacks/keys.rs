//! Keys that omit something: what may be another resource is another entry, or is refused. And requests that are for
//! somebody else altogether.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};

use super::scene::{Client, Origin, Serving, fresh, get};
use crate::harness::Room;

/// Answers with what the key has to have in it.
fn mirror() -> Origin {
    Origin::saying(|seen| {
        let said = |name| seen.field(name).unwrap_or_default().to_owned();
        fresh(format!("{} {} {}", said("x-forwarded-proto"), said("host"), seen.target()))
    })
}

#[test]
fn hosts_ports_and_queries_are_in_the_key() {
    let origin = mirror();
    let serving = Serving::of(&origin);
    let all = [
        ("a", "/x"),
        ("b", "/x"),
        ("a.", "/x"),
        ("a:81", "/x"),
        ("a:443", "/x"),
        ("[::1]", "/x"),
        ("a", "/x?"),
        ("a", "/x?q=a"),
        ("a", "/x?q=b"),
        ("a", "/x?q=a&r"),
        ("a", "/X"),
    ];
    let ask =
        |host: &str, target: &str| serving.ask(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    for (host, target) in all {
        let heard = ask(host, target);
        assert!(!heard.is_hit(), "{host}{target}");
        assert_eq!(heard.text(), format!("http {host} {target}"));
    }
    for (host, target) in all {
        let heard = ask(host, target);
        assert!(heard.is_hit(), "{host}{target}");
        assert_eq!(heard.text(), format!("http {host} {target}"));
    }
    assert_eq!(origin.asked(), all.len());
}

#[test]
fn what_is_one_key_looks_the_same_to_the_origin() {
    // Whoever writes the host another way gets no answer of their own making kept for those who do not.
    for (host, target) in
        [("A:80", "/x"), ("A", "/x"), ("a:080", "/x"), ("a", "http://A:80/x"), ("a:80", "http://a/x")]
    {
        let origin = mirror();
        let serving = Serving::of(&origin);
        let heard = serving.ask(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        if heard.status == 400 {
            assert_eq!(origin.asked(), 0, "{host} {target}");
            continue;
        }
        assert_eq!(heard.text(), "http a /x", "{host} {target}");
        assert_eq!(origin.last().field("x-forwarded-host"), Some("a"), "{host} {target}");
        assert_eq!(serving.hit("/x", "").text(), "http a /x", "{host} {target}");
        assert_eq!(origin.asked(), 1, "{host} {target}");
    }
}

#[test]
fn what_is_for_nobody_or_somebody_else_reaches_no_origin() {
    let origin = mirror();
    let serving = Serving::with(&origin, "", "");
    for (status, request) in [
        (400, "GET http://evil/x HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET http://a:81/x HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET https://a/x HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET http://u@a/x HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        (400, "GET /x HTTP/1.1\r\nHost: a, b\r\n\r\n"),
        (400, "GET /x HTTP/1.1\r\nHost: a:99999\r\n\r\n"),
        (400, "GET /x HTTP/1.1\r\nHost: a:\r\n\r\n"),
        (400, "GET /x HTTP/1.1\r\n\r\n"),
        (501, "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"),
        (501, "CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: 169.254.169.254:80\r\n\r\n"),
    ] {
        assert_eq!(serving.ask(request).status, status, "{request}");
    }
    assert_eq!(origin.asked(), 0);
}

#[test]
fn a_host_never_says_where_a_request_goes() {
    // The upstream is the configured one whatever the request says; with routes, other hosts are not served at all.
    let (origin, elsewhere) = (mirror(), mirror());
    let serving = Serving::of(&origin);
    let place = elsewhere.address;
    for host in [place.to_string(), "localhost".to_owned(), format!("localhost:{}", place.port())] {
        let heard = serving.ask(format!("GET http://{host}/x HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(heard.text(), format!("http {host} /x"));
    }
    let heard =
        serving.get("/x", &format!("X-Forwarded-Host: {place}\r\nX-Original-URL: http://{place}/\r\n"));
    assert_eq!(heard.text(), "http a /x");
    assert_eq!((origin.asked(), elsewhere.asked()), (4, 0));

    let url =
        format!("origins: {{ app: 'http://{}' }}\nroutes: [ {{ host: a, origin: app }} ]", origin.address);
    let serving = Serving::configured(Room::new(), &url);
    for host in [&*place.to_string(), "localhost", "b"] {
        let heard = serving.ask(format!("GET http://{host}/x HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(heard.status, 421, "{host}");
    }
    assert_eq!(serving.get("/x", "").status, 200);
    assert_eq!(elsewhere.asked(), 0);
}

#[test]
fn the_scheme_is_in_the_key() {
    let origin = mirror();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/proxy/listen/testdata");
    let lines = format!(
        "origin: 'http://{}'\nlisten: '127.0.0.1:0'\nlisten_tls: '127.0.0.1:0'\n\
         tls: {{ certificate: '{}', key: '{}' }}\n",
        origin.address,
        folder.join("a.pem").display(),
        folder.join("a.key").display()
    );
    let serving = Serving::configured(Room::new(), &lines);
    let secure = serving.place("listening on https");
    let plain = serving.place("listening on http");

    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("authority.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("a.test").unwrap();
    let session = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = std::net::TcpStream::connect(secure).unwrap();
    let mut over_tls = Client::over(rustls::StreamOwned::new(session, stream));
    let mut in_plain = Client::to(plain);
    // The port of the one scheme is not that of the other.
    for (host, of_http, of_https) in [("a", "a", "a"), ("a:443", "a:443", "a"), ("a:80", "a", "a:80")] {
        let request = format!("GET /{} HTTP/1.1\r\nHost: {host}\r\n\r\n", host.len());
        let path = host.len();
        in_plain.say(&request);
        assert_eq!(in_plain.hear().unwrap().text(), format!("http {of_http} /{path}"));
        over_tls.say(&request);
        assert_eq!(over_tls.hear().unwrap().text(), format!("https {of_https} /{path}"));
    }
    over_tls.say(get("/1", ""));
    assert_eq!(over_tls.hear().unwrap().text(), "https a /1");
}
