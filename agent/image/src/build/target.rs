//! Writing over a file system that stays as it is: what changes goes into a directory in overlay form.
//!
//! ```text
//! something new             made in the upper directory
//! in a directory from below the directory is made there too, with the attributes that it has below
//! instead of a file         made in the upper directory, where it hides what is below
//! a directory where an upper whiteout was   made opaque
//! ```
//!
//! The upper directory belongs to one thread, and what is below never changes. Paths are resolved as by a process in the
//! merged tree: links lead to places inside of it.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::content::copy_content;
use super::error::{FilesError, Result};
use super::view::{Directory, Node, View, is_opaque, join, open_directory, parts, too_deep};
use crate::layers::{is_whiteout, kept_xattrs, make_opaque, proc_path};

/// Links followed in one path, as in containerd's `RootPath`.
const LINKS_MAX: usize = 255;

/// A file system that is written over.
pub(super) struct Target {
    below: View,
    root: Place,
}

/// A directory of the merged tree. It is in the upper directory, below, or in both.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) path: Vec<u8>,
    upper: Option<Arc<OwnedFd>>,
    lower: Option<Arc<Directory>>,
}

/// The way from the root to a directory.
#[derive(Clone)]
pub(super) struct Way(Vec<Place>);

/// What is there under a name.
pub(super) struct Existing {
    pub(super) stat: Stat,
    found: Where,
}

enum Where {
    Upper,
    Below(Node),
}

impl Existing {
    pub(super) fn is_directory(&self) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == FileType::Directory
    }
}

/// Attributes of something that is made.
#[derive(Debug, Clone)]
pub(super) struct Attributes<'a> {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Permission bits.
    pub(super) mode: u32,
    pub(super) times: Option<Timestamps>,
    pub(super) xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

