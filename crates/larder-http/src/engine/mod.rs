//! The cache itself: a request in, a response out, bodies streaming. [`HttpCache`] asks the policy what may be done, the
//! store for what there is, and an [`Origin`] for the rest.
//!
//! A request is answered from what is stored (`respond`), or by asking (`fetch`), or by confirming what is stored
//! (`validate`); what is stored in parts, from several of them or with the rest (`parts`). Of many who want the same, one
//! asks (`flights`), and all read the same response while it arrives (`arriving`) and is being stored.

mod alter;
mod arriving;
mod builder;
mod chained;
mod explain;
mod fetch;
mod flights;
mod parts;
mod respond;
mod stats;
mod tags;
mod validate;
mod variance;

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::request::Parts as Request;
use http::{HeaderMap, Method, Response, StatusCode, header};
use http_body::Body as _;
use larder::time::Clock;

pub use alter::Purged;
pub use builder::{HttpCacheBuilder, StatusDetail};
pub use explain::{Explanation, VariantExplanation};
pub use flights::{FLIGHTS_MAX, LONER_TIME, LONERS_MAX, WAIT_MAX};
pub use stats::HttpStats;

use crate::Body;
use crate::header::{CacheStatus, RequestDirectives, connection};
use crate::key::{NoKey, target};
use crate::origin::{Origin, OriginError, OriginErrorKind};
use crate::policy::{Invalidation, NotStorable, Policy, Reason, Stored, Verdict};
use crate::store::{HttpStore, Purge, ResponseId, StoredResponse, Variants};
use flights::Flights;
use parts::Together;
use respond::Missing;
use stats::Counts;
use validate::Doubt;
use variance::Variances;

/// How long a client is kept waiting for the store to take what it has read to its end: who asks again then, finds it.
const HOLD_MAX: Duration = Duration::from_millis(50);

/// How often a request joins others whose question came to nothing, before it goes on alone.
const TRIES_MAX: usize = 3;

/// An HTTP cache over a store (RFC 9111).
///
/// Cheap to clone: all clones are one cache. It needs a tokio runtime with time enabled.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use std::sync::Arc;
/// use larder_http::{Body, HttpCache, Origin, OriginError};
/// use larder_http::store::HttpStore;
///
/// struct Hello;
/// #[async_trait::async_trait]
/// impl Origin for Hello {
///     async fn send(&self, _: http::Request<Body>) -> Result<http::Response<Body>, OriginError> {
///         let mut response = http::Response::new(Body::from("hello"));
///         response.headers_mut().insert("cache-control", "max-age=60".parse().unwrap());
///         Ok(response)
///     }
/// }
///
/// # async fn run(store: Arc<dyn HttpStore>) -> Result<(), Box<dyn std::error::Error>> {
/// let cache = HttpCache::builder(store).build();
/// let origin: Arc<dyn Origin> = Arc::new(Hello);
/// for _ in 0..2 {
///     let request = http::Request::get("http://example.com/").body(Body::empty())?;
///     let response = cache.handle(&origin, request).await?;
///     println!("{:?}", response.headers()["cache-status"]); // Larder; fwd=uri-miss; stored, then Larder; hit; ttl=60
/// }
/// # Ok(())
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct HttpCache {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Arc<dyn HttpStore>,
    policy: Policy,
    clock: Arc<dyn Clock>,
    name: Cow<'static, str>,
    detail: StatusDetail,
    keep: Duration,
    only: builder::Only,
    flights: Arc<Flights>,
    variances: Arc<Variances>,
    counts: Arc<Counts>,
}

/// A request on its way to an answer.
#[derive(Clone)]
struct Ask {
    target: String,
    /// What it shares with the requests for equivalent targets, where that is known.
    shared_name: Option<String>,
    request: Request,
    /// Whether it reads, and has content all the same.
    has_content: bool,
    /// Whether it may be answered together with others.
    is_shareable: bool,
    origin: Arc<dyn Origin>,
}

/// What was done with a request: in the extensions of its response, for logs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Handled {
    /// Answered from what is stored.
    pub hit: bool,
    /// Why; `None` if the request was none for a cache at all.
    pub reason: Option<Reason>,
    /// Why the origin's response is not stored, if the policy says so.
    pub not_stored: Option<NotStorable>,
    /// What the origin answered, if the client got another status.
    pub forward_status: Option<StatusCode>,
    /// The seconds of freshness that are left; negative once stale.
    pub ttl_seconds: Option<i64>,
    /// Whether the origin's response is being stored.
    pub stored: bool,
    /// Whether it was answered together with others.
    pub collapsed: bool,
}

