//! task reaper
use crate::control_loop::{Context, ControlLoop, Step};
use crate::store::StoreEvent;

/// task reaper
#[derive(Debug, Default)]
pub struct Reaper {}

impl Reaper {
    /// Knows nothing until [`ControlLoop::start`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl ControlLoop for Reaper {
    fn name(&self) -> &'static str {
        "task reaper"
    }

    fn start(&mut self, _context: &mut Context<'_>) {}

    fn observe(&mut self, _event: &StoreEvent) {}

    fn step(&mut self, _context: &mut Context<'_>) -> Step {
        Step::default()
    }
}
