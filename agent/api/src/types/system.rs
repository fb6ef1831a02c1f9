//! The daemon itself: version, info, disk usage.

use super::lenient::null_default;
use super::{ContainerSummary, ImageSummary, Labels, Volume};
use serde::{Deserialize, Serialize};

/// Reply of `GET /version`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VersionResponse {
    pub platform: PlatformName,
    #[serde(deserialize_with = "null_default")]
    pub components: Vec<ComponentVersion>,
    pub version: String,
    pub api_version: String,
    #[serde(rename = "MinAPIVersion")]
    pub min_api_version: String,
    pub git_commit: String,
    pub go_version: String,
    pub os: String,
    pub arch: String,
    pub kernel_version: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub experimental: bool,
    pub build_time: String,
}

/// Name of the product.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PlatformName {
    pub name: String,
}

/// Version of one part.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ComponentVersion {
    pub name: String,
    pub version: String,
    pub details: Option<Labels>,
}

/// Reply of `GET /info`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SystemInfo {
    #[serde(rename = "ID")]
    pub id: String,
    pub containers: i64,
    pub containers_running: i64,
    pub containers_paused: i64,
    pub containers_stopped: i64,
    pub images: i64,
    pub driver: String,
    #[serde(deserialize_with = "null_default")]
    pub driver_status: Vec<[String; 2]>,
    pub plugins: PluginsInfo,
    pub memory_limit: bool,
    pub swap_limit: bool,
    /// Only with cgroup v1.
    #[serde(rename = "KernelMemoryTCP", skip_serializing_if = "std::ops::Not::not")]
    pub kernel_memory_tcp: bool,
    pub cpu_cfs_period: bool,
    pub cpu_cfs_quota: bool,
    #[serde(rename = "CPUShares")]
    pub cpu_shares: bool,
    #[serde(rename = "CPUSet")]
    pub cpu_set: bool,
    pub pids_limit: bool,
    #[serde(rename = "IPv4Forwarding")]
    pub ipv4_forwarding: bool,
    pub debug: bool,
    #[serde(rename = "NFd")]
    pub n_fd: i64,
    pub oom_kill_disable: bool,
    pub n_goroutines: i64,
    pub system_time: String,
    pub logging_driver: String,
    pub cgroup_driver: String,
    pub cgroup_version: String,
    pub n_events_listener: i64,
    pub kernel_version: String,
    pub operating_system: String,
    #[serde(rename = "OSVersion")]
    pub os_version: String,
    #[serde(rename = "OSType")]
    pub os_type: String,
    pub architecture: String,
    pub index_server_address: String,
    pub registry_config: Option<serde_json::Value>,
    #[serde(rename = "NCPU")]
    pub ncpu: i64,
    pub mem_total: i64,
    pub generic_resources: Option<serde_json::Value>,
    pub docker_root_dir: String,
    pub http_proxy: String,
    pub https_proxy: String,
    pub no_proxy: String,
    pub name: String,
    #[serde(deserialize_with = "null_default")]
    pub labels: Vec<String>,
    pub experimental_build: bool,
    pub server_version: String,
    pub runtimes: Option<serde_json::Value>,
    pub default_runtime: String,
    pub swarm: super::swarm::Info,
    pub live_restore_enabled: bool,
    pub isolation: String,
    pub init_binary: String,
    pub containerd_commit: serde_json::Value,
    pub runc_commit: serde_json::Value,
    pub init_commit: serde_json::Value,
    #[serde(deserialize_with = "null_default")]
    pub security_options: Vec<String>,
    /// `{"Driver": "nftables"}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firewall_backend: Option<serde_json::Value>,
    #[serde(rename = "CDISpecDirs", deserialize_with = "null_default")]
    pub cdi_spec_dirs: Vec<String>,
    pub warnings: Option<Vec<String>>,
}

/// Drivers by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PluginsInfo {
    pub volume: Option<Vec<String>>,
    pub network: Option<Vec<String>>,
    pub authorization: Option<Vec<String>>,
    pub log: Option<Vec<String>>,
}

/// Reply of `GET /system/prune`, which only this engine has: what `system prune` would remove.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PrunePreview {
    pub containers: Vec<PruneTarget>,
    /// Names.
    pub networks: Vec<String>,
    /// Only if volumes were asked for.
    pub volumes: Vec<PruneTarget>,
    /// Names and images that would go, in order; their layers are not listed.
    pub images: Vec<super::image::ImageDeleteItem>,
    /// Bytes of the layers that would go.
    pub image_bytes: u64,
}

/// A container or volume that would go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PruneTarget {
    /// Of a container; volumes have names only.
    pub id: String,
    pub name: String,
    /// Of its files.
    pub bytes: u64,
}

/// Reply of `GET /system/df/explain`, which only this engine has: every byte below the data root and whose it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DiskExplanation {
    /// The data root.
    pub root: String,
    /// Bytes the file system gave out, as `du` counts them.
    pub bytes: u64,
    /// Inodes.
    pub files: u64,
    /// Owners; their bytes add up to `bytes`.
    pub parts: Vec<DiskPart>,
    /// The images and what their layers take.
    pub images: Vec<ExplainedImage>,
}

/// One owner of disk space.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DiskPart {
    /// `layer`, `container log`, `unknown` …
    pub kind: String,
    /// Which one: a digest, an id, a path; empty where there is but one.
    pub name: String,
    /// Bytes the file system gave out.
    pub bytes: u64,
    /// Inodes.
    pub files: u64,
    /// Who needs it: ids of images, names or ids of containers.
    pub users: Vec<String>,
}

/// What an image takes on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ExplainedImage {
    pub id: String,
    /// Names with a tag.
    pub tags: Vec<String>,
    /// Of all its layers.
    pub bytes: u64,
    /// Of layers that no other image has.
    pub unique_bytes: u64,
    /// RFC 3339; absent when it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_used: Option<String>,
    /// Containers made from it.
    pub containers: u64,
}

/// Reply of `GET /system/df`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DiskUsage {
    pub layers_size: i64,
    #[serde(deserialize_with = "null_default")]
    pub images: Vec<ImageSummary>,
    #[serde(deserialize_with = "null_default")]
    pub containers: Vec<ContainerSummary>,
    #[serde(deserialize_with = "null_default")]
    pub volumes: Vec<Volume>,
    #[serde(deserialize_with = "null_default")]
    pub build_cache: Vec<super::build::BuildCacheRecord>,
}
