//! An HTTP cache to the letter of [RFC 9111]: in front of a server, around a client, or as a part of something else.
//!
//! - [`HttpCache`] takes a request and gives a response: from what is stored, or by asking an [`Origin`], once for all who wait.
//!   [`tower`](https://docs.rs/larder-http/latest/larder_http/tower/) and
//!   [`reqwest`](https://docs.rs/larder-http/latest/larder_http/reqwest/) put it where it is needed.
//! - [`store`]: where responses live, any stack of `larder` or one's own.
//! - [`policy`]: what may be stored, when it is fresh, which of several stored responses is meant, whether it answers a
//!   request, how it is validated and brought up to date, what is cut from it, what a change invalidates: pure functions of
//!   messages and times, each with its reason, for whoever writes a cache of their own.
//! - [`header`]: the fields that this rests on, read from whatever a peer may send.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! use std::sync::Arc;
//! use larder_http::store::{MemoryStore, MemoryStoreOptions};
//! use larder_http::{Body, HttpCache, Origin, OriginError};
//!
//! struct News;
//! #[async_trait::async_trait]
//! impl Origin for News {
//!     async fn send(&self, _: http::Request<Body>) -> Result<http::Response<Body>, OriginError> {
//!         let mut response = http::Response::new(Body::from("news"));
//!         response.headers_mut().insert("cache-control", "max-age=60".parse().unwrap());
//!         Ok(response)
//!     }
//! }
//!
//! let cache = HttpCache::builder(Arc::new(MemoryStore::new(MemoryStoreOptions::default()))).build();
//! let origin: Arc<dyn Origin> = Arc::new(News);
//! let request = http::Request::get("http://example.com/news").body(Body::empty())?;
//! let response = cache.handle(&origin, request).await?;
//! assert_eq!(response.headers()["cache-status"], "Larder; fwd=uri-miss; stored");
//! # Ok::<(), Box<dyn std::error::Error>>(()) })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! `cache` (default) is the cache and its stores. Without it there are [`policy`] and [`header`], which depend on nothing that
//! does I/O. `sqlite` adds `SqliteStore`, `tower` and `reqwest` the adapters, `testing` the suite for stores of one's own.
//!
//! [RFC 9111]: https://www.rfc-editor.org/rfc/rfc9111

pub mod header;
pub mod policy;

#[cfg(feature = "cache")]
mod body;
#[cfg(feature = "cache")]
mod engine;
#[cfg(feature = "cache")]
mod key;
#[cfg(feature = "cache")]
mod origin;
#[cfg(feature = "cache")]
pub mod store;
#[cfg(feature = "tower")]
pub mod tower;
#[cfg(feature = "reqwest")]
pub mod reqwest;
#[cfg(feature = "testing")]
pub mod testing;

#[cfg(feature = "cache")]
pub use body::Body;
#[cfg(feature = "cache")]
pub use engine::{
    Explanation, FLIGHTS_MAX, Handled, HttpCache, HttpCacheBuilder, HttpStats, LONER_TIME, LONERS_MAX,
    Purged, StatusDetail, VariantExplanation, WAIT_MAX,
};
#[cfg(feature = "cache")]
pub use key::{NoKey, TARGET_BYTES_MAX, target};
#[cfg(feature = "cache")]
pub use origin::{OnInterim, Origin, OriginError, OriginErrorKind, Redirected, StatusMessage};

/// The programs of the pages, compiled and run by `cargo test --doc`.
#[cfg(all(doctest, feature = "sqlite", feature = "testing"))]
mod pages {
    #[doc = include_str!("../../../docs/coming-from/undici.md")]
    mod from_undici {}
    #[doc = include_str!("../../../docs/write-a-store.md")]
    mod write_a_store {}
    #[doc = include_str!("../../../docs/http.md")]
    mod http {}
}
