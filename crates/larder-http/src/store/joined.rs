//! Runs of several bodies, read as one. Knows nothing of what they are of.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use larder::Result;

use super::{ReadBody, StoredBody};

/// Runs of bodies, one behind the other. Nothing is copied.
#[derive(Debug)]
pub(crate) struct JoinedBody {
    /// In order, none of them empty.
    runs: Vec<Run>,
    bytes: u64,
    /// The run that turned out to be gone; as many as there can be if none did.
    gone: AtomicUsize,
}

#[derive(Debug)]
struct Run {
    /// Which of those given it is.
    nth: usize,
    body: StoredBody,
    /// Where it begins in its body.
    from: u64,
    /// Where it begins and ends in what is joined.
    place: Range<u64>,
}

impl JoinedBody {
    /// These bytes of these bodies.
    pub(crate) fn new(runs: impl IntoIterator<Item = (StoredBody, Range<u64>)>) -> Self {
        let mut bytes = 0_u64;
        let mut joined = Vec::new();
        for (nth, (body, range)) in runs.into_iter().enumerate() {
            let begin = bytes;
            bytes = bytes.saturating_add(range.end.saturating_sub(range.start));
            if begin < bytes {
                joined.push(Run { nth, body, from: range.start, place: begin..bytes });
            }
        }
        Self { runs: joined, bytes, gone: AtomicUsize::new(usize::MAX) }
    }

    /// How long it is.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Which of the runs, as they were given, turned out to be gone when it was read.
    pub(crate) fn gone(&self) -> Option<usize> {
        Some(self.gone.load(Ordering::Relaxed)).filter(|nth| *nth != usize::MAX)
    }
}

#[async_trait]
impl ReadBody for JoinedBody {
    async fn read(&self, at: u64) -> Result<Option<Bytes>> {
        let nth = self.runs.partition_point(|run| run.place.end <= at);
        let Some(run) = self.runs.get(nth) else { return Ok(None) };
        let found = run.body.read(run.from.saturating_add(at - run.place.start)).await?;
        let Some(mut piece) = found.filter(|piece| !piece.is_empty()) else {
            self.gone.store(run.nth, Ordering::Relaxed);
            return Ok(None);
        };
        piece.truncate(usize::try_from(run.place.end - at).unwrap_or(usize::MAX));
        Ok(Some(piece))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::pieces::Pieces;

    /// What a body in pieces gives, which ends where its last piece does.
    fn in_pieces(pieces: &[&'static str]) -> StoredBody {
        let all = Pieces::default();
        pieces.iter().for_each(|piece| all.push(Bytes::from_static(piece.as_bytes())));
        StoredBody::from_reader(pieces.iter().map(|piece| piece.len() as u64).sum(), Arc::new(all))
    }

    fn here(text: &'static str) -> StoredBody {
        StoredBody::from_bytes(Bytes::from_static(text.as_bytes()))
    }

    async fn all_from(joined: &JoinedBody, mut at: u64) -> Vec<Bytes> {
        let mut pieces = Vec::new();
        while let Some(piece) = joined.read(at).await.unwrap() {
            at += piece.len() as u64;
            pieces.push(piece);
        }
        pieces
    }

    #[tokio::test]
    async fn runs_are_read_one_behind_the_other_from_any_position() {
        let joined = JoinedBody::new([
            (here("xx0123"), 2..6),
            (in_pieces(&["45", "678", "yyy"]), 0..5),
            (here("z9z"), 1..2),
        ]);
        assert_eq!(joined.bytes(), 10);
        let whole = b"0123456789";
        for at in 0..whole.len() {
            let read = all_from(&joined, at as u64).await.concat();
            assert_eq!(read, whole[at..], "from {at}");
        }
        // Pieces as they are there, cut where their run ends.
        assert_eq!(all_from(&joined, 0).await, ["0123", "45", "678", "9"]);
        assert!(joined.read(10).await.unwrap().is_none());
        assert!(joined.read(u64::MAX).await.unwrap().is_none());
        assert_eq!(joined.gone(), None);
    }

    #[tokio::test]
    async fn what_is_in_memory_is_not_copied() {
        let bytes = Bytes::from_static(b"0123456789");
        let joined = JoinedBody::new([(StoredBody::from_bytes(bytes.clone()), 3..7)]);
        let piece = joined.read(1).await.unwrap().unwrap();
        assert_eq!((piece.as_ptr(), piece.len()), (bytes[4..].as_ptr(), 3));
    }

    #[tokio::test]
    async fn empty_runs_are_no_obstacle() {
        let joined =
            JoinedBody::new([(here("a"), 1..1), (here("bc"), 0..2), (here(""), 0..0), (here("d"), 0..1)]);
        assert_eq!(all_from(&joined, 0).await, ["bc", "d"]);
        let nothing = JoinedBody::new([(here("a"), 0..0)]);
        assert_eq!(nothing.bytes(), 0);
        assert!(nothing.read(0).await.unwrap().is_none());
        assert!(JoinedBody::new([]).read(0).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn it_is_known_which_run_is_gone() {
        let gone = StoredBody::from_reader(3, Arc::new(Pieces::default()));
        let joined =
            JoinedBody::new([(here("a"), 0..0), (here("bc"), 0..2), (gone, 0..3), (here("d"), 0..1)]);
        assert_eq!(joined.read(0).await.unwrap().unwrap(), "bc");
        assert_eq!(joined.gone(), None);
        assert!(joined.read(2).await.unwrap().is_none());
        assert_eq!(joined.gone(), Some(2));
        assert_eq!(joined.read(5).await.unwrap().unwrap(), "d");
    }
}
