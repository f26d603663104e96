//! One load of one key, and everyone who waits for it: with patience, on whose behalf, and never for itself.
//!
//! Which loads there are, and what right they have, is in [`flights`](super::flights). Knows nothing of stores and of how
//! things are loaded.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::entry::{Entry, Extras, Freshness};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Tier;
use crate::stack::space::{Space, Spaces};
use crate::time::Stamp;

/// How many callers may wait for one load.
pub const WAITERS_MAX: usize = 1_000_000;

/// What a load came to, for everyone who waited for it.
#[derive(Debug, Clone)]
pub(crate) struct Landed {
    pub(crate) entry: Entry,
    pub(crate) source: Source,
    /// The failure that it stands in for, if it does.
    pub(crate) why: Option<Error>,
}

impl Landed {
    pub(crate) fn new(entry: Entry, source: Source) -> Self {
        Self { entry, source, why: None }
    }

    /// The same as what may be served in place of a load, whatever it was when it was found.
    fn as_fallback(&self) -> Self {
        let (Source::Fresh(tier) | Source::Fallback(tier)) = self.source else { return self.clone() };
        Self { source: Source::Fallback(tier), ..self.clone() }
    }
}

/// Where the value that a flight landed with came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// It was found fresh after all.
    Fresh(Tier),
    /// It was loaded.
    Loader,
    /// The load failed, or is not waited for, and this was still within its grace.
    Fallback(Tier),
}

/// Who says what an entry carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tagging {
    /// The call, before the load begins.
    ByCall,
    /// The loader, when it ends: until then it may be any tag.
    ByLoader,
}

/// How long a caller waits for a load.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Patience {
    /// Until it takes a stale entry, if there is one.
    pub(crate) soft: Option<Duration>,
    /// Until it gives up.
    pub(crate) hard: Option<Duration>,
    /// Whether it takes at once what is fresh, though it is being loaded again.
    pub(crate) takes_fresh: bool,
    /// Whether it takes nothing else.
    pub(crate) fresh_only: bool,
}

/// Ends after a while; `None` never does.
async fn timer(after: Option<Duration>) {
    match after {
        Some(after) => tokio::time::sleep(after).await,
        None => std::future::pending().await,
    }
}

tokio::task_local! {
    /// The flight whose loader is running in this task.
    static CURRENT: Arc<Flight>;
}

/// One load of one key, and everyone who waits for it.
#[derive(Debug)]
pub(crate) struct Flight {
    /// Which [`Flights`] it is one of.
    pub(super) home: u64,
    pub(super) namespace: u32,
    pub(super) key: Box<str>,
    /// Before its load began: an invalidation at or after this wins over what it will land with.
    born: Stamp,
    /// What its entry will carry, as far as was said when it began.
    extras: Option<Arc<Extras>>,
    tagging: Tagging,
    pub(super) began: Instant,
    /// The load that this one was started beside.
    pub(super) before: Option<Arc<Flight>>,
    /// How many there were before.
    pub(super) rank: u32,
    /// The load that was started beside this one.
    /// Not kept alive from here, because it keeps this one alive.
    pub(super) after: OnceLock<Weak<Flight>>,
    /// Whether it loads what is fresh as well: so does what is started beside it.
    pub(super) is_forced: bool,
    /// Its own load is over, whoever landed it.
    pub(super) has_ended: AtomicBool,
    /// Its load failed, and the one after it goes on.
    pub(super) gave_up: AtomicBool,
    pub(super) outcome: OnceLock<Result<Landed>>,
    /// What may be served in place of waiting longer.
    stale: OnceLock<Landed>,
    pub(super) landed: Notify,
    waiters: AtomicUsize,
    /// The flights that this one's loader is waiting for: the edges of the graph in which a cycle would be a
    /// deadlock.
    waits_for: Mutex<Vec<Arc<Flight>>>,
}