impl Target {
    /// Writes into `upper`, which is empty, over `below`.
    pub(super) fn new(upper: &Path, below: View) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, upper, flags, Mode::empty())
            .map_err(FilesError::io("open", upper.as_os_str().as_bytes()))?;
        let lower = below.root()?;
        if let Some(lower) = &lower {
            copy_up(lower, &fd).map_err(FilesError::io("copy the attributes of", "/"))?;
        }
        let root = Place {
            path: Vec::new(),
            upper: Some(Arc::new(fd)),
            lower,
        };
        Ok(Self { below, root })
    }

    pub(super) fn root(&self) -> Way {
        Way(vec![self.root.clone()])
    }

    /// The last directory of `way` as a file system of its own, which no path leads out of.
    pub(super) fn rooted(&self, mut way: Way) -> Result<Self> {
        way.materialise()?;
        Ok(Self {
            below: self.below.clone(),
            root: way.last().clone(),
        })
    }

    /// What `path` really is: links followed, `..` taken away; from the first missing part on only in letters.
    pub(super) fn resolve(&self, path: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut way = self.root();
        // Parts behind the last directory that is there.
        let mut rest: Vec<Vec<u8>> = Vec::new();
        let mut pending: VecDeque<Vec<u8>> = parts(path).map(<[u8]>::to_vec).collect();
        let mut links = 0;
        while let Some(name) = pending.pop_front() {
            if name == b".." {
                if rest.pop().is_none() && way.0.len() > 1 {
                    way.0.pop();
                }
                continue;
            }
            if !rest.is_empty() {
                rest.push(name);
                continue;
            }
            match self.find(&way, &name)? {
                Some(found) if found.is_directory() => self.enter(&mut way, &name, &found)?,
                Some(found) if FileType::from_raw_mode(found.stat.st_mode) == FileType::Symlink => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(FilesError::Invalid("too many links".to_owned()));
                    }
                    let target = self.read_link(&way, &name, &found)?;
                    if target.starts_with(b"/") {
                        way.0.truncate(1);
                    }
                    for part in parts(&target).rev() {
                        pending.push_front(part.to_vec());
                    }
                }
                _ => rest.push(name),
            }
        }
        Ok(way.names().into_iter().chain(rest).collect())
    }

    /// What is in the last directory of `way` under `name`.
    pub(super) fn find(&self, way: &Way, name: &[u8]) -> Result<Option<Existing>> {
        let place = way.last();
        if let Some(upper) = &place.upper {
            match rustix::fs::statat(&**upper, os(name), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if is_whiteout(&stat) => return Ok(None),
                Ok(stat) => {
                    let found = Where::Upper;
                    return Ok(Some(Existing { stat, found }));
                }
                Err(Errno::NOENT) => {}
                Err(error) => return Err(FilesError::io("stat", join(&place.path, name))(error)),
            }
        }
        let Some(lower) = &place.lower else {
            return Ok(None);
        };
        Ok(self.below.node(lower, name)?.map(|node| Existing {
            stat: node.stat,
            found: Where::Below(node),
        }))
    }

    /// Goes into a directory that [`Target::find`] found.
    pub(super) fn enter(&self, way: &mut Way, name: &[u8], found: &Existing) -> Result<()> {
        let place = way.last();
        let path = join(&place.path, name);
        if way.0.len() > super::DEPTH_MAX {
            return Err(too_deep());
        }
        let mut upper = None;
        let mut lower = None;
        match &found.found {
            Where::Below(node) => {
                let parent = place.lower.as_ref().expect("it was found below");
                lower = Some(self.below.enter(parent, node)?);
            }
            Where::Upper => {
                let parent = place
                    .upper
                    .as_ref()
                    .expect("it was found in the upper directory");
                let fd = open_directory(parent, name).map_err(FilesError::io("open", &path))?;
                if let Some(parent) = place.lower.as_ref().filter(|_| !is_opaque(&fd))
                    && let Some(node) = self.below.node(parent, name)?
                    && node.kind() == FileType::Directory
                {
                    lower = Some(self.below.enter(parent, &node)?);
                }
                upper = Some(Arc::new(fd));
            }
        }
        way.0.push(Place { path, upper, lower });
        Ok(())
    }

    /// The way to the directory with these names; `None` when there is none.
    pub(super) fn way(&self, names: &[Vec<u8>]) -> Result<Option<Way>> {
        let mut way = self.root();
        for name in names {
            match self.find(&way, name)? {
                Some(found) if found.is_directory() => self.enter(&mut way, name, &found)?,
                _ => return Ok(None),
            }
        }
        Ok(Some(way))
    }

    /// The way to a directory, made with its parents where it is missing. Also says how many were made.
    pub(super) fn make_all(
        &self,
        names: &[Vec<u8>],
        attributes: &Attributes<'_>,
    ) -> Result<(Way, usize)> {
        let mut way = self.root();
        let mut made = 0;
        for name in names {
            match self.find(&way, name)? {
                Some(found) if found.is_directory() => self.enter(&mut way, name, &found)?,
                Some(_) => {
                    let shown = way.shown(name);
                    return Err(FilesError::Invalid(format!(
                        "mkdir {shown}: not a directory"
                    )));
                }
                None => {
                    self.make_directory(&mut way, name)?;
                    way.set_attributes(attributes)?;
                    made += 1;
                }
            }
        }
        Ok((way, made))
    }

    /// Makes a directory where nothing is, or was before [`Target::clear`], and goes into it. It is to get its attributes.
    pub(super) fn make_directory(&self, way: &mut Way, name: &[u8]) -> Result<()> {
        check_name(way, name)?;
        if way.0.len() > super::DEPTH_MAX {
            return Err(too_deep());
        }
        let path = join(&way.last().path, name);
        let failed = |error: Errno| FilesError::io("make directory", &path)(error);
        let parent = way.materialise()?;
        // What was replaced in the upper directory may have hidden a directory.
        let hides = match way.last().lower.clone() {
            Some(lower) => self
                .below
                .node(&lower, name)?
                .is_some_and(|node| node.kind() == FileType::Directory),
            None => false,
        };
        let over_whiteout = match rustix::fs::mkdirat(&*parent, os(name), Mode::RWXU) {
            Err(Errno::EXIST) => {
                // Only a whiteout is there and not found.
                rustix::fs::unlinkat(&*parent, os(name), AtFlags::empty()).map_err(failed)?;
                rustix::fs::mkdirat(&*parent, os(name), Mode::RWXU).map_err(failed)?;
                true
            }
            other => {
                other.map_err(failed)?;
                false
            }
        };
        let fd = open_directory(&parent, name).map_err(failed)?;
        if over_whiteout || hides {
            make_opaque(&fd).map_err(FilesError::io("mark", &path))?;
        }
        way.0.push(Place {
            path,
            upper: Some(Arc::new(fd)),
            lower: None,
        });
        Ok(())
    }

    /// Takes away what is there under `name` in favour of what the caller makes next. A directory goes with everything in it.
    pub(super) fn clear(&self, way: &mut Way, name: &[u8]) -> Result<()> {
        check_name(way, name)?;
        let path = join(&way.last().path, name);
        let failed = |error: Errno| FilesError::io("replace", &path)(error);
        let parent = way.materialise()?;
        match rustix::fs::unlinkat(&*parent, os(name), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR) => {
                let place = Path::new(&proc_path(&*parent)).join(os(name));
                crate::remove::remove_tree(&place).map_err(FilesError::io("replace", &path))
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Makes a file in place of what is there.
    pub(super) fn create_file(&self, way: &mut Way, name: &[u8]) -> Result<File> {
        self.clear(way, name)?;
        let parent = way.materialise()?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&*parent, os(name), flags, Mode::RUSR | Mode::WUSR)
            .map(File::from)
            .map_err(FilesError::io("create", join(&way.last().path, name)))
    }

    /// Makes a link, device, fifo or empty file in place of what is there.
    pub(super) fn create_special(
        &self,
        way: &mut Way,
        name: &[u8],
        special: &Special<'_>,
        attributes: &Attributes<'_>,
    ) -> Result<()> {
        self.clear(way, name)?;
        let parent = way.materialise()?;
        let path = join(&way.last().path, name);
        let make = || {
            match special {
                Special::Link(target) => {
                    rustix::fs::symlinkat(OsStr::from_bytes(target), &*parent, os(name))?;
                }
                Special::Node(kind, device) => {
                    rustix::fs::mknodat(&*parent, os(name), *kind, Mode::RUSR, *device)?;
                }
            }
            Ok(())
        };
        make().map_err(|e: Errno| FilesError::io("create", path)(e))?;
        way.set_attributes_of(name, attributes)
    }

    /// Brings a file that is only below into the upper directory, as overlayfs does when it is written to.
    pub(super) fn copy_up_file(&self, way: &mut Way, name: &[u8], found: &Existing) -> Result<()> {
        let (Where::Below(node), Some(parent)) = (&found.found, way.last().lower.clone()) else {
            return Ok(());
        };
        if node.kind() != FileType::RegularFile {
            return Err(FilesError::Invalid(format!(
                "cannot make a hard link to {}: it is no regular file",
                way.shown(name)
            )));
        }
        let (from, stat) = self.below.open_file(&parent, node)?;
        let to = self.create_file(way, name)?;
        let attributes = Attributes {
            uid: stat.st_uid,
            gid: stat.st_gid,
            mode: stat.st_mode,
            times: Some(times(&stat)),
            xattrs: &kept_xattrs(&from),
        };
        // A file of an image, of which one is copied for each link: too little to be given up halfway.
        copy_content(&from, &to, &stat, &CancellationToken::new())
            .and_then(|()| Ok(set(&to.into(), &attributes)?))
            .map_err(FilesError::io("copy up", join(&way.last().path, name)))
    }

    /// Makes a hard link to `first`, a file that is in the upper directory. False when that cannot be.
    pub(super) fn link(&self, first: &[Vec<u8>], way: &mut Way, name: &[u8]) -> Result<bool> {
        let Some((first_name, first_parent)) = first.split_last() else {
            return Ok(false);
        };
        let Some(from) = self.way(first_parent)? else {
            return Ok(false);
        };
        let Some(from) = &from.last().upper else {
            return Ok(false);
        };
        self.clear(way, name)?;
        let parent = way.materialise()?;
        let linked = rustix::fs::linkat(
            &**from,
            os(first_name),
            &*parent,
            os(name),
            AtFlags::empty(),
        );
        Ok(linked.is_ok())
    }

    fn read_link(&self, way: &Way, name: &[u8], found: &Existing) -> Result<Vec<u8>> {
        let place = way.last();
        match &found.found {
            Where::Below(node) => {
                let parent = place.lower.as_ref().expect("it was found below");
                self.below.read_link(parent, node)
            }
            Where::Upper => {
                let parent = place
                    .upper
                    .as_ref()
                    .expect("it was found in the upper directory");
                rustix::fs::readlinkat(&**parent, os(name), Vec::new())
                    .map(std::ffi::CString::into_bytes)
                    .map_err(FilesError::io("read", join(&place.path, name)))
            }
        }
    }
}

