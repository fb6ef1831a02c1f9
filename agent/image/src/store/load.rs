//! `load`: images out of an archive, in one pass and without a copy of it on disk.
//!
//! An archive's table of contents usually comes last, so members are judged by their first bytes while they
//! stream by: layers are unpacked at once (see [`archive`]), JSON is kept, and only then the documents are read
//! ([`docker`] for `manifest.json`, [`oci`] for `index.json`; an archive with both is a docker-archive, as in
//! Docker). A member that turns out bad fails the load only if an image needs it. Nothing exists
//! until everything is verified; then all images of the archive appear together.
//!
//! Source of the rules and texts: moby `daemon/internal/image/tarexport/load.go`.

mod archive;
mod docker;
mod oci;

use std::collections::{HashMap, HashSet};
use std::io::Read;

use super::index::Record;
use super::tag::give_name;
use super::{Additions, Durability, Result, Store, release};
use crate::config::ImageConfig;
use crate::digest::{Digest, ImageId};
use crate::error::ImageError;
use crate::manifest::{Descriptor, Manifest, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST};
use crate::progress::{ProgressMessage, ProgressSink};
use crate::reference::Reference;
use archive::{Archive, LayerAt};

/// What a load brought in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The image.
    pub id: ImageId,
    /// The names it carries now because of the load.
    pub tags: Vec<Reference>,
}

/// How to load.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// `os/arch[/variant]`: which image of a multi-platform archive. Default: this machine's, and images for other
    /// machines are loaded, too, where the archive offers no choice.
    pub platform: Option<String>,
}

/// An image found in an archive, everything about it verified.
struct Candidate {
    config: Vec<u8>,
    parsed: ImageConfig,
    layers: Vec<LayerAt>,
    /// The manifest it came with; made up for docker-archives.
    manifest: Option<(String, Vec<u8>)>,
    tags: Vec<Reference>,
    parent: Option<ImageId>,
}

impl Store {
    /// Loads a `docker save` or OCI layout archive, plain, gzip or zstd. All or nothing.
    pub fn load(
        &self,
        input: &mut (dyn Read + Send),
        options: &LoadOptions,
        progress: ProgressSink<'_>,
    ) -> Result<Vec<Loaded>> {
        let pins = Pins::new(self);
        let mut archive = Archive::read(self, &pins, input, progress)?;
        let wanted = options.platform.as_deref();
        let candidates = if archive.has("manifest.json") {
            docker::images(&archive, &self.limits, wanted)?
        } else if archive.has("index.json") {
            oci::images(&archive, &self.limits, wanted)?
        } else if archive.has("repositories") {
            return Err(ImageError::Archive(
                "it is in the format of Docker before 1.10 (repositories, no manifest.json): \
                 save it again with a newer Docker"
                    .to_owned(),
            ));
        } else {
            return Err(ImageError::Archive(
                "does not contain a manifest.json".to_owned(),
            ));
        };
        let mut additions = Additions {
            durability: Durability::Later,
            ..Additions::default()
        };
        let mut taken = HashSet::new();
        for layer in candidates.iter().flat_map(|candidate| &candidate.layers) {
            if let LayerAt::Unfinished(number) = layer
                && taken.insert(*number)
            {
                additions.layers.push(archive.take(*number));
            }
        }
        check_parents(&candidates)?;
        self.adopt(candidates, additions, progress)
    }

