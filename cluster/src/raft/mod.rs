//! Consensus: the managers of a swarm agree on one log, and so on one state, as long as a majority of them can talk.
//!
//! The algorithm is Raft (Ongaro, <https://raft.github.io/raft.pdf>; section numbers here are those of the thesis,
//! <https://github.com/ongardie/dissertation>) in tikv's `raft` crate, a port of etcd's. This module makes a member of it:
//!
//! ```text
//!        peers                      owner (threads, or a simulator)                     disk
//!          |  PeerMessage                      | tick, propose, read, …                  |
//!          +------------------------------->  Node  -------- WriteBatch ------------->  Log
//!          |  <----------------------------    |    <------- persisted(n) -----------    |
//!                                              v
//!                             Event: committed data, changes of the group, roles
//! ```
//!
//! - [`Node`] drives the algorithm. It has no clock, no network, no disk and no thread: inputs go in, [`Output`] comes out,
//!   and the same inputs give the same outputs.
//! - [`log::Log`] keeps what a member must not forget, in files or on whatever else is a [`log::Directory`].
//!
//! What the pair promises:
//!
//! - **Nothing acknowledged is lost** as long as a majority keeps its disks. A member says that it has something only when
//!   that is durable; what it said must be there after a crash, or it halts rather than vote again.
//! - **A proposal ends** as committed, as dropped (it never will be), or as unknown: the leader that took it leads no more, and
//!   another may commit it yet. An error is never "not done" unless it says so.
//! - **A leader is one only when it has caught up**: [`Role::established`] is told when an entry of its own term is applied.
//! - **Reads are consistent on every member** ([`Node::read`]), at the price of one round of heartbeats.
//! - **Members come as learners**, count when they have caught up, and leave for good.
//! - **Idle costs nothing**: heartbeats are sent, and nothing is written.
//!
//! Deliberately missing: joint configurations (members change one at a time), leases (they trust clocks), forwarding of
//! proposals (the caller knows the leader), and snapshots asked for by followers.

mod apply;
mod catch_up;
mod config;
mod drive;
mod hostile;
pub mod log;
mod membership;
mod memory;
mod message;
mod node;
mod output;
mod proposals;
mod reads;
mod rules;
mod snapshot;
#[cfg(test)]
mod tests;
mod trace;
mod write;

pub use config::{Config, MAX_PROPOSAL};
pub use log::Recovered;
pub use membership::{ChangeRefused, Member, MemberChange, Membership, RaftId, Suffrage};
pub use message::{DecodeError, MAX_CHUNK, MAX_MESSAGE, PeerMessage};
pub use node::{Node, Peer, Status};
pub use output::{
    Committed, Event, Halt, MembershipEvent, Output, ProposalId, ReadId, ReadOutcome, Refused,
    Role, Snapshot, State, Unresolved,
};
pub use write::WriteBatch;
