//! Whose turn it is: of the processes that share a store, one loads a key, and the others wait for what it stores.
//!
//! A lease is a record beside the entry, which its holder writes anew while it loads. It is a mark: the newer of its
//! stamps changes each time, the older one stays and tells one holder from the next. A holder that dies costs those who
//! wait one length of it; they count that on their own clocks, from when they saw the record last change.
//! Nothing is right or wrong by a lease: whether a value is kept is decided by stamps, as ever. Where the store fails, and
//! where there is nothing to be had by waiting, everyone loads.

use std::collections::HashSet;
use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{self, Either};
use parking_lot::Mutex;

use crate::driver::Written;
use crate::entry::wire::{self, Record};
use crate::error::Result;
use crate::explain::Fact;
use crate::stack::Core;
use crate::stack::fill::{Fill, Wanted};
use crate::stack::l2::{L2, OnFailure};
use crate::time::Stamp;

/// The shortest lease: a shorter one is this long.
const LENGTH_MIN: Duration = Duration::from_millis(100);
/// A load is waited for, and its lease renewed, for so many lengths of it.
const LENGTHS_MAX: u32 = 20;
/// A lease is written anew each time this part of it is over.
const RENEWALS: u32 = 3;
/// How long a waiting process waits before it looks again: twice as long each time, between these.
const LOOK_FIRST: Duration = Duration::from_millis(5);
const LOOK_MAX: Duration = Duration::from_millis(100);

/// The leases that this process holds, by their keys: a second load of a key here does not wait for the first.
#[derive(Debug, Default)]
pub(crate) struct Leases(Mutex<HashSet<String>>);

/// A lease that this process holds.
pub(super) struct Lease<'a> {
    core: &'a Core,
    l2: &'a L2,
    key: String,
    length: Duration,
    holder: Stamp,
    held: Mutex<Held>,
}

/// What a holder knows of its lease.
#[derive(Debug, Clone, Copy)]
struct Held {
    /// The newest stamp that was written, as far as the store has said.
    stamp: Stamp,
    /// A newer one, of which the store has not said whether it has it.
    tried: Option<Stamp>,
    /// Somebody else has it.
    is_lost: bool,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        self.core.leases.0.lock().remove(&self.key);
    }
}

/// What a look at a lease has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    holder: Stamp,
    stamp: Stamp,
}

impl<'a> Lease<'a> {
    /// Takes a lease that nobody holds, or that its holder has let run out: then `lapsed` is the stamp of it. `None` if
    /// somebody else has it.
    async fn take(
        (core, l2): (&'a Core, &'a L2),
        key: &str,
        length: Duration,
        lapsed: Option<Stamp>,
    ) -> Result<Option<Self>> {
        let holder = core.clock.tick(core.clock.now());
        let written = write((core, l2), key, length, (holder, holder), lapsed).await?;
        Ok(matches!(written, Written::Stored { .. }).then(|| {
            core.leases.0.lock().insert(key.to_owned());
            let held = Mutex::new(Held { stamp: holder, tried: None, is_lost: false });
            Self { core, l2, key: key.to_owned(), length, holder, held }
        }))
    }

    /// Does what the lease is for, and keeps it meanwhile.
    pub(super) async fn hold(self, work: impl Future<Output = ()>) {
        {
            let (work, keeping) = (pin!(work), pin!(self.keep()));
            match future::select(work, keeping).await {
                Either::Left(((), _)) => {}
                Either::Right((never, _)) => match never {},
            }
        }
        self.release().await;
    }

    /// Renews it for as long as others wait for it.
    async fn keep(&self) -> Infallible {
        for _ in 0..LENGTHS_MAX * RENEWALS {
            tokio::time::sleep(self.length / RENEWALS).await;
            self.renew().await;
            if self.held.lock().is_lost {
                break;
            }
        }
        future::pending().await
    }

    async fn renew(&self) {
        let Held { stamp, tried, .. } = *self.held.lock();
        let next = self.core.clock.tick(self.core.clock.now());
        self.held.lock().tried = Some(next);
        let to = (self.core, self.l2);
        let mut written = write(to, &self.key, self.length, (next, self.holder), Some(stamp)).await;
        if let Ok(Written::Refused { by }) = &written {
            // A renewal whose answer was lost was stored all the same; or the store has forgotten it too soon.
            let expected = *by;
            if expected.is_none() || expected == tried {
                written = write(to, &self.key, self.length, (next, self.holder), expected).await;
            }
        }
        let mut held = self.held.lock();
        match written {
            Ok(Written::Stored { .. }) => *held = Held { stamp: next, tried: None, is_lost: false },
            Ok(Written::Refused { .. }) => held.is_lost = true,
            Err(_) => {}
        }
    }

    /// Gives it back, unless it ran out and is another's.
    async fn release(&self) {
        if !self.held.lock().is_lost {
            let _ = self.l2.remove(self.core, "lease", &self.key, OnFailure::Suppress).await;
        }
    }
}

/// Writes a lease, if what is there still has this stamp; `None`: if nothing is there.
async fn write(
    (core, l2): (&Core, &L2),
    key: &str,
    length: Duration,
    (stamp, holder): (Stamp, Stamp),
    expected: Option<Stamp>,
) -> Result<Written> {
    let record = (key, wire::encode_mark(key, stamp, holder)?, Some(length));
    l2.swap(core, "lease", record, expected, OnFailure::Suppress).await
}

