//! What a cluster holds of one stack: plain data, the planner's second input.

use std::collections::{BTreeMap, BTreeSet};

use agent_api::Network;
use agent_api::swarm::{ObjectVersion, Platform, Service};

/// Everything in the cluster that a plan for one stack looks at.
#[derive(Clone, Debug, Default)]
pub struct ObservedStack {
    /// Services of the stack, by name.
    pub services: BTreeMap<String, Service>,
    /// All networks the manager knows, by name.
    pub networks: BTreeMap<String, Network>,
    /// All secrets, by name.
    pub secrets: BTreeMap<String, ObservedPayload>,
    /// All configs, by name.
    pub configs: BTreeMap<String, ObservedPayload>,
    /// Images that were looked up, by the reference the file uses.
    pub images: BTreeMap<String, ResolvedImage>,
}

/// A secret or config.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedPayload {
    /// Its id.
    pub id: String,
    /// The version that was seen.
    pub version: ObjectVersion,
    /// Stack that its labels name.
    pub stack: Option<String>,
    /// Key in the file that its labels name.
    pub key: Option<String>,
    /// Names of services outside the stack that refer to it, or would after a rollback.
    pub other_users: BTreeSet<String>,
}

/// What a look at an image gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResolvedImage {
    /// The reference with its digest, and the platforms it is made for.
    Pinned {
        /// `name:tag@sha256:…`.
        reference: String,
        /// Platforms; empty when nothing tells.
        platforms: Vec<Platform>,
    },
    /// No registry knows it, but the daemon has it: nodes fetch it from each other.
    Local,
    /// It could not be looked up: why.
    Unknown(String),
}
