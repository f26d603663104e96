//! Who asks for what is missing: joins a load or leads one, waits for it, starts another one beside a slow one, and has
//! renewed what is due.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;

use crate::entry::{Entry, Freshness};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Tier};
use crate::explain::{Fact, WaitEnd};
use crate::options::EntryOptions;
use crate::stack::fill::{Fill, Occasion, Request};
use crate::stack::flight::{Flight, Landed, Patience, Source};
use crate::stack::flights::Joined;
use crate::stack::{Core, Door, Space, span};
use crate::stats::Timed;
use crate::time::{Stamp, Timestamp};

impl Core {
    /// Finds or loads several keys: those that nobody is loading in one task, the others by waiting for whoever
    /// is. The outcomes stand in the order of the keys, and each has been reported as a hit or a miss.
    pub(crate) async fn get_or_load(
        self: &Arc<Self>,
        door: &Arc<Door>,
        keys: &[&str],
        request: Request,
    ) -> Vec<Result<Landed>> {
        let mut joined: Vec<Result<Arc<Flight>>> = Vec::with_capacity(keys.len());
        let mut led = Vec::new();
        let runtime = tokio::runtime::Handle::try_current().map_err(|error| {
            Error::from_source(ErrorKind::Unsupported, "loading needs a tokio runtime", error)
        });
        let mut forced = HashSet::new();
        for key in keys {
            // A key that is named twice waits for the load that was begun for it.
            let anew = request.force && (keys.len() == 1 || forced.insert(*key));
            joined.push(
                match runtime.as_ref().map_err(Clone::clone).and_then(|_| {
                    let born = || self.clock.tick(self.clock.now());
                    let (name, carried) = ((&*door.space, *key), (request.extras.as_ref(), request.tagging));
                    self.flights.join(&self.spaces, name, carried, anew, born)
                }) {
                    Ok(Joined::Leader(flight)) => {
                        self.note(&door.space, key, || Fact::Leads);
                        led.push(Arc::clone(&flight));
                        Ok(flight)
                    }
                    Ok(Joined::Waiter(flight)) => {
                        self.note(&door.space, key, || Fact::Joins { age: flight.age() });
                        Ok(flight)
                    }
                    Err(error) => Err(error),
                },
            );
        }
        if let Err(error) = self.check_open_to_loads() {
            // It was closed since the caller entered. Closing waits for these flights, so the store is not used.
            led.drain(..).for_each(|flight| self.flights.finish(&flight, Err(error.clone())));
        }
        let options = request.options;
        let fresh_only = options.fresh_only == Some(true);
        let patience = Patience {
            soft: options.soft_timeout.filter(|_| !fresh_only),
            hard: options.hard_timeout,
            takes_fresh: !request.force,
            fresh_only,
        };
        let mut request = Some(request);
        if runtime.is_ok() && !led.is_empty() {
            self.start(door, led, None, request.take());
        }
        let started = self.clock.monotonic();
        let mut outcomes = Vec::with_capacity(keys.len());
        for (key, flight) in keys.iter().zip(joined) {
            let outcome = match flight {
                Ok(flight) => {
                    if patience.soft.is_some() {
                        self.offer_memory(&door.space, &flight);
                    }
                    let spare = if keys.len() == 1 { request.take() } else { None };
                    self.wait(door, &flight, patience, options, spare).await
                }
                Err(error) => Err(error),
            };
            let outcome = match outcome {
                Ok(Landed { source: Source::Fallback(_), why: Some(error), .. }) if fresh_only => Err(error),
                outcome => outcome,
            };
            let took = self.clock.monotonic().saturating_sub(started);
            self.stats.time(Timed::Wait, took);
            self.note(&door.space, key, || Fact::Waited { took, end: end_of(&outcome, patience) });
            match &outcome {
                Ok(Landed { source: Source::Fresh(tier), .. }) => {
                    self.emit_hit(&door.space, key, *tier, false)
                }
                Ok(Landed { source: Source::Fallback(tier), entry, .. }) => {
                    // What a forced load or a renewal was to replace may be fresh.
                    let is_fresh =
                        self.standing(&door.space, &entry.meta, self.clock.now()) == Freshness::Fresh;
                    self.emit_hit(&door.space, key, *tier, !is_fresh)
                }
                Ok(Landed { source: Source::Loader, .. }) | Err(_) => self.emit_miss(&door.space, key),
            }
            outcomes.push(outcome);
        }
        outcomes
    }

    /// Starts the task that fills some keys, which the caller leads: because entries with these stamps are due, or are
    /// not there.
    fn start(
        self: &Arc<Self>,
        door: &Arc<Door>,
        flights: Vec<Arc<Flight>>,
        due: Option<Vec<Stamp>>,
        request: Option<Request>,
    ) {
        let Some(request) = request else { return };
        let occasion = match due {
            Some(due) => Occasion::Renewal(due),
            // Nothing is newer than that, so nothing is taken in place of the load.
            None if flights.iter().any(|flight| flight.is_forced()) => {
                Occasion::Renewal(vec![Stamp::MAX; flights.len()])
            }
            None => Occasion::Miss,
        };
        let (core, door) = (Arc::clone(self), Arc::clone(door));
        let fill = Fill { core, door, flights, occasion, options: request.options };
        tokio::spawn(span::of_caller(fill.run(request)));
    }

