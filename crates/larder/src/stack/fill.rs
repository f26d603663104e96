//! A miss: memory again, then the store, then the loader, then the writes. The order of tiers is written here.
//!
//! A load belongs to its keys and runs in a task of its own: a caller that gives up takes nothing from the
//! others. One key and many go the same way.

use std::any::Any;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;

use crate::codec::Encoded;
use crate::driver::{When, Write, Written};
use crate::entry::wire;
use crate::entry::{AnyValue, Entry, Extras, Freshness, Meta};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Tier};
use crate::explain::{Fact, Load, NotKept};
use crate::options::EntryOptions;
use crate::stack::answer::{Asked, BoxLoad, Loads};
use crate::stack::flight::{Flight, Landed, Source, Tagging};
use crate::stack::l2::OnFailure;
use crate::stack::read::codec_of;
use crate::stack::recovery::Lost;
use crate::stack::rest::Rest;
use crate::stack::retry::What;
use crate::stack::stored::Stored;
use crate::stack::{Core, Door, renewal, span};
use crate::stats::Timed;
use crate::time::{Stamp, Timestamp};

/// What is to be done about keys that are missing.
pub(crate) struct Request {
    /// The call's options over the cache's over the stack's.
    pub(crate) options: EntryOptions,
    /// What the entries carry besides their values.
    pub(crate) extras: Option<Arc<Extras>>,
    pub(crate) tagging: Tagging,
    /// Whether to load what is fresh as well, and to join no load that began before.
    pub(crate) force: bool,
    pub(crate) load: BoxLoad,
}

/// Why keys are loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Occasion {
    /// They are not fresh.
    Miss,
    /// Entries with these stamps, in the order of the keys, are due: what is fresh is loaded all the same, and stays until
    /// that has succeeded. What is newer is taken in place of a load.
    Renewal(Vec<Stamp>),
}

/// An entry that may be served if the load fails.
struct Fallback {
    entry: Entry,
    tier: Tier,
}

impl Fallback {
    fn landed(&self, why: Option<Error>) -> Landed {
        Landed { entry: self.entry.clone(), source: Source::Fallback(self.tier), why }
    }
}

/// A key that is still to be loaded.
pub(super) struct Wanted {
    pub(super) flight: Arc<Flight>,
    fallback: Option<Fallback>,
    /// The stamp of the entry that is to be renewed; what is newer is taken in place of a load.
    due: Option<Stamp>,
}

impl Wanted {
    /// Whether a loaded entry has the value that was there before.
    fn is_unchanged(&self, loaded: &Entry) -> bool {
        self.previous().is_some_and(|previous| Arc::ptr_eq(&previous.value, &loaded.value))
    }

    fn previous(&self) -> Option<&Entry> {
        self.fallback.as_ref().map(|fallback| &fallback.entry)
    }
}

/// A loaded value on its way into the tiers.
struct Keeping {
    flight: Arc<Flight>,
    entry: Entry,
    value_bytes: usize,
}

/// The task that fills some keys. However it ends, its flights are finished.
pub(super) struct Fill {
    pub(super) core: Arc<Core>,
    pub(super) door: Arc<Door>,
    pub(super) flights: Vec<Arc<Flight>>,
    pub(super) occasion: Occasion,
    pub(super) options: EntryOptions,
}

impl Drop for Fill {
    fn drop(&mut self) {
        for flight in &self.flights {
            // Finishing twice does nothing, so this only reaches those that a panic or a shutdown left behind.
            let message = format!("the load of key {:?} was ended before it landed", flight.key());
            self.core.flights.finish(flight, Err(Error::new(ErrorKind::Load, message)));
        }
    }
}

impl Fill {
    pub(super) async fn run(self, request: Request) {
        let on_failure = self.core.on_failure(&request.options);
        let now = self.core.clock.now();
        let missing = self.search_memory(now);
        let mut due = Vec::new();
        let mut wanted = self.search_store(missing, &mut due, now, on_failure).await;
        wanted.retain(|wanted| !self.is_left_alone(wanted));
        if !wanted.is_empty() {
            let (wanted, lease) = self.take_turn(wanted, request.force, on_failure).await;
            match lease {
                Some(lease) => lease.hold(self.load(wanted, request, on_failure)).await,
                None if wanted.is_empty() => {}
                None => self.load(wanted, request, on_failure).await,
            }
        } else if !due.is_empty() {
            // Fresh in the store, landed, and to be renewed behind.
            let due: Vec<_> = due.iter().map(|(flight, stamp)| (flight.key(), *stamp)).collect();
            self.core.renew(&self.door, &due, now, request);
        }
    }

