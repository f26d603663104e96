//! What went wrong, as this crate's errors: what was tried on which server, what is wrong, what to do.
//!
//! Knows the words with which servers refuse. No value and no password gets into a message.

use std::io;

use super::reply::{Nonsense, Refusal};
use crate::error::{Error, ErrorKind};

/// The error of a call that the server refused.
pub(super) fn refused(what: &str, server: &str, refusal: &Refusal) -> Error {
    use ErrorKind::{Config, TooLarge, Unavailable, Unsupported};
    let (kind, advice) = match refusal {
        Refusal::Server(words) if words.contains("object too large") => {
            (TooLarge, "the value is larger than the server's item_size_max".to_owned())
        }
        Refusal::Server(words) if words.contains("out of memory") => {
            (Unavailable, format!("the server's memory is full and it makes no room ({words})"))
        }
        Refusal::Server(words) => (Unavailable, format!("the server cannot do it now ({words})")),
        Refusal::Client(words) if words.contains("authenticat") => {
            (Config, format!("the server does not accept the user or the password ({words})"))
        }
        Refusal::Client(words) => (Unsupported, format!("the server does not take the command ({words})")),
        Refusal::Unknown => (
            Unsupported,
            "the server does not speak the meta protocol: memcached 1.6.10 or later does".to_owned(),
        ),
    };
    Error::new(kind, format!("memcached {what} on {server}: {advice}"))
}

/// The error of a connection that ends because its server and we no longer understand each other.
pub(super) fn lost_track(server: &str, refusal: &Refusal) -> Error {
    let error = refused("call", server, refusal);
    let message = error.message().replacen("memcached call on ", "memcached on ", 1);
    Error::new(error.kind(), message)
}

/// The error of a connection as that of a call that went over it.
pub(super) fn during(what: &str, error: &Error) -> Error {
    match error.message().strip_prefix("memcached on ") {
        Some(rest) => Error::new(error.kind(), format!("memcached {what} on {rest}")),
        None => error.clone(),
    }
}

/// The error of a connection that broke under its calls.
pub(super) fn lost(server: &str, cause: &io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, format!("memcached on {server}: the connection failed ({cause})"))
}

/// The error of a connection that could not be made.
pub(super) fn broken(what: &str, server: &str, cause: io::Error) -> Error {
    let text = cause.to_string().to_lowercase();
    let (kind, advice) = match cause.kind() {
        _ if text.contains("certificate") => {
            (ErrorKind::Config, "one side does not accept the other's certificate")
        }
        io::ErrorKind::TimedOut => (ErrorKind::Timeout, "no answer in time"),
        io::ErrorKind::ConnectionRefused => (ErrorKind::Unavailable, "nobody listens there"),
        _ => (ErrorKind::Unavailable, "the connection failed"),
    };
    Error::from_source(kind, format!("memcached {what} on {server}: {advice}"), cause)
}

/// The error of an answer that cannot be one.
pub(super) fn nonsense(server: &str, nonsense: Nonsense) -> Error {
    let advice = match nonsense {
        Nonsense::Malformed => "what answers is no memcached server",
        Nonsense::TooLong => "an answer is longer than any can be",
        Nonsense::Foreign => "an answer belongs to another command",
    };
    Error::new(ErrorKind::Unavailable, format!("memcached on {server}: {advice}; the connection was closed"))
}

pub(super) fn late(server: &str) -> Error {
    Error::new(ErrorKind::Timeout, format!("memcached on {server}: no answer in time"))
}

/// The connection ended, and a call on it with it.
pub(super) fn hung_up(server: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("memcached on {server}: the connection ended"))
}

pub(super) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "memcached: the client was closed")
}

/// An answer that is in order, and not to this command.
pub(super) fn unexpected(what: &str, server: &str) -> Error {
    let message = format!("memcached {what} on {server}: the server's answer is none to that");
    Error::new(ErrorKind::Unsupported, message)
}

/// Every try met somebody else's write.
pub(super) fn contended(server: &str) -> Error {
    let message = format!("memcached set on {server}: others kept writing the same key");
    Error::new(ErrorKind::Unavailable, message)
}

/// Conditional writes stand on versions.
pub(super) fn without_versions(server: &str) -> Error {
    let message = format!(
        "memcached on {server}: the server was started with -C, which conditional writes do not allow"
    );
    Error::new(ErrorKind::Config, message)
}

pub(super) fn too_large(server: &str, bytes: usize, bytes_max: u64) -> Error {
    let message =
        format!("storing a value of {bytes} bytes in memcached on {server}, where {bytes_max} are the most");
    Error::new(ErrorKind::TooLarge, message)
}
