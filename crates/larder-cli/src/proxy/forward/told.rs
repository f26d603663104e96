//! `X-Forwarded-For`, `-Proto`, `-Host` and `Forwarded` (RFC 7239): who asked, over what, for which host.

use std::net::IpAddr;

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName, HeaderValue, request};

use super::{Client, Forwarding};

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(super) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The most bytes of claims that the truth is appended to; more are dropped.
const CLAIMS_BYTES_MAX: usize = 4096;

/// What is done with one of these fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// What the client claims is dropped, the truth is written.
    Set,
    /// The truth is written after what the client claims.
    Append,
    /// What the client claims is passed on, and nothing else.
    Pass,
    /// What the client claims is dropped, and nothing is written.
    Off,
}

impl Mode {
    /// Whether an origin sees what a client claims.
    pub(super) fn keeps_claims(self) -> bool {
        matches!(self, Self::Append | Self::Pass)
    }
}

/// Writes them into a request whose target is absolute.
pub(super) fn tell(options: &Forwarding, request: &mut request::Parts, client: Client) {
    let address = client.address.to_canonical();
    let believed =
        options.trusted.is_empty() || options.trusted.iter().any(|network| network.contains(address));
    let mode = |mode: Mode| if mode.keeps_claims() && !believed { Mode::Set } else { mode };
    let proto = if client.tls { "https" } else { "http" };
    let host = request.uri.authority().map_or_else(String::new, |authority| authority.as_str().to_owned());
    let headers = &mut request.headers;
    write(headers, X_FORWARDED_FOR, mode(options.x_forwarded_for), &address.to_string());
    write(headers, X_FORWARDED_PROTO, mode(options.x_forwarded_proto), proto);
    write(headers, X_FORWARDED_HOST, mode(options.x_forwarded_host), &host);
    write(headers, FORWARDED, mode(options.forwarded), &forwarded(address, proto, &host));
}

fn write(headers: &mut HeaderMap, name: HeaderName, mode: Mode, truth: &str) {
    let mut value = Vec::new();
    match mode {
        Mode::Pass => return,
        Mode::Off => {
            headers.remove(name);
            return;
        }
        Mode::Set => {}
        Mode::Append => {
            for claim in headers.get_all(&name) {
                value.extend_from_slice(claim.as_bytes().trim_ascii());
                value.extend_from_slice(b", ");
            }
            if value.len() > CLAIMS_BYTES_MAX {
                value.clear();
            }
        }
    }
    value.extend_from_slice(truth.as_bytes());
    match HeaderValue::from_bytes(&value) {
        Ok(value) if !truth.is_empty() => drop(headers.insert(name, value)),
        _ => drop(headers.remove(name)),
    }
}

/// One element of `Forwarded`.
fn forwarded(address: IpAddr, proto: &str, host: &str) -> String {
    let node = match address {
        IpAddr::V4(address) => address.to_string(),
        //= https://www.rfc-editor.org/rfc/rfc7239#section-6
        //# Note that an IPv6 address is always enclosed in square brackets.
        IpAddr::V6(address) => format!("\"[{address}]\""),
    };
    match host {
        "" => format!("for={node};proto={proto}"),
        host => format!("for={node};host={};proto={proto}", token_or_quoted(host)),
    }
}

fn token_or_quoted(text: &str) -> String {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if text.bytes().all(token) {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        if matches!(letter, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(letter);
    }
    quoted.push('"');
    quoted
}
