//! What happened in a race, in the order in which it happened, and what must not have.
//!
//! One step of the checker is one step here, so a plain counter is a clock that everyone agrees on.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What has not happened yet.
const NEVER: u64 = u64::MAX;

/// Something that ends what was there before: a set, a delete, a clear.
#[derive(Debug)]
struct Change {
    by: &'static str,
    process: usize,
    began: u64,
    /// When it was acknowledged.
    ended: u64,
    kind: Kind,
}

/// What a change does to what was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// There is another value.
    Sets,
    /// There is none.
    Removes,
    /// It is no longer fresh, but whoever loads it already may go on.
    Ages,
    /// It turned out to be no change.
    Nothing,
}

#[derive(Debug)]
struct Running {
    process: usize,
    /// When its caller asked.
    asked: u64,
}

#[derive(Debug, Default)]
struct Events {
    now: u64,
    changes: Vec<Change>,
    /// For each value: when its load began, or its set had ended.
    born: HashMap<u32, u64>,
    pulled: Vec<u32>,
    running: Vec<Running>,
    loads: u64,
    lookups: HashMap<usize, u64>,
    problems: Vec<String>,
}

/// Everything that happened.
#[derive(Debug, Default)]
pub(crate) struct History(Mutex<Events>);

impl History {
    // Not one of the checker's locks: taking it is no step.
    fn events(&self) -> MutexGuard<'_, Events> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next moment.
    pub(crate) fn tick(&self) -> u64 {
        let mut events = self.events();
        events.now += 1;
        events.now
    }

    /// A value that nobody has used.
    pub(crate) fn value(&self) -> u32 {
        u32::try_from(self.tick()).unwrap()
    }

    /// How many loads have begun.
    pub(crate) fn loads(&self) -> u64 {
        self.events().loads
    }

    pub(crate) fn lookups(&self, process: usize) -> u64 {
        self.events().lookups.get(&process).copied().unwrap_or(0)
    }

    pub(crate) fn looks_up(&self, process: usize, keys: u64) {
        *self.events().lookups.entry(process).or_default() += keys;
    }

    /// A loader begins, on behalf of a call that began at `asked`. Where another one of its process is at it
    /// still, a change must have come between.
    pub(crate) fn load_begins(&self, process: usize, asked: u64, value: u32) {
        let now = self.tick();
        let mut events = self.events();
        events.born.insert(value, now);
        events.loads += 1;
        let others: Vec<u64> =
            events.running.iter().filter(|other| other.process == process).map(|other| other.asked).collect();
        if !others.is_empty() {
            // The older of two may be the later one to begin.
            let first = others.iter().copied().min().map_or(asked, |other| other.min(asked));
            let between = events.changes.iter().filter(|change| change.ended >= first).count();
            if between < others.len() {
                let loads = others.len() + 1;
                events.problems.push(format!(
                    "{loads} loads at once from {now}, the first asked for at {first}, and {between} changes since"
                ));
            }
        }
        events.running.push(Running { process, asked });
    }

    pub(crate) fn load_ends(&self, process: usize, asked: u64) {
        let mut events = self.events();
        let place = events.running.iter().position(|other| (other.process, other.asked) == (process, asked));
        if let Some(place) = place {
            events.running.swap_remove(place);
        }
    }

    /// A change begins; returns its number.
    pub(crate) fn change_begins(&self, by: &'static str, process: usize, kind: Kind) -> usize {
        let began = self.tick();
        let mut events = self.events();
        events.changes.push(Change { by, process, began, ended: NEVER, kind });
        events.changes.len() - 1
    }

    /// A load may begin while others of its process are at it.
    pub(crate) fn may_load_beside(&self, process: usize) {
        let change = self.change_begins("a load beside others", process, Kind::Nothing);
        self.change_ends(change, None);
    }

    /// A load that was forced at `began` came to this value.
    pub(crate) fn was_forced(&self, began: u64, value: u32) {
        let mut events = self.events();
        let born = events.born.get(&value).copied().unwrap_or(0);
        if born < began {
            events.problems.push(format!("a load forced at {began} came to {value}, born {born}"));
        }
    }

    /// It was acknowledged, and has set this value, if any.
    pub(crate) fn change_ends(&self, change: usize, value: Option<u32>) {
        let ended = self.tick();
        let mut events = self.events();
        events.changes[change].ended = ended;
        if let Some(value) = value {
            events.born.insert(value, ended);
        }
    }

    /// It turned out to change nothing.
    pub(crate) fn change_was_none(&self, change: usize) {
        self.events().changes[change].kind = Kind::Nothing;
    }

    /// A value that was taken away is taken once.
    pub(crate) fn was_pulled(&self, value: u32) {
        let mut events = self.events();
        if events.pulled.contains(&value) {
            events.problems.push(format!("{value} was pulled twice"));
        }
        events.pulled.push(value);
    }

    /// A lookup that began at `began` has ended. `reaches` says whether the changes of a process have to be known
    /// where it looked.
    pub(crate) fn looked(
        &self,
        by: &str,
        began: u64,
        seen: Option<u32>,
        is_definite: bool,
        reaches: impl Fn(usize) -> bool,
    ) {
        let mut events = self.events();
        let Events { changes, born, problems, .. } = &mut *events;
        let known = || changes.iter().filter(|change| reaches(change.process));
        match seen {
            Some(value) => {
                let born = born.get(&value).copied().unwrap_or(NEVER);
                let ends = |change: &&Change| matches!(change.kind, Kind::Sets | Kind::Removes);
                let mut overtaken =
                    known().filter(ends).filter(|change| change.ended < began && born < change.began);
                if let Some(Change { by: change, began: start, ended, .. }) = overtaken.next() {
                    problems.push(format!(
                        "{by} from {began} found {value}, born {born}, after {change} from {start} to {ended}"
                    ));
                }
            }
            None if is_definite => {
                // What was set and acknowledged is there, unless something took it away since.
                let takes = |change: &Change| matches!(change.kind, Kind::Removes | Kind::Ages);
                let mut lost = known()
                    .filter(|set| set.kind == Kind::Sets && set.ended < began)
                    .filter(|set| !changes.iter().any(|other| takes(other) && other.ended > set.began));
                if let Some(Change { by: set, began: start, ended, .. }) = lost.next() {
                    problems
                        .push(format!("{by} from {began} found nothing after {set} from {start} to {ended}"));
                }
            }
            None => {}
        }
    }

    /// Says what was wrong.
    pub(crate) fn problem(&self, problem: String) {
        self.events().problems.push(problem);
    }

    /// Fails if anything was.
    pub(crate) fn check(&self) {
        let events = self.events();
        assert!(events.problems.is_empty(), "{:#?}\n{:#?}", events.problems, events.changes);
    }
}
