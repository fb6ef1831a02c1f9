//! Turns a tar stream into an overlay directory and a recipe, trusting nothing in it.
//!
//! ```text
//! foo        removed in lower layers (.wh.foo)          → character device 0:0 "foo"
//! foo/       hides lower content (.wh..wh..opq inside)  → directory with trusted.overlay.opaque=y
//! .wh.foo and foo/ in one layer                         → opaque directory (a new foo, nothing of the old one)
//! .wh..wh.*  (AUFS bookkeeping)                         → left out
//! ```
//!
//! Whiteouts concern lower layers only, wherever they stand in the stream (OCI image-spec `layer.md`). The last of
//! several entries of one name wins; a replaced file with data moves to `spill/`, since the recipe
//! still needs the data. Names are cleaned as Docker does (`go-archive/archive.go:Unpack`): a leading `/` and `.`
//! disappear, `..` may not climb out.
//!
//! Must not: follow anything out of the tree (see [`super::confined`]), or keep attributes that would change what
//! overlayfs makes of the layer (`trusted.overlay.*`, `user.overlay.*`).

use std::ffi::OsStr;
use std::io::{self, BufRead, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timestamps, XattrFlags};
use rustix::io::Errno;

use super::attributes::{file_attributes, kept_xattrs, owner, times, tolerate};
use super::confined::{Directory, Tree, is_whiteout, make_opaque, proc_path};
use super::nursery::Nursery;
use super::recipe::RecipeWriter;
use super::{Move, UnpackError};
use crate::limits::Limits;
use crate::tar_stream::{Entry, Fragment, Kind, TarReader};

const WHITEOUT: &[u8] = b".wh.";
const WHITEOUT_META: &[u8] = b".wh..wh.";
const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";

/// What [`unpack`] learnt.
pub(super) struct Contents {
    /// Sum of the sizes of all files and symbolic links, hard links once (Docker's layer size).
    pub(super) size: u64,
    /// Files that were replaced.
    pub(super) moves: Vec<Move>,
    /// Whether the layer hides everything below it.
    pub(super) opaque_root: bool,
}

/// Unpacks the tar stream `source` into `directory/diff`, recording into `recipe`.
/// Reads `source` to its end.
pub(super) fn unpack<R: BufRead, W: Write>(
    source: R,
    directory: &Path,
    recipe: RecipeWriter<W>,
    nursery: Option<Nursery>,
    limits: &Limits,
) -> Result<(Contents, RecipeWriter<W>), UnpackError> {
    let diff = directory.join("diff");
    let machine = |path: &Path| {
        let path = path.to_owned();
        move |source| UnpackError::Machine { path, source }
    };
    std::fs::create_dir(&diff).map_err(machine(&diff))?;
    let root = rustix::fs::open(
        &diff,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .and_then(|root| {
        rustix::fs::fchmod(&root, Mode::from_raw_mode(0o755))?;
        Ok(root)
    })
    .map_err(|e| machine(&diff)(e.into()))?;
    let mut unpacker = Unpacker {
        tree: Tree::new(root, nursery),
        spill: directory.join("spill"),
        limits,
        number: 0,
        size: 0,
        recount: false,
        moves: Vec::new(),
        opaque_root: false,
        directories: Vec::new(),
    };
    let mut tar = TarReader::new(source, recipe, limits.clone());
    while let Some(entry) = tar.next_entry()? {
        unpacker.number += 1;
        unpacker.apply(&entry, &mut tar)?;
    }
    let (_, recipe) = tar.finish()?;
    unpacker.finish_directories().map_err(machine(&diff))?;
    if unpacker.recount {
        unpacker.size = tree_size(&diff).map_err(machine(&diff))?;
    }
    let contents = Contents {
        size: unpacker.size,
        moves: unpacker.moves,
        opaque_root: unpacker.opaque_root,
    };
    Ok((contents, recipe))
}

struct Unpacker<'a> {
    tree: Tree,
    /// Where replaced files go.
    spill: PathBuf,
    limits: &'a Limits,
    /// Number of the current entry, from 1.
    number: u64,
    size: u64,
    /// `size` is no longer right because something was replaced.
    recount: bool,
    moves: Vec<Move>,
    opaque_root: bool,
    /// Directories whose times are set at the end, because filling them changes these.
    directories: Vec<(Vec<u8>, Timestamps)>,
}

