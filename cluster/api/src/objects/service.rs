//! Services and how far their rollouts are.

use std::sync::Arc;

use agent_api::swarm::{EndpointSpec, PortConfig, ServiceSpec};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Meta;
use crate::Timestamp;

/// A set of tasks made from one template.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    pub id: String,
    pub meta: Meta,
    pub spec: Arc<ServiceSpec>,
    /// Changes with the spec; a task remembers which one it was made from. Equal numbers mean equal task templates.
    pub spec_version: u64,
    /// What a rollback asked for by a user goes back to.
    pub previous_spec: Option<Arc<ServiceSpec>>,
    pub previous_spec_version: Option<u64>,
    /// The last spec that is known to have worked: its rollout was completed. A rollback that an update's failure
    /// action starts goes back to it. The update supervisor's; absent before the first update.
    pub good_spec: Option<Arc<ServiceSpec>>,
    /// How it is reached; the allocator's.
    pub endpoint: Endpoint,
    /// Why the allocator could not serve it, for people.
    pub error: String,
    pub rollout: Option<Rollout>,
    /// Removed as soon as its tasks are gone.
    pub pending_delete: bool,
}

impl Service {
    /// Whether it is reached through the ingress network.
    #[must_use]
    pub fn needs_ingress(&self) -> bool {
        let mut ports = self.spec.endpoint_spec.iter().flat_map(|spec| &spec.ports);
        ports.any(|port| port.publish_mode == "ingress")
    }
}

/// Addresses and ports of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The spec this was allocated for.
    pub spec: EndpointSpec,
    /// With every published port filled in.
    pub ports: Vec<PortConfig>,
    pub virtual_ips: Vec<VirtualIp>,
}

/// The address that stands for a service on one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualIp {
    pub network_id: String,
    pub address: IpNet,
}

/// One update or rollback. Everything a new leader must know to go on with it that the tasks do not tell.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rollout {
    /// Never used again in this service; zero until the update supervisor has begun with it.
    pub id: u64,
    pub state: RolloutState,
    /// The spec version it leads to.
    pub spec_version: u64,
    pub started_at: Timestamp,
    pub completed_at: Timestamp,
    pub message: String,
    /// Slots that were dirty when it began.
    pub total: u64,
    /// Slots whose new task failed while it was watched: numbers, or ids of nodes.
    pub failed: Vec<String>,
}

/// Where a rollout is. The API's words are SwarmKit's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutState {
    #[default]
    Updating,
    Paused,
    Completed,
    RollbackStarted,
    RollbackPaused,
    RollbackCompleted,
}

impl RolloutState {
    /// Whether slots are still being changed.
    #[must_use]
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Updating | Self::RollbackStarted)
    }

    /// The API's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Updating => "updating",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::RollbackStarted => "rollback_started",
            Self::RollbackPaused => "rollback_paused",
            Self::RollbackCompleted => "rollback_completed",
        }
    }
}