impl Handled {
    fn hit(reason: Reason) -> Self {
        Self { hit: true, reason: Some(reason), ..Self::default() }
    }

    fn forwarded(reason: Reason) -> Self {
        Self { reason: Some(reason), ..Self::default() }
    }

    /// As `Cache-Status` has it (RFC 9211).
    pub fn cache_status<'a>(&self, cache: &'a str, detail: StatusDetail) -> CacheStatus<'a> {
        let mut status = match self.reason {
            None => CacheStatus::forwarded(cache, crate::header::Forward::Bypass),
            Some(reason) => reason.cache_status(cache),
        };
        status.forward_status = self.forward_status;
        status.ttl_seconds = self.ttl_seconds;
        status.stored = self.stored;
        status.collapsed = self.collapsed;
        status.detail = match (detail, self.not_stored) {
            (StatusDetail::Reasons, Some(why)) => Some(why.as_str().into()),
            (StatusDetail::Reasons, None) => status.detail,
            _ => None,
        };
        status
    }
}

impl HttpCache {
    /// A cache over this store; shared by several users, unless the builder is told otherwise.
    pub fn builder(store: Arc<dyn HttpStore>) -> HttpCacheBuilder {
        HttpCacheBuilder::new(store)
    }

    /// A cache to take the place of this one, over the same store: with another policy, say, which a store that has read
    /// responses already has to be told, too ([`StackStore::set_policy`](crate::store::StackStore::set_policy)). Requests that
    /// are on their way go on, can be joined, and heed what is purged in either.
    pub fn rebuild(&self) -> HttpCacheBuilder {
        HttpCacheBuilder::in_place_of(self)
    }

    /// Answers a request: from what is stored, or by asking the origin.
    ///
    /// The request's URI is absolute. Fields of the client's connection are taken out, and so are those of the origin's
    /// connection from the response. `Age` and `Cache-Status` are added. What the origin is asked for others too, or for
    /// what is to be stored, is not given up if this call is dropped.
    ///
    /// # Errors
    /// The origin's, if there is nothing that may be used instead.
    pub async fn handle(
        &self,
        origin: &Arc<dyn Origin>,
        request: http::Request<Body>,
    ) -> Result<Response<Body>, OriginError> {
        let shared = &self.shared;
        let (mut request, body) = request.into_parts();
        connection::strip(&mut request.headers);
        let target = match target(&request.uri) {
            Ok(target) => target,
            Err(NoKey::TooLong) => return shared.bypass(origin, request, body).await,
            Err(error) => return Err(OriginError::new(OriginErrorKind::Refused, error)),
        };
        if !shared.only.admits(&request) {
            return shared.bypass(origin, request, body).await;
        }
        let has_content = !body.is_end_stream();
        let is_read = matches!(request.method, Method::GET | Method::HEAD);
        if !is_read || has_content {
            let ask = Arc::new(Ask::new(target, request, is_read && has_content, origin));
            if ask.request.method.is_safe() {
                return shared.pass(&ask, body).await;
            }
            // What it changed has to be invalidated, also if its client does not wait for the answer.
            let passing = Arc::clone(shared);
            return shared.detached(async move { passing.pass(&ask, body).await }).await;
        }
        if let Some(response) = shared.at_once(&request, &target).await {
            return Ok(response);
        }
        let ask = Arc::new(Ask::new(target, request, false, origin));
        shared.answer(&ask).await
    }

    /// What it was told about what may be stored and reused.
    pub fn policy(&self) -> &Policy {
        &self.shared.policy
    }

    /// Where it keeps responses.
    pub fn store(&self) -> &Arc<dyn HttpStore> {
        &self.shared.store
    }
}

impl Shared {
    /// A fresh response that is in memory, or whose head is.
    async fn fresh(&self, request: &Request, variants: &Variants) -> Option<Response<Body>> {
        let now = self.now();
        let (found, selected) = variants.select(&self.policy, request, now);
        let found = found.filter(|found| found.stored.is_fresh(now))?;
        let Verdict::Serve { reason, .. } = self.policy.verdict(request, selected, now) else { return None };
        let response = match respond::respond_at_once(request, found, now) {
            Some(response) => response,
            None => respond::respond(request, found, false, now).await.ok()?,
        };
        self.counts.hits.add();
        let ttl_seconds = Some(found.stored.ttl_seconds(now));
        Some(self.finish(response, Handled { ttl_seconds, ..Handled::hit(reason) }))
    }