    /// Lands what has come into memory since the callers looked.
    fn search_memory(&self, now: Timestamp) -> Vec<Wanted> {
        let mut missing = Vec::with_capacity(self.flights.len());
        for (index, flight) in self.flights.iter().enumerate() {
            let found = self.core.probe(&self.door.space, flight.key(), now);
            let due = match &self.occasion {
                Occasion::Miss => None,
                Occasion::Renewal(stamps) => stamps.get(index).copied(),
            };
            if let Some((entry, Freshness::Fresh)) = &found
                && due.is_none()
                && self.land_known(flight, Landed::new(entry.clone(), Source::Fresh(Tier::L1)))
            {
                continue;
            }
            let fallback = found.map(|(entry, _)| Fallback { entry, tier: Tier::L1 });
            missing.push(Wanted { flight: Arc::clone(flight), fallback, due });
        }
        missing
    }

    /// Lands what the store has, brings it into memory, and returns what has to be loaded.
    /// Those that it lands and that are due for a renewal are added to `due`.
    pub(super) async fn search_store(
        &self,
        missing: Vec<Wanted>,
        due: &mut Vec<(Arc<Flight>, Stamp)>,
        now: Timestamp,
        on_failure: OnFailure,
    ) -> Vec<Wanted> {
        let Self { core, door, .. } = self;
        let Some(l2) = &core.l2 else { return missing };
        if missing.is_empty() {
            return missing;
        }
        let keys: Vec<&str> = missing.iter().map(|wanted| wanted.flight.key()).collect();
        let stored = match l2.read(core, &door.space, &keys, now, on_failure).await {
            Ok(stored) => stored,
            Err(_) if on_failure == OnFailure::Suppress => return self.do_without_store(missing, now),
            Err(error) => {
                for wanted in &missing {
                    core.flights.finish(&wanted.flight, Err(error.clone()));
                }
                return Vec::new();
            }
        };
        let mut wanted = Vec::new();
        for (mut missing, stored) in missing.into_iter().zip(stored) {
            match stored {
                Stored::Nothing { stamp, .. } => {
                    // A delete, or something later that is over, is newer than what memory has left.
                    missing.fallback = missing.fallback.filter(|known| stamp <= Some(known.entry.meta.stamp));
                    wanted.push(missing);
                }
                Stored::Entry { entry: stored, freshness } => {
                    let known = missing.fallback.as_ref().map(|known| known.entry.meta.stamp);
                    let value_bytes = stored.payload.len();
                    if known > Some(stored.meta.stamp) {
                        wanted.push(missing);
                        continue;
                    }
                    let is_news =
                        self.occasion == Occasion::Miss || known.max(missing.due) < Some(stored.meta.stamp);
                    if let Some(entry) = core.decode(door, missing.flight.key(), stored) {
                        let is_fresh = freshness == Freshness::Fresh;
                        if is_fresh && is_news && self.land_found(&missing.flight, &entry, value_bytes) {
                            if renewal::is_due(&entry.meta, self.options.refresh, now, || core.chance()) {
                                due.push((Arc::clone(&missing.flight), entry.meta.stamp));
                            }
                            continue;
                        }
                        if is_fresh && !is_news {
                            missing.flight.offer(Landed::new(entry.clone(), Source::Fresh(Tier::L2)));
                        }
                        missing.fallback = Some(Fallback { entry, tier: Tier::L2 });
                    }
                    wanted.push(missing);
                }
            }
        }
        wanted
    }

    /// Lands what memory was to ask the store about and is fresh by its TTL.
    fn do_without_store(&self, mut missing: Vec<Wanted>, now: Timestamp) -> Vec<Wanted> {
        if self.occasion == Occasion::Miss {
            missing.retain(|wanted| {
                let key = wanted.flight.key();
                let Some(entry) = self.core.probe_unasked(&self.door.space, key, now) else {
                    return true;
                };
                !self.land_known(&wanted.flight, Landed::new(entry, Source::Fresh(Tier::L1)))
            });
        }
        missing
    }

    /// Lands a key whose source is left alone with what there is. What there is is also offered to those who do
    /// not want to wait for the load of others.
    fn is_left_alone(&self, wanted: &Wanted) -> bool {
        let Some(fallback) = &wanted.fallback else { return false };
        let monotonic = || self.core.clock.monotonic();
        let rest = self.core.rests.find(self.door.space.id, wanted.flight.key(), monotonic);
        if let Some(Rest { until, why }) = &rest {
            let (space, key) = (&*self.door.space, wanted.flight.key());
            let (left, error) = (until.saturating_sub(monotonic()), || why.to_string());
            // Before it lands: then the callers who wait go on.
            self.core.note(space, key, || Fact::LeftAlone { left, error: error() });
            if self.land_known(&wanted.flight, fallback.landed(Some(why.clone()))) {
                return true;
            }
        }
        wanted.flight.offer(fallback.landed(None));
        false
    }

