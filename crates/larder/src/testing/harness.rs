//! A stack on a clock moved by hand, with a recorder, whose books are checked when the test is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::driver::memory::MemoryDriver;
use crate::event::{Event, Fate, Observer, Subject};
use crate::memory::MemoryOptions;
use crate::stack::{Stack, StackBuilder};
use crate::testing::{Chaos, ChaosHandle, ManualClock};
use crate::time::Timestamp;

/// Which tiers a stack under test has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tiers {
    /// Memory alone.
    L1,
    /// A store alone.
    L2,
    /// Both.
    Both,
}

impl Tiers {
    /// Every choice there is.
    pub const ALL: [Self; 3] = [Self::L1, Self::L2, Self::Both];

    /// Whether there is a store.
    pub fn has_store(self) -> bool {
        self != Self::L1
    }
}

/// Every event, as one line of text each, in order.
#[derive(Debug, Default)]
pub struct Recorder {
    lines: Mutex<Vec<String>>,
    lookups: AtomicU64,
}

impl Recorder {
    /// The lines so far: `hit L1 k`, `hit L2 k stale`, `miss k`, `written k`, and so on.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().clone()
    }

    /// The lines so far, which are then forgotten.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.lines.lock())
    }

    /// How many lookups have ended.
    pub fn lookups(&self) -> u64 {
        self.lookups.load(Ordering::Relaxed)
    }
}

impl Observer for Recorder {
    fn on_event(&self, _stack: &str, event: &Event<'_>) {
        let name = |namespace: &str, key: &str| match namespace {
            "" => key.to_owned(),
            namespace => format!("{namespace}:{key}"),
        };
        let line = match *event {
            Event::Hit { namespace, key, tier, stale } => {
                self.lookups.fetch_add(1, Ordering::Relaxed);
                format!("hit {tier} {}{}", name(namespace, key), if stale { " stale" } else { "" })
            }
            Event::Miss { namespace, key } => {
                self.lookups.fetch_add(1, Ordering::Relaxed);
                format!("miss {}", name(namespace, key))
            }
            Event::Loaded { namespace, key, .. } => format!("loaded {}", name(namespace, key)),
            Event::LoadFailed { namespace, key, .. } => format!("load failed {}", name(namespace, key)),
            Event::LoadReplaced { namespace, key, .. } => format!("load replaced {}", name(namespace, key)),
            Event::AheadFull { namespace, key } => format!("ahead full {}", name(namespace, key)),
            Event::LoadSuperseded { namespace, key } => format!("load superseded {}", name(namespace, key)),
            Event::Written { namespace, key, .. } => format!("written {}", name(namespace, key)),
            Event::Deleted { namespace, key, .. } => format!("deleted {}", name(namespace, key)),
            Event::Expired { namespace, key } => format!("expired {}", name(namespace, key)),
            Event::Cleared { namespace } => format!("cleared {namespace}"),
            Event::TagInvalidated { namespace, tag, soft } => {
                format!("invalidated {}{}", name(namespace, tag), if soft { " soft" } else { "" })
            }
            Event::Evicted { namespace, key, cause } => format!("evicted {} {cause:?}", name(namespace, key)),
            Event::L2Failed { operation, error, suppressed } => {
                format!(
                    "store failed {operation} {}{}",
                    error.kind(),
                    if suppressed { " suppressed" } else { "" }
                )
            }
            Event::L2Refused { operation, suppressed } => {
                format!("breaker refused {operation}{}", if suppressed { " suppressed" } else { "" })
            }
            Event::BreakerOpened { pause } => format!("breaker opened {pause:?}"),
            Event::BreakerClosed => "breaker closed".to_owned(),
            Event::FailedWrite { namespace, write, fate } => {
                let fate = match fate {
                    Fate::Remembered => "remembered".to_owned(),
                    Fate::Landed => "landed".to_owned(),
                    Fate::Yielded => "yielded".to_owned(),
                    Fate::Dropped(cause) => format!("dropped {cause:?}"),
                };
                match write {
                    Subject::Key(key) => format!("retry {} {fate}", name(namespace, key)),
                    Subject::Tag(tag) => format!("retry tag {} {fate}", name(namespace, tag)),
                    Subject::All => format!("retry clear {namespace} {fate}"),
                }
            }
            Event::Damaged { namespace, key, damage } => format!("damaged {} {damage}", name(namespace, key)),
            Event::Undecodable { namespace, key, .. } => format!("undecodable {}", name(namespace, key)),
            // Said before anything happens, and kept: see `Stack::advice`.
            Event::Advised { .. } => return,
        };
        self.lines.lock().push(line);
    }
}

