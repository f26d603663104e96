//! Bodies in chunks: entries of their own, written before the record that names them, and read one at a time.
//!
//! A chunk's key is the body's id and the chunk's number; the stack compares the key inside the stored bytes, checks them,
//! and here their length is checked: no other chunk can take its place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use larder::time::{Timestamp, hours};
use larder::{Cache, EntryOptions, Result};

use super::super::collect::too_large;
use super::super::pieces::{At, Pieces};
use super::super::random::random;
use super::super::{Chunked, ReadBody, StoredBody, WriteBody};
use super::Inner;
use super::uses::{Use, Uses};
use crate::policy::Stored;

/// How many bytes of a body are one entry, the last one excepted.
pub const CHUNK_BYTES: usize = 256 * 1024;

const CHUNK: u64 = CHUNK_BYTES as u64;

/// The slowest reader that is waited for, in bytes a second.
const SLOWEST_READER: u64 = 256 * 1024;

/// How long a reader who has begun may take: a minute, and four seconds a megabyte.
pub(super) fn reading_time(bytes: u64) -> Duration {
    Duration::from_secs(60 + bytes / SLOWEST_READER)
}

/// How long chunks are kept while nobody knows yet how long their response will be: as long as the engine keeps one unless
/// told otherwise, and two hours for who then reads it. Where that is too short, they are kept anew with their record.
///
/// What a crash leaves lives as long. A shorter life would have every chunk of every body written twice.
fn first_life(head: &Stored) -> Duration {
    let is_confirmable =
        head.entity_tag().is_some() || head.headers().contains_key(http::header::LAST_MODIFIED);
    let stale = if is_confirmable { hours(24) } else { Duration::ZERO };
    head.lifetime().duration.saturating_add(stale + hours(2)).min(hours(24 * 366))
}

/// Chunks by key.
#[derive(Debug, Clone)]
pub(super) struct Chunks {
    /// Those of bodies that are one chunk.
    single: Cache<Bytes>,
    /// Those of longer bodies.
    many: Cache<Bytes>,
}

/// Which bodies a chunk is of.
#[derive(Debug, Clone, Copy)]
enum Of {
    Single,
    Many,
}

impl Of {
    fn body(bytes: u64) -> Self {
        if bytes <= CHUNK { Self::Single } else { Self::Many }
    }
}

impl Chunks {
    pub(super) fn new(single: Cache<Bytes>, many: Cache<Bytes>) -> Self {
        // A store that fails has to look other than one that has lost something.
        let mut options = EntryOptions::default();
        options.suppress_l2_errors = Some(false);
        Self { single: single.with_options(options), many: many.with_options(options) }
    }

    fn of(&self, of: Of) -> &Cache<Bytes> {
        match of {
            Of::Single => &self.single,
            Of::Many => &self.many,
        }
    }

    fn key(id: u128, number: u64) -> String {
        format!("{id:032x}/{number}")
    }

    fn keys(id: u128, bytes: u64) -> Vec<String> {
        (0..bytes.div_ceil(CHUNK)).map(|number| Self::key(id, number)).collect()
    }

    /// What a body of so many bytes has from a position on, to the end of the chunk. `None` if the chunk is missing, or not
    /// what it should be.
    async fn read(&self, of: Of, id: u128, bytes: u64, at: u64) -> Result<Option<Bytes>> {
        let number = at / CHUNK;
        let expected = CHUNK.min(bytes.saturating_sub(number * CHUNK));
        let Some(chunk) = self.of(of).get(&Self::key(id, number)).await? else { return Ok(None) };
        if chunk.len() as u64 != expected {
            return Ok(None);
        }
        let offset = usize::try_from(at % CHUNK).unwrap_or(usize::MAX);
        Ok((offset < chunk.len()).then(|| chunk.slice(offset..)))
    }

    async fn write(&self, of: Of, id: u128, number: u64, chunk: Bytes, life: Duration) -> Result<()> {
        self.of(of).set(&Self::key(id, number), chunk).ttl(life).await
    }

