//! Cache mounts: directories that outlive builds.
//!
//! ```text
//! <root>/build/mounts/<key>[-<n>]/
//!   mount.json     what it is, when and how often it was used, how large it was after the last use
//!   data/          what steps see
//! <root>/build/mounts/new-…, gone-…   being made, being removed: nothing to keep
//! ```
//!
//! The key is the id the step names and what the directory was filled with, so that mounts that begin differently are
//! different. One step has a directory at a time, or all steps that share it; whoever shares joins those, `private` takes
//! another one (`-1`, `-2`, …), `locked` waits. A directory appears under its name whole or not at all.
//!
//! Source: buildkit `solver/llbsolver/mounts/mount.go` (`getRefCacheDir`).

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent_build::plan::{CacheSharing, Ownership};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, OnceCell};
use tokio_util::task::TaskTracker;

use crate::engine::{blocking, copy_up};
use crate::error::{Error, Result};

const DATA: &str = "data";
const RECORD: &str = "mount.json";
/// Longest record that is read.
const RECORD_MAX: u64 = 64 << 10;

/// The cache mounts of one engine. Cheap to clone; there must be one for a directory.
#[derive(Clone)]
pub(crate) struct CacheMounts(Arc<Inner>);

struct Inner {
    directory: PathBuf,
    /// Measures.
    tasks: TaskTracker,
    held: Mutex<HashMap<String, Holders>>,
    freed: Notify,
}

/// Who has a directory now.
struct Holders {
    shared: bool,
    count: usize,
    /// Set once the directory exists.
    made: Arc<OnceCell<()>>,
}

/// What a step asks for.
#[derive(Debug, Clone)]
pub(super) struct CacheRequest {
    id: String,
    sharing: CacheSharing,
    seed: Seed,
    description: String,
}

/// What a new directory is filled with.
#[derive(Debug, Clone)]
pub(super) enum Seed {
    /// Nothing; it belongs to root.
    Empty,
    /// Nothing; it belongs to somebody.
    Owned(Ownership),
    /// A copy of a tree.
    Tree {
        /// Uppermost first.
        layers: Vec<PathBuf>,
        /// What the tree is.
        identity: String,
    },
}

/// A cache mount as users see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CacheMount {
    /// Name of the directory.
    pub(crate) id: String,
    /// What it was made for.
    pub(crate) description: String,
    /// Bytes on disk.
    pub(crate) size: u64,
    pub(crate) created: Timestamp,
    pub(crate) last_used: Option<Timestamp>,
    pub(crate) uses: u64,
    /// A step has it now.
    pub(crate) in_use: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    description: String,
    created: Timestamp,
    last_used: Option<Timestamp>,
    uses: u64,
    /// Bytes on disk when it was last given back; none: not measured yet. Measuring takes as long as there are files.
    #[serde(default)]
    size: Option<u64>,
}

impl CacheRequest {
    pub(super) fn new(id: String, sharing: CacheSharing, seed: Seed) -> Self {
        Self {
            id,
            sharing,
            seed,
            description: String::new(),
        }
    }

    /// With words for people, as BuildKit has them.
    #[must_use]
    pub(super) fn described(mut self, target: Option<&str>, args: &[String]) -> Self {
        let target = target.unwrap_or_default();
        self.description = format!("cached mount {target} from exec {}", args.join(" "));
        if self.id.trim_start_matches('/') != target.trim_start_matches('/') {
            self.description
                .push_str(&format!(" with id {:?}", self.id));
        }
        self
    }

    /// The same for the same directory.
    pub(super) fn key(&self) -> String {
        let mut text = format!("{}\0", self.id);
        match &self.seed {
            Seed::Empty => {}
            Seed::Owned(Ownership { uid, gid, mode }) => {
                text.push_str(&format!("owned {uid}:{gid} {mode:o}"));
            }
            Seed::Tree { identity, .. } => text.push_str(&format!("tree {identity}")),
        }
        let digest = agent_image::Digest::of(text.as_bytes());
        digest.hex()[..32].to_owned()
    }
}

