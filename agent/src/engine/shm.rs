//! The `/dev/shm` of containers whose IPC namespace others may join (`--ipc shareable`).
//!
//! A private container's shm is a tmpfs of its own mount namespace, which nobody else can reach. A shareable one's is
//! mounted by the engine, so that the container and all that join it bind the same file system:
//!
//! ```text
//! <exec-root>/shm/<id>    tmpfs, from the start to the end of a run; everybody's bind mounts of it outlive it
//! ```
//!
//! As moby `daemon/container_operations_unix.go:setupIPCDirs`, but below the exec root: it is safe to lose at reboot.

use std::collections::HashSet;
use std::ffi::CString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use crate::error::{Error, Result};

/// Where the shm of a shareable container is.
pub(crate) fn path(exec_root: &Path, id: &str) -> PathBuf {
    exec_root.join("shm").join(id)
}

/// Mounts one, empty; what a start that was cut short has left goes first. Blocks.
pub(crate) fn mount(path: &Path, size_bytes: u64) -> Result<()> {
    let fail = |error: io::Error| {
        Error::system(format!(
            "cannot mount the shared memory {}: {error}",
            path.display()
        ))
    };
    unmount(path)?;
    fs::create_dir_all(path).map_err(fail)?;
    let data = CString::new(format!("mode=1777,size={size_bytes}"))
        .expect("a number has no NUL byte in it");
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("shm", path, "tmpfs", flags, data.as_c_str()).map_err(|error| {
        let _ = fs::remove_dir(path);
        fail(error.into())
    })
}

/// Takes one away, also one that is not there. Blocks.
pub(crate) fn unmount(path: &Path) -> Result<()> {
    let fail = |error: io::Error| {
        Error::system(format!(
            "cannot unmount the shared memory {}: {error}",
            path.display()
        ))
    };
    loop {
        match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // There may be several, one over the other.
            Ok(()) => {}
            Err(Errno::INVAL) => break,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(fail(error.into())),
        }
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fail(error)),
        _ => Ok(()),
    }
}

/// Takes away those of containers that do not run; what could not be done is told. Blocks.
pub(crate) fn reconcile(exec_root: &Path, live: &HashSet<String>) -> Vec<Error> {
    let Ok(entries) = fs::read_dir(exec_root.join("shm")) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| {
            !entry
                .file_name()
                .to_str()
                .is_some_and(|id| live.contains(id))
        })
        .filter_map(|entry| unmount(&entry.path()).err())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_mount(path: &Path) -> bool {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let path = path.to_str().unwrap();
        mounts
            .lines()
            .any(|line| line.split(' ').nth(4) == Some(path))
    }

    #[test]
    fn the_memory_of_dead_containers_is_taken_away() {
        let root = tempfile::tempdir().unwrap();
        let (dead, live) = (path(root.path(), "dead"), path(root.path(), "live"));
        for path in [&dead, &live, &dead] {
            mount(path, 1 << 20).unwrap();
            assert!(is_mount(path));
        }
        fs::write(live.join("kept"), "x").unwrap();
        let problems = reconcile(root.path(), &HashSet::from(["live".to_owned()]));
        assert_eq!(problems, []);
        assert!(!is_mount(&dead) && !dead.exists());
        assert!(live.join("kept").exists());
        unmount(&live).unwrap();
        unmount(&live).unwrap();
        assert!(!is_mount(&live) && !live.exists());
    }
}
