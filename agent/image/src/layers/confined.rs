//! A directory tree that paths from outside cannot leave.
//!
//! Every path is resolved by the kernel relative to the tree's root: first without following any symbolic
//! link (`RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`), and where a parent *is* a symbolic link inside the tree, with
//! `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS`, so that `/` and `..` end at the root, as in a chroot
//! (openat2(2), Linux 5.6). The last component is never followed.
//!
//! Must not: be used on a tree somebody else writes to at the same time. `diff/` of an unfinished layer belongs
//! to one thread.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, XattrFlags};
use rustix::io::Errno;

use super::nursery::Nursery;

const OPAQUE: &str = "trusted.overlay.opaque";
/// How often a resolution that the kernel calls racy is tried again.
const RACES_MAX: u32 = 1000;

/// A directory and the path by which it is reached without any symbolic link, relative to the root.
pub(super) struct Directory {
    pub(super) fd: OwnedFd,
    /// Components joined by `/`; empty for the root.
    pub(super) real: Vec<u8>,
}

pub(super) struct Tree {
    root: OwnedFd,
    /// Where directories are made, if not in their place.
    nursery: Option<Nursery>,
    /// The parent used last, by the path it was asked for.
    cached: Option<(Vec<u8>, Directory)>,
}

impl Tree {
    pub(super) fn new(root: OwnedFd, nursery: Option<Nursery>) -> Self {
        Self {
            root,
            nursery,
            cached: None,
        }
    }

    /// Forgets resolved directories: call it after anything was replaced.
    pub(super) fn forget(&mut self) {
        self.cached = None;
    }

    /// The directory `path` (cleaned, relative), made with its parents as 0755 root if missing.
    pub(super) fn directory(&mut self, path: &[u8]) -> io::Result<&Directory> {
        let hit = self.cached.as_ref().is_some_and(|(key, _)| key == path);
        if !hit {
            let directory = match self.open(path) {
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    self.make_path(path)?;
                    self.open(path)?
                }
                other => other?,
            };
            self.cached = Some((path.to_vec(), directory));
        }
        Ok(&self.cached.as_ref().expect("filled just above").1)
    }

    /// An existing directory.
    pub(super) fn open(&self, path: &[u8]) -> rustix::io::Result<Directory> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let name: &[u8] = if path.is_empty() { b"." } else { path };
        let straight =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(
            &self.root,
            OsStr::from_bytes(name),
            flags,
            Mode::empty(),
            straight,
        ) {
            Ok(fd) => Ok(Directory {
                fd,
                real: path.to_vec(),
            }),
            Err(Errno::LOOP) => {
                let in_root = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
                let name = OsStr::from_bytes(name);
                let mut tries = 0;
                let fd = loop {
                    match rustix::fs::openat2(&self.root, name, flags, Mode::empty(), in_root) {
                        // A rename or mount anywhere on the machine while a `..` was being resolved.
                        Err(Errno::AGAIN) if tries < RACES_MAX => tries += 1,
                        result => break result?,
                    }
                };
                let real = self.real_path(&fd)?;
                Ok(Directory { fd, real })
            }
            Err(other) => Err(other),
        }
    }

    /// A new directory in `parent` (cleaned, relative), which is made if missing.
    pub(super) fn make_directory(
        &mut self,
        parent: &[u8],
        name: &OsStr,
        mode: Mode,
    ) -> io::Result<()> {
        self.directory(parent)?;
        let (_, parent) = self.cached.as_ref().expect("filled just above");
        Ok(make_in(&mut self.nursery, &parent.fd, name, mode)?)
    }

    /// Runs what makes a file in `parent` (cleaned, relative), which is made if missing.
    pub(super) fn make_file<T>(
        &mut self,
        parent: &[u8],
        make: impl FnOnce(&Directory) -> T,
    ) -> io::Result<T> {
        self.directory(parent)?;
        let (_, parent) = self.cached.as_ref().expect("filled just above");
        Ok(match &mut self.nursery {
            Some(nursery) => nursery.watch(|| make(parent)),
            None => make(parent),
        })
    }

    /// Makes `path` and its missing parents. A whiteout in the way becomes an opaque directory: the
    /// layer removes what was below and puts something new there.
    fn make_path(&mut self, path: &[u8]) -> io::Result<()> {
        let ends = path.iter().chain(b"/").enumerate();
        let ends: Vec<usize> = ends
            .filter_map(|(at, b)| (*b == b'/').then_some(at))
            .collect();
        // From the deepest parent that is there, which is nearly always the direct one.
        let mut there = ends.len() - 1;
        let mut parent = loop {
            let deepest = there.checked_sub(1).map_or(0, |last| ends[last]);
            match self.open(&path[..deepest]) {
                Err(Errno::NOENT | Errno::NOTDIR) if there > 0 => there -= 1,
                found => break found?,
            }
        };
        for end in &ends[there..] {
            let prefix = &path[..*end];
            let name = OsStr::from_bytes(prefix.rsplit(|b| *b == b'/').next().unwrap_or(prefix));
            parent = match self.open(prefix) {
                Ok(directory) => directory,
                Err(Errno::NOENT) => {
                    self.make_parent(&parent.fd, name)?;
                    self.open(prefix)?
                }
                Err(Errno::NOTDIR) => {
                    let stat = rustix::fs::statat(&parent.fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
                    if !is_whiteout(&stat) {
                        return Err(Errno::NOTDIR.into());
                    }
                    rustix::fs::unlinkat(&parent.fd, name, AtFlags::empty())?;
                    self.make_parent(&parent.fd, name)?;
                    let made = self.open(prefix)?;
                    make_opaque(&made.fd)?;
                    made
                }
                Err(other) => return Err(other.into()),
            };
        }
        Ok(())
    }

    fn make_parent(&mut self, parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
        let mode = Mode::from_raw_mode(0o755);
        make_in(&mut self.nursery, parent, name, mode)?;
        // The umask of the process has no say in what an image contains.
        rustix::fs::chmodat(parent, name, mode, AtFlags::empty())?;
        Ok(())
    }

    /// Where `fd` really is, relative to the root.
    fn real_path(&self, fd: &OwnedFd) -> rustix::io::Result<Vec<u8>> {
        let root = proc_link(&self.root)?;
        let full = proc_link(fd)?;
        match full.strip_prefix(&root[..]) {
            Some([]) => Ok(Vec::new()),
            Some([b'/', rest @ ..]) => Ok(rest.to_vec()),
            _ => Err(Errno::XDEV),
        }
    }
}

fn proc_link(fd: &impl AsFd) -> rustix::io::Result<Vec<u8>> {
    let link = rustix::fs::readlink(proc_path(fd), Vec::new())?;
    Ok(link.into_bytes())
}

/// The magic link of an open file, for the calls that take only a path.
pub(crate) fn proc_path(fd: &impl AsFd) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

fn make_in(
    nursery: &mut Option<Nursery>,
    parent: &OwnedFd,
    name: &OsStr,
    mode: Mode,
) -> rustix::io::Result<()> {
    match nursery {
        Some(nursery) => nursery.make_directory(parent, name, mode),
        None => rustix::fs::mkdirat(parent, name, mode),
    }
}

/// Marks a directory as hiding everything below it in lower layers.
pub(crate) fn make_opaque(directory: &impl AsFd) -> io::Result<()> {
    // Through the magic link, because a descriptor opened with O_PATH cannot be used directly.
    rustix::fs::setxattr(proc_path(directory), OPAQUE, b"y", XattrFlags::empty())?;
    Ok(())
}

/// Whether this is overlayfs's mark for "removed": a character device 0:0.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}
