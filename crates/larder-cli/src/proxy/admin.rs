//! The operators' desk, on a listener of its own: purge, explain, stats. Nobody is let in without the token.
//!
//! | Request | What it does |
//! | --- | --- |
//! | `GET /stats` | counts, as JSON |
//! | `GET /metrics` | the same, and the stack's, for Prometheus |
//! | `GET /health` | what is known of each upstream |
//! | `POST /purge` | `"url"`, `"urls": […]`, `"tags": […]`, `"prefix"`, or `"all": true` alone; `"soft"`, `"dry_run"` |
//! | `POST /explain` | `{"url": …, "headers": {…}}`: what would be done with that request, and why |

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use http::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::Body as _;
use larder::config::Secret;
use larder::stats::PROMETHEUS_CONTENT_TYPE;
use larder::{ErrorKind, Stack};
use larder_http::store::Purge;
use larder_http::{Body, Explanation, HttpCache, NoKey, target};
use serde_json::{Map, Value, json};

use super::Service;
use super::gate::{Gate, plain};
use super::listen::{Controls, Swap};
use super::log::AccessLog;
use super::upstream::Upstreams;

/// The largest request, in bytes.
const REQUEST_BYTES_MAX: usize = 1 << 20;
/// The most targets that a dry run names.
const NAMED_MAX: usize = 1000;

/// Answers operators.
pub(crate) struct Desk {
    /// Changes with the configuration.
    pub(crate) token: Arc<Swap<Secret>>,
    pub(crate) gate: Arc<Swap<Gate>>,
    pub(crate) upstreams: Arc<Upstreams>,
    pub(crate) stack: Stack,
    pub(crate) controls: Controls,
    pub(crate) log: AccessLog,
}

/// An answer, or what is wrong with the question.
type Answer = Result<Response<Body>, (StatusCode, String)>;

