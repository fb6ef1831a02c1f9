//! What an engine holds of one project, as [`crate::observe()`] found it: plain data, the planner's second input.
//!
//! Everything is taken from the engine's lists; nothing here asks anything.

use std::collections::{BTreeMap, BTreeSet};

use agent_api::{ContainerStatus, HealthStatus};
use serde::{Deserialize, Serialize};

/// Everything in the engine that a plan for one project looks at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ObservedState {
    /// Containers that carry the project's label, in a stable order (service, number, name).
    pub containers: Vec<ObservedContainer>,
    /// Networks by name: the project's, and those its files refer to.
    pub networks: BTreeMap<String, ObservedNetwork>,
    /// Volumes by name: the project's, and those its files refer to.
    pub volumes: BTreeMap<String, ObservedVolume>,
    /// Local images by the reference the project uses; what is not here is not there.
    pub images: BTreeMap<String, ObservedImage>,
    /// Names of containers outside the project that its services refer to (`container:NAME`), with their ids.
    pub external_containers: BTreeMap<String, String>,
    /// Digests of what configs and secrets contain.
    pub contents: Contents,
}

/// What is outside the Compose file but part of what a service is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Contents {
    /// By key of the config.
    pub configs: BTreeMap<String, Content>,
    /// By key of the secret.
    pub secrets: BTreeMap<String, Content>,
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// SHA-256 of it, hex.
    Digest(String),
    /// It cannot be read: why.
    Unreadable(String),
}

/// One container of the project.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ObservedContainer {
    /// Full id.
    pub id: String,
    /// Name without slash.
    pub name: String,
    /// Service it belongs to.
    pub service: String,
    /// Number within the service.
    pub number: u32,
    /// Made by `compose run`.
    pub oneoff: bool,
    /// Label [`crate::labels::CONFIG_HASH`].
    pub config_hash: Option<String>,
    /// Label [`crate::labels::ATTRIBUTES`].
    pub attributes: Option<String>,
    /// Label [`crate::labels::REPLACE`].
    pub replaces: Option<String>,
    /// Ids of the containers whose namespaces or volumes it shares; empty if it does not, or nothing tells.
    pub shares: BTreeSet<String>,
    /// Label [`crate::labels::DEPENDS_ON`].
    pub depends_on: Option<String>,
    /// Image reference it was made from.
    pub image: String,
    /// Id of that image.
    pub image_id: String,
    /// Its one state.
    pub state: ContainerStatus,
    /// Exit code, when it has ended.
    pub exit_code: Option<i64>,
    /// Health; `None` when it has no health check (or is not running).
    pub health: HealthStatus,
    /// Networks it is attached to, by name, with their ids (empty while it was never started).
    pub networks: BTreeMap<String, String>,
    /// Its mounts of volumes.
    pub volumes: Vec<ObservedMount>,
    /// Seconds since the epoch.
    pub created: i64,
}

/// A volume in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ObservedMount {
    /// Name of the volume.
    pub volume: String,
    /// Path in the container.
    pub target: String,
    /// Whether the container may write.
    pub writable: bool,
}

/// A network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ObservedNetwork {
    /// Full id.
    pub id: String,
    /// Project that its labels name.
    pub project: Option<String>,
    /// Key that its labels name.
    pub key: Option<String>,
    /// Label [`crate::labels::CONFIG_HASH`].
    pub config_hash: Option<String>,
    /// Label [`crate::labels::ATTRIBUTES`].
    pub attributes: Option<String>,
}

/// A volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ObservedVolume {
    /// Project that its labels name.
    pub project: Option<String>,
    /// Key that its labels name.
    pub key: Option<String>,
    /// Label [`crate::labels::CONFIG_HASH`].
    pub config_hash: Option<String>,
    /// Label [`crate::labels::ATTRIBUTES`].
    pub attributes: Option<String>,
}

/// A local image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ObservedImage {
    /// Full id, `sha256:…`.
    pub id: String,
    /// Paths the image declares as volumes; only looked up where a plan needs them.
    pub volumes: BTreeSet<String>,
}

impl ObservedContainer {
    /// Whether its process lives (running, paused or between two restarts).
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(
            self.state,
            ContainerStatus::Running | ContainerStatus::Paused | ContainerStatus::Restarting
        )
    }

    /// Whether it ran and ended with exit code 0.
    #[must_use]
    pub fn is_completed(&self) -> bool {
        self.state == ContainerStatus::Exited && self.exit_code == Some(0)
    }
}
