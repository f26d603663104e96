//! The cache that the tests ask: everything of an engine but bodies, sockets and time.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, request, response};
use larder_http::header::{connection, date};
use larder_http::policy::{
    Exchange, Failure, Freshened, HeadEffect, Invalidation, Keep, Outcome, Policy, Reason, Selected, Stored,
    Verdict,
};

pub(crate) const TARGET: &str = "http://example.com/page";
/// The bytes of every body, unless `Content-Range` says otherwise.
pub(crate) const BODY_BYTES: u64 = 11;

pub(crate) type Fields<'a> = &'a [(&'a str, &'a str)];

/// A request. `@-60` as a value is the date a minute before `now`.
#[derive(Clone)]
pub(crate) struct Ask<'a> {
    pub(crate) method: &'a str,
    pub(crate) target: &'a str,
    pub(crate) fields: Fields<'a>,
}

pub(crate) fn get(fields: Fields<'_>) -> Ask<'_> {
    Ask { method: "GET", target: TARGET, fields }
}

pub(crate) fn method<'a>(method: &'a str, fields: Fields<'a>) -> Ask<'a> {
    Ask { method, target: TARGET, fields }
}

/// What the origin does when it is asked.
#[derive(Clone, Copy)]
pub(crate) enum Origin<'a> {
    Answers(u16, Fields<'a>),
    Disconnects,
    /// It is not to be asked.
    Silent,
}

pub(crate) fn ok(fields: Fields<'_>) -> Origin<'_> {
    Origin::Answers(200, fields)
}

/// What the client got.
#[derive(Debug, Clone)]
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// What the origin was asked, the last time.
    pub(crate) asked: Option<HeaderMap>,
    pub(crate) reason: Option<Reason>,
    /// The response is, or has the body of, what was stored.
    pub(crate) is_stored: bool,
}

impl Got {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Answered without the origin.
    pub(crate) fn is_cached(&self) -> bool {
        self.is_stored && self.asked.is_none()
    }

    pub(crate) fn sent(&self, name: &str) -> Option<&str> {
        self.asked.as_ref()?.get(name).map(|value| value.to_str().unwrap())
    }
}

pub(crate) struct Cache {
    pub(crate) policy: Policy,
    pub(crate) now: SystemTime,
    /// How long the origin takes.
    pub(crate) delay: Duration,
    stored: HashMap<String, Vec<Stored>>,
}

pub(crate) fn shared() -> Cache {
    Cache::new(Policy::shared())
}

pub(crate) fn private() -> Cache {
    Cache::new(Policy::private())
}

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn fields(now: SystemTime, fields: Fields<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        let offset = value.strip_prefix('@').and_then(|offset| offset.parse().ok());
        let value = match offset {
            Some(offset) => HeaderValue::try_from(at(now, offset)).unwrap(),
            None => HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        };
        headers.append(name, value);
    }
    headers
}

/// The date so many seconds from now.
pub(crate) fn at(now: SystemTime, offset: i64) -> String {
    let distance = seconds(offset.unsigned_abs());
    date::format(if offset < 0 { now - distance } else { now + distance })
}

pub(crate) fn response(status: u16, headers: HeaderMap) -> response::Parts {
    let (mut parts, ()) = http::Response::new(()).into_parts();
    parts.status = StatusCode::from_u16(status).unwrap();
    parts.headers = headers;
    parts
}

pub(crate) fn request(now: SystemTime, ask: &Ask<'_>) -> request::Parts {
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = Method::from_bytes(ask.method.as_bytes()).unwrap();
    parts.uri = ask.target.parse().unwrap();
    parts.headers = fields(now, ask.fields);
    connection::strip(&mut parts.headers);
    parts
}

impl Cache {
    pub(crate) fn new(policy: Policy) -> Self {
        // Half a second past a whole one: dates have less than that.
        let now = UNIX_EPOCH + Duration::from_millis(1_795_000_000_500);
        Self { policy, now, delay: Duration::ZERO, stored: HashMap::new() }
    }

    pub(crate) fn wait(&mut self, seconds: u64) -> &mut Self {
        self.now += Duration::from_secs(seconds);
        self
    }

    pub(crate) fn stored(&self, target: &str) -> &[Stored] {
        self.stored.get(target).map_or(&[], Vec::as_slice)
    }

    /// The request again, which must not go to the origin.
    pub(crate) fn again(&mut self, ask: &Ask<'_>) -> Got {
        self.ask(ask, Origin::Silent)
    }

    /// Stores a response, waits, and says whether a request is answered by it alone.
    pub(crate) fn reuses(&mut self, first: &Ask<'_>, origin: Origin<'_>, wait: u64, then: &Ask<'_>) -> bool {
        self.ask(first, origin);
        self.wait(wait);
        self.ask(then, Origin::Answers(200, &[("cache-control", "no-store")])).is_cached()
    }

    pub(crate) fn ask(&mut self, ask: &Ask<'_>, origin: Origin<'_>) -> Got {
        let request = request(self.now, ask);
        let variants = self.stored.get(ask.target).cloned().unwrap_or_default();
        let selected = self.policy.select(&request, &variants);
        let verdict = self.policy.verdict(&request, selected, self.now);
        let stored = match selected {
            Selected::One(stored) => Some(stored.clone()),
            _ => None,
        };
        let reason = Some(verdict.reason());
        match (verdict, stored) {
            (Verdict::Serve { reason, .. }, Some(stored)) => self.serve(&request, &stored, false, reason),
            (Verdict::ServeAndValidate { validation, .. }, Some(stored)) => {
                let got = self.serve(&request, &stored, false, Reason::WhileRevalidate);
                if !matches!(origin, Origin::Silent) {
                    self.validate(ask, &request, &stored, validation, origin);
                }
                got
            }
            (Verdict::Validate { validation, .. }, Some(stored)) => {
                let got = self.validate(ask, &request, &stored, validation, origin);
                Got { reason: got.reason.or(reason), ..got }
            }
            (Verdict::GatewayTimeout { .. }, _) => {
                Got { status: 504, headers: HeaderMap::new(), asked: None, reason, is_stored: false }
            }
            (Verdict::Miss { .. } | Verdict::Forward { .. }, _) => {
                let fields = request.headers.clone();
                match self.fetch(origin) {
                    Some((response, times)) => {
                        Got { reason, ..self.pass(ask, &request, fields, response, times) }
                    }
                    None => bad_gateway(fields, reason),
                }
            }
            (verdict, _) => panic!("{verdict:?}"),
        }
    }

