//! Namespaces of a stack: one node per path, shared by every handle, with the stamp of its last clear.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::error::{Error, ErrorKind, Result};
use crate::key::KeySpace;
use crate::stack::verdict::Mark;
use crate::tag::Tag;
use crate::time::Stamp;

/// How many namespaces one stack may have.
pub const NAMESPACES_MAX: usize = 100_000;

/// How many tag marks of one namespace a process remembers. Beyond it they become a clear of the namespace in
/// this process: too much is loaded again, nothing stale is served.
const TAG_MARKS_MAX: usize = 100_000;

/// One namespace of a stack.
#[derive(Debug)]
pub(crate) struct Space {
    pub(crate) id: u32,
    pub(crate) keys: KeySpace,
    pub(crate) mark_key: String,
    parent: Option<Arc<Space>>,
    cleared: RwLock<Mark>,
    tags: RwLock<HashMap<Tag, Mark>>,
    /// All of the tags' marks in one.
    any_tag: RwLock<Mark>,
}

impl Space {
    fn new(id: u32, keys: KeySpace, parent: Option<Arc<Space>>) -> Self {
        let mark_key = keys.mark_key();
        Self {
            id,
            keys,
            mark_key,
            parent,
            cleared: RwLock::default(),
            tags: RwLock::default(),
            any_tag: RwLock::default(),
        }
    }

    /// This namespace and those around it, inside out.
    pub(crate) fn chain(&self) -> impl Iterator<Item = &Space> {
        std::iter::successors(Some(self), |space| space.parent.as_deref())
    }

    /// What the clears and tags that reach an entry of this namespace say of it, as far as this process knows.
    fn mark(&self, tags: &[Tag]) -> Mark {
        let mut mark = Mark::default();
        for space in self.chain() {
            mark = mark.and(*space.cleared.read());
            if let [_, ..] = tags {
                let known = space.tags.read();
                let of_tags = tags.iter().filter_map(|tag| known.get(tag));
                mark = of_tags.fold(mark, |mark, of_tag| mark.and(*of_tag));
            }
        }
        mark
    }

    /// The stamps of its own last clears.
    pub(crate) fn cleared(&self) -> Mark {
        *self.cleared.read()
    }

