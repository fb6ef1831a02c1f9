//! Scheduler.
use crate::control_loop::{Context, ControlLoop, Step};
use crate::store::StoreEvent;

/// Chooses nodes for tasks.
#[derive(Debug, Default)]
pub struct Scheduler {}

impl Scheduler {
    /// Knows nothing until [`ControlLoop::start`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl ControlLoop for Scheduler {
    fn name(&self) -> &'static str {
        "scheduler"
    }

    fn start(&mut self, context: &mut Context<'_>) {
        todo!()
    }

    fn observe(&mut self, event: &StoreEvent) {
        todo!()
    }

    fn step(&mut self, context: &mut Context<'_>) -> Step {
        todo!()
    }
}
