//! Gives back the space of what has expired, now and then, after a write: the drivers do so by themselves in
//! processes that live long enough, and this one does not. Knows nothing of what is stored.
//!
//! A file's time says when a store was last pruned. It is set before pruning begins, so that of many
//! processes at once one does it.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Duration;

use larder::time::minutes;

use crate::store::Store;

/// How often a store is pruned at most: what the drivers do by themselves.
const PRUNE_EVERY: Duration = minutes(1);
/// How long a command stays on for it, after all that it had to say. What is left is for the next one.
const PATIENCE: Duration = Duration::from_millis(300);

/// Prunes a store that was not pruned for a while. `marker` is the file whose time says when it was; without
/// one, nothing is done.
pub(crate) async fn keep_up(store: &Store, marker: Option<&Path>) {
    let Some(marker) = marker.filter(|marker| is_due(marker)) else { return };
    // Who cannot say that it was done would do it every time.
    if mark(marker).is_err() {
        return;
    }
    // What fails or takes too long is tried again by whoever writes in a minute: nothing was promised.
    let _ = tokio::time::timeout(PATIENCE, store.prune()).await;
}

fn is_due(marker: &Path) -> bool {
    let Ok(pruned) = fs::metadata(marker).and_then(|file| file.modified()) else { return true };
    // A time that is yet to come is no reason to wait for it.
    pruned.elapsed().map_or(true, |since| since >= PRUNE_EVERY)
}

fn mark(marker: &Path) -> io::Result<()> {
    if let Some(folder) = marker.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    fs::write(marker, "pruned\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use larder::time::seconds;

    #[test]
    fn a_store_is_due_if_it_was_never_pruned_or_long_ago_or_in_the_future() {
        let folder = tempfile::tempdir().unwrap();
        let marker = folder.path().join("pruned/one");
        assert!(is_due(&marker));
        mark(&marker).unwrap();
        assert!(!is_due(&marker));
        let file = fs::File::options().write(true).open(&marker).unwrap();
        let marked = file.metadata().unwrap().modified().unwrap();
        file.set_modified(marked - PRUNE_EVERY).unwrap();
        assert!(is_due(&marker));
        file.set_modified(marked + PRUNE_EVERY + seconds(60)).unwrap();
        assert!(is_due(&marker));
    }
}