    fn land_found(&self, flight: &Arc<Flight>, entry: &Entry, payload_bytes: usize) -> bool {
        let value_bytes = self.door.weigh_encoded(&entry.value, payload_bytes);
        self.insert(flight, entry, value_bytes);
        self.core.slide(&self.door, flight.key(), &entry.meta, self.core.clock.now());
        self.land_known(flight, Landed::new(entry.clone(), Source::Fresh(Tier::L2)))
    }

    /// Lands what was there before the load, unless it has been invalidated since it was found.
    fn land_known(&self, flight: &Arc<Flight>, landed: Landed) -> bool {
        let Self { core, door, .. } = self;
        let meta = landed.entry.meta.clone();
        let hard = || core.spaces.mark(&door.space, meta.born, meta.tags()).hard;
        core.flights.finish_if(flight, Ok(landed), || meta.born > hard())
    }

    /// Brings an entry into memory unless its flight was superseded; true if it was not.
    fn insert(&self, flight: &Arc<Flight>, entry: &Entry, value_bytes: usize) -> bool {
        let Self { core, door, .. } = self;
        let mut evicted = Vec::new();
        let held = (entry, core.memory_until(&self.options, core.clock.now()));
        let landed = core.flights.land(flight, || {
            core.insert_in_memory(&door.space, flight.key(), held, value_bytes, &mut evicted)
        });
        core.report_evicted(evicted);
        if landed.is_some() && core.memory.is_some() {
            core.note(&door.space, flight.key(), || Fact::Kept { tier: Tier::L1 });
        }
        landed.is_some()
    }

    async fn load(&self, mut wanted: Vec<Wanted>, request: Request, on_failure: OnFailure) {
        let Self { core, door, .. } = self;
        let Request { extras, load, .. } = request;
        let options = &self.options;
        // Taken now, not when the value arrives: whatever is written or deleted from here on wins over it.
        let began = core.clock.now();
        for wanted in &mut wanted {
            // What was invalidated since it was found is no previous value either.
            wanted.fallback.take_if(|known| !core.may_serve(&door.space, &known.entry, began));
        }
        let stamp = core.clock.tick(began);
        let started = core.clock.monotonic();
        let first = wanted.first().map_or("", |wanted| wanted.flight.key());
        let span = (&**core, door.space.keys.path(), first, wanted.len());
        let loaded = span::of_load(span, run_loader(&wanted, load, began)).await;
        let took = core.clock.monotonic().saturating_sub(started);
        core.stats.time(Timed::Load, took);
        let now = core.clock.now();

        let mut by_key = match loaded {
            Ok(loads) => loads.into_iter().collect::<HashMap<_, _>>(),
            Err(error) => {
                for wanted in &wanted {
                    self.fail(wanted, &error, took, now);
                }
                return;
            }
        };
        let mut keeping = Vec::with_capacity(wanted.len());
        for wanted in wanted {
            let key = wanted.flight.key();
            match by_key.remove(key) {
                Some(Ok(answer)) => {
                    core.emit(&Event::Loaded { namespace: door.space.keys.path(), key, took });
                    match answer.entry(wanted.previous(), options, extras.as_ref(), (stamp, took), now) {
                        Some(entry) => {
                            core.note(&door.space, key, || Fact::Loaded {
                                took,
                                outcome: Load::Value {
                                    ttl: entry.meta.ttl_left(now),
                                    unchanged: wanted.is_unchanged(&entry),
                                },
                            });

                            core.rests.wake(door.space.id, key);
                            keeping.push(Keeping { flight: wanted.flight, entry, value_bytes: 0 });
                        }
                        None => {
                            let message = format!(
                                "the loader of key {key:?} says \"unchanged\", and there was nothing before"
                            );
                            self.fail(&wanted, &Error::new(ErrorKind::Load, message), took, now);
                        }
                    }
                }
                Some(Err(error)) => self.fail(&wanted, &error, took, now),
                None => {
                    let message = format!("the loader returned nothing for key {key:?}");
                    self.fail(&wanted, &Error::new(ErrorKind::Load, message), took, now);
                }
            }
        }
        // What is over as soon as it is there is given to those who waited, and not kept.
        let (passing, keeping): (Vec<_>, Vec<_>) =
            keeping.into_iter().partition(|kept| kept.entry.meta.fresh_until <= now);
        for kept in &passing {
            core.note(&door.space, kept.flight.key(), || Fact::NotKept { why: NotKept::Asked });
            self.land_loaded(kept);
        }
        self.keep(keeping, took, now, on_failure).await;
    }

