//! What a registry holds that is no image: a configuration of some media type, with layers. Written as an OCI manifest (OCI
//! image-spec `artifacts-guidance.md`); read as that, as an index whose entries are blobs (BuildKit before 0.21), or out of
//! the configuration of an image.

use agent_build::go_json;
use agent_build::plan::Platform;
use tokio_util::sync::CancellationToken;

use super::error::RegistryError;
use super::{Credentials, Registry, Session};
use crate::digest::Digest;
use crate::manifest::{Descriptor, Index, Manifest};
use crate::reference::Reference;

/// A layer as a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerBlob {
    /// Of the blob.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// How it is packed.
    pub media_type: String,
}

/// A configuration that was found, and the layers beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Media type of the configuration: the one asked for, or an image's.
    pub config_type: String,
    /// The configuration.
    pub config: Vec<u8>,
    /// The layers, in the manifest's order.
    pub layers: Vec<LayerBlob>,
}

impl LayerBlob {
    pub(crate) fn descriptor(&self) -> Descriptor {
        Descriptor::new(&self.media_type, self.digest, self.size)
    }
}

impl From<&Descriptor> for LayerBlob {
    fn from(descriptor: &Descriptor) -> Self {
        Self {
            digest: descriptor.digest,
            size: descriptor.size,
            media_type: descriptor.media_type.clone(),
        }
    }
}

impl Registry {
    /// Fetches the artifact with a configuration of type `config_type`, or the image for a platform, that `reference` names.
    /// Blocks.
    ///
    /// # Errors
    /// The registry has no such thing, or cannot be reached.
    pub fn artifact(
        &self,
        reference: &Reference,
        config_type: &str,
        platform: Option<&Platform>,
        credentials: Option<&Credentials>,
        cancel: &CancellationToken,
    ) -> Result<Artifact, RegistryError> {
        let reference = reference.clone().with_default_tag();
        let ask = |session: &Session<'_>| session.artifact(config_type, platform);
        self.at_first(&reference, credentials, cancel, ask, |_, artifact| {
            Ok(artifact)
        })
    }
}

impl Session<'_> {
    fn artifact(
        &self,
        config_type: &str,
        platform: Option<&Platform>,
    ) -> Result<Artifact, RegistryError> {
        let found = self.resolve()?;
        let wrong = |error: serde_json::Error| self.protocol(&found.digest.to_string(), error);
        let (config, layers) = if found.is_index() {
            let index: Index = go_json::from_slice(&found.bytes).map_err(wrong)?;
            let (config, layers): (Vec<_>, Vec<_>) = index
                .manifests
                .into_iter()
                .partition(|entry| entry.media_type == config_type);
            match config.into_iter().next() {
                Some(config) => (config, layers),
                None => self.image_parts(&found, platform)?,
            }
        } else {
            let manifest: Manifest = go_json::from_slice(&found.bytes).map_err(wrong)?;
            match manifest.config.media_type == config_type {
                true => (manifest.config, manifest.layers),
                false => self.image_parts(&found, platform)?,
            }
        };
        Ok(Artifact {
            config: self.small_blob(&config)?,
            config_type: config.media_type,
            layers: layers.iter().map(LayerBlob::from).collect(),
        })
    }

    fn image_parts(
        &self,
        found: &super::Found,
        platform: Option<&Platform>,
    ) -> Result<(Descriptor, Vec<Descriptor>), RegistryError> {
        let (_, manifest) = self.image(found, platform)?;
        Ok((manifest.config, manifest.layers))
    }
}
