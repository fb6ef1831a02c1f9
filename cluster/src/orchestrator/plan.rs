//! The transaction a loop is about to propose: groups of actions that must not be separated, up to what one Raft entry
//! may hold. What did not fit is decided again next time, on the store as it is then.

use cluster_api::Timestamp;

use crate::batch::{MAX_ACTIONS, MAX_BYTES, is_hopeless, size_of};
use crate::store::{StoreAction, Transaction};

/// What has been decided so far.
#[derive(Debug)]
pub(super) struct Plan {
    transaction: Transaction,
    bytes: usize,
    full: bool,
}

impl Plan {
    pub(super) const fn new(at: Timestamp) -> Self {
        Self {
            transaction: Transaction::new(at),
            bytes: 0,
            full: false,
        }
    }

    /// Adds actions that belong together, or none of them if there is no room. A group that is large by itself goes alone;
    /// one that could never be proposed is left out.
    pub(super) fn add(&mut self, group: Vec<StoreAction>) {
        let Some(first) = group.first().filter(|_| !self.full) else {
            return;
        };
        let bytes: usize = group.iter().map(size_of).sum();
        if is_hopeless(first, bytes) {
            return;
        }
        let fits = self.transaction.actions.len() + group.len() <= MAX_ACTIONS
            && self.bytes + bytes <= MAX_BYTES;
        if fits || self.transaction.is_empty() {
            self.bytes += bytes;
            self.transaction.actions.extend(group);
        } else {
            self.full = true;
        }
    }

    /// Whether something did not fit; nothing else will then.
    pub(super) const fn is_full(&self) -> bool {
        self.full
    }

    /// How many actions there are.
    pub(super) const fn len(&self) -> usize {
        self.transaction.actions.len()
    }

    pub(super) fn into_transaction(self) -> Option<Transaction> {
        self.transaction.non_empty()
    }
}

#[cfg(test)]
mod tests {
    use cluster_api::{DesiredState, Timestamp};

    use super::Plan;
    use crate::batch::{MAX_ACTIONS, MAX_BYTES};
    use crate::store::StoreAction;

    fn group(ids: usize, bytes: usize) -> Vec<StoreAction> {
        let desired = DesiredState::Shutdown;
        (0..ids)
            .map(|_| StoreAction::TaskDesired {
                id: "x".repeat(bytes),
                desired,
            })
            .collect()
    }

    #[test]
    fn a_group_is_taken_whole_or_not_at_all() {
        let mut plan = Plan::new(Timestamp(0));
        plan.add(group(MAX_ACTIONS - 1, 1));
        plan.add(group(2, 1));
        assert!(plan.is_full());
        plan.add(group(1, 1));
        assert_eq!(plan.len(), MAX_ACTIONS - 1);
    }

    #[test]
    fn bytes_are_bounded_but_a_large_group_goes_alone() {
        let mut plan = Plan::new(Timestamp(0));
        plan.add(group(1, 3 * MAX_BYTES));
        assert!(plan.len() == 0 && !plan.is_full(), "it can never go");
        plan.add(group(1, 3 * MAX_BYTES / 2));
        assert_eq!(plan.len(), 1);
        plan.add(group(1, 1));
        assert!(plan.is_full());
    }
}
