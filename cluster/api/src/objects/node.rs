//! Hosts that are in the cluster.

use std::collections::BTreeMap;
use std::net::IpAddr;

use agent_api::swarm::{NodeDescription, NodeRole, NodeSpec, NodeStatus, Reachability};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Meta;
use crate::Timestamp;

/// One host.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Node {
    pub id: String,
    pub meta: Meta,
    /// `spec.role` is what is wanted; what is, is `role`.
    pub spec: NodeSpec,
    /// What the node said last.
    pub description: Option<NodeDescription>,
    pub status: NodeStatus,
    /// When `status.state` last changed.
    pub status_since: Timestamp,
    /// The role of the certificate it has.
    pub role: NodeRole,
    /// Its place in Raft, while it is a manager.
    pub member: Option<RaftMember>,
    /// Where VXLAN packets to it go.
    pub data_path_addr: Option<IpAddr>,
    /// Its own addresses on each network whose balancing needs them (ingress), one per family; network id → addresses.
    pub attachments: BTreeMap<String, Vec<IpNet>>,
}

/// A manager's place in Raft.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftMember {
    /// Never used again once removed.
    pub raft_id: u64,
    /// `host:port` other nodes reach it at.
    pub addr: String,
    pub reachability: Reachability,
}
