//! What goes to disk: made by the [`Node`](super::Node), written by the [`Log`](super::log::Log), opaque in between.

use std::sync::Arc;

use raft::eraftpb::{Entry, HardState};

use super::membership::RaftId;
use super::output::Snapshot;

/// Changes of the durable state, to be written in the order of their numbers. All of one batch or, after a crash, a
/// beginning of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WriteBatch {
    pub(super) number: u64,
    pub(super) operations: Vec<Operation>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operation {
    /// Appended behind what is there; where an index is there already, it and all behind it are replaced.
    Append(Vec<Entry>),
    /// Term and vote. Comes before the entries of its batch, so that no entry is ever of a later term.
    State { term: u64, vote: RaftId },
    /// What is known to be committed: spares a restarted node the wait for a leader. Comes after the entries of its batch,
    /// because where entries are replaced it speaks of the new ones.
    Commit(u64),
    /// The leader's state replaces everything, the log included.
    Restore(Arc<Snapshot>),
    /// This node's own state so far; entries below `keep_from` are not needed any more.
    Compact {
        snapshot: Arc<Snapshot>,
        keep_from: u64,
    },
}

impl WriteBatch {
    /// To be reported when it is durable.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Entries in it.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.operations
            .iter()
            .map(|operation| {
                if let Operation::Append(entries) = operation {
                    entries.len()
                } else {
                    0
                }
            })
            .sum()
    }

    /// Whether a whole snapshot is to be written, which takes longer.
    #[must_use]
    pub fn has_snapshot(&self) -> bool {
        self.operations
            .iter()
            .any(|operation| matches!(operation, Operation::Restore(_) | Operation::Compact { .. }))
    }
}

/// What a node had written before it was started, as the log found it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recovered {
    pub(super) id: RaftId,
    pub(super) state: HardState,
    pub(super) snapshot: Option<Arc<Snapshot>>,
    /// Without gaps; the first follows the snapshot or lies before its end.
    pub(super) entries: Vec<Entry>,
}

impl Recovered {
    /// The member this state is of.
    #[must_use]
    pub const fn id(&self) -> RaftId {
        self.id
    }

    /// Whether the leader has not sent anything yet: the member knows nobody.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.snapshot.is_none() && self.entries.is_empty()
    }

    pub(super) fn set_state(&mut self, hard: super::log::Hard) {
        self.state.term = hard.term;
        self.state.vote = hard.vote;
        self.state.commit = hard.commit;
    }

    /// The last index there is.
    #[must_use]
    pub fn last_index(&self) -> u64 {
        let snapshot = self.snapshot.as_ref().map_or(0, |snapshot| snapshot.index);
        self.entries
            .last()
            .map_or(snapshot, |entry| entry.index.max(snapshot))
    }
}