    /// Puts verified images into the index.
    fn adopt(
        &self,
        candidates: Vec<Candidate>,
        mut additions: Additions,
        progress: ProgressSink<'_>,
    ) -> Result<Vec<Loaded>> {
        let mut sizes: HashMap<Digest, u64> = additions
            .layers
            .iter()
            .map(|unfinished| (unfinished.layer.diff_id, unfinished.layer.tar_size))
            .collect();
        let mut records = Vec::new();
        for candidate in &candidates {
            let (media_type, manifest) = match &candidate.manifest {
                Some(given) => given.clone(),
                None => {
                    let diff_ids = &candidate.parsed.rootfs.diff_ids;
                    for diff_id in diff_ids {
                        if !sizes.contains_key(diff_id) {
                            sizes.insert(*diff_id, self.layers.get(diff_id)?.tar_size);
                        }
                    }
                    let manifest = plain_manifest(&candidate.config, diff_ids, |id| sizes[id]);
                    (OCI_MANIFEST.to_owned(), manifest)
                }
            };
            records.push(Record {
                media_type,
                manifest: Digest::of(&manifest),
                manifest_size: manifest.len() as u64,
                parent: None,
                last_tagged: None,
            });
            additions.blobs.push(candidate.config.clone());
            additions.blobs.push(manifest);
        }
        let ids: Vec<ImageId> = candidates
            .iter()
            .map(|candidate| ImageId::new(Digest::of(&candidate.config)))
            .collect();
        additions.used.clone_from(&ids);
        let mut messages = Vec::new();
        let (loaded, _) = self.change(additions, |catalog| {
            let mut loaded = Vec::new();
            for ((candidate, record), id) in candidates.iter().zip(records).zip(&ids) {
                catalog.images.entry(*id).or_insert(record);
                for tag in &candidate.tags {
                    if let Some(before) = give_name(catalog, tag.clone(), *id) {
                        messages.push(format!(
                            "The image {} already exists, renaming the old one with ID {before} to empty string",
                            tag.familiar()
                        ));
                    }
                    messages.push(format!("Loaded image: {}", tag.familiar()));
                }
                if candidate.tags.is_empty() {
                    messages.push(format!("Loaded image ID: {id}"));
                }
                loaded.push(Loaded {
                    id: *id,
                    tags: candidate.tags.clone(),
                });
            }
            for (candidate, id) in candidates.iter().zip(&ids) {
                let parent = candidate.parent.filter(|parent| ids.contains(parent) && parent != id);
                if let (Some(parent), Some(record)) = (parent, catalog.images.get_mut(id)) {
                    record.parent = Some(parent);
                }
            }
            Ok(loaded)
        })?;
        for message in messages {
            progress(ProgressMessage::text(message));
        }
        Ok(loaded)
    }
}

/// An image that was made from another has that one's steps and layers first, and more of its own: so no image is its own
/// ancestor (moby `tarexport/load.go:checkValidParent`).
fn check_parents(candidates: &[Candidate]) -> Result<()> {
    let id = |candidate: &Candidate| ImageId::new(Digest::of(&candidate.config));
    for child in candidates {
        let Some(parent) = child.parent else { continue };
        let Some(found) = candidates.iter().find(|other| id(other) == parent) else {
            continue;
        };
        let (own, of) = (&child.parsed, &found.parsed);
        let longer = own.history.len() > of.history.len()
            || own.rootfs.diff_ids.len() > of.rootfs.diff_ids.len();
        let begins = own.history.starts_with(&of.history)
            && own.rootfs.diff_ids.starts_with(&of.rootfs.diff_ids);
        if parent != id(child) && !(longer && begins) {
            return Err(ImageError::Archive(format!(
                "image {parent} is not a valid parent for {}",
                id(child)
            )));
        }
    }
    Ok(())
}

/// The manifest `docker save` writes for an image: OCI, all layers as plain tars.
pub(super) fn plain_manifest(
    config: &[u8],
    diff_ids: &[Digest],
    tar_size: impl Fn(&Digest) -> u64,
) -> Vec<u8> {
    let manifest = Manifest {
        schema_version: 2,
        media_type: OCI_MANIFEST.to_owned(),
        config: Descriptor::new(OCI_CONFIG, Digest::of(config), config.len() as u64),
        layers: diff_ids
            .iter()
            .map(|diff_id| Descriptor::new(OCI_LAYER, *diff_id, tar_size(diff_id)))
            .collect(),
    };
    serde_json::to_vec(&manifest).expect("plain data has a JSON form")
}

/// Layers that must not be removed while a load relies on them. On drop, those that no image came to need go,
/// if an image that had needed them went in the meantime.
pub(super) struct Pins<'a> {
    store: &'a Store,
    pinned: parking_lot::Mutex<HashSet<Digest>>,
}

impl<'a> Pins<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self {
            store,
            pinned: parking_lot::Mutex::default(),
        }
    }

    /// Finds a layer by the digest of its tar or of its compressed form, and pins it.
    pub(super) fn find(&self, blob: &Digest) -> Option<Digest> {
        let mut users = self.store.pinned.lock();
        let diff_id = self.store.layers.find_blob(blob)?;
        if self.pinned.lock().insert(diff_id) {
            *users.entry(diff_id).or_default() += 1;
        }
        Some(diff_id)
    }

    /// Pins a layer that need not be here yet.
    pub(super) fn reserve(&self, diff_id: &Digest) {
        let mut users = self.store.pinned.lock();
        if self.pinned.lock().insert(*diff_id) {
            *users.entry(*diff_id).or_default() += 1;
        }
    }
}

impl Drop for Pins<'_> {
    fn drop(&mut self) {
        let pinned = self.pinned.get_mut();
        if pinned.is_empty() {
            return;
        }
        let mut users = self.store.pinned.lock();
        for diff_id in pinned.iter() {
            release(&mut users, diff_id);
        }
        drop(users);
        if let Err(error) = self.store.collect(pinned) {
            tracing::warn!(%error, "cannot look for layers that are no longer needed");
        }
    }
}
