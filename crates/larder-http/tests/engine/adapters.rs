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

/// A service that says how often it was asked, for what, and of which hosts; or fails.
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
        let mut response = Response::builder().header("cache-control", "max-age=60").body(body).unwrap();
        for (name, saw) in [("host", "saw-host"), ("upgrade", "saw-upgrade")] {
            for value in request.headers().get_all(name) {
                response.headers_mut().append(saw, value.clone());
            }
        }
        if request.extensions().get::<Mark>().is_some() {
            response.headers_mut().insert("saw-mark", "yes".parse().unwrap());
        }
        std::future::ready(Ok(response))
    }
}

/// An extension of a request.
#[derive(Clone)]
struct Mark;

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

/// Asks for a URI with these hosts, and says what the service saw: the URI, and the hosts.
async fn seen(
    service: &mut impl Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    uri: &str,
    hosts: &[&str],
) -> (String, Vec<String>) {
    let request = hosts.iter().fold(Request::get(uri), |request, host| request.header("host", *host));
    let response = service.call(request.body(Body::empty()).unwrap()).await.unwrap();
    let hosts =
        response.headers().get_all("saw-host").iter().map(|host| host.to_str().unwrap().to_owned()).collect();
    (text(response).await, hosts)
}

#[tokio::test]
async fn a_response_is_kept_by_the_host_that_the_service_saw() {
    let mut service = ServerCacheLayer::new(cache(Policy::shared())).layer(Counter::default());
    let one = (String::from("1 /a"), vec!["one.example".to_owned()]);
    for (uri, hosts) in [
        // HTTP/2 has no other way to say it, and need not say a scheme that is ours.
        ("https://one.example/a", &[][..]),
        // Whoever writes another `Host` beside it does not get to say whose page this is.
        ("http://one.example/a", &["evil.example"]),
        ("ftp://ONE.example:80/a", &["evil.example"]),
        ("/a", &["One.Example:80"]),
    ] {
        assert_eq!(seen(&mut service, uri, hosts).await, one, "{uri} {hosts:?}");
    }
    assert_eq!(
        seen(&mut service, "/a", &["evil.example"]).await,
        ("2 /a".to_owned(), vec!["evil.example".to_owned()])
    );
    assert_eq!(
        seen(&mut service, "/a", &["[::1]:8080"]).await,
        ("3 /a".to_owned(), vec!["[::1]:8080".to_owned()])
    );
    assert_eq!(seen(&mut service, "/a", &["[::1]:8080"]).await.0, "3 /a");
    let mut nth = 3;
    for (uri, hosts) in [
        ("/a", &["one.example:"][..]),
        ("/a", &["one.example:99999"]),
        ("/a", &["me@one.example"]),
        ("/a", &["one.example/x"]),
        ("/a", &[""]),
        ("/a", &["a", "a"]),
        ("/a", &[]),
        ("*", &["one.example"]),
        ("http://me@one.example/a", &["one.example"]),
        ("http://one.example/a", &["a", "b"]),
    ] {
        for _ in 0..2 {
            nth += 1;
            let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
            let asked: Vec<_> = hosts.iter().map(String::as_str).collect();
            assert_eq!(seen(&mut service, uri, &asked).await, (format!("{nth} {uri}"), hosts), "as it came");
        }
    }
    let mut secure = ServerCacheLayer::new(cache(Policy::shared())).https().layer(Counter::default());
    assert_eq!(seen(&mut secure, "http://a:443/", &[]).await, ("1 /".to_owned(), vec!["a".to_owned()]));
    assert_eq!(seen(&mut secure, "/", &["a"]).await.0, "1 /");
    assert_eq!(seen(&mut secure, "/", &["a:80"]).await, ("2 /".to_owned(), vec!["a:80".to_owned()]));
}

