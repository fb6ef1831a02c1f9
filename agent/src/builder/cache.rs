//! The build cache: which results are known, by key; who uses them; what goes when they are removed.
//!
//! ```text
//! insert   snapshot is there ─▶ layers kept ─▶ found by its keys ─▶ record written, off the path of the build
//! remove   record erased ─▶ snapshots removed ─▶ layers released
//! open     records read; snapshots and kept layers that no record names are removed
//! ```
//!
//! A crash between two arrows leaves only what opening removes. A result that a running build uses, or that another
//! result is made on, is not removed. Must not: know steps, plans or clients.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent_image::build::{Entry, FilesError, Held, Snapshots};
use agent_image::{Digest, ImageError, Store};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio_util::task::TaskTracker;

use super::records::{self, Record};
use super::shares::{removable, shares};
use super::solve::Key;
use crate::error::{Error, Result};

/// Keys of one result. A step whose inputs stay the same while what they are made by changes has one more with each change.
const KEYS_MAX: usize = 64;
/// Those of them that are never forgotten: the first ones, among which are those of content.
const KEYS_FIRST: usize = 4;

/// The cache of one data root. All methods block on disk.
pub(crate) struct Cache {
    directory: PathBuf,
    store: Arc<Store>,
    snapshots: Snapshots,
    tasks: TaskTracker,
    table: Mutex<Table>,
    /// Layers that are marked in the store. Held while marks are made or taken off.
    kept: Mutex<HashSet<Digest>>,
    /// Held while records are written.
    writing: Mutex<()>,
}

#[derive(Default)]
struct Table {
    records: HashMap<String, Arc<Record>>,
    keys: HashMap<Key, String>,
    /// Running builds that use a record.
    leases: HashMap<String, usize>,
    /// Records that have changed since they were written.
    dirty: HashSet<String>,
}

/// A result in use by a build. Dropping it lets the result go when it is removed.
pub(crate) struct Lease {
    cache: Arc<Cache>,
    record: Arc<Record>,
    /// Until this is dropped.
    held: Option<Held>,
}

impl Lease {
    /// The result.
    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// Its files.
    pub(crate) fn held(&self) -> &Held {
        self.held.as_ref().expect("it is held until it is dropped")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.cache.unlease(&self.record.id);
        // The last one who holds what was removed deletes it: not on a thread that others wait for.
        let held = self.held.take();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let tasks = &self.cache.tasks;
            drop(tasks.spawn_blocking_on(move || drop(held), &runtime));
        }
    }
}

/// One line of `du`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CacheRecord {
    /// Names it.
    pub(crate) id: String,
    /// The results it is made on.
    pub(crate) parents: Vec<String>,
    /// `regular`, `source.local`, `exec.cachemount` …
    pub(crate) kind: &'static str,
    /// Steps may write to it.
    pub(crate) mutable: bool,
    /// The step's name.
    pub(crate) description: String,
    /// A running build uses it.
    pub(crate) in_use: bool,
    /// Images have it, too: removing it frees nothing.
    pub(crate) shared: bool,
    /// Bytes.
    pub(crate) size: u64,
    /// Those of them that are not in layers of the image store.
    pub(crate) loose: u64,
    /// When it was made.
    pub(crate) created: Timestamp,
    /// When a build last used it.
    pub(crate) last_used: Option<Timestamp>,
    /// How many builds have used it.
    pub(crate) uses: u64,
}

impl Cache {
    /// Opens the cache below `root` (`<data root>/build`) and removes what a crash left.
    pub(crate) fn open(root: &Path, store: Arc<Store>, tasks: TaskTracker) -> Result<Arc<Self>> {
        let directory = root.join("records");
        let snapshots = Snapshots::open(Arc::clone(&store), root).map_err(files)?;
        let mut read = records::read_all(&directory).map_err(Error::io("read", &directory))?;
        // A key that two records were written with is the later one's.
        read.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        let mut table = Table::default();
        for record in read {
            table.add(Arc::new(record));
        }
        if let Err(error) = snapshots.sweep(&table.named()) {
            tracing::warn!(%error, "cannot remove what no record of the build cache names");
        }
        Ok(Arc::new(Self {
            directory,
            store,
            snapshots,
            tasks,
            kept: Mutex::default(),
            writing: Mutex::default(),
            table: Mutex::new(table),
        }))
    }

