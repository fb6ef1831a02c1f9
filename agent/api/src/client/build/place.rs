//! Paths that were judged before a build: what is there when they are used must not be reached by a link that was made
//! meanwhile, by an output of the build itself.
//!
//! ```text
//! /a/b/name    walk from / without following links ── descriptor of b ── /proc/self/fd/N/name
//! ```

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// Whether links in a path are followed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Links {
    #[default]
    Followed,
    /// The path is absolute and had none when it was judged.
    Refused,
}

/// A path to use, for as long as this is kept.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    _directory: Option<OwnedFd>,
}

impl Place {
    /// A directory; those that are missing are made.
    pub(super) fn directory(path: &Path, links: Links) -> io::Result<Self> {
        match links {
            Links::Followed => Ok(Self::as_written(path)),
            Links::Refused => walk(path, Missing::Made).map(Self::below),
        }
    }

    /// A file in a directory that is there.
    pub(super) fn file(path: &Path, links: Links) -> io::Result<Self> {
        if links == Links::Followed {
            return Ok(Self::as_written(path));
        }
        let (parent, name) = split(path)?;
        let mut place = Self::below(walk(parent, Missing::AnError)?);
        place.path.push(name);
        match place.path.symlink_metadata() {
            Ok(found) if found.is_symlink() => Err(Errno::LOOP.into()),
            _ => Ok(place),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn as_written(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            _directory: None,
        }
    }

    fn below(directory: OwnedFd) -> Self {
        Self {
            path: format!("/proc/self/fd/{}", directory.as_raw_fd()).into(),
            _directory: Some(directory),
        }
    }
}

/// Opens a file to read it.
pub(super) fn open(path: &Path, links: Links) -> io::Result<File> {
    if links == Links::Followed {
        return File::open(path);
    }
    let (parent, name) = split(path)?;
    let parent = walk(parent, Missing::AnError)?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?.into())
}

fn split(path: &Path) -> io::Result<(&Path, &std::ffi::OsStr)> {
    let name = path.file_name();
    let both = path.parent().zip(name);
    both.ok_or_else(|| io::Error::other("it is no name of a file"))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    Made,
    AnError,
}

/// Opens a directory by its parts, none of which may be a link.
fn walk(path: &Path, missing: Missing) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at = rustix::fs::openat(CWD, "/", flags, Mode::empty())?;
    for part in path.components() {
        let name = match part {
            Component::RootDir => continue,
            Component::Normal(name) => name,
            _ => return Err(io::Error::other("it is not an absolute path")),
        };
        if missing == Missing::Made {
            match rustix::fs::mkdirat(at.as_fd(), name, Mode::from_raw_mode(0o777)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        at = rustix::fs::openat(at.as_fd(), name, flags, Mode::empty())?;
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_came_later_leads_nowhere() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().canonicalize().unwrap();
        let outside = root.join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("key"), "hush").unwrap();
        let made = Place::directory(&root.join("a/b"), Links::Refused).unwrap();
        std::fs::write(made.path().join("x"), "x").unwrap();
        assert_eq!(std::fs::read(root.join("a/b/x")).unwrap(), b"x");
        assert!(open(&root.join("a/b/x"), Links::Refused).is_ok());
        std::os::unix::fs::symlink(&outside, root.join("a/link")).unwrap();
        std::os::unix::fs::symlink(outside.join("key"), root.join("a/key")).unwrap();
        let refused = |result: io::Result<()>| assert!(result.is_err());
        for path in ["a/link/new", "a/link"] {
            refused(Place::directory(&root.join(path), Links::Refused).map(drop));
        }
        refused(Place::file(&root.join("a/link/key"), Links::Refused).map(drop));
        refused(Place::file(&root.join("a/key"), Links::Refused).map(drop));
        refused(open(&root.join("a/link/key"), Links::Refused).map(drop));
        refused(open(&root.join("a/key"), Links::Refused).map(drop));
        assert!(!outside.join("new").exists());
        // Nobody has judged it: links are the user's own.
        assert!(open(&root.join("a/key"), Links::Followed).is_ok());
    }
}
