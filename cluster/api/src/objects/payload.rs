//! Small files that belong to the cluster.

use agent_api::swarm::{ConfigSpec, SecretSpec};
use serde::{Deserialize, Serialize};

use super::Meta;

/// A file only tasks that refer to it ever see.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    pub id: String,
    pub meta: Meta,
    pub spec: SecretSpec,
}

/// A file anyone with access to the API may read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    pub id: String,
    pub meta: Meta,
    pub spec: ConfigSpec,
}