    /// Where results are.
    pub(crate) fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }

    /// Whether a result is recorded under a key. Does not block.
    pub(crate) fn knows(&self, key: &Key) -> bool {
        self.table.lock().keys.contains_key(key)
    }

    /// Results were of use to a build, which stands on them. Does not block.
    pub(crate) fn touch(&self, keys: &[Key]) {
        let (mut table, now) = (self.table.lock(), Timestamp::now());
        for key in keys {
            let Some(id) = table.keys.get(key).cloned() else {
                continue;
            };
            if let Some(slot) = table.records.get_mut(&id) {
                Arc::make_mut(slot).last_used = Some(now);
                table.dirty.insert(id);
            }
        }
    }

    /// The result of a key, if it is still there.
    pub(crate) fn find(self: &Arc<Self>, key: &Key) -> Option<Lease> {
        let record = {
            let mut table = self.table.lock();
            let id = table.keys.get(key)?.clone();
            let record = Arc::clone(table.records.get(&id)?);
            *table.leases.entry(id).or_default() += 1;
            record
        };
        match self.snapshots.hold(&record.stack) {
            Ok(held) => {
                let lease = Lease {
                    cache: Arc::clone(self),
                    record,
                    held: Some(held),
                };
                Some(self.used(lease))
            }
            Err(error) => {
                self.unlease(&record.id);
                if is_loss(&error) {
                    tracing::info!(cache.id = record.id, %error, "a cached result is lost");
                    let _ = self.remove(std::slice::from_ref(&record.id));
                } else {
                    tracing::warn!(cache.id = record.id, %error, "a cached result cannot be used now");
                }
                None
            }
        }
    }

    fn unlease(&self, id: &str) {
        let mut table = self.table.lock();
        if let Some(count) = table.leases.get_mut(id) {
            *count -= 1;
            if *count == 0 {
                table.leases.remove(id);
            }
        }
    }

    fn used(&self, mut lease: Lease) -> Lease {
        let mut table = self.table.lock();
        if let Some(slot) = table.records.get_mut(&lease.record.id) {
            let record = Arc::make_mut(slot);
            record.last_used = Some(Timestamp::now());
            record.uses += 1;
            lease.record = Arc::clone(slot);
            table.dirty.insert(lease.record.id.clone());
        }
        drop(table);
        lease
    }

    /// Remembers a result and leases it. It is written by the next [`Cache::flush`].
    pub(crate) fn insert(self: &Arc<Self>, record: Record) -> Result<Lease> {
        let held = self.snapshots.hold(&record.stack).map_err(files)?;
        let record = Arc::new(record);
        {
            let mut kept = self.kept.lock();
            let mut new = layers(&record.stack.entries);
            new.retain(|layer| !kept.contains(layer));
            self.store.keep(&new)?;
            kept.extend(new);
            let mut table = self.table.lock();
            table.add(Arc::clone(&record));
            table.dirty.insert(record.id.clone());
            *table.leases.entry(record.id.clone()).or_default() += 1;
        }
        Ok(Lease {
            cache: Arc::clone(self),
            record,
            held: Some(held),
        })
    }

    /// Lets a result be found by further keys, and no other one by them. Does not block.
    pub(crate) fn also(&self, id: &str, keys: &[Key]) {
        self.table.lock().also(id, keys);
    }

    /// Writes the records that have changed.
    pub(crate) fn flush(&self) {
        let _writing = self.writing.lock();
        let dirty: Vec<Arc<Record>> = {
            let mut table = self.table.lock();
            let ids = std::mem::take(&mut table.dirty);
            let record = |id: &String| table.records.get(id).cloned();
            ids.iter().filter_map(record).collect()
        };
        for record in dirty {
            if let Err(error) = record.write(&self.directory) {
                tracing::warn!(cache.id = record.id, %error, "cannot write a record of the build cache");
            }
        }
    }

    /// Writes what has changed, and brings new snapshots safely to the disk. For when a build has answered.
    pub(crate) fn settle(&self) {
        let lost: Vec<String> = self.table.lock().keyless();
        if !lost.is_empty()
            && let Err(error) = self.remove(&lost)
        {
            tracing::warn!(%error, "cannot remove results that nothing can find");
        }
        self.flush();
        if let Err(error) = self.snapshots.sync() {
            tracing::warn!(%error, "cannot sync the build cache");
        }
    }

    /// Everything that is cached, the oldest first. Sizes count no layer twice.
    pub(crate) fn list(&self) -> Result<Vec<CacheRecord>> {
        let needed = self.store.needed_by_images();
        let table = self.table.lock();
        let mut records: Vec<&Record> = table.records.values().map(Arc::as_ref).collect();
        records.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        let list = records.iter().zip(shares(&records)).map(|(record, share)| {
            let own = record.own_entries();
            let (mut layers, mut loose) = (Vec::new(), 0);
            for entry in &share.entries {
                match self.layer(entry) {
                    Some(layer) => layers.push(layer),
                    None => loose += self.snapshots.disk_bytes(entry),
                }
            }
            let size = loose + self.store.layer_sizes(&layers).iter().sum::<u64>();
            let of_images = |entry: &Entry| self.layer(entry).is_some_and(|l| needed.contains(&l));
            CacheRecord {
                id: record.id.clone(),
                parents: share.parent.map(str::to_owned).into_iter().collect(),
                kind: record.kind.word(),
                mutable: false,
                description: record.description.clone(),
                in_use: table.leases.contains_key(&record.id),
                shared: !own.is_empty() && own.iter().all(of_images),
                size,
                loose,
                created: record.created,
                last_used: record.last_used,
                uses: record.uses,
            }
        });
        Ok(list.collect())
    }

    /// Removes results, except those in use and those that others, which stay, are made on. Returns those removed and the
    /// bytes that came free.
    pub(crate) fn remove(&self, ids: &[String]) -> Result<(Vec<String>, u64)> {
        let mut kept = self.kept.lock();
        let _writing = self.writing.lock();
        let removed: Vec<Arc<Record>> = {
            let mut table = self.table.lock();
            let ids = table.removable(ids);
            ids.iter().filter_map(|id| table.take(id)).collect()
        };
        let mut failed = None;
        for record in &removed {
            if let Err(error) = record.erase(&self.directory) {
                failed.get_or_insert(Error::io("remove a record from", &self.directory)(error));
            }
        }
        let named = self.table.lock().named();
        let entries = removed.iter().flat_map(|record| &record.stack.entries);
        let gone: HashSet<Entry> = entries
            .filter(|entry| !named.contains(entry))
            .cloned()
            .collect();
        let gone: Vec<Entry> = gone.into_iter().collect();
        let layer_bytes = self.released_bytes(&gone, &named)?;
        // Marked again when a result that has them is made.
        kept.retain(|layer| !gone.contains(&Entry::Layer(*layer)));
        let bytes = layer_bytes + self.snapshots.remove(&gone, &named).map_err(files)?;
        match failed {
            Some(error) => Err(error),
            None => {
                let ids = removed.iter().map(|record| record.id.clone());
                Ok((ids.collect(), bytes))
            }
        }
    }

    /// Bytes of the layers that go when these entries are not named any more.
    fn released_bytes(&self, gone: &[Entry], named: &HashSet<Entry>) -> Result<u64> {
        let mut staying = self.store.needed_by_images();
        staying.extend(named.iter().filter_map(|entry| self.layer(entry)));
        let mut layers: Vec<_> = gone.iter().filter_map(|entry| self.layer(entry)).collect();
        layers.retain(|layer| !staying.contains(layer));
        layers.sort();
        layers.dedup();
        Ok(self.store.layer_sizes(&layers).iter().sum())
    }

    /// The layer of the image store that an entry is.
    fn layer(&self, entry: &Entry) -> Option<Digest> {
        self.snapshots.layer_of(entry)
    }
}

