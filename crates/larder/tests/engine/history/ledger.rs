//! What was promised of each key, as a list of moments: simple enough to be believed without a test of its own.
//!
//! Every step of a sequence gets the next number, and so does every value, at the moment when it was set or its
//! load began. So whether a value is older than a delete is a comparison of two numbers.

use std::collections::HashMap;
use std::time::Duration;

use larder::time::{Timestamp, Ttl};
use tokio::sync::oneshot;

/// The namespaces: the outermost, and one inside it.
pub(super) const SPACES: [&str; 2] = ["", "n"];
pub(super) const KEYS: [&str; 2] = ["a", "b"];
pub(super) const TAGS: [&str; 2] = ["x", "y"];
/// One for each key of each namespace.
pub(super) const SLOTS: usize = SPACES.len() * KEYS.len();

pub(super) fn slot(space: usize, key: usize) -> usize {
    space * KEYS.len() + key
}

pub(super) fn space_of(slot: usize) -> usize {
    slot / KEYS.len()
}

pub(super) fn key_of(slot: usize) -> &'static str {
    KEYS[slot % KEYS.len()]
}

/// How long a value lives, and which of [`TAGS`] it carries.
#[derive(Debug, Clone, Copy)]
pub(super) struct Life {
    pub(super) ttl: Ttl,
    pub(super) grace: Duration,
    pub(super) tags: &'static [usize],
}

impl Life {
    pub(super) fn tags<'a>(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.tags.iter().map(|tag| TAGS[*tag])
    }
}

/// How a lookup ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// A hit.
    Fresh,
    /// A hit past its freshness.
    Stale,
    /// It was loaded, be it by somebody else.
    Miss,
}

/// The moments before which nothing may be found any more.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Floors {
    /// Of each key: sets, deletes and hard clears.
    gone: [u64; SLOTS],
    /// Of each key: soft clears.
    stale: [u64; SLOTS],
    /// Of each tag, as it reaches each namespace.
    gone_tags: [[u64; TAGS.len()]; SPACES.len()],
    stale_tags: [[u64; TAGS.len()]; SPACES.len()],
    /// The last moment when they were these.
    as_of: u64,
}

/// A change that was acknowledged.
#[derive(Debug, Clone, Copy)]
pub(super) enum Change {
    /// A key was set or deleted.
    Key(usize),
    Clear {
        space: usize,
        soft: bool,
    },
    Tag {
        space: usize,
        tag: usize,
        soft: bool,
    },
}

impl Floors {
    fn raise(&mut self, change: Change, moment: u64) {
        let raise = |floor: &mut u64| *floor = moment.max(*floor);
        // What is done to a namespace is done to those inside it.
        match change {
            Change::Key(slot) => raise(&mut self.gone[slot]),
            Change::Clear { space, soft } => {
                let floors = if soft { &mut self.stale } else { &mut self.gone };
                floors[slot(space, 0)..].iter_mut().for_each(raise);
            }
            Change::Tag { space, tag, soft } => {
                let floors = if soft { &mut self.stale_tags } else { &mut self.gone_tags };
                floors[space..].iter_mut().for_each(|tags| raise(&mut tags[tag]));
            }
        }
    }

    fn of(&self, value: &Value, look: Look) -> u64 {
        let space = space_of(value.slot);
        let gone = value.tags.iter().map(|tag| self.gone_tags[space][*tag]);
        let gone = gone.fold(self.gone[value.slot], u64::max);
        if look == Look::Stale {
            return gone;
        }
        let stale = value.tags.iter().map(|tag| self.stale_tags[space][*tag]);
        stale.fold(self.stale[value.slot], u64::max).max(gone)
    }
}

/// What is known of a value.
#[derive(Debug, Clone)]
struct Value {
    slot: usize,
    tags: &'static [usize],
    /// Until when it may be served at most, by the wall clock.
    fresh_until: Timestamp,
    stale_until: Timestamp,
    /// The times when it was made stale, and what held until then. Who asked before that may still get it as it
    /// was, and say so later, under a clock that was set back since.
    before: Vec<(u64, Timestamp, Timestamp)>,
}

/// What was promised, and to whom.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    moment: u64,
    values: HashMap<u64, Value>,
    /// Of each key, the last time that it was made stale.
    expired: [u64; SLOTS],
    /// To whoever asks the stack that makes the changes.
    pub(super) here: Floors,
    /// To whoever asks the store.
    pub(super) there: Floors,
    /// The loads under way, oldest first: whether they are to succeed.
    gates: Vec<oneshot::Sender<bool>>,
    /// What loaders found wrong.
    complaints: Vec<String>,
}

