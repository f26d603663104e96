//! How a limit on the number of responses is kept: the store is listed when it may have been reached, and the oldest go.
//!
//! Others may write to the same store, so nobody's own count is right. After a listing that found so many places left, the
//! next one comes when half of them are taken from here: two processes that write alike cannot pass the limit between two
//! listings. A limit that was passed is kept by letting a tenth go, so that not every write has to list.

use std::time::SystemTime;

use futures_util::StreamExt as _;
use larder::Result;

use super::super::{ResponseId, Variants};
use super::Inner;

/// A limit on the number of responses.
#[derive(Debug)]
pub(super) struct Room {
    count_max: u64,
    /// How many more responses may come before the store is listed again.
    left: tokio::sync::Mutex<u64>,
}

/// A response that may have to go.
struct Candidate {
    /// One that was stored just now goes last.
    is_new: bool,
    received_at: SystemTime,
    target: String,
    id: ResponseId,
}

impl Room {
    pub(super) fn new(count_max: u64) -> Self {
        Self { count_max, left: tokio::sync::Mutex::new(1) }
    }

    /// Notes that responses came to a target, and makes room if there are too many.
    pub(super) async fn make(&self, store: &Inner, target: &str, added: u64) -> Result<()> {
        if added == 0 {
            return Ok(());
        }
        let mut left = self.left.lock().await;
        *left = left.saturating_sub(added);
        if *left > 0 {
            return Ok(());
        }
        let mut candidates = Vec::new();
        let mut targets = store.targets();
        while let Some(listed) = targets.next().await {
            let listed = listed?;
            let Some(entry) = store.records.entry(&super::key_of(&listed)).await? else { continue };
            candidates.extend(entry.value.judged.variants().responses().iter().map(|response| Candidate {
                is_new: listed == target,
                received_at: response.stored.kept().times.received_at,
                target: listed.clone(),
                id: response.id,
            }));
        }
        let count = candidates.len() as u64;
        let mut gone = 0;
        if count > self.count_max {
            gone = (count - self.count_max).max(self.count_max / 10);
            candidates.sort_by_key(|candidate| (candidate.is_new, candidate.received_at));
            for Candidate { target, id, .. } in
                candidates.iter().take(usize::try_from(gone).unwrap_or(usize::MAX))
            {
                store.drop_one(target, *id).await?;
            }
        }
        *left = (self.count_max.saturating_sub(count - gone.min(count))).div_ceil(2).max(1);
        Ok(())
    }
}

impl Inner {
    async fn drop_one(&self, target: &str, id: ResponseId) -> Result<()> {
        // It adds nothing, so it does not come back here for room.
        Box::pin(self.change(target, &|variants: &Variants| variants.without(id))).await.map(drop)
    }
}
