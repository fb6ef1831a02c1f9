//! What a [`Worker`](super::Worker) is told, and what it wants done. Data only.

use std::sync::Arc;

use cluster_api::{Config, ContainerStatus, Network, Secret, Task, TaskStatus};
use serde::{Deserialize, Serialize};

use crate::dispatcher::{Assignments, Endpoints};

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// A manager has accepted this node and says that the leader of this term is behind it. What is reported or
    /// acknowledged from now on belongs to this session.
    SessionUp { term: u64 },
    /// The session is gone. Containers go on.
    SessionDown,
    /// Came over the session.
    Assignments(Assignments),
    /// `wake_at` has passed.
    Time,
    /// About one task's container.
    Task { id: String, happened: Happened },
    /// The balancers and name tables of a network are as [`Action::Program`] of this version asked.
    Programmed { network_id: String, version: u64 },
}

/// What became of a task's container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened {
    /// The container exists and could be started at once.
    Prepared,
    /// It cannot be made ready. Whatever was made of it is still there until [`Action::Remove`].
    NotPrepared { error: String },
    /// Its process runs.
    Started { container: ContainerStatus },
    /// It runs and is healthy, or runs and nobody checks its health.
    Healthy,
    /// It runs and has failed its health checks.
    Unhealthy { error: String },
    /// It runs no more, or could not be started. Follows each [`Action::Stop`] unless it came before.
    Ended {
        exit_code: i64,
        /// Empty when the process simply ended.
        error: String,
    },
    /// Nothing is left of the container.
    Removed,
    /// Something is left; is tried again later.
    NotRemoved { error: String },
}

/// What to do. The actions of one call are begun in their order, and one that saves is durable before the next is
/// begun. All may be repeated: after a restart of the agent those not known to be done come again.
#[derive(Debug, Clone)]
pub enum Action {
    /// Keep this record, in place of an older one of the same task.
    Save(Arc<Record>),
    /// Drop the record of this task.
    Forget { task_id: String },
    /// Keep the youngest order that was followed.
    SaveFence(Fence),
    /// Get the image, join networks and volumes, put secrets in place, create the container; then [`Happened::Prepared`].
    Prepare(Box<Preparation>),
    /// Start the container; then `Started`, `Healthy` and so on.
    Start { task_id: String },
    /// Watch this container, found when the agent started, as if it had just been started.
    Adopt { task_id: String },
    /// Give up preparing, or send the stop signal and after the grace period kill; then `Ended`.
    Stop { task_id: String },
    /// The container has ended for good: wipe its secrets, leave its networks. It stays, for its logs.
    Release { task_id: String },
    /// Delete the container and what was made for it; then `Removed`.
    Remove { task_id: String },
    /// Make balancers and name tables of a network so; then [`Input::Programmed`].
    Program {
        network: Arc<Network>,
        endpoints: Arc<Endpoints>,
    },
    /// No task here is on this network any more.
    Unprogram { network_id: String },
    /// Send these statuses over the session. When that fails the session must be ended.
    Report(Vec<(String, TaskStatus)>),
    /// Tell the manager that everything up to `results_in` is programmed.
    Acknowledge { results_in: String },
    /// The chain of assignments is broken: ask for a complete set over the same session.
    Resync { reason: String },
    /// The manager at the other end knows less than this node: end the session and find another manager.
    Leave { reason: String },
}

/// What is needed to make a task's container.
#[derive(Debug, Clone)]
pub struct Preparation {
    pub task: Arc<Task>,
    pub networks: Vec<Arc<Network>>,
    pub secrets: Vec<Arc<Secret>>,
    pub configs: Vec<Arc<Config>>,
}

/// How young an order must be to be followed. Survives restarts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fence {
    /// Highest term of a leader this node was in session with.
    pub term: u64,
    /// Highest Raft index a followed order was made from.
    pub index: u64,
}

/// What the agent keeps of one task, on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// As it was assigned last.
    pub task: Arc<Task>,
    pub status: TaskStatus,
    /// What was begun last. Written before it is begun.
    pub intent: Intent,
    /// Whether a manager still wants it here.
    pub assigned: bool,
}

/// The side effects on one task, in their order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Intent {
    #[default]
    Accept,
    Prepare,
    Start,
    Stop,
    Remove,
}

/// A container of a task that was there when the agent started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub task_id: String,
    pub state: FoundState,
}

/// How it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundState {
    /// Never started.
    Created,
    Running,
    Exited {
        exit_code: i64,
        error: String,
    },
}
