//! A driver that fails, delays, stalls, holds, loses and lies on command, and is transparent otherwise.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::driver::{Capabilities, Driver, Scanned, When, Write, Written};
use crate::error::{Error, ErrorKind, Result};
use crate::time::Stamp;

/// A method of [`Driver`], as [`ChaosHandle`] names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// [`Driver::get`].
    Get,
    /// [`Driver::set`].
    Set,
    /// [`Driver::delete`].
    Delete,
    /// [`Driver::get_many`].
    GetMany,
    /// [`Driver::set_many`].
    SetMany,
    /// [`Driver::delete_many`].
    DeleteMany,
    /// [`Driver::scan`].
    Scan,
    /// [`Driver::clear`].
    Clear,
    /// [`Driver::prune`].
    Prune,
    /// [`Driver::ping`].
    Ping,
    /// [`Driver::close`].
    Close,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Get,
        Self::Set,
        Self::Delete,
        Self::GetMany,
        Self::SetMany,
        Self::DeleteMany,
        Self::Scan,
        Self::Clear,
        Self::Prune,
        Self::Ping,
        Self::Close,
    ];
}

/// A driver around another that does what its [`ChaosHandle`] says. Told nothing, it is transparent.
///
/// Faults are looked at when a call is first polled, in this order: it is counted, it stalls, it waits, it
/// fails. A batch is one call of its own kind.
#[derive(Debug)]
pub struct Chaos<D> {
    driver: D,
    handle: ChaosHandle,
}

impl<D: Driver> Chaos<D> {
    /// A transparent driver around `driver`, until its handle says otherwise.
    pub fn new(driver: D) -> Self {
        Self { driver, handle: ChaosHandle::default() }
    }

    /// What this driver is commanded by. Cheap to clone.
    pub fn handle(&self) -> ChaosHandle {
        self.handle.clone()
    }
}

/// Commands a [`Chaos`] driver and counts its calls. Clones command the same driver.
///
/// ```
/// use larder::ErrorKind;
/// use larder::testing::{ChaosHandle, Operation};
/// # fn example(chaos: ChaosHandle) {
/// chaos.fail_next(Operation::Get, 2, ErrorKind::Unavailable);
/// chaos.stall(Operation::Set);
/// // … use the store …
/// assert_eq!(chaos.calls(Operation::Get), 2);
/// chaos.heal();
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct ChaosHandle(Arc<Shared>);

#[derive(Default)]
struct Shared {
    script: Mutex<Script>,
    /// Woken whenever a stall ends.
    released: Notify,
}

#[derive(Debug, Default)]
struct Script {
    calls: HashMap<Operation, u64>,
    faults: HashMap<Operation, Faults>,
    lies: HashMap<String, Option<Bytes>>,
    loses_writes: bool,
    holds_writes: bool,
    held: Vec<Write>,
}

#[derive(Debug, Clone, Default)]
struct Faults {
    stalled: bool,
    delay: Option<Duration>,
    failure: Option<Failure>,
}

#[derive(Debug, Clone, Copy)]
struct Failure {
    kind: ErrorKind,
    /// How many calls more; `None` is all.
    left: Option<u64>,
    /// Whether the operation is carried out before it is said to have failed.
    lands: bool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("script", &*self.script.lock()).finish_non_exhaustive()
    }
}

impl ChaosHandle {
    /// How often an operation was begun, failed ones included.
    pub fn calls(&self, operation: Operation) -> u64 {
        self.0.script.lock().calls.get(&operation).copied().unwrap_or(0)
    }

    /// How often any operation was begun.
    pub fn calls_total(&self) -> u64 {
        self.0.script.lock().calls.values().sum()
    }

    /// Counts from zero again.
    pub fn reset_calls(&self) {
        self.0.script.lock().calls.clear();
    }

    /// Fails the next `times` calls of an operation without carrying them out.
    pub fn fail_next(&self, operation: Operation, times: u64, kind: ErrorKind) {
        self.change(operation, |faults| {
            faults.failure = Some(Failure { kind, left: Some(times), lands: false });
        });
    }

    /// Carries out the next `times` calls of an operation and then says that they failed, as a store does whose
    /// answer is lost.
    pub fn fail_next_after_landing(&self, operation: Operation, times: u64, kind: ErrorKind) {
        self.change(operation, |faults| {
            faults.failure = Some(Failure { kind, left: Some(times), lands: true })
        });
    }

    /// Fails every call of an operation until healed.
    pub fn fail_all(&self, operation: Operation, kind: ErrorKind) {
        self.change(operation, |faults| faults.failure = Some(Failure { kind, left: None, lands: false }));
    }

