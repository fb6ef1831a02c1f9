//! What the cluster runs: decides which tasks there are and what is wanted of each. Never chooses a node, an address or
//! a port, never speaks to an agent, and writes no observed state except of tasks no agent has any more ([`Reaper`]).
//!
//! # One decision per service
//!
//! SwarmKit has a replicated and a global orchestrator which share a restart supervisor and an update supervisor
//! (`manager/orchestrator/{replicated,global,restart,update}`); the latter two are goroutines with state of their own
//! and can each replace the same task. Here there is one loop, [`Orchestrator`], that looks at one service at a time
//! and decides everything about it at once, from the store alone:
//!
//! ```text
//!            replicated: which numbers ┐
//!   tasks ─▶   global:   which nodes   ├▶ slots ─▶ stand: what each slot has ─▶ rollout: which slots may begin
//!            (slot.rs)                 ┘                                              │
//!   transaction ◀── settle: what to do about each slot (restart.rs: whether, when) ◀──┘
//! ```
//!
//! A slot is a number of a replicated service or a node of a global one. It may have several tasks; those at a desired
//! state up to Running are *live*. Whatever the decision, at most one task of a slot is started per decision, and it
//! carries in itself what a new leader must know: what it replaces, not before when it starts, how often its slot was
//! restarted, which rollout made it. How far a rollout is follows from the tasks it made; what would be lost with them
//! (failures) is in `Service::rollout`. Nothing that matters is in memory, so a change of leaders changes nothing.
//!
//! # Missing on purpose
//!
//! Jobs (refused by the control API). A time limit for tasks that pull their image: only not being placed is bounded.

mod clock;
mod enforcer;
mod gate;
mod global;
mod plan;
mod reaper;
mod replicated;
mod restart;
mod rollout;
mod service;
mod service_loop;
mod settle;
mod slot;
mod stand;
mod template;

#[cfg(test)]
mod tests;

pub use enforcer::ConstraintEnforcer;
pub use gate::waits_for;
pub use reaper::Reaper;
pub use service_loop::Orchestrator;
pub use template::is_dirty;

use crate::control_loop::ControlLoop;

/// All loops of this module, in the order in which they should be asked.
#[must_use]
pub fn loops() -> Vec<Box<dyn ControlLoop + Send>> {
    vec![
        Box::new(ConstraintEnforcer::new()),
        Box::new(Orchestrator::new()),
        Box::new(Reaper::new()),
    ]
}
