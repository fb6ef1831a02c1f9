//! The swarm itself: settings, tokens, and the requests that make, join and leave it.

use serde::{Deserialize, Serialize};

use super::super::lenient::{empty_null, null_default};
use super::{Annotations, Driver, NodeAvailability, ObjectVersion, TlsInfo};

/// Settings of a swarm.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SwarmSpec {
    #[serde(flatten)]
    pub annotations: Annotations,
    #[serde(rename = "Orchestration")]
    pub orchestration: OrchestrationConfig,
    #[serde(rename = "Raft")]
    pub raft: RaftConfig,
    #[serde(rename = "Dispatcher")]
    pub dispatcher: DispatcherConfig,
    #[serde(rename = "CAConfig")]
    pub ca_config: CaConfig,
    #[serde(rename = "TaskDefaults")]
    pub task_defaults: TaskDefaults,
    #[serde(rename = "EncryptionConfig")]
    pub encryption_config: EncryptionConfig,
}

/// Settings of the orchestrators.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct OrchestrationConfig {
    /// Ended tasks kept per slot; absent means 5, negative without bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_history_retention_limit: Option<i64>,
}

/// Settings of Raft.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RaftConfig {
    /// Log entries between snapshots; 0 means the default of 10,000.
    #[serde(skip_serializing_if = "is_zero")]
    pub snapshot_interval: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_old_snapshots: Option<u64>,
    #[serde(skip_serializing_if = "is_zero")]
    pub log_entries_for_slow_followers: u64,
    pub election_tick: u64,
    pub heartbeat_tick: u64,
}

/// Settings of the dispatcher.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DispatcherConfig {
    /// Nanoseconds; 0 means the default.
    #[serde(skip_serializing_if = "is_zero")]
    pub heartbeat_period: u64,
}

/// Settings of the certificate authority.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CaConfig {
    /// Nanoseconds; 0 means 90 days.
    #[serde(rename = "NodeCertExpiry", skip_serializing_if = "is_zero")]
    pub node_cert_expiry: u64,
    #[serde(
        rename = "ExternalCAs",
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_default"
    )]
    pub external_cas: Vec<serde_json::Value>,
    #[serde(rename = "SigningCACert", skip_serializing_if = "String::is_empty")]
    pub signing_ca_cert: String,
    #[serde(rename = "SigningCAKey", skip_serializing_if = "String::is_empty")]
    pub signing_ca_key: String,
    #[serde(rename = "ForceRotate", skip_serializing_if = "is_zero")]
    pub force_rotate: u64,
}

/// What tasks get that do not say it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TaskDefaults {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_driver: Option<Driver>,
}

/// Whether managers start locked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EncryptionConfig {
    pub auto_lock_managers: bool,
}

/// `POST /swarm/init`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SwarmInitRequest {
    pub listen_addr: String,
    pub advertise_addr: String,
    pub data_path_addr: String,
    pub data_path_port: u32,
    pub force_new_cluster: bool,
    pub spec: SwarmSpec,
    pub auto_lock_managers: bool,
    #[serde(deserialize_with = "availability")]
    pub availability: Option<NodeAvailability>,
    #[serde(deserialize_with = "null_default")]
    pub default_addr_pool: Vec<String>,
    pub subnet_size: u32,
}

/// `POST /swarm/join`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SwarmJoinRequest {
    pub listen_addr: String,
    pub advertise_addr: String,
    pub data_path_addr: String,
    #[serde(deserialize_with = "null_default")]
    pub remote_addrs: Vec<String>,
    pub join_token: String,
    #[serde(deserialize_with = "availability")]
    pub availability: Option<NodeAvailability>,
}

impl std::fmt::Debug for SwarmJoinRequest {
    /// Without the token, so that no log can hold it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SwarmJoinRequest")
            .field("remote_addrs", &self.remote_addrs)
            .finish_non_exhaustive()
    }
}

/// A swarm as the API shows it to managers' clients.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Swarm {
    #[serde(flatten)]
    pub cluster: ClusterInfo,
    #[serde(rename = "JoinTokens")]
    pub join_tokens: JoinTokens,
}