impl Ledger {
    /// The next moment.
    pub(super) fn tick(&mut self) -> u64 {
        self.moment += 1;
        (self.here.as_of, self.there.as_of) = (self.moment, self.moment);
        self.moment
    }

    /// A value of a key, which is set, or begins to be loaded, now.
    pub(super) fn value(&mut self, slot: usize, life: Life) -> u64 {
        let value = self.tick();
        let (fresh_until, stale_until) = (Timestamp::ZERO, Timestamp::ZERO);
        self.values
            .insert(value, Value { slot, tags: life.tags, fresh_until, stale_until, before: Vec::new() });
        value
    }

    /// A value begins to live. What was set or loaded before an `expire` is past that already.
    pub(super) fn lives(&mut self, value: u64, life: Life, now: Timestamp) {
        let Some(known) = self.values.get_mut(&value) else { return };
        if value > self.expired[known.slot] {
            known.fresh_until = known.fresh_until.max(life.ttl.ends_at(now));
            known.stale_until = known.stale_until.max(life.ttl.ends_at(now) + life.grace);
        }
    }

    /// Whatever a key has may have got another TTL, with the longest grace that there is.
    pub(super) fn touched(&mut self, slot: usize, ttl: Ttl, grace: Duration, now: Timestamp) {
        for value in self.values.values_mut().filter(|value| value.slot == slot) {
            if value.fresh_until > Timestamp::ZERO {
                value.fresh_until = value.fresh_until.max(ttl.ends_at(now));
                value.stale_until = value.stale_until.max(ttl.ends_at(now) + grace);
            }
        }
    }

    /// A key was made stale. That is a matter of times and not of stamps: a wall clock that is set back makes the
    /// entry fresh again, as it does with every other one whose end it had passed (decision 9).
    pub(super) fn expired(&mut self, slot: usize, moment: u64, grace: Duration, now: Timestamp) {
        self.expired[slot] = moment;
        for (at, value) in &mut self.values {
            if value.slot == slot && *at < moment {
                value.before.push((moment, value.fresh_until, value.stale_until));
                value.fresh_until = value.fresh_until.min(now);
                value.stale_until = value.stale_until.min(now + grace);
            }
        }
    }

    /// A change that began at a moment holds: in this process, in the store, or both.
    pub(super) fn promise(&mut self, change: Change, moment: u64, here: bool, there: bool) {
        if here {
            self.here.raise(change, moment);
        }
        if there {
            self.there.raise(change, moment);
        }
    }

    /// What is wrong with a value that was found under a key, by somebody who began to ask when these promises
    /// had been made.
    pub(super) fn fault(
        &self,
        slot: usize,
        found: u64,
        look: Look,
        promised: &Floors,
        now: Timestamp,
    ) -> Option<String> {
        let Some(value) = self.values.get(&found) else { return Some(format!("{found} was never there")) };
        if value.slot != slot {
            return Some(format!("{found} is the value of key {}, not of {slot}", value.slot));
        }
        let floor = promised.of(value, look);
        if found < floor {
            return Some(format!(
                "{found} was found ({look:?}) under key {slot} after the change at {floor}"
            ));
        }
        let (mut fresh_until, mut stale_until) = (value.fresh_until, value.stale_until);
        for (_, fresh, stale) in value.before.iter().filter(|(moment, ..)| *moment > promised.as_of) {
            (fresh_until, stale_until) = (fresh_until.max(*fresh), stale_until.max(*stale));
        }
        let until = match look {
            Look::Fresh => fresh_until,
            Look::Stale => stale_until,
            Look::Miss => Timestamp::FOREVER,
        };
        (now >= until && until != Timestamp::FOREVER)
            .then(|| format!("{found} was found ({look:?}) at {now:?}, and may be until {until:?}"))
    }

    /// Holds a load until it is let go.
    pub(super) fn gate(&mut self) -> oneshot::Receiver<bool> {
        let (gate, opened) = oneshot::channel();
        self.gates.push(gate);
        opened
    }

    /// Lets one of the loads under way end. False if there is none.
    pub(super) fn land(&mut self, which: usize, succeeds: bool) -> bool {
        if self.gates.is_empty() {
            return false;
        }
        let which = which % self.gates.len();
        // A load whose task is gone has nobody to tell.
        let _ = self.gates.remove(which).send(succeeds);
        true
    }

    pub(super) fn complain(&mut self, fault: Option<String>) {
        self.complaints.extend(fault);
    }

    pub(super) fn complaints(&self) -> &[String] {
        &self.complaints
    }
}
