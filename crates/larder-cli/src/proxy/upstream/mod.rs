//! Whom `larder serve` asks: origins, each one or several servers, found by host and path.
//!
//! [`Upstreams`] is the engine's [`Origin`]. Where a request goes is decided by the configuration alone, never by an
//! address that a client claims, except where a forward proxy is asked for. Knows nothing of caching.

mod address;
mod balance;
mod body;
mod connect;
mod exchange;
mod failure;
pub(crate) mod options;
mod pool;
mod route;
mod server;
mod tls;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use http::header::{CONNECTION, HOST, HeaderMap, UPGRADE, VARY, VIA};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version, request};
use larder::time::Clock;
use larder_http::header::connection;
use larder_http::{Body, OnInterim, Origin, OriginError, OriginErrorKind};
use parking_lot::{Mutex, RwLock};

use exchange::Draft;
use options::{Address, HostHeader, OriginOptions, Routing, UpstreamOptions};
use route::{Found, NoRoute, find, in_order, without_prefix};

pub(crate) use route::covers;
use server::Server;
pub(crate) use tls::believable;

use crate::proxy::Refusal;

/// The most targets of a forward proxy whose connections are kept.
const TARGETS_MAX: usize = 256;

/// All origins, and which requests go to which.
pub(crate) struct Upstreams {
    table: RwLock<Arc<Table>>,
    clock: Arc<dyn Clock>,
}

struct Table {
    routing: Routing,
    servers: HashMap<Arc<str>, Arc<Server>>,
    /// Of a forward proxy, by what they are called.
    targets: Mutex<HashMap<Address, Arc<Server>>>,
}

/// Which upstream answered: an extension of the response, for the log.
#[derive(Debug, Clone)]
pub(crate) struct AnsweredBy(pub(crate) Arc<str>);

impl Upstreams {
    /// All of it as configured. Reads the files of certificates, connects to nothing; has to be called within a runtime,
    /// because checks begin at once.
    ///
    /// # Errors
    /// A certificate or a key that cannot be used, and a route to an origin that there is not.
    pub(crate) fn new(routing: Routing, clock: Arc<dyn Clock>) -> Result<Self, String> {
        let table = Table::new(routing, None, &clock)?;
        Ok(Self { table: RwLock::new(Arc::new(table)), clock })
    }

    /// From now on, this instead. Requests that are on their way end as they began; origins of which nothing changed keep
    /// their connections and what is known of their health.
    ///
    /// # Errors
    /// As [`Upstreams::new`]; then nothing changed.
    pub(crate) fn replace(&self, routing: Routing) -> Result<(), String> {
        let before = self.table();
        let table = Table::new(routing, Some(&before), &self.clock)?;
        *self.table.write() = Arc::new(table);
        Ok(())
    }

    fn table(&self) -> Arc<Table> {
        self.table.read().clone()
    }