    async fn answer(self: &Arc<Self>, ask: &Arc<Ask>) -> Result<Response<Body>, OriginError> {
        let variants = self.note(self.look(&ask.target).await).unwrap_or_default();
        let now = self.now();
        let (found, selected) = variants.select(&self.policy, &ask.request, now);
        let verdict = self.policy.verdict(&ask.request, selected, now);
        let reason = verdict.reason();
        let ask = &match (&verdict, found) {
            (Verdict::Serve { .. }, _) | (_, None) => Arc::clone(ask),
            (_, Some(found)) => Ask::for_what(ask, found),
        };
        if let Some(answer) = Together::answering(&self.policy, &ask.request, &variants, &verdict, now) {
            return self.answer_together(ask, answer, verdict).await;
        }
        match (verdict, found) {
            (Verdict::Serve { .. }, Some(found)) => {
                match self.respond(&ask.request, found, Handled::hit(reason), false).await {
                    Ok(response) => {
                        self.counts.hits.add();
                        Ok(response)
                    }
                    Err(missing) => self.fetch_missing(ask, found, missing).await,
                }
            }
            (Verdict::ServeAndValidate { validation, .. }, Some(found)) => {
                let doubt = Doubt { current: Arc::clone(found), validation, reason };
                match self.respond(&ask.request, found, Handled::hit(reason), false).await {
                    Ok(response) => {
                        self.counts.hits.add();
                        self.counts.stale_while_revalidate.add();
                        self.validate_meanwhile(ask, doubt);
                        Ok(response)
                    }
                    Err(missing) => self.fetch_missing(ask, found, missing).await,
                }
            }
            (Verdict::Validate { validation, .. }, Some(found)) => {
                self.counts.misses.add();
                let doubt = Doubt { current: Arc::clone(found), validation, reason };
                self.validate(ask, doubt).await
            }
            (Verdict::Forward { .. }, _) => self.pass(ask, Body::empty()).await,
            (Verdict::GatewayTimeout { .. }, _) => {
                self.counts.misses.add();
                Ok(self.generated(StatusCode::GATEWAY_TIMEOUT, reason))
            }
            (Verdict::Miss { .. } | Verdict::Serve { .. }, _)
            | (Verdict::ServeAndValidate { .. } | Verdict::Validate { .. }, None) => {
                self.counts.misses.add();
                self.fetch(ask, reason).await
            }
        }
    }

    /// Passes on a request that is none for a cache, and invalidates what its answer says (RFC 9111 section 4.4).
    async fn pass(self: &Arc<Self>, ask: &Arc<Ask>, body: Body) -> Result<Response<Body>, OriginError> {
        self.counts.passed.add();
        let request = http::Request::from_parts(ask.request.clone(), body);
        let requested_at = self.now();
        let mut since = self.since();
        let response = match ask.origin.send(request).await {
            Ok(response) => response,
            Err(error) => {
                self.counts.failed.add();
                if !ask.request.method.is_safe() && error.kind() != OriginErrorKind::Refused {
                    // It may have happened.
                    self.purge(&ask.target, Purge::Hard).await;
                }
                return Err(error);
            }
        };
        let times = crate::policy::Exchange { requested_at, received_at: self.now() };
        let (mut head, body) = response.into_parts();
        connection::strip(&mut head.headers);
        let invalidation = Invalidation::of(&ask.request, &head);
        if !invalidation.targets.is_empty() || !invalidation.groups.is_empty() {
            self.invalidate(&ask.request, &invalidation).await;
            // What it invalidated was before its own answer.
            since = self.since();
        }
        let reason = match ask.request.method {
            Method::GET | Method::HEAD if ask.has_content => Reason::Content,
            Method::GET | Method::HEAD => Reason::OriginCondition,
            _ => Reason::Method,
        };
        let response = Response::from_parts(head, body);
        Ok(self.conclude(ask, response, times, since, None, reason, None).await)
    }

