//! What an unpacked file gets besides its content: owner, mode, extended attributes, times.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::tar_stream::Entry;

/// Owner before mode before attributes: changing the owner clears set-id bits and file capabilities.
pub(crate) fn file_attributes(entry: &Entry, file: &std::fs::File) -> io::Result<()> {
    let (uid, gid) = owner(entry);
    if (entry.uid, entry.gid) != (0, 0) || !rustix::process::geteuid().is_root() {
        rustix::fs::fchown(file, uid, gid)?;
    }
    rustix::fs::fchmod(file, Mode::from_raw_mode(entry.mode))?;
    for (key, value) in kept_xattrs(entry) {
        let set = rustix::fs::fsetxattr(
            file.as_fd(),
            OsStr::from_bytes(key),
            value,
            XattrFlags::empty(),
        );
        tolerate(key, set)?;
    }
    rustix::fs::futimens(file, &times(entry))?;
    Ok(())
}

pub(crate) fn owner(entry: &Entry) -> (Option<Uid>, Option<Gid>) {
    (
        Some(Uid::from_raw(entry.uid)),
        Some(Gid::from_raw(entry.gid)),
    )
}

pub(crate) fn times(entry: &Entry) -> Timestamps {
    let time = Timespec {
        tv_sec: entry.mtime.0,
        tv_nsec: i64::from(entry.mtime.1),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

pub(crate) fn kept_xattrs(entry: &Entry) -> impl Iterator<Item = (&[u8], &[u8])> {
    entry
        .xattrs
        .iter()
        .map(|(key, value)| (&key[..], &value[..]))
        .filter(|(key, _)| {
            !key.starts_with(b"trusted.overlay.") && !key.starts_with(b"user.overlay.")
        })
}

/// A file system that cannot store an attribute is no reason to refuse an image, unless the attribute
/// makes a program work: file capabilities.
pub(crate) fn tolerate(key: &[u8], result: rustix::io::Result<()>) -> io::Result<()> {
    match result {
        Err(Errno::OPNOTSUPP | Errno::PERM) if key != b"security.capability" => Ok(()),
        other => Ok(other?),
    }
}
