//! Clears and tags: marks that every entry is compared with, not scans for entries.
//!
//! A mark is one record with two stamps: what was born until the soft one is stale, until the hard one gone. A
//! clear's mark reaches a namespace and those inside it, a tag's those of their entries that carry it. Beside the
//! tags' own marks there is one that is newer than all of them: an entry born after that is under no tag, and
//! its tags are not looked up. It is written last, so that whoever sees it finds the tag's.

use std::time::Duration;

use futures_util::future::try_join_all;

use crate::driver::Written;
use crate::entry::{Entry, wire};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::stack::l2::{Insist, L2, OnFailure, contended};
use crate::stack::recovery::Lost;
use crate::stack::retry::What;
use crate::stack::verdict::Mark;
use crate::stack::{Core, Space};
use crate::tag::Tag;
use crate::time::{Stamp, Timestamp};

/// How often a soft invalidation is tried against others.
const TRIES_MAX: u32 = 1_000;

/// What an invalidation leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hardness {
    /// Stale entries, which their grace may still serve.
    Soft,
    /// Nothing.
    Hard,
}

impl Hardness {
    fn mark(self, stamp: Stamp) -> Mark {
        match self {
            Self::Soft => Mark { hard: Stamp::ZERO, soft: stamp },
            Self::Hard => Mark { hard: stamp, soft: stamp },
        }
    }
}

/// An invalidation on its way to the store. If it is abandoned, its mark may be there or not: memory forgets
/// what is meant, whatever is under way there is not kept, and the next read hears of the mark.
struct Abandoned<'a> {
    core: &'a Core,
    space: &'a Space,
    /// Those whose entries are meant; `None` is all.
    tags: Option<&'a [Tag]>,
    armed: bool,
}

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let Self { core, space, tags, .. } = self;
        let inner = |namespace| core.spaces.by_id(namespace).is_some_and(|inner| inner.is_within(space.id));
        core.flights.supersede_all(inner);
        core.sweep(space, |entry| {
            tags.is_none_or(|tags| entry.meta.tags().iter().any(|tag| tags.contains(tag)))
        });
    }
}

impl Core {
    /// Clears a namespace and all inside it: a mark that every entry is compared with, then the space. Returns
    /// how many entries the store gave back, as far as it can tell.
    pub(crate) async fn clear(&self, space: &Space, hardness: Hardness, now: Timestamp) -> Result<u64> {
        // Of those whose writes this process has not heard of, all in this millisecond came before.
        let stamp = self.clock.tick_last(now);
        let mut abandoned = Abandoned { core: self, space, tags: None, armed: true };
        let marked = match &self.l2 {
            Some(l2) => self.mark(l2, "clear", &space.mark_key, hardness, stamp, now).await,
            None => Ok(hardness.mark(stamp)),
        };
        if let Err(error) = &marked {
            let what = What::Clear(hardness.mark(stamp));
            self.retry_mark_later(space, "", &space.mark_key, what, stamp, error);
        }
        abandoned.armed = false;
        // In this process the clear holds even if the store did not hear of it.
        let mark = *marked.as_ref().unwrap_or(&hardness.mark(stamp));
        self.spaces.raise(space, mark);
        if hardness == Hardness::Hard {
            self.sweep(space, |entry| entry.meta.born <= mark.hard);
        }
        marked?;
        // The mark holds already; this only gives back the space.
        let reclaimed = match &self.l2 {
            Some(l2) if hardness == Hardness::Hard => {
                l2.reclaim(self, &space.keys.prefixes(), mark.hard).await
            }
            _ => 0,
        };
        self.emit(&Event::Cleared { namespace: space.keys.path() });
        Ok(reclaimed)
    }

    /// Removes from memory what `is_meant` names in a namespace and those inside it.
    fn sweep(&self, space: &Space, is_meant: impl Fn(&Entry) -> bool) {
        let Some(memory) = &self.memory else { return };
        let gone = memory.retain(|namespace, _, entry| {
            !is_meant(entry) || !self.spaces.by_id(namespace).is_some_and(|inner| inner.is_within(space.id))
        });
        drop(gone);
    }

