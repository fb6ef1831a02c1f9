//! The cluster itself; there is exactly one, named `default`.

use agent_api::swarm::SwarmSpec;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Meta;

/// Settings, identity and pools of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    pub id: String,
    pub meta: Meta,
    pub spec: SwarmSpec,
    pub root_ca: RootCa,
    /// Where subnets of overlay networks are taken from, in this order.
    pub address_pools: Vec<IpNet>,
    /// Prefix length of a subnet taken from the pools.
    pub subnet_size: u8,
    /// UDP port of VXLAN.
    pub data_path_port: u16,
}

/// The authority that signs the nodes' certificates.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootCa {
    /// PEM.
    pub certificate: String,
    /// PEM. Never leaves the managers; encrypted at rest with the whole log.
    pub key: String,
    pub tokens: TokenSecrets,
}

/// The secret halves of the join tokens.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenSecrets {
    pub worker: String,
    pub manager: String,
}

impl std::fmt::Debug for RootCa {
    /// Without the key and the tokens, so that no log can hold them.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RootCa(…)")
    }
}

impl std::fmt::Debug for TokenSecrets {
    /// Without the secrets, so that no log can hold them.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenSecrets(…)")
    }
}
