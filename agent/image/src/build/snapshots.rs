//! The directory of snapshots: making, holding, removing.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::error::Result;
use super::{Held, Stack, StatCache};
use crate::store::Store;

/// Names a snapshot: 32 hex digits, never used twice.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SnapshotId(String);

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A finished snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name.
    pub id: SnapshotId,
    /// Bytes it takes on the disk.
    pub disk_bytes: u64,
}

/// The snapshots of one data root. Thread-safe; all methods block on disk.
pub struct Snapshots {
    store: Arc<Store>,
}

/// A snapshot being made: an empty directory to fill. Deleted on drop unless it is finished.
pub struct Work {}

impl Work {
    /// The directory to fill, in overlay form.
    pub fn diff(&self) -> &Path {
        todo!()
    }
}

pub(super) struct Pins {}

impl Snapshots {
    /// Opens the snapshots below `root` (`<data root>/build`), making directories if need be. What a crash left half-made
    /// is removed on a thread of its own.
    ///
    /// # Errors
    /// A directory cannot be made or read.
    pub fn open(store: Arc<Store>, root: &Path) -> Result<Self> {
        let _ = root;
        Ok(Self { store })
    }

    /// A new empty directory for a step to fill.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn begin(&self) -> Result<Work> {
        let _ = &self.store;
        todo!()
    }

    /// Makes a snapshot of what was written. It is not synced: see [`Snapshots::sync`].
    ///
    /// # Errors
    /// It cannot be measured or renamed.
    pub fn finish(&self, work: Work) -> Result<Snapshot> {
        let _ = work;
        todo!()
    }

    /// Makes a snapshot of a directory in overlay form on the same file system (the upper directory of an unmounted
    /// overlay), which is renamed.
    ///
    /// # Errors
    /// It cannot be measured or renamed.
    pub fn take(&self, directory: &Path) -> Result<Snapshot> {
        let _ = directory;
        todo!()
    }

    /// Holds a stack for reading and mounting.
    ///
    /// # Errors
    /// [`FilesError::Lost`](super::FilesError::Lost): the cache record that names it is a miss. A layer that is gone from
    /// the store, or more layers than overlayfs takes.
    pub fn hold(&self, stack: &Stack) -> Result<Held> {
        let _ = stack;
        todo!()
    }

    /// Whether every entry of the stack is there and whole; opens nothing.
    pub fn contains(&self, stack: &Stack) -> bool {
        let _ = stack;
        todo!()
    }

    /// Makes sure that snapshots finished so far survive a crash of the machine (one sync of the file system). Without it they
    /// survive crashes of the process only, and are lost, but never torn, by the machine's. To be called off the path of a
    /// build's answer.
    ///
    /// # Errors
    /// The disk's.
    pub fn sync(&self) -> Result<()> {
        todo!()
    }

    /// Removes snapshots (out of sight at once, from the disk when nobody holds them any more). Ones that are not there are
    /// passed over. Layers that were made of them are not touched: release those in the store. Returns the bytes freed.
    ///
    /// # Errors
    /// One cannot be renamed; the others are removed.
    pub fn remove(&self, ids: &[SnapshotId]) -> Result<u64> {
        let _ = ids;
        todo!()
    }

    /// Removes every snapshot that `named` does not have and that was finished before this was opened. Returns the bytes freed.
    ///
    /// # Errors
    /// As [`Snapshots::remove`].
    pub fn sweep(&self, named: &HashSet<SnapshotId>) -> Result<u64> {
        let _ = named;
        todo!()
    }

    /// The snapshots there are, with their sizes; those that became layers count nothing.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list(&self) -> Result<Vec<Snapshot>> {
        todo!()
    }

    /// The digests of unchanged files of contexts. Read at the first call, written and forgotten when the last user drops it.
    pub fn stat_cache(&self) -> Arc<StatCache> {
        todo!()
    }
}
