//! `COPY`, `ADD` and `WORKDIR`.
//!
//! What goes where, and which attributes it gets, follows BuildKit's `solver/llbsolver/file/backend.go` and
//! `tonistiigi/fsutil/copy/copy.go`: directories are merged, and attributes of existing ones are overwritten, except
//! those of the destination itself.

use std::collections::HashMap;
use std::io::Write;

use agent_build::plan::{Chmod, CopyOp, CopySource, InputIndex, MakeDirOp};
use rustix::fs::{FileType, Stat, Timespec, Timestamps};
use tokio_util::sync::CancellationToken;

use super::content::copy_content;
use super::error::{FilesError, Result};
use super::mode::Change;
use super::select::{Role, Selection, Source, Visitor};
use super::target::{Attributes, Special, Target, Way, times};
use super::view::{Directory, Found, Node, View};
use super::{Work, archive, owner};
use crate::layers::kept_xattrs;

/// Mode of directories that a destination lacks.
const DIRECTORY_MODE: u32 = 0o755;

/// Carries out a copy: writes what changes into `work`. `inputs` are the vertex's, in its order.
///
/// # Errors
/// The first problem; `work` is to be dropped then.
pub fn copy(op: &CopyOp, inputs: &[View], work: &Work, cancel: &CancellationToken) -> Result<()> {
    let root = op.root.map(|root| input(inputs, root)).transpose()?;
    // Laid over the root afterwards, whatever that is.
    let below = root.filter(|_| !op.link).cloned();
    let mut copier = Copier {
        target: Target::new(work.diff(), below.unwrap_or_else(View::empty))?,
        owner: op
            .chown
            .as_deref()
            .map(|chown| owner::resolve(chown, root))
            .transpose()?,
        mode: NewMode::new(op.chmod.as_ref())?,
        cancel,
        way: None,
        existed: Vec::new(),
        name: Vec::new(),
        links: HashMap::new(),
    };
    for source in &op.sources {
        if let CopySource::Inline { name, content } = source {
            copier.inline(name, content.as_bytes(), &op.destination)?;
        }
        let Some(selection) = Selection::of(op, source)? else {
            continue;
        };
        let view = input(inputs, selection.input)?;
        for source in selection.sources(view)? {
            if selection.unpack && copier.unpack(view, &source, &op.destination)? {
                continue;
            }
            copier.copy(view, &selection, &source, &op.destination)?;
        }
    }
    Ok(())
}

/// Makes a directory where there is none: writes what changes into `work`. `inputs` are the vertex's, in its order.
///
/// # Errors
/// The first problem; `work` is to be dropped then.
pub fn make_directory(op: &MakeDirOp, inputs: &[View], work: &Work) -> Result<()> {
    let root = op.root.map(|root| input(inputs, root)).transpose()?;
    let owner = op.owner.as_deref();
    let (uid, gid) = owner.map_or(Ok((0, 0)), |owner| owner::resolve(owner, root))?;
    let target = Target::new(work.diff(), root.cloned().unwrap_or_else(View::empty))?;
    let time = op.created.map(|tv_sec| Timespec { tv_sec, tv_nsec: 0 });
    let times = time.map(|time| Timestamps {
        last_access: time,
        last_modification: time,
    });
    let attributes = Attributes {
        uid,
        gid,
        mode: op.mode & 0o777,
        times: times.clone(),
        xattrs: &[],
    };
    let names = target.resolve(op.path.as_bytes())?;
    let (mut way, made) = target.make_all(&names, &attributes)?;
    // Each one changed the time of the one that it was made in.
    for _ in 0..made {
        if let Some(times) = &times {
            way.set_times(times)?;
        }
        way.leave();
    }
    Ok(())
}

fn input(inputs: &[View], index: InputIndex) -> Result<&View> {
    inputs
        .get(index.0)
        .ok_or_else(|| FilesError::Invalid(format!("the step has no input number {}", index.0)))
}