impl CacheMounts {
    /// Those in a directory, which need not exist yet.
    pub(crate) fn new(directory: PathBuf, tasks: TaskTracker) -> Self {
        Self(Arc::new(Inner {
            directory,
            tasks,
            held: Mutex::default(),
            freed: Notify::new(),
        }))
    }

    /// Waits until the step may have a directory, which [`Lease::make`] makes. May be dropped at any time.
    pub(super) async fn lease(&self, request: &CacheRequest) -> Result<Lease> {
        let key = request.key();
        loop {
            // Before looking: what is freed in between is not missed.
            let freed = self.0.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            let mounts = self.clone();
            let (wanted, sharing) = (key.clone(), request.sharing);
            let taken = blocking(move || mounts.take(&wanted, sharing)).await?;
            match taken {
                Some(lease) => return Ok(lease),
                None => freed.await,
            }
        }
    }

    /// A directory that the step may have at once. Blocks.
    fn take(&self, key: &str, sharing: CacheSharing) -> Result<Option<Lease>> {
        let mut held = self.0.held.lock();
        let mut existing = names(&self.0.directory, key);
        existing.extend(held.keys().filter(|name| is_of(name, key)).cloned());
        existing.sort();
        existing.dedup();
        let shared = sharing == CacheSharing::Shared;
        let joined = existing
            .iter()
            .find(|name| shared && held.get(*name).is_some_and(|holders| holders.shared));
        let free = existing.iter().find(|name| !held.contains_key(*name));
        let name = match (joined, free) {
            (Some(name), _) | (None, Some(name)) => name.clone(),
            (None, None) if sharing == CacheSharing::Locked && !existing.is_empty() => {
                return Ok(None);
            }
            (None, None) => (0..=existing.len())
                .map(|number| match number {
                    0 => key.to_owned(),
                    number => format!("{key}-{number}"),
                })
                .find(|name| !existing.contains(name))
                .expect("one more name than there are directories"),
        };
        let holders = held.entry(name.clone()).or_insert_with(|| Holders {
            shared,
            count: 0,
            made: Arc::default(),
        });
        holders.count += 1;
        Ok(Some(Lease {
            mounts: self.clone(),
            key: key.to_owned(),
            name,
            made: Arc::clone(&holders.made),
        }))
    }

    /// Makes a directory unless it exists. Blocks.
    fn make(&self, path: &Path, request: &CacheRequest) -> Result<()> {
        if path.exists() {
            return Ok(());
        }
        let new = self.unnamed("new")?;
        let made = fill(&new, &request.seed).and_then(|()| {
            let record = Record {
                description: request.description.clone(),
                created: Timestamp::now(),
                last_used: None,
                uses: 0,
                size: None,
            };
            write_record(&new, &record)?;
            fs::rename(&new, path).map_err(Error::io("make", path))
        });
        if made.is_err()
            && let Err(error) = agent_image::remove_tree(&new)
        {
            tracing::warn!(path = %new.display(), %error, "a half made cache mount is left");
        }
        made
    }

    /// A new directory that nothing knows.
    fn unnamed(&self, kind: &str) -> Result<PathBuf> {
        super::place::private_directory(&self.0.directory)?;
        let name = format!("{kind}-{}", hex::encode(rand::random::<[u8; 8]>()));
        let path = self.0.directory.join(name);
        fs::create_dir(&path).map_err(Error::io("create", &path))?;
        Ok(path)
    }