#[tokio::test]
async fn what_wants_another_protocol_goes_straight_through() {
    let mut service = ServerCacheLayer::new(cache(Policy::shared())).layer(Counter::default());
    let ask = |method: &str, connection: &str| {
        let request = Request::builder().method(method).uri("/a").header("host", "a");
        let request = request.header("connection", connection).header("upgrade", "websocket").extension(Mark);
        request.body(Body::empty()).unwrap()
    };
    for nth in 1..3 {
        let response = service.call(ask("GET", "keep-alive, Upgrade")).await.unwrap();
        assert_eq!(
            (&response.headers()["saw-upgrade"], &response.headers()["saw-mark"]),
            (&"websocket".parse().unwrap(), &"yes".parse().unwrap())
        );
        assert!(!response.headers().contains_key("cache-status"));
        assert_eq!(text(response).await, format!("{nth} /a"));
    }
    let response = service.call(ask("CONNECT", "x")).await.unwrap();
    assert!(!response.headers().contains_key("cache-status"));
    assert_eq!(text(response).await, "3 /a");
    // Whoever does not say it in full, or changes something, passes by the cache.
    for (method, connection) in [("GET", "close"), ("POST", "upgrade")] {
        let response = service.call(ask(method, connection)).await.unwrap();
        assert!(
            response.headers().contains_key("cache-status")
                && !response.headers().contains_key("saw-upgrade")
        );
        assert_eq!(response.headers()["saw-mark"], "yes");
        text(response).await;
    }
}

#[tokio::test]
async fn a_connection_becomes_another_one_behind_the_layers() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let echo = service_fn(|mut request: Request<Body>| {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut socket = TokioIo::new(upgrade.await.unwrap());
                let mut word = [0; 4];
                socket.read_exact(&mut word).await.unwrap();
                socket.write_all(&word).await.unwrap();
            });
            let response =
                Response::builder().status(101).header("connection", "upgrade").header("upgrade", "echo");
            std::future::ready(Ok::<_, Infallible>(response.body(Body::empty()).unwrap()))
        });
        let service = ServerCacheLayer::new(cache(Policy::shared())).layer(TowerService(Arc::new(echo)));
        let service =
            service_fn(move |request: Request<hyper::body::Incoming>| service.clone().call(request));
        let connection =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service);
        connection.with_upgrades().await.unwrap();
    });
    let client = Client::builder(TokioExecutor::new()).build_http::<Body>();
    let mut client = ClientCacheLayer::new(cache(Policy::private())).layer(client);
    let request =
        Request::get(format!("http://{address}/")).header("connection", "upgrade").header("upgrade", "echo");
    let response = client.call(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()["upgrade"]), (101, &"echo".parse().unwrap()));
    let mut socket = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    socket.write_all(b"word").await.unwrap();
    let mut word = [0; 4];
    socket.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"word");
}

/// A service of hyper as one of tower.
struct TowerService<S>(Arc<S>);

impl<S> Clone for TowerService<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: hyper::service::Service<Request<Body>>> Service<Request<Body>> for TowerService<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        self.0.call(request)
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

/// A server on a socket: `/to` leads to `/a`, `/varies` says who asked, everything else how often it was asked.
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
                let mut said = nth.to_string();
                let response = if request.uri().path() == "/varies" {
                    for name in ["x-user", "authorization"] {
                        said += &format!(" {}", request.headers()[name].to_str().unwrap());
                    }
                    Response::builder().header("cache-control", "public, max-age=60").header("vary", "x-user")
                } else if request.uri().path() == "/to" {
                    Response::builder()
                        .status(302)
                        .header("location", "/a")
                        .header("cache-control", "no-store")
                } else {
                    Response::builder().header("cache-control", "private, max-age=60")
                };
                std::future::ready(Ok::<_, Infallible>(response.body(Body::from(said)).unwrap()))
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
    // Links in it are relative to where it is, and it is not what was asked for.
    let response = client.get(format!("http://{address}/to#x")).send().await.unwrap();
    assert_eq!(response.url().path(), "/a");
    let response = client.get(format!("http://{address}/a")).send().await.unwrap();
    assert_eq!(response.url().path(), "/a");
    assert_eq!(response.text().await.unwrap(), "1");
    for nth in [5, 7] {
        assert_eq!(get("/to").await, (nth.to_string(), "Larder; fwd=uri-miss".to_owned()));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 7);
}

