//! Spans around what takes time, for `tracing`; without the feature, none. And what a task inherits from the caller who
//! starts it: his span, and whoever has his operation explained.
//!
//! A load runs in a task of its own; its span lies in that of the caller who began it. Names and fields are in
//! `trace`, and stay.

use std::future::Future;

use crate::explain;
use crate::stack::Core;

/// A load: its core, the namespace, the first of its keys, and how many they are.
pub(crate) type Load<'a> = (&'a Core, &'a str, &'a str, usize);

#[cfg(feature = "tracing")]
mod on {
    use tracing::Instrument as _;

    use super::*;
    use crate::trace;

    pub(crate) fn of_load<F: Future>(load: Load<'_>, run: F) -> impl Future<Output = F::Output> {
        let (core, namespace, key, keys) = load;
        run.instrument(trace::load_span(&core.name, namespace, key, keys))
    }

    pub(crate) fn of_store<F: Future>(
        core: &Core,
        driver: &str,
        operation: &str,
        call: F,
    ) -> impl Future<Output = F::Output> {
        call.instrument(trace::store_span(&core.name, driver, operation))
    }

    pub(crate) fn of_caller<F: Future>(task: F) -> impl Future<Output = F::Output> {
        explain::of_caller(task.in_current_span())
    }
}

#[cfg(not(feature = "tracing"))]
mod off {
    use super::*;

    pub(crate) fn of_load<F: Future>(_: Load<'_>, run: F) -> F {
        run
    }

    pub(crate) fn of_store<F: Future>(_: &Core, _: &str, _: &str, call: F) -> F {
        call
    }

    pub(crate) fn of_caller<F: Future>(task: F) -> impl Future<Output = F::Output> {
        explain::of_caller(task)
    }
}

#[cfg(not(feature = "tracing"))]
pub(crate) use off::{of_caller, of_load, of_store};
#[cfg(feature = "tracing")]
pub(crate) use on::{of_caller, of_load, of_store};
