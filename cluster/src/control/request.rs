//! What clients ask for that changes the cluster, as bytes too: a follower hands a request to the leader unread.

use agent_api::swarm::{ConfigSpec, NodeSpec, PullOptions, SecretSpec, ServiceSpec, SwarmSpec};
use cluster_api::NetworkSpec;
use serde::{Deserialize, Serialize};

/// A change a client asks for. Objects are named by id, name, or the beginning of an id, as a user types them; a
/// version is the one the client saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    SwarmUpdate {
        version: u64,
        spec: Box<SwarmSpec>,
        rotate: TokenRotation,
    },
    NodeUpdate {
        node: String,
        version: u64,
        spec: NodeSpec,
    },
    NodeRemove {
        node: String,
        /// Though it answers.
        force: bool,
    },
    ServiceCreate {
        spec: Box<ServiceSpec>,
        /// For the registry of its image.
        auth: Option<PullOptions>,
    },
    ServiceUpdate {
        service: String,
        version: u64,
        spec: Box<ServiceSpec>,
        auth: RegistryAuth,
    },
    /// Back to the spec before the last update; what the client sent as spec does not matter.
    ServiceRollback {
        service: String,
        version: u64,
    },
    ServiceRemove {
        service: String,
    },
    SecretCreate {
        spec: SecretSpec,
    },
    SecretUpdate {
        secret: String,
        version: u64,
        spec: SecretSpec,
    },
    SecretRemove {
        secret: String,
    },
    ConfigCreate {
        spec: ConfigSpec,
    },
    ConfigUpdate {
        config: String,
        version: u64,
        spec: ConfigSpec,
    },
    ConfigRemove {
        config: String,
    },
    NetworkCreate {
        spec: Box<NetworkSpec>,
    },
    NetworkRemove {
        network: String,
    },
}

/// Which join tokens are replaced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TokenRotation {
    pub worker: bool,
    pub manager: bool,
}

/// Where the credentials for the registry come from when a service is updated.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegistryAuth {
    /// Those of the spec that is replaced stay.
    #[default]
    Spec,
    /// Those of the spec before that.
    PreviousSpec,
    /// These.
    Given(PullOptions),
}

/// What a client gets when its request was carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    Done,
    /// The id of what was made.
    Created(String),
}

macro_rules! bytes {
    ($type:ty) => {
        impl $type {
            /// For the wire.
            #[must_use]
            pub fn encode(&self) -> Vec<u8> {
                serde_json::to_vec(self).expect("maps of requests and replies have text keys")
            }

            /// What [`Self::encode`] wrote.
            ///
            /// # Errors
            ///
            /// The bytes are something else.
            pub fn decode(bytes: &[u8]) -> serde_json::Result<Self> {
                serde_json::from_slice(bytes)
            }
        }
    };
}
bytes!(Request);
bytes!(Reply);
bytes!(super::Refusal);
