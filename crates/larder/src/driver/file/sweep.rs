//! Many files: listing, clearing by prefix, and giving back space. All of it blocks.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, openat, statat, unlinkat};
use rustix::io::Errno;

use super::directory::{Directory, Found, Stored, Want, read};
use super::layout::{NEW, Place, is_level};
use crate::driver::Scanned;
use crate::entry::wire::stamp_of;
use crate::error::Result;
use crate::time::{Stamp, Timestamp, hours};

/// How long a file may take to be written before it counts as left behind by a process that died.
const NEW_AGE_MAX: std::time::Duration = hours(1);

/// A walk over all that a directory holds, one name at a time.
pub(super) struct Walk {
    directory: Arc<Directory>,
    /// From the root to where the walk is.
    path: Vec<Level>,
}

struct Level {
    name: String,
    folder: Arc<OwnedFd>,
    names: Dir,
}

/// What a walk comes upon.
enum Step {
    /// The file of an entry.
    Entry { folder: Arc<OwnedFd>, place: Place },
    /// A file that is being written, or was when its writer died.
    New { folder: Arc<OwnedFd>, name: String },
    /// The end of a directory.
    End { parent: Arc<OwnedFd>, name: String },
}

impl Walk {
    pub(super) fn new(directory: Arc<Directory>) -> Result<Self> {
        let root = directory.root.try_clone().map_err(|error| directory.failed("list", error))?;
        let mut walk = Self { directory, path: Vec::new() };
        walk.enter(String::new(), root).map_err(|errno| walk.directory.failed("list", errno))?;
        Ok(walk)
    }

    fn enter(&mut self, name: String, folder: OwnedFd) -> std::result::Result<(), Errno> {
        let names = Dir::read_from(&folder)?;
        self.path.push(Level { name, folder: Arc::new(folder), names });
        Ok(())
    }

    /// The next thing that is of interest; `None` at the end. Whatever is not this driver's is passed over.
    fn next(&mut self) -> std::result::Result<Option<Step>, Errno> {
        loop {
            let depth = self.path.len().saturating_sub(1);
            let Some(level) = self.path.last_mut() else { return Ok(None) };
            let Some(entry) = level.names.read() else {
                let ended = self.path.pop();
                let parent = self.path.last().map(|level| Arc::clone(&level.folder));
                match (ended, parent) {
                    (Some(ended), Some(parent)) => return Ok(Some(Step::End { parent, name: ended.name })),
                    _ => return Ok(None),
                }
            };
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            let folder = Arc::clone(&level.folder);
            if name.starts_with(NEW) {
                return Ok(Some(Step::New { folder, name: name.to_owned() }));
            }
            if depth < usize::from(self.directory.levels) {
                if is_level(name) {
                    self.descend(&folder, name.to_owned())?;
                }
            } else if let Some(place) = Place::named(name, self.directory.levels, &self.directory.suffix) {
                return Ok(Some(Step::Entry { folder, place }));
            }
        }
    }

