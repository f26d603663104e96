//! What a cache may do: RFC 9111 as pure functions. Messages and times come in, decisions with their reasons go out.
//!
//! No clock, no I/O, no bodies. How fields are written is known by [`header`](crate::header).
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
//! client's connection are taken out first, by [`connection::strip`](crate::header::connection::strip); with them goes what
//! says that a `GET` has chunked content, which is to be passed on. Then:
//!
//! 1. [`Policy::select`] among what is stored for the target, then
//!    [`Policy::verdict`].
//! 2. If that answers from what is stored: [`Stored::answer`], then
//!    [`Stored::respond`].
//! 3. If it validates: send the fields it gives, then [`Policy::after_validation`](Policy::after_validation); if
//!    nothing comes, [`Fallback::on`].
//! 4. If only parts of what is asked for are stored: [`Policy::combine_all`] of those that meet may answer. If not, and
//!    the whole is asked for: [`Completion::request`] of [`Stored::completion`], then [`Policy::after_completion`].
//! 5. Whatever else comes from the origin: [`Invalidation::of`], for `HEAD`
//!    [`Policy::head`], then [`Policy::store`], with
//!    [`Policy::makes_room`](Policy::makes_room) before it is put beside the others.

mod age;
mod complete;
mod conditional;
mod content;
mod freshness;
mod freshen;
mod invalidate;
mod reason;
mod respond;
mod reuse;
mod select;
mod stale;
mod storable;
mod stored;
mod terms;
mod uri;
mod validate;

use std::time::Duration;

use http::HeaderName;

pub use complete::{Completed, Whole};
#[cfg(feature = "cache")]
pub(crate) use content::OF_ONE_MESSAGE;
pub use content::{Answer, Completion};
pub use freshen::{Freshened, HeadEffect, Keep, NotFreshened};
pub use freshness::{Lifetime, LifetimeSource};
pub use invalidate::Invalidation;
pub use reason::{NotStorable, Reason};
pub use respond::Outgoing;
pub use reuse::Verdict;
pub use select::{Selected, Selecting};
pub use stale::{Failure, Fallback};
pub use stored::{Exchange, Kept, Mark, Stored};
pub use validate::Outcome;

/// Whom a cache serves (RFC 9111 section 1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Several users.
    Shared,
    /// One user.
    Private,
}

/// How a cache is configured, where the RFCs leave it a choice.
///
/// ```
/// use larder_http::policy::Policy;
///
/// let mut policy = Policy::shared();
/// policy.stale_if_error = std::time::Duration::from_secs(60);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Policy {
    /// Whom it serves.
    pub scope: Scope,
    /// The targeted fields that are meant for it, the first one first (RFC 9213).
    pub targeted: Vec<HeaderName>,
    /// How much of the time since its last modification a response without explicit freshness is fresh, in percent;
    /// 0 for never (RFC 9111 section 4.2.2).
    pub heuristic_percent: u32,
    /// The longest that such a response is fresh.
    pub heuristic_max: Duration,
    /// How long a response is fresh that says nothing about it and whose status may be kept without being told to: what
    /// undici calls `cacheByDefault`. Zero, the default, is not at all. What says anything is not made fresher by it
    /// (RFC 9111 section 4.2.2).
    pub cache_by_default: Duration,
    /// `stale-while-revalidate` of responses that do not say their own (RFC 5861 section 3).
    pub stale_while_revalidate: Duration,
    /// `stale-if-error` of responses that do not say their own (RFC 5861 section 4).
    pub stale_if_error: Duration,
    /// How far past its freshness a response may be used if the origin cannot be reached at all; zero for never
    /// (RFC 9111 section 4.2.4).
    pub stale_if_disconnected: Duration,
    /// The most responses kept for one target, told apart by `Vary`.
    pub variants_max: usize,
}

impl Policy {
    /// A cache for several users: a proxy, or what stands beside a server. It obeys `CDN-Cache-Control`.
    pub fn shared() -> Self {
        Self {
            scope: Scope::Shared,
            targeted: vec![HeaderName::from_static("cdn-cache-control")],
            ..Self::private()
        }
    }

    /// A cache for one user: what stands in a client.
    pub fn private() -> Self {
        Self {
            scope: Scope::Private,
            targeted: Vec::new(),
            heuristic_percent: 10,
            heuristic_max: Duration::from_secs(24 * 60 * 60),
            cache_by_default: Duration::ZERO,
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            stale_if_disconnected: Duration::MAX,
            variants_max: 64,
        }
    }

    fn is_shared(&self) -> bool {
        self.scope == Scope::Shared
    }
}
