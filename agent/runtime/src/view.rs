//! The file system of a container as its processes see it, for somebody outside.
//!
//! ```text
//! running   /proc/PID is opened once, checked to be of the container's cgroup, and its root and mount namespace are
//!           taken through it: whatever the container mounts is there, and stays there should it end meanwhile
//! stopped   root and mounts are put together in a mount namespace that only the calling thread's helper is in; it goes
//!           with the helper, so a crash leaves no mount
//! ```
//!
//! What is done with the root must resolve every path by openat2(2) with `RESOLVE_IN_ROOT`: the container may change
//! the tree at any moment.
//!
//! Must not: be used on a stopped container while it is being started; the caller keeps these apart.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use crate::spec::Rootfs;
use crate::sys::kernel;
use crate::sys::raw::MountAttr;
use crate::{identity, root};

/// Most that is read of `/proc/PID/cgroup`.
const CGROUP_BYTES: u64 = 64 << 10;

/// Why there is no view.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The process is gone, or its number belongs to another one by now.
    #[error("the container has just ended")]
    Ended,
    /// The file system could not be put together.
    #[error("cannot {what}: {source}")]
    Failed {
        /// What was attempted.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> ViewError {
    let what = what.into();
    move |source| ViewError::Failed { what, source }
}

/// Something mounted in a stopped container's root.
#[derive(Debug, Clone)]
pub struct ViewMount {
    /// On the host.
    pub source: PathBuf,
    /// Absolute in the container. Made if it is missing.
    pub target: PathBuf,
    /// Not writable.
    pub read_only: bool,
    /// With the mounts below `source`.
    pub recursive: bool,
}

