//! One origin: its upstreams, the choice between them, another try, and the checks of whether they are well.

use std::sync::{Arc, Weak};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Response};
use larder::time::Clock;
use larder_http::{Body, OriginError, OriginErrorKind};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::AnsweredBy;
use super::balance::Balancer;
use super::exchange::{Draft, exchange};
use super::failure::Failure;
use super::options::{Check, HostHeader, OriginOptions, Timeouts};
use super::pool::Pool;

/// One origin.
#[derive(Debug)]
pub(super) struct Server {
    options: OriginOptions,
    balancer: Balancer,
    pools: Vec<Arc<Pool>>,
    clock: Arc<dyn Clock>,
    checks: parking_lot::Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.checks.lock().iter().for_each(JoinHandle::abort);
    }
}

impl Server {
    /// An origin, whose checks begin at once.
    pub(super) fn start(
        options: OriginOptions,
        public_only: bool,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, String> {
        let tls = options.secure()?;
        let pools = options.upstreams.iter().map(|upstream| {
            let tls = tls.clone().filter(|_| upstream.address.tls);
            Arc::new(Pool::new(upstream.address.clone(), tls, &options, public_only, clock.clone()))
        });
        let server = Arc::new(Self {
            balancer: Balancer::new(
                options.balance,
                options.eject,
                options.upstreams.iter().map(|one| one.weight),
            ),
            pools: pools.collect(),
            clock,
            checks: parking_lot::Mutex::default(),
            options,
        });
        if let Some(check) = &server.options.check {
            let tasks = (0..server.pools.len())
                .map(|at| tokio::spawn(keep_checking(Arc::downgrade(&server), at, check.clone())))
                .collect();
            *server.checks.lock() = tasks;
        }
        Ok(server)
    }

    pub(super) fn options(&self) -> &OriginOptions {
        &self.options
    }

    pub(super) fn health(&self) -> Vec<(Arc<str>, String, bool)> {
        let now = self.clock.monotonic();
        let of = |(at, pool): (usize, &Arc<Pool>)| {
            (self.options.name.clone(), pool.address().to_string(), self.balancer.is_well(at, now))
        };
        self.pools.iter().enumerate().map(of).collect()
    }

    /// Asks one upstream, and others after it as far as that is safe.
    pub(super) async fn ask(&self, draft: Draft) -> Result<Response<Body>, OriginError> {
        //= https://www.rfc-editor.org/rfc/rfc9110#section-9.2.2
        //# A proxy MUST NOT automatically retry non-idempotent requests.
        let idempotent = is_idempotent(&draft.method) && draft.upgrade.is_none();
        let mut draft = Some(draft);
        let mut tried = Vec::new();
        let mut failed: Option<Failure> = None;
        loop {
            let Some(at) = self.balancer.choose(&tried, self.clock.monotonic()) else {
                return Err(failed.map_or_else(|| self.nobody(), OriginError::from));
            };
            let Some(pool) = self.pools.get(at) else { return Err(self.nobody()) };
            tried.push(at);
            let last = tried.len() > self.options.retries as usize || tried.len() >= self.pools.len();
            let copy = if last { None } else { draft.as_ref().and_then(Draft::copy) };
            let counted = self.balancer.count(at);
            match exchange(pool, &self.options.host, &mut draft, self.options.timeouts, counted).await {
                Ok(mut response) => {
                    self.balancer.succeeded(at);
                    response.extensions_mut().insert(AnsweredBy(pool.address().to_string().into()));
                    return Ok(response);
                }
                Err(failure) => {
                    if failure.blame {
                        self.balancer.failed(at, self.clock.monotonic());
                    }
                    // What was not even begun is still there, with its body.
                    let again = draft.take().or(copy);
                    let harmless = !failure.seen || idempotent;
                    if last || failure.answered || !harmless || !failure.blame || again.is_none() {
                        return Err(failure.into());
                    }
                    draft = again;
                    failed = Some(failure);
                }
            }
        }
    }

    fn nobody(&self) -> OriginError {
        let name = &self.options.name;
        OriginError::new(OriginErrorKind::Disconnected, format!("no upstream of the origin {name:?} is well"))
    }

    async fn check(&self, at: usize, check: &Check) {
        let Some(pool) = self.pools.get(at) else { return };
        let host = match &check.host {
            Some(host) => HeaderValue::from_str(host.as_str()),
            None => HeaderValue::try_from(pool.address().authority()),
        };
        let Ok(host) = host else { return };
        let mut headers = HeaderMap::new();
        headers.insert("user-agent", HeaderValue::from_static("larder-check"));
        let mut draft = Some(Draft {
            method: Method::GET,
            path: check.path.clone(),
            host: host.clone(),
            headers,
            upgrade: None,
            body: Body::empty(),
            on_interim: None,
        });
        let timeouts = Timeouts { response: check.timeout, ..self.options.timeouts };
        let host = match (&self.options.host, &check.host) {
            (HostHeader::Fixed(fixed), None) => HostHeader::Fixed(fixed.clone()),
            _ => HostHeader::Fixed(host),
        };
        let answer = timeout(check.timeout, exchange(pool, &host, &mut draft, timeouts, None)).await;
        let (least, most) = check.status;
        let good = matches!(answer, Ok(Ok(response)) if (least..=most).contains(&response.status().as_u16()));
        self.balancer.checked(at, good, check);
    }
}

/// Asks an upstream again and again, until its origin has gone.
async fn keep_checking(server: Weak<Server>, at: usize, check: Check) {
    loop {
        match server.upgrade() {
            Some(server) => server.check(at, &check).await,
            None => return,
        }
        sleep(check.interval.max(Duration::from_millis(10))).await;
    }
}

fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}
