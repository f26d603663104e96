//! What a read or a change holds while it is under way: see [`Flights::begin_read`] and [`Flights::begin_write`].
//! Dropping it takes the announcement back.

use crate::stack::flights::{Flights, Slot};

/// The announcement of a read, withdrawn when dropped.
#[derive(Debug)]
pub(crate) struct ReadTicket<'a> {
    pub(super) flights: &'a Flights,
    pub(super) hash: u64,
    pub(super) namespace: u32,
    pub(super) key: &'a str,
    pub(super) ticket: u64,
}

impl ReadTicket<'_> {
    /// Changes the memory tier, if no write came between.
    pub(crate) fn land<R>(self, change: impl FnOnce() -> R) -> Option<R> {
        let shard = self.flights.shard(self.hash);
        let landed = shard.slots.find(self.hash, |slot| self.is_mine(slot)).is_some().then(change);
        drop(shard);
        landed
    }

    fn is_mine(&self, slot: &Slot) -> bool {
        matches!(slot, Slot::Reading { ticket, .. } if *ticket == self.ticket)
            && slot.is_for(self.namespace, self.key)
    }
}

impl Drop for ReadTicket<'_> {
    fn drop(&mut self) {
        let mut shard = self.flights.shard(self.hash);
        if let Ok(slot) = shard.slots.find_entry(self.hash, |slot| self.is_mine(slot)) {
            slot.remove();
        }
    }
}

/// The announcement of a change, withdrawn when dropped.
#[derive(Debug)]
pub(crate) struct WriteTicket<'a> {
    pub(super) flights: &'a Flights,
    pub(super) hash: u64,
}

impl Drop for WriteTicket<'_> {
    fn drop(&mut self) {
        let mut shard = self.flights.shard(self.hash);
        if let Ok(mut writing) = shard.writing.find_entry(self.hash, |writing| writing.hash == self.hash) {
            writing.get_mut().writers -= 1;
            if writing.get().writers == 0 {
                writing.remove();
            }
        }
    }
}
