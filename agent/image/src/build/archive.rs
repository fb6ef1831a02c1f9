//! Archives that `ADD` unpacks: tars, plain or compressed, known by their content and not by their name.
//!
//! Names, and the links that they lead through, are resolved inside of the destination directory as if it were the root.
//! What is replaced and what is merged follows `moby/go-archive:archive.go` (`Unpack`), which BuildKit calls; bounds are
//! those of layers.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{FileType, Timestamps};
use tokio_util::sync::CancellationToken;

use super::error::{FilesError, Result};
use super::target::{Attributes, Special, Target, Way};
use super::view::parts;
use crate::archive::{PayloadError, write_payload};
use crate::inflate::{Compression, Inflate};
use crate::layers::attributes::{kept_xattrs, times};
use crate::limits::Limits;
use crate::tar_stream::{Entry, Kind, TarError, TarReader};

/// Mode of directories that the archive only implies.
const IMPLIED_MODE: u32 = 0o755;

/// A file that is an archive.
pub(super) struct Archive {
    file: File,
    limits: Limits,
}

/// Looks at a file's content: `None` if it does not begin like an archive.
pub(super) fn open(file: OwnedFd) -> Option<Archive> {
    let archive = Archive {
        file: file.into(),
        limits: Limits::default(),
    };
    let first = archive.tar().ok()?.next_entry();
    matches!(first, Ok(Some(_))).then_some(archive)
}

impl Archive {
    /// The archive from its beginning.
    fn tar(&self) -> Result<TarReader<impl BufRead, ()>> {
        let mut source = BufReader::with_capacity(
            64 << 10,
            FromStart {
                file: &self.file,
                at: 0,
            },
        );
        let head = source
            .fill_buf()
            .map_err(FilesError::io("read", "the archive"))?;
        let compression = Compression::detect(head);
        let inflate = Inflate::new(source, compression, &self.limits);
        let inflated = BufReader::with_capacity(256 << 10, inflate);
        Ok(TarReader::new(inflated, (), self.limits.clone()))
    }

    /// Unpacks everything into the directory at the end of `way`. `owner`: whose everything is; else it is the archive's word.
    pub(super) fn unpack(
        &self,
        target: &Target,
        way: Way,
        owner: Option<(u32, u32)>,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let mut unpacking = Unpacking {
            target: target.rooted(way)?,
            owner,
            parent: None,
            bytes: 0,
            limits: &self.limits,
            directories: Vec::new(),
        };
        let mut tar = self.tar()?;
        while let Some(entry) = tar.next_entry().map_err(broken)? {
            if cancel.is_cancelled() {
                return Err(FilesError::Cancelled);
            }
            unpacking.apply(&entry, &mut tar)?;
        }
        // Behind the last entry are the checksums of packed archives.
        tar.finish().map_err(broken)?;
        unpacking.finish_directories()
    }
}

/// Reads a file without moving its offset.
struct FromStart<'a> {
    file: &'a File,
    at: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.file.read_at(buffer, self.at)?;
        self.at += len as u64;
        Ok(len)
    }
}

struct Unpacking<'a> {
    target: Target,
    owner: Option<(u32, u32)>,
    /// The parent used last, by its path in the archive.
    parent: Option<(Vec<u8>, Way)>,
    bytes: u64,
    limits: &'a Limits,
    /// Directories whose times are set at the end, because filling them changes these.
    directories: Vec<(Vec<Vec<u8>>, Timestamps)>,
}

