//! Consensus of the managers.

mod apply;
mod config;
mod hostile;
pub mod log;
mod membership;
mod memory;
mod message;
mod node;
mod output;
mod proposals;
mod reads;
mod snapshot;
mod trace;
mod write;

pub use config::Config;
pub use log::Recovered;
pub use membership::{ChangeRefused, Member, MemberChange, Membership, RaftId, Suffrage};
pub use message::{DecodeError, MAX_CHUNK, MAX_MESSAGE, PeerMessage};
pub use node::{Node, Peer, Status};
pub use output::{
    Committed, Event, Halt, MembershipEvent, Output, ProposalId, ReadId, ReadOutcome, Refused,
    Role, Snapshot, State, Unresolved,
};
pub use write::WriteBatch;
