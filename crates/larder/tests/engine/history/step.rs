//! What may happen in a sequence.

use std::time::Duration;

use larder::time::{Ttl, hours, minutes};
use proptest::prelude::*;

use super::ledger::{Life, SLOTS, SPACES, TAGS};

/// What ails the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    ReadsFail,
    WritesFail,
    AllFails,
    /// The next writes are carried out, and said to have failed.
    AnswersAreLost,
    ReadsHang,
    WritesHang,
    /// Batches are what loads and remembered writes are stored with.
    BatchesHang,
    /// Writes hang, and are carried out later.
    WritesAreLate,
}

/// How the other process reads the store.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reading {
    Get,
    Stale,
    Entry,
    Many,
}

#[derive(Debug, Clone)]
pub(super) enum Step {
    Get(usize),
    GetStale(usize),
    GetMany(usize),
    Has(usize),
    Entry(usize),
    There(usize, Reading),
    Load {
        slot: usize,
        succeeds: bool,
        life: Life,
        soft: Option<u64>,
    },
    LoadMany {
        space: usize,
        fails: Option<usize>,
        life: Life,
    },
    /// A load that does not end before it is let go. Its caller waits, but not forever.
    Begin {
        slot: usize,
        life: Life,
        soft: Option<u64>,
        says_own_tags: bool,
    },
    Land {
        which: usize,
        succeeds: bool,
    },
    /// A caller that waits gives up.
    GiveUp,
    Set {
        slot: usize,
        life: Life,
    },
    SetMany {
        space: usize,
        life: Life,
    },
    Add {
        slot: usize,
        life: Life,
    },
    Pull(usize),
    Touch {
        slot: usize,
        ttl: Ttl,
    },
    Expire(usize),
    Delete(usize),
    DeleteMany(usize),
    Clear {
        space: usize,
        soft: bool,
    },
    Invalidate {
        space: usize,
        tag: usize,
        soft: bool,
    },
    Count(i64),
    ReadCount,
    DeleteCount,
    Prune,
    Advance(u64),
    /// The wall clock is set to so many hours beside the true time.
    Jump(i8),
    Break(Fault),
    Heal,
    /// The store carries out the writes that were late, in their order or in reverse.
    Deliver {
        reversed: bool,
    },
}

/// The longest grace of any entry.
pub(super) const GRACE_MAX: Duration = hours(3);

fn ttl() -> impl Strategy<Value = Ttl> {
    prop_oneof![
        5 => (1_u64..60).prop_map(|millis| Ttl::For(Duration::from_millis(millis))),
        4 => Just(Ttl::For(minutes(90))),
        1 => Just(Ttl::Forever),
    ]
}

fn life() -> impl Strategy<Value = Life> {
    let grace = prop_oneof![Just(Duration::ZERO), Just(Duration::from_millis(50)), Just(GRACE_MAX)];
    let tags = prop_oneof![
        3 => Just(&[][..]),
        2 => Just(&[0][..]),
        1 => Just(&[1][..]),
        1 => Just(&[0, 1][..]),
    ];
    (ttl(), grace, tags).prop_map(|(ttl, grace, tags)| Life { ttl, grace, tags })
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        2 => Just(Fault::ReadsFail),
        2 => Just(Fault::WritesFail),
        2 => Just(Fault::AllFails),
        2 => Just(Fault::AnswersAreLost),
        1 => Just(Fault::ReadsHang),
        1 => Just(Fault::WritesHang),
        2 => Just(Fault::BatchesHang),
        2 => Just(Fault::WritesAreLate),
    ]
}

/// A key, one of them more often than the others: what happens to a key matters to the same one.
fn slot() -> impl Strategy<Value = usize> {
    prop_oneof![2 => Just(0), 2 => 0..SLOTS]
}

fn lookup() -> impl Strategy<Value = Step> {
    let reading =
        prop_oneof![Just(Reading::Get), Just(Reading::Stale), Just(Reading::Entry), Just(Reading::Many)];
    prop_oneof![
        4 => slot().prop_map(Step::Get),
        2 => slot().prop_map(Step::GetStale),
        1 => (0..SPACES.len()).prop_map(Step::GetMany),
        1 => slot().prop_map(Step::Has),
        2 => slot().prop_map(Step::Entry),
        3 => (slot(), reading).prop_map(|(slot, reading)| Step::There(slot, reading)),
        1 => Just(Step::ReadCount),
    ]
}

fn loading() -> impl Strategy<Value = Step> {
    let soft = || proptest::option::of(0_u64..30);
    prop_oneof![
        4 => (slot(), proptest::bool::weighted(0.6), life(), soft())
            .prop_map(|(slot, succeeds, life, soft)| Step::Load { slot, succeeds, life, soft }),
        1 => (0..SPACES.len(), proptest::option::of(0..2_usize), life())
            .prop_map(|(space, fails, life)| Step::LoadMany { space, fails, life }),
        5 => (slot(), life(), soft(), any::<bool>()).prop_map(|(slot, life, soft, says_own_tags)| {
            Step::Begin { slot, life, soft, says_own_tags }
        }),
        5 => (0..8_usize, proptest::bool::weighted(0.6))
            .prop_map(|(which, succeeds)| Step::Land { which, succeeds }),
        1 => Just(Step::GiveUp),
    ]
}

fn change() -> impl Strategy<Value = Step> {
    let space = || 0..SPACES.len();
    prop_oneof![
        5 => (slot(), life()).prop_map(|(slot, life)| Step::Set { slot, life }),
        1 => (space(), life()).prop_map(|(space, life)| Step::SetMany { space, life }),
        1 => (slot(), life()).prop_map(|(slot, life)| Step::Add { slot, life }),
        2 => slot().prop_map(Step::Pull),
        2 => (slot(), ttl()).prop_map(|(slot, ttl)| Step::Touch { slot, ttl }),
        2 => slot().prop_map(Step::Expire),
        4 => slot().prop_map(Step::Delete),
        1 => space().prop_map(Step::DeleteMany),
        3 => (space(), any::<bool>()).prop_map(|(space, soft)| Step::Clear { space, soft }),
        4 => (space(), 0..TAGS.len(), any::<bool>())
            .prop_map(|(space, tag, soft)| Step::Invalidate { space, tag, soft }),
        2 => (1_i64..9).prop_map(Step::Count),
        1 => Just(Step::DeleteCount),
    ]
}

fn world() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u64..60).prop_map(Step::Advance),
        1 => (0_u64..9_000_000).prop_map(Step::Advance),
        3 => (-1_i8..=1).prop_map(Step::Jump),
        5 => fault().prop_map(Step::Break),
        5 => Just(Step::Heal),
        2 => any::<bool>().prop_map(|reversed| Step::Deliver { reversed }),
        1 => Just(Step::Prune),
    ]
}

pub(super) fn sequences() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![5 => lookup(), 5 => loading(), 6 => change(), 4 => world()];
    proptest::collection::vec(step, 1..40)
}
