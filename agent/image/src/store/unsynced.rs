//! Layers that were acknowledged before they were on the disk.
//!
//! What a load, a pull or another store brings can be brought again, so nobody waits until its gigabytes are on the disk (which
//! is behind everything else that the disk has to do: other people's writes, the discards of deleted files). Docker and
//! containerd do not wait either, and use what a power failure has torn as if nothing had happened. Here such a layer is
//! never used:
//!
//! ```text
//! unpack ─▶ note (on the disk) ─▶ index.json (on the disk) ─▶ answer
//!                                      └─▶ syncfs on a thread of its own ─▶ taken off the note
//! ```
//!
//! The note names the boot of the kernel in which it was written. A process that dies takes nothing with it, what it wrote is
//! the kernel's: in the same boot the next opening syncs, and that is all. In another boot the layers of the note may be
//! whole, but nothing proves it (a recipe knows the data of files, not whether an empty one has arrived): they go, with the
//! images that need them, and the log says which have to be brought again.
//!
//! What cannot be brought again (commit, import, build, adoption) is synced before it exists. `syncfs` is for the whole file
//! system, so what was noted before is on the disk then, too, and is taken off the note first: no image goes for a base
//! that was on the disk before it.
//!
//! Whoever stops the process in an orderly way waits for the disk ([`Store::wait_synced`]; dropping the store does so, too), so
//! that a reboot right after a load costs no image.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{Result, Store, content};
use crate::digest::Digest;
use crate::error::ImageError;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The file.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    /// `boot_id` of the kernel, random(4).
    boot: String,
    layers: Vec<Digest>,
}

pub(super) struct Unsynced {
    shared: Arc<Shared>,
    /// The thread that syncs.
    syncing: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    /// Where the layers are.
    layers: PathBuf,
    /// The note's file.
    path: PathBuf,
    /// `None`: not to be had; then nothing is noted and everybody waits.
    boot: Option<String>,
    noted: Mutex<Noted>,
}

/// What the note says.
#[derive(Default)]
struct Noted {
    /// With the number under which each was noted last.
    layers: HashMap<Digest, u64>,
    last: u64,
    /// The thread is at work, and looks once more before it ends.
    syncing: bool,
}

impl Unsynced {
    /// Reads the note. Returns the layers, too, that were noted in another boot; they stay on it until
    /// [`Unsynced::forget`].
    pub(super) fn open(content: &Path, layers: &Path) -> Result<(Self, Vec<Digest>)> {
        let path = content.join("unsynced");
        let boot = std::fs::read_to_string(BOOT_ID).ok();
        let boot = boot.map(|id| id.trim().to_owned());
        let mut noted = Noted::default();
        let mut doubtful = Vec::new();
        match std::fs::read(&path) {
            Ok(bytes) => {
                let note: Note =
                    serde_json::from_slice(&bytes).map_err(|error| ImageError::Damaged {
                        path: path.clone(),
                        reason: error.to_string(),
                    })?;
                if boot.as_ref() != Some(&note.boot) {
                    doubtful.clone_from(&note.layers);
                }
                noted.layers = note.layers.into_iter().map(|id| (id, 0)).collect();
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(ImageError::io("read", path)(error)),
        }
        let shared = Shared {
            layers: layers.to_owned(),
            path,
            boot,
            noted: Mutex::new(noted),
        };
        let unsynced = Self {
            shared: Arc::new(shared),
            syncing: Mutex::new(None),
        };
        Ok((unsynced, doubtful))
    }

    /// Notes layers that are about to exist and not known to be on the disk; when this returns, the note is.
    pub(super) fn note(&self, layers: impl Iterator<Item = Digest>) -> Result<()> {
        if self.shared.boot.is_none() {
            return self.sync();
        }
        let mut noted = self.shared.noted.lock();
        noted.last += 1;
        let number = noted.last;
        noted.layers.extend(layers.map(|id| (id, number)));
        self.shared.write(&noted)
    }

    /// Brings everything that was unpacked to the disk, all layers at once, and takes what was noted before off the note.
    pub(super) fn sync(&self) -> Result<()> {
        self.shared.sync()
    }

    /// The same on a thread.
    pub(super) fn sync_later(&self) {
        let mut thread = self.syncing.lock();
        let mut noted = self.shared.noted.lock();
        if noted.layers.is_empty() || noted.syncing {
            return;
        }
        noted.syncing = true;
        drop(noted);
        if let Some(ended) = thread.take() {
            // It has said that it is at its end.
            let _ = ended.join();
        }
        let shared = Arc::clone(&self.shared);
        *thread = Some(std::thread::spawn(move || shared.sync_noted()));
    }

    /// What was noted is dealt with.
    pub(super) fn forget(&self) -> Result<()> {
        let mut noted = self.shared.noted.lock();
        noted.layers.clear();
        self.shared.write(&noted)
    }

    /// Until the thread has ended.
    fn wait(&self) {
        let thread = self.syncing.lock().take();
        if let Some(thread) = thread {
            // It reports its failures itself.
            let _ = thread.join();
        }
    }
}

impl Drop for Unsynced {
    fn drop(&mut self) {
        self.wait();
    }
}

impl Store {
    /// Waits until the images that are here are on the disk: before the machine may be stopped. Blocks.
    pub fn wait_synced(&self) {
        self.unsynced.wait();
    }
}

impl Shared {
    fn sync(&self) -> Result<()> {
        let upto = self.noted.lock().last;
        let root = &self.layers;
        let directory = File::open(root).map_err(ImageError::io("open", root))?;
        rustix::fs::syncfs(&directory).map_err(|e| ImageError::io("sync", root)(e.into()))?;
        let mut noted = self.noted.lock();
        let before = noted.layers.len();
        // What was noted meanwhile may have been written meanwhile.
        noted.layers.retain(|_, number| *number > upto);
        if noted.layers.len() == before {
            return Ok(());
        }
        self.write(&noted)
    }

    /// Until nothing is noted.
    fn sync_noted(&self) {
        loop {
            if let Err(error) = self.sync() {
                tracing::error!(%error, "cannot bring layers to the disk: after a power failure their images are gone");
                self.noted.lock().syncing = false;
                return;
            }
            let mut noted = self.noted.lock();
            if noted.layers.is_empty() {
                noted.syncing = false;
                return;
            }
        }
    }

    /// Writes the note, on the disk when this returns; no file says that there is none.
    fn write(&self, noted: &Noted) -> Result<()> {
        if let (false, Some(boot)) = (noted.layers.is_empty(), &self.boot) {
            let note = Note {
                boot: boot.clone(),
                layers: noted.layers.keys().copied().collect(),
            };
            let bytes = serde_json::to_vec(&note).expect("plain data has a JSON form");
            return content::replace(&self.path, &bytes);
        }
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(ImageError::io("remove", &self.path)(error));
            }
            _ => {}
        }
        let parent = self.path.parent().expect("the note is in a directory");
        content::sync_directory(parent)
    }
}