/// What `--chmod` says.
enum NewMode {
    Keep,
    Bits(u32),
    Change(Change),
}

impl NewMode {
    fn new(chmod: Option<&Chmod>) -> Result<Self> {
        Ok(match chmod {
            None => Self::Keep,
            Some(Chmod::Octal(bits)) => Self::Bits(*bits),
            Some(Chmod::Symbolic(text)) => Self::Change(Change::parse(text).ok_or_else(|| {
                FilesError::Invalid(format!("invalid chmod parameter: {text:?}"))
            })?),
        })
    }

    fn of(&self, stat: &Stat) -> u32 {
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        match self {
            Self::Keep => stat.st_mode & 0o7777,
            Self::Bits(bits) => bits & 0o7777,
            Self::Change(change) => change.apply(stat.st_mode, directory),
        }
    }

    /// Of directories that the destination lacks.
    fn of_parents(&self) -> u32 {
        match self {
            Self::Bits(bits) => bits & 0o777,
            _ => DIRECTORY_MODE,
        }
    }
}

struct Copier<'a> {
    target: Target,
    owner: Option<(u32, u32)>,
    mode: NewMode,
    cancel: &'a CancellationToken,
    /// Where the walk is in the target: set while a source is copied.
    way: Option<Way>,
    /// Whether each directory that the walk is in was there before.
    existed: Vec<bool>,
    /// What the source is called there.
    name: Vec<u8>,
    /// Device and inode → its first copy, of files with several names, while a source is copied.
    links: HashMap<(u64, u64), Vec<Vec<u8>>>,
}

