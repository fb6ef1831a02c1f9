//! The driver.

use super::log::Recovered;
use super::membership::{MemberChange, Membership, RaftId};
use super::message::PeerMessage;
use super::output::{Halt, Output, ProposalId, ReadId, Refused, Role};

/// Bounds and timing of a node. Times are in ticks; a tick is whatever the owner makes it (50 ms in a manager).
#[derive(Debug, Clone)]
pub struct Config {
    /// A leader says that it is there this often.
    pub heartbeat_ticks: usize,
    /// Without a leader for this long (up to twice, at random) a follower asks for votes; without a majority for this
    /// long a leader steps down.
    pub election_ticks: usize,
    /// Seeds the random part of the above.
    pub seed: u64,
    /// A snapshot is wanted after this many entries.
    pub snapshot_entries: u64,
    /// A snapshot is wanted after this many bytes of entries.
    pub snapshot_bytes: u64,
    /// Entries kept behind a snapshot, for followers a little behind.
    pub keep_entries: u64,
    /// One proposal is not larger.
    pub max_proposal: usize,
    /// Proposals in flight are not larger in sum.
    pub max_inflight: usize,
    /// A snapshot from the leader is not larger.
    pub max_snapshot: usize,
    /// A read not answered for this long is unavailable.
    pub read_ticks: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            heartbeat_ticks: 2,
            election_ticks: 10,
            seed: 0,
            snapshot_entries: 10_000,
            snapshot_bytes: 64 << 20,
            keep_entries: 500,
            max_proposal: 2 << 20,
            max_inflight: 32 << 20,
            max_snapshot: 1 << 30,
            read_ticks: 100,
        }
    }
}

/// How a node stands.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// This node.
    pub id: RaftId,
    /// Its part.
    pub role: Role,
    /// Committed up to.
    pub commit: u64,
    /// Applied up to.
    pub applied: u64,
    /// The log begins at.
    pub first_index: u64,
    /// The log ends at.
    pub last_index: u64,
    /// Bytes proposed here and not resolved.
    pub inflight_bytes: usize,
    /// The other members as the leader sees them; empty on others.
    pub peers: Vec<Peer>,
}

/// A member as the leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The member.
    pub id: RaftId,
    /// It has the log up to here.
    pub matched: u64,
    /// It was heard of within the last election timeout.
    pub reachable: bool,
}

/// One member of a Raft group, without clock, network or disk.
pub struct Node {}

impl Node {
    /// A node with the state it had before.
    #[must_use]
    pub fn new(config: Config, recovered: Recovered) -> Self {
        todo!("{config:?} {recovered:?}")
    }
    /// Time passes.
    pub fn tick(&mut self) {
        todo!()
    }
    /// A message arrived. What makes no sense is dropped.
    pub fn receive(&mut self, message: PeerMessage) {
        todo!("{message:?}")
    }
    /// Proposes data.
    ///
    /// # Errors
    /// Refused: nothing of it entered the log.
    pub fn propose(&mut self, id: ProposalId, data: Vec<u8>) -> Result<(), Refused> {
        todo!("{id:?} {data:?}")
    }
    /// Proposes a change of the group. A learner that has caught up is promoted without being asked to.
    ///
    /// # Errors
    /// Refused: nothing of it entered the log.
    pub fn change_membership(&mut self, id: ProposalId, change: MemberChange) -> Result<(), Refused> {
        todo!("{id:?} {change:?}")
    }
    /// Asks for an index to read at; answered with [`Event::Read`](super::Event::Read).
    pub fn read(&mut self, id: ReadId) {
        todo!("{id:?}")
    }
    /// Hands leadership to a member, or to the one best suited. Given up after an election timeout.
    ///
    /// # Errors
    /// Refused: nothing was done.
    pub fn transfer_leadership(&mut self, to: Option<RaftId>) -> Result<RaftId, Refused> {
        todo!("{to:?}")
    }
    /// All write batches up to this number are durable.
    pub fn persisted(&mut self, number: u64) {
        todo!("{number}")
    }
    /// The state at `index`, as asked for with [`Event::SnapshotWanted`](super::Event::SnapshotWanted).
    pub fn snapshot_made(&mut self, index: u64, data: Vec<u8>) {
        todo!("{index} {data:?}")
    }
    /// The last message to this member was not delivered.
    pub fn unreachable(&mut self, id: RaftId) {
        todo!("{id}")
    }
    /// What is to be done after the inputs since it was asked last.
    pub fn take(&mut self) -> Output {
        todo!()
    }
    /// How it stands.
    #[must_use]
    pub fn status(&self) -> Status {
        todo!()
    }
    /// This node's part.
    #[must_use]
    pub fn role(&self) -> Role {
        todo!()
    }
    /// The group as applied here.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        todo!()
    }
    /// Why it takes part no longer.
    #[must_use]
    pub fn halted(&self) -> Option<&Halt> {
        todo!()
    }
}