    /// Fails every call of every operation until healed: a store that is down.
    pub fn fail_everything(&self, kind: ErrorKind) {
        for operation in Operation::ALL {
            self.fail_all(operation, kind);
        }
    }

    /// Lets every call of an operation wait this long, by tokio's clock, before it is carried out.
    pub fn delay(&self, operation: Operation, by: Duration) {
        self.change(operation, |faults| faults.delay = Some(by));
    }

    /// Holds every call of an operation before it is carried out, until released or healed.
    pub fn stall(&self, operation: Operation) {
        self.change(operation, |faults| faults.stalled = true);
    }

    /// Lets the stalled calls of an operation go on, and no more stall.
    pub fn release(&self, operation: Operation) {
        self.change(operation, |faults| faults.stalled = false);
        self.0.released.notify_waiters();
    }

    /// Lets `set`, `delete` and their batches report what they would have done, without doing it.
    pub fn lose_writes(&self) {
        self.0.script.lock().loses_writes = true;
    }

    /// Lets no `set` and no batch of them answer from here on, and keeps what they would have written: a store
    /// that has heard of a write and is slow. The caller gives up at its deadline; the write may still come.
    pub fn hold_writes(&self) {
        self.0.script.lock().holds_writes = true;
    }

    /// The writes that were held, in order, to be carried out by the store below in whatever order a test wants.
    pub fn take_held_writes(&self) -> Vec<Write> {
        std::mem::take(&mut self.0.script.lock().held)
    }

    /// Answers every read of a key with these bytes, or with nothing, whatever is stored.
    pub fn lie(&self, key: impl Into<String>, answer: Option<Bytes>) {
        self.0.script.lock().lies.insert(key.into(), answer);
    }

    /// Ends every fault and releases every stalled call. Counters stay, and so do writes that were held.
    pub fn heal(&self) {
        let mut script = self.0.script.lock();
        let Script { calls, held, .. } = std::mem::take(&mut *script);
        *script = Script { calls, held, ..Script::default() };
        drop(script);
        self.0.released.notify_waiters();
    }

    fn change(&self, operation: Operation, change: impl FnOnce(&mut Faults)) {
        change(self.0.script.lock().faults.entry(operation).or_default());
    }

    fn loses_writes(&self) -> bool {
        self.0.script.lock().loses_writes
    }

    /// Keeps some writes and never answers, if that is what was commanded.
    async fn hold(&self, writes: &[Write]) {
        {
            let mut script = self.0.script.lock();
            if !script.holds_writes {
                return;
            }
            script.held.extend_from_slice(writes);
        }
        std::future::pending().await
    }

    fn lied(&self, key: &str) -> Option<Option<Bytes>> {
        self.0.script.lock().lies.get(key).cloned()
    }

    /// Counts a call and lets it suffer. `Ok(Some(error))`: carry it out, then fail with this.
    async fn enter(&self, operation: Operation) -> Result<Option<Error>> {
        *self.0.script.lock().calls.entry(operation).or_default() += 1;
        loop {
            let mut released = std::pin::pin!(self.0.released.notified());
            // Registered before looking, so that a release in between is not missed.
            released.as_mut().enable();
            if !self.faults(operation).stalled {
                break;
            }
            released.await;
        }
        if let Some(delay) = self.faults(operation).delay {
            tokio::time::sleep(delay).await;
        }
        match self.take_failure(operation) {
            Some(Failure { kind, lands, .. }) => {
                let error = Error::new(kind, format!("chaos was told to fail {operation:?}"));
                if lands { Ok(Some(error)) } else { Err(error) }
            }
            None => Ok(None),
        }
    }

    fn faults(&self, operation: Operation) -> Faults {
        self.0.script.lock().faults.get(&operation).cloned().unwrap_or_default()
    }

    fn take_failure(&self, operation: Operation) -> Option<Failure> {
        let mut script = self.0.script.lock();
        let failure = script.faults.get_mut(&operation)?.failure.as_mut()?;
        if let Some(left) = &mut failure.left {
            *left = left.checked_sub(1)?;
        }
        Some(*failure)
    }
}

/// The answer of an operation that was carried out, unless it is to be said to have failed.
fn leave<T>(failure: Option<Error>, answer: Result<T>) -> Result<T> {
    failure.map_or(answer, Err)
}

impl<D: Driver> Chaos<D> {
    async fn set_inner(&self, write: Write) -> Result<Written> {
        let Write { key, value, ttl, when } = write;
        if self.handle.loses_writes() {
            let stored = self.driver.get(&key).await?;
            return Ok(when.outcome(stored.as_deref(), &value));
        }
        self.driver.set(&key, value, ttl, when).await
    }

