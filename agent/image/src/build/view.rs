//! Reading a file tree without mounting it: layers merged by the rules of overlayfs, or a directory of somebody else's.
//!
//! ```text
//! in an upper layer                         hides in those below
//! character device 0:0 "foo"                "foo"
//! "foo", no directory                       "foo"
//! directory with trusted.overlay.opaque=y   everything in the directory
//! ```
//!
//! Every step goes from an open directory to one name in it and follows no link, so that nothing outside of the tree is
//! ever opened, whatever others do to it meanwhile; links are followed here, inside of the tree, as a process in it
//! would see them.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use agent_build::pattern::{Descent, Patterns};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::error::{FilesError, Result};
use super::stack::Pins;
use crate::layers::is_whiteout;

/// Links followed in one path, as in containerd's `RootPath`.
const LINKS_MAX: usize = 255;
const OPAQUE: &str = "trusted.overlay.opaque";
/// Names in one directory. All are in memory while it is read, some 300 bytes each.
const NAMES_MAX: usize = 2_000_000;

/// A file tree: a stack of layers, or a directory. Cheap to clone; may be read by several threads at once.
#[derive(Clone)]
pub struct View(Arc<Tree>);

struct Tree {
    /// Uppermost first.
    roots: Vec<Arc<OwnedFd>>,
    form: Form,
    ignore: Patterns,
    _pins: Option<Arc<Pins>>,
}

/// What the directories of a tree mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Layers.
    Overlay,
    /// One directory as it is.
    Plain,
    /// One directory in which everything belongs to root.
    Context,
}

/// An open directory of a tree.
pub(super) struct Directory {
    /// The same directory in each layer that has it, uppermost first.
    layers: Vec<OwnedFd>,
    /// Where it really is: names joined by `/`, empty for the root.
    pub(super) path: Vec<u8>,
    pub(super) stat: Stat,
    /// An ignore file matches it, but something in it may be taken back.
    pub(super) ignored: bool,
    /// What the ignore file has to say about what is in it, if there is one.
    descent: Option<Descent>,
}

/// What is in a directory under one name.
pub(super) struct Node {
    pub(super) name: Vec<u8>,
    pub(super) stat: Stat,
    /// In which of the directory's layers.
    layer: usize,
    /// See [`Directory::ignored`].
    pub(super) ignored: bool,
}

impl Node {
    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    pub(super) fn name(&self) -> &OsStr {
        OsStr::from_bytes(&self.name)
    }
}

/// What a path leads to.
pub(super) enum Found {
    Directory(Arc<Directory>),
    /// No directory: the one that it is in, and it.
    Other(Arc<Directory>, Node),
    Missing,
}

/// What to do with a link that is the last part of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LastLink {
    Follow,
    Keep,
}

impl View {
    /// The empty tree.
    pub fn empty() -> Self {
        Self::new(Vec::new(), Form::Overlay, Patterns::default(), None)
    }

    /// A context: a directory of somebody else's, without what `ignore` matches. Everything in it counts as owned by 0:0,
    /// as BuildKit's clients send it. Others may write to it meanwhile; nothing outside of it is ever read.
    pub fn context(directory: OwnedFd, ignore: Patterns) -> Self {
        Self::new(vec![Arc::new(directory)], Form::Context, ignore, None)
    }

    /// A directory with everything in it as it is (an unpacked archive, a checkout, a download).
    pub fn directory(directory: OwnedFd) -> Self {
        let ignore = Patterns::default();
        Self::new(vec![Arc::new(directory)], Form::Plain, ignore, None)
    }

    pub(super) fn stack(roots: Vec<Arc<OwnedFd>>, pins: Arc<Pins>) -> Self {
        Self::new(roots, Form::Overlay, Patterns::default(), Some(pins))
    }