    /// All of them. Blocks; as long as it takes to measure those that were not measured yet.
    pub(crate) fn list(&self) -> Vec<CacheMount> {
        let Ok(entries) = fs::read_dir(&self.0.directory) else {
            return Vec::new();
        };
        let mut all: Vec<CacheMount> = entries
            .flatten()
            .filter_map(|entry| {
                let id = entry.file_name().into_string().ok()?;
                if is_unnamed(&id) {
                    return None;
                }
                let record = record_of(&entry.path())?;
                let size = record.size.unwrap_or_else(|| self.measure(&id));
                Some(CacheMount {
                    description: record.description,
                    size,
                    created: record.created,
                    last_used: record.last_used,
                    uses: record.uses,
                    in_use: self.0.held.lock().contains_key(&id),
                    id,
                })
            })
            .collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// Removes one unless a step has it; tells the bytes given back. Blocks.
    ///
    /// # Errors
    /// It is in use, does not exist, or cannot be removed.
    pub(crate) fn remove(&self, id: &str) -> Result<u64> {
        let path = self.0.directory.join(id);
        let missing = || Error::not_found(format!("no such cache mount: {id}"));
        if id.contains('/') || id.is_empty() || is_unnamed(id) || !path.join(DATA).exists() {
            return Err(missing());
        }
        let gone = self.unnamed("gone")?;
        let hidden = {
            // Out of sight while nobody can take it.
            let held = self.0.held.lock();
            match held.contains_key(id) {
                true => Err(Error::conflict(format!("cache mount {id} is in use"))),
                false => fs::rename(&path, &gone).map_err(|error| match error.kind() {
                    // Somebody else was quicker.
                    io::ErrorKind::NotFound => missing(),
                    _ => Error::io("remove", &path)(error),
                }),
            }
        };
        if hidden.is_err() {
            drop(fs::remove_dir(&gone));
        }
        hidden?;
        let size = bytes_on_disk(&gone);
        agent_image::remove_tree(&gone).map_err(Error::io("remove", &gone))?;
        Ok(size)
    }

    /// Measures a directory and remembers how large it is. Blocks as long as that takes; nobody waits for it meanwhile.
    fn measure(&self, name: &str) -> u64 {
        let path = self.0.directory.join(name);
        let size = bytes_on_disk(&path);
        // One at a time.
        let _held = self.0.held.lock();
        if let Some(mut record) = record_of(&path) {
            record.size = Some(size);
            if let Err(error) = write_record(&path, &record) {
                tracing::warn!(%error, "the size of a cache mount is not recorded");
            }
        }
        size
    }

    /// What a killed daemon was making or removing. To be asked for before the first step; what is made later has other names,
    /// so it can be removed at any time.
    pub(crate) fn left(&self) -> Left {
        let entries = fs::read_dir(&self.0.directory).into_iter().flatten();
        let entries = entries.flatten().map(|entry| entry.path());
        let unnamed = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(is_unnamed)
        };
        Left(entries.filter(unnamed).collect())
    }
}

/// Half made directories that nothing knows.
pub(crate) struct Left(Vec<PathBuf>);

impl Left {
    /// Removes them. Blocks.
    pub(crate) fn remove(self) {
        for path in self.0 {
            if let Err(error) = agent_image::remove_tree(&path) {
                tracing::warn!(path = %path.display(), %error, "a half made cache mount is left");
            }
        }
    }
}

/// A directory that a step may use. Dropping it gives it back without counting the use.
pub(super) struct Lease {
    mounts: CacheMounts,
    key: String,
    name: String,
    made: Arc<OnceCell<()>>,
}

impl Lease {
    /// Makes the directory unless it is there. `request` is the one that the lease was taken for. Must not be dropped
    /// before it has ended: what the directory is filled from would not be held any more.
    pub(super) async fn make(&self, request: &CacheRequest) -> Result<()> {
        let make = || {
            let (mounts, request) = (self.mounts.clone(), request.clone());
            let path = self.mounts.0.directory.join(&self.name);
            blocking(move || mounts.make(&path, &request))
        };
        self.made.get_or_try_init(make).await?;
        Ok(())
    }

    /// What is mounted.
    pub(super) fn data(&self) -> PathBuf {
        self.mounts.0.directory.join(&self.name).join(DATA)
    }

    pub(super) fn is_for(&self, request: &CacheRequest) -> bool {
        self.key == request.key()
    }

