//! A mark that goes where there may be one already: what either has ended stays ended.

use bytes::Bytes;
use larder::Result;
use larder::driver::{Driver, When, Write, Written};
use larder::entry::wire::{Damage, Head, Kind, Record, decode, encode_mark};
use larder::time::Stamp;

use super::Copy;
use crate::failure::Failure;
use crate::output::{escape, note};

/// How often a mark is tried against others who write it.
const TRIES_MAX: u32 = 1_000;

/// What becomes of a mark that is copied.
#[derive(Debug, PartialEq, Eq)]
enum Merged {
    /// What is there says all that it says.
    There,
    /// This has to be stored, on this condition.
    Raise(Bytes, When),
    /// One of the two is no mark. If it is what is there, whoever reads that takes everything under it for ended.
    Damaged(Damage),
    /// Each says something that the other does not, and one of them is encrypted: they cannot be made one.
    Sealed,
}

/// A mark's stamps: what was born until the one is stale, until the other gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamps {
    soft: Stamp,
    hard: Stamp,
}

impl Stamps {
    /// Those of a record, and whether the record is sealed, so that they can be read and not changed.
    fn read(key: &str, record: &Bytes) -> Result<(Self, bool), Damage> {
        let head = Head::peek(record)?;
        let is_sealed = match decode(key, record) {
            Ok(Record::Mark { .. }) => false,
            Err(Damage::Sealed) if head.kind == Kind::Mark => true,
            Ok(_) => return Err(Damage::Layout),
            Err(damage) => return Err(damage),
        };
        Ok((Self { soft: head.stamp, hard: head.born }, is_sealed))
    }

    fn newest(self) -> Stamp {
        self.soft.max(self.hard)
    }
}

/// What has to be stored under a key so that what is `there` says as well what `mark` says.
///
/// # Errors
/// The key is longer than a mark's may be.
fn merge(key: &str, mark: &Bytes, there: Option<&Bytes>) -> Result<Merged> {
    let (ours, ours_sealed) = match Stamps::read(key, mark) {
        Ok(read) => read,
        Err(damage) => return Ok(Merged::Damaged(damage)),
    };
    let Some(there) = there else { return Ok(Merged::Raise(mark.clone(), When::Unchanged(None))) };
    let (theirs, theirs_sealed) = match Stamps::read(key, there) {
        Ok(read) => read,
        Err(damage) => return Ok(Merged::Damaged(damage)),
    };
    let both = Stamps { soft: ours.soft.max(theirs.soft), hard: ours.hard.max(theirs.hard) };
    if both == theirs {
        return Ok(Merged::There);
    }
    let when = When::Unchanged(Some(theirs.soft));
    let is_newer = both.newest() > theirs.newest();
    let is_sealed = ours_sealed || theirs_sealed;
    if both == ours && (is_newer || is_sealed) {
        return Ok(Merged::Raise(mark.clone(), when));
    }
    if is_sealed {
        return Ok(Merged::Sealed);
    }
    // Where only the hard stamp rises, the record gets the next stamp, so that nobody who has read the one before
    // takes it for that.
    let next = Stamp::from_bits(theirs.newest().to_bits().saturating_add(1));
    let stamp = if is_newer { both.newest() } else { next };
    Ok(Merged::Raise(encode_mark(key, stamp, both.hard)?, when))
}

