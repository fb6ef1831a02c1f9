//! The image store: every operation on images that the Engine API offers, except those that need a registry.
//! One file per operation; here are opening, the in-memory index and the one way to change it.
//!
//! Readers take a snapshot of the index and never wait for a writer's disk. Writers go one at a time through
//! [`Store::change`]:
//!
//! ```text
//! sync layers, or ─▶ mark "unsettled" ─▶ note them ─▶ rename layers ─▶ blobs ─▶ index.json ─▶ swap snapshot ─▶ unmark
//! ```
//!
//! Layers that can be brought again are not synced but noted ([`unsynced`]), and synced after the answer.
//!
//! A crash before `index.json` leaves layers and blobs nobody names; the mark makes the next opening look for them.

mod add;
mod adopt;
mod artifact;
mod changes;
mod commit;
mod content;
mod downloads;
mod history;
mod hold;
mod import;
mod index;
mod inspect;
mod keep;
mod last_use;
mod layout;
mod list;
mod load;
mod partial;
mod prune;
mod pull;
mod push;
mod remove;
mod save;
mod tag;
mod transfer;
mod unsynced;
mod usage;
mod workers;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};

pub(crate) use adopt::LayerPins;
pub use artifact::ArtifactConfig;
pub(crate) use commit::pack_error;
pub use commit::{CommitOptions, export};
pub use history::HistoryEntry;
pub use hold::{HeldFor, Hold};
pub use import::ImportOptions;
pub use inspect::Image;
pub use layout::{Layout, LayoutRequest, Packing};
pub use list::ListFilter;
pub use load::{LoadOptions, Loaded};
pub use prune::{PruneFilter, Pruned};
pub use pull::{PullRequest, Pulled};
pub use push::{PushRequest, Pushed};
pub use remove::{ImageUse, RemoveOptions, Removed};
pub use save::Selection;
pub use transfer::{Accept, BlobSource, Offer};
pub use usage::{DiskUsage, ImageUsage};

use crate::config::ImageConfig;
use crate::digest::{Digest, ImageId};
use crate::error::ImageError;
use crate::layers::{LayerStore, Unfinished};
use crate::limits::Limits;
use crate::registry::Partials;
use content::Content;
use downloads::Downloads;
use hold::Holds;
use index::Catalog;
use unsynced::Unsynced;

type Result<T> = std::result::Result<T, ImageError>;

/// The images of one data root. Thread-safe; all methods block on disk.
pub struct Store {
    content: Content,
    layers: LayerStore,
    limits: Limits,
    catalog: RwLock<Arc<Catalog>>,
    /// Parsed configurations, read when first asked for.
    configs: Mutex<HashMap<ImageId, Arc<ImageConfig>>>,
    /// Held while the index changes.
    writing: Mutex<()>,
    /// Layers that a load in flight counts on.
    pinned: Mutex<HashMap<Digest, usize>>,
    /// Images that somebody is at who is no container.
    held: Arc<Mutex<Holds>>,
    /// A change failed half-way: the mark stays until the next opening has cleaned up.
    keep_mark: AtomicBool,
    /// What interrupted pulls have.
    partials: Partials,
    /// Layers that pulls are downloading.
    downloads: Downloads,
    /// Layers that may not be on the disk yet.
    unsynced: Unsynced,
    /// Locked for as long as the store is open.
    _lock: File,
}

/// What a change adds besides editing the index.
#[derive(Default)]
struct Additions {
    layers: Vec<Unfinished>,
    /// Layers that other pulls may add, too; pinned.
    shared: Vec<Arc<Unfinished>>,
    /// Configurations and manifests.
    blobs: Vec<Vec<u8>>,
    /// Images that are there afterwards and count as used then, before anybody can remove them again.
    used: Vec<ImageId>,
    durability: Durability,
}

/// When layers have to be on the disk.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Durability {
    /// Before an image has them: nobody could bring them again.
    #[default]
    First,
    /// Soon: whoever has brought them can do so again.
    Later,
}

impl Additions {
    fn has_layers(&self) -> bool {
        !(self.layers.is_empty() && self.shared.is_empty())
    }
}

