//! What a [`Node`](super::Node) wants done, as data.

use std::sync::Arc;

use super::membership::{ChangeRefused, MemberChange, Membership, RaftId};
use super::message::PeerMessage;
use super::write::WriteBatch;

/// The proposer's name for a proposal; must be unique among those in flight on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProposalId(pub u64);

/// The asker's name for a consistent read; must be unique among those in flight on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);

/// What is to be done after an input. The three parts are independent of each other; `events` are in order.
#[derive(Debug, Default)]
#[must_use]
pub struct Output {
    /// To be sent now. May be lost, repeated or reordered by the network.
    pub messages: Vec<PeerMessage>,
    /// To be written; report [`Node::persisted`](super::Node::persisted) with its number when it is durable. Batches are
    /// written in the order they come; several may share one fsync, and reporting the last one's number is enough.
    /// Whatever may leave only after that is kept back by the node.
    pub write: Option<WriteBatch>,
    /// To be applied in this order, completely, before the next input.
    pub events: Vec<Event>,
}

impl Output {
    /// Nothing is to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.write.is_none() && self.events.is_empty()
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The whole state is replaced by this one: at start, and when this node was too far behind.
    Restore(Arc<Snapshot>),
    /// Data was committed.
    Committed(Committed),
    /// A change of the group was committed.
    Membership(MembershipEvent),
    /// A proposal of this node ended without being committed here.
    Resolved {
        /// Which.
        proposal: ProposalId,
        /// How.
        outcome: Unresolved,
    },
    /// The answer to [`Node::read`](super::Node::read).
    Read {
        /// Which.
        read: ReadId,
        /// What.
        outcome: ReadOutcome,
    },
    /// This node's part in the group changed. When it says that this node leads no longer, it comes before the
    /// proposals are resolved that were lost with the leadership.
    Role(Role),
    /// The state as it is after the events before this one is to be written down, and handed to
    /// [`Node::snapshot_made`](super::Node::snapshot_made) with this index. That may take its time.
    SnapshotWanted {
        /// The index applied last.
        index: u64,
    },
    /// This node takes part no longer.
    Halted(Halt),
}

/// One committed entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Its place in the log.
    pub index: u64,
    /// The term of the leader that proposed it.
    pub term: u64,
    /// Set when it was proposed through this node, in this leadership.
    pub proposal: Option<ProposalId>,
    /// What was proposed.
    pub data: Vec<u8>,
}

/// One committed change of the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MembershipEvent {
    /// Its place in the log.
    pub index: u64,
    /// The term of the leader that proposed it.
    pub term: u64,
    /// Set when it was proposed through this node, in this leadership.
    pub proposal: Option<ProposalId>,
    /// What was proposed.
    pub change: MemberChange,
    /// Whether it was made; the same on every member.
    pub outcome: Result<(), ChangeRefused>,
}

/// The end of a proposal that was not seen to commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unresolved {
    /// It never entered the log and never will.
    Dropped,
    /// It entered the log of a leader that leads no longer: it may still be committed by another, or not.
    Unknown,
}

/// How a consistent read ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadOutcome {
    /// The state as it is now, at least up to this index, contains everything acknowledged before the read was asked.
    Ready {
        /// The index it is good for.
        index: u64,
    },
    /// No leader answered in time.
    Unavailable,
}

/// A member's part in the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Role {
    /// The present term.
    pub term: u64,
    /// Who leads it, as far as known.
    pub leader: Option<RaftId>,
    /// Follower, candidate or leader.
    pub state: State,
    /// This node leads **and** has applied an entry of its own term, so its state is current: the loops may run.
    pub established: bool,
}

/// The states of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// Follows, or waits for a leader.
    #[default]
    Follower,
    /// Asks whether it would be elected.
    PreCandidate,
    /// Asks to be elected.
    Candidate,
    /// Was elected.
    Leader,
}

/// Why a node takes part no longer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// It was removed from the group.
    #[error("member {id} was removed from the group; leave the swarm and join again to come back")]
    Removed {
        /// This node.
        id: RaftId,
    },
    /// The leader knows that this node had more than it has.
    #[error(
        "this manager's log ends at {last} but it had acknowledged up to {acknowledged}: part of its state was lost; \
         remove this manager from the swarm and join it again"
    )]
    LogLost {
        /// What it acknowledged.
        acknowledged: u64,
        /// What it has.
        last: u64,
    },
    /// Committed entries of two members differ.
    #[error(
        "the entry at {index} that member {from} sent contradicts a committed one: the state of one of them is damaged; \
         remove this manager from the swarm and join it again"
    )]
    Contradiction {
        /// Where.
        index: u64,
        /// Who sent it.
        from: RaftId,
    },
}

/// Why a request was not taken on. Certain: nothing of it entered the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Only the leader takes proposals.
    #[error("this manager does not lead the group{}", known(*leader))]
    NotLeader {
        /// Who does, as far as known.
        leader: Option<RaftId>,
    },
    /// Too much is in flight already.
    #[error("{bytes} bytes of proposals are in flight already; try again later")]
    Busy {
        /// In flight now.
        bytes: usize,
    },
    /// One proposal is too large.
    #[error("a proposal of {bytes} bytes is larger than the {limit} allowed")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// Leadership is being handed over.
    #[error("leadership is being handed to member {to}; try again")]
    Transferring {
        /// To whom.
        to: RaftId,
    },
    /// One change of the group at a time.
    #[error("another change of the group is under way; try again")]
    ChangePending,
    /// The change makes no sense.
    #[error(transparent)]
    Change(#[from] ChangeRefused),
    /// A learner must have the log before it counts.
    #[error("member {id} has not caught up: it has {matched} of {last} entries")]
    NotCaughtUp {
        /// The learner.
        id: RaftId,
        /// What it has.
        matched: u64,
        /// What there is.
        last: u64,
    },
    /// Without that member no majority would be reachable.
    #[error(
        "without member {id} only {reachable} of {voters} voters would be reachable, which is no majority; \
         bring managers back first"
    )]
    WouldLoseQuorum {
        /// The member.
        id: RaftId,
        /// Voters heard of lately, without it.
        reachable: usize,
        /// Voters without it.
        voters: usize,
    },
    /// The leader cannot remove itself.
    #[error("member {id} leads the group; transfer leadership first")]
    IsLeader {
        /// This node.
        id: RaftId,
    },
    /// Nobody can take over.
    #[error("no other voter is reachable to take over leadership")]
    NoSuccessor,
    /// This node takes part no longer.
    #[error(transparent)]
    Halted(#[from] Halt),
}

fn known(leader: Option<RaftId>) -> String {
    leader.map_or_else(
        || ", and nobody is known to".to_owned(),
        |id| format!(" (member {id} does)"),
    )
}

/// The whole state at one point of the log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// The index it contains everything up to.
    pub index: u64,
    /// The term of that index.
    pub term: u64,
    /// The group at that index.
    pub membership: Membership,
    /// The application's state; empty for a group just founded.
    pub data: Vec<u8>,
}
