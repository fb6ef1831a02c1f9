//! How tasks and services are attached to networks.

use serde::{Deserialize, Serialize};

use super::super::Labels;
use super::super::lenient::null_default;

/// A network a task is to be on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkAttachmentConfig {
    /// Name or id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// More names of the service there.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_default"
    )]
    pub aliases: Vec<String>,
    #[serde(
        skip_serializing_if = "Labels::is_empty",
        deserialize_with = "null_default"
    )]
    pub driver_opts: Labels,
}
