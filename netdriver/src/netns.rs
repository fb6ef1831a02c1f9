//! Network namespaces: made, kept alive by a bind mount, entered on threads of their own.
//!
//! A thread that entered another namespace never runs anything else afterwards. Removal drops the
//! mount and the last reference; the kernel then takes the interfaces down by itself, which nobody
//! waits for.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{FsType, fstatfs};

use crate::{Error, Result};

/// `NSFS_MAGIC` of linux/magic.h, which libc does not have.
const NSFS_MAGIC: FsType = FsType(0x6e73_6673);

/// Enough for netlink and DNS set-up; the default of 2 MiB would be mapped for each entry.
const STACK_BYTES: usize = 256 * 1024;

/// A network namespace with a name in the file system.
#[derive(Debug)]
pub(crate) struct Netns {
    file: File,
}

impl Netns {
    /// Makes a namespace, mounts it on `path` (a new file), and runs `configure` inside.
    pub(crate) fn create<T: Send>(
        path: &Path,
        configure: impl FnOnce() -> Result<T> + Send,
    ) -> Result<(Netns, T)> {
        // What an earlier life left under this name has no record, or its owner would have been
        // asked to remove it.
        Netns::remove(path)?;
        File::create_new(path).map_err(Error::file("create network namespace file", path))?;
        let made = on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .map_err(|errno| Error::kernel("create a network namespace")(errno.into()))?;
            mount(
                Some("/proc/thread-self/ns/net"),
                path,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )
            .map_err(|errno| Error::file("mount network namespace on", path)(errno.into()))?;
            configure()
        })
        .and_then(|value| Ok((Netns::open(path)?, value)));
        if made.is_err() {
            // The first error is the one to report; what is left here goes with it.
            let _ = Netns::remove(path);
        }
        made
    }

    /// Opens a namespace made earlier. A plain file (left from before a reboot) is refused.
    pub(crate) fn open(path: &Path) -> Result<Netns> {
        let file = File::open(path).map_err(Error::file("open network namespace", path))?;
        let kind = fstatfs(&file).map_err(|errno| Error::file("examine", path)(errno.into()))?;
        if kind.filesystem_type() != NSFS_MAGIC {
            let source = std::io::Error::other("nothing is mounted there");
            return Err(Error::file("open network namespace", path)(source));
        }
        Ok(Netns { file })
    }

    /// Runs `work` inside, on a thread of its own.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on_thread(|| {
            setns(&self.file, CloneFlags::CLONE_NEWNET)
                .map_err(|errno| Error::kernel("enter a network namespace")(errno.into()))?;
            work()
        })
    }

    /// Unmounts and deletes the name. What is gone already is no error.
    pub(crate) fn remove(path: &Path) -> Result<()> {
        loop {
            match umount2(path, MntFlags::MNT_DETACH) {
                Ok(()) => continue,
                Err(nix::Error::EINVAL | nix::Error::ENOENT) => break,
                Err(errno) => {
                    return Err(Error::file("unmount network namespace", path)(errno.into()));
                }
            }
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::file("delete", path)(error))
            }
            _ => Ok(()),
        }
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Writes a sysctl of the calling thread's network namespace; `key` as in `ipv4/ip_forward`.
pub(crate) fn write_sysctl(key: &str, value: &str) -> Result<()> {
    let path = sysctl_path(key);
    std::fs::write(&path, value).map_err(Error::file("write", path))
}

/// Reads a sysctl of the calling thread's network namespace; `None` when there is none of that
/// name.
pub(crate) fn read_sysctl(key: &str) -> Option<String> {
    let text = std::fs::read_to_string(sysctl_path(key)).ok()?;
    Some(text.trim().to_owned())
}

/// Whether the kernel has IPv6 (it can be told at boot not to).
pub(crate) fn has_ipv6() -> bool {
    sysctl_path("ipv6").exists()
}

fn sysctl_path(key: &str) -> PathBuf {
    Path::new("/proc/sys/net").join(key)
}

fn on_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("netns".into())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, work)
            .map_err(Error::kernel("start a thread for a network namespace"))?;
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
