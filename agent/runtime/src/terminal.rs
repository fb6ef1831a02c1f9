//! Pseudo terminals: a container's own devpts instance and the pair opened from it.
//!
//! The multiplexer is opened through a mount nobody else can reach, or verified to be the one of a devpts, so a
//! container cannot lend the runtime a device of its choice (CVE-2025-52565).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::termios::Winsize;

use crate::launch::step::Parameter;
use crate::spec::TerminalSize;
use crate::sys::kernel::{self, Filesystem};

/// Superblock magic of devpts.
const DEVPTS_MAGIC: u64 = 0x1cd1;

/// A pair of descriptors and, for a new instance, the detached mount it lives on.
#[derive(Debug)]
pub(crate) struct Terminal {
    pub(crate) master: OwnedFd,
    pub(crate) slave: OwnedFd,
    pub(crate) devpts: Option<OwnedFd>,
}

/// Makes a devpts instance and opens its first terminal.
pub(crate) fn create(parameters: &[Parameter], size: TerminalSize) -> io::Result<Terminal> {
    let fs = Filesystem::open(c"devpts")?;
    for parameter in parameters {
        fs.set(&parameter.key, parameter.value.as_deref())?;
    }
    // nosuid and noexec, as the mount has in every container
    let devpts = fs.mount(0x02 | 0x08)?;
    let (master, slave) = open_pair(devpts.as_fd(), c"ptmx", size)?;
    Ok(Terminal {
        master,
        slave,
        devpts: Some(devpts),
    })
}

/// Opens a terminal of a running container.
pub(crate) fn open_in(root: BorrowedFd<'_>, size: TerminalSize) -> io::Result<Terminal> {
    let (master, slave) = open_pair(root, c"dev/pts/ptmx", size)?;
    Ok(Terminal {
        master,
        slave,
        devpts: None,
    })
}

fn open_pair(
    root: BorrowedFd<'_>,
    path: &std::ffi::CStr,
    size: TerminalSize,
) -> io::Result<(OwnedFd, OwnedFd)> {
    // Look before opening: opening a device or a FIFO of somebody's choice may do something.
    let seen = kernel::open_in_root(root, path, libc::O_PATH | libc::O_NOFOLLOW)?;
    let stat = rustix::fs::fstat(&seen)?;
    let is_ptmx =
        stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == libc::makedev(5, 2);
    if !is_ptmx || rustix::fs::fstatfs(&seen)?.f_type as u64 != DEVPTS_MAGIC {
        return Err(io::Error::other(
            "/dev/pts/ptmx is not the multiplexer of a devpts",
        ));
    }
    let again = std::ffi::CString::new(format!(
        "/proc/self/fd/{}",
        std::os::fd::AsRawFd::as_raw_fd(&seen)
    ))?;
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
    let master = rustix::fs::open(again.as_c_str(), flags, rustix::fs::Mode::empty())?;
    kernel::unlock_pty(master.as_fd())?;
    let slave = kernel::open_pty_peer(master.as_fd())?;
    if size.rows != 0 || size.columns != 0 {
        resize(master.as_fd(), size)?;
    }
    Ok((master, slave))
}

/// Sets the size the processes see and tells them (`SIGWINCH`).
pub fn resize(master: BorrowedFd<'_>, size: TerminalSize) -> io::Result<()> {
    let size = Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(rustix::termios::tcsetwinsize(master, size)?)
}
