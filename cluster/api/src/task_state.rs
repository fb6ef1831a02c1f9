//! The life of a task (SwarmKit `api/types.proto`, `design/task_model.md`).
//!
//! ```text
//!           allocator   scheduler    agent ────────────────────────────────────────────────┐
//!   New ──▶ Pending ──▶ Assigned ──▶ Accepted ▶ Preparing ▶ Ready ▶ Starting ▶ Running ────┤
//!                                                                                          ▼
//!                                              Complete · Shutdown · Failed · Rejected (terminal)
//!   managers only: Orphaned, when the node has been gone for too long to come back to the task
//! ```
//!
//! A state is a Lamport clock: the greater one wins, nothing goes back. A task runs at most once; what replaces it is
//! another task of the same slot.

use serde::{Deserialize, Serialize};

/// What was observed of a task. Only grows.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// Made by an orchestrator.
    #[default]
    New,
    /// Has its addresses and ports.
    Pending,
    /// Has its node.
    Assigned,
    /// The agent has taken it on.
    Accepted,
    /// Image, networks, volumes are being made ready.
    Preparing,
    /// Could start at once; waits to be told.
    Ready,
    /// The container starts, or runs and is not yet healthy.
    Starting,
    /// Runs, and is healthy where that is checked.
    Running,
    /// Ended by itself with exit code 0.
    Complete,
    /// Ended because it was told to.
    Shutdown,
    /// Ended by itself with another exit code, or could not be made ready.
    Failed,
    /// Refused by the agent, or no longer allowed where it is.
    Rejected,
    /// Its node has been down for so long that its addresses are given away.
    Orphaned,
}

impl TaskState {
    /// All states in their order.
    pub const ALL: [Self; 13] = [
        Self::New,
        Self::Pending,
        Self::Assigned,
        Self::Accepted,
        Self::Preparing,
        Self::Ready,
        Self::Starting,
        Self::Running,
        Self::Complete,
        Self::Shutdown,
        Self::Failed,
        Self::Rejected,
        Self::Orphaned,
    ];

    /// Whether the task will never change again.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Complete | Self::Shutdown | Self::Failed | Self::Rejected | Self::Orphaned
        )
    }

    /// Whether a report that says `next` may follow. Agents may skip states; nobody may go back; an ended task can only
    /// be given up as orphaned.
    #[must_use]
    pub fn may_become(self, next: Self) -> bool {
        match self {
            Self::Orphaned => false,
            terminal if terminal.is_terminal() => next == Self::Orphaned,
            _ => next > self,
        }
    }

    /// The API's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Pending => "pending",
            Self::Assigned => "assigned",
            Self::Accepted => "accepted",
            Self::Preparing => "preparing",
            Self::Ready => "ready",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Shutdown => "shutdown",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Orphaned => "orphaned",
        }
    }
}

impl std::fmt::Display for TaskState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What managers want of a task. Only grows; only managers write it.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum DesiredState {
    /// Be ready to start, but do not.
    Ready,
    #[default]
    Running,
    /// Run to completion (jobs).
    Complete,
    /// Stop, and keep the record.
    Shutdown,
    /// Stop, and delete the record once the agent has confirmed the end.
    Remove,
}

impl DesiredState {
    /// The API's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Shutdown => "shutdown",
            Self::Remove => "remove",
        }
    }
}

impl std::fmt::Display for DesiredState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::TaskState;

    #[test]
    fn no_state_goes_back_and_terminal_ones_stay() {
        for from in TaskState::ALL {
            for to in TaskState::ALL {
                let allowed = from.may_become(to);
                assert!(!allowed || to > from, "{from} -> {to}");
                if from.is_terminal() {
                    assert_eq!(
                        allowed,
                        to == TaskState::Orphaned && from != TaskState::Orphaned,
                        "{from} -> {to}"
                    );
                }
            }
        }
    }
}