impl Copier<'_> {
    fn copy(
        &mut self,
        view: &View,
        selection: &Selection,
        source: &Source,
        destination: &str,
    ) -> Result<()> {
        let is_directory = matches!(source.found, Found::Directory(_));
        let names = self.place(destination, &source.name, is_directory, selection.contents)?;
        // The directory that the source, or what is in it, is put into.
        let (way, name) = match names.split_last() {
            Some((name, parent)) => (self.existing(parent)?, name.clone()),
            None => (self.target.root(), Vec::new()),
        };
        self.way = Some(way);
        self.name = name;
        self.existed.clear();
        self.links.clear();
        let cancel = self.cancel;
        selection.walk(view, source, cancel, self)
    }

    /// The names of the path that a source is copied to; its parent is made if need be (`prepareTargetDir`).
    fn place(
        &self,
        destination: &str,
        source_name: &[u8],
        is_directory: bool,
        contents: bool,
    ) -> Result<Vec<Vec<u8>>> {
        let last = destination.rsplit('/').next().unwrap_or_default();
        let ensured = match last {
            "" | "." => destination,
            last => &destination[..destination.len() - last.len()],
        };
        self.make_parents(&self.target.resolve(ensured.as_bytes())?)?;
        let mut names = self.target.resolve(destination.as_bytes())?;
        let (exists, exists_as_directory) = match names.split_last() {
            None => (true, true),
            Some((name, parent)) => match self.target.way(parent)? {
                None => (false, false),
                Some(way) => match self.target.find(&way, name)? {
                    Some(found) => (true, found.is_directory()),
                    None => (false, false),
                },
            },
        };
        let below = match is_directory {
            true => !contents && exists,
            false => exists_as_directory,
        };
        if below && !source_name.is_empty() {
            names.push(source_name.to_vec());
        }
        if contents && is_directory && !exists {
            self.make_parents(&names)?;
        } else if let Some((_, parent)) = names.split_last() {
            self.make_parents(parent)?;
        }
        Ok(names)
    }

    fn make_parents(&self, names: &[Vec<u8>]) -> Result<Way> {
        let (uid, gid) = self.owner.unwrap_or((0, 0));
        let attributes = Attributes {
            uid,
            gid,
            mode: self.mode.of_parents(),
            times: None,
            xattrs: &[],
        };
        Ok(self.target.make_all(names, &attributes)?.0)
    }

    fn existing(&self, names: &[Vec<u8>]) -> Result<Way> {
        self.target.way(names)?.ok_or_else(|| {
            let path = String::from_utf8_lossy(&names.join(&b'/')).into_owned();
            FilesError::Invalid(format!("/{path} is not a directory"))
        })
    }

    /// Unpacks a source that is an archive; false if it is none.
    fn unpack(&mut self, view: &View, source: &Source, destination: &str) -> Result<bool> {
        let Found::Other(parent, node) = &source.found else {
            return Ok(false);
        };
        if node.kind() != FileType::RegularFile {
            return Ok(false);
        }
        let (file, _) = view.open_file(parent, node)?;
        let Some(archive) = archive::open(file) else {
            return Ok(false);
        };
        let names = self.target.resolve(destination.as_bytes())?;
        let (uid, gid) = self.owner.unwrap_or((0, 0));
        let attributes = Attributes {
            uid,
            gid,
            mode: DIRECTORY_MODE,
            times: None,
            xattrs: &[],
        };
        let (way, _) = self.target.make_all(&names, &attributes)?;
        archive.unpack(&self.target, way, self.owner, self.cancel)?;
        Ok(true)
    }

    /// Writes a heredoc.
    fn inline(&mut self, name: &str, content: &[u8], destination: &str) -> Result<()> {
        let name = name.rsplit('/').next().unwrap_or(name);
        let names = self.place(destination, name.as_bytes(), false, false)?;
        let Some((name, parent)) = names.split_last() else {
            return Err(FilesError::Invalid(
                "cannot write a file in place of the root".to_owned(),
            ));
        };
        let mut way = self.existing(parent)?;
        self.check_replaceable(&way, name)?;
        let mut file = self.target.create_file(&mut way, name)?;
        let (uid, gid) = self.owner.unwrap_or((0, 0));
        let mode = match &self.mode {
            NewMode::Keep => 0o644,
            NewMode::Bits(bits) => bits & 0o7777,
            NewMode::Change(change) => change.apply(0o644, false),
        };
        let attributes = Attributes {
            uid,
            gid,
            mode,
            times: None,
            xattrs: &[],
        };
        file.write_all(content)
            .and_then(|()| Ok(super::target::set(&file.into(), &attributes)?))
            .map_err(FilesError::io("write", way.shown(name)))
    }

    fn check_replaceable(&self, way: &Way, name: &[u8]) -> Result<()> {
        match self.target.find(way, name)? {
            Some(found) if found.is_directory() => Err(FilesError::Invalid(format!(
                "cannot replace to directory {} with file",
                way.shown(name)
            ))),
            _ => Ok(()),
        }
    }

    fn owner(&self, stat: &Stat) -> (u32, u32) {
        self.owner.unwrap_or((stat.st_uid, stat.st_gid))
    }

    fn regular(
        &mut self,
        view: &View,
        parent: &Directory,
        node: &Node,
        way: &mut Way,
        name: &[u8],
    ) -> Result<()> {
        let Some((from, stat)) = view.open_present(parent, node)? else {
            return Ok(());
        };
        let inode = (node.stat.st_dev, node.stat.st_ino);
        if node.stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&inode)
                && self.target.link(first, way, name)?
            {
                return Ok(());
            }
            let mut names = way.names();
            names.push(name.to_vec());
            self.links.insert(inode, names);
        }
        let to = self.target.create_file(way, name)?;
        copy_content(&from, &to, &stat, self.cancel).map_err(|error| {
            match self.cancel.is_cancelled() {
                true => FilesError::Cancelled,
                false => FilesError::io("copy to", way.shown(name))(error),
            }
        })?;
        let (uid, gid) = self.owner(&stat);
        let attributes = Attributes {
            uid,
            gid,
            mode: self.mode.of(&stat),
            times: Some(times(&stat)),
            xattrs: &kept_xattrs(&from),
        };
        super::target::set(&to.into(), &attributes)
            .map_err(FilesError::io("set the attributes of", way.shown(name)))
    }

    fn other(
        &mut self,
        view: &View,
        parent: &Directory,
        node: &Node,
        way: &mut Way,
        name: &[u8],
    ) -> Result<()> {
        let link;
        let special = match node.kind() {
            FileType::Symlink => {
                link = view.read_link(parent, node)?;
                Special::Link(&link)
            }
            // As a stub: an empty file.
            FileType::Socket => Special::Node(FileType::RegularFile, 0),
            // Such a one is called a whiteout: it would remove what is below it.
            FileType::CharacterDevice if node.stat.st_rdev == 0 => {
                return Err(FilesError::Invalid(format!(
                    "cannot copy {}: a character device 0:0 means a removed file in a layer",
                    way.shown(name)
                )));
            }
            kind => Special::Node(kind, node.stat.st_rdev),
        };
        let (uid, gid) = self.owner(&node.stat);
        let attributes = Attributes {
            uid,
            gid,
            mode: self.mode.of(&node.stat),
            times: Some(times(&node.stat)),
            xattrs: &[],
        };
        self.target.create_special(way, name, &special, &attributes)
    }
}

