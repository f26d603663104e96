//! The adapters, each over real sockets or a service: they are thin, so what is asked is that they are there at all.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use larder_http::policy::Policy;
use larder_http::reqwest::HttpCacheMiddleware;
use larder_http::store::{MemoryStore, MemoryStoreOptions};
use larder_http::tower::{ClientCacheLayer, ServerCacheLayer};
use larder_http::{Body, HttpCache};
use tokio::net::TcpListener;
use tower_layer::Layer as _;
use tower_service::Service;

fn cache(policy: Policy) -> HttpCache {
    HttpCache::builder(Arc::new(MemoryStore::new(MemoryStoreOptions::default()))).policy(policy).build()
}

/// A service that says how often it was asked, and for what; or fails.
#[derive(Clone, Default)]
struct Counter(Arc<AtomicUsize>);

impl Service<Request<Body>> for Counter {
    type Response = Response<Body>;
    type Error = std::io::Error;
    type Future = std::future::Ready<Result<Response<Body>, std::io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), std::io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let nth = self.0.fetch_add(1, Ordering::SeqCst) + 1;
        if request.uri().path() == "/broken" {
            return std::future::ready(Err(std::io::Error::other("it broke")));
        }
        let body = Body::from(format!("{nth} {}", request.uri()));
        let response = Response::builder().header("cache-control", "max-age=60").body(body).unwrap();
        std::future::ready(Ok(response))
    }
}

async fn text(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn a_server_is_cached_by_host_and_sees_requests_as_they_came() {
    let mut service = ServerCacheLayer::new(cache(Policy::shared())).layer(Counter::default());
    let ask = |host: &str| Request::get("/a?b").header("host", host).body(Body::empty()).unwrap();
    let mut call = async |request: Request<Body>| text(service.call(request).await.unwrap()).await;
    assert_eq!(call(ask("one.example")).await, "1 /a?b");
    assert_eq!(call(ask("ONE.example:80")).await, "1 /a?b");
    assert_eq!(call(ask("two.example")).await, "2 /a?b");
    // Whom it is for is not known: it is answered, and nobody else gets that.
    for nth in 3..5 {
        let two = Request::get("/a?b").header("host", "a").header("host", "b").body(Body::empty()).unwrap();
        assert_eq!(call(two).await, format!("{nth} /a?b"));
    }
}

#[tokio::test]
async fn a_server_that_fails_is_502() {
    let mut service = ServerCacheLayer::new(cache(Policy::shared())).layer(Counter::default());
    let request = Request::get("/broken").header("host", "a").body(Body::empty()).unwrap();
    let response = service.call(request).await.unwrap();
    assert_eq!(response.status(), 502);
    assert_eq!(text(response).await, "the origin cannot be reached: it broke\n");
}

/// A server on a socket: `/to` leads to `/a`, everything else says how often it was asked.
async fn server() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let counter = Arc::clone(&counter);
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let nth = counter.fetch_add(1, Ordering::SeqCst) + 1;
                let response = if request.uri().path() == "/to" {
                    Response::builder()
                        .status(302)
                        .header("location", "/a")
                        .header("cache-control", "no-store")
                } else {
                    Response::builder().header("cache-control", "private, max-age=60")
                };
                std::future::ready(Ok::<_, Infallible>(response.body(Body::from(nth.to_string())).unwrap()))
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service),
            );
        }
    });
    (address, asked)
}

#[tokio::test]
async fn a_client_of_hyper_keeps_what_it_gets() {
    let (address, asked) = server().await;
    let client = Client::builder(TokioExecutor::new()).build_http::<Body>();
    let mut client = ClientCacheLayer::new(cache(Policy::private())).layer(client);
    for _ in 0..2 {
        let request = Request::get(format!("http://{address}/a")).body(Body::empty()).unwrap();
        assert_eq!(text(client.call(request).await.unwrap()).await, "1");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_client_of_reqwest_keeps_what_it_gets_by_its_own_target() {
    // reqwest is built without a provider of TLS: the program chooses one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (address, asked) = server().await;
    let client = reqwest::Client::builder().build().unwrap();
    let middleware = HttpCacheMiddleware::new(cache(Policy::private()), client.clone());
    let client = reqwest_middleware::ClientBuilder::new(client).with(middleware).build();
    let get = async |path: &str| {
        let response = client.get(format!("http://{address}{path}")).send().await.unwrap();
        let status = response.headers()["cache-status"].to_str().unwrap().to_owned();
        (response.text().await.unwrap(), status)
    };
    assert_eq!(get("/a").await.0, "1");
    let (body, status) = get("/a").await;
    assert_eq!((body.as_str(), status.starts_with("Larder; hit")), ("1", true), "{status}");
    // What it was redirected to is not what it asked for.
    for nth in [3, 5] {
        assert_eq!(get("/to").await, (nth.to_string(), "Larder; fwd=uri-miss".to_owned()));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 5);
}