/// Whether a result is gone for good, rather than something being short right now.
fn is_loss(error: &FilesError) -> bool {
    matches!(
        error,
        FilesError::Lost(_) | FilesError::Store(ImageError::Damaged { .. })
    )
}

fn layers(entries: &[Entry]) -> Vec<Digest> {
    let layer = |entry: &Entry| match entry {
        Entry::Layer(layer) => Some(*layer),
        Entry::Loose(_) => None,
    };
    entries.iter().filter_map(layer).collect()
}

/// An error of the file trees, in the engine's classes.
pub(crate) fn files(error: agent_image::build::FilesError) -> Error {
    match error.is_input() {
        true => Error::invalid(error.to_string()),
        false => Error::system(error.to_string()),
    }
}

impl Table {
    fn add(&mut self, record: Arc<Record>) {
        let (id, keys) = (record.id.clone(), record.keys.clone());
        self.records.insert(id.clone(), record);
        self.also(&id, &keys);
    }

    /// Keys are a record's from now on, and no longer those of one that had them.
    fn also(&mut self, id: &str, keys: &[Key]) {
        let Some(slot) = self.records.get_mut(id) else {
            return;
        };
        let missing = |key: &&Key| !slot.keys.contains(key);
        let new: Vec<Key> = keys.iter().filter(missing).copied().collect();
        let mut forgotten = Vec::new();
        if !new.is_empty() {
            let known = &mut Arc::make_mut(slot).keys;
            known.extend(&new);
            if let Some(surplus) = known.len().checked_sub(KEYS_MAX) {
                forgotten.extend(known.drain(KEYS_FIRST..KEYS_FIRST + surplus));
            }
            self.dirty.insert(id.to_owned());
        }
        for key in forgotten {
            self.keys.remove(&key);
        }
        for key in keys {
            let before = self.keys.insert(*key, id.to_owned());
            let Some(before) = before.filter(|before| before != id) else {
                continue;
            };
            if let Some(slot) = self.records.get_mut(&before) {
                Arc::make_mut(slot).keys.retain(|known| known != key);
                self.dirty.insert(before);
            }
        }
    }