    /// Waits for a load. One that takes too long gets another one beside it, if the caller's options say so and its
    /// request is still to be had: what comes first is the outcome.
    async fn wait(
        self: &Arc<Self>,
        door: &Arc<Door>,
        flight: &Arc<Flight>,
        patience: Patience,
        options: EntryOptions,
        spare: Option<Request>,
    ) -> Result<Landed> {
        let standing = |offered: &Entry| self.standing(&door.space, &offered.meta, self.clock.now());
        let (Some(after), Some(request)) = (options.replace_after, spare) else {
            return flight.wait(patience, standing).await;
        };
        let mut slow = pin!(flight.wait(patience, standing));
        let nap = after.saturating_sub(flight.age());
        tokio::select! {
            outcome = &mut slow => return outcome,
            () = tokio::time::sleep(nap) => {}
        }
        let born = || self.clock.tick(self.clock.now());
        let Some(joined) = self.flights.replace(flight, request.extras.as_ref(), request.tagging, born)
        else {
            return slow.await;
        };
        let (beside, spare) = match joined {
            Joined::Waiter(beside) => (beside, Some(request)),
            Joined::Leader(beside) => {
                if let Err(error) = self.check_open_to_loads() {
                    self.flights.finish(&beside, Err(error));
                } else {
                    let (namespace, key, after) = (door.space.keys.path(), flight.key(), flight.age());
                    self.emit(&Event::LoadReplaced { namespace, key, after });
                    self.note(&door.space, key, || Fact::Replaces { age: after });
                    self.start(door, vec![Arc::clone(&beside)], None, Some(request));
                }
                (beside, None)
            }
        };
        let beside_patience = Patience { soft: None, hard: None, ..patience };
        // The timeouts of the first wait go on, and end the second one too. That may need another one in turn.
        let mut second = Box::pin(self.wait(door, &beside, beside_patience, options, spare));
        tokio::select! {
            first = &mut slow => match first {
                Err(error) if error.kind() == ErrorKind::Load => second.await,
                outcome => outcome,
            },
            second = &mut second => match second {
                // Whatever it failed with: the first one goes on.
                Err(_) => slow.await,
                outcome => outcome,
            },
        }
    }

    /// Whether an entry may be served at `now`, be it stale.
    pub(super) fn may_serve(&self, space: &Space, entry: &Entry, now: Timestamp) -> bool {
        self.standing(space, &entry.meta, now) != Freshness::Expired
    }

    /// Offers what memory has left of a key to those who will not wait for its load.
    fn offer_memory(&self, space: &Space, flight: &Flight) {
        if let Some((entry, _)) = self.probe(space, flight.key(), self.clock.now()) {
            flight.offer(Landed::new(entry, Source::Fallback(Tier::L1)));
        }
    }

    /// Loads keys that are due, their entries with these stamps, in the background, but for those that are being loaded
    /// or whose source is left alone. Returns the loads that were begun.
    pub(crate) fn renew(
        self: &Arc<Self>,
        door: &Arc<Door>,
        keys: &[(&str, Stamp)],
        now: Timestamp,
        request: Request,
    ) -> Vec<Arc<Flight>> {
        let (mut led, mut due) = (Vec::new(), Vec::new());
        if tokio::runtime::Handle::try_current().is_err() {
            return led;
        }
        let is_resting = |key: &str| self.rests.find(door.space.id, key, || self.clock.monotonic()).is_some();
        for (key, stamp) in keys.iter().filter(|(key, _)| !is_resting(key)) {
            let (name, carried) = ((&*door.space, *key), (request.extras.as_ref(), request.tagging));
            let born = || self.clock.tick(now);
            // Too many loads at once are a reason not to add one that nobody waits for.
            if let Ok(Joined::Leader(flight)) = self.flights.join(&self.spaces, name, carried, false, born) {
                self.note(&door.space, key, || Fact::Renews);
                led.push(flight);
                due.push(*stamp);
            }
        }
        if let Err(error) = self.check_open_to_loads() {
            led.drain(..).for_each(|flight| self.flights.finish(&flight, Err(error.clone())));
        }
        if !led.is_empty() {
            self.start(door, led.clone(), Some(due), Some(request));
        }
        led
    }
}

/// What ended a wait.
fn end_of(outcome: &Result<Landed>, patience: Patience) -> WaitEnd {
    match outcome {
        Ok(Landed { source: Source::Fresh(tier), .. }) => WaitEnd::Found { tier: *tier },
        Ok(Landed { source: Source::Loader, .. }) => WaitEnd::Loaded,
        Ok(Landed { source: Source::Fallback(tier), why: Some(error), .. }) => {
            WaitEnd::StaleForFailure { tier: *tier, error: error.to_string() }
        }
        Ok(Landed { source: Source::Fallback(tier), why: None, .. }) => {
            let is_hard = patience.soft.is_none_or(|soft| patience.hard.is_some_and(|hard| hard < soft));
            let option = if is_hard { "hard_timeout" } else { "soft_timeout" };
            WaitEnd::StaleForTime { tier: *tier, option: option.to_owned() }
        }
        Err(error) => WaitEnd::Failed { error: error.to_string() },
    }
}
