//! What interrupted pulls have of large layers, so that the next pull goes on where they stopped: after a cancelled pull,
//! a network that was away for too long, or a daemon that was killed.
//!
//! ```text
//! <root>/content/partial/<hex of the blob's digest>    its first bytes as they came; locked (flock) while a pull appends
//! ```
//!
//! A file here proves nothing: whoever reads it on hashes the whole blob anyway, and a wrong one is removed then. So
//! nothing is synced. Blobs of up to [`WORTH`] bytes are not kept: that much may get lost. What nobody goes on with is
//! removed by [`Partials::sweep`].

use std::fs::{File, TryLockError};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::digest::Digest;

/// Bytes of a blob that is fetched again rather than kept in part.
const WORTH: u64 = 8 << 20;

/// The directory.
#[derive(Debug, Clone)]
pub(crate) struct Partials {
    root: PathBuf,
}

/// One blob's beginning, ours as long as it is open. Removed on drop, unless it is to be kept.
pub(super) struct Partial {
    path: PathBuf,
    file: File,
    /// Bytes in the file.
    len: u64,
    kept: bool,
}

impl Partials {
    /// Nothing is made before there is something to keep.
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The beginning of a blob of `size` bytes, to be read and appended to. `None`: it is not worth it, another pull is
    /// at it, or the disk refuses.
    pub(super) fn take(&self, blob: &Digest, size: u64) -> Option<Partial> {
        if size <= WORTH {
            return None;
        }
        let path = self.root.join(blob.hex());
        match open(&path, size) {
            Ok(partial) => partial,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a pull cannot be made resumable");
                None
            }
        }
    }

    /// Removes what nobody has appended to for `age`. Returns the bytes that this gave back.
    pub(crate) fn sweep(&self, age: Duration) -> u64 {
        let Ok(entries) = std::fs::read_dir(&self.root) else {
            return 0;
        };
        let stale = |path: &Path| -> io::Result<Option<u64>> {
            let file = File::open(path)?;
            let about = file.metadata()?;
            let idle = about.modified()?.elapsed().unwrap_or_default();
            if idle < age || !locked(&file)? {
                return Ok(None);
            }
            std::fs::remove_file(path)?;
            Ok(Some(about.blocks() * 512))
        };
        let mut freed = 0;
        for entry in entries.flatten() {
            match stale(&entry.path()) {
                Ok(bytes) => freed += bytes.unwrap_or(0),
                Err(error) => {
                    tracing::warn!(path = %entry.path().display(), %error, "cannot remove an interrupted download");
                }
            }
        }
        freed
    }

    /// Bytes on disk.
    pub(crate) fn usage(&self) -> u64 {
        let entries = std::fs::read_dir(&self.root);
        let sizes = entries.into_iter().flatten().flatten();
        sizes
            .filter_map(|entry| Some(entry.metadata().ok()?.blocks() * 512))
            .sum()
    }
}

fn open(path: &Path, size: u64) -> io::Result<Option<Partial>> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    // Whoever held the lock may have removed the file meanwhile.
    if !locked(&file)? || file.metadata()?.nlink() == 0 {
        return Ok(None);
    }
    let mut len = file.metadata()?.len();
    if len > size {
        file.set_len(0)?;
        len = 0;
    }
    file.seek(SeekFrom::Start(len))?;
    Ok(Some(Partial {
        path: path.to_owned(),
        file,
        len,
        kept: false,
    }))
}

fn locked(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

impl Partial {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn read(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(buffer, at)
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// The next pull is to go on.
    pub(super) fn keep(&mut self) {
        self.kept = self.len > 0;
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a download");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pull_at_a_time_appends_and_only_what_is_kept_stays() {
        let root = std::env::temp_dir().join(format!("muster-partial-{}", std::process::id()));
        let partials = Partials::new(root.clone());
        let (blob, size) = (Digest::of(b"blob"), WORTH + 1);
        assert!(partials.take(&blob, WORTH).is_none());
        assert!(!root.exists());

        let mut one = partials.take(&blob, size).unwrap();
        assert!(partials.take(&blob, size).is_none());
        one.append(b"first ").unwrap();
        assert_eq!(partials.sweep(Duration::ZERO), 0);
        one.keep();
        drop(one);

        let mut two = partials.take(&blob, size).unwrap();
        assert_eq!(two.len(), 6);
        two.append(b"second").unwrap();
        let mut bytes = [0; 9];
        assert_eq!(two.read(3, &mut bytes).unwrap(), 9);
        assert_eq!(&bytes, b"st second");
        assert!(partials.usage() > 0);
        drop(two);
        assert_eq!(partials.usage(), 0);

        let mut three = partials.take(&blob, size).unwrap();
        three.append(b"x").unwrap();
        three.keep();
        drop(three);
        assert_eq!(partials.sweep(Duration::from_secs(3600)), 0);
        assert!(partials.sweep(Duration::ZERO) > 0);
        std::fs::remove_dir(&root).unwrap();
    }
}