    /// Keeps the chunks of a body for longer. False if one of them is not there any more.
    pub(super) async fn keep(&self, id: u128, bytes: u64, life: Duration) -> Result<bool> {
        for key in Self::keys(id, bytes) {
            if !self.of(Of::body(bytes)).touch(&key, life).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Gives the chunks of a body back.
    pub(super) async fn delete(&self, id: u128, bytes: u64) -> Result<()> {
        for keys in Self::keys(id, bytes).chunks(256) {
            self.of(Of::body(bytes)).delete_many(keys).await?;
        }
        Ok(())
    }
}

/// Reads a body whose record may be there or not.
#[derive(Debug)]
pub(super) struct ChunkReader {
    /// It does not keep the store, because records are in the stack's memory, and this would keep the stack.
    of: Use,
    target: Arc<str>,
    id: u128,
    bytes: u64,
}

impl ChunkReader {
    pub(super) fn new(uses: &Arc<Uses>, target: &Arc<str>, id: u128, bytes: u64) -> Self {
        Self { of: Uses::begin(uses, id), target: Arc::clone(target), id, bytes }
    }
}

#[async_trait]
impl ReadBody for ChunkReader {
    async fn read(&self, at: u64) -> Result<Option<Bytes>> {
        let Some(store) = self.of.store() else { return Ok(None) };
        if at >= self.bytes {
            return Ok(None);
        }
        let found = store.chunks.read(Of::body(self.bytes), self.id, self.bytes, at).await?;
        if found.is_none() {
            // Nobody is to find this response again; a failure to say so is the next reader's to notice.
            let _ = store.forget(&self.target, self.id).await;
        }
        Ok(found)
    }
}

/// A body on its way into chunks.
pub(super) struct ChunkWriter {
    shared: Arc<Growing>,
    /// Until when the chunks are kept, unless the record says more.
    until: Timestamp,
    life: Duration,
    bytes: u64,
    is_finished: bool,
    /// Something of it is in the store, or on its way there.
    is_begun: bool,
    /// Something of it was not taken.
    is_broken: bool,
}

/// What readers of a body that is still coming share with its writer.
struct Growing {
    store: Arc<Inner>,
    target: Arc<str>,
    id: u128,
    pieces: Pieces,
    /// Whether it has turned out to be more than one chunk.
    is_long: AtomicBool,
    /// Dropped with the last of those who read what is in the store.
    _use: Use,
}

impl Growing {
    fn of(&self) -> Of {
        if self.is_long.load(Ordering::Relaxed) { Of::Many } else { Of::Single }
    }
}

impl std::fmt::Debug for Growing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Growing").field("id", &self.id).field("pieces", &self.pieces).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ChunkWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChunkWriter")
            .field("shared", &self.shared)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl ChunkWriter {
    pub(super) fn new(store: Arc<Inner>, target: &str, head: &Stored) -> Self {
        let life = first_life(head);
        let until = store.stack.now() + life;
        let id = random();
        let _use = Uses::begin(&store.uses, id);
        let shared = Growing {
            store,
            target: target.into(),
            id,
            pieces: Pieces::default(),
            is_long: AtomicBool::new(false),
            _use,
        };
        Self {
            shared: Arc::new(shared),
            until,
            life,
            bytes: 0,
            is_finished: false,
            is_begun: false,
            is_broken: false,
        }
    }

    /// Moves the first bytes of what is in memory into the store.
    async fn move_out(&mut self, bytes: usize) -> Result<()> {
        let Growing { store, id, pieces, .. } = &*self.shared;
        let (_, from) = pieces.extent();
        let chunk = pieces.first(bytes);
        self.is_begun = true;
        store.chunks.write(self.shared.of(), *id, from / CHUNK, chunk, self.life).await?;
        pieces.advance(bytes);
        Ok(())
    }
}

#[async_trait]
impl WriteBody for ChunkWriter {
    async fn write(&mut self, piece: Bytes) -> Result<()> {
        let max = self.shared.store.body_bytes_max;
        self.bytes = self.bytes.saturating_add(piece.len() as u64);
        if self.is_broken || self.bytes > max {
            self.is_broken = true;
            return Err(too_large(max));
        }
        self.shared.pieces.push(piece);
        // What may yet turn out to be one chunk, or small enough for the record, stays.
        while self.shared.pieces.extent().0 > CHUNK_BYTES {
            self.shared.is_long.store(true, Ordering::Relaxed);
            self.move_out(CHUNK_BYTES).await?;
        }
        Ok(())
    }

    fn reader(&self) -> Arc<dyn ReadBody> {
        Arc::clone(&self.shared) as Arc<dyn ReadBody>
    }

    fn readable_bytes(&self) -> u64 {
        let (bytes, from) = self.shared.pieces.extent();
        from + bytes as u64
    }

    async fn finish(mut self: Box<Self>) -> Result<StoredBody> {
        if self.is_broken {
            return Err(too_large(self.shared.store.body_bytes_max));
        }
        let (left, from) = self.shared.pieces.extent();
        if from == 0 && left as u64 <= self.shared.store.inline_bytes_max {
            self.is_finished = true;
            return Ok(StoredBody::from_bytes(self.shared.pieces.first(left)));
        }
        if left > 0 {
            self.move_out(left).await?;
        }
        self.is_finished = true;
        let Growing { store, target, id, .. } = &*self.shared;
        let reader = ChunkReader::new(&store.uses, target, *id, self.bytes);
        store.uses.made(*id, self.bytes);
        let chunked = Chunked { id: *id, until: self.until };
        Ok(StoredBody::from_chunks(self.bytes, chunked, Arc::new(reader)))
    }
}

impl Drop for ChunkWriter {
    fn drop(&mut self) {
        if self.is_begun && !self.is_finished {
            let (left, from) = self.shared.pieces.extent();
            // As soon as nobody reads it any more.
            self.shared.store.uses.made(self.shared.id, from + left as u64);
        }
    }
}

#[async_trait]
impl ReadBody for Growing {
    async fn read(&self, at: u64) -> Result<Option<Bytes>> {
        match self.pieces.at(at) {
            At::Here(piece) => Ok(Some(piece)),
            At::NotYet => Ok(None),
            At::Before(from) => {
                // The chunk that is being asked for is whole, unless it is the last one of all.
                let end = from.min((at / CHUNK + 1) * CHUNK);
                self.store.chunks.read(self.of(), self.id, end, at).await
            }
        }
    }
}
