//! Services, tasks, nodes, secrets and configs as the API shows them: the spec, and what became of it.

use serde::{Deserialize, Serialize};

use super::super::Labels;
use super::super::lenient::{empty_null, null_default};
use super::{
    ConfigSpec, Endpoint, ManagerStatus, NodeDescription, NodeSpec, NodeStatus, ObjectVersion,
    PortConfig, SecretSpec, ServiceSpec, TaskSpec, UpdateStatus,
};

/// A service: one row of the list and the reply of inspect.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "Version")]
    pub version: ObjectVersion,
    #[serde(rename = "CreatedAt")]
    pub created_at: String,
    #[serde(rename = "UpdatedAt")]
    pub updated_at: String,
    #[serde(rename = "Spec")]
    pub spec: ServiceSpec,
    /// What a rollback goes back to.
    #[serde(rename = "PreviousSpec", skip_serializing_if = "Option::is_none")]
    pub previous_spec: Option<ServiceSpec>,
    #[serde(rename = "Endpoint")]
    pub endpoint: Endpoint,
    #[serde(rename = "UpdateStatus", skip_serializing_if = "Option::is_none")]
    pub update_status: Option<UpdateStatus>,
    /// Only in lists that were asked for it.
    #[serde(rename = "ServiceStatus", skip_serializing_if = "Option::is_none")]
    pub service_status: Option<ServiceStatus>,
    /// Only of jobs.
    #[serde(rename = "JobStatus", skip_serializing_if = "Option::is_none")]
    pub job_status: Option<JobStatus>,
}

/// Numbers of tasks of a service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServiceStatus {
    pub running_tasks: u64,
    pub desired_tasks: u64,
    pub completed_tasks: u64,
}

/// Which run of a job is current.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct JobStatus {
    pub job_iteration: ObjectVersion,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_execution: Option<String>,
}

/// Reply of `POST /services/create`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceCreateResponse {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(
        rename = "Warnings",
        deserialize_with = "null_default",
        serialize_with = "empty_null"
    )]
    pub warnings: Vec<String>,
}

/// Reply of `POST /services/{id}/update`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServiceUpdateResponse {
    #[serde(deserialize_with = "null_default", serialize_with = "empty_null")]
    pub warnings: Vec<String>,
}

/// A task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Task {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "Version")]
    pub version: ObjectVersion,
    #[serde(rename = "CreatedAt")]
    pub created_at: String,
    #[serde(rename = "UpdatedAt")]
    pub updated_at: String,
    #[serde(
        rename = "Name",
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_default"
    )]
    pub name: String,
    #[serde(rename = "Labels", deserialize_with = "null_default")]
    pub labels: Labels,
    #[serde(rename = "Spec")]
    pub spec: TaskSpec,
    #[serde(rename = "ServiceID", skip_serializing_if = "String::is_empty")]
    pub service_id: String,
    /// From 1 in a replicated service, absent in a global one.
    #[serde(rename = "Slot", skip_serializing_if = "is_zero")]
    pub slot: u64,
    /// Absent until the scheduler has chosen.
    #[serde(rename = "NodeID", skip_serializing_if = "String::is_empty")]
    pub node_id: String,
    #[serde(rename = "Status")]
    pub status: TaskStatus,
    #[serde(rename = "DesiredState")]
    pub desired_state: TaskState,
    #[serde(
        rename = "NetworksAttachments",
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_default"
    )]
    pub networks_attachments: Vec<NetworkAttachment>,
    #[serde(
        rename = "GenericResources",
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_default"
    )]
    pub generic_resources: Vec<serde_json::Value>,
    /// Only of jobs.
    #[serde(rename = "JobIteration", skip_serializing_if = "Option::is_none")]
    pub job_iteration: Option<ObjectVersion>,
    /// Cluster volumes; there are none.
    #[serde(rename = "Volumes")]
    pub volumes: Option<Vec<serde_json::Value>>,
}

/// How far a task is, or is to be. The order is that of a task's life: the greater state wins.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    #[default]
    New,
    Allocated,
    Pending,
    Assigned,
    Accepted,
    Preparing,
    Ready,
    Starting,
    Running,
    Complete,
    Shutdown,
    Failed,
    Rejected,
    /// Desired only.
    Remove,
    Orphaned,
}

impl TaskState {
    /// The word of the API.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Allocated => "allocated",
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
            Self::Remove => "remove",
            Self::Orphaned => "orphaned",
        }
    }

    /// Whether a task in this state will not run any more.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Complete
                | Self::Shutdown
                | Self::Failed
                | Self::Rejected
                | Self::Remove
                | Self::Orphaned
        )
    }
}

/// What was observed of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TaskStatus {
    pub timestamp: String,
    pub state: TaskState,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What went wrong, or why the task waits.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub err: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_status: Option<TaskContainerStatus>,
    pub port_status: TaskPortStatus,
}