    /// Records that nothing can find.
    fn keyless(&self) -> Vec<String> {
        let records = self.records.values();
        let keyless = records.filter(|record| record.keys.is_empty());
        keyless.map(|record| record.id.clone()).collect()
    }

    fn take(&mut self, id: &str) -> Option<Arc<Record>> {
        let record = self.records.remove(id)?;
        for key in &record.keys {
            if self.keys.get(key).is_some_and(|known| known == id) {
                self.keys.remove(key);
            }
        }
        self.dirty.remove(id);
        Some(record)
    }

    /// All entries that records name.
    fn named(&self) -> HashSet<Entry> {
        let stacks = self.records.values().map(|record| &record.stack.entries);
        stacks.flatten().cloned().collect()
    }

    /// Which of these can go: nobody uses them, and nothing that stays is made on them.
    fn removable(&self, ids: &[String]) -> HashSet<String> {
        let asked: HashSet<&String> = ids.iter().collect();
        let records: Vec<&Record> = self.records.values().map(Arc::as_ref).collect();
        let free = |(_, record): &(usize, &&Record)| {
            asked.contains(&record.id) && !self.leases.contains_key(&record.id)
        };
        let known = records.iter().enumerate().filter(free);
        let mut going: HashSet<usize> = known.map(|(place, _)| place).collect();
        removable(&records, &mut going);
        going
            .into_iter()
            .map(|place| records[place].id.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use agent_image::Limits;

    use super::*;
    use crate::builder::records::{Kind, Made};

    fn open(root: &Path) -> Arc<Cache> {
        let store = Arc::new(Store::open(root, Limits::default()).unwrap());
        Cache::open(&root.join("build"), store, TaskTracker::new()).unwrap()
    }

    /// A result with one file.
    fn record(cache: &Cache, content: &str) -> Record {
        let work = cache.snapshots().begin().unwrap();
        std::fs::write(work.diff().join("file"), content).unwrap();
        let made = Made::on(None, cache.snapshots().finish(work).unwrap());
        let description = content.to_owned();
        Record::new(
            Kind::Regular,
            description,
            Vec::new(),
            Timestamp::now(),
            made,
        )
    }

    fn found(cache: &Arc<Cache>, key: &Key) -> Option<String> {
        let lease = cache.find(key)?;
        let content = lease.held().view().read("/file", 100).unwrap().unwrap();
        assert_eq!(lease.record().description.as_bytes(), content);
        Some(String::from_utf8(content).unwrap())
    }

    fn described(cache: &Cache) -> Vec<String> {
        let list = cache.list().unwrap();
        list.into_iter().map(|record| record.description).collect()
    }

    #[test]
    fn a_key_is_of_the_newest_result_also_after_a_restart() {
        let root = tempfile::tempdir().unwrap();
        let cache = open(root.path());
        let (key, other) = (Digest::of(b"key"), Digest::of(b"other"));
        for round in 0..8 {
            let lease = cache.insert(record(&cache, &format!("{round}"))).unwrap();
            cache.also(&lease.record().id, &[key]);
            if round == 3 {
                cache.also(&lease.record().id, &[other]);
            }
        }
        assert_eq!(found(&cache, &key).unwrap(), "7");
        cache.flush();
        drop(cache);
        let cache = open(root.path());
        assert_eq!(found(&cache, &key).unwrap(), "7");
        assert_eq!(found(&cache, &other).unwrap(), "3");
        // What nothing can find any more goes, unless something uses it.
        assert_eq!(described(&cache).len(), 8);
        let unfindable = cache.insert(record(&cache, "unfindable")).unwrap();
        cache.settle();
        assert_eq!(described(&cache), ["3", "7", "unfindable"]);
        drop(unfindable);
        cache.settle();
        assert_eq!(described(&cache), ["3", "7"]);
    }

    #[test]
    fn a_result_keeps_its_first_and_its_newest_keys() {
        let root = tempfile::tempdir().unwrap();
        let cache = open(root.path());
        let lease = cache.insert(record(&cache, "same")).unwrap();
        let keys: Vec<Key> = (0..200_u8).map(|number| Digest::of(&[number])).collect();
        for key in &keys {
            cache.also(&lease.record().id, &[*key]);
        }
        let known: Vec<usize> = (0..200).filter(|at| cache.knows(&keys[*at])).collect();
        let expected: Vec<usize> = (0..KEYS_FIRST)
            .chain(200 - (KEYS_MAX - KEYS_FIRST)..200)
            .collect();
        assert_eq!(known, expected);
        let id = lease.record().id.clone();
        drop(lease);
        cache.remove(&[id]).unwrap();
        assert!(keys.iter().all(|key| !cache.knows(key)));
    }

    #[test]
    fn what_a_hit_stands_on_is_used_and_known_again_after_a_restart() {
        let root = tempfile::tempdir().unwrap();
        let cache = open(root.path());
        let (key, unknown) = (Digest::of(b"key"), Digest::of(b"unknown"));
        let lease = cache.insert(record(&cache, "below")).unwrap();
        cache.also(&lease.record().id, &[key]);
        drop(lease);
        cache.settle();
        assert!(cache.knows(&key) && !cache.knows(&unknown));
        assert_eq!(cache.list().unwrap()[0].last_used, None);
        let before = Timestamp::now();
        cache.touch(&[unknown, key]);
        cache.settle();
        drop(cache);
        let used = open(root.path()).list().unwrap();
        assert!(used[0].last_used.unwrap() >= before);
        assert_eq!(used[0].uses, 0, "it was not looked at");
    }

    /// One file laid on two roots, as a copy is that is not made again.
    #[test]
    fn an_old_root_goes_although_its_layer_is_on_another() {
        let root = tempfile::tempdir().unwrap();
        let cache = open(root.path());
        let keyed = |record: Record| {
            let lease = cache.insert(record).unwrap();
            let key = Digest::of(lease.record().id.as_bytes());
            cache.also(&lease.record().id, &[key]);
            lease
        };
        let (a, b) = (keyed(record(&cache, "a")), keyed(record(&cache, "b")));
        let work = cache.snapshots().begin().unwrap();
        std::fs::write(work.diff().join("large"), vec![1; 100_000]).unwrap();
        let layer = cache.snapshots().finish(work).unwrap();
        let on = |root: &Lease| {
            let made = Made::over(Some(root.record()), Entry::Loose(layer.id.clone()), None);
            let name = format!("on {}", root.record().description);
            let now = Timestamp::now();
            keyed(Record::new(Kind::Regular, name, Vec::new(), now, made))
        };
        let (on_a, on_b) = (on(&a), on(&b));
        let old: Vec<String> = [&a, &on_a].map(|lease| lease.record().id.clone()).into();
        drop((a, b, on_a, on_b));
        assert_eq!(described(&cache), ["a", "b", "on a", "on b"]);
        let total = |cache: &Cache| cache.list().unwrap().iter().map(|r| r.loose).sum::<u64>();
        let before = total(&cache);
        let (gone, freed) = cache.remove(&old).unwrap();
        assert_eq!(gone.len(), 2);
        assert_eq!(described(&cache), ["b", "on b"]);
        assert!(freed < 100_000, "the layer is still needed");
        assert_eq!(total(&cache), before - freed, "and is counted");
        let on_b = cache.list().unwrap().pop().unwrap();
        assert!(on_b.size >= 100_000, "{on_b:?}");
    }

    #[test]
    fn a_result_that_cannot_be_used_now_is_not_lost() {
        let root = tempfile::tempdir().unwrap();
        let cache = open(root.path());
        let key = Digest::of(b"key");
        let mut record = record(&cache, "kept");
        // More than overlayfs can take: no such stack is ever lost.
        let lower = (0..600).map(|_| {
            let work = cache.snapshots().begin().unwrap();
            Entry::Loose(cache.snapshots().finish(work).unwrap().id)
        });
        let top = record.stack.entries.pop().unwrap();
        record.stack.entries = lower.chain([top]).collect();
        let id = record.id.clone();
        {
            let mut table = cache.table.lock();
            table.add(Arc::new(record));
            table.also(&id, &[key]);
        }
        assert!(cache.find(&key).is_none());
        assert_eq!(described(&cache), ["kept"]);
    }
}
