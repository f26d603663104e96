//! The memory driver: a store inside this process, on the engine of the memory tier.
//!
//! For tests, for programs of one process, and as a second tier that several stacks share. It knows of what it
//! stores no more than any driver does: the stamp.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};

use crate::driver::{Capabilities, Driver, Scanned, When, Written, check_prefix, head};
use crate::entry::wire::stamp_of;
use crate::error::{Error, ErrorKind, Result};
use crate::key::KEY_BYTES_MAX;
use crate::memory::{Engine, Lookup, MemoryOptions, Put};
use crate::time::{Clock, Stamp, SystemClock, Timestamp};

/// A store in the memory of this process, bounded by its [`MemoryOptions`].
///
/// Clones share one store, so that two stacks of one process can. What it evicts to stay within its limits is
/// gone without notice, as in any store that forgets.
///
/// ```
/// use larder::driver::{Driver, When, memory::MemoryDriver};
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let store = MemoryDriver::default();
/// store.set("app:1::42", "bytes".into(), None, When::Always).await?;
/// assert_eq!(store.clone().get("app:1::42").await?.as_deref(), Some(&b"bytes"[..]));
/// # Ok::<(), larder::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct MemoryDriver {
    store: Arc<Store>,
}

struct Store {
    engine: Engine<Box<str>, Kept>,
    clock: Arc<dyn Clock>,
}

#[derive(Clone)]
struct Kept {
    value: Bytes,
    until: Timestamp,
}

impl Kept {
    fn is_over(&self, now: Timestamp) -> bool {
        self.until != Timestamp::FOREVER && self.until <= now
    }
}

impl Lookup<Box<str>> for &str {
    fn names(&self, key: &Box<str>) -> bool {
        **self == **key
    }
}

impl Default for MemoryDriver {
    fn default() -> Self {
        Self::new(MemoryOptions::default())
    }
}

impl MemoryDriver {
    /// An empty store whose entries expire by the machine's clock.
    ///
    /// ```
    /// use larder::{driver::memory::MemoryDriver, memory::MemoryOptions};
    /// let store = MemoryDriver::new(MemoryOptions::new(1_000));
    /// ```
    pub fn new(options: MemoryOptions) -> Self {
        Self::with_clock(options, Arc::new(SystemClock::default()))
    }

    /// An empty store whose entries expire by a clock of one's own.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use larder::{driver::memory::MemoryDriver, memory::MemoryOptions, time::SystemClock};
    /// let store = MemoryDriver::with_clock(MemoryOptions::default(), Arc::new(SystemClock::default()));
    /// ```
    pub fn with_clock(options: MemoryOptions, clock: Arc<dyn Clock>) -> Self {
        Self { store: Arc::new(Store { engine: Engine::new(options.limits()), clock }) }
    }

    fn now(&self) -> Timestamp {
        self.store.clock.now()
    }
}

impl fmt::Debug for MemoryDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limits = self.store.engine.limits();
        f.debug_struct("MemoryDriver").field("limits", &limits).finish_non_exhaustive()
    }
}

