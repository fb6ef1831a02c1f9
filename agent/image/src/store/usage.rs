//! The image part of `docker system df`.

use std::collections::{HashMap, HashSet};

use super::Store;
use crate::digest::{Digest, ImageId};

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

    /// Bytes of the files of all layers of an image, also of one that was removed by force while a container made from it
    /// was left. 0 of one that is not here.
    pub fn image_size(&self, id: &ImageId) -> u64 {
        let config = self.readable(id);
        config.map_or(0, |config| {
            self.layer_sizes(&config.rootfs.diff_ids).iter().sum()
        })
    }

    /// The layers that images have; others are kept by a build cache or being brought in. Those of an image that cannot be
    /// read are not among them.
    pub fn needed_by_images(&self) -> HashSet<Digest> {
        self.layers_of(self.snapshot().ids())
    }

    /// The layers of those of the images that can be read.
    pub(super) fn layers_of<'a>(&self, ids: impl Iterator<Item = &'a ImageId>) -> HashSet<Digest> {
        let mut layers = HashSet::new();
        for config in ids.filter_map(|id| self.readable(id)) {
            layers.extend(&config.rootfs.diff_ids);
        }
        layers
    }

    /// Bytes on disk, shared and not. What cannot be read counts as nothing.
    pub fn disk_usage(&self) -> DiskUsage {
        let catalog = self.snapshot();
        let mut configs: Vec<_> = catalog
            .images
            .keys()
            .filter_map(|id| Some((*id, self.readable(id)?)))
            .collect();
        configs.sort_by_key(|(id, _)| *id);
        let mut users: HashMap<Digest, usize> = HashMap::new();
        for (_, config) in &configs {
            let own: HashSet<&Digest> = config.rootfs.diff_ids.iter().collect();
            for diff_id in own {
                *users.entry(*diff_id).or_default() += 1;
            }
        }
        let mut layers = self.layers_of(catalog.departed.keys());
        layers.extend(users.keys());
        let layers: Vec<Digest> = layers.into_iter().collect();
        let sizes = self.layer_sizes(&layers);
        let layers_size = sizes.iter().sum();
        let sizes: HashMap<Digest, u64> = layers.into_iter().zip(sizes).collect();
        let images = configs.into_iter().map(|(id, config)| {
            let mut usage = ImageUsage {
                id,
                size: 0,
                shared_size: 0,
            };
            for diff_id in &config.rootfs.diff_ids {
                usage.size += sizes[diff_id];
                if users[diff_id] > 1 {
                    usage.shared_size += sizes[diff_id];
                }
            }
            usage
        });
        DiskUsage {
            images: images.collect(),
            layers_size,
        }
    }
}