impl Service for Desk {
    async fn call(&self, request: Request<Body>) -> Response<Body> {
        if !self.is_allowed(&request) {
            let mut response =
                plain(StatusCode::UNAUTHORIZED, "a token is needed: Authorization: Bearer TOKEN");
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return response;
        }
        let (parts, body) = request.into_parts();
        let answer = match (&parts.method, parts.uri.path()) {
            (&Method::GET, "/stats") => Ok(self.stats()),
            (&Method::GET, "/metrics") => Ok(self.metrics()),
            (&Method::GET, "/health") => Ok(self.health()),
            (&Method::POST, "/purge") => self.purge(body).await,
            (&Method::POST, "/explain") => self.explain(body).await,
            (_, "/stats" | "/metrics" | "/health") => return not_allowed("GET"),
            (_, "/purge" | "/explain") => return not_allowed("POST"),
            _ => Err((
                StatusCode::NOT_FOUND,
                "there are /stats, /metrics, /health, /purge and /explain".into(),
            )),
        };
        let mut response = answer.unwrap_or_else(|(status, why)| {
            let mut response = as_json(&json!({ "error": why }));
            *response.status_mut() = status;
            response
        });
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

impl Desk {
    fn is_allowed(&self, request: &Request<Body>) -> bool {
        let mut fields = request.headers().get_all(AUTHORIZATION).iter();
        let (Some(field), None) = (fields.next(), fields.next()) else { return false };
        let Some((scheme, token)) = field.as_bytes().split_at_checked(7) else { return false };
        scheme.eq_ignore_ascii_case(b"bearer ") && is_same(token, self.token.get().expose().as_bytes())
    }

    fn cache(&self) -> HttpCache {
        self.gate.get().cache.clone()
    }

    fn stats(&self) -> Response<Body> {
        let stats = self.cache().stats();
        let counts: Map<String, Value> =
            stats.counts().into_iter().map(|(name, count, _)| (name.to_owned(), json!(count))).collect();
        let memory =
            self.stack.memory_usage().map(|usage| json!({ "items": usage.items, "bytes": usage.bytes }));
        as_json(&json!({
            "counts": counts,
            "in_flight": stats.in_flight,
            "last_store_failure": stats.last_store_failure,
            "connections": self.controls.connections(),
            "memory": memory,
            "log_lines_lost": self.log.lost(),
        }))
    }

    fn metrics(&self) -> Response<Body> {
        let stats = self.cache().stats();
        let mut page = String::new();
        for (name, count, help) in stats.counts() {
            let help = help.trim();
            let _ = write!(
                page,
                "# HELP larder_http_{name}_total {help}\n# TYPE larder_http_{name}_total counter\n\
                 larder_http_{name}_total {count}\n"
            );
        }
        let gauges = [
            ("in_flight", stats.in_flight, "Targets that are being asked for."),
            ("connections", self.controls.connections() as u64, "Connections of clients."),
        ];
        for (name, value, help) in gauges {
            let _ = write!(
                page,
                "# HELP larder_http_{name} {help}\n# TYPE larder_http_{name} gauge\nlarder_http_{name} {value}\n"
            );
        }
        page.push_str("# HELP larder_http_upstream_up Whether an upstream would be asked.\n");
        page.push_str("# TYPE larder_http_upstream_up gauge\n");
        for (origin, upstream, is_up) in self.upstreams.health() {
            let label = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let (origin, upstream) = (label(&origin), label(&upstream));
            let _ = writeln!(
                page,
                "larder_http_upstream_up{{origin=\"{origin}\",upstream=\"{upstream}\"}} {}",
                u8::from(is_up)
            );
        }
        page.push_str(&larder::stats::prometheus_text(&[("http", &self.stack.stats())]));
        let mut response = Response::new(Body::from(page));
        let kind = HeaderValue::from_static(PROMETHEUS_CONTENT_TYPE);
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    }

    fn health(&self) -> Response<Body> {
        let upstream = |(origin, upstream, is_up): (Arc<str>, String, bool)| json!({ "origin": &*origin, "upstream": upstream, "up": is_up });
        as_json(&Value::Array(self.upstreams.health().into_iter().map(upstream).collect()))
    }

    /// Does what is asked in the order of the table above, and says of each part what became of it. What fails ends it:
    /// asking again does the rest.
    async fn purge(&self, body: Body) -> Answer {
        let asked = read(body).await?;
        let known = ["url", "urls", "tags", "prefix", "all", "soft", "dry_run"];
        if let Some(other) = asked.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(bad(format!("there is no {other:?}: known are {}", known.join(", "))));
        }
        let flag = |name: &str| match asked.get(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(bad(format!("{name:?} is true or false"))),
        };
        let how = if flag("soft")? { Purge::Soft } else { Purge::Hard };
        let (is_dry, all) = (flag("dry_run")?, flag("all")?);
        // All of it is read before any of it is done.
        let one = asked.get("url").map(key).transpose()?;
        let more = texts(&asked, "urls")?.into_iter().map(url_key);
        let targets = one.into_iter().map(Ok).chain(more).collect::<Result<Vec<_>, _>>()?;
        let tags = texts(&asked, "tags")?;
        let prefix = match asked.get("prefix") {
            None => None,
            Some(prefix) => Some(prefix_key(prefix)?),
        };
        let is_some = !targets.is_empty() || !tags.is_empty() || prefix.is_some();
        if all == is_some {
            return Err(bad("say \"url\", \"urls\", \"tags\" or \"prefix\", or \"all\": true alone"));
        }
        let cache = self.cache();
        let mut done = Vec::new();
        for target in targets {
            if is_dry {
                let responses = cache.count(&target).await.map_err(failed)?;
                done.push(json!({ "url": target, "responses": responses }));
            } else {
                let purged = cache.purge(&target, how).await.map_err(failed)?;
                done.push(json!({ "url": target, "purged": purged }));
            }
        }
        if !tags.is_empty() {
            if is_dry {
                done.push(self.tagged(&cache, &tags).await?);
            } else {
                cache.purge_tags(&tags, how).await.map_err(failed)?;
                done.push(json!({ "tags": tags, "purged": true }));
            }
        }
        if let Some(prefix) = prefix.as_deref().or(all.then_some("")) {
            let mut part = Map::new();
            part.insert(
                if all { "all" } else { "prefix" }.into(),
                if all { json!(true) } else { json!(prefix) },
            );
            if is_dry {
                let (count, names) = self.beginning(&cache, prefix).await?;
                part.insert("count".into(), json!(count));
                part.insert("targets".into(), json!(names));
            } else if all && how == Purge::Hard {
                cache.clear().await.map_err(failed)?;
                part.insert("purged".into(), json!(true));
            } else {
                let purged = cache.purge_prefix(prefix, how).await.map_err(failed)?;
                part.insert("count".into(), json!(purged.targets));
            }
            done.push(Value::Object(part));
        }
        Ok(as_json(&json!({ "soft": how == Purge::Soft, "dry_run": is_dry, "done": done })))
    }

    /// How many targets begin like this, and some of them.
    async fn beginning(
        &self,
        cache: &HttpCache,
        prefix: &str,
    ) -> Result<(u64, Vec<String>), (StatusCode, String)> {
        let mut targets = cache.targets(prefix).map_err(failed)?;
        let (mut count, mut names) = (0_u64, Vec::new());
        while let Some(target) = targets.next().await {
            let target = target.map_err(failed)?;
            count += 1;
            if names.len() < NAMED_MAX {
                names.push(target);
            }
        }
        Ok((count, names))
    }

    /// Which targets have one of these tags: all are looked at.
    async fn tagged(&self, cache: &HttpCache, tags: &[&str]) -> Result<Value, (StatusCode, String)> {
        let mut targets = cache.targets("").map_err(failed)?;
        let (mut count, mut names) = (0_u64, Vec::new());
        while let Some(target) = targets.next().await {
            let target = target.map_err(failed)?;
            let there = cache.store().get(&target).await.map_err(failed)?;
            if there.is_some_and(|variants| variants.tags().iter().any(|tag| tags.contains(tag))) {
                count += 1;
                if names.len() < NAMED_MAX {
                    names.push(target);
                }
            }
        }
        Ok(json!({ "tags": tags, "count": count, "targets": names }))
    }

    async fn explain(&self, body: Body) -> Answer {
        let asked = read(body).await?;
        let url = asked.get("url").ok_or_else(|| bad("say which \"url\""))?;
        let uri: Uri = key(url)?.parse().map_err(|_| bad("\"url\" is not a URL"))?;
        let mut request = Request::new(());
        *request.uri_mut() = uri;
        match asked.get("headers") {
            None => {}
            Some(Value::Object(fields)) => {
                for (name, values) in fields {
                    let values = values.as_array().map_or(std::slice::from_ref(values), Vec::as_slice);
                    for value in values {
                        let name = HeaderName::from_bytes(name.as_bytes());
                        let value = value.as_str().map(HeaderValue::from_str);
                        let (Ok(name), Some(Ok(value))) = (name, value) else {
                            return Err(bad("\"headers\" are names, each with a text or a list of them"));
                        };
                        request.headers_mut().append(name, value);
                    }
                }
            }
            Some(_) => return Err(bad("\"headers\" are names, each with a text or a list of them")),
        }
        let (parts, ()) = request.into_parts();
        let gate = self.gate.get();
        let why = gate.cache.explain(&parts).await.map_err(failed)?;
        Ok(as_json(&explained(&why, gate.only.admits(&parts.uri))))
    }
}

/// An explanation as JSON. `is_admitted`: whether the configuration has the request cached at all.
fn explained(why: &Explanation, is_admitted: bool) -> Value {
    let (verdict, reason) = if is_admitted {
        (why.verdict, why.reason.to_string())
    } else {
        ("pass it on to the origin", "cache.only does not name it".to_owned())
    };
    let seconds = |duration: Duration| json!(duration.as_secs_f64());
    let variants: Vec<Value> = why
        .variants
        .iter()
        .map(|variant| {
            let vary: Map<String, Value> =
                variant.vary.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
            let delete_at = variant.delete_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            json!({
                "selected": variant.is_selected,
                "name": variant.name,
                "status": variant.status,
                "age_seconds": seconds(variant.age),
                "lifetime_seconds": seconds(variant.lifetime),
                "lifetime_source": variant.lifetime_source.to_string(),
                "fresh": variant.is_fresh,
                "mark": format!("{:?}", variant.mark).to_ascii_lowercase(),
                "deleted_at": delete_at.as_secs(),
                "vary": vary,
                "tags": variant.tags,
                "body_bytes": variant.body_bytes,
            })
        })
        .collect();
    json!({
        "target": why.target,
        "verdict": verdict,
        "reason": reason,
        "variants": variants,
    })
}

/// What a URL is called in the store.
fn key(url: &Value) -> Result<String, (StatusCode, String)> {
    url_key(url.as_str().ok_or_else(|| bad("\"url\" is a text"))?)
}

fn url_key(text: &str) -> Result<String, (StatusCode, String)> {
    let uri: Uri = text.parse().map_err(|_| bad(format!("{text:?} is not a URL")))?;
    target(&uri).map_err(|error| match error {
        NoKey::NotAbsolute => bad(format!("{text:?} is not a whole URL, such as http://example.com/path")),
        error => bad(format!("{text:?}: {error}")),
    })
}

/// What targets begin with that begin with a URL. `http://Example.com` is that host, and no other that begins so.
fn prefix_key(prefix: &Value) -> Result<String, (StatusCode, String)> {
    let text = prefix.as_str().filter(|text| !text.is_empty());
    let text = text.ok_or_else(|| bad("\"prefix\" is a text; for everything there is \"all\""))?;
    url_key(text)
}

/// A list of texts that is not empty; none if it is not there.
fn texts<'a>(asked: &'a Map<String, Value>, name: &str) -> Result<Vec<&'a str>, (StatusCode, String)> {
    let Some(list) = asked.get(name) else { return Ok(Vec::new()) };
    let texts: Option<Vec<&str>> = list.as_array().and_then(|list| list.iter().map(Value::as_str).collect());
    texts
        .filter(|texts| !texts.is_empty() && texts.iter().all(|text| !text.is_empty()))
        .ok_or_else(|| bad(format!("{name:?} is a list of texts")))
}