impl Unpacker<'_> {
    fn apply<R: BufRead, W: Write>(
        &mut self,
        entry: &Entry,
        tar: &mut TarReader<R, RecipeWriter<W>>,
    ) -> Result<(), UnpackError> {
        if entry.kind == Kind::Global {
            return Ok(());
        }
        let path = self.clean(&entry.path)?;
        let Some((parent, name)) = split(&path) else {
            if entry.kind != Kind::Directory {
                return Err(self.hostile(&entry.path, "the layer's root must be a directory"));
            }
            return self.wrap(entry, |unpacker| {
                let root = unpacker.tree.open(b"")?;
                unpacker.directory_attributes(entry, &root)
            });
        };
        if parent
            .split(|b| *b == b'/')
            .any(|part| part.starts_with(WHITEOUT_META))
            || (name.starts_with(WHITEOUT_META) && name != WHITEOUT_OPAQUE)
        {
            return Ok(());
        }
        if parent
            .split(|b| *b == b'/')
            .any(|part| part.starts_with(WHITEOUT))
        {
            return Err(self.hostile(&entry.path, "a whiteout cannot be a directory"));
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return self.whiteout(entry, parent, name, hidden);
        }
        match entry.kind {
            Kind::File => self.file(entry, parent, name, tar),
            Kind::HardLink => {
                let target = self.clean(&entry.link)?;
                self.hard_link(entry, parent, name, &target)
            }
            _ => self.wrap(entry, |unpacker| unpacker.special(entry, parent, name)),
        }
    }

    /// `path` without empty parts, `.` and `..`.
    fn clean(&self, path: &[u8]) -> Result<Vec<u8>, UnpackError> {
        let mut parts: Vec<&[u8]> = Vec::new();
        for part in path.split(|b| *b == b'/') {
            match part {
                b"" | b"." => {}
                b".." => {
                    if parts.pop().is_none() && !path.starts_with(b"/") {
                        return Err(self.hostile(path, "it leads out of the layer"));
                    }
                }
                part if part.len() > 255 => {
                    return Err(self.hostile(path, "a name is longer than 255 bytes"));
                }
                part => parts.push(part),
            }
        }
        if parts.len() > self.limits.path_depth {
            return Err(self.hostile(path, "it is nested too deeply"));
        }
        Ok(parts.join(&b'/'))
    }

    fn whiteout(
        &mut self,
        entry: &Entry,
        parent: &[u8],
        name: &[u8],
        hidden: &[u8],
    ) -> Result<(), UnpackError> {
        if name == WHITEOUT_OPAQUE {
            if parent.is_empty() {
                self.opaque_root = true;
            }
            return self.wrap(entry, |unpacker| {
                make_opaque(&unpacker.tree.directory(parent)?.fd)
            });
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(self.hostile(&entry.path, "a whiteout of nothing"));
        }
        self.wrap(entry, |unpacker| {
            let hidden = OsStr::from_bytes(hidden);
            let directory = unpacker.tree.directory(parent)?;
            let made = rustix::fs::mknodat(
                &directory.fd,
                hidden,
                FileType::CharacterDevice,
                Mode::empty(),
                rustix::fs::makedev(0, 0),
            );
            match made {
                // The layer has its own entry of that name, which hides a lower file already.
                Err(Errno::EXIST) => {
                    let stat =
                        rustix::fs::statat(&directory.fd, hidden, AtFlags::SYMLINK_NOFOLLOW)?;
                    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                        make_opaque(&open_directory(directory, hidden)?)?;
                    }
                    Ok(())
                }
                other => Ok(other?),
            }
        })
    }

    fn file<R: BufRead, W: Write>(
        &mut self,
        entry: &Entry,
        parent: &[u8],
        name: &[u8],
        tar: &mut TarReader<R, RecipeWriter<W>>,
    ) -> Result<(), UnpackError> {
        self.size = self.size.saturating_add(entry.size);
        if self.size > self.limits.layer_bytes {
            return Err(crate::tar_stream::TarError::Limit {
                what: "bytes in one layer",
                limit: self.limits.layer_bytes,
            }
            .into());
        }
        let mut real = Vec::new();
        let file = self.wrap(entry, |unpacker| {
            unpacker.create(parent, name, |directory, name| {
                real.clone_from(&directory.real);
                let flags = OFlags::WRONLY
                    | OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                rustix::fs::openat(&directory.fd, name, flags, Mode::RUSR | Mode::WUSR)
            })
        })?;
        let mut file = std::fs::File::from(file);
        if !real.is_empty() {
            real.push(b'/');
        }
        real.extend_from_slice(name);
        let whole = [Fragment {
            offset: 0,
            len: tar.remaining(),
        }];
        let fragments = match &entry.fragments {
            Some(fragments) => &fragments[..],
            None if whole[0].len == 0 => &[],
            None => &whole,
        };
        if fragments.iter().any(|fragment| fragment.len > 0) {
            let number = self.number;
            self.wrap(entry, |_| tar.sink().file(number, &real, fragments))?;
        }
        for fragment in fragments {
            if entry.fragments.is_some() {
                use std::io::Seek;
                self.wrap(entry, |_| file.seek(io::SeekFrom::Start(fragment.offset)))?;
            }
            let mut left = fragment.len;
            while left > 0 {
                let bytes = tar.fill_payload()?;
                let len = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
                self.wrap(entry, |_| file.write_all(&bytes[..len]))?;
                tar.consume_payload(len);
                left -= len as u64;
            }
        }
        self.wrap(entry, |_| {
            if entry.fragments.is_some() {
                file.set_len(entry.size)?;
            }
            file_attributes(entry, &file)
        })
    }

    fn hard_link(
        &mut self,
        entry: &Entry,
        parent: &[u8],
        name: &[u8],
        target: &[u8],
    ) -> Result<(), UnpackError> {
        let missing = |unpacker: &Self| {
            let target = String::from_utf8_lossy(&entry.link).into_owned();
            unpacker.hostile(
                &entry.path,
                &format!("it is a hard link to {target:?}, which is no file of this layer"),
            )
        };
        let Some((target_parent, target_name)) = split(target) else {
            return Err(missing(self));
        };
        let target_name = OsStr::from_bytes(target_name);
        let Ok(directory) = self.tree.open(target_parent) else {
            return Err(missing(self));
        };
        match rustix::fs::statat(&directory.fd, target_name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat)
                if !is_whiteout(&stat)
                    && FileType::from_raw_mode(stat.st_mode) != FileType::Directory => {}
            Ok(_) | Err(Errno::NOENT) => return Err(missing(self)),
            Err(error) => return Err(self.failed(entry, error.into())),
        }
        let same = self
            .tree
            .open(parent)
            .is_ok_and(|found| found.real == directory.real && name == target_name.as_bytes());
        if same {
            return Err(self.hostile(&entry.path, "it is a hard link to itself"));
        }
        self.wrap(entry, |unpacker| {
            unpacker.create(parent, name, |to, name| {
                rustix::fs::linkat(&directory.fd, target_name, &to.fd, name, AtFlags::empty())
            })
        })
    }

    /// Directories, symbolic links, devices and fifos.
    fn special(&mut self, entry: &Entry, parent: &[u8], name: &[u8]) -> io::Result<()> {
        if entry.kind == Kind::Directory {
            return self.make_directory(entry, parent, name);
        }
        if entry.kind == Kind::Symlink {
            self.size = self.size.saturating_add(entry.link.len() as u64);
        }
        self.create(parent, name, |directory, name| match entry.kind {
            Kind::Symlink => {
                rustix::fs::symlinkat(OsStr::from_bytes(&entry.link), &directory.fd, name)
            }
            kind => {
                let file_type = match kind {
                    Kind::CharDevice => FileType::CharacterDevice,
                    Kind::BlockDevice => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                let device = match kind {
                    Kind::Fifo => 0,
                    _ => rustix::fs::makedev(entry.device.0, entry.device.1),
                };
                rustix::fs::mknodat(&directory.fd, name, file_type, Mode::RUSR, device)
            }
        })?;
        let directory = self.tree.directory(parent)?;
        let name = OsStr::from_bytes(name);
        let (uid, gid) = owner(entry);
        rustix::fs::chownat(&directory.fd, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        if entry.kind != Kind::Symlink {
            let mode = Mode::from_raw_mode(entry.mode);
            rustix::fs::chmodat(&directory.fd, name, mode, AtFlags::empty())?;
        }
        for (key, value) in kept_xattrs(entry) {
            let mut path = proc_path(&directory.fd).into_bytes();
            path.push(b'/');
            path.extend_from_slice(name.as_bytes());
            let path = OsStr::from_bytes(&path);
            tolerate(
                key,
                rustix::fs::lsetxattr(path, OsStr::from_bytes(key), value, XattrFlags::empty()),
            )?;
        }
        rustix::fs::utimensat(
            &directory.fd,
            name,
            &times(entry),
            AtFlags::SYMLINK_NOFOLLOW,
        )?;
        Ok(())
    }

    fn make_directory(&mut self, entry: &Entry, parent: &[u8], name: &[u8]) -> io::Result<()> {
        let os_name = OsStr::from_bytes(name);
        let mut over_whiteout = false;
        match self.tree.make_directory(parent, os_name, Mode::RWXU) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let directory = self.tree.directory(parent)?;
                let stat = rustix::fs::statat(&directory.fd, os_name, AtFlags::SYMLINK_NOFOLLOW)?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                    over_whiteout = is_whiteout(&stat);
                    self.displace(parent, name)?;
                    self.tree.make_directory(parent, os_name, Mode::RWXU)?;
                }
            }
            Err(other) => return Err(other),
        }
        let parent = self.tree.directory(parent)?;
        let mut real = parent.real.clone();
        if !real.is_empty() {
            real.push(b'/');
        }
        real.extend_from_slice(name);
        let made = Directory {
            fd: open_directory(parent, os_name)?,
            real,
        };
        if over_whiteout {
            make_opaque(&made.fd)?;
        }
        self.directory_attributes(entry, &made)
    }

    fn directory_attributes(&mut self, entry: &Entry, directory: &Directory) -> io::Result<()> {
        let path = proc_path(&directory.fd);
        let (uid, gid) = owner(entry);
        rustix::fs::chownat(rustix::fs::CWD, &path, uid, gid, AtFlags::empty())?;
        rustix::fs::chmod(&path, Mode::from_raw_mode(entry.mode))?;
        for (key, value) in kept_xattrs(entry) {
            tolerate(
                key,
                rustix::fs::setxattr(&path, OsStr::from_bytes(key), value, XattrFlags::empty()),
            )?;
        }
        self.directories
            .push((directory.real.clone(), times(entry)));
        Ok(())
    }

    /// Runs `make`, and if the name is taken, frees it and runs it again.
    fn create<T>(
        &mut self,
        parent: &[u8],
        name: &[u8],
        mut make: impl FnMut(&Directory, &OsStr) -> rustix::io::Result<T>,
    ) -> io::Result<T> {
        let os_name = OsStr::from_bytes(name);
        let mut make = |directory: &Directory| make(directory, os_name);
        match self.tree.make_file(parent, &mut make)? {
            Err(Errno::EXIST) => {
                self.displace(parent, name)?;
                Ok(self.tree.make_file(parent, &mut make)??)
            }
            other => Ok(other?),
        }
    }

    /// Takes away what an earlier entry of this layer put at `parent/name`.
    fn displace(&mut self, parent: &[u8], name: &[u8]) -> io::Result<()> {
        let os_name = OsStr::from_bytes(name);
        let directory = self.tree.directory(parent)?;
        let stat = rustix::fs::statat(&directory.fd, os_name, AtFlags::SYMLINK_NOFOLLOW)?;
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let has_data =
            FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_size > 0;
        if is_directory && rustix::fs::unlinkat(&directory.fd, os_name, AtFlags::REMOVEDIR).is_ok()
        {
            // It was empty.
        } else if is_directory || has_data {
            if self.moves.len() >= self.limits.replaced {
                return Err(io::Error::other(format!(
                    "more than {} files of the layer are replaced by later entries",
                    self.limits.replaced
                )));
            }
            if self.moves.is_empty() {
                std::fs::create_dir(&self.spill)?;
            }
            let to = self.moves.len().to_string();
            rustix::fs::renameat(
                &directory.fd,
                os_name,
                rustix::fs::CWD,
                self.spill.join(&to),
            )?;
            let mut from = directory.real.clone();
            if !from.is_empty() {
                from.push(b'/');
            }
            from.extend_from_slice(name);
            self.moves.push(Move {
                entry: self.number,
                from: hex::encode(from),
                to,
            });
        } else {
            rustix::fs::unlinkat(&directory.fd, os_name, AtFlags::empty())?;
        }
        self.recount = true;
        self.tree.forget();
        Ok(())
    }

    fn finish_directories(&mut self) -> io::Result<()> {
        for (path, times) in self.directories.drain(..).rev() {
            // A directory that a later entry replaced is no longer there.
            if let Ok(directory) = self.tree.open(&path) {
                let path = proc_path(&directory.fd);
                rustix::fs::utimensat(rustix::fs::CWD, path, &times, AtFlags::empty())?;
            }
        }
        Ok(())
    }

    fn wrap<T>(
        &mut self,
        entry: &Entry,
        action: impl FnOnce(&mut Self) -> io::Result<T>,
    ) -> Result<T, UnpackError> {
        action(self).map_err(|source| self.failed(entry, source))
    }

    fn failed(&self, entry: &Entry, source: io::Error) -> UnpackError {
        UnpackError::Entry {
            entry: String::from_utf8_lossy(&entry.path).into_owned(),
            source,
        }
    }

    fn hostile(&self, path: &[u8], reason: &str) -> UnpackError {
        UnpackError::Hostile {
            entry: String::from_utf8_lossy(path).into_owned(),
            reason: reason.to_owned(),
        }
    }
}

/// Parent and last part of a cleaned path; `None` for the root.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.is_empty() {
        return None;
    }
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => Some((&path[..slash], &path[slash + 1..])),
        None => Some((b"", path)),
    }
}

fn open_directory(parent: &Directory, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(&parent.fd, name, flags, Mode::empty())
}

/// Sum of the sizes of all files and links below `directory`, each inode once.
pub(super) fn tree_size(directory: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut seen = std::collections::HashSet::new();
    let mut pending = vec![directory.to_owned()];
    let mut size = 0;
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                pending.push(entry.path());
            } else if metadata.nlink() == 1 || seen.insert(metadata.ino()) {
                size += metadata.len();
            }
        }
    }
    Ok(size)
}
