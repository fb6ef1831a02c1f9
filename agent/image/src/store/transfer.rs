//! Images from one store to another, without a registry: the sender offers blobs by digest, the receiver takes only what
//! it lacks and believes nothing that does not have its digest.
//!
//! A blob is a manifest, a configuration or a layer's plain tar (its digest is the diff id). How the bytes travel is the
//! caller's matter ([`BlobSource`]).

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, Read, Write};

use agent_build::go_json;
use tokio_util::sync::CancellationToken;

use super::index::Record;
use super::load::Pins;
use super::tag::give_name;
use super::workers::all_at_once;
use super::{Additions, Durability, Result, Store};
use crate::config::ImageConfig;
use crate::digest::{Digest, ImageId};
use crate::error::ImageError;
use crate::layers::{Unfinished, UnpackError};
use crate::manifest::Manifest;
use crate::reference::Reference;

/// Layers on their way at once.
const PARALLEL: usize = 3;
/// Bytes of a manifest or configuration.
const DOCUMENT_MAX: u64 = 8 << 20;
/// Enough of a layer to tell its compression.
const HEAD_BYTES: u64 = 512;

/// What a store has under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The image.
    pub id: ImageId,
    /// Of the manifest, a blob that can be asked for.
    pub manifest: Digest,
    /// Its length in bytes.
    pub manifest_size: u64,
    /// `application/vnd.oci.image.manifest.v1+json` or Docker's.
    pub media_type: String,
    /// `os/architecture[/variant]`.
    pub platform: String,
}

/// What [`Store::receive`] takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accept {
    /// Images for any machine.
    Any,
    /// Images whose containers run on this one.
    Runnable,
}

/// The other store's blobs.
pub trait BlobSource: Sync {
    /// Opens a blob from its beginning.
    ///
    /// # Errors
    /// Nobody has it, or nobody can be reached.
    fn open(&self, blob: &Digest) -> io::Result<Box<dyn Read + Send + '_>>;
}

impl Store {
    /// What [`Store::receive`] of another store needs to begin.
    ///
    /// # Errors
    /// The name stands for no image.
    pub fn offer(&self, name: &str) -> Result<Offer> {
        let id = self.resolve(name)?;
        let catalog = self.snapshot();
        let record = catalog
            .images
            .get(&id)
            .ok_or_else(|| ImageError::NoSuchImage(name.to_owned()))?;
        Ok(Offer {
            id,
            manifest: record.manifest,
            manifest_size: record.manifest_size,
            media_type: record.media_type.clone(),
            platform: self.config(&id)?.platform(),
        })
    }

    /// Length of a blob that [`Store::write_blob`] can write; `None`: it is not here.
    pub fn blob_size(&self, blob: &Digest) -> Option<u64> {
        if let Ok(layer) = self.layers.get(blob) {
            return Some(layer.tar_size);
        }
        let size = self.content.get(blob).ok()?.len();
        self.snapshot()
            .images
            .iter()
            .any(|(id, record)| id.digest() == blob || record.manifest == *blob)
            .then_some(size as u64)
    }

    /// Writes a blob from `offset` on.
    ///
    /// # Errors
    /// It is not here, is damaged, or the output fails.
    pub fn write_blob(&self, blob: &Digest, offset: u64, output: &mut dyn Write) -> Result<()> {
        let mut output = Skip {
            left: offset,
            output,
        };
        if self.layers.contains(blob) {
            // No removal takes it away meanwhile.
            let pins = Pins::new(self);
            pins.find(blob);
            return self.layers.write_tar(blob, &mut output);
        }
        if self.blob_size(blob).is_none() {
            return Err(ImageError::NoSuchImage(blob.to_string()));
        }
        output
            .write_all(&self.content.get(blob)?)
            .map_err(ImageError::Output)
    }

