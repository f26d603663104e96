//! How a cache is put together.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts as Request;
use larder::time::{Clock, SystemClock};

use super::flights::Flights;
use super::stats::Counts;
use super::variance::Variances;
use super::{HttpCache, Shared};
use crate::policy::Policy;
use crate::store::HttpStore;

/// How much `Cache-Status` tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StatusDetail {
    /// The field is not sent.
    Off,
    /// Whether it was a hit, why not, whether it is stored, how long it stays fresh.
    #[default]
    Outcome,
    /// The same, and the reason in words.
    Reasons,
}

type Admits = dyn Fn(&Request) -> bool + Send + Sync;

/// Which requests are for the cache; unless it is told, all.
#[derive(Clone, Default)]
pub(super) struct Only(Option<Arc<Admits>>);

impl Only {
    pub(super) fn admits(&self, request: &Request) -> bool {
        self.0.as_ref().is_none_or(|admits| admits(request))
    }
}

impl fmt::Debug for Only {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Only(some)" } else { "Only(all)" })
    }
}

/// Puts an [`HttpCache`] together.
#[derive(Debug)]
#[must_use]
pub struct HttpCacheBuilder {
    store: Arc<dyn HttpStore>,
    policy: Policy,
    clock: Arc<dyn Clock>,
    name: Cow<'static, str>,
    detail: StatusDetail,
    keep: Duration,
    only: Only,
    /// What is under way, what was invalidated, what was learnt and what happened, of a cache that this one takes the place
    /// of.
    running: Option<(Arc<Flights>, Arc<Variances>, Arc<Counts>)>,
}

impl HttpCacheBuilder {
    pub(super) fn in_place_of(cache: &HttpCache) -> Self {
        let shared = &cache.shared;
        Self {
            store: Arc::clone(&shared.store),
            policy: shared.policy.clone(),
            clock: Arc::clone(&shared.clock),
            name: shared.name.clone(),
            detail: shared.detail,
            keep: shared.keep,
            only: shared.only.clone(),
            running: Some((
                Arc::clone(&shared.flights),
                Arc::clone(&shared.variances),
                Arc::clone(&shared.counts),
            )),
        }
    }

    pub(super) fn new(store: Arc<dyn HttpStore>) -> Self {
        Self {
            store,
            policy: Policy::shared(),
            clock: Arc::new(SystemClock::default()),
            name: Cow::Borrowed("Larder"),
            detail: StatusDetail::default(),
            keep: Duration::from_secs(24 * 60 * 60),
            only: Only::default(),
            running: None,
        }
    }

    /// What may be stored and reused; [`Policy::shared`] if it is not told.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// What it calls itself in `Cache-Status`; `Larder` if it is not told.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = name.into();
        self
    }

    /// How much `Cache-Status` tells.
    pub fn status_detail(mut self, detail: StatusDetail) -> Self {
        self.detail = detail;
        self
    }

    /// How long a response is kept after it became stale, to be confirmed by the origin or to be used if the origin fails:
    /// a day if it is not told.
    pub fn keep(mut self, keep: Duration) -> Self {
        self.keep = keep;
        self
    }

    /// Which requests are for the cache: those that `admits` says yes to. The others are passed on; nothing that is stored
    /// answers them, and their answers are not stored. What they change is invalidated all the same.
    ///
    /// It is asked once for each request, whose URI is absolute, before anything else, and should be quick.
    ///
    /// ```
    /// # fn build(store: std::sync::Arc<dyn larder_http::store::HttpStore>) {
    /// let cache = larder_http::HttpCache::builder(store)
    ///     .only(|request| request.uri.host().is_some_and(|host| host.eq_ignore_ascii_case("static.example.com")))
    ///     .build();
    /// # }
    /// ```
    pub fn only(mut self, admits: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Self {
        self.only = Only(Some(Arc::new(admits)));
        self
    }

    /// Whose clock it goes by.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The cache.
    pub fn build(self) -> HttpCache {
        let Self { store, policy, clock, name, detail, keep, only, running } = self;
        let (flights, variances, counts) = running.unwrap_or_default();
        let shared = Shared { store, policy, clock, name, detail, keep, only, flights, variances, counts };
        HttpCache { shared: Arc::new(shared) }
    }
}
