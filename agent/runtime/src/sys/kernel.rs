//! System calls of the parent that no crate wraps, with owned descriptors and `io::Result`.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::raw::{self, MountAttr};

fn fd_of(answer: raw::Answer) -> io::Result<OwnedFd> {
    match answer {
        // SAFETY: the kernel has just returned it to us.
        Ok(fd) => Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) }),
        Err(errno) => Err(io::Error::from_raw_os_error(errno)),
    }
}

fn unit(answer: raw::Answer) -> io::Result<()> {
    answer.map(|_| ()).map_err(io::Error::from_raw_os_error)
}

/// Opens a path below `root` without ever leaving it (`RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS`).
pub(crate) fn open_in_root(root: BorrowedFd<'_>, path: &CStr, flags: i32) -> io::Result<OwnedFd> {
    fd_of(raw::open_in_root(root.as_raw_fd(), path, flags))
}

/// A detached copy of the mount a descriptor refers to.
pub(crate) fn clone_tree(fd: BorrowedFd<'_>, recursive: bool) -> io::Result<OwnedFd> {
    fd_of(raw::open_tree_clone(fd.as_raw_fd(), recursive))
}

/// `mount_setattr`.
pub(crate) fn set_mount_attributes(
    fd: BorrowedFd<'_>,
    attr: &MountAttr,
    recursive: bool,
) -> io::Result<()> {
    unit(raw::mount_setattr(fd.as_raw_fd(), attr, recursive))
}

/// `setns` of the calling thread.
pub(crate) fn enter(namespace: BorrowedFd<'_>, flags: i32) -> io::Result<()> {
    unit(raw::setns(namespace.as_raw_fd(), flags))
}

/// A file system being configured (`fsopen`).
pub(crate) struct Filesystem(OwnedFd);

impl Filesystem {
    pub(crate) fn open(fstype: &CStr) -> io::Result<Filesystem> {
        fd_of(raw::fsopen(fstype)).map(Filesystem)
    }

    /// Sets an option; without a value it is a flag.
    pub(crate) fn set(&self, key: &CStr, value: Option<&CStr>) -> io::Result<()> {
        unit(raw::fsconfig_set(self.0.as_raw_fd(), key, value))
    }

    /// Makes the superblock and a detached mount of it.
    pub(crate) fn mount(self, attributes: u64) -> io::Result<OwnedFd> {
        unit(raw::fsconfig_create(self.0.as_raw_fd())).map_err(|error| self.explain(error))?;
        fd_of(raw::fsmount(self.0.as_raw_fd(), attributes))
    }

    /// The kernel's own words about the failure, if it left any since [`Filesystem::forget`].
    pub(crate) fn explain(&self, error: io::Error) -> io::Error {
        match self.messages().pop() {
            Some(text) => io::Error::new(error.kind(), format!("{error} ({text})")),
            None => error,
        }
    }

    /// Drops what the kernel has said so far, about options that may fail.
    pub(crate) fn forget(&self) {
        drop(self.messages());
    }

    /// What the kernel has said, in order. It keeps the last eight messages.
    fn messages(&self) -> Vec<String> {
        let mut messages = Vec::new();
        let mut buffer = [0u8; 512];
        while let Ok(length @ 1..) = raw::read(self.0.as_raw_fd(), &mut buffer) {
            // A letter for the kind, a space, the text.
            let text = buffer.get(2..length).unwrap_or_default();
            messages.push(String::from_utf8_lossy(text).trim().to_owned());
        }
        messages
    }
}

/// Opens the slave side of the terminal a master belongs to (`TIOCGPTPEER`), whatever is mounted on `/dev/pts`.
pub(crate) fn open_pty_peer(master: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = (libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC) as usize;
    fd_of(raw::ioctl_number(
        master.as_raw_fd(),
        libc::TIOCGPTPEER,
        flags,
    ))
}

/// Unlocks a pty for opening its slave side.
pub(crate) fn unlock_pty(master: BorrowedFd<'_>) -> io::Result<()> {
    let locked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads an int.
    let result = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const locked) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Sends any signal, real-time ones included, to the process of a pidfd.
pub(crate) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: no signal information is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            0usize,
            0u32,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Signals this process ignores: bit n-1 is signal n.
pub(crate) fn ignored_signals() -> u64 {
    let mut set = 0;
    for signal in 1..=64i32 {
        // The C library hides its own two signals, so the kernel is asked itself.
        let mut action = [0usize; 4];
        // SAFETY: the kernel fills in its `sigaction`, four words on every supported machine; nothing is changed.
        let result = unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                0usize,
                action.as_mut_ptr(),
                8usize,
            )
        };
        let ignored = result == 0 && action[0] == libc::SIG_IGN;
        if ignored {
            set |= 1 << (signal - 1);
        }
    }
    set
}
