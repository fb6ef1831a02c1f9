//! Networks that span the cluster.

use std::net::IpAddr;

use agent_api::swarm::{Annotations, Driver};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Meta;

/// An overlay network, or one that each node has for itself (`host`, a bridge of swarm scope).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    pub id: String,
    pub meta: Meta,
    pub spec: NetworkSpec,
    /// VXLAN network identifier; the allocator's.
    pub vni: Option<u32>,
    /// The allocator's; empty until it has been there.
    pub subnets: Vec<Subnet>,
    /// Why the allocator could not serve it, for people.
    pub error: String,
    /// Removed as soon as no task uses it.
    pub pending_delete: bool,
}

/// What a user wants of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkSpec {
    pub annotations: Annotations,
    /// `overlay`; others are refused.
    pub driver: Driver,
    pub internal: bool,
    /// Containers outside of services may join.
    pub attachable: bool,
    /// The one network that carries published ports.
    pub ingress: bool,
    pub ipv6: bool,
    /// Subnets asked for; where none of a family is given, the pools decide.
    pub subnets: Vec<Subnet>,
}

/// One range of addresses of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    pub subnet: IpNet,
    /// Absent in a spec: the first address.
    pub gateway: Option<IpAddr>,
    /// Addresses are taken from here only.
    pub range: Option<IpNet>,
}
