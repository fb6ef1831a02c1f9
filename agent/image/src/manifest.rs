//! The JSON documents around an image configuration: OCI manifest and index, and their Docker twins
//! (OCI image-spec `manifest.md`, `image-index.md`; distribution `manifest-v2-2.md`), and the `manifest.json` of docker-archives. All are read with
//! [`agent_build::go_json`].

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(crate) const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
pub(crate) const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
pub(crate) const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// Full name of the image (containerd).
pub(crate) const ANNOTATION_NAME: &str = "io.containerd.image.name";
/// Tag, or whatever the writer calls the image (OCI).
pub(crate) const ANNOTATION_REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Set on manifests that are no images: build attestations (BuildKit).
const ANNOTATION_REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// Points to a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub(crate) annotations: IndexMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
}

/// What an image runs on, as a descriptor says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Platform {
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) os: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) variant: String,
}

impl From<&Platform> for agent_build::plan::Platform {
    fn from(platform: &Platform) -> Self {
        Self {
            os: platform.os.clone(),
            architecture: platform.architecture.clone(),
            variant: platform.variant.clone(),
        }
    }
}

/// Configuration and layers of one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    #[serde(default)]
    pub(crate) schema_version: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) media_type: String,
    pub(crate) config: Descriptor,
    #[serde(default)]
    pub(crate) layers: Vec<Descriptor>,
}

/// Manifests, of several images or of several platforms of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    #[serde(default)]
    pub(crate) schema_version: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) media_type: String,
    #[serde(default)]
    pub(crate) manifests: Vec<Descriptor>,
}

/// One image of a docker-archive's `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ArchiveItem {
    /// Member with the configuration.
    pub(crate) config: String,
    /// Names; Docker writes `null` for none.
    pub(crate) repo_tags: Option<Vec<String>>,
    /// Members with the layers, bottom first.
    #[serde(default)]
    pub(crate) layers: Vec<String>,
    /// Id of the parent image, if that is in the archive, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<Digest>,
    /// Descriptors of the layers by diff id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) layer_sources: BTreeMap<Digest, LayerSource>,
}

/// A descriptor with its members in the order in which docker-archives have them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LayerSource {
    #[serde(default)]
    pub(crate) media_type: String,
    #[serde(default)]
    pub(crate) size: u64,
    pub(crate) digest: Digest,
}

impl Descriptor {
    pub(crate) fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            annotations: IndexMap::new(),
            platform: None,
        }
    }

    pub(crate) fn is_index(&self) -> bool {
        matches!(&*self.media_type, OCI_INDEX | DOCKER_LIST)
    }

    pub(crate) fn is_manifest(&self) -> bool {
        matches!(&*self.media_type, OCI_MANIFEST | DOCKER_MANIFEST)
    }

    pub(crate) fn is_config(&self) -> bool {
        matches!(&*self.media_type, OCI_CONFIG | DOCKER_CONFIG)
    }

    /// Build attestations travel in the index of their image without being one.
    pub(crate) fn is_attestation(&self) -> bool {
        self.annotations.contains_key(ANNOTATION_REFERENCE_TYPE)
            || self.platform.as_ref().is_some_and(|p| p.os == "unknown")
    }
}
