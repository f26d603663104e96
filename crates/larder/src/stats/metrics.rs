//! Snapshots onto the `metrics` facade, for programs that export through it already.
//!
//! The numbers are the same as on the Prometheus page, under the same names. They are read from a snapshot, as
//! often as the program likes, so nothing is counted twice and nothing is added to the way of a hit.

use ::metrics::{Key, Label, Level, Metadata, Recorder, Unit, with_recorder};

use super::Snapshot;
use super::prometheus::{Counter, Timing, counters, timings};

const METADATA: Metadata<'static> = Metadata::new("larder", Level::INFO, Some("larder"));
/// What is told of a duration, because the facade takes single observations of a histogram, not sums of them.
const QUANTILES: [(f64, &str); 3] = [(0.5, "0.5"), (0.9, "0.9"), (0.99, "0.99")];

/// Names the metrics and says what they are, once, before the first [`publish`]. Not every exporter asks.
pub fn describe() {
    let mut sample = Snapshot::default();
    sample.groups.push(super::GroupSnapshot::default());
    with_recorder(|recorder| {
        for Counter { name, help, .. } in counters(&sample) {
            recorder.describe_counter(name.into(), Some(Unit::Count), help.into());
        }
        for Timing { name, help, .. } in timings(&sample) {
            recorder.describe_gauge(name.into(), Some(Unit::Seconds), help.into());
            recorder.describe_counter(format!("{name}_sum").into(), Some(Unit::Microseconds), help.into());
            recorder.describe_counter(format!("{name}_count").into(), Some(Unit::Count), help.into());
        }
    });
}

/// Hands the numbers of some stacks, each with its name, to the recorder of this program: call it every few
/// seconds, or before each scrape.
///
/// Counts become counters with their absolute values. A duration, `larder_load_seconds`, becomes gauges of its
/// quantiles since the start (label `quantile`, in seconds), a counter `…_count` and a counter `…_sum` (in
/// microseconds, because counters are whole numbers).
///
/// ```
/// use larder::{Stack, memory::MemoryOptions, stats::metrics};
///
/// let stack = Stack::builder("users").memory(MemoryOptions::new(10_000)).build()?;
/// metrics::describe();
/// metrics::publish(&[(stack.name(), &stack.stats())]);
/// # Ok::<(), larder::Error>(())
/// ```
pub fn publish(stacks: &[(&str, &Snapshot)]) {
    with_recorder(|recorder| {
        for (stack, snapshot) in stacks {
            for Counter { name, labels, value, .. } in counters(snapshot) {
                count(recorder, name.to_owned(), own(stack, &labels), value);
            }
            for Timing { name, labels, latency, .. } in timings(snapshot) {
                let labels = own(stack, &labels);
                count(recorder, format!("{name}_count"), labels.clone(), latency.count());
                let total_us = u64::try_from(latency.total().as_micros()).unwrap_or(u64::MAX);
                count(recorder, format!("{name}_sum"), labels.clone(), total_us);
                for (share, shown) in QUANTILES {
                    let Some(value) = latency.quantile(share) else { continue };
                    let mut labels = labels.clone();
                    labels.push(Label::new("quantile", shown));
                    let key = Key::from_parts(name, labels);
                    recorder.register_gauge(&key, &METADATA).set(value.as_secs_f64());
                }
            }
        }
    });
}

fn own(stack: &str, labels: &[(&'static str, &str)]) -> Vec<Label> {
    let labels = labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned()));
    [Label::new("stack", stack.to_owned())].into_iter().chain(labels).collect()
}

fn count(recorder: &dyn Recorder, name: String, labels: Vec<Label>, value: u64) {
    recorder.register_counter(&Key::from_parts(name, labels), &METADATA).absolute(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use ::metrics::{Counter, CounterFn, Gauge, GaugeFn, Histogram, KeyName, SharedString};
    use parking_lot::Mutex;

    /// What was set, as text, by the name and labels.
    #[derive(Clone, Default)]
    struct Notebook(Arc<Mutex<BTreeMap<String, String>>>);

    struct Line(Notebook, String);

    impl CounterFn for Line {
        fn increment(&self, _: u64) {
            panic!("a snapshot is absolute");
        }
        fn absolute(&self, value: u64) {
            self.0.0.lock().insert(self.1.clone(), value.to_string());
        }
    }

    impl GaugeFn for Line {
        fn increment(&self, _: f64) {}
        fn decrement(&self, _: f64) {}
        fn set(&self, value: f64) {
            self.0.0.lock().insert(self.1.clone(), value.to_string());
        }
    }

    impl Recorder for Notebook {
        fn describe_counter(&self, key: KeyName, _: Option<Unit>, _: SharedString) {
            self.0.lock().insert(format!("described {}", key.as_str()), String::new());
        }
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            Counter::from_arc(Arc::new(Line(self.clone(), key.to_string())))
        }
        fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::from_arc(Arc::new(Line(self.clone(), key.to_string())))
        }
        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    #[test]
    fn the_recorder_gets_what_the_snapshot_says_however_often_it_is_told() {
        let notebook = Notebook::default();
        let mut snapshot = Snapshot { misses: 4, ..Snapshot::default() };
        snapshot.latencies.load.record(Duration::from_millis(2));
        ::metrics::with_local_recorder(&notebook, || {
            describe();
            publish(&[("s", &snapshot)]);
            publish(&[("s", &snapshot)]);
        });
        let lines = notebook.0.lock();
        let of = |start: &str| {
            let found = lines.iter().find(|(name, _)| name.contains(start));
            found.map(|(_, value)| value.clone()).unwrap_or_else(|| panic!("{start} in {lines:?}"))
        };
        assert_eq!(of("Key(larder_misses_total, [stack = s])"), "4");
        assert_eq!(of("Key(larder_load_seconds_count, [stack = s])"), "1");
        assert_eq!(of("Key(larder_load_seconds_sum, [stack = s])"), "2000");
        assert_eq!(of("Key(larder_load_seconds, [stack = s, quantile = 0.5])"), "0.002");
        assert!(lines.contains_key("described larder_misses_total"));
    }
}
