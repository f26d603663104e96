//! Single files: the directory as it was opened, its locks, and reading, writing and removing one entry.
//!
//! Knows when to look under which lock, and nothing of listings. All of it blocks.

use std::collections::hash_map::RandomState;
use std::fs::{DirBuilder, File, TryLockError};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Read, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::fs::{AtFlags, Dir, Mode, OFlags, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;

use super::layout::{self, HEADER_BYTES_MAX, LOCKS, MARKER, NEW, Place, STRIPES};
use super::{FileOptions, VALUE_BYTES_MAX};
use crate::driver::{When, Written};
use crate::entry::wire::HEAD_BYTES;
use crate::error::{Error, ErrorKind, Result};
use crate::time::{Timestamp, seconds};

/// How long a writer waits for another one's lock: far longer than any write takes.
const LOCK_PATIENCE: Duration = seconds(5);
/// How often a lock that another process holds is tried again.
const LOCK_PAUSE_MAX: Duration = Duration::from_micros(500);
/// How often a write begins anew because a prune removed the directory below it.
const RETRIES: usize = 32;

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Not blocking, because whoever plants a pipe in place of a file would hold its reader forever.
const READ: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);
const CREATE: OFlags = OFlags::CREATE.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const FOLDER_MODE: Mode = Mode::RWXU;
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// A directory of entries, opened: all paths below start at its descriptor.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) root: OwnedFd,
    locks: OwnedFd,
    /// One lock file each, opened when first needed. The mutex is for the tasks of this process, because the
    /// kernel's lock belongs to the open file that they share.
    stripes: Vec<Mutex<Option<File>>>,
    path: PathBuf,
    marker: String,
    pub(super) levels: u8,
    pub(super) suffix: String,
}

/// What is under an entry's name.
pub(super) enum Found {
    Nothing,
    /// Something that this driver did not write, or not to its end.
    Damaged,
    Entry(Stored),
}

/// A file that holds an entry.
pub(super) struct Stored {
    pub(super) key: String,
    pub(super) alive: bool,
    /// Its value, or the beginning of it, as was asked.
    pub(super) value: Bytes,
    pub(super) file_bytes: u64,
    /// When it was written, in nanoseconds, by the file system's clock.
    pub(super) modified: (i64, i64),
}

/// How much of a file is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    Head,
    Value,
}