/// A request's JSON object.
async fn read(mut body: Body) -> Result<Map<String, Value>, (StatusCode, String)> {
    let mut text = Vec::new();
    while let Some(frame) = std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(|_| bad("the request ended too early"))?;
        let Ok(piece) = frame.into_data() else { continue };
        if text.len() + piece.len() > REQUEST_BYTES_MAX {
            return Err((StatusCode::PAYLOAD_TOO_LARGE, "the request is too large".to_owned()));
        }
        text.extend_from_slice(&piece);
    }
    match serde_json::from_slice(&text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(bad("the request is not a JSON object")),
        Err(error) => Err(bad(format!("the request is not JSON: {error}"))),
    }
}

fn bad(why: impl Into<String>) -> (StatusCode, String) {
    (StatusCode::BAD_REQUEST, why.into())
}

fn failed(error: larder::Error) -> (StatusCode, String) {
    let status = match error.kind() {
        ErrorKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
        ErrorKind::InvalidKey | ErrorKind::TooLarge => StatusCode::BAD_REQUEST,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, error.to_string())
}

fn not_allowed(method: &'static str) -> Response<Body> {
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "another method is meant");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(method));
    response
}

fn as_json(value: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{value}\n")));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Whether two texts are the same, in a time that does not tell where they differ.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).fold(0, |differs, (one, other)| differs | (one ^ other)) == 0
}
