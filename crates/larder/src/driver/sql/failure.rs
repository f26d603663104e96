//! What the client and the server report, as this crate's errors: what was tried where, what is wrong, what to do.
//!
//! What a server says about a statement may repeat a key, so that only its words about the server and the table are
//! handed on, and what it adds in detail never is.

use std::fmt;
use std::io;

use sqlx::error::DatabaseError;

use super::dialect::{Dialect, Settings};
use crate::error::{Error, ErrorKind};

/// Where the server is.
pub(super) struct Place {
    /// As [`Dialect::place`] has it.
    name: String,
    is_socket: bool,
}

impl Place {
    pub(super) fn of<D: Dialect>(settings: &Settings<D>) -> Self {
        Self { name: D::place(settings), is_socket: D::is_socket(settings) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// The error of a call.
pub(super) fn failed<D: Dialect>(what: &str, place: &Place, cause: sqlx::Error) -> Error {
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

fn broken(what: &str, place: &Place, cause: io::Error) -> Error {
    let said = cause.to_string().to_lowercase();
    let (kind, advice) = if said.contains("certificate") {
        (ErrorKind::Config, "one side does not accept the other's certificate")
    } else if cause.kind() == io::ErrorKind::NotFound {
        // A server that stops takes its socket along, and brings it back.
        if place.is_socket {
            (ErrorKind::Unavailable, "its socket is not there, or a file of certificates")
        } else {
            (ErrorKind::Config, "a file is not there")
        }
    } else if cause.kind() == io::ErrorKind::TimedOut {
        (ErrorKind::Timeout, "no answer in time")
    } else {
        (ErrorKind::Unavailable, "the connection failed")
    };
    Error::from_source(kind, format!("{what}: {advice} ({place})"), cause)
}

fn refused<D: Dialect>(what: &str, place: &Place, refusal: &dyn DatabaseError) -> Error {
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
pub(super) fn late<D: Dialect>(what: &str, place: &Place) -> Error {
    Error::new(ErrorKind::Timeout, format!("{} {what}: no answer in time ({place})", D::NAME))
}

/// The error of a call that others came before, over and over.
pub(super) fn crowded<D: Dialect>(what: &str, place: &Place) -> Error {
    let message = format!("{} {what}: others changed the same key over and over ({place})", D::NAME);
    Error::new(ErrorKind::Unavailable, message)
}

#[cfg(test)]
#[cfg(all(unix, feature = "postgres", feature = "mysql"))]
mod tests {
    use crate::driver::mysql::{MysqlDriver, MysqlOptions};
    use crate::driver::postgres::{PostgresDriver, PostgresOptions};
    use crate::error::ErrorKind;

    #[tokio::test]
    async fn a_socket_that_is_not_there_is_a_server_that_is_down() {
        let postgres = ["?host=%2Fnowhere", ""].map(|query| {
            let mut options = PostgresOptions::new(&format!("postgres://u@h/d{query}")).unwrap();
            options.host = query.is_empty().then(|| "/nowhere".to_owned());
            options
        });
        let mysql = MysqlOptions::new("mysql://u@h/d?socket=/nowhere/socket").unwrap();
        for error in [
            PostgresDriver::connect(postgres[0].clone()).await.unwrap_err(),
            PostgresDriver::connect(postgres[1].clone()).await.unwrap_err(),
            MysqlDriver::connect(mysql).await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            assert!(error.message().contains("its socket is not there"), "{error}");
            assert!(error.message().contains("/nowhere"), "{error}");
        }
    }
}
