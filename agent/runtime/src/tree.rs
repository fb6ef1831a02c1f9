//! Attributes of detached mounts: `mount_setattr`, or what came before it.
//!
//! Before Linux 5.12 only an attached mount could be changed. There the mount spends a moment in a mount namespace that
//! one thread has for itself, where nobody can see or reach it, is remounted, and a detached copy of it comes back.
//! Source: kernel `fs/namespace.c` (`do_remount`, `open_detached_copy`).

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::launch::remount;
use crate::sys::kernel::{self, Filesystem};
use crate::sys::raw::{self, MountAttr};

/// Sets attributes of a detached mount; on a kernel before 5.12 a copy with them takes its place.
///
/// `recursive` reaches the mounts below. An error leaves the mount unchanged; [`io::ErrorKind::Unsupported`] is for more
/// than propagation, recursively, on a kernel before 5.12.
pub(crate) fn set_attributes(
    tree: &mut OwnedFd,
    attr: &MountAttr,
    recursive: bool,
) -> io::Result<()> {
    match kernel::set_mount_attributes(tree.as_fd(), attr, recursive) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
            *tree = remounted(tree, attr, recursive)?;
            Ok(())
        }
        other => other,
    }
}

fn remounted(tree: &OwnedFd, attr: &MountAttr, recursive: bool) -> io::Result<OwnedFd> {
    if recursive && attr.set != 0 {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "recursive mount options need Linux 5.12",
        ));
    }
    let number = |answer: Result<(), raw::Errno>| answer.map_err(io::Error::from_raw_os_error);
    let is_directory = rustix::fs::fstat(tree)?.st_mode & libc::S_IFMT == libc::S_IFDIR;
    in_private_namespace(|| {
        let place = Filesystem::open(c"tmpfs")?.mount(0)?;
        number(raw::move_mount(place.as_raw_fd(), libc::AT_FDCWD, c"/").map(drop))?;
        if is_directory {
            rustix::fs::mkdirat(&place, c"tree", Mode::RWXU)?;
        } else {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
            rustix::fs::openat(&place, c"tree", flags, Mode::RUSR)?;
        }
        let (from, to) = (tree.as_raw_fd(), place.as_raw_fd());
        number(raw::move_mount(from, to, c"tree").map(drop))?;
        let reach = match recursive {
            true => libc::MS_REC,
            false => 0,
        };
        number(remount::by_path(from, attr, reach))?;
        kernel::clone_tree(tree.as_fd(), true)
    })
}

/// Runs something on a thread with a private copy of the mount namespace, which is gone afterwards.
pub(crate) fn in_private_namespace<T: Send>(
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    use rustix::mount::{MountPropagationFlags, mount_change};
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            nix::sched::unshare(
                nix::sched::CloneFlags::CLONE_FS | nix::sched::CloneFlags::CLONE_NEWNS,
            )?;
            mount_change(
                "/",
                MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
            )?;
            work()
        });
        worker
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the mounting thread panicked")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    use crate::launch::step::attr;

    /// Both ways give the same mount, of a directory and of a file, and leave the original as it was.
    #[test]
    fn a_remounted_copy_is_like_one_with_attributes_set() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: mounting needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let wanted = MountAttr {
            set: attr::RDONLY | attr::NOSUID | attr::NOEXEC,
            propagation: libc::MS_PRIVATE,
            ..MountAttr::default()
        };
        let copy = |path: &Path| {
            let fd = rustix::fs::open(path, OFlags::PATH, Mode::empty()).unwrap();
            kernel::clone_tree(fd.as_fd(), false).unwrap()
        };
        for path in [dir.path(), file.as_path()] {
            let mut modern = copy(path);
            set_attributes(&mut modern, &wanted, false).unwrap();
            let old = remounted(&copy(path), &wanted, false).unwrap();
            let flags = |fd: &OwnedFd| raw::mount_flags_of(fd.as_raw_fd()).unwrap();
            assert_eq!(flags(&old), flags(&modern), "{}", path.display());
            assert_ne!(flags(&old), flags(&copy(path)), "{}", path.display());
        }
        let forced = remounted(&copy(dir.path()), &wanted, true).unwrap_err();
        assert_eq!(forced.kind(), io::ErrorKind::Unsupported);
    }
}
