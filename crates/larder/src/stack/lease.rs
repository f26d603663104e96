//! Whose turn it is: of the processes that share a store, one loads a key, and the others wait for what it stores.
//!
//! A lease is a record beside the entry, which its holder writes anew for as long as it loads. A holder that dies costs
//! those who wait one length of it; they count that on their own clocks, from when they saw the record last change.
//! Nothing is right or wrong by a lease: whether a value is kept is decided by stamps, as ever, and where the store fails
//! everyone loads.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{self, Either};
use parking_lot::Mutex;

use crate::driver::Written;
use crate::entry::wire;
use crate::error::Result;
use crate::explain::Fact;
use crate::stack::Core;
use crate::stack::fill::{Fill, Wanted};
use crate::stack::l2::{L2, OnFailure};
use crate::time::Stamp;

/// How long a waiting process waits before it looks again: twice as long each time, between these.
const LOOK_FIRST: Duration = Duration::from_millis(5);
const LOOK_MAX: Duration = Duration::from_millis(100);
/// A lease is written anew each time this part of it is over.
const RENEWALS: u32 = 3;

/// A lease that this process holds.
pub(super) struct Lease<'a> {
    core: &'a Core,
    l2: &'a L2,
    key: String,
    length: Duration,
    stamp: Mutex<Stamp>,
}

impl<'a> Lease<'a> {
    /// Takes a lease that nobody holds, or that its holder has let run out: then `lapsed` is the stamp of it. What holds it
    /// otherwise is the error's side.
    async fn take(
        (core, l2): (&'a Core, &'a L2),
        key: &str,
        length: Duration,
        lapsed: Option<Stamp>,
    ) -> Result<std::result::Result<Self, Option<Stamp>>> {
        let (stamp, written) = write((core, l2), key, length, lapsed).await?;
        Ok(match written {
            Written::Stored { .. } => {
                Ok(Self { core, l2, key: key.to_owned(), length, stamp: Mutex::new(stamp) })
            }
            Written::Refused { by } => Err(by),
        })
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

    async fn keep(&self) -> Infallible {
        loop {
            tokio::time::sleep(self.length / RENEWALS).await;
            let held = *self.stamp.lock();
            match write((self.core, self.l2), &self.key, self.length, Some(held)).await {
                Ok((stamp, Written::Stored { .. })) => *self.stamp.lock() = stamp,
                // It ran out while this process or the store was not there, and somebody else has it.
                Ok((_, Written::Refused { .. })) => future::pending().await,
                Err(_) => {}
            }
        }
    }

    /// Gives it back. It may be another's by now, who then loads beside a third: no harm but that.
    async fn release(&self) {
        let _ = self.l2.remove(self.core, "lease", &self.key, OnFailure::Suppress).await;
    }
}

/// Writes a lease, if what is there still has this stamp; `None`: if nothing is there.
async fn write(
    (core, l2): (&Core, &L2),
    key: &str,
    length: Duration,
    expected: Option<Stamp>,
) -> Result<(Stamp, Written)> {
    let now = core.clock.now();
    let stamp = core.clock.tick(now);
    let record = (key, wire::encode_tombstone(stamp, now), Some(length));
    Ok((stamp, l2.swap(core, "lease", record, expected, OnFailure::Suppress).await?))
}

impl Fill {
    /// Waits until it is this process's turn to load a key, if its options say that processes take turns. What comes
    /// into the store meanwhile lands; what is returned is still to be loaded, under the lease if there is one.
    ///
    /// Many keys take no turns: two processes that want each other's would wait in vain.
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
        let name = one.flight.key().to_owned();
        let Some(key) = Some(door.space.keys.lease_key(&name)).filter(|_| !is_forced && !length.is_zero())
        else {
            return (wanted, None);
        };
        let begun = core.clock.monotonic();
        let waited = || core.clock.monotonic().saturating_sub(begun);
        let note = || core.note(&door.space, &name, || Fact::TurnWaited { took: waited() });
        let mut held: Option<(Stamp, Duration)> = None;
        let mut look = LOOK_FIRST;
        while waited() <= core.load_max {
            let lapsed = held.filter(|(_, since)| waited().saturating_sub(*since) > length);
            let is_free = held.is_none();
            if is_free || lapsed.is_some() {
                match Lease::take((core, l2), &key, length, lapsed.map(|(stamp, _)| stamp)).await {
                    Ok(Ok(lease)) => {
                        // Its last holder may have stored what is wanted since this process looked.
                        wanted = self.look_again(wanted, on_failure).await;
                        if !wanted.is_empty() {
                            if held.is_some() {
                                note();
                            }
                            return (wanted, Some(lease));
                        }
                        lease.release().await;
                        break;
                    }
                    Ok(Err(by)) => held = Some((by.unwrap_or(Stamp::ZERO), waited())),
                    // A store that fails keeps nobody from loading.
                    Err(_) => return (wanted, None),
                }
            }
            tokio::time::sleep(look).await;
            look = (look * 2).min(LOOK_MAX);
            let Ok(found) = l2.get_many(core, &[&key], OnFailure::Suppress).await else {
                return (wanted, None);
            };
            wanted = self.look_again(wanted, on_failure).await;
            if wanted.is_empty() {
                break;
            }
            let stamp =
                found.into_iter().next().flatten().map(|bytes| wire::stamp_of(&bytes).unwrap_or(Stamp::ZERO));
            held = match (stamp, held) {
                (Some(stamp), Some((known, since))) if stamp == known => Some((stamp, since)),
                (stamp, _) => stamp.map(|stamp| (stamp, waited())),
            };
        }
        note();
        (wanted, None)
    }

    /// Lands what the store has by now.
    async fn look_again(&self, wanted: Vec<Wanted>, on_failure: OnFailure) -> Vec<Wanted> {
        // What is due for a renewal is so for the next caller as well.
        self.search_store(wanted, &mut Vec::new(), self.core.clock.now(), on_failure).await
    }
}
