//! `Max-Forwards` (RFC 9110 section 7.6.2): how far `TRACE` and `OPTIONS` go.

use http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, COOKIE, MAX_FORWARDS, PROXY_AUTHORIZATION};
use http::{HeaderValue, Method, Response, Version, request};
use larder_http::Body;

/// What is answered here if asked for: nothing that changes anything.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE");

/// What a trace does not show: whoever made a browser send it is not to read it.
const SECRET: [http::HeaderName; 3] = [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION];

/// Answers what is about this server, or is to go no further.
pub(super) fn answer(request: &mut request::Parts) -> Option<Response<Body>> {
    //= https://www.rfc-editor.org/rfc/rfc9110#section-9.3.7
    //# An OPTIONS request with an asterisk ("*") as the request target
    //# (Section 7.1) applies to the server in general rather than to a
    //# specific resource.
    if request.method == Method::OPTIONS && request.uri.path() == "*" {
        return Some(options());
    }
    count(request)
}

fn options() -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    answer.headers_mut().insert(ALLOW, METHODS);
    answer
}

//= https://www.rfc-editor.org/rfc/rfc9110#section-7.6.2
//# Each intermediary that receives a TRACE or OPTIONS request containing a
//# Max-Forwards header field MUST check and update its value prior to
//# forwarding the request.
fn count(request: &mut request::Parts) -> Option<Response<Body>> {
    if !matches!(request.method, Method::TRACE | Method::OPTIONS) {
        return None;
    }
    let mut values = request.headers.get_all(MAX_FORWARDS).iter();
    let first = values.next()?.to_str().ok();
    let most = match (first.map(str::trim), values.next()) {
        (Some(text), None) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
            // What is more than can be counted is as good as the most that can.
            text.parse::<u32>().unwrap_or(u32::MAX)
        }
        _ => {
            request.headers.remove(MAX_FORWARDS);
            return None;
        }
    };
    //= https://www.rfc-editor.org/rfc/rfc9110#section-7.6.2
    //# If the received value is zero (0), the intermediary
    //# MUST NOT forward the request; instead, the intermediary MUST respond
    //# as the final recipient.
    match most.checked_sub(1) {
        Some(left) => {
            request.headers.insert(MAX_FORWARDS, left.into());
            None
        }
        None if request.method == Method::TRACE => Some(trace(request)),
        None => Some(options()),
    }
}

/// The request as it came, less what is secret.
//= https://www.rfc-editor.org/rfc/rfc9110#section-9.3.8
//# The final recipient of the request SHOULD reflect the message received,
//# excluding some fields described below, back to the client as the content
//# of a 200 (OK) response.
fn trace(request: &request::Parts) -> Response<Body> {
    let version = match request.version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    };
    let mut text = format!("{} {} {version}\r\n", request.method, request.uri).into_bytes();
    for (name, value) in request.headers.iter().filter(|(name, _)| !SECRET.contains(name)) {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    let mut answer = Response::new(Body::from(text));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("message/http"));
    answer
}