impl Directory {
    /// Opens the directory, makes it if need be, and takes it if it is empty.
    pub(super) fn open(options: &FileOptions) -> Result<Self> {
        // Normalised, because a slash at the end would have a link followed.
        let path: PathBuf = options.directory.components().collect();
        refuse_precious(&path)?;
        if !options.create {
            require(&path, &layout::marker(options))?;
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(|error| unavailable("make the directory", &path, error))?;
        let root = rustix::fs::open(&path, FOLDER, Mode::empty()).map_err(|errno| match errno {
            Errno::LOOP | Errno::NOTDIR => refused(&path, "it is a symbolic link, or no directory"),
            errno => unavailable("open the directory", &path, errno),
        })?;
        let marker = layout::marker(options);
        take(&root, &marker, &path)?;
        let locks =
            make_folder(&root, LOCKS).map_err(|errno| unavailable("make the locks of", &path, errno))?;
        let stripes = (0..STRIPES).map(|_| Mutex::new(None)).collect();
        Ok(Self {
            root,
            locks,
            stripes,
            path,
            marker,
            levels: options.levels,
            suffix: options.suffix.clone(),
        })
    }

    /// Whether the directory was removed since it was opened.
    pub(super) fn is_gone(&self) -> bool {
        rustix::fs::fstat(&self.root).is_ok_and(|stat| stat.st_nlink == 0)
    }

    /// Succeeds if this is still a directory that this driver may clear.
    pub(super) fn check_marker(&self) -> Result<()> {
        check_marker(&self.root, &self.marker, &self.path)
    }

    /// Waits until no write is under way, and lets go of the lock files.
    pub(super) fn wait_for_writers(&self) {
        for stripe in &self.stripes {
            *stripe.lock() = None;
        }
    }

    pub(super) fn get(&self, key: &str, now: Timestamp) -> Result<Option<Bytes>> {
        let place = self.place(key);
        let found = self.leaf(&place, false).and_then(|leaf| match leaf {
            Some(leaf) => read(&leaf, &place.name, Want::Value, now),
            None => Ok(Found::Nothing),
        });
        match found.map_err(|error| unavailable("read an entry in", &self.path, error))? {
            Found::Entry(stored) if stored.alive && stored.key == key => Ok(Some(stored.value)),
            _ => Ok(None),
        }
    }

    /// Stores a value if `when` allows it. Also says how large the new file is.
    pub(super) fn set(
        &self,
        key: &str,
        value: &[u8],
        until: Timestamp,
        when: When,
        now: Timestamp,
    ) -> Result<(Written, u64)> {
        let place = self.place(key);
        let header = layout::encode(key, until, value.len());
        let failed = |error: io::Error| unavailable("write an entry in", &self.path, error);
        self.locked(place.stripe, || {
            for _ in 0..RETRIES {
                let Some(leaf) = self.leaf(&place, true).map_err(failed)? else { continue };
                let stored = match read(&leaf, &place.name, Want::Head, now).map_err(failed)? {
                    Found::Entry(stored) if stored.alive && stored.key == key => Some(stored.value),
                    _ => None,
                };
                let outcome = when.outcome(stored.as_deref(), value);
                if let Written::Refused { .. } = outcome {
                    return Ok((outcome, 0));
                }
                match replace(&leaf, &place.name, &header, value) {
                    // A prune removed the directory, which was empty, after it was opened here.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(failed(error)),
                    Ok(()) => return Ok((outcome, (header.len() + value.len()) as u64)),
                }
            }
            Err(failed(io::Error::other("its directories keep disappearing")))
        })
    }

    pub(super) fn delete(&self, key: &str, now: Timestamp) -> Result<bool> {
        let place = self.place(key);
        let failed = |error| unavailable("delete an entry in", &self.path, error);
        self.locked(place.stripe, || {
            let Some(leaf) = self.leaf(&place, false).map_err(failed)? else { return Ok(false) };
            let was_there = match read(&leaf, &place.name, Want::Head, now).map_err(failed)? {
                // Another key with the same hash is not ours to remove.
                Found::Entry(stored) if stored.key != key => return Ok(false),
                Found::Nothing => return Ok(false),
                Found::Entry(stored) => stored.alive,
                Found::Damaged => false,
            };
            remove(&leaf, &place.name).map_err(failed)?;
            Ok(was_there)
        })
    }

    /// Removes what is under a name if, under its lock, it still is what it was taken for. Says whether.
    pub(super) fn remove_if(
        &self,
        leaf: &OwnedFd,
        place: &Place,
        now: Timestamp,
        still: impl Fn(&Found) -> bool,
    ) -> Result<bool> {
        let failed = |error| unavailable("remove an entry in", &self.path, error);
        self.locked(place.stripe, || {
            if !still(&read(leaf, &place.name, Want::Head, now).map_err(failed)?) {
                return Ok(false);
            }
            remove(leaf, &place.name).map_err(failed)
        })
    }

    pub(super) fn place(&self, key: &str) -> Place {
        Place::of(key, self.levels, &self.suffix)
    }

    /// What failed, on this directory.
    pub(super) fn failed(&self, what: &str, error: impl Into<io::Error>) -> Error {
        unavailable(what, &self.path, error)
    }

    /// The directory that an entry's file is in; `None` if it is not there, or went while it was made.
    pub(super) fn leaf(&self, place: &Place, make: bool) -> io::Result<Option<OwnedFd>> {
        let mut folder = self.root.try_clone()?;
        for level in place.levels() {
            folder = match openat(&folder, level, FOLDER, Mode::empty()) {
                Ok(opened) => opened,
                Err(Errno::NOENT) if make => match make_folder(&folder, level) {
                    Ok(made) => made,
                    Err(Errno::NOENT) => return Ok(None),
                    Err(errno) => return Err(errno.into()),
                },
                Err(Errno::NOENT) => return Ok(None),
                // A link or a file in place of a directory: nothing can be read there, and no write may follow.
                Err(Errno::LOOP | Errno::NOTDIR) if !make => return Ok(None),
                Err(errno) => return Err(errno.into()),
            };
        }
        Ok(Some(folder))
    }

    /// Runs a change alone among the tasks of this process and of all others.
    fn locked<T>(&self, stripe: usize, change: impl FnOnce() -> Result<T>) -> Result<T> {
        let busy = || {
            let message = format!("waited {LOCK_PATIENCE:?} for a lock in {}", self.path.display());
            Error::new(ErrorKind::Timeout, message)
        };
        let Some(mutex) = self.stripes.get(stripe) else { return Err(busy()) };
        let mut file = mutex.try_lock_for(LOCK_PATIENCE).ok_or_else(busy)?;
        if file.is_none() {
            let name = format!("{stripe:02x}");
            let opened = openat(&self.locks, name, CREATE | OFlags::RDWR | OFlags::NONBLOCK, FILE_MODE)
                .map_err(|errno| unavailable("open a lock of", &self.path, errno))?;
            *file = Some(File::from(opened));
        }
        let Some(lock) = &*file else { return Err(busy()) };
        wait_for_lock(lock).map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => busy(),
            _ => unavailable("lock an entry in", &self.path, error),
        })?;
        // The kernel lets go of it if this process dies, and this does if the change panics.
        let _unlock = Unlock(lock);
        change()
    }
}

