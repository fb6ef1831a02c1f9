//! Manager side of a swarm: Raft, the replicated store, the loops that decide, and what agents are told. Opens no
//! container and no network of its own nodes; that is the agent's.
//!
//! What decides is deterministic: it takes time, messages, disk results and randomness as inputs.

pub mod allocator;
mod batch;
pub mod ca;
pub mod constraint;
pub mod control;
mod control_loop;
pub mod core;
pub mod dispatcher;
pub mod manager;
pub mod orchestrator;
pub mod raft;
pub mod rpc;
pub mod scheduler;
#[cfg(test)]
mod stage;
pub mod store;
pub mod worker;

pub use control_loop::{Context, ControlLoop, Step};