    fn fetch(&mut self, origin: Origin<'_>) -> Option<(response::Parts, Exchange)> {
        let requested_at = self.now;
        self.now += self.delay;
        match origin {
            Origin::Answers(status, answer) => {
                let times = Exchange { requested_at, received_at: self.now };
                Some((response(status, fields(self.now, answer)), times))
            }
            Origin::Disconnects => None,
            Origin::Silent => panic!("the origin was asked"),
        }
    }

    fn serve(&self, request: &request::Parts, stored: &Stored, is_validated: bool, reason: Reason) -> Got {
        let answer = stored.answer(request).expect("what was selected covers the request");
        let outgoing = stored.respond(&answer, is_validated, self.now);
        let mut headers = outgoing.headers;
        stored.cache_status("test", reason, self.now).append_to(&mut headers);
        let status = outgoing.status.as_u16();
        Got { status, headers, asked: None, reason: Some(reason), is_stored: true }
    }

    fn validate(
        &mut self,
        ask: &Ask<'_>,
        request: &request::Parts,
        stored: &Stored,
        validation: HeaderMap,
        origin: Origin<'_>,
    ) -> Got {
        let Some((response, times)) = self.fetch(origin) else {
            return match self.policy.on_failure(request, stored, Failure::Disconnected, self.now) {
                Ok(reason) => Got { asked: Some(validation), ..self.serve(request, stored, false, reason) },
                Err(reason) => bad_gateway(validation, Some(reason)),
            };
        };
        let asked = Some(validation.clone());
        match self.policy.after_validation(request, stored, &response, times) {
            Outcome::Freshened(freshened) => {
                match freshened.keep {
                    Keep::Updated => self.replace(ask.target, stored, Some(freshened.stored.clone())),
                    Keep::AsItWas(_) => {}
                    Keep::Nothing(_) => self.replace(ask.target, stored, None),
                }
                let mut got = self.serve(request, &freshened.stored, true, Reason::Confirmed);
                Freshened::put_in(&mut got.headers, &freshened.for_client);
                Got { asked, ..got }
            }
            Outcome::Serve(reason) => Got { asked, ..self.serve(request, stored, false, reason) },
            Outcome::Replace { reason, is_superseded } => {
                if is_superseded {
                    self.replace(ask.target, stored, None);
                }
                Got { reason: Some(reason), ..self.pass(ask, request, validation, response, times) }
            }
            Outcome::Refetch(_) => {
                let fields = request.headers.clone();
                let response = response_of_refetch(self.now);
                Got { reason: None, ..self.pass(ask, request, fields, response, times) }
            }
            outcome => panic!("{outcome:?}"),
        }
    }

    fn pass(
        &mut self,
        ask: &Ask<'_>,
        request: &request::Parts,
        asked: HeaderMap,
        response: response::Parts,
        times: Exchange,
    ) -> Got {
        for target in Invalidation::of(request, &response).targets {
            self.stored.remove(&target.to_string());
        }
        if request.method == Method::HEAD {
            for stored in self.stored.entry(ask.target.to_owned()).or_default() {
                match self.policy.head(request, stored, &response, times) {
                    HeadEffect::None => {}
                    HeadEffect::Updated(freshened) if freshened.keep == Keep::Updated => {
                        *stored = freshened.stored
                    }
                    HeadEffect::Updated(_) => {}
                    HeadEffect::Stale(stale) => *stored = *stale,
                }
            }
        }
        if let Ok(newer) = self.policy.store(request, &response, times) {
            let newer = newer.with_body_bytes(content_bytes(&response.headers));
            let variants = self.stored.entry(ask.target.to_owned()).or_default();
            if let Some(at) = self.policy.makes_room(&newer, variants.iter()) {
                variants.remove(at);
            }
            variants.push(newer);
        }
        let status = response.status.as_u16();
        Got { status, headers: response.headers, asked: Some(asked), reason: None, is_stored: false }
    }

    fn replace(&mut self, target: &str, old: &Stored, new: Option<Stored>) {
        let variants = self.stored.entry(target.to_owned()).or_default();
        if let Some(at) = variants.iter().position(|stored| stored == old) {
            variants.remove(at);
            variants.extend(new);
        }
    }
}

fn bad_gateway(asked: HeaderMap, reason: Option<Reason>) -> Got {
    Got { status: 502, headers: HeaderMap::new(), asked: Some(asked), reason, is_stored: false }
}

/// What comes when a 304 was about something else and the request is sent again without conditions.
fn response_of_refetch(now: SystemTime) -> response::Parts {
    response(200, fields(now, &[("cache-control", "max-age=60"), ("etag", "\"refetched\"")]))
}

fn content_bytes(headers: &HeaderMap) -> u64 {
    let length = headers.get("x-body-bytes").or(headers.get("content-length"));
    length.map_or(BODY_BYTES, |length| length.to_str().unwrap().parse().unwrap())
}
