//! What the client and the server report, as this crate's errors: what was tried where, what is wrong, what to do.
//!
//! What a server says about a statement may repeat a key, so that only its words about the server and the table are
//! handed on, and what it adds in detail never is.

use std::io;

use sqlx::error::DatabaseError;

use super::dialect::Dialect;
use crate::error::{Error, ErrorKind};

/// The error of a call.
pub(super) fn failed<D: Dialect>(what: &str, place: &str, cause: sqlx::Error) -> Error {
    let name = D::NAME;
    let told = |kind, advice: &str| Error::new(kind, format!("{name} {what}: {advice} ({place})"));
    match cause {
        sqlx::Error::Database(refusal) => refused::<D>(what, place, &*refusal),
        sqlx::Error::Io(cause) => broken(&format!("{name} {what}"), place, cause),
        sqlx::Error::Tls(cause) => {
            let message =
                format!("{name} {what}: the connection cannot be encrypted as it is to be ({place})");
            Error::from_source(ErrorKind::Config, message, cause)
        }
        sqlx::Error::PoolTimedOut => told(ErrorKind::Unavailable, "no connection in time"),
        sqlx::Error::PoolClosed => told(ErrorKind::Closed, "the connections were closed"),
        // Settings, such as a file that is not there. The client's words name no secret.
        sqlx::Error::Configuration(cause) => Error::from_source(
            ErrorKind::Config,
            format!("{name} {what}: the client refuses its settings ({place})"),
            cause,
        ),
        sqlx::Error::WorkerCrashed | sqlx::Error::Protocol(_) => {
            told(ErrorKind::Unavailable, "the client does not understand the answer")
        }
        _ => told(ErrorKind::Unsupported, "the table does not hold what it should"),
    }
}

fn broken(what: &str, place: &str, cause: io::Error) -> Error {
    let said = cause.to_string().to_lowercase();
    let (kind, advice) = if said.contains("certificate") {
        (ErrorKind::Config, "one side does not accept the other's certificate")
    } else if cause.kind() == io::ErrorKind::NotFound {
        (ErrorKind::Config, "a file is not there")
    } else if cause.kind() == io::ErrorKind::TimedOut {
        (ErrorKind::Timeout, "no answer in time")
    } else {
        (ErrorKind::Unavailable, "the connection failed")
    };
    Error::from_source(kind, format!("{what}: {advice} ({place})"), cause)
}

fn refused<D: Dialect>(what: &str, place: &str, refusal: &dyn DatabaseError) -> Error {
    let name = D::NAME;
    let code = refusal.code().unwrap_or_default();
    let (kind, advice) = D::classify(refusal).unwrap_or((ErrorKind::Unsupported, "the server refuses"));
    if refusal.is_unique_violation() {
        return Error::new(kind, format!("{name} {what}: {advice} ({place}: {code})"));
    }
    let words: String = refusal.message().chars().take(200).collect();
    Error::new(kind, format!("{name} {what}: {advice} ({place}: {code} {words})"))
}

/// What the client would report if it had not panicked.
pub(super) fn nonsense() -> sqlx::Error {
    sqlx::Error::Protocol(String::new())
}

/// The error of a call without an answer.
pub(super) fn late<D: Dialect>(what: &str, place: &str) -> Error {
    Error::new(ErrorKind::Timeout, format!("{} {what}: no answer in time ({place})", D::NAME))
}

/// The error of a call that others came before, over and over.
pub(super) fn crowded<D: Dialect>(what: &str, place: &str) -> Error {
    let message = format!("{} {what}: others changed the same key over and over ({place})", D::NAME);
    Error::new(ErrorKind::Unavailable, message)
}