/// A swarm without its join tokens, as `/info` shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterInfo {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "Version")]
    pub version: ObjectVersion,
    #[serde(rename = "CreatedAt")]
    pub created_at: String,
    #[serde(rename = "UpdatedAt")]
    pub updated_at: String,
    #[serde(rename = "Spec")]
    pub spec: SwarmSpec,
    #[serde(rename = "TLSInfo")]
    pub tls_info: TlsInfo,
    #[serde(rename = "RootRotationInProgress")]
    pub root_rotation_in_progress: bool,
    #[serde(
        rename = "DefaultAddrPool",
        deserialize_with = "null_default",
        serialize_with = "empty_null"
    )]
    pub default_addr_pool: Vec<String>,
    #[serde(rename = "SubnetSize")]
    pub subnet_size: u32,
    #[serde(rename = "DataPathPort")]
    pub data_path_port: u32,
}

/// What a node knows of the swarm it is in, or that it is in none; part of `/info`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Info {
    #[serde(rename = "NodeID")]
    pub node_id: String,
    /// Where other nodes reach this one, without port.
    #[serde(rename = "NodeAddr")]
    pub node_addr: String,
    #[serde(rename = "LocalNodeState")]
    pub local_node_state: LocalNodeState,
    /// Whether this node is a manager.
    #[serde(rename = "ControlAvailable")]
    pub control_available: bool,
    #[serde(rename = "Error")]
    pub error: String,
    #[serde(
        rename = "RemoteManagers",
        deserialize_with = "null_default",
        serialize_with = "empty_null"
    )]
    pub remote_managers: Vec<Peer>,
    #[serde(rename = "Nodes", skip_serializing_if = "is_zero")]
    pub nodes: u64,
    #[serde(rename = "Managers", skip_serializing_if = "is_zero")]
    pub managers: u64,
    /// Managers only.
    #[serde(rename = "Cluster", skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterInfo>,
    #[serde(
        rename = "Warnings",
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_default"
    )]
    pub warnings: Vec<String>,
}

/// Whether a node is in a swarm.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LocalNodeState {
    #[default]
    Inactive,
    /// On its way in, or waiting for the managers.
    Pending,
    Active,
    Error,
    Locked,
}

/// A manager a node knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Peer {
    #[serde(rename = "NodeID")]
    pub node_id: String,
    /// `host:port`.
    #[serde(rename = "Addr")]
    pub addr: String,
}

/// What a joining host must show.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct JoinTokens {
    pub worker: String,
    pub manager: String,
}

impl std::fmt::Debug for JoinTokens {
    /// Without the tokens, so that no log can hold them.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JoinTokens(…)")
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the shape serde asks for"
)]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// Clients that were not told an availability send the empty word.
fn availability<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<NodeAvailability>, D::Error> {
    use serde::de::{Error as _, IntoDeserializer as _};
    match Option::<String>::deserialize(deserializer)?.as_deref() {
        None | Some("") => Ok(None),
        Some(word) => {
            let word: serde::de::value::StrDeserializer<'_, serde::de::value::Error> =
                word.into_deserializer();
            NodeAvailability::deserialize(word)
                .map(Some)
                .map_err(D::Error::custom)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{NodeAvailability, SwarmInitRequest, SwarmJoinRequest};

    #[test]
    fn an_empty_availability_is_none() {
        for (json, expected) in [
            ("{}", None),
            (r#"{"Availability":""}"#, None),
            (r#"{"Availability":null}"#, None),
            (r#"{"Availability":"drain"}"#, Some(NodeAvailability::Drain)),
        ] {
            let init: SwarmInitRequest = serde_json::from_str(json).expect(json);
            let join: SwarmJoinRequest = serde_json::from_str(json).expect(json);
            assert_eq!((init.availability, join.availability), (expected, expected));
        }
        assert!(serde_json::from_str::<SwarmInitRequest>(r#"{"Availability":"off"}"#).is_err());
    }
}
