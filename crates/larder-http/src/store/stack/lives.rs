//! How long the chunks of a body live: as long as the response that names them, and as long as somebody reads them.

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use larder::Result;
use larder::time::{Timestamp, days};

use super::super::{Chunked, Purge, StoredBody, StoredResponse, Variants};
use super::chunks::{ChunkReader, reading_time};
use super::{Effects, Inner, LIFE_MAX};

/// How much longer the chunks of a response that was renewed are kept than it has to be, so that a response that is renewed
/// every minute has its chunks written anew once a day.
const SPARE_LIFE: Duration = days(1);
/// How often it is tried to keep chunks for longer, and what is waited between.
const TRIES_MAX: u32 = 5;
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// A body whose chunks have to be kept for longer.
pub(super) struct Prolonged {
    id: u128,
    bytes: u64,
    life: Duration,
    /// It was named before, and its chunks are there for now.
    is_renewed: bool,
}

/// Keeps chunks for longer; where that does not succeed, their response is not found again.
async fn prolong_in_time(store: &Weak<Inner>, target: &str, body: &Prolonged) {
    for _ in 0..TRIES_MAX {
        let Some(store) = store.upgrade() else { return };
        match store.chunks.keep(body.id, body.bytes, body.life).await {
            Ok(true) => return,
            Ok(false) => break,
            Err(_) => {
                drop(store);
                tokio::time::sleep(TRY_AGAIN_AFTER).await;
            }
        }
    }
    if let Some(store) = store.upgrade() {
        // Who reads it notices what is missing.
        let _ = store.forget(target, body.id).await;
    }
}

impl Inner {
    /// The same, where each body's chunks are kept for as long as its response, and for who then still reads it.
    pub(super) fn with_chunks_for_life(
        &self,
        target: &Arc<str>,
        variants: &Variants,
        now: SystemTime,
        effects: &mut Effects,
    ) -> Variants {
        Variants::new(variants.responses().iter().map(|response| {
            let Some(chunked) = response.body.chunked() else { return Arc::clone(response) };
            let bytes = response.body.bytes();
            let life = response.delete_at.duration_since(now).unwrap_or_default().min(LIFE_MAX);
            let life = life.saturating_add(reading_time(bytes));
            if Timestamp::from(now) + life <= chunked.until {
                return Arc::clone(response);
            }
            let is_renewed = effects.before.iter().any(|(id, _)| *id == chunked.id);
            let life = if is_renewed { life.saturating_add(SPARE_LIFE) } else { life };
            let until = Timestamp::from(now) + life;
            effects.prolonged.push(Prolonged { id: chunked.id, bytes, life, is_renewed });
            let reader = ChunkReader::new(&self.uses, target, chunked.id, bytes);
            let mut prolonged = StoredResponse::clone(response);
            prolonged.body = StoredBody::from_chunks(bytes, Chunked { until, ..chunked }, Arc::new(reader));
            Arc::new(prolonged)
        }))
    }

    /// Drops the response whose body has lost something.
    pub(super) fn forget<'a>(&'a self, target: &'a str, id: u128) -> BoxFuture<'a, Result<()>> {
        let change = move |variants: &Variants| {
            let is_it =
                |response: &StoredResponse| response.body.chunked().is_some_and(|chunked| chunked.id == id);
            variants.purged(Purge::Hard, is_it)
        };
        Box::pin(async move { self.change(target, &change).await.map(drop) })
    }

    /// Deletes chunks, once those who are reading them have finished: those of this process, and those of others who are
    /// not slower than is waited for. They end by themselves if this is not lived to.
    pub(super) fn give_back(&self, bodies: Vec<(u128, u64)>) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        for (id, bytes) in bodies {
            let store = Weak::clone(&self.this);
            runtime.spawn(async move {
                loop {
                    tokio::time::sleep(reading_time(bytes)).await;
                    let Some(store) = store.upgrade() else { return };
                    if !store.uses.is_used(id) {
                        // Best effort: they have an end.
                        let _ = store.chunks.delete(id, bytes).await;
                        return;
                    }
                }
            });
        }
    }

    /// Deletes the chunks of a body that nobody reads, and nobody can.
    pub(super) fn give_back_at_once(self: Arc<Self>, id: u128, bytes: u64) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            // Best effort: they have an end.
            let _ = self.chunks.delete(id, bytes).await;
        });
    }

    /// Keeps chunks for longer. That writes each anew, so where they are there for now nobody waits for it.
    pub(super) async fn prolong(&self, target: &str, bodies: Vec<Prolonged>) -> Result<()> {
        for body in bodies {
            if body.is_renewed
                && let Ok(runtime) = tokio::runtime::Handle::try_current()
            {
                let (store, target) = (Weak::clone(&self.this), target.to_owned());
                runtime.spawn(async move { prolong_in_time(&store, &target, &body).await });
            } else if !self.chunks.keep(body.id, body.bytes, body.life).await? {
                self.forget(target, body.id).await?;
            }
        }
        Ok(())
    }
}
