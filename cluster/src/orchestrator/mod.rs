//! What a cluster runs: decides which tasks there are.

mod enforcer;
mod reaper;
mod services;

pub use enforcer::ConstraintEnforcer;
pub use reaper::Reaper;
pub use services::Orchestrator;

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
