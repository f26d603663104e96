//! Snapshots as a page in Prometheus's text format (0.0.4), which OpenMetrics scrapers read as well.
//!
//! The page is written from snapshots when it is asked for; whoever serves it brings the HTTP server. Knows
//! nothing of stacks. Source: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::{GroupSnapshot, Latencies, Latency, Snapshot};

/// The `Content-Type` of a page.
pub const PROMETHEUS_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The bounds of the buckets on a page: powers of two microseconds, because counts up to those are exact; every
/// second one, because each is a series for each label.
const BOUNDS: [u32; 14] = [2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28];

/// Names and values: what tells the samples of one metric apart.
pub(super) type Labels<'a> = Vec<(&'static str, &'a str)>;

/// By their names: what they are, and their samples.
type Families<'a, T> = BTreeMap<&'static str, (&'static str, Vec<(Labels<'a>, T)>)>;

/// The page of some stacks, each with its name.
///
/// ```
/// use larder::stats::{Snapshot, prometheus_text};
///
/// let mut users = Snapshot::default();
/// (users.hits_l1, users.misses) = (3, 1);
/// let page = prometheus_text(&[("users", &users)]);
/// assert!(page.contains("# TYPE larder_misses_total counter\nlarder_misses_total{stack=\"users\"} 1\n"));
/// assert!(page.contains("larder_hits_total{stack=\"users\",tier=\"l1\"} 3\n"));
/// ```
pub fn prometheus_text(stacks: &[(&str, &Snapshot)]) -> String {
    let mut page = PrometheusPage::default();
    let mut families: Families<'_, u64> = BTreeMap::new();
    for (stack, snapshot) in stacks {
        for Counter { name, help, mut labels, value } in counters(snapshot) {
            labels.insert(0, ("stack", stack));
            families.entry(name).or_insert((help, Vec::new())).1.push((labels, value));
        }
    }
    for (name, (help, samples)) in families {
        page.counter(name, help, samples.iter().map(|(labels, value)| (labels.as_slice(), *value)));
    }
    let mut families: Families<'_, &Latency> = BTreeMap::new();
    for (stack, snapshot) in stacks {
        for Timing { name, help, mut labels, latency } in timings(snapshot) {
            labels.insert(0, ("stack", stack));
            families.entry(name).or_insert((help, Vec::new())).1.push((labels, latency));
        }
    }
    for (name, (help, samples)) in families {
        page.histogram(name, help, samples.iter().map(|(labels, latency)| (labels.as_slice(), *latency)));
    }
    page.into_text()
}

/// A page, metric by metric: for what is not in a [`Snapshot`], such as how full a store is.
///
/// Names have to be metric names as Prometheus has them; what stands in labels and in help may be any text.
///
/// ```
/// use larder::stats::PrometheusPage;
///
/// let mut page = PrometheusPage::default();
/// page.gauge("larder_memory_entries", "Entries in memory.", [([("stack", "a \"b\"")].as_slice(), 7)]);
/// assert_eq!(page.into_text(), "\
/// ## HELP larder_memory_entries Entries in memory.
/// ## TYPE larder_memory_entries gauge
/// larder_memory_entries{stack=\"a \\\"b\\\"\"} 7
/// ");
/// ```
#[derive(Debug, Clone, Default)]
pub struct PrometheusPage {
    text: String,
}

impl PrometheusPage {
    /// Adds a metric that only grows.
    pub fn counter<'a>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (&'a [(&'a str, &'a str)], u64)>,
    ) {
        self.family(name, help, "counter", samples);
    }

    /// Adds a metric that goes up and down.
    pub fn gauge<'a>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (&'a [(&'a str, &'a str)], u64)>,
    ) {
        self.family(name, help, "gauge", samples);
    }

    /// Adds a metric of durations, in seconds.
    pub fn histogram<'a>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (&'a [(&'a str, &'a str)], &'a Latency)>,
    ) {
        self.head(name, help, "histogram");
        for (labels, latency) in samples {
            for power in BOUNDS {
                let bound = Duration::from_micros(1 << power);
                let le = bound.as_secs_f64().to_string();
                self.sample(name, "_bucket", labels, Some(&le), latency.count_up_to(bound));
            }
            self.sample(name, "_bucket", labels, Some("+Inf"), latency.count());
            self.sample(name, "_sum", labels, None, latency.total().as_secs_f64());
            self.sample(name, "_count", labels, None, latency.count());
        }
    }

    /// The page.
    pub fn into_text(self) -> String {
        self.text
    }

    fn family<'a>(
        &mut self,
        name: &str,
        help: &str,
        kind: &str,
        samples: impl IntoIterator<Item = (&'a [(&'a str, &'a str)], u64)>,
    ) {
        self.head(name, help, kind);
        for (labels, value) in samples {
            self.sample(name, "", labels, None, value);
        }
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) {
        let help = help.replace('\\', r"\\").replace('\n', r"\n");
        // Writing to a String does not fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(
        &mut self,
        name: &str,
        suffix: &str,
        labels: &[(&str, &str)],
        le: Option<&str>,
        value: impl std::fmt::Display,
    ) {
        let bound = le.map(|le| ("le", le));
        let labels: Vec<String> =
            labels.iter().copied().chain(bound).map(|(name, value)| label(name, value)).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.text, "{name}{suffix}{labels} {value}");
    }
}

