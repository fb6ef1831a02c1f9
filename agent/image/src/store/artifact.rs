//! Layers that travel without an image: into a registry beside a configuration that is none, and out of it.

use std::sync::Arc;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::load::Pins;
use super::pull::Download;
use super::{Result, Store};
use crate::digest::Digest;
use crate::manifest::{Descriptor, Manifest, OCI_MANIFEST};
use crate::progress::ProgressSink;
use crate::reference::Reference;
use crate::registry::{Credentials, LayerBlob, Registry, Session};
use crate::store::push::{Push, PushRequest};

/// What an artifact has in place of an image's configuration.
pub struct ArtifactConfig<'a> {
    /// What it is.
    pub media_type: &'a str,
    /// Makes it of how the layers are packed, in the order in which they were given.
    pub make: &'a dyn Fn(&[LayerBlob]) -> Vec<u8>,
}

impl Store {
    /// Pushes layers and a configuration, made of how the layers are packed there, as an OCI artifact. Returns the digest of its manifest. Blocks, and must not be called on a thread of
    /// the registry's runtime.
    ///
    /// # Errors
    /// A layer is not here or damaged, or the registry does not take it.
    pub fn push_artifact(
        &self,
        registry: &Registry,
        request: &PushRequest,
        layers: &[Digest],
        config: &ArtifactConfig<'_>,
        cancel: &CancellationToken,
        progress: ProgressSink<'_>,
    ) -> Result<Digest> {
        let reference = request.reference.clone().with_default_tag();
        let credentials = request.credentials.as_ref();
        let session = registry.writer(&reference, credentials, cancel)?;
        // Nothing of them may be removed while it is being read.
        let pins = Pins::new(self);
        for layer in layers {
            pins.find(layer);
        }
        let repository = reference.repository();
        let push = Push {
            store: self,
            session: &session,
            repository: &repository,
            host: reference.domain(),
            progress,
        };
        let blobs = push.blobs(layers)?;
        let media_type = config.media_type;
        let config = (config.make)(&blobs);
        let digest = Digest::of(&config);
        let descriptor = Descriptor::new(media_type, digest, config.len() as u64);
        if !session.blob_there(&digest)? {
            session.put_blob(&digest, Bytes::from(config), None)?;
        }
        let mut named: Vec<Descriptor> = Vec::new();
        for blob in &blobs {
            if named.iter().all(|known| known.digest != blob.digest) {
                named.push(blob.descriptor());
            }
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: OCI_MANIFEST.to_owned(),
            config: descriptor,
            layers: named,
        };
        let bytes = serde_json::to_vec(&manifest).expect("plain data has a JSON form");
        let name = reference.tag().unwrap_or("latest");
        session.put_manifest(name, OCI_MANIFEST, &bytes)?;
        Ok(Digest::of(&bytes))
    }

    /// Brings layers here that an artifact or image of `reference` has, and keeps them (see [`Store::keep`]), those that are
    /// here already as well. All or nothing. Blocks.
    ///
    /// # Errors
    /// The registry does not have them, or they are not what they should be.
    pub fn fetch_layers(
        &self,
        registry: &Registry,
        reference: &Reference,
        credentials: Option<&Credentials>,
        layers: &[(LayerBlob, Digest)],
        cancel: &CancellationToken,
        progress: ProgressSink<'_>,
    ) -> Result<()> {
        let reference = reference.clone().with_default_tag();
        // Held until they are kept.
        let pins = Pins::new(self);
        let missing = layers
            .iter()
            .any(|(_, diff_id)| pins.find(diff_id).is_none());
        if missing {
            let descriptors: Vec<Descriptor> =
                layers.iter().map(|(blob, _)| blob.descriptor()).collect();
            let pairs: Vec<(&Descriptor, &Digest)> = descriptors
                .iter()
                .zip(layers.iter().map(|(_, diff_id)| diff_id))
                .collect();
            let fetch = |session: &Session<'_>, _| {
                self.fetch(session, &pins, &pairs, Download::Alone, progress)
            };
            let unfinished = registry.at_first(
                &reference,
                credentials,
                cancel,
                |session| session.resolve(),
                fetch,
            )?;
            let alone = unfinished.into_iter().map(|layer| {
                Arc::into_inner(layer).expect("a layer that was downloaded alone is nobody else's")
            });
            let fetched = self.add_kept(alone.collect())?;
            let repository = reference.repository();
            for (blob, diff_id) in layers {
                // Of a layer that was here already nobody has seen the blob.
                if fetched.contains(diff_id) {
                    let form = (blob.digest, blob.size);
                    self.layers
                        .remember_form(diff_id, form, &blob.media_type, &repository);
                }
                self.forget_partial(&blob.digest);
            }
        }
        let diff_ids: Vec<Digest> = layers.iter().map(|(_, diff_id)| *diff_id).collect();
        self.keep(&diff_ids)
    }
}
