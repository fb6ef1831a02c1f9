//! What the leader and the agents say to each other, as values. The wire ([`super::wire`]) carries them as JSON inside
//! of the protocol's messages; the simulator hands them over as they are.
//!
//! ```text
//! agent                                   leader
//!   │ register(Registration) ───────────────▶ │ a new session; the node's older one is over
//!   │ ◀───────────────────────── SessionState │ and again whenever something in it changed
//!   │ ◀──────────────── Assignments, Complete │ everything; what is not in it does not belong on the node
//!   │ ◀───────────── Assignments, Incremental │ each built on the one before
//!   │ acknowledge(results_in) ──────────────▶ │ all endpoint states up to that one are programmed
//!   │ update_status(…) ─────────────────────▶ │
//!   │ heartbeat ────────────────────────────▶ │
//! ```
//!
//! # How a task stops without a connection lost
//!
//! When a task is no longer wanted it becomes [`BackendState::Draining`] in the [`Endpoints`] of its networks. Each node
//! that balances to it programs that and acknowledges. When all live ones have, the task's own node is told
//! [`Change::Unbound`], and only then sends the stop signal.

use std::net::IpAddr;
use std::sync::Arc;

use agent_api::swarm::NodeDescription;
use cluster_api::{Config, Network, Node, Secret, Task};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// What a node says when it opens a session.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Registration {
    pub description: NodeDescription,
    /// `host:port` where the node answers its peers (images); empty when it does not.
    pub address: String,
    /// Where VXLAN packets to the node go; absent leaves what is known as it is.
    pub data_path_addr: Option<IpAddr>,
    /// Address the leader sees the node at; for people.
    pub seen_at: String,
}

/// Everything a node must know besides its assignments. Sent first, and whenever something in it changed.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionState {
    pub session_id: String,
    /// Of the leader that sends it. Nodes refuse older ones.
    pub term: u64,
    /// The node's own object.
    pub node: Arc<Node>,
    pub managers: Vec<Contact>,
    /// PEM.
    pub root_certificate: String,
    pub heartbeat_period_ms: u64,
    /// Nodes with a session, whose images can be asked for; without the receiver.
    pub peers: Vec<Contact>,
}

/// How to reach a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Contact {
    pub node_id: String,
    /// `host:port`
    pub address: String,
}

/// A node's work, whole or as a change.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignments {
    /// Of the leader that sends it. Nodes refuse older ones.
    pub term: u64,
    /// Raft index of the store it was made from. Nodes refuse a complete set older than what they have followed.
    pub index: u64,
    /// The state this one is built on; empty for a complete one.
    pub applies_to: String,
    pub results_in: String,
    pub kind: AssignmentsKind,
    /// Networks and files before the tasks that need them, removals last.
    pub changes: Vec<Change>,
}

/// Whether what is not mentioned stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AssignmentsKind {
    /// Anything that is not in it does not belong on the node.
    Complete,
    /// Anything that is not in it is as before.
    Incremental,
}

/// One piece of a node's work.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Definition of a network that tasks of the node are on, or of the ingress network.
    Network(Arc<Network>),
    /// Who is on that network.
    Endpoints(Arc<Endpoints>),
    Secret(Arc<Secret>),
    Config(Arc<Config>),
    Task(Arc<Task>),
    /// No balancer sends anything to this task any more: it may be sent the stop signal.
    Unbound {
        task_id: String,
    },
    /// No longer the node's.
    Remove {
        kind: ItemKind,
        id: String,
    },
}

/// Kinds of what a node is assigned, in the order they are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ItemKind {
    Network,
    Endpoints,
    Secret,
    Config,
    Task,
    Unbound,
}

impl Change {
    /// What it is about: the kind, and the id of the network, file or task.
    #[must_use]
    pub fn key(&self) -> (ItemKind, &str) {
        match self {
            Self::Network(network) => (ItemKind::Network, &network.id),
            Self::Endpoints(endpoints) => (ItemKind::Endpoints, &endpoints.network_id),
            Self::Secret(secret) => (ItemKind::Secret, &secret.id),
            Self::Config(config) => (ItemKind::Config, &config.id),
            Self::Task(task) => (ItemKind::Task, &task.id),
            Self::Unbound { task_id } => (ItemKind::Unbound, task_id),
            Self::Remove { kind, id } => (*kind, id),
        }
    }
}

/// Who is on a network and how its services are reached, complete. The same for every node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    pub network_id: String,
    /// Grows with every change, across leaders too.
    pub version: u64,
    /// UDP port of VXLAN on all nodes.
    pub data_path_port: u16,
    /// Every address in use and the node it is on.
    pub peers: Vec<Peer>,
    pub services: Vec<Balanced>,
    /// Of the ingress network only: the nodes' own addresses on it.
    pub nodes: Vec<NodeAddress>,
    /// Of the ingress network only: ports published on every node.
    pub ports: Vec<PublishedPort>,
}

/// A task's place on a network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Peer {
    pub node_id: String,
    /// At most one per family.
    pub addresses: Vec<IpAddr>,
    /// Where VXLAN packets to its node go.
    pub vtep: IpAddr,
}

/// A node's own place on the ingress network; for others it is a peer too.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeAddress {
    pub node_id: String,
    /// At most one per family.
    pub addresses: Vec<IpNet>,
    /// Where VXLAN packets to it go.
    pub vtep: IpAddr,
}

/// A service on a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balanced {
    pub service_id: String,
    /// Its name and aliases: they give the virtual addresses, or without any the ready backends.
    pub names: Vec<String>,
    /// `tasks.<name>`: always gives the ready backends.
    pub backend_names: Vec<String>,
    /// At most one per family; none with DNS round robin.
    pub virtual_ips: Vec<IpAddr>,
    /// Tasks that run.
    pub backends: Vec<Backend>,
}

/// A task connections go to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Backend {
    pub task_id: String,
    pub node_id: String,
    /// The name of its container.
    pub names: Vec<String>,
    /// At most one per family.
    pub addresses: Vec<IpAddr>,
    pub state: BackendState,
}

/// Whether a backend gets new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendState {
    Ready,
    /// It gets none; those it has go on.
    Draining,
}

/// A port that every node publishes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    pub service_id: String,
    pub published: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    pub target: u16,
    /// With their addresses on the ingress network.
    pub backends: Vec<Backend>,
}
