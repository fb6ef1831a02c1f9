//! What a cluster's store holds. Each object: id, [`Meta`], the user's spec, and what the system made of it. An object
//! in the Raft log or on the wire is JSON of these types; members a reader does not know are refused nowhere, so that
//! managers of two versions can be one cluster during an upgrade.

mod cluster;
mod network;
mod node;
mod payload;
mod service;
mod task;

pub use cluster::{Cluster, RootCa, TokenSecrets};
pub use network::{Network, NetworkSpec, Subnet};
pub use node::{Node, RaftMember};
pub use payload::{Config, Secret};
pub use service::{Endpoint, Rollout, RolloutState, Service, VirtualIp};
pub use task::{Attachment, ContainerStatus, Restarts, Task, TaskStatus};

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// When an object was made and changed. The store writes it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Raft index of the last change.
    pub version: u64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// The kinds of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Cluster,
    Node,
    Service,
    Task,
    Network,
    Secret,
    Config,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Cluster => "cluster",
            Self::Node => "node",
            Self::Service => "service",
            Self::Task => "task",
            Self::Network => "network",
            Self::Secret => "secret",
            Self::Config => "config",
        })
    }
}

/// One object of any kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Object {
    Cluster(Arc<Cluster>),
    Node(Arc<Node>),
    Service(Arc<Service>),
    Task(Arc<Task>),
    Network(Arc<Network>),
    Secret(Arc<Secret>),
    Config(Arc<Config>),
}

macro_rules! each {
    ($object:expr, $inner:ident => $body:expr) => {
        match $object {
            Object::Cluster($inner) => $body,
            Object::Node($inner) => $body,
            Object::Service($inner) => $body,
            Object::Task($inner) => $body,
            Object::Network($inner) => $body,
            Object::Secret($inner) => $body,
            Object::Config($inner) => $body,
        }
    };
}

impl Object {
    /// What it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Cluster(_) => Kind::Cluster,
            Self::Node(_) => Kind::Node,
            Self::Service(_) => Kind::Service,
            Self::Task(_) => Kind::Task,
            Self::Network(_) => Kind::Network,
            Self::Secret(_) => Kind::Secret,
            Self::Config(_) => Kind::Config,
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        each!(self, inner => &inner.id)
    }

    /// When it was made and changed.
    #[must_use]
    pub fn meta(&self) -> Meta {
        each!(self, inner => inner.meta)
    }

    /// The same object with `meta`; for the store only.
    pub fn set_meta(&mut self, meta: Meta) {
        each!(self, inner => Arc::make_mut(inner).meta = meta);
    }

    /// The name that no other object of its kind may have, where the kind has such names. What is being removed has
    /// given its name up.
    #[must_use]
    pub fn unique_name(&self) -> Option<&str> {
        match self {
            Self::Cluster(cluster) => Some(&cluster.spec.annotations.name),
            Self::Service(service) if service.pending_delete => None,
            Self::Network(network) if network.pending_delete => None,
            Self::Service(service) => Some(&service.spec.annotations.name),
            Self::Network(network) => Some(&network.spec.annotations.name),
            Self::Secret(secret) => Some(&secret.spec.annotations.name),
            Self::Config(config) => Some(&config.spec.annotations.name),
            Self::Node(_) | Self::Task(_) => None,
        }
    }
}

macro_rules! from {
    ($($type:ident),*) => {$(
        impl From<$type> for Object {
            fn from(inner: $type) -> Self {
                Self::$type(Arc::new(inner))
            }
        }
        impl From<Arc<$type>> for Object {
            fn from(inner: Arc<$type>) -> Self {
                Self::$type(inner)
            }
        }
    )*};
}
from!(Cluster, Node, Service, Task, Network, Secret, Config);
