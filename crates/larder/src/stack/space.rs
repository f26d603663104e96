//! Namespaces of a stack: one node per path, shared by every handle, with the stamp of its last clear.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::error::{Error, ErrorKind, Result};
use crate::key::KeySpace;
use crate::time::Stamp;

/// How many namespaces one stack may have.
pub const NAMESPACES_MAX: usize = 100_000;

/// One namespace of a stack.
#[derive(Debug)]
pub(crate) struct Space {
    pub(crate) id: u32,
    pub(crate) keys: KeySpace,
    pub(crate) mark_key: String,
    parent: Option<Arc<Space>>,
    cleared: AtomicU64,
}

impl Space {
    /// This namespace and those around it, inside out.
    pub(crate) fn chain(&self) -> impl Iterator<Item = &Space> {
        std::iter::successors(Some(self), |space| space.parent.as_deref())
    }

    /// The stamp of the last clear that reached this namespace, as far as this process knows.
    pub(crate) fn cleared(&self) -> Stamp {
        let newest = self.chain().map(|space| space.cleared.load(Ordering::Acquire)).max();
        Stamp::from_bits(newest.unwrap_or(0))
    }

    /// Whether this namespace is the other one or inside it.
    pub(crate) fn is_within(&self, other: u32) -> bool {
        self.chain().any(|space| space.id == other)
    }
}

/// All namespaces of a stack.
#[derive(Debug)]
pub(crate) struct Spaces {
    root: Arc<Space>,
    known: RwLock<Known>,
    /// The newest clear of any namespace: an entry born after it needs no further check.
    newest_clear: AtomicU64,
}

#[derive(Debug)]
struct Known {
    by_path: HashMap<String, Arc<Space>>,
    by_id: Vec<Arc<Space>>,
}

impl Spaces {
    /// # Errors
    /// [`ErrorKind::InvalidKey`] if the prefix is unusable.
    pub(crate) fn new(prefix: &str) -> Result<Self> {
        let keys = KeySpace::new(prefix)?;
        let mark_key = keys.mark_key();
        let root = Arc::new(Space { id: 0, keys, mark_key, parent: None, cleared: AtomicU64::new(0) });
        let known = Known {
            by_path: HashMap::from([(String::new(), Arc::clone(&root))]),
            by_id: vec![Arc::clone(&root)],
        };
        Ok(Self { root, known: RwLock::new(known), newest_clear: AtomicU64::new(0) })
    }

    pub(crate) fn root(&self) -> &Arc<Space> {
        &self.root
    }

    /// The namespace of this name inside another one, the same for everyone who asks.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidKey`] for an unusable name, [`ErrorKind::Overloaded`] beyond [`NAMESPACES_MAX`].
    pub(crate) fn child(&self, parent: &Arc<Space>, name: &str) -> Result<Arc<Space>> {
        let keys = parent.keys.child(name)?;
        if let Some(space) = self.known.read().by_path.get(keys.path()) {
            return Ok(Arc::clone(space));
        }
        let mut known = self.known.write();
        if let Some(space) = known.by_path.get(keys.path()) {
            return Ok(Arc::clone(space));
        }
        let id = match u32::try_from(known.by_id.len()) {
            Ok(id) if known.by_id.len() < NAMESPACES_MAX => id,
            _ => {
                let message = format!("more than {NAMESPACES_MAX} namespaces in one stack");
                return Err(Error::new(ErrorKind::Overloaded, message));
            }
        };
        let path = keys.path().to_owned();
        let mark_key = keys.mark_key();
        let parent = Some(Arc::clone(parent));
        let space = Arc::new(Space { id, keys, mark_key, parent, cleared: AtomicU64::new(0) });
        known.by_path.insert(path, Arc::clone(&space));
        known.by_id.push(Arc::clone(&space));
        Ok(space)
    }

    pub(crate) fn by_id(&self, id: u32) -> Option<Arc<Space>> {
        self.known.read().by_id.get(usize::try_from(id).ok()?).cloned()
    }

    /// Notes a clear of a namespace, however often it is heard of.
    pub(crate) fn raise(&self, space: &Space, stamp: Stamp) {
        space.cleared.fetch_max(stamp.to_bits(), Ordering::AcqRel);
        // After the namespace's own: whoever sees this one raised then finds the other raised as well.
        self.newest_clear.fetch_max(stamp.to_bits(), Ordering::AcqRel);
    }

    /// The last clear that matters for something born at `born` in a namespace. Where nothing was ever cleared
    /// since, this is one comparison.
    #[inline]
    pub(crate) fn cleared(&self, space: &Space, born: Stamp) -> Stamp {
        if born.to_bits() > self.newest_clear.load(Ordering::Acquire) { Stamp::ZERO } else { space.cleared() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_handle_of_a_namespace_is_the_same_one() {
        let spaces = Spaces::new("p").unwrap();
        let a = spaces.child(spaces.root(), "a").unwrap();
        assert_eq!(a.id, spaces.child(spaces.root(), "a").unwrap().id);
        assert_ne!(a.id, spaces.child(&a, "a").unwrap().id);
        assert_eq!(spaces.by_id(a.id).unwrap().keys.path(), "a");
    }

    #[test]
    fn a_clear_reaches_what_is_inside_and_nothing_else() {
        let spaces = Spaces::new("p").unwrap();
        let a = spaces.child(spaces.root(), "a").unwrap();
        let inner = spaces.child(&a, "b").unwrap();
        let neighbour = spaces.child(spaces.root(), "ab").unwrap();
        spaces.raise(&a, Stamp::from_bits(7));
        assert_eq!(spaces.cleared(&inner, Stamp::from_bits(7)), Stamp::from_bits(7));
        assert_eq!(spaces.cleared(&inner, Stamp::from_bits(8)), Stamp::ZERO);
        assert_eq!(spaces.cleared(&neighbour, Stamp::from_bits(3)), Stamp::ZERO);
        assert_eq!(spaces.root().cleared(), Stamp::ZERO);
        assert!(inner.is_within(a.id) && !neighbour.is_within(a.id));
    }
}