    fn descend(&mut self, parent: &OwnedFd, name: String) -> std::result::Result<(), Errno> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(parent, name.as_str(), flags, Mode::empty()) {
            Ok(folder) => self.enter(name, folder),
            // Gone since, or a link or a file that is not ours.
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Looks at up to `limit` files. Says which live entries begin with the prefix, and whether that was all.
    pub(super) fn scan(
        &mut self,
        prefix: &str,
        limit: usize,
        now: Timestamp,
    ) -> Result<(Vec<Scanned>, bool)> {
        let mut found = Vec::new();
        for _ in 0..limit {
            let step = self.next().map_err(|errno| self.directory.failed("list", errno))?;
            let Some(step) = step else { return Ok((found, true)) };
            let Step::Entry { folder, place } = step else { continue };
            let file = read(&folder, &place.name, Want::Head, now);
            let file = file.map_err(|error| self.directory.failed("read an entry in", error))?;
            if let Found::Entry(stored) = file
                && stored.alive
                && stored.key.starts_with(prefix)
            {
                found.push(Scanned { key: stored.key, head: stored.value });
            }
        }
        Ok((found, false))
    }
}

/// Removes every entry whose key begins with the prefix and that is no newer than `until`. Returns how many live
/// ones there were.
pub(super) fn clear(directory: &Arc<Directory>, prefix: &str, until: Stamp, now: Timestamp) -> Result<u64> {
    // A directory whose marker someone took away may be used for something else by now.
    directory.check_marker()?;
    let mut walk = Walk::new(Arc::clone(directory))?;
    let mut cleared = 0;
    while let Some(step) = walk.next().map_err(|errno| directory.failed("list", errno))? {
        let Step::Entry { folder, place } = step else { continue };
        let is_meant = |found: &Found| match found {
            Found::Entry(stored) => stored.key.starts_with(prefix) && stamp_of(&stored.value) <= Some(until),
            Found::Nothing | Found::Damaged => false,
        };
        let file = read(&folder, &place.name, Want::Head, now);
        let file = file.map_err(|error| directory.failed("read an entry in", error))?;
        let Found::Entry(stored) = &file else { continue };
        if is_meant(&file) && directory.remove_if(&folder, &place, now, is_meant)? {
            cleared += u64::from(stored.alive);
        }
    }
    Ok(cleared)
}

/// What a prune came to.
pub(super) struct Pruned {
    pub(super) entries: u64,
    pub(super) bytes_left: u64,
}

/// A live file that may have to go for the bound's sake.
struct Candidate {
    modified: (i64, i64),
    file_bytes: u64,
    name: String,
}

/// Removes what has expired or is damaged, what died while being written, directories that are empty, and, if
/// there is a bound, the least recently written entries beyond it.
pub(super) fn prune(directory: &Arc<Directory>, now: Timestamp, max_bytes: Option<u64>) -> Result<Pruned> {
    let mut walk = Walk::new(Arc::clone(directory))?;
    let mut pruned = Pruned { entries: 0, bytes_left: 0 };
    let mut candidates = Vec::new();
    while let Some(step) = walk.next().map_err(|errno| directory.failed("list", errno))? {
        match step {
            Step::Entry { folder, place } => {
                let file = read(&folder, &place.name, Want::Head, now);
                match file.map_err(|error| directory.failed("read an entry in", error))? {
                    Found::Entry(stored) if stored.alive => {
                        pruned.bytes_left += stored.file_bytes;
                        if max_bytes.is_some() {
                            let Stored { modified, file_bytes, .. } = stored;
                            candidates.push(Candidate { modified, file_bytes, name: place.name });
                        }
                    }
                    Found::Nothing => {}
                    Found::Entry(_) | Found::Damaged => {
                        pruned.entries += u64::from(directory.remove_if(&folder, &place, now, is_dead)?);
                    }
                }
            }
            Step::New { folder, name } => remove_if_left_behind(&folder, &name, now),
            // Not empty is the usual answer. A writer that just opened it makes it anew.
            Step::End { parent, name } => drop(unlinkat(&parent, name, AtFlags::REMOVEDIR)),
        }
    }
    if let Some(max_bytes) = max_bytes {
        evict(directory, candidates, max_bytes, now, &mut pruned)?;
    }
    Ok(pruned)
}

fn is_dead(found: &Found) -> bool {
    match found {
        Found::Nothing => false,
        Found::Damaged => true,
        Found::Entry(stored) => !stored.alive,
    }
}

/// A file that nobody has written to for an hour belongs to nobody. What fails is tried at the next prune.
fn remove_if_left_behind(folder: &OwnedFd, name: &str, now: Timestamp) {
    let Ok(stat) = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) else { return };
    let modified = u64::try_from(stat.st_mtime).unwrap_or(0).saturating_mul(1_000);
    if Timestamp::from_millis(modified) + NEW_AGE_MAX < now {
        let _ = unlinkat(folder, name, AtFlags::empty());
    }
}

/// Removes the least recently written entries until the rest fits.
fn evict(
    directory: &Directory,
    mut candidates: Vec<Candidate>,
    max_bytes: u64,
    now: Timestamp,
    pruned: &mut Pruned,
) -> Result<()> {
    candidates.sort_unstable_by_key(|candidate| candidate.modified);
    for Candidate { modified, file_bytes, name } in candidates {
        if pruned.bytes_left <= max_bytes {
            break;
        }
        let Some(place) = Place::named(&name, directory.levels, &directory.suffix) else { continue };
        let leaf = directory.leaf(&place, false).map_err(|error| directory.failed("open", error))?;
        let Some(leaf) = leaf else { continue };
        let unchanged = |found: &Found| matches!(found, Found::Entry(stored) if stored.modified == modified);
        if directory.remove_if(&leaf, &place, now, unchanged)? {
            pruned.entries += 1;
            pruned.bytes_left = pruned.bytes_left.saturating_sub(file_bytes);
        }
    }
    Ok(())
}
