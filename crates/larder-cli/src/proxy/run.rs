//! A proxy that runs: put together from its configuration, changed when that is read again, ended when it is told to.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use larder::Stack;
use larder::config::Secret;
use larder::driver::Driver;
use larder::memory::MemoryOptions;
use larder::time::{Clock, SystemClock};
use larder_http::policy::Policy;
use larder_http::store::{HttpStore, StackStore};
use larder_http::{HttpCache, HttpCacheBuilder, Origin, StatusDetail};

use super::Scheme;
use super::admin::Desk;
use super::config::{Admin, CacheOptions, ServeConfig, Status};
use super::gate::{Gate, Only};
use super::http1::Settings;
use super::http1::wire::Limits;
use super::listen::{self, Controls, Server, Swap, tls};
use super::log::AccessLog;
use super::shutdown::{Shutdown, shutdown};
use super::upstream::Upstreams;

/// What the keys of the store begin with.
const PREFIX: &str = "larder";
/// The most entries in memory. Bytes are what limits it.
const MEMORY_ITEMS_MAX: u64 = 1 << 20;

/// Why a proxy does not run, or does not change.
#[derive(Debug)]
pub(crate) struct RunError(String);

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RunError {}

impl RunError {
    fn new(error: impl fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// A proxy that listens, and does not serve yet.
pub(crate) struct Proxy {
    server: Server,
    admin: Option<(Server, Arc<Desk>)>,
    control: Control,
}

/// What can be done with a proxy while it runs.
#[derive(Clone)]
pub(crate) struct Control(Arc<Inner>);

struct Inner {
    stack: Stack,
    store: Arc<StackStore>,
    upstreams: Arc<Upstreams>,
    gate: Arc<Swap<Gate>>,
    log: AccessLog,
    clock: Arc<dyn Clock>,
    controls: Controls,
    /// What lets operators in, if there is a desk for them.
    token: Option<Arc<Swap<Secret>>>,
}

impl Proxy {
    /// Opens everything and listens. `driver` is where responses are kept beside memory; `None` for memory alone. Has to be
    /// called within a runtime.
    ///
    /// # Errors
    /// What cannot be opened, read or listened on.
    pub(crate) fn open(config: &ServeConfig, driver: Option<Arc<dyn Driver>>) -> Result<Self, RunError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let stack = stack(&config.cache, driver.clone()).map_err(RunError::new)?;
        let mut store =
            StackStore::builder(&stack, policy(&config.cache)).body_bytes_max(config.cache.body_bytes_max);
        if let Some(driver) = driver {
            // Long bodies are read from the store: in memory they would take the place of everything else.
            let bodies = Stack::builder("http-bodies").prefix(PREFIX).borrowed_store(driver).build();
            store = store.bodies(&bodies.map_err(RunError::new)?);
        }
        let store = Arc::new(store.build().map_err(RunError::new)?);
        let upstreams =
            Arc::new(Upstreams::new(config.routing.clone(), Arc::clone(&clock)).map_err(RunError::new)?);
        let log = AccessLog::open(config.log.file.as_deref())
            .map_err(|error| RunError(format!("cannot open the access log: {error}")))?;
        let server = Server::bind(listen::Options {
            plain: config.listen.plain.clone(),
            secure: config.listen.secure.clone(),
            tls: certificates(config)?,
            connections_max: config.limits.connections,
            handshake_timeout: config.timeouts.handshake,
            grace: config.timeouts.shutdown,
            settings: settings(config),
        })
        .map_err(RunError::new)?;
        let cache = HttpCache::builder(Arc::clone(&store) as Arc<dyn HttpStore>).clock(Arc::clone(&clock));
        let gate = gate(config, cache, &upstreams, &log, &clock);
        let control = Control(Arc::new(Inner {
            stack,
            store,
            upstreams,
            gate: Arc::new(Swap::new(Arc::new(gate))),
            log,
            clock,
            controls: server.controls(),
            token: config.admin.as_ref().map(|admin| Arc::new(Swap::new(Arc::new(admin.token.clone())))),
        }));
        let admin = config.admin.as_ref().map(|admin| control.desk(admin)).transpose()?;
        Ok(Self { server, admin, control })
    }

    /// Where it listens.
    pub(crate) fn addresses(&self) -> Vec<(SocketAddr, Scheme)> {
        self.server.addresses().collect()
    }

    /// Where operators reach it.
    pub(crate) fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref()?.0.addresses().next().map(|(address, _)| address)
    }

    /// What can be done with it while it runs.
    pub(crate) fn control(&self) -> Control {
        self.control.clone()
    }

    /// Serves until it is told to stop, then until all requests are answered, or their time is over; then closes the store.
    ///
    /// # Errors
    /// The store's, when it is closed.
    pub(crate) async fn serve(self, stop: Shutdown) -> larder::Result<()> {
        let inner = Arc::clone(&self.control.0);
        let (end_admin, ended) = shutdown();
        let admin = self.admin.map(|(server, desk)| tokio::spawn(server.serve(desk, ended)));
        self.server.serve(Arc::clone(&inner.gate), stop).await;
        end_admin.stop();
        if let Some(admin) = admin {
            admin.abort();
        }
        // What the last requests were is the line that is looked for.
        inner.log.flush().await;
        inner.store.close().await?;
        inner.stack.close().await
    }
}