/// A label as it stands on the page: a value may hold anything, and must not end its quotes or its line.
fn label(name: &str, value: &str) -> String {
    let mut text = format!("{name}=\"");
    for letter in value.chars() {
        match letter {
            '\\' => text.push_str(r"\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str(r"\n"),
            letter => text.push(letter),
        }
    }
    text.push('"');
    text
}

/// One number of a snapshot, with the name that it has outside.
pub(super) struct Counter<'a> {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) labels: Labels<'a>,
    pub(super) value: u64,
}

/// One duration of a snapshot, with the name that it has outside.
pub(super) struct Timing<'a> {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) labels: Labels<'a>,
    pub(super) latency: &'a Latency,
}

/// Every count of a snapshot. Taken apart by name, so that a new one cannot be forgotten here.
pub(super) fn counters(snapshot: &Snapshot) -> Vec<Counter<'_>> {
    let Snapshot {
        hits_l1,
        hits_l2,
        hits_stale,
        misses,
        loads,
        loads_failed,
        loads_superseded,
        loads_replaced,
        ahead_full,
        writes,
        deletes,
        expires,
        clears,
        invalidations,
        evictions,
        l2_failures,
        l2_refusals,
        breaker_opens,
        breaker_closes,
        retries_remembered,
        retries_landed,
        retries_yielded,
        retries_dropped,
        damaged,
        undecodable,
        latencies: _,
        groups,
    } = snapshot;
    let plain = |name, help, value: &u64| Counter { name, help, labels: Vec::new(), value: *value };
    let labelled =
        |name, help, label, value: &u64| Counter { name, help, labels: vec![label], value: *value };
    let mut counters = vec![
        labelled("larder_hits_total", HITS, ("tier", "l1"), hits_l1),
        labelled("larder_hits_total", HITS, ("tier", "l2"), hits_l2),
        plain("larder_stale_hits_total", "Those of the hits that were stale.", hits_stale),
        plain("larder_misses_total", "Lookups that found nothing.", misses),
        labelled("larder_loads_total", LOADS, ("outcome", "loaded"), loads),
        labelled("larder_loads_total", LOADS, ("outcome", "failed"), loads_failed),
        plain(
            "larder_loads_superseded_total",
            "Loaded values that something newer overtook.",
            loads_superseded,
        ),
        plain("larder_loads_replaced_total", "Loads started beside a slow one.", loads_replaced),
        plain("larder_ahead_full_total", "Keys that were to be refreshed ahead without room.", ahead_full),
        plain("larder_writes_total", "Values stored.", writes),
        plain("larder_deletes_total", "Keys deleted or pulled.", deletes),
        plain("larder_expires_total", "Keys made stale.", expires),
        plain("larder_clears_total", "Clears of a namespace or of the whole.", clears),
        plain("larder_invalidations_total", "Tags invalidated.", invalidations),
        plain("larder_evictions_total", "Entries that left memory without being asked to.", evictions),
        plain("larder_store_failures_total", "Calls of the store that failed or were too slow.", l2_failures),
        plain("larder_store_refusals_total", "Calls of the store that its breaker refused.", l2_refusals),
        labelled("larder_breaker_turns_total", BREAKER, ("to", "open"), breaker_opens),
        labelled("larder_breaker_turns_total", BREAKER, ("to", "closed"), breaker_closes),
        labelled("larder_failed_writes_total", FAILED_WRITES, ("fate", "remembered"), retries_remembered),
        labelled("larder_failed_writes_total", FAILED_WRITES, ("fate", "landed"), retries_landed),
        labelled("larder_failed_writes_total", FAILED_WRITES, ("fate", "yielded"), retries_yielded),
        labelled("larder_failed_writes_total", FAILED_WRITES, ("fate", "dropped"), retries_dropped),
        plain("larder_damaged_total", "Stored bytes that were not the entry they should be.", damaged),
        plain(
            "larder_undecodable_total",
            "Stored entries that the codec or schema did not read.",
            undecodable,
        ),
    ];
    counters.extend(groups.iter().flat_map(group_counters));
    counters
}

const HITS: &str = "Lookups that found a value, stale ones included.";
const BREAKER: &str = "Turns of the store's circuit breaker, by the state that it turned to.";
const FAILED_WRITES: &str = "Writes that the store did not take, by what became of them.";
const LOADS: &str = "Loads of a key, by what came of them.";