    /// Gives a request its target: an absolute URI by which it is cached, and sent to the origin that serves it. `tls`
    /// says how it came in.
    ///
    /// # Errors
    /// It is for nobody here: what to answer in place of an origin.
    pub(crate) fn admit(&self, request: &mut request::Parts, tls: bool) -> Result<(), Refusal> {
        let refuse = |status, why| Err(Refusal { status, why });
        if request.method == Method::CONNECT {
            return refuse(StatusCode::METHOD_NOT_ALLOWED, "tunnels are not opened here");
        }
        let absolute = request.uri.authority().is_some();
        let Some(authority) = authority(request) else {
            return refuse(StatusCode::BAD_REQUEST, "the request does not say for which host it is");
        };
        let path = match request.uri.path_and_query() {
            Some(path) if path.as_str().starts_with('/') => path.clone(),
            Some(path) if absolute && path.as_str().starts_with('?') => {
                PathAndQuery::try_from(format!("/{path}")).unwrap_or(PathAndQuery::from_static("/"))
            }
            None if absolute => PathAndQuery::from_static("/"),
            _ => return refuse(StatusCode::BAD_REQUEST, "the request's target is not a path"),
        };
        let table = self.table();
        let found = find(&table.routing.routes, authority.host(), path.path());
        // HTTP/2 always says the host where HTTP/1 says it in the absolute form alone.
        let for_proxy = absolute && request.version < Version::HTTP_2;
        let scheme = match (found, &table.routing.open) {
            (Found::Route(_), _) => {
                if tls {
                    Scheme::HTTPS
                } else {
                    Scheme::HTTP
                }
            }
            (_, Some(_)) if for_proxy => {
                if request.uri.scheme() != Some(&Scheme::HTTP) {
                    return refuse(StatusCode::BAD_REQUEST, "only http: is asked for others");
                }
                Scheme::HTTP
            }
            (Found::None(NoRoute::Host), _) => {
                return refuse(StatusCode::MISDIRECTED_REQUEST, "this host is not served here");
            }
            (Found::None(NoRoute::Path), _) => {
                return refuse(StatusCode::NOT_FOUND, "nothing is served at this path");
            }
        };
        //= https://www.rfc-editor.org/rfc/rfc9112#section-3.2.2
        //# When an origin server receives a request with an absolute-form of
        //# request-target, the origin server MUST ignore the received Host
        //# header field (if any) and instead use the host information of the
        //# request-target.
        // As the key has it, whatever the client wrote: an origin that repeats `A:80` would repeat it to everybody.
        let normal = normal(&authority, &scheme);
        let (Ok(host), Ok(authority)) = (HeaderValue::from_str(&normal), Authority::try_from(&*normal))
        else {
            return refuse(StatusCode::BAD_REQUEST, "the request's host is not one");
        };
        let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build();
        let Ok(uri) = uri else {
            return refuse(StatusCode::BAD_REQUEST, "the request's target is not a URI");
        };
        request.headers.insert(HOST, host);
        request.uri = uri;
        Ok(())
    }

    /// What is known of each upstream: its origin, its address, whether it would be asked.
    pub(crate) fn health(&self) -> Vec<(Arc<str>, String, bool)> {
        let table = self.table();
        let mut all: Vec<_> = table.servers.values().flat_map(|server| server.health()).collect();
        all.sort();
        all
    }
}

/// The host that a request is for: the target's, or else that of the one `Host`.
fn authority(request: &request::Parts) -> Option<Authority> {
    let authority = match request.uri.authority() {
        Some(authority) => authority.clone(),
        None => {
            let mut hosts = request.headers.get_all(HOST).iter();
            let (host, None) = (hosts.next()?, hosts.next()) else { return None };
            Authority::try_from(host.as_bytes()).ok()?
        }
    };
    let text = authority.as_str();
    // `a:` and `a:99999` are no ports, and whoever reads them otherwise has another key.
    let port_reads = text.len() == authority.host().len() || authority.port_u16().is_some();
    (!text.contains('@') && !authority.host().is_empty() && port_reads).then_some(authority)
}

/// Host and port in one way of writing: in lower case, and no port if it is the scheme's own.
//= https://www.rfc-editor.org/rfc/rfc9110#section-4.2.3
//# If the port is equal to the default port for a scheme, the normal form
//# is to omit the port subcomponent.
fn normal(authority: &Authority, scheme: &Scheme) -> String {
    let default = if *scheme == Scheme::HTTPS { 443 } else { 80 };
    let host = authority.host().to_ascii_lowercase();
    match authority.port_u16().filter(|port| *port != default) {
        Some(port) => format!("{host}:{port}"),
        None => host,
    }
}

impl Table {
    fn new(routing: Routing, before: Option<&Self>, clock: &Arc<dyn Clock>) -> Result<Self, String> {
        let mut servers = HashMap::new();
        for options in &routing.origins {
            let kept = before.and_then(|before| before.servers.get(&options.name)).filter(|server| {
                // Files may have changed under the same name.
                *server.options() == *options && options.tls == options::TlsOptions::default()
            });
            let server = match kept {
                Some(server) => server.clone(),
                None => Server::start(options.clone(), false, clock.clone())?,
            };
            servers.insert(options.name.clone(), server);
        }
        if let Some(route) = routing.routes.iter().find(|route| !servers.contains_key(&route.origin)) {
            return Err(format!(
                "there is no origin {:?} for what is at {}{}",
                route.origin, route.host, route.path
            ));
        }
        let routes = in_order(routing.routes);
        Ok(Self { routing: Routing { routes, ..routing }, servers, targets: Mutex::default() })
    }

