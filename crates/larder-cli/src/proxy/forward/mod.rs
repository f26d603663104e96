//! What an origin is told of the client, and what it is not: `Via`, `X-Forwarded-…`, `Forwarded`, `Max-Forwards`, and the
//! fields by which a client would have one response made for it and another one's key.
//!
//! Pure: requests in, requests out. Knows neither origins nor the cache.

mod hops;
mod network;
mod told;
mod via;

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, Response, request};
use larder_http::Body;

pub(crate) use network::Network;
pub(crate) use told::Mode;
pub(crate) use via::Pseudonym;

use crate::proxy::Refusal;

/// Who asks, as the listener saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Client {
    pub(crate) address: IpAddr,
    /// Whether it came over TLS.
    pub(crate) tls: bool,
}

/// What is done with what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Forwarding {
    pub(crate) x_forwarded_for: Mode,
    pub(crate) x_forwarded_proto: Mode,
    pub(crate) x_forwarded_host: Mode,
    pub(crate) forwarded: Mode,
    /// Whether requests say in `Via` that they came through here. Loops are seen by that alone.
    pub(crate) via: bool,
    /// Whether responses say so as well.
    pub(crate) via_response: bool,
    /// What we are called in `Via`.
    pub(crate) pseudonym: Pseudonym,
    /// Whose claims are kept by what keeps claims; if nobody is named, everybody's.
    pub(crate) trusted: Vec<Network>,
    /// Fields that are passed on though they are usually dropped. Answers vary on them.
    pub(crate) allow: Vec<HeaderName>,
}

impl Default for Forwarding {
    fn default() -> Self {
        Self {
            x_forwarded_for: Mode::Set,
            x_forwarded_proto: Mode::Set,
            x_forwarded_host: Mode::Set,
            forwarded: Mode::Set,
            via: true,
            via_response: false,
            pseudonym: Pseudonym::default(),
            trusted: Vec::new(),
            allow: Vec::new(),
        }
    }
}

/// The answer of a request that goes no further than to here; asked before it is admitted anywhere. Counts the hop.
pub(crate) fn answer(request: &mut request::Parts) -> Option<Response<Body>> {
    hops::answer(request)
}

impl Forwarding {
    /// Makes an admitted request, whose target is absolute, ready for the cache and the origin.
    ///
    /// # Errors
    /// It has been here before.
    pub(crate) fn apply(&self, request: &mut request::Parts, client: Client) -> Result<(), Refusal> {
        via::refuse_loop(&request.headers, &self.pseudonym)?;
        self.drop_claims(&mut request.headers);
        told::tell(self, request, client);
        if self.via {
            via::add(&mut request.headers, request.version, &self.pseudonym);
        }
        Ok(())
    }

    /// Request fields that a client chooses, an origin sees, and no key has in it: answers have to vary on them.
    pub(crate) fn vary(&self) -> Vec<HeaderName> {
        let kept = [
            (self.x_forwarded_proto, told::X_FORWARDED_PROTO),
            (self.x_forwarded_host, told::X_FORWARDED_HOST),
            (self.forwarded, http::header::FORWARDED),
        ];
        let kept = kept.into_iter().filter(|(mode, _)| mode.keeps_claims()).map(|(_, name)| name);
        let mut all: Vec<HeaderName> = self.allow.iter().cloned().chain(kept).collect();
        all.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        all.dedup();
        all
    }

    /// What responses say they came through, if they say so.
    pub(crate) fn response_via(&self) -> Option<String> {
        self.via_response.then(|| format!("1.1 {}", self.pseudonym))
    }

    fn drop_claims(&self, headers: &mut HeaderMap) {
        let drops: Vec<HeaderName> = headers
            .keys()
            .filter(|name| !self.allow.contains(name) && is_claim(name.as_str()))
            .cloned()
            .collect();
        for name in drops {
            headers.remove(name);
        }
    }
}

/// Names by which applications and frameworks let a client say that it asked for something else than it did, or that it
/// is somebody else.
const CLAIMS: [&str; 24] = [
    "cf-connecting-ip",
    "client-ip",
    "fastly-client-ip",
    "front-end-https",
    "proxy",
    "true-client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-forwarded",
    "x-host",
    "x-http-destinationurl",
    "x-http-host-override",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-originating-ip",
    "x-proxy-url",
    "x-proxyuser-ip",
    "x-real-ip",
    "x-remote-addr",
    "x-remote-ip",
    "x-scheme",
    "x-url-scheme",
    "x-wap-profile",
];

/// What such names begin with.
const CLAIMS_BEGIN: [&str; 6] =
    ["x-forwarded-", "x-invoke-", "x-middleware-", "x-original-", "x-rewrite-", "x-override-"];

/// Fields that are decided on by name, one by one.
const DECIDED: [&str; 3] = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"];

fn is_claim(name: &str) -> bool {
    if DECIDED.contains(&name) {
        return false;
    }
    // CGI and what came of it read `_` as `-`, so that `X_Forwarded_For` is another way to say it.
    let name = name.replace('_', "-");
    CLAIMS.contains(&name.as_str()) || CLAIMS_BEGIN.iter().any(|start| name.starts_with(start))
}

#[cfg(test)]
mod tests;