impl Control {
    /// From now on, this configuration. Requests that are on their way end as they began.
    ///
    /// # Errors
    /// Something of it cannot be used; then nothing changed.
    pub(crate) fn replace(&self, config: &ServeConfig) -> Result<(), RunError> {
        let inner = &self.0;
        let tls = certificates(config)?;
        inner.log.reopen().map_err(|error| RunError(format!("cannot open the access log again: {error}")))?;
        inner.upstreams.replace(config.routing.clone()).map_err(RunError::new)?;
        inner.controls.set_settings(settings(config));
        if let Some(tls) = tls {
            inner.controls.set_tls(tls);
        }
        inner.store.set_policy(policy(&config.cache));
        let cache = inner.gate.get().cache.rebuild();
        let gate = gate(config, cache, &inner.upstreams, &inner.log, &inner.clock);
        inner.gate.set(Arc::new(gate));
        if let (Some(token), Some(admin)) = (&inner.token, &config.admin) {
            token.set(Arc::new(admin.token.clone()));
        }
        Ok(())
    }

    fn desk(&self, admin: &Admin) -> Result<(Server, Arc<Desk>), RunError> {
        let inner = &self.0;
        let server =
            Server::bind(listen::Options { plain: vec![admin.listen], ..listen::Options::default() })
                .map_err(|error| RunError(format!("admin: {error}")))?;
        let desk = Desk {
            token: inner.token.clone().unwrap_or_else(|| Arc::new(Swap::new(Arc::new(admin.token.clone())))),
            gate: Arc::clone(&inner.gate),
            upstreams: Arc::clone(&inner.upstreams),
            stack: inner.stack.clone(),
            controls: inner.controls.clone(),
            log: inner.log.clone(),
        };
        Ok((server, Arc::new(desk)))
    }
}

fn stack(cache: &CacheOptions, driver: Option<Arc<dyn Driver>>) -> larder::Result<Stack> {
    let mut stack = Stack::builder("http").prefix(PREFIX);
    if cache.memory_bytes_max > 0 || driver.is_none() {
        let mut memory = MemoryOptions::new(MEMORY_ITEMS_MAX);
        memory.max_bytes = Some(cache.memory_bytes_max);
        stack = stack.memory(memory);
    }
    if let Some(driver) = driver {
        stack = stack.borrowed_store(driver);
    }
    stack.build()
}

fn policy(cache: &CacheOptions) -> Policy {
    let mut policy = Policy::shared();
    policy.cache_by_default = cache.by_default;
    policy.heuristic_percent = cache.heuristic_percent;
    policy.heuristic_max = cache.heuristic_max;
    policy.stale_while_revalidate = cache.stale_while_revalidate;
    policy.stale_if_error = cache.stale_if_error;
    if let Some(most) = cache.stale_if_disconnected {
        policy.stale_if_disconnected = most;
    }
    policy.variants_max = cache.variants_max;
    policy
}

fn gate(
    config: &ServeConfig,
    builder: HttpCacheBuilder,
    upstreams: &Arc<Upstreams>,
    log: &AccessLog,
    clock: &Arc<dyn Clock>,
) -> Gate {
    let cache = &config.cache;
    let detail = match cache.status {
        Status::Off => StatusDetail::Off,
        Status::Outcome => StatusDetail::Outcome,
        Status::Reasons => StatusDetail::Reasons,
    };
    let only = Only::new(&cache.only);
    let admitting = only.clone();
    Gate {
        cache: builder
            .only(move |request| admitting.admits(&request.uri))
            .policy(policy(cache))
            .name(cache.name.clone())
            .status_detail(detail)
            .keep(cache.keep)
            .build(),
        only,
        upstreams: Arc::clone(upstreams),
        origin: Arc::clone(upstreams) as Arc<dyn Origin>,
        forwarding: config.forwarding.clone(),
        log: config.log.access.map(|form| (log.clone(), form)),
        clock: Arc::clone(clock),
    }
}

fn settings(config: &ServeConfig) -> Settings {
    let (limits, timeouts) = (&config.limits, &config.timeouts);
    Settings {
        limits: Limits {
            head_bytes: limits.head_bytes,
            target_bytes: limits.target_bytes,
            fields: limits.fields,
            trailer_bytes: limits.trailer_bytes,
            body_bytes: limits.body_bytes,
        },
        head_timeout: timeouts.head,
        idle_timeout: timeouts.idle,
        body_timeout: timeouts.body,
        write_timeout: timeouts.write,
        tunnel_timeout: timeouts.tunnel,
        on_refused: None,
    }
}

/// Reads the files that the configuration names, as a start would.
///
/// # Errors
/// What a start would say of them.
pub(crate) fn check_files(config: &ServeConfig) -> Result<(), RunError> {
    certificates(config)?;
    config.routing.check_files().map_err(RunError::new)
}

fn certificates(config: &ServeConfig) -> Result<Option<Arc<rustls::ServerConfig>>, RunError> {
    if config.listen.secure.is_empty() {
        return Ok(None);
    }
    let identity = |identity: &super::config::Identity| tls::Identity {
        chain: identity.certificate.clone(),
        key: identity.key.clone(),
    };
    let identities: Vec<_> = config.listen.identities.iter().map(identity).collect();
    tls::config(&identities).map(Some).map_err(RunError::new)
}
