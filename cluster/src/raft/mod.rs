//! Consensus of the managers.

pub mod log;
mod membership;
mod message;
mod node;
mod output;
mod write;

pub use log::Recovered;
pub use membership::{ChangeRefused, Member, MemberChange, Membership, RaftId, Suffrage};
pub use message::{DecodeError, MAX_CHUNK, MAX_MESSAGE, PeerMessage};
pub use node::{Config, Node, Peer, Status};
pub use output::{
    Committed, Event, Halt, MembershipEvent, Output, ProposalId, ReadId, ReadOutcome, Refused, Role, Snapshot, State,
    Unresolved,
};
pub use write::WriteBatch;