    /// Passes on a request that is not for this cache, or has no key. What it changes may be kept all the same.
    async fn bypass(
        &self,
        origin: &Arc<dyn Origin>,
        request: Request,
        body: Body,
    ) -> Result<Response<Body>, OriginError> {
        self.counts.passed.add();
        let outgoing = http::Request::from_parts(request.clone(), body);
        let (mut head, body) = origin.send(outgoing).await?.into_parts();
        connection::strip(&mut head.headers);
        let invalidation = Invalidation::of(&request, &head);
        self.invalidate(&request, &invalidation).await;
        Ok(self.finish(Response::from_parts(head, body), Handled::default()))
    }

    /// What others had brought up to date, if it answers this request too.
    async fn look_again(self: &Arc<Self>, ask: &Arc<Ask>) -> Option<Response<Body>> {
        let variants = self.note(self.look(&ask.target).await).unwrap_or_default();
        let now = self.now();
        let (found, selected) = variants.select(&self.policy, &ask.request, now);
        match self.policy.verdict(&ask.request, selected, now) {
            Verdict::Serve { .. } | Verdict::ServeAndValidate { .. } => {
                self.counts.collapsed.add();
                let handled = Handled { collapsed: true, ..Handled::forwarded(Reason::Stale) };
                self.respond(&ask.request, found?, handled, false).await.ok()
            }
            _ => None,
        }
    }

    async fn respond(
        &self,
        request: &Request,
        found: &Arc<StoredResponse>,
        handled: Handled,
        is_validated: bool,
    ) -> Result<Response<Body>, Missing> {
        let now = self.now();
        let response = respond::respond(request, found, is_validated, now).await?;
        let ttl_seconds = Some(found.stored.ttl_seconds(now));
        Ok(self.finish(response, Handled { ttl_seconds, ..handled }))
    }

    /// Asks the origin for what is stored and cannot be had. What is gone is forgotten; a store that fails takes nothing.
    async fn fetch_missing(
        self: &Arc<Self>,
        ask: &Arc<Ask>,
        found: &Arc<StoredResponse>,
        missing: Missing,
    ) -> Result<Response<Body>, OriginError> {
        self.counts.misses.add();
        match missing {
            Missing::Gone => {
                self.counts.healed.add();
                self.forget_soon(ask, std::slice::from_ref(found)).await;
            }
            Missing::Failed(error) => self.counts.store_failed(&error),
        }
        if RequestDirectives::parse(&ask.request.headers).only_if_cached {
            return Ok(self.generated(StatusCode::GATEWAY_TIMEOUT, Reason::OnlyIfCached));
        }
        self.fetch(ask, Reason::NothingStored).await
    }

    /// Takes out responses that are of no use any more, which are kept under one name.
    async fn forget_soon(self: &Arc<Self>, ask: &Ask, gone: &[Arc<StoredResponse>]) {
        let Some(one) = gone.first() else { return };
        let name = variance::name(&ask.target, &one.stored).into_owned();
        let (shared, ids) = (Arc::clone(self), ids(gone));
        self.settle(async move { shared.forget(&name, &ids).await }).await;
    }

    async fn forget(&self, name: &str, ids: &[ResponseId]) {
        self.note(self.store.change(name, &|variants: &Variants| variants.without_all(ids)).await);
    }