struct Unlock<'a>(&'a File);

impl Drop for Unlock<'_> {
    fn drop(&mut self) {
        // Unlocking what is locked cannot fail.
        let _ = self.0.unlock();
    }
}

/// Locks a file, or fails with `TimedOut`: a process that is stopped must not hold threads here forever.
fn wait_for_lock(lock: &File) -> io::Result<()> {
    let mut pause = Duration::from_micros(20);
    let mut waited = Duration::ZERO;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if waited >= LOCK_PATIENCE => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(TryLockError::WouldBlock) => {
                std::thread::sleep(pause);
                waited += pause;
                pause = (pause * 2).min(LOCK_PAUSE_MAX);
            }
        }
    }
}

/// Fails unless there is a store at a path already.
fn require(path: &Path, marker: &str) -> Result<()> {
    let missing = || {
        let message = format!("there is no store at {}, and none is to be created", path.display());
        Error::new(ErrorKind::Config, message)
    };
    if !path.exists() {
        return Err(missing());
    }
    let root = rustix::fs::open(path, FOLDER, Mode::empty());
    let root = root.map_err(|errno| match errno {
        Errno::LOOP | Errno::NOTDIR => refused(path, "it is a symbolic link, or no directory"),
        errno => unavailable("open the directory", path, errno),
    })?;
    if is_marked(&root, path)? { check_marker(&root, marker, path) } else { Err(missing()) }
}

/// Refuses directories that can only be meant by mistake.
fn refuse_precious(path: &Path) -> Result<()> {
    // A path that is not there yet is none of these.
    let Ok(real) = path.canonicalize() else { return Ok(()) };
    if real.parent().is_none() {
        return Err(refused(path, "it is the root of all files"));
    }
    let home = std::env::home_dir().and_then(|home| home.canonicalize().ok());
    if home.is_some_and(|home| home == real) {
        return Err(refused(path, "it is the home directory; name one inside it"));
    }
    Ok(())
}

/// Makes sure that the directory is this driver's: marked as such, or empty and marked now.
fn take(root: &OwnedFd, marker: &str, path: &Path) -> Result<()> {
    if !is_marked(root, path)? {
        // Another process may be taking it at this moment: what it puts there comes after its marker.
        if has_other_files(root, path)? && !is_marked(root, path)? {
            return Err(refused(path, "it has other files"));
        }
        replace(root, MARKER, b"", marker.as_bytes()).map_err(|error| unavailable("mark", path, error))?;
    }
    check_marker(root, marker, path)?;
    let open_to_others = File::from(root.try_clone().map_err(|error| unavailable("open", path, error))?)
        .metadata()
        .map_err(|error| unavailable("look at", path, error))?
        .permissions()
        .mode()
        & 0o077
        != 0;
    if open_to_others {
        rustix::fs::fchmod(root, FOLDER_MODE).map_err(|_| {
            refused(path, "it is open to other users, and belongs to one of them, so it cannot be closed")
        })?;
    }
    Ok(())
}

fn is_marked(root: &OwnedFd, path: &Path) -> Result<bool> {
    match openat(root, MARKER, READ, Mode::empty()) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(Errno::LOOP) => Err(refused(path, "its marker is a symbolic link")),
        Err(errno) => Err(unavailable("look for the marker of", path, errno)),
    }
}

