//! Refresh-ahead: keys that are loaded again before they end, asked for or not, until nobody has asked for a while.
//!
//! One task a key sleeps until its entry is due and renews it like any other renewal: one load a key, and no load while
//! the source is left alone. The task ends when nobody asked, when the stack is closed, or when it is gone.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use crate::entry::{Freshness, Meta};
use crate::event::Event;
use crate::stack::fill::Request;
use crate::stack::flight::Patience;
use crate::stack::{Core, Door};
use crate::time::{Stamp, Timestamp};

/// How many keys of a stack may be refreshed ahead at once. Beyond it, a key is loaded when it is asked for.
pub const REFRESH_AHEAD_MAX: usize = 10_000;
/// How long a task sleeps at least, whatever the TTL.
const NAP_MIN: Duration = Duration::from_millis(100);

/// When a key was asked for last, in milliseconds of the wall clock.
type LastAsked = Arc<AtomicU64>;

/// Makes the request of one more load, as often as is wanted.
pub(crate) type Again = Box<dyn FnMut() -> Request + Send>;

/// The keys of a stack that are refreshed ahead, and when they were asked for last.
#[derive(Debug, Default)]
pub(crate) struct Aheads {
    asked: Mutex<HashMap<(u32, Box<str>), LastAsked>>,
    /// Whether the limit has been reached and told since there was room.
    is_full: AtomicBool,
}

impl Aheads {
    /// Notes that a key was asked for. A new one has to be looked after by the caller; `None` if there are too many.
    fn ask(&self, namespace: u32, key: &str, now: Timestamp) -> Option<Asked> {
        let mut asked = self.asked.lock();
        if let Some(last) = asked.get(&(namespace, key.into())) {
            last.fetch_max(now.as_millis(), Ordering::Relaxed);
            return Some(Asked::Again);
        }
        if asked.len() >= REFRESH_AHEAD_MAX {
            return None;
        }
        let last = Arc::new(AtomicU64::new(now.as_millis()));
        asked.insert((namespace, key.into()), Arc::clone(&last));
        self.is_full.store(false, Ordering::Relaxed);
        Some(Asked::First(last))
    }

    fn forget(&self, namespace: u32, key: &str) {
        self.asked.lock().remove(&(namespace, key.into()));
    }

    /// How many keys are refreshed ahead.
    pub(crate) fn len(&self) -> usize {
        self.asked.lock().len()
    }
}

enum Asked {
    First(LastAsked),
    Again,
}

impl Core {
    /// Has a key refreshed ahead until nobody has asked for it for `idle`.
    pub(crate) fn refresh_ahead(
        self: &Arc<Self>,
        door: &Arc<Door>,
        key: &str,
        idle: Duration,
        now: Timestamp,
        again: impl FnOnce() -> Option<Again>,
    ) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        match self.aheads.ask(door.space.id, key, now) {
            Some(Asked::Again) => {}
            Some(Asked::First(last)) => {
                let keeper = Keeper {
                    core: Weak::clone(&self.this),
                    door: Arc::clone(door),
                    key: key.into(),
                    idle,
                    last,
                };
                match again() {
                    Some(again) => drop(runtime.spawn(keeper.run(again))),
                    None => drop(keeper),
                }
            }
            None if self.aheads.is_full.swap(true, Ordering::Relaxed) => {}
            None => self.emit(&Event::AheadFull { namespace: door.space.keys.path(), key }),
        }
    }
}

/// Who looks after one key. However its task ends, the key can be looked after anew.
struct Keeper {
    core: Weak<Core>,
    door: Arc<Door>,
    key: Box<str>,
    idle: Duration,
    last: LastAsked,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(core) = self.core.upgrade() {
            core.aheads.forget(self.door.space.id, &self.key);
        }
    }
}

