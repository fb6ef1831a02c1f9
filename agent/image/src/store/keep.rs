//! Layers that are kept although no image needs them: those the build cache counts on.
//!
//! The mark is an empty file beside the layer, `layers/<hex>/kept`, so that it appears and goes with the layer and
//! nothing has to be loaded at start. Whoever keeps a layer releases it; the store never does.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::{Result, Store, content};
use crate::digest::Digest;
use crate::error::ImageError;
use crate::layers::Unfinished;

/// Name of the mark.
const MARK: &str = "kept";

impl Store {
    /// Keeps layers from being collected when no image needs them any more. All or none.
    ///
    /// # Errors
    /// One of them is not here, or cannot be marked.
    pub fn keep(&self, diff_ids: &[Digest]) -> Result<()> {
        let _writing = self.writing.lock();
        for diff_id in diff_ids {
            self.layers.get(diff_id)?;
        }
        diff_ids.iter().try_for_each(|diff_id| self.mark(diff_id))
    }

    /// Takes the marks off again; layers that no image needs go with them. What is not here or not kept is passed over.
    ///
    /// # Errors
    /// A mark or a layer cannot be removed.
    pub fn release(&self, diff_ids: &[Digest]) -> Result<()> {
        let writing = self.writing.lock();
        let mut kept = HashSet::new();
        for diff_id in diff_ids {
            if self.layers.contains(diff_id) && self.is_kept(diff_id)? {
                kept.insert(*diff_id);
            }
        }
        if kept.is_empty() {
            return Ok(());
        }
        self.begin()?;
        let doomed = self.let_go(&kept);
        if doomed.is_err() {
            self.keep_mark.store(true, Ordering::Relaxed);
        }
        let doomed = doomed?;
        self.end()?;
        drop(writing);
        self.layers.discard(doomed);
        Ok(())
    }

    fn let_go(&self, kept: &HashSet<Digest>) -> Result<Vec<PathBuf>> {
        for diff_id in kept {
            let mark = self.kept_path(diff_id);
            std::fs::remove_file(&mark).map_err(ImageError::io("remove", mark))?;
        }
        self.detach_unneeded(kept)
    }

    /// The layers that are kept, in order.
    ///
    /// # Errors
    /// A mark can be neither seen nor missed.
    pub fn kept(&self) -> Result<Vec<Digest>> {
        let mut kept = Vec::new();
        for diff_id in self.layers.all() {
            if self.is_kept(&diff_id)? {
                kept.push(diff_id);
            }
        }
        kept.sort();
        Ok(kept)
    }

    /// Makes unpacked layers exist, kept. Of one that exists already the new copy is dropped. Returns their ids in order.
    pub(crate) fn add_kept(&self, layers: Vec<Unfinished>) -> Result<Vec<Digest>> {
        if layers.is_empty() {
            return Ok(Vec::new());
        }
        for layer in &layers {
            mark_in(layer.path())?;
        }
        self.sync_layers()?;
        let _writing = self.writing.lock();
        let mut ids = Vec::with_capacity(layers.len());
        for layer in layers {
            let diff_id = layer.layer.diff_id;
            if self.layers.contains(&diff_id) {
                self.mark(&diff_id)?;
            }
            self.layers.commit(layer)?;
            ids.push(diff_id);
        }
        content::sync_directory(self.layers.root())?;
        Ok(ids)
    }

    /// Whether the layer is kept. What cannot be told counts as an error, so that nothing is removed by mistake.
    pub(super) fn is_kept(&self, diff_id: &Digest) -> Result<bool> {
        let mark = self.kept_path(diff_id);
        mark.try_exists().map_err(ImageError::io("look for", mark))
    }

    pub(super) fn mark(&self, diff_id: &Digest) -> Result<()> {
        let mark = self.kept_path(diff_id);
        File::create(&mark).map_err(ImageError::io("create", &mark))?;
        content::sync_directory(mark.parent().unwrap_or(Path::new("/")))
    }

    fn kept_path(&self, diff_id: &Digest) -> PathBuf {
        self.layers.root().join(diff_id.hex()).join(MARK)
    }
}

/// Marks a layer that does not exist yet.
pub(super) fn mark_in(directory: &Path) -> Result<()> {
    let mark = directory.join(MARK);
    File::create(&mark)
        .map(drop)
        .map_err(ImageError::io("create", mark))
}
