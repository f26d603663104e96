//! A stored body: how long it is, and how to read it.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use larder::Result;
use larder::time::Timestamp;

/// Reads a body in pieces.
#[async_trait]
pub trait ReadBody: Debug + Send + Sync + 'static {
    /// Bytes from a position on: as many as are there in one piece, at least one. `None` if they are gone, or not there
    /// yet.
    ///
    /// # Errors
    /// The store's.
    async fn read(&self, at: u64) -> Result<Option<Bytes>>;
}

/// A body that is kept.
#[derive(Debug, Clone)]
pub struct StoredBody {
    bytes: u64,
    place: Place,
    chunked: Option<Chunked>,
}

/// Which chunks of a store over a stack a body is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunked {
    /// What their keys begin with.
    pub(crate) id: u128,
    /// Until when they are kept.
    pub(crate) until: Timestamp,
}

#[derive(Debug, Clone)]
enum Place {
    /// In memory, in one piece.
    Here(Bytes),
    /// Somewhere else.
    There(Arc<dyn ReadBody>),
}

impl StoredBody {
    /// A body that is in memory.
    pub fn from_bytes(bytes: Bytes) -> Self {
        Self { bytes: bytes.len() as u64, place: Place::Here(bytes), chunked: None }
    }

    /// A body of this many bytes that is read in pieces.
    pub fn from_reader(bytes: u64, reader: Arc<dyn ReadBody>) -> Self {
        Self { bytes, place: Place::There(reader), chunked: None }
    }

    /// A body of this many bytes that is in chunks of a store over a stack.
    pub(crate) fn from_chunks(bytes: u64, chunked: Chunked, reader: Arc<dyn ReadBody>) -> Self {
        Self { bytes, place: Place::There(reader), chunked: Some(chunked) }
    }

    /// Which chunks it is in, if it is in chunks of a store over a stack.
    pub(crate) fn chunked(&self) -> Option<Chunked> {
        self.chunked
    }

    /// How long it is.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All of it, if it is in memory in one piece.
    pub fn in_memory(&self) -> Option<&Bytes> {
        match &self.place {
            Place::Here(bytes) => Some(bytes),
            Place::There(_) => None,
        }
    }

    /// Bytes from a position on, as [`ReadBody::read`].
    ///
    /// # Errors
    /// The store's.
    pub async fn read(&self, at: u64) -> Result<Option<Bytes>> {
        if at >= self.bytes {
            return Ok(None);
        }
        match &self.place {
            Place::Here(bytes) => Ok(usize::try_from(at).ok().map(|at| bytes.slice(at..))),
            Place::There(reader) => reader.read(at).await,
        }
    }
}
