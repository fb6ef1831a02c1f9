//! `save`: images as one tar that is both a docker-archive and an OCI layout, written as a stream.
//!
//! Members, their order and their bytes are Docker 28's (moby `daemon/internal/image/tarexport/save.go`), except that the
//! configurations for Docker before 1.10 are left out. Layers are plain tars, bit for bit as they came.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use indexmap::IndexMap;

use super::index::Catalog;
use super::inspect::resolve;
use super::load::plain_manifest;
use super::{HeldFor, Hold, Result, Store};
use crate::digest::{Digest, ImageId};
use crate::error::ImageError;
use crate::manifest::{
    ArchiveItem, Descriptor, Index, LayerSource, OCI_INDEX, OCI_LAYER, OCI_MANIFEST,
};
use crate::reference::Reference;

/// A blob of the archive.
enum Blob {
    Bytes(Vec<u8>),
    Layer { size: u64 },
}

/// Images that are to be saved, as they were called when they were chosen. Nothing of them is removed before this is dropped.
#[must_use]
pub struct Selection {
    catalog: Arc<Catalog>,
    /// With the names that are written.
    images: IndexMap<ImageId, Vec<Reference>>,
    _holds: Vec<Hold>,
}

impl Selection {
    /// The images, in the order in which they were first named.
    pub fn ids(&self) -> impl Iterator<Item = &ImageId> {
        self.images.keys()
    }
}

impl Store {
    /// The images that these names mean. A name without tag means all its tags; an id saves the image without name.
    ///
    /// # Errors
    /// A name means no image.
    pub fn select(&self, names: &[&str]) -> Result<Selection> {
        // Under the writers' lock, so that no removal is between its check and its deed.
        let _writing = self.writing.lock();
        let catalog = self.snapshot();
        let images = select(&catalog, names)?;
        let holds = images
            .keys()
            .map(|id| self.hold_known(*id, HeldFor::Save))
            .collect();
        Ok(Selection {
            catalog,
            images,
            _holds: holds,
        })
    }

    /// Chooses images by their names and saves them.
    ///
    /// # Errors
    /// As [`Store::select`] and [`Store::save_selection`].
    pub fn save(&self, names: &[&str], output: &mut dyn Write) -> Result<()> {
        self.save_selection(&self.select(names)?, output)
    }

