//! Tasks: one container each, once.

use std::sync::Arc;

use agent_api::swarm::{Annotations, Driver, PortConfig, TaskSpec};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Endpoint, Meta};
use crate::{DesiredState, TaskState, Timestamp};

/// One run of a service's container on one node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Task {
    pub id: String,
    pub meta: Meta,
    pub service_id: String,
    /// Name and labels of the service when the task was made.
    pub service: Arc<Annotations>,
    /// 1, 2, … in a replicated service; 0 in a global one, whose slots are nodes.
    pub slot: u64,
    /// Counts the tasks of a slot; of two tasks of one slot the one with the greater number is the newer.
    pub generation: u64,
    /// Empty until the scheduler has chosen; then never changes.
    pub node_id: String,
    pub spec: Arc<TaskSpec>,
    /// The service's spec version it was made from.
    pub spec_version: u64,
    pub status: TaskStatus,
    /// Written by managers only.
    pub desired: DesiredState,
    /// When `desired` last changed, by the leader's clock. The store writes it, and the two below.
    pub desired_since: Timestamp,
    /// When it was first seen Running, by the leader's clock; zero if it never was.
    pub running_since: Timestamp,
    /// When it was first seen in a terminal state, by the leader's clock; zero while it is in none.
    pub ended_at: Timestamp,
    /// The rollout ([`super::Rollout::id`]) that made it and is answerable for its failure; zero: none.
    pub rollout: u64,
    /// Held at desired Ready until what its service waits for is there (`agent_api::swarm::gate`).
    pub gated: bool,
    /// Must leave its node, which changed and may not or cannot have it any more; the constraint enforcer's.
    pub evicted: bool,
    /// The cluster's default when the task was made; for tasks whose spec names no log driver.
    pub log_driver: Option<Driver>,
    /// Networks with the addresses the allocator chose.
    pub networks: Vec<Attachment>,
    /// The service's ports and addresses when the task was allocated.
    pub endpoint: Endpoint,
    /// What the restart supervisor must remember.
    pub restarts: Restarts,
}

impl Task {
    /// `<service>.<slot>`, or `<service>.<node id>` in a global service; with the id, the name of its container.
    #[must_use]
    pub fn name(&self) -> String {
        if self.slot == 0 {
            format!("{}.{}", self.service.name, self.node_id)
        } else {
            format!("{}.{}", self.service.name, self.slot)
        }
    }
}

/// What was observed of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStatus {
    pub state: TaskState,
    /// When the state was reached.
    pub since: Timestamp,
    /// What is being done, for people.
    pub message: String,
    /// What went wrong, for people; for a waiting task why it waits.
    pub error: String,
    pub container: Option<ContainerStatus>,
    /// Ports of mode `host` as they were really published.
    pub ports: Vec<PortConfig>,
}

/// The container of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerStatus {
    pub id: String,
    pub pid: i64,
    pub exit_code: i64,
}

/// A task's place on one network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    pub network_id: String,
    /// One per family.
    pub addresses: Vec<IpNet>,
    /// More names of the service there.
    pub aliases: Vec<String>,
}

/// History of a slot as far as its restart policy needs it, carried from task to task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Restarts {
    /// How many tasks of this slot and spec version ended before and were restarted; zero for the first one.
    pub attempts: u64,
    /// How many of those in a row, up to this one, ran for a short time only; what the delay grows with.
    pub quick_failures: u32,
    /// The task stays at desired Ready until then; zero: no delay.
    pub not_before: Timestamp,
    /// The task this one replaces; it starts only when that one has ended (or was given up on).
    pub replaces: Option<String>,
}
