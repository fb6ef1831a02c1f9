//! The directory of snapshots: making, holding, removing.
//!
//! ```text
//! new-<n>/{diff,snapshot.json} ── rename ──▶ <id>/ ── exchange with a link ──▶ <id> → <data root>/layers/<hex>
//!                                             └────── rename ──▶ doomed-<n>/ ──▶ deleted
//! ```
//!
//! A step is not worth a sync of the disk. So `snapshot.json` names the boot in which it was written: in the same boot
//! the page cache has every byte whatever became of the process, and after a crash of the machine a snapshot without
//! `synced` counts as lost. The path of a snapshot that is held stays right, whether it becomes a layer or is removed.
//! [`Snapshots::sync`] makes that mark, after a sync, for all that lack it.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use ring::rand::{SecureRandom, SystemRandom};
use rustix::fs::Mode;
use serde::{Deserialize, Serialize};

use super::error::{FilesError, Result};
use super::usage::disk_bytes;
use super::{Entry, Stack, StatCache};
use crate::digest::Digest;
use crate::error::ImageError;
use crate::store::{LayerPins, Store};

const FACTS: &str = "snapshot.json";
const SYNCED: &str = "synced";

/// Names a snapshot: 32 hex digits, never used twice.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SnapshotId(String);

impl SnapshotId {
    fn new() -> io::Result<Self> {
        let mut bytes = [0; 16];
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| io::Error::other("no random numbers"))?;
        Ok(Self(hex::encode(bytes)))
    }

    /// Nothing else is ever joined to a path.
    fn parse(name: &str) -> Option<Self> {
        let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        (name.len() == 32 && name.bytes().all(digit)).then(|| Self(name.to_owned()))
    }
}

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

/// `snapshot.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Facts {
    disk_bytes: u64,
    /// Of the boot in which it was written.
    boot: String,
}

/// Where a snapshot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Here, taking so many bytes.
    Here(u64),
    /// In the layer store.
    Layer(Digest),
}

/// The snapshots of one data root. Thread-safe; all methods block on disk.
pub struct Snapshots {
    pub(super) store: Arc<Store>,
    /// `<data root>/build`.
    root: PathBuf,
    directory: PathBuf,
    /// Number for the next temporary name.
    next: AtomicU64,
    boot: String,
    pub(super) state: Arc<Mutex<State>>,
    /// Held while snapshots are made layers of.
    pub(super) adopting: Mutex<()>,
    /// Directories of stacks that are held.
    pub(super) open: Mutex<HashMap<PathBuf, Weak<OwnedFd>>>,
    /// What was there when this was opened: all that a sweep may remove.
    old: HashSet<SnapshotId>,
    stats: Mutex<Weak<StatCache>>,
    /// Deletes what a crash left.
    sweeper: Option<JoinHandle<()>>,
}

#[derive(Default)]
pub(super) struct State {
    places: HashMap<SnapshotId, Place>,
    /// Finished and perhaps not on the disk yet.
    unsynced: HashSet<SnapshotId>,
    pub(super) holders: HashMap<SnapshotId, usize>,
    /// Removed while somebody held them: to be deleted by the last holder.
    pub(super) doomed: HashMap<SnapshotId, PathBuf>,
    /// Became layers while somebody held them: these stay as long as they are held.
    pub(super) became: HashMap<SnapshotId, LayerPins>,
}

/// A snapshot being made: an empty directory to fill. Deleted on drop unless it is finished.
pub struct Work {
    directory: PathBuf,
    diff: PathBuf,
}

impl Work {
    /// The directory to fill, in overlay form.
    pub fn diff(&self) -> &Path {
        &self.diff
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // Finished ones are no longer there under this name.
        discard(&self.directory);
    }
}

