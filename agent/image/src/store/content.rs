//! The blobs of the store that are JSON: image configurations and manifests, in an OCI layout. And the one way
//! in which files of the store are written: beside, synced, renamed, directory synced.
//!
//! Layer blobs are not here: [`crate::layers`] can write each of them again.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::error::ImageError;

/// A file beside the index that is given up when the disk is full, and its least length.
const RESERVE: &str = "reserve";
const RESERVE_MIN: u64 = 64 << 10;

pub(super) struct Content {
    root: PathBuf,
    blobs: PathBuf,
}

impl Content {
    pub(super) fn open(root: &Path) -> Result<Self, ImageError> {
        let blobs = root.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).map_err(ImageError::io("create", &blobs))?;
        let layout = root.join("oci-layout");
        if !layout.exists() {
            replace(&layout, br#"{"imageLayoutVersion": "1.0.0"}"#)?;
        }
        Ok(Self {
            root: root.to_owned(),
            blobs,
        })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Stores `bytes`, durably. Returns their digest.
    pub(super) fn put(&self, bytes: &[u8]) -> Result<Digest, ImageError> {
        let digest = Digest::of(bytes);
        let path = self.path(&digest);
        if !path.exists() {
            replace(&path, bytes)?;
        }
        Ok(digest)
    }

    /// The blob; fails if its bytes have changed.
    pub(super) fn get(&self, digest: &Digest) -> Result<Vec<u8>, ImageError> {
        let path = self.path(digest);
        let bytes = std::fs::read(&path).map_err(ImageError::io("read", &path))?;
        let actual = Digest::of(&bytes);
        if actual != *digest {
            return Err(ImageError::Damaged {
                path,
                reason: format!("its content has the digest {actual}"),
            });
        }
        Ok(bytes)
    }

    pub(super) fn remove(&self, digest: &Digest) -> Result<(), ImageError> {
        let path = self.path(digest);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(ImageError::io("remove", path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Removes every blob that `keep` does not want, and unfinished ones.
    pub(super) fn sweep(&self, keep: impl Fn(&Digest) -> bool) -> Result<(), ImageError> {
        for entry in std::fs::read_dir(&self.blobs).map_err(ImageError::io("read", &self.blobs))? {
            let path = entry.map_err(ImageError::io("read", &self.blobs))?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if !name
                .and_then(|name| Digest::from_hex(name).ok())
                .is_some_and(|d| keep(&d))
            {
                std::fs::remove_file(&path).map_err(ImageError::io("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Sees to it that there is room for [`replace_from_reserve`]. Without it things work as long as the disk has some.
    pub(super) fn keep_back(&self) {
        let index = std::fs::metadata(self.root.join("index.json"));
        // Twice its length: the old one is there until the new one is.
        let wanted = RESERVE_MIN.max(index.map_or(0, |index| 2 * index.len()));
        let reserve = self.root.join(RESERVE);
        if std::fs::metadata(&reserve).is_ok_and(|there| there.len() >= wanted) {
            return;
        }
        let kept = File::create(&reserve).and_then(|file| {
            let flags = rustix::fs::FallocateFlags::empty();
            Ok(rustix::fs::fallocate(&file, flags, 0, wanted)?)
        });
        if let Err(error) = kept {
            tracing::debug!(path = %reserve.display(), %error, "no room is kept back");
            let _ = std::fs::remove_file(&reserve);
        }
    }

    /// Where the blob is, or would be.
    pub(super) fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }
}

/// Puts `bytes` at `path` so that a crash leaves the old content or the new, never a mixture.
/// One writer at a time per path.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), ImageError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(ImageError::io("write", &temporary))?;
    std::fs::rename(&temporary, path).map_err(ImageError::io("replace", path))?;
    let parent = path
        .parent()
        .expect("files of the store are below its root");
    sync_directory(parent)
}

/// Like [`replace`], for the one file without which nothing can be removed: when the disk is full, room that was kept back
/// beside it is given up.
pub(super) fn replace_from_reserve(path: &Path, bytes: &[u8]) -> Result<(), ImageError> {
    let reserve = path.with_file_name(RESERVE);
    match replace(path, bytes) {
        Err(error) if is_full(&error) && std::fs::remove_file(&reserve).is_ok() => {
            tracing::warn!(path = %path.display(), "the disk is full: room that was kept back is used");
            replace(path, bytes)
        }
        other => other,
    }
}

fn is_full(error: &ImageError) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error, ImageError::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
}

/// Makes renames in `path` durable.
pub(super) fn sync_directory(path: &Path) -> Result<(), ImageError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(ImageError::io("sync", path))
}