    /// Invalidates every entry of a namespace, and of those inside it, that carries one of some tags.
    pub(crate) async fn invalidate(
        &self,
        space: &Space,
        tags: &[Tag],
        hardness: Hardness,
        now: Timestamp,
    ) -> Result<()> {
        if tags.is_empty() {
            return Ok(());
        }
        // As with a clear: above what others have stamped in this millisecond.
        let stamp = self.clock.tick_last(now);
        let local = vec![hardness.mark(stamp); tags.len()];
        let mut abandoned = Abandoned { core: self, space, tags: Some(tags), armed: true };
        let marked = match &self.l2 {
            Some(l2) => self.mark_tags(l2, space, tags, hardness, stamp, now).await,
            None => Ok(local.clone()),
        };
        if let Err(error) = &marked {
            for tag in tags {
                let key = space.keys.tag_key(tag.as_str());
                let what = What::Tag(hardness.mark(stamp));
                self.retry_mark_later(space, tag.as_str(), &key, what, stamp, error);
            }
        }
        abandoned.armed = false;
        // In this process the invalidation holds even if the store did not hear of it.
        for (tag, mark) in tags.iter().zip(marked.as_ref().unwrap_or(&local)) {
            self.spaces.raise_tag(space, tag, *mark);
        }
        marked?;
        for tag in tags {
            let (namespace, tag) = (space.keys.path(), tag.as_str());
            self.emit(&Event::TagInvalidated { namespace, tag, soft: hardness == Hardness::Soft });
        }
        Ok(())
    }

    fn retry_mark_later(
        &self,
        space: &Space,
        name: &str,
        full: &str,
        what: What,
        stamp: Stamp,
        error: &Error,
    ) {
        let lost = Lost { space, name, full, stamp, age: Duration::ZERO, is_load: false, what };
        self.retry_later(lost, error);
    }

    async fn mark_tags(
        &self,
        l2: &L2,
        space: &Space,
        tags: &[Tag],
        hardness: Hardness,
        stamp: Stamp,
        now: Timestamp,
    ) -> Result<Vec<Mark>> {
        let keys: Vec<String> = tags.iter().map(|tag| space.keys.tag_key(tag.as_str())).collect();
        let writes = keys.iter().map(|key| self.mark(l2, "invalidate", key, hardness, stamp, now));
        let marks = try_join_all(writes).await?;
        let newest = marks.iter().map(|mark| mark.newest()).max().unwrap_or(stamp);
        let all = &self.spaces.tags_key;
        self.mark(l2, "invalidate", all, Hardness::Hard, newest, now).await?;
        Ok(marks)
    }

    /// Leaves a mark in the store, above whatever is there. Returns what the store then says.
    async fn mark(
        &self,
        l2: &L2,
        operation: &'static str,
        key: &str,
        hardness: Hardness,
        stamp: Stamp,
        now: Timestamp,
    ) -> Result<Mark> {
        if hardness == Hardness::Hard {
            let insist = Insist { operation, full: key, ttl: None, stamp };
            let encode = |stamp| wire::encode_mark(key, stamp, stamp);
            let (stamp, _) = l2.insist(self, insist, now, encode).await?;
            return Ok(hardness.mark(stamp));
        }
        // A soft one must not forget how far a hard one before it reached.
        for _ in 0..TRIES_MAX {
            let (known, expected) = l2.read_mark(self, key, now, OnFailure::Return).await?;
            let stamp = stamp.max(self.clock.tick(now));
            let record = wire::encode_mark(key, stamp, known.hard)?;
            let written = l2.swap(self, operation, (key, record, None), expected, OnFailure::Return).await?;
            if matches!(written, Written::Stored { .. }) {
                return Ok(Mark { hard: known.hard, soft: stamp });
            }
        }
        Err(contended(operation))
    }

    /// Raises the mark under a key to at least this one, long after the call that left it. True if that changed
    /// anything.
    pub(crate) async fn raise_mark(&self, l2: &L2, key: &str, mark: Mark, now: Timestamp) -> Result<bool> {
        for _ in 0..TRIES_MAX {
            let (known, expected) = l2.read_mark(self, key, now, OnFailure::Suppress).await?;
            let both = known.and(mark);
            if both == known {
                return Ok(false);
            }
            // Where only the hard stamp rises, the record gets the next stamp and not one of now: what was born
            // since is not meant.
            let next = Stamp::from_bits(known.newest().to_bits().saturating_add(1));
            let stamp = if both.newest() > known.newest() { both.newest() } else { next };
            let record = wire::encode_mark(key, stamp, both.hard)?;
            let written = l2.swap(self, "retry", (key, record, None), expected, OnFailure::Suppress).await?;
            if matches!(written, Written::Stored { .. }) {
                return Ok(true);
            }
        }
        Err(contended("retry"))
    }
}
