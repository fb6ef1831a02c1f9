//! Transactions of bounded size: what a loop decides in one step is one Raft entry, and entries must stay small enough
//! that no other proposal waits long behind one.

use std::io::Write;

use cluster_api::{Object, TaskStatus, Timestamp};

use crate::store::{StoreAction, Transaction};

/// Actions of one transaction.
pub(crate) const MAX_ACTIONS: usize = 200;

/// JSON of one transaction's actions; a single action may be larger.
pub(crate) const MAX_BYTES: usize = 1 << 20;

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

    /// Adds an action if there is room for it; the first one always finds room.
    #[must_use]
    pub(crate) fn push(&mut self, action: StoreAction) -> bool {
        if self.is_full() {
            return false;
        }
        let bytes = size_of(&action);
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

/// Bytes of the action as it is logged.
pub(crate) fn size_of(action: &StoreAction) -> usize {
    let mut counter = Counter(0);
    serde_json::to_writer(&mut counter, action).expect("maps of the objects have text keys");
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
