//! Bodies that are kept in memory as a whole: what is there to write one's own store with. Knows no store.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use larder::{Error, ErrorKind, Result};

use super::pieces::{At, Pieces};
use super::{ReadBody, StoredBody, WriteBody};

/// A body on its way into memory, for stores that keep bodies as a whole.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// use larder_http::store::{CollectBody, WriteBody as _};
///
/// let mut body = Box::new(CollectBody::new(10));
/// body.write("hello".into()).await?;
/// assert_eq!(body.reader().read(1).await?.unwrap(), "ello");
/// assert_eq!(body.finish().await?.in_memory().unwrap(), "hello");
/// # Ok::<(), larder::Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct CollectBody {
    pieces: Arc<Pieces>,
    bytes_max: u64,
    is_too_large: bool,
}

impl CollectBody {
    /// A body of at most so many bytes.
    pub fn new(bytes_max: u64) -> Self {
        Self { pieces: Arc::default(), bytes_max, is_too_large: false }
    }
}

pub(super) fn too_large(bytes_max: u64) -> Error {
    Error::new(ErrorKind::TooLarge, format!("a body of more than {bytes_max} bytes is not kept"))
}

#[async_trait]
impl WriteBody for CollectBody {
    async fn write(&mut self, piece: Bytes) -> Result<()> {
        let bytes = self.readable_bytes().saturating_add(piece.len() as u64);
        if self.is_too_large || bytes > self.bytes_max {
            self.is_too_large = true;
            return Err(too_large(self.bytes_max));
        }
        self.pieces.push(piece);
        Ok(())
    }

    fn reader(&self) -> Arc<dyn ReadBody> {
        Arc::clone(&self.pieces) as Arc<dyn ReadBody>
    }

    fn readable_bytes(&self) -> u64 {
        self.pieces.extent().0 as u64
    }

    async fn finish(self: Box<Self>) -> Result<StoredBody> {
        if self.is_too_large {
            return Err(too_large(self.bytes_max));
        }
        Ok(StoredBody::from_bytes(self.pieces.first(usize::MAX)))
    }
}

#[async_trait]
impl ReadBody for Pieces {
    async fn read(&self, at: u64) -> Result<Option<Bytes>> {
        Ok(match self.at(at) {
            At::Here(piece) => Some(piece),
            At::Before(_) | At::NotYet => None,
        })
    }
}
