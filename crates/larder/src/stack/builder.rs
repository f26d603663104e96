//! From parts to a stack.

use std::fmt;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Weak};
use std::time::Duration;

use foldhash::quality::RandomState;

use crate::advisor::{Facts, MemoryFacts, StoreFacts, advise};
use crate::codec::CodecName;
use crate::driver::Driver;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Observer};
use crate::memory::{Memory, MemoryOptions};
use crate::options::{EntryOptions, Refresh};
use crate::stack::ahead::Aheads;
use crate::stack::breaker::{Breaker, BreakerOptions};
use crate::stack::flights::{FLIGHTS_MAX, Flights};
use crate::stack::l2::{DEADLINE_DEFAULT, L2, Ownership};
use crate::stack::lease::Leases;
use crate::stack::rest::Rests;
use crate::stack::retry::{RecoveryOptions, Retry};
use crate::stack::space::Spaces;
use crate::stack::{Core, Stack};
use crate::stats::{Groups, Pattern, Stats};
use crate::time::{Clock, HybridClock, SystemClock, hours};

/// How long a load may take and still be kept, unless the builder says otherwise.
pub(crate) const LOAD_MAX_DEFAULT: Duration = hours(1);
/// The largest encoded value, in bytes, unless the builder says otherwise.
pub(crate) const VALUE_BYTES_MAX_DEFAULT: u64 = 64 << 20;
/// Rewrites of different keys that share a lock cost each other a wait, nothing more.
const UPDATE_STRIPES: usize = 64;

/// Tells the advisor what the options of entries are.
pub(crate) fn tell_options(options: &EntryOptions, facts: &mut Facts) {
    facts.grace = options.grace_or_default();
    facts.soft_timeout = options.soft_timeout;
    facts.hard_timeout = options.hard_timeout;
    facts.jitter = options.jitter.unwrap_or_default();
    facts.memory_ttl = options.memory_ttl;
    facts.across_processes = options.across_processes;
    facts.replace_after = options.replace_after;
    facts.suppress_l2_errors = options.suppress_l2_errors;
    if let Some(Refresh::Sliding { idle }) = options.refresh {
        facts.sliding = Some(idle);
    }
}

/// Parts of a [`Stack`], to be chosen in any order.
///
/// ```
/// use larder::{EntryOptions, Stack, driver::memory::MemoryDriver, memory::MemoryOptions, time::{hours, minutes}};
///
/// let stack = Stack::builder("users")
///     .memory(MemoryOptions::new(10_000))
///     .store(MemoryDriver::default())
///     .options(EntryOptions::default().ttl(minutes(5)).grace(hours(6)))
///     .build()?;
/// assert_eq!(stack.name(), "users");
/// # Ok::<(), larder::Error>(())
/// ```
#[must_use]
pub struct StackBuilder {
    name: String,
    memory: Option<MemoryOptions>,
    driver: Option<(Arc<dyn Driver>, Ownership)>,
    prefix: Option<String>,
    options: EntryOptions,
    codec: CodecName,
    /// `None` is the default, which nobody chose.
    deadline: Option<Duration>,
    breaker: Option<BreakerOptions>,
    /// The outer `None` is "not said".
    recovery: Option<Option<RecoveryOptions>>,
    /// As `deadline`.
    value_bytes_max: Option<u64>,
    load_max: Duration,
    loads_max: usize,
    clock: Arc<dyn Clock>,
    observers: Vec<Arc<dyn Observer>>,
    groups: Vec<(String, String)>,
    /// What is known of the store beyond what its driver says.
    store_facts: Option<StoreFacts>,
}

impl StackBuilder {
    pub(crate) fn new(name: String) -> Self {
        Self {
            name,
            memory: None,
            driver: None,
            prefix: None,
            options: EntryOptions::default(),
            codec: CodecName::default(),
            deadline: None,
            breaker: Some(BreakerOptions::default()),
            recovery: None,
            value_bytes_max: None,
            load_max: LOAD_MAX_DEFAULT,
            loads_max: FLIGHTS_MAX,
            clock: Arc::new(SystemClock::default()),
            observers: Vec::new(),
            groups: Vec::new(),
            store_facts: None,
        }
    }

    /// Adds a memory tier (L1) within these bounds.
    pub fn memory(mut self, options: MemoryOptions) -> Self {
        self.memory = Some(options);
        self
    }

    /// Adds a store (L2), which is closed with the stack.
    pub fn store(mut self, driver: impl Driver) -> Self {
        self.driver = Some((Arc::new(driver), Ownership::Owned));
        self
    }

