//! A disk that may lose what was not synced. Contents and names are durable separately, as on a real file system; a
//! crash keeps any part of the rest, possibly torn.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use cluster::raft::log::Directory;

use super::dice::Dice;

/// Shared by the log that writes to it and the world that crashes it.
#[derive(Clone, Default)]
pub(super) struct Disk(Rc<RefCell<State>>);

#[derive(Default)]
struct State {
    locked: bool,
    next: u64,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    files: BTreeMap<u64, File>,
    syncs: u64,
}

#[derive(Default)]
struct File {
    data: Vec<u8>,
    /// Bytes from the beginning that survive a crash.
    synced: usize,
    /// What was there before bytes were cut off and that was not synced.
    before_cut: Option<Vec<u8>>,
}

impl Disk {
    /// The process ended; the kernel still has what it wrote.
    pub(super) fn process_ended(&self) {
        self.0.borrow_mut().locked = false;
    }

    /// The power failed.
    pub(super) fn power_failed(&self, dice: &mut Dice) {
        let mut state = self.0.borrow_mut();
        let state = &mut *state;
        state.locked = false;
        let mut names = BTreeMap::new();
        let all: Vec<String> = state
            .names
            .keys()
            .chain(state.durable_names.keys())
            .cloned()
            .collect();
        for name in all {
            let kept = if dice.one_in(2) {
                state.names.get(&name)
            } else {
                state.durable_names.get(&name)
            };
            if let Some(inode) = kept {
                names.insert(name, *inode);
            }
        }
        state.durable_names.clone_from(&names);
        state.names = names;
        for file in state.files.values_mut() {
            match file.before_cut.take() {
                Some(before) if dice.one_in(2) => file.data = before,
                _ => {
                    let unsynced = file.data.len() - file.synced;
                    let kept = dice.below(unsynced as u64 + 1) as usize;
                    file.data.truncate(file.synced + kept);
                    if kept > 0 && dice.one_in(3) {
                        let torn = dice.below(kept as u64) as usize;
                        let end = file.data.len();
                        file.data[end - torn..].fill(0);
                    }
                }
            }
            file.synced = file.data.len();
        }
    }

    /// Nothing is left.
    pub(super) fn wipe(&self) {
        *self.0.borrow_mut() = State::default();
    }

    /// How often anything was made durable.
    pub(super) fn syncs(&self) -> u64 {
        self.0.borrow().syncs
    }
}

impl State {
    fn file(&mut self, name: &str) -> io::Result<&mut File> {
        let inode = self
            .names
            .get(name)
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(self.files.get_mut(inode).expect("every name has a file"))
    }
}

impl Directory for Disk {
    fn lock(&mut self) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        if state.locked {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.locked = true;
        Ok(())
    }

    fn list(&mut self) -> io::Result<Vec<String>> {
        Ok(self.0.borrow().names.keys().cloned().collect())
    }

    fn read(&mut self, name: &str) -> io::Result<Vec<u8>> {
        Ok(self.0.borrow_mut().file(name)?.data.clone())
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.next += 1;
        let inode = state.next;
        state.names.insert(name.to_owned(), inode);
        state.files.insert(inode, File::default());
        Ok(())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.0
            .borrow_mut()
            .file(name)?
            .data
            .extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.syncs += 1;
        let file = state.file(name)?;
        file.synced = file.data.len();
        file.before_cut = None;
        Ok(())
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        let file = state.file(name)?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length < file.data.len() {
            if length < file.synced && file.before_cut.is_none() {
                file.before_cut = Some(file.data[..file.synced].to_vec());
            }
            file.data.truncate(length);
            file.synced = file.synced.min(length);
        }
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        let inode = state
            .names
            .remove(from)
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        state.names.insert(to.to_owned(), inode);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state
            .names
            .remove(name)
            .map(|_| ())
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_names(&mut self) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.syncs += 1;
        state.durable_names = state.names.clone();
        Ok(())
    }
}