    /// Writes images as one tar that is both a docker-archive and an OCI layout. If a layer turns out damaged, the stream
    /// ends early and an error says so.
    ///
    /// # Errors
    /// An image cannot be read, or the output fails.
    pub fn save_selection(&self, selection: &Selection, output: &mut dyn Write) -> Result<()> {
        let Selection {
            catalog, images, ..
        } = selection;
        let mut blobs: BTreeMap<String, Blob> = BTreeMap::new();
        let mut items = Vec::new();
        let mut manifests = Vec::new();
        let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for (id, tags) in images {
            let bytes = self.content.get(id.digest())?;
            let config = self.config(id)?;
            let diff_ids = &config.rootfs.diff_ids;
            let mut sources = BTreeMap::new();
            for diff_id in diff_ids {
                let size = self.layers.get(diff_id)?.tar_size;
                blobs.insert(diff_id.hex(), Blob::Layer { size });
                let source = LayerSource {
                    media_type: OCI_LAYER.to_owned(),
                    size,
                    digest: *diff_id,
                };
                sources.insert(*diff_id, source);
            }
            let manifest = plain_manifest(&bytes, diff_ids, |id| sources[id].size);
            let plain = Descriptor::new(OCI_MANIFEST, Digest::of(&manifest), manifest.len() as u64);
            for tag in tags {
                manifests.push(plain.clone().named(tag));
                if let (Some(name), Some(top)) = (tag.tag(), diff_ids.last()) {
                    repositories
                        .entry(tag.familiar_repository())
                        .or_default()
                        .insert(name.to_owned(), top.hex());
                }
            }
            blobs.insert(plain.digest.hex(), Blob::Bytes(manifest));
            if tags.is_empty() {
                manifests.push(plain);
            }
            let parent = catalog.images[id]
                .parent
                .filter(|parent| images.contains_key(parent));
            items.push(ArchiveItem {
                config: blob_name(&id.hex()),
                repo_tags: (!tags.is_empty())
                    .then(|| tags.iter().map(Reference::familiar).collect()),
                layers: diff_ids
                    .iter()
                    .map(|diff_id| blob_name(&diff_id.hex()))
                    .collect(),
                parent: parent.map(|parent| *parent.digest()),
                layer_sources: sources,
            });
            blobs.insert(id.hex(), Blob::Bytes(bytes));
        }

        let mut tar = Tar { output };
        tar.directory("blobs/")?;
        tar.directory("blobs/sha256/")?;
        for (hex, blob) in &blobs {
            match blob {
                Blob::Bytes(bytes) => tar.file(&blob_name(hex), bytes)?,
                Blob::Layer { size } => {
                    tar.header(&blob_name(hex), *size, tar::EntryType::Regular, 0o644)?;
                    let digest = Digest::from_hex(hex).expect("made by Digest::hex above");
                    self.layers.write_tar(&digest, tar.output)?;
                    tar.pad(*size)?;
                }
            }
        }
        let index = Index {
            schema_version: 2,
            media_type: OCI_INDEX.to_owned(),
            manifests,
        };
        tar.file("index.json", &json(&index))?;
        // Go's encoder ends these two with a newline.
        tar.file("manifest.json", &[json(&items), b"\n".to_vec()].concat())?;
        tar.file("oci-layout", br#"{"imageLayoutVersion": "1.0.0"}"#)?;
        if !repositories.is_empty() {
            tar.file(
                "repositories",
                &[json(&repositories), b"\n".to_vec()].concat(),
            )?;
        }
        tar.end()
    }
}

/// Which images are meant, and which of their names are written.
fn select(catalog: &Catalog, names: &[&str]) -> Result<IndexMap<ImageId, Vec<Reference>>> {
    let mut images: IndexMap<ImageId, Vec<Reference>> = IndexMap::new();
    for name in names {
        let reference = Reference::parse(name).ok();
        let repository = reference
            .as_ref()
            .filter(|reference| reference.is_name_only());
        let tags: Vec<(&Reference, &ImageId)> = catalog
            .names
            .iter()
            .filter(|(own, _)| Some(&own.name_only()) == repository)
            .collect();
        if !tags.is_empty() {
            for (tag, id) in tags {
                let chosen = images.entry(*id).or_default();
                if tag.digest().is_none() && !chosen.contains(tag) {
                    chosen.push(tag.clone());
                }
            }
            continue;
        }
        let id = resolve(catalog, name).map_err(|error| match error {
            // Docker repeats the name here as it was given.
            ImageError::NoSuchImage(_) => ImageError::NoSuchImage((*name).to_owned()),
            other => other,
        })?;
        let chosen = images.entry(id).or_default();
        if let Some(tag) = reference
            && catalog.names.get(&tag) == Some(&id)
            && tag.digest().is_none()
            && !chosen.contains(&tag)
        {
            chosen.push(tag);
        }
    }
    Ok(images)
}

fn blob_name(hex: &str) -> String {
    format!("blobs/sha256/{hex}")
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain data has a JSON form")
}

/// Writes ustar members with times of 1970 and owner root, so that equal images make equal archives.
struct Tar<'a> {
    output: &'a mut dyn Write,
}

impl Tar<'_> {
    fn directory(&mut self, name: &str) -> Result<()> {
        self.header(name, 0, tar::EntryType::Directory, 0o755)
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let size = bytes.len() as u64;
        self.header(name, size, tar::EntryType::Regular, 0o644)?;
        self.output.write_all(bytes).map_err(ImageError::Output)?;
        self.pad(size)
    }

    fn header(&mut self, name: &str, size: u64, kind: tar::EntryType, mode: u32) -> Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_path(name).map_err(ImageError::Output)?;
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        self.output
            .write_all(header.as_bytes())
            .map_err(ImageError::Output)
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let padding = (size.next_multiple_of(512) - size) as usize;
        self.output
            .write_all(&[0; 512][..padding])
            .map_err(ImageError::Output)
    }

    fn end(&mut self) -> Result<()> {
        self.output
            .write_all(&[0; 1024])
            .map_err(ImageError::Output)?;
        self.output.flush().map_err(ImageError::Output)
    }
}