    /// Adds a store (L2) that others use as well: it stays open when the stack closes.
    pub fn borrowed_store(mut self, driver: Arc<dyn Driver>) -> Self {
        self.driver = Some((driver, Ownership::Borrowed));
        self
    }

    /// What every key in the store begins with, so that several stacks and applications can share one.
    /// Default: the stack's name. Two stacks with one prefix on one store share their entries.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into());
        self
    }

    /// Options of entries for which neither the call nor the cache says otherwise.
    pub fn options(mut self, options: EntryOptions) -> Self {
        self.options = options.or(&self.options);
        self
    }

    /// The codec of [`Stack::cache`]. Default JSON.
    pub fn codec(mut self, codec: CodecName) -> Self {
        self.codec = codec;
        self
    }

    /// How long one call of the store may take. Default 2 s.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// When calls of the store are refused without asking it, because it has failed several times in a row.
    /// Shared by all namespaces. Default [`BreakerOptions::default`]; `None` is never.
    pub fn breaker(mut self, options: impl Into<Option<BreakerOptions>>) -> Self {
        self.breaker = options.into();
        self
    }

    /// How writes that the store did not take are remembered and tried again. An explicit write that failed
    /// returns its error all the same: other processes do not see it before it lands.
    /// Default [`RecoveryOptions::default`] if the stack has a memory tier; `None` is never.
    pub fn recovery(mut self, options: impl Into<Option<RecoveryOptions>>) -> Self {
        self.recovery = Some(options.into());
        self
    }

    /// The largest encoded value, in bytes. Default 64 MiB. Setting a larger one fails; loading a larger one
    /// gives it to the callers and does not keep it in the store.
    pub fn value_bytes_max(mut self, bytes: u64) -> Self {
        self.value_bytes_max = Some(bytes);
        self
    }

    /// How long a load may take and still be kept. Default 1 h. What a delete leaves behind in the store, so
    /// that no older load can bring the value back, stays as long and a deadline longer.
    pub fn load_max(mut self, longest: Duration) -> Self {
        self.load_max = longest;
        self
    }

    /// How many keys may be loading at once. Default [`FLIGHTS_MAX`]. Beyond it `get_or_set` fails with
    /// [`ErrorKind::Overloaded`].
    pub fn loads_max(mut self, loads: usize) -> Self {
        self.loads_max = loads;
        self
    }

    /// Where time comes from. Default: the machine's clock.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Adds someone who is told of every event.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observers.push(observer);
        self
    }

    /// Adds a group of keys that is counted and timed by itself, under a name: see [`Snapshot::groups`].
    ///
    /// A pattern is a key in which `*` stands for any text: `user:*`, `*:avatar`, or a key itself. Keys in a
    /// namespace are matched as `namespace:key`, nested ones as `outer/inner:key`. The first pattern that matches
    /// wins; keys that none matches are in the group [`OTHER`]. There may be [`GROUPS_MAX`] groups. With any, a
    /// hit in memory costs some nanoseconds more; `docs/observability.md` has the numbers.
    ///
    /// [`Snapshot::groups`]: crate::stats::Snapshot::groups
    /// [`OTHER`]: crate::stats::OTHER
    /// [`GROUPS_MAX`]: crate::stats::GROUPS_MAX
    pub fn group(mut self, name: impl Into<String>, pattern: impl Into<String>) -> Self {
        self.groups.push((name.into(), pattern.into()));
        self
    }

    /// What is known of the store beyond what its driver says, for the advisor.
    #[cfg(feature = "config")]
    pub(crate) fn store_facts(mut self, facts: StoreFacts) -> Self {
        self.store_facts = Some(facts);
        self
    }

    fn facts(&self) -> Facts {
        let ttl = self.options.ttl_or_default();
        let mut facts = Facts::new(ttl, self.deadline.unwrap_or(DEADLINE_DEFAULT), self.load_max);
        facts.memory = self.memory.as_ref().map(|memory| MemoryFacts {
            items_max: memory.max_items,
            bytes_max: memory.max_bytes,
            entry_bytes_max: memory.max_entry_bytes,
        });
        facts.store = self.driver.as_ref().map(|(driver, _)| {
            let capabilities = driver.capabilities();
            let mut store = self.store_facts.clone().unwrap_or_default();
            driver.name().clone_into(&mut store.driver);
            store.shared = Some(capabilities.shared);
            store.value_bytes_max = capabilities.value_bytes_max;
            // One driver, handed to two stacks, is one store.
            store.place.get_or_insert_with(|| format!("{:p}", Arc::as_ptr(driver)));
            store
        });
        tell_options(&self.options, &mut facts);
        facts.deadline = self.deadline;
        facts.value_bytes_max = self.value_bytes_max;
        facts.prefix.clone_from(&self.prefix);
        facts.groups.clone_from(&self.groups);
        facts
    }

    /// The stack.
    ///
    /// Its observers are told at once which of its options contradict each other: see [`Stack::advice`].
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if it has neither a memory tier nor a store, a limit is zero, or a group of keys
    /// makes no sense;
    /// [`ErrorKind::InvalidKey`] if the prefix is too long.
    pub fn build(self) -> Result<Stack> {
        let refuse = |what: &str| Err(Error::new(ErrorKind::Config, format!("stack {:?} {what}", self.name)));
        if self.memory.is_none() && self.driver.is_none() {
            return refuse("has neither a memory tier nor a store: give it at least one");
        }
        if self.memory.as_ref().is_some_and(|memory| memory.max_items == 0) {
            return refuse("has a memory tier of zero items: leave the tier out instead");
        }
        if self.deadline.is_some_and(|deadline| deadline.is_zero()) {
            return refuse("has a store deadline of zero, within which nothing can be done");
        }
        if let Some(fault) = self.breaker.as_ref().and_then(BreakerOptions::fault) {
            return refuse(fault);
        }
        let recovery = match self.recovery {
            Some(recovery) => recovery,
            None => self.memory.is_some().then(RecoveryOptions::default),
        };
        if let Some(fault) = recovery.as_ref().and_then(RecoveryOptions::fault) {
            return refuse(fault);
        }
        if self.loads_max == 0 {
            return refuse("may load zero keys at once, so get_or_set could never load");
        }
        let weighs = self
            .memory
            .as_ref()
            .is_some_and(|memory| memory.max_bytes.is_some() || memory.max_entry_bytes.is_some());
        let spaces = Spaces::new(self.prefix.as_deref().unwrap_or(&self.name))?;
        let facts = self.facts();
        let advice = advise(&facts).into_boxed_slice();
        let (deadline, breaker) = (facts.deadline_effective, self.breaker.map(Breaker::new));
        let l2 = self.driver.map(|(driver, ownership)| L2 { driver, ownership, deadline, breaker });
        let retry = recovery.filter(|_| l2.is_some()).map(Retry::new);
        let stats = Stats::new(groups_of(&self.groups)?);
        let core = |this: &Weak<Core>| Core {
            this: this.clone(),
            name: self.name.into(),
            memory: self.memory.as_ref().map(Memory::new),
            l2,
            retry,
            flights: Flights::new(self.loads_max),
            spaces,
            rests: Rests::default(),
            leases: Leases::default(),
            aheads: Aheads::default(),
            // Processes that started together throw apart.
            throws: AtomicU64::new(RandomState::default().hash_one(std::process::id())),
            writers: super::writers::Writers::default(),
            clock: HybridClock::new(self.clock),
            stats,
            options: self.options,
            codec: self.codec,
            value_bytes_max: self.value_bytes_max.unwrap_or(VALUE_BYTES_MAX_DEFAULT),
            load_max: self.load_max,
            tombstone_ttl: self.load_max.saturating_add(self.deadline.unwrap_or(DEADLINE_DEFAULT)),
            weighs,
            is_observed: !self.observers.is_empty() || !self.groups.is_empty(),
            observers: self.observers.into(),
            facts,
            advice,
            updates: (0..UPDATE_STRIPES).map(|_| tokio::sync::Mutex::new(())).collect(),
            closed: AtomicBool::new(false),
            closing: tokio::sync::Mutex::new(false),
        };
        let core = Arc::new_cyclic(core);
        core.advice.iter().for_each(|advice| core.emit(&Event::Advised { advice }));
        Ok(Stack { core })
    }
}

fn groups_of(groups: &[(String, String)]) -> Result<Option<Groups>> {
    if groups.is_empty() {
        return Ok(None);
    }
    let patterns = groups.iter().map(|(name, pattern)| Pattern::new(name, pattern));
    Groups::new(patterns.collect::<Result<_>>()?).map(Some)
}

impl fmt::Debug for StackBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StackBuilder").field("name", &self.name).finish_non_exhaustive()
    }
}
