//! What a stage's file system consists of, and holding it while it is in use.
//!
//! Must not: mount. Which directories an overlay mount takes is said here, whoever needs it mounts them.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::error::{FilesError, Result};
use super::snapshots::{Place, State, discard};
use super::{SnapshotId, Snapshots, View};
use crate::digest::Digest;
use crate::error::ImageError;
use crate::store::{LayerPins, Store};

/// Directories that nobody has open any more and that are still known.
const OPEN_FORGOTTEN: usize = 1000;
/// Overlayfs takes no more lower directories (`OVL_MAX_STACK`).
const LOWERS_MAX: usize = 500;

/// One layer of a stage's file system.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// A layer of the image store.
    Layer(Digest),
    /// A snapshot of the builder.
    Loose(SnapshotId),
}

/// A stage's file system: layers, lowest first. The empty stack is the empty file system (`scratch`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Stack {
    /// The layers, lowest first.
    pub entries: Vec<Entry>,
}

impl Stack {
    /// The layers of an image, lowest first.
    pub fn of_layers(diff_ids: impl IntoIterator<Item = Digest>) -> Self {
        Self {
            entries: diff_ids.into_iter().map(Entry::Layer).collect(),
        }
    }

    /// This stack with one layer more on top.
    #[must_use]
    pub fn with(&self, entry: Entry) -> Self {
        let mut entries = self.entries.clone();
        entries.push(entry);
        Self { entries }
    }
}

/// A stack that cannot go away: its directories are not deleted before this is dropped.
#[derive(Clone)]
pub struct Held {
    pub(super) lowers: Arc<[PathBuf]>,
    pub(super) view: View,
    pub(super) _pins: Arc<Pins>,
}

impl Held {
    /// Directories for an overlay mount, uppermost first. They stay right as long as this is held, even when a snapshot
    /// becomes a layer meanwhile. A directory that occurs twice in the stack is here once. Empty for the empty stack.
    pub fn lowers(&self) -> Vec<PathBuf> {
        self.lowers.to_vec()
    }

    /// Reads the stack. The view keeps it, too.
    pub fn view(&self) -> View {
        self.view.clone()
    }
}

/// Keeps snapshots and layers from being deleted.
pub(super) struct Pins {
    _snapshots: SnapshotPins,
    _layers: LayerPins,
}

/// Keeps snapshots from being deleted, also as the layers that they become.
struct SnapshotPins {
    ids: Vec<SnapshotId>,
    state: Arc<Mutex<State>>,
}

impl Drop for SnapshotPins {
    fn drop(&mut self) {
        let mut free = Vec::new();
        // Layers are let go without the lock, since that may remove them.
        let mut became = Vec::new();
        {
            let mut state = self.state.lock();
            for id in &self.ids {
                let Some(count) = state.holders.get_mut(id) else {
                    continue;
                };
                *count -= 1;
                if *count == 0 {
                    state.holders.remove(id);
                    free.extend(state.doomed.remove(id));
                    became.extend(state.became.remove(id));
                }
            }
        }
        free.iter().for_each(|path| discard(path));
    }
}

impl Snapshots {
    /// Holds a stack for reading and mounting.
    ///
    /// # Errors
    /// [`FilesError::Lost`]: the cache record that names it is a miss. A layer that is gone from the store, or more layers
    /// than overlayfs takes.
    pub fn hold(&self, stack: &Stack) -> Result<Held> {
        let mut ids = Vec::new();
        let mut diffs = Vec::new();
        let mut layers = Vec::new();
        {
            // From here on nothing that is found can be deleted.
            let mut state = self.state.lock();
            for entry in stack.entries.iter().rev() {
                let place = match entry {
                    Entry::Layer(diff_id) => Place::Layer(*diff_id),
                    Entry::Loose(id) => self
                        .place(&mut state, id)
                        .ok_or_else(|| FilesError::Lost(id.clone()))?,
                };
                match (place, entry) {
                    (Place::Layer(diff_id), _) => layers.push(diff_id),
                    (Place::Here(_), Entry::Loose(id)) if !ids.contains(id) => ids.push(id.clone()),
                    _ => continue,
                }
                diffs.push((place, entry.clone()));
            }
            for id in &ids {
                *state.holders.entry(id.clone()).or_default() += 1;
            }
        }
        let snapshots = SnapshotPins {
            ids,
            state: Arc::clone(&self.state),
        };
        let pins = Arc::new(Pins {
            _snapshots: snapshots,
            _layers: Store::pin_layers(&self.store, &layers)?,
        });
        let lowers = self.lowers(&diffs)?;
        let roots = self.open_all(&lowers)?;
        Ok(Held {
            lowers: lowers.into(),
            view: View::stack(roots, Arc::clone(&pins)),
            _pins: pins,
        })
    }

    /// Opens the directories of a stack that is pinned. The stacks of a build's steps share most of theirs.
    fn open_all(&self, paths: &[PathBuf]) -> Result<Vec<Arc<OwnedFd>>> {
        let mut open = self.open.lock();
        let mut opened = Vec::with_capacity(paths.len());
        for path in paths {
            let shared = open.get(path).and_then(Weak::upgrade);
            opened.push(match shared {
                Some(fd) => fd,
                None => {
                    let fd = Arc::new(open_directory(path)?);
                    open.insert(path.clone(), Arc::downgrade(&fd));
                    fd
                }
            });
        }
        if open.len() > 2 * paths.len() + OPEN_FORGOTTEN {
            open.retain(|_, fd| fd.strong_count() > 0);
        }
        Ok(opened)
    }

    /// The directories of a stack, uppermost first. Of one that occurs several times only the uppermost is there: overlayfs
    /// refuses a directory twice, and the others could not be seen. Nothing is there below an opaque root.
    fn lowers(&self, entries: &[(Place, Entry)]) -> Result<Vec<PathBuf>> {
        let mut paths: Vec<PathBuf> = Vec::new();
        for (place, entry) in entries {
            let mut cut = false;
            let path = match (place, entry) {
                (Place::Layer(diff_id), _) => {
                    let (path, opaque) = self.store.layer_directory(diff_id)?;
                    cut = opaque;
                    path
                }
                (Place::Here(_), Entry::Loose(id)) => self.path(id).join("diff"),
                (Place::Here(_), Entry::Layer(_)) => continue,
            };
            if !paths.contains(&path) {
                paths.push(path);
            }
            if cut {
                break;
            }
        }
        if paths.len() > LOWERS_MAX {
            return Err(FilesError::Limit {
                what: "layers in one file system",
                limit: LOWERS_MAX as u64,
            });
        }
        Ok(paths)
    }
}

fn open_directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .map_err(|error| ImageError::io("open", path)(error.into()).into())
}