impl Unpacking<'_> {
    fn apply<R: BufRead>(&mut self, entry: &Entry, tar: &mut TarReader<R, ()>) -> Result<()> {
        if entry.kind == Kind::Global {
            return Ok(());
        }
        let names = clean(&entry.path);
        if names.len() > self.limits.path_depth {
            return Err(super::view::too_deep());
        }
        let Some((name, parent)) = names.split_last() else {
            // The destination itself is there, and stays what it is.
            return Ok(());
        };
        let mut way = self.enter(parent)?;
        let there = self.target.find(&way, name)?;
        let merged = entry.kind == Kind::Directory
            && there
                .as_ref()
                .is_some_and(super::target::Existing::is_directory);
        if there.is_some() && !merged {
            // Ways that led through it are no longer right.
            self.parent = None;
        } else if self.parent.is_none() {
            self.parent = Some((parent.join(&b'/'), way.clone()));
        }
        let (uid, gid) = self.owner.unwrap_or((entry.uid, entry.gid));
        let xattrs: Vec<(Vec<u8>, Vec<u8>)> = kept_xattrs(entry)
            .map(|(key, value)| (key.to_vec(), value.to_vec()))
            .collect();
        let attributes = Attributes {
            uid,
            gid,
            mode: entry.mode,
            times: Some(times(entry)),
            xattrs: &xattrs,
        };
        match entry.kind {
            Kind::File => self.file(entry, tar, &mut way, name, &attributes),
            Kind::Directory => {
                match there.filter(|_| merged) {
                    Some(found) => self.target.enter(&mut way, name, &found)?,
                    None => {
                        if self.target.find(&way, name)?.is_some() {
                            self.target.clear(&mut way, name)?;
                        }
                        self.target.make_directory(&mut way, name)?;
                    }
                }
                way.set_attributes(&attributes)?;
                self.directories.push((way.names(), times(entry)));
                Ok(())
            }
            Kind::HardLink => self.hard_link(entry, &mut way, name, &attributes),
            Kind::Symlink => {
                let special = Special::Link(&entry.link);
                self.target
                    .create_special(&mut way, name, &special, &attributes)
            }
            Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => {
                let (kind, device) = match entry.kind {
                    Kind::CharDevice => (FileType::CharacterDevice, entry.device),
                    Kind::BlockDevice => (FileType::BlockDevice, entry.device),
                    _ => (FileType::Fifo, (0, 0)),
                };
                if (kind, device) == (FileType::CharacterDevice, (0, 0)) {
                    return Err(FilesError::Invalid(format!(
                        "cannot unpack {}: a character device 0:0 means a removed file in a layer",
                        way.shown(name)
                    )));
                }
                let device = rustix::fs::makedev(device.0, device.1);
                let special = Special::Node(kind, device);
                self.target
                    .create_special(&mut way, name, &special, &attributes)
            }
            Kind::Global => Ok(()),
        }
    }

    fn file<R: BufRead>(
        &mut self,
        entry: &Entry,
        tar: &mut TarReader<R, ()>,
        way: &mut Way,
        name: &[u8],
        attributes: &Attributes<'_>,
    ) -> Result<()> {
        self.bytes = self.bytes.saturating_add(entry.size);
        if self.bytes > self.limits.layer_bytes {
            return Err(FilesError::Limit {
                what: "bytes in one archive",
                limit: self.limits.layer_bytes,
            });
        }
        let mut file = self.target.create_file(way, name)?;
        write_payload(tar, entry, &mut file).map_err(|error| match error {
            PayloadError::Tar(error) => broken(error),
            PayloadError::Write(error) => FilesError::io("write", way.shown(name))(error),
        })?;
        super::target::set(&file.into(), attributes)
            .map_err(FilesError::io("set the attributes of", way.shown(name)))
    }

    /// The target is a name in the archive, so it is looked for below the destination. Its attributes become the entry's.
    fn hard_link(
        &mut self,
        entry: &Entry,
        way: &mut Way,
        name: &[u8],
        attributes: &Attributes<'_>,
    ) -> Result<()> {
        let first = clean(&entry.link);
        let missing = || {
            let first = String::from_utf8_lossy(&entry.link).into_owned();
            FilesError::Invalid(format!(
                "cannot unpack {}: it is a hard link to {first:?}, which is not there",
                way.shown(name)
            ))
        };
        let Some((first_name, first_parent)) = first.split_last() else {
            return Err(missing());
        };
        let real = self.target.resolve(&first_parent.join(&b'/'))?;
        let mut from = self.target.way(&real)?.ok_or_else(missing)?;
        let found = self.target.find(&from, first_name)?.ok_or_else(missing)?;
        if found.is_directory() || (from.names() == way.names() && first_name == name) {
            return Err(missing());
        }
        self.target.copy_up_file(&mut from, first_name, &found)?;
        let mut first = from.names();
        first.push(first_name.clone());
        // What was only below a moment ago is in the upper directory now, and so are ways to it.
        let mut way = self.target.way(&way.names())?.ok_or_else(missing)?;
        if !self.target.link(&first, &mut way, name)? {
            return Err(missing());
        }
        self.parent = None;
        way.set_attributes_of(name, attributes)
    }

    /// The directory `names`, made with its parents where the archive only implies it.
    fn enter(&mut self, names: &[Vec<u8>]) -> Result<Way> {
        let path = names.join(&b'/');
        if let Some((known, way)) = &self.parent
            && *known == path
        {
            return Ok(way.clone());
        }
        self.parent = None;
        let real = self.target.resolve(&path)?;
        let attributes = Attributes {
            uid: 0,
            gid: 0,
            mode: IMPLIED_MODE,
            times: None,
            xattrs: &[],
        };
        Ok(self.target.make_all(&real, &attributes)?.0)
    }

    fn finish_directories(&mut self) -> Result<()> {
        for (names, times) in std::mem::take(&mut self.directories).into_iter().rev() {
            // One that a later entry replaced is no longer there.
            if let Some(mut way) = self.target.way(&names)? {
                way.set_times(&times)?;
            }
        }
        Ok(())
    }
}

/// The parts of a name; `..` ends at the destination, as in a root.
fn clean(path: &[u8]) -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = Vec::new();
    for part in parts(path) {
        match part {
            b".." => drop(names.pop()),
            part => names.push(part.to_vec()),
        }
    }
    names
}

fn broken(error: TarError) -> FilesError {
    match error {
        TarError::Limit { what, limit } => FilesError::Limit { what, limit },
        other => FilesError::Invalid(format!("cannot unpack: {other}")),
    }
}