fn group_counters(group: &GroupSnapshot) -> Vec<Counter<'_>> {
    let GroupSnapshot {
        name: group,
        hits_l1,
        hits_l2,
        hits_stale,
        misses,
        loads,
        loads_failed,
        load: _,
        store_read: _,
    } = group;
    let counter = |name, help, label: Option<(&'static str, &'static str)>, value: &u64| {
        let labels = [("group", group.as_str())].into_iter().chain(label).collect();
        Counter { name, help, labels, value: *value }
    };
    vec![
        counter("larder_group_hits_total", HITS, Some(("tier", "l1")), hits_l1),
        counter("larder_group_hits_total", HITS, Some(("tier", "l2")), hits_l2),
        counter("larder_group_stale_hits_total", "Those of the hits that were stale.", None, hits_stale),
        counter("larder_group_misses_total", "Lookups that found nothing.", None, misses),
        counter("larder_group_loads_total", LOADS, Some(("outcome", "loaded")), loads),
        counter("larder_group_loads_total", LOADS, Some(("outcome", "failed")), loads_failed),
    ]
}

/// Every duration of a snapshot.
pub(super) fn timings(snapshot: &Snapshot) -> Vec<Timing<'_>> {
    let Latencies { load, wait, store_read, store_write, store_other } = &snapshot.latencies;
    let plain = |name, help, latency| Timing { name, help, labels: Vec::new(), latency };
    let store = |class, latency| Timing {
        name: "larder_store_seconds",
        help: "How long calls of the store took.",
        labels: vec![("operation", class)],
        latency,
    };
    let mut timings = vec![
        plain("larder_load_seconds", "How long runs of loaders took, failed ones included.", load),
        plain("larder_wait_seconds", "How long get-or-set waited for what memory did not have.", wait),
        store("read", store_read),
        store("write", store_write),
        store("other", store_other),
    ];
    for group in &snapshot.groups {
        let labelled = |name, help, latency| {
            let labels = vec![("group", group.name.as_str())];
            Timing { name, help, labels, latency }
        };
        timings.push(labelled("larder_group_load_seconds", "How long loads of a key took.", &group.load));
        let help = "How long reads of the store took.";
        timings.push(labelled("larder_group_store_read_seconds", help, &group.store_read));
    }
    timings
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn busy() -> Snapshot {
        let mut snapshot = Snapshot { hits_l1: 5, misses: 2, ..Snapshot::default() };
        for millis in [1, 2, 300] {
            snapshot.latencies.load.record(Duration::from_millis(millis));
        }
        snapshot.groups = vec![GroupSnapshot { name: "users".into(), loads: 2, ..GroupSnapshot::default() }];
        snapshot
    }

    #[test]
    fn each_family_is_announced_once_and_its_samples_follow_it() {
        let (one, two) = (busy(), Snapshot::default());
        let page = prometheus_text(&[("one", &one), ("two", &two)]);
        let mut seen = BTreeSet::new();
        let mut family = "";
        for line in page.lines() {
            if let Some(head) = line.strip_prefix("# TYPE ") {
                family = head.split(' ').next().unwrap();
                assert!(seen.insert(family), "{family} twice");
            } else if !line.starts_with('#') {
                assert!(line.starts_with(family), "{line} under {family}");
                line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
            }
        }
        assert!(page.ends_with('\n') && seen.len() > 20, "{page}");
        let samples: Vec<&str> = page.lines().filter(|line| !line.starts_with('#')).collect();
        let series: BTreeSet<&str> = samples.iter().map(|line| line.rsplit_once(' ').unwrap().0).collect();
        assert_eq!(series.len(), samples.len(), "no series is there twice");
    }

    #[test]
    fn the_buckets_of_a_histogram_add_up() {
        let page = prometheus_text(&[("s", &busy())]);
        let bucket = |le: &str| {
            let start = format!("larder_load_seconds_bucket{{stack=\"s\",le=\"{le}\"}} ");
            page.lines().find_map(|line| line.strip_prefix(&start)).unwrap().parse::<u64>().unwrap()
        };
        assert_eq!((bucket("0.000256"), bucket("0.001024"), bucket("0.004096")), (0, 1, 2));
        assert_eq!((bucket("0.262144"), bucket("1.048576"), bucket("+Inf")), (2, 3, 3));
        assert!(page.contains("larder_load_seconds_sum{stack=\"s\"} 0.303\n"), "{page}");
        assert!(page.contains("larder_load_seconds_count{stack=\"s\"} 3\n"), "{page}");
    }

    #[test]
    fn no_name_breaks_out_of_its_quotes_or_its_line() {
        let page = prometheus_text(&[("a\"} 1\nevil \\", &Snapshot::default())]);
        assert!(page.contains(r#"larder_misses_total{stack="a\"} 1\nevil \\"} 0"#), "{page}");
        assert!(!page.lines().any(|line| line.starts_with("evil")));
        let mut page = PrometheusPage::default();
        page.gauge("g", "two\nlines \\", []);
        assert_eq!(page.into_text(), "# HELP g two\\nlines \\\\\n# TYPE g gauge\n");
    }

    #[test]
    fn groups_have_series_of_their_own() {
        let page = prometheus_text(&[("s", &busy())]);
        let expected = "larder_group_loads_total{stack=\"s\",group=\"users\",outcome=\"loaded\"} 2\n";
        assert!(page.contains(expected), "{page}");
    }
}
