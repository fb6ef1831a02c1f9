//! A stage's file system as one tar.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use rustix::fs::{FileType, Stat};
use tar::EntryType;
use tokio_util::sync::CancellationToken;

use super::error::{FilesError, Result};
use super::select::{Role, Selection, Visitor};
use super::view::{Directory, Node};
use super::{Rewrite, View};
use crate::error::ImageError;
use crate::layers::{Member, PackError, Stream, TarWriter, kept_xattrs};

/// Writes everything in `view` as members of a plain tar (`--output type=tar` and `type=local`), without the end-of-archive
/// mark, so that several can follow each other. With a `prefix` (a name, no path) all is below it, and it has a member of its
/// own; without one the root has none.
///
/// # Errors
/// What cannot be read, and `output`'s own.
pub fn write_tar(
    view: &View,
    prefix: &str,
    rewrite: Rewrite,
    output: &mut dyn Write,
    cancel: &CancellationToken,
) -> Result<()> {
    let clamp = match rewrite {
        Rewrite::Keep => None,
        Rewrite::Clamp(latest) => Some(latest),
    };
    let mut output = Stream(output);
    let mut export = Export {
        tar: TarWriter::new(&mut output, clamp),
        prefix: prefix.as_bytes(),
        links: HashMap::new(),
    };
    if view.root()?.is_none() {
        return Ok(());
    }
    let selection = Selection::everything("/");
    for source in selection.sources(view)? {
        selection.walk(view, &source, cancel, &mut export)?;
    }
    Ok(())
}

struct Export<'a> {
    tar: TarWriter<'a>,
    prefix: &'a [u8],
    /// Device and inode → first name, of files with several.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl Export<'_> {
    /// What the tar calls something.
    fn name(&self, parent: &[u8], name: &[u8]) -> Vec<u8> {
        [self.prefix, parent, name]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(&b'/')
    }

    fn member(&mut self, kind: EntryType, member: &Member<'_>) -> Result<()> {
        self.tar.member(member, kind).map_err(failed)
    }
}

impl Visitor for Export<'_> {
    fn enter(&mut self, _: &View, directory: &Directory, _: Role) -> Result<()> {
        let mut name = self.name(&directory.path, &[]);
        if name.is_empty() {
            return Ok(());
        }
        name.push(b'/');
        let member = plain(&name, &directory.stat, kept_xattrs(directory.fd()));
        self.member(EntryType::Directory, &member)
    }

    fn leave(&mut self, _: &View, _: &Directory, _: Role) -> Result<()> {
        Ok(())
    }

    fn file(&mut self, view: &View, parent: &Directory, node: &Node, _: bool) -> Result<()> {
        let name = self.name(&parent.path, &node.name);
        let kind = match node.kind() {
            FileType::RegularFile => {
                let inode = (node.stat.st_dev, node.stat.st_ino);
                if node.stat.st_nlink > 1 {
                    if let Some(first) = self.links.get(&inode).cloned() {
                        let mut member = plain(&name, &node.stat, Vec::new());
                        member.link = &first;
                        return self.member(EntryType::Link, &member);
                    }
                    self.links.insert(inode, name.clone());
                }
                let (file, stat) = view.open_file(parent, node)?;
                let mut member = plain(&name, &stat, kept_xattrs(&file));
                member.size = stat.st_size as u64;
                let path = PathBuf::from(String::from_utf8_lossy(&name).into_owned());
                return self
                    .tar
                    .file(&member, &mut File::from(file), &path)
                    .map_err(failed);
            }
            FileType::Symlink => {
                let target = view.read_link(parent, node)?;
                let mut member = plain(&name, &node.stat, Vec::new());
                member.link = &target;
                return self.member(EntryType::Symlink, &member);
            }
            FileType::CharacterDevice => EntryType::Char,
            FileType::BlockDevice => EntryType::Block,
            FileType::Fifo => EntryType::Fifo,
            // Sockets have no form in a tar.
            _ => return Ok(()),
        };
        let member = plain(&name, &node.stat, Vec::new());
        self.member(kind, &member)
    }
}

fn plain<'a>(name: &'a [u8], stat: &'a Stat, xattrs: Vec<(Vec<u8>, Vec<u8>)>) -> Member<'a> {
    Member {
        name,
        link: &[],
        stat,
        size: 0,
        xattrs,
    }
}

fn failed(error: PackError) -> FilesError {
    match error {
        PackError::Write(error) => ImageError::Output(error).into(),
        other => crate::store::pack_error(other).into(),
    }
}
