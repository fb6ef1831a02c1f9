//! A disk in memory that forgets as real ones do. Shared by the tests of the log (which include this file) and the
//! simulator.
//!
//! What was not synced may be lost in a crash, in any part: of the bytes added to a file since, any number remain, and of
//! those any block may hold zeros instead. Names are kept in the order they were made: an unsynced suffix of changes is
//! lost.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use cluster_api::IdSource;

use super::Directory;

/// Written as a whole or not at all.
const BLOCK: usize = 512;

/// One directory on such a disk; clones are the same directory.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    files: Vec<Contents>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    changes: Vec<Change>,
    locked: bool,
    /// Operations that succeed before the disk fails, if it is to.
    left: Option<usize>,
    /// What was done, for tests that count.
    syncs: usize,
    written: usize,
}

#[derive(Debug, Default, Clone)]
struct Contents {
    bytes: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Debug, Clone)]
enum Change {
    Link(String, usize),
    Unlink(String),
    Rename(String, String),
}

fn make(names: &mut BTreeMap<String, usize>, change: Change) {
    match change {
        Change::Link(name, file) => {
            names.insert(name, file);
        }
        Change::Unlink(name) => {
            names.remove(&name);
        }
        Change::Rename(from, to) => {
            if let Some(file) = names.remove(&from) {
                names.insert(to, file);
            }
        }
    }
}

#[allow(dead_code, reason = "each of the two users needs a part of it")]
impl MemoryDisk {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The machine loses power and comes back.
    pub(crate) fn crash(&self, random: &mut IdSource) {
        let mut state = self.state();
        let kept = random.below(state.changes.len() as u64 + 1) as usize;
        let mut names = std::mem::take(&mut state.durable_names);
        for change in state.changes.drain(..).take(kept) {
            make(&mut names, change);
        }
        state.names = names.clone();
        state.durable_names = names;
        for file in &mut state.files {
            let Contents { bytes, durable } = file;
            let common = bytes
                .iter()
                .zip(&*durable)
                .take_while(|(now, then)| now == then)
                .count();
            if common == durable.len() && bytes.len() > common {
                let more = random.below((bytes.len() - common) as u64 + 1) as usize;
                bytes.truncate(common + more);
                for block in (common / BLOCK)..=(bytes.len() / BLOCK) {
                    let range = (block * BLOCK).max(common)..((block + 1) * BLOCK).min(bytes.len());
                    if !range.is_empty() && random.below(4) == 0 {
                        bytes[range].fill(0);
                    }
                }
            } else if bytes != durable && random.below(2) == 0 {
                // Cut or replaced, and not synced.
                bytes.clone_from(durable);
            }
            durable.clone_from(bytes);
        }
        state.locked = false;
        state.left = None;
    }

    /// The process is killed; the machine goes on.
    pub(crate) fn kill(&self) {
        self.state().locked = false;
    }

    /// Succeeds so many more times, then fails.
    pub(crate) fn fail_after(&self, operations: usize) {
        self.state().left = Some(operations);
    }

    /// Works again.
    pub(crate) fn heal(&self) {
        self.state().left = None;
    }

    /// A copy on another disk.
    pub(crate) fn copy(&self) -> Self {
        let state = self.state();
        let copy = State {
            files: state.files.clone(),
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            changes: state.changes.clone(),
            ..State::default()
        };
        Self(Arc::new(Mutex::new(copy)))
    }

    /// Names and contents as they are now.
    pub(crate) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.state();
        state
            .names
            .iter()
            .map(|(name, file)| (name.clone(), state.files[*file].bytes.clone()))
            .collect()
    }

    /// Changes a file behind everybody's back.
    pub(crate) fn tamper(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        if let Some(file) = state.names.get(name).copied() {
            let contents = &mut state.files[file];
            change(&mut contents.bytes);
            contents.durable = contents.bytes.clone();
        }
    }

    /// Removes a file behind everybody's back.
    pub(crate) fn lose(&self, name: &str) {
        let mut state = self.state();
        state.names.remove(name);
        state.durable_names.remove(name);
    }

    /// Syncs and bytes so far.
    pub(crate) fn work(&self) -> (usize, usize) {
        let state = self.state();
        (state.syncs, state.written)
    }
}

impl State {
    fn operate(&mut self) -> io::Result<()> {
        match &mut self.left {
            Some(0) => Err(io::Error::from(io::ErrorKind::StorageFull)),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn change(&mut self, change: Change) {
        make(&mut self.names, change.clone());
        self.changes.push(change);
    }

    fn file(&mut self, name: &str) -> io::Result<&mut Contents> {
        let file = *self.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(&mut self.files[file])
    }
}

impl Directory for MemoryDisk {
    fn lock(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.state().locked, true) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(())
    }

    fn list(&mut self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn read(&mut self, name: &str) -> io::Result<Vec<u8>> {
        Ok(self.state().file(name)?.bytes.clone())
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operate()?;
        state.files.push(Contents::default());
        let file = state.files.len() - 1;
        state.change(Change::Link(name.to_owned(), file));
        Ok(())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        state.operate()?;
        state.file(name)?.bytes.extend_from_slice(bytes);
        state.written += bytes.len();
        Ok(())
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operate()?;
        state.syncs += 1;
        let file = state.file(name)?;
        let from = file.durable.len();
        if file.bytes.len() >= from && file.bytes[..from] == file.durable {
            file.durable.extend_from_slice(&file.bytes[from..]);
        } else {
            file.durable.clone_from(&file.bytes);
        }
        Ok(())
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        let mut state = self.state();
        state.operate()?;
        state.file(name)?.bytes.truncate(length as usize);
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operate()?;
        if !state.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change(Change::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operate()?;
        state.change(Change::Unlink(name.to_owned()));
        Ok(())
    }

    fn sync_names(&mut self) -> io::Result<()> {
        let mut state = self.state();
        state.operate()?;
        state.syncs += 1;
        state.changes.clear();
        state.durable_names = state.names.clone();
        Ok(())
    }
}
