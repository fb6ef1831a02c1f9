//! constraint enforcer
use crate::control_loop::{Context, ControlLoop, Step};
use crate::store::StoreEvent;

/// constraint enforcer
#[derive(Debug, Default)]
pub struct ConstraintEnforcer {}

impl ConstraintEnforcer {
    /// Knows nothing until [`ControlLoop::start`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl ControlLoop for ConstraintEnforcer {
    fn name(&self) -> &'static str {
        "constraint enforcer"
    }

    fn start(&mut self, _context: &mut Context<'_>) {}

    fn observe(&mut self, _event: &StoreEvent) {}

    fn step(&mut self, _context: &mut Context<'_>) -> Step {
        Step::default()
    }
}
