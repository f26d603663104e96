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

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
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

/// What became of asking for a key without waiting for it.
#[derive(Debug)]
pub(crate) enum Attempt<T> {
    /// The key is ours until the guard is gone.
    Held(Guard),
    /// Somebody else holds it, or did a moment ago.
    Busy(Waiting),
    /// Nothing needs to be done: this was found once the key was ours.
    Found(T),
}

/// A place in the queue of a key that somebody holds.
#[derive(Debug)]
pub(crate) struct Waiting {
    file: File,
    path: PathBuf,
}

/// A key that is held. Dropping it lets the next one in.
#[derive(Debug)]
pub(crate) struct Guard {
    file: File,
    path: PathBuf,
    /// Whether another process holds the key now.
    handed_over: bool,
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
    let path = path_in(folder, name)?;
    loop {
        let mut file = open(&path)?;
        lock(&file)?;
        if !is_at(&file, &path) {
            if let Some(outcome) = read_outcome(&mut file)? {
                return Ok(Joined::Shared(outcome));
            }
            continue;
        }
        let guard = Guard { file, path, handed_over: false };
        return Ok(match look() {
            Some(found) => Joined::Found(found),
            None => Joined::Held(guard),
        });
    }
}

/// Takes a key that nobody holds, and looks with `look` whether there is still something to be done. Does not
/// wait.
///
/// # Errors
/// As [`join`].
pub(crate) fn attempt<T>(
    folder: &Path,
    name: &str,
    look: impl FnOnce() -> Option<T>,
) -> io::Result<Attempt<T>> {
    let path = path_in(folder, name)?;
    let file = open(&path)?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => return Ok(Attempt::Busy(Waiting { file, path })),
        Err(TryLockError::Error(error)) => return Err(error),
        Ok(()) => {}
    }
    if !is_at(&file, &path) {
        // The holder was done between the two steps above; its outcome is there to be read.
        file.unlock()?;
        return Ok(Attempt::Busy(Waiting { file, path }));
    }
    let guard = Guard { file, path, handed_over: false };
    Ok(match look() {
        Some(found) => Attempt::Found(found),
        None => Attempt::Held(guard),
    })
}

/// The key that another process took and handed over to this one as an open file. `None` if it is not held by
/// this very file.
pub(crate) fn take_over(file: File, folder: &Path, name: &str) -> Option<Guard> {
    let path = folder.join(name);
    let held = is_at(&file, &path) && file.try_lock().is_ok();
    held.then_some(Guard { file, path, handed_over: false })
}

impl Waiting {
    /// Waits until the holder is done: its outcome, or `None` if it gave up or died. Blocks.
    ///
    /// # Errors
    /// The file cannot be locked or read.
    pub(crate) fn outcome(mut self) -> io::Result<Option<Bytes>> {
        lock(&self.file)?;
        if is_at(&self.file, &self.path) {
            return Ok(None);
        }
        read_outcome(&mut self.file)
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

    /// Lets another process hold the key: `start` starts one that gets the file, and with it the lock. Returns
    /// this process's place in the queue.
    ///
    /// # Errors
    /// The process cannot be started; the key is let go of, then.
    pub(crate) fn hand_over(mut self, start: impl FnOnce(File) -> io::Result<()>) -> io::Result<Waiting> {
        // Opened while the file has its name: once the other one is done, it has none.
        let waiting = Waiting { file: open(&self.path)?, path: self.path.clone() };
        start(self.file.try_clone()?)?;
        self.handed_over = true;
        Ok(waiting)
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
        if !self.handed_over {
            self.remove();
        }
    }
}

fn path_in(folder: &Path, name: &str) -> io::Result<PathBuf> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    Ok(folder.join(name))
}

fn read_outcome(file: &mut File) -> io::Result<Option<Bytes>> {
    let mut outcome = Vec::new();
    file.read_to_end(&mut outcome)?;
    Ok((!outcome.is_empty()).then(|| outcome.into()))
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
    fn a_key_that_is_held_is_not_waited_for_unless_asked() {
        let folder = tempfile::tempdir().unwrap();
        let guard = held(folder.path());
        let Attempt::Busy(waiting) = attempt(folder.path(), "k", || None::<()>).unwrap() else { panic!() };
        guard.share(b"outcome").unwrap();
        assert_eq!(waiting.outcome().unwrap().unwrap(), "outcome");
        assert!(matches!(attempt(folder.path(), "k", || Some(7)).unwrap(), Attempt::Found(7)));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_key_that_is_handed_over_stays_held() {
        let folder = tempfile::tempdir().unwrap();
        let mut other = None;
        let waiting = held(folder.path()).hand_over(|file| {
            other = Some(file);
            Ok(())
        });
        let waiting = waiting.unwrap();
        assert!(matches!(attempt(folder.path(), "k", || None::<()>).unwrap(), Attempt::Busy(_)));
        assert!(take_over(other.as_ref().unwrap().try_clone().unwrap(), folder.path(), "l").is_none());
        take_over(other.take().unwrap(), folder.path(), "k").unwrap().share(b"outcome").unwrap();
        assert_eq!(waiting.outcome().unwrap().unwrap(), "outcome");

        let waiting = held(folder.path()).hand_over(|_| Ok(())).unwrap();
        assert!(waiting.outcome().unwrap().is_none(), "whoever got it has died");
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
