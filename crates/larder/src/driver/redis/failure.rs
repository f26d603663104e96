//! What the client reports, as this crate's errors: what was tried, what is wrong, what to do.
//!
//! Knows the codes with which servers refuse. Nothing of a command's arguments gets into a message: a server
//! may repeat them in its answer, and they contain values.

use redis::{ErrorKind as Reported, RedisError, ServerErrorKind, Value};

use crate::error::{Error, ErrorKind};

/// The error of a call.
pub(super) fn failed(what: &str, cause: RedisError) -> Error {
    let said = said(&cause);
    let Some((kind, advice)) = server(&cause, &said).or_else(|| client(&cause)) else {
        return Error::new(ErrorKind::Unsupported, format!("redis {what}: {said}"));
    };
    // A failure of the network says nothing about the data; an answer of the server might.
    if cause.is_io_error() {
        return Error::from_source(kind, format!("redis {what}: {advice}"), cause);
    }
    if said.is_empty() {
        return Error::new(kind, format!("redis {what}: {advice}"));
    }
    Error::new(kind, format!("redis {what}: {advice} ({said})"))
}

/// The error of a call that one node of a cluster sent to another, over and over.
pub(super) fn unreachable_node(what: &str, cause: &RedisError) -> Error {
    let message = format!("redis {what}: the node that has the key cannot be reached ({})", said(cause));
    Error::new(ErrorKind::Unavailable, message)
}

/// The error of an answer that no server gives to this command.
pub(super) fn unexpected(what: &str, answer: &Value) -> Error {
    let shape = match answer {
        Value::Nil => "nothing",
        Value::Int(_) => "a number",
        Value::BulkString(_) | Value::SimpleString(_) | Value::Okay => "a text",
        Value::Array(_) => "a list of another shape",
        Value::ServerError(error) => {
            return failed(what, error.clone().into());
        }
        _ => "something of another type",
    };
    Error::new(ErrorKind::Unsupported, format!("redis {what}: the server answered with {shape}"))
}

/// The server's code and words, without what it repeats of the command.
fn said(cause: &RedisError) -> String {
    let code = cause.code().unwrap_or_default();
    let words = cause.detail().unwrap_or_default();
    let words = words.split(", with args beginning with").next().unwrap_or_default();
    let words: String = words.chars().take(200).collect();
    format!("{code} {words}").trim().to_owned()
}

/// What a refusal of the server means. Scripts of old servers wrap the code of the command that failed in them.
fn server(cause: &RedisError, said: &str) -> Option<(ErrorKind, &'static str)> {
    let says = |code: &str| cause.code() == Some(code) || said.contains(&format!("-{code} "));
    if cause.kind() == Reported::AuthenticationFailed || says("WRONGPASS") || says("NOAUTH") {
        return Some((ErrorKind::Config, "the server does not accept the user or the password"));
    }
    if says("NOPERM") {
        return Some((
            ErrorKind::Config,
            "the user may not do that; it needs get, mget, getrange, exists, set, unlink, scan, eval, evalsha and ping",
        ));
    }
    if says("OOM") || said.contains("OOM command not allowed") {
        return Some((
            ErrorKind::Unavailable,
            "the server's memory is full and its maxmemory-policy does not make room",
        ));
    }
    if says("READONLY") {
        return Some((ErrorKind::Unavailable, "the server is a replica, which takes no writes"));
    }
    if cause.kind() == Reported::Server(ServerErrorKind::Moved) || says("ASK") {
        return Some((
            ErrorKind::Config,
            "the server is part of a cluster: open it by redis+cluster://HOST:PORT,…",
        ));
    }
    let passes = ["LOADING", "BUSY", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "MISCONF", "NOREPLICAS"];
    if passes.iter().any(|code| says(code)) || said.contains("max number of clients") {
        return Some((ErrorKind::Unavailable, "the server cannot do it now"));
    }
    if said.contains("NOSCRIPT") {
        return Some((ErrorKind::Unavailable, "the server forgot a script in between"));
    }
    None
}

