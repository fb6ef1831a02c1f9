//! A tmpfs that starts with what the image has at the same path (`tmpcopyup`).
//!
//! Reads inside the root only and copies directories, files, links and their owners and modes; devices, sockets and
//! FIFOs are left out. Source: runc `libcontainer/rootfs_linux.go:doTmpfsCopyUp`.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid};

use crate::launch::step::Parameter;
use crate::sys::kernel::{self, Filesystem};

/// Deepest directory that is copied.
const MAX_DEPTH: usize = 128;

/// Makes the tmpfs and fills it.
pub(crate) fn filled_tmpfs(
    root: BorrowedFd<'_>,
    path: &Path,
    parameters: &[Parameter],
    attributes: u64,
) -> io::Result<OwnedFd> {
    let fs = Filesystem::open(c"tmpfs")?;
    for parameter in parameters {
        fs.set(&parameter.key, parameter.value.as_deref())?;
    }
    let readonly = crate::launch::step::attr::RDONLY;
    let mut mount = fs.mount(attributes & !readonly)?;
    let path = CString::new(path.as_os_str().as_bytes())?;
    match kernel::open_in_root(root, &path, libc::O_RDONLY | libc::O_DIRECTORY) {
        Ok(source) => {
            let top = rustix::fs::openat(
                &mount,
                c".",
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            copy_directory(source, top.as_fd(), 0)?;
        }
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {}
        Err(error) => return Err(error),
    }
    if attributes & readonly != 0 {
        let attr = crate::sys::raw::MountAttr {
            set: readonly,
            ..Default::default()
        };
        crate::tree::set_attributes(&mut mount, &attr, false)?;
    }
    Ok(mount)
}

fn copy_directory(source: OwnedFd, target: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other("directories are nested too deeply"));
    }
    for entry in Dir::read_from(&source)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            copy_entry(source.as_fd(), target, name, depth)?;
        }
    }
    Ok(())
}

fn copy_entry(
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    name: &CStr,
    depth: usize,
) -> io::Result<()> {
    let stat = rustix::fs::statat(source, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let open = |flags: OFlags| {
        rustix::fs::openat(
            source,
            name,
            flags | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )
    };
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            rustix::fs::mkdirat(target, name, Mode::from_raw_mode(0o700))?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let made = rustix::fs::openat(target, name, flags, Mode::empty())?;
            copy_directory(
                open(OFlags::RDONLY | OFlags::DIRECTORY)?,
                made.as_fd(),
                depth + 1,
            )?;
        }
        FileType::RegularFile => {
            let flags =
                OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let made = rustix::fs::openat(target, name, flags, Mode::from_raw_mode(0o600))?;
            let mut reader = std::fs::File::from(open(OFlags::RDONLY | OFlags::NONBLOCK)?);
            io::copy(&mut reader, &mut std::fs::File::from(made))?;
        }
        FileType::Symlink => {
            let text = rustix::fs::readlinkat(source, name, Vec::new())?;
            rustix::fs::symlinkat(&text, target, name)?;
        }
        _ => return Ok(()),
    }
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(
        target,
        name,
        Some(uid),
        Some(gid),
        AtFlags::SYMLINK_NOFOLLOW,
    )?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        rustix::fs::chmodat(target, name, mode, AtFlags::empty())?;
    }
    Ok(())
}