    fn land_loaded(&self, kept: &Keeping) {
        let landed = Landed::new(kept.entry.clone(), Source::Loader);
        self.core.flights.finish(&kept.flight, Ok(landed));
    }

    fn supersede(&self, kept: &Keeping, why: NotKept) {
        let namespace = self.door.space.keys.path();
        self.core.note(&self.door.space, kept.flight.key(), || Fact::NotKept { why });
        self.core.emit(&Event::LoadSuperseded { namespace, key: kept.flight.key() });
        self.land_loaded(kept);
    }

    /// Stores what was loaded, store first, and lands it. What something newer came before is given to those
    /// who waited and not kept.
    async fn keep(&self, loaded: Vec<Keeping>, took: Duration, now: Timestamp, on_failure: OnFailure) {
        let Self { core, door, .. } = self;
        // A tombstone that would bury it may have gone by now.
        let is_late = took > core.load_max;
        let (mut keeping, superseded): (Vec<_>, Vec<_>) =
            loaded.into_iter().partition(|kept| !is_late && core.flights.land(&kept.flight, || ()).is_some());
        for kept in &superseded {
            self.supersede(kept, if is_late { NotKept::TooLate } else { NotKept::Superseded });
        }

        let refused = match self.write(&mut keeping, took, now, on_failure).await {
            Ok(refused) => refused,
            Err(error) => {
                for kept in &keeping {
                    core.flights.finish(&kept.flight, Err(error.clone()));
                }
                return;
            }
        };
        for (kept, refused) in keeping.into_iter().zip(refused) {
            if refused || !self.insert(&kept.flight, &kept.entry, kept.value_bytes) {
                if !refused && core.l2.is_some() {
                    // What overtook it in memory may be the older one of the two in the store.
                    core.hear_of_newer(&door.space, kept.flight.key(), kept.entry.meta.stamp);
                }
                self.supersede(&kept, if refused { NotKept::NewerInStore } else { NotKept::Superseded });
                continue;
            }
            core.emit_written(&door.space, kept.flight.key(), kept.entry.meta.fresh_until, now);
            self.land_loaded(&kept);
        }
    }

    /// Writes to the store, and says for each whether something newer refused it. Fills in what each weighs.
    async fn write(
        &self,
        keeping: &mut [Keeping],
        took: Duration,
        now: Timestamp,
        on_failure: OnFailure,
    ) -> Result<Vec<bool>> {
        let Self { core, door, .. } = self;
        let mut refused = vec![false; keeping.len()];
        let Some(l2) = &core.l2 else {
            for kept in keeping {
                kept.value_bytes = (door.weigh)(&kept.entry.value);
            }
            return Ok(refused);
        };
        let mut writes = Vec::with_capacity(keeping.len());
        let mut places = Vec::with_capacity(keeping.len());
        for (place, kept) in keeping.iter_mut().enumerate() {
            let encoded = door.space.keys.full(kept.flight.key()).and_then(|full| {
                let (record, value_bytes) = core.encode(door, &full, &kept.entry.value, &kept.entry.meta)?;
                Ok((full, record, value_bytes))
            });
            match encoded {
                Ok((key, value, value_bytes)) => {
                    kept.value_bytes = value_bytes;
                    let ttl = kept.entry.meta.life_left(now);
                    writes.push(Write { key, value, ttl, when: When::Newer });
                    places.push(place);
                }
                Err(error) => {
                    kept.value_bytes = (door.weigh)(&kept.entry.value);
                    core.l2_failed("encode", &error, on_failure);
                    if on_failure == OnFailure::Return {
                        return Err(error);
                    }
                }
            }
        }
        let for_later = if core.retry.is_some() { writes.clone() } else { Vec::new() };
        let written = match l2.write_many(core, "set", writes, on_failure).await {
            Ok(written) => written,
            Err(error) if on_failure == OnFailure::Suppress => {
                let lost = places.iter().filter_map(|place| keeping.get(*place)).zip(for_later);
                self.retry_later(lost, took, &error);
                return Ok(refused);
            }
            Err(error) => return Err(error),
        };
        for (place, written) in places.into_iter().zip(written) {
            if let (Written::Refused { by }, Some(refused)) = (written, refused.get_mut(place)) {
                // The next stamp of this process is then above it. One that is not believed refuses as well; it
                // is removed by the read that finds it.
                core.clock.observe(by.unwrap_or(Stamp::ZERO), now);
                *refused = true;
            }
        }
        Ok(refused)
    }