impl Keeper {
    async fn run(self, mut again: Again) {
        let mut load_time = Duration::ZERO;
        // When what was loaded last is due, for when no tier has kept it.
        let mut next = Timestamp::ZERO;
        loop {
            let Some(core) = self.core.upgrade() else { return };
            let request = again();
            let nap = self.nap(&core, load_time, next).await;
            let left = self.idle.saturating_sub(core.clock.now().since(self.last()));
            drop(core);
            // No longer than somebody may ask.
            tokio::time::sleep(nap.min(left.max(NAP_MIN))).await;

            let Some(core) = self.core.upgrade() else { return };
            let now = core.clock.now();
            if core.check_open().is_err() || now.since(self.last()) >= self.idle {
                return;
            }
            // Somebody may have renewed it meanwhile, in this process or another.
            let found = self.find(&core, now).await;
            if nap_of(found.as_ref(), load_time, next, now) > NAP_MIN {
                continue;
            }
            let stamp = found.map_or(Stamp::ZERO, |meta| meta.stamp);
            let backoff = request.options.backoff_or_default();
            let started = core.clock.monotonic();
            let mut has_failed = false;
            for flight in core.renew(&self.door, &[(&self.key, stamp)], now, request) {
                // What comes of it is told to observers.
                match flight.wait(Patience::default(), |_| Freshness::Expired).await {
                    Ok(landed) => {
                        let meta = &landed.entry.meta;
                        has_failed |= meta.fresh_until <= now;
                        next = due(meta, load_time);
                    }
                    Err(_) => has_failed = true,
                }
            }
            load_time = core.clock.monotonic().saturating_sub(started);
            drop(core);
            if has_failed {
                // Where something stale is left the key rests; where nothing is, or is kept, only this task knows.
                tokio::time::sleep(backoff).await;
            }
        }
    }

    /// When it was asked for last.
    fn last(&self) -> Timestamp {
        Timestamp::from_millis(self.last.load(Ordering::Relaxed))
    }

    /// How long until it is to be looked at again.
    async fn nap(&self, core: &Core, load_time: Duration, next: Timestamp) -> Duration {
        let now = core.clock.now();
        let monotonic = || core.clock.monotonic();
        match core.rests.find(self.door.space.id, &self.key, monotonic) {
            Some(rest) => rest.until.saturating_sub(monotonic()).max(NAP_MIN),
            None => nap_of(self.find(core, now).await.as_ref(), load_time, next, now),
        }
    }

    /// What is known of the fresh entry, if there is one.
    async fn find(&self, core: &Core, now: Timestamp) -> Option<Meta> {
        match core.inspect(&self.door, &self.key, now).await {
            Ok(Some((entry, Freshness::Fresh, _))) => Some(entry.meta),
            // A store that fails says nothing, and is reported.
            _ => None,
        }
    }
}

/// How long until an entry is due. One that is not there is being loaded by whoever asked for it first, or was not
/// kept: then what was loaded last says when it would be.
fn nap_of(found: Option<&Meta>, load_time: Duration, next: Timestamp, now: Timestamp) -> Duration {
    found.map_or(next, |meta| due(meta, load_time)).since(now).max(NAP_MIN)
}

/// When an entry is due: a tenth of its life, and twice what a load takes, before it ends.
fn due(meta: &Meta, load_time: Duration) -> Timestamp {
    if meta.fresh_until == Timestamp::FOREVER {
        return Timestamp::FOREVER;
    }
    let life = meta.fresh_until.since(meta.born.timestamp());
    let margin = (life / 10).max(load_time.saturating_mul(2)).min(life / 2);
    meta.born.timestamp() + (life - margin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{Ttl, seconds};

    #[test]
    fn an_entry_is_due_a_tenth_of_its_life_and_two_loads_before_its_end() {
        let born = Timestamp::from_millis(1_000_000);
        let meta = Meta::new(Stamp::at(born), born, Ttl::For(seconds(100)), seconds(7));
        assert_eq!(due(&meta, seconds(0)), born + seconds(90));
        assert_eq!(due(&meta, seconds(20)), born + seconds(60));
        assert_eq!(due(&meta, seconds(70)), born + seconds(50));
        let forever = Meta::new(Stamp::at(born), born, Ttl::Forever, seconds(0));
        assert_eq!(due(&forever, seconds(1)), Timestamp::FOREVER);
    }

    #[test]
    fn keys_that_are_refreshed_ahead_are_bounded() {
        let aheads = Aheads::default();
        let now = Timestamp::from_millis(1);
        for n in 0..REFRESH_AHEAD_MAX {
            assert!(matches!(aheads.ask(0, &n.to_string(), now), Some(Asked::First(_))));
        }
        assert!(aheads.ask(0, "more", now).is_none());
        assert!(matches!(aheads.ask(0, "7", now), Some(Asked::Again)));
        aheads.forget(0, "7");
        assert!(matches!(aheads.ask(0, "more", now), Some(Asked::First(_))));
        assert_eq!(aheads.len(), REFRESH_AHEAD_MAX);
    }
}
