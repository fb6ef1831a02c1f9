//! Finding one image by what the user calls it, and everything about it.

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;

use super::index::Catalog;
use super::{Result, Store};
use crate::config::ImageConfig;
use crate::digest::{Digest, ImageId};
use crate::error::ImageError;
use crate::reference::Reference;

/// An image as `inspect` and `list` show it.
#[derive(Debug, Clone)]
pub struct Image {
    /// Digest of the configuration.
    pub id: ImageId,
    /// The configuration, parsed.
    pub config: Arc<ImageConfig>,
    /// Names with a tag, sorted (`RepoTags` is their [`Reference::familiar`] form).
    pub tags: Vec<Reference>,
    /// Names with a manifest digest, sorted (`RepoDigests`).
    pub digests: Vec<Reference>,
    /// Digest of the manifest.
    pub manifest: Digest,
    /// The image this one was committed or built from on this machine.
    pub parent: Option<ImageId>,
    /// When a name was last put on it (`Metadata.LastTagTime`).
    pub last_tagged: Option<Timestamp>,
    /// Bytes of all files of all layers.
    pub size: u64,
    /// Unpacked layer directories, top first (`GraphDriver.Data`).
    pub layers: Vec<PathBuf>,
}

impl Store {
    /// The image called `name`: a name (default tag `latest`), name@digest, id with or without `sha256:`, or
    /// unique id prefix. As in Docker, a name wins over an id prefix (moby `daemon/images/image.go`).
    pub fn resolve(&self, name: &str) -> Result<ImageId> {
        resolve(&self.snapshot(), name)
    }

    /// Everything about one image (name or id as in [`Store::resolve`]).
    pub fn inspect(&self, name: &str) -> Result<Image> {
        let catalog = self.snapshot();
        let id = resolve(&catalog, name)?;
        self.image(&catalog, &id, catalog.names_of(&id))
    }

    /// The same for an image that must be for `platform` (`os/architecture[/variant]`), if one is given.
    ///
    /// # Errors
    /// There is no such image, or it is for another platform.
    pub fn inspect_for(&self, name: &str, platform: Option<&str>) -> Result<Image> {
        let image = self.inspect(name)?;
        match platform {
            Some(wanted) if !image.config.matches(wanted) => {
                let text = other_platform(name, &image.config, &wanted);
                Err(ImageError::NoSuchPlatform(text))
            }
            _ => Ok(image),
        }
    }

    /// Whether an image is for `platform` (`os/architecture[/variant]`).
    ///
    /// # Errors
    /// There is no such image.
    pub fn is_for(&self, id: &ImageId, platform: &str) -> Result<bool> {
        Ok(self.config(id)?.matches(platform))
    }

    pub(super) fn image(
        &self,
        catalog: &Catalog,
        id: &ImageId,
        names: Vec<Reference>,
    ) -> Result<Image> {
        let config = self.config(id)?;
        let mut size = 0;
        for diff_id in &config.rootfs.diff_ids {
            size += self.layers.get(diff_id)?.size;
        }
        let layers = self.layers(id)?;
        image(catalog, id, names, config, (size, layers))
            .ok_or_else(|| ImageError::NoSuchImage(id.to_string()))
    }
}

/// What is shown of an image of `catalog`. `names` are those to show, `files` its size and its layers' directories.
pub(super) fn image(
    catalog: &Catalog,
    id: &ImageId,
    names: Vec<Reference>,
    config: Arc<ImageConfig>,
    (size, layers): (u64, Vec<PathBuf>),
) -> Option<Image> {
    let record = catalog.images.get(id)?;
    let (digests, tags) = names.into_iter().partition(|name| name.digest().is_some());
    Some(Image {
        id: *id,
        tags,
        digests,
        manifest: record.manifest,
        parent: record.parent,
        last_tagged: record.last_tagged,
        size,
        layers,
        config,
    })
}

/// What is said of an image that is not for the platform asked for.
pub(super) fn other_platform(name: &str, config: &ImageConfig, wanted: &dyn Display) -> String {
    format!(
        "image with reference {name} was found but its platform ({}) does not match the specified platform ({wanted})",
        config.platform()
    )
}

pub(super) fn resolve(catalog: &Catalog, name: &str) -> Result<ImageId> {
    let hex = name.strip_prefix("sha256:").unwrap_or(name);
    let is_hex = !hex.is_empty() && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if is_hex && hex.len() == 64 {
        let id = Digest::from_hex(hex)
            .map(ImageId::new)
            .map_err(|_| ImageError::NoSuchImage(name.to_owned()))?;
        return match catalog.images.contains_key(&id) {
            true => Ok(id),
            false => Err(ImageError::NoSuchImage(name.to_owned())),
        };
    }
    let named = match Reference::parse(name) {
        Ok(reference) => Some(reference.with_default_tag()),
        Err(_) if is_hex => None,
        Err(error) => return Err(error.into()),
    };
    if let Some(reference) = &named
        && let Some(id) = find(catalog, reference)
    {
        return Ok(id);
    }
    if is_hex && hex.len() < 64 {
        let mut found = catalog.images.keys().filter(|id| id.hex().starts_with(hex));
        match (found.next(), found.next()) {
            (Some(id), None) => return Ok(*id),
            (Some(_), Some(_)) => return Err(ImageError::AmbiguousId(name.to_owned())),
            _ => {}
        }
    }
    Err(ImageError::NoSuchImage(match named {
        Some(reference) => reference.familiar(),
        None => name.to_owned(),
    }))
}

/// By exact name, or by `name@digest` where the digest is the manifest of an image of that repository.
fn find(catalog: &Catalog, reference: &Reference) -> Option<ImageId> {
    if let Some(id) = catalog.names.get(&name_of(reference)) {
        return Some(*id);
    }
    let digest = reference.digest()?;
    let repository = reference.name_only();
    let is_manifest = |id| {
        let record = catalog.images.get(id);
        record.is_some_and(|record| record.manifest == *digest)
    };
    let mut names = catalog.names.iter();
    names
        .find(|(name, id)| name.name_only() == repository && is_manifest(id))
        .map(|(_, id)| *id)
}

/// The name that is meant: where there is a digest, a tag says nothing (moby `reference/store.go:favorDigest`).
pub(super) fn name_of(reference: &Reference) -> Reference {
    match reference.digest() {
        Some(digest) => reference.with_digest(*digest),
        None => reference.clone(),
    }
}
