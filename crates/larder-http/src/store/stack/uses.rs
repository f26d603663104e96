//! Who in this process uses which bodies in chunks, so that nobody loses one while it is read, and one that no record came
//! to name is given back. Knows nothing of records.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::Inner;

/// The bodies that are in use in this process.
#[derive(Debug)]
pub(super) struct Uses {
    /// Weak, because what is used may be in the stack's memory, and this would keep the stack.
    store: Weak<Inner>,
    bodies: Mutex<HashMap<u128, Body>>,
}

#[derive(Debug, Default)]
struct Body {
    users: usize,
    /// How long it is, if no record names it.
    unnamed: Option<u64>,
}

/// A use of a body. It is one until it is dropped.
#[derive(Debug)]
pub(super) struct Use {
    uses: Arc<Uses>,
    id: u128,
}

impl Uses {
    pub(super) fn new(store: Weak<Inner>) -> Self {
        Self { store, bodies: Mutex::default() }
    }

    pub(super) fn begin(uses: &Arc<Self>, id: u128) -> Use {
        uses.bodies.lock().entry(id).or_default().users += 1;
        Use { uses: Arc::clone(uses), id }
    }

    /// Whether somebody uses it.
    pub(super) fn is_used(&self, id: u128) -> bool {
        self.bodies.lock().contains_key(&id)
    }

    /// Notes that a body of so many bytes is there, and in use, and that no record names it: it is given back with its last
    /// use.
    pub(super) fn made(&self, id: u128, bytes: u64) {
        if let Some(body) = self.bodies.lock().get_mut(&id) {
            body.unnamed = Some(bytes);
        }
    }

    /// Notes that a record may name it. True if none did.
    pub(super) fn take(&self, id: u128) -> bool {
        self.bodies.lock().get_mut(&id).is_some_and(|body| body.unnamed.take().is_some())
    }
}

impl Use {
    /// The store, as long as there is one.
    pub(super) fn store(&self) -> Option<Arc<Inner>> {
        self.uses.store.upgrade()
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        let unnamed = {
            let mut bodies = self.uses.bodies.lock();
            let Some(body) = bodies.get_mut(&self.id) else { return };
            body.users -= 1;
            if body.users > 0 {
                return;
            }
            bodies.remove(&self.id).and_then(|body| body.unnamed)
        };
        if let (Some(bytes), Some(store)) = (unnamed, self.store()) {
            store.give_back_at_once(self.id, bytes);
        }
    }
}