#[tokio::test]
async fn the_cache_sees_the_fields_that_the_middleware_adds_to_requests() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (address, asked) = server().await;
    let shared = cache(Policy::shared());
    let client = reqwest::Client::builder().build().unwrap();
    let with = |token: &str| {
        let headers =
            http::HeaderMap::from_iter([("x-user", token), ("authorization", token)].map(|(name, value)| {
                (http::HeaderName::from_static(name), http::HeaderValue::from_str(value).unwrap())
            }));
        let middleware =
            HttpCacheMiddleware::new(shared.clone(), client.clone()).with_default_headers(headers);
        assert!(!format!("{middleware:?}").contains(token));
        reqwest_middleware::ClientBuilder::new(client.clone()).with(middleware).build()
    };
    let get = async |token: &str, own: Option<&str>| {
        let request = with(token).get(format!("http://{address}/varies"));
        let request = own.into_iter().fold(request, |request, own| request.header("x-user", own));
        request.send().await.unwrap().text().await.unwrap()
    };
    assert_eq!(get("ann", None).await, "1 ann ann");
    assert_eq!(get("bob", None).await, "2 bob bob");
    assert_eq!(get("ann", None).await, "1 ann ann");
    // What a request says itself stays.
    assert_eq!(get("ann", Some("bob")).await, "2 bob bob");
    assert_eq!(get("ann", Some("cid")).await, "3 cid ann");
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

/// An axum application with a cache around it, on a socket of its own.
async fn application() -> SocketAddr {
    use axum::body::Body as Content;
    use axum::routing::get;
    let streamed = || async {
        let pieces = futures_util::stream::iter(["in ", "pieces"].map(Ok::<_, Infallible>));
        ([("cache-control", "max-age=60")], Content::from_stream(pieces))
    };
    let router = axum::Router::new()
        .route("/known", get(|| async { ([("cache-control", "max-age=60")], "eleven char") }))
        .route("/streamed", get(streamed))
        .route("/none", get(|| async { (http::StatusCode::NO_CONTENT, [("cache-control", "max-age=60")]) }))
        .layer(ServerCacheLayer::new(cache(Policy::shared())));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

#[tokio::test]
async fn an_application_says_how_long_its_answers_are_or_nothing() {
    let address = application().await;
    let client: Client<_, Body> = Client::builder(TokioExecutor::new()).build_http();
    let ask = async |method: &str, path: &str| {
        let request = Request::builder().method(method).uri(format!("http://{address}{path}"));
        let response = client.request(request.body(Body::empty()).unwrap()).await.unwrap();
        let field = |name: &str| {
            response
                .headers()
                .get(name)
                .map(|value| value.to_str().unwrap().split("; ttl").next().unwrap().to_owned())
        };
        let (length, status) = (field("content-length"), field("cache-status").unwrap());
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, length, String::from_utf8(body.to_vec()).unwrap())
    };
    let (stored, hit, miss) = ("Larder; fwd=uri-miss; stored", "Larder; hit", "Larder; fwd=uri-miss");
    for (method, path, status, length, body) in [
        ("HEAD", "/known", miss, Some("11"), ""),
        ("HEAD", "/streamed", miss, None, ""),
        ("GET", "/known", stored, Some("11"), "eleven char"),
        ("GET", "/known", hit, Some("11"), "eleven char"),
        ("HEAD", "/known", hit, Some("11"), ""),
        ("GET", "/streamed", stored, None, "in pieces"),
        ("GET", "/streamed", hit, Some("9"), "in pieces"),
        ("HEAD", "/streamed", hit, None, ""),
        ("GET", "/none", stored, None, ""),
        ("GET", "/none", hit, None, ""),
        ("HEAD", "/none", hit, None, ""),
    ] {
        let (status, length) = (status.to_owned(), length.map(str::to_owned));
        assert_eq!(ask(method, path).await, (status, length, body.to_owned()), "{method} {path}");
    }
}
