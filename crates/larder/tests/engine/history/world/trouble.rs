//! What ails the store and the clock.

use larder::ErrorKind;
use larder::driver::Driver as _;
use larder::testing::Operation;
use larder::time::{Clock as _, Timestamp, hours};

use super::super::step::Fault;
use super::{DEADLINE, World};

impl World {
    pub(super) fn jump(&mut self, hours_off: i8) {
        let now = self.clock.now().as_millis();
        let hour = hours(1).as_millis() as u64;
        let true_time = now.saturating_add_signed(-i64::from(self.hours_off) * hour as i64);
        let jumped = true_time.saturating_add_signed(i64::from(hours_off) * hour as i64);
        self.hours_off = hours_off;
        self.clock.set(Timestamp::from_millis(jumped));
    }

    pub(super) fn break_store(&self, fault: Fault) {
        let reads = [Operation::Get, Operation::GetMany];
        let writes = [Operation::Set, Operation::SetMany];
        let fail = |operations: &[Operation]| {
            operations.iter().for_each(|operation| self.chaos.fail_all(*operation, ErrorKind::Unavailable));
        };
        match fault {
            Fault::ReadsFail => fail(&reads),
            Fault::WritesFail => fail(&writes),
            Fault::AllFails => fail(&Operation::ALL),
            Fault::AnswersAreLost => writes.iter().for_each(|operation| {
                self.chaos.fail_next_after_landing(*operation, 2, ErrorKind::Unavailable);
            }),
            Fault::ReadsHang => reads.iter().for_each(|operation| self.chaos.stall(*operation)),
            Fault::WritesHang => writes.iter().for_each(|operation| self.chaos.stall(*operation)),
            Fault::BatchesHang => self.chaos.stall(Operation::SetMany),
            Fault::WritesAreLate => self.chaos.hold_writes(),
        }
    }

    /// Lets every call of the store that is under way end, before time passes.
    pub(super) async fn end_calls(&self) {
        if self.kind.tiers.has_store() {
            self.deliver(false).await;
            tokio::time::sleep(DEADLINE * 2).await;
        }
    }

    pub(super) async fn deliver(&self, reversed: bool) {
        let mut late = self.chaos.take_held_writes();
        if reversed {
            late.reverse();
        }
        for write in late {
            // What is refused is too late.
            let _ = self.store.set(&write.key, write.value, write.ttl, write.when).await;
        }
    }
}