    /// Remembers what was loaded and the store did not take, unless its key was changed meanwhile: by the time
    /// it is tried again, what would refuse it may have lived its life.
    fn retry_later<'a>(
        &self,
        lost: impl Iterator<Item = (&'a Keeping, Write)>,
        took: Duration,
        error: &Error,
    ) {
        let space = &*self.door.space;
        // The call took no longer than its deadline.
        let age = took.saturating_add(self.core.l2.as_ref().map_or(Duration::ZERO, |l2| l2.deadline));
        for (kept, Write { key, value, .. }) in lost {
            if self.core.flights.land(&kept.flight, || ()).is_none() {
                continue;
            }
            let (name, full, stamp) = (kept.flight.key(), key.as_str(), kept.entry.meta.stamp);
            let what = What::Entry { record: value };
            self.core.retry_later(Lost { space, name, full, stamp, age, is_load: true, what }, error);
        }
    }

    /// Ends a load that failed: with what was there before, if that is still within its grace.
    fn fail(&self, wanted: &Wanted, error: &Error, took: Duration, now: Timestamp) {
        let Self { core, door, .. } = self;
        let key = wanted.flight.key();
        core.emit(&Event::LoadFailed { namespace: door.space.keys.path(), key, error });
        let outcome = || Load::Failed { error: error.to_string() };
        core.note(&door.space, key, || Fact::Loaded { took, outcome: outcome() });
        if let Some(landed) = self.fallback(wanted, error, now) {
            // From now on, and no longer than there is something to serve.
            let pause = self.options.backoff_or_default().min(landed.entry.meta.stale_until.since(now));
            let monotonic = core.clock.monotonic();
            let until = monotonic.saturating_add(pause);
            core.rests.rest(door.space.id, key, Rest { until, why: error.clone() }, monotonic);
            if self.land_known(&wanted.flight, landed) {
                return;
            }
        }
        core.flights.finish(&wanted.flight, Err(error.clone()));
    }

    fn fallback(&self, wanted: &Wanted, error: &Error, now: Timestamp) -> Option<Landed> {
        let Self { core, door, .. } = self;
        let fallback = wanted.fallback.as_ref()?;
        if !core.may_serve(&door.space, &fallback.entry, now) {
            return None;
        }
        // A delete during the load wins over what was there before it, too.
        core.flights.land(&wanted.flight, || ())?;
        Some(fallback.landed(Some(error.clone())))
    }
}

impl Core {
    /// The record of a value under its full key, and the value's size in memory.
    ///
    /// # Errors
    /// [`ErrorKind::Encode`], or [`ErrorKind::TooLarge`] beyond the stack's limit.
    pub(crate) fn encode(
        &self,
        door: &Door,
        full: &str,
        value: &AnyValue,
        meta: &Meta,
    ) -> Result<(Bytes, usize)> {
        let Encoded { codec, schema, payload } = codec_of(door)?.encode(value, door.schema)?;
        if payload.len() as u64 > self.value_bytes_max {
            let message = format!(
                "the value of key {full:?} takes {} bytes, which is more than the limit of {}",
                payload.len(),
                self.value_bytes_max
            );
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        let record = wire::encode_entry(full, meta, codec, schema, &payload)?;
        Ok((record, door.weigh_encoded(value, payload.len())))
    }
}

/// Runs a loader on behalf of its flights. A panic is an error.
async fn run_loader(wanted: &[Wanted], load: BoxLoad, now: Timestamp) -> Result<Loads> {
    let Some((first, others)) = wanted.split_first() else { return Ok(Vec::new()) };
    let asked = wanted
        .iter()
        .map(|wanted| Asked {
            key: wanted.flight.key().to_owned(),
            previous: wanted.previous().cloned(),
            now,
        })
        .collect();
    // The other keys of the batch land when this loader does: whoever waits for one waits for it.
    let _bound: Vec<_> = others.iter().map(|other| other.flight.bind(&first.flight)).collect();
    let guarded = AssertUnwindSafe(async move { load(asked).await }).catch_unwind();
    match first.flight.run(guarded).await {
        Ok(loaded) => loaded,
        Err(panic) => {
            let message =
                format!("the loader of key {:?} panicked: {}", first.flight.key(), panic_text(&*panic));
            Err(Error::new(ErrorKind::Load, message))
        }
    }
}

pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("with something that is not text")
}