impl Snapshots {
    /// Opens the snapshots below `root` (`<data root>/build`), making directories if need be. What a crash left half-made
    /// is removed on a thread of its own.
    ///
    /// # Errors
    /// A directory cannot be made or read.
    pub fn open(store: Arc<Store>, root: &Path) -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let directory = root.join("snapshots");
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(ImageError::io("create", &directory))?;
        let boot_path = "/proc/sys/kernel/random/boot_id";
        let boot = std::fs::read_to_string(boot_path).map_err(ImageError::io("read", boot_path))?;
        let (mut old, mut leftovers) = (HashSet::new(), Vec::new());
        for entry in std::fs::read_dir(&directory).map_err(ImageError::io("read", &directory))? {
            let entry = entry.map_err(ImageError::io("read", &directory))?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if let Some(id) = SnapshotId::parse(name) {
                old.insert(id);
            } else if name.starts_with("new-") || name.starts_with("doomed-") {
                leftovers.push(entry.path());
            }
        }
        // New temporary names must not meet a leftover that is still being deleted.
        let next = leftovers
            .iter()
            .filter_map(|path| path.to_str()?.rsplit_once('-')?.1.parse::<u64>().ok())
            .max()
            .map_or(0, |last| last + 1);
        let sweeper = (!leftovers.is_empty())
            .then(|| std::thread::spawn(move || leftovers.iter().for_each(|path| discard(path))));
        Ok(Self {
            store,
            root: root.to_owned(),
            directory,
            next: AtomicU64::new(next),
            boot: boot.trim().to_owned(),
            state: Arc::default(),
            adopting: Mutex::default(),
            open: Mutex::default(),
            old,
            stats: Mutex::default(),
            sweeper,
        })
    }

    /// A new empty directory for a step to fill.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn begin(&self) -> Result<Work> {
        let work = self.work()?;
        std::fs::create_dir(&work.diff).map_err(ImageError::io("create", &work.diff))?;
        // The umask of the process has no say in what an image contains.
        rustix::fs::chmod(&work.diff, Mode::from_raw_mode(0o755))
            .map_err(|e| ImageError::io("create", &work.diff)(e.into()))?;
        Ok(work)
    }

    /// Makes a snapshot of what was written. It is not synced: see [`Snapshots::sync`].
    ///
    /// # Errors
    /// It cannot be measured or renamed.
    pub fn finish(&self, work: Work) -> Result<Snapshot> {
        let facts = Facts {
            disk_bytes: disk_bytes(&work.diff).map_err(ImageError::io("measure", &work.diff))?,
            boot: self.boot.clone(),
        };
        let path = work.directory.join(FACTS);
        let json = serde_json::to_vec(&facts).expect("plain data has a JSON form");
        std::fs::write(&path, json).map_err(ImageError::io("write", &path))?;
        let id = SnapshotId::new().map_err(ImageError::io("name", &work.directory))?;
        let path = self.path(&id);
        std::fs::rename(&work.directory, &path).map_err(ImageError::io("create", &path))?;
        let mut state = self.state.lock();
        state.unsynced.insert(id.clone());
        let place = Place::Here(facts.disk_bytes);
        state.places.insert(id.clone(), place);
        Ok(Snapshot {
            id,
            disk_bytes: facts.disk_bytes,
        })
    }

    /// Makes a snapshot of a directory in overlay form on the same file system (the upper directory of an unmounted
    /// overlay), which is renamed.
    ///
    /// # Errors
    /// It cannot be measured or renamed.
    pub fn take(&self, directory: &Path) -> Result<Snapshot> {
        let work = self.work()?;
        std::fs::rename(directory, &work.diff).map_err(ImageError::io("rename", directory))?;
        self.finish(work)
    }

    /// Whether every entry of the stack is there and whole; opens nothing.
    pub fn contains(&self, stack: &Stack) -> bool {
        let mut state = self.state.lock();
        stack.entries.iter().all(|entry| match entry {
            Entry::Layer(diff_id) => self.store.has_layer(diff_id),
            Entry::Loose(id) => match self.place(&mut state, id) {
                Some(Place::Layer(diff_id)) => self.store.has_layer(&diff_id),
                place => place.is_some(),
            },
        })
    }

    /// The layer of the image store that an entry is or became, if it did.
    pub fn layer_of(&self, entry: &Entry) -> Option<Digest> {
        match entry {
            Entry::Layer(diff_id) => Some(*diff_id),
            Entry::Loose(id) => match self.place(&mut self.state.lock(), id)? {
                Place::Layer(diff_id) => Some(diff_id),
                Place::Here(_) => None,
            },
        }
    }

    /// Bytes on the disk of a snapshot that is no layer; 0 for one that is lost, and for layers.
    pub fn disk_bytes(&self, entry: &Entry) -> u64 {
        match entry {
            Entry::Layer(_) => 0,
            Entry::Loose(id) => match self.place(&mut self.state.lock(), id) {
                Some(Place::Here(bytes)) => bytes,
                Some(Place::Layer(_)) | None => 0,
            },
        }
    }

    /// Makes sure that snapshots finished so far survive a crash of the machine (one sync of the file system). Without it they
    /// survive crashes of the process only, and are lost, but never torn, by the machine's. To be called off the path of a
    /// build's answer.
    ///
    /// # Errors
    /// The disk's.
    pub fn sync(&self) -> Result<()> {
        let ids = std::mem::take(&mut self.state.lock().unsynced);
        if ids.is_empty() {
            return Ok(());
        }
        let synced = File::open(&self.directory)
            .map_err(ImageError::io("open", &self.directory))
            .and_then(|directory| {
                rustix::fs::syncfs(&directory)
                    .map_err(|e| ImageError::io("sync", &self.directory)(e.into()))
            });
        if let Err(error) = synced {
            self.state.lock().unsynced.extend(ids);
            return Err(error.into());
        }
        for id in ids {
            // One that went meanwhile needs no mark.
            let _ = File::create(self.path(&id).join(SYNCED));
        }
        Ok(())
    }

    /// Removes entries of stacks that no cache record names any more; `named` are those that are. Snapshots go out of sight
    /// at once and from the disk when nobody holds them; layers are released in the store unless a named snapshot became the same
    /// layer. What is not there is passed over. Returns the bytes of the snapshots.
    ///
    /// # Errors
    /// The first one; the others are removed.
    pub fn remove(&self, gone: &[Entry], named: &HashSet<Entry>) -> Result<u64> {
        let gone = gone.iter().filter(|entry| !named.contains(*entry));
        let mut layers: HashSet<Digest> = HashSet::new();
        let mut bytes = 0;
        let mut failed = None;
        for entry in gone {
            layers.extend(self.layer_of(entry));
            if let Entry::Loose(id) = entry {
                match self.doom(id) {
                    Ok(freed) => bytes += freed,
                    Err(error) => failed = Some(error),
                }
            }
        }
        if !layers.is_empty() {
            for entry in named {
                if let Some(diff_id) = self.layer_of(entry) {
                    layers.remove(&diff_id);
                }
            }
            let layers: Vec<Digest> = layers.into_iter().collect();
            self.store.release(&layers)?;
        }
        failed.map_or(Ok(bytes), Err)
    }

    /// Removes every snapshot that was there when this was opened and that `named` does not have, and releases every kept layer
    /// that none of `named` is. To be called once, before the first build keeps anything. Returns the bytes of the snapshots.
    ///
    /// # Errors
    /// As [`Snapshots::remove`].
    pub fn sweep(&self, named: &HashSet<Entry>) -> Result<u64> {
        let mut gone: Vec<Entry> = self.old.iter().cloned().map(Entry::Loose).collect();
        gone.extend(self.store.kept()?.into_iter().map(Entry::Layer));
        self.remove(&gone, named)
    }

    /// The snapshots there are, with their sizes; those that became layers count nothing.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list(&self) -> Result<Vec<Snapshot>> {
        let mut found = Vec::new();
        let directory = &self.directory;
        for entry in std::fs::read_dir(directory).map_err(ImageError::io("read", directory))? {
            let entry = entry.map_err(ImageError::io("read", directory))?;
            let Some(id) = entry.file_name().to_str().and_then(SnapshotId::parse) else {
                continue;
            };
            let disk_bytes = match self.place(&mut self.state.lock(), &id) {
                Some(Place::Here(bytes)) => bytes,
                _ => 0,
            };
            found.push(Snapshot { id, disk_bytes });
        }
        found.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(found)
    }

    /// The digests of unchanged files of contexts. Read at the first call, written and forgotten when the last user drops it.
    pub fn stat_cache(&self) -> Arc<StatCache> {
        let mut stats = self.stats.lock();
        if let Some(stats) = stats.upgrade() {
            return stats;
        }
        let opened = Arc::new(StatCache::open(self.root.join("stat-cache")));
        *stats = Arc::downgrade(&opened);
        opened
    }

    pub(super) fn path(&self, id: &SnapshotId) -> PathBuf {
        self.directory.join(&id.0)
    }

    /// Where a snapshot is; `None` when it is lost.
    pub(super) fn place(&self, state: &mut State, id: &SnapshotId) -> Option<Place> {
        if let Some(place) = state.places.get(id) {
            return Some(*place);
        }
        if state.doomed.contains_key(id) {
            return None;
        }
        SnapshotId::parse(&id.0)?;
        let path = self.path(id);
        let place = if let Ok(layer) = std::fs::read_link(&path) {
            let diff_id = Digest::from_hex(layer.file_name()?.to_str()?).ok()?;
            if !self.store.has_layer(&diff_id) {
                return None;
            }
            Place::Layer(diff_id)
        } else {
            let json = std::fs::read(path.join(FACTS)).ok()?;
            let facts: Facts = serde_json::from_slice(&json).ok()?;
            if !path.join(SYNCED).exists() {
                if facts.boot != self.boot {
                    return None;
                }
                state.unsynced.insert(id.clone());
            }
            Place::Here(facts.disk_bytes)
        };
        state.places.insert(id.clone(), place);
        Some(place)
    }

    /// The place of a snapshot that is to become a layer.
    pub(super) fn place_of(&self, id: &SnapshotId) -> Result<Place> {
        self.place(&mut self.state.lock(), id)
            .ok_or_else(|| FilesError::Lost(id.clone()))
    }

    /// The snapshot is the layer `diff_id` from now on. If its directory did not move to the store, because that had the layer,
    /// a link takes its place.
    pub(super) fn adopted(&self, id: &SnapshotId, diff_id: Digest, moved: bool) -> Result<()> {
        let path = self.path(id);
        let (diff, _) = self.store.layer_directory(&diff_id)?;
        if moved {
            // They came along and mean nothing there; nobody minds if they stay.
            let _ = std::fs::remove_file(diff.with_file_name(FACTS));
            let _ = std::fs::remove_file(diff.with_file_name(SYNCED));
        }
        let layer_pins = Store::pin_layers(&self.store, &[diff_id])?;
        let mut state = self.state.lock();
        state.unsynced.remove(id);
        let is_held = state.holders.contains_key(id);
        if !moved {
            let to = self.temporary("doomed");
            let layer = diff.parent().unwrap_or(&diff);
            std::os::unix::fs::symlink(layer, &to).map_err(ImageError::io("create", &to))?;
            crate::layers::exchange(&path, &to).map_err(ImageError::io("create", &path))?;
            match is_held {
                true => drop(state.doomed.insert(id.clone(), to)),
                false => discard(&to),
            }
        }
        state.places.insert(id.clone(), Place::Layer(diff_id));
        if is_held {
            state.became.insert(id.clone(), layer_pins);
        }
        Ok(())
    }

    /// Removes a snapshot, now or when the last holder lets go. Returns the bytes it had.
    fn doom(&self, id: &SnapshotId) -> Result<u64> {
        let path = self.path(id);
        let mut state = self.state.lock();
        let bytes = match self.place(&mut state, id) {
            Some(Place::Here(bytes)) => bytes,
            _ => 0,
        };
        state.places.remove(id);
        state.unsynced.remove(id);
        match std::fs::symlink_metadata(&path) {
            // Its path is in use.
            Ok(_) if state.holders.contains_key(id) => {
                state.doomed.insert(id.clone(), path);
            }
            Ok(metadata) if metadata.is_dir() => {
                let to = self.temporary("doomed");
                std::fs::rename(&path, &to).map_err(ImageError::io("remove", &path))?;
                drop(state);
                discard(&to);
            }
            Ok(_) => std::fs::remove_file(&path).map_err(ImageError::io("remove", &path))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(ImageError::io("remove", &path)(error).into()),
        }
        Ok(bytes)
    }

    fn work(&self) -> Result<Work> {
        let directory = self.temporary("new");
        std::fs::create_dir(&directory).map_err(ImageError::io("create", &directory))?;
        Ok(Work {
            diff: directory.join("diff"),
            directory,
        })
    }

    fn temporary(&self, prefix: &str) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.directory.join(format!("{prefix}-{number}"))
    }
}

impl Drop for Snapshots {
    fn drop(&mut self) {
        if let Some(sweeper) = self.sweeper.take() {
            // A panic there has been reported by the panic hook; nothing depends on its result.
            let _ = sweeper.join();
        }
    }
}

/// Deletes a directory, or the link in its place, that nobody refers to; what cannot be deleted now is when the snapshots are
/// opened again.
pub(super) fn discard(path: &Path) {
    let removed = match path.is_symlink() {
        true => std::fs::remove_file(path),
        false => crate::remove::remove_tree(path),
    };
    if let Err(error) = removed
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "cannot remove a snapshot");
    }
}
