//! Adding an image that was made here, its layers being in the store already: what a builder exports.

use super::index::Record;
use super::load::{Pins, plain_manifest};
use super::tag::give_name;
use super::{Additions, Result, Store};
use crate::config::ImageConfig;
use crate::digest::{Digest, ImageId};
use crate::error::ImageError;
use crate::manifest::OCI_MANIFEST;
use crate::reference::Reference;

impl Store {
    /// Adds the image with the configuration `config`, byte for byte, and gives it names (default tag `latest`). Its
    /// layers must be here; the caller keeps them ([`Store::keep`]) until this returns. An image that exists already
    /// only gets the names.
    ///
    /// # Errors
    /// The configuration is none, a layer is not here, or a name has a digest.
    pub fn add(
        &self,
        config: &[u8],
        names: &[Reference],
        parent: Option<&ImageId>,
    ) -> Result<ImageId> {
        if let Some(name) = names.iter().find(|name| name.digest().is_some()) {
            return Err(ImageError::Invalid(format!(
                "{} has a digest: an image is named with a tag",
                name.familiar()
            )));
        }
        let parsed = ImageConfig::from_json(config)
            .map_err(|error| ImageError::Invalid(format!("image configuration: {error}")))?;
        let diff_ids = &parsed.rootfs.diff_ids;
        if diff_ids.len() > self.limits.layers {
            return Err(ImageError::Invalid(format!(
                "the image would have {} layers, at most {} are possible",
                diff_ids.len(),
                self.limits.layers
            )));
        }
        let pins = Pins::new(self);
        let mut sizes = Vec::with_capacity(diff_ids.len());
        for diff_id in diff_ids {
            pins.find(diff_id);
            sizes.push((*diff_id, self.layers.get(diff_id)?.tar_size));
        }
        let size = |wanted: &Digest| {
            let known = sizes.iter().find(|(diff_id, _)| diff_id == wanted);
            known.map_or(0, |(_, size)| *size)
        };
        let manifest = plain_manifest(config, diff_ids, size);
        let id = ImageId::new(Digest::of(config));
        let record = Record {
            media_type: OCI_MANIFEST.to_owned(),
            manifest: Digest::of(&manifest),
            manifest_size: manifest.len() as u64,
            parent: parent.copied(),
            last_tagged: None,
        };
        let additions = Additions {
            blobs: vec![config.to_vec(), manifest],
            used: vec![id],
            ..Additions::default()
        };
        self.change(additions, |catalog| {
            catalog.images.entry(id).or_insert(record);
            for name in names {
                give_name(catalog, name.clone().with_default_tag(), id);
            }
            Ok(())
        })?;
        Ok(id)
    }
}
