//! What happened so far, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::HttpCache;

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counts {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        #[derive(Debug, Default)]
        pub(super) struct Counts {
            $(pub(super) $name: Count,)*
            store_failures: Count,
            last_store_failure: Mutex<Option<String>>,
        }

        /// What happened since the cache was made.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct HttpStats {
            $($(#[doc = $doc])* pub $name: u64,)*
            /// Calls of the store that failed; the requests were answered without.
            pub store_failures: u64,
            /// What the last of them said.
            pub last_store_failure: Option<String>,
            /// Targets that are being asked for now, and that others may wait for.
            pub in_flight: u64,
        }

        impl HttpStats {
            /// The counts by name, with what each means.
            pub fn counts(&self) -> Vec<(&'static str, u64, &'static str)> {
                vec![
                    $((stringify!($name), self.$name, concat!($($doc),*)),)*
                    ("store_failures", self.store_failures, " Calls of the store that failed."),
                ]
            }
        }

        impl HttpCache {
            /// What happened so far.
            pub fn stats(&self) -> HttpStats {
                let counts = &self.shared.counts;
                HttpStats {
                    $($name: counts.$name.get(),)*
                    store_failures: counts.store_failures.get(),
                    last_store_failure: counts.last_store_failure.lock().clone(),
                    in_flight: self.shared.flights.len() as u64,
                }
            }
        }
    };
}

counts! {
    /// Requests that were answered from what is stored, without waiting for the origin.
    hits,
    /// Requests for which what is stored would not do.
    misses,
    /// Requests that are none for a cache.
    passed,
    /// Hits with something stale, while it was validated.
    stale_while_revalidate,
    /// Requests that were answered with something stale because the origin failed.
    stale_on_failure,
    /// Requests that were answered together with others.
    collapsed,
    /// Responses of the origin that were passed on.
    forwarded,
    /// Responses that the origin confirmed.
    validated,
    /// Responses that were stored.
    stored,
    /// Requests to which the origin gave no answer.
    failed,
    /// Responses that ended before their end.
    cut,
    /// Responses that were not stored because they have more tags than can be kept, or longer ones.
    too_many_tags,
    /// Stored responses that were forgotten because their body was gone.
    healed,
}

impl Counts {
    pub(super) fn store_failed(&self, error: &larder::Error) {
        self.store_failures.add();
        *self.last_store_failure.lock() = Some(error.to_string());
    }
}
