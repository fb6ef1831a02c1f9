//! Transactions of bounded size: what a loop decides in one step is one Raft entry, and entries must stay small enough
//! that no other proposal waits long behind one.

use std::io::Write;

use cluster_api::{Object, TaskStatus, Timestamp};
use serde::Serialize;

use crate::raft::MAX_PROPOSAL;
use crate::store::{StoreAction, Transaction};

/// Actions of one transaction.
pub(crate) const MAX_ACTIONS: usize = 200;

/// JSON of one transaction's actions; a single action may be larger.
pub(crate) const MAX_BYTES: usize = 1 << 20;

/// What belongs together and is larger than this can never be proposed; the rest is room for what is around it.
pub(crate) const MAX_ALONE: usize = MAX_PROPOSAL - 1024;

/// A transaction that fills up.
#[derive(Debug)]
pub(crate) struct Batch {
    transaction: Transaction,
    bytes: usize,
}

impl Batch {
    pub(crate) const fn new(at: Timestamp) -> Self {
        Self {
            transaction: Transaction::new(at),
            bytes: 0,
        }
    }

    /// Whether nothing more should be tried.
    pub(crate) const fn is_full(&self) -> bool {
        self.transaction.actions.len() >= MAX_ACTIONS || self.bytes >= MAX_BYTES
    }

    /// Adds an action if there is room for it; the first one always finds room. One that could never be proposed counts as
    /// added: it must not keep out what comes after it.
    #[must_use]
    pub(crate) fn push(&mut self, action: StoreAction) -> bool {
        if self.is_full() {
            return false;
        }
        let bytes = size_of(&action);
        if is_hopeless(&action, bytes) {
            return true;
        }
        if !self.transaction.is_empty() && self.bytes + bytes > MAX_BYTES {
            self.bytes = MAX_BYTES;
            return false;
        }
        self.bytes += bytes;
        self.transaction.actions.push(action);
        true
    }

    #[must_use]
    pub(crate) fn update(&mut self, object: impl Into<Object>) -> bool {
        self.push(StoreAction::Update(object.into()))
    }

    #[must_use]
    pub(crate) fn task_status(&mut self, id: &str, status: TaskStatus) -> bool {
        self.push(StoreAction::TaskStatus {
            id: id.to_owned(),
            status,
        })
    }

    /// `None` when nothing was added.
    pub(crate) fn finish(self) -> Option<Transaction> {
        self.transaction.non_empty()
    }
}

/// Whether an action, alone or with what belongs to it, is larger than any proposal may be. The control API lets nothing
/// in that leads to this.
pub(crate) fn is_hopeless(action: &StoreAction, bytes: usize) -> bool {
    let hopeless = bytes > MAX_ALONE;
    if hopeless {
        let (kind, id) = action.target();
        tracing::error!(
            %kind,
            id,
            bytes,
            "too large to be changed any more; remove it, or make what its spec holds smaller"
        );
    }
    hopeless
}

/// Bytes of the action, or of an object, as it is logged.
pub(crate) fn size_of(value: &impl Serialize) -> usize {
    let mut counter = Counter(0);
    serde_json::to_writer(&mut counter, value).expect("maps of the objects have text keys");
    counter.0
}

/// Counts what is written to it.
struct Counter(usize);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use cluster_api::Network;

    use super::*;

    fn network(id: &str, bytes: usize) -> Network {
        let mut network = Network {
            id: id.to_owned(),
            ..Network::default()
        };
        let labels = &mut network.spec.annotations.labels;
        labels.insert("l".to_owned(), "x".repeat(bytes));
        network
    }

    #[test]
    fn what_can_never_be_proposed_keeps_nothing_out() {
        let mut batch = Batch::new(Timestamp(0));
        assert!(batch.update(network("huge", MAX_PROPOSAL)));
        assert!(batch.update(network("large", MAX_PROPOSAL - 4096)));
        assert!(!batch.update(network("small", 1)));
        let transaction = batch.finish().unwrap();
        assert_eq!(transaction.actions.len(), 1);
        assert_eq!(transaction.actions[0].target().1, "large");
        assert!(size_of(&transaction) <= MAX_PROPOSAL);
    }
}
