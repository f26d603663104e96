//! What can go wrong, as one opaque type. Knows nothing of any other room.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// A boxed error from elsewhere: a loader's, a codec's, a client library's.
pub type BoxError = Box<dyn StdError + Send + Sync + 'static>;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed: one kind for each thing that a caller can do about it.
///
/// ```
/// use larder::{Error, ErrorKind};
/// let error = Error::new(ErrorKind::Unavailable, "cannot reach the store");
/// assert!(error.kind().is_transient());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The store could not be reached, or refused to work. Trying again later may help.
    Unavailable,
    /// The store or the loader did not answer within its time. Whether a write landed is unknown.
    Timeout,
    /// This driver, build or stack cannot do what was asked.
    Unsupported,
    /// A key, namespace or tag is too long or otherwise unusable.
    InvalidKey,
    /// A value is larger than a limit allows.
    TooLarge,
    /// The codec could not turn a value into bytes.
    Encode,
    /// The codec could not turn bytes into a value.
    Decode,
    /// The entry holds a value of another type than was asked for.
    TypeMismatch,
    /// The loader failed or panicked. [`Error::load_error`] gives its own error back.
    Load,
    /// The source did not take a write, and the cache is as it was. [`Error::write_error`] gives its own error back.
    Write,
    /// Whether the source took a write is not known: it timed out, broke off or panicked. What the cache had for the
    /// key was deleted. [`Error::write_error`] gives its own error back.
    InDoubt,
    /// A loader asked for the key that it is itself loading, directly or through other loaders.
    Recursion,
    /// A limit on concurrent work (flights, waiters) was reached.
    Overloaded,
    /// A counter would overflow, does not hold a number, or is missing where it was required.
    Counter,
    /// A configuration, URL or option does not make sense.
    Config,
    /// The stack was closed before the operation began.
    Closed,
}

impl ErrorKind {
    /// Whether the same call may succeed later without anything being changed.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Unavailable | Self::Timeout | Self::Overloaded)
    }

    fn words(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Timeout => "timed out",
            Self::Unsupported => "unsupported",
            Self::InvalidKey => "invalid key",
            Self::TooLarge => "too large",
            Self::Encode => "cannot encode",
            Self::Decode => "cannot decode",
            Self::TypeMismatch => "type mismatch",
            Self::Load => "load failed",
            Self::Write => "write failed",
            Self::InDoubt => "write in doubt",
            Self::Recursion => "recursive load",
            Self::Overloaded => "overloaded",
            Self::Counter => "counter",
            Self::Config => "configuration",
            Self::Closed => "closed",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

/// The error of this crate: a kind to act on, a message to read, and the cause if there is one.
///
/// It is one word wide and cheap to clone, because one failed load is handed to every caller that
/// waited for it. Messages never contain values, passwords or keys of encryption.
///
/// ```
/// use larder::{Error, ErrorKind};
/// let cause = std::io::Error::other("disk on fire");
/// let error = Error::from_source(ErrorKind::Unavailable, "cannot read entry", cause);
/// assert_eq!(error.to_string(), "unavailable: cannot read entry: disk on fire");
/// ```
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    source: Option<BoxError>,
}

impl Error {
    /// An error without a cause from elsewhere. The message is lower case and has no trailing stop.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Inner { kind, message: message.into(), source: None }))
    }

    /// An error that was caused by another one.
    pub fn from_source(
        kind: ErrorKind,
        message: impl Into<Cow<'static, str>>,
        source: impl Into<BoxError>,
    ) -> Self {
        Self(Arc::new(Inner { kind, message: message.into(), source: Some(source.into()) }))
    }

    /// What sort of failure this is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The message alone, without its kind and without its cause.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The message and what lies below it.
    fn fmt_without_kind(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        let mut source = self.source();
        while let Some(cause) = source {
            f.write_str(": ")?;
            source = match cause.downcast_ref::<Self>() {
                // The kind was said once; our own errors print what lies below them.
                Some(ours) if ours.0.kind == self.0.kind => return ours.fmt_without_kind(f),
                Some(ours) => return fmt::Display::fmt(ours, f),
                None => {
                    write!(f, "{cause}")?;
                    cause.source()
                }
            };
        }
        Ok(())
    }

    /// The loader's own error, if this is the failure of a load and the loader's error type was `E`.
    ///
    /// ```
    /// use larder::{Error, ErrorKind};
    /// let error = Error::from_source(ErrorKind::Load, "loader of key \"a\"", std::fmt::Error);
    /// assert!(error.load_error::<std::fmt::Error>().is_some());
    /// ```
    pub fn load_error<E: StdError + 'static>(&self) -> Option<&E> {
        if self.0.kind != ErrorKind::Load {
            return None;
        }
        self.cause()
    }

    /// The error of the function that wrote the source, if this is the failure of a write and its error type was `E`.
    ///
    /// ```
    /// use larder::{Error, ErrorKind};
    /// let error = Error::from_source(ErrorKind::Write, "write of key \"a\" in its source", std::fmt::Error);
    /// assert!(error.write_error::<std::fmt::Error>().is_some());
    /// ```
    pub fn write_error<E: StdError + 'static>(&self) -> Option<&E> {
        if !matches!(self.0.kind, ErrorKind::Write | ErrorKind::InDoubt) {
            return None;
        }
        self.cause()
    }

    fn cause<E: StdError + 'static>(&self) -> Option<&E> {
        let source: &(dyn StdError + 'static) = self.0.source.as_deref()?;
        source.downcast_ref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.0.kind)?;
        self.fmt_without_kind(f)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_is_one_word_wide() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }

    #[test]
    fn a_nested_error_is_printed_once() {
        let inner = Error::from_source(ErrorKind::Timeout, "waiting for the store", std::fmt::Error);
        let outer = Error::from_source(ErrorKind::Load, "loader of key \"a\"", inner.clone());
        assert_eq!(outer.to_string(), format!("load failed: loader of key \"a\": {inner}"));
    }

    #[test]
    fn a_kind_is_said_once_when_the_cause_is_of_the_same_kind() {
        let inner = Error::from_source(ErrorKind::Unavailable, "sqlite open", std::fmt::Error);
        let outer = Error::from_source(ErrorKind::Unavailable, "cannot open the store", inner);
        let below = std::fmt::Error;
        assert_eq!(outer.to_string(), format!("unavailable: cannot open the store: sqlite open: {below}"));
    }

    #[test]
    fn only_a_load_gives_a_load_error() {
        let error = Error::from_source(ErrorKind::Decode, "x", std::fmt::Error);
        assert!(error.load_error::<std::fmt::Error>().is_none());
    }
}
