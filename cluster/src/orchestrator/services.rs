//! orchestrator
use crate::control_loop::{Context, ControlLoop, Step};
use crate::store::StoreEvent;

/// orchestrator
#[derive(Debug, Default)]
pub struct Orchestrator {}

impl Orchestrator {
    /// Knows nothing until [`ControlLoop::start`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl ControlLoop for Orchestrator {
    fn name(&self) -> &'static str {
        "orchestrator"
    }

    fn start(&mut self, _context: &mut Context<'_>) {}

    fn observe(&mut self, _event: &StoreEvent) {}

    fn step(&mut self, _context: &mut Context<'_>) -> Step {
        Step::default()
    }
}