/// A stack under test.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use larder::testing::{Harness, Tiers};
/// use larder::time::seconds;
///
/// let harness = Harness::new(Tiers::Both);
/// let cache = harness.stack.cache::<u32>()?;
/// cache.set("a", 1).ttl(seconds(5)).await?;
/// harness.clock.advance(seconds(5));
/// assert_eq!(cache.get("a").await?, None);
/// assert_eq!(harness.recorder.lines(), ["written a", "evicted a Expired", "miss a"]);
/// harness.finish(1).await;
/// # Ok::<(), larder::Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Harness {
    /// The stack.
    pub stack: Stack,
    /// Its clock.
    pub clock: ManualClock,
    /// Everything that it reported.
    pub recorder: Arc<Recorder>,
    /// Its store's faults; without a store they reach nothing.
    pub chaos: ChaosHandle,
    /// The store itself, below the faults, to be shared with another harness.
    pub store: MemoryDriver,
}

impl Harness {
    /// A stack named `test` with these tiers, at 2026-01-01, over a store in memory.
    pub fn new(tiers: Tiers) -> Self {
        Self::with(tiers, |builder| builder)
    }

    /// As [`Harness::new`], with more said to the builder.
    pub fn with(tiers: Tiers, build: impl FnOnce(StackBuilder) -> StackBuilder) -> Self {
        let clock = ManualClock::new(Timestamp::from_millis(1_767_225_600_000));
        let store = MemoryDriver::with_clock(MemoryOptions::default(), Arc::new(clock.clone()));
        Self::over(tiers, clock, store, build)
    }

    /// A stack over a clock and a store that others may share: another process, so to speak.
    #[expect(clippy::expect_used, reason = "a harness that cannot be built is a mistake in the test")]
    pub fn over(
        tiers: Tiers,
        clock: ManualClock,
        store: MemoryDriver,
        build: impl FnOnce(StackBuilder) -> StackBuilder,
    ) -> Self {
        let recorder = Arc::new(Recorder::default());
        let chaos = Chaos::new(store.clone());
        let handle = chaos.handle();
        let mut builder = Stack::builder("test").clock(Arc::new(clock.clone()));
        builder = builder.observer(Arc::clone(&recorder) as Arc<dyn Observer>);
        if tiers != Tiers::L2 {
            builder = builder.memory(MemoryOptions::default());
        }
        if tiers.has_store() {
            builder = builder.store(chaos);
        }
        let stack = build(builder).build().expect("the harness builds a stack that makes sense");
        Self { stack, clock, recorder, chaos: handle, store }
    }

    /// Checks the books: no load or read is left, memory's weights add up, and every one of `lookups` lookups
    /// was counted as exactly one hit or one miss.
    ///
    /// # Panics
    /// If they are not in order.
    #[expect(clippy::panic, reason = "this is an assertion")]
    pub async fn finish(self, lookups: u64) {
        for _ in 0..100 {
            // Tasks whose callers are gone get the chance to end.
            if self.stack.check_invariants().is_ok() {
                break;
            }
            tokio::task::yield_now().await;
        }
        if let Err(problem) = self.stack.check_invariants() {
            panic!("{problem}");
        }
        assert_eq!(self.recorder.lookups(), lookups, "hits and misses, as events, against lookups");
        assert_eq!(self.stack.stats().lookups(), lookups, "hits and misses, as counts, against lookups");
    }
}
