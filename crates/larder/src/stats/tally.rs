//! A counter for the hottest way: a thread that has a seat counts with a load and a store, where an atomic addition
//! would be a fifth of a hit.
//!
//! A seat belongs to one thread at a time, so nobody else writes its cell and no count is lost. Threads take a seat when
//! they first count, of any counter, and give it back when they end; those that find none share a cell, with atomic
//! additions.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many threads may have a seat.
const SEATS: usize = 32;
/// The place of the shared cell.
const SHARED: usize = SEATS;
/// What a thread has that has not counted yet.
const UNSEATED: usize = usize::MAX;

/// A count, on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Lone(AtomicU64);

/// A counter: see the [module](self).
#[derive(Debug, Default)]
pub(super) struct Tally {
    seats: [Lone; SEATS],
    shared: Lone,
}

#[derive(Debug)]
struct Free {
    given_back: Vec<usize>,
    /// All from here on were never taken.
    next: usize,
}

static FREE: Mutex<Free> = Mutex::new(Free { given_back: Vec::new(), next: 0 });

thread_local! {
    static SEAT: Cell<usize> = const { Cell::new(UNSEATED) };
    static LEAVING: Leaving = const { Leaving };
}

/// Gives the thread's seat back when the thread ends.
struct Leaving;

impl Drop for Leaving {
    fn drop(&mut self) {
        // What still counts after this shares.
        let seat = SEAT.replace(SHARED);
        if seat < SEATS {
            free().given_back.push(seat);
        }
    }
}

fn free() -> MutexGuard<'static, Free> {
    // Nothing in there can panic half-way.
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cold]
fn take_seat() -> usize {
    let mut seat = SHARED;
    if LEAVING.try_with(|_| ()).is_ok() {
        let mut free = free();
        // Whoever had it has written his last count before he gave it back.
        if let Some(left) = free.given_back.pop() {
            seat = left;
        } else if free.next < SEATS {
            seat = free.next;
            free.next += 1;
        }
    }
    SEAT.set(seat);
    seat
}

impl Tally {
    /// Counts one.
    #[inline]
    pub(super) fn bump(&self) {
        let mut seat = SEAT.get();
        if seat == UNSEATED {
            seat = take_seat();
        }
        match self.seats.get(seat) {
            // Only this thread writes it.
            Some(Lone(count)) => count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed),
            None => {
                self.shared.0.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// The count so far.
    pub(super) fn sum(&self) -> u64 {
        self.seats.iter().chain([&self.shared]).map(|count| count.0.load(Ordering::Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn no_count_is_lost_by_more_threads_than_there_are_seats() {
        let tally = Tally::default();
        for _ in 0..5 {
            thread::scope(|scope| {
                for _ in 0..3 * SEATS {
                    scope.spawn(|| (0..1_000).for_each(|_| tally.bump()));
                }
            });
        }
        assert_eq!(tally.sum(), 5 * 3 * SEATS as u64 * 1_000);
        assert!(tally.shared.0.load(Ordering::Relaxed) < tally.sum(), "seats are used");
    }

    #[test]
    fn a_seat_is_used_again_when_its_thread_has_ended() {
        for _ in 0..10 * SEATS {
            let seat = thread::spawn(|| {
                Tally::default().bump();
                SEAT.get()
            });
            assert!(seat.join().is_ok_and(|seat| seat < SEATS), "they come one after another");
        }
    }
}
