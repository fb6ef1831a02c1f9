//! What managers and agents of a swarm share: the objects of a cluster, the life of a task as a state machine, ids, and
//! the protocol they speak. No behaviour beyond that: who decides what is in package cluster.
//!
//! Specs (`agent_api::swarm`) are the user's and never edited by the system; everything else in an object is the
//! system's.

mod ids;
mod objects;
pub mod proto;
mod task_state;
mod time;

pub use ids::IdSource;
pub use objects::*;
pub use task_state::{DesiredState, TaskState};
pub use time::{Now, Time, Timestamp};
