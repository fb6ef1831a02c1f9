//! One writer per project and engine: an advisory lock (`flock`) on a file in a directory of the user.
//!
//! Two `up` of one project at the same time would each plan from a state the other is changing. The second one is
//! refused with a message that says who is at work; verbs that only read take no lock. The kernel drops the lock when
//! its holder ends, however it ends, so the file is never stale; it stays where it is, since removing it would race.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Held while a plan is observed, made and run; dropping it lets the next one in.
#[derive(Debug)]
pub struct ProjectLock {
    _file: File,
}

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Someone else is at work on the project.
    #[error(
        "project {project} is being changed by another command ({holder}): wait for it to end, or stop it"
    )]
    Busy {
        /// Project.
        project: String,
        /// What the holder wrote into the file: `muster compose up, pid 123`.
        holder: String,
    },
    /// The file cannot be made or locked.
    #[error("cannot lock project {project} with {path}")]
    File {
        /// Project.
        project: String,
        /// The lock file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl ProjectLock {
    /// Takes the lock without waiting. `directory` belongs to the user and is made (mode 0700) when missing; `engine`
    /// is the daemon's address: the same project on another engine is another project. `command` is shown to whoever
    /// comes second.
    ///
    /// # Errors
    /// [`LockError::Busy`] while another process holds it.
    pub fn acquire(
        directory: &Path,
        engine: &str,
        project: &str,
        command: &str,
    ) -> Result<Self, LockError> {
        let path = directory.join(file_name(engine, project));
        let failed = |source| LockError::File {
            project: project.to_owned(),
            path: path.clone(),
            source,
        };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(failed)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc_nofollow())
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Busy {
                    project: project.to_owned(),
                    holder: holder(&mut file),
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let note = format!("{command}, pid {}\n", std::process::id());
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(note.as_bytes()))
            .map_err(failed)?;
        Ok(Self { _file: file })
    }
}

/// `O_NOFOLLOW` of Linux: a lock file is never a link that someone else put there.
const fn libc_nofollow() -> i32 {
    0o400_000
}

/// Project names are `[a-z0-9_-]`; the engine's address becomes a digest.
fn file_name(engine: &str, project: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, engine.as_bytes());
    format!("{project}.{}.lock", hex::encode(&digest.as_ref()[..6]))
}

/// What the holder says about itself; it may be just about to write it.
fn holder(file: &mut File) -> String {
    let mut note = String::new();
    match file.take(256).read_to_string(&mut note) {
        Ok(read) if read > 0 => note.trim().to_owned(),
        _ => "it did not say which".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_one_is_told_who_is_at_work_and_may_follow() {
        let directory = std::env::temp_dir().join(format!("muster-lock-{}", std::process::id()));
        let first = ProjectLock::acquire(&directory, "unix:///a", "demo", "compose up").unwrap();
        let busy =
            ProjectLock::acquire(&directory, "unix:///a", "demo", "compose down").unwrap_err();
        assert!(
            busy.to_string()
                .contains(&format!("compose up, pid {}", std::process::id())),
            "{busy}"
        );
        ProjectLock::acquire(&directory, "unix:///b", "demo", "compose up").unwrap();
        ProjectLock::acquire(&directory, "unix:///a", "other", "compose up").unwrap();
        drop(first);
        ProjectLock::acquire(&directory, "unix:///a", "demo", "compose down").unwrap();
        std::fs::remove_dir_all(directory).unwrap();
    }
}