/// What a failure of the client means.
fn client(cause: &RedisError) -> Option<(ErrorKind, &'static str)> {
    if cause.is_timeout() {
        return Some((ErrorKind::Timeout, "no answer in time"));
    }
    if cause.is_connection_refusal() {
        return Some((ErrorKind::Unavailable, "nobody listens there"));
    }
    if cause.is_io_error() && cause.to_string().to_lowercase().contains("certificate") {
        return Some((ErrorKind::Config, "one side does not accept the other's certificate"));
    }
    match cause.kind() {
        Reported::Io => Some((ErrorKind::Unavailable, "the connection failed")),
        Reported::ClusterConnectionNotFound => Some((ErrorKind::Unavailable, "no node can be reached")),
        Reported::MasterNameNotFoundBySentinel => {
            Some((ErrorKind::Unavailable, "no sentinel knows a primary of this name that is up"))
        }
        Reported::InvalidClientConfig => Some((ErrorKind::Config, "the client refuses its settings")),
        Reported::RESP3NotSupported => {
            Some((ErrorKind::Unsupported, "the server does not speak RESP3: Redis 6 or later does"))
        }
        Reported::Parse => Some((ErrorKind::Unavailable, "what answers is no Redis server")),
        _ => None,
    }
}

/// Whether the answer says that nothing was done, and that another node, or the same later, would do it.
pub(super) fn is_elsewhere(cause: &RedisError) -> bool {
    matches!(
        cause.kind(),
        Reported::Server(
            ServerErrorKind::Moved
                | ServerErrorKind::Ask
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ReadOnly
        )
    )
}

/// Whether the server does not have the script of this hash.
pub(super) fn is_no_script(cause: &RedisError) -> bool {
    cause.kind() == Reported::Server(ServerErrorKind::NoScript)
}

/// Whether what is stored is not a string, hence nobody's record.
pub(super) fn is_wrong_type(cause: &RedisError) -> bool {
    cause.code() == Some("WRONGTYPE")
}

/// Whether the client has no connection to any node of a cluster, or none to the one that was asked for.
pub(super) fn is_lost(cause: &RedisError) -> bool {
    cause.kind() == Reported::ClusterConnectionNotFound
}

/// Whether the connection had better not be used again.
pub(super) fn is_broken(cause: &RedisError) -> bool {
    cause.is_unrecoverable_error()
        || matches!(
            cause.kind(),
            Reported::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown) | Reported::Parse
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a server answered, as the client reports it.
    fn answered(line: &str) -> RedisError {
        match redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap() {
            Value::ServerError(error) => error.into(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn answers_are_told_by_what_can_be_done_about_them() {
        use ErrorKind::{Config, Unavailable, Unsupported};
        for (line, kind, advice) in [
            ("LOADING Redis is loading the dataset in memory", Unavailable, "cannot do it now"),
            ("CLUSTERDOWN Hash slot not served", Unavailable, "cannot do it now"),
            ("MISCONF Errors writing to the AOF file", Unavailable, "cannot do it now"),
            ("BUSY Redis is busy running a script", Unavailable, "cannot do it now"),
            ("ERR max number of clients reached", Unavailable, "cannot do it now"),
            ("OOM command not allowed when used memory > 'maxmemory'", Unavailable, "memory is full"),
            (
                "ERR Error running script (call to f_1): @user_script:1: -OOM command not allowed when used memory",
                Unavailable,
                "memory is full",
            ),
            ("READONLY You can't write against a read only replica.", Unavailable, "is a replica"),
            (
                "ERR Error running script: @user_script:9: -READONLY You can't write",
                Unavailable,
                "is a replica",
            ),
            ("MOVED 866 127.0.0.1:7001", Config, "redis+cluster://"),
            ("NOAUTH Authentication required.", Config, "the password"),
            ("WRONGPASS invalid username-password pair or user is disabled.", Config, "the password"),
            ("NOPERM this user has no permissions to run the 'eval' command", Config, "the user may not"),
            ("ERR unknown command 'EVALSHA'", Unsupported, "unknown command"),
        ] {
            let error = failed("set", answered(line));
            assert_eq!(error.kind(), kind, "{line}: {error}");
            assert!(
                error.message().starts_with("redis set: ") && error.message().contains(advice),
                "{error}"
            );
        }
    }

    #[test]
    fn what_a_server_repeats_of_a_command_is_not_shown() {
        let line = "ERR unknown command 'EVALSHA', with args beginning with: 'f00' '1' 'key' 'hunter2'";
        let error = failed("set", answered(line));
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        assert!(error.message().contains("unknown command 'EVALSHA'"), "{error}");
    }
}