    /// Who answers for a target, and its path there.
    fn server(&self, uri: &Uri, clock: &Arc<dyn Clock>) -> Result<(Arc<Server>, PathAndQuery), OriginError> {
        let refused = |why: &'static str| OriginError::new(OriginErrorKind::Refused, why);
        let authority = uri.authority().ok_or_else(|| refused("the request's target has no host"))?;
        let path = uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        if let Found::Route(route) = find(&self.routing.routes, authority.host(), path.path()) {
            let server = self.servers.get(&route.origin).ok_or_else(|| refused("the origin has gone"))?;
            let path = if route.strip { without_prefix(&path, &route.path) } else { path };
            return Ok((server.clone(), path));
        }
        let open =
            self.routing.open.as_ref().ok_or_else(|| refused("no origin is configured for this host"))?;
        if uri.scheme() != Some(&Scheme::HTTP) {
            return Err(refused("only http: is asked for others"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let port = authority.port_u16().unwrap_or(80);
        let address = Address { tls: false, host, port, base: String::new() };
        let mut targets = self.targets.lock();
        if let Some(server) = targets.get(&address) {
            return Ok((server.clone(), path));
        }
        let options = OriginOptions {
            upstreams: vec![UpstreamOptions { address: address.clone(), weight: 1 }],
            host: HostHeader::Pass,
            check: None,
            ..open.target.clone()
        };
        let server = Server::start(options, !open.private, clock.clone())
            .map_err(|error| OriginError::new(OriginErrorKind::Refused, error))?;
        if targets.len() >= TARGETS_MAX {
            targets.retain(|_, server| Arc::strong_count(server) > 1);
        }
        if targets.len() < TARGETS_MAX {
            targets.insert(address, server.clone());
        }
        Ok((server, path))
    }
}

#[async_trait]
impl Origin for Upstreams {
    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, OriginError> {
        let table = self.table();
        let (parts, body) = request.into_parts();
        let (server, path) = table.server(&parts.uri, &self.clock)?;
        let host = parts.uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
        let mut headers = parts.headers;
        let upgrade = upgrade(&headers).filter(|_| server.options().upgrades);
        connection::strip(&mut headers);
        let is_head = parts.method == Method::HEAD;
        let draft = Draft {
            method: parts.method,
            path,
            host: host
                .ok_or_else(|| OriginError::new(OriginErrorKind::Refused, "the request's host is not one"))?,
            headers,
            upgrade,
            body,
            on_interim: parts.extensions.get::<OnInterim>().cloned(),
        };
        let mut response = server.ask(draft).await?;
        let is_news = is_head || response.status() == StatusCode::NOT_MODIFIED;
        mark(&table.routing, response.headers_mut(), is_news);
        Ok(response)
    }
}

/// The protocol that a request asks for, if it does so by the rules, and it is one that can be passed through.
fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut protocols = headers.get_all(UPGRADE).iter();
    let (protocol, None) = (protocols.next()?, protocols.next()) else { return None };
    let text = protocol.to_str().ok()?;
    // HTTP/2 and TLS would carry further requests past everything that is checked here.
    let smuggles = |one: &str| {
        let one = one.trim().to_ascii_lowercase();
        one.starts_with("h2") || one.starts_with("http") || one.starts_with("tls")
    };
    let asked = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|option| option.trim().eq_ignore_ascii_case("upgrade"));
    (asked && !text.trim().is_empty() && !text.split(',').any(smuggles)).then(|| protocol.clone())
}

/// Whether a request asks for another protocol, so that it goes to the origin and not to the cache.
pub(crate) fn wants_upgrade(headers: &HeaderMap) -> bool {
    upgrade(headers).is_some()
}

/// Says in an answer what every answer says.
///
/// `is_news` if it is about a response that is stored: its fields replace those of that, where they are, so that a `Vary`
/// of ours alone would take away the origin's, and hand one client's variant to another.
fn mark(routing: &Routing, headers: &mut HeaderMap, is_news: bool) {
    let varies = headers.get_all(VARY).iter().any(|value| value.as_bytes() == b"*");
    let keeps_silent = varies || is_news && !headers.contains_key(VARY);
    for name in routing.vary.iter().filter(|_| !keeps_silent) {
        headers.append(VARY, HeaderValue::from_name(name.clone()));
    }
    if let Some(via) = routing.via.as_deref().and_then(|via| HeaderValue::from_str(via).ok()) {
        headers.append(VIA, via);
    }
}

impl fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstreams").field("origins", &self.table().servers.keys()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
