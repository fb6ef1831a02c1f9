//! Unpacks a tar stream into a directory of a tree that somebody else may be changing meanwhile.
//!
//! The parent of every entry is resolved anew by openat2(2) with `RESOLVE_IN_ROOT`, so that links inside the tree work
//! as for a process in it and no race leads out. The last component is never followed: what is there is merged with
//! (two directories) or replaced. Names may not climb out of the destination by themselves.
//!
//! Source: `moby/go-archive:archive.go` (`Unpack`, `createTarFile`) for what is replaced and what is refused.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Timestamps, XattrFlags};
use rustix::io::Errno;

use super::payload::{PayloadError, write_payload};
use crate::inflate::{Compression, Inflate};
use crate::layers::attributes::{file_attributes, kept_xattrs, owner, times, tolerate};
use crate::limits::Limits;
use crate::tar_stream::{Entry, Kind, TarError, TarReader};

/// How often a resolution that the kernel calls racy is tried again.
const RACES_MAX: u32 = 1000;
/// Directories whose times wait for the end, because filling them changes these.
const DIRECTORIES_MAX: usize = 65_536;
/// Deepest directory that is replaced by something else: protects the stack.
const DEPTH_MAX: usize = 512;

/// Where to unpack.
#[derive(Debug, Clone, Copy)]
pub struct Destination<'a> {
    /// Root of the tree: nothing is made outside of it, and absolute links start here.
    pub root: BorrowedFd<'a>,
    /// The directory in that tree; it must exist. Empty: the root itself.
    pub directory: &'a [u8],
}

/// What an entry may take the place of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwrite {
    /// Anything.
    Anything,
    /// A directory only of a directory, everything else only of what is no directory.
    SameKind,
}

/// Who owns what is unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Whom the archive names.
    Archive,
    /// Whoever unpacks.
    Caller,
    /// This user and group.
    Fixed(u32, u32),
}

/// How to unpack.
#[derive(Debug, Clone)]
pub struct ExtractOptions {
    /// What may be replaced.
    pub overwrite: Overwrite,
    /// Owner of everything.
    pub owner: Owner,
    /// What the first part of every name becomes: `(before, after)`. With nothing (or `.`) before, the names are put
    /// below `after`. A name that begins with something else leads out of the destination.
    pub rename: Option<(Vec<u8>, Vec<u8>)>,
    /// Bounds on the archive.
    pub limits: Limits,
}

/// Why an archive was not (completely) unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The stream is no tar archive, is cut short or breaks a limit.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// An entry leads out of the destination.
    #[error("refusing entry {entry:?}: it is outside of the destination")]
    Outside {
        /// Its name in the archive.
        entry: String,
    },
    /// A directory would replace something else, or the other way round.
    #[error("cannot overwrite {} {entry:?} with {}", kind(*.there), kind(!*.there))]
    Kind {
        /// Its name in the archive.
        entry: String,
        /// Whether what is there is a directory.
        there: bool,
    },
    /// The file system refused an entry.
    #[error("cannot unpack {entry:?}: {source}")]
    Entry {
        /// Its name in the archive.
        entry: String,
        /// The system's answer.
        source: io::Error,
    },
}

fn kind(directory: bool) -> &'static str {
    match directory {
        true => "directory",
        false => "non-directory",
    }
}

/// Unpacks `source`, compressed or not, and reads it to its end. What was unpacked before an error stays. Blocks.
///
/// # Errors
/// The first one.
pub fn extract(
    source: impl Read,
    destination: Destination<'_>,
    options: &ExtractOptions,
) -> Result<(), ExtractError> {
    let mut source = BufReader::with_capacity(64 << 10, source);
    let head = source.fill_buf().map_err(TarError::Read)?;
    if head.is_empty() {
        return Ok(());
    }
    let compression = Compression::detect(head);
    let inflate = Inflate::new(source, compression, &options.limits);
    let inflated = BufReader::with_capacity(256 << 10, inflate);
    let mut tar = TarReader::new(inflated, (), options.limits.clone());
    let mut extraction = Extraction {
        destination,
        options,
        parent: None,
        bytes: 0,
        directories: Vec::new(),
    };
    while let Some(mut entry) = tar.next_entry()? {
        extraction.apply(&mut entry, &mut tar)?;
    }
    extraction.finish_directories();
    tar.finish()?;
    Ok(())
}

