//! The store against archives built here, on a real file system. Needs root, for owners, devices and attributes.

// Helpers of tests count as tests here.
#![allow(clippy::unwrap_used)]

mod archive;
mod build;
mod collect;
mod commit;
mod crash;
mod downloads;
mod full;
mod given_up;
mod hostile;
mod keep;
mod layers;
mod load;
mod push;
mod registry;
mod remove;
mod server;
mod transfer;
mod unsynced;

use agent_image::{ImageError, Limits, LoadOptions, Loaded, Store, silent};

/// A store in a directory of its own.
pub(crate) struct Bed {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) store: Store,
}

impl Bed {
    pub(crate) fn new() -> Self {
        Self::with(Limits::default())
    }

    pub(crate) fn with(limits: Limits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), limits).unwrap();
        Self { directory, store }
    }

    pub(crate) fn load(&self, archive: &[u8]) -> Result<Vec<Loaded>, ImageError> {
        let mut input = archive;
        self.store
            .load(&mut input, &LoadOptions::default(), &silent)
    }

    /// Everything below the store's root, so that tests can see that nothing was left.
    pub(crate) fn files(&self) -> Vec<String> {
        self.store.wait_synced();
        files(self.directory.path())
    }
}

pub(crate) fn files(root: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                pending.push(entry.path());
            }
            let name = entry.path();
            found.push(
                name.strip_prefix(root)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned(),
            );
        }
    }
    found.sort();
    found
}
