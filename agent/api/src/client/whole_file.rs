//! Files that have their name only when they are complete. What was there before stays until then.
//!
//! ```text
//! create ── a file without a name, or one beside the place under a name nobody can know ── write … ── finish: its name
//!                                                                                       └─ drop: nothing is left
//! ```
//! A device or a pipe is written to as it is: a rename would put a file in its place. Must not: follow a link that
//! somebody planted beside the place. Source: moby `pkg/atomicwriter`.

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{self, Write};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// A file that is being written. Dropped before [`WholeFile::finish`], it was never there.
#[derive(Debug)]
pub struct WholeFile {
    file: File,
    path: PathBuf,
    /// Beside the place; unused for what is written to directly.
    partial: PathBuf,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// A device or a pipe, or done.
    Settled,
    Nameless,
    Partial,
}

impl WholeFile {
    /// Begins a file for `path`; `mode` is what a new file has, less what the umask takes away.
    ///
    /// # Errors
    /// The directory is missing or cannot be written to, `path` is a directory, or a device cannot be opened.
    pub fn create(path: &Path, mode: u32) -> io::Result<Self> {
        let partial = beside(path)?;
        let whole = |file, stage| Self {
            file,
            path: path.to_owned(),
            partial: partial.clone(),
            stage,
        };
        match path.metadata() {
            Ok(found) if found.is_dir() => return Err(Errno::ISDIR.into()),
            Ok(found) if !found.is_file() => {
                let file = OpenOptions::new().write(true).open(path)?;
                return Ok(whole(file, Stage::Settled));
            }
            _ => {}
        }
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        // Nothing is left of it when this process is killed.
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        match rustix::fs::open(directory, flags, Mode::from_raw_mode(mode)) {
            Ok(file) => Ok(whole(file.into(), Stage::Nameless)),
            // Some file systems do not have this.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                let mut options = OpenOptions::new();
                options.write(true).create_new(true).mode(mode);
                Ok(whole(options.open(&partial)?, Stage::Partial))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What is written to.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives the file its name. It is on the disk only if [`File::sync_all`] was called before.
    ///
    /// # Errors
    /// It cannot be put into its place; then nothing has changed there.
    pub fn finish(mut self) -> io::Result<()> {
        self.file.flush()?;
        if self.stage == Stage::Nameless {
            let link = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            rustix::fs::linkat(CWD, link, CWD, &self.partial, AtFlags::SYMLINK_FOLLOW)?;
            self.stage = Stage::Partial;
        }
        if self.stage == Stage::Partial {
            std::fs::rename(&self.partial, &self.path)?;
            self.stage = Stage::Settled;
        }
        Ok(())
    }
}

impl Write for WholeFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        if self.stage == Stage::Partial {
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

/// `.name.3f…partial` in the same directory.
fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::other("it is no name of a file"))?;
    let chance = RandomState::new().build_hasher().finish();
    let mut partial = OsString::from(".");
    partial.push(name);
    partial.push(format!(".{chance:016x}.partial"));
    Ok(path.with_file_name(partial))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn names(directory: &Path) -> Vec<OsString> {
        let entries = std::fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn a_file_has_its_name_and_mode_when_it_is_complete() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("out");
        std::fs::write(&path, "before").unwrap();
        let mut whole = WholeFile::create(&path, 0o600).unwrap();
        whole.write_all(b"after").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"before");
        whole.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"after");
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut given_up = WholeFile::create(&path, 0o600).unwrap();
        given_up.write_all(b"half").unwrap();
        drop(given_up);
        assert_eq!(std::fs::read(&path).unwrap(), b"after");
        assert_eq!(names(temporary.path()), ["out"]);
    }

    #[test]
    fn the_name_beside_the_place_is_another_each_time_and_not_taken() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("out");
        let (one, other) = (beside(&path).unwrap(), beside(&path).unwrap());
        assert_ne!(one, other);
        assert_eq!(one.parent(), path.parent());
        // Even one that was guessed is not written through.
        let victim = temporary.path().join("victim");
        std::fs::write(&victim, "kept").unwrap();
        let mut whole = WholeFile::create(&path, 0o600).unwrap();
        whole.write_all(b"new").unwrap();
        // Where files have a name from the beginning the link cannot be made.
        if symlink(&victim, &whole.partial).is_ok() {
            assert!(whole.finish().is_err());
        }
        assert_eq!(std::fs::read(&victim).unwrap(), b"kept");
    }

    #[test]
    fn what_is_no_file_is_written_to_as_it_is() {
        WholeFile::create(Path::new("/dev/null"), 0o600)
            .and_then(|mut null| {
                null.write_all(b"gone")?;
                null.finish()
            })
            .unwrap();
        let kind = Path::new("/dev/null").metadata().unwrap().file_type();
        assert!(!kind.is_file());
        let temporary = tempfile::tempdir().unwrap();
        assert!(WholeFile::create(temporary.path(), 0o600).is_err());
        assert!(WholeFile::create(&temporary.path().join("no/where"), 0o600).is_err());
    }
}