struct Extraction<'a> {
    destination: Destination<'a>,
    options: &'a ExtractOptions,
    /// The parent used last, by its path below the destination.
    parent: Option<(Vec<u8>, OwnedFd)>,
    bytes: u64,
    directories: Vec<(Vec<u8>, Timestamps)>,
}

impl Extraction<'_> {
    fn apply<R: BufRead>(
        &mut self,
        entry: &mut Entry,
        tar: &mut TarReader<R, ()>,
    ) -> Result<(), ExtractError> {
        if entry.kind == Kind::Global {
            return Ok(());
        }
        (entry.uid, entry.gid) = match self.options.owner {
            Owner::Archive => (entry.uid, entry.gid),
            Owner::Fixed(uid, gid) => (uid, gid),
            Owner::Caller => (
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw(),
            ),
        };
        let path = self.clean(&entry.path)?;
        let Some((parent, name)) = split(&path) else {
            // The destination itself: it exists, and its attributes are not the archive's to change.
            return Ok(());
        };
        let name = OsStr::from_bytes(name);
        self.enter(parent).map_err(|e| failed(entry, e))?;
        let there = match rustix::fs::statat(self.parent(), name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Some(FileType::from_raw_mode(stat.st_mode) == FileType::Directory),
            Err(Errno::NOENT) => None,
            Err(error) => return Err(failed(entry, error)),
        };
        let directory = entry.kind == Kind::Directory;
        if let Some(there) = there {
            if there != directory && self.options.overwrite == Overwrite::SameKind {
                return Err(ExtractError::Kind {
                    entry: text(&entry.path),
                    there,
                });
            }
            if !(there && directory) {
                remove(self.parent(), name, there, 0).map_err(|e| failed(entry, e))?;
            }
        }
        match entry.kind {
            Kind::File => self.file(entry, name, tar),
            Kind::HardLink => {
                let target = self.clean(&entry.link)?;
                self.hard_link(&target, parent, name)
                    .map_err(|e| failed(entry, e))
            }
            Kind::Directory => self
                .directory(entry, &path, name, there == Some(true))
                .map_err(|e| failed(entry, e)),
            _ => self.special(entry, name).map_err(|e| failed(entry, e)),
        }
    }

    /// `path` without empty parts, `.` and `..`.
    fn clean(&self, path: &[u8]) -> Result<Vec<u8>, ExtractError> {
        let mut parts: Vec<&[u8]> = Vec::new();
        for part in path.split(|b| *b == b'/') {
            match part {
                b"" | b"." => {}
                b".." => {
                    if parts.pop().is_none() {
                        return Err(ExtractError::Outside { entry: text(path) });
                    }
                }
                part => parts.push(part),
            }
        }
        if parts.len() > self.options.limits.path_depth {
            return Err(TarError::Limit {
                what: "levels of directories",
                limit: self.options.limits.path_depth as u64,
            }
            .into());
        }
        if let Some((before, after)) = &self.options.rename {
            if matches!(before.as_slice(), b"" | b".") {
                parts.insert(0, after);
            } else if let Some(first) = parts.first_mut() {
                if *first != before.as_slice() {
                    return Err(ExtractError::Outside { entry: text(path) });
                }
                *first = after;
            }
        }
        Ok(parts.join(&b'/'))
    }

    fn parent(&self) -> &OwnedFd {
        &self
            .parent
            .as_ref()
            .expect("entered before anything is made in it")
            .1
    }

    /// Opens the directory `path` of the destination as the parent of what follows; missing ones are made.
    fn enter(&mut self, path: &[u8]) -> io::Result<()> {
        if self.parent.as_ref().is_some_and(|(known, _)| known == path) {
            return Ok(());
        }
        let directory = match self.open(path) {
            Err(Errno::NOENT) => {
                self.make(path)?;
                self.open(path)?
            }
            other => other?,
        };
        self.parent = Some((path.to_vec(), directory));
        Ok(())
    }

    fn open(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        let mut whole = vec![b'.'];
        for part in [self.destination.directory, path] {
            if !part.is_empty() {
                whole.push(b'/');
                whole.extend_from_slice(part);
            }
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let mut tries = 0;
        loop {
            let path = OsStr::from_bytes(&whole);
            let opened =
                rustix::fs::openat2(self.destination.root, path, flags, Mode::empty(), resolve);
            match opened {
                // A rename or mount anywhere on the machine while a `..` was being resolved.
                Err(Errno::AGAIN) if tries < RACES_MAX => tries += 1,
                result => return result,
            }
        }
    }

    /// Makes `path` and its missing parents, as 0755 of the caller (or the fixed owner).
    fn make(&self, path: &[u8]) -> io::Result<()> {
        let mut parent = self.open(b"")?;
        let ends = path.iter().enumerate().filter(|(_, b)| **b == b'/');
        for at in ends.map(|(at, _)| at).chain([path.len()]) {
            let prefix = &path[..at];
            parent = match self.open(prefix) {
                Err(Errno::NOENT) => {
                    let name = split(prefix).map_or(prefix, |(_, name)| name);
                    let name = OsStr::from_bytes(name);
                    let mode = Mode::from_raw_mode(0o755);
                    match rustix::fs::mkdirat(&parent, name, mode) {
                        // Somebody else was faster, or it is a link to nowhere, which `open` tells.
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(error.into()),
                    }
                    if let Owner::Fixed(uid, gid) = self.options.owner {
                        let (uid, gid) = (
                            rustix::fs::Uid::from_raw(uid),
                            rustix::fs::Gid::from_raw(gid),
                        );
                        let flags = AtFlags::SYMLINK_NOFOLLOW;
                        rustix::fs::chownat(&parent, name, Some(uid), Some(gid), flags)?;
                    }
                    self.open(prefix)?
                }
                other => other?,
            };
        }
        Ok(())
    }

    fn file<R: BufRead>(
        &mut self,
        entry: &Entry,
        name: &OsStr,
        tar: &mut TarReader<R, ()>,
    ) -> Result<(), ExtractError> {
        self.bytes = self.bytes.saturating_add(entry.size);
        if self.bytes > self.options.limits.layer_bytes {
            return Err(TarError::Limit {
                what: "bytes in one archive",
                limit: self.options.limits.layer_bytes,
            }
            .into());
        }
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self.parent(), name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|e| failed(entry, e))?;
        let mut file = std::fs::File::from(file);
        write_payload(tar, entry, &mut file).map_err(|error| match error {
            PayloadError::Tar(error) => error.into(),
            PayloadError::Write(error) => failed(entry, error),
        })?;
        file_attributes(entry, &file).map_err(|e| failed(entry, e))
    }

    /// The target is a name in the archive, so it is looked for below the destination.
    fn hard_link(&self, target: &[u8], parent: &[u8], name: &OsStr) -> io::Result<()> {
        let (target_parent, target_name) =
            split(target).ok_or(io::Error::from(io::ErrorKind::InvalidInput))?;
        let opened;
        let directory = match target_parent == parent {
            true => self.parent(),
            false => {
                opened = self.open(target_parent)?;
                &opened
            }
        };
        let target_name = OsStr::from_bytes(target_name);
        rustix::fs::linkat(
            directory,
            target_name,
            self.parent(),
            name,
            AtFlags::empty(),
        )?;
        Ok(())
    }

    fn directory(
        &mut self,
        entry: &Entry,
        path: &[u8],
        name: &OsStr,
        there: bool,
    ) -> io::Result<()> {
        if !there {
            rustix::fs::mkdirat(self.parent(), name, Mode::RWXU)?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(self.parent(), name, flags, Mode::empty())?;
        let (uid, gid) = owner(entry);
        rustix::fs::fchown(&made, uid, gid)?;
        rustix::fs::fchmod(&made, Mode::from_raw_mode(entry.mode))?;
        for (key, value) in kept_xattrs(entry) {
            let key_name = OsStr::from_bytes(key);
            let set = rustix::fs::fsetxattr(&made, key_name, value, XattrFlags::empty());
            tolerate(key, set)?;
        }
        if self.directories.len() >= DIRECTORIES_MAX {
            self.finish_directories();
        }
        self.directories.push((path.to_vec(), times(entry)));
        Ok(())
    }

    /// Symbolic links, devices and fifos.
    fn special(&self, entry: &Entry, name: &OsStr) -> io::Result<()> {
        let parent = self.parent();
        let file_type = match entry.kind {
            Kind::CharDevice => FileType::CharacterDevice,
            Kind::BlockDevice => FileType::BlockDevice,
            Kind::Fifo => FileType::Fifo,
            _ => {
                rustix::fs::symlinkat(OsStr::from_bytes(&entry.link), parent, name)?;
                FileType::Symlink
            }
        };
        if file_type != FileType::Symlink {
            let device = match file_type {
                FileType::Fifo => 0,
                _ => rustix::fs::makedev(entry.device.0, entry.device.1),
            };
            rustix::fs::mknodat(parent, name, file_type, Mode::RUSR, device)?;
        }
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        let (uid, gid) = owner(entry);
        rustix::fs::chownat(parent, name, uid, gid, nofollow)?;
        if file_type != FileType::Symlink {
            // chmod follows links, and somebody may have put one here: go by a descriptor that cannot be one.
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let made = rustix::fs::openat(parent, name, flags, Mode::empty())?;
            if FileType::from_raw_mode(rustix::fs::fstat(&made)?.st_mode) == file_type {
                let path = crate::layers::proc_path(&made);
                rustix::fs::chmod(path, Mode::from_raw_mode(entry.mode))?;
            }
        }
        rustix::fs::utimensat(parent, name, &times(entry), nofollow)?;
        Ok(())
    }

    /// Sets the times of the directories that are complete. One that is gone meanwhile needs none.
    fn finish_directories(&mut self) {
        for (path, times) in std::mem::take(&mut self.directories).into_iter().rev() {
            let Some((parent, name)) = split(&path) else {
                continue;
            };
            if let Ok(parent) = self.open(parent) {
                let name = OsStr::from_bytes(name);
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                let _ = rustix::fs::utimensat(&parent, name, &times, flags);
            }
        }
    }
}

