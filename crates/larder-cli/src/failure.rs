//! Why a command ended without its result, as an exit status and a message. Knows nothing of any command.

use std::fmt::Display;
use std::io;

use larder::ErrorKind;

/// The exit status of what was found or done.
pub(crate) const FOUND: u8 = 0;
/// The exit status of what is not there.
pub(crate) const NOT_FOUND: u8 = 1;
/// The exit status of a command line or configuration that makes no sense.
pub(crate) const USAGE: u8 = 2;
/// The exit status of a store that failed.
pub(crate) const FAILED: u8 = 3;
/// The exit status of `larder run` when its hard timeout is over, as `timeout` has it.
pub(crate) const TIMED_OUT: u8 = 124;
/// The exit status of `larder run` when larder itself failed, as `env` and `timeout` have it.
pub(crate) const RUN_FAILED: u8 = 125;

/// Why a command ended without its result.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Say this on standard error and exit with this status.
    Message { status: u8, text: String },
    /// Whoever read standard output has gone: nobody is left to tell.
    BrokenPipe,
}

/// What a command comes to: its exit status, or why there is none.
pub(crate) type Outcome = Result<u8, Failure>;

impl Failure {
    /// The command line or the configuration makes no sense.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::Message { status: USAGE, text: text.into() }
    }

    /// Something that should have worked did not.
    pub(crate) fn failed(text: impl Into<String>) -> Self {
        Self::Message { status: FAILED, text: text.into() }
    }

    /// Larder itself could not do its part of `larder run`.
    pub(crate) fn run(text: impl Into<String>) -> Self {
        Self::Message { status: RUN_FAILED, text: text.into() }
    }

    /// An input or output error while doing `what`.
    pub(crate) fn io(what: impl Display, error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::BrokenPipe;
        }
        Self::failed(format!("cannot {what}: {error}"))
    }
}

impl From<larder::Error> for Failure {
    fn from(error: larder::Error) -> Self {
        match error.kind() {
            ErrorKind::InvalidKey
            | ErrorKind::Config
            | ErrorKind::Unsupported
            | ErrorKind::Encode
            | ErrorKind::TooLarge => Self::usage(error.to_string()),
            _ => Self::failed(error.to_string()),
        }
    }
}