impl Flight {
    /// A load of a key that begins now, beside another one if that is slow, in the table of this number.
    #[expect(clippy::disallowed_methods, reason = "what is waited for is a timer, which counts like this")]
    pub(super) fn new(
        home: u64,
        (namespace, key): (u32, &str),
        (extras, tagging): (Option<&Arc<Extras>>, Tagging),
        born: Stamp,
        is_forced: bool,
        before: Option<Arc<Self>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            home,
            namespace,
            key: key.into(),
            born,
            extras: extras.cloned(),
            tagging,
            began: Instant::now(),
            rank: before.as_ref().map_or(0, |before| before.rank + 1),
            before,
            after: OnceLock::new(),
            is_forced,
            has_ended: AtomicBool::new(false),
            gave_up: AtomicBool::new(false),
            outcome: OnceLock::new(),
            stale: OnceLock::new(),
            landed: Notify::new(),
            waiters: AtomicUsize::new(0),
            waits_for: Mutex::new(Vec::new()),
        })
    }

    /// The user's key.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// How long ago it began.
    pub(crate) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// Whether clears or tags have put an end to what it will land with.
    pub(super) fn is_outdated(&self, spaces: &Spaces, space: &Space) -> bool {
        let mark = match self.tagging {
            Tagging::ByCall => {
                let tags = self.extras.as_ref().map_or(&[][..], |extras| &extras.tags);
                spaces.mark(space, self.born, tags)
            }
            Tagging::ByLoader => space.mark_of_any(),
        };
        self.born <= mark.newest()
    }

    /// Notes that this flight lands when another one's loader does, for as long as the result lives.
    pub(crate) fn bind(self: &Arc<Self>, leader: &Arc<Self>) -> WaitEdge {
        self.waits_for.lock().push(Arc::clone(leader));
        WaitEdge { from: Arc::clone(self), to: Arc::clone(leader) }
    }

    /// Whether it was started beside a load that had taken too long.
    pub(crate) fn is_beside(&self) -> bool {
        self.rank > 0
    }

    /// Whether it loads what is fresh as well.
    pub(crate) fn is_forced(&self) -> bool {
        self.is_forced
    }

    /// Offers a stale entry to those whose patience ends before the load does, or a fresh one to all who take it; to
    /// those who wait for the loads that this one was started beside as well.
    pub(crate) fn offer(&self, stale: Landed) {
        let mut next = Some(self);
        while let Some(flight) = next {
            if flight.stale.set(stale.clone()).is_ok() {
                flight.landed.notify_waiters();
            }
            next = flight.before.as_deref();
        }
    }

    /// Waits for the outcome, or for a stale entry once the soft timeout is over. What was offered may have died
    /// since, or gone stale, of its age or of an invalidation, so its `standing` is asked for when it is handed out.
    /// Dropping the future takes nothing from the others.
    ///
    /// # Errors
    /// The load's own, [`ErrorKind::Timeout`] when the hard timeout is over and there is nothing stale,
    /// [`ErrorKind::Recursion`] if the load would be waiting for itself, and [`ErrorKind::Overloaded`] beyond
    /// [`WAITERS_MAX`] callers.
    pub(crate) async fn wait(
        self: &Arc<Self>,
        patience: Patience,
        standing: impl Fn(&Entry) -> Freshness,
    ) -> Result<Landed> {
        let _edge = match CURRENT.try_with(Arc::clone) {
            Ok(current) => Some(WaitEdge::new(current, self)?),
            Err(_) => None,
        };
        let _seat = Seat::take(self)?;
        let mut is_soft_over = patience.soft.is_some_and(|soft| soft.is_zero());
        let (mut soft, mut hard) = (pin!(timer(patience.soft)), pin!(timer(patience.hard)));
        let is_fresh = |offered: &Landed| matches!(offered.source, Source::Fresh(_));
        let servable = || {
            let offered = self.stale.get()?;
            match standing(&offered.entry) {
                Freshness::Expired => None,
                Freshness::Fresh if is_fresh(offered) && (patience.takes_fresh || !patience.fresh_only) => {
                    Some(offered.clone())
                }
                _ => (!patience.fresh_only).then(|| offered.as_fallback()),
            }
        };
        loop {
            // Registered before the outcome is looked at, so that a landing in between is not missed.
            let notified = self.landed.notified();
            if let Some(outcome) = self.outcome.get() {
                return outcome.clone();
            }
            if let Some(offered) = servable()
                && (is_soft_over || patience.takes_fresh && is_fresh(&offered))
            {
                return Ok(offered);
            }
            tokio::select! {
                () = notified => {}
                () = &mut soft, if !is_soft_over => is_soft_over = true,
                () = &mut hard => return servable().ok_or_else(|| self.is_too_slow(patience)),
            }
        }
    }

    fn is_too_slow(&self, patience: Patience) -> Error {
        let waited = patience.hard.unwrap_or_default();
        let message = format!("the load of key {:?} took longer than {waited:?}, and goes on", self.key);
        Error::new(ErrorKind::Timeout, message)
    }

    /// The table of the load that this task is the loader of.
    pub(super) fn home_of_current() -> Option<u64> {
        CURRENT.try_with(|flight| flight.home).ok()
    }

    /// Runs a loader so that the flights it waits for know on whose behalf.
    pub(crate) async fn run<F: Future>(self: &Arc<Self>, loader: F) -> F::Output {
        CURRENT.scope(Arc::clone(self), loader).await
    }

    fn reaches(self: &Arc<Self>, target: &Arc<Self>) -> bool {
        let mut seen: Vec<Arc<Self>> = vec![Arc::clone(self)];
        let mut next = 0;
        while let Some(flight) = seen.get(next).cloned() {
            if Arc::ptr_eq(&flight, target) {
                return true;
            }
            for awaited in flight.waits_for.lock().iter() {
                if !seen.iter().any(|known| Arc::ptr_eq(known, awaited)) {
                    seen.push(Arc::clone(awaited));
                }
            }
            next += 1;
        }
        false
    }
}

/// "This flight waits for that one", for as long as it does.
pub(crate) struct WaitEdge {
    from: Arc<Flight>,
    to: Arc<Flight>,
}

impl WaitEdge {
    fn new(from: Arc<Flight>, to: &Arc<Flight>) -> Result<Self> {
        // The edge is drawn before the search: of two loaders that close a cycle at the same moment, at least
        // one then sees the other's edge.
        from.waits_for.lock().push(Arc::clone(to));
        let edge = Self { from, to: Arc::clone(to) };
        if to.reaches(&edge.from) {
            return Err(Error::new(
                ErrorKind::Recursion,
                format!(
                    "the loader of key {:?} asks for key {:?}, which waits for that loader",
                    edge.from.key, edge.to.key
                ),
            ));
        }
        Ok(edge)
    }
}

impl Drop for WaitEdge {
    fn drop(&mut self) {
        let mut edges = self.from.waits_for.lock();
        if let Some(position) = edges.iter().position(|to| Arc::ptr_eq(to, &self.to)) {
            edges.swap_remove(position);
        }
    }
}

/// A place among the waiters of a flight.
struct Seat<'a>(&'a Flight);

impl<'a> Seat<'a> {
    fn take(flight: &'a Flight) -> Result<Self> {
        let taken = flight.waiters.fetch_add(1, Ordering::Relaxed);
        let seat = Self(flight);
        if taken >= WAITERS_MAX {
            let message = format!("more than {WAITERS_MAX} callers wait for key {:?}", flight.key);
            return Err(Error::new(ErrorKind::Overloaded, message));
        }
        Ok(seat)
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.waiters.fetch_sub(1, Ordering::Relaxed);
    }
}