impl Visitor for Copier<'_> {
    fn enter(&mut self, _: &View, directory: &Directory, role: Role) -> Result<()> {
        let mut way = self.way.take().expect("set while a source is copied");
        let name = match role {
            Role::Top => self.name.clone(),
            _ => directory.name().to_vec(),
        };
        let existed = if name.is_empty() {
            // The root of the target.
            true
        } else {
            match self.target.find(&way, &name)? {
                Some(found) if found.is_directory() => {
                    self.target.enter(&mut way, &name, &found)?;
                    true
                }
                Some(_) => {
                    return Err(FilesError::Invalid(format!(
                        "cannot copy to non-directory: {}",
                        way.shown(&name)
                    )));
                }
                None => {
                    self.target.make_directory(&mut way, &name)?;
                    false
                }
            }
        };
        match (existed, role) {
            // Gets the rest when everything is in it.
            (true, Role::Inner | Role::Parent) => way.set_mode(directory.stat.st_mode & 0o7777)?,
            (false, Role::Parent) => way.set_attributes(&Attributes {
                uid: self.owner(&directory.stat).0,
                gid: self.owner(&directory.stat).1,
                mode: self.mode.of(&directory.stat),
                times: Some(times(&directory.stat)),
                xattrs: &kept_xattrs(directory.fd()),
            })?,
            _ => {}
        }
        self.existed.push(existed);
        self.way = Some(way);
        Ok(())
    }

    fn leave(&mut self, _: &View, directory: &Directory, role: Role) -> Result<()> {
        let existed = self.existed.pop().expect("entered before");
        let mut way = self.way.take().expect("set while a source is copied");
        match (existed, role) {
            (true, Role::Top) => way.set_times(&times(&directory.stat))?,
            (_, Role::Parent) => {}
            _ => way.set_attributes(&Attributes {
                uid: self.owner(&directory.stat).0,
                gid: self.owner(&directory.stat).1,
                mode: self.mode.of(&directory.stat),
                times: Some(times(&directory.stat)),
                xattrs: &kept_xattrs(directory.fd()),
            })?,
        }
        if !(role == Role::Top && self.name.is_empty()) {
            way.leave();
        }
        self.way = Some(way);
        Ok(())
    }

    fn file(&mut self, view: &View, parent: &Directory, node: &Node, top: bool) -> Result<()> {
        let mut way = self.way.take().expect("set while a source is copied");
        let name = match top {
            true => self.name.clone(),
            false => node.name.clone(),
        };
        if name.is_empty() {
            return Err(FilesError::Invalid(
                "cannot copy a file in place of the root".to_owned(),
            ));
        }
        self.check_replaceable(&way, &name)?;
        match node.kind() {
            FileType::RegularFile => self.regular(view, parent, node, &mut way, &name)?,
            _ => self.other(view, parent, node, &mut way, &name)?,
        }
        self.way = Some(way);
        Ok(())
    }
}
