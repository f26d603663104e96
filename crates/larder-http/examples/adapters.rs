//! A reverse proxy of a few lines on each adapter, for the public suite to look at them:
//! `adapters tower-client|tower-server|reqwest LISTEN ORIGIN`, say `adapters reqwest 127.0.0.1:8080 http://127.0.0.1:8000`.

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, Response, StatusCode, Uri, header};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use larder_http::store::{MemoryStore, MemoryStoreOptions};
use larder_http::tower::{ClientCacheLayer, ServerCacheLayer};
use larder_http::{Body, HttpCache, policy::Policy, reqwest::HttpCacheMiddleware};
use tokio::net::TcpListener;
use tower_layer::Layer as _;

type BoxError = Box<dyn Error + Send + Sync>;
/// What turns a request to this server into one to the origin, and its answer into one of this server.
type Answer = std::pin::Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [which, listen, origin] = args.as_slice() else {
        return Err("usage: adapters tower-client|tower-server|reqwest LISTEN ORIGIN".into());
    };
    let listener = TcpListener::bind(listen.parse::<SocketAddr>()?).await?;
    let origin = origin.trim_end_matches('/').to_owned();
    let cache = |policy| {
        HttpCache::builder(Arc::new(MemoryStore::new(MemoryStoreOptions::default()))).policy(policy).build()
    };
    eprintln!("listening on http://{}", listener.local_addr()?);
    match which.as_str() {
        "tower-client" => {
            let client = ClientCacheLayer::new(cache(Policy::shared())).layer(client());
            serve(listener, move |request| {
                let mut client = client.clone();
                let origin = origin.clone();
                Box::pin(async move {
                    Ok(tower_service::Service::call(&mut client, towards(&origin, request)?).await?)
                })
            })
            .await
        }
        "tower-server" => {
            let client = client();
            let inner = Function(move |request: Request<Body>| -> Answer {
                let (client, origin) = (client.clone(), origin.clone());
                Box::pin(
                    async move { Ok(client.request(towards(&origin, request)?).await?.map(Body::stream)) },
                )
            });
            let service = ServerCacheLayer::new(cache(Policy::shared())).layer(inner);
            accept(listener, service).await
        }
        "reqwest" => {
            let _ = rustls::crypto::ring::default_provider().install_default();
            let client = reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .pool_idle_timeout(std::time::Duration::from_secs(3))
                .build()?;
            let middleware = HttpCacheMiddleware::new(cache(Policy::private()), client.clone());
            let client = reqwest_middleware::ClientBuilder::new(client).with(middleware).build();
            serve(listener, move |request| {
                let (client, origin) = (client.clone(), origin.clone());
                Box::pin(async move {
                    let request = towards(&origin, request)?.map(reqwest::Body::wrap);
                    let response = client.execute(reqwest::Request::try_from(request)?).await?;
                    Ok(Response::<reqwest::Body>::from(response).map(Body::stream))
                })
            })
            .await
        }
        other => Err(format!("there is no adapter {other}").into()),
    }
}

fn client() -> Client<HttpConnector, Body> {
    Client::builder(TokioExecutor::new())
        .pool_idle_timeout(std::time::Duration::from_secs(3))
        .pool_timer(hyper_util::rt::TokioTimer::new())
        .build_http()
}

/// The request as it goes to the origin.
fn towards(origin: &str, request: Request<Body>) -> Result<Request<Body>, BoxError> {
    let (mut head, body) = request.into_parts();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    head.uri = format!("{origin}{path}").parse::<Uri>()?;
    head.headers.remove(header::HOST);
    head.version = http::Version::HTTP_11;
    Ok(Request::from_parts(head, body))
}

async fn serve(
    listener: TcpListener,
    answer: impl Fn(Request<Body>) -> Answer + Clone + Send + Sync + 'static,
) -> Result<(), BoxError> {
    accept(listener, Function(answer)).await
}

async fn accept<S>(listener: TcpListener, service: S) -> Result<(), BoxError>
where
    S: tower_service::Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Error: std::fmt::Display,
    S::Future: Send,
{
    loop {
        let (socket, _) = listener.accept().await?;
        let service = Outer(service.clone());
        let serving = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(socket), TowerToHyperService::new(service));
        tokio::spawn(async move {
            // A client that goes away is none of ours.
            let _ = serving.await;
        });
    }
}

/// A function as a service.
#[derive(Clone)]
struct Function<F>(F);

impl<F: Fn(Request<Body>) -> Answer> tower_service::Service<Request<Body>> for Function<F> {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), BoxError>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        (self.0)(request)
    }
}

/// A service whose errors are responses, and that takes what hyper reads.
#[derive(Clone)]
struct Outer<S>(S);

impl<S> tower_service::Service<Request<hyper::body::Incoming>> for Outer<S>
where
    S: tower_service::Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Error: std::fmt::Display,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<hyper::body::Incoming>) -> Self::Future {
        let answer = self.0.call(request.map(Body::stream));
        Box::pin(async move {
            Ok(answer.await.unwrap_or_else(|error| {
                let mut response = Response::new(Body::from(format!("{error}\n")));
                *response.status_mut() = StatusCode::BAD_GATEWAY;
                response
            }))
        })
    }
}
