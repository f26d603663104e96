//! What an HTTP cache may do: [RFC 9111] and what belongs to it, as functions of messages and time.
//!
//! There is no cache here yet, no store, no server and no client: only the decisions that one has to make, each with its
//! reason. Nothing does I/O, reads a clock or waits. Messages are those of the crate [`http`]; times are
//! [`SystemTime`](std::time::SystemTime)s that the caller read.
//!
//! - [`policy`]: what may be stored, when it is fresh, which of several stored responses is meant, whether it answers a
//!   request, how it is validated and brought up to date, what is cut from it, what a change invalidates.
//! - [`header`]: the fields that this rests on, read from whatever a peer may send.
//!
//! # A response, from origin to reuse
//!
//! ```
//! use std::time::{Duration, UNIX_EPOCH};
//!
//! use larder_http::policy::{Answer, Exchange, Policy, Reason, Verdict};
//!
//! let policy = Policy::shared();
//! let (request, ()) = http::Request::get("http://example.com/news").body(())?.into_parts();
//! let response = http::Response::builder()
//!     .header("cache-control", "max-age=60, stale-while-revalidate=30")
//!     .header("etag", "\"a1\"")
//!     .body(())?;
//! let (response, ()) = response.into_parts();
//!
//! // The response may be stored, for a minute.
//! let came = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
//! let stored = policy.store(&request, &response, Exchange::at(came))?.with_body_bytes(2048);
//! assert_eq!(stored.lifetime().duration, Duration::from_secs(60));
//!
//! // Ten seconds later, it answers the same request.
//! let now = came + Duration::from_secs(10);
//! let selected = policy.select(&request, [&stored]);
//! let verdict = policy.verdict(&request, selected, now);
//! assert!(matches!(verdict, Verdict::Serve { reason: Reason::Fresh, .. }));
//! let outgoing = stored.respond(&Answer::Whole, false, now);
//! assert_eq!(outgoing.headers["age"], "10");
//!
//! // After a minute it still does, while it is validated in the background.
//! let now = came + Duration::from_secs(70);
//! let Verdict::ServeAndValidate { validation, .. } = policy.verdict(&request, selected, now) else { panic!() };
//! assert_eq!(validation["if-none-match"], "\"a1\"");
//!
//! // Then, the client has to wait for the origin.
//! let now = came + Duration::from_secs(100);
//! let verdict = policy.verdict(&request, selected, now);
//! assert_eq!(verdict.reason().to_string(), "it is stale (RFC 9111 section 4.2)");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What the caller does
//!
//! The key is the caller's: the target URI as it was asked for. So are bodies, and joining and cutting them; that one
//! origin is asked once however many wait; and closing a response with 504 where nothing may be served. Fields of the
//! client's connection are taken out first, by [`header::connection::strip`]; with them goes what says that a `GET` has chunked
//! content, which is to be passed on. Then:
//!
//! 1. [`Policy::select`](policy::Policy::select) among what is stored for the target, then
//!    [`Policy::verdict`](policy::Policy::verdict).
//! 2. If that answers from what is stored: [`Stored::answer`](policy::Stored::answer), then
//!    [`Stored::respond`](policy::Stored::respond).
//! 3. If it validates: send the fields it gives, then [`Policy::after_validation`](policy::Policy::after_validation); if
//!    nothing comes, [`Fallback::on`](policy::Fallback::on).
//! 4. Whatever else comes from the origin: [`Invalidation::of`](policy::Invalidation::of), for `HEAD`
//!    [`Policy::head`](policy::Policy::head), then [`Policy::store`](policy::Policy::store), with
//!    [`Policy::makes_room`](policy::Policy::makes_room) before it is put beside the others.
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
    Purged, StatusDetail, VariantExplanation,
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
}
