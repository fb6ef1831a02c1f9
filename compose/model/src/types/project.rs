//! The project: everything a set of Compose files says, ready to be planned.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Config, ModelConfig, Network, Secret, ServiceConfig, Volume};

/// `x-*` keys and their values.
pub type Extensions = BTreeMap<String, serde_json::Value>;

/// A loaded project. Maps are ordered by name, so that two loads of the same files are equal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Project {
    /// Project name: `[a-z0-9][a-z0-9_-]*`.
    pub name: String,
    /// Active services by name.
    pub services: BTreeMap<String, ServiceConfig>,
    /// Networks by key; includes the implicit `default` when a service uses it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub networks: BTreeMap<String, Network>,
    /// Named volumes by key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Volume>,
    /// Secrets by key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, Secret>,
    /// Configs by key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub configs: BTreeMap<String, Config>,
    /// AI models by key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<String, ModelConfig>,
    /// Top-level `x-*` keys.
    #[serde(flatten)]
    pub extensions: Extensions,
    /// Services switched off by profiles or not selected, by name.
    #[serde(skip)]
    pub disabled_services: BTreeMap<String, ServiceConfig>,
    /// The directory relative paths start from.
    #[serde(skip)]
    pub working_dir: PathBuf,
    /// The files of the project (`-f` order), absolute; `-` is standard input.
    #[serde(skip)]
    pub compose_files: Vec<PathBuf>,
    /// The env files used for interpolation, absolute.
    #[serde(skip)]
    pub env_files: Vec<PathBuf>,
    /// The environment used for interpolation: process, env files, `COMPOSE_PROJECT_NAME`. Never print it.
    #[serde(skip)]
    pub environment: BTreeMap<String, String>,
    /// Active profiles.
    #[serde(skip)]
    pub profiles: Vec<String>,
}

impl Project {
    /// A service by name, active or disabled.
    pub fn any_service(&self, name: &str) -> Option<&ServiceConfig> {
        self.services
            .get(name)
            .or_else(|| self.disabled_services.get(name))
    }
}
