//! Snapshots become layers of the image store: hashed where they are, then renamed.

use std::num::NonZero;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::available_parallelism;

use parking_lot::Mutex;

use super::error::{FilesError, Result};
use super::snapshots::Place;
use super::{Entry, SnapshotId, Snapshots};
use crate::digest::Digest;
use crate::layers::Layer;
use crate::store::{LayerPins, Store};

/// What becomes of modification times in an exported layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rewrite {
    /// They stay.
    #[default]
    Keep,
    /// Later ones become this one, seconds since 1970 (`rewrite-timestamp` with `SOURCE_DATE_EPOCH`).
    Clamp(i64),
}

/// Layers that were made for one export. What no image needs when this is dropped goes.
pub struct Clamped {
    diff_ids: Vec<Digest>,
    _pins: LayerPins,
}

impl Clamped {
    /// Which they are, in the order of what they were made of.
    pub fn diff_ids(&self) -> &[Digest] {
        &self.diff_ids
    }
}

impl Snapshots {
    /// Makes layers of `entries` and returns their diff ids, in the same order. Several are hashed at the same time. The layers
    /// are kept ([`Store::keep`](crate::Store::keep)) until somebody releases them; stacks that name the snapshots go on
    /// working. Blocks for as long as hashing and one sync of the disk take.
    ///
    /// # Errors
    /// [`FilesError::Lost`], something that has no place in a layer, or the disk's.
    pub fn adopt(&self, entries: &[Entry]) -> Result<Vec<Digest>> {
        // One at a time: two builds may end with the same snapshots.
        let _adopting = self.adopting.lock();
        let mut loose: Vec<SnapshotId> = Vec::new();
        for entry in entries {
            if let Entry::Loose(id) = entry
                && !loose.contains(id)
                && let Place::Here(_) = self.place_of(id)?
            {
                loose.push(id.clone());
            }
        }
        if !loose.is_empty() {
            self.adopt_loose(&loose)?;
        }
        let diff_id = |entry: &Entry| match entry {
            Entry::Layer(diff_id) => Ok(*diff_id),
            Entry::Loose(id) => match self.place_of(id)? {
                Place::Layer(diff_id) => Ok(diff_id),
                Place::Here(_) => Err(FilesError::Lost(id.clone())),
            },
        };
        let diff_ids: Vec<Digest> = entries.iter().map(diff_id).collect::<Result<_>>()?;
        // Some were layers before and perhaps nobody's.
        self.store.keep(&diff_ids)?;
        Ok(diff_ids)
    }

    fn adopt_loose(&self, ids: &[SnapshotId]) -> Result<()> {
        let paths: Vec<PathBuf> = ids.iter().map(|id| self.path(id)).collect();
        let layers = self.describe_all(&paths)?;
        self.store
            .prepare_adoption(paths.iter().map(PathBuf::as_path))?;
        let directories = paths.iter().cloned().zip(layers.iter().cloned()).collect();
        let moved = self.store.adopt_directories(directories)?;
        for ((id, layer), moved) in ids.iter().zip(&layers).zip(moved) {
            self.adopted(id, layer.diff_id, moved)?;
        }
        Ok(())
    }

    /// Hashes directories on all processors.
    fn describe_all(&self, paths: &[PathBuf]) -> Result<Vec<Layer>> {
        let workers = available_parallelism()
            .map_or(1, NonZero::get)
            .min(paths.len());
        let next = AtomicUsize::new(0);
        let done = Mutex::new(vec![None; paths.len()]);
        let work = || {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(path) = paths.get(at) else {
                    return Ok(());
                };
                let layer = self.store.describe(path)?;
                done.lock()[at] = Some(layer);
            }
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (1..workers).map(|_| scope.spawn(work)).collect();
            let mut results = vec![work()];
            for thread in threads {
                results.push(thread.join().expect("hashing does not panic"));
            }
            results.into_iter().collect::<Result<()>>()
        })?;
        Ok(done.into_inner().into_iter().flatten().collect())
    }

    /// Makes layers of copies of `entries`, also of layers, in which no modification time is later than `latest`, seconds
    /// since 1970; in the same order. The snapshots stay what they are. Blocks for as long as copying and one sync of the
    /// disk take.
    ///
    /// # Errors
    /// As [`Snapshots::adopt`].
    pub fn adopt_clamped(&self, entries: &[Entry], latest: i64) -> Result<Clamped> {
        let stack = super::Stack {
            entries: entries.to_vec(),
        };
        // Nothing goes away while it is being read.
        let _held = self.hold(&stack)?;
        let mut diffs = Vec::with_capacity(entries.len());
        for entry in entries {
            diffs.push(match entry {
                Entry::Layer(diff_id) => self.store.layer_directory(diff_id)?.0,
                Entry::Loose(id) => match self.place_of(id)? {
                    Place::Layer(diff_id) => self.store.layer_directory(&diff_id)?.0,
                    Place::Here(_) => self.path(id).join("diff"),
                },
            });
        }
        let (diff_ids, pins) = Store::adopt_clamped(&self.store, &diffs, latest)?;
        Ok(Clamped {
            diff_ids,
            _pins: pins,
        })
    }
}