/// Removes what is in an entry's way, links not followed.
fn remove(parent: &OwnedFd, name: &OsStr, directory: bool, depth: usize) -> io::Result<()> {
    if !directory {
        return Ok(rustix::fs::unlinkat(parent, name, AtFlags::empty())?);
    }
    if depth > DEPTH_MAX {
        return Err(io::Error::other(format!(
            "directories are nested more than {DEPTH_MAX} deep"
        )));
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    let mut children = Vec::new();
    for child in Dir::read_from(&opened)? {
        let child = child?;
        if !matches!(child.file_name().to_bytes(), b"." | b"..") {
            children.push(child.file_name().to_owned());
        }
    }
    for child in children {
        let child = OsStr::from_bytes(child.as_bytes());
        let stat = rustix::fs::statat(&opened, child, AtFlags::SYMLINK_NOFOLLOW)?;
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        remove(&opened, child, is_directory, depth + 1)?;
    }
    Ok(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

/// Parent and last part of a cleaned path; `None` for the destination itself.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.is_empty() {
        return None;
    }
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => Some((&path[..slash], &path[slash + 1..])),
        None => Some((b"", path)),
    }
}

fn failed(entry: &Entry, source: impl Into<io::Error>) -> ExtractError {
    ExtractError::Entry {
        entry: text(&entry.path),
        source: source.into(),
    }
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::fd::AsFd as _;
    use std::path::Path;

    fn tar(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o755);
            header.set_mtime(1_000_000_000);
            let link = matches!(kind, tar::EntryType::Symlink | tar::EntryType::Link);
            header.set_size(if link { 0 } else { content.len() as u64 });
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            if link {
                header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
            }
            header.set_cksum();
            let data = if link { &b""[..] } else { content.as_bytes() };
            builder.append(&header, data).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn unpack(root: &Path, directory: &str, bytes: &[u8]) -> Result<(), String> {
        let opened = fs::File::open(root).unwrap();
        let destination = Destination {
            root: opened.as_fd(),
            directory: directory.as_bytes(),
        };
        let options = ExtractOptions {
            overwrite: Overwrite::SameKind,
            owner: Owner::Caller,
            rename: None,
            limits: Limits::default(),
        };
        extract(bytes, destination, &options).map_err(|error| error.to_string())
    }

    use tar::EntryType::{Directory, Link, Regular, Symlink};

    #[test]
    fn trees_are_merged_and_files_replaced() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("to/d")).unwrap();
        fs::write(root.path().join("to/d/old"), "old").unwrap();
        fs::write(root.path().join("to/d/file"), "old").unwrap();
        let bytes = tar(&[
            ("d", Directory, ""),
            ("d/file", Regular, "new"),
            ("d/same", Link, "d/file"),
            ("made/on/the/way", Regular, "x"),
        ]);
        unpack(root.path(), "to", &bytes).unwrap();
        let read = |path: &str| fs::read_to_string(root.path().join("to").join(path)).unwrap();
        assert_eq!(
            (read("d/old"), read("d/file"), read("d/same")),
            ("old".into(), "new".into(), "new".into())
        );
        assert_eq!(read("made/on/the/way"), "x");
        let modified = fs::metadata(root.path().join("to/d"))
            .unwrap()
            .modified()
            .unwrap();
        let since = modified.duration_since(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(since.as_secs(), 1_000_000_000);
    }

    #[test]
    fn nothing_leaves_the_root() {
        let outside = tempfile::tempdir().unwrap();
        let root = outside.path().join("root");
        fs::create_dir_all(root.join("to")).unwrap();
        let victim = outside.path().join("victim");
        fs::write(&victim, "untouched").unwrap();
        let out = outside.path().to_str().unwrap();
        for entries in [
            vec![("../../victim", Regular, "owned")],
            vec![("l", Symlink, out), ("l/victim", Regular, "owned")],
            vec![("m", Symlink, "../../.."), ("m/victim", Regular, "owned")],
            vec![("h", Link, "../../victim"), ("h", Regular, "owned")],
            vec![
                ("victim", Symlink, "../../victim"),
                ("victim", Regular, "owned"),
            ],
        ] {
            let _ = unpack(&root, "to", &tar(&entries));
            assert_eq!(
                fs::read_to_string(&victim).unwrap(),
                "untouched",
                "{entries:?}"
            );
        }
        let error = unpack(&root, "to", &tar(&[("../x", Regular, "")])).unwrap_err();
        assert_eq!(
            error,
            r#"refusing entry "../x": it is outside of the destination"#
        );
    }

    #[test]
    fn links_of_the_tree_work_as_inside_it() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("real")).unwrap();
        fs::create_dir(root.path().join("to")).unwrap();
        std::os::unix::fs::symlink("/real", root.path().join("to/link")).unwrap();
        unpack(root.path(), "to", &tar(&[("link/file", Regular, "x")])).unwrap();
        assert_eq!(
            fs::read_to_string(root.path().join("real/file")).unwrap(),
            "x"
        );
    }

    #[test]
    fn directories_and_files_do_not_replace_each_other_unless_asked() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("d/below")).unwrap();
        fs::write(root.path().join("f"), "").unwrap();
        assert_eq!(
            unpack(root.path(), "", &tar(&[("d", Regular, "x")])).unwrap_err(),
            r#"cannot overwrite directory "d" with non-directory"#
        );
        assert_eq!(
            unpack(root.path(), "", &tar(&[("f", Directory, "")])).unwrap_err(),
            r#"cannot overwrite non-directory "f" with directory"#
        );
        let opened = fs::File::open(root.path()).unwrap();
        let destination = Destination {
            root: opened.as_fd(),
            directory: b"",
        };
        let options = ExtractOptions {
            overwrite: Overwrite::Anything,
            owner: Owner::Caller,
            rename: None,
            limits: Limits::default(),
        };
        extract(&tar(&[("d", Regular, "x")])[..], destination, &options).unwrap();
        assert_eq!(fs::read_to_string(root.path().join("d")).unwrap(), "x");
    }

    #[test]
    fn names_are_changed_and_others_refused() {
        let root = tempfile::tempdir().unwrap();
        let opened = fs::File::open(root.path()).unwrap();
        let unpack = |before: &str, entries: &[(&str, tar::EntryType, &str)]| {
            let destination = Destination {
                root: opened.as_fd(),
                directory: b"",
            };
            let options = ExtractOptions {
                overwrite: Overwrite::SameKind,
                owner: Owner::Caller,
                rename: Some((before.into(), b"new".to_vec())),
                limits: Limits::default(),
            };
            extract(&tar(entries)[..], destination, &options)
        };
        unpack(
            "d",
            &[
                ("d", Directory, ""),
                ("d/f", Regular, "1"),
                ("d/h", Link, "d/f"),
            ],
        )
        .unwrap();
        unpack(".", &[("./", Directory, ""), ("./g", Regular, "2")]).unwrap();
        let read = |name: &str| fs::read_to_string(root.path().join("new").join(name)).unwrap();
        assert_eq!(
            (read("f"), read("h"), read("g")),
            ("1".into(), "1".into(), "2".into())
        );
        assert!(unpack("d", &[("other", Regular, "")]).is_err());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_stream_that_breaks_off_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let whole = tar(&[("f", Regular, &"x".repeat(5000))]);
        assert!(
            unpack(root.path(), "", &whole[..2000])
                .unwrap_err()
                .contains("unexpected end")
        );
        assert!(unpack(root.path(), "", &b"junk".repeat(300)).is_err());
        assert!(unpack(root.path(), "", b"").is_ok());
    }

    #[test]
    fn a_tree_that_was_written_comes_back() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir_all(from.path().join("d/e")).unwrap();
        fs::write(from.path().join("d/e/f"), "hello").unwrap();
        std::os::unix::fs::symlink("e/f", from.path().join("d/l")).unwrap();
        for (child, name) in [(Some("d"), "renamed"), (None, ".")] {
            let opened = OwnedFd::from(fs::File::open(from.path()).unwrap());
            let mut bytes = Vec::new();
            let child = child.map(OsStr::new);
            crate::archive::write_tree(&opened, child, name.as_bytes(), from.path(), &mut bytes)
                .unwrap();
            unpack(to.path(), "", &bytes).unwrap();
        }
        for place in ["renamed", "d"] {
            let link = to.path().join(place).join("l");
            assert_eq!(fs::read_to_string(&link).unwrap(), "hello");
            assert_eq!(fs::read_link(&link).unwrap(), Path::new("e/f"));
        }
    }
}
