//! The image's files below a container's writable layer, as one tree that is never followed out of.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// Links followed on the way to one path, as the kernel bounds it.
const LINKS_MAX: usize = 40;

/// The layers of an image put together. Paths are relative to the root.
pub(super) struct Below {
    /// `None` for an image of no layers.
    root: Option<OwnedFd>,
}

impl Below {
    /// Puts layers (uppermost first) together.
    pub(super) fn open(layers: &[PathBuf]) -> io::Result<Self> {
        let root = match layers {
            [] => None,
            // One alone needs no mount.
            [only] => Some(rustix::fs::open(
                only,
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )?),
            many => Some(agent_runtime::root::layers(many)?),
        };
        Ok(Self { root })
    }

    fn open_at(&self, path: &Path, flags: OFlags) -> io::Result<Option<OwnedFd>> {
        let Some(root) = &self.root else {
            return Ok(None);
        };
        let path = match path.as_os_str().is_empty() {
            true => Path::new("."),
            false => path,
        };
        let opened = rustix::fs::openat2(
            root,
            path,
            flags | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV,
        );
        match opened {
            Ok(fd) => Ok(Some(fd)),
            // A link on the way means that the path as it is written does not exist here.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// What is at a path itself; nothing behind a link on the way.
    pub(super) fn stat(&self, path: &Path) -> io::Result<Option<Stat>> {
        let (parent, name) = (path.parent(), path.file_name());
        let (Some(parent), Some(name)) = (parent, name) else {
            return match self.open_at(path, OFlags::PATH)? {
                Some(root) => Ok(Some(rustix::fs::fstat(root)?)),
                None => Ok(None),
            };
        };
        let Some(parent) = self.open_at(parent, OFlags::PATH | OFlags::DIRECTORY)? else {
            return Ok(None);
        };
        match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if is_whiteout(&stat) => Ok(None),
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The names in a directory; none where there is no directory.
    pub(super) fn names(&self, path: &Path) -> io::Result<BTreeSet<OsString>> {
        let mut names = BTreeSet::new();
        let Some(directory) = self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY)? else {
            return Ok(names);
        };
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." && self.stat(&path.join(name))?.is_some() {
                names.insert(name.to_owned());
            }
        }
        Ok(names)
    }

    /// Where an absolute path leads to; what does not exist stays as it is written.
    pub(super) fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        let mut real = PathBuf::new();
        let mut left: VecDeque<OsString> = parts(path).collect();
        let mut links = 0;
        while let Some(name) = left.pop_front() {
            if name == ".." {
                real.pop();
                continue;
            }
            real.push(&name);
            let Some(stat) = self.stat(&real)? else {
                continue;
            };
            if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
                continue;
            }
            links += 1;
            if links > LINKS_MAX {
                return Err(Errno::LOOP.into());
            }
            let to = self.read_link(&real)?;
            match to.is_absolute() {
                true => real.clear(),
                false => drop(real.pop()),
            }
            for part in parts(&to).collect::<Vec<_>>().into_iter().rev() {
                left.push_front(part);
            }
        }
        Ok(real)
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        let parent = path.parent().unwrap_or(Path::new(""));
        let name = path.file_name().unwrap_or_default();
        match self.open_at(parent, OFlags::PATH | OFlags::DIRECTORY)? {
            Some(parent) => {
                let text = rustix::fs::readlinkat(&parent, name, Vec::new())?;
                Ok(PathBuf::from(OsString::from_vec(text.into_bytes())))
            }
            None => Err(Errno::NOENT.into()),
        }
    }
}

/// How an overlay says that something below is deleted.
pub(super) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}
