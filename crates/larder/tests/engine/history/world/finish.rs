//! The end of every sequence, when everything works again.

use std::time::Duration;

use larder::time::{Clock as _, Ttl, hours};

use super::super::ledger::{Life, Look, SLOTS, space_of};
use super::super::step::{Reading, Step};
use super::{Answer, Held, World, watched};

impl World {
    /// Everything works again: what is remembered lands, what was promised holds everywhere, and a TTL later the
    /// newest values are found.
    pub(in super::super) async fn finish(mut self) -> Held {
        self.end_calls().await;
        self.chaos.heal();
        while let Some(answer) = self.callers.join_next().await {
            self.came_back(answer)?;
        }
        for _ in 0..20 {
            self.clock.advance_with_timers(Duration::from_millis(50)).await;
            self.settle().await?;
            while self.ledger.lock().land(0, true) {
                self.settle().await?;
            }
            // The call that tries the store.
            if self.stack.ping().await.is_ok() && self.stack.pending_writes() == 0 {
                break;
            }
        }
        self.stack.ping().await.map_err(|error| format!("the store works, and is refused: {error}"))?;
        if self.stack.pending_writes() > 0 {
            return Err(format!("{} writes are still remembered", self.stack.pending_writes()));
        }
        if self.kind.remembers {
            let mut ledger = self.ledger.lock();
            ledger.there = ledger.here;
        }
        self.look_everywhere().await?;
        self.clock.advance_with_timers(hours(100)).await;
        self.load_everything().await?;
        self.books_balance().await
    }

    async fn look_everywhere(&mut self) -> Held {
        for slot in 0..SLOTS {
            for step in [Step::GetStale(slot), Step::Entry(slot)] {
                self.look_up(&step).await?;
            }
            for reading in [Reading::Many, Reading::Entry] {
                self.look_up_there(slot, reading).await?;
            }
        }
        self.count(&Step::ReadCount).await
    }

    async fn load_everything(&mut self) -> Held {
        let life = Life { ttl: Ttl::For(hours(1)), grace: Duration::ZERO, tags: &[0, 1] };
        for slot in 0..SLOTS {
            let (cache, key) = self.handle(slot);
            let (promised, source) = (self.promised(), self.source(slot, life));
            let at = self.clock.now();
            let request = cache.get_or_set(key, move || source.load(true)).ttl(life.ttl).tags(life.tags());
            let (loaded, seen) = watched(request).await;
            let loaded = loaded.map_err(|error| format!("everything works, and {error}"))?;
            let found = vec![(key, Some(*loaded))];
            let is_new = matches!(seen[..], [(_, Look::Miss)]);
            self.check(&Answer { space: space_of(slot), found, seen, promised, at })?;
            if !is_new {
                // It lasts forever.
                continue;
            }
            let (again, _) = watched(cache.get(key)).await;
            self.lookups += 1;
            let mut found = vec![again];
            if let Some(there) = self.there.get(space_of(slot)) {
                found.push(there.get(key).await);
            }
            for found in found {
                let found = found.map_err(|error| error.to_string())?;
                if found.as_deref() != Some(&*loaded) {
                    return Err(format!("loaded {loaded} under key {slot}, and then found {found:?}"));
                }
            }
        }
        Ok(())
    }

    async fn books_balance(&mut self) -> Held {
        for _ in 0..100 {
            if self.stack.check_invariants().is_ok() {
                break;
            }
            tokio::task::yield_now().await;
        }
        self.stack.check_invariants()?;
        let (counted, least) = (self.stack.stats().lookups(), self.lookups);
        let most = least + self.lookups_given_up;
        if counted < least || counted > most {
            return Err(format!("{counted} lookups were counted, and there were {least} to {most}"));
        }
        let stats = self.stack.stats();
        let ended = stats.retries_landed + stats.retries_yielded + stats.retries_dropped;
        (stats.retries_remembered == ended)
            .then_some(())
            .ok_or_else(|| format!("{} writes were remembered, and {ended} ended", stats.retries_remembered))
    }
}
