//! What the engine tells of itself to whoever has an operation explained.

use std::time::Duration;

use crate::entry::{Freshness, Meta};
use crate::event::{Event, Fate, Subject};
use crate::explain::{self, Because, Fact, Finding, Span, Step};
use crate::stack::Core;
use crate::stack::space::Space;
use crate::time::{Stamp, Timestamp};

impl Core {
    /// Tells a step, if anybody listens.
    #[inline]
    pub(crate) fn note(&self, space: &Space, key: &str, what: impl FnOnce() -> Fact) {
        if explain::is_on() {
            self.tell_of(space, key, what);
        }
    }

    /// Out of the way of what nobody has explained.
    #[cold]
    #[inline(never)]
    fn tell_of(&self, space: &Space, key: &str, what: impl FnOnce() -> Fact) {
        self.tell(space.keys.path(), Some(key), what());
    }

    /// As [`Core::note`], of a step that is about several keys or none.
    pub(crate) fn note_all(&self, what: impl FnOnce() -> Fact) {
        if explain::is_on() {
            self.tell("", None, what());
        }
    }

    #[cold]
    fn tell(&self, namespace: &str, key: Option<&str>, what: Fact) {
        let step = Step {
            at: Duration::ZERO,
            stack: self.name.to_string(),
            namespace: namespace.to_owned(),
            key: key.map(str::to_owned),
            what,
        };
        explain::record(self.clock.monotonic(), step);
    }

    /// What an entry is at `now`, and what decided that. Memory may serve one until `until` without asking the store.
    pub(crate) fn finding(&self, space: &Space, meta: &Meta, until: Timestamp, now: Timestamp) -> Finding {
        let freshness = self.standing(space, meta, now);
        let has_to_ask = freshness == Freshness::Fresh && now >= until && until != Timestamp::FOREVER;
        let because = match freshness {
            Freshness::Fresh if has_to_ask => Because::MemoryTtl,
            Freshness::Fresh => Because::Times,
            _ => decisive(space, meta, now).unwrap_or(Because::Times),
        };
        let left = |end: Timestamp| (end != Timestamp::FOREVER).then(|| end.since(now));
        Finding::Entry {
            freshness: if has_to_ask { Freshness::Stale } else { freshness },
            because,
            age: meta.age(now),
            ttl_left: left(meta.fresh_until),
            life_left: left(meta.stale_until),
            stamp: meta.stamp,
        }
    }

    /// Tells what observers are told, where it says more than the steps do.
    pub(crate) fn note_event(&self, event: &Event<'_>) {
        let what = match *event {
            Event::Hit { tier, stale, .. } => Fact::Hit { tier, stale },
            Event::Miss { .. } => Fact::Miss,
            Event::Damaged { damage, .. } => Fact::Damaged { damage },
            // Steps of their own.
            Event::Loaded { .. }
            | Event::LoadFailed { .. }
            | Event::LoadSuperseded { .. }
            | Event::LoadReplaced { .. }
            | Event::L2Failed { .. }
            | Event::L2Refused { .. } => return,
            _ => Fact::Told { event: event.name().to_owned(), detail: detail_of(event) },
        };
        self.tell(event.namespace().unwrap_or_default(), event.key(), what);
    }
}

/// What an event says besides its name and key.
fn detail_of(event: &Event<'_>) -> String {
    match event {
        Event::Written { ttl: Some(ttl), .. } => format!("fresh for {}", Span(*ttl)),
        Event::Written { ttl: None, .. } => "fresh forever".to_owned(),
        Event::Deleted { existed, .. } => {
            (if *existed { "there was one" } else { "there was none" }).to_owned()
        }
        Event::TagInvalidated { tag, soft, .. } => {
            format!("{tag:?}{}", if *soft { ", softly" } else { "" })
        }
        Event::Cleared { namespace } if !namespace.is_empty() => format!("namespace {namespace:?}"),
        Event::Evicted { cause, .. } => format!("{cause:?}").to_lowercase(),
        Event::BreakerOpened { pause } => format!("the store is left alone for {pause:?}"),
        Event::FailedWrite { write, fate, .. } => {
            let write = match write {
                Subject::Key(key) => format!("of key {key:?}"),
                Subject::Tag(tag) => format!("of tag {tag:?}"),
                Subject::All => "of a clear".to_owned(),
            };
            match fate {
                Fate::Remembered => format!("{write}, remembered to be tried again"),
                Fate::Landed => format!("{write}, landed"),
                Fate::Yielded => format!("{write}, yielded to something newer"),
                Fate::Dropped(cause) => format!("{write}, dropped: {cause:?}"),
            }
        }
        Event::Undecodable { error, .. } => error.to_string(),
        _ => String::new(),
    }
}

/// The clear or tag that put an end to an entry: the hard ones first, the newest of them.
fn decisive(space: &Space, meta: &Meta, now: Timestamp) -> Option<Because> {
    let ago = |stamp: Stamp| now.since(stamp.timestamp());
    let mut found: Option<(bool, Stamp, Because)> = None;
    let mut consider = |is_hard: bool, stamp: Stamp, because: Because| {
        let is_first = found.as_ref().is_none_or(|(hard, newest, _)| (*hard, *newest) < (is_hard, stamp));
        if stamp >= meta.born && stamp != Stamp::ZERO && is_first {
            found = Some((is_hard, stamp, because));
        }
    };
    for around in space.chain() {
        let cleared = around.cleared();
        for (soft, stamp) in [(false, cleared.hard), (true, cleared.soft)] {
            let cleared = around.keys.path().to_owned();
            consider(!soft, stamp, Because::Cleared { cleared, soft, ago: ago(stamp) });
        }
        for (tag, mark) in around.marks_of(meta.tags()) {
            for (soft, stamp) in [(false, mark.hard), (true, mark.soft)] {
                consider(!soft, stamp, Because::Tag { tag: tag.as_str().to_owned(), soft, ago: ago(stamp) });
            }
        }
    }
    found.map(|(.., because)| because)
}