/// Who holds a lease; `None` if nobody does. What cannot be read is held by nobody in particular, until it is over.
async fn look((core, l2): (&Core, &L2), key: &str) -> Result<Option<Seen>> {
    let found = l2.get_many(core, &[key], OnFailure::Suppress).await?.pop().flatten();
    Ok(found.map(|bytes| match wire::decode(key, &bytes) {
        Ok(Record::Mark { stamp, hard }) => Seen { holder: hard, stamp },
        _ => Seen { holder: Stamp::ZERO, stamp: wire::stamp_of(&bytes).unwrap_or(Stamp::ZERO) },
    }))
}

impl Fill {
    /// Waits until it is this process's turn to load a key, if its options say that processes take turns. What comes
    /// into the store meanwhile lands; what is returned is still to be loaded, under the lease if there is one.
    ///
    /// One holder is waited for, and whoever takes over from one that died: of a holder that gave its lease back and left
    /// nothing in the store the next one would leave nothing either. Many keys take no turns: two processes that want
    /// each other's would wait in vain. Nor does a load that is to begin beside another one.
    pub(super) async fn take_turn(
        &self,
        mut wanted: Vec<Wanted>,
        is_forced: bool,
        on_failure: OnFailure,
    ) -> (Vec<Wanted>, Option<Lease<'_>>) {
        let Self { core, door, options, .. } = self;
        let (Some(length), Some(l2), [one]) = (options.across_processes, &core.l2, wanted.as_slice()) else {
            return (wanted, None);
        };
        let is_beside = is_forced || one.flight.is_forced() || one.flight.is_beside();
        let name = one.flight.key().to_owned();
        let key = door.space.keys.lease_key(&name);
        if is_beside || length.is_zero() || core.leases.0.lock().contains(&key) {
            return (wanted, None);
        }
        let (store, length) = ((&**core, l2), length.max(LENGTH_MIN));
        let begun = core.clock.monotonic();
        let waited = || core.clock.monotonic().saturating_sub(begun);
        let bound = length.saturating_mul(LENGTHS_MAX).min(core.load_max);
        // Who is waited for, since when nothing was heard of it, and whether it has died: then its lease is free, or still
        // there with this stamp.
        let (mut holder, mut since) = (None::<Seen>, Duration::ZERO);
        let (mut is_free, mut has_died, mut lapsed) = (true, false, None::<Stamp>);
        let mut look_after = LOOK_FIRST;
        loop {
            if is_free || lapsed.is_some() {
                match Lease::take(store, &key, length, lapsed).await {
                    Ok(Some(lease)) => {
                        // Its last holder may have stored what is wanted since this process looked.
                        wanted = self.look_again(wanted, on_failure).await;
                        if !wanted.is_empty() && !self.is_closed(&mut wanted) {
                            self.note_wait(&name, holder.is_some(), waited());
                            return (wanted, Some(lease));
                        }
                        lease.release().await;
                        break;
                    }
                    // Somebody was faster, who is the one to wait for; unless there was one already.
                    Ok(None) if holder.is_none() || has_died => holder = None,
                    Ok(None) | Err(_) => break,
                }
            }
            if self.is_closed(&mut wanted) || waited() >= bound {
                break;
            }
            tokio::time::sleep(look_after).await;
            look_after = (look_after * 2).min(LOOK_MAX);
            let Ok(seen) = look(store, &key).await else { break };
            wanted = self.look_again(wanted, on_failure).await;
            if wanted.is_empty() {
                break;
            }
            let silence = waited().saturating_sub(since);
            // One that lives has renewed it twice by then.
            let is_silent = holder.is_some() && silence > length * 2 / RENEWALS;
            (is_free, has_died, lapsed) = (seen.is_none(), is_silent, None);
            match (holder, seen) {
                (Some(known), Some(now)) if known == now => lapsed = (silence > length).then_some(now.stamp),
                // The first one, a renewal, or who took over from one that died.
                (known, Some(now)) if is_silent || known.is_none_or(|known| known.holder == now.holder) => {
                    (holder, since) = (Some(now), waited());
                }
                // Another one, and nothing came of the one before: whoever waits for each in turn waits for all.
                (_, Some(_)) => break,
                // Gone, to be taken or left.
                (known, None) => {
                    let nobody = Seen { holder: Stamp::ZERO, stamp: Stamp::ZERO };
                    (holder, since) = (known.or(Some(nobody)), waited());
                }
            }
        }
        self.note_wait(&name, holder.is_some(), waited());
        (wanted, None)
    }

    fn note_wait(&self, name: &str, has_waited: bool, took: Duration) {
        if has_waited {
            self.core.note(&self.door.space, name, || Fact::TurnWaited { took });
        }
    }

    /// Ends what waits for a turn on a stack that was closed meanwhile.
    fn is_closed(&self, wanted: &mut Vec<Wanted>) -> bool {
        let Err(error) = self.core.check_open_to_loads() else { return false };
        for wanted in wanted.drain(..) {
            self.core.flights.finish(&wanted.flight, Err(error.clone()));
        }
        true
    }

    /// Lands what the store has by now.
    async fn look_again(&self, wanted: Vec<Wanted>, on_failure: OnFailure) -> Vec<Wanted> {
        // What is due for a renewal is so for the next caller as well.
        self.search_store(wanted, &mut Vec::new(), self.core.clock.now(), on_failure).await
    }
}
