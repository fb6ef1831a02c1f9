//! How an image is built.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::record::{Absent, record};
use super::{Bytes, ExtraHosts, FileReference, Text, Ulimit};

record! {
    /// `build` of a service.
    pub struct Build {
        /// Absolute path of the context, or a URL.
        pub context: Option<String>,
        /// Dockerfile, relative to the context.
        pub dockerfile: Option<String>,
        /// The Dockerfile itself; excludes `dockerfile`.
        pub dockerfile_inline: Option<String>,
        /// Extra privileges the build may use.
        pub entitlements: Vec<String>,
        /// Build arguments; `None` = named without a value and not set outside either.
        pub args: BTreeMap<String, Option<String>>,
        /// Provenance attestation: a boolean or parameters.
        pub provenance: Option<Text>,
        /// SBOM attestation: a boolean or parameters.
        pub sbom: Option<Text>,
        /// SSH agents and keys offered to the build.
        pub ssh: SshKeys,
        /// Image labels.
        pub labels: BTreeMap<String, String>,
        /// Cache sources.
        pub cache_from: Vec<String>,
        /// Cache destinations.
        pub cache_to: Vec<String>,
        /// Do not use the cache.
        pub no_cache: bool,
        /// Stages that do not use the cache.
        pub no_cache_filter: Vec<String>,
        /// Named contexts: path, URL, `service:NAME`.
        pub additional_contexts: BTreeMap<String, String>,
        /// Always pull base images.
        pub pull: bool,
        /// Additional lines of `/etc/hosts` during the build.
        pub extra_hosts: ExtraHosts,
        /// Isolation technology (Windows).
        pub isolation: Option<String>,
        /// Network of RUN steps.
        pub network: Option<String>,
        /// Stage to build.
        pub target: Option<String>,
        /// Secrets available to RUN steps.
        pub secrets: Vec<FileReference>,
        /// Size of `/dev/shm` during the build.
        pub shm_size: Option<Bytes>,
        /// Additional tags.
        pub tags: Vec<String>,
        /// Resource limits by name.
        pub ulimits: BTreeMap<String, Ulimit>,
        /// Platforms to build for.
        pub platforms: Vec<String>,
        /// Run the build with all privileges.
        pub privileged: bool,
    }
}

/// `build.ssh`: id → path; no path = the user's agent. Written back as a list `id` or `id=path`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SshKeys(pub BTreeMap<String, Option<String>>);

impl Absent for SshKeys {
    fn is_absent(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for SshKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BTreeMap::deserialize(deserializer).map(SshKeys)
    }
}

impl Serialize for SshKeys {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|(id, path)| match path {
            Some(path) => format!("{id}={path}"),
            None => id.clone(),
        }))
    }
}
