//! Allocator (bodies follow).
use crate::control_loop::{Context, ControlLoop, Step};
use crate::store::StoreEvent;

/// Gives networks, services, nodes and tasks their addresses and ports.
#[derive(Debug, Default)]
pub struct Allocator {}

impl Allocator {
    /// Knows nothing until [`ControlLoop::start`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl ControlLoop for Allocator {
    fn name(&self) -> &'static str {
        "allocator"
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