/// Does `work` with the root of a running container, whose first process is `pid` and whose cgroup's path contains
/// `id`. Blocks.
///
/// # Errors
/// [`ViewError::Ended`] when the process is not there any more.
pub fn running<T>(
    pid: i32,
    id: &str,
    work: impl FnOnce(BorrowedFd<'_>) -> T,
) -> Result<T, ViewError> {
    let process = Process::open(pid, id)?;
    Ok(work(process.root.as_fd()))
}

/// A container's first process, by what must not change while it is looked at.
struct Process {
    root: OwnedFd,
    /// Held so that the mounts stay together when the last process ends.
    namespace: OwnedFd,
}

impl Process {
    fn open(pid: i32, id: &str) -> Result<Self, ViewError> {
        let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let ended = |_| ViewError::Ended;
        let process =
            rustix::fs::open(format!("/proc/{pid}"), directory, Mode::empty()).map_err(ended)?;
        let open = |name: &str, flags| rustix::fs::openat(&process, name, flags, Mode::empty());
        let read = OFlags::RDONLY | OFlags::CLOEXEC;
        let mut cgroup = String::new();
        let file = File::from(open("cgroup", read).map_err(ended)?);
        file.take(CGROUP_BYTES)
            .read_to_string(&mut cgroup)
            .map_err(|_| ViewError::Ended)?;
        if !cgroup.contains(id) {
            return Err(ViewError::Ended);
        }
        Ok(Self {
            namespace: open("ns/mnt", read).map_err(ended)?,
            root: open("root", directory).map_err(ended)?,
        })
    }
}

/// Only the root file system of a running container, without what is mounted on it, as a detached mount. Blocks.
///
/// # Errors
/// [`ViewError::Ended`] when the process is not there any more.
pub fn running_root_alone(pid: i32, id: &str) -> Result<OwnedFd, ViewError> {
    let process = Process::open(pid, id)?;
    std::thread::scope(|scope| {
        let helper = std::thread::Builder::new().name("view".to_owned());
        let helper = helper
            .spawn_scoped(scope, || -> io::Result<OwnedFd> {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS)?;
                kernel::enter(process.namespace.as_fd(), libc::CLONE_NEWNS)?;
                // Joining has moved the thread to the root of that namespace, which is the container's.
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let root = rustix::fs::open("/", flags, Mode::empty())?;
                kernel::clone_tree(root.as_fd(), false)
            })
            .map_err(failed("start a thread"))?;
        match helper.join() {
            Ok(result) => result.map_err(failed("copy the mount of the root file system")),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Only the root file system of a stopped container, as a detached mount. Blocks.
///
/// # Errors
/// [`ViewError::Failed`] when it cannot be mounted.
pub fn stopped_root_alone(rootfs: &Rootfs) -> Result<OwnedFd, ViewError> {
    root::detached(rootfs)
        .map_err(|error| failed("mount the root file system")(io::Error::other(error)))
}

/// Does `work` with the root of a stopped container. Blocks.
///
/// # Errors
/// [`ViewError::Failed`], also when a mount's source is missing.
pub fn stopped<T: Send>(
    rootfs: &Rootfs,
    mounts: &[ViewMount],
    work: impl FnOnce(BorrowedFd<'_>) -> T + Send,
) -> Result<T, ViewError> {
    std::thread::scope(|scope| {
        let helper = std::thread::Builder::new().name("view".to_owned());
        let helper = helper
            .spawn_scoped(scope, || {
                let root = assemble(rootfs, mounts)?;
                Ok(work(root.as_fd()))
            })
            .map_err(failed("start a thread"))?;
        match helper.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Puts the calling thread into a mount namespace of its own and everything into place there.
fn assemble(rootfs: &Rootfs, mounts: &[ViewMount]) -> Result<OwnedFd, ViewError> {
    use rustix::mount::{MountPropagationFlags, mount_change};
    let flags = nix::sched::CloneFlags::CLONE_FS | nix::sched::CloneFlags::CLONE_NEWNS;
    nix::sched::unshare(flags).map_err(|errno| failed("make a mount namespace")(errno.into()))?;
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .map_err(|errno| failed("make the mount namespace private")(errno.into()))?;
    let detached = root::detached(rootfs)
        .map_err(|error| failed("mount the root file system")(io::Error::other(error)))?;
    // Copied before anything hides them. A source on the way of the attached root stays reachable this way, too.
    let sources = mounts
        .iter()
        .map(source)
        .collect::<Result<Vec<_>, ViewError>>()?;
    let place = match rootfs {
        Rootfs::Overlay { upper, .. } => upper,
        Rootfs::Directory(path) => path,
    };
    attach(&detached, rustix::fs::CWD, place).map_err(failed("attach the root file system"))?;
    for (mount, source) in mounts.iter().zip(sources) {
        let what = format!(
            "mount {} on {}",
            mount.source.display(),
            mount.target.display()
        );
        let target = target(&detached, &mount.target, &source).map_err(failed(what.clone()))?;
        let target = PathBuf::from(format!("/proc/self/fd/{}", target.as_raw_fd()));
        attach(&source, rustix::fs::CWD, &target).map_err(failed(what))?;
    }
    Ok(detached)
}

fn source(mount: &ViewMount) -> Result<OwnedFd, ViewError> {
    let opened = rustix::fs::open(&mount.source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| failed(format!("open {}", mount.source.display()))(errno.into()))?;
    let what = || failed(format!("copy the mount of {}", mount.source.display()));
    let tree = kernel::clone_tree(opened.as_fd(), mount.recursive).map_err(what())?;
    if mount.read_only {
        let attributes = MountAttr {
            set: libc::MOUNT_ATTR_RDONLY,
            ..MountAttr::default()
        };
        kernel::set_mount_attributes(tree.as_fd(), &attributes, mount.recursive).map_err(what())?;
    }
    Ok(tree)
}

/// The place for a mount in the root; made, with its parents, as Docker makes it, if it is missing.
fn target(root: &OwnedFd, path: &Path, source: &OwnedFd) -> io::Result<OwnedFd> {
    let directory = is_directory(source)?;
    let open = |path: &Path| {
        let path = CString::new(path.as_os_str().as_encoded_bytes())?;
        kernel::open_in_root(root.as_fd(), &path, libc::O_PATH)
    };
    match open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let mut parent = open(Path::new("/"))?;
    let mut prefix = PathBuf::from("/");
    let parts: Vec<_> = path
        .components()
        .filter_map(|part| match part {
            std::path::Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect();
    for (index, name) in parts.iter().enumerate() {
        prefix.push(name);
        parent = match open(&prefix) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if index + 1 < parts.len() || directory {
                    rustix::fs::mkdirat(&parent, *name, Mode::from_raw_mode(0o755))?;
                } else {
                    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                    rustix::fs::openat(&parent, *name, flags, Mode::from_raw_mode(0o644))?;
                }
                open(&prefix)?
            }
            other => other?,
        };
    }
    Ok(parent)
}

fn is_directory(fd: &OwnedFd) -> io::Result<bool> {
    let stat = rustix::fs::statat(fd, "", AtFlags::EMPTY_PATH)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

fn attach(tree: &OwnedFd, at: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    use rustix::mount::{MoveMountFlags, move_mount};
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
    Ok(move_mount(tree, "", at, path, flags)?)
}

/// User and group ids of `user[:group]`, looked up in the root's own `/etc/passwd` and `/etc/group`.
///
/// # Errors
/// What to tell the user: a name that is not in the files.
pub fn user_in(root: BorrowedFd<'_>, user: &str) -> Result<(u32, u32), String> {
    identity::resolve(root, user, &[])
        .map(|who| (who.uid, who.gid))
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(root: BorrowedFd<'_>, path: &str) -> Option<String> {
        let path = CString::new(path).unwrap();
        let fd = kernel::open_in_root(root, &path, libc::O_RDONLY).ok()?;
        io::read_to_string(File::from(fd)).ok()
    }

    #[test]
    fn a_stopped_root_has_its_mounts_and_leaves_none_behind() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: mounting needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["layer/data", "upper", "work", "volume"] {
            std::fs::create_dir_all(path(name)).unwrap();
        }
        std::fs::write(path("layer/file"), "layer").unwrap();
        std::fs::write(path("volume/file"), "volume").unwrap();
        // A link in the image must not lead the mount out of it.
        std::os::unix::fs::symlink("/", path("layer/link")).unwrap();
        let rootfs = Rootfs::Overlay {
            lower: vec![path("layer")],
            upper: path("upper"),
            work: path("work"),
        };
        let mount = |target: &str, read_only| ViewMount {
            source: path("volume"),
            target: target.into(),
            read_only,
            recursive: true,
        };
        let mounts = [mount("/data", false), mount("/link/new", true)];
        stopped(&rootfs, &mounts, |root| {
            assert_eq!(text(root, "/file").as_deref(), Some("layer"));
            assert_eq!(text(root, "/data/file").as_deref(), Some("volume"));
            assert_eq!(text(root, "/new/file").as_deref(), Some("volume"));
            let write = libc::O_WRONLY;
            assert!(kernel::open_in_root(root, c"/data/file", write).is_ok());
            let refused = kernel::open_in_root(root, c"/new/file", write).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ReadOnlyFilesystem);
        })
        .unwrap();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(dir.path().to_str().unwrap()));
        assert!(path("upper/new").exists() && !path("upper/data").exists());
    }

    #[test]
    fn a_process_of_another_cgroup_is_not_taken_for_the_container() {
        let own = i32::try_from(std::process::id()).unwrap();
        let refused = running(own, "no-such-container", |_| ());
        assert!(matches!(refused, Err(ViewError::Ended)));
    }
}
