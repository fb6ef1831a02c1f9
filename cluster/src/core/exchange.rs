//! What goes into a [`Core`](super::Core) and comes out of it. Data only.

use cluster_api::{TaskStatus, Time};

use crate::control;
use crate::dispatcher::{self, Contact, Outgoing, Registration};
use crate::raft::{Halt, Membership, PeerMessage, RaftId, Role, WriteBatch};
use crate::store::{Capture, SnapshotError, StoreEvent, Transaction};

/// Something that happened outside.
#[derive(Debug)]
pub enum Input {
    /// One period of Raft's clock is over.
    Tick,
    /// The time of [`Output::wake_at`] has come.
    Time,
    /// Another manager says something.
    Peer(PeerMessage),
    /// A message could not be delivered to this member.
    Unreachable(RaftId),
    /// All writes up to this number are durable.
    Written(u64),
    /// The bytes of [`SnapshotJob`].
    SnapshotMade { index: u64, data: Vec<u8> },
}

/// The asker's name for a request; must be unique among those not answered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What only the leader can do. Answered once, in [`Output::answers`].
#[derive(Debug, Clone)]
pub enum Command {
    /// A client's request.
    Control(Box<control::Request>),
    /// The same, passed on by another node. Only managers may.
    Forwarded {
        node_id: String,
        request: Box<control::Request>,
    },
    /// A change that was decided elsewhere: the first objects of a cluster, a node with a certificate. Never taken from
    /// the wire.
    Apply(Transaction),
    /// Makes a node a member of the group, or gives it a new number when it has lost what it had.
    Join {
        node_id: String,
        /// `host:port`
        address: String,
    },
    /// Removes a node's member from the group.
    Leave { node_id: String },
    /// Hands leadership to another manager.
    StepDown,
}

/// A command was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Of [`Command::Control`] and [`Command::Forwarded`].
    Reply(control::Reply),
    /// The transaction is committed.
    Applied,
    /// The node is a member, at first without a vote.
    Joined {
        raft_id: RaftId,
        membership: Membership,
    },
    /// The node is no member.
    Left,
    /// Leadership is being handed to this member. Ends with a change of role, or after a while without.
    SteppingDown { to: RaftId },
    /// What the store holds now contains everything acknowledged before the read was asked for.
    Read,
}

/// A command was not carried out, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nothing was changed.
    #[error(transparent)]
    Refused(#[from] control::Refusal),
    /// Nothing was changed: another manager leads, or none.
    #[error("this manager does not lead the swarm{}", known(leader.as_ref()))]
    NotLeader { leader: Option<Contact> },
    /// Nothing was changed: too much is under way.
    #[error("{under_way} requests are under way on the leader already; try again")]
    Busy { under_way: usize },
    /// It may have been carried out or may still be: leadership was lost meanwhile, or the manager cannot go on.
    #[error(
        "the leader of the swarm was lost before the change was confirmed; look whether it was made"
    )]
    Unknown,
    /// No majority of managers answered.
    #[error("no majority of the swarm's managers can be reached")]
    NoQuorum,
}

fn known(leader: Option<&Contact>) -> String {
    leader.map_or_else(
        || ", and no leader is known".to_owned(),
        |leader| format!("; {} at {} does", leader.node_id, leader.address),
    )
}

/// What an agent says in a call. Answered at once.
#[derive(Debug, Clone)]
pub enum AgentCall {
    Register(Box<Registration>),
    Heartbeat {
        session_id: String,
    },
    /// Wants a complete set of assignments.
    Open {
        session_id: String,
    },
    Report {
        session_id: String,
        updates: Vec<(String, TaskStatus)>,
    },
    Acknowledge {
        session_id: String,
        results_in: String,
    },
    /// The other end closed the session's connection.
    Disconnected {
        session_id: String,
    },
}

/// What an agent's call gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentAnswer {
    Registered {
        session_id: String,
    },
    /// Milliseconds until the next heartbeat is due.
    Alive {
        period_ms: u64,
    },
    Noted,
}

/// Why an agent's call was not followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AgentRefused {
    /// Sessions are the leader's, and only once its state is current.
    #[error("this manager does not lead the swarm{}", known(leader.as_ref()))]
    NotLeader { leader: Option<Contact> },
    #[error(transparent)]
    Refused(#[from] dispatcher::Refused),
}

/// What is to be done. The parts are independent of each other; each list is in order.
#[derive(Debug, Default)]
#[must_use]
pub struct Output {
    /// To other managers. May be lost.
    pub messages: Vec<PeerMessage>,
    /// To disk, in this order, then [`Input::Written`] with the last number. Nothing waits for the disk but what must.
    pub writes: Vec<WriteBatch>,
    /// To be made into bytes, when there is time, then [`Input::SnapshotMade`].
    pub snapshot: Option<SnapshotJob>,
    pub answers: Vec<(RequestId, Result<Answer, Failure>)>,
    /// To agents in session with this manager.
    pub agents: Vec<Outgoing>,
    /// What changed in the store.
    pub events: Vec<StoreEvent>,
    /// The store was replaced as a whole before `events`: who follows it looks at everything.
    pub restored: bool,
    /// This manager's part in the group, when it changed.
    pub role: Option<Role>,
    /// Members or their addresses changed.
    pub members_changed: bool,
    /// This manager takes part no longer.
    pub stopped: Option<Stopped>,
    /// [`Input::Time`] is due then.
    pub wake_at: Option<Time>,
}

/// The state to be written down as a snapshot.
#[derive(Debug)]
pub struct SnapshotJob {
    pub index: u64,
    /// As it was at `index`; [`Capture::encode`] makes the bytes, which takes its time.
    pub state: Capture,
}

/// Why a manager takes part no longer.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    #[error(transparent)]
    Raft(#[from] Halt),
    #[error(
        "the state sent by the leader or kept on disk cannot be read; upgrade this manager, or remove it from the swarm and join it again"
    )]
    Snapshot(#[from] SnapshotError),
    #[error(
        "entry {index} of the log cannot be read; upgrade this manager to the version of the others"
    )]
    Entry {
        index: u64,
        #[source]
        source: serde_json::Error,
    },
}
