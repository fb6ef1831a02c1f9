//! The build cache as `GET /system/df` lists it and `POST /build/prune` takes from it. Source: moby `api/types/build`.

use crate::types::lenient::null_default;
use serde::{Deserialize, Serialize};

/// One record of the build cache.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct BuildCacheRecord {
    /// Identity.
    #[serde(rename = "ID")]
    pub id: String,
    /// Records it was made from.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_default"
    )]
    pub parents: Vec<String>,
    /// `regular`, `source.local`, `source.git.checkout`, `exec.cachemount`, `frontend`, `internal`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// Name of the step.
    pub description: String,
    /// A build uses it now.
    pub in_use: bool,
    /// An image has it too: removing it gives nothing back.
    pub shared: bool,
    /// Bytes.
    pub size: i64,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339, absent when it never was.
    pub last_used_at: Option<String>,
    /// Builds that used it.
    pub usage_count: i64,
}

/// Reply of `POST /build/prune`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct BuildPruneResponse {
    /// Ids of the records that are gone.
    #[serde(deserialize_with = "null_default")]
    pub caches_deleted: Vec<String>,
    /// Bytes.
    pub space_reclaimed: u64,
}
