//! A router of axum with a cache in front of it: `cargo run -p larder-http --features tower --example axum`, then
//! `curl -i http://127.0.0.1:3000/report`, twice.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::response::IntoResponse;
use axum::routing::get;
use http::header::CACHE_CONTROL;
use larder_http::HttpCache;
use larder_http::store::{MemoryStore, MemoryStoreOptions};
use larder_http::tower::ServerCacheLayer;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cache = HttpCache::builder(Arc::new(MemoryStore::new(MemoryStoreOptions::default()))).build();
    let app = Router::new()
        .route("/report", get(report))
        .route("/users/{id}", get(user))
        // Around all routes; what says nothing of caching is passed on as it is.
        .layer(ServerCacheLayer::new(cache));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("http://{}/report", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}

/// Takes two seconds to make, and holds for a minute; for another ten it may be served while it is made anew.
async fn report() -> impl IntoResponse {
    tokio::time::sleep(Duration::from_secs(2)).await;
    ([(CACHE_CONTROL, "max-age=60, stale-while-revalidate=600")], "the report\n")
}

/// Nobody else's business.
async fn user(Path(id): Path<u64>) -> impl IntoResponse {
    ([(CACHE_CONTROL, "private")], format!("user {id}\n"))
}