    /// Those of some tags that were invalidated in this namespace, and when.
    pub(crate) fn marks_of<'t>(&self, tags: &'t [Tag]) -> Vec<(&'t Tag, Mark)> {
        let known = self.tags.read();
        tags.iter().filter_map(|tag| known.get(tag).map(|mark| (tag, *mark))).collect()
    }

    /// What the clears, and the tags whichever it carries, say of an entry of this namespace.
    pub(crate) fn mark_of_any(&self) -> Mark {
        self.chain()
            .fold(Mark::default(), |mark, space| mark.and(*space.cleared.read()).and(*space.any_tag.read()))
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
    pub(crate) tags_key: String,
    /// The newest clear or tag of any namespace: an entry born after it needs no further check.
    newest: AtomicU64,
    /// The newest tag in the store: the marks of an entry born after it need not be read.
    newest_tag: AtomicU64,
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
        let tags_key = keys.tags_key();
        let root = Arc::new(Space::new(0, keys, None));
        let known = Known {
            by_path: HashMap::from([(String::new(), Arc::clone(&root))]),
            by_id: vec![Arc::clone(&root)],
        };
        let (newest, newest_tag) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self { root, known: RwLock::new(known), tags_key, newest, newest_tag })
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
        let space = Arc::new(Space::new(id, keys, Some(Arc::clone(parent))));
        known.by_path.insert(path, Arc::clone(&space));
        known.by_id.push(Arc::clone(&space));
        Ok(space)
    }

    pub(crate) fn by_id(&self, id: u32) -> Option<Arc<Space>> {
        self.known.read().by_id.get(usize::try_from(id).ok()?).cloned()
    }

    /// Notes a clear of a namespace, however often it is heard of.
    pub(crate) fn raise(&self, space: &Space, mark: Mark) {
        {
            let mut cleared = space.cleared.write();
            *cleared = cleared.and(mark);
        }
        self.raise_newest(mark);
    }

    /// Notes the invalidation of a tag in a namespace, however often it is heard of.
    pub(crate) fn raise_tag(&self, space: &Space, tag: &Tag, mark: Mark) {
        let forgotten = {
            let mut tags = space.tags.write();
            let forgotten = if tags.len() >= TAG_MARKS_MAX && !tags.contains_key(tag) {
                tags.drain().map(|(_, mark)| mark).reduce(Mark::and)
            } else {
                None
            };
            let known = tags.entry(tag.clone()).or_default();
            *known = known.and(mark);
            forgotten
        };
        {
            let mut any_tag = space.any_tag.write();
            *any_tag = any_tag.and(mark);
        }
        if let Some(forgotten) = forgotten {
            self.raise(space, forgotten);
        }
        self.raise_newest(mark);
    }

    /// Notes the newest tag in the store.
    pub(crate) fn raise_newest_tag(&self, stamp: Stamp) {
        self.newest_tag.fetch_max(stamp.to_bits(), Ordering::AcqRel);
    }

    fn raise_newest(&self, mark: Mark) {
        // After the namespace's own: whoever sees this one raised then finds the other raised as well.
        self.newest.fetch_max(mark.newest().to_bits(), Ordering::AcqRel);
    }

    /// Whether tags that the store knows may matter for something born at `born`.
    pub(crate) fn may_be_tagged(&self, born: Stamp) -> bool {
        born.to_bits() <= self.newest_tag.load(Ordering::Acquire)
    }

    /// The newest invalidation that this process knows of.
    pub(crate) fn newest(&self) -> Stamp {
        Stamp::from_bits(self.newest.load(Ordering::Acquire))
    }

    /// What clears and tags say of something born at `born` that carries these tags. Where nothing was
    /// invalidated since its birth, this is one comparison.
    #[inline]
    pub(crate) fn mark(&self, space: &Space, born: Stamp, tags: &[Tag]) -> Mark {
        if born > self.newest() { Mark::default() } else { space.mark(tags) }
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

    fn mark(spaces: &Spaces, space: &Space, born: u64, tags: &[&str]) -> Mark {
        let tags = crate::tag::tags_of(tags.iter().copied()).unwrap();
        spaces.mark(space, Stamp::from_bits(born), &tags)
    }

    fn hard(bits: u64) -> Mark {
        Mark { hard: Stamp::from_bits(bits), soft: Stamp::ZERO }
    }

    #[test]
    fn a_clear_reaches_what_is_inside_and_nothing_else() {
        let spaces = Spaces::new("p").unwrap();
        let a = spaces.child(spaces.root(), "a").unwrap();
        let inner = spaces.child(&a, "b").unwrap();
        let neighbour = spaces.child(spaces.root(), "ab").unwrap();
        spaces.raise(&a, hard(7));
        assert_eq!(mark(&spaces, &inner, 7, &[]), hard(7));
        assert_eq!(mark(&spaces, &inner, 8, &[]), Mark::default());
        assert_eq!(mark(&spaces, &neighbour, 3, &[]), Mark::default());
        assert_eq!(mark(&spaces, spaces.root(), 3, &[]), Mark::default());
        assert!(inner.is_within(a.id) && !neighbour.is_within(a.id));
    }

    #[test]
    fn a_tag_reaches_those_that_carry_it_inside_its_namespace() {
        let spaces = Spaces::new("p").unwrap();
        let a = spaces.child(spaces.root(), "a").unwrap();
        let inner = spaces.child(&a, "b").unwrap();
        spaces.raise_tag(&a, &Tag::new("t").unwrap(), hard(7));
        assert_eq!(mark(&spaces, &inner, 7, &["s", "t"]), hard(7));
        assert_eq!(mark(&spaces, &inner, 7, &["s"]), Mark::default());
        assert_eq!(mark(&spaces, spaces.root(), 7, &["t"]), Mark::default());
    }

    #[test]
    fn more_tags_than_are_remembered_become_a_clear() {
        let spaces = Spaces::new("p").unwrap();
        for n in 0..=TAG_MARKS_MAX as u64 {
            spaces.raise_tag(spaces.root(), &Tag::new(&n.to_string()).unwrap(), hard(n + 1));
        }
        assert_eq!(spaces.root().tags.read().len(), 1);
        assert_eq!(mark(&spaces, spaces.root(), 9, &["5"]), hard(TAG_MARKS_MAX as u64));
    }
}
