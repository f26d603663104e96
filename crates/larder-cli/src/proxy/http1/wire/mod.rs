//! HTTP/1.1 as bytes: what a request is and how a response is written. Pure; knows no sockets, tasks or clocks, and
//! nothing outside this folder, so that the fuzzer can include it as it is.

pub(crate) mod chunked;
pub(crate) mod head;
pub(crate) mod response;
pub(crate) mod target;

#[cfg(test)]
mod splits;

use http::{HeaderName, StatusCode, header};

/// Why a request is refused: the status that says so, and the reason in words that quote nothing of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) why: &'static str,
}

impl Refusal {
    pub(crate) const fn new(status: StatusCode, why: &'static str) -> Self {
        Self { status, why }
    }

    pub(crate) const fn bad(why: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, why)
    }
}

/// How much of a request is read before it is refused.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// The request line and all fields, in bytes.
    pub(crate) head_bytes: usize,
    /// The target of the request, in bytes.
    pub(crate) target_bytes: usize,
    /// The number of fields; at most [`head::FIELDS_MAX`].
    pub(crate) fields: usize,
    /// The trailers of a request, in bytes; of their number, `fields` is the limit.
    pub(crate) trailer_bytes: usize,
    /// The content of a request, in bytes.
    pub(crate) body_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 64 * 1024,
            target_bytes: 16 * 1024,
            fields: 100,
            trailer_bytes: 8 * 1024,
            body_bytes: u64::MAX,
        }
    }
}

/// Fields of one connection, which this server writes itself or not at all.
pub(crate) fn is_of_the_hop(name: &HeaderName) -> bool {
    [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE, header::TE].contains(name)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

//= https://www.rfc-editor.org/rfc/rfc9110#section-6.5.1
//# Many fields cannot be processed outside the header section because
//# their evaluation is necessary prior to receiving the content, such as
//# those that describe message framing, routing, authentication, request
//# modifiers, response controls, or content format.
pub(crate) fn may_be_a_trailer(name: &HeaderName) -> bool {
    const NEVER: [HeaderName; 17] = [
        header::AUTHORIZATION,
        header::CACHE_CONTROL,
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_RANGE,
        header::CONTENT_TYPE,
        header::COOKIE,
        header::DATE,
        header::EXPECT,
        header::HOST,
        header::LOCATION,
        header::PROXY_AUTHORIZATION,
        header::RANGE,
        header::SET_COOKIE,
        header::TRAILER,
        header::VARY,
        header::WWW_AUTHENTICATE,
    ];
    !NEVER.contains(name) && !is_of_the_hop(name)
}