    fn new(
        roots: Vec<Arc<OwnedFd>>,
        form: Form,
        ignore: Patterns,
        pins: Option<Arc<Pins>>,
    ) -> Self {
        Self(Arc::new(Tree {
            roots,
            form,
            ignore,
            _pins: pins,
        }))
    }

    /// Whether others may write to the tree, so that its files' digests are worth remembering by their stat.
    pub(super) fn is_context(&self) -> bool {
        self.0.form == Form::Context
    }

    /// The content of a regular file, links followed inside of the tree; `None` when there is none. For small files that the
    /// builder itself reads (a Dockerfile, an ignore file, `/etc/passwd`).
    ///
    /// # Errors
    /// It is longer than `limit` bytes, no regular file, or cannot be read.
    pub fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let (directory, node) = match self.resolve(path.as_bytes(), LastLink::Follow)? {
            Found::Other(directory, node) => (directory, node),
            Found::Directory(_) => {
                return Err(FilesError::Invalid(format!("{path} is a directory")));
            }
            Found::Missing => return Ok(None),
        };
        let Some((file, _)) = self.open_present(&directory, &node)? else {
            return Ok(None);
        };
        let mut content = Vec::new();
        let mut bounded = File::from(file).take(limit.saturating_add(1));
        bounded
            .read_to_end(&mut content)
            .map_err(FilesError::io("read", path))?;
        if content.len() as u64 > limit {
            return Err(FilesError::Invalid(format!(
                "{path} is longer than {limit} bytes"
            )));
        }
        Ok(Some(content))
    }

    /// The root; `None` in the empty tree.
    pub(super) fn root(&self) -> Result<Option<Arc<Directory>>> {
        let mut layers = Vec::with_capacity(self.0.roots.len());
        for root in &self.0.roots {
            layers.push(open_directory(root, b".").map_err(FilesError::io("open", "/"))?);
        }
        let Some(top) = layers.first() else {
            return Ok(None);
        };
        let stat = rustix::fs::fstat(top).map_err(FilesError::io("stat", "/"))?;
        Ok(Some(Arc::new(Directory {
            stat: self.owned(stat),
            layers,
            path: Vec::new(),
            ignored: false,
            descent: (!self.0.ignore.is_empty()).then(|| self.0.ignore.descent()),
        })))
    }

    /// What is in `directory` under `name`.
    pub(super) fn node(&self, directory: &Directory, name: &[u8]) -> Result<Option<Node>> {
        for (layer, fd) in directory.layers.iter().enumerate() {
            match rustix::fs::statat(fd, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if self.0.form == Form::Overlay && is_whiteout(&stat) => return Ok(None),
                Ok(stat) => return Ok(self.visible(directory, name.to_vec(), layer, stat)),
                Err(Errno::NOENT | Errno::NAMETOOLONG) => {}
                Err(error) => {
                    return Err(FilesError::io("stat", join(&directory.path, name))(error));
                }
            }
        }
        Ok(None)
    }

    /// What is in `directory`, in order of name.
    pub(super) fn list(&self, directory: &Directory) -> Result<Vec<Node>> {
        let failed = |error: Errno| FilesError::io("read", &directory.path)(error);
        let mut names: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        let mut nodes = Vec::new();
        for (layer, fd) in directory.layers.iter().enumerate() {
            for entry in Dir::read_from(fd).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let name = entry.file_name().to_bytes();
                if matches!(name, b"." | b"..") || names.contains_key(name) {
                    continue;
                }
                if names.len() == NAMES_MAX {
                    return Err(FilesError::Limit {
                        what: "files in one directory",
                        limit: NAMES_MAX as u64,
                    });
                }
                names.insert(name.to_vec(), layer);
            }
        }
        for (name, layer) in names {
            let fd = &directory.layers[layer];
            match rustix::fs::statat(fd, OsStr::from_bytes(&name), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if self.0.form == Form::Overlay && is_whiteout(&stat) => {}
                Ok(stat) => nodes.extend(self.visible(directory, name, layer, stat)),
                // It went away since the directory was read.
                Err(Errno::NOENT) => {}
                Err(error) => {
                    return Err(FilesError::io("stat", join(&directory.path, &name))(error));
                }
            }
        }
        Ok(nodes)
    }

    fn visible(
        &self,
        directory: &Directory,
        name: Vec<u8>,
        layer: usize,
        stat: Stat,
    ) -> Option<Node> {
        let mut ignored = false;
        if let Some(descent) = &directory.descent {
            let name = String::from_utf8_lossy(&name);
            ignored = self.0.ignore.matches_in(descent, &name);
            if ignored
                && (FileType::from_raw_mode(stat.st_mode) != FileType::Directory
                    || self.0.ignore.prunes_in(descent, &name))
            {
                return None;
            }
        }
        Some(Node {
            name,
            stat: self.owned(stat),
            layer,
            ignored,
        })
    }

    fn owned(&self, mut stat: Stat) -> Stat {
        if self.0.form == Form::Context {
            (stat.st_uid, stat.st_gid) = (0, 0);
        }
        stat
    }

    /// Opens the directory `node`.
    pub(super) fn enter(&self, directory: &Directory, node: &Node) -> Result<Arc<Directory>> {
        let gone = || {
            let path = join(&directory.path, &node.name);
            FilesError::NotFound(format!("/{}", String::from_utf8_lossy(&path)))
        };
        self.enter_present(directory, node)?.ok_or_else(gone)
    }

    /// The same of a directory that counts as not listed when somebody has removed it from a context since: then `None`.
    pub(super) fn enter_present(
        &self,
        directory: &Directory,
        node: &Node,
    ) -> Result<Option<Arc<Directory>>> {
        let path = join(&directory.path, &node.name);
        let failed = |error: Errno| FilesError::io("open", &path)(error);
        let mut layers = Vec::new();
        for fd in &directory.layers[node.layer..] {
            let opened = match open_directory(fd, &node.name) {
                Ok(opened) => opened,
                Err(Errno::NOENT) if !layers.is_empty() => continue,
                Err(Errno::NOENT) if self.is_context() => return Ok(None),
                // Something else, which hides what is below it.
                Err(Errno::NOTDIR | Errno::LOOP) if !layers.is_empty() => break,
                Err(error) => return Err(failed(error)),
            };
            let opaque = self.0.form == Form::Overlay && is_opaque(&opened);
            layers.push(opened);
            if opaque {
                break;
            }
        }
        let stat = rustix::fs::fstat(&layers[0]).map_err(failed)?;
        let descent = directory.descent.as_ref();
        let name = || String::from_utf8_lossy(&node.name);
        Ok(Some(Arc::new(Directory {
            stat: self.owned(stat),
            layers,
            ignored: node.ignored,
            descent: descent.map(|above| self.0.ignore.descend(above, &name())),
            path,
        })))
    }

    /// Opens the regular file `node` and says what it is now.
    pub(super) fn open_file(&self, directory: &Directory, node: &Node) -> Result<(OwnedFd, Stat)> {
        let gone = || {
            let path = join(&directory.path, &node.name);
            FilesError::NotFound(format!("/{}", String::from_utf8_lossy(&path)))
        };
        self.open_present(directory, node)?.ok_or_else(gone)
    }

    /// The same of a file that counts as not listed when somebody has removed it from a context since: then `None`.
    pub(super) fn open_present(
        &self,
        directory: &Directory,
        node: &Node,
    ) -> Result<Option<(OwnedFd, Stat)>> {
        let shown = || join(&directory.path, &node.name);
        // Not blocking, in case somebody put a fifo there since.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let flags = flags | OFlags::CLOEXEC;
        let parent = &directory.layers[node.layer];
        let file = match rustix::fs::openat(parent, node.name(), flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) if self.is_context() => return Ok(None),
            Err(error) => return Err(FilesError::io("open", shown())(error)),
        };
        let stat = rustix::fs::fstat(&file).map_err(|e| FilesError::io("stat", shown())(e))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            let shown = String::from_utf8_lossy(&shown()).into_owned();
            return Err(FilesError::Invalid(format!(
                "/{shown} is no regular file, or changed while it was being read"
            )));
        }
        Ok(Some((file, self.owned(stat))))
    }

    pub(super) fn read_link(&self, directory: &Directory, node: &Node) -> Result<Vec<u8>> {
        let parent = &directory.layers[node.layer];
        rustix::fs::readlinkat(parent, node.name(), Vec::new())
            .map(std::ffi::CString::into_bytes)
            .map_err(|e| FilesError::io("read", join(&directory.path, &node.name))(e))
    }

    /// Walks along `path`, from the root, links followed inside of the tree.
    pub(super) fn resolve(&self, path: &[u8], last: LastLink) -> Result<Found> {
        let Some(root) = self.root()? else {
            return Ok(Found::Missing);
        };
        let mut chain = vec![root];
        let mut pending: VecDeque<Vec<u8>> = parts(path).map(<[u8]>::to_vec).collect();
        let mut links = 0;
        while let Some(name) = pending.pop_front() {
            if name == b".." {
                chain.truncate((chain.len() - 1).max(1));
                continue;
            }
            let here = Arc::clone(chain.last().expect("the root is never popped"));
            let Some(node) = self.node(&here, &name)? else {
                return Ok(Found::Missing);
            };
            match node.kind() {
                FileType::Directory => {
                    if chain.len() > super::DEPTH_MAX {
                        return Err(too_deep());
                    }
                    chain.push(self.enter(&here, &node)?);
                }
                FileType::Symlink if !pending.is_empty() || last == LastLink::Follow => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(FilesError::Invalid("too many links".to_owned()));
                    }
                    let target = self.read_link(&here, &node)?;
                    if target.starts_with(b"/") {
                        chain.truncate(1);
                    }
                    for part in parts(&target).rev() {
                        pending.push_front(part.to_vec());
                    }
                }
                _ if pending.is_empty() => return Ok(Found::Other(here, node)),
                _ => return Ok(Found::Missing),
            }
        }
        let found = chain.pop().expect("the root is never popped");
        if found.ignored && !self.has_visible(&found, 0)? {
            return Ok(Found::Missing);
        }
        Ok(Found::Directory(found))
    }

    /// Whether anything in an ignored directory is taken back.
    fn has_visible(&self, directory: &Directory, depth: usize) -> Result<bool> {
        if depth > super::DEPTH_MAX {
            return Err(too_deep());
        }
        for node in self.list(directory)? {
            if !node.ignored || self.has_visible(&*self.enter(directory, &node)?, depth + 1)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Directory {
    /// In the uppermost layer that has it.
    pub(super) fn fd(&self) -> &OwnedFd {
        &self.layers[0]
    }

    /// The last part of its path.
    pub(super) fn name(&self) -> &[u8] {
        self.path.rsplit(|b| *b == b'/').next().unwrap_or(&[])
    }
}

/// The parts of a path that say something.
pub(super) fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|b| *b == b'/')
        .filter(|part| !matches!(*part, b"" | b"."))
}

pub(super) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    match parent {
        b"" => name.to_vec(),
        parent => [parent, b"/", name].concat(),
    }
}

pub(super) fn too_deep() -> FilesError {
    FilesError::Limit {
        what: "levels of directories",
        limit: super::DEPTH_MAX as u64,
    }
}

pub(super) fn open_directory(parent: &OwnedFd, name: &[u8]) -> std::result::Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, OsStr::from_bytes(name), flags, Mode::empty())
}

pub(super) fn is_opaque(directory: &OwnedFd) -> bool {
    let mut value = [0u8; 2];
    matches!(
        rustix::fs::fgetxattr(directory, OPAQUE, &mut value[..]),
        Ok(1)
    ) && value[0] == b'y'
}
