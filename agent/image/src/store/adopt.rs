//! What the builder needs of layers: holding them while it mounts or reads them, and making layers of its snapshots.

use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Result, Store, content, release};
use crate::digest::Digest;
use crate::error::ImageError;
use crate::layers::{Layer, Unfinished};

/// Layers that are not removed before this is dropped.
pub(crate) struct LayerPins {
    store: Option<Arc<Store>>,
    pinned: HashSet<Digest>,
}

impl LayerPins {
    pub(crate) fn none() -> Self {
        Self {
            store: None,
            pinned: HashSet::new(),
        }
    }
}

impl Drop for LayerPins {
    fn drop(&mut self) {
        let Some(store) = &self.store else { return };
        let mut users = store.pinned.lock();
        for diff_id in &self.pinned {
            release(&mut users, diff_id);
        }
        drop(users);
        if let Err(error) = store.collect(&self.pinned) {
            tracing::warn!(%error, "cannot look for layers that are no longer needed");
        }
    }
}

impl Store {
    /// Pins layers.
    ///
    /// # Errors
    /// One of them is not here.
    pub(crate) fn pin_layers(store: &Arc<Self>, diff_ids: &[Digest]) -> Result<LayerPins> {
        if diff_ids.is_empty() {
            return Ok(LayerPins::none());
        }
        let pinned: HashSet<Digest> = diff_ids.iter().copied().collect();
        let mut users = store.pinned.lock();
        for diff_id in &pinned {
            if !store.layers.contains(diff_id) {
                return Err(ImageError::Damaged {
                    path: store.layers.diff(diff_id),
                    reason: "the layer is missing".to_owned(),
                });
            }
        }
        for diff_id in &pinned {
            *users.entry(*diff_id).or_default() += 1;
        }
        drop(users);
        Ok(LayerPins {
            store: Some(Arc::clone(store)),
            pinned,
        })
    }

    pub(crate) fn has_layer(&self, diff_id: &Digest) -> bool {
        self.layers.contains(diff_id)
    }

    /// The overlay directory of a layer, and whether it hides all layers below it.
    pub(crate) fn layer_directory(&self, diff_id: &Digest) -> Result<(PathBuf, bool)> {
        let layer = self.layers.get(diff_id)?;
        Ok((self.layers.diff(diff_id), layer.opaque_root))
    }

    /// Describes a directory that is to become a layer: reads it once, writes its digest and recipe beside `diff/`.
    pub(crate) fn describe(&self, directory: &Path) -> Result<Layer> {
        crate::layers::describe(directory, &self.limits)
    }

    /// Makes layers of copies of directories in overlay form in which no modification time is later than `latest`. They are
    /// pinned; those that nothing needs when the pins are dropped go with them.
    pub(crate) fn adopt_clamped(
        store: &Arc<Self>,
        diffs: &[PathBuf],
        latest: i64,
    ) -> Result<(Vec<Digest>, LayerPins)> {
        let layers: Result<Vec<_>> = diffs
            .iter()
            .map(|diff| store.changes_layer(diff, &BTreeSet::new(), Some(latest)))
            .collect();
        Self::add_pinned(store, layers?)
    }

    /// Makes unpacked layers exist, pinned. Of one that exists already the new copy is dropped. Returns their ids in order.
    fn add_pinned(store: &Arc<Self>, layers: Vec<Unfinished>) -> Result<(Vec<Digest>, LayerPins)> {
        if layers.is_empty() {
            return Ok((Vec::new(), LayerPins::none()));
        }
        store.sync_layers()?;
        // Until they are pinned nobody else may look for layers that are not needed.
        let _writing = store.writing.lock();
        // No image has them yet: after a crash the next opening looks for them.
        store.keep_mark.store(true, Ordering::Relaxed);
        let mark = store.unsettled();
        File::create(&mark).map_err(ImageError::io("create", &mark))?;
        content::sync_directory(store.content.root())?;
        let ids: Vec<Digest> = layers.iter().map(|layer| layer.layer.diff_id).collect();
        for layer in layers {
            store.layers.commit(layer)?;
        }
        content::sync_directory(store.layers.root())?;
        let pins = Self::pin_layers(store, &ids)?;
        Ok((ids, pins))
    }

    /// Brings layer directories that are complete, but not in the store, to disk, marked as kept.
    pub(crate) fn prepare_adoption<'a>(
        &self,
        directories: impl Iterator<Item = &'a Path>,
    ) -> Result<()> {
        for directory in directories {
            super::keep::mark_in(directory)?;
        }
        self.sync_layers()
    }

    /// Makes layers of prepared directories on the store's file system, kept. In the place of each a link to the layer is
    /// left. Where the store has the layer already, the directory stays where it is, and the answer is false.
    pub(crate) fn adopt_directories(
        &self,
        directories: Vec<(PathBuf, Layer)>,
    ) -> Result<Vec<bool>> {
        let _writing = self.writing.lock();
        let mut moved = Vec::with_capacity(directories.len());
        for (directory, layer) in directories {
            let diff_id = layer.diff_id;
            let is_new = self.layers.adopt_directory(&directory, layer)?;
            if !is_new {
                self.mark(&diff_id)?;
            }
            moved.push(is_new);
        }
        content::sync_directory(self.layers.root())?;
        Ok(moved)
    }
}