impl Copy {
    /// Adds marks to what the other store has under their keys: a newer soft one there does not stand for an older
    /// hard one, nor one from here for a hard one there.
    pub(super) async fn raise(&self, to: &dyn Driver, mut marks: Vec<Write>) -> Result<(), Failure> {
        for _ in 0..TRIES_MAX {
            let known = self.read(to, &marks).await?;
            let (mut tried, mut writes) = (Vec::new(), Vec::new());
            for (mark, there) in marks.into_iter().zip(known) {
                let Some(there) = there else { continue };
                match merge(&mark.key, &mark.value, there.as_ref())? {
                    Merged::There => self.count(|counts| &mut counts.there),
                    Merged::Raise(value, when) => {
                        writes.push(Write { key: mark.key.clone(), value, ttl: mark.ttl, when });
                        tried.push(mark);
                    }
                    Merged::Damaged(damage) => {
                        self.count(|counts| &mut counts.damaged);
                        note(format_args!("{}: damaged in TO: {damage}", escape(&mark.key)));
                    }
                    Merged::Sealed => self.failed(
                        &mark.key,
                        "encrypted, and TO has ended other entries under it than FROM: end them once more in TO",
                    ),
                }
            }
            marks = Vec::new();
            for ((mark, write), written) in tried.into_iter().zip(&writes).zip(self.store(to, &writes).await?)
            {
                match written {
                    Some(Written::Stored { .. }) => self.copied(write),
                    Some(Written::Refused { .. }) => marks.push(mark),
                    None => {}
                }
            }
            if marks.is_empty() {
                return Ok(());
            }
        }
        marks.iter().for_each(|mark| self.failed(&mark.key, "others kept writing it"));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use larder::driver::memory::MemoryDriver;
    use larder::entry::wire::{encode_tombstone, stamp_of};
    use larder::memory::MemoryOptions;
    use larder::time::{SystemClock, Timestamp};
    use std::cell::RefCell;
    use std::sync::Arc;

    /// Where a head says how its record is encrypted.
    const ENCRYPTION_AT: usize = 38;

    fn mark((soft, hard): (u64, u64)) -> Bytes {
        encode_mark("k", Stamp::from_bits(soft), Stamp::from_bits(hard)).unwrap()
    }

    fn sealed(stamps: (u64, u64)) -> Bytes {
        let mut record = mark(stamps).to_vec();
        record[ENCRYPTION_AT] = 1;
        record.into()
    }

    fn merged(ours: &Bytes, theirs: &Bytes) -> Merged {
        merge("k", ours, Some(theirs)).unwrap()
    }

    #[test]
    fn what_either_has_ended_stays_ended() {
        for (ours, theirs, expected) in [
            ((10, 0), (5, 5), (10, 5)),
            ((15, 15), (20, 0), (21, 15)),
            ((20, 15), (20, 0), (21, 15)),
            ((20, 20), (20, 0), (21, 20)),
            ((30, 15), (20, 10), (30, 15)),
            ((30, 10), (20, 15), (30, 15)),
            ((30, 15), (20, 20), (30, 20)),
        ] {
            let raised = merged(&mark(ours), &mark(theirs));
            let when = When::Unchanged(Some(Stamp::from_bits(theirs.0)));
            assert_eq!(raised, Merged::Raise(mark(expected), when), "{ours:?} {theirs:?}");
            let Merged::Raise(record, when) = raised else { unreachable!() };
            // And once more changes nothing.
            assert!(matches!(when.outcome(Some(&mark(theirs)), &record), Written::Stored { .. }));
            assert_eq!(merged(&mark(ours), &record), Merged::There, "{ours:?} {theirs:?}");
        }
        for (ours, theirs) in [((5, 5), (5, 5)), ((4, 0), (5, 5)), ((5, 5), (9, 5)), ((5, 0), (9, 9))] {
            assert_eq!(merged(&mark(ours), &mark(theirs)), Merged::There, "{ours:?} {theirs:?}");
        }
        let raised = merge("k", &mark((5, 5)), None).unwrap();
        assert_eq!(raised, Merged::Raise(mark((5, 5)), When::Unchanged(None)));
    }

    #[test]
    fn an_encrypted_mark_goes_over_as_it_is_or_not_at_all() {
        for (ours, theirs, expected) in [
            ((10, 10), (5, 5), Some(true)),
            ((20, 15), (20, 0), Some(true)),
            ((5, 5), (10, 10), Some(false)),
            ((10, 0), (5, 5), None),
            ((15, 15), (20, 0), None),
        ] {
            for (ours, theirs) in
                [(sealed(ours), sealed(theirs)), (mark(ours), sealed(theirs)), (sealed(ours), mark(theirs))]
            {
                let expected = match expected {
                    Some(true) => Merged::Raise(ours.clone(), When::Unchanged(stamp_of(&theirs))),
                    Some(false) => Merged::There,
                    None => Merged::Sealed,
                };
                assert_eq!(merged(&ours, &theirs), expected);
            }
        }
    }

    #[test]
    fn what_is_no_mark_is_neither_copied_nor_overwritten() {
        let tombstone = encode_tombstone(Stamp::from_bits(9), Timestamp::from_millis(9));
        let other = encode_mark("l", Stamp::from_bits(9), Stamp::ZERO).unwrap();
        for (record, damage) in [
            (tombstone, Damage::Layout),
            (other, Damage::Key),
            (
                Bytes::from_static(b"what somebody else keeps here, of some length or another"),
                Damage::Foreign,
            ),
            (Bytes::from_static(b"x"), Damage::Truncated),
        ] {
            assert_eq!(merged(&mark((5, 5)), &record), Merged::Damaged(damage));
            assert_eq!(merge("k", &record, None).unwrap(), Merged::Damaged(damage));
        }
    }

    #[tokio::test]
    async fn a_mark_that_cannot_be_added_to_is_counted_and_the_others_are_raised() {
        let memory = || Arc::new(MemoryDriver::new(MemoryOptions::default()));
        let copy = Copy {
            from: memory(),
            to: None,
            limit: None,
            counts: RefCell::default(),
            clock: SystemClock::default(),
        };
        let to = memory();
        let plain = |key: &str| encode_mark(key, Stamp::from_bits(20), Stamp::ZERO).unwrap();
        let foreign = Bytes::from_static(b"what somebody else keeps here, of some length or another");
        for (key, there) in
            [("k", sealed((20, 0))), ("foreign", foreign.clone()), ("raised", plain("raised"))]
        {
            to.set(key, there, None, When::Always).await.unwrap();
        }
        let marks = ["k", "foreign", "raised", "new"].map(|key| {
            let value = encode_mark(key, Stamp::from_bits(15), Stamp::from_bits(15)).unwrap();
            Write { key: key.to_owned(), value, ttl: None, when: When::Newer }
        });
        for _ in 0..2 {
            copy.raise(&*to, marks.to_vec()).await.unwrap();
            assert_eq!(to.get("k").await.unwrap(), Some(sealed((20, 0))));
            assert_eq!(to.get("foreign").await.unwrap(), Some(foreign.clone()));
            let raised = encode_mark("raised", Stamp::from_bits(21), Stamp::from_bits(15)).unwrap();
            assert_eq!(to.get("raised").await.unwrap(), Some(raised));
            assert_eq!(to.get("new").await.unwrap(), Some(marks[3].value.clone()));
        }
        let counts = copy.counts.take();
        assert_eq!((counts.marks, counts.there, counts.failed, counts.damaged), (2, 2, 2, 2));
    }
}
