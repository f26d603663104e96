//! By which policy responses are judged that are read from a stack, while that may become another one. Knows nothing of
//! where they come from.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::super::{StoredResponse, Variants};
use crate::policy::{Policy, Stored};

/// The policy of a store.
#[derive(Debug)]
pub(super) struct Judge {
    /// Which policy it is, by number. Never ahead of what is in the lock.
    generation: AtomicU64,
    policy: RwLock<(u64, Policy)>,
}

/// Responses as a policy sees them: the one they were read by, and the one that there is now, if that is another.
#[derive(Debug)]
pub(super) struct Judged {
    generation: u64,
    variants: Arc<Variants>,
    again: Mutex<Option<(u64, Arc<Variants>)>>,
}

impl Judge {
    pub(super) fn new(policy: Policy) -> Self {
        Self { generation: AtomicU64::new(0), policy: RwLock::new((0, policy)) }
    }

    /// From now on, this one.
    pub(super) fn replace(&self, policy: Policy) {
        let mut current = self.policy.write();
        if current.1 != policy {
            *current = (current.0 + 1, policy);
            self.generation.store(current.0, Ordering::Release);
        }
    }

    /// What `read` reads by the policy that it is handed, and what it reads beside.
    pub(super) fn read<T, E>(
        &self,
        read: impl FnOnce(&Policy) -> Result<(T, Variants), E>,
    ) -> Result<(T, Judged), E> {
        let current = self.policy.read();
        let (beside, variants) = read(&current.1)?;
        Ok((beside, Judged::new(current.0, variants)))
    }

    /// What is about to be kept. Whoever stores it may go by a policy of before.
    pub(super) fn keep(&self, variants: Variants) -> Judged {
        let current = self.policy.read();
        // Without another policy, there is nobody who could.
        let variants = if current.0 == 0 { variants } else { again(&current.1, &variants) };
        Judged::new(current.0, variants)
    }

    /// The responses, as they are to be judged now.
    pub(super) fn now(&self, judged: &Judged) -> Arc<Variants> {
        if judged.generation == self.generation.load(Ordering::Acquire) {
            return Arc::clone(&judged.variants);
        }
        let current = self.policy.read();
        let mut kept = judged.again.lock();
        match &*kept {
            Some((generation, variants)) if *generation == current.0 => Arc::clone(variants),
            _ => {
                let variants = Arc::new(again(&current.1, &judged.variants));
                *kept = Some((current.0, Arc::clone(&variants)));
                variants
            }
        }
    }
}

impl Judged {
    fn new(generation: u64, variants: Variants) -> Self {
        Self { generation, variants: Arc::new(variants), again: Mutex::new(None) }
    }

    /// The responses, whoever judged them.
    pub(super) fn variants(&self) -> &Arc<Variants> {
        &self.variants
    }
}

fn again(policy: &Policy, variants: &Variants) -> Variants {
    Variants::new(variants.responses().iter().map(|response| {
        let mut response = StoredResponse::clone(response);
        response.stored = Stored::new(policy, response.stored.into_kept());
        Arc::new(response)
    }))
}