impl Store {
    /// Opens the store below `root`, making it if need be. Only one process can have it open. What a crash left
    /// behind is removed, unfinished layers on a thread of their own.
    pub fn open(root: &Path, limits: Limits) -> Result<Self> {
        let content = Content::open(&root.join("content"))?;
        let lock_path = content.root().join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(ImageError::io("open", &lock_path))?;
        if rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(ImageError::Locked(root.to_owned()));
        }
        let layers = LayerStore::open(&root.join("layers"), &limits)?;
        let catalog = Catalog::read(&content.root().join("index.json"))?;
        let partials = Partials::new(content.root().join("partial"));
        let (unsynced, doubtful) = Unsynced::open(content.root(), layers.root())?;
        let store = Self {
            content,
            layers,
            limits,
            catalog: RwLock::new(Arc::new(catalog)),
            configs: Mutex::default(),
            writing: Mutex::default(),
            pinned: Mutex::default(),
            held: Arc::default(),
            keep_mark: AtomicBool::new(false),
            partials,
            downloads: Downloads::default(),
            unsynced,
            _lock: lock,
        };
        if store.unsettled().exists() {
            store.settle()?;
        }
        if !doubtful.is_empty() {
            store.distrust(&doubtful)?;
        }
        store.unsynced.sync_later();
        Ok(store)
    }

    /// The image's layers as overlay directories, top first; of one that was removed by force too, as long as containers made
    /// from it are left. They are shared and must not be written to. Of a layer that occurs
    /// several times only the uppermost is there: overlayfs refuses a directory twice, and the others could not be seen.
    pub fn layers(&self, id: &ImageId) -> Result<Vec<PathBuf>> {
        let mut stack = Vec::new();
        for diff_id in self.config(id)?.rootfs.diff_ids.iter().rev() {
            let directory = self.layers.diff(diff_id);
            if !stack.contains(&directory) {
                stack.push(directory);
            }
            if self.layers.get(diff_id)?.opaque_root {
                break;
            }
        }
        Ok(stack)
    }

    fn snapshot(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog.read())
    }

    /// The configuration of an image that is in the index, departed or not.
    fn config(&self, id: &ImageId) -> Result<Arc<ImageConfig>> {
        if let Some(config) = self.configs.lock().get(id) {
            return Ok(Arc::clone(config));
        }
        if !self.is_here(id) {
            return Err(ImageError::NoSuchImage(id.to_string()));
        }
        let bytes = self.content.get(id.digest())?;
        let config = ImageConfig::from_json(&bytes).map_err(|error| ImageError::Damaged {
            path: self.content.root().join(id.to_string()),
            reason: error.to_string(),
        })?;
        let config = Arc::new(config);
        let mut configs = self.configs.lock();
        // Removal forgets it after it has swapped the index.
        if self.is_here(id) {
            configs.insert(*id, Arc::clone(&config));
        }
        Ok(config)
    }

    /// Whether an image is in the index now, departed or not.
    fn is_here(&self, id: &ImageId) -> bool {
        self.snapshot().record(id).is_some()
    }

    /// Changes the index. `edit` works on a copy; if it fails, nothing has happened.
    /// Afterwards, layers and blobs that no image needs any more are removed; returns the layers among them.
    fn change<T>(
        &self,
        mut additions: Additions,
        edit: impl FnOnce(&mut Catalog) -> Result<T>,
    ) -> Result<(T, Vec<Digest>)> {
        let is_later = additions.has_layers() && additions.durability == Durability::Later;
        if additions.has_layers() && !is_later {
            // Before the lock, since it may take long and nobody sees these files yet.
            self.sync_layers()?;
        }
        let writing = self.writing.lock();
        let before = self.snapshot();
        let mut after = Catalog::clone(&before);
        let outcome = edit(&mut after)?;
        // What came back has not departed.
        let Catalog {
            images, departed, ..
        } = &mut after;
        departed.retain(|id, _| !images.contains_key(id));
        let gone = gone(&before, &after);
        let mut orphans = self.orphans(&gone, &after)?;
        if orphans.later {
            self.keep_mark.store(true, Ordering::Relaxed);
        }
        let added = additions.blobs.iter().map(|blob| Digest::of(blob));
        let needed = after.blobs();
        orphans.blobs = before.blobs().into_iter().chain(added).collect();
        orphans.blobs.retain(|blob| !needed.contains(blob));

        let moves_files = additions.has_layers()
            || !(additions.blobs.is_empty() && gone.is_empty() && orphans.blobs.is_empty());
        if moves_files {
            self.begin()?;
        }
        let used = std::mem::take(&mut additions.used);
        let result = self.apply(additions, after, &gone, &orphans);
        if result.is_err() {
            self.keep_mark.store(true, Ordering::Relaxed);
        }
        let doomed = result?;
        if moves_files {
            self.end()?;
        }
        used.iter().for_each(|id| self.used(id));
        drop(writing);
        if is_later {
            self.unsynced.sync_later();
        }
        self.layers.discard(doomed);
        self.content.keep_back();
        Ok((outcome, orphans.layers.into_iter().collect()))
    }

    fn apply(
        &self,
        additions: Additions,
        after: Catalog,
        gone: &[ImageId],
        orphans: &Orphans,
    ) -> Result<Vec<PathBuf>> {
        let adds_layers = additions.has_layers();
        if adds_layers && additions.durability == Durability::Later {
            let own = additions.layers.iter().map(|layer| layer.layer.diff_id);
            let shared = additions.shared.iter().map(|layer| layer.layer.diff_id);
            self.unsynced.note(own.chain(shared))?;
        }
        for layer in additions.layers {
            self.layers.commit(layer)?;
        }
        for layer in additions.shared {
            let facts = layer.layer.clone();
            self.layers.commit_directory(layer.path(), facts)?;
        }
        if adds_layers {
            content::sync_directory(self.layers.root())?;
        }
        for blob in &additions.blobs {
            self.content.put(blob)?;
        }
        after.write(&self.content.root().join("index.json"))?;
        *self.catalog.write() = Arc::new(after);
        for id in gone {
            self.configs.lock().remove(id);
        }
        let doomed = self.detach(&orphans.layers)?;
        for blob in &orphans.blobs {
            self.content.remove(blob)?;
        }
        Ok(doomed)
    }

    /// Brings everything that was unpacked to disk, all layers at once.
    fn sync_layers(&self) -> Result<()> {
        self.unsynced.sync()
    }

    /// Removes layers that the end of an earlier boot may have torn, and the images that need them.
    fn distrust(&self, doubtful: &[Digest]) -> Result<()> {
        let doubtful: HashSet<Digest> = doubtful.iter().copied().collect();
        let catalog = self.snapshot();
        let mut lost = HashSet::new();
        for id in catalog.ids() {
            let config = self.readable(id);
            if config.is_some_and(|config| {
                config
                    .rootfs
                    .diff_ids
                    .iter()
                    .any(|id| doubtful.contains(id))
            }) {
                let names: Vec<String> = catalog
                    .names_of(id)
                    .iter()
                    .map(|name| name.familiar())
                    .collect();
                tracing::error!(
                    image.id = %id,
                    image.names = names.join(", "),
                    "the machine stopped before the image was on the disk, so it may be damaged and is removed: pull or load it again"
                );
                lost.insert(*id);
            }
        }
        self.change(Additions::default(), |catalog| {
            catalog.images.retain(|id, _| !lost.contains(id));
            catalog.departed.retain(|id, _| !lost.contains(id));
            catalog.names.retain(|_, id| !lost.contains(id));
            Ok(())
        })?;
        let writing = self.writing.lock();
        // Those that the build cache keeps as well, and those that had no image yet.
        let here = doubtful.iter().filter(|id| self.layers.contains(id));
        let doomed = self.layers.detach(here)?;
        content::sync_directory(self.layers.root())?;
        drop(writing);
        self.layers.discard_later(doomed);
        self.unsynced.forget()
    }

    /// The layers that the images `gone` needed and no image in `after` needs.
    fn orphans(&self, gone: &[ImageId], after: &Catalog) -> Result<Orphans> {
        let mut orphans = Orphans::default();
        if gone.is_empty() {
            return Ok(orphans);
        }
        for id in gone {
            match self.readable(id) {
                Some(config) => orphans.layers.extend(&config.rootfs.diff_ids),
                // Which layers it had is not known: the next opening finds them.
                None => orphans.later = true,
            }
        }
        match self.needed(after) {
            Some(needed) => orphans.layers.retain(|diff_id| !needed.contains(diff_id)),
            None => orphans.layers.clear(),
        }
        let pinned = self.pinned.lock();
        // Whoever has pinned them removes them, unless the process dies before.
        orphans.later |= orphans.layers.iter().any(|id| pinned.contains_key(id));
        orphans.layers = self.unneeded(&orphans.layers, &pinned)?;
        Ok(orphans)
    }

    /// Removes those of `candidates` that no image needs.
    fn collect(&self, candidates: &HashSet<Digest>) -> Result<()> {
        let writing = self.writing.lock();
        let doomed = self.detach_unneeded(candidates)?;
        drop(writing);
        self.layers.discard(doomed);
        Ok(())
    }

    /// Takes those of `candidates` out of sight that no image needs. The caller has the writers' lock.
    fn detach_unneeded(&self, candidates: &HashSet<Digest>) -> Result<Vec<PathBuf>> {
        let Some(needed) = self.needed(&self.snapshot()) else {
            self.keep_mark.store(true, Ordering::Relaxed);
            return Ok(Vec::new());
        };
        self.detach(&candidates.difference(&needed).copied().collect())
    }

    /// The layers that images of `catalog` have, which are in the index already. `None` if one of them cannot be read: then no
    /// layer can be said not to be needed. The caller keeps the index from changing.
    fn needed(&self, catalog: &Catalog) -> Option<HashSet<Digest>> {
        let mut needed = HashSet::new();
        for id in catalog.ids() {
            needed.extend(self.readable(id)?.rootfs.diff_ids.iter().copied());
        }
        Some(needed)
    }

    /// The configuration of an image. `None`: it has just been removed, or cannot be read; then the log says why.
    fn readable(&self, id: &ImageId) -> Option<Arc<ImageConfig>> {
        match self.config(id) {
            Ok(config) => Some(config),
            Err(error) => {
                if self.is_here(id) {
                    tracing::error!(image.id = %id, %error, "cannot read an image");
                }
                None
            }
        }
    }

    /// Takes layers out of sight, except those that are pinned or kept by now.
    fn detach(&self, diff_ids: &HashSet<Digest>) -> Result<Vec<PathBuf>> {
        let pinned = self.pinned.lock();
        if diff_ids.iter().any(|id| pinned.contains_key(id)) {
            self.keep_mark.store(true, Ordering::Relaxed);
        }
        self.layers.detach(self.unneeded(diff_ids, &pinned)?.iter())
    }

    /// Those of `diff_ids` that are here and neither pinned nor kept.
    fn unneeded(
        &self,
        diff_ids: &HashSet<Digest>,
        pinned: &HashMap<Digest, usize>,
    ) -> Result<HashSet<Digest>> {
        let mut unneeded = HashSet::new();
        for diff_id in diff_ids {
            let free = self.layers.contains(diff_id) && !pinned.contains_key(diff_id);
            if free && !self.is_kept(diff_id)? {
                unneeded.insert(*diff_id);
            }
        }
        Ok(unneeded)
    }

    /// Finishes what a crash interrupted: removes layers and blobs that no image needs.
    fn settle(&self) -> Result<()> {
        let _writing = self.writing.lock();
        let catalog = self.snapshot();
        let needed = self.needed(&catalog);
        if let Some(needed) = &needed {
            let all = self.layers.all().into_iter();
            let orphans: HashSet<Digest> = all.filter(|id| !needed.contains(id)).collect();
            let doomed = self.detach(&orphans)?;
            self.layers.discard_later(doomed);
        }
        let blobs = catalog.blobs();
        self.content.sweep(|digest| blobs.contains(digest))?;
        if needed.is_none() {
            // An image cannot be read, so no layer can be said not to be needed. It may be readable, or gone, the next time.
            self.keep_mark.store(true, Ordering::Relaxed);
        }
        self.end()
    }

    /// Notes that files are about to go: the next opening looks for what nobody needs, unless [`Store::end`] comes first. The
    /// caller has the writers' lock.
    fn begin(&self) -> Result<()> {
        let mark = self.unsettled();
        File::create(&mark).map_err(ImageError::io("create", &mark))?;
        content::sync_directory(self.content.root())
    }

    /// Nothing is left over, unless something before has left the next opening to look.
    fn end(&self) -> Result<()> {
        if self.keep_mark.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mark = self.unsettled();
        std::fs::remove_file(&mark).map_err(ImageError::io("remove", &mark))
    }

    fn unsettled(&self) -> PathBuf {
        self.content.root().join("unsettled")
    }
}

/// What a change leaves without anybody who needs it.
#[derive(Default)]
struct Orphans {
    layers: HashSet<Digest>,
    blobs: HashSet<Digest>,
    /// There are more, which cannot be named or removed now.
    later: bool,
}

/// The images that a change took out of the index altogether.
fn gone(before: &Catalog, after: &Catalog) -> Vec<ImageId> {
    let gone = before.ids().filter(|id| after.record(id).is_none());
    gone.copied().collect()
}

/// Counts one user of `key` less.
fn release<K: std::hash::Hash + Eq>(users: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = users.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            users.remove(key);
        }
    }
}
