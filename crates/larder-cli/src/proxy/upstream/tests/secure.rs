//! TLS and HTTP/2 to origins.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Version};
use http_body::Frame;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use larder::BoxError;
use larder_http::{Body, OriginErrorKind};
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::super::options::{HostHeader, OriginOptions, Protocol, TlsOptions};
use super::script::{Pieces, ask, get, origin, start};

fn pem(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/proxy/upstream/tests/tls").join(name)
}

/// Answers with the version, the host and what it was sent, and repeats the trailers.
async fn echo(request: Request<Incoming>) -> Result<Response<Body>, BoxError> {
    let version = request.version();
    let host = request.uri().authority().map(ToString::to_string);
    let host = host.or_else(|| Some(request.headers().get("host")?.to_str().ok()?.to_owned()));
    let te = request.headers().get("te").map(|te| te.to_str().unwrap().to_owned());
    let body = super::script::read(Body::stream(request.into_body())).await?;
    let text = format!("{version:?} {} {} {}", host.unwrap_or_default(), te.unwrap_or_default(), body.text);
    let mut pieces = Pieces(vec![Ok(Frame::data(Bytes::from(text)))]);
    pieces.0.extend(body.trailers.map(|trailers| Ok(Frame::trailers(trailers))));
    Ok(Response::new(Body::stream(pieces)))
}

/// A server that speaks these protocols; over TLS, if it has any. Counts its connections.
async fn serve(alpn: &[&str], asks: bool) -> (u16, Arc<Mutex<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let chain = vec![CertificateDer::from_pem_file(pem("server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(pem("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let builder = if asks {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(pem("ca.pem")).unwrap()).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let tls = (!alpn.is_empty()).then(|| TlsAcceptor::from(Arc::new(config)));
    let count = Arc::<Mutex<usize>>::default();
    let counts = count.clone();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            *counts.lock() += 1;
            let tls = tls.clone();
            tokio::spawn(async move {
                let Some(tls) = tls else {
                    return drop(
                        http2::Builder::new(TokioExecutor::new())
                            .serve_connection(TokioIo::new(socket), service_fn(echo))
                            .await,
                    );
                };
                let Ok(stream) = tls.accept(socket).await else { return };
                let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                let io = TokioIo::new(stream);
                if http2 {
                    drop(
                        http2::Builder::new(TokioExecutor::new())
                            .serve_connection(io, service_fn(echo))
                            .await,
                    );
                } else {
                    drop(http1::Builder::new().serve_connection(io, service_fn(echo)).await);
                }
            });
        }
    });
    (port, count)
}

fn trusting(port: u16) -> OriginOptions {
    let tls = TlsOptions { ca: Some(pem("ca.pem")), ..TlsOptions::default() };
    OriginOptions { tls, ..origin(&[format!("https://localhost:{port}")]) }
}

fn put(text: &'static str) -> Request<Body> {
    let mut pieces = Pieces::of(&[text]);
    pieces.0.push(Ok(Frame::trailers(HeaderMap::from_iter([(
        http::HeaderName::from_static("x-sum"),
        http::HeaderValue::from_static("7"),
    )]))));
    Request::put("http://shop.test/").header("trailer", "x-sum").body(Body::stream(pieces)).unwrap()
}

#[tokio::test]
async fn the_protocol_is_agreed_on_and_http2_shares_a_connection() {
    for (offered, protocol, version, te) in [
        (&["h2", "http/1.1"][..], Protocol::Auto, Version::HTTP_2, "trailers"),
        (&["h2", "http/1.1"], Protocol::Http1, Version::HTTP_11, ""),
        (&["h2"], Protocol::Http2, Version::HTTP_2, "trailers"),
        (&["http/1.1"], Protocol::Auto, Version::HTTP_11, ""),
    ] {
        let (port, connections) = serve(offered, false).await;
        let upstreams = start(OriginOptions { protocol, ..trusting(port) });
        for _ in 0..3 {
            let (response, body) = ask(&upstreams, put("abc")).await.unwrap();
            assert_eq!(response.version(), Version::HTTP_11, "what the client speaks is not the origin's");
            let body = body.unwrap();
            assert_eq!(body.text, format!("{version:?} localhost:{port} {te} abc"));
            if version == Version::HTTP_2 {
                assert_eq!(body.trailers.unwrap()["x-sum"], "7");
            }
        }
        if version == Version::HTTP_2 {
            assert_eq!(*connections.lock(), 1);
        }
    }
}

#[tokio::test]
async fn http2_without_tls_is_spoken_by_prior_knowledge() {
    let (port, _) = serve(&[], false).await;
    let options =
        OriginOptions { protocol: Protocol::Http2, ..origin(&[format!("http://127.0.0.1:{port}")]) };
    let (_, body) = ask(&start(options), put("x")).await.unwrap();
    assert_eq!(body.unwrap().text, "HTTP/2.0 shop.test trailers x");
}

#[tokio::test]
async fn nobody_is_believed_without_a_good_certificate() {
    let (port, _) = serve(&["http/1.1"], false).await;
    let refused = [
        // Of nobody that the platform knows.
        TlsOptions::default(),
        // For another name.
        TlsOptions {
            ca: Some(pem("ca.pem")),
            server_name: Some("shop.test".to_owned()),
            ..TlsOptions::default()
        },
    ];
    for tls in refused {
        let error = ask(&start(OriginOptions { tls, ..trusting(port) }), get("/")).await.unwrap_err();
        assert_eq!(error.kind(), OriginErrorKind::Disconnected);
        assert!(error.to_string().contains("certificate"), "{error}");
    }
    for tls in [
        TlsOptions { verify: false, ..TlsOptions::default() },
        TlsOptions {
            ca: Some(pem("ca.pem")),
            server_name: Some("origin.test".to_owned()),
            ..TlsOptions::default()
        },
    ] {
        let options = OriginOptions { tls, host: HostHeader::Pass, ..trusting(port) };
        assert_eq!(ask(&start(options), get("/")).await.unwrap().1.unwrap().text, "HTTP/1.1 shop.test  ");
    }
}

#[tokio::test]
async fn we_show_a_certificate_to_those_who_ask() {
    let (port, _) = serve(&["http/1.1"], true).await;
    assert!(ask(&start(trusting(port)), get("/")).await.is_err());
    let identity = Some((pem("server.pem"), pem("server.key")));
    let tls = TlsOptions { ca: Some(pem("ca.pem")), identity, ..TlsOptions::default() };
    assert!(ask(&start(OriginOptions { tls, ..trusting(port) }), get("/")).await.is_ok());
}

#[test]
fn files_that_are_not_what_they_should_be_are_named() {
    use super::super::tls::Tls;
    let wrong = |tls: TlsOptions| Tls::new(&tls, Protocol::Auto).unwrap_err();
    let ca = |file: &str| TlsOptions { ca: Some(pem(file)), ..TlsOptions::default() };
    assert!(wrong(ca("nothing.pem")).starts_with("cannot read the certificate "));
    assert!(wrong(ca("server.key")).starts_with("there is no certificate in "));
    let identity = |certificate: &str, key: &str| TlsOptions {
        identity: Some((pem(certificate), pem(key))),
        ..TlsOptions::default()
    };
    assert!(wrong(identity("server.pem", "ca.pem")).starts_with("there is no private key in "));
    assert!(wrong(identity("ca.pem", "server.key")).starts_with("cannot use the certificate "));
}
