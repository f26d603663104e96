//! What `tracing` sees: a span around each load and each call of the store, and events for whoever adds
//! [`TracingObserver`].
//!
//! OpenTelemetry, a log file or a console come from the subscriber: with `tracing-opentelemetry`, spans become
//! traces, without anything here knowing of it. All have the target `larder`; names and fields stay the same:
//!
//! | Span | Level | Fields |
//! | --- | --- | --- |
//! | `larder.load` | debug | `stack`, `namespace`, `key` (the first of a batch), `keys` (how many) |
//! | `larder.store` | debug | `stack`, `driver`, `operation` |
//!
//! A load runs in a task of its own; its span lies in the span of the caller that began it. Those who wait for the
//! same load have no span of it.

use std::time::Duration;

use tracing::{Span, debug_span};

use crate::event::{Event, Observer};

const TARGET: &str = "larder";

/// Makes each event of a stack an event of `tracing`: failures and damage as warnings, hits and misses as traces,
/// the rest for debugging. Each has the fields `stack` and `event` (its [name](Event::name)), and those of
/// `namespace`, `key`, `tier`, `stale`, `ttl_us` (of what is written; without it, forever), `existed`, `took_us`,
/// `operation`, `suppressed`, `cause`, `tag`, `soft`, `damage`, `advice` and `error` that it has. No values, but keys:
/// leave it out if they are secret.
///
/// ```
/// use std::sync::Arc;
/// use larder::{Stack, memory::MemoryOptions, trace::TracingObserver};
///
/// let stack = Stack::builder("users")
///     .memory(MemoryOptions::new(10_000))
///     .observer(Arc::new(TracingObserver))
///     .build()?;
/// # Ok::<(), larder::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct TracingObserver;

/// What some events have and others have not.
#[derive(Default)]
struct Fields<'a> {
    tier: Option<String>,
    stale: Option<bool>,
    ttl: Option<Duration>,
    existed: Option<bool>,
    took: Option<Duration>,
    operation: Option<&'a str>,
    suppressed: Option<bool>,
    cause: Option<String>,
    tag: Option<&'a str>,
    soft: Option<bool>,
    damage: Option<String>,
    advice: Option<&'a str>,
    error: Option<String>,
}

impl<'a> Fields<'a> {
    fn of(event: &Event<'a>) -> Self {
        let none = Self::default();
        match *event {
            Event::Hit { tier, stale, .. } => {
                Self { tier: Some(tier.to_string()), stale: Some(stale), ..none }
            }
            Event::Written { ttl, .. } => Self { ttl, ..none },
            Event::Deleted { existed, .. } => Self { existed: Some(existed), ..none },
            Event::Loaded { took, .. } => Self { took: Some(took), ..none },
            Event::LoadFailed { error, .. } | Event::Undecodable { error, .. } => {
                Self { error: Some(error.to_string()), ..none }
            }
            Event::TagInvalidated { tag, soft, .. } => Self { tag: Some(tag), soft: Some(soft), ..none },
            Event::Evicted { cause, .. } => Self { cause: Some(format!("{cause:?}")), ..none },
            Event::L2Failed { operation, error, suppressed } => Self {
                operation: Some(operation),
                suppressed: Some(suppressed),
                error: Some(error.to_string()),
                ..none
            },
            Event::Damaged { damage, .. } => Self { damage: Some(damage.to_string()), ..none },
            Event::Advised { advice } => {
                Self { advice: Some(advice.id), cause: Some(advice.what.clone()), ..none }
            }
            // The others have a name, a namespace and a key, which every event is asked for.
            _ => none,
        }
    }
}

/// An event at one level; the level has to be known where the macro stands.
macro_rules! emit {
    ($level:ident, $stack:expr, $event:expr) => {{
        // Asked first: making text of what nobody reads is most of the cost.
        if tracing::enabled!(target: TARGET, tracing::Level::$level) {
            let fields = Fields::of($event);
            let Fields { tier, stale, existed, operation, suppressed, cause, .. } = fields;
            let Fields { tag, soft, damage, advice, error, .. } = fields;
            let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
            let (ttl_us, took_us) = (fields.ttl.map(micros), fields.took.map(micros));
            tracing::event!(
                target: TARGET,
                tracing::Level::$level,
                stack = $stack,
                event = $event.name(),
                namespace = $event.namespace().filter(|path| !path.is_empty()),
                key = $event.key(),
                tier,
                stale,
                ttl_us,
                existed,
                took_us,
                operation,
                suppressed,
                cause,
                tag,
                soft,
                damage,
                advice,
                error
            );
        }
    }};
}

impl Observer for TracingObserver {
    fn on_event(&self, stack: &str, event: &Event<'_>) {
        match event {
            Event::LoadFailed { .. }
            | Event::L2Failed { .. }
            | Event::Damaged { .. }
            | Event::Undecodable { .. }
            | Event::Advised { .. } => emit!(WARN, stack, event),
            Event::Hit { .. } | Event::Miss { .. } => emit!(TRACE, stack, event),
            _ => emit!(DEBUG, stack, event),
        }
    }
}

pub(crate) fn load_span(stack: &str, namespace: &str, key: &str, keys: usize) -> Span {
    debug_span!(target: TARGET, "larder.load", stack, namespace, key, keys)
}

pub(crate) fn store_span(stack: &str, driver: &str, operation: &str) -> Span {
    debug_span!(target: TARGET, "larder.store", stack, driver, operation)
}