/// Something that is no regular file and no directory.
pub(super) enum Special<'a> {
    /// A symbolic link and its target.
    Link(&'a [u8]),
    /// A device, fifo or empty file.
    Node(FileType, u64),
}

impl Way {
    pub(super) fn last(&self) -> &Place {
        self.0.last().expect("the root is never taken away")
    }

    /// Back to the directory before.
    pub(super) fn leave(&mut self) {
        debug_assert!(self.0.len() > 1, "the root is never left");
        self.0.pop();
    }

    /// The path of `name` in the last directory, for people.
    pub(super) fn shown(&self, name: &[u8]) -> String {
        format!(
            "/{}",
            String::from_utf8_lossy(&join(&self.last().path, name))
        )
    }

    /// The names from the root to the last directory.
    pub(super) fn names(&self) -> Vec<Vec<u8>> {
        let below_root = self.0.iter().skip(1);
        below_root
            .map(|place| last_name(&place.path).to_vec())
            .collect()
    }

    /// Makes the directories of the way that are only below in the upper directory, too. Returns the last.
    fn materialise(&mut self) -> Result<Arc<OwnedFd>> {
        for at in 1..self.0.len() {
            if self.0[at].upper.is_some() {
                continue;
            }
            let parent = self.0[at - 1].upper.as_ref().expect("made one step before");
            let parent = Arc::clone(parent);
            let place = &mut self.0[at];
            let lower = place.lower.as_ref().expect("a directory is somewhere");
            let name = last_name(&place.path);
            let make = || {
                rustix::fs::mkdirat(&*parent, os(name), Mode::RWXU)?;
                let fd = open_directory(&parent, name)?;
                copy_up(lower, &fd)?;
                Ok(fd)
            };
            let fd = make().map_err(|e: Errno| FilesError::io("copy up", &place.path)(e))?;
            place.upper = Some(Arc::new(fd));
        }
        let upper = self.last().upper.as_ref();
        Ok(Arc::clone(upper.expect("all of the way was made")))
    }