    /// Gives it back and counts the use. How large it is now is found out afterwards.
    pub(super) async fn release(self) {
        let (mounts, name) = (self.mounts.clone(), self.name.clone());
        let noted = blocking(move || {
            let path = self.mounts.0.directory.join(&self.name);
            // One at a time.
            let held = self.mounts.0.held.lock();
            let noted = match record_of(&path) {
                Some(mut record) => {
                    record.uses += 1;
                    record.last_used = Some(Timestamp::now());
                    record.size = None;
                    write_record(&path, &record)
                }
                None => Ok(()),
            };
            drop(held);
            noted
        });
        if let Err(error) = noted.await {
            tracing::warn!(%error, "the use of a cache mount is not recorded");
        }
        // Whoever has it now will measure it.
        if !mounts.0.held.lock().contains_key(&name) {
            let tasks = mounts.0.tasks.clone();
            tasks.spawn_blocking(move || mounts.measure(&name));
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut held = self.mounts.0.held.lock();
        if let Some(holders) = held.get_mut(&self.name) {
            holders.count -= 1;
            if holders.count == 0 {
                held.remove(&self.name);
                drop(held);
                self.mounts.0.freed.notify_waiters();
            }
        }
    }
}

fn is_unnamed(name: &str) -> bool {
    name.starts_with("new-") || name.starts_with("gone-")
}

fn is_of(name: &str, key: &str) -> bool {
    name.strip_prefix(key)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

fn names(directory: &Path, key: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_of(name, key))
        .collect()
}

fn fill(new: &Path, seed: &Seed) -> Result<()> {
    let data = new.join(DATA);
    fs::create_dir(&data).map_err(Error::io("create", &data))?;
    let failed = |error: io::Error| {
        Error::system(format!(
            "cannot fill the cache mount {}: {error}",
            data.display()
        ))
    };
    let (owner, mode) = match seed {
        Seed::Empty => ((0, 0), 0o755),
        Seed::Owned(ownership) => ((ownership.uid, ownership.gid), ownership.mode & 0o7777),
        Seed::Tree { layers, .. } => {
            copy_up(layers, "/", &data).map_err(failed)?;
            return Ok(());
        }
    };
    std::os::unix::fs::chown(&data, Some(owner.0), Some(owner.1)).map_err(failed)?;
    fs::set_permissions(&data, fs::Permissions::from_mode(mode)).map_err(failed)
}

/// What is recorded of a directory. Where that cannot be read, as after a power cut, it is used all the same, so it is shown
/// and counted from now on. `None`: it is no cache mount.
fn record_of(directory: &Path) -> Option<Record> {
    let data = fs::metadata(directory.join(DATA)).ok()?;
    Some(read_record(directory).unwrap_or_else(|| {
        Record {
            description: "cached mount".to_owned(),
            created: data
                .modified()
                .ok()
                .and_then(|time| Timestamp::try_from(time).ok())
                .unwrap_or_default(),
            last_used: None,
            uses: 0,
            size: None,
        }
    }))
}

fn read_record(directory: &Path) -> Option<Record> {
    let file = fs::File::open(directory.join(RECORD)).ok()?;
    let mut text = String::new();
    io::Read::read_to_string(&mut io::Read::take(file, RECORD_MAX), &mut text).ok()?;
    serde_json::from_str(&text).ok()
}

fn write_record(directory: &Path, record: &Record) -> Result<()> {
    let (path, new) = (directory.join(RECORD), directory.join("mount.json.new"));
    let text = serde_json::to_vec(record).expect("a record has only fields that JSON can hold");
    fs::write(&new, text)
        .and_then(|()| fs::rename(&new, &path))
        .map_err(Error::io("write", &path))
}

/// Blocks of everything below; a file with several names counts once.
fn bytes_on_disk(directory: &Path) -> u64 {
    let mut seen = std::collections::HashSet::new();
    let mut open = vec![directory.to_owned()];
    let mut bytes = 0;
    while let Some(directory) = open.pop() {
        let Ok(entries) = fs::read_dir(&directory) else {
            continue;
        };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.nlink() > 1
                && !metadata.is_dir()
                && !seen.insert((metadata.dev(), metadata.ino()))
            {
                continue;
            }
            bytes += metadata.blocks() * 512;
            if metadata.is_dir() {
                open.push(entry.path());
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests;
