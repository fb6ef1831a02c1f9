//! Directories that a build needs for a while: `<root>/build/work/<n>/`. They go when they are dropped, and with the first
//! build after a crash.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use tokio_util::task::TaskTracker;

use crate::error::{Error, Result};

/// Makes such directories.
pub(crate) struct WorkRoot {
    path: PathBuf,
    next: AtomicU64,
    tasks: TaskTracker,
}

impl WorkRoot {
    /// Those of one data root. What was there must have been removed.
    pub(crate) fn new(path: PathBuf, tasks: TaskTracker) -> Self {
        Self {
            path,
            next: AtomicU64::new(0),
            tasks,
        }
    }

    /// A new empty directory.
    pub(crate) fn directory(&self) -> Result<WorkDirectory> {
        use std::os::unix::fs::DirBuilderExt as _;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.path.join(number.to_string());
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path)
            .and_then(|()| std::fs::DirBuilder::new().mode(0o700).create(&path))
            .map_err(Error::io("create", &path))?;
        Ok(WorkDirectory {
            path,
            tasks: self.tasks.clone(),
        })
    }
}

/// A directory that is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct WorkDirectory {
    path: PathBuf,
    tasks: TaskTracker,
}

impl WorkDirectory {
    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl AsRef<Path> for WorkDirectory {
    fn as_ref(&self) -> &Path {
        self.path()
    }
}

impl Drop for WorkDirectory {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.path);
        let remove = move || {
            if let Err(error) = agent_image::remove_tree(&path)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "cannot remove a directory of a build");
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(self.tasks.spawn_blocking_on(remove, &runtime)),
            Err(_) => remove(),
        }
    }
}