    async fn count_present(&self, keys: &[&str]) -> Result<u64> {
        let unique: std::collections::HashSet<&str> = keys.iter().copied().collect();
        let unique: Vec<&str> = unique.into_iter().collect();
        let found = self.driver.get_many(&unique).await?;
        Ok(found.iter().filter(|found| found.is_some()).count() as u64)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<D: Driver> Driver for Chaos<D> {
    fn name(&self) -> &'static str {
        self.driver.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.driver.capabilities()
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        let failure = self.handle.enter(Operation::Get).await?;
        let answer = match self.handle.lied(key) {
            Some(lie) => Ok(lie),
            None => self.driver.get(key).await,
        };
        leave(failure, answer)
    }

    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>, when: When) -> Result<Written> {
        let failure = self.handle.enter(Operation::Set).await?;
        let write = Write { key: key.to_owned(), value, ttl, when };
        self.handle.hold(std::slice::from_ref(&write)).await;
        leave(failure, self.set_inner(write).await)
    }

    async fn delete(&self, key: &str) -> Result<bool> {
        let failure = self.handle.enter(Operation::Delete).await?;
        let answer = if self.handle.loses_writes() {
            self.count_present(&[key]).await.map(|count| count > 0)
        } else {
            self.driver.delete(key).await
        };
        leave(failure, answer)
    }

    async fn get_many(&self, keys: &[&str]) -> Result<Vec<Option<Bytes>>> {
        let failure = self.handle.enter(Operation::GetMany).await?;
        let mut answer = self.driver.get_many(keys).await;
        if let Ok(found) = &mut answer {
            for (key, found) in keys.iter().zip(found) {
                if let Some(lie) = self.handle.lied(key) {
                    *found = lie;
                }
            }
        }
        leave(failure, answer)
    }

    async fn set_many(&self, writes: Vec<Write>) -> Result<Vec<Written>> {
        let failure = self.handle.enter(Operation::SetMany).await?;
        self.handle.hold(&writes).await;
        if !self.handle.loses_writes() {
            return leave(failure, self.driver.set_many(writes).await);
        }
        let mut written = Vec::with_capacity(writes.len());
        for write in writes {
            written.push(self.set_inner(write).await?);
        }
        leave(failure, Ok(written))
    }

    async fn delete_many(&self, keys: &[&str]) -> Result<u64> {
        let failure = self.handle.enter(Operation::DeleteMany).await?;
        let answer = if self.handle.loses_writes() {
            self.count_present(keys).await
        } else {
            self.driver.delete_many(keys).await
        };
        leave(failure, answer)
    }

    fn scan<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Scanned>> {
        let entered = async move { self.handle.enter(Operation::Scan).await };
        let listed = stream::once(entered).flat_map(move |entered| match entered {
            Ok(None) => self.driver.scan(prefix),
            Ok(Some(error)) => self.driver.scan(prefix).chain(stream::iter([Err(error)])).boxed(),
            Err(error) => stream::iter([Err(error)]).boxed(),
        });
        listed.boxed()
    }

    async fn clear(&self, prefix: &str, until: Stamp) -> Result<u64> {
        let failure = self.handle.enter(Operation::Clear).await?;
        leave(failure, self.driver.clear(prefix, until).await)
    }

    async fn prune(&self) -> Result<u64> {
        let failure = self.handle.enter(Operation::Prune).await?;
        leave(failure, self.driver.prune().await)
    }

    async fn version(&self) -> Result<Option<String>> {
        self.driver.version().await
    }

    async fn ping(&self) -> Result<()> {
        let failure = self.handle.enter(Operation::Ping).await?;
        leave(failure, self.driver.ping().await)
    }

    async fn close(&self) -> Result<()> {
        let failure = self.handle.enter(Operation::Close).await?;
        leave(failure, self.driver.close().await)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::time::seconds;

    #[derive(Debug, Default)]
    struct Map(Mutex<BTreeMap<String, Bytes>>);

    #[async_trait]
    impl Driver for Map {
        fn name(&self) -> &'static str {
            "map"
        }
        async fn get(&self, key: &str) -> Result<Option<Bytes>> {
            Ok(self.0.lock().get(key).cloned())
        }
        async fn set(&self, key: &str, value: Bytes, _: Option<Duration>, when: When) -> Result<Written> {
            let mut map = self.0.lock();
            let outcome = when.outcome(map.get(key).map(|stored| &stored[..]), &value);
            if let Written::Stored { .. } = outcome {
                map.insert(key.to_owned(), value);
            }
            Ok(outcome)
        }
        async fn delete(&self, key: &str) -> Result<bool> {
            Ok(self.0.lock().remove(key).is_some())
        }
    }

