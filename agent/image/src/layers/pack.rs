//! Writes a directory as a tar: a container's changes as a layer (`commit`), or a whole tree (`export`).
//!
//! ```text
//! in an overlay upper directory          in the layer
//! character device 0:0 "foo"          →  .wh.foo
//! directory with …overlay.opaque=y    →  .wh..wh..opq as its first entry
//! redirect or metacopy attributes     →  refused: the upper directory alone does not hold the data
//! ```
//!
//! The tree may belong to a container that is running: every step goes from directory descriptor to directory descriptor without
//! following links, and a file that shrinks meanwhile is filled up with zeros. Entries are sorted; times are whole
//! seconds and attributes are file capabilities and `user.*`, as in Docker's archives. Sockets have no tar form and are left out.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use tar::{EntryType, Header};

use super::confined::{is_whiteout, proc_path};
use super::tar_writer::{Member, TarSink, TarWriter};
use crate::limits::Limits;

/// What the directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tree {
    /// The upper directory of an overlay mount.
    Upper,
    /// A root file system as a process sees it.
    Plain,
}

/// Why a tree could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PackError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot archive {}: {reason}", path.display())]
    Unfit { path: PathBuf, reason: &'static str },
    #[error("cannot write the archive: {0}")]
    Write(io::Error),
}

/// Writes everything below `root`, without `root` itself and the paths of `without`, and the end-of-archive mark. No modification time is later than
/// `clamp`. Returns the sum of the sizes of files and links (Docker's layer size).
pub(crate) fn pack(
    root: &Path,
    tree: Tree,
    without: &BTreeSet<PathBuf>,
    limits: &Limits,
    clamp: Option<i64>,
    output: &mut dyn TarSink,
) -> Result<u64, PackError> {
    let mut packer = Packer {
        tree,
        without,
        limits,
        output: TarWriter::new(output, clamp),
        links: HashMap::new(),
        size: 0,
    };
    let directory =
        open(rustix::fs::CWD, root.as_os_str(), OFlags::DIRECTORY).map_err(|e| read(root, e))?;
    packer.directory(&directory, root, &mut Vec::new(), 0)?;
    packer.output.finish()?;
    Ok(packer.size)
}

/// Writes `child` of the open directory, or without one the directory itself, under `name`, with everything below it,
/// and the end-of-archive mark. `path` is for messages.
pub(crate) fn pack_named(
    directory: &OwnedFd,
    child: Option<&OsStr>,
    name: &[u8],
    path: &Path,
    limits: &Limits,
    output: &mut dyn TarSink,
) -> Result<(), PackError> {
    let mut packer = Packer {
        tree: Tree::Plain,
        without: &BTreeSet::new(),
        limits,
        output: TarWriter::new(output, None),
        links: HashMap::new(),
        size: 0,
    };
    let mut name = name.to_vec();
    match child {
        Some(child) => {
            let stat = rustix::fs::statat(directory, child, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|e| read(path, e))?;
            packer.entry(directory, child, path, &mut name, &stat, 0)?;
        }
        None => {
            let stat = rustix::fs::fstat(directory).map_err(|e| read(path, e))?;
            let member = Member {
                name: &[&name[..], b"/"].concat(),
                link: &[],
                stat: &stat,
                size: 0,
                xattrs: kept_xattrs(directory),
            };
            packer.output.member(&member, EntryType::Directory)?;
            packer.directory(directory, path, &mut name, 0)?;
        }
    }
    packer.output.finish()
}

struct Packer<'a> {
    tree: Tree,
    /// Paths relative to the root that are left out.
    without: &'a BTreeSet<PathBuf>,
    limits: &'a Limits,
    output: TarWriter<'a>,
    /// Inode → first name, of files with several.
    links: HashMap<(u64, u64), Vec<u8>>,
    /// Sum of the sizes of files and links, each inode once.
    size: u64,
}

