//! One lock file per key, so that of several processes one runs the command and the others wait for it.
//! Knows nothing of commands or stores: what is passed on is bytes.
//!
//! A lock is `flock` on a file in the locks folder; the kernel lets go of it whenever its holder dies. The
//! holder that is done first removes the file's name, then writes its outcome into the file, which by now
//! only those have open who waited, then lets go. So:
//!
//! - whoever gets the lock of a file without a name reads the outcome from it, or starts over if there is
//!   none: the holder gave up, or was killed in the middle;
//! - whoever gets the lock of a file that still has its name holds the key: it is the first, or all before
//!   it were killed;
//! - an outcome never outlives those who waited for it, and files do not pile up.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;

/// What became of waiting for a key.
#[derive(Debug)]
pub(crate) enum Joined<T> {
    /// The key is ours until the guard is gone.
    Held(Guard),
    /// Somebody else held it, and this is its outcome.
    Shared(Bytes),
    /// Nothing needs to be done: this was found once the key was ours.
    Found(T),
}

/// A key that is held. Dropping it lets the next one in.
#[derive(Debug)]
pub(crate) struct Guard {
    file: File,
    path: PathBuf,
}

/// Waits for a key, and looks with `look` whether there is still something to be done.
///
/// Blocks until the holder is done or dead. The caller leaves the signals that end a process as they are,
/// so that whoever waits can be interrupted.
///
/// # Errors
/// The folder cannot be made or written to, or the file system knows no locks.
pub(crate) fn join<T>(
    folder: &Path,
    name: &str,
    mut look: impl FnMut() -> Option<T>,
) -> io::Result<Joined<T>> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let path = folder.join(name);
    loop {
        let mut file = open(&path)?;
        lock(&file)?;
        if !is_at(&file, &path) {
            let mut outcome = Vec::new();
            file.read_to_end(&mut outcome)?;
            if !outcome.is_empty() {
                return Ok(Joined::Shared(outcome.into()));
            }
            continue;
        }
        let guard = Guard { file, path };
        return Ok(match look() {
            Some(found) => Joined::Found(found),
            None => Joined::Held(guard),
        });
    }
}

impl Guard {
    /// Gives the outcome to those who wait, and lets go.
    ///
    /// # Errors
    /// The file cannot be written. Those who wait do without, then.
    pub(crate) fn share(mut self, outcome: &[u8]) -> io::Result<()> {
        self.remove();
        self.file.write_all(outcome)
    }

    /// Removes the name, if it is still this file's.
    fn remove(&self) {
        if is_at(&self.file, &self.path) {
            // If it cannot be removed, the next holder does.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.remove();
    }
}

fn open(path: &Path) -> io::Result<File> {
    let no_follow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0);
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(no_follow)
        .open(path)
}

fn lock(file: &File) -> io::Result<()> {
    loop {
        match file.lock() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Whether a path still names this very file.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    fn held(folder: &Path) -> Guard {
        match join(folder, "k", || None::<()>).unwrap() {
            Joined::Held(guard) => guard,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn of_many_one_holds_and_all_get_its_outcome() {
        let folder = tempfile::tempdir().unwrap();
        let runs = AtomicUsize::new(0);
        let guard = held(folder.path());
        let waiting = AtomicUsize::new(0);
        thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        waiting.fetch_add(1, Ordering::SeqCst);
                        match join(folder.path(), "k", || None::<()>).unwrap() {
                            Joined::Held(guard) => {
                                runs.fetch_add(1, Ordering::SeqCst);
                                guard.share(b"second").unwrap();
                                Bytes::from_static(b"second")
                            }
                            Joined::Shared(bytes) => bytes,
                            Joined::Found(()) => panic!(),
                        }
                    })
                })
                .collect();
            while waiting.load(Ordering::SeqCst) < 8 {
                thread::yield_now();
            }
            guard.share(b"first").unwrap();
            for thread in threads {
                // Who came too late to wait for the first may have run, and shared in turn.
                let outcome = thread.join().unwrap();
                assert!(outcome == "first" || outcome == "second");
            }
        });
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "lock files pile up");
    }

    #[test]
    fn a_holder_that_gives_up_lets_the_next_one_hold() {
        let folder = tempfile::tempdir().unwrap();
        drop(held(folder.path()));
        drop(held(folder.path()));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_lies_in_a_file_that_has_a_name_is_not_an_outcome() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("k"), "left over").unwrap();
        drop(held(folder.path()));
    }

    #[test]
    fn what_is_found_under_the_lock_ends_the_wait_and_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(join(folder.path(), "k", || Some(7)).unwrap(), Joined::Found(7)));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_link_in_place_of_a_lock_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("target");
        std::os::unix::fs::symlink(&target, folder.path().join("k")).unwrap();
        assert!(join(folder.path(), "k", || None::<()>).is_err());
        assert!(!target.exists());
    }
}
