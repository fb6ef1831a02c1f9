//! What interrupted pulls have of their layers, so that the next pull goes on where they stopped: after a cancelled pull,
//! a network that was away for too long, or a daemon that was killed.
//!
//! ```text
//! <root>/content/partial/<hex of the blob's digest>    its first bytes as they came; locked (flock) while a pull appends
//! ```
//!
//! A file stays until the whole image is there ([`Partials::forget`]), since the layers of an image appear together. It
//! proves nothing: whoever reads it on hashes the whole blob anyway, and a wrong one is removed then. So nothing is
//! synced. Blobs of up to [`WORTH`] bytes are not kept: that much of each may get lost. What nobody goes on with is removed
//! by [`Partials::sweep`].

use std::fs::{File, TryLockError};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::digest::Digest;

/// Bytes of a blob that is fetched again rather than kept in part.
const WORTH: u64 = 2 << 20;

/// The directory.
#[derive(Debug, Clone)]
pub(crate) struct Partials {
    root: PathBuf,
}

/// One blob's beginning, ours as long as it is open.
pub struct Partial {
    file: File,
    /// Bytes in the file.
    len: u64,
}

impl Partials {
    /// Nothing is made before there is something to keep.
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The beginning of a blob of `size` bytes, to be read and appended to. `None`: it is not worth it, another pull is
    /// at it, or the disk refuses.
    pub(crate) fn take(&self, blob: &Digest, size: u64) -> Option<Partial> {
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

    /// Removes what is there of a blob: it is not needed any more, or wrong.
    pub(crate) fn forget(&self, blob: &Digest) {
        let path = self.root.join(blob.hex());
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "cannot remove a download");
            }
            _ => {}
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
    Ok(Some(Partial { file, len }))
}

fn locked(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

impl Partial {
    /// Bytes that are here.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Reads from byte `at` on.
    ///
    /// # Errors
    /// The system's.
    pub fn read(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(buffer, at)
    }

    /// Adds bytes at the end.
    ///
    /// # Errors
    /// The system's; the rest of the blob is not kept then.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.len += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pull_at_a_time_appends_and_what_is_stale_goes() {
        let root = std::env::temp_dir().join(format!("muster-partial-{}", std::process::id()));
        let partials = Partials::new(root.clone());
        let (blob, size) = (Digest::of(b"blob"), WORTH + 1);
        assert!(partials.take(&blob, WORTH).is_none());
        assert!(!root.exists());

        let mut one = partials.take(&blob, size).unwrap();
        assert!(partials.take(&blob, size).is_none());
        one.append(b"first ").unwrap();
        assert_eq!(partials.sweep(Duration::ZERO), 0);
        drop(one);

        let mut two = partials.take(&blob, size).unwrap();
        assert_eq!(two.len(), 6);
        two.append(b"second").unwrap();
        let mut bytes = [0; 9];
        assert_eq!(two.read(3, &mut bytes).unwrap(), 9);
        assert_eq!(&bytes, b"st second");
        assert!(partials.usage() > 0);
        drop(two);
        partials.forget(&blob);
        partials.forget(&blob);
        assert_eq!(partials.usage(), 0);

        let mut three = partials.take(&blob, size).unwrap();
        three.append(b"x").unwrap();
        drop(three);
        assert_eq!(partials.sweep(Duration::from_secs(3600)), 0);
        assert!(partials.sweep(Duration::ZERO) > 0);
        std::fs::remove_dir(&root).unwrap();
    }
}