    /// Has the store do something, and waits for it, but not long: it goes on alone if it takes its time.
    async fn settle<F: Future<Output = ()> + Send + 'static>(&self, work: F) {
        let _ = tokio::time::timeout(HOLD_MAX, tokio::spawn(work)).await;
    }

    fn generated(&self, status: StatusCode, reason: Reason) -> Response<Body> {
        self.finish(respond::generated(status), Handled { reason: Some(reason), ..Handled::default() })
    }

    /// Says what was done.
    fn finish(&self, mut response: Response<Body>, handled: Handled) -> Response<Body> {
        // The origin's is of its own connection.
        *response.version_mut() = http::Version::HTTP_11;
        if self.detail != StatusDetail::Off {
            handled.cache_status(&self.name, self.detail).append_to(response.headers_mut());
        }
        response.extensions_mut().insert(handled);
        response
    }

    async fn invalidate(&self, request: &Request, invalidation: &Invalidation) {
        for uri in &invalidation.targets {
            if let Ok(target) = target(uri) {
                self.purge(&target, Purge::Hard).await;
            }
        }
        if !invalidation.groups.is_empty() {
            let tags: Vec<String> =
                invalidation.groups.iter().map(|group| tags::group_tag(&request.uri, group)).collect();
            let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
            self.flights.invalidate_tags();
            self.note(self.store.invalidate(&tags, Purge::Hard).await);
        }
    }

    /// Runs on, also if nobody waits any more.
    async fn detached<F>(&self, work: F) -> Result<Response<Body>, OriginError>
    where
        F: Future<Output = Result<Response<Body>, OriginError>> + Send + 'static,
    {
        match tokio::spawn(work).await {
            Ok(result) => result,
            Err(panic) => Err(OriginError::new(OriginErrorKind::Refused, panic)),
        }
    }

    /// Counts a failure of the store, and goes on without.
    fn note<T>(&self, result: larder::Result<T>) -> Option<T> {
        result.map_err(|error| self.counts.store_failed(&error)).ok()
    }

    /// What has been invalidated until now, so that what is asked for from here on can be told from it.
    fn since(&self) -> flights::Since {
        self.flights.since(self.store.begin())
    }

    fn now(&self) -> SystemTime {
        self.clock.now().to_system_time().unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// When a response is of no use any more.
    fn delete_at(&self, stored: &Stored) -> SystemTime {
        let received_at = stored.kept().times.received_at;
        let fresh = stored.lifetime().duration.saturating_sub(stored.age(received_at));
        let usable = self.policy.usable_after_freshness(stored);
        let is_confirmable =
            stored.entity_tag().is_some() || stored.headers().contains_key(header::LAST_MODIFIED);
        let stale = if is_confirmable { self.keep } else { usable.min(self.keep) };
        let life = fresh.saturating_add(stale).min(LIFE_MAX);
        received_at.checked_add(life).unwrap_or(received_at)
    }
}

/// The longest that a response is kept.
const LIFE_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

impl Ask {
    fn new(target: String, request: Request, has_content: bool, origin: &Arc<dyn Origin>) -> Self {
        let is_shareable = !has_content && fetch::is_shareable(&request);
        Self { target, shared_name: None, request, has_content, is_shareable, origin: Arc::clone(origin) }
    }

    /// The same, together with those who ask for what this response is for.
    fn for_what(self: &Arc<Self>, found: &StoredResponse) -> Arc<Self> {
        match variance::name(&self.target, &found.stored) {
            Cow::Borrowed(_) => Arc::clone(self),
            Cow::Owned(name) => Arc::new(Self { shared_name: Some(name), ..Self::clone(self) }),
        }
    }

    /// The same without its client: nobody waits for it.
    fn in_background(&self) -> Self {
        let mut request = neutral(&self.request);
        request.extensions = http::Extensions::new();
        request.method = Method::GET;
        let shared_name = self.shared_name.clone();
        Self { shared_name, ..Self::new(self.target.clone(), request, false, &self.origin) }
    }

    /// Sends it, with these fields if they are others than its own.
    async fn send(&self, fields: Option<&HeaderMap>) -> Result<Response<Body>, OriginError> {
        let mut request = self.request.clone();
        if let Some(fields) = fields {
            request.headers.clone_from(fields);
        }
        self.origin.send(http::Request::from_parts(request, Body::empty())).await
    }

    /// What a response to it was found under, else its target.
    fn name(&self) -> &str {
        self.shared_name.as_deref().unwrap_or(&self.target)
    }

    /// What it has to have in common with others, beside what they ask for, to be answered together with them: requests for a
    /// part, with a condition, or with credentials keep to themselves.
    fn flight_key<'a>(&self, name: &'a str) -> Cow<'a, str> {
        let headers = &self.request.headers;
        let mut key = Cow::Borrowed(name);
        for name in [header::RANGE, header::IF_RANGE] {
            if let Some(value) = headers.get(&name) {
                key.to_mut().push_str(&format!("\0{name}:{}", String::from_utf8_lossy(value.as_bytes())));
            }
        }
        for name in [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::AUTHORIZATION] {
            if headers.contains_key(&name) {
                key.to_mut().push_str(&format!("\0{name}"));
            }
        }
        key
    }
}

fn ids(responses: &[Arc<StoredResponse>]) -> Vec<ResponseId> {
    responses.iter().map(|response| response.id).collect()
}

/// The same request without its wishes about freshness: what others would ask.
fn neutral(request: &Request) -> Request {
    let mut request = request.clone();
    request.headers.remove(header::CACHE_CONTROL);
    request.headers.remove(header::PRAGMA);
    request
}
