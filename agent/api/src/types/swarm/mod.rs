//! Objects of swarm mode: what a user asks for (specs) and how the API shows what became of it. The specs are the very
//! values a cluster stores, so that nothing is lost or invented between a client and the managers.
//! Shapes: moby `api/types/swarm`.

mod cluster;
pub mod gate;
mod network;
mod node;
mod payload;
mod service;
mod task;
mod views;

pub use cluster::*;
pub use network::*;
pub use node::*;
pub use payload::*;
pub use service::*;
pub use task::*;
pub use views::*;

use serde::{Deserialize, Serialize};

use super::Labels;

/// Name and labels, part of every spec.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Annotations {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(deserialize_with = "super::lenient::null_default")]
    pub labels: Labels,
}

/// Which version of an object a client saw; an update must name it.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "PascalCase", default)]
pub struct ObjectVersion {
    /// Raft index of the last change.
    pub index: u64,
}

/// A pluggable part by name, with its options.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Driver {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(
        skip_serializing_if = "Labels::is_empty",
        deserialize_with = "super::lenient::null_default"
    )]
    pub options: Labels,
}