    /// Gives the last directory attributes.
    pub(super) fn set_attributes(&mut self, attributes: &Attributes<'_>) -> Result<()> {
        let fd = self.materialise()?;
        set(&fd, attributes).map_err(FilesError::io("set the attributes of", &self.last().path))
    }

    /// Gives what is under `name` in the last directory, and was made there, attributes. The permission bits of a link mean
    /// nothing.
    pub(super) fn set_attributes_of(
        &mut self,
        name: &[u8],
        attributes: &Attributes<'_>,
    ) -> Result<()> {
        let parent = self.materialise()?;
        let set = || {
            let nofollow = AtFlags::SYMLINK_NOFOLLOW;
            let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
            rustix::fs::chownat(&*parent, os(name), Some(uid), Some(gid), nofollow)?;
            let stat = rustix::fs::statat(&*parent, os(name), nofollow)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
                let mode = Mode::from_raw_mode(attributes.mode & 0o7777);
                rustix::fs::chmodat(&*parent, os(name), mode, AtFlags::empty())?;
            }
            match &attributes.times {
                Some(times) => rustix::fs::utimensat(&*parent, os(name), times, nofollow),
                None => Ok(()),
            }
        };
        let path = join(&self.last().path, name);
        set().map_err(|e: Errno| FilesError::io("set the attributes of", path)(e))
    }

    /// Changes the last directory's permission bits alone.
    pub(super) fn set_mode(&mut self, mode: u32) -> Result<()> {
        let fd = self.materialise()?;
        rustix::fs::fchmod(&*fd, Mode::from_raw_mode(mode))
            .map_err(FilesError::io("set the mode of", &self.last().path))
    }

    /// Changes the last directory's times alone.
    pub(super) fn set_times(&mut self, times: &Timestamps) -> Result<()> {
        let fd = self.materialise()?;
        rustix::fs::futimens(&*fd, times)
            .map_err(FilesError::io("set the times of", &self.last().path))
    }
}

/// Owner before mode before attributes: changing the owner clears set-id bits and file capabilities. Times last.
pub(super) fn set(fd: &OwnedFd, attributes: &Attributes<'_>) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
    rustix::fs::fchown(fd, Some(uid), Some(gid))?;
    rustix::fs::fchmod(fd, Mode::from_raw_mode(attributes.mode & 0o7777))?;
    for (key, value) in attributes.xattrs {
        let set = rustix::fs::fsetxattr(fd, os(key), value, XattrFlags::empty());
        match set {
            // As with images: only file capabilities make a program work.
            Err(Errno::OPNOTSUPP | Errno::PERM) if key != b"security.capability" => {}
            other => other?,
        }
    }
    if let Some(times) = &attributes.times {
        rustix::fs::futimens(fd, times)?;
    }
    Ok(())
}

/// Gives a directory in the upper directory the attributes of the one below, as overlayfs does.
fn copy_up(lower: &Directory, upper: &OwnedFd) -> rustix::io::Result<()> {
    set(
        upper,
        &Attributes {
            uid: lower.stat.st_uid,
            gid: lower.stat.st_gid,
            mode: lower.stat.st_mode,
            times: Some(times(&lower.stat)),
            xattrs: &kept_xattrs(lower.fd()),
        },
    )
}

pub(super) fn times(stat: &Stat) -> Timestamps {
    let time = |tv_sec: i64, tv_nsec: u64| Timespec {
        tv_sec,
        tv_nsec: tv_nsec as _,
    };
    Timestamps {
        last_access: time(stat.st_atime as _, stat.st_atime_nsec as _),
        last_modification: time(stat.st_mtime as _, stat.st_mtime_nsec as _),
    }
}

fn last_name(path: &[u8]) -> &[u8] {
    path.rsplit(|b| *b == b'/').next().unwrap_or(path)
}

/// Layers have no form for such a name.
fn check_name(way: &Way, name: &[u8]) -> Result<()> {
    if name.starts_with(b".wh.") {
        return Err(FilesError::Invalid(format!(
            "cannot write {}: layers reserve names that begin with .wh.",
            way.shown(name)
        )));
    }
    Ok(())
}

fn os(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}