    /// Takes an image over under a name. All or nothing; cancelling leaves nothing behind. Everything is verified: the
    /// manifest by the digest asked for, the configuration by the manifest, each layer by the configuration. A name with
    /// a digest takes that manifest only: whoever offers another one may be lying about what an index leads to. Blocks.
    ///
    /// # Errors
    /// A blob cannot be had, is not what its digest says, or is beyond the store's limits; the image is not what the name
    /// is pinned to, or not `accept`ed.
    pub fn receive(
        &self,
        name: &Reference,
        manifest: &Digest,
        accept: Accept,
        source: &dyn BlobSource,
        cancel: &CancellationToken,
    ) -> Result<ImageId> {
        if let Some(pinned) = name.digest()
            && pinned != manifest
        {
            return Err(ImageError::Archive(format!(
                "{} was offered with the manifest {manifest}, which is not what its name is pinned to",
                name.familiar()
            )));
        }
        let name = name.clone().with_default_tag();
        let manifest_bytes = document(source, manifest)?;
        let parsed: Manifest = go_json::from_slice(&manifest_bytes)
            .map_err(|error| ImageError::Archive(format!("manifest {manifest}: {error}")))?;
        let id = ImageId::new(parsed.config.digest);
        let config_bytes = document(source, &parsed.config.digest)?;
        let config = ImageConfig::from_json(&config_bytes)
            .map_err(|error| ImageError::Archive(format!("configuration {id}: {error}")))?;
        config
            .check_history()
            .map_err(|what| ImageError::Archive(format!("configuration {id}: {what}")))?;
        if accept == Accept::Runnable {
            config.check_platform()?;
        }
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() > self.limits.layers {
            return Err(ImageError::Archive(format!(
                "{} has {} layers, at most {} are possible",
                name.familiar(),
                diff_ids.len(),
                self.limits.layers
            )));
        }
        // Held until the image is in the index.
        let pins = Pins::new(self);
        let missing: BTreeSet<Digest> = diff_ids
            .iter()
            .filter(|diff_id| pins.find(diff_id).is_none())
            .copied()
            .collect();
        let additions = Additions {
            layers: self.take_layers(missing, source, cancel)?,
            blobs: vec![config_bytes, manifest_bytes.clone()],
            used: vec![id],
            durability: Durability::Later,
            ..Additions::default()
        };
        let record = Record {
            media_type: parsed.media_type,
            manifest: *manifest,
            manifest_size: manifest_bytes.len() as u64,
            parent: None,
            last_tagged: None,
        };
        self.change(additions, |catalog| {
            catalog.images.entry(id).or_insert(record);
            if catalog.names.get(&name) != Some(&id) {
                give_name(catalog, name.clone(), id);
            }
            Ok(())
        })?;
        Ok(id)
    }

    fn take_layers(
        &self,
        missing: BTreeSet<Digest>,
        source: &dyn BlobSource,
        cancel: &CancellationToken,
    ) -> Result<Vec<Unfinished>> {
        // The others' layers are in vain once one fails.
        let cancel = cancel.child_token();
        all_at_once(
            VecDeque::from_iter(missing),
            PARALLEL,
            || cancel.cancel(),
            |diff_id| self.take_layer(&diff_id, source, &cancel),
        )
    }

    fn take_layer(
        &self,
        diff_id: &Digest,
        source: &dyn BlobSource,
        cancel: &CancellationToken,
    ) -> Result<Unfinished> {
        let machine = |source| ImageError::Layer {
            layer: diff_id.to_string(),
            source: UnpackError::Machine {
                path: diff_id.short().into(),
                source,
            },
        };
        let mut reader = Cancellable {
            inner: source.open(diff_id).map_err(machine)?,
            cancel,
        };
        let mut head = Vec::new();
        (&mut reader)
            .take(HEAD_BYTES)
            .read_to_end(&mut head)
            .map_err(machine)?;
        let (unfinished, _) =
            self.layers
                .ingest(&head, &mut reader, &|_| {})
                .map_err(|source| ImageError::Layer {
                    layer: diff_id.to_string(),
                    source,
                })?;
        let actual = unfinished.layer.diff_id;
        if actual == *diff_id {
            Ok(unfinished)
        } else {
            Err(ImageError::Archive(format!(
                "layer {diff_id} came with the content of {actual}"
            )))
        }
    }
}

/// A manifest or configuration, verified.
fn document(source: &dyn BlobSource, blob: &Digest) -> Result<Vec<u8>> {
    let failed = |error: io::Error| ImageError::Archive(format!("{blob}: {error}"));
    let mut bytes = Vec::new();
    source
        .open(blob)
        .map_err(failed)?
        .take(DOCUMENT_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > DOCUMENT_MAX {
        return Err(ImageError::Archive(format!(
            "{blob} is longer than {DOCUMENT_MAX} bytes"
        )));
    }
    let actual = Digest::of(&bytes);
    if actual == *blob {
        Ok(bytes)
    } else {
        Err(ImageError::Archive(format!(
            "{blob} came with the content of {actual}"
        )))
    }
}

/// Passes on what comes after the first bytes.
struct Skip<'a> {
    left: u64,
    output: &'a mut dyn Write,
}

impl Write for Skip<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let skipped = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
        self.left -= skipped as u64;
        self.output.write_all(&bytes[skipped..])?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

/// Ends with an error once cancelled.
struct Cancellable<'a, R> {
    inner: R,
    cancel: &'a CancellationToken,
}

impl<R: Read> Read for Cancellable<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other("cancelled"));
        }
        self.inner.read(buffer)
    }
}
