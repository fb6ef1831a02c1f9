//! Runs a plan: every step as soon as the steps it comes after are over. It makes no decisions.

use std::time::Duration;

use agent_api::Client;
use tokio::sync::watch;

use crate::event::Event;
use crate::plan::Plan;

/// How a plan is run.
#[derive(Clone, Debug)]
pub struct ExecuteOptions {
    /// Requests under way at once (waits do not count); at least 1.
    pub parallel: usize,
    /// Longest time any one wait may take; `None` = as long as it takes.
    pub wait_timeout: Option<Duration>,
}

impl Default for ExecuteOptions {
    fn default() -> Self {
        Self {
            parallel: 16,
            wait_timeout: None,
        }
    }
}

/// A plan was not carried out completely.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", .failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ExecuteError {
    /// Every step that failed by itself, in order of the plan; empty if it was only cancelled.
    pub failures: Vec<Failure>,
    /// Steps that were not run because of that.
    pub skipped: usize,
    /// Whether the run was cancelled from outside.
    pub cancelled: bool,
}

/// One failed step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Index of the step in the plan.
    pub step: usize,
    /// What was attempted, `start container demo-web-1`.
    pub attempted: String,
    /// `file:line:column` of the service or resource.
    pub place: Option<String>,
    /// Why it failed.
    pub reason: String,
    /// Last lines of output of a container that ended while it was waited for.
    pub log_tail: Vec<String>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        write!(f, "cannot {}: {}", self.attempted, self.reason)?;
        for line in &self.log_tail {
            write!(f, "\n    {line}")?;
        }
        Ok(())
    }
}

/// Runs a plan.
///
/// `on_event` is called from this task, in order; it must not block. When `cancel` becomes `true` no further step is
/// begun and waits end; requests under way are finished, so that nothing is left half-recorded. Dropping the future
/// instead abandons requests in flight: the next plan picks up whatever they did.
///
/// # Errors
/// Steps that failed, all of them: those that did not depend on a failed one were still run.
pub async fn execute(
    client: &Client,
    plan: &Plan,
    options: &ExecuteOptions,
    cancel: watch::Receiver<bool>,
    on_event: &mut (dyn FnMut(Event<'_>) + Send),
) -> Result<(), ExecuteError> {
    todo!()
}
