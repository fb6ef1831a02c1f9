//! The image part of `docker system df`.

use std::collections::{HashMap, HashSet};

use super::{Result, Store};
use crate::digest::{Digest, ImageId};
use crate::error::ImageError;

/// Disk use of one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageUsage {
    /// The image.
    pub id: ImageId,
    /// Bytes of all its layers.
    pub size: u64,
    /// Bytes of layers that other images have, too (`SharedSize`).
    pub shared_size: u64,
}

/// Disk use of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskUsage {
    /// Bytes of all layers, each counted once (`LayersSize`).
    pub layers_size: u64,
    /// Per image, in order of id.
    pub images: Vec<ImageUsage>,
}

impl Store {
    /// Bytes of the files of all layers that are here, for images or kept, each counted once.
    pub fn layers_total(&self) -> u64 {
        self.layer_sizes(&self.layers.all()).iter().sum()
    }

    /// Bytes of the files of each layer, in the same order; 0 of one that is not here.
    pub fn layer_sizes(&self, diff_ids: &[Digest]) -> Vec<u64> {
        let size = |diff_id| self.layers.get(diff_id).map_or(0, |layer| layer.size);
        diff_ids.iter().map(size).collect()
    }

    /// The layers that images have; others are kept by a build cache or being brought in.
    ///
    /// # Errors
    /// The configuration of an image cannot be read, so that its layers are not known.
    pub fn needed_by_images(&self) -> Result<HashSet<Digest>> {
        self.needed(&self.snapshot())
            .ok_or_else(|| ImageError::Damaged {
                path: self.content.root().to_owned(),
                reason: "the configuration of an image cannot be read, see the log".to_owned(),
            })
    }

    /// Bytes on disk, shared and not.
    pub fn disk_usage(&self) -> Result<DiskUsage> {
        let catalog = self.snapshot();
        let mut users: HashMap<Digest, usize> = HashMap::new();
        let readable = |id: &&ImageId| self.readable(id).is_some();
        let mut ids: Vec<ImageId> = catalog.images.keys().filter(readable).copied().collect();
        ids.sort();
        for id in &ids {
            let mut own = self.config(id)?.rootfs.diff_ids.clone();
            own.sort();
            own.dedup();
            for diff_id in own {
                *users.entry(diff_id).or_default() += 1;
            }
        }
        let mut images = Vec::new();
        for id in ids {
            let mut usage = ImageUsage {
                id,
                size: 0,
                shared_size: 0,
            };
            for diff_id in &self.config(&id)?.rootfs.diff_ids {
                let size = self.layers.get(diff_id)?.size;
                usage.size += size;
                if users[diff_id] > 1 {
                    usage.shared_size += size;
                }
            }
            images.push(usage);
        }
        let mut layers_size = 0;
        for diff_id in users.keys() {
            layers_size += self.layers.get(diff_id)?.size;
        }
        Ok(DiskUsage {
            layers_size,
            images,
        })
    }
}
