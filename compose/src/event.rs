//! Progress of a running plan as data; whoever renders it decides what is shown.

use std::time::Duration;

use serde::Serialize;

use crate::plan::Step;

/// One change in the progress of a plan.
#[derive(Clone, Debug, Serialize)]
pub struct Event<'a> {
    /// Index of the step in [`crate::Plan::steps`].
    pub index: usize,
    /// The step itself: its operation names the object.
    #[serde(skip)]
    pub step: &'a Step,
    /// What happened to it.
    #[serde(flatten)]
    pub phase: Phase,
}

/// Life of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// All it depends on is done; the engine has been asked.
    Started,
    /// News while it waits: what a failed probe of the health check said.
    Progress {
        /// For people.
        detail: String,
    },
    /// Done.
    Done {
        /// Time it took.
        #[serde(rename = "elapsed_ms", serialize_with = "milliseconds")]
        elapsed: Duration,
        /// For people: an address, a warning of the engine; usually empty.
        detail: String,
    },
    /// The dependency was not required: its failure is only a warning.
    Warned {
        /// What went wrong.
        message: String,
    },
    /// It failed; everything that needs it is skipped.
    Failed {
        /// What went wrong.
        message: String,
    },
    /// Not run because a step it needs failed or was skipped, or because the run was cancelled.
    Skipped,
}

fn milliseconds<S: serde::Serializer>(
    elapsed: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}