/// The container of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskContainerStatus {
    #[serde(rename = "ContainerID")]
    pub container_id: String,
    #[serde(rename = "PID")]
    pub pid: i64,
    #[serde(rename = "ExitCode")]
    pub exit_code: i64,
}

/// Ports of mode `host` as they were really published.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TaskPortStatus {
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_default"
    )]
    pub ports: Vec<PortConfig>,
}

/// A task's place on one network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkAttachment {
    pub network: AttachedNetwork,
    /// With prefix length.
    #[serde(deserialize_with = "null_default")]
    pub addresses: Vec<String>,
}

/// The network in a task's attachment, in the shape of the swarm API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AttachedNetwork {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "Version")]
    pub version: ObjectVersion,
    #[serde(rename = "CreatedAt")]
    pub created_at: String,
    #[serde(rename = "UpdatedAt")]
    pub updated_at: String,
    #[serde(rename = "Spec")]
    pub spec: AttachedNetworkSpec,
    #[serde(rename = "DriverState")]
    pub driver_state: super::Driver,
    #[serde(rename = "IPAMOptions", skip_serializing_if = "Option::is_none")]
    pub ipam_options: Option<IpamOptions>,
}

/// What of a network's spec a task's attachment shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AttachedNetworkSpec {
    #[serde(flatten)]
    pub annotations: super::Annotations,
    pub driver_configuration: super::Driver,
    #[serde(rename = "IPv6Enabled", skip_serializing_if = "std::ops::Not::not")]
    pub ipv6_enabled: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub internal: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub attachable: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ingress: bool,
    #[serde(rename = "IPAMOptions", skip_serializing_if = "Option::is_none")]
    pub ipam_options: Option<IpamOptions>,
    pub scope: String,
}

/// Address ranges of a network, in the shape of the swarm API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct IpamOptions {
    pub driver: super::Driver,
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_default"
    )]
    pub configs: Vec<IpamRange>,
}

/// One range.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct IpamRange {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subnet: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub range: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gateway: String,
}

/// A node: one row of the list and the reply of inspect.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Node {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "Version")]
    pub version: ObjectVersion,
    #[serde(rename = "CreatedAt")]
    pub created_at: String,
    #[serde(rename = "UpdatedAt")]
    pub updated_at: String,
    #[serde(rename = "Spec")]
    pub spec: NodeSpec,
    #[serde(rename = "Description")]
    pub description: NodeDescription,
    #[serde(rename = "Status")]
    pub status: NodeStatus,
    #[serde(rename = "ManagerStatus", skip_serializing_if = "Option::is_none")]
    pub manager_status: Option<ManagerStatus>,
}

/// A secret without its data.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Secret {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "Version")]
    pub version: ObjectVersion,
    #[serde(rename = "CreatedAt")]
    pub created_at: String,
    #[serde(rename = "UpdatedAt")]
    pub updated_at: String,
    #[serde(rename = "Spec")]
    pub spec: SecretSpec,
}

/// A config with its data.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "Version")]
    pub version: ObjectVersion,
    #[serde(rename = "CreatedAt")]
    pub created_at: String,
    #[serde(rename = "UpdatedAt")]
    pub updated_at: String,
    #[serde(rename = "Spec")]
    pub spec: ConfigSpec,
}

/// Reply of `GET /swarm/unlockkey`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct UnlockKey {
    pub unlock_key: String,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the shape serde asks for"
)]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_task_of_docker_is_read_and_written_again() {
        let task = json!({
            "ID": "0kzzo1i0y4jz6027t0k7aezc7", "Version": {"Index": 71},
            "CreatedAt": "2016-06-07T21:07:31.171892745Z", "UpdatedAt": "2016-06-07T21:07:31.376370513Z",
            "Labels": {},
            "Spec": {"ContainerSpec": {"Image": "redis"}, "ForceUpdate": 0, "Runtime": "container"},
            "ServiceID": "9mnpnzenvg8p8tdbtq4wvbkcz", "Slot": 1, "NodeID": "60gvrl6tm78dmak4yl7srz94v",
            "Status": {"Timestamp": "2016-06-07T21:07:31.290032978Z", "State": "running", "Message": "started",
                "ContainerStatus": {"ContainerID": "e5d62702a1b4", "PID": 677, "ExitCode": 0}, "PortStatus": {}},
            "DesiredState": "running", "Volumes": null,
        });
        let read: Task = serde_json::from_value(task.clone()).expect("it is a task");
        assert_eq!(read.status.state, TaskState::Running);
        assert_eq!(serde_json::to_value(&read).expect("it serialises"), task);
    }

    #[test]
    fn states_are_in_the_order_of_a_life() {
        let words = ["new", "assigned", "ready", "running", "complete", "failed"];
        let states = words.map(|word| {
            let state: TaskState = serde_json::from_value(json!(word)).expect("a state");
            assert_eq!(state.word(), word);
            state
        });
        assert!(states.is_sorted());
        assert!(!TaskState::Running.is_terminal() && TaskState::Shutdown.is_terminal());
    }
}
