//! Which failures of a write leave it open whether the source took it. Knows nothing of what follows from that.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;

use crate::error::{BoxError, Error, ErrorKind};

type Says = dyn Fn(&(dyn StdError + 'static)) -> bool + Send + Sync;

/// Tells failures in doubt from refusals: timeouts and broken connections, and what the user says.
#[derive(Clone, Default)]
pub(super) struct Doubt(Option<Arc<Says>>);

impl Doubt {
    /// These, and those of type `E` of which `says` is true.
    pub(super) fn or_if<E: StdError + 'static>(
        self,
        says: impl Fn(&E) -> bool + Send + Sync + 'static,
    ) -> Self {
        let before = self.0;
        Self(Some(Arc::new(move |error| {
            error.downcast_ref().is_some_and(&says) || before.as_ref().is_some_and(|before| before(error))
        })))
    }

    /// Whether it is open what became of a write that failed like this.
    pub(super) fn is_about(&self, error: &BoxError) -> bool {
        let mut next: Option<&(dyn StdError + 'static)> = Some(&**error);
        while let Some(error) = next {
            if broke_off(error) || self.0.as_ref().is_some_and(|says| says(error)) {
                return true;
            }
            next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
                // Its `source` would pass over the error that it was made from.
                Some(inner) => Some(inner),
                None => error.source(),
            };
        }
        false
    }
}

impl fmt::Debug for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Doubt").field(&self.0.is_some()).finish()
    }
}

fn broke_off(error: &(dyn StdError + 'static)) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof};
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return matches!(
            error.kind(),
            TimedOut | ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof
        );
    }
    if let Some(error) = error.downcast_ref::<Error>() {
        return matches!(error.kind(), ErrorKind::Timeout | ErrorKind::InDoubt);
    }
    error.is::<tokio::time::error::Elapsed>() || error.is::<tokio::task::JoinError>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_in_doubt(error: impl Into<BoxError>) -> bool {
        Doubt::default().is_about(&error.into())
    }

    #[test]
    fn timeouts_and_broken_connections_are_found_however_deep_they_lie() {
        let reset = || io::Error::from(io::ErrorKind::ConnectionReset);
        assert!(is_in_doubt(reset()));
        assert!(is_in_doubt(io::Error::other(reset())));
        assert!(is_in_doubt(io::Error::other(io::Error::other(reset()))));
        assert!(is_in_doubt(Error::from_source(ErrorKind::Unavailable, "sqlite set", reset())));
        assert!(is_in_doubt(Error::new(ErrorKind::Timeout, "sqlite set")));
        assert!(!is_in_doubt(io::Error::from(io::ErrorKind::ConnectionRefused)), "nothing was sent");
        assert!(!is_in_doubt(io::Error::other("a constraint")));
        assert!(!is_in_doubt("text"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_timeout_around_the_write_is_in_doubt() {
        let late = tokio::time::timeout(crate::time::seconds(1), std::future::pending::<()>()).await;
        assert!(is_in_doubt(late.unwrap_err()));
    }

    #[test]
    fn what_the_user_says_is_added_to_what_is_known() {
        let doubt = Doubt::default()
            .or_if(|_: &fmt::Error| true)
            .or_if(|error: &io::Error| error.kind() == io::ErrorKind::Other);
        assert!(doubt.is_about(&fmt::Error.into()));
        assert!(doubt.is_about(&io::Error::other("lost the leader").into()));
        assert!(doubt.is_about(&io::Error::from(io::ErrorKind::TimedOut).into()));
        assert!(!doubt.is_about(&"text".into()));
    }
}