impl Packer<'_> {
    /// Writes the entries of the open directory `fd`, called `name` in the archive.
    fn directory(
        &mut self,
        fd: &OwnedFd,
        path: &Path,
        name: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), PackError> {
        if depth > self.limits.path_depth || name.len() > self.limits.path_bytes {
            return Err(unfit(path, "it is nested too deeply"));
        }
        if self.tree == Tree::Upper && is_set(fd, "trusted.overlay.opaque") {
            self.whiteout(name, b".wh..wh..opq", path)?;
        }
        let mut children = Vec::new();
        for entry in Dir::read_from(fd).map_err(|e| read(path, e))? {
            let entry = entry.map_err(|e| read(path, e))?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                children.push(entry.file_name().to_owned());
            }
        }
        children.sort();
        let base = name.len();
        for child in children {
            let child = OsStr::from_bytes(child.as_bytes());
            let path = path.join(child);
            let stat = match rustix::fs::statat(fd, child, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                // It went away since the directory was read.
                Err(rustix::io::Errno::NOENT) => continue,
                Err(error) => return Err(read(&path, error)),
            };
            if self.tree == Tree::Upper && is_whiteout(&stat) {
                self.whiteout(name, &[b".wh.", child.as_bytes()].concat(), &path)?;
                continue;
            }
            if self.tree == Tree::Upper && child.as_bytes().starts_with(b".wh.") {
                return Err(unfit(&path, "layers reserve names that begin with .wh."));
            }
            if base > 0 {
                name.push(b'/');
            }
            name.extend_from_slice(child.as_bytes());
            let written = match self.without.contains(Path::new(OsStr::from_bytes(name))) {
                true => Ok(()),
                false => self.entry(fd, child, &path, name, &stat, depth),
            };
            name.truncate(base);
            written?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        parent: &OwnedFd,
        child: &OsStr,
        path: &Path,
        name: &mut Vec<u8>,
        stat: &Stat,
        depth: usize,
    ) -> Result<(), PackError> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let mut member = Member {
            name,
            link: &[],
            stat,
            size: 0,
            xattrs: Vec::new(),
        };
        match kind {
            FileType::Directory => {
                let fd = match open(parent, child, OFlags::DIRECTORY) {
                    Ok(fd) => fd,
                    Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(()),
                    Err(error) => return Err(read(path, error)),
                };
                if self.tree == Tree::Upper && is_set(&fd, "trusted.overlay.redirect") {
                    return Err(unfit(path, "the overlay was mounted with redirect_dir"));
                }
                member.xattrs = kept_xattrs(&fd);
                let with_slash = [member.name, b"/"].concat();
                member.name = &with_slash;
                self.output.member(&member, EntryType::Directory)?;
                self.directory(&fd, path, name, depth + 1)
            }
            FileType::Symlink => {
                let target =
                    rustix::fs::readlinkat(parent, child, Vec::new()).map_err(|e| read(path, e))?;
                member.link = target.as_bytes();
                self.size = self.size.saturating_add(target.as_bytes().len() as u64);
                self.output.member(&member, EntryType::Symlink)
            }
            FileType::RegularFile => {
                let inode = (stat.st_dev, stat.st_ino);
                if stat.st_nlink > 1 {
                    if let Some(first) = self.links.get(&inode).cloned() {
                        member.link = &first;
                        return self.output.member(&member, EntryType::Link);
                    }
                    self.links.insert(inode, member.name.to_vec());
                }
                // Not blocking, in case somebody put a fifo there since.
                let fd = match open(parent, child, OFlags::NONBLOCK) {
                    Ok(fd) => fd,
                    Err(rustix::io::Errno::NOENT) => return Ok(()),
                    Err(error) => return Err(read(path, error)),
                };
                let opened = rustix::fs::fstat(&fd).map_err(|e| read(path, e))?;
                if FileType::from_raw_mode(opened.st_mode) != FileType::RegularFile {
                    return Err(unfit(path, "it changed while it was being read"));
                }
                if self.tree == Tree::Upper && is_set(&fd, "trusted.overlay.metacopy") {
                    return Err(unfit(path, "the overlay was mounted with metacopy"));
                }
                member.stat = &opened;
                member.size = opened.st_size as u64;
                member.xattrs = kept_xattrs(&fd);
                self.size = self.size.saturating_add(member.size);
                let mut file = std::fs::File::from(fd);
                self.output.file(&member, &mut file, path)
            }
            FileType::CharacterDevice => self.output.member(&member, EntryType::Char),
            FileType::BlockDevice => self.output.member(&member, EntryType::Block),
            FileType::Fifo => self.output.member(&member, EntryType::Fifo),
            _ => Ok(()),
        }
    }

    /// An empty file `marker` in the directory `name`.
    fn whiteout(&mut self, name: &[u8], marker: &[u8], path: &Path) -> Result<(), PackError> {
        let full = match name.is_empty() {
            true => marker.to_vec(),
            false => [name, b"/", marker].concat(),
        };
        if marker.len() > 255 {
            return Err(unfit(path, "its name is too long for a whiteout"));
        }
        let mut header = Header::new_ustar();
        header.set_mode(0o600);
        self.output
            .header(header, &full, &[], EntryType::Regular, 0, Vec::new())
    }
}

fn open(
    parent: impl std::os::fd::AsFd,
    name: &OsStr,
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

fn read(path: &Path, error: rustix::io::Errno) -> PackError {
    PackError::Read {
        path: path.to_owned(),
        source: error.into(),
    }
}

fn unfit(path: &Path, reason: &'static str) -> PackError {
    PackError::Unfit {
        path: path.to_owned(),
        reason,
    }
}

/// Whether an attribute is there and not empty. Overlayfs writes `y`, in newer kernels also `x` for directories that
/// merely may contain whiteouts stored as attributes; these have no meaning in a layer.
pub(super) fn is_set(fd: &OwnedFd, name: &str) -> bool {
    let mut value = [0u8; 8];
    match rustix::fs::fgetxattr(fd, name, &mut value[..]) {
        Ok(len) => name != "trusted.overlay.opaque" || value[..len] == *b"y",
        // A value that does not fit is there.
        Err(error) => error == rustix::io::Errno::RANGE,
    }
}

/// The attributes worth keeping, sorted. A file system without attributes has none.
pub(crate) fn kept_xattrs(fd: &OwnedFd) -> Vec<(Vec<u8>, Vec<u8>)> {
    let path = proc_path(fd);
    // Nearly all files have none, or a name or two.
    let mut few = [0u8; 512];
    let mut many = Vec::new();
    let names = match rustix::fs::listxattr(&path, &mut few[..]) {
        Ok(len) => &few[..len],
        Err(rustix::io::Errno::RANGE) => {
            many.resize(64 << 10, 0);
            match rustix::fs::listxattr(&path, &mut many[..]) {
                Ok(len) => &many[..len],
                Err(_) => return Vec::new(),
            }
        }
        Err(_) => return Vec::new(),
    };
    let mut kept = Vec::new();
    for name in names.split(|b| *b == 0) {
        let wanted = name == b"security.capability"
            || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."));
        if wanted {
            let mut value = vec![0u8; 64 << 10];
            if let Ok(len) = rustix::fs::fgetxattr(fd, OsStr::from_bytes(name), &mut value[..]) {
                value.truncate(len);
                kept.push((name.to_vec(), value));
            }
        }
    }
    kept.sort();
    kept
}