// No method has an await in it: a call that is dropped was made or was not.
#[async_trait]
impl Driver for MemoryDriver {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn capabilities(&self) -> Capabilities {
        let value_bytes_max =
            self.store.engine.entry_bytes_max().map(|bytes| bytes.saturating_sub(KEY_BYTES_MAX as u64));
        Capabilities { enumerates: true, shared: false, persistent: false, value_bytes_max }
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        let Some(kept) = self.store.engine.get(&key) else { return Ok(None) };
        let now = self.now();
        if !kept.is_over(now) {
            return Ok(Some(kept.value));
        }
        // Asked again under the lock: it may have been written since.
        self.store.engine.remove_if(&key, |kept| kept.is_over(now));
        Ok(None)
    }

    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>, when: When) -> Result<Written> {
        let now = self.now();
        let until = ttl.map_or(Timestamp::FOREVER, |ttl| now + ttl);
        let length = value.len();
        let bytes = (key.len() as u64).saturating_add(length as u64);
        let mut outcome = None;
        let kept = Kept { value: value.clone(), until };
        let put = self.store.engine.insert_if(key.into(), kept, bytes, &mut Vec::new(), |current| {
            let stored = current.filter(|kept| !kept.is_over(now)).map(|kept| &*kept.value);
            let written = outcome.insert(when.outcome(stored, &value));
            matches!(written, Written::Stored { .. })
        });
        match (put, outcome) {
            (Put::TooLarge { .. }, _) => Err(Error::new(
                ErrorKind::TooLarge,
                format!("cannot keep a value of {length} bytes in memory: it is more than a limit allows"),
            )),
            (_, Some(written)) => Ok(written),
            // The engine always asks; if it had not, nothing would be stored.
            (_, None) => Ok(Written::Refused { by: None }),
        }
    }

    async fn delete(&self, key: &str) -> Result<bool> {
        let removed = self.store.engine.remove_if(&key, |_| true);
        Ok(removed.is_some_and(|(_, kept)| !kept.is_over(self.now())))
    }

    fn scan<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Scanned>> {
        let now = self.now();
        let mut found = Vec::new();
        self.store.engine.for_each(|key, kept| {
            if key.starts_with(prefix) && !kept.is_over(now) {
                found.push(Ok(Scanned { key: key.to_string(), head: head(&kept.value) }));
            }
        });
        stream::iter(found).boxed()
    }

    async fn clear(&self, prefix: &str, until: Stamp) -> Result<u64> {
        check_prefix(prefix)?;
        let now = self.now();
        // Asked again under the lock: it may have been written since.
        let stays = |kept: &Kept| stamp_of(&kept.value) > Some(until);
        let removed = self.store.engine.retain(|key, kept| !key.starts_with(prefix) || stays(kept));
        Ok(removed.iter().filter(|(_, kept)| !kept.is_over(now)).count() as u64)
    }

    async fn prune(&self) -> Result<u64> {
        let now = self.now();
        Ok(self.store.engine.retain(|_, kept| !kept.is_over(now)).len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    use crate::entry::wire::encode_tombstone;
    use crate::time::seconds;

    #[derive(Debug, Default)]
    struct Hand(AtomicU64);

    impl Clock for Hand {
        fn now(&self) -> Timestamp {
            Timestamp::from_millis(self.0.load(Ordering::Relaxed))
        }
        fn monotonic(&self) -> Duration {
            Duration::ZERO
        }
    }

    fn stamped(stamp: u64) -> Bytes {
        encode_tombstone(Stamp::from_bits(stamp), Timestamp::FOREVER)
    }

    fn at_hand() -> (Arc<Hand>, MemoryDriver) {
        let hand = Arc::new(Hand::default());
        (hand.clone(), MemoryDriver::with_clock(MemoryOptions::new(100), hand))
    }

    async fn keys(driver: &MemoryDriver, prefix: &str) -> Vec<String> {
        let mut keys: Vec<String> = driver.scan(prefix).map(|found| found.unwrap().key).collect().await;
        keys.sort_unstable();
        keys
    }

    #[tokio::test]
    async fn clones_share_one_store() {
        let driver = MemoryDriver::default();
        driver.clone().set("a", stamped(1), None, When::Always).await.unwrap();
        assert_eq!(driver.get("a").await.unwrap(), Some(stamped(1)));
        assert!(driver.clone().delete("a").await.unwrap() && !driver.delete("a").await.unwrap());
    }

    #[tokio::test]
    async fn a_value_that_is_over_is_gone_for_every_method() {
        let (hand, driver) = at_hand();
        let set = |key| driver.set(key, stamped(9), Some(seconds(1)), When::Always);
        for key in ["a", "b", "c", "d"] {
            set(key).await.unwrap();
        }
        driver.set("e", stamped(9), None, When::Always).await.unwrap();
        hand.0.store(999, Ordering::Relaxed);
        assert!(driver.get("a").await.unwrap().is_some() && keys(&driver, "").await.len() == 5);
        hand.0.store(1_000, Ordering::Relaxed);
        assert_eq!(keys(&driver, "").await, ["e"]);
        assert!(driver.get("a").await.unwrap().is_none() && !driver.delete("b").await.unwrap());
        let written = driver.set("c", stamped(1), None, When::Unchanged(None)).await.unwrap();
        assert_eq!(written, Written::Stored { previous: None });
        assert_eq!(driver.prune().await.unwrap(), 1, "d is left to prune");
        assert_eq!(keys(&driver, "").await, ["c", "e"]);
    }

    #[tokio::test]
    async fn the_longest_ttl_is_no_overflow() {
        let (hand, driver) = at_hand();
        hand.0.store(u64::MAX - 1, Ordering::Relaxed);
        driver.set("a", stamped(1), Some(Duration::MAX), When::Always).await.unwrap();
        assert!(driver.get("a").await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_clear_touches_no_neighbour_and_wants_a_prefix() {
        let driver = MemoryDriver::default();
        for key in ["users", "users:1", "usersAbc", "user", "Users", "us%rs", "us*", "my users:1"] {
            driver.set(key, stamped(1), None, When::Always).await.unwrap();
        }
        assert_eq!(driver.clear("", Stamp::MAX).await.unwrap_err().kind(), ErrorKind::Config);
        assert_eq!(driver.clear("users:", Stamp::MAX).await.unwrap(), 1);
        assert_eq!(driver.clear("us*", Stamp::MAX).await.unwrap(), 1);
        let left = ["Users", "my users:1", "us%rs", "user", "users", "usersAbc"];
        assert_eq!(keys(&driver, "").await, left);
        assert_eq!(keys(&driver, "user").await, ["user", "users", "usersAbc"]);
    }

    #[tokio::test]
    async fn a_clear_takes_what_has_no_stamp() {
        let driver = MemoryDriver::default();
        for (key, value) in
            [("a:short", stamped(1).slice(..11)), ("a:none", Bytes::new()), ("a:1", stamped(1))]
        {
            driver.set(key, value, None, When::Always).await.unwrap();
        }
        assert_eq!(driver.clear("a:", Stamp::ZERO).await.unwrap(), 2);
        assert_eq!(keys(&driver, "").await, ["a:1"]);
    }

    #[tokio::test]
    async fn of_two_writers_the_newer_stamp_wins_every_round() {
        let driver = MemoryDriver::default();
        for round in 0..1_000_u64 {
            let key = format!("k{}", round % 7);
            let base = 2 * round + 1;
            std::thread::scope(|scope| {
                for stamp in [base, base + 1] {
                    let (driver, key) = (&driver, &key);
                    scope.spawn(move || {
                        let write = driver.set(key, stamped(stamp), None, When::Newer);
                        futures_util::FutureExt::now_or_never(write).unwrap().unwrap();
                    });
                }
            });
            assert_eq!(driver.get(&key).await.unwrap(), Some(stamped(base + 1)));
        }
    }

    #[tokio::test]
    async fn of_many_swaps_against_one_stamp_exactly_one_succeeds() {
        let driver = MemoryDriver::default();
        driver.set("k", stamped(1), None, When::Always).await.unwrap();
        let swap = |stamp: u64| {
            let when = When::Unchanged(Some(Stamp::from_bits(1)));
            let write = driver.set("k", stamped(stamp), None, when);
            let written = futures_util::FutureExt::now_or_never(write).unwrap().unwrap();
            matches!(written, Written::Stored { .. }).then_some(stamp)
        };
        let swap = &swap;
        let won: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> = (2..10).map(|stamp| scope.spawn(move || swap(stamp))).collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
        });
        let [winner] = won[..] else { panic!("{} of 8 succeeded", won.len()) };
        assert_eq!(driver.get("k").await.unwrap(), Some(stamped(winner)));
    }

    #[tokio::test]
    async fn a_value_over_the_limit_is_an_error_and_takes_the_previous_one_along() {
        let mut options = MemoryOptions::new(100);
        options.max_entry_bytes = Some(10_000);
        let driver = MemoryDriver::new(options);
        let largest = driver.capabilities().value_bytes_max.unwrap() as usize;
        let key = "k".repeat(KEY_BYTES_MAX);
        driver.set(&key, vec![7; largest].into(), None, When::Always).await.unwrap();
        let error = driver.set(&key, vec![7; largest + 1].into(), None, When::Always).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        assert_eq!(driver.get(&key).await.unwrap(), None);
    }

    #[tokio::test]
    async fn it_stays_within_its_limit() {
        let driver = MemoryDriver::new(MemoryOptions::new(3));
        for key in 0..50 {
            driver.set(&key.to_string(), stamped(1), None, When::Always).await.unwrap();
        }
        assert_eq!(keys(&driver, "").await.len(), 3);
    }
}