    fn chaos() -> (Arc<Chaos<Map>>, ChaosHandle) {
        let chaos = Chaos::new(Map::default());
        let handle = chaos.handle();
        (Arc::new(chaos), handle)
    }

    async fn put(chaos: &Chaos<Map>, key: &str, value: &'static str) -> Result<Written> {
        chaos.set(key, Bytes::from_static(value.as_bytes()), None, When::Always).await
    }

    crate::driver_suite!(told_nothing, async || Chaos::new(Map::default()));
    crate::driver_suite!(behind_a_pointer, async || Arc::new(Map::default()) as Arc<dyn Driver>);

    #[tokio::test]
    async fn a_failure_ends_after_as_many_calls_as_were_named() {
        let (chaos, handle) = chaos();
        handle.fail_next(Operation::Get, 2, ErrorKind::Timeout);
        for _ in 0..2 {
            assert_eq!(chaos.get("k").await.unwrap_err().kind(), ErrorKind::Timeout);
        }
        assert_eq!(chaos.get("k").await.unwrap(), None);
        assert_eq!((handle.calls(Operation::Get), handle.calls_total()), (3, 3));
    }

    #[tokio::test]
    async fn a_store_that_is_down_is_up_again_when_healed() {
        let (chaos, handle) = chaos();
        handle.fail_everything(ErrorKind::Unavailable);
        assert!(chaos.ping().await.is_err() && put(&chaos, "k", "v").await.is_err());
        assert!(chaos.scan("").next().await.unwrap().is_err());
        handle.heal();
        put(&chaos, "k", "v").await.unwrap();
        chaos.ping().await.unwrap();
    }

    #[tokio::test]
    async fn a_write_may_land_and_be_said_to_have_failed() {
        let (chaos, handle) = chaos();
        handle.fail_next_after_landing(Operation::Set, 1, ErrorKind::Timeout);
        assert!(put(&chaos, "k", "v").await.is_err());
        assert_eq!(chaos.get("k").await.unwrap().as_deref(), Some(&b"v"[..]));
    }

    #[tokio::test]
    async fn lost_writes_are_reported_and_not_done() {
        let (chaos, handle) = chaos();
        put(&chaos, "k", "v").await.unwrap();
        handle.lose_writes();
        put(&chaos, "k", "other").await.unwrap();
        assert!(chaos.delete("k").await.unwrap());
        assert_eq!(chaos.delete_many(&["k", "k", "x"]).await.unwrap(), 1);
        assert_eq!(chaos.get("k").await.unwrap().as_deref(), Some(&b"v"[..]));
    }

    #[tokio::test]
    async fn a_held_write_never_answers_and_can_be_carried_out_later() {
        let (chaos, handle) = chaos();
        handle.hold_writes();
        assert!(futures_util::poll!(std::pin::pin!(put(&chaos, "k", "v"))).is_pending());
        assert_eq!(chaos.get("k").await.unwrap(), None);
        handle.heal();
        assert_eq!(chaos.set_many(handle.take_held_writes()).await.unwrap().len(), 1);
        assert_eq!(chaos.get("k").await.unwrap().as_deref(), Some(&b"v"[..]));
        assert!(handle.take_held_writes().is_empty());
    }

    #[tokio::test]
    async fn a_lie_is_told_to_single_and_batch_reads() {
        let (chaos, handle) = chaos();
        put(&chaos, "k", "v").await.unwrap();
        handle.lie("k", None);
        handle.lie("ghost", Some(Bytes::from_static(b"boo")));
        assert_eq!(chaos.get("k").await.unwrap(), None);
        let found = chaos.get_many(&["ghost", "k"]).await.unwrap();
        assert_eq!(found, [Some(Bytes::from_static(b"boo")), None]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stalled_call_waits_for_its_release_and_a_delayed_one_for_its_time() {
        let (chaos, handle) = chaos();
        handle.stall(Operation::Get);
        handle.delay(Operation::Get, seconds(5));
        let call = tokio::spawn({
            let chaos = Arc::clone(&chaos);
            async move { chaos.get("k").await }
        });
        tokio::time::sleep(seconds(1_000)).await;
        assert!(!call.is_finished());
        handle.release(Operation::Get);
        tokio::time::sleep(seconds(4)).await;
        assert!(!call.is_finished());
        tokio::time::sleep(seconds(2)).await;
        assert!(call.is_finished());
    }
}