fn has_other_files(root: &OwnedFd, path: &Path) -> Result<bool> {
    let failed = |errno: Errno| unavailable("list", path, errno);
    for entry in Dir::read_from(root).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") && !name.starts_with(NEW.as_bytes()) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn check_marker(root: &OwnedFd, marker: &str, path: &Path) -> Result<()> {
    let file = openat(root, MARKER, READ, Mode::empty());
    let file = file.map_err(|errno| match errno {
        Errno::NOENT | Errno::LOOP => refused(path, "it has no marker, so it may not be a cache"),
        errno => unavailable("look for the marker of", path, errno),
    })?;
    let mut found = String::new();
    let limit = marker.len() as u64 + 64;
    let read = File::from(file).take(limit).read_to_string(&mut found);
    if read.is_err() || found != marker {
        let ours = marker.lines().last().unwrap_or_default();
        return Err(refused(path, &format!("its marker is not that of {ours:?}")));
    }
    Ok(())
}

fn make_folder(parent: &OwnedFd, name: &str) -> std::result::Result<OwnedFd, Errno> {
    match mkdirat(parent, name, FOLDER_MODE) {
        // Another process was faster.
        Ok(()) | Err(Errno::EXIST) => openat(parent, name, FOLDER, Mode::empty()),
        Err(errno) => Err(errno),
    }
}

/// Reads an entry's file. What is no regular file, or not written by this driver to its end, is damage.
pub(super) fn read(leaf: &OwnedFd, name: &str, want: Want, now: Timestamp) -> io::Result<Found> {
    let file = match openat(leaf, name, READ, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(Found::Nothing),
        Err(Errno::LOOP | Errno::NXIO) => return Ok(Found::Damaged),
        Err(errno) => return Err(errno.into()),
    };
    let metadata = file.metadata()?;
    let file_bytes = metadata.len();
    if !metadata.is_file() || file_bytes > VALUE_BYTES_MAX + HEADER_BYTES_MAX as u64 {
        return Ok(Found::Damaged);
    }
    // One read for the header, the head and most values whole; no more than the file has.
    let first = (file_bytes as usize).min(HEADER_BYTES_MAX + HEAD_BYTES);
    let mut bytes = Vec::with_capacity(first);
    (&file).take(first as u64).read_to_end(&mut bytes)?;
    let Some(header) = layout::decode(&bytes, file_bytes) else { return Ok(Found::Damaged) };
    let (key, alive, start) = (header.key.to_owned(), header.is_alive(now), header.bytes);
    let modified = (metadata.mtime(), metadata.mtime_nsec());
    if want == Want::Value && alive {
        bytes.reserve_exact((file_bytes as usize).saturating_sub(bytes.len()));
        (&file).take(file_bytes).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != file_bytes {
            return Ok(Found::Damaged);
        }
    }
    let mut value = Bytes::from(bytes);
    // The header was decoded from these very bytes, so it is no longer than they are.
    let mut value = value.split_off(start.min(value.len()));
    if want == Want::Head {
        value.truncate(HEAD_BYTES);
    }
    Ok(Found::Entry(Stored { key, alive, value, file_bytes, modified }))
}

/// Writes a new file and puts it in place of whatever is under the name, in one step.
fn replace(leaf: &OwnedFd, name: &str, header: &[u8], value: &[u8]) -> io::Result<()> {
    let random = RandomState::new().build_hasher().finish();
    let new = format!("{NEW}{random:016x}");
    let file = openat(leaf, &new, CREATE | OFlags::EXCL | OFlags::WRONLY, FILE_MODE)?;
    let mut file = File::from(file);
    let written = file
        .write_all(header)
        .and_then(|()| file.write_all(value))
        .and_then(|()| Ok(renameat(leaf, &new, leaf, name)?));
    if written.is_err() {
        // The first failure is the one to report; a file that stays behind is pruned.
        let _ = unlinkat(leaf, &new, AtFlags::empty());
    }
    written
}

/// Removes a file, or whatever but a directory is there. Says whether there was something.
fn remove(leaf: &OwnedFd, name: &str) -> io::Result<bool> {
    match unlinkat(leaf, name, AtFlags::empty()) {
        Ok(()) => Ok(true),
        // A directory in place of a file is not ours, and reads as nothing.
        Err(Errno::NOENT | Errno::ISDIR | Errno::PERM) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn refused(path: &Path, why: &str) -> Error {
    Error::new(ErrorKind::Config, format!("refusing to use {} as a cache: {why}", path.display()))
}

fn unavailable(what: &str, path: &Path, error: impl Into<io::Error>) -> Error {
    Error::from_source(ErrorKind::Unavailable, format!("cannot {what} {}", path.display()), error.into())
}
