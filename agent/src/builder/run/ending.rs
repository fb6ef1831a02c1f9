//! What ends a step early: its build does not want it any more, or the engine closes.
//!
//! Must not: drop what is at work. A thread that mounts goes on when nobody awaits it, and what it mounts then stays.

use tokio_util::sync::CancellationToken;

use super::RunError;

/// The two ends that a step does not bring about itself.
pub(super) struct Ending {
    /// The build's.
    pub(super) cancel: CancellationToken,
    /// The engine's.
    pub(super) closing: CancellationToken,
}

impl Ending {
    /// Resolves when the step is to end.
    pub(super) async fn reached(&self) {
        tokio::select! {
            () = self.cancel.cancelled() => {}
            () = self.closing.cancelled() => {}
        }
    }

    /// An error once the step is to end.
    pub(super) fn check(&self) -> Result<(), RunError> {
        match self.cancel.is_cancelled() || self.closing.is_cancelled() {
            true => Err(RunError::Cancelled),
            false => Ok(()),
        }
    }

    /// Waits for others, but not beyond the end: `waiting` is dropped then, so it must be something that only waits.
    pub(super) async fn or<T>(&self, waiting: impl Future<Output = T>) -> Result<T, RunError> {
        tokio::select! {
            waited = waiting => Ok(waited),
            () = self.reached() => Err(RunError::Cancelled),
        }
    }
}
